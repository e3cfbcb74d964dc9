//! Overlays and broadcasts of Rust nodes, over real sockets.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use partisan::{
    ClientServerConfig, HyParViewConfig, Mailbox, Node, OverlayConfig, ScampConfig, Tag, Term,
    Value, XBotConfig,
};
use tokio::task::JoinSet;

#[path = "nodes/mod.rs"]
mod nodes;
#[allow(
    dead_code,
    unused_imports,
    reason = "the other tests of Rust nodes use the rest"
)]
#[path = "rust_nodes/support.rs"]
mod support;

use support::*;

/// What a node broadcasts: a number, and bytes that are told by it.
fn news(number: usize) -> Value {
    const SIZES: [usize; 5] = [0, 64, 3_000, 70_000, 1 << 20];
    let size = SIZES[number % SIZES.len()];
    let bytes: Vec<u8> = (0..size).map(|i| ((i + number) % 251) as u8).collect();
    Value::tuple([Value::from(number as i64), Value::binary(bytes)])
}

/// Receives until this node has all news of all others; each once and unharmed.
async fn collect(node: &Node, others: BTreeSet<Arc<str>>, count: usize) {
    let mut mailbox = node.register("news").unwrap();
    let mut missing: BTreeSet<(Arc<str>, usize)> = others
        .into_iter()
        .flat_map(|name| (0..count).map(move |n| (name.clone(), n)))
        .collect();
    while !missing.is_empty() {
        let message = mailbox.recv().await.unwrap();
        let value = message.term.decode();
        let number = value.as_tuple().unwrap()[0].as_i64().unwrap() as usize;
        assert!(value == news(number), "{number} is damaged");
        let fresh = missing.remove(&(message.from.clone(), number));
        assert!(fresh, "{number} of {} came twice", message.from);
    }
    // Nothing comes a second time.
    let more = tokio::time::timeout(Duration::from_millis(300), mailbox.recv()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broadcasts_reach_every_node_of_a_full_mesh_once() {
    const NODES: usize = 5;
    const COUNT: usize = 40;
    within(async {
        let nodes: Vec<Node> = (0..NODES)
            .map(|n| builder(&format!("news_{n}")))
            // Room for all of it: a mailbox that is full loses broadcasts.
            .map(|node| node.mailbox_bytes(256 << 20).start().unwrap())
            .collect();
        for node in &nodes[1..] {
            join(node, &nodes[0]).await;
        }
        for (a, b) in nodes.iter().flat_map(|a| nodes.iter().map(move |b| (a, b))) {
            assert!(a.name() == b.name() || a.connected(b.name()).await);
        }
        let names: BTreeSet<Arc<str>> = nodes.iter().map(|n| n.name().into()).collect();
        let mut readers = JoinSet::new();
        for node in &nodes {
            let mut others = names.clone();
            others.remove(node.name());
            let node = node.clone();
            readers.spawn(async move { collect(&node, others, COUNT).await });
        }
        // Mailboxes first: a broadcast to nobody is lost.
        while nodes.iter().any(|n| n.registered().is_empty()) {
            tokio::task::yield_now().await;
        }
        for number in 0..COUNT {
            for node in &nodes {
                let term: Term = news(number).encode().unwrap();
                node.broadcast("news", &term).await.unwrap();
            }
        }
        while let Some(reader) = readers.join_next().await {
            reader.unwrap();
        }
    })
    .await;
}

/// Waits until `done` says so, at most as long as tests may take.
async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, waited).await.is_err() {
        panic!("not in time: {what}");
    }
}

/// Broadcasts a number from `root`; all others get it.
async fn reach(root: &Node, others: &mut [(Node, Mailbox)], number: i64) {
    let term = Value::from(number).encode().unwrap();
    root.broadcast("news", &term).await.unwrap();
    for (node, mailbox) in others.iter_mut() {
        let next = async {
            loop {
                let message = mailbox.recv().await.unwrap();
                if message.term.decode().as_i64() == Some(number) {
                    return message.from;
                }
            }
        };
        match tokio::time::timeout(PATIENCE, next).await {
            Ok(from) => assert_eq!(&*from, root.name()),
            Err(_) => panic!("{} has not heard of {number}", node.name()),
        }
    }
}

fn hyparview() -> HyParViewConfig {
    HyParViewConfig {
        shuffle_interval: Duration::from_millis(500),
        ..HyParViewConfig::default()
    }
}

