//! The order of the handshake's packets, for both ends.

use std::fmt::Write;
use std::mem;
use std::sync::Arc;

use subtle::ConstantTimeEq;

use crate::limits::MAX_HANDSHAKE_PACKET;
use crate::wire::flags::Flags;
use crate::wire::handshake::packet::{self, Hello, Name, Status};
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
    stock_flags: Flags,
    instance: u64,
    capabilities: u32,
    nonce: [u8; 16],
    challenge: u32,
}

struct Dial {
    peer: Arc<str>,
    cookie: Vec<u8>,
    purpose: Purpose,
    /// We have no name: `Local::identity` has only the host.
    nameless: bool,
    given: Option<Identity>,
}

/// A dialler that a listener goes on with.
struct Accepted {
    peer: PeerHello,
    cookie: Vec<u8>,
    replaces: bool,
    old: bool,
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
    /// Listener: waits for the caller's verdict. `old`: the name packet was of the old form.
    Verdict { peer: PeerHello, old: bool },
    /// Listener: waits to hear whether the older connection is dead.
    Alive(Accepted),
    /// Listener: waits for the complement of an old name packet.
    Complement(Accepted),
    /// Listener: waits for the answer to its challenge.
    Reply(Accepted),
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
            State::Verdict { .. } => "deciding on the peer",
            State::Alive(_) => "waiting for the answer to alive",
            State::Complement(_) => "waiting for the complement",
            State::Reply(_) => "waiting for the challenge reply",
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
                nameless: purpose == Purpose::Stock && !config.local.node.contains('@'),
                peer,
                cookie,
                purpose,
                given: None,
            }),
            Role::Listener => State::Name,
        };
        let local = Local {
            identity: config.local,
            flags: config.flags,
            stock_flags: config.stock_flags,
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
                effects.push(Effect::Send(local.name(&dial)));
                State::Status(dial)
            }
            (State::Status(dial), Event::Packet(bytes)) => local.on_status(dial, bytes, effects)?,
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
            (State::Verdict { peer, old }, Event::Verdict(verdict)) => {
                local.on_verdict(peer, old, verdict, effects)?
            }
            (State::Alive(mut accepted), Event::Packet(bytes)) => {
                if !packet::parse_alive(bytes)? {
                    return Err(HandshakeError::KeepsOld {
                        peer: accepted.peer.name,
                    });
                }
                accepted.replaces = true;
                local.challenge(accepted, effects)
            }
            (State::Complement(accepted), Event::Packet(bytes)) => {
                State::Reply(on_complement(accepted, bytes)?)
            }
            (State::Reply(accepted), Event::Packet(bytes)) => {
                effects.extend(local.on_reply(accepted, bytes)?);
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
            State::Verdict { peer, .. } => (peer.name.clone(), Awaited::Nothing),
            State::Alive(accepted) => (accepted.peer.name.clone(), Awaited::Alive),
            State::Complement(accepted) => (accepted.peer.name.clone(), Awaited::Complement),
            State::Reply(accepted) => (accepted.peer.name.clone(), Awaited::Digest),
        };
        HandshakeError::Closed { peer, awaited }
    }
}

/// The flags were checked with the name: all that are mandatory are in the lower half.
fn on_complement(mut accepted: Accepted, bytes: &[u8]) -> Result<Accepted, HandshakeError> {
    let (upper, creation) = packet::parse_complement(bytes)?;
    accepted.peer.flags = accepted.peer.flags.with(upper);
    accepted.peer.creation = creation;
    Ok(accepted)
}

impl Local {
    /// What we offer to a peer that runs Partisan, or does not.
    fn offer(&self, stock: bool) -> Flags {
        match stock {
            true => self.stock_flags,
            false => self.flags,
        }
    }

    fn name(&self, dial: &Dial) -> Vec<u8> {
        if dial.nameless {
            let host = Identity::new(self.identity.node.clone(), 0);
            return packet::name(self.stock_flags.with(Flags::NAME_ME), &host, &[]);
        }
        let trailer = match dial.purpose {
            Purpose::Stock => Vec::new(),
            purpose => self.trailer(purpose != Purpose::First).encode(),
        };
        let flags = self.offer(dial.purpose == Purpose::Stock);
        packet::name(flags, &self.identity, &trailer)
    }

