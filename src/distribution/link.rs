//! The link with one stock node: what waits to be sent, and the two tasks that serve the socket.
//!
//! Messages wait for room in a budget of bytes, first come, first served; signals of links,
//! monitors and exits don't wait, because whoever causes them can't. What has been admitted is
//! encoded when its turn comes, in the order of the wire, as the atom cache demands.
//!
//! **Life.** A node that has nothing to say sends an empty packet every quarter of `tick_time`.
//! One of which nothing was heard for four quarters in a row is taken to be dead, so that a silent peer
//! is noticed after 0.75 to 1.25 times that time (`net_kernel`, `net_ticktime`). While this node
//! itself does not read, bytes that wait in the socket count as life.
//!
//! **Its end.** When this node stops, a link is drained: it takes nothing more, writes what it has, and closes its
//! sending side; the peer reads all of that and then closes its own. Until it has done so the link goes on reading,
//! and drops what it reads: a socket that is closed with unread bytes is reset, and what the peer has not yet read
//! would be lost.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, TryAcquireError};
use tokio::time::MissedTickBehavior;

use crate::distribution::batch::{Batch, Letter, Rest, Scribe};
use crate::distribution::lanes::{Lanes, Next};
use crate::limits;
use crate::wire::dist::{Chunks, Decoder, DistLimits, Encoder, EncoderConfig, Signal};
use crate::wire::flags::Flags;
use crate::wire::identity::Identity;

/// Ticks in a `tick_time`.
const TICKS: u32 = 4;

/// Bytes gathered for one write.
const WRITE_BYTES: usize = 256 << 10;

/// Room for one read.
const READ_BYTES: usize = 64 << 10;

/// Why a link has ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The peer has closed the connection.
    #[error("the peer has closed the connection")]
    Closed,
    /// Nothing was heard of the peer for `tick_time`.
    #[error("nothing was heard of the peer for the tick time")]
    Silent,
    /// The system has closed the connection.
    #[error("the connection has broken: {0}")]
    Broken(String),
    /// The peer has sent what nobody may send, or over a limit.
    #[error("the peer has broken the protocol: {0}")]
    Protocol(String),
    /// This node has ended it.
    #[error("{0}")]
    Local(&'static str),
}

/// This node stops.
pub(crate) const NODE_STOPS: LinkError = LinkError::Local("this node has stopped");

/// What a queue does with letters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Intake {
    /// It takes them.
    Open,
    /// It takes none; those that it has are still sent.
    Draining,
    /// It takes none and has none.
    Closed,
}

struct Queue {
    lanes: Lanes<Batch, Rest>,
    /// Bytes of signals that did not wait for room.
    unasked: usize,
    /// The writer has found nothing to send, and waits to be told of what comes.
    idle: bool,
    intake: Intake,
}

/// A link that is up, as senders see it.
pub(crate) struct Link {
    /// Tells links apart.
    pub(crate) number: u64,
    /// The peer's name.
    pub(crate) name: Arc<str>,
    /// The peer's creation.
    pub(crate) creation: u32,
    /// What both ends offer.
    pub(crate) flags: Flags,
    queue: Mutex<Queue>,
    own: Identity,
    room: Semaphore,
    budget: usize,
    work: Notify,
    /// Told when a mailbox that this link's messages wait for has room again.
    pub(crate) relief: Arc<Notify>,
    stop: Notify,
    stopped: Mutex<Option<LinkError>>,
    stopping: AtomicBool,
    draining: AtomicBool,
}

/// What came of an attempt to send.
pub(crate) enum Pushed {
    Queued,
    /// There is no room.
    Full,
    /// The link has ended.
    Closed,
}

impl Link {
    pub(crate) fn new(
        number: u64,
        own: Identity,
        name: Arc<str>,
        creation: u32,
        flags: Flags,
        budget: usize,
    ) -> Self {
        let budget = budget.clamp(1, u32::MAX as usize);
        Self {
            number,
            name,
            creation,
            flags,
            queue: Mutex::new(Queue {
                lanes: Lanes::default(),
                unasked: 0,
                idle: false,
                intake: Intake::Open,
            }),
            own,
            room: Semaphore::new(budget),
            budget,
            work: Notify::new(),
            relief: Arc::new(Notify::new()),
            stop: Notify::new(),
            stopped: Mutex::new(None),
            stopping: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        }
    }

