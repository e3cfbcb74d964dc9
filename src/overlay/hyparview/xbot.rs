//! X-BOT: neighbours that are near, at the same number of neighbours.
//!
//! After Leitão, Marques, Pereira and Rodrigues, "X-BOT: A Protocol for Resilient Optimization of
//! Unstructured Overlay Networks" (SRDS 2009).
//!
//! HyParView's neighbours are random, so most are far. Now and then a node with a full active view looks at
//! two random names of its passive view; if one is nearer than a neighbour, four nodes exchange links, so that none
//! of them has more or fewer than before:
//!
//! ```text
//!   i ──── o                        i      o
//!                  becomes          │      │
//!   c ──── d                        c      d
//! ```
//!
//! The *initiator* i asks the *candidate* c to take it in the place of its worst neighbour d, c asks d, d asks i's *old*
//! neighbour o, and the answers go back the same way; see `exchange`. A candidate with a free place
//! takes i at once. The worst neighbour of each node is *unbiased*: never given up for a nearer one. Without such
//! links, the near ones would make islands.
//!
//! # The oracle
//!
//! The cost of a link is its round trip, measured by a message and its echo, over the very link. Each period a
//! node measures its neighbours anew, and smooths what it gets as TCP does (an eighth of each new value):
//! so it follows a path that has changed, and one echo that was held up does not cost a neighbour its place. A
//! candidate is measured over a link that is made for it and released at once if it is no better. Such links
//! are attempts like all others: bounded in number and time. One echo is all that is known of a candidate, so
//! it must be better by a quarter.
//!
//! # What the paper does not have
//!
//! * *The sum decides.* In the paper d takes o only if that is nearer than c. Where most nodes are equally
//!   far, as in data centers far from each other, it hardly ever is, and nothing would change. So i says
//!   what it saves, and d agrees unless it loses more than that.
//! * *Unbiased means so at all four.* In the paper o is not asked whether i is its unbiased neighbour, nor is d
//!   about c. Here they refuse, unless what they get instead is about as far.
//! * The paper's DISCONNECTWAIT, by which o tells i that its place will be taken, is the planned end of their
//!   link: while i waits for c it does not fill that place.
//!
//! # Failures, and nodes without X-BOT
//!
//! Each step has a timeout, longer than all those behind it. Whoever drops a neighbour closes the link, and
//! whoever hears that it was taken as a neighbour in vain closes the link too: so views are symmetric whatever is lost on
//! the way, and a place that stays free is filled by HyParView's rules. A node that is not configured for X-BOT answers
//! echoes and refuses exchanges: both kinds can be in one cluster.

use std::time::Duration;

use rand::{Rng, RngExt};

use super::exchange::Exchange;
use super::links::{Attempt, Goal};
use super::message::Message;
use super::state::HyParView;
use crate::overlay::contract::{Effect, Peer};

/// What a user may set of X-BOT. Values beyond the limits of this crate are cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XBotConfig {
    /// Neighbours that are never given up for nearer ones. One, as in the paper, keeps what is near in touch with
    /// what is far.
    pub unbiased: usize,
    /// Names of the passive view that are looked at each time. Two, as in the paper.
    pub candidates: usize,
    /// How often. Two shuffles, as in the paper: so some of the names are new.
    pub interval: Duration,
}

impl Default for XBotConfig {
    fn default() -> Self {
        Self {
            unbiased: 1,
            candidates: 2,
            interval: Duration::from_secs(20),
        }
    }
}

/// What a link costs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    rtt: Option<Duration>,
    /// What the echo must say, and when the question left.
    asked: Option<(u64, Duration)>,
}

impl Cost {
    pub(super) fn known(rtt: Duration) -> Self {
        let (rtt, asked) = (Some(rtt), None);
        Self { rtt, asked }
    }

    /// One that is asked for later.
    pub(super) fn planned(rng: &mut dyn Rng) -> Self {
        let asked = Some((rng.random(), Duration::ZERO));
        Self { rtt: None, asked }
    }

