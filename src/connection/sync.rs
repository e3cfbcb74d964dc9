//! The locks, the atomics and the clock by which senders, I/O threads and delivering threads hand work over.
//!
//! They are named here, and nowhere else in these modules, so that the model checker of
//! `test/loom` can compile the same sources with its own in their place.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

pub(crate) use std::time::Instant;

pub(crate) use parking_lot::{Mutex, MutexGuard};
/// A lock that nobody waits for while others use it, but only tries.
pub(crate) use parking_lot::{Mutex as TryMutex, MutexGuard as TryMutexGuard};
