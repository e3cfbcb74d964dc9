//! What waits to be sent to one stock node, fair among senders. Sans-I/O.
//!
//! Each sender has a lane, in which its signals stay in order. Lanes take turns: in one turn a
//! lane sends small signals up to a quantum, or one fragment of a large one. So a small signal
//! waits for at most one fragment of every other sender, although there is one connection.
//! What a lane sends in one turn waits in one piece, so that it is taken out at once.

use std::collections::{HashMap, VecDeque};

use crate::limits::FRAGMENT_SHARED_BYTES;

/// Lanes that an idle table keeps room for.
const IDLE_LANES: usize = 1024;

/// Turns whose memory is kept for the next ones.
const SPARE_TURNS: usize = 8;

/// Signals for one turn; `B` is what they are kept in.
#[derive(Debug)]
struct Turn<B> {
    batch: B,
    bytes: usize,
}

/// The signals of one sender.
#[derive(Debug)]
struct Lane<B, F> {
    /// The rest of a signal that is being sent in fragments; before all others.
    rest: Option<F>,
    turns: VecDeque<Turn<B>>,
}

impl<B, F> Lane<B, F> {
    fn is_empty(&self) -> bool {
        self.rest.is_none() && self.turns.is_empty()
    }
}

impl<B, F> Default for Lane<B, F> {
    fn default() -> Self {
        Self {
            rest: None,
            turns: VecDeque::new(),
        }
    }
}

/// The signals of all senders; `B` holds signals, `F` is the rest of one that is cut into fragments.
#[derive(Debug)]
pub(crate) struct Lanes<B, F> {
    lanes: HashMap<u64, Lane<B, F>>,
    /// Lanes that have something, by turn.
    ring: VecDeque<u64>,
    spare: Vec<B>,
}

/// What is to be sent next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<B, F> {
    /// Signals of this lane, a turn's.
    Turn(u64, B),
    /// The next fragment of a signal of this lane.
    Fragment(u64, F),
}

impl<B, F> Default for Lanes<B, F> {
    fn default() -> Self {
        Self {
            lanes: HashMap::default(),
            ring: VecDeque::new(),
            spare: Vec::new(),
        }
    }
}

impl<B: Default, F> Lanes<B, F> {
    /// Where a signal of so many bytes is to be put, behind all others of its lane.
    pub(crate) fn push(&mut self, lane: u64, bytes: usize) -> &mut B {
        let own = self.lanes.entry(lane).or_default();
        if own.is_empty() {
            self.ring.push_back(lane);
        }
        let last = own.turns.back();
        if last.is_none_or(|turn| turn.bytes >= FRAGMENT_SHARED_BYTES) {
            let batch = self.spare.pop().unwrap_or_default();
            own.turns.push_back(Turn { batch, bytes: 0 });
        }
        let at = own.turns.len() - 1;
        let turn = &mut own.turns[at];
        turn.bytes += bytes;
        &mut turn.batch
    }

    /// Puts the rest of a signal, of which a fragment has just been sent, at the front of its
    /// lane, with what is left of that turn behind it. The lane must be the one that [`Lanes::next`] has
    /// named.
    pub(crate) fn put_back(&mut self, lane: u64, rest: F, batch: Option<B>) {
        let own = self.lanes.entry(lane).or_default();
        if own.is_empty() {
            self.ring.push_back(lane);
        }
        own.rest = Some(rest);
        if let Some(batch) = batch {
            // Its turn is over: nothing is added.
            let bytes = FRAGMENT_SHARED_BYTES;
            own.turns.push_front(Turn { batch, bytes });
        }
    }

