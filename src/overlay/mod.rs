//! Overlays: who keeps links to whom. Pure state machines that the runtime, a simulator and the
//! tests drive alike.
//!
//! An overlay decides the set of nodes to keep links to and the set of members; how a link is
//! made and kept is the concern of the layers above and below. [`contract`] is what they agree on.

use std::net::SocketAddr;
use std::sync::Arc;

pub mod client_server;
pub mod codec;
pub mod contact;
pub mod contract;
pub mod full_mesh;
pub mod hyparview;
pub mod membership;
pub mod scamp;
pub mod static_topology;
pub mod steered;
pub mod switch;

pub use contact::{Contact, MAX_ADDRS};
pub use contract::{Down, Effect, Effects, Error, Event, Overlay, Peer, Wire};

/// What a member says about itself: its name, where it listens, and its channels.
///
/// The order of the addresses is the order in which they are tried.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeSpec {
    /// Node name, `name@host`.
    pub name: Arc<str>,
    /// Addresses at which the node accepts connections.
    pub listen_addrs: Vec<SocketAddr>,
    /// Channels that the node is configured with.
    pub channels: Vec<MemberChannel>,
}

/// A channel as a member announces it. Sessions agree on their channels themselves; this is
/// what `node_spec` shows to the user.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberChannel {
    /// Name of the channel.
    pub name: Arc<str>,
    /// Number of connections.
    pub parallelism: u16,
    /// Whether only the newest message of a key is kept while waiting.
    pub monotonic: bool,
    /// Compression level, 0 to 9.
    pub compression: u8,
}
