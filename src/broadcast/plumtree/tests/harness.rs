//! A small network of nodes in virtual time: links with latencies, in order each, with losses only
//! when they break.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use crate::broadcast::{Broadcast, Effect, Event, Id};
use crate::overlay::Peer;
use crate::overlay::codec::{DecodeError, Reader};

/// A node of the simulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct N(pub(super) u32);

impl Peer for N {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_be_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.u32().map(N)
    }
}

#[derive(Clone, Debug)]
enum What<M> {
    Arrives { from: u32, link: u64, message: M },
    Due,
}

/// What became of one broadcast.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate {
    pub(super) at: u64,
    pub(super) delivered: usize,
    pub(super) payloads: usize,
    pub(super) last_hops: u32,
    pub(super) last_at: u64,
}

impl Fate {
    /// The paper's relative message redundancy.
    pub(super) fn redundancy(&self) -> f64 {
        self.payloads as f64 / self.delivered.max(1) as f64 - 1.0
    }

    /// Virtual time from the start to the last delivery, in ms.
    pub(super) fn latency(&self) -> f64 {
        (self.last_at - self.at) as f64 / 1000.0
    }
}

pub(super) struct Net<B: Broadcast<Peer = N>> {
    pub(super) nodes: Vec<Option<B>>,
    pub(super) now: u64,
    pub(super) rng: StdRng,
    queue: BinaryHeap<Reverse<(u64, u64, u32)>>,
    events: HashMap<u64, What<B::Message>>,
    next: u64,
    /// Links by their ends, the lower first: number, latency.
    pub(super) links: BTreeMap<(u32, u32), (u64, u64)>,
    last: HashMap<(u32, u32), u64>,
    due: Vec<u64>,
    latency: (u64, u64),
    /// Change of the latency from message to message, in 1/1000.
    jitter: u64,
    pub(super) fates: BTreeMap<Id<N>, Fate>,
    pub(super) got: Vec<BTreeSet<Id<N>>>,
    pub(super) handled: u64,
    id_of: fn(&B::Message) -> Option<Id<N>>,
}

impl<B: Broadcast<Peer = N>> Net<B> {
    pub(super) fn new(
        seed: u64,
        latency: (u64, u64),
        jitter: u64,
        id_of: fn(&B::Message) -> Option<Id<N>>,
    ) -> Self {
        Self {
            nodes: Vec::new(),
            now: 0,
            rng: StdRng::seed_from_u64(seed),
            queue: BinaryHeap::new(),
            events: HashMap::new(),
            next: 0,
            links: BTreeMap::new(),
            last: HashMap::new(),
            due: Vec::new(),
            latency,
            jitter,
            fates: BTreeMap::new(),
            got: Vec::new(),
            handled: 0,
            id_of,
        }
    }

    pub(super) fn add(&mut self, node: B) -> u32 {
        self.nodes.push(Some(node));
        self.got.push(BTreeSet::new());
        self.due.push(u64::MAX);
        self.nodes.len() as u32 - 1
    }

    pub(super) fn degree(&self, node: u32) -> usize {
        self.links
            .keys()
            .filter(|(a, b)| *a == node || *b == node)
            .count()
    }

    /// A random graph in which nearly all nodes have `degree` links.
    pub(super) fn wire(&mut self, degree: usize) {
        let mut stubs: Vec<u32> = (0..self.nodes.len() as u32)
            .flat_map(|n| std::iter::repeat_n(n, degree))
            .collect();
        for _ in 0..30 {
            stubs.shuffle(&mut self.rng);
            let mut rest = Vec::new();
            for pair in stubs.chunks(2) {
                match *pair {
                    [a, b] if a != b && !self.linked(a, b) => self.link(a, b),
                    _ => rest.extend_from_slice(pair),
                }
            }
            stubs = rest;
        }
    }

    pub(super) fn linked(&self, a: u32, b: u32) -> bool {
        self.links.contains_key(&(a.min(b), a.max(b)))
    }

    pub(super) fn link(&mut self, a: u32, b: u32) {
        self.next += 1;
        let latency = self.rng.random_range(self.latency.0..=self.latency.1);
        self.links
            .insert((a.min(b), a.max(b)), (self.next, latency));
        self.event(a, Event::NeighborUp(N(b)));
        self.event(b, Event::NeighborUp(N(a)));
    }

    pub(super) fn unlink(&mut self, a: u32, b: u32) {
        if self.links.remove(&(a.min(b), a.max(b))).is_some() {
            self.event(a, Event::NeighborDown(N(b)));
            self.event(b, Event::NeighborDown(N(a)));
        }
    }

