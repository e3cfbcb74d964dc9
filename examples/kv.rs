//! A key-value service that any BEAM node of the cluster calls as a `gen_server`.

use std::collections::BTreeMap;

use partisan::serde::from_value;
use partisan::{Answer, Caller, Distribution, Mailbox, Node, Server, Value, term};
use serde::Deserialize;

/// What callers ask: `{put, Key, Value}`, `{get, Key}`, `{delete, Key}`, `keys`.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    Put(String, Value),
    Get(String),
    Delete(String),
    Keys,
}

#[derive(Default)]
struct Store(BTreeMap<String, Value>);

impl Server for Store {
    async fn call(&mut self, request: Value, _from: Caller, _me: &mut Mailbox) -> Answer {
        let answer = match from_value(request) {
            Ok(Request::Put(key, value)) => {
                self.0.insert(key, value);
                term!(ok)
            }
            Ok(Request::Get(key)) => match self.0.get(&key) {
                Some(value) => term!({ok, (value)}),
                None => term!(error),
            },
            Ok(Request::Delete(key)) => self.0.remove(&key).map_or(term!(error), |_| term!(ok)),
            Ok(Request::Keys) => self.0.keys().map(|key| Value::from(&**key)).collect(),
            Err(error) => term!({error, (error.to_string())}),
        };
        answer.into()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::builder("kv@127.0.0.1")
        .cookie("secret")
        .distribution(Distribution::new())
        .start()?;
    let store = node.serve("kv", Store::default())?;
    println!("{} is ready", node.name());

    // Until somebody stops the server.
    let mut mailbox = node.mailbox()?;
    mailbox.monitor(&store).await;
    mailbox.recv().await;
    Ok(())
}
