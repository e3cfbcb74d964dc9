//! Full mesh: every member keeps a link to every other, and all agree on who is a member.
//!
//! Each node holds the whole set of members as a state that converges by merging ([`Members`]).
//! Whoever changes it sends it to all members it has a link to; whoever learns something new
//! passes it on; a fresh link begins with both ends' states; and now and then each node sends
//! its state to a few random members, which mends what was lost. This is the full membership of
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
//! A `State` is answered by at most one `Reply`, a `Reply` by nothing, and gossip starts only
//! where the state has grown, so every exchange ends.
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

use super::NodeSpec;
use super::contact::{as_seen_by_others, check_spec};
use crate::limits::{MAX_CONTROL_BYTES, MAX_MEMBERS};

mod message;
#[cfg(test)]
mod simulation;
mod state;

pub use message::DecodeError;
use message::Kind;
use state::next;
pub use state::{Entry, MAX_TOMBSTONES, Members};

/// Largest encoded state. The room left in a control message is for the term around it.
const MAX_STATE_BYTES: usize = MAX_CONTROL_BYTES - 64;

/// What a user may set.
#[derive(Clone, Debug)]
pub struct Config {
    /// Members to which the state goes at each [`Event::Periodic`].
    pub fanout: usize,
    /// How often the host sends [`Event::Periodic`].
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

/// What happens to the overlay.
#[derive(Clone, Debug)]
pub enum Event {
    /// The user wants to join the cluster of this node.
    Join(NodeSpec),
    /// The user wants to leave the cluster.
    Leave,
    /// The user removes a node from the cluster. For the own name the same as `Leave`.
    Remove(Arc<str>),
    /// The user wants exactly these members, and itself: joins the missing and removes the
    /// others. An empty list means nothing.
    UpdateMembers(Vec<NodeSpec>),
    /// A session with this node is up.
    LinkUp(Arc<str>),
    /// The session with this node is down. Comes before the next `LinkUp` of the name.
    LinkDown(Arc<str>),
    /// A membership message has come from this node.
    Message {
        /// The node at the other end of the session.
        from: Arc<str>,
        /// What an [`Effect::Send`] there contained.
        bytes: Vec<u8>,
    },
    /// [`Config::periodic_interval`] has passed.
    Periodic,
    /// The own addresses or channels have changed.
    SelfSpec(NodeSpec),
    /// The content that [`Effect::Persist`] left in an earlier life. At the start only.
    Loaded(Vec<u8>),
}

/// What the host is to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a membership message over an existing link.
    Send {
        /// Receiver.
        to: Arc<str>,
        /// The message.
        bytes: Arc<[u8]>,
    },
    /// Keep links to these nodes from now on: the members and those to be joined.
    Wanted(Vec<NodeSpec>),
    /// Close the session with a node that is no longer a member.
    Disconnect {
        /// The node.
        name: Arc<str>,
        /// Whether what is queued for it should be sent first.
        flush: bool,
    },
    /// The members have changed; all of them, the own node among them, in the order of names.
    MembersChanged(Vec<NodeSpec>),
    /// Replace the persisted state by this.
    Persist(Vec<u8>),
    /// The node has left its cluster, or was removed from it, and is alone.
    Left,
    /// The join of this node's cluster has been granted.
    Joined(Arc<str>),
}

/// Why an event was refused. It has then changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A peer's message can't be read.
    #[error("membership message from {from}: {error}")]
    Message {
        /// The peer.
        from: Arc<str>,
        /// What is wrong.
        error: DecodeError,
    },
    /// The persisted state can't be read.
    #[error("persisted membership: {0}")]
    Load(DecodeError),
    /// A specification is one that other nodes would not accept.
    #[error("node specification of {name:?}: bad {what}")]
    Spec {
        /// The node.
        name: Arc<str>,
        /// The field.
        what: &'static str,
    },
    /// The own specification has another name.
    #[error("this node is {own:?}, not {other:?}")]
    Renamed {
        /// The own name.
        own: Arc<str>,
        /// The name in the specification.
        other: Arc<str>,
    },
    /// A node can't join itself.
    #[error("a node can not join itself")]
    SelfJoin,
    /// The merged state would be too large.
    #[error("a cluster of {members} entries in {bytes} bytes is too large")]
    TooLarge {
        /// Members and tombstones.
        members: usize,
        /// Encoded size.
        bytes: usize,
    },
}

