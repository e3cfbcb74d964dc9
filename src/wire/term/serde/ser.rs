//! From Rust's types to values.

use std::cell::Cell;

use num_bigint::BigInt;
use serde::Serialize;
use serde::ser::{self, Error as _};

use super::SerdeError;
use super::pass::{PASSED, fetch};
use super::with::{RECORD, record_name};
use crate::limits::MAX_TERM_DEPTH;
use crate::wire::term::{Atom, Value};

/// Capacity that a type may ask for before there are elements.
const FIRST_CAPACITY: usize = 1024;

#[derive(Clone, Copy)]
pub(super) struct Serializer<'a> {
    depth: u32,
    /// Whether a struct becomes a record.
    record: bool,
    /// Is told that the value is a unit.
    unit: Option<&'a Cell<bool>>,
}

impl Serializer<'_> {
    pub(super) fn new() -> Self {
        Self {
            depth: 0,
            record: false,
            unit: None,
        }
    }

    /// For what is inside a container.
    fn inner(self) -> Result<Inner, SerdeError> {
        if self.depth >= MAX_TERM_DEPTH {
            let message = format_args!("the value is nested deeper than {MAX_TERM_DEPTH} levels");
            return Err(SerdeError::custom(message));
        }
        Ok(Inner {
            depth: self.depth + 1,
        })
    }

    fn sequence(self, length: usize) -> Result<Sequence, SerdeError> {
        Ok(Sequence {
            inner: self.inner()?,
            list: false,
            name: None,
            elements: Vec::with_capacity(length.min(FIRST_CAPACITY)),
        })
    }

    fn fields(self, length: usize) -> Result<Fields, SerdeError> {
        Ok(Fields {
            inner: self.inner()?,
            variant: None,
            pairs: Vec::with_capacity(length.min(FIRST_CAPACITY)),
            key: None,
        })
    }
}

/// Serialises elements.
#[derive(Clone, Copy)]
pub(super) struct Inner {
    depth: u32,
}

impl Inner {
    fn value<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, SerdeError> {
        value.serialize(Serializer {
            depth: self.depth,
            record: false,
            unit: None,
        })
    }
}

fn atom(name: &'static str) -> Value {
    Value::Atom(Atom::new(name))
}

fn float(number: f64) -> Result<Value, SerdeError> {
    if number.is_finite() {
        Ok(Value::Float(number))
    } else {
        let message = format_args!("{number} is no float in Erlang; use an Option or an atom");
        Err(SerdeError::custom(message))
    }
}

macro_rules! into {
    ($($name:ident($kind:ty))*) => {$(
        fn $name(self, value: $kind) -> Result<Value, SerdeError> {
            Ok(value.into())
        }
    )*};
}

