//! Full mesh: every member keeps a link to every other, and all agree on who is a member.
//!
//! Each node holds the whole set of members as a state that converges by merging ([`Members`]).
//! Whoever changes it tells the change to all members it has a link to; whoever learns something new
//! passes it on to a few random ones, for those without such a link (rumour mongering). Over a fresh link
//! both ends send a digest of their states, and now and then each node sends its digest to a few random
//! members: whoever has another state answers with it, and is told what it lacks. So what was lost is mended, and
//! while nothing changes all that is sent is 18 bytes to a few members (Demers et al., "Epidemic Algorithms for Replicated
//! Database Maintenance", PODC 1987, has both parts, with checksums). This is the full membership of
//! the pluggable peer service of Partisan (Meiklejohn, Miller and Alvaro, "Partisan: Scaling the
//! Distributed Actor Runtime", USENIX ATC 2019), with epochs instead of random tokens, so that
//! a state from before a removal can't undo it.
//!
//! # Joining and leaving
//!
//! A join is a request that stays pending until the other end grants it. The granting node takes
//! the joiner as a member, in a new epoch if it knows that the joiner was removed, and both take
//! over each other's members: joining any one member joins its whole cluster.
//!
//! Removing a node, itself included, ends the node's epoch. A node that learns of the end of its
//! own epoch is alone, in the next one. Whoever still counts it as a member is told so when they
//! send their state.
//!
//! # Whom to believe
//!
//! A state is merged if its sender is a member, or if it says that *we* are one in our present
//! epoch or a later one. The second rule brings back a node that has forgotten its cluster in a
//! crash, and lets a node that was removed while it was away show its state and be told. Any
//! other state is answered by what contradicts it about the two nodes, and nothing else: a node
//! that has moved on to another cluster must not drag the sender along.
//!
//! News, which are part of a state, are merged if their sender is a member; from others, the whole state is
//! asked for. A digest is answered with the own state if its sender is a member, and by asking for the sender's
//! if not. A state is sent to members only.
//!
//! `News` or a `Digest` are answered by at most one `Ask` or `State`, an `Ask` by one `State`, a `State` by one
//! `Reply`, a `Reply` by nothing, and gossip starts only where the state has grown, so every exchange ends.
//!
//! # Limits
//!
//! A node without a data directory that was removed and then crashes has forgotten which epoch
//! it is in. It can rejoin through a member that knows of the removal. Through one that doesn't
//! yet know, the removal catches up with the node, and it must join once more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rand::seq::IteratorRandom;

use super::codec::Reader;
use super::{Contact, Error, NodeSpec, Overlay, Wire};
use crate::limits::{MAX_CONTROL_BYTES, MAX_MEMBERS};

mod message;
#[cfg(test)]
mod simulation;
mod state;

pub use message::DecodeError;
use message::{Kind, Said, StateDigest};
use state::next;
pub use state::{Entry, MAX_TOMBSTONES, Members};

/// Largest encoded state. The room left in a control message is for the term around it.
const MAX_STATE_BYTES: usize = MAX_CONTROL_BYTES - 64;

/// What a user may set.
#[derive(Clone, Debug)]
pub struct Config {
    /// Members to which the digest of the state goes now and then, and news at once.
    pub fanout: usize,
    /// How often the digest goes to a few members.
    pub periodic_interval: Duration,
    /// Time after which an unanswered join request is sent again.
    pub join_retry: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            fanout: 5,
            periodic_interval: Duration::from_secs(10),
            join_retry: Duration::from_secs(10),
        }
    }
}

/// A message of this protocol. Encoded once for all its receivers, and decoded when it is handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message(Arc<[u8]>);

impl Wire for Message {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let bytes = reader.rest();
        if bytes.len() > MAX_CONTROL_BYTES {
            return Err(DecodeError::TooLarge(bytes.len()));
        }
        reader.take(bytes.len()).map(|bytes| Self(bytes.into()))
    }
}

type Event = super::Event<Contact, Message>;
type Effect = super::Effect<Contact, Message>;

#[derive(Debug)]
struct Pending {
    spec: NodeSpec,
    /// When the request was last sent over the present link.
    asked: Option<Duration>,
}

