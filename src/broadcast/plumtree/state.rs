//! The state machine.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;

use super::Config;
use super::cache::Cache;
use super::links::{Links, push_range};
use super::messages::{Have, Message, Of, Want};
use super::missing::{Announcer, Entry, Missing};
use super::shaper::Shaper;
use super::trees::{Row, Trees, set_bit, slots};
use crate::broadcast::seen::{At, Seen, key_of};
use crate::broadcast::{Broadcast, Effect, Error, Event};
use crate::limits::{
    MAX_BROADCAST_BYTES, MAX_BROADCAST_CACHE, MAX_BROADCAST_HOPS, MAX_BROADCAST_IDS,
    MAX_BROADCAST_MISSING_OF_PEER, MAX_BROADCAST_SEQUENCE, MAX_BROADCAST_STRANGERS,
};
use crate::overlay::Peer;
use crate::overlay::codec::DecodeError;

/// What is to be asked of each neighbour at the end of an event.
type Grafts<P> = BTreeMap<u16, Vec<Want<P>>>;

/// Plumtree, as one node runs it.
#[derive(Clone)]
pub struct Plumtree<P> {
    pub(super) config: Config,
    pub(super) own: P,
    pub(super) life: u64,
    own_key: u64,
    sequence: u64,
    pub(super) links: Links<P>,
    pub(super) trees: Trees<P>,
    pub(super) seen: Seen,
    pub(super) cache: Cache<P>,
    pub(super) missing: Missing<P>,
    shaper: Shaper,
    /// When the next batch of announcements leaves.
    flush: Option<u64>,
    /// Who has sent something before it was a neighbour.
    pub(super) strangers: BTreeSet<P>,
}

/// A broadcast that this node has.
struct Item<P> {
    key: u64,
    of: Of<P>,
    sequence: u64,
    hops: u16,
    payload: Bytes,
}

/// Neighbours that need no payload.
#[derive(Clone, Copy, Default)]
struct Spared<'a> {
    /// The one that has sent it.
    from: Option<u16>,
    /// Those that have announced it.
    have: &'a [Announcer],
    /// The one that it was expected from, although it came from elsewhere: it gets an announcement.
    parent: Option<u16>,
    /// All get an announcement: it was missing here for long, and they may have had it.
    all: bool,
}

type Out<P> = Vec<Effect<P, Message<P>>>;

fn micros(time: Duration) -> u64 {
    time.as_micros() as u64
}

impl<P: Peer> Plumtree<P> {
    /// A node without neighbours. `life` is greater than in all earlier lives of `own`.
    pub fn new(config: Config, own: P, life: u64) -> Self {
        Self {
            own_key: key_of(&own, life),
            sequence: 0,
            links: Links::new(),
            trees: Trees::new(config.max_trees),
            seen: Seen::new(config.max_roots),
            cache: Cache::new(
                config.cache_entries,
                config.cache_bytes,
                micros(config.cache_time),
            ),
            missing: Missing::new(),
            shaper: Shaper::default(),
            flush: None,
            strangers: BTreeSet::new(),
            config,
            own,
            life,
        }
    }

    fn send(&self, slot: u16, message: Message<P>, out: &mut Out<P>) {
        if let Some(link) = self.links.get(slot) {
            let to = link.peer.clone();
            out.push(Effect::Send { to, message });
        }
    }

    fn neighbor_up(&mut self, peer: P, now: u64, out: &mut Out<P>) {
        if peer == self.own || self.links.slot(&peer).is_some() {
            return;
        }
        let again = self.strangers.remove(&peer);
        let Some(slot) = self.links.add(peer) else {
            return;
        };
        self.trees.widen(self.links.width());
        if let Some(row) = self.trees.find(self.own_key, false) {
            self.trees.set(row, slot, true);
        }
        self.announce_all(slot, again, now, out);
    }

