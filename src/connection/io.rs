//! I/O threads: they own the sockets of established sessions.
//!
//! A fixed number of threads serves any number of peers. Ordinary connections and bulk
//! connections have threads of their own, so that a small message never waits behind the
//! delivery of a large one; a connection moves between the two kinds as a whole.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker as PollWaker};
use parking_lot::Mutex;
use partisan_tcp_info::min_rtt;

use crate::channel::{self, Ceiling};
use crate::connection::host::{Host, ThreadKind};
use crate::connection::link::{Link, Next};
use crate::connection::outbox::{Outbox, Shared, Starved, Wake, Waker};
use crate::connection::receive::{ReceiveLimits, SCRATCH_BYTES};
use crate::connection::session::{CloseReason, Session};
use crate::limits;
use crate::wire::hello::Plan;

const WAKER: Token = Token(usize::MAX);

/// How often a thread without work yields and looks again before it sleeps.
const IDLE_ROUNDS: u32 = 4;

/// Pause of a thread that serves a stream of small messages, so that a hundred or more come in one
/// go: a write, a read and two wake-ups cost as much as the messages of 10 µs. The system's timers
/// add some 50 µs. A single message and its answer never meet it, unless they share the thread
/// with such a stream.
const REST: Duration = Duration::from_micros(100);

/// How often threads look at the clock for their connections.
const TICK: Duration = Duration::from_millis(250);

/// The failure detector of a connection (`connection_ping`).
#[derive(Clone, Debug)]
pub struct Liveness {
    /// False: no pings are sent, and silence is never taken for death.
    pub enabled: bool,
    /// Silence after which the first ping is sent.
    pub idle_timeout: Duration,
    /// Silence after a ping before the next one.
    pub timeout: Duration,
    /// Unanswered pings after which the peer is taken to be dead.
    pub max_attempts: u32,
}

impl Default for Liveness {
    fn default() -> Self {
        Self {
            enabled: true,
            idle_timeout: Duration::from_secs(20),
            timeout: Duration::from_secs(10),
            max_attempts: 5,
        }
    }
}

/// Configuration of the I/O threads.
#[derive(Clone, Debug)]
pub struct Config {
    /// Threads for ordinary connections; 0: one per core, at most 4.
    pub io_threads: usize,
    /// Threads for bulk connections; 0: one per core, at most 4.
    pub bulk_threads: usize,
    /// Budget of queued bytes of a connection.
    pub queue_bytes: u64,
    /// Ceiling of queued bytes of the node.
    pub node_queue_bytes: u64,
    /// Messages of up to so many bytes go by the first connection of their channel while that has little to do, to
    /// peers that take [bundles](crate::wire::hello::Hello::bundles); 0: never.
    pub bundle_bytes: u64,
    /// A sender that finds a connection idle for this long writes on its own thread; `None`: never.
    pub direct_write: Option<Duration>,
    /// Payload of one fragment while several senders share a connection. A small message waits for
    /// one of them at most.
    pub fragment_bytes: usize,
    /// Payload of one fragment while one sender has a connection for itself.
    pub fragment_bytes_alone: usize,
    /// Size of a socket's send buffer (`SO_SNDBUF`); 0: the system finds it out.
    pub send_buffer: usize,
    /// Size of a socket's receive buffer (`SO_RCVBUF`) if its round trip is shorter than
    /// [`limits::NEAR`]; 0, and for all others: the system finds it out. On short ways the system's
    /// own size, up to 32 MB, only makes a place where small messages wait behind large ones.
    pub receive_buffer: usize,
    /// Unsent bytes that a socket's send buffer may hold (`TCP_NOTSENT_LOWAT`), so that what waits
    /// does so in the queue, which is fair; 0: as many as fit.
    pub unsent_bytes: u32,
    /// How much bulk threads stand back when cores are short: their niceness, 0 to 19.
    pub bulk_nice: u8,
    /// How long a thread that has worked keeps looking for more before it sleeps, while that tends
    /// to succeed. Zero: it yields a few times.
    pub spin: Duration,
    /// The failure detector.
    pub liveness: Liveness,
    /// What peers may send.
    pub limits: ReceiveLimits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            io_threads: 0,
            bulk_threads: 0,
            queue_bytes: limits::QUEUE_BYTES,
            node_queue_bytes: limits::NODE_QUEUE_BYTES,
            bundle_bytes: limits::BUNDLE_BYTES,
            direct_write: Some(limits::DIRECT_WRITE_GAP),
            fragment_bytes: limits::FRAGMENT_SHARED_BYTES,
            fragment_bytes_alone: limits::FRAGMENT_ALONE_BYTES,
            send_buffer: 0,
            receive_buffer: limits::RECEIVE_BUFFER,
            unsent_bytes: limits::UNSENT_BYTES,
            bulk_nice: limits::BULK_NICE,
            spin: limits::SPIN,
            liveness: Liveness::default(),
            limits: ReceiveLimits::default(),
        }
    }
}

