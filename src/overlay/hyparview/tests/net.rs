//! A small network in virtual time, for many nodes in one process. Each run is decided by its seed.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::overlay::codec::{DecodeError, Reader};
use crate::overlay::contract::{Down, Effect, Event, Overlay, Peer};
use crate::overlay::hyparview::{Config, HyParView, Message};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id(pub(super) u32);

impl Peer for Id {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_be_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.u32().map(Self)
    }
}

/// In order over one direction of a link.
enum Item {
    Up,
    Say(Message<Id>),
    Close,
}

enum Step {
    Arrive {
        link: u64,
        from: Id,
        to: Id,
        item: Item,
    },
    Connect {
        from: Id,
        to: Id,
    },
    Broken {
        at: Id,
        peer: Id,
    },
    Tick(Id, u64),
}

struct Entry(u64, u64, Step);

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// Index 0 is the end with the smaller name.
struct Link {
    id: u64,
    open: [bool; 2],
    /// When the last item for each end arrives.
    busy: [u64; 2],
}

pub(super) struct Host {
    pub(super) overlay: HyParView<Id>,
    pub(super) up: bool,
    wanted: BTreeSet<Id>,
    dialling: BTreeSet<Id>,
    pub(super) neighbours: BTreeSet<Id>,
    pub(super) joined: u32,
    pub(super) heard: u64,
    pub(super) saved: Option<Vec<u8>>,
    tick: u64,
}

pub(super) struct Net {
    pub(super) seed: u64,
    pub(super) rng: SmallRng,
    pub(super) now: u64,
    count: u64,
    pub(super) events: u64,
    queue: BinaryHeap<Reverse<Entry>>,
    pub(super) hosts: Vec<Host>,
    links: HashMap<(Id, Id), Link>,
    /// Ends of broken links that have not heard of it.
    unheard: HashSet<(Id, Id)>,
    config: Config,
    /// Most micros that a message takes.
    pub(super) delay: u64,
    /// Nodes of equal remainder are near each other: a message takes a tenth.
    pub(super) clusters: u32,
    /// Sides of a partition: those on different ones can't reach each other.
    pub(super) side: Vec<u8>,
    effects: Vec<Effect<Id, Message<Id>>>,
}

fn key(a: Id, b: Id) -> (Id, Id) {
    (a.min(b), a.max(b))
}

fn end(of: Id, other: Id) -> usize {
    usize::from(of > other)
}

impl Net {
    pub(super) fn new(seed: u64, config: Config) -> Self {
        Self {
            seed,
            rng: SmallRng::seed_from_u64(seed),
            now: 0,
            count: 0,
            events: 0,
            queue: BinaryHeap::new(),
            hosts: Vec::new(),
            links: HashMap::new(),
            unheard: HashSet::new(),
            config,
            delay: 50_000,
            clusters: 1,
            side: Vec::new(),
            effects: Vec::new(),
        }
    }

    pub(super) fn add(&mut self) -> Id {
        let config = self.config.clone();
        self.add_with(config)
    }

    /// A node that is configured otherwise.
    pub(super) fn add_with(&mut self, config: Config) -> Id {
        let id = Id(self.hosts.len() as u32);
        self.hosts.push(Host {
            overlay: HyParView::new(config, id),
            up: true,
            wanted: BTreeSet::new(),
            dialling: BTreeSet::new(),
            neighbours: BTreeSet::new(),
            joined: 0,
            heard: 0,
            saved: None,
            tick: u64::MAX,
        });
        self.side.push(0);
        id
    }

    /// A new life of a dead node, with what it has saved.
    pub(super) fn restart(&mut self, id: Id) {
        let config = self.config.clone();
        let host = self.host(id);
        assert!(!host.up);
        host.up = true;
        host.overlay = HyParView::new(config, id);
        if let Some(saved) = host.saved.clone() {
            self.tell(id, Event::Loaded(saved));
        }
    }

