//! Broadcast: one message to every node, over the links of any overlay. Pure state machines, as
//! the overlays are.
//!
//! A broadcast knows its neighbours only ([`Event::NeighborUp`], [`Event::NeighborDown`], which an
//! overlay's effects of these names are fed to) and sends over the links to them.

use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;

use crate::overlay::codec::DecodeError;
use crate::overlay::{Peer, Wire};

pub mod flood;
pub mod plumtree;
mod seen;

pub use flood::Flood;
pub use plumtree::Plumtree;

/// What tells one broadcast from all others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id<P> {
    /// The node that has started it.
    pub root: P,
    /// Which life of the root: a later life has a greater number.
    pub life: u64,
    /// Counts the broadcasts of that life, from 1.
    pub sequence: u64,
}

/// What happens to a broadcast protocol.
#[derive(Clone, Debug)]
pub enum Event<P, M> {
    /// This node is a neighbour from now on, with a link.
    NeighborUp(P),
    /// This node is none any longer. What was sent to it and has not arrived may be lost.
    NeighborDown(P),
    /// The user broadcasts this. The own node gets no [`Effect::Deliver`] for it.
    Broadcast(Bytes),
    /// A message of this protocol has come.
    Message {
        /// The neighbour that has sent it.
        from: P,
        /// What it has sent.
        message: M,
    },
    /// [`Broadcast::deadline`] has passed, or any time has.
    Tick,
}

/// What the host of a broadcast protocol is to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect<P, M> {
    /// Send a message over the link to a neighbour.
    Send {
        /// The neighbour.
        to: P,
        /// The message.
        message: M,
    },
    /// Give this to the user. Once for each id.
    Deliver {
        /// Which broadcast.
        id: Id<P>,
        /// What the root has broadcast.
        payload: Bytes,
        /// Links between the root and this node on the way that it took.
        hops: u32,
    },
}

/// Why a message of a neighbour was refused. It has changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The message breaks the protocol; the link is closed.
    #[error("broadcast message: {0}")]
    Message(DecodeError),
    /// The payload is larger than a broadcast may be.
    #[error("a payload of {bytes} bytes is too large to broadcast: at most {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

/// Effects of a broadcast protocol.
pub type Effects<B> = Vec<Effect<<B as Broadcast>::Peer, <B as Broadcast>::Message>>;

/// A protocol that brings a message to all nodes.
pub trait Broadcast: Send {
    /// How it names nodes.
    type Peer: Peer;
    /// What it sends.
    type Message: Wire;

    /// Handles one event. `now` is the time since some fixed moment; it never goes back. Effects
    /// are appended. `rng` is all the randomness there is.
    fn handle(
        &mut self,
        now: Duration,
        event: Event<Self::Peer, Self::Message>,
        rng: &mut dyn Rng,
        effects: &mut Effects<Self>,
    ) -> Result<(), Error>;

    /// When it wants an [`Event::Tick`] next.
    fn deadline(&self) -> Option<Duration>;

    /// Whether the message carries a payload, as opposed to control: what redundancy counts.
    fn carries_payload(message: &Self::Message) -> bool;
}
