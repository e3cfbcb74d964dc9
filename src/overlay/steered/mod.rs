//! Steered: links with those nodes that a policy outside this state machine lists, for a membership strategy that
//! is written in Erlang or lives in an application.
//!
//! The policy says whom it wants by [`Event::UpdateMembers`], as often as it likes. Each end of a link says whether its
//! own policy lists the other, and a link is kept as long as one of them does: so neighbours are the same at both ends,
//! whatever two policies think of each other, and broadcasts pass both ways.
//!
//! A node that joins another has it listed from then on, until the link is up and the policy, which hears of that by
//! [`Effect::Joined`], has spoken again. A list that comes between the two drops a link that the next list may ask for
//! again: that costs a dial.
//!
//! ```text
//! message:  version:8 = 1  kind:8 (0 not listed, 1 listed by the sender)
//! ```
//!
//! The policy's own messages are not the concern of this protocol; a BEAM node sends them as ordinary messages
//! (`partisan_membership_strategy_host`). The idea of strategies that only say whom to connect with is that of Partisan's
//! pluggable peer service manager (Meiklejohn, Miller and Alvaro, USENIX ATC 2019).
//!
//! # Limits
//!
//! Nothing is stored: after a restart the policy lists whom it knows, or the user joins. A node that has left is taken
//! in by nobody until its user joins again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::Rng;

use super::codec::{DecodeError, Reader};
use super::contract::{Effect, Error, Event, Overlay, Peer, Wire};
use crate::limits::MAX_MEMBERS;

const VERSION: u8 = 1;

/// The only message: whether the sender's policy lists the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed(pub bool);

impl Wire for Listed {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend([VERSION, u8::from(self.0)]);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.version(VERSION)?;
        let listed = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(DecodeError::Bad("kind")),
        };
        reader.end().map(|()| Self(listed))
    }
}

type Fx<'a, P> = &'a mut Vec<Effect<P, Listed>>;

/// One node of a steered overlay.
#[derive(Clone, Debug)]
pub struct Steered<P> {
    own: P,
    /// Whom the policy wants.
    listed: BTreeSet<P>,
    /// Whom the user has joined, and whether the link has been up.
    joining: BTreeMap<P, bool>,
    /// Peers with a link, and whether they list this node.
    links: BTreeMap<P, bool>,
    /// The user has left, and nobody is taken in.
    left: bool,
}

impl<P: Peer> Steered<P> {
    /// A node alone.
    pub fn new(own: P) -> Self {
        Self {
            own,
            listed: BTreeSet::new(),
            joining: BTreeMap::new(),
            links: BTreeMap::new(),
            left: false,
        }
    }

    fn lists(&self, peer: &P) -> bool {
        self.listed.contains(peer) || self.joining.contains_key(peer)
    }

    fn is_neighbor(&self, peer: &P) -> bool {
        let link = self.links.get(peer);
        link.is_some_and(|lists_us| *lists_us || self.lists(peer))
    }

    fn join(&mut self, peer: P, fx: Fx<'_, P>) -> Result<(), Error> {
        if peer == self.own {
            return Err(Error::SelfJoin);
        }
        self.fits(self.joining.len() + 1)?;
        self.left = false;
        let before = self.is_neighbor(&peer);
        // The user's addresses may be newer.
        self.joining.remove(&peer);
        self.joining.insert(peer.clone(), false);
        fx.push(Effect::Want(peer.clone()));
        if self.links.contains_key(&peer) {
            self.say(&peer, true, fx);
            self.linked(&peer, before, fx);
        }
        Ok(())
    }

    fn fits(&self, members: usize) -> Result<(), Error> {
        match members <= MAX_MEMBERS {
            true => Ok(()),
            false => Err(Error::TooLarge { members, bytes: 0 }),
        }
    }

    fn say(&self, peer: &P, listed: bool, fx: Fx<'_, P>) {
        let (to, message) = (peer.clone(), Listed(listed));
        fx.push(Effect::Send { to, message });
    }

    /// A link with a node that is listed here is up.
    fn linked(&mut self, peer: &P, was_neighbor: bool, fx: Fx<'_, P>) {
        if !was_neighbor {
            fx.push(Effect::NeighborUp(peer.clone()));
        }
        if let Some(done @ false) = self.joining.get_mut(peer) {
            *done = true;
            fx.push(Effect::Joined(peer.clone()));
        }
    }

