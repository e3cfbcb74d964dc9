//! The state of a node, and what servers do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::Rng;
use rand::seq::IteratorRandom;

use super::client::Rest;
use super::message::{self, Message};
use super::{Config, Tag};
use crate::limits::{DEPARTED_TIME, MAX_DEPARTED, MAX_SERVERS};
use crate::overlay::contract::{Effect, Error, Event, Overlay, Peer};

/// The name of the overlay, in errors.
const NAME: &str = "client_server";

/// How far a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// The other end has not said what it is.
    Fresh,
    /// It is a server, and has not taken this client in yet.
    Met,
    /// A neighbour of this tag.
    Neighbor(Tag),
}

/// One node.
#[derive(Clone, Debug)]
pub struct ClientServer<P> {
    pub(super) config: Config,
    pub(super) own: P,
    /// The servers of the cluster, up or not, this node not among them.
    pub(super) servers: BTreeSet<P>,
    pub(super) links: BTreeMap<P, Link>,
    /// Nodes to which the host was told to keep links.
    pub(super) wanted: BTreeSet<P>,
    /// Nodes that the user joins.
    pub(super) pending: BTreeSet<P>,
    /// Those that have sent us to others.
    pub(super) redirected: BTreeSet<P>,
    /// Servers that this client dials, and since when.
    pub(super) dialled: BTreeMap<P, Duration>,
    pub(super) resting: BTreeMap<P, Rest>,
    /// Nodes that don't come back by hearsay until then.
    departed: Vec<(P, Duration)>,
    /// Until then this node says that it has joined: others may have heard that it had left.
    joined_until: Option<Duration>,
    /// It has left its cluster.
    pub(super) gone: bool,
    /// The list of servers has changed and was not told.
    pub(super) changed: bool,
    /// When a server tells its list next.
    next_list: Duration,
    /// When the next tick is due.
    pub(super) wake: Option<Duration>,
}

pub(super) type Fx<'a, P> = &'a mut Vec<Effect<P, Message<P>>>;

impl<P: Peer> ClientServer<P> {
    /// A node alone.
    pub fn new(mut config: Config, own: P) -> Self {
        config.links = config.links.clamp(1, MAX_SERVERS);
        Self {
            config,
            own,
            servers: BTreeSet::new(),
            links: BTreeMap::new(),
            wanted: BTreeSet::new(),
            pending: BTreeSet::new(),
            redirected: BTreeSet::new(),
            dialled: BTreeMap::new(),
            resting: BTreeMap::new(),
            departed: Vec::new(),
            joined_until: None,
            gone: false,
            changed: false,
            next_list: Duration::ZERO,
            wake: None,
        }
    }

    /// What this node is.
    pub fn tag(&self) -> Tag {
        self.config.tag
    }

    /// The servers that it knows, up or not, itself not among them.
    pub fn servers(&self) -> impl Iterator<Item = &P> {
        self.servers.iter()
    }

    /// Its neighbours, with their tags.
    pub fn neighbors(&self) -> impl Iterator<Item = (&P, Tag)> {
        self.links.iter().filter_map(|(peer, link)| match link {
            Link::Neighbor(tag) => Some((peer, *tag)),
            Link::Fresh | Link::Met => None,
        })
    }

    pub(super) fn is_neighbor(&self, peer: &P) -> bool {
        matches!(self.links.get(peer), Some(Link::Neighbor(_)))
    }

    pub(super) fn want(&mut self, peer: &P, fx: Fx<'_, P>) {
        self.wanted.replace(peer.clone());
        fx.push(Effect::Want(peer.clone()));
    }

    /// Wants a link to become neighbours by. There may be one that serves something else.
    pub(super) fn call(&mut self, now: Duration, peer: &P, fx: Fx<'_, P>) {
        self.want(peer, fx);
        if self.links.contains_key(peer) {
            self.say(peer, self.hello(now, peer), fx);
        }
    }

    /// Parts from a node, whatever it was. A link that this overlay doesn't want is not its to close.
    pub(super) fn release(&mut self, peer: &P, fx: Fx<'_, P>) {
        if self.wanted.contains(peer) {
            self.part(peer, fx);
        }
    }

