//! Acknowledged and causal messages between Rust nodes, over real sockets that break.

use std::time::Duration;

use partisan::{Builder, Mailbox, Node, OverlayConfig, SendError, SendOptions};

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

use ring::Ring;
use support::*;

fn acked() -> SendOptions {
    SendOptions::new().ack(true)
}

/// Receives numbers up to `count`, each once and in order.
async fn take(mailbox: &mut Mailbox, count: i64) {
    for expected in 0..count {
        let message = mailbox.recv().await.expect("a message");
        assert_eq!(number(&message.term).1, expected);
    }
}

async fn tell(from: &Node, to: &Node, what: (i64, i64), options: SendOptions) {
    let term = numbered(what.0, what.1, 9);
    let sent = from.send_with((to.name(), "sink"), &term, &options).await;
    assert_eq!(sent, Ok(()));
}

async fn nothing_more(mailbox: &mut Mailbox) {
    let more = tokio::time::timeout(Duration::from_millis(200), mailbox.recv()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_break_and_each_message_comes_once_and_in_order() {
    const COUNT: i64 = 4_000;
    within(async {
        let a = builder("cut_a").channel("bulk", 2).start().unwrap();
        let b = builder("cut_b").start().unwrap();
        join(&a, &b).await;
        let mut inbox = b.register("sink").unwrap();
        let mut bulk = b.register("bulk").unwrap();
        let mut cuts = a.events();
        let sender = a.clone();
        let sent = tokio::spawn(async move {
            for n in 0..COUNT {
                let (small, large) = (numbered(0, n, 20), numbered(0, n / 10, 70_000));
                let to = ("cut_b@127.0.0.1", "sink");
                sender.send_with(to, &small, &acked()).await.unwrap();
                if n % 10 == 0 {
                    let to = ("cut_b@127.0.0.1", "bulk");
                    let options = acked().channel("bulk");
                    sender.send_with(to, &large, &options).await.unwrap();
                }
            }
        });
        let (name, breaker) = (a.name().to_owned(), b.clone());
        let breaking = tokio::spawn(async move {
            for _ in 0..8 {
                while !breaker.disconnect(name.as_str()).await.unwrap() {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                assert!(breaker.connected(&name).await);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        take(&mut inbox, COUNT).await;
        take(&mut bulk, COUNT / 10).await;
        sent.await.unwrap();
        breaking.await.unwrap();
        down(&mut cuts, b.name()).await;
        nothing_more(&mut inbox).await;
        nothing_more(&mut bulk).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_away_fills_the_store_and_a_restarted_node_gets_it() {
    within(async {
        let a = builder("away_a").ack_bytes(400_000).start().unwrap();
        let b = builder("away_b").start().unwrap();
        join(&a, &b).await;
        let to = ("away_b@127.0.0.1", "sink");
        let listen = addr(&b);
        let mut downs = a.events();
        b.stop();
        drop(b);
        down(&mut downs, to.0).await;
        let mut count = 0;
        let refused = loop {
            let options = acked().nosuspend();
            match a.send_with(to, &numbered(0, count, 1000), &options).await {
                Ok(()) => count += 1,
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused, SendError::Busy);
        // A quarter of the store is for one node.
        assert!((90..100).contains(&count), "{count}");
        let last = numbered(0, count, 1000);
        assert_eq!(a.try_send(to, &last, &acked()), Err(SendError::Busy));
        let hurried = acked().timeout(Duration::from_millis(50));
        let late = a.send_with(to, &last, &hurried).await;
        assert_eq!(late, Err(SendError::Timeout));
        let waiting = tokio::spawn({
            let a = a.clone();
            async move { a.send_with(to, &last, &acked()).await }
        });
        let again = Node::builder(to.0).cookie("secret").listen(listen);
        let b = again.start().unwrap();
        let mut inbox = b.register("sink").unwrap();
        join(&b, &a).await;
        take(&mut inbox, count + 1).await;
        assert_eq!(waiting.await.unwrap(), Ok(()));
        nothing_more(&mut inbox).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_mailbox_holds_the_sender_up() {
    const COUNT: i64 = 900;
    within(async {
        let a = builder("full_a").ack_bytes(400_000).start().unwrap();
        let b = builder("full_b").mailbox_bytes(50_000).start().unwrap();
        join(&a, &b).await;
        let mut inbox = b.register("sink").unwrap();
        let to = ("full_b@127.0.0.1", "sink");
        let mut count = 0;
        // What is acknowledged makes room for more, until the mailbox is full.
        let pause = || acked().timeout(Duration::from_millis(200));
        while let Ok(()) = a.send_with(to, &numbered(0, count, 1000), &pause()).await {
            count += 1;
            assert!(count < COUNT, "the mailbox is never full");
        }
        let rest = tokio::spawn(async move {
            for n in count..COUNT {
                a.send_with(to, &numbered(0, n, 1000), &acked())
                    .await
                    .unwrap();
            }
            a
        });
        take(&mut inbox, COUNT).await;
        let _a = rest.await.unwrap();
        nothing_more(&mut inbox).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_leaves_is_waited_for_no_longer() {
    within(async {
        let a = builder("left_a").start().unwrap();
        let b = builder("left_b").start().unwrap();
        join(&a, &b).await;
        while a.members().await.unwrap().len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let to = ("left_b@127.0.0.1", "sink");
        let mut downs = a.events();
        b.stop();
        down(&mut downs, to.0).await;
        for n in 0..3 {
            a.send_with(to, &numbered(0, n, 9), &acked()).await.unwrap();
        }
        a.remove(to.0).await.unwrap();
        logged(&["left_b@", "messages=3", "are dropped"]).await;
        let refused = a.send_with(to, &numbered(0, 0, 9), &acked()).await;
        assert_eq!(refused, Err(SendError::Disconnected));
        let stranger = ("left_c@127.0.0.1", "sink");
        let refused = a.send_with(stranger, &numbered(0, 0, 9), &acked()).await;
        assert_eq!(refused, Err(SendError::NotYetConnected));
        let lane = SendOptions::new().causal("nowhere");
        let refused = a.send_with(to, &numbered(0, 0, 9), &lane).await;
        assert_eq!(refused, Err(SendError::UnknownLabel("nowhere".into())));
        let strange = acked().channel("nowhere");
        let mut own = a.register("own").unwrap();
        a.send_with(("left_a@127.0.0.1", "own"), &numbered(0, 0, 9), &strange)
            .await
            .unwrap();
        take(&mut own, 1).await;
    })
    .await;
}

/// Ann tells Bob, by a connection that does not move, and then Cid, who tells Bob: Bob hears Ann first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn causal_messages_wait_for_what_came_before() {
    within(async {
        let red = |b: Builder| b.causal_label("red").mailbox_bytes(100_000);
        let ann = red(builder("causal_ann").queue_bytes(100_000));
        let ann = ann.start().unwrap();
        let bob = red(builder("causal_bob")).start().unwrap();
        let cid = red(builder("causal_cid")).start().unwrap();
        for (x, y) in [(&ann, &cid), (&bob, &cid), (&ann, &bob)] {
            join(x, y).await;
        }
        let mut bobs = bob.register("sink").unwrap();
        let mut cids = cid.register("sink").unwrap();
        let red = || SendOptions::new().causal("red");
        let mut stuffed = bob.register("stuffed").unwrap();
        let filled = fill(&ann, (bob.name(), "stuffed"), 50_000);
        tell(&ann, &bob, (0, 0), red()).await;
        tell(&ann, &cid, (0, 0), red()).await;
        take(&mut cids, 1).await;
        tell(&cid, &bob, (0, 1), red()).await;
        // By the same connection, and later: what is held is Cid's causal message alone.
        tell(&cid, &bob, (7, 0), acked()).await;
        let message = bobs.recv().await.unwrap();
        assert_eq!(number(&message.term).0, 7);
        nothing_more(&mut bobs).await;
        take(&mut stuffed, filled).await;
        take(&mut bobs, 2).await;
        nothing_more(&mut bobs).await;
    })
    .await;
}

/// Everybody is told of numbers by everybody, and passes them on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_ring_sessions_come_and_go_and_nothing_is_lost() {
    const NODES: usize = 4;
    const COUNT: i64 = 12;
    within(async {
        let mut nodes: Vec<Node> = Vec::new();
        for n in 0..NODES {
            let builder = builder(&format!("ackring_{n}"))
                .overlay(OverlayConfig::custom("ring", Ring::new))
                .relay_direct(false)
                .reach_idle(Duration::from_millis(150));
            let node = builder.start().unwrap();
            if let Some(first) = nodes.first() {
                node.join(first.spec()).await.unwrap();
            }
            nodes.push(node);
        }
        for node in &nodes {
            while node.members().await.unwrap().len() < NODES {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let mut tasks = tokio::task::JoinSet::new();
        for (own, node) in nodes.iter().enumerate() {
            // The node that is no neighbour on a ring of four.
            let to = nodes[(own + 2) % NODES].name().to_owned();
            let (sender, mut inbox) = (node.clone(), node.register("sink").unwrap());
            tasks.spawn(async move {
                for n in 0..COUNT {
                    let term = numbered(0, n, 300);
                    sender
                        .send_with((&*to, "sink"), &term, &acked())
                        .await
                        .unwrap();
                    tokio::time::sleep(Duration::from_millis(180)).await;
                }
            });
            tasks.spawn(async move { take(&mut inbox, COUNT).await });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    })
    .await;
}
