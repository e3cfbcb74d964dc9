//! How broadcasts are found that did not come along their tree, and trees mended: announcements,
//! GRAFT, and what is done when a neighbour goes.

use super::cache::age;
use super::links::push_range;
use super::messages::{Have, Message, Of, Tree, Want};
use super::micros;
use super::missing::{Announcer, Entry};
use super::state::{Grafts, Out, Plumtree};
use super::trees::slots;
use crate::broadcast::Effect;
use crate::limits::{MAX_BROADCAST_HOPS, MAX_BROADCAST_IDS, MAX_BROADCAST_MISSING_OF_PEER};
use crate::overlay::Peer;

impl<P: Peer> Plumtree<P> {
    pub(super) fn neighbor_down(&mut self, peer: &P, now: u64, grafts: &mut Grafts<P>) {
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
            .filter(|(_, m)| !m.was_asked() && !self.is_expected(m.key, m.of.tree, None))
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
    pub(super) fn mend(&mut self, key: u64, of: Of<P>, grafts: &mut Grafts<P>) {
        let Some(row) = self.trees.find(key, of.tree) else {
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
    pub(super) fn is_expected(&self, key: u64, tree: Tree, slot: Option<u16>) -> bool {
        let Some(row) = self.trees.find(key, tree) else {
            return false;
        };
        if tree == Tree::Common {
            // Any link may bring them.
            return slots(self.trees.row(row).iter().copied()).any(|s| Some(s) != slot);
        }
        let via = self.seen.find(key).and_then(|at| self.seen.via(at));
        via.is_some_and(|via| Some(via) != slot && self.trees.is_eager(row, via))
    }

    pub(super) fn announced(
        &mut self,
        slot: u16,
        have: Vec<Have<P>>,
        now: u64,
        grafts: &mut Grafts<P>,
    ) {
        for have in have {
            let (key, tree) = (have.of.key(), have.of.tree);
            if key == self.own_key || key == self.beat_key || !self.takes(key, tree, now) {
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
                        && tree.is_shaped()
                        && let Some(row) = self.trees.find(key, tree)
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
                let patience = match tree {
                    Tree::Common => 2 * self.config.graft_after,
                    Tree::Own | Tree::Core => self.config.graft_after,
                };
                let due = now + micros(patience);
                let id = (key, have.of.clone(), sequence);
                let at = self.missing.insert(id, announcer, now, due);
                // If the very neighbour that it is expected from announces it, it takes the
                // link to be lazy.
                if !self.is_expected(key, tree, Some(slot)) {
                    self.ask(at, now, grafts);
                }
            }
        }
    }

    pub(super) fn take_missing(&mut self, at: u32) -> Option<Entry<P>> {
        let entry = self.missing.remove(at)?;
        if let Some(link) = entry.owner().and_then(|slot| self.links.get_mut(slot)) {
            link.owns = link.owns.saturating_sub(1);
        }
        Some(entry)
    }

    /// Asks the next announcer for a missing broadcast, or gives it up.
    pub(super) fn ask(&mut self, at: u32, now: u64, grafts: &mut Grafts<P>) {
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
        let (key, tree) = (missing.key, missing.of.tree);
        // The common tree is mended by its core's beats alone.
        let eager = tree.is_shaped() && (newest || !self.is_expected(key, tree, None));
        if eager && let Some(at) = known {
            self.seen.set_via(at, slot);
        }
        if eager && let Some(row) = self.trees.find(key, tree) {
            self.trees.set(row, slot, true);
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

    pub(super) fn graft(&mut self, slot: u16, wants: Vec<Want<P>>, now: u64, out: &mut Out<P>) {
        for want in wants {
            let (key, tree) = (want.of.key(), want.of.tree);
            if want.eager && tree.is_shaped() {
                let known = key == self.own_key || self.seen.find(key).is_some();
                let row = match self.trees.find(key, tree) {
                    None if known && tree == Tree::Own => Some(self.trees.create(
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
                let Some(entry) = self.cache.get(key, sequence, now) else {
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
                        age: age(entry.born, now),
                        payload: entry.payload.clone(),
                    },
                });
            }
        }
    }

    /// Announces all that is in the cache.
    pub(super) fn announce_all(&mut self, slot: u16, mut again: bool, now: u64, out: &mut Out<P>) {
        let cost = self.cache.len() * 64;
        let Some(link) = self.links.get_mut(slot) else {
            return;
        };
        if !link.may_have(cost, now) {
            return;
        }
        let mut all: Vec<_> = self
            .cache
            .iter(now)
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
}
