//! The exchange of X-BOT, by which four nodes swap two links; `xbot` tells why.
//!
//! ```text
//! i          c          d          o
//! ├ optimise ►
//! │          ├ replace ──►
//! │          │          ├ ping ─────►
//! │          │          ◄ pong ─────┤
//! │          │          ├ switch ───►   drops i, takes d
//! │          │          ◄ switched ─┤
//! │          ◄ replaced ┤                 drops c, takes o
//! ◄ optimised┤                            drops d, takes i
//!   drops o, takes c
//! ```

use std::time::Duration;

use rand::Rng;

use super::links::{Attempt, Goal};
use super::message::Message;
use super::state::HyParView;
use super::xbot::{Cost, Part, Weighing, is_better};
use crate::limits::EXCHANGE_PAUSE;
use crate::overlay::contract::{Effect, Peer};

/// How long the initiator and the candidate wait, in times of the timeout for one request: the link to the old
/// neighbour may take one, its echo another and its answer a third.
const INITIATOR_WAITS: u32 = 5;
const CANDIDATE_WAITS: u32 = 4;

/// An exchange, as its candidate sees it.
#[derive(Clone, Debug)]
pub(super) struct Exchange<P> {
    initiator: P,
    disconnected: P,
    pub(super) until: Duration,
}

type Fx<'a, P> = &'a mut Vec<Effect<P, Message<P>>>;

impl<P: Peer> HyParView<P> {
    /// The cost of the other end of an attempt is known.
    pub(super) fn weighed(&mut self, now: Duration, at: usize, cost: Duration, fx: Fx<'_, P>) {
        let attempt = &self.attempts[at];
        let peer = attempt.peer.clone();
        let Goal::Weigh(weighing) = &attempt.goal else {
            return;
        };
        let request = match &weighing.part {
            Part::Initiator { .. } => self.worse(&peer, cost).map(|(old, saved)| {
                let part = Part::Initiator {
                    old: Some(old.clone()),
                };
                let waits = INITIATOR_WAITS;
                (part, waits, Message::Optimise { old, saved })
            }),
            Part::Disconnected {
                candidate,
                initiator,
                saved,
                ..
            } => {
                let fits = !self.is_active(&peer)
                    && self.cost(candidate).is_some_and(|c| cost < c + *saved)
                    && self.may_give_up(candidate, cost);
                let part = Part::Disconnected {
                    candidate: candidate.clone(),
                    initiator: initiator.clone(),
                    saved: *saved,
                    asked: true,
                };
                let initiator = initiator.clone();
                fits.then_some((part, 1, Message::Switch { initiator, cost }))
            }
        };
        match request {
            Some((part, waits, message)) => {
                let cost = Cost::known(cost);
                let attempt = &mut self.attempts[at];
                attempt.goal = Goal::Weigh(Weighing { cost, part });
                attempt.until = now + self.config.request_timeout * waits;
                fx.push(Effect::Send { to: peer, message });
            }
            None => {
                let goal = attempt.goal.clone();
                self.finish(at, None, fx);
                self.unweighed(goal, fx);
            }
        }
    }

    /// Whom this node would give up for a candidate of this cost, and what that saves. One exchange at a time.
    fn worse(&self, candidate: &P, cost: Duration) -> Option<(P, Duration)> {
        let asks = |attempt: &Attempt<P>| match &attempt.goal {
            Goal::Weigh(weighing) => matches!(weighing.part, Part::Initiator { old: Some(_) }),
            _ => false,
        };
        if !self.is_full() || self.is_active(candidate) || self.attempts.iter().any(asks) {
            return None;
        }
        let (old, worst) = self.biased().next()?;
        is_better(cost, worst).then(|| (old.clone(), worst - cost))
    }

    /// Nothing has come of an attempt; if somebody waits for it, they are told.
    pub(super) fn unweighed(&mut self, goal: Goal<P>, fx: Fx<'_, P>) {
        if let Goal::Weigh(weighing) = goal
            && let Part::Disconnected { candidate: to, .. } = weighing.part
        {
            let message = Message::Replaced { accepted: false };
            fx.push(Effect::Send { to, message });
        }
    }

