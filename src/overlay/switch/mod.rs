//! Changes the overlay of a running cluster.
//!
//! [`Switch`] is an overlay of overlays: the host sees one, whichever runs in it. A cluster's overlays are
//! numbered by [`Epoch`]s. To switch, one node begins the next epoch and tells all nodes with which it has a
//! link; whoever hears of a later epoch than its own begins it too, joins the node that it heard of it from, and
//! passes it on. So the new overlay grows along the links of the old one, from one node, and is in one piece.
//!
//! For a while, [`Config::overlap`], both overlays run: nodes that have switched serve those that haven't, and
//! neighbours and members are those of either. Then the old one ends: links that only it wanted are released.
//! A node that was away for the whole time learns of the epoch from the first node that it is linked with again.
//!
//! Two overlays share the host's link with a node. Each has its own link on top of it, made when one end wants it: it
//! begins when both ends have said `hello` and ends when either says `release`. Both carry the link's number. The end that
//! opens a link takes the next number, the other one answers with the same; hellos that cross have the same number
//! and answer each other. Whatever has a lesser number is of the past. When one overlay runs alone, to release its link is
//! to release the host's. Links of the host's that no overlay wants, for the user's sake, are nothing to the overlays.
//!
//! Live change of overlay is in Partisan's paper only as a goal ("at run time, without changing the application"); this
//! protocol is of our own making.

use std::cmp::Ordering;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use rand::{Rng, RngExt};

use super::codec::{DecodeError, put_text, seal, unseal};
use super::contract::{Down, Effect, Effects, Error, Event, Overlay, Peer};

use live::{Link, Live, Phase};
use message::Body;

pub use live::Opaque;
pub use message::{Epoch, Message};

mod live;
mod message;
mod outcome;

#[cfg(test)]
mod tests;

/// How long a link that is wanted rests when the other end has released it.
const REOPEN: Duration = Duration::from_secs(1);

const MAGIC: [u8; 4] = *b"PSNo";
const VERSION: u8 = 1;

/// An overlay that a node can run.
pub struct Choice<P> {
    /// By which nodes know it.
    pub name: &'static str,
    /// Whether it links all nodes with each other.
    pub is_whole: bool,
    /// Whether others can join by this node: false for a client, which is of no help to another.
    pub is_entry: bool,
    /// Makes one.
    pub make: Box<dyn Fn(P) -> Box<dyn Opaque<P>> + Send + Sync>,
}

/// How a node switches.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long the old overlay runs beside the new one.
    pub overlap: Duration,
}

impl Default for Config {
    /// 20 s: twice the longest period of the protocols here.
    fn default() -> Self {
        Self {
            overlap: Duration::from_secs(20),
        }
    }
}

/// What a node runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Name of the overlay.
    pub overlay: &'static str,
    /// How often the cluster has switched.
    pub epoch: u64,
    /// Name of the overlay that runs beside it, and is about to end.
    pub until_switched: Option<&'static str>,
}

/// One of the overlays that run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Old,
    Current,
}

const SIDES: [Side; 2] = [Side::Old, Side::Current];

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Old => Self::Current,
            Self::Current => Self::Old,
        }
    }
}

/// The overlays of one node.
pub struct Switch<P: Peer> {
    config: Config,
    own: P,
    choices: Vec<Choice<P>>,
    current: Live<P>,
    /// The overlay before, and when it ends.
    old: Option<(Live<P>, Duration)>,
    /// Nodes to which the host keeps a link.
    asked: BTreeSet<P>,
    /// Whom those are to join who follow this node, if not this node.
    follow: Option<P>,
    /// Whether the current overlay has linked all its members since it began.
    complete: bool,
    /// What is yet to be told to an overlay.
    events: VecDeque<(Side, Event<P, Vec<u8>>)>,
    /// An overlay has left the cluster.
    left: bool,
}

