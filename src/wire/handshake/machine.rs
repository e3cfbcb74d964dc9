//! The order of the handshake's packets, for both ends.

use std::mem;
use std::sync::Arc;

use subtle::ConstantTimeEq;

use crate::limits::MAX_HANDSHAKE_PACKET;
use crate::wire::flags::Flags;
use crate::wire::handshake::packet::{self, Hello, Status};
use crate::wire::handshake::trailer::{self, Binding, Freshness};
use crate::wire::handshake::{
    Awaited, Config, Effect, Established, Event, HandshakeError, Link, PeerHello, Purpose, Refusal,
    Role, SessionId, Trailer, Verdict,
};
use crate::wire::identity::Identity;

/// One handshake, from either end.
pub struct Handshake {
    local: Local,
    state: State,
}

struct Local {
    identity: Identity,
    flags: Flags,
    instance: u64,
    capabilities: u32,
    nonce: [u8; 16],
    challenge: u32,
}

struct Dial {
    peer: Arc<str>,
    cookie: Vec<u8>,
    purpose: Purpose,
}

enum State {
    /// Dialler: not started.
    Fresh(Dial),
    /// Dialler: waits for the status.
    Status(Dial),
    /// Dialler: waits for the challenge.
    Challenge(Dial),
    /// Dialler: waits for the acknowledgement, which must carry `digest`.
    Ack { digest: [u8; 16], done: Established },
    /// Listener: waits for the name.
    Name,
    /// Listener: waits for the caller's verdict.
    Verdict(PeerHello),
    /// Listener: waits for the answer to its challenge.
    Reply { peer: PeerHello, cookie: Vec<u8> },
    /// Succeeded or failed.
    Over,
}

impl State {
    const fn name(&self) -> &'static str {
        match self {
            State::Fresh(_) => "not started",
            State::Status(_) => "waiting for the status",
            State::Challenge(_) => "waiting for the challenge",
            State::Ack { .. } => "waiting for the acknowledgement",
            State::Name => "waiting for the name",
            State::Verdict(_) => "deciding on the peer",
            State::Reply { .. } => "waiting for the challenge reply",
            State::Over => "the handshake is over",
        }
    }
}

impl Handshake {
    /// A handshake at its beginning.
    pub fn new(config: Config) -> Self {
        let state = match config.role {
            Role::Dialer {
                peer,
                cookie,
                purpose,
            } => State::Fresh(Dial {
                peer,
                cookie,
                purpose,
            }),
            Role::Listener => State::Name,
        };
        let local = Local {
            identity: config.local,
            flags: config.flags,
            instance: config.instance,
            capabilities: config.capabilities,
            nonce: config.nonce,
            challenge: config.challenge,
        };
        Self { local, state }
    }

    /// Takes in an event.
    ///
    /// After an error the handshake is over. Effects may have been added before the error: they
    /// tell the peer that it is refused and should be carried out before the connection is
    /// closed.
    pub fn handle(
        &mut self,
        event: Event<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), HandshakeError> {
        let state = mem::replace(&mut self.state, State::Over);
        if let Event::Packet(packet) = event
            && packet.len() > MAX_HANDSHAKE_PACKET
        {
            return Err(HandshakeError::TooLong(packet.len()));
        }
        let local = &self.local;
        self.state = match (state, event) {
            (State::Fresh(dial), Event::Start) => {
                let trailer = local.trailer(dial.purpose != Purpose::First).encode();
                effects.push(Effect::Send(packet::name(
                    local.flags,
                    &local.identity,
                    &trailer,
                )));
                State::Status(dial)
            }
            (State::Status(dial), Event::Packet(bytes)) => on_status(dial, bytes, effects)?,
            (State::Challenge(dial), Event::Packet(bytes)) => {
                local.on_challenge(dial, bytes, effects)?
            }
            (State::Ack { digest, done }, Event::Packet(bytes)) => {
                if !equal(&packet::parse_ack(bytes)?, &digest) {
                    return Err(HandshakeError::WrongCookie {
                        peer: done.peer.name,
                    });
                }
                effects.push(Effect::Done(done));
                State::Over
            }
            (State::Name, Event::Start) => State::Name,
            (State::Name, Event::Packet(bytes)) => local.on_name(bytes, effects)?,
            (State::Verdict(peer), Event::Verdict(verdict)) => {
                local.on_verdict(peer, verdict, effects)?
            }
            (State::Reply { peer, cookie }, Event::Packet(bytes)) => {
                effects.extend(local.on_reply(peer, &cookie, bytes)?);
                State::Over
            }
            (state, event) => {
                let event = match event {
                    Event::Start => "start",
                    Event::Packet(_) => "packet",
                    Event::Verdict(_) => "verdict",
                };
                return Err(HandshakeError::OutOfTurn {
                    event,
                    state: state.name(),
                });
            }
        };
        Ok(())
    }

