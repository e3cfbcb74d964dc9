//! What travels from node to node, hop by hop.
//!
//! ```text
//! packet:  ttl:8  kind:8  from: text  to: text  body
//! kind 0, ip:      an IPv6 packet between the two nodes' addresses
//! kind 1, found:   the sender's addresses and channels, as in membership messages: the answer to a call
//! kind 2, gone:    node: text    the sender of this has no way to that node
//! ```
//!
//! A call is no packet: it is broadcast (`node: text  ttl:8`), so that every node hears it once.

use std::sync::Arc;

use crate::overlay::codec::{DecodeError, Reader, put_text};
use crate::overlay::{Contact, Peer};

/// What a packet carries. Nodes have names `N` and addresses `A`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body<N = Arc<str>, A = Contact> {
    /// An IPv6 packet.
    Ip(Vec<u8>),
    /// The sender was called, and is here.
    Found(A),
    /// A node on the way has no way to this one.
    Gone(N),
}

/// A packet on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet<N = Arc<str>, A = Contact> {
    /// Who has made it.
    pub from: N,
    /// For whom it is.
    pub to: N,
    /// How many nodes may still pass it on.
    pub ttl: u8,
    /// What it carries.
    pub body: Body<N, A>,
}

impl Packet {
    /// Appends the encoded form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let kind = match &self.body {
            Body::Ip(_) => 0,
            Body::Found(_) => 1,
            Body::Gone(_) => 2,
        };
        out.extend_from_slice(&[self.ttl, kind]);
        put_text(out, &self.from);
        put_text(out, &self.to);
        match &self.body {
            Body::Ip(bytes) => out.extend_from_slice(bytes),
            Body::Found(contact) => contact.encode(out),
            Body::Gone(node) => put_text(out, node),
        }
    }

    /// Reads a packet that fills `bytes`.
    ///
    /// # Errors
    /// What a neighbour must not send.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let (ttl, kind) = (reader.u8()?, reader.u8()?);
        let from = name(&mut reader)?;
        let to = name(&mut reader)?;
        let body = match kind {
            0 => {
                let rest = reader.rest();
                Body::Ip(reader.take(rest.len())?.to_vec())
            }
            1 => Body::Found(Contact::decode(&mut reader)?),
            2 => Body::Gone(name(&mut reader)?),
            _ => return Err(DecodeError::Bad("kind of packet")),
        };
        reader.end()?;
        Ok(Self {
            from,
            to,
            ttl,
            body,
        })
    }
}

/// A call for a node, as it is broadcast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Who is looked for.
    pub node: Arc<str>,
    /// How many links away it may be.
    pub ttl: u8,
}

impl Call {
    /// Appends the encoded form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.ttl);
        put_text(out, &self.node);
    }

    /// Reads a call that fills `bytes`.
    ///
    /// # Errors
    /// What nobody must broadcast.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let ttl = reader.u8()?;
        let node = name(&mut reader)?;
        reader.end()?;
        Ok(Self { node, ttl })
    }
}

fn name(reader: &mut Reader<'_>) -> Result<Arc<str>, DecodeError> {
    let text = reader.text()?;
    if text.is_empty() || text.len() > 255 {
        return Err(DecodeError::Bad("name of a node"));
    }
    Ok(text.into())
}
