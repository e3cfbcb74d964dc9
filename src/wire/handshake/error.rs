//! What can go wrong, in words that tell an operator what to do.

use std::fmt;
use std::sync::Arc;

use crate::limits::MAX_HANDSHAKE_PACKET;
use crate::wire::flags::Flags;

/// Why a handshake failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// A packet that cannot be read.
    #[error("malformed {packet} packet: {what}")]
    Malformed {
        /// Which packet was due.
        packet: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A packet over the limit.
    #[error("handshake packet of {0} bytes: at most {MAX_HANDSHAKE_PACKET} are accepted")]
    TooLong(usize),
    /// The peer speaks handshake version 5.
    #[error(
        "the peer speaks version 5 of the distribution handshake only, as OTP 22 and older do: \
         upgrade it to OTP 25 or later"
    )]
    TooOld,
    /// The peer's name is no node name.
    #[error("the peer calls itself {0:?}: node names have the form name@host, at most 255 bytes")]
    BadName(String),
    /// The peer lacks flags that we need.
    #[error("{peer} lacks the distribution flags {missing}: upgrade it to OTP 25 or later")]
    MissingFlags {
        /// Its name.
        peer: Arc<str>,
        /// What it lacks.
        missing: Flags,
    },
    /// The peer's digest does not match.
    #[error("{peer} has another cookie than ours for it: set the same cookie on both nodes")]
    WrongCookie {
        /// Its name.
        peer: Arc<str>,
    },
    /// The listener sent us away.
    #[error("{peer} refused the connection: {refusal}")]
    Refused {
        /// The node that we dialled.
        peer: Arc<str>,
        /// Its answer.
        refusal: Refusal,
    },
    /// We sent the dialler away.
    #[error("refused {peer}: {reason}")]
    RefusedByUs {
        /// Its name.
        peer: Arc<str>,
        /// Why.
        reason: &'static str,
    },
    /// Another node answered than the one that we dialled.
    #[error(
        "dialled {dialled}, but {answered} answered: check the address or the port of {dialled} \
         in the configuration, in the name service and in epmd"
    )]
    NameMismatch {
        /// Whom we dialled.
        dialled: Arc<str>,
        /// Who answered.
        answered: Arc<str>,
    },
    /// A further connection to a peer without Partisan.
    #[error("{peer} does not run Partisan: start the application there, or list it as no peer")]
    NoTrailer {
        /// Its name.
        peer: Arc<str>,
    },
    /// A trailer of a version that we do not know.
    #[error("the peer's Partisan speaks handshake version {0}, we speak 1: upgrade the older node")]
    TrailerVersion(u8),
    /// A frame format that we do not know.
    #[error("the peer's Partisan speaks frame version {0}, we speak 1: upgrade the older node")]
    FrameVersion(u8),
    /// We reached ourselves.
    #[error("{peer} is this very node: remove its own address from the peers to dial")]
    SelfConnection {
        /// The name that the other end uses.
        peer: Arc<str>,
    },
    /// A stock node has our name.
    #[error("the peer calls itself {0}, which is our own name: give one of the nodes another name")]
    SameName(Arc<str>),
    /// We gave a dialler the choice, and it keeps the connection that it has.
    #[error("{peer} has a connection already and keeps that one")]
    KeepsOld {
        /// Its name.
        peer: Arc<str>,
    },
    /// We asked for a name and did not get a usable one.
    #[error("{peer} gives no name to this node: {what}")]
    NoName {
        /// The node that we dialled.
        peer: Arc<str>,
        /// What is wrong.
        what: &'static str,
    },
    /// A binding that does not prove what it claims.
    #[error("{peer} did not prove that its connection belongs to a session: {what}")]
    BadBinding {
        /// Its name.
        peer: Arc<str>,
        /// What is wrong.
        what: &'static str,
    },
    /// The peer closed the connection. See [`super::Handshake::closed`].
    #[error("{peer} closed the connection {awaited}")]
    Closed {
        /// Its name, or what stands for it.
        peer: Arc<str>,
        /// What we waited for.
        awaited: Awaited,
    },
    /// An event that does not fit the state.
    #[error("unexpected {event} while {state}")]
    OutOfTurn {
        /// What came.
        event: &'static str,
        /// Where the handshake was.
        state: &'static str,
    },
}

/// How a listener refused us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is dialling us and its attempt wins.
    Nok,
    /// It does not want us.
    NotAllowed,
    /// It has a connection with our name.
    Alive,
    /// It wants to give us a name, which we did not ask for.
    Named,
    /// Something else, cut and escaped.
    Other(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Nok => "it is connecting to us at the same time, and that attempt wins",
            Refusal::NotAllowed => "not allowed; its log tells why",
            Refusal::Alive => {
                "it still has a connection under our name: either it has not noticed yet that an \
                 earlier instance of this node is gone, or two nodes have the same name"
            }
            Refusal::Named => "it gives us another name, which we did not ask for",
            Refusal::Other(status) => return write!(f, "unknown status \"{status}\""),
        })
    }
}

/// What we waited for when the peer closed the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// Its name or its status.
    Greeting,
    /// The challenge.
    Challenge,
    /// Its word on whether its older connection is dead.
    Alive,
    /// The rest of an old name packet.
    Complement,
    /// The answer to our challenge.
    Digest,
    /// The acknowledgement of our digest.
    Ack,
    /// Nothing from the peer.
    Nothing,
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Awaited::Greeting => "at once: is that the port of an Erlang node?",
            Awaited::Challenge => "instead of sending a challenge; its log tells why",
            Awaited::Alive => "when it heard that its older connection is still up",
            Awaited::Complement => "instead of completing its old name packet",
            Awaited::Digest => "when it saw our challenge: it may not know us, or not want us",
            Awaited::Ack => "when it saw our digest: most likely the cookies differ",
            Awaited::Nothing => "during the handshake",
        })
    }
}
