//! HyParView: every node keeps links to a few random others, and all together stay one graph.
//!
//! After Leitão, Pereira and Rodrigues, "HyParView: a Membership Protocol for Reliable Gossip-Based
//! Broadcast" (DSN 2007).
//!
//! Each node has two small views. Those in the *active view* (5) are neighbours: both ends have taken
//! each other in and keep a link, so the view is symmetric and a failure is noticed at once. Those in the
//! *passive view* (30) are names at hand, from which a lost neighbour is replaced.
//!
//! * **Join.** The contact takes the joiner as a neighbour, at the cost of a random one if it is full, and
//!   sends a random walk (`ForwardJoin`) over each of its other neighbours. The node at which a walk
//!   ends, after six steps, becomes a neighbour too; one on its way, three steps before the end, puts
//!   the joiner into its passive view. A contact to which many come at once leaves most to the walks.
//! * **Promotion.** A free place is filled at once, whatever freed it (see `refill`).
//! * **Shuffle.** Every ten seconds each node sends a few names on a random walk; the node at its end answers
//!   with as many, over a link made for that.
//!
//! # What the paper does not have
//!
//! * A node asks only those to become its neighbours who have no neighbour in common with it, as long
//!   as there are others. Names come in bunches of neighbours, so without this the graph is full of
//!   triangles, along which broadcast makes no way.
//! * After a crash of many a node looks through its whole passive view (see `refill`).
//! * A *history* of a few hundred names serves where the passive view is used up.
//! * *Islands*: some nodes may have only each other as neighbours, all with full views, and would
//!   never notice. The ends of shuffles are a random sample of a node's component; if among the last
//!   sixteen some are the same, the component is likely to be small. (Of `n` nodes about `120 / n` pairs are.)
//!   Then the node now and then sends a *probe* to a node that it remembers, with the names it has seen. From
//!   there the probe goes on a random walk, and ends without effect as soon as somebody on the way knows
//!   one of the names. If nobody does, the last node becomes a neighbour of the first. About seven
//!   nodes of any component probe in a cycle, whether it has a thousand members or a million: so
//!   two large components merge as well, and nobody knows how large they are.
//!
//! `xbot` is what makes neighbours near, if [`Config::xbot`] says so.
//!
//! # Whom to believe
//!
//! Names come from anybody. They only ever become candidates: a neighbour is who has said so over a link
//! with that very name. What one peer can make another do is bounded in number and rate.

use std::time::Duration;

use crate::limits::{
    MAX_ACTIVE_VIEW, MAX_ATTEMPTS, MAX_GOSSIPED, MAX_HISTORY, MAX_PASSIVE_VIEW, MAX_WALK,
};

mod exchange;
mod history;
mod join;
mod links;
mod message;
mod refill;
mod shuffle;
mod state;
#[cfg(test)]
mod tests;
mod xbot;

pub use message::{Message, Priority, Reason};
pub use state::HyParView;
pub use xbot::XBotConfig;

/// What a user may set. Values beyond the limits of this crate are cut.
#[derive(Clone, Debug)]
pub struct Config {
    /// Size of the active view. Five connect 10,000 nodes even after a crash of most: log10 n + 1.
    pub active: usize,
    /// Size of the passive view: six times the active.
    pub passive: usize,
    /// Steps of a walk before it ends at a new neighbour.
    pub active_walk: u8,
    /// Steps before the end at which the joiner enters a passive view.
    pub passive_walk: u8,
    /// Neighbours in a shuffle.
    pub active_shuffled: usize,
    /// Others in a shuffle.
    pub passive_shuffled: usize,
    /// How often a node shuffles.
    pub shuffle_interval: Duration,
    /// Time for a request to be answered, or a link made.
    pub request_timeout: Duration,
    /// Time after which something else is tried beside a dial.
    pub patience: Duration,
    /// How long a joiner waits for those whom the walks bring before it looks for itself.
    pub settle: Duration,
    /// Addresses remembered beyond the views; 0 turns history and probes off.
    pub history: usize,
    /// The least time between two writes of the persisted state; none writes nothing.
    pub persist_interval: Option<Duration>,
    /// Whether it looks for near neighbours, by X-BOT. Those who do and those who don't can be in one cluster.
    pub xbot: Option<XBotConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            active: 5,
            passive: 30,
            active_walk: 6,
            passive_walk: 3,
            active_shuffled: 3,
            passive_shuffled: 4,
            shuffle_interval: Duration::from_secs(10),
            request_timeout: Duration::from_secs(5),
            patience: Duration::from_millis(500),
            settle: Duration::from_secs(2),
            history: 256,
            persist_interval: Some(Duration::from_secs(60)),
            xbot: None,
        }
    }
}

impl Config {
    fn checked(mut self) -> Self {
        self.active = self.active.clamp(1, MAX_ACTIVE_VIEW);
        self.passive = self.passive.min(MAX_PASSIVE_VIEW);
        self.active_walk = self.active_walk.min(MAX_WALK);
        self.passive_walk = self.passive_walk.min(self.active_walk);
        self.active_shuffled = self.active_shuffled.min(MAX_GOSSIPED / 4);
        self.passive_shuffled = self.passive_shuffled.min(MAX_GOSSIPED / 4);
        self.shuffle_interval = self.shuffle_interval.max(Duration::from_millis(10));
        self.history = self.history.min(MAX_HISTORY);
        if let Some(xbot) = &mut self.xbot {
            xbot.candidates = xbot.candidates.min(MAX_ATTEMPTS / 4);
            xbot.interval = xbot.interval.max(Duration::from_millis(10));
        }
        self
    }
}
