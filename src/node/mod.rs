//! (in progress)

pub mod links;
