//! Any overlay of real nodes behind one type: names and bytes in place of peers and messages.
//!
//! Over a fresh link both ends say who they are before anything else:
//!
//! ```text
//! frame:    kind:8 (0 hello, 1 message), body
//! hello:    version:8 = 1  overlay: text  contact; further bytes are ignored
//! ```
//!
//! The session behind the link has proved the name; the hello adds the addresses, so that an overlay
//! can pass them on. Only then does the overlay hear of the link. Nodes with different overlays find it out
//! here, and the error says so: their protocols would not understand each other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use thiserror::Error;

use super::codec::{DecodeError, Reader, put_text};
use super::contract::{self, Down, Effect, Event, Overlay, Peer, Wire};
use super::{Contact, NodeSpec};
use crate::limits::MAX_CONTROL_BYTES;

const VERSION: u8 = 1;
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
    /// A peer has another overlay; its session is to be closed.
    #[error(
        "it runs the overlay {theirs:?}, this node {ours:?}: configure the same one on all nodes of a cluster"
    )]
    OtherOverlay {
        /// The peer's.
        theirs: String,
        /// The own.
        ours: &'static str,
    },
}

/// An overlay as the runtime drives it.
pub trait Membership: Send {
    /// Handles one input. Outputs are appended.
    ///
    /// # Errors
    /// See [`Error`](enum@Error). The outputs of a refused input count all the same.
    fn handle(
        &mut self,
        now: Duration,
        input: Input,
        rng: &mut dyn Rng,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Error>;

    /// When it wants an [`Input::Tick`] next.
    fn deadline(&self) -> Option<Duration>;

    /// The members, the own node among them, in the order of names.
    fn members(&self) -> Vec<NodeSpec>;

    /// Name of the overlay.
    fn name(&self) -> &'static str;
}

/// An [`Overlay`] as a [`Membership`].
#[derive(Debug)]
pub struct Framed<O> {
    name: &'static str,
    own: Contact,
    overlay: O,
    /// Peers of sessions that are up: those that have said hello.
    linked: BTreeMap<Arc<str>, Option<Contact>>,
}

impl<O: Overlay<Peer = Contact>> Framed<O> {
    /// This overlay, of this name, for the node `own`.
    pub fn new(name: &'static str, own: Contact, overlay: O) -> Self {
        Self {
            name,
            own,
            overlay,
            linked: BTreeMap::new(),
        }
    }

    fn hello(&self) -> Vec<u8> {
        let mut out = vec![HELLO, VERSION];
        put_text(&mut out, self.name);
        self.own.encode(&mut out);
        out
    }

    /// What the bytes of a peer mean to the overlay, if anything.
    fn read(
        &mut self,
        from: &Arc<str>,
        bytes: &[u8],
    ) -> Result<Option<Event<Contact, O::Message>>, Error> {
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
                let (theirs, contact) = read_hello(&mut reader).map_err(Error::Unreadable)?;
                if theirs != self.name {
                    let (theirs, ours) = (theirs.into(), self.name);
                    return Err(Error::OtherOverlay { theirs, ours });
                }
                if contact.name() != from {
                    return Err(Error::Unreadable(DecodeError::Bad("name in the hello")));
                }
                *peer = Some(contact.clone());
                Ok(Some(Event::LinkUp(contact)))
            }
            (MESSAGE, Some(peer)) => {
                let message = O::Message::decode(&mut reader).map_err(Error::Unreadable)?;
                reader.end().map_err(Error::Unreadable)?;
                let from = peer.clone();
                Ok(Some(Event::Message { from, message }))
            }
            (HELLO, Some(_)) => Err(Error::Unreadable(DecodeError::Bad("second hello"))),
            (MESSAGE, None) => Err(Error::Unreadable(DecodeError::Bad("message before hello"))),
            _ => Err(Error::Unreadable(DecodeError::Bad("kind"))),
        }
    }

    fn event(
        &mut self,
        input: Input,
        outputs: &mut Vec<Output>,
    ) -> Result<Option<Event<Contact, O::Message>>, Error> {
        let contact = |spec: NodeSpec| {
            let name = spec.name.clone();
            let refused = |what| Error::Refused(contract::Error::Spec { name, what });
            Contact::new(spec).map_err(refused)
        };
        Ok(Some(match input {
            Input::Join(spec) => Event::Join(contact(spec)?),
            Input::Leave => Event::Leave,
            Input::Remove(name) => Event::Remove(Contact::named(name)),
            Input::UpdateMembers(specs) => {
                let contacts: Result<Vec<_>, _> = specs.into_iter().map(contact).collect();
                Event::UpdateMembers(contacts?)
            }
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
        }))
    }
}

fn read_hello<'a>(reader: &mut Reader<'a>) -> Result<(&'a str, Contact), DecodeError> {
    match reader.u8()? {
        VERSION => Ok((reader.text()?, Contact::decode(reader)?)),
        other => Err(DecodeError::Version(other)),
    }
}

impl<O: Overlay<Peer = Contact>> Membership for Framed<O> {
    fn handle(
        &mut self,
        now: Duration,
        input: Input,
        rng: &mut dyn Rng,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Error> {
        let Some(event) = self.event(input, outputs)? else {
            return Ok(());
        };
        let mut effects = Vec::new();
        let outcome = self.overlay.handle(now, event, rng, &mut effects);
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

    fn deadline(&self) -> Option<Duration> {
        self.overlay.deadline()
    }

    fn members(&self) -> Vec<NodeSpec> {
        let mut members = self.overlay.members();
        members.sort();
        members.into_iter().map(|c| (**c.spec()).clone()).collect()
    }

    fn name(&self) -> &'static str {
        self.name
    }
}
