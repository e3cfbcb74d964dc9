//! Which broadcasts have come already, in little memory: 16 bytes for each root.
//!
//! Sequences of one root are nearly contiguous, so all that have come are the numbers up to one,
//! and a few ranges beyond it while something is missing. A root with its life is known by a 64-bit
//! hash: two of 10,000 roots have the same with a probability of 3 in 10¹². (A peer that seeks a
//! collision gains nothing: it could use the other root's ids as well.)
//!
//! Roots are forgotten by the clock algorithm, which is nearly least recently used. Gaps are
//! forgotten when nobody has the missing payloads any longer.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher};

use crate::limits::{
    BROADCAST_GAP_TIME, MAX_BROADCAST_GAPPED, MAX_BROADCAST_GAPS, MAX_BROADCAST_ROOTS,
    MAX_BROADCAST_SEQUENCE,
};

/// Hasher of keys that are hashes already.
#[derive(Clone, Default)]
pub(super) struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64((*byte).into());
        }
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0 ^ n)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29);
    }
}

/// A map by such keys. Its order must not decide anything.
pub(super) type KeyMap<K, V> = HashMap<K, V, BuildHasherDefault<Mixed>>;

/// What stands for a root in one of its lives. Never 0.
pub(super) fn key_of<P: Hash>(root: &P, life: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    root.hash(&mut hasher);
    life.hash(&mut hasher);
    hasher.finish().max(1)
}

const VIA_BITS: u32 = 15;
const VIA_SHIFT: u32 = 46;
const NO_VIA: u16 = (1 << VIA_BITS) - 1;
const USED: u64 = 1 << 61;
const GAPPED: u64 = 1 << 62;

/// One root. `word`: highest contiguous sequence:46, via:15, used:1, gapped:1.
#[derive(Clone, Copy, Default)]
struct Root {
    key: u64,
    word: u64,
}

impl Root {
    fn upto(self) -> u64 {
        self.word & MAX_BROADCAST_SEQUENCE
    }

    fn set_upto(&mut self, upto: u64) {
        self.word = (self.word & !MAX_BROADCAST_SEQUENCE) | (upto & MAX_BROADCAST_SEQUENCE);
    }

    fn via(self) -> u16 {
        (self.word >> VIA_SHIFT) as u16 & NO_VIA
    }

    fn set_via(&mut self, via: u16) {
        let mask = u64::from(NO_VIA) << VIA_SHIFT;
        self.word = (self.word & !mask) | (u64::from(via.min(NO_VIA)) << VIA_SHIFT);
    }
}

/// Sequences that have come beyond a gap: ascending ranges that do not touch.
#[derive(Clone, Default)]
struct Beyond {
    since: u64,
    ranges: Vec<(u64, u64)>,
}

impl Beyond {
    fn contains(&self, sequence: u64) -> bool {
        let at = self.ranges.partition_point(|r| r.1 < sequence);
        self.ranges.get(at).is_some_and(|r| r.0 <= sequence)
    }

    fn insert(&mut self, sequence: u64) {
        let at = self.ranges.partition_point(|r| r.1 + 1 < sequence);
        match self.ranges.get_mut(at) {
            Some(r) if r.0 <= sequence && sequence <= r.1 => {}
            Some(r) if r.1 + 1 == sequence => {
                r.1 = sequence;
                if let Some(&(first, last)) = self.ranges.get(at + 1)
                    && first == sequence + 1
                {
                    self.ranges[at].1 = last;
                    self.ranges.remove(at + 1);
                }
            }
            Some(r) if r.0 == sequence + 1 => r.0 = sequence,
            _ => self.ranges.insert(at, (sequence, sequence)),
        }
    }
}

/// The table.
#[derive(Clone)]
pub(super) struct Seen {
    roots: Vec<Root>,
    len: usize,
    limit: usize,
    hand: usize,
    gaps: KeyMap<u64, Beyond>,
    /// When gaps are looked at next, in microseconds.
    sweep: Option<u64>,
}

/// Where a root is in the table, until the next insertion.
#[derive(Clone, Copy)]
pub(super) struct At(usize);