struct Pending {
    spec: NodeSpec,
    /// When the request was last sent over the present link.
    asked: Option<Duration>,
}

/// One node's view of the mesh.
pub struct State {
    config: Config,
    own: Arc<NodeSpec>,
    members: Members,
    pending: BTreeMap<Arc<str>, Pending>,
    linked: BTreeSet<Arc<str>>,
    /// The pending joins have changed, so the wanted links may have.
    relink: bool,
    wanted: Vec<NodeSpec>,
    visible: Vec<Arc<NodeSpec>>,
}

/// Who hears of a change.
enum Audience<'a> {
    All,
    /// All but the node from which we have it.
    AllBut(&'a str),
}

impl State {
    /// A node alone, which is `own`.
    pub fn new(config: Config, own: NodeSpec) -> Result<Self, Error> {
        let own = Arc::new(checked(own)?);
        let mut members = Members::default();
        members.insert(own.name.clone(), Entry::present(1, 1, own.clone()));
        Ok(Self {
            config,
            visible: vec![own.clone()],
            own,
            members,
            pending: BTreeMap::new(),
            linked: BTreeSet::new(),
            relink: false,
            wanted: Vec::new(),
        })
    }

    /// The present state.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// Handles one event. `now` is the time since some fixed moment.
    pub fn handle<R: Rng>(
        &mut self,
        now: Duration,
        event: Event,
        rng: &mut R,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Error> {
        let changed = match event {
            Event::Join(spec) => self.join(now, spec, effects)?,
            Event::Leave => self.leave(effects),
            Event::Remove(name) => self.remove(&[name], effects),
            Event::UpdateMembers(specs) => self.update(now, specs, effects)?,
            Event::LinkUp(name) => self.link_up(now, name, effects),
            Event::LinkDown(name) => self.link_down(&name),
            Event::Message { from, bytes } => self.message(from, &bytes, effects)?,
            Event::Periodic => self.periodic(now, rng, effects),
            Event::SelfSpec(spec) => self.self_spec(spec, effects)?,
            Event::Loaded(bytes) => self.load(&bytes, effects)?,
        };
        if changed {
            let file = message::encode_file(&self.own.name, &self.members);
            effects.push(Effect::Persist(file));
            self.show_members(effects);
        }
        if std::mem::take(&mut self.relink) || changed {
            self.show_wanted(effects);
        }
        Ok(())
    }

    fn join(
        &mut self,
        now: Duration,
        spec: NodeSpec,
        effects: &mut Vec<Effect>,
    ) -> Result<bool, Error> {
        if spec.name == self.own.name {
            return Err(Error::SelfJoin);
        }
        check(&spec)?;
        let name = spec.name.clone();
        let asked = None;
        self.pending.insert(name.clone(), Pending { spec, asked });
        self.relink = true;
        self.ask(now, &name, effects);
        Ok(false)
    }

    /// Sends the request of a pending join, if there is a link to send it over.
    fn ask(&mut self, now: Duration, name: &Arc<str>, effects: &mut Vec<Effect>) {
        if !self.linked.contains(name) {
            return;
        }
        if let Some(pending) = self.pending.get_mut(name) {
            pending.asked = Some(now);
            self.send(name, Kind::Join, effects);
        }
    }

    fn leave(&mut self, effects: &mut Vec<Effect>) -> bool {
        self.pending.clear();
        self.relink = true;
        let own = self.own.name.clone();
        self.members.remove(&own);
        self.gossip(Audience::All, effects);
        self.be_alone(effects);
        true
    }

    /// Begins the epoch after the one in which this node was removed.
    fn be_alone(&mut self, effects: &mut Vec<Effect>) {
        for name in std::mem::take(&mut self.linked) {
            // A node with a pending join is about to be spoken to, whatever cluster it is in.
            if self.pending.contains_key(&name) {
                self.linked.insert(name);
            } else if self.members.get(&name).is_some() {
                effects.push(Effect::Disconnect { name, flush: true });
            }
        }
        let epoch = self.members.get(&self.own.name).map_or(0, |e| e.epoch);
        self.members = Members::default();
        let entry = Entry::present(next(epoch), 1, self.own.clone());
        self.members.insert(self.own.name.clone(), entry);
        effects.push(Effect::Left);
    }

    fn remove(&mut self, names: &[Arc<str>], effects: &mut Vec<Effect>) -> bool {
        if names.contains(&self.own.name) {
            return self.leave(effects);
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
        self.gossip(Audience::All, effects);
        self.part_from(&gone, None, effects);
        true
    }

    /// Tells those that were removed, and closes their sessions.
    fn part_from(&mut self, gone: &[Arc<str>], knows: Option<&str>, effects: &mut Vec<Effect>) {
        for name in gone {
            if self.pending.contains_key(name) || !self.linked.contains(name) {
                continue;
            }
            if knows != Some(name) {
                self.send(name, Kind::State, effects);
            }
            self.linked.remove(name);
            let (name, flush) = (name.clone(), true);
            effects.push(Effect::Disconnect { name, flush });
        }
    }

    fn update(
        &mut self,
        now: Duration,
        specs: Vec<NodeSpec>,
        effects: &mut Vec<Effect>,
    ) -> Result<bool, Error> {
        specs.iter().try_for_each(check)?;
        if specs.is_empty() {
            return Ok(false);
        }
        let names: BTreeSet<Arc<str>> = specs.iter().map(|s| s.name.clone()).collect();
        let absent: Vec<Arc<str>> = self
            .members
            .present()
            .map(|s| &s.name)
            .chain(self.pending.keys())
            .filter(|name| !names.contains(*name) && **name != self.own.name)
            .cloned()
            .collect();
        let changed = self.remove(&absent, effects);
        for spec in specs {
            if spec.name != self.own.name && self.members.member(&spec.name).is_none() {
                self.join(now, spec, effects)?;
            }
        }
        Ok(changed)
    }

    fn link_up(&mut self, now: Duration, name: Arc<str>, effects: &mut Vec<Effect>) -> bool {
        self.linked.insert(name.clone());
        if self.pending.contains_key(&name) {
            self.ask(now, &name, effects);
        } else if self.members.member(&name).is_some() {
            self.send(&name, Kind::State, effects);
        }
        false
    }

    fn link_down(&mut self, name: &str) -> bool {
        self.linked.remove(name);
        if let Some(pending) = self.pending.get_mut(name) {
            pending.asked = None;
        }
        false
    }

    fn periodic<R: Rng>(&mut self, now: Duration, rng: &mut R, effects: &mut Vec<Effect>) -> bool {
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
            .filter(|name| self.members.member(name).is_some())
            .sample(rng, self.config.fanout);
        let bytes = self.encoded(Kind::State);
        for to in few {
            let (to, bytes) = (to.clone(), bytes.clone());
            effects.push(Effect::Send { to, bytes });
        }
        false
    }

    fn self_spec(&mut self, spec: NodeSpec, effects: &mut Vec<Effect>) -> Result<bool, Error> {
        if spec.name != self.own.name {
            let (own, other) = (self.own.name.clone(), spec.name);
            return Err(Error::Renamed { own, other });
        }
        self.own = Arc::new(checked(spec)?);
        let changed = assert_own(&self.own, &mut self.members);
        if changed {
            self.gossip(Audience::All, effects);
        }
        Ok(changed)
    }

    fn load(&mut self, bytes: &[u8], effects: &mut Vec<Effect>) -> Result<bool, Error> {
        let loaded = message::decode_file(&self.own.name, bytes).map_err(Error::Load)?;
        self.take(&loaded, Audience::All, effects)
    }

    fn message(
        &mut self,
        from: Arc<str>,
        bytes: &[u8],
        effects: &mut Vec<Effect>,
    ) -> Result<bool, Error> {
        let (kind, mut theirs) =
            message::decode_message(bytes).map_err(|error| Error::Message {
                from: from.clone(),
                error,
            })?;
        if from == self.own.name {
            return Ok(false);
        }
        match kind {
            Kind::Join => {
                // A message whose sender isn't in it can't be granted.
                if theirs.member(&from).is_none() {
                    return Ok(false);
                }
                self.begin_epoch(&from, &mut theirs);
                self.begin_epoch(&self.own.name, &mut theirs);
                let changed = self.take(&theirs, Audience::AllBut(&from), effects)?;
                self.send(&from, Kind::Joined, effects);
                Ok(changed)
            }
            Kind::Joined if self.pending.contains_key(&from) => {
                let changed = self.take(&theirs, Audience::AllBut(&from), effects)?;
                self.pending.remove(&from);
                self.relink = true;
                if self.members != theirs && self.members.member(&from).is_some() {
                    self.send(&from, Kind::State, effects);
                }
                effects.push(Effect::Joined(from));
                Ok(changed)
            }
            Kind::Joined | Kind::State | Kind::Reply => {
                if !self.believes(&from, &theirs) {
                    if kind != Kind::Reply {
                        self.contradict(&from, &theirs, effects);
                    }
                    return Ok(false);
                }
                let changed = self.take(&theirs, Audience::AllBut(&from), effects)?;
                // Still linked: neither of us has left the other's cluster by what we learned.
                if kind != Kind::Reply && self.linked.contains(&from) && self.members != theirs {
                    self.send(&from, Kind::Reply, effects);
                }
                Ok(changed)
            }
        }
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
            let to = from.clone();
            let bytes = message::encode_message(Kind::Reply, &truth).into();
            effects.push(Effect::Send { to, bytes });
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
        effects: &mut Vec<Effect>,
    ) -> Result<bool, Error> {
        let mut merged = self.members.clone();
        let changes = merged.merge(theirs);
        let own_changed = assert_own(&self.own, &mut merged);
        if !changes.any && !own_changed {
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
        let knows = match audience {
            Audience::All => None,
            Audience::AllBut(name) => Some(name),
        };
        self.gossip(audience, effects);
        self.part_from(&changes.removed, knows, effects);
        Ok(true)
    }

    fn gossip(&self, audience: Audience<'_>, effects: &mut Vec<Effect>) {
        let bytes = self.encoded(Kind::State);
        for to in &self.linked {
            let has_it = matches!(audience, Audience::AllBut(name) if name == &**to);
            if !has_it && self.members.member(to).is_some() {
                let (to, bytes) = (to.clone(), bytes.clone());
                effects.push(Effect::Send { to, bytes });
            }
        }
    }

    fn send(&self, to: &Arc<str>, kind: Kind, effects: &mut Vec<Effect>) {
        let (to, bytes) = (to.clone(), self.encoded(kind));
        effects.push(Effect::Send { to, bytes });
    }

    fn encoded(&self, kind: Kind) -> Arc<[u8]> {
        message::encode_message(kind, &self.members).into()
    }

    fn show_members(&mut self, effects: &mut Vec<Effect>) {
        if !self.members.present().eq(&self.visible) {
            self.visible = self.members.present().cloned().collect();
            let list = self.visible.iter().map(|s| (**s).clone()).collect();
            effects.push(Effect::MembersChanged(list));
        }
    }

    fn show_wanted(&mut self, effects: &mut Vec<Effect>) {
        let mut wanted: BTreeMap<&Arc<str>, NodeSpec> = self
            .members
            .present()
            .filter(|s| s.name != self.own.name)
            .map(|s| (&s.name, (**s).clone()))
            .collect();
        for (name, pending) in &self.pending {
            // The user's addresses come first: they may be newer than the cluster's.
            let mut spec = pending.spec.clone();
            for addr in wanted.get(name).into_iter().flat_map(|s| &s.listen_addrs) {
                if !spec.listen_addrs.contains(addr) {
                    spec.listen_addrs.push(*addr);
                }
            }
            wanted.insert(name, spec);
        }
        if !wanted.values().eq(&self.wanted) {
            self.wanted = wanted.into_values().collect();
            effects.push(Effect::Wanted(self.wanted.clone()));
        }
    }
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

fn check(spec: &NodeSpec) -> Result<(), Error> {
    let name = spec.name.clone();
    check_spec(spec).map_err(|what| Error::Spec { name, what })
}

fn checked(spec: NodeSpec) -> Result<NodeSpec, Error> {
    check(&spec)?;
    Ok(as_seen_by_others(spec))
}
