//! The NIF that puts a Partisan node inside a BEAM node.
//!
//! `send/7` and `cancel/1` run on ordinary schedulers and are bounded to well under 100 µs;
//! `send_iov/7`, `payload/3`, `start/1` and `stop/0` run on dirty ones; `command/2` answers by a message. No
//! NIF holds a lock over a system call, and rustler turns panics into exceptions.
//!
//! `erlang/partisan_nif.erl` is the other side, with the types of every function.

use std::rc::Rc;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use partisan::connection::inlet::subject;
use partisan::connection::outbox::Pressure;
use partisan::connection::session::Session;
use partisan::delivery::Lane;
use partisan::node::runtime::{BroadcastView, Command, Delivering, Undeliverable};
use partisan::overlay::NodeSpec;
use partisan::wire::frame::{Dest, DestBuf};
use rustler::{Encoder, Env, LocalPid, NifResult, OwnedEnv, ResourceArc, Term};

mod blob;
mod config;
mod decode;
mod encode;
mod host;
mod inbox;
mod log;
mod node;
mod observer;
mod payload;
mod pool;
mod postman;
mod raw;
mod routes;
mod send;
mod slice;
mod vm;
mod waiter;

use config::{decode_spec, encode_ip, encode_spec, make_atom};
use inbox::{Parcel, Progress};
use node::Running;
use payload::Payload;
use send::Outcome;
use waiter::{Place, ProcessWaiter};

mod atoms {
    rustler::atoms! {
        net_kernel, partisan_settle,
        badarg, busy, creation, down, error, failed, false_ = "false", granted, left, limit,
        listen_addrs, members, name, notalive, ok, partisan_event, slow, true_ = "true", up, wait,
        any, none, done, more, heavy, undefined, connections, leave, join, update_members, disconnect,
        partisan_control, partisan_parcel, reach, watch, told, joined, broadcast, broadcast_view,
        switch, steer, remember, overlay,
        deliver, withdraw, timeout, disconnected, not_yet_connected, channel, label,
    }
}

rustler::init!("partisan_nif");

/// What a call of `deliver/1` takes of its process's time slice of about 1 ms.
const DELIVERY_PERCENT: i32 = 5;

/// Starts the node; see `partisan_nif:start/1`.
#[rustler::nif(schedule = "DirtyIo")]
fn start<'a>(env: Env<'a>, map: Term<'a>) -> Term<'a> {
    let started = config::Start::decode(map).and_then(node::start);
    match started {
        Ok(running) => {
            let spec = running.runtime.spec();
            let addrs: Vec<Term<'a>> = spec
                .listen_addrs
                .iter()
                .map(|addr| (encode_ip(env, addr.ip()), addr.port()).encode(env))
                .collect();
            let identity = running.runtime.identity();
            let map = Term::map_from_pairs(
                env,
                &[
                    (atoms::name().encode(env), make_atom(env, &identity.node)),
                    (atoms::creation().encode(env), identity.creation.encode(env)),
                    (atoms::listen_addrs().encode(env), addrs.encode(env)),
                ],
            );
            match map {
                Ok(map) => (atoms::ok(), map).encode(env),
                Err(_) => (atoms::error(), "no memory").encode(env),
            }
        }
        Err(reason) => (atoms::error(), reason).encode(env),
    }
}

/// Stops the node; see `partisan_nif:stop/0`.
#[rustler::nif(schedule = "DirtyIo")]
fn stop() -> rustler::Atom {
    node::stop();
    atoms::ok()
}

/// A destination as Erlang names it.
enum DestTerm {
    Name(Rc<str>),
    Pid { id: u32, serial: u32, creation: u32 },
}