/// What other threads leave for an I/O thread.
struct Inbox<H: Host> {
    ready: Vec<u64>,
    arriving: Vec<(u64, Link<H>)>,
}

struct Mailbox<H: Host> {
    inbox: Mutex<Inbox<H>>,
    notified: AtomicBool,
    stop: AtomicBool,
    poll: PollWaker,
}

impl<H: Host> Mailbox<H> {
    fn notify(&self) {
        if !self.notified.swap(true, Ordering::AcqRel) {
            // Fails only when the process is out of kernel memory; the tick then does the work.
            let _ = self.poll.wake();
        }
    }
}

/// Outboxes may outlive the threads, in tickets and in what schedulers remember; the descriptors of
/// the threads must not.
struct Wakers<H: Host>(Weak<[Mailbox<H>]>);

impl<H: Host> Waker for Wakers<H> {
    fn wake(&self, thread: usize, connection: u64) {
        if let Some(mailboxes) = self.0.upgrade()
            && let Some(mailbox) = mailboxes.get(thread)
        {
            mailbox.inbox.lock().ready.push(connection);
            mailbox.notify();
        }
    }
}

/// The size of a receive buffer, or 0 if the system would make it smaller: then its own choice is the
/// better one.
fn granted(bytes: usize) -> usize {
    let limit = std::fs::read_to_string("/proc/sys/net/core/rmem_max");
    match limit
        .ok()
        .and_then(|text| text.trim().parse::<usize>().ok())
    {
        Some(limit) if limit >= bytes => bytes,
        limit => {
            tracing::debug!(bytes, ?limit, "net.core.rmem_max is below receive_buffer");
            0
        }
    }
}

/// Sets a socket's options. None of them is worth a connection, so failures are let be.
fn tune(config: &Config, socket: &TcpStream) {
    let options = socket2::SockRef::from(socket);
    if config.send_buffer > 0 {
        let _ = options.set_send_buffer_size(config.send_buffer);
    }
    #[cfg(target_os = "linux")]
    if config.unsent_bytes > 0 {
        let _ = options.set_tcp_notsent_lowat(config.unsent_bytes);
    }
    if config.receive_buffer > 0 && min_rtt(socket).is_some_and(|rtt| rtt < limits::NEAR) {
        let _ = options.set_recv_buffer_size(config.receive_buffer);
    }
}

