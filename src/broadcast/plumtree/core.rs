//! Whose tree the common one is.
//!
//! Broadcasts of different roots that shaped one tree would cut its cycles in several places at
//! once, and the pieces would be grafted in several places, without end. So the common tree is that
//! of one node, the *core*, and it is made as all trees of single roots are: the core broadcasts
//! *beats*, which carry nothing and are given to nobody. They prune, graft and optimise; what other
//! roots broadcast on the common tree takes its links in all directions and changes none of them.
//! No way along it is longer than the two from its ends to the core, which are fastest paths.
//!
//! Nodes agree on the core without a word: it is the lowest key of those that beat. A node that
//! broadcasts on the common tree while it hears no beat becomes the core, and ceases to be when it
//! hears a lower one. Cores beat for as long as somebody uses their tree.

use std::time::Duration;

use super::cache::age;
use super::micros;

/// From one beat to the next.
const BEAT: Duration = Duration::from_secs(5);

/// A core that is silent for so long gives way to any other that beats.
const LATE: Duration = Duration::from_secs(10);

/// After so long a node that broadcasts takes its place: longer than [`LATE`], so that the others
/// give way when it does.
const SILENT: Duration = Duration::from_secs(15);

/// A core beats for so long after the last broadcast on the common tree.
const USED: Duration = Duration::from_secs(300);

/// The core, as one node knows it. Times are in microseconds.
#[derive(Clone, Default)]
pub(super) struct Core {
    /// Its key; 0 if none was heard of.
    key: u64,
    /// When its newest beat came.
    at: u64,
    /// When the common tree was used last.
    used: u64,
    /// When this node beats next, if it is the core.
    next: Option<u64>,
    /// Beats of this node.
    sequence: u64,
}

impl Core {
    /// Whether a beat that began then says nothing about the core of today: a neighbour may have one in
    /// its cache for longer than the core is waited for.
    pub(super) fn is_stale(born: i64, now: u64) -> bool {
        u128::from(age(born, now)) >= LATE.as_millis()
    }

    /// Whether a beat of this one is to be taken, and not to be dropped.
    pub(super) fn would_follow(&self, key: u64, now: u64) -> bool {
        self.key == 0 || key <= self.key || now >= self.at + micros(LATE)
    }

    /// A new beat of this one has come.
    pub(super) fn follow(&mut self, key: u64, now: u64) {
        if self.key != key {
            self.next = None;
        }
        (self.key, self.at) = (key, now);
    }

    /// The common tree is used.
    pub(super) fn touch(&mut self, now: u64) {
        self.used = now;
    }

    /// This node broadcasts on the common tree; whether it is to beat first, as its core.
    pub(super) fn must_begin(&self, now: u64) -> bool {
        self.next.is_none() && (self.key == 0 || now >= self.at + micros(SILENT))
    }

    /// Whether this node is the core and is to beat.
    pub(super) fn is_due(&self, now: u64) -> bool {
        self.next.is_some_and(|at| at <= now)
    }

    /// This node, whose key that is, beats. Returns the beat's number, or none if nobody uses the
    /// tree any longer.
    pub(super) fn beat(&mut self, own: u64, now: u64) -> Option<u64> {
        self.next = (now < self.used + micros(USED)).then(|| now + micros(BEAT));
        self.next?;
        (self.key, self.at) = (own, now);
        self.sequence += 1;
        Some(self.sequence)
    }

    /// When this node is to beat.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn the_lowest_that_beats() {
        let mut core = Core::default();
        assert!(core.would_follow(5, 0));
        core.follow(5, 0);
        assert!(!core.would_follow(6, 9 * SECOND));
        assert!(core.would_follow(4, SECOND) && core.would_follow(5, SECOND));
        assert!(core.would_follow(6, 10 * SECOND), "5 is silent");
    }

    #[test]
    fn a_beat_is_stale_when_its_core_counts_as_silent() {
        assert!(!Core::is_stale(-5_000_000, 0) && Core::is_stale(-10_000_000, 0));
        assert!(!Core::is_stale(1, 10 * SECOND) && Core::is_stale(0, 10 * SECOND));
    }

    #[test]
    fn a_node_that_hears_no_beat_begins_and_gives_way() {
        let mut core = Core::default();
        core.touch(0);
        assert!(core.must_begin(0));
        assert_eq!(core.beat(7, 0), Some(1));
        assert!(
            !core.must_begin(100 * SECOND) && !core.is_due(4 * SECOND) && core.is_due(5 * SECOND)
        );
        core.follow(3, 6 * SECOND);
        assert_eq!(core.deadline(), None);
        assert!(!core.must_begin(20 * SECOND));
        assert!(core.must_begin(21 * SECOND));
    }

    #[test]
    fn it_rests_when_the_tree_is_not_used() {
        let mut core = Core::default();
        core.touch(0);
        assert_eq!(core.beat(7, 0), Some(1));
        assert_eq!(core.beat(7, 299 * SECOND), Some(2));
        assert_eq!(core.beat(7, 304 * SECOND), None);
        assert_eq!(core.deadline(), None);
        core.touch(305 * SECOND);
        assert!(
            !core.must_begin(305 * SECOND),
            "others have heard it lately"
        );
    }
}
