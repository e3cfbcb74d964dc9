//! Messages and the persisted form of client–server, as bytes.
//!
//! ```text
//! message:  version:8 = 1  kind:8  body
//!   1 hello    tag:8 (0 undefined, 1 server, 2 client)  asks:8 (0, 1)  wants:8 (0, 1)  joined:8 (0, 1)  servers
//!   2 servers  servers
//!   3 gone     peer
//!   4 full     servers
//! servers:  count:8, peers
//! file:     sealed, "PTCS", version 1:  owner: peer  servers
//! ```

use super::Tag;
use crate::limits::{MAX_CONTROL_BYTES, MAX_SERVERS};
use crate::overlay::codec::{DecodeError, Reader, seal, unseal};
use crate::overlay::contract::{Peer, Wire};

const VERSION: u8 = 1;
const FILE_VERSION: u8 = 1;
const MAGIC: [u8; 4] = *b"PTCS";

/// Largest list, so that its message isn't larger than others take.
const MAX_LIST_BYTES: usize = MAX_CONTROL_BYTES - 64;

/// What nodes say to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<P> {
    /// What the sender is; the first message over a link, from both ends, and again if it wants the link later.
    Hello {
        /// Its tag.
        tag: Tag,
        /// Whether its user wants it to join the receiver.
        asks: bool,
        /// Whether it keeps a link with the receiver, so that it would be a neighbour.
        wants: bool,
        /// Whether it has joined lately, so that what is heard of its leave is old.
        joined: bool,
        /// Servers that it knows.
        servers: Vec<P>,
    },
    /// Servers that the sender knows. The first to a client takes it in, or sends it there.
    Servers(Vec<P>),
    /// This node, the sender or another one, has left or was removed.
    Gone(P),
    /// The sender has as many clients as it takes; here are other servers.
    Full(Vec<P>),
}

impl<P: Peer> Wire for Message<P> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        match self {
            Self::Hello {
                tag,
                asks,
                wants,
                joined,
                servers,
            } => {
                let tag = match tag {
                    Tag::Undefined => 0,
                    Tag::Server => 1,
                    Tag::Client => 2,
                };
                out.extend([1, tag, u8::from(*asks), u8::from(*wants)]);
                out.push(u8::from(*joined));
                put_servers(out, servers);
            }
            Self::Servers(servers) => {
                out.push(2);
                put_servers(out, servers);
            }
            Self::Gone(who) => {
                out.push(3);
                who.encode(out);
            }
            Self::Full(servers) => {
                out.push(4);
                put_servers(out, servers);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let size = reader.rest().len();
        if size > MAX_CONTROL_BYTES {
            return Err(DecodeError::TooLarge(size));
        }
        reader.version(VERSION)?;
        let message = match reader.u8()? {
            1 => Self::Hello {
                tag: match reader.u8()? {
                    0 => Tag::Undefined,
                    1 => Tag::Server,
                    2 => Tag::Client,
                    _ => return Err(DecodeError::Bad("tag")),
                },
                asks: reader.bool("asks")?,
                wants: reader.bool("wants")?,
                joined: reader.bool("joined")?,
                servers: servers(reader)?,
            },
            2 => Self::Servers(servers(reader)?),
            3 => Self::Gone(P::decode(reader)?),
            4 => Self::Full(servers(reader)?),
            _ => return Err(DecodeError::Bad("kind")),
        };
        reader.end()?;
        Ok(message)
    }
}

pub(super) fn encode_file<P: Peer>(owner: &P, servers: &[P]) -> Vec<u8> {
    let mut body = Vec::new();
    owner.encode(&mut body);
    put_servers(&mut body, servers);
    seal(MAGIC, FILE_VERSION, &body)
}

pub(super) fn decode_file<P: Peer>(owner: &P, bytes: &[u8]) -> Result<Vec<P>, DecodeError> {
    let mut reader = unseal(MAGIC, FILE_VERSION, bytes)?;
    let written_by = P::decode(&mut reader)?;
    if written_by != *owner {
        return Err(DecodeError::Foreign(format!("{written_by:?}").into()));
    }
    let servers = servers(&mut reader)?;
    reader.end()?;
    Ok(servers)
}

// What doesn't fit is left out: it would be refused.
fn put_servers<P: Peer>(out: &mut Vec<u8>, servers: &[P]) {
    let count_at = out.len();
    out.push(0);
    let mut count = 0;
    for server in servers.iter().take(MAX_SERVERS) {
        let end = out.len();
        server.encode(out);
        if out.len() > MAX_LIST_BYTES {
            out.truncate(end);
            break;
        }
        count += 1;
    }
    if let Some(byte) = out.get_mut(count_at) {
        *byte = count;
    }
}

fn servers<P: Peer>(reader: &mut Reader<'_>) -> Result<Vec<P>, DecodeError> {
    let count = reader.u8()?.into();
    if count > MAX_SERVERS {
        return Err(DecodeError::Bad("number of servers"));
    }
    let mut servers = Vec::new();
    for _ in 0..count {
        servers.push(P::decode(reader)?);
    }
    Ok(servers)
}