/// The I/O threads of a node.
pub struct Io<H: Host> {
    host: Arc<H>,
    mailboxes: Arc<[Mailbox<H>]>,
    ordinary: usize,
    shared: Arc<Shared>,
    config: Config,
    next_connection: AtomicU64,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl<H: Host> Io<H> {
    /// Starts the threads.
    ///
    /// # Errors
    /// What the operating system says when it has no thread or no poll left.
    pub fn start(host: Arc<H>, mut config: Config) -> io::Result<Self> {
        config.receive_buffer = granted(config.receive_buffer);
        let cores = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(4);
        let or_cores = |n: usize| if n == 0 { cores } else { n };
        let (ordinary, bulk) = (or_cores(config.io_threads), or_cores(config.bulk_threads));
        let mut polls = Vec::new();
        let mut mailboxes = Vec::new();
        for _ in 0..ordinary + bulk {
            let poll = Poll::new()?;
            mailboxes.push(Mailbox {
                inbox: Mutex::new(Inbox {
                    ready: Vec::new(),
                    arriving: Vec::new(),
                }),
                notified: AtomicBool::new(false),
                stop: AtomicBool::new(false),
                poll: PollWaker::new(poll.registry(), WAKER)?,
            });
            polls.push(poll);
        }
        let mailboxes: Arc<[Mailbox<H>]> = mailboxes.into();
        let shared = Arc::new(Shared {
            ceiling: Ceiling::new(config.node_queue_bytes),
            direct_write: config.direct_write,
            starved: Starved::default(),
            waker: Box::new(Wakers(Arc::downgrade(&mailboxes))),
        });
        let mut threads = Vec::new();
        for (index, poll) in polls.into_iter().enumerate() {
            let mut thread = Thread {
                index,
                ordinary,
                poll,
                mailboxes: mailboxes.clone(),
                host: host.clone(),
                config: config.clone(),
                links: HashMap::new(),
                running: VecDeque::new(),
                resting: false,
                spinning: Spinning::new(config.spin),
            };
            let name = if index < ordinary {
                format!("partisan-io-{index}")
            } else {
                format!("partisan-bulk-{}", index - ordinary)
            };
            threads.push(std::thread::Builder::new().name(name).spawn(move || {
                let bulk = thread.index >= thread.ordinary;
                if bulk {
                    // On Linux of the thread alone. Refused only by a sandbox; then all are equal.
                    let _ = rustix::process::nice(i32::from(thread.config.bulk_nice.min(19)));
                }
                let mut state = thread.host.thread(if bulk {
                    ThreadKind::Bulk
                } else {
                    ThreadKind::Ordinary
                });
                // A bug in one turn must neither unwind into the VM nor leave connections
                // without a thread.
                while catch_unwind(AssertUnwindSafe(|| thread.run(&mut state))).is_err() {
                    tracing::error!("an I/O thread has panicked; its sessions are closed");
                    thread.drop_all();
                }
            })?);
        }
        Ok(Self {
            host,
            mailboxes,
            ordinary,
            shared,
            config,
            next_connection: AtomicU64::new(1),
            threads: Mutex::new(threads),
        })
    }

    /// Bytes queued over all connections.
    pub fn queued(&self) -> u64 {
        self.shared.ceiling.used()
    }

    /// What the node is embedded in.
    pub(crate) fn host(&self) -> &Arc<H> {
        &self.host
    }

    /// Makes the outboxes of a new session's connections; `bundles`: the peer takes them.
    pub fn outboxes(&self, plan: &Plan, bundles: bool) -> Vec<Arc<Outbox>> {
        let mut all: Vec<Arc<Outbox>> = Vec::with_capacity(plan.total());
        for channel in plan.channels() {
            let bundles = bundles && !channel.monotonic && self.config.bundle_bytes > 0;
            let mut trunk: Option<Arc<Outbox>> = None;
            for _ in 0..channel.count {
                let mut outbox = self.outbox(channel.monotonic);
                if let (Some(trunk), true) = (&trunk, bundles) {
                    let index = all.len() as u16;
                    outbox = outbox.branch_of(trunk.clone(), index, self.config.bundle_bytes);
                }
                let outbox = Arc::new(outbox);
                trunk.get_or_insert_with(|| outbox.clone());
                all.push(outbox);
            }
        }
        all
    }

    fn outbox(&self, monotonic: bool) -> Outbox {
        let id = self.next_connection.fetch_add(1, Ordering::Relaxed);
        let config = channel::Config {
            budget: self.config.queue_bytes,
            fragment_shared: self.config.fragment_bytes,
            fragment_alone: self.config.fragment_bytes_alone,
            quantum: self.config.fragment_bytes,
            ..channel::Config::default()
        };
        Outbox::new(id, monotonic, config, self.shared.clone())
    }

    /// Gives the sockets of a new session to the threads; from here on messages flow.
    ///
    /// # Errors
    /// If a socket cannot be made non-blocking. The caller still owns the session then.
    pub fn attach(&self, session: &Arc<Session>, sockets: Vec<TcpStream>) -> io::Result<()> {
        for socket in &sockets {
            socket.set_nonblocking(true)?;
            tune(&self.config, socket);
        }
        let now = Instant::now();
        for (socket, outbox) in sockets.into_iter().zip(&session.outboxes) {
            let socket = Arc::new(socket);
            outbox.attach(socket.clone());
            let link = Link::new(session.clone(), outbox.clone(), socket, now);
            let id = link.outbox.id();
            let thread = id as usize % self.ordinary;
            link.outbox.moved_to(thread);
            self.mailboxes[thread]
                .inbox
                .lock()
                .arriving
                .push((id, link));
            self.mailboxes[thread].notify();
        }
        Ok(())
    }

    /// Stops the threads and waits for them. Sessions must have been closed before; whatever is
    /// left is dropped.
    pub fn stop(&self) {
        for mailbox in self.mailboxes.iter() {
            mailbox.stop.store(true, Ordering::Release);
            mailbox.notify();
        }
        for thread in self.threads.lock().drain(..) {
            // The thread has no way to fail but a panic outside of its own catch.
            let _ = thread.join();
        }
    }
}

struct Thread<H: Host> {
    index: usize,
    ordinary: usize,
    poll: Poll,
    mailboxes: Arc<[Mailbox<H>]>,
    host: Arc<H>,
    config: Config,
    links: HashMap<u64, Link<H>>,
    running: VecDeque<u64>,
    /// A connection of this round has a stream of small messages.
    resting: bool,
    spinning: Spinning,
}

/// Whether it pays to look for work instead of sleeping. It costs a core as long as it lasts, so it
/// goes on only while work tends to come in time.
struct Spinning {
    longest: Duration,
    /// When the thread last worked.
    worked: Option<Instant>,
    /// Nothing has come in time since.
    given_up: bool,
    /// Work that came in time lately, less what did not.
    luck: u32,
}

impl Spinning {
    /// Luck that a thread has at most, and that waiting in vain costs.
    const MOST: u32 = 16;
    const VAIN: u32 = 4;

