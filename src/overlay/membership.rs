//! The overlays of a real node: names and bytes in place of peers and messages.
//!
//! Over a fresh link both ends say who they are before anything else:
//!
//! ```text
//! frame:    kind:8 (0 hello, 1 message), body
//! hello:    version:8 = 2  contact; further bytes are ignored
//! ```
//!
//! The session behind the link has proved the name; the hello adds the addresses, so that an overlay
//! can pass them on. Only then do the overlays hear of the link. What a message is says [`Switch`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use thiserror::Error;

use super::codec::{DecodeError, Reader};
use super::contract::{self, Down, Effect, Event, Overlay, Peer, Wire};
use super::switch::{self, Status, Switch};
use super::{Contact, NodeSpec};
use crate::limits::MAX_CONTROL_BYTES;

const VERSION: u8 = 2;
const HELLO: u8 = 0;
const MESSAGE: u8 = 1;

/// What happens, as the runtime sees it.
#[derive(Clone, Debug)]
pub enum Input {
    /// See [`Event::Join`].
    Join(NodeSpec),
    /// See [`Event::Leave`].
    Leave,
    /// See [`Event::Remove`].
    Remove(Arc<str>),
    /// See [`Event::UpdateMembers`].
    UpdateMembers(Vec<NodeSpec>),
    /// A session is up.
    LinkUp(Arc<str>),
    /// The session is down.
    LinkDown(Arc<str>, Down),
    /// A wanted node could not be reached at any of its addresses.
    LinkFailed(Arc<str>),
    /// The peer of a session has sent these bytes.
    Bytes(Arc<str>, Vec<u8>),
    /// See [`Event::Tick`].
    Tick,
    /// See [`Event::Loaded`].
    Loaded(Vec<u8>),
    /// See [`Switch::switch`].
    Switch(String),
    /// See [`Switch::steer`].
    Steer(String, Vec<NodeSpec>),
}

/// What the runtime is to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send these bytes over the session.
    Send(Arc<str>, Vec<u8>),
    /// See [`Effect::Want`].
    Want(Arc<NodeSpec>),
    /// See [`Effect::Release`].
    Release(Arc<str>),
    /// See [`Effect::NeighborUp`].
    NeighborUp(Arc<str>),
    /// See [`Effect::NeighborDown`].
    NeighborDown(Arc<str>),
    /// See [`Effect::MembersChanged`].
    MembersChanged,
    /// See [`Effect::Persist`].
    Persist(Vec<u8>),
    /// See [`Effect::Joined`].
    Joined(Arc<str>),
    /// See [`Effect::Left`].
    Left,
}

/// Why an input was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// The overlay refuses what the user asks.
    #[error(transparent)]
    Refused(contract::Error),
    /// A peer's bytes can't be read; its session is to be closed.
    #[error("membership message: {0}")]
    Unreadable(DecodeError),
}

/// The overlays of a node, as the runtime drives them.
pub struct Membership {
    own: Contact,
    switch: Switch<Contact>,
    /// Peers of sessions that are up: those that have said hello.
    linked: BTreeMap<Arc<str>, Option<Contact>>,
}

type Happens = Event<Contact, switch::Message<Contact>>;

impl Membership {
    /// These overlays, for the node `own`.
    pub fn new(own: Contact, switch: Switch<Contact>) -> Self {
        Self {
            own,
            switch,
            linked: BTreeMap::new(),
        }
    }

