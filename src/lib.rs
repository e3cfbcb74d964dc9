//! Partisan for BEAM clusters: parallel, affinitised channels and overlays, in Rust.
//!
//! The crate is layered, and imports point down only:
//!
//! | layer | modules | may do |
//! |---|---|---|
//! | node | [`node`] | tie the rest together |
//! | runtime | [`connection`] | sockets, clocks, threads |
//! | sans-I/O | [`overlay`], [`channel`] | nothing but compute |
//! | wire | [`wire`] | nothing but compute |
//!
//! Everything below the runtime takes bytes, time and randomness as arguments and returns what
//! is to be done. `docs/internals.md` in the repository explains the protocol.
#![forbid(unsafe_code)]

pub mod channel;
pub mod connection;
pub mod limits;
pub mod node;
pub mod overlay;
pub mod wire;
