//! A node: the state machines, the runtime and the user brought together.

mod complaints;
mod control;
pub mod links;
mod persist;
pub mod runtime;
