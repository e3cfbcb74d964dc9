//! Calls to processes and functions of other nodes.
//!
//! A call monitors the process, sends the request with an alias for the answer (`gen.erl`), and
//! ends with the first of answer, end of the process, and timeout. Neither answer nor end passes
//! through a mailbox, so a full one cannot hold them up.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::oneshot;

use crate::distribution::batch::Letter;
use crate::distribution::link::Pushed;
use crate::distribution::manager::ConnectError;
use crate::node::api::{Inner, Node};
use crate::node::mailbox::Mailbox;
use crate::node::process::target;
use crate::node::processes::Outcome;
use crate::node::send::{Destination, SendError, SendOptions, Timer};
use crate::signals::{Event, Local};
use crate::wire::dist::{Control, Function, Signal};
use crate::wire::term::{Atom, Reference, Term, TermError, Value};

/// How long a call waits for its answer by default, as `gen_server:call/2` does.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a call has no answer.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum CallError {
    /// The node cannot be connected.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The request cannot be sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The request is no term.
    #[error("the request cannot be encoded: {0}")]
    Term(#[from] TermError),
    /// No answer came in time. The request may have been carried out.
    #[error("no answer within {0:?}; the request may have been carried out")]
    Timeout(Duration),
    /// The process has ended, or does not exist (`noproc`), or its node is lost (`noconnection`).
    #[error("the process has ended: {}", crate::node::functions::shown(.0))]
    Down(Term),
    /// The answer has another form than `gen_server`'s.
    #[error("the answer is not one of a gen_server")]
    BadAnswer,
}

/// Why a function of another node gave no result.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum RpcError {
    /// The node cannot be connected.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The arguments are no terms.
    #[error("the arguments cannot be encoded: {0}")]
    Term(#[from] TermError),
    /// The request cannot be sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// No result came in time. The function may have run, or may still.
    #[error("no result within {0:?}; the function may have run")]
    Timeout(Duration),
    /// The node has refused to run anything; `notsup` comes from a node that has no such service.
    #[error("the node refuses: {}", .0.as_atom().unwrap_or("?"))]
    Refused(Value),
    /// The function has failed by `error(Reason)`; the stack is as the node gave it.
    #[error("the function failed: {reason:?}")]
    Error {
        /// The reason.
        reason: Value,
        /// The stack.
        stack: Value,
    },
    /// The function has ended by `exit(Reason)`, or its process was ended.
    #[error("the function exited: {0:?}")]
    Exit(Value),
    /// The function has ended by `throw(Reason)`.
    #[error("the function threw: {0:?}")]
    Throw(Value),
    /// The connection was lost while the function ran.
    #[error("the connection was lost while the function ran")]
    NoConnection,
}

/// A call that is under way; it is given up when this is dropped.
struct Pending<'a> {
    inner: &'a Inner,
    from: Local,
    reference: Reference,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.inner.processes.calls.abandon(&self.reference);
        self.inner.processes.happened(Event::Demonitor {
            from: self.from,
            reference: self.reference.clone(),
        });
    }
}

/// Runs a future for at most that time, by the node's own timers.
async fn within<T>(
    node: &Node,
    timeout: Option<Duration>,
    future: impl Future<Output = T>,
) -> Result<T, Duration> {
    let Some(timeout) = timeout else {
        return Ok(future.await);
    };
    let timer = Timer::start(node.inner().runtime.timers(), timeout);
    tokio::select! {
        biased;
        outcome = future => Ok(outcome),
        () = timer.fired() => Err(timeout),
    }
}

