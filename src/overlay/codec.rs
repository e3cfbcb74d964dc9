//! Bytes of membership messages: what all protocols of this crate read and write alike.
//!
//! Integers are big-endian. A text is `length:16, UTF-8`. Nothing is allocated by a length that a
//! peer claims.
//!
//! What a protocol persists is sealed, so that a damaged file is refused as a whole:
//!
//! ```text
//! file:     magic:4 bytes  version:8  SHA-256 of the body:32 bytes  body
//! ```

use std::sync::Arc;

use sha2::{Digest, Sha256};

const DIGEST_BYTES: usize = 32;

/// Why bytes are no message of a protocol, or no file of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a field.
    #[error("ends early")]
    Truncated,
    /// There are bytes after the end.
    #[error("{0} bytes after the end")]
    Trailing(usize),
    /// The format's version is unknown.
    #[error("version {0} is unknown")]
    Version(u8),
    /// More bytes than a message may have.
    #[error("{0} bytes are too many")]
    TooLarge(usize),
    /// A field has a value that it may not have.
    #[error("bad {0}")]
    Bad(&'static str),
    /// Names are not in strictly ascending order.
    #[error("entries are out of order")]
    Order,
    /// The file does not begin as a membership file does.
    #[error("not a membership file")]
    Magic,
    /// The file's digest is not that of its content.
    #[error("the file is damaged: its checksum does not match")]
    Damaged,
    /// The file was written by a node of another name.
    #[error("the file belongs to node {0}")]
    Foreign(Arc<str>),
}

/// Reads fields one after the other.
#[derive(Clone, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The bytes that have not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    /// The next bytes, as many as the array has.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(*head)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    /// A 16-bit integer.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// A 32-bit integer.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// A 64-bit integer.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A truth value, 0 or 1; `what` names it in the error.
    pub fn bool(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Bad(what)),
        }
    }

    /// A text.
    pub fn text(&mut self) -> Result<&'a str, DecodeError> {
        let length = self.u16()?.into();
        std::str::from_utf8(self.take(length)?).map_err(|_| DecodeError::Bad("text"))
    }

    /// A version, which must be this one.
    pub fn version(&mut self, known: u8) -> Result<(), DecodeError> {
        match self.u8()? {
            version if version == known => Ok(()),
            other => Err(DecodeError::Version(other)),
        }
    }

    /// The end: an error if there are more bytes.
    pub fn end(&self) -> Result<(), DecodeError> {
        match self.0.len() {
            0 => Ok(()),
            n => Err(DecodeError::Trailing(n)),
        }
    }
}

/// Appends a text. Its length must fit 16 bits; what is longer is cut at a character.
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    let end = text.floor_char_boundary(text.len().min(u16::MAX.into()));
    out.extend_from_slice(&(end as u16).to_be_bytes());
    out.extend_from_slice(&text.as_bytes()[..end]);
}

/// The file of a protocol that has this body.
pub fn seal(magic: [u8; 4], version: u8, body: &[u8]) -> Vec<u8> {
    let mut out = magic.to_vec();
    out.push(version);
    out.extend_from_slice(&Sha256::digest(body));
    out.extend_from_slice(body);
    out
}

/// The body of a file that [`seal`] has made.
pub fn unseal(magic: [u8; 4], version: u8, bytes: &[u8]) -> Result<Reader<'_>, DecodeError> {
    let mut reader = Reader::new(bytes);
    if reader.array() != Ok(magic) {
        return Err(DecodeError::Magic);
    }
    reader.version(version)?;
    let digest = reader.take(DIGEST_BYTES)?;
    if digest != Sha256::digest(reader.rest()).as_slice() {
        return Err(DecodeError::Damaged);
    }
    Ok(reader)
}
