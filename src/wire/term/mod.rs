//! Erlang's external term format, bounded.
//!
//! The format is specified in `erl_ext_dist` and implemented in `erts/emulator/beam/external.c`.
//! It is a prefix code: a tag byte says what follows, a container says how many terms follow it.
//! So one loop with a stack of counters can read any term, and everything here is built on one
//! such loop (`walk`), which checks every length against the bytes that are really there:
//!
//! * [`scan`] decides whether a term from a peer may go near the VM, and what it would cost there.
//! * [`map_out`] and [`map_in`] exchange identities in the encoded bytes and write remote
//!   references, without decoding.
//! * [`elide`] takes the large binaries out of a term, so that they travel without a copy.
//! * [`Term`], [`View`] and [`Value`] are what Rust users see: bytes that have been validated, and
//!   their meaning on demand, read in place or as a value of its own.
//! * [`normalise`] makes a `Term` of what a node of stock OTP sends.
//!
//! Every term here begins with the version byte 131. Compressed terms and atom cache references
//! are for [`normalise`] alone; `FUN_EXT`, which OTP itself no longer reads, is refused. Native
//! records (OTP 29) and terms in a node's private encoding (`LOCAL_EXT`) are terms like others
//! between Rust and stock nodes, but [`Facts::common`] keeps them away from a VM that may not
//! know them.

mod atoms;
mod binary;
mod convert;
mod decode;
mod elide;
mod encode;
mod error;
mod from;
mod identifier;
mod inflate;
mod keys;
mod macros;
mod map;
mod normal;
mod opaque;
mod parts;
mod pieces;
mod scan;
pub mod serde;
pub(crate) mod tag;
#[expect(clippy::module_inception, reason = "`Term` is what a term is in Rust")]
mod term;
mod text;
mod value;
pub mod view;
mod walk;

pub use binary::Binary;
pub use elide::{Elided, elide, inline};
pub use error::TermError;
pub use identifier::{Pid, Port, Reference, Words};
pub use map::{Inbound, Outbound, RefFormat, map_in, map_out};
pub use normal::{Start, normalise};
pub use opaque::{Opaque, Record};
pub use scan::{AtomGate, Facts, scan};
pub use term::Term;
pub use text::TextError;
pub use value::{Atom, Value};
pub use view::View;

use crate::limits;

/// Whether large binaries stand in the term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// The term is complete.
    Whole,
    /// Each `BINARY_EXT` of at least [`limits::OUT_OF_BAND_BYTES`] outside of funs stands there
    /// with its length but without its bytes.
    Elided,
}

/// What a term may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TermLimits {
    /// Deepest nesting.
    pub depth: u32,
    /// Longest encoding, without elided binaries.
    pub bytes: usize,
    /// Largest heap that the decoded term may take in the VM, in bytes.
    pub heap_bytes: u64,
}

impl Default for TermLimits {
    fn default() -> Self {
        Self {
            depth: limits::MAX_TERM_DEPTH,
            bytes: limits::MAX_TERM_BYTES,
            heap_bytes: limits::MAX_TERM_HEAP,
        }
    }
}

#[cfg(test)]
mod convert_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod map_tests;
#[cfg(test)]
mod normal_tests;
#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod value_tests;
