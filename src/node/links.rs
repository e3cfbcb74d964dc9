//! Decides which links to make, and which of two links to a name stays. Sans-I/O.
//!
//! The overlay says to which nodes links are wanted. This machine dials them, with exponential
//! backoff and jitter, cycling through a node's addresses; a node that can't be reached never
//! holds up the others. And it judges every connection that comes in, by the rules of Erlang's
//! `net_kernel` and `dist_util` as far as those go:
//!
//! * **Both ends dial at once.** The end with the greater name refuses the other's attempt with
//!   `nok`; the end with the lesser name accepts (`ok_simultaneous`). Unlike OTP it gives up its
//!   own attempt only when the peer has authenticated: before that a stranger could stop all
//!   dials by claiming the peer's name.
//! * **The same instance comes again.** It has lost the old session, so the new one replaces it.
//! * **Another instance of the name comes.** Either the node has restarted, or two nodes have one
//!   name. The old session is pinged: if it answers, the newcomer is refused; if it is silent,
//!   the newcomer replaces it.
//!
//! Where a new session replaces an old one, the old one is killed only after the newcomer has
//! proved that it knows the cookie, and [`Effect::Admit`] lets the new one go up only when the old
//! one is down, so that downs and ups of a name alternate.
//!
//! A session with a node to which no link is wanted is closed after a while; till then the node
//! may join.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;

use crate::limits::{DUPLICATE_NAME_PATIENCE, HANDSHAKE_TIMEOUT};
use crate::overlay::NodeSpec;

use peer::{Asking, Dial, Peer, Session, cancel_dial, end_dial, jitter};

mod peer;

#[cfg(test)]
mod pair;
#[cfg(test)]
mod tests;

/// Who the node is, and its patience.
#[derive(Clone, Debug)]
pub struct Config {
    /// Own name.
    pub name: Arc<str>,
    /// Own instance.
    pub instance: u64,
    /// Pause after the first failed dial; it doubles with each further one.
    pub interval: Duration,
    /// Up to this much is added to every pause, at random.
    pub jitter: Duration,
    /// Longest pause, without jitter.
    pub max_backoff: Duration,
    /// Time that a node without a wanted link may stay.
    pub stranger_patience: Duration,
    /// Time in which the older of two nodes of a name must answer.
    pub duplicate_patience: Duration,
    /// Time that the own dial waits while the peer, having dialled first, is in its handshake.
    pub handshake_patience: Duration,
    /// Most dials at once. Nodes that failed last time get at most three quarters of them.
    pub max_dials: usize,
}

impl Config {
    /// The defaults for the node of this name and instance.
    pub fn new(name: impl Into<Arc<str>>, instance: u64) -> Self {
        Self {
            name: name.into(),
            instance,
            interval: Duration::from_secs(1),
            jitter: Duration::from_secs(1),
            max_backoff: Duration::from_secs(30),
            stranger_patience: Duration::from_secs(10),
            duplicate_patience: DUPLICATE_NAME_PATIENCE,
            handshake_patience: HANDSHAKE_TIMEOUT,
            max_dials: 32,
        }
    }
}

/// What happens to links.
#[derive(Clone, Debug)]
pub enum Event {
    /// Links are wanted to exactly these nodes. Those that are new or have other addresses are
    /// dialled without delay.
    Wanted(Vec<NodeSpec>),
    /// The user asks for this node: forget the backoff.
    Hurry(Arc<str>),
    /// [`State::deadline`] has passed, or any time has.
    Tick,
    /// A dialler has named itself and waits for a verdict. Nothing is proved yet.
    Incoming {
        /// The host's number for the connection.
        attempt: u64,
        /// The claimed name.
        name: Arc<str>,
        /// The claimed instance.
        instance: u64,
        /// Whether it is an extra connection of a session.
        extra: bool,
    },
    /// An incoming first connection has ended before it was established. The host reports it for
    /// every attempt that is neither established nor refused.
    AttemptGone {
        /// The attempt.
        attempt: u64,
        /// The name that it claimed.
        name: Arc<str>,
    },
    /// A dial has failed.
    DialFailed {
        /// The node.
        name: Arc<str>,
        /// The dial's number.
        dial: u64,
        /// How.
        error: DialError,
    },
    /// A dial was refused because the other end's own dial goes first.
    DialNok {
        /// The node.
        name: Arc<str>,
        /// The dial's number.
        dial: u64,
    },
    /// Both ends of a first connection have authenticated; a session begins.
    Established {
        /// The node.
        name: Arc<str>,
        /// Its instance.
        instance: u64,
        /// The host's number for the session.
        session: u64,
        /// Whose connection it was.
        origin: Origin,
    },
    /// All connections of an admitted session are bound.
    Up {
        /// The node.
        name: Arc<str>,
        /// The session.
        session: u64,
    },
    /// A session, admitted or not, has ended, and nothing of it will be delivered any more.
    Down {
        /// The node.
        name: Arc<str>,
        /// The session.
        session: u64,
    },
    /// A session has given a sign of life.
    Pong {
        /// The node.
        name: Arc<str>,
        /// The session.
        session: u64,
    },
}

