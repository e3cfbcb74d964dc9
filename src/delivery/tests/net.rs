//! A network of nodes whose sessions break, that restart, whose mailboxes are full at times, with everything delayed at
//! random; and what must hold.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::delivery::causal::Id;
use crate::delivery::{Config, Effect, Event, Lane, Message, Parcel, State};
use crate::wire::frame::Dest;

const STEP: Duration = Duration::from_millis(1);

/// Messages that fit a connection.
const WIRE: usize = 4;

/// Who sent a message: node and incarnation.
type Who = (usize, u64);

struct Sent {
    from: Who,
    to: Who,
    lane: Lane,
    /// For labels: all that its sender had sent or seen.
    past: BTreeSet<usize>,
}

struct Node {
    state: State,
    instance: u64,
    /// Incarnations of the last sessions.
    met: BTreeMap<usize, u64>,
    ready: BTreeSet<(usize, Lane)>,
    stuck: Vec<(usize, Lane)>,
    /// Sent or delivered in this incarnation, by label.
    seen: BTreeMap<Lane, BTreeSet<usize>>,
    delivered: Vec<usize>,
}

#[derive(Default)]
struct Wire {
    queue: VecDeque<(Duration, Message)>,
}

struct World {
    rng: SmallRng,
    now: Duration,
    config: Config,
    nodes: Vec<Node>,
    /// Sessions that are up, with both directions.
    up: BTreeSet<(usize, usize)>,
    wires: BTreeMap<(usize, usize), Wire>,
    sent: Vec<Sent>,
    /// What has been delivered to each incarnation.
    deliveries: BTreeMap<Who, Vec<usize>>,
    instances: u64,
    /// Duplicates across restarts, and messages that ended with an incarnation.
    lost: u64,
    late: u64,
    refused: u64,
    delay: u64,
    full: u32,
}

fn name(node: usize) -> Arc<str> {
    format!("n{node}@h").into()
}

fn number(name: &str) -> usize {
    name[1..name.len() - 2].parse().unwrap()
}

impl World {
    fn new(seed: u64, nodes: usize, config: Config) -> Self {
        let mut world = Self {
            rng: SmallRng::seed_from_u64(seed),
            now: Duration::ZERO,
            config,
            nodes: Vec::new(),
            up: BTreeSet::new(),
            wires: BTreeMap::new(),
            sent: Vec::new(),
            deliveries: BTreeMap::new(),
            instances: 0,
            lost: 0,
            late: 0,
            refused: 0,
            delay: 60,
            full: 10,
        };
        for node in 0..nodes {
            let fresh = world.fresh(node);
            world.nodes.push(fresh);
        }
        for a in 0..nodes {
            for b in 0..a {
                world.link(b, a);
            }
        }
        world
    }

    fn fresh(&mut self, node: usize) -> Node {
        self.instances += 1;
        let own = Id {
            node: name(node),
            instance: self.instances,
        };
        Node {
            state: State::new(self.config.clone(), own),
            instance: self.instances,
            met: BTreeMap::new(),
            ready: BTreeSet::new(),
            stuck: Vec::new(),
            seen: BTreeMap::new(),
            delivered: Vec::new(),
        }
    }

    fn who(&self, node: usize) -> Who {
        (node, self.nodes[node].instance)
    }

    fn link(&mut self, a: usize, b: usize) {
        if !self.up.insert((a.min(b), a.max(b))) {
            return;
        }
        self.wires.insert((a, b), Wire::default());
        self.wires.insert((b, a), Wire::default());
        for (one, other) in [(a, b), (b, a)] {
            let instance = self.nodes[other].instance;
            self.nodes[one].met.insert(other, instance);
            self.feed(one, Event::Up(name(other), instance));
        }
    }

    fn cut(&mut self, a: usize, b: usize) {
        if !self.up.remove(&(a.min(b), a.max(b))) {
            return;
        }
        self.wires.remove(&(a, b));
        self.wires.remove(&(b, a));
        for (one, other) in [(a, b), (b, a)] {
            self.feed(one, Event::Down(name(other)));
        }
    }

    fn restart(&mut self, node: usize) {
        for other in 0..self.nodes.len() {
            if other != node {
                self.cut(node, other);
            }
        }
        let fresh = self.fresh(node);
        self.nodes[node] = fresh;
    }