    pub(super) fn host(&mut self, id: Id) -> &mut Host {
        &mut self.hosts[id.0 as usize]
    }

    fn at(&mut self, time: u64, step: Step) {
        self.count += 1;
        self.queue.push(Reverse(Entry(time, self.count, step)));
    }

    fn some_delay(&mut self) -> u64 {
        self.rng.random_range(self.delay / 2..=self.delay)
    }

    pub(super) fn is_near(&self, a: Id, b: Id) -> bool {
        a.0 % self.clusters == b.0 % self.clusters
    }

    fn delay_between(&mut self, a: Id, b: Id) -> u64 {
        let near = self.clusters > 1 && self.is_near(a, b);
        self.some_delay() / if near { 10 } else { 1 }
    }

    pub(super) fn tell(&mut self, id: Id, event: Event<Id, Message<Id>>) {
        self.events += 1;
        let mut effects = std::mem::take(&mut self.effects);
        let now = Duration::from_micros(self.now);
        let host = &mut self.hosts[id.0 as usize];
        let seed = self.seed;
        host.overlay
            .handle(now, event, &mut self.rng, &mut effects)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        for effect in effects.drain(..) {
            self.effect(id, effect);
        }
        self.effects = effects;
        self.check(id);
        let host = self.host(id);
        if let Some(at) = host.overlay.deadline() {
            let at = at.as_nanos().div_ceil(1000) as u64;
            if at != host.tick {
                host.tick = at;
                self.at(at.max(self.now), Step::Tick(id, at));
            }
        }
    }

    fn effect(&mut self, id: Id, effect: Effect<Id, Message<Id>>) {
        let seed = self.seed;
        match effect {
            Effect::Send { to, message } => self.send(id, to, Item::Say(message)),
            Effect::Want(to) => {
                assert_ne!(id, to, "seed {seed}");
                self.host(id).wanted.insert(to);
                let open = self
                    .links
                    .get(&key(id, to))
                    .is_some_and(|l| l.open[end(id, to)]);
                if !open && self.host(id).dialling.insert(to) {
                    let at = self.now + self.delay_between(id, to);
                    self.at(at, Step::Connect { from: id, to });
                }
            }
            Effect::Release(to) => {
                self.host(id).wanted.remove(&to);
                self.host(id).dialling.remove(&to);
                self.unheard.remove(&(id, to));
                self.close(id, to);
            }
            Effect::NeighborUp(peer) => {
                assert!(self.host(id).neighbours.insert(peer), "seed {seed}: {id:?}");
            }
            Effect::NeighborDown(peer) => {
                assert!(
                    self.host(id).neighbours.remove(&peer),
                    "seed {seed}: {id:?}"
                );
            }
            Effect::Joined(_) => self.host(id).joined += 1,
            Effect::Persist(file) => self.host(id).saved = Some(file),
            Effect::MembersChanged | Effect::Left => {}
        }
    }

    fn send(&mut self, from: Id, to: Id, item: Item) {
        let delay = self.delay_between(from, to);
        let now = self.now;
        if let Some(link) = self.links.get_mut(&key(from, to))
            && (link.open[end(from, to)] || matches!(item, Item::Close))
        {
            let busy = &mut link.busy[end(to, from)];
            *busy = (*busy + 1).max(now + delay);
            let (link, at) = (link.id, *busy);
            self.at(
                at,
                Step::Arrive {
                    link,
                    from,
                    to,
                    item,
                },
            );
        }
    }

    fn close(&mut self, from: Id, to: Id) {
        if let Some(link) = self.links.get_mut(&key(from, to))
            && std::mem::take(&mut link.open[end(from, to)])
        {
            self.send(from, to, Item::Close);
        }
    }

