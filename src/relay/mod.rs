//! How a node reaches one with which it has no link: over the links that others have. Sans-I/O.
//!
//! A partial overlay connects a node with a few others. To all the rest it opens sessions when somebody sends there,
//! and closes them when nobody has for a while. Where the other node can be dialled, that is all. Where it
//! can't, behind a firewall or on the other side of a server, the session's connections run through *packets* that
//! nodes on the way pass on:
//!
//! * [`router`] finds the way. A node that is looked for is called by a broadcast, along the tree of whoever looks for it; its
//!   answer goes back hop by hop, and each node on the way learns from it over which neighbour the called one is reached, as it
//!   learns from every packet about its sender (reverse paths, as learning bridges and AODV, RFC 3561, do). A node that can't pass
//!   a packet on says so to its sender, who calls again.
//! * [`net`] makes reliable streams of packets that may be lost, doubled or out of order: each node has an IPv6 address
//!   that is a hash of its name, and speaks TCP over the packets, by the stack of the crate `smoltcp`.
//! * [`packet`] is what travels.
//!
//! Whoever passes packets on is not trusted: the session inside authenticates both its ends by the cookie, as every
//! session does.

pub mod net;
pub mod packet;
pub mod router;
#[cfg(test)]
mod tests;

pub use net::{Net, address_of, is_relayed};
pub use packet::{Body, Packet};
pub use router::Router;
