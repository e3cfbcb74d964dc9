//! What a node passes on without understanding it, and native records, which it does.

use super::map::write_atom;
use super::walk::{Token, Walker};
use super::{Atom, Form, TermError, TermLimits, Value, scan, tag};
use crate::limits::{MAX_ATOM_CHARS, MAX_TERM_DEPTH};
use bytes::Bytes;
use std::fmt;

/// A fun, or a term in a node's private encoding: bytes that mean something to others only.
///
/// Rust has no use for their content, but passes them on as they are.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Opaque(Bytes);

impl Opaque {
    /// Wraps bytes that a walk has found to be a fun or a private term.
    pub(super) fn trusted(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// A fun from its encoding without the version byte.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, TermError> {
        let term = [&[tag::VERSION], &bytes[..]].concat();
        scan(&term, Form::Whole, &TermLimits::default(), &mut ())?;
        let token = Walker::new(&term, Form::Whole, u32::MAX)?.next()?;
        match token {
            Some(Token::Fun(_) | Token::Export { .. }) => Ok(Self(bytes)),
            _ => Err(TermError::Fun("it is something else")),
        }
    }

    /// A term in a node's private encoding, from its encoding without the version byte.
    pub fn local(bytes: Bytes) -> Result<Self, TermError> {
        let mut walker = Walker::within(&bytes, 0, &[], MAX_TERM_DEPTH)?;
        match walker.next()? {
            Some(Token::Local(all)) if all.len() == bytes.len() => Ok(Self(bytes)),
            Some(Token::Local(all)) => Err(TermError::Trailing(bytes.len() - all.len())),
            _ => Err(TermError::Local),
        }
    }

    /// `fun Module:Function/Arity`.
    pub fn export(module: &str, function: &str, arity: u8) -> Result<Self, TermError> {
        let mut bytes = vec![tag::EXPORT];
        for atom in [module, function] {
            if atom.chars().count() > MAX_ATOM_CHARS {
                return Err(TermError::AtomLength);
            }
            write_atom(atom, &mut bytes);
        }
        bytes.extend([tag::SMALL_INTEGER, arity]);
        Ok(Self(bytes.into()))
    }

    /// Copies what it shares with the term around it.
    pub(super) fn detach(&mut self) {
        self.0 = Bytes::copy_from_slice(&self.0);
    }

    /// What two of them have in common if they are one key to the VM: all but, in a fun, the process
    /// that made it (`FUN_SUBTAG` of `eq` in OTP's `utils.c`).
    pub(super) fn identity(&self) -> [&[u8]; 2] {
        let walker = Walker::within(&self.0, 0, &[], MAX_TERM_DEPTH);
        let parts = match walker.and_then(|mut walker| walker.next()) {
            // The creator's length is in the size as well.
            Ok(Some(Token::Fun(fun))) => [
                self.0.get(fun.size_at + 4..fun.creator.start),
                self.0.get(fun.creator.end..),
            ],
            _ => [self.0.get(..), None],
        };
        parts.map(Option::unwrap_or_default)
    }

    /// Its encoding without the version byte.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opaque({} bytes)", self.0.len())
    }
}

/// A native record (`-record #name{}`, EEP 79), which brings the names of its fields along.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The module that defines it.
    pub module: Atom,
    /// Its name.
    pub name: Atom,
    /// Whether the module exports it, so that others may look into it.
    pub exported: bool,
    /// Names and values of its fields, in the order of the definition.
    pub fields: Vec<(Atom, Value)>,
}

impl Record {
    /// The value of the field of that name.
    #[must_use]
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.fields
            .iter()
            .find(|(name, _)| name.as_str() == field)
            .map(|(_, value)| value)
    }
}
