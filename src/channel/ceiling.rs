//! The bound over all queues of a node.
//!
//! One counter, shared by every queue. Who finds no room under it waits in its own queue, where
//! perhaps nothing is left to be written that could ever wake it. So whoever finds no room leaves a mark,
//! and whoever makes room and finds the mark has all queues look again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

/// Bytes queued and reserved on all connections of a node, and their limit.
///
/// Bytes are admitted while the count is under the limit, so it never exceeds the limit by more than
/// one message (exactly with [`try_add`](Self::try_add), per concurrent caller with
/// [`has_room`](Self::has_room)).
#[derive(Debug)]
pub struct Ceiling {
    limit: u64,
    used: AtomicU64,
    starved: AtomicBool,
}

impl Ceiling {
    /// A ceiling of `limit` bytes (at least one).
    pub fn new(limit: u64) -> Self {
        Self {
            limit: limit.max(1),
            used: AtomicU64::new(0),
            starved: AtomicBool::new(false),
        }
    }

    /// Bytes accounted now.
    pub fn used(&self) -> u64 {
        self.used.load(SeqCst)
    }

    /// Whether a message would be admitted now.
    pub fn has_room(&self) -> bool {
        self.used() < self.limit
    }

    /// Accounts `bytes` that have been admitted.
    pub fn add(&self, bytes: u64) {
        self.used.fetch_add(bytes, SeqCst);
    }

    /// Accounts `bytes` if there is room; asks and adds in one step.
    pub fn try_add(&self, bytes: u64) -> bool {
        self.used
            .fetch_update(SeqCst, SeqCst, |used| {
                (used < self.limit).then_some(used + bytes)
            })
            .is_ok()
    }

    /// Like [`try_add`](Self::try_add), and leaves a mark for [`sub`](Self::sub) if there is no room.
    ///
    /// The mark is set before the count is read again, and `sub` lowers the count before it reads
    /// the mark: of two that meet, one sees the other.
    pub(crate) fn try_add_or_mark(&self, bytes: u64) -> bool {
        if self.try_add(bytes) {
            return true;
        }
        self.starved.store(true, SeqCst);
        self.try_add(bytes)
    }

    /// Takes `bytes` out of the account. True if there is room now and some queue has waiters for
    /// want of it: then the caller has every queue [grant](super::Queue::grant) again.
    #[must_use]
    pub fn sub(&self, bytes: u64) -> bool {
        let before = self.used.fetch_sub(bytes, SeqCst);
        debug_assert!(
            before >= bytes,
            "more bytes left the ceiling's account than entered it"
        );
        self.starved.load(SeqCst) && self.has_room() && self.starved.swap(false, SeqCst)
    }

    /// Replaces a reservation of `reserved` bytes by the `pushed` ones. Returns as [`sub`](Self::sub).
    #[must_use]
    pub fn settle(&self, reserved: u64, pushed: u64) -> bool {
        if pushed >= reserved {
            self.add(pushed - reserved);
            return false;
        }
        self.sub(reserved - pushed)
    }
}

#[cfg(test)]
mod tests {
    use super::Ceiling;

    #[test]
    fn admits_below_the_limit_and_tells_who_frees_room_of_the_starved() {
        let ceiling = Ceiling::new(100);
        assert!(ceiling.try_add(99) && ceiling.try_add(50));
        assert!(!ceiling.has_room() && !ceiling.try_add(1));
        assert!(!ceiling.sub(1), "nobody is starved");
        assert!(!ceiling.try_add_or_mark(7));
        assert!(!ceiling.sub(1), "still full");
        assert!(ceiling.sub(60));
        assert!(!ceiling.sub(60), "the mark is read once");
        assert_eq!(ceiling.used(), 27);
    }

    #[test]
    fn settling_keeps_the_difference() {
        let ceiling = Ceiling::new(100);
        ceiling.add(40);
        assert!(!ceiling.settle(40, 60));
        assert_eq!(ceiling.used(), 60);
        assert!(!ceiling.settle(60, 10));
        assert_eq!(ceiling.used(), 10);
    }

    #[test]
    fn a_mark_and_a_release_that_race_never_miss_each_other() {
        for _ in 0..2_000 {
            let ceiling = Ceiling::new(1);
            ceiling.add(1);
            let (granted, told) = std::thread::scope(|scope| {
                let waiter = scope.spawn(|| ceiling.try_add_or_mark(1));
                let told = ceiling.sub(1);
                (waiter.join().unwrap_or(false), told)
            });
            assert!(granted || told);
        }
    }
}
