//! Mailboxes: where messages wait for a Rust program.
//!
//! A mailbox is bounded in bytes. When it is full, the connection that brings more keeps its
//! message and is not read; the peer's queue fills, and the peer's senders wait. Nothing is lost
//! and no order is changed. When half of the mailbox has been taken out, reading goes on.
//!
//! To other nodes a mailbox is a process: it has a pid, it can monitor and link processes and be
//! monitored and linked, and it ends when it is dropped or when an exit signal ends it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::node::api::{Inner, Node};
use crate::node::block::{block_on, block_on_until};
use crate::node::processes::atom;
use crate::node::send::{Destination, SendError, SendOptions};
use crate::node::slot::{Intake, Slot, cost_of};
use crate::signals::{Event, Notice};
use crate::wire::handshake::SessionId;
use crate::wire::term::{Pid, Reference, Term};

/// Bytes of a mailbox by default ([`Builder::mailbox_bytes`](crate::Builder::mailbox_bytes)).
pub(crate) const MAILBOX_BYTES: u64 = 16 << 20;

/// A received message.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// Name of the node that has sent it.
    pub from: Arc<str>,
    /// The session that it came by; `None` for a message of this node or of a stock node. While this stays the same,
    /// no message of a sender is missing between two others of one channel and partition key.
    pub session: Option<SessionId>,
    /// The process that has sent it, if it is known: stock nodes tell it.
    pub sender: Option<Pid>,
    /// The message.
    pub term: Term,
    /// Set if nobody has sent the message: it tells of another process's end. `term` then is what
    /// an Erlang process would get, `{'DOWN', …}` or `{'EXIT', …}`.
    pub notice: Option<Box<Notice>>,
}

impl Message {
    /// What a session has brought; with none, a broadcast.
    pub(crate) fn of_session(from: Arc<str>, session: Option<SessionId>, term: Term) -> Self {
        Self {
            from,
            session,
            sender: None,
            term,
            notice: None,
        }
    }

    pub(crate) fn is_down_of(&self, monitor: &Reference) -> bool {
        matches!(self.notice.as_deref(), Some(Notice::Down { reference, .. }) if reference == monitor)
    }
}

/// Why a name cannot be registered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// A mailbox has the name already.
    #[error("the name {0:?} is registered already")]
    Taken(Arc<str>),
    /// The process has this name already.
    #[error("the process is registered already, as {0:?}")]
    Named(Arc<str>),
    /// The node needs the name for itself, or no atom has room for it.
    #[error("{0:?} cannot be registered: names have 1 to 255 characters, and some are reserved")]
    Name(Arc<str>),
    /// The node has stopped.
    #[error("the node has stopped")]
    NotAlive,
}

/// A mailbox: receives what is sent to its pid and to its name, if it has one.
///
/// It is also a sender: [`Mailbox::send`] keeps the order of the messages that this mailbox
/// sends to one receiver by one channel and partition key. Dropping it frees its name and
/// discards what it holds; to processes that are linked to it or monitor it, it has ended with the reason `normal`.
pub struct Mailbox {
    node: Node,
    slot: Arc<Slot>,
    intake: Intake,
    pid: Pid,
    /// Messages that a selective receive has stepped over.
    passed: VecDeque<Message>,
    /// The task that runs the process tells of its end.
    spawned: bool,
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox")
            .field("name", &*self.slot.name.lock())
            .field("pid", &self.pid)
            .finish()
    }
}

impl Mailbox {
    pub(crate) fn open(inner: &Arc<Inner>, name: Option<Arc<str>>) -> Result<Self, RegisterError> {
        let slot = inner.processes.registry.open(name.as_ref(), false)?;
        inner.processes.happened(Event::Spawned {
            process: slot.process,
            name,
            request: None,
        });
        Ok(Self::of(inner, slot, false))
    }

    /// The mailbox of a process that is known already.
    pub(crate) fn of(inner: &Arc<Inner>, slot: Arc<Slot>, spawned: bool) -> Self {
        let pid = inner.processes.registry.pid(slot.process);
        Self {
            node: Node::of_process(inner, pid.clone()),
            intake: Intake::new(slot.clone()),
            slot,
            pid,
            passed: VecDeque::new(),
            spawned,
        }
    }

    /// Its pid, valid on every node of the cluster.
    pub fn pid(&self) -> &Pid {
        &self.pid
    }

    /// Its name, if it is registered.
    pub fn name(&self) -> Option<Arc<str>> {
        self.slot.name.lock().clone()
    }