    fn neighbor_down(&mut self, peer: &P, now: u64, grafts: &mut Grafts<P>) {
        let Some(slot) = self.links.remove(peer) else {
            return;
        };
        let via = |key| self.seen.find(key).and_then(|at| self.seen.via(at));
        let cut = self.trees.keys().filter(|(key, _)| via(*key) == Some(slot));
        let cut: Vec<(u64, Of<P>)> = cut.map(|(key, of)| (key, of.clone())).collect();
        self.trees.clear_slot(slot);
        self.seen.forget_via(slot);
        self.missing.forget(slot, now);
        let orphans: Vec<u32> = self
            .missing
            .iter()
            .filter(|(_, m)| !m.was_asked() && !self.is_expected(m.key, m.of.common, None))
            .map(|(at, _)| at)
            .collect();
        for at in orphans {
            self.ask(at, now, grafts);
        }
        for (key, of) in cut {
            self.mend(key, of, grafts);
        }
    }

    /// The neighbour is gone from which the broadcasts of this root came: one that had the newest as well is to send the
    /// next one. It may have lost its own way too, or its way may lead over here: so nothing is expected from it until
    /// something has come, and if somebody else announces the next one first that one is asked at once.
    fn mend(&mut self, key: u64, of: Of<P>, grafts: &mut Grafts<P>) {
        let Some(row) = self.trees.find(key, false) else {
            return;
        };
        let lost = self
            .seen
            .find(key)
            .is_some_and(|at| self.seen.via(at).is_none());
        if lost && let Some(spare) = self.trees.take_spare(row) {
            self.trees.set(row, spare, true);
            let (eager, first, count) = (true, 0, 0);
            let wants = grafts.entry(spare).or_default();
            wants.push(Want {
                of,
                eager,
                first,
                count,
            });
        }
    }

    /// Whether broadcasts of this root are expected from an eager neighbour other than `slot`.
    fn is_expected(&self, key: u64, common: bool, slot: Option<u16>) -> bool {
        let Some(row) = self.trees.find(key, common) else {
            return false;
        };
        match self.seen.find(key).map(|at| self.seen.via(at)) {
            // Their way to this node was lost.
            Some(None) => false,
            Some(Some(via)) if !common => Some(via) != slot && self.trees.is_eager(row, via),
            // Any link of the common tree may bring them: it may have another shape by now.
            _ => common && slots(self.trees.row(row).iter().copied()).any(|s| Some(s) != slot),
        }
    }

    /// Whether duplicates of this root prune.
    fn shapes(&mut self, key: u64, common: bool, now: u64) -> bool {
        !common || self.shaper.is(key, now)
    }

    fn broadcast(&mut self, payload: Bytes, now: u64, out: &mut Out<P>) -> Result<(), Error> {
        if payload.len() > MAX_BROADCAST_BYTES {
            return Err(Error::TooLarge {
                bytes: payload.len(),
                limit: MAX_BROADCAST_BYTES,
            });
        }
        if self.sequence >= MAX_BROADCAST_SEQUENCE {
            return Err(Error::Message(DecodeError::Bad("number of a broadcast")));
        }
        self.sequence += 1;
        let own_tree = self.trees.find(self.own_key, false).is_some();
        // All nodes see the broadcasts of all roots, so if there is no room here there is none
        // elsewhere.
        let disuse = 8 * self.config.max_trees as u64;
        let of = Of {
            root: self.own.clone(),
            life: self.life,
            common: self.config.common_tree || !own_tree && !self.trees.has_room(disuse),
        };
        let row = match self.trees.find(self.own_key, of.common) {
            Some(row) => row,
            None => self
                .trees
                .create(self.own_key, of.clone(), self.links.present()),
        };
        let renewed = of.common && self.shaper.renews(self.own_key, now);
        if renewed || self.trees.row(row).iter().all(|word| *word == 0) {
            self.trees.set_all(row, self.links.present());
        }
        let item = Item {
            key: self.own_key,
            of,
            sequence: self.sequence,
            hops: 0,
            payload,
        };
        self.pass_on(row, Spared::default(), item, now, out);
        Ok(())
    }

