//! Processes: tasks with a pid, and what they do to others.

use std::future::Future;
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::distribution::manager::ConnectError;
use crate::node::api::Node;
use crate::node::mailbox::{Mailbox, RegisterError};
use crate::node::processes::atom;
use crate::node::registry::AliasKind;
use crate::node::send::Destination;
use crate::node::slot::Slot;
use crate::signals::{Event, Local};
use crate::wire::dist::Target;
use crate::wire::term::{Atom, Pid, Reference, Term, Value};

/// Why a process ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Exit(Term);

impl Exit {
    /// `normal`: processes that are linked live on.
    pub fn normal() -> Self {
        Self(atom("normal"))
    }

    /// For this reason.
    pub fn because(reason: impl Into<Value>) -> Self {
        let reason = reason.into().encode();
        Self(reason.unwrap_or_else(|_| atom("reason_too_large")))
    }
}

impl From<()> for Exit {
    fn from((): ()) -> Self {
        Self::normal()
    }
}

/// An error's text is the reason: `{error, <<"text">>}`.
impl<E: std::fmt::Display> From<Result<(), E>> for Exit {
    fn from(outcome: Result<(), E>) -> Self {
        match outcome {
            Ok(()) => Self::normal(),
            Err(error) => {
                let text = Value::binary(error.to_string());
                Self::because(Value::tuple([Value::atom("error"), text]))
            }
        }
    }
}

impl From<Term> for Exit {
    fn from(reason: Term) -> Self {
        Self(reason)
    }
}

impl Node {
    /// Starts a process: a task with a pid and a mailbox. It ends when the future does, and its
    /// value is the reason; when an exit signal ends it the future is dropped. A panic is the
    /// reason `{panic, <<"text">>}`.
    ///
    /// The task runs on the tokio runtime of the caller, or on the node's own if there is none.
    ///
    /// # Errors
    /// If the node has stopped.
    pub fn spawn<F, R>(&self, body: F) -> Result<Pid, RegisterError>
    where
        F: FnOnce(Mailbox) -> R,
        R: Future + Send + 'static,
        R::Output: Into<Exit> + Send,
    {
        self.spawn_process(None, body)
    }

    /// [`Node::spawn`] under a registered name.
    ///
    /// # Errors
    /// If the name is taken or cannot be used, or the node has stopped.
    pub fn spawn_named<F, R>(
        &self,
        name: impl Into<Arc<str>>,
        body: F,
    ) -> Result<Pid, RegisterError>
    where
        F: FnOnce(Mailbox) -> R,
        R: Future + Send + 'static,
        R::Output: Into<Exit> + Send,
    {
        self.spawn_process(Some(name.into()), body)
    }

