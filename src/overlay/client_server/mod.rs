//! Client–server: servers form a full mesh, and each client keeps a link to one of them.
//!
//! The topology of Partisan for applications in the cloud with many light clients (Meiklejohn, Miller and Alvaro,
//! "Partisan: Scaling the Distributed Actor Runtime", USENIX ATC 2019). Each node has a [`Tag`]:
//!
//! | | server | client | undefined |
//! |---|---|---|---|
//! | **server** | link | link | refused |
//! | **client** | link | none; told of servers | refused |
//! | **undefined** | refused | refused | link |
//!
//! Without tags all nodes are servers of each other.
//!
//! # Servers
//!
//! Whoever joins a server is told all servers that it knows, and links with each; so do those who
//! hear of it. A server tells its list to all neighbours whenever the list has changed, over each fresh link, and now
//! and then to one at random, for what was lost. A server that fails stays in the list and is dialled again.
//!
//! # Clients
//!
//! A client knows the servers that its own server has told it. When its link breaks, it dials another of them at random,
//! and a further one if that takes longer than [`Config::patience`]; the first that answers is kept. So the
//! clients of a failed server spread over all others. Servers that could not be reached rest for a while, longer each
//! time. Clients have no links among each other: one that joins through a client is told of servers by it.
//! A server with as many clients as it may have sends others away.
//!
//! # Leaving
//!
//! A node that leaves says so to its neighbours, and answers whoever comes with the old list. Servers
//! pass on that one has left, or was removed, and don't take it back by hearsay for a minute; it comes back if it
//! says that it joins. A node which was removed and hears of it is alone.
//!
//! # Whom to believe
//!
//! Lists come from servers, and from a client only if the user joins through it. A server that comes unasked is taken
//! in if it knows one that we know: a node that has left its cluster for another one must not join the two
//! when somebody who has missed it calls. Whoever knows no other server believes any: it may have forgotten its cluster
//! in a crash.
//!
//! # Limits
//!
//! A removed server that was away for longer than a minute comes back with its old list. Remove it once more.
//!
//! A client that joins through a client asks it again and again, while that one knows no server itself. Clients that
//! only know each other stay alone.

use std::time::Duration;

use crate::limits::MAX_CLIENTS;

mod client;
mod message;
mod state;
#[cfg(test)]
mod tests;

pub use message::Message;
pub use state::ClientServer;

/// What a node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Tag {
    /// All nodes of the cluster are alike.
    #[default]
    Undefined,
    /// It has links to all servers, and to clients.
    Server,
    /// It has links to servers only.
    Client,
}

impl Tag {
    /// Whether it has links to all of its kind.
    fn serves(self) -> bool {
        self != Self::Client
    }
}

/// What a user may set.
#[derive(Clone, Debug)]
pub struct Config {
    /// What this node is.
    pub tag: Tag,
    /// Servers to which a client keeps links.
    pub links: usize,
    /// Time after which a client dials another server beside one that doesn't answer.
    pub patience: Duration,
    /// How long a client lets a server rest that could not be reached; it doubles each time, up to 30 s, and is
    /// drawn between half and one and a half of that.
    pub rest: Duration,
    /// Clients that a server takes.
    pub max_clients: usize,
    /// How often a server tells its list to a random neighbour.
    pub interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tag: Tag::default(),
            links: 1,
            patience: Duration::from_secs(1),
            rest: Duration::from_millis(500),
            max_clients: MAX_CLIENTS,
            interval: Duration::from_secs(10),
        }
    }
}
