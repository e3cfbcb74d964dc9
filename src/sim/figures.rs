//! What is measured of a phase: figures by name.

use std::collections::BTreeMap;

use super::graph::Graph;
use super::latency::nanos;
use super::world::{Protocols, Totals, World};

/// All figures and what they mean, in the order in which they are shown.
pub(crate) const ALL: [(&str, &str); 40] = [
    ("nodes", "nodes that run"),
    ("degree_mean", "neighbours of a node"),
    (
        "full_degree",
        "part of the nodes with as many neighbours as configured",
    ),
    ("view_mean", "names in a partial view, on SCAMP"),
    (
        "link_ms",
        "one way between neighbours, milliseconds without jitter, mean",
    ),
    ("clustering", "networkx average_clustering"),
    ("path_mean", "mean shortest path"),
    ("path_longest", "longest shortest path"),
    ("components", "connected components"),
    ("largest", "part of the nodes in the largest component"),
    ("one_sided", "neighbours that are so on one side only"),
    ("broadcasts", "broadcasts begun"),
    (
        "reliability",
        "part of the nodes that a broadcast reaches, mean",
    ),
    ("reliability_min", "the same of the worst broadcast"),
    ("complete", "part of the broadcasts that reach all"),
    ("last_hops", "hops to the last delivery, mean"),
    ("last_hops_max", "hops to the last delivery, most"),
    ("last_ms", "milliseconds to the last delivery, mean"),
    ("last_ms_max", "milliseconds to the last delivery, most"),
    (
        "redundancy",
        "payload messages for each delivery, less one (RMR)",
    ),
    ("control", "control messages for each delivery"),
    (
        "heal_seconds",
        "seconds until all live nodes were in one component; -1: never",
    ),
    ("heal_cycles", "the same in cycles"),
    ("received_median", "messages that a node got"),
    ("received_max", "messages that the busiest node got"),
    (
        "received_ratio",
        "the busiest node's messages over the median",
    ),
    (
        "overlay_messages",
        "overlay messages sent by a node in a second",
    ),
    ("overlay_bytes", "their bytes"),
    (
        "broadcast_messages",
        "broadcast messages sent by a node in a second",
    ),
    ("broadcast_bytes", "their bytes"),
    ("dials", "dials of a node in a second"),
    ("failed_dials", "those that failed"),
    ("keep_alives", "keep-alives sent by a node in a second"),
    ("table_bytes_mean", "bytes in a node's tables, about"),
    ("table_bytes_max", "bytes in the largest node's tables"),
    (
        "unicast_delivered",
        "part of the messages to a node that have arrived",
    ),
    ("unicast_tries", "tries for each of them"),
    (
        "unicast_stretch",
        "transmissions of a message that is not its pair's first over the shortest path, median",
    ),
    ("unicast_stretch_max", "the same, most"),
    ("violations", "invariants broken"),
];

/// Whether there is such a figure.
pub(crate) fn is_known(name: &str) -> bool {
    ALL.iter().any(|(known, _)| *known == name)
}

/// Figures by name.
pub(crate) type Figures = BTreeMap<&'static str, f64>;

/// What stood at the beginning of a phase.
#[derive(Clone, Debug)]
pub(crate) struct Before {
    pub(crate) at: u64,
    pub(crate) casts: usize,
    pub(crate) posts: usize,
    received: Vec<u64>,
    totals: Totals,
    counts: super::network::Counts,
    pub(crate) violations: u64,
}

impl Before {
    pub(crate) fn new<P: Protocols>(world: &World<P>) -> Self {
        Self {
            at: world.net.now,
            casts: world.casts.len(),
            posts: world.posts.len(),
            received: world.nodes.iter().map(|node| node.received).collect(),
            totals: world.totals,
            counts: world.net.counts,
            violations: world.violations.count,
        }
    }
}

/// The overlay's graph: live nodes, and edges between those that are each other's neighbours.
pub(crate) fn graph<P: Protocols>(world: &World<P>) -> Graph {
    let live = world.live();
    let mut place = vec![u32::MAX; world.nodes.len()];
    for (at, node) in live.iter().enumerate() {
        place[*node as usize] = at as u32;
    }
    let mut edges = Vec::new();
    for node in &live {
        let above = |peer: &&u32| *peer > node && place[**peer as usize] != u32::MAX;
        for peer in world.neighbors(*node).iter().filter(above) {
            if world.neighbors(*peer).binary_search(node).is_ok() {
                edges.push((place[*node as usize], place[*peer as usize]));
            }
        }
    }
    Graph::new(live.len(), &edges)
}

/// Measures the graph.
pub(crate) fn of_graph(figures: &mut Figures, graph: &Graph, degree: usize, sources: &[u32]) {
    let n = graph.vertices().max(1) as f64;
    let degrees = graph.degrees();
    let links: usize = degrees.iter().enumerate().map(|(d, count)| d * count).sum();
    let full: usize = degrees.iter().skip(degree).sum();
    figures.insert("degree_mean", links as f64 / n);
    figures.insert("full_degree", full as f64 / n);
    figures.insert("clustering", graph.average_clustering());
    let paths = graph.paths(sources);
    figures.insert("path_mean", paths.mean);
    figures.insert("path_longest", paths.longest.into());
}

