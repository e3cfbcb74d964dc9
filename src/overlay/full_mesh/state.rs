//! The replicated set of members, a join semilattice.
//!
//! Per name there is one [`Entry`], and of two entries for a name the greater one is right. The
//! order is: higher epoch; at one epoch a removal beats a presence; then the higher version; then
//! the specification itself, so that any two nodes decide alike. Merging takes the greater entry
//! of each name, hence is commutative, associative and idempotent: members that hear of the same
//! facts in any order, however often, agree (Shapiro et al., "Conflict-free Replicated Data
//! Types", SSS 2011; the set is a variant of its last-writer-wins element set, with epochs in
//! the place of clocks).
//!
//! An epoch is one stay of a node in the cluster. Only an explicit join begins a new one, so no
//! stale copy of a state, on a disk or behind a partition, brings back a node that has left.
//!
//! A removal keeps its name as a tombstone. Tombstones are numbered in the order of removal, and
//! only the newest [`MAX_TOMBSTONES`] are kept. The number is part of the state, so that all
//! members forget the same ones; were the choice local, two full members would teach each other
//! their forgotten tombstones for ever.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::overlay::NodeSpec;

/// Tombstones that a state keeps; the oldest beyond are forgotten.
pub const MAX_TOMBSTONES: usize = 4096;

/// Largest epoch and version, far beyond what honest nodes reach. Counting stops there, so that
/// no lie about a number makes a node send what others refuse to read.
pub(super) const MAX_COUNTER: u64 = 1 << 62;

pub(super) fn next(counter: u64) -> u64 {
    MAX_COUNTER.min(counter.saturating_add(1))
}

/// What is known about one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The stay of the node in the cluster that this entry is about, from 1.
    pub epoch: u64,
    /// Of a member: counts its specifications. Of a tombstone: its place in the order of removal.
    pub version: u64,
    /// The member's specification; `None` if it was removed.
    pub spec: Option<Arc<NodeSpec>>,
}

impl Entry {
    pub(super) fn present(epoch: u64, version: u64, spec: Arc<NodeSpec>) -> Self {
        let spec = Some(spec);
        Self {
            epoch,
            version,
            spec,
        }
    }

    /// Whether the node is a member.
    pub fn is_present(&self) -> bool {
        self.spec.is_some()
    }

    /// Whether this entry replaces `other`.
    pub(super) fn beats(&self, other: &Self) -> bool {
        let rank = |e: &Self| (e.epoch, e.spec.is_none(), e.version);
        match rank(self).cmp(&rank(other)) {
            Ordering::Equal => self.spec > other.spec,
            order => order == Ordering::Greater,
        }
    }
}

/// What a merge has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// The entries that were taken over.
    pub(super) taken: Members,
    /// Members that the merge has removed.
    pub(super) removed: Vec<Arc<str>>,
}

/// The replicated set: an entry per name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    entries: BTreeMap<Arc<str>, Entry>,
}

impl Members {
    /// All entries in the order of their names, tombstones included.
    pub fn entries(&self) -> impl Iterator<Item = (&Arc<str>, &Entry)> {
        self.entries.iter()
    }

    /// Number of entries, tombstones included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry of `name`.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// The specification of `name` if it is a member.
    pub fn member(&self, name: &str) -> Option<&Arc<NodeSpec>> {
        self.get(name)?.spec.as_ref()
    }

    /// All members, in the order of their names.
    pub fn present(&self) -> impl Iterator<Item = &Arc<NodeSpec>> {
        self.entries.values().filter_map(|e| e.spec.as_ref())
    }

    pub(super) fn insert(&mut self, name: Arc<str>, entry: Entry) {
        self.entries.insert(name, entry);
    }

    /// Takes `entry` if it beats what is known. Returns whether it did.
    pub(super) fn offer(&mut self, name: &Arc<str>, entry: &Entry) -> bool {
        match self.entries.get(name) {
            Some(known) if !entry.beats(known) => false,
            _ => {
                self.entries.insert(name.clone(), entry.clone());
                true
            }
        }
    }

