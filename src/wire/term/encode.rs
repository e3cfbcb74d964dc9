//! From a value to a term, in one pass.
//!
//! The tags are those that the VM writes, so that an encoding equals `term_to_binary/1` of the
//! same term, up to the order of maps. Large binaries become out-of-band ones without a copy.
//!
//! What is written here is well-formed and of known cost, so that nobody needs to walk it once
//! more. Only what is passed on unread, funs and private terms, is walked: they were valid when
//! they were made, but may be too deep or too many here.

use super::scan::{Facts, Foreign, binary_words, map_words, words};
use super::value::Value;
use super::walk::Walker;
use super::{Binary, Opaque, Record, Term, TermError, TermLimits, tag};
use crate::limits::{
    KEPT_ENCODE_BYTES, MAX_ATOM_CHARS, MAX_BLOBS, MAX_TERM_DEPTH, OUT_OF_BAND_BYTES,
};
use bytes::Bytes;
use num_bigint::{BigInt, Sign};
use std::cell::Cell;

thread_local! {
    /// Where the thread encodes; a term leaves it as a copy of the right size.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Value {
    /// Encodes it.
    ///
    /// An error says what Erlang has no room for: an atom of more than 255 characters, an
    /// infinite float, a bitstring without bits; or which limit is exceeded.
    pub fn encode(&self) -> Result<Term, TermError> {
        let mut out = SCRATCH.try_with(Cell::take).unwrap_or_default();
        out.clear();
        out.push(tag::VERSION);
        let mut encoder = Encoder::new(out);
        encoder.blobs = Some(Vec::new());
        let done = encoder.run(self);
        let Encoder {
            out,
            blobs,
            foreign,
            ..
        } = encoder;
        let result = done.map(|()| blobs.unwrap_or_default());
        if out.len() <= KEPT_ENCODE_BYTES {
            let term = result
                .map(|blobs| Term::from_checked(Bytes::copy_from_slice(&out), blobs, foreign));
            let _ = SCRATCH.try_with(|scratch| scratch.set(out));
            return term;
        }
        result.map(|blobs| Term::from_checked(out.into(), blobs, foreign))
    }

    /// Appends its encoding without a version byte and with all binaries in their places, as
    /// terms stand behind a distribution header. After an error `out` is as it was.
    pub fn encode_bare(&self, out: &mut Vec<u8>) -> Result<(), TermError> {
        let before = out.len();
        let mut encoder = Encoder::new(std::mem::take(out));
        let done = encoder.run(self);
        *out = encoder.out;
        if done.is_err() {
            out.truncate(before);
        }
        done
    }
}

struct Encoder {
    out: Vec<u8>,
    /// Large binaries, if they are to stand beside the term.
    blobs: Option<Vec<Bytes>>,
    start: usize,
    /// Bytes of large binaries in `out`.
    large: usize,
    /// Words that the term will take in a VM.
    words: u64,
    foreign: Option<Foreign>,
    error: Option<TermError>,
}

/// `None`: see [`Encoder::error`].
impl Encoder {
    fn new(out: Vec<u8>) -> Self {
        Self {
            start: out.len(),
            out,
            blobs: None,
            large: 0,
            words: 0,
            foreign: None,
            error: None,
        }
    }

    fn run(&mut self, value: &Value) -> Result<(), TermError> {
        if self.value(value, 0).is_none() {
            return Err(self.error.take().unwrap_or(TermError::BlobMismatch));
        }
        let limits = TermLimits::default();
        let bytes = self.out.len() - self.start - self.large;
        if bytes > limits.bytes {
            let limit = limits.bytes;
            return Err(TermError::Size { bytes, limit });
        }
        if self.words > limits.heap_bytes / words::WORD {
            return Err(TermError::Heap(limits.heap_bytes));
        }
        Ok(())
    }

    #[cold]
    fn fail<T>(&mut self, error: TermError) -> Option<T> {
        self.error = Some(error);
        None
    }

