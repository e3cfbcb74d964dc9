//! The receiving half of a connection: bytes to frames to validated messages.
//!
//! Small frames are parsed where `recv` has put them. The bytes of an out-of-band binary are
//! received straight into its final memory; to make that possible, reads stay short while a
//! large message is under way, so that little of its payload lands in the read buffer.
//!
//! Every message is validated before the host sees it. Whatever breaks a rule or a limit ends the
//! session with a [`CloseReason::Protocol`] that says which.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::net::RecvFlags;

use crate::connection::host::{Blob, Delivery, Host, Incoming, Source};
use crate::connection::inlet;
use crate::connection::outbox::Outbox;
use crate::connection::session::{CloseReason, PROBE_ID, Session};
use crate::limits;
use crate::wire::frame::{self, Dest, DestBuf, Head, Kind, Question};
use crate::wire::term::{AtomGate, Facts, Form, TermLimits, scan};

/// Bytes read at once while only small messages arrive.
const READ_BYTES: usize = 256 << 10;

/// Bytes read at once while large binaries arrive, and first after one has: room for the next
/// header, and little more. Who sent one may send another, and what of it lands in the read buffer is
/// copied once more than it need be.
const BULK_READ_BYTES: usize = 4 << 10;

/// Growth of reads that bring as much as they may, and nothing of a large binary.
const READ_GROWTH: usize = 4;

/// Size of the read buffer of an I/O thread: one whole frame behind one read.
pub(crate) const SCRATCH_BYTES: usize = limits::MAX_FRAME_BYTES + frame::HEADER + READ_BYTES;

/// What a peer may send.
#[derive(Clone, Debug)]
pub struct ReceiveLimits {
    /// Bounds of one term.
    pub term: TermLimits,
    /// Bytes of one message with its out-of-band binaries.
    pub message_bytes: u64,
    /// New atoms of one peer.
    pub new_atoms: u32,
}

impl Default for ReceiveLimits {
    fn default() -> Self {
        Self {
            term: TermLimits::default(),
            message_bytes: limits::MAX_MESSAGE_BYTES,
            new_atoms: limits::MAX_NEW_ATOMS,
        }
    }
}

/// How a turn of reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The socket is empty.
    Drained,
    /// There may be more to read.
    More,
    /// A mailbox is full; nothing is read until it has room.
    Stalled,
}

/// What a receiver needs from its surroundings for one turn.
pub(crate) struct Context<'a, H: Host> {
    pub(crate) host: &'a H,
    pub(crate) thread: &'a mut H::Thread,
    pub(crate) session: &'a Arc<Session>,
    pub(crate) outbox: &'a Arc<Outbox>,
    pub(crate) limits: &'a ReceiveLimits,
}

struct Gate<'a, 'b, H: Host>(&'a mut Context<'b, H>);

impl<H: Host> AtomGate for Gate<'_, '_, H> {
    fn admit(&mut self, atom: &str) -> bool {
        self.0.host.knows_atom(self.0.thread, atom)
            || self.0.session.new_atoms.admit(self.0.limits.new_atoms)
    }
}

fn protocol(what: impl ToString) -> CloseReason {
    CloseReason::Protocol(what.to_string())
}

/// The payload of the fragment that is being read.
struct Current {
    stream: u32,
    left: usize,
}

struct Stream<B> {
    total: u64,
    received: u64,
    phase: Phase<B>,
}

enum Phase<B> {
    /// Head, and for an elided message the length of its term.
    Head(Vec<u8>),
    Term {
        dest: DestBuf,
        elided: bool,
        length: usize,
        term: Vec<u8>,
    },
    Blobs {
        message: Assembled<B>,
        next: usize,
    },
}

/// A message that is whole, or whole but for its binaries.
struct Assembled<B> {
    dest: DestBuf,
    term: Vec<u8>,
    facts: Facts,
    blobs: Vec<B>,
}

/// The receiving state of one connection.
pub(crate) struct Receiver<B> {
    carry: Vec<u8>,
    streams: HashMap<u32, Stream<B>>,
    open_bytes: u64,
    current: Option<Current>,
    stalled: Option<Assembled<B>>,
    /// Questions met since the host was last told to deliver.
    questions: Vec<Question>,
    /// Too much of what was read is still on its way through other threads.
    paused: bool,
    /// Bytes to read at once while no large binary is under way.
    wish: usize,
    /// True if a large message was seen since the flag was last cleared.
    pub(crate) bulk: bool,
    /// Messages that nobody was there to receive since the counter was last taken.
    pub(crate) undelivered: u64,
    /// Messages that the host could not decode since the counter was last taken.
    pub(crate) undecodable: u64,
}