    /// c: somebody wants to be a neighbour in the place of the worst.
    pub(super) fn on_optimise(
        &mut self,
        now: Duration,
        from: P,
        old: P,
        saved: Duration,
        rng: &mut dyn Rng,
        fx: Fx<'_, P>,
    ) {
        let willing = self.config.xbot.is_some()
            && !self.gone
            && !self.is_active(&from)
            && old != self.own
            && self.xbot.exchange.is_none()
            && now >= self.xbot.rests;
        if willing && !self.is_full() {
            self.exchanged(now, &from, None, rng, fx);
            self.answer(from, true, fx);
            return;
        }
        let worst = self.biased().find(|(peer, _)| willing && **peer != old);
        let Some(disconnected) = worst.map(|(peer, _)| peer.clone()) else {
            self.answer(from, false, fx);
            return;
        };
        let to = disconnected.clone();
        let message = Message::Replace {
            initiator: from.clone(),
            old,
            saved,
        };
        self.xbot.exchange = Some(Exchange {
            initiator: from,
            disconnected,
            until: now + self.config.request_timeout * CANDIDATE_WAITS,
        });
        fx.push(Effect::Send { to, message });
    }

    fn answer(&mut self, to: P, accepted: bool, fx: Fx<'_, P>) {
        let message = Message::Optimised { accepted };
        fx.push(Effect::Send { to, message });
    }

    /// d: a neighbour wants to give this node up for the initiator, and gives it the old neighbour instead.
    #[expect(clippy::too_many_arguments, reason = "the fields of the message")]
    pub(super) fn on_replace(
        &mut self,
        now: Duration,
        from: P,
        initiator: P,
        old: P,
        saved: Duration,
        rng: &mut dyn Rng,
        fx: Fx<'_, P>,
    ) {
        let taken = |attempt: &Attempt<P>| match &attempt.goal {
            Goal::Weigh(weighing) => matches!(weighing.part, Part::Disconnected { .. }),
            _ => false,
        };
        let willing = self.config.xbot.is_some()
            && self.is_active(&from)
            && ![&initiator, &old].contains(&&self.own)
            && !self.is_active(&old)
            && !self.has_attempt(&old)
            && !self.attempts.iter().any(taken);
        let part = Part::Disconnected {
            candidate: from.clone(),
            initiator,
            saved,
            asked: false,
        };
        let cost = Cost::planned(rng);
        if !willing || !self.reach(now, old, Goal::Weigh(Weighing { cost, part }), fx) {
            let message = Message::Replaced { accepted: false };
            fx.push(Effect::Send { to: from, message });
        }
    }

    /// o: somebody wants to be a neighbour in the place of the initiator, which has a nearer one.
    pub(super) fn on_switch(
        &mut self,
        now: Duration,
        from: P,
        initiator: P,
        cost: Duration,
        rng: &mut dyn Rng,
        fx: Fx<'_, P>,
    ) {
        let accepted = self.config.xbot.is_some()
            && !self.is_active(&from)
            && self.may_give_up(&initiator, cost);
        if accepted {
            self.give_up(&initiator, rng, fx);
            self.exchanged(now, &from, Some(cost), rng, fx);
        }
        let message = Message::Switched { accepted };
        fx.push(Effect::Send { to: from, message });
    }

    /// d: the old neighbour has answered.
    pub(super) fn on_switched(
        &mut self,
        now: Duration,
        from: P,
        accepted: bool,
        rng: &mut dyn Rng,
        fx: Fx<'_, P>,
    ) {
        let asked = |goal: &Goal<P>| match goal {
            Goal::Weigh(weighing) => {
                matches!(weighing.part, Part::Disconnected { asked: true, .. })
            }
            _ => false,
        };
        let goal = self.answered(&from, asked);
        if let Some(Goal::Weigh(weighing)) = &goal
            && let Part::Disconnected { candidate, .. } = &weighing.part
            && accepted
            && !self.is_active(&from)
            && (self.is_active(candidate) || !self.is_full())
        {
            let (to, message) = (candidate.clone(), Message::Replaced { accepted });
            fx.push(Effect::Send { to, message });
            self.give_up(candidate, rng, fx);
            self.exchanged(now, &from, weighing.cost.rtt(), rng, fx);
        } else {
            // If it has taken this node as a neighbour, it hears that it was in vain.
            self.release_unused(&from, fx);
            goal.into_iter().for_each(|goal| self.unweighed(goal, fx));
        }
        self.pursue(now, rng, fx);
    }

