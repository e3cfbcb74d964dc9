//! Who may add to a queue, and in which order the others wait.

use super::ceiling::Ceiling;

/// Answer to a sender that wants to push.
///
/// With a budget B, of which R = B/8 is kept for small messages, and `load` the bytes queued, in flight and reserved:
///
/// | sender | is admitted while | waiters are served when the load is at most | and while it is under |
/// |---|---|---|---|
/// | fresh: has nothing in the queue | load < B − R, no fresh sender waits | half of B − R | B − R |
/// | backlogged: has something | load < B/2, nobody waits | B/4, no fresh sender waits | B/2 |
///
/// and while the node's ceiling has room. A fresh sender's small message, which travels as a whole frame, is also admitted
/// while all whole frames queued and in flight, itself included, have at most R: else it would wait until megabytes of others
/// are written before it could even begin to overtake them. So the load never exceeds B by more than one message, and
/// who floods a connection leaves half of it to others. Serving begins at half of what may be used so
/// that waiters are woken by the batch, not one per write.
///
/// Within a class waiters are served in the order in which they came. A backlogged waiter at the head
/// of its class whose sender has nothing in the queue any more becomes the last of the fresh ones: else a steady
/// stream of fresh senders could keep it out for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Push now, before unlocking.
    Admitted,
    /// [`wait`](super::Queue::wait), or report busy.
    Wait,
    /// The connection has ended.
    Closed,
}

/// Names one wait, for ever: numbers are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    slot: u32,
    serial: u64,
}

/// What a cancelled ticket had.
#[derive(Debug, PartialEq, Eq)]
pub struct Cancelled<W> {
    /// The waiter, if it was still waiting.
    pub waiter: Option<W>,
    /// Bytes that were reserved for it, if it had been granted.
    pub released: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Fresh,
    Backlogged,
}

impl Class {
    /// The part of the budget that the class may use.
    fn share(self, budget: u64) -> u64 {
        match self {
            Class::Fresh => budget - kept_for_small(budget),
            Class::Backlogged => budget / 2,
        }
    }
}

/// The part of the budget that only small messages of fresh senders may use.
pub(super) fn kept_for_small(budget: u64) -> u64 {
    budget / 8
}

const NONE: u32 = u32::MAX;

/// A doubly linked list through the slots, so that any waiter can leave in O(1).
#[derive(Debug, Clone, Copy)]
struct List {
    head: u32,
    tail: u32,
}

#[derive(Debug)]
struct Slot<W> {
    serial: u64,
    state: State<W>,
}

#[derive(Debug)]
enum State<W> {
    Free {
        next: u32,
    },
    Waiting {
        waiter: W,
        sender: u64,
        bytes: u64,
        class: Class,
        before: u32,
        after: u32,
    },
    Granted {
        bytes: u64,
    },
}

/// Slots that stay allocated while nobody waits.
const IDLE_SLOTS: usize = 256;

/// Everyone who waits or holds a grant.
#[derive(Debug)]
pub(super) struct Waiters<W> {
    slots: Vec<Slot<W>>,
    free: u32,
    used: usize,
    waiting: usize,
    serial: u64,
    fresh: List,
    backlogged: List,
    reserved: u64,
}

impl<W> Waiters<W> {
    pub(super) fn new() -> Self {
        let empty = List {
            head: NONE,
            tail: NONE,
        };
        Self {
            slots: Vec::new(),
            free: NONE,
            used: 0,
            waiting: 0,
            serial: 0,
            fresh: empty,
            backlogged: empty,
            reserved: 0,
        }
    }

    /// Bytes of grants that have neither been used nor given back.
    pub(super) fn reserved(&self) -> u64 {
        self.reserved
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.waiting > 0
    }

    #[inline]
    pub(super) fn admits(&self, class: Class, budget: u64, load: u64) -> bool {
        let waits = match class {
            Class::Fresh => self.fresh.head != NONE,
            Class::Backlogged => self.waiting > 0,
        };
        !waits && load < class.share(budget)
    }

    pub(super) fn wait(&mut self, class: Class, sender: u64, bytes: u64, waiter: W) -> Ticket {
        self.serial += 1;
        let state = State::Waiting {
            waiter,
            sender,
            bytes,
            class,
            before: NONE,
            after: NONE,
        };
        let entry = Slot {
            serial: self.serial,
            state,
        };
        let slot = match self.slots.get_mut(self.free as usize) {
            Some(free) => {
                let slot = self.free;
                if let State::Free { next } = free.state {
                    self.free = next;
                }
                *free = entry;
                slot
            }
            None => {
                self.slots.push(entry);
                (self.slots.len() - 1) as u32
            }
        };
        self.used += 1;
        self.waiting += 1;
        self.link(class, slot);
        Ticket {
            slot,
            serial: self.serial,
        }
    }

    pub(super) fn cancel(&mut self, ticket: Ticket) -> Option<Cancelled<W>> {
        self.find(ticket)?;
        self.unlink(ticket.slot);
        match self.vacate(ticket.slot) {
            State::Waiting { waiter, .. } => {
                self.waiting -= 1;
                Some(Cancelled {
                    waiter: Some(waiter),
                    released: 0,
                })
            }
            State::Granted { bytes } => {
                self.reserved -= bytes;
                Some(Cancelled {
                    waiter: None,
                    released: bytes,
                })
            }
            State::Free { .. } => None,
        }
    }

