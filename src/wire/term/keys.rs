//! No map has a key twice.
//!
//! The VM refuses an encoded map with a key twice (`erts_hashmap_from_array`,
//! `erts_validate_and_sort_flatmap`), so [`normalise`](super::normalise) and [`Value::decode`] do.
//! The terms of Partisan's own connections are not checked for it before they reach the VM, which
//! does it itself.
//!
//! One key may be written in several ways, so it is what keys mean that is compared: by a hash
//! with a secret key, of which a collision by chance is rarer than an error of the memory, and by
//! nothing else. Few plain keys are compared one by one. A key within a key is hashed once for
//! itself and once for each key that it stands in; [`KEY_NESTING`] bounds that.

use super::decode::key_at;
use super::walk::{Token, Walker};
use super::{TermError, Value};
use crate::limits::{FEW_KEYS, KEY_NESTING};
use bytes::Bytes;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::ops::Range;
use std::sync::Arc;

/// Looks for keys that occur twice in one map.
pub(super) struct Keys {
    state: Option<RandomState>,
    /// Bytes of keys that may yet be hashed.
    left: u64,
    open: Vec<Open>,
}

/// A map that is being walked through.
struct Open {
    /// Containers that are open around its keys and values.
    level: u32,
    /// Whether the next term on that level is a value.
    value: bool,
    /// Where the key begins that has not been hashed yet.
    key: Option<usize>,
    hashes: Vec<u64>,
}

impl Keys {
    /// For a term of so many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            state: None,
            left: KEY_NESTING * bytes as u64,
            open: Vec::new(),
        }
    }

    /// Takes `bytes` of a key from what may be hashed.
    fn spend(&mut self, bytes: usize) -> Result<(), TermError> {
        match self.left.checked_sub(bytes as u64) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(TermError::NestedKeys),
        }
    }

    /// Whether the next token stands in no map, so that it need not be seen.
    #[inline]
    pub(super) fn idle(&self) -> bool {
        self.open.is_empty()
    }

    fn hash(&mut self, value: &Value) -> u64 {
        meaning(value, self.state.get_or_insert_default())
    }

    /// Looks at the pairs of a map, the keys of which take so many bytes.
    pub(super) fn check(
        &mut self,
        pairs: &[(Value, Value)],
        bytes: usize,
    ) -> Result<(), TermError> {
        let plain = |key| matches!(key, &Value::Atom(_) | &Value::Integer(_));
        if pairs.len() <= FEW_KEYS && pairs.iter().all(|(key, _)| plain(key)) {
            let mut rest = pairs;
            while let Some(((key, _), others)) = rest.split_first() {
                if others.iter().any(|(other, _)| other == key) {
                    return Err(TermError::DuplicateKey);
                }
                rest = others;
            }
            return Ok(());
        }
        self.spend(bytes)?;
        distinct(pairs.iter().map(|(key, _)| self.hash(key)).collect())
    }

    /// Looks at the token that the walker has just read of `bytes`; `atoms` are those of its
    /// header.
    #[inline]
    pub(super) fn see(
        &mut self,
        token: &Token<'_>,
        walker: &Walker<'_>,
        bytes: &Bytes,
        atoms: &[Arc<str>],
    ) -> Result<(), TermError> {
        if !self.open.is_empty() {
            self.within(token, walker, bytes, atoms)?;
        }
        if let &Token::Map(2..) = token {
            self.open.push(Open {
                level: walker.level() + 1,
                value: false,
                key: None,
                hashes: Vec::new(),
            });
        }
        Ok(())
    }

    #[inline(never)]
    fn within(
        &mut self,
        token: &Token<'_>,
        walker: &Walker<'_>,
        bytes: &Bytes,
        atoms: &[Arc<str>],
    ) -> Result<(), TermError> {
        while let Some(done) = self.open.pop_if(|open| open.level > walker.level()) {
            distinct(done.hashes)?;
        }
        let Some(mut open) = self.open.pop_if(|open| open.level == walker.level()) else {
            return Ok(());
        };
        if let Some(start) = open.key.take() {
            open.hashes
                .push(self.hash_at(bytes, start..walker.start(), atoms)?);
        } else if !open.value {
            match *token {
                Token::Atom(atom) => {
                    let atom = Value::atom(&atom.text());
                    open.hashes.push(self.hash(&atom));
                }
                _ => open.key = Some(walker.start()),
            }
        }
        open.value = !open.value;
        self.open.push(open);
        Ok(())
    }

    fn hash_at(
        &mut self,
        bytes: &Bytes,
        key: Range<usize>,
        atoms: &[Arc<str>],
    ) -> Result<u64, TermError> {
        self.spend(key.len())?;
        let value = key_at(bytes, key.start, atoms)?;
        Ok(self.hash(&value))
    }

    /// After the last token.
    pub(super) fn end(&mut self) -> Result<(), TermError> {
        self.open
            .drain(..)
            .try_for_each(|open| distinct(open.hashes))
    }

    /// Walks to the end.
    pub(super) fn finish(
        &mut self,
        walker: &mut Walker<'_>,
        bytes: &Bytes,
        atoms: &[Arc<str>],
    ) -> Result<(), TermError> {
        while let Some(token) = walker.next()? {
            self.see(&token, walker, bytes, atoms)?;
        }
        self.end()
    }
}

