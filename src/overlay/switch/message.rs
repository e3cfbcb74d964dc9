//! What nodes tell each other about their overlays.
//!
//! ```text
//! message:  kind:8, epoch, body
//! epoch:    number:64  tie:64
//! runs:     kind 0; overlay: text  follow:8 (0 the sender, 1 another), node if 1
//! hello:    kind 1; link:32
//! release:  kind 2; link:32
//! inner:    kind 3; all further bytes are a message of the epoch's overlay
//! ```

use crate::overlay::codec::{DecodeError, Reader, put_text};
use crate::overlay::{Peer, Wire};

const RUNS: u8 = 0;
const HELLO: u8 = 1;
const RELEASE: u8 = 2;
const INNER: u8 = 3;

/// Which of a cluster's overlays: the later one has the greater number. Of two that were begun at the same
/// time at different nodes the one with the greater `tie` wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch {
    /// How often the cluster had switched when this one began, with it.
    pub number: u64,
    /// Random.
    pub tie: u64,
}

/// A message between two nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<P> {
    /// The overlay that it is about.
    pub(super) epoch: Epoch,
    pub(super) body: Body<P>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body<P> {
    /// The sender's cluster runs this overlay. Whoever follows joins this node, or else the sender.
    Runs { overlay: String, follow: Option<P> },
    /// From now on there is this link.
    Hello { link: u32 },
    /// From now on there isn't.
    Release { link: u32 },
    /// Of the overlay.
    Inner(Vec<u8>),
}

impl<P: Peer> Wire for Message<P> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(match &self.body {
            Body::Runs { .. } => RUNS,
            Body::Hello { .. } => HELLO,
            Body::Release { .. } => RELEASE,
            Body::Inner(_) => INNER,
        });
        out.extend_from_slice(&self.epoch.number.to_be_bytes());
        out.extend_from_slice(&self.epoch.tie.to_be_bytes());
        match &self.body {
            Body::Runs { overlay, follow } => {
                put_text(out, overlay);
                out.push(follow.is_some().into());
                if let Some(node) = follow {
                    node.encode(out);
                }
            }
            Body::Hello { link } | Body::Release { link } => {
                out.extend_from_slice(&link.to_be_bytes());
            }
            Body::Inner(bytes) => out.extend_from_slice(bytes),
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let kind = reader.u8()?;
        let (number, tie) = (reader.u64()?, reader.u64()?);
        let body = match kind {
            RUNS => Body::Runs {
                overlay: reader.text()?.to_owned(),
                follow: match reader.bool("follow")? {
                    true => Some(P::decode(reader)?),
                    false => None,
                },
            },
            HELLO => Body::Hello {
                link: reader.u32()?,
            },
            RELEASE => Body::Release {
                link: reader.u32()?,
            },
            INNER => Body::Inner(reader.take(reader.rest().len())?.to_vec()),
            _ => return Err(DecodeError::Bad("kind")),
        };
        let epoch = Epoch { number, tie };
        Ok(Self { epoch, body })
    }
}
