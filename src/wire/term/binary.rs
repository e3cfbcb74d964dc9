//! The bytes of a binary in Rust.
//!
//! Most binaries in messages are short: keys, tags, names. To share the memory of the term that
//! one was decoded from costs two atomic operations and a virtual call, which is more than to
//! copy it. So short ones stand in the value itself; they keep nothing else alive either.

use bytes::Bytes;
use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

/// So many bytes have room in the value itself, which is as large as a shared one needs anyway.
pub(super) const INLINE: usize = 31;

/// Bytes, read as a slice. Long ones are shared with clones and with the term that they were
/// decoded from; up to 31 bytes are copied.
#[derive(Clone)]
pub struct Binary(Repr);

// What tells the two apart tells all kinds of values apart, as it has room for it. It takes a whole
// word, since both are aligned so, and a value moves in whole words. A narrow one makes compilers
// copy values in parts that straddle those in which they were just written, on which CPUs stall.
#[derive(Clone)]
enum Repr {
    Inline(Short),
    Shared(Bytes),
}

#[derive(Clone)]
#[repr(align(8))]
struct Short {
    length: u8,
    bytes: [u8; INLINE],
}

const _: () = assert!(size_of::<super::Value>() == size_of::<Binary>());

impl Binary {
    /// Bytes that are copied.
    #[must_use]
    pub fn copy_from_slice(bytes: &[u8]) -> Self {
        Self::short(bytes).unwrap_or_else(|| Self(Repr::Shared(Bytes::copy_from_slice(bytes))))
    }

    /// The first bytes of these. A copy of fixed size takes a few instructions, one of any size a
    /// call; what follows is never looked at.
    #[inline(always)]
    pub(super) fn start_of(bytes: &[u8; INLINE], length: usize) -> Self {
        Self(Repr::Inline(Short {
            length: length.min(INLINE) as u8,
            bytes: *bytes,
        }))
    }

    #[inline]
    fn short(from: &[u8]) -> Option<Self> {
        let mut bytes = [0; INLINE];
        bytes.get_mut(..from.len())?.copy_from_slice(from);
        Some(Self(Repr::Inline(Short {
            length: from.len() as u8,
            bytes,
        })))
    }

    /// Appends the bytes.
    #[inline(always)]
    pub(super) fn append_to(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Repr::Inline(Short { length, bytes }) => {
                let end = out.len() + usize::from(*length);
                out.extend_from_slice(bytes);
                out.truncate(end);
            }
            Repr::Shared(bytes) => out.extend_from_slice(bytes),
        }
    }

    /// The same bytes. Long ones are shared, short ones copied.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        match &self.0 {
            Repr::Inline(_) => Bytes::copy_from_slice(self),
            Repr::Shared(bytes) => bytes.clone(),
        }
    }

    /// Copies the bytes if they are shared with a term.
    pub(super) fn detach(&mut self) {
        if let Repr::Shared(bytes) = &mut self.0 {
            *bytes = Bytes::copy_from_slice(bytes);
        }
    }
}

impl Deref for Binary {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline(Short { length, bytes }) => {
                bytes.get(..usize::from(*length)).unwrap_or_default()
            }
            Repr::Shared(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Binary {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Borrow<[u8]> for Binary {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl Default for Binary {
    fn default() -> Self {
        Self::copy_from_slice(&[])
    }
}

impl fmt::Debug for Binary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.escape_ascii())
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Binary {
    #[inline]
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

impl Eq for Binary {}

impl PartialOrd for Binary {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Binary {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (**self).cmp(other)
    }
}

impl Hash for Binary {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl From<Bytes> for Binary {
    #[inline]
    fn from(bytes: Bytes) -> Self {
        Self::short(&bytes).unwrap_or(Self(Repr::Shared(bytes)))
    }
}

impl From<Vec<u8>> for Binary {
    fn from(bytes: Vec<u8>) -> Self {
        Self::short(&bytes).unwrap_or_else(|| Self(Repr::Shared(bytes.into())))
    }
}

impl From<Box<[u8]>> for Binary {
    fn from(bytes: Box<[u8]>) -> Self {
        bytes.into_vec().into()
    }
}

impl From<String> for Binary {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

impl From<&[u8]> for Binary {
    fn from(bytes: &[u8]) -> Self {
        Self::copy_from_slice(bytes)
    }
}

impl<const N: usize> From<&[u8; N]> for Binary {
    fn from(bytes: &[u8; N]) -> Self {
        Self::copy_from_slice(bytes)
    }
}

impl<const N: usize> From<[u8; N]> for Binary {
    fn from(bytes: [u8; N]) -> Self {
        Self::copy_from_slice(&bytes)
    }
}

impl From<&str> for Binary {
    fn from(text: &str) -> Self {
        Self::copy_from_slice(text.as_bytes())
    }
}

impl From<Binary> for Bytes {
    fn from(binary: Binary) -> Self {
        match binary.0 {
            Repr::Inline(_) => Self::copy_from_slice(&binary),
            Repr::Shared(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::term::Value;

    #[test]
    fn short_ones_stand_in_the_value() {
        assert!(size_of::<Value>() <= 40);
        for length in 0..2 * INLINE {
            let bytes: Vec<u8> = (0..length as u8).collect();
            let shared = Bytes::from(bytes.clone());
            let binary = Binary::from(shared.clone());
            assert_eq!(binary, bytes);
            assert_eq!(binary, Binary::copy_from_slice(&bytes));
            assert_eq!(Bytes::from(binary.clone()), bytes);
            assert_eq!(binary.to_bytes(), bytes);
            assert_eq!(binary.as_ptr() == shared.as_ptr(), length > INLINE);
            let mut out = b"before".to_vec();
            binary.append_to(&mut out);
            assert_eq!(out, [b"before", &bytes[..]].concat());
        }
    }

    #[test]
    fn what_follows_is_no_part_of_it() {
        let all: [u8; INLINE] = std::array::from_fn(|at| at as u8);
        for length in 0..=INLINE {
            let cut = Binary::start_of(&all, length);
            let short = Binary::copy_from_slice(&all[..length]);
            assert_eq!(cut, all[..length]);
            assert_eq!(cut, short);
            assert_eq!(format!("{cut:?}"), format!("{short:?}"));
        }
    }
}
