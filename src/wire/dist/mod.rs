//! The messages between connected nodes: control messages, and how they are packed.
//!
//! What nodes send each other after the handshake is specified in OTP's `erl_dist_protocol`
//! ("Protocol between Connected Nodes") and `erl_ext_dist` ("Distribution Header"), and
//! implemented in `erts/emulator/beam/dist.c` and `external.c`. Where they differ the code is
//! right.
//!
//! A [`Signal`] is what one node tells another. [`Encoder`] makes packets of signals and
//! [`Decoder`] signals of packets; each serves one direction of one connection, for both keep an
//! atom cache that depends on all that was sent before. How a signal travels depends on what
//! both nodes have offered in the handshake; a [`Signal`] looks the same however it travelled.

mod cache;
mod chunks;
mod control;
mod decoder;
mod encoder;
mod error;
mod fields;
mod fragments;
mod operation;
mod read;
mod write;

pub use chunks::Chunks;
pub use control::{Control, Function, Signal, Target};
pub use decoder::{Decoder, DistLimits};
pub use encoder::{Encoder, EncoderConfig};
pub use error::DistError;
pub use fragments::Fragments;

#[cfg(test)]
mod control_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod round_trip_tests;
#[cfg(test)]
mod tables_tests;

#[cfg(test)]
mod vm_tests;
