//! Many nodes that join, crash, come back, part and leave, and what is true when they rest.

use std::time::Duration;

use proptest::prelude::*;
use rand::RngExt;
use rand::seq::IndexedRandom;

use super::net::{Id, Net};
use crate::overlay::contract::Event;
use crate::overlay::hyparview::{Config, XBotConfig};

/// Runs until views are symmetric, as they are when no message is under way.
fn rest(net: &mut Net) {
    for _ in 0..200 {
        net.run(Duration::from_millis(37));
        if net.graph().one_sided().is_empty() {
            return;
        }
    }
    panic!(
        "seed {}: one-sided: {:?}",
        net.seed,
        net.graph().one_sided()
    );
}

fn cluster(seed: u64, nodes: u32, config: Config) -> Net {
    let mut net = Net::new(seed, config);
    for n in 0..nodes {
        let id = net.add();
        if n > 0 {
            let contact = net.rng.random_range(0..n);
            net.tell(id, Event::Join(Id(contact)));
        }
        net.run(Duration::from_millis(20));
    }
    net.run(Duration::from_secs(30));
    net
}

fn some(net: &mut Net, up: bool, n: usize) -> Vec<Id> {
    let all: Vec<Id> = (0..net.hosts.len() as u32)
        .map(Id)
        .filter(|id| net.hosts[id.0 as usize].up == up)
        .collect();
    all.sample(&mut net.rng, n).copied().collect()
}

#[test]
fn a_cluster_of_any_small_size_is_one() {
    for seed in 0..40 {
        let nodes = 2 + seed as u32 / 2;
        let mut net = cluster(seed, nodes, Config::default());
        net.run(Duration::from_secs(60));
        rest(&mut net);
        let graph = net.graph();
        assert_eq!(graph.components(), [nodes as usize], "seed {seed}");
        let full = (nodes as usize - 1).min(5);
        let short = graph
            .nodes()
            .filter(|id| graph.edges[*id].len() < full)
            .count();
        assert!(
            short <= 2 + nodes as usize / 10,
            "seed {seed}: {short} of {nodes}"
        );
        assert!(
            net.hosts[1..].iter().all(|host| host.joined == 1),
            "seed {seed}"
        );
    }
}

#[test]
fn halves_that_were_apart_for_long_find_each_other() {
    for seed in 0..10 {
        let mut net = cluster(seed, 60, Config::default());
        net.run(Duration::from_secs(100));
        for id in 0..60 {
            net.side[id] = (id % 3 == 0).into();
        }
        net.cut(|a, b| (a.0 % 3 == 0) != (b.0 % 3 == 0));
        net.run(Duration::from_secs(600));
        rest(&mut net);
        assert_eq!(net.graph().components(), [40, 20], "seed {seed}");
        net.side.fill(0);
        net.run(Duration::from_secs(600));
        rest(&mut net);
        assert_eq!(net.graph().components(), [60], "seed {seed}");
    }
}

/// Two clusters in which one node knows the other: full views, so nothing but a probe joins them.
#[test]
fn an_island_with_full_views_is_found() {
    for seed in 0..10 {
        let mut net = cluster(seed, 6, Config::default());
        let first = 6;
        for n in 0..60 {
            let id = net.add();
            if n > 0 {
                let contact = first + net.rng.random_range(0..n);
                net.tell(id, Event::Join(Id(contact)));
            }
            net.run(Duration::from_millis(20));
        }
        net.run(Duration::from_secs(100));
        rest(&mut net);
        assert_eq!(net.graph().components(), [60, 6], "seed {seed}");
        net.tell(Id(0), Event::UpdateMembers(vec![Id(first)]));
        net.run(Duration::from_secs(300));
        rest(&mut net);
        assert_eq!(net.graph().components(), [66], "seed {seed}");
    }
}