    fn gossip(&mut self, slot: u16, item: Item<P>, now: u64, out: &mut Out<P>) {
        let (key, common, sequence) = (item.key, item.of.common, item.sequence);
        let known = self.seen.find(key);
        if key == self.own_key || known.is_some_and(|at| self.seen.has(at, sequence)) {
            if self.shapes(key, common, now) {
                self.duplicate(slot, known, item, out);
            }
            return;
        }
        let link = self.links.get_mut(slot);
        if known.is_none() && !link.is_some_and(|link| link.may_introduce(now)) {
            return;
        }
        let newest = known.is_none_or(|at| sequence > self.seen.top(at));
        let history = MAX_BROADCAST_CACHE as u64;
        let at = self.seen.insert(key, sequence, history, now);
        let waiting = self.missing.find(key, sequence);
        let waiting = waiting.and_then(|m| self.take_missing(m));
        let have = waiting.as_ref().map_or(&[][..], |w| w.announcers());
        out.push(Effect::Deliver {
            id: item.of.id(sequence),
            payload: item.payload.clone(),
            hops: item.hops.into(),
        });
        let row = match self.trees.find(key, common) {
            Some(row) => row,
            None => {
                // Those who have announced it take this link to be lazy.
                let mut eager = self.links.present().to_vec();
                for announcer in have {
                    set_bit(&mut eager, announcer.slot, false);
                }
                set_bit(&mut eager, slot, true);
                self.trees.create(key, item.of.clone(), &eager)
            }
        };
        self.trees.touch(row);
        if newest {
            self.trees.renew(row, item.hops);
        }
        if common && self.shaper.renews(key, now) {
            self.trees.set_all(row, self.links.present());
        }
        let via = self.seen.via(at);
        let via = via.filter(|via| self.trees.is_eager(row, *via));
        let parent = if !newest && via.is_some() {
            // An old one that was lost somewhere says nothing about the tree as it is now.
            via
        } else if self.shapes(key, common, now) {
            self.adopt((row, at), slot, &item, waiting.as_ref(), now, out)
        } else {
            self.seen.set_via(at, slot);
            None
        };
        if newest {
            let via = self.seen.via(at);
            for announcer in have.iter().filter(|a| Some(a.slot) != via) {
                self.trees.note_spare(row, announcer.slot, announcer.hops);
            }
        }
        let spared = Spared {
            from: Some(slot),
            have,
            parent,
            all: !newest && waiting.as_ref().is_some_and(|w| w.was_asked()),
        };
        self.pass_on(row, spared, item, now, out);
    }

    /// Decides from which neighbour the next broadcast of this root is expected. Returns it if
    /// that remains another one.
    fn adopt(
        &mut self,
        (row, at): (Row, At),
        slot: u16,
        item: &Item<P>,
        waiting: Option<&Entry<P>>,
        now: u64,
        out: &mut Out<P>,
    ) -> Option<u16> {
        let of = &item.of;
        if self.trees.is_eager(row, slot) {
            self.seen.set_via(at, slot);
            if let Some(better) = waiting.and_then(|w| self.better(w, slot, item.hops, now)) {
                self.trees.set(row, better, true);
                self.trees.set(row, slot, false);
                self.seen.set_via(at, better);
                self.send(better, stay_eager(of), out);
                self.send(slot, Message::Prune(of.clone()), out);
            }
            return None;
        }
        let parent = self
            .seen
            .via(at)
            .filter(|via| self.trees.is_eager(row, *via));
        if parent.is_some() && !of.common {
            // The tree stands: this came while a PRUNE was under way, or was asked for.
            if !waiting.is_some_and(|w| w.was_asked()) {
                self.send(slot, Message::Prune(of.clone()), out);
            }
            return parent;
        }
        self.trees.set(row, slot, true);
        self.seen.set_via(at, slot);
        self.send(slot, stay_eager(of), out);
        None
    }

    /// An announcer that would have been so much better than the sender that it shall take its
    /// place.
    fn better(&self, waiting: &Entry<P>, slot: u16, hops: u16, now: u64) -> Option<u16> {
        if waiting.was_asked() {
            return None;
        }
        let others = || waiting.announcers().iter().filter(|a| a.slot != slot);
        let nearest = others().min_by_key(|a| a.hops)?;
        if hops
            >= nearest
                .hops
                .saturating_add(1)
                .saturating_add(self.config.optimise_hops)
        {
            return Some(nearest.slot);
        }
        let lag = micros(self.config.optimise_lag);
        let late = now.saturating_sub(waiting.since) >= lag;
        let first = others().next()?;
        (late && !waiting.of.common).then_some(first.slot)
    }

