//! The terms that most others consist of, in one loop.
//!
//! Small integers, short atoms, binaries, tuples, lists, pids and references are all that most
//! messages are made of. Where nobody wants to see them one by one they are only checked and
//! added up; no token is made of them.

use super::{Open, Walker};
use crate::limits::OUT_OF_BAND_BYTES;
use crate::wire::term::scan::{AtomGate, Facts, binary_words, words};
use crate::wire::term::tag;

impl Walker<'_> {
    /// Reads terms of the common kinds for as long as they come, and counts what they cost. It
    /// stops before what is anything else, wrong or refused, which [`Self::next`] then tells: most
    /// of a term is read here, where nothing is made of it but a sum.
    #[inline(never)]
    pub(in crate::wire::term) fn plain<A: AtomGate>(&mut self, facts: &mut Facts, atoms: &mut A) {
        if self.funs > 0 {
            return;
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
                tag::SMALL_ATOM_UTF8 | tag::CACHED_ATOM => match self.plain_atom(at, atoms) {
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
                tag::NEW_PID => match self.plain_atom(at + 1, atoms) {
                    Some(length) => {
                        pids = true;
                        words += words::IDENTIFIER;
                        length + 12
                    }
                    None => break,
                },
                tag::NEWER_REFERENCE => match (body, self.plain_atom(at + 3, atoms)) {
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
    }

    /// The length of the atom that stands there, if it is a common one.
    #[inline(always)]
    fn plain_atom<A: AtomGate>(&mut self, at: usize, atoms: &mut A) -> Option<usize> {
        match *self.bytes.get(at..)? {
            [tag::SMALL_ATOM_UTF8, length, ref rest @ ..] => {
                let bytes = rest.get(..length.into())?;
                if A::ANY && bytes.is_ascii() || atoms.admit(std::str::from_utf8(bytes).ok()?) {
                    Some(2 + bytes.len())
                } else {
                    None
                }
            }
            [tag::CACHED_ATOM, index, ..] => {
                let text = self.atoms.get(usize::from(index))?;
                if !A::ANY && !atoms.admit(text) {
                    return None;
                }
                self.refs.push((at, index));
                Some(2)
            }
            _ => None,
        }
    }
}
