//! From values to Rust's types.
//!
//! The recursion is that of the type and goes no deeper than the value, which for one that came
//! from a peer is no deeper than a term may be.

use num_bigint::BigInt;
use serde::de::value::StringDeserializer;
use serde::de::{self, DeserializeSeed, Error as _, IntoDeserializer, Visitor};

use super::SerdeError;
use super::pass::{PASSED, deliver};
use super::ser::small;
use super::with::{RECORD, record_name};
use crate::wire::term::Value;

pub(super) struct Deserializer {
    value: Value,
    /// Whether a struct is a record.
    record: bool,
}

impl Deserializer {
    pub(super) fn new(value: Value) -> Self {
        Self {
            value,
            record: false,
        }
    }

    fn integer<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SerdeError> {
        match &self.value {
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::BigInteger(number) => integer(number, visitor),
            other => Err(unfit(other, &visitor)),
        }
    }

    fn float<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SerdeError> {
        match &self.value {
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Integer(number) => visitor.visit_f64(*number as f64),
            other => Err(unfit(other, &visitor)),
        }
    }

    fn bytes<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SerdeError> {
        match self.value {
            Value::Binary(bytes) => visitor.visit_bytes(&bytes),
            Value::List(elements) => {
                let byte = |element: &Value| u8::try_from(element.as_i64()?).ok();
                match elements.iter().map(byte).collect::<Option<_>>() {
                    Some(bytes) => visitor.visit_byte_buf(bytes),
                    None => Err(unfit(&Value::List(elements), &visitor)),
                }
            }
            other => Err(unfit(&other, &visitor)),
        }
    }

    /// The elements of a tuple, or of a list in its stead.
    fn tuple<'de, V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, SerdeError> {
        match self.value {
            Value::Tuple(elements) | Value::List(elements) if elements.len() == length => {
                sequence(elements, Names::Indices, visitor)
            }
            other => {
                let expected = format_args!("a tuple of {length} elements");
                Err(SerdeError::expected(expected, &other))
            }
        }
    }
}

fn unfit<'de>(value: &Value, visitor: &impl Visitor<'de>) -> SerdeError {
    let expected: &dyn de::Expected = visitor;
    SerdeError::expected(expected, value)
}

fn integer<'de, V: Visitor<'de>>(number: &BigInt, visitor: V) -> Result<V::Value, SerdeError> {
    match small(number) {
        Some(Ok(number)) => match u64::try_from(number) {
            Ok(number) => visitor.visit_u64(number),
            Err(_) => visitor.visit_i128(number),
        },
        Some(Err(number)) => visitor.visit_u128(number),
        None => Err(unfit(&Value::BigInteger(number.clone()), &visitor)),
    }
}

/// Text from what Erlang uses for it.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::Binary(bytes) => std::str::from_utf8(bytes).ok().map(str::to_owned),
        Value::Atom(atom) => Some(atom.as_str().to_owned()),
        Value::List(_) => value.as_string(),
        _ => None,
    }
}

/// The name of a field or a variant.
fn name(value: &Value) -> Option<String> {
    match value {
        Value::List(_) => None,
        other => text(other),
    }
}

fn sequence<'de, V: Visitor<'de>>(
    elements: Vec<Value>,
    names: Names,
    visitor: V,
) -> Result<V::Value, SerdeError> {
    let length = elements.len();
    let mut access = Elements {
        elements: elements.into_iter(),
        names,
        at: 0,
    };
    let value = visitor.visit_seq(&mut access)?;
    match access.elements.len() {
        0 => Ok(value),
        left => Err(SerdeError::custom(format_args!(
            "expected {} elements, got {length}",
            length - left
        ))),
    }
}

fn map<'de, V: Visitor<'de>>(
    pairs: Vec<(Value, Value)>,
    visitor: V,
) -> Result<V::Value, SerdeError> {
    visitor.visit_map(Pairs {
        pairs: pairs.into_iter(),
        next: None,
    })
}

