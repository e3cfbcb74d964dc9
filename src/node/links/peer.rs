//! What is known of each node: its dial, its sessions, when it may be dialled again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::{Rng, RngExt};

use super::{Config, DialError, Effect};
use crate::overlay::NodeSpec;

#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: u64,
    pub(super) instance: u64,
    pub(super) up: bool,
    /// When it was established, then when it went up.
    pub(super) since: Duration,
    /// It did not answer a ping in time.
    pub(super) silent: bool,
    /// It was told to end.
    pub(super) ending: bool,
}

/// Newcomers that wait for the sign of life of an old session.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) session: u64,
    pub(super) deadline: Duration,
    /// Attempt and instance.
    pub(super) waiting: Vec<(u64, u64)>,
}

#[derive(Debug)]
pub(super) struct Dial {
    pub(super) id: u64,
    pub(super) addr: SocketAddr,
}

#[derive(Debug, Default)]
pub(super) struct Peer {
    /// Present while a link is wanted.
    pub(super) spec: Option<Arc<NodeSpec>>,
    pub(super) unwanted_since: Duration,
    pub(super) dial: Option<Dial>,
    pub(super) not_before: Duration,
    /// What `not_before` was until an incoming attempt put it off. Stays until the next dial, so
    /// that attempts that come to nothing put a dial off only once.
    pub(super) held: Option<Duration>,
    /// Which address comes next, and how many were tried in this round.
    pub(super) address: usize,
    pub(super) tried: usize,
    /// Failed rounds since the last session.
    pub(super) failures: u32,
    /// Incoming attempts that were accepted and are in their handshake.
    pub(super) accepted: Vec<u64>,
    pub(super) asking: Option<Asking>,
    pub(super) session: Option<Session>,
    /// Established, but waits for the end of `session`.
    pub(super) successor: Option<Session>,
}

impl Peer {
    pub(super) fn latest(&mut self) -> Option<&mut Session> {
        self.successor.as_mut().or(self.session.as_mut())
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failures > 0 || self.tried > 0
    }

    pub(super) fn hurry(&mut self, now: Duration) {
        self.failures = 0;
        self.tried = 0;
        self.not_before = now;
    }

    pub(super) fn wants_dial(&self) -> bool {
        self.dial.is_none()
            && self.session.is_none()
            && self
                .spec
                .as_ref()
                .is_some_and(|s| !s.listen_addrs.is_empty())
    }

    pub(super) fn is_idle(&self) -> bool {
        self.spec.is_none()
            && self.dial.is_none()
            && self.accepted.is_empty()
            && self.asking.is_none()
            && self.session.is_none()
            && self.successor.is_none()
    }

    /// Puts off the next dial after a failure. True if no address is left to be tried at once.
    pub(super) fn fail<R: Rng>(
        &mut self,
        now: Duration,
        error: DialError,
        config: &Config,
        rng: &mut R,
    ) -> bool {
        let addresses = self.spec.as_ref().map_or(0, |s| s.listen_addrs.len());
        self.tried += 1;
        self.address = self.address.wrapping_add(1);
        if error == DialError::Unreachable && self.tried < addresses {
            self.not_before = now;
            return false;
        }
        self.tried = 0;
        let pause = config.interval.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + pause.min(config.max_backoff) + jitter(config, rng);
        true
    }
}

pub(super) fn end_dial<'a>(
    peers: &'a mut BTreeMap<Arc<str>, Peer>,
    name: &str,
    dial: u64,
) -> Option<&'a mut Peer> {
    let peer = peers.get_mut(name)?;
    // Another number: the event crossed the cancelling of that dial.
    peer.dial.take_if(|d| d.id == dial)?;
    Some(peer)
}

pub(super) fn cancel_dial(name: &Arc<str>, peer: &mut Peer, effects: &mut Vec<Effect>) {
    if let Some(Dial { id: dial, .. }) = peer.dial.take() {
        let name = name.clone();
        effects.push(Effect::CancelDial { name, dial });
    }
}

pub(super) fn jitter<R: Rng>(config: &Config, rng: &mut R) -> Duration {
    config.jitter.mul_f64(rng.random_range(0.0..1.0))
}