    fn new(longest: Duration) -> Self {
        Self {
            longest,
            worked: None,
            given_up: true,
            luck: 0,
        }
    }

    /// False: sleep.
    fn go_on(&mut self) -> bool {
        if self.given_up || self.luck == 0 {
            return false;
        }
        let in_time = self.worked.is_some_and(|t| t.elapsed() < self.longest);
        if !in_time {
            self.given_up = true;
            self.luck = self.luck.saturating_sub(Self::VAIN);
        }
        in_time
    }

    /// There was work. Whoever is woken again and again in short order had better not sleep.
    fn worked(&mut self, now: Instant) {
        if !self.longest.is_zero() {
            if self.worked.is_some_and(|t| now < t + self.longest) {
                self.luck = (self.luck + 1).min(Self::MOST);
            }
            self.worked = Some(now);
            self.given_up = false;
        }
    }
}

impl<H: Host> Thread<H> {
    fn run(&mut self, state: &mut H::Thread) {
        let mut events = Events::with_capacity(256);
        let mut scratch = vec![0; SCRATCH_BYTES];
        let mut next_tick = Instant::now() + TICK;
        let mut idle = 0;
        loop {
            self.receive_inbox();
            if self.mailboxes[self.index].stop.load(Ordering::Acquire) {
                self.drop_all();
                return;
            }
            // Going to sleep and being woken costs both ends more than a few messages do. So a
            // thread that has just worked lets others run and looks again before it sleeps; the
            // longer they run, the more there is to do in one go.
            let sleeping = self.running.is_empty() && idle >= IDLE_ROUNDS && !self.spinning.go_on();
            if self.running.is_empty() && !sleeping {
                idle += 1;
                std::thread::yield_now();
            }
            let timeout = if !sleeping || !self.may_sleep() {
                Some(Duration::ZERO)
            } else if self.links.is_empty() {
                None
            } else {
                Some(next_tick.saturating_duration_since(Instant::now()))
            };
            let polled = self.poll.poll(&mut events, timeout);
            self.mailboxes[self.index]
                .notified
                .store(true, Ordering::Release);
            if let Err(e) = polled {
                if e.kind() != io::ErrorKind::Interrupted {
                    tracing::error!(error = %e, "poll failed");
                }
                continue;
            }
            for event in &events {
                let id = event.token().0 as u64;
                if let Some(link) = self.links.get_mut(&id) {
                    link.ready(event.is_readable(), event.is_writable());
                    if event.is_read_closed() || event.is_write_closed() || event.is_error() {
                        link.hung_up();
                    }
                    self.running.push_back(id);
                }
            }
            self.receive_inbox();
            let now = Instant::now();
            if !self.running.is_empty() {
                idle = 0;
                self.spinning.worked(now);
            }
            for _ in 0..self.running.len() {
                let Some(id) = self.running.pop_front() else {
                    break;
                };
                self.turn(id, state, &mut scratch, now);
            }
            if std::mem::take(&mut self.resting) && self.running.is_empty() {
                std::thread::sleep(REST);
            }
            if now >= next_tick {
                next_tick = now + TICK;
                self.tick(now);
            }
        }
    }

    /// From here on senders have to wake the thread; false if something has come before that.
    fn may_sleep(&self) -> bool {
        let mailbox = &self.mailboxes[self.index];
        mailbox.notified.store(false, Ordering::SeqCst);
        let inbox = mailbox.inbox.lock();
        inbox.ready.is_empty() && inbox.arriving.is_empty() && !mailbox.stop.load(Ordering::Acquire)
    }

    fn receive_inbox(&mut self) {
        let mailbox = &self.mailboxes[self.index];
        let (ready, arriving) = {
            let mut inbox = mailbox.inbox.lock();
            (
                std::mem::take(&mut inbox.ready),
                std::mem::take(&mut inbox.arriving),
            )
        };
        self.running.extend(ready);
        for (id, mut link) in arriving {
            link.outbox.moved_to(self.index);
            link.arrived();
            let interest = Interest::READABLE | Interest::WRITABLE;
            let registered = self.poll.registry().register(
                &mut SourceFd(&link.socket.as_raw_fd()),
                Token(id as usize),
                interest,
            );
            self.links.insert(id, link);
            match registered {
                Ok(()) => self.running.push_back(id),
                Err(e) => self.close(id, CloseReason::Lost(e.to_string())),
            }
        }
    }

