//! Where senders meet the I/O thread of a connection.
//!
//! Any thread may send: it locks the queue for the time of an append and wakes the I/O thread
//! unless a wake-up is already under way. Nothing is written under the lock. A sender that is not
//! admitted may leave a [`Waiter`], which is woken when its bytes have been reserved.

use std::net::TcpStream;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;

use crate::channel::{Admission, Batch, Ceiling, Config, Queue, Ticket};
use crate::connection::bundle::Bundle;
use crate::connection::handover::Tally;
use crate::connection::sync::{
    AtomicBool, AtomicU64, AtomicUsize, Instant, Mutex, MutexGuard, Ordering,
};
use crate::connection::writer::{Writer, Writing};
use crate::limits;
use crate::wire::frame::{self, Dest, Head, Question};

/// Most bytes that a sender writes on its own thread: about 30 µs on loopback.
const DIRECT_BYTES: u64 = limits::FRAGMENT_SHARED_BYTES as u64 + 1024;

/// A connection that has more than this queued has enough to do without messages of others.
const LIGHT_BYTES: u64 = limits::FRAGMENT_SHARED_BYTES as u64;

/// How long senders leave the writing to the I/O thread after it found several messages at once.
const CROWDED: Duration = Duration::from_micros(500);

/// Why a waiting sender is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Room is reserved: send again with [`Pressure::Granted`].
    Granted,
    /// The session has ended; nothing was sent.
    Disconnected,
    /// The node is stopping; nothing was sent.
    NotAlive,
}

/// A sender that waits for room.
pub trait Waiter: Send + Sync {
    /// Called once, on an I/O thread or the control plane and never on the sender's own thread,
    /// with no lock held.
    fn wake(&self, why: Wake);
}

/// What to do when the queue has no room.
pub enum Pressure {
    /// Refuse the message.
    Refuse,
    /// Remember the waiter.
    Wait(Arc<dyn Waiter>),
    /// There is room: a waiter was granted it.
    Granted(Ticket),
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is queued.
    Queued,
    /// There was no room, and the message was not taken.
    Full,
    /// There was no room; the waiter is registered under the ticket. The message was not taken.
    Waiting(Ticket),
    /// The session has ended. The message was not taken.
    Closed,
    /// The destination's name is too long for a frame. The message was not taken.
    Invalid,
}

/// A message to be sent, encoded.
pub enum Outgoing<'a> {
    /// A term without out-of-band binaries, of at most [`limits::FRAGMENT_SHARED_BYTES`].
    Small {
        /// Receiver.
        dest: Dest<'a>,
        /// Encoded term.
        term: &'a [u8],
    },
    /// Any other message.
    Large {
        /// Receiver.
        dest: Dest<'a>,
        /// Encoded term; elided if there are blobs.
        term: Bytes,
        /// True if binaries of the term are out of band.
        elided: bool,
        /// The out-of-band binaries in order.
        blobs: Vec<Bytes>,
    },
}

impl<'a> Outgoing<'a> {
    /// Bytes that the message takes in a queue.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Small { dest, term } => {
                (frame::HEADER + head(*dest, false).encoded_len() + term.len()) as u64
            }
            Self::Large {
                dest,
                term,
                elided,
                blobs,
            } => {
                let table = if *elided { 4 } else { 0 };
                (head(*dest, *elided).encoded_len() + table + term.len()) as u64
                    + blobs.iter().map(|b| b.len() as u64).sum::<u64>()
            }
        }
    }

    /// The same if it travels as a whole frame.
    pub(super) fn frame_bytes(&self) -> Option<u64> {
        matches!(self, Self::Small { .. }).then(|| self.bytes())
    }

    /// Chooses the form for a term that lies in memory as a whole.
    pub fn of(dest: Dest<'a>, term: &'a Bytes, blobs: &[Bytes], elided: bool) -> Self {
        if !elided && term.len() <= limits::FRAGMENT_SHARED_BYTES {
            Self::Small { dest, term }
        } else {
            Self::Large {
                dest,
                term: term.clone(),
                elided,
                blobs: blobs.to_vec(),
            }
        }
    }
}

