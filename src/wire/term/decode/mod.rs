//! From bytes to a value, in one pass that checks as it goes.
//!
//! It understands what [`normalise`](super::normalise) does, straight from what a stock peer has
//! sent, and the terms of this module as well. Recursion is bounded by the depth that a term may
//! have. What a container claims to hold is believed as far as there are bytes for it: the
//! elements that all open containers together still lack, of at least one byte each, must fit
//! into what is left. So all memory that is taken ahead adds up to a multiple of the input.

mod leaf;
mod place;
mod reader;

use super::atoms::with_atoms;
use super::inflate::inflate;
use super::{Form, Start, TermError, TermLimits, Value, tag};
use crate::limits::{MAX_PINNED_RATIO, MAX_TERM_DEPTH};
use bytes::Bytes;
use reader::Reader;
use std::sync::Arc;

/// The value of a term that has passed `scan`.
///
/// What hasn't passed gives some value, too, and costs no more than its length.
pub(super) fn decode(skeleton: &Bytes, form: Form, blobs: &[Bytes]) -> Value {
    let mut value = Value::Integer(0);
    with_atoms(|atoms| {
        let mut reader = Reader::new(skeleton, 1, &[], &NO_LIMITS, atoms);
        reader.blobs = (form == Form::Elided).then(|| blobs.iter());
        let decoded = reader.value(&mut value);
        debug_assert!(decoded.is_some(), "{:?}", reader.error);
    });
    value
}

/// The value of a key that stands at that offset.
pub(super) fn key_at(bytes: &Bytes, at: usize, cached: &[Arc<str>]) -> Result<Value, TermError> {
    with_atoms(|atoms| {
        let mut reader = Reader::new(bytes, at, cached, &NO_LIMITS, atoms);
        let key = reader.one();
        key.ok_or(reader.error.unwrap_or(TermError::BlobMismatch))
    })
}

/// A term that has been scanned has passed stricter ones.
const NO_LIMITS: TermLimits = TermLimits {
    depth: MAX_TERM_DEPTH,
    bytes: usize::MAX,
    heap_bytes: u64::MAX,
};

impl Value {
    /// Decodes the term that `bytes` begin with, as a stock node writes it, and says how many
    /// bytes it took: the same terms as [`normalise`](super::normalise) takes, in one pass.
    ///
    /// `limits.heap_bytes` bounds the memory of the value. Its binaries are slices of `bytes`,
    /// unless the term is less than a quarter of them: then it shares a copy of the term.
    pub fn decode(
        bytes: &Bytes,
        start: Start,
        atoms: &[Arc<str>],
        limits: &TermLimits,
    ) -> Result<(Self, usize), TermError> {
        if start == Start::Version {
            if let Some((inflated, consumed)) = inflate(bytes)? {
                let (value, length) = read(&inflated, 1, &[], limits)?;
                return match inflated.len() - length {
                    0 => Ok((value, consumed)),
                    rest => Err(TermError::Trailing(rest)),
                };
            }
            if bytes.first() != Some(&tag::VERSION) {
                return Err(TermError::Version(bytes.first().copied()));
            }
        }
        read(bytes, usize::from(start == Start::Version), atoms, limits)
    }
}

#[inline]
fn read(
    bytes: &Bytes,
    at: usize,
    cached: &[Arc<str>],
    limits: &TermLimits,
) -> Result<(Value, usize), TermError> {
    if u32::try_from(bytes.len()).is_err() {
        return Err(TermError::Size {
            bytes: bytes.len(),
            limit: u32::MAX as usize,
        });
    }
    let mut value = Value::Integer(0);
    let mut run = |bytes: &Bytes| {
        with_atoms(|atoms| {
            let mut reader = Reader::new(bytes, at, cached, limits, atoms);
            reader.checks_keys = true;
            match reader.value(&mut value) {
                Some(()) => Ok((reader.at, reader.pins, reader.large)),
                None => Err(reader.error.unwrap_or(TermError::BlobMismatch)),
            }
        })
    };
    let (end, pins, large) = run(bytes)?;
    if end - large > limits.bytes {
        return Err(TermError::Size {
            bytes: end - large,
            limit: limits.bytes,
        });
    }
    match bytes.get(..end) {
        Some(own) if pins && end < bytes.len() / MAX_PINNED_RATIO => {
            let own = Bytes::copy_from_slice(own);
            run(&own)?;
            Ok((value, end))
        }
        _ => Ok((value, end)),
    }
}
