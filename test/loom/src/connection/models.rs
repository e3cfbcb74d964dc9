//! What must hold however the threads interleave. Each function is one model, to be run in
//! [`loom::model()`].

use std::io::{self, Read};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use loom::thread::{self, JoinHandle};
use tokio::sync::mpsc;

use super::handover::Handover;
use super::host::{Blob, Delivery, Host, Incoming, Lost, Source, ThreadKind};
use super::inlet::Inlet;
use super::link::{Link, Next};
use super::outbox::{Outbox, Outgoing, Pressure, Sent, Shared, Starved, Waiter, Wake, Waker};
use super::receive::ReceiveLimits;
use super::session::{CloseReason, NewAtoms, Parts, Session};
use super::sync::{AtomicUsize, Mutex, Ordering};
use crate::channel::{Ceiling, Config};
use crate::limits;
use crate::wire::frame::Dest;
use crate::wire::handshake::SessionId;
use crate::wire::hello::Plan;
use crate::wire::identity::Identity;

/// What each sender sends: a small integer, or the number of a waiter.
const TERM: [u8; 3] = [131, 97, 7];

/// Bytes of its frame: header, head of the name `x`, term.
const FRAME: usize = 5 + 3 + TERM.len();

/// Whom the I/O thread has been asked to look after, as its mailbox keeps it.
#[derive(Default)]
struct Calls(Mutex<usize>);

impl Waker for Arc<Calls> {
    fn wake(&self, _: usize, _: u64) {
        *self.0.lock() += 1;
    }
}

/// Receives nothing.
struct Nobody;

enum Never {}

impl Blob for Never {
    fn len(&self) -> u64 {
        match *self {}
    }

    fn filled(&self) -> u64 {
        match *self {}
    }

    fn extend(&mut self, _: &[u8]) -> io::Result<()> {
        match *self {}
    }

    fn receive(&mut self, _: usize, _: &Source<'_>) -> io::Result<usize> {
        match *self {}
    }
}

impl Host for Nobody {
    type Blob = Never;
    type Thread = ();

    fn thread(&self, _: ThreadKind) {}

    fn blob(&self, _: u64) -> Option<Never> {
        None
    }

    fn knows_atom(&self, (): &mut (), _: &str) -> bool {
        true
    }

    fn deliver(
        &self,
        (): &mut (),
        _: &Arc<Session>,
        _: &Arc<Outbox>,
        _: Incoming<'_, Never>,
    ) -> Delivery {
        Delivery::NoProcess
    }
}

/// A connection, its I/O thread's view of it, and the other end of its socket.
struct Rig {
    link: Link<Nobody>,
    outbox: Arc<Outbox>,
    session: Arc<Session>,
    calls: Arc<Calls>,
    socket: Weak<TcpStream>,
    peer: UnixStream,
    limits: ReceiveLimits,
    now: Instant,
}

impl Rig {
    /// `direct`: senders write on their own threads when they find the connection idle.
    fn new(direct: bool, budget: u64, ceiling: u64) -> Self {
        let (ours, peer) = UnixStream::pair().expect("a socket pair");
        ours.set_nonblocking(true).expect("non-blocking");
        peer.set_nonblocking(true).expect("non-blocking");
        let socket = Arc::new(TcpStream::from(OwnedFd::from(ours)));
        let calls = Arc::new(Calls::default());
        let outbox = Arc::new(Outbox::new(
            1,
            false,
            Config {
                budget,
                ..Config::default()
            },
            Arc::new(Shared {
                ceiling: Ceiling::new(ceiling),
                direct_write: direct.then_some(Duration::ZERO),
                starved: Starved::default(),
                waker: Box::new(calls.clone()),
            }),
        ));
        outbox.attach(socket.clone());
        let session = Arc::new(Session::new(Parts {
            peer: Identity::new("peer@host", 1),
            instance: 1,
            id: SessionId([0; 16]),
            plan: Plan::merge(&[], &[]).expect("one channel"),
            connections: Vec::new(),
            outboxes: vec![outbox.clone()],
            new_atoms: NewAtoms::default(),
            inlet: Inlet::new().0,
            events: mpsc::unbounded_channel().0,
        }));
        let now = Instant::now();
        Self {
            socket: Arc::downgrade(&socket),
            link: Link::new(session.clone(), outbox.clone(), socket, now),
            outbox,
            session,
            calls,
            peer,
            limits: ReceiveLimits::default(),
            now,
        }
    }

