//! Addresses beyond the passive view, least recently heard of first.
//!
//! The views of a node can be exhausted: after a crash of nearly all nodes, or a long partition,
//! none of the forty that they hold may be left. The history holds a few hundred more. Those with whom this
//! node has had a link are known to have been real, so they stay longer than those it
//! only heard of, but never take more than three quarters.

use std::collections::VecDeque;

use rand::{Rng, RngExt};

use crate::overlay::contract::Peer;

pub(super) struct History<P> {
    max: usize,
    linked: VecDeque<P>,
    heard: VecDeque<P>,
}

impl<P: Peer> History<P> {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            linked: VecDeque::new(),
            heard: VecDeque::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.linked.len() + self.heard.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &P> {
        self.linked.iter().chain(&self.heard)
    }

    pub(super) fn lists(&mut self) -> (&[P], &[P]) {
        (self.linked.make_contiguous(), self.heard.make_contiguous())
    }

    pub(super) fn get(&self, index: usize) -> Option<&P> {
        match index.checked_sub(self.linked.len()) {
            None => self.linked.get(index),
            Some(index) => self.heard.get(index),
        }
    }

    pub(super) fn random(&self, rng: &mut dyn Rng) -> Option<&P> {
        match self.len() {
            0 => None,
            n => self.get(rng.random_range(0..n)),
        }
    }

    /// There was a link with this node.
    pub(super) fn linked(&mut self, peer: &P) {
        take(&mut self.heard, peer);
        take(&mut self.linked, peer);
        self.linked.push_back(peer.clone());
        if self.linked.len() > self.max * 3 / 4 {
            self.linked.pop_front();
        }
        self.trim();
    }

    /// Somebody has named this node.
    pub(super) fn heard(&mut self, peer: &P) {
        if let Some(known) = self.linked.iter_mut().find(|known| *known == peer) {
            known.clone_from(peer);
            return;
        }
        take(&mut self.heard, peer);
        self.heard.push_back(peer.clone());
        self.trim();
    }

    /// This node can't be reached: it is the first to be forgotten.
    pub(super) fn unreachable(&mut self, peer: &P) {
        for list in [&mut self.linked, &mut self.heard] {
            if let Some(peer) = take(list, peer) {
                list.push_front(peer);
            }
        }
    }

    pub(super) fn forget(&mut self, peer: &P) {
        take(&mut self.linked, peer);
        take(&mut self.heard, peer);
    }

    pub(super) fn clear(&mut self) {
        self.linked = VecDeque::new();
        self.heard = VecDeque::new();
    }

    fn trim(&mut self) {
        while self.len() > self.max {
            if self.heard.pop_front().is_none() {
                self.linked.pop_front();
            }
        }
    }
}

fn take<P: Peer>(list: &mut VecDeque<P>, peer: &P) -> Option<P> {
    let at = list.iter().position(|known| known == peer)?;
    list.remove(at)
}
