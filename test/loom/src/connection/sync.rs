//! The model checker's locks and atomics, and a clock that stands still, under the names that the product uses.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

pub(crate) use loom::sync::MutexGuard;
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

thread_local! {
    /// Leaves out the fences, to see that a model fails without them. All threads of a model run on
    /// one thread of the system.
    pub static NO_FENCES: Cell<bool> = const { Cell::new(false) };
}

/// As in `std`.
pub(crate) fn fence(order: Ordering) {
    if !NO_FENCES.get() {
        loom::sync::atomic::fence(order);
    }
}

/// A model must do the same whenever it is run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instant;

impl Instant {
    pub(crate) fn now() -> Self {
        Self
    }

    pub(crate) fn elapsed(self) -> Duration {
        Duration::ZERO
    }
}

/// A lock that is waited for.
#[derive(Debug)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
        self.0.lock().expect("no thread panics with the lock")
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

/// A lock that is tried: its state is one atomic, used as `parking_lot` does. loom's own lock would
/// never be found held by somebody who has just let it go, which a real one may.
#[derive(Debug, Default)]
pub(crate) struct TryMutex<T> {
    locked: AtomicBool,
    /// Never contended: whoever has set `locked` has it.
    value: std::sync::Mutex<T>,
}

impl<T> TryMutex<T> {
    pub(crate) fn try_lock(&self) -> Option<TryMutexGuard<'_, T>> {
        if self.locked.load(Ordering::Relaxed) {
            return None;
        }
        self.locked
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
            .ok()?;
        Some(TryMutexGuard {
            locked: &self.locked,
            value: Some(self.value.try_lock().expect("one holder at a time")),
        })
    }

    pub(crate) fn lock(&self) -> TryMutexGuard<'_, T> {
        self.try_lock().expect("nobody has the connection yet")
    }
}

#[derive(Debug)]
pub(crate) struct TryMutexGuard<'a, T> {
    locked: &'a AtomicBool,
    value: Option<std::sync::MutexGuard<'a, T>>,
}

impl<T> Deref for TryMutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("held")
    }
}

impl<T> DerefMut for TryMutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("held")
    }
}

impl<T> Drop for TryMutexGuard<'_, T> {
    fn drop(&mut self) {
        self.value = None;
        self.locked.store(false, Ordering::Release);
    }
}
