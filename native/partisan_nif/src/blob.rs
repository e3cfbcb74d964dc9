//! Memory of the VM for large binaries.

use std::io;
use std::mem::MaybeUninit;

use partisan::connection::host::{Blob, Source};
use partisan::limits::ALLOCATE_AT_ONCE_BYTES;
use rustler::sys::{self, ErlNifBinary, ErlNifTerm};

use crate::pool::Buffer;

/// Memory that becomes a binary term without being copied.
pub(crate) struct VmBlob {
    memory: Memory,
    filled: usize,
    len: u64,
}

enum Memory {
    /// Of the pool, for the whole binary.
    Pool(Buffer),
    /// Of the VM.
    Vm(VmBinary),
}

/// A binary that is no term yet.
struct VmBinary(ErlNifBinary);

// SAFETY: a binary that is no term yet belongs to whoever holds the struct.
unsafe impl Send for VmBinary {}

impl VmBinary {
    fn new(bytes: usize) -> Option<Self> {
        let mut binary = MaybeUninit::<ErlNifBinary>::uninit();
        // SAFETY: on success the binary is ours until it is released or made a term.
        unsafe {
            if sys::enif_alloc_binary(bytes, binary.as_mut_ptr()) == 0 {
                return None;
            }
            Some(Self(binary.assume_init()))
        }
    }

    fn resize(&mut self, bytes: usize) -> io::Result<()> {
        // SAFETY: the binary is ours and writable.
        if unsafe { sys::enif_realloc_binary(&mut self.0, bytes) } == 0 {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        Ok(())
    }

    fn bytes_mut(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: the memory is ours.
        unsafe { std::slice::from_raw_parts_mut(self.0.data.cast(), self.0.size) }
    }

    /// # Safety
    /// `env` is valid and the caller's.
    unsafe fn into_term(self, env: *mut sys::ErlNifEnv) -> ErlNifTerm {
        let mut this = std::mem::ManuallyDrop::new(self);
        // SAFETY: ownership of the binary passes to the environment, exactly once: `this` is
        // never used or dropped again.
        unsafe { sys::enif_make_binary(env, &mut this.0) }
    }
}

impl Drop for VmBinary {
    fn drop(&mut self) {
        // SAFETY: the binary was not made a term, else `into_term` had taken it.
        unsafe { sys::enif_release_binary(&mut self.0) }
    }
}

impl VmBlob {
    pub(crate) fn new(len: u64) -> Option<Self> {
        let at_once = len.min(ALLOCATE_AT_ONCE_BYTES) as usize;
        let pooled = usize::try_from(len).ok().and_then(Buffer::new);
        let memory = match pooled {
            Some(buffer) => Memory::Pool(buffer),
            None => Memory::Vm(VmBinary::new(at_once)?),
        };
        Some(Self {
            memory,
            filled: 0,
            len,
        })
    }

    /// Makes room behind the filled part.
    fn grow(&mut self) -> io::Result<()> {
        match &mut self.memory {
            Memory::Vm(binary) if self.filled == binary.0.size => {
                binary.resize((self.filled as u64 * 2).min(self.len) as usize)
            }
            _ => Ok(()),
        }
    }

    fn spare(&mut self) -> &mut [MaybeUninit<u8>] {
        let bytes = match &mut self.memory {
            Memory::Pool(buffer) => buffer.bytes_mut(),
            Memory::Vm(binary) => binary.bytes_mut(),
        };
        &mut bytes[self.filled..]
    }

    /// Makes the complete binary a term of `env`.
    pub(crate) fn into_term(self, env: *mut sys::ErlNifEnv) -> ErlNifTerm {
        // SAFETY: callers pass an environment that is theirs, as to every call of the VM.
        unsafe {
            match self.memory {
                Memory::Pool(buffer) => buffer.into_term(env),
                Memory::Vm(binary) => binary.into_term(env),
            }
        }
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
