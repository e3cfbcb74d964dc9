//! Sending from a Rust program.
//!
//! A message is taken by the queue of its connection at once, or its sender waits for room: first
//! come, first served among the senders of the connection. A wait that is given up, by time or by
//! dropping the future, gives back its place and the room it may have been granted.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::channel::Ticket;
use crate::connection::outbox::{Outbox, Outgoing, Pressure, Sent, Waiter, Wake};
use crate::distribution::batch::{Letter, To};
use crate::distribution::link::{Link, Pushed};
use crate::node::api::Node;
use crate::node::block::block_on;
use crate::node::events::Route;
use crate::node::mailbox::Message;
use crate::node::processes::Outcome;
use crate::node::registry::{SERVICE_NAMES, is_free_name};
use crate::node::runtime::Command;
use crate::node::services;
use crate::node::slot::{Refused, Slot};
use crate::wire::dist::{Control, Signal};
use crate::wire::frame::Dest;
use crate::wire::hello::DEFAULT_CHANNEL;
use crate::wire::term::{Atom, Form, Pid, Reference, Term, TermError};

/// To whom a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Destination<'a> {
    /// Whoever is registered under a name on a node; this node's own name is allowed.
    Name {
        /// The node.
        node: &'a str,
        /// The registered name.
        name: &'a str,
    },
    /// A process or mailbox, wherever it is.
    Pid(&'a Pid),
    /// Whoever has made this alias. Reaches stock nodes and this node only.
    Alias(&'a Reference),
}

impl<'a> From<(&'a str, &'a str)> for Destination<'a> {
    /// From node and registered name.
    fn from((node, name): (&'a str, &'a str)) -> Self {
        Self::Name { node, name }
    }
}

impl<'a> From<&'a Pid> for Destination<'a> {
    fn from(pid: &'a Pid) -> Self {
        Self::Pid(pid)
    }
}

impl<'a> From<&'a Reference> for Destination<'a> {
    fn from(alias: &'a Reference) -> Self {
        Self::Alias(alias)
    }
}

impl<'a> Destination<'a> {
    pub(crate) fn node(&self) -> &'a str {
        match self {
            Self::Name { node, .. } => node,
            Self::Pid(pid) => &pid.node,
            Self::Alias(alias) => &alias.node,
        }
    }

    /// Within its node; `None` for an alias, which frames have no room for.
    pub(crate) fn at_node(&self) -> Option<Dest<'a>> {
        match *self {
            Self::Name { name, .. } => Some(Dest::Name(name)),
            Self::Pid(pid) => Some(pid.into()),
            Self::Alias(_) => None,
        }
    }
}

/// How a message is sent. The default: by the default channel, in the sender's order, waiting
/// for room for as long as it takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendOptions {
    /// Channel to send by; `None`: the default channel.
    pub channel: Option<Arc<str>>,
    /// Messages of one sender with the same key stay in order, and go by one connection of the
    /// channel whoever sends them. `None`: the sender chooses the connection.
    pub partition_key: Option<u64>,
    /// How long to wait for room; `None`: for ever.
    pub timeout: Option<Duration>,
    /// Fail with [`SendError::Busy`] instead of waiting for room.
    pub nosuspend: bool,
    /// Send by the default channel if the session lacks `channel`.
    pub fallback: bool,
    /// Send by the link of Distributed Erlang even if there is a Partisan session with the node.
    pub distribution: bool,
    /// Keep the message until the other node has delivered it, and send it again over the next session if one breaks.
    pub ack: bool,
    /// Keep the causal order of the messages of this label, and their delivery as with `ack`.
    pub causal: Option<Arc<str>>,
}

impl SendOptions {
    /// The default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends by this channel.
    #[must_use]
    pub fn channel(mut self, channel: impl Into<Arc<str>>) -> Self {
        self.channel = Some(channel.into());
        self
    }

