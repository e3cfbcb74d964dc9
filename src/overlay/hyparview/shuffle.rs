//! Shuffles, which keep the passive view fresh and mixed, and the passive view itself.

use std::time::Duration;

use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};

use super::links::Goal;
use super::message::Message;
use super::state::HyParView;
use crate::overlay::contract::{Effect, Peer};

/// Ends of walks that a node remembers.
const SAMPLES: usize = 16;

/// Names are saved after so many shuffles even if the neighbours remain the same.
const SAVE_CYCLES: u8 = 100;

/// Where the last walks have ended: a random sample of the own component, of which the same come
/// again the more often the smaller it is.
pub(super) struct Samples<P> {
    peers: Vec<P>,
    next: usize,
}

impl<P> Default for Samples<P> {
    fn default() -> Self {
        Self {
            peers: Vec::new(),
            next: 0,
        }
    }
}

impl<P: Peer> Samples<P> {
    pub(super) fn push(&mut self, peer: P) {
        match self.peers.get_mut(self.next) {
            Some(place) => *place = peer,
            None => self.peers.push(peer),
        }
        self.next = (self.next + 1) % SAMPLES;
    }

    pub(super) fn clear(&mut self) {
        self.peers.clear();
        self.next = 0;
    }

    pub(super) fn contains(&self, peer: &P) -> bool {
        self.peers.contains(peer)
    }

    pub(super) fn distinct(&self) -> Vec<P> {
        let mut peers = self.peers.clone();
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    /// How many are there more than once.
    pub(super) fn repeated(&self) -> usize {
        let peers = self.peers.iter().enumerate();
        peers
            .filter(|(at, peer)| self.peers[..*at].contains(peer))
            .count()
    }
}

type Fx<'a, P> = &'a mut Vec<Effect<P, Message<P>>>;

impl<P: Peer> HyParView<P> {
    /// One cycle: sends a shuffle on its way.
    pub(super) fn shuffle(&mut self, now: Duration, rng: &mut dyn Rng, fx: Fx<'_, P>) {
        let pause = self.config.shuffle_interval;
        self.next_shuffle = Some(now + pause.mul_f64(rng.random_range(0.9..1.1)));
        self.unsaved = self.unsaved.saturating_add(1);
        self.changed |= self.unsaved >= SAVE_CYCLES;
        let Some(to) = self.next_step(&self.own, None, rng) else {
            self.refill.wake(now);
            return;
        };
        let active: Vec<P> = self.active().filter(|peer| **peer != to).cloned().collect();
        let mut known: Vec<P> = active
            .sample(rng, self.config.active_shuffled)
            .cloned()
            .collect();
        known.extend(self.some_passive(self.config.passive_shuffled, rng));
        self.offered.clone_from(&known);
        self.awaited = true;
        let message = Message::Shuffle {
            origin: self.own.clone(),
            ttl: self.config.active_walk,
            known,
        };
        fx.push(Effect::Send { to, message });
        self.perhaps_probe(now, rng, fx);
        self.perhaps_mix(now, rng, fx);
        if !self.is_full() {
            self.refill.wake(now + pause * 4);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of the message")]
    pub(super) fn on_shuffle(
        &mut self,
        now: Duration,
        from: P,
        origin: P,
        ttl: u8,
        mut known: Vec<P>,
        rng: &mut dyn Rng,
        fx: Fx<'_, P>,
    ) {
        if !self.walks_from(&from, fx) {
            return;
        }
        if origin == self.own {
            // The walk has come back, as it does in a small component only.
            self.samples.push(origin);
            return;
        }
        let ttl = ttl.min(self.config.active_walk);
        if ttl > 0
            && let Some(to) = self.next_step(&from, Some(&origin), rng)
        {
            let ttl = ttl - 1;
            let message = Message::Shuffle { origin, ttl, known };
            fx.push(Effect::Send { to, message });
            return;
        }
        self.samples.push(origin.clone());
        let mut answer = self.some_passive(known.len() + 1, rng);
        answer.retain(|peer| *peer != origin);
        known.push(origin.clone());
        self.integrate(known, &mut answer.clone(), rng);
        self.reach(now, origin, Goal::Reply(answer), fx);
    }

    pub(super) fn on_shuffle_reply(&mut self, from: P, known: Vec<P>, rng: &mut dyn Rng) {
        // Names that nobody has asked for would crowd out others.
        if !std::mem::take(&mut self.awaited) && !self.is_active(&from) {
            return;
        }
        let mut offered = std::mem::take(&mut self.offered);
        self.integrate(known, &mut offered, rng);
        self.offered = offered;
        self.history.linked(&from);
        self.samples.push(from);
    }

    /// Random members of the passive view.
    pub(super) fn some_passive(&self, n: usize, rng: &mut dyn Rng) -> Vec<P> {
        self.passive.sample(rng, n).cloned().collect()
    }

    /// Takes in what a peer has told of. `given` are those that it was told of in turn.
    pub(super) fn integrate(&mut self, known: Vec<P>, given: &mut Vec<P>, rng: &mut dyn Rng) {
        for peer in known {
            if peer != self.own && !self.departed.iter().any(|(other, _)| *other == peer) {
                self.history.heard(&peer);
                self.add_passive(peer, given, rng);
            }
        }
    }

    /// Adds to the passive view; in a full one first those in `given` make room, then a random one.
    pub(super) fn add_passive(&mut self, peer: P, given: &mut Vec<P>, rng: &mut dyn Rng) {
        if peer == self.own
            || self.is_active(&peer)
            || self.departed.iter().any(|(other, _)| *other == peer)
            || self.config.passive == 0
        {
            return;
        }
        if let Some(known) = self.passive.iter_mut().find(|known| **known == peer) {
            *known = peer;
            return;
        }
        if self.passive.len() >= self.config.passive {
            let given = std::iter::from_fn(|| given.pop());
            let mut given = given.filter_map(|p| self.passive.iter().position(|known| *known == p));
            let at = given
                .next()
                .unwrap_or_else(|| rng.random_range(0..self.passive.len()));
            self.passive.swap_remove(at);
        }
        self.passive.push(peer);
    }

    pub(super) fn forget_passive(&mut self, peer: &P) {
        if let Some(at) = self.passive.iter().position(|known| known == peer) {
            self.passive.swap_remove(at);
        }
    }
}
