//! Process groups: the scope processes of a node.
//!
//! A scope is a process of this node like others: it has a pid and a registered name, stock nodes monitor
//! it and may end it. It isn't a [`Mailbox`](crate::Mailbox), which would keep the node running. Joins and leaves change
//! the scope under its lock, and what it says to others goes out under the same lock, so all hear of it in
//! one order. What it says never waits for room: see [`MAX_UNASKED_BYTES`](limits::MAX_UNASKED_BYTES).

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use thiserror::Error;
use tokio::sync::broadcast;
use tokio::time::sleep_until;

use crate::limits;
use crate::node::api::{Inner, Node};
use crate::node::block::block_on;
use crate::node::events::{Events, NodeEvent};
use crate::node::mailbox::{Message, RegisterError};
use crate::node::processes::{atom, lane};
use crate::node::slot::{Intake, Slot};
use crate::pg::{self, Change, Config, Effect, Event, Group, State};
use crate::signals::{self, Notice};
use crate::wire::dist::{Control, Signal, Target};
use crate::wire::term::{Atom, Pid, Reference, Term, TermError, Value};

/// Why process groups cannot be used so.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PgError {
    /// The node has no links with stock nodes.
    #[error("this node has no links with stock nodes: it was started without `distribution`")]
    Disabled,
    /// The name of the scope can't be registered.
    #[error("the scope cannot start: {0}")]
    Register(#[from] RegisterError),
    /// Only processes of this node can join here.
    #[error("{0:?} is no process of this node: a process joins on its own node")]
    NotLocal(Pid),
    /// The name of the group is no term.
    #[error("the name of the group cannot be encoded: {0}")]
    Group(#[from] TermError),
    /// The scope has ended: it was stopped, an exit signal of a peer has ended it, or the node has stopped.
    #[error("the scope has ended; `Node::pg` starts it anew")]
    Ended,
}

/// A change of members.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum PgEvent {
    /// These processes have joined; one that has joined several times at once is named as often.
    Join {
        /// The group.
        group: Value,
        /// Who has joined.
        pids: Vec<Pid>,
    },
    /// These processes have left, have ended, or can't be seen any more.
    Leave {
        /// The group.
        group: Value,
        /// Who has left.
        pids: Vec<Pid>,
    },
    /// The reader was too slow and has missed that many changes: it should begin anew with
    /// [`Pg::monitor`].
    Lagged(u64),
}

/// The changes of a scope from the moment on when this was made.
#[derive(Debug)]
pub struct PgEvents(broadcast::Receiver<PgEvent>);

