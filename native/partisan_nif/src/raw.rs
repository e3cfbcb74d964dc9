//! The few VM calls that rustler does not offer, wrapped so that the rest of the crate is safe.

use std::mem::MaybeUninit;
use std::sync::Arc;

use bytes::Bytes;
use rustler::sys::{
    self, ErlNifBinary, ErlNifCharEncoding, ErlNifEnv, ErlNifMapIterator, ErlNifPid, ErlNifTerm,
};

/// A term's machine word. For atoms and local pids it is the same in every environment and for
/// the life of the VM (pids: of the process).
pub(crate) fn word(term: ErlNifTerm) -> usize {
    // SAFETY: ErlNifTerm is a transparent wrapper of an unsigned word.
    unsafe { std::mem::transmute(term) }
}

/// The word of a process identifier.
pub(crate) fn pid_word(pid: &ErlNifPid) -> usize {
    // SAFETY: ErlNifPid is a C struct of exactly one term.
    unsafe { std::mem::transmute_copy(pid) }
}

/// A process-independent environment, freed with its last owner.
pub(crate) struct OwnEnv(*mut ErlNifEnv);

// SAFETY: a process-independent environment may be used by any thread, one at a time; after
// construction this crate only reads from it, and frees it when nobody else can.
unsafe impl Send for OwnEnv {}
// SAFETY: see above, shared access is read-only.
unsafe impl Sync for OwnEnv {}

impl OwnEnv {
    pub(crate) fn new() -> Self {
        // SAFETY: has no preconditions; the VM aborts when out of memory.
        Self(unsafe { sys::enif_alloc_env() })
    }

    pub(crate) fn as_ptr(&self) -> *mut ErlNifEnv {
        self.0
    }

    /// Copies a term into the environment. Reference-counted binaries are shared, not copied.
    pub(crate) fn copy(&mut self, term: ErlNifTerm) -> ErlNifTerm {
        // SAFETY: the environment is alive and exclusively borrowed.
        unsafe { sys::enif_make_copy(self.0, term) }
    }

    /// Forgets all terms, for reuse.
    pub(crate) fn clear(&mut self) {
        // SAFETY: as above.
        unsafe { sys::enif_clear_env(self.0) }
    }
}

impl Drop for OwnEnv {
    fn drop(&mut self) {
        // SAFETY: we own it, and this is the only place that frees it.
        unsafe { sys::enif_free_env(self.0) }
    }
}

/// A binary of the VM, kept alive by the environment that it was copied into.
struct Pinned {
    _env: Arc<OwnEnv>,
    data: *const u8,
    len: usize,
}

// SAFETY: the bytes are immutable and live as long as the environment.
unsafe impl Send for Pinned {}
// SAFETY: as above.
unsafe impl Sync for Pinned {}

impl AsRef<[u8]> for Pinned {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `data` points to `len` immutable bytes while `_env` lives.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }
}

/// Keeps binaries by reference. `None` if one of the terms is not a binary.
pub(crate) fn pin(binaries: &[ErlNifTerm]) -> Option<Vec<Bytes>> {
    let mut env = OwnEnv::new();
    let copies: Vec<ErlNifTerm> = binaries.iter().map(|&b| env.copy(b)).collect();
    let env = Arc::new(env);
    copies
        .into_iter()
        .map(|term| {
            let bytes = inspect_binary(env.as_ptr(), term)?;
            Some(if bytes.len() <= 64 {
                // Its own environment entry would cost more than the copy.
                Bytes::copy_from_slice(bytes)
            } else {
                Bytes::from_owner(Pinned {
                    data: bytes.as_ptr(),
                    len: bytes.len(),
                    _env: env.clone(),
                })
            })
        })
        .collect()
}

/// The bytes of a binary term; `None` for other terms and for bit strings.
///
/// The slice is valid as long as `env` is and no later call invalidates it; callers keep it only
/// while they keep the environment.
pub(crate) fn inspect_binary<'a>(env: *mut ErlNifEnv, term: ErlNifTerm) -> Option<&'a [u8]> {
    let mut binary = MaybeUninit::<ErlNifBinary>::uninit();
    // SAFETY: on success the VM fills in a pointer to the term's bytes.
    unsafe {
        if sys::enif_inspect_binary(env, term, binary.as_mut_ptr()) == 0 {
            return None;
        }
        let binary = binary.assume_init();
        if binary.size == 0 {
            return Some(&[]);
        }
        Some(std::slice::from_raw_parts(binary.data, binary.size))
    }
}

