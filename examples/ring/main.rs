//! An overlay of your own: nine nodes in a ring (`overlay.rs`), a broadcast over it, and again after one has gone.
//!
//! `cargo run --example ring`

use std::time::Duration;

use partisan::{Mailbox, Node, OverlayConfig, Value};

mod overlay;

use overlay::Ring;

/// Broadcasts from the first node; how many others get it.
async fn reach(
    nodes: &mut [(Node, Mailbox)],
    text: &str,
) -> Result<usize, Box<dyn std::error::Error>> {
    nodes[0]
        .0
        .broadcast("news", &Value::from(text).encode()?)
        .await?;
    let mut reached = 0;
    for (_, mailbox) in &mut nodes[1..] {
        let message = tokio::time::timeout(Duration::from_secs(10), mailbox.recv()).await?;
        reached += usize::from(message.is_some_and(|m| m.term.decode() == Value::from(text)));
    }
    Ok(reached)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut nodes: Vec<(Node, Mailbox)> = Vec::new();
    for n in 1..=9 {
        let node = Node::builder(format!("ring{n}@127.0.0.1"))
            .cookie("secret")
            .listen(([127, 0, 0, 1], 0).into())
            .overlay(OverlayConfig::custom("ring", Ring::new))
            .start()?;
        let mailbox = node.register("news")?;
        if let Some((first, _)) = nodes.first() {
            node.join(first.spec()).await?;
        }
        nodes.push((node, mailbox));
    }
    closed(&nodes).await?;
    println!("a ring of {}", nodes.len());
    println!("broadcast to {}", reach(&mut nodes, "hello").await?);
    let (gone, _) = nodes.remove(4);
    gone.stop();
    closed(&nodes).await?;
    println!(
        "{} has stopped; broadcast to {}",
        gone.name(),
        reach(&mut nodes, "again").await?
    );
    Ok(())
}

/// Waits until every node is connected with two others, and all know all.
async fn closed(nodes: &[(Node, Mailbox)]) -> Result<(), Box<dyn std::error::Error>> {
    let all = async {
        for (node, _) in nodes {
            while node.nodes().len() != 2 || node.members().await?.len() < nodes.len() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok::<(), partisan::ClusterError>(())
    };
    Ok(tokio::time::timeout(Duration::from_secs(20), all).await??)
}
