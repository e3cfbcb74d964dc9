//! A BEAM process that waits for room in a queue.
//!
//! The process holds a ticket, a VM resource. When the process dies or drops the ticket, the VM
//! destroys the resource, and the place in the queue, or the room already granted, is given back:
//! nothing leaks, whatever happens to the process.

use std::sync::Arc;

use parking_lot::Mutex;
use partisan::channel::Ticket;
use partisan::connection::outbox::{Outbox, Waiter, Wake};
use rustler::sys::{self, ErlNifPid, ErlNifTerm};

use crate::raw::{self, OwnEnv};

/// What the process holds while it waits.
pub(crate) struct Place {
    outbox: Arc<Outbox>,
    ticket: Mutex<Option<Ticket>>,
    waiter: Arc<ProcessWaiter>,
}

#[rustler::resource_impl]
impl rustler::Resource for Place {}

impl Place {
    pub(crate) fn new(outbox: Arc<Outbox>, ticket: Ticket, waiter: Arc<ProcessWaiter>) -> Self {
        Self {
            outbox,
            ticket: Mutex::new(Some(ticket)),
            waiter,
        }
    }

    /// The ticket, to be redeemed for one message, and the connection that it is for.
    pub(crate) fn take(&self) -> Option<(Arc<Outbox>, Ticket)> {
        self.ticket
            .lock()
            .take()
            .map(|ticket| (self.outbox.clone(), ticket))
    }

    /// Gives the place up. No wake-up is sent after the call.
    pub(crate) fn cancel(&self) {
        if let Some((outbox, ticket)) = self.take() {
            outbox.cancel(ticket);
            self.waiter.silence();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// Sends `{Ref, granted | disconnected | notalive}` to the process.
pub(crate) struct ProcessWaiter {
    pid: ErlNifPid,
    message: Mutex<Option<(OwnEnv, ErlNifTerm)>>,
}

// SAFETY: the pid is a word, and the environment is behind a mutex.
unsafe impl Send for ProcessWaiter {}
// SAFETY: as above.
unsafe impl Sync for ProcessWaiter {}

impl ProcessWaiter {
    pub(crate) fn new(pid: ErlNifPid, reference: ErlNifTerm) -> Self {
        let mut env = OwnEnv::new();
        let reference = env.copy(reference);
        Self {
            pid,
            message: Mutex::new(Some((env, reference))),
        }
    }

    /// Waits for a wake-up that is being sent, and prevents any other.
    fn silence(&self) {
        *self.message.lock() = None;
    }
}

impl Waiter for ProcessWaiter {
    fn wake(&self, why: Wake) {
        // Held while sending, so that `silence` can promise that nothing follows.
        let mut slot = self.message.lock();
        let Some((mut env, reference)) = slot.take() else {
            return;
        };
        let why: &[u8] = match why {
            Wake::Granted => b"granted",
            Wake::Disconnected => b"disconnected",
            Wake::NotAlive => b"notalive",
        };
        let elements = [reference, raw::make_atom(env.as_ptr(), why)];
        // SAFETY: both terms were made in this environment.
        let message =
            unsafe { sys::enif_make_tuple_from_array(env.as_ptr(), elements.as_ptr(), 2) };
        raw::send(&self.pid, &mut env, message);
    }
}
