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
use crate::distribution::dial::{self, Stocked};
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
use crate::wire::flags::Flags;
use crate::wire::identity::Identity;

/// Name of the threads that serve links with stock nodes.
const THREAD_NAME: &str = "partisan-dist";

/// Time for tasks to end when the links have.
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
    pub(crate) listen: bool,
    pub(crate) tls: Option<TlsConfig>,
    listen_tls: Vec<SocketAddr>,
    tick_time: Duration,
    threads: usize,
    visible: bool,
    name_from: Option<Arc<str>>,
    pub(crate) allow: Allow,
    pub(crate) max_peer_relations: usize,
}

impl Default for Distribution {
    fn default() -> Self {
        Self {
            names: Resolver::from_env(),
            register: true,
            listen: true,
            tls: None,
            listen_tls: Vec::new(),
            tick_time: limits::TICK_TIME,
            threads: 0,
            visible: false,
            name_from: None,
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

    /// Only dials: the node neither registers with EPMD nor listens on ports that were not asked for. Others reach it
    /// through the links that it has made.
    pub fn dial_only(mut self) -> Self {
        self.register = false;
        self.listen = false;
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

    /// Asks this node for a name when starting. The node's own [name](Node::builder) then is only
    /// the part after the `@`, with or without it. Such a node does not register with EPMD; its name is good until it
    /// stops (`erl -name undefined`, OTP 23 and later).
    pub fn name_from(mut self, node: impl Into<Arc<str>>) -> Self {
        self.name_from = Some(node.into());
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
    threads: Mutex<Option<Threads>>,
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

/// The threads that serve links. Dropped, they end and are not waited for: the node may be started by a task, which must
/// not wait, and fail.
pub(crate) struct Threads {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Threads {
    /// Ends them when their tasks have ended, for which they have some time.
    fn end(mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(STOP_PATIENCE);
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Starts the threads that serve links.
pub(crate) fn threads(config: &Distribution) -> Result<Threads, StartError> {
    if config.visible {
        return Err(StartError::Visible);
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = match config.threads {
        0 => cores.min(4),
        threads => threads,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(THREAD_NAME)
        .enable_all()
        .build()?;
    Ok(Threads {
        handle: runtime.handle().clone(),
        runtime: Some(runtime),
    })
}

/// Blocks for the outcome of a task of these threads.
fn wait<T: Send + 'static>(
    threads: &Handle,
    task: impl Future<Output = T> + Send + 'static,
) -> Result<T, StartError> {
    let (answer, outcome) = std::sync::mpsc::channel();
    threads.spawn(async move {
        let _ = answer.send(task.await);
    });
    let died = |_| StartError::Overlay("a task of the distribution has died".into());
    outcome.recv().map_err(died)
}

/// Gets a name from another node, if that is wanted: the name, and the connection that comes with
/// it.
pub(crate) fn named(
    threads: &Threads,
    config: &Distribution,
    local: Local,
) -> Result<Option<(Identity, Stocked)>, StartError> {
    let Some(giver) = config.name_from.clone() else {
        return Ok(None);
    };
    let host = local.identity.node.trim_start_matches('@').to_owned();
    let form = NodeName::parse(&format!("x@{host}"))?.form();
    let local = Local {
        tunnels: None,
        identity: Identity::new(host, 0),
        ..local
    };
    let connector = match &config.tls {
        Some(tls) => Some(tls.connector()?),
        None => None,
    };
    let resolver = config.names.clone();
    let asked = giver.clone();
    let stocked = wait(&threads.handle, async move {
        let address = resolver.resolve(&asked, form).await;
        let address = address.map_err(|e| ConnectError::Resolve(Arc::new(e)))?;
        let cookie = local.cookie_for(&asked);
        let dialled = dial::dial(&address, asked, cookie, &local, connector.as_ref()).await;
        dialled.map_err(|e| ConnectError::Dial(Arc::new(e)))
    })??;
    match stocked.established.given.clone() {
        Some(identity) => Ok(Some((identity, stocked))),
        None => Err(StartError::NoName(giver)),
    }
}

/// What a node serves links with.
pub(crate) struct Setup {
    pub(crate) config: Distribution,
    pub(crate) threads: Threads,
    pub(crate) gate: Gate,
    pub(crate) local: Arc<Local>,
    pub(crate) queue_bytes: u64,
    /// The connection that this node has its name from.
    pub(crate) first: Option<Stocked>,
}

/// Starts to serve links. Blocks until EPMD has answered.
pub(crate) fn start(inner: &Arc<Inner>, setup: Setup) -> Result<Stock, StartError> {
    let Setup {
        config,
        threads,
        gate,
        local,
        queue_bytes,
        first,
    } = setup;
    let name = local.identity.node.clone();
    let parts = NodeName::parse(&name)?;
    let form = parts.form();
    let listens = config.listen || !config.listen_tls.is_empty();
    let (connector, acceptor) = match &config.tls {
        Some(tls) if listens => (Some(tls.connector()?), Some(tls.acceptor()?)),
        Some(tls) => (Some(tls.connector()?), None),
        None => (None, None),
    };
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
    let handle = threads.handle.clone();
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
            handle.spawn(dial::serve(
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
    let named = first.is_some();
    handle.spawn(manager.run(told, gate.judgements, gate.arrivals, first));
    let mut registration = None;
    let register = config.register && !named;
    if let (Resolver::Epmd(epmd), true, Some(port)) = (&config.names, register, port) {
        let (epmd, own) = (epmd.clone(), parts.name.to_owned());
        let registered = wait(&handle, async move { epmd.register(&own, port).await })?;
        registration = Some(registered?);
    }
    Ok(Stock {
        commands,
        handle: threads.handle.clone(),
        threads: Mutex::new(Some(threads)),
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

    /// Ends all links when what was sent has left: see [`limits::LAST_WORDS`]. Blocks until they have ended, unless it
    /// is called by one of their threads.
    pub(crate) fn stop(&self) {
        self.registration.lock().take();
        let Some(threads) = self.threads.lock().take() else {
            return;
        };
        let (answer, stopped) = oneshot::channel();
        self.command(Command::Stop(answer));
        if std::thread::current().name() == Some(THREAD_NAME) {
            // The task that is ending this node must not wait for itself.
            self.handle.spawn(async move {
                let _ = stopped.await;
                drop(threads);
            });
            return;
        }
        let _ = block_on(stopped);
        if Handle::try_current().is_err() {
            threads.end();
        }
    }
}

/// A link with a stock node that is up.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkInfo {
    /// The peer's name.
    pub node: Arc<str>,
    /// The peer's incarnation.
    pub creation: u32,
    /// What both ends offer: the features of the protocol that the link may use.
    pub flags: Flags,
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

    /// The link with this stock node, if there is one.
    pub fn link_info(&self, node: &str) -> Option<LinkInfo> {
        let link = self.inner().processes.link(node)?;
        link.is_open().then(|| LinkInfo {
            node: link.name.clone(),
            creation: link.creation,
            flags: link.flags,
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A task must not wait for the threads of a node that has failed to start.
    #[tokio::test]
    async fn why_a_node_does_not_start_is_told_to_tasks_too() {
        let start = |listen: SocketAddr, distribution: Distribution| {
            let node = Node::builder("failing@127.0.0.1").cookie("c");
            let node = node.listen(listen);
            node.distribution(distribution.register(false))
                .start()
                .err()
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = start(listener.local_addr().unwrap(), Distribution::new());
        assert!(matches!(taken, Some(StartError::Io(_))), "{taken:?}");

        let free = "127.0.0.1:0".parse().unwrap();
        let tls = start(free, Distribution::new().tls(TlsConfig::default()));
        let why = tls.map(|e| e.to_string()).unwrap_or_default();
        let says = match cfg!(feature = "tls") {
            true => "roots",
            false => "feature `tls`",
        };
        assert!(why.starts_with("TLS: ") && why.contains(says), "{why}");
    }
}
