//! The messages between connected nodes: control messages, and how they are packed.
//!
//! What nodes send each other after the handshake is specified in OTP's `erl_dist_protocol`
//! ("Protocol between Connected Nodes") and `erl_ext_dist` ("Distribution Header"), and
//! implemented in `erts/emulator/beam/dist.c` and `external.c`. Where they differ the code is
//! right.

mod control;

pub use control::{Control, Function, Signal, Target};