impl DestTerm {
    fn decode(term: Term<'_>) -> Option<Self> {
        if term.is_atom() {
            return encode::cached_text(term.get_env().as_c_arg(), term.as_c_arg()).map(Self::Name);
        }
        if let Ok((id, serial, creation)) = term.decode::<(u32, u32, u32)>() {
            return Some(Self::Pid {
                id,
                serial,
                creation,
            });
        }
        if !term.is_pid() {
            return None;
        }
        let mut bytes = Vec::with_capacity(64);
        if !raw::term_to_binary(term.get_env().as_c_arg(), term.as_c_arg(), &mut bytes) {
            return None;
        }
        let tail: [u8; 12] = bytes.get(bytes.len().checked_sub(12)?..)?.try_into().ok()?;
        let word =
            |at: usize| u32::from_be_bytes([tail[at], tail[at + 1], tail[at + 2], tail[at + 3]]);
        Some(Self::Pid {
            id: word(0),
            serial: word(4),
            creation: word(8),
        })
    }

    fn as_dest(&self) -> Dest<'_> {
        match self {
            Self::Name(name) => Dest::Name(name),
            Self::Pid {
                id,
                serial,
                creation,
            } => Dest::Pid {
                id: *id,
                serial: *serial,
                creation: *creation,
            },
        }
    }
}

/// Everything that `send/7` and `send_iov/7` do before and after the encoding.
fn sending<'a>(
    env: Env<'a>,
    to: (Term<'a>, Term<'a>, i64, Term<'a>),
    flags: u32,
    wait: Term<'a>,
    encode: impl FnOnce(&Running, send::Target<'_>, Dest<'_>, Pressure) -> Outcome,
) -> Term<'a> {
    let (node, channel, key, dest) = to;
    let badarg = || (atoms::error(), atoms::badarg()).encode(env);
    let Some(caller) = raw::caller(env.as_c_arg()) else {
        return badarg();
    };
    let Some(dest) = DestTerm::decode(dest) else {
        return badarg();
    };
    if matches!(dest.as_dest(), Dest::Name(name) if subject(name).is_some()) {
        // Nodes' own; a peer would end the session over anything else there.
        return badarg();
    }
    let mut waiter = None;
    let outcome = node::sending(|running, routes| {
        let (node, channel) = (raw::word(node.as_c_arg()), raw::word(channel.as_c_arg()));
        let mut target = match send::route(routes, node, channel, key, flags, &caller) {
            Ok(target) => target,
            Err(why) => return Outcome::Error(why),
        };
        let granted;
        let pressure = if wait.is_atom() {
            Pressure::Refuse
        } else if wait.is_ref() && wait.decode::<ResourceArc<Place>>().is_err() {
            let fresh = Arc::new(ProcessWaiter::new(caller, wait.as_c_arg()));
            waiter = Some(fresh.clone());
            Pressure::Wait(fresh)
        } else {
            let place = wait
                .decode::<(rustler::Atom, ResourceArc<Place>)>()
                .map(|(_, p)| p);
            let Ok(place) = place else {
                return Outcome::Error("badarg");
            };
            match place.take() {
                Some((outbox, ticket)) => {
                    granted = outbox;
                    target.outbox = &granted;
                    Pressure::Granted(ticket)
                }
                None => return Outcome::Error("badarg"),
            }
        };
        encode(running, target, dest.as_dest(), pressure)
    });
    match outcome.unwrap_or(Outcome::Error("notalive")) {
        Outcome::Ok => atoms::ok().encode(env),
        Outcome::Slow => atoms::slow().encode(env),
        Outcome::Busy => atoms::busy().encode(env),
        Outcome::Waiting(outbox, ticket) => match waiter {
            Some(waiter) => {
                let place = Place::new(outbox, ticket, waiter);
                (atoms::wait(), ResourceArc::new(place)).encode(env)
            }
            None => badarg(),
        },
        outcome @ (Outcome::Error(_) | Outcome::Limit(_)) => refusal(env, &outcome),
    }
}

/// A term that is not sent.
fn refusal<'a>(env: Env<'a>, outcome: &Outcome) -> Term<'a> {
    match outcome {
        Outcome::Error(why) => (atoms::error(), make_atom(env, why)).encode(env),
        Outcome::Limit(which) => {
            (atoms::error(), (atoms::limit(), make_atom(env, which))).encode(env)
        }
        _ => (atoms::error(), atoms::badarg()).encode(env),
    }
}

