//! From VM terms to the external term format, within a bound.
//!
//! One walk both encodes a term and finds its large binaries, which are kept by reference. The
//! walk counts nodes, depth and copied bytes; whatever exceeds them is not encoded here but by
//! `erlang:term_to_iovec/1`, which yields. So a NIF call stays below 100 µs.

use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_uint};
use std::mem::MaybeUninit;
use std::rc::Rc;

use partisan::limits::OUT_OF_BAND_BYTES;
use rustler::sys::{self, ErlNifCharEncoding, ErlNifEnv, ErlNifTerm, ErlNifTermType};

use crate::raw;
use crate::routes::Words;

/// Terms visited in one walk.
const MAX_NODES: u32 = 512;

/// Nesting of one walk.
const MAX_DEPTH: u32 = 32;

/// Bytes copied in one walk.
const MAX_COPY: usize = 64 << 10;

/// Atoms that a scheduler remembers the encoding of.
const MAX_CACHED_ATOMS: usize = 8192;

/// An encoded term.
#[derive(Default)]
pub(crate) struct Encoded {
    /// External format with version byte; elided if there are blobs.
    pub(crate) term: Vec<u8>,
    /// The large binaries.
    pub(crate) blobs: Vec<ErlNifTerm>,
    /// True if there is a pid, reference or port in it.
    pub(crate) identities: bool,
}

impl Encoded {
    fn clear(&mut self) {
        self.term.clear();
        self.blobs.clear();
        self.identities = false;
    }
}

/// The term is too large or too deep for a walk, or has a fun in it.
pub(crate) struct Slow;

thread_local! {
    static ATOMS: RefCell<Words<Box<[u8]>>> = RefCell::default();
    static NAMES: RefCell<Words<Rc<str>>> = RefCell::default();
}

/// Encodes `term` into `out`, which is cleared first.
pub(crate) fn encode(env: *mut ErlNifEnv, term: ErlNifTerm, out: &mut Encoded) -> Result<(), Slow> {
    out.clear();
    out.term.push(131);
    Encoder { env, out, nodes: 0 }.put(term, 0)
}

struct Encoder<'a> {
    env: *mut ErlNifEnv,
    out: &'a mut Encoded,
    nodes: u32,
}

