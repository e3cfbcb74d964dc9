//! Broadcasts that were announced and have not come, each with whom to ask and when.

use std::collections::BTreeSet;

use super::messages::Of;
use crate::broadcast::seen::KeyMap;
use crate::limits::{MAX_BROADCAST_ANNOUNCERS, MAX_BROADCAST_MISSING};

/// Somebody who has a missing broadcast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Announcer {
    pub(super) slot: u16,
    /// Links that it had passed there.
    pub(super) hops: u16,
}

/// One missing broadcast.
#[derive(Clone)]
pub(super) struct Entry<P> {
    pub(super) of: Of<P>,
    pub(super) sequence: u64,
    pub(super) key: u64,
    /// When it was announced first.
    pub(super) since: u64,
    due: u64,
    announcers: [Announcer; MAX_BROADCAST_ANNOUNCERS],
    len: u8,
    /// The first of them have been asked.
    asked: u8,
    /// Whose share of the table this is.
    owner: Option<u16>,
}

impl<P> Entry<P> {
    pub(super) fn announcers(&self) -> &[Announcer] {
        &self.announcers[..usize::from(self.len)]
    }

    pub(super) fn was_asked(&self) -> bool {
        self.asked > 0
    }

    pub(super) fn owner(&self) -> Option<u16> {
        self.owner
    }

    fn remove(&mut self, at: usize) {
        self.announcers.copy_within(at + 1.., at);
        self.len -= 1;
        if at < usize::from(self.asked) {
            self.asked -= 1;
        }
    }
}

/// The table. Entries are named by their index.
#[derive(Clone)]
pub(super) struct Missing<P> {
    entries: Vec<Option<Entry<P>>>,
    free: Vec<u32>,
    index: KeyMap<(u64, u64), u32>,
    due: BTreeSet<(u64, u32)>,
}

impl<P> Missing<P> {
    pub(super) fn new() -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            index: KeyMap::default(),
            due: BTreeSet::new(),
        }
    }

    pub(super) fn find(&self, key: u64, sequence: u64) -> Option<u32> {
        if self.index.is_empty() {
            return None;
        }
        self.index.get(&(key, sequence)).copied()
    }

    pub(super) fn get(&self, at: u32) -> Option<&Entry<P>> {
        self.entries.get(at as usize)?.as_ref()
    }

    pub(super) fn is_full(&self) -> bool {
        self.index.len() >= MAX_BROADCAST_MISSING
    }

    pub(super) fn insert(
        &mut self,
        (key, of, sequence): (u64, Of<P>, u64),
        announcer: Announcer,
        now: u64,
        due: u64,
    ) -> u32 {
        let mut announcers = [Announcer::default(); MAX_BROADCAST_ANNOUNCERS];
        announcers[0] = announcer;
        let entry = Entry {
            of,
            sequence,
            key,
            since: now,
            due,
            announcers,
            len: 1,
            asked: 0,
            owner: Some(announcer.slot),
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.entries[at as usize] = Some(entry);
                at
            }
            None => {
                self.entries.push(Some(entry));
                self.entries.len() as u32 - 1
            }
        };
        self.index.insert((key, sequence), at);
        self.due.insert((due, at));
        at
    }

    /// One more neighbour has it.
    pub(super) fn add(&mut self, at: u32, announcer: Announcer) {
        if let Some(Some(entry)) = self.entries.get_mut(at as usize)
            && usize::from(entry.len) < MAX_BROADCAST_ANNOUNCERS
            && entry.announcers().iter().all(|a| a.slot != announcer.slot)
        {
            entry.announcers[usize::from(entry.len)] = announcer;
            entry.len += 1;
        }
    }

    /// Whom to ask now, who counts as asked then, and until `due`. None: everybody was.
    pub(super) fn ask(&mut self, at: u32, due: u64) -> Option<Announcer> {
        let entry = self.entries.get_mut(at as usize)?.as_mut()?;
        let next = *entry.announcers().get(usize::from(entry.asked))?;
        entry.asked += 1;
        self.due.remove(&(entry.due, at));
        entry.due = due;
        self.due.insert((due, at));
        Some(next)
    }

    pub(super) fn remove(&mut self, at: u32) -> Option<Entry<P>> {
        let entry = self.entries.get_mut(at as usize)?.take()?;
        self.free.push(at);
        self.index.remove(&(entry.key, entry.sequence));
        self.due.remove(&(entry.due, at));
        if self.index.is_empty() {
            // After a burst the memory is given back.
            self.entries = Vec::new();
            self.free = Vec::new();
            if self.index.capacity() > 64 {
                self.index = KeyMap::default();
            }
        }
        Some(entry)
    }

    /// When the next one is due.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.due.first().map(|(due, _)| *due)
    }

    /// One that is due.
    pub(super) fn next_due(&self, now: u64) -> Option<u32> {
        self.due
            .first()
            .filter(|(due, _)| *due <= now)
            .map(|(_, at)| *at)
    }

    /// This neighbour is gone: whoever was asked last there is to be asked elsewhere, now.
    pub(super) fn forget(&mut self, slot: u16, now: u64) {
        let mut lost = Vec::new();
        for (at, entry) in self.entries.iter_mut().enumerate() {
            let Some(entry) = entry else { continue };
            if entry.owner == Some(slot) {
                entry.owner = None;
            }
            let Some(i) = entry.announcers().iter().position(|a| a.slot == slot) else {
                continue;
            };
            let was_last_asked = i + 1 == usize::from(entry.asked);
            entry.remove(i);
            if entry.len == 0 {
                lost.push(at as u32);
            } else if was_last_asked {
                self.due.remove(&(entry.due, at as u32));
                entry.due = now;
                self.due.insert((now, at as u32));
            }
        }
        for at in lost {
            self.remove(at);
        }
    }

    /// All of them, in an order that only what has happened decides.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Entry<P>)> {
        (0..)
            .zip(&self.entries)
            .filter_map(|(at, e)| Some((at, e.as_ref()?)))
    }

    pub(super) fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Option<Entry<P>>>()
            + self.free.capacity() * 4
            + self.index.capacity() * (size_of::<((u64, u64), u32)>() + 1)
            + self.due.len() * 2 * size_of::<(u64, u32)>()
    }
}
