//! Links with stock nodes: their configuration, and what a node needs for them.

use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{mpsc, oneshot};

use crate::connection::door::Door;
use crate::connection::establish::Local;
use crate::connection::listen;
use crate::connection::stock::{StockArrival, StockDesk, StockJudgement};
use crate::distribution::dial;
use crate::distribution::epmd::{Epmd, Registration};
use crate::distribution::link::{self, Link, LinkError};
use crate::distribution::manager::{self, Command, ConnectError, Manager};
use crate::distribution::names::{NodeName, Resolver};
use crate::distribution::tls::TlsConfig;
use crate::limits;
use crate::node::allow::Allow;
use crate::node::api::{Inner, Node};
use crate::node::block::block_on;
use crate::node::events::NodeEvent;
use crate::node::inbound::Receiver;
use crate::node::runtime::StartError;
use crate::wire::dist::DistLimits;

/// Name of the threads that serve links with stock nodes.
const THREAD_NAME: &str = "partisan-dist";

/// Time for links to end when the node stops.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// How a node takes part in Distributed Erlang: [`Builder::distribution`](crate::Builder::distribution).
///
/// The default: the node registers with the EPMD of its host and finds others through theirs, as `erl -name` does,
/// but EPMD must be running: it is never started unasked. The node is hidden: it is not in `nodes()` of others,
/// and `global` and `pg` don't see it unless it makes itself known.
#[derive(Clone, Debug)]
#[must_use = "a part of the configuration of a node"]
pub struct Distribution {
    names: Resolver,
    register: bool,
    tls: Option<TlsConfig>,
    listen_tls: Vec<SocketAddr>,
    tick_time: Duration,
    threads: usize,
    visible: bool,
    pub(crate) allow: Allow,
    pub(crate) max_peer_relations: usize,
}

impl Default for Distribution {
    fn default() -> Self {
        Self {
            names: Resolver::from_env(),
            register: true,
            tls: None,
            listen_tls: Vec::new(),
            tick_time: limits::TICK_TIME,
            threads: 0,
            visible: false,
            allow: Allow::default(),
            max_peer_relations: limits::MAX_PEER_RELATIONS,
        }
    }
}

impl Distribution {
    /// The default; EPMD's address is taken from the environment as Erlang does
    /// (`ERL_EPMD_PORT`, `ERL_EPMD_ADDRESS`; `ERL_DIST_PORT` for one port on all hosts and no EPMD).
    pub fn new() -> Self {
        Self::default()
    }

    /// Finds nodes through EPMD, and registers with it.
    pub fn epmd(mut self, epmd: Epmd) -> Self {
        self.names = Resolver::Epmd(epmd);
        self
    }

    /// Finds nodes in this way. Only [`Resolver::Epmd`] registers this node.
    pub fn names(mut self, names: Resolver) -> Self {
        self.names = names;
        self
    }

    /// Whether the node registers with EPMD. Default: true. Without, only those can dial it who know its port.
    pub fn register(mut self, register: bool) -> Self {
        self.register = register;
        self
    }

    /// Speaks TLS with stock nodes (`-proto_dist inet_tls`): all that are dialled, and those that dial
    /// the [TLS addresses](Distribution::listen_tls), whose first port is registered with EPMD.
    pub fn tls(mut self, tls: TlsConfig) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Listens on this address for stock nodes over TLS. Default with
    /// [`tls`](Distribution::tls): a free port at all IPv4 addresses.
    pub fn listen_tls(mut self, addr: SocketAddr) -> Self {
        self.listen_tls.push(addr);
        self
    }

    /// Silence after which a node is taken to be dead, within a quarter (`net_ticktime`). All nodes of a cluster should have
    /// about the same. Default: 60 s.
    pub fn tick_time(mut self, time: Duration) -> Self {
        self.tick_time = time.max(Duration::from_millis(40));
        self
    }

