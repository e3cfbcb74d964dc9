//! Tests that run many nodes on a network in virtual time: links with delays that keep order,
//! partitions, crashes with and without a data directory. Each run is decided by its seed,
//! which stands in every failure message.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::overlay::Down;

type Id = usize;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Deliver {
        link: u64,
        from: Id,
        to: Id,
        bytes: Arc<[u8]>,
    },
    Close {
        link: u64,
    },
    Dial,
    Periodic(Id, u32),
}

struct Host {
    state: State,
    up: bool,
    /// Tells one life of the host from the next.
    life: u32,
    port: u16,
    disk: Option<Vec<u8>>,
    wanted: BTreeMap<Arc<str>, Contact>,
    side: u8,
    left: u32,
    joined: Vec<Arc<str>>,
    shown: Vec<NodeSpec>,
}

struct Link {
    id: u64,
    /// When the last message of each direction arrives; later ones arrive later.
    busy: [u64; 2],
    /// The end that has released it, of the lesser id first, hears no more of it.
    released: [bool; 2],
}

struct Net {
    seed: u64,
    rng: SmallRng,
    now: u64,
    count: u64,
    queue: BinaryHeap<Reverse<(u64, u64, Step)>>,
    hosts: Vec<Host>,
    links: BTreeMap<(Id, Id), Link>,
    messages: u64,
    bytes: u64,
    max_delay: u64,
}

fn name(id: Id) -> Arc<str> {
    format!("n{id:03}@h").into()
}

fn id(name: &str) -> Id {
    name[1..4].parse().unwrap()
}

fn spec(id: Id, port: u16) -> NodeSpec {
    NodeSpec {
        name: name(id),
        listen_addrs: vec![([10, 0, 0, id as u8], port).into()],
        channels: Vec::new(),
    }
}

fn contact(id: Id, port: u16) -> Contact {
    Contact::new(spec(id, port)).unwrap()
}

fn plain(contact: &Contact) -> NodeSpec {
    (**contact.spec()).clone()
}

fn fresh(id: Id, port: u16) -> State {
    State::new(Config::default(), contact(id, port))
}

impl Net {
    fn new(seed: u64, hosts: usize) -> Self {
        let hosts = (0..hosts)
            .map(|id| Host {
                state: fresh(id, 1),
                up: true,
                life: 0,
                port: 1,
                disk: None,
                wanted: BTreeMap::new(),
                side: 0,
                left: 0,
                joined: Vec::new(),
                shown: vec![spec(id, 1)],
            })
            .collect::<Vec<_>>();
        let mut net = Self {
            seed,
            rng: SmallRng::seed_from_u64(seed),
            now: 0,
            count: 0,
            queue: BinaryHeap::new(),
            hosts,
            links: BTreeMap::new(),
            messages: 0,
            bytes: 0,
            max_delay: 300,
        };
        for id in 0..net.hosts.len() {
            net.start_periodic(id);
        }
        net.after(1, Step::Dial);
        net
    }

    fn after(&mut self, delay: u64, step: Step) {
        self.count += 1;
        self.queue
            .push(Reverse((self.now + delay, self.count, step)));
    }

    fn start_periodic(&mut self, id: Id) {
        let delay = self.rng.random_range(0..10_000);
        self.after(delay, Step::Periodic(id, self.hosts[id].life));
    }

    fn event(&mut self, id: Id, event: Event) {
        if !self.hosts[id].up {
            return;
        }
        let mut effects = Vec::new();
        let now = Duration::from_millis(self.now);
        let host = &mut self.hosts[id];
        if let Err(error) = host.state.handle(now, event, &mut self.rng, &mut effects) {
            panic!("seed {}: {error}", self.seed);
        }
        for effect in effects {
            let host = &mut self.hosts[id];
            match effect {
                Effect::Send { to, message } => {
                    self.send(id, super::simulation::id(to.name()), message.0);
                }
                Effect::Want(peer) => {
                    host.wanted.insert(peer.name().clone(), peer);
                }
                Effect::Release(peer) => {
                    host.wanted.remove(peer.name());
                    let other = super::simulation::id(peer.name());
                    if let Some(link) = self.links.get_mut(&(id.min(other), id.max(other))) {
                        // Behind what is queued. Nothing of it concerns this end any longer.
                        let side = usize::from(id > other);
                        link.released[side] = true;
                        let delay = link.busy[side].saturating_sub(self.now);
                        let link = link.id;
                        self.after(delay + 1, Step::Close { link });
                    }
                }
                Effect::NeighborUp(_) | Effect::NeighborDown(_) => {}
                Effect::MembersChanged => {
                    let list: Vec<NodeSpec> = host.state.members().iter().map(plain).collect();
                    assert_ne!(list, host.shown, "seed {}", self.seed);
                    host.shown = list;
                }
                Effect::Persist(bytes) => host.disk = Some(bytes),
                Effect::Left => host.left += 1,
                Effect::Joined(peer) => host.joined.push(peer.name().clone()),
            }
        }
    }

