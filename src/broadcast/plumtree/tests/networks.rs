//! Whole networks: everybody gets everything, with few duplicates, nearly as fast as by flooding.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use rand::RngExt;
use rand::seq::SliceRandom;

use super::harness::{Fate, N, Net};
use crate::broadcast::flood::{self, Flood};
use crate::broadcast::plumtree::{Config, Message, Plumtree};
use crate::broadcast::{Broadcast, Id};

const MS: u64 = 1000;

fn tree_id(message: &Message<N>) -> Option<Id<N>> {
    match message {
        Message::Gossip { of, sequence, .. } => Some(of.id(*sequence)),
        _ => None,
    }
}

fn flood_id(message: &flood::Message<N>) -> Option<Id<N>> {
    Some(message.id.clone())
}

fn trees(seed: u64, n: u32, jitter: u64, config: &Config) -> Net<Plumtree<N>> {
    let mut net = Net::new(seed, (MS, 20 * MS), jitter, tree_id);
    for i in 0..n {
        net.add(Plumtree::new(config.clone(), N(i), 1));
    }
    net.wire(5);
    net
}

fn floods(seed: u64, n: u32, jitter: u64) -> Net<Flood<N>> {
    let mut net = Net::new(seed, (MS, 20 * MS), jitter, flood_id);
    for i in 0..n {
        net.add(Flood::new(N(i), 1));
    }
    net.wire(5);
    net
}

/// Each sender broadcasts once a round, spread over 100 ms; rounds are 1 s apart. Fates by round.
fn rounds<B: Broadcast<Peer = N>>(net: &mut Net<B>, senders: &[u32], n: u64) -> Vec<Vec<Fate>> {
    let mut out = Vec::new();
    for round in 1..=n {
        let start = net.now;
        let mut ids = Vec::new();
        for (i, sender) in senders.iter().enumerate() {
            net.run_until(start + 100 * MS * i as u64 / senders.len() as u64);
            ids.push(net.broadcast(*sender, 1, round));
        }
        net.run_until(start + 1000 * MS);
        out.push(ids.iter().map(|id| net.fates[id].clone()).collect());
    }
    out
}

fn mean(fates: &[Fate], f: impl Fn(&Fate) -> f64) -> f64 {
    fates.iter().map(f).sum::<f64>() / fates.len() as f64
}

struct Measured {
    redundancy: f64,
    hops: f64,
    latency: f64,
}

fn against_flooding(seed: u64, n: u32, senders: u32, jitter: u64, config: &Config) -> Measured {
    let senders: Vec<u32> = (0..senders).map(|i| i * n / senders).collect();
    let mut flood = floods(seed, n, jitter);
    let base = rounds(&mut flood, &senders, 3).concat();
    let mut net = trees(seed, n, jitter, config);
    let all = rounds(&mut net, &senders, 8);
    for fate in all.iter().flatten().chain(&base) {
        assert_eq!(fate.delivered, n as usize - 1, "seed {seed}");
    }
    for (i, round) in all.iter().enumerate() {
        println!(
            "  round {}: redundancy {:.4}, hops {:.1}, {:.1} ms",
            i + 1,
            mean(round, Fate::redundancy),
            mean(round, |f| f.last_hops.into()),
            mean(round, Fate::latency),
        );
    }
    let late = all[2..].concat();
    let table = net.nodes.iter().flatten().map(|n| n.table_bytes()).max();
    let m = Measured {
        redundancy: mean(&late, Fate::redundancy),
        hops: mean(&late, |f| f.last_hops.into()) / mean(&base, |f| f.last_hops.into()),
        latency: mean(&late, Fate::latency) / mean(&base, Fate::latency),
    };
    println!(
        "{n} nodes, {} senders, jitter {jitter}, common {}: redundancy {:.4} (flooding {:.2}), last \
         delivery {:.2}x in hops, {:.2}x in time; tables of a node at most {} bytes",
        senders.len(),
        config.common_tree,
        m.redundancy,
        mean(&base, Fate::redundancy),
        m.hops,
        m.latency,
        table.unwrap_or(0),
    );
    m
}

#[test]
fn one_sender_is_as_fast_as_flooding() {
    let m = against_flooding(1, 1000, 1, 0, &Config::default());
    assert!(m.redundancy <= 0.02 && m.hops <= 1.3 && m.latency <= 1.3);
}

#[test]
fn many_senders_are_as_fast_as_flooding() {
    let m = against_flooding(2, 1000, 64, 0, &Config::default());
    assert!(m.redundancy <= 0.02 && m.hops <= 1.3 && m.latency <= 1.3);
}

