//! A ring: each node keeps links to the next greater and the next lesser name.
//!
//! Everybody knows everybody: neighbours tell each other all names that they know, whenever they
//! learn one. Whoever can't be reached is forgotten until it tells of itself. Whoever has left tells no
//! names. All else follows from the names: [`Ring::settle`].

use std::collections::BTreeSet;
use std::time::Duration;

use partisan::overlay::codec::{DecodeError, Reader};
use partisan::overlay::{Down, Effect, Effects, Error, Event, Overlay, Peer, Wire};
use rand::Rng;

/// Most names in a message, and so most nodes in a ring.
const MAX_NODES: usize = 4096;

/// What nodes tell each other: all names that they know, or none if they have left.
#[derive(Clone, Debug)]
pub(crate) struct Names<P>(Vec<P>);

impl<P: Peer> Wire for Names<P> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.0.len() as u16).to_be_bytes());
        self.0.iter().for_each(|peer| peer.encode(out));
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count = usize::from(reader.u16()?);
        if count > MAX_NODES {
            return Err(DecodeError::Bad("number of names"));
        }
        (0..count)
            .map(|_| P::decode(reader))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// One node of a ring.
pub(crate) struct Ring<P> {
    own: P,
    known: BTreeSet<P>,
    linked: BTreeSet<P>,
    wanted: BTreeSet<P>,
    neighbors: BTreeSet<P>,
    joining: Option<P>,
    left: bool,
}

impl<P: Peer> Ring<P> {
    /// A node alone.
    pub(crate) fn new(own: P) -> Self {
        Self {
            own,
            known: BTreeSet::new(),
            linked: BTreeSet::new(),
            wanted: BTreeSet::new(),
            neighbors: BTreeSet::new(),
            joining: None,
            left: false,
        }
    }

    /// The next greater and the next lesser of the known names, where the first follows the last.
    fn nearest(&self) -> BTreeSet<P> {
        let next = self.known.range(&self.own..).next().or(self.known.first());
        let previous = self
            .known
            .range(..&self.own)
            .next_back()
            .or(self.known.last());
        [next, previous].into_iter().flatten().cloned().collect()
    }

    fn tell(&self, to: &P, effects: &mut Effects<Self>) {
        let message = Names(match self.left {
            false => self.members(),
            true => Vec::new(),
        });
        let to = to.clone();
        effects.push(Effect::Send { to, message });
    }

    /// Wants the links that the names call for, and no others; shows what has changed.
    fn settle(&mut self, before: usize, effects: &mut Effects<Self>) {
        let wanted = self.nearest();
        for peer in wanted.difference(&self.wanted) {
            effects.push(Effect::Want(peer.clone()));
        }
        if self.known.len() > before {
            self.linked.iter().for_each(|peer| self.tell(peer, effects));
        }
        for peer in self.wanted.difference(&wanted) {
            self.linked.remove(peer);
            effects.push(Effect::Release(peer.clone()));
        }
        let neighbors = wanted.intersection(&self.linked).cloned().collect();
        let gone = self.neighbors.difference(&neighbors).cloned();
        effects.extend(gone.map(Effect::NeighborDown));
        let new = neighbors.difference(&self.neighbors).cloned();
        effects.extend(new.map(Effect::NeighborUp));
        if self.known.len() != before {
            effects.push(Effect::MembersChanged);
        }
        (self.wanted, self.neighbors) = (wanted, neighbors);
    }
}

impl<P: Peer> Overlay for Ring<P> {
    type Peer = P;
    type Message = Names<P>;

    fn handle(
        &mut self,
        _: Duration,
        event: Event<P, Names<P>>,
        _: &mut dyn Rng,
        effects: &mut Effects<Self>,
    ) -> Result<(), Error> {
        let before = self.known.len();
        match event {
            Event::Join(contact) if contact == self.own => return Err(Error::SelfJoin),
            Event::Join(contact) => {
                self.left = false;
                self.known.insert(contact.clone());
                self.joining = Some(contact);
            }
            Event::LinkUp(peer) => {
                self.tell(&peer, effects);
                self.linked.insert(peer);
            }
            Event::Message { from, message } if message.0.is_empty() => {
                self.known.remove(&from);
            }
            Event::Message { from, message } if !self.left => {
                let others = message.0.into_iter().filter(|peer| *peer != self.own);
                self.known.extend(others);
                let joined = self.joining.take_if(|peer| *peer == from);
                effects.extend(joined.map(Effect::Joined));
            }
            // The other end has somebody nearer, of whom it has told.
            Event::LinkDown(peer, Down::Planned) => {
                self.linked.remove(&peer);
            }
            Event::LinkDown(peer, _) => {
                self.linked.remove(&peer);
                self.known.remove(&peer);
            }
            // Unless it is the only one: the host goes on dialling.
            Event::LinkFailed(peer) if before > 1 => {
                self.known.remove(&peer);
            }
            Event::Leave => {
                self.left = true;
                self.linked.iter().for_each(|peer| self.tell(peer, effects));
                self.known.clear();
                effects.push(Effect::Left);
            }
            _ => {}
        }
        self.settle(before, effects);
        Ok(())
    }

    fn deadline(&self) -> Option<Duration> {
        None
    }

    fn members(&self) -> Vec<P> {
        self.known.iter().chain([&self.own]).cloned().collect()
    }
}
