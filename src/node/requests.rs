//! What other nodes ask of a node itself.
//!
//! A BEAM node sends `{partisan_control, request, From, Ref, Request}` to the name
//! `partisan_control` and expects `{partisan_control, reply, Ref, Answer}` at `From`, see
//! `erlang/partisan_control.erl`. A Rust node answers `{is_process_alive, Pid}`; what it does not
//! understand it drops, and the asker has a timeout.

use crate::node::registry::Registry;
use crate::wire::frame::Dest;
use crate::wire::term::{Pid, Term, Value};

/// Name that requests are sent to.
pub(crate) const REQUESTS_NAME: &str = "partisan_control";

/// The answer to a request, and the process that it is for.
pub(crate) fn answer(registry: &Registry, request: &Term) -> Option<(Pid, Term)> {
    let value = request.decode();
    let [name, kind, from, reference, question] = value.as_tuple()? else {
        return None;
    };
    if !name.is_atom(REQUESTS_NAME) || !kind.is_atom("request") {
        return None;
    }
    let [verb, subject] = question.as_tuple()? else {
        return None;
    };
    if !verb.is_atom("is_process_alive") {
        return None;
    }
    let alive = process(registry, subject).is_some_and(|dest| registry.find(dest).is_some());
    let reply = Value::tuple([
        Value::atom(REQUESTS_NAME),
        Value::atom("reply"),
        reference.clone(),
        Value::atom(if alive { "true" } else { "false" }),
    ]);
    Some((from.as_pid()?.clone(), reply.encode().ok()?))
}

/// A pid of this node, or the numbers of one: creation 0 stands for any.
fn process(registry: &Registry, subject: &Value) -> Option<Dest<'static>> {
    if let Some(pid) = subject.as_pid() {
        return (*pid.node == *registry.identity.node).then(|| pid.into());
    }
    let [id, serial, creation] = subject.as_tuple()? else {
        return None;
    };
    let number = |value: &Value| u32::try_from(value.as_i64()?).ok();
    Some(Dest::Pid {
        id: number(id)?,
        serial: number(serial)?,
        creation: number(creation)?,
    })
}
