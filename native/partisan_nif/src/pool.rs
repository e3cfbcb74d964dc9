//! The VM's pool of memory for large binaries.
//!
//! The memory is mapped by us and handed out as resource binaries: terms like any other, counted by
//! the garbage collector of every process that holds one with their full size
//! (`enif_make_resource_binary` in OTP's `erl_nif.c`). When the last term is gone the VM drops the
//! resource, on any thread, and the memory is back in the pool. `erlang:memory/0` does not know of it.

use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::Mutex;
use partisan::connection::pool::{self, Pool, Put};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use rustler::sys::{ErlNifEnv, ErlNifTerm};
use rustler::{Env, ResourceArc};

static POOL: Pool<Mapping> = Pool::new();

/// The thread of the [`Keeper`], for whoever has to wake it.
static FREEING: Mutex<Option<std::thread::Thread>> = Mutex::new(None);

/// Memory of the system.
struct Mapping {
    start: NonNull<u8>,
    size: usize,
}

// SAFETY: it owns its memory.
unsafe impl Send for Mapping {}
// SAFETY: shared access only reads.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Whole pages: `size` is one of the pool's.
    fn new(size: usize) -> Option<Self> {
        let (access, private) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new mapping, where the system likes.
        let start = unsafe { mmap_anonymous(std::ptr::null_mut(), size, access, private) };
        Some(Self {
            start: NonNull::new(start.ok()?.cast())?,
            size,
        })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nobody else knows of the mapping.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.size) };
    }
}

impl pool::Memory for Mapping {
    fn size(&self) -> usize {
        self.size
    }
}

/// Memory of the pool that is being filled, or belongs to a binary.
pub(crate) struct Buffer {
    /// Taken by `drop` alone.
    memory: Option<Mapping>,
    len: usize,
}

#[rustler::resource_impl]
impl rustler::Resource for Buffer {}

impl Buffer {
    /// Memory for a binary of `len` bytes; `None` if the pool does not serve such binaries.
    pub(crate) fn new(len: usize) -> Option<Self> {
        let size = pool::size_for(len)?;
        let memory = match POOL.take(len) {
            Some(warm) => warm,
            None if POOL.is_open() => Mapping::new(size)?,
            None => return None,
        };
        Some(Self {
            memory: Some(memory),
            len,
        })
    }

    /// All of the memory that the binary will have.
    pub(crate) fn bytes_mut(&mut self) -> &mut [MaybeUninit<u8>] {
        match &self.memory {
            // SAFETY: the mapping has at least `len` bytes and is exclusively borrowed.
            Some(memory) => unsafe {
                std::slice::from_raw_parts_mut(memory.start.as_ptr().cast(), self.len)
            },
            None => &mut [],
        }
    }

    /// Makes a binary of the whole memory.
    ///
    /// # Safety
    /// `env` is valid and the caller's.
    pub(crate) unsafe fn into_term(self, env: *mut ErlNifEnv) -> ErlNifTerm {
        let marker = ();
        // SAFETY: by the contract; the environment is not kept.
        let env = unsafe { Env::new(&marker, env) };
        ResourceArc::new(self)
            .make_binary(env, |buffer| match &buffer.memory {
                // SAFETY: the mapping has `len` bytes, initialised because mappings begin as zeros.
                // They live as long as the resource, and are never written again.
                Some(memory) => unsafe {
                    std::slice::from_raw_parts(memory.start.as_ptr(), buffer.len)
                },
                None => &[],
            })
            .to_term(env)
            .as_c_arg()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(memory) = self.memory.take() else {
            return;
        };
        match POOL.put(memory, Instant::now()) {
            Put::Kept => {}
            Put::Trim => {
                if let Some(thread) = &*FREEING.lock() {
                    thread.unpark();
                }
            }
            // Nobody is there to free it elsewhere.
            Put::Refused(memory) => drop(memory),
        }
    }
}

/// The thread that frees what is too much or too old, because to unmap megabytes takes longer than a
/// scheduler may be kept from its processes.
struct Keeper {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

static KEEPER: Mutex<Option<Keeper>> = Mutex::new(None);

/// Opens the pool for `limit` idle bytes; 0 leaves it closed.
pub(crate) fn open(limit: usize) -> std::io::Result<()> {
    let mut keeper = KEEPER.lock();
    if limit == 0 || keeper.is_some() {
        return Ok(());
    }
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let thread = std::thread::Builder::new()
        .name("partisan-pool".into())
        .spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                let trimmed = POOL.trim(Instant::now());
                drop(trimmed.memory);
                match trimmed.again {
                    Some(pause) => std::thread::park_timeout(pause),
                    None => std::thread::park(),
                }
            }
        })?;
    *FREEING.lock() = Some(thread.thread().clone());
    *keeper = Some(Keeper { stop, thread });
    POOL.set_limit(limit);
    Ok(())
}

/// Closes the pool and frees what is idle. Binaries keep their memory.
pub(crate) fn close() {
    POOL.set_limit(0);
    if let Some(keeper) = KEEPER.lock().take() {
        keeper.stop.store(true, Ordering::Release);
        keeper.thread.thread().unpark();
        // The thread has no way to panic.
        let _ = keeper.thread.join();
        *FREEING.lock() = None;
    }
    drop(POOL.trim(Instant::now()).memory);
}
