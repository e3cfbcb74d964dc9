//! Routers and streams between nodes in memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::net::{Net, Stream};
use super::packet::{Body, Call, Packet};
use super::router::{Config, Effect, Event, Router};
use crate::overlay::{Contact, NodeSpec};

fn name(n: usize) -> Arc<str> {
    format!("n{n}@host").into()
}

fn contact(name: &str) -> Contact {
    Contact::new(NodeSpec {
        name: name.into(),
        listen_addrs: Vec::new(),
        channels: Vec::new(),
    })
    .unwrap()
}

/// Nodes in a graph; what is sent arrives at once, in order.
struct Nodes {
    routers: BTreeMap<Arc<str>, Router<Arc<str>, Contact>>,
    links: BTreeMap<Arc<str>, Vec<Arc<str>>>,
    queue: VecDeque<(Arc<str>, Event<Arc<str>, Contact>)>,
    found: Vec<(Arc<str>, Arc<str>)>,
    delivered: Vec<(Arc<str>, Vec<u8>)>,
    passed: usize,
    calls: usize,
    now: Duration,
}

impl Nodes {
    fn ring(count: usize, ttl: u8) -> Self {
        let mut nodes = Self {
            routers: BTreeMap::new(),
            links: BTreeMap::new(),
            queue: VecDeque::new(),
            found: Vec::new(),
            delivered: Vec::new(),
            passed: 0,
            calls: 0,
            now: Duration::ZERO,
        };
        for n in 0..count {
            let mut config = Config::new(name(n));
            config.ttl = ttl;
            nodes.routers.insert(name(n), Router::new(config));
        }
        for n in 0..count {
            nodes.link(&name(n), &name((n + 1) % count));
        }
        nodes
    }

    fn link(&mut self, a: &Arc<str>, b: &Arc<str>) {
        for (own, other) in [(a, b), (b, a)] {
            self.links
                .entry(own.clone())
                .or_default()
                .push(other.clone());
            self.event(own, Event::LinkUp(other.clone()));
        }
    }

    fn unlink(&mut self, a: &Arc<str>, b: &Arc<str>) {
        for (own, other) in [(a, b), (b, a)] {
            self.links.get_mut(own).unwrap().retain(|n| n != other);
            self.event(own, Event::LinkDown(other.clone()));
        }
    }

    fn event(&mut self, node: &Arc<str>, event: Event<Arc<str>, Contact>) {
        self.queue.push_back((node.clone(), event));
        while let Some((node, event)) = self.queue.pop_front() {
            let mut effects = Vec::new();
            let router = self.routers.get_mut(&node).unwrap();
            router.handle(self.now, event, &mut effects);
            for effect in effects {
                self.effect(&node, effect);
            }
        }
    }

    fn effect(&mut self, node: &Arc<str>, effect: Effect<Arc<str>, Contact>) {
        match effect {
            Effect::Pass(to, packet) => {
                assert!(self.links[node].contains(&to), "{node} has no link to {to}");
                self.passed += 1;
                let mut bytes = Vec::new();
                packet.encode(&mut bytes);
                let packet = Packet::decode(&bytes).unwrap();
                let via = node.clone();
                self.queue.push_back((to, Event::Packet { via, packet }));
            }
            Effect::Deliver(_, bytes) => self.delivered.push((node.clone(), bytes)),
            Effect::Found(from, contact) => {
                assert_eq!(contact.spec().name, from);
                self.found.push((node.clone(), from));
            }
            Effect::Answer(to) => {
                let found = Body::Found(contact(node));
                self.queue.push_back((node.clone(), Event::Send(to, found)));
            }
            Effect::Call { node: called, ttl } => {
                self.calls += 1;
                self.flood(node, &called, ttl);
            }
        }
    }

