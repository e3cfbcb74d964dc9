//! Two queues under one ceiling, against a model of plain `VecDeque`s.
//!
//! The model knows what each sender pushed, who waits, and who must be granted when.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use proptest::prelude::*;

use super::super::{Admission, Batch, Cancelled, Ceiling, Queue, Ticket};
use super::{BUDGET, Received, Receiver, body, config, contents, frame};

const MAX_SIZE: usize = 9_000;
const CEILING: u64 = 30_000;
/// More than the budget has room for messages of.
const SENDERS: u64 = 60;
/// Those that send most of them, so that they also have several queued.
const BUSY: u64 = 5;
/// What fresh senders may use.
const FRESH: u64 = BUDGET - BUDGET / 8;

#[derive(Debug, Clone, Copy)]
enum How {
    Frame,
    Message,
    Latest(u64),
}

#[derive(Debug, Clone)]
enum Op {
    Send {
        sender: u64,
        how: How,
        size: usize,
        waits: bool,
    },
    Urgent,
    Take(usize),
    Write(usize),
    Cancel(usize),
    Redeem(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let how = prop_oneof![3 => Just(How::Frame), 2 => Just(How::Message), 1 => (0..3u64).prop_map(How::Latest)];
    let size = prop_oneof![4 => 16..200usize, 2 => 500..3_000usize, 2 => 3_000..MAX_SIZE];
    let sender = prop_oneof![3 => 0..BUSY, 1 => 0..SENDERS];
    prop_oneof![
        10 => (sender, how, size, prop::bool::weighted(0.8))
            .prop_map(|(sender, how, size, waits)| Op::Send { sender, how, size, waits }),
        1 => Just(Op::Urgent),
        4 => (0..10_000usize).prop_map(Op::Take),
        5 => (0..12_000usize).prop_map(Op::Write),
        2 => any::<usize>().prop_map(Op::Cancel),
        4 => any::<usize>().prop_map(Op::Redeem),
    ]
}

#[derive(Clone, Copy)]
struct Wish {
    sender: u64,
    how: How,
    size: usize,
}

impl Wish {
    /// Bytes that it will add to the account.
    fn bytes(&self) -> u64 {
        self.size.max(16) as u64
            + if matches!(self.how, How::Message) {
                0
            } else {
                5
            }
    }
}

/// One connection and what the model knows of it.
struct Side {
    queue: Queue<u64>,
    batch: Batch,
    receiver: Receiver,
    unwritten: Vec<u8>,
    lanes: BTreeMap<u64, VecDeque<(u64, Option<u64>)>>,
    wishes: HashMap<u64, (Ticket, Wish)>,
    fresh: VecDeque<u64>,
    backlogged: VecDeque<u64>,
    granted: Vec<u64>,
    queued: u64,
    reserved: u64,
    /// Bytes of whole frames in lanes, and in flight when the batch was last filled.
    small: u64,
    flying: u64,
    urgent: usize,
}

impl Side {
    fn new() -> Self {
        Self {
            queue: Queue::new(config()),
            batch: Batch::new(),
            receiver: Receiver::default(),
            unwritten: Vec::new(),
            lanes: BTreeMap::new(),
            wishes: HashMap::new(),
            fresh: VecDeque::new(),
            backlogged: VecDeque::new(),
            granted: Vec::new(),
            queued: 0,
            reserved: 0,
            small: 0,
            flying: 0,
            urgent: 0,
        }
    }

    fn is_fresh(&self, sender: u64) -> bool {
        self.lanes.get(&sender).is_none_or(VecDeque::is_empty)
    }

    fn admits(&self, sender: u64, frame: Option<u64>, open: bool) -> bool {
        let load = self.queued + self.reserved;
        let nobody = self.fresh.is_empty() && self.backlogged.is_empty();
        let small = frame.is_some_and(|bytes| self.small + self.flying + bytes <= BUDGET / 8);
        open && match self.is_fresh(sender) {
            true => load < FRESH && self.fresh.is_empty() || small,
            false => load < BUDGET / 2 && nobody,
        }
    }

