//! Mailboxes: where messages wait for a Rust program.
//!
//! A mailbox is bounded in bytes. When it is full, the connection that brings more keeps its
//! message and is not read; the peer's queue fills, and the peer's senders wait. Nothing is lost
//! and no order is changed. When half of the mailbox has been taken out, reading goes on.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use thiserror::Error;
use tokio::sync::Notify;

use crate::connection::outbox::Outbox;
use crate::connection::receive::CONTROL_NAME;
use crate::node::api::{Inner, Node};
use crate::node::block::{block_on, block_on_until};
use crate::node::requests::REQUESTS_NAME;
use crate::node::send::{Destination, SendError, SendOptions};
use crate::wire::frame::{Dest, MAX_DEST_NAME};
use crate::wire::handshake::SessionId;
use crate::wire::identity::Identity;
use crate::wire::term::{Pid, Term};

/// Bytes of a mailbox by default ([`Builder::mailbox_bytes`](crate::Builder::mailbox_bytes)).
pub(crate) const MAILBOX_BYTES: u64 = 16 << 20;

/// What a message takes beside its bytes, so that the smallest ones are bounded too.
const OVERHEAD: u64 = 64;

/// A received message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Name of the node that has sent it.
    pub from: Arc<str>,
    /// The session that it came by; `None` for a message of this node. While this stays the same,
    /// no message of a sender is missing between two others of one channel and partition key.
    pub session: Option<SessionId>,
    /// The message.
    pub term: Term,
}

/// Why a name cannot be registered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// A mailbox has the name already.
    #[error("the name {0:?} is registered already")]
    Taken(Arc<str>),
    /// The node needs the name for itself, or no frame has room for it.
    #[error("{0:?} cannot be registered: names have 1 to 255 bytes, and some are reserved")]
    Name(Arc<str>),
    /// The node has stopped.
    #[error("the node has stopped")]
    NotAlive,
}

/// True if users may register the name and send to it.
pub(crate) fn is_free_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_DEST_NAME && name != CONTROL_NAME
}

struct State {
    queue: VecDeque<Message>,
    /// Bytes queued and admitted.
    bytes: u64,
    closed: bool,
    /// Connections that keep a message for this mailbox.
    stalled: Vec<Arc<Outbox>>,
}

/// The end of a mailbox that messages are put into.
pub(crate) struct Slot {
    capacity: u64,
    state: Mutex<State>,
    arrived: Notify,
    drained: Notify,
}

fn cost(skeleton: usize, blobs: u64) -> u64 {
    skeleton as u64 + blobs + OVERHEAD
}

fn cost_of(term: &Term) -> u64 {
    cost(term.len(), 0)
}

/// Why a mailbox takes no message.
pub(crate) enum Refused {
    Full,
    Closed,
}

impl Slot {
    fn new(capacity: u64) -> Self {
        Self {
            capacity: capacity.max(1),
            state: Mutex::new(State {
                queue: VecDeque::new(),
                bytes: 0,
                closed: false,
                stalled: Vec::new(),
            }),
            arrived: Notify::new(),
            drained: Notify::new(),
        }
    }