    fn duplicate(&mut self, slot: u16, at: Option<At>, item: Item<P>, out: &mut Out<P>) {
        if let Some(row) = self.trees.find(item.key, item.of.common) {
            let expected = at.and_then(|at| self.seen.via(at)) == Some(slot);
            if expected && self.trees.is_eager(row, slot) {
                return;
            }
            if at.is_some_and(|at| self.seen.top(at) == item.sequence) {
                self.trees
                    .note_spare(row, slot, item.hops.saturating_sub(1));
            }
            self.trees.set(row, slot, false);
        }
        self.send(slot, Message::Prune(item.of), out);
    }

    /// Sends a new payload to eager neighbours, and promises to announce it to lazy ones, but not
    /// to those who have it.
    fn pass_on(&mut self, row: Row, spared: Spared<'_>, item: Item<P>, now: u64, out: &mut Out<P>) {
        let Item {
            key,
            of,
            sequence,
            hops,
            payload,
        } = item;
        let far = u32::from(hops) >= MAX_BROADCAST_HOPS;
        let has_it = |slot| Some(slot) == spared.from || spared.have.iter().any(|a| a.slot == slot);
        let eager = self.trees.row(row).iter().copied();
        for slot in slots(eager).filter(|_| !spared.all) {
            if let Some(link) = self.links.get(slot)
                && !has_it(slot)
                && Some(slot) != spared.parent
                && !far
            {
                out.push(Effect::Send {
                    to: link.peer.clone(),
                    message: Message::Gossip {
                        of: of.clone(),
                        sequence,
                        hops: hops + 1,
                        payload: payload.clone(),
                    },
                });
            }
        }
        let mut promised = false;
        for word in 0..self.links.present().len() {
            let eager = self.trees.row(row).get(word).copied();
            let eager = eager.filter(|_| !spared.all).unwrap_or(0);
            let lazy = self.links.present()[word] & !eager;
            let lazy = slots([lazy]).map(|s| s + 64 * word as u16);
            let parent = spared
                .parent
                .filter(|s| !spared.all && usize::from(*s) / 64 == word);
            for slot in lazy.chain(parent) {
                if let Some(link) = self.links.get_mut(slot)
                    && !has_it(slot)
                    && !far
                {
                    link.announce(&of, sequence, hops);
                    promised = true;
                    if link.outbox_ids >= MAX_BROADCAST_IDS {
                        let (to, have) = (link.peer.clone(), std::mem::take(&mut link.outbox));
                        link.outbox_ids = 0;
                        let message = Message::Announce { again: false, have };
                        out.push(Effect::Send { to, message });
                    }
                }
            }
        }
        if promised && self.flush.is_none() {
            self.flush = Some(now + micros(self.config.announce_delay));
        }
        self.cache.insert((key, of, sequence), hops, payload, now);
    }

    fn announced(&mut self, slot: u16, have: Vec<Have<P>>, now: u64, grafts: &mut Grafts<P>) {
        for have in have {
            let key = key_of(&have.of.root, have.of.life);
            if key == self.own_key {
                continue;
            }
            let known = self.seen.find(key);
            let announcer = Announcer {
                slot,
                hops: have.hops,
            };
            for sequence in have.first..have.first + u64::from(have.count) {
                if let Some(at) = known.filter(|at| self.seen.has(*at, sequence)) {
                    if sequence == self.seen.top(at)
                        && self.seen.via(at) != Some(slot)
                        && let Some(row) = self.trees.find(key, have.of.common)
                    {
                        self.trees.note_spare(row, slot, have.hops);
                    }
                    continue;
                }
                if let Some(at) = self.missing.find(key, sequence) {
                    self.missing.add(at, announcer);
                    continue;
                }
                let Some(link) = self.links.get_mut(slot) else {
                    return;
                };
                if link.owns >= MAX_BROADCAST_MISSING_OF_PEER || self.missing.is_full() {
                    return;
                }
                link.owns += 1;
                let due = now + micros(self.config.graft_after);
                let id = (key, have.of.clone(), sequence);
                let at = self.missing.insert(id, announcer, now, due);
                // If the very neighbour that it is expected from announces it, it takes the
                // link to be lazy.
                if !self.is_expected(key, have.of.common, Some(slot)) {
                    self.ask(at, now, grafts);
                }
            }
        }
    }

