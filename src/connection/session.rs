//! What the connections of one peer share: who it is, which connections there are, and its end.
//!
//! A session has a fixed set of connections. Losing one ends it, because a sender's order could
//! otherwise have a gap that nobody hears of. **Down is a fence**: each I/O thread lets go of its
//! connections of the session, and only when the last one is gone is [`SessionEvent::Ended`]
//! sent, so nothing of the session is delivered after its end has become known.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::connection::inlet::Inlet;
use crate::connection::outbox::{Outbox, Wake};
use crate::connection::sync::{AtomicBool, AtomicUsize, Ordering};
use crate::limits;
use crate::wire::frame;
use crate::wire::handshake::SessionId;
use crate::wire::hello::Plan;
use crate::wire::identity::Identity;

/// Why a session ended, as the log and the `nodedown_reason` tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// This node closed it: `disconnect`, leave, stop.
    Local(&'static str),
    /// The peer closed it and said why.
    Peer(String),
    /// A connection was closed or reset.
    Lost(String),
    /// The peer sent nothing for the failure detector's time.
    Silent,
    /// The peer broke the protocol or a limit.
    Protocol(String),
    /// The peer, which lives, needs the session no longer.
    Released,
    /// The peer has left the cluster.
    Left,
    /// A newer session of the same name took its place.
    Replaced,
}

impl CloseReason {
    pub(crate) fn too_many_questions() -> Self {
        Self::Protocol("more questions than a channel has connections".into())
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(why) => write!(f, "closed by this node: {why}"),
            Self::Peer(why) => write!(f, "closed by the peer: {why}"),
            Self::Lost(why) => write!(f, "connection lost: {why}"),
            Self::Silent => write!(f, "no sign of life from the peer"),
            Self::Protocol(why) => write!(f, "protocol error: {why}"),
            Self::Released => write!(f, "released by the peer, which lives"),
            Self::Left => write!(f, "the peer has left the cluster"),
            Self::Replaced => write!(f, "replaced by a newer session of the same name"),
        }
    }
}

/// What I/O threads tell the control plane.
#[derive(Debug)]
pub enum SessionEvent {
    /// The last connection is gone; nothing of the session will be delivered any more.
    Ended {
        /// The session.
        session: Arc<Session>,
        /// Why it ended.
        reason: CloseReason,
    },
    /// The peer has answered a [`Session::probe`].
    Alive(Arc<Session>),
    /// A message of the control plane that waited for room has been granted it.
    Room(Arc<Session>),
    /// The same of a stream of acknowledged messages.
    Line(Arc<Session>, u64),
}

/// One connection of a session as `connections/0` shows it.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// The peer's address.
    pub remote: SocketAddr,
    /// When the connection was established.
    pub since: SystemTime,
}

/// An established session with a peer.
pub struct Session {
    /// The peer's name and creation.
    pub peer: Identity,
    /// The start of the peer's application that this session belongs to.
    pub instance: u64,
    /// Names the session when connections are bound to it.
    pub id: SessionId,
    /// Its channels and how many connections each has.
    pub plan: Plan,
    /// The connections, by index.
    pub connections: Vec<ConnectionInfo>,
    pub(crate) outboxes: Vec<Arc<Outbox>>,
    pub(crate) new_atoms: NewAtoms,
    pub(crate) inlet: Arc<Inlet>,
    remaining: AtomicUsize,
    closing: AtomicBool,
    draining: AtomicBool,
    released: AtomicBool,
    left: AtomicBool,
    probed: AtomicBool,
    reason: Mutex<Option<CloseReason>>,
    events: mpsc::UnboundedSender<SessionEvent>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// Counts the atoms that a peer has introduced, in all its sessions, and that all peers have.
#[derive(Clone, Debug, Default)]
pub struct NewAtoms {
    peer: Arc<AtomicU32>,
    all: Arc<AtomicU32>,
}

impl NewAtoms {
    /// The budget of another peer of the same node.
    #[must_use]
    pub fn of_other_peer(&self) -> Self {
        Self {
            peer: Arc::default(),
            all: self.all.clone(),
        }
    }

