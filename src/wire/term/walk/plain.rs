//! The terms that most others consist of, in one loop.
//!
//! Small integers, short atoms, binaries, tuples, lists, pids and references are all that most
//! messages are made of. Where nobody wants to see them one by one they are only checked and
//! added up; no token is made of them.

use super::{Open, Walker};
use crate::limits::OUT_OF_BAND_BYTES;
use crate::wire::term::scan::{AtomGate, Facts, binary_words, words};
use crate::wire::term::{TermError, tag};

impl<'a> Walker<'a> {
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
        let (mut rest, mut left) = (self.rest(), self.top.left);
        let mut words = 0;
        loop {
            if left == 0 {
                if self.depth == 0 {
                    break;
                }
                self.close();
                left = self.top.left;
                continue;
            }
            let Some((&tag, body)) = rest.split_first() else {
                break;
            };
            let after = match tag {
                tag::SMALL_INTEGER => body.get(1..),
                tag::INTEGER => body.get(4..),
                tag::NIL => Some(body),
                tag::SMALL_ATOM_UTF8 | tag::CACHED_ATOM => self.plain_atom(rest, atoms)?,
                tag::BINARY => match body.split_first_chunk::<4>() {
                    Some((length, body)) => {
                        let length = u32::from_be_bytes(*length) as usize;
                        if length >= OUT_OF_BAND_BYTES {
                            break;
                        }
                        words += binary_words(length);
                        body.get(length..)
                    }
                    None => break,
                },
                tag::NEW_PID => match self.plain_atom(body, atoms)? {
                    Some(body) => {
                        facts.pids = true;
                        words += words::IDENTIFIER;
                        body.get(12..)
                    }
                    None => break,
                },
                tag::NEWER_REFERENCE => match body {
                    [0, count @ 1..=5, body @ ..] => match self.plain_atom(body, atoms)? {
                        Some(body) => {
                            facts.refs = true;
                            words += words::IDENTIFIER + u64::from(*count).div_ceil(2);
                            body.get(4 + 4 * usize::from(*count)..)
                        }
                        None => break,
                    },
                    _ => break,
                },
                tag::SMALL_TUPLE | tag::LIST => {
                    let (after, elements, cost) = match (tag, body) {
                        (tag::SMALL_TUPLE, [arity, after @ ..]) => {
                            (after, u32::from(*arity), u64::from(*arity) + 1)
                        }
                        (tag::LIST, [a, b, c, d, after @ ..]) => {
                            let length = u32::from_be_bytes([*a, *b, *c, *d]);
                            let Some(elements) = length.checked_add(1) else {
                                break;
                            };
                            (after, elements, 2 * u64::from(length))
                        }
                        _ => break,
                    };
                    if elements as usize > after.len() {
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
                    rest = after;
                    continue;
                }
                _ => break,
            };
            // What is cut off is refused, whatever was counted.
            let Some(after) = after else {
                break;
            };
            rest = after;
            left -= 1;
        }
        self.at = self.bytes.len() - rest.len();
        self.top.left = left;
        facts.heap_words += words;
        facts.identities |= facts.pids | facts.refs;
        Ok(())
    }

    #[inline(always)]
    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// What follows the atom that stands there, if it is a common one.
    #[inline(always)]
    fn plain_atom<A: AtomGate>(
        &mut self,
        bytes: &'a [u8],
        atoms: &mut A,
    ) -> Result<Option<&'a [u8]>, TermError> {
        match *bytes {
            [tag::SMALL_ATOM_UTF8, length, ref rest @ ..] => {
                let Some((bytes, after)) = rest.split_at_checked(length.into()) else {
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
                Ok(Some(after))
            }
            [tag::CACHED_ATOM, index, ref after @ ..] => {
                let Some(text) = self.atoms.get(usize::from(index)) else {
                    return Ok(None);
                };
                if !A::ANY && !atoms.admit(text) {
                    return Err(TermError::Atoms);
                }
                self.refs.push((self.bytes.len() - bytes.len(), index));
                Ok(Some(after))
            }
            _ => Ok(None),
        }
    }
}
