//! Erlang's values, for users in Rust.

use super::{Binary, Opaque, Pid, Port, Record, Reference};
use bytes::Bytes;
use num_bigint::BigInt;
use smol_str::SmolStr;
use std::fmt;
use std::sync::Arc;

/// An atom's text. Short ones stand in it, so that neither making nor cloning one costs more than
/// a few bytes copied.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Atom(SmolStr);

impl Atom {
    /// An atom of that text. More than 255 characters are refused when it is encoded.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into().into())
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Atom {
    fn from(text: &str) -> Self {
        Self(SmolStr::new(text))
    }
}

impl AsRef<str> for Atom {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// A term's meaning.
///
/// Binaries, but for short ones, share the memory of the term that they were decoded from, so one
/// that is kept for long keeps all of it: see [`Value::detach`].
///
/// [`Value::encode`] and [`Term::decode`](super::Term::decode) are inverse to each other for
/// values in normal form: what fits is an `Integer`, not a `BigInteger`; a bitstring of whole
/// bytes is a `Binary`; improper lists have at least one element and no list as their tail.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// An atom.
    Atom(Atom),
    /// An integer of 64 bits.
    Integer(i64),
    /// An integer that doesn't fit into 64 bits.
    BigInteger(BigInt),
    /// A finite float.
    Float(f64),
    /// Bytes.
    Binary(Binary),
    /// Bits that don't fill the last byte.
    Bits {
        /// The bits, the last ones in the high bits of the last byte; a decoded one has zeros below.
        bytes: Vec<u8>,
        /// How many bits of the last byte belong to it, 1 to 8.
        last_bits: u8,
    },
    /// A tuple.
    Tuple(Vec<Value>),
    /// A proper list. Erlang's strings are lists of integers.
    List(Vec<Value>),
    /// A list that ends with something else than the empty list.
    ImproperList(Vec<Value>, Box<Value>),
    /// A map, in the order of its encoding.
    Map(Vec<(Value, Value)>),
    /// A process.
    Pid(Pid),
    /// A reference.
    Reference(Box<Reference>),
    /// A port.
    Port(Port),
    /// A fun.
    Fun(Opaque),
    /// A native record, known to OTP 29 and newer.
    Record(Box<Record>),
    /// A term that one node has encoded for itself alone (`term_to_binary(Term, [local])`).
    Local(Opaque),
}

impl Value {
    /// An atom.
    #[must_use]
    pub fn atom(text: &str) -> Self {
        Self::Atom(text.into())
    }

    /// An integer of any size.
    #[must_use]
    pub fn integer(number: impl Into<BigInt>) -> Self {
        let number = number.into();
        i64::try_from(&number).map_or_else(|_| Self::BigInteger(number), Self::Integer)
    }

    /// A binary.
    #[must_use]
    pub fn binary(bytes: impl Into<Binary>) -> Self {
        Self::Binary(bytes.into())
    }

    /// Bits that don't fill the last byte. What is below them there means nothing to the VM: equal
    /// bitstrings are to be equal here.
    pub(super) fn bits(bytes: &[u8], last_bits: u8) -> Self {
        let mut bytes = bytes.to_vec();
        if let Some(last) = bytes.last_mut() {
            *last &= 0xff << (8 - last_bits);
        }
        Self::Bits { bytes, last_bits }
    }

    /// A string as Erlang has it: a list of code points.
    #[must_use]
    pub fn string(text: &str) -> Self {
        Self::List(
            text.chars()
                .map(|character| Self::Integer(u32::from(character).into()))
                .collect(),
        )
    }

    /// A tuple.
    #[must_use]
    pub fn tuple(elements: impl Into<Vec<Value>>) -> Self {
        Self::Tuple(elements.into())
    }

    /// A list.
    #[must_use]
    pub fn list(elements: impl Into<Vec<Value>>) -> Self {
        Self::List(elements.into())
    }

