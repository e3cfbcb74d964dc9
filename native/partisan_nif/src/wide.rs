//! Terms that only a scheduler may decode.
//!
//! To build a map of more than 128 pairs the VM sorts the hashes of its keys, with pivots drawn from the
//! state of the scheduler it runs on (`erts_qsort` in OTP's `utils.c`); on any other thread it reads
//! through a null pointer. So the I/O thread hands such a term to a process, by way of
//! `partisan_control`, and the connection waits meanwhile. The I/O thread itself then sends what was
//! built: order and the fence of a down event stay its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use partisan::connection::host::{Delivery, Incoming};
use partisan::connection::outbox::Outbox;
use partisan::wire::term::Facts;
use rustler::sys::{ErlNifEnv, ErlNifPid, ErlNifTerm};
use rustler::{Encoder, LocalPid, OwnedEnv, ResourceArc};

use crate::atoms;
use crate::host::{VmBlob, assemble};
use crate::raw::{self, OwnEnv};
use crate::vm::Mapper;

/// Pairs of the largest map that may be built on any thread.
pub(crate) const MAX_PAIRS: u32 = 128;

/// What became of a term; `None` while it is being decoded.
#[derive(Default)]
struct Slot(Mutex<Option<Decoded>>);

enum Decoded {
    Term(OwnEnv, ErlNifTerm),
    Undecodable,
}

// SAFETY: the term belongs to the environment that it travels with.
unsafe impl Send for Decoded {}

/// The terms that are being decoded, one per connection at most.
#[derive(Default)]
pub(crate) struct Wide(Mutex<HashMap<u64, Waiting>>);

/// A connection whose next message is being decoded elsewhere.
type Waiting = (Arc<Outbox>, Arc<Slot>);

impl Wide {
    /// Has the message decoded, or delivers it if it has been.
    pub(crate) fn deliver(
        &self,
        mapper: &Arc<Mapper>,
        outbox: &Arc<Outbox>,
        pid: Option<ErlNifPid>,
        message: Incoming<'_, VmBlob>,
    ) -> Delivery {
        let mut slots = self.0.lock();
        if let Some((_, slot)) = slots.get(&outbox.id()) {
            let Some(decoded) = slot.0.lock().take() else {
                return Delivery::Full;
            };
            slots.remove(&outbox.id());
            drop(slots);
            let Decoded::Term(mut env, term) = decoded else {
                return Delivery::Undecodable;
            };
            let sent = pid.is_some_and(|pid| raw::send(&pid, &mut env, term));
            return if sent {
                Delivery::Done
            } else {
                Delivery::NoProcess
            };
        }
        // Connections that have ended while their terms were decoded.
        slots.retain(|_, (outbox, _)| !outbox.is_closed());
        if pid.is_none() {
            return Delivery::NoProcess;
        }
        let slot = Arc::new(Slot::default());
        let job = Job {
            work: Mutex::new(Some(Work {
                mapper: mapper.clone(),
                term: message.term.to_vec(),
                facts: message.facts.clone(),
                blobs: std::mem::take(message.blobs),
            })),
            finished: AtomicBool::new(false),
            slot: slot.clone(),
            outbox: outbox.clone(),
        };
        slots.insert(outbox.id(), (outbox.clone(), slot));
        drop(slots);
        // A job that reaches nobody is dropped, and so comes back as undecodable.
        hand_over(job);
        Delivery::Full
    }
}

fn hand_over(job: Job) {
    if let Some(pid) = raw::whereis(raw::atom_term(atoms::partisan_control())) {
        // Fails only if the process has just died.
        let _ = OwnedEnv::new().send_and_clear(&LocalPid::from_c_arg(pid), |env| {
            (atoms::partisan_decode(), ResourceArc::new(job)).encode(env)
        });
    }
}

struct Work {
    mapper: Arc<Mapper>,
    term: Vec<u8>,
    facts: Facts,
    blobs: Vec<VmBlob>,
}

/// A term on its way to a scheduler.
pub(crate) struct Job {
    work: Mutex<Option<Work>>,
    finished: AtomicBool,
    slot: Arc<Slot>,
    outbox: Arc<Outbox>,
}

#[rustler::resource_impl]
impl rustler::Resource for Job {}

impl Job {
    /// Decodes the term, in the NIF whose environment is `caller`. A second call does nothing.
    pub(crate) fn run(&self, caller: *mut ErlNifEnv) {
        let Some(work) = self.work.lock().take() else {
            return;
        };
        let env = OwnEnv::new();
        let mut mapped = Vec::new();
        let (term, facts) = (&work.term, &work.facts);
        let by = (&*work.mapper, caller);
        let built = assemble(env.as_ptr(), by, term, facts, work.blobs, &mut mapped);
        self.finish(match built {
            Some(term) => Decoded::Term(env, term),
            None => Decoded::Undecodable,
        });
    }

    fn finish(&self, decoded: Decoded) {
        if !self.finished.swap(true, Ordering::AcqRel) && !self.outbox.is_closed() {
            *self.slot.0.lock() = Some(decoded);
            self.outbox.resume();
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.finish(Decoded::Undecodable);
    }
}