impl<P: Peer> Switch<P> {
    /// A node that runs `first`, alone, and can switch to the others.
    pub fn new(config: Config, own: P, first: Choice<P>, others: Vec<Choice<P>>) -> Self {
        let current = Live::new(Epoch::default(), 0, (first.make)(own.clone()));
        Self {
            config,
            own,
            choices: std::iter::once(first).chain(others).collect(),
            current,
            old: None,
            asked: BTreeSet::new(),
            follow: None,
            complete: true,
            events: VecDeque::new(),
            left: false,
        }
    }

    /// What runs.
    pub fn status(&self) -> Status {
        Status {
            overlay: self.name_of(&self.current),
            epoch: self.current.epoch.number,
            until_switched: self.old.as_ref().map(|(old, _)| self.name_of(old)),
        }
    }

    /// Whether a node without a link is none that could be reached: all nodes are linked with each other, and no
    /// change is under way.
    pub fn is_whole(&self) -> bool {
        let choice = self.choices.get(self.current.choice);
        self.old.is_none() && self.complete && choice.is_some_and(|c| c.is_whole)
    }

    /// Has the cluster change to another overlay. Nothing happens if it runs already.
    ///
    /// # Errors
    /// [`Error::UnknownOverlay`]; [`Error::Unsupported`] if nobody could join by this node.
    pub fn switch(
        &mut self,
        now: Duration,
        name: &str,
        rng: &mut dyn Rng,
        effects: &mut Effects<Self>,
    ) -> Result<(), Error> {
        let choice = self.choice(name)?;
        if choice == self.current.choice {
            return Ok(());
        }
        if !self.is_entry(choice) {
            return Err(Error::Unsupported {
                overlay: self.choices[choice].name,
                operation: "begin at this node",
                advice: "switch at a server: others join by the node at which it begins",
            });
        }
        let number = self.current.epoch.number.saturating_add(1);
        let tie = rng.random();
        let epoch = Epoch { number, tie };
        self.begin(now, epoch, choice, None, effects);
        self.settle(now, rng, effects)
    }

    /// Tells one overlay whose members a policy decides ([`steered`](crate::overlay::steered)) whom that wants. Nothing
    /// happens unless it runs: the others know their members themselves.
    ///
    /// # Errors
    /// Those of [`Event::UpdateMembers`].
    pub fn steer(
        &mut self,
        now: Duration,
        name: &str,
        peers: Vec<P>,
        rng: &mut dyn Rng,
        effects: &mut Effects<Self>,
    ) -> Result<(), Error> {
        let status = self.status();
        if status.until_switched == Some(name) {
            let update = Event::UpdateMembers(peers.clone());
            self.events.push_back((Side::Old, update));
        }
        match status.overlay == name {
            true => self.ask(now, Event::UpdateMembers(peers), rng, effects),
            false => self.settle(now, rng, effects),
        }
    }

    fn choice(&self, name: &str) -> Result<usize, Error> {
        let found = self.choices.iter().position(|c| c.name == name);
        found.ok_or_else(|| Error::UnknownOverlay {
            name: name.to_owned(),
            known: self.choices.iter().map(|c| c.name).collect(),
        })
    }

    fn is_entry(&self, choice: usize) -> bool {
        self.choices.get(choice).is_some_and(|c| c.is_entry)
    }