impl PgEvents {
    /// The next change; `None` when the scope has ended. Cancel-safe.
    pub async fn recv(&mut self) -> Option<PgEvent> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(PgEvent::Lagged(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// A change if one is there.
    pub fn try_recv(&mut self) -> Option<PgEvent> {
        match self.0.try_recv() {
            Ok(event) => Some(event),
            Err(broadcast::error::TryRecvError::Lagged(missed)) => Some(PgEvent::Lagged(missed)),
            Err(_) => None,
        }
    }

    /// [`PgEvents::recv`] for threads: blocks. Not to be called by an asynchronous task.
    pub fn recv_blocking(&mut self) -> Option<PgEvent> {
        block_on(self.recv())
    }
}

struct Live {
    state: State,
    monitors: HashMap<Pid, Reference>,
    monitored: HashMap<Reference, Pid>,
    /// Nobody once the scope has ended.
    events: Option<broadcast::Sender<PgEvent>>,
}

/// A scope process.
struct Scope {
    name: Arc<str>,
    pid: Pid,
    slot: Arc<Slot>,
    node: Weak<Inner>,
    started: Instant,
    live: RwLock<Live>,
}

/// The scopes of a node.
#[derive(Default)]
pub(crate) struct Scopes(Mutex<HashMap<Arc<str>, Arc<Scope>>>);

impl Scopes {
    /// The node ends.
    pub(crate) fn stop(&self) {
        let scopes = std::mem::take(&mut *self.0.lock());
        for scope in scopes.values() {
            scope.live.write().events = None;
        }
    }
}

impl Scope {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn happened(&self, event: Event) {
        // Held longer than the lock: whoever drops the node last ends its scopes.
        if let Some(inner) = self.node.upgrade() {
            self.handle(&inner, &mut self.live.write(), event);
        }
    }

    /// The lock is held until all effects are on their way: their order is what counts.
    fn handle(&self, inner: &Inner, live: &mut Live, event: Event) {
        if live.events.is_none() {
            return;
        }
        let mut effects = Vec::new();
        live.state.handle(self.now(), event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Send { to, message } => self.send(inner, &to, &message),
                Effect::Discover(node) => {
                    let message = pg::Message::Discover {
                        peer: self.pid.clone(),
                        version: 0,
                    };
                    for payload in self.encoded(&message) {
                        let control = Control::RegSend {
                            from: self.pid.clone(),
                            to: Atom::new(self.name.clone()),
                        };
                        self.signal(inner, &node, control, payload);
                    }
                }
                Effect::Monitor(pid) => {
                    let reference = inner.processes.registry.reference();
                    live.monitors.insert(pid.clone(), reference.clone());
                    live.monitored.insert(reference.clone(), pid.clone());
                    inner.processes.happened(signals::Event::Monitor {
                        from: self.slot.process,
                        node: pid.node.clone(),
                        target: Target::Pid(pid),
                        reference,
                    });
                }
                Effect::Demonitor(pid) => {
                    if let Some(reference) = live.monitors.remove(&pid) {
                        live.monitored.remove(&reference);
                        let from = self.slot.process;
                        let event = signals::Event::Demonitor { from, reference };
                        inner.processes.happened(event);
                    }
                }
                Effect::Tell(change) => tell(live, change),
                Effect::TooMany(node) => tracing::warn!(
                    peer = %node, scope = %self.name,
                    "has more members than a peer may bring; some are left out"
                ),
            }
        }
    }

    fn send(&self, inner: &Inner, to: &[Pid], message: &pg::Message) {
        for payload in self.encoded(message) {
            for pid in to {
                let control = Control::Send {
                    from: Some(self.pid.clone()),
                    to: pid.clone(),
                };
                self.signal(inner, &pid.node, control, payload.clone());
            }
        }
    }

    fn encoded(&self, message: &pg::Message) -> Vec<Term> {
        let encoded = message.to_values().into_iter().map(|value| value.encode());
        let told = encoded.inspect(|encoded| {
            if let Err(error) = encoded {
                tracing::warn!(scope = %self.name, "others cannot be told of members: {error}");
            }
        });
        told.flatten().collect()
    }

    /// Goes by the link if there is one: who is not connected will be told all when it is.
    fn signal(&self, inner: &Inner, node: &str, control: Control, payload: Term) {
        if let Some(link) = inner.processes.link(node) {
            let signal = Signal {
                control,
                trace: None,
                payload: Some(payload),
            };
            link.signal(lane(self.slot.process), signal);
        }
    }

    fn message(&self, message: &Message) {
        match message.notice.as_deref() {
            Some(Notice::Down { reference, .. }) => {
                let Some(inner) = self.node.upgrade() else {
                    return;
                };
                let mut live = self.live.write();
                // One that was ended meanwhile tells nothing.
                if let Some(pid) = live.monitored.remove(reference) {
                    live.monitors.remove(&pid);
                    self.handle(&inner, &mut live, Event::Down(pid));
                }
            }
            Some(_) => {}
            None => {
                if let Some(parsed) = pg::Message::parse(&message.term.decode()) {
                    self.happened(Event::Received {
                        node: message.from.clone(),
                        message: parsed,
                    });
                }
            }
        }
    }

    fn end(self: &Arc<Self>) {
        self.live.write().events = None;
        let process = self.slot.process;
        if let Some(inner) = self.node.upgrade() {
            let mut scopes = inner.scopes.0.lock();
            if scopes
                .get(&self.name)
                .is_some_and(|one| Arc::ptr_eq(one, self))
            {
                scopes.remove(&self.name);
            }
            // Nothing if an exit signal has ended it.
            inner.processes.happened(signals::Event::Ended {
                process,
                reason: atom("shutdown"),
            });
            inner.processes.registry.close(process);
        }
        self.slot.close(true);
    }

    /// Every link that there is now; also if the news of some was missed.
    fn discover(&self) {
        let links = self.node.upgrade().map(|inner| inner.processes.links());
        for link in links.unwrap_or_default() {
            self.happened(Event::Up(link.name.clone()));
        }
    }

    async fn run(self: Arc<Self>, mut events: Events) {
        self.discover();
        let mut intake = Intake::new(self.slot.clone());
        loop {
            while let Some(message) = intake.take() {
                self.message(&message);
            }
            if intake.is_over() {
                return self.end();
            }
            let deadline = self.live.read().state.deadline();
            let tick = async {
                match deadline {
                    Some(at) => sleep_until((self.started + at).into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.slot.arrived.notified() => {}
                event = events.recv() => match event {
                    Some(NodeEvent::LinkUp { node, .. }) => self.happened(Event::Up(node)),
                    Some(NodeEvent::LinkDown { node, .. }) => self.happened(Event::Lost(node)),
                    Some(NodeEvent::Lagged(_)) => self.discover(),
                    Some(_) => {}
                    None => return self.end(),
                },
                () = tick => self.happened(Event::Tick),
            }
        }
    }
}

fn tell(live: &Live, change: Change) {
    let Some(events) = live.events.as_ref().filter(|e| e.receiver_count() > 0) else {
        return;
    };
    let group = change.group.value();
    // Fails when nobody listens.
    if !change.left.is_empty() {
        let (group, pids) = (group.clone(), change.left);
        let _ = events.send(PgEvent::Leave { group, pids });
    }
    if !change.joined.is_empty() {
        let pids = change.joined;
        let _ = events.send(PgEvent::Join { group, pids });
    }
}

/// A scope of process groups, shared with the `pg` of the stock nodes that this node has links with: see
/// [`Node::pg`].
///
/// Any handle of a scope is as good as another. Dropping them does not end the scope; [`Pg::stop`] and
/// the end of the node do. A handle keeps its node running.
#[derive(Clone)]
pub struct Pg {
    scope: Arc<Scope>,
    node: Node,
}

impl std::fmt::Debug for Pg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pg")
            .field("scope", &self.scope.name)
            .finish_non_exhaustive()
    }
}

impl Node {
    /// Takes part in a scope of process groups, as `pg:start(Scope)` does on a stock node. Stock nodes start theirs
    /// by that call; the scope `pg` is started by the VM if its kernel is configured with `start_pg`.
    ///
    /// Members are exchanged with the stock nodes that there are links with; this makes no links. A scope that a
    /// connected node starts later is found within 5 seconds ([`limits::PG_RETRY`]). The scope is a process under
    /// the registered name `scope`; with [`Allow::only_names`](crate::Allow::only_names) that name should be among them, and
    /// [`Allow::monitors`](crate::Allow::monitors) is needed for others to notice its end.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use partisan::{Distribution, Node, Value};
    ///
    /// // Nobody dials this node, so it needs no EPMD.
    /// let distribution = Distribution::new().register(false);
    /// let node = Node::builder("rust@127.0.0.1").cookie("secret").distribution(distribution).start()?;
    /// let scope = node.pg("chat")?;
    /// let worker = node.mailbox()?;
    /// scope.join(Value::atom("workers"), &worker)?;
    /// assert_eq!(scope.members(Value::atom("workers")), [worker.pid().clone()]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`PgError`].
    pub fn pg(&self, scope: impl Into<Arc<str>>) -> Result<Pg, PgError> {
        let name = scope.into();
        let inner = self.inner();
        let stock = inner.stock().ok_or(PgError::Disabled)?;
        let mut scopes = inner.scopes.0.lock();
        if let Some(scope) = scopes.get(&name) {
            let node = Node::of(inner);
            let scope = scope.clone();
            return Ok(Pg { scope, node });
        }
        let processes = &inner.processes;
        let slot = processes.registry.open(Some(&name), false)?;
        processes.happened(signals::Event::Spawned {
            process: slot.process,
            name: Some(name.clone()),
            request: None,
        });
        let pid = processes.registry.pid(slot.process);
        let config = Config {
            own: pid.clone(),
            max_peer_bytes: limits::MAX_PG_PEER_BYTES,
            retry: limits::PG_RETRY,
        };
        let scope = Arc::new(Scope {
            name: name.clone(),
            pid,
            slot: slot.clone(),
            node: Arc::downgrade(inner),
            started: Instant::now(),
            live: RwLock::new(Live {
                state: State::new(config),
                monitors: HashMap::new(),
                monitored: HashMap::new(),
                events: Some(broadcast::channel(limits::PG_BACKLOG).0),
            }),
        });
        scopes.insert(name, scope.clone());
        // Before the links are listed, so that none is missed.
        let events = inner.view.subscribe();
        stock.handle().spawn(scope.clone().run(events));
        let node = Node::of(inner);
        Ok(Pg { scope, node })
    }
}

impl Pg {
    /// Name of the scope.
    #[must_use]
    pub fn scope(&self) -> &str {
        &self.scope.name
    }

