//! Which protocols a scenario names, and how their state machines are made.

use std::time::Duration;

use serde::Deserialize;

use super::peer::{PEER_BYTES, SimPeer};
use super::scenario::{Scenario, ScenarioError};
use super::simple::Trees;
use super::topologies::{ClientServers, Statics};
use super::workload::{self, Dump, SeedResult};
use super::world::Protocols;
use crate::broadcast::{Broadcast, Flood, Plumtree, plumtree};
use crate::limits::{MAX_IN_VIEW, MAX_PARTIAL_VIEW};
use crate::overlay::Overlay;
use crate::overlay::hyparview::{self, HyParView};
use crate::overlay::scamp::{self, Scamp};

/// Makes overlays.
pub(crate) trait Overlays: Clone + Send + Sync {
    type Overlay: Overlay<Peer = SimPeer> + Clone;

    fn make(&self, node: SimPeer, now: Duration, life: u64) -> Self::Overlay;

    fn max_neighbors(&self) -> usize {
        usize::MAX
    }

    fn degree(&self) -> usize;

    fn is_partial(&self) -> bool {
        true
    }

    fn view_names(&self, _overlay: &Self::Overlay) -> Option<usize> {
        None
    }

    fn table_bytes(&self, overlay: &Self::Overlay) -> usize;
}

/// Makes broadcasts.
pub(crate) trait Broadcasts: Clone + Send + Sync {
    type Broadcast: Broadcast<Peer = SimPeer> + Clone;

    fn make(&self, node: SimPeer, now: Duration, life: u64) -> Self::Broadcast;

    fn table_bytes(&self, broadcast: &Self::Broadcast) -> usize;
}

/// One of each.
#[derive(Clone, Debug)]
pub(crate) struct Pair<A, B> {
    pub(crate) overlays: A,
    pub(crate) broadcasts: B,
    /// Bytes that a node's tables may take.
    pub(crate) max_table_bytes: usize,
}

impl<A: Overlays, B: Broadcasts> Protocols for Pair<A, B> {
    type Overlay = A::Overlay;
    type Broadcast = B::Broadcast;

    fn overlay(&self, node: SimPeer, now: Duration, life: u64) -> A::Overlay {
        self.overlays.make(node, now, life)
    }

    fn broadcast(&self, node: SimPeer, now: Duration, life: u64) -> B::Broadcast {
        self.broadcasts.make(node, now, life)
    }

    fn max_neighbors(&self) -> usize {
        self.overlays.max_neighbors()
    }

    fn degree(&self) -> usize {
        self.overlays.degree()
    }

    fn is_partial(&self) -> bool {
        self.overlays.is_partial()
    }

    fn view_names(&self, overlay: &A::Overlay) -> Option<usize> {
        self.overlays.view_names(overlay)
    }

    fn table_bytes(&self, overlay: &A::Overlay, broadcast: &B::Broadcast) -> usize {
        self.overlays.table_bytes(overlay) + self.broadcasts.table_bytes(broadcast)
    }

    fn max_table_bytes(&self) -> usize {
        self.max_table_bytes
    }
}

/// The table `[overlay]`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(tag = "protocol", rename_all = "kebab-case", deny_unknown_fields)]
enum OverlayConfig {
    Tree {},
    Static {},
    ClientServer {
        /// The first so many nodes are servers.
        servers: u32,
        links: Option<usize>,
        patience_ms: Option<f64>,
        max_clients: Option<usize>,
    },
    Hyparview {
        active: Option<usize>,
        passive: Option<usize>,
        active_walk: Option<u8>,
        passive_walk: Option<u8>,
        active_shuffled: Option<usize>,
        passive_shuffled: Option<usize>,
        shuffle_seconds: Option<f64>,
        request_timeout_ms: Option<f64>,
        patience_ms: Option<f64>,
        settle_ms: Option<f64>,
        history: Option<usize>,
        /// 0: nothing is persisted.
        persist_seconds: Option<f64>,
        /// With this table, if only an empty one, neighbours are chosen by X-BOT.
        xbot: Option<XBotTable>,
    },
    Scamp {
        copies: Option<usize>,
        look_seconds: Option<f64>,
        request_timeout_ms: Option<f64>,
    },
}

/// The table `xbot` in `[overlay]`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct XBotTable {
    unbiased: Option<usize>,
    candidates: Option<usize>,
    seconds: Option<f64>,
}

