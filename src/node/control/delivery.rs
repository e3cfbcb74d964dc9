//! Acknowledged and causal messages: the host of [`delivery`](crate::delivery).
//!
//! Senders whose message has no room wait here, in the order of their tickets for each destination. What goes to a peer is
//! taken from its stream only when its connection has room, so nothing is queued twice. A message for a mailbox that
//! is full stays the first of its stream, and is tried again.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::channel::Ticket;
use crate::connection::host::{Host, ThreadKind};
use crate::connection::inlet::{Subject, binary_term};
use crate::connection::outbox::{Outbox, Outgoing, Pressure, Sent, Waiter, Wake};
use crate::connection::receive::{Undelivered, deliver_aside};
use crate::connection::session::{CloseReason, Session, SessionEvent};
use crate::delivery::causal::Id;
use crate::delivery::{Config, Effect, Event, Lane, Message, State};
use crate::limits::MAX_DELIVERY_WAITING;
use crate::node::runtime::{Delivering, Undeliverable};
use crate::wire::frame::Dest;
use crate::wire::hello::DEFAULT_CHANNEL;

use super::{Control, MEMBERSHIP_CHANNEL};

/// Sender id of these messages: no process has it.
const DELIVERY_SENDER: u64 = u64::MAX - 4;

/// Pause before a mailbox that is full is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(20);

/// Streams of a node, and who waits for them.
pub(super) struct Deliveries {
    state: State,
    effects: VecDeque<Effect>,
    /// Senders without room, by ticket.
    waiting: BTreeMap<u64, Delivering>,
    waiting_bytes: usize,
    waiting_for: HashMap<Arc<str>, usize>,
    /// Places in the queues of connections, numbered.
    lines: BTreeMap<(Arc<str>, Lane), (u64, Ticket)>,
    waits: u64,
    /// Streams whose first message could not be delivered.
    stuck: BTreeSet<(Arc<str>, Lane)>,
    again: Option<Duration>,
    room: bool,
}

/// Tells the control plane that a connection has room for a stream.
struct Line {
    session: Arc<Session>,
    number: u64,
    events: mpsc::UnboundedSender<SessionEvent>,
}

impl Waiter for Line {
    fn wake(&self, why: Wake) {
        if why == Wake::Granted {
            let event = SessionEvent::Line(self.session.clone(), self.number);
            // The receiver is gone only when the node has stopped.
            let _ = self.events.send(event);
        }
    }
}

impl Deliveries {
    pub(super) fn new(config: Config, node: Arc<str>, instance: u64) -> Self {
        Self {
            state: State::new(config, Id { node, instance }),
            effects: VecDeque::new(),
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            waiting_for: HashMap::new(),
            lines: BTreeMap::new(),
            waits: 0,
            stuck: BTreeSet::new(),
            again: None,
            room: false,
        }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        [self.state.deadline(), self.again]
            .into_iter()
            .flatten()
            .min()
    }

    fn wait(&mut self, sender: Delivering) {
        self.waiting_bytes += sender.parcel.len();
        *self.waiting_for.entry(sender.to.clone()).or_default() += 1;
        self.waiting.insert(sender.ticket, sender);
    }

    fn take(&mut self, ticket: u64) -> Option<Delivering> {
        let sender = self.waiting.remove(&ticket)?;
        self.waiting_bytes -= sender.parcel.len();
        if let Some(count) = self.waiting_for.get_mut(&sender.to) {
            *count -= 1;
            if *count == 0 {
                self.waiting_for.remove(&sender.to);
            }
        }
        Some(sender)
    }

    /// Senders that need not wait any longer: for each destination in the order of their tickets.
    fn next_sender(&self) -> Option<u64> {
        let mut blocked = BTreeSet::new();
        for (ticket, sender) in &self.waiting {
            if blocked.contains(&sender.to) {
                continue;
            }
            if self
                .state
                .has_room(&sender.to, &sender.lane, sender.parcel.len())
            {
                return Some(*ticket);
            }
            blocked.insert(sender.to.clone());
            if blocked.len() == self.waiting_for.len() {
                break;
            }
        }
        None
    }
}

/// The connection of a stream, always the same one while the session lives. Those of monotonic channels
/// replace messages, so they are no way for these.
fn way<'a>(session: &'a Session, lane: &Lane) -> Option<&'a Arc<Outbox>> {
    let wanted = match lane {
        Lane::Channel(channel) => channel,
        Lane::Label(_) => DEFAULT_CHANNEL,
    };
    let plain = |name: &&str| session.plan.find(name).is_some_and(|c| !c.monotonic);
    let channel = [wanted, DEFAULT_CHANNEL, MEMBERSHIP_CHANNEL]
        .into_iter()
        .find(plain)?;
    session.route(channel, 0)
}

impl<H: Host> Control<H> {
    /// Whether the overlay is a full mesh: whoever is a member has a session, or gets one again.
    fn is_whole(&self) -> bool {
        self.local.tunnels.is_none()
    }