    fn part(&mut self, peer: &P, fx: Fx<'_, P>) {
        self.unlink(peer, fx);
        self.wanted.remove(peer);
        self.dialled.remove(peer);
        fx.push(Effect::Release(peer.clone()));
    }

    /// The link is gone. Returns what it was.
    fn unlink(&mut self, peer: &P, fx: Fx<'_, P>) -> Option<Link> {
        let link = self.links.remove(peer)?;
        if let Link::Neighbor(_) = link {
            fx.push(Effect::NeighborDown(peer.clone()));
            fx.push(Effect::MembersChanged);
        }
        Some(link)
    }

    pub(super) fn list(&self) -> Vec<P> {
        self.servers.iter().cloned().collect()
    }

    fn hello(&self, now: Duration, peer: &P) -> Message<P> {
        Message::Hello {
            tag: self.config.tag,
            asks: self.pending.contains(peer),
            wants: self.wanted.contains(peer),
            joined: self.joined_until.is_some_and(|at| now < at),
            servers: self.list(),
        }
    }

    fn say(&self, to: &P, message: Message<P>, fx: Fx<'_, P>) {
        let to = to.clone();
        fx.push(Effect::Send { to, message });
    }

    /// Says that this node is of no cluster of the peer's, and parts.
    fn refuse(&mut self, peer: &P, who: P, fx: Fx<'_, P>) {
        self.say(peer, Message::Gone(who), fx);
        self.release(peer, fx);
    }

    fn join(&mut self, now: Duration, peer: P, fx: Fx<'_, P>) -> Result<(), Error> {
        if peer == self.own {
            return Err(Error::SelfJoin);
        }
        if self.pending.len() >= MAX_SERVERS && !self.pending.contains(&peer) {
            return Err(Error::Unsupported {
                overlay: NAME,
                operation: "join more nodes at once",
                advice: "join one server; it tells of the others",
            });
        }
        self.gone = false;
        self.joined_until = Some(now + DEPARTED_TIME);
        self.departed.retain(|(other, _)| *other != peer);
        self.resting.remove(&peer);
        if self.is_neighbor(&peer) {
            fx.push(Effect::Joined(peer));
            return Ok(());
        }
        self.pending.insert(peer.clone());
        self.call(now, &peer, fx);
        Ok(())
    }

    fn leave(&mut self, fx: Fx<'_, P>) {
        let peers: BTreeSet<P> = self
            .wanted
            .iter()
            .chain(self.links.keys())
            .cloned()
            .collect();
        for peer in peers {
            if self.links.contains_key(&peer) {
                self.say(&peer, Message::Gone(self.own.clone()), fx);
            }
            self.part(&peer, fx);
        }
        self.servers.clear();
        self.pending.clear();
        self.redirected.clear();
        self.resting.clear();
        self.departed.clear();
        self.joined_until = None;
        self.gone = true;
        self.changed = true;
        fx.push(Effect::Left);
    }

    fn remove(&mut self, now: Duration, who: &P, fx: Fx<'_, P>) -> Result<(), Error> {
        if *who == self.own {
            self.leave(fx);
            return Ok(());
        }
        if !self.config.tag.serves() {
            return Err(Error::Unsupported {
                overlay: NAME,
                operation: "remove a node from a client",
                advice: "remove it on a server",
            });
        }
        self.pending.remove(who);
        self.forget(now, who, None, fx);
        Ok(())
    }

    fn update(&mut self, now: Duration, peers: Vec<P>, fx: Fx<'_, P>) -> Result<(), Error> {
        if peers.is_empty() {
            return Ok(());
        }
        let named: BTreeSet<P> = peers.into_iter().filter(|p| *p != self.own).collect();
        if !self.config.tag.serves() {
            let homes: Vec<P> = self.neighbors().map(|(peer, _)| peer.clone()).collect();
            for home in homes.iter().filter(|home| !named.contains(*home)) {
                self.release(home, fx);
            }
            self.servers = named.into_iter().take(MAX_SERVERS).collect();
            self.gone = false;
            self.changed = true;
            return Ok(());
        }
        for absent in self.servers.difference(&named).cloned().collect::<Vec<_>>() {
            self.remove(now, &absent, fx)?;
        }
        for peer in named {
            if !self.servers.contains(&peer) && !self.is_neighbor(&peer) {
                self.join(now, peer, fx)?;
            }
        }
        Ok(())
    }