/// Appends the external form of `term` without its version byte. False if the VM cannot encode
/// it. Not for terms of unknown size: it does not yield.
pub(crate) fn term_to_binary(env: *mut ErlNifEnv, term: ErlNifTerm, out: &mut Vec<u8>) -> bool {
    let mut binary = MaybeUninit::<ErlNifBinary>::uninit();
    // SAFETY: on success the VM hands us a binary that we release after copying it.
    unsafe {
        if sys::enif_term_to_binary(env, term, binary.as_mut_ptr()) == 0 {
            return false;
        }
        let mut binary = binary.assume_init();
        let bytes = std::slice::from_raw_parts(binary.data, binary.size);
        out.extend_from_slice(bytes.get(1..).unwrap_or_default());
        sys::enif_release_binary(&mut binary);
    }
    true
}

/// Decodes an external term (with version byte).
pub(crate) fn binary_to_term(env: *mut ErlNifEnv, bytes: &[u8]) -> Option<ErlNifTerm> {
    let mut term = MaybeUninit::<ErlNifTerm>::uninit();
    // SAFETY: the VM reads `bytes` and writes the term if it succeeds.
    unsafe {
        let used = sys::enif_binary_to_term(
            env,
            bytes.as_ptr(),
            bytes.len(),
            term.as_mut_ptr().cast(),
            0,
        );
        (used != 0).then(|| term.assume_init())
    }
}

/// The atom of this text if it exists. Latin-1 only, as NIF 2.16 offers no more.
pub(crate) fn existing_atom(env: *mut ErlNifEnv, latin1: &[u8]) -> Option<ErlNifTerm> {
    let mut atom = MaybeUninit::<ErlNifTerm>::uninit();
    // SAFETY: the VM reads the text and writes the atom if it exists.
    unsafe {
        let found = sys::enif_make_existing_atom_len(
            env,
            latin1.as_ptr().cast(),
            latin1.len(),
            atom.as_mut_ptr().cast(),
            ErlNifCharEncoding::ERL_NIF_LATIN1,
        );
        (found != 0).then(|| atom.assume_init())
    }
}