#[test]
fn latencies_that_vary_do_no_harm() {
    let m = against_flooding(3, 1000, 16, 200, &Config::default());
    assert!(m.redundancy <= 0.02 && m.hops <= 1.3 && m.latency <= 1.3);
}

#[test]
fn all_nodes_can_share_one_tree() {
    let config = Config {
        common_tree: true,
        ..Config::default()
    };
    let m = against_flooding(4, 300, 300, 0, &config);
    assert!(m.redundancy <= 0.02 && m.hops <= 2.0 && m.latency <= 2.0);
}

/// Cores that the live nodes know.
fn cores(net: &Net<Plumtree<N>>) -> BTreeSet<Option<N>> {
    let live = net.live().into_iter();
    live.map(|n| net.nodes[n as usize].as_ref().and_then(Plumtree::core))
        .collect()
}

#[test]
fn the_common_tree_finds_another_core() {
    let config = Config {
        common_tree: true,
        ..Config::default()
    };
    for seed in 0..5 {
        let n = 200;
        let mut net = trees(seed, n, 0, &config);
        // Two begin at the same time: one of them becomes the core.
        let ids = [net.broadcast(7, 1, 1), net.broadcast(8, 1, 1)];
        net.run_for(Duration::from_secs(6));
        for id in &ids {
            assert_eq!(net.fates[id].delivered, 199, "seed {seed}, {id:?}");
        }
        let core = cores(&net);
        let Some(Some(core)) = core.first().filter(|_| core.len() == 1).copied() else {
            panic!("seed {seed}: {core:?}");
        };
        assert!([7, 8].contains(&core.0));
        // It crashes with its links; what is broadcast then comes everywhere.
        net.crash(core.0);
        net.rewire(5);
        let mut fates = Vec::new();
        for round in 1..=40 {
            let id = net.broadcast(10 + round as u32 % 20, 1, 1 + (round - 1) / 20);
            net.run_for(Duration::from_secs(1));
            fates.push(net.fates[&id].clone());
        }
        assert!(fates.iter().all(|f| f.delivered == 198), "seed {seed}");
        let late = mean(&fates[25..], Fate::redundancy);
        println!("seed {seed}: redundancy {late:.4} with another core");
        assert!(late <= 0.02);
        let other = cores(&net);
        assert!(
            other.len() == 1 && !other.contains(&Some(core)),
            "{other:?}"
        );
    }
}

/// Replaces nodes by fresh ones, in their place or not at all, and links what is short of links.
fn churn(net: &mut Net<Plumtree<N>>, share: usize, life: u64, config: &Config) {
    let mut live = net.live();
    live.retain(|n| *n >= 16);
    live.shuffle(&mut net.rng);
    let n = (net.nodes.len() / share).max(1);
    for node in live.into_iter().take(n) {
        net.crash(node);
        net.nodes[node as usize] = Some(Plumtree::new(config.clone(), N(node), life));
        net.got[node as usize].clear();
    }
    net.rewire(5);
}

fn churned(seed: u64, senders: u64, cycles: u64, config: &Config) -> (f64, f64) {
    let n = 1000;
    let mut net = trees(seed, n, 0, config);
    let mut measured = Vec::new();
    let mut base = Vec::new();
    for cycle in 1..=cycles {
        churn(&mut net, 100, cycle + 1, config);
        let start = net.now;
        let ids: Vec<_> = (0..senders)
            .map(|s| {
                net.run_until(start + s * 10 * MS);
                net.broadcast(s as u32, 1, cycle)
            })
            .collect();
        net.run_until(start + 10_000 * MS);
        for id in ids {
            let fate = net.fates[&id].clone();
            assert!(
                fate.delivered >= n as usize - 1,
                "seed {seed}, {id:?}: {fate:?}"
            );
            if cycle > 5 {
                measured.push(fate);
            }
        }
    }
    let mut flood = floods(seed, n, 0);
    base.extend(rounds(&mut flood, &[1, 2, 3], 3).concat());
    let late = mean(&measured, Fate::latency) / mean(&base, Fate::latency);
    let redundancy = mean(&measured, Fate::redundancy);
    println!(
        "1 % churn a cycle, {senders} broadcasts a cycle, seed {seed}: redundancy {redundancy:.3}, last delivery {late:.2}x flooding in time, {:.2}x in hops",
        mean(&measured, |f| f.last_hops.into()) / mean(&base, |f| f.last_hops.into())
    );
    (redundancy, late)
}

#[test]
fn churn_costs_few_duplicates() {
    for (common_tree, senders) in [(false, 1), (false, 16), (true, 16)] {
        let config = Config {
            common_tree,
            ..Config::default()
        };
        let (redundancy, _) = churned(5, senders, 25, &config);
        assert!(redundancy <= 0.1);
    }
}

