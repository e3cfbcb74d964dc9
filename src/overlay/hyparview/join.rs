//! Joining: the contact takes the joiner in and sends random walks out, at whose ends the joiner finds its
//! other neighbours; and how components that know nothing of each other become one.

use std::time::Duration;

use rand::{Rng, RngExt};

use super::links::{Attempt, Goal};
use super::message::{Message, Priority, Reason};
use super::state::HyParView;
use crate::overlay::contract::{Effect, Peer};

/// Nodes in vain dialled for one probe.
const PROBE_TRIES: u8 = 8;

/// Steps of a probe of a node that has little reason for it: it has heard of many others, and of its last walk ends a
/// single pair are equal, which chance makes in any large component. Over six steps three of four such probes of
/// 10,000 nodes meet nobody who knows one of the twenty names in it, and each costs two links their places; over so
/// many steps each tenth.
const PROBE_WALK: u8 = 48;
const MANY_KNOWN: usize = 200;

/// Out of so many cycles a node probes once for each pair of equal walk ends among its last.
const PROBE_CYCLES: usize = 16;

/// So many halvings of that pace at most, one for each probe that reaches nobody.
const VAIN_PROBES: u8 = 4;

/// Shuffles with full views after which a node that has joined moves a link.
const MIX_AGES: [u8; 2] = [3, 6];
const MIXED_AGE: u8 = 6;

type Fx<'a, P> = &'a mut Vec<Effect<P, Message<P>>>;

impl<P: Peer> HyParView<P> {
    /// The user wishes to join.
    pub(super) fn join(&mut self, now: Duration, peer: P, fx: Fx<'_, P>) {
        self.gone = false;
        self.departed.retain(|(other, _)| *other != peer);
        if self.is_active(&peer) {
            fx.push(Effect::Joined(peer));
            return;
        }
        let join = |attempt: &Attempt<P>| {
            attempt.peer == peer && matches!(attempt.goal, Goal::Join { .. })
        };
        if !self.attempts.iter().any(join) {
            self.reach(now, peer, Goal::Join { granted: false }, fx);
        }
    }

    /// Joins whose contact has sent for other neighbours are done when one is there.
    pub(super) fn joined_by_others(&mut self, fx: Fx<'_, P>) {
        if self.active.is_empty() {
            return;
        }
        self.attempts.retain(|attempt| match attempt.goal {
            Goal::Join { granted: true } => {
                fx.push(Effect::Joined(attempt.peer.clone()));
                false
            }
            _ => true,
        });
    }

    pub(super) fn on_join(&mut self, now: Duration, from: P, rng: &mut dyn Rng, fx: Fx<'_, P>) {
        self.gone = false;
        self.departed.retain(|(other, _)| *other != from);
        let others: Vec<P> = self.active().filter(|p| **p != from).cloned().collect();
        if self.is_active(&from) {
            self.accept(from, None, rng, fx);
            return;
        }
        for to in others {
            let message = Message::ForwardJoin {
                joiner: from.clone(),
                ttl: self.config.active_walk,
            };
            fx.push(Effect::Send { to, message });
        }
        if self.may_make_room(now) {
            let evicted = self.make_room(now, &from, rng, fx);
            self.settle_attempts(&from, fx);
            self.add_active(now, from.clone(), rng, fx);
            self.accept(from, evicted, rng, fx);
        } else {
            // Walks are under way; that must do for one who comes in a crowd.
            let known = self.some_passive(self.config.passive_shuffled, rng);
            let reason = Reason::Full;
            let message = Message::Refuse { reason, known };
            fx.push(Effect::Send { to: from, message });
        }
    }

    pub(super) fn on_forward_join(
        &mut self,
        now: Duration,
        from: P,
        joiner: P,
        ttl: u8,
        rng: &mut dyn Rng,
        fx: Fx<'_, P>,
    ) {
        if joiner == self.own || !self.walks_from(&from, fx) {
            return;
        }
        let ttl = ttl.min(self.config.active_walk);
        let known = self.is_active(&joiner);
        if ttl == self.config.passive_walk && !known {
            self.add_passive(joiner.clone(), &mut Vec::new(), rng);
        }
        if (ttl > 0 || known)
            && let Some(to) = self.next_step(&from, Some(&joiner), rng)
        {
            // A neighbour of the joiner is no end of a walk, but the walk must have one.
            if ttl > 0 {
                let ttl = ttl - 1;
                let message = Message::ForwardJoin { joiner, ttl };
                fx.push(Effect::Send { to, message });
            }
            return;
        }
        if !known && !self.has_attempt(&joiner) {
            self.reach(now, joiner, Goal::Offer(Priority::Low), fx);
        }
    }