    /// Sends by the connection that the key stands for.
    #[must_use]
    pub fn partition_key(mut self, key: u64) -> Self {
        self.partition_key = Some(key);
        self
    }

    /// Waits no longer than this for room.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Does not wait.
    #[must_use]
    pub fn nosuspend(mut self) -> Self {
        self.nosuspend = true;
        self
    }

    /// Sends by the link of Distributed Erlang, whatever else there is. Without this names and pids of a node that has
    /// ever had a Partisan session are reached by Partisan only: order is kept on each way, not between
    /// them. Calls, the answers to them, and all else that is sent to an alias go by the link.
    #[must_use]
    pub fn distribution(mut self) -> Self {
        self.distribution = true;
        self
    }

    /// Has the message acknowledged: it is kept until the other node has delivered it, and sent again, in order, after a session
    /// with that node has broken. It arrives exactly once if neither node restarts; if the other does, what it has not acknowledged goes to its
    /// new incarnation, at least once. `Ok` says that the message is kept; the sender waits while
    /// [`Builder::ack_bytes`](crate::Builder::ack_bytes) are not acknowledged. A node without a session is no error as long as it
    /// is a member or has been connected.
    ///
    /// All such messages to a node by one channel are one stream, whoever sends them and whatever their partition key.
    /// They keep no order with messages of that channel without acknowledgement.
    #[must_use]
    pub fn ack(mut self, ack: bool) -> Self {
        self.ack = ack;
        self
    }

    /// Sends in causal order: no node gets the message before one of the same label that its sender, or whoever had
    /// a part in its coming about by messages of the label, knew to be on the way there. Acknowledged, too; not for the next
    /// incarnation of a node that restarts. The label must be one of
    /// [`Builder::causal_label`](crate::Builder::causal_label); the channel doesn't matter.
    #[must_use]
    pub fn causal(mut self, label: impl Into<Arc<str>>) -> Self {
        self.causal = Some(label.into());
        self
    }

    /// Uses the default channel if there is no channel of the wanted name.
    #[must_use]
    pub fn fallback(mut self) -> Self {
        self.fallback = true;
        self
    }
}

/// Why a message was not sent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SendError {
    /// There has been no session with the node yet. On a partial overlay only senders that don't wait are told so.
    #[error("the node is not connected yet")]
    NotYetConnected,
    /// The session with the node has ended.
    #[error("the node is not connected any more")]
    Disconnected,
    /// The node could not be reached, neither at its addresses nor over other nodes.
    #[error("the node {0} could not be reached")]
    Unreachable(Arc<str>),
    /// There is no room, and waiting was not wanted.
    #[error("no room to send now")]
    Busy,
    /// No room came in time.
    #[error("no room to send came in time")]
    Timeout,
    /// This node has stopped.
    #[error("this node has stopped")]
    NotAlive,
    /// The session has no such channel: neither end has it in its configuration.
    #[error("neither end is configured with the channel {0:?}")]
    NoChannel(Arc<str>),
    /// The message is larger than this node may send; the text names the limit.
    #[error("the message is over the limit {0}")]
    Limit(&'static str),
    /// There is no link with the node, and none could be made; the text says why.
    #[error("{0}")]
    NoLink(Box<str>),
    /// The message has a part that a peer of a Partisan session need not know.
    #[error("{0}")]
    Foreign(TermError),
    /// The label of a causal message is not configured here.
    #[error("{0:?} is no causal label of this node")]
    UnknownLabel(Arc<str>),
    /// Aliases are no destinations of Partisan sessions.
    #[error("an alias cannot be sent to by a Partisan session")]
    Alias,
    /// The name is empty, too long or reserved.
    #[error("nothing can be sent to the name {0:?}")]
    BadDestination(Box<str>),
}

/// What came of a first attempt.
enum Attempt {
    Done,
    /// The connection has no room.
    Full(Arc<Outbox>),
    /// The mailbox of this node has no room.
    FullHere(Arc<Slot>),
    /// The link with a stock node has no room.
    FullLink(Arc<Link>),
    /// There is no link with that stock node yet.
    NoLink(Arc<str>),
}

