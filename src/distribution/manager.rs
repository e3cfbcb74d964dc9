//! Makes links with stock nodes and keeps them: the host of [`peers`](super::peers).
//!
//! One task decides; dials, handshakes and links are tasks of their own that report to it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::sleep_until;

use crate::connection::establish::{EstablishError, Local};
use crate::connection::tls::TlsConnector;
use crate::distribution::dial::{DialError, StockArrival, StockJudgement, Stocked, Stream, dial};
use crate::distribution::link::{self, Inbound, Link, LinkError, NODE_STOPS};
use crate::distribution::names::{NameForm, ResolveError, Resolver};
use crate::distribution::peers::{self, Effect, Event, Origin};
use crate::limits;
use crate::wire::handshake::{HandshakeError, Refusal, Verdict};

/// Why there is no link with a node.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nobody knows where it is.
    #[error(transparent)]
    Resolve(Arc<ResolveError>),
    /// It could not be dialled, or the handshake failed.
    #[error(transparent)]
    Dial(Arc<DialError>),
    /// It refused because it was dialling too, but its own attempt did not arrive.
    #[error("{0} was dialling this node at the same time, and its connection did not come up")]
    Crossed(Arc<str>),
    /// The link was ended while it came up.
    #[error("the connection with {0} was given up")]
    GivenUp(Arc<str>),
    /// This node has not been configured for links with stock nodes
    /// ([`Builder::distribution`](crate::Builder::distribution)).
    #[error("this node has no links with stock nodes: it was started without `distribution`")]
    Disabled,
    /// This node has stopped.
    #[error("this node has stopped")]
    NotAlive,
}

/// How links are made.
pub(crate) struct Config {
    pub(crate) local: Arc<Local>,
    pub(crate) form: NameForm,
    pub(crate) resolver: Resolver,
    pub(crate) connector: Option<TlsConnector>,
    pub(crate) link: link::Config,
    /// Bytes that wait on one link, plus one message.
    pub(crate) queue_bytes: usize,
}

/// Who uses the links.
pub(crate) trait Host: Send + Sync + 'static {
    type Inbound: Inbound;

    /// A link is up. What it brings goes to the result, from the first signal on.
    fn up(&self, link: &Arc<Link>) -> Self::Inbound;

    /// A link has ended, and all that it has brought is delivered.
    fn down(&self, link: &Arc<Link>, why: &LinkError);
}

/// What the manager is told to do.
pub(crate) enum Command {
    /// Make a link, unless there is one.
    Connect(Arc<str>, Answer),
    /// End a link; answers whether there was one.
    Disconnect(Arc<str>, oneshot::Sender<bool>),
    /// Let all leave that was sent, end all, and answer when nothing is left.
    Stop(oneshot::Sender<()>),
}

type Answer = oneshot::Sender<Result<Arc<Link>, ConnectError>>;

enum Report {
    Dialled {
        name: Arc<str>,
        dial: u64,
        outcome: Result<Stocked, ConnectError>,
    },
    Down(Arc<Link>),
}

/// The task that makes links.
pub(crate) struct Manager<H: Host> {
    config: Arc<Config>,
    host: Arc<H>,
    peers: peers::State,
    started: Instant,
    numbers: AtomicU64,
    waiting: HashMap<Arc<str>, Vec<Answer>>,
    /// Why the last dial to a node failed, until whoever waits for it is told.
    failures: HashMap<Arc<str>, ConnectError>,
    verdicts: HashMap<u64, StockJudgement>,
    dials: HashMap<u64, AbortHandle>,
    established: HashMap<u64, Stocked>,
    links: HashMap<u64, Arc<Link>>,
    reports: mpsc::UnboundedSender<Report>,
    reported: mpsc::UnboundedReceiver<Report>,
    stopping: Option<Stopping>,
}

/// The end of the manager.
struct Stopping {
    /// Who is told; `None`: nobody has asked, but nobody is left who could.
    answer: Option<oneshot::Sender<()>>,
    /// When links are cut that are not drained by then; `None`: they have been cut.
    cut: Option<Instant>,
}

impl<H: Host> Manager<H> {
    pub(crate) fn new(config: Config, host: Arc<H>) -> Self {
        let (reports, reported) = mpsc::unbounded_channel();
        let peers = peers::State::new(peers::Config {
            name: config.local.identity.node.clone(),
            patience: limits::HANDSHAKE_TIMEOUT,
        });
        Self {
            config: Arc::new(config),
            host,
            peers,
            started: Instant::now(),
            numbers: AtomicU64::new(1),
            waiting: HashMap::new(),
            failures: HashMap::new(),
            verdicts: HashMap::new(),
            dials: HashMap::new(),
            established: HashMap::new(),
            links: HashMap::new(),
            reports,
            reported,
            stopping: None,
        }
    }

