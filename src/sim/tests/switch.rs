//! Clusters that change their overlay, again and again, while nodes crash and the network is divided: the real
//! machines over the simulated network, driven at random.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

use super::super::latency::{Latency, NetworkConfig};
use super::super::network::{Frame, Network, Partition, Upcall};
use super::super::world::SECOND;
use super::with_seeds;
use crate::overlay::client_server::{self, ClientServer, Tag};
use crate::overlay::full_mesh;
use crate::overlay::hyparview::{self, HyParView};
use crate::overlay::switch::{Choice, Config, Message, Opaque, Switch};
use crate::overlay::{Contact, Effect, Effects, Error, Event, NodeSpec, Overlay};

pub(super) const NODES: u32 = 14;
const SERVERS: u32 = 3;
const OVERLAP: u64 = 15;

pub(super) fn contact(node: u32) -> Contact {
    Contact::new(NodeSpec {
        name: format!("n{node}@host").into(),
        listen_addrs: vec![format!("10.0.0.{}:1", node + 1).parse().unwrap()],
        channels: Vec::new(),
    })
    .unwrap()
}

pub(super) fn number(contact: &Contact) -> u32 {
    let digits = contact.name().trim_start_matches('n');
    digits.trim_end_matches("@host").parse().unwrap()
}

/// An overlay that is told of links and messages as the contract has it, or else the test fails.
struct Watched {
    overlay: Box<dyn Opaque<Contact>>,
    up: BTreeSet<Contact>,
    neighbors: BTreeSet<Contact>,
}

impl Opaque<Contact> for Watched {
    fn handle(
        &mut self,
        now: Duration,
        event: Event<Contact, Vec<u8>>,
        rng: &mut dyn Rng,
        effects: &mut Vec<Effect<Contact, Vec<u8>>>,
    ) -> Result<(), Error> {
        match &event {
            Event::LinkUp(peer) => assert!(self.up.insert(peer.clone()), "up twice: {peer:?}"),
            Event::LinkDown(peer, _) => assert!(self.up.remove(peer), "down twice: {peer:?}"),
            Event::LinkFailed(peer) => assert!(!self.up.contains(peer), "failed: {peer:?}"),
            Event::Message { from, .. } => {
                assert!(self.up.contains(from), "a message without a link: {from:?}");
            }
            _ => {}
        }
        let mut wishes = Vec::new();
        let outcome = self.overlay.handle(now, event, rng, &mut wishes);
        if let Err(Error::Message(error)) = &outcome {
            panic!("a message of another protocol: {error}");
        }
        for wish in &wishes {
            match wish {
                Effect::Release(peer) => {
                    self.up.remove(peer);
                }
                Effect::NeighborUp(peer) => {
                    assert!(self.neighbors.insert(peer.clone()), "twice: {peer:?}");
                }
                Effect::NeighborDown(peer) => {
                    assert!(self.neighbors.remove(peer), "was none: {peer:?}");
                }
                _ => {}
            }
        }
        effects.extend(wishes);
        outcome
    }

    fn deadline(&self) -> Option<Duration> {
        self.overlay.deadline()
    }

    fn members(&self) -> Vec<Contact> {
        self.overlay.members()
    }
}

pub(super) fn watched(overlay: Box<dyn Opaque<Contact>>) -> Box<dyn Opaque<Contact>> {
    Box::new(Watched {
        overlay,
        up: BTreeSet::new(),
        neighbors: BTreeSet::new(),
    })
}

fn choices(node: u32) -> Vec<Choice<Contact>> {
    let tag = match node < SERVERS {
        true => Tag::Server,
        false => Tag::Client,
    };
    let choice = |name, is_entry, make: fn(Contact, Tag) -> Box<dyn Opaque<Contact>>| Choice {
        name,
        is_whole: name == "full_mesh",
        is_entry,
        make: Box::new(move |own| watched(make(own, tag))),
    };
    vec![
        choice("full_mesh", true, |own, _| {
            Box::new(full_mesh::State::new(full_mesh::Config::default(), own))
        }),
        choice("hyparview", true, |own, _| {
            Box::new(HyParView::new(hyparview::Config::default(), own))
        }),
        choice("client_server", tag == Tag::Server, |own, tag| {
            let config = client_server::Config::default();
            let config = client_server::Config { tag, ..config };
            Box::new(ClientServer::new(config, own))
        }),
    ]
}

