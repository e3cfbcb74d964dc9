//! Messages and the persisted form of a full mesh, as bytes.
//!
//! ```text
//! message:  version:8 = 1  kind:8 (1 join, 2 joined, 3 state, 4 reply)  members
//! file:     "PTSM"  version:8 = 1  SHA-256 of the rest:32 bytes  owner: text  members
//! members:  count:32, entries in strictly ascending order of their names
//! entry:    name: text  epoch:64  version:64  present:8 (0, 1), if present the specification:
//! spec:     count:8 of addresses (family:8 (4, 6), IP address, port:16)
//!           count:8 of channels (name: text, parallelism:16, monotonic:8 (0, 1), compression:8)
//! text:     length:16, UTF-8
//! ```
//!
//! There is one encoding for each value. A state of `MAX_MEMBERS` entries or `MAX_CONTROL_BYTES` bytes
//! is the largest; the decoder allocates as it reads, never by a count that a peer claims. The
//! zone of an IPv6 address has a meaning on its own host only and does not travel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::state::{Entry, MAX_COUNTER, Members};
use crate::limits::{
    MAX_ATOM_CHARS, MAX_CHANNELS, MAX_CONTROL_BYTES, MAX_MEMBERS, MAX_PARALLELISM,
};
use crate::overlay::{MemberChannel, NodeSpec};

/// Most listen addresses of one node.
pub const MAX_ADDRS: usize = 64;

const VERSION: u8 = 1;
const MAGIC: &[u8; 4] = b"PTSM";
const DIGEST_BYTES: usize = 32;

/// What a membership message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Asks the receiver to merge both clusters.
    Join,
    /// Grants a join, with the merged state.
    Joined,
    /// The sender's state; may be answered by one `Reply`.
    State,
    /// What the sender of a `State` did not know; never answered.
    Reply,
}

/// Why bytes are no membership message or no membership file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a field.
    #[error("ends early")]
    Truncated,
    /// There are bytes after the end.
    #[error("{0} bytes after the end")]
    Trailing(usize),
    /// The format's version is unknown.
    #[error("version {0} is unknown")]
    Version(u8),
    /// More bytes than a state may have.
    #[error("{0} bytes are more than {MAX_CONTROL_BYTES}")]
    TooLarge(usize),
    /// A field has a value that it may not have.
    #[error("bad {0}")]
    Bad(&'static str),
    /// Names are not in strictly ascending order.
    #[error("entries are out of order")]
    Order,
    /// The file does not begin as a membership file does.
    #[error("not a membership file")]
    Magic,
    /// The file's digest is not that of its content.
    #[error("the file is damaged: its checksum does not match")]
    Damaged,
    /// The file was written by a node of another name.
    #[error("the file belongs to node {0}")]
    Foreign(Arc<str>),
}

pub(super) fn encode_message(kind: Kind, members: &Members) -> Vec<u8> {
    let kind = match kind {
        Kind::Join => 1,
        Kind::Joined => 2,
        Kind::State => 3,
        Kind::Reply => 4,
    };
    let mut out = vec![VERSION, kind];
    put_members(&mut out, members);
    out
}

pub(super) fn decode_message(bytes: &[u8]) -> Result<(Kind, Members), DecodeError> {
    if bytes.len() > MAX_CONTROL_BYTES {
        return Err(DecodeError::TooLarge(bytes.len()));
    }
    let mut reader = Reader(bytes);
    reader.version()?;
    let kind = match reader.u8()? {
        1 => Kind::Join,
        2 => Kind::Joined,
        3 => Kind::State,
        4 => Kind::Reply,
        _ => return Err(DecodeError::Bad("kind")),
    };
    let members = reader.members()?;
    reader.end()?;
    Ok((kind, members))
}

/// The members as a file of node `owner`.
pub(super) fn encode_file(owner: &str, members: &Members) -> Vec<u8> {
    let mut body = Vec::new();
    put_text(&mut body, owner);
    put_members(&mut body, members);
    let mut out = MAGIC.to_vec();
    out.push(VERSION);
    out.extend_from_slice(&Sha256::digest(&body));
    out.extend_from_slice(&body);
    out
}

