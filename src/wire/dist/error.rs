//! What can be wrong with a signal.

use crate::wire::flags::Flags;
use crate::wire::term::TermError;

/// Why a packet is no signal, or a signal can't become a packet.
///
/// After a packet that was refused, the two ends may disagree about atom cache and fragments:
/// the connection has to be closed. A signal that was refused leaves no trace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DistError {
    /// The first bytes are those of no form that both nodes have agreed on.
    #[error("a packet begins with {0:?}, which is no form that was agreed on in the handshake")]
    Form(Vec<u8>),
    /// The packet ends too early.
    #[error("a packet ends inside of its {0}")]
    Truncated(&'static str),
    /// The header refers to a slot that nothing was put into.
    #[error("the header refers to atom cache slot {0}, which is empty")]
    EmptySlot(u16),
    /// An atom of the header isn't UTF-8 or too long.
    #[error("the header brings an atom that is {0}")]
    CachedAtom(&'static str),
    /// The control message isn't built as its operation demands.
    #[error("malformed control message {operation}: {wrong}")]
    Control {
        /// Which.
        operation: &'static str,
        /// What is wrong with it.
        wrong: &'static str,
    },
    /// A term in or beside the control message was refused.
    #[error("a term of the control message {operation} was refused: {source}")]
    Term {
        /// Which.
        operation: &'static str,
        /// Why.
        source: TermError,
    },
    /// The operation needs a payload and there is none.
    #[error("the control message {0} came without its payload")]
    NoPayload(&'static str),
    /// Bytes follow the signal.
    #[error("{bytes} bytes follow the control message {operation} and its payload")]
    Trailing {
        /// Which.
        operation: &'static str,
        /// How many.
        bytes: usize,
    },
    /// A signal is larger than allowed.
    #[error("a signal takes {bytes} bytes, {limit} are allowed (max_message_bytes)")]
    TooLarge {
        /// As far as it is known.
        bytes: u64,
        /// How many are allowed.
        limit: u64,
    },
    /// A first fragment of number 0, or a sequence of the number that means none.
    #[error("a fragment of sequence {sequence} has the number {fragment}")]
    FragmentNumber {
        /// The sequence.
        sequence: u64,
        /// The fragment's number.
        fragment: u64,
    },
    /// A first fragment of a sequence that is under way already.
    #[error("sequence {0} of fragments begins before it has ended")]
    SequenceOpen(u64),
    /// A later fragment of a sequence that hasn't begun.
    #[error("a fragment belongs to sequence {0}, which has not begun")]
    SequenceUnknown(u64),
    /// Fragments count down to 1 without a gap.
    #[error("fragment {got} of sequence {sequence} came instead of {expected}")]
    FragmentOrder {
        /// The sequence.
        sequence: u64,
        /// What should have come.
        expected: u64,
        /// What came.
        got: u64,
    },
    /// More fragmented signals under way than allowed.
    #[error("more than {0} fragmented signals are under way")]
    Sequences(usize),
    /// Fragmented signals under way hold more bytes than allowed.
    #[error("the fragmented signals under way hold more than {0} bytes")]
    OpenBytes(u64),
    /// The peer hasn't offered what the signal needs.
    #[error("the peer can't take {signal}: it has not offered {flag}")]
    NotOffered {
        /// What was to be sent.
        signal: &'static str,
        /// The missing capability.
        flag: Flags,
    },
    /// What no peer could be sent.
    #[error("{signal} can't be sent: {why}")]
    Unsendable {
        /// What was to be sent.
        signal: &'static str,
        /// Why not.
        why: &'static str,
    },
}