    /// What it means that the peer has closed the connection now.
    pub fn closed(&self) -> HandshakeError {
        let (peer, awaited) = match &self.state {
            State::Fresh(dial) | State::Status(dial) => (dial.peer.clone(), Awaited::Greeting),
            State::Challenge(dial) => (dial.peer.clone(), Awaited::Challenge),
            State::Ack { done, .. } => (done.peer.name.clone(), Awaited::Ack),
            State::Name | State::Over => ("the peer".into(), Awaited::Nothing),
            State::Verdict(peer) => (peer.name.clone(), Awaited::Nothing),
            State::Reply { peer, .. } => (peer.name.clone(), Awaited::Digest),
        };
        HandshakeError::Closed { peer, awaited }
    }
}

fn on_status(dial: Dial, bytes: &[u8], effects: &mut Vec<Effect>) -> Result<State, HandshakeError> {
    match packet::parse_status(bytes)? {
        Status::Ok => Ok(State::Challenge(dial)),
        Status::Refused(refusal) => {
            // The listener asks whether to replace the connection that it has. It will find out
            // by itself whether that one is dead; taking it over could kill a live session.
            if refusal == Refusal::Alive {
                effects.push(Effect::Send(packet::status("false")));
            }
            Err(HandshakeError::Refused {
                peer: dial.peer,
                refusal,
            })
        }
    }
}

impl Local {
    fn trailer(&self, extra: bool) -> Trailer {
        Trailer {
            capabilities: self.capabilities,
            extra,
            instance: self.instance,
            nonce: self.nonce,
        }
    }

    /// The checks that both ends make on what the other says about itself.
    fn peer(&self, hello: &Hello<'_>) -> Result<PeerHello, HandshakeError> {
        let name: Arc<str> = hello.name.into();
        let missing = Flags::MANDATORY.without(hello.flags);
        if !missing.is_empty() {
            return Err(HandshakeError::MissingFlags {
                peer: name,
                missing,
            });
        }
        let trailer = Trailer::parse(hello.residue)?;
        if trailer.is_some_and(|trailer| trailer.instance == self.instance) {
            return Err(HandshakeError::SelfConnection { peer: name });
        }
        Ok(PeerHello {
            name,
            creation: hello.creation,
            flags: hello.flags,
            trailer,
        })
    }

    fn on_challenge(
        &self,
        dial: Dial,
        bytes: &[u8],
        effects: &mut Vec<Effect>,
    ) -> Result<State, HandshakeError> {
        let hello = packet::parse_challenge(bytes)?;
        let peer = self.peer(&hello)?;
        if peer.name != dial.peer {
            let (dialled, answered) = (dial.peer, peer.name);
            return Err(HandshakeError::NameMismatch { dialled, answered });
        }
        let (link, binding) = match (peer.trailer, dial.purpose) {
            (None, Purpose::First) => (Link::Stock, None),
            (None, Purpose::Extra { .. }) => {
                return Err(HandshakeError::NoTrailer { peer: peer.name });
            }
            (Some(trailer), Purpose::First) => (
                Link::First(SessionId::derive(&self.nonce, &trailer.nonce)),
                None,
            ),
            (Some(trailer), Purpose::Extra { session, index }) => {
                let fresh = Freshness {
                    listener_challenge: hello.challenge,
                    dialler_nonce: self.nonce,
                    listener_nonce: trailer.nonce,
                };
                let binding = Binding::new(&dial.cookie, session, index, &fresh);
                (Link::Extra { session, index }, Some(binding))
            }
        };
        let answer = trailer::digest(&dial.cookie, hello.challenge);
        effects.push(Effect::Send(packet::reply(
            self.challenge,
            answer,
            binding.as_ref(),
        )));
        let digest = trailer::digest(&dial.cookie, self.challenge);
        Ok(State::Ack {
            digest,
            done: Established { peer, link },
        })
    }

