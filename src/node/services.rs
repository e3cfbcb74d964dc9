//! Names that every node answers to: `net_kernel` and `rex`.
//!
//! `net_adm:ping` is a `gen_server:call` of `{is_auth, Node}` to `net_kernel` (`net_adm.erl`).
//! `rpc:block_call`, `rpc:server_call` and old nodes talk to `rex` (`rpc.erl`). Both are answered where the
//! message arrives; functions run in tasks of their own.

use std::sync::Arc;

use crate::node::api::Inner;
use crate::node::functions::{self, Exception};
use crate::node::server::Caller;
use crate::wire::term::{Term, Value};

/// Answers a message to a service; false if the name is none.
pub(crate) fn answer(inner: &Arc<Inner>, name: &str, term: &Term) -> bool {
    match name {
        "net_kernel" => net_kernel(inner, &term.decode()),
        "rex" => rex(inner, &term.decode()),
        _ => return false,
    }
    true
}

/// Caller and request of a `gen_server:call`.
fn call(message: &Value) -> Option<(Caller, &Value)> {
    match message.as_tuple()? {
        [kind, from, request] if kind.is_atom("$gen_call") => Some((Caller::of(from)?, request)),
        _ => None,
    }
}

fn net_kernel(inner: &Arc<Inner>, message: &Value) {
    if let Some((caller, request)) = call(message)
        && let Some([question, _node]) = request.as_tuple()
        && question.is_atom("is_auth")
    {
        reply(inner, caller, Value::atom("yes"));
    }
}

fn reply(inner: &Arc<Inner>, caller: Caller, value: Value) {
    let node = crate::node::api::Node::of(inner);
    inner.tasks().spawn(async move {
        // A caller that is gone needs no answer.
        let _ = caller.reply_from(&node, value).await;
    });
}

fn rex(inner: &Arc<Inner>, message: &Value) {
    let (caller, request) = match call(message) {
        Some((caller, request)) => (Some(caller), request.clone()),
        None => match message.as_tuple() {
            Some([kind, request]) if kind.is_atom("$gen_cast") => (None, request.clone()),
            Some([_, question]) if question.is_atom("features_request") => {
                return features(inner, message);
            }
            _ => return,
        },
    };
    let Some([kind, module, name, arguments, _leader]) = request.as_tuple() else {
        return;
    };
    if !["call", "block_call", "cast"]
        .iter()
        .any(|known| kind.is_atom(known))
    {
        return;
    }
    let (module, name, arguments) = (module.clone(), name.clone(), arguments.clone());
    let weak = Arc::downgrade(inner);
    let Ok(permit) = inner.functions.room().try_acquire_owned() else {
        return;
    };
    inner.tasks().spawn(async move {
        let _permit = permit;
        let Some(inner) = weak.upgrade() else {
            return;
        };
        let outcome = functions::run(&inner, &module, &name, &arguments).await;
        let exit = |reason| {
            let exit = Value::tuple([Value::atom("EXIT"), reason]);
            Value::tuple([Value::atom("badrpc"), exit])
        };
        let value = match outcome {
            Some(Ok(value)) | Some(Err(Exception::Throw(value))) => value,
            Some(Err(Exception::Exit(reason))) => exit(reason),
            Some(Err(Exception::Error(reason))) => exit(Value::tuple([reason, Value::list([])])),
            None => {
                let (reason, stack) = functions::undefined(&module, &name, &arguments);
                exit(Value::tuple([reason, stack]))
            }
        };
        if let Some(caller) = caller {
            reply(&inner, caller, value);
        }
    });
}

/// `{From, features_request}`: what this `rex` knows, besides the calls.
fn features(inner: &Arc<Inner>, message: &Value) {
    let from = message
        .as_tuple()
        .and_then(|pair| pair.first()?.as_pid().cloned());
    let Some(from) = from else {
        return;
    };
    let node = crate::node::api::Node::of(inner);
    inner.tasks().spawn(async move {
        let answer = Value::tuple([
            Value::atom("features_reply"),
            Value::atom(node.name()),
            Value::list([Value::atom("erpc")]),
        ]);
        if let Ok(answer) = answer.encode() {
            let _ = node.send(&from, &answer).await;
        }
    });
}