    /// The waiters that must be granted now.
    fn grants(&mut self, mut used: u64) -> Vec<u64> {
        while let Some(&id) = self.backlogged.front()
            && self.is_fresh(self.wishes[&id].1.sender)
        {
            self.fresh.extend(self.backlogged.pop_front());
        }
        let mut load = self.queued + self.reserved;
        let before = load;
        let mut granted = Vec::new();
        let serve = |list: &mut VecDeque<u64>, share: u64, load: &mut u64, used: &mut u64| {
            let mut served = Vec::new();
            while *load < share && *used < CEILING && before <= share / 2 {
                let Some(id) = list.pop_front() else { break };
                *load += self.wishes[&id].1.bytes();
                *used += self.wishes[&id].1.bytes();
                served.push(id);
            }
            served
        };
        granted.extend(serve(&mut self.fresh, FRESH, &mut load, &mut used));
        if self.fresh.is_empty() {
            granted.extend(serve(
                &mut self.backlogged,
                BUDGET / 2,
                &mut load,
                &mut used,
            ));
        }
        self.reserved += load - before;
        self.granted.extend(&granted);
        granted
    }
}

struct World {
    sides: [Side; 2],
    ceiling: Ceiling,
    number: u64,
}

impl World {
    fn new() -> Self {
        Self {
            sides: [Side::new(), Side::new()],
            ceiling: Ceiling::new(CEILING),
            number: 0,
        }
    }

    fn grant(&mut self, side: usize) {
        let side = &mut self.sides[side];
        let used = self.ceiling.used();
        let mut out = Vec::new();
        let reserved = side.queue.grant(&self.ceiling, &mut out);
        let before = side.reserved;
        let expected = side.grants(used);
        assert_eq!(
            out.iter().map(|&(_, id)| id).collect::<Vec<_>>(),
            expected,
            "grant order"
        );
        assert!(out.iter().all(|(ticket, id)| side.wishes[id].0 == *ticket));
        assert_eq!(side.reserved - before, reserved);
    }

    fn release(&mut self, bytes: u64) {
        if self.ceiling.sub(bytes) {
            self.sweep();
        }
    }

    fn sweep(&mut self) {
        for side in 0..self.sides.len() {
            if self.sides[side].queue.has_waiters() {
                self.grant(side);
            }
        }
    }

    /// Returns the bytes added, less those replaced.
    fn push(&mut self, side: usize, wish: Wish) -> (u64, u64) {
        let side = &mut self.sides[side];
        let number = self.number;
        self.number += 1;
        let body = body(wish.sender, number, wish.size);
        let lane = side.lanes.entry(wish.sender).or_default();
        let mut entry = (number, None);
        let change = match wish.how {
            How::Frame => {
                let frame = frame(1, &body);
                (
                    side.queue
                        .push_frame(wish.sender, |buffer| buffer.extend_from_slice(&frame))
                        as u64,
                    0,
                )
            }
            How::Message => {
                let body = Bytes::from(body);
                let (a, b) = (wish.size / 3, wish.size / 2);
                let parts = vec![
                    body.slice(..a),
                    Bytes::new(),
                    body.slice(a..b),
                    body.slice(b..),
                ];
                (side.queue.push_message(wish.sender, parts), 0)
            }
            How::Latest(key) => {
                entry.1 = Some(key);
                let (added, removed) = side.queue.push_latest(wish.sender, key, frame(1, &body));
                (added as u64, removed as u64)
            }
        };
        assert_eq!(change.0, wish.bytes());
        let old = lane
            .iter_mut()
            .find(|old| entry.1.is_some() && old.1 == entry.1);
        assert_eq!(
            old.is_some(),
            change.1 > 0,
            "replaces exactly what is queued"
        );
        match old {
            Some(old) => *old = entry,
            None => lane.push_back(entry),
        }
        side.queued = side.queued + change.0 - change.1;
        if !matches!(wish.how, How::Message) {
            side.small = side.small + change.0 - change.1;
        }
        change
    }

