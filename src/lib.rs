//! Partisan for BEAM clusters: parallel, affinitised channels and overlays, in Rust.
//!
//! The crate is layered, and imports point down only:
//!
//! | layer | modules | may do |
//! |---|---|---|
//! | node | [`node`] | tie the rest together |
//! | simulator | `sim` (a feature) | run the sans-I/O modules in virtual time |
//! | runtime | [`connection`], [`distribution`] | sockets, clocks, threads |
//! | sans-I/O | [`overlay`], [`broadcast`], [`delivery`], [`relay`], [`channel`], [`signals`], [`pg`] | nothing but compute |
//! | wire | [`wire`] | nothing but compute |
//!
//! Everything below the runtime takes bytes, time and randomness as arguments and returns what
//! is to be done. `docs/internals.md` in the repository explains the protocol.
//!
//! | feature | on by default | |
//! |---|---|---|
//! | `cli` | yes | the program `partisan`, of which a crate that depends on this one needs nothing |
//! | `tls` | yes | TLS with stock nodes, by rustls; without it a node with [`Distribution::tls`] does not start and says why |
//!
//! A service says `default-features = false`, and `features = ["tls"]` if it speaks TLS.
#![forbid(unsafe_code)]

pub mod broadcast;
pub mod channel;
pub mod connection;
pub mod delivery;
pub mod distribution;
pub mod limits;
pub mod node;
pub mod overlay;
pub mod pg;
mod rates;
pub mod relay;
pub mod signals;
#[cfg(feature = "sim")]
pub mod sim;
pub mod wire;

pub use connection::io::Liveness;
pub use connection::session::CloseReason;
pub use distribution::epmd::{Epmd, EpmdError};
pub use distribution::link::LinkError;
pub use distribution::manager::ConnectError;
pub use distribution::names::Resolver;
pub use distribution::tls::{TlsConfig, TlsIdentity};
pub use node::allow::Allow;
pub use node::api::{ClusterError, Node};
pub use node::builder::Builder;
pub use node::call::{CALL_TIMEOUT, CallError, RpcError};
pub use node::events::{Events, NodeEvent};
pub use node::functions::{Call, Exception, FunctionResult};
pub use node::global::GlobalError;
pub use node::mailbox::{Mailbox, Message, RegisterError};
pub use node::overlay::OverlayConfig;
pub use node::pg::{Pg, PgError, PgEvent, PgEvents};
pub use node::process::Exit;
pub use node::registry::AliasKind;
pub use node::runtime::StartError;
pub use node::send::{Destination, SendError, SendOptions};
pub use node::server::{Answer, Caller, ReplyError, Server};
pub use node::stock::{Distribution, LinkInfo};
pub use overlay::NodeSpec;
pub use overlay::client_server::{Config as ClientServerConfig, Tag};
pub use overlay::hyparview::{Config as HyParViewConfig, XBotConfig};
pub use overlay::scamp::Config as ScampConfig;
pub use overlay::switch::Status as OverlayStatus;
pub use signals::Notice;
pub use wire::handshake::SessionId;
pub use wire::hello::ChannelSpec;
pub use wire::term::{Atom, Pid, Reference, Term, TermError, TextError, Value, View};
pub use wire::term::{serde, view};

/// Has the guide's snippets compiled and run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../docs/rust.md")]
struct Guide;
