//! Messages of SCAMP, as bytes.
//!
//! ```text
//! message:  version:8 = 1  kind:8  body
//!   1 subscribe
//!   2 subscribed
//!   3 copy         steps:8  peer
//!   4 keep
//!   5 leave        has:8  peer, if has is 1
//! ```

use crate::overlay::codec::{DecodeError, Reader};
use crate::overlay::contract::{Peer, Wire};

const VERSION: u8 = 1;

/// What nodes say to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<P> {
    /// The sender is new, or isolated. It has the receiver in its partial view.
    Subscribe,
    /// The answer: copies are on their way.
    Subscribed,
    /// A copy of a subscription.
    Copy {
        /// Who has subscribed.
        subscriber: P,
        /// Nodes that it may still pass.
        steps: u8,
    },
    /// The sender has the receiver in its partial view.
    Keep,
    /// The sender leaves the cluster.
    Leave {
        /// Who is to take its place in the receiver's partial view.
        instead: Option<P>,
    },
}

impl<P: Peer> Wire for Message<P> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        match self {
            Self::Subscribe => out.push(1),
            Self::Subscribed => out.push(2),
            Self::Copy { subscriber, steps } => {
                out.extend([3, *steps]);
                subscriber.encode(out);
            }
            Self::Keep => out.push(4),
            Self::Leave { instead } => {
                out.extend([5, u8::from(instead.is_some())]);
                instead.iter().for_each(|peer| peer.encode(out));
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            VERSION => {}
            other => return Err(DecodeError::Version(other)),
        }
        let message = match reader.u8()? {
            1 => Self::Subscribe,
            2 => Self::Subscribed,
            3 => Self::Copy {
                steps: reader.u8()?,
                subscriber: P::decode(reader)?,
            },
            4 => Self::Keep,
            5 => Self::Leave {
                instead: match reader.bool("choice")? {
                    true => Some(P::decode(reader)?),
                    false => None,
                },
            },
            _ => return Err(DecodeError::Bad("kind")),
        };
        reader.end()?;
        Ok(message)
    }
}
