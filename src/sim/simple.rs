//! The smallest overlay that the simulator can run: a tree of those who have joined through whom. It shows
//! what the trait asks for, and whatever goes wrong with it is the simulator's fault.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::Rng;

use super::peer::SimPeer;
use crate::overlay::codec::{DecodeError, Reader};
use crate::overlay::{Effect, Effects, Error, Event, Overlay, Wire};

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
            Event::LinkDown(peer, _) if self.neighbors.remove(&peer) => {
                effects.push(Effect::NeighborDown(peer));
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

/// Makes [`Tree`]s.
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