/// The atom of this text if it exists, for text beyond Latin-1: the VM's decoder finds it, and is
/// told to make no new ones.
pub(crate) fn existing_wide_atom(env: *mut ErlNifEnv, text: &str) -> Option<ErlNifTerm> {
    const SAFE: std::ffi::c_uint = 0x2000_0000;
    let mut bytes = vec![131, 118];
    bytes.extend_from_slice(&u16::try_from(text.len()).ok()?.to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
    let mut term = MaybeUninit::<ErlNifTerm>::uninit();
    // SAFETY: the VM reads `bytes` and writes the term if it succeeds.
    unsafe {
        let data = bytes.as_ptr();
        let used = sys::enif_binary_to_term(env, data, bytes.len(), term.as_mut_ptr().cast(), SAFE);
        (used != 0).then(|| term.assume_init())
    }
}

/// Makes an atom of ASCII or Latin-1 text.
pub(crate) fn make_atom(env: *mut ErlNifEnv, latin1: &[u8]) -> ErlNifTerm {
    // SAFETY: the VM copies the text.
    unsafe { sys::enif_make_atom_len(env, latin1.as_ptr().cast(), latin1.len()) }
}

/// The term of an atom, which is the same in every environment.
pub(crate) fn atom_term(atom: rustler::Atom) -> ErlNifTerm {
    // SAFETY: an atom is a struct of exactly one term, and immediate.
    unsafe { std::mem::transmute(atom) }
}

/// The process that the name is registered to; for threads that are not schedulers.
pub(crate) fn whereis(name: ErlNifTerm) -> Option<ErlNifPid> {
    whereis_as(std::ptr::null_mut(), name)
}

/// As [`whereis`]; in a NIF, `caller` must be its environment.
pub(crate) fn whereis_as(caller: *mut ErlNifEnv, name: ErlNifTerm) -> Option<ErlNifPid> {
    let mut pid = MaybeUninit::<ErlNifPid>::uninit();
    // SAFETY: a null environment stands for a thread that is not a scheduler.
    unsafe {
        let found = sys::enif_whereis_pid(caller, name, pid.as_mut_ptr());
        (found != 0).then(|| pid.assume_init())
    }
}

/// The process of a local pid term.
pub(crate) fn local_pid(env: *mut ErlNifEnv, term: ErlNifTerm) -> Option<ErlNifPid> {
    let mut pid = MaybeUninit::<ErlNifPid>::uninit();
    // SAFETY: the VM writes the pid if the term is one of a local process.
    unsafe {
        let local = sys::enif_get_local_pid(env, term, pid.as_mut_ptr());
        (local != 0).then(|| pid.assume_init())
    }
}

/// The term of a pid.
pub(crate) fn pid_term(pid: &ErlNifPid) -> ErlNifTerm {
    // SAFETY: ErlNifPid is a C struct of exactly one term, and local pids are immediate.
    unsafe { std::mem::transmute_copy(pid) }
}

/// Sends as nobody, from any thread; `env` is emptied. False if the process is dead.
pub(crate) fn send(pid: &ErlNifPid, env: &mut OwnEnv, message: ErlNifTerm) -> bool {
    // SAFETY: `message` was made in `env`, which we own; a null caller stands for nobody.
    let sent = unsafe { sys::enif_send(std::ptr::null_mut(), pid, env.as_ptr(), message) } != 0;
    env.clear();
    sent
}

/// Sends a copy, on a scheduler. As with [`send`] the message has no sender, whoever runs the NIF.
/// False if the process is dead.
pub(crate) fn send_copy(pid: &ErlNifPid, message: ErlNifTerm) -> bool {
    let nobody = std::ptr::null_mut();
    // SAFETY: without environments the VM takes nobody for the sender and copies the message
    // (`enif_send` in OTP's `erl_nif.c`); `message` is a live term of the NIF's own environment.
    unsafe { sys::enif_send(nobody, pid, nobody, message) != 0 }
}

/// The caller of the NIF.
pub(crate) fn caller(env: *mut ErlNifEnv) -> Option<ErlNifPid> {
    let mut pid = MaybeUninit::<ErlNifPid>::uninit();
    // SAFETY: the VM writes the pid if `env` is that of a process.
    unsafe {
        let own = sys::enif_self(env, pid.as_mut_ptr());
        (!own.is_null()).then(|| pid.assume_init())
    }
}

/// The pairs of a map, in the VM's order.
pub(crate) fn map_pairs(
    env: *mut ErlNifEnv,
    map: ErlNifTerm,
    mut each: impl FnMut(ErlNifTerm, ErlNifTerm) -> bool,
) -> bool {
    let mut iterator = MaybeUninit::<ErlNifMapIterator>::uninit();
    // SAFETY: the iterator is initialised by the first call and destroyed by the last.
    unsafe {
        let first = sys::ErlNifMapIteratorEntry::ERL_NIF_MAP_ITERATOR_HEAD;
        if sys::enif_map_iterator_create(env, map, iterator.as_mut_ptr(), first) == 0 {
            return false;
        }
        let mut iterator = iterator.assume_init();
        let mut whole = true;
        loop {
            let (mut key, mut value) = (
                MaybeUninit::<ErlNifTerm>::uninit(),
                MaybeUninit::<ErlNifTerm>::uninit(),
            );
            if sys::enif_map_iterator_get_pair(
                env,
                &mut iterator,
                key.as_mut_ptr().cast(),
                value.as_mut_ptr().cast(),
            ) == 0
            {
                break;
            }
            if !each(key.assume_init(), value.assume_init()) {
                whole = false;
                break;
            }
            sys::enif_map_iterator_next(env, &mut iterator);
        }
        sys::enif_map_iterator_destroy(env, &mut iterator);
        whole
    }
}

/// Makes a small integer.
pub(crate) fn make_int(env: *mut ErlNifEnv, value: i32) -> ErlNifTerm {
    // SAFETY: has no preconditions.
    unsafe { sys::enif_make_int(env, value) }
}

/// Makes a binary of these bytes; `None` if there is no memory.
pub(crate) fn make_binary(env: *mut ErlNifEnv, bytes: &[u8]) -> Option<ErlNifTerm> {
    let mut term = MaybeUninit::<ErlNifTerm>::uninit();
    // SAFETY: the VM hands out `bytes.len()` writable bytes, which are all written.
    unsafe {
        let data = sys::enif_make_new_binary(env, bytes.len(), term.as_mut_ptr().cast());
        if data.is_null() {
            return None;
        }
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), data, bytes.len());
        Some(term.assume_init())
    }
}
