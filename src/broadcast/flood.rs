//! Flooding: whoever gets a broadcast for the first time sends it to all other neighbours.
//!
//! As fast as a broadcast can be, and every link carries each payload about twice. It is what
//! Plumtree is measured against, and enough for a few nodes. It repairs nothing: what was sent over a
//! link that breaks comes another way or not at all.
//!
//! ```text
//! message:  version:8 = 1  root, as peers are encoded  life:64  sequence:64  hops:16  payload
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;

use super::seen::{Seen, key_of};
use super::{Broadcast, Effect, Error, Event, Id};
use crate::limits::{
    MAX_BROADCAST_BYTES, MAX_BROADCAST_CACHE, MAX_BROADCAST_HOPS, MAX_BROADCAST_NEIGHBORS,
    MAX_BROADCAST_ROOTS, MAX_BROADCAST_SEQUENCE,
};
use crate::overlay::codec::{DecodeError, Reader};
use crate::overlay::{Peer, Wire};

const VERSION: u8 = 1;

/// A broadcast on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<P> {
    /// Which.
    pub id: Id<P>,
    /// Links that it has passed when it arrives.
    pub hops: u16,
    /// What the root has broadcast.
    pub payload: Bytes,
}

impl<P> Message<P> {
    fn check(&self) -> Result<(), DecodeError> {
        if self.id.sequence == 0 || self.id.sequence > MAX_BROADCAST_SEQUENCE {
            return Err(DecodeError::Bad("number of a broadcast"));
        }
        if u32::from(self.hops) > MAX_BROADCAST_HOPS {
            return Err(DecodeError::Bad("number of hops"));
        }
        match self.payload.len() {
            n if n > MAX_BROADCAST_BYTES => Err(DecodeError::TooLarge(n)),
            _ => Ok(()),
        }
    }
}

impl<P: Peer> Wire for Message<P> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        self.id.root.encode(out);
        out.extend_from_slice(&self.id.life.to_be_bytes());
        out.extend_from_slice(&self.id.sequence.to_be_bytes());
        out.extend_from_slice(&self.hops.to_be_bytes());
        out.extend_from_slice(&self.payload);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            VERSION => {}
            other => return Err(DecodeError::Version(other)),
        }
        let id = Id {
            root: P::decode(reader)?,
            life: reader.u64()?,
            sequence: reader.u64()?,
        };
        let hops = reader.u16()?;
        let payload = reader.take(reader.rest().len())?;
        if payload.len() > MAX_BROADCAST_BYTES {
            return Err(DecodeError::TooLarge(payload.len()));
        }
        let payload = Bytes::copy_from_slice(payload);
        let message = Self { id, hops, payload };
        message.check()?;
        Ok(message)
    }
}

/// Flooding, as one node runs it.
#[derive(Clone)]
pub struct Flood<P> {
    own: P,
    life: u64,
    own_key: u64,
    sequence: u64,
    neighbors: BTreeSet<P>,
    seen: Seen,
}

impl<P: Peer> Flood<P> {
    /// A node without neighbours. `life` is greater than in all earlier lives of `own`.
    pub fn new(own: P, life: u64) -> Self {
        Self {
            own_key: key_of(&own, life),
            own,
            life,
            sequence: 0,
            neighbors: BTreeSet::new(),
            seen: Seen::new(MAX_BROADCAST_ROOTS),
        }
    }

    /// Heap bytes of all tables.
    pub fn table_bytes(&self) -> usize {
        self.seen.bytes() + self.neighbors.len() * 2 * size_of::<P>()
    }

    fn send(&self, except: Option<&P>, message: &Message<P>, effects: &mut Out<P>) {
        for to in self.neighbors.iter().filter(|to| Some(*to) != except) {
            let (to, message) = (to.clone(), message.clone());
            effects.push(Effect::Send { to, message });
        }
    }
}

type Out<P> = Vec<Effect<P, Message<P>>>;

impl<P: Peer> Broadcast for Flood<P> {
    type Peer = P;
    type Message = Message<P>;

    fn handle(
        &mut self,
        now: Duration,
        event: Event<P, Message<P>>,
        _rng: &mut dyn Rng,
        effects: &mut Out<P>,
    ) -> Result<(), Error> {
        let now = now.as_micros() as u64;
        self.seen.expire(now);
        match event {
            Event::NeighborUp(peer) => {
                if peer != self.own && self.neighbors.len() < MAX_BROADCAST_NEIGHBORS {
                    self.neighbors.insert(peer);
                }
            }
            Event::NeighborDown(peer) => {
                self.neighbors.remove(&peer);
            }
            Event::Broadcast(payload) => {
                let id = Id {
                    root: self.own.clone(),
                    life: self.life,
                    sequence: self.sequence + 1,
                };
                let (bytes, limit) = (payload.len(), MAX_BROADCAST_BYTES);
                if bytes > limit {
                    return Err(Error::TooLarge { bytes, limit });
                }
                let hops = 1;
                let message = Message { id, hops, payload };
                message.check().map_err(Error::Message)?;
                self.sequence += 1;
                self.send(None, &message, effects);
            }
            Event::Message { from, mut message } => {
                message.check().map_err(Error::Message)?;
                let id = &message.id;
                let key = key_of(&id.root, id.life);
                let known = self.seen.find(key);
                let old = known.is_some_and(|at| self.seen.has(at, id.sequence));
                if old || key == self.own_key || !self.neighbors.contains(&from) {
                    return Ok(());
                }
                let history = MAX_BROADCAST_CACHE as u64;
                self.seen.insert(key, id.sequence, history, now);
                effects.push(Effect::Deliver {
                    id: id.clone(),
                    payload: message.payload.clone(),
                    hops: message.hops.into(),
                });
                if u32::from(message.hops) < MAX_BROADCAST_HOPS {
                    message.hops += 1;
                    self.send(Some(&from), &message, effects);
                }
            }
            Event::Tick => {}
        }
        Ok(())
    }

    fn deadline(&self) -> Option<Duration> {
        self.seen.deadline().map(Duration::from_micros)
    }

    fn carries_payload(_: &Message<P>) -> bool {
        true
    }
}