    fn update(&mut self, peers: Vec<P>, fx: Fx<'_, P>) -> Result<(), Error> {
        if peers.is_empty() || self.left {
            return Ok(());
        }
        self.fits(peers.len())?;
        let before: BTreeSet<P> = self
            .listed
            .iter()
            .chain(self.joining.keys())
            .cloned()
            .collect();
        let neighbors: BTreeSet<P> = self
            .links
            .keys()
            .filter(|p| self.is_neighbor(p))
            .cloned()
            .collect();
        let new: BTreeSet<P> = peers.into_iter().filter(|p| *p != self.own).collect();
        if new != self.listed {
            fx.push(Effect::MembersChanged);
        }
        self.listed = new;
        self.joining.retain(|_, joined| !*joined);
        for peer in before
            .iter()
            .filter(|p| !self.lists(p))
            .cloned()
            .collect::<Vec<_>>()
        {
            match self.links.get(&peer) {
                Some(true) => self.say(&peer, false, fx),
                Some(false) => self.drop_link(&peer, true, fx),
                None => fx.push(Effect::Release(peer)),
            }
        }
        for peer in self.listed.difference(&before) {
            fx.push(Effect::Want(peer.clone()));
            if self.links.contains_key(peer) {
                self.say(peer, true, fx);
                if !neighbors.contains(peer) {
                    fx.push(Effect::NeighborUp(peer.clone()));
                }
            }
        }
        Ok(())
    }

    fn drop_link(&mut self, peer: &P, was_neighbor: bool, fx: Fx<'_, P>) {
        self.links.remove(peer);
        if was_neighbor {
            fx.push(Effect::NeighborDown(peer.clone()));
        }
        fx.push(Effect::Release(peer.clone()));
    }

    fn link_up(&mut self, peer: P, fx: Fx<'_, P>) {
        self.links.insert(peer.clone(), false);
        if self.lists(&peer) {
            self.say(&peer, true, fx);
            self.linked(&peer, false, fx);
        }
    }

    fn link_down(&mut self, peer: &P, fx: Fx<'_, P>) {
        let was_neighbor = self.is_neighbor(peer);
        self.links.remove(peer);
        if was_neighbor {
            fx.push(Effect::NeighborDown(peer.clone()));
            // One that only lists this node has to come by itself.
            if !self.lists(peer) {
                fx.push(Effect::Release(peer.clone()));
            }
        }
    }

    fn heard(&mut self, peer: &P, listed: bool, fx: Fx<'_, P>) {
        let before = self.is_neighbor(peer);
        let Some(lists_us) = self.links.get_mut(peer) else {
            return;
        };
        *lists_us = listed;
        match (before, self.is_neighbor(peer)) {
            (false, true) if self.left => self.drop_link(peer, false, fx),
            (false, true) => {
                fx.push(Effect::Want(peer.clone()));
                fx.push(Effect::NeighborUp(peer.clone()));
            }
            (true, false) => self.drop_link(peer, true, fx),
            _ => {}
        }
    }

    fn remove(&mut self, peer: &P, fx: Fx<'_, P>) {
        let was_neighbor = self.is_neighbor(peer);
        self.joining.remove(peer);
        if self.listed.remove(peer) {
            fx.push(Effect::MembersChanged);
        }
        self.drop_link(peer, was_neighbor, fx);
    }

    fn leave(&mut self, fx: Fx<'_, P>) {
        let peers = self
            .listed
            .iter()
            .chain(self.joining.keys())
            .chain(self.links.keys());
        let peers: BTreeSet<P> = peers.cloned().collect();
        for peer in peers {
            let was_neighbor = self.is_neighbor(&peer);
            self.drop_link(&peer, was_neighbor, fx);
        }
        self.listed.clear();
        self.joining.clear();
        self.left = true;
        fx.push(Effect::MembersChanged);
        fx.push(Effect::Left);
    }
}

impl<P: Peer> Overlay for Steered<P> {
    type Peer = P;
    type Message = Listed;

    fn handle(
        &mut self,
        _: Duration,
        event: Event<P, Listed>,
        _: &mut dyn Rng,
        fx: &mut Vec<Effect<P, Listed>>,
    ) -> Result<(), Error> {
        match event {
            Event::Join(peer) => self.join(peer, fx)?,
            Event::Leave => self.leave(fx),
            Event::Remove(peer) if peer == self.own => self.leave(fx),
            Event::Remove(peer) => self.remove(&peer, fx),
            Event::UpdateMembers(peers) => self.update(peers, fx)?,
            Event::LinkUp(peer) => self.link_up(peer, fx),
            Event::LinkDown(peer, _) => self.link_down(&peer, fx),
            Event::Message { from, message } => self.heard(&from, message.0, fx),
            // The host dials again by itself, and tells others of the own addresses.
            Event::LinkFailed(_) | Event::Tick | Event::SelfChanged(_) | Event::Loaded(_) => {}
        }
        Ok(())
    }

    fn deadline(&self) -> Option<Duration> {
        None
    }

    /// Whom the policy lists, linked or not.
    fn members(&self) -> Vec<P> {
        self.listed.iter().chain([&self.own]).cloned().collect()
    }
}

#[cfg(test)]
mod tests;
