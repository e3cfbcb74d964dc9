//! One node: what it keeps, how events find their rules, and the active view.

use std::time::Duration;

use rand::{Rng, RngExt};

use super::Config;
use super::history::History;
use super::links::{Attempt, Goal};
use super::message::{Message, decode_file, encode_file};
use super::shuffle::Samples;
use super::xbot::{Cost, XBot};
use crate::limits::*;
use crate::overlay::contract::{Down, Effect, Effects, Error, Event, Overlay, Peer};
use crate::rates::{Budget, Window};

/// A neighbour, how far it is, and how much it has said lately.
#[derive(Clone)]
pub(super) struct Neighbour<P> {
    pub(super) peer: P,
    pub(super) cost: Cost,
    rate: Window,
}

/// One node of a HyParView overlay.
#[derive(Clone)]
pub struct HyParView<P> {
    pub(super) config: Config,
    pub(super) own: P,
    pub(super) active: Vec<Neighbour<P>>,
    pub(super) passive: Vec<P>,
    pub(super) history: History<P>,
    /// Nodes with a link, of whatever use, in order.
    pub(super) up: Vec<P>,
    pub(super) attempts: Vec<Attempt<P>>,
    pub(super) samples: Samples<P>,
    /// What the last shuffle offered: the first to make room for what it brings.
    pub(super) offered: Vec<P>,
    /// The last shuffle has not been answered.
    pub(super) awaited: bool,
    pub(super) departed: Vec<(P, Duration)>,
    /// The user has left and not joined again.
    pub(super) gone: bool,
    pub(super) refill: super::refill::Refill<P>,
    /// Shuffles since the last join, as far as they matter.
    pub(super) age: u8,
    /// Probes in turn that have reached nobody.
    pub(super) vain_probes: u8,
    /// Shuffles since the state was last worth being saved.
    pub(super) unsaved: u8,
    pub(super) next_shuffle: Option<Duration>,
    pub(super) last_failure: Option<Duration>,
    /// Members of the passive view that may have died with others.
    pub(super) unchecked: Vec<P>,
    pub(super) last_eviction: Option<Duration>,
    pub(super) history_dials: Budget,
    pub(super) xbot: XBot<P>,
    strangers: Window,
    next_save: Option<Duration>,
    /// What is worth being saved has changed.
    pub(super) changed: bool,
}

type Fx<'a, P> = &'a mut Vec<Effect<P, Message<P>>>;

impl<P: Peer> HyParView<P> {
    /// A node alone, which is `own`.
    pub fn new(config: Config, own: P) -> Self {
        let config = config.checked();
        Self {
            own,
            active: Vec::new(),
            passive: Vec::new(),
            history: History::new(config.history),
            up: Vec::new(),
            attempts: Vec::new(),
            samples: Samples::default(),
            offered: Vec::new(),
            awaited: false,
            departed: Vec::new(),
            gone: false,
            refill: Default::default(),
            age: 0,
            vain_probes: 0,
            unsaved: 0,
            next_shuffle: None,
            last_failure: None,
            unchecked: Vec::new(),
            last_eviction: None,
            history_dials: Budget::default(),
            xbot: XBot::default(),
            strangers: Window::default(),
            next_save: None,
            changed: false,
            config,
        }
    }

    /// The own node.
    pub fn own(&self) -> &P {
        &self.own
    }

    /// The neighbours.
    pub fn active(&self) -> impl ExactSizeIterator<Item = &P> {
        self.active.iter().map(|neighbour| &neighbour.peer)
    }

    /// Nodes that may become neighbours.
    pub fn passive(&self) -> &[P] {
        &self.passive
    }

    /// Addresses beyond the views, and those in them that are remembered anyway.
    pub fn history(&self) -> impl Iterator<Item = &P> {
        self.history.iter()
    }

    pub(super) fn is_active(&self, peer: &P) -> bool {
        self.active().any(|known| known == peer)
    }

    pub(super) fn is_full(&self) -> bool {
        self.active.len() >= self.config.active
    }