    /// A node has left or was removed. Those who don't know yet are told, but not `knows`.
    pub(super) fn forget(&mut self, now: Duration, who: &P, knows: Option<&P>, fx: Fx<'_, P>) {
        if !self.gone && self.config.tag.serves() {
            let others: Vec<P> = self
                .links
                .keys()
                .filter(|p| Some(*p) != knows)
                .cloned()
                .collect();
            for peer in others {
                self.say(&peer, Message::Gone(who.clone()), fx);
            }
        }
        self.changed |= self.servers.remove(who);
        self.resting.remove(who);
        self.departed
            .retain(|(peer, until)| *until > now && peer != who);
        if self.departed.len() >= MAX_DEPARTED {
            self.departed.remove(0);
        }
        self.departed.push((who.clone(), now + DEPARTED_TIME));
        if self.wanted.contains(who) || self.links.contains_key(who) {
            self.release(who, fx);
        }
    }

    fn has_departed(&self, now: Duration, peer: &P) -> bool {
        let departed = |(other, until): &(P, Duration)| other == peer && *until > now;
        self.departed.iter().any(departed)
    }

    fn link_up(&mut self, now: Duration, peer: P, fx: Fx<'_, P>) {
        self.links.insert(peer.clone(), Link::Fresh);
        if self.gone {
            // Whoever comes to join says so, and is answered then.
            return;
        }
        self.say(&peer, self.hello(now, &peer), fx);
    }

    fn link_down(&mut self, now: Duration, peer: &P, rng: &mut dyn Rng, fx: Fx<'_, P>) {
        self.unlink(peer, fx);
        if self.pending.contains(peer) {
            return;
        }
        if !self.config.tag.serves() {
            if self.wanted.contains(peer) {
                self.lost(now, peer, rng, fx);
            }
        } else if !self.servers.contains(peer) {
            self.release(peer, fx);
        }
    }

    fn on_hello(
        &mut self,
        now: Duration,
        from: P,
        (tag, asks, wants, joined): (Tag, bool, bool, bool),
        list: Vec<P>,
        fx: Fx<'_, P>,
    ) -> Result<(), Error> {
        if self.gone && !asks {
            self.refuse(&from, self.own.clone(), fx);
            return Ok(());
        }
        if std::mem::take(&mut self.gone) {
            self.say(&from, self.hello(now, &from), fx);
        }
        let asked = asks || self.pending.contains(&from);
        match (self.config.tag, tag) {
            (Tag::Client, Tag::Client) => {
                self.changed |= self.servers.remove(&from);
                if asks {
                    self.say(&from, Message::Servers(self.list()), fx);
                }
                if !self.pending.contains(&from) {
                    self.release(&from, fx);
                }
            }
            (Tag::Server, Tag::Client) if self.is_neighbor(&from) => {}
            // A link for its messages only.
            (Tag::Server, Tag::Client) if !wants && !asked => {}
            (Tag::Server, Tag::Client) => {
                if !asked && !joined && self.has_departed(now, &from) {
                    self.refuse(&from, from.clone(), fx);
                } else if self.has_room(&from) {
                    // The user wants to join the client's cluster.
                    if self.pending.contains(&from) {
                        self.learn(now, list, fx);
                    }
                    self.say(&from, Message::Servers(self.list()), fx);
                    self.accept(from, tag, fx);
                } else {
                    self.say(&from, Message::Full(self.list()), fx);
                    self.release(&from, fx);
                }
            }
            (Tag::Client, Tag::Server) => self.on_server(from, asked, list, fx),
            (Tag::Server, Tag::Server) | (Tag::Undefined, Tag::Undefined) => {
                let departed = self.has_departed(now, &from);
                // Those whom we are about to join may have told of us already.
                let ours = |peer: &P| self.servers.contains(peer) || self.pending.contains(peer);
                let related = self.servers.is_empty() || ours(&from) || list.iter().any(ours);
                if asked {
                    // Others may have heard that we had left.
                    self.joined_until = Some(now + DEPARTED_TIME);
                } else if departed && !joined {
                    self.refuse(&from, from.clone(), fx);
                    return Ok(());
                } else if !related {
                    self.refuse(&from, self.own.clone(), fx);
                    return Ok(());
                }
                self.departed.retain(|(peer, _)| *peer != from);
                self.learn(now, vec![from.clone()], fx);
                if !self.servers.contains(&from) {
                    // There are as many as there may be.
                    self.release(&from, fx);
                    return Ok(());
                }
                self.update_address(&from);
                self.learn(now, list, fx);
                self.accept(from, tag, fx);
            }
            (Tag::Undefined, _) | (_, Tag::Undefined) => {
                self.pending.remove(&from);
                self.servers.remove(&from);
                self.release(&from, fx);
                return Err(Error::Unsupported {
                    overlay: NAME,
                    operation: "link a node that has a tag with one that has none",
                    advice: "give each node of the cluster the tag server or client, or none of them",
                });
            }
        }
        Ok(())
    }