impl<B: Blob> Receiver<B> {
    pub(crate) fn new() -> Self {
        Self {
            carry: Vec::new(),
            streams: HashMap::new(),
            open_bytes: 0,
            current: None,
            stalled: None,
            questions: Vec::new(),
            paused: false,
            wish: READ_BYTES,
            bulk: false,
            undelivered: 0,
            undecodable: 0,
        }
    }

    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.is_some() || self.paused
    }

    /// Reads and delivers until the socket is empty or about `budget` bytes have been read.
    pub(crate) fn turn<H: Host<Blob = B>>(
        &mut self,
        socket: &impl AsFd,
        scratch: &mut [u8],
        budget: usize,
        ctx: &mut Context<'_, H>,
    ) -> Result<(Turn, usize), CloseReason> {
        let mut read = 0;
        self.paused = self.paused && ctx.outbox.tally.must_pause();
        if self.paused {
            return Ok((Turn::Stalled, read));
        }
        if let Some(message) = self.stalled.take() {
            self.deliver_assembled(message, ctx)?;
            self.flush(ctx);
            if self.is_stalled() {
                return Ok((Turn::Stalled, read));
            }
            // What was read behind the stalled message comes first.
            let carry = std::mem::take(&mut self.carry);
            let used = self.parse(&carry, ctx)?;
            self.carry = carry;
            self.carry.drain(..used);
            if self.is_stalled() {
                return Ok((Turn::Stalled, read));
            }
        }
        while read < budget {
            let outcome = match self.blob_wanting() {
                Some((blob, limit)) => {
                    let source = Source::new(socket.as_fd());
                    let outcome = blob.receive(limit, &source);
                    // A blob may offer less memory than the limit allows, so a read that
                    // is short of the limit says nothing about the socket.
                    self.blob_received(outcome, source.is_drained(), ctx)?
                }
                None => self.read_buffered(socket, scratch, ctx)?,
            };
            read += outcome.bytes;
            if self.is_stalled() {
                return Ok((Turn::Stalled, read));
            }
            if outcome.drained {
                return Ok((Turn::Drained, read));
            }
        }
        Ok((Turn::More, read))
    }

    /// The blob that the next bytes of the socket belong to, and how many of them.
    fn blob_wanting(&mut self) -> Option<(&mut B, usize)> {
        let current = self.current.as_ref()?;
        match &mut self.streams.get_mut(&current.stream)?.phase {
            Phase::Blobs { message, next } => {
                let blob = message.blobs.get_mut(*next)?;
                let missing = usize::try_from(blob.len() - blob.filled()).unwrap_or(usize::MAX);
                Some((blob, missing.min(current.left)))
            }
            _ => None,
        }
    }

    fn blob_received<H: Host<Blob = B>>(
        &mut self,
        outcome: io::Result<usize>,
        drained: bool,
        ctx: &mut Context<'_, H>,
    ) -> Result<Read, CloseReason> {
        let Some(bytes) = Read::of(outcome, drained)? else {
            return Ok(Read::WOULD_BLOCK);
        };
        let Some(current) = &mut self.current else {
            return Err(protocol("no fragment"));
        };
        let stream = current.stream;
        current.left -= bytes.bytes.min(current.left);
        let at_end = current.left == 0;
        if at_end {
            self.current = None;
        }
        if let Some(s) = self.streams.get_mut(&stream) {
            s.received += bytes.bytes as u64;
        }
        let advanced = self.advance(stream, ctx);
        self.flush(ctx);
        advanced?;
        Ok(bytes)
    }

    fn read_buffered<H: Host<Blob = B>>(
        &mut self,
        socket: &impl AsFd,
        scratch: &mut [u8],
        ctx: &mut Context<'_, H>,
    ) -> Result<Read, CloseReason> {
        let kept = self.carry.len();
        let wish = if self.in_blobs() {
            // At least as much as is kept, or a long frame between the fragments would be copied
            // once for every few bytes of it.
            BULK_READ_BYTES.max(kept)
        } else {
            self.wish
        };
        let end = (kept + wish).min(scratch.len());
        let (Some(front), true) = (scratch.get_mut(..kept), end > kept) else {
            return Err(protocol("frame longer than the read buffer"));
        };
        front.copy_from_slice(&self.carry);
        let outcome = rustix::net::recv(socket, &mut scratch[kept..end], RecvFlags::empty())
            .map(|(n, _)| n)
            .map_err(io::Error::from);
        let drained = outcome.as_ref().is_ok_and(|&bytes| bytes < end - kept);
        let Some(read) = Read::of(outcome, drained)? else {
            return Ok(Read::WOULD_BLOCK);
        };
        self.carry.clear();
        let buffer = &scratch[..kept + read.bytes];
        let used = self.parse(buffer, ctx)?;
        self.carry.extend_from_slice(&buffer[used..]);
        if self.in_blobs() {
            self.wish = BULK_READ_BYTES;
        } else if !read.drained {
            self.wish = (self.wish * READ_GROWTH).min(READ_BYTES);
        }
        Ok(read)
    }

    /// True while the bytes to come are mostly those of out-of-band binaries.
    fn in_blobs(&self) -> bool {
        self.streams
            .values()
            .any(|s| matches!(s.phase, Phase::Blobs { .. }))
    }

    /// Consumes what it can of `buffer` and returns how much that was.
    fn parse<H: Host<Blob = B>>(
        &mut self,
        buffer: &[u8],
        ctx: &mut Context<'_, H>,
    ) -> Result<usize, CloseReason> {
        ctx.host.batch(ctx.thread);
        let used = self.frames(buffer, ctx);
        self.flush(ctx);
        used
    }

    fn flush<H: Host<Blob = B>>(&mut self, ctx: &mut Context<'_, H>) {
        let lost = ctx.host.flush(ctx.thread, ctx.session, ctx.outbox);
        self.undelivered += lost.undelivered;
        self.undecodable += lost.undecodable;
        self.paused = ctx.outbox.tally.must_pause();
        for question in self.questions.drain(..) {
            let due = ctx.outbox.tally.ask(question);
            let answered = due.is_some_and(|due| due.into_iter().all(|q| ctx.outbox.answer(q)));
            if !answered {
                ctx.session.abandon(CloseReason::too_many_questions());
            }
        }
    }

    fn frames<H: Host<Blob = B>>(
        &mut self,
        buffer: &[u8],
        ctx: &mut Context<'_, H>,
    ) -> Result<usize, CloseReason> {
        let mut at = 0;
        while self.stalled.is_none() {
            let rest = &buffer[at..];
            if let Some(current) = &mut self.current {
                let taken = current.left.min(rest.len());
                let stream = current.stream;
                current.left -= taken;
                let whole = current.left == 0;
                if whole {
                    self.current = None;
                }
                self.payload(stream, &rest[..taken], ctx)?;
                at += taken;
                if whole {
                    continue;
                }
                break;
            }
            let Some(header) = frame::parse_header(rest).map_err(protocol)? else {
                break;
            };
            let body = &rest[frame::HEADER..];
            match header.kind {
                Kind::First => {
                    let Some(fixed) = body.get(..frame::FIRST_FIXED) else {
                        break;
                    };
                    let (stream, total) = frame::parse_first(fixed).map_err(protocol)?;
                    at += frame::HEADER + frame::FIRST_FIXED;
                    self.open(stream, total, header.body, ctx)?;
                }
                Kind::More => {
                    let Some(fixed) = body.get(..frame::MORE_FIXED) else {
                        break;
                    };
                    let stream = frame::parse_more(fixed).map_err(protocol)?;
                    at += frame::HEADER + frame::MORE_FIXED;
                    if !self.streams.contains_key(&stream) {
                        return Err(protocol(format!("fragment of unknown message {stream}")));
                    }
                    let left = header.body.checked_sub(frame::MORE_FIXED);
                    self.current = Some(Current {
                        stream,
                        left: left.ok_or_else(|| protocol("short"))?,
                    });
                }
                kind => {
                    let Some(body) = body.get(..header.body) else {
                        break;
                    };
                    at += frame::HEADER + header.body;
                    self.whole(kind, body, ctx)?;
                }
            }
        }
        Ok(at)
    }

    fn whole<H: Host<Blob = B>>(
        &mut self,
        kind: Kind,
        body: &[u8],
        ctx: &mut Context<'_, H>,
    ) -> Result<(), CloseReason> {
        match kind {
            Kind::Message => self.message(body, ctx),
            Kind::Ping => {
                let id = frame::parse_ping(body).map_err(protocol)?;
                ctx.outbox.send_urgent(&frame::pong(id));
                Ok(())
            }
            Kind::Pong => {
                if frame::parse_ping(body).map_err(protocol)? == PROBE_ID {
                    ctx.session.answered();
                }
                Ok(())
            }
            Kind::Ask => {
                let question = frame::parse_question(kind, body).map_err(protocol)?;
                self.questions.push(question);
                Ok(())
            }
            Kind::Done => {
                let question = frame::parse_question(kind, body).map_err(protocol)?;
                let Some(asked) = ctx.session.outbox(usize::from(question.index)) else {
                    return Err(protocol("answer to no question"));
                };
                asked.answered(question.number);
                Ok(())
            }
            Kind::Close => {
                // Other connections of the session may still bring what was sent before.
                let (code, why) = frame::parse_close(body).map_err(protocol)?;
                match code {
                    frame::CLOSE_RELEASED => ctx.session.released_by_peer(),
                    frame::CLOSE_LEFT => ctx.session.left_by_peer(),
                    _ => ctx.session.close_after_flush(CloseReason::Peer(why)),
                }
                Ok(())
            }
            other => Err(protocol(format!("frame {other:?} inside a session"))),
        }
    }

    fn message<H: Host<Blob = B>>(
        &mut self,
        body: &[u8],
        ctx: &mut Context<'_, H>,
    ) -> Result<(), CloseReason> {
        let Some((head, used)) = Head::parse(body).map_err(protocol)? else {
            return Err(protocol("message without a destination"));
        };
        if head.elided {
            return Err(protocol("elided message in one frame"));
        }
        let term = &body[used..];
        let limits = ctx.limits.term;
        let facts = scan(term, Form::Whole, &limits, &mut Gate(ctx)).map_err(protocol)?;
        facts.common().map_err(protocol)?;
        let mut blobs = Vec::new();
        if !self.deliver(head.dest, term, &facts, &mut blobs, ctx)? {
            self.stalled = Some(Assembled {
                dest: head.dest.into(),
                term: term.to_vec(),
                facts,
                blobs,
            });
        }
        Ok(())
    }

    /// Gives a message to whom it is for. False if there is no room: the connection is resumed then.
    fn deliver<H: Host<Blob = B>>(
        &mut self,
        dest: Dest<'_>,
        term: &[u8],
        facts: &Facts,
        blobs: &mut Vec<B>,
        ctx: &mut Context<'_, H>,
    ) -> Result<bool, CloseReason> {
        if let Dest::Name(name) = dest
            && let Some(subject) = inlet::subject(name)
        {
            let taken = inlet::offer(ctx.session, ctx.outbox, subject, term);
            return taken.map_err(protocol);
        }
        let message = Incoming {
            dest,
            origin: None,
            term,
            facts,
            blobs,
        };
        match ctx
            .host
            .deliver(ctx.thread, ctx.session, ctx.outbox, message)
        {
            Delivery::Full => return Ok(false),
            Delivery::Done => ctx.outbox.set_used(),
            Delivery::NoProcess => self.undelivered += 1,
            Delivery::Undecodable => self.undecodable += 1,
        }
        Ok(true)
    }

    fn open<H: Host<Blob = B>>(
        &mut self,
        stream: u32,
        total: u64,
        body: usize,
        ctx: &mut Context<'_, H>,
    ) -> Result<(), CloseReason> {
        if total > ctx.limits.message_bytes {
            return Err(protocol(format!(
                "message of {total} bytes is over the limit of {} (max_message_bytes)",
                ctx.limits.message_bytes
            )));
        }
        let others = !self.streams.is_empty();
        if self.streams.len() >= limits::MAX_OPEN_STREAMS
            || (others && self.open_bytes + total > limits::MAX_OPEN_STREAM_BYTES)
        {
            return Err(protocol("too many unfinished messages"));
        }
        let Some(left) = body.checked_sub(frame::FIRST_FIXED) else {
            return Err(protocol("short first fragment"));
        };
        self.bulk |= total > limits::BULK_MESSAGE_BYTES;
        self.open_bytes += total;
        let fresh = Stream {
            total,
            received: 0,
            phase: Phase::Head(Vec::new()),
        };
        if self.streams.insert(stream, fresh).is_some() {
            return Err(protocol(format!("message {stream} begins twice")));
        }
        self.current = Some(Current { stream, left });
        Ok(())
    }

    /// Takes payload bytes of a fragment that arrived in the read buffer.
    fn payload<H: Host<Blob = B>>(
        &mut self,
        id: u32,
        mut bytes: &[u8],
        ctx: &mut Context<'_, H>,
    ) -> Result<(), CloseReason> {
        while !bytes.is_empty() {
            let Some(stream) = self.streams.get_mut(&id) else {
                return Err(protocol("more bytes than the message said"));
            };
            let taken = match &mut stream.phase {
                Phase::Head(head) => {
                    let (taken, phase) = parse_head(head, bytes, stream.total, ctx.limits)?;
                    if let Some(phase) = phase {
                        stream.phase = phase;
                    }
                    taken
                }
                Phase::Term { length, term, .. } => {
                    let taken = (*length - term.len()).min(bytes.len());
                    term.extend_from_slice(&bytes[..taken]);
                    taken
                }
                Phase::Blobs { message, next } => {
                    let Some(blob) = message.blobs.get_mut(*next) else {
                        return Err(protocol("more bytes than the binaries have"));
                    };
                    let missing = usize::try_from(blob.len() - blob.filled()).unwrap_or(0);
                    let taken = missing.min(bytes.len());
                    blob.extend(&bytes[..taken]).map_err(protocol)?;
                    taken
                }
            };
            stream.received += taken as u64;
            bytes = &bytes[taken..];
            self.advance(id, ctx)?;
        }
        Ok(())
    }

    /// Takes a message to its next phase when the present one is complete.
    fn advance<H: Host<Blob = B>>(
        &mut self,
        id: u32,
        ctx: &mut Context<'_, H>,
    ) -> Result<(), CloseReason> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Ok(());
        };
        if let Phase::Term {
            dest,
            elided,
            length,
            term,
        } = &mut stream.phase
        {
            if term.len() < *length {
                return Ok(());
            }
            let form = if *elided { Form::Elided } else { Form::Whole };
            let limits = ctx.limits.term;
            let facts = scan(term, form, &limits, &mut Gate(ctx)).map_err(protocol)?;
            facts.common().map_err(protocol)?;
            let blobs: u64 = facts.blobs.iter().map(|&b| u64::from(b)).sum();
            if blobs != stream.total - stream.received {
                return Err(protocol("binaries do not add up to the message's length"));
            }
            let message = Assembled {
                dest: std::mem::replace(dest, Dest::Name("").into()),
                term: std::mem::take(term),
                blobs: Vec::with_capacity(facts.blobs.len()),
                facts,
            };
            stream.phase = Phase::Blobs { message, next: 0 };
        }
        if let Phase::Blobs { message, next } = &mut stream.phase {
            if message.blobs.get(*next).is_some_and(Blob::is_complete) {
                *next += 1;
            }
            if let (Some(&length), true) =
                (message.facts.blobs.get(*next), message.blobs.len() == *next)
            {
                let Some(blob) = ctx.host.blob(u64::from(length)) else {
                    return Err(protocol(format!(
                        "no memory for a binary of {length} bytes"
                    )));
                };
                message.blobs.push(blob);
            }
            if *next == message.facts.blobs.len() {
                let Some(stream) = self.streams.remove(&id) else {
                    return Ok(());
                };
                self.open_bytes -= stream.total;
                if let Phase::Blobs { message, .. } = stream.phase {
                    if self
                        .current
                        .as_ref()
                        .is_some_and(|c| c.stream == id && c.left > 0)
                    {
                        return Err(protocol("fragment is longer than its message"));
                    }
                    return self.deliver_assembled(message, ctx);
                }
            }
        }
        Ok(())
    }

    fn deliver_assembled<H: Host<Blob = B>>(
        &mut self,
        mut message: Assembled<B>,
        ctx: &mut Context<'_, H>,
    ) -> Result<(), CloseReason> {
        let dest = message.dest.as_dest();
        if !self.deliver(dest, &message.term, &message.facts, &mut message.blobs, ctx)? {
            self.stalled = Some(message);
        }
        Ok(())
    }
}