/// Sends a term; see `partisan_nif:send/7`.
#[rustler::nif]
#[expect(
    clippy::too_many_arguments,
    reason = "a tuple would cost every message an allocation"
)]
fn send<'a>(
    env: Env<'a>,
    node: Term<'a>,
    channel: Term<'a>,
    key: i64,
    dest: Term<'a>,
    message: Term<'a>,
    flags: u32,
    wait: Term<'a>,
) -> Term<'a> {
    sending(
        env,
        (node, channel, key, dest),
        flags,
        wait,
        |running, target, dest, pressure| {
            let message = message.as_c_arg();
            send::send(
                running,
                env.as_c_arg(),
                target,
                dest,
                message,
                flags,
                pressure,
            )
        },
    )
}

/// Sends a term that `erlang:term_to_iovec/1` has encoded; see `partisan_nif:send_iov/7`.
#[rustler::nif(schedule = "DirtyCpu")]
#[expect(clippy::too_many_arguments, reason = "the same as send/7")]
fn send_iov<'a>(
    env: Env<'a>,
    node: Term<'a>,
    channel: Term<'a>,
    key: i64,
    dest: Term<'a>,
    parts: Vec<Term<'a>>,
    flags: u32,
    wait: Term<'a>,
) -> Term<'a> {
    sending(
        env,
        (node, channel, key, dest),
        flags,
        wait,
        |running, target, dest, pressure| {
            let parts: Vec<_> = parts.iter().map(|p| p.as_c_arg()).collect();
            send::send_iov(running, target, dest, &parts, flags, pressure)
        },
    )
}

/// Makes a term that `erlang:term_to_iovec/1` has encoded ready to be broadcast or kept; see
/// `partisan_nif:payload/3`.
#[rustler::nif(schedule = "DirtyCpu")]
fn payload<'a>(env: Env<'a>, to: Term<'a>, parts: Vec<Term<'a>>, flags: u32) -> Term<'a> {
    let Some(dest) = DestTerm::decode(to).map(|dest| DestBuf::from(dest.as_dest())) else {
        return (atoms::error(), atoms::badarg()).encode(env);
    };
    if matches!(&dest, DestBuf::Name(name) if subject(name).is_some()) {
        return (atoms::error(), atoms::badarg()).encode(env);
    }
    let parts: Vec<_> = parts.iter().map(|p| p.as_c_arg()).collect();
    let made = node::with(|running| Payload::new(running, dest, &parts, flags));
    match made.unwrap_or(Err(Outcome::Error("notalive"))) {
        Ok(payload) => (atoms::ok(), ResourceArc::new(payload)).encode(env),
        Err(outcome) => refusal(env, &outcome),
    }
}

/// Gives up a place in a queue; see `partisan_nif:cancel/1`.
#[rustler::nif]
fn cancel(place: ResourceArc<Place>) -> rustler::Atom {
    place.cancel();
    atoms::ok()
}

/// Says that no change of the VM's name is under way; see `partisan_nif:settle/1`.
#[rustler::nif]
fn settle(env: Env<'_>, net_kernel: Term<'_>) -> rustler::Atom {
    let word = if net_kernel.is_pid() {
        raw::word(net_kernel.as_c_arg())
    } else {
        0
    };
    node::with(|running| {
        let host = &running.host;
        host.mapper.settle(env.as_c_arg(), &host.owner, word);
    });
    atoms::ok()
}

/// Delivers messages that have arrived; see `partisan_nif:deliver/1`.
#[rustler::nif]
fn deliver(env: Env<'_>, parcel: ResourceArc<Parcel>) -> rustler::Atom {
    let Some(own) = raw::caller(env.as_c_arg()) else {
        return atoms::badarg();
    };
    let progress = parcel.deliver(env.as_c_arg(), &own);
    rustler::schedule::consume_timeslice(env, DELIVERY_PERCENT);
    match progress {
        Progress::Done => atoms::done(),
        Progress::More => atoms::more(),
        Progress::Heavy => atoms::heavy(),
    }
}