    fn name_of(&self, live: &Live<P>) -> &'static str {
        self.choices.get(live.choice).map_or("", |c| c.name)
    }

    fn make(&self, epoch: Epoch, choice: usize) -> Option<Live<P>> {
        let make = &self.choices.get(choice)?.make;
        Some(Live::new(epoch, choice, make(self.own.clone())))
    }

    fn live(&mut self, side: Side) -> Option<&mut Live<P>> {
        match side {
            Side::Old => self.old.as_mut().map(|(old, _)| old),
            Side::Current => Some(&mut self.current),
        }
    }

    fn side_of(&self, epoch: Epoch) -> Option<Side> {
        match &self.old {
            _ if epoch == self.current.epoch => Some(Side::Current),
            Some((old, _)) if epoch == old.epoch => Some(Side::Old),
            _ => None,
        }
    }

    // Begins an epoch: as the first, or as one who follows the node `join`.
    fn begin(
        &mut self,
        now: Duration,
        epoch: Epoch,
        choice: usize,
        join: Option<P>,
        effects: &mut Effects<Self>,
    ) {
        let Some(mut live) = self.make(epoch, choice) else {
            return;
        };
        let linked: Vec<P> = self.current.links.keys().cloned().collect();
        live.links = linked.iter().map(|p| (p.clone(), Link::NONE)).collect();
        let before = std::mem::replace(&mut self.current, live);
        let until = now + self.config.overlap;
        // Of three, the one in the middle ends: it is hardly there yet.
        match &mut self.old {
            Some((_, end)) => {
                *end = until;
                self.events.retain(|(side, _)| *side == Side::Old);
                self.end(before, Side::Old, effects);
            }
            none => {
                for (side, _) in &mut self.events {
                    *side = Side::Old;
                }
                *none = Some((before, until));
            }
        }
        self.complete = false;
        self.follow = match self.is_entry(choice) {
            true => None,
            false => join.clone(),
        };
        for peer in linked {
            self.greet(&peer, effects);
        }
        effects.push(Effect::MembersChanged);
        if let Some(peer) = join {
            self.events.push_back((Side::Current, Event::Join(peer)));
        }
    }

    // Tells a node what runs here.
    fn greet(&self, peer: &P, effects: &mut Effects<Self>) {
        let runs = Body::Runs {
            overlay: self.name_of(&self.current).to_owned(),
            follow: self.follow.clone(),
        };
        effects.push(to(peer, self.current.epoch, runs));
    }

    // An overlay stops; one other stays, and is `left`.
    fn end(&mut self, ended: Live<P>, left: Side, effects: &mut Effects<Self>) {
        for (peer, link) in &ended.links {
            if link.phase != Phase::Released {
                let link = link.number;
                effects.push(to(peer, ended.epoch, Body::Release { link }));
            }
        }
        if let Some(left) = self.live(left) {
            let gone = ended.neighbors.difference(&left.neighbors);
            effects.extend(gone.map(|p| Effect::NeighborDown(p.clone())));
        }
        effects.push(Effect::MembersChanged);
    }

    // The old overlay has run for long enough.
    fn end_old(&mut self, effects: &mut Effects<Self>) {
        let Some((old, _)) = self.old.take() else {
            return;
        };
        self.events.retain(|(side, _)| *side == Side::Current);
        self.end(old, Side::Current, effects);
        let unwanted: Vec<P> = self
            .asked
            .difference(&self.current.wanted)
            .cloned()
            .collect();
        for peer in unwanted {
            self.asked.remove(&peer);
            let link = self.current.links.remove(&peer);
            effects.push(Effect::Release(peer.clone()));
            if link.is_some_and(|link| link.phase == Phase::Up) {
                let down = Event::LinkDown(peer, Down::Planned);
                self.events.push_back((Side::Current, down));
            }
        }
    }

    // A node that has left is as one that has just started.
    fn reset(&mut self, effects: &mut Effects<Self>) {
        if self.current.epoch == Epoch::default() {
            return;
        }
        let Some(fresh) = self.make(Epoch::default(), 0) else {
            return;
        };
        self.events.clear();
        let mut neighbors = std::mem::replace(&mut self.current, fresh).neighbors;
        if let Some((old, _)) = self.old.take() {
            neighbors.extend(old.neighbors);
        }
        effects.extend(neighbors.into_iter().map(Effect::NeighborDown));
        let asked = std::mem::take(&mut self.asked);
        effects.extend(asked.into_iter().map(Effect::Release));
        self.follow = None;
        self.complete = true;
        effects.push(Effect::Persist(self.sealed(&[])));
        effects.push(Effect::MembersChanged);
    }

    fn sealed(&self, state: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        let Epoch { number, tie } = self.current.epoch;
        body.extend_from_slice(&number.to_be_bytes());
        body.extend_from_slice(&tie.to_be_bytes());
        put_text(&mut body, self.name_of(&self.current));
        body.extend_from_slice(state);
        seal(MAGIC, VERSION, &body)
    }

    // Goes on with the epoch of an earlier life. The overlay's own state, if there is any.
    fn load(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let read = || {
            let mut reader = unseal(MAGIC, VERSION, bytes)?;
            let (number, tie) = (reader.u64()?, reader.u64()?);
            let name = reader.text()?.to_owned();
            Ok::<_, DecodeError>((Epoch { number, tie }, name, reader.rest().to_vec()))
        };
        let (epoch, name, state) = read().map_err(Error::Load)?;
        let choice = self.choice(&name)?;
        if let Some(live) = self.make(epoch, choice) {
            self.current = live;
        }
        Ok((!state.is_empty()).then_some(state))
    }
}