    fn has_room(&self, peer: &P) -> bool {
        let clients = self
            .neighbors()
            .filter(|(_, tag)| *tag == Tag::Client)
            .count();
        self.is_neighbor(peer) || clients < self.config.max_clients
    }

    /// It is a neighbour from now on.
    pub(super) fn accept(&mut self, peer: P, tag: Tag, fx: Fx<'_, P>) {
        if !self.wanted.contains(&peer) {
            self.want(&peer, fx);
        }
        self.dialled.remove(&peer);
        self.resting.remove(&peer);
        let before = self.links.insert(peer.clone(), Link::Neighbor(tag));
        if !matches!(before, Some(Link::Neighbor(_))) {
            fx.push(Effect::NeighborUp(peer.clone()));
            fx.push(Effect::MembersChanged);
        }
        if self.pending.remove(&peer) {
            fx.push(Effect::Joined(peer));
        }
        let joined = std::mem::take(&mut self.redirected).into_iter();
        fx.extend(joined.map(Effect::Joined));
    }

    /// Takes over servers that it didn't know.
    fn learn(&mut self, now: Duration, list: Vec<P>, fx: Fx<'_, P>) {
        for server in list {
            let known = server == self.own || self.servers.contains(&server);
            if !known && self.servers.len() < MAX_SERVERS && !self.has_departed(now, &server) {
                if !self.wanted.contains(&server) {
                    self.call(now, &server, fx);
                }
                self.servers.insert(server);
                self.changed = true;
            }
        }
    }

    /// What a server says of itself is right; those who hear it from us should know.
    fn update_address(&mut self, server: &P) {
        let bytes = |peer: &P| {
            let mut out = Vec::new();
            peer.encode(&mut out);
            out
        };
        let known = self.servers.get(server).map(bytes);
        if known.is_some_and(|known| known != bytes(server)) {
            self.servers.replace(server.clone());
            self.changed = true;
        }
    }

