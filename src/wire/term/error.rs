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
    /// The term is compressed where that isn't allowed: between nodes of Partisan, inside of
    /// another term, or without a version byte before it.
    #[error("a compressed term is not allowed here")]
    Compressed,
    /// A compressed term can't be inflated.
    #[error("a compressed term can't be inflated: {0}")]
    Inflate(&'static str),
    /// A reference to an atom that the distribution header hasn't named.
    #[error("the term refers to cached atom {0}, which its header does not name")]
    CachedAtom(u8),
    /// Flags of a native record that are reserved.
    #[error("flags {0} of a native record; only 0 and 1 are known")]
    RecordFlags(u8),
    /// A creation that the old encodings of identifiers have no room for.
    #[error("creation {0} in an old encoding of an identifier; 3 is the largest")]
    Creation(u8),
    /// A first word of a reference that the old encodings have no room for.
    #[error("number {0} in an old encoding of a reference; it has 18 bits")]
    OldReference(u32),
    /// A map has a key twice.
    #[error("a map has a key twice")]
    DuplicateKey,
    /// Two fields of a native record have one name.
    #[error("two fields of a native record have the same name")]
    DuplicateField,
    /// Maps stand in keys of maps which stand in keys of maps, and so on.
    #[error("maps are nested too deeply as keys of maps")]
    NestedKeys,
    /// A native record, or a term in a node's private encoding, on its way to a peer that need
    /// not know either.
    #[error("{0} can't be sent to this peer: send its fields as a tuple or a map")]
    Foreign(&'static str),
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
    /// Bytes that are no term in a node's private encoding.
    #[error("not a term in a node's private encoding")]
    Local,
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
