//! Decides which connection to a stock node is made, and which of two stays. Sans-I/O.
//!
//! The rules are those of `net_kernel.erl` and `dist_util.erl`:
//!
//! * A link is made when somebody wants to send, not before.
//! * **Both ends dial at once.** The end with the greater name refuses the other's attempt
//!   (`nok`); the other accepts it (`ok_simultaneous`), and its own dial is refused.
//! * **Somebody wants a link with a node that is just coming in.** Its connection is waited for, since
//!   our own dial would end it at the other end, perhaps when this end takes it to be up. A stranger who
//!   only claims the name delays the dial by [`GRACE`].
//! * **A node dials that is linked already.** It is asked (`alive`). If it insists it has
//!   restarted or has lost its end, and the new connection takes the place of the old one. Unlike OTP
//!   this happens only when the newcomer has proved that it knows the cookie: before that a
//!   stranger could cut any link by its name.
//!
//! A new link comes up only when the old one of the same name is down and everybody has been
//! told, so that nothing of one incarnation mixes with the next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How long a node that is coming in is waited for before it is dialled.
const GRACE: Duration = Duration::from_secs(1);

/// Who the node is, and its patience.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Own name.
    pub(crate) name: Arc<str>,
    /// How long a refused dial waits for the other end's own.
    pub(crate) patience: Duration,
}

/// What happens to connections.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// Somebody wants a link with this node, and the one that there is, if any, is about to end.
    Want(Arc<str>),
    /// Time has passed: see [`State::deadline`].
    Tick,
    /// A dial has failed.
    DialFailed { name: Arc<str>, dial: u64 },
    /// A dial was refused because the other end's own dial goes first.
    DialNok { name: Arc<str>, dial: u64 },
    /// A node has dialled and named itself; nothing is proved.
    Incoming { attempt: u64, name: Arc<str> },
    /// An incoming connection has ended before it was established.
    AttemptGone { attempt: u64, name: Arc<str> },
    /// Both ends have authenticated.
    Established {
        name: Arc<str>,
        link: u64,
        origin: Origin,
    },
    /// A link that was started has ended, and everybody has been told.
    Down { name: Arc<str>, link: u64 },
    /// The user wants the link to end.
    Disconnect(Arc<str>),
}

/// Whose connection it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Dialled(u64),
    Accepted(u64),
}

/// The answer to an incoming connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept {
        simultaneous: bool,
    },
    /// There is a link: does it insist?
    Alive,
    Nok,
    NotAllowed(&'static str),
}

/// What the host is to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Dial; the number comes back in the events about it.
    Dial { name: Arc<str>, dial: u64 },
    /// Give up a dial; no event follows.
    CancelDial { dial: u64 },
    /// Answer an incoming connection.
    Verdict { attempt: u64, verdict: Verdict },
    /// Bring an established connection up as the link.
    Start { link: u64 },
    /// Drop an established connection that was not started.
    Drop { link: u64 },
    /// End the link that is up; [`Event::Down`] follows.
    Kill { link: u64, reason: &'static str },
    /// Nobody can be reached at this name: whoever wants the link is told.
    Failed { name: Arc<str> },
}

#[derive(Debug, Default)]
struct Peer {
    dial: Option<u64>,
    /// A dial was refused for the other end's; until when that is awaited.
    awaited: Option<Duration>,
    attempts: BTreeSet<u64>,
    /// It is wanted and coming in; when it is dialled nevertheless.
    deferred: Option<Duration>,
    /// The link that is up or ending.
    link: Option<u64>,
    /// It has been told to end.
    ending: bool,
    /// Established, and waits for the old link's end.
    next: Option<u64>,
    wanted: bool,
}

impl Peer {
    fn is_idle(&self) -> bool {
        self.dial.is_none()
            && self.awaited.is_none()
            && self.deferred.is_none()
            && self.attempts.is_empty()
            && self.link.is_none()
            && self.next.is_none()
    }
}

/// The connections to stock nodes; see the [module](self).
#[derive(Debug)]
pub(crate) struct State {
    config: Config,
    peers: BTreeMap<Arc<str>, Peer>,
    dials: u64,
}