    /// Threads that serve links with stock nodes. Default, and 0: one per core, at most 4.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// What peers may reach. Default: see [`Allow`].
    pub fn allow(mut self, allow: Allow) -> Self {
        self.allow = allow;
        self
    }

    /// Links and monitors that one peer may have at the processes of this node; the link with one that makes
    /// more is cut. Default: 1,048,576.
    pub fn max_peer_relations(mut self, relations: usize) -> Self {
        self.max_peer_relations = relations;
        self
    }

    /// Asks for a visible node. That is refused when the node starts: a visible node has to take part in
    /// `global`'s protocol of locks and names.
    pub fn visible(mut self, visible: bool) -> Self {
        self.visible = visible;
        self
    }
}

/// Where the listener of the control plane hands stock peers over.
pub(crate) struct Gate {
    judgements: mpsc::Receiver<StockJudgement>,
    arrivals: mpsc::Receiver<StockArrival>,
    desk: StockDesk,
}

/// The two ends of that way.
pub(crate) fn gate() -> Gate {
    let (judge, judgements) = mpsc::channel(limits::MAX_UNAUTHENTICATED);
    let (arrived, arrivals) = mpsc::channel(limits::MAX_UNAUTHENTICATED);
    Gate {
        judgements,
        arrivals,
        desk: StockDesk { judge, arrived },
    }
}

impl Gate {
    pub(crate) fn desk(&self) -> StockDesk {
        self.desk.clone()
    }
}

/// What serves the links of a node.
pub(crate) struct Stock {
    commands: mpsc::UnboundedSender<Command>,
    handle: Handle,
    runtime: Mutex<Option<Runtime>>,
    registration: Mutex<Option<Registration>>,
}

struct Face(Weak<Inner>);

impl manager::Host for Face {
    type Inbound = Receiver;

    fn up(&self, link: &Arc<Link>) -> Receiver {
        if let Some(inner) = self.0.upgrade() {
            inner.processes.up(link);
            inner.view.tell(NodeEvent::LinkUp {
                node: link.name.clone(),
                creation: link.creation,
            });
        }
        Receiver::new(self.0.clone(), link.clone())
    }

    fn down(&self, link: &Arc<Link>, why: &LinkError) {
        if let Some(inner) = self.0.upgrade() {
            inner.view.tell(NodeEvent::LinkDown {
                node: link.name.clone(),
                reason: why.clone(),
            });
        }
    }
}

/// Starts to serve links. Blocks until EPMD has answered.
pub(crate) fn start(
    inner: &Arc<Inner>,
    config: Distribution,
    gate: Gate,
    local: Arc<Local>,
    queue_bytes: u64,
) -> Result<Stock, StartError> {
    if config.visible {
        return Err(StartError::Visible);
    }
    let name = local.identity.node.clone();
    let parts = NodeName::parse(&name)?;
    let form = parts.form();
    let (connector, acceptor) = match &config.tls {
        Some(tls) => (Some(tls.connector()?), Some(tls.acceptor()?)),
        None => (None, None),
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if config.threads == 0 {
        cores.min(4)
    } else {
        config.threads
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(THREAD_NAME)
        .enable_all()
        .build()?;
    let limits = DistLimits {
        term: inner.limits.term,
        message_bytes: inner.limits.message_bytes,
        ..DistLimits::default()
    };
    let manager = Manager::new(
        manager::Config {
            local: local.clone(),
            form,
            resolver: config.names.clone(),
            connector,
            link: link::Config {
                tick_time: config.tick_time,
                limits,
            },
            queue_bytes: usize::try_from(queue_bytes).unwrap_or(usize::MAX),
        },
        Arc::new(Face(Arc::downgrade(inner))),
    );
    let (commands, told) = mpsc::unbounded_channel();
    let mut port = inner
        .runtime
        .spec()
        .listen_addrs
        .first()
        .map(SocketAddr::port);
    let handle = runtime.handle().clone();
    let _context = handle.enter();
    if let Some(acceptor) = acceptor {
        let mut addrs = config.listen_tls.clone();
        if addrs.is_empty() {
            addrs.push(([0, 0, 0, 0], 0).into());
        }
        let listeners = listen::bind(&addrs)?;
        if let Some(first) = listeners.first() {
            port = Some(first.local_addr()?.port());
        }
        for listener in listeners {
            runtime.spawn(dial::serve(
                listener,
                acceptor.clone(),
                local.clone(),
                Arc::new(Door::default()),
                // Far from the numbers of the other listener.
                Arc::new(AtomicU64::new(1 << 63)),
                gate.desk(),
            ));
        }
    }
    runtime.spawn(manager.run(told, gate.judgements, gate.arrivals));
    let mut registration = None;
    if let (Resolver::Epmd(epmd), true, Some(port)) = (&config.names, config.register, port) {
        let (epmd, own) = (epmd.clone(), parts.name.to_owned());
        let (answer, registered) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            let _ = answer.send(epmd.register(&own, port).await);
        });
        match registered.recv() {
            Ok(Ok(done)) => registration = Some(done),
            Ok(Err(e)) => {
                runtime.shutdown_background();
                return Err(e.into());
            }
            Err(_) => {
                return Err(StartError::Overlay(
                    "registering with EPMD has failed".into(),
                ));
            }
        }
    }
    Ok(Stock {
        commands,
        handle,
        runtime: Mutex::new(Some(runtime)),
        registration: Mutex::new(registration),
    })
}

