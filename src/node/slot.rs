//! Where messages wait for a process: the inner half of a mailbox.
//!
//! Whoever brings messages puts them in, several at a time if it has them; the process takes out all that
//! there is and receives it message by message ([`Intake`]), so that neither of them comes by
//! the lock for each message.
//!
//! A slot is bounded in bytes. When it is full, whoever brings more keeps it and is told when half of
//! the slot has been taken out. Notices and what was read before a connection ended go in
//! whether there is room or not; their number is bounded by what the process itself has asked for
//! and by what a connection may keep.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::connection::outbox::Outbox;
use crate::node::mailbox::Message;
use crate::node::waiting::{Run, Waiting};
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
    waiting: Waiting,
    /// Bytes admitted, queued, and taken out but not yet received.
    bytes: u64,
    closed: bool,
    stalled: Vec<Stalled>,
    /// Why the process was ended by others.
    killed: Option<Term>,
    task: Option<AbortHandle>,
}

/// The end of a mailbox that messages are put into.
pub(crate) struct Slot {
    pub(crate) process: Local,
    pub(crate) name: Mutex<Option<Arc<str>>>,
    group_leader: Mutex<Option<Pid>>,
    capacity: u64,
    state: Mutex<State>,
    /// Messages that go before all others are waiting.
    urgent: AtomicBool,
    /// What waits is not to be received any more.
    discarded: AtomicBool,
    pub(crate) arrived: Notify,
    drained: Notify,
}

/// What a message of so many bytes takes.
pub(crate) fn cost(skeleton: usize, blobs: u64) -> u64 {
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
                waiting: Waiting::default(),
                bytes: 0,
                closed: false,
                stalled: Vec::new(),
                killed: None,
                task: None,
            }),
            urgent: AtomicBool::new(false),
            discarded: AtomicBool::new(false),
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
        let bytes = cost(term, blobs);
        self.reserve(bytes, bytes, || stalled).map(|_| ())
    }

    /// Makes room for messages to come: for the first one in any case, for `most` bytes if there is
    /// so much. Tells how many; [`Slot::put_run`] has to follow. If there is no room, `stalled` is told when there is.
    pub(crate) fn reserve(
        &self,
        first: u64,
        most: u64,
        stalled: impl FnOnce() -> Option<Stalled>,
    ) -> Result<u64, Refused> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.bytes >= self.capacity {
            if let Some(stalled) = stalled()
                && !state.stalled.iter().any(|s| s.is(&stalled))
            {
                state.stalled.push(stalled);
            }
            return Err(Refused::Full);
        }
        let reserved = first.max(most.min(self.capacity - state.bytes));
        state.bytes += reserved;
        Ok(reserved)
    }

    /// Puts in a message that room was made for.
    pub(crate) fn put(&self, message: Message) {
        self.insert(self.state.lock(), 0, |waiting| waiting.push(message));
    }

    /// Puts in messages that room was made for, and gives back the rest of it. False if nobody will get them.
    pub(crate) fn put_run(&self, run: Run, rest: u64) -> bool {
        self.insert(self.state.lock(), rest, |waiting| waiting.push_run(run))
    }

    /// Puts in a message that room was made for, before all that are not urgent.
    pub(crate) fn put_urgent(&self, message: Message) {
        self.insert(self.state.lock(), 0, |waiting| {
            waiting.push_urgent(message);
            self.urgent.store(true, Ordering::Relaxed);
        });
    }

    /// Puts in a message whether there is room or not.
    pub(crate) fn force(&self, message: Message) {
        let mut state = self.state.lock();
        state.bytes += cost_of(&message.term);
        self.insert(state, 0, |waiting| waiting.push(message));
    }

    /// Gives back the `rest` of the room that was made. False if nobody will get what is put in.
    fn insert(
        &self,
        mut state: MutexGuard<'_, State>,
        rest: u64,
        put: impl FnOnce(&mut Waiting),
    ) -> bool {
        if state.closed {
            return false;
        }
        let first = state.waiting.is_empty();
        put(&mut state.waiting);
        self.leave(state, rest);
        // Whoever receives waits only after it has seen the mailbox empty.
        if first {
            self.arrived.notify_one();
        }
        true
    }

    /// Gives room back that no message was put into.
    pub(crate) fn give_back(&self, term: usize, blobs: u64) {
        self.leave(self.state.lock(), cost(term, blobs));
    }

    /// Gives back the room of a message that was taken out.
    pub(crate) fn consumed(&self, bytes: u64) {
        self.leave(self.state.lock(), bytes);
    }

    fn leave(&self, mut state: MutexGuard<'_, State>, bytes: u64) {
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

    /// Takes out everything, into what is empty, after `spent` bytes of what was taken out before have been
    /// received. False if it is empty for good.
    fn take_all(&self, spent: u64, into: &mut Waiting) -> bool {
        let mut state = self.state.lock();
        let ended = state.closed && state.waiting.is_empty();
        std::mem::swap(&mut state.waiting, into);
        self.urgent.store(false, Ordering::Relaxed);
        if spent > 0 {
            self.leave(state, spent);
        }
        !ended
    }

    fn take_urgent(&self) -> Option<Message> {
        let mut state = self.state.lock();
        let message = state.waiting.is_urgent().then(|| state.waiting.pop());
        self.urgent
            .store(state.waiting.is_urgent(), Ordering::Relaxed);
        message.flatten()
    }

    /// Takes out the notice of a monitor, if it is there.
    fn remove_down(&self, reference: &Reference) {
        let mut state = self.state.lock();
        if let Some(message) = state.waiting.remove_down(reference) {
            self.leave(state, cost_of(&message.term));
        }
    }

    /// True if nothing is to come out any more.
    pub(crate) fn is_discarded(&self) -> bool {
        self.discarded.load(Ordering::Acquire)
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
        let mut waiting = Waiting::default();
        if discard {
            std::mem::swap(&mut state.waiting, &mut waiting);
            self.discarded.store(true, Ordering::Release);
        }
        drop(state);
        drop(waiting);
        // What the connections keep now finds nobody.
        for stalled in stalled {
            stalled.resume();
        }
        self.arrived.notify_one();
        self.drained.notify_waiters();
    }
}

