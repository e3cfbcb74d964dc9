//! One connection on its I/O thread: reading, writing, signs of life.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::connection::host::{Host, Lost};
use crate::connection::io::Liveness;
use crate::connection::outbox::Outbox;
use crate::connection::receive::{Context, ReceiveLimits, Receiver, Turn};
use crate::connection::session::{CloseReason, Session};
use crate::limits;
use crate::wire::frame;

/// Bytes taken from the queue at once.
const TAKE_BYTES: usize = 512 << 10;

/// Bytes written, and bytes read, before other connections of the thread get their turn.
const TURN_BYTES: usize = 512 << 10;

/// How long a connection that has been shut down waits for the peer's end.
const GOODBYE: Duration = Duration::from_secs(1);

/// How long a session that is to end may take to write what is queued.
const FLUSH: Duration = Duration::from_secs(5);

/// A connection that sends at least this many messages in one turn, and few bytes with them, has a
/// stream of small messages, if its senders
const STREAM_MESSAGES: u32 = 16;

/// have queued this many each, on average.
const STREAM_RUN: u32 = 4;

/// What a connection wants after its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing until the socket or a sender calls.
    Wait,
    /// Another turn: it stopped only to let others have theirs.
    Again,
    /// Nothing, and that not too soon: it has a stream of small messages, and the more of them
    /// there are in one go the less each costs.
    Rest,
}

/// How far writing came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrote {
    /// Nothing is left.
    All,
    /// Something is left.
    Part,
    /// A sender is at it, and will call.
    Elsewhere,
}

/// A connection of an established session.
pub(crate) struct Link<H: Host> {
    pub(crate) session: Arc<Session>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) socket: Arc<TcpStream>,
    receiver: Receiver<H::Blob>,
    /// Small messages taken from the queue in this turn, and how many of them were the first that
    /// their sender had there.
    small: u32,
    lanes: u32,
    readable: bool,
    writable: bool,
    /// The poll has told of an end or an error that no read or write has met yet.
    hung_up: bool,
    heard: Instant,
    spoke: Instant,
    asked: u32,
    bulk_until: Option<Instant>,
    /// When the end of the session was first noticed here.
    draining: Option<Instant>,
    /// When the last byte was written.
    goodbye: Option<Instant>,
    /// Nothing more is sent.
    shut: bool,
    /// The peer sends nothing more, and why that is known.
    ended: Option<String>,
}

impl<H: Host> Link<H> {
    pub(crate) fn new(
        session: Arc<Session>,
        outbox: Arc<Outbox>,
        socket: Arc<TcpStream>,
        now: Instant,
    ) -> Self {
        Self {
            session,
            outbox,
            socket,
            receiver: Receiver::new(),
            small: 0,
            lanes: 0,
            readable: true,
            writable: true,
            hung_up: false,
            heard: now,
            spoke: now,
            asked: 0,
            bulk_until: None,
            draining: None,
            goodbye: None,
            shut: false,
            ended: None,
        }
    }

    pub(crate) fn ready(&mut self, readable: bool, writable: bool) {
        self.readable |= readable;
        self.writable |= writable;
    }

    /// The peer has closed or reset the connection. What it sent before can still be read.
    pub(crate) fn hung_up(&mut self) {
        self.ready(true, true);
        self.hung_up = true;
    }

    /// The connection has come to another thread, whose poll knows nothing of its state.
    pub(crate) fn arrived(&mut self) {
        self.ready(true, true);
    }

    pub(crate) fn is_bulk(&self) -> bool {
        self.bulk_until.is_some()
    }

    /// Messages that were dropped since the last call.
    pub(crate) fn take_lost(&mut self) -> Lost {
        let mut lost = self.outbox.tally.take_lost();
        lost.undelivered += std::mem::take(&mut self.receiver.undelivered);
        lost.undecodable += std::mem::take(&mut self.receiver.undecodable);
        lost
    }

