//! What waits to be sent to one stock node, fair among senders. Sans-I/O.
//!
//! Each sender has a lane, in which its signals stay in order. Lanes take turns: in one turn a
//! lane sends small signals up to a quantum, or one fragment of a large one. So a small signal
//! waits for at most one fragment of every other sender, although there is one connection.

use std::collections::{HashMap, VecDeque};

use crate::limits::FRAGMENT_SHARED_BYTES;

/// Lanes that an idle table keeps room for.
const IDLE_LANES: usize = 1024;

/// Something that is sent whole or begins to be sent in fragments.
#[derive(Debug)]
enum Head<S, F> {
    Whole {
        signal: S,
        bytes: usize,
    },
    /// The rest of a signal that is being sent in fragments.
    Rest(F),
}

/// The signals of all senders; `S` is a signal, `F` the rest of one that is cut into fragments.
#[derive(Debug)]
pub(crate) struct Lanes<S, F> {
    lanes: HashMap<u64, VecDeque<Head<S, F>>>,
    /// Lanes that have something, by turn.
    ring: VecDeque<u64>,
    /// What the first lane of the ring may still send in this turn.
    credit: usize,
    /// Signals that nobody has begun to send.
    waiting: usize,
}

/// What is to be sent next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<S, F> {
    /// A signal of this lane.
    Signal(u64, S),
    /// The next fragment of a signal of this lane.
    Fragment(u64, F),
}

impl<S, F> Default for Lanes<S, F> {
    fn default() -> Self {
        Self {
            lanes: HashMap::new(),
            ring: VecDeque::new(),
            credit: FRAGMENT_SHARED_BYTES,
            waiting: 0,
        }
    }
}

impl<S, F> Lanes<S, F> {
    /// Puts a signal behind all others of its lane.
    pub(crate) fn push(&mut self, lane: u64, signal: S, bytes: usize) {
        let queue = self.lanes.entry(lane).or_default();
        if queue.is_empty() {
            self.ring.push_back(lane);
        }
        queue.push_back(Head::Whole { signal, bytes });
        self.waiting += 1;
    }

    /// Puts the rest of a signal, of which a fragment has just been sent, at the front of its
    /// lane, and ends the lane's turn. The lane must be the one that [`Lanes::next`] has named.
    pub(crate) fn put_back(&mut self, lane: u64, rest: F) {
        let queue = self.lanes.entry(lane).or_default();
        if queue.is_empty() {
            self.ring.push_back(lane);
        } else if self.ring.front() == Some(&lane) {
            self.ring.rotate_left(1);
        }
        queue.push_front(Head::Rest(rest));
        self.credit = FRAGMENT_SHARED_BYTES;
    }

    /// Takes out what is to be sent next.
    pub(crate) fn next(&mut self) -> Option<Next<S, F>> {
        let lane = *self.ring.front()?;
        let queue = self.lanes.get_mut(&lane)?;
        let head = queue.pop_front()?;
        let (next, bytes) = match head {
            Head::Whole { signal, bytes } => {
                self.waiting -= 1;
                (Next::Signal(lane, signal), bytes)
            }
            Head::Rest(rest) => (Next::Fragment(lane, rest), FRAGMENT_SHARED_BYTES),
        };
        if queue.is_empty() {
            self.lanes.remove(&lane);
            self.ring.pop_front();
            self.credit = FRAGMENT_SHARED_BYTES;
            if self.lanes.is_empty() && self.lanes.capacity() > IDLE_LANES {
                self.lanes.shrink_to(IDLE_LANES);
                self.ring.shrink_to(IDLE_LANES);
            }
        } else if bytes >= self.credit {
            self.ring.rotate_left(1);
            self.credit = FRAGMENT_SHARED_BYTES;
        } else {
            self.credit -= bytes;
        }
        Some(next)
    }

    /// True if there is nothing to send.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Sends everything; a signal of `n` fragments is one of `n` in `cut`.
    fn drain(lanes: &mut Lanes<(u64, u32, u32), (u64, u32, u32)>) -> Vec<(u64, u32, u32)> {
        let mut sent = Vec::new();
        while let Some(next) = lanes.next() {
            let (lane, (from, number, left)) = match next {
                Next::Signal(lane, signal) => (lane, signal),
                Next::Fragment(lane, rest) => (lane, rest),
            };
            assert_eq!(lane, from);
            sent.push((from, number, left));
            if left > 1 {
                lanes.put_back(lane, (from, number, left - 1));
            }
        }
        sent
    }

    #[test]
    fn a_small_signal_waits_for_one_fragment_of_a_large_one() {
        let mut lanes = Lanes::default();
        lanes.push(1, (1, 0, 100), 100 * FRAGMENT_SHARED_BYTES);
        lanes.push(2, (2, 0, 1), 64);
        assert_eq!(drain(&mut lanes)[1], (2, 0, 1));
        assert!(lanes.is_empty());
    }

    #[test]
    fn a_flood_of_small_signals_lets_others_through_after_a_quantum() {
        let mut lanes = Lanes::default();
        for number in 0..10_000 {
            lanes.push(1, (1, number, 1), 64);
        }
        lanes.push(2, (2, 0, 1), 64);
        let sent = drain(&mut lanes);
        let place = sent.iter().position(|(from, ..)| *from == 2).unwrap();
        assert_eq!(place, FRAGMENT_SHARED_BYTES / 64);
    }

    proptest! {
        #[test]
        fn all_is_sent_once_in_each_lanes_order(
            signals in proptest::collection::vec((0..5_u64, 1..4_u32), 0..200)
        ) {
            let mut lanes = Lanes::default();
            for (number, (lane, fragments)) in signals.iter().enumerate() {
                let bytes = *fragments as usize * FRAGMENT_SHARED_BYTES;
                lanes.push(*lane, (*lane, number as u32, *fragments), bytes);
            }
            let sent = drain(&mut lanes);
            prop_assert!(lanes.is_empty());
            for lane in 0..5 {
                let wanted: Vec<_> = signals.iter().enumerate()
                    .filter(|(_, (from, _))| *from == lane)
                    .flat_map(|(number, (_, fragments))| {
                        (1..=*fragments).rev().map(move |left| (lane, number as u32, left))
                    })
                    .collect();
                let got: Vec<_> = sent.iter().copied().filter(|(from, ..)| *from == lane).collect();
                prop_assert_eq!(got, wanted);
            }
        }
    }
}
