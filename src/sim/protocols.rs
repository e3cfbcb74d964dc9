//! Which protocols a scenario names, and how their state machines are made.

use std::time::Duration;

use serde::Deserialize;

use super::figures::Figures;
use super::graph::Graph;
use super::peer::SimPeer;
use super::scenario::{Phase, Scenario, ScenarioError};
use super::simple::{Rumors, Trees};
use super::workload::{self, SeedResult};
use super::world::Protocols;
use crate::broadcast::Broadcast;
use crate::overlay::Overlay;

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

    fn table_bytes(&self, overlay: &A::Overlay, broadcast: &B::Broadcast) -> usize {
        self.overlays.table_bytes(overlay) + self.broadcasts.table_bytes(broadcast)
    }

    fn max_table_bytes(&self) -> usize {
        self.max_table_bytes
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(tag = "protocol", rename_all = "kebab-case", deny_unknown_fields)]
enum OverlayConfig {
    Tree {},
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(tag = "protocol", rename_all = "kebab-case", deny_unknown_fields)]
enum BroadcastConfig {
    Rumor {},
}

/// What gets the graphs that are measured.
pub(crate) type Dump<'a> = &'a mut dyn FnMut(&Phase, &Graph, &[u32], &Figures);

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
            ScenarioError::Bad(format!("{what}: {}", error.message()))
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
            BroadcastConfig::Rumor {} => run(overlays, Rumors, scenario, seed, dump),
        }
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
        max_table_bytes: usize::MAX,
    };
    workload::run(scenario, pair, seed, dump)
}
