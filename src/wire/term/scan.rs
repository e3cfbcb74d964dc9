//! What a peer's term is and costs, before anything decodes it.

use super::walk::{AtomText, Identifier, Kind, Token, Walker};
use super::{Form, TermError, TermLimits};
use crate::limits::MAX_BLOBS;

/// Decides whether an atom may enter this node.
pub trait AtomGate {
    /// Called for every atom in a term, names of nodes and modules of funs among them.
    /// `false` refuses the term.
    fn admit(&mut self, atom: &str) -> bool;
}

/// Admits every atom.
impl AtomGate for () {
    #[inline]
    fn admit(&mut self, _: &str) -> bool {
        true
    }
}

impl<A: AtomGate + ?Sized> AtomGate for &mut A {
    #[inline]
    fn admit(&mut self, atom: &str) -> bool {
        (**self).admit(atom)
    }
}

/// What [`scan`] has found out about a term.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Upper bound of the words that the decoded term takes on the heap of a 64-bit VM.
    pub heap_words: u64,
    /// Whether a pid, reference, port or fun occurs: whether there are identities to map.
    pub identities: bool,
    /// Whether a pid occurs outside of funs.
    pub pids: bool,
    /// Whether a reference occurs outside of funs.
    pub refs: bool,
    /// Deepest nesting.
    pub depth: u32,
    /// Pairs of the largest map, those in funs among them.
    pub widest_map: u32,
    /// Lengths of the elided binaries, in order.
    pub blobs: Vec<u32>,
}

/// Checks one encoded term from end to end, in one pass.
///
/// Whatever passes is well-formed, within `limits`, and consists of atoms that `atoms` has
/// admitted. What the VM may still refuse is a map with a key twice.
pub fn scan<A: AtomGate>(
    term: &[u8],
    form: Form,
    limits: &TermLimits,
    atoms: &mut A,
) -> Result<Facts, TermError> {
    if term.len() > limits.bytes {
        return Err(TermError::Size {
            bytes: term.len(),
            limit: limits.bytes,
        });
    }
    let max_words = limits.heap_bytes / WORD;
    let mut walker = Walker::new(term, form, limits.depth)?;
    let mut facts = Facts::default();
    while let Some(token) = walker.next()? {
        facts.heap_words += match token {
            Token::Integer(_) | Token::Nil => 0,
            Token::Atom(atom) => {
                admit(atoms, atom)?;
                0
            }
            Token::Binary(bytes) => binary_words(bytes.len()),
            Token::Blob(length) => {
                if facts.blobs.len() == MAX_BLOBS {
                    return Err(TermError::Blobs(MAX_BLOBS));
                }
                facts.blobs.push(length);
                REFC_BINARY
            }
            // Arity and elements.
            Token::Tuple(arity) => u64::from(arity) + 1,
            Token::List(length) => 2 * u64::from(length),
            Token::Map(pairs) => {
                facts.widest_map = facts.widest_map.max(pairs);
                map_words(pairs.into())
            }
            Token::Big { magnitude, .. } => 1 + (magnitude.len() as u64).div_ceil(WORD),
            Token::Float(_) => 2,
            Token::String(bytes) => 2 * bytes.len() as u64,
            Token::Bits { bytes, .. } => SUB_BINARY + binary_words(bytes.len()),
            Token::Identifier(identifier) => {
                admit(atoms, identifier.node)?;
                facts.identities = true;
                if !walker.in_fun() {
                    facts.pids |= identifier.kind == Kind::Pid;
                    facts.refs |= identifier.kind == Kind::Reference;
                }
                identifier_words(&identifier)
            }
            Token::Fun(fun) => {
                admit(atoms, fun.module)?;
                admit(atoms, fun.creator.node)?;
                facts.identities = true;
                FUN + u64::from(fun.free) + identifier_words(&fun.creator)
            }
            Token::Export {
                module, function, ..
            } => {
                admit(atoms, module)?;
                admit(atoms, function)?;
                EXPORT
            }
        };
        if facts.heap_words > max_words {
            return Err(TermError::Heap(limits.heap_bytes));
        }
    }
    facts.depth = walker.deepest();
    Ok(facts)
}

#[inline]
fn admit<A: AtomGate>(atoms: &mut A, atom: AtomText<'_>) -> Result<(), TermError> {
    let admitted = match atom {
        AtomText::Utf8(text) => atoms.admit(text),
        AtomText::Latin1(_) => atoms.admit(&atom.text()),
    };
    if admitted {
        Ok(())
    } else {
        Err(TermError::Atoms)
    }
}

// Words of the VM's heap objects. They differ a little between releases (measured with
// `erts_debug:flat_size/1`); the larger figure counts.
const WORD: u64 = 8;
const REFC_BINARY: u64 = 8;
const SUB_BINARY: u64 = 6;
const FUN: u64 = 6;
const EXPORT: u64 = 5;

#[inline]
fn binary_words(bytes: usize) -> u64 {
    // ERL_ONHEAP_BIN_LIMIT: longer ones live outside of the heap, in the bytes that have come.
    if bytes <= 64 {
        2 + (bytes as u64).div_ceil(WORD)
    } else {
        REFC_BINARY
    }
}

fn map_words(pairs: u64) -> u64 {
    if pairs <= 32 {
        // Keys tuple with its arity; header, size, pointer to the keys, values.
        4 + 2 * pairs
    } else {
        // A cons per pair and nodes of a hash array mapped trie: 3.7 to 4.2 words a pair.
        5 * pairs + 16
    }
}

#[inline]
fn identifier_words(identifier: &Identifier<'_>) -> u64 {
    match identifier.kind {
        Kind::Pid | Kind::Port => 4,
        Kind::Reference => 4 + (identifier.numbers.len() as u64).div_ceil(WORD),
    }
}
