//! How views come about, and how nodes leave them.

use std::time::Duration;

use rand::{Rng, RngExt};

use super::message::Message;
use super::state::{Fx, Link, Scamp, peer_of};
use crate::limits::*;
use crate::overlay::contract::{Effect, Peer};

/// A subscription that has not been answered.
#[derive(Clone, Debug)]
pub(super) struct Joining<P> {
    pub(super) peer: P,
    /// When it has failed, or is tried again.
    pub(super) until: Duration,
    waits: bool,
    tries: u8,
    /// The user has asked for it, and is told.
    by_user: bool,
}

impl<P: Peer> Scamp<P> {
    /// Subscribes through a node.
    pub(super) fn join(&mut self, now: Duration, peer: P, by_user: bool, fx: Fx<'_, P>) {
        self.gone = false;
        let neighbour = self
            .find(&peer)
            .is_some_and(|l| l.up && (l.kept || l.keeps));
        if neighbour && by_user {
            fx.push(Effect::Joined(peer));
            return;
        }
        if self.joining.iter().any(|joining| joining.peer == peer)
            || self.joining.len() >= MAX_PENDING_JOINS
        {
            return;
        }
        self.joining.push(Joining {
            peer: peer.clone(),
            until: now + self.config.request_timeout,
            waits: false,
            tries: 0,
            by_user,
        });
        self.keep(now, &peer, fx);
    }

    /// Takes a node into the partial view.
    fn keep(&mut self, now: Duration, peer: &P, fx: Fx<'_, P>) {
        let until = now + self.config.request_timeout;
        let link = self.entry(peer);
        link.kept = true;
        fx.push(Effect::Want(peer.clone()));
        match link.up {
            true => self.greet(now, peer, fx),
            false => link.until = Some(until),
        }
    }

    /// Tells a node with a link that it is in the partial view.
    pub(super) fn greet(&mut self, now: Duration, peer: &P, fx: Fx<'_, P>) {
        let until = now + self.config.request_timeout;
        let mut joining = self.joining.iter_mut();
        let message = match joining.find(|joining| joining.peer == *peer) {
            Some(joining) => {
                joining.waits = false;
                joining.until = until;
                Message::Subscribe
            }
            None => Message::Keep,
        };
        let to = peer.clone();
        fx.push(Effect::Send { to, message });
        self.show(peer, fx);
    }

    /// A contact can't be reached: the next try is later each time.
    pub(super) fn not_joined(&mut self, now: Duration, peer: &P, rng: &mut dyn Rng) {
        self.joining
            .retain(|joining| joining.by_user || joining.peer != *peer);
        for joining in self.joining.iter_mut().filter(|j| j.peer == *peer) {
            let pause = self.config.request_timeout * (1 << joining.tries.min(4));
            joining.tries = joining.tries.saturating_add(1);
            joining.waits = true;
            joining.until = now + pause.mul_f64(rng.random_range(0.5..1.0));
        }
    }

    /// Goes on with subscriptions that have not been answered.
    pub(super) fn run_joins(&mut self, now: Duration, rng: &mut dyn Rng, fx: Fx<'_, P>) {
        let timeout = self.config.request_timeout;
        let mut late = Vec::new();
        for joining in self.joining.iter_mut().filter(|j| j.until <= now) {
            late.push((joining.peer.clone(), joining.waits));
            joining.waits = false;
            joining.until = now + timeout;
        }
        for (peer, waits) in late {
            match waits {
                true => self.keep(now, &peer, fx),
                false => self.not_joined(now, &peer, rng),
            }
        }
    }

    pub(super) fn on_subscribed(&mut self, from: &P, fx: Fx<'_, P>) {
        self.joining.retain(|joining| {
            let done = joining.peer == *from;
            if done && joining.by_user {
                fx.push(Effect::Joined(from.clone()));
            }
            !done
        });
    }

    /// A random node of the partial view with a link, which is not `but`.
    fn any(&self, but: &P, rng: &mut dyn Rng) -> Option<P> {
        let able = |link: &&Link<P>| link.kept && link.up && link.peer != *but;
        match self.links.iter().filter(able).count() {
            0 => None,
            n => {
                let nth = rng.random_range(0..n);
                self.links.iter().filter(able).nth(nth).map(peer_of)
            }
        }
    }

