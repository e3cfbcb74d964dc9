//! Messages of Plumtree, as bytes.
//!
//! ```text
//! message:   version:8 = 1  kind:8, then
//!   gossip   (1)  tree  sequence:64  hops:16  age:32  payload (all the rest)
//!   announce (2)  again:8 (0, 1)  count:16  of (tree  first:64  count:16  hops:16)
//!   graft    (3)  count:16  of (tree  eager:8 (0, 1)  first:64  count:16)
//!   prune    (4)  tree
//! tree:      root, as peers are encoded  life:64  which:8 (0 own, 1 common, 2 core)
//! ```
//!
//! The paper's IHAVE is `announce`. It and `graft` name ranges of sequences; one message names at
//! most `MAX_BROADCAST_IDS` broadcasts.

use bytes::Bytes;

use crate::broadcast::Id;
use crate::broadcast::seen::key_of;
use crate::limits::{
    MAX_BROADCAST_BYTES, MAX_BROADCAST_HOPS, MAX_BROADCAST_IDS, MAX_BROADCAST_SEQUENCE,
};
use crate::overlay::codec::{DecodeError, Reader};
use crate::overlay::{Peer, Wire};

const VERSION: u8 = 1;

/// Along which tree broadcasts go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tree {
    /// One of this root alone.
    Own,
    /// The common one.
    Common,
    /// The common one too, which these broadcasts shape: they are the beats of its core, without a
    /// payload.
    Core,
}

impl Tree {
    /// Whether broadcasts like this shape the tree that they go along.
    pub(super) fn is_shaped(self) -> bool {
        self != Tree::Common
    }
}

/// Which tree a message is about, and whose broadcasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Of<P> {
    /// The root.
    pub root: P,
    /// Its life.
    pub life: u64,
    /// Along which tree they go. The root decides.
    pub tree: Tree,
}

/// Broadcasts that the sender has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Have<P> {
    /// Whose.
    pub of: Of<P>,
    /// The first.
    pub first: u64,
    /// How many, from 1.
    pub count: u16,
    /// Links that they have passed to the sender.
    pub hops: u16,
}

/// Broadcasts that the sender wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want<P> {
    /// Whose.
    pub of: Of<P>,
    /// Whether the receiver is to send later ones without being asked.
    pub eager: bool,
    /// The first.
    pub first: u64,
    /// How many. 0 with `eager`: later ones only.
    pub count: u16,
}

/// What nodes send each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<P> {
    /// A broadcast.
    Gossip {
        /// Whose, and along which tree.
        of: Of<P>,
        /// Its number.
        sequence: u64,
        /// Links that it has passed when it arrives.
        hops: u16,
        /// Milliseconds that it has spent at nodes since it was broadcast.
        age: u32,
        /// What the root has broadcast.
        payload: Bytes,
    },
    /// What the sender has and has not sent.
    Announce {
        /// Whether the receiver is to announce all it has: its announcement came too early.
        again: bool,
        /// In ranges.
        have: Vec<Have<P>>,
    },
    /// Asks for payloads and for the link to become part of a tree.
    Graft(Vec<Want<P>>),
    /// The link is no part of this tree any longer: the receiver announces only.
    Prune(Of<P>),
}

impl<P> Message<P> {
    /// Whether it keeps to the limits, as all decoded ones do.
    pub(super) fn check(&self) -> Result<(), DecodeError> {
        match self {
            Message::Gossip {
                of,
                sequence,
                hops,
                payload,
                ..
            } => {
                check_range(*sequence, 1)?;
                check_hops(*hops)?;
                match payload.len() {
                    n if n > MAX_BROADCAST_BYTES => Err(DecodeError::TooLarge(n)),
                    n if n > 0 && of.tree == Tree::Core => Err(DecodeError::Bad("beat")),
                    _ => Ok(()),
                }
            }
            Message::Announce { have, .. } => {
                let mut ids = 0;
                for have in have {
                    check_range(have.first, have.count)?;
                    check_hops(have.hops)?;
                    add(&mut ids, have.count)?;
                }
                Ok(())
            }
            Message::Graft(wants) => {
                let mut ids = 0;
                for want in wants {
                    if want.count > 0 {
                        check_range(want.first, want.count)?;
                    } else if want.first != 0 || !want.eager {
                        return Err(DecodeError::Bad("range of broadcasts"));
                    }
                    add(&mut ids, want.count)?;
                }
                Ok(())
            }
            Message::Prune(_) => Ok(()),
        }
    }
}

fn check_range(first: u64, count: u16) -> Result<(), DecodeError> {
    let last = first.checked_add(u64::from(count).wrapping_sub(1));
    if first == 0 || count == 0 || last.is_none_or(|n| n > MAX_BROADCAST_SEQUENCE) {
        return Err(DecodeError::Bad("range of broadcasts"));
    }
    Ok(())
}