/// Collects the head; returns how many of `bytes` belong to it and, once it is whole, the phase
/// that follows.
fn parse_head<B>(
    head: &mut Vec<u8>,
    bytes: &[u8],
    total: u64,
    limits: &ReceiveLimits,
) -> Result<(usize, Option<Phase<B>>), CloseReason> {
    let before = head.len();
    // A head has at most 257 bytes, and 4 more if the message is elided.
    head.extend_from_slice(&bytes[..bytes.len().min(264)]);
    let Some((parsed, used)) = Head::parse(head).map_err(protocol)? else {
        return Ok((head.len() - before, None));
    };
    let (elided, dest) = (parsed.elided, DestBuf::from(parsed.dest));
    let (used, length) = if elided {
        let Some(&[a, b, c, d]) = head.get(used..used + 4) else {
            return Ok((head.len() - before, None));
        };
        (used + 4, u64::from(u32::from_be_bytes([a, b, c, d])))
    } else {
        let length = total.checked_sub(used as u64);
        (
            used,
            length.ok_or_else(|| protocol("message shorter than its head"))?,
        )
    };
    if length > limits.term.bytes as u64 {
        return Err(protocol(format!(
            "term of {length} bytes is over the limit of {} (max_term_bytes)",
            limits.term.bytes
        )));
    }
    if length + used as u64 > total || length == 0 {
        return Err(protocol("term does not fit its message"));
    }
    let phase = Phase::Term {
        dest,
        elided,
        length: length as usize,
        term: Vec::new(),
    };
    Ok((used.saturating_sub(before), Some(phase)))
}

