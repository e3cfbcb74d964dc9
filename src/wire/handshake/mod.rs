//! Erlang's distribution handshake, version 6, with what a Partisan peer adds to it.
//!
//! Both ends prove that they know the same cookie: each sends a random challenge and the other
//! answers with the MD5 of cookie and challenge (OTP `erl_dist_protocol`, "Distribution
//! Handshake", and `dist_util.erl`). A Partisan peer appends a [`Trailer`] to its name, which
//! stock peers ignore, and a dialler that opens a further connection of a session appends a
//! binding to its digest: an HMAC over session, index and the nonces of this handshake, so that
//! nobody who lacks the cookie can slip a connection into a session.
//!
//! [`Handshake`] is a state machine without I/O. The caller feeds it packets without their
//! 16-bit length and carries out its effects:
//!
//! ```text
//! dialler                                          listener
//! Start → Send(name)                               Packet(name) → Judge(peer)
//! Packet(status), Packet(challenge) → Send(reply)  Verdict → Send(status), Send(challenge)
//! Packet(ack) → Done                               Packet(reply) → Send(ack), Done
//! ```
//!
//! Three turns of the protocol concern stock peers only:
//!
//! - A listener that still has a connection of the dialler's name says `alive` and waits for
//!   `true` (go on, the old connection is dead) or `false`.
//! - A dialler without a name, whose [`Config::local`] is a host only, is given one by the
//!   listener.
//! - Nodes of OTP 23 and 24 may dial with the old name packet, which has room for half of the
//!   flags and none for the creation; a complement after the challenge brings the rest. We
//!   understand that and never send it.

use std::sync::Arc;

use crate::wire::flags::Flags;
use crate::wire::identity::Identity;

mod error;
mod machine;
mod packet;
mod trailer;

#[cfg(test)]
mod stock_tests;
#[cfg(test)]
mod tests;

pub use error::{Awaited, HandshakeError, Refusal};
pub use machine::Handshake;
pub use trailer::{SessionId, Trailer};

/// Whether this is a node name: `name@host` without spaces and control characters.
pub fn is_node_name(bytes: &[u8]) -> bool {
    packet::node_name(bytes).is_some()
}

/// Everything that a handshake needs to know. Randomness is passed in.
pub struct Config {
    /// Who we are.
    pub local: Identity,
    /// What we offer to Partisan peers, usually [`Flags::OURS`].
    pub flags: Flags,
    /// What we offer to stock peers.
    pub stock_flags: Flags,
    /// Random number of this start of the application.
    pub instance: u64,
    /// Capability bits for our trailer.
    pub capabilities: u32,
    /// Fresh random bytes.
    pub nonce: [u8; 16],
    /// Fresh random number.
    pub challenge: u32,
    /// Which end we are.
    pub role: Role,
}

/// Which end of the connection we are.
pub enum Role {
    /// We opened the connection.
    Dialer {
        /// Node that we mean to reach.
        peer: Arc<str>,
        /// Cookie for that node.
        cookie: Vec<u8>,
        /// What the connection is for.
        purpose: Purpose,
    },
    /// We accepted it.
    Listener,
}

/// What a dialler opens a connection for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It speaks Erlang's own protocol, whether or not the peer runs Partisan.
    ///
    /// A peer that believes an older connection to be alive is told that it is not: whoever
    /// dials must have none, and drop the handshake when one comes up meanwhile.
    Stock,
    /// It begins a session.
    First,
    /// It joins a session that exists.
    Extra {
        /// The session.
        session: SessionId,
        /// Number of the connection within it, from 1.
        index: u16,
    },
}

/// What happens to a handshake.
pub enum Event<'a> {
    /// The connection is there. Only dialers need it.
    Start,
    /// A packet has arrived; its 16-bit length is not part of it.
    Packet(&'a [u8]),
    /// The listener's answer to [`Effect::Judge`].
    Verdict(Verdict),
}

/// A listener's decision on a peer that has given its name.
pub enum Verdict {
    /// Go on.
    Accept {
        /// Cookie for that peer.
        cookie: Vec<u8>,
        /// We were dialling the peer too and give that up in favour of this connection.
        simultaneous: bool,
    },
    /// We have a connection of that name: ask whether it is dead. If so, go on, and
    /// [`Established::replaces`] says that it is to be closed.
    Alive {
        /// Cookie for that peer.
        cookie: Vec<u8>,
    },
    /// We are dialling the peer and our attempt wins.
    Nok,
    /// The peer may not connect; the reason is for our log.
    NotAllowed(&'static str),
}

/// What the caller is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send these bytes; the length is part of them.
    Send(Vec<u8>),
    /// Decide on the peer and answer with [`Event::Verdict`].
    Judge(PeerHello),
    /// The handshake has succeeded.
    Done(Established),
}

/// What a peer says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerHello {
    /// Node name, of the form `name@host`.
    pub name: Arc<str>,
    /// Its creation. Zero while an old name packet waits for its complement.
    pub creation: u32,
    /// The peer has no name of its own and asks for one. Name and creation are those that it
    /// gets if it is accepted.
    pub nameless: bool,
    /// What it offers, [expanded](Flags::expanded).
    pub flags: Flags,
    /// `None`: a stock node.
    pub trailer: Option<Trailer>,
}

/// A handshake that has succeeded: both ends know the cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Established {
    /// The other end. A dialler may rely on its name, a listener only as far as on the cookie.
    pub peer: PeerHello,
    /// What the connection is.
    pub link: Link,
    /// What both ends offer: the features that the connection may use.
    pub flags: Flags,
    /// Listener: the peer has declared its older connection dead, which is to be closed before
    /// this one is used.
    pub replaces: bool,
    /// Dialler without a name: the one that it has got.
    pub given: Option<Identity>,
}

/// What an established connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// The peer runs no Partisan.
    Stock,
    /// The first connection of this new session.
    First(SessionId),
    /// A further connection. At the listener the binding is authentic, but whether the session
    /// exists, belongs to this peer, and lacks this index is for the caller to check.
    Extra {
        /// The session.
        session: SessionId,
        /// Number of the connection within it.
        index: u16,
    },
}
