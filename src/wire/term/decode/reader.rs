//! The recursion over what a term is made of.

use super::super::atoms::Atoms;
use super::super::binary::INLINE;
use super::super::keys::Keys;
use super::super::walk::numeral;
use super::super::{TermError, TermLimits, Value, tag};
use super::place::Place;
use crate::limits::MAX_TERM_DEPTH;
use bytes::Bytes;
use std::sync::Arc;

pub(super) struct Reader<'a> {
    pub(super) source: &'a Bytes,
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
    /// Elements that open containers still lack.
    pub(super) owed: usize,
    /// Containers that may yet be opened within each other.
    pub(super) depth: u32,
    pub(super) max_depth: u32,
    /// Bytes that the value may yet take.
    pub(super) budget: u64,
    pub(super) max_budget: u64,
    pub(super) cached: &'a [Arc<str>],
    pub(super) blobs: Option<std::slice::Iter<'a, Bytes>>,
    pub(super) atoms: &'a mut Atoms,
    /// Whether the value shares memory with the bytes.
    pub(super) pins: bool,
    /// Bytes of large binaries.
    pub(super) large: usize,
    /// Whether keys may not be there twice: the term has not been checked yet.
    pub(super) checks_keys: bool,
    pub(super) keys: Option<Keys>,
    pub(super) error: Option<TermError>,
}

/// `None`: see [`Reader::error`].
impl<'a> Reader<'a> {
    pub(super) fn new(
        source: &'a Bytes,
        at: usize,
        cached: &'a [Arc<str>],
        limits: &TermLimits,
        atoms: &'a mut Atoms,
    ) -> Self {
        Self {
            source,
            bytes: source,
            at,
            owed: 1,
            depth: limits.depth.min(MAX_TERM_DEPTH),
            max_depth: limits.depth.min(MAX_TERM_DEPTH),
            budget: limits.heap_bytes,
            max_budget: limits.heap_bytes,
            cached,
            blobs: None,
            atoms,
            pins: false,
            large: 0,
            checks_keys: false,
            keys: None,
            error: None,
        }
    }

    #[cold]
    pub(super) fn fail<T>(&mut self, error: TermError) -> Option<T> {
        self.error = Some(error);
        None
    }

    /// Reads one term and returns it.
    pub(super) fn one(&mut self) -> Option<Value> {
        let mut value = Value::Integer(0);
        self.value(&mut value)?;
        Some(value)
    }

    /// Reads one term and puts it where it belongs. The common leaves are read where this is
    /// inlined: in the loop over the elements of what they stand in.
    #[inline(always)]
    pub(super) fn value<P: Place>(&mut self, place: P) -> Option<()> {
        self.owed -= 1;
        let tag = self.u8()?;
        match tag {
            tag::SMALL_INTEGER => place.integer(self.u8()?.into()),
            tag::INTEGER => place.integer(i32::from_be_bytes(self.array()?).into()),
            tag::SMALL_ATOM_UTF8 => {
                // 255 bytes are 255 characters at most.
                let length = self.u8()?;
                let bytes = self.take(length.into())?;
                match self.atoms.kept(bytes) {
                    Some(atom) => place.atom(atom),
                    None => {
                        let atom = self.unkept(bytes)?;
                        place.atom(&atom);
                    }
                }
            }
            tag::BINARY => {
                let length = self.u32()? as usize;
                let rest = self.bytes.get(self.at..).unwrap_or_default();
                match rest.first_chunk() {
                    Some(start) if length <= INLINE => {
                        self.at += length;
                        place.short(start, length);
                    }
                    _ => self.binary(length, place)?,
                }
            }
            _ => return self.container(tag, place),
        }
        Some(())
    }

