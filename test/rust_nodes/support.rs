//! What the tests of Rust nodes share.

use std::time::{Duration, Instant};

use bytes::Bytes;
use partisan::{Builder, Events, Node, NodeEvent, SendError, SendOptions, Term, Value};
use tokio::time::timeout;

pub(crate) use crate::nodes::{addr, log, quick};

/// Longest time that anything here may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for a line with all of these texts.
pub(crate) async fn logged(texts: &[&str]) {
    let found = async {
        loop {
            if log().has(texts) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if timeout(PATIENCE, found).await.is_err() {
        panic!("nothing logged with {texts:?}; the log:\n{}", log().text());
    }
}

pub(crate) fn builder(name: &str) -> Builder {
    quick(name, "secret")
}

/// Runs a test's body for at most its time.
pub(crate) async fn within<T>(body: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, body).await {
        Ok(outcome) => outcome,
        Err(_) => panic!("the test takes too long; the log:\n{}", log().text()),
    }
}

/// Joins two nodes and waits until both can send.
pub(crate) async fn join(a: &Node, b: &Node) {
    a.join(b.spec()).await.unwrap();
    assert!(a.connected(b.name()).await);
    assert!(b.connected(a.name()).await);
}

pub(crate) async fn down(events: &mut Events, node: &str) {
    loop {
        match events.recv().await.expect("the node has stopped") {
            NodeEvent::Down { node: down, .. } if *down == *node => return,
            _ => {}
        }
    }
}

pub(crate) async fn up(events: &mut Events, node: &str) {
    loop {
        match events.recv().await.expect("the node has stopped") {
            NodeEvent::Up { node: up } if *up == *node => return,
            NodeEvent::Down { node: down, .. } if *down == *node => panic!("down before up"),
            _ => {}
        }
    }
}

/// `{Sender, Number, Binary}`
pub(crate) fn numbered(sender: i64, number: i64, bytes: usize) -> Term {
    let binary = Value::binary(vec![number as u8; bytes]);
    Value::tuple(vec![sender.into(), number.into(), binary])
        .encode()
        .unwrap()
}

pub(crate) fn number(term: &Term) -> (i64, i64, Bytes) {
    let value = term.decode();
    let parts = value.as_tuple().unwrap();
    let int = |at: usize| parts[at].as_i64().unwrap();
    (int(0), int(1), parts[2].as_binary().unwrap().to_bytes())
}

/// Fills the way to a mailbox that nobody reads; returns how many messages went in.
pub(crate) fn fill(node: &Node, to: (&str, &str), bytes: usize) -> i64 {
    let deadline = Instant::now() + PATIENCE;
    let mut count = 0;
    let mut refused_at = None;
    loop {
        match node.try_send(to, &numbered(0, count, bytes), &SendOptions::new()) {
            Ok(()) => {
                count += 1;
                refused_at = None;
            }
            Err(SendError::Busy) => {
                // Full for good when the I/O thread has found no more room in the socket.
                let since = *refused_at.get_or_insert_with(Instant::now);
                if since.elapsed() > Duration::from_millis(200) {
                    return count;
                }
                std::thread::yield_now();
            }
            Err(e) => panic!("{e}"),
        }
        assert!(Instant::now() < deadline, "never full");
    }
}

pub(crate) async fn drained(node: &Node) {
    within(async {
        while node.queued_bytes() > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}
