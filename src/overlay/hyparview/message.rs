//! Messages and the persisted form of HyParView, as bytes.
//!
//! ```text
//! message:  version:8 = 1  kind:8  body
//!   1 join           peer
//!   2 forward join   ttl:8  peer
//!   3 neighbor       priority:8 (0 low, 1 high)  peer  peers
//!   4 accept         peers
//!   5 refuse         reason:8 (0 full, 1 near)  peers
//!   6 evict          peers
//!   7 left
//!   8 shuffle        ttl:8  peer  peers
//!   9 shuffle reply  peers
//!  10 probe          ttl:8  peer  peers
//!  11 hello          peer
//!  12 ping           number:64
//!  13 pong           number:64
//!  14 optimise       saved: time  peer
//!  15 optimised      accepted:8
//!  16 replace        saved: time  peer  peer
//!  17 replaced       accepted:8
//!  18 switch         cost: time  peer
//!  19 switched       accepted:8
//! time:     microseconds:32
//! peers:    count:8, peers
//! file:     sealed, "PTHV", version 1:  owner: peer
//!           passive view: list  linked: list  heard of: list
//! list:     count:16, peers
//! ```

use std::time::Duration;

use crate::limits::{MAX_CONTROL_BYTES, MAX_GOSSIPED, MAX_HISTORY};
use crate::overlay::codec::{DecodeError, Reader, seal, unseal};
use crate::overlay::contract::{Peer, Wire};

const VERSION: u8 = 1;
const MAGIC: [u8; 4] = *b"PTHV";

/// How much a node needs a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Priority {
    /// It has others: only a free place will do.
    Low,
    /// It has none, or comes from elsewhere: room is made for it.
    High,
}

/// Why a node did not become a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// There is no free place.
    Full,
    /// Both have a common neighbour; a stranger is a better choice.
    Near,
}

/// What nodes say to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<P> {
    /// Takes the sender into the receiver's cluster.
    Join {
        /// The sender.
        me: P,
    },
    /// A random walk that ends at a new neighbour of the joiner.
    ForwardJoin {
        /// Who joins.
        joiner: P,
        /// Steps that are left.
        ttl: u8,
    },
    /// The sender wants the receiver as a neighbour. Answered by `Accept` or `Refuse`.
    Neighbor {
        /// The sender.
        me: P,
        /// How much.
        priority: Priority,
        /// Who must not be a neighbour of the receiver, lest the three form a triangle.
        near: Vec<P>,
    },
    /// The receiver is a neighbour of the sender.
    Accept {
        /// Other nodes.
        known: Vec<P>,
    },
    /// It is not.
    Refuse {
        /// Why.
        reason: Reason,
        /// Other nodes.
        known: Vec<P>,
    },
    /// It is no longer; the link goes down.
    Evict {
        /// Where to look for a substitute.
        known: Vec<P>,
    },
    /// The sender has left the cluster.
    Left,
    /// A random walk whose last node exchanges addresses with the first.
    Shuffle {
        /// The first.
        origin: P,
        /// Steps that are left.
        ttl: u8,
        /// What it offers.
        known: Vec<P>,
    },
    /// The last node's part of the exchange.
    ShuffleReply {
        /// What it offers.
        known: Vec<P>,
    },
    /// A random walk in what may be another component of the graph than that of its origin.
    Probe {
        /// Who looks for other components.
        origin: P,
        /// Steps that are left.
        ttl: u8,
        /// Who is in the origin's component for sure.
        seen: Vec<P>,
    },
    /// The sender lives and knows the receiver, after a crash of many.
    Hello {
        /// The sender.
        me: P,
    },
    /// Answered at once by a `Pong` of the same number, so that the sender knows how far it is.
    Ping {
        /// The number.
        nonce: u64,
    },
    /// The echo.
    Pong {
        /// The number of the `Ping`.
        nonce: u64,
    },
    /// The sender wants to be a neighbour of the receiver instead of its old one.
    Optimise {
        /// The old one.
        old: P,
        /// How much nearer the receiver is.
        saved: Duration,
    },
    /// The answer.
    Optimised {
        /// Whether both are neighbours now.
        accepted: bool,
    },
    /// The sender wants to give up the receiver for the initiator; the old neighbour of that one is free then.
    Replace {
        /// The initiator.
        initiator: P,
        /// Its neighbour.
        old: P,
        /// What the initiator saves.
        saved: Duration,
    },
    /// The answer.
    Replaced {
        /// Whether the sender is a neighbour of the old one now instead of the receiver's.
        accepted: bool,
    },
    /// The sender wants to be a neighbour of the receiver instead of the initiator.
    Switch {
        /// The initiator.
        initiator: P,
        /// How far sender and receiver are from each other.
        cost: Duration,
    },
    /// The answer.
    Switched {
        /// Whether both are neighbours now.
        accepted: bool,
    },
}

