//! Messages by a Partisan node in Rust, through the crate's public API.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use partisan::{Mailbox, Node, Pid, SendOptions, Term, Value, View};

use super::Lane;
use super::work::{Incoming, Port, Transport};

/// The mailbox that tells the sinks' pids.
const DIRECTORY: &str = "bench_sinks";
const PATIENCE: Duration = Duration::from_secs(20);

/// A node.
pub(crate) struct Partisan {
    node: Node,
    runtime: tokio::runtime::Runtime,
    sinks: Vec<Pid>,
    directory: Option<JoinHandle<()>>,
    /// The peer's sinks.
    targets: Vec<Pid>,
}

impl Partisan {
    pub(crate) fn start(
        name: &str,
        listen: SocketAddr,
        channels: &[(String, u16)],
        config: &str,
    ) -> Result<Self> {
        let mut builder = Node::builder(name).listen(listen);
        for (name, connections) in channels {
            builder = builder.channel(name.as_str(), *connections);
        }
        for setting in config.split(';').filter(|s| !s.is_empty()) {
            let (key, value) = setting.split_once('=').context("a setting is key=value")?;
            let number = value.parse::<u64>().context("settings are numbers")?;
            builder = match key {
                "io_threads" => builder.io_threads(number as usize),
                "bulk_threads" => builder.bulk_threads(number as usize),
                "queue_bytes" => builder.queue_bytes(number),
                "node_queue_bytes" => builder.node_queue_bytes(number),
                "mailbox_bytes" => builder.mailbox_bytes(number),
                _ => bail!("the benchmark cannot set {key} of a Rust node"),
            };
        }
        Ok(Self {
            node: builder.start()?,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()?,
            sinks: Vec::new(),
            directory: None,
            targets: Vec::new(),
        })
    }

    fn stop_mailbox(&self, pid: &Pid) {
        let stop = Value::atom("stop").encode();
        if let Ok(stop) = stop {
            let _ = self.node.send_blocking(pid, &stop, &SendOptions::new());
        }
    }
}

fn options(lane: &Lane) -> SendOptions {
    let mut options = SendOptions::new();
    if let Some(channel) = &lane.channel {
        options = options.channel(channel.as_str());
    }
    if let Some(key) = lane.key {
        options = options.partition_key(key);
    }
    options
}

impl Transport for Partisan {
    fn join(&mut self, name: &str, peer: SocketAddr) -> Result<()> {
        self.runtime.block_on(async {
            self.node.join((name, peer)).await?;
            let connected = self.node.connected(name);
            match tokio::time::timeout(PATIENCE, connected).await {
                Ok(true) => Ok(()),
                _ => bail!("{name} could not be reached"),
            }
        })
    }

    fn open_sinks(&mut self, lanes: Vec<(Lane, Bytes)>) -> Result<Vec<Box<dyn Port>>> {
        let mut ports: Vec<Box<dyn Port>> = Vec::new();
        for (lane, payload) in lanes {
            let mailbox = self.node.mailbox()?;
            self.sinks.push(mailbox.pid().clone());
            ports.push(Box::new(Mail::new(mailbox, &lane, payload, None)));
        }
        let directory = self.node.register(DIRECTORY)?;
        let pids = self.sinks.iter().cloned().map(Value::Pid);
        let answer = Value::tuple([Value::atom("sinks"), Value::list(pids.collect::<Vec<_>>())]);
        self.sinks.push(directory.pid().clone());
        let answer = answer.encode()?;
        self.directory = Some(std::thread::spawn(move || tell(directory, &answer)));
        Ok(ports)
    }

    fn close_sinks(&mut self) {
        for pid in std::mem::take(&mut self.sinks) {
            self.stop_mailbox(&pid);
        }
        if let Some(thread) = self.directory.take() {
            let _ = thread.join();
        }
    }