/// The end of a mailbox that messages come out of: what was taken out of the slot and is yet to be
/// received. It goes on counting as the slot's.
pub(crate) struct Intake {
    slot: Arc<Slot>,
    taken: Waiting,
    /// Bytes that have been received and are still counted.
    spent: u64,
    over: bool,
}

/// Part of a mailbox's size that may have been received without the senders' being told.
const SPENT_PART: u64 = 16;

// The fast path is inlined into whoever receives: a message is large, and to move as a whole what was just
// written in parts stalls CPUs.
impl Intake {
    /// Nobody else may take from the slot.
    pub(crate) fn new(slot: Arc<Slot>) -> Self {
        Self {
            slot,
            taken: Waiting::default(),
            spent: 0,
            over: false,
        }
    }

    /// True if nothing will come any more, once [`Intake::take`] has found nothing.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// Takes out a message and gives back its room.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<Message> {
        let message = self.take_kept()?;
        self.spent += cost_of(&message.term);
        if self.taken.is_empty() || self.spent >= self.slot.capacity / SPENT_PART {
            self.slot.consumed(std::mem::take(&mut self.spent));
        }
        Some(message)
    }

    /// Takes out a message whose room is given back by [`Slot::consumed`].
    #[inline]
    pub(crate) fn take_kept(&mut self) -> Option<Message> {
        if !self.is_ready() {
            return None;
        }
        self.taken.pop()
    }

    /// Whether there is a message, which is then among those that were taken out.
    #[inline]
    fn is_ready(&mut self) -> bool {
        let quiet = !self.slot.urgent.load(Ordering::Relaxed) && !self.slot.is_discarded();
        quiet && !self.taken.is_empty() || self.look()
    }

    #[inline(never)]
    fn look(&mut self) -> bool {
        if self.slot.is_discarded() {
            self.over = true;
            self.taken = Waiting::default();
            return false;
        }
        if self.taken.is_empty() {
            let spent = std::mem::take(&mut self.spent);
            self.over = !self.slot.take_all(spent, &mut self.taken);
        } else if !self.taken.is_urgent()
            && let Some(message) = self.slot.take_urgent()
        {
            self.taken.push_urgent(message);
        }
        !self.taken.is_empty()
    }

    /// Takes out the notice of a monitor, if it is there.
    pub(crate) fn remove_down(&mut self, reference: &Reference) {
        match self.taken.remove_down(reference) {
            Some(message) => self.slot.consumed(cost_of(&message.term)),
            None => self.slot.remove_down(reference),
        }
    }
}

#[cfg(test)]
#[path = "slot_tests.rs"]
mod tests;