    fn on_status(
        &self,
        mut dial: Dial,
        bytes: &[u8],
        effects: &mut Vec<Effect>,
    ) -> Result<State, HandshakeError> {
        let no_name = |peer, what| Err(HandshakeError::NoName { peer, what });
        let refusal = match packet::parse_status(bytes)? {
            Status::Named(name, creation) if dial.nameless => {
                let host = |name: &&str| {
                    name.split_once('@')
                        .is_some_and(|(_, host)| *host == *self.identity.node)
                };
                let Some(name) = packet::node_name(name).filter(host) else {
                    return no_name(dial.peer, "what it offers is not NAME@OUR-HOST");
                };
                dial.given = Some(Identity::new(name, creation));
                return Ok(State::Challenge(dial));
            }
            Status::Ok | Status::Alive if dial.nameless => {
                return no_name(dial.peer, "it runs OTP 22 or older, or does not listen");
            }
            Status::Ok => return Ok(State::Challenge(dial)),
            Status::Alive if dial.purpose == Purpose::Stock => {
                effects.push(Effect::Send(packet::status("true")));
                return Ok(State::Challenge(dial));
            }
            Status::Alive => {
                // The listener will find out by itself whether the connection that it has is
                // dead; taking it over could kill a live session.
                effects.push(Effect::Send(packet::status("false")));
                Refusal::Alive
            }
            Status::Named(..) => Refusal::Named,
            Status::Refused(refusal) => refusal,
        };
        Err(HandshakeError::Refused {
            peer: dial.peer,
            refusal,
        })
    }

    fn trailer(&self, extra: bool) -> Trailer {
        Trailer {
            capabilities: self.capabilities,
            extra,
            instance: self.instance,
            nonce: self.nonce,
        }
    }

