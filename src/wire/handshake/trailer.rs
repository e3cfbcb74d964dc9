//! What Partisan adds to the handshake: the trailer after a name, the binding after a digest, and
//! the computations that both ends share.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha2::{Digest, Sha256};

use crate::limits::MAX_CONNECTIONS;
use crate::wire::handshake::HandshakeError;
use crate::wire::reader;

const MAGIC: &[u8; 4] = b"PTSN";
const TRAILER_VERSION: u8 = 1;
const FRAME_VERSION: u8 = 1;
/// Bytes of a version 1 trailer after its length field.
const TRAILER_BODY: u16 = 30;
const PURPOSE_FIRST: u8 = 0;
const PURPOSE_EXTRA: u8 = 1;

/// What a Partisan peer says after its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Capability bits; unknown ones are to be ignored.
    pub capabilities: u32,
    /// Whether the connection is a further one of a session.
    pub extra: bool,
    /// Tells one start of the application from another.
    pub instance: u64,
    /// Random bytes of this handshake.
    pub nonce: [u8; 16],
}

impl Trailer {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(37);
        out.extend_from_slice(MAGIC);
        out.push(TRAILER_VERSION);
        out.extend_from_slice(&TRAILER_BODY.to_be_bytes());
        out.extend_from_slice(&self.capabilities.to_be_bytes());
        out.push(FRAME_VERSION);
        out.push(if self.extra {
            PURPOSE_EXTRA
        } else {
            PURPOSE_FIRST
        });
        out.extend_from_slice(&self.instance.to_be_bytes());
        out.extend_from_slice(&self.nonce);
        out
    }

    /// Reads the trailer at the front of what follows a name.
    ///
    /// Bytes that do not begin with the magic are somebody else's extension: no trailer. A longer
    /// trailer, and bytes behind it, come from a later release and are ignored.
    pub(super) fn parse(residue: &[u8]) -> Result<Option<Trailer>, HandshakeError> {
        let Some(mut input) = residue.strip_prefix(MAGIC) else {
            return Ok(None);
        };
        let short = || malformed("the Partisan trailer ends too early");
        let version = reader::u8(&mut input).ok_or_else(short)?;
        if version != TRAILER_VERSION {
            return Err(HandshakeError::TrailerVersion(version));
        }
        let length = reader::u16(&mut input).ok_or_else(short)?;
        let mut body = reader::bytes(&mut input, length.into()).ok_or_else(short)?;
        let capabilities = reader::u32(&mut body).ok_or_else(short)?;
        let frame = reader::u8(&mut body).ok_or_else(short)?;
        if frame != FRAME_VERSION {
            return Err(HandshakeError::FrameVersion(frame));
        }
        let extra = match reader::u8(&mut body).ok_or_else(short)? {
            PURPOSE_FIRST => false,
            PURPOSE_EXTRA => true,
            _ => return Err(malformed("the Partisan trailer has an unknown purpose")),
        };
        let instance = reader::u64(&mut body).ok_or_else(short)?;
        let nonce = reader::array(&mut body).ok_or_else(short)?;
        Ok(Some(Trailer {
            capabilities,
            extra,
            instance,
            nonce,
        }))
    }
}

fn malformed(what: &'static str) -> HandshakeError {
    HandshakeError::Malformed {
        packet: "name or challenge",
        what,
    }
}

/// Names a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub [u8; 16]);

impl SessionId {
    /// The session that begins with a handshake of these nonces.
    pub fn derive(dialler: &[u8; 16], listener: &[u8; 16]) -> SessionId {
        let mut hash = Sha256::new();
        hash.update(b"partisan session 1");
        hash.update(dialler);
        hash.update(listener);
        let mut id = [0; 16];
        id.iter_mut()
            .zip(hash.finalize())
            .for_each(|(to, from)| *to = from);
        SessionId(id)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

/// The random values of one handshake, which a binding covers.
pub(super) struct Freshness {
    pub(super) listener_challenge: u32,
    pub(super) dialler_nonce: [u8; 16],
    pub(super) listener_nonce: [u8; 16],
}

/// Proof that a connection belongs to a session.
pub(super) struct Binding {
    pub(super) session: SessionId,
    pub(super) index: u16,
    mac: [u8; 32],
}

impl Binding {
    pub(super) fn new(cookie: &[u8], session: SessionId, index: u16, fresh: &Freshness) -> Self {
        let mut mac = [0; 32];
        let code = authenticate(cookie, session, index, fresh)
            .finalize()
            .into_bytes();
        mac.iter_mut().zip(code).for_each(|(to, from)| *to = from);
        Binding {
            session,
            index,
            mac,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        [&self.session.0[..], &self.index.to_be_bytes(), &self.mac].concat()
    }

    /// Reads a binding that takes all of `bytes`, and checks it except for its proof.
    pub(super) fn parse(bytes: &[u8]) -> Result<Binding, &'static str> {
        let mut input = bytes;
        let short = "its binding is too short";
        let session = SessionId(reader::array(&mut input).ok_or(short)?);
        let index = reader::u16(&mut input).ok_or(short)?;
        let mac = reader::array(&mut input).ok_or(short)?;
        match usize::from(index) {
            _ if !input.is_empty() => Err("its binding is too long"),
            0 => Err("index 0 is the first connection's"),
            MAX_CONNECTIONS.. => Err("the index is larger than any session's"),
            _ => Ok(Binding {
                session,
                index,
                mac,
            }),
        }
    }

    /// Compares in constant time.
    pub(super) fn is_authentic(&self, cookie: &[u8], fresh: &Freshness) -> bool {
        authenticate(cookie, self.session, self.index, fresh)
            .verify_slice(&self.mac)
            .is_ok()
    }
}

fn authenticate(cookie: &[u8], session: SessionId, index: u16, fresh: &Freshness) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(cookie).expect("HMAC takes keys of any length");
    mac.update(b"partisan bind 1");
    mac.update(&session.0);
    mac.update(&index.to_be_bytes());
    mac.update(&fresh.listener_challenge.to_be_bytes());
    mac.update(&fresh.dialler_nonce);
    mac.update(&fresh.listener_nonce);
    mac
}

/// Erlang's answer to a challenge: MD5 of the cookie and the challenge in decimal.
pub(super) fn digest(cookie: &[u8], challenge: u32) -> [u8; 16] {
    let mut hash = Md5::new();
    hash.update(cookie);
    hash.update(challenge.to_string());
    hash.finalize().into()
}
