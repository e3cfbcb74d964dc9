//! A running emulator, and how to start one.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tun_rs::{DeviceBuilder, SyncDevice};

use crate::forward::{Forwarder, Node, Outgoing, Stop};
use crate::link::Link;
use crate::packet::MAX_NODES;
use crate::settings::{LinkChange, LinkSettings};
use crate::setup::{self, DEVICE, Namespace, Watcher};
use crate::stats::{Counters, LinkStats, Stats};
use crate::{Error, control};

/// One node or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nodes {
    /// This one.
    One(usize),
    /// Every one.
    All,
}

impl From<usize> for Nodes {
    fn from(node: usize) -> Self {
        Self::One(node)
    }
}

impl FromStr for Nodes {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "all" => Ok(Self::All),
            _ => text.parse().map(Self::One).map_err(|_| {
                Error::Refused(format!("`{text}` is no node: expected its number or `all`"))
            }),
        }
    }
}

/// What a lab is to be.
#[derive(Clone, Debug)]
pub struct LabBuilder {
    prefix: String,
    nodes: usize,
    links: LinkSettings,
    sysctls: Vec<(String, String)>,
    realtime: bool,
    super_packets: bool,
    cubic_loopback: bool,
    seed: u64,
}

impl LabBuilder {
    /// What every link does at first.
    pub fn all(mut self, links: LinkSettings) -> Self {
        self.links = links;
        self
    }

    /// Sets a kernel parameter in every namespace, such as `net.ipv4.tcp_wmem`.
    pub fn sysctl(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.sysctls.push((key.into(), value.into()));
        self
    }

    /// Runs the emulator's threads before all others (`SCHED_RR`).
    pub fn realtime(mut self, on: bool) -> Self {
        self.realtime = on;
        self
    }

    /// Whether packets of up to 64 KB pass whole, as they do unless a node's links lose packets.
    pub fn super_packets(mut self, on: bool) -> Self {
        self.super_packets = on;
        self
    }

    /// Fixes cubic for the host's loopback addresses, too, while the lab runs.
    pub fn cubic_loopback(mut self, on: bool) -> Self {
        self.cubic_loopback = on;
        self
    }

    /// Decides which packets are lost.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Makes the namespaces and starts the emulator.
    pub fn start(self) -> Result<Lab, Error> {
        setup::check_prefix(&self.prefix)?;
        if !(1..=MAX_NODES).contains(&self.nodes) {
            return Err(Error::NodeCount(self.nodes));
        }
        let names: Vec<_> = (0..self.nodes)
            .map(|node| Namespace::of(&self.prefix, node))
            .collect();
        if let Some(old) = names.iter().find(|name| name.exists()) {
            return Err(Error::Exists(old.name().into()));
        }
        let mut watcher = Watcher::start()?;
        let super_packets = self.super_packets && self.links.loss == 0.0;
        let mut nodes = Vec::with_capacity(self.nodes);
        for (index, name) in names.iter().enumerate() {
            name.create(&mut watcher)?;
            let device = in_namespace(name, || {
                for (key, value) in &self.sysctls {
                    setup::sysctl(key, value)?;
                }
                open_device()
            })??;
            name.configure(index, super_packets)?;
            nodes.push(Node {
                device,
                outgoing: Mutex::new(self.outgoing(index)),
            });
        }
        if self.cubic_loopback {
            setup::cubic_loopback(&mut watcher)?;
        }
        let stop = Stop::new().map_err(|error| Error::Io("eventfd".into(), error))?;
        let mut lab = Lab {
            shared: Arc::new(Shared {
                names,
                nodes: nodes.into(),
                stop: Arc::new(stop),
                allow_super_packets: self.super_packets,
                super_packets: Mutex::new(vec![super_packets; self.nodes]),
                threads: Mutex::new(Vec::new()),
            }),
            running: Vec::new(),
            watcher,
        };
        lab.start_threads(self.realtime)?;
        Ok(lab)
    }

    fn outgoing(&self, from: usize) -> Outgoing {
        let seed = |to: usize| self.seed ^ ((from as u64) << 40 | (to as u64) << 8);
        Outgoing {
            links: (0..self.nodes)
                .map(|to| Link::new(self.links, seed(to)))
                .collect(),
            counters: vec![Counters::default(); self.nodes],
            unroutable: 0,
        }
    }
}

fn open_device() -> Result<SyncDevice, Error> {
    let open = || {
        let device = DeviceBuilder::new()
            .name(DEVICE)
            .offload(true)
            .inherit_enable_state()
            .build_sync()?;
        device.set_nonblocking(true)?;
        Ok(device)
    };
    open().map_err(|error| Error::Io(format!("cannot make the TUN device {DEVICE}"), error))
}

