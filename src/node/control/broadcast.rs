//! Broadcasts of this node and through it: Plumtree's host.
//!
//! A broadcast is a message to the process that is registered under a name, on every node. On its way it is
//! `name: text, term`; each node checks the term as it checks any other that comes from a peer.
//!
//! What goes to a neighbour waits for room like every other message. A neighbour for which more waits than
//! [`BROADCAST_BACKLOG_BYTES`] has been left behind: what waits for it is dropped, and when the connection moves again
//! it is told anew what there is, by announcements, and asks for what it misses.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::broadcast::plumtree::{Config, Message, Plumtree};
use crate::broadcast::{self, Broadcast, Effect, Event};
use crate::channel::Ticket;
use crate::connection::host::{Host, ThreadKind};
use crate::connection::inlet::{Subject, binary_term, subject};
use crate::connection::outbox::{Outgoing, Pressure, Sent, Waiter, Wake};
use crate::connection::receive::deliver_aside;
use crate::connection::session::{CloseReason, Session, SessionEvent};
use crate::limits::BROADCAST_BACKLOG_BYTES;
use crate::node::runtime::BroadcastView;
use crate::overlay::Wire;
use crate::overlay::codec::{Reader, put_text};
use crate::wire::frame::Dest;
use crate::wire::hello::DEFAULT_CHANNEL;

use super::Control;

/// Sender id of broadcasts: no process has it.
const BROADCAST_SENDER: u64 = u64::MAX - 2;

/// Broadcasts of a node, and what waits for its neighbours.
pub(super) struct Spread {
    tree: Plumtree<Arc<str>>,
    backlogs: BTreeMap<Arc<str>, Backlog>,
}

#[derive(Default)]
struct Backlog {
    waiting: VecDeque<Bytes>,
    bytes: usize,
    ticket: Option<Ticket>,
    /// Something was dropped: the neighbour has to be told anew what there is.
    behind: bool,
}

/// Tells the control plane that a session has room again.
struct Room {
    session: Arc<Session>,
    events: mpsc::UnboundedSender<SessionEvent>,
}

impl Waiter for Room {
    fn wake(&self, why: Wake) {
        if why == Wake::Granted {
            // The receiver is gone only when the node has stopped.
            let _ = self.events.send(SessionEvent::Room(self.session.clone()));
        }
    }
}

impl Spread {
    pub(super) fn new(config: Config, own: Arc<str>) -> Self {
        // A later life has a greater number, unless the clock was set back in between.
        let life = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_micros() as u64);
        Self {
            tree: Plumtree::new(config, own, life),
            backlogs: BTreeMap::new(),
        }
    }

    pub(super) fn view(&self, root: &Arc<str>) -> BroadcastView {
        BroadcastView {
            eager: self.tree.eager(Some(root)),
            lazy: self.tree.lazy(Some(root)),
        }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.tree.deadline()
    }
}

impl<H: Host> Control<H> {
    /// Broadcasts a term to the processes of this name.
    pub(super) fn broadcast(&mut self, name: &str, term: &[u8]) -> Result<(), String> {
        if subject(name).is_some() {
            return Err(format!("the name {name} is for the nodes' own use"));
        }
        let mut payload = Vec::with_capacity(2 + name.len() + term.len());
        put_text(&mut payload, name);
        payload.extend_from_slice(term);
        self.spread(Event::Broadcast(payload.into()), None)
            .map_err(|e| e.to_string())
    }

    /// A neighbour has sent a message of the protocol.
    pub(super) fn broadcast_message(&mut self, session: &Arc<Session>, bytes: &[u8]) {
        let mut reader = Reader::new(bytes);
        let message = Message::decode(&mut reader).and_then(|m| reader.end().map(|()| m));
        let outcome = match message {
            Ok(message) => {
                let from = session.peer.node.clone();
                self.spread(Event::Message { from, message }, Some(session))
            }
            Err(error) => Err(broadcast::Error::Message(error)),
        };
        if let Err(error) = outcome {
            session.close(CloseReason::Protocol(error.to_string()));
        }
    }

    pub(super) fn spread(
        &mut self,
        event: Event<Arc<str>, Message<Arc<str>>>,
        session: Option<&Arc<Session>>,
    ) -> Result<(), broadcast::Error> {
        let now = self.now();
        let mut effects = Vec::new();
        let outcome = self
            .spread
            .tree
            .handle(now, event, &mut rand::rng(), &mut effects);
        for effect in effects {
            match effect {
                Effect::Send { to, message } => {
                    self.pass(&to, binary_term(|out| message.encode(out)));
                }
                Effect::Deliver { id, payload, hops } => {
                    if let Some(session) = session {
                        self.hand_in(session, &id.root, &payload, hops);
                    }
                }
            }
        }
        outcome
    }

