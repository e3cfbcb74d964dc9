//! The VM as the host of a node: memory for binaries, delivery, atoms.

use std::sync::Arc;
use std::time::Duration;

use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};
use partisan::connection::host::{Delivery, Host, Incoming, Lost, ThreadKind};
use partisan::connection::outbox::Outbox;
use partisan::connection::session::Session;
use partisan::wire::frame::Dest;
use rustler::Atom;
use rustler::sys::{ErlNifEnv, ErlNifPid, ErlNifTerm};

use crate::blob::VmBlob;
use crate::inbox::{self, Batch, Letter, Spare, To, Turns};
use crate::postman::Postman;
use crate::raw::{self, OwnEnv};
use crate::slice;
use crate::vm::Mapper;

/// Terms of more bytes are not copied for the sake of a batch, unless they have to wait in order.
const LARGE_TERM_BYTES: usize = 64 << 10;

/// Atoms and names that an I/O thread remembers.
const MAX_CACHED: usize = 16_384;

/// What an I/O thread keeps for the VM.
pub(crate) struct VmThread {
    env: OwnEnv,
    names: HashMap<Box<str>, ErlNifTerm>,
    atoms: HashSet<Box<str>>,
    /// The messages of the present read that are not delivered yet.
    batch: Batch,
    postman: Postman,
    /// Of those delivered before the rest of the read.
    lost: Lost,
}

/// The VM.
pub(crate) struct VmHost {
    pub(crate) mapper: Arc<Mapper>,
    /// A local pid, from whose encoding schedulers read the VM's identity.
    pub(crate) owner: ErlNifPid,
    /// Names of the processes that deliver what is handed over.
    pub(crate) inboxes: Vec<Atom>,
    pub(crate) turns: Arc<Turns>,
    pub(crate) spare: Arc<Spare>,
    pub(crate) slices: Slices,
}

/// How long I/O threads run at a stretch when cores are short; zero: as the system likes.
#[derive(Clone, Copy)]
pub(crate) struct Slices {
    pub(crate) ordinary: Duration,
    pub(crate) bulk: Duration,
}

// SAFETY: the pid of a local process is a plain word.
unsafe impl Send for VmHost {}
// SAFETY: as above.
unsafe impl Sync for VmHost {}

impl VmHost {
    /// Whom a message is for; `None` if there can be nobody.
    fn address(&self, thread: &mut VmThread, dest: Dest<'_>) -> Option<To> {
        match dest {
            Dest::Name(name) => {
                if let Some(&atom) = thread.names.get(name) {
                    return Some(To::Name(atom));
                }
                let atom = find_atom(&mut thread.env, name)?;
                if thread.names.len() >= MAX_CACHED {
                    thread.names.clear();
                }
                thread.names.insert(name.into(), atom);
                Some(To::Name(atom))
            }
            Dest::Pid {
                id,
                serial,
                creation,
            } => (creation == 0 || creation == self.mapper.wire().creation)
                .then_some(To::Pid { id, serial }),
        }
    }

    /// Delivers the batch on this thread.
    fn deliver_here(&self, thread: &mut VmThread) {
        let (postman, lost) = (&mut thread.postman, &mut thread.lost);
        postman.begin();
        while thread.batch.next(|letter, term, blobs| {
            let posted = postman.post_whole(self.here(), letter, term, blobs);
            posted.count(lost);
        }) {}
        thread.batch.clear();
    }

    /// Where an I/O thread delivers.
    fn here(&self) -> (&Mapper, *mut ErlNifEnv) {
        (&self.mapper, std::ptr::null_mut())
    }
}

/// The atom of a registered name, if there is one.
fn find_atom(env: &mut OwnEnv, name: &str) -> Option<ErlNifTerm> {
    let latin1: Option<Vec<u8>> = name
        .chars()
        .map(|c| u8::try_from(u32::from(c)).ok())
        .collect();
    match latin1 {
        Some(latin1) => raw::existing_atom(env.as_ptr(), &latin1),
        None => raw::existing_wide_atom(env.as_ptr(), name),
    }
}

impl Host for VmHost {
    type Blob = VmBlob;
    type Thread = VmThread;

    fn thread(&self, kind: ThreadKind) -> VmThread {
        slice::choose(match kind {
            ThreadKind::Ordinary => self.slices.ordinary,
            ThreadKind::Bulk => self.slices.bulk,
        });
        VmThread {
            env: OwnEnv::new(),
            names: HashMap::new(),
            atoms: HashSet::new(),
            batch: Batch::default(),
            postman: Postman::new(),
            lost: Lost::default(),
        }
    }

    fn blob(&self, len: u64) -> Option<VmBlob> {
        VmBlob::new(len)
    }

    fn knows_atom(&self, thread: &mut VmThread, atom: &str) -> bool {
        if thread.atoms.contains(atom) {
            return true;
        }
        if thread.atoms.len() >= MAX_CACHED {
            thread.atoms.clear();
        }
        let known = find_atom(&mut thread.env, atom).is_some();
        // Once admitted it exists.
        thread.atoms.insert(atom.into());
        known
    }

    fn deliver(
        &self,
        thread: &mut VmThread,
        _session: &Arc<Session>,
        outbox: &Arc<Outbox>,
        message: Incoming<'_, VmBlob>,
    ) -> Delivery {
        let Some(to) = self.address(thread, message.dest) else {
            message.blobs.clear();
            return Delivery::NoProcess;
        };
        let (term, facts) = (message.term, message.facts);
        let blobs = std::mem::take(message.blobs);
        let here = !inbox::only_a_scheduler(facts)
            && !thread.batch.only_a_scheduler()
            && outbox.handed_over() == 0;
        if term.len() > LARGE_TERM_BYTES && here {
            self.deliver_here(thread);
            let letter = Letter::new(to, term, facts, &blobs);
            let posted = thread.postman.post_whole(self.here(), letter, term, blobs);
            posted.count(&mut thread.lost);
        } else {
            thread.batch.add(to, term, facts, blobs);
        }
        Delivery::Done
    }

    fn flush(&self, thread: &mut VmThread, session: &Arc<Session>, outbox: &Arc<Outbox>) -> Lost {
        if !thread.batch.is_empty() {
            let here = !thread.batch.is_for_a_process(&self.turns);
            if here && outbox.handed_over() == 0 {
                self.deliver_here(thread);
            } else {
                let batch = std::mem::replace(&mut thread.batch, self.spare.take());
                inbox::hand_over(self, batch, session, outbox);
            }
        }
        std::mem::take(&mut thread.lost)
    }
}
