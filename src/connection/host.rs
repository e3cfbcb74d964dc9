//! What a node is embedded in: a BEAM node, by the NIF, or a Rust program.
//!
//! The runtime reads and validates bytes; the host turns them into messages of its own world and
//! hands out the memory that large binaries are read into.

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::net::RecvFlags;

use crate::connection::outbox::Outbox;
use crate::connection::session::Session;
use crate::wire::frame::Dest;
use crate::wire::term::Facts;

/// A socket that the bytes of a [`Blob`] are read from.
#[derive(Debug)]
pub struct Source<'a> {
    socket: BorrowedFd<'a>,
    short: Cell<bool>,
}

impl<'a> Source<'a> {
    /// Reads from this non-blocking socket.
    pub fn new(socket: BorrowedFd<'a>) -> Self {
        Self {
            socket,
            short: Cell::new(false),
        }
    }

    /// Reads once and returns how many bytes of `buffer`, from the first, have been filled.
    ///
    /// # Errors
    /// What the operating system says, `WouldBlock` if nothing is there.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (count, _) = rustix::net::recv(self.socket, &mut *buffer, RecvFlags::empty())?;
        self.short.set(count < buffer.len());
        Ok(count)
    }

    /// The same for memory that holds nothing yet: the bytes counted have been initialised.
    ///
    /// # Errors
    /// As [`Source::read`].
    pub fn read_uninit(&self, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        let ((filled, rest), _) = rustix::net::recv(self.socket, buffer, RecvFlags::empty())?;
        self.short.set(!rest.is_empty());
        Ok(filled.len())
    }

    /// True if the last read brought less than there was memory for: the socket is empty.
    pub fn is_drained(&self) -> bool {
        self.short.get()
    }
}

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

    /// Reads once from `source` into up to `limit` bytes of memory behind the filled part, and
    /// returns how many bytes came.
    ///
    /// # Errors
    /// What `source` returns, and `OutOfMemory` if the memory cannot grow.
    fn receive(&mut self, limit: usize, source: &Source<'_>) -> io::Result<usize>;

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
    /// The node that it is from, if that is not the session's peer: a broadcast.
    pub origin: Option<&'a Arc<str>>,
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

/// What an I/O thread serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadKind {
    /// Connections with small messages.
    Ordinary,
    /// Connections with large ones.
    Bulk,
}

/// Messages that were dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// They found nobody; see [`Delivery::NoProcess`].
    pub undelivered: u64,
    /// The host could not decode them; see [`Delivery::Undecodable`].
    pub undecodable: u64,
}

/// The surroundings of a node.
pub trait Host: Send + Sync + Sized + 'static {
    /// Memory for large binaries.
    type Blob: Blob;
    /// State that each I/O thread keeps for the host.
    type Thread;

    /// Makes the state of an I/O thread, on that thread.
    fn thread(&self, kind: ThreadKind) -> Self::Thread;

    /// Memory for a binary of `len` bytes; `None` if there is none.
    fn blob(&self, len: u64) -> Option<Self::Blob>;

    /// True if the atom exists already, so that it costs a peer nothing of its budget.
    fn knows_atom(&self, thread: &mut Self::Thread, atom: &str) -> bool;

    /// Called before the messages of one read are delivered. They had all arrived by then, so
    /// what the host looks up for one of them, it may use for the rest.
    fn batch(&self, thread: &mut Self::Thread) {
        let _ = thread;
    }

    /// Delivers what [`Host::deliver`] has held back so far, or hands it over to another thread,
    /// and returns what became of the messages that it delivered itself. Called after the messages
    /// of one read, and always before the thread does anything else.
    fn flush(
        &self,
        thread: &mut Self::Thread,
        session: &Arc<Session>,
        outbox: &Arc<Outbox>,
    ) -> Lost {
        let _ = (thread, session, outbox);
        Lost::default()
    }

    /// Delivers a message of `session` that came by the connection of `outbox`.
    fn deliver(
        &self,
        thread: &mut Self::Thread,
        session: &Arc<Session>,
        outbox: &Arc<Outbox>,
        message: Incoming<'_, Self::Blob>,
    ) -> Delivery;
}