impl<P: Peer> Wire for Message<P> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        match self {
            Self::Join { me } => {
                out.push(1);
                me.encode(out);
            }
            Self::ForwardJoin { joiner, ttl } => {
                out.extend([2, *ttl]);
                joiner.encode(out);
            }
            Self::Neighbor { me, priority, near } => {
                out.extend([3, u8::from(*priority == Priority::High)]);
                me.encode(out);
                put_peers(out, near);
            }
            Self::Accept { known } => {
                out.push(4);
                put_peers(out, known);
            }
            Self::Refuse { reason, known } => {
                out.extend([5, u8::from(*reason == Reason::Near)]);
                put_peers(out, known);
            }
            Self::Evict { known } => {
                out.push(6);
                put_peers(out, known);
            }
            Self::Left => out.push(7),
            Self::Shuffle { origin, ttl, known } => {
                out.extend([8, *ttl]);
                origin.encode(out);
                put_peers(out, known);
            }
            Self::ShuffleReply { known } => {
                out.push(9);
                put_peers(out, known);
            }
            Self::Probe { origin, ttl, seen } => {
                out.extend([10, *ttl]);
                origin.encode(out);
                put_peers(out, seen);
            }
            Self::Hello { me } => {
                out.push(11);
                me.encode(out);
            }
            Self::Ping { nonce } => {
                out.push(12);
                out.extend_from_slice(&nonce.to_be_bytes());
            }
            Self::Pong { nonce } => {
                out.push(13);
                out.extend_from_slice(&nonce.to_be_bytes());
            }
            Self::Optimise { old, saved } => {
                out.push(14);
                put_time(out, *saved);
                old.encode(out);
            }
            Self::Optimised { accepted } => out.extend([15, u8::from(*accepted)]),
            Self::Replace {
                initiator,
                old,
                saved,
            } => {
                out.push(16);
                put_time(out, *saved);
                initiator.encode(out);
                old.encode(out);
            }
            Self::Replaced { accepted } => out.extend([17, u8::from(*accepted)]),
            Self::Switch { initiator, cost } => {
                out.push(18);
                put_time(out, *cost);
                initiator.encode(out);
            }
            Self::Switched { accepted } => out.extend([19, u8::from(*accepted)]),
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let size = reader.rest().len();
        if size > MAX_CONTROL_BYTES {
            return Err(DecodeError::TooLarge(size));
        }
        reader.version(VERSION)?;
        let message = match reader.u8()? {
            1 => Self::Join {
                me: P::decode(reader)?,
            },
            2 => {
                let ttl = reader.u8()?;
                let joiner = P::decode(reader)?;
                Self::ForwardJoin { joiner, ttl }
            }
            3 => {
                let priority = match reader.bool("priority")? {
                    true => Priority::High,
                    false => Priority::Low,
                };
                Self::Neighbor {
                    priority,
                    me: P::decode(reader)?,
                    near: peers(reader)?,
                }
            }
            4 => Self::Accept {
                known: peers(reader)?,
            },
            5 => {
                let reason = match reader.bool("reason")? {
                    true => Reason::Near,
                    false => Reason::Full,
                };
                let known = peers(reader)?;
                Self::Refuse { reason, known }
            }
            6 => Self::Evict {
                known: peers(reader)?,
            },
            7 => Self::Left,
            8 => Self::Shuffle {
                ttl: reader.u8()?,
                origin: P::decode(reader)?,
                known: peers(reader)?,
            },
            9 => Self::ShuffleReply {
                known: peers(reader)?,
            },
            10 => Self::Probe {
                ttl: reader.u8()?,
                origin: P::decode(reader)?,
                seen: peers(reader)?,
            },
            11 => Self::Hello {
                me: P::decode(reader)?,
            },
            12 => Self::Ping {
                nonce: reader.u64()?,
            },
            13 => Self::Pong {
                nonce: reader.u64()?,
            },
            14 => Self::Optimise {
                saved: time(reader)?,
                old: P::decode(reader)?,
            },
            15 => Self::Optimised {
                accepted: reader.bool("answer")?,
            },
            16 => Self::Replace {
                saved: time(reader)?,
                initiator: P::decode(reader)?,
                old: P::decode(reader)?,
            },
            17 => Self::Replaced {
                accepted: reader.bool("answer")?,
            },
            18 => Self::Switch {
                cost: time(reader)?,
                initiator: P::decode(reader)?,
            },
            19 => Self::Switched {
                accepted: reader.bool("answer")?,
            },
            _ => return Err(DecodeError::Bad("kind")),
        };
        reader.end()?;
        Ok(message)
    }
}