    fn count_sinks(&mut self, peer: &str) -> Result<usize> {
        let mut mailbox = self.node.mailbox()?;
        let who = Value::tuple([
            Value::atom("who"),
            Value::atom("rust"),
            mailbox.pid().clone().into(),
        ]);
        let who = who.encode()?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            // The session may still be on its way up.
            let _ = mailbox.send_blocking((peer, DIRECTORY), &who, &SendOptions::new());
            if let Some(message) = mailbox.recv_timeout(Duration::from_millis(300)) {
                let answer = message.term.decode();
                let parts = answer.as_tuple().unwrap_or_default();
                let pids = parts.get(1).and_then(Value::as_list).unwrap_or_default();
                self.targets = pids.iter().filter_map(Value::as_pid).cloned().collect();
                return Ok(self.targets.len());
            }
            if Instant::now() > deadline {
                bail!("no answer from {peer}");
            }
        }
    }

    fn open_actors(&mut self, lanes: Vec<(Lane, Bytes)>) -> Result<Vec<Box<dyn Port>>> {
        let mut ports: Vec<Box<dyn Port>> = Vec::new();
        for ((lane, payload), target) in lanes.into_iter().zip(&self.targets) {
            let mailbox = self.node.mailbox()?;
            let mail = Mail::new(mailbox, &lane, payload, Some(target.clone()));
            ports.push(Box::new(mail));
        }
        Ok(ports)
    }
}

fn tell(mut directory: Mailbox, answer: &Term) {
    while let Some(message) = directory.recv_blocking() {
        let question = message.term.decode();
        let Some([_, _, Value::Pid(asker)]) = question.as_tuple() else {
            return;
        };
        let _ = directory.send_blocking(asker, answer, &SendOptions::new());
    }
}

/// A mailbox as a port.
struct Mail {
    mailbox: Mailbox,
    options: SendOptions,
    payload: Bytes,
    /// A message of a stream.
    data: Value,
    /// An actor's sink, or who wrote to a sink last.
    partner: Option<Pid>,
    /// What was received last.
    last: Option<Term>,
}

impl Mail {
    fn new(mailbox: Mailbox, lane: &Lane, payload: Bytes, partner: Option<Pid>) -> Self {
        Self {
            mailbox,
            options: options(lane),
            data: Value::tuple([integer(0), Value::binary(payload.clone())]),
            payload,
            partner,
            last: None,
        }
    }

    fn send(&self, value: &Value) -> Result<()> {
        let partner = self.partner.as_ref().context("nobody to send to")?;
        let sent = self
            .mailbox
            .send_blocking(partner, &value.encode()?, &self.options);
        Ok(sent?)
    }

    fn own(&self) -> Value {
        self.mailbox.pid().clone().into()
    }
}

fn integer(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

impl Port for Mail {
    fn start(&mut self, count: u64) -> Result<()> {
        self.send(&Value::tuple([
            Value::atom("start"),
            self.own(),
            integer(count),
        ]))
    }

    fn data(&mut self, number: u64) -> Result<()> {
        if let Value::Tuple(parts) = &mut self.data {
            parts[0] = integer(number);
        }
        self.send(&self.data)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn message(&mut self, stamp: u64) -> Result<()> {
        self.send(&Value::tuple([
            Value::atom("message"),
            Value::binary(self.payload.clone()),
            self.own(),
            integer(stamp),
        ]))
    }

    fn acknowledge(&mut self) -> Result<()> {
        self.send(&Value::atom("ok"))
    }

    fn done(&mut self, count: u64) -> Result<()> {
        self.send(&Value::tuple([Value::atom("done"), integer(count)]))
    }

    fn receive(&mut self) -> Result<Incoming<'_>> {
        let message = self.mailbox.recv_blocking().context("the node stopped")?;
        let view = self.last.insert(message.term).view();
        let number = |n: i64| u64::try_from(n).context("a negative number");
        match view.as_tuple() {
            Some([View::Integer(n), View::Binary(bytes)]) => {
                return Ok(Incoming::Data(number(n)?, bytes.bytes()));
            }
            Some([done, View::Integer(_)]) if done.is_atom("done") => return Ok(Incoming::Ok),
            _ => {}
        }
        if let Some(
            [
                _,
                View::Binary(bytes),
                View::Pid(from),
                View::Integer(stamp),
            ],
        ) = view.as_tuple()
        {
            self.partner = Some(from.into());
            return Ok(Incoming::Message(number(stamp)?, bytes.bytes()));
        }
        if let Some([start, View::Pid(from), View::Integer(count)]) = view.as_tuple()
            && start.is_atom("start")
        {
            self.partner = Some(from.into());
            return Ok(Incoming::Start(number(count)?));
        }
        match view.as_atom().as_deref() {
            Some("ok") => Ok(Incoming::Ok),
            Some("stop") => Ok(Incoming::Stop),
            _ => bail!("unexpected {:?}", view.to_value()),
        }
    }

    fn recycle(&mut self) {
        self.last = None;
    }

    fn payload(&self) -> &Bytes {
        &self.payload
    }
}
