//! Erlang's own distribution: links with stock nodes, one connection per pair of nodes.
//!
//! A stock node is found by its name ([`names`], usually through [`epmd`]), dialled ([`dial`]),
//! in the clear or encrypted ([`tls`]), and authenticated by the handshake
//! ([`crate::wire::handshake`]). Stock nodes that dial us come through the node's listener
//! ([`crate::connection::stock`]) or one of their own for TLS. Which connection becomes the link
//! is decided in `peers`, by OTP's rules; `link` serves its socket, fair among senders (`lanes`), turn by turn (`batch`);
//! `manager` is their host.

pub(crate) mod batch;
pub mod dial;
pub mod epmd;
mod lanes;
pub mod link;
pub(crate) mod manager;
pub mod names;
mod peers;
pub mod tls;