pub(super) fn decode_file(owner: &str, bytes: &[u8]) -> Result<Members, DecodeError> {
    let mut reader = Reader(bytes);
    if reader.take(MAGIC.len()).ok() != Some(MAGIC) {
        return Err(DecodeError::Magic);
    }
    reader.version()?;
    let digest = reader.take(DIGEST_BYTES)?;
    if digest != Sha256::digest(reader.0).as_slice() {
        return Err(DecodeError::Damaged);
    }
    let written_by = reader.name()?;
    if &*written_by != owner {
        return Err(DecodeError::Foreign(written_by));
    }
    let members = reader.members()?;
    reader.end()?;
    Ok(members)
}

/// Checks that others will accept this specification.
pub(super) fn check_spec(spec: &NodeSpec) -> Result<(), &'static str> {
    check_name(&spec.name)?;
    if spec.listen_addrs.len() > MAX_ADDRS {
        return Err("number of addresses");
    }
    if spec.channels.len() > MAX_CHANNELS {
        return Err("number of channels");
    }
    spec.channels.iter().try_for_each(check_channel)
}

/// The specification as others will see it: without the zones of its addresses.
pub(super) fn as_seen_by_others(mut spec: NodeSpec) -> NodeSpec {
    for addr in &mut spec.listen_addrs {
        *addr = SocketAddr::new(addr.ip(), addr.port());
    }
    spec
}

fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.chars().nth(MAX_ATOM_CHARS).is_some() {
        return Err("name");
    }
    Ok(())
}

fn check_channel(channel: &MemberChannel) -> Result<(), &'static str> {
    check_name(&channel.name)?;
    if channel.parallelism == 0 || channel.parallelism > MAX_PARALLELISM {
        return Err("parallelism");
    }
    if channel.compression > 9 {
        return Err("compression");
    }
    Ok(())
}

// Lengths below fit their fields: everything that enters a state went through `check_spec` or
// the decoder.
fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_members(out: &mut Vec<u8>, members: &Members) {
    out.extend_from_slice(&(members.len() as u32).to_be_bytes());
    for (name, entry) in members.entries() {
        put_text(out, name);
        out.extend_from_slice(&entry.epoch.to_be_bytes());
        out.extend_from_slice(&entry.version.to_be_bytes());
        out.push(entry.is_present().into());
        if let Some(spec) = &entry.spec {
            put_spec(out, spec);
        }
    }
}