/// How a dial has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialError {
    /// The node was not found at this address; the next one is tried at once.
    Unreachable,
    /// The node itself refused, or the cookie is wrong.
    Rejected,
}

/// Which connection a session began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This dial of ours.
    Dialled(u64),
    /// This accepted attempt of the peer.
    Accepted(u64),
}

/// The answer to an incoming connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on with the handshake.
    Accept {
        /// Whether to say `ok_simultaneous` in place of `ok`.
        simultaneous: bool,
    },
    /// `nok`: the own dial goes first.
    Nok,
    /// `not_allowed`, for this reason.
    NotAllowed(&'static str),
}

/// What the host is to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Dial.
    Dial {
        /// Numbers dials; comes back in the events about this one.
        dial: u64,
        /// Whom.
        spec: Arc<NodeSpec>,
        /// Where.
        addr: SocketAddr,
    },
    /// Give up a dial. No event needs to follow.
    CancelDial {
        /// The node.
        name: Arc<str>,
        /// The dial.
        dial: u64,
    },
    /// Answer an incoming connection. Each gets one verdict, some only after a while.
    Verdict {
        /// The attempt.
        attempt: u64,
        /// The answer.
        verdict: Verdict,
    },
    /// Ask an established session for a sign of life.
    Ping {
        /// The node.
        name: Arc<str>,
        /// The session.
        session: u64,
    },
    /// A wanted node could not be reached at any of its addresses, or refuses. It will be dialled
    /// again.
    Unreachable {
        /// The node.
        name: Arc<str>,
    },
    /// An established session may go up.
    Admit {
        /// The node.
        name: Arc<str>,
        /// The session.
        session: u64,
    },
    /// End a session at once. `Event::Down` follows.
    Kill {
        /// The node.
        name: Arc<str>,
        /// The session.
        session: u64,
        /// Why, for the log.
        reason: &'static str,
    },
    /// End a session and tell the peer why. `Event::Down` follows.
    Close {
        /// The node.
        name: Arc<str>,
        /// The session.
        session: u64,
        /// Why.
        reason: &'static str,
    },
}

const DUPLICATE: &str = "duplicate name";
const TO_SELF: &str = "connection to itself";

/// All links of a node.
#[derive(Debug)]
pub struct State {
    config: Config,
    peers: BTreeMap<Arc<str>, Peer>,
    dials: u64,
    deadline: Option<Duration>,
}

