//! From bytes to a value, in one pass that checks as it goes.
//!
//! It understands what [`normalise`](super::normalise) does, straight from what a stock peer has
//! sent, and the terms of this module as well. Recursion is bounded by the depth that a term may
//! have. What a container claims to hold is believed as far as there are bytes for it: the
//! elements that all open containers together still lack, of at least one byte each, must fit
//! into what is left. So all memory that is taken ahead adds up to a multiple of the input.

use super::atoms::{Atoms, with_atoms};
use super::binary::{Binary, INLINE};
use super::inflate::inflate;
use super::keys::{Keys, distinct_fields};
use super::normal::fun_with_atoms;
use super::walk::{Walker, numeral};
use super::{
    Atom, Form, Opaque, Pid, Port, Record, Reference, Start, TermError, TermLimits, Value, Words,
    tag,
};
use crate::limits::{
    MAX_ATOM_CHARS, MAX_OLD_CREATION, MAX_PINNED_RATIO, MAX_TERM_DEPTH, OLD_REFERENCES,
    OUT_OF_BAND_BYTES,
};
use bytes::Bytes;
use num_bigint::{BigInt, Sign};
use std::ops::Range;
use std::sync::Arc;

/// The value of a term that has passed `scan`.
///
/// What hasn't passed gives some value, too, and costs no more than its length.
pub(super) fn decode(skeleton: &Bytes, form: Form, blobs: &[Bytes]) -> Value {
    let mut value = Value::Integer(0);
    with_atoms(|atoms| {
        let mut reader = Reader::new(skeleton, 1, &[], &NO_LIMITS, atoms);
        reader.blobs = (form == Form::Elided).then(|| blobs.iter());
        let decoded = reader.value(&mut value);
        debug_assert!(decoded.is_some(), "{:?}", reader.error);
    });
    value
}

/// The value of a key that stands at that offset.
pub(super) fn key_at(bytes: &Bytes, at: usize, cached: &[Arc<str>]) -> Result<Value, TermError> {
    with_atoms(|atoms| {
        let mut reader = Reader::new(bytes, at, cached, &NO_LIMITS, atoms);
        let key = reader.one();
        key.ok_or(reader.error.unwrap_or(TermError::BlobMismatch))
    })
}

/// A term that has been scanned has passed stricter ones.
const NO_LIMITS: TermLimits = TermLimits {
    depth: MAX_TERM_DEPTH,
    bytes: usize::MAX,
    heap_bytes: u64::MAX,
};

impl Value {
    /// Decodes the term that `bytes` begin with, as a stock node writes it, and says how many
    /// bytes it took: the same terms as [`normalise`](super::normalise) takes, in one pass.
    ///
    /// `limits.heap_bytes` bounds the memory of the value. Its binaries are slices of `bytes`,
    /// unless the term is less than a quarter of them: then it shares a copy of the term.
    pub fn decode(
        bytes: &Bytes,
        start: Start,
        atoms: &[Arc<str>],
        limits: &TermLimits,
    ) -> Result<(Self, usize), TermError> {
        if start == Start::Version {
            if let Some((inflated, consumed)) = inflate(bytes)? {
                let (value, length) = read(&inflated, 1, &[], limits)?;
                return match inflated.len() - length {
                    0 => Ok((value, consumed)),
                    rest => Err(TermError::Trailing(rest)),
                };
            }
            if bytes.first() != Some(&tag::VERSION) {
                return Err(TermError::Version(bytes.first().copied()));
            }
        }
        read(bytes, usize::from(start == Start::Version), atoms, limits)
    }
}

#[inline]
fn read(
    bytes: &Bytes,
    at: usize,
    cached: &[Arc<str>],
    limits: &TermLimits,
) -> Result<(Value, usize), TermError> {
    if u32::try_from(bytes.len()).is_err() {
        return Err(TermError::Size {
            bytes: bytes.len(),
            limit: u32::MAX as usize,
        });
    }
    let mut value = Value::Integer(0);
    let mut run = |bytes: &Bytes| {
        with_atoms(|atoms| {
            let mut reader = Reader::new(bytes, at, cached, limits, atoms);
            reader.checks_keys = true;
            match reader.value(&mut value) {
                Some(()) => Ok((reader.at, reader.pins, reader.large)),
                None => Err(reader.error.unwrap_or(TermError::BlobMismatch)),
            }
        })
    };
    let (end, pins, large) = run(bytes)?;
    if end - large > limits.bytes {
        return Err(TermError::Size {
            bytes: end - large,
            limit: limits.bytes,
        });
    }
    match bytes.get(..end) {
        Some(own) if pins && end < bytes.len() / MAX_PINNED_RATIO => {
            let own = Bytes::copy_from_slice(own);
            run(&own)?;
            Ok((value, end))
        }
        _ => Ok((value, end)),
    }
}

/// Where a value is to stay.
///
/// The common kinds have functions of their own that are not inlined. Otherwise the compiler
/// makes one move, from the stack, of all of them: what was just written in parts is read back as
/// a whole, on which CPUs stall for longer than all the rest takes.
trait Place: Sized {
    fn put(self, make: impl FnOnce() -> Value);

    #[inline(never)]
    fn integer(self, number: i64) {
        self.put(|| Value::Integer(number));
    }

    #[inline(never)]
    fn atom(self, atom: &Atom) {
        self.put(|| Value::Atom(atom.clone()));
    }

    #[inline(never)]
    fn short(self, start: &[u8; INLINE], length: usize) {
        self.put(|| Value::Binary(Binary::start_of(start, length)));
    }

