//! Messages to nodes without a link, on overlays of real sockets: made on demand, and over other nodes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use partisan::{Builder, Mailbox, Node, NodeEvent, OverlayConfig, SendError, SendOptions};

#[path = "relay_blink.rs"]
mod blink;
#[path = "nodes/mod.rs"]
mod nodes;
#[allow(dead_code, reason = "its main is an example")]
#[path = "../examples/ring/overlay.rs"]
mod ring;
#[allow(
    dead_code,
    unused_imports,
    reason = "the other tests of Rust nodes use the rest"
)]
#[path = "rust_nodes/support.rs"]
mod support;

use blink::Blink;
use ring::Ring;
use support::*;

/// A ring whose nodes know no shortcut, if `configure` says so.
async fn circle(name: &str, count: usize, configure: impl Fn(Builder) -> Builder) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    for n in 0..count {
        let overlay = OverlayConfig::custom("ring", Ring::new);
        let builder = configure(builder(&format!("{name}_{n}")).overlay(overlay));
        let node = builder.start().unwrap();
        if let Some(first) = nodes.first() {
            node.join(first.spec()).await.unwrap();
        }
        nodes.push(node);
    }
    let closed = async {
        for node in &nodes {
            while node.members().await.unwrap().len() < count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), closed)
        .await
        .expect("a closed ring");
    nodes
}

/// Receives `count` messages from each sender; each in order and whole.
async fn take(mailbox: &mut Mailbox, senders: usize, count: i64) {
    let mut next: BTreeMap<i64, i64> = BTreeMap::new();
    for _ in 0..senders as i64 * count {
        let message = mailbox.recv().await.expect("a message");
        let (sender, number, _) = number(&message.term);
        let expected = next.entry(sender).or_default();
        assert_eq!(number, *expected, "from {sender}");
        *expected += 1;
    }
    assert_eq!(next.len(), senders);
    assert!(next.values().all(|&n| n == count));
}

/// Every node sends to every other; `pause` between two messages.
async fn all_to_all(nodes: &[Node], count: i64, pause: Duration) {
    let mut readers = Vec::new();
    for node in nodes {
        let mut mailbox = node.register("sink").unwrap();
        let senders = nodes.len() - 1;
        readers.push(tokio::spawn(async move {
            take(&mut mailbox, senders, count).await;
        }));
    }
    let names: Vec<Arc<str>> = nodes.iter().map(|n| n.name().into()).collect();
    let mut writers = Vec::new();
    for (own, node) in nodes.iter().enumerate() {
        for (other, name) in names.iter().enumerate() {
            if own == other {
                continue;
            }
            let (node, name) = (node.clone(), name.clone());
            writers.push(tokio::spawn(async move {
                for n in 0..count {
                    let size = match n % 10 {
                        9 => 200_000,
                        n => 50 * n as usize,
                    };
                    let term = numbered(own as i64, n, size);
                    node.send((&*name, "sink"), &term).await.unwrap();
                    tokio::time::sleep(pause).await;
                }
            }));
        }
    }
    for task in writers.into_iter().chain(readers) {
        let done = tokio::time::timeout(Duration::from_secs(60), task).await;
        done.expect("in time").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_other_nodes_everybody_is_reached_in_order() {
    let nodes = circle("relay", 7, |b| b.relay_direct(false)).await;
    all_to_all(&nodes, 20, Duration::ZERO).await;
    // Not one session has another node's address for a node that is no neighbour.
    for node in &nodes {
        assert!(node.nodes().len() >= nodes.len() - 1, "{:?}", node.nodes());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_sessions_come_and_go_and_nothing_is_lost() {
    let nodes = circle("idle", 5, |b| b.reach_idle(Duration::from_millis(200))).await;
    let mut events: Vec<_> = nodes.iter().map(Node::events).collect();
    // Between two messages of a sender its session is closed, or is about to be.
    all_to_all(&nodes, 12, Duration::from_millis(250)).await;
    for events in &mut events {
        while let Some(event) = events.try_recv() {
            let planned = !matches!(event, NodeEvent::Down { .. });
            assert!(planned, "a planned close is no failure: {event:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_there_is_not_reached() {
    let patience = Duration::from_secs(1);
    let nodes = circle("gone", 5, |b| b.reach_patience(patience)).await;
    let (node, other) = (&nodes[0], &nodes[2]);
    node.reach(other.name()).await.unwrap();
    let mut events = node.events();
    let name: Arc<str> = other.name().into();
    other.stop();
    down(&mut events, &name).await;
    let term = numbered(0, 0, 10);
    let error = node.send((&*name, "sink"), &term).await.unwrap_err();
    assert_eq!(error, SendError::Unreachable(name.clone()));
    let options = SendOptions::new().timeout(Duration::from_millis(50));
    let late = node.send_with((&*name, "sink"), &term, &options).await;
    assert_eq!(late, Err(SendError::Timeout));
    let nobody = node.send(("nobody@127.0.0.1", "sink"), &term).await;
    assert!(
        matches!(nobody, Err(SendError::Unreachable(_))),
        "{nobody:?}"
    );
}

/// The queues of both ends are never empty when a link is released.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_out_of_order_when_links_are_released_under_load() {
    let mut nodes = Vec::new();
    for name in ["blink_a", "blink_b"] {
        let overlay = OverlayConfig::custom("blink", Blink::new);
        nodes.push(builder(name).overlay(overlay).start().unwrap());
    }
    nodes[1].join(nodes[0].spec()).await.unwrap();
    let mut events: Vec<_> = nodes.iter().map(Node::events).collect();
    all_to_all(&nodes, 3_000, Duration::ZERO).await;
    for events in &mut events {
        while let Some(event) = events.try_recv() {
            let planned = !matches!(event, NodeEvent::Down { .. });
            assert!(planned, "a planned close is no failure: {event:?}");
        }
    }
    // It would prove little without.
    let closes = log().text().matches("released by the peer").count();
    assert!(closes > 5, "{closes} closes");
}
