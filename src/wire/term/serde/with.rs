//! What fields may ask for with `#[serde(with = "…")]`.

use ::serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;

/// Name of the newtype struct around a struct that is a record.
pub(super) const RECORD: &str = "$partisan::record";

/// Name of a record: that of the struct as Erlang would write it, `UserAccount` as
/// `user_account`.
pub(super) fn record_name(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    let mut before: Option<char> = None;
    for character in name.chars() {
        if character.is_uppercase() {
            if before.is_some_and(|c| c.is_lowercase() || c.is_ascii_digit()) {
                snake.push('_');
            }
            snake.extend(character.to_lowercase());
        } else {
            snake.push(character);
        }
        before = Some(character);
    }
    snake
}

/// Bytes as a binary, which is not copied: the type is [`bytes::Bytes`](::bytes::Bytes) or
/// whatever comes from and goes into it, `Vec<u8>` for one.
///
/// ```
/// use bytes::Bytes;
/// use partisan::serde::{from_value, to_value};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Block {
///     #[serde(with = "partisan::serde::bytes")]
///     data: Bytes,
/// }
///
/// let data = Bytes::from(vec![7; 1000]);
/// let value = to_value(&Block { data: data.clone() })?;
/// let block: Block = from_value(value)?;
/// assert_eq!(block.data.as_ptr(), data.as_ptr());
/// # Ok::<(), partisan::serde::SerdeError>(())
/// ```
pub mod bytes {
    use super::super::pass::Shared;
    use super::{Deserialize, Deserializer, Serialize, Serializer};
    use ::bytes::Bytes;

    /// Writes a binary.
    ///
    /// # Errors
    /// Those of the serialiser.
    pub fn serialize<T, S>(bytes: &T, serializer: S) -> Result<S::Ok, S::Error>
    where
        T: Clone + Into<Bytes>,
        S: Serializer,
    {
        Shared(bytes.clone().into()).serialize(serializer)
    }

    /// Reads a binary or a list of bytes.
    ///
    /// # Errors
    /// If it is something else.
    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: From<Bytes>,
        D: Deserializer<'de>,
    {
        Shared::deserialize(deserializer).map(|shared| shared.0.into())
    }
}

/// Text as an atom.
///
/// ```
/// use partisan::serde::to_value;
/// use partisan::term;
///
/// #[derive(serde::Serialize)]
/// struct Call {
///     #[serde(with = "partisan::serde::atom")]
///     module: String,
/// }
///
/// let value = to_value(&Call { module: "lists".into() })?;
/// assert_eq!(value, term!(#{module => lists}));
/// # Ok::<(), partisan::serde::SerdeError>(())
/// ```
pub mod atom {
    use super::{Deserialize, Deserializer, Serialize, Serializer};
    use crate::wire::term::Atom;

    /// Writes an atom.
    ///
    /// # Errors
    /// Those of the serialiser.
    pub fn serialize<T, S>(text: &T, serializer: S) -> Result<S::Ok, S::Error>
    where
        T: AsRef<str>,
        S: Serializer,
    {
        Atom::new(text.as_ref()).serialize(serializer)
    }

    /// Reads an atom.
    ///
    /// # Errors
    /// If it is something else.
    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: for<'a> From<&'a str>,
        D: Deserializer<'de>,
    {
        Atom::deserialize(deserializer).map(|atom| T::from(atom.as_str()))
    }
}

/// A struct as an Erlang record: `{name, Field1, Field2, …}`, the name that of the struct in
/// snake case.
///
/// For a struct that is itself a message, or stands in a list, see [`Record`].
///
/// ```
/// use partisan::serde::{Record, from_value, to_value};
/// use partisan::term;
///
/// #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
/// struct UserAccount {
///     name: String,
///     age: Option<u8>,
/// }
///
/// #[derive(serde::Serialize)]
/// struct Reply {
///     #[serde(with = "partisan::serde::record")]
///     account: UserAccount,
/// }
///
/// let joe = || UserAccount { name: "joe".into(), age: None };
/// let record = term!({user_account, "joe", undefined});
/// assert_eq!(to_value(&Reply { account: joe() })?, term!(#{account => (&record)}));
/// assert_eq!(to_value(&Record(joe()))?, record);
/// assert_eq!(from_value::<Record<UserAccount>>(record)?.0, joe());
/// # Ok::<(), partisan::serde::SerdeError>(())
/// ```
pub mod record {
    use super::{Deserialize, Deserializer, RECORD, Serialize, Serializer, Taker};
    use std::marker::PhantomData;

    /// Writes a tuple.
    ///
    /// # Errors
    /// Those of the serialiser.
    pub fn serialize<T, S>(record: &T, serializer: S) -> Result<S::Ok, S::Error>
    where
        T: Serialize + ?Sized,
        S: Serializer,
    {
        serializer.serialize_newtype_struct(RECORD, record)
    }

    /// Reads a tuple that begins with the name of the record.
    ///
    /// # Errors
    /// If it is something else, or has other fields.
    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        deserializer.deserialize_newtype_struct(RECORD, Taker(PhantomData))
    }
}

/// A struct that is written and read as a record, see [`mod@record`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Record<T>(pub T);

impl<T: Serialize> Serialize for Record<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        record::serialize(&self.0, serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Record<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        record::deserialize(deserializer).map(Self)
    }
}

struct Taker<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> ::serde::de::Visitor<'de> for Taker<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, content: D) -> Result<T, D::Error> {
        T::deserialize(content)
    }
}
