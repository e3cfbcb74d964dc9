//! A Rust program as the host of a node: memory for binaries, delivery to mailboxes.
//!
//! Small messages that come in a row for one process are gathered and put into its mailbox
//! together, at the latest when all that was read with them has been looked at.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::connection::host::{Blob, Delivery, Host, Incoming, Lost, Source, ThreadKind};
use crate::connection::outbox::{Outbox, Outgoing, Pressure};
use crate::connection::session::Session;
use crate::limits::{ALLOCATE_AT_ONCE_BYTES, MAX_TERM_DEPTH};
use crate::node::control::MEMBERSHIP_CHANNEL;
use crate::node::mailbox::Message;
use crate::node::registry::Registry;
use crate::node::requests::{REQUESTS_NAME, answer};
use crate::node::slot::{Refused, Slot, Stalled, cost};
use crate::node::waiting::Run;
use crate::wire::frame::{Dest, DestBuf};
use crate::wire::term::Term;

/// Memory of a large binary.
///
/// Safe Rust reads into initialised memory only. So zeros are written step by step, right before
/// the bytes that replace them: the step is then in the cache, and costs next to nothing.
pub(crate) struct VecBlob {
    bytes: Vec<u8>,
    filled: usize,
    len: u64,
}

/// Sender id of answers to other nodes: no mailbox has it.
const REQUESTS_SENDER: u64 = u64::MAX - 1;

/// Bytes initialised at once.
const STEP: usize = 64 << 10;

impl VecBlob {
    fn new(len: u64) -> Option<Self> {
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(len.min(ALLOCATE_AT_ONCE_BYTES) as usize)
            .ok()?;
        Some(Self {
            bytes,
            filled: 0,
            len,
        })
    }

    /// Makes room for at least one byte behind the filled part, as long as bytes are missing.
    fn grow(&mut self) -> io::Result<()> {
        if self.bytes.len() == self.bytes.capacity() && (self.bytes.len() as u64) < self.len {
            let wanted = (self.bytes.len() as u64 * 2).clamp(STEP as u64, self.len);
            let more = wanted as usize - self.bytes.len();
            self.bytes
                .try_reserve_exact(more)
                .map_err(|_| io::ErrorKind::OutOfMemory)?;
        }
        Ok(())
    }
}

impl Blob for VecBlob {
    fn len(&self) -> u64 {
        self.len
    }

    fn filled(&self) -> u64 {
        self.filled as u64
    }

    fn extend(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut bytes = bytes;
        while !bytes.is_empty() && !self.is_complete() {
            let ready = self.bytes.len() - self.filled;
            if ready > 0 {
                // What was initialised for a read that then brought less.
                let count = ready.min(bytes.len());
                self.bytes[self.filled..self.filled + count].copy_from_slice(&bytes[..count]);
                self.filled += count;
                bytes = &bytes[count..];
            } else {
                self.grow()?;
                let room = self.bytes.capacity().min(self.len as usize) - self.filled;
                let count = room.min(bytes.len());
                self.bytes.extend_from_slice(&bytes[..count]);
                self.filled += count;
                bytes = &bytes[count..];
            }
        }
        Ok(())
    }

    fn receive(&mut self, limit: usize, source: &Source<'_>) -> io::Result<usize> {
        if self.filled == self.bytes.len() {
            self.grow()?;
            let room = self.bytes.capacity().min(self.len as usize) - self.filled;
            self.bytes
                .resize(self.filled + room.min(limit).min(STEP), 0);
        }
        let end = self.bytes.len().min(self.filled + limit);
        let got = source.read(&mut self.bytes[self.filled..end])?;
        self.filled += got;
        Ok(got)
    }
}

/// The surroundings of a Rust node.
pub(crate) struct RustHost {
    pub(crate) registry: Arc<Registry>,
}

impl RustHost {
    /// Answers what another node asks of this one. The answer never waits: the asker has a
    /// timeout.
    fn request(&self, session: &Session, message: &Incoming<'_, VecBlob>) -> Delivery {
        let skeleton = Bytes::copy_from_slice(message.term);
        let Ok(request) = Term::from_scanned(skeleton, Vec::new(), message.facts) else {
            return Delivery::Undecodable;
        };
        let Some((to, reply)) = answer(&self.registry, &request) else {
            return Delivery::NoProcess;
        };
        let route = session.route(MEMBERSHIP_CHANNEL, 0).or(session.outbox(0));
        if let (Some(outbox), true) = (route, to.node == session.peer.node) {
            let reply = Outgoing::of((&to).into(), reply.skeleton(), &[], false);
            let _ = outbox.send(REQUESTS_SENDER, reply, Pressure::Refuse);
        }
        Delivery::Done
    }
}

/// Most messages that are put into a mailbox at once: who receives them is to begin early.
const RUN_MESSAGES: usize = 64;

/// Room of a mailbox that is reserved for messages to be gathered.
const RUN_BYTES: u64 = 16 << 10;

