//! What clients do: find a server, keep it, and find another when it fails.

use std::time::Duration;

use rand::seq::IteratorRandom;
use rand::{Rng, RngExt};

use super::Tag;
use super::state::{ClientServer, Fx, Link};
use crate::limits::{MAX_ATTEMPTS, MAX_SERVERS};
use crate::overlay::contract::Peer;

/// A server rests no longer than this, before the random part.
const MAX_REST: Duration = Duration::from_secs(30);

/// A server that could not be reached, or had no room.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    until: Duration,
    times: u32,
}

impl<P: Peer> ClientServer<P> {
    fn homes(&self) -> usize {
        self.neighbors().count()
    }

    /// A server has said that it is one.
    pub(super) fn on_server(&mut self, from: P, asked: bool, list: Vec<P>, fx: Fx<'_, P>) {
        if self.is_neighbor(&from) {
            self.taken_in(from, list, fx);
        } else {
            self.links.insert(from.clone(), Link::Met);
            if asked && !self.wanted.contains(&from) {
                self.want(&from, fx);
            } else if !asked && self.homes() >= self.config.links {
                self.release(&from, fx);
            }
        }
    }

    /// A server has taken this client in.
    pub(super) fn taken_in(&mut self, from: P, list: Vec<P>, fx: Fx<'_, P>) {
        // An old one makes room: that whom the user has named may come in addition.
        let others = self.neighbors().map(|(peer, _)| peer);
        let others: Vec<P> = others.filter(|peer| **peer != from).cloned().collect();
        let excess = (others.len() + 1).saturating_sub(self.config.links);
        for other in others.into_iter().take(excess) {
            self.release(&other, fx);
        }
        self.accept(from, Tag::Server, fx);
        self.told(list);
    }

    /// A server's list takes the place of the old one.
    pub(super) fn told(&mut self, list: Vec<P>) {
        let homes = self.neighbors().map(|(peer, _)| peer.clone());
        let list = list.into_iter().filter(|peer| *peer != self.own);
        let servers = homes.chain(list).take(MAX_SERVERS).collect();
        self.changed |= self.servers != servers;
        self.servers = servers;
        let servers = &self.servers;
        self.resting.retain(|peer, _| servers.contains(peer));
    }

    /// Somebody who is no server, or has no room, tells of servers.
    pub(super) fn redirect(
        &mut self,
        now: Duration,
        from: &P,
        list: Vec<P>,
        rng: &mut dyn Rng,
        fx: Fx<'_, P>,
    ) {
        if self.pending.remove(from) {
            self.redirected.insert(from.clone());
            for server in list {
                if server != self.own && self.servers.len() < MAX_SERVERS {
                    self.changed |= self.servers.insert(server);
                }
            }
            if self.servers.iter().all(|server| server == from) {
                // It knows no more than we do. It may, later.
                self.redirected.remove(from);
                self.pending.insert(from.clone());
            }
        }
        self.release(from, fx);
        self.rest(now, from, rng);
    }

    /// The link to a server has broken.
    pub(super) fn lost(&mut self, now: Duration, peer: &P, rng: &mut dyn Rng, fx: Fx<'_, P>) {
        self.release(peer, fx);
        self.rest(now, peer, rng);
    }

    /// A node could not be reached.
    pub(super) fn unreachable(
        &mut self,
        now: Duration,
        peer: &P,
        rng: &mut dyn Rng,
        fx: Fx<'_, P>,
    ) {
        if self.dialled.contains_key(peer) && !self.pending.contains(peer) {
            self.release(peer, fx);
            self.rest(now, peer, rng);
        }
    }

    fn rest(&mut self, now: Duration, peer: &P, rng: &mut dyn Rng) {
        if !self.servers.contains(peer) && !self.pending.contains(peer) {
            return;
        }
        let times = self.resting.get(peer).map_or(0, |rest| rest.times);
        let pause = self.config.rest.saturating_mul(1 << times.min(16));
        let pause = pause.min(MAX_REST).mul_f64(rng.random_range(0.5..1.5));
        let (until, times) = (now + pause, times.saturating_add(1));
        self.resting.insert(peer.clone(), Rest { until, times });
    }

    /// Dials servers while there are too few.
    pub(super) fn pursue(&mut self, now: Duration, rng: &mut dyn Rng, fx: Fx<'_, P>) {
        if self.config.tag.serves() {
            return;
        }
        self.wake = None;
        if self.gone {
            return;
        }
        let homes = self.homes();
        let again: Vec<P> = self.pending.difference(&self.wanted).cloned().collect();
        for peer in again {
            if !self.rests(now, &peer) {
                self.call(now, &peer, fx);
            }
        }
        if homes >= self.config.links {
            for peer in self.dialled.keys().cloned().collect::<Vec<_>>() {
                self.release(&peer, fx);
            }
        } else {
            let patience = self.config.patience;
            let hopeful = self
                .dialled
                .values()
                .filter(|since| **since + patience > now);
            for _ in homes + hopeful.count()..self.config.links {
                let fit = |peer: &&P| !self.wanted.contains(*peer) && !self.rests(now, peer);
                let next = self.servers.iter().filter(fit).choose(rng).cloned();
                let Some(next) = next.filter(|_| self.dialled.len() < MAX_ATTEMPTS) else {
                    break;
                };
                self.dialled.insert(next.clone(), now);
                self.call(now, &next, fx);
            }
        }
        self.wake = self.next_look(now);
    }

    fn rests(&self, now: Duration, peer: &P) -> bool {
        self.resting.get(peer).is_some_and(|rest| rest.until > now)
    }

    fn next_look(&self, now: Duration) -> Option<Duration> {
        if self.homes() >= self.config.links && self.pending.is_empty() {
            return None;
        }
        let patience = self.config.patience;
        let slow = self.dialled.values().map(|since| *since + patience);
        let rested = self.resting.values().map(|rest| rest.until);
        slow.chain(rested).filter(|at| *at > now).min()
    }
}
