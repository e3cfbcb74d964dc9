//! What has no elements.

use super::super::{self as term, Binary, Words};
use bytes::Bytes;
use num_bigint::{BigInt, Sign};
use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::str::from_utf8;
use std::sync::Arc;

/// An atom. Comparing it costs no more than comparing its bytes.
#[derive(Clone, Copy)]
pub struct Atom<'a> {
    bytes: &'a [u8],
    /// 1 for Latin-1. A whole word, as it is moved with the others.
    latin1: usize,
}

impl<'a> Atom<'a> {
    #[inline]
    pub(super) fn new(bytes: &'a [u8], latin1: bool) -> Self {
        Self {
            bytes,
            latin1: latin1.into(),
        }
    }

    /// Whether it is the atom of that text.
    #[must_use]
    pub fn is(self, text: &str) -> bool {
        if self.latin1 != 0 {
            return text.chars().eq(self.bytes.iter().copied().map(char::from));
        }
        self.bytes == text.as_bytes()
    }

    /// Its text in UTF-8, or in Latin-1 if it came so.
    #[must_use]
    pub fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Its text: borrowed, unless it is written in Latin-1 with letters that ASCII lacks.
    #[must_use]
    pub fn text(self) -> Cow<'a, str> {
        match from_utf8(self.bytes) {
            Ok(text) if self.latin1 == 0 || text.is_ascii() => Cow::Borrowed(text),
            _ => Cow::Owned(self.bytes.iter().copied().map(char::from).collect()),
        }
    }
}

impl From<Atom<'_>> for term::Atom {
    fn from(atom: Atom<'_>) -> Self {
        (&*atom.text()).into()
    }
}

impl PartialEq<str> for Atom<'_> {
    fn eq(&self, text: &str) -> bool {
        self.is(text)
    }
}

impl fmt::Debug for Atom<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text().fmt(f)
    }
}

impl fmt::Display for Atom<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// An integer of any size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BigInteger<'a> {
    negative: bool,
    magnitude: &'a [u8],
}

impl<'a> BigInteger<'a> {
    pub(super) fn new(negative: bool, magnitude: &'a [u8]) -> Self {
        Self {
            negative,
            magnitude,
        }
    }

    /// Whether it is less than zero.
    #[must_use]
    pub fn is_negative(self) -> bool {
        self.negative
    }

    /// Its magnitude, the least byte first.
    #[must_use]
    pub fn magnitude(self) -> &'a [u8] {
        self.magnitude
    }

    /// The number.
    #[must_use]
    pub fn to_bigint(self) -> BigInt {
        let sign = if self.negative {
            Sign::Minus
        } else {
            Sign::Plus
        };
        BigInt::from_bytes_le(sign, self.magnitude)
    }
}

/// A bitstring whose last byte is not full.
#[derive(Debug, Clone, Copy)]
pub struct Bits<'a> {
    /// The bits, the last ones in the high bits of the last byte. What is below them means
    /// nothing.
    pub bytes: &'a [u8],
    /// How many bits of the last byte belong to it, 1 to 7.
    pub last_bits: u8,
}

/// Bytes in the memory of a term.
#[derive(Clone, Copy)]
pub struct Slice<'a> {
    bytes: &'a [u8],
    /// What they are a part of.
    source: &'a Bytes,
}

impl<'a> Slice<'a> {
    pub(super) fn new(bytes: &'a [u8], source: &'a Bytes) -> Self {
        Self { bytes, source }
    }

    /// The bytes, for as long as the term lives.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The bytes for longer. They are not copied, and keep the memory of the term alive.
    #[must_use]
    pub fn to_bytes(self) -> Bytes {
        self.source.slice_ref(self.bytes)
    }
}

impl Deref for Slice<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

/// Short ones are copied, long ones shared.
impl From<Slice<'_>> for Binary {
    fn from(slice: Slice<'_>) -> Self {
        if slice.len() <= term::binary::INLINE {
            slice.bytes.into()
        } else {
            slice.to_bytes().into()
        }
    }
}

impl fmt::Debug for Slice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.bytes.escape_ascii())
    }
}

/// A process identifier.
#[derive(Debug, Clone, Copy)]
pub struct Pid<'a> {
    /// Name of the node that the process lives on.
    pub node: Atom<'a>,
    /// Number of the process.
    pub id: u32,
    /// Tells users of one number apart.
    pub serial: u32,
    /// Incarnation of the node.
    pub creation: u32,
}

impl From<Pid<'_>> for term::Pid {
    fn from(pid: Pid<'_>) -> Self {
        Self {
            node: node(pid.node),
            id: pid.id,
            serial: pid.serial,
            creation: pid.creation,
        }
    }
}

impl PartialEq<term::Pid> for Pid<'_> {
    fn eq(&self, own: &term::Pid) -> bool {
        (self.id, self.serial, self.creation) == (own.id, own.serial, own.creation)
            && self.node.is(&own.node)
    }
}

/// A reference, unique among all nodes.
#[derive(Debug, Clone, Copy)]
pub struct Reference<'a> {
    /// Name of the node that has made it.
    pub node: Atom<'a>,
    /// Incarnation of the node.
    pub creation: u32,
    words: &'a [u8],
}

impl<'a> Reference<'a> {
    pub(super) fn new(node: Atom<'a>, creation: u32, words: &'a [u8]) -> Self {
        Self {
            node,
            creation,
            words,
        }
    }

    /// The words of its number, in the order of the external format.
    pub fn words(self) -> impl Iterator<Item = u32> + 'a {
        let (words, _) = self.words.as_chunks::<4>();
        words.iter().map(|word| u32::from_be_bytes(*word))
    }
}

impl From<Reference<'_>> for term::Reference {
    fn from(reference: Reference<'_>) -> Self {
        Self {
            node: node(reference.node),
            creation: reference.creation,
            words: reference.words().fold(Words::EMPTY, |mut words, word| {
                words.push(word);
                words
            }),
        }
    }
}

impl PartialEq<term::Reference> for Reference<'_> {
    fn eq(&self, own: &term::Reference) -> bool {
        self.creation == own.creation
            && self.words().eq(own.words.iter().copied())
            && self.node.is(&own.node)
    }
}

/// A port.
#[derive(Debug, Clone, Copy)]
pub struct Port<'a> {
    /// Name of the node that the port is open on.
    pub node: Atom<'a>,
    /// Number of the port.
    pub id: u64,
    /// Incarnation of the node.
    pub creation: u32,
}

impl From<Port<'_>> for term::Port {
    fn from(port: Port<'_>) -> Self {
        Self {
            node: node(port.node),
            id: port.id,
            creation: port.creation,
        }
    }
}

fn node(atom: Atom<'_>) -> Arc<str> {
    (&*atom.text()).into()
}