/// Why a message inside of another was not delivered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Undelivered {
    /// It may be tried again.
    #[error("the mailbox is full")]
    Full,
    /// It never will be; the text says why.
    #[error("{0}")]
    Refused(String),
}

/// Delivers a term that `session` has brought inside of another message. It is validated like every
/// message; `origin` is the node that it is from, if that is another.
///
/// # Errors
/// Why it was not delivered.
pub(crate) fn deliver_aside<H: Host>(
    host: &H,
    thread: &mut H::Thread,
    (session, outbox): (&Arc<Session>, &Arc<Outbox>),
    limits: &ReceiveLimits,
    origin: Option<&Arc<str>>,
    (dest, term): (Dest<'_>, &[u8]),
) -> Result<(), Undelivered> {
    let refused = |why: String| Undelivered::Refused(why);
    let mut ctx = Context {
        host,
        thread,
        session,
        outbox,
        limits,
    };
    let facts = scan(term, Form::Whole, &limits.term, &mut Gate(&mut ctx))
        .map_err(|e| refused(e.to_string()))?;
    facts.common().map_err(|e| refused(e.to_string()))?;
    let message = Incoming {
        dest,
        origin,
        term,
        facts: &facts,
        blobs: &mut Vec::new(),
    };
    let delivery = host.deliver(ctx.thread, session, outbox, message);
    host.flush(ctx.thread, session, outbox);
    match delivery {
        Delivery::Done => Ok(()),
        // Who doesn't take part in a broadcast has nobody under its name.
        Delivery::NoProcess => Ok(()),
        Delivery::Undecodable => Err(refused("it can not be decoded here".into())),
        Delivery::Full => Err(Undelivered::Full),
    }
}

struct Read {
    bytes: usize,
    drained: bool,
}

impl Read {
    const WOULD_BLOCK: Self = Self {
        bytes: 0,
        drained: true,
    };

    /// Sorts out the result of a `recv`; `None` if there was nothing. `drained`: it brought less
    /// than it might have.
    fn of(outcome: io::Result<usize>, drained: bool) -> Result<Option<Self>, CloseReason> {
        match outcome {
            Ok(0) => Err(CloseReason::Lost("closed by the peer".into())),
            // An edge-triggered poll reports again what arrives after a short read.
            Ok(bytes) => Ok(Some(Self { bytes, drained })),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(Some(Self {
                bytes: 0,
                drained: false,
            })),
            Err(e) => Err(CloseReason::Lost(e.to_string())),
        }
    }
}