/// Delivers one large message that has arrived; see `partisan_nif:deliver_heavy/1`.
#[rustler::nif(schedule = "DirtyCpu")]
fn deliver_heavy(env: Env<'_>, parcel: ResourceArc<Parcel>) -> rustler::Atom {
    parcel.deliver_heavy(env.as_c_arg());
    atoms::more()
}

/// Sends `{Ref, Value}` to the caller of a command, from the control thread.
struct Answer {
    pid: LocalPid,
    env: OwnedEnv,
    /// `None`: nobody waits.
    reference: Option<rustler::env::SavedTerm>,
}

impl Answer {
    fn new(pid: LocalPid, reference: Term<'_>) -> Self {
        let env = OwnedEnv::new();
        let reference = reference.is_ref().then(|| env.save(reference));
        Self {
            pid,
            env,
            reference,
        }
    }

    fn send<F>(mut self, value: F)
    where
        F: for<'b> FnOnce(Env<'b>) -> Term<'b>,
    {
        let (pid, Some(reference)) = (self.pid, self.reference) else {
            return;
        };
        // Fails only if the caller is dead.
        let _ = self
            .env
            .send_and_clear(&pid, |env| (reference.load(env), value(env)));
    }

    fn outcome(self, outcome: Result<(), String>) {
        self.send(|env| match outcome {
            Ok(()) => atoms::ok().encode(env),
            Err(why) => (atoms::error(), why).encode(env),
        });
    }
}

/// Answers a sender, whatever becomes of its message.
struct Kept(Option<Answer>);

impl Kept {
    fn tell(&mut self, outcome: Result<(), Undeliverable>) {
        let Some(answer) = self.0.take() else {
            return;
        };
        let why = match outcome {
            Ok(()) => return answer.send(|env| atoms::ok().encode(env)),
            Err(Undeliverable::Unconnected { known: true }) => atoms::disconnected(),
            Err(Undeliverable::Unconnected { known: false }) => atoms::not_yet_connected(),
            Err(Undeliverable::Busy) => atoms::busy(),
            Err(Undeliverable::Withdrawn) => atoms::timeout(),
            Err(Undeliverable::Stopped) => atoms::notalive(),
        };
        answer.send(|env| (atoms::error(), why).encode(env));
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(answer) = self.0.take() {
            // This may be a scheduler, from which nothing can be sent in this way.
            std::thread::spawn(|| Kept(Some(answer)).tell(Err(Undeliverable::Stopped)));
        }
    }
}

/// `{Node, {channel | label, Name}, Payload, Ticket, Wait}`
fn delivering(argument: Term<'_>, answer: Answer) -> Result<Delivering, String> {
    let mut kept = Kept(Some(answer));
    let (node, (kind, name), payload, ticket, wait) = argument
        .decode::<(
            Term<'_>,
            (rustler::Atom, Term<'_>),
            ResourceArc<Payload>,
            u64,
            bool,
        )>()
        .map_err(|_| "a message to deliver is wanted".to_string())?;
    let name = config::name(name)?;
    let lane = match kind == atoms::label() {
        true => Lane::Label(name),
        false => Lane::Channel(name),
    };
    let Payload::Kept(parcel) = &*payload else {
        return Err("it was made to be broadcast".into());
    };
    Ok(Delivering {
        to: config::name(node)?,
        lane,
        parcel: parcel.clone(),
        wait,
        ticket,
        reply: Box::new(move |outcome| kept.tell(outcome)),
    })
}

/// Asks the control thread for something; see `partisan_nif:command/2`.
#[rustler::nif]
fn command<'a>(env: Env<'a>, reference: Term<'a>, request: Term<'a>) -> NifResult<Term<'a>> {
    let Some(running) = node::running() else {
        return Ok((atoms::error(), atoms::notalive()).encode(env));
    };
    let answer = Answer::new(env.pid(), reference);
    match parse_command(request, answer) {
        Ok(command) => {
            running.runtime.command(command);
            Ok(atoms::ok().encode(env))
        }
        Err(why) => Ok((atoms::error(), why).encode(env)),
    }
}