impl Encoder<'_> {
    fn put(&mut self, term: ErlNifTerm, depth: u32) -> Result<(), Slow> {
        self.nodes += 1;
        if self.nodes > MAX_NODES || depth > MAX_DEPTH || self.out.term.len() > MAX_COPY {
            return Err(Slow);
        }
        // SAFETY: `term` belongs to `env`.
        match unsafe { sys::enif_term_type(self.env, term) } {
            ErlNifTermType::ERL_NIF_TERM_TYPE_ATOM => self.atom(term),
            ErlNifTermType::ERL_NIF_TERM_TYPE_INTEGER => self.integer(term),
            ErlNifTermType::ERL_NIF_TERM_TYPE_BITSTRING => self.binary(term),
            ErlNifTermType::ERL_NIF_TERM_TYPE_TUPLE => self.tuple(term, depth),
            ErlNifTermType::ERL_NIF_TERM_TYPE_LIST => self.list(term, depth),
            ErlNifTermType::ERL_NIF_TERM_TYPE_MAP => self.map(term, depth),
            ErlNifTermType::ERL_NIF_TERM_TYPE_FLOAT => self.float(term),
            ErlNifTermType::ERL_NIF_TERM_TYPE_PID
            | ErlNifTermType::ERL_NIF_TERM_TYPE_PORT
            | ErlNifTermType::ERL_NIF_TERM_TYPE_REFERENCE => {
                self.out.identities = true;
                self.by_vm(term)
            }
            // The environment of a fun is of unknown size.
            _ => Err(Slow),
        }
    }

    fn by_vm(&mut self, term: ErlNifTerm) -> Result<(), Slow> {
        if raw::term_to_binary(self.env, term, &mut self.out.term) {
            Ok(())
        } else {
            Err(Slow)
        }
    }

    fn atom(&mut self, term: ErlNifTerm) -> Result<(), Slow> {
        let word = raw::word(term);
        let known = ATOMS.with_borrow(|atoms| match atoms.get(&word) {
            Some(bytes) => {
                self.out.term.extend_from_slice(bytes);
                true
            }
            None => false,
        });
        if known {
            return Ok(());
        }
        let start = self.out.term.len();
        self.by_vm(term)?;
        canonical_atom(&mut self.out.term, start);
        let bytes: Box<[u8]> = self.out.term[start..].into();
        ATOMS.with_borrow_mut(|atoms| {
            if atoms.len() >= MAX_CACHED_ATOMS {
                atoms.clear();
            }
            atoms.insert(word, bytes);
        });
        Ok(())
    }

    fn integer(&mut self, term: ErlNifTerm) -> Result<(), Slow> {
        let mut value = 0i64;
        // SAFETY: the VM writes the value if it fits.
        if unsafe { sys::enif_get_int64(self.env, term, &mut value) } == 0 {
            return self.by_vm(term);
        }
        if let Ok(byte) = u8::try_from(value) {
            self.out.term.extend_from_slice(&[97, byte]);
        } else if let Ok(int) = i32::try_from(value) {
            self.out.term.push(98);
            self.out.term.extend_from_slice(&int.to_be_bytes());
        } else {
            let magnitude = value.unsigned_abs().to_le_bytes();
            let used = magnitude.iter().rposition(|&b| b != 0).map_or(1, |i| i + 1);
            self.out
                .term
                .extend_from_slice(&[110, used as u8, u8::from(value < 0)]);
            self.out.term.extend_from_slice(&magnitude[..used]);
        }
        Ok(())
    }

    fn float(&mut self, term: ErlNifTerm) -> Result<(), Slow> {
        let mut value = 0f64;
        // SAFETY: the term is a float.
        if unsafe { sys::enif_get_double(self.env, term, &mut value) } == 0 {
            return Err(Slow);
        }
        self.out.term.push(70);
        self.out.term.extend_from_slice(&value.to_be_bytes());
        Ok(())
    }

    fn binary(&mut self, term: ErlNifTerm) -> Result<(), Slow> {
        let Some(bytes) = raw::inspect_binary(self.env, term) else {
            // A bit string: rare, and of unknown size.
            return Err(Slow);
        };
        let length = u32::try_from(bytes.len()).map_err(|_| Slow)?;
        self.out.term.push(109);
        self.out.term.extend_from_slice(&length.to_be_bytes());
        if bytes.len() >= OUT_OF_BAND_BYTES {
            self.out.blobs.push(term);
        } else {
            self.out.term.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn tuple(&mut self, term: ErlNifTerm, depth: u32) -> Result<(), Slow> {
        let mut arity: c_int = 0;
        let mut elements = MaybeUninit::<*const ErlNifTerm>::uninit();
        // SAFETY: the VM points us to the elements, which live as long as the environment.
        let elements = unsafe {
            if sys::enif_get_tuple(self.env, term, &mut arity, elements.as_mut_ptr()) == 0 {
                return Err(Slow);
            }
            if arity == 0 {
                &[][..]
            } else {
                std::slice::from_raw_parts(elements.assume_init(), arity as usize)
            }
        };
        match u8::try_from(elements.len()) {
            Ok(arity) => self.out.term.extend_from_slice(&[104, arity]),
            Err(_) => {
                self.out.term.push(105);
                self.out
                    .term
                    .extend_from_slice(&(elements.len() as u32).to_be_bytes());
            }
        }
        elements
            .iter()
            .try_for_each(|&element| self.put(element, depth + 1))
    }

    fn list(&mut self, term: ErlNifTerm, depth: u32) -> Result<(), Slow> {
        let start = self.out.term.len();
        self.out.term.extend_from_slice(&[108, 0, 0, 0, 0]);
        let mut rest = term;
        let mut length: c_uint = 0;
        loop {
            let (mut head, mut tail) = (rest, rest);
            // SAFETY: the VM writes head and tail if `rest` is a cell.
            if unsafe { sys::enif_get_list_cell(self.env, rest, &mut head, &mut tail) } == 0 {
                break;
            }
            self.put(head, depth + 1)?;
            length += 1;
            rest = tail;
        }
        if length == 0 {
            self.out.term.truncate(start);
            self.out.term.push(106);
            return Ok(());
        }
        self.out.term[start + 1..start + 5].copy_from_slice(&length.to_be_bytes());
        let mut zero: c_uint = 0;
        // SAFETY: succeeds for the empty list, the end of a proper one.
        if unsafe { sys::enif_get_list_length(self.env, rest, &mut zero) } != 0 {
            self.out.term.push(106);
            Ok(())
        } else {
            self.put(rest, depth + 1)
        }
    }

    fn map(&mut self, term: ErlNifTerm, depth: u32) -> Result<(), Slow> {
        let mut size = 0;
        // SAFETY: the VM writes the size of a map.
        if unsafe { sys::enif_get_map_size(self.env, term, &mut size) } == 0
            || size > MAX_NODES as usize
        {
            return Err(Slow);
        }
        self.out.term.push(116);
        self.out
            .term
            .extend_from_slice(&(size as u32).to_be_bytes());
        let env = self.env;
        let whole = raw::map_pairs(env, term, |key, value| {
            self.put(key, depth + 1).is_ok() && self.put(value, depth + 1).is_ok()
        });
        if whole { Ok(()) } else { Err(Slow) }
    }
}

/// Atoms go out as UTF-8: the old Latin-1 tags cost the receiver a conversion.
fn canonical_atom(out: &mut Vec<u8>, start: usize) {
    let text = match out.get(start..) {
        Some([100, _, _, text @ ..]) | Some([115, _, text @ ..]) => text,
        _ => return,
    };
    let text: String = text.iter().map(|&b| char::from(b)).collect();
    out.truncate(start);
    match u8::try_from(text.len()) {
        Ok(length) => out.extend_from_slice(&[119, length]),
        Err(_) => {
            out.push(118);
            out.extend_from_slice(&(text.len() as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(text.as_bytes());
}

/// The text of an atom.
pub(crate) fn atom_text(env: *mut ErlNifEnv, atom: ErlNifTerm) -> Option<String> {
    let mut buffer = [0u8; 256];
    // SAFETY: the VM writes at most the given length, with a final zero.
    let written = unsafe {
        sys::enif_get_atom(
            env,
            atom,
            buffer.as_mut_ptr().cast::<c_char>(),
            buffer.len() as c_uint,
            ErlNifCharEncoding::ERL_NIF_LATIN1,
        )
    };
    if written > 0 {
        let text = &buffer[..written as usize - 1];
        return Some(text.iter().map(|&b| char::from(b)).collect());
    }
    // Not Latin-1: NIF 2.16 can tell its text only by encoding it.
    let mut bytes = Vec::new();
    if !raw::term_to_binary(env, atom, &mut bytes) {
        return None;
    }
    match bytes.as_slice() {
        [119, _, text @ ..] | [118, _, _, text @ ..] => String::from_utf8(text.to_vec()).ok(),
        _ => None,
    }
}

/// The text of an atom, remembered per scheduler.
pub(crate) fn cached_text(env: *mut ErlNifEnv, atom: ErlNifTerm) -> Option<Rc<str>> {
    NAMES.with_borrow_mut(|names| {
        if let Some(name) = names.get(&raw::word(atom)) {
            return Some(name.clone());
        }
        if names.len() >= MAX_CACHED_ATOMS {
            names.clear();
        }
        let name: Rc<str> = atom_text(env, atom)?.into();
        names.insert(raw::word(atom), name.clone());
        Some(name)
    })
}