    /// Recursive, but never deeper than a term may be.
    #[inline(never)]
    fn container<P: Place>(&mut self, tag: u8, place: P) -> Option<()> {
        match tag {
            tag::SMALL_TUPLE => {
                let arity = self.u8()?;
                place.tuple(self.tuple(arity.into())?);
            }
            tag::NIL => place.list(Box::default()),
            tag::LIST => {
                let elements = self.list()?;
                if self.bytes.get(self.at) == Some(&tag::NIL) {
                    self.at += 1;
                    self.owed -= 1;
                    self.depth += 1;
                    place.list(elements);
                } else {
                    {
                        let list = self.improper(elements.into_vec())?;
                        place.put(|| list);
                    }
                }
            }
            tag::NEW_PID => {
                let node = self.node()?;
                let numbers = [self.u32()?, self.u32()?, self.u32()?];
                place.pid(node, numbers);
            }
            tag::NEWER_REFERENCE => place.reference(self.reference(true)?),
            tag::MAP => {
                let pairs = self.map()?;
                place.put(|| Value::Map(pairs));
            }
            _ => {
                let value = self.rare(tag)?;
                place.put(|| value);
            }
        }
        Some(())
    }

    #[inline(never)]
    fn rare(&mut self, tag: u8) -> Option<Value> {
        match tag {
            tag::LARGE_TUPLE => {
                let arity = self.u32()?;
                Some(Value::Tuple(self.tuple(arity as usize)?.into_vec()))
            }
            tag::SMALL_BIG => {
                let length = self.u8()?;
                self.big(length.into())
            }
            tag::ATOM_UTF8 | tag::SMALL_ATOM | tag::ATOM | tag::CACHED_ATOM => {
                Some(Value::Atom(self.atom_after(tag)?))
            }
            tag::STRING => {
                let length = self.u16()?;
                let bytes = self.take(length.into())?;
                self.spend(bytes.len())?;
                let integer = |&byte: &u8| Value::Integer(byte.into());
                Some(Value::List(bytes.iter().map(integer).collect()))
            }
            tag::NEW_FLOAT => match f64::from_be_bytes(self.array()?) {
                float if float.is_finite() => Some(Value::Float(float)),
                _ => self.fail(TermError::Float),
            },
            tag::FLOAT => match numeral(self.take(31)?) {
                Some(float) => Some(Value::Float(float)),
                None => self.fail(TermError::Float),
            },
            tag::LARGE_BIG => {
                let length = self.u32()?;
                self.big(length as usize)
            }
            tag::BIT_BINARY => self.bits(),
            tag::PID => self.old_pid(),
            tag::NEW_REFERENCE => Some(Value::Reference(self.reference(false)?)),
            tag::REFERENCE => self.old_reference(),
            tag::V4_PORT | tag::NEW_PORT | tag::PORT => self.port(tag),
            tag::NEW_FUN | tag::EXPORT => Some(Value::Fun(self.opaque()?)),
            tag::LOCAL => Some(Value::Local(self.opaque()?)),
            tag::RECORD => self.record(),
            tag::COMPRESSED => self.fail(TermError::Compressed),
            _ => {
                let at = self.at - 1;
                self.fail(TermError::Tag { tag, at })
            }
        }
    }

    fn tuple(&mut self, arity: usize) -> Option<Box<[Value]>> {
        if arity == 0 {
            return Some(Box::default());
        }
        self.open(arity, arity)?;
        let elements = self.elements(arity)?;
        self.depth += 1;
        Some(elements)
    }

    /// The elements of a list, up to its tail.
    fn list(&mut self) -> Option<Box<[Value]>> {
        let length = self.u32()? as usize;
        self.open(length, length + 1)?;
        self.elements(length)
    }

