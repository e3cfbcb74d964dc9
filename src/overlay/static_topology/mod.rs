//! Static: links with exactly those nodes that the user has named, and no gossip.
//!
//! A link needs one end that has named the other. That end dials, and goes on dialling; the other end keeps the
//! link as long as it is up, and forgets it when it goes. So a star, a chain or a tree is configured at one
//! end of each of its edges. There are no messages: all that a node must know of another is in the link.
//!
//! This is the static topology of Partisan (Meiklejohn, Miller and Alvaro, USENIX ATC 2019): members are added by
//! explicit joins. It differs from theirs in that a node may leave and be removed: nothing tells the others but
//! the link's planned close, after which an end that has named the other waits for it to come back by itself.
//!
//! # Limits
//!
//! Whoever has left, or removed a node, forgets that when it restarts: a node that still names it is taken in then.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::Rng;

use super::codec::{DecodeError, Reader, seal, unseal};
use super::contract::{Down, Effect, Error, Event, Overlay, Peer, Wire};
use crate::limits::MAX_MEMBERS;

const MAGIC: [u8; 4] = *b"PTST";
const FILE_VERSION: u8 = 1;

/// There are no messages: none can be made or read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {}

impl Wire for Message {
    fn encode(&self, _: &mut Vec<u8>) {
        match *self {}
    }

    fn decode(_: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Err(DecodeError::Bad("message: a static overlay has none"))
    }
}

type Fx<'a, P> = &'a mut Vec<Effect<P, Message>>;

/// One node of a static overlay.
#[derive(Clone, Debug)]
pub struct Static<P> {
    own: P,
    /// Nodes that the user has named, and whether the user waits for the link.
    named: BTreeMap<P, bool>,
    /// Peers with a link: the neighbours.
    linked: BTreeSet<P>,
    /// Nodes that the user has removed. They are not taken in until the user names them again.
    removed: BTreeSet<P>,
    /// The user has left, and nobody is taken in.
    left: bool,
}

impl<P: Peer> Static<P> {
    /// A node alone.
    pub fn new(own: P) -> Self {
        Self {
            own,
            named: BTreeMap::new(),
            linked: BTreeSet::new(),
            removed: BTreeSet::new(),
            left: false,
        }
    }

    /// Nodes that the user has named, in order.
    pub fn named(&self) -> impl Iterator<Item = &P> {
        self.named.keys()
    }

    fn join(&mut self, peer: P, fx: Fx<'_, P>) -> Result<(), Error> {
        if peer == self.own {
            return Err(Error::SelfJoin);
        }
        if self.named.len() >= MAX_MEMBERS && !self.named.contains_key(&peer) {
            let (members, bytes) = (self.named.len() + 1, 0);
            return Err(Error::TooLarge { members, bytes });
        }
        self.left = false;
        self.removed.remove(&peer);
        let linked = self.linked.contains(&peer);
        if linked {
            fx.push(Effect::Joined(peer.clone()));
        }
        // The user's addresses may be newer.
        self.named.remove(&peer);
        self.named.insert(peer.clone(), !linked);
        fx.push(Effect::Want(peer));
        self.save(fx);
        Ok(())
    }

    fn remove(&mut self, peer: &P, fx: Fx<'_, P>) {
        let named = self.named.remove(peer).is_some();
        let linked = self.unlink(peer, fx);
        if named || linked {
            fx.push(Effect::Release(peer.clone()));
        }
        if self.removed.len() < MAX_MEMBERS {
            self.removed.insert(peer.clone());
        }
        if named {
            self.save(fx);
        }
    }

    fn leave(&mut self, fx: Fx<'_, P>) {
        let peers: BTreeSet<P> = self.named.keys().chain(&self.linked).cloned().collect();
        for peer in peers {
            self.unlink(&peer, fx);
            fx.push(Effect::Release(peer));
        }
        self.named.clear();
        self.removed.clear();
        self.left = true;
        self.save(fx);
        fx.push(Effect::Left);
    }

