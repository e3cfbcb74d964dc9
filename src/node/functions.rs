//! Functions that peers may call, and the processes that run them.
//!
//! `erpc:call` and, since OTP 23, `rpc:call` ask the other node to spawn a process that runs
//! `erpc:execute_call(Ref, Module, Function, Arguments)`; its exit reason is the result
//! (`erpc.erl`). `spawn_request` asks to spawn any function. A Rust node runs what was registered
//! by [`Node::function`](crate::Node::function) and answers all else with an error, never with silence.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::Semaphore;

use crate::distribution::link::Link;
use crate::limits;
use crate::node::api::{Inner, Node};
use crate::node::processes::{atom, lane};
use crate::signals::{Event, Request};
use crate::wire::dist::{Control, Function, Signal};
use crate::wire::term::{Atom, Pid, Reference, Term, Value};

/// How a function ends without a result.
#[derive(Clone, Debug, PartialEq)]
pub enum Exception {
    /// `error(Reason)`.
    Error(Value),
    /// `exit(Reason)`.
    Exit(Value),
    /// `throw(Reason)`.
    Throw(Value),
}

impl Exception {
    /// The error `badarg`.
    pub fn badarg() -> Self {
        Self::Error(Value::atom("badarg"))
    }
}

/// What a function gives.
pub type FunctionResult = Result<Value, Exception>;

/// A call of a function by a peer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Call {
    /// As many as the function was registered with.
    pub arguments: Vec<Value>,
    /// This node.
    pub node: Node,
    /// The process that runs the function, which nobody can send to.
    pub pid: Pid,
    /// The group leader that the caller has given it.
    pub group_leader: Pid,
}

type Running = Pin<Box<dyn Future<Output = FunctionResult> + Send>>;
type Body = Arc<dyn Fn(Call) -> Running + Send + Sync>;
type Key = (Arc<str>, Arc<str>, u32);

/// The functions of a node.
pub(crate) struct Functions {
    known: RwLock<HashMap<Key, Body>>,
    room: Arc<Semaphore>,
}

impl Default for Functions {
    fn default() -> Self {
        Self {
            known: RwLock::default(),
            room: Arc::new(Semaphore::new(limits::MAX_SPAWNED)),
        }
    }
}

impl Functions {
    pub(crate) fn add<F, R>(&self, module: Arc<str>, name: Arc<str>, arity: u8, body: F)
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = FunctionResult> + Send + 'static,
    {
        let body: Body = Arc::new(move |call| Box::pin(body(call)));
        self.known
            .write()
            .insert((module, name, arity.into()), body);
    }

    /// What bounds the functions that run at once.
    pub(crate) fn room(&self) -> Arc<Semaphore> {
        self.room.clone()
    }

    fn find(&self, module: &Atom, name: &Atom, arity: usize) -> Option<Body> {
        let key = (
            Arc::from(module.as_str()),
            Arc::from(name.as_str()),
            u32::try_from(arity).ok()?,
        );
        self.known.read().get(&key).cloned()
    }
}

/// What a process that was spawned for a peer is to do.
enum Task {
    /// `erpc:execute_call/4`: the exit reason carries the result and this reference.
    Call(Value, Option<Body>, Value),
    /// `erpc:execute_cast/3` and functions spawned directly.
    Plain(Option<Body>, Value),
}

/// Module, function and arguments as they stand in a term.
pub(crate) fn callee(
    module: &Value,
    name: &Value,
    arguments: &Value,
) -> Option<(Atom, Atom, Vec<Value>)> {
    match (module, name, arguments) {
        (Value::Atom(module), Value::Atom(name), Value::List(arguments)) => {
            Some((module.clone(), name.clone(), arguments.clone()))
        }
        _ => None,
    }
}

/// The error of a function that does not exist, with its stack: `undef`.
pub(crate) fn undefined(module: &Value, name: &Value, arguments: &Value) -> (Value, Value) {
    let frame = Value::tuple([
        module.clone(),
        name.clone(),
        arguments.clone(),
        Value::list([]),
    ]);
    (Value::atom("undef"), Value::list([frame]))
}

/// Runs a function if there is one.
pub(crate) async fn run(
    inner: &Arc<Inner>,
    module: &Value,
    name: &Value,
    arguments: &Value,
) -> Option<FunctionResult> {
    let (module, name, arguments) = callee(module, name, arguments)?;
    let body = inner.functions.find(&module, &name, arguments.len())?;
    let pid = inner.processes.registry.pid(inner.own_process);
    let call = Call {
        arguments,
        node: Node::of(inner),
        pid: pid.clone(),
        group_leader: pid,
    };
    Some(body(call).await)
}

