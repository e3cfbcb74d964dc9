//! A node at work: one thread that runs the control plane and drives the state machines.
//!
//! The thread owns the overlay, the links and the table of sessions; everything reaches it as a
//! message, and it is the only one that decides. The I/O threads carry the data and know nothing
//! of it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::RngExt;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::broadcast::plumtree;
use crate::connection::establish::Local;
use crate::connection::host::Host;
use crate::connection::io::{self, Io};
use crate::connection::listen;
use crate::connection::session::{CloseReason, Session};
use crate::connection::stock::StockDesk;
use crate::connection::tunnel::{Outlets, Tunnels};
use crate::delivery::{self, Lane};
use crate::distribution::epmd::EpmdError;
use crate::distribution::manager::ConnectError;
use crate::distribution::names::NameError;
use crate::distribution::tls::TlsError;
use crate::node::control::Control;
use crate::node::overlay::OverlayConfig;
use crate::overlay::NodeSpec;
use crate::overlay::switch::{self, Status};
use crate::wire::flags::Flags;
use crate::wire::hello::ChannelSpec;
use crate::wire::identity::Identity;

/// What a node is started with.
#[derive(Clone)]
pub struct Config {
    /// Node name, `name@host`.
    pub name: Arc<str>,
    /// The VM's creation if its identifiers go out as they are; 0: a random one.
    pub creation: u32,
    /// Secret shared with peers.
    pub cookie: Vec<u8>,
    /// Secrets of particular peers, by node name.
    pub cookies: HashMap<String, Vec<u8>>,
    /// Addresses to listen on; port 0 lets the system choose.
    pub listen: Vec<SocketAddr>,
    /// Addresses that peers are told to dial, where they differ from those listened on.
    pub advertise: Vec<SocketAddr>,
    /// Channels of this node.
    pub channels: Vec<ChannelSpec>,
    /// I/O threads, queues and limits.
    pub io: io::Config,
    /// Pause between attempts to reach a member, at first (`connection_interval`).
    pub connection_interval: Duration,
    /// Random addition to a pause (`connection_jitter`).
    pub connection_jitter: Duration,
    /// How often the membership of a full mesh is gossiped (`periodic_interval`).
    pub periodic_interval: Duration,
    /// To how many members, and to how many news of others go at once (`fanout`).
    pub fanout: usize,
    /// Who keeps links to whom, at first.
    pub overlay: OverlayConfig,
    /// Overlays that the cluster may switch to, where their defaults won't do.
    pub other_overlays: Vec<OverlayConfig>,
    /// How long the overlay that the cluster has switched from runs beside the new one (`switch_overlap`).
    pub switch_overlap: Duration,
    /// How many nodes may pass on a packet to a node that has no link with its sender (`relay_ttl`).
    pub relay_ttl: u8,
    /// Whether nodes are dialled that are no neighbours on a partial overlay (`relay_direct`); else they are reached
    /// over neighbours only.
    pub relay_direct: bool,
    /// How long a node may take to be reached on a partial overlay.
    pub reach_patience: Duration,
    /// How long a session is kept there that nobody uses.
    pub reach_idle: Duration,
    /// Peers may send small messages of all keys on the first connection of a channel. Not where one full mailbox
    /// holds up a connection: then it would hold up all keys.
    pub bundles: bool,
    /// How broadcasts travel.
    pub broadcast: plumtree::Config,
    /// Bounds and times of acknowledged and causal messages.
    pub delivery: delivery::Config,
    /// Where the membership is kept; `None`: nowhere.
    pub data_dir: Option<PathBuf>,
    /// Who serves stock peers that dial; `None`: they are refused.
    pub stock: Option<StockDesk>,
}

impl Config {
    /// What a handshake has to know of this node, in a new incarnation.
    pub(crate) fn local(&self, identity: Identity, tunnels: Option<Arc<Tunnels>>) -> Local {
        Local {
            identity,
            stock_flags: Flags::STOCK,
            instance: rand::rng().random(),
            channels: self.channels.clone(),
            cookie: self.cookie.clone(),
            cookies: self.cookies.clone(),
            tunnels,
            bundles: self.bundles,
        }
    }