#[test]
fn a_broadcast_ends_although_new_nodes_keep_coming() {
    let config = Config {
        cache_time: Duration::from_secs(20),
        ..Config::default()
    };
    let mut net = trees(6, 300, 0, &config);
    let id = net.broadcast(0, 1, 1);
    let mut delivered = Vec::new();
    for cycle in 1..=60 {
        churn(&mut net, 30, cycle + 1, &config);
        net.run_for(Duration::from_secs(1));
        delivered.push(net.fates[&id].delivered);
    }
    println!("{delivered:?}");
    assert!(delivered[15] > 299 + 100, "new nodes get it for a while");
    assert_eq!(delivered[21], delivered[59], "and then no longer");
}

#[test]
fn a_mass_failure_is_repaired() {
    for seed in 0..3 {
        let config = Config::default();
        let mut net = trees(seed, 500, 100, &config);
        rounds(&mut net, &[0, 1, 2, 3], 3);
        let mut live = net.live();
        live.retain(|n| *n >= 4);
        live.shuffle(&mut net.rng);
        for node in &live[..350] {
            net.crash(*node);
        }
        // Under way while the overlay is in pieces.
        let ids: Vec<_> = (0..4).map(|s| net.broadcast(s, 1, 4)).collect();
        net.run_for(Duration::from_secs(2));
        net.rewire(5);
        net.run_for(Duration::from_secs(3));
        let later: Vec<_> = (0..4).map(|s| net.broadcast(s, 1, 5)).collect();
        net.run_for(Duration::from_secs(3));
        let all = net.live().len() - 1;
        for id in ids.iter().chain(&later) {
            assert_eq!(net.fates[id].delivered, all, "seed {seed}, {id:?}");
        }
        println!(
            "after a crash of 70 %, seed {seed}: {:?} ms",
            later
                .iter()
                .map(|id| net.fates[id].latency())
                .collect::<Vec<_>>()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn everything_comes_everywhere(
        seed in any::<u64>(),
        n in 10u32..80,
        jitter in 0u64..3000,
        common_tree in any::<bool>(),
        max_trees in 1usize..6,
        pause in 0u64..200,
    ) {
        let config = Config { common_tree, max_trees, ..Config::default() };
        let mut net = trees(seed, n, jitter, &config);
        let mut ids = Vec::new();
        let mut next = vec![0; n as usize];
        for step in 0..40 {
            let root = net.rng.random_range(0..n.min(8));
            next[root as usize] += 1;
            ids.push(net.broadcast(root, 1, next[root as usize]));
            if step % 3 == 0 {
                // Links break with what is under way, and others come.
                let links: Vec<_> = net.links.keys().copied().collect();
                let (a, b) = links[net.rng.random_range(0..links.len())];
                net.unlink(a, b);
                if step % 2 == 0 {
                    let pause = net.rng.random_range(0..100);
                    net.run_for(Duration::from_millis(pause));
                }
                net.rewire(5);
            }
            net.run_for(Duration::from_millis(pause));
        }
        // Pieces that the graph may have fallen into.
        for node in 1..n {
            if !net.linked(0, node) && net.degree(node) < 3 {
                net.link(0, node);
            }
        }
        net.run_for(Duration::from_secs(10));
        for id in &ids {
            prop_assert_eq!(net.fates[id].delivered, n as usize - 1, "{:?}", id);
        }
        // In the end the links of a tree are eager at both ends, after two more broadcasts.
        for _ in 0..3 {
            next[0] += 1;
            let id = net.broadcast(0, 1, next[0]);
            net.run_for(Duration::from_secs(3));
            prop_assert_eq!(net.fates[&id].delivered, n as usize - 1);
        }
        for node in net.nodes.iter().flatten() {
            prop_assert!(node.missing().is_empty() && node.outstanding().is_empty());
            prop_assert!(node.roots().len() <= max_trees);
        }
        net.run_for(Duration::from_secs(400));
        for node in net.nodes.iter().flatten() {
            prop_assert_eq!(node.cached(), (0, 0));
            prop_assert_eq!(node.deadline(), None);
        }
    }
}

/// Run by hand: `--ignored --nocapture`, in a release build, for instance with `FIGURES=1000,200,true`
/// for nodes, senders and whether they share a tree.
#[test]
#[ignore = "figures of larger networks"]
fn figures() {
    let what = std::env::var("FIGURES").unwrap_or("10000,64,false".into());
    let what: Vec<&str> = what.split(',').collect();
    let config = Config {
        common_tree: what[2] == "true",
        ..Config::default()
    };
    let start = std::time::Instant::now();
    let (n, senders) = (what[0].parse().unwrap(), what[1].parse().unwrap());
    against_flooding(7, n, senders, 0, &config);
    println!("{:?}", start.elapsed());
}