    /// Bytes that wait to be sent.
    pub(crate) fn queued(&self) -> u64 {
        (self.budget - self.room.available_permits().min(self.budget)) as u64
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.stopping.load(Ordering::Acquire)
    }

    /// A message larger than the budget waits for all of it.
    fn cost(&self, letter: &Letter<'_>) -> u32 {
        letter.bytes().min(self.budget) as u32
    }

    /// Sends a message if there is room now.
    pub(crate) fn try_send(&self, lane: u64, letter: Letter<'_>) -> Pushed {
        let cost = self.cost(&letter);
        match self.room.try_acquire_many(cost) {
            Ok(permit) => self.push(lane, letter, Some((permit, cost))),
            Err(TryAcquireError::NoPermits) => Pushed::Full,
            Err(TryAcquireError::Closed) => Pushed::Closed,
        }
    }

    /// Sends a message, waiting for room. Dropped before it is ready, it has sent nothing.
    pub(crate) async fn send(&self, lane: u64, letter: Letter<'_>) -> Pushed {
        let cost = self.cost(&letter);
        match self.room.acquire_many(cost).await {
            Ok(permit) => self.push(lane, letter, Some((permit, cost))),
            Err(_) => Pushed::Closed,
        }
    }

    /// Sends a signal that can't wait. A peer that reads nothing while these pile up is given up.
    pub(crate) fn signal(&self, lane: u64, signal: Signal) {
        let _ = self.push(lane, Letter::Signal(Box::new(signal)), None);
    }

    fn push(
        &self,
        lane: u64,
        letter: Letter<'_>,
        room: Option<(SemaphorePermit<'_>, u32)>,
    ) -> Pushed {
        let bytes = letter.bytes();
        let mut queue = self.queue.lock();
        if queue.intake != Intake::Open {
            return Pushed::Closed;
        }
        if room.is_none() {
            queue.unasked += bytes;
            if queue.unasked > limits::MAX_UNASKED_BYTES {
                drop(queue);
                self.stop(LinkError::Local(
                    "too many signals wait for the peer to read",
                ));
                return Pushed::Closed;
            }
        }
        let room = room.map(|(permit, room)| {
            // The writer gives it back.
            permit.forget();
            room
        });
        queue.lanes.push(lane, bytes).push(letter, room);
        let idle = std::mem::take(&mut queue.idle);
        drop(queue);
        if idle {
            self.work.notify_one();
        }
        Pushed::Queued
    }

    /// Ends the link; the first reason counts. The reader delivers what it has read, and then
    /// everybody is told.
    pub(crate) fn stop(&self, why: LinkError) {
        let mut stopped = self.stopped.lock();
        if stopped.is_none() {
            *stopped = Some(why);
            drop(stopped);
            self.stopping.store(true, Ordering::Release);
            self.close();
            self.stop.notify_waiters();
            self.work.notify_one();
        }
    }

    /// Ends the link when all that was sent so far has left and the peer has closed, because this node stops.
    pub(crate) fn drain(&self) {
        self.room.close();
        self.draining.store(true, Ordering::Release);
        let mut queue = self.queue.lock();
        if queue.intake == Intake::Open {
            queue.intake = Intake::Draining;
        }
        drop(queue);
        self.work.notify_one();
        // A reader that pauses for a full mailbox has to look again.
        self.relief.notify_one();
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Nothing more is sent; who waits for room is told.
    fn close(&self) {
        self.room.close();
        let mut queue = self.queue.lock();
        queue.intake = Intake::Closed;
        let lanes = std::mem::take(&mut queue.lanes);
        drop(queue);
        drop(lanes);
    }

    async fn stopped(&self) {
        let notified = self.stop.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        if self.is_open() {
            notified.await;
        }
    }

    /// Why it has ended.
    pub(crate) fn reason(&self) -> LinkError {
        self.stopped.lock().clone().unwrap_or(LinkError::Closed)
    }
}

/// What becomes of that which a link brings. One value per link.
pub(crate) trait Inbound: Send + 'static {
    /// Takes in a signal, in the order of the wire. What can't be delivered now is kept.
    ///
    /// # Errors
    /// What is wrong with it. The link ends.
    fn deliver(&mut self, signal: Signal) -> Result<(), String>;

    /// Tries again to deliver what is kept.
    fn relieve(&mut self);

    /// True if so much is kept that nothing more should be read.
    fn is_full(&self) -> bool;

    /// True if nothing is kept.
    fn is_clear(&self) -> bool;

    /// Delivers all that is kept, whether there is room or not: the link has ended.
    fn finish(&mut self);
}

/// How a link is served.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Silence after which a peer is taken to be dead (`net_ticktime`).
    pub(crate) tick_time: Duration,
    /// What the peer may send.
    pub(crate) limits: DistLimits,
}

