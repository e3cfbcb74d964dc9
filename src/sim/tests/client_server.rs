//! Which links there are in a client–server overlay whose servers fail.

use super::super::figures::Figures;
use super::super::graph::Graph;
use super::super::protocols::{Floods, Pair};
use super::super::scenario::{Phase, Scenario};
use super::super::topologies::ClientServers;
use super::super::workload;
use crate::overlay::client_server::Config;

const SERVERS: u32 = 5;

const SCENARIO: &str = r#"
name = "servers"
nodes = 60
through_bytes = true
overlay = { protocol = "client-server", servers = 5 }
broadcast = { protocol = "flood" }
[join]
through_one = 0.5
per_second = 20
[[phase]]
name = "all"
cycles = 3
graph = true
quiet = true
[[phase]]
name = "one less"
seconds = 10
crash = { first = 1 }
graph = true
[[phase]]
name = "one left"
seconds = 10
crash = { first = 3 }
graph = true
[[phase]]
name = "calm"
cycles = 2
graph = true
quiet = true
broadcasts = { count = 10, over = 5, from = "random" }
"#;

/// Servers are all linked with each other, clients with servers only, each with as many as configured or as are
/// left.
fn check(phase: &Phase, graph: &Graph, live: &[u32], links: usize, seed: u64) {
    let is_server = |vertex: u32| live[vertex as usize] < SERVERS;
    let servers = (0..live.len() as u32).filter(|v| is_server(*v)).count();
    for vertex in 0..live.len() as u32 {
        let neighbors = graph.neighbors(vertex as usize);
        let of_servers = neighbors.iter().filter(|v| is_server(**v)).count();
        let place = format!(
            "seed {seed}, {}, node {}",
            phase.name, live[vertex as usize]
        );
        if is_server(vertex) {
            assert_eq!(of_servers, servers - 1, "{place}");
        } else {
            assert_eq!(neighbors.len(), of_servers, "{place}: a client's client");
            assert_eq!(of_servers, links.min(servers), "{place}");
        }
    }
    // No server is left out when others fail: clients choose at random.
    if phase.name == "one left" {
        return;
    }
    for vertex in (0..live.len() as u32).filter(|v| is_server(*v)) {
        let clients = graph.neighbors(vertex as usize).len() - (servers - 1);
        assert!(
            clients > 0,
            "seed {seed}, {}: {clients} clients",
            phase.name
        );
    }
}

#[test]
fn clients_keep_as_many_links_as_configured_and_fail_over() {
    let scenario = Scenario::parse(SCENARIO).unwrap();
    for links in [1, 2] {
        for seed in 0..4 {
            let config = Config {
                links,
                ..Config::default()
            };
            let pair = Pair {
                overlays: ClientServers {
                    servers: SERVERS,
                    config,
                },
                broadcasts: Floods,
                max_table_bytes: 1 << 20,
            };
            let mut graphs = 0;
            let mut dump = |phase: &Phase, graph: &Graph, live: &[u32], _: &Figures| {
                graphs += 1;
                check(phase, graph, live, links, seed);
            };
            let result = workload::run(&scenario, pair, seed, &mut dump);
            assert_eq!(graphs, 4);
            assert_eq!(result.violations, [], "seed {seed}, {links} links");
        }
    }
}

#[test]
fn a_full_server_sends_clients_to_others() {
    let scenario = Scenario::parse(SCENARIO).unwrap();
    let config = Config {
        max_clients: 15,
        ..Config::default()
    };
    let pair = Pair {
        overlays: ClientServers {
            servers: SERVERS,
            config,
        },
        broadcasts: Floods,
        max_table_bytes: 1 << 20,
    };
    let mut dump = |phase: &Phase, graph: &Graph, live: &[u32], _: &Figures| {
        let servers = live.iter().filter(|node| **node < SERVERS).count();
        for server in 0..servers {
            let clients = graph.neighbors(server).len() - (servers - 1);
            assert!(clients <= 15, "seed 1, {}: {clients} clients", phase.name);
        }
        if servers >= 4 {
            assert_eq!(graph.components().len(), 1, "seed 1, {}", phase.name);
        }
    };
    // Where one server is left there is no room for all, so no invariant of the whole is looked at.
    workload::run(&scenario, pair, 1, &mut dump);
}
