//! The control plane: feeds the state machines with what happens and does what they say.
//!
//! Overlay and links are pure; this module is their host. It owns the sockets until a session is
//! up, the table of sessions, the timers and the file that keeps the membership.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep_until;

use crate::broadcast::Event;
use crate::connection::door::Door;
use crate::connection::establish::{
    Authenticated, Desk, Failure, Judgement, Local, Pending, Permit, Ready,
};
use crate::connection::host::Host;
use crate::connection::inlet::{ControlMessage, Inlet, Subject};
use crate::connection::io::Io;
use crate::connection::listen::{Arrival, Reception};
use crate::connection::outbox::Wake;
use crate::connection::receive::ReceiveLimits;
use crate::connection::session::{self, CloseReason, NewAtoms, Session, SessionEvent};
use crate::connection::tunnel::{Outbound, Outlets};
use crate::limits;
use crate::node::complaints::Complaints;
use crate::node::links;
use crate::node::persist::Store;
use crate::node::reach;
use crate::node::runtime::{Command, Config, Observer, StartError};
use crate::overlay::membership::{Input, Membership};
use crate::overlay::switch::Status;
use crate::overlay::{Contact, Down, MemberChannel, NodeSpec};
use crate::wire::handshake::Verdict;

use broadcast::Spread;
use delivery::Deliveries;
use relay::Relaying;

mod broadcast;
mod delivery;
mod overlay;
mod relay;
mod setup;

/// Channel of the membership messages.
pub(crate) const MEMBERSHIP_CHANNEL: &str = "partisan_membership";

/// Time for sessions to end when the node stops.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// Sender id of membership messages: no process has it.
const MEMBERSHIP_SENDER: u64 = u64::MAX;

/// A session that is being set up.
struct Setup {
    name: Arc<str>,
    admit: Option<oneshot::Sender<Permit>>,
    /// Dropping it withdraws the permit.
    keep: Option<oneshot::Sender<()>>,
}

/// What became of a dial.
struct Dialled {
    name: Arc<str>,
    dial: u64,
    outcome: Result<(u64, Ready), Failure>,
}

/// Work that the state machines ask for, done in order.
enum Work {
    Overlay(Input),
    Links(links::Event),
}

/// The host of a node's state machines.
pub(crate) struct Control<H: Host> {
    local: Arc<Local>,
    io: Arc<Io<H>>,
    observer: Arc<Mutex<Box<dyn Observer>>>,
    own: NodeSpec,
    overlay: Membership,
    /// What the observer knows of it.
    shown: Option<(Status, bool)>,
    links: links::State,
    /// Nodes to which the overlay wants a link.
    wanted: BTreeMap<Arc<str>, NodeSpec>,
    /// Whether `wanted` has changed since the links heard of it.
    rewanted: bool,
    /// Sessions that the overlay has released: it hears no more of them.
    parted: HashSet<u64>,
    store: Option<Store>,
    started: Instant,
    work: VecDeque<Work>,
    /// Sessions that are up or ending, by number.
    sessions: HashMap<u64, Arc<Session>>,
    numbers: HashMap<Arc<str>, u64>,
    /// Sessions that have ended while not everybody has been told.
    untold: HashMap<Arc<str>, u64>,
    next_session: u64,
    /// What peers have introduced, and all of them together.
    new_atoms: HashMap<Arc<str>, NewAtoms>,
    all_atoms: NewAtoms,
    setups: HashMap<u64, Setup>,
    attempts: HashMap<u64, (Arc<str>, oneshot::Sender<Verdict>)>,
    judged: HashMap<u64, Arc<str>>,
    dials: HashMap<u64, AbortHandle>,
    members: Vec<NodeSpec>,
    spread: Spread,
    relaying: Relaying,
    deliveries: Deliveries,
    /// What a broadcast may hold when it is delivered here.
    receive: ReceiveLimits,
    /// What the host keeps for this thread, once it delivers.
    thread: Option<H::Thread>,
    /// The user has had this node leave, and join nobody since: whoever is released is left.
    left: bool,
    leaving: Vec<crate::node::runtime::Reply<Result<(), String>>>,
    desk: Desk,
    tasks: JoinSet<()>,
    dialled: mpsc::Sender<Dialled>,
    inlet: Arc<Inlet>,
    events: mpsc::UnboundedSender<SessionEvent>,
    complaints: Complaints,
    inputs: Option<Inputs>,
}

