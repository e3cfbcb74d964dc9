//! Messages that are acknowledged, and messages in causal order: pure state machines.
//!
//! Both take the slow path through the control plane, as in lasp-lang/partisan, where such messages
//! go through the manager. What differs: everything is bounded, nothing comes twice while both ends live,
//! and a stream stays in order.
//!
//! * [`acked`]: numbered messages, kept by the sender until the receiver has delivered them.
//! * [`causal`]: which of them may be delivered yet. A message of a causal label is an acknowledged one that
//!   carries what its sender knew of messages under way, so a hole never stalls it for good.
//! * [`State`]: both together, as the control plane and the tests run them.

use std::sync::Arc;

pub mod acked;
pub mod causal;
pub mod message;
mod state;
#[cfg(test)]
mod tests;

pub use message::{Message, Parcel};
pub use state::{Config, Effect, Error, Event, State};

/// What keeps an order of its own between two nodes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Acknowledged messages of a channel.
    Channel(Arc<str>),
    /// Messages of a causal label.
    Label(Arc<str>),
}

impl Lane {
    /// The label, if it is one's.
    pub fn label(&self) -> Option<&Arc<str>> {
        match self {
            Self::Channel(_) => None,
            Self::Label(label) => Some(label),
        }
    }
}
