//! Pids, references and ports.

use super::TermError;
use crate::limits::MAX_REFERENCE_WORDS;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// A process identifier.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pid {
    /// Name of the node that the process lives on.
    pub node: Arc<str>,
    /// Number of the process.
    pub id: u32,
    /// Tells users of one number apart.
    pub serial: u32,
    /// Incarnation of the node.
    pub creation: u32,
}

impl AsRef<Self> for Pid {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// A reference, unique among all nodes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// Name of the node that has made it.
    pub node: Arc<str>,
    /// Incarnation of the node.
    pub creation: u32,
    /// Its number, in the order of the external format.
    pub words: Words,
}

/// A port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port {
    /// Name of the node that the port is open on.
    pub node: Arc<str>,
    /// Number of the port.
    pub id: u64,
    /// Incarnation of the node.
    pub creation: u32,
}

/// The number of a reference: one to five words, read as a slice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Words {
    // Zeros after the last one, so that equal numbers are equal fields.
    words: [u32; MAX_REFERENCE_WORDS],
    length: u8,
}

impl Words {
    /// No words yet.
    pub(crate) const EMPTY: Self = Self {
        words: [0; MAX_REFERENCE_WORDS],
        length: 0,
    };

    /// All that there may be, of which the missing ones are zero.
    pub(super) fn padded(&self) -> &[u32; MAX_REFERENCE_WORDS] {
        &self.words
    }

    /// Appends a word; what there is no room for is lost.
    pub(crate) fn push(&mut self, word: u32) {
        if let Some(slot) = self.words.get_mut(usize::from(self.length)) {
            *slot = word;
            self.length += 1;
        }
    }
}

impl TryFrom<&[u32]> for Words {
    type Error = TermError;

    fn try_from(words: &[u32]) -> Result<Self, TermError> {
        let length = u8::try_from(words.len()).unwrap_or(u8::MAX);
        let mut own = Self::EMPTY;
        match own.words.get_mut(..words.len()) {
            Some(slots) if length > 0 => slots.copy_from_slice(words),
            _ => return Err(TermError::Reference(length.into())),
        }
        own.length = length;
        Ok(own)
    }
}

macro_rules! from_array {
    ($($length:literal)*) => {
        $(impl From<[u32; $length]> for Words {
            fn from(words: [u32; $length]) -> Self {
                let mut own = Self::EMPTY;
                words.into_iter().for_each(|word| own.push(word));
                own
            }
        })*
    };
}

from_array!(1 2 3 4 5);

impl Deref for Words {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        self.words
            .get(..usize::from(self.length))
            .unwrap_or_default()
    }
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.deref().fmt(f)
    }
}
