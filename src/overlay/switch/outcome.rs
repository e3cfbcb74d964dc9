//! What comes of events: messages of other nodes, and what the overlays want.

use super::*;

impl<P: Peer> Switch<P> {
    /// Has the current overlay answer the user.
    pub(super) fn ask(
        &mut self,
        now: Duration,
        event: Event<P, Vec<u8>>,
        rng: &mut dyn Rng,
        effects: &mut Effects<Self>,
    ) -> Result<(), Error> {
        let outcome = self.feed(now, Side::Current, event, rng, effects);
        self.settle(now, rng, effects)?;
        outcome
    }

    /// Feeds the overlays until there is nothing left to tell them. An error is that of a message that was refused.
    pub(super) fn settle(
        &mut self,
        now: Duration,
        rng: &mut dyn Rng,
        effects: &mut Effects<Self>,
    ) -> Result<(), Error> {
        let mut outcome = Ok(());
        while let Some((side, event)) = self.events.pop_front() {
            // What the user has asked is the current overlay's to refuse; see `ask`.
            let from_peer = matches!(event, Event::Message { .. });
            if let Err(error) = self.feed(now, side, event, rng, effects)
                && from_peer
            {
                outcome = Err(error);
            }
        }
        if std::mem::take(&mut self.left) {
            self.reset(effects);
        }
        if !self.complete {
            let linked = |peer: &P| *peer == self.own || self.current.is_linked(peer);
            self.complete = self.old.is_none() && self.current.overlay.members().iter().all(linked);
        }
        outcome
    }

    fn feed(
        &mut self,
        now: Duration,
        side: Side,
        event: Event<P, Vec<u8>>,
        rng: &mut dyn Rng,
        effects: &mut Effects<Self>,
    ) -> Result<(), Error> {
        let Some(live) = self.live(side) else {
            return Ok(());
        };
        let mut wishes = Vec::new();
        let outcome = live.overlay.handle(now, event, rng, &mut wishes);
        for wish in wishes {
            self.grant(side, wish, effects);
        }
        outcome
    }

    // What an overlay wants, as far as the other one leaves it to be done.
    pub(super) fn grant(
        &mut self,
        side: Side,
        wish: Effect<P, Vec<u8>>,
        effects: &mut Effects<Self>,
    ) {
        let others = match self.live(side.other()) {
            Some(other) => match &wish {
                Effect::NeighborUp(p) | Effect::NeighborDown(p) => other.neighbors.contains(p),
                Effect::Release(p) => other.wanted.contains(p) || other.has_link(p),
                _ => false,
            },
            None => false,
        };
        let Some(live) = self.live(side) else {
            return;
        };
        match wish {
            Effect::Send { to: peer, message } => {
                if live.is_linked(&peer) {
                    effects.push(to(&peer, live.epoch, Body::Inner(message)));
                }
            }
            Effect::Want(peer) => {
                live.wanted.replace(peer.clone());
                effects.push(Effect::Want(peer.clone()));
                self.open(side, &peer, effects);
                self.asked.replace(peer);
            }
            Effect::Release(peer) => {
                live.wanted.remove(&peer);
                live.reopen.remove(&peer);
                if others {
                    // The host's link stays until the old overlay ends.
                    if let Some(link) = live.links.get_mut(&peer)
                        && link.phase != Phase::Released
                    {
                        link.phase = Phase::Released;
                        let link = link.number;
                        effects.push(to(&peer, live.epoch, Body::Release { link }));
                    }
                } else {
                    for side in SIDES {
                        if let Some(live) = self.live(side) {
                            live.links.remove(&peer);
                        }
                    }
                    self.asked.remove(&peer);
                    effects.push(Effect::Release(peer));
                }
            }
            Effect::NeighborUp(peer) => {
                live.neighbors.insert(peer.clone());
                if !others {
                    effects.push(Effect::NeighborUp(peer));
                }
            }
            Effect::NeighborDown(peer) => {
                live.neighbors.remove(&peer);
                if !others {
                    effects.push(Effect::NeighborDown(peer));
                }
            }
            Effect::MembersChanged => effects.push(Effect::MembersChanged),
            Effect::Persist(bytes) => {
                if side == Side::Current {
                    effects.push(Effect::Persist(self.sealed(&bytes)));
                }
            }
            Effect::Joined(peer) => effects.push(Effect::Joined(peer)),
            Effect::Left => {
                self.left = true;
                effects.push(Effect::Left);
            }
        }
    }