impl State {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            peers: BTreeMap::new(),
            dials: 0,
        }
    }

    /// When [`Event::Tick`] is due.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let of_peer = |peer: &Peer| [peer.awaited, peer.deferred].into_iter().flatten().min();
        self.peers.values().filter_map(of_peer).min()
    }

    /// Takes in an event.
    pub(crate) fn handle(&mut self, now: Duration, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Want(name) => self.want(now, name, effects),
            Event::Tick => {
                for (name, peer) in &mut self.peers {
                    if peer.awaited.is_some_and(|until| until <= now) {
                        peer.awaited = None;
                        fail(name, peer, effects);
                    }
                    if peer.deferred.is_some_and(|until| until <= now) {
                        dial(name, peer, &mut self.dials, effects);
                    }
                }
                self.peers.retain(|_, peer| !peer.is_idle());
            }
            Event::DialFailed { name, dial } => self.with(name, |name, peer, _| {
                if peer.dial == Some(dial) {
                    peer.dial = None;
                    fail(name, peer, effects);
                }
            }),
            Event::DialNok { name, dial } => {
                let until = now + self.config.patience;
                self.with(name, |_, peer, _| {
                    if peer.dial == Some(dial) {
                        peer.dial = None;
                        if peer.link.is_none() && peer.next.is_none() {
                            peer.awaited = Some(until);
                        }
                    }
                });
            }
            Event::Incoming { attempt, name } => self.incoming(attempt, name, effects),
            Event::AttemptGone { attempt, name } => self.with(name, |name, peer, dials| {
                peer.attempts.remove(&attempt);
                if !peer.attempts.is_empty() {
                    return;
                }
                if peer.awaited.take().is_some() {
                    fail(name, peer, effects);
                }
                if peer.deferred.is_some() {
                    dial(name, peer, dials, effects);
                }
            }),
            Event::Established { name, link, origin } => self.with(name, |_, peer, _| {
                established(peer, link, origin, effects);
            }),
            Event::Down { name, link } => self.with(name, |name, peer, dials| {
                if peer.link == Some(link) {
                    peer.link = None;
                    peer.ending = false;
                    if let Some(next) = peer.next.take() {
                        peer.link = Some(next);
                        peer.wanted = false;
                        effects.push(Effect::Start { link: next });
                    } else if peer.attempts.is_empty() && peer.awaited.is_none() {
                        dial(name, peer, dials, effects);
                    } else if peer.wanted && peer.awaited.is_none() {
                        peer.deferred.get_or_insert(now + GRACE);
                    }
                }
            }),
            Event::Disconnect(name) => self.with(name, |_, peer, _| {
                if let Some(next) = peer.next.take() {
                    effects.push(Effect::Drop { link: next });
                }
                end(peer, "disconnected", effects);
            }),
        }
        debug_assert!(
            self.peers
                .values()
                .all(|peer| peer.next.is_none() || peer.link.is_some())
        );
    }

    fn with(&mut self, name: Arc<str>, change: impl FnOnce(&Arc<str>, &mut Peer, &mut u64)) {
        let mut peer = self.peers.remove(&name).unwrap_or_default();
        change(&name, &mut peer, &mut self.dials);
        if !peer.is_idle() {
            self.peers.insert(name, peer);
        }
    }

    fn want(&mut self, now: Duration, name: Arc<str>, effects: &mut Vec<Effect>) {
        if name == self.config.name {
            effects.push(Effect::Failed { name });
            return;
        }
        self.with(name, |name, peer, dials| {
            peer.wanted = true;
            // The end of a link is known before it is told; it is dialled again after that.
            if peer.link.is_some() && !peer.ending {
                return;
            }
            if peer.awaited.is_some() || peer.deferred.is_some() {
                return;
            }
            if peer.attempts.is_empty() {
                dial(name, peer, dials, effects);
            } else if peer.dial.is_none() {
                peer.deferred = Some(now + GRACE);
            }
        });
    }

    fn incoming(&mut self, attempt: u64, name: Arc<str>, effects: &mut Vec<Effect>) {
        if name == self.config.name {
            let verdict = Verdict::NotAllowed("it has this node's own name");
            effects.push(Effect::Verdict { attempt, verdict });
            return;
        }
        let wins = self.config.name > name;
        self.with(name, |_, peer, _| {
            let verdict = if peer.link.is_some() {
                Verdict::Alive
            } else if peer.dial.is_some() && wins {
                Verdict::Nok
            } else {
                let simultaneous = peer.dial.is_some();
                Verdict::Accept { simultaneous }
            };
            if verdict != Verdict::Nok {
                peer.attempts.insert(attempt);
            }
            effects.push(Effect::Verdict { attempt, verdict });
        });
    }
}

fn established(peer: &mut Peer, link: u64, origin: Origin, effects: &mut Vec<Effect>) {
    match origin {
        Origin::Dialled(dial) if peer.dial == Some(dial) => peer.dial = None,
        // Given up meanwhile.
        Origin::Dialled(_) => return effects.push(Effect::Drop { link }),
        Origin::Accepted(attempt) => {
            peer.attempts.remove(&attempt);
            if let Some(dial) = peer.dial.take() {
                effects.push(Effect::CancelDial { dial });
            }
        }
    }
    peer.awaited = None;
    peer.deferred = None;
    if let Some(older) = peer.next.replace(link) {
        effects.push(Effect::Drop { link: older });
    }
    if peer.link.is_some() {
        end(peer, "the node has connected anew", effects);
    } else {
        peer.next = None;
        peer.link = Some(link);
        peer.wanted = false;
        effects.push(Effect::Start { link });
    }
}

/// Dials a node that is wanted, unless that is under way or needless.
fn dial(name: &Arc<str>, peer: &mut Peer, dials: &mut u64, effects: &mut Vec<Effect>) {
    peer.deferred = None;
    if peer.wanted && peer.dial.is_none() && peer.next.is_none() {
        *dials += 1;
        peer.dial = Some(*dials);
        let (name, dial) = (name.clone(), *dials);
        effects.push(Effect::Dial { name, dial });
    }
}

/// Ends the link that is up, once.
fn end(peer: &mut Peer, reason: &'static str, effects: &mut Vec<Effect>) {
    if let Some(link) = peer.link
        && !std::mem::replace(&mut peer.ending, true)
    {
        effects.push(Effect::Kill { link, reason });
    }
}

/// Whoever wants a link is told, unless another attempt may still succeed.
fn fail(name: &Arc<str>, peer: &mut Peer, effects: &mut Vec<Effect>) {
    if peer.wanted && peer.next.is_none() && (peer.link.is_none() || peer.ending) {
        peer.wanted = false;
        let name = name.clone();
        effects.push(Effect::Failed { name });
    }
}

#[cfg(test)]
mod tests;
