//! Rust's types as terms and back, by serde.
//!
//! The mapping is that which Erlang's and Elixir's users would choose by hand:
//!
//! | Rust | written as | read from, beyond that |
//! |---|---|---|
//! | struct | map with atoms as keys | keys may be binaries; unknown keys are skipped |
//! | struct by [`record`] | `{name, Field1, Field2, …}` | |
//! | tuple, tuple struct, array | tuple | list of that length |
//! | newtype struct | what it holds | |
//! | unit struct, unit variant | the atom of its name | binary of its name |
//! | newtype variant | `{variant, Value}` | |
//! | tuple variant | `{variant, A, B}` | |
//! | struct variant | `{variant, #{field => Value}}` | |
//! | `Result` | `{ok, Value}`, `{error, Value}`; `ok`, `error` if the value is `()` | |
//! | `Option` | the value or `undefined` | `nil` |
//! | `()` | `ok` | |
//! | `bool` | `true`, `false` | |
//! | `String`, `&str` | binary in UTF-8 | list of characters, atom |
//! | `char` | its code | |
//! | integers up to 128 bits | integer | |
//! | `f32`, `f64` | float | integer |
//! | sequences | list | binary, as a sequence of bytes |
//! | `Vec<u8>` by [`mod@bytes`] or the crate `serde_bytes` | binary | list of bytes |
//! | maps | map with any keys | |
//! | `String` by [`atom`], [`Atom`] | atom | |
//! | [`Pid`], [`Reference`], [`Value`], [`Term`] | what they are | |
//!
//! Names of fields and variants are written as they are, so `#[serde(rename_all =
//! "snake_case")]` makes an enum's variants the atoms that Erlang knows. An `Option` whose value
//! is itself written as `undefined` reads as `None`.
//!
//! ```
//! use partisan::serde::{from_value, to_value};
//! use partisan::term;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! struct User {
//!     name: String,
//!     age: Option<u32>,
//! }
//!
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! #[serde(rename_all = "snake_case")]
//! enum Request {
//!     Count,
//!     Put(String, User),
//! }
//!
//! let user = User { name: "joe".into(), age: None };
//! let put = Request::Put("key".into(), user);
//! let value = term!({put, "key", #{name => "joe", age => undefined}});
//! assert_eq!(to_value(&put)?, value);
//! assert_eq!(from_value::<Request>(value)?, put);
//! assert_eq!(from_value::<Request>(term!(count))?, Request::Count);
//! let error = from_value::<Request>(term!({put, "key", #{name => 5}})).unwrap_err();
//! assert_eq!(error.to_string(), "field `put[1].name`: expected a string, got the integer 5");
//! # Ok::<(), partisan::serde::SerdeError>(())
//! ```
//!
//! serde's data model has no pids and no shared bytes. Types of this crate therefore pass their
//! value beside it, through a place of the thread that only this serialiser and deserialiser
//! fill, and only for the call in which the type asks for it. In other formats an atom is a
//! string and bytes are bytes; the rest is refused.

mod de;
mod error;
mod pass;
mod ser;
#[cfg(test)]
mod tests;
pub mod with;

use ::serde::Serialize;
use ::serde::de::DeserializeOwned;

pub use error::SerdeError;
pub use with::{Record, atom, bytes, record};

#[cfg(doc)]
use super::{Atom, Pid, Reference};
use super::{Term, Value};

/// The value of something in Rust.
///
/// # Errors
/// For what has no term: floats that are not finite, more depth than a term may have, and what
/// the type itself refuses.
pub fn to_value<T: Serialize + ?Sized>(value: &T) -> Result<Value, SerdeError> {
    value.serialize(ser::Serializer::new())
}

/// What a value means in Rust. Large binaries stay where they are in memory if the type allows.
///
/// # Errors
/// If the value doesn't fit the type; the error says where.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, SerdeError> {
    T::deserialize(de::Deserializer::new(value))
}

/// The term of something in Rust.
///
/// # Errors
/// Those of [`to_value`], and where a term's limits are exceeded.
pub fn to_term<T: Serialize + ?Sized>(value: &T) -> Result<Term, SerdeError> {
    Ok(to_value(value)?.encode()?)
}

/// What a term means in Rust.
///
/// # Errors
/// Those of [`from_value`].
pub fn from_term<T: DeserializeOwned>(term: &Term) -> Result<T, SerdeError> {
    from_value(term.decode())
}
