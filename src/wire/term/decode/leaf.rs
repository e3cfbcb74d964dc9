//! What has no elements, or is passed on with them, and native records.

use super::super::binary::INLINE;
use super::super::keys::distinct_fields;
use super::super::normal::fun_with_atoms;
use super::super::walk::Walker;
use super::super::{Atom, Opaque, Pid, Port, Record, Reference, TermError, Value, Words, tag};
use super::place::Place;
use super::reader::Reader;
use crate::limits::{MAX_ATOM_CHARS, MAX_OLD_CREATION, OLD_REFERENCES, OUT_OF_BAND_BYTES};
use bytes::Bytes;
use num_bigint::{BigInt, Sign};
use std::sync::Arc;

impl Reader<'_> {
    #[inline(never)]
    pub(super) fn binary<P: Place>(&mut self, length: usize, place: P) -> Option<()> {
        if length >= OUT_OF_BAND_BYTES {
            let large = self.large(length)?;
            place.put(|| Value::Binary(large.into()));
        } else {
            let start = self.at;
            self.take(length)?;
            self.pins |= length > INLINE;
            place.binary(self.source, start..self.at);
        }
        Some(())
    }

    #[inline(never)]
    pub(super) fn large(&mut self, length: usize) -> Option<Bytes> {
        match &mut self.blobs {
            Some(blobs) => match blobs.next() {
                Some(blob) => Some(blob.clone()),
                None => self.fail(TermError::BlobMismatch),
            },
            None => {
                self.large += length;
                self.slice(length)
            }
        }
    }

    pub(super) fn bits(&mut self) -> Option<Value> {
        let length = self.u32()? as usize;
        let last_bits = self.u8()?;
        if length == 0 || !(1..=8).contains(&last_bits) {
            return self.fail(TermError::Bits(last_bits));
        }
        if last_bits == 8 {
            return self.slice(length).map(Value::binary);
        }
        Some(Value::bits(self.take(length)?, last_bits))
    }

    pub(super) fn big(&mut self, length: usize) -> Option<Value> {
        let negative = self.u8()? != 0;
        let magnitude = self.take(length)?;
        if length <= 8 {
            let mut bytes = [0; 8];
            bytes
                .iter_mut()
                .zip(magnitude)
                .for_each(|(to, from)| *to = *from);
            let magnitude = i128::from(u64::from_le_bytes(bytes));
            let number = if negative { -magnitude } else { magnitude };
            if let Ok(number) = i64::try_from(number) {
                return Some(Value::Integer(number));
            }
        }
        let sign = if negative { Sign::Minus } else { Sign::Plus };
        Some(Value::integer(BigInt::from_bytes_le(sign, magnitude)))
    }

    pub(super) fn old_pid(&mut self) -> Option<Value> {
        let node = self.node()?;
        let id = self.u32()?;
        let serial = self.u32()?;
        let creation = self.creation(false)?;
        Some(Value::Pid(Pid {
            node,
            id,
            serial,
            creation,
        }))
    }

    pub(super) fn reference(&mut self, wide: bool) -> Option<Box<Reference>> {
        let count = self.u16()?;
        if !(1..=5).contains(&count) {
            return self.fail(TermError::Reference(count.into()));
        }
        let node = self.node()?;
        let creation = self.creation(wide)?;
        let mut words = Words::EMPTY;
        for _ in 0..count {
            words.push(self.u32()?);
        }
        if !wide {
            self.old_word(&words)?;
        }
        Some(Box::new(Reference {
            node,
            creation,
            words,
        }))
    }

    pub(super) fn old_reference(&mut self) -> Option<Value> {
        let node = self.node()?;
        let words = [self.u32()?].into();
        self.old_word(&words)?;
        let creation = self.creation(false)?;
        Some(Value::Reference(Box::new(Reference {
            node,
            creation,
            words,
        })))
    }

    fn old_word(&mut self, words: &Words) -> Option<()> {
        match words.first() {
            Some(&first) if first >= OLD_REFERENCES => self.fail(TermError::OldReference(first)),
            _ => Some(()),
        }
    }

    pub(super) fn port(&mut self, tag: u8) -> Option<Value> {
        let node = self.node()?;
        let id = match tag {
            tag::V4_PORT => u64::from_be_bytes(self.array()?),
            _ => self.u32()?.into(),
        };
        let creation = self.creation(tag != tag::PORT)?;
        Some(Value::Port(Port { node, id, creation }))
    }

    #[inline]
    fn creation(&mut self, wide: bool) -> Option<u32> {
        if wide {
            self.u32()
        } else {
            match self.u8()? {
                creation @ 0..=MAX_OLD_CREATION => Some(creation.into()),
                creation => self.fail(TermError::Creation(creation)),
            }
        }
    }

    /// What is passed on as it is; the loop that reads any term finds its end.
    pub(super) fn opaque(&mut self) -> Option<Opaque> {
        let start = self.at - 1;
        let mut walker = match Walker::within(self.bytes, start, self.cached, self.depth) {
            Ok(walker) => walker,
            Err(error) => return self.fail(error),
        };
        let finished = if self.checks_keys {
            let (source, cached) = (self.source, self.cached);
            self.keys().finish(&mut walker, source, cached)
        } else {
            walker.finish()
        };
        match finished {
            Ok(()) => {}
            Err(TermError::Depth(_)) => return self.fail(TermError::Depth(self.max_depth)),
            Err(error) => return self.fail(error),
        }
        self.at = walker.at();
        if !walker.has_refs() {
            self.pins = true;
            return Some(Opaque::trusted(self.source.slice(start..self.at)));
        }
        match fun_with_atoms(self.bytes, start, self.cached) {
            Ok(fun) => Some(Opaque::trusted(fun)),
            Err(error) => self.fail(error),
        }
    }

    pub(super) fn record(&mut self) -> Option<Value> {
        let count = self.u32()? as usize;
        // A name takes two bytes at least, a value one.
        let left = self.bytes.len() - self.at;
        if 3 * count as u64 > left as u64 {
            let at = self.at;
            return self.fail(TermError::Truncated {
                at,
                wanted: 3 * count as u64,
                left,
            });
        }
        let exported = match self.u8()? {
            flags @ 0..=1 => flags == 1,
            flags => return self.fail(TermError::RecordFlags(flags)),
        };
        let module = self.atom()?;
        let name = self.atom()?;
        // A name and a value take up to two values.
        self.spend(2 * count)?;
        let mut names = Vec::with_capacity(count);
        for _ in 0..count {
            names.push(self.atom()?);
        }
        if let Err(error) = distinct_fields(names.iter().collect()) {
            return self.fail(error);
        }
        let mut fields = Vec::with_capacity(count);
        if count > 0 {
            self.open(0, count)?;
            for name in names {
                fields.push((name, self.one()?));
            }
            self.depth += 1;
        }
        Some(Value::Record(Box::new(Record {
            module,
            name,
            exported,
            fields,
        })))
    }

    fn atom(&mut self) -> Option<Atom> {
        let tag = self.u8()?;
        self.atom_after(tag)
    }

    /// The node of an identifier.
    pub(super) fn node(&mut self) -> Option<Arc<str>> {
        let tag = self.u8()?;
        if tag == tag::SMALL_ATOM_UTF8 {
            let length = self.u8()?;
            let bytes = self.take(length.into())?;
            return match self.atoms.node(bytes) {
                Some(node) => Some(node),
                None => Some(self.unkept(bytes)?.as_str().into()),
            };
        }
        if let (tag::CACHED_ATOM, Some(&index)) = (tag, self.bytes.get(self.at))
            && let Some(text) = self.cached.get(usize::from(index))
        {
            self.at += 1;
            return Some(text.clone());
        }
        let atom = self.atom_after(tag)?;
        self.atoms
            .node(atom.as_str().as_bytes())
            .or_else(|| Some(atom.as_str().into()))
    }

    #[inline(never)]
    pub(super) fn atom_after(&mut self, tag: u8) -> Option<Atom> {
        let bytes = match tag {
            tag::CACHED_ATOM if !self.cached.is_empty() => {
                let index = self.u8()?;
                return match self.cached.get(usize::from(index)) {
                    Some(text) => Some(Atom::new(text.clone())),
                    None => self.fail(TermError::CachedAtom(index)),
                };
            }
            tag::SMALL_ATOM_UTF8 | tag::SMALL_ATOM => {
                let length = self.u8()?;
                self.take(length.into())?
            }
            tag::ATOM_UTF8 | tag::ATOM => {
                let length = self.u16()?;
                self.take(length.into())?
            }
            _ => {
                let at = self.at - 1;
                return self.fail(TermError::Tag { tag, at });
            }
        };
        let latin1 = matches!(tag, tag::ATOM | tag::SMALL_ATOM);
        if latin1 && !bytes.is_ascii() {
            let text: String = bytes.iter().copied().map(char::from).collect();
            return self.unkept(text.as_bytes());
        }
        match self.atoms.kept(bytes) {
            Some(atom) => Some(atom.clone()),
            None => self.unkept(bytes),
        }
    }

    /// An atom that is too long for the table, or none.
    #[inline(never)]
    pub(super) fn unkept(&mut self, bytes: &[u8]) -> Option<Atom> {
        match std::str::from_utf8(bytes) {
            Ok(text) if text.len() > MAX_ATOM_CHARS && text.chars().count() > MAX_ATOM_CHARS => {
                self.fail(TermError::AtomLength)
            }
            Ok(text) => Some(text.into()),
            Err(_) => self.fail(TermError::AtomText),
        }
    }
}
