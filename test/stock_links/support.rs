//! What the tests of links share: nodes, events, the log, and diallers that are no nodes.

#![allow(
    dead_code,
    unused_imports,
    reason = "each test that includes this uses a part of it"
)]

use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use partisan::wire::flags::Flags;
use partisan::wire::handshake::{Config, Effect, Established, Event, Handshake, Purpose, Role};
use partisan::wire::identity::Identity;
use partisan::{
    Builder, Distribution, Events, LinkError, Mailbox, Message, Node, NodeEvent, Value,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

pub(crate) use crate::nodes::{addr, log, quick};
use crate::stock::{Epmd, Options, Peer, Release, releases};

pub(crate) const COOKIE: &str = "stock_links";

/// Longest time that one step may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The release that these tests use: what they test is ours, and differs little between releases.
pub(crate) fn release() -> Option<&'static Release> {
    releases().first()
}

/// A name server and a runtime.
pub(crate) struct World {
    pub(crate) release: &'static Release,
    pub(crate) epmd: Epmd,
    pub(crate) rt: Runtime,
}

impl World {
    /// `None` if there is no Erlang here.
    pub(crate) fn new() -> Option<World> {
        log();
        let release = release()?;
        Some(World {
            release,
            epmd: Epmd::start(release),
            rt: Runtime::new().expect("a runtime"),
        })
    }

    pub(crate) fn erl(&self, name: &str, arguments: &str) -> Peer {
        let options = Options::new(name, COOKIE).with(arguments);
        Peer::start(self.release, &self.epmd, &options)
    }

    pub(crate) fn distribution(&self) -> Distribution {
        distribution(self.epmd.port)
    }

    pub(crate) fn node(&self, name: &str) -> Node {
        let builder = builder(name).distribution(self.distribution());
        builder.start().expect("a node")
    }

    /// Runs something asynchronous for at most [`PATIENCE`].
    #[track_caller]
    pub(crate) fn run<T>(&self, body: impl Future<Output = T>) -> T {
        match self.rt.block_on(async { timeout(PATIENCE, body).await }) {
            Ok(outcome) => outcome,
            Err(_) => panic!("it takes too long; the log:\n{}", log().text()),
        }
    }

    /// The next message within [`PATIENCE`].
    #[track_caller]
    pub(crate) fn recv(&self, mailbox: &mut Mailbox) -> Message {
        self.run(mailbox.recv()).expect("a message")
    }
}

pub(crate) fn distribution(epmd: u16) -> Distribution {
    let epmd = partisan::Epmd::on_port(epmd);
    Distribution::new().epmd(epmd).threads(2)
}

pub(crate) fn builder(name: &str) -> Builder {
    quick(name, COOKIE)
}

/// Waits for the link with a node.
pub(crate) async fn link_up(events: &mut Events, name: &str) -> u32 {
    loop {
        match events.recv().await.expect("the node lives") {
            NodeEvent::LinkUp { node, creation } if *node == *name => return creation,
            NodeEvent::Lagged(_) => panic!("events are lost"),
            _ => {}
        }
    }
}

/// Waits for the end of the link with a node.
pub(crate) async fn link_down(events: &mut Events, name: &str) -> LinkError {
    loop {
        match events.recv().await.expect("the node lives") {
            NodeEvent::LinkDown { node, reason } if *node == *name => return reason,
            NodeEvent::Lagged(_) => panic!("events are lost"),
            _ => {}
        }
    }
}

/// What links did since the last question: names, `true` for up.
pub(crate) fn changes(events: &mut Events) -> Vec<(String, bool)> {
    let mut all = Vec::new();
    while let Some(event) = events.try_recv() {
        match event {
            NodeEvent::LinkUp { node, .. } => all.push((node.to_string(), true)),
            NodeEvent::LinkDown { node, .. } => all.push((node.to_string(), false)),
            NodeEvent::Lagged(_) => panic!("events are lost"),
            _ => {}
        }
    }
    all
}

/// Stops a process, or has it go on.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid as i32).expect("a process");
    kill_process(pid, signal).expect("it is ours");
}

/// A process that is stopped until this is dropped.
pub(crate) struct Stopped(u32);

impl Stopped {
    pub(crate) fn stop(pid: u32) -> Stopped {
        signal(pid, Signal::STOP);
        Stopped(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal(self.0, Signal::CONT);
    }
}

/// Waits until something is true that nobody tells of.
#[track_caller]
pub(crate) fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_true() {
        assert!(
            began.elapsed() < PATIENCE,
            "never: {what}; the log:\n{}",
            log().text()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The numbers in `{Tag, …}`.
pub(crate) fn parts(message: &Message) -> (String, Vec<Value>) {
    let Value::Tuple(mut parts) = message.term.decode() else {
        panic!("no tuple: {:?}", message.term);
    };
    let tag = parts.remove(0);
    (tag.as_atom().expect("a tag").to_owned(), parts)
}

/// `{Tag, N, …}`
pub(crate) fn numbered(message: &Message) -> (String, i64) {
    let (tag, rest) = parts(message);
    (tag, rest[0].as_i64().expect("a number"))
}

/// A connection that has gone through the handshake as a node of this name would.
pub(crate) async fn shake(
    to: SocketAddr,
    peer: &str,
    name: &str,
    purpose: Purpose,
) -> std::io::Result<(TcpStream, Established)> {
    let broken = std::io::Error::other::<String>;
    let mut machine = Handshake::new(Config {
        local: Identity::new(name, rand::random_range(4..=u32::MAX)),
        flags: Flags::OURS,
        stock_flags: Flags::STOCK,
        instance: 7,
        capabilities: 0,
        nonce: rand::random(),
        challenge: rand::random(),
        role: Role::Dialer {
            peer: peer.into(),
            cookie: COOKIE.into(),
            purpose,
        },
    });
    let mut stream = TcpStream::connect(to).await?;
    let mut effects = Vec::new();
    let mut packet = Vec::new();
    let mut outcome = machine.handle(Event::Start, &mut effects);
    loop {
        for effect in effects.drain(..) {
            match effect {
                Effect::Send(bytes) => stream.write_all(&bytes).await?,
                Effect::Done(established) => return Ok((stream, established)),
                Effect::Judge(_) => unreachable!("we dial"),
            }
        }
        outcome.map_err(|e| broken(e.to_string()))?;
        let length = stream.read_u16().await?;
        packet.resize(length.into(), 0);
        stream.read_exact(&mut packet).await?;
        outcome = machine.handle(Event::Packet(&packet), &mut effects);
    }
}

/// True if the other end closes the connection and says nothing before, but for ticks.
pub(crate) async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut byte = [0; 64];
    loop {
        match stream.read(&mut byte).await {
            Ok(0) | Err(_) => return true,
            Ok(n) if byte[..n].iter().all(|b| *b == 0) => {}
            Ok(_) => return false,
        }
    }
}

/// Waits for a line with all of these texts in the log.
#[track_caller]
pub(crate) fn logged(texts: &[&str]) {
    eventually(&format!("a line with {texts:?}"), || log().has(texts));
}