    fn send(&mut self, from: Id, to: Id, bytes: Arc<[u8]>) {
        let delay = self.rng.random_range(1..=self.max_delay);
        let Some(link) = self.links.get_mut(&(from.min(to), from.max(to))) else {
            return;
        };
        self.messages += 1;
        self.bytes += bytes.len() as u64;
        let busy = &mut link.busy[usize::from(from > to)];
        *busy = (self.now + delay).max(*busy + 1);
        let (link, delay) = (link.id, *busy - self.now);
        self.after(
            delay,
            Step::Deliver {
                link,
                from,
                to,
                bytes,
            },
        );
    }

    /// Opens the links that somebody wants, and closes those that nobody wants.
    fn dial(&mut self) {
        let reaches = |a: &Host, b: Id, net: &Net| {
            let host = &net.hosts[b];
            let addr = spec(b, host.port).listen_addrs[0];
            a.wanted
                .get(&name(b))
                .is_some_and(|c| c.spec().listen_addrs.contains(&addr))
        };
        for a in 0..self.hosts.len() {
            for b in a + 1..self.hosts.len() {
                let (x, y) = (&self.hosts[a], &self.hosts[b]);
                let possible = x.up && y.up && x.side == y.side;
                let wanted = possible && (reaches(x, b, self) || reaches(y, a, self));
                match self.links.contains_key(&(a, b)) {
                    true if !possible => self.close(a, b),
                    false if wanted && self.rng.random_bool(0.7) => {
                        self.count += 1;
                        let id = self.count;
                        self.links.insert(
                            (a, b),
                            Link {
                                id,
                                busy: [0, 0],
                                released: [false, false],
                            },
                        );
                        let (x, y) = (self.contact(a), self.contact(b));
                        self.event(a, Event::LinkUp(y));
                        self.event(b, Event::LinkUp(x));
                    }
                    _ => {}
                }
            }
        }
    }

    fn close(&mut self, a: Id, b: Id) {
        let Some(link) = self.links.remove(&(a, b)) else {
            return;
        };
        for (end, other, side) in [(a, b, 0), (b, a, 1)] {
            let how = match link.released[1 - side] {
                true => Down::Planned,
                false => Down::Failed,
            };
            if !link.released[side] {
                let other = self.contact(other);
                self.event(end, Event::LinkDown(other, how));
            }
        }
    }

    fn run(&mut self, millis: u64) {
        let end = self.now + millis;
        while let Some(Reverse((at, _, _))) = self.queue.peek() {
            if *at > end {
                break;
            }
            let Some(Reverse((at, _, step))) = self.queue.pop() else {
                break;
            };
            self.now = at;
            match step {
                Step::Deliver {
                    link,
                    from,
                    to,
                    bytes,
                } => {
                    let pair = (from.min(to), from.max(to));
                    let side = usize::from(to > from);
                    let link = self.links.get(&pair).filter(|l| l.id == link);
                    if link.is_some_and(|l| !l.released[side]) {
                        let (from, message) = (self.contact(from), Message(bytes));
                        self.event(to, Event::Message { from, message });
                    }
                }
                Step::Close { link } => {
                    let pair = self
                        .links
                        .iter()
                        .find(|(_, l)| l.id == link)
                        .map(|(p, _)| *p);
                    if let Some((a, b)) = pair {
                        self.close(a, b);
                    }
                }
                Step::Dial => {
                    self.dial();
                    self.after(500, Step::Dial);
                }
                Step::Periodic(id, life) => {
                    if self.hosts[id].life == life {
                        self.event(id, Event::Tick);
                        let next = self.hosts[id].state.deadline().map(|at| at.as_millis());
                        let delay = next.map_or(10_000, |at| (at as u64).saturating_sub(self.now));
                        self.after(delay.max(1), Step::Periodic(id, life));
                    }
                }
            }
        }
        self.now = end;
    }

