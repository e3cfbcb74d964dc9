//! From the external term format to VM terms, where large binaries come out of band.
//!
//! On a thread of our own only elided terms are built here; all others are decoded by the VM, whose
//! exact-size heap fragments cost a receiver far less than terms made one by one. In a NIF simple
//! terms are built here too: on the heap of a process that is faster than the VM's own decoder. The
//! bytes have been validated,
//! so depth and counts are within bounds; a mismatch yields `None` and never a panic.

use std::cell::RefCell;

use foldhash::HashMap;
use rustler::sys::{self, ErlNifEnv, ErlNifTerm};

use partisan::limits::OUT_OF_BAND_BYTES;

use crate::raw;

/// Elements of the largest tuple that is built without an allocation of our own.
const FEW: usize = 8;

/// Atoms that a thread remembers.
const MAX_CACHED_ATOMS: usize = 8192;

thread_local! {
    static ATOMS: RefCell<HashMap<Box<[u8]>, ErlNifTerm>> = RefCell::default();
}

/// Builds a term (with version byte) in `env`. If there are `blobs`, which are in `env` already, it
/// is elided.
pub(crate) fn decode(
    env: *mut ErlNifEnv,
    skeleton: &[u8],
    blobs: &[ErlNifTerm],
) -> Option<ErlNifTerm> {
    let mut decoder = Decoder {
        env,
        rest: skeleton.get(1..)?,
        elided: !blobs.is_empty(),
        blobs: blobs.iter(),
    };
    let term = decoder.term()?;
    decoder.rest.is_empty().then_some(term)
}

struct Decoder<'a> {
    env: *mut ErlNifEnv,
    rest: &'a [u8],
    /// Large binaries are elsewhere.
    elided: bool,
    blobs: std::slice::Iter<'a, ErlNifTerm>,
}

