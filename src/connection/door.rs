//! The door of the listeners: how many may be in their handshake, and for how long.
//!
//! Whoever has not proved that he knows the cookie costs a descriptor and a task, so there is
//! room for [`limits::MAX_UNAUTHENTICATED`] of them. When it is taken the next connection is
//! accepted and waits; those after it wait in the queue of the system. A cluster that starts all
//! at once comes in this way, since its handshakes take milliseconds. But somebody who says nothing
//! must not keep others out: while anybody waits a handshake may take
//! [`limits::CROWDED_HANDSHAKE_TIMEOUT`] only.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until};

use crate::limits;

/// The door of all listeners of one kind of a node.
#[derive(Debug)]
pub struct Door {
    room: Arc<Semaphore>,
    /// How many listeners have accepted somebody who waits for room.
    waiting: watch::Sender<usize>,
}

impl Default for Door {
    fn default() -> Self {
        Self {
            room: Arc::new(Semaphore::new(limits::MAX_UNAUTHENTICATED)),
            waiting: watch::Sender::new(0),
        }
    }
}

impl Door {
    /// Lets somebody in if there is room now.
    pub(crate) fn try_enter(&self) -> Option<Guest> {
        let permit = self.room.clone().try_acquire_owned().ok()?;
        Some(self.guest(permit))
    }

    /// Lets somebody in when there is room, and has those who are in hurry meanwhile.
    pub(crate) async fn enter(&self) -> Guest {
        let _waiting = Waiting::at(&self.waiting);
        loop {
            // The semaphore is never closed.
            if let Ok(permit) = self.room.clone().acquire_owned().await {
                return self.guest(permit);
            }
        }
    }

    fn guest(&self, permit: OwnedSemaphorePermit) -> Guest {
        Guest {
            waiting: self.waiting.subscribe(),
            _permit: permit,
        }
    }
}

struct Waiting<'a>(&'a watch::Sender<usize>);

impl<'a> Waiting<'a> {
    fn at(waiting: &'a watch::Sender<usize>) -> Self {
        waiting.send_modify(|count| *count += 1);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Somebody who is in his handshake; the room is free again when this is dropped.
#[derive(Debug)]
pub struct Guest {
    waiting: watch::Receiver<usize>,
    _permit: OwnedSemaphorePermit,
}

impl Guest {
    /// Resolves when a handshake that may last until `deadline` has lasted too long.
    pub(crate) async fn overstays(&self, deadline: Instant) {
        let earlier = limits::HANDSHAKE_TIMEOUT - limits::CROWDED_HANDSHAKE_TIMEOUT;
        let crowded = async {
            sleep_until(deadline - earlier).await;
            let mut waiting = self.waiting.clone();
            let hurried = waiting.wait_for(|count| *count > 0).await.is_ok();
            if !hurried {
                // The door is gone; nobody can wait any more.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = sleep_until(deadline) => {}
            () = crowded => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_shortens_the_stay_of_others() {
        let door = Door::default();
        let mut guests: Vec<Guest> = std::iter::from_fn(|| door.try_enter()).collect();
        assert_eq!(guests.len(), limits::MAX_UNAUTHENTICATED);
        let began = Instant::now();
        let deadline = began + limits::HANDSHAKE_TIMEOUT;
        let silent = guests.pop().expect("one of them");
        let leaving = async {
            silent.overstays(deadline).await;
            drop(silent);
        };
        tokio::join!(door.enter(), leaving);
        let took = began.elapsed();
        assert!(took >= limits::CROWDED_HANDSHAKE_TIMEOUT, "{took:?}");
        assert!(took < limits::HANDSHAKE_TIMEOUT, "{took:?}");
        // Nobody waits any more: the others have their time.
        let hurried = tokio::time::timeout(
            limits::CROWDED_HANDSHAKE_TIMEOUT,
            guests[0].overstays(deadline),
        );
        assert!(hurried.await.is_err());
    }
}
