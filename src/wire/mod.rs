//! Bytes: terms, identities, handshake and frames. No socket, no clock, no thread.

pub mod dist;
pub mod flags;
pub mod frame;
pub mod handshake;
pub mod hello;
pub mod identity;
mod reader;
pub mod term;