    fn connect(&mut self, from: Id, to: Id) {
        let host = self.host(from);
        if !host.up || !host.dialling.contains(&to) {
            return;
        }
        let key = key(from, to);
        let unheard = self.unheard.contains(&(from, to)) || self.unheard.contains(&(to, from));
        let link = self.links.get(&key);
        if link.is_some_and(|link| link.open == [true; 2]) {
            self.host(from).dialling.remove(&to);
            return;
        }
        if link.is_some() || unheard {
            let at = self.now + self.some_delay();
            self.at(at, Step::Connect { from, to });
            return;
        }
        self.host(from).dialling.remove(&to);
        if !self.hosts[to.0 as usize].up || self.side[from.0 as usize] != self.side[to.0 as usize] {
            self.host(from).wanted.remove(&to);
            self.tell(from, Event::LinkFailed(to));
            return;
        }
        self.count += 1;
        let link = Link {
            id: self.count,
            open: [true; 2],
            busy: [0; 2],
        };
        self.links.insert(key, link);
        // The dialler's end is open for items from now on, but it hears of that first.
        self.send(to, from, Item::Up);
        self.tell(to, Event::LinkUp(from));
    }

    fn arrive(&mut self, id: u64, from: Id, to: Id, item: Item) {
        let key = key(from, to);
        let Some(link) = self.links.get(&key).filter(|link| link.id == id) else {
            return;
        };
        let open = link.open[end(to, from)];
        match item {
            Item::Close => {
                self.links.remove(&key);
                if open {
                    self.tell(to, Event::LinkDown(from, Down::Planned));
                }
            }
            _ if !open => {}
            Item::Up => self.tell(to, Event::LinkUp(from)),
            Item::Say(message) => {
                self.host(to).heard += 1;
                self.tell(to, Event::Message { from, message });
            }
        }
    }

    pub(super) fn crash(&mut self, id: Id) {
        self.crash_all(&HashSet::from([id]));
    }

    pub(super) fn crash_all(&mut self, dead: &HashSet<Id>) {
        for id in dead {
            let host = self.host(*id);
            host.up = false;
            host.wanted.clear();
            host.dialling.clear();
            host.neighbours.clear();
            host.tick = u64::MAX;
        }
        self.cut(|a, b| dead.contains(&a) || dead.contains(&b));
    }

    /// Breaks links.
    pub(super) fn cut(&mut self, which: impl Fn(Id, Id) -> bool) {
        let mut broken = Vec::new();
        for ((a, b), link) in self.links.extract_if(|(a, b), _| which(*a, *b)) {
            broken.extend(link.open[0].then_some((a, b)));
            broken.extend(link.open[1].then_some((b, a)));
        }
        broken.sort_unstable();
        for (at, peer) in broken {
            if self.host(at).up && self.unheard.insert((at, peer)) {
                let time = self.now + self.some_delay();
                self.at(time, Step::Broken { at, peer });
            }
        }
        let up = |id: Id, hosts: &[Host]| hosts[id.0 as usize].up;
        let hosts = &self.hosts;
        self.unheard.retain(|(at, _)| up(*at, hosts));
    }

    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time.as_micros() as u64;
        while let Some(Reverse(Entry(at, ..))) = self.queue.peek()
            && *at <= until
        {
            let Some(Reverse(Entry(at, _, step))) = self.queue.pop() else {
                return;
            };
            self.now = at;
            match step {
                Step::Arrive {
                    link,
                    from,
                    to,
                    item,
                } => self.arrive(link, from, to, item),
                Step::Connect { from, to } => self.connect(from, to),
                Step::Broken { at, peer } => {
                    if self.unheard.remove(&(at, peer)) {
                        self.tell(at, Event::LinkDown(peer, Down::Failed));
                    }
                }
                Step::Tick(id, at) => {
                    if self.host(id).up && self.host(id).tick == at {
                        self.host(id).tick = u64::MAX;
                        self.tell(id, Event::Tick);
                        let next = self.host(id).tick;
                        assert!(
                            next > self.now,
                            "seed {}: {id:?} wants ticks for ever",
                            self.seed
                        );
                    }
                }
            }
        }
        self.now = until;
    }

    /// What holds for a node at any time.
    fn check(&self, id: Id) {
        let host = &self.hosts[id.0 as usize];
        let overlay = &host.overlay;
        let seed = self.seed;
        let active: BTreeSet<Id> = overlay.active().copied().collect();
        assert_eq!(active, host.neighbours, "seed {seed}: {id:?}");
        assert_eq!(active.len(), overlay.active().len(), "seed {seed}: {id:?}");
        assert!(active.len() <= self.config.active, "seed {seed}: {id:?}");
        assert!(
            overlay.passive().len() <= self.config.passive,
            "seed {seed}: {id:?}"
        );
        assert!(!active.contains(&id), "seed {seed}: {id:?}");
        for peer in overlay.passive() {
            assert!(*peer != id && !active.contains(peer), "seed {seed}: {id:?}");
        }
        for peer in &active {
            assert!(host.wanted.contains(peer), "seed {seed}: {id:?} {peer:?}");
        }
        assert!(
            overlay.history().count() <= self.config.history,
            "seed {seed}: {id:?}"
        );
        if let Some(at) = overlay.deadline() {
            let limit = self.now + 3_600_000_000;
            assert!(at.as_micros() as u64 <= limit, "seed {seed}: {id:?}");
        }
    }

    /// The graph of those that are up.
    pub(super) fn graph(&self) -> Graph {
        let edges = self
            .hosts
            .iter()
            .map(|host| match host.up {
                true => host.overlay.active().map(|peer| peer.0 as usize).collect(),
                false => Vec::new(),
            })
            .collect();
        let up = self.hosts.iter().map(|host| host.up).collect();
        Graph { edges, up }
    }
}