    fn message(
        &mut self,
        now: Duration,
        from: P,
        message: Message<P>,
        rng: &mut dyn Rng,
        fx: Fx<'_, P>,
    ) {
        // What comes over a link that this node has released is for nobody.
        if !self.is_up(&from) {
            return;
        }
        let rate = match self.active.iter_mut().find(|n| n.peer == from) {
            Some(neighbour) => &mut neighbour.rate,
            None => &mut self.strangers,
        };
        if !rate.allows(now, MAX_GOSSIP_RATE) {
            return;
        }
        match message {
            Message::Join { me } if me == from => self.on_join(now, me, rng, fx),
            Message::ForwardJoin { joiner, ttl } => {
                self.on_forward_join(now, from, joiner, ttl, rng, fx);
            }
            Message::Neighbor { me, priority, near } if me == from => {
                self.on_neighbor(now, me, priority, &near, rng, fx);
            }
            Message::Accept { known } => self.on_accept(now, from, known, rng, fx),
            Message::Refuse { reason, known } => {
                self.on_refuse(now, from, reason, known, rng, fx);
            }
            Message::Evict { known } if self.is_active(&from) => {
                self.refill.hint(known.first().cloned());
                self.integrate(known, &mut Vec::new(), rng);
            }
            Message::Left => self.on_left(now, from, rng, fx),
            Message::Shuffle { origin, ttl, known } => {
                self.on_shuffle(now, from, origin, ttl, known, rng, fx);
            }
            Message::ShuffleReply { known } => self.on_shuffle_reply(from, known, rng),
            Message::Probe { origin, ttl, seen } => {
                self.on_probe(now, from, origin, ttl, seen, rng, fx);
            }
            Message::Hello { me } if me == from => self.on_hello(now, me, rng, fx),
            Message::Ping { nonce } => {
                let message = Message::Pong { nonce };
                fx.push(Effect::Send { to: from, message });
            }
            Message::Pong { nonce } => self.on_pong(now, &from, nonce, rng, fx),
            Message::Optimise { old, saved } => self.on_optimise(now, from, old, saved, rng, fx),
            Message::Optimised { accepted } => self.on_optimised(now, from, accepted, rng, fx),
            Message::Replace {
                initiator,
                old,
                saved,
            } => self.on_replace(now, from, initiator, old, saved, rng, fx),
            Message::Replaced { accepted } => self.on_replaced(now, &from, accepted, rng, fx),
            Message::Switch { initiator, cost } => {
                self.on_switch(now, from, initiator, cost, rng, fx);
            }
            Message::Switched { accepted } => self.on_switched(now, from, accepted, rng, fx),
            // Somebody speaks for another, or gives up what it does not have.
            Message::Join { .. }
            | Message::Neighbor { .. }
            | Message::Evict { .. }
            | Message::Hello { .. } => {}
        }
    }

    /// Takes a node with a link into the active view, for which there is room.
    pub(super) fn add_active(&mut self, now: Duration, peer: P, rng: &mut dyn Rng, fx: Fx<'_, P>) {
        self.forget_passive(&peer);
        self.history.linked(&peer);
        self.departed.retain(|(other, _)| *other != peer);
        self.active.push(Neighbour {
            peer: peer.clone(),
            cost: Cost::default(),
            rate: Window::default(),
        });
        fx.push(Effect::Want(peer.clone()));
        fx.push(Effect::NeighborUp(peer.clone()));
        fx.push(Effect::MembersChanged);
        self.measure(now, &peer, rng, fx);
        self.changed = true;
        if let (Some(xbot), None) = (&self.config.xbot, self.xbot.next) {
            self.xbot.next = Some(now + xbot.interval.mul_f64(rng.random_range(0.1..1.0)));
        }
        if self.next_shuffle.is_none() {
            let within = self.config.shuffle_interval;
            self.next_shuffle = Some(now + within.mul_f64(rng.random_range(0.1..1.0)));
        }
        if self.is_full() {
            self.refill.done();
        }
        self.joined_by_others(fx);
    }

    /// Takes a neighbour out of the view. Its link is of no concern here.
    pub(super) fn drop_active(&mut self, peer: &P, fx: Fx<'_, P>) -> bool {
        let Some(at) = self.active().position(|known| known == peer) else {
            return false;
        };
        self.active.swap_remove(at);
        fx.push(Effect::NeighborDown(peer.clone()));
        fx.push(Effect::MembersChanged);
        self.changed = true;
        true
    }