    /// Makes room for a message of that size, which must be followed by [`Slot::put`]. If there
    /// is none, `outbox` is told when there is.
    pub(crate) fn admit(
        &self,
        term: usize,
        blobs: u64,
        outbox: Option<&Arc<Outbox>>,
    ) -> Result<(), Refused> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.bytes >= self.capacity {
            if let Some(outbox) = outbox
                && !state.stalled.iter().any(|o| Arc::ptr_eq(o, outbox))
            {
                state.stalled.push(outbox.clone());
            }
            return Err(Refused::Full);
        }
        state.bytes += cost(term, blobs);
        Ok(())
    }

    /// Puts in a message that room was made for.
    pub(crate) fn put(&self, message: Message) {
        let mut state = self.state.lock();
        if !state.closed {
            state.queue.push_back(message);
            drop(state);
            self.arrived.notify_one();
        }
    }

    /// Gives room back that no message was put into.
    pub(crate) fn give_back(&self, term: usize, blobs: u64) {
        self.leave(self.state.lock(), cost(term, blobs));
    }

    fn leave(&self, mut state: parking_lot::MutexGuard<'_, State>, bytes: u64) {
        let before = state.bytes;
        state.bytes = before.saturating_sub(bytes);
        let half = self.capacity / 2;
        // Also whenever it is empty, since half of a tiny mailbox may be nothing.
        if (before > half && state.bytes <= half) || state.bytes == 0 {
            let stalled = std::mem::take(&mut state.stalled);
            drop(state);
            for outbox in stalled {
                outbox.resume();
            }
            self.drained.notify_waiters();
        }
    }

    /// `Ok(None)`: empty, but more may come.
    fn take(&self) -> Result<Option<Message>, ()> {
        let mut state = self.state.lock();
        match state.queue.pop_front() {
            Some(message) => {
                let bytes = cost_of(&message.term);
                self.leave(state, bytes);
                Ok(Some(message))
            }
            None if state.closed => Err(()),
            None => Ok(None),
        }
    }

    /// Puts in a message of this node, waiting for room.
    pub(crate) async fn put_waiting(&self, message: Message) -> Result<(), Refused> {
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            // From here on no notification is missed.
            drained.as_mut().enable();
            match self.admit(message.term.len(), 0, None) {
                Ok(()) => {
                    self.put(message);
                    return Ok(());
                }
                Err(Refused::Closed) => return Err(Refused::Closed),
                Err(Refused::Full) => drained.await,
            }
        }
    }

    /// Ends the mailbox: nothing more goes in; with `discard` nothing comes out either.
    pub(crate) fn close(&self, discard: bool) {
        let mut state = self.state.lock();
        state.closed = true;
        let stalled = std::mem::take(&mut state.stalled);
        let queue = if discard {
            std::mem::take(&mut state.queue)
        } else {
            VecDeque::new()
        };
        drop(state);
        drop(queue);
        // What the connections keep now finds nobody.
        for outbox in stalled {
            outbox.resume();
        }
        self.arrived.notify_one();
        self.drained.notify_waiters();
    }
}

#[derive(Default)]
struct Names {
    names: HashMap<Arc<str>, Arc<Slot>>,
    pids: HashMap<(u32, u32), Arc<Slot>>,
    last: (u32, u32),
    closed: bool,
}

/// The mailboxes of a node.
pub(crate) struct Registry {
    pub(crate) identity: Identity,
    capacity: u64,
    names: RwLock<Names>,
}

impl Registry {
    pub(crate) fn new(identity: Identity, capacity: u64) -> Self {
        Self {
            identity,
            capacity,
            names: RwLock::default(),
        }
    }

    pub(crate) fn find(&self, dest: Dest<'_>) -> Option<Arc<Slot>> {
        let names = self.names.read();
        match dest {
            Dest::Name(name) => names.names.get(name).cloned(),
            Dest::Pid {
                id,
                serial,
                creation,
            } => {
                let own = creation == 0 || creation == self.identity.creation;
                names.pids.get(&(id, serial)).filter(|_| own).cloned()
            }
        }
    }

    fn open(&self, name: Option<&Arc<str>>) -> Result<(Arc<Slot>, Pid), RegisterError> {
        let mut names = self.names.write();
        if names.closed {
            return Err(RegisterError::NotAlive);
        }
        if let Some(name) = name {
            if !is_free_name(name) || **name == *REQUESTS_NAME {
                return Err(RegisterError::Name(name.clone()));
            }
            if names.names.contains_key(name) {
                return Err(RegisterError::Taken(name.clone()));
            }
        }
        let (id, serial) = loop {
            // As many bits as pids have in any release of Erlang.
            let (id, serial) = names.last;
            names.last = if id + 1 < 1 << 28 {
                (id + 1, serial)
            } else {
                (1, (serial + 1) % (1 << 13))
            };
            if !names.pids.contains_key(&names.last) {
                break names.last;
            }
        };
        let slot = Arc::new(Slot::new(self.capacity));
        names.pids.insert((id, serial), slot.clone());
        if let Some(name) = name {
            names.names.insert(name.clone(), slot.clone());
        }
        let Identity { node, creation } = self.identity.clone();
        Ok((
            slot,
            Pid {
                node,
                id,
                serial,
                creation,
            },
        ))
    }

