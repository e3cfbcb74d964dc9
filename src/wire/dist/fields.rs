//! The fields of a control tuple, straight from the bytes of a packet.

use super::{Function, Target};
use crate::limits::MAX_ATOM_CHARS;
use crate::wire::reader;
use crate::wire::term::tag;
use crate::wire::term::{
    Atom, Pid, Reference, Start, Term, TermError, TermLimits, Value, Words, normalise,
};
use bytes::Bytes;
use std::sync::Arc;

/// Why a field was refused.
#[derive(Debug)]
pub(super) enum Fault {
    /// It isn't what it should be.
    Wrong(&'static str),
    /// It is a term, and not a good one.
    Term(TermError),
}

impl From<TermError> for Fault {
    fn from(error: TermError) -> Self {
        Self::Term(error)
    }
}

const CUT: Fault = Fault::Wrong("it is cut off");

/// Atoms met last as text, so that a peer without an atom cache doesn't cost an allocation for
/// each name in each message.
#[derive(Default)]
pub(super) struct Names([Option<Arc<str>>; 16]);

impl Names {
    fn get(&mut self, bytes: &[u8]) -> Result<Arc<str>, Fault> {
        let ends = bytes.first().into_iter().chain(bytes.last());
        let sum: usize = ends.copied().map(usize::from).sum();
        let Some(slot) = self.0.get_mut((sum + bytes.len()) % 16) else {
            return Err(CUT);
        };
        match slot {
            Some(known) if known.as_bytes() == bytes => Ok(known.clone()),
            _ => {
                let text = std::str::from_utf8(bytes).map_err(|_| TermError::AtomText)?;
                let atom: Arc<str> = bounded(text)?.into();
                *slot = Some(atom.clone());
                Ok(atom)
            }
        }
    }
}

fn bounded(text: &str) -> Result<&str, TermError> {
    if text.len() > MAX_ATOM_CHARS && text.chars().count() > MAX_ATOM_CHARS {
        return Err(TermError::AtomLength);
    }
    Ok(text)
}

/// Reads one field after the other.
pub(super) struct Fields<'a> {
    packet: &'a Bytes,
    rest: &'a [u8],
    atoms: &'a [Arc<str>],
    names: &'a mut Names,
    limits: &'a TermLimits,
}

impl<'a> Fields<'a> {
    /// Fields from that offset of a packet on.
    pub(super) fn new(
        packet: &'a Bytes,
        at: usize,
        atoms: &'a [Arc<str>],
        names: &'a mut Names,
        limits: &'a TermLimits,
    ) -> Self {
        Self {
            rest: packet.get(at..).unwrap_or_default(),
            packet,
            atoms,
            names,
            limits,
        }
    }

    /// Offset of what hasn't been read.
    pub(super) fn at(&self) -> usize {
        self.packet.len() - self.rest.len()
    }

    fn u8(&mut self) -> Result<u8, Fault> {
        reader::u8(&mut self.rest).ok_or(CUT)
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        reader::u32(&mut self.rest).ok_or(CUT)
    }

    /// How many elements the tuple has that begins here.
    pub(super) fn tuple(&mut self) -> Result<u32, Fault> {
        match self.u8()? {
            tag::SMALL_TUPLE => self.u8().map(u32::from),
            tag::LARGE_TUPLE => self.u32(),
            _ => Err(Fault::Wrong("it is not a tuple")),
        }
    }

    /// The operation.
    pub(super) fn operation(&mut self) -> Result<i64, Fault> {
        match self.u8()? {
            tag::SMALL_INTEGER => self.u8().map(i64::from),
            tag::INTEGER => self.u32().map(|number| i64::from(number as i32)),
            _ => Err(Fault::Wrong("its first element is not a small integer")),
        }
    }

    /// An integer from 0 on. Of those beyond 64 bits the low ones, and whether it is one.
    fn unsigned(&mut self) -> Result<(u64, bool), Fault> {
        const NEGATIVE: Fault = Fault::Wrong("an integer is negative");
        let length = match self.u8()? {
            tag::SMALL_INTEGER => return Ok((self.u8()?.into(), false)),
            tag::INTEGER => {
                let number = u32::try_from(self.u32()? as i32).map_err(|_| NEGATIVE)?;
                return Ok((number.into(), false));
            }
            tag::SMALL_BIG => self.u8()?.into(),
            tag::LARGE_BIG => self.u32()? as usize,
            _ => return Err(Fault::Wrong("an element is not an integer")),
        };
        if self.u8()? != 0 {
            return Err(NEGATIVE);
        }
        let digits = reader::bytes(&mut self.rest, length).ok_or(CUT)?;
        let mut number = 0;
        for (index, digit) in digits.iter().take(8).enumerate() {
            number |= u64::from(*digit) << (8 * index);
        }
        let beyond = digits.iter().skip(8).any(|digit| *digit != 0);
        Ok((number, beyond))
    }

    /// An integer of 32 bits.
    pub(super) fn number(&mut self) -> Result<u32, Fault> {
        match self.unsigned()? {
            (number, false) => {
                u32::try_from(number).map_err(|_| Fault::Wrong("an integer is too large"))
            }
            _ => Err(Fault::Wrong("an integer is too large")),
        }
    }

    /// The identifier of an unlink, 1 to 2^64 - 1.
    pub(super) fn unlink_id(&mut self) -> Result<u64, Fault> {
        match self.unsigned()? {
            (0, _) => Err(Fault::Wrong("its identifier is 0")),
            (_, true) => Err(Fault::Wrong("its identifier has more than 64 bits")),
            (id, false) => Ok(id),
        }
    }