impl Decoder<'_> {
    fn u32_at(&self, at: usize) -> Option<usize> {
        let bytes = self.rest.get(at..at + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?) as usize)
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.rest = self.rest.get(bytes..)?;
        Some(())
    }

    /// Lets the VM decode the next `length` bytes.
    fn by_vm(&mut self, length: usize) -> Option<ErlNifTerm> {
        let bytes = self.rest.get(..length)?;
        let mut term = Vec::with_capacity(length + 1);
        term.push(131);
        term.extend_from_slice(bytes);
        self.skip(length)?;
        raw::binary_to_term(self.env, &term)
    }

    fn atom_length(&self, at: usize) -> Option<usize> {
        match *self.rest.get(at)? {
            119 | 115 => Some(2 + usize::from(*self.rest.get(at + 1)?)),
            118 | 100 => Some(
                3 + usize::from(u16::from_be_bytes([
                    *self.rest.get(at + 1)?,
                    *self.rest.get(at + 2)?,
                ])),
            ),
            _ => None,
        }
    }

    fn term(&mut self) -> Option<ErlNifTerm> {
        let tag = *self.rest.first()?;
        match tag {
            97 => {
                let value = i32::from(*self.rest.get(1)?);
                self.skip(2)?;
                Some(raw::make_int(self.env, value))
            }
            98 => {
                let value = self.u32_at(1)? as u32 as i32;
                self.skip(5)?;
                Some(raw::make_int(self.env, value))
            }
            70 => self.by_vm(9),
            99 => self.by_vm(32),
            110 => self.by_vm(3 + usize::from(*self.rest.get(1)?)),
            111 => self.by_vm(6 + self.u32_at(1)?),
            119 | 118 => self.atom(),
            115 | 100 => self.by_vm(self.atom_length(0)?),
            107 => self.by_vm(
                3 + usize::from(u16::from_be_bytes([*self.rest.get(1)?, *self.rest.get(2)?])),
            ),
            77 => self.by_vm(6 + self.u32_at(1)?),
            88 => self.by_vm(1 + self.atom_length(1)? + 12),
            103 => self.by_vm(1 + self.atom_length(1)? + 9),
            89 => self.by_vm(1 + self.atom_length(1)? + 8),
            120 => self.by_vm(1 + self.atom_length(1)? + 12),
            102 => self.by_vm(1 + self.atom_length(1)? + 5),
            101 => self.by_vm(1 + self.atom_length(1)? + 5),
            90 | 114 => {
                let words = u16::from_be_bytes([*self.rest.get(1)?, *self.rest.get(2)?]);
                let creation = if tag == 90 { 4 } else { 1 };
                self.by_vm(3 + self.atom_length(3)? + creation + 4 * usize::from(words))
            }
            112 => self.by_vm(1 + self.u32_at(1)?),
            113 => {
                let module = self.atom_length(1)?;
                let function = self.atom_length(1 + module)?;
                self.by_vm(1 + module + function + 2)
            }
            109 => self.binary(),
            104 => {
                let arity = usize::from(*self.rest.get(1)?);
                self.skip(2)?;
                self.tuple(arity)
            }
            105 => {
                let arity = self.u32_at(1)?;
                self.skip(5)?;
                self.tuple(arity)
            }
            106 => {
                self.skip(1)?;
                // SAFETY: makes the empty list.
                Some(unsafe { sys::enif_make_list_from_array(self.env, std::ptr::null(), 0) })
            }
            108 => self.list(),
            116 => self.map(),
            _ => None,
        }
    }

    fn binary(&mut self) -> Option<ErlNifTerm> {
        let length = self.u32_at(1)?;
        if length < OUT_OF_BAND_BYTES || !self.elided {
            let bytes = self.rest.get(5..5 + length)?;
            let binary = raw::make_binary(self.env, bytes);
            self.skip(5 + length)?;
            return binary;
        }
        self.skip(5)?;
        self.blobs.next().copied()
    }

    /// An atom in UTF-8, which a thread asks the VM for once.
    fn atom(&mut self) -> Option<ErlNifTerm> {
        let bytes = self.rest.get(..self.atom_length(0)?)?;
        if let Some(atom) = ATOMS.with_borrow(|atoms| atoms.get(bytes).copied()) {
            self.skip(bytes.len())?;
            return Some(atom);
        }
        let atom = self.by_vm(bytes.len())?;
        ATOMS.with_borrow_mut(|atoms| {
            if atoms.len() >= MAX_CACHED_ATOMS {
                atoms.clear();
            }
            atoms.insert(bytes.into(), atom);
        });
        Some(atom)
    }

    fn terms(&mut self, count: usize) -> Option<Vec<ErlNifTerm>> {
        // Every term takes a byte at least, so a claimed count cannot reserve much.
        let mut terms = Vec::with_capacity(count.min(self.rest.len()));
        for _ in 0..count {
            terms.push(self.term()?);
        }
        Some(terms)
    }

    /// A tuple of a few elements; `None` if there are more.
    fn few(&mut self, arity: usize) -> Option<Option<ErlNifTerm>> {
        let mut elements = [ErlNifTerm::default(); FEW];
        let elements = elements.get_mut(..arity)?;
        for element in elements.iter_mut() {
            match self.term() {
                Some(term) => *element = term,
                None => return Some(None),
            }
        }
        // SAFETY: the elements were made in this environment.
        Some(Some(unsafe {
            sys::enif_make_tuple_from_array(self.env, elements.as_ptr(), arity as u32)
        }))
    }

    fn tuple(&mut self, arity: usize) -> Option<ErlNifTerm> {
        if let Some(few) = self.few(arity) {
            return few;
        }
        let elements = self.terms(arity)?;
        // SAFETY: the elements were made in this environment.
        Some(unsafe {
            sys::enif_make_tuple_from_array(self.env, elements.as_ptr(), elements.len() as u32)
        })
    }

    fn list(&mut self) -> Option<ErlNifTerm> {
        let length = self.u32_at(1)?;
        self.skip(5)?;
        let elements = self.terms(length)?;
        let tail = self.term()?;
        // SAFETY: head and tail were made in this environment.
        Some(elements.into_iter().rev().fold(tail, |tail, head| unsafe {
            sys::enif_make_list_cell(self.env, head, tail)
        }))
    }

    fn map(&mut self) -> Option<ErlNifTerm> {
        let size = self.u32_at(1)?;
        self.skip(5)?;
        let pairs = self.terms(size.checked_mul(2)?)?;
        let keys: Vec<_> = pairs.iter().step_by(2).copied().collect();
        let values: Vec<_> = pairs.iter().skip(1).step_by(2).copied().collect();
        let mut map = *pairs.first().unwrap_or(&ErlNifTerm::default());
        // SAFETY: keys and values were made in this environment; fails on duplicate keys.
        let made = unsafe {
            sys::enif_make_map_from_arrays(
                self.env,
                keys.as_ptr(),
                values.as_ptr(),
                keys.len(),
                &mut map,
            )
        };
        (made != 0).then_some(map)
    }
}