/// Runs a closure in a thread of its own that has entered the namespace.
fn in_namespace<T: Send>(name: &Namespace, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    let entered = || {
        name.enter()
            .map_err(|error| Error::Io(format!("namespace {}", name.name()), error))?;
        Ok(work())
    };
    let result = thread::scope(|scope| scope.spawn(entered).join());
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Namespaces joined by links, until it is dropped.
pub struct Lab {
    shared: Arc<Shared>,
    running: Vec<JoinHandle<()>>,
    watcher: Watcher,
}

impl Lab {
    /// A lab of so many nodes in the namespaces `PREFIX0`, `PREFIX1` and so on, with links that
    /// neither delay nor lose anything. Let the prefix end with another character than a digit.
    pub fn builder(prefix: impl Into<String>, nodes: usize) -> LabBuilder {
        LabBuilder {
            prefix: prefix.into(),
            nodes,
            links: LinkSettings::default(),
            sysctls: Vec::new(),
            realtime: false,
            super_packets: true,
            cubic_loopback: false,
            seed: 1,
        }
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        self.shared.nodes.len()
    }

    /// The namespace of a node.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn namespace(&self, node: usize) -> &Namespace {
        &self.shared.names[node]
    }

    /// Runs a closure in the namespace of a node, in a thread of its own, and waits for it.
    pub fn run_in<T: Send>(
        &self,
        node: usize,
        work: impl FnOnce() -> T + Send,
    ) -> Result<T, Error> {
        in_namespace(self.shared.name(node)?, work)
    }

    /// Changes the links from some nodes to some others, in this direction. It has taken effect
    /// when this returns.
    pub fn set(
        &self,
        from: impl Into<Nodes>,
        to: impl Into<Nodes>,
        change: impl Into<LinkChange>,
    ) -> Result<(), Error> {
        self.shared.set(from.into(), to.into(), &change.into())
    }

    /// What the links have done so far.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Answers requests on a Unix socket: see [`request`](crate::request). The socket is removed
    /// with the lab; a stale one in its place is replaced.
    pub fn serve(&mut self, socket: &Path) -> Result<(), Error> {
        let listener = control::listen(socket)?;
        self.watcher
            .undo_file(&std::path::absolute(socket).unwrap_or_else(|_| socket.into()))?;
        let shared = Arc::clone(&self.shared);
        self.running.push(spawn("control", move || {
            control::serve(&listener, &shared)
        })?);
        Ok(())
    }

    fn start_threads(&mut self, realtime: bool) -> Result<(), Error> {
        let clock = Instant::now();
        for index in 0..self.nodes() {
            let forwarder = Forwarder {
                index,
                nodes: Arc::clone(&self.shared.nodes),
                stop: Arc::clone(&self.shared.stop),
                clock,
            };
            let (tell, told) = mpsc::channel();
            self.running
                .push(spawn(&format!("netlab {index}"), move || {
                    let _ = tell.send(rustix::thread::gettid().as_raw_nonzero().get());
                    forwarder.run();
                })?);
            let thread = told.recv().expect("the thread tells its number first");
            if realtime {
                setup::run(Command::new("chrt").args(["-r", "-p", "1", &thread.to_string()]))?;
            }
            self.shared.threads.lock().push(thread);
        }
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.shared.stop.stop();
        for thread in self.running.drain(..) {
            let _ = thread.join();
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    let thread = thread::Builder::new().name(name.into()).spawn(work);
    thread.map_err(|error| Error::Io("cannot start a thread".into(), error))
}

/// What the control socket shares with the lab's owner.
pub(crate) struct Shared {
    names: Vec<Namespace>,
    nodes: Arc<[Node]>,
    pub(crate) stop: Arc<Stop>,
    allow_super_packets: bool,
    /// By sending node; locked by whoever changes links.
    super_packets: Mutex<Vec<bool>>,
    threads: Mutex<Vec<i32>>,
}

impl Shared {
    fn name(&self, node: usize) -> Result<&Namespace, Error> {
        self.names
            .get(node)
            .ok_or(Error::NoNode(node, self.names.len() - 1))
    }

    fn range(&self, nodes: Nodes) -> Result<std::ops::Range<usize>, Error> {
        match nodes {
            Nodes::All => Ok(0..self.names.len()),
            Nodes::One(node) => self.name(node).map(|_| node..node + 1),
        }
    }

    pub(crate) fn set(&self, from: Nodes, to: Nodes, change: &LinkChange) -> Result<(), Error> {
        let (from, to) = (self.range(from)?, self.range(to)?);
        let mut super_packets = self.super_packets.lock();
        for from in from {
            let node = &self.nodes[from];
            let settings: Vec<_> = node
                .outgoing
                .lock()
                .links
                .iter()
                .map(Link::settings)
                .collect();
            let changed: Vec<_> = settings
                .iter()
                .enumerate()
                .map(|(n, old)| {
                    if to.contains(&n) {
                        change.applied_to(*old)
                    } else {
                        *old
                    }
                })
                .collect();
            // Loss is drawn per packet, so one must not stand for many.
            let whole = self.allow_super_packets && changed.iter().all(|link| link.loss == 0.0);
            if super_packets[from] != whole {
                self.names[from].set_super_packets(whole)?;
                super_packets[from] = whole;
            }
            let mut outgoing = node.outgoing.lock();
            for to in to.clone() {
                let lost = outgoing.links[to].set(changed[to]);
                outgoing.counters[to].cut += lost as u64;
            }
        }
        Ok(())
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut stats = Stats {
            links: Vec::new(),
            unroutable: 0,
            cpu: self.cpu(),
        };
        for (from, node) in self.nodes.iter().enumerate() {
            let outgoing = node.outgoing.lock();
            stats.unroutable += outgoing.unroutable;
            let links = outgoing.links.iter().zip(&outgoing.counters).enumerate();
            stats.links.extend(links.filter(|(to, _)| *to != from).map(
                |(to, (link, counters))| LinkStats {
                    from,
                    to,
                    settings: link.settings(),
                    counters: counters.clone(),
                    queued: link.held(),
                    queued_bytes: link.memory(),
                },
            ));
        }
        stats
    }

    /// Time on a processor of the forwarding threads, from the scheduler's own count.
    fn cpu(&self) -> Duration {
        let nanos = |thread: &i32| -> Option<u64> {
            let text = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?;
            text.split_whitespace().next()?.parse().ok()
        };
        Duration::from_nanos(self.threads.lock().iter().filter_map(nanos).sum())
    }
}
