//! The VM as the host of a node: memory for binaries, delivery, atoms.

use std::io;
use std::mem::MaybeUninit;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};
use partisan::connection::host::{Blob, Delivery, Host, Incoming, Source};
use partisan::connection::outbox::Outbox;
use partisan::connection::session::Session;
use partisan::limits::ALLOCATE_AT_ONCE_BYTES;
use partisan::wire::frame::Dest;
use partisan::wire::term::{Facts, Form, map_in};
use rustler::sys::{self, ErlNifBinary, ErlNifPid, ErlNifTerm};

use crate::decode;
use crate::raw::{self, OwnEnv};
use crate::vm::Mapper;
use crate::wide::{MAX_PAIRS, Wide};

/// Decoded messages that are held back at most.
const MAX_READY: usize = 512;

/// Atoms and names that an I/O thread remembers.
const MAX_CACHED: usize = 16_384;

/// Memory of the VM that becomes a binary term without being copied.
pub(crate) struct VmBlob {
    binary: ErlNifBinary,
    filled: usize,
    len: u64,
}

// SAFETY: a binary that is no term yet belongs to whoever holds the struct.
unsafe impl Send for VmBlob {}

impl VmBlob {
    fn new(len: u64) -> Option<Self> {
        let at_once = len.min(ALLOCATE_AT_ONCE_BYTES) as usize;
        let mut binary = MaybeUninit::<ErlNifBinary>::uninit();
        // SAFETY: on success the binary is ours until it is released or made a term.
        unsafe {
            if sys::enif_alloc_binary(at_once, binary.as_mut_ptr()) == 0 {
                return None;
            }
            Some(Self {
                binary: binary.assume_init(),
                filled: 0,
                len,
            })
        }
    }

    /// Makes room behind the filled part.
    fn grow(&mut self) -> io::Result<()> {
        if self.filled < self.binary.size {
            return Ok(());
        }
        let wanted = (self.binary.size as u64 * 2).min(self.len) as usize;
        // SAFETY: the binary is ours and writable.
        if unsafe { sys::enif_realloc_binary(&mut self.binary, wanted) } == 0 {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        Ok(())
    }

    fn spare(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: the memory between `filled` and `size` is ours.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.binary.data.add(self.filled).cast(),
                self.binary.size - self.filled,
            )
        }
    }

    /// Makes the complete binary a term of `env`.
    fn into_term(self, env: *mut sys::ErlNifEnv) -> ErlNifTerm {
        let mut this = std::mem::ManuallyDrop::new(self);
        // SAFETY: ownership of the binary passes to the environment, exactly once: `this` is
        // never used or dropped again.
        unsafe { sys::enif_make_binary(env, &mut this.binary) }
    }
}

impl Drop for VmBlob {
    fn drop(&mut self) {
        // SAFETY: the binary was not made a term, else `into_term` had taken it.
        unsafe { sys::enif_release_binary(&mut self.binary) }
    }
}

impl Blob for VmBlob {
    fn len(&self) -> u64 {
        self.len
    }

    fn filled(&self) -> u64 {
        self.filled as u64
    }

