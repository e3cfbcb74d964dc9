//! Streams of messages, delivered by processes.
//!
//! A thread that is not a scheduler shares one locked allocator with all others of its kind, and
//! wakes and contends with the receiver at every message; a scheduler does neither, and delivers
//! for a third of the CPU. So when a read brings many messages, the I/O thread only validates them
//! and hands them over, as one [`Parcel`], to a process (`partisan_inbox`). While a parcel of a
//! connection is under way, all that follows on the connection goes the same way.
//!
//! Some terms only a scheduler may decode at all: to build a map of more than 128 pairs the VM sorts
//! the hashes of its keys, with pivots drawn from the state of the scheduler it runs on (`erts_qsort`
//! in OTP's `utils.c`); on any other thread it reads through a null pointer.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use partisan::connection::handover::Handover;
use partisan::connection::host::Lost;
use partisan::connection::outbox::Outbox;
use partisan::connection::session::Session;
use partisan::wire::term::Facts;
use rustler::sys::{ErlNifEnv, ErlNifPid, ErlNifTerm};
use rustler::{Encoder, LocalPid, OwnedEnv, ResourceArc};

use crate::atoms;
use crate::blob::VmBlob;
use crate::host::VmHost;
use crate::postman::Postman;
use crate::raw;
use crate::vm::{Mapper, Mapping};

/// Pairs of the largest map that may be built on any thread.
const MAX_PAIRS: u32 = 128;

/// Messages that one call delivers: some 50 µs.
const SLICE_MESSAGES: usize = 128;

/// Bytes of terms that one call delivers.
const SLICE_BYTES: usize = 64 << 10;

/// Batches that are kept for reuse.
const MAX_SPARE: usize = 16;

/// Memory of a batch that is kept at most.
const MAX_SPARE_BYTES: usize = 1 << 20;

/// Larger terms are decoded on dirty schedulers.
const HEAVY_BYTES: usize = 16 << 10;

/// True if the term must not be decoded on a thread of our own.
pub(crate) fn only_a_scheduler(facts: &Facts) -> bool {
    facts.widest_map > MAX_PAIRS
}

/// Whom a message is for.
#[derive(Clone, Copy)]
pub(crate) enum To {
    /// Whoever is registered under the atom.
    Name(ErlNifTerm),
    /// A process of this VM.
    Pid { id: u32, serial: u32 },
}

/// A validated message, but for its term and its binaries.
#[derive(Clone, Copy)]
pub(crate) struct Letter {
    pub(crate) to: To,
    /// Bytes of its term.
    length: u32,
    /// Nesting of its term.
    pub(crate) depth: u32,
    blobs: u32,
    pub(crate) identities: bool,
}

impl Letter {
    pub(crate) fn new(to: To, term: &[u8], facts: &Facts, blobs: &[VmBlob]) -> Self {
        Self {
            to,
            length: term.len() as u32,
            depth: facts.depth,
            blobs: blobs.len() as u32,
            identities: facts.identities,
        }
    }
}

// SAFETY: of terms it holds atoms, which are the same words everywhere.
unsafe impl Send for Letter {}

/// Validated messages of one read.
#[derive(Default)]
pub(crate) struct Batch {
    letters: VecDeque<Letter>,
    /// Their terms, one after the other.
    terms: Vec<u8>,
    /// The first byte of `terms` that has not been delivered.
    at: usize,
    /// Their binaries, likewise.
    blobs: VecDeque<VmBlob>,
    bytes: u64,
    only_a_scheduler: bool,
}

impl Batch {
    /// Adds a message. Terms are shorter than 4 GiB, by [`TermLimits`].
    ///
    /// [`TermLimits`]: partisan::wire::term::TermLimits
    pub(crate) fn add(&mut self, to: To, term: &[u8], facts: &Facts, blobs: Vec<VmBlob>) {
        self.bytes += (size_of::<Letter>() + term.len()) as u64;
        self.bytes += facts.blobs.iter().map(|&b| u64::from(b)).sum::<u64>();
        self.only_a_scheduler |= only_a_scheduler(facts);
        self.terms.extend_from_slice(term);
        self.letters.push_back(Letter::new(to, term, facts, &blobs));
        if !blobs.is_empty() {
            self.blobs.extend(blobs);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.letters.len()
    }

    pub(crate) fn only_a_scheduler(&self) -> bool {
        self.only_a_scheduler
    }

    /// Memory that the messages take.
    fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of the next message's term.
    fn next_length(&self) -> Option<usize> {
        self.letters.front().map(|letter| letter.length as usize)
    }

    /// Takes the next message; false if there is none.
    pub(crate) fn next(&mut self, each: impl FnOnce(Letter, &[u8], Vec<VmBlob>)) -> bool {
        let Some(letter) = self.letters.pop_front() else {
            return false;
        };
        let end = self.at + letter.length as usize;
        let blobs = self.blobs.drain(..letter.blobs as usize).collect();
        each(letter, &self.terms[self.at..end], blobs);
        self.at = end;
        true
    }

    /// Empty again, for reuse.
    pub(crate) fn clear(&mut self) {
        self.letters.clear();
        self.terms.clear();
        self.at = 0;
        self.blobs.clear();
        self.bytes = 0;
        self.only_a_scheduler = false;
    }
}

/// Empty batches: their memory stays warm from one read to the next.
#[derive(Default)]
pub(crate) struct Spare(Mutex<Vec<Batch>>);

impl Spare {
    pub(crate) fn take(&self) -> Batch {
        self.0.lock().pop().unwrap_or_default()
    }