    pub(super) fn crash(&mut self, node: u32) {
        self.nodes[node as usize] = None;
        let ends: Vec<_> = self.links.keys().copied().collect();
        for (a, b) in ends.into_iter().filter(|(a, b)| *a == node || *b == node) {
            self.unlink(a, b);
        }
    }

    pub(super) fn event(&mut self, node: u32, event: Event<N, B::Message>) {
        let Some(state) = &mut self.nodes[node as usize] else {
            return;
        };
        self.handled += 1;
        let mut effects = Vec::new();
        let now = Duration::from_micros(self.now);
        state
            .handle(now, event, &mut self.rng, &mut effects)
            .unwrap();
        let due = state.deadline().map_or(u64::MAX, |d| d.as_micros() as u64);
        if due != u64::MAX && self.due[node as usize] != due {
            assert!(due >= self.now, "node {node} is not done");
            self.push(due, node, What::Due);
        }
        self.due[node as usize] = due;
        for effect in effects {
            match effect {
                Effect::Send { to, message } => self.send(node, to.0, message),
                Effect::Deliver { id, hops, .. } => {
                    assert!(
                        self.got[node as usize].insert(id.clone()),
                        "{id:?} twice at {node}"
                    );
                    let fate = self.fates.get_mut(&id).expect("a broadcast that was made");
                    fate.delivered += 1;
                    fate.last_hops = fate.last_hops.max(hops);
                    fate.last_at = self.now;
                }
            }
        }
    }

    fn send(&mut self, from: u32, to: u32, message: B::Message) {
        let Some(&(link, latency)) = self.links.get(&(from.min(to), from.max(to))) else {
            return;
        };
        if B::carries_payload(&message)
            && let Some(fate) = (self.id_of)(&message).and_then(|id| self.fates.get_mut(&id))
        {
            fate.payloads += 1;
        }
        let jitter = latency * self.rng.random_range(0..=self.jitter) / 1000;
        let last = self.last.entry((from, to)).or_default();
        let at = (self.now + latency + jitter).max(*last);
        *last = at;
        self.push(
            at,
            to,
            What::Arrives {
                from,
                link,
                message,
            },
        );
    }

    fn push(&mut self, at: u64, node: u32, what: What<B::Message>) {
        self.next += 1;
        self.queue.push(Reverse((at, self.next, node)));
        self.events.insert(self.next, what);
    }

    pub(super) fn broadcast(&mut self, root: u32, life: u64, sequence: u64) -> Id<N> {
        let id = Id {
            root: N(root),
            life,
            sequence,
        };
        let fate = Fate {
            at: self.now,
            last_at: self.now,
            ..Fate::default()
        };
        self.fates.insert(id.clone(), fate);
        self.event(root, Event::Broadcast(Bytes::from_static(b"payload")));
        id
    }

    pub(super) fn run_until(&mut self, end: u64) {
        while let Some(&Reverse((at, number, node))) = self.queue.peek() {
            if at > end {
                break;
            }
            self.queue.pop();
            self.now = at;
            match self.events.remove(&number) {
                Some(What::Arrives {
                    from,
                    link,
                    message,
                }) => {
                    // What is under way when a link breaks is lost.
                    let ends = (from.min(node), from.max(node));
                    if self.links.get(&ends).is_some_and(|(n, _)| *n == link) {
                        self.event(
                            node,
                            Event::Message {
                                from: N(from),
                                message,
                            },
                        );
                    }
                }
                Some(What::Due) if self.due[node as usize] == at => {
                    self.due[node as usize] = u64::MAX;
                    self.event(node, Event::Tick);
                }
                _ => {}
            }
        }
        self.now = end;
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time.as_micros() as u64);
    }

    pub(super) fn live(&self) -> Vec<u32> {
        (0..self.nodes.len() as u32)
            .filter(|n| self.nodes[*n as usize].is_some())
            .collect()
    }

    /// Links missing ends at random until nearly all live nodes have `degree` links again.
    pub(super) fn rewire(&mut self, degree: usize) {
        for _ in 0..20 {
            let mut degrees: BTreeMap<u32, usize> =
                self.live().into_iter().map(|n| (n, 0)).collect();
            for (a, b) in self.links.keys() {
                for end in [a, b] {
                    *degrees.entry(*end).or_default() += 1;
                }
            }
            let mut stubs: Vec<u32> = degrees
                .into_iter()
                .flat_map(|(n, d)| std::iter::repeat_n(n, degree.saturating_sub(d)))
                .collect();
            if stubs.len() < 2 {
                return;
            }
            stubs.shuffle(&mut self.rng);
            for pair in stubs.chunks_exact(2) {
                if pair[0] != pair[1] && !self.linked(pair[0], pair[1]) {
                    self.link(pair[0], pair[1]);
                }
            }
        }
    }
}