    fn on_name(&self, bytes: &[u8], effects: &mut Vec<Effect>) -> Result<State, HandshakeError> {
        let hello = packet::parse_name(bytes)?;
        // Whoever has given a name can understand a status, and its operator deserves one.
        let peer = self
            .peer(&hello)
            .inspect_err(|_| effects.push(Effect::Send(packet::status("not_allowed"))))?;
        effects.push(Effect::Judge(peer.clone()));
        Ok(State::Verdict(peer))
    }

    fn on_verdict(
        &self,
        peer: PeerHello,
        verdict: Verdict,
        effects: &mut Vec<Effect>,
    ) -> Result<State, HandshakeError> {
        let (status, refused) = match &verdict {
            Verdict::Accept {
                simultaneous: false,
                ..
            } => ("ok", ""),
            Verdict::Accept {
                simultaneous: true, ..
            } => ("ok_simultaneous", ""),
            Verdict::Nok => ("nok", "we are connecting to it, and that attempt wins"),
            Verdict::NotAllowed(reason) => ("not_allowed", *reason),
        };
        effects.push(Effect::Send(packet::status(status)));
        let Verdict::Accept { cookie, .. } = verdict else {
            return Err(HandshakeError::RefusedByUs {
                peer: peer.name,
                reason: refused,
            });
        };
        // Stock peers would ignore a trailer; they do not get one.
        let trailer = peer
            .trailer
            .map(|theirs| self.trailer(theirs.extra).encode());
        effects.push(Effect::Send(packet::challenge(
            self.flags,
            self.challenge,
            &self.identity,
            &trailer.unwrap_or_default(),
        )));
        Ok(State::Reply { peer, cookie })
    }

    fn on_reply(
        &self,
        peer: PeerHello,
        cookie: &[u8],
        bytes: &[u8],
    ) -> Result<[Effect; 2], HandshakeError> {
        let reply = packet::parse_reply(bytes)?;
        if !equal(&reply.digest, &trailer::digest(cookie, self.challenge)) {
            return Err(HandshakeError::WrongCookie { peer: peer.name });
        }
        let link = self.link(&peer, cookie, reply.binding)?;
        let ack = packet::ack(trailer::digest(cookie, reply.challenge));
        Ok([Effect::Send(ack), Effect::Done(Established { peer, link })])
    }

    /// What the connection of an authenticated dialler is.
    fn link(
        &self,
        peer: &PeerHello,
        cookie: &[u8],
        binding: &[u8],
    ) -> Result<Link, HandshakeError> {
        let bad = |what| HandshakeError::BadBinding {
            peer: peer.name.clone(),
            what,
        };
        match peer.trailer {
            None => Ok(Link::Stock),
            Some(theirs) if !theirs.extra => {
                if !binding.is_empty() {
                    return Err(bad("a first connection has no binding"));
                }
                Ok(Link::First(SessionId::derive(&theirs.nonce, &self.nonce)))
            }
            Some(theirs) => {
                let binding = Binding::parse(binding).map_err(bad)?;
                let fresh = Freshness {
                    listener_challenge: self.challenge,
                    dialler_nonce: theirs.nonce,
                    listener_nonce: self.nonce,
                };
                if !binding.is_authentic(cookie, &fresh) {
                    return Err(bad("the proof is wrong"));
                }
                Ok(Link::Extra {
                    session: binding.session,
                    index: binding.index,
                })
            }
        }
    }
}

fn equal(a: &[u8; 16], b: &[u8; 16]) -> bool {
    bool::from(a.ct_eq(b))
}
