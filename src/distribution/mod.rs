//! Erlang's own distribution: links with stock nodes.
//!
//! A stock node is found by its name ([`names`], usually through [`epmd`]), dialled ([`dial`]),
//! in the clear or encrypted ([`tls`]), and authenticated by the handshake
//! ([`crate::wire::handshake`]). Stock nodes that dial us come through the node's listener
//! ([`crate::connection::stock`]) or one of their own for TLS.

pub mod dial;
pub mod epmd;
pub mod names;
pub mod tls;