    /// The defaults, for a node of this name.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            creation: 0,
            cookie: Vec::new(),
            cookies: HashMap::new(),
            listen: Vec::new(),
            advertise: Vec::new(),
            channels: Vec::new(),
            io: io::Config::default(),
            bundles: false,
            connection_interval: Duration::from_secs(1),
            connection_jitter: Duration::from_secs(1),
            periodic_interval: Duration::from_secs(10),
            fanout: 5,
            overlay: OverlayConfig::default(),
            other_overlays: Vec::new(),
            switch_overlap: switch::Config::default().overlap,
            relay_ttl: 32,
            relay_direct: true,
            reach_patience: Duration::from_secs(10),
            reach_idle: Duration::from_secs(60),
            broadcast: plumtree::Config::default(),
            delivery: delivery::Config::default(),
            data_dir: None,
            stock: None,
        }
    }
}

/// Why a node did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The name is not of the form `name@host`.
    #[error("node name {0:?} is not of the form name@host")]
    Name(Arc<str>),
    /// There is no cookie.
    #[error("no cookie: nodes must share a secret to connect; set one in the configuration")]
    NoCookie,
    /// A channel is configured in an impossible way.
    #[error("channels: {0}")]
    Channels(#[from] crate::wire::hello::HelloError),
    /// A socket or a thread could not be had.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The overlay refuses the configuration.
    #[error("{0}")]
    Overlay(String),
    /// The node's name does not do for Distributed Erlang.
    #[error(transparent)]
    NodeName(#[from] NameError),
    /// TLS with stock nodes is configured in an impossible way.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The node could not be registered with EPMD.
    #[error(transparent)]
    Epmd(#[from] EpmdError),
    /// The node that should give this one a name could not be connected.
    #[error("no name: {0}")]
    Nameless(#[from] ConnectError),
    /// It has connected, but gave none.
    #[error("{0} gave this node no name: it must be of OTP 23 or later, and visible")]
    NoName(Arc<str>),
    /// A visible node was asked for.
    #[error(
        "a Rust node cannot be visible: that would take part in `global`; leave `visible` off, \
         and reach the node by name or by pg"
    )]
    Visible,
}

/// What happens to a node, told on its control thread. Must not block.
pub trait Observer: Send + 'static {
    /// A session is up. Messages can be sent and will be delivered after the call returns.
    /// `news`: the node was not up before.
    fn session_up(&mut self, session: &Arc<Session>, spec: Option<&NodeSpec>, news: bool);
    /// A session has ended and nothing more of it will be delivered. `news`: the node is down now.
    fn session_down(&mut self, session: &Arc<Session>, reason: &CloseReason, news: bool);
    /// A node without a session is down: it can't be reached, or has restarted.
    fn node_down(&mut self, node: &str, reason: &str);
    /// Whether everybody knows of the end of a session when [`Observer::session_down`] returns.
    /// If not, the peer comes back only after [`Command::Told`]: else messages of its next session
    /// could overtake the news, and a gap in a sender's order would be seen before its reason.
    fn tells_at_once(&self) -> bool {
        true
    }
    /// The members have changed; this node is among them.
    fn members(&mut self, members: &[NodeSpec]);
    /// The join of this node's cluster, asked for by [`Command::Join`], has been granted.
    fn joined(&mut self, node: &str) {
        let _ = node;
    }
    /// This node has left its cluster, or was removed from it.
    fn left(&mut self);
    /// Another overlay runs, beside the one before or alone. `reaches`: nodes without a session may be reached all the
    /// same. Called once at the start, too.
    fn overlay(&mut self, status: &Status, reaches: bool);
    /// The node has come to an end without being asked to.
    fn failed(&mut self, why: &str);
}

/// A node's part of a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BroadcastView {
    /// Neighbours to which it sends the root's broadcasts.
    pub eager: Vec<Arc<str>>,
    /// Neighbours to which it only announces them.
    pub lazy: Vec<Arc<str>>,
}