    /// Registers a name for this process, which has none yet.
    ///
    /// # Errors
    /// If the name is taken or cannot be used, this process has another, or the node has stopped.
    pub fn register(&self, name: impl Into<Arc<str>>) -> Result<(), RegisterError> {
        let name = name.into();
        let processes = &self.node.inner().processes;
        processes.registry.name(&self.slot, name.clone())?;
        processes.happened(Event::Named {
            process: self.slot.process,
            name: Some(name),
        });
        Ok(())
    }

    /// Gives the name back; true if there was one.
    pub fn unregister(&self) -> bool {
        let processes = &self.node.inner().processes;
        let named = processes.registry.unname(&self.slot).is_some();
        processes.happened(Event::Named {
            process: self.slot.process,
            name: None,
        });
        named
    }

    /// The process that output belongs to, by Erlang's custom: one that a peer has named by
    /// `group_leader/2`, or the node's own, which nobody reads. This crate makes no use of it.
    pub fn group_leader(&self) -> Pid {
        self.slot.group_leader().unwrap_or_else(|| {
            let inner = self.node.inner();
            inner.processes.registry.pid(inner.own_process)
        })
    }

    /// Its node. Messages sent through this handle count as the mailbox's own; those of a clone
    /// of it do not.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Takes out the notice of a monitor that is here already.
    pub(crate) fn discard_down(&mut self, reference: &Reference) {
        if let Some(at) = self.passed.iter().position(|m| m.is_down_of(reference))
            && let Some(message) = self.passed.remove(at)
        {
            self.slot.consumed(cost_of(&message.term));
        }
        self.intake.remove_down(reference);
    }

    pub(crate) fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }

    /// The next message; `None` once the node has stopped and the mailbox is empty, or when an exit
    /// signal has ended this process (see [`Mailbox::killed`]).
    ///
    /// Cancel-safe: a future that is dropped has taken nothing.
    pub async fn recv(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.try_recv() {
                return Some(message);
            }
            if self.intake.is_over() {
                return None;
            }
            self.slot.arrived.notified().await;
        }
    }

    /// The first message that `wanted` says yes to. The others stay, in their order, and go on
    /// counting towards the size of the mailbox: one that is full of unwanted messages waits for
    /// ever, except for notices and for the answers to [`Mailbox::call`](Node::call), for which there is always room.
    ///
    /// Cancel-safe: a future that is dropped has taken nothing. For a timeout wrap it into
    /// `tokio::time::timeout`.
    pub async fn recv_match(&mut self, wanted: impl Fn(&Message) -> bool) -> Option<Message> {
        if self.slot.is_discarded() {
            return None;
        }
        if let Some(at) = self.passed.iter().position(&wanted) {
            return self.take_passed(at);
        }
        loop {
            match self.intake.take_kept() {
                Some(message) if wanted(&message) => {
                    self.slot.consumed(cost_of(&message.term));
                    return Some(message);
                }
                Some(message) => self.passed.push_back(message),
                None if self.intake.is_over() => return None,
                None => self.slot.arrived.notified().await,
            }
        }
    }

    fn take_passed(&mut self, at: usize) -> Option<Message> {
        if self.passed.is_empty() || self.slot.is_discarded() {
            return None;
        }
        let message = self.passed.remove(at)?;
        self.slot.consumed(cost_of(&message.term));
        Some(message)
    }

    /// A message if one is there.
    #[inline]
    pub fn try_recv(&mut self) -> Option<Message> {
        if let Some(message) = self.take_passed(0) {
            return Some(message);
        }
        self.intake.take()
    }

    /// [`Mailbox::recv`] for threads: blocks. Not to be called by an asynchronous task.
    #[inline]
    pub fn recv_blocking(&mut self) -> Option<Message> {
        // What is there already needs no future.
        if let Some(message) = self.try_recv() {
            return Some(message);
        }
        block_on(self.recv())
    }

    /// [`Mailbox::recv_blocking`] for at most `timeout`; `None` also if no message came in time.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Option<Message> {
        block_on_until(self.recv(), Instant::now().checked_add(timeout)).flatten()
    }

    /// Why an exit signal has ended this process; `None` while it lives.
    pub fn killed(&self) -> Option<Term> {
        self.slot.killed()
    }

    /// Ends the process with a reason, which linked and monitoring processes are told.
    pub fn exit(self, reason: Term) {
        let process = self.slot.process;
        let processes = &self.node.inner().processes;
        processes.happened(Event::Ended { process, reason });
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

impl AsRef<Pid> for Mailbox {
    fn as_ref(&self) -> &Pid {
        &self.pid
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        if self.spawned {
            return;
        }
        let processes = &self.node.inner().processes;
        let process = self.slot.process;
        // Nothing if an exit signal has ended it, or it has said why.
        processes.happened(Event::Ended {
            process,
            reason: atom("normal"),
        });
        processes.registry.close(process);
        self.slot.close(true);
    }
}
