//! Sending with acknowledgement, and in causal order.
//!
//! Such a message goes through the control plane, which keeps it until it is acknowledged: some microseconds more than
//! the usual way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::delivery::{Lane, Parcel};
use crate::limits::MAX_DELIVERY_BYTES;
use crate::node::api::Node;
use crate::node::runtime::{Command, Delivering, Undeliverable};
use crate::node::send::{Destination, SendError, SendOptions, Timer};
use crate::wire::hello::DEFAULT_CHANNEL;
use crate::wire::term::Term;

/// Tickets of all nodes of this program.
static TICKETS: AtomicU64 = AtomicU64::new(1);

/// A place among those who wait, given back unless the message is taken.
struct Waiting<'a> {
    node: &'a Node,
    ticket: Option<u64>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let command = Command::Withdraw(ticket);
            self.node.inner().runtime.command(command);
        }
    }
}

impl Node {
    /// [`Node::send_with`] for a message to another node that asks for more than order.
    pub(crate) async fn deliver(
        &self,
        to: Destination<'_>,
        term: &Term,
        options: &SendOptions,
        wait: bool,
    ) -> Result<(), SendError> {
        self.sendable(to, term)?;
        let lane = self.lane_of(to, options)?;
        let dest = to.at_node().ok_or(SendError::Alias)?;
        term.common().map_err(SendError::Foreign)?;
        let whole = term.to_external();
        if whole.len() > MAX_DELIVERY_BYTES {
            return Err(SendError::Limit("max_delivery_bytes"));
        }
        let mut parcel = Vec::with_capacity(whole.len() + 64);
        let term = &whole;
        Parcel { dest, term }.encode(&mut parcel);
        let parcel = Bytes::from(parcel);
        let node: Arc<str> = to.node().into();
        let waiting = async {
            loop {
                match self.offer(&node, &lane, &parcel, wait).await {
                    Err(e) if wait && self.may_reach(&e) => self.reach(&node).await?,
                    outcome => return outcome,
                }
            }
        };
        match options.timeout {
            Some(timeout) if wait => {
                let timer = Timer::start(self.inner().runtime.timers(), timeout);
                tokio::select! {
                    biased;
                    outcome = waiting => outcome,
                    () = timer.fired() => Err(SendError::Timeout),
                }
            }
            _ => waiting.await,
        }
    }

    async fn offer(
        &self,
        node: &Arc<str>,
        lane: &Lane,
        parcel: &Bytes,
        wait: bool,
    ) -> Result<(), SendError> {
        let ticket = TICKETS.fetch_add(1, Ordering::Relaxed);
        let mut place = Waiting {
            node: self,
            ticket: Some(ticket),
        };
        let asked = self.inner().runtime.ask(|reply| {
            Command::Deliver(Delivering {
                to: node.clone(),
                lane: lane.clone(),
                parcel: parcel.clone(),
                wait,
                ticket,
                reply,
            })
        });
        let outcome = asked.await;
        place.ticket = None;
        match outcome {
            Some(Ok(())) => Ok(()),
            Some(Err(Undeliverable::Unconnected { known: true })) => Err(SendError::Disconnected),
            Some(Err(Undeliverable::Unconnected { known: false })) => {
                Err(SendError::NotYetConnected)
            }
            Some(Err(Undeliverable::Busy)) => Err(SendError::Busy),
            Some(Err(Undeliverable::Withdrawn)) => Err(SendError::Timeout),
            Some(Err(Undeliverable::Stopped)) | None => Err(SendError::NotAlive),
        }
    }

    fn lane_of(&self, to: Destination<'_>, options: &SendOptions) -> Result<Lane, SendError> {
        if let Some(label) = &options.causal {
            return match self.inner().causal_labels.contains(label) {
                true => Ok(Lane::Label(label.clone())),
                false => Err(SendError::UnknownLabel(label.clone())),
            };
        }
        let channel = match &options.channel {
            None => Arc::from(DEFAULT_CHANNEL),
            Some(channel) => {
                if let Some(session) = self.inner().view.session(to.node())
                    && session.route(channel, 0).is_none()
                {
                    match options.fallback {
                        true => DEFAULT_CHANNEL.into(),
                        false => return Err(SendError::NoChannel(channel.clone())),
                    }
                } else {
                    channel.clone()
                }
            }
        };
        Ok(Lane::Channel(channel))
    }
}