impl Stock {
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    fn command(&self, command: Command) {
        let _ = self.commands.send(command);
    }

    /// Ends all links. Blocks until they have ended, unless it is called by one of their threads.
    pub(crate) fn stop(&self) {
        self.registration.lock().take();
        let Some(runtime) = self.runtime.lock().take() else {
            return;
        };
        let (answer, stopped) = oneshot::channel();
        self.command(Command::Stop(answer));
        if std::thread::current().name() == Some(THREAD_NAME) {
            // The task that is ending this node must not wait for itself.
            runtime.shutdown_background();
            return;
        }
        let _ = block_on(stopped);
        if Handle::try_current().is_ok() {
            runtime.shutdown_background();
        } else {
            runtime.shutdown_timeout(STOP_PATIENCE);
        }
    }
}

impl Node {
    /// Makes a link with a stock node, unless there is one. Sending makes links by itself; this tells why
    /// there is none.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(&self, node: impl Into<Arc<str>>) -> Result<(), ConnectError> {
        self.connect_link(node.into()).await.map(|_| ())
    }

    pub(crate) async fn connect_link(&self, node: Arc<str>) -> Result<Arc<Link>, ConnectError> {
        if let Some(link) = self
            .inner()
            .processes
            .link(&node)
            .filter(|link| link.is_open())
        {
            return Ok(link);
        }
        let stock = self.inner().stock().ok_or(ConnectError::Disabled)?;
        let (answer, connected) = oneshot::channel();
        stock.command(Command::Connect(node, answer));
        connected.await.unwrap_or(Err(ConnectError::NotAlive))
    }

    /// Begins to make a link, and does not wait for it.
    pub(crate) fn begin_link(&self, node: Arc<str>) {
        if let Some(stock) = self.inner().stock() {
            stock.command(Command::Connect(node, oneshot::channel().0));
        }
    }

    /// Names of the stock nodes that there are links with.
    pub fn links(&self) -> Vec<Arc<str>> {
        let links = self.inner().processes.links();
        links.iter().map(|link| link.name.clone()).collect()
    }

    /// Ends the link with a stock node; true if there was one.
    ///
    /// # Errors
    /// If this node has none at all, or has stopped.
    pub async fn disconnect_link(&self, node: impl Into<Arc<str>>) -> Result<bool, ConnectError> {
        let stock = self.inner().stock().ok_or(ConnectError::Disabled)?;
        let (answer, ended) = oneshot::channel();
        stock.command(Command::Disconnect(node.into(), answer));
        ended.await.map_err(|_| ConnectError::NotAlive)
    }
}