/// Where the control plane hears from.
struct Inputs {
    judgements: mpsc::Receiver<Judgement>,
    authenticated: mpsc::Receiver<Authenticated>,
    arrivals: mpsc::Receiver<Arrival>,
    dialled: mpsc::Receiver<Dialled>,
    control: mpsc::UnboundedReceiver<ControlMessage>,
    packets: mpsc::UnboundedReceiver<Outbound>,
    events: mpsc::UnboundedReceiver<SessionEvent>,
}

impl<H: Host> Control<H> {
    pub(crate) fn new(
        local: Arc<Local>,
        io: Arc<Io<H>>,
        config: Config,
        observer: Arc<Mutex<Box<dyn Observer>>>,
        listeners: Vec<TcpListener>,
        outlets: Outlets,
    ) -> Result<Self, StartError> {
        let own = own_spec(&config, &listeners)?;
        let refuse = |what| StartError::Overlay(format!("own specification: bad {what}"));
        let contact = Contact::new(own.clone()).map_err(refuse)?;
        let overlay = crate::node::overlay::membership(&config, contact.clone());
        let (judge, judgements) = mpsc::channel(limits::MAX_UNAUTHENTICATED);
        let (authenticated_in, authenticated) = mpsc::channel(limits::MAX_UNAUTHENTICATED);
        let (arrivals_in, arrivals) = mpsc::channel(limits::MAX_UNAUTHENTICATED);
        let (dialled_in, dialled) = mpsc::channel(limits::MAX_UNAUTHENTICATED);
        let (inlet, control) = Inlet::new();
        let (events_in, events) = mpsc::unbounded_channel();
        let desk = Desk {
            judge,
            authenticated: authenticated_in,
            stock: config.stock.clone(),
        };
        let mut tasks = JoinSet::new();
        let pending = Arc::new(Pending::default());
        let door = Arc::new(Door::default());
        let numbers = Arc::new(AtomicU64::new(1));
        let reception = Reception {
            local: local.clone(),
            pending,
            door,
            attempts: numbers,
            desk: desk.clone(),
            arrivals: arrivals_in,
        };
        for listener in listeners {
            tasks.spawn(reception.clone().serve(listener));
        }
        if let Some(tunnels) = &local.tunnels {
            tasks.spawn(tunnels.clone().run());
        }
        tasks.spawn(reception.serve_relayed(outlets.inbound));
        let links = links::State::new(links::Config {
            interval: config.connection_interval,
            jitter: config.connection_jitter,
            ..links::Config::new(config.name.clone(), local.instance)
        });
        let own_id = (own.name.clone(), local.instance);
        let mut this = Self {
            members: vec![own.clone()],
            spread: Spread::new(config.broadcast.clone(), own.name.clone()),
            relaying: Relaying::new(&config, &contact),
            deliveries: Deliveries::new(config.delivery.clone(), own_id.0, own_id.1),
            receive: config.io.limits.clone(),
            thread: None,
            local,
            io,
            observer,
            own,
            overlay,
            shown: None,
            links,
            wanted: BTreeMap::new(),
            rewanted: false,
            parted: HashSet::new(),
            store: config.data_dir.map(Store::new),
            started: Instant::now(),
            work: VecDeque::new(),
            sessions: HashMap::new(),
            numbers: HashMap::new(),
            untold: HashMap::new(),
            next_session: 1,
            new_atoms: HashMap::new(),
            all_atoms: NewAtoms::default(),
            setups: HashMap::new(),
            attempts: HashMap::new(),
            judged: HashMap::new(),
            dials: HashMap::new(),
            left: false,
            leaving: Vec::new(),
            desk,
            tasks,
            dialled: dialled_in,
            inlet,
            events: events_in,
            complaints: Complaints::default(),
            inputs: Some(Inputs {
                judgements,
                authenticated,
                arrivals,
                dialled,
                control,
                packets: outlets.packets,
                events,
            }),
        };
        this.load();
        Ok(this)
    }

    pub(crate) fn own_spec(&self) -> &NodeSpec {
        &self.own
    }