    /// The contact's part: a copy for each node in view, and a few more.
    pub(super) fn on_subscribe(
        &mut self,
        now: Duration,
        from: P,
        rng: &mut dyn Rng,
        fx: Fx<'_, P>,
    ) {
        // Each makes hundreds of messages. Whoever is not answered asks again.
        let micros = now.as_micros() as u64;
        if !self.subscriptions.spend(SUBSCRIPTIONS, 1, micros) {
            return;
        }
        let message = Message::Subscribed;
        let to = from.clone();
        fx.push(Effect::Send { to, message });
        let able = |link: &&Link<P>| link.kept && link.up && link.peer != from;
        let mut receivers: Vec<P> = self.links.iter().filter(able).map(peer_of).collect();
        let copies = (0..self.config.copies).filter_map(|_| self.any(&from, rng));
        receivers.extend(copies.collect::<Vec<_>>());
        if receivers.is_empty() {
            self.keep(now, &from, fx);
        }
        for to in receivers {
            let message = Message::Copy {
                subscriber: from.clone(),
                steps: MAX_SUBSCRIPTION_STEPS,
            };
            fx.push(Effect::Send { to, message });
        }
        self.on_keep(&from, fx);
    }

    pub(super) fn on_copy(
        &mut self,
        now: Duration,
        subscriber: P,
        steps: u8,
        rng: &mut dyn Rng,
        fx: Fx<'_, P>,
    ) {
        let kept = self.links.iter().filter(|link| link.kept);
        let (size, dialled) = kept.fold((0, 0), |(size, dialled), link| {
            (size + 1, dialled + usize::from(!link.up))
        });
        let fits = subscriber != self.own
            && size < MAX_PARTIAL_VIEW
            && dialled < MAX_ATTEMPTS
            && !self.find(&subscriber).is_some_and(|link| link.kept);
        let chosen = rng.random_range(0..=size) == 0;
        let next = match steps {
            0 => None,
            _ if fits && chosen => None,
            _ => self.any(&subscriber, rng),
        };
        match next {
            Some(to) => {
                let steps = steps - 1;
                let message = Message::Copy { subscriber, steps };
                fx.push(Effect::Send { to, message });
            }
            None if fits => self.keep(now, &subscriber, fx),
            None => {}
        }
    }

    /// The sender has this node in its partial view.
    pub(super) fn on_keep(&mut self, from: &P, fx: Fx<'_, P>) {
        let full = self.in_view().count() >= MAX_IN_VIEW;
        let Some(link) = self.find(from) else {
            return;
        };
        if !link.keeps && full {
            // It hears by the end of the link that it is not.
            self.drop_link(from, fx);
            return;
        }
        if !std::mem::replace(&mut link.keeps, true) && !link.kept {
            fx.push(Effect::Want(from.clone()));
        }
        self.show(from, fx);
    }

    pub(super) fn leave(&mut self, fx: Fx<'_, P>) {
        let kept: Vec<P> = self.partial_view().cloned().collect();
        let in_view: Vec<P> = self.in_view().cloned().collect();
        let replaced = in_view.len().saturating_sub(self.config.copies + 1);
        for (place, to) in in_view.into_iter().enumerate() {
            let mut others = kept.iter().cycle().skip(place).take(kept.len());
            let instead = others
                .find(|peer| place < replaced && **peer != to)
                .cloned();
            let message = Message::Leave { instead };
            fx.push(Effect::Send { to, message });
        }
        for peer in self.links.iter().map(peer_of).collect::<Vec<_>>() {
            self.drop_link(&peer, fx);
        }
        self.joining.clear();
        self.known.clear();
        self.next_look = None;
        self.gone = true;
        fx.push(Effect::Left);
    }

    pub(super) fn on_leave(&mut self, now: Duration, from: &P, instead: Option<P>, fx: Fx<'_, P>) {
        self.drop_link(from, fx);
        self.known.retain(|known| known != from);
        if let Some(peer) = instead
            && peer != self.own
            && !self.find(&peer).is_some_and(|link| link.kept)
            && self.partial_view().count() < MAX_PARTIAL_VIEW
        {
            self.keep(now, &peer, fx);
        }
    }

    /// Subscribes again if nobody has this node in view.
    pub(super) fn look(&mut self, now: Duration, rng: &mut dyn Rng, fx: Fx<'_, P>) {
        if self.gone || self.in_view().next().is_some() || !self.joining.is_empty() {
            return;
        }
        let own = self.own.clone();
        if let Some(peer) = self.any(&own, rng) {
            self.join(now, peer, false, fx);
        } else if self.partial_view().next().is_none()
            && let Some(peer) = self.known.pop_front()
        {
            // The next time it is another's turn.
            self.remember(peer.clone());
            self.join(now, peer, false, fx);
        }
    }

    pub(super) fn update_members(
        &mut self,
        now: Duration,
        peers: Vec<P>,
        rng: &mut dyn Rng,
        fx: Fx<'_, P>,
    ) {
        let known: Vec<P> = peers.into_iter().take(MAX_KNOWN_NAMES).collect();
        let contacts: Vec<&P> = known.iter().filter(|peer| **peer != self.own).collect();
        if self.links.is_empty() && !contacts.is_empty() {
            let contact = contacts[rng.random_range(0..contacts.len())].clone();
            self.join(now, contact, true, fx);
        }
        known.into_iter().for_each(|peer| self.remember(peer));
    }
}
