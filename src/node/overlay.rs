//! Which overlay a node runs.

use std::fmt;
use std::sync::Arc;

use crate::node::runtime::Config;
use crate::overlay::client_server::{self, ClientServer};
use crate::overlay::hyparview::{self, HyParView};
use crate::overlay::membership::{Framed, Membership};
use crate::overlay::scamp::{self, Scamp};
use crate::overlay::static_topology::Static;
use crate::overlay::{Contact, Overlay, full_mesh};

/// Makes the overlay of a node, which is given.
type Make = dyn Fn(Contact) -> Box<dyn Membership> + Send + Sync;

/// The overlay of a node: who keeps links to whom. All nodes of a cluster have the same.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum OverlayConfig {
    /// Every node has a link to every other. The default.
    #[default]
    FullMesh,
    /// Every node has links to a few others, which change, and hears of all; see [`hyparview`].
    HyParView(hyparview::Config),
    /// Every node has links to a number of others that grows with the logarithm of the cluster; see [`scamp`].
    Scamp(scamp::Config),
    /// Servers, all linked with each other, and clients, each linked with one of them; see [`client_server`].
    ClientServer(client_server::Config),
    /// Links with exactly those nodes that one end has joined; see
    /// [`static_topology`](crate::overlay::static_topology).
    Static,
    /// One of the user's own; see [`OverlayConfig::custom`].
    #[doc(hidden)]
    Custom(&'static str, Arc<Make>),
}

impl fmt::Debug for OverlayConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl OverlayConfig {
    /// An overlay of your own: `make` is called with the own node, once it listens. Nodes whose overlays have
    /// different names refuse each other.
    ///
    /// `name` has at most 65,535 bytes.
    pub fn custom<O, F>(name: &'static str, make: F) -> Self
    where
        O: Overlay<Peer = Contact> + 'static,
        F: Fn(Contact) -> O + Send + Sync + 'static,
    {
        let framed = move |own: Contact| -> Box<dyn Membership> {
            Box::new(Framed::new(name, own.clone(), make(own)))
        };
        Self::Custom(name, Arc::new(framed))
    }

    /// The name by which nodes tell overlays apart.
    pub fn name(&self) -> &'static str {
        match self {
            Self::FullMesh => "full_mesh",
            Self::HyParView(_) => "hyparview",
            Self::Scamp(_) => "scamp",
            Self::ClientServer(_) => "client_server",
            Self::Static => "static",
            Self::Custom(name, _) => name,
        }
    }

    /// Whether every node has links to all others; else some are reached by links that are made on demand, or over
    /// other nodes.
    pub fn is_whole(&self) -> bool {
        matches!(self, Self::FullMesh)
    }

    pub(crate) fn build(&self, config: &Config, own: Contact) -> Box<dyn Membership> {
        match self {
            Self::FullMesh => {
                let mesh = full_mesh::Config {
                    fanout: config.fanout,
                    periodic_interval: config.periodic_interval,
                    ..full_mesh::Config::default()
                };
                let overlay = full_mesh::State::new(mesh, own.clone());
                Box::new(Framed::new(self.name(), own, overlay))
            }
            Self::HyParView(config) => {
                let overlay = HyParView::new(config.clone(), own.clone());
                Box::new(Framed::new(self.name(), own, overlay))
            }
            Self::Scamp(config) => {
                let overlay = Scamp::new(config.clone(), own.clone());
                Box::new(Framed::new(self.name(), own, overlay))
            }
            Self::ClientServer(config) => {
                let overlay = ClientServer::new(config.clone(), own.clone());
                Box::new(Framed::new(self.name(), own, overlay))
            }
            Self::Static => {
                let overlay = Static::new(own.clone());
                Box::new(Framed::new(self.name(), own, overlay))
            }
            Self::Custom(_, make) => make(own),
        }
    }
}
