//! Links with stock nodes as they come and go: many at once, both ends at once, nodes that freeze, nodes
//! that start anew, and strangers at the door.

use std::time::{Duration, Instant};

use partisan::limits::{CROWDED_HANDSHAKE_TIMEOUT, MAX_UNAUTHENTICATED};
use partisan::wire::handshake::{Link, Purpose};
use partisan::{
    Allow, Events, Mailbox, Node, NodeEvent, Notice, SendError, SendOptions, StartError, Term,
    Value,
};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

#[path = "stock_links/doors.rs"]
mod doors;
#[path = "stock_links/frozen.rs"]
mod frozen;
#[path = "stock_links/last_words.rs"]
mod last_words;
#[path = "stock_links/names.rs"]
mod names;
#[path = "nodes/mod.rs"]
mod nodes;
#[path = "stock_links/rules.rs"]
mod rules;
#[path = "stock/mod.rs"]
mod stock;
#[path = "stock_links/support.rs"]
mod support;

use stock::{Epmd, Options, Peer};
use support::*;

fn atom(name: &str) -> Value {
    Value::atom(name)
}

fn tuple<const N: usize>(parts: [Value; N]) -> Term {
    Value::tuple(parts).encode().expect("a term")
}

/// A registered process of `node` that answers `{Pid, Term}` with `Term`.
fn echo(node: &Node) {
    node.spawn_named("echo", |mut mailbox| async move {
        while let Some(message) = mailbox.recv().await {
            if let Some([Value::Pid(pid), term]) = message.term.decode().as_tuple() {
                let _ = mailbox.send(pid, &term.encode().expect("a term")).await;
            }
        }
    })
    .expect("a process");
}

/// An expression that talks to it.
fn hello(rust: &str) -> String {
    format!(
        "(fun() -> Ref = make_ref(), {{echo, '{rust}'}} ! {{self(), Ref}}, \
           receive Ref -> hello after 20000 -> silence end end)()"
    )
}
