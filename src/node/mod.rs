//! A node: the state machines, the runtime and the user brought together.

pub(crate) mod allow;
pub(crate) mod api;
mod block;
pub(crate) mod builder;
pub(crate) mod call;
mod complaints;
mod control;
pub(crate) mod events;
pub(crate) mod functions;
pub(crate) mod global;
mod host;
mod inbound;
pub mod links;
pub(crate) mod mailbox;
pub mod overlay;
mod persist;
pub(crate) mod pg;
pub(crate) mod process;
pub(crate) mod processes;
pub(crate) mod registry;
mod requests;
pub mod runtime;
pub(crate) mod send;
pub(crate) mod server;
mod services;
mod slot;
pub(crate) mod stock;
