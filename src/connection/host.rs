//! What a node is embedded in: a BEAM node, by the NIF, or a Rust program.
//!
//! The runtime reads and validates bytes; the host turns them into messages of its own world and
//! hands out the memory that large binaries are read into.

use std::io;
use std::mem::MaybeUninit;
use std::sync::Arc;

use crate::connection::outbox::Outbox;
use crate::connection::session::Session;
use crate::wire::frame::Dest;
use crate::wire::term::Facts;

/// Memory for one large binary, filled by the runtime as bytes arrive.
pub trait Blob: Send + 'static {
    /// Bytes that the binary will have in the end.
    fn len(&self) -> u64;

    /// Bytes that have arrived.
    fn filled(&self) -> u64;

    /// Appends bytes that arrived together with others. At most `len() - filled()` are given.
    ///
    /// # Errors
    /// `OutOfMemory` if the memory cannot grow.
    fn extend(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Calls `read` once with up to `limit` bytes of uninitialised memory behind the filled part;
    /// `read` returns how many of them, from the first, it has initialised.
    ///
    /// # Errors
    /// What `read` returns, and `OutOfMemory` if the memory cannot grow.
    fn receive(
        &mut self,
        limit: usize,
        read: &mut dyn FnMut(&mut [MaybeUninit<u8>]) -> io::Result<usize>,
    ) -> io::Result<usize>;

    /// True when every byte has arrived.
    fn is_complete(&self) -> bool {
        self.filled() == self.len()
    }

    /// True if the binary has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A message that has arrived whole and has been validated.
#[derive(Debug)]
pub struct Incoming<'a, B> {
    /// The process or name that it is for.
    pub dest: Dest<'a>,
    /// The encoded term, elided if validation found blobs.
    pub term: &'a [u8],
    /// What validation learnt about the term.
    pub facts: &'a Facts,
    /// The out-of-band binaries in order. The host takes them, unless it answers
    /// [`Delivery::Full`] and wants them again.
    pub blobs: &'a mut Vec<B>,
}

/// What became of an incoming message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It is in the mailbox of its process.
    Done,
    /// Nobody is registered under the name, or the process is dead. The message is dropped.
    NoProcess,
    /// The host could not turn the bytes into a term. The message is dropped.
    Undecodable,
    /// The mailbox is full, or the host needs time. The connection keeps the message and stops
    /// reading until the host calls [`Outbox::resume`]; then it delivers the message again.
    Full,
}

/// The surroundings of a node.
pub trait Host: Send + Sync + Sized + 'static {
    /// Memory for large binaries.
    type Blob: Blob;
    /// State that each I/O thread keeps for the host.
    type Thread;

    /// Makes the state of an I/O thread, on that thread.
    fn thread(&self) -> Self::Thread;

    /// Memory for a binary of `len` bytes; `None` if there is none.
    fn blob(&self, len: u64) -> Option<Self::Blob>;

    /// True if the atom exists already, so that it costs a peer nothing of its budget.
    fn knows_atom(&self, thread: &mut Self::Thread, atom: &str) -> bool;

    /// Delivers a message of `session` that came by the connection of `outbox`.
    fn deliver(
        &self,
        thread: &mut Self::Thread,
        session: &Session,
        outbox: &Arc<Outbox>,
        message: Incoming<'_, Self::Blob>,
    ) -> Delivery;
}