    fn spawn_process<F, R>(&self, name: Option<Arc<str>>, body: F) -> Result<Pid, RegisterError>
    where
        F: FnOnce(Mailbox) -> R,
        R: Future + Send + 'static,
        R::Output: Into<Exit> + Send,
    {
        let inner = self.inner();
        let slot = inner.processes.registry.open(name.as_ref(), false)?;
        let process = slot.process;
        inner.processes.happened(Event::Spawned {
            process,
            name,
            request: None,
        });
        let mailbox = Mailbox::of(inner, slot.clone(), true);
        let pid = mailbox.pid().clone();
        let body = body(mailbox);
        let running = async move { body.await.into() };
        let runtime = Handle::try_current().unwrap_or_else(|_| inner.tasks());
        let running = runtime.spawn(running);
        slot.set_task(running.abort_handle());
        let node = Arc::downgrade(inner);
        runtime.spawn(async move {
            let Exit(reason) = match running.await {
                Ok(exit) => exit,
                Err(e) => match e.try_into_panic() {
                    Ok(panic) => Exit::because(panicked(&*panic)),
                    Err(_) => Exit(slot.killed().unwrap_or_else(|| atom("killed"))),
                },
            };
            if let Some(inner) = node.upgrade() {
                inner.processes.happened(Event::Ended { process, reason });
                inner.processes.registry.close(process);
            }
            slot.close(true);
        });
        Ok(pid)
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Value {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a text");
    Value::tuple([Value::atom("panic"), Value::binary(text.to_owned())])
}

/// What a destination is to a monitor.
pub(crate) fn target(to: Destination<'_>) -> (Arc<str>, Target) {
    match to {
        Destination::Name { node, name } => (node.into(), Target::Name(Atom::new(name))),
        Destination::Pid(pid) => (pid.node.clone(), Target::Pid(pid.clone())),
        Destination::Alias(alias) => (alias.node.clone(), Target::Alias(alias.clone())),
    }
}

impl Mailbox {
    fn process(&self) -> Local {
        self.slot().process
    }

    fn happened(&self, event: Event) {
        self.node().inner().processes.happened(event);
    }

    /// Monitors a process: when it ends, or is lost with its node, or if it does not exist, one message
    /// comes whose [`notice`](crate::Message::notice) is a [`Notice::Down`](crate::Notice::Down) with the reference that is
    /// returned. If its node cannot be connected that message comes at once, with the reason `noconnection`.
    pub async fn monitor(&self, process: impl Into<Destination<'_>>) -> Reference {
        let (node, target) = target(process.into());
        // Without a connection the process counts as lost.
        let _ = self.reach(&node).await;
        let reference = self.node().inner().processes.registry.reference();
        let from = self.process();
        self.happened(Event::Monitor {
            from,
            node,
            target,
            reference: reference.clone(),
        });
        reference
    }

    /// Ends a monitor. No message of it comes from now on; one that is here already is taken out.
    pub fn demonitor(&mut self, reference: &Reference) {
        let from = self.process();
        self.happened(Event::Demonitor {
            from,
            reference: reference.clone(),
        });
        self.discard_down(reference);
    }

    /// Links this process and another: when one ends for another reason than `normal`, so
    /// does the other, unless it [traps exits](Mailbox::trap_exits). If the other one does not exist or its node cannot be
    /// connected, that counts as its end, with the reason `noproc` or `noconnection`.
    pub async fn link(&self, to: &Pid) {
        let _ = self.reach(&to.node).await;
        let (from, to) = (self.process(), to.clone());
        self.happened(Event::Link { from, to });
    }

    /// Takes a link off. The other's end has no effect from now on.
    pub fn unlink(&self, to: &Pid) {
        let (from, to) = (self.process(), to.clone());
        self.happened(Event::Unlink { from, to });
    }

    /// With `true`, exit signals of others come as messages with a
    /// [`Notice::Exit`](crate::Notice::Exit), instead of ending this process. Only the reason `kill` still does. The
    /// default is `false`.
    pub fn trap_exits(&self, on: bool) {
        let process = self.process();
        self.happened(Event::Trap { process, on });
    }

    /// Asks a process to end, as `exit/2` does: the reason `kill` ends it in any case, `normal` has no effect
    /// on one that does not trap exits.
    ///
    /// # Errors
    /// If its node cannot be connected.
    pub async fn exit_other(&self, to: &Pid, reason: &Term) -> Result<(), ConnectError> {
        self.reach(&to.node).await?;
        let (from, to, reason) = (self.process(), to.clone(), reason.clone());
        self.happened(Event::Exit { from, to, reason });
        Ok(())
    }

    /// An alias: a reference that messages can be sent to like to the pid, until
    /// [`Mailbox::unalias`] or the end of this process.
    pub fn alias(&self, kind: AliasKind) -> Reference {
        let registry = &self.node().inner().processes.registry;
        let alias = registry.reference();
        registry.add_alias(alias.clone(), self.slot().clone(), kind);
        alias
    }

    /// Ends an alias; true if it was one of this node. What is sent to it from now on is dropped.
    pub fn unalias(&self, alias: &Reference) -> bool {
        self.node().inner().processes.registry.remove_alias(alias)
    }

    async fn reach(&self, node: &Arc<str>) -> Result<(), ConnectError> {
        if **node == *self.node().name() {
            return Ok(());
        }
        self.node().connect(node.clone()).await
    }
}

/// A process that nobody reads: what is sent to it is dropped.
pub(crate) fn mute(slot: &Slot) {
    slot.close(true);
}