/// Who counts whom as a neighbour.
pub(super) struct Graph {
    pub(super) edges: Vec<Vec<usize>>,
    pub(super) up: Vec<bool>,
}

impl Graph {
    pub(super) fn nodes(&self) -> impl Iterator<Item = usize> {
        (0..self.edges.len()).filter(|id| self.up[*id])
    }

    pub(super) fn one_sided(&self) -> Vec<(usize, usize)> {
        self.nodes()
            .flat_map(|a| self.edges[a].iter().map(move |b| (a, *b)))
            .filter(|(a, b)| !self.up[*b] || !self.edges[*b].contains(a))
            .collect()
    }

    /// Steps from one node to all.
    pub(super) fn distances(&self, from: usize) -> Vec<Option<usize>> {
        let mut steps = vec![None; self.edges.len()];
        steps[from] = Some(0);
        let mut queue = VecDeque::from([from]);
        while let Some(at) = queue.pop_front() {
            let next = steps[at].map(|n: usize| n + 1);
            for to in &self.edges[at] {
                if self.up[*to] && steps[*to].is_none() {
                    steps[*to] = next;
                    queue.push_back(*to);
                }
            }
        }
        steps
    }

    /// Sizes of the components, largest first.
    pub(super) fn components(&self) -> Vec<usize> {
        let mut seen = vec![false; self.edges.len()];
        let mut sizes = Vec::new();
        for id in self.nodes() {
            if !seen[id] {
                let steps = self.distances(id);
                let mine = (0..steps.len()).filter(|to| steps[*to].is_some());
                sizes.push(mine.inspect(|to| seen[*to] = true).count());
            }
        }
        sizes.sort_unstable_by_key(|size| Reverse(*size));
        sizes
    }

    /// Mean of the local clustering coefficients.
    pub(super) fn clustering(&self) -> f64 {
        let mut sum = 0.0;
        for id in self.nodes() {
            let near = &self.edges[id];
            let pairs = near.len() * near.len().saturating_sub(1);
            if pairs > 0 {
                let linked = near
                    .iter()
                    .flat_map(|a| near.iter().map(move |b| (a, b)))
                    .filter(|(a, b)| self.edges[**a].contains(b))
                    .count();
                sum += linked as f64 / pairs as f64;
            }
        }
        sum / self.nodes().count() as f64
    }
}