/// Serves a link until it ends. Returns when all that it has brought is delivered.
pub(crate) async fn serve<S, I>(link: Arc<Link>, stream: S, config: Config, mut inbound: I)
where
    S: AsyncRead + AsyncWrite + AsFd + Send + 'static,
    I: Inbound,
{
    // To ask for unread bytes while the stream itself is in use.
    let socket = stream.as_fd().try_clone_to_owned().ok();
    let (reader, writer) = tokio::io::split(stream);
    let writing = {
        let link = link.clone();
        let period = config.tick_time / TICKS;
        tokio::spawn(async move {
            if let Err(e) = write(&link, writer, period).await {
                link.stop(e);
            }
        })
    };
    let why = read(&link, reader, socket, &config, &mut inbound).await;
    link.stop(if link.is_draining() { NODE_STOPS } else { why });
    inbound.finish();
    drop(inbound);
    // It may be stuck in a write to a peer that does not read.
    writing.abort();
    let _ = writing.await;
}

fn broken(e: io::Error) -> LinkError {
    match e.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => LinkError::Closed,
        _ => LinkError::Broken(e.to_string()),
    }
}

/// Takes what waits and writes it; ticks when there is nothing. Returns when the link has ended or is drained.
async fn write<S>(link: &Link, mut writer: WriteHalf<S>, period: Duration) -> Result<(), LinkError>
where
    S: AsyncRead + AsyncWrite,
{
    let encoder = Encoder::new(link.flags, EncoderConfig::default());
    let mut scribe = Scribe::new(encoder, &link.own, link.name.clone());
    let mut chunks = Chunks::new();
    let mut last = Instant::now();
    loop {
        let drained = gather(link, &mut scribe, &mut chunks);
        if !link.is_open() {
            return Ok(());
        }
        if !chunks.is_empty() {
            writer.write_all_buf(&mut chunks).await.map_err(broken)?;
            // TLS gathers records of its own.
            writer.flush().await.map_err(broken)?;
            last = Instant::now();
            if !drained {
                continue;
            }
        }
        if drained {
            return writer.shutdown().await.map_err(broken);
        }
        let due = (last + period).saturating_duration_since(Instant::now());
        tokio::select! {
            () = link.work.notified() => {}
            () = tokio::time::sleep(due) => chunks.put_slice(&[0; 4]),
        }
    }
}

