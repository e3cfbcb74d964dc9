//! One of the overlays that a node runs, and its links.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::Rng;

use super::Epoch;
use crate::overlay::codec::Reader;
use crate::overlay::{Effect, Error, Event, Overlay, Peer, Wire};

/// An overlay whose messages are bytes, so that those of different protocols have one type.
pub trait Opaque<P: Peer>: Send {
    /// See [`Overlay::handle`].
    ///
    /// # Errors
    /// As there; [`Error::Message`] for bytes that are no message.
    fn handle(
        &mut self,
        now: Duration,
        event: Event<P, Vec<u8>>,
        rng: &mut dyn Rng,
        effects: &mut Vec<Effect<P, Vec<u8>>>,
    ) -> Result<(), Error>;

    /// See [`Overlay::deadline`].
    fn deadline(&self) -> Option<Duration>;

    /// See [`Overlay::members`].
    fn members(&self) -> Vec<P>;
}

impl<O: Overlay> Opaque<O::Peer> for O {
    fn handle(
        &mut self,
        now: Duration,
        event: Event<O::Peer, Vec<u8>>,
        rng: &mut dyn Rng,
        effects: &mut Vec<Effect<O::Peer, Vec<u8>>>,
    ) -> Result<(), Error> {
        let event = match event {
            Event::Message { from, message } => {
                let mut reader = Reader::new(&message);
                let message = O::Message::decode(&mut reader).map_err(Error::Message)?;
                reader.end().map_err(Error::Message)?;
                Event::Message { from, message }
            }
            Event::Join(peer) => Event::Join(peer),
            Event::Leave => Event::Leave,
            Event::Remove(peer) => Event::Remove(peer),
            Event::UpdateMembers(peers) => Event::UpdateMembers(peers),
            Event::LinkUp(peer) => Event::LinkUp(peer),
            Event::LinkDown(peer, how) => Event::LinkDown(peer, how),
            Event::LinkFailed(peer) => Event::LinkFailed(peer),
            Event::Tick => Event::Tick,
            Event::SelfChanged(peer) => Event::SelfChanged(peer),
            Event::Loaded(bytes) => Event::Loaded(bytes),
        };
        let mut typed = Vec::new();
        let outcome = Overlay::handle(self, now, event, rng, &mut typed);
        effects.extend(typed.into_iter().map(|effect| match effect {
            Effect::Send { to, message } => {
                let mut bytes = Vec::new();
                message.encode(&mut bytes);
                let message = bytes;
                Effect::Send { to, message }
            }
            Effect::Want(peer) => Effect::Want(peer),
            Effect::Release(peer) => Effect::Release(peer),
            Effect::NeighborUp(peer) => Effect::NeighborUp(peer),
            Effect::NeighborDown(peer) => Effect::NeighborDown(peer),
            Effect::MembersChanged => Effect::MembersChanged,
            Effect::Persist(bytes) => Effect::Persist(bytes),
            Effect::Joined(peer) => Effect::Joined(peer),
            Effect::Left => Effect::Left,
        }));
        outcome
    }

    fn deadline(&self) -> Option<Duration> {
        Overlay::deadline(self)
    }

    fn members(&self) -> Vec<O::Peer> {
        Overlay::members(self)
    }
}

/// How far a link of an overlay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The own hello is on its way.
    Opening,
    Up,
    Released,
}

/// A link of one overlay with a node, over the link that the host keeps for all of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    /// Numbers the links that follow each other; both ends count together.
    pub(super) number: u32,
    pub(super) phase: Phase,
}

impl Link {
    /// None yet, over a fresh link of the host's.
    pub(super) const NONE: Self = Self {
        number: 0,
        phase: Phase::Released,
    };
}

/// An overlay that runs.
pub(super) struct Live<P> {
    pub(super) epoch: Epoch,
    /// Place among the choices.
    pub(super) choice: usize,
    pub(super) overlay: Box<dyn Opaque<P>>,
    pub(super) wanted: BTreeSet<P>,
    pub(super) neighbors: BTreeSet<P>,
    /// With all nodes with which the host has a link.
    pub(super) links: BTreeMap<P, Link>,
    /// When links that the other end has released are opened again, since they are wanted.
    pub(super) reopen: BTreeMap<P, Duration>,
}

impl<P: Peer> Live<P> {
    pub(super) fn new(epoch: Epoch, choice: usize, overlay: Box<dyn Opaque<P>>) -> Self {
        Self {
            epoch,
            choice,
            overlay,
            wanted: BTreeSet::new(),
            neighbors: BTreeSet::new(),
            links: BTreeMap::new(),
            reopen: BTreeMap::new(),
        }
    }

    /// Opens the link with a node if it is wanted, can be had and isn't there. The number to say hello with.
    pub(super) fn open(&mut self, peer: &P) -> Option<u32> {
        self.reopen.remove(peer);
        let link = self.links.get_mut(peer)?;
        if link.phase != Phase::Released || !self.wanted.contains(peer) {
            return None;
        }
        link.number = link.number.wrapping_add(1);
        link.phase = Phase::Opening;
        Some(link.number)
    }

    pub(super) fn is_linked(&self, peer: &P) -> bool {
        let link = self.links.get(peer);
        link.is_some_and(|link| link.phase == Phase::Up)
    }

    /// Whether it has a link, or is about to.
    pub(super) fn has_link(&self, peer: &P) -> bool {
        let link = self.links.get(peer);
        link.is_some_and(|link| link.phase != Phase::Released)
    }
}
