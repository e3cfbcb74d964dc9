//! What happens to the node becomes routes and messages to its owner.

use std::sync::Arc;

use partisan::connection::session::{CloseReason, Session};
use partisan::node::runtime::Observer;
use partisan::overlay::switch::Status;
use partisan::overlay::{MemberChannel, NodeSpec};
use partisan::wire::hello::PlannedChannel;
use rustler::{Encoder, Env, LocalPid, NewBinary, OwnedEnv, Term};

use crate::atoms;
use crate::config::{encode_spec, make_atom};
use crate::raw;
use crate::routes::{ChannelRoute, Route, Routes};

/// Tells the owner.
pub(crate) struct Owner {
    pub(crate) pid: LocalPid,
    pub(crate) routes: Arc<Routes>,
}

impl Owner {
    fn tell<F>(&self, event: F)
    where
        F: for<'a> FnOnce(Env<'a>) -> Term<'a>,
    {
        let mut env = OwnedEnv::new();
        // Fails only if the owner is dead, and then it is about to stop the node.
        let _ = env.send_and_clear(&self.pid, |env| (atoms::partisan_event(), event(env)));
    }
}

/// The word of the atom of a name.
fn atom_word(name: &str) -> usize {
    OwnedEnv::new().run(|env| raw::word(make_atom(env, name).as_c_arg()))
}

fn announced(channel: &PlannedChannel) -> MemberChannel {
    MemberChannel {
        name: channel.name.clone(),
        parallelism: channel.count,
        monotonic: channel.monotonic,
        compression: channel.compression,
    }
}

/// `{Overlay, Epoch, Old}`, the names as binaries; `undefined` if none is about to end.
pub(crate) fn encode_status<'a>(env: Env<'a>, status: &Status) -> (Term<'a>, u64, Term<'a>) {
    let binary = |name: &str| {
        let mut bytes = NewBinary::new(env, name.len());
        bytes.as_mut_slice().copy_from_slice(name.as_bytes());
        Term::from(bytes)
    };
    let old = status.until_switched.map(binary);
    let none = atoms::undefined().encode(env);
    (binary(status.overlay), status.epoch, old.unwrap_or(none))
}

impl Observer for Owner {
    fn session_up(&mut self, session: &Arc<Session>, spec: Option<&NodeSpec>, news: bool) {
        let name = session.peer.node.clone();
        let mut base = 0;
        let mut channels = Vec::new();
        for channel in session.plan.channels() {
            let count = usize::from(channel.count);
            channels.push(ChannelRoute {
                atom: atom_word(&channel.name),
                name: channel.name.clone(),
                outboxes: (base..base + count)
                    .filter_map(|index| session.outbox(index).cloned())
                    .collect(),
            });
            base += count;
        }
        let route = Route {
            name: name.clone(),
            session: Some(session.clone()),
            channels,
        };
        self.routes.set(atom_word(&name), route);
        if !news {
            return;
        }
        // Who has connected but is no member yet has told its channels only.
        let spec = spec.cloned().unwrap_or_else(|| NodeSpec {
            name: name.clone(),
            listen_addrs: Vec::new(),
            channels: session.plan.channels().iter().map(announced).collect(),
        });
        self.tell(|env| (atoms::up(), make_atom(env, &name), encode_spec(env, &spec)).encode(env));
    }

    fn session_down(&mut self, session: &Arc<Session>, reason: &CloseReason, news: bool) {
        let name = session.peer.node.clone();
        self.routes.remove(atom_word(&name), session);
        if news {
            self.node_down(&name, &reason.to_string());
        }
    }

    fn node_down(&mut self, node: &str, reason: &str) {
        self.tell(|env| (atoms::down(), make_atom(env, node), reason).encode(env));
    }

    fn tells_at_once(&self) -> bool {
        // The owner hears of it, and says when it has told the rest.
        false
    }

    fn members(&mut self, members: &[NodeSpec]) {
        self.tell(|env| {
            let specs: Vec<Term<'_>> = members.iter().map(|s| encode_spec(env, s)).collect();
            (atoms::members(), specs).encode(env)
        });
    }

    fn joined(&mut self, node: &str) {
        self.tell(|env| (atoms::joined(), make_atom(env, node)).encode(env));
    }

    fn overlay(&mut self, status: &Status, reaches: bool) {
        self.tell(|env| {
            let (overlay, epoch, old) = encode_status(env, status);
            (atoms::overlay(), overlay, epoch, old, reaches).encode(env)
        });
    }

    fn left(&mut self) {
        self.tell(|env| atoms::left().encode(env));
    }

    fn failed(&mut self, why: &str) {
        self.tell(|env| (atoms::failed(), why).encode(env));
    }
}