    pub(super) fn open(&mut self, side: Side, peer: &P, effects: &mut Effects<Self>) {
        if let Some(live) = self.live(side)
            && let Some(link) = live.open(peer)
        {
            effects.push(to(peer, live.epoch, Body::Hello { link }));
        }
    }

    pub(super) fn reopen(&mut self, now: Duration, side: Side, effects: &mut Effects<Self>) {
        let Some(live) = self.live(side) else {
            return;
        };
        let due = live.reopen.iter().filter(|(_, at)| **at <= now);
        let due: Vec<P> = due.map(|(peer, _)| peer.clone()).collect();
        for peer in due {
            self.open(side, &peer, effects);
        }
    }

    /// The host's link with a node is down.
    pub(super) fn unlinked(&mut self, side: Side, peer: &P, how: Down) {
        let Some(live) = self.live(side) else {
            return;
        };
        let event = match live.links.remove(peer).map(|link| link.phase) {
            Some(Phase::Up) => Event::LinkDown(peer.clone(), how),
            // Whoever goes without a word was not there.
            Some(Phase::Opening) if live.wanted.contains(peer) => Event::LinkFailed(peer.clone()),
            _ => return,
        };
        self.events.push_back((side, event));
    }

    pub(super) fn heard(
        &mut self,
        now: Duration,
        from: P,
        Message { epoch, body }: Message<P>,
        effects: &mut Effects<Self>,
    ) -> Result<(), Error> {
        if !self.current.links.contains_key(&from) {
            return Ok(());
        }
        if let Body::Runs { overlay, follow } = body {
            return self.heard_of(now, from, epoch, &overlay, follow, effects);
        }
        // Of an overlay that has ended here.
        let Some(side) = self.side_of(epoch) else {
            return Ok(());
        };
        let Some(live) = self.live(side) else {
            return Ok(());
        };
        let wanted = live.wanted.contains(&from);
        let Some(link) = live.links.get_mut(&from) else {
            return Ok(());
        };
        let mut events = Vec::new();
        match body {
            Body::Hello { link: number } => match number.cmp(&link.number) {
                Ordering::Less => {}
                Ordering::Equal if link.phase == Phase::Opening => {
                    link.phase = Phase::Up;
                    events.push(Event::LinkUp(from));
                }
                Ordering::Equal => {}
                Ordering::Greater => {
                    if link.phase == Phase::Up {
                        events.push(Event::LinkDown(from.clone(), Down::Planned));
                    }
                    link.number = number;
                    link.phase = Phase::Up;
                    let hello = Body::Hello { link: number };
                    effects.push(to(&from, epoch, hello));
                    events.push(Event::LinkUp(from));
                }
            },
            Body::Release { link: number } if number == link.number => {
                match std::mem::replace(&mut link.phase, Phase::Released) {
                    Phase::Up => events.push(Event::LinkDown(from.clone(), Down::Planned)),
                    Phase::Opening if wanted => events.push(Event::LinkFailed(from.clone())),
                    _ => {}
                }
                if wanted {
                    live.reopen.insert(from, now + REOPEN);
                }
            }
            Body::Inner(message) if link.phase == Phase::Up => {
                events.push(Event::Message { from, message });
            }
            _ => {}
        }
        self.events.extend(events.into_iter().map(|e| (side, e)));
        Ok(())
    }

    // A node says what it runs.
    fn heard_of(
        &mut self,
        now: Duration,
        from: P,
        epoch: Epoch,
        overlay: &str,
        follow: Option<P>,
        effects: &mut Effects<Self>,
    ) -> Result<(), Error> {
        match epoch.cmp(&self.current.epoch) {
            Ordering::Less => Ok(()),
            Ordering::Equal if overlay != self.name_of(&self.current) => Err(Error::OtherOverlay {
                theirs: overlay.to_owned(),
                ours: self.name_of(&self.current),
            }),
            Ordering::Equal => {
                if !self.is_entry(self.current.choice) && self.follow.is_none() {
                    self.follow = follow.or(Some(from)).filter(|peer| *peer != self.own);
                }
                Ok(())
            }
            Ordering::Greater => {
                let choice = self.choice(overlay)?;
                let join = follow.unwrap_or(from);
                self.begin(now, epoch, choice, Some(join), effects);
                Ok(())
            }
        }
    }
}
