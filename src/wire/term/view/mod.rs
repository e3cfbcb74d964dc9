//! Terms read where they are.
//!
//! A [`Term`] has been checked from end to end, so it can be read in place: a [`View`] says what
//! stands at one position of its bytes, and the elements of a container are views again, found
//! one after the other. Nothing is allocated, binaries are slices, and elements that nobody asks
//! for cost no more than to step over them.
//!
//! The format does not say where a container ends. Whoever reads all elements of one and then
//! those of the next, steps over the first a second time; with many levels that would add up to
//! the square of the term's size. So below [`VIEW_LEVELS`](crate::limits::VIEW_LEVELS) levels the
//! term finds out once where its containers end, and remembers it.

mod containers;
mod leaves;
mod place;
#[cfg(test)]
mod tests;

pub use containers::{Elements, List, ListIter, Map, Pairs, Record, Tuple};
pub use leaves::{Atom, BigInteger, Bits, Pid, Port, Reference, Slice};

pub(super) use place::Ends;

use super::{Opaque, Term, Value};
use place::Place;
use std::borrow::Cow;
use std::fmt;

// Each variant is aligned to words, so that what tells them apart takes a whole one: see `Binary`.
/// What stands at one position of a [`Term`].
///
/// ```
/// use partisan::term;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let message = term!({put, (b"joe"), 42}).encode()?;
/// let put = match message.view().as_tuple() {
///     Some([tag, key, value]) if tag.is_atom("put") => key.as_binary().zip(value.as_i64()),
///     _ => None,
/// };
/// assert_eq!(put, Some((&b"joe"[..], 42)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum View<'a> {
    /// An atom.
    Atom(Atom<'a>),
    /// An integer of 64 bits.
    Integer(i64),
    /// An integer that doesn't fit into 64 bits.
    BigInteger(BigInteger<'a>),
    /// A finite float.
    Float(f64),
    /// Bytes.
    Binary(Slice<'a>),
    /// Bits that don't fill the last byte.
    Bits(Bits<'a>),
    /// A tuple.
    Tuple(Tuple<'a>),
    /// A list; [`List::tail`] tells whether it is a proper one.
    List(List<'a>),
    /// A map.
    Map(Map<'a>),
    /// A process.
    Pid(Pid<'a>),
    /// A reference.
    Reference(Reference<'a>),
    /// A port.
    Port(Port<'a>),
    /// A fun, in its encoding without the version byte.
    Fun(Slice<'a>),
    /// A native record, known to OTP 29 and newer.
    Record(Record<'a>),
    /// A term that one node has encoded for itself alone, without the version byte.
    Local(Slice<'a>),
}

impl Term {
    /// Reads it in place.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        let mut place = Place::begin(self);
        // Most messages are tuples: see `Place::read` for what a result costs that is moved.
        match place.small_tuple() {
            Some(tuple) => View::Tuple(tuple),
            None => place.read(&mut 0).unwrap_or(View::Integer(0)),
        }
    }
}

impl<'a> View<'a> {
    /// An owned value of it. Long binaries share the memory of the term.
    #[must_use]
    pub fn to_value(&self) -> Value {
        match *self {
            Self::Atom(atom) => Value::Atom(atom.into()),
            Self::Integer(number) => Value::Integer(number),
            Self::BigInteger(number) => Value::BigInteger(number.to_bigint()),
            Self::Float(float) => Value::Float(float),
            Self::Binary(slice) => Value::Binary(slice.into()),
            Self::Bits(bits) => Value::bits(bits.bytes, bits.last_bits),
            Self::Tuple(tuple) => Value::Tuple(tuple.iter().map(|view| view.to_value()).collect()),
            Self::List(list) => {
                let mut rest = list.iter();
                let elements = rest.by_ref().map(|view| view.to_value()).collect();
                match rest.tail() {
                    Some(tail) => Value::ImproperList(elements, Box::new(tail.to_value())),
                    None => Value::List(elements),
                }
            }
            Self::Map(map) => Value::Map(
                map.iter()
                    .map(|(key, value)| (key.to_value(), value.to_value()))
                    .collect(),
            ),
            Self::Pid(pid) => Value::Pid(pid.into()),
            Self::Reference(reference) => Value::Reference(Box::new(reference.into())),
            Self::Port(port) => Value::Port(port.into()),
            Self::Fun(slice) => Value::Fun(Opaque::trusted(slice.to_bytes())),
            Self::Record(record) => Value::Record(Box::new(record.into())),
            Self::Local(slice) => Value::Local(Opaque::trusted(slice.to_bytes())),
        }
    }

    /// The text, if it is an atom.
    #[must_use]
    pub fn as_atom(&self) -> Option<Cow<'a, str>> {
        match *self {
            Self::Atom(atom) => Some(atom.text()),
            _ => None,
        }
    }

    /// Whether it is that atom.
    #[must_use]
    pub fn is_atom(&self, text: &str) -> bool {
        matches!(*self, Self::Atom(atom) if atom.is(text))
    }

    /// The number, if it is an integer of 64 bits.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Self::Integer(number) => Some(number),
            _ => None,
        }
    }

    /// The number, if it is a float.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::Float(number) => Some(number),
            _ => None,
        }
    }

    /// The bytes, if it is a binary. [`Slice::to_bytes`] takes them out without a copy.
    #[must_use]
    pub fn as_binary(&self) -> Option<&'a [u8]> {
        match *self {
            Self::Binary(slice) => Some(slice.bytes()),
            _ => None,
        }
    }

    /// The elements, if it is a tuple of `N`.
    #[must_use]
    pub fn as_tuple<const N: usize>(&self) -> Option<[View<'a>; N]> {
        match *self {
            Self::Tuple(tuple) => tuple.elements(),
            _ => None,
        }
    }

    /// The list, if it is one, proper or not.
    #[must_use]
    pub fn as_list(&self) -> Option<List<'a>> {
        match *self {
            Self::List(list) => Some(list),
            _ => None,
        }
    }

    /// The map, if it is one.
    #[must_use]
    pub fn as_map(&self) -> Option<Map<'a>> {
        match *self {
            Self::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The pid, if it is one.
    #[must_use]
    pub fn as_pid(&self) -> Option<Pid<'a>> {
        match *self {
            Self::Pid(pid) => Some(pid),
            _ => None,
        }
    }

    /// The reference, if it is one.
    #[must_use]
    pub fn as_reference(&self) -> Option<Reference<'a>> {
        match *self {
            Self::Reference(reference) => Some(reference),
            _ => None,
        }
    }
}

impl From<View<'_>> for Value {
    fn from(view: View<'_>) -> Self {
        view.to_value()
    }
}

/// As its value is shown.
impl fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_value().fmt(f)
    }
}

/// As Erlang writes it.
impl fmt::Display for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_value(), f)
    }
}
