//! Streams and causal order together.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::limits::MAX_CAUSAL_LABELS;
use crate::overlay::codec::{DecodeError, Reader};

use super::acked::{self, Effect as Acked, Event as Stream};
use super::causal::{self, Causal, Id, Stamp, Verdict};
use super::{Lane, Message, Parcel};

/// Bounds and times.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Of streams.
    pub acked: acked::Config,
    /// Of causal order.
    pub causal: causal::Config,
}

/// What happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// A session with this incarnation of a node is up.
    Up(Arc<str>, u64),
    /// It has ended.
    Down(Arc<str>),
    /// The node has left the cluster.
    Left(Arc<str>),
    /// A message has come from a node.
    Message(Arc<str>, Message),
    /// Send this parcel; there is room, see [`State::has_room`].
    Send(Arc<str>, Lane, Bytes),
    /// What [`State::next`] has given for this node is on its way.
    Sent(Arc<str>, Message),
    /// What [`State::parcel`] has given for this stream is delivered.
    Delivered(Arc<str>, Lane),
    /// A deadline is over.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// There is something to send to a node; see [`State::next`].
    Ready(Arc<str>, Lane),
    /// The turn of a stream's first message has come; see [`State::parcel`].
    Deliver(Arc<str>, Lane),
    /// A node without a session has to get messages.
    Reach(Arc<str>),
    /// There may be room for senders that wait.
    Room,
    /// This many messages to a node were dropped.
    Lost(Arc<str>, u64, &'static str),
    /// A message of a node and label has come too late, and was dropped.
    Late(Arc<str>, Arc<str>),
    /// Messages of a node are not waited for any longer.
    GivenUp(Arc<str>),
}

