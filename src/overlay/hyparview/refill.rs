//! Promotion: a free place in the active view is filled at once from the passive view.
//!
//! Candidates are asked in turn, as many at a time as there are free places. Who can't be reached is taken off the
//! passive view and the next one asked without pause, so a crash of most nodes is
//! mended in seconds. Who refuses stays; after a few refusals the round pauses, since where all are full
//! haste only makes traffic. A node without any neighbour is refused by nobody (`High`).
//!
//! Two neighbours that fail together are the sign of a crash of many. Then a node says hello to all in its
//! passive view, be its active view full or not: the dead leave it, and whoever has lost all that it knew
//! of hears of somebody.

use std::time::Duration;

use rand::{Rng, RngExt};

use super::links::{Attempt, Goal, Stage};
use super::message::{Message, Priority, Reason};
use super::state::HyParView;
use crate::limits::HISTORY_DIALS;
use crate::overlay::contract::{Effect, Peer};

/// Refusals after which a round pauses, and how many more are allowed after the pause.
const REFUSALS: u8 = 6;
const MORE_REFUSALS: u8 = 2;

/// Candidates asked at once.
const AT_ONCE: usize = 8;

/// Neighbours that fail within this time are taken to have failed together.
const TOGETHER: Duration = Duration::from_secs(5);

/// Names of the passive view checked at once.
const CHECKS_AT_ONCE: usize = 4;

/// Random looks for a candidate before all are gone through.
const LOOKS: usize = 8;

/// First pause of a node that has no neighbour and has asked all it knows.
const ALONE_PAUSE: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub(super) struct Refill<P> {
    /// Those asked since all were.
    tried: Vec<P>,
    refusals: u8,
    /// Some refused because of a common neighbour.
    near: bool,
    lenient: bool,
    rounds: u8,
    next: Option<Duration>,
    /// A node that has just joined waits for those whom its joining brings.
    settle: Duration,
    /// Who is likely to have a free place.
    hint: Option<P>,
}

impl<P> Default for Refill<P> {
    fn default() -> Self {
        Self {
            tried: Vec::new(),
            refusals: 0,
            near: false,
            lenient: false,
            rounds: 0,
            next: None,
            settle: Duration::ZERO,
            hint: None,
        }
    }
}

impl<P> Refill<P> {
    pub(super) fn next(&self) -> Option<Duration> {
        self.next
    }

    pub(super) fn lenient(&self) -> bool {
        self.lenient
    }

    /// A neighbour was lost.
    pub(super) fn lost(&mut self, now: Duration) {
        self.refusals = 0;
        self.rounds = 0;
        self.next = Some(now);
    }

    pub(super) fn hint(&mut self, peer: Option<P>) {
        self.hint = peer;
    }

    /// Several have refused.
    pub(super) fn is_hard(&self) -> bool {
        self.refusals >= MORE_REFUSALS
    }

    pub(super) fn refused(&mut self) {
        self.refusals = self.refusals.saturating_add(1);
    }

    pub(super) fn settle(&mut self, until: Duration) {
        self.settle = until;
        self.next = Some(until);
    }

    /// Looks for candidates no later than then.
    pub(super) fn wake(&mut self, at: Duration) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// The view is full.
    pub(super) fn done(&mut self) {
        *self = Self {
            settle: self.settle,
            hint: self.hint.take(),
            ..Self::default()
        };
    }
}

type Fx<'a, P> = &'a mut Vec<Effect<P, Message<P>>>;

impl<P: Peer> HyParView<P> {
    /// Goes on with what waits for links to be made, for an answer or for time to pass.
    pub(super) fn pursue(&mut self, now: Duration, rng: &mut dyn Rng, fx: Fx<'_, P>) {
        self.run_refill(now, rng, fx);
        self.run_checks(now, fx);
    }

    /// A neighbour has failed. If another has just done so, many may have: those of the passive view that
    /// live should hear of each other, since some of them may have nobody else.
    pub(super) fn suspect(&mut self, now: Duration) {
        let last = self.last_failure.replace(now);
        if last.is_some_and(|last| now - last < TOGETHER) && self.unchecked.is_empty() {
            self.unchecked.clone_from(&self.passive);
        }
    }

    fn run_checks(&mut self, now: Duration, fx: Fx<'_, P>) {
        if self.unchecked.is_empty() {
            return;
        }
        let check = |attempt: &&Attempt<P>| matches!(attempt.goal, Goal::Check);
        let mut running = self.attempts.iter().filter(check).count();
        while running < CHECKS_AT_ONCE
            && let Some(peer) = self.unchecked.pop()
        {
            if self.passive.contains(&peer) && !self.has_attempt(&peer) {
                self.reach(now, peer, Goal::Check, fx);
                running += 1;
            }
        }
    }