    /// The scope process.
    #[must_use]
    pub fn pid(&self) -> &Pid {
        &self.scope.pid
    }

    fn local(&self, process: impl AsRef<Pid>) -> Result<Pid, PgError> {
        let pid = process.as_ref();
        let own = self.node.identity();
        if pid.node == own.node && pid.creation == own.creation {
            return Ok(pid.clone());
        }
        Err(PgError::NotLocal(pid.clone()))
    }

    /// A process of this node joins a group. It may join several times, and must leave as often. It leaves
    /// all groups when it ends.
    ///
    /// # Errors
    /// See [`PgError`].
    pub fn join(&self, group: impl Into<Value>, process: impl AsRef<Pid>) -> Result<(), PgError> {
        let pid = self.local(process)?;
        let group = Group::new(&group.into())?;
        let mut live = self.scope.live.write();
        live.events.as_ref().ok_or(PgError::Ended)?;
        self.scope
            .handle(self.node.inner(), &mut live, Event::Join { group, pid });
        Ok(())
    }

    /// A process of this node leaves a group; false if it was no member.
    ///
    /// # Errors
    /// See [`PgError`].
    pub fn leave(
        &self,
        group: impl Into<Value>,
        process: impl AsRef<Pid>,
    ) -> Result<bool, PgError> {
        let pid = self.local(process)?;
        let group = Group::new(&group.into())?;
        let mut live = self.scope.live.write();
        live.events.as_ref().ok_or(PgError::Ended)?;
        let there = live.state.has_joined(&group, &pid);
        self.scope
            .handle(self.node.inner(), &mut live, Event::Leave { group, pid });
        Ok(there)
    }

