//! Tests.

mod large;
mod net;