    /// Writes what is queued and reads what has come.
    pub(crate) fn turn(
        &mut self,
        host: &H,
        thread: &mut H::Thread,
        scratch: &mut [u8],
        limits: &ReceiveLimits,
        now: Instant,
    ) -> Result<Next, CloseReason> {
        self.outbox.acknowledge();
        if !self.session.is_open() {
            return Err(CloseReason::Local("session closed"));
        }
        let resumed = self.outbox.take_resume();
        (self.small, self.lanes) = (0, 0);
        let wrote = self.write(now)?;
        let mut again = wrote == Wrote::Part && self.writable;
        let listens = self.ended.is_none();
        if listens && ((self.readable && !self.receiver.is_stalled()) || resumed) {
            let mut ctx = Context {
                host,
                thread,
                session: &self.session,
                outbox: &self.outbox,
                limits,
            };
            let read = self
                .receiver
                .turn(&self.socket, scratch, TURN_BYTES, &mut ctx);
            let (turn, bytes) = match read {
                // An orderly end has two halves: what is queued here still has to go.
                Err(CloseReason::Lost(why)) if self.session.is_draining() => {
                    self.ended = Some(why);
                    (Turn::More, 0)
                }
                read => read?,
            };
            if bytes > 0 {
                self.heard = now;
                self.asked = 0;
            }
            match turn {
                // The poll tells of the last bytes and of the end behind them at once, and not
                // again: a read that brought bytes has not met the end.
                Turn::Drained if std::mem::take(&mut self.hung_up) => again = true,
                Turn::Drained => self.readable = false,
                Turn::More => again = true,
                Turn::Stalled => {}
            }
        }
        if self.receiver.bulk {
            self.receiver.bulk = false;
            self.bulk_until = Some(now + limits::BULK_LINGER);
        }
        if wrote == Wrote::All && self.session.is_draining() && self.goodbye.is_none() {
            self.session.recall(&self.outbox);
            if self.outbox.seal(&self.session.goodbye()) {
                self.goodbye = Some(now);
            }
            again = true;
        }
        if self.shut
            && let Some(why) = self.ended.take()
        {
            return Err(CloseReason::Lost(why));
        }
        if self.small > 1 {
            self.outbox.set_crowded();
        }
        // Senders that wait for an answer to each message have one queued at a time.
        let streaming = self.small >= STREAM_MESSAGES
            && self.small >= STREAM_RUN * self.lanes
            && !self.is_bulk();
        self.outbox.set_streaming(streaming);
        self.outbox.set_bulk(self.is_bulk());
        Ok(match (again, streaming) {
            (true, _) => Next::Again,
            (false, true) => Next::Rest,
            (false, false) => Next::Wait,
        })
    }

    /// Writes until the queue or the socket's buffer is exhausted or the turn is over.
    fn write(&mut self, now: Instant) -> Result<Wrote, CloseReason> {
        self.outbox.grant();
        let call = || self.outbox.signal();
        let Some(mut desk) = self.outbox.writing(&call) else {
            return Ok(Wrote::Elsewhere);
        };
        let mut written = 0;
        let mut last = false;
        while written < TURN_BYTES {
            if desk.batch.is_empty() {
                let taken = self.outbox.take(TAKE_BYTES, &mut desk.batch);
                last = taken.all;
                self.small = self.small.saturating_add(taken.small);
                self.lanes = self.lanes.saturating_add(taken.lanes);
                if desk.batch.is_empty() {
                    if self.goodbye.is_some() {
                        desk.shut_down();
                        self.shut = true;
                    }
                    return Ok(Wrote::All);
                }
                if desk.batch.largest_message() > limits::BULK_MESSAGE_BYTES {
                    self.bulk_until = Some(now + limits::BULK_LINGER);
                }
            }
            if !self.writable {
                return Ok(Wrote::Part);
            }
            match desk.write() {
                Ok(Some(bytes)) => {
                    written += bytes;
                    self.spoke = now;
                    let payload = desk.batch.advance(bytes);
                    self.outbox.written(payload);
                    self.outbox.grant();
                    if desk.batch.is_empty() && last && !self.session.is_draining() {
                        // Whatever was queued since has called for a turn of its own.
                        return Ok(Wrote::All);
                    }
                }
                Ok(None) => self.writable = false,
                Err(e) => return Err(CloseReason::Lost(e.to_string())),
            }
        }
        Ok(Wrote::Part)
    }

    /// Looks at the clock: pings, silence, the end of a bulk phase.
    pub(crate) fn tick(&mut self, liveness: &Liveness, now: Instant) -> Result<(), CloseReason> {
        if self.bulk_until.is_some_and(|until| now >= until) {
            self.bulk_until = None;
            self.outbox.set_bulk(false);
        }
        if self.session.is_draining() {
            let since = *self.draining.get_or_insert(now);
            let (flush, goodbye) = match self.session.is_released() {
                true => (limits::RELEASE_PATIENCE, limits::RELEASE_PATIENCE),
                false => (FLUSH, GOODBYE),
            };
            if now >= since + flush || self.goodbye.is_some_and(|since| now >= since + goodbye) {
                return Err(CloseReason::Local("session closed"));
            }
        }
        if !liveness.enabled {
            return Ok(());
        }
        if self.receiver.is_stalled() {
            // Nothing is read, so the peer cannot be judged; but it must hear that we live.
            self.heard = now;
            if now >= self.spoke + liveness.idle_timeout / 2 {
                self.outbox.send_urgent(&frame::ping(0));
            }
            return Ok(());
        }
        let due = self.heard + liveness.idle_timeout + liveness.timeout * self.asked;
        if now >= due {
            if self.asked >= liveness.max_attempts {
                return Err(CloseReason::Silent);
            }
            self.asked += 1;
            self.outbox.send_urgent(&frame::ping(u64::from(self.asked)));
        }
        Ok(())
    }
}