    fn extend(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() && !self.is_complete() {
            self.grow()?;
            let spare = self.spare();
            let count = spare.len().min(bytes.len());
            for (to, &from) in spare.iter_mut().zip(&bytes[..count]) {
                to.write(from);
            }
            self.filled += count;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    fn receive(&mut self, limit: usize, source: &Source<'_>) -> io::Result<usize> {
        self.grow()?;
        let spare = self.spare();
        let count = spare.len().min(limit);
        let got = source.read_uninit(&mut spare[..count])?;
        self.filled += got;
        Ok(got)
    }
}

/// What an I/O thread keeps for the VM.
pub(crate) struct VmThread {
    env: OwnEnv,
    names: HashMap<Box<str>, ErlNifTerm>,
    /// The last name looked up for the present batch, and who has it.
    last: Option<(ErlNifTerm, ErlNifPid)>,
    /// Messages of the present batch, decoded and not sent yet. They are sent together: a process
    /// that receives one by one would be woken, and would contend for its queue, for each.
    ready: Vec<(ErlNifPid, OwnEnv, ErlNifTerm)>,
    /// Of those sent early, how many found their process dead.
    dead: u64,
    /// Empty environments.
    spare: Vec<OwnEnv>,
    atoms: HashSet<Box<str>>,
    mapped: Vec<u8>,
}

impl VmThread {
    /// Sends the decoded messages; returns how many processes were dead.
    fn send_ready(&mut self) -> u64 {
        let mut dead = 0;
        for (pid, mut env, term) in self.ready.drain(..) {
            dead += u64::from(!raw::send(&pid, &mut env, term));
            self.spare.push(env);
        }
        dead
    }
}

/// The VM.
pub(crate) struct VmHost {
    pub(crate) mapper: Arc<Mapper>,
    /// A local pid, from whose encoding schedulers read the VM's identity.
    pub(crate) owner: ErlNifPid,
    /// Terms that schedulers decode.
    pub(crate) wide: Wide,
}

// SAFETY: the pid of a local process is a plain word.
unsafe impl Send for VmHost {}
// SAFETY: as above.
unsafe impl Sync for VmHost {}

impl VmHost {
    fn process(&self, thread: &mut VmThread, dest: Dest<'_>) -> Option<ErlNifPid> {
        match dest {
            Dest::Name(name) => {
                let atom = match thread.names.get(name) {
                    Some(&atom) => atom,
                    None => {
                        let atom = find_atom(&mut thread.env, name)?;
                        if thread.names.len() >= MAX_CACHED {
                            thread.names.clear();
                        }
                        thread.names.insert(name.into(), atom);
                        atom
                    }
                };
                if let Some((name, pid)) = thread.last
                    && name == atom
                {
                    return Some(pid);
                }
                let pid = raw::whereis(atom)?;
                thread.last = Some((atom, pid));
                Some(pid)
            }
            Dest::Pid {
                id,
                serial,
                creation,
            } => {
                if creation != 0 && creation != self.mapper.wire().creation {
                    return None;
                }
                let env = thread.env.as_ptr();
                loop {
                    let settled = self.mapper.settled(std::ptr::null_mut());
                    let local = settled.mapping.present();
                    let mut pid = Vec::with_capacity(local.node.len() + 16);
                    pid.extend_from_slice(&[131, 88, 118]);
                    pid.extend_from_slice(&(local.node.len() as u16).to_be_bytes());
                    pid.extend_from_slice(local.node.as_bytes());
                    for word in [id, serial, local.creation] {
                        pid.extend_from_slice(&word.to_be_bytes());
                    }
                    let term = raw::binary_to_term(env, &pid)?;
                    let found = raw::local_pid(env, term);
                    // Not found: it may be the name that has just changed.
                    if found.is_some() || self.mapper.is_still(std::ptr::null_mut(), &settled) {
                        thread.env.clear();
                        return found;
                    }
                }
            }
        }
    }
}

/// Builds a term that has arrived in `env`, with this VM's own identifiers in it. `mapped` is
/// scratch; `caller` as for [`Mapper::settled`].
pub(crate) fn assemble(
    env: *mut sys::ErlNifEnv,
    (mapper, caller): (&Mapper, *mut sys::ErlNifEnv),
    term: &[u8],
    facts: &Facts,
    blobs: Vec<VmBlob>,
    mapped: &mut Vec<u8>,
) -> Option<ErlNifTerm> {
    let blobs: Vec<ErlNifTerm> = blobs.into_iter().map(|blob| blob.into_term(env)).collect();
    let build = |bytes: &[u8]| {
        if blobs.is_empty() {
            raw::binary_to_term(env, bytes)
        } else {
            decode::decode(env, bytes, &mut blobs.iter().copied())
        }
    };
    if !facts.identities {
        return build(term);
    }
    let form = if blobs.is_empty() {
        Form::Whole
    } else {
        Form::Elided
    };
    loop {
        let settled = mapper.settled(caller);
        let bytes = match settled.mapping.inbound() {
            None => term,
            Some(rules) => {
                mapped.clear();
                map_in(term, form, rules, mapped).ok()?;
                mapped.as_slice()
            }
        };
        let built = build(bytes)?;
        // Else the VM has changed its name meanwhile, and what was built may not be its own.
        if mapper.is_still(caller, &settled) {
            return Some(built);
        }
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

    fn thread(&self) -> VmThread {
        VmThread {
            env: OwnEnv::new(),
            names: HashMap::new(),
            last: None,
            ready: Vec::with_capacity(MAX_READY),
            dead: 0,
            spare: Vec::with_capacity(MAX_READY),
            atoms: HashSet::new(),
            mapped: Vec::new(),
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

    fn flush(&self, thread: &mut VmThread) -> u64 {
        thread.send_ready() + std::mem::take(&mut thread.dead)
    }

    fn batch(&self, thread: &mut VmThread) {
        thread.last = None;
    }

    fn deliver(
        &self,
        thread: &mut VmThread,
        _session: &Session,
        outbox: &Arc<Outbox>,
        message: Incoming<'_, VmBlob>,
    ) -> Delivery {
        if message.facts.widest_map > MAX_PAIRS {
            let pid = self.process(thread, message.dest);
            thread.dead += thread.send_ready();
            return self.wide.deliver(&self.mapper, outbox, pid, message);
        }
        let Some(pid) = self.process(thread, message.dest) else {
            message.blobs.clear();
            return Delivery::NoProcess;
        };
        let mut env = thread.spare.pop().unwrap_or_else(OwnEnv::new);
        let blobs = std::mem::take(message.blobs);
        let by = (&*self.mapper, std::ptr::null_mut());
        let mapped = &mut thread.mapped;
        match assemble(env.as_ptr(), by, message.term, message.facts, blobs, mapped) {
            None => {
                env.clear();
                thread.spare.push(env);
                Delivery::Undecodable
            }
            Some(term) => {
                thread.ready.push((pid, env, term));
                if thread.ready.len() >= MAX_READY {
                    thread.dead += thread.send_ready();
                }
                Delivery::Done
            }
        }
    }
}