    /// Writes a value. The common leaves are written where this is inlined: in the loop over the
    /// elements of what they stand in.
    #[inline(always)]
    fn value(&mut self, value: &Value, depth: u32) -> Option<()> {
        match value {
            Value::Integer(number) => {
                self.integer(*number);
                Some(())
            }
            Value::Atom(atom) => {
                let text = atom.as_str();
                if self.short_atom(text) {
                    return Some(());
                }
                self.atom(text)
            }
            Value::Binary(bytes) => self.binary(bytes),
            other => self.container(other, depth),
        }
    }

    /// Recursive, as values are, but never deeper than a term may be.
    #[inline(never)]
    fn container(&mut self, value: &Value, depth: u32) -> Option<()> {
        match value {
            Value::Tuple(elements) => {
                match u8::try_from(elements.len()) {
                    Ok(arity) => self.out.extend_from_slice(&[tag::SMALL_TUPLE, arity]),
                    Err(_) => self.counted(tag::LARGE_TUPLE, elements.len())?,
                }
                self.words += elements.len() as u64 + 1;
                self.all(elements, depth)
            }
            Value::List(elements) => self.list(elements, depth),
            Value::Map(pairs) => {
                self.counted(tag::MAP, pairs.len())?;
                self.words += map_words(pairs.len() as u64);
                let depth = self.deeper(depth, pairs.is_empty())?;
                for (key, value) in pairs {
                    self.value(key, depth)?;
                    self.value(value, depth)?;
                }
                Some(())
            }
            Value::Pid(pid) => {
                self.out.push(tag::NEW_PID);
                self.atom(&pid.node)?;
                let [a, b, c, d] = pid.id.to_be_bytes();
                let [e, f, g, h] = pid.serial.to_be_bytes();
                let [i, j, k, l] = pid.creation.to_be_bytes();
                self.out
                    .extend_from_slice(&[a, b, c, d, e, f, g, h, i, j, k, l]);
                self.words += words::IDENTIFIER;
                Some(())
            }
            Value::Reference(reference) => {
                let words = reference.words.len();
                if words == 0 {
                    return self.fail(TermError::Reference(0));
                }
                self.out
                    .extend_from_slice(&[tag::NEWER_REFERENCE, 0, words as u8]);
                self.atom(&reference.node)?;
                self.out
                    .extend_from_slice(&reference.creation.to_be_bytes());
                for word in reference.words.iter() {
                    self.out.extend_from_slice(&word.to_be_bytes());
                }
                self.words += words::IDENTIFIER + (words as u64).div_ceil(2);
                Some(())
            }
            rare => self.rare(rare, depth),
        }
    }

    #[inline(never)]
    fn rare(&mut self, value: &Value, depth: u32) -> Option<()> {
        match value {
            Value::ImproperList(elements, tail) => {
                if elements.is_empty() {
                    return self.value(tail, depth);
                }
                self.counted(tag::LIST, elements.len())?;
                self.words += 2 * elements.len() as u64;
                self.all(elements, depth)?;
                self.value(tail, depth + 1)
            }
            Value::BigInteger(number) => match i64::try_from(number) {
                Ok(small) => {
                    self.integer(small);
                    Some(())
                }
                Err(_) => self.big(number),
            },
            Value::Float(number) => {
                if !number.is_finite() {
                    return self.fail(TermError::Float);
                }
                self.out.push(tag::NEW_FLOAT);
                self.out.extend_from_slice(&number.to_be_bytes());
                self.words += words::FLOAT;
                Some(())
            }
            Value::Bits { bytes, last_bits } => {
                if bytes.is_empty() || !(1..=8).contains(last_bits) {
                    return self.fail(TermError::Bits(*last_bits));
                }
                self.counted(tag::BIT_BINARY, bytes.len())?;
                self.out.push(*last_bits);
                self.out.extend_from_slice(bytes);
                self.words += words::SUB_BINARY + binary_words(bytes.len());
                Some(())
            }
            Value::Port(port) => {
                match u32::try_from(port.id) {
                    Ok(id) => {
                        self.out.push(tag::NEW_PORT);
                        self.atom(&port.node)?;
                        self.out.extend_from_slice(&id.to_be_bytes());
                    }
                    Err(_) => {
                        self.out.push(tag::V4_PORT);
                        self.atom(&port.node)?;
                        self.out.extend_from_slice(&port.id.to_be_bytes());
                    }
                }
                self.out.extend_from_slice(&port.creation.to_be_bytes());
                self.words += words::IDENTIFIER;
                Some(())
            }
            Value::Record(record) => self.record(record, depth),
            Value::Fun(opaque) | Value::Local(opaque) => self.opaque(opaque, depth),
            // The others are not rare.
            _ => Some(()),
        }
    }

