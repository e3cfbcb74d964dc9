//! Links by the rules of the contract, whatever happens to them: a network alone, driven at random.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::latency::{Latency, NetworkConfig};
use super::super::network::{Frame, Network, Partition, Upcall};
use super::super::world::SECOND;
use crate::overlay::Down;

const NODES: u32 = 4;

/// What a node may know of its links, checked against what it hears.
struct Host {
    net: Network<u64>,
    up: BTreeSet<(u32, u32)>,
    wanted: BTreeSet<(u32, u32)>,
    sent: u64,
    /// Numbers sent on the present link and not yet arrived, in order, by sender and receiver.
    under_way: BTreeMap<(u32, u32), Vec<u64>>,
}

impl Host {
    fn new(loss: f64, reset: f64) -> Self {
        let config = NetworkConfig {
            latency: Latency::Uniform {
                min_ms: 5.0,
                max_ms: 200.0,
                jitter: 0.8,
            },
            loss,
            reset,
            keep_alive: 1.0,
            ..NetworkConfig::default()
        };
        let mut net = Network::new(config, NODES as usize, 9);
        for node in 0..NODES {
            net.start(node);
        }
        Self {
            net,
            up: BTreeSet::new(),
            wanted: BTreeSet::new(),
            sent: 0,
            under_way: BTreeMap::new(),
        }
    }

    fn send(&mut self, from: u32, to: u32) {
        self.sent += 1;
        let frame = Frame {
            payload: self.sent,
            bytes: 10,
            hash: 0,
        };
        let taken = self.net.send(from, to, frame);
        assert_eq!(taken, self.up.contains(&(from, to)));
        if taken {
            self.under_way
                .entry((from, to))
                .or_default()
                .push(self.sent);
        }
    }

    fn crash(&mut self, node: u32, silent: bool) {
        self.net.crash(node, silent);
        self.up.retain(|(own, _)| *own != node);
        self.wanted.retain(|(own, _)| *own != node);
    }

    fn run(&mut self, until: u64) {
        let mut upcalls = Vec::new();
        while self.net.step(until, &mut upcalls) {
            for (node, upcall) in upcalls.drain(..) {
                assert!(self.net.is_up(node));
                self.heard(node, upcall);
            }
        }
    }

    fn heard(&mut self, node: u32, upcall: Upcall<u64>) {
        match upcall {
            Upcall::Tick => {}
            Upcall::LinkUp(peer) => {
                assert!(self.up.insert((node, peer)), "up twice: {node} {peer}");
                // Nothing of the last link comes any longer.
                self.under_way.remove(&(node, peer));
            }
            Upcall::LinkDown(peer, down) => {
                assert!(self.up.remove(&(node, peer)), "down twice: {node} {peer}");
                let left = self.under_way.remove(&(peer, node)).unwrap_or_default();
                if down == Down::Planned {
                    assert!(
                        left.is_empty(),
                        "lost before a planned close: {peer} to {node}"
                    );
                }
            }
            Upcall::LinkFailed(peer) => {
                assert!(!self.up.contains(&(node, peer)));
                assert!(self.wanted.contains(&(node, peer)), "failed unasked");
            }
            Upcall::Frame(peer, frame) => {
                assert!(self.up.contains(&(node, peer)), "without a link");
                let expected = self.under_way.get_mut(&(peer, node)).unwrap();
                assert_eq!(expected.remove(0), frame.payload, "{peer} to {node}");
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Want(u32, u32),
    Release(u32, u32),
    Send(u32, u32),
    Crash(u32, bool),
    Start(u32),
    Divide(u64, u8, bool),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let pair = || (0..NODES, 0..NODES);
    prop_oneof![
        4 => pair().prop_map(|(a, b)| Step::Want(a, b)),
        2 => pair().prop_map(|(a, b)| Step::Release(a, b)),
        6 => pair().prop_map(|(a, b)| Step::Send(a, b)),
        1 => (0..NODES, any::<bool>()).prop_map(|(a, silent)| Step::Crash(a, silent)),
        2 => (0..NODES).prop_map(Step::Start),
        1 => (1..20_000u64, 1..15u8, any::<bool>()).prop_map(|(ms, side, one)| Step::Divide(ms, side, one)),
        8 => (1..3000u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn the_contract_holds(
        steps in proptest::collection::vec(step(), 1..150),
        loss in prop_oneof![Just(0.0), Just(0.2)],
        reset in prop_oneof![Just(0.0), Just(0.05)],
    ) {
        let mut host = Host::new(loss, reset);
        for step in steps {
            match step {
                Step::Want(a, b) if a != b && host.net.is_up(a) => {
                    host.wanted.insert((a, b));
                    host.net.want(a, b);
                }
                Step::Release(a, b) if a != b && host.net.is_up(a) => {
                    host.wanted.remove(&(a, b));
                    host.net.release(a, b);
                    if host.up.remove(&(a, b)) {
                        // What is under way to the one that releases is lost.
                        host.under_way.remove(&(b, a));
                    }
                }
                Step::Send(a, b) if a != b && host.net.is_up(a) => host.send(a, b),
                Step::Crash(a, silent) => host.crash(a, silent),
                Step::Start(a) if !host.net.is_up(a) => host.net.start(a),
                Step::Divide(ms, side, one_way) => {
                    let side = (0..NODES).map(|node| side >> node & 1 == 1).collect();
                    let until = host.net.now + ms * 1_000_000;
                    host.net.divide(Partition { until, side, one_way });
                }
                Step::Wait(ms) => host.run(host.net.now + ms * 1_000_000),
                _ => {}
            }
        }
        // When all is quiet and all run, the links that are wanted are up at both ends, and no others.
        for node in 0..NODES {
            if !host.net.is_up(node) {
                host.net.start(node);
            }
        }
        // Losses are over too: one of a few seconds is silence enough to break a link at any time.
        host.net.calm();
        host.run(host.net.now + 240 * SECOND);
        let both = |pair: &(u32, u32)| [*pair, (pair.1, pair.0)];
        let linked: BTreeSet<_> = host.wanted.iter().flat_map(both).collect();
        prop_assert_eq!(&host.up, &linked);
        let established: Vec<_> = host.net.established().collect();
        prop_assert_eq!(established.len() * 2, linked.len());
    }
}