fn to<P>(peer: &P, epoch: Epoch, body: Body<P>) -> Effect<P, Message<P>>
where
    P: Peer,
{
    Effect::Send {
        to: peer.clone(),
        message: Message { epoch, body },
    }
}

impl<P: Peer> Overlay for Switch<P> {
    type Peer = P;
    type Message = Message<P>;

    fn handle(
        &mut self,
        now: Duration,
        event: Event<P, Message<P>>,
        rng: &mut dyn Rng,
        effects: &mut Effects<Self>,
    ) -> Result<(), Error> {
        let both = |this: &mut Self, event: Event<P, Vec<u8>>| {
            this.events.push_back((Side::Old, event.clone()));
            this.events.push_back((Side::Current, event));
        };
        match event {
            // What the user asks is answered by the current overlay.
            Event::Join(peer) => {
                return self.ask(now, Event::Join(peer), rng, effects);
            }
            Event::Leave => {
                self.end_old(effects);
                self.settle(now, rng, effects)?;
                return self.ask(now, Event::Leave, rng, effects);
            }
            Event::Remove(peer) => {
                self.events
                    .push_back((Side::Old, Event::Remove(peer.clone())));
                return self.ask(now, Event::Remove(peer), rng, effects);
            }
            Event::UpdateMembers(peers) => {
                self.events
                    .push_back((Side::Old, Event::UpdateMembers(peers.clone())));
                return self.ask(now, Event::UpdateMembers(peers), rng, effects);
            }
            Event::Loaded(bytes) => {
                if let Some(state) = self.load(&bytes)? {
                    return self.ask(now, Event::Loaded(state), rng, effects);
                }
            }
            Event::LinkUp(peer) => {
                self.greet(&peer, effects);
                for side in SIDES {
                    if let Some(live) = self.live(side) {
                        live.links.insert(peer.clone(), Link::NONE);
                        self.open(side, &peer, effects);
                    }
                }
            }
            Event::LinkDown(peer, how) => {
                for side in SIDES {
                    self.unlinked(side, &peer, how);
                }
            }
            Event::LinkFailed(peer) => {
                for side in SIDES {
                    let live = self.live(side);
                    if live.is_some_and(|live| live.wanted.contains(&peer)) {
                        self.events
                            .push_back((side, Event::LinkFailed(peer.clone())));
                    }
                }
            }
            Event::Message { from, message } => self.heard(now, from, message, effects)?,
            Event::Tick => {
                if self.old.as_ref().is_some_and(|(_, end)| *end <= now) {
                    self.end_old(effects);
                }
                for side in SIDES {
                    self.reopen(now, side, effects);
                }
                both(self, Event::Tick);
            }
            Event::SelfChanged(own) => {
                self.own = own.clone();
                both(self, Event::SelfChanged(own));
            }
        }
        self.settle(now, rng, effects)
    }

    fn deadline(&self) -> Option<Duration> {
        let old = self.old.as_ref();
        let deadlines = [
            self.current.overlay.deadline(),
            old.and_then(|(old, _)| old.overlay.deadline()),
            old.map(|(_, end)| *end),
            self.current.reopen.values().min().copied(),
            old.and_then(|(old, _)| old.reopen.values().min().copied()),
        ];
        deadlines.into_iter().flatten().min()
    }

    fn members(&self) -> Vec<P> {
        let old = self.old.iter().map(|(old, _)| old);
        let live = old.chain([&self.current]);
        let mut members = BTreeSet::new();
        live.for_each(|live| members.extend(live.overlay.members()));
        members.into_iter().collect()
    }
}