pub(super) struct Node {
    pub(super) switch: Switch<Contact>,
    pub(super) neighbors: BTreeSet<Contact>,
    wanted: BTreeSet<Contact>,
}

impl Node {
    fn new(node: u32, mut others: Vec<Choice<Contact>>) -> Self {
        let first = others.remove(0);
        let config = Config {
            overlap: Duration::from_secs(OVERLAP),
        };
        Self {
            switch: Switch::new(config, contact(node), first, others),
            neighbors: BTreeSet::new(),
            wanted: BTreeSet::new(),
        }
    }
}

type Told = Message<Contact>;

pub(super) struct Cluster {
    pub(super) net: Network<Told>,
    pub(super) nodes: BTreeMap<u32, Node>,
    pub(super) rng: SmallRng,
    /// The overlays of a node.
    choices: fn(u32) -> Vec<Choice<Contact>>,
}

impl Cluster {
    pub(super) fn new(seed: u64, choices: fn(u32) -> Vec<Choice<Contact>>) -> Self {
        let config = NetworkConfig {
            latency: Latency::Uniform {
                min_ms: 1.0,
                max_ms: 80.0,
                jitter: 0.5,
            },
            loss: 0.01,
            reset: 0.0002,
            keep_alive: 1.0,
            ..NetworkConfig::default()
        };
        Self {
            net: Network::new(config, NODES as usize, seed),
            nodes: BTreeMap::new(),
            rng: SmallRng::seed_from_u64(seed),
            choices,
        }
    }

    pub(super) fn start(&mut self, node: u32) {
        self.net.start(node);
        let fresh = Node::new(node, (self.choices)(node));
        self.nodes.insert(node, fresh);
        self.tell(node, Event::Tick);
    }

    pub(super) fn crash(&mut self, node: u32) {
        let silent = self.rng.random();
        self.net.crash(node, silent);
        self.nodes.remove(&node);
    }

    pub(super) fn tell(&mut self, node: u32, event: Event<Contact, Told>) {
        let now = Duration::from_nanos(self.net.now);
        let Some(host) = self.nodes.get_mut(&node) else {
            return;
        };
        let mut effects = Vec::new();
        let switch = &mut host.switch;
        let outcome = Overlay::handle(switch, now, event, &mut self.rng, &mut effects);
        outcome.unwrap();
        self.carry_out(node, effects);
    }

    fn switch(&mut self, node: u32, overlay: &str) {
        let now = Duration::from_nanos(self.net.now);
        let host = self.nodes.get_mut(&node).unwrap();
        let mut effects = Vec::new();
        let outcome = (host.switch).switch(now, overlay, &mut self.rng, &mut effects);
        outcome.unwrap();
        self.carry_out(node, effects);
    }

    /// The policy of a node says whom it wants.
    pub(super) fn steer(&mut self, node: u32, overlay: &str, wanted: &BTreeSet<u32>) {
        let now = Duration::from_nanos(self.net.now);
        let peers = wanted.iter().chain([&node]).map(|n| contact(*n)).collect();
        let host = self.nodes.get_mut(&node).unwrap();
        let mut effects = Vec::new();
        let outcome = (host.switch).steer(now, overlay, peers, &mut self.rng, &mut effects);
        outcome.unwrap();
        self.carry_out(node, effects);
    }

    fn carry_out(&mut self, node: u32, effects: Effects<Switch<Contact>>) {
        let host = self.nodes.get_mut(&node).unwrap();
        for effect in effects {
            match effect {
                Effect::Send { to, message } => {
                    let frame = Frame {
                        payload: message,
                        bytes: 50,
                        hash: 0,
                    };
                    self.net.send(node, number(&to), frame);
                }
                Effect::Want(peer) => {
                    self.net.want(node, number(&peer));
                    host.wanted.insert(peer);
                }
                Effect::Release(peer) => {
                    self.net.release(node, number(&peer));
                    host.wanted.remove(&peer);
                }
                Effect::NeighborUp(peer) => {
                    let status = host.switch.status();
                    let new = host.neighbors.insert(peer.clone());
                    assert!(new, "n{node}: {peer:?} twice, {status:?}");
                }
                Effect::NeighborDown(peer) => {
                    let status = host.switch.status();
                    let was = host.neighbors.remove(&peer);
                    assert!(was, "n{node}: {peer:?} was none, {status:?}");
                }
                _ => {}
            }
        }
        if let Some(at) = Overlay::deadline(&host.switch) {
            self.net.timer(node, at.as_nanos() as u64);
        }
    }

