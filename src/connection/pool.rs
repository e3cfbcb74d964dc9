//! Memory for large binaries, kept for the next one.
//!
//! Memory fresh from the system has to be zeroed page by page before the kernel can copy a peer's
//! bytes into it, and the pages cost more than the copy does. So memory whose binary has died waits
//! here for the next binary of about its size. The pool knows nothing of where memory comes from.
//!
//! There are four sizes to a doubling, so a binary leaves less than a fifth of its memory unused. What
//! waits is bounded in bytes, and what has waited for [`RECEIVE_POOL_IDLE`] goes back to
//! the system. Freeing much memory takes long, so the thread on which a binary dies, often one that
//! has better things to do, never frees any: whoever keeps the pool does, by [`Pool::trim`].

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::limits::{ALLOCATE_AT_ONCE_BYTES, RECEIVE_POOL_IDLE};

/// Binaries of fewer bytes are not worth a pool: allocators keep memory for them warm.
pub const SMALLEST: usize = 64 << 10;

/// Larger binaries are not allocated whole.
pub const LARGEST: usize = ALLOCATE_AT_ONCE_BYTES as usize;

/// Sizes to a doubling.
const STEPS: usize = 4;

const SIZES: usize = (LARGEST / SMALLEST).ilog2() as usize * STEPS + 1;

/// The size that a binary of `len` bytes gets; `None` if the pool is not meant for it.
pub fn size_for(len: usize) -> Option<usize> {
    index_for(len).map(size_of_index)
}

fn index_for(len: usize) -> Option<usize> {
    if !(SMALLEST..=LARGEST).contains(&len) {
        return None;
    }
    let doubling = (len / SMALLEST).ilog2() as usize;
    let base = SMALLEST << doubling;
    Some(doubling * STEPS + (len - base).div_ceil(base / STEPS))
}

fn size_of_index(index: usize) -> usize {
    let base = SMALLEST << (index / STEPS);
    base + index % STEPS * (base / STEPS)
}

/// What the pool has to know of memory.
pub trait Memory {
    /// Its bytes.
    fn size(&self) -> usize;
}

/// What [`Pool::put`] has done.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Put<M> {
    /// The memory waits for reuse.
    Kept,
    /// It does too, and [`Pool::trim`] has to be called.
    Trim,
    /// The pool is closed, or nobody trims it. The caller frees the memory.
    Refused(M),
}

/// What [`Pool::trim`] has found.
#[derive(Debug)]
pub struct Trimmed<M> {
    /// To be freed.
    pub memory: Vec<M>,
    /// When to trim again; `None`: when [`Put::Trim`] asks for it.
    pub again: Option<Duration>,
}

/// Memory that waits for reuse.
pub struct Pool<M>(Mutex<Idle<M>>);

struct Idle<M> {
    /// By size; the memory used last is at the end, and taken first because it is warm.
    sizes: [Vec<(Instant, M)>; SIZES],
    bytes: usize,
    limit: usize,
    /// Whoever trims has been asked to, or will do so without being asked.
    awake: bool,
    /// Whoever trims has been asked to because there is too much.
    asked: bool,
}

impl<M: Memory> Pool<M> {
    /// A closed pool.
    pub const fn new() -> Self {
        Self(Mutex::new(Idle {
            sizes: [const { Vec::new() }; SIZES],
            bytes: 0,
            limit: 0,
            awake: false,
            asked: false,
        }))
    }

    /// Opens the pool for `limit` bytes, or closes it by 0. Whoever closes it trims it.
    pub fn set_limit(&self, limit: usize) {
        self.0.lock().limit = limit;
    }

    /// False if memory that is given back would not be kept.
    pub fn is_open(&self) -> bool {
        self.0.lock().limit > 0
    }

    /// Bytes that wait.
    pub fn idle_bytes(&self) -> usize {
        self.0.lock().bytes
    }

    /// Memory for `len` bytes, if some waits. Its contents are whatever it was used for.
    pub fn take(&self, len: usize) -> Option<M> {
        let index = index_for(len)?;
        let mut idle = self.0.lock();
        let (_, memory) = idle.sizes.get_mut(index)?.pop()?;
        idle.bytes -= memory.size();
        Some(memory)
    }