/// Nodes that join each other, get what one broadcasts, and go on to do so when a third of them has
/// crashed. `members`: how many a node has at least, and at most, itself among them.
async fn survives_a_crash_of_a_third(name: &str, overlay: OverlayConfig, members: (usize, usize)) {
    const NODES: usize = 24;
    let mut nodes: Vec<(Node, Mailbox)> = Vec::new();
    for n in 0..NODES {
        let node = builder(&format!("{name}_{n}"))
            .overlay(overlay.clone())
            .start()
            .unwrap();
        let mailbox = node.register("news").unwrap();
        if let Some((contact, _)) = nodes.get(n / 2) {
            node.join(contact.spec()).await.unwrap();
        }
        nodes.push((node, mailbox));
    }
    until("every node has neighbours", async || {
        for (node, _) in &nodes {
            if node.members().await.unwrap().len() < members.0 {
                return false;
            }
        }
        true
    })
    .await;
    for (node, _) in &nodes {
        assert!(node.members().await.unwrap().len() <= members.1);
    }
    let (root, mut others) = (nodes.remove(0), nodes);
    reach(&root.0, &mut others, 1).await;
    // As if their hosts had lost power, as far as a process can do that to its own nodes.
    for (node, _) in others.split_off(2 * NODES / 3) {
        node.stop();
    }
    // Broadcasts of before the failures are noticed come by repair.
    for number in 2..12 {
        reach(&root.0, &mut others, number).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hyparview_keeps_few_links_and_survives() {
    let overlay = OverlayConfig::HyParView(hyparview());
    survives_a_crash_of_a_third("view", overlay, (3, 6)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn xbot_measures_and_exchanges_and_survives() {
    let xbot = XBotConfig {
        interval: Duration::from_millis(200),
        ..XBotConfig::default()
    };
    let overlay = OverlayConfig::HyParView(HyParViewConfig {
        xbot: Some(xbot),
        ..hyparview()
    });
    survives_a_crash_of_a_third("near", overlay, (3, 6)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scamp_has_views_and_survives() {
    let overlay = OverlayConfig::Scamp(ScampConfig {
        interval: Duration::from_millis(500),
        ..ScampConfig::default()
    });
    survives_a_crash_of_a_third("scamp", overlay, (3, 24)).await;
}

/// A node of this overlay, with a mailbox for news.
fn member(name: &str, overlay: OverlayConfig) -> (Node, Mailbox) {
    let node = builder(name).overlay(overlay).start().unwrap();
    let mailbox = node.register("news").unwrap();
    (node, mailbox)
}

/// Names of the others among a node's members, without the host.
async fn links(node: &Node) -> BTreeSet<String> {
    let members = node.members().await.unwrap().into_iter();
    let others = members.filter(|spec| &*spec.name != node.name());
    let short = |name: &str| name.split('@').next().unwrap_or_default().to_owned();
    others.map(|spec| short(&spec.name)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_find_another_server_when_theirs_fails() {
    const SERVERS: usize = 3;
    const CLIENTS: usize = 8;
    let tagged = |tag| {
        OverlayConfig::ClientServer(ClientServerConfig {
            tag,
            ..ClientServerConfig::default()
        })
    };
    let mut servers: Vec<(Node, Mailbox)> = (0..SERVERS)
        .map(|n| member(&format!("server_{n}"), tagged(Tag::Server)))
        .collect();
    for (server, _) in &servers[1..] {
        server.join(servers[0].0.spec()).await.unwrap();
    }
    let mut clients: Vec<(Node, Mailbox)> = Vec::new();
    for n in 0..CLIENTS {
        let (client, mailbox) = member(&format!("client_{n}"), tagged(Tag::Client));
        // Through a server, or through a client that tells of them.
        let contact = match n % 4 {
            3 => &clients[0].0,
            _ => &servers[0].0,
        };
        client.join(contact.spec()).await.unwrap();
        if n == 0 {
            until("the first client has a server", async || {
                !links(&client).await.is_empty()
            })
            .await;
        }
        clients.push((client, mailbox));
    }
    let settled = async |servers: &[(Node, Mailbox)], clients: &[(Node, Mailbox)]| {
        for (server, _) in servers {
            let linked = links(server).await;
            let with = linked
                .iter()
                .filter(|name| name.starts_with("server"))
                .count();
            if with != servers.len() - 1 {
                return false;
            }
        }
        let mut of_clients = BTreeSet::new();
        for (client, _) in clients {
            let linked = links(client).await;
            if linked.len() != 1 || !linked.iter().all(|name| name.starts_with("server")) {
                return false;
            }
            of_clients.extend(linked);
        }
        !servers.is_empty() && of_clients.len() <= servers.len()
    };
    until("one server for each client", async || {
        settled(&servers, &clients).await
    })
    .await;
    let (root, mailbox) = clients.remove(0);
    let mut others: Vec<_> = servers.drain(..).chain(clients.drain(..)).collect();
    reach(&root, &mut others, 1).await;
    // The one to which the most have links.
    let (failed, _) = others.remove(0);
    failed.stop();
    clients = others.split_off(SERVERS - 1);
    clients.push((root, mailbox));
    servers = others;
    until("another server for each client", async || {
        settled(&servers, &clients).await
    })
    .await;
    let (root, _) = clients.remove(0);
    let mut others: Vec<_> = servers.into_iter().chain(clients).collect();
    for number in 2..5 {
        reach(&root, &mut others, number).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn static_links_are_those_that_were_named() {
    let mut nodes: Vec<(Node, Mailbox)> = (0..4)
        .map(|n| member(&format!("chain_{n}"), OverlayConfig::Static))
        .collect();
    for pair in nodes.windows(2) {
        pair[0].0.join(pair[1].0.spec()).await.unwrap();
    }
    let chain = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let expected: [BTreeSet<String>; 4] = [
        chain(&["chain_1"]),
        chain(&["chain_0", "chain_2"]),
        chain(&["chain_1", "chain_3"]),
        chain(&["chain_2"]),
    ];
    until("a chain", async || {
        for ((node, _), expected) in nodes.iter().zip(&expected) {
            if links(node).await != *expected {
                return false;
            }
        }
        true
    })
    .await;
    let (root, _) = nodes.remove(0);
    reach(&root, &mut nodes, 1).await;
    // Who leaves is not called back by those that have named it.
    let (last, _) = nodes.pop().unwrap();
    last.leave().await.unwrap();
    until("the last has left", async || {
        links(&last).await.is_empty() && links(&nodes[1].0).await == chain(&["chain_1"])
    })
    .await;
    reach(&root, &mut nodes, 2).await;
    assert!(links(&last).await.is_empty());
    last.join(nodes[1].0.spec()).await.unwrap();
    until("the last is back", async || {
        links(&nodes[1].0).await.len() == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_are_those_that_a_policy_wants() {
    const POLICY: &str = "test policy";
    let mut nodes: Vec<(Node, Mailbox)> = (0..4)
        .map(|n| member(&format!("steered_{n}"), OverlayConfig::Steered(POLICY)))
        .collect();
    let specs: Vec<_> = nodes.iter().map(|(node, _)| node.spec().clone()).collect();
    let steer = async |of: usize, to: &[usize]| {
        let wanted = to.iter().map(|n| specs[*n].clone()).collect();
        nodes[of].0.steer(POLICY, wanted).await.unwrap();
    };
    // A star, wanted at its middle; then one of the others wants a further link.
    steer(0, &[1, 2, 3]).await;
    steer(1, &[2]).await;
    nodes[3].0.steer("another", specs.clone()).await.unwrap();
    let connected = |names: &[usize]| names.iter().map(|n| specs[*n].name.to_string()).collect();
    let expected: [BTreeSet<String>; 4] = [
        connected(&[1, 2, 3]),
        connected(&[0, 2]),
        connected(&[0, 1]),
        connected(&[0]),
    ];
    until("a star and one more", async || {
        nodes.iter().zip(&expected).all(|((node, _), expected)| {
            let names = node.nodes().into_iter().map(|name| name.to_string());
            names.collect::<BTreeSet<_>>() == *expected
        })
    })
    .await;
    assert_eq!(links(&nodes[0].0).await.len(), 3);
    assert!(links(&nodes[3].0).await.is_empty());
    // It drops one, and joins it again: that lasts until it is steered anew.
    steer(0, &[1, 2]).await;
    until("dropped", async || nodes[3].0.nodes().is_empty()).await;
    nodes[0].0.join(&specs[3]).await.unwrap();
    until("joined", async || !nodes[3].0.nodes().is_empty()).await;
    let (root, _) = nodes.remove(0);
    reach(&root, &mut nodes, 1).await;
    root.steer(POLICY, specs[1..3].to_vec()).await.unwrap();
    until("dropped again", async || nodes[2].0.nodes().is_empty()).await;
}

#[tokio::test]
async fn nodes_whose_tags_do_not_fit_part_and_say_why() {
    let overlay = |tag| {
        OverlayConfig::ClientServer(ClientServerConfig {
            tag,
            ..ClientServerConfig::default()
        })
    };
    let (server, _) = member("tagged", overlay(Tag::Server));
    let (other, _) = member("untagged", overlay(Tag::Undefined));
    other.join(server.spec()).await.unwrap();
    logged(&[
        "a node that has a tag with one that has none",
        "give each node",
    ])
    .await;
    assert!(links(&server).await.is_empty());
    assert!(links(&other).await.is_empty());
}

#[tokio::test]
async fn nodes_with_other_overlays_part_and_say_why() {
    let mesh = builder("other_mesh").start().unwrap();
    let overlay = OverlayConfig::HyParView(HyParViewConfig::default());
    let views = builder("other_views").overlay(overlay).start().unwrap();
    views.join(mesh.spec()).await.unwrap();
    logged(&["it runs the overlay", "full_mesh", "hyparview"]).await;
    assert_eq!(mesh.members().await.unwrap().len(), 1);
    assert_eq!(views.members().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_broadcast_has_a_largest_size() {
    let node = builder("large").start().unwrap();
    let term = Value::binary(vec![0; 9 << 20]).encode().unwrap();
    let error = node.broadcast("news", &term).await.unwrap_err();
    assert!(error.to_string().contains("too large"), "{error}");
}
