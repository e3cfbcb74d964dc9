//! The overlay of a running cluster is changed while messages flow, between real sockets: nothing is lost, late or
//! out of order, and nobody is down.
//!
//! `PARTISAN_SWITCH_NODES=20 PARTISAN_SWITCH_ROUNDS=3` runs it as large as the project promises.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use partisan::{
    ClientServerConfig, ClusterError, Events, Mailbox, Node, NodeEvent, OverlayConfig, SendOptions,
    Tag,
};

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

const CHANNELS: [&str; 2] = ["undefined", "bulk"];
const SERVERS: usize = 3;
const OVERLAP: Duration = Duration::from_secs(3);
/// Time for all nodes to run the new overlay alone.
const SETTLED: Duration = Duration::from_secs(60);

fn setting(name: &str, default: usize) -> usize {
    let given = std::env::var(name).ok();
    given.map_or(default, |n| n.parse().expect("a number"))
}

/// The first are the servers of what may become clients and servers.
async fn cluster(name: &str, count: usize) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    for n in 0..count {
        let tag = match n < SERVERS {
            true => Tag::Server,
            false => Tag::Client,
        };
        let client_server = OverlayConfig::ClientServer(ClientServerConfig {
            tag,
            ..ClientServerConfig::default()
        });
        let node = builder(&format!("{name}_{n}"))
            .other_overlay(client_server)
            .switch_overlap(OVERLAP)
            .channel("bulk", 1)
            .start()
            .unwrap();
        if let Some(first) = nodes.first() {
            node.join(first.spec()).await.unwrap();
        }
        nodes.push(node);
    }
    for node in &nodes {
        for other in nodes.iter().filter(|o| o.name() != node.name()) {
            assert!(node.connected(other.name()).await);
        }
    }
    nodes
}

/// All nodes run this overlay, and no other.
async fn settled(nodes: &[Node], overlay: &str, epoch: u64) {
    let deadline = Instant::now() + SETTLED;
    for node in nodes {
        loop {
            let status = node.overlay().await.unwrap();
            let done = status.until_switched.is_none();
            if (status.overlay, status.epoch, done) == (overlay, epoch, true) {
                break;
            }
            let late = Instant::now() > deadline;
            assert!(!late, "{}: {status:?}\n{}", node.name(), log().text());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Takes what everybody sends until `sent` says how much that was; the number of messages.
async fn take(mut mailbox: Mailbox, expected: tokio::sync::oneshot::Receiver<Sent>) -> i64 {
    let mut next: BTreeMap<i64, i64> = BTreeMap::new();
    let mut expected = std::pin::pin!(expected);
    let mut all: Option<Sent> = None;
    loop {
        if let Some(sent) = &all
            && sent.iter().all(|(from, n)| next.get(from) == Some(n))
        {
            return next.values().sum();
        }
        tokio::select! {
            message = mailbox.recv() => {
                let message = message.expect("a message");
                let (sender, number, bytes) = number(&message.term);
                let expected = next.entry(sender).or_default();
                assert_eq!(number, *expected, "from {sender}");
                assert!(bytes.iter().all(|byte| *byte == number as u8));
                *expected += 1;
            }
            sent = &mut expected, if all.is_none() => all = Some(sent.expect("the senders end")),
            () = tokio::time::sleep(Duration::from_secs(20)), if all.is_some() => {
                panic!("lost: {next:?} of {all:?}\n{}", log().text());
            }
        }
    }
}

/// Messages by sender and channel.
type Sent = BTreeMap<i64, i64>;

/// Sends to all others in turn, on both channels, until told to stop.
async fn send(own: usize, node: Node, others: Vec<Arc<str>>, stop: Arc<AtomicBool>) -> Vec<Sent> {
    let mut sent = vec![Sent::new(); others.len()];
    let mut turns = 0_usize;
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    while !stop.load(Ordering::Relaxed) {
        tick.tick().await;
        let other = turns % others.len();
        let channel = turns / others.len() % 2;
        turns += 1;
        let name = &others[other];
        if **name == *node.name() {
            continue;
        }
        let stream = (own * 2 + channel) as i64;
        let count = sent[other].entry(stream).or_default();
        let bytes = match (channel, *count % 10) {
            (1, 9) => 1 << 20,
            _ => 64,
        };
        let options = SendOptions::new().channel(CHANNELS[channel]);
        let term = numbered(stream, *count, bytes);
        let done = node.send_with((&**name, "sink"), &term, &options).await;
        done.unwrap_or_else(|e| panic!("{} to {name}: {e}\n{}", node.name(), log().text()));
        *count += 1;
    }
    sent
}

fn nobody_was_down(events: &mut [Events]) {
    for events in events {
        while let Some(event) = events.try_recv() {
            let down = matches!(event, NodeEvent::Down { .. } | NodeEvent::Left);
            assert!(!down, "{event:?}\n{}", log().text());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_overlay_changes_under_load() {
    let count = setting("PARTISAN_SWITCH_NODES", 7);
    let rounds = setting("PARTISAN_SWITCH_ROUNDS", 1);
    let nodes = cluster("switch", count).await;
    let names: Vec<Arc<str>> = nodes.iter().map(|n| n.name().into()).collect();
    let mut events: Vec<_> = nodes.iter().map(Node::events).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let (mut readers, mut writers, mut totals) = (Vec::new(), Vec::new(), Vec::new());
    for (own, node) in nodes.iter().enumerate() {
        let (total, expected) = tokio::sync::oneshot::channel();
        readers.push(tokio::spawn(take(node.register("sink").unwrap(), expected)));
        totals.push(total);
        writers.push(tokio::spawn(send(
            own,
            node.clone(),
            names.clone(),
            stop.clone(),
        )));
    }
    let mut epoch = 0;
    for _ in 0..rounds {
        for overlay in ["hyparview", "client_server", "full_mesh"] {
            epoch += 1;
            nodes[epoch as usize % SERVERS]
                .switch(overlay)
                .await
                .unwrap();
            settled(&nodes, overlay, epoch).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            nobody_was_down(&mut events);
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut expected = vec![Sent::new(); count];
    for writer in writers {
        let sent = writer.await.expect("a sender");
        for (other, streams) in sent.into_iter().enumerate() {
            expected[other].extend(streams);
        }
    }
    for (total, sent) in totals.into_iter().zip(expected) {
        total.send(sent).expect("a reader");
    }
    let mut taken = 0;
    for reader in readers {
        taken += reader.await.expect("a reader");
    }
    nobody_was_down(&mut events);
    println!("{count} nodes, {epoch} switches, {taken} messages: none lost, none out of order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_or_returns_learns_of_the_overlay() {
    let nodes = cluster("late", 4).await;
    nodes[0].switch("hyparview").await.unwrap();
    settled(&nodes, "hyparview", 1).await;
    let newcomer = builder("late_new").switch_overlap(OVERLAP).start().unwrap();
    newcomer.join(nodes[1].spec()).await.unwrap();
    settled(std::slice::from_ref(&newcomer), "hyparview", 1).await;
    assert!(newcomer.members().await.unwrap().len() > 1);
    // A client is of no help to others.
    let refused = nodes[SERVERS].switch("client_server").await;
    assert!(matches!(refused, Err(ClusterError::Refused(why)) if why.contains("at a server")));
    let unknown = nodes[0].switch("torus").await;
    assert!(matches!(unknown, Err(ClusterError::Refused(why)) if why.contains("full_mesh")));
    // Who leaves is as at first.
    newcomer.leave().await.unwrap();
    settled(std::slice::from_ref(&newcomer), "full_mesh", 0).await;
}