    fn contact(&self, id: Id) -> Contact {
        contact(id, self.hosts[id].port)
    }

    fn join(&mut self, id: Id, other: Id) {
        let other = self.contact(other);
        self.event(id, Event::Join(other));
    }

    fn crash(&mut self, id: Id) {
        let pairs: Vec<_> = self.links.keys().copied().collect();
        for (a, b) in pairs.into_iter().filter(|p| p.0 == id || p.1 == id) {
            self.close(a, b);
        }
        self.hosts[id].up = false;
        self.hosts[id].life += 1;
    }

    fn start(&mut self, id: Id, keep: bool, port: u16) {
        let host = &mut self.hosts[id];
        host.up = true;
        host.port = port;
        host.state = fresh(id, port);
        host.wanted.clear();
        host.shown = vec![spec(id, port)];
        host.joined.clear();
        host.left = 0;
        let disk = host.disk.take();
        if let Some(bytes) = disk.filter(|_| keep) {
            self.event(id, Event::Loaded(bytes));
        }
        self.start_periodic(id);
    }

    fn view(&self, id: Id) -> BTreeSet<Id> {
        let state = &self.hosts[id].state;
        state
            .state()
            .present()
            .map(|s| super::simulation::id(&s.name))
            .collect()
    }

    /// Runs until states have settled, and checks that they then rest.
    fn settle(&mut self) {
        self.run(60_000);
        let before = self.messages;
        self.run(60_000);
        let most = 6 * 5 * self.hosts.len() as u64;
        let sent = self.messages - before;
        assert!(sent <= most, "seed {}: {sent} messages at rest", self.seed);
    }

    #[track_caller]
    fn expect(&self, clusters: &[&[Id]]) {
        for cluster in clusters {
            for &id in cluster.iter().filter(|id| self.hosts[**id].up) {
                let expected: BTreeSet<Id> = cluster.iter().copied().collect();
                assert_eq!(self.view(id), expected, "seed {}: view of {id}", self.seed);
            }
        }
    }

    /// All live nodes that see each other agree, and seeing is mutual.
    fn expect_agreement(&self) {
        for id in 0..self.hosts.len() {
            for other in self.view(id) {
                let (seed, a, b) = (self.seed, &self.hosts[id], &self.hosts[other]);
                let (a, b) = (a.state.state(), b.state.state());
                assert_eq!(a, b, "seed {seed}: states of {id} and {other}");
            }
            let host = &self.hosts[id];
            assert!(host.state.state().present().map(|s| &**s).eq(&host.shown));
        }
    }
}

fn cluster(seed: u64, hosts: usize) -> Net {
    let mut net = Net::new(seed, hosts);
    for id in 1..hosts {
        let other = net.rng.random_range(0..id);
        net.join(id, other);
        if net.rng.random() {
            net.run(700);
        }
    }
    net.settle();
    let all: Vec<Id> = (0..hosts).collect();
    net.expect(&[&all]);
    net
}

#[test]
fn joins_in_any_order_give_one_cluster() {
    for seed in 0..20 {
        let hosts = 2 + (seed as usize * 3) % 29;
        let net = cluster(seed, hosts);
        assert_eq!(net.links.len(), hosts * (hosts - 1) / 2);
        for host in &net.hosts {
            assert_eq!(host.left, 0);
        }
        let joined: usize = net.hosts.iter().map(|h| h.joined.len()).sum();
        assert_eq!(joined, hosts - 1, "seed {seed}");
    }
}

#[test]
fn two_nodes_join_each_other_at_once() {
    for seed in 0..20 {
        let mut net = Net::new(seed, 2);
        net.join(0, 1);
        net.join(1, 0);
        net.settle();
        net.expect(&[&[0, 1]]);
        assert_eq!(net.hosts[0].joined, [name(1)]);
        assert_eq!(net.hosts[1].joined, [name(0)]);
    }
}

