//! One node: its views, the links that they need, and how events find their rules.

use std::collections::VecDeque;
use std::time::Duration;

use rand::{Rng, RngExt};

use super::Config;
use super::message::Message;
use super::subscription::Joining;
use crate::limits::{MAX_GOSSIP_RATE, MAX_KNOWN_NAMES};
use crate::overlay::contract::{Down, Effect, Effects, Error, Event, Overlay, Peer};
use crate::rates::{Budget, Window};

/// Another node, with which there is a link or is to be one.
#[derive(Clone)]
pub(super) struct Link<P> {
    pub(super) peer: P,
    /// It is in the partial view.
    pub(super) kept: bool,
    /// It is in the in-view: it has this node in its partial view.
    pub(super) keeps: bool,
    pub(super) up: bool,
    /// The user's program knows it as a neighbour.
    shown: bool,
    /// Until then the link must be up.
    pub(super) until: Option<Duration>,
    rate: Window,
}

/// One node of a SCAMP overlay.
#[derive(Clone)]
pub struct Scamp<P> {
    pub(super) config: Config,
    pub(super) own: P,
    /// In the order of names.
    pub(super) links: Vec<Link<P>>,
    pub(super) joining: Vec<Joining<P>>,
    /// Names to begin with again if all neighbours are lost, the latest last.
    pub(super) known: VecDeque<P>,
    /// The user has left and not joined again.
    pub(super) gone: bool,
    /// When this node looks next whether it is isolated.
    pub(super) next_look: Option<Duration>,
    pub(super) subscriptions: Budget,
    strangers: Window,
}

pub(super) type Fx<'a, P> = &'a mut Vec<Effect<P, Message<P>>>;

impl<P: Peer> Scamp<P> {
    /// A node alone, which is `own`.
    pub fn new(config: Config, own: P) -> Self {
        Self {
            config: config.checked(),
            own,
            links: Vec::new(),
            joining: Vec::new(),
            known: VecDeque::new(),
            gone: false,
            next_look: None,
            subscriptions: Budget::default(),
            strangers: Window::default(),
        }
    }

    /// Nodes that this one has chosen.
    pub fn partial_view(&self) -> impl Iterator<Item = &P> {
        self.links.iter().filter(|link| link.kept).map(|l| &l.peer)
    }

    /// Nodes that have chosen this one.
    pub fn in_view(&self) -> impl Iterator<Item = &P> {
        self.links.iter().filter(|link| link.keeps).map(|l| &l.peer)
    }

    pub(super) fn find(&mut self, peer: &P) -> Option<&mut Link<P>> {
        let at = self.links.binary_search_by(|link| link.peer.cmp(peer));
        self.links.get_mut(at.ok()?)
    }

    /// The link with this node, of which there may have been no mention so far.
    pub(super) fn entry(&mut self, peer: &P) -> &mut Link<P> {
        let at = match self.links.binary_search_by(|link| link.peer.cmp(peer)) {
            Ok(at) => at,
            Err(at) => {
                let link = Link {
                    peer: peer.clone(),
                    kept: false,
                    keeps: false,
                    up: false,
                    shown: false,
                    until: None,
                    rate: Window::default(),
                };
                self.links.insert(at, link);
                at
            }
        };
        &mut self.links[at]
    }

    /// Shows the user's program whether this node is a neighbour.
    pub(super) fn show(&mut self, peer: &P, fx: Fx<'_, P>) {
        let Some(link) = self.find(peer) else {
            return;
        };
        let is = link.up && (link.kept || link.keeps);
        if is != std::mem::replace(&mut link.shown, is) {
            let peer = peer.clone();
            fx.push(match is {
                true => Effect::NeighborUp(peer),
                false => Effect::NeighborDown(peer),
            });
            fx.push(Effect::MembersChanged);
        }
    }

    /// Forgets a node, and gives its link up.
    pub(super) fn drop_link(&mut self, peer: &P, fx: Fx<'_, P>) {
        if let Some(link) = self.find(peer) {
            link.up = false;
            self.show(peer, fx);
            self.links.retain(|link| link.peer != *peer);
        }
        fx.push(Effect::Release(peer.clone()));
    }

    /// Remembers a name.
    pub(super) fn remember(&mut self, peer: P) {
        self.known.retain(|known| *known != peer);
        if peer != self.own {
            self.known.push_back(peer);
        }
        if self.known.len() > MAX_KNOWN_NAMES {
            self.known.pop_front();
        }
    }

    fn link_up(&mut self, now: Duration, peer: P, fx: Fx<'_, P>) {
        if self.gone {
            fx.push(Effect::Release(peer));
            return;
        }
        let link = self.entry(&peer);
        link.peer = peer.clone();
        link.up = true;
        link.until = None;
        if link.kept {
            self.greet(now, &peer, fx);
        }
    }

