//! Why a term was refused.

/// Why bytes are not a term that may pass, or a value can't become one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TermError {
    /// The first byte isn't 131.
    #[error("the term begins with {0:?} instead of the version byte 131")]
    Version(Option<u8>),
    /// The bytes end inside the term, or a count claims more elements than there are bytes.
    #[error("the term is cut off: {wanted} bytes wanted at offset {at}, {left} left")]
    Truncated {
        /// Offset into the encoded term.
        at: usize,
        /// Bytes that the tag at hand needs at least.
        wanted: u64,
        /// Bytes that are there.
        left: usize,
    },
    /// Bytes follow the term.
    #[error("{0} bytes follow the term")]
    Trailing(usize),
    /// The tag is unknown or may not occur here.
    #[error("tag {tag} at offset {at} is not allowed")]
    Tag {
        /// The tag.
        tag: u8,
        /// Offset into the encoded term.
        at: usize,
    },
    /// The term is compressed. What it inflates to can't be known, so it is refused.
    #[error("compressed terms are refused")]
    Compressed,
    /// Nested deeper than allowed.
    #[error("the term is nested deeper than {0} levels")]
    Depth(u32),
    /// The encoding is longer than allowed.
    #[error("the term takes {bytes} encoded bytes, {limit} are allowed")]
    Size {
        /// Bytes of the encoded term.
        bytes: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The decoded term would take more heap than allowed.
    #[error("the decoded term would take more than {0} bytes of heap (max_term_heap)")]
    Heap(u64),
    /// The gate refused an atom: too many new ones.
    #[error("the term brings more new atoms than allowed (max_new_atoms)")]
    Atoms,
    /// An atom isn't UTF-8.
    #[error("an atom is not valid UTF-8")]
    AtomText,
    /// An atom has more than 255 characters.
    #[error("an atom has more than 255 characters")]
    AtomLength,
    /// A float is infinite, not a number or not a numeral.
    #[error("a float is not a finite number")]
    Float,
    /// A bitstring's last byte has no or too many bits.
    #[error("{0} bits in the last byte of a bitstring")]
    Bits(u8),
    /// A reference with no or too many words.
    #[error("a reference of {0} words")]
    Reference(u32),
    /// A fun isn't built as it should be.
    #[error("a malformed fun: {0}")]
    Fun(&'static str),
    /// More out-of-band binaries than allowed.
    #[error("more than {0} out-of-band binaries")]
    Blobs(usize),
    /// The out-of-band binaries aren't those that the term announces.
    #[error("the out-of-band binaries do not fit the term")]
    BlobMismatch,
    /// A value that has no counterpart in the other representation.
    #[error("{0} can't be converted")]
    Unsupported(&'static str),
}