    pub(super) fn redeem(&mut self, ticket: Ticket) -> Option<u64> {
        let State::Granted { bytes } = self.find(ticket)?.state else {
            return None;
        };
        self.reserved -= bytes;
        self.vacate(ticket.slot);
        Some(bytes)
    }

    /// See [`Queue::grant`](super::Queue::grant); `is_fresh` tells whether a sender has nothing queued.
    pub(super) fn grant(
        &mut self,
        budget: u64,
        queued: u64,
        ceiling: &Ceiling,
        is_fresh: impl Fn(u64) -> bool,
        out: &mut Vec<(Ticket, W)>,
    ) -> u64 {
        let reserved = self.reserved;
        self.promote(is_fresh);
        let before = queued + reserved;
        for class in [Class::Fresh, Class::Backlogged] {
            let share = class.share(budget);
            if before > share / 2 || !self.grant_class(class, share, queued, ceiling, out) {
                break;
            }
        }
        self.reserved - reserved
    }

    /// Serves one class; true if nobody of it is left.
    fn grant_class(
        &mut self,
        class: Class,
        share: u64,
        queued: u64,
        ceiling: &Ceiling,
        out: &mut Vec<(Ticket, W)>,
    ) -> bool {
        loop {
            let slot = self.list(class).head;
            let Some(Slot {
                serial,
                state: State::Waiting { bytes, .. },
            }) = self.slots.get(slot as usize)
            else {
                return true;
            };
            let (serial, bytes) = (*serial, *bytes);
            let load = queued + self.reserved;
            // A budget so small that its half is nothing still lets one message through.
            if (load > 0 && load >= share) || !ceiling.try_add_or_mark(bytes) {
                return false;
            }
            self.unlink(slot);
            self.reserved += bytes;
            self.waiting -= 1;
            let granted = State::Granted { bytes };
            if let State::Waiting { waiter, .. } =
                std::mem::replace(&mut self.slots[slot as usize].state, granted)
            {
                out.push((Ticket { slot, serial }, waiter));
            }
        }
    }

    /// Moves backlogged waiters whose senders have drained to the end of the fresh ones.
    fn promote(&mut self, is_fresh: impl Fn(u64) -> bool) {
        loop {
            let slot = self.backlogged.head;
            match self.slots.get(slot as usize) {
                Some(Slot {
                    state: State::Waiting { sender, .. },
                    ..
                }) if is_fresh(*sender) => {
                    self.unlink(slot);
                    self.link(Class::Fresh, slot);
                }
                _ => return,
            }
        }
    }

    /// Ends all waits and grants. Returns the waiters, first come first, fresh before backlogged.
    pub(super) fn close(&mut self) -> Vec<W> {
        let mut waiters = Vec::with_capacity(self.waiting);
        for class in [Class::Fresh, Class::Backlogged] {
            loop {
                let slot = self.list(class).head;
                if slot == NONE {
                    break;
                }
                self.unlink(slot);
                if let State::Waiting { waiter, .. } = self.vacate(slot) {
                    waiters.push(waiter);
                }
            }
        }
        // Numbers go on, so that a ticket of before means nothing now.
        *self = Self {
            serial: self.serial,
            ..Self::new()
        };
        waiters
    }

    fn find(&self, ticket: Ticket) -> Option<&Slot<W>> {
        let slot = self.slots.get(ticket.slot as usize)?;
        let live = slot.serial == ticket.serial && !matches!(slot.state, State::Free { .. });
        live.then_some(slot)
    }

    fn vacate(&mut self, slot: u32) -> State<W> {
        let state = std::mem::replace(
            &mut self.slots[slot as usize].state,
            State::Free { next: self.free },
        );
        self.free = slot;
        self.used -= 1;
        if self.used == 0 && self.slots.len() > IDLE_SLOTS {
            self.slots = Vec::new();
            self.free = NONE;
        }
        state
    }

    fn list(&mut self, class: Class) -> &mut List {
        match class {
            Class::Fresh => &mut self.fresh,
            Class::Backlogged => &mut self.backlogged,
        }
    }

    /// Appends a waiting slot to the list of `class`.
    fn link(&mut self, new: Class, slot: u32) {
        let tail = std::mem::replace(&mut self.list(new).tail, slot);
        if let State::Waiting {
            class,
            before,
            after,
            ..
        } = &mut self.slots[slot as usize].state
        {
            (*class, *before, *after) = (new, tail, NONE);
        }
        self.set_after(new, tail, slot);
    }

    /// Takes a slot out of its list, if it is in one.
    fn unlink(&mut self, slot: u32) {
        let State::Waiting {
            class,
            before,
            after,
            ..
        } = self.slots[slot as usize].state
        else {
            return;
        };
        self.set_after(class, before, after);
        self.set_before(class, after, before);
    }

    fn set_after(&mut self, list: Class, slot: u32, value: u32) {
        match self.slots.get_mut(slot as usize) {
            Some(Slot {
                state: State::Waiting { after, .. },
                ..
            }) => *after = value,
            _ => self.list(list).head = value,
        }
    }

    fn set_before(&mut self, list: Class, slot: u32, value: u32) {
        match self.slots.get_mut(slot as usize) {
            Some(Slot {
                state: State::Waiting { before, .. },
                ..
            }) => *before = value,
            _ => self.list(list).tail = value,
        }
    }
}