    #[inline(always)]
    fn all(&mut self, elements: &[Value], depth: u32) -> Option<()> {
        let depth = self.deeper(depth, elements.is_empty())?;
        for element in elements {
            self.value(element, depth)?;
        }
        Some(())
    }

    /// The depth of the elements of a container.
    #[inline]
    fn deeper(&mut self, depth: u32, empty: bool) -> Option<u32> {
        if depth < MAX_TERM_DEPTH || empty {
            Some(depth + 1)
        } else {
            self.fail(TermError::Depth(MAX_TERM_DEPTH))
        }
    }

    #[inline(never)]
    fn list(&mut self, elements: &[Value], depth: u32) -> Option<()> {
        if elements.is_empty() {
            self.out.push(tag::NIL);
            return Some(());
        }
        self.words += 2 * elements.len() as u64;
        if self.string(elements) {
            return Some(());
        }
        self.counted(tag::LIST, elements.len())?;
        self.all(elements, depth)?;
        self.out.push(tag::NIL);
        Some(())
    }

    /// Writes a list of bytes as the VM does, and says whether it was one.
    #[inline]
    fn string(&mut self, elements: &[Value]) -> bool {
        let Ok(length) = u16::try_from(elements.len()) else {
            return false;
        };
        // Most lists are none from the first element on.
        let Some(Value::Integer(0..=255)) = elements.first() else {
            return false;
        };
        let start = self.out.len();
        let [high, low] = length.to_be_bytes();
        self.out.extend_from_slice(&[tag::STRING, high, low]);
        for element in elements {
            match element {
                Value::Integer(byte @ 0..=255) => self.out.push(*byte as u8),
                _ => {
                    self.out.truncate(start);
                    return false;
                }
            }
        }
        true
    }

    fn record(&mut self, record: &Record, depth: u32) -> Option<()> {
        self.counted(tag::RECORD, record.fields.len())?;
        self.out.push(record.exported.into());
        self.atom(record.module.as_str())?;
        self.atom(record.name.as_str())?;
        for (name, _) in &record.fields {
            self.atom(name.as_str())?;
        }
        self.foreign = Some(Foreign::Record);
        self.words += words::record(record.fields.len() as u64);
        let depth = self.deeper(depth, record.fields.is_empty())?;
        for (_, value) in &record.fields {
            self.value(value, depth)?;
        }
        Some(())
    }

    fn opaque(&mut self, opaque: &Opaque, depth: u32) -> Option<()> {
        match cost(opaque.as_bytes(), depth) {
            Ok(facts) => {
                self.words += facts.heap_words;
                self.foreign = self.foreign.or(facts.foreign());
                self.out.extend_from_slice(opaque.as_bytes());
                Some(())
            }
            Err(error) => self.fail(error),
        }
    }

    #[inline]
    fn counted(&mut self, tag: u8, count: usize) -> Option<()> {
        let Ok(short) = u32::try_from(count) else {
            let limit = u32::MAX as usize;
            let bytes = count;
            return self.fail(TermError::Size { bytes, limit });
        };
        let [a, b, c, d] = short.to_be_bytes();
        self.out.extend_from_slice(&[tag, a, b, c, d]);
        Some(())
    }

