//! Links for a purpose: made on demand, bounded in number and time, released when it is served.
//!
//! The host dials a wanted peer again and again. That isn't wanted here: a peer that can't be
//! reached is no candidate, and there are others. So each attempt ends with `Release`, and what
//! is to be tried again is tried at this node's own pace.

use std::time::Duration;

use rand::{Rng, RngExt};

use super::message::{Message, Priority};
use super::state::HyParView;
use super::xbot::Weighing;
use crate::limits::{MAX_ATTEMPTS, MAX_PENDING_JOINS};
use crate::overlay::contract::{Effect, Peer};

/// What a link is made for.
#[derive(Clone, Debug)]
pub(super) enum Goal<P> {
    /// To join the cluster of the other end, as the user wishes.
    Join {
        /// It has sent for other neighbours instead of becoming one.
        granted: bool,
    },
    /// To fill an own free place.
    Ask,
    /// To become the neighbour of a node that a walk has brought.
    Offer(Priority),
    /// To answer a shuffle.
    Reply(Vec<P>),
    /// To look for another component; so many others could not be reached.
    Probe(u8),
    /// To move a link to a random place.
    Mix,
    /// To see whether it lives, and say hello.
    Check,
    /// To see how far it is, for an exchange of neighbours.
    Weigh(Weighing<P>),
}

impl<P> Goal<P> {
    /// Whether the peer is asked to be a neighbour, and says yes or no.
    pub(super) fn asks(&self) -> bool {
        matches!(self, Self::Join { .. } | Self::Ask | Self::Offer(_))
    }
}

/// How far an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The host dials.
    Dialling,
    /// It takes long; something else may be tried meanwhile.
    Slow,
    /// The link is up and the request sent.
    Asked,
    /// A failed join waits for its next turn, without a link.
    Waiting,
}

#[derive(Clone, Debug)]
pub(super) struct Attempt<P> {
    pub(super) peer: P,
    pub(super) goal: Goal<P>,
    pub(super) stage: Stage,
    pub(super) until: Duration,
    tries: u8,
}

type Fx<'a, P> = &'a mut Vec<Effect<P, Message<P>>>;

impl<P: Peer> HyParView<P> {
    pub(super) fn is_up(&self, peer: &P) -> bool {
        self.up.binary_search(peer).is_ok()
    }

    pub(super) fn unlink(&mut self, peer: &P) -> bool {
        match self.up.binary_search(peer) {
            Ok(at) => {
                self.up.remove(at);
                true
            }
            Err(_) => false,
        }
    }

    pub(super) fn has_attempt(&self, peer: &P) -> bool {
        self.attempts.iter().any(|attempt| attempt.peer == *peer)
    }

    /// Makes a link for a purpose, or uses the one there is.
    pub(super) fn reach(&mut self, now: Duration, peer: P, goal: Goal<P>, fx: Fx<'_, P>) -> bool {
        if self.is_up(&peer) {
            match goal {
                Goal::Reply(known) => {
                    let message = Message::ShuffleReply { known };
                    fx.push(Effect::Send { to: peer, message });
                    return true;
                }
                Goal::Probe(_) | Goal::Mix => {
                    let message = self.probe_message(matches!(goal, Goal::Mix));
                    fx.push(Effect::Send { to: peer, message });
                    return true;
                }
                Goal::Check => {
                    let me = self.own.clone();
                    let message = Message::Hello { me };
                    fx.push(Effect::Send { to: peer, message });
                    return true;
                }
                _ => {}
            }
        }
        let join = matches!(goal, Goal::Join { .. });
        let joins = |attempt: &&Attempt<P>| matches!(attempt.goal, Goal::Join { .. });
        let joins = self.attempts.iter().filter(joins).count();
        let room = match join {
            true => joins < MAX_PENDING_JOINS,
            false => self.attempts.len() - joins < MAX_ATTEMPTS,
        };
        if !room {
            return false;
        }
        self.attempts.push(Attempt {
            peer: peer.clone(),
            goal,
            stage: Stage::Dialling,
            until: now + self.config.patience,
            tries: 0,
        });
        fx.push(Effect::Want(peer.clone()));
        if self.is_up(&peer) {
            self.arrived(now, self.attempts.len() - 1, fx);
        }
        true
    }

    pub(super) fn link_up(&mut self, now: Duration, peer: P, rng: &mut dyn Rng, fx: Fx<'_, P>) {
        match self.up.binary_search(&peer) {
            Ok(at) => self.up[at] = peer.clone(),
            Err(at) => self.up.insert(at, peer.clone()),
        }
        let mut at = 0;
        while let Some(attempt) = self.attempts.get(at) {
            let before = self.attempts.len();
            if attempt.peer == peer && !matches!(attempt.stage, Stage::Asked) {
                self.arrived(now, at, fx);
            }
            if self.attempts.len() == before {
                at += 1;
            }
        }
        self.pursue(now, rng, fx);
    }

