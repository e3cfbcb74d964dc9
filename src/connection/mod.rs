//! Sockets, I/O threads, the handshake's driver and sessions: the only place that does I/O.
//!
//! [`establish`] brings a connection through the handshake on the control plane (tokio);
//! [`stock`] is where connections of stock peers leave for [`crate::distribution`];
//! [`session`] holds what the connections of one peer share; [`io`] owns the sockets of
//! established sessions on dedicated threads, because a tokio hop costs 10–25 µs at the median on
//! this path; [`outbox`] is where senders on any thread meet the I/O thread of a connection; [`inlet`] is where
//! messages for the node itself wait for its control plane;
//! `bundle` lets the connections of a channel share one;
//! [`handover`] keeps order and bounds when another thread delivers;
//! [`pool`] keeps memory for large binaries warm;
//! [`host`] is what the node is embedded in, a VM or a program.

mod bundle;
#[doc(hidden)]
pub mod door;
pub mod drive;
pub mod establish;
pub mod handover;
pub mod host;
pub mod inlet;
pub mod io;
mod link;
pub mod listen;
pub mod outbox;
pub mod pool;
pub mod receive;
pub mod session;
pub(crate) mod shake;
pub mod stock;
mod sync;
#[cfg_attr(not(feature = "tls"), path = "without_tls.rs")]
pub mod tls;
pub mod tunnel;
mod writer;
