//! The configuration of a node in Rust.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;

use crate::connection::io::Liveness;
use crate::node::api::{Inner, Node};
use crate::node::control::MEMBERSHIP_CHANNEL;
use crate::node::events::{Telling, View};
use crate::node::host::RustHost;
use crate::node::mailbox::MAILBOX_BYTES;
use crate::node::overlay::OverlayConfig;
use crate::node::registry::Registry;
use crate::node::runtime::{Config, Runtime, StartError};
use crate::node::stock::{self, Distribution};
use crate::wire::hello::{ChannelSpec, DEFAULT_CHANNEL};
use crate::wire::identity::Identity;

/// Events that a reader may be behind, by default.
const EVENT_BACKLOG: usize = 1024;

/// The configuration of a node; see [`Node::builder`].
#[derive(Clone)]
#[must_use = "a node runs after `start`"]
pub struct Builder {
    config: Config,
    mailbox_bytes: u64,
    event_backlog: usize,
    distribution: Option<Distribution>,
    causal_labels: Vec<Arc<str>>,
}

fn plain(name: impl Into<Arc<str>>, parallelism: u16) -> ChannelSpec {
    ChannelSpec {
        name: name.into(),
        parallelism,
        monotonic: false,
        compression: 0,
    }
}

impl Builder {
    pub(crate) fn new(name: Arc<str>) -> Self {
        let mut config = Config::new(name);
        config.channels = vec![plain(DEFAULT_CHANNEL, 1), plain(MEMBERSHIP_CHANNEL, 1)];
        Self {
            config,
            mailbox_bytes: MAILBOX_BYTES,
            event_backlog: EVENT_BACKLOG,
            distribution: None,
            causal_labels: Vec::new(),
        }
    }

    /// The secret that the nodes of the cluster share. Default: the environment's
    /// `PARTISAN_COOKIE`, else the file `.erlang.cookie` in the home directory.
    pub fn cookie(mut self, cookie: impl Into<Vec<u8>>) -> Self {
        self.config.cookie = cookie.into();
        self
    }

    /// The secret for one peer.
    pub fn cookie_for(mut self, peer: impl Into<String>, cookie: impl Into<Vec<u8>>) -> Self {
        self.config.cookies.insert(peer.into(), cookie.into());
        self
    }

    /// Listens on this address; port 0 lets the system choose, and [`Node::spec`] tells the
    /// choice. May be called more than once. Default: none; the node then only dials.
    pub fn listen(mut self, addr: SocketAddr) -> Self {
        self.config.listen.push(addr);
        self
    }

    /// Has peers dial this address, instead of those listened on. May be called more than once.
    pub fn advertise(mut self, addr: SocketAddr) -> Self {
        self.config.advertise.push(addr);
        self
    }

    /// Takes part in Distributed Erlang: stock BEAM nodes can be dialled and can dial the addresses that this node
    /// listens on. Without any it listens on a free port of all IPv4 addresses, as Erlang does, unless it speaks TLS or
    /// [only dials](Distribution::dial_only). Default: no.
    pub fn distribution(mut self, distribution: Distribution) -> Self {
        self.distribution = Some(distribution);
        self
    }

    /// Connections of the default channel. Default: 1.
    pub fn parallelism(self, connections: u16) -> Self {
        self.channel(DEFAULT_CHANNEL, connections)
    }

    /// Adds a channel with this many connections. A session has the channels of both its ends,
    /// each with the larger number of connections.
    pub fn channel(self, name: impl Into<Arc<str>>, parallelism: u16) -> Self {
        self.channel_spec(plain(name, parallelism))
    }

    /// Adds a channel of which only the newest message of a sender to a receiver is kept while
    /// it waits.
    pub fn monotonic_channel(self, name: impl Into<Arc<str>>, parallelism: u16) -> Self {
        self.channel_spec(ChannelSpec {
            monotonic: true,
            ..plain(name, parallelism)
        })
    }

    /// Adds a channel, or replaces the one of the same name.
    pub fn channel_spec(mut self, spec: ChannelSpec) -> Self {
        self.config.channels.retain(|c| c.name != spec.name);
        self.config.channels.push(spec);
        self
    }

    /// Bytes that a mailbox holds, plus one message; then the connections that bring more are
    /// not read. Default: 16 MiB.
    pub fn mailbox_bytes(mut self, bytes: u64) -> Self {
        self.mailbox_bytes = bytes;
        self
    }

