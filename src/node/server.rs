//! Rust processes that answer `gen_server:call` and take `gen_server:cast`.
//!
//! The messages are those of `gen.erl` and `gen_server.erl`: `{'$gen_call', {Pid, Tag}, Request}`
//! and `{'$gen_cast', Request}`. The tag says how the answer travels: `[alias | Ref]` asks for it at the
//! alias, so that an answer that comes too late goes nowhere.

use std::future::Future;
use std::sync::Arc;

use crate::node::api::Node;
use crate::node::mailbox::{Mailbox, Message, RegisterError};
use crate::node::process::Exit;
use crate::node::send::{Destination, SendError};
use crate::wire::term::{Pid, Reference, TermError, Value};

/// Who waits for the answer to a call.
///
/// It may be kept, and answered later, from anywhere. To hear of the caller's end monitor its
/// [`pid`](Caller::pid).
#[derive(Clone, Debug, PartialEq)]
pub struct Caller {
    pid: Pid,
    tag: Value,
}

/// Why an answer could not be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// It can't be encoded.
    #[error("the answer is no term: {0}")]
    Term(#[from] TermError),
    /// It can't be sent.
    #[error("the answer could not be sent: {0}")]
    Send(#[from] SendError),
}

impl Caller {
    /// From the `{Pid, Tag}` of a call.
    pub fn of(from: &Value) -> Option<Self> {
        match from.as_tuple()? {
            [Value::Pid(pid), tag] => Some(Self {
                pid: pid.clone(),
                tag: tag.clone(),
            }),
            _ => None,
        }
    }

    /// The process that waits.
    pub fn pid(&self) -> &Pid {
        &self.pid
    }

    /// The alias that the answer goes to (`gen:reply/2`): the tag is `[alias | Ref]`, or
    /// `[[alias | Ref] | Id]` of `gen_server:send_request`.
    fn alias(&self) -> Option<&Reference> {
        let tagged = |value: &Value| match value {
            Value::ImproperList(head, tail) => match (&head[..], &**tail) {
                ([word], Value::Reference(_)) => word.is_atom("alias"),
                _ => false,
            },
            _ => false,
        };
        let inner = match &self.tag {
            tag if tagged(tag) => tag,
            Value::ImproperList(head, _) | Value::List(head) => {
                head.first().filter(|first| tagged(first))?
            }
            _ => return None,
        };
        match inner {
            Value::ImproperList(_, tail) => match &**tail {
                Value::Reference(reference) => Some(reference),
                _ => None,
            },
            _ => None,
        }
    }

    /// Answers, in the order of what the mailbox sends. Waits for room.
    ///
    /// # Errors
    /// See [`ReplyError`]. A caller that is gone is no error.
    pub async fn reply(&self, server: &Mailbox, answer: Value) -> Result<(), ReplyError> {
        self.reply_from(server.node(), answer).await
    }

    /// Answers from a node's handle.
    ///
    /// # Errors
    /// See [`ReplyError`].
    pub async fn reply_from(&self, node: &Node, answer: Value) -> Result<(), ReplyError> {
        let message = Value::tuple([self.tag.clone(), answer]).encode()?;
        let to = match self.alias() {
            Some(alias) => Destination::Alias(alias),
            None => Destination::Pid(&self.pid),
        };
        node.send(to, &message).await?;
        Ok(())
    }
}

/// What a call gives.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// This is the answer.
    Reply(Value),
    /// The answer comes later, through [`Caller::reply`].
    Later,
    /// This is the answer, and the server ends with this reason.
    Stop(Value, Value),
}

impl From<Value> for Answer {
    fn from(answer: Value) -> Self {
        Self::Reply(answer)
    }
}