    fn take(&mut self, side: usize, max: usize) {
        let side = &mut self.sides[side];
        let was_empty = side.queue.is_empty();
        let before = side.batch.len();
        side.queue.take(max, &mut side.batch);
        let all = contents(&side.batch);
        assert_eq!(all.len(), side.batch.len());
        assert_eq!(
            was_empty,
            all.len() == before,
            "takes at least one item if there is one"
        );
        side.unwritten.extend_from_slice(&all[before..]);
        for received in side.receiver.read(&all[before..]) {
            match received {
                Received::Urgent => side.urgent -= 1,
                Received::Message { body: got, cut } => {
                    if !cut {
                        side.small -= got.len() as u64 + 5;
                    }
                    let sender = u64::from_be_bytes(got[..8].try_into().unwrap());
                    let (number, _) = side.lanes.get_mut(&sender).unwrap().pop_front().unwrap();
                    assert_eq!(
                        got,
                        body(sender, number, got.len()),
                        "order within a sender"
                    );
                }
            }
        }
        side.flying = side.batch.frames_left() as u64;
        assert_eq!(side.urgent, 0, "control frames overtake everything");
        assert!(side.receiver.open.len() <= 2);
        assert!(side.receiver.largest <= 4_000);
    }

    fn write(&mut self, side: usize, bytes: usize) {
        let this = &mut self.sides[side];
        let bytes = bytes.min(this.batch.len());
        assert_eq!(contents(&this.batch)[..bytes], this.unwritten[..bytes]);
        this.unwritten.drain(..bytes);
        let counted = this.batch.advance(bytes);
        this.queued -= counted;
        let left = this.queue.written(counted);
        assert_eq!(left, counted);
        self.grant(side);
        self.release(left);
    }

    fn redeem(&mut self, side: usize, index: usize) {
        let this = &mut self.sides[side];
        if this.granted.is_empty() {
            return;
        }
        let id = this.granted.remove(index % this.granted.len());
        let (ticket, wish) = this.wishes.remove(&id).unwrap();
        let bytes = this.queue.redeem(ticket).expect("granted");
        assert_eq!(bytes, wish.bytes());
        assert_eq!(this.queue.redeem(ticket), None, "a grant is used once");
        this.reserved -= bytes;
        let (added, removed) = self.push(side, wish);
        self.grant(side);
        if self.ceiling.settle(bytes, added - removed.min(added)) {
            self.sweep();
        }
        if removed > added {
            self.release(removed - added);
        }
    }

    fn cancel(&mut self, side: usize, index: usize) {
        let this = &mut self.sides[side];
        let mut ids: Vec<_> = this.wishes.keys().copied().collect();
        ids.sort_unstable();
        if ids.is_empty() {
            return;
        }
        let id = ids[index % ids.len()];
        let (ticket, wish) = this.wishes.remove(&id).unwrap();
        let granted = this.granted.contains(&id);
        let cancelled = this.queue.cancel(ticket).expect("known");
        let released = if granted { wish.bytes() } else { 0 };
        assert_eq!(
            cancelled,
            Cancelled {
                waiter: (!granted).then_some(id),
                released
            }
        );
        assert_eq!(
            this.queue.cancel(ticket),
            None,
            "a ticket is cancelled once"
        );
        assert_eq!(
            this.queue.redeem(ticket),
            None,
            "what is cancelled can't be used"
        );
        this.fresh.retain(|&other| other != id);
        this.backlogged.retain(|&other| other != id);
        this.granted.retain(|&other| other != id);
        this.reserved -= released;
        self.grant(side);
        self.release(released);
    }

    fn send(&mut self, side: usize, wish: Wish, waits: bool) {
        let open = self.ceiling.has_room();
        let this = &mut self.sides[side];
        let frame = (!matches!(wish.how, How::Message)).then(|| wish.bytes());
        let admission = this.queue.admit(wish.sender, frame, open);
        let admitted = this.admits(wish.sender, frame, open);
        assert_eq!(
            admission,
            if admitted {
                Admission::Admitted
            } else {
                Admission::Wait
            }
        );
        if admitted {
            let (added, removed) = self.push(side, wish);
            self.ceiling.add(added);
            self.grant(side);
            self.release(removed);
        } else if waits {
            let id = self.number;
            self.number += 1;
            let ticket = this
                .queue
                .wait(wish.sender, wish.bytes(), id)
                .expect("open");
            assert_eq!(this.queue.redeem(ticket), None, "not granted yet");
            if this.is_fresh(wish.sender) {
                this.fresh.push_back(id);
            } else {
                this.backlogged.push_back(id);
            }
            this.wishes.insert(id, (ticket, wish));
            self.grant(side);
        }
    }