    /// A list whose tail isn't `NIL_EXT`. The tail may well be a list that goes on; it is read
    /// here and not by `value`, so that no element moves more than once.
    #[inline(never)]
    fn improper(&mut self, mut elements: Vec<Value>) -> Option<Value> {
        let mut levels = 0;
        let list = loop {
            match self.bytes.get(self.at) {
                Some(&tag::NIL) => {
                    self.at += 1;
                    self.owed -= 1;
                    break Value::List(elements);
                }
                Some(&tag::LIST) => {
                    self.at += 1;
                    self.owed -= 1;
                    let length = self.u32()? as usize;
                    self.open(length, length + 1)?;
                    levels += 1;
                    elements.reserve(length);
                    for _ in 0..length {
                        self.value(&mut elements)?;
                    }
                }
                _ => match self.one()? {
                    // `STRING_EXT`
                    Value::List(tail) => {
                        elements.extend(tail);
                        break Value::List(elements);
                    }
                    // A list of no elements is its tail.
                    tail if elements.is_empty() => break tail,
                    tail => break Value::ImproperList(elements, Box::new(tail)),
                },
            }
        };
        // The list itself is one level, too.
        self.depth += levels + 1;
        Some(list)
    }

    #[inline]
    fn elements(&mut self, count: usize) -> Option<Box<[Value]>> {
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            self.value(&mut elements)?;
        }
        // It has the capacity that it needs. A box travels in registers, a vector doesn't.
        Some(elements.into_boxed_slice())
    }

    #[inline(never)]
    fn map(&mut self) -> Option<Vec<(Value, Value)>> {
        let count = self.u32()? as usize;
        if count == 0 {
            return Some(Vec::new());
        }
        self.open(2 * count, 2 * count)?;
        let mut pairs = Vec::with_capacity(count);
        let mut key_bytes = 0;
        for _ in 0..count {
            pairs.push((Value::Integer(0), Value::Integer(0)));
            let (key, value) = pairs.last_mut()?;
            let start = self.at;
            self.value(key)?;
            key_bytes += self.at - start;
            self.value(value)?;
        }
        self.depth += 1;
        if self.checks_keys
            && count > 1
            && let Err(error) = self.keys().check(&pairs, key_bytes)
        {
            return self.fail(error);
        }
        Some(pairs)
    }

    pub(super) fn keys(&mut self) -> &mut Keys {
        let bytes = self.bytes.len();
        self.keys.get_or_insert_with(|| Keys::new(bytes))
    }

    /// Opens a container that takes `terms` elements, `values` of which are kept in it.
    #[inline]
    pub(super) fn open(&mut self, values: usize, terms: usize) -> Option<()> {
        let left = self.bytes.len() - self.at;
        let owed = self.owed + terms;
        if owed > left {
            let at = self.at;
            return self.fail(TermError::Truncated {
                at,
                wanted: terms as u64,
                left,
            });
        }
        self.owed = owed;
        if self.depth == 0 {
            return self.fail(TermError::Depth(self.max_depth));
        }
        self.depth -= 1;
        self.spend(values)
    }

    /// Takes the memory of that many values from the budget.
    #[inline]
    pub(super) fn spend(&mut self, values: usize) -> Option<()> {
        match self
            .budget
            .checked_sub((values * size_of::<Value>()) as u64)
        {
            Some(budget) => {
                self.budget = budget;
                Some(())
            }
            None => self.fail(TermError::Heap(self.max_budget)),
        }
    }

    #[inline]
    pub(super) fn slice(&mut self, length: usize) -> Option<Bytes> {
        let start = self.at;
        self.take(length)?;
        self.pins |= length > 0;
        Some(self.source.slice(start..self.at))
    }

    #[inline]
    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        match self
            .bytes
            .get(self.at..)
            .and_then(|rest| rest.get(..length))
        {
            Some(taken) => {
                self.at += length;
                Some(taken)
            }
            None => self.truncated(length),
        }
    }

    #[cold]
    fn truncated<T>(&mut self, wanted: usize) -> Option<T> {
        let at = self.at;
        let left = self.bytes.len() - at;
        self.fail(TermError::Truncated {
            at,
            wanted: wanted as u64,
            left,
        })
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        match self.bytes.get(self.at..).and_then(<[u8]>::first_chunk) {
            Some(chunk) => {
                self.at += N;
                Some(*chunk)
            }
            None => self.truncated(N),
        }
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]: [u8; 1]| byte)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }
}