fn parse_command(request: Term<'_>, answer: Answer) -> Result<Command, String> {
    if let Ok(atom) = request.decode::<rustler::Atom>() {
        return if atom == atoms::leave() {
            Ok(Command::Leave(Box::new(|outcome| answer.outcome(outcome))))
        } else if atom == atoms::members() {
            Ok(Command::Members(Box::new(|members: Vec<NodeSpec>| {
                answer.send(|env| {
                    let specs: Vec<Term<'_>> =
                        members.iter().map(|spec| encode_spec(env, spec)).collect();
                    (atoms::ok(), specs).encode(env)
                });
            })))
        } else if atom == atoms::connections() {
            Ok(Command::Sessions(Box::new(|sessions| {
                answer.send(|env| {
                    let all: Vec<Term<'_>> = sessions
                        .iter()
                        .flat_map(|s| encode_connections(env, s))
                        .collect();
                    (atoms::ok(), all).encode(env)
                });
            })))
        } else if atom == atoms::overlay() {
            Ok(Command::Overlay(Box::new(|status| {
                answer.send(|env| observer::encode_status(env, &status).encode(env));
            })))
        } else {
            Err("unknown command".into())
        };
    }
    if let Ok((verb, node, on)) = request.decode::<(rustler::Atom, Term<'_>, bool)>()
        && verb == atoms::watch()
    {
        return Ok(Command::Watch(config::name(node)?, on));
    }
    if let Ok((verb, name, terms)) = request.decode::<(rustler::Atom, String, Vec<Term<'_>>)>()
        && verb == atoms::steer()
    {
        return Ok(Command::Steer(
            name,
            decode_specs(terms)?,
            Box::new(|outcome| answer.outcome(outcome)),
        ));
    }
    let (verb, argument) = request
        .decode::<(rustler::Atom, Term<'_>)>()
        .map_err(|_| "unknown command".to_string())?;
    if verb == atoms::join() {
        let spec = decode_spec(argument)?;
        Ok(Command::Join(
            spec,
            Box::new(|outcome| answer.outcome(outcome)),
        ))
    } else if verb == atoms::leave() {
        let name = config::name(argument)?;
        Ok(Command::Remove(
            name,
            Box::new(|outcome| answer.outcome(outcome)),
        ))
    } else if verb == atoms::update_members() {
        let terms: Vec<Term<'_>> = argument
            .decode()
            .map_err(|_| "a list of specifications is wanted".to_string())?;
        Ok(Command::Update(
            decode_specs(terms)?,
            Box::new(|outcome| answer.outcome(outcome)),
        ))
    } else if verb == atoms::broadcast() {
        let payload: ResourceArc<Payload> = argument
            .decode()
            .map_err(|_| "what payload/3 has made is wanted".to_string())?;
        let Payload::Broadcast(name, term) = &*payload else {
            return Err("it was made to be kept".into());
        };
        Ok(Command::Broadcast(
            name.clone(),
            term.clone(),
            Box::new(|outcome| answer.outcome(outcome)),
        ))
    } else if verb == atoms::deliver() {
        delivering(argument, answer).map(Command::Deliver)
    } else if verb == atoms::withdraw() {
        let ticket = argument.decode();
        Ok(Command::Withdraw(ticket.map_err(|_| "a ticket is wanted")?))
    } else if verb == atoms::broadcast_view() {
        let root = config::name(argument)?;
        Ok(Command::BroadcastView(
            root,
            Box::new(|view: BroadcastView| {
                answer.send(|env| {
                    let names = |names: &[Arc<str>]| -> Vec<Term<'_>> {
                        names.iter().map(|name| make_atom(env, name)).collect()
                    };
                    (names(&view.eager), names(&view.lazy)).encode(env)
                });
            }),
        ))
    } else if verb == atoms::switch() {
        let name: String = argument
            .decode()
            .map_err(|_| "the name of an overlay is wanted".to_string())?;
        Ok(Command::Switch(
            name,
            Box::new(|outcome| answer.outcome(outcome)),
        ))
    } else if verb == atoms::reach() {
        let name = config::name(argument)?;
        Ok(Command::Reach(
            name,
            Box::new(|up: bool| answer.send(|env| up.encode(env))),
        ))
    } else if verb == atoms::remember() {
        Ok(Command::Remember(decode_spec(argument)?))
    } else if verb == atoms::told() {
        Ok(Command::Told(config::name(argument)?))
    } else if verb == atoms::disconnect() {
        let name = config::name(argument)?;
        Ok(Command::Disconnect(
            name,
            Box::new(|was_up: bool| answer.send(|env| was_up.encode(env))),
        ))
    } else {
        Err("unknown command".into())
    }
}

fn decode_specs(terms: Vec<Term<'_>>) -> Result<Vec<NodeSpec>, String> {
    terms.into_iter().map(decode_spec).collect()
}

/// `{Node, Channel, Index, Ip, Port, Nanoseconds}` for each connection.
fn encode_connections<'a>(env: Env<'a>, session: &Session) -> Vec<Term<'a>> {
    let node = make_atom(env, &session.peer.node);
    let mut infos = session.connections.iter();
    let mut all = Vec::new();
    for channel in session.plan.channels() {
        for (index, info) in (0..channel.count).zip(infos.by_ref()) {
            let since = info
                .since
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_nanos() as u64;
            let (ip, port) = (encode_ip(env, info.remote.ip()), info.remote.port());
            let name = make_atom(env, &channel.name);
            all.push((node, name, index, ip, port, since).encode(env));
        }
    }
    all
}

