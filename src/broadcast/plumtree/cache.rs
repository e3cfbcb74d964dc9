//! Payloads that neighbours may still ask for: bounded in number, bytes and time.
//!
//! The time counts from the broadcast itself, whenever it has come here. If each node counted from
//! its own receipt, then a broadcast would live for as long as new nodes keep coming: each of them
//! would get it from those before it, and keep it for those after it.

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
    /// When it was broadcast, in microseconds of this node's time: maybe before that began.
    pub(super) born: i64,
    key: u64,
}

/// Milliseconds since then.
pub(super) fn age(born: i64, now: u64) -> u32 {
    let age = now.saturating_add_signed(born.saturating_neg()) / 1000;
    age.try_into().unwrap_or(u32::MAX)
}

/// When something of this age, in milliseconds, was broadcast.
pub(super) fn born(age: u32, now: u64) -> i64 {
    i64::try_from(now)
        .unwrap_or(i64::MAX)
        .saturating_sub(i64::from(age) * 1000)
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
        (born, now): (i64, u64),
    ) {
        if self.is_old(born, now) {
            return;
        }
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
            born,
            key,
        });
    }

    fn is_old(&self, born: i64, now: u64) -> bool {
        born.saturating_add_unsigned(self.time) <= i64::try_from(now).unwrap_or(i64::MAX)
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

    pub(super) fn get(&self, key: u64, sequence: u64, now: u64) -> Option<&Entry<P>> {
        let position = self.index.get(&(key, sequence))?;
        let entry = self.entries.get(position.checked_sub(self.gone)? as usize);
        entry.filter(|e| !self.is_old(e.born, now))
    }

    pub(super) fn iter(&self, now: u64) -> impl Iterator<Item = &Entry<P>> {
        let entries = self.entries.iter();
        entries.filter(move |e| !self.is_old(e.born, now))
    }

    /// When [`Cache::expire`] is to be called: not for each payload, but for those of an eighth of
    /// the time together.
    pub(super) fn deadline(&self) -> Option<u64> {
        let time = self.time + self.time / 8;
        let at = self.entries.front()?.born.saturating_add_unsigned(time);
        Some(at.max(0) as u64)
    }

    pub(super) fn expire(&mut self, now: u64) {
        // Behind one that is younger an older one remains for a while. Nobody gets it.
        while self
            .entries
            .front()
            .is_some_and(|e| self.is_old(e.born, now))
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