impl ser::Serializer for Serializer<'_> {
    type Ok = Value;
    type Error = SerdeError;
    type SerializeSeq = Sequence;
    type SerializeTuple = Sequence;
    type SerializeTupleStruct = Sequence;
    type SerializeTupleVariant = Sequence;
    type SerializeMap = Fields;
    type SerializeStruct = Struct;
    type SerializeStructVariant = Fields;

    into! {
        serialize_bool(bool) serialize_i8(i8) serialize_i16(i16) serialize_i32(i32)
        serialize_i64(i64) serialize_i128(i128) serialize_u8(u8) serialize_u16(u16)
        serialize_u32(u32) serialize_u64(u64) serialize_u128(u128) serialize_str(&str)
        serialize_bytes(&[u8])
    }

    fn serialize_f32(self, number: f32) -> Result<Value, SerdeError> {
        float(number.into())
    }

    fn serialize_f64(self, number: f64) -> Result<Value, SerdeError> {
        float(number)
    }

    fn serialize_char(self, character: char) -> Result<Value, SerdeError> {
        Ok(u32::from(character).into())
    }

    fn serialize_none(self) -> Result<Value, SerdeError> {
        Ok(atom("undefined"))
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, SerdeError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Value, SerdeError> {
        if let Some(unit) = self.unit {
            unit.set(true);
        }
        Ok(atom("ok"))
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<Value, SerdeError> {
        Ok(atom(name))
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<Value, SerdeError> {
        Ok(atom(variant))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<Value, SerdeError> {
        match name {
            PASSED => fetch(value),
            RECORD => value.serialize(Serializer {
                record: true,
                ..self
            }),
            _ => value.serialize(self),
        }
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Value, SerdeError> {
        let unit = Cell::new(false);
        let inner = self.inner()?;
        let content = value
            .serialize(Serializer {
                depth: inner.depth,
                record: false,
                unit: Some(&unit),
            })
            .map_err(|e| e.in_field(variant))?;
        let (variant, result) = match (name, variant) {
            ("Result", "Ok") => ("ok", true),
            ("Result", "Err") => ("error", true),
            (_, variant) => (variant, false),
        };
        if result && unit.get() {
            return Ok(atom(variant));
        }
        Ok(Value::Tuple(vec![atom(variant), content]))
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Sequence, SerdeError> {
        let sequence = self.sequence(length.unwrap_or(0))?;
        Ok(Sequence {
            list: true,
            ..sequence
        })
    }

    fn serialize_tuple(self, length: usize) -> Result<Sequence, SerdeError> {
        self.sequence(length)
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        length: usize,
    ) -> Result<Sequence, SerdeError> {
        self.sequence(length)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Sequence, SerdeError> {
        let mut sequence = self.sequence(length + 1)?;
        sequence.elements.push(atom(variant));
        sequence.name = Some(variant);
        Ok(sequence)
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Fields, SerdeError> {
        self.fields(length.unwrap_or(0))
    }

    fn serialize_struct(self, name: &'static str, length: usize) -> Result<Struct, SerdeError> {
        if !self.record {
            return self.fields(length).map(Struct::Map);
        }
        let mut sequence = self.sequence(length + 1)?;
        sequence.elements.push(Value::atom(&record_name(name)));
        Ok(Struct::Record(sequence))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Fields, SerdeError> {
        // The map stands within a tuple.
        let inner = self.inner()?;
        let outer = Serializer {
            depth: inner.depth,
            ..self
        };
        let fields = outer.fields(length)?;
        Ok(Fields {
            variant: Some(variant),
            ..fields
        })
    }
}

/// A list or a tuple on its way.
pub(super) struct Sequence {
    inner: Inner,
    list: bool,
    /// The variant, whose name is the first element.
    name: Option<&'static str>,
    elements: Vec<Value>,
}

impl Sequence {
    fn push<T: Serialize + ?Sized>(&mut self, element: &T) -> Result<(), SerdeError> {
        let element = self.inner.value(element).map_err(|error| match self.name {
            Some(name) => error.at_index(self.elements.len() - 1).in_field(name),
            None => error.at_index(self.elements.len()),
        })?;
        self.elements.push(element);
        Ok(())
    }

    fn finish(self) -> Value {
        if self.list {
            Value::List(self.elements)
        } else {
            Value::Tuple(self.elements)
        }
    }
}

macro_rules! sequence {
    ($($of:ident::$name:ident)*) => {$(
        impl ser::$of for Sequence {
            type Ok = Value;
            type Error = SerdeError;

            fn $name<T: Serialize + ?Sized>(&mut self, element: &T) -> Result<(), SerdeError> {
                self.push(element)
            }

            fn end(self) -> Result<Value, SerdeError> {
                Ok(self.finish())
            }
        }
    )*};
}

sequence! {
    SerializeSeq::serialize_element
    SerializeTuple::serialize_element
    SerializeTupleStruct::serialize_field
    SerializeTupleVariant::serialize_field
}

/// A map on its way.
pub(super) struct Fields {
    inner: Inner,
    variant: Option<&'static str>,
    pairs: Vec<(Value, Value)>,
    key: Option<Value>,
}

impl Fields {
    fn push<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), SerdeError> {
        let value = self.inner.value(value).map_err(|error| {
            let error = error.in_field(name);
            match self.variant {
                Some(variant) => error.in_field(variant),
                None => error,
            }
        })?;
        self.pairs.push((atom(name), value));
        Ok(())
    }

    fn finish(self) -> Value {
        let map = Value::Map(self.pairs);
        match self.variant {
            Some(variant) => Value::Tuple(vec![atom(variant), map]),
            None => map,
        }
    }
}

impl ser::SerializeMap for Fields {
    type Ok = Value;
    type Error = SerdeError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), SerdeError> {
        self.key = Some(self.inner.value(key)?);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), SerdeError> {
        let Some(key) = self.key.take() else {
            return Err(SerdeError::custom("a value of a map without a key"));
        };
        let value = self
            .inner
            .value(value)
            .map_err(|e| e.in_field(key.to_string()))?;
        self.pairs.push((key, value));
        Ok(())
    }

    fn end(self) -> Result<Value, SerdeError> {
        Ok(self.finish())
    }
}

impl ser::SerializeStructVariant for Fields {
    type Ok = Value;
    type Error = SerdeError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), SerdeError> {
        self.push(name, value)
    }

    fn end(self) -> Result<Value, SerdeError> {
        Ok(self.finish())
    }
}

/// A struct on its way: a map or a record.
pub(super) enum Struct {
    Map(Fields),
    Record(Sequence),
}

impl ser::SerializeStruct for Struct {
    type Ok = Value;
    type Error = SerdeError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), SerdeError> {
        match self {
            Self::Map(fields) => fields.push(name, value),
            Self::Record(sequence) => {
                let value = sequence.inner.value(value).map_err(|e| e.in_field(name))?;
                sequence.elements.push(value);
                Ok(())
            }
        }
    }

    /// A record has a place for each field.
    fn skip_field(&mut self, _: &'static str) -> Result<(), SerdeError> {
        if let Self::Record(sequence) = self {
            sequence.elements.push(atom("undefined"));
        }
        Ok(())
    }

    fn end(self) -> Result<Value, SerdeError> {
        Ok(match self {
            Self::Map(fields) => fields.finish(),
            Self::Record(sequence) => sequence.finish(),
        })
    }
}

/// The integer, if it fits 128 bits.
pub(super) fn small(number: &BigInt) -> Option<Result<i128, u128>> {
    match (i128::try_from(number), u128::try_from(number)) {
        (Ok(number), _) => Some(Ok(number)),
        (_, Ok(number)) => Some(Err(number)),
        _ => None,
    }
}