    #[inline(never)]
    fn binary(self, source: &Bytes, place: Range<usize>) {
        self.put(|| Value::Binary(source.slice(place).into()));
    }

    #[inline(never)]
    fn tuple(self, elements: Box<[Value]>) {
        self.put(|| Value::Tuple(elements.into_vec()));
    }

    #[inline(never)]
    fn list(self, elements: Box<[Value]>) {
        self.put(|| Value::List(elements.into_vec()));
    }

    #[inline(never)]
    fn pid(self, node: Arc<str>, numbers: [u32; 3]) {
        let [id, serial, creation] = numbers;
        self.put(|| {
            Value::Pid(Pid {
                node,
                id,
                serial,
                creation,
            })
        });
    }

    #[inline(never)]
    fn reference(self, reference: Box<Reference>) {
        self.put(|| Value::Reference(reference));
    }
}

impl Place for &mut Vec<Value> {
    #[inline]
    fn put(self, make: impl FnOnce() -> Value) {
        // `push` takes a value that has been made already, on the stack, since it may have to
        // make room first.
        self.extend(std::iter::once_with(make));
    }
}

impl Place for &mut Value {
    #[inline]
    fn put(self, make: impl FnOnce() -> Value) {
        *self = make();
    }
}

struct Reader<'a> {
    source: &'a Bytes,
    bytes: &'a [u8],
    at: usize,
    /// Elements that open containers still lack.
    owed: usize,
    /// Containers that may yet be opened within each other.
    depth: u32,
    max_depth: u32,
    /// Bytes that the value may yet take.
    budget: u64,
    max_budget: u64,
    cached: &'a [Arc<str>],
    blobs: Option<std::slice::Iter<'a, Bytes>>,
    atoms: &'a mut Atoms,
    /// Whether the value shares memory with the bytes.
    pins: bool,
    /// Bytes of large binaries.
    large: usize,
    /// Whether keys may not be there twice: the term has not been checked yet.
    checks_keys: bool,
    keys: Option<Keys>,
    error: Option<TermError>,
}

/// `None`: see [`Reader::error`].
impl<'a> Reader<'a> {
    fn new(
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
    fn fail<T>(&mut self, error: TermError) -> Option<T> {
        self.error = Some(error);
        None
    }

    /// Reads one term and returns it.
    fn one(&mut self) -> Option<Value> {
        let mut value = Value::Integer(0);
        self.value(&mut value)?;
        Some(value)
    }

    /// Reads one term and puts it where it belongs. The common leaves are read where this is
    /// inlined: in the loop over the elements of what they stand in.
    #[inline(always)]
    fn value<P: Place>(&mut self, place: P) -> Option<()> {
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

    fn keys(&mut self) -> &mut Keys {
        let bytes = self.bytes.len();
        self.keys.get_or_insert_with(|| Keys::new(bytes))
    }

    /// Opens a container that takes `terms` elements, `values` of which are kept in it.
    #[inline]
    fn open(&mut self, values: usize, terms: usize) -> Option<()> {
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
    fn spend(&mut self, values: usize) -> Option<()> {
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

    #[inline(never)]
    fn binary<P: Place>(&mut self, length: usize, place: P) -> Option<()> {
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
    fn large(&mut self, length: usize) -> Option<Bytes> {
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

    fn bits(&mut self) -> Option<Value> {
        let length = self.u32()? as usize;
        let last_bits = self.u8()?;
        if length == 0 || !(1..=8).contains(&last_bits) {
            return self.fail(TermError::Bits(last_bits));
        }
        if last_bits == 8 {
            return self.slice(length).map(Value::binary);
        }
        let mut bytes = self.take(length)?.to_vec();
        if let Some(last) = bytes.last_mut() {
            // What is below means nothing to the VM: equal bitstrings are to be equal here.
            *last &= 0xff << (8 - last_bits);
        }
        Some(Value::Bits { bytes, last_bits })
    }

    fn big(&mut self, length: usize) -> Option<Value> {
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

    fn old_pid(&mut self) -> Option<Value> {
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

    fn reference(&mut self, wide: bool) -> Option<Box<Reference>> {
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

    fn old_reference(&mut self) -> Option<Value> {
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

    fn port(&mut self, tag: u8) -> Option<Value> {
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
    fn opaque(&mut self) -> Option<Opaque> {
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

    fn record(&mut self) -> Option<Value> {
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
    fn node(&mut self) -> Option<Arc<str>> {
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
    fn atom_after(&mut self, tag: u8) -> Option<Atom> {
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
    fn unkept(&mut self, bytes: &[u8]) -> Option<Atom> {
        match std::str::from_utf8(bytes) {
            Ok(text) if text.len() > MAX_ATOM_CHARS && text.chars().count() > MAX_ATOM_CHARS => {
                self.fail(TermError::AtomLength)
            }
            Ok(text) => Some(text.into()),
            Err(_) => self.fail(TermError::AtomText),
        }
    }

    #[inline]
    fn slice(&mut self, length: usize) -> Option<Bytes> {
        let start = self.at;
        self.take(length)?;
        self.pins |= length > 0;
        Some(self.source.slice(start..self.at))
    }

    #[inline]
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
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
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        match self.bytes.get(self.at..).and_then(<[u8]>::first_chunk) {
            Some(chunk) => {
                self.at += N;
                Some(*chunk)
            }
            None => self.truncated(N),
        }
    }

    #[inline]
    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]: [u8; 1]| byte)
    }

    #[inline]
    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }
}