    /// Handles one input. Outputs are appended.
    ///
    /// # Errors
    /// See [`Error`](enum@Error). The outputs of a refused input count all the same.
    pub fn handle(
        &mut self,
        now: Duration,
        input: Input,
        rng: &mut dyn Rng,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Error> {
        let mut effects = Vec::new();
        let outcome = match input {
            Input::Switch(name) => self.switch.switch(now, &name, rng, &mut effects),
            Input::Steer(name, specs) => {
                let peers = contacts(specs)?;
                self.switch.steer(now, &name, peers, rng, &mut effects)
            }
            input => match self.event(input, outputs)? {
                Some(event) => self.switch.handle(now, event, rng, &mut effects),
                None => Ok(()),
            },
        };
        for effect in effects {
            outputs.push(match effect {
                Effect::Send { to, message } => {
                    let mut bytes = vec![MESSAGE];
                    message.encode(&mut bytes);
                    Output::Send(to.name().clone(), bytes)
                }
                Effect::Want(peer) => Output::Want(peer.spec().clone()),
                Effect::Release(peer) => {
                    self.linked.remove(peer.name());
                    Output::Release(peer.name().clone())
                }
                Effect::NeighborUp(peer) => Output::NeighborUp(peer.name().clone()),
                Effect::NeighborDown(peer) => Output::NeighborDown(peer.name().clone()),
                Effect::MembersChanged => Output::MembersChanged,
                Effect::Persist(bytes) => Output::Persist(bytes),
                Effect::Joined(peer) => Output::Joined(peer.name().clone()),
                Effect::Left => Output::Left,
            });
        }
        outcome.map_err(|error| match error {
            contract::Error::Message(error) => Error::Unreadable(error),
            other => Error::Refused(other),
        })
    }

    /// When it wants an [`Input::Tick`] next.
    pub fn deadline(&self) -> Option<Duration> {
        self.switch.deadline()
    }

    /// The members, the own node among them, in the order of names.
    pub fn members(&self) -> Vec<NodeSpec> {
        let mut members = self.switch.members();
        members.sort();
        members.into_iter().map(|c| (**c.spec()).clone()).collect()
    }

    /// Which overlay runs.
    pub fn status(&self) -> Status {
        self.switch.status()
    }

    /// See [`Switch::is_whole`].
    pub fn is_whole(&self) -> bool {
        self.switch.is_whole()
    }

    fn hello(&self) -> Vec<u8> {
        let mut out = vec![HELLO, VERSION];
        self.own.encode(&mut out);
        out
    }

    /// What the bytes of a peer mean to the overlay, if anything.
    fn read(&mut self, from: &Arc<str>, bytes: &[u8]) -> Result<Option<Happens>, Error> {
        if bytes.len() > MAX_CONTROL_BYTES {
            return Err(Error::Unreadable(DecodeError::TooLarge(bytes.len())));
        }
        let Some(peer) = self.linked.get_mut(from) else {
            return Ok(None);
        };
        let mut reader = Reader::new(bytes);
        let kind = reader.u8().map_err(Error::Unreadable)?;
        match (kind, peer) {
            (HELLO, peer @ None) => {
                let contact = read_hello(&mut reader).map_err(Error::Unreadable)?;
                if contact.name() != from {
                    return Err(Error::Unreadable(DecodeError::Bad("name in the hello")));
                }
                *peer = Some(contact.clone());
                Ok(Some(Event::LinkUp(contact)))
            }
            (MESSAGE, Some(peer)) => {
                let message = switch::Message::decode(&mut reader).map_err(Error::Unreadable)?;
                reader.end().map_err(Error::Unreadable)?;
                let from = peer.clone();
                Ok(Some(Event::Message { from, message }))
            }
            (HELLO, Some(_)) => Err(Error::Unreadable(DecodeError::Bad("second hello"))),
            (MESSAGE, None) => Err(Error::Unreadable(DecodeError::Bad("message before hello"))),
            _ => Err(Error::Unreadable(DecodeError::Bad("kind"))),
        }
    }

    fn event(&mut self, input: Input, outputs: &mut Vec<Output>) -> Result<Option<Happens>, Error> {
        Ok(Some(match input {
            Input::Join(spec) => Event::Join(contact(spec)?),
            Input::Leave => Event::Leave,
            Input::Remove(name) => Event::Remove(Contact::named(name)),
            Input::UpdateMembers(specs) => Event::UpdateMembers(contacts(specs)?),
            Input::LinkUp(name) => {
                outputs.push(Output::Send(name.clone(), self.hello()));
                self.linked.insert(name, None);
                return Ok(None);
            }
            Input::LinkDown(name, how) => match self.linked.remove(&name) {
                Some(Some(peer)) => Event::LinkDown(peer, how),
                // Whoever goes without a word was not there.
                Some(None) => Event::LinkFailed(Contact::named(name)),
                None => return Ok(None),
            },
            Input::LinkFailed(name) => Event::LinkFailed(Contact::named(name)),
            Input::Bytes(from, bytes) => return self.read(&from, &bytes),
            Input::Tick => Event::Tick,
            Input::Loaded(bytes) => Event::Loaded(bytes),
            Input::Switch(_) | Input::Steer(..) => return Ok(None),
        }))
    }
}

fn contact(spec: NodeSpec) -> Result<Contact, Error> {
    let name = spec.name.clone();
    let refused = |what| Error::Refused(contract::Error::Spec { name, what });
    Contact::new(spec).map_err(refused)
}

fn contacts(specs: Vec<NodeSpec>) -> Result<Vec<Contact>, Error> {
    specs.into_iter().map(contact).collect()
}

fn read_hello(reader: &mut Reader<'_>) -> Result<Contact, DecodeError> {
    reader.version(VERSION)?;
    Contact::decode(reader)
}
