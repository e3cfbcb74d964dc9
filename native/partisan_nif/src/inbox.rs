//! Messages delivered by processes.
//!
//! A thread that is not a scheduler shares one locked allocator with all others of its kind, and
//! wakes and contends with the receiver at every message. And the memory of each message belongs to
//! the VM's auxiliary thread, which is woken when the receiver frees it
//! (`erts_alloc_notify_delayed_dealloc` in OTP's `erl_process.c`): the dearest part where
//! messages come by ones and twos. A scheduler has none of this, and delivers for a third of the CPU.
//! So when a read brings several messages, the I/O thread only validates them and hands them over,
//! as one [`Parcel`], to a process (`partisan_inbox`). While a parcel of a connection is under way,
//! all that follows on the connection goes the same way.
//!
//! A process has to wait for its turn where a thread has not. So when one has waited for long,
//! because everybody wants the schedulers, only streams go that way for a while ([`Turns`]).
//!
//! Some terms only a scheduler may decode at all: to build a map of more than 128 pairs the VM sorts
//! the hashes of its keys, with pivots drawn from the state of the scheduler it runs on (`erts_qsort`
//! in OTP's `utils.c`); on any other thread it reads through a null pointer.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

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

/// A read that brought this many messages is part of a stream.
const STREAM_MESSAGES: usize = 16;

/// So many small ones are handed over unless the schedulers are overrun. What a larger message costs
/// is copying, which a second hop only delays.
const GROUP_MESSAGES: usize = 2;

/// Mean size of a small one, in bytes.
const GROUP_BYTES: u64 = 4 << 10;

/// A process that gets its turn within this time is no delay to speak of.
const PROMPT: Duration = Duration::from_millis(1);

/// Otherwise groups that are no streams are not handed over for this long.
const AVOID: Duration = Duration::from_millis(100);

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

    pub(crate) fn only_a_scheduler(&self) -> bool {
        self.only_a_scheduler
    }

    /// Whether a process delivers it for less than the I/O thread.
    pub(crate) fn is_for_a_process(&self, turns: &Turns) -> bool {
        let messages = self.letters.len();
        let small = self.bytes <= GROUP_BYTES * messages as u64;
        self.only_a_scheduler
            || messages >= STREAM_MESSAGES
            || messages >= GROUP_MESSAGES && small && turns.come_soon()
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

/// Whether processes get their turns soon.
pub(crate) struct Turns {
    start: Instant,
    /// Nanoseconds from the start.
    avoid_until: AtomicU64,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            avoid_until: AtomicU64::new(0),
        }
    }
}

impl Turns {
    fn come_soon(&self) -> bool {
        let avoid_until = self.avoid_until.load(Ordering::Relaxed);
        avoid_until == 0 || self.start.elapsed().as_nanos() as u64 >= avoid_until
    }

    /// A process has had its turn after so long.
    fn came_after(&self, waited: Duration) {
        if waited > PROMPT {
            let until = self.start.elapsed() + AVOID;
            self.avoid_until
                .store(until.as_nanos() as u64, Ordering::Relaxed);
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
        turns: host.turns.clone(),
        handed_over: Some(Instant::now()),
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
    turns: Arc<Turns>,
    /// Taken at the first turn.
    handed_over: Option<Instant>,
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
        if let Some(since) = work.handed_over.take() {
            work.turns.came_after(since.elapsed());
        }
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
