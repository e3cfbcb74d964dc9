//! The handle of a node that Rust programs hold.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use thiserror::Error;

use crate::connection::receive::ReceiveLimits;
use crate::node::allow::Allow;
use crate::node::builder::Builder;
use crate::node::events::{Events, NodeEvent, View};
use crate::node::functions::{Call, FunctionResult, Functions};
use crate::node::host::RustHost;
use crate::node::mailbox::{Mailbox, RegisterError};
use crate::node::pg::Scopes;
use crate::node::process::mute;
use crate::node::processes::{Processes, lane};
use crate::node::registry::{Registry, SERVICE_NAMES};
use crate::node::runtime::{Command, Reply, Runtime};
use crate::node::stock::{Distribution, Stock};
use crate::overlay::NodeSpec;
use crate::overlay::switch::Status;
use crate::signals::{Event, Local};
use crate::wire::identity::Identity;
use crate::wire::term::{Pid, Term};

/// Why the cluster cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// The node has stopped.
    #[error("this node has stopped")]
    NotAlive,
    /// The membership refuses the change.
    #[error("{0}")]
    Refused(String),
}

/// What all handles of a node share.
pub(crate) struct Inner {
    pub(crate) runtime: Runtime<RustHost>,
    pub(crate) processes: Processes,
    pub(crate) functions: Functions,
    pub(crate) allow: Allow,
    pub(crate) view: Arc<View>,
    pub(crate) limits: ReceiveLimits,
    pub(crate) causal_labels: Vec<Arc<str>>,
    /// The process that handles without a mailbox send and call as.
    pub(crate) own_process: Local,
    pub(crate) scopes: Scopes,
    stock: OnceLock<Stock>,
    distribution: bool,
    senders: AtomicU64,
}

impl Inner {
    /// `distribution` is there if the node has links with stock nodes.
    pub(crate) fn new(
        runtime: Runtime<RustHost>,
        registry: Arc<Registry>,
        view: Arc<View>,
        limits: ReceiveLimits,
        causal_labels: Vec<Arc<str>>,
        distribution: Option<&Distribution>,
    ) -> Self {
        let relations = distribution.map_or(0, |d| d.max_peer_relations);
        let processes = Processes::new(registry, relations);
        let begin = |name: Option<&str>| {
            let name = name.map(Arc::from);
            let slot = processes.registry.open(name.as_ref(), true);
            let slot = slot.expect("a new node has no processes");
            mute(&slot);
            processes.happened(Event::Spawned {
                process: slot.process,
                name,
                request: None,
            });
            slot.process
        };
        let own_process = begin(None);
        if distribution.is_some() {
            for name in SERVICE_NAMES {
                begin(Some(name));
            }
        }
        Self {
            runtime,
            processes,
            functions: Functions::default(),
            distribution: distribution.is_some(),
            allow: distribution.map(|d| d.allow.clone()).unwrap_or_default(),
            view,
            limits,
            causal_labels,
            own_process,
            scopes: Scopes::default(),
            stock: OnceLock::new(),
            senders: AtomicU64::new(0),
        }
    }

    /// True if the node makes links with stock nodes.
    pub(crate) fn has_distribution(&self) -> bool {
        self.distribution
    }

    pub(crate) fn stock(&self) -> Option<&Stock> {
        self.stock.get()
    }

    pub(crate) fn set_stock(&self, stock: Stock) {
        let _ = self.stock.set(stock);
    }

    /// Where processes run whose starter has no runtime.
    pub(crate) fn tasks(&self) -> tokio::runtime::Handle {
        match self.stock() {
            Some(stock) => stock.handle().clone(),
            None => self.runtime.timers().clone(),
        }
    }