    fn update(&mut self, peers: Vec<P>, fx: Fx<'_, P>) -> Result<(), Error> {
        if peers.is_empty() {
            return Ok(());
        }
        let wanted: BTreeSet<P> = peers.into_iter().filter(|p| *p != self.own).collect();
        let known: BTreeSet<P> = self.named.keys().chain(&self.linked).cloned().collect();
        for peer in known.difference(&wanted) {
            self.remove(peer, fx);
        }
        for peer in wanted {
            if !self.named.contains_key(&peer) {
                self.join(peer, fx)?;
            }
        }
        Ok(())
    }

    fn link_up(&mut self, peer: P, fx: Fx<'_, P>) {
        if self.left || self.removed.contains(&peer) {
            fx.push(Effect::Release(peer));
            return;
        }
        if self.named.get_mut(&peer).is_some_and(std::mem::take) {
            fx.push(Effect::Joined(peer.clone()));
        }
        self.linked.insert(peer.clone());
        fx.push(Effect::Want(peer.clone()));
        fx.push(Effect::NeighborUp(peer));
        fx.push(Effect::MembersChanged);
    }

    fn link_down(&mut self, peer: &P, how: Down, fx: Fx<'_, P>) {
        self.unlink(peer, fx);
        // One that has left, or never was named, has to come by itself.
        if how == Down::Planned || !self.named.contains_key(peer) {
            fx.push(Effect::Release(peer.clone()));
        }
    }

    fn unlink(&mut self, peer: &P, fx: Fx<'_, P>) -> bool {
        let linked = self.linked.remove(peer);
        if linked {
            fx.push(Effect::NeighborDown(peer.clone()));
            fx.push(Effect::MembersChanged);
        }
        linked
    }

    fn save(&self, fx: Fx<'_, P>) {
        let mut body = Vec::new();
        self.own.encode(&mut body);
        body.extend_from_slice(&(self.named.len() as u16).to_be_bytes());
        self.named.keys().for_each(|peer| peer.encode(&mut body));
        fx.push(Effect::Persist(seal(MAGIC, FILE_VERSION, &body)));
    }

    fn load(&mut self, bytes: &[u8], fx: Fx<'_, P>) -> Result<(), Error> {
        for peer in read_file(&self.own, bytes).map_err(Error::Load)? {
            if peer != self.own {
                fx.push(Effect::Want(peer.clone()));
                self.named.insert(peer, false);
            }
        }
        Ok(())
    }
}

fn read_file<P: Peer>(own: &P, bytes: &[u8]) -> Result<Vec<P>, DecodeError> {
    let mut reader = unseal(MAGIC, FILE_VERSION, bytes)?;
    let owner = P::decode(&mut reader)?;
    if owner != *own {
        return Err(DecodeError::Foreign(format!("{owner:?}").into()));
    }
    let count = usize::from(reader.u16()?);
    if count > MAX_MEMBERS {
        return Err(DecodeError::Bad("number of nodes"));
    }
    let mut named = Vec::new();
    for _ in 0..count {
        named.push(P::decode(&mut reader)?);
    }
    reader.end()?;
    Ok(named)
}

impl<P: Peer> Overlay for Static<P> {
    type Peer = P;
    type Message = Message;

    fn handle(
        &mut self,
        _: Duration,
        event: Event<P, Message>,
        _: &mut dyn Rng,
        fx: &mut Vec<Effect<P, Message>>,
    ) -> Result<(), Error> {
        match event {
            Event::Join(peer) => self.join(peer, fx)?,
            Event::Leave => self.leave(fx),
            Event::Remove(peer) if peer == self.own => self.leave(fx),
            Event::Remove(peer) => self.remove(&peer, fx),
            Event::UpdateMembers(peers) => self.update(peers, fx)?,
            Event::LinkUp(peer) => self.link_up(peer, fx),
            Event::LinkDown(peer, how) => self.link_down(&peer, how, fx),
            Event::Message { message, .. } => match message {},
            Event::Loaded(bytes) => self.load(&bytes, fx)?,
            // The host dials again by itself, and tells others of the own addresses.
            Event::LinkFailed(_) | Event::Tick | Event::SelfChanged(_) => {}
        }
        Ok(())
    }

    fn deadline(&self) -> Option<Duration> {
        None
    }

    fn members(&self) -> Vec<P> {
        self.linked.iter().chain([&self.own]).cloned().collect()
    }
}

#[cfg(test)]
mod tests;