    fn apply(&mut self, side: usize, op: Op) {
        match op {
            Op::Send {
                sender,
                how,
                size,
                waits,
            } => self.send(side, Wish { sender, how, size }, waits),
            Op::Urgent => {
                let accepted = self.sides[side].queue.push_urgent(&frame(4, &[0; 8]));
                self.sides[side].urgent += usize::from(accepted);
            }
            Op::Take(max) => self.take(side, max),
            Op::Write(bytes) => self.write(side, bytes),
            Op::Cancel(index) => self.cancel(side, index),
            Op::Redeem(index) => self.redeem(side, index),
        }
        self.check();
    }

    fn check(&self) {
        let mut used = 0;
        for side in &self.sides {
            let load = side.queue.queued() + side.queue.reserved();
            assert_eq!(
                (side.queue.queued(), side.queue.reserved()),
                (side.queued, side.reserved)
            );
            assert!(load <= BUDGET + MAX_SIZE as u64 + 5, "bound");
            let waiting = side.fresh.len() + side.backlogged.len();
            assert_eq!(side.queue.has_waiters(), waiting > 0);
            let forgotten = waiting > 0 && load == 0 && self.ceiling.has_room();
            assert!(!forgotten, "{waiting} wait for nothing");
            used += load;
        }
        assert_eq!(self.ceiling.used(), used);
        assert!(used <= CEILING + MAX_SIZE as u64 + 5, "ceiling");
    }

    /// Serves everybody to the end.
    fn drain(&mut self) {
        let busy = |side: &Side| {
            !side.wishes.is_empty() || !side.queue.is_empty() || side.queue.queued() > 0
        };
        while self.sides.iter().any(busy) {
            for side in 0..self.sides.len() {
                self.redeem(side, 0);
                self.take(side, 5_000);
                self.write(side, usize::MAX);
                self.check();
            }
        }
        assert_eq!(self.ceiling.used(), 0);
        assert!(
            self.sides
                .iter()
                .all(|side| side.lanes.values().all(VecDeque::is_empty))
        );
    }

    fn close(&mut self) {
        for index in 0..self.sides.len() {
            let side = &mut self.sides[index];
            let closed = side.queue.close();
            side.fresh.append(&mut side.backlogged);
            assert_eq!(closed.waiters, Vec::from(std::mem::take(&mut side.fresh)));
            assert_eq!(closed.released, side.queued + side.reserved);
            for (ticket, _) in std::mem::take(&mut side.wishes).into_values() {
                assert_eq!(side.queue.redeem(ticket), None);
                assert_eq!(side.queue.cancel(ticket), None);
            }
            (side.queued, side.reserved) = (0, 0);
            let counted = side.batch.advance(side.batch.len());
            assert_eq!(side.queue.written(counted), 0, "left the account already");
            assert_eq!(side.queue.admit(1, Some(1), true), Admission::Closed);
            assert_eq!(side.queue.push_frame(1, |buffer| buffer.push(0)), 0);
            assert_eq!(side.queue.wait(1, 1, 9), Err(9));
            assert!(side.queue.is_closed() && side.queue.is_empty());
            self.release(closed.released);
        }
        assert_eq!(self.ceiling.used(), 0);
    }
}

proptest! {
    #[test]
    fn behaves_as_the_model(ops in prop::collection::vec((0..2usize, op()), 1..250), drains: bool) {
        let mut world = World::new();
        for (side, op) in ops {
            world.apply(side, op);
        }
        if drains {
            world.drain();
        }
        world.close();
    }
}
