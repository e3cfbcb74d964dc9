//! Compressed terms (`term_to_binary(Term, [compressed])`): 131, 80, the size of what follows
//! before it was compressed, and a zlib stream.
//!
//! Six bytes may claim four gigabytes, and a megabyte may honestly become one. So the claim is
//! compared with a limit and with what zlib can do at best, memory is taken as output appears,
//! and inflating ends where the claim does.
//!
//! All output stays where it is, instead of in a window of its own: so a stream that refers to
//! what was before its beginning is noticed, as zlib notices it.

use super::{TermError, tag};
use crate::limits::MAX_INFLATED_BYTES;
use bytes::Bytes;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_PARSE_ZLIB_HEADER, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

/// Deflate's best: 258 bytes from two bits, a little more than 1,000 to 1.
const BEST_RATIO: usize = 1100;
/// Room for output that is taken at first; it doubles whenever it has been filled.
const FIRST_ROOM: usize = 16 << 10;
/// Version, tag and size.
const HEAD: usize = 6;

const FLAGS: u32 = TINFL_FLAG_PARSE_ZLIB_HEADER | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;

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
    let mut zlib = DecompressorOxide::new();
    // One byte more than claimed shows a stream that goes on.
    let most = size + 1;
    let mut out = vec![0; 1 + most.min(FIRST_ROOM)];
    if let Some(version) = out.first_mut() {
        *version = tag::VERSION;
    }
    let (mut used, mut made) = (0, 0);
    loop {
        let input = stream.get(used..).unwrap_or_default();
        let room = out.get_mut(1..).unwrap_or_default();
        let (status, took, gave) = decompress(&mut zlib, input, room, made, FLAGS);
        used += took;
        made += gave;
        match status {
            TINFLStatus::Done if made == size => {
                out.truncate(1 + size);
                return Ok(Some((out.into(), HEAD + used)));
            }
            TINFLStatus::HasMoreOutput if made < most => {
                out.resize(1 + most.min(2 * (out.len() - 1)), 0);
            }
            TINFLStatus::Done | TINFLStatus::HasMoreOutput => {
                return Err(TermError::Inflate("its size is not what it claims"));
            }
            TINFLStatus::FailedCannotMakeProgress => {
                return Err(TermError::Inflate("it is cut off"));
            }
            _ => return Err(TermError::Inflate("it is no zlib stream")),
        }
    }
}