    fn roomy(direct: bool) -> Self {
        Self::new(direct, limits::QUEUE_BYTES, limits::NODE_QUEUE_BYTES)
    }

    /// One round of the I/O thread: a turn if somebody has called, else nothing.
    fn serve(&mut self) -> bool {
        self.serve_with(Self::turn)
    }

    fn serve_with(&mut self, turn: impl Fn(&mut Self) -> Next) -> bool {
        let called = std::mem::take(&mut *self.calls.0.lock()) > 0;
        if called && turn(self) == Next::Again {
            *self.calls.0.lock() += 1;
        }
        called
    }

    fn turn(&mut self) -> Next {
        self.try_turn().expect("the session is open")
    }

    fn try_turn(&mut self) -> Result<Next, CloseReason> {
        self.link
            .turn(&Nobody, &mut (), &mut [0; 64], &self.limits, self.now)
    }

    /// All senders are done: the I/O thread does what it has been called for, and nothing else.
    fn settle(&mut self) {
        while self.serve() {}
    }

    /// Bytes that have reached the other end.
    fn arrived(&mut self) -> usize {
        let mut buffer = [0; 256];
        self.peer.read(&mut buffer).unwrap_or(0)
    }
}

fn send(outbox: &Arc<Outbox>, sender: u64, pressure: Pressure) -> Sent {
    let message = Outgoing::Small {
        dest: Dest::Name("x"),
        term: &TERM,
    };
    outbox.send(sender, message, pressure)
}

fn senders(rig: &Rig, count: u64, each: usize) -> Vec<JoinHandle<()>> {
    (0..count)
        .map(|sender| {
            let outbox = rig.outbox.clone();
            thread::spawn(move || {
                for _ in 0..each {
                    assert_eq!(send(&outbox, sender, Pressure::Refuse), Sent::Queued);
                }
            })
        })
        .collect()
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        thread.join().expect("no thread panics");
    }
}

/// Two senders and the I/O thread: when all are done, no message waits with nobody called for it.
/// With `direct`, senders write themselves, and the I/O thread comes while they do.
pub fn nothing_is_left_unsent(direct: bool, senders: u64, each: usize) {
    left_unsent(direct, senders, each, Rig::turn);
}

fn left_unsent(direct: bool, count: u64, each: usize, turn: impl Fn(&mut Rig) -> Next) {
    let mut rig = Rig::roomy(direct);
    let threads = senders(&rig, count, each);
    rig.serve_with(&turn);
    rig.serve_with(&turn);
    join(threads);
    while rig.serve_with(&turn) {}
    assert_eq!(rig.outbox.queued(), 0, "left in the queue");
    assert_eq!(rig.arrived(), count as usize * each * FRAME);
}

/// The I/O thread has something to write while a sender is writing.
pub fn whoever_finds_the_desk_taken_is_called() {
    let mut rig = Rig::roomy(true);
    let threads = senders(&rig, 1, 1);
    // Comes with a call of its own, which is used up when the desk is found taken.
    let pong = crate::wire::frame::pong(1);
    rig.outbox.send_urgent(&pong);
    rig.serve();
    join(threads);
    rig.settle();
    assert_eq!(rig.arrived(), FRAME + pong.len(), "something is left");
}

#[derive(Default)]
struct Waiting(AtomicUsize);

