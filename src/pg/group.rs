//! A group's name, in a form that compares as Erlang does.

use std::fmt;

use bytes::Bytes;

use crate::wire::term::{Term, TermError, Value, tag};

/// The name of a group: a term, encoded with the pairs of all maps in order, so that equal terms
/// have equal bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(Bytes);

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value().fmt(f)
    }
}

impl Group {
    /// The group of this name.
    ///
    /// # Errors
    /// If it is no term.
    pub fn new(name: &Value) -> Result<Self, TermError> {
        // An encoding that succeeds bounds the depth of what follows.
        let mut bytes = encode(name)?;
        if has_map(name) {
            let mut name = name.clone();
            order(&mut name)?;
            bytes = encode(&name)?;
        }
        Ok(Self(bytes.into()))
    }

    /// Its name.
    #[must_use]
    pub fn value(&self) -> Value {
        Term::from_external(self.0.clone()).map_or_else(|_| Value::list([]), |term| term.decode())
    }

    /// Bytes that the name takes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.len()
    }
}

fn encode(value: &Value) -> Result<Vec<u8>, TermError> {
    let mut bytes = vec![tag::VERSION];
    value.encode_bare(&mut bytes)?;
    Ok(bytes)
}

fn has_map(value: &Value) -> bool {
    match value {
        Value::Map(_) => true,
        Value::Tuple(elements) | Value::List(elements) => elements.iter().any(has_map),
        Value::ImproperList(elements, tail) => elements.iter().any(has_map) || has_map(tail),
        Value::Record(record) => record.fields.iter().any(|(_, value)| has_map(value)),
        _ => false,
    }
}

fn order(value: &mut Value) -> Result<(), TermError> {
    match value {
        Value::Map(pairs) => {
            let mut keyed = Vec::with_capacity(pairs.len());
            for (mut key, mut value) in std::mem::take(pairs) {
                order(&mut key)?;
                order(&mut value)?;
                keyed.push((encode(&key)?, key, value));
            }
            keyed.sort_by(|a, b| a.0.cmp(&b.0));
            *pairs = keyed.into_iter().map(|(_, k, v)| (k, v)).collect();
            Ok(())
        }
        Value::Tuple(elements) | Value::List(elements) => elements.iter_mut().try_for_each(order),
        Value::ImproperList(elements, tail) => {
            elements.iter_mut().try_for_each(order)?;
            order(tail)
        }
        Value::Record(record) => {
            let mut fields = record.fields.iter_mut();
            fields.try_for_each(|(_, value)| order(value))
        }
        _ => Ok(()),
    }
}