    fn link_down(&mut self, now: Duration, peer: P, down: Down, rng: &mut dyn Rng, fx: Fx<'_, P>) {
        let timeout = self.config.request_timeout;
        let Some(link) = self.find(&peer) else {
            return;
        };
        link.up = false;
        link.keeps = false;
        if down == Down::Failed && link.kept {
            // It may live: the host dials again.
            link.until = Some(now + timeout);
            self.show(&peer, fx);
        } else {
            self.drop_link(&peer, fx);
            self.not_joined(now, &peer, rng);
            if down == Down::Failed {
                self.remember(peer);
            }
        }
    }

    /// There is no link with this node, and will be none.
    fn unreachable(&mut self, now: Duration, peer: &P, rng: &mut dyn Rng, fx: Fx<'_, P>) {
        if self.find(peer).is_some_and(|link| !link.up) {
            self.drop_link(peer, fx);
            self.not_joined(now, peer, rng);
            self.remember(peer.clone());
        }
    }

    fn message(
        &mut self,
        now: Duration,
        from: P,
        message: Message<P>,
        rng: &mut dyn Rng,
        fx: Fx<'_, P>,
    ) {
        let at = self.links.binary_search_by(|link| link.peer.cmp(&from));
        let Some(link) = at.ok().and_then(|at| self.links.get_mut(at)) else {
            return;
        };
        let neighbour = link.shown;
        let rate = match neighbour {
            true => &mut link.rate,
            false => &mut self.strangers,
        };
        if !link.up {
            return;
        }
        if !rate.allows(now, MAX_GOSSIP_RATE) {
            // A stranger may have said that it keeps this node: it hears that it was in vain.
            if !neighbour {
                self.drop_link(&from, fx);
            }
            return;
        }
        match message {
            Message::Subscribe => self.on_subscribe(now, from, rng, fx),
            Message::Subscribed => self.on_subscribed(&from, fx),
            Message::Copy { subscriber, steps } if neighbour => {
                self.on_copy(now, subscriber, steps, rng, fx);
            }
            Message::Keep => self.on_keep(&from, fx),
            Message::Leave { instead } if neighbour => self.on_leave(now, &from, instead, fx),
            Message::Copy { .. } | Message::Leave { .. } => {}
        }
        if self.next_look.is_none() {
            let within = self.config.interval;
            self.next_look = Some(now + within.mul_f64(rng.random_range(0.5..1.0)));
        }
    }

    fn tick(&mut self, now: Duration, rng: &mut dyn Rng, fx: Fx<'_, P>) {
        let late = |link: &&Link<P>| link.until.is_some_and(|until| until <= now);
        let late: Vec<P> = self.links.iter().filter(late).map(peer_of).collect();
        for peer in late {
            self.unreachable(now, &peer, rng, fx);
        }
        self.run_joins(now, rng, fx);
        if self.next_look.is_some_and(|at| at <= now) {
            self.next_look = Some(now + self.config.interval.mul_f64(rng.random_range(0.9..1.1)));
            self.look(now, rng, fx);
        }
    }
}

pub(super) fn peer_of<P: Clone>(link: &Link<P>) -> P {
    link.peer.clone()
}

impl<P: Peer> Overlay for Scamp<P> {
    type Peer = P;
    type Message = Message<P>;

    fn handle(
        &mut self,
        now: Duration,
        event: Event<P, Message<P>>,
        rng: &mut dyn Rng,
        fx: &mut Effects<Self>,
    ) -> Result<(), Error> {
        match event {
            Event::Join(peer) if peer == self.own => return Err(Error::SelfJoin),
            Event::Join(peer) => self.join(now, peer, true, fx),
            Event::Remove(peer) if peer == self.own => self.leave(fx),
            Event::Leave => self.leave(fx),
            Event::Remove(_) => {
                return Err(Error::Unsupported {
                    overlay: "SCAMP",
                    operation: "remove another node",
                    advice: "let that node leave, or stop it",
                });
            }
            Event::UpdateMembers(peers) => self.update_members(now, peers, rng, fx),
            Event::LinkUp(peer) => self.link_up(now, peer, fx),
            Event::LinkDown(peer, down) => self.link_down(now, peer, down, rng, fx),
            Event::LinkFailed(peer) => self.unreachable(now, &peer, rng, fx),
            Event::Message { from, message } => self.message(now, from, message, rng, fx),
            Event::Tick => self.tick(now, rng, fx),
            Event::SelfChanged(own) if own == self.own => self.own = own,
            Event::SelfChanged(other) => {
                return Err(Error::Renamed {
                    own: format!("{:?}", self.own).into(),
                    other: format!("{other:?}").into(),
                });
            }
            // Nothing is persisted.
            Event::Loaded(_) => {}
        }
        Ok(())
    }

    fn deadline(&self) -> Option<Duration> {
        let links = self.links.iter().filter_map(|link| link.until);
        let joins = self.joining.iter().map(|joining| joining.until);
        links.chain(joins).chain(self.next_look).min()
    }

    fn members(&self) -> Vec<P> {
        let shown = self.links.iter().filter(|link| link.shown).map(peer_of);
        shown.chain([self.own.clone()]).collect()
    }
}