impl State {
    /// No links yet.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            peers: BTreeMap::new(),
            dials: 0,
            deadline: None,
        }
    }

    /// When to send the next [`Event::Tick`].
    pub fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// Handles one event. `now` is the time since some fixed moment.
    pub fn handle<R: Rng>(
        &mut self,
        now: Duration,
        event: Event,
        rng: &mut R,
        effects: &mut Vec<Effect>,
    ) {
        match event {
            Event::Wanted(specs) => self.want(now, specs, effects),
            Event::Hurry(name) => {
                if let Some(peer) = self.peers.get_mut(&name) {
                    peer.hurry(now);
                }
            }
            Event::Tick => {}
            Event::Incoming {
                attempt,
                name,
                instance,
                extra,
            } => {
                let verdict = match extra {
                    true => Some(self.judge_extra(&name, instance)),
                    false => self.judge(now, attempt, &name, instance, effects),
                };
                if let Some(verdict) = verdict {
                    effects.push(Effect::Verdict { attempt, verdict });
                }
            }
            Event::AttemptGone { attempt, name } => self.attempt_gone(attempt, &name),
            Event::DialFailed { name, dial, error } => {
                if let Some(peer) = end_dial(&mut self.peers, &name, dial)
                    && peer.fail(now, error, &self.config, rng)
                {
                    effects.push(Effect::Unreachable { name });
                }
            }
            Event::DialNok { name, dial } => {
                let pause = self.config.interval + jitter(&self.config, rng);
                if let Some(peer) = end_dial(&mut self.peers, &name, dial) {
                    peer.not_before = now + pause;
                }
            }
            Event::Established {
                name,
                instance,
                session,
                origin,
            } => {
                let session = Session {
                    id: session,
                    instance,
                    up: false,
                    since: now,
                    silent: false,
                    ending: false,
                };
                self.established(now, &name, session, origin, rng, effects);
            }
            Event::Up { name, session } => self.up(now, &name, session),
            Event::Down { name, session } => self.down(now, &name, session, rng, effects),
            Event::Pong { name, session } => self.pong(&name, session, effects),
        }
        self.peers.retain(|_, peer| !peer.is_idle());
        self.expire(now, effects);
        self.dial(now, effects);
        self.deadline = self.next_deadline(now);
    }

    fn want(&mut self, now: Duration, specs: Vec<NodeSpec>, effects: &mut Vec<Effect>) {
        let own = self.config.name.clone();
        let mut specs: BTreeMap<Arc<str>, NodeSpec> = specs
            .into_iter()
            .filter(|s| s.name != own)
            .map(|s| (s.name.clone(), s))
            .collect();
        for (name, peer) in &mut self.peers {
            if peer.spec.is_some() && !specs.contains_key(name) {
                peer.spec = None;
                peer.unwanted_since = now;
                cancel_dial(name, peer, effects);
            }
        }
        while let Some((name, spec)) = specs.pop_first() {
            let peer = self.peers.entry(name).or_default();
            let known = peer.spec.as_ref().map(|s| &s.listen_addrs);
            if known != Some(&spec.listen_addrs) {
                peer.address = 0;
                peer.hurry(now);
                let outdated = |d: &Dial| !spec.listen_addrs.contains(&d.addr);
                if peer.dial.as_ref().is_some_and(outdated) {
                    cancel_dial(&spec.name, peer, effects);
                }
            }
            peer.spec = Some(Arc::new(spec));
        }
    }

    /// The verdict on a first connection; `None` if the peer's old session has to be asked first.
    fn judge(
        &mut self,
        now: Duration,
        attempt: u64,
        name: &Arc<str>,
        instance: u64,
        effects: &mut Vec<Effect>,
    ) -> Option<Verdict> {
        if instance == self.config.instance {
            return Some(Verdict::NotAllowed(TO_SELF));
        }
        if *name == self.config.name {
            return Some(Verdict::NotAllowed(DUPLICATE));
        }
        let peer = self.peers.entry(name.clone()).or_insert_with(|| Peer {
            unwanted_since: now,
            ..Peer::default()
        });
        let simultaneous = peer.dial.is_some();
        let held = peer.held.is_some();
        match peer.latest() {
            Some(old) if old.instance == instance || old.silent || old.ending => {}
            Some(old) if !old.up => return Some(Verdict::NotAllowed(DUPLICATE)),
            Some(old) => {
                let session = old.id;
                let deadline = now + self.config.duplicate_patience;
                let asking = peer.asking.get_or_insert_with(|| {
                    let name = name.clone();
                    effects.push(Effect::Ping { name, session });
                    Asking {
                        session,
                        deadline,
                        waiting: Vec::new(),
                    }
                });
                asking.waiting.push((attempt, instance));
                return None;
            }
            None if simultaneous && self.config.name > *name => return Some(Verdict::Nok),
            None if !simultaneous && !held => {
                // The peer was first; two connections would only get in each other's way.
                peer.held = Some(peer.not_before);
                let patience = now + self.config.handshake_patience;
                peer.not_before = peer.not_before.max(patience);
            }
            None => {}
        }
        peer.accepted.push(attempt);
        Some(Verdict::Accept { simultaneous })
    }

    fn judge_extra(&mut self, name: &str, instance: u64) -> Verdict {
        let session = self.peers.get_mut(name).and_then(Peer::latest);
        match session {
            Some(session) if session.instance == instance && !session.ending => {
                let simultaneous = false;
                Verdict::Accept { simultaneous }
            }
            _ => Verdict::NotAllowed("no such session"),
        }
    }

    fn attempt_gone(&mut self, attempt: u64, name: &str) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        if let Some(asking) = &mut peer.asking {
            asking.waiting.retain(|(a, _)| *a != attempt);
        }
        let before = peer.accepted.len();
        peer.accepted.retain(|a| *a != attempt);
        if peer.accepted.is_empty()
            && before > 0
            && let Some(not_before) = peer.held
        {
            peer.not_before = not_before;
        }
    }

    fn established<R: Rng>(
        &mut self,
        now: Duration,
        name: &Arc<str>,
        session: Session,
        origin: Origin,
        rng: &mut R,
        effects: &mut Vec<Effect>,
    ) {
        let kill = |id, reason| Effect::Kill {
            name: name.clone(),
            session: id,
            reason,
        };
        let Some(peer) = self.peers.get_mut(name) else {
            effects.push(kill(session.id, "no longer wanted"));
            return;
        };
        let expected = match origin {
            Origin::Dialled(dial) => peer.dial.take_if(|d| d.id == dial).is_some(),
            Origin::Accepted(attempt) => {
                let at = peer.accepted.iter().position(|a| *a == attempt);
                at.map(|at| peer.accepted.swap_remove(at)).is_some()
            }
        };
        if !expected {
            effects.push(kill(session.id, "superseded by another connection"));
            return;
        }
        let refusal = match peer.latest() {
            _ if session.instance == self.config.instance => Some(TO_SELF),
            Some(old) if old.instance != session.instance && !old.silent && !old.ending => {
                Some(DUPLICATE)
            }
            _ => None,
        };
        if let Some(reason) = refusal {
            effects.push(kill(session.id, reason));
            if matches!(origin, Origin::Dialled(_)) {
                peer.fail(now, DialError::Rejected, &self.config, rng);
                let name = name.clone();
                effects.push(Effect::Unreachable { name });
            }
            return;
        }
        cancel_dial(name, peer, effects);
        let Some(old) = &mut peer.session else {
            let (name, id) = (name.clone(), session.id);
            effects.push(Effect::Admit { name, session: id });
            peer.session = Some(session);
            return;
        };
        if !old.ending {
            old.ending = true;
            effects.push(kill(old.id, "replaced by a new session"));
        }
        if let Some(passed_over) = peer.successor.replace(session) {
            effects.push(kill(passed_over.id, "replaced by a new session"));
        }
    }

    fn up(&mut self, now: Duration, name: &str, session: u64) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        if let Some(current) = peer.session.as_mut().filter(|s| s.id == session) {
            current.up = true;
            current.since = now;
            peer.failures = 0;
            peer.tried = 0;
        }
    }

    fn down<R: Rng>(
        &mut self,
        now: Duration,
        name: &Arc<str>,
        session: u64,
        rng: &mut R,
        effects: &mut Vec<Effect>,
    ) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        if peer.successor.take_if(|s| s.id == session).is_some() {
            return;
        }
        let Some(old) = peer.session.take_if(|s| s.id == session) else {
            return;
        };
        peer.held = None;
        if let Some(mut next) = peer.successor.take() {
            next.since = now;
            let (name, id) = (name.clone(), next.id);
            effects.push(Effect::Admit { name, session: id });
            peer.session = Some(next);
        } else if old.up && now.saturating_sub(old.since) >= self.config.interval {
            peer.not_before = now;
        } else {
            // It didn't last: without a pause, two nodes that can't agree would spin.
            peer.fail(now, DialError::Rejected, &self.config, rng);
            if !old.up && peer.spec.is_some() {
                let name = name.clone();
                effects.push(Effect::Unreachable { name });
            }
        }
        // Whoever waited for a sign of life is judged anew.
        for (attempt, instance) in peer.asking.take().into_iter().flat_map(|a| a.waiting) {
            if let Some(verdict) = self.judge(now, attempt, name, instance, effects) {
                effects.push(Effect::Verdict { attempt, verdict });
            }
        }
    }

    fn pong(&mut self, name: &str, session: u64, effects: &mut Vec<Effect>) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        if let Some(current) = peer.session.as_mut().filter(|s| s.id == session) {
            current.silent = false;
        }
        let asked = peer.asking.take_if(|a| a.session == session);
        for (attempt, _) in asked.into_iter().flat_map(|a| a.waiting) {
            let verdict = Verdict::NotAllowed(DUPLICATE);
            effects.push(Effect::Verdict { attempt, verdict });
        }
    }

    /// Ends what has lasted too long.
    fn expire(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let patience = self.config.stranger_patience;
        for (name, peer) in &mut self.peers {
            if let Some(asking) = peer.asking.take_if(|a| now >= a.deadline) {
                if let Some(old) = peer.session.as_mut().filter(|s| s.id == asking.session) {
                    old.silent = true;
                }
                let mut waiting = asking.waiting;
                // The newest is the likeliest to be alive still.
                if let Some((attempt, _)) = waiting.pop() {
                    peer.accepted.push(attempt);
                    let simultaneous = false;
                    let verdict = Verdict::Accept { simultaneous };
                    effects.push(Effect::Verdict { attempt, verdict });
                }
                for (attempt, _) in waiting {
                    let verdict = Verdict::NotAllowed(DUPLICATE);
                    effects.push(Effect::Verdict { attempt, verdict });
                }
            }
            if let Some(session) = &mut peer.session
                && peer.spec.is_none()
                && !session.ending
                && now >= session.since.max(peer.unwanted_since) + patience
            {
                session.ending = true;
                effects.push(Effect::Close {
                    name: name.clone(),
                    session: session.id,
                    reason: "not a member of this cluster",
                });
            }
        }
    }

    /// Starts the dials that are due, those first that have waited longest.
    fn dial(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let dialling = || self.peers.values().filter(|p| p.dial.is_some());
        let mut free = self.config.max_dials.saturating_sub(dialling().count());
        if free == 0 {
            return;
        }
        let for_failed = self.config.max_dials - self.config.max_dials / 4;
        let failed = dialling().filter(|p| p.has_failed()).count();
        let mut free_for_failed = for_failed.saturating_sub(failed);
        let mut due: Vec<(Duration, &Arc<str>, &mut Peer)> = self
            .peers
            .iter_mut()
            .filter(|(_, p)| p.wants_dial() && p.not_before <= now)
            .map(|(name, p)| (p.not_before, name, p))
            .collect();
        due.sort_by_key(|(at, _, _)| *at);
        for (_, _, peer) in due {
            let Some(spec) = peer.spec.clone() else {
                continue;
            };
            if free == 0 {
                break;
            }
            if peer.has_failed() {
                if free_for_failed == 0 {
                    continue;
                }
                free_for_failed -= 1;
            }
            free -= 1;
            let addresses = spec.listen_addrs.len().max(1);
            if let Some(&addr) = spec.listen_addrs.get(peer.address % addresses) {
                self.dials += 1;
                let dial = self.dials;
                peer.dial = Some(Dial { id: dial, addr });
                peer.held = None;
                effects.push(Effect::Dial { dial, spec, addr });
            }
        }
    }

    fn next_deadline(&self, now: Duration) -> Option<Duration> {
        let patience = self.config.stranger_patience;
        let of_peer = |p: &Peer| {
            // A dial that is due already waits for another to end, not for the clock.
            let dial = (p.wants_dial() && p.not_before > now).then_some(p.not_before);
            let asking = p.asking.as_ref().map(|a| a.deadline);
            let stranger = p.session.as_ref().filter(|s| p.spec.is_none() && !s.ending);
            let stranger = stranger.map(|s| s.since.max(p.unwanted_since) + patience);
            [dial, asking, stranger].into_iter().flatten().min()
        };
        self.peers.values().filter_map(of_peer).min()
    }
}
