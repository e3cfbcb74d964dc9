//! What is to happen, by time: a wheel of buckets for the near future, a heap for the rest.
//!
//! Entries of one time come out in the order in which they went in, so that a run depends on
//! nothing but its seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A bucket holds 2^20 ns, about one millisecond.
const WIDTH: u32 = 20;
/// Buckets of the wheel: 17 s.
const BUCKETS: usize = 1 << 14;

#[derive(Clone, Copy, Debug)]
struct Entry<T> {
    at: u64,
    number: u64,
    what: T,
}

impl<T> Entry<T> {
    fn key(&self) -> (u64, u64) {
        (self.at, self.number)
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// A queue of events. Times are nanoseconds and may not lie before the last one that came out.
#[derive(Clone, Debug)]
pub(crate) struct Queue<T> {
    /// Number of the bucket that is open.
    open: u64,
    /// Its entries, the last one first.
    now: Vec<Entry<T>>,
    near: Vec<Vec<Entry<T>>>,
    in_near: usize,
    far: BinaryHeap<Reverse<Entry<T>>>,
    count: u64,
}

impl<T: Copy> Queue<T> {
    pub(crate) fn new() -> Self {
        Self {
            open: 0,
            now: Vec::new(),
            near: vec![Vec::new(); BUCKETS],
            in_near: 0,
            far: BinaryHeap::new(),
            count: 0,
        }
    }

    /// Adds an event.
    pub(crate) fn push(&mut self, at: u64, what: T) {
        self.count += 1;
        let entry = Entry {
            at,
            number: self.count,
            what,
        };
        let bucket = at >> WIDTH;
        if bucket <= self.open {
            let place = self.now.partition_point(|other| *other > entry);
            self.now.insert(place, entry);
        } else if bucket - self.open < BUCKETS as u64 {
            self.near[bucket as usize % BUCKETS].push(entry);
            self.in_near += 1;
        } else {
            self.far.push(Reverse(entry));
        }
    }

    /// Takes out the first event, if it is due at `until` or before.
    pub(crate) fn pop(&mut self, until: u64) -> Option<(u64, T)> {
        while self.now.is_empty() {
            if self.open >= until >> WIDTH || !self.turn(until >> WIDTH) {
                return None;
            }
        }
        let entry = self.now.pop_if(|entry| entry.at <= until)?;
        Some((entry.at, entry.what))
    }

    // Opens the next bucket, or one not beyond `limit` if there is nothing before it.
    fn turn(&mut self, limit: u64) -> bool {
        let far = |heap: &BinaryHeap<Reverse<Entry<T>>>| heap.peek().map(|e| e.0.at >> WIDTH);
        self.open = match (self.in_near, far(&self.far)) {
            (0, None) => return false,
            (0, Some(bucket)) => bucket.min(limit),
            _ => self.open + 1,
        };
        std::mem::swap(&mut self.now, &mut self.near[self.open as usize % BUCKETS]);
        self.in_near -= self.now.len();
        while far(&self.far).is_some_and(|bucket| bucket <= self.open) {
            self.now.extend(self.far.pop().map(|entry| entry.0));
        }
        self.now.sort_unstable_by(|a, b| b.cmp(a));
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn comes_out_as_from_a_sorted_list(
            steps in proptest::collection::vec((0u64..40_000_000_000, 0u64..30_000_000_000, 0usize..5), 1..60)
        ) {
            let mut queue = Queue::new();
            let mut model: Vec<(u64, usize)> = Vec::new();
            let mut now = 0;
            for (number, (ahead, until, copies)) in steps.into_iter().enumerate() {
                for copy in 0..copies {
                    let what = number * 10 + copy;
                    queue.push(now + ahead / 2u64.pow(copy as u32 * 7), what);
                    model.push((now + ahead / 2u64.pow(copy as u32 * 7), what));
                }
                model.sort_by_key(|(at, _)| *at);
                now += until / 3;
                while let Some(next) = queue.pop(now) {
                    prop_assert!(next.0 <= now);
                    prop_assert_eq!(next, model.remove(0));
                }
                prop_assert!(model.first().is_none_or(|(at, _)| *at > now));
            }
        }
    }
}
