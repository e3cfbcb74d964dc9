//! A Rust node under load, for `switch_SUITE`: it does what the BEAM nodes of that suite do.
//!
//! ```text
//! switch_load NAME COOKIE FIRST_NAME FIRST_PORT
//! ```
//!
//! The mailbox `switch_load` takes `{Pid, Ref, Question}` and sends `{Ref, Answer}`:
//!
//! | question | answer |
//! |---|---|
//! | `{'begin', Nodes}` | `ok`; from now on 100 messages a second go to these nodes in turn, on both channels |
//! | `stop` | `[{{Node, Channel}, Count}]`: what was sent |
//! | `report` | `{[{{Node, Channel}, Count}], [Fault]}`: what has come to `switch_sink`, and what was wrong with it |
//!
//! A message is `{load, Sender, Channel, Number, Crc, Data}`.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use partisan::{
    ClientServerConfig, Mailbox, Node, NodeEvent, OverlayConfig, SendOptions, Tag, Value,
};
use tokio::task::JoinHandle;

const CHANNELS: [&str; 2] = ["undefined", "bulk"];

/// Messages by node and channel.
type Counts = BTreeMap<(String, String), i64>;

/// What has come.
#[derive(Default)]
struct Taken {
    counts: Counts,
    faults: Vec<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_ansi(false).init();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [name, cookie, first, port] = &args[..] else {
        return Err("switch_load NAME COOKIE FIRST_NAME FIRST_PORT".into());
    };
    let client = OverlayConfig::ClientServer(ClientServerConfig {
        tag: Tag::Client,
        ..ClientServerConfig::default()
    });
    let node = Node::builder(name.as_str())
        .cookie(cookie.as_str())
        .listen("127.0.0.1:0".parse()?)
        .other_overlay(client)
        .switch_overlap(Duration::from_secs(4))
        .channel("bulk", 1)
        .start()?;
    let taken = Arc::new(Mutex::new(Taken::default()));
    tokio::spawn(watch(node.clone(), taken.clone()));
    tokio::spawn(take(node.register("switch_sink")?, taken.clone()));
    let questions = node.register("switch_load")?;
    let first_at = SocketAddr::from(([127, 0, 0, 1], port.parse()?));
    node.join((first.as_str(), vec![first_at])).await?;
    answer(questions, &taken).await;
    Ok(())
}

/// No node may be down.
async fn watch(node: Node, taken: Arc<Mutex<Taken>>) {
    let mut events = node.events();
    while let Some(event) = events.recv().await {
        if matches!(event, NodeEvent::Down { .. } | NodeEvent::Left) {
            taken.lock().faults.push(format!("{event:?}"));
        }
    }
}

async fn answer(mut questions: Mailbox, taken: &Mutex<Taken>) {
    let stop = Arc::new(AtomicBool::new(false));
    let mut load: Option<JoinHandle<Counts>> = None;
    while let Some(message) = questions.recv().await {
        let question = message.term.decode();
        let Some([Value::Pid(asker), tag, question]) = question.as_tuple() else {
            tracing::warn!("that was no {{Pid, Ref, Question}}");
            continue;
        };
        let answer = match question.as_tuple() {
            Some([begin, nodes]) if begin.is_atom("begin") => {
                let nodes = nodes.as_list().unwrap_or_default().iter();
                let nodes = nodes.filter_map(|n| Some(n.as_atom()?.to_owned()));
                let node = questions.node().clone();
                load = Some(tokio::spawn(send(node, nodes.collect(), stop.clone())));
                Value::atom("ok")
            }
            _ if question.is_atom("stop") => {
                stop.store(true, Ordering::Relaxed);
                match load.take() {
                    Some(load) => shown(&load.await.expect("the load does not panic")),
                    None => Value::list([]),
                }
            }
            _ => {
                let taken = taken.lock();
                let faults: Vec<Value> = taken.faults.iter().map(|f| f.as_str().into()).collect();
                Value::tuple([shown(&taken.counts), Value::list(faults)])
            }
        };
        let answer = Value::tuple([tag.clone(), answer]).encode();
        let answer = answer.expect("an answer is a term");
        if let Err(error) = questions.send(asker, &answer).await {
            tracing::warn!("no answer: {error}");
        }
    }
}

fn shown(counts: &Counts) -> Value {
    let entry = |((node, channel), count): (&(String, String), &i64)| {
        let key = Value::tuple([Value::atom(node), Value::atom(channel)]);
        Value::tuple([key, (*count).into()])
    };
    Value::list(counts.iter().map(entry).collect::<Vec<_>>())
}

/// Sends to all in turn, on one channel and then on the other, until told to stop.
async fn send(node: Node, to: Vec<String>, stop: Arc<AtomicBool>) -> Counts {
    let mut sent = Counts::new();
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    for turn in 0.. {
        tick.tick().await;
        if to.is_empty() || stop.load(Ordering::Relaxed) {
            break;
        }
        let channel = CHANNELS[turn / to.len() % CHANNELS.len()];
        let to = &to[turn % to.len()];
        let count = sent.entry((to.clone(), channel.to_owned())).or_default();
        let bytes = match (channel, *count % 10) {
            ("bulk", 9) => 1 << 20,
            _ => 64,
        };
        let data: Vec<u8> = (0..bytes)
            .map(|at| (at as i64 * 31 + *count) as u8)
            .collect();
        let message = Value::tuple([
            Value::atom("load"),
            Value::atom(node.name()),
            Value::atom(channel),
            (*count).into(),
            crc32fast::hash(&data).into(),
            Value::binary(data),
        ]);
        let message = message.encode().expect("the load is a term");
        let options = SendOptions::new().channel(channel);
        node.send_with((to.as_str(), "switch_sink"), &message, &options)
            .await
            .unwrap_or_else(|error| panic!("to {to}: {error}"));
        *count += 1;
    }
    sent
}

/// Counts what comes, which must be in order and whole.
async fn take(mut sink: Mailbox, taken: Arc<Mutex<Taken>>) {
    while let Some(message) = sink.recv().await {
        let value = message.term.decode();
        let fault = match taken.lock().add(&value) {
            Some(None) => continue,
            Some(Some(fault)) => fault,
            None => format!("no load: {value}"),
        };
        taken.lock().faults.push(fault);
    }
}

impl Taken {
    /// What is wrong with a message, if it is one.
    fn add(&mut self, message: &Value) -> Option<Option<String>> {
        let [_, from, channel, number, crc, data] = message.as_tuple()? else {
            return None;
        };
        let (from, channel) = (from.as_atom()?, channel.as_atom()?);
        let (number, crc) = (number.as_i64()?, crc.as_i64()?);
        let next = self.counts.entry((from.to_owned(), channel.to_owned()));
        let next = next.or_default();
        let expected = std::mem::replace(next, number + 1);
        let whole = i64::from(crc32fast::hash(&data.as_binary()?.to_bytes())) == crc;
        Some(match (number == expected, whole) {
            (true, true) => None,
            (true, false) => Some(format!("{from} {channel} {number}: damaged")),
            _ => Some(format!("{from} {channel}: {number} instead of {expected}")),
        })
    }
}
