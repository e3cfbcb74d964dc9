//! Neighbours, in slots that the bits of the trees stand for.

use std::collections::BTreeMap;

use super::messages::{Have, Of};
use super::trees::{get_bit, set_bit};
use crate::limits::{BROADCAST_RESENDS, MAX_BROADCAST_NEIGHBORS, NEW_BROADCAST_ROOTS};
use crate::rates::Budget;

/// One neighbour.
#[derive(Clone)]
pub(super) struct Link<P> {
    pub(super) peer: P,
    /// What is to be announced to it with the next batch.
    pub(super) outbox: Vec<Have<P>>,
    pub(super) outbox_ids: usize,
    /// Missing broadcasts that it was the first to announce.
    pub(super) owns: usize,
    // What it may make this node do.
    new_roots: Budget,
    resends: Budget,
}

impl<P: Clone + Eq> Link<P> {
    /// Adds to the next batch; ranges grow where they can.
    pub(super) fn announce(&mut self, of: &Of<P>, sequence: u64, hops: u16) {
        push_range(&mut self.outbox, of, sequence, hops);
        self.outbox_ids += 1;
    }

    pub(super) fn may_introduce(&mut self, now: u64) -> bool {
        self.new_roots.spend(NEW_BROADCAST_ROOTS, 1, now)
    }

    pub(super) fn may_have(&mut self, bytes: usize, now: u64) -> bool {
        self.resends
            .spend(BROADCAST_RESENDS, bytes as u64 + 64, now)
    }
}

/// Appends one broadcast to a list of ranges.
pub(super) fn push_range<P: Clone + Eq>(
    list: &mut Vec<Have<P>>,
    of: &Of<P>,
    sequence: u64,
    hops: u16,
) {
    if let Some(last) = list.last_mut()
        && last.first + u64::from(last.count) == sequence
        && last.hops == hops
        && last.count < u16::MAX
        && last.of == *of
    {
        last.count += 1;
        return;
    }
    list.push(Have {
        of: of.clone(),
        first: sequence,
        count: 1,
        hops,
    });
}

/// The neighbours.
#[derive(Clone)]
pub(super) struct Links<P> {
    slots: Vec<Option<Link<P>>>,
    index: BTreeMap<P, u16>,
    /// Slots that are taken.
    present: Vec<u64>,
}

impl<P: Clone + Ord> Links<P> {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            index: BTreeMap::new(),
            present: Vec::new(),
        }
    }

    pub(super) fn slot(&self, peer: &P) -> Option<u16> {
        self.index.get(peer).copied()
    }

    pub(super) fn get(&self, slot: u16) -> Option<&Link<P>> {
        self.slots.get(usize::from(slot))?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: u16) -> Option<&mut Link<P>> {
        self.slots.get_mut(usize::from(slot))?.as_mut()
    }

    pub(super) fn present(&self) -> &[u64] {
        &self.present
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Slots, free ones among them.
    pub(super) fn width(&self) -> usize {
        self.slots.len()
    }

    /// Takes a neighbour in; none if there is no room.
    pub(super) fn add(&mut self, peer: P) -> Option<u16> {
        if self.len() >= MAX_BROADCAST_NEIGHBORS {
            return None;
        }
        let free = (0..self.slots.len()).find(|at| !get_bit(&self.present, *at as u16));
        let at = free.unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.present.resize(self.slots.len().div_ceil(64), 0);
        let slot = at as u16;
        set_bit(&mut self.present, slot, true);
        self.index.insert(peer.clone(), slot);
        self.slots[at] = Some(Link {
            peer,
            outbox: Vec::new(),
            outbox_ids: 0,
            owns: 0,
            new_roots: Budget::default(),
            resends: Budget::default(),
        });
        Some(slot)
    }

    pub(super) fn remove(&mut self, peer: &P) -> Option<u16> {
        let slot = self.index.remove(peer)?;
        set_bit(&mut self.present, slot, false);
        self.slots[usize::from(slot)] = None;
        Some(slot)
    }

    /// Neighbours in these slots, in ascending order of slots.
    pub(super) fn peers(&self, words: impl IntoIterator<Item = u64>) -> Vec<P> {
        super::trees::slots(words)
            .filter_map(|slot| Some(self.get(slot)?.peer.clone()))
            .collect()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Link<P>> {
        self.slots.iter_mut().flatten()
    }

    pub(super) fn bytes(&self) -> usize {
        let outboxes = self.slots.iter().flatten().map(|l| l.outbox.capacity());
        self.slots.capacity() * size_of::<Option<Link<P>>>()
            + outboxes.sum::<usize>() * size_of::<Have<P>>()
            + self.index.len() * 2 * size_of::<(P, u16)>()
            + self.present.capacity() * 8
    }
}