    /// c: the worst neighbour has answered.
    pub(super) fn on_replaced(
        &mut self,
        now: Duration,
        from: &P,
        accepted: bool,
        rng: &mut dyn Rng,
        fx: Fx<'_, P>,
    ) {
        let mine = |exchange: &mut Exchange<P>| exchange.disconnected == *from;
        let Some(exchange) = self.xbot.exchange.take_if(mine) else {
            return;
        };
        let initiator = exchange.initiator;
        if accepted {
            self.xbot.rests = now + EXCHANGE_PAUSE;
            self.give_up(from, rng, fx);
            self.refill.lost(now);
        }
        let taken =
            accepted && self.is_up(&initiator) && !self.is_active(&initiator) && !self.is_full();
        if taken {
            self.exchanged(now, &initiator, None, rng, fx);
        }
        self.answer(initiator, taken, fx);
        self.pursue(now, rng, fx);
    }

    /// i: the candidate has answered.
    pub(super) fn on_optimised(
        &mut self,
        now: Duration,
        from: P,
        accepted: bool,
        rng: &mut dyn Rng,
        fx: Fx<'_, P>,
    ) {
        let asked = |goal: &Goal<P>| match goal {
            Goal::Weigh(weighing) => matches!(weighing.part, Part::Initiator { old: Some(_) }),
            _ => false,
        };
        if let Some(goal) = self.answered(&from, asked)
            && let Goal::Weigh(weighing) = goal
            && let Part::Initiator { old: Some(old) } = weighing.part
            && accepted
            && (self.is_active(&old) || !self.is_full())
        {
            if self.is_active(&old) {
                self.evict(&old, &from, rng, fx);
            }
            self.exchanged(now, &from, weighing.cost.rtt(), rng, fx);
        } else {
            self.release_unused(&from, fx);
        }
        self.pursue(now, rng, fx);
    }

    /// The attempt for which this was the answer.
    fn answered(&mut self, from: &P, asked: impl Fn(&Goal<P>) -> bool) -> Option<Goal<P>> {
        let mine = |attempt: &Attempt<P>| attempt.peer == *from && asked(&attempt.goal);
        let at = self.attempts.iter().position(mine)?;
        Some(self.attempts.remove(at).goal)
    }

    /// A neighbour goes; the end of the link tells it.
    fn give_up(&mut self, peer: &P, rng: &mut dyn Rng, fx: Fx<'_, P>) {
        if self.drop_active(peer, fx) {
            self.release_unused(peer, fx);
            self.add_passive(peer.clone(), &mut Vec::new(), rng);
        }
    }

    /// Another comes in its place.
    fn exchanged(
        &mut self,
        now: Duration,
        peer: &P,
        cost: Option<Duration>,
        rng: &mut dyn Rng,
        fx: Fx<'_, P>,
    ) {
        if !self.is_active(peer) {
            self.settle_attempts(peer, fx);
            self.add_active(now, peer.clone(), rng, fx);
            self.set_cost(peer, cost);
        }
    }

    /// A link is down: an exchange that needed it is off.
    pub(super) fn exchange_broken(&mut self, peer: &P, fx: Fx<'_, P>) {
        let ends = |e: &mut Exchange<P>| e.initiator == *peer || e.disconnected == *peer;
        if let Some(exchange) = self.xbot.exchange.take_if(ends)
            && exchange.initiator != *peer
        {
            self.answer(exchange.initiator, false, fx);
        }
    }

    /// The candidate waits no longer.
    pub(super) fn exchange_expired(&mut self, now: Duration, fx: Fx<'_, P>) {
        if let Some(exchange) = self.xbot.exchange.take_if(|e| e.until <= now) {
            self.answer(exchange.initiator, false, fx);
        }
    }
}