/// Largest term that is gathered, which costs one more copy.
const GATHERED_BYTES: usize = 4 << 10;

/// A process that messages are gathered for.
struct Addressee {
    dest: DestBuf,
    slot: Arc<Slot>,
    /// Room in its mailbox that is left for more.
    room: u64,
}

/// What an I/O thread keeps: messages that it gathers, all of one connection.
#[derive(Default)]
pub(crate) struct Desk {
    to: Option<Addressee>,
    terms: Vec<u8>,
    messages: usize,
    lost: Lost,
}

impl Desk {
    /// Puts what was gathered into its mailbox.
    fn put(&mut self, session: &Session) {
        let Some(Addressee { slot, room, .. }) = self.to.take() else {
            return;
        };
        let run = Run::new(session.peer.node.clone(), session.id, &self.terms);
        if !slot.put_run(run, room) {
            self.lost.undelivered += self.messages as u64;
        }
        self.terms.clear();
        self.messages = 0;
    }

    fn takes(&self, dest: Dest<'_>, bytes: u64) -> bool {
        let fits = |to: &Addressee| to.dest.as_dest() == dest && bytes <= to.room;
        self.messages < RUN_MESSAGES && self.to.as_ref().is_some_and(fits)
    }
}

impl RustHost {
    /// The process, with room for a first message and up to `most` bytes; see [`Slot::reserve`].
    fn reserve(
        &self,
        dest: Dest<'_>,
        outbox: &Arc<Outbox>,
        first: u64,
        most: u64,
    ) -> Result<(Arc<Slot>, u64), Delivery> {
        let slot = self.registry.find(dest).ok_or(Delivery::NoProcess)?;
        let stalled = || Some(Stalled::Connection(outbox.clone()));
        match slot.reserve(first, most, stalled) {
            Ok(room) => Ok((slot, room)),
            Err(Refused::Full) => Err(Delivery::Full),
            Err(Refused::Closed) => Err(Delivery::NoProcess),
        }
    }

    /// Delivers a small message together with its neighbours.
    fn gather(
        &self,
        desk: &mut Desk,
        session: &Session,
        outbox: &Arc<Outbox>,
        message: &Incoming<'_, VecBlob>,
    ) -> Delivery {
        let bytes = cost(message.term.len(), 0);
        if !desk.takes(message.dest, bytes) {
            desk.put(session);
            let (slot, room) = match self.reserve(message.dest, outbox, bytes, RUN_BYTES) {
                Ok(found) => found,
                Err(delivery) => return delivery,
            };
            let dest = message.dest.into();
            desk.to = Some(Addressee { dest, slot, room });
        }
        if let Some(to) = &mut desk.to {
            to.room -= bytes;
            Run::append(&mut desk.terms, message.term);
            desk.messages += 1;
        }
        Delivery::Done
    }
}

impl Host for RustHost {
    type Blob = VecBlob;
    type Thread = Desk;

    fn thread(&self, _: ThreadKind) -> Desk {
        Desk::default()
    }

    fn blob(&self, len: u64) -> Option<VecBlob> {
        VecBlob::new(len)
    }

    fn knows_atom(&self, _: &mut Desk, _atom: &str) -> bool {
        // Atoms are strings here: they cost nothing that lasts.
        true
    }

    fn flush(&self, desk: &mut Desk, session: &Arc<Session>, _: &Arc<Outbox>) -> Lost {
        desk.put(session);
        std::mem::take(&mut desk.lost)
    }

    fn deliver(
        &self,
        desk: &mut Desk,
        session: &Arc<Session>,
        outbox: &Arc<Outbox>,
        message: Incoming<'_, VecBlob>,
    ) -> Delivery {
        if message.dest == Dest::Name(REQUESTS_NAME) && message.blobs.is_empty() {
            return self.request(session, &message);
        }
        if message.term.len() <= GATHERED_BYTES
            && message.facts.depth <= MAX_TERM_DEPTH
            && message.blobs.is_empty()
            && message.origin.is_none()
        {
            return self.gather(desk, session, outbox, &message);
        }
        desk.put(session);
        let blobs = message.blobs.iter().map(Blob::len).sum();
        let bytes = cost(message.term.len(), blobs);
        let slot = match self.reserve(message.dest, outbox, bytes, bytes) {
            Ok((slot, _)) => slot,
            Err(delivery) => return delivery,
        };
        let whole: Vec<Bytes> = message.blobs.drain(..).map(|b| b.bytes.into()).collect();
        let skeleton = Bytes::copy_from_slice(message.term);
        match Term::from_scanned(skeleton, whole, message.facts) {
            Ok(term) => {
                let from = message.origin.unwrap_or(&session.peer.node).clone();
                let by = message.origin.is_none().then_some(session.id);
                slot.put(Message::of_session(from, by, term));
                Delivery::Done
            }
            Err(_) => {
                slot.give_back(message.term.len(), blobs);
                Delivery::Undecodable
            }
        }
    }
}
