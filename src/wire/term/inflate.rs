//! Compressed terms (`term_to_binary(Term, [compressed])`): 131, 80, the size of what follows
//! before it was compressed, and a zlib stream.
//!
//! Six bytes may claim four gigabytes, and a megabyte may honestly become one. So the claim is
//! compared with a limit and with what zlib can do at best, memory is taken as output appears,
//! and inflating ends where the claim does.

use super::{TermError, tag};
use crate::limits::MAX_INFLATED_BYTES;
use bytes::Bytes;
use flate2::{Decompress, FlushDecompress, Status};

/// Deflate's best: 258 bytes from two bits, a little more than 1,000 to 1.
const BEST_RATIO: usize = 1100;
/// Room for output that is taken at first; it doubles whenever it has been filled.
const FIRST_ROOM: usize = 16 << 10;
/// Version, tag and size.
const HEAD: usize = 6;

/// What a compressed term inflates to, with a version byte in front, and how many bytes it took.
/// `None` if it isn't compressed.
pub(super) fn inflate(bytes: &[u8]) -> Result<Option<(Bytes, usize)>, TermError> {
    let [tag::VERSION, tag::COMPRESSED, rest @ ..] = bytes else {
        return Ok(None);
    };
    let Some((size, stream)) = rest.split_first_chunk::<4>() else {
        return Err(TermError::Inflate("its size is cut off"));
    };
    let size = u32::from_be_bytes(*size) as usize;
    if size > MAX_INFLATED_BYTES {
        return Err(TermError::Size {
            bytes: size,
            limit: MAX_INFLATED_BYTES,
        });
    }
    if size / BEST_RATIO > stream.len() {
        return Err(TermError::Inflate("it claims more than can be in it"));
    }
    let mut zlib = Decompress::new(true);
    // One byte more than claimed shows a stream that goes on.
    let most = 1 + size + 1;
    let mut out = Vec::with_capacity(most.min(FIRST_ROOM));
    out.push(tag::VERSION);
    loop {
        let used = zlib.total_in() as usize;
        let made = out.len();
        let input = stream.get(used..).unwrap_or_default();
        let status = zlib
            .decompress_vec(input, &mut out, FlushDecompress::None)
            .map_err(|_| TermError::Inflate("it is no zlib stream"))?;
        let used_now = zlib.total_in() as usize;
        if status == Status::StreamEnd {
            return if out.len() == 1 + size {
                Ok(Some((out.into(), HEAD + used_now)))
            } else {
                Err(TermError::Inflate("its size is not what it claims"))
            };
        }
        if out.len() >= most {
            return Err(TermError::Inflate("its size is not what it claims"));
        }
        if out.len() == out.capacity() {
            out.reserve_exact(out.capacity().min(most - out.capacity()));
        } else if used_now == used && out.len() == made {
            return Err(TermError::Inflate("it is cut off"));
        }
    }
}
