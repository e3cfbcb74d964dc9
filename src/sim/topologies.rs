//! Client–server and static overlays of simulated nodes.

use std::time::Duration;

use super::peer::{PEER_BYTES, SimPeer};
use super::protocols::Overlays;
use crate::overlay::client_server::{ClientServer, Config, Tag};
use crate::overlay::static_topology::Static;

/// Makes [`ClientServer`]s: the first `servers` nodes are servers, all others clients.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientServers {
    pub(crate) servers: u32,
    pub(crate) config: Config,
}

impl Overlays for ClientServers {
    type Overlay = ClientServer<SimPeer>;

    fn make(&self, node: SimPeer, _now: Duration, _life: u64) -> Self::Overlay {
        let tag = match node.0 < self.servers {
            true => Tag::Server,
            false => Tag::Client,
        };
        let config = self.config.clone();
        ClientServer::new(Config { tag, ..config }, node)
    }

    fn degree(&self) -> usize {
        self.config.links
    }

    fn table_bytes(&self, overlay: &Self::Overlay) -> usize {
        (overlay.servers().count() + overlay.neighbors().count()) * PEER_BYTES
    }
}

/// Makes [`Static`]s.
#[derive(Clone, Debug)]
pub(crate) struct Statics;

impl Overlays for Statics {
    type Overlay = Static<SimPeer>;

    fn make(&self, node: SimPeer, _now: Duration, _life: u64) -> Self::Overlay {
        Static::new(node)
    }

    fn degree(&self) -> usize {
        1
    }

    fn table_bytes(&self, overlay: &Self::Overlay) -> usize {
        overlay.named().count() * PEER_BYTES
    }
}
