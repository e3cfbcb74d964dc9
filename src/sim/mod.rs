//! A simulator of overlays and broadcasts: the real state machines in virtual time.
//!
//! A [`Scenario`] says how many nodes run which protocols over which network, and what happens to
//! them. [`run`] runs it, once for each seed. A run depends on nothing but scenario and seed: all
//! events of all nodes go into a digest, and the same seed gives the same digest on every machine.
//!
//! `docs/simulator.md` in the repository describes scenarios, figures and invariants.

mod digest;
mod figures;
mod graph;
mod invariants;
mod latency;
mod network;
mod peer;
mod plot;
mod protocols;
mod queue;
mod report;
mod scenario;
mod simple;
mod topologies;
mod unicast;
mod workload;
mod world;

pub use invariants::{Invariant, Violation};
pub use peer::{PEER_BYTES, SimPeer};
pub use report::{Report, Settings, run};
pub use scenario::{Scenario, ScenarioError};
pub use world::{Options, Protocols, World};

#[cfg(test)]
mod tests;