    /// Events that a reader of [`Node::events`] may be behind before it loses the oldest.
    /// Default: 1024.
    pub fn event_backlog(mut self, events: usize) -> Self {
        self.event_backlog = events;
        self
    }

    /// Bytes that wait on one connection, plus one message; then senders wait.
    /// Default: 16 MiB.
    pub fn queue_bytes(mut self, bytes: u64) -> Self {
        self.config.io.queue_bytes = bytes;
        self
    }

    /// Bytes that were sent [with acknowledgement](crate::SendOptions::ack) and are not acknowledged, of all nodes; one may have a
    /// quarter. Then senders wait. Default: 64 MiB.
    pub fn ack_bytes(mut self, bytes: usize) -> Self {
        self.config.delivery.acked.bytes = bytes;
        self
    }

    /// Pause before the first message that is not acknowledged is sent again over the same session; it doubles up to a
    /// minute. Sessions lose nothing, so it hardly matters. Default: 1 s.
    pub fn retransmit_interval(mut self, interval: Duration) -> Self {
        self.config.delivery.acked.retransmit = interval.max(Duration::from_millis(1));
        self
    }

    /// Adds a label of [causal messages](crate::SendOptions::causal) that this node may send. Messages of other nodes' labels are
    /// received all the same.
    pub fn causal_label(mut self, label: impl Into<Arc<str>>) -> Self {
        self.causal_labels.push(label.into());
        self
    }

    /// How long a causal message waits for one of a node without a session. Then that node is given up, and what comes of it
    /// too late is dropped. A node that is known to have restarted or left is not waited for. Default: 60 s.
    pub fn causal_patience(mut self, patience: Duration) -> Self {
        self.config.delivery.causal.patience = patience;
        self
    }

    /// Bytes that wait on all connections of the node, plus one message. Default: 1 GiB.
    pub fn node_queue_bytes(mut self, bytes: u64) -> Self {
        self.config.io.node_queue_bytes = bytes;
        self
    }

    /// Threads for connections with small messages. Default, and 0: one per core, at most 4.
    pub fn io_threads(mut self, threads: usize) -> Self {
        self.config.io.io_threads = threads;
        self
    }

    /// Threads for connections with large messages. Default, and 0: one per core, at most 4.
    pub fn bulk_threads(mut self, threads: usize) -> Self {
        self.config.io.bulk_threads = threads;
        self
    }

    /// A sender that finds a connection idle for this long writes its message itself, instead of
    /// waking another thread; `None`: never. Default: 20 µs.
    pub fn direct_write(mut self, gap: Option<Duration>) -> Self {
        self.config.io.direct_write = gap;
        self
    }

    /// The failure detector. Default: a ping after 20 s of silence, then every 10 s, and 5
    /// unanswered ones end the session.
    pub fn connection_ping(mut self, liveness: Liveness) -> Self {
        self.config.io.liveness = liveness;
        self
    }

    /// Largest encoded term, its large binaries not counted, in bytes, to send and to receive.
    /// Default: 64 MiB.
    pub fn max_term_bytes(mut self, bytes: usize) -> Self {
        self.config.io.limits.term.bytes = bytes;
        self
    }

    /// Largest heap that a received term may need on a BEAM node, in bytes. It bounds what its
    /// decoded value takes here. Default: 256 MiB.
    pub fn max_term_heap(mut self, bytes: u64) -> Self {
        self.config.io.limits.term.heap_bytes = bytes;
        self
    }

    /// Largest message, large binaries included, in bytes, to send and to receive.
    /// Default: 2 GiB.
    pub fn max_message_bytes(mut self, bytes: u64) -> Self {
        self.config.io.limits.message_bytes = bytes;
        self
    }

    /// Pause before a member that cannot be reached is dialled again, at first; it grows.
    /// Default: 1 s.
    pub fn connection_interval(mut self, interval: Duration) -> Self {
        self.config.connection_interval = interval;
        self
    }

    /// Greatest random addition to the pause between dials. Default: 1 s.
    pub fn connection_jitter(mut self, jitter: Duration) -> Self {
        self.config.connection_jitter = jitter;
        self
    }

    /// How often the membership is told to another member. Default: 10 s.
    pub fn periodic_interval(mut self, interval: Duration) -> Self {
        self.config.periodic_interval = interval;
        self
    }

    /// Who keeps links to whom, at first; the same on all nodes of a cluster. Default: [`OverlayConfig::FullMesh`].
    pub fn overlay(mut self, overlay: OverlayConfig) -> Self {
        self.config.overlay = overlay;
        self
    }