/// A process that answers calls, one message after the other.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let runtime = tokio::runtime::Runtime::new()?;
/// # runtime.block_on(async {
/// use partisan::{Answer, Caller, Mailbox, Node, Server, Value};
///
/// struct Counter(i64);
///
/// impl Server for Counter {
///     async fn call(&mut self, _request: Value, _from: Caller, _me: &mut Mailbox) -> Answer {
///         self.0 += 1;
///         Value::from(self.0).into()
///     }
/// }
///
/// let node = Node::builder("rust@127.0.0.1").cookie("secret").start()?;
/// node.serve("counter", Counter(0))?;
/// let client = node.mailbox()?;
/// let answer = client.call(("rust@127.0.0.1", "counter"), &Value::atom("next").encode()?).await?;
/// assert_eq!(answer.decode(), Value::from(1));
/// # Ok(())
/// # })
/// # }
/// ```
pub trait Server: Send + Sized + 'static {
    /// Answers a `gen_server:call`.
    fn call(
        &mut self,
        request: Value,
        from: Caller,
        me: &mut Mailbox,
    ) -> impl Future<Output = Answer> + Send;

    /// Takes a `gen_server:cast`. By default nothing happens.
    fn cast(&mut self, request: Value, me: &mut Mailbox) -> impl Future<Output = ()> + Send {
        let _ = (request, me);
        std::future::ready(())
    }

    /// Takes any other message, the ends of monitored processes among them. By default nothing
    /// happens.
    fn info(&mut self, message: Message, me: &mut Mailbox) -> impl Future<Output = ()> + Send {
        let _ = (message, me);
        std::future::ready(())
    }

    /// The server begins. By default nothing happens.
    fn init(&mut self, me: &mut Mailbox) -> impl Future<Output = ()> + Send {
        let _ = me;
        std::future::ready(())
    }
}

/// What a message means to a server.
enum Meaning {
    Call(Caller, Value),
    Cast(Value),
    /// `sys:terminate/2`, which is what `gen_server:stop/1` sends.
    Terminate(Caller, Value),
    /// Another request of `sys`.
    System(Caller),
    Info,
}

fn meaning(message: &Message) -> Meaning {
    if message.notice.is_some() {
        return Meaning::Info;
    }
    let Value::Tuple(elements) = message.term.decode() else {
        return Meaning::Info;
    };
    match &elements[..] {
        [kind, from, request] if kind.is_atom("$gen_call") => match Caller::of(from) {
            Some(caller) => Meaning::Call(caller, request.clone()),
            None => Meaning::Info,
        },
        [kind, request] if kind.is_atom("$gen_cast") => Meaning::Cast(request.clone()),
        [kind, from, request] if kind.is_atom("system") => match (Caller::of(from), request) {
            (Some(caller), Value::Tuple(pair)) => match &pair[..] {
                [verb, reason] if verb.is_atom("terminate") => {
                    Meaning::Terminate(caller, reason.clone())
                }
                _ => Meaning::System(caller),
            },
            (Some(caller), _) => Meaning::System(caller),
            (None, _) => Meaning::Info,
        },
        _ => Meaning::Info,
    }
}

async fn run<S: Server>(mut server: S, mut me: Mailbox) -> Exit {
    server.init(&mut me).await;
    loop {
        let Some(message) = me.recv().await else {
            return Exit::normal();
        };
        match meaning(&message) {
            Meaning::Call(caller, request) => {
                let answer = server.call(request, caller.clone(), &mut me).await;
                let (value, reason) = match answer {
                    Answer::Reply(value) => (value, None),
                    Answer::Stop(value, reason) => (value, Some(reason)),
                    Answer::Later => continue,
                };
                if let Err(error) = caller.reply(&me, value).await {
                    tracing::warn!(caller = ?caller.pid(), "a call was not answered: {error}");
                }
                if let Some(reason) = reason {
                    return Exit::because(reason);
                }
            }
            Meaning::Cast(request) => server.cast(request, &mut me).await,
            Meaning::Terminate(caller, reason) => {
                let _ = caller.reply(&me, Value::atom("ok")).await;
                return Exit::because(reason);
            }
            Meaning::System(caller) => {
                let what = [Value::atom("error"), Value::atom("not_supported")];
                let _ = caller.reply(&me, Value::tuple(what)).await;
            }
            Meaning::Info => server.info(message, &mut me).await,
        }
    }
}

impl Node {
    /// Starts a server under a registered name. It ends when an exit signal or the
    /// node's end ends it, or by `gen_server:stop/1`.
    ///
    /// # Errors
    /// If the name is taken or cannot be used, or the node has stopped.
    pub fn serve<S: Server>(
        &self,
        name: impl Into<Arc<str>>,
        server: S,
    ) -> Result<Pid, RegisterError> {
        self.spawn_named(name, |me| run(server, me))
    }

    /// Starts a server without a name.
    ///
    /// # Errors
    /// If the node has stopped.
    pub fn serve_unnamed<S: Server>(&self, server: S) -> Result<Pid, RegisterError> {
        self.spawn(|me| run(server, me))
    }
}
