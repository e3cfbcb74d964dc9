//! Calls the key-value service, as it would call a `gen_server` of a BEAM node.

use partisan::{Distribution, Node, term};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::builder("client@127.0.0.1")
        .cookie("secret")
        .distribution(Distribution::new().dial_only())
        .start()?;
    let kv = ("kv@127.0.0.1", "kv");
    let put = term!({put, "pair", {1, [2.5]}}).encode()?;
    println!("{}", node.call(kv, &put).await?.decode());
    println!(
        "{}",
        node.call(kv, &term!({get, "pair"}).encode()?)
            .await?
            .decode()
    );
    println!("{}", node.call(kv, &term!(keys).encode()?).await?.decode());
    Ok(())
}