    fn give_back(&self, mut batch: Batch) {
        batch.clear();
        if batch.terms.capacity() <= MAX_SPARE_BYTES {
            let mut spare = self.0.lock();
            if spare.len() < MAX_SPARE {
                spare.push(batch);
            }
        }
    }
}

/// Gives a batch to the process that has the connection. If it is gone the parcel is dropped, which
/// ends the session.
pub(crate) fn hand_over(host: &VmHost, batch: Batch, session: &Arc<Session>, outbox: &Arc<Outbox>) {
    let index = outbox.id() as usize % host.inboxes.len().max(1);
    let pid = host
        .inboxes
        .get(index)
        .and_then(|&name| raw::whereis(raw::atom_term(name)));
    let parcel = Parcel(Mutex::new(Some(Work {
        mapper: host.mapper.clone(),
        spare: host.spare.clone(),
        handover: Handover::new(session, outbox, batch.bytes()),
        batch,
        lost: Lost::default(),
    })));
    if let Some(pid) = pid {
        // Fails only if the process has just died.
        let _ = OwnedEnv::new().send_and_clear(&LocalPid::from_c_arg(pid), |env| {
            (atoms::partisan_parcel(), ResourceArc::new(parcel)).encode(env)
        });
    }
}

struct Work {
    mapper: Arc<Mapper>,
    spare: Arc<Spare>,
    handover: Handover,
    batch: Batch,
    lost: Lost,
}

/// Messages on their way through a process.
pub(crate) struct Parcel(Mutex<Option<Work>>);

#[rustler::resource_impl]
impl rustler::Resource for Parcel {}

/// How far a parcel has come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Everything is delivered.
    Done,
    /// Call again.
    More,
    /// Call [`Parcel::deliver_heavy`].
    Heavy,
}

thread_local! {
    static POSTMAN: RefCell<Postman> = RefCell::new(Postman::new());
}

impl Parcel {
    /// Delivers some messages, in a NIF on an ordinary scheduler.
    pub(crate) fn deliver(&self, env: *mut ErlNifEnv, own: &ErlNifPid) -> Progress {
        let mut slot = self.0.lock();
        let Some(work) = slot.as_mut() else {
            return Progress::Done;
        };
        let mapping = work.mapper.mapping(env, own);
        let progress = POSTMAN.with_borrow_mut(|postman| work.slice(postman, env, &mapping));
        let finished = if progress == Progress::Done {
            slot.take()
        } else {
            None
        };
        drop(slot);
        if let Some(work) = finished {
            work.spare.give_back(work.batch);
            work.handover.finish(work.lost);
        }
        progress
    }

    /// Delivers one message, in a NIF on a dirty scheduler.
    pub(crate) fn deliver_heavy(&self, caller: *mut ErlNifEnv) {
        if let Some(work) = self.0.lock().as_mut() {
            let (mapper, lost) = (&work.mapper, &mut work.lost);
            work.batch.next(|letter, term, blobs| {
                let posted = Postman::new().post_whole((mapper, caller), letter, term, blobs);
                posted.count(lost);
            });
        }
    }
}

impl Work {
    fn slice(&mut self, postman: &mut Postman, env: *mut ErlNifEnv, mapping: &Mapping) -> Progress {
        postman.begin();
        let start = self.batch.at;
        for _ in 0..SLICE_MESSAGES {
            match self.batch.next_length() {
                None => return Progress::Done,
                Some(length) if length > HEAVY_BYTES => return Progress::Heavy,
                Some(_) if self.batch.at - start > SLICE_BYTES => break,
                Some(_) => {}
            }
            let lost = &mut self.lost;
            self.batch.next(|letter, term, blobs| {
                postman
                    .post_copy(env, mapping, letter, term, blobs)
                    .count(lost);
            });
        }
        Progress::More
    }
}