    /// An overlay that the cluster may switch to, where its defaults won't do; see
    /// [`Node::switch`](crate::Node::switch). A client of a client–server overlay is one that says so here.
    pub fn other_overlay(mut self, overlay: OverlayConfig) -> Self {
        self.config.other_overlays.push(overlay);
        self
    }

    /// How long the old overlay runs beside the new one when the cluster switches: long enough for all
    /// nodes to hear of it, and for the new one to form. Default: 20 s.
    pub fn switch_overlap(mut self, overlap: Duration) -> Self {
        self.config.switch_overlap = overlap;
        self
    }

    /// Directory that the membership is kept in, so that the node finds its cluster again after
    /// a restart. Default: none.
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.config.data_dir = Some(dir.into());
        self
    }

    /// On a partial overlay: how many nodes may pass a packet on to a node that can't be dialled. Default: 32.
    pub fn relay_ttl(mut self, nodes: u8) -> Self {
        self.config.relay_ttl = nodes;
        self
    }

    /// On a partial overlay: whether this node dials nodes that are no neighbours when something is sent to them. If
    /// not, they are reached over neighbours only. Default: true.
    pub fn relay_direct(mut self, direct: bool) -> Self {
        self.config.relay_direct = direct;
        self
    }

    /// On a partial overlay: how long a node may take to be reached. Default: 10 s.
    pub fn reach_patience(mut self, patience: Duration) -> Self {
        self.config.reach_patience = patience;
        self
    }

    /// On a partial overlay: how long a session with a node that is no neighbour is kept while nothing is sent
    /// either way. Default: 60 s.
    pub fn reach_idle(mut self, idle: Duration) -> Self {
        self.config.reach_idle = idle;
        self
    }

    /// Starts the node. Blocks for the moment that it takes to open the listening sockets.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running.
    pub fn start(self) -> Result<Node, StartError> {
        let Self {
            mut config,
            mailbox_bytes,
            event_backlog,
            distribution,
            causal_labels,
        } = self;
        if config.cookie.is_empty() {
            config.cookie = default_cookie().ok_or(StartError::NoCookie)?;
        }
        let gate = distribution.as_ref().map(|_| stock::gate());
        if let (Some(distribution), Some(gate)) = (&distribution, &gate) {
            config.stock = Some(gate.desk());
            // Who asks for TLS gets no door in the clear unasked.
            let unasked = distribution.listen && distribution.tls.is_none();
            if config.listen.is_empty() && unasked {
                config.listen.push(([0, 0, 0, 0], 0).into());
            }
        }
        // Erlang's VMs draw theirs alike; the first few numbers mean something to old releases.
        let creation = rand::rng().random_range(4..=u32::MAX);
        let mut identity = Identity::new(config.name.clone(), creation);
        let (mut threads, mut first) = (None, None);
        if let Some(distribution) = &distribution {
            let threads = threads.insert(stock::threads(distribution)?);
            let unnamed = config.local(identity.clone(), None);
            if let Some((given, link)) = stock::named(threads, distribution, unnamed)? {
                config.name = given.node.clone();
                identity = given;
                first = Some(link);
            }
        }
        let registry = Arc::new(Registry::new(identity.clone(), mailbox_bytes));
        let host = Arc::new(RustHost {
            registry: registry.clone(),
        });
        let view = Arc::new(View::new(event_backlog));
        let limits = config.io.limits.clone();
        let queue_bytes = config.io.queue_bytes;
        let runtime = Runtime::start(host, identity, config, Box::new(Telling(view.clone())))?;
        let local = runtime.local().clone();
        let distributed = distribution.as_ref();
        let inner = Inner::new(runtime, registry, view, limits, causal_labels, distributed);
        let inner = Arc::new(inner);
        if let (Some(config), Some(gate), Some(threads)) = (distribution, gate, threads) {
            let setup = stock::Setup {
                config,
                threads,
                gate,
                local,
                queue_bytes,
                first,
            };
            inner.set_stock(stock::start(&inner, setup)?);
        }
        Ok(Node::of(&inner))
    }
}

fn default_cookie() -> Option<Vec<u8>> {
    let given = std::env::var("PARTISAN_COOKIE")
        .ok()
        .filter(|c| !c.is_empty());
    let cookie = match given {
        Some(cookie) => cookie,
        None => {
            let home = std::env::var_os("HOME")?;
            std::fs::read_to_string(PathBuf::from(home).join(".erlang.cookie")).ok()?
        }
    };
    let cookie = cookie.trim_end();
    (!cookie.is_empty()).then(|| cookie.into())
}