fn check_hops(hops: u16) -> Result<(), DecodeError> {
    match u32::from(hops) > MAX_BROADCAST_HOPS {
        true => Err(DecodeError::Bad("number of hops")),
        false => Ok(()),
    }
}

/// An entry without a range counts as one too, so that a list has at most as many.
fn add(ids: &mut usize, count: u16) -> Result<(), DecodeError> {
    *ids += usize::from(count.max(1));
    match *ids > MAX_BROADCAST_IDS {
        true => Err(DecodeError::Bad("number of broadcasts")),
        false => Ok(()),
    }
}

impl<P> Of<P> {
    /// One of them.
    pub(super) fn id(&self, sequence: u64) -> Id<P>
    where
        P: Clone,
    {
        Id {
            root: self.root.clone(),
            life: self.life,
            sequence,
        }
    }
}

impl<P: Peer> Of<P> {
    /// What these broadcasts are known by. A core's beats are counted for themselves.
    pub(super) fn key(&self) -> u64 {
        match self.tree {
            Tree::Core => key_of(&(&self.root, "core"), self.life),
            Tree::Own | Tree::Common => key_of(&self.root, self.life),
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        self.root.encode(out);
        out.extend_from_slice(&self.life.to_be_bytes());
        out.push(match self.tree {
            Tree::Own => 0,
            Tree::Common => 1,
            Tree::Core => 2,
        });
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            root: P::decode(reader)?,
            life: reader.u64()?,
            tree: match reader.u8()? {
                0 => Tree::Own,
                1 => Tree::Common,
                2 => Tree::Core,
                _ => return Err(DecodeError::Bad("tree")),
            },
        })
    }
}

impl<P: Peer> Wire for Message<P> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        match self {
            Message::Gossip {
                of,
                sequence,
                hops,
                age,
                payload,
            } => {
                out.push(1);
                of.put(out);
                out.extend_from_slice(&sequence.to_be_bytes());
                out.extend_from_slice(&hops.to_be_bytes());
                out.extend_from_slice(&age.to_be_bytes());
                out.extend_from_slice(payload);
            }
            Message::Announce { again, have } => {
                out.extend_from_slice(&[2, (*again).into()]);
                // Lists are built within MAX_BROADCAST_IDS.
                out.extend_from_slice(&(have.len() as u16).to_be_bytes());
                for have in have {
                    have.of.put(out);
                    out.extend_from_slice(&have.first.to_be_bytes());
                    out.extend_from_slice(&have.count.to_be_bytes());
                    out.extend_from_slice(&have.hops.to_be_bytes());
                }
            }
            Message::Graft(wants) => {
                out.push(3);
                out.extend_from_slice(&(wants.len() as u16).to_be_bytes());
                for want in wants {
                    want.of.put(out);
                    out.push(want.eager.into());
                    out.extend_from_slice(&want.first.to_be_bytes());
                    out.extend_from_slice(&want.count.to_be_bytes());
                }
            }
            Message::Prune(of) => {
                out.push(4);
                of.put(out);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            VERSION => {}
            other => return Err(DecodeError::Version(other)),
        }
        let message = match reader.u8()? {
            1 => {
                let of = Of::read(reader)?;
                let sequence = reader.u64()?;
                let hops = reader.u16()?;
                let age = reader.u32()?;
                let payload = reader.take(reader.rest().len())?;
                if payload.len() > MAX_BROADCAST_BYTES {
                    return Err(DecodeError::TooLarge(payload.len()));
                }
                Message::Gossip {
                    of,
                    sequence,
                    hops,
                    age,
                    payload: Bytes::copy_from_slice(payload),
                }
            }
            2 => {
                let again = reader.bool("repetition")?;
                let mut have = Vec::new();
                for _ in 0..list_length(reader)? {
                    have.push(Have {
                        of: Of::read(reader)?,
                        first: reader.u64()?,
                        count: reader.u16()?,
                        hops: reader.u16()?,
                    });
                }
                Message::Announce { again, have }
            }
            3 => {
                let mut wants = Vec::new();
                for _ in 0..list_length(reader)? {
                    wants.push(Want {
                        of: Of::read(reader)?,
                        eager: reader.bool("eagerness")?,
                        first: reader.u64()?,
                        count: reader.u16()?,
                    });
                }
                Message::Graft(wants)
            }
            4 => Message::Prune(Of::read(reader)?),
            _ => return Err(DecodeError::Bad("kind")),
        };
        reader.end()?;
        message.check()?;
        Ok(message)
    }
}

fn list_length(reader: &mut Reader<'_>) -> Result<u16, DecodeError> {
    let n = reader.u16()?;
    match usize::from(n) > MAX_BROADCAST_IDS {
        true => Err(DecodeError::Bad("number of broadcasts")),
        false => Ok(n),
    }
}