impl Seen {
    /// A table of at most so many roots.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            roots: Vec::new(),
            len: 0,
            limit: limit.clamp(1, MAX_BROADCAST_ROOTS),
            hand: 0,
            gaps: KeyMap::default(),
            sweep: None,
        }
    }

    fn home(&self, key: u64) -> usize {
        ((u128::from(key) * self.roots.len() as u128) >> 64) as usize
    }

    /// Finds a root.
    pub(super) fn find(&self, key: u64) -> Option<At> {
        if self.roots.is_empty() {
            return None;
        }
        let mut at = self.home(key);
        loop {
            match self.roots[at].key {
                0 => return None,
                k if k == key => return Some(At(at)),
                _ => at = (at + 1) % self.roots.len(),
            }
        }
    }

    /// Whether this one has come.
    pub(super) fn has(&self, at: At, sequence: u64) -> bool {
        let root = self.roots[at.0];
        sequence <= root.upto()
            || root.word & GAPPED != 0
                && self
                    .gaps
                    .get(&root.key)
                    .is_some_and(|b| b.contains(sequence))
    }

    /// The highest that has come.
    pub(super) fn top(&self, at: At) -> u64 {
        let root = self.roots[at.0];
        let beyond = self.gaps.get(&root.key).filter(|_| root.word & GAPPED != 0);
        beyond
            .and_then(|b| b.ranges.last())
            .map_or(root.upto(), |r| r.1)
    }

    /// The neighbour slot that messages of this root are expected from.
    pub(super) fn via(&self, at: At) -> Option<u16> {
        Some(self.roots[at.0].via()).filter(|v| *v != NO_VIA)
    }

    pub(super) fn set_via(&mut self, at: At, via: u16) {
        self.roots[at.0].set_via(via);
    }

    /// This slot has another neighbour from now on, or none.
    pub(super) fn forget_via(&mut self, via: u16) {
        for root in &mut self.roots {
            if root.via() == via {
                root.set_via(NO_VIA);
            }
        }
    }

    /// Takes note that this has come. A root that is heard of for the first time may have begun
    /// long ago: what is more than `history` older counts as come.
    pub(super) fn insert(&mut self, key: u64, sequence: u64, history: u64, now: u64) -> At {
        let at = match self.find(key) {
            Some(at) => at,
            None => self.add(key, sequence.saturating_sub(1 + history)),
        };
        let root = &mut self.roots[at.0];
        root.word |= USED;
        let upto = root.upto();
        if sequence <= upto {
            return at;
        }
        if sequence == upto + 1 && root.word & GAPPED == 0 {
            root.set_upto(sequence);
            return at;
        }
        if root.word & GAPPED == 0 {
            if self.gaps.len() >= MAX_BROADCAST_GAPPED {
                // The gap is given up rather than the memory.
                root.set_upto(sequence);
                return at;
            }
            root.word |= GAPPED;
        }
        let beyond = self.gaps.entry(key).or_insert_with(|| Beyond {
            since: now,
            ranges: Vec::new(),
        });
        beyond.insert(sequence);
        let full = beyond.ranges.len() > MAX_BROADCAST_GAPS;
        absorb(root, beyond, full);
        if beyond.ranges.is_empty() {
            root.word &= !GAPPED;
            self.gaps.remove(&key);
        } else if self.sweep.is_none() {
            self.sweep = Some(now + BROADCAST_GAP_TIME.as_micros() as u64);
        }
        at
    }

    /// When [`Seen::expire`] is to be called.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.sweep
    }

    /// Forgets gaps that nobody can fill any longer.
    pub(super) fn expire(&mut self, now: u64) {
        if self.sweep.is_none_or(|at| at > now) {
            return;
        }
        let patience = BROADCAST_GAP_TIME.as_micros() as u64;
        let mut gaps = std::mem::take(&mut self.gaps);
        // Each root by itself: the order does not matter.
        gaps.retain(|key, beyond| {
            let Some(At(at)) = self.find(*key) else {
                return false;
            };
            let root = &mut self.roots[at];
            if now.saturating_sub(beyond.since) >= patience {
                beyond.since = now;
                absorb(root, beyond, true);
            }
            if beyond.ranges.is_empty() {
                root.word &= !GAPPED;
            }
            !beyond.ranges.is_empty()
        });
        gaps.shrink_to_fit();
        self.sweep = (!gaps.is_empty()).then_some(now + patience / 2);
        self.gaps = gaps;
    }

    fn add(&mut self, key: u64, upto: u64) -> At {
        if self.len >= self.limit {
            self.evict();
        } else if self.len * 5 >= self.roots.len() * 4 {
            self.grow();
        }
        let mut root = Root { key, word: 0 };
        root.set_upto(upto);
        root.set_via(NO_VIA);
        self.len += 1;
        self.place(root)
    }

    fn place(&mut self, root: Root) -> At {
        let mut at = self.home(root.key);
        while self.roots[at].key != 0 {
            at = (at + 1) % self.roots.len();
        }
        self.roots[at] = root;
        At(at)
    }

    // By a quarter, not to twice the size: thousands of simulated nodes share one machine.
    fn grow(&mut self) {
        let size = (self.roots.len() + self.roots.len() / 4).max(8);
        let old = std::mem::replace(&mut self.roots, vec![Root::default(); size]);
        self.hand = 0;
        for root in old {
            if root.key != 0 {
                self.place(root);
            }
        }
    }

    fn evict(&mut self) {
        loop {
            self.hand = (self.hand + 1) % self.roots.len();
            let root = &mut self.roots[self.hand];
            if root.key == 0 {
                continue;
            }
            if root.word & USED != 0 {
                root.word &= !USED;
                continue;
            }
            self.gaps.remove(&root.key);
            self.remove(self.hand);
            return;
        }
    }

    /// Closes the gap so that no probe ends too early.
    fn remove(&mut self, mut hole: usize) {
        let size = self.roots.len();
        let mut at = hole;
        loop {
            at = (at + 1) % size;
            let root = self.roots[at];
            if root.key == 0 {
                break;
            }
            let home = self.home(root.key);
            if (at + size - home) % size >= (at + size - hole) % size {
                self.roots[hole] = root;
                hole = at;
            }
        }
        self.roots[hole] = Root::default();
        self.len -= 1;
    }

    /// Roots in the table.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Heap bytes.
    pub(super) fn bytes(&self) -> usize {
        self.roots.capacity() * size_of::<Root>()
            + self.gaps.capacity() * (size_of::<(u64, Beyond)>() + 1)
            + self
                .gaps
                .values()
                .map(|b| b.ranges.capacity() * 16)
                .sum::<usize>()
    }
}

