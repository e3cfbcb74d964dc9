//! The product's own sources, compiled with the locks and atomics of a model checker.
//!
//! What a message needs to get from a sender to the socket is spread over [`connection::outbox`],
//! `writer`, `handover` and `link`, and holds only if a handful of atomics interleave as their
//! comments say. [`loom`](https://docs.rs/loom) runs a model with all interleavings, and all
//! values that the memory model lets a load return, up to a number of preemptions.
//!
//! These modules name their locks and atomics in `connection::sync` alone. Here that module is
//! another one, [`connection::sync`]; every other file is the product's. Atomics elsewhere (the node's ceiling, the
//! session's state) stay ordinary ones: they are counters that nothing here hinges on.
//!
//! `tests/models.rs` runs the models, and wrong ones that must fail.

// The sources bring unit tests, which would run outside of any model.
#![cfg(not(test))]

#[path = "../../../src/channel/mod.rs"]
pub mod channel;
#[path = "../../../src/limits.rs"]
pub mod limits;
#[allow(dead_code, reason = "nodes use the rest")]
#[path = "../../../src/wire/mod.rs"]
pub mod wire;

/// The product's, but for `sync`.
#[allow(dead_code, reason = "the models use a part of it")]
pub mod connection {
    #[path = "../../../../src/connection/bundle.rs"]
    mod bundle;
    #[path = "../../../../src/connection/handover.rs"]
    pub mod handover;
    #[path = "../../../../src/connection/host.rs"]
    pub mod host;
    #[path = "../../../../src/connection/inlet.rs"]
    pub mod inlet;
    #[path = "../../../../src/connection/io.rs"]
    pub mod io;
    #[path = "../../../../src/connection/link.rs"]
    mod link;
    #[path = "../../../../src/connection/outbox.rs"]
    pub mod outbox;
    #[path = "../../../../src/connection/receive.rs"]
    pub mod receive;
    #[path = "../../../../src/connection/session.rs"]
    pub mod session;
    #[path = "../../../../src/connection/writer.rs"]
    mod writer;

    pub mod models;
    pub mod sync;
}
