//! Memory of the VM for large binaries.

use std::io;
use std::mem::MaybeUninit;

use partisan::connection::host::{Blob, Source};
use partisan::limits::ALLOCATE_AT_ONCE_BYTES;
use rustler::sys::{self, ErlNifBinary, ErlNifTerm};

/// Memory of the VM that becomes a binary term without being copied.
pub(crate) struct VmBlob {
    binary: ErlNifBinary,
    filled: usize,
    len: u64,
}

// SAFETY: a binary that is no term yet belongs to whoever holds the struct.
unsafe impl Send for VmBlob {}

impl VmBlob {
    pub(crate) fn new(len: u64) -> Option<Self> {
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
    pub(crate) fn into_term(self, env: *mut sys::ErlNifEnv) -> ErlNifTerm {
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
