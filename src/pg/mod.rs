//! Process groups shared with the `pg` of stock nodes. Sans-I/O.
//!
//! A *scope* is a set of named groups of processes. Each node that takes part has one process that
//! is registered under the scope's name; it knows the members on its own node, and tells them to the scope processes
//! of the nodes that it is connected with. Nobody passes on what others have told (`pg.erl`).
//!
//! Two scope processes get to know each other so:
//!
//! 1. One sends `{discover, Self}` to the other: by name when a connection comes up, by pid when it was
//!    discovered itself.
//! 2. The other answers with *all* its members, `{'$gen_cast', {sync, Self, [{Group, Pids}]}}`, and if
//!    it did not know the first one it discovers it in turn. From then on it tells every change:
//!    `{join, Self, Group, Pids}` and `{leave, Self, Pids, Groups}`.
//! 3. Each monitors the other. When one ends or is lost, its members are gone.
//!
//! Data is always whole and changes follow it in order, so a repeated discovery repairs whatever
//! was lost before.
//!
//! OTP 29 (`data_publisher.erl`) speaks a second version: `{discover, Self, 1}` is answered by
//! `{'$gen_cast', {local_data, Self, 1, #{Group => Pids}}}`, changes are `{update, Self, [{Group,
//! Joined, Left}]}`. It understands the first version too. OTP 25's scope process *ends* when it gets a message that it
//! does not know, so the first word is always `{discover, Self}`, and the second version is spoken with those who have
//! shown that they know it.
//!
//! OTP 25 ends as well when it is told that somebody leaves a group in which it knows nobody. So
//! a peer is told no change before it has been sent all members by the same connection.
//!
//! **Who discovers.** A stock node sends its first `discover` to visible nodes only, and this node is
//! hidden. So this side always begins. If a node has no such scope yet, or its scope process ends, nothing tells when there
//! is a new one: this side asks again, after [`Config::retry`]. The question is a few bytes, and dropped where nobody has the name.
//!
//! **What is a group.** Any term; two are the same if Erlang's `=:=` says so. Maps are compared without
//! regard to the order of their pairs. `0.0` and `-0.0` are two groups, as in OTP 27 and later.
//!
//! **What a peer may do.** It speaks for its own node only: members of other nodes are left out. What
//! its members take is bounded ([`Config::max_peer_bytes`]). One scope process of a node is known at a
//! time; a second one takes the place of the first.

use std::sync::Arc;
use std::time::Duration;

use crate::wire::term::Pid;

mod group;
mod message;
mod state;
#[cfg(test)]
mod tests;

pub use group::Group;
pub use message::Message;
pub use state::State;

/// Whose scope it is, and its bounds.
#[derive(Clone, Debug)]
pub struct Config {
    /// The scope process.
    pub own: Pid,
    /// Bytes that the members of one peer may take
    /// ([`limits::MAX_PG_PEER_BYTES`](crate::limits::MAX_PG_PEER_BYTES)).
    pub max_peer_bytes: usize,
    /// First and longest pause before a node is discovered again that has not answered
    /// ([`limits::PG_RETRY`](crate::limits::PG_RETRY)).
    pub retry: (Duration, Duration),
}

/// Who has joined a group and who has left it. A process may join several times, and is named as
/// often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The group.
    pub group: Group,
    /// Who has joined.
    pub joined: Vec<Pid>,
    /// Who has left.
    pub left: Vec<Pid>,
}

/// What happens to a scope.
#[derive(Clone, Debug)]
pub enum Event {
    /// A node is connected. Nothing sent before is on its way to it.
    Up(Arc<str>),
    /// A node is not connected any more. Its scope process is lost by an [`Event::Down`] of its own.
    Lost(Arc<str>),
    /// A process of this node joins.
    Join {
        /// The group.
        group: Group,
        /// The process.
        pid: Pid,
    },
    /// A process of this node leaves.
    Leave {
        /// The group.
        group: Group,
        /// The process.
        pid: Pid,
    },
    /// A monitored process has ended or cannot be seen any more.
    Down(Pid),
    /// A message to the scope process.
    Received {
        /// The node that has sent it.
        node: Arc<str>,
        /// The message.
        message: Message,
    },
    /// Time has passed: see [`State::deadline`].
    Tick,
}

/// What the host is to do, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send to scope processes, in the order of all that this one sends; do not connect for it.
    Send {
        /// The scope processes.
        to: Vec<Pid>,
        /// What is sent to each.
        message: Message,
    },
    /// Send `{discover, Own}` to whoever has the scope's name on that node; do not connect for it.
    Discover(Arc<str>),
    /// Monitor a process: a member of this node, or a scope process of another.
    Monitor(Pid),
    /// End that monitor.
    Demonitor(Pid),
    /// Members have changed.
    Tell(Change),
    /// A node has brought more members than it may; some are left out.
    TooMany(Arc<str>),
}
