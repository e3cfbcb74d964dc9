//! What a peer's term is and costs, before anything decodes it.

use super::walk::{AtomText, Identifier, Kind, Token, Walker};
use super::{Form, TermError, TermLimits};
use crate::limits::MAX_BLOBS;

/// Decides whether an atom may enter this node.
pub trait AtomGate {
    /// Whether it admits every atom, so that it need not be asked.
    const ANY: bool = false;

    /// Called for every atom in a term, names of nodes and modules of funs among them.
    /// `false` refuses the term.
    fn admit(&mut self, atom: &str) -> bool;
}

/// Admits every atom.
impl AtomGate for () {
    const ANY: bool = true;

    #[inline]
    fn admit(&mut self, _: &str) -> bool {
        true
    }
}

impl<A: AtomGate + ?Sized> AtomGate for &mut A {
    const ANY: bool = A::ANY;

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
    /// Whether a native record occurs. OTP 28 and older can't decode it.
    pub records: bool,
    /// Whether a term in a node's private encoding occurs. Only that node can decode it.
    pub local: bool,
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
    let mut facts = Facts::default();
    check(term, form, limits, atoms, &mut facts)?;
    Ok(facts)
}

/// The same for whom facts are not worth moving.
#[inline]
pub(super) fn check<A: AtomGate>(
    term: &[u8],
    form: Form,
    limits: &TermLimits,
    atoms: &mut A,
    facts: &mut Facts,
) -> Result<(), TermError> {
    if term.len() > limits.bytes {
        return Err(TermError::Size {
            bytes: term.len(),
            limit: limits.bytes,
        });
    }
    let mut walker = Walker::new(term, form, limits.depth)?;
    loop {
        walker.plain(facts, atoms)?;
        if walker.at_end() {
            break;
        }
        match walker.next()? {
            Some(token) => facts.count(&token, &walker, limits, atoms)?,
            None => break,
        }
    }
    facts.affordable(limits)?;
    facts.depth = walker.deepest();
    Ok(())
}

impl Facts {
    /// Takes account of the token that the walker has just read.
    #[inline]
    pub(super) fn count<'a, A: AtomGate>(
        &mut self,
        token: &Token<'a>,
        walker: &Walker<'a>,
        limits: &TermLimits,
        atoms: &mut A,
    ) -> Result<(), TermError> {
        self.heap_words += match *token {
            Token::Integer | Token::Nil => 0,
            Token::Atom(atom) => {
                admit(atoms, atom)?;
                0
            }
            Token::Binary(bytes) => binary_words(bytes.len()),
            Token::Blob(length) => {
                if self.blobs.len() == MAX_BLOBS {
                    return Err(TermError::Blobs(MAX_BLOBS));
                }
                self.blobs.push(length);
                words::REFC_BINARY
            }
            // Arity and elements.
            Token::Tuple(arity) => u64::from(arity) + 1,
            Token::List(length) => 2 * u64::from(length),
            Token::Map(pairs) => {
                self.widest_map = self.widest_map.max(pairs);
                map_words(pairs.into())
            }
            Token::Big(magnitude) => 1 + (magnitude.len() as u64).div_ceil(words::WORD),
            Token::Float => words::FLOAT,
            Token::String(bytes) => 2 * bytes.len() as u64,
            Token::Bits(bytes) => words::SUB_BINARY + binary_words(bytes.len()),
            Token::Identifier(identifier) => {
                admit(atoms, identifier.node)?;
                self.identities = true;
                if !walker.in_fun() {
                    self.pids |= identifier.kind == Kind::Pid;
                    self.refs |= identifier.kind == Kind::Reference;
                }
                identifier_words(&identifier)
            }
            Token::Fun(fun) => {
                admit(atoms, fun.module)?;
                admit(atoms, fun.creator.node)?;
                self.identities = true;
                words::FUN + u64::from(fun.free) + identifier_words(&fun.creator)
            }
            Token::Export {
                module, function, ..
            } => {
                admit(atoms, module)?;
                admit(atoms, function)?;
                words::EXPORT
            }
            Token::Record(record) => {
                self.records = true;
                admit(atoms, record.module)?;
                admit(atoms, record.name)?;
                walker
                    .names(&record)
                    .try_for_each(|name| admit(atoms, name))?;
                words::record(record.fields.into())
            }
            Token::Local(bytes) => {
                self.local = true;
                // Not more than the densest of lists.
                5 * bytes.len() as u64
            }
        };
        self.affordable(limits)
    }

    /// Whether the decoded term may take as much as is known by now.
    #[inline]
    pub(super) fn affordable(&self, limits: &TermLimits) -> Result<(), TermError> {
        if self.heap_words > limits.heap_bytes / words::WORD {
            return Err(TermError::Heap(limits.heap_bytes));
        }
        Ok(())
    }

    /// Refuses what a VM that is a peer need not know: native records (OTP 29) and terms in a
    /// node's private encoding.
    pub fn common(&self) -> Result<(), TermError> {
        self.foreign().map_or(Ok(()), |kind| Err(kind.error()))
    }

    pub(super) fn foreign(&self) -> Option<Foreign> {
        if self.records {
            return Some(Foreign::Record);
        }
        self.local.then_some(Foreign::Local)
    }
}

/// What a VM that is a peer need not know.
// A whole word, as a term moves in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(in crate::wire) enum Foreign {
    Record,
    Local,
}

impl Foreign {
    pub(super) fn error(self) -> TermError {
        TermError::Foreign(match self {
            Self::Record => "a native record",
            Self::Local => "a term in a private encoding",
        })
    }
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

/// Words of the VM's heap objects. They differ a little between releases (measured with
/// `erts_debug:flat_size/1`); the larger figure counts.
pub(super) mod words {
    pub(in super::super) const WORD: u64 = 8;
    pub(super) const REFC_BINARY: u64 = 8;
    pub(in super::super) const SUB_BINARY: u64 = 6;
    pub(super) const FUN: u64 = 6;
    pub(super) const EXPORT: u64 = 5;
    pub(in super::super) const FLOAT: u64 = 2;
    /// A pid or port; a reference before its words.
    pub(in super::super) const IDENTIFIER: u64 = 4;

    /// Instance, definition and the order of fields.
    pub(in super::super) fn record(fields: u64) -> u64 {
        16 + 4 * fields
    }
}

#[inline]
pub(super) fn binary_words(bytes: usize) -> u64 {
    // ERL_ONHEAP_BIN_LIMIT: longer ones live outside of the heap, in the bytes that have come.
    if bytes <= 64 {
        2 + (bytes as u64).div_ceil(words::WORD)
    } else {
        words::REFC_BINARY
    }
}

#[inline]
pub(super) fn map_words(pairs: u64) -> u64 {
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
        Kind::Pid | Kind::Port => words::IDENTIFIER,
        Kind::Reference => {
            words::IDENTIFIER + (identifier.numbers.len() as u64).div_ceil(words::WORD)
        }
    }
}