    /// Whether this node has left its cluster; who thinks otherwise is told.
    pub(super) fn has_left(&self, from: &P, fx: Fx<'_, P>) -> bool {
        if self.gone {
            let (to, message) = (from.clone(), Message::Left);
            fx.push(Effect::Send { to, message });
        }
        self.gone
    }

    /// Whether walks may come from there: from neighbours only. Anyone else who sends one takes us for a
    /// neighbour wrongly, and is told so.
    pub(super) fn walks_from(&mut self, from: &P, fx: Fx<'_, P>) -> bool {
        let active = self.is_active(from);
        if !active {
            self.release_unused(from, fx);
        }
        active
    }

    /// Where a walk that came from `from` goes next.
    pub(super) fn next_step(&self, from: &P, not: Option<&P>, rng: &mut dyn Rng) -> Option<P> {
        let fit = |peer: &&P| *peer != from && Some(*peer) != not;
        match self.active().filter(fit).count() {
            0 => None,
            n => {
                let nth = rng.random_range(0..n);
                self.active().filter(fit).nth(nth).cloned()
            }
        }
    }

    /// Now and then looks for another component, the more often the smaller the own one seems to be.
    pub(super) fn perhaps_probe(&mut self, now: Duration, rng: &mut dyn Rng, fx: Fx<'_, P>) {
        let twice = self.samples.repeated();
        let cycles = PROBE_CYCLES << self.vain_probes;
        if twice > 0 && rng.random_range(0..cycles) < twice {
            self.probe(now, 0, rng, fx);
        }
    }

    pub(super) fn probe(&mut self, now: Duration, tries: u8, rng: &mut dyn Rng, fx: Fx<'_, P>) {
        if tries >= PROBE_TRIES {
            self.vain_probes = (self.vain_probes + 1).min(VAIN_PROBES);
            return;
        }
        for _ in 0..PROBE_TRIES {
            let Some(peer) = self.history.random(rng).cloned() else {
                return;
            };
            if peer != self.own
                && !self.is_active(&peer)
                && !self.has_attempt(&peer)
                && !self.samples.contains(&peer)
                && !self.departed.iter().any(|(other, _)| *other == peer)
            {
                self.reach(now, peer, Goal::Probe(tries), fx);
                return;
            }
        }
    }

    /// Moves one link of a node that has come in lately to a random place. Those who join at about the
    /// same time find each other, and the graph would be long and thin if that stayed so.
    pub(super) fn perhaps_mix(&mut self, now: Duration, rng: &mut dyn Rng, fx: Fx<'_, P>) {
        if self.is_full() && self.passive.len() >= self.config.passive / 2 && self.age < MIXED_AGE {
            self.age += 1;
            if MIX_AGES.contains(&self.age)
                && let Some(peer) = self.some_passive(1, rng).pop()
            {
                self.reach(now, peer, Goal::Mix, fx);
            }
        }
    }

    pub(super) fn probe_message(&self, mix: bool) -> Message<P> {
        let (mut seen, mut ttl) = (Vec::new(), self.config.active_walk);
        if !mix {
            seen = self.samples.distinct();
            seen.extend(self.active().cloned());
            if self.samples.repeated() < 2 && self.history.len() >= MANY_KNOWN {
                ttl = PROBE_WALK;
            }
        }
        let origin = self.own.clone();
        Message::Probe { origin, ttl, seen }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of the message")]
    pub(super) fn on_probe(
        &mut self,
        now: Duration,
        from: P,
        origin: P,
        ttl: u8,
        seen: Vec<P>,
        rng: &mut dyn Rng,
        fx: Fx<'_, P>,
    ) {
        if self.has_left(&from, fx) {
            return;
        }
        if from != origin && !self.walks_from(&from, fx) {
            return;
        }
        let same =
            |peer: &P| *peer == self.own || self.is_active(peer) || self.samples.contains(peer);
        if same(&origin) || seen.iter().any(same) {
            return;
        }
        let ttl = ttl.min(PROBE_WALK);
        if ttl > 0
            && let Some(to) = self.next_step(&from, None, rng)
        {
            let ttl = ttl - 1;
            let message = Message::Probe { origin, ttl, seen };
            fx.push(Effect::Send { to, message });
        } else if !self.has_attempt(&origin) {
            self.reach(now, origin, Goal::Offer(Priority::High), fx);
        }
    }
}