    fn read<T: Default>(&self, read: impl FnOnce(&State) -> T) -> T {
        let live = self.scope.live.read();
        match live.events {
            Some(_) => read(&live.state),
            None => T::default(),
        }
    }

    /// The members of a group on all nodes, each as often as it has joined; none once the scope has ended.
    #[must_use]
    pub fn members(&self, group: impl Into<Value>) -> Vec<Pid> {
        let group = Group::new(&group.into());
        group.map_or_else(|_| Vec::new(), |g| self.read(|state| state.members(&g)))
    }

    /// The members of a group on this node.
    #[must_use]
    pub fn local_members(&self, group: impl Into<Value>) -> Vec<Pid> {
        let group = Group::new(&group.into());
        let members = |g| self.read(|state| state.local_members(&g));
        group.map_or_else(|_| Vec::new(), members)
    }

    /// All groups that have members.
    #[must_use]
    pub fn groups(&self) -> Vec<Value> {
        self.read(|state| state.groups().map(Group::value).collect())
    }

    /// All groups with their members, and every change from then on.
    #[must_use]
    pub fn monitor(&self) -> (Vec<(Value, Vec<Pid>)>, PgEvents) {
        let live = self.scope.live.read();
        match &live.events {
            Some(events) => {
                let groups = live.state.groups();
                let groups = groups.map(|group| (group.value(), live.state.members(group)));
                (groups.collect(), PgEvents(events.subscribe()))
            }
            // A channel whose sender is gone.
            None => (Vec::new(), PgEvents(broadcast::channel(1).1)),
        }
    }

    /// Ends the scope on this node, for all who use it: its members leave all groups.
    pub fn stop(&self) {
        self.scope.end();
    }
}