/// The table `[broadcast]`. What it doesn't say is as the protocol's own defaults have it.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(tag = "protocol", rename_all = "kebab-case", deny_unknown_fields)]
enum BroadcastConfig {
    Flood {},
    Plumtree {
        announce_delay_ms: Option<f64>,
        graft_after_ms: Option<f64>,
        graft_next_ms: Option<f64>,
        optimise_hops: Option<u16>,
        optimise_lag_ms: Option<f64>,
        common_tree: Option<bool>,
        max_trees: Option<usize>,
        cache_entries: Option<usize>,
        cache_seconds: Option<f64>,
    },
}

/// Makes [`HyParView`]s.
#[derive(Clone, Debug, Default)]
pub(crate) struct HyParViews(pub(crate) hyparview::Config);

impl Overlays for HyParViews {
    type Overlay = HyParView<SimPeer>;

    fn make(&self, node: SimPeer, _now: Duration, _life: u64) -> HyParView<SimPeer> {
        HyParView::new(self.0.clone(), node)
    }

    fn max_neighbors(&self) -> usize {
        self.0.active
    }

    fn degree(&self) -> usize {
        self.0.active
    }

    fn table_bytes(&self, overlay: &HyParView<SimPeer>) -> usize {
        let names = overlay.active().len() + overlay.passive().len() + overlay.history().count();
        names * PEER_BYTES
    }
}

/// Makes [`Scamp`]s.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scamps(pub(crate) scamp::Config);

impl Overlays for Scamps {
    type Overlay = Scamp<SimPeer>;

    fn make(&self, node: SimPeer, _now: Duration, _life: u64) -> Scamp<SimPeer> {
        Scamp::new(self.0.clone(), node)
    }

    fn max_neighbors(&self) -> usize {
        MAX_PARTIAL_VIEW + MAX_IN_VIEW
    }

    fn degree(&self) -> usize {
        self.0.copies + 1
    }

    fn view_names(&self, overlay: &Scamp<SimPeer>) -> Option<usize> {
        Some(overlay.partial_view().count())
    }

    fn table_bytes(&self, overlay: &Scamp<SimPeer>) -> usize {
        (overlay.partial_view().count() + overlay.in_view().count()) * PEER_BYTES
    }
}

/// Makes [`Flood`]s.
#[derive(Clone, Debug)]
pub(crate) struct Floods;

impl Broadcasts for Floods {
    type Broadcast = Flood<SimPeer>;

    fn make(&self, node: SimPeer, _now: Duration, life: u64) -> Flood<SimPeer> {
        Flood::new(node, life)
    }

    fn table_bytes(&self, broadcast: &Flood<SimPeer>) -> usize {
        broadcast.table_bytes()
    }
}

/// Makes [`Plumtree`]s.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plumtrees(pub(crate) plumtree::Config);

impl Broadcasts for Plumtrees {
    type Broadcast = Plumtree<SimPeer>;

    fn make(&self, node: SimPeer, _now: Duration, life: u64) -> Plumtree<SimPeer> {
        Plumtree::new(self.0.clone(), node, life)
    }

    fn table_bytes(&self, broadcast: &Plumtree<SimPeer>) -> usize {
        broadcast.table_bytes()
    }
}

/// The protocols that a scenario's tables name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chosen {
    overlay: OverlayConfig,
    broadcast: BroadcastConfig,
}

impl Chosen {
    /// Reads them.
    pub(crate) fn new(overlay: toml::Table, broadcast: toml::Table) -> Result<Self, ScenarioError> {
        let bad = |what: &str, error: toml::de::Error| {
            ScenarioError::Bad(format!("[{what}]: {}", error.message()))
        };
        Ok(Self {
            overlay: overlay.try_into().map_err(|error| bad("overlay", error))?,
            broadcast: broadcast
                .try_into()
                .map_err(|error| bad("broadcast", error))?,
        })
    }

    /// Runs a scenario with them.
    pub(crate) fn run(self, scenario: &Scenario, seed: u64, dump: Dump<'_>) -> SeedResult {
        match self.overlay {
            OverlayConfig::Tree {} => self.with(Trees, scenario, seed, dump),
            OverlayConfig::Static {} => self.with(Statics, scenario, seed, dump),
            OverlayConfig::ClientServer { .. } => {
                self.with(self.overlay.client_server(), scenario, seed, dump)
            }
            OverlayConfig::Hyparview { .. } => {
                let overlays = HyParViews(self.overlay.hyparview());
                self.with(overlays, scenario, seed, dump)
            }
            OverlayConfig::Scamp { .. } => {
                let overlays = Scamps(self.overlay.scamp());
                self.with(overlays, scenario, seed, dump)
            }
        }
    }