    /// Works until told to stop.
    pub(crate) async fn run(
        mut self,
        mut commands: mpsc::UnboundedReceiver<Command>,
        mut judgements: mpsc::Receiver<StockJudgement>,
        mut arrivals: mpsc::Receiver<StockArrival>,
        first: Option<Stocked>,
    ) {
        if let Some(stocked) = first {
            let name = stocked.established.peer.name.clone();
            // As if it had been accepted: nobody is waiting for this dial.
            self.establish(name, stocked, Origin::Accepted(0));
        }
        loop {
            let tick = at(self.peers.deadline().map(|after| self.started + after));
            let cut = at(self.stopping.as_ref().and_then(|stopping| stopping.cut));
            let stopping = self.stopping.is_some();
            tokio::select! {
                command = commands.recv(), if !stopping => match command {
                    Some(command) => self.command(command),
                    None => self.stop(None),
                },
                Some(report) = self.reported.recv() => self.report(report),
                Some(judgement) = judgements.recv() => self.judge(judgement),
                Some(arrival) = arrivals.recv() => self.arrived(arrival),
                () = tick => self.handle(Event::Tick),
                () = cut => self.cut(),
            }
            if self.stopping.is_some() && self.links.is_empty() {
                break;
            }
        }
        for (_, task) in self.dials.drain() {
            task.abort();
        }
        for answer in self.waiting.drain().flat_map(|(_, answers)| answers) {
            let _ = answer.send(Err(ConnectError::NotAlive));
        }
        if let Some(answer) = self.stopping.take().and_then(|stopping| stopping.answer) {
            let _ = answer.send(());
        }
    }

    fn stop(&mut self, answer: Option<oneshot::Sender<()>>) {
        let cut = Some(Instant::now() + limits::LAST_WORDS);
        self.stopping = Some(Stopping { answer, cut });
        for link in self.links.values() {
            link.drain();
        }
    }