/// Encodes what waits, up to the size of one write. The queue is locked for moments only. True if nothing more will come.
fn gather(link: &Link, scribe: &mut Scribe, chunks: &mut Chunks) -> bool {
    let mut freed = 0;
    let mut queue = link.queue.lock();
    loop {
        if chunks.remaining() >= WRITE_BYTES {
            break;
        }
        let Some(mut next) = queue.lanes.next() else {
            queue.idle = true;
            break;
        };
        if let Next::Turn(_, batch) = &mut next {
            queue.unasked = queue
                .unasked
                .saturating_sub(std::mem::take(&mut batch.unasked));
        }
        drop(queue);
        match next {
            Next::Turn(lane, mut batch) => {
                let rest = scribe.write(&mut batch, lane, chunks, &mut freed, |error| {
                    // The peer does not know such signals, or it can't be written at all.
                    tracing::debug!(peer = %link.name, %error, "signal not sent");
                });
                let unsent = !batch.is_empty();
                if !unsent {
                    batch.clear();
                }
                queue = link.queue.lock();
                match rest {
                    Some(rest) if queue.intake != Intake::Closed => {
                        queue.lanes.put_back(lane, rest, unsent.then_some(batch));
                    }
                    _ => queue.lanes.recycle(batch),
                }
            }
            Next::Fragment(lane, mut rest) => {
                let more = rest.fragments.next(chunks);
                freed += if more { 0 } else { rest.room as usize };
                queue = link.queue.lock();
                if more && queue.intake != Intake::Closed {
                    queue.lanes.put_back(lane, rest, None);
                }
            }
        }
    }
    let drained = queue.idle && queue.intake == Intake::Draining;
    drop(queue);
    link.room.add_permits(freed);
    drained
}

async fn read<S, I>(
    link: &Link,
    mut reader: ReadHalf<S>,
    socket: Option<OwnedFd>,
    config: &Config,
    inbound: &mut I,
) -> LinkError
where
    S: AsyncRead + AsyncWrite,
    I: Inbound,
{
    let mut decoder = Decoder::new(link.flags, config.limits);
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    let mut ticks = tokio::time::interval(config.tick_time / TICKS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    let (mut heard, mut silent) = (false, 0);
    let stopped = link.stopped();
    tokio::pin!(stopped);
    loop {
        let draining = link.is_draining();
        let full = inbound.is_full() && !draining;
        tokio::select! {
            biased;
            () = &mut stopped => return link.reason(),
            _ = ticks.tick() => {
                let life = heard || (full && unread(socket.as_ref()));
                silent = if life { 0 } else { silent + 1 };
                heard = false;
                if silent >= TICKS {
                    return LinkError::Silent;
                }
            }
            () = link.relief.notified(), if !inbound.is_clear() => inbound.relieve(),
            outcome = reader.read_buf(&mut buffer), if !full => {
                match outcome {
                    Ok(0) => return LinkError::Closed,
                    Ok(_) => heard = true,
                    Err(e) => return broken(e),
                }
            }
        }
        if draining {
            buffer.clear();
            continue;
        }
        if inbound.is_full() {
            continue;
        }
        if let Err(e) = take_packets(&mut buffer, &mut decoder, config, inbound) {
            return e;
        }
    }
}

/// Unread bytes are a sign of life of whoever has sent them.
fn unread(socket: Option<&OwnedFd>) -> bool {
    socket.is_some_and(|fd| rustix::io::ioctl_fionread(fd).is_ok_and(|bytes| bytes > 0))
}

/// Delivers the whole packets of the buffer, and makes room for what is missing of the next.
fn take_packets<I: Inbound>(
    buffer: &mut BytesMut,
    decoder: &mut Decoder,
    config: &Config,
    inbound: &mut I,
) -> Result<(), LinkError> {
    while let Some(length) = buffer.first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        if length as u64 > config.limits.message_bytes + config.limits.term.bytes as u64 {
            let what = format!("a packet of {length} bytes is over the limit");
            return Err(LinkError::Protocol(what));
        }
        if buffer.len() < 4 + length {
            // What has arrived earns as much again; a claim alone earns one read.
            let missing = 4 + length - buffer.len();
            buffer.reserve(missing.min(buffer.len().max(READ_BYTES)));
            return Ok(());
        }
        buffer.advance(4);
        let packet = buffer.split_to(length).freeze();
        let signal = decoder.packet(packet);
        if let Some(signal) = signal.map_err(|e| LinkError::Protocol(e.to_string()))? {
            inbound.deliver(signal).map_err(LinkError::Protocol)?;
            if inbound.is_full() {
                break;
            }
        }
    }
    buffer.reserve(READ_BYTES / 4);
    Ok(())
}