/// The nodes with a session; see `partisan_nif:nodes/0`.
#[rustler::nif]
fn nodes(env: Env<'_>) -> Vec<Term<'_>> {
    node::with(|running| {
        let routes = running.routes.load();
        routes
            .values()
            .filter(|route| route.session.is_some())
            .map(|route| make_atom(env, &route.name))
            .collect()
    })
    .unwrap_or_default()
}

/// Whether there is a session, and one with this channel; see `partisan_nif:is_connected/2`.
#[rustler::nif]
fn is_connected(node: Term<'_>, channel: Term<'_>) -> bool {
    let any = channel
        .decode::<rustler::Atom>()
        .is_ok_and(|atom| atom == atoms::any());
    let channel = raw::word(channel.as_c_arg());
    node::with(|running| {
        let routes = running.routes.load();
        routes
            .get(&raw::word(node.as_c_arg()))
            .is_some_and(|route| {
                route.session.is_some() && (any || route.channels.iter().any(|c| c.atom == channel))
            })
    })
    .unwrap_or(false)
}

/// The channels of a session; see `partisan_nif:channels_of/1`.
#[rustler::nif]
fn channels_of<'a>(env: Env<'a>, node: Term<'a>) -> Vec<Term<'a>> {
    node::with(|running| {
        let routes = running.routes.load();
        let route = routes.get(&raw::word(node.as_c_arg()));
        route.map_or_else(Vec::new, |route| {
            let channels = route.channels.iter();
            channels
                .map(|c| (make_atom(env, &c.name), c.outboxes.len()).encode(env))
                .collect()
        })
    })
    .unwrap_or_default()
}

/// The node's name and creation on the wire; see `partisan_nif:identity/0`.
#[rustler::nif]
fn identity(env: Env<'_>) -> Term<'_> {
    let identity = node::with(|running| {
        let host = &running.host;
        // Remembers the VM's name, under which a term may have been encoded.
        host.mapper.mapping(env.as_c_arg(), &host.owner);
        running.runtime.identity().clone()
    });
    match identity {
        Some(identity) => (make_atom(env, &identity.node), identity.creation).encode(env),
        None => atoms::undefined().encode(env),
    }
}

/// Bytes queued over all connections; see `partisan_nif:queued/0`.
#[rustler::nif]
fn queued() -> u64 {
    node::with(|running| running.runtime.queued()).unwrap_or(0)
}