#[test]
fn a_cluster_that_was_stopped_whole_comes_back_without_seeds() {
    for seed in 0..10 {
        let mut net = cluster(seed, 30, Config::default());
        net.run(Duration::from_secs(120));
        for id in 0..30 {
            net.crash(Id(id));
        }
        net.run(Duration::from_secs(5));
        for id in 0..30 {
            net.restart(Id(id));
        }
        net.run(Duration::from_secs(120));
        rest(&mut net);
        assert_eq!(net.graph().components(), [30], "seed {seed}");
    }
}

#[test]
fn who_has_left_stays_away_until_it_joins() {
    for seed in 0..10 {
        let mut net = cluster(seed, 30, Config::default());
        for id in [3, 4, 5] {
            net.tell(Id(id), Event::Leave);
            net.run(Duration::from_secs(20));
        }
        net.run(Duration::from_secs(300));
        rest(&mut net);
        assert_eq!(net.graph().components(), [27, 1, 1, 1], "seed {seed}");
        for (id, contact) in [(3, 9), (4, 3), (5, 20)] {
            net.tell(Id(id), Event::Join(Id(contact)));
            net.run(Duration::from_secs(20));
        }
        net.run(Duration::from_secs(60));
        rest(&mut net);
        assert_eq!(net.graph().components(), [30], "seed {seed}");
    }
}

#[test]
fn one_seed_gives_one_run() {
    let run = || {
        let mut net = cluster(5, 100, Config::default());
        let dead = some(&mut net, true, 40).into_iter().collect();
        net.crash_all(&dead);
        net.run(Duration::from_secs(100));
        (net.events, net.graph().edges)
    };
    assert!(run() == run());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn survives(
        seed in any::<u64>(),
        nodes in 10_u32..60,
        history in prop_oneof![Just(256_usize), Just(40)],
        xbot in any::<bool>(),
        steps in prop::collection::vec((0_u8..6, 0_u64..20_000), 1..30),
    ) {
        let xbot = xbot.then(|| XBotConfig { interval: Duration::from_secs(1), ..XBotConfig::default() });
        let mut net = cluster(seed, nodes, Config { history, xbot, ..Config::default() });
        net.clusters = 3;
        for (step, millis) in steps {
            match step {
                0 => {
                    let n = net.rng.random_range(1..=nodes as usize / 2);
                    let dead = some(&mut net, true, n).into_iter().collect();
                    net.crash_all(&dead);
                }
                1 => {
                    for id in some(&mut net, false, 8) {
                        net.restart(id);
                        let contact = some(&mut net, true, 1)[0];
                        if contact != id {
                            net.tell(id, Event::Join(contact));
                        }
                    }
                }
                2 => {
                    for at in 0..net.side.len() {
                        net.side[at] = net.rng.random_range(0..2);
                    }
                    let side = net.side.clone();
                    net.cut(|a, b| side[a.0 as usize] != side[b.0 as usize]);
                }
                3 => net.side.fill(0),
                4 => {
                    let one = net.rng.random_range(0..nodes);
                    net.cut(|a, b| a.0 == one || b.0 == one);
                }
                _ => {
                    if let [id, contact] = some(&mut net, true, 2)[..] {
                        net.tell(id, Event::Leave);
                        net.run(Duration::from_millis(millis / 20));
                        net.tell(id, Event::Join(contact));
                    }
                }
            }
            net.run(Duration::from_millis(millis));
        }
        net.side.fill(0);
        // Whoever knows nobody has left or lost its disk, and its contact has died: the user's turn.
        for id in some(&mut net, true, nodes as usize) {
            let contact = some(&mut net, true, 2).into_iter().find(|other| *other != id);
            if net.host(id).overlay.history().count() == 0
                && let Some(contact) = contact
            {
                net.tell(id, Event::Join(contact));
            }
        }
        net.run(Duration::from_secs(900));
        rest(&mut net);
        let graph = net.graph();
        let up = graph.nodes().count();
        if up > 1 {
            prop_assert_eq!(graph.components(), [up], "seed {}", seed);
        }
    }
}
