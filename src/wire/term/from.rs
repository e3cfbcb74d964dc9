//! What becomes a value by `into`.
//!
//! Where Rust's types don't tell what Erlang's users would expect, the choice is: text and bytes
//! are binaries ([`Value::string`] makes Erlang's strings), what isn't there is `undefined`, and
//! an iterator of values collects into a list. There is no conversion of a `Vec<T>` in general,
//! since one of bytes should be a binary and one of numbers a list.

use std::sync::Arc;

use bytes::Bytes;

use super::{Atom, Binary, Pid, Port, Reference, Value};

macro_rules! small {
    ($($number:ty)*) => {$(
        impl From<$number> for Value {
            fn from(number: $number) -> Self {
                Self::Integer(number.into())
            }
        }
    )*};
}

macro_rules! large {
    ($($number:ty)*) => {$(
        impl From<$number> for Value {
            fn from(number: $number) -> Self {
                Self::integer(number)
            }
        }
    )*};
}

small!(u8 u16 i8 i16);
large!(usize isize u128 i128);

impl From<f32> for Value {
    fn from(number: f32) -> Self {
        Self::Float(number.into())
    }
}

/// Its code.
impl From<char> for Value {
    fn from(character: char) -> Self {
        u32::from(character).into()
    }
}

/// A binary.
impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Binary(text.into())
    }
}

/// A binary.
impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Binary(text.into())
    }
}

/// A binary.
impl From<Arc<str>> for Value {
    fn from(text: Arc<str>) -> Self {
        (&*text).into()
    }
}

/// A binary.
impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Binary(bytes.into())
    }
}

/// A binary.
impl<const N: usize> From<&[u8; N]> for Value {
    fn from(bytes: &[u8; N]) -> Self {
        bytes[..].into()
    }
}

/// A binary.
impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Binary(bytes.into())
    }
}

impl From<Port> for Value {
    fn from(port: Port) -> Self {
        Self::Port(port)
    }
}

macro_rules! cloned {
    ($($own:ty)*) => {$(
        impl From<&$own> for Value {
            fn from(own: &$own) -> Self {
                own.clone().into()
            }
        }
    )*};
}

cloned!(Value Atom Pid Reference Port Binary Bytes String);

/// What it holds, or the atom `undefined`.
impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(option: Option<T>) -> Self {
        option.map_or_else(|| Self::atom("undefined"), Into::into)
    }
}

/// A list.
impl<T: Into<Value>> FromIterator<T> for Value {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        Self::List(elements.into_iter().map(Into::into).collect())
    }
}
