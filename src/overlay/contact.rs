//! How real nodes stand in membership messages: by name, addresses and channels.
//!
//! ```text
//! contact:  name: text, spec
//! spec:     count:8 of addresses (family:8 (4, 6), IP address, port:16)
//!           count:8 of channels (name: text, parallelism:16, monotonic:8 (0, 1), compression:8)
//! ```
//!
//! The zone of an IPv6 address has a meaning on its own host only and does not travel.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::codec::{DecodeError, Reader, put_text};
use super::contract::Peer;
use super::{MemberChannel, NodeSpec};
use crate::limits::{MAX_ATOM_CHARS, MAX_CHANNELS, MAX_PARALLELISM};

/// Most listen addresses of one node.
pub const MAX_ADDRS: usize = 64;

/// A node with what it takes to reach it. Two contacts are equal if their names are.
#[derive(Clone, Debug)]
pub struct Contact(Arc<NodeSpec>);

impl Contact {
    /// A contact from a specification that other nodes accept.
    pub fn new(spec: NodeSpec) -> Result<Self, &'static str> {
        check_spec(&spec)?;
        Ok(Self(Arc::new(as_seen_by_others(spec))))
    }

    /// A contact by its name alone, which nobody can dial.
    pub fn named(name: Arc<str>) -> Self {
        Self(Arc::new(NodeSpec {
            name,
            listen_addrs: Vec::new(),
            channels: Vec::new(),
        }))
    }

    /// From a specification that came from a contact.
    pub(super) fn from_checked(spec: Arc<NodeSpec>) -> Self {
        Self(spec)
    }

    /// Its specification.
    pub fn spec(&self) -> &Arc<NodeSpec> {
        &self.0
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.0.name
    }
}

impl PartialEq for Contact {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for Contact {}

impl PartialOrd for Contact {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Contact {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.name.cmp(&other.0.name)
    }
}

impl Hash for Contact {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

impl Borrow<str> for Contact {
    fn borrow(&self) -> &str {
        &self.0.name
    }
}

impl Peer for Contact {
    fn encode(&self, out: &mut Vec<u8>) {
        put_text(out, &self.0.name);
        put_spec(out, &self.0);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let name = read_name(reader)?;
        Ok(Self(Arc::new(read_spec(reader, name)?)))
    }
}

/// A node by its name alone, for protocols that run over links which others make.
impl Peer for Arc<str> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_text(out, self);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        read_name(reader)
    }
}

/// Checks that others will accept this specification; else names the field.
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

// Lengths fit their fields: a specification was checked or decoded before it comes here.
pub(super) fn put_spec(out: &mut Vec<u8>, spec: &NodeSpec) {
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

pub(super) fn read_name(reader: &mut Reader<'_>) -> Result<Arc<str>, DecodeError> {
    let text = reader.text()?;
    check_name(text).map_err(DecodeError::Bad)?;
    Ok(text.into())
}

pub(super) fn read_spec(reader: &mut Reader<'_>, name: Arc<str>) -> Result<NodeSpec, DecodeError> {
    let mut listen_addrs = Vec::new();
    for _ in 0..reader.u8()? {
        listen_addrs.push(read_addr(reader)?);
    }
    let mut channels = Vec::new();
    for _ in 0..reader.u8()? {
        channels.push(MemberChannel {
            name: read_name(reader)?,
            parallelism: reader.u16()?,
            monotonic: reader.bool("monotonic")?,
            compression: reader.u8()?,
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

fn read_addr(reader: &mut Reader<'_>) -> Result<SocketAddr, DecodeError> {
    let ip = match reader.u8()? {
        4 => IpAddr::V4(Ipv4Addr::from(reader.array::<4>()?)),
        6 => IpAddr::V6(Ipv6Addr::from(reader.array::<16>()?)),
        _ => return Err(DecodeError::Bad("address family")),
    };
    Ok(SocketAddr::new(ip, reader.u16()?))
}