    fn take_missing(&mut self, at: u32) -> Option<Entry<P>> {
        let entry = self.missing.remove(at)?;
        if let Some(link) = entry.owner().and_then(|slot| self.links.get_mut(slot)) {
            link.owns = link.owns.saturating_sub(1);
        }
        Some(entry)
    }

    /// Asks the next announcer for a missing broadcast, or gives it up.
    fn ask(&mut self, at: u32, now: u64, grafts: &mut Grafts<P>) {
        let due = now + micros(self.config.graft_next);
        let Some(announcer) = self.missing.ask(at, due) else {
            self.take_missing(at);
            return;
        };
        let Some(missing) = self.missing.get(at) else {
            return;
        };
        let slot = announcer.slot;
        let known = self.seen.find(missing.key);
        // An old one says nothing about the tree as it is now.
        let newest = known.is_none_or(|at| missing.sequence > self.seen.top(at));
        let (key, common) = (missing.key, missing.of.common);
        let eager = newest || !self.is_expected(key, common, None);
        if eager && let Some(at) = known {
            self.seen.set_via(at, slot);
        }
        if eager && let Some(row) = self.trees.find(key, common) {
            self.trees.set(row, slot, true);
            if common {
                // One new link is enough for all roots that a lost one has brought.
                self.seen.set_lost_via(slot);
            }
        }
        let wants = grafts.entry(slot).or_default();
        if let Some(last) = wants.last_mut()
            && last.first + u64::from(last.count) == missing.sequence
            && last.eager == eager
            && usize::from(last.count) < MAX_BROADCAST_IDS
            && last.of == missing.of
        {
            last.count += 1;
            return;
        }
        wants.push(Want {
            of: missing.of.clone(),
            eager,
            first: missing.sequence,
            count: 1,
        });
    }

    fn graft(&mut self, slot: u16, wants: Vec<Want<P>>, now: u64, out: &mut Out<P>) {
        for want in wants {
            let key = key_of(&want.of.root, want.of.life);
            if want.eager {
                let known = key == self.own_key || self.seen.find(key).is_some();
                let row = match self.trees.find(key, want.of.common) {
                    None if known => Some(self.trees.create(
                        key,
                        want.of.clone(),
                        self.links.present(),
                    )),
                    row => row,
                };
                if let Some(row) = row {
                    self.trees.set(row, slot, true);
                }
            }
            for sequence in want.first..want.first + u64::from(want.count) {
                let Some(entry) = self.cache.get(key, sequence) else {
                    continue;
                };
                let Some(link) = self.links.get_mut(slot) else {
                    return;
                };
                if !link.may_have(entry.payload.len(), now) {
                    return;
                }
                out.push(Effect::Send {
                    to: link.peer.clone(),
                    message: Message::Gossip {
                        of: entry.of.clone(),
                        sequence,
                        hops: entry.hops + 1,
                        payload: entry.payload.clone(),
                    },
                });
            }
        }
    }

    /// Announces all that is in the cache.
    fn announce_all(&mut self, slot: u16, mut again: bool, now: u64, out: &mut Out<P>) {
        let cost = self.cache.len() * 64;
        let Some(link) = self.links.get_mut(slot) else {
            return;
        };
        if !link.may_have(cost, now) {
            return;
        }
        let mut all: Vec<_> = self
            .cache
            .iter()
            .filter(|e| u32::from(e.hops) < MAX_BROADCAST_HOPS)
            .map(|e| (&e.of.root, e.of.life, e.sequence, &e.of, e.hops))
            .collect();
        all.sort_unstable_by_key(|e| (e.0, e.1, e.2));
        for part in all.chunks(MAX_BROADCAST_IDS) {
            let mut have = Vec::new();
            for (_, _, sequence, of, hops) in part {
                push_range(&mut have, of, *sequence, *hops);
            }
            let message = Message::Announce { again, have };
            self.send(slot, message, out);
            again = false;
        }
        if again {
            let have = Vec::new();
            self.send(slot, Message::Announce { again, have }, out);
        }
    }