    /// The link of this attempt is up: says what it was made for.
    fn arrived(&mut self, now: Duration, at: usize, fx: Fx<'_, P>) {
        let peer = self.attempts[at].peer.clone();
        // Not so of whoever has dialled us: it may be after something else, in another cluster.
        self.history.linked(&peer);
        let me = self.own.clone();
        let full = self.is_full();
        let message = match &mut self.attempts[at].goal {
            Goal::Reply(known) => {
                let known = std::mem::take(known);
                self.finish(at, Some(Message::ShuffleReply { known }), fx);
                return;
            }
            Goal::Probe(_) => {
                self.vain_probes = 0;
                let message = self.probe_message(false);
                self.finish(at, Some(message), fx);
                return;
            }
            Goal::Mix => {
                let message = self.probe_message(true);
                self.finish(at, Some(message), fx);
                return;
            }
            Goal::Check => {
                self.finish(at, Some(Message::Hello { me }), fx);
                return;
            }
            // Another was faster.
            Goal::Ask if full => {
                self.finish(at, None, fx);
                return;
            }
            Goal::Join { .. } => Message::Join { me },
            Goal::Ask => Message::Neighbor {
                me,
                priority: match self.active.len() {
                    0 => Priority::High,
                    // One alone is soon none, if nobody else has a free place.
                    1 if self.refill.is_hard() => Priority::High,
                    _ => Priority::Low,
                },
                near: match self.refill.lenient() {
                    true => Vec::new(),
                    false => self.active().cloned().collect(),
                },
            },
            Goal::Weigh(weighing) => Message::Ping {
                nonce: weighing.cost.ask(now),
            },
            Goal::Offer(priority) => {
                let priority = *priority;
                let near = self.active().cloned().collect();
                Message::Neighbor { me, priority, near }
            }
        };
        let attempt = &mut self.attempts[at];
        attempt.stage = Stage::Asked;
        attempt.until = now + self.config.request_timeout;
        fx.push(Effect::Send { to: peer, message });
    }

    /// Ends an attempt, with a last word or without.
    pub(super) fn finish(&mut self, at: usize, last: Option<Message<P>>, fx: Fx<'_, P>) {
        let peer = self.attempts.remove(at).peer;
        if let Some(message) = last {
            let to = peer.clone();
            fx.push(Effect::Send { to, message });
        }
        self.release_unused(&peer, fx);
    }

    /// Gives up a link that serves no purpose any longer.
    pub(super) fn release_unused(&mut self, peer: &P, fx: Fx<'_, P>) {
        let attempted = |attempt: &Attempt<P>| {
            attempt.peer == *peer && !matches!(attempt.stage, Stage::Waiting)
        };
        if !self.is_active(peer) && !self.attempts.iter().any(attempted) {
            self.unlink(peer);
            fx.push(Effect::Release(peer.clone()));
        }
    }

    /// The link to this node could not be made, or is down: ends what it was for.
    pub(super) fn abandon(
        &mut self,
        now: Duration,
        peer: &P,
        failed: bool,
        rng: &mut dyn Rng,
        fx: Fx<'_, P>,
    ) {
        let mut probes = None;
        let mut wanted = false;
        let mut unweighed = Vec::new();
        let mut at = 0;
        while let Some(attempt) = self.attempts.get_mut(at) {
            if attempt.peer != *peer || attempt.stage == Stage::Waiting {
                at += 1;
                continue;
            }
            wanted = true;
            match &mut attempt.goal {
                Goal::Join { .. } => {
                    Self::wait(now, attempt, self.config.request_timeout, rng);
                    at += 1;
                    continue;
                }
                Goal::Probe(tries) => probes = Some(*tries + 1),
                Goal::Ask if !failed => self.refill.refused(),
                _ => {}
            }
            unweighed.push(self.attempts.remove(at).goal);
        }
        if wanted {
            fx.push(Effect::Release(peer.clone()));
        }
        for goal in unweighed {
            self.unweighed(goal, fx);
        }
        if failed && wanted {
            self.forget_passive(peer);
            self.history.unreachable(peer);
            if let Some(tries) = probes {
                self.probe(now, tries, rng, fx);
            }
        }
    }

    fn wait(now: Duration, attempt: &mut Attempt<P>, first: Duration, rng: &mut dyn Rng) {
        let pause = first * (1 << attempt.tries.min(4));
        attempt.tries = attempt.tries.saturating_add(1);
        attempt.stage = Stage::Waiting;
        attempt.until = now + pause.mul_f64(rng.random_range(0.5..1.0));
    }

    /// Ends or renews what has taken too long.
    pub(super) fn expire(&mut self, now: Duration, rng: &mut dyn Rng, fx: Fx<'_, P>) {
        let mut at = 0;
        while let Some(attempt) = self.attempts.get_mut(at) {
            if attempt.until > now {
                at += 1;
                continue;
            }
            match attempt.stage {
                Stage::Dialling => {
                    attempt.stage = Stage::Slow;
                    attempt.until = now + self.config.request_timeout;
                    at += 1;
                }
                Stage::Waiting => {
                    let peer = attempt.peer.clone();
                    attempt.stage = Stage::Dialling;
                    attempt.until = now + self.config.request_timeout;
                    fx.push(Effect::Want(peer.clone()));
                    if self.is_up(&peer) {
                        self.arrived(now, at, fx);
                    }
                    at += 1;
                }
                Stage::Slow | Stage::Asked => {
                    let peer = attempt.peer.clone();
                    if !self.is_active(&peer) {
                        self.unlink(&peer);
                    }
                    self.abandon(now, &peer, true, rng, fx);
                    // `Release` has gone out; a neighbour's link is still wanted.
                    if self.is_active(&peer) {
                        fx.push(Effect::Want(peer));
                    }
                    at = 0;
                }
            }
        }
    }
}
