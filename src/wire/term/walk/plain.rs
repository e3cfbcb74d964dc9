//! The terms that most others consist of, in one loop.
//!
//! Small integers, short atoms, binaries, tuples, lists, pids and references are all that most
//! messages are made of. Where nobody wants to see them one by one they are only checked and
//! added up; no token is made of them.

use super::{Open, Walker};
use crate::limits::OUT_OF_BAND_BYTES;
use crate::wire::term::scan::{AtomGate, Facts, binary_words, words};
use crate::wire::term::{TermError, tag};

impl Walker<'_> {
    /// Reads terms of the common kinds for as long as they come, and counts what they cost. It
    /// stops before what is anything else or wrong, which [`Self::next`] then tells: most
    /// of a term is read here, where nothing is made of it but a sum.
    ///
    /// # Errors
    /// If an atom is refused. It is told here, because a gate must not be asked again: it may take an
    /// atom that it has been asked for to be known from then on.
    #[inline(never)]
    pub(in crate::wire::term) fn plain<A: AtomGate>(
        &mut self,
        facts: &mut Facts,
        atoms: &mut A,
    ) -> Result<(), TermError> {
        if self.funs > 0 {
            return Ok(());
        }
        let bytes = self.bytes;
        let (mut at, mut left) = (self.at, self.top.left);
        let (mut words, mut pids, mut refs) = (0, false, false);
        loop {
            if left == 0 {
                if self.depth == 0 {
                    break;
                }
                self.close();
                left = self.top.left;
                continue;
            }
            let Some((&tag, body)) = bytes.get(at..).and_then(<[u8]>::split_first) else {
                break;
            };
            // What follows the tag. If it isn't there the term is refused, whatever was counted.
            let length = match tag {
                tag::SMALL_INTEGER => 1,
                tag::INTEGER => 4,
                tag::NIL => 0,
                tag::SMALL_ATOM_UTF8 | tag::CACHED_ATOM => match self.plain_atom(at, atoms)? {
                    Some(length) => length - 1,
                    None => break,
                },
                tag::BINARY => match body.first_chunk::<4>() {
                    Some(length) => {
                        let length = u32::from_be_bytes(*length) as usize;
                        if length >= OUT_OF_BAND_BYTES {
                            break;
                        }
                        words += binary_words(length);
                        4 + length
                    }
                    None => break,
                },
                tag::NEW_PID => match self.plain_atom(at + 1, atoms)? {
                    Some(length) => {
                        pids = true;
                        words += words::IDENTIFIER;
                        length + 12
                    }
                    None => break,
                },
                tag::NEWER_REFERENCE => match (body, self.plain_atom(at + 3, atoms)?) {
                    ([0, count @ 1..=5, ..], Some(length)) => {
                        refs = true;
                        words += words::IDENTIFIER + u64::from(*count).div_ceil(2);
                        2 + length + 4 + 4 * usize::from(*count)
                    }
                    _ => break,
                },
                tag::SMALL_TUPLE | tag::LIST => {
                    let (head, elements, cost) = match (tag, body) {
                        (tag::SMALL_TUPLE, [arity, ..]) => {
                            (2, u32::from(*arity), u64::from(*arity) + 1)
                        }
                        (tag::LIST, [a, b, c, d, ..]) => {
                            let length = u32::from_be_bytes([*a, *b, *c, *d]);
                            let Some(elements) = length.checked_add(1) else {
                                break;
                            };
                            (5, elements, 2 * u64::from(length))
                        }
                        _ => break,
                    };
                    if elements as usize > 1 + body.len() - head {
                        break;
                    }
                    if elements > 0 {
                        let [outer, open] =
                            [left - 1, elements].map(|left| Open { left, fun_end: 0 });
                        if self.enter(outer, open).is_err() {
                            break;
                        }
                        left = elements;
                    } else {
                        left -= 1;
                    }
                    words += cost;
                    at += head;
                    continue;
                }
                _ => break,
            };
            if length > body.len() {
                break;
            }
            at += 1 + length;
            left -= 1;
        }
        self.at = at;
        self.top.left = left;
        facts.heap_words += words;
        facts.identities |= pids | refs;
        facts.pids |= pids;
        facts.refs |= refs;
        Ok(())
    }

    /// The length of the atom that stands there, if it is a common one.
    #[inline(always)]
    fn plain_atom<A: AtomGate>(
        &mut self,
        at: usize,
        atoms: &mut A,
    ) -> Result<Option<usize>, TermError> {
        let Some(bytes) = self.bytes.get(at..) else {
            return Ok(None);
        };
        match *bytes {
            [tag::SMALL_ATOM_UTF8, length, ref rest @ ..] => {
                let Some(bytes) = rest.get(..length.into()) else {
                    return Ok(None);
                };
                if !A::ANY || !bytes.is_ascii() {
                    let Ok(text) = std::str::from_utf8(bytes) else {
                        return Ok(None);
                    };
                    if !atoms.admit(text) {
                        return Err(TermError::Atoms);
                    }
                }
                Ok(Some(2 + bytes.len()))
            }
            [tag::CACHED_ATOM, index, ..] => {
                let Some(text) = self.atoms.get(usize::from(index)) else {
                    return Ok(None);
                };
                if !A::ANY && !atoms.admit(text) {
                    return Err(TermError::Atoms);
                }
                self.refs.push((at, index));
                Ok(Some(2))
            }
            _ => Ok(None),
        }
    }
}
