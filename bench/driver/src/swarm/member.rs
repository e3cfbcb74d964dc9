//! A process of the swarm: some nodes, and the orders of the driver on standard input.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use partisan::{HyParViewConfig, Node, NodeSpec, OverlayConfig, Value};
use serde::{Deserialize, Serialize};

/// What the driver asks.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// Node `usize` of this process joins another.
    Join(usize, String, SocketAddr),
    /// Who are the neighbours of each node?
    Views,
    /// Node `usize` broadcasts a number.
    Broadcast(usize, i64),
    /// How many nodes have heard this number, and how many of them twice?
    Heard(i64),
}

/// What a process answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The nodes are up.
    Nodes(Vec<(String, SocketAddr)>),
    /// It is done.
    Done,
    /// Neighbours by node.
    Views(BTreeMap<String, Vec<String>>),
    /// Nodes that have heard, and those that have heard more than once.
    Heard(usize, usize),
}

type Heard = Arc<Mutex<BTreeMap<i64, Vec<u32>>>>;

fn start(first: usize, count: usize, interval: Duration) -> Result<(Vec<Node>, Heard)> {
    let heard: Heard = Arc::default();
    let mut nodes = Vec::new();
    for index in 0..count {
        let overlay = OverlayConfig::HyParView(HyParViewConfig {
            shuffle_interval: interval,
            ..HyParViewConfig::default()
        });
        let node = Node::builder(format!("swarm{}@127.0.0.1", first + index))
            .cookie("swarm")
            .listen((Ipv4Addr::LOCALHOST, 0).into())
            .io_threads(1)
            .bulk_threads(1)
            .overlay(overlay)
            .start()?;
        let mut mailbox = node.register("swarm")?;
        let heard = heard.clone();
        tokio::spawn(async move {
            while let Some(message) = mailbox.recv().await {
                if let Some(number) = message.term.decode().as_i64() {
                    let mut heard = heard.lock();
                    let counts = heard.entry(number).or_insert_with(|| vec![0; count]);
                    counts[index] += 1;
                }
            }
        });
        nodes.push(node);
    }
    Ok((nodes, heard))
}

async fn obey(nodes: &[Node], heard: &Heard, order: Order) -> Result<Answer> {
    Ok(match order {
        Order::Join(index, name, addr) => {
            let contact = NodeSpec::from((&*name, addr));
            nodes[index].join(contact).await?;
            Answer::Done
        }
        Order::Views => {
            let mut views = BTreeMap::new();
            for node in nodes {
                let members = node.members().await?;
                let names = members.iter().map(|m| m.name.to_string());
                let others = names.filter(|name| *name != node.name()).collect();
                views.insert(node.name().to_string(), others);
            }
            Answer::Views(views)
        }
        Order::Broadcast(index, number) => {
            let term = Value::from(number).encode()?;
            nodes[index].broadcast("swarm", &term).await?;
            Answer::Done
        }
        Order::Heard(number) => {
            let heard = heard.lock();
            let counts = heard.get(&number).map(Vec::as_slice).unwrap_or_default();
            let at_least = |times| counts.iter().filter(|n| **n >= times).count();
            Answer::Heard(at_least(1), at_least(2))
        }
    })
}

fn say(answer: &Answer) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, answer)?;
    writeln!(out)?;
    out.flush()?;
    Ok(())
}

/// Runs until standard input ends.
pub(crate) fn run(first: usize, count: usize, interval: Duration) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let _inside = runtime.enter();
    let (nodes, heard) = start(first, count, interval)?;
    let addr = |node: &Node| {
        let addr = node.spec().listen_addrs.first().copied();
        Ok((node.name().to_string(), addr.context("no address")?))
    };
    say(&Answer::Nodes(
        nodes.iter().map(addr).collect::<Result<_>>()?,
    ))?;
    for line in std::io::stdin().lock().lines() {
        let order = serde_json::from_str(&line?)?;
        say(&runtime.block_on(obey(&nodes, &heard, order))?)?;
    }
    Ok(())
}