    /// The checks that both ends make on what the other says about itself. `stock`: we mean to
    /// speak Erlang's own protocol with it.
    fn peer(&self, hello: &Hello<'_>, stock: bool) -> Result<PeerHello, HandshakeError> {
        let name: Arc<str> = hello.name.into();
        let missing = Flags::MANDATORY.without(hello.flags);
        if !missing.is_empty() {
            return Err(HandshakeError::MissingFlags {
                peer: name,
                missing,
            });
        }
        let trailer = match stock {
            true => None,
            false => Trailer::parse(hello.residue)?,
        };
        if trailer.is_none() && name == self.identity.node {
            return Err(HandshakeError::SameName(name));
        }
        if trailer.is_some_and(|trailer| trailer.instance == self.instance) {
            return Err(HandshakeError::SelfConnection { peer: name });
        }
        Ok(PeerHello {
            name,
            creation: hello.creation,
            nameless: false,
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
        let peer = self.peer(&hello, dial.purpose == Purpose::Stock)?;
        if peer.name != dial.peer {
            let (dialled, answered) = (dial.peer, peer.name);
            return Err(HandshakeError::NameMismatch { dialled, answered });
        }
        let (link, binding) = match (peer.trailer, dial.purpose) {
            // `peer` reads no trailer for a stock purpose.
            (_, Purpose::Stock) | (None, Purpose::First) => (Link::Stock, None),
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
        // What we have offered is what the purpose said, even if the peer turns out to be stock.
        let ours = self.offer(dial.purpose == Purpose::Stock);
        let done = Established {
            flags: ours.and(peer.flags),
            peer,
            link,
            replaces: false,
            given: dial.given,
        };
        Ok(State::Ack { digest, done })
    }

    fn on_name(&self, bytes: &[u8], effects: &mut Vec<Effect>) -> Result<State, HandshakeError> {
        // Whoever has given a name can understand a status, and its operator deserves one.
        let refuse = |error: &HandshakeError| match error {
            HandshakeError::Malformed { .. } | HandshakeError::BadName(_) => {}
            _ => effects.push(Effect::Send(packet::status("not_allowed"))),
        };
        let read = packet::parse_name(bytes).and_then(|name| match name {
            Name::New(hello) if hello.flags.contains(Flags::NAME_ME) => {
                let mut peer = self.peer(&hello, true)?;
                let given = self.compose(hello.name);
                (peer.name, peer.creation) = (given.node, given.creation);
                peer.nameless = true;
                Ok((peer, false))
            }
            Name::New(hello) => Ok((self.peer(&hello, false)?, false)),
            Name::Old(hello) => Ok((self.peer(&hello, true)?, true)),
        });
        let (peer, old) = read.inspect_err(refuse)?;
        effects.push(Effect::Judge(peer.clone()));
        Ok(State::Verdict { peer, old })
    }

    /// A name and creation for a node at `host` that has none, from the random bytes of this
    /// handshake: they go to Partisan peers only, so nobody else sees them.
    fn compose(&self, host: &str) -> Identity {
        let mut name = String::with_capacity(host.len() + packet::GIVEN_NAME);
        let (random, rest) = self.nonce.split_at(8);
        for byte in random {
            let _ = write!(name, "{byte:02X}");
        }
        let creation = rest
            .iter()
            .take(4)
            .fold(0, |creation: u32, byte| creation << 8 | u32::from(*byte));
        // Creations below 4 mean nodes of the times when a creation had two bits.
        Identity::new(format!("{name}@{host}"), creation.max(4))
    }

    fn on_verdict(
        &self,
        peer: PeerHello,
        old: bool,
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
            Verdict::Alive { .. } => ("alive", ""),
            Verdict::Nok => ("nok", "we are connecting to it, and that attempt wins"),
            Verdict::NotAllowed(reason) => ("not_allowed", *reason),
        };
        effects.push(Effect::Send(match &verdict {
            Verdict::Accept { .. } | Verdict::Alive { .. } if peer.nameless => {
                packet::named(&Identity::new(peer.name.clone(), peer.creation))
            }
            _ => packet::status(status),
        }));
        let accepted = |cookie| Accepted {
            cookie,
            replaces: false,
            old,
            peer: peer.clone(),
        };
        match verdict {
            // A name that was composed just now has no older connection.
            Verdict::Alive { cookie } if !peer.nameless => Ok(State::Alive(accepted(cookie))),
            Verdict::Accept { cookie, .. } | Verdict::Alive { cookie } => {
                Ok(self.challenge(accepted(cookie), effects))
            }
            Verdict::Nok | Verdict::NotAllowed(_) => Err(HandshakeError::RefusedByUs {
                peer: peer.name,
                reason: refused,
            }),
        }
    }

    fn challenge(&self, accepted: Accepted, effects: &mut Vec<Effect>) -> State {
        let peer = &accepted.peer;
        let mut flags = self.offer(peer.trailer.is_none());
        if peer.nameless {
            // The dialler asserts it.
            flags = flags.with(Flags::NAME_ME);
        }
        // Stock peers would ignore a trailer; they do not get one.
        let trailer = peer
            .trailer
            .map(|theirs| self.trailer(theirs.extra).encode());
        effects.push(Effect::Send(packet::challenge(
            flags,
            self.challenge,
            &self.identity,
            &trailer.unwrap_or_default(),
        )));
        match accepted.old {
            true => State::Complement(accepted),
            false => State::Reply(accepted),
        }
    }

    fn on_reply(&self, accepted: Accepted, bytes: &[u8]) -> Result<[Effect; 2], HandshakeError> {
        let Accepted {
            peer,
            cookie,
            replaces,
            ..
        } = accepted;
        let reply = packet::parse_reply(bytes)?;
        if !equal(&reply.digest, &trailer::digest(&cookie, self.challenge)) {
            return Err(HandshakeError::WrongCookie { peer: peer.name });
        }
        let link = self.link(&peer, &cookie, reply.binding)?;
        let ack = packet::ack(trailer::digest(&cookie, reply.challenge));
        let done = Established {
            flags: self.offer(peer.trailer.is_none()).and(peer.flags),
            peer,
            link,
            replaces,
            given: None,
        };
        Ok([Effect::Send(ack), Effect::Done(done)])
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
