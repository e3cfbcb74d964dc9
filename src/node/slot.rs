//! Where messages wait for a process: the inner half of a mailbox.
//!
//! A slot is bounded in bytes. When it is full, whoever brings more keeps it and is told when half of
//! the slot has been taken out. Notices and what was read before a connection ended go in
//! whether there is room or not; their number is bounded by what the process itself has asked for
//! and by what a connection may keep.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::connection::outbox::Outbox;
use crate::node::mailbox::Message;
use crate::signals::Local;
use crate::wire::term::{Pid, Reference, Term};

/// What a message takes beside its bytes, so that the smallest ones are bounded too.
const OVERHEAD: u64 = 64;

/// Who keeps a message until there is room.
#[derive(Clone)]
pub(crate) enum Stalled {
    /// A connection of a Partisan peer.
    Connection(Arc<Outbox>),
    /// The link with a stock node.
    Link(Arc<Notify>),
}

impl Stalled {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Connection(own), Self::Connection(other)) => Arc::ptr_eq(own, other),
            (Self::Link(own), Self::Link(other)) => Arc::ptr_eq(own, other),
            _ => false,
        }
    }

    fn resume(&self) {
        match self {
            Self::Connection(outbox) => outbox.resume(),
            Self::Link(relief) => relief.notify_one(),
        }
    }
}

struct State {
    queue: VecDeque<Message>,
    /// Messages at the front that go before all others.
    urgent: usize,
    /// Bytes queued and admitted.
    bytes: u64,
    closed: bool,
    stalled: Vec<Stalled>,
    /// Why the process was ended by others.
    killed: Option<Term>,
    task: Option<AbortHandle>,
}

impl State {
    fn pop(&mut self) -> Option<Message> {
        self.urgent = self.urgent.saturating_sub(1);
        self.queue.pop_front()
    }
}

/// The end of a mailbox that messages are put into.
pub(crate) struct Slot {
    pub(crate) process: Local,
    pub(crate) name: Mutex<Option<Arc<str>>>,
    group_leader: Mutex<Option<Pid>>,
    capacity: u64,
    state: Mutex<State>,
    pub(crate) arrived: Notify,
    drained: Notify,
}

fn cost(skeleton: usize, blobs: u64) -> u64 {
    skeleton as u64 + blobs + OVERHEAD
}

/// What a message takes.
pub(crate) fn cost_of(term: &Term) -> u64 {
    cost(term.len(), 0)
}

/// Why a mailbox takes no message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    Closed,
}

impl Slot {
    pub(crate) fn new(process: Local, name: Option<Arc<str>>, capacity: u64) -> Self {
        Self {
            process,
            name: Mutex::new(name),
            group_leader: Mutex::new(None),
            capacity: capacity.max(1),
            state: Mutex::new(State {
                queue: VecDeque::new(),
                urgent: 0,
                bytes: 0,
                closed: false,
                stalled: Vec::new(),
                killed: None,
                task: None,
            }),
            arrived: Notify::new(),
            drained: Notify::new(),
        }
    }

    /// Makes room for a message of that size, which must be followed by [`Slot::put`]. If there
    /// is none, `stalled` is told when there is.
    pub(crate) fn admit(
        &self,
        term: usize,
        blobs: u64,
        stalled: Option<Stalled>,
    ) -> Result<(), Refused> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.bytes >= self.capacity {
            if let Some(stalled) = stalled
                && !state.stalled.iter().any(|s| s.is(&stalled))
            {
                state.stalled.push(stalled);
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
            let first = state.queue.is_empty();
            state.queue.push_back(message);
            drop(state);
            self.tell(first);
        }
    }

    /// Whoever receives waits only after it has seen the mailbox empty.
    fn tell(&self, first: bool) {
        if first {
            self.arrived.notify_one();
        }
    }

    /// Puts in a message that room was made for, before all that are not urgent.
    pub(crate) fn put_urgent(&self, message: Message) {
        let mut state = self.state.lock();
        if !state.closed {
            let place = state.urgent;
            let first = state.queue.is_empty();
            state.queue.insert(place, message);
            state.urgent += 1;
            drop(state);
            self.tell(first);
        }
    }

    /// Puts in a message whether there is room or not.
    pub(crate) fn force(&self, message: Message) {
        let mut state = self.state.lock();
        if !state.closed {
            state.bytes += cost_of(&message.term);
            let first = state.queue.is_empty();
            state.queue.push_back(message);
            drop(state);
            self.tell(first);
        }
    }

    /// Gives room back that no message was put into.
    pub(crate) fn give_back(&self, term: usize, blobs: u64) {
        self.leave(self.state.lock(), cost(term, blobs));
    }

    /// Gives back the room of a message that was taken out.
    pub(crate) fn consumed(&self, bytes: u64) {
        self.leave(self.state.lock(), bytes);
    }

    fn leave(&self, mut state: parking_lot::MutexGuard<'_, State>, bytes: u64) {
        let before = state.bytes;
        state.bytes = before.saturating_sub(bytes);
        let half = self.capacity / 2;
        // Also whenever it is empty, since half of a tiny mailbox may be nothing.
        if (before > half && state.bytes <= half) || state.bytes == 0 {
            let stalled = std::mem::take(&mut state.stalled);
            drop(state);
            for stalled in stalled {
                stalled.resume();
            }
            self.drained.notify_waiters();
        }
    }

    /// Takes out a message and gives back its room. `Ok(None)`: empty, but more may come.
    pub(crate) fn take(&self) -> Result<Option<Message>, ()> {
        let mut state = self.state.lock();
        match state.pop() {
            Some(message) => {
                let bytes = cost_of(&message.term);
                self.leave(state, bytes);
                Ok(Some(message))
            }
            None if state.closed => Err(()),
            None => Ok(None),
        }
    }

    /// Takes out a message whose room is given back by [`Slot::consumed`].
    pub(crate) fn take_kept(&self) -> Result<Option<Message>, ()> {
        let mut state = self.state.lock();
        match state.pop() {
            Some(message) => Ok(Some(message)),
            None if state.closed => Err(()),
            None => Ok(None),
        }
    }

    /// Takes out the notice of a monitor, if it is there.
    pub(crate) fn flush(&self, reference: &Reference) {
        let mut state = self.state.lock();
        let found = state.queue.iter().position(|m| m.is_down_of(reference));
        if found.is_some_and(|at| at < state.urgent) {
            state.urgent -= 1;
        }
        if let Some(message) = found.and_then(|at| state.queue.remove(at)) {
            self.leave(state, cost_of(&message.term));
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

    pub(crate) fn group_leader(&self) -> Option<Pid> {
        self.group_leader.lock().clone()
    }

    pub(crate) fn set_group_leader(&self, leader: Pid) {
        *self.group_leader.lock() = Some(leader);
    }

    /// The task that is the process; it is aborted when others end the process.
    pub(crate) fn set_task(&self, task: AbortHandle) {
        let mut state = self.state.lock();
        if state.killed.is_some() {
            drop(state);
            task.abort();
        } else {
            state.task = Some(task);
        }
    }

    /// Others end the process: nothing goes in or comes out any more.
    pub(crate) fn kill(&self, reason: Term) {
        let task = {
            let mut state = self.state.lock();
            state.killed = Some(reason);
            state.task.take()
        };
        self.close(true);
        if let Some(task) = task {
            task.abort();
        }
    }

    /// Why others have ended the process.
    pub(crate) fn killed(&self) -> Option<Term> {
        self.state.lock().killed.clone()
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
        for stalled in stalled {
            stalled.resume();
        }
        self.arrived.notify_one();
        self.drained.notify_waiters();
    }
}