    /// Copies what it shares with the term that it was decoded from, so that it keeps nothing
    /// else alive.
    pub fn detach(&mut self) {
        match self {
            Self::Binary(binary) => binary.detach(),
            Self::Fun(opaque) | Self::Local(opaque) => opaque.detach(),
            Self::Tuple(all) | Self::List(all) => all.iter_mut().for_each(Self::detach),
            Self::ImproperList(all, tail) => {
                all.iter_mut().for_each(Self::detach);
                tail.detach();
            }
            Self::Map(pairs) => pairs.iter_mut().for_each(|(key, value)| {
                key.detach();
                value.detach();
            }),
            Self::Record(record) => record.fields.iter_mut().for_each(|(_, v)| v.detach()),
            Self::Atom(_)
            | Self::Integer(_)
            | Self::BigInteger(_)
            | Self::Float(_)
            | Self::Bits { .. }
            | Self::Pid(_)
            | Self::Reference(_)
            | Self::Port(_) => {}
        }
    }

    /// The text, if it is an atom.
    #[must_use]
    pub fn as_atom(&self) -> Option<&str> {
        match self {
            Self::Atom(atom) => Some(atom.as_str()),
            _ => None,
        }
    }

    /// Whether it is that atom.
    #[must_use]
    pub fn is_atom(&self, text: &str) -> bool {
        self.as_atom() == Some(text)
    }

    /// The number, if it is an integer of 64 bits.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// The number, if it is a float.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Float(number) => Some(*number),
            _ => None,
        }
    }

    /// The bytes, if it is a binary.
    #[must_use]
    pub fn as_binary(&self) -> Option<&Binary> {
        match self {
            Self::Binary(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The elements, if it is a tuple.
    #[must_use]
    pub fn as_tuple(&self) -> Option<&[Value]> {
        match self {
            Self::Tuple(elements) => Some(elements),
            _ => None,
        }
    }

    /// The elements, if it is a proper list.
    #[must_use]
    pub fn as_list(&self) -> Option<&[Value]> {
        match self {
            Self::List(elements) => Some(elements),
            _ => None,
        }
    }

    /// The text, if it is a list of code points.
    #[must_use]
    pub fn as_string(&self) -> Option<String> {
        let character = |value: &Value| char::from_u32(u32::try_from(value.as_i64()?).ok()?);
        self.as_list()?.iter().map(character).collect()
    }

    /// The pairs, if it is a map.
    #[must_use]
    pub fn as_map(&self) -> Option<&[(Value, Value)]> {
        match self {
            Self::Map(pairs) => Some(pairs),
            _ => None,
        }
    }

    /// The value of that key, if it is a map that has it.
    #[must_use]
    pub fn get(&self, key: &Value) -> Option<&Value> {
        self.as_map()?
            .iter()
            .find(|(own, _)| own == key)
            .map(|(_, value)| value)
    }

    /// The pid, if it is one.
    #[must_use]
    pub fn as_pid(&self) -> Option<&Pid> {
        match self {
            Self::Pid(pid) => Some(pid),
            _ => None,
        }
    }

    /// The native record, if it is one.
    #[must_use]
    pub fn as_record(&self) -> Option<&Record> {
        match self {
            Self::Record(record) => Some(record),
            _ => None,
        }
    }

    /// The reference, if it is one.
    #[must_use]
    pub fn as_reference(&self) -> Option<&Reference> {
        match self {
            Self::Reference(reference) => Some(reference),
            _ => None,
        }
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<i32> for Value {
    fn from(number: i32) -> Self {
        Self::Integer(number.into())
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Integer(number.into())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::integer(number)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

/// The atoms `true` and `false`.
impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::atom(if truth { "true" } else { "false" })
    }
}

impl From<BigInt> for Value {
    fn from(number: BigInt) -> Self {
        Self::integer(number)
    }
}

impl From<Bytes> for Value {
    fn from(bytes: Bytes) -> Self {
        Self::Binary(bytes.into())
    }
}

impl From<Binary> for Value {
    fn from(binary: Binary) -> Self {
        Self::Binary(binary)
    }
}

impl From<Atom> for Value {
    fn from(atom: Atom) -> Self {
        Self::Atom(atom)
    }
}

impl From<Pid> for Value {
    fn from(pid: Pid) -> Self {
        Self::Pid(pid)
    }
}

impl From<Reference> for Value {
    fn from(reference: Reference) -> Self {
        Self::Reference(Box::new(reference))
    }
}

impl From<Record> for Value {
    fn from(record: Record) -> Self {
        Self::Record(Box::new(record))
    }
}

impl From<Vec<Value>> for Value {
    fn from(elements: Vec<Value>) -> Self {
        Self::List(elements)
    }
}