    /// Takes memory back.
    pub fn put(&self, memory: M, now: Instant) -> Put<M> {
        let size = memory.size();
        let mut idle = self.0.lock();
        // Too much is kept for the moment, for whoever trims to free; but not without end.
        let most = idle.limit.saturating_mul(2);
        let Some(index) = index_for(size).filter(|&index| size_of_index(index) == size) else {
            return Put::Refused(memory);
        };
        if idle.bytes + size > most {
            return Put::Refused(memory);
        }
        idle.sizes[index].push((now, memory));
        idle.bytes += size;
        let too_much = idle.bytes > idle.limit && !idle.asked;
        idle.asked |= too_much;
        if too_much || !idle.awake {
            idle.awake = true;
            Put::Trim
        } else {
            Put::Kept
        }
    }

    /// Removes what is beyond the limit, and what has waited for too long.
    pub fn trim(&self, now: Instant) -> Trimmed<M> {
        let mut memory = Vec::new();
        let mut idle = self.0.lock();
        let idle = &mut *idle;
        idle.asked = false;
        for waiting in &mut idle.sizes {
            // Memory is taken from the end, so the front has waited longest.
            let old = waiting.partition_point(|(since, _)| {
                now.saturating_duration_since(*since) >= RECEIVE_POOL_IDLE
            });
            memory.extend(waiting.drain(..old).map(|(_, memory)| memory));
        }
        let mut bytes = idle.bytes - memory.iter().map(M::size).sum::<usize>();
        while bytes > idle.limit {
            let oldest = idle
                .sizes
                .iter_mut()
                .filter(|waiting| !waiting.is_empty())
                .min_by_key(|waiting| waiting[0].0);
            let Some(oldest) = oldest else { break };
            let (_, first) = oldest.remove(0);
            bytes -= first.size();
            memory.push(first);
        }
        idle.bytes = bytes;
        idle.awake = bytes > 0;
        Trimmed {
            memory,
            again: idle.awake.then_some(RECEIVE_POOL_IDLE / 4),
        }
    }
}