    /// Ends links whose peers have not taken in time what was sent last.
    fn cut(&mut self) {
        if let Some(stopping) = &mut self.stopping {
            stopping.cut = None;
        }
        for link in self.links.values() {
            tracing::warn!(peer = %link.name, "a stock node does not read: what was sent to it last may be lost");
            link.stop(NODE_STOPS);
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Connect(name, answer) => {
                let up = self
                    .links
                    .values()
                    .find(|link| link.name == name && link.is_open());
                if let Some(link) = up {
                    let _ = answer.send(Ok(link.clone()));
                } else {
                    self.waiting.entry(name.clone()).or_default().push(answer);
                    self.handle(Event::Want(name));
                }
            }
            Command::Disconnect(name, answer) => {
                let there = self.links.values().any(|link| link.name == name);
                self.handle(Event::Disconnect(name));
                let _ = answer.send(there);
            }
            Command::Stop(answer) => self.stop(Some(answer)),
        }
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Dialled {
                name,
                dial,
                outcome,
            } => {
                self.dials.remove(&dial);
                match outcome {
                    Ok(stocked) => self.establish(name, stocked, Origin::Dialled(dial)),
                    Err(error) => {
                        let crossed = is_nok(&error);
                        let error = match crossed {
                            true => ConnectError::Crossed(name.clone()),
                            false => error,
                        };
                        self.failures.insert(name.clone(), error);
                        self.handle(match crossed {
                            true => Event::DialNok {
                                name: name.clone(),
                                dial,
                            },
                            false => Event::DialFailed {
                                name: name.clone(),
                                dial,
                            },
                        });
                        if !self.waiting.contains_key(&name) {
                            self.failures.remove(&name);
                        }
                    }
                }
            }
            Report::Down(link) => {
                self.links.remove(&link.number);
                let name = link.name.clone();
                let link = link.number;
                self.handle(Event::Down { name, link });
            }
        }
    }

    fn judge(&mut self, judgement: StockJudgement) {
        let attempt = judgement.attempt;
        let name = judgement.peer.name.clone();
        self.verdicts.insert(attempt, judgement);
        if self.stopping.is_some() {
            let verdict = peers::Verdict::NotAllowed("node is stopping");
            self.verdict(attempt, verdict);
        } else {
            self.handle(Event::Incoming { attempt, name });
        }
    }

    fn verdict(&mut self, attempt: u64, verdict: peers::Verdict) {
        let Some(judgement) = self.verdicts.remove(&attempt) else {
            return;
        };
        let cookie = self.config.local.cookie_for(&judgement.peer.name);
        let verdict = match verdict {
            peers::Verdict::Accept { simultaneous } => Verdict::Accept {
                cookie,
                simultaneous,
            },
            peers::Verdict::Alive => Verdict::Alive { cookie },
            peers::Verdict::Nok => Verdict::Nok,
            peers::Verdict::NotAllowed(why) => {
                tracing::warn!(peer = %judgement.peer.name, "a stock node is refused: {why}");
                Verdict::NotAllowed(why)
            }
        };
        let _ = judgement.answer.send(verdict);
    }

    fn arrived(&mut self, arrival: StockArrival) {
        let StockArrival {
            attempt,
            name,
            outcome,
        } = arrival;
        match outcome {
            Ok(stocked) => self.establish(name, stocked, Origin::Accepted(attempt)),
            Err(error) => {
                if !matches!(
                    &error,
                    EstablishError::Handshake(HandshakeError::RefusedByUs { .. })
                ) {
                    tracing::warn!(peer = %name, "a stock node did not get in: {error}");
                }
                self.handle(Event::AttemptGone { attempt, name });
            }
        }
    }

    fn establish(&mut self, name: Arc<str>, mut stocked: Stocked, origin: Origin) {
        // The socket may have been accepted on another thread's runtime.
        stocked.stream = match move_here(stocked.stream) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(peer = %name, "socket lost: {error}");
                return match origin {
                    Origin::Dialled(dial) => self.handle(Event::DialFailed { name, dial }),
                    Origin::Accepted(attempt) => self.handle(Event::AttemptGone { attempt, name }),
                };
            }
        };
        let link = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.established.insert(link, stocked);
        self.handle(Event::Established { name, link, origin });
    }

    fn handle(&mut self, event: Event) {
        let mut effects = Vec::new();
        let now: Duration = self.started.elapsed();
        self.peers.handle(now, event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Dial { name, dial } => self.dial(name, dial),
                Effect::CancelDial { dial } => {
                    if let Some(task) = self.dials.remove(&dial) {
                        task.abort();
                    }
                }
                Effect::Verdict { attempt, verdict } => self.verdict(attempt, verdict),
                Effect::Start { link } => self.start(link),
                Effect::Drop { link } => {
                    self.established.remove(&link);
                }
                Effect::Kill { link, reason } => {
                    if let Some(link) = self.links.get(&link) {
                        link.stop(LinkError::Local(reason));
                    }
                }
                Effect::Failed { name } => {
                    let failure = self.failures.remove(&name);
                    let error = failure.unwrap_or_else(|| ConnectError::GivenUp(name.clone()));
                    for answer in self.waiting.remove(&name).unwrap_or_default() {
                        let _ = answer.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    fn dial(&mut self, name: Arc<str>, number: u64) {
        let (config, reports) = (self.config.clone(), self.reports.clone());
        let task = tokio::spawn(async move {
            let outcome = reach(&config, &name).await;
            let _ = reports.send(Report::Dialled {
                name,
                dial: number,
                outcome,
            });
        });
        self.dials.insert(number, task.abort_handle());
    }

    fn start(&mut self, number: u64) {
        let Some(stocked) = self.established.remove(&number) else {
            return;
        };
        let peer = stocked.established.peer;
        let link = Arc::new(Link::new(
            number,
            self.config.local.identity.clone(),
            peer.name.clone(),
            peer.creation,
            stocked.established.flags,
            self.config.queue_bytes,
        ));
        self.links.insert(number, link.clone());
        if self.stopping.is_some() {
            link.stop(NODE_STOPS);
        }
        let inbound = self.host.up(&link);
        let (config, reports) = (self.config.link.clone(), self.reports.clone());
        let host = self.host.clone();
        tracing::info!(peer = %link.name, creation = link.creation, "link with a stock node is up");
        let serving = link.clone();
        tokio::spawn(async move {
            link::serve(serving.clone(), stocked.stream, config, inbound).await;
            let why = serving.reason();
            tracing::info!(peer = %serving.name, "link with a stock node is down: {why}");
            host.down(&serving, &why);
            let _ = reports.send(Report::Down(serving));
        });
        self.failures.remove(&link.name);
        for answer in self.waiting.remove(&link.name).unwrap_or_default() {
            let _ = answer.send(Ok(link.clone()));
        }
    }
}

/// Ready at that time; `None`: never.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

async fn reach(config: &Config, name: &Arc<str>) -> Result<Stocked, ConnectError> {
    let address = config.resolver.resolve(name, config.form).await;
    let address = address.map_err(|e| ConnectError::Resolve(Arc::new(e)))?;
    let cookie = config.local.cookie_for(name);
    let connector = config.connector.as_ref();
    let dialled = dial(&address, name.clone(), cookie, &config.local, connector).await;
    dialled.map_err(|e| ConnectError::Dial(Arc::new(e)))
}

fn is_nok(error: &ConnectError) -> bool {
    let ConnectError::Dial(error) = error else {
        return false;
    };
    let refused = |error: &HandshakeError| {
        matches!(
            error,
            HandshakeError::Refused {
                refusal: Refusal::Nok,
                ..
            }
        )
    };
    match &**error {
        DialError::Establish(EstablishError::Handshake(error)) => refused(error),
        _ => false,
    }
}

/// Registers a socket with the runtime of this task.
fn move_here(stream: Stream) -> std::io::Result<Stream> {
    match stream {
        Stream::Tcp(stream) => {
            let stream = stream.into_std()?;
            Ok(Stream::Tcp(TcpStream::from_std(stream)?))
        }
        // TLS listeners and dials live on this runtime.
        tls => Ok(tls),
    }
}