    /// Makes room in a full view. Whom that costs the place hears where there may be another: `hint`.
    pub(super) fn make_room(
        &mut self,
        now: Duration,
        hint: &P,
        rng: &mut dyn Rng,
        fx: Fx<'_, P>,
    ) -> Option<P> {
        if !self.is_full() {
            return None;
        }
        self.last_eviction = Some(now);
        let at = rng.random_range(0..self.active.len());
        let peer = self.active[at].peer.clone();
        self.evict(&peer, hint, rng, fx);
        Some(peer)
    }

    /// Gives up a neighbour.
    pub(super) fn evict(&mut self, peer: &P, hint: &P, rng: &mut dyn Rng, fx: Fx<'_, P>) {
        let mut known = vec![hint.clone()];
        known.extend(self.some_passive(self.config.passive_shuffled, rng));
        let message = Message::Evict { known };
        fx.push(Effect::Send {
            to: peer.clone(),
            message,
        });
        self.drop_active(peer, fx);
        self.release_unused(peer, fx);
        self.add_passive(peer.clone(), &mut Vec::new(), rng);
    }

    /// Whether a neighbour may be given up for a newcomer so soon after the last.
    pub(super) fn may_make_room(&self, now: Duration) -> bool {
        !self.is_full()
            || self
                .last_eviction
                .is_none_or(|last| now.saturating_sub(last) >= EVICTION_PAUSE)
    }

    fn link_down(&mut self, now: Duration, peer: P, down: Down, rng: &mut dyn Rng, fx: Fx<'_, P>) {
        if !self.unlink(&peer) {
            return;
        }
        self.exchange_broken(&peer, fx);
        self.abandon(now, &peer, down == Down::Failed, rng, fx);
        if self.drop_active(&peer, fx) {
            fx.push(Effect::Release(peer.clone()));
            match down {
                Down::Planned => self.add_passive(peer, &mut Vec::new(), rng),
                Down::Failed => {
                    self.history.unreachable(&peer);
                    self.suspect(now);
                    // Those whom walks ended at may be gone too, or out of reach.
                    self.samples.clear();
                    self.vain_probes = 0;
                }
            }
            self.refill.lost(now);
        }
        self.pursue(now, rng, fx);
    }

    fn leave(&mut self, fx: Fx<'_, P>) {
        for peer in self.active().cloned().collect::<Vec<_>>() {
            let message = Message::Left;
            let to = peer.clone();
            fx.push(Effect::Send { to, message });
            self.drop_active(&peer, fx);
            self.release_unused(&peer, fx);
        }
        while !self.attempts.is_empty() {
            self.finish(0, None, fx);
        }
        self.passive.clear();
        self.history.clear();
        self.samples.clear();
        self.age = 0;
        self.offered.clear();
        self.unchecked.clear();
        self.refill = Default::default();
        self.next_shuffle = None;
        self.xbot = XBot::default();
        self.gone = true;
        self.save(fx);
        fx.push(Effect::Left);
    }

    /// A peer has left the cluster: nobody needs to tell us of it for a while.
    fn on_left(&mut self, now: Duration, from: P, rng: &mut dyn Rng, fx: Fx<'_, P>) {
        self.forget_passive(&from);
        self.history.forget(&from);
        self.departed
            .retain(|(peer, until)| *until > now && *peer != from);
        if self.departed.len() >= MAX_DEPARTED {
            self.departed.remove(0);
        }
        self.departed.push((from.clone(), now + DEPARTED_TIME));
        let lost = self.drop_active(&from, fx);
        self.attempts
            .retain(|attempt| attempt.peer != from || matches!(attempt.goal, Goal::Join { .. }));
        self.release_unused(&from, fx);
        if lost {
            self.refill.lost(now);
        }
        self.pursue(now, rng, fx);
    }

    fn update_members(&mut self, now: Duration, peers: Vec<P>, rng: &mut dyn Rng, fx: Fx<'_, P>) {
        let mut missing: Vec<P> = peers
            .into_iter()
            .filter(|peer| *peer != self.own && !self.is_active(peer))
            .collect();
        if missing.is_empty() {
            return;
        }
        if self.active.is_empty() {
            let first = missing.swap_remove(rng.random_range(0..missing.len()));
            self.join(now, first, fx);
        }
        missing.truncate(MAX_HISTORY);
        for peer in missing {
            self.history.heard(&peer);
            self.add_passive(peer, &mut Vec::new(), rng);
        }
        self.pursue(now, rng, fx);
    }