    fn close(&self, name: Option<&str>, pid: &Pid) {
        let mut names = self.names.write();
        names.pids.remove(&(pid.id, pid.serial));
        if let Some(name) = name {
            names.names.remove(name);
        }
    }

    /// The node ends: what is in the mailboxes can still be received.
    pub(crate) fn stop(&self) {
        let slots = {
            let mut names = self.names.write();
            names.closed = true;
            names.names.clear();
            std::mem::take(&mut names.pids)
        };
        for slot in slots.values() {
            slot.close(false);
        }
    }
}

/// A mailbox: receives what is sent to its pid and to its name, if it has one.
///
/// It is also a sender: [`Mailbox::send`] keeps the order of the messages that this mailbox
/// sends to one receiver by one channel and partition key. Dropping it frees its name and
/// discards what it holds.
pub struct Mailbox {
    node: Node,
    slot: Arc<Slot>,
    name: Option<Arc<str>>,
    pid: Pid,
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox")
            .field("name", &self.name)
            .field("pid", &self.pid)
            .finish()
    }
}

impl Mailbox {
    pub(crate) fn open(inner: &Arc<Inner>, name: Option<Arc<str>>) -> Result<Self, RegisterError> {
        let (slot, pid) = inner.registry.open(name.as_ref())?;
        Ok(Self {
            node: Node::of(inner),
            slot,
            name,
            pid,
        })
    }

    /// Its pid, valid on every node of the cluster.
    pub fn pid(&self) -> &Pid {
        &self.pid
    }

    /// Its name, if it is registered.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Its node. Messages sent through this handle count as the mailbox's own; those of a clone
    /// of it do not.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The next message; `None` once the node has stopped and the mailbox is empty.
    ///
    /// Cancel-safe: a future that is dropped has taken nothing.
    pub async fn recv(&mut self) -> Option<Message> {
        loop {
            match self.slot.take() {
                Ok(Some(message)) => return Some(message),
                Ok(None) => self.slot.arrived.notified().await,
                Err(()) => return None,
            }
        }
    }

    /// A message if one is there.
    pub fn try_recv(&mut self) -> Option<Message> {
        self.slot.take().ok().flatten()
    }

    /// [`Mailbox::recv`] for threads: blocks. Not to be called by an asynchronous task.
    pub fn recv_blocking(&mut self) -> Option<Message> {
        block_on(self.recv())
    }

    /// [`Mailbox::recv_blocking`] for at most `timeout`; `None` also if no message came in time.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Option<Message> {
        block_on_until(self.recv(), Instant::now().checked_add(timeout)).flatten()
    }

    /// Sends with the default options; see [`Node::send`].
    ///
    /// # Errors
    /// See [`SendError`]; nothing has been sent.
    pub async fn send(&self, to: impl Into<Destination<'_>>, term: &Term) -> Result<(), SendError> {
        self.node.send(to, term).await
    }

    /// Sends with options; see [`Node::send_with`].
    ///
    /// # Errors
    /// See [`SendError`]; nothing has been sent.
    pub async fn send_with(
        &self,
        to: impl Into<Destination<'_>>,
        term: &Term,
        options: &SendOptions,
    ) -> Result<(), SendError> {
        self.node.send_with(to, term, options).await
    }

    /// [`Mailbox::send_with`] for threads: blocks. Not to be called by an asynchronous task.
    ///
    /// # Errors
    /// See [`SendError`]; nothing has been sent.
    pub fn send_blocking<'a>(
        &self,
        to: impl Into<Destination<'a>>,
        term: &Term,
        options: &SendOptions,
    ) -> Result<(), SendError> {
        self.node.send_blocking(to, term, options)
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.node
            .inner()
            .registry
            .close(self.name.as_deref(), &self.pid);
        self.slot.close(true);
    }
}