impl Node {
    /// Sends with the default options: by the default channel, waiting for room.
    ///
    /// `Ok` means that the message is queued, and will be delivered in order unless the node goes
    /// down. As in Erlang a message to a name or pid that nobody has is dropped.
    ///
    /// # Errors
    /// See [`SendError`]; nothing has been sent.
    pub async fn send(&self, to: impl Into<Destination<'_>>, term: &Term) -> Result<(), SendError> {
        self.send_with(to, term, &SendOptions::default()).await
    }

    /// Sends with options. A future that is dropped before it is ready has sent nothing.
    ///
    /// # Errors
    /// See [`SendError`]; nothing has been sent.
    pub async fn send_with(
        &self,
        to: impl Into<Destination<'_>>,
        term: &Term,
        options: &SendOptions,
    ) -> Result<(), SendError> {
        let to = to.into();
        if self.is_kept(to, options) {
            return self.deliver(to, term, options, !options.nosuspend).await;
        }
        let attempt = self.attempt(to, term, options);
        self.go_on(attempt, to, term, options).await
    }

    /// After a first attempt: waits for what it lacked, if that is wanted.
    async fn go_on(
        &self,
        attempt: Result<Attempt, SendError>,
        to: Destination<'_>,
        term: &Term,
        options: &SendOptions,
    ) -> Result<(), SendError> {
        let mut attempt = match attempt {
            Ok(Attempt::Done) => return Ok(()),
            Ok(_) if options.nosuspend => return Err(SendError::Busy),
            Err(e) if options.nosuspend || !self.may_reach(&e) => {
                self.begin_reach(to.node(), &e);
                return Err(e);
            }
            attempt => attempt,
        };
        let waiting = async {
            loop {
                let outcome = match attempt {
                    Ok(attempt) => self.wait_for(attempt, to, term).await,
                    Err(e) => Err(e),
                };
                match outcome {
                    Err(e) if self.may_reach(&e) => self.reach(to.node()).await?,
                    outcome => return outcome,
                }
                attempt = self.attempt(to, term, options);
            }
        };
        match options.timeout {
            None => waiting.await,
            Some(timeout) => {
                let timer = Timer::start(self.inner().runtime.timers(), timeout);
                tokio::select! {
                    biased;
                    outcome = waiting => outcome,
                    () = timer.fired() => Err(SendError::Timeout),
                }
            }
        }
    }

    async fn wait_for(
        &self,
        attempt: Attempt,
        to: Destination<'_>,
        term: &Term,
    ) -> Result<(), SendError> {
        match attempt {
            Attempt::Done => Ok(()),
            Attempt::FullHere(slot) => {
                let put = slot.put_waiting(self.message(term)).await;
                // A mailbox that is closed has nobody to read it.
                put.or_else(|_| self.alive())
            }
            Attempt::Full(outbox) => {
                let dest = to.at_node().ok_or(SendError::Alias)?;
                self.wait(&outbox, dest, term).await
            }
            Attempt::FullLink(link) => {
                self.pushed(link.send(self.lane(), self.letter(to, term)).await)
            }
            Attempt::NoLink(node) => {
                let link = self.connect_link(node).await;
                let link = link.map_err(|e| SendError::NoLink(e.to_string().into()))?;
                self.pushed(link.send(self.lane(), self.letter(to, term)).await)
            }
        }
    }

    /// On a partial overlay: gets a session with a node, at its addresses or over other nodes. Sending does
    /// that by itself. On a full mesh it only looks.
    ///
    /// # Errors
    /// [`SendError::Unreachable`] after [`Builder::reach_patience`](crate::Builder::reach_patience),
    /// [`SendError::NotAlive`].
    pub async fn reach(&self, node: &str) -> Result<(), SendError> {
        let runtime = &self.inner().runtime;
        match runtime
            .ask(|reply| Command::Reach(node.into(), reply))
            .await
        {
            Some(true) => Ok(()),
            Some(false) => Err(SendError::Unreachable(node.into())),
            None => Err(SendError::NotAlive),
        }
    }