    fn stop(&self) {
        self.view.stopping();
        self.scopes.stop();
        if let Some(stock) = self.stock() {
            self.processes.settle();
            stock.stop();
        }
        self.runtime.stop();
        self.processes.registry.stop();
        self.view.stopped();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A running node of a Partisan cluster.
///
/// The node has threads of its own: it can be used by any asynchronous runtime and by plain
/// threads. It ends with [`Node::stop`], or when its last handle and its last [`Mailbox`] are
/// dropped.
///
/// Each handle is a sender of its own: messages sent through one handle, one after the other, by
/// one channel and partition key arrive at a node in the order of sending. A clone is another
/// sender, which may go by another connection.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use partisan::{Node, SendOptions, Value};
///
/// let node = Node::builder("rust@127.0.0.1")
///     .cookie("secret")
///     .listen("127.0.0.1:0".parse()?)
///     .channel("bulk", 4)
///     .start()?;
/// let mut mailbox = node.register("greeter")?;
/// let hello = Value::atom("hello").encode()?;
/// node.send_blocking(("rust@127.0.0.1", "greeter"), &hello, &SendOptions::new())?;
/// assert_eq!(mailbox.recv_blocking().unwrap().term, hello);
/// # Ok(())
/// # }
/// ```
pub struct Node {
    inner: Arc<Inner>,
    sender: u64,
    /// The process whose handle this is.
    process: Option<Local>,
}

impl Clone for Node {
    /// Another handle, which is a sender of its own.
    fn clone(&self) -> Self {
        Self::of(&self.inner)
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("identity", self.identity())
            .finish_non_exhaustive()
    }
}

impl Node {
    /// Begins the configuration of a node of this name, `name@host`. The host part is only a
    /// name: peers dial the addresses that the node listens on.
    pub fn builder(name: impl Into<Arc<str>>) -> Builder {
        Builder::new(name.into())
    }

    pub(crate) fn of(inner: &Arc<Inner>) -> Self {
        let sender = inner.senders.fetch_add(1, Ordering::Relaxed);
        Self {
            inner: inner.clone(),
            sender,
            process: None,
        }
    }

    /// The handle of a process.
    pub(crate) fn of_process(inner: &Arc<Inner>, pid: Pid) -> Self {
        Self {
            process: Some(Local::from(&pid)),
            ..Self::of(inner)
        }
    }

    /// The process that this handle sends as.
    pub(crate) fn process(&self) -> Local {
        self.process.unwrap_or(self.inner.own_process)
    }

    /// The lane of this handle on links with stock nodes.
    pub(crate) fn lane(&self) -> u64 {
        match self.process {
            Some(process) => lane(process),
            // Pids have fewer bits.
            None => self.sender | 1 << 63,
        }
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    pub(crate) fn sender(&self) -> u64 {
        self.sender
    }

    /// Its name and creation.
    pub fn identity(&self) -> &Identity {
        self.inner.runtime.identity()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.identity().node
    }

    /// What other nodes need to know to join it: name, addresses, channels.
    pub fn spec(&self) -> &NodeSpec {
        self.inner.runtime.spec()
    }

    /// False once the node has stopped.
    pub fn is_alive(&self) -> bool {
        self.inner.view.is_alive()
    }

    /// Bytes that wait to be sent, over all connections.
    pub fn queued_bytes(&self) -> u64 {
        let links = self.inner.processes.links();
        let linked: u64 = links.iter().map(|link| link.queued()).sum();
        self.inner.runtime.queued() + linked
    }

    /// Opens a mailbox that receives what is sent to this name, and to its pid.
    ///
    /// # Errors
    /// If the name is taken or cannot be used, or the node has stopped.
    pub fn register(&self, name: impl Into<Arc<str>>) -> Result<Mailbox, RegisterError> {
        Mailbox::open(&self.inner, Some(name.into()))
    }

    /// Opens a mailbox that receives what is sent to its pid.
    ///
    /// # Errors
    /// If the node has stopped.
    pub fn mailbox(&self) -> Result<Mailbox, RegisterError> {
        Mailbox::open(&self.inner, None)
    }

    /// Registers a function that other nodes may call by `rpc:call`, `erpc:call` or `spawn_request`:
    /// it gets `arity` arguments. Each call runs in a process of its own, on the threads of the links. A function of the same
    /// name and arity is replaced.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use partisan::{Exception, Node, Value};
    ///
    /// let node = Node::builder("rust@127.0.0.1").cookie("secret").start()?;
    /// node.function("calculator", "double", 1, |call| async move {
    ///     let number = call.arguments[0].as_i64().ok_or_else(Exception::badarg)?;
    ///     Ok(Value::from(2 * number))
    /// });
    /// # Ok(())
    /// # }
    /// ```
    pub fn function<F, R>(
        &self,
        module: impl Into<Arc<str>>,
        name: impl Into<Arc<str>>,
        arity: u8,
        body: F,
    ) where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = FunctionResult> + Send + 'static,
    {
        self.inner
            .functions
            .add(module.into(), name.into(), arity, body);
    }

    /// Names that are registered on this node.
    pub fn registered(&self) -> Vec<Arc<str>> {
        self.inner.processes.registry.names()
    }

    async fn ask<T: Send + 'static>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, ClusterError> {
        self.inner
            .runtime
            .ask(command)
            .await
            .ok_or(ClusterError::NotAlive)
    }

    async fn change(
        &self,
        command: impl FnOnce(Reply<Result<(), String>>) -> Command,
    ) -> Result<(), ClusterError> {
        self.ask(command).await?.map_err(ClusterError::Refused)
    }

    /// Joins the cluster of another node, given by its [`NodeSpec`] or by name and address. Any
    /// member will do.
    ///
    /// Returns when the wish is noted; the node is dialled until it can be reached. See
    /// [`Node::connected`] to wait for it.
    ///
    /// # Errors
    /// If the node cannot be joined, being this one for instance.
    pub async fn join(&self, node: impl Into<NodeSpec>) -> Result<(), ClusterError> {
        let spec = node.into();
        self.change(|reply| Command::Join(spec, reply)).await
    }

    /// Waits until a node is connected; false if this node stops before.
    pub async fn connected(&self, node: &str) -> bool {
        let mut events = self.events();
        loop {
            if self.is_connected(node) {
                return true;
            }
            loop {
                match events.recv().await {
                    None => return false,
                    Some(NodeEvent::Up { node: up }) if *up == *node => break,
                    Some(NodeEvent::Lagged(_)) => break,
                    Some(_) => {}
                }
            }
        }
    }

    /// Leaves the cluster. Returns when the others have been told, as far as they can be reached.
    ///
    /// # Errors
    /// If the node has stopped.
    pub async fn leave(&self) -> Result<(), ClusterError> {
        self.change(Command::Leave).await
    }

    /// Removes another node from the cluster, which it may come back to by joining again.
    ///
    /// # Errors
    /// If this node has stopped. Removing a node that is no member is no error.
    pub async fn remove(&self, node: impl Into<Arc<str>>) -> Result<(), ClusterError> {
        let node = node.into();
        self.change(|reply| Command::Remove(node, reply)).await
    }

    /// Sends a message to whoever is registered under a name on every other node that the overlay
    /// reaches: along a tree (Plumtree) of which each node knows its neighbours only, and which mends itself.
    ///
    /// A message comes at most once; [`Message::from`](crate::Message::from) is this node. Messages may overtake each
    /// other. A mailbox that is full does not get it, and neither does a node that is away for longer than the minute for
    /// which its neighbours keep it.
    ///
    /// Returns when the message is queued.
    ///
    /// # Errors
    /// If the term is too large, 8 MiB with the name, or the node has stopped.
    pub async fn broadcast(&self, name: &str, term: &Term) -> Result<(), ClusterError> {
        let (name, term) = (Arc::from(name), Bytes::from(term.to_external()));
        self.change(|reply| Command::Broadcast(name, term, reply))
            .await
    }

    /// Has the cluster change to another overlay while it runs: `name` is that of an [`OverlayConfig`](crate::OverlayConfig).
    /// Returns when this node has begun; the others follow as they hear of it, each with its own configuration of
    /// that overlay ([`Builder::other_overlay`](crate::Builder::other_overlay)). Nothing that is sent meanwhile is lost. Messages go on.
    ///
    /// The old overlay runs on for [`Builder::switch_overlap`](crate::Builder::switch_overlap); see
    /// [`switch`](crate::overlay::switch). Nothing happens if the overlay runs already.
    ///
    /// # Errors
    /// If this node has no such overlay, is a client of a client–server overlay, or has stopped.
    pub async fn switch(&self, name: &str) -> Result<(), ClusterError> {
        let name = name.to_owned();
        self.change(|reply| Command::Switch(name, reply)).await
    }

    /// Says whom this node is to keep links with, on an overlay that is [steered](crate::OverlayConfig::Steered) under
    /// this name; others are not touched. Nodes whose own policies list this one keep their links with it.
    /// `members` replaces what was said before; one without addresses is reached over other nodes, or waits.
    ///
    /// A node that has [joined](Self::join) another keeps the link until this is called after [`NodeEvent::Up`].
    ///
    /// # Errors
    /// If a specification is none that other nodes would accept, there are too many, or the node has stopped.
    pub async fn steer(&self, overlay: &str, members: Vec<NodeSpec>) -> Result<(), ClusterError> {
        let overlay = overlay.to_owned();
        // An empty list would mean nothing; the own node in it does no harm.
        let mut members = members;
        members.push(self.spec().clone());
        self.change(|reply| Command::Steer(overlay, members, reply))
            .await
    }

    /// Which overlay runs here.
    ///
    /// # Errors
    /// If the node has stopped.
    pub async fn overlay(&self) -> Result<Status, ClusterError> {
        self.ask(Command::Overlay).await
    }

    /// The members of the cluster, this node among them. While the overlay changes, those of both.
    ///
    /// # Errors
    /// If the node has stopped.
    pub async fn members(&self) -> Result<Vec<NodeSpec>, ClusterError> {
        self.ask(Command::Members).await
    }

    /// Names of the nodes that are connected.
    pub fn nodes(&self) -> Vec<Arc<str>> {
        self.inner.view.connected()
    }

    /// True if the node can be sent to.
    pub fn is_connected(&self, node: &str) -> bool {
        self.inner.view.session(node).is_some_and(|s| s.is_open())
    }

    /// Ends the session with a node; a member is dialled again. True if there was a session.
    ///
    /// # Errors
    /// If this node has stopped.
    pub async fn disconnect(&self, node: impl Into<Arc<str>>) -> Result<bool, ClusterError> {
        let node = node.into();
        self.ask(|reply| Command::Disconnect(node, reply)).await
    }

    /// What happens to the node from now on.
    pub fn events(&self) -> Events {
        self.inner.view.subscribe()
    }

    /// Ends the node. When the call returns no thread and no socket of it is left, which takes
    /// milliseconds. What was sent to stock nodes has arrived there, unless one did not read it within
    /// [two seconds](crate::limits::LAST_WORDS); messages to Partisan peers that were queued may be lost. What mailboxes hold
    /// can still be received.
    pub fn stop(&self) {
        self.inner.stop();
    }
}

impl From<(&str, SocketAddr)> for NodeSpec {
    /// A node by its name and the address that it listens on.
    fn from((name, addr): (&str, SocketAddr)) -> Self {
        Self {
            name: name.into(),
            listen_addrs: vec![addr],
            channels: Vec::new(),
        }
    }
}

impl From<(&str, Vec<SocketAddr>)> for NodeSpec {
    /// A node by its name and the addresses that it listens on, in the order of trying them.
    fn from((name, listen_addrs): (&str, Vec<SocketAddr>)) -> Self {
        Self {
            name: name.into(),
            listen_addrs,
            channels: Vec::new(),
        }
    }
}

impl From<&NodeSpec> for NodeSpec {
    fn from(spec: &NodeSpec) -> Self {
        spec.clone()
    }
}
