//! Which overlay a node runs.

use std::fmt;
use std::sync::Arc;

use crate::node::runtime::Config;
use crate::overlay::client_server::{self, ClientServer};
use crate::overlay::hyparview::{self, HyParView};
use crate::overlay::membership::Membership;
use crate::overlay::scamp::{self, Scamp};
use crate::overlay::static_topology::Static;
use crate::overlay::steered::Steered;
use crate::overlay::switch::{self, Choice, Opaque, Switch};
use crate::overlay::{Contact, Overlay, full_mesh};

/// Makes the overlay of a node, which is given.
type Make = dyn Fn(Contact) -> Box<dyn Opaque<Contact>> + Send + Sync;

/// The overlay of a node: who keeps links to whom. All nodes of a cluster have the same, and can change to another
/// together: see [`Node::switch`](crate::Node::switch).
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
    /// Links with exactly those nodes that a policy lists, which runs elsewhere and has this name; see
    /// [`steered`](crate::overlay::steered). Nodes whose policies have different names refuse each other.
    Steered(&'static str),
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
        Self::Custom(name, Arc::new(move |own| Box::new(make(own))))
    }

    /// The name by which nodes tell overlays apart.
    pub fn name(&self) -> &'static str {
        match self {
            Self::FullMesh => "full_mesh",
            Self::HyParView(_) => "hyparview",
            Self::Scamp(_) => "scamp",
            Self::ClientServer(_) => "client_server",
            Self::Static => "static",
            Self::Steered(name) | Self::Custom(name, _) => name,
        }
    }

    /// Whether every node has links to all others; else some are reached by links that are made on demand, or over
    /// other nodes.
    pub fn is_whole(&self) -> bool {
        matches!(self, Self::FullMesh)
    }

    /// Whether others can join by this node; a client is of no help to another.
    fn is_entry(&self) -> bool {
        !matches!(self, Self::ClientServer(config) if config.tag == client_server::Tag::Client)
    }

    fn choice(&self, mesh: &full_mesh::Config) -> Choice<Contact> {
        let make: Box<Make> = match self.clone() {
            Self::FullMesh => {
                let mesh = mesh.clone();
                Box::new(move |own| Box::new(full_mesh::State::new(mesh.clone(), own)))
            }
            Self::HyParView(config) => {
                Box::new(move |own| Box::new(HyParView::new(config.clone(), own)))
            }
            Self::Scamp(config) => Box::new(move |own| Box::new(Scamp::new(config.clone(), own))),
            Self::ClientServer(config) => {
                Box::new(move |own| Box::new(ClientServer::new(config.clone(), own)))
            }
            Self::Static => Box::new(|own| Box::new(Static::new(own))),
            Self::Steered(_) => Box::new(|own| Box::new(Steered::new(own))),
            Self::Custom(_, make) => Box::new(move |own| make(own)),
        };
        Choice {
            name: self.name(),
            is_whole: self.is_whole(),
            is_entry: self.is_entry(),
            make,
        }
    }
}

/// The overlays that a node can run: the configured ones, and the others with their defaults.
pub(crate) fn membership(config: &Config, own: Contact) -> Membership {
    let mesh = full_mesh::Config {
        fanout: config.fanout,
        periodic_interval: config.periodic_interval,
        ..full_mesh::Config::default()
    };
    let with_defaults = [
        OverlayConfig::FullMesh,
        OverlayConfig::HyParView(hyparview::Config::default()),
        OverlayConfig::Scamp(scamp::Config::default()),
        OverlayConfig::ClientServer(client_server::Config::default()),
        OverlayConfig::Static,
    ];
    let mut others: Vec<Choice<Contact>> = Vec::new();
    for other in config.other_overlays.iter().chain(&with_defaults) {
        let name = other.name();
        if name != config.overlay.name() && others.iter().all(|c| c.name != name) {
            others.push(other.choice(&mesh));
        }
    }
    let switching = switch::Config {
        overlap: config.switch_overlap,
    };
    let first = config.overlay.choice(&mesh);
    let switch = Switch::new(switching, own.clone(), first, others);
    Membership::new(own, switch)
}
