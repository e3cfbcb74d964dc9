//! Acknowledged delivery.
//!
//! Two nodes have a stream of numbered messages in each direction for each channel. The sender keeps a message until the
//! receiver says that it has delivered it; the receiver takes the next number only, and so delivers each message once
//! and in order. Sessions are in order and lose nothing while they live. So something can be missing only after a session has
//! broken: then everything that is not acknowledged is sent again, in order, over the next one (go-back-N, as in
//! Tanenbaum's *Computer Networks*). A timer, which sends the first of them again, is a safety net only.
//!
//! The receiver acknowledges what it has delivered, all at once for up to 64 messages or 20 ms. What has come and can't be
//! delivered yet it holds, within bounds; what has no room it drops, and asks for it when there is room again. So a receiver
//! that doesn't keep up fills the sender's store, which is bounded too, and in the end senders wait.
//!
//! Numbers go up for ever. A life of a stream, an epoch, begins when either node has started anew or forgotten the other,
//! and each message says with which number its epoch has begun: whatever came before is not waited for. What an
//! old incarnation of the receiver did not acknowledge goes to the new one: at least once across a restart, exactly once
//! otherwise. Causal messages were ordered for the old incarnation, and end with it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::limits::{
    DELIVERY_ACK_DELAY, DELIVERY_ACK_EVERY, DELIVERY_HELD_BYTES, DELIVERY_HOLD_BYTES,
    DELIVERY_PEER_MESSAGES, DELIVERY_STORE_BYTES, MAX_DELIVERY_LANES, MAX_DELIVERY_PAUSE,
    MAX_DELIVERY_PEERS,
};

use super::{Lane, Message};

/// Bounds and times.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes that are not acknowledged, of all peers; one may have a quarter.
    pub bytes: usize,
    /// Messages that one peer has not acknowledged.
    pub messages: usize,
    /// Bytes held for one stream.
    pub hold: usize,
    /// Bytes held for all streams.
    pub held: usize,
    /// Pause before the first unacknowledged message is sent again; it doubles.
    pub retransmit: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bytes: DELIVERY_STORE_BYTES,
            messages: DELIVERY_PEER_MESSAGES,
            hold: DELIVERY_HOLD_BYTES,
            held: DELIVERY_HELD_BYTES,
            retransmit: Duration::from_secs(1),
        }
    }
}

/// What happens to the streams.
#[derive(Clone, Debug)]
pub enum Event {
    /// A session with this incarnation of a node is up.
    Up(Arc<str>, u64),
    /// It has ended.
    Down(Arc<str>),
    /// The node has left the cluster.
    Left(Arc<str>),
    /// A message has come from a node; whether it would be delivered at once.
    Message(Arc<str>, Message, bool),
    /// Send this; there is room, see [`State::has_room`].
    Send {
        /// The node.
        to: Arc<str>,
        /// The stream.
        lane: Lane,
        /// What is to be delivered.
        body: Bytes,
    },
    /// What [`State::next`] has given for this node is on its way.
    Sent(Arc<str>, Message),
    /// What [`State::head`] has given for this stream is delivered, or never will be.
    Delivered(Arc<str>, Lane),
    /// A deadline is over.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// There is something to send to a node; see [`State::next`].
    Ready(Arc<str>, Lane),
    /// A message has become the first of a stream that waits to be delivered; see [`State::head`].
    Head(Arc<str>, Lane),
    /// A node without a session has to get messages.
    Reach(Arc<str>),
    /// All messages to a node before this number are delivered.
    Done(Arc<str>, Lane, u64),
    /// This many messages to a node were dropped.
    Lost(Arc<str>, u64, &'static str),
}

/// What a peer has done wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It has opened more streams than there may be.
    #[error("more than {MAX_DELIVERY_LANES} streams of acknowledged messages")]
    Lanes,
    /// It acknowledges what was never sent.
    #[error("acknowledges messages that were not sent")]
    Ack,
}

/// Messages to a node.
#[derive(Debug)]
struct Outgoing {
    epoch: u64,
    start: u64,
    /// Number of the first in `queue`.
    base: u64,
    queue: VecDeque<Bytes>,
    /// Number of the next that is sent.
    cursor: u64,
    /// The first goes once more.
    probe: bool,
    pause: Duration,
    alarm: Option<Duration>,
    armed: bool,
}