    fn flood(&mut self, root: &Arc<str>, called: &Arc<str>, ttl: u8) {
        let mut seen = vec![root.clone()];
        let mut wave = VecDeque::from([(root.clone(), 0)]);
        while let Some((node, hops)) = wave.pop_front() {
            for next in self.links[&node].clone() {
                if seen.contains(&next) {
                    continue;
                }
                seen.push(next.clone());
                wave.push_back((next.clone(), hops + 1));
                let event = Event::Called {
                    from: root.clone(),
                    via: node.clone(),
                    node: called.clone(),
                    hops: hops + 1,
                    ttl,
                };
                self.queue.push_back((next, event));
            }
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        for node in self.routers.keys().cloned().collect::<Vec<_>>() {
            self.event(&node, Event::Tick);
        }
    }

    fn send(&mut self, from: usize, to: usize, text: &[u8]) {
        let body = Body::Ip(text.to_vec());
        self.event(&name(from), Event::Send(name(to), body));
    }
}

#[test]
fn who_is_called_is_found_and_packets_take_the_shortest_way() {
    let mut nodes = Nodes::ring(9, 32);
    nodes.event(&name(0), Event::Find(name(4)));
    assert_eq!(nodes.found, [(name(0), name(4))]);
    assert_eq!(nodes.calls, 1);
    nodes.passed = 0;
    nodes.send(0, 4, b"there");
    nodes.send(4, 0, b"back");
    assert_eq!(
        nodes.delivered,
        [(name(4), b"there".to_vec()), (name(0), b"back".to_vec())]
    );
    assert_eq!(nodes.passed, 8);
    assert_eq!(nodes.calls, 1, "no further call");
}

#[test]
fn a_way_that_is_gone_is_found_anew() {
    let mut nodes = Nodes::ring(9, 32);
    nodes.event(&name(0), Event::Find(name(4)));
    nodes.unlink(&name(2), &name(3));
    nodes.send(0, 4, b"lost");
    assert!(nodes.delivered.is_empty());
    // The node at the gap has said so, and the sender has called again: the other way round.
    assert_eq!(nodes.calls, 2);
    nodes.send(0, 4, b"again");
    assert_eq!(nodes.delivered, [(name(4), b"again".to_vec())]);
}

#[test]
fn packets_go_no_further_than_their_ttl() {
    let mut nodes = Nodes::ring(12, 2);
    nodes.event(&name(0), Event::Find(name(4)));
    assert!(nodes.found.is_empty(), "the call ends before");
    nodes.event(&name(0), Event::Find(name(2)));
    assert_eq!(nodes.found, [(name(0), name(2))]);
}

#[test]
fn calls_are_repeated_with_pauses_and_end() {
    let mut nodes = Nodes::ring(3, 32);
    nodes.event(&name(0), Event::Find("nobody@host".into()));
    for _ in 0..600 {
        nodes.wait(Duration::from_millis(100));
    }
    // At 0, 0.5, 1.5, 3.5, 7.5 s, and not after the patience.
    assert_eq!(nodes.calls, 5);
    for router in nodes.routers.values() {
        assert_eq!(router.deadline(), None);
    }
}

#[test]
fn calls_for_many_are_limited() {
    let mut nodes = Nodes::ring(3, 32);
    for n in 0..1000 {
        nodes.event(&name(0), Event::Find(format!("x{n}@host").into()));
    }
    assert_eq!(nodes.calls, crate::limits::MAX_CALLS as usize);
}

/// Two nodes whose packets may be lost, doubled and delayed.
struct Wire {
    nets: [Net; 2],
    names: [Arc<str>; 2],
    queue: Vec<(Duration, usize, Vec<u8>)>,
    now: Duration,
    rng: SmallRng,
    loss: f64,
}

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

impl Wire {
    fn new(seed: u64, loss: f64) -> Self {
        let names = [name(0), name(1)];
        let now = Duration::from_secs(1);
        Self {
            nets: [Net::new(&names[0], 1, now), Net::new(&names[1], 2, now)],
            names,
            queue: Vec::new(),
            now,
            rng: SmallRng::seed_from_u64(seed),
            loss,
        }
    }

    /// Up to the next event, within 10 ms.
    fn step(&mut self) {
        for (own, net) in self.nets.iter_mut().enumerate() {
            net.poll(self.now);
            while let Some((to, packet)) = net.outgoing() {
                assert_eq!(to, self.names[1 - own]);
                let copies = usize::from(!self.rng.random_bool(self.loss))
                    + usize::from(self.rng.random_bool(self.loss));
                for _ in 0..copies {
                    let delay = Duration::from_millis(self.rng.random_range(1..=10));
                    self.queue.push((self.now + delay, 1 - own, packet.clone()));
                }
            }
        }
        self.now += Duration::from_millis(1);
        let (due, later): (Vec<_>, Vec<_>) =
            self.queue.drain(..).partition(|(at, _, _)| *at <= self.now);
        self.queue = later;
        for (_, to, packet) in due {
            let from = self.names[1 - to].clone();
            self.nets[to].receive(self.now, &from, packet);
        }
    }