    /// False if there is no room.
    fn send(&mut self, from: usize, to: usize, lane: Lane) -> bool {
        let mut parcel = Vec::new();
        let term = (self.sent.len() as u64).to_be_bytes();
        let dest = Dest::Name("p");
        Parcel { dest, term: &term }.encode(&mut parcel);
        let node = &self.nodes[from];
        let knows = node.state.knows(&name(to));
        if !knows || !node.state.has_room(&name(to), &lane, parcel.len()) {
            self.refused += u64::from(knows);
            return false;
        }
        let id = self.sent.len();
        let seen = self.nodes[from].seen.entry(lane.clone()).or_default();
        let past = match lane.label() {
            Some(_) => seen.clone(),
            None => BTreeSet::new(),
        };
        seen.insert(id);
        self.sent.push(Sent {
            from: self.who(from),
            to: (to, self.nodes[from].met[&to]),
            lane: lane.clone(),
            past,
        });
        self.feed(from, Event::Send(name(to), lane, Bytes::from(parcel)));
        true
    }

    fn feed(&mut self, node: usize, event: Event) {
        let mut effects = Vec::new();
        let now = self.now;
        self.nodes[node]
            .state
            .handle(now, event, &mut effects)
            .unwrap();
        for effect in effects {
            match effect {
                Effect::Ready(to, lane) => {
                    self.nodes[node].ready.insert((number(&to), lane));
                }
                Effect::Deliver(from, lane) => self.deliver(node, number(&from), lane),
                Effect::Reach(_) | Effect::Room | Effect::GivenUp(_) => {}
                Effect::Lost(_, count, _) => self.lost += count,
                Effect::Late(..) => self.late += 1,
            }
        }
    }

    fn deliver(&mut self, node: usize, from: usize, lane: Lane) {
        if self.rng.random_range(0..100) < self.full {
            self.nodes[node].stuck.push((from, lane));
            return;
        }
        let Some(parcel) = self.nodes[node].state.parcel(&name(from), &lane) else {
            return;
        };
        let id = u64::from_be_bytes(parcel.term.try_into().unwrap()) as usize;
        self.check(node, from, id);
        let seen = self.nodes[node].seen.entry(lane.clone()).or_default();
        seen.insert(id);
        seen.extend(&self.sent[id].past);
        let who = self.who(node);
        self.deliveries.entry(who).or_default().push(id);
        self.nodes[node].delivered.push(id);
        self.feed(node, Event::Delivered(name(from), lane));
    }

