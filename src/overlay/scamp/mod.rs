//! SCAMP: views that grow with the logarithm of the cluster, though nobody knows its size.
//!
//! After Ganesh, Kermarrec and Massoulié, "Peer-to-Peer Membership Management for Gossip-Based Protocols" (IEEE
//! Transactions on Computers 52(2), 2003), the protocol without indirection and leases, which its authors published
//! first (NGC 2001).
//!
//! Each node has a *partial view*, the nodes that it tells what it hears, and an *in-view*, the nodes that have
//! it in their partial view.
//!
//! * **Subscription.** A new node has its contact as its partial view. The contact sends a copy of the
//!   subscription to each node of its own partial view, and `copies` more to random ones of them. Whoever
//!   gets a copy keeps the new node in its view with probability `1 / (1 + size of the view)`, or else sends the copy on to
//!   a random node of its view. So small views grow sooner than large ones, and with `n` nodes the
//!   mean size is about `(copies + 1) · ln n`: a new node adds as many places as its contact's view has,
//!   and `copies + 1` more.
//! * **Unsubscription.** A node that leaves names the nodes of its partial view, one to each node of its in-view, to
//!   take its place there; `copies + 1` of these just forget it. So the mean size shrinks as it has grown.
//! * **Isolation.** A node that nobody has in view subscribes again, through a node of its own view.
//!
//! # On links
//!
//! Whoever has another node in its partial view keeps a link to it, and says so when the link is up; the other
//! node notes it in its in-view. Links go both ways, so neighbours are the nodes of both views. The paper's
//! heartbeats, by which a node sees whether it is isolated, are not needed: hosts watch links. A node whose link has
//! failed is dialled once more, since it may live; if that fails it leaves the views.
//!
//! # Bounds
//!
//! A copy passes at most [`MAX_SUBSCRIPTION_STEPS`](crate::limits::MAX_SUBSCRIPTION_STEPS) nodes; where it can't go on it is kept, if there is room.
//! Views, dials at once, subscriptions and messages in a second are limited, and copies come from neighbours only.
//! Names that come by hearsay are dialled before they are neighbours.
//!
//! # What it is good for
//!
//! Broadcasts by flooding reach everybody through most crashes, since views are large. HyParView does as well with far fewer
//! links: this is here to be compared with, and for clusters that want their view sizes to follow
//! the number of nodes. A contact through which many join is in the view of all of them; let them join
//! through several.

use std::time::Duration;

use crate::limits::MAX_SUBSCRIPTION_COPIES;

mod message;
mod state;
mod subscription;
#[cfg(test)]
mod tests;

pub use message::Message;
pub use state::Scamp;

/// What a user may set. Values beyond the limits of this crate are cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Copies of a subscription beyond one for each node in the contact's view: the paper's `c`. With four, as in
    /// its comparisons, broadcasts reach everybody after a crash of half of the nodes.
    pub copies: usize,
    /// How often a node looks whether it is isolated.
    pub interval: Duration,
    /// Time for a link to be made, or a subscription answered.
    pub request_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            copies: 4,
            interval: Duration::from_secs(10),
            request_timeout: Duration::from_secs(5),
        }
    }
}

impl Config {
    fn checked(mut self) -> Self {
        self.copies = self.copies.min(MAX_SUBSCRIPTION_COPIES);
        self.interval = self.interval.max(Duration::from_millis(10));
        self.request_timeout = self.request_timeout.max(Duration::from_millis(10));
        self
    }
}
