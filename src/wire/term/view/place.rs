//! Where a reader of a term is.
//!
//! The term has been checked, so what isn't as it should be need not be told in detail: it ends
//! the reading. No count is believed here either; each step takes at least one byte.

use super::super::tag;
use super::super::walk::{Token, Walker, numeral};
use super::{Atom, BigInteger, Bits, List, Map, Pid, Port, Record, Reference, Slice, Tuple, View};
use crate::limits::{MAX_TERM_DEPTH, OUT_OF_BAND_BYTES, VIEW_LEVELS, VIEW_REMEMBERED_BYTES};
use crate::wire::reader;
use crate::wire::term::{Form, Term};

/// A place in a term, between two tokens.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    rest: &'a [u8],
    term: &'a Term,
    /// Large binaries before it.
    blob: u32,
    /// Containers around it.
    level: u32,
}

impl<'a> Place<'a> {
    pub(super) fn begin(term: &'a Term) -> Self {
        Self {
            rest: term.skeleton().get(1..).unwrap_or_default(),
            term,
            blob: 0,
            level: 0,
        }
    }

    /// The same place, as seen by what it is in.
    pub(super) fn enter(&mut self) {
        self.level = self.level.saturating_add(1);
    }

    /// The place of the first element of a container, the head of which has just been read.
    #[inline(always)]
    fn inside(&self) -> Option<Self> {
        (self.level < MAX_TERM_DEPTH).then_some(Self {
            level: self.level + 1,
            ..*self
        })
    }

    fn offset(&self) -> usize {
        self.term.skeleton().len() - self.rest.len()
    }

    pub(super) fn bytes_left(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn bytes(&self, length: u32) -> Option<&'a [u8]> {
        self.rest.get(..length as usize)
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The count after the tag that comes next.
    pub(super) fn head(&mut self) -> Option<u32> {
        self.u8()?;
        self.u32()
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Option<u8> {
        reader::u8(&mut self.rest)
    }

    #[inline]
    fn u16(&mut self) -> Option<u16> {
        reader::u16(&mut self.rest)
    }

    #[inline]
    fn u32(&mut self) -> Option<u32> {
        reader::u32(&mut self.rest)
    }

    #[inline]
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        reader::bytes(&mut self.rest, length)
    }

    #[inline]
    fn slice(&mut self, length: usize) -> Option<Slice<'a>> {
        let bytes = self.take(length)?;
        Some(Slice::new(bytes, self.term.skeleton()))
    }