    /// Feeds the tree what can't be refused.
    pub(super) fn spread_on(&mut self, event: Event<Arc<str>, Message<Arc<str>>>) {
        if let Err(error) = self.spread(event, None) {
            tracing::warn!("{error}");
        }
    }

    fn hand_in(&mut self, session: &Arc<Session>, root: &Arc<str>, payload: &[u8], hops: u32) {
        let mut reader = Reader::new(payload);
        let Ok(name) = reader.text() else {
            tracing::warn!(peer = %root, "broadcast without a name");
            return;
        };
        if name == Subject::Relay.name() {
            self.called(session, root, reader.rest(), hops);
            return;
        }
        let Some(outbox) = session.outbox(0) else {
            return;
        };
        let delivered = deliver_aside(
            &**self.io.host(),
            self.thread
                .get_or_insert_with(|| self.io.host().thread(ThreadKind::Ordinary)),
            (session, outbox),
            &self.receive,
            Some(root),
            (Dest::Name(name), reader.rest()),
        );
        if let Err(why) = delivered
            && self.complaints.is_new(root)
        {
            tracing::warn!(peer = %root, %name, "a broadcast was not delivered: {why}");
        }
    }

    /// Sends to a neighbour, behind what waits for it.
    fn pass(&mut self, to: &Arc<str>, term: Bytes) {
        let Some(session) = self.session(to).cloned() else {
            return;
        };
        let backlog = self.spread.backlogs.entry(to.clone()).or_default();
        if backlog.behind {
            return;
        }
        if backlog.bytes + term.len() > BROADCAST_BACKLOG_BYTES {
            tracing::debug!(peer = %to, "left behind by broadcasts");
            backlog.behind = true;
            backlog.waiting.clear();
            backlog.bytes = 0;
            return;
        }
        backlog.bytes += term.len();
        backlog.waiting.push_back(term);
        if backlog.ticket.is_none() {
            self.push_on(to, &session, None);
        }
    }

    /// Sends what waits for a neighbour as far as there is room.
    fn push_on(&mut self, to: &Arc<str>, session: &Arc<Session>, mut granted: Option<Ticket>) {
        let route = session
            .route(DEFAULT_CHANNEL, 0)
            .or_else(|| session.outbox(0));
        let (Some(outbox), Some(backlog)) = (route, self.spread.backlogs.get_mut(to)) else {
            return;
        };
        while let Some(term) = backlog.waiting.front() {
            let message = Outgoing::of(Dest::Name(Subject::Broadcast.name()), term, &[], false);
            let pressure = match granted.take() {
                Some(ticket) => Pressure::Granted(ticket),
                None => Pressure::Wait(Arc::new(Room {
                    session: session.clone(),
                    events: self.events.clone(),
                })),
            };
            match outbox.send(BROADCAST_SENDER, message, pressure) {
                Sent::Waiting(ticket) => {
                    backlog.ticket = Some(ticket);
                    return;
                }
                Sent::Queued => {}
                // The end of the session is told apart.
                Sent::Closed | Sent::Full | Sent::Invalid => {}
            }
            if let Some(term) = backlog.waiting.pop_front() {
                backlog.bytes -= term.len();
            }
        }
        if let Some(ticket) = granted {
            outbox.cancel(ticket);
        }
    }

    /// A session has room for the broadcast that waits first.
    pub(super) fn room(&mut self, session: &Arc<Session>) {
        let to = session.peer.node.clone();
        if !self.session(&to).is_some_and(|s| Arc::ptr_eq(s, session)) {
            return;
        }
        let Some(backlog) = self.spread.backlogs.get_mut(&to) else {
            return;
        };
        let ticket = backlog.ticket.take();
        self.push_on(&to, session, ticket);
        let backlog = self.spread.backlogs.get_mut(&to);
        if backlog.is_some_and(|b| std::mem::take(&mut b.behind)) {
            // For the tree it is a new neighbour: all that is kept is announced.
            self.spread_on(Event::NeighborDown(to.clone()));
            self.spread_on(Event::NeighborUp(to));
        }
    }

    /// The session with this node has ended, and with it what waited.
    pub(super) fn forget_backlog(&mut self, name: &str) {
        self.spread.backlogs.remove(name);
    }
}
