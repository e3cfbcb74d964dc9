//! Large binaries taken out of a term and put back.
//!
//! `erlang:term_to_iovec/1` leaves large binaries as parts of their own. Such a part can travel
//! beside the term without a copy. Whether it really is the content of a binary is not for its
//! looks to decide: the term without it is walked, and the binaries that the walk misses must
//! be the very parts that were left out, each in its place.

use super::walk::{Token, Walker};
use super::{Form, TermError, tag};
use crate::limits::{MAX_BLOBS, MAX_TERM_DEPTH, OUT_OF_BAND_BYTES};
use bytes::Bytes;

/// A term and the binaries that are not in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elided {
    /// The encoded term, complete in itself if `form` is [`Form::Whole`].
    pub skeleton: Vec<u8>,
    /// The large binaries in the order of the term; none if `form` is [`Form::Whole`].
    pub blobs: Vec<Bytes>,
    /// Whether the binaries are missing in the skeleton.
    pub form: Form,
}

/// Splits the output of `erlang:term_to_iovec/1`.
///
/// Where that isn't possible (a large binary inside a fun, or one that is no part of its own)
/// the term stays whole.
#[must_use]
pub fn elide(parts: &[Bytes]) -> Elided {
    let mut skeleton = Vec::new();
    let mut blobs = Vec::new();
    let mut places = Vec::new();
    for part in parts {
        if part.len() >= OUT_OF_BAND_BYTES && announces(&skeleton, part.len()) {
            places.push((skeleton.len(), part.len()));
            blobs.push(part.clone());
        } else {
            skeleton.extend_from_slice(part);
        }
    }
    if blobs.is_empty() {
        return Elided {
            skeleton,
            blobs,
            form: Form::Whole,
        };
    }
    let mut agreed = 0;
    let walked = each_blob(&skeleton, |at, length| {
        let agrees = places.get(agreed) == Some(&(at, length as usize));
        agreed += 1;
        if agrees {
            Ok(())
        } else {
            Err(TermError::BlobMismatch)
        }
    });
    if walked.is_ok() && agreed == places.len() && agreed <= MAX_BLOBS {
        Elided {
            skeleton,
            blobs,
            form: Form::Elided,
        }
    } else {
        Elided {
            skeleton: parts.concat(),
            blobs: Vec::new(),
            form: Form::Whole,
        }
    }
}

/// Whether the term so far ends with the header of a binary of that length.
fn announces(term: &[u8], length: usize) -> bool {
    match (term.last_chunk::<5>(), u32::try_from(length)) {
        (Some([tag::BINARY, announced @ ..]), Ok(length)) => *announced == length.to_be_bytes(),
        _ => false,
    }
}

/// Calls `found` for each missing binary with the offset where it belongs and its length.
pub(super) fn each_blob(
    skeleton: &[u8],
    mut found: impl FnMut(usize, u32) -> Result<(), TermError>,
) -> Result<(), TermError> {
    let mut walker = Walker::new(skeleton, Form::Elided, MAX_TERM_DEPTH)?;
    while let Some(token) = walker.next()? {
        if let Token::Blob(length) = token {
            found(walker.at(), length)?;
        }
    }
    Ok(())
}

/// Puts binaries back into their places: the opposite of [`elide`].
pub fn inline(skeleton: &[u8], blobs: &[Bytes]) -> Result<Vec<u8>, TermError> {
    let size = skeleton.len() + blobs.iter().map(Bytes::len).sum::<usize>();
    let mut whole = Vec::with_capacity(size);
    let mut copied = 0;
    let mut rest = blobs.iter();
    each_blob(skeleton, |at, length| {
        let blob = rest.next().filter(|blob| blob.len() == length as usize);
        let run = skeleton.get(copied..at).unwrap_or_default();
        whole.extend_from_slice(run);
        whole.extend_from_slice(blob.ok_or(TermError::BlobMismatch)?);
        copied = at;
        Ok(())
    })?;
    if rest.next().is_some() {
        return Err(TermError::BlobMismatch);
    }
    whole.extend_from_slice(skeleton.get(copied..).unwrap_or_default());
    Ok(whole)
}