fn distinct(mut hashes: Vec<u64>) -> Result<(), TermError> {
    hashes.sort_unstable();
    let twice = hashes.windows(2).any(|two| two.first() == two.last());
    if twice {
        Err(TermError::DuplicateKey)
    } else {
        Ok(())
    }
}

/// Equal for what the VM takes for equal (`=:=` of OTP 27 and newer, which tells -0.0 from 0.0).
fn meaning(value: &Value, state: &RandomState) -> u64 {
    let mut hasher = state.build_hasher();
    feed(value, state, &mut hasher);
    hasher.finish()
}

/// Recursive, but never deeper than a term may be.
fn feed(value: &Value, state: &RandomState, hasher: &mut impl Hasher) {
    std::mem::discriminant(value).hash(hasher);
    match value {
        Value::Atom(atom) => atom.hash(hasher),
        Value::Integer(number) => number.hash(hasher),
        Value::BigInteger(number) => number.hash(hasher),
        Value::Float(number) => number.to_bits().hash(hasher),
        Value::Binary(bytes) => bytes.hash(hasher),
        Value::Bits { bytes, last_bits } => {
            bytes.hash(hasher);
            last_bits.hash(hasher);
        }
        Value::Tuple(all) | Value::List(all) => feed_all(all, state, hasher),
        Value::ImproperList(all, tail) => {
            feed_all(all, state, hasher);
            feed(tail, state, hasher);
        }
        Value::Map(pairs) => {
            // The order of pairs means nothing.
            let pair = |(key, value): &(Value, Value)| {
                let mut hasher = state.build_hasher();
                feed(key, state, &mut hasher);
                feed(value, state, &mut hasher);
                hasher.finish()
            };
            pairs.len().hash(hasher);
            pairs
                .iter()
                .map(pair)
                .fold(0, u64::wrapping_add)
                .hash(hasher);
        }
        Value::Pid(pid) => pid.hash(hasher),
        Value::Reference(reference) => {
            reference.node.hash(hasher);
            reference.creation.hash(hasher);
            // Words that are not there are zero.
            reference.words.padded().hash(hasher);
        }
        Value::Port(port) => port.hash(hasher),
        Value::Fun(fun) => fun.identity().hash(hasher),
        Value::Local(opaque) => opaque.hash(hasher),
        Value::Record(record) => {
            record.module.hash(hasher);
            record.name.hash(hasher);
            record.exported.hash(hasher);
            record.fields.len().hash(hasher);
            for (name, value) in &record.fields {
                name.hash(hasher);
                feed(value, state, hasher);
            }
        }
    }
}

/// Refuses fields of a record that have one name.
pub(super) fn distinct_fields<T: Ord>(mut names: Vec<T>) -> Result<(), TermError> {
    names.sort_unstable();
    if names.windows(2).any(|two| two.first() == two.last()) {
        Err(TermError::DuplicateField)
    } else {
        Ok(())
    }
}

fn feed_all(all: &[Value], state: &RandomState, hasher: &mut impl Hasher) {
    all.len().hash(hasher);
    for value in all {
        feed(value, state, hasher);
    }
}