    /// A user sends a message.
    pub(super) fn accept(&mut self, sender: Delivering) {
        let lasting = self.deliveries.state.knows(&sender.to);
        let member = || self.is_whole() && self.members.iter().any(|m| m.name == sender.to);
        // An order of messages is one of incarnations, and of this node none is known.
        if !lasting && (sender.lane.label().is_some() || !member()) {
            let known = self.new_atoms.contains_key(&sender.to);
            return (sender.reply)(Err(Undeliverable::Unconnected { known }));
        }
        let deliveries = &mut self.deliveries;
        let first = !deliveries.waiting_for.contains_key(&sender.to);
        let bytes = sender.parcel.len();
        if first && deliveries.state.has_room(&sender.to, &sender.lane, bytes) {
            self.admit(sender);
            return self.deliver_on();
        }
        let (senders, most) = MAX_DELIVERY_WAITING;
        let crowded = deliveries.waiting.len() >= senders
            || deliveries.waiting_bytes + bytes > most && !deliveries.waiting.is_empty();
        if !sender.wait || crowded {
            return (sender.reply)(Err(Undeliverable::Busy));
        }
        deliveries.wait(sender);
    }

    /// Whoever waits under this ticket does not want to any longer.
    pub(super) fn withdraw(&mut self, ticket: u64) {
        if let Some(sender) = self.deliveries.take(ticket) {
            (sender.reply)(Err(Undeliverable::Withdrawn));
        }
    }

    fn admit(&mut self, sender: Delivering) {
        self.feed_delivery(Event::Send(sender.to, sender.lane, sender.parcel));
        (sender.reply)(Ok(()));
    }

    pub(super) fn delivery_up(&mut self, session: &Arc<Session>) {
        let name = session.peer.node.clone();
        self.feed_delivery(Event::Up(name, session.instance));
        self.retry();
    }

    /// The present session with a node has ended; `left`: and one of the two has left the cluster.
    pub(super) fn delivery_down(&mut self, name: &Arc<str>, left: bool) {
        self.deliveries.lines.retain(|(to, _), _| to != name);
        self.feed_delivery(Event::Down(name.clone()));
        match left {
            true => self.delivery_left(name.clone()),
            false => self.deliver_on(),
        }
    }

    /// A node has left the cluster: what it has not acknowledged is dropped, and who waits for it is told.
    pub(super) fn delivery_left(&mut self, name: Arc<str>) {
        let gone = |(ticket, sender): (&u64, &Delivering)| (sender.to == name).then_some(*ticket);
        let tickets: Vec<u64> = self.deliveries.waiting.iter().filter_map(gone).collect();
        for ticket in tickets {
            if let Some(sender) = self.deliveries.take(ticket) {
                (sender.reply)(Err(Undeliverable::Unconnected { known: true }));
            }
        }
        self.feed_delivery(Event::Left(name));
        self.deliver_on();
    }

    /// Members that are none any longer have left. Only on a full mesh: elsewhere members are neighbours.
    pub(super) fn delivery_members(&mut self, before: &[crate::overlay::NodeSpec]) {
        if !self.is_whole() {
            return;
        }
        let is_member = |name: &Arc<str>| self.members.iter().any(|m| m.name == *name);
        let left: Vec<Arc<str>> = before
            .iter()
            .map(|m| m.name.clone())
            .filter(|name| !is_member(name))
            .collect();
        for name in left {
            self.delivery_left(name);
        }
    }

    /// This node has left its cluster.
    pub(super) fn delivery_leave(&mut self) {
        let known: Vec<Arc<str>> = self.deliveries.state.known().cloned().collect();
        for name in known {
            self.delivery_left(name);
        }
    }

    /// The node stops.
    pub(super) fn delivery_stop(&mut self) {
        while let Some((_, sender)) = self.deliveries.waiting.pop_first() {
            (sender.reply)(Err(Undeliverable::Stopped));
        }
        let (messages, bytes) = self.deliveries.state.outstanding();
        if messages > 0 {
            tracing::warn!(
                messages,
                bytes,
                "the node stops before all messages are acknowledged"
            );
        }
    }

    /// A peer has sent a message of these.
    pub(super) fn delivery_message(&mut self, session: &Arc<Session>, bytes: &[u8]) {
        let outcome = match Message::decode(bytes) {
            Ok(message) => {
                let from = session.peer.node.clone();
                self.try_feed_delivery(Event::Message(from, message))
            }
            Err(error) => Err(error.into()),
        };
        if let Err(error) = outcome {
            session.close(CloseReason::Protocol(error.to_string()));
        }
        self.deliver_on();
    }

    /// A connection has room for the next message of a stream.
    pub(super) fn line(&mut self, session: &Arc<Session>, number: u64) {
        let to = &session.peer.node;
        if !self.session(to).is_some_and(|s| Arc::ptr_eq(s, session)) {
            return;
        }
        let mut lines = self.deliveries.lines.iter();
        let Some((key, _)) = lines.find(|(_, (n, _))| *n == number) else {
            return;
        };
        let (to, lane) = key.clone();
        if let Some((_, ticket)) = self.deliveries.lines.remove(&(to.clone(), lane.clone())) {
            self.push_stream(&to, &lane, Some(ticket));
            self.deliver_on();
        }
    }