impl<M: Memory> Default for Pool<M> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 8 << 20;

    #[derive(Debug, PartialEq, Eq)]
    struct Piece {
        id: usize,
        size: usize,
    }

    impl Memory for Piece {
        fn size(&self) -> usize {
            self.size
        }
    }

    #[test]
    fn sizes_waste_less_than_a_fifth() {
        for len in [0, 1, SMALLEST - 1, LARGEST + 1, usize::MAX] {
            assert_eq!(size_for(len), None);
        }
        assert_eq!(size_for(SMALLEST), Some(SMALLEST));
        assert_eq!(size_for(8 << 20), Some(8 << 20));
        assert_eq!(size_for(LARGEST), Some(LARGEST));
        for len in (SMALLEST..=LARGEST).step_by(997) {
            let size = size_for(len).unwrap();
            assert!(size >= len && (size - len) * 5 < size, "{len} gets {size}");
            assert_eq!(size_for(size), Some(size), "sizes are their own");
        }
    }

    #[test]
    fn the_warmest_memory_is_taken_first() {
        let (pool, now) = (Pool::new(), Instant::now());
        pool.set_limit(LIMIT);
        for id in 0..3 {
            let put = pool.put(Piece { id, size: SMALLEST }, now);
            assert_eq!(put, if id == 0 { Put::Trim } else { Put::Kept });
        }
        assert_eq!(pool.take(SMALLEST).map(|p| p.id), Some(2));
        assert_eq!(pool.take(SMALLEST * 2), None);
    }

    #[test]
    fn a_quiet_pool_gives_all_back_and_waits_to_be_asked() {
        let (pool, now) = (Pool::new(), Instant::now());
        pool.set_limit(LIMIT);
        let piece = |id| Piece { id, size: SMALLEST };
        assert_eq!(pool.put(piece(0), now), Put::Trim);
        let trimmed = pool.trim(now);
        assert!(trimmed.memory.is_empty() && trimmed.again.is_some());
        assert_eq!(pool.put(piece(1), now + RECEIVE_POOL_IDLE / 2), Put::Kept);
        let trimmed = pool.trim(now + RECEIVE_POOL_IDLE);
        assert_eq!(trimmed.memory, [piece(0)]);
        let trimmed = pool.trim(now + RECEIVE_POOL_IDLE * 2);
        assert_eq!(trimmed.memory, [piece(1)]);
        assert_eq!(trimmed.again, None);
        assert_eq!(pool.put(piece(2), now + RECEIVE_POOL_IDLE * 2), Put::Trim);
    }

    #[test]
    fn a_closed_pool_keeps_nothing() {
        let (pool, now) = (Pool::new(), Instant::now());
        let piece = |id| Piece { id, size: SMALLEST };
        assert_eq!(pool.put(piece(0), now), Put::Refused(piece(0)));
        pool.set_limit(LIMIT);
        assert_eq!(pool.put(piece(1), now), Put::Trim);
        pool.set_limit(0);
        assert_eq!(pool.put(piece(2), now), Put::Refused(piece(2)));
        assert_eq!(pool.trim(now).memory, [piece(1)]);
        assert_eq!(pool.idle_bytes(), 0);
    }

    #[test]
    fn threads_never_share_memory() {
        let pool: Pool<Box<Held>> = Pool::new();
        pool.set_limit(4 * SMALLEST);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        let held = pool.take(SMALLEST).unwrap_or_default();
                        assert!(!held.0.swap(true, std::sync::atomic::Ordering::AcqRel));
                        std::hint::spin_loop();
                        held.0.store(false, std::sync::atomic::Ordering::Release);
                        if pool.put(held, Instant::now()) == Put::Trim {
                            drop(pool.trim(Instant::now()));
                        }
                        assert!(pool.idle_bytes() <= 8 * SMALLEST);
                    }
                });
            }
        });
    }

    #[derive(Debug, Default)]
    struct Held(std::sync::atomic::AtomicBool);

    impl PartialEq for Held {
        fn eq(&self, other: &Self) -> bool {
            std::ptr::eq(self, other)
        }
    }

    impl Memory for Box<Held> {
        fn size(&self) -> usize {
            SMALLEST
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Take(usize),
        Put(usize),
        Pass(u64),
        Trim,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (SMALLEST - 10..LARGEST + 10).prop_map(Step::Take),
            4 => any::<usize>().prop_map(Step::Put),
            1 => (0u64..3_000).prop_map(Step::Pass),
            1 => Just(Step::Trim),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn bounded_and_never_handed_out_twice(steps in steps()) {
            let pool: Pool<Piece> = Pool::new();
            pool.set_limit(LIMIT);
            let (mut now, mut next) = (Instant::now(), 0);
            let mut held: Vec<Piece> = Vec::new();
            let mut idle: HashSet<usize> = HashSet::new();
            for step in steps {
                match step {
                    Step::Take(len) => match pool.take(len) {
                        Some(piece) => {
                            prop_assert!(idle.remove(&piece.id), "handed out twice");
                            prop_assert_eq!(Some(piece.size), size_for(len));
                            held.push(piece);
                        }
                        None => if let Some(size) = size_for(len) {
                            held.push(Piece { id: next, size });
                            next += 1;
                        },
                    },
                    Step::Put(which) if !held.is_empty() => {
                        let piece = held.swap_remove(which % held.len());
                        let id = piece.id;
                        match pool.put(piece, now) {
                            Put::Refused(_) => {}
                            Put::Kept => { idle.insert(id); }
                            Put::Trim => {
                                idle.insert(id);
                                for piece in pool.trim(now).memory {
                                    prop_assert!(idle.remove(&piece.id), "freed twice");
                                }
                            }
                        }
                        prop_assert!(pool.idle_bytes() <= LIMIT);
                    }
                    Step::Put(_) => {}
                    Step::Pass(ms) => now += Duration::from_millis(ms),
                    Step::Trim => {
                        for piece in pool.trim(now).memory {
                            prop_assert!(idle.remove(&piece.id), "freed twice");
                        }
                    }
                }
            }
            now += RECEIVE_POOL_IDLE;
            let last = pool.trim(now);
            prop_assert_eq!(last.memory.len(), idle.len());
            prop_assert_eq!(pool.idle_bytes(), 0);
            prop_assert!(last.again.is_none());
        }
    }
}
