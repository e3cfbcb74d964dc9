//! What goes wrong between Rust's types and terms, and where.

use std::fmt;

use serde::de::{Expected, Unexpected};

use crate::wire::term::{TermError, Value};

/// Most characters of a value that an error repeats.
const SHOWN: usize = 40;

/// Why a Rust value can't become a term, or a term a Rust value.
///
/// The text begins with the place: ``field `users[2].name`: expected a string, got …``.
#[derive(Debug)]
pub struct SerdeError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    /// From the inside to the outside.
    path: Vec<Step>,
    problem: Problem,
}

#[derive(Debug)]
enum Step {
    Field(String),
    Index(usize),
}

#[derive(Debug)]
enum Problem {
    Message(String),
    Term(TermError),
}

impl SerdeError {
    /// That something else was expected.
    pub(super) fn expected(expected: impl fmt::Display, got: &Value) -> Self {
        serde::de::Error::custom(format_args!("expected {expected}, got {}", Shown(got)))
    }

    pub(super) fn in_field(mut self, name: impl Into<String>) -> Self {
        self.0.path.push(Step::Field(name.into()));
        self
    }

    pub(super) fn at_index(mut self, index: usize) -> Self {
        self.0.path.push(Step::Index(index));
        self
    }

    /// The place in the value, such as `users[2].name`; empty for the value itself.
    #[must_use]
    pub fn path(&self) -> String {
        let mut path = String::new();
        for step in self.0.path.iter().rev() {
            match step {
                Step::Field(name) if path.is_empty() => path.push_str(name),
                Step::Field(name) => path.extend([".", name]),
                Step::Index(index) => path.push_str(&format!("[{index}]")),
            }
        }
        path
    }
}

impl fmt::Display for SerdeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.path.is_empty() {
            write!(f, "field `{}`: ", self.path())?;
        }
        match &self.0.problem {
            Problem::Message(message) => f.write_str(message),
            Problem::Term(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SerdeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.problem {
            Problem::Message(_) => None,
            Problem::Term(error) => Some(error),
        }
    }
}

impl From<TermError> for SerdeError {
    fn from(error: TermError) -> Self {
        Self(Box::new(Inner {
            path: Vec::new(),
            problem: Problem::Term(error),
        }))
    }
}

impl serde::ser::Error for SerdeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(Box::new(Inner {
            path: Vec::new(),
            problem: Problem::Message(message.to_string()),
        }))
    }
}

impl serde::de::Error for SerdeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        serde::ser::Error::custom(message)
    }

    fn invalid_type(got: Unexpected<'_>, expected: &dyn Expected) -> Self {
        serde::de::Error::custom(format_args!("expected {expected}, got {got}"))
    }

    fn invalid_value(got: Unexpected<'_>, expected: &dyn Expected) -> Self {
        serde::de::Error::custom(format_args!("expected {expected}, got {got}"))
    }

    fn invalid_length(got: usize, expected: &dyn Expected) -> Self {
        serde::de::Error::custom(format_args!("expected {expected}, got {got} elements"))
    }
}

/// A value as errors name it: its kind and, if it is short, its text.
struct Shown<'a>(&'a Value);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.0 {
            Value::Atom(_) => "the atom",
            Value::Integer(_) | Value::BigInteger(_) => "the integer",
            Value::Float(_) => "the float",
            Value::Binary(_) => "the binary",
            Value::Bits { .. } => "the bitstring",
            Value::Tuple(_) => "the tuple",
            Value::List(_) | Value::ImproperList(..) => "the list",
            Value::Map(_) => "the map",
            Value::Pid(_) => "the pid",
            Value::Reference(_) => "the reference",
            Value::Port(_) => "the port",
            Value::Fun(_) => "the fun",
            #[allow(unreachable_patterns, reason = "what is yet to come has a text, too")]
            _ => "the term",
        };
        let mut text = Short {
            text: String::new(),
            left: SHOWN,
        };
        // It ends with an error where it becomes too long, so a large value costs little.
        match fmt::write(&mut text, format_args!("{}", self.0)) {
            Ok(()) => write!(f, "{kind} {}", text.text),
            Err(_) => write!(f, "{kind} {}…", text.text),
        }
    }
}

struct Short {
    text: String,
    left: usize,
}

impl fmt::Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            self.left = self.left.checked_sub(1).ok_or(fmt::Error)?;
            self.text.push(character);
        }
        Ok(())
    }
}
