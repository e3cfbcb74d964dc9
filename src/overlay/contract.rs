//! What every overlay is to its host, and the host to it.
//!
//! An overlay is a state machine: it is told what happens ([`Event`]) and says what is to be done
//! ([`Effect`]). It reads no clock and opens no socket, so the same code runs in a BEAM node, in a
//! Rust node and in the simulator, and a protocol is written once.
//!
//! # Links
//!
//! A *link* is an authenticated session with another node, of either end's making: messages go
//! both ways, in order, and none is lost while it lives. It is made on demand:
//!
//! * [`Effect::Want`] asks for one. If there is one, nothing happens; else the host dials, and
//!   [`Event::LinkUp`] or [`Event::LinkFailed`] follows. After a failure the host dials again, with
//!   backoff, until the overlay says [`Effect::Release`].
//! * `Release` says that the link isn't needed any longer. The host closes it in order: what was sent
//!   before arrives, and the other end hears [`Event::LinkDown`] with [`Down::Planned`]. The releasing end
//!   hears nothing, nor anything more that the other end has sent over this link; if it wants the peer
//!   again, that is a new link, with a `LinkUp` of its own. So whoever releases a neighbour needs no further
//!   message, and views are symmetric whenever no message is under way: a neighbour is somebody with a
//!   link, at both ends.
//! * A link that the other end has made comes up by `LinkUp` unasked. Whoever wants to keep it says
//!   `Want`; the host closes links that neither end wants after a while.
//! * A crash, a broken connection or a silent peer is [`Down::Failed`]. The host watches all links.
//!
//! A `LinkUp` of a peer comes after the `LinkDown` of its previous link. Messages are sent over links
//! only; one to a peer without a link is dropped.
//!
//! # Neighbours and members
//!
//! Neighbours are those with whom the overlay keeps a link for good; broadcast runs over them. Members
//! are what users see: on a full mesh all nodes of the cluster, on a partial overlay the own node and
//! its neighbours.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;

use super::codec::{DecodeError, Reader};

/// A node as protocols know it: its identity, and whatever it takes to reach it.
///
/// Comparison is by identity. A newer value of the same identity may have other addresses.
pub trait Peer: Clone + Debug + Eq + Ord + Hash + Send + 'static {
    /// Appends the encoded form.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads one encoded by [`Peer::encode`].
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

/// A message of a protocol, as bytes.
pub trait Wire: Clone + Debug + Sized + Send + 'static {
    /// Appends the encoded form. There is one for each value.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads a message that fills `reader`. Bytes come from a peer: nothing may be
    /// allocated by a count that they merely claim, and lists have limits.
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

/// How a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Down {
    /// The other end released it. It lives.
    Planned,
    /// It broke, or the other end has died.
    Failed,
}

/// What happens to an overlay.
#[derive(Clone, Debug)]
pub enum Event<P, M> {
    /// The user wants to join the cluster of this node.
    Join(P),
    /// The user wants this node to leave its cluster.
    Leave,
    /// The user removes a node from the cluster.
    Remove(P),
    /// The user wants exactly these members, and the own node. An empty list means nothing.
    UpdateMembers(Vec<P>),
    /// A link is up, of either end's making.
    LinkUp(P),
    /// A link is down.
    LinkDown(P, Down),
    /// A link that is wanted could not be made.
    LinkFailed(P),
    /// A message has come over a link.
    Message {
        /// The other end.
        from: P,
        /// What it has sent.
        message: M,
    },
    /// [`Overlay::deadline`] has passed, or any time has.
    Tick,
    /// The own addresses or channels have changed.
    SelfChanged(P),
    /// What [`Effect::Persist`] left in an earlier life. Before all other events.
    Loaded(Vec<u8>),
}

/// What an overlay's host is to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect<P, M> {
    /// Send a message over an existing link.
    Send {
        /// Receiver.
        to: P,
        /// The message.
        message: M,
    },
    /// Keep a link to this node from now on.
    Want(P),
    /// Do so no longer; close the link after what was sent.
    Release(P),
    /// This node, which has a link, is a neighbour from now on.
    NeighborUp(P),
    /// This node is no neighbour any longer.
    NeighborDown(P),
    /// [`Overlay::members`] has changed.
    MembersChanged,
    /// Replace the persisted state by this.
    Persist(Vec<u8>),
    /// The cluster of this node has been joined.
    Joined(P),
    /// This node has left its cluster or was removed from it, and is alone.
    Left,
}

/// Why an event was refused. It has then changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A node can't join itself.
    #[error("a node can not join itself")]
    SelfJoin,
    /// The overlay has no such operation.
    #[error("{overlay} can not {operation}: {advice}")]
    Unsupported {
        /// Name of the overlay.
        overlay: &'static str,
        /// What was asked.
        operation: &'static str,
        /// What to do instead.
        advice: &'static str,
    },
    /// A specification is one that other nodes would not accept.
    #[error("node specification of {name:?}: bad {what}")]
    Spec {
        /// The node.
        name: Arc<str>,
        /// The field.
        what: &'static str,
    },
    /// The own specification has another name.
    #[error("this node is {own:?}, not {other:?}")]
    Renamed {
        /// The own name.
        own: Arc<str>,
        /// The name in the specification.
        other: Arc<str>,
    },
    /// The persisted state can't be read.
    #[error("persisted membership: {0}")]
    Load(DecodeError),
    /// A peer's message can't be taken; its link is closed.
    #[error("membership message: {0}")]
    Message(DecodeError),
    /// A node runs another overlay at the same time.
    #[error(
        "it runs the overlay {theirs:?}, this node {ours:?}: configure the same one on all nodes of a cluster"
    )]
    OtherOverlay {
        /// The other node's.
        theirs: String,
        /// The own.
        ours: &'static str,
    },
    /// This node has no such overlay.
    #[error(
        "this node has no overlay {name:?}, only {known:?}: configure it before the cluster switches to it"
    )]
    UnknownOverlay {
        /// What was asked for.
        name: String,
        /// Those that it has.
        known: Vec<&'static str>,
    },
    /// The cluster would be too large.
    #[error("a cluster of {members} entries in {bytes} bytes is too large")]
    TooLarge {
        /// Members and tombstones.
        members: usize,
        /// Encoded size.
        bytes: usize,
    },
}

/// Effects of an overlay.
pub type Effects<O> = Vec<Effect<<O as Overlay>::Peer, <O as Overlay>::Message>>;

/// A membership protocol: who keeps links to whom.
///
/// To bring your own, implement this; `examples/ring` is one.
pub trait Overlay: Send {
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

    /// The members that the user sees, the own node among them.
    fn members(&self) -> Vec<Self::Peer>;
}
