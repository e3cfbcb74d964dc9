//! Nodes whose policies want links at random, on a network that divides and with nodes that crash: in the end those are
//! neighbours of whom one wants the other.

use std::collections::{BTreeMap, BTreeSet};

use rand::{Rng, RngExt};

use super::super::network::Partition;
use super::super::world::SECOND;
use super::switch::{Cluster, NODES, contact, number, watched};
use super::with_seeds;
use crate::overlay::Contact;
use crate::overlay::steered::Steered;
use crate::overlay::switch::Choice;

const POLICY: &str = "policy";

fn choices(_: u32) -> Vec<Choice<Contact>> {
    vec![Choice {
        name: POLICY,
        is_whole: false,
        is_entry: true,
        make: Box::new(|own| watched(Box::new(Steered::new(own)))),
    }]
}

fn some(of: u32, rng: &mut dyn Rng) -> BTreeSet<u32> {
    let others = (0..NODES).filter(|node| *node != of);
    others.filter(|_| rng.random_bool(0.2)).collect()
}

fn run(seed: u64) {
    let what = format!("seed {seed}");
    let mut cluster = Cluster::new(seed, choices);
    let mut wanted: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    (0..NODES).for_each(|node| cluster.start(node));
    for round in 0..12 {
        // Some change their minds while others are about to hear of it.
        for _ in 0..cluster.rng.random_range(1..20) {
            let node = cluster.rng.random_range(0..NODES);
            let wants = some(node, &mut cluster.rng);
            cluster.steer(node, POLICY, &wants);
            wanted.insert(node, wants);
            if cluster.rng.random() {
                cluster.run(0);
            }
        }
        let node = cluster.rng.random_range(0..NODES);
        match cluster.rng.random_range(0..3) {
            0 => {
                cluster.crash(node);
                let away = cluster.rng.random_range(0..20);
                cluster.run(away);
                cluster.start(node);
                wanted.remove(&node);
            }
            1 => {
                let side = (0..NODES).map(|n| n == node).collect();
                let until = cluster.net.now + cluster.rng.random_range(1..30) * SECOND;
                let one_way = cluster.rng.random();
                let partition = Partition {
                    until,
                    side,
                    one_way,
                };
                cluster.net.divide(partition);
            }
            _ => {}
        }
        if round == 11 {
            cluster.net.calm();
        }
        let pause = if round % 3 == 2 { 120 } else { 1 };
        cluster.run(pause);
        if pause > 1 {
            check(&cluster, &wanted, &format!("{what}, round {round}"));
        }
    }
}

fn check(cluster: &Cluster, wanted: &BTreeMap<u32, BTreeSet<u32>>, what: &str) {
    let wants = |a: u32, b: u32| wanted.get(&a).is_some_and(|w| w.contains(&b));
    for (name, node) in &cluster.nodes {
        let expected: BTreeSet<u32> = (0..NODES)
            .filter(|other| wants(*name, *other) || wants(*other, *name))
            .collect();
        let neighbors: BTreeSet<u32> = node.neighbors.iter().map(number).collect();
        assert_eq!(neighbors, expected, "{what}, n{name}");
        assert!(
            neighbors.iter().all(|n| cluster.net.is_linked(*name, *n)),
            "{what}, n{name}"
        );
        let own = contact(*name);
        let members = crate::overlay::Overlay::members(&node.switch);
        let listed = wanted.get(name).into_iter().flatten().map(|n| contact(*n));
        let listed: BTreeSet<Contact> = listed.chain([own]).collect();
        assert_eq!(
            members.into_iter().collect::<BTreeSet<_>>(),
            listed,
            "{what}, n{name}"
        );
    }
}

#[test]
fn links_are_as_the_policies_want_them() {
    with_seeds(10, run);
}
