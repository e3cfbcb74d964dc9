//! Atoms seen lately, so that one that comes again is not allocated again.
//!
//! Each thread has its own table. A text has one place in it, found by a quick hash, and drives
//! out what stands there: the table never grows, and a peer that sends texts of one hash makes
//! no more trouble than a table that is empty.

use super::Atom;
use crate::limits::{KEPT_ATOMS, KEPT_NODES, MAX_KEPT_ATOM_BYTES};
use std::cell::RefCell;
use std::sync::Arc;

/// The table.
pub(super) struct Atoms {
    atoms: [Option<Atom>; KEPT_ATOMS],
    /// Atoms as they stand in identifiers.
    nodes: [Option<Arc<str>>; KEPT_NODES],
    /// Place of the atom that came last: tuples in a list begin with one.
    last_atom: usize,
    /// Place of the node that came last: most identifiers that come together are of one.
    last_node: usize,
}

thread_local! {
    static ATOMS: RefCell<Atoms> = const { RefCell::new(Atoms::new()) };
}

/// Calls `run` with the thread's table. It must not call back.
pub(super) fn with_atoms<T>(mut run: impl FnMut(&mut Atoms) -> T) -> T {
    ATOMS
        .try_with(|atoms| atoms.try_borrow_mut().map(|mut atoms| run(&mut atoms)).ok())
        .ok()
        .flatten()
        .unwrap_or_else(|| without_table(run))
}

/// The thread is about to end.
#[cold]
#[inline(never)]
fn without_table<T>(mut run: impl FnMut(&mut Atoms) -> T) -> T {
    run(&mut Atoms::new())
}

impl Atoms {
    const fn new() -> Self {
        Self {
            atoms: [const { None }; KEPT_ATOMS],
            nodes: [const { None }; KEPT_NODES],
            last_atom: 0,
            last_node: 0,
        }
    }

    /// The atom, if the bytes are text and short enough to be kept.
    #[inline]
    pub(super) fn kept(&mut self, bytes: &[u8]) -> Option<&Atom> {
        let is = |kept: &Option<Atom>| match kept {
            Some(kept) => kept.as_str().as_bytes() == bytes,
            None => false,
        };
        if !self.atoms.get(self.last_atom).is_some_and(is) {
            let place = place(bytes) % KEPT_ATOMS;
            let slot = self.atoms.get_mut(place)?;
            if !is(slot) {
                *slot = Some(text(bytes)?.into());
            }
            self.last_atom = place;
        }
        self.atoms.get(self.last_atom)?.as_ref()
    }

    /// The text of an atom that is the node of an identifier, likewise.
    #[inline]
    pub(super) fn node(&mut self, bytes: &[u8]) -> Option<Arc<str>> {
        if let Some(Some(last)) = self.nodes.get(self.last_node)
            && last.as_bytes() == bytes
        {
            return Some(last.clone());
        }
        let place = place(bytes) % KEPT_NODES;
        let slot = self.nodes.get_mut(place)?;
        self.last_node = place;
        match slot {
            Some(kept) if kept.as_bytes() == bytes => Some(kept.clone()),
            _ => {
                let text: Arc<str> = text(bytes)?.into();
                *slot = Some(text.clone());
                Some(text)
            }
        }
    }
}

#[inline(never)]
fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes)
        .ok()
        .filter(|text| text.len() <= MAX_KEPT_ATOM_BYTES)
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
    (hash.wrapping_mul(SPREAD) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_comes_again_is_the_same() {
        let node = |bytes: &[u8]| with_atoms(|atoms| atoms.node(bytes)).unwrap();
        let first = node(b"a@host");
        assert_eq!(&*first, "a@host");
        assert!(Arc::ptr_eq(&first, &node(b"a@host")));
        for number in 0..4 * KEPT_NODES {
            let name = format!("n{number}@host");
            assert_eq!(&*node(name.as_bytes()), name);
        }
        assert_eq!(&*node(b"a@host"), "a@host");
    }

    #[test]
    fn no_atom_is_taken_for_another() {
        for _ in 0..2 {
            for number in 0..4 * KEPT_ATOMS {
                let name = format!("atom_{}", number % (3 * KEPT_ATOMS));
                with_atoms(|atoms| assert_eq!(atoms.kept(name.as_bytes()).unwrap().as_str(), name));
            }
        }
        with_atoms(|atoms| assert_eq!(atoms.kept(b"").unwrap().as_str(), ""));
    }

    #[test]
    fn long_texts_and_what_is_none_are_not_kept() {
        let long = [b'a'; MAX_KEPT_ATOM_BYTES + 1];
        with_atoms(|atoms| {
            assert!(atoms.kept(&long).is_none());
            assert!(atoms.kept(&[0xc3, 0x28]).is_none());
            assert!(atoms.node(&long).is_none());
            assert!(atoms.node(&[0xc3, 0x28]).is_none());
        });
    }
}