impl Node {
    /// Calls a `gen_server`, and waits [`CALL_TIMEOUT`] for its answer.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call(
        &self,
        to: impl Into<Destination<'_>>,
        request: &Term,
    ) -> Result<Term, CallError> {
        self.call_within(to, request, Some(CALL_TIMEOUT)).await
    }

    /// Calls a `gen_server` and waits that long for its answer; `None`: for ever.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call_within(
        &self,
        to: impl Into<Destination<'_>>,
        request: &Term,
        timeout: Option<Duration>,
    ) -> Result<Term, CallError> {
        let calling = self.calling(to.into(), request);
        match within(self, timeout, calling).await {
            Ok(outcome) => outcome,
            Err(timeout) => Err(CallError::Timeout(timeout)),
        }
    }

    async fn calling(&self, to: Destination<'_>, request: &Term) -> Result<Term, CallError> {
        let (node, target) = target(to);
        if *node != *self.name() {
            self.connect(node.clone()).await?;
        }
        let inner = self.inner();
        let processes = &inner.processes;
        let reference = processes.registry.reference();
        let from = self.process();
        let outcome = processes.calls.begin(reference.clone(), node.clone());
        let pending = Pending {
            inner,
            from,
            reference: reference.clone(),
        };
        processes.happened(Event::Monitor {
            from,
            node,
            target,
            reference: reference.clone(),
        });
        let tag = Value::ImproperList(vec![Value::atom("alias")], Box::new(reference.into()));
        let pid = processes.registry.pid(from);
        let caller = Value::tuple([pid.into(), tag]);
        let kind = Value::atom("$gen_call");
        let message = Term::tuple(&[kind.encode()?, caller.encode()?, request.clone()])?;
        let options = SendOptions::new().distribution();
        self.send_with(to, &message, &options).await?;
        let outcome = outcome.await;
        drop(pending);
        match outcome {
            // `{Tag, Answer}`
            Ok(Outcome::Reply(reply)) => match reply.elements() {
                Some(elements) if elements.len() == 2 => Ok(elements[1].clone()),
                _ => Err(CallError::BadAnswer),
            },
            Ok(Outcome::Down(reason)) => Err(CallError::Down(reason)),
            Ok(Outcome::NotSpawned(_)) => Err(CallError::BadAnswer),
            Err(_) => Err(ConnectError::NotAlive.into()),
        }
    }

    /// Sends a `gen_server:cast`. `Ok` means that it is on its way, not that anybody has it.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn cast(
        &self,
        to: impl Into<Destination<'_>>,
        request: &Term,
    ) -> Result<(), CallError> {
        let kind = Value::atom("$gen_cast").encode()?;
        let message = Term::tuple(&[kind, request.clone()])?;
        let options = SendOptions::new().distribution();
        self.send_with(to, &message, &options).await?;
        Ok(())
    }

    /// Runs a function on another node, as `erpc:call/5` does, and gives its result.
    ///
    /// # Errors
    /// See [`RpcError`].
    pub async fn rpc(
        &self,
        node: &str,
        module: &str,
        function: &str,
        arguments: Vec<Value>,
        timeout: Option<Duration>,
    ) -> Result<Value, RpcError> {
        let running = self.running(node, module, function, arguments);
        match within(self, timeout, running).await {
            Ok(outcome) => outcome,
            Err(timeout) => Err(RpcError::Timeout(timeout)),
        }
    }

    async fn running(
        &self,
        node: &str,
        module: &str,
        function: &str,
        arguments: Vec<Value>,
    ) -> Result<Value, RpcError> {
        let inner = self.inner();
        let (module, function) = (Value::atom(module), Value::atom(function));
        if *node == *self.name() {
            let arguments = Value::list(arguments);
            return local(inner, &module, &function, &arguments).await;
        }
        let node: Arc<str> = node.into();
        let link = self.connect_link(node.clone()).await?;
        let processes = &inner.processes;
        let reference = processes.registry.reference();
        let result: Value = processes.registry.reference().into();
        let list = [result.clone(), module, function, Value::list(arguments)];
        let payload = Value::list(list).encode()?;
        let from = self.process();
        let outcome = processes.calls.begin(reference.clone(), node);
        let pending = Pending {
            inner,
            from,
            reference: reference.clone(),
        };
        let pid = processes.registry.pid(from);
        let control = Control::SpawnRequest {
            id: reference,
            from: pid.clone(),
            group_leader: pid,
            function: Function {
                module: Atom::new("erpc"),
                name: Atom::new("execute_call"),
                arity: 4,
            },
            options: vec![Value::atom("monitor")],
        };
        let signal = Signal {
            control,
            trace: None,
            payload: Some(payload),
        };
        let letter = Letter::Signal(Box::new(signal));
        if let Pushed::Closed = link.send(self.lane(), letter).await {
            return Err(RpcError::NoConnection);
        }
        let outcome = outcome.await;
        drop(pending);
        finished(outcome, &result)
    }
}

async fn local(
    inner: &Arc<Inner>,
    module: &Value,
    function: &Value,
    arguments: &Value,
) -> Result<Value, RpcError> {
    use crate::node::functions::{Exception, run, undefined};
    match run(inner, module, function, arguments).await {
        Some(Ok(value)) => Ok(value),
        Some(Err(Exception::Throw(reason))) => Err(RpcError::Throw(reason)),
        Some(Err(Exception::Exit(reason))) => Err(RpcError::Exit(reason)),
        Some(Err(Exception::Error(reason))) => Err(RpcError::Error {
            reason,
            stack: Value::list([]),
        }),
        None => {
            let (reason, stack) = undefined(module, function, arguments);
            Err(RpcError::Error { reason, stack })
        }
    }
}

/// What the end of the process that ran the function says.
fn finished(
    outcome: Result<Outcome, oneshot::error::RecvError>,
    result: &Value,
) -> Result<Value, RpcError> {
    let reason = match outcome {
        Ok(Outcome::Down(reason)) => reason.decode(),
        Ok(Outcome::NotSpawned(reason)) => return Err(RpcError::Refused(reason)),
        Ok(Outcome::Reply(_)) => return Err(RpcError::Exit(Value::atom("bad_answer"))),
        Err(_) => return Err(ConnectError::NotAlive.into()),
    };
    if reason.is_atom("noconnection") {
        return Err(RpcError::NoConnection);
    }
    let Value::Tuple(mut parts) = reason else {
        return Err(RpcError::Exit(reason));
    };
    if parts.first() != Some(result) {
        return Err(RpcError::Exit(Value::Tuple(parts)));
    }
    let kind = parts
        .get(1)
        .and_then(Value::as_atom)
        .unwrap_or("")
        .to_owned();
    let stack = if parts.len() > 3 { parts.pop() } else { None };
    let value = parts.pop().unwrap_or_else(|| Value::atom("undefined"));
    match &*kind {
        "return" => Ok(value),
        "throw" => Err(RpcError::Throw(value)),
        "exit" => Err(RpcError::Exit(value)),
        _ => Err(RpcError::Error {
            reason: value,
            stack: stack.unwrap_or_else(|| Value::list([])),
        }),
    }
}

impl Mailbox {
    /// [`Node::call`] in the order of what this mailbox sends.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call(
        &self,
        to: impl Into<Destination<'_>>,
        request: &Term,
    ) -> Result<Term, CallError> {
        self.node().call(to, request).await
    }

    /// [`Node::call_within`] in the order of what this mailbox sends.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call_within(
        &self,
        to: impl Into<Destination<'_>>,
        request: &Term,
        timeout: Option<Duration>,
    ) -> Result<Term, CallError> {
        self.node().call_within(to, request, timeout).await
    }

    /// [`Node::cast`] in the order of what this mailbox sends.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn cast(
        &self,
        to: impl Into<Destination<'_>>,
        request: &Term,
    ) -> Result<(), CallError> {
        self.node().cast(to, request).await
    }
}