fn put_spec(out: &mut Vec<u8>, spec: &NodeSpec) {
    out.push(spec.listen_addrs.len() as u8);
    for addr in &spec.listen_addrs {
        match addr.ip() {
            IpAddr::V4(ip) => {
                out.push(4);
                out.extend_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                out.push(6);
                out.extend_from_slice(&ip.octets());
            }
        }
        out.extend_from_slice(&addr.port().to_be_bytes());
    }
    out.push(spec.channels.len() as u8);
    for channel in &spec.channels {
        put_text(out, &channel.name);
        out.extend_from_slice(&channel.parallelism.to_be_bytes());
        out.push(channel.monotonic.into());
        out.push(channel.compression);
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn bool(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Bad(what)),
        }
    }

    fn counter(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let n = u64::from_be_bytes(self.array()?);
        if n > MAX_COUNTER {
            return Err(DecodeError::Bad(what));
        }
        Ok(n)
    }

    fn version(&mut self) -> Result<(), DecodeError> {
        match self.u8()? {
            VERSION => Ok(()),
            other => Err(DecodeError::Version(other)),
        }
    }

    fn name(&mut self) -> Result<Arc<str>, DecodeError> {
        let length = self.u16()?.into();
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| DecodeError::Bad("text"))?;
        check_name(text).map_err(DecodeError::Bad)?;
        Ok(text.into())
    }

    fn members(&mut self) -> Result<Members, DecodeError> {
        let count = u32::from_be_bytes(self.array()?);
        if count as usize > MAX_MEMBERS {
            return Err(DecodeError::Bad("number of members"));
        }
        let mut members = Members::default();
        let mut last: Option<Arc<str>> = None;
        for _ in 0..count {
            let name = self.name()?;
            if last.is_some_and(|last| last >= name) {
                return Err(DecodeError::Order);
            }
            let epoch = self.counter("epoch")?;
            if epoch == 0 {
                return Err(DecodeError::Bad("epoch"));
            }
            let version = self.counter("version")?;
            let spec = match self.bool("presence")? {
                true => Some(Arc::new(self.spec(name.clone())?)),
                false => None,
            };
            let entry = Entry {
                epoch,
                version,
                spec,
            };
            members.insert(name.clone(), entry);
            last = Some(name);
        }
        Ok(members)
    }

    fn spec(&mut self, name: Arc<str>) -> Result<NodeSpec, DecodeError> {
        let mut listen_addrs = Vec::new();
        for _ in 0..self.u8()? {
            listen_addrs.push(self.addr()?);
        }
        let mut channels = Vec::new();
        for _ in 0..self.u8()? {
            channels.push(MemberChannel {
                name: self.name()?,
                parallelism: self.u16()?,
                monotonic: self.bool("monotonic")?,
                compression: self.u8()?,
            });
        }
        let spec = NodeSpec {
            name,
            listen_addrs,
            channels,
        };
        check_spec(&spec).map_err(DecodeError::Bad)?;
        Ok(spec)
    }

    fn addr(&mut self) -> Result<SocketAddr, DecodeError> {
        let ip = match self.u8()? {
            4 => IpAddr::V4(Ipv4Addr::from(self.array::<4>()?)),
            6 => IpAddr::V6(Ipv6Addr::from(self.array::<16>()?)),
            _ => return Err(DecodeError::Bad("address family")),
        };
        Ok(SocketAddr::new(ip, self.u16()?))
    }

    fn end(&self) -> Result<(), DecodeError> {
        match self.0.len() {
            0 => Ok(()),
            n => Err(DecodeError::Trailing(n)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rich() -> Members {
        let mut members = Members::default();
        let spec = NodeSpec {
            name: "b@h".into(),
            listen_addrs: vec![
                "10.0.0.1:9000".parse().unwrap(),
                "[fe80::1]:9001".parse().unwrap(),
            ],
            channels: vec![MemberChannel {
                name: "gossip".into(),
                parallelism: 4,
                monotonic: true,
                compression: 1,
            }],
        };
        members.insert("b@h".into(), Entry::present(3, 7, Arc::new(spec)));
        let gone = Entry {
            epoch: 2,
            version: 1,
            spec: None,
        };
        members.insert("a@h".into(), gone);
        members
    }

    #[test]
    fn every_prefix_and_every_flipped_bit_of_a_file_is_refused() {
        let bytes = encode_file("b@h", &rich());
        assert_eq!(decode_file("b@h", &bytes), Ok(rich()));
        assert_eq!(
            decode_file("c@h", &bytes),
            Err(DecodeError::Foreign("b@h".into()))
        );
        for n in 0..bytes.len() {
            assert!(decode_file("b@h", &bytes[..n]).is_err());
            let mut bad = bytes.clone();
            bad[n] ^= 1;
            assert!(decode_file("b@h", &bad).is_err(), "byte {n}");
        }
    }

    #[test]
    fn limits_hold() {
        let mut huge = vec![VERSION, 3];
        huge.extend_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(
            decode_message(&huge),
            Err(DecodeError::Bad("number of members"))
        );
        let large = vec![0; MAX_CONTROL_BYTES + 1];
        assert_eq!(
            decode_message(&large),
            Err(DecodeError::TooLarge(large.len()))
        );
        let mut trailing = encode_message(Kind::State, &rich());
        trailing.push(0);
        assert_eq!(decode_message(&trailing), Err(DecodeError::Trailing(1)));
        let twice = {
            let one = encode_message(Kind::State, &rich());
            let mut two = one.clone();
            two[5] = 4;
            two.extend_from_slice(&one[6..]);
            two
        };
        assert_eq!(decode_message(&twice), Err(DecodeError::Order));
    }

    proptest! {
        #[test]
        fn messages_survive(members in super::super::state::tests::members()) {
            for kind in [Kind::Join, Kind::Joined, Kind::State, Kind::Reply] {
                let bytes = encode_message(kind, &members);
                prop_assert_eq!(decode_message(&bytes), Ok((kind, members.clone())));
            }
        }

        #[test]
        fn garbage_is_refused_or_canonical(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok((kind, members)) = decode_message(&bytes) {
                prop_assert_eq!(encode_message(kind, &members), bytes);
            }
        }

        #[test]
        fn mutations_are_refused_or_canonical(
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut bytes = encode_message(Kind::Join, &rich());
            for (at, value) in edits {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if let Ok((kind, members)) = decode_message(&bytes) {
                prop_assert_eq!(encode_message(kind, &members), bytes);
            }
        }
    }
}