    /// Works until told to stop.
    pub(crate) async fn run(&mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let Some(mut inputs) = self.inputs.take() else {
            return;
        };
        self.overlay(Input::Tick);
        loop {
            self.settle();
            let started = self.started;
            let at = |deadline: Option<Duration>| async move {
                match deadline {
                    Some(at) => sleep_until((started + at).into()).await,
                    None => std::future::pending().await,
                }
            };
            let links_tick = at(self.links.deadline());
            let overlay_tick = at(self.overlay.deadline());
            let broadcast_tick = at(self.spread.deadline());
            let relay_tick = at(self.relaying.deadline());
            let delivery_tick = at(self.deliveries.deadline());
            tokio::select! {
                command = commands.recv() => match command {
                    None | Some(Command::Stop) => break,
                    Some(command) => self.command(command),
                },
                Some(event) = inputs.events.recv() => {
                    // What a session has delivered before its end counts: a leave, above all.
                    while let Ok(message) = inputs.control.try_recv() {
                        self.message(message);
                    }
                    self.settle();
                    self.session_event(event);
                }
                Some(message) = inputs.control.recv() => self.message(message),
                Some(judgement) = inputs.judgements.recv() => self.judge(judgement),
                Some(request) = inputs.authenticated.recv() => self.authenticated(request),
                Some(dialled) = inputs.dialled.recv() => self.dialled(dialled),
                Some(arrival) = inputs.arrivals.recv() => self.arrived(arrival),
                () = overlay_tick => self.overlay(Input::Tick),
                Some((to, packet)) = inputs.packets.recv() => self.relayed(to, packet),
                () = relay_tick => self.relay_tick(),
                () = delivery_tick => self.delivery_tick(),
                () = broadcast_tick => self.spread_on(Event::Tick),
                () = links_tick => self.work.push_back(Work::Links(links::Event::Tick)),
            }
            while self.tasks.try_join_next().is_some() {}
        }
        self.stop(inputs.events).await;
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn overlay(&mut self, input: Input) {
        self.work.push_back(Work::Overlay(input));
    }

    fn link(&mut self, event: links::Event) {
        self.work.push_back(Work::Links(event));
    }

    /// Feeds the machines until they want nothing more.
    fn settle(&mut self) {
        let mut rng = rand::rng();
        loop {
            if let Some(work) = self.work.pop_front() {
                match work {
                    Work::Overlay(input) => {
                        if let Err(e) = self.feed(input) {
                            tracing::warn!(error = %e, "membership");
                        }
                    }
                    Work::Links(event) => {
                        let mut effects = Vec::new();
                        let now = self.now();
                        self.links.handle(now, event, &mut rng, &mut effects);
                        for effect in effects {
                            self.do_links(effect);
                        }
                    }
                }
            } else if std::mem::take(&mut self.rewanted) {
                let wanted = self.all_wanted();
                self.link(links::Event::Wanted(wanted));
            } else {
                break;
            }
        }
    }

    fn do_links(&mut self, effect: links::Effect) {
        use links::Effect;
        match effect {
            Effect::Dial { dial, spec, addr } => self.dial(dial, spec.name.clone(), addr),
            Effect::CancelDial { dial, .. } => {
                if let Some(task) = self.dials.remove(&dial) {
                    task.abort();
                }
            }
            Effect::Verdict { attempt, verdict } => self.verdict(attempt, verdict),
            Effect::Ping { session, .. } => {
                if let Some(session) = self.sessions.get(&session) {
                    session.probe();
                }
            }
            Effect::Admit { session, .. } => {
                if let Some(setup) = self.setups.get_mut(&session)
                    && let Some(admit) = setup.admit.take()
                {
                    let (keep, withdrawn) = oneshot::channel();
                    setup.keep = Some(keep);
                    // Fails if the connection has broken meanwhile, which is reported apart.
                    let _ = admit.send(Permit { session, withdrawn });
                }
            }
            Effect::Kill {
                name,
                session,
                reason,
            } => self.end(name, session, reason),
            Effect::Unreachable { name } => self.overlay(Input::LinkFailed(name)),
            Effect::Close {
                name,
                session,
                reason,
            } => {
                if self.setups.contains_key(&session) && self.complaints.is_new(&name) {
                    tracing::warn!(peer = %name, "session did not come up in time: {reason}");
                }
                match self.sessions.get(&session) {
                    Some(up) => up.release(),
                    None => self.end(name, session, reason),
                }
            }
        }
    }

    fn end(&mut self, name: Arc<str>, session: u64, reason: &'static str) {
        if let Some(up) = self.sessions.get(&session) {
            // One that is being released ends by itself, and first what the peer has sent is read: the peer may be
            // through with it, and dial again, before that.
            if !(up.is_released() && up.is_draining()) {
                up.close(CloseReason::Local(reason));
            }
        } else if self.setups.remove(&session).is_some() {
            self.link(links::Event::Down { name, session });
        }
    }

    fn bring_up(&mut self, number: u64, ready: Ready) {
        let Some(setup) = self.setups.remove(&number) else {
            return;
        };
        let name = setup.name;
        let outboxes = self.io.outboxes(&ready.plan, ready.bundles);
        for channel in ready.plan.foreign() {
            tracing::info!(peer = %name, %channel, "channel is configured at the peer only");
        }
        if self.new_atoms.len() >= limits::MAX_MEMBERS {
            self.new_atoms.retain(|_, atoms| !atoms.is_untouched());
        }
        let fresh = || self.all_atoms.of_other_peer();
        let new_atoms = self.new_atoms.entry(name.clone()).or_insert_with(fresh);
        let new_atoms = new_atoms.clone();
        let session = Arc::new(Session::new(session::Parts {
            peer: ready.peer,
            instance: ready.instance,
            id: ready.id,
            plan: ready.plan,
            connections: ready.connections,
            outboxes,
            new_atoms,
            inlet: self.inlet.clone(),
            events: self.events.clone(),
        }));
        let news = self.reached(&session);
        self.sessions.insert(number, session.clone());
        self.numbers.insert(name.clone(), number);
        if let Err(e) = self.io.attach(&session, ready.sockets) {
            // No thread knows the session, so its end is told here.
            self.session_event(SessionEvent::Ended {
                session,
                reason: CloseReason::Lost(e.to_string()),
            });
            return;
        }
        self.complaints.forget(&name);
        tracing::info!(
            peer = %name,
            connections = session.connections.len(),
            "session is up"
        );
        self.link(links::Event::Up {
            name: name.clone(),
            session: number,
        });
        self.overlay(Input::LinkUp(name));
        self.do_reach(news);
        self.delivery_up(&session);
    }

    fn session_event(&mut self, event: SessionEvent) {
        let (session, ended) = match event {
            SessionEvent::Room(session) => return self.room(&session),
            SessionEvent::Line(session, number) => return self.line(&session, number),
            SessionEvent::Alive(session) => (session, None),
            SessionEvent::Ended { session, reason } => (session, Some(reason)),
        };
        let number = self
            .sessions
            .iter()
            .find(|(_, s)| Arc::ptr_eq(s, &session))
            .map(|(&n, _)| n);
        let Some(number) = number else { return };
        let name = session.peer.node.clone();
        let Some(reason) = ended else {
            self.link(links::Event::Pong {
                name,
                session: number,
            });
            return;
        };
        self.sessions.remove(&number);
        if self.numbers.get(&name) == Some(&number) {
            self.numbers.remove(&name);
            self.forget_backlog(&name);
            self.delivery_down(&name, session.has_left());
        }
        if matches!(reason, CloseReason::Protocol(_)) {
            tracing::warn!(peer = %name, "session has ended: {reason}");
        } else {
            tracing::info!(peer = %name, "session has ended: {reason}");
        }
        let planned = session.is_released() && !matches!(reason, CloseReason::Lost(_));
        let lives = planned && !session.has_left();
        let told = self.parted_from(&session, lives, &reason);
        if !self.parted.remove(&number) {
            let how = match planned {
                true => Down::Planned,
                false => Down::Failed,
            };
            self.overlay(Input::LinkDown(name.clone(), how));
        }
        self.untold.insert(name.clone(), number);
        if told {
            self.told(name);
        }
    }

    /// Everybody knows that the session is down, so the next one may come.
    fn told(&mut self, name: Arc<str>) {
        if let Some(session) = self.untold.remove(&name) {
            self.link(links::Event::Down { name, session });
        }
    }

    fn session(&self, name: &str) -> Option<&Arc<Session>> {
        self.sessions.get(self.numbers.get(name)?)
    }

    fn message(&mut self, message: ControlMessage) {
        self.inlet.taken(message.bytes.len());
        let from = message.session.peer.node.clone();
        // What an ended session left behind must not count for its successor.
        let current = self.numbers.get(&from).copied();
        let current = current.filter(|number| !self.parted.contains(number));
        let session = current.and_then(|number| self.sessions.get(&number));
        if session.is_some_and(|s| Arc::ptr_eq(s, &message.session) && s.is_open()) {
            match message.subject {
                Subject::Membership => self.overlay(Input::Bytes(from, message.bytes)),
                Subject::Broadcast => self.broadcast_message(&message.session, &message.bytes),
                Subject::Relay => self.packet(&message.session, &message.bytes),
                Subject::Delivery => self.delivery_message(&message.session, &message.bytes),
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Join(spec, reply) => {
                let name = spec.name.clone();
                if name == self.own.name {
                    return reply(Err("self_join".into()));
                }
                self.left = false;
                let outcome = self.ask_overlay(Input::Join(spec));
                self.link(links::Event::Hurry(name));
                reply(outcome);
            }
            Command::Leave(reply) => {
                self.leaving.push(reply);
                self.left = true;
                if let Err(e) = self.ask_overlay(Input::Leave) {
                    self.left = false;
                    for reply in self.leaving.drain(..) {
                        reply(Err(e.clone()));
                    }
                }
            }
            Command::Remove(name, reply) => {
                let outcome = self.ask_overlay(Input::Remove(name.clone()));
                if outcome.is_ok() {
                    self.delivery_left(name);
                }
                reply(outcome);
            }
            Command::Update(specs, reply) => {
                reply(self.ask_overlay(Input::UpdateMembers(specs)));
            }
            Command::Steer(name, specs, reply) => {
                reply(self.ask_overlay(Input::Steer(name, specs)));
            }
            Command::Switch(name, reply) => reply(self.ask_overlay(Input::Switch(name))),
            Command::Overlay(reply) => reply(self.overlay.status()),
            Command::Broadcast(name, term, reply) => reply(self.broadcast(&name, &term)),
            Command::Deliver(sender) => self.accept(sender),
            Command::Withdraw(ticket) => self.withdraw(ticket),
            Command::BroadcastView(root, reply) => reply(self.spread.view(&root)),
            Command::Members(reply) => reply(self.members.clone()),
            Command::Sessions(reply) => {
                reply(
                    self.sessions
                        .values()
                        .filter(|s| s.is_open())
                        .cloned()
                        .collect(),
                );
            }
            Command::Disconnect(name, reply) => {
                let session = self.session(&name);
                if let Some(session) = session {
                    session.close(CloseReason::Local("disconnected"));
                }
                reply(session.is_some());
            }
            Command::Reach(name, reply) => self.ask(name, reply),
            Command::Remember(spec) => self.remember(&spec),
            Command::Watch(name, on) => self.reach(reach::Event::Watch(name, on)),
            Command::Told(name) => self.told(name),
            Command::Stop => {}
        }
    }

    async fn stop(&mut self, mut events: mpsc::UnboundedReceiver<SessionEvent>) {
        self.delivery_stop();
        self.tasks.shutdown().await;
        self.setups.clear();
        for session in self.sessions.values() {
            session.close_with(CloseReason::Local("node stopped"), Wake::NotAlive);
        }
        let ended = async {
            while !self.sessions.is_empty() {
                let Some(event) = events.recv().await else {
                    break;
                };
                self.session_event(event);
            }
        };
        // The threads answer at once unless one is stuck in the kernel.
        let _ = tokio::time::timeout(STOP_PATIENCE, ended).await;
    }
}

fn own_spec(config: &Config, listeners: &[TcpListener]) -> Result<NodeSpec, StartError> {
    let mut listen_addrs = Vec::new();
    for listener in listeners {
        listen_addrs.push(listener.local_addr()?);
    }
    if !config.advertise.is_empty() {
        listen_addrs.clone_from(&config.advertise);
    }
    let channels = config
        .channels
        .iter()
        .map(|c| MemberChannel {
            name: c.name.clone(),
            parallelism: c.parallelism,
            monotonic: c.monotonic,
            compression: c.compression,
        })
        .collect();
    Ok(NodeSpec {
        name: config.name.clone(),
        listen_addrs,
        channels,
    })
}