    fn load(&mut self, now: Duration, bytes: &[u8], rng: &mut dyn Rng) -> Result<(), Error> {
        let saved = decode_file(&self.own, bytes).map_err(Error::Load)?;
        for peer in saved.heard.iter().filter(|peer| **peer != self.own) {
            self.history.heard(peer);
        }
        for peer in saved.linked.iter().filter(|peer| **peer != self.own) {
            self.history.linked(peer);
        }
        for peer in saved.passive {
            self.add_passive(peer, &mut Vec::new(), rng);
        }
        self.refill.lost(now);
        Ok(())
    }

    fn save(&mut self, fx: Fx<'_, P>) {
        let (linked, heard) = self.history.lists();
        let file = encode_file(&self.own, [&self.passive, linked, heard]);
        fx.push(Effect::Persist(file));
        self.changed = false;
        self.unsaved = 0;
        self.next_save = None;
    }

    fn tick(&mut self, now: Duration, rng: &mut dyn Rng, fx: Fx<'_, P>) {
        self.expire(now, rng, fx);
        if self.next_shuffle.is_some_and(|at| at <= now) {
            self.shuffle(now, rng, fx);
        }
        self.exchange_expired(now, fx);
        if self.xbot.next.is_some_and(|at| at <= now) {
            self.optimise(now, rng, fx);
        }
        self.pursue(now, rng, fx);
        if self.next_save.is_some_and(|at| at <= now) {
            self.save(fx);
        }
    }
}

impl<P: Peer> Overlay for HyParView<P> {
    type Peer = P;
    type Message = Message<P>;

    fn handle(
        &mut self,
        now: Duration,
        event: Event<P, Message<P>>,
        rng: &mut dyn Rng,
        fx: &mut Effects<Self>,
    ) -> Result<(), Error> {
        match event {
            Event::Join(peer) if peer == self.own => return Err(Error::SelfJoin),
            Event::Join(peer) => self.join(now, peer, fx),
            Event::Remove(peer) if peer == self.own => self.leave(fx),
            Event::Leave => self.leave(fx),
            Event::Remove(_) => {
                return Err(Error::Unsupported {
                    overlay: "HyParView",
                    operation: "remove another node",
                    advice: "let that node leave, or stop it",
                });
            }
            Event::UpdateMembers(peers) => self.update_members(now, peers, rng, fx),
            Event::LinkUp(peer) => self.link_up(now, peer, rng, fx),
            Event::LinkDown(peer, down) => self.link_down(now, peer, down, rng, fx),
            Event::LinkFailed(peer) => {
                self.abandon(now, &peer, true, rng, fx);
                self.pursue(now, rng, fx);
            }
            Event::Message { from, message } => self.message(now, from, message, rng, fx),
            Event::Tick => self.tick(now, rng, fx),
            Event::SelfChanged(own) if own == self.own => self.own = own,
            Event::SelfChanged(other) => {
                return Err(Error::Renamed {
                    own: format!("{:?}", self.own).into(),
                    other: format!("{other:?}").into(),
                });
            }
            Event::Loaded(bytes) => self.load(now, &bytes, rng)?,
        }
        if self.changed && self.next_save.is_none() {
            self.next_save = self.config.persist_interval.map(|pause| now + pause);
        }
        Ok(())
    }

    fn deadline(&self) -> Option<Duration> {
        let attempts = self.attempts.iter().map(|attempt| attempt.until);
        let exchange = self.xbot.exchange.as_ref().map(|e| e.until);
        let xbot = [self.xbot.next, exchange];
        [self.next_shuffle, self.refill.next(), self.next_save]
            .into_iter()
            .chain(xbot)
            .flatten()
            .chain(attempts)
            .min()
    }

    fn members(&self) -> Vec<P> {
        std::iter::once(&self.own)
            .chain(self.active())
            .cloned()
            .collect()
    }
}