    /// True if the peer has introduced nothing yet.
    pub fn is_untouched(&self) -> bool {
        self.peer.load(Ordering::Relaxed) == 0
    }

    /// Counts one more; false if a peer that may introduce `limit` has no right to it.
    pub(crate) fn admit(&self, limit: u32) -> bool {
        let all = limit.saturating_mul(limits::NEW_ATOMS_OF_ALL);
        let below = |count: &AtomicU32, limit| {
            let more = |n| (n < limit).then_some(n + 1);
            count
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
                .is_ok()
        };
        below(&self.peer, limit) && below(&self.all, all)
    }
}

/// What a session is made of.
pub struct Parts {
    /// See [`Session::peer`].
    pub peer: Identity,
    /// See [`Session::instance`].
    pub instance: u64,
    /// See [`Session::id`].
    pub id: SessionId,
    /// See [`Session::plan`].
    pub plan: Plan,
    /// See [`Session::connections`].
    pub connections: Vec<ConnectionInfo>,
    /// One outbox per connection.
    pub outboxes: Vec<Arc<Outbox>>,
    /// The peer's budget of new atoms.
    pub new_atoms: NewAtoms,
    /// Where messages for the control plane go.
    pub inlet: Arc<Inlet>,
    /// Where the session's end is told. At most one event per session and probe.
    pub events: mpsc::UnboundedSender<SessionEvent>,
}

impl Session {
    /// A session whose connections are about to be given to the I/O threads.
    pub fn new(parts: Parts) -> Self {
        Self {
            peer: parts.peer,
            instance: parts.instance,
            id: parts.id,
            plan: parts.plan,
            connections: parts.connections,
            remaining: AtomicUsize::new(parts.outboxes.len()),
            outboxes: parts.outboxes,
            new_atoms: parts.new_atoms,
            inlet: parts.inlet,
            closing: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            released: AtomicBool::new(false),
            left: AtomicBool::new(false),
            probed: AtomicBool::new(false),
            reason: Mutex::new(None),
            events: parts.events,
        }
    }

    /// The connection for messages of `channel`, chosen by `key`; `None` if the session has no
    /// such channel.
    ///
    /// The same key always gives the same connection while the session lives.
    pub fn route(&self, channel: &str, key: u64) -> Option<&Arc<Outbox>> {
        let channel = self.plan.find(channel)?;
        let index = u64::from(channel.base) + key % u64::from(channel.count.max(1));
        self.outboxes.get(index as usize)
    }

    /// The connection of number `index`.
    pub fn outbox(&self, index: usize) -> Option<&Arc<Outbox>> {
        self.outboxes.get(index)
    }

    /// True until something has ended the session.
    pub fn is_open(&self) -> bool {
        !self.closing.load(Ordering::Acquire)
    }

    /// Ends the session. Every queue is dropped and every waiter woken; connections are closed
    /// by their threads. The first reason given is the one that is reported.
    ///
    /// Not to be called on a BEAM scheduler, since it wakes waiters.
    pub fn close(&self, reason: CloseReason) {
        self.close_with(reason, Wake::Disconnected);
    }

    /// Like [`Session::close`], with what waiters are told.
    pub fn close_with(&self, reason: CloseReason, wake: Wake) {
        {
            let mut slot = self.reason.lock();
            if slot.is_none() {
                *slot = Some(reason);
            }
        }
        self.closing.store(true, Ordering::Release);
        for outbox in &self.outboxes {
            outbox.close(wake);
            outbox.signal();
        }
    }

    /// Ends the session once everything queued has been written on each connection and the peer
    /// has done the same: what either end sent before is delivered. Bounded by a few seconds.
    pub fn close_after_flush(&self, reason: CloseReason) {
        {
            let mut slot = self.reason.lock();
            if slot.is_none() {
                *slot = Some(reason);
            }
        }
        self.draining.store(true, Ordering::Release);
        for outbox in &self.outboxes {
            outbox.signal();
        }
    }