#[test]
fn two_clusters_join_and_a_join_waits_for_a_node_that_is_down() {
    for seed in 0..10 {
        let mut net = Net::new(seed, 6);
        for (a, b) in [(0, 1), (1, 2), (3, 4), (4, 5)] {
            net.join(a, b);
        }
        net.settle();
        net.expect(&[&[0, 1, 2], &[3, 4, 5]]);
        net.crash(4);
        net.join(1, 4);
        net.settle();
        net.expect(&[&[0, 1, 2], &[3, 4, 5]]);
        net.start(4, true, 1);
        net.settle();
        net.expect(&[&[0, 1, 2, 3, 4, 5]]);
    }
}

#[test]
fn a_leave_is_seen_by_all_and_the_node_can_come_back() {
    for seed in 0..20 {
        let mut net = cluster(seed, 5);
        net.event(2, Event::Leave);
        assert_eq!(net.view(2), BTreeSet::from([2]));
        net.settle();
        net.expect(&[&[0, 1, 3, 4], &[2]]);
        assert_eq!(net.hosts[2].left, 1);
        assert!(net.links.keys().all(|(a, b)| *a != 2 && *b != 2));
        // Either side may ask.
        if seed % 2 == 0 {
            net.join(2, 4);
        } else {
            net.join(4, 2);
        }
        net.settle();
        net.expect(&[&[0, 1, 2, 3, 4]]);
        // And at once after a leave, while its sessions are still closing.
        net.event(2, Event::Leave);
        net.join(2, 0);
        net.settle();
        net.expect(&[&[0, 1, 2, 3, 4]]);
    }
}

#[test]
fn removal_of_a_live_node_makes_it_alone() {
    for seed in 0..20 {
        let mut net = cluster(seed, 4);
        net.event(0, Event::Remove(contact(3, 1)));
        net.settle();
        net.expect(&[&[0, 1, 2], &[3]]);
        assert_eq!(net.hosts[3].left, 1);
        assert!(net.links.keys().all(|(_, b)| *b != 3));
    }
}

#[test]
fn removal_of_a_node_that_is_down_wins_over_its_disk() {
    for seed in 0..20 {
        let mut net = cluster(seed, 4);
        net.crash(3);
        net.settle();
        net.expect(&[&[0, 1, 2, 3]]);
        net.event(1, Event::Remove(contact(3, 1)));
        net.settle();
        net.expect(&[&[0, 1, 2]]);
        net.start(3, true, 1);
        assert_eq!(net.view(3).len(), 4);
        net.settle();
        net.expect(&[&[0, 1, 2], &[3]]);
        assert_eq!(net.hosts[3].left, 1);
        net.join(3, 0);
        net.settle();
        net.expect(&[&[0, 1, 2, 3]]);
    }
}

#[test]
fn a_node_that_was_away_during_a_leave_lets_the_leaver_be() {
    for seed in 0..20 {
        let mut net = cluster(seed, 2);
        net.crash(1);
        net.run(2_000);
        net.event(0, Event::Leave);
        net.start(1, true, 1);
        assert_eq!(net.view(1).len(), 2);
        net.settle();
        net.expect(&[&[0], &[1]]);
        assert_eq!(net.hosts[1].left, 0);
    }
}

#[test]
fn a_node_that_went_to_another_cluster_drags_nobody_along() {
    for seed in 0..20 {
        let mut net = Net::new(seed, 5);
        for (a, b) in [(0, 1), (1, 2), (3, 4)] {
            net.join(a, b);
        }
        net.settle();
        net.crash(0);
        net.run(2_000);
        net.event(2, Event::Leave);
        net.run(2_000);
        net.join(2, 3);
        net.run(5_000);
        net.crash(1);
        net.start(0, true, 1);
        net.settle();
        net.expect(&[&[0, 1], &[2, 3, 4]]);
        net.start(1, true, 1);
        net.settle();
        net.expect(&[&[0, 1], &[2, 3, 4]]);
    }
}

#[test]
fn a_member_with_another_address_is_found() {
    for seed in 0..20 {
        let mut net = cluster(seed, 4);
        net.crash(2);
        net.run(3_000);
        net.start(2, true, 7);
        net.settle();
        net.expect(&[&[0, 1, 2, 3]]);
        for host in &net.hosts {
            assert_eq!(**host.state.state().member(&name(2)).unwrap(), spec(2, 7));
        }
        assert_eq!(net.links.len(), 6);
        // While running, too.
        net.hosts[1].port = 9;
        net.event(1, Event::SelfChanged(contact(1, 9)));
        net.settle();
        for host in &net.hosts {
            assert_eq!(**host.state.state().member(&name(1)).unwrap(), spec(1, 9));
        }
    }
}