    /// Takes out what is to be sent next, and ends the turn of its lane.
    pub(crate) fn next(&mut self) -> Option<Next<B, F>> {
        let lane = self.ring.pop_front()?;
        let own = self.lanes.get_mut(&lane)?;
        let next = match own.rest.take() {
            Some(rest) => Next::Fragment(lane, rest),
            None => Next::Turn(lane, own.turns.pop_front()?.batch),
        };
        if !own.is_empty() {
            self.ring.push_back(lane);
        } else {
            self.lanes.remove(&lane);
            if self.lanes.is_empty() && self.lanes.capacity() > IDLE_LANES {
                self.lanes.shrink_to(IDLE_LANES);
                self.ring.shrink_to(IDLE_LANES);
            }
        }
        Some(next)
    }

    /// Takes back an empty batch, for its memory.
    pub(crate) fn recycle(&mut self, batch: B) {
        if self.spare.len() < SPARE_TURNS {
            self.spare.push(batch);
        }
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

    /// Lane, number, fragments.
    type Signal = (u64, u32, u32);

    fn push(lanes: &mut Lanes<VecDeque<Signal>, Signal>, signal: Signal, bytes: usize) {
        lanes.push(signal.0, bytes).push_back(signal);
    }

    /// Sends everything; a signal of `n` fragments is one of `n` in `cut`.
    fn drain(lanes: &mut Lanes<VecDeque<Signal>, Signal>) -> Vec<Signal> {
        let mut sent = Vec::new();
        while let Some(next) = lanes.next() {
            match next {
                Next::Turn(lane, mut batch) => {
                    while let Some((from, number, left)) = batch.pop_front() {
                        assert_eq!(lane, from);
                        sent.push((from, number, left));
                        if left > 1 {
                            let unsent = (!batch.is_empty()).then(|| std::mem::take(&mut batch));
                            lanes.put_back(lane, (from, number, left - 1), unsent);
                        }
                    }
                    lanes.recycle(batch);
                }
                Next::Fragment(lane, (from, number, left)) => {
                    assert_eq!(lane, from);
                    sent.push((from, number, left));
                    if left > 1 {
                        lanes.put_back(lane, (from, number, left - 1), None);
                    }
                }
            }
        }
        sent
    }

    #[test]
    fn a_small_signal_waits_for_one_fragment_of_a_large_one() {
        let mut lanes = Lanes::default();
        push(&mut lanes, (1, 0, 100), 100 * FRAGMENT_SHARED_BYTES);
        push(&mut lanes, (2, 0, 1), 64);
        assert_eq!(drain(&mut lanes)[1], (2, 0, 1));
        assert!(lanes.is_empty());
    }

    #[test]
    fn a_flood_of_small_signals_lets_others_through_after_a_quantum() {
        let mut lanes = Lanes::default();
        for number in 0..10_000 {
            push(&mut lanes, (1, number, 1), 64);
        }
        push(&mut lanes, (2, 0, 1), 64);
        let sent = drain(&mut lanes);
        let place = sent.iter().position(|(from, ..)| *from == 2).unwrap();
        assert_eq!(place, FRAGMENT_SHARED_BYTES / 64);
    }

    proptest! {
        #[test]
        fn all_is_sent_once_in_each_lanes_order(
            signals in proptest::collection::vec((0..5_u64, 1..4_u32, 1..FRAGMENT_SHARED_BYTES), 0..200)
        ) {
            let mut lanes = Lanes::default();
            for (number, (lane, fragments, bytes)) in signals.iter().enumerate() {
                push(&mut lanes, (*lane, number as u32, *fragments), *bytes);
            }
            let sent = drain(&mut lanes);
            prop_assert!(lanes.is_empty());
            for lane in 0..5 {
                let wanted: Vec<_> = signals.iter().enumerate()
                    .filter(|(_, (from, ..))| *from == lane)
                    .flat_map(|(number, (_, fragments, _))| {
                        (1..=*fragments).rev().map(move |left| (lane, number as u32, left))
                    })
                    .collect();
                let got: Vec<_> = sent.iter().copied().filter(|(from, ..)| *from == lane).collect();
                prop_assert_eq!(got, wanted);
            }
        }
    }
}