    fn message(
        &mut self,
        from: P,
        message: Message<P>,
        now: u64,
        grafts: &mut Grafts<P>,
        out: &mut Out<P>,
    ) -> Result<(), Error> {
        message.check().map_err(Error::Message)?;
        let Some(slot) = self.links.slot(&from) else {
            if self.strangers.len() >= MAX_BROADCAST_STRANGERS {
                self.strangers.pop_first();
            }
            self.strangers.insert(from);
            return Ok(());
        };
        match message {
            Message::Gossip {
                of,
                sequence,
                hops,
                payload,
            } => {
                let item = Item {
                    key: key_of(&of.root, of.life),
                    of,
                    sequence,
                    hops,
                    payload,
                };
                self.gossip(slot, item, now, out);
            }
            Message::Announce { again, have } => {
                if again {
                    self.announce_all(slot, false, now, out);
                }
                self.announced(slot, have, now, grafts);
            }
            Message::Graft(wants) => self.graft(slot, wants, now, out),
            Message::Prune(of) => {
                let key = key_of(&of.root, of.life);
                if let Some(row) = self.trees.find(key, of.common) {
                    self.trees.set(row, slot, false);
                }
            }
        }
        Ok(())
    }

    fn tick(&mut self, now: u64, grafts: &mut Grafts<P>, out: &mut Out<P>) {
        if self.flush.is_some_and(|at| at <= now) {
            self.flush = None;
            for link in self.links.iter_mut() {
                if !link.outbox.is_empty() {
                    link.outbox_ids = 0;
                    let (to, have) = (link.peer.clone(), std::mem::take(&mut link.outbox));
                    let message = Message::Announce { again: false, have };
                    out.push(Effect::Send { to, message });
                }
            }
        }
        while let Some(at) = self.missing.next_due(now) {
            self.ask(at, now, grafts);
        }
        if self.cache.deadline().is_some_and(|at| at <= now) {
            self.cache.expire(now);
        }
        self.seen.expire(now);
    }
}

fn stay_eager<P: Clone>(of: &Of<P>) -> Message<P> {
    Message::Graft(vec![Want {
        of: of.clone(),
        eager: true,
        first: 0,
        count: 0,
    }])
}

impl<P: Peer> Broadcast for Plumtree<P> {
    type Peer = P;
    type Message = Message<P>;

    fn handle(
        &mut self,
        now: Duration,
        event: Event<P, Message<P>>,
        _rng: &mut dyn Rng,
        effects: &mut Out<P>,
    ) -> Result<(), Error> {
        let now = micros(now);
        let mut grafts = Grafts::new();
        let done = match event {
            Event::NeighborUp(peer) => {
                self.neighbor_up(peer, now, effects);
                Ok(())
            }
            Event::NeighborDown(peer) => {
                self.neighbor_down(&peer, now, &mut grafts);
                Ok(())
            }
            Event::Broadcast(payload) => self.broadcast(payload, now, effects),
            Event::Message { from, message } => {
                self.message(from, message, now, &mut grafts, effects)
            }
            Event::Tick => Ok(()),
        };
        self.tick(now, &mut grafts, effects);
        for (slot, mut wants) in grafts {
            // Each of them names at least one.
            while !wants.is_empty() {
                let mut ids = 0;
                let fits = |want: &&Want<P>| {
                    ids += usize::from(want.count.max(1));
                    ids <= MAX_BROADCAST_IDS
                };
                let n = wants.iter().take_while(fits).count().max(1);
                let rest = wants.split_off(n);
                self.send(slot, Message::Graft(wants), effects);
                wants = rest;
            }
        }
        done
    }

    fn deadline(&self) -> Option<Duration> {
        let due = [
            self.flush,
            self.missing.deadline(),
            self.cache.deadline(),
            self.seen.deadline(),
        ];
        due.into_iter().flatten().min().map(Duration::from_micros)
    }

    fn carries_payload(message: &Message<P>) -> bool {
        matches!(message, Message::Gossip { .. })
    }
}
