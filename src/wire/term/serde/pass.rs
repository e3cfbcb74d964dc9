//! Values that pass serde as they are.
//!
//! Serialising: the serialiser is given a newtype struct of the name [`PASSED`]. It opens the
//! slot and has the content serialise itself; the content finds the slot open, puts its value
//! there and writes a unit. Deserialising goes the other way round. Another format never opens
//! the slot, so the content takes its ordinary way.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::de::{self, Visitor};
use serde::ser;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::SerdeError;
use super::ser::Serializer as Own;
use crate::wire::term::{Atom, Pid, Reference, Term, Value};

/// Name of the newtype struct around a value that passes as it is.
pub(super) const PASSED: &str = "$partisan::passed";

enum Slot {
    Closed,
    Open,
    Full(Value),
}

thread_local! {
    static SLOT: RefCell<Slot> = const { RefCell::new(Slot::Closed) };
}

fn swap(slot: Slot) -> Slot {
    SLOT.with(|place| std::mem::replace(&mut *place.borrow_mut(), slot))
}

/// The value that the content passes.
pub(super) fn fetch<T: Serialize + ?Sized>(content: &T) -> Result<Value, SerdeError> {
    let before = swap(Slot::Open);
    let result = content.serialize(Own::new());
    let slot = swap(before);
    match (result, slot) {
        (Ok(_), Slot::Full(value)) => Ok(value),
        (Err(error), _) => Err(error),
        _ => Err(ser::Error::custom("the type passes no value")),
    }
}

/// Has the visitor take the value.
pub(super) fn deliver<'de, V: Visitor<'de>>(
    value: Value,
    visitor: V,
) -> Result<V::Value, SerdeError> {
    let before = swap(Slot::Full(value));
    let result = visitor.visit_newtype_struct(de::value::UnitDeserializer::<SerdeError>::new());
    swap(before);
    result
}

/// A type whose value passes.
trait Pass: Sized {
    const EXPECTED: &'static str;

    fn to_value(&self) -> Value;

    fn from_value(value: Value) -> Result<Self, Value>;

    /// How other formats write it.
    fn write<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(ser::Error::custom(format_args!(
            "{} can be written by partisan's serialiser only",
            Self::EXPECTED
        )))
    }

    /// How other formats read it.
    fn read<'de, D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(de::Error::custom(format_args!(
            "{} can be read by partisan's deserialiser only",
            Self::EXPECTED
        )))
    }
}

/// Around what passes, while it is being written.
struct Content<'a, T>(&'a T);

impl<T: Pass> Serialize for Content<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let asked = SLOT.with(|slot| {
            let mut slot = slot.borrow_mut();
            let asked = matches!(*slot, Slot::Open);
            if asked {
                *slot = Slot::Full(self.0.to_value());
            }
            asked
        });
        if asked {
            serializer.serialize_unit()
        } else {
            self.0.write(serializer)
        }
    }
}

fn serialize<T: Pass, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_newtype_struct(PASSED, &Content(value))
}

struct Taker<T>(PhantomData<T>);

impl<'de, T: Pass> Visitor<'de> for Taker<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, content: D) -> Result<T, D::Error> {
        let slot = swap(Slot::Closed);
        match slot {
            Slot::Full(value) => T::from_value(value)
                .map_err(|value| de::Error::custom(SerdeError::expected(T::EXPECTED, &value))),
            _ => T::read(content),
        }
    }
}

fn deserialize<'de, T: Pass, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_newtype_struct(PASSED, Taker(PhantomData))
}

impl Pass for Value {
    const EXPECTED: &'static str = "a term";

    fn to_value(&self) -> Value {
        self.clone()
    }

    fn from_value(value: Value) -> Result<Self, Value> {
        Ok(value)
    }
}

impl Pass for Term {
    const EXPECTED: &'static str = "a term";

    fn to_value(&self) -> Value {
        self.decode()
    }

    fn from_value(value: Value) -> Result<Self, Value> {
        value.encode().map_err(|_| value)
    }
}

impl Pass for Pid {
    const EXPECTED: &'static str = "a pid";

    fn to_value(&self) -> Value {
        self.into()
    }

    fn from_value(value: Value) -> Result<Self, Value> {
        match value {
            Value::Pid(pid) => Ok(pid),
            other => Err(other),
        }
    }
}

impl Pass for Reference {
    const EXPECTED: &'static str = "a reference";

    fn to_value(&self) -> Value {
        self.into()
    }

    fn from_value(value: Value) -> Result<Self, Value> {
        value.as_reference().cloned().ok_or(value)
    }
}

impl Pass for Atom {
    const EXPECTED: &'static str = "an atom";

    fn to_value(&self) -> Value {
        self.into()
    }

    fn from_value(value: Value) -> Result<Self, Value> {
        match value {
            Value::Atom(atom) => Ok(atom),
            other => Err(other),
        }
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Atom::new)
    }
}

/// Bytes that are shared, not copied.
pub(super) struct Shared(pub(super) Bytes);

impl Pass for Shared {
    const EXPECTED: &'static str = "a binary";

    fn to_value(&self) -> Value {
        Value::Binary(self.0.clone().into())
    }

    fn from_value(value: Value) -> Result<Self, Value> {
        match value {
            Value::Binary(bytes) => Ok(Self(bytes.into())),
            Value::List(elements) => {
                let byte = |element: &Value| u8::try_from(element.as_i64()?).ok();
                match elements.iter().map(byte).collect::<Option<Vec<u8>>>() {
                    Some(bytes) => Ok(Self(bytes.into())),
                    None => Err(Value::List(elements)),
                }
            }
            other => Err(other),
        }
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Taken;

        impl<'de> Visitor<'de> for Taken {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }

            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut bytes: A) -> Result<Vec<u8>, A::Error> {
                let mut taken = Vec::new();
                while let Some(byte) = bytes.next_element()? {
                    taken.push(byte);
                }
                Ok(taken)
            }
        }

        let bytes = deserializer.deserialize_byte_buf(Taken)?;
        Ok(Self(bytes.into()))
    }
}

macro_rules! passing {
    ($($own:ty)*) => {$(
        impl Serialize for $own {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serialize(self, serializer)
            }
        }

        impl<'de> Deserialize<'de> for $own {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserialize(deserializer)
            }
        }
    )*};
}

passing!(Value Term Pid Reference Atom Shared);