macro_rules! by {
    ($by:ident: $($name:ident)*) => {$(
        fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SerdeError> {
            self.$by(visitor)
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Deserializer {
    type Error = SerdeError;

    by! { integer:
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
    }
    by! { float: deserialize_f32 deserialize_f64 }
    by! { bytes: deserialize_bytes deserialize_byte_buf }
    by! { deserialize_string: deserialize_str }

    /// What the value itself suggests; for untagged enums and the like.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SerdeError> {
        match self.value {
            Value::Atom(atom) => match atom.as_str() {
                "true" => visitor.visit_bool(true),
                "false" => visitor.visit_bool(false),
                "undefined" | "nil" => visitor.visit_unit(),
                text => visitor.visit_str(text),
            },
            Value::Integer(_) | Value::BigInteger(_) => self.integer(visitor),
            Value::Float(number) => visitor.visit_f64(number),
            Value::Binary(bytes) => match std::str::from_utf8(&bytes) {
                Ok(text) => visitor.visit_str(text),
                Err(_) => visitor.visit_bytes(&bytes),
            },
            Value::Tuple(elements) | Value::List(elements) => {
                sequence(elements, Names::Indices, visitor)
            }
            Value::Map(pairs) => map(pairs, visitor),
            other => Err(unfit(&other, &visitor)),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SerdeError> {
        match self.value.as_atom() {
            Some("true") => visitor.visit_bool(true),
            Some("false") => visitor.visit_bool(false),
            _ => Err(unfit(&self.value, &visitor)),
        }
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SerdeError> {
        let code = self.value.as_i64().and_then(|n| u32::try_from(n).ok());
        match code.and_then(char::from_u32) {
            Some(character) => visitor.visit_char(character),
            None => Err(unfit(&self.value, &visitor)),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SerdeError> {
        match text(&self.value) {
            Some(text) => visitor.visit_string(text),
            None => Err(unfit(&self.value, &visitor)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SerdeError> {
        match self.value.as_atom() {
            Some("undefined" | "nil") => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SerdeError> {
        if self.value.is_atom("ok") {
            visitor.visit_unit()
        } else {
            Err(SerdeError::expected("the atom ok", &self.value))
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        own: &'static str,
        visitor: V,
    ) -> Result<V::Value, SerdeError> {
        if name(&self.value).as_deref() == Some(own) {
            visitor.visit_unit()
        } else {
            let expected = format_args!("the atom {own}");
            Err(SerdeError::expected(expected, &self.value))
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, SerdeError> {
        match name {
            PASSED => deliver(self.value, visitor),
            RECORD => visitor.visit_newtype_struct(Self {
                record: true,
                ..self
            }),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SerdeError> {
        match self.value {
            Value::List(elements) => sequence(elements, Names::Indices, visitor),
            Value::Binary(bytes) => {
                visitor.visit_seq(de::value::SeqDeserializer::new(bytes.iter().copied()))
            }
            other => Err(unfit(&other, &visitor)),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, SerdeError> {
        self.tuple(length, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, SerdeError> {
        self.tuple(length, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SerdeError> {
        match self.value {
            Value::Map(pairs) => map(pairs, visitor),
            other => Err(unfit(&other, &visitor)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, SerdeError> {
        match self.value {
            Value::Map(mut pairs) if !self.record => {
                // The name of the module that a struct of Elixir belongs to.
                if !fields.contains(&"__struct__") {
                    pairs.retain(|(key, _)| !key.is_atom("__struct__"));
                }
                map(pairs, visitor)
            }
            Value::Tuple(mut elements) if self.record && is_record(&elements, name, fields) => {
                elements.remove(0);
                sequence(elements, Names::Fields(fields), visitor)
            }
            other if self.record => {
                let expected = format_args!(
                    "the record {} of {} fields",
                    record_name(name),
                    fields.len()
                );
                Err(SerdeError::expected(expected, &other))
            }
            other => Err(SerdeError::expected("a map", &other)),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        own: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, SerdeError> {
        let tagged = match &self.value {
            Value::Tuple(elements) => elements.first().and_then(name),
            other => name(other),
        };
        let Some(mut variant) = tagged else {
            let expected = format_args!("an atom, or a tuple that begins with one, for {own}");
            return Err(SerdeError::expected(expected, &self.value));
        };
        if own == "Result" && variants == ["Ok", "Err"] {
            match variant.as_str() {
                "ok" => variant = "Ok".into(),
                "error" => variant = "Err".into(),
                _ => {}
            }
        }
        visitor.visit_enum(Variant {
            variant,
            result: own == "Result",
            value: self.value,
        })
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SerdeError> {
        match name(&self.value) {
            Some(name) => visitor.visit_string(name),
            None => Err(unfit(&self.value, &visitor)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SerdeError> {
        visitor.visit_unit()
    }
}

fn is_record(elements: &[Value], name: &str, fields: &[&str]) -> bool {
    elements.len() == fields.len() + 1
        && elements
            .first()
            .and_then(Value::as_atom)
            .is_some_and(|atom| atom == name || atom == record_name(name))
}

/// How errors name the elements.
enum Names {
    /// By number.
    Indices,
    Fields(&'static [&'static str]),
}

struct Elements {
    elements: std::vec::IntoIter<Value>,
    names: Names,
    at: usize,
}

impl<'de> de::SeqAccess<'de> for &mut Elements {
    type Error = SerdeError;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, SerdeError> {
        let Some(element) = self.elements.next() else {
            return Ok(None);
        };
        let at = self.at;
        self.at += 1;
        let value = seed.deserialize(Deserializer::new(element));
        value.map(Some).map_err(|error| match self.names {
            Names::Indices => error.at_index(at),
            Names::Fields(names) => error.in_field(names.get(at).copied().unwrap_or_default()),
        })
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.elements.len())
    }
}

struct Pairs {
    pairs: std::vec::IntoIter<(Value, Value)>,
    /// The pair whose key has been read.
    next: Option<(Value, Value)>,
}

impl<'de> de::MapAccess<'de> for Pairs {
    type Error = SerdeError;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, SerdeError> {
        let Some((key, value)) = self.pairs.next() else {
            return Ok(None);
        };
        self.next = Some((key.clone(), value));
        let place = key_name(&key);
        seed.deserialize(Deserializer::new(key))
            .map(Some)
            .map_err(|error| error.in_field(format!("key {place}")))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<S::Value, SerdeError> {
        let Some((key, value)) = self.next.take() else {
            return Err(SerdeError::custom("a value of a map without a key"));
        };
        seed.deserialize(Deserializer::new(value))
            .map_err(|error| error.in_field(key_name(&key)))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.pairs.len())
    }
}

fn key_name(key: &Value) -> String {
    name(key).unwrap_or_else(|| key.to_string())
}

struct Variant {
    variant: String,
    /// Whether it is Rust's own `Result`.
    result: bool,
    value: Value,
}

impl<'de> de::EnumAccess<'de> for Variant {
    type Error = SerdeError;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self), SerdeError> {
        let name: StringDeserializer<SerdeError> = self.variant.clone().into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl Variant {
    /// The elements behind the name.
    fn content(self, length: usize) -> Result<Vec<Value>, SerdeError> {
        match self.value {
            Value::Tuple(mut elements) if elements.len() == length + 1 => {
                elements.remove(0);
                Ok(elements)
            }
            other => {
                let variant = &self.variant;
                let expected = format_args!("a tuple of {variant} and {length} elements");
                Err(SerdeError::expected(expected, &other))
            }
        }
    }

    fn single(self) -> Result<Value, SerdeError> {
        match self.content(1)?.pop() {
            Some(value) => Ok(value),
            None => Err(SerdeError::custom("a variant without content")),
        }
    }
}

impl<'de> de::VariantAccess<'de> for Variant {
    type Error = SerdeError;

    fn unit_variant(self) -> Result<(), SerdeError> {
        match self.value {
            Value::Tuple(_) => {
                let expected = format_args!("the atom {}", self.variant);
                Err(SerdeError::expected(expected, &self.value))
            }
            _ => Ok(()),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<S::Value, SerdeError> {
        if self.result && matches!(self.value, Value::Atom(_)) {
            // `ok` is `{ok, ok}`, and `error` is `{error, ok}`.
            return seed.deserialize(Deserializer::new(Value::atom("ok")));
        }
        let variant = self.variant.clone();
        let value = self.single()?;
        seed.deserialize(Deserializer::new(value))
            .map_err(|error| error.in_field(variant))
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, SerdeError> {
        let variant = self.variant.clone();
        let elements = self.content(length)?;
        sequence(elements, Names::Indices, visitor).map_err(|error| error.in_field(variant))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, SerdeError> {
        let variant = self.variant.clone();
        let value = self.single()?;
        de::Deserializer::deserialize_struct(Deserializer::new(value), "", fields, visitor)
            .map_err(|error| error.in_field(variant))
    }
}
