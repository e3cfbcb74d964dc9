//! Whose broadcasts give the common tree its shape.
//!
//! In a tree that many roots share, duplicates of broadcasts that are under way at the same time
//! would cut a cycle in several places; the pieces would then be grafted in several places, and so
//! on without end. So of the roots heard of lately one alone cuts: that with the lowest key, on
//! which nodes agree without a word. Others only graft.
//!
//! Before they agree, the tree has got some shape by chance. So a root that has remained the shaper
//! for one broadcast floods its second one: all links are eager again, and what the duplicates
//! leave is the tree of the fastest paths from it. That is done once, and again only after so
//! many broadcasts and so long that the duplicates do not count.

use std::time::Duration;

/// Roots that are heard of within this time may have broadcasts under way at the same time.
const LATELY: Duration = Duration::from_secs(2);

/// The tree is renewed after this many broadcasts and this time.
const RENEWAL: (u64, Duration) = (1024, Duration::from_secs(60));

/// The shaper, as one node knows it. Times are in microseconds.
#[derive(Clone, Default)]
pub(super) struct Shaper {
    key: u64,
    /// When its last message came.
    at: u64,
    /// Its broadcasts since it became the shaper.
    broadcasts: u64,
    /// Broadcasts on the common tree since it was renewed last, and when that was.
    since: u64,
    renewed: Option<u64>,
}

impl Shaper {
    /// Whether this root, which is heard of now, is the shaper.
    pub(super) fn is(&mut self, key: u64, now: u64) -> bool {
        let held = self.key != 0 && now < self.at + LATELY.as_micros() as u64;
        if held && self.key < key {
            return false;
        }
        if self.key != key {
            self.key = key;
            self.broadcasts = 0;
        }
        self.at = now;
        true
    }

    /// Whether the tree is to be renewed by this new broadcast of a root.
    pub(super) fn renews(&mut self, key: u64, now: u64) -> bool {
        self.since += 1;
        if !self.is(key, now) {
            return false;
        }
        self.broadcasts += 1;
        let (count, time) = RENEWAL;
        let due = self
            .renewed
            .is_none_or(|at| self.since >= count && now >= at + time.as_micros() as u64);
        let renews = due && self.broadcasts == 2;
        if renews {
            self.renewed = Some(now);
            self.since = 0;
        }
        renews
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn the_lowest_key_of_late_shapes() {
        let mut shaper = Shaper::default();
        assert!(shaper.is(5, 0));
        assert!(!shaper.is(6, SECOND));
        assert!(shaper.is(4, SECOND));
        assert!(!shaper.is(5, 2 * SECOND));
        assert!(shaper.is(6, 3 * SECOND), "4 has been silent");
    }

    #[test]
    fn the_second_broadcast_of_a_shaper_renews_the_tree_now_and_then() {
        let mut shaper = Shaper::default();
        assert!(!shaper.renews(5, 0));
        assert!(!shaper.renews(6, 0));
        assert!(shaper.renews(5, SECOND));
        assert!(!shaper.renews(5, SECOND));
        assert!(!shaper.renews(4, SECOND));
        assert!(!shaper.renews(4, SECOND), "too soon");
        let late = 100 * SECOND;
        for key in 10..2000 {
            shaper.renews(key, late);
        }
        assert!(!shaper.renews(3, late));
        assert!(shaper.renews(3, late));
    }
}