    pub(super) fn on_hello(&mut self, now: Duration, from: P, rng: &mut dyn Rng, fx: Fx<'_, P>) {
        if self.has_left(&from, fx) {
            return;
        }
        self.history.heard(&from);
        self.add_passive(from, &mut Vec::new(), rng);
        if self.active.is_empty() {
            self.refill.wake(now);
        }
        self.pursue(now, rng, fx);
    }

    /// Asks candidates while places are free.
    fn run_refill(&mut self, now: Duration, rng: &mut dyn Rng, fx: Fx<'_, P>) {
        if self.refill.next.is_some_and(|at| at > now) {
            return;
        }
        if self.is_full() || self.gone {
            self.refill.done();
            return;
        }
        self.refill.next = None;
        if now < self.refill.settle && !self.active.is_empty() {
            self.refill.next = Some(self.refill.settle);
            return;
        }
        let mut asking = 0;
        let mut slow = 0;
        for attempt in &self.attempts {
            match (&attempt.goal, attempt.stage) {
                (Goal::Ask, Stage::Slow) => slow += 1,
                (Goal::Ask, _) => asking += 1,
                _ => {}
            }
        }
        let taken = self.active.len() + self.reserved();
        let free = self.config.active.saturating_sub(taken);
        while asking < free && asking + slow < AT_ONCE {
            if self.refill.refusals >= REFUSALS && !self.active.is_empty() {
                if asking == 0 {
                    self.refill.refusals = REFUSALS - MORE_REFUSALS;
                    self.pause(now, self.config.shuffle_interval / 2, rng);
                }
                return;
            }
            let Some(peer) = self.candidate(now, rng) else {
                if asking + slow == 0 && self.refill.next.is_none() {
                    self.all_tried(now, rng);
                }
                return;
            };
            self.refill.tried.push(peer.clone());
            if !self.reach(now, peer, Goal::Ask, fx) {
                self.pause(now, self.config.request_timeout, rng);
                return;
            }
            asking += 1;
        }
    }

    fn pause(&mut self, now: Duration, pause: Duration, rng: &mut dyn Rng) {
        self.refill.next = Some(now + pause.mul_f64(rng.random_range(0.75..1.25)));
    }

    fn all_tried(&mut self, now: Duration, rng: &mut dyn Rng) {
        if self.refill.tried.is_empty() {
            return;
        }
        let first = match self.active.is_empty() {
            true => ALONE_PAUSE,
            false => self.config.shuffle_interval,
        };
        let longest = 4 * self.config.shuffle_interval;
        let pause = (first * (1 << self.refill.rounds.min(6))).min(longest);
        self.pause(now, pause, rng);
        let refill = &mut self.refill;
        refill.tried.clear();
        refill.rounds = refill.rounds.saturating_add(1);
        refill.lenient = std::mem::take(&mut refill.near);
    }

    /// Somebody to ask: who is hinted at, then from the passive view, then from the history.
    fn candidate(&mut self, now: Duration, rng: &mut dyn Rng) -> Option<P> {
        if let Some(peer) = self.refill.hint.take().filter(|peer| self.may_ask(peer)) {
            return Some(peer);
        }
        let n = self.passive.len();
        if n > 0 {
            let start = rng.random_range(0..n);
            let mut from = (0..n).filter_map(|i| self.passive.get((start + i) % n));
            if let Some(peer) = from.find(|peer| self.may_ask(peer)) {
                return Some(peer.clone());
            }
        }
        let n = self.history.len();
        if n == 0 {
            return None;
        }
        let start = rng.random_range(0..n);
        let looks = (0..LOOKS).map(|_| rng.random_range(0..n));
        let all = (0..n).map(|i| (start + i) % n);
        let found = looks
            .chain(all)
            .filter_map(|i| self.history.get(i))
            .find(|peer| self.may_ask(peer))
            .cloned()?;
        let micros = now.as_micros() as u64;
        if !self.history_dials.spend(HISTORY_DIALS, 1, micros) {
            self.refill.next = Some(now + Duration::from_secs(1) / HISTORY_DIALS.1 as u32);
            return None;
        }
        Some(found)
    }

    fn may_ask(&self, peer: &P) -> bool {
        !self.refill.tried.contains(peer)
            && *peer != self.own
            && !self.is_active(peer)
            && !self.has_attempt(peer)
            && !self.departed.iter().any(|(other, _)| other == peer)
    }