/// What a node remembers from one life to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Saved<P> {
    pub(super) passive: Vec<P>,
    pub(super) linked: Vec<P>,
    pub(super) heard: Vec<P>,
}

pub(super) fn encode_file<P: Peer>(owner: &P, lists: [&[P]; 3]) -> Vec<u8> {
    let mut body = Vec::new();
    owner.encode(&mut body);
    for list in lists {
        let list = &list[..list.len().min(MAX_HISTORY)];
        body.extend_from_slice(&(list.len() as u16).to_be_bytes());
        list.iter().for_each(|peer| peer.encode(&mut body));
    }
    seal(MAGIC, VERSION, &body)
}

pub(super) fn decode_file<P: Peer>(owner: &P, bytes: &[u8]) -> Result<Saved<P>, DecodeError> {
    let mut reader = unseal(MAGIC, VERSION, bytes)?;
    let written_by = P::decode(&mut reader)?;
    if written_by != *owner {
        return Err(DecodeError::Foreign(format!("{written_by:?}").into()));
    }
    let saved = Saved {
        passive: list(&mut reader)?,
        linked: list(&mut reader)?,
        heard: list(&mut reader)?,
    };
    reader.end()?;
    Ok(saved)
}

// More than an hour is as good as for ever.
fn put_time(out: &mut Vec<u8>, time: Duration) {
    let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    out.extend_from_slice(&micros.to_be_bytes());
}

fn time(reader: &mut Reader<'_>) -> Result<Duration, DecodeError> {
    reader.u32().map(|n| Duration::from_micros(n.into()))
}

// Lists are made within the limit; what is beyond it would be refused, so it is left out.
fn put_peers<P: Peer>(out: &mut Vec<u8>, peers: &[P]) {
    let peers = &peers[..peers.len().min(MAX_GOSSIPED)];
    out.push(peers.len() as u8);
    peers.iter().for_each(|peer| peer.encode(out));
}

fn peers<P: Peer>(reader: &mut Reader<'_>) -> Result<Vec<P>, DecodeError> {
    let count = reader.u8()?.into();
    if count > MAX_GOSSIPED {
        return Err(DecodeError::Bad("number of nodes"));
    }
    decode_many(reader, count)
}

fn list<P: Peer>(reader: &mut Reader<'_>) -> Result<Vec<P>, DecodeError> {
    let count = reader.u16()?.into();
    if count > MAX_HISTORY {
        return Err(DecodeError::Bad("number of nodes"));
    }
    decode_many(reader, count)
}

fn decode_many<P: Peer>(reader: &mut Reader<'_>, count: usize) -> Result<Vec<P>, DecodeError> {
    let mut peers = Vec::new();
    for _ in 0..count {
        peers.push(P::decode(reader)?);
    }
    Ok(peers)
}
