//! Terms of stock peers made canonical.
//!
//! A node of stock OTP writes terms that no [`Term`] may hold: behind a distribution header they
//! lack the version byte and refer to atoms by their place in the header, and they may be
//! compressed. One walk checks such a term and notes where it differs; then it is put together
//! with as few copies as possible:
//!
//! * What is canonical as it stands is a slice of the bytes that came.
//! * Otherwise all but the large binaries is copied, and these stand beside the term as slices.
//!
//! A slice keeps all of the buffer alive. Where less than a quarter of the buffer would be of
//! use ([`MAX_PINNED_RATIO`]), it is copied.

use super::inflate::inflate;
use super::keys::Keys;
use super::map::write_atom;
use super::walk::{Token, Walker};
use super::{Facts, Term, TermError, TermLimits, tag};
use crate::limits::{MAX_BLOBS, MAX_PINNED_RATIO, MAX_TERM_DEPTH, OUT_OF_BAND_BYTES};
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

/// How a term begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Start {
    /// With the version byte 131.
    Version,
    /// With its tag, as terms behind a distribution header do.
    Bare,
}

/// Takes the term that `bytes` begin with, as a stock node writes it, and says how many bytes
/// it took. Others may follow.
///
/// Every tag of `erl_ext_dist` that OTP reads is understood. `atoms` are those that the
/// distribution header names, in its order; without a header there are none, and references to
/// them are refused. A compressed term has to begin with its version byte.
pub fn normalise(
    bytes: &Bytes,
    start: Start,
    atoms: &[Arc<str>],
    limits: &TermLimits,
) -> Result<(Term, usize), TermError> {
    if start == Start::Version {
        if let Some((inflated, consumed)) = inflate(bytes)? {
            let (term, length) = plain(&inflated, start, &[], limits)?;
            return match inflated.len() - length {
                0 => Ok((term, consumed)),
                rest => Err(TermError::Trailing(rest)),
            };
        }
        if bytes.first() != Some(&tag::VERSION) {
            return Err(TermError::Version(bytes.first().copied()));
        }
    }
    plain(bytes, start, atoms, limits)
}

fn plain(
    bytes: &Bytes,
    start: Start,
    atoms: &[Arc<str>],
    limits: &TermLimits,
) -> Result<(Term, usize), TermError> {
    let begin = usize::from(start == Start::Version);
    // No deeper than `Term::decode` can go.
    let depth = limits.depth.min(MAX_TERM_DEPTH);
    let mut walker = Walker::within(bytes, begin, atoms, depth)?;
    let mut facts = Facts::default();
    let mut edits = Vec::new();
    let mut blobs: Vec<Range<usize>> = Vec::new();
    let mut blob_bytes = 0;
    let mut keys = Keys::new(bytes.len());
    loop {
        if keys.idle() {
            walker.plain(&mut facts, &mut ())?;
            if walker.has_refs() {
                edits.extend(walker.take_refs().map(|(at, index)| Edit::Atom(at, index)));
            }
        }
        let Some(token) = walker.next()? else {
            break;
        };
        facts.count(&token, &walker, limits, &mut ())?;
        keys.see(&token, &walker, bytes, atoms)?;
        match token {
            Token::Fun(fun) => edits.push(Edit::Fun(fun.size_at, fun.end)),
            Token::Binary(binary) if binary.len() >= OUT_OF_BAND_BYTES && !walker.in_fun() => {
                if blobs.len() == MAX_BLOBS {
                    return Err(TermError::Blobs(MAX_BLOBS));
                }
                let end = walker.at();
                blobs.push(end - binary.len()..end);
                blob_bytes += binary.len();
                edits.push(Edit::Blob(end - binary.len(), end));
            }
            _ => {}
        }
        if walker.has_refs() {
            edits.extend(walker.take_refs().map(|(at, index)| Edit::Atom(at, index)));
        }
    }
    facts.affordable(limits)?;
    if !keys.idle() {
        keys.end()?;
    }
    let consumed = walker.at();
    let size = consumed - blob_bytes;
    if size > limits.bytes {
        return Err(TermError::Size {
            bytes: size,
            limit: limits.bytes,
        });
    }
    let pins = |kept: usize| kept < bytes.len() / MAX_PINNED_RATIO;
    let refs = edits.iter().any(|edit| matches!(edit, Edit::Atom(..)));
    if start == Start::Version && !refs && consumed <= limits.bytes {
        let whole = match bytes.get(..consumed) {
            Some(whole) if pins(consumed) => Bytes::copy_from_slice(whole),
            _ => bytes.slice(..consumed),
        };
        return Ok((
            Term::from_checked(whole, Vec::new(), facts.foreign()),
            consumed,
        ));
    }
    let mut skeleton = Vec::with_capacity(1 + size);
    skeleton.push(tag::VERSION);
    rewrite(bytes, begin..consumed, &edits, atoms, &mut skeleton)?;
    if skeleton.len() > limits.bytes {
        return Err(TermError::Size {
            bytes: skeleton.len(),
            limit: limits.bytes,
        });
    }
    let copied = pins(blob_bytes);
    let blobs: Vec<Bytes> = blobs
        .into_iter()
        .map(|place| match bytes.get(place.clone()) {
            Some(blob) if copied => Bytes::copy_from_slice(blob),
            _ => bytes.slice(place),
        })
        .collect();
    let term = Term::from_checked(skeleton.into(), blobs, facts.foreign());
    Ok((term, consumed))
}