impl Outgoing {
    fn next_number(&self) -> u64 {
        self.base + self.queue.len() as u64
    }

    fn at(&self, number: u64) -> Option<&Bytes> {
        let index = number.checked_sub(self.base)?;
        self.queue.get(usize::try_from(index).ok()?)
    }

    fn has_more(&self) -> bool {
        self.probe && !self.queue.is_empty() || self.cursor < self.next_number()
    }

    /// Everything that is kept belongs to a new epoch.
    fn renew(&mut self, epoch: u64) {
        self.epoch = epoch;
        self.start = self.base;
        self.cursor = self.base;
        self.probe = false;
        self.alarm = None;
    }

    fn forget_all(&mut self) -> (u64, usize) {
        let lost = self.queue.len() as u64;
        let bytes = self.queue.iter().map(Bytes::len).sum();
        self.base = self.next_number();
        self.queue.clear();
        (lost, bytes)
    }
}

/// A message that has come.
#[derive(Debug)]
struct Held {
    generation: u64,
    number: u64,
    start: u64,
    body: Bytes,
}

/// Messages from a node.
#[derive(Debug, Default)]
struct Incoming {
    /// 0: none yet.
    epoch: u64,
    start: u64,
    /// Counts epochs, so that what is left of an old one doesn't count for the new.
    generation: u64,
    received: u64,
    done: u64,
    pending: VecDeque<Held>,
    held: usize,
    /// The sender has been told, or knows, that it must go back.
    asked: bool,
    /// Something was dropped for want of room.
    refused: bool,
    again: bool,
    due: bool,
    unacknowledged: u32,
    armed: bool,
}

impl Incoming {
    fn begin(&mut self, epoch: u64, start: u64) {
        self.epoch = epoch;
        self.start = start;
        self.generation += 1;
        self.received = start;
        self.done = start;
        self.asked = false;
        self.refused = false;
        self.again = false;
        self.due = false;
        self.unacknowledged = 0;
    }
}

#[derive(Debug, Default)]
struct Peer {
    instance: u64,
    up: bool,
    out: BTreeMap<Lane, Outgoing>,
    incoming: BTreeMap<Lane, Incoming>,
    bytes: usize,
    messages: usize,
    pause: Duration,
    reach: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Ack(Arc<str>, Lane),
    Alarm(Arc<str>, Lane),
    Reach(Arc<str>),
}

/// The streams of a node.
#[derive(Debug)]
pub struct State {
    config: Config,
    peers: BTreeMap<Arc<str>, Peer>,
    timers: BTreeSet<(Duration, Timer)>,
    bytes: usize,
    held: usize,
    epochs: u64,
    /// No number below this is used for a stream that begins.
    floor: u64,
    /// Streams of which something was dropped for want of room.
    refused: BTreeSet<(Arc<str>, Lane)>,
}