/// A spawn request of a peer.
pub(crate) fn requested(inner: &Arc<Inner>, link: &Arc<Link>, signal: Signal) {
    let Control::SpawnRequest {
        id,
        from,
        function,
        options,
        group_leader,
    } = signal.control
    else {
        return;
    };
    let refuse = |id: Reference, to: Pid, why: &str| {
        let control = Control::SpawnReply {
            id,
            to,
            flags: 0,
            result: Err(Atom::new(why)),
        };
        let signal = Signal {
            control,
            trace: None,
            payload: None,
        };
        link.signal(lane(inner.own_process), signal);
    };
    if !options.iter().all(is_option) {
        return refuse(id, from, "badopt");
    }
    let arguments = signal.payload.map(|payload| payload.decode());
    let Some(Value::List(arguments)) = arguments else {
        return refuse(id, from, "badarg");
    };
    let Some(task) = task(inner, &function, arguments) else {
        tracing::debug!(peer = %link.name, ?function, "spawn refused: not registered");
        return refuse(id, from, "notsup");
    };
    let Ok(permit) = inner.functions.room().try_acquire_owned() else {
        return refuse(id, from, "system_limit");
    };
    let Ok(slot) = inner.processes.registry.open(None, true) else {
        return refuse(id, from, "notsup");
    };
    let wants = |option: &str| {
        options.iter().any(|given| match given {
            Value::Tuple(pair) => pair.first().is_some_and(|name| name.is_atom(option)),
            given => given.is_atom(option),
        })
    };
    let process = slot.process;
    inner.processes.happened(Event::Spawned {
        process,
        name: None,
        request: Some(Request {
            from,
            id,
            link: wants("link"),
            monitor: wants("monitor"),
            reply: true,
        }),
    });
    let call = Call {
        arguments: Vec::new(),
        node: Node::of(inner),
        pid: inner.processes.registry.pid(process),
        group_leader,
    };
    let running = tokio::spawn(async move {
        let reason = work(task, call).await;
        let too_large = |_| atom("result_too_large");
        reason.encode().unwrap_or_else(too_large)
    });
    slot.set_task(running.abort_handle());
    let node = Arc::downgrade(inner);
    tokio::spawn(async move {
        let reason = match running.await {
            Ok(reason) => reason,
            Err(e) if e.is_panic() => atom("panic"),
            Err(_) => slot.killed().unwrap_or_else(|| atom("killed")),
        };
        if let Some(inner) = node.upgrade() {
            inner.processes.happened(Event::Ended { process, reason });
            inner.processes.registry.close(process);
        }
        slot.close(true);
        drop(permit);
    });
}

/// Options of `spawn_opt/4`. Those beyond links and monitors concern Erlang's heaps and schedulers, and
/// have no effect here.
fn is_option(option: &Value) -> bool {
    match option {
        Value::Atom(word) => ["link", "monitor"].contains(&word.as_str()),
        Value::Tuple(pair) => matches!(&pair[..], [Value::Atom(word), _] if [
            "monitor",
            "link",
            "priority",
            "fullsweep_after",
            "min_heap_size",
            "min_bin_vheap_size",
            "max_heap_size",
            "message_queue_data",
            "async_dist",
            "scheduler",
        ]
        .contains(&word.as_str())),
        _ => false,
    }
}

fn task(inner: &Inner, function: &Function, arguments: Vec<Value>) -> Option<Task> {
    let name = (function.module.as_str(), function.name.as_str());
    match (name, &arguments[..]) {
        (("erpc", "execute_call"), [reference, module, name, list]) => {
            let callee = callee(module, name, list)?;
            let body = inner.functions.find(&callee.0, &callee.1, callee.2.len());
            let call = Value::tuple([module.clone(), name.clone(), list.clone()]);
            Some(Task::Call(reference.clone(), body, call))
        }
        (("erpc", "execute_cast" | "execute_call"), [module, name, list]) => {
            let callee = callee(module, name, list)?;
            let body = inner.functions.find(&callee.0, &callee.1, callee.2.len());
            let call = Value::tuple([module.clone(), name.clone(), list.clone()]);
            Some(Task::Plain(body, call))
        }
        _ => {
            let body = inner
                .functions
                .find(&function.module, &function.name, arguments.len())?;
            let call = Value::tuple([
                Value::Atom(function.module.clone()),
                Value::Atom(function.name.clone()),
                Value::list(arguments),
            ]);
            Some(Task::Plain(Some(body), call))
        }
    }
}

/// Runs the function; gives the exit reason of its process.
async fn work(task: Task, context: Call) -> Value {
    let (reference, body, call) = match task {
        Task::Call(reference, body, call) => (Some(reference), body, call),
        Task::Plain(body, call) => (None, body, call),
    };
    let Some([module, name, Value::List(arguments)]) = call.as_tuple() else {
        return Value::atom("badarg");
    };
    let outcome = match body {
        Some(body) => {
            let arguments = arguments.clone();
            let call = Call {
                arguments,
                ..context
            };
            body(call).await.map_err(|e| (e, None))
        }
        None => {
            let list = Value::list(arguments.clone());
            let (reason, stack) = undefined(module, name, &list);
            Err((Exception::Error(reason), Some(stack)))
        }
    };
    let here = || {
        let arity = Value::from(arguments.len() as i64);
        Value::list([Value::tuple([
            module.clone(),
            name.clone(),
            arity,
            Value::list([]),
        ])])
    };
    match (reference, outcome) {
        (Some(reference), Ok(value)) => Value::tuple([reference, Value::atom("return"), value]),
        (Some(reference), Err((Exception::Throw(reason), _))) => {
            Value::tuple([reference, Value::atom("throw"), reason])
        }
        (Some(reference), Err((Exception::Exit(reason), _))) => {
            Value::tuple([reference, Value::atom("exit"), reason])
        }
        (Some(reference), Err((Exception::Error(reason), stack))) => {
            let stack = stack.unwrap_or_else(here);
            Value::tuple([reference, Value::atom("error"), reason, stack])
        }
        (None, Ok(_)) => Value::atom("normal"),
        (None, Err((Exception::Throw(reason), _))) => {
            let thrown = Value::tuple([Value::atom("nocatch"), reason]);
            Value::tuple([thrown, here()])
        }
        (None, Err((Exception::Exit(reason), _))) => reason,
        (None, Err((Exception::Error(reason), stack))) => {
            Value::tuple([reason, stack.unwrap_or_else(here)])
        }
    }
}

/// The text of a term for errors.
pub(crate) fn shown(term: &Term) -> String {
    let mut text = format!("{:?}", term.decode());
    if let Some((end, _)) = text.char_indices().nth(200) {
        text.truncate(end);
        text.push('…');
    }
    text
}