/// Where a copy differs from the bytes that came.
enum Edit {
    /// The size field of a fun, and its end. It changes with what is inside.
    Fun(usize, usize),
    /// A large binary, left out.
    Blob(usize, usize),
    /// A reference to the atom of that index.
    Atom(usize, u8),
}

/// Appends a part of a term with the edits made.
fn rewrite(
    bytes: &[u8],
    part: Range<usize>,
    edits: &[Edit],
    atoms: &[Arc<str>],
    out: &mut Vec<u8>,
) -> Result<(), TermError> {
    // Of each open fun: its end, where its size field is in `out`, its size less the growth of
    // all before it.
    let mut funs: Vec<(usize, usize, i64)> = Vec::new();
    let mut growth = 0i64;
    let mut done = part.start;
    let run = |range: Range<usize>| bytes.get(range).unwrap_or_default();
    let close = |out: &mut Vec<u8>, funs: &mut Vec<(usize, usize, i64)>, at, growth| {
        while let Some((_, place, size)) = funs.pop_if(|(end, ..)| *end <= at) {
            let size = u32::try_from(size + growth)
                .map_err(|_| TermError::Fun("it has grown too large"))?;
            if let Some(field) = out.get_mut(place..place + 4) {
                field.copy_from_slice(&size.to_be_bytes());
            }
        }
        Ok(())
    };
    for edit in edits {
        let (Edit::Fun(at, _) | Edit::Blob(at, _) | Edit::Atom(at, _)) = *edit;
        close(out, &mut funs, at, growth)?;
        out.extend_from_slice(run(done..at));
        done = at;
        match *edit {
            Edit::Fun(at, end) => funs.push((end, out.len(), (end - at) as i64 - growth)),
            Edit::Blob(_, end) => done = end,
            Edit::Atom(_, index) => {
                let text = atoms.get(usize::from(index)).map_or("", |text| text);
                let before = out.len();
                write_atom(text, out);
                done += 2;
                growth += (out.len() - before) as i64 - 2;
            }
        }
    }
    close(out, &mut funs, part.end, growth)?;
    out.extend_from_slice(run(done..part.end));
    Ok(())
}

/// A fun whose atoms are references, with their texts in place.
pub(super) fn fun_with_atoms(
    bytes: &[u8],
    at: usize,
    atoms: &[Arc<str>],
) -> Result<Bytes, TermError> {
    let mut walker = Walker::within(bytes, at, atoms, u32::MAX)?;
    let mut edits = Vec::new();
    while let Some(token) = walker.next()? {
        if let Token::Fun(fun) = token {
            edits.push(Edit::Fun(fun.size_at, fun.end));
        }
        edits.extend(walker.take_refs().map(|(at, index)| Edit::Atom(at, index)));
    }
    let mut out = Vec::new();
    rewrite(bytes, at..walker.at(), &edits, atoms, &mut out)?;
    Ok(out.into())
}
