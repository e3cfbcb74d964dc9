//! From a value to a term.
//!
//! The tags are those that the VM writes, so that an encoding equals `term_to_binary/1` of the
//! same term, up to the order of maps. Large binaries become out-of-band ones without a copy.

use super::map::write_atom;
use super::value::Value;
use super::{Form, Term, TermError, TermLimits, scan, tag};
use crate::limits::{MAX_ATOM_CHARS, MAX_TERM_DEPTH, OUT_OF_BAND_BYTES};
use bytes::Bytes;
use num_bigint::{BigInt, Sign};

impl Value {
    /// Encodes it.
    ///
    /// An error says what Erlang has no room for: an atom of more than 255 characters, an
    /// infinite float, a reference without words; or which limit is exceeded.
    pub fn encode(&self) -> Result<Term, TermError> {
        let mut encoder = Encoder {
            out: vec![tag::VERSION],
            blobs: Vec::new(),
        };
        encoder.value(self, 0)?;
        let form = if encoder.blobs.is_empty() {
            Form::Whole
        } else {
            Form::Elided
        };
        // The encoder writes well-formed terms; this checks the limits and what funs bring.
        let facts = scan(&encoder.out, form, &TermLimits::default(), &mut ())?;
        Term::from_scanned(encoder.out, encoder.blobs, &facts)
    }
}

struct Encoder {
    out: Vec<u8>,
    blobs: Vec<Bytes>,
}

impl Encoder {
    /// Recursive, as values are, but never deeper than a term may be.
    fn value(&mut self, value: &Value, depth: u32) -> Result<(), TermError> {
        if depth > MAX_TERM_DEPTH {
            return Err(TermError::Depth(MAX_TERM_DEPTH));
        }
        match value {
            Value::Tuple(elements) => {
                match u8::try_from(elements.len()) {
                    Ok(arity) => self.out.extend([tag::SMALL_TUPLE, arity]),
                    Err(_) => self.counted(tag::LARGE_TUPLE, elements.len())?,
                }
                elements
                    .iter()
                    .try_for_each(|element| self.value(element, depth + 1))
            }
            Value::List(elements) if elements.is_empty() => {
                self.out.push(tag::NIL);
                Ok(())
            }
            Value::List(elements) if self.string(elements) => Ok(()),
            Value::List(elements) => {
                self.counted(tag::LIST, elements.len())?;
                elements
                    .iter()
                    .try_for_each(|element| self.value(element, depth + 1))?;
                self.out.push(tag::NIL);
                Ok(())
            }
            Value::ImproperList(elements, tail) => {
                if !elements.is_empty() {
                    self.counted(tag::LIST, elements.len())?;
                    elements
                        .iter()
                        .try_for_each(|element| self.value(element, depth + 1))?;
                }
                self.value(tail, depth + 1)
            }
            Value::Map(pairs) => {
                self.counted(tag::MAP, pairs.len())?;
                pairs.iter().try_for_each(|(key, value)| {
                    self.value(key, depth + 1)?;
                    self.value(value, depth + 1)
                })
            }
            Value::Record(record) => {
                self.counted(tag::RECORD, record.fields.len())?;
                self.out.push(record.exported.into());
                self.atom(record.module.as_str())?;
                self.atom(record.name.as_str())?;
                for (name, _) in &record.fields {
                    self.atom(name.as_str())?;
                }
                record
                    .fields
                    .iter()
                    .try_for_each(|(_, value)| self.value(value, depth + 1))
            }
            leaf => self.leaf(leaf),
        }
    }

