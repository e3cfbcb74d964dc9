//! The node of this crate as an end: mailboxes receive, and each sender is a task with a mailbox.

use std::sync::mpsc;

use anyhow::{Context, Result, bail};
use partisan::{Distribution, Mailbox, Message, Node, Pid, Resolver, Value};
use tokio::runtime::Runtime;

use super::end::{Burst, Count, End, FIRST, Place, Verdict};
use super::{COOKIE, PATIENCE};
use crate::process::clock_ns;

type Outcome = (Mailbox, Result<Verdict>);

/// A node, and the user's own runtime.
pub(super) struct Ours {
    node: Node,
    runtime: Runtime,
    mailboxes: Vec<Mailbox>,
    verdicts: (mpsc::Sender<Outcome>, mpsc::Receiver<Outcome>),
    awaited: usize,
}

impl Ours {
    pub(super) fn start(place: Place) -> Result<Self> {
        let peers = place.peers.into_iter().map(|(n, a)| (n.into(), a));
        let distribution = Distribution::new()
            .names(Resolver::Static(peers.collect()))
            .register(false);
        let node = Node::builder(place.name)
            .cookie(COOKIE)
            .listen(place.listen)
            .distribution(distribution);
        Ok(Self {
            node: node.start()?,
            runtime: Runtime::new()?,
            mailboxes: Vec::new(),
            verdicts: mpsc::channel(),
            awaited: 0,
        })
    }
}

/// Every message is decoded into a value of its own.
fn take(count: &mut Count, message: Message) -> Result<bool> {
    let value = message.term.decode();
    drop(message);
    match value.as_tuple() {
        Some([kind, Value::Integer(number), Value::Binary(payload)]) if kind.is_atom("data") => {
            count.take(*number, payload)
        }
        _ => bail!("not a message of the benchmark: {value:?}"),
    }
}

async fn sink(mailbox: &mut Mailbox, count: u32) -> Result<Verdict> {
    let mut count = Count::of(count);
    loop {
        let message = mailbox.recv().await.context("the node has stopped")?;
        if take(&mut count, message)? {
            return Ok((clock_ns(), count.crc()));
        }
    }
}

impl End for Ours {
    fn open(&mut self, n: usize) -> Result<(Vec<(u32, u32)>, u32)> {
        for _ in 0..n {
            self.mailboxes.push(self.node.mailbox()?);
        }
        // Sinks are taken from the end.
        let pids = self.mailboxes.iter().rev().map(Mailbox::pid);
        let creation = self.mailboxes.first().map_or(0, |m| m.pid().creation);
        Ok((pids.map(|p| (p.id, p.serial)).collect(), creation))
    }

    fn expect(&mut self, n: usize, count: u32) -> Result<()> {
        for _ in 0..n {
            let mut mailbox = self.mailboxes.pop().context("too few sinks")?;
            let verdicts = self.verdicts.0.clone();
            self.runtime.spawn(async move {
                let verdict = sink(&mut mailbox, count).await;
                let _ = verdicts.send((mailbox, verdict));
            });
        }
        self.awaited = n;
        Ok(())
    }

    fn wait(&mut self) -> Result<Verdict> {
        let (mut end, mut sum) = (0, 0);
        for _ in 0..std::mem::take(&mut self.awaited) {
            let (mailbox, verdict) = self.verdicts.1.recv_timeout(PATIENCE)?;
            let (at, crc) = verdict?;
            (end, sum) = (end.max(at), sum + crc);
            self.mailboxes.push(mailbox);
        }
        // In the order of the pids, which was told.
        self.mailboxes
            .sort_by_key(|m| std::cmp::Reverse((m.pid().serial, m.pid().id)));
        Ok((end, sum))
    }

    fn send(&mut self, burst: Burst) -> Result<u64> {
        self.runtime
            .block_on(self.node.connect(burst.peer.as_str()))?;
        let mut senders = Vec::new();
        for _ in &burst.pids {
            senders.push(self.node.mailbox()?);
        }
        let start = clock_ns();
        let tasks: Vec<_> = senders
            .into_iter()
            .zip(&burst.pids)
            .map(|(mailbox, (id, serial))| {
                let to = Pid {
                    node: burst.peer.as_str().into(),
                    id: *id,
                    serial: *serial,
                    creation: burst.creation,
                };
                let (payload, count) = (burst.payload.clone(), burst.count);
                self.runtime.spawn(async move {
                    for number in FIRST..FIRST + count {
                        let message = Value::tuple([
                            Value::atom("data"),
                            i64::from(number).into(),
                            Value::binary(payload.clone()),
                        ]);
                        mailbox.send(&to, &message.encode()?).await?;
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        for task in tasks {
            self.runtime.block_on(task)??;
        }
        Ok(start)
    }
}