impl State {
    /// No streams.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            peers: BTreeMap::new(),
            timers: BTreeSet::new(),
            bytes: 0,
            held: 0,
            epochs: 0,
            floor: 0,
            refused: BTreeSet::new(),
        }
    }

    /// When [`Event::Tick`] is wanted.
    pub fn deadline(&self) -> Option<Duration> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The incarnation of a node that messages are for, if there has been a session with it.
    pub fn instance(&self, peer: &str) -> Option<u64> {
        self.peers.get(peer).map(|p| p.instance)
    }

    /// Whether there is a session with a node.
    pub fn is_up(&self, peer: &str) -> bool {
        self.peers.get(peer).is_some_and(|p| p.up)
    }

    /// Messages that are not acknowledged, and their bytes.
    pub fn outstanding(&self) -> (usize, usize) {
        (self.peers.values().map(|p| p.messages).sum(), self.bytes)
    }

    /// Nodes that streams are kept for.
    pub fn known(&self) -> impl Iterator<Item = &Arc<str>> {
        self.peers.keys()
    }

    /// Whether a message of so many bytes may be sent to a node.
    pub fn has_room(&self, to: &str, bytes: usize) -> bool {
        let (peer_bytes, messages) = self.peers.get(to).map_or((0, 0), |p| (p.bytes, p.messages));
        let fits = |used: usize, limit: usize| used == 0 || used + bytes <= limit;
        messages < self.config.messages
            && fits(peer_bytes, self.config.bytes / 4)
            && fits(self.bytes, self.config.bytes)
    }

    /// What goes next to a node, which has to be up: an acknowledgement first.
    pub fn next(&self, to: &str, lane: &Lane) -> Option<Message> {
        let peer = self.peers.get(to).filter(|p| p.up)?;
        if let Some(incoming) = peer.incoming.get(lane)
            && incoming.due
        {
            return Some(Message::Ack {
                lane: lane.clone(),
                epoch: incoming.epoch,
                done: incoming.done,
                received: incoming.received,
                again: incoming.again,
            });
        }
        let out = peer.out.get(lane).filter(|out| out.has_more())?;
        let number = match out.probe {
            true => out.base,
            false => out.cursor,
        };
        Some(Message::Data {
            lane: lane.clone(),
            epoch: out.epoch,
            start: out.start,
            number,
            body: out.at(number)?.clone(),
        })
    }

    /// The message of a stream that is to be delivered next: its number, that of the first of its epoch, and its body.
    pub fn head(&self, from: &str, lane: &Lane) -> Option<(u64, u64, &Bytes)> {
        let head = self.peers.get(from)?.incoming.get(lane)?.pending.front()?;
        Some((head.number, head.start, &head.body))
    }

    /// The number that the next message of a stream gets.
    pub fn number(&self, to: &str, lane: &Lane) -> u64 {
        let out = self.peers.get(to).and_then(|p| p.out.get(lane));
        out.map_or(self.floor, Outgoing::next_number)
    }

    /// All before this number have come of a stream.
    pub fn received(&self, from: &str, lane: &Lane) -> u64 {
        let incoming = self.peers.get(from).and_then(|p| p.incoming.get(lane));
        incoming.map_or(0, |i| i.received)
    }

    /// Feeds it what happens.
    ///
    /// # Errors
    /// A peer has broken a rule: its session has to end.
    pub fn handle(
        &mut self,
        now: Duration,
        event: Event,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Error> {
        match event {
            Event::Up(peer, instance) => self.up(peer, instance, effects),
            Event::Down(peer) => self.down(now, &peer),
            Event::Left(peer) => self.left(&peer, effects),
            Event::Message(from, Message::Data { .. }, _) if !self.is_up(&from) => {}
            Event::Message(from, message, prompt) => match message {
                Message::Data {
                    lane,
                    epoch,
                    start,
                    number,
                    body,
                } => {
                    let numbers = (epoch, start, number);
                    return self.data(now, &from, lane, numbers, (body, prompt), effects);
                }
                Message::Ack {
                    lane,
                    epoch,
                    done,
                    received,
                    again,
                } => return self.ack(now, &from, lane, (epoch, done, received), again, effects),
            },
            Event::Send { to, lane, body } => self.send(now, to, lane, body, effects),
            Event::Sent(to, message) => self.sent(now, &to, &message),
            Event::Delivered(from, lane) => self.delivered(now, &from, &lane, effects),
            Event::Tick => self.tick(now, effects),
        }
        Ok(())
    }

    fn up(&mut self, name: Arc<str>, instance: u64, effects: &mut Vec<Effect>) {
        self.make_place(&name);
        let peer = self.peers.entry(name.clone()).or_default();
        let restarted = peer.instance != instance && peer.instance != 0;
        peer.instance = instance;
        peer.up = true;
        peer.reach = None;
        peer.pause = self.config.retransmit;
        for (lane, out) in &mut peer.out {
            out.pause = self.config.retransmit;
            out.alarm = None;
            out.probe = false;
            out.cursor = out.base;
            if restarted {
                self.epochs += 1;
                if lane.label().is_some() {
                    let (lost, bytes) = out.forget_all();
                    peer.bytes -= bytes;
                    peer.messages -= lost as usize;
                    self.bytes -= bytes;
                    if lost > 0 {
                        let why = "causal messages to a node that has restarted";
                        effects.push(Effect::Lost(name.clone(), lost, why));
                    }
                }
                out.renew(self.epochs);
            }
            if out.has_more() {
                effects.push(Effect::Ready(name.clone(), lane.clone()));
            }
        }
        for (lane, incoming) in &mut peer.incoming {
            incoming.asked = false;
            if restarted {
                incoming.begin(0, 0);
                if lane.label().is_some() {
                    self.held -= incoming.held;
                    incoming.held = 0;
                    incoming.pending.clear();
                }
            } else if incoming.epoch != 0 {
                incoming.due = true;
                effects.push(Effect::Ready(name.clone(), lane.clone()));
            }
        }
    }

    /// Forgets a node that nothing is kept for, if there are too many.
    fn make_place(&mut self, name: &Arc<str>) {
        if self.peers.len() < MAX_DELIVERY_PEERS || self.peers.contains_key(name) {
            return;
        }
        let idle = |p: &Peer| !p.up && p.messages == 0 && p.incoming.values().all(|i| i.held == 0);
        let found = self.peers.iter().find(|(_, p)| idle(p));
        if let Some(name) = found.map(|(name, _)| name.clone()) {
            self.forget(&name);
        }
    }

    fn forget(&mut self, name: &str) -> u64 {
        let Some(peer) = self.peers.remove(name) else {
            return 0;
        };
        self.bytes -= peer.bytes;
        self.held -= peer.incoming.values().map(|i| i.held).sum::<usize>();
        let highest = peer.out.values().map(Outgoing::next_number).max();
        self.floor = self.floor.max(highest.unwrap_or(0));
        peer.messages as u64
    }

    fn down(&mut self, now: Duration, name: &Arc<str>) {
        let Some(peer) = self.peers.get_mut(name) else {
            return;
        };
        peer.up = false;
        self.reach_at(now, name);
    }

    fn reach_at(&mut self, at: Duration, name: &Arc<str>) {
        if let Some(peer) = self.peers.get_mut(name)
            && !peer.up
            && peer.reach.is_none()
            && peer.messages > 0
        {
            peer.reach = Some(at);
            self.timers.insert((at, Timer::Reach(name.clone())));
        }
    }

    fn left(&mut self, name: &Arc<str>, effects: &mut Vec<Effect>) {
        let lost = self.forget(name);
        if lost > 0 {
            effects.push(Effect::Lost(name.clone(), lost, "it has left the cluster"));
        }
    }

    fn send(
        &mut self,
        now: Duration,
        to: Arc<str>,
        lane: Lane,
        body: Bytes,
        effects: &mut Vec<Effect>,
    ) {
        self.make_place(&to);
        let peer = self.peers.entry(to.clone()).or_default();
        let (floor, pause) = (self.floor, self.config.retransmit);
        let epochs = &mut self.epochs;
        let out = peer.out.entry(lane.clone()).or_insert_with(|| {
            *epochs += 1;
            Outgoing {
                epoch: *epochs,
                start: floor,
                base: floor,
                queue: VecDeque::new(),
                cursor: floor,
                probe: false,
                pause,
                alarm: None,
                armed: false,
            }
        });
        peer.bytes += body.len();
        peer.messages += 1;
        self.bytes += body.len();
        out.queue.push_back(body);
        match peer.up {
            true => effects.push(Effect::Ready(to, lane)),
            false => self.reach_at(now, &to),
        }
    }

    fn sent(&mut self, now: Duration, to: &Arc<str>, message: &Message) {
        let Some(peer) = self.peers.get_mut(to) else {
            return;
        };
        match message {
            Message::Ack { lane, .. } => {
                if let Some(incoming) = peer.incoming.get_mut(lane) {
                    incoming.due = false;
                    incoming.again = false;
                    incoming.unacknowledged = 0;
                }
            }
            Message::Data { lane, number, .. } => {
                if let Some(out) = peer.out.get_mut(lane) {
                    out.probe &= *number != out.base;
                    if *number == out.cursor {
                        out.cursor += 1;
                    }
                    if out.alarm.is_none() {
                        out.alarm = Some(now + out.pause);
                        self.arm(to, lane);
                    }
                }
            }
        }
    }

    /// Has the alarm of a stream watched, by one timer at a time.
    fn arm(&mut self, to: &Arc<str>, lane: &Lane) {
        let out = self.peers.get_mut(to).and_then(|p| p.out.get_mut(lane));
        if let Some(out) = out
            && let (Some(at), false) = (out.alarm, out.armed)
        {
            out.armed = true;
            self.timers
                .insert((at, Timer::Alarm(to.clone(), lane.clone())));
        }
    }

    fn ack(
        &mut self,
        now: Duration,
        from: &Arc<str>,
        lane: Lane,
        (epoch, done, received): (u64, u64, u64),
        again: bool,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Error> {
        let Some(peer) = self.peers.get_mut(from) else {
            return Ok(());
        };
        let Some(out) = peer.out.get_mut(&lane).filter(|out| out.epoch == epoch) else {
            return Ok(());
        };
        if received > out.next_number() {
            return Err(Error::Ack);
        }
        let mut freed = 0;
        while out.base < done
            && let Some(body) = out.queue.pop_front()
        {
            freed += body.len();
            out.base += 1;
            peer.messages -= 1;
        }
        // What the receiver holds has not to be sent again.
        if received >= out.base {
            out.cursor = out.cursor.max(received);
        }
        peer.bytes -= freed;
        self.bytes -= freed;
        if done == out.base {
            effects.push(Effect::Done(from.clone(), lane.clone(), done));
        }
        // A stream that moves is not watched more closely than one that has just begun.
        out.pause = self.config.retransmit;
        let waits = out.cursor > out.base;
        out.alarm = waits.then_some(now + out.pause);
        if again {
            if received < out.base {
                // The receiver knows nothing of the stream any more.
                self.epochs += 1;
                out.renew(self.epochs);
            }
            out.cursor = received.max(out.base);
        }
        if out.has_more() {
            effects.push(Effect::Ready(from.clone(), lane.clone()));
        }
        self.arm(from, &lane);
        Ok(())
    }

    fn data(
        &mut self,
        now: Duration,
        from: &Arc<str>,
        lane: Lane,
        (epoch, start, number): (u64, u64, u64),
        (body, prompt): (Bytes, bool),
        effects: &mut Vec<Effect>,
    ) -> Result<(), Error> {
        let Some(peer) = self.peers.get_mut(from) else {
            return Ok(());
        };
        if !peer.incoming.contains_key(&lane) && peer.incoming.len() >= MAX_DELIVERY_LANES {
            return Err(Error::Lanes);
        }
        let incoming = peer.incoming.entry(lane.clone()).or_default();
        if epoch < incoming.epoch {
            return Ok(());
        }
        if epoch > incoming.epoch {
            incoming.begin(epoch, start);
        }
        if number > incoming.received {
            if !incoming.asked {
                incoming.asked = true;
                incoming.again = true;
                incoming.due = true;
                effects.push(Effect::Ready(from.clone(), lane));
            }
            return Ok(());
        }
        if number < incoming.received {
            self.count(now, from, &lane, effects);
            return Ok(());
        }
        let (config, bytes) = (&self.config, body.len());
        let fits = match incoming.pending.is_empty() {
            // What others wait for must get in.
            true => prompt || self.held + bytes <= config.held * 4,
            false => incoming.held + bytes <= config.hold && self.held + bytes <= config.held,
        };
        if !fits {
            incoming.asked = true;
            incoming.refused = true;
            self.refused.insert((from.clone(), lane));
            return Ok(());
        }
        incoming.received += 1;
        incoming.asked = false;
        incoming.held += bytes;
        self.held += bytes;
        incoming.pending.push_back(Held {
            generation: incoming.generation,
            number,
            start: incoming.start,
            body,
        });
        if incoming.pending.len() == 1 {
            effects.push(Effect::Head(from.clone(), lane));
        }
        Ok(())
    }

    fn delivered(
        &mut self,
        now: Duration,
        from: &Arc<str>,
        lane: &Lane,
        effects: &mut Vec<Effect>,
    ) {
        let incoming = self.peers.get_mut(from).map(|p| &mut p.incoming);
        let Some(incoming) = incoming.and_then(|i| i.get_mut(lane)) else {
            return;
        };
        let Some(head) = incoming.pending.pop_front() else {
            return;
        };
        incoming.held -= head.body.len();
        self.held -= head.body.len();
        if head.generation == incoming.generation {
            incoming.done = head.number + 1;
        }
        if !incoming.pending.is_empty() {
            effects.push(Effect::Head(from.clone(), lane.clone()));
        }
        self.count(now, from, lane, effects);
        self.ask_again(effects);
    }

    /// Asks for what was dropped, where there is room again.
    fn ask_again(&mut self, effects: &mut Vec<Effect>) {
        let (peers, hold) = (&mut self.peers, self.config.hold);
        let full = self.held > self.config.held / 2;
        self.refused.retain(|(from, lane)| {
            let incoming = peers.get_mut(from).map(|p| &mut p.incoming);
            let Some(incoming) = incoming.and_then(|i| i.get_mut(lane)) else {
                return false;
            };
            // Others may wait for the next of a stream that holds nothing.
            if !incoming.pending.is_empty() && (full || incoming.held > hold / 2) {
                return true;
            }
            if std::mem::take(&mut incoming.refused) {
                incoming.asked = true;
                incoming.again = true;
                incoming.due = true;
                effects.push(Effect::Ready(from.clone(), lane.clone()));
            }
            false
        });
    }

    /// One more message has to be acknowledged.
    fn count(&mut self, now: Duration, from: &Arc<str>, lane: &Lane, effects: &mut Vec<Effect>) {
        let incoming = self.peers.get_mut(from).map(|p| &mut p.incoming);
        let Some(incoming) = incoming.and_then(|i| i.get_mut(lane)) else {
            return;
        };
        incoming.unacknowledged += 1;
        if incoming.unacknowledged >= DELIVERY_ACK_EVERY {
            incoming.due = true;
            effects.push(Effect::Ready(from.clone(), lane.clone()));
        } else if !std::mem::replace(&mut incoming.armed, true) {
            let timer = Timer::Ack(from.clone(), lane.clone());
            self.timers.insert((now + DELIVERY_ACK_DELAY, timer));
        }
    }

    fn tick(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        while self.timers.first().is_some_and(|(at, _)| *at <= now) {
            let Some((at, timer)) = self.timers.pop_first() else {
                return;
            };
            match timer {
                Timer::Ack(from, lane) => {
                    let incoming = self.peers.get_mut(&from).map(|p| &mut p.incoming);
                    if let Some(incoming) = incoming.and_then(|i| i.get_mut(&lane)) {
                        incoming.armed = false;
                        if incoming.unacknowledged > 0 {
                            incoming.due = true;
                            effects.push(Effect::Ready(from, lane));
                        }
                    }
                }
                Timer::Alarm(to, lane) => self.alarm(now, to, lane, effects),
                Timer::Reach(name) => {
                    let Some(peer) = self.peers.get_mut(&name) else {
                        continue;
                    };
                    if peer.reach != Some(at) {
                        continue;
                    }
                    peer.reach = None;
                    if !peer.up && peer.messages > 0 {
                        let pause = peer.pause.max(self.config.retransmit);
                        peer.pause = (pause * 2).min(MAX_DELIVERY_PAUSE);
                        effects.push(Effect::Reach(name.clone()));
                        self.reach_at(now + pause, &name);
                    }
                }
            }
        }
    }

    fn alarm(&mut self, now: Duration, to: Arc<str>, lane: Lane, effects: &mut Vec<Effect>) {
        let Some(peer) = self.peers.get_mut(&to) else {
            return;
        };
        let Some(out) = peer.out.get_mut(&lane) else {
            return;
        };
        out.armed = false;
        match out.alarm {
            Some(at) if at > now => self.arm(&to, &lane),
            Some(_) => {
                out.alarm = None;
                out.pause = (out.pause * 2).min(MAX_DELIVERY_PAUSE);
                // Not before it was sent at all.
                out.probe = out.cursor > out.base;
                if peer.up && out.has_more() {
                    effects.push(Effect::Ready(to, lane));
                }
            }
            None => {}
        }
    }
}