    /// Once, in its sender's order, and after what it depends on.
    fn check(&self, node: usize, from: usize, id: usize) {
        let sent = &self.sent[id];
        let had = &self.nodes[node].delivered;
        assert_eq!(sent.from.0, from);
        assert!(!had.contains(&id), "message {id} comes twice");
        let same = |&&other: &&usize| {
            self.sent[other].from == sent.from && self.sent[other].lane == sent.lane
        };
        if let Some(&last) = had.iter().rfind(same) {
            assert!(last < id, "message {id} comes after {last}");
        }
        for &before in &sent.past {
            let other = &self.sent[before];
            let alive = self.nodes[other.from.0].instance == other.from.1;
            if other.to == self.who(node) && alive {
                assert!(had.contains(&before), "message {id} comes before {before}");
            }
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        for node in 0..self.nodes.len() {
            if self.nodes[node]
                .state
                .deadline()
                .is_some_and(|at| at <= self.now)
            {
                self.feed(node, Event::Tick);
            }
            for (from, lane) in std::mem::take(&mut self.nodes[node].stuck) {
                self.deliver(node, from, lane);
            }
            for (to, lane) in std::mem::take(&mut self.nodes[node].ready) {
                self.push(node, to, lane);
            }
        }
        let keys: Vec<_> = self.wires.keys().copied().collect();
        for (from, to) in keys {
            while let Some(wire) = self.wires.get_mut(&(from, to))
                && wire.queue.front().is_some_and(|(at, _)| *at <= self.now)
                && let Some((_, message)) = wire.queue.pop_front()
            {
                self.feed(to, Event::Message(name(from), message));
            }
        }
    }

    fn push(&mut self, node: usize, to: usize, lane: Lane) {
        loop {
            let Some(wire) = self.wires.get_mut(&(node, to)) else {
                return;
            };
            if wire.queue.len() >= WIRE {
                self.nodes[node].ready.insert((to, lane));
                return;
            }
            let Some(message) = self.nodes[node].state.next(&name(to), &lane) else {
                return;
            };
            // As bytes, as they travel.
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            let message = Message::decode(&bytes).unwrap();
            let last = wire.queue.back().map_or(self.now, |(at, _)| *at);
            let at = self.now + STEP * self.rng.random_range(0..self.delay) as u32;
            wire.queue.push_back((last.max(at), message.clone()));
            self.feed(node, Event::Sent(name(to), message));
        }
    }

    fn outstanding(&self) -> usize {
        self.nodes.iter().map(|n| n.state.outstanding().0).sum()
    }

    /// All links are up and nothing is sent any more.
    fn settle(&mut self) {
        let end = self.now + Duration::from_secs(300);
        while self.outstanding() > 0 {
            assert!(self.now < end, "{} messages hang", self.outstanding());
            for a in 0..self.nodes.len() {
                for b in 0..a {
                    self.link(b, a);
                }
            }
            self.step();
        }
    }
}

fn small() -> Config {
    let mut config = Config::default();
    config.acked.bytes = 4000;
    config.acked.messages = 40;
    config.acked.hold = 100;
    config.acked.held = 500;
    config.causal.patience = Duration::from_secs(3600);
    config
}

fn lanes() -> [Lane; 4] {
    [
        Lane::Channel("undefined".into()),
        Lane::Channel("bulk".into()),
        Lane::Label("red".into()),
        Lane::Label("blue".into()),
    ]
}

fn run(seed: u64, restarts: bool) -> World {
    let mut world = World::new(seed, 5, small());
    let nodes = world.nodes.len();
    for _ in 0..3000 {
        let (a, b) = (
            world.rng.random_range(0..nodes),
            world.rng.random_range(0..nodes),
        );
        let lane = lanes()[world.rng.random_range(0..4)].clone();
        if a != b {
            match world.rng.random_range(0..100) {
                0..60 => {
                    world.send(a, b, lane);
                }
                60..62 => world.cut(a, b),
                62..70 => world.link(a, b),
                70 if restarts && world.rng.random_range(0..4) == 0 => world.restart(a),
                _ => {}
            }
        }
        world.step();
    }
    world.settle();
    world
}

/// Every message of lasting incarnations exactly once (that it is not more is checked at each delivery).
fn complete(world: &World) {
    let all: BTreeSet<usize> = world.deliveries.values().flatten().copied().collect();
    for (id, sent) in world.sent.iter().enumerate() {
        let sender = world.nodes[sent.from.0].instance == sent.from.1;
        let receiver = world.nodes[sent.to.0].instance == sent.to.1;
        // To whoever has restarted what is acknowledged comes all the same, what is causal does not.
        if sender && (receiver || sent.lane.label().is_none()) {
            assert!(all.contains(&id), "message {id} has not come");
        }
    }
}

fn seeds(restarts: bool) {
    let base: u64 = rand::rng().random_range(0..1 << 40);
    let mut sent = 0;
    for seed in base..base + 40 {
        let outcome = std::panic::catch_unwind(|| {
            let world = run(seed, restarts);
            complete(&world);
            assert_eq!(world.late, 0);
            assert!(restarts || world.lost == 0);
            // The bounds were felt.
            assert!(world.refused > 0);
            world.sent.len()
        });
        match outcome {
            Ok(count) => sent += count,
            Err(panic) => {
                eprintln!("seed {seed}, restarts {restarts}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    assert!(sent > 40 * 500, "{sent}");
}

#[test]
fn sessions_break_and_nothing_is_lost_doubled_or_out_of_order() {
    seeds(false);
}

#[test]
fn nodes_restart_and_lasting_ones_lose_nothing() {
    seeds(true);
}

#[test]
fn a_seed_gives_the_same_run() {
    let one = run(7, true);
    let two = run(7, true);
    assert_eq!(one.deliveries, two.deliveries);
    assert_eq!(one.now, two.now);
}