/// What a peer has done wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It has broken a rule of streams.
    #[error(transparent)]
    Stream(#[from] acked::Error),
    /// What it sent can't be read.
    #[error("acknowledged message: {0}")]
    Message(#[from] DecodeError),
    /// There are too many labels.
    #[error("more than {MAX_CAUSAL_LABELS} causal labels")]
    Labels,
}

/// Acknowledged and causal delivery of a node.
#[derive(Debug)]
pub struct State {
    acked: acked::State,
    causal: Causal,
}

impl State {
    /// For a node of this name and incarnation.
    pub fn new(config: Config, own: Id) -> Self {
        Self {
            acked: acked::State::new(config.acked),
            causal: Causal::new(config.causal, own),
        }
    }

    /// When [`Event::Tick`] is wanted.
    pub fn deadline(&self) -> Option<Duration> {
        let deadlines = [self.acked.deadline(), self.causal.deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// Whether a message may be sent to a node that has no session now: it has had one, and has not left.
    pub fn knows(&self, node: &str) -> bool {
        self.acked
            .instance(node)
            .is_some_and(|instance| instance != 0)
    }

    /// Nodes that something is kept for.
    pub fn known(&self) -> impl Iterator<Item = &Arc<str>> {
        self.acked.known()
    }

    /// Messages that are not acknowledged, and their bytes.
    pub fn outstanding(&self) -> (usize, usize) {
        self.acked.outstanding()
    }

    /// Whether one more label can be kept.
    pub fn admits(&self, label: &str) -> bool {
        self.causal.admits(label)
    }

    /// Whether a parcel of so many bytes may be sent.
    pub fn has_room(&self, to: &str, lane: &Lane, bytes: usize) -> bool {
        let room = lane.label().is_none_or(|label| self.causal.has_room(label));
        room && self.acked.has_room(to, bytes)
    }

    /// What goes next to a node over its session.
    pub fn next(&self, to: &str, lane: &Lane) -> Option<Message> {
        self.acked.next(to, lane)
    }

    /// The first message of a stream that waits to be delivered.
    pub fn parcel(&self, from: &str, lane: &Lane) -> Option<Parcel<'_>> {
        let (_, _, body) = self.acked.head(from, lane)?;
        let parcel = match lane {
            Lane::Channel(_) => body,
            Lane::Label(_) => split(body).ok()?.1,
        };
        Parcel::decode(parcel).ok()
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
        let id = |acked: &acked::State, node: &Arc<str>| Id {
            node: node.clone(),
            instance: acked.instance(node).unwrap_or_default(),
        };
        let mut turns = true;
        match event {
            Event::Up(node, instance) => {
                self.streams(now, Stream::Up(node.clone(), instance), effects)?;
                self.causal.up(Id { node, instance });
                effects.push(Effect::Room);
            }
            Event::Down(node) => {
                self.causal.down(&id(&self.acked, &node));
                self.streams(now, Stream::Down(node), effects)?;
            }
            Event::Left(node) => {
                self.causal.end(&id(&self.acked, &node));
                self.streams(now, Stream::Left(node), effects)?;
                effects.push(Effect::Room);
            }
            Event::Message(from, message) => {
                turns = self.message(now, from, message, effects)?;
            }
            Event::Send(to, lane, parcel) => {
                let body = match &lane {
                    Lane::Channel(_) => parcel,
                    Lane::Label(label) => {
                        let number = self.acked.number(&to, &lane);
                        let to = id(&self.acked, &to);
                        join(&self.causal.send(label, to, number), &parcel)
                    }
                };
                return self.streams(now, Stream::Send { to, lane, body }, effects);
            }
            Event::Sent(to, message) => {
                return self.streams(now, Stream::Sent(to, message), effects);
            }
            Event::Delivered(from, lane) => {
                turns = lane.label().is_some();
                if let Lane::Label(label) = &lane {
                    self.causal.delivered(label, &from);
                }
                self.streams(now, Stream::Delivered(from, lane), effects)?;
            }
            Event::Tick => {
                let given_up = self.causal.tick(now);
                effects.extend(given_up.into_iter().map(|id| Effect::GivenUp(id.node)));
                self.streams(now, Stream::Tick, effects)?;
            }
        }
        if turns {
            self.turns(now, effects)?;
        }
        Ok(())
    }

    /// Whether it matters to the order of a label.
    fn message(
        &mut self,
        now: Duration,
        from: Arc<str>,
        message: Message,
        effects: &mut Vec<Effect>,
    ) -> Result<bool, Error> {
        let Message::Data { lane, body, .. } = &message else {
            self.streams(now, Stream::Message(from, message, true), effects)?;
            return Ok(false);
        };
        let Lane::Label(label) = lane.clone() else {
            Parcel::decode(body)?;
            self.streams(now, Stream::Message(from, message, true), effects)?;
            return Ok(false);
        };
        if !self.causal.admits(&label) {
            return Err(Error::Labels);
        }
        let (stamp, parcel) = split(body)?;
        Parcel::decode(parcel)?;
        let mut reader = Reader::new(stamp);
        let stamp = Stamp::decode(&mut reader)?;
        reader.end()?;
        let prompt = self.causal.is_due(&label, &stamp);
        let (lane, start) = match &message {
            Message::Data { lane, start, .. } => (lane.clone(), *start),
            Message::Ack { .. } => return Ok(false),
        };
        let before = self.acked.received(&from, &lane);
        // What becomes a head is examined when the causal part knows that it has come.
        let mut later = Vec::new();
        self.acked.handle(
            now,
            Stream::Message(from.clone(), message, prompt),
            &mut later,
        )?;
        let received = self.acked.received(&from, &lane);
        if received != before {
            let instance = self.acked.instance(&from).unwrap_or_default();
            let id = Id {
                node: from,
                instance,
            };
            self.causal.received(&label, &id, start, received);
        }
        self.follow(later, effects)?;
        Ok(true)
    }

    fn streams(
        &mut self,
        now: Duration,
        event: Stream,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Error> {
        let mut more = Vec::new();
        self.acked.handle(now, event, &mut more)?;
        self.follow(more, effects)
    }

    fn follow(&mut self, acked: Vec<Acked>, effects: &mut Vec<Effect>) -> Result<(), Error> {
        for effect in acked {
            match effect {
                Acked::Ready(to, lane) => effects.push(Effect::Ready(to, lane)),
                Acked::Reach(node) => effects.push(Effect::Reach(node)),
                Acked::Lost(node, count, why) => {
                    effects.push(Effect::Lost(node, count, why));
                    effects.push(Effect::Room);
                }
                Acked::Done(to, lane, done) => {
                    if let Lane::Label(label) = &lane
                        && let Some(instance) = self.acked.instance(&to)
                    {
                        let to = Id { node: to, instance };
                        self.causal.acknowledged(label, &to, done);
                    }
                    effects.push(Effect::Room);
                }
                Acked::Head(from, Lane::Label(label)) => {
                    let lane = Lane::Label(label.clone());
                    let head = self.acked.head(&from, &lane);
                    let instance = self.acked.instance(&from);
                    if let (Some((number, _, body)), Some(instance)) = (head, instance) {
                        let stamp = Stamp::decode(&mut Reader::new(split(body)?.0))?;
                        let id = Id {
                            node: from,
                            instance,
                        };
                        self.causal.head(&label, id, number, stamp);
                    }
                }
                Acked::Head(from, lane) => effects.push(Effect::Deliver(from, lane)),
            }
        }
        Ok(())
    }

    fn turns(&mut self, now: Duration, effects: &mut Vec<Effect>) -> Result<(), Error> {
        loop {
            let mut dropped = false;
            for (label, from, verdict) in self.causal.turns(now) {
                let lane = Lane::Label(label.clone());
                match verdict {
                    Verdict::Deliver => effects.push(Effect::Deliver(from, lane)),
                    Verdict::Drop => {
                        dropped = true;
                        effects.push(Effect::Late(from.clone(), label.clone()));
                        self.causal.delivered(&label, &from);
                        self.streams(now, Stream::Delivered(from, lane), effects)?;
                    }
                }
            }
            if !dropped {
                return Ok(());
            }
        }
    }
}

/// The body of a label's message.
fn join(stamp: &Stamp, parcel: &[u8]) -> Bytes {
    let mut body = vec![0; 4];
    stamp.encode(&mut body);
    // A stamp is within MAX_CAUSAL_NODES and MAX_CAUSAL_ENTRIES.
    let length = (body.len() - 4) as u32;
    body[..4].copy_from_slice(&length.to_be_bytes());
    body.extend_from_slice(parcel);
    body.into()
}

/// Its stamp and its parcel.
fn split(body: &[u8]) -> Result<(&[u8], &[u8]), DecodeError> {
    let mut reader = Reader::new(body);
    let length = reader.u32()?;
    let length = usize::try_from(length).map_err(|_| DecodeError::Truncated)?;
    let stamp = reader.take(length)?;
    Ok((stamp, reader.rest()))
}