/// Moves what touches the contiguous part into it, and with `force` the lowest range anyhow.
fn absorb(root: &mut Root, beyond: &mut Beyond, force: bool) {
    if let Some(&(first, last)) = beyond.ranges.first()
        && (force || first <= root.upto() + 1)
    {
        root.set_upto(last.max(root.upto()));
        beyond.ranges.remove(0);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn gaps_close_and_old_ones_are_given_up() {
        let mut seen = Seen::new(10);
        let at = seen.insert(7, 2000, 100, 0);
        assert!(seen.has(at, 1899) && !seen.has(at, 1900) && !seen.has(at, 1999));
        assert_eq!(seen.top(at), 2000);
        let at = seen.insert(7, 1999, 100, 0);
        assert!(seen.has(at, 1999) && !seen.has(at, 1998));
        let due = seen.deadline().unwrap();
        seen.expire(due);
        assert!(seen.has(at, 1950) && !seen.has(at, 2001));
        assert!(seen.gaps.is_empty() && seen.deadline().is_none());
    }

    #[test]
    fn the_table_stays_within_its_limit_and_keeps_what_is_used() {
        let mut seen = Seen::new(100);
        for n in 1..10_000u64 {
            seen.insert(key_of(&n, 1), 1, 0, 0);
            seen.insert(key_of(&0, 1), n, 0, 0);
            assert!(seen.len() <= 100);
            assert!(seen.find(key_of(&n, 1)).is_some());
        }
        assert!(seen.has(seen.find(key_of(&0, 1)).unwrap(), 9_999));
        assert!(seen.bytes() < 100 * 16 * 2, "{}", seen.bytes());
    }

    proptest! {
        #[test]
        fn like_a_set(ops in prop::collection::vec((1u64..6, 1u64..40), 1..300)) {
            let mut seen = Seen::new(100);
            let mut model = BTreeSet::new();
            for (root, sequence) in ops {
                let known = seen.find(root).is_some_and(|at| seen.has(at, sequence));
                prop_assert_eq!(known, !model.insert((root, sequence)));
                let at = seen.insert(root, sequence, 100, 0);
                prop_assert!(seen.has(at, sequence));
            }
            for root in 1..6 {
                for sequence in 1..45 {
                    let known = seen.find(root).is_some_and(|at| seen.has(at, sequence));
                    prop_assert_eq!(known, model.contains(&(root, sequence)));
                }
            }
        }
    }
}
