//! Where messages for the node itself wait for its control plane.
//!
//! I/O threads put them in, the control plane takes them out. What waits is bounded in bytes: a
//! connection that brings more is not read until half of it is taken.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::connection::outbox::Outbox;
use crate::connection::session::Session;
use crate::limits::INLET_BYTES;

/// What a message for the control plane is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Who is a member, and who keeps links to whom.
    Membership,
    /// A broadcast on its way.
    Broadcast,
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