    /// Whether a node that could not be sent to for this reason may yet be reached.
    pub(crate) fn may_reach(&self, error: &SendError) -> bool {
        let unlinked = matches!(error, SendError::NotYetConnected | SendError::Disconnected);
        unlinked && self.inner().view.reaches()
    }

    fn begin_reach(&self, node: &str, error: &SendError) {
        if self.may_reach(error) {
            let command = Command::Reach(node.into(), Box::new(|_| ()));
            self.inner().runtime.command(command);
        }
    }

    /// [`Node::send_with`] for threads: blocks. Not to be called by an asynchronous task.
    ///
    /// # Errors
    /// See [`SendError`]; nothing has been sent.
    pub fn send_blocking<'a>(
        &self,
        to: impl Into<Destination<'a>>,
        term: &Term,
        options: &SendOptions,
    ) -> Result<(), SendError> {
        let to = to.into();
        if self.is_kept(to, options) {
            return block_on(self.deliver(to, term, options, !options.nosuspend));
        }
        match self.attempt(to, term, options) {
            // What there is room for needs no future.
            Ok(Attempt::Done) => Ok(()),
            attempt => block_on(self.go_on(attempt, to, term, options)),
        }
    }

    /// Whether the control plane has to see the message.
    fn is_kept(&self, to: Destination<'_>, options: &SendOptions) -> bool {
        (options.ack || options.causal.is_some()) && *to.node() != *self.name()
    }

    /// Sends if there is room now, without waiting, whatever the options say. An acknowledged message takes the time that the
    /// control plane needs to answer.
    ///
    /// # Errors
    /// See [`SendError`]; nothing has been sent.
    pub fn try_send<'a>(
        &self,
        to: impl Into<Destination<'a>>,
        term: &Term,
        options: &SendOptions,
    ) -> Result<(), SendError> {
        let to = to.into();
        if self.is_kept(to, options) {
            return block_on(self.deliver(to, term, options, false));
        }
        match self.attempt(to, term, options) {
            Ok(Attempt::Done) => Ok(()),
            Ok(Attempt::NoLink(node)) => {
                self.begin_link(node);
                Err(SendError::NotYetConnected)
            }
            Ok(Attempt::Full(_) | Attempt::FullHere(_) | Attempt::FullLink(_)) => {
                Err(SendError::Busy)
            }
            Err(e) => {
                self.begin_reach(to.node(), &e);
                Err(e)
            }
        }
    }

    fn alive(&self) -> Result<(), SendError> {
        if self.inner().view.is_alive() {
            Ok(())
        } else {
            Err(SendError::NotAlive)
        }
    }

    fn message(&self, term: &Term) -> Message {
        let from = self.inner().processes.registry.identity.node.clone();
        Message {
            from,
            session: None,
            sender: Some(self.inner().processes.registry.pid(self.process())),
            term: term.clone(),
            notice: None,
        }
    }

    /// A message for a link with a stock node.
    fn letter<'a>(&self, to: Destination<'a>, term: &'a Term) -> Letter<'a> {
        let small = match to {
            Destination::Name { name, .. } => Some(To::Name(name)),
            Destination::Pid(pid) => Some(To::Pid(pid)),
            Destination::Alias(_) => None,
        };
        small
            .and_then(|to| Letter::message(self.process(), to, term))
            .unwrap_or_else(|| Letter::Signal(Box::new(self.signal(to, term))))
    }

    /// A message as a signal of the distribution protocol.
    fn signal(&self, to: Destination<'_>, term: &Term) -> Signal {
        let from = self.inner().processes.registry.pid(self.process());
        let control = match to {
            Destination::Name { name, .. } => Control::RegSend {
                from,
                to: Atom::new(name),
            },
            Destination::Pid(pid) => Control::Send {
                from: Some(from),
                to: pid.clone(),
            },
            Destination::Alias(alias) => Control::AliasSend {
                from,
                alias: alias.clone(),
            },
        };
        Signal {
            control,
            trace: None,
            payload: Some(term.clone()),
        }
    }

    fn pushed(&self, pushed: Pushed) -> Result<(), SendError> {
        match pushed {
            Pushed::Queued => Ok(()),
            Pushed::Full => Err(SendError::Busy),
            Pushed::Closed => {
                self.alive()?;
                Err(SendError::Disconnected)
            }
        }
    }

    /// By the link with a stock node.
    fn attempt_link(&self, to: Destination<'_>, term: &Term) -> Result<Attempt, SendError> {
        let inner = self.inner();
        let Some(link) = inner
            .processes
            .link(to.node())
            .filter(|link| link.is_open())
        else {
            return Ok(Attempt::NoLink(to.node().into()));
        };
        match link.try_send(self.lane(), self.letter(to, term)) {
            Pushed::Full => Ok(Attempt::FullLink(link)),
            pushed => self.pushed(pushed).map(|()| Attempt::Done),
        }
    }

    /// To a process of this node.
    fn attempt_here(&self, to: Destination<'_>, term: &Term) -> Attempt {
        let inner = self.inner();
        let registry = &inner.processes.registry;
        let slot = match to {
            Destination::Alias(alias) => {
                let reply = Outcome::Reply(term.clone());
                if inner.processes.calls.end(alias, reply).is_ok() {
                    return Attempt::Done;
                }
                registry.find_alias(alias).map(|(slot, _)| slot)
            }
            Destination::Name { name, .. }
                if SERVICE_NAMES.contains(&name) && inner.has_distribution() =>
            {
                services::answer(inner, name, term);
                return Attempt::Done;
            }
            to => to.at_node().and_then(|dest| registry.find(dest)),
        };
        let Some(slot) = slot else {
            return Attempt::Done;
        };
        match slot.admit(term.len(), 0, None) {
            Ok(()) => {
                slot.put(self.message(term));
                Attempt::Done
            }
            Err(Refused::Closed) => Attempt::Done,
            Err(Refused::Full) => Attempt::FullHere(slot),
        }
    }

    /// Whether the message may go at all.
    pub(crate) fn sendable(&self, to: Destination<'_>, term: &Term) -> Result<(), SendError> {
        self.alive()?;
        let limits = &self.inner().limits;
        if let Destination::Name { name, .. } = to
            && !is_free_name(name)
        {
            return Err(SendError::BadDestination(name.into()));
        }
        if term.skeleton().len() > limits.term.bytes {
            return Err(SendError::Limit("max_term_bytes"));
        }
        if term.len() as u64 > limits.message_bytes {
            return Err(SendError::Limit("max_message_bytes"));
        }
        Ok(())
    }

    fn attempt(
        &self,
        to: Destination<'_>,
        term: &Term,
        options: &SendOptions,
    ) -> Result<Attempt, SendError> {
        self.sendable(to, term)?;
        let inner = self.inner();
        if *to.node() == *inner.processes.registry.identity.node {
            return Ok(self.attempt_here(to, term));
        }
        inner.view.route(to.node(), |route| {
            // Who gives an alias away, as callers do, has a link.
            let needs_link = matches!(to, Destination::Alias(_)) || matches!(route, Route::Unknown);
            let by_link = options.distribution || options.channel.is_none() && needs_link;
            if by_link && inner.has_distribution() {
                return self.attempt_link(to, term);
            }
            let dest = to.at_node().ok_or(SendError::Alias)?;
            term.common().map_err(SendError::Foreign)?;
            let outbox = self.outbox(route, options)?;
            match self.push(outbox, dest, term, Pressure::Refuse)? {
                Sent::Queued => Ok(Attempt::Done),
                _ => Ok(Attempt::Full(outbox.clone())),
            }
        })
    }

    /// The connection that a message goes by.
    fn outbox<'a>(
        &self,
        route: Route<'a>,
        options: &SendOptions,
    ) -> Result<&'a Arc<Outbox>, SendError> {
        let session = match route {
            Route::Session(session) => session,
            Route::Down => return Err(SendError::Disconnected),
            Route::Unknown => return Err(SendError::NotYetConnected),
        };
        let key = options.partition_key.unwrap_or(self.sender());
        let channel = options.channel.as_deref().unwrap_or(DEFAULT_CHANNEL);
        let found = match session.route(channel, key) {
            None if options.fallback => session.route(DEFAULT_CHANNEL, key),
            found => found,
        };
        found.ok_or_else(|| SendError::NoChannel(channel.into()))
    }

    fn push(
        &self,
        outbox: &Arc<Outbox>,
        dest: Dest<'_>,
        term: &Term,
        pressure: Pressure,
    ) -> Result<Sent, SendError> {
        let elided = term.form() == Form::Elided;
        let message = Outgoing::of(dest, term.skeleton(), term.blobs(), elided);
        match outbox.send(self.sender(), message, pressure) {
            Sent::Closed => {
                self.alive()?;
                Err(SendError::Disconnected)
            }
            Sent::Invalid => Err(SendError::BadDestination(match dest {
                Dest::Name(name) => name.into(),
                Dest::Pid { .. } => "".into(),
            })),
            sent => Ok(sent),
        }
    }

    async fn wait(
        &self,
        outbox: &Arc<Outbox>,
        dest: Dest<'_>,
        term: &Term,
    ) -> Result<(), SendError> {
        let (waker, woken) = oneshot::channel();
        let waiter = Arc::new(Waiting(Mutex::new(Some(waker))));
        let ticket = match self.push(outbox, dest, term, Pressure::Wait(waiter))? {
            Sent::Waiting(ticket) => ticket,
            _ => return Ok(()),
        };
        let mut place = Place {
            outbox,
            ticket: Some(ticket),
        };
        match woken.await {
            Ok(Wake::Granted) => {
                place.ticket = None;
                self.push(outbox, dest, term, Pressure::Granted(ticket))
                    .map(|_| ())
            }
            Ok(Wake::NotAlive) => Err(SendError::NotAlive),
            Ok(Wake::Disconnected) | Err(_) => {
                self.alive()?;
                Err(SendError::Disconnected)
            }
        }
    }
}

struct Waiting(Mutex<Option<oneshot::Sender<Wake>>>);

impl Waiter for Waiting {
    fn wake(&self, why: Wake) {
        if let Some(waker) = self.0.lock().take() {
            // The future may have been dropped; its place is given back by then.
            let _ = waker.send(why);
        }
    }
}

/// A place in a queue of senders, given back unless it is used.
struct Place<'a> {
    outbox: &'a Arc<Outbox>,
    ticket: Option<Ticket>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.outbox.cancel(ticket);
        }
    }
}

/// A timer of the node's own runtime, so that callers need none.
pub(crate) struct Timer {
    fired: oneshot::Receiver<()>,
    task: AbortOnDrop,
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Timer {
    pub(crate) fn start(runtime: &Handle, after: Duration) -> Self {
        let (fire, fired) = oneshot::channel();
        let task = runtime.spawn(async move {
            tokio::time::sleep(after).await;
            let _ = fire.send(());
        });
        Self {
            fired,
            task: AbortOnDrop(task.abort_handle()),
        }
    }

    pub(crate) async fn fired(self) {
        let _task = self.task;
        if self.fired.await.is_err() {
            // The runtime has ended, and with it every session: the sender is told by that.
            std::future::pending::<()>().await;
        }
    }
}
