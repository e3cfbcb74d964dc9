//! What a node lets see of its trees: for debugging and for tests.

use super::messages::{Of, Tree};
use super::state::Plumtree;
use super::trees::Row;
use crate::broadcast::Id;
use crate::overlay::Peer;

impl<P: Peer> Plumtree<P> {
    /// All neighbours.
    pub fn neighbors(&self) -> Vec<P> {
        self.links.peers(self.links.present().iter().copied())
    }

    /// Roots, with their lives, that have a tree of their own, in ascending order.
    pub fn roots(&self) -> Vec<(P, u64)> {
        let mut roots: Vec<_> = self
            .trees
            .roots()
            .map(|of| (of.root.clone(), of.life))
            .collect();
        roots.sort_unstable();
        roots
    }

    /// The node whose tree the common one is, if this node has heard of one.
    pub fn core(&self) -> Option<P> {
        Some(self.trees.core()?.root.clone())
    }

    /// Neighbours to which broadcasts of this root are sent; those of the common tree if the root
    /// has none of its own, or is none.
    pub fn eager(&self, root: Option<&P>) -> Vec<P> {
        match self.row(root) {
            Some(row) => self.links.peers(self.trees.row(row).iter().copied()),
            None => self.neighbors(),
        }
    }

    /// Neighbours to which broadcasts of this root are announced.
    pub fn lazy(&self, root: Option<&P>) -> Vec<P> {
        let eager = self.eager(root);
        let mut lazy = self.neighbors();
        lazy.retain(|peer| !eager.contains(peer));
        lazy
    }

    fn row(&self, root: Option<&P>) -> Option<Row> {
        let trees = self.trees.roots().filter(|of| Some(&of.root) == root);
        let tree: Option<&Of<P>> = trees.max_by_key(|of| of.life);
        let own = tree.and_then(|of| self.trees.find(of.key(), Tree::Own));
        own.or_else(|| self.trees.find(0, Tree::Common))
    }

    /// Broadcasts that were announced and have not come, with the neighbours who have them.
    pub fn missing(&self) -> Vec<(Id<P>, Vec<P>)> {
        let mut missing: Vec<_> = self
            .missing
            .iter()
            .filter(|(_, m)| m.of.tree != Tree::Core)
            .map(|(_, m)| {
                let peers = m.announcers().iter();
                let peers = peers.filter_map(|a| Some(self.links.get(a.slot)?.peer.clone()));
                (m.of.id(m.sequence), peers.collect())
            })
            .collect();
        missing.sort_unstable();
        missing
    }

    /// Announcements that wait for the next batch: to whom, and of what.
    pub fn outstanding(&self) -> Vec<(P, Vec<Id<P>>)> {
        let mut all = Vec::new();
        for peer in self.neighbors() {
            let link = self.links.slot(&peer).and_then(|slot| self.links.get(slot));
            let have = link.into_iter().flat_map(|link| &link.outbox);
            let have = have.filter(|h| h.of.tree != Tree::Core);
            let ids = have.flat_map(|h| {
                (h.first..h.first + u64::from(h.count)).map(|sequence| h.of.id(sequence))
            });
            let ids: Vec<_> = ids.collect();
            if !ids.is_empty() {
                all.push((peer, ids));
            }
        }
        all
    }

    /// Payloads that neighbours may still ask for, and their bytes.
    pub fn cached(&self) -> (usize, usize) {
        (self.cache.len(), self.cache.payload_bytes())
    }

    /// Heap bytes of all tables, without the payloads in the cache.
    pub fn table_bytes(&self) -> usize {
        self.links.bytes()
            + self.trees.bytes()
            + self.seen.bytes()
            + self.cache.bytes()
            + self.missing.bytes()
            + self.strangers.len() * 2 * size_of::<P>()
    }
}