    /// What stands here. `owed` takes the number of terms of which it consists and that stand
    /// behind the place where the reader is then.
    ///
    /// To be called where nothing is done with the result but to return it, so that it is not
    /// moved: what was just written in words would be read back in larger parts, on which CPUs
    /// stall for longer than reading it takes. What isn't inlined works on a copy of the place:
    /// so the place itself stays in registers while somebody loops over elements.
    #[inline(always)]
    pub(super) fn read(&mut self, owed: &mut u32) -> Option<View<'a>> {
        let tag = self.u8()?;
        Some(match tag {
            tag::SMALL_INTEGER => View::Integer(self.u8()?.into()),
            tag::INTEGER => {
                View::Integer(i32::from_be_bytes(reader::array(&mut self.rest)?).into())
            }
            tag::SMALL_ATOM_UTF8 => {
                let length = self.u8()?;
                View::Atom(Atom::new(self.take(length.into())?, false))
            }
            tag::BINARY => {
                let length = self.u32()? as usize;
                if length >= OUT_OF_BAND_BYTES {
                    let mut after = *self;
                    let view = after.large(length);
                    *self = after;
                    return view;
                }
                View::Binary(self.slice(length)?)
            }
            tag::SMALL_TUPLE => {
                let arity = self.u8()?.into();
                *owed = arity;
                View::Tuple(Tuple::new(self.inside()?, arity))
            }
            tag => {
                let mut after = *self;
                let mut more = 0;
                let view = after.other(tag, &mut more);
                *self = after;
                *owed = more;
                return view;
            }
        })
    }

    /// The tuple that stands here, if it is one of the common ones.
    #[inline(always)]
    pub(super) fn small_tuple(&self) -> Option<Tuple<'a>> {
        let [tag::SMALL_TUPLE, arity, rest @ ..] = self.rest else {
            return None;
        };
        let first = Self { rest, ..*self }.inside()?;
        Some(Tuple::new(first, (*arity).into()))
    }

    #[inline(never)]
    fn other(&mut self, tag: u8, owed: &mut u32) -> Option<View<'a>> {
        Some(match tag {
            tag::NIL => View::List(List::nil(*self)),
            tag::LIST => match self.u32()? {
                // A list of no elements is its tail.
                0 => {
                    let mut inner = self.inside()?;
                    let view = inner.read(owed);
                    self.rest = inner.rest;
                    self.blob = inner.blob;
                    return view;
                }
                length => {
                    *owed = length.saturating_add(1);
                    View::List(List::cells(self.inside()?, length))
                }
            },
            // One look at whether there are as many bytes: pids are in most messages.
            tag::NEW_PID => {
                let node = self.atom()?;
                let [id, serial, creation] = *self.take(12)?.as_chunks::<4>().0 else {
                    return None;
                };
                View::Pid(Pid {
                    node,
                    id: u32::from_be_bytes(id),
                    serial: u32::from_be_bytes(serial),
                    creation: u32::from_be_bytes(creation),
                })
            }
            tag::PID => View::Pid(Pid {
                node: self.atom()?,
                id: self.u32()?,
                serial: self.u32()?,
                creation: self.creation(false)?,
            }),
            tag::NEWER_REFERENCE | tag::NEW_REFERENCE => {
                let count = self.u16()?;
                let node = self.atom()?;
                let creation = self.creation(tag == tag::NEWER_REFERENCE)?;
                let words = self.take(4 * usize::from(count))?;
                View::Reference(Reference::new(node, creation, words))
            }
            tag::MAP => {
                let pairs = self.u32()?;
                *owed = pairs.saturating_mul(2);
                View::Map(Map::new(self.inside()?, pairs))
            }
            tag::LARGE_TUPLE => {
                let arity = self.u32()?;
                *owed = arity;
                View::Tuple(Tuple::new(self.inside()?, arity))
            }
            tag::ATOM | tag::SMALL_ATOM | tag::ATOM_UTF8 => View::Atom(self.atom_after(tag)?),
            tag::STRING => {
                let place = *self;
                let length = self.u16()?;
                self.take(length.into())?;
                let first = Self {
                    rest: place.rest.get(2..)?,
                    ..place
                };
                View::List(List::string(first, length.into()))
            }
            tag::NEW_FLOAT => View::Float(f64::from_be_bytes(reader::array(&mut self.rest)?)),
            tag::FLOAT => View::Float(numeral(self.take(31)?)?),
            tag::SMALL_BIG => {
                let length = self.u8()?;
                self.big(length.into())?
            }
            tag::LARGE_BIG => {
                let length = self.u32()?;
                self.big(length as usize)?
            }
            tag::BIT_BINARY => {
                let length = self.u32()? as usize;
                let last_bits = self.u8()?;
                match last_bits {
                    8 => View::Binary(self.slice(length)?),
                    1..8 => View::Bits(Bits {
                        bytes: self.take(length)?,
                        last_bits,
                    }),
                    _ => return None,
                }
            }
            tag::REFERENCE => {
                let node = self.atom()?;
                let words = self.take(4)?;
                View::Reference(Reference::new(node, self.creation(false)?, words))
            }
            tag::V4_PORT | tag::NEW_PORT | tag::PORT => View::Port(Port {
                node: self.atom()?,
                id: match tag {
                    tag::V4_PORT => reader::u64(&mut self.rest)?,
                    _ => self.u32()?.into(),
                },
                creation: self.creation(tag != tag::PORT)?,
            }),
            tag::NEW_FUN => {
                let size = u32::from_be_bytes(*self.rest.first_chunk()?);
                View::Fun(self.whole(size as usize)?)
            }
            tag::EXPORT => {
                let mut end = *self;
                end.atom()?;
                end.atom()?;
                // The arity, a small integer.
                end.take(2)?;
                View::Fun(self.whole(self.rest.len() - end.rest.len())?)
            }
            tag::RECORD => {
                let fields = self.u32()?;
                let record = Record::new(self.inside()?, fields);
                self.u8()?;
                // Module and name, too.
                for _ in 0..u64::from(fields) + 2 {
                    self.atom()?;
                }
                *owed = fields;
                View::Record(record)
            }
            tag::LOCAL => {
                let depth = MAX_TERM_DEPTH.saturating_sub(self.level);
                let at = self.offset() - 1;
                let mut walker = Walker::within(self.term.skeleton(), at, &[], depth).ok()?;
                match walker.next().ok()?? {
                    Token::Local(all) => View::Local(self.whole(all.len() - 1)?),
                    _ => return None,
                }
            }
            _ => return None,
        })
    }

    /// What takes so many bytes more than the tag that has been read.
    fn whole(&mut self, more: usize) -> Option<Slice<'a>> {
        let skeleton = self.term.skeleton();
        let start = self.offset() - 1;
        self.take(more)?;
        let whole = skeleton.get(start..self.offset())?;
        Some(Slice::new(whole, skeleton))
    }

    #[inline(never)]
    fn large(&mut self, length: usize) -> Option<View<'a>> {
        if self.term.form() == Form::Whole {
            return self.slice(length).map(View::Binary);
        }
        let blob = self.term.blobs().get(self.blob as usize)?;
        self.blob += 1;
        Some(View::Binary(Slice::new(blob, blob)))
    }

    fn big(&mut self, length: usize) -> Option<View<'a>> {
        let negative = self.u8()? != 0;
        let mut magnitude = self.take(length)?;
        while let Some((0, lower)) = magnitude.split_last() {
            magnitude = lower;
        }
        let mut bytes = [0; 8];
        if let Some(low) = bytes.get_mut(..magnitude.len()) {
            low.copy_from_slice(magnitude);
            let number = i128::from(u64::from_le_bytes(bytes));
            if let Ok(number) = i64::try_from(if negative { -number } else { number }) {
                return Some(View::Integer(number));
            }
        }
        Some(View::BigInteger(BigInteger::new(negative, magnitude)))
    }

    fn creation(&mut self, wide: bool) -> Option<u32> {
        if wide {
            self.u32()
        } else {
            self.u8().map(u32::from)
        }
    }

    #[inline]
    pub(super) fn atom(&mut self) -> Option<Atom<'a>> {
        let tag = self.u8()?;
        self.atom_after(tag)
    }

    #[inline]
    fn atom_after(&mut self, tag: u8) -> Option<Atom<'a>> {
        let length = match tag {
            tag::SMALL_ATOM_UTF8 | tag::SMALL_ATOM => self.u8()?.into(),
            tag::ATOM_UTF8 | tag::ATOM => self.u16()?.into(),
            _ => return None,
        };
        let latin1 = matches!(tag, tag::ATOM | tag::SMALL_ATOM);
        Some(Atom::new(self.take(length)?, latin1))
    }

    /// The container ends here that had so many bytes from its first element on.
    #[inline]
    pub(super) fn pass(&self, first: usize) {
        self.term.pass(first, self.rest.len());
    }

    /// Steps over the container whose first element stands here, if that has been found out.
    #[inline]
    pub(super) fn step_over(&mut self) -> bool {
        let left = self.rest.len();
        let after = self.term.passed(left);
        match after.and_then(|after| self.rest.get(left.checked_sub(after)?..)) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Steps over so many terms. A prefix code takes no stack for it.
    #[inline(never)]
    pub(super) fn skip(&mut self, mut terms: u64) -> Option<()> {
        let ends = (self.level > VIEW_LEVELS).then(|| self.term.ends());
        let mut rest = self.rest;
        while terms > 0 {
            terms -= 1;
            let (after, more) = match *rest {
                [tag::SMALL_INTEGER, _, ref after @ ..]
                | [tag::INTEGER, _, _, _, _, ref after @ ..]
                | [tag::NIL, ref after @ ..] => (after, 0),
                [tag::SMALL_ATOM_UTF8, length, ref after @ ..] => (after.get(length.into()..)?, 0),
                [tag::BINARY, a, b, c, d, ref after @ ..] => {
                    let length = u32::from_be_bytes([a, b, c, d]) as usize;
                    if length >= OUT_OF_BAND_BYTES && self.term.form() == Form::Elided {
                        self.blob = self.blob.saturating_add(1);
                        (after, 0)
                    } else {
                        (after.get(length..)?, 0)
                    }
                }
                [tag::SMALL_TUPLE, arity, ref after @ ..] => (after, arity.into()),
                [tag::LIST, a, b, c, d, ref after @ ..] => {
                    (after, u64::from(u32::from_be_bytes([a, b, c, d])) + 1)
                }
                _ => {
                    let mut owed = 0;
                    self.rest = rest;
                    self.read(&mut owed)?;
                    (self.rest, owed.into())
                }
            };
            if more == 0 {
                rest = after;
                continue;
            }
            let start = self.term.skeleton().len() - rest.len();
            if let Some((end, blobs)) = ends.and_then(|ends| ends.find(start)) {
                rest = self.term.skeleton().get(end..)?;
                self.blob = blobs;
            } else {
                rest = after;
                terms = terms.saturating_add(more);
            }
        }
        self.rest = rest;
        Some(())
    }
}