    fn on_message(
        &mut self,
        now: Duration,
        from: P,
        message: Message<P>,
        rng: &mut dyn Rng,
        fx: Fx<'_, P>,
    ) -> Result<(), Error> {
        let Some(link) = self.links.get(&from).copied() else {
            return Ok(());
        };
        let serves = self.config.tag.serves();
        let from_server = matches!(link, Link::Neighbor(tag) if tag.serves());
        match message {
            Message::Hello {
                tag,
                asks,
                wants,
                joined,
                servers,
            } => self.on_hello(now, from, (tag, asks, wants, joined), servers, fx)?,
            Message::Servers(list) if serves => {
                if from_server {
                    self.learn(now, list, fx);
                }
            }
            Message::Servers(list) => match link {
                Link::Fresh => self.redirect(now, &from, list, rng, fx),
                Link::Met if self.wanted.contains(&from) => self.taken_in(from, list, fx),
                Link::Met => {}
                Link::Neighbor(_) => self.told(list),
            },
            Message::Full(list) if link == Link::Met => self.redirect(now, &from, list, rng, fx),
            Message::Gone(who) if who == from => {
                self.pending.remove(&who);
                match self.servers.contains(&who) {
                    true => self.forget(now, &who, Some(&from), fx),
                    false => self.release(&from, fx),
                }
            }
            // A client has nobody to remove.
            Message::Gone(who) if from_server && who == self.own => self.leave(fx),
            Message::Gone(who) if from_server => {
                if self.servers.contains(&who) || self.links.contains_key(&who) {
                    self.forget(now, &who, Some(&from), fx);
                }
            }
            Message::Full(_) | Message::Gone(_) => {}
        }
        Ok(())
    }

    fn load(&mut self, now: Duration, bytes: &[u8], fx: Fx<'_, P>) -> Result<(), Error> {
        let list = message::decode_file(&self.own, bytes).map_err(Error::Load)?;
        match self.config.tag.serves() {
            true => self.learn(now, list, fx),
            false => self.told(list),
        }
        Ok(())
    }

    /// Tells and keeps the list if it has changed.
    fn show_list(&mut self, fx: Fx<'_, P>) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let list = self.list();
        fx.push(Effect::Persist(message::encode_file(&self.own, &list)));
        if self.config.tag.serves() {
            let neighbors: Vec<P> = self.neighbors().map(|(peer, _)| peer.clone()).collect();
            for peer in neighbors {
                self.say(&peer, Message::Servers(list.clone()), fx);
            }
        }
    }

    fn tell_somebody(&mut self, now: Duration, rng: &mut dyn Rng, fx: Fx<'_, P>) {
        if !self.config.tag.serves() {
            return;
        }
        if now >= self.next_list {
            self.next_list = now + self.config.interval;
            let somebody = self.neighbors().map(|(peer, _)| peer.clone()).choose(rng);
            if let Some(peer) = somebody {
                self.say(&peer, Message::Servers(self.list()), fx);
            }
        }
        self.wake = Some(self.next_list);
    }
}

impl<P: Peer> Overlay for ClientServer<P> {
    type Peer = P;
    type Message = Message<P>;

    fn handle(
        &mut self,
        now: Duration,
        event: Event<P, Message<P>>,
        rng: &mut dyn Rng,
        fx: &mut Vec<Effect<P, Message<P>>>,
    ) -> Result<(), Error> {
        let done = match event {
            Event::Join(peer) => self.join(now, peer, fx),
            Event::Leave => {
                self.leave(fx);
                Ok(())
            }
            Event::Remove(peer) => self.remove(now, &peer, fx),
            Event::UpdateMembers(peers) => self.update(now, peers, fx),
            Event::LinkUp(peer) => {
                self.link_up(now, peer, fx);
                Ok(())
            }
            Event::LinkDown(peer, _) => {
                self.link_down(now, &peer, rng, fx);
                Ok(())
            }
            Event::LinkFailed(peer) => {
                self.unreachable(now, &peer, rng, fx);
                Ok(())
            }
            Event::Message { from, message } => self.on_message(now, from, message, rng, fx),
            Event::Tick => Ok(()),
            Event::SelfChanged(own) => {
                self.own = own;
                Ok(())
            }
            Event::Loaded(bytes) => self.load(now, &bytes, fx),
        };
        self.pursue(now, rng, fx);
        self.tell_somebody(now, rng, fx);
        self.show_list(fx);
        done
    }

    fn deadline(&self) -> Option<Duration> {
        self.wake
    }

    fn members(&self) -> Vec<P> {
        let neighbors = self.neighbors().map(|(peer, _)| peer);
        neighbors.chain([&self.own]).cloned().collect()
    }
}