/// A message that is to be acknowledged.
pub struct Delivering {
    /// The node that it goes to.
    pub to: Arc<str>,
    /// The stream that it belongs to.
    pub lane: Lane,
    /// A [`Parcel`](delivery::Parcel), encoded.
    pub parcel: Bytes,
    /// Whether to wait for room.
    pub wait: bool,
    /// No other message of the node has it; of one sender's they go up.
    pub ticket: u64,
    /// Told when the message is taken, or refused.
    pub reply: Reply<Result<(), Undeliverable>>,
}

/// Why a message that is to be acknowledged was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undeliverable {
    /// There is no session with the node, and nothing says that it comes back. `known`: there was one once.
    Unconnected {
        /// Whether there has been a session with it.
        known: bool,
    },
    /// There is no room.
    Busy,
    /// The sender has withdrawn it, see [`Command::Withdraw`].
    Withdrawn,
    /// The node stops.
    Stopped,
}

/// Called with the answer to a [`Command`], on the control thread.
pub type Reply<T> = Box<dyn FnOnce(T) + Send>;

/// What a user asks of a node.
pub enum Command {
    /// Join the cluster of this node. Answered when the request is noted; the join stays pending
    /// until the node can be reached.
    Join(NodeSpec, Reply<Result<(), String>>),
    /// Leave the cluster.
    Leave(Reply<Result<(), String>>),
    /// Remove a node from the cluster.
    Remove(Arc<str>, Reply<Result<(), String>>),
    /// Have exactly these members.
    Update(Vec<NodeSpec>, Reply<Result<(), String>>),
    /// What the policy of a steered overlay, which has this name, wants.
    Steer(String, Vec<NodeSpec>, Reply<Result<(), String>>),
    /// Broadcast an encoded term to the processes that are registered under a name, on all other nodes.
    Broadcast(Arc<str>, Bytes, Reply<Result<(), String>>),
    /// Send a message, and again until it is acknowledged.
    Deliver(Delivering),
    /// Whoever waits with such a message under this ticket doesn't want to any longer; the reply says so if it is in time.
    Withdraw(u64),
    /// To whom this node passes broadcasts of a root on.
    BroadcastView(Arc<str>, Reply<BroadcastView>),
    /// Have the cluster change to the overlay of this name.
    Switch(String, Reply<Result<(), String>>),
    /// Which overlay runs.
    Overlay(Reply<Status>),
    /// The members, this node among them.
    Members(Reply<Vec<NodeSpec>>),
    /// The sessions that are up.
    Sessions(Reply<Vec<Arc<Session>>>),
    /// Close the session with a node; true if there was one.
    Disconnect(Arc<str>, Reply<bool>),
    /// On a partial overlay: get a session with this node; whether there is one now.
    Reach(Arc<str>, Reply<bool>),
    /// Where a node listens, for when it is to be reached.
    Remember(NodeSpec),
    /// On a partial overlay: keep a session with this node until it is down, or no longer.
    Watch(Arc<str>, bool),
    /// Everybody has been told that the session with this node is down; see
    /// [`Observer::tells_at_once`].
    Told(Arc<str>),
    /// End the node.
    Stop,
}