    /// Like [`Session::close_after_flush`], and the peer is told that this node lives and only needs
    /// the session no longer. Nothing may be lost: bounded by [`RELEASE_PATIENCE`](limits::RELEASE_PATIENCE).
    pub fn release(&self) {
        self.released.store(true, Ordering::Release);
        self.close_after_flush(CloseReason::Local("no longer needed"));
    }

    /// The same, and the peer is told that this node leaves the cluster.
    pub fn leave(&self) {
        self.left.store(true, Ordering::Release);
        self.release();
    }

    /// The peer has released the session.
    pub(crate) fn released_by_peer(&self) {
        self.released.store(true, Ordering::Release);
        self.close_after_flush(CloseReason::Released);
    }

    /// The peer leaves the cluster.
    pub(crate) fn left_by_peer(&self) {
        self.left.store(true, Ordering::Release);
        self.released.store(true, Ordering::Release);
        self.close_after_flush(CloseReason::Left);
    }

    /// Whether one end has left the cluster of the other.
    pub fn has_left(&self) -> bool {
        self.left.load(Ordering::Acquire)
    }

    /// Whether either end has released the session, rather than ended it.
    pub fn is_released(&self) -> bool {
        self.released.load(Ordering::Acquire)
    }

    /// The frame that says goodbye.
    pub(crate) fn goodbye(&self) -> Vec<u8> {
        match self.released.load(Ordering::Acquire) {
            true if self.has_left() => frame::close(frame::CLOSE_LEFT, "left the cluster"),
            true => frame::close(frame::CLOSE_RELEASED, "no longer needed"),
            false => frame::close(frame::CLOSE_ENDED, "session ended"),
        }
    }

    /// Whether messages of users have passed since the last call.
    pub(crate) fn take_used(&self) -> bool {
        let used = |any, outbox: &Arc<Outbox>| any | outbox.take_used();
        self.outboxes.iter().fold(false, used)
    }

    /// `trunk` is about to end its queue: what its branches hold has to go by it.
    pub(crate) fn recall(&self, trunk: &Arc<Outbox>) {
        for outbox in &self.outboxes {
            outbox.recall(trunk);
        }
    }

    /// Asks the peer for a sign of life, which arrives as [`SessionEvent::Alive`].
    pub fn probe(&self) {
        self.probed.store(true, Ordering::Release);
        if let Some(first) = self.outboxes.first() {
            first.send_urgent(&crate::wire::frame::ping(PROBE_ID));
        }
    }

    /// Whether the session is neither closed nor about to be.
    pub(crate) fn is_lasting(&self) -> bool {
        self.is_open() && !self.is_draining()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub(crate) fn answered(self: &Arc<Self>) {
        if self.probed.swap(false, Ordering::AcqRel) {
            // The receiver is gone only when the node has stopped.
            let _ = self.events.send(SessionEvent::Alive(self.clone()));
        }
    }

    /// Ends the session like [`Session::close`], but leaves the waiters to the I/O threads: for any
    /// thread, a BEAM scheduler's too.
    pub(crate) fn abandon(&self, reason: CloseReason) {
        {
            let mut slot = self.reason.lock();
            if slot.is_none() {
                *slot = Some(reason);
            }
        }
        self.closing.store(true, Ordering::Release);
        for outbox in &self.outboxes {
            outbox.signal();
        }
    }

    /// Messages of a connection are being handed over: the session has not ended before they are
    /// delivered. The caller has the connection.
    pub(crate) fn retained(&self) {
        self.remaining.fetch_add(1, Ordering::AcqRel);
    }

    /// An I/O thread has let go of one connection, or what was handed over is delivered.
    pub(crate) fn released(self: &Arc<Self>) {
        if self.remaining.fetch_sub(1, Ordering::AcqRel) == 1 {
            let reason = self
                .reason
                .lock()
                .clone()
                .unwrap_or_else(|| CloseReason::Lost("closed".into()));
            let _ = self.events.send(SessionEvent::Ended {
                session: self.clone(),
                reason,
            });
        }
    }
}

/// Marks the ping of [`Session::probe`]; idle pings have other numbers.
pub(crate) const PROBE_ID: u64 = u64::MAX;