fn head(dest: Dest<'_>, elided: bool) -> Head<'_> {
    Head { dest, elided }
}

/// Wakes the I/O thread that serves a connection.
pub trait Waker: Send + Sync {
    /// Asks thread `thread` to look at connection `connection`.
    fn wake(&self, thread: usize, connection: u64);
}

/// The outboxes of a node that may have waiters because of the node's ceiling.
#[derive(Default)]
pub struct Starved(Mutex<Vec<Weak<Outbox>>>);

impl Starved {
    fn add(&self, outbox: &Arc<Outbox>) {
        let mut list = self.0.lock();
        if !list
            .iter()
            .any(|o| std::ptr::eq(o.as_ptr(), Arc::as_ptr(outbox)))
        {
            list.push(Arc::downgrade(outbox));
        }
    }

    fn kick(&self) {
        let list = std::mem::take(&mut *self.0.lock());
        for outbox in list.iter().filter_map(Weak::upgrade) {
            outbox.signal();
        }
    }
}

/// What all outboxes of a node share.
pub struct Shared {
    /// Bytes queued over all connections.
    pub ceiling: Ceiling,
    /// A sender that finds a connection idle for this long writes on its own thread; `None`: never.
    pub direct_write: Option<Duration>,
    /// Queues waiting for the ceiling.
    pub starved: Starved,
    /// The I/O threads.
    pub waker: Box<dyn Waker>,
}

/// What [`Outbox::take`] tells.
pub(crate) struct Taken {
    /// Nothing else is queued.
    pub(crate) all: bool,
    /// Small messages queued since the last call.
    pub(crate) small: u32,
    /// How often a sender had nothing queued when one of them came.
    pub(crate) lanes: u32,
}

/// What [`Outbox::push`] has done.
pub(super) enum Pushed {
    /// The message is queued, unless it is not `valid`.
    Queued {
        /// It could be encoded.
        valid: bool,
        /// Starved outboxes have to look again.
        starved: bool,
        /// It may be written at once.
        directly: bool,
        /// It is the node's own.
        own: bool,
    },
    /// The sender waits, if the queue isn't closed.
    Waits {
        /// What to tell it.
        sent: Sent,
        /// The node's ceiling had room.
        open: bool,
    },
    /// Nothing.
    Not(Sent),
}

/// Sender ids from here on are the node's own.
const OWN_SENDERS: u64 = u64::MAX - 15;

/// The sending half of one connection.
pub struct Outbox {
    id: u64,
    queue: Mutex<Queue<Arc<dyn Waiter>>>,
    monotonic: bool,
    /// Where small messages go, if that is another connection.
    bundle: Option<Bundle>,
    /// Large messages are under way, or were a moment ago.
    bulk: AtomicBool,
    /// A message of a user has come or gone since this was last looked at.
    used: AtomicBool,
    closed: AtomicBool,
    signaled: AtomicBool,
    resume: AtomicBool,
    thread: AtomicUsize,
    pub(crate) tally: Tally,
    writer: Writer,
    /// A stream of small messages: they are better written many at a time.
    streaming: AtomicBool,
    /// When a message last found the connection idle, in nanoseconds since `born`.
    idle_push: AtomicU64,
    /// When the I/O thread last found several messages, likewise.
    crowded: AtomicU64,
    born: Instant,
    shared: Arc<Shared>,
}

impl Outbox {
    /// The outbox of connection `id`.
    pub fn new(id: u64, monotonic: bool, config: Config, shared: Arc<Shared>) -> Self {
        Self {
            id,
            queue: Mutex::new(Queue::new(config)),
            monotonic,
            bundle: None,
            bulk: AtomicBool::new(false),
            used: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            signaled: AtomicBool::new(false),
            resume: AtomicBool::new(false),
            thread: AtomicUsize::new(0),
            tally: Tally::default(),
            writer: Writer::default(),
            streaming: AtomicBool::new(false),
            idle_push: AtomicU64::new(0),
            crowded: AtomicU64::new(0),
            born: Instant::now(),
            shared,
        }
    }

    /// The same as a branch of `trunk`: messages of up to `most` bytes go by that while it has little to do. The branch is number
    /// `index` in its session. Neither is of a monotonic channel.
    pub fn branch_of(self, trunk: Arc<Outbox>, index: u16, most: u64) -> Self {
        Self {
            bundle: Some(Bundle::new(trunk, index, most)),
            ..self
        }
    }

    /// The connection's number, unique in the node.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Bytes queued and not yet written to the socket.
    pub fn queued(&self) -> u64 {
        self.queue.lock().queued()
    }

    /// Bytes of received messages that another thread is delivering.
    pub fn handed_over(&self) -> u64 {
        self.tally.bytes()
    }

    /// Queues a message of `sender`, or does what `pressure` says.
    pub fn send(self: &Arc<Self>, sender: u64, message: Outgoing<'_>, pressure: Pressure) -> Sent {
        match &self.bundle {
            Some(bundle) => bundle.send(self, sender, message, pressure),
            None => {
                let pushed = self.push(sender, message, pressure, |_| None);
                self.pushed(pushed)
            }
        }
    }

    /// The part of [`send`](Self::send) under a lock: [`pushed`](Self::pushed) has to follow. `follow` is told whether
    /// the queue was idle, and may have a question put behind the message.
    pub(super) fn push(
        &self,
        sender: u64,
        message: Outgoing<'_>,
        pressure: Pressure,
        follow: impl FnOnce(bool) -> Option<Question>,
    ) -> Pushed {
        self.push_into(self.queue.lock(), sender, message, pressure, follow)
    }

    fn push_into(
        &self,
        mut queue: MutexGuard<'_, Queue<Arc<dyn Waiter>>>,
        sender: u64,
        message: Outgoing<'_>,
        pressure: Pressure,
        follow: impl FnOnce(bool) -> Option<Question>,
    ) -> Pushed {
        let mut reserved = 0;
        match pressure {
            Pressure::Granted(ticket) => match queue.redeem(ticket) {
                Some(bytes) => reserved = bytes,
                None => return Pushed::Not(Sent::Closed),
            },
            Pressure::Refuse | Pressure::Wait(_) => {
                let open = self.shared.ceiling.has_room();
                match (queue.admit(sender, message.frame_bytes(), open), pressure) {
                    (Admission::Admitted, _) => {}
                    (Admission::Closed, _) => return Pushed::Not(Sent::Closed),
                    (Admission::Wait, Pressure::Wait(waiter)) => {
                        let waiting = queue.wait(sender, message.bytes(), waiter);
                        let sent = waiting.map_or(Sent::Closed, Sent::Waiting);
                        return Pushed::Waits { sent, open };
                    }
                    (Admission::Wait, _) => return Pushed::Not(Sent::Full),
                }
            }
        }
        let question = follow(queue.is_idle());
        let before = queue.queued();
        let valid = self.append(&mut queue, sender, message);
        if let Some(question) = question {
            queue.push_frame(sender, |out| out.extend_from_slice(&frame::ask(question)));
        }
        let after = queue.queued();
        Pushed::Queued {
            valid,
            // While the queue is locked: else the bytes could be written, and leave the account,
            // before they have entered it.
            starved: self.account(before, after, reserved),
            directly: before == 0 && after <= DIRECT_BYTES && !queue.is_held(),
            own: sender >= OWN_SENDERS,
        }
    }

    /// False if the message can't be encoded.
    fn append(
        &self,
        queue: &mut Queue<Arc<dyn Waiter>>,
        sender: u64,
        message: Outgoing<'_>,
    ) -> bool {
        match message {
            Outgoing::Small { dest, term } if self.monotonic => {
                let mut frame = Vec::with_capacity(term.len() + 64);
                let put = frame::put_message(&mut frame, dest, term);
                if put.is_ok() {
                    queue.push_latest(sender, key_of(dest), frame);
                }
                put.is_ok()
            }
            Outgoing::Small { dest, term } => {
                let mut put = Ok(());
                queue.push_frame(sender, |out| put = frame::put_message(out, dest, term));
                put.is_ok()
            }
            Outgoing::Large {
                dest,
                term,
                elided,
                blobs,
            } => {
                let mut start = Vec::with_capacity(300);
                let put = head(dest, elided).encode(&mut start);
                if put.is_ok() {
                    if elided {
                        start.extend_from_slice(&(term.len() as u32).to_be_bytes());
                    }
                    let mut parts = Vec::with_capacity(blobs.len() + 2);
                    parts.push(Bytes::from(start));
                    parts.push(term);
                    parts.extend(blobs);
                    queue.push_message(sender, parts);
                }
                put.is_ok()
            }
        }
    }

    /// The part of [`send`](Self::send) without a lock: wakes and writes.
    pub(super) fn pushed(self: &Arc<Self>, pushed: Pushed) -> Sent {
        let (valid, starved, directly, own) = match pushed {
            Pushed::Queued {
                valid,
                starved,
                directly,
                own,
            } => (valid, starved, directly, own),
            Pushed::Waits { sent, open } => {
                if !open {
                    self.shared.starved.add(self);
                }
                // Nothing else may come by to look after a waiter of an idle queue.
                self.signal();
                return sent;
            }
            Pushed::Not(sent) => return sent,
        };
        if starved {
            self.shared.starved.kick();
        }
        if !valid {
            return Sent::Invalid;
        }
        if !own {
            self.set_used();
        }
        if directly && self.is_idle() && self.write_now() {
            return Sent::Queued;
        }
        // The load spares a stream of messages the locked write. The I/O thread clears the flag before
        // it locks the queue; so whoever finds the flag set after a push either pushed before that
        // lock, or has another sender's wake-up under way.
        if !self.signaled.load(Ordering::Acquire) {
            self.signal();
        }
        Sent::Queued
    }

    /// True if nothing was sent for a while: then writing at once beats waking the I/O thread.
    fn is_idle(&self) -> bool {
        let Some(gap) = self.shared.direct_write else {
            return false;
        };
        if self.streaming.load(Ordering::Relaxed) || self.signaled.load(Ordering::Relaxed) {
            return false;
        }
        let now = self.now();
        let last = self.idle_push.swap(now, Ordering::Relaxed);
        let crowded = self.crowded.load(Ordering::Relaxed);
        let quiet = crowded == 0 || now.saturating_sub(crowded) > CROWDED.as_nanos() as u64;
        quiet && now.saturating_sub(last) >= gap.as_nanos() as u64
    }

    /// Nanoseconds since the connection was made.
    fn now(&self) -> u64 {
        self.age().as_nanos() as u64
    }

    /// Time since the connection was made.
    pub(super) fn age(&self) -> Duration {
        self.born.elapsed()
    }

    // What follows is for the bundle.

    /// The queue, locked.
    pub(super) fn queue(&self) -> MutexGuard<'_, Queue<Arc<dyn Waiter>>> {
        self.queue.lock()
    }

    /// Like [`push`](Self::push) for a small message of a branch; [`Sent::Full`] unless the connection has little to do.
    pub(super) fn push_light(&self, lane: u64, message: Outgoing<'_>) -> Pushed {
        if self.bulk.load(Ordering::Relaxed) {
            return Pushed::Not(Sent::Full);
        }
        let queue = self.queue.lock();
        match queue.queued() > LIGHT_BYTES {
            true => Pushed::Not(Sent::Full),
            false => self.push_into(queue, lane, message, Pressure::Refuse, |_| None),
        }
    }

    /// Queues a branch's question; false if the queue is closed. The caller signals.
    pub(super) fn push_question(&self, lane: u64, question: Question) -> bool {
        let mut queue = self.queue.lock();
        let ask = frame::ask(question);
        let pushed = queue.push_frame(lane, |out| out.extend_from_slice(&ask)) as u64;
        self.shared.ceiling.add(pushed);
        pushed > 0
    }

    /// The peer has delivered what was in front of question `number`.
    pub(crate) fn answered(&self, number: u32) {
        if let Some(bundle) = &self.bundle {
            bundle.answered(self, number);
        }
    }

    /// Its trunk, if it is `trunk`, is about to end.
    pub(crate) fn recall(&self, trunk: &Arc<Self>) {
        if let Some(bundle) = &self.bundle {
            bundle.recall(self, trunk);
        }
    }

    /// Answers a question of the peer. False if it asks more than it may.
    pub(crate) fn answer(&self, question: Question) -> bool {
        let accepted = self.queue.lock().push_answer(&frame::done(question));
        self.signal();
        accepted
    }

    /// Writes what is queued on the sender's thread. False if the I/O thread has to see to the rest.
    fn write_now(&self) -> bool {
        let call = || self.signal();
        let Some(mut desk) = self.writer.try_write(&call) else {
            return false;
        };
        if !desk.batch.is_empty() {
            return false;
        }
        let taken = self.take(DIRECT_BYTES as usize, &mut desk.batch);
        let Ok(Some(bytes)) = desk.write() else {
            // The I/O thread meets the same outcome and knows what to do.
            return false;
        };
        let payload = desk.batch.advance(bytes);
        let done = desk.batch.is_empty() && taken.all;
        drop(desk);
        let waiters = {
            let mut queue = self.queue.lock();
            let left = queue.written(payload);
            let waiters = queue.has_waiters();
            drop(queue);
            self.release(left);
            waiters
        };
        done && !waiters
    }

    /// The connection serves a user. The load spares a shared cache line the write.
    pub(crate) fn set_used(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it has since the last call.
    pub(crate) fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// Gives a ticket back: the waiter is forgotten, or the room that it was granted is freed.
    pub fn cancel(self: &Arc<Self>, ticket: Ticket) {
        let cancelled = self.queue.lock().cancel(ticket);
        if let Some(cancelled) = cancelled {
            self.release(cancelled.released);
            // Even a waiter that had no grant may have stood before others.
            self.signal();
        }
    }

    /// Queues a control frame, which overtakes messages.
    pub fn send_urgent(&self, frame: &[u8]) {
        if !self.closed.load(Ordering::Relaxed) {
            self.queue.lock().push_urgent(frame);
            self.signal();
        }
    }

    /// Tells the connection that a mailbox has room again.
    pub fn resume(&self) {
        self.resume.store(true, Ordering::Release);
        self.signal();
    }

    /// Ends the queue: what is queued is dropped and every waiter is woken with `why`.
    pub fn close(&self, why: Wake) {
        if self.closed.swap(true, Ordering::Relaxed) {
            return;
        }
        let closed = self.queue.lock().close();
        self.writer.close();
        self.release(closed.released);
        for waiter in closed.waiters {
            waiter.wake(why);
        }
    }

    /// Ends the queue with this frame, if all that was queued has been written: nothing that was taken
    /// is lost, and later senders are refused.
    pub(crate) fn seal(&self, last: &[u8]) -> bool {
        let Some(closed) = self.queue.lock().seal(last) else {
            return false;
        };
        self.release(closed.released);
        for waiter in closed.waiters {
            waiter.wake(Wake::Disconnected);
        }
        true
    }

    /// True after [`Outbox::close`].
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Wakes the I/O thread unless a wake-up is under way.
    pub fn signal(&self) {
        if !self.signaled.swap(true, Ordering::AcqRel) {
            self.shared
                .waker
                .wake(self.thread.load(Ordering::Acquire), self.id);
        }
    }

    /// Puts what a push has changed on the node's account, in place of what was reserved for it.
    /// True if starved outboxes have to look again.
    fn account(&self, before: u64, after: u64, reserved: u64) -> bool {
        let (pushed, removed) = (after.saturating_sub(before), before.saturating_sub(after));
        self.shared.ceiling.settle(reserved + removed, pushed)
    }

    fn release(&self, bytes: u64) {
        if bytes > 0 && self.shared.ceiling.sub(bytes) {
            self.shared.starved.kick();
        }
    }

    // What follows is called by the I/O thread that owns the connection.

    /// Grants room to as many waiters as fit.
    pub(crate) fn grant(self: &Arc<Self>) {
        let mut granted = Vec::new();
        let starving = {
            let mut queue = self.queue.lock();
            if !queue.has_waiters() {
                return;
            }
            queue.grant(&self.shared.ceiling, &mut granted);
            queue.has_waiters() && !self.shared.ceiling.has_room()
        };
        if starving {
            self.shared.starved.add(self);
            if self.shared.ceiling.has_room() {
                // Room came between the grant and the entry in the list.
                self.signal();
            }
        }
        for (_, waiter) in granted {
            waiter.wake(Wake::Granted);
        }
    }

    /// The socket to write to.
    pub(crate) fn attach(&self, socket: Arc<TcpStream>) {
        self.writer.attach(socket);
    }

    /// The right to write; `None` if a sender has it, which wakes this thread when it is done.
    pub(crate) fn writing<'a>(&'a self, call: &'a dyn Fn()) -> Option<Writing<'a>> {
        self.writer.write_or_be_called(call)
    }

    /// Several messages were there at once: while that lasts, one write for all is better.
    pub(crate) fn set_crowded(&self) {
        self.crowded.store(self.now(), Ordering::Relaxed);
    }

    /// Large messages are under way, or were a moment ago.
    pub(crate) fn set_bulk(&self, bulk: bool) {
        if self.bulk.load(Ordering::Relaxed) != bulk {
            self.bulk.store(bulk, Ordering::Relaxed);
        }
    }

    /// Whether a stream of small messages goes out, as the I/O thread sees it.
    pub(crate) fn set_streaming(&self, streaming: bool) {
        self.streaming.store(streaming, Ordering::Relaxed);
    }

    /// The connection is now served by `thread`.
    pub(crate) fn moved_to(&self, thread: usize) {
        self.thread.store(thread, Ordering::Release);
    }

    /// Forgets the wake-up that has brought the thread here, before it looks at the queue.
    pub(crate) fn acknowledge(&self) {
        // A swap, so that it sees what was done before the wake-up that it takes back.
        self.signaled.swap(false, Ordering::AcqRel);
    }

    /// True once after [`Outbox::resume`].
    pub(crate) fn take_resume(&self) -> bool {
        self.resume.swap(false, Ordering::AcqRel)
    }

    /// Takes what is to be written next.
    pub(crate) fn take(&self, max_bytes: usize, batch: &mut Batch) -> Taken {
        let mut queue = self.queue.lock();
        queue.take(max_bytes, batch);
        let (small, lanes) = queue.take_pushed();
        Taken {
            all: queue.is_empty(),
            small,
            lanes,
        }
    }

    /// `payload` bytes of what was taken have been written: they leave the account.
    pub(crate) fn written(&self, payload: u64) {
        let left = self.queue.lock().written(payload);
        self.release(left);
    }
}

/// Messages of a monotonic channel replace each other per destination.
fn key_of(dest: Dest<'_>) -> u64 {
    use std::hash::{Hash, Hasher};
    let mut hasher = std::hash::DefaultHasher::new();
    match dest {
        Dest::Name(name) => name.hash(&mut hasher),
        Dest::Pid {
            id,
            serial,
            creation,
        } => (id, serial, creation).hash(&mut hasher),
    }
    hasher.finish()
}