    /// The number that was planned, which leaves now.
    pub(super) fn ask(&mut self, now: Duration) -> u64 {
        match &mut self.asked {
            Some((nonce, at)) => {
                *at = now;
                *nonce
            }
            None => 0,
        }
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// An echo: the cost, if it is that of the last question.
    pub(super) fn echo(&mut self, now: Duration, nonce: u64) -> Option<Duration> {
        let (_, at) = self.asked.take_if(|(own, _)| *own == nonce)?;
        let fresh = now.saturating_sub(at);
        let rtt = self.rtt.map_or(fresh, |rtt| (rtt * 7 + fresh) / 8);
        self.rtt = Some(rtt);
        Some(rtt)
    }
}

/// Whether this is a gain, as far as one echo can tell.
pub(super) fn is_better(new: Duration, old: Duration) -> bool {
    new < old * 3 / 4
}

/// What a node keeps for X-BOT beside its views.
#[derive(Clone)]
pub(super) struct XBot<P> {
    /// When it looks for nearer neighbours next.
    pub(super) next: Option<Duration>,
    /// The exchange in which it is the candidate.
    pub(super) exchange: Option<Exchange<P>>,
    /// It is the candidate of no other until then.
    pub(super) rests: Duration,
}

impl<P> Default for XBot<P> {
    fn default() -> Self {
        Self {
            next: None,
            exchange: None,
            rests: Duration::ZERO,
        }
    }
}

/// What is to be weighed over a link to a node that is no neighbour.
#[derive(Clone, Debug)]
pub(super) struct Weighing<P> {
    pub(super) cost: Cost,
    pub(super) part: Part<P>,
}

/// Which part of an exchange this node has.
#[derive(Clone, Debug)]
pub(super) enum Part<P> {
    /// The initiator; the other end is a candidate for the place of `old`, once it is known to be better.
    Initiator { old: Option<P> },
    /// The candidate's neighbour; the other end is the old one.
    Disconnected {
        candidate: P,
        initiator: P,
        saved: Duration,
        asked: bool,
    },
}

type Fx<'a, P> = &'a mut Vec<Effect<P, Message<P>>>;

impl<P: Peer> HyParView<P> {
    /// Measures the cost of a neighbour's link.
    pub(super) fn measure(&mut self, now: Duration, peer: &P, rng: &mut dyn Rng, fx: Fx<'_, P>) {
        if self.config.xbot.is_none() {
            return;
        }
        if let Some(neighbour) = self.active.iter_mut().find(|n| n.peer == *peer) {
            neighbour.cost.asked = Cost::planned(rng).asked;
            let nonce = neighbour.cost.ask(now);
            let (to, message) = (peer.clone(), Message::Ping { nonce });
            fx.push(Effect::Send { to, message });
        }
    }

    pub(super) fn cost(&self, peer: &P) -> Option<Duration> {
        self.active.iter().find(|n| n.peer == *peer)?.cost.rtt
    }

    pub(super) fn set_cost(&mut self, peer: &P, cost: Option<Duration>) {
        if let Some(neighbour) = self.active.iter_mut().find(|n| n.peer == *peer) {
            neighbour.cost.rtt = neighbour.cost.rtt.or(cost);
        }
    }

    /// Neighbours that may be given up for nearer ones, the worst first.
    pub(super) fn biased(&self) -> impl Iterator<Item = (&P, Duration)> {
        let mut all: Vec<(&P, Duration)> = self
            .active
            .iter()
            .filter_map(|n| Some((&n.peer, n.cost.rtt?)))
            .collect();
        all.sort_unstable_by(|(a, x), (b, y)| y.cmp(x).then(a.cmp(b)));
        let unbiased = self.config.xbot.as_ref().map_or(0, |xbot| xbot.unbiased);
        all.into_iter().skip(unbiased)
    }

    /// Whether a neighbour may be given up for another of this cost: not an unbiased one for one that is nearer.
    pub(super) fn may_give_up(&self, peer: &P, cost: Duration) -> bool {
        self.cost(peer)
            .is_some_and(|old| !is_better(cost, old) || self.biased().any(|(p, _)| p == peer))
    }

    /// One period: measures the neighbours, and looks for nearer ones.
    pub(super) fn optimise(&mut self, now: Duration, rng: &mut dyn Rng, fx: Fx<'_, P>) {
        let Some(xbot) = self.config.xbot.clone() else {
            return;
        };
        self.xbot.next = Some(now + xbot.interval.mul_f64(rng.random_range(0.9..1.1)));
        for peer in self.active().cloned().collect::<Vec<_>>() {
            self.measure(now, &peer, rng, fx);
        }
        let running = self.attempts.iter().filter(|a| is_weighing(a)).count();
        if !self.is_full() || running > 0 {
            return;
        }
        for peer in self.some_passive(xbot.candidates, rng) {
            if !self.has_attempt(&peer) {
                let (cost, part) = (Cost::planned(rng), Part::Initiator { old: None });
                self.reach(now, peer, Goal::Weigh(Weighing { cost, part }), fx);
            }
        }
    }

    /// An echo has come.
    pub(super) fn on_pong(
        &mut self,
        now: Duration,
        from: &P,
        nonce: u64,
        rng: &mut dyn Rng,
        fx: Fx<'_, P>,
    ) {
        if let Some(neighbour) = self.active.iter_mut().find(|n| n.peer == *from) {
            neighbour.cost.echo(now, nonce);
        }
        let weighed = self.attempts.iter_mut().enumerate().find_map(|(at, a)| {
            let Goal::Weigh(weighing) = &mut a.goal else {
                return None;
            };
            let mine = a.peer == *from;
            Some((at, weighing.cost.echo(now, nonce).filter(|_| mine)?))
        });
        if let Some((at, cost)) = weighed {
            self.weighed(now, at, cost, fx);
            self.pursue(now, rng, fx);
        }
    }

    /// Places of neighbours that have gone for somebody who is still expected.
    pub(super) fn reserved(&self) -> usize {
        let gone = |attempt: &&Attempt<P>| match &attempt.goal {
            Goal::Weigh(Weighing {
                part: Part::Initiator { old: Some(old) },
                ..
            }) => !self.is_active(old),
            _ => false,
        };
        self.attempts.iter().filter(gone).count()
    }
}

fn is_weighing<P>(attempt: &Attempt<P>) -> bool {
    matches!(attempt.goal, Goal::Weigh(_))
}
