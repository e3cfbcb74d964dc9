//! A node: the state machines, the runtime and the user brought together.

pub(crate) mod api;
mod block;
pub(crate) mod builder;
mod complaints;
mod control;
pub(crate) mod events;
mod host;
pub mod links;
pub(crate) mod mailbox;
mod persist;
mod requests;
pub mod runtime;
pub(crate) mod send;