#[test]
fn a_node_without_a_disk_is_brought_back() {
    for seed in 0..20 {
        let mut net = cluster(seed, 4);
        net.event(2, Event::Leave);
        net.run(1_000);
        net.join(2, 0);
        net.settle();
        net.crash(2);
        net.start(2, false, 1);
        assert_eq!(net.view(2).len(), 1);
        net.settle();
        net.expect(&[&[0, 1, 2, 3]]);
        // Forgetful, removed, and joining again: the removal must not catch up with it.
        net.crash(2);
        net.event(0, Event::Remove(contact(2, 1)));
        net.settle();
        net.start(2, false, 1);
        net.join(2, 3);
        net.settle();
        net.expect(&[&[0, 1, 2, 3]]);
    }
}

#[test]
fn update_members_joins_and_removes() {
    let mut net = cluster(1, 3);
    net.event(0, Event::UpdateMembers(Vec::new()));
    net.settle();
    net.expect(&[&[0, 1, 2]]);
    net.event(2, Event::Leave);
    net.settle();
    net.event(0, Event::UpdateMembers(vec![contact(2, 1), contact(0, 1)]));
    net.settle();
    net.expect(&[&[0, 2], &[1]]);
}

#[test]
fn chaos_ends_in_agreement() {
    let runs = std::env::var("MESH_RUNS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(30);
    let first: u64 = std::env::var("MESH_SEED")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    for seed in first..first + runs {
        let mut net = Net::new(seed, 2 + (seed as usize * 5) % 29);
        net.max_delay = [20, 300, 5_000][seed as usize % 3];
        let hosts = net.hosts.len();
        let mut forgetful = false;
        for _ in 0..hosts * 6 {
            let a = net.rng.random_range(0..hosts);
            let b = net.rng.random_range(0..hosts);
            match net.rng.random_range(0..20) {
                0..=7 if a != b => net.join(a, b),
                8 => net.event(a, Event::Leave),
                9 => net.event(a, Event::Remove(contact(b, 1))),
                10..=12 if net.hosts[a].up => net.crash(a),
                13..=15 if !net.hosts[a].up => net.start(a, true, 1),
                16 if !net.hosts[a].up => {
                    forgetful = true;
                    net.start(a, false, 1);
                }
                17 => net.hosts[a].side = net.rng.random_range(0..3),
                18 => net.hosts.iter_mut().for_each(|h| h.side = 0),
                _ => {}
            }
            let pause = net.rng.random_range(0..3_000);
            net.run(pause);
        }
        for id in 0..hosts {
            net.hosts[id].side = 0;
            if !net.hosts[id].up {
                let keep = net.rng.random_bool(0.8);
                forgetful |= !keep;
                net.start(id, keep, 1);
            }
        }
        net.settle();
        net.expect_agreement();
        // Twice, for those that had forgotten their removal: see "Limits" in the module.
        for _ in 0..2 {
            for id in 1..hosts {
                net.join(id, id - 1);
            }
            net.settle();
            net.expect_agreement();
            if !forgetful {
                break;
            }
        }
        let all: Vec<Id> = (0..hosts).collect();
        net.expect(&[&all]);
    }
}

/// A settled cluster, without the trouble of having each node join: all but the last have been told by their
/// disks who is in it.
fn settled(seed: u64, hosts: usize) -> Net {
    let mut net = Net::new(seed, hosts);
    let mut members = Members::default();
    for id in 0..hosts - 1 {
        let spec = Arc::new(spec(id, 1));
        members.insert(name(id), Entry::present(1, 1, spec));
    }
    for id in 0..hosts - 1 {
        let file = message::encode_file(&name(id), &members);
        net.event(id, Event::Loaded(file));
    }
    net.settle();
    net
}

/// Messages and bytes while time passes.
fn traffic(net: &mut Net, millis: u64) -> (u64, u64) {
    let before = (net.messages, net.bytes);
    net.run(millis);
    (net.messages - before.0, net.bytes - before.1)
}

/// Each node sends its digest to five members each ten seconds, and a change costs little more than to tell it to
/// each member, however large the cluster is.
#[test]
fn rest_is_cheap_and_a_change_goes_to_each_member_a_few_times() {
    const HOSTS: u64 = 40;
    for seed in 0..3 {
        let mut net = settled(seed, HOSTS as usize);
        let (messages, bytes) = traffic(&mut net, 60_000);
        let most = (HOSTS - 1) * 5 * 7;
        assert!(messages <= most, "seed {seed}: {messages} messages at rest");
        assert_eq!(bytes, messages * 18, "seed {seed}: more than digests");
        let port = 9;
        net.hosts[3].port = port;
        net.event(3, Event::SelfChanged(contact(3, port)));
        let (messages, _) = traffic(&mut net, 2_000);
        let digests = HOSTS * 5;
        let most = HOSTS * 6 + 2 * digests;
        assert!(
            messages <= most,
            "seed {seed}: {messages} messages of a change"
        );
        for host in &net.hosts[..HOSTS as usize - 1] {
            let seen = host.state.state().member(&name(3)).unwrap();
            assert_eq!(**seen, spec(3, port), "seed {seed}");
        }
    }
}

/// The change reaches a member that the one who made it has no link to.
#[test]
fn news_are_passed_on() {
    for seed in 0..10 {
        let mut net = settled(seed, 12);
        // What 0 and 1 send each other is lost from now on.
        net.close(0, 1);
        net.hosts[0].wanted.remove(&name(1));
        net.hosts[1].wanted.remove(&name(0));
        net.event(0, Event::SelfChanged(contact(0, 7)));
        net.run(3_000);
        let seen = net.hosts[1].state.state().member(&name(0)).unwrap();
        assert_eq!(**seen, spec(0, 7), "seed {seed}");
    }
}

#[test]
#[ignore = "a measurement"]
fn measure() {
    for hosts in [50, 200] {
        let mut net = settled(1, hosts);
        let quiet = traffic(&mut net, 60_000);
        net.join(hosts - 1, 7);
        let joined = traffic(&mut net, 20_000);
        net.settle();
        let all: Vec<Id> = (0..hosts).collect();
        net.expect(&[&all]);
        println!("{hosts} nodes: a quiet minute {quiet:?}, a join {joined:?} (messages, bytes)");
    }
}

proptest::proptest! {
    /// Whatever members tell each other, lies included, the exchange ends.
    #[test]
    fn every_exchange_ends(
        lies in proptest::collection::vec(
            (0..3usize, 0..8usize, 0..7usize, super::state::tests::members()), 1..12),
        linked in proptest::collection::vec((0..3usize, 0..8usize), 0..12),
    ) {
        let kinds = [Kind::Join, Kind::Joined, Kind::State, Kind::Reply, Kind::News];
        let mut rng = SmallRng::seed_from_u64(1);
        let name = |id: usize| -> Arc<str> { format!("n{id}@h").into() };
        let peer = |id| Contact::new(NodeSpec { name: name(id), ..spec(id, 1) }).unwrap();
        let mut states: Vec<State> =
            (0..3).map(|id| State::new(Config::default(), peer(id))).collect();
        let mut events: std::collections::VecDeque<(usize, Event)> = linked
            .into_iter()
            .map(|(to, other)| (to, Event::LinkUp(peer(other))))
            .chain(lies.into_iter().map(|(to, from, kind, members)| {
                let bytes = match kinds.get(kind) {
                    Some(kind) => message::encode_message(*kind, &members),
                    None if kind == 5 => message::encode_digest(message::digest(&members)),
                    None => message::encode_ask(),
                };
                (to, Event::Message { from: peer(from), message: Message(bytes.into()) })
            }))
            .collect();
        let mut handled = 0;
        while let Some((at, event)) = events.pop_front() {
            handled += 1;
            proptest::prop_assert!(handled < 2_000, "no end");
            let mut effects = Vec::new();
            states[at].handle(Duration::ZERO, event, &mut rng, &mut effects).unwrap();
            for effect in effects {
                if let Effect::Send { to, message } = effect
                    && let Some(to) = (0..3).find(|id| name(*id) == *to.name())
                {
                    let from = peer(at);
                    events.push_back((to, Event::Message { from, message }));
                }
            }
            let state = &states[at];
            proptest::prop_assert!(state.state().member(&state.own.name).is_some());
        }
    }
}