    fn leaf(&mut self, value: &Value) -> Result<(), TermError> {
        match value {
            Value::Atom(atom) => self.atom(atom.as_str())?,
            Value::Integer(number) => self.integer(*number),
            Value::BigInteger(number) => match i64::try_from(number) {
                Ok(small) => self.integer(small),
                Err(_) => self.big(number)?,
            },
            Value::Float(number) => {
                if !number.is_finite() {
                    return Err(TermError::Float);
                }
                self.out.push(tag::NEW_FLOAT);
                self.out.extend(number.to_be_bytes());
            }
            Value::Binary(bytes) => self.binary(bytes)?,
            Value::Bits { bytes, last_bits } => {
                if bytes.is_empty() || !(1..=8).contains(last_bits) {
                    return Err(TermError::Bits(*last_bits));
                }
                self.counted(tag::BIT_BINARY, bytes.len())?;
                self.out.push(*last_bits);
                self.out.extend_from_slice(bytes);
            }
            Value::Pid(pid) => {
                self.out.push(tag::NEW_PID);
                self.atom(&pid.node)?;
                for number in [pid.id, pid.serial, pid.creation] {
                    self.out.extend(number.to_be_bytes());
                }
            }
            Value::Reference(reference) => {
                let words = reference.words.len();
                self.out
                    .extend([tag::NEWER_REFERENCE, 0, words.min(255) as u8]);
                if !(1..=5).contains(&words) {
                    return Err(TermError::Reference(words as u32));
                }
                self.atom(&reference.node)?;
                self.out.extend(reference.creation.to_be_bytes());
                self.out
                    .extend(reference.words.iter().flat_map(|word| word.to_be_bytes()));
            }
            Value::Port(port) => {
                match u32::try_from(port.id) {
                    Ok(id) => {
                        self.out.push(tag::NEW_PORT);
                        self.atom(&port.node)?;
                        self.out.extend(id.to_be_bytes());
                    }
                    Err(_) => {
                        self.out.push(tag::V4_PORT);
                        self.atom(&port.node)?;
                        self.out.extend(port.id.to_be_bytes());
                    }
                }
                self.out.extend(port.creation.to_be_bytes());
            }
            Value::Fun(opaque) | Value::Local(opaque) => {
                self.out.extend_from_slice(opaque.as_bytes());
            }
            // Containers have been dealt with.
            Value::Tuple(_)
            | Value::List(_)
            | Value::ImproperList(..)
            | Value::Map(_)
            | Value::Record(_) => {}
        }
        Ok(())
    }

    fn counted(&mut self, tag: u8, count: usize) -> Result<(), TermError> {
        let limit = u32::MAX as usize;
        let short = u32::try_from(count).map_err(|_| TermError::Size {
            bytes: count,
            limit,
        })?;
        self.out.push(tag);
        self.out.extend(short.to_be_bytes());
        Ok(())
    }

    fn atom(&mut self, text: &str) -> Result<(), TermError> {
        if text.len() > MAX_ATOM_CHARS && text.chars().count() > MAX_ATOM_CHARS {
            return Err(TermError::AtomLength);
        }
        write_atom(text, &mut self.out);
        Ok(())
    }

    fn integer(&mut self, number: i64) {
        if let Ok(byte) = u8::try_from(number) {
            self.out.extend([tag::SMALL_INTEGER, byte]);
        } else if let Ok(word) = i32::try_from(number) {
            self.out.push(tag::INTEGER);
            self.out.extend(word.to_be_bytes());
        } else {
            let magnitude = number.unsigned_abs().to_le_bytes();
            let length = 8 - number.unsigned_abs().leading_zeros() as usize / 8;
            self.out
                .extend([tag::SMALL_BIG, length as u8, u8::from(number < 0)]);
            self.out.extend(magnitude.iter().take(length));
        }
    }

    fn big(&mut self, number: &BigInt) -> Result<(), TermError> {
        let (sign, magnitude) = number.to_bytes_le();
        match u8::try_from(magnitude.len()) {
            Ok(length) => self.out.extend([tag::SMALL_BIG, length]),
            Err(_) => self.counted(tag::LARGE_BIG, magnitude.len())?,
        }
        self.out.push(u8::from(sign == Sign::Minus));
        self.out.extend_from_slice(&magnitude);
        Ok(())
    }

    fn binary(&mut self, bytes: &Bytes) -> Result<(), TermError> {
        self.counted(tag::BINARY, bytes.len())?;
        if bytes.len() >= OUT_OF_BAND_BYTES {
            self.blobs.push(bytes.clone());
        } else {
            self.out.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// Writes a list of bytes as the VM does, and says whether it was one.
    fn string(&mut self, elements: &[Value]) -> bool {
        let Ok(length) = u16::try_from(elements.len()) else {
            return false;
        };
        let start = self.out.len();
        self.out.push(tag::STRING);
        self.out.extend(length.to_be_bytes());
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
}
