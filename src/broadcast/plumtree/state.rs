//! The state machine.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;

use super::cache::{Cache, age, born};
use super::core::Core;
use super::links::Links;
use super::messages::{Message, Of, Tree, Want};
use super::missing::{Announcer, Entry, Missing};
use super::trees::{Row, Trees, set_bit, slots};
use super::{Config, micros};
use crate::broadcast::seen::{At, Seen};
use crate::broadcast::{Broadcast, Effect, Error, Event};
use crate::limits::{
    MAX_BROADCAST_BYTES, MAX_BROADCAST_CACHE, MAX_BROADCAST_HOPS, MAX_BROADCAST_IDS,
    MAX_BROADCAST_SEQUENCE, MAX_BROADCAST_STRANGERS,
};
use crate::overlay::Peer;
use crate::overlay::codec::DecodeError;

/// What is to be asked of each neighbour at the end of an event.
pub(super) type Grafts<P> = BTreeMap<u16, Vec<Want<P>>>;

/// Plumtree, as one node runs it.
#[derive(Clone)]
pub struct Plumtree<P> {
    pub(super) config: Config,
    pub(super) own: P,
    pub(super) life: u64,
    pub(super) own_key: u64,
    sequence: u64,
    /// The key of this node's beats.
    pub(super) beat_key: u64,
    core: Core,
    pub(super) links: Links<P>,
    pub(super) trees: Trees<P>,
    pub(super) seen: Seen,
    pub(super) cache: Cache<P>,
    pub(super) missing: Missing<P>,
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
    /// See [`super::cache::Entry::born`].
    born: i64,
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

pub(super) type Out<P> = Vec<Effect<P, Message<P>>>;

impl<P: Peer> Plumtree<P> {
    /// A node without neighbours. `life` is greater than in all earlier lives of `own`.
    pub fn new(config: Config, own: P, life: u64) -> Self {
        Self {
            own_key: own_of(&own, life, Tree::Own).key(),
            sequence: 0,
            beat_key: own_of(&own, life, Tree::Core).key(),
            core: Core::default(),
            links: Links::new(),
            trees: Trees::new(config.max_trees),
            seen: Seen::new(config.max_roots),
            cache: Cache::new(
                config.cache_entries,
                config.cache_bytes,
                micros(config.cache_time),
            ),
            missing: Missing::new(),
            flush: None,
            strangers: BTreeSet::new(),
            config,
            own,
            life,
        }
    }

    pub(super) fn send(&self, slot: u16, message: Message<P>, out: &mut Out<P>) {
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
        let own = self.trees.find(self.own_key, Tree::Own);
        let core = self.trees.find(self.beat_key, Tree::Core);
        for row in own.into_iter().chain(core) {
            self.trees.set(row, slot, true);
        }
        self.announce_all(slot, again, now, out);
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
        let own_tree = self.trees.find(self.own_key, Tree::Own).is_some();
        // All nodes see the broadcasts of all roots, so if there is no room here there is none
        // elsewhere.
        let disuse = 8 * self.config.max_trees as u64;
        let common = self.config.common_tree || !own_tree && !self.trees.has_room(disuse);
        let tree = match common {
            true => Tree::Common,
            false => Tree::Own,
        };
        if common {
            self.core.touch(now);
            if self.core.must_begin(now) {
                self.beat(now, out);
            }
        }
        if let Some(row) = self.trees.find(self.own_key, tree)
            && self.trees.row(row).iter().all(|word| *word == 0)
        {
            self.trees.set_all(row, self.links.present());
        }
        self.begin(tree, self.sequence, payload, now, out);
        Ok(())
    }

    /// Sends what this node itself broadcasts along a tree.
    fn begin(&mut self, tree: Tree, sequence: u64, payload: Bytes, now: u64, out: &mut Out<P>) {
        let of = own_of(&self.own, self.life, tree);
        let key = match tree {
            Tree::Core => self.beat_key,
            Tree::Own | Tree::Common => self.own_key,
        };
        let row = match self.trees.find(key, tree) {
            Some(row) => row,
            None => self.trees.create(key, of.clone(), self.links.present()),
        };
        let item = Item {
            key,
            of,
            sequence,
            hops: 0,
            born: born(0, now),
            payload,
        };
        self.pass_on(row, Spared::default(), item, now, out);
    }

    /// Beats as the core of the common tree, unless nobody uses it any longer.
    fn beat(&mut self, now: u64, out: &mut Out<P>) {
        if let Some(sequence) = self.core.beat(self.beat_key, now) {
            self.begin(Tree::Core, sequence, Bytes::new(), now, out);
        }
    }

    /// Whether this root is of those whose broadcasts this node takes: beats of one core at a time.
    pub(super) fn takes(&self, key: u64, tree: Tree, now: u64) -> bool {
        tree != Tree::Core || self.core.would_follow(key, now)
    }

    fn gossip(&mut self, slot: u16, item: Item<P>, now: u64, out: &mut Out<P>) {
        let (key, tree, sequence) = (item.key, item.of.tree, item.sequence);
        let known = self.seen.find(key);
        let own = key == self.own_key || key == self.beat_key;
        if own || known.is_some_and(|at| self.seen.has(at, sequence)) {
            if tree.is_shaped() {
                self.duplicate(slot, known, item, out);
            }
            return;
        }
        let stale = tree == Tree::Core && Core::is_stale(item.born, now);
        if stale || !self.takes(key, tree, now) {
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
        match tree {
            Tree::Core => self.core.follow(key, now),
            Tree::Common => self.core.touch(now),
            Tree::Own => {}
        }
        if tree != Tree::Core {
            out.push(Effect::Deliver {
                id: item.of.id(sequence),
                payload: item.payload.clone(),
                hops: item.hops.into(),
            });
        }
        let row = match self.trees.find(key, tree) {
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
        if newest && tree.is_shaped() {
            self.trees.renew(row, item.hops);
        }
        let via = self.seen.via(at);
        let via = via.filter(|via| self.trees.is_eager(row, *via));
        let parent = if !tree.is_shaped() {
            None
        } else if !newest && via.is_some() {
            // An old one that was lost somewhere says nothing about the tree as it is now.
            via
        } else {
            self.adopt((row, at), slot, &item, waiting.as_ref(), now, out)
        };
        if newest && tree.is_shaped() {
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
        if parent.is_some() {
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
        late.then_some(first.slot)
    }

    fn duplicate(&mut self, slot: u16, at: Option<At>, item: Item<P>, out: &mut Out<P>) {
        if let Some(row) = self.trees.find(item.key, item.of.tree) {
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
            born,
            payload,
        } = item;
        let age = age(born, now);
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
                        age,
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
        self.cache
            .insert((key, of, sequence), hops, payload, (born, now));
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
                age,
                payload,
            } => {
                let item = Item {
                    key: of.key(),
                    of,
                    sequence,
                    hops,
                    born: born(age, now),
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
                if of.tree.is_shaped()
                    && let Some(row) = self.trees.find(of.key(), of.tree)
                {
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
        if self.core.is_due(now) {
            self.beat(now, out);
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

/// What a node broadcasts itself.
fn own_of<P: Clone>(own: &P, life: u64, tree: Tree) -> Of<P> {
    Of {
        root: own.clone(),
        life,
        tree,
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
            self.core.deadline(),
        ];
        due.into_iter().flatten().min().map(Duration::from_micros)
    }

    fn carries_payload(message: &Message<P>) -> bool {
        matches!(message, Message::Gossip { of, .. } if of.tree != Tree::Core)
    }
}