/// Measures all but the graph.
pub(crate) fn of_phase<P: Protocols>(world: &World<P>, before: &Before, cycle: f64) -> Figures {
    let mut figures = Figures::new();
    let live = world.live();
    let n = live.len().max(1) as f64;
    figures.insert("nodes", live.len() as f64);
    let sizes = graph(world).components();
    figures.insert("components", sizes.len() as f64);
    figures.insert("largest", sizes.first().copied().unwrap_or(0) as f64 / n);
    figures.insert("one_sided", world.one_sided().len() as f64);
    let (mut links, mut sum) = (0u32, 0.0);
    for node in &live {
        for peer in world.neighbors(*node) {
            links += 1;
            sum += world.net.latency(*node, *peer) as f64 / 1e6;
        }
    }
    figures.insert("link_ms", sum / f64::from(links.max(1)));
    if let Some(names) = world.view_names() {
        figures.insert("view_mean", names as f64 / n);
    }
    of_casts(&mut figures, world, before, &live);

    let got = |node: &u32| {
        let node = *node as usize;
        world.nodes[node].received - before.received[node]
    };
    let mut received: Vec<u64> = live.iter().map(got).collect();
    received.sort_unstable();
    let median = received.get(received.len() / 2).copied().unwrap_or(0) as f64;
    let most = received.last().copied().unwrap_or(0) as f64;
    figures.insert("received_median", median);
    figures.insert("received_max", most);
    figures.insert("received_ratio", most / median.max(1.0));

    let seconds = (world.net.now - before.at).max(nanos(cycle) / 100) as f64 / 1e9;
    let rate = |now: u64, then: u64| (now - then) as f64 / n / seconds;
    let (now, then) = (&world.totals, &before.totals);
    let messages = |totals: &Totals| totals.payload_messages + totals.control_messages;
    let bytes = |totals: &Totals| totals.payload_bytes + totals.control_bytes;
    let (net, net_then) = (&world.net.counts, &before.counts);
    for (name, now, then) in [
        (
            "overlay_messages",
            now.overlay_messages,
            then.overlay_messages,
        ),
        ("overlay_bytes", now.overlay_bytes, then.overlay_bytes),
        ("broadcast_messages", messages(now), messages(then)),
        ("broadcast_bytes", bytes(now), bytes(then)),
        ("dials", net.dials, net_then.dials),
        ("failed_dials", net.failed_dials, net_then.failed_dials),
        ("keep_alives", net.keep_alives, net_then.keep_alives),
    ] {
        figures.insert(name, rate(now, then));
    }
    let (sum, max) = world.table_bytes();
    figures.insert("table_bytes_mean", sum as f64 / n);
    figures.insert("table_bytes_max", max as f64);
    let broken = world.violations.count - before.violations;
    figures.insert("violations", broken as f64);
    figures
}

fn of_casts<P: Protocols>(figures: &mut Figures, world: &World<P>, before: &Before, live: &[u32]) {
    let casts = &world.casts[before.casts..];
    if casts.is_empty() {
        return;
    }
    let (mut sum, mut worst, mut complete) = (0.0, 1.0f64, 0);
    let (mut hops, mut most_hops, mut time, mut most_time) = (0.0, 0u32, 0.0, 0u64);
    for cast in casts {
        // Those that have run all the time.
        let able = |node: &&u32| world.nodes[**node as usize].since <= cast.begun;
        let (mut all, mut reached) = (0u32, 0u32);
        for node in live.iter().filter(able) {
            all += 1;
            reached += u32::from(cast.has_reached(*node));
        }
        // One that nobody has lived to get has failed nobody.
        let part = match all {
            0 => 1.0,
            _ => f64::from(reached) / f64::from(all),
        };
        sum += part;
        worst = worst.min(part);
        complete += usize::from(reached == all);
        hops += f64::from(cast.max_hops);
        most_hops = most_hops.max(cast.max_hops);
        time += (cast.last - cast.begun) as f64;
        most_time = most_time.max(cast.last - cast.begun);
    }
    let count = casts.len() as f64;
    let (now, then) = (&world.totals, &before.totals);
    let deliveries = (now.deliveries - then.deliveries).max(1) as f64;
    let payloads = (now.payload_messages - then.payload_messages) as f64;
    let control = (now.control_messages - then.control_messages) as f64;
    figures.extend([
        ("broadcasts", count),
        ("reliability", sum / count),
        ("reliability_min", worst),
        ("complete", complete as f64 / count),
        ("last_hops", hops / count),
        ("last_hops_max", most_hops.into()),
        ("last_ms", time / count / 1e6),
        ("last_ms_max", most_time as f64 / 1e6),
        ("redundancy", payloads / deliveries - 1.0),
        ("control", control / deliveries),
    ]);
}
