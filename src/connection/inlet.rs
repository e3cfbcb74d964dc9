//! Where messages for the node itself wait for its control plane.
//!
//! I/O threads put them in, the control plane takes them out. What waits is bounded in bytes: a
//! connection that brings more is not read until half of it is taken.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::connection::outbox::Outbox;
use crate::connection::session::Session;
use crate::limits::{
    INLET_BYTES, MAX_BROADCAST_MESSAGE_BYTES, MAX_CONTROL_BYTES, MAX_DELIVERY_MESSAGE_BYTES,
    MAX_RELAYED_BYTES,
};

/// What a message for the control plane is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Who is a member, and who keeps links to whom.
    Membership,
    /// A broadcast on its way.
    Broadcast,
    /// A packet on its way to a node that has no link with its sender.
    Relay,
    /// A message that is acknowledged, or an acknowledgement.
    Delivery,
}

impl Subject {
    /// The name that such messages are sent to.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Membership => "partisan_membership",
            Self::Broadcast => "partisan_broadcast",
            Self::Relay => "partisan_relay",
            Self::Delivery => "partisan_delivery",
        }
    }

    /// Most bytes that such a message may have.
    const fn limit(self) -> usize {
        match self {
            Self::Membership => MAX_CONTROL_BYTES,
            Self::Broadcast => MAX_BROADCAST_MESSAGE_BYTES,
            Self::Relay => MAX_RELAYED_BYTES,
            Self::Delivery => MAX_DELIVERY_MESSAGE_BYTES,
        }
    }
}

/// What messages to this name are about, if they are for the node itself and not for a process.
pub fn subject(name: &str) -> Option<Subject> {
    [
        Subject::Membership,
        Subject::Broadcast,
        Subject::Relay,
        Subject::Delivery,
    ]
    .into_iter()
    .find(|subject| subject.name() == name)
}

/// A message for another node's control plane as the term that frames carry, a binary, whose bytes
/// `encode` appends.
pub(crate) fn binary_term(encode: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut term = vec![131, 109, 0, 0, 0, 0];
    encode(&mut term);
    // Messages of the control plane are far smaller than 4 GiB.
    let length = (term.len() - 6) as u32;
    term[2..6].copy_from_slice(&length.to_be_bytes());
    term.into()
}

/// Passes such a term, which a connection of `session` has brought, to the control plane. False if it has to
/// wait: the connection is resumed then.
///
/// # Errors
/// It is no such term, or has too many bytes.
pub(crate) fn offer(
    session: &Arc<Session>,
    outbox: &Arc<Outbox>,
    subject: Subject,
    term: &[u8],
) -> Result<bool, &'static str> {
    let [131, 109, _, _, _, _, bytes @ ..] = term else {
        return Err("message to the node itself is not a binary");
    };
    if bytes.len() > subject.limit() {
        return Err("message to the node itself is over its limit");
    }
    let message = ControlMessage {
        session: session.clone(),
        subject,
        bytes: bytes.to_vec(),
    };
    Ok(session.inlet.offer(message, outbox).is_ok())
}

/// A message for the control plane of this node.
#[derive(Debug)]
pub struct ControlMessage {
    /// The session that it came by.
    pub session: Arc<Session>,
    /// What it is about.
    pub subject: Subject,
    /// Payload: the bytes of the binary that the message is.
    pub bytes: Vec<u8>,
}

/// The way in.
#[derive(Debug)]
pub struct Inlet {
    messages: mpsc::UnboundedSender<ControlMessage>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    bytes: usize,
    stalled: Vec<Arc<Outbox>>,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes, {} stalled", self.bytes, self.stalled.len())
    }
}

impl Inlet {
    /// A way in, and where what was put in comes out.
    pub fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<ControlMessage>) {
        let (messages, receiver) = mpsc::unbounded_channel();
        let held = Mutex::default();
        (Arc::new(Self { messages, held }), receiver)
    }

    /// Puts a message in; gives it back if there is no room. The connection of `outbox`, which has
    /// brought it, is then resumed when there is.
    pub(crate) fn offer(
        &self,
        message: ControlMessage,
        outbox: &Arc<Outbox>,
    ) -> Result<(), ControlMessage> {
        {
            let mut held = self.held.lock();
            if held.bytes >= INLET_BYTES {
                held.stalled.push(outbox.clone());
                return Err(message);
            }
            held.bytes += message.bytes.len();
        }
        // The receiver is gone only when the node has stopped.
        let _ = self.messages.send(message);
        Ok(())
    }

    /// The control plane has done with a message of so many bytes.
    pub(crate) fn taken(&self, bytes: usize) {
        let stalled = {
            let mut held = self.held.lock();
            held.bytes = held.bytes.saturating_sub(bytes);
            if held.bytes > INLET_BYTES / 2 {
                return;
            }
            std::mem::take(&mut held.stalled)
        };
        for outbox in stalled {
            outbox.resume();
        }
    }
}