    /// The low byte of flags of any size.
    pub(super) fn low_flags(&mut self) -> Result<u8, Fault> {
        Ok(self.unsigned()?.0 as u8)
    }

    /// An atom's text.
    fn text(&mut self) -> Result<Arc<str>, Fault> {
        let tag = self.u8()?;
        self.tagged_text(tag)
    }

    fn tagged_text(&mut self, tag: u8) -> Result<Arc<str>, Fault> {
        let length = match tag {
            tag::CACHED_ATOM => {
                let place = usize::from(self.u8()?);
                let atom = self.atoms.get(place).cloned();
                return atom.ok_or(Fault::Wrong(
                    "it refers to an atom beyond the header's list",
                ));
            }
            tag::SMALL_ATOM_UTF8 | tag::SMALL_ATOM => usize::from(self.u8()?),
            tag::ATOM_UTF8 | tag::ATOM => {
                reader::u16(&mut self.rest).map(usize::from).ok_or(CUT)?
            }
            _ => return Err(Fault::Wrong("an element is not the atom that it should be")),
        };
        let bytes = reader::bytes(&mut self.rest, length).ok_or(CUT)?;
        if matches!(tag, tag::ATOM | tag::SMALL_ATOM) && !bytes.is_ascii() {
            let text: String = bytes.iter().copied().map(char::from).collect();
            return Ok(bounded(&text)?.into());
        }
        self.names.get(bytes)
    }

    pub(super) fn atom(&mut self) -> Result<Atom, Fault> {
        self.text().map(Atom::new)
    }

    pub(super) fn pid(&mut self) -> Result<Pid, Fault> {
        let tag = self.u8()?;
        self.tagged_pid(tag)
    }

    fn tagged_pid(&mut self, tag: u8) -> Result<Pid, Fault> {
        if !matches!(tag, tag::NEW_PID | tag::PID) {
            return Err(Fault::Wrong("an element is not the pid that it should be"));
        }
        Ok(Pid {
            node: self.text()?,
            id: self.u32()?,
            serial: self.u32()?,
            creation: self.creation(tag == tag::PID)?,
        })
    }

    fn creation(&mut self, old: bool) -> Result<u32, Fault> {
        if old {
            self.u8().map(u32::from)
        } else {
            self.u32()
        }
    }

    pub(super) fn reference(&mut self) -> Result<Reference, Fault> {
        let tag = self.u8()?;
        self.tagged_reference(tag)
    }

    fn tagged_reference(&mut self, tag: u8) -> Result<Reference, Fault> {
        if !matches!(tag, tag::NEWER_REFERENCE | tag::NEW_REFERENCE) {
            return Err(Fault::Wrong(
                "an element is not the reference that it should be",
            ));
        }
        let words = reader::u16(&mut self.rest).ok_or(CUT)?;
        if !(1..=5).contains(&words) {
            return Err(TermError::Reference(words.into()).into());
        }
        let (node, creation) = (self.text()?, self.creation(tag == tag::NEW_REFERENCE)?);
        let mut own = Words::EMPTY;
        for _ in 0..words {
            own.push(self.u32()?);
        }
        Ok(Reference {
            node,
            creation,
            words: own,
        })
    }

    /// A pid or an atom.
    pub(super) fn target(&mut self) -> Result<Target, Fault> {
        match self.u8()? {
            tag @ (tag::NEW_PID | tag::PID) => self.tagged_pid(tag).map(Target::Pid),
            tag => Ok(Target::Name(Atom::new(self.tagged_text(tag)?))),
        }
    }

    /// A pid, or an atom that says why there is none.
    pub(super) fn result(&mut self) -> Result<Result<Pid, Atom>, Fault> {
        Ok(match self.target()? {
            Target::Name(reason) => Err(reason),
            Target::Pid(pid) => Ok(pid),
            // There is no such result of `target`.
            Target::Alias(_) => return Err(Fault::Wrong("its result is a reference")),
        })
    }

    pub(super) fn function(&mut self) -> Result<Function, Fault> {
        if self.tuple()? != 3 {
            return Err(Fault::Wrong(
                "its function is not {Module, Function, Arity}",
            ));
        }
        Ok(Function {
            module: self.atom()?,
            name: self.atom()?,
            arity: self.number()?,
        })
    }

    /// Any term.
    pub(super) fn term(&mut self) -> Result<Term, Fault> {
        let bytes = self.packet.slice(self.at()..);
        let (term, length) = normalise(&bytes, Start::Bare, self.atoms, self.limits)?;
        self.rest = self.rest.get(length..).unwrap_or_default();
        Ok(term)
    }

    /// Steps over a term.
    pub(super) fn skip(&mut self) -> Result<(), Fault> {
        match self.rest.first() {
            // The empty atom, where there once was a cookie.
            Some(&tag::SMALL_ATOM_UTF8) => self.text().map(drop),
            Some(&tag::CACHED_ATOM) => self.text().map(drop),
            _ => self.term().map(drop),
        }
    }

    pub(super) fn value(&mut self) -> Result<Value, Fault> {
        self.term().map(|term| term.decode())
    }

    /// A proper list.
    pub(super) fn list(&mut self) -> Result<Vec<Value>, Fault> {
        match self.value()? {
            Value::List(elements) => Ok(elements),
            _ => Err(Fault::Wrong("its options are not a proper list")),
        }
    }
}