    fn connect(&mut self) -> [Stream; 2] {
        let near = self.nets[0].open(&self.names[1].clone()).unwrap();
        let mut far = None;
        loop {
            self.step();
            if let Some((stream, from)) = self.nets[1].accept() {
                assert_eq!(from, self.names[0]);
                far = Some(stream);
            }
            let open = self.nets[0].poll_open(near, &cx());
            if let (Some(far), Poll::Ready(opened)) = (far, open) {
                opened.unwrap();
                return [near, far];
            }
            assert!(self.now < Duration::from_secs(60), "no connection");
        }
    }
}

fn bytes_are_whole(seed: u64, loss: f64) {
    const TOTAL: usize = 1 << 20;
    let mut wire = Wire::new(seed, loss);
    let [near, far] = wire.connect();
    let (mut sent, mut received) = (0, 0);
    let mut closed = false;
    let mut buffer = vec![0; 10_000];
    loop {
        wire.step();
        while sent < TOTAL {
            let chunk: Vec<u8> = (sent..TOTAL.min(sent + 5000))
                .map(|i| (i % 251) as u8)
                .collect();
            match wire.nets[0].poll_write(near, &cx(), &chunk) {
                Poll::Ready(written) => sent += written.unwrap(),
                Poll::Pending => break,
            }
        }
        if sent == TOTAL && !closed {
            closed = true;
            wire.nets[0].close(near);
        }
        match wire.nets[1].poll_read(far, &cx(), &mut buffer) {
            Poll::Ready(Ok(0)) => break,
            Poll::Ready(read) => {
                for &byte in &buffer[..read.unwrap()] {
                    assert_eq!(byte, (received % 251) as u8, "seed {seed}");
                    received += 1;
                }
            }
            Poll::Pending => {}
        }
        assert!(
            wire.now < Duration::from_secs(600),
            "seed {seed}: {received}"
        );
    }
    assert_eq!(received, TOTAL, "seed {seed}");
}

#[test]
fn streams_are_whole_and_in_order_whatever_is_lost() {
    for seed in 0..4 {
        bytes_are_whole(seed, 0.0);
        bytes_are_whole(seed, 0.05);
    }
}

#[test]
fn a_stream_to_nobody_comes_to_nothing() {
    let mut wire = Wire::new(1, 1.0);
    let near = wire.nets[0].open(&wire.names[1].clone()).unwrap();
    // The silence of 15 s.
    for _ in 0..20_000 {
        wire.queue.clear();
        wire.step();
    }
    let open = wire.nets[0].poll_open(near, &cx());
    assert!(matches!(open, Poll::Ready(Err(_))), "{open:?}");
}

#[test]
fn a_packet_from_an_address_that_is_not_its_senders_is_dropped() {
    let mut wire = Wire::new(1, 0.0);
    wire.nets[0].open(&wire.names[1].clone()).unwrap();
    wire.nets[0].poll(wire.now);
    let (_, packet) = wire.nets[0].outgoing().unwrap();
    wire.nets[1].receive(wire.now, &name(2), packet.clone());
    assert!(wire.nets[1].accept().is_none());
    wire.nets[1].receive(wire.now, &name(0), packet);
    assert!(wire.nets[1].accept().is_some());
}

proptest! {
    #[test]
    fn arbitrary_packets_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Packet::decode(&bytes);
        let _ = Call::decode(&bytes);
        let mut net = Net::new("n1@host", 1, Duration::ZERO);
        // Behind addresses that are right, anything.
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, 6, 64];
        for node in ["n0@host", "n1@host"] {
            match super::address_of(node).ip() {
                std::net::IpAddr::V6(ip) => packet.extend(ip.octets()),
                std::net::IpAddr::V4(_) => unreachable!(),
            }
        }
        let length = bytes.len() as u16;
        packet[4..6].copy_from_slice(&length.to_be_bytes());
        packet.extend(&bytes);
        net.receive(Duration::from_secs(1), &name(0), packet);
        net.receive(Duration::from_secs(1), &name(0), bytes);
    }
}