    pub(super) fn run(&mut self, seconds: u64) {
        let until = self.net.now + seconds * SECOND;
        let mut upcalls = Vec::new();
        while self.net.step(until, &mut upcalls) {
            for (node, upcall) in std::mem::take(&mut upcalls) {
                let event = match upcall {
                    Upcall::Tick => Event::Tick,
                    Upcall::LinkUp(peer) => Event::LinkUp(contact(peer)),
                    Upcall::LinkDown(peer, how) => Event::LinkDown(contact(peer), how),
                    Upcall::LinkFailed(peer) => Event::LinkFailed(contact(peer)),
                    Upcall::Frame(peer, frame) => Event::Message {
                        from: contact(peer),
                        message: frame.payload,
                    },
                };
                self.tell(node, event);
            }
        }
    }

    /// Everybody runs this overlay alone, and it is as it should be.
    fn check(&self, what: &str) {
        let statuses: BTreeSet<_> = self
            .nodes
            .values()
            .map(|node| {
                let status = node.switch.status();
                (status.epoch, status.overlay, status.until_switched)
            })
            .collect();
        assert_eq!(statuses.len(), 1, "{what}: {statuses:?}");
        let (_, overlay, old) = statuses.first().unwrap();
        assert_eq!(*old, None, "{what}");
        let mut seen = BTreeSet::from([contact(0)]);
        let mut next = vec![contact(0)];
        while let Some(node) = next.pop() {
            for neighbor in &self.nodes[&number(&node)].neighbors {
                let back = &self.nodes[&number(neighbor)].neighbors;
                assert!(back.contains(&node), "{what}: {node:?} {neighbor:?}");
                if seen.insert(neighbor.clone()) {
                    next.push(neighbor.clone());
                }
            }
        }
        assert_eq!(seen.len(), NODES as usize, "{what}: {overlay} is in pieces");
        for (name, node) in &self.nodes {
            let linked = |peer: &Contact| self.net.is_linked(*name, number(peer));
            assert!(node.neighbors.iter().all(linked), "{what}: n{name}");
            let whole = *overlay == "full_mesh";
            assert_eq!(node.switch.is_whole(), whole, "{what}: n{name}");
            let neighbors = node.neighbors.len();
            match *overlay {
                "full_mesh" => assert_eq!(neighbors, NODES as usize - 1, "{what}: n{name}"),
                "hyparview" => assert!(neighbors <= 5, "{what}: n{name} has {neighbors}"),
                _ if *name >= SERVERS => assert_eq!(neighbors, 1, "{what}: n{name}"),
                _ => assert!(neighbors >= SERVERS as usize - 1, "{what}: n{name}"),
            }
        }
    }
}

fn switches(seed: u64) {
    let what = format!("seed {seed}");
    let mut cluster = Cluster::new(seed, choices);
    cluster.start(0);
    for node in 1..NODES {
        cluster.start(node);
        cluster.tell(node, Event::Join(contact(0)));
        cluster.run(1);
    }
    cluster.run(30);
    cluster.check(&what);
    for round in 0..4 {
        let overlays = ["full_mesh", "hyparview", "client_server"];
        for _ in 0..cluster.rng.random_range(1..=2) {
            let node = cluster.rng.random_range(0..SERVERS);
            let overlay = overlays[cluster.rng.random_range(0..3)];
            cluster.switch(node, overlay);
        }
        let pause = cluster.rng.random_range(0..8);
        cluster.run(pause);
        // Not the first servers: somebody has to know those that return.
        let crashed = cluster.rng.random_range(SERVERS..NODES);
        match cluster.rng.random_range(0..4) {
            0 => {
                cluster.crash(crashed);
                let away = cluster.rng.random_range(1..40);
                cluster.run(away);
                cluster.start(crashed);
                cluster.tell(crashed, Event::Join(contact(1)));
            }
            1 => {
                let away = cluster.rng.random_range(1..50);
                let side = (0..NODES).map(|node| node == crashed).collect();
                let until = cluster.net.now + away * SECOND;
                let one_way = cluster.rng.random();
                cluster.net.divide(Partition {
                    until,
                    side,
                    one_way,
                });
                cluster.run(away);
            }
            _ => {}
        }
        if round == 3 {
            cluster.net.calm();
        }
        cluster.run(180);
        cluster.check(&format!("{what}, round {round}"));
    }
}

#[test]
fn clusters_change_their_overlay_whatever_happens_meanwhile() {
    with_seeds(6, switches);
}