    /// Marks `name` as removed, within its epoch. Returns whether it was a member.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let last = self
            .entries
            .values()
            .filter(|e| !e.is_present())
            .map(|e| e.version)
            .max();
        let Some(entry) = self.entries.get_mut(name).filter(|e| e.is_present()) else {
            return false;
        };
        entry.version = next(last.unwrap_or(0));
        entry.spec = None;
        self.forget();
        true
    }

    /// Takes every entry of `other` that beats its own.
    pub(super) fn merge(&mut self, other: &Self) -> Changes {
        let mut changes = Changes::default();
        for (name, entry) in &other.entries {
            let was_member = self.member(name).is_some();
            if self.offer(name, entry) {
                changes.taken.insert(name.clone(), entry.clone());
                if was_member && !entry.is_present() {
                    changes.removed.push(name.clone());
                }
            }
        }
        if !changes.taken.is_empty() {
            self.forget();
            // Whoever passed a forgotten one on would have others forget it and pass it on, too.
            let kept = |name: &Arc<str>, _: &mut Entry| self.entries.contains_key(name);
            changes.taken.entries.retain(kept);
        }
        changes
    }

    /// Those of its entries that `other` would take.
    pub(super) fn beyond(&self, other: &Self) -> Self {
        let news = |(name, entry): &(&Arc<str>, &Entry)| {
            other.get(name).is_none_or(|known| entry.beats(known))
        };
        let news = self.entries.iter().filter(news);
        Self {
            entries: news
                .map(|(name, entry)| (name.clone(), entry.clone()))
                .collect(),
        }
    }

    /// The entries of these names.
    pub(super) fn only<'a>(&self, names: impl IntoIterator<Item = &'a Arc<str>>) -> Self {
        let of = |name: &Arc<str>| Some((name.clone(), self.get(name)?.clone()));
        Self {
            entries: names.into_iter().filter_map(of).collect(),
        }
    }

    /// Drops the oldest tombstones beyond the bound.
    fn forget(&mut self) {
        let mut tombstones: Vec<(u64, Arc<str>)> = self
            .entries
            .iter()
            .filter(|(_, e)| !e.is_present())
            .map(|(name, e)| (e.version, name.clone()))
            .collect();
        let Some(excess) = tombstones.len().checked_sub(MAX_TOMBSTONES) else {
            return;
        };
        tombstones.sort_unstable();
        for (_, name) in tombstones.into_iter().take(excess) {
            self.entries.remove(&name);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spec(name: &str, port: u16) -> Arc<NodeSpec> {
        Arc::new(NodeSpec {
            name: name.into(),
            listen_addrs: vec![([127, 0, 0, 1], port).into()],
            channels: Vec::new(),
        })
    }

    /// Small domains, so that equal ranks and ties are common.
    pub(in super::super) fn members() -> impl Strategy<Value = Members> {
        let entry = (1u64..4, 0u64..3, any::<bool>(), 1u16..4);
        prop::collection::vec((0u8..8, entry), 0..12).prop_map(|list| {
            let mut members = Members::default();
            for (n, (epoch, version, present, port)) in list {
                let name: Arc<str> = format!("n{n}@h").into();
                let spec = present.then(|| spec(&name, port));
                members.insert(
                    name,
                    Entry {
                        epoch,
                        version,
                        spec,
                    },
                );
            }
            members
        })
    }

    fn merged(a: &Members, b: &Members) -> Members {
        let mut a = a.clone();
        a.merge(b);
        a
    }

    proptest! {
        #[test]
        fn merge_is_a_join(a in members(), b in members(), c in members()) {
            prop_assert_eq!(merged(&a, &a), a.clone());
            prop_assert_eq!(merged(&a, &b), merged(&b, &a));
            prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
        }

        #[test]
        fn merge_reports_changes(a in members(), b in members()) {
            let mut after = a.clone();
            let changes = after.merge(&b);
            prop_assert_eq!(!changes.taken.is_empty(), after != a);
            prop_assert_eq!(merged(&a, &changes.taken), after.clone());
            prop_assert_eq!(merged(&a, &b.beyond(&a)), after.clone());
            let gone = a.present().filter(|s| after.member(&s.name).is_none()).count();
            prop_assert_eq!(changes.removed.len(), gone);
        }
    }

    #[test]
    fn a_removal_wins_its_epoch_and_loses_the_next() {
        let mut a = Members::default();
        a.insert("x@h".into(), Entry::present(1, 9, spec("x@h", 1)));
        let stale = a.clone();
        assert!(a.remove("x@h"));
        assert!(!a.remove("x@h"));
        assert!(a.merge(&stale).taken.is_empty());
        let mut joined = Members::default();
        joined.insert("x@h".into(), Entry::present(2, 1, spec("x@h", 1)));
        assert!(!a.merge(&joined).taken.is_empty());
        assert!(a.member("x@h").is_some());
    }

    #[test]
    fn the_oldest_tombstones_are_forgotten_by_all_alike() {
        let name = |n: usize| -> Arc<str> { format!("n{n}@h").into() };
        let build = |range: std::ops::Range<usize>| {
            let mut members = Members::default();
            for n in range {
                let entry = Entry {
                    epoch: 1,
                    version: n as u64,
                    spec: None,
                };
                members.insert(name(n), entry);
            }
            members
        };
        let (a, b) = (build(0..MAX_TOMBSTONES), build(100..MAX_TOMBSTONES + 100));
        let (ab, ba) = (merged(&a, &b), merged(&b, &a));
        assert_eq!(ab, ba);
        assert_eq!(ab, b);
        assert_eq!(ab.len(), MAX_TOMBSTONES);
        // Teaching a full member an old tombstone again leaves it as it was.
        let mut again = ab.clone();
        assert_eq!(again.merge(&a), Changes::default());
        assert_eq!(again, ab);
        let mut full = ab;
        full.insert("x@h".into(), Entry::present(1, 1, spec("x@h", 1)));
        assert!(full.remove("x@h"));
        assert_eq!(full.len(), MAX_TOMBSTONES);
        assert!(full.get("x@h").is_some() && full.get(&name(100)).is_none());
    }
}