/// Where the containers of a deep term end: all of some size on every level of which the number
/// is a multiple of [`VIEW_LEVELS`]. So nothing is stepped over more often than that.
#[derive(Debug, Default)]
pub(in crate::wire::term) struct Ends(Vec<End>);

#[derive(Debug)]
struct End {
    start: u32,
    end: u32,
    /// Large binaries before the end.
    blobs: u32,
}

impl Ends {
    pub(in crate::wire::term) fn of(term: &Term) -> Self {
        let Ok(mut walker) = Walker::new(term.skeleton(), term.form(), u32::MAX) else {
            return Self::default();
        };
        let mut ends: Vec<End> = Vec::new();
        // Level, and place in `ends`.
        let mut open: Vec<(u32, usize)> = Vec::new();
        let mut blobs = 0;
        loop {
            let token = walker.next().ok().flatten();
            let (level, at) = match token {
                Some(_) => (walker.level(), walker.start()),
                None => (0, walker.at()),
            };
            while let Some((_, index)) = open.pop_if(|(own, _)| *own >= level) {
                let Some(own) = ends.get_mut(index) else {
                    continue;
                };
                own.end = at as u32;
                own.blobs = blobs;
                if at - (own.start as usize) < VIEW_REMEMBERED_BYTES {
                    // What is within is smaller still.
                    ends.truncate(index);
                }
            }
            match token {
                Some(Token::Fun(fun)) => walker.skip_fun(&fun),
                Some(Token::Blob(_)) => blobs += 1,
                Some(Token::Tuple(_) | Token::List(_) | Token::Map(_))
                    if level > 0 && level.is_multiple_of(VIEW_LEVELS) =>
                {
                    open.push((level, ends.len()));
                    ends.push(End {
                        start: at as u32,
                        end: 0,
                        blobs: 0,
                    });
                }
                Some(_) => {}
                None => return Self(ends),
            }
        }
    }

    /// Where the container that begins there ends, and how many large binaries come before.
    fn find(&self, start: usize) -> Option<(usize, u32)> {
        let start = u32::try_from(start).ok()?;
        let index = self.0.binary_search_by_key(&start, |own| own.start).ok()?;
        let own = self.0.get(index)?;
        Some((own.end as usize, own.blobs))
    }
}