    fn turn(&mut self, id: u64, state: &mut H::Thread, scratch: &mut [u8], now: Instant) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        match link.turn(&self.host, state, scratch, &self.config.limits, now) {
            Ok(next) => {
                let home = self.index >= self.ordinary;
                if link.is_bulk() != home {
                    self.migrate(id);
                } else if next == Next::Again {
                    self.running.push_back(id);
                } else if next == Next::Rest {
                    self.resting = true;
                }
            }
            Err(reason) => self.close(id, reason),
        }
    }

    /// Moves a connection to a thread of the other kind.
    fn migrate(&mut self, id: u64) {
        let Some(link) = self.links.remove(&id) else {
            return;
        };
        if let Err(e) = self
            .poll
            .registry()
            .deregister(&mut SourceFd(&link.socket.as_raw_fd()))
        {
            self.links.insert(id, link);
            self.close(id, CloseReason::Lost(e.to_string()));
            return;
        }
        let bulk = self.mailboxes.len() - self.ordinary;
        let target = if link.is_bulk() {
            self.ordinary + id as usize % bulk
        } else {
            id as usize % self.ordinary
        };
        self.mailboxes[target]
            .inbox
            .lock()
            .arriving
            .push((id, link));
        self.mailboxes[target].notify();
    }

    fn tick(&mut self, now: Instant) {
        let bulk_thread = self.index >= self.ordinary;
        let mut closing = Vec::new();
        let mut leaving = Vec::new();
        for (&id, link) in &mut self.links {
            if let Err(reason) = link.tick(&self.config.liveness, now) {
                closing.push((id, reason));
            } else if link.is_bulk() != bulk_thread {
                leaving.push(id);
            }
            let lost = link.take_lost();
            if lost.undelivered > 0 {
                tracing::info!(
                    peer = %link.session.peer.node,
                    messages = lost.undelivered,
                    "messages for names or processes that do not exist were dropped"
                );
            }
            if lost.undecodable > 0 {
                tracing::warn!(
                    peer = %link.session.peer.node,
                    messages = lost.undecodable,
                    "messages that could not be decoded were dropped: maps with a key twice"
                );
            }
        }
        for (id, reason) in closing {
            self.close(id, reason);
        }
        for id in leaving {
            self.migrate(id);
        }
    }

    fn close(&mut self, id: u64, reason: CloseReason) {
        let Some(link) = self.links.remove(&id) else {
            return;
        };
        let _ = self
            .poll
            .registry()
            .deregister(&mut SourceFd(&link.socket.as_raw_fd()));
        let (session, outbox) = (link.session.clone(), link.outbox.clone());
        drop(link);
        if session.is_draining() && matches!(reason, CloseReason::Lost(_)) {
            // The agreed end of one connection; the others may still bring something.
            outbox.close(Wake::Disconnected);
        } else {
            session.close(reason);
        }
        session.released();
    }

    fn drop_all(&mut self) {
        let ids: Vec<u64> = self.links.keys().copied().collect();
        for id in ids {
            self.close(id, CloseReason::Local("node stopped"));
        }
        self.running.clear();
        let arriving = std::mem::take(&mut self.mailboxes[self.index].inbox.lock().arriving);
        for (_, link) in arriving {
            let session = link.session.clone();
            drop(link);
            session.close(CloseReason::Local("node stopped"));
            session.released();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn near_connections_get_the_receive_buffer_if_the_system_grants_it() {
        assert_eq!(granted(0), 0);
        assert_eq!(granted(usize::MAX), 0);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let size = || socket2::SockRef::from(&socket).recv_buffer_size().unwrap();
        let by_itself = size();
        let mut config = Config {
            receive_buffer: 0,
            ..Config::default()
        };
        tune(&config, &socket);
        assert_eq!(size(), by_itself);
        config.receive_buffer = granted(100_000);
        tune(&config, &socket);
        // Where the kernel doesn't tell the round trip, or that of this connection was long by chance, it is left.
        if config.receive_buffer > 0 && min_rtt(&socket).is_some_and(|rtt| rtt < limits::NEAR) {
            // Linux counts its own overhead in.
            assert!([100_000, 200_000].contains(&size()), "{}", size());
        }
    }
}