    fn with<A: Overlays>(
        self,
        overlays: A,
        scenario: &Scenario,
        seed: u64,
        dump: Dump<'_>,
    ) -> SeedResult {
        match self.broadcast {
            BroadcastConfig::Flood {} => run(overlays, Floods, scenario, seed, dump),
            BroadcastConfig::Plumtree { .. } => {
                let broadcasts = Plumtrees(self.broadcast.plumtree());
                run(overlays, broadcasts, scenario, seed, dump)
            }
        }
    }
}

/// Replaces a default by what the scenario says.
fn set<T, U>(value: &mut T, given: Option<U>, as_it: impl Fn(U) -> T) {
    if let Some(given) = given {
        *value = as_it(given);
    }
}

fn ms(value: f64) -> Duration {
    seconds(value / 1e3)
}

fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or_default()
}

impl OverlayConfig {
    fn client_server(self) -> ClientServers {
        let mut overlays = ClientServers::default();
        if let Self::ClientServer {
            servers,
            links,
            patience_ms,
            max_clients,
        } = self
        {
            overlays.servers = servers;
            let config = &mut overlays.config;
            set(&mut config.links, links, |links| links);
            set(&mut config.patience, patience_ms, ms);
            set(&mut config.max_clients, max_clients, |clients| clients);
        }
        overlays
    }

    fn hyparview(self) -> hyparview::Config {
        let mut config = hyparview::Config::default();
        if let Self::Hyparview {
            active,
            passive,
            active_walk,
            passive_walk,
            active_shuffled,
            passive_shuffled,
            shuffle_seconds,
            request_timeout_ms,
            patience_ms,
            settle_ms,
            history,
            persist_seconds,
            xbot,
        } = self
        {
            set(&mut config.active, active, |active| active);
            set(&mut config.passive, passive, |passive| passive);
            set(&mut config.active_walk, active_walk, |steps| steps);
            set(&mut config.passive_walk, passive_walk, |steps| steps);
            set(&mut config.active_shuffled, active_shuffled, |n| n);
            set(&mut config.passive_shuffled, passive_shuffled, |n| n);
            set(&mut config.shuffle_interval, shuffle_seconds, seconds);
            set(&mut config.request_timeout, request_timeout_ms, ms);
            set(&mut config.patience, patience_ms, ms);
            set(&mut config.settle, settle_ms, ms);
            set(&mut config.history, history, |history| history);
            set(&mut config.persist_interval, persist_seconds, |interval| {
                (interval > 0.0).then(|| seconds(interval))
            });
            config.xbot = xbot.map(|table| {
                let mut xbot = hyparview::XBotConfig::default();
                set(&mut xbot.unbiased, table.unbiased, |n| n);
                set(&mut xbot.candidates, table.candidates, |n| n);
                set(&mut xbot.interval, table.seconds, seconds);
                xbot
            });
        }
        config
    }
}

impl OverlayConfig {
    fn scamp(self) -> scamp::Config {
        let mut config = scamp::Config::default();
        if let Self::Scamp {
            copies,
            look_seconds,
            request_timeout_ms,
        } = self
        {
            set(&mut config.copies, copies, |copies| copies);
            set(&mut config.interval, look_seconds, seconds);
            set(&mut config.request_timeout, request_timeout_ms, ms);
        }
        config
    }
}

impl BroadcastConfig {
    fn plumtree(self) -> plumtree::Config {
        let mut config = plumtree::Config::default();
        if let Self::Plumtree {
            announce_delay_ms,
            graft_after_ms,
            graft_next_ms,
            optimise_hops,
            optimise_lag_ms,
            common_tree,
            max_trees,
            cache_entries,
            cache_seconds,
        } = self
        {
            set(&mut config.announce_delay, announce_delay_ms, ms);
            set(&mut config.graft_after, graft_after_ms, ms);
            set(&mut config.graft_next, graft_next_ms, ms);
            set(&mut config.optimise_hops, optimise_hops, |hops| hops);
            set(&mut config.optimise_lag, optimise_lag_ms, ms);
            set(&mut config.common_tree, common_tree, |common| common);
            set(&mut config.max_trees, max_trees, |trees| trees);
            set(&mut config.cache_entries, cache_entries, |entries| entries);
            set(&mut config.cache_time, cache_seconds, seconds);
        }
        config
    }
}

fn run<A: Overlays, B: Broadcasts>(
    overlays: A,
    broadcasts: B,
    scenario: &Scenario,
    seed: u64,
    dump: Dump<'_>,
) -> SeedResult {
    let pair = Pair {
        overlays,
        broadcasts,
        max_table_bytes: scenario.max_table_bytes,
    };
    workload::run(scenario, pair, seed, dump)
}
