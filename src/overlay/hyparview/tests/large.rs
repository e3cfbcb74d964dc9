//! Graphs of thousands of nodes. Set `NODES`, `CYCLES`, `SEED`, `CRASH`, `HISTORY` to see others.

use std::time::{Duration, Instant};

use rand::RngExt;
use rand::seq::SliceRandom;

use super::net::{Id, Net};
use crate::overlay::contract::Event;
use crate::overlay::hyparview::Config;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn show(net: &Net, what: &str) {
    let graph = net.graph();
    let mut degrees = [0; 16];
    graph
        .nodes()
        .for_each(|id| degrees[graph.edges[id].len()] += 1);
    let nodes: Vec<usize> = graph.nodes().collect();
    let mut paths = (0, 0);
    for from in nodes.iter().step_by(nodes.len() / 20 + 1) {
        for steps in graph.distances(*from).into_iter().flatten() {
            paths = (paths.0 + steps, paths.1 + 1);
        }
    }
    let mut components = graph.components();
    let count = components.len();
    // Of a broadcast by flooding from a random node.
    let reached: usize = components.iter().map(|size| size * size).sum();
    let reliability = reached as f64 / (nodes.len() * nodes.len()) as f64;
    components.truncate(8);
    println!(
        "{what}: t {:.1} s, degrees {:?}, {count} components {components:?}, clustering {:.5}, path {:.3}, one-sided {}, reliability {reliability:.5}",
        net.now as f64 / 1e6,
        &degrees[..8],
        graph.clustering(),
        paths.0 as f64 / paths.1 as f64,
        graph.one_sided().len(),
    );
}

/// Half join through the first node, half through random ones, one every `gap`.
fn joined(net: &mut Net, nodes: u64, gap: Duration) {
    net.add();
    for n in 1..nodes {
        let contact = match n % 2 {
            0 => 0,
            _ => net.rng.random_range(0..n),
        };
        let id = net.add();
        net.tell(id, Event::Join(Id(contact as u32)));
        net.run(gap);
    }
}

#[test]
fn a_thousand_are_one_graph_of_strangers_and_survive_a_crash_of_most() {
    let mut net = Net::new(1, Config::default());
    joined(&mut net, 1000, Duration::from_millis(2));
    net.run(Duration::from_secs(150));
    net.hosts.iter_mut().for_each(|host| host.heard = 0);
    net.run(Duration::from_secs(100));
    show(&net, "settled");
    let graph = net.graph();
    assert_eq!(graph.components(), [1000]);
    // A random graph of this size has 0.004.
    assert!(graph.clustering() < 0.004, "{}", graph.clustering());
    let full = graph.edges.iter().filter(|edges| edges.len() == 5).count();
    assert!(full >= 970, "{full}");
    let mut heard: Vec<u64> = net.hosts.iter().map(|host| host.heard).collect();
    heard.sort_unstable();
    assert!(heard[999] < 3 * heard[500], "{heard:?}");

    let dead = (0..1000).filter(|id| id % 10 > 0).map(Id).collect();
    net.crash_all(&dead);
    net.run(Duration::from_secs(5));
    show(&net, "crashed");
    assert!(net.graph().components()[0] >= 99);
    net.run(Duration::from_secs(95));
    show(&net, "healed");
    assert_eq!(net.graph().components(), [100]);
    assert_eq!(net.graph().one_sided(), []);
}

#[test]
#[ignore = "a measurement"]
fn measure() {
    let config = Config {
        history: setting("HISTORY", 256) as usize,
        ..Config::default()
    };
    let mut net = Net::new(setting("SEED", 1), config);
    let nodes = setting("NODES", 10_000);
    let start = Instant::now();
    joined(&mut net, nodes, Duration::from_micros(setting("GAP", 2000)));
    show(&net, "joined");
    let cycles = setting("CYCLES", 50);
    for _ in 0..5 {
        net.hosts.iter_mut().for_each(|host| host.heard = 0);
        net.run(Duration::from_secs(10) * cycles as u32 / 5);
        show(&net, "settled");
        let mut heard: Vec<u64> = net.hosts.iter().map(|host| host.heard).collect();
        let seed = heard[0];
        heard.sort_unstable();
        println!(
            "  received: median {}, most {}, seed {seed}",
            heard[heard.len() / 2],
            heard[heard.len() - 1]
        );
    }
    println!(
        "{} events, {:.1} s",
        net.events,
        start.elapsed().as_secs_f64()
    );
    let crash = setting("CRASH", 0);
    if crash > 0 {
        let mut ids: Vec<u32> = (0..nodes as u32).collect();
        ids.shuffle(&mut net.rng);
        let dead: std::collections::HashSet<Id> = ids[..(nodes * crash / 100) as usize]
            .iter()
            .map(|id| Id(*id))
            .collect();
        net.crash_all(&dead);
        for wait in [1, 1, 1, 1, 1, 5, 10, 10, 10, 50] {
            net.run(Duration::from_secs(wait));
            show(&net, "crashed");
        }
    }
    println!(
        "{} events, {:.1} s",
        net.events,
        start.elapsed().as_secs_f64()
    );
}
