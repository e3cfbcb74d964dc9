//! Static: links with exactly those nodes that the user has named, and no gossip.
//!
//! A link needs one end that has named the other. That end dials, goes on dialling, and says over each link that it is
//! one of these: there may be others, for messages of users. The other end keeps the link as long as it is up, and
//! forgets it when it goes. So a star, a chain or a tree is configured at one end of each of its edges.
//!
//! ```text
//! message:  version:8 = 1  kind:8 = 1 (the sender has named the receiver)
//! ```
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
const VERSION: u8 = 1;
const NAMED: u8 = 1;

/// The only message: the sender has named the receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named;

impl Wire for Named {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend([VERSION, NAMED]);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.version(VERSION)?;
        match reader.u8()? {
            NAMED => reader.end().map(|()| Self),
            _ => Err(DecodeError::Bad("kind")),
        }
    }
}

type Fx<'a, P> = &'a mut Vec<Effect<P, Named>>;

/// One node of a static overlay.
#[derive(Clone, Debug)]
pub struct Static<P> {
    own: P,
    /// Nodes that the user has named, and whether the user waits for the link.
    named: BTreeMap<P, bool>,
    /// Peers with a link, whatever it is for.
    links: BTreeSet<P>,
    /// Those that one end has named.
    neighbors: BTreeSet<P>,
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
            links: BTreeSet::new(),
            neighbors: BTreeSet::new(),
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
        // The user's addresses may be newer.
        self.named.remove(&peer);
        self.named.insert(peer.clone(), true);
        fx.push(Effect::Want(peer.clone()));
        self.save(fx);
        if self.links.contains(&peer) {
            self.say_named(&peer, fx);
        }
        Ok(())
    }

    fn remove(&mut self, peer: &P, fx: Fx<'_, P>) {
        let named = self.named.remove(peer).is_some();
        if self.unlink(peer, fx) || named {
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
        let peers: BTreeSet<P> = self.named.keys().chain(&self.links).cloned().collect();
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
        let known = self.named.keys().chain(&self.neighbors);
        let known: BTreeSet<P> = known.cloned().collect();
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
        self.links.insert(peer.clone());
        if self.named.contains_key(&peer) {
            self.say_named(&peer, fx);
        }
    }

    fn say_named(&mut self, peer: &P, fx: Fx<'_, P>) {
        let (to, message) = (peer.clone(), Named);
        fx.push(Effect::Send { to, message });
        if self.named.get_mut(peer).is_some_and(std::mem::take) {
            fx.push(Effect::Joined(peer.clone()));
        }
        self.add(peer, fx);
    }

    /// The other end has named this node.
    fn on_named(&mut self, peer: &P, fx: Fx<'_, P>) {
        if self.left || self.removed.contains(peer) {
            self.unlink(peer, fx);
            fx.push(Effect::Release(peer.clone()));
        } else if self.links.contains(peer) {
            self.add(peer, fx);
        }
    }

    fn add(&mut self, peer: &P, fx: Fx<'_, P>) {
        if self.neighbors.insert(peer.clone()) {
            fx.push(Effect::Want(peer.clone()));
            fx.push(Effect::NeighborUp(peer.clone()));
            fx.push(Effect::MembersChanged);
        }
    }

    fn link_down(&mut self, peer: &P, how: Down, fx: Fx<'_, P>) {
        let neighbor = self.neighbors.contains(peer);
        self.unlink(peer, fx);
        // One that has left, or never was named, has to come by itself.
        if neighbor && (how == Down::Planned || !self.named.contains_key(peer)) {
            fx.push(Effect::Release(peer.clone()));
        }
    }

    /// Whether there was a link.
    fn unlink(&mut self, peer: &P, fx: Fx<'_, P>) -> bool {
        if self.neighbors.remove(peer) {
            fx.push(Effect::NeighborDown(peer.clone()));
            fx.push(Effect::MembersChanged);
        }
        self.links.remove(peer)
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
    type Message = Named;

    fn handle(
        &mut self,
        _: Duration,
        event: Event<P, Named>,
        _: &mut dyn Rng,
        fx: &mut Vec<Effect<P, Named>>,
    ) -> Result<(), Error> {
        match event {
            Event::Join(peer) => self.join(peer, fx)?,
            Event::Leave => self.leave(fx),
            Event::Remove(peer) if peer == self.own => self.leave(fx),
            Event::Remove(peer) => self.remove(&peer, fx),
            Event::UpdateMembers(peers) => self.update(peers, fx)?,
            Event::LinkUp(peer) => self.link_up(peer, fx),
            Event::LinkDown(peer, how) => self.link_down(&peer, how, fx),
            Event::Message { from, .. } => self.on_named(&from, fx),
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
        self.neighbors.iter().chain([&self.own]).cloned().collect()
    }
}

#[cfg(test)]
mod tests;