    /// Writes an atom of four to eight bytes, as most are, in one word of which the end is cut off:
    /// quicker than a copy of any size. Says whether it is one.
    #[inline(always)]
    fn short_atom(&mut self, text: &str) -> bool {
        let bytes = text.as_bytes();
        let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) else {
            return false;
        };
        if bytes.len() > 8 {
            return false;
        }
        let [first, last] = [first, last].map(|part| u128::from(u32::from_le_bytes(*part)));
        let text = first | last << (8 * (bytes.len() - 4));
        let head = u128::from(tag::SMALL_ATOM_UTF8) | (bytes.len() as u128) << 8;
        let end = self.out.len() + 2 + bytes.len();
        self.out
            .extend_from_slice(&(head | text << 16).to_le_bytes());
        self.out.truncate(end);
        true
    }

    #[inline]
    fn atom(&mut self, text: &str) -> Option<()> {
        match u8::try_from(text.len()) {
            Ok(length) => self.out.extend_from_slice(&[tag::SMALL_ATOM_UTF8, length]),
            Err(_) if text.chars().count() > MAX_ATOM_CHARS => {
                return self.fail(TermError::AtomLength);
            }
            Err(_) => {
                // 255 characters are 1020 bytes at most.
                let [high, low] = (text.len() as u16).to_be_bytes();
                self.out.extend_from_slice(&[tag::ATOM_UTF8, high, low]);
            }
        }
        self.out.extend_from_slice(text.as_bytes());
        Some(())
    }

    #[inline(always)]
    fn integer(&mut self, number: i64) {
        if let Ok(byte) = u8::try_from(number) {
            self.out.extend_from_slice(&[tag::SMALL_INTEGER, byte]);
        } else if let Ok(word) = i32::try_from(number) {
            let [a, b, c, d] = word.to_be_bytes();
            self.out.extend_from_slice(&[tag::INTEGER, a, b, c, d]);
        } else {
            self.wide(number);
        }
    }

    /// Out of the loop that `integer` is inlined in.
    #[inline(never)]
    fn wide(&mut self, number: i64) {
        let magnitude = number.unsigned_abs();
        let length = 8 - magnitude.leading_zeros() as usize / 8;
        let sign = u8::from(number < 0);
        let [a, b, c, d, e, f, g, h] = magnitude.to_le_bytes();
        let at = self.out.len();
        self.out
            .extend_from_slice(&[tag::SMALL_BIG, length as u8, sign, a, b, c, d, e, f, g, h]);
        self.out.truncate(at + 3 + length);
        self.words += 2;
    }

    fn big(&mut self, number: &BigInt) -> Option<()> {
        let (sign, magnitude) = number.to_bytes_le();
        match u8::try_from(magnitude.len()) {
            Ok(length) => self.out.extend_from_slice(&[tag::SMALL_BIG, length]),
            Err(_) => self.counted(tag::LARGE_BIG, magnitude.len())?,
        }
        self.out.push(u8::from(sign == Sign::Minus));
        self.out.extend_from_slice(&magnitude);
        self.words += 1 + (magnitude.len() as u64).div_ceil(words::WORD);
        Some(())
    }

    #[inline(always)]
    fn binary(&mut self, bytes: &Binary) -> Option<()> {
        self.counted(tag::BINARY, bytes.len())?;
        self.words += binary_words(bytes.len());
        if bytes.len() >= OUT_OF_BAND_BYTES {
            return self.large(bytes);
        }
        bytes.append_to(&mut self.out);
        Some(())
    }

    #[inline(never)]
    fn large(&mut self, bytes: &Binary) -> Option<()> {
        match &mut self.blobs {
            Some(blobs) if blobs.len() == MAX_BLOBS => self.fail(TermError::Blobs(MAX_BLOBS)),
            Some(blobs) => {
                blobs.push(bytes.to_bytes());
                Some(())
            }
            None => {
                self.large += bytes.len();
                self.out.extend_from_slice(bytes);
                Some(())
            }
        }
    }
}

/// What the encoder takes the cost of a value to be in a VM.
#[cfg(test)]
pub(super) fn words_of(value: &Value) -> u64 {
    let mut encoder = Encoder::new(Vec::new());
    encoder.run(value).unwrap();
    encoder.words
}

/// What an opaque term costs in a VM. It is walked for its depth, too.
fn cost(bytes: &Bytes, depth: u32) -> Result<Facts, TermError> {
    let limits = TermLimits::default();
    let mut walker = Walker::within(bytes, 0, &[], MAX_TERM_DEPTH.saturating_sub(depth))?;
    let mut facts = Facts::default();
    while let Some(token) = walker.next().map_err(|error| match error {
        TermError::Depth(_) => TermError::Depth(MAX_TERM_DEPTH),
        error => error,
    })? {
        facts.count(&token, &walker, &limits, &mut ())?;
    }
    Ok(facts)
}
