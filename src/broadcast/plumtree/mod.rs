//! Plumtree: broadcast along a tree, with announcements over all other links that mend it.
//!
//! João Leitão, José Pereira and Luís Rodrigues, "Epidemic Broadcast Trees", SRDS 2007.
//!
//! # The idea
//!
//! Each node divides its neighbours into *eager* ones, to which it sends payloads, and *lazy* ones,
//! to which it announces that it has them. At first all are eager, so the first broadcast floods the
//! overlay. A node that gets a payload a second time says PRUNE to the second sender, and both take
//! the link to be lazy from then on. What is left when the first broadcast has come everywhere is a
//! tree of the fastest paths, and the next one passes each node once.
//!
//! When the tree breaks, a node hears of broadcasts by announcement (the paper's IHAVE) that it
//! does not get. It waits for a while, then says GRAFT to the first announcer, which sends the
//! payload and takes the link to be eager; if that does not help, it asks the next one after a
//! shorter while. If an announcement was better than the payload that came, by a threshold, the
//! node moves to the announcer.
//!
//! # What is different from the paper
//!
//! * A tree for each root (for 1,024 of them; then, or if configured so, one common tree: the root
//!   decides and its messages say so). Each is the tree of the fastest paths from that root.
//! * A node knows from which neighbour it expects the broadcasts of a root. If there is none, or
//!   the link is not eager or gone, announcements of this root are answered by GRAFT at once: the
//!   timer is for what can't be known.
//! * Of each tree a node remembers a neighbour that had the newest broadcast too. When the one goes from which they
//!   are expected, it says GRAFT to the other at once, before a broadcast is missing: most are not late then.
//! * So a new neighbour begins lazy in trees that exist already (eager in that of the own node and
//!   in those begun later). It can do no harm to them, and whoever needs the link grafts it on the
//!   first announcement. With eager beginnings every change of the overlay costs two needless payloads
//!   in each tree.
//! * A duplicate from the neighbour from which the broadcasts of this root are expected prunes
//!   nothing, and a payload over a link that was just pruned does not change the tree: what is under
//!   way while a tree forms can't cut it.
//! * One node, its core, gives the common tree its shape (see `core.rs`). What other roots broadcast along it prunes
//!   and grafts nothing: what is missing is fetched, and passed on along the tree from there.
//! * Announcements are batched, in ranges. Both ends of a new link announce all they have in their
//!   caches, so what was broadcast while a node had no neighbours, or others, still comes. (A node that
//!   joins gets the broadcasts of the last minute, too.) Payloads carry their age, so that those of an
//!   hour ago do not live on from one new node to the next.
//! * An announcement that was earlier than the payload by [`Config::optimise_lag`] is better too, in
//!   trees of single roots.
//!
//! # Bounds
//!
//! All tables have limits, in [`crate::limits`], and what a neighbour can claim (new roots,
//! missing broadcasts, payloads to be sent again) has its share or its rate. What is over them is left
//! out; a later announcement or broadcast is a new chance. A payload is given to the user once, as
//! long as its root is in the table of roots (65,536 least recently used ones).

use std::time::Duration;

use crate::limits::{
    BROADCAST_CACHE_BYTES, BROADCAST_CACHE_TIME, MAX_BROADCAST_CACHE, MAX_BROADCAST_ROOTS,
    MAX_BROADCAST_TREES,
};

mod cache;
mod core;
mod links;
mod messages;
mod missing;
mod repair;
mod state;
#[cfg(test)]
mod tests;
mod trees;
mod view;

pub use messages::{Have, Message, Of, Tree, Want};
pub use state::Plumtree;

fn micros(time: Duration) -> u64 {
    time.as_micros() as u64
}

/// What a user may set.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long announcements are collected.
    pub announce_delay: Duration,
    /// Time from an announcement to the first GRAFT if the payload is expected from another
    /// neighbour. Longer than the tree is slower than the announcement, or payloads come twice. Twice
    /// that on the common tree, whose ways lead by its core.
    pub graft_after: Duration,
    /// Time from one GRAFT to the next for the same broadcast: a round trip.
    pub graft_next: Duration,
    /// A node moves to an announcer that is nearer to the root by so many links. The paper's value.
    pub optimise_hops: u16,
    /// A node moves to an announcer that was earlier by this time, which must be longer than the
    /// latency of a link changes from message to message. Not on the common tree, whose links serve
    /// many roots.
    pub optimise_lag: Duration,
    /// Whether this node's broadcasts go along the common tree, not along one of their own.
    pub common_tree: bool,
    /// Trees of single roots.
    pub max_trees: usize,
    /// Roots, with their lives, of which is known what has come.
    pub max_roots: usize,
    /// Payloads kept for neighbours that ask for them.
    pub cache_entries: usize,
    /// Bytes of them.
    pub cache_bytes: usize,
    /// How long after the broadcast.
    pub cache_time: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            announce_delay: Duration::from_millis(5),
            graft_after: Duration::from_millis(200),
            graft_next: Duration::from_millis(100),
            optimise_hops: 7,
            optimise_lag: Duration::from_millis(10),
            common_tree: false,
            max_trees: MAX_BROADCAST_TREES,
            max_roots: MAX_BROADCAST_ROOTS,
            cache_entries: MAX_BROADCAST_CACHE,
            cache_bytes: BROADCAST_CACHE_BYTES,
            cache_time: BROADCAST_CACHE_TIME,
        }
    }
}
