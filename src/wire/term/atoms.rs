//! Atoms seen lately, so that one that comes again is not allocated again.
//!
//! Each thread has its own table. A text has one place in it, found by a quick hash, and drives
//! out what stands there: the table never grows, and a peer that sends texts of one hash makes
//! no more trouble than a table that is empty.

use crate::limits::{KEPT_ATOMS, MAX_KEPT_ATOM_BYTES};
use std::cell::RefCell;
use std::sync::Arc;

/// The table.
pub(super) struct Atoms([Option<Arc<str>>; KEPT_ATOMS]);

thread_local! {
    static ATOMS: RefCell<Atoms> = const { RefCell::new(Atoms::new()) };
}

/// Calls `run` with the thread's table. It must not call back.
pub(super) fn with_atoms<T>(mut run: impl FnMut(&mut Atoms) -> T) -> T {
    ATOMS
        .try_with(|atoms| atoms.try_borrow_mut().map(|mut atoms| run(&mut atoms)).ok())
        .ok()
        .flatten()
        // The thread is about to end.
        .unwrap_or_else(|| run(&mut Atoms::new()))
}

impl Atoms {
    const fn new() -> Self {
        Self([const { None }; KEPT_ATOMS])
    }

    /// The text, if that is what the bytes are.
    #[inline]
    pub(super) fn text(&mut self, bytes: &[u8]) -> Option<Arc<str>> {
        let slot = self.0.get_mut(place(bytes))?;
        match slot {
            Some(kept) if kept.as_bytes() == bytes => Some(kept.clone()),
            _ => insert(slot, bytes),
        }
    }
}

#[inline(never)]
fn insert(slot: &mut Option<Arc<str>>, bytes: &[u8]) -> Option<Arc<str>> {
    let text: Arc<str> = std::str::from_utf8(bytes).ok()?.into();
    if bytes.len() <= MAX_KEPT_ATOM_BYTES {
        *slot = Some(text.clone());
    }
    Some(text)
}

#[inline]
fn place(bytes: &[u8]) -> usize {
    // Odd bits of the golden ratio; the upper half of a product depends on all bits below.
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = bytes.len() as u64;
    let (chunks, rest) = bytes.as_chunks::<8>();
    for chunk in chunks {
        hash = (hash.rotate_left(5) ^ u64::from_le_bytes(*chunk)).wrapping_mul(SPREAD);
    }
    for &byte in rest {
        hash = hash << 8 | hash >> 56 ^ u64::from(byte);
    }
    (hash.wrapping_mul(SPREAD) >> 32) as usize % KEPT_ATOMS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_atom_that_comes_again_is_the_same() {
        let text = |bytes: &[u8]| with_atoms(|atoms| atoms.text(bytes)).unwrap();
        let first = text(b"entry");
        assert_eq!(&*first, "entry");
        assert!(Arc::ptr_eq(&first, &text(b"entry")));
        assert_eq!(&*text(b""), "");
        // As many others as there are places leave it or drive it out, but never mistake it.
        for number in 0..4 * KEPT_ATOMS {
            let name = format!("atom_{number}");
            assert_eq!(&*text(name.as_bytes()), name);
        }
        assert_eq!(&*text(b"entry"), "entry");
    }

    #[test]
    fn long_atoms_are_not_kept() {
        let long = [b'a'; MAX_KEPT_ATOM_BYTES + 1];
        let text = || with_atoms(|atoms| atoms.text(&long)).unwrap();
        assert!(!Arc::ptr_eq(&text(), &text()));
    }

    #[test]
    fn what_is_no_text_is_refused() {
        assert!(with_atoms(|atoms| atoms.text(&[0xc3, 0x28])).is_none());
    }
}