    pub(super) fn delivery_tick(&mut self) {
        self.feed_delivery(Event::Tick);
        if self.deliveries.again.is_some_and(|at| at <= self.now()) {
            self.retry();
        }
        self.deliver_on();
    }

    /// Tries again what could not be delivered.
    fn retry(&mut self) {
        self.deliveries.again = None;
        for (from, lane) in std::mem::take(&mut self.deliveries.stuck) {
            self.deliveries
                .effects
                .push_back(Effect::Deliver(from, lane));
        }
        self.deliver_on();
    }

    fn try_feed_delivery(&mut self, event: Event) -> Result<(), crate::delivery::Error> {
        let now = self.now();
        let mut effects = Vec::new();
        let outcome = self.deliveries.state.handle(now, event, &mut effects);
        self.deliveries.effects.extend(effects);
        outcome
    }

    /// Feeds what can't be wrong.
    fn feed_delivery(&mut self, event: Event) {
        if let Err(error) = self.try_feed_delivery(event) {
            tracing::warn!("{error}");
        }
    }

    /// Does what the streams want, until they want nothing more.
    fn deliver_on(&mut self) {
        loop {
            while let Some(effect) = self.deliveries.effects.pop_front() {
                self.do_delivery(effect);
            }
            if !std::mem::take(&mut self.deliveries.room) {
                return;
            }
            while let Some(ticket) = self.deliveries.next_sender() {
                if let Some(sender) = self.deliveries.take(ticket) {
                    self.admit(sender);
                }
            }
        }
    }

    fn do_delivery(&mut self, effect: Effect) {
        match effect {
            Effect::Ready(to, lane) => {
                if !self
                    .deliveries
                    .lines
                    .contains_key(&(to.clone(), lane.clone()))
                {
                    self.push_stream(&to, &lane, None);
                }
            }
            Effect::Deliver(from, lane) => self.hand_over(from, lane),
            Effect::Reach(node) => {
                if !self.is_whole() {
                    self.ask(node, Box::new(|_| ()));
                }
            }
            Effect::Room => self.deliveries.room = true,
            Effect::Lost(peer, messages, why) => {
                tracing::warn!(%peer, messages, "messages that were not acknowledged are dropped: {why}");
            }
            Effect::Late(peer, label) => {
                tracing::warn!(%peer, %label, "a causal message has come too late and is dropped");
            }
            Effect::GivenUp(peer) => {
                tracing::warn!(%peer, "its causal messages are not waited for any longer");
            }
        }
    }

    /// Sends what a stream has, as far as there is room.
    fn push_stream(&mut self, to: &Arc<str>, lane: &Lane, mut granted: Option<Ticket>) {
        let Some(session) = self.session(to).cloned() else {
            return;
        };
        let Some(outbox) = way(&session, lane) else {
            return;
        };
        while let Some(message) = self.deliveries.state.next(to, lane) {
            let term = binary_term(|out| message.encode(out));
            let dest = Dest::Name(Subject::Delivery.name());
            let outgoing = Outgoing::of(dest, &term, &[], false);
            self.deliveries.waits += 1;
            let number = self.deliveries.waits;
            let pressure = match granted.take() {
                Some(ticket) => Pressure::Granted(ticket),
                None => Pressure::Wait(Arc::new(Line {
                    session: session.clone(),
                    number,
                    events: self.events.clone(),
                })),
            };
            match outbox.send(DELIVERY_SENDER, outgoing, pressure) {
                Sent::Queued => {
                    if matches!(message, Message::Data { .. }) {
                        outbox.set_used();
                    }
                    self.feed_delivery(Event::Sent(to.clone(), message));
                }
                Sent::Waiting(ticket) => {
                    let key = (to.clone(), lane.clone());
                    self.deliveries.lines.insert(key, (number, ticket));
                    return;
                }
                // The session ends, and what is not acknowledged goes by the next one.
                Sent::Closed | Sent::Full | Sent::Invalid => return,
            }
        }
        if let Some(ticket) = granted {
            outbox.cancel(ticket);
        }
    }

    /// Delivers the first message of a stream.
    fn hand_over(&mut self, from: Arc<str>, lane: Lane) {
        let Some(session) = self.session(&from).cloned() else {
            self.deliveries.stuck.insert((from, lane));
            return;
        };
        let (Some(parcel), Some(outbox)) = (
            self.deliveries.state.parcel(&from, &lane),
            session.outbox(0),
        ) else {
            return;
        };
        let delivered = deliver_aside(
            &**self.io.host(),
            self.thread
                .get_or_insert_with(|| self.io.host().thread(ThreadKind::Ordinary)),
            (&session, outbox),
            &self.receive,
            None,
            (parcel.dest, parcel.term),
        );
        match delivered {
            Err(Undelivered::Full) => {
                self.deliveries.stuck.insert((from, lane));
                let at = self.now() + FULL_PAUSE;
                self.deliveries.again.get_or_insert(at);
                return;
            }
            Err(why) if self.complaints.is_new(&from) => {
                tracing::warn!(peer = %from, "a message was not delivered: {why}");
            }
            _ => {}
        }
        self.feed_delivery(Event::Delivered(from, lane));
    }
}
