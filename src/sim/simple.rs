//! The smallest protocols that the simulator can run: a tree of those who have joined through whom, and
//! flooding. They show what the traits ask for, and its tests need nothing else.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;

use super::peer::SimPeer;
use crate::broadcast::{self, Broadcast, Id};
use crate::overlay::codec::{DecodeError, Reader};
use crate::overlay::{Effect, Effects, Error, Event, Overlay, Peer, Wire};

/// How often a node greets its neighbours.
const GREET: Duration = Duration::from_secs(5);

/// Keeps a link with the node it has joined through, and with all that join through it.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    me: SimPeer,
    neighbors: BTreeSet<SimPeer>,
    greet_at: Duration,
}

/// A greeting.
#[derive(Clone, Debug)]
pub(crate) struct Hello(u8);

impl Wire for Hello {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.0);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self(reader.u8()?))
    }
}

impl Tree {
    pub(crate) fn new(me: SimPeer, now: Duration) -> Self {
        Self {
            me,
            neighbors: BTreeSet::new(),
            greet_at: now + GREET,
        }
    }
}

impl Overlay for Tree {
    type Peer = SimPeer;
    type Message = Hello;

    fn handle(
        &mut self,
        now: Duration,
        event: Event<SimPeer, Hello>,
        _rng: &mut dyn Rng,
        effects: &mut Effects<Self>,
    ) -> Result<(), Error> {
        match event {
            Event::Join(peer) if peer == self.me => return Err(Error::SelfJoin),
            Event::Join(peer) => effects.push(Effect::Want(peer)),
            Event::LinkUp(peer) => {
                self.neighbors.insert(peer);
                effects.extend([Effect::Want(peer), Effect::NeighborUp(peer)]);
            }
            Event::LinkDown(peer, _) => {
                if self.neighbors.remove(&peer) {
                    effects.push(Effect::NeighborDown(peer));
                }
            }
            Event::Message { message, .. } if message.0 != 0 => {
                return Err(Error::Message(DecodeError::Bad("greeting")));
            }
            Event::Tick if now >= self.greet_at => {
                self.greet_at = now + GREET;
                let greeting = |to: &SimPeer| Effect::Send {
                    to: *to,
                    message: Hello(0),
                };
                effects.extend(self.neighbors.iter().map(greeting));
            }
            _ => {}
        }
        Ok(())
    }

    fn deadline(&self) -> Option<Duration> {
        Some(self.greet_at)
    }

    fn members(&self) -> Vec<SimPeer> {
        let neighbors = self.neighbors.iter().copied();
        neighbors.chain([self.me]).collect()
    }
}

/// Sends everything that is new to all neighbours but the one it came from.
#[derive(Clone, Debug)]
pub(crate) struct Rumor {
    me: SimPeer,
    life: u64,
    sequence: u64,
    neighbors: BTreeSet<SimPeer>,
    seen: BTreeSet<Id<SimPeer>>,
}

/// A broadcast under way.
#[derive(Clone, Debug)]
pub(crate) struct Whisper {
    id: Id<SimPeer>,
    hops: u32,
    payload: Bytes,
}

impl Wire for Whisper {
    fn encode(&self, out: &mut Vec<u8>) {
        self.id.root.encode(out);
        out.extend_from_slice(&self.id.life.to_be_bytes());
        out.extend_from_slice(&self.id.sequence.to_be_bytes());
        out.extend_from_slice(&self.hops.to_be_bytes());
        out.extend_from_slice(&self.payload);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let id = Id {
            root: Peer::decode(reader)?,
            life: reader.u64()?,
            sequence: reader.u64()?,
        };
        let hops = reader.u32()?;
        let payload = Bytes::copy_from_slice(reader.take(reader.rest().len())?);
        Ok(Self { id, hops, payload })
    }
}

impl Rumor {
    pub(crate) fn new(me: SimPeer, life: u64) -> Self {
        Self {
            me,
            life,
            sequence: 0,
            neighbors: BTreeSet::new(),
            seen: BTreeSet::new(),
        }
    }

    fn spread(
        &self,
        whisper: &Whisper,
        except: Option<SimPeer>,
        effects: &mut broadcast::Effects<Self>,
    ) {
        let others = self.neighbors.iter().filter(|peer| Some(**peer) != except);
        effects.extend(others.map(|peer| broadcast::Effect::Send {
            to: *peer,
            message: whisper.clone(),
        }));
    }
}

impl Broadcast for Rumor {
    type Peer = SimPeer;
    type Message = Whisper;

    fn handle(
        &mut self,
        _now: Duration,
        event: broadcast::Event<SimPeer, Whisper>,
        _rng: &mut dyn Rng,
        effects: &mut broadcast::Effects<Self>,
    ) -> Result<(), broadcast::Error> {
        use broadcast::{Effect, Event};
        match event {
            Event::NeighborUp(peer) => {
                self.neighbors.insert(peer);
            }
            Event::NeighborDown(peer) => {
                self.neighbors.remove(&peer);
            }
            Event::Broadcast(payload) => {
                self.sequence += 1;
                let id = Id {
                    root: self.me,
                    life: self.life,
                    sequence: self.sequence,
                };
                self.seen.insert(id.clone());
                let whisper = Whisper {
                    id,
                    hops: 1,
                    payload,
                };
                self.spread(&whisper, None, effects);
            }
            Event::Message { from, message } => {
                if self.seen.insert(message.id.clone()) {
                    effects.push(Effect::Deliver {
                        id: message.id.clone(),
                        payload: message.payload.clone(),
                        hops: message.hops,
                    });
                    let next = Whisper {
                        hops: message.hops + 1,
                        ..message
                    };
                    self.spread(&next, Some(from), effects);
                }
            }
            Event::Tick => {}
        }
        Ok(())
    }

    fn deadline(&self) -> Option<Duration> {
        None
    }

    fn carries_payload(_message: &Whisper) -> bool {
        true
    }
}

/// Which overlay a scenario runs, with its configuration.
#[derive(Clone, Debug)]
pub(crate) struct Trees;

impl super::protocols::Overlays for Trees {
    type Overlay = Tree;

    fn make(&self, node: SimPeer, now: Duration, _life: u64) -> Tree {
        Tree::new(node, now)
    }

    fn degree(&self) -> usize {
        1
    }

    fn table_bytes(&self, overlay: &Tree) -> usize {
        overlay.neighbors.len() * size_of::<SimPeer>()
    }
}

/// The same of the broadcast.
#[derive(Clone, Debug)]
pub(crate) struct Rumors;

impl super::protocols::Broadcasts for Rumors {
    type Broadcast = Rumor;

    fn make(&self, node: SimPeer, _now: Duration, life: u64) -> Rumor {
        Rumor::new(node, life)
    }

    fn table_bytes(&self, broadcast: &Rumor) -> usize {
        broadcast.seen.len() * size_of::<Id<SimPeer>>()
    }
}
