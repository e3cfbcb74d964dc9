//! How simulated nodes name each other.

use std::fmt;

use crate::overlay::Peer;
use crate::overlay::codec::{DecodeError, Reader};

/// What an encoded peer takes: a [`Contact`](crate::overlay::Contact) with a name of 19 characters, one
/// IPv4 address and one channel takes as much.
pub const PEER_BYTES: usize = 43;

/// A simulated node, by its number. Its encoded form is as long as a real node's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SimPeer(pub u32);

impl fmt::Debug for SimPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl Peer for SimPeer {
    fn encode(&self, out: &mut Vec<u8>) {
        let mut bytes = [0; PEER_BYTES];
        bytes[..4].copy_from_slice(&self.0.to_be_bytes());
        out.extend_from_slice(&bytes);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let number = reader.u32()?;
        let rest: [u8; PEER_BYTES - 4] = reader.array()?;
        if rest == [0; PEER_BYTES - 4] {
            Ok(Self(number))
        } else {
            Err(DecodeError::Bad("simulated peer"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::overlay::{Contact, MemberChannel, NodeSpec};

    #[test]
    fn as_long_as_a_contact_and_back() -> Result<(), Box<dyn std::error::Error>> {
        let contact = Contact::new(NodeSpec {
            name: "node12345@10.20.3.4".into(),
            listen_addrs: vec!["10.20.3.4:4370".parse::<SocketAddr>()?],
            channels: vec![MemberChannel {
                name: "default".into(),
                parallelism: 1,
                monotonic: false,
                compression: 0,
            }],
        })?;
        let mut real = Vec::new();
        contact.encode(&mut real);
        let mut out = Vec::new();
        SimPeer(77).encode(&mut out);
        assert_eq!((real.len(), out.len()), (PEER_BYTES, PEER_BYTES));
        assert_eq!(SimPeer::decode(&mut Reader::new(&out))?, SimPeer(77));
        out[20] = 1;
        assert!(SimPeer::decode(&mut Reader::new(&out)).is_err());
        Ok(())
    }
}