impl Waiter for Waiting {
    fn wake(&self, why: Wake) {
        assert_eq!(why, Wake::Granted);
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// Budget or ceiling have room for one message: of two senders one may have to wait, and is woken.
pub fn no_waiter_is_forgotten(direct: bool, budget: u64, ceiling: u64) {
    let mut rig = Rig::new(direct, budget, ceiling);
    let threads: Vec<JoinHandle<Option<Arc<Waiting>>>> = (0..2)
        .map(|sender| {
            let outbox = rig.outbox.clone();
            thread::spawn(move || {
                let waiter = Arc::new(Waiting::default());
                match send(&outbox, sender, Pressure::Wait(waiter.clone())) {
                    Sent::Queued => None,
                    Sent::Waiting(_) => Some(waiter),
                    other => panic!("{other:?}"),
                }
            })
        })
        .collect();
    rig.serve();
    let waiters: Vec<_> = threads
        .into_iter()
        .filter_map(|thread| thread.join().expect("no thread panics"))
        .collect();
    rig.settle();
    assert_eq!(rig.arrived(), (2 - waiters.len()) * FRAME);
    for waiter in waiters {
        assert_eq!(waiter.0.load(Ordering::Acquire), 1, "woken once");
    }
}

/// Whoever has the desk when the connection is closed, the socket is given up.
pub fn a_closed_socket_is_given_up() {
    let rig = Rig::roomy(true);
    let outbox = rig.outbox.clone();
    let sender = thread::spawn(move || {
        let sent = send(&outbox, 1, Pressure::Refuse);
        assert!(matches!(sent, Sent::Queued | Sent::Closed));
    });
    rig.outbox.close(Wake::Disconnected);
    sender.join().expect("no thread panics");
    let socket = rig.socket.clone();
    drop(rig.link);
    assert_eq!(socket.strong_count(), 0, "the outbox has the socket still");
    assert_eq!(rig.outbox.queued(), 0);
}

/// The session is ended while a sender signals too: the I/O thread comes and sees it.
pub fn an_end_is_noticed(abandon: bool) {
    let mut rig = Rig::roomy(false);
    let outbox = rig.outbox.clone();
    let sender = thread::spawn(move || {
        let _ = send(&outbox, 1, Pressure::Refuse);
    });
    let session = rig.session.clone();
    let ender = thread::spawn(move || {
        let reason = CloseReason::Local("a model");
        if abandon {
            session.abandon(reason);
        } else {
            session.close_after_flush(reason);
        }
    });
    let mut seen = false;
    let mut serve = |rig: &mut Rig| {
        let called = std::mem::take(&mut *rig.calls.0.lock()) > 0;
        if called {
            let turn = rig.try_turn();
            // Of an end after all is written the turn tells by writing the farewell.
            seen |= turn.is_err() || turn == Ok(Next::Again);
        }
        called
    };
    serve(&mut rig);
    join(vec![sender, ender]);
    while serve(&mut rig) {}
    assert!(seen, "nobody has noticed");
}

/// Two parcels that are too much together: the I/O thread pauses, unless one is delivered by
/// then, and is resumed if and only if it has paused.
pub fn a_paused_connection_is_resumed() {
    let rig = Rig::roomy(false);
    let mut threads = Vec::new();
    let mut paused = false;
    for _ in 0..2 {
        let bytes = limits::HANDED_OVER_BYTES / 2 + 1;
        let handover = Handover::new(&rig.session, &rig.outbox, bytes);
        threads.push(thread::spawn(move || handover.finish(Lost::default())));
        assert!(!paused, "the first one alone is not too much");
        paused = rig.outbox.tally.must_pause();
    }
    join(threads);
    assert_eq!(rig.outbox.take_resume(), paused);
    assert_eq!(*rig.calls.0.lock() > 0, paused);
    assert!(!rig.outbox.tally.must_pause());
    assert_eq!(rig.outbox.handed_over(), 0);
}

/// Whoever sees that nothing is handed over sees all of it delivered.
pub fn nothing_handed_over_means_delivered() {
    let rig = Rig::roomy(false);
    let delivered = Arc::new(AtomicUsize::new(0));
    let threads = (0..2)
        .map(|_| {
            let handover = Handover::new(&rig.session, &rig.outbox, 10);
            let delivered = delivered.clone();
            thread::spawn(move || {
                delivered.fetch_add(1, Ordering::Relaxed);
                handover.finish(Lost::default());
            })
        })
        .collect();
    if rig.outbox.handed_over() == 0 {
        assert_eq!(delivered.load(Ordering::Relaxed), 2);
    }
    join(threads);
}

/// A wrong I/O thread: it forgets the wake-up only when it has looked at the queue.
pub fn acknowledging_late_leaves_something_unsent() {
    left_unsent(false, 2, 1, |rig| {
        let call = || rig.outbox.signal();
        if let Some(mut desk) = rig.outbox.writing(&call) {
            rig.outbox.take(usize::MAX, &mut desk.batch);
            if let Ok(Some(bytes)) = desk.write() {
                let payload = desk.batch.advance(bytes);
                rig.outbox.written(payload);
            }
        }
        rig.outbox.acknowledge();
        Next::Wait
    });
}