    /// Somebody wants to be a neighbour.
    pub(super) fn on_neighbor(
        &mut self,
        now: Duration,
        from: P,
        priority: Priority,
        near: &[P],
        rng: &mut dyn Rng,
        fx: Fx<'_, P>,
    ) {
        if self.has_left(&from, fx) {
            return;
        }
        if self.is_active(&from) {
            self.accept(from, None, rng, fx);
            return;
        }
        // Both have asked: no more need be said about whether there is room.
        let mutual = self
            .attempts
            .iter()
            .any(|a| a.peer == from && a.stage == Stage::Asked && a.goal.asks());
        let refusal = if mutual {
            None
        } else if priority == Priority::High {
            (!self.may_make_room(now)).then_some(Reason::Full)
        } else if self.is_full() {
            Some(Reason::Full)
        } else if near.iter().any(|peer| self.is_active(peer)) {
            Some(Reason::Near)
        } else {
            None
        };
        if let Some(reason) = refusal {
            let known = self.some_passive(self.config.passive_shuffled, rng);
            let message = Message::Refuse { reason, known };
            fx.push(Effect::Send { to: from, message });
            return;
        }
        let evicted = self.make_room(now, &from, rng, fx);
        self.settle_attempts(&from, fx);
        self.add_active(now, from.clone(), rng, fx);
        self.accept(from, evicted, rng, fx);
    }

    pub(super) fn accept(&mut self, to: P, evicted: Option<P>, rng: &mut dyn Rng, fx: Fx<'_, P>) {
        let mut known = Vec::from_iter(evicted);
        known.extend(self.some_passive(self.config.passive_shuffled, rng));
        let message = Message::Accept { known };
        fx.push(Effect::Send { to, message });
    }

    /// The peer becomes a neighbour: what was asked of it is granted.
    pub(super) fn settle_attempts(&mut self, peer: &P, fx: Fx<'_, P>) {
        self.attempts.retain(|attempt| {
            if attempt.peer != *peer || !attempt.goal.asks() {
                return true;
            }
            if let Goal::Join { .. } = attempt.goal {
                fx.push(Effect::Joined(peer.clone()));
            }
            false
        });
    }

    pub(super) fn on_accept(
        &mut self,
        now: Duration,
        from: P,
        known: Vec<P>,
        rng: &mut dyn Rng,
        fx: Fx<'_, P>,
    ) {
        let asked = self
            .attempts
            .iter()
            .position(|a| a.peer == from && a.stage == Stage::Asked && a.goal.asks());
        match asked {
            // The second half of two requests that have crossed.
            _ if self.is_active(&from) => {}
            Some(at) if self.is_full() && matches!(self.attempts[at].goal, Goal::Ask) => {
                self.finish(at, None, fx);
                self.add_passive(from, &mut Vec::new(), rng);
            }
            Some(at) => {
                // Two nodes that both give up a neighbour for each other leave these two to each other.
                let hint = match (&self.attempts[at].goal, known.first()) {
                    (Goal::Offer(Priority::High), Some(evicted)) => evicted.clone(),
                    _ => from.clone(),
                };
                self.make_room(now, &hint, rng, fx);
                if matches!(self.attempts[at].goal, Goal::Join { .. }) && self.active.is_empty() {
                    self.refill.settle(now + self.config.settle);
                }
                self.settle_attempts(&from, fx);
                self.add_active(now, from, rng, fx);
            }
            // It takes for granted what nobody has asked for: it hears that it is wrong.
            None => {
                self.release_unused(&from, fx);
                return;
            }
        }
        self.integrate(known, &mut Vec::new(), rng);
        self.pursue(now, rng, fx);
    }

    pub(super) fn on_refuse(
        &mut self,
        now: Duration,
        from: P,
        reason: Reason,
        known: Vec<P>,
        rng: &mut dyn Rng,
        fx: Fx<'_, P>,
    ) {
        let mut asked = false;
        let mut at = 0;
        while let Some(attempt) = self.attempts.get_mut(at) {
            if attempt.peer != from || attempt.stage != Stage::Asked || !attempt.goal.asks() {
                at += 1;
                continue;
            }
            asked = true;
            match &mut attempt.goal {
                Goal::Join { granted } => {
                    *granted = true;
                    attempt.stage = Stage::Waiting;
                    attempt.until = now + self.config.request_timeout;
                    at += 1;
                    continue;
                }
                Goal::Ask => {
                    self.refill.refused();
                    self.refill.near |= reason == Reason::Near;
                }
                _ => {}
            }
            self.attempts.remove(at);
        }
        if !asked {
            return;
        }
        self.integrate(known, &mut Vec::new(), rng);
        self.release_unused(&from, fx);
        self.joined_by_others(fx);
        self.pursue(now, rng, fx);
    }
}
