//! Payloads that neighbours may still ask for: bounded in number, bytes and time.

use std::collections::VecDeque;

use bytes::Bytes;

use super::messages::Of;
use crate::broadcast::seen::KeyMap;

/// One payload.
#[derive(Clone)]
pub(super) struct Entry<P> {
    pub(super) of: Of<P>,
    pub(super) sequence: u64,
    /// Links that it has passed to this node.
    pub(super) hops: u16,
    pub(super) payload: Bytes,
    key: u64,
    at: u64,
}

/// The payloads, oldest first.
#[derive(Clone)]
pub(super) struct Cache<P> {
    entries: VecDeque<Entry<P>>,
    index: KeyMap<(u64, u64), u64>,
    /// Entries that have gone: the position of the first one.
    gone: u64,
    bytes: usize,
    max_entries: usize,
    max_bytes: usize,
    time: u64,
}

impl<P> Cache<P> {
    pub(super) fn new(max_entries: usize, max_bytes: usize, time: u64) -> Self {
        Self {
            entries: VecDeque::new(),
            index: KeyMap::default(),
            gone: 0,
            bytes: 0,
            max_entries,
            max_bytes,
            time,
        }
    }

    pub(super) fn insert(
        &mut self,
        (key, of, sequence): (u64, Of<P>, u64),
        hops: u16,
        payload: Bytes,
        now: u64,
    ) {
        self.bytes += cost::<P>(&payload);
        while !self.entries.is_empty()
            && (self.entries.len() >= self.max_entries || self.bytes > self.max_bytes)
        {
            self.pop();
        }
        self.index
            .insert((key, sequence), self.gone + self.entries.len() as u64);
        self.entries.push_back(Entry {
            of,
            sequence,
            hops,
            payload,
            key,
            at: now,
        });
    }

    fn pop(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= cost::<P>(&entry.payload);
            let id = (entry.key, entry.sequence);
            // The same id may have come again after its root was forgotten.
            if self.index.get(&id) == Some(&self.gone) {
                self.index.remove(&id);
            }
            self.gone += 1;
        }
    }

    pub(super) fn get(&self, key: u64, sequence: u64) -> Option<&Entry<P>> {
        let position = self.index.get(&(key, sequence))?;
        self.entries.get(position.checked_sub(self.gone)? as usize)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry<P>> {
        self.entries.iter()
    }

    /// When [`Cache::expire`] is to be called: not for each payload, but for those of an eighth of
    /// the time together.
    pub(super) fn deadline(&self) -> Option<u64> {
        Some(self.entries.front()?.at + self.time + self.time / 8)
    }

    pub(super) fn expire(&mut self, now: u64) {
        while self
            .entries
            .front()
            .is_some_and(|e| e.at + self.time <= now)
        {
            self.pop();
        }
        if self.entries.len() * 4 < self.entries.capacity() {
            self.entries.shrink_to(self.entries.len() * 2);
            self.index.shrink_to(self.entries.len() * 2);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn payload_bytes(&self) -> usize {
        self.entries.iter().map(|e| e.payload.len()).sum()
    }

    /// Heap bytes without the payloads.
    pub(super) fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry<P>>()
            + self.index.capacity() * (size_of::<((u64, u64), u64)>() + 1)
    }
}

fn cost<P>(payload: &Bytes) -> usize {
    payload.len() + size_of::<Entry<P>>()
}
