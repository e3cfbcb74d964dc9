//! A network emulator: namespaces joined by links whose delay, rate, queue, loss and state can be
//! changed while they run.
//!
//! Every namespace has one TUN device, and one thread here that holds back what the device sends
//! until it is due, and then writes it to the device of the namespace it is for. The kernel's own
//! TCP runs above, with its windows and its congestion control. The devices hand over
//! super-packets of up to 64 KB that are never cut, which is what makes more than 10 Gbit/s
//! possible on one core. See `docs/netlab.md` in the repository for use, limits and measurements.
//!
//! Linux only; needs root, `/dev/net/tun` and iproute2's `ip`.
//!
//! ```no_run
//! use netlab::{Lab, LinkChange, Nodes};
//!
//! let lab = Lab::builder("demo", 2).all("delay=0.5ms".parse()?).start()?;
//! let name = lab.run_in(0, || std::net::TcpListener::bind((netlab::address(0), 0)))??;
//! lab.set(Nodes::One(0), Nodes::All, "up=no".parse::<LinkChange>()?)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod control;
mod forward;
mod lab;
pub mod link;
pub mod packet;
pub mod probe;
mod settings;
mod setup;
mod stats;

pub use control::request;
pub use lab::{Lab, LabBuilder, Nodes};
pub use packet::{address, address6};
pub use settings::{LinkChange, LinkSettings, MAX_DELAY, MIN_RATE, ParseError};
pub use setup::{DEVICE, Namespace, clean};
pub use stats::{Counters, LATE_BELOW_US, LinkStats, Stats};

/// What can go wrong with a lab.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A prefix that could not be the beginning of a namespace's name.
    #[error("prefix `{0}`: expected a letter, then letters, digits, - and _, at most 64")]
    Prefix(String),
    /// Too few or too many nodes.
    #[error("{0} nodes: expected 1 to {max}", max = packet::MAX_NODES)]
    NodeCount(usize),
    /// A node that the lab does not have.
    #[error("no node {0}: the last is {1}")]
    NoNode(usize, usize),
    /// A namespace of a lab that runs, or was left behind.
    #[error("namespace {0} exists: another lab runs, or `netlab clean` is needed")]
    Exists(String),
    /// A parameter that could not be set.
    #[error("sysctl {0}: {1}")]
    Sysctl(String, String),
    /// A command that failed.
    #[error("{0}: {1}")]
    Command(String, String),
    /// A system call that failed.
    #[error("{0}: {1}")]
    Io(String, #[source] std::io::Error),
    /// A request on the control socket that was refused.
    #[error("{0}")]
    Refused(String),
}