/// One node's view of the mesh.
#[derive(Debug)]
pub struct State {
    config: Config,
    own: Arc<NodeSpec>,
    members: Members,
    pending: BTreeMap<Arc<str>, Pending>,
    linked: BTreeSet<Contact>,
    /// The pending joins have changed, so the wanted links may have.
    relink: bool,
    /// Members with a link may be others than `neighbors`.
    reconsider: bool,
    wanted: BTreeMap<Arc<str>, Contact>,
    neighbors: BTreeSet<Contact>,
    visible: Vec<Arc<NodeSpec>>,
    /// When the digest goes to a few members next.
    periodic: Option<Duration>,
    /// Of the present state, once it was asked for.
    digest: Option<StateDigest>,
}

/// Who hears of a change.
#[derive(Clone, Copy)]
enum Audience<'a> {
    All,
    /// All but the node from which we have it, and which has told nobody else.
    AllBut(&'a str),
    /// A few: the node from which we have it has told others.
    FewBut(&'a str),
}

impl State {
    /// A node alone, which is `own`.
    pub fn new(config: Config, own: Contact) -> Self {
        let own = own.spec().clone();
        let mut members = Members::default();
        members.insert(own.name.clone(), Entry::present(1, 1, own.clone()));
        Self {
            config,
            visible: vec![own.clone()],
            own,
            members,
            pending: BTreeMap::new(),
            linked: BTreeSet::new(),
            relink: false,
            reconsider: false,
            wanted: BTreeMap::new(),
            neighbors: BTreeSet::new(),
            periodic: None,
            digest: None,
        }
    }

    /// The present state, tombstones included.
    pub fn state(&self) -> &Members {
        &self.members
    }

    fn join(
        &mut self,
        now: Duration,
        contact: &Contact,
        effects: &mut Vec<Effect>,
    ) -> Result<bool, Error> {
        if *contact.name() == self.own.name {
            return Err(Error::SelfJoin);
        }
        let spec = (**contact.spec()).clone();
        let name = spec.name.clone();
        let asked = None;
        self.pending.insert(name.clone(), Pending { spec, asked });
        self.relink = true;
        self.ask(now, &name, effects);
        Ok(false)
    }

    /// Sends the request of a pending join, if there is a link to send it over.
    fn ask(&mut self, now: Duration, name: &Arc<str>, effects: &mut Vec<Effect>) {
        if !self.linked.contains(&**name) {
            return;
        }
        if let Some(pending) = self.pending.get_mut(name) {
            pending.asked = Some(now);
            self.send(name, Kind::Join, effects);
        }
    }

    fn leave(&mut self, rng: &mut dyn Rng, effects: &mut Vec<Effect>) -> bool {
        self.pending.clear();
        self.relink = true;
        let own = self.own.name.clone();
        self.members.remove(&own);
        self.gossip(&self.members.only([&own]), Audience::All, rng, effects);
        self.be_alone(effects);
        true
    }

    /// Begins the epoch after the one in which this node was removed.
    fn be_alone(&mut self, effects: &mut Vec<Effect>) {
        let epoch = self.members.get(&self.own.name).map_or(0, |e| e.epoch);
        self.members = Members::default();
        let entry = Entry::present(next(epoch), 1, self.own.clone());
        self.members.insert(self.own.name.clone(), entry);
        effects.push(Effect::Left);
    }

    fn remove(&mut self, names: &[Arc<str>], rng: &mut dyn Rng, effects: &mut Vec<Effect>) -> bool {
        if names.contains(&self.own.name) {
            return self.leave(rng, effects);
        }
        for name in names {
            self.pending.remove(name);
        }
        self.relink = true;
        let mut gone = names.to_vec();
        gone.retain(|name| self.members.remove(name));
        if gone.is_empty() {
            return false;
        }
        self.gossip(&self.members.only(&gone), Audience::All, rng, effects);
        self.part_from(&gone, None, effects);
        true
    }

    /// Tells those that were removed; their links go because they are not wanted any longer.
    fn part_from(&self, gone: &[Arc<str>], knows: Option<&str>, effects: &mut Vec<Effect>) {
        let news = encoded(Kind::News, &self.members.only(gone));
        for name in gone {
            if !self.pending.contains_key(name) && knows != Some(name) {
                self.send_message(name, news.clone(), effects);
            }
        }
    }

    fn update(
        &mut self,
        now: Duration,
        contacts: &[Contact],
        rng: &mut dyn Rng,
        effects: &mut Vec<Effect>,
    ) -> Result<bool, Error> {
        if contacts.is_empty() {
            return Ok(false);
        }
        let names: BTreeSet<&Arc<str>> = contacts.iter().map(Contact::name).collect();
        let absent: Vec<Arc<str>> = self
            .members
            .present()
            .map(|s| &s.name)
            .chain(self.pending.keys())
            .filter(|name| !names.contains(name) && **name != self.own.name)
            .cloned()
            .collect();
        let changed = self.remove(&absent, rng, effects);
        for contact in contacts {
            let name = contact.name();
            if *name != self.own.name && self.members.member(name).is_none() {
                self.join(now, contact, effects)?;
            }
        }
        Ok(changed)
    }

    fn link_up(&mut self, now: Duration, peer: Contact, effects: &mut Vec<Effect>) -> bool {
        let name = peer.name().clone();
        self.linked.replace(peer);
        self.reconsider = true;
        if self.pending.contains_key(&name) {
            self.ask(now, &name, effects);
        } else if self.members.member(&name).is_some() {
            let digest = self.own_digest();
            self.send_message(&name, digest, effects);
        }
        false
    }

    fn link_down(&mut self, name: &str) -> bool {
        self.linked.remove(name);
        self.reconsider = true;
        if let Some(pending) = self.pending.get_mut(name) {
            pending.asked = None;
        }
        false
    }

    fn periodic(&mut self, now: Duration, rng: &mut dyn Rng, effects: &mut Vec<Effect>) {
        let retry = self.config.join_retry;
        let due = |p: &Pending| p.asked.is_none_or(|at| now.saturating_sub(at) >= retry);
        let unanswered: Vec<Arc<str>> = self
            .pending
            .iter()
            .filter(|(_, p)| due(p))
            .map(|(name, _)| name.clone())
            .collect();
        for name in unanswered {
            self.ask(now, &name, effects);
        }
        let few = self
            .linked
            .iter()
            .filter(|peer| self.members.member(peer.name()).is_some())
            .cloned()
            .sample(rng, self.config.fanout);
        if few.is_empty() {
            return;
        }
        let message = self.own_digest();
        for to in few {
            let message = message.clone();
            effects.push(Effect::Send { to, message });
        }
    }

    fn own_digest(&mut self) -> Message {
        let digest = || message::digest(&self.members);
        let digest = *self.digest.get_or_insert_with(digest);
        Message(message::encode_digest(digest).into())
    }

    fn self_changed(
        &mut self,
        to: &Contact,
        rng: &mut dyn Rng,
        effects: &mut Vec<Effect>,
    ) -> Result<bool, Error> {
        if *to.name() != self.own.name {
            let (own, other) = (self.own.name.clone(), to.name().clone());
            return Err(Error::Renamed { own, other });
        }
        self.own = to.spec().clone();
        let changed = assert_own(&self.own, &mut self.members);
        if changed {
            let news = self.members.only([&self.own.name]);
            self.gossip(&news, Audience::All, rng, effects);
        }
        Ok(changed)
    }

    fn load(
        &mut self,
        bytes: &[u8],
        rng: &mut dyn Rng,
        effects: &mut Vec<Effect>,
    ) -> Result<bool, Error> {
        let loaded = message::decode_file(&self.own.name, bytes).map_err(Error::Load)?;
        self.take(&loaded, Audience::All, rng, effects)
    }

    fn message(
        &mut self,
        peer: &Contact,
        bytes: &[u8],
        rng: &mut dyn Rng,
        effects: &mut Vec<Effect>,
    ) -> Result<bool, Error> {
        let said = message::decode_message(bytes).map_err(Error::Message)?;
        let from = peer.name();
        if *from == self.own.name {
            return Ok(false);
        }
        let is_member = self.members.member(from).is_some();
        match said {
            Said::Members(kind, theirs) => self.told(peer, kind, theirs, rng, effects),
            Said::Digest(_) if !is_member => {
                self.ask_for_state(from, effects);
                Ok(false)
            }
            Said::Digest(theirs) => {
                let members = &self.members;
                if *self.digest.get_or_insert_with(|| message::digest(members)) != theirs {
                    self.send(from, Kind::State, effects);
                }
                Ok(false)
            }
            Said::Ask => {
                if is_member {
                    self.send(from, Kind::State, effects);
                }
                Ok(false)
            }
        }
    }

    fn ask_for_state(&self, from: &str, effects: &mut Vec<Effect>) {
        self.send_message(from, Message(message::encode_ask().into()), effects);
    }

    fn told(
        &mut self,
        peer: &Contact,
        kind: Kind,
        mut theirs: Members,
        rng: &mut dyn Rng,
        effects: &mut Vec<Effect>,
    ) -> Result<bool, Error> {
        let from = peer.name();
        match kind {
            Kind::Join => {
                // A message whose sender isn't in it can't be granted.
                if theirs.member(from).is_none() {
                    return Ok(false);
                }
                self.begin_epoch(from, &mut theirs);
                self.begin_epoch(&self.own.name, &mut theirs);
                let changed = self.take(&theirs, Audience::AllBut(from), rng, effects)?;
                self.send(from, Kind::Joined, effects);
                Ok(changed)
            }
            Kind::Joined if self.pending.contains_key(from) => {
                let changed = self.take(&theirs, Audience::AllBut(from), rng, effects)?;
                self.pending.remove(from);
                self.relink = true;
                if self.members.member(from).is_some() {
                    self.reply(from, &theirs, effects);
                }
                effects.push(Effect::Joined(peer.clone()));
                Ok(changed)
            }
            Kind::News if self.members.member(from).is_none() => {
                self.ask_for_state(from, effects);
                Ok(false)
            }
            Kind::News => self.take(&theirs, Audience::FewBut(from), rng, effects),
            Kind::Joined | Kind::State | Kind::Reply => {
                if !self.believes(from, &theirs) {
                    if kind != Kind::Reply {
                        self.contradict(from, &theirs, effects);
                    }
                    return Ok(false);
                }
                let changed = self.take(&theirs, Audience::FewBut(from), rng, effects)?;
                // Still linked: neither of us has left the other's cluster by what we learned.
                if kind != Kind::Reply && self.linked.contains(&**from) {
                    self.reply(from, &theirs, effects);
                }
                Ok(changed)
            }
        }
    }

    /// Tells the sender of a state what it lacks, if anything.
    fn reply(&self, from: &Arc<str>, theirs: &Members, effects: &mut Vec<Effect>) {
        let mut news = self.members.beyond(theirs);
        if news.is_empty() {
            return;
        }
        // Whoever doesn't know the sender believes it for the entry about themselves.
        for name in [&self.own.name, from] {
            if let Some(entry) = self.members.get(name) {
                news.insert(name.clone(), entry.clone());
            }
        }
        self.send_message(from, encoded(Kind::Reply, &news), effects);
    }

    fn believes(&self, from: &str, theirs: &Members) -> bool {
        let ours = |name: &str| self.members.get(name).map_or(0, |e| e.epoch);
        let we_are_theirs = theirs
            .get(&self.own.name)
            .is_some_and(|e| e.is_present() && e.epoch >= ours(&self.own.name));
        we_are_theirs || self.members.member(from).is_some()
    }

    /// Answers a state that isn't merged: the sender believes in an epoch of ours, or of its
    /// own, that has ended.
    fn contradict(&self, from: &Arc<str>, theirs: &Members, effects: &mut Vec<Effect>) {
        let mut truth = Members::default();
        if let (Some(they_think), Some(own)) =
            (theirs.get(&self.own.name), self.members.get(&self.own.name))
            && they_think.is_present()
            && they_think.epoch < own.epoch
        {
            let ended = Entry {
                epoch: own.epoch - 1,
                version: 1,
                spec: None,
            };
            truth.insert(self.own.name.clone(), ended);
        }
        if let (Some(they_think), Some(entry)) = (theirs.get(from), self.members.get(from))
            && entry.beats(they_think)
        {
            truth.insert(from.clone(), entry.clone());
        }
        if !truth.is_empty() {
            self.send_message(from, encoded(Kind::Reply, &truth), effects);
        }
    }

    /// Makes `name`, which takes part in a join, a member in `theirs`, in an epoch later than
    /// every one that either side knows to have ended.
    fn begin_epoch(&self, name: &Arc<str>, theirs: &mut Members) {
        let entries = || {
            [self.members.get(name), theirs.get(name)]
                .into_iter()
                .flatten()
        };
        let ended = entries().filter(|e| !e.is_present()).map(|e| e.epoch).max();
        let spec = entries().find_map(|e| e.spec.clone());
        let last = entries().map(|e| e.epoch).max().unwrap_or(0);
        if let (Some(ended), Some(spec)) = (ended, spec)
            && ended == last
        {
            theirs.insert(name.clone(), Entry::present(next(ended), 1, spec));
        }
    }

    /// Merges `theirs`, and does what follows from it. Returns whether the state has changed.
    fn take(
        &mut self,
        theirs: &Members,
        audience: Audience<'_>,
        rng: &mut dyn Rng,
        effects: &mut Vec<Effect>,
    ) -> Result<bool, Error> {
        let mut merged = self.members.clone();
        let changes = merged.merge(theirs);
        let own_changed = assert_own(&self.own, &mut merged);
        if changes.taken.is_empty() && !own_changed {
            return Ok(false);
        }
        let bytes = message::encode_message(Kind::State, &merged).len();
        if merged.len() > MAX_MEMBERS || bytes > MAX_STATE_BYTES {
            let members = merged.len();
            return Err(Error::TooLarge { members, bytes });
        }
        self.members = merged;
        if self.members.member(&self.own.name).is_none() {
            self.be_alone(effects);
            return Ok(true);
        }
        let mut news = changes.taken;
        if own_changed {
            let own = self.members.only([&self.own.name]);
            // Whoever has told us of our old self needs to hear it, too.
            self.gossip(&own, Audience::All, rng, effects);
            news.merge(&own);
        }
        let knows = match audience {
            Audience::All => None,
            Audience::AllBut(name) | Audience::FewBut(name) => Some(name),
        };
        self.gossip(&news, audience, rng, effects);
        self.part_from(&changes.removed, knows, effects);
        Ok(true)
    }

    fn gossip(
        &self,
        news: &Members,
        audience: Audience<'_>,
        rng: &mut dyn Rng,
        effects: &mut Vec<Effect>,
    ) {
        let (but, fanout) = match audience {
            Audience::All => ("", usize::MAX),
            Audience::AllBut(name) => (name, usize::MAX),
            Audience::FewBut(name) => (name, self.config.fanout),
        };
        let fit = |to: &&Contact| &**to.name() != but && self.members.member(to.name()).is_some();
        let fit = self.linked.iter().filter(fit);
        let to = match fanout {
            usize::MAX => fit.collect(),
            few => fit.sample(rng, few),
        };
        let message = encoded(Kind::News, news);
        for to in to {
            let (to, message) = (to.clone(), message.clone());
            effects.push(Effect::Send { to, message });
        }
    }

    fn send(&self, to: &str, kind: Kind, effects: &mut Vec<Effect>) {
        self.send_message(to, encoded(kind, &self.members), effects);
    }

    fn send_message(&self, to: &str, message: Message, effects: &mut Vec<Effect>) {
        if let Some(to) = self.linked.get(to) {
            let to = to.clone();
            effects.push(Effect::Send { to, message });
        }
    }

    fn show_members(&mut self, effects: &mut Vec<Effect>) {
        if !self.members.present().eq(&self.visible) {
            self.visible = self.members.present().cloned().collect();
            effects.push(Effect::MembersChanged);
        }
    }

    fn show_wanted(&mut self, effects: &mut Vec<Effect>) {
        let mut wanted: BTreeMap<Arc<str>, Contact> = self
            .members
            .present()
            .filter(|s| s.name != self.own.name)
            .map(|s| (s.name.clone(), Contact::from_checked(s.clone())))
            .collect();
        for (name, pending) in &self.pending {
            // The user's addresses come first: they may be newer than the cluster's.
            let mut spec = pending.spec.clone();
            let known = wanted.get(name).into_iter();
            for addr in known.flat_map(|c| &c.spec().listen_addrs) {
                if !spec.listen_addrs.contains(addr) {
                    spec.listen_addrs.push(*addr);
                }
            }
            wanted.insert(name.clone(), Contact::from_checked(Arc::new(spec)));
        }
        for (name, contact) in &wanted {
            let known = self.wanted.get(name);
            if known.is_none_or(|k| k.spec() != contact.spec()) {
                effects.push(Effect::Want(contact.clone()));
            }
        }
        for (name, contact) in std::mem::replace(&mut self.wanted, wanted) {
            if !self.wanted.contains_key(&name) {
                self.linked.remove(&*name);
                effects.push(Effect::Release(contact));
            }
        }
    }

    fn show_neighbors(&mut self, effects: &mut Vec<Effect>) {
        let others = self
            .linked
            .iter()
            .filter(|peer| *peer.name() != self.own.name);
        let now: BTreeSet<Contact> = others
            .filter(|peer| self.members.member(peer.name()).is_some())
            .cloned()
            .collect();
        for gone in self.neighbors.difference(&now) {
            effects.push(Effect::NeighborDown(gone.clone()));
        }
        for new in now.difference(&self.neighbors) {
            effects.push(Effect::NeighborUp(new.clone()));
        }
        self.neighbors = now;
    }
}

impl Overlay for State {
    type Peer = Contact;
    type Message = Message;

    fn handle(
        &mut self,
        now: Duration,
        event: Event,
        rng: &mut dyn Rng,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Error> {
        let changed = match event {
            Event::Join(contact) => self.join(now, &contact, effects)?,
            Event::Leave => self.leave(rng, effects),
            Event::Remove(peer) => self.remove(&[peer.name().clone()], rng, effects),
            Event::UpdateMembers(contacts) => self.update(now, &contacts, rng, effects)?,
            Event::LinkUp(peer) => self.link_up(now, peer, effects),
            // The host dials again by itself.
            Event::LinkFailed(_) => false,
            Event::LinkDown(peer, _) => self.link_down(peer.name()),
            Event::Message { from, message } => self.message(&from, &message.0, rng, effects)?,
            Event::Tick => false,
            Event::SelfChanged(contact) => self.self_changed(&contact, rng, effects)?,
            Event::Loaded(bytes) => self.load(&bytes, rng, effects)?,
        };
        if changed {
            self.digest = None;
        }
        if self.periodic.is_some_and(|at| now >= at) {
            self.periodic(now, rng, effects);
            self.periodic = None;
        }
        let interval = self.config.periodic_interval;
        self.periodic.get_or_insert(now + interval);
        if changed {
            let file = message::encode_file(&self.own.name, &self.members);
            effects.push(Effect::Persist(file));
            self.show_members(effects);
        }
        if std::mem::take(&mut self.relink) || changed {
            self.show_wanted(effects);
        }
        if std::mem::take(&mut self.reconsider) || changed {
            self.show_neighbors(effects);
        }
        Ok(())
    }

    fn deadline(&self) -> Option<Duration> {
        self.periodic
    }

    fn members(&self) -> Vec<Contact> {
        self.visible
            .iter()
            .cloned()
            .map(Contact::from_checked)
            .collect()
    }
}

fn encoded(kind: Kind, members: &Members) -> Message {
    Message(message::encode_message(kind, members).into())
}

/// Corrects a member's own entry where it shows another specification than the present one.
fn assert_own(own: &Arc<NodeSpec>, members: &mut Members) -> bool {
    let Some(entry) = members.get(&own.name) else {
        return false;
    };
    match &entry.spec {
        Some(spec) if spec != own => {
            let corrected = Entry::present(entry.epoch, next(entry.version), own.clone());
            // Refused only at the end of the counter, which none but a liar reaches.
            members.offer(&own.name, &corrected)
        }
        _ => false,
    }
}
