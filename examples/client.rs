//! Asks the echo of another node, on the BEAM or in Rust, and prints the answer.
//!
//! ```text
//! client a@127.0.0.1 127.0.0.1:9000 [TEXT]        the cookie comes from PARTISAN_COOKIE
//! ```

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use partisan::{Node, SendOptions, Value};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let mut args = std::env::args().skip(1);
    let (Some(peer), Some(addr)) = (args.next(), args.next()) else {
        return Err("usage: client NAME ADDRESS [TEXT]".into());
    };
    let addr: SocketAddr = addr.parse()?;
    let text = args.next().unwrap_or_else(|| "hello".to_owned());

    let node = Node::builder(format!("client-{}@127.0.0.1", std::process::id()))
        .listen("127.0.0.1:0".parse()?)
        .start()?;
    node.join((peer.as_str(), addr)).await?;
    node.connected(&peer).await;

    let mut mailbox = node.mailbox()?;
    let tag = Value::from(1);
    let question = Value::tuple(vec![mailbox.pid().clone().into(), tag, Value::binary(text)]);
    let options = SendOptions::new().timeout(Duration::from_secs(5));
    mailbox
        .send_with((peer.as_str(), "echo"), &question.encode()?, &options)
        .await?;
    match mailbox.recv().await {
        Some(answer) => println!("{} says {:?}", answer.from, answer.term.decode()),
        None => println!("the node has stopped"),
    }
    node.leave().await?;
    node.stop();
    Ok(())
}