/// A running node.
pub struct Runtime<H: Host> {
    commands: mpsc::UnboundedSender<Command>,
    io: Arc<Io<H>>,
    local: Arc<Local>,
    spec: NodeSpec,
    timers: Handle,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<H: Host> Runtime<H> {
    /// Starts a node with this identity. `host` and `observer` are the surroundings.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running.
    pub fn start(
        host: Arc<H>,
        identity: Identity,
        config: Config,
        observer: Box<dyn Observer>,
    ) -> Result<Self, StartError> {
        check(&config)?;
        // A full mesh needs them when it has switched to another overlay.
        let (tunnels, outlets) = Tunnels::new(&config.name, rand::rng().random());
        let local = Arc::new(config.local(identity, Some(tunnels)));
        let io = Arc::new(Io::start(host, config.io.clone())?);
        let (commands, inbox) = mpsc::unbounded_channel();
        let (started, outcome) = std::sync::mpsc::channel();
        let thread = {
            let (local, io) = (local.clone(), io.clone());
            std::thread::Builder::new()
                .name("partisan-control".into())
                .spawn(move || {
                    run(local, io, config, observer, inbox, &started, outlets);
                })
        };
        let failed = |e: StartError| {
            io.stop();
            Err(e)
        };
        let thread = match thread {
            Ok(thread) => thread,
            Err(e) => return failed(e.into()),
        };
        match outcome.recv() {
            Ok(Ok((spec, timers))) => {
                let thread = Mutex::new(Some(thread));
                Ok(Self {
                    commands,
                    io,
                    local,
                    spec,
                    timers,
                    thread,
                })
            }
            Ok(Err(e)) => failed(e),
            Err(_) => failed(StartError::Overlay("the control thread has died".into())),
        }
    }

    /// The node's name and creation on the wire.
    pub fn identity(&self) -> &Identity {
        &self.local.identity
    }

    pub(crate) fn local(&self) -> &Arc<Local> {
        &self.local
    }

    /// Number of this start, told to peers.
    pub fn instance(&self) -> u64 {
        self.local.instance
    }

    /// What peers need to know to reach this node.
    pub fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    /// The control plane's runtime, for timers. What is left of them when the node stops never
    /// fires.
    pub(crate) fn timers(&self) -> &Handle {
        &self.timers
    }

    /// Bytes queued over all connections.
    pub fn queued(&self) -> u64 {
        self.io.queued()
    }

    /// Hands a command to the control thread. If the node has ended, the command is dropped and
    /// with it the reply.
    pub fn command(&self, command: Command) {
        let _ = self.commands.send(command);
    }

    /// Sends a command and waits for its answer; `None` if the node has ended.
    pub async fn ask<T: Send + 'static>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.command(command(Box::new(move |value| {
            let _ = answer.send(value);
        })));
        answered.await.ok()
    }

    /// Ends the node: sessions are closed, waiting senders are told, and every thread and socket
    /// is gone when the call returns.
    pub fn stop(&self) {
        self.command(Command::Stop);
        if let Some(thread) = self.thread.lock().take() {
            // The thread catches its panics.
            let _ = thread.join();
        }
        self.io.stop();
    }
}

impl<H: Host> Drop for Runtime<H> {
    fn drop(&mut self) {
        self.stop();
    }
}

fn check(config: &Config) -> Result<(), StartError> {
    let parts: Vec<&str> = config.name.split('@').collect();
    if parts.len() != 2 || parts.iter().any(|part| part.is_empty()) || config.name.len() > 255 {
        return Err(StartError::Name(config.name.clone()));
    }
    if config.cookie.is_empty() {
        return Err(StartError::NoCookie);
    }
    crate::wire::hello::Plan::merge(&config.channels, &[])?;
    Ok(())
}

type Started = std::sync::mpsc::Sender<Result<(NodeSpec, Handle), StartError>>;

fn run<H: Host>(
    local: Arc<Local>,
    io: Arc<Io<H>>,
    config: Config,
    observer: Box<dyn Observer>,
    inbox: mpsc::UnboundedReceiver<Command>,
    started: &Started,
    outlets: Outlets,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => {
            let _ = started.send(Err(e.into()));
            return;
        }
    };
    let observer = Arc::new(Mutex::new(observer));
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            let listeners = match listen::bind(&config.listen) {
                Ok(listeners) => listeners,
                Err(e) => {
                    let _ = started.send(Err(e.into()));
                    return;
                }
            };
            match Control::new(local, io, config, observer.clone(), listeners, outlets) {
                Ok(mut control) => {
                    let _ = started.send(Ok((control.own_spec().clone(), Handle::current())));
                    control.run(inbox).await;
                }
                Err(e) => {
                    let _ = started.send(Err(e));
                }
            }
        });
    }));
    if outcome.is_err() {
        observer.lock().failed("the control thread has panicked");
    }
}
