//! The send queue of one connection.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use super::admission::{Admission, Cancelled, Class, Ticket, Waiters, kept_for_small};
use super::batch::{Batch, Spare};
use super::ceiling::Ceiling;
use super::lane::{Folding, Item, Lanes, Message};
use crate::limits;

/// Control frames that may wait at once.
const MAX_URGENT: usize = 64;

/// Answers to questions that may wait besides: each connection of a channel has one question under way.
const MAX_ANSWERS: usize = limits::MAX_PARALLELISM as usize;

/// Keys that an empty table keeps room for.
const IDLE_KEYS: usize = 1024;

/// Sizes of a queue. The defaults stand in [`limits`].
#[derive(Debug, Clone)]
pub struct Config {
    /// Bytes that may be queued.
    pub budget: u64,
    /// Payload of a fragment while several senders have something queued.
    pub fragment_shared: usize,
    /// Payload of a fragment while one sender has.
    pub fragment_alone: usize,
    /// Bytes that a lane earns per turn. Not below `fragment_shared`, so that each turn sends something.
    pub quantum: usize,
    /// Small frames of one sender are packed up to this many bytes.
    pub chunk: usize,
    /// Messages that may be under way, cut into fragments: what the receiver accepts.
    pub max_open_streams: usize,
    /// No further message is begun while those under way have this many bytes.
    pub max_open_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            budget: limits::QUEUE_BYTES,
            fragment_shared: limits::FRAGMENT_SHARED_BYTES,
            fragment_alone: limits::FRAGMENT_ALONE_BYTES,
            quantum: limits::FRAGMENT_SHARED_BYTES,
            chunk: 32 << 10,
            max_open_streams: limits::MAX_OPEN_STREAMS,
            max_open_bytes: limits::MAX_OPEN_STREAM_BYTES,
        }
    }
}

impl Config {
    /// Nothing may be zero, and a fragment must fit into a frame.
    fn checked(mut self) -> Self {
        let fragment = 1..=limits::MAX_FRAME_BYTES - super::batch::HEADER;
        self.budget = self.budget.max(1);
        self.fragment_shared = self
            .fragment_shared
            .clamp(*fragment.start(), *fragment.end());
        self.fragment_alone = self
            .fragment_alone
            .clamp(*fragment.start(), *fragment.end());
        self.quantum = self.quantum.max(1);
        self.chunk = self.chunk.max(1);
        self.max_open_streams = self.max_open_streams.max(1);
        self.max_open_bytes = self.max_open_bytes.max(1);
        self
    }
}

/// Everything that waits to be written to one connection; see the [module](super).
///
/// `W` is what wakes a waiter.
#[derive(Debug)]
pub struct Queue<W> {
    config: Config,
    lanes: Lanes,
    /// Lanes that have something to send, by turn.
    ring: VecDeque<u32>,
    /// The first lane of the ring has received its quantum for this turn.
    paid: bool,
    /// Lanes whose next message can't be begun before another one is finished.
    parked: VecDeque<u32>,
    open_streams: usize,
    open_bytes: u64,
    /// Number of the replaceable item of a sender and key, in its lane.
    latest: HashMap<(u64, u64), u64, Folding>,
    urgent: Vec<u8>,
    urgent_frames: usize,
    queued: u64,
    /// Bytes of whole frames in lanes,
    small: u64,
    /// and of those that were in flight when the batch was last filled.
    small_flying: u64,
    waiters: Waiters<W>,
    /// Only control frames leave.
    held: bool,
    spare: Spare,
    /// Pushes since [`take_pushed`](Self::take_pushed).
    pushed: u32,
    /// How many of them found their lane empty.
    opened: u32,
    closed: bool,
}

/// What a closed queue leaves behind. Drop it after unlocking: it holds every queued message.
#[derive(Debug)]
pub struct Closed<W> {
    /// To be woken: the connection is gone.
    pub waiters: Vec<W>,
    /// Bytes queued, in flight and reserved that leave the node's account.
    pub released: u64,
    _lanes: Lanes,
}

impl<W> Queue<W> {
    /// An empty queue.
    pub fn new(config: Config) -> Self {
        Self {
            config: config.checked(),
            lanes: Lanes::default(),
            ring: VecDeque::new(),
            paid: false,
            parked: VecDeque::new(),
            open_streams: 0,
            open_bytes: 0,
            latest: HashMap::default(),
            urgent: Vec::new(),
            urgent_frames: 0,
            queued: 0,
            small: 0,
            small_flying: 0,
            waiters: Waiters::new(),
            held: false,
            spare: Spare::default(),
            pushed: 0,
            opened: 0,
            closed: false,
        }
    }

    /// Whether `sender` may push a message now: one of `frame` bytes that travels as a whole frame, or of any size in
    /// fragments; `open` says that the node's ceiling has room.
    #[inline]
    pub fn admit(&self, sender: u64, frame: Option<u64>, open: bool) -> Admission {
        if self.closed {
            return Admission::Closed;
        }
        let budget = self.config.budget;
        let class = self.class(sender);
        let admits = || self.waiters.admits(class, budget, self.load());
        if open && (admits() || class == Class::Fresh && self.has_room_for_small(frame)) {
            Admission::Admitted
        } else {
            Admission::Wait
        }
    }

    /// Whether what is kept for whole frames has room for this one.
    fn has_room_for_small(&self, frame: Option<u64>) -> bool {
        frame.is_some_and(|bytes| {
            self.small + self.small_flying + bytes <= kept_for_small(self.config.budget)
        })
    }

    fn class(&self, sender: u64) -> Class {
        if self.lanes.has_items(sender) {
            Class::Backlogged
        } else {
            Class::Fresh
        }
    }

    /// Bytes in lanes and in flight: taken, but not yet [`written`](Self::written).
    pub fn queued(&self) -> u64 {
        self.queued
    }

    /// Bytes granted to waiters that have not used them.
    pub fn reserved(&self) -> u64 {
        self.waiters.reserved()
    }

    fn load(&self) -> u64 {
        self.queued + self.waiters.reserved()
    }

    /// Whether there is nothing to [`take`](Self::take). Bytes may still be in flight.
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty() && self.urgent.is_empty()
    }

    /// Whether nothing is queued, in flight or reserved, and nobody waits.
    pub fn is_idle(&self) -> bool {
        self.load() == 0 && !self.has_waiters()
    }

    /// Keeps back all messages until [`release`](Self::release).
    pub fn hold(&mut self) {
        self.held = true;
    }

    /// Ends [`hold`](Self::hold).
    pub fn release(&mut self) {
        self.held = false;
    }

    /// Whether messages are kept back.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Ends [`hold`](Self::hold), and moves all that was kept back into `to`, as messages of one `sender`: each sender's in
    /// order. Nothing is in flight, because nothing was there when the hold began. Does nothing if either is closed.
    pub fn surrender(&mut self, to: &mut Self, sender: u64) {
        if self.closed || to.closed {
            return;
        }
        self.held = false;
        while let Some(number) = self.ring.pop_front() {
            while let Some(item) = self.lanes.lane(number).items.pop_front() {
                if !matches!(item, Item::Message(_)) {
                    to.small += item.len();
                }
                to.queued += item.len();
                to.push_item(sender, item);
            }
            self.lanes.close(number);
        }
        (self.queued, self.small) = (0, 0);
    }

    /// Whether [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether somebody waits.
    pub fn has_waiters(&self) -> bool {
        self.waiters.is_waiting()
    }

    /// Appends one whole frame, written by `encode` behind what is in the buffer; returns its bytes.
    ///
    /// `encode` must leave alone what it finds. If it panics, its bytes are taken back. A frame larger than `fragment_shared`
    /// makes other senders wait for all of it: use [`push_message`](Self::push_message).
    #[inline]
    pub fn push_frame(&mut self, sender: u64, encode: impl FnOnce(&mut Vec<u8>)) -> usize {
        if self.closed {
            return 0;
        }
        self.pushed = self.pushed.saturating_add(1);
        let chunk = self.config.chunk;
        let number = self.lanes.find_or_open(sender);
        let lane = self.lanes.lane(number);
        let was_empty = lane.items.is_empty();
        self.opened = self.opened.saturating_add(u32::from(was_empty));
        if let Some(Item::Chunk(buffer)) = lane.items.back_mut()
            && buffer.len() < chunk
        {
            let start = buffer.len();
            let added = append(buffer, encode);
            if buffer.len() > chunk {
                // It would make the chunk too long, so it begins the next one.
                let mut next = self.spare.get();
                next.extend_from_slice(&buffer[start..]);
                buffer.truncate(start);
                lane.items.push_back(Item::Chunk(next));
            }
            self.queued += added as u64;
            self.small += added as u64;
            return added;
        }
        let mut buffer = self.spare.get();
        let added = append(&mut buffer, encode);
        if added > 0 {
            lane.items.push_back(Item::Chunk(buffer));
            self.queued += added as u64;
            self.small += added as u64;
            if was_empty {
                self.ring.push_back(number);
            }
        } else {
            self.spare.put(buffer);
            if was_empty {
                self.lanes.close(number);
            }
        }
        added
    }

    /// Appends a message that travels in fragments: the concatenation of `parts`. Returns its bytes.
    pub fn push_message(&mut self, sender: u64, parts: Vec<Bytes>) -> u64 {
        if self.closed {
            return 0;
        }
        let message = Message::new(parts);
        let total = message.total();
        self.queued += total;
        self.push_item(sender, Item::Message(Box::new(message)));
        total
    }

    /// Replaces the queued frame of the same sender and key, in its place, or else appends this one.
    /// Returns the bytes added and removed.
    pub fn push_latest(&mut self, sender: u64, key: u64, frame: Vec<u8>) -> (usize, usize) {
        if self.closed || frame.is_empty() {
            return (0, 0);
        }
        let added = frame.len();
        self.queued += added as u64;
        self.small += added as u64;
        if let Some(&item) = self.latest.get(&(sender, key))
            && let Some(number) = self.lanes.find(sender)
        {
            let lane = self.lanes.lane(number);
            if let Some(Item::Latest { frame: old, .. }) =
                lane.items.get_mut((item - lane.gone) as usize)
            {
                let old = std::mem::replace(old, frame);
                let removed = old.len();
                self.queued -= removed as u64;
                self.small -= removed as u64;
                self.spare.put(old);
                return (added, removed);
            }
        }
        let item = self.push_item(sender, Item::Latest { key, frame });
        self.latest.insert((sender, key), item);
        (added, 0)
    }

    /// Appends to the sender's lane; returns the item's number there.
    fn push_item(&mut self, sender: u64, item: Item) -> u64 {
        let number = self.lanes.find_or_open(sender);
        let lane = self.lanes.lane(number);
        if lane.items.is_empty() {
            self.ring.push_back(number);
        }
        lane.items.push_back(item);
        lane.gone + (lane.items.len() - 1) as u64
    }

    /// Messages pushed since the last call by [`push_frame`](Self::push_frame), and how often their
    /// sender had nothing queued.
    pub fn take_pushed(&mut self) -> (u32, u32) {
        (
            std::mem::take(&mut self.pushed),
            std::mem::take(&mut self.opened),
        )
    }

    /// Adds a control frame, which overtakes all that is queued and counts for no budget.
    ///
    /// False if too many wait already: the peer has not read for long, and the frame is not sent.
    pub fn push_urgent(&mut self, frame: &[u8]) -> bool {
        self.push_control(frame, MAX_URGENT)
    }

    /// Adds an answer, a control frame that somebody waits for. False if there are more than there can be
    /// questions: the peer breaks the rules.
    pub fn push_answer(&mut self, frame: &[u8]) -> bool {
        self.closed || self.push_control(frame, MAX_URGENT + MAX_ANSWERS)
    }

    fn push_control(&mut self, frame: &[u8], most: usize) -> bool {
        if self.closed || self.urgent_frames >= most {
            return false;
        }
        self.urgent_frames += 1;
        self.urgent.extend_from_slice(frame);
        true
    }

    /// Moves what is next into `out`, by deficit round robin: up to `max_bytes` of payload, but at least
    /// one item, and all control frames. Buffers that `out` has done with are reused.
    pub fn take(&mut self, max_bytes: usize, out: &mut Batch) {
        self.recycle(out);
        if !self.urgent.is_empty() {
            self.urgent_frames = 0;
            out.push_urgent(std::mem::take(&mut self.urgent));
        }
        let mut taken = 0;
        let mut items = 0;
        while !self.held
            && let Some(&number) = self.ring.front()
        {
            let alone = self.ring.len() == 1 && self.parked.is_empty();
            let fragment = if alone {
                self.config.fragment_alone
            } else {
                self.config.fragment_shared
            };
            let can_begin = self.can_begin();
            let lane = self.lanes.lane(number);
            if lane
                .next_message()
                .is_some_and(|message| !message.is_started() && !can_begin)
            {
                lane.deficit = 0;
                self.end_turn();
                self.parked.push_back(number);
                continue;
            }
            let size = lane.next_size(fragment);
            if items > 0 && taken + size > max_bytes {
                break;
            }
            if alone {
                // Nobody to be fair to, and no savings from that time.
                lane.deficit = 0;
                self.paid = false;
            } else {
                if !self.paid {
                    lane.deficit += self.config.quantum;
                    self.paid = true;
                }
                if lane.deficit < size {
                    self.end_turn();
                    self.ring.push_back(number);
                    continue;
                }
                lane.deficit -= size;
            }
            items += 1;
            taken += size;
            self.take_item(number, size, out);
            if self.lanes.lane(number).items.is_empty() {
                self.end_turn();
                self.lanes.close(number);
            }
            if !self.parked.is_empty() && self.can_begin() {
                self.ring.extend(self.parked.pop_front());
            }
        }
        self.small_flying = out.frames_left() as u64;
    }

    /// Takes the first lane out of the ring.
    fn end_turn(&mut self) {
        self.ring.pop_front();
        self.paid = false;
    }

    /// Whether one more message may be under way: the receiver bounds their number and bytes.
    fn can_begin(&self) -> bool {
        self.open_streams < self.config.max_open_streams
            && self.open_bytes < self.config.max_open_bytes
    }

    fn take_item(&mut self, number: u32, size: usize, out: &mut Batch) {
        let lane = self.lanes.lane(number);
        if let Some(Item::Message(message)) = lane.items.front_mut() {
            if !message.is_started() {
                self.open_streams += 1;
                self.open_bytes += message.total();
            }
            // A lane has one message under way at most, so its number is free for the stream.
            message.cut(number, size, out);
            if !message.is_finished() {
                return;
            }
            self.open_streams -= 1;
            self.open_bytes -= message.total();
        }
        lane.gone += 1;
        match lane.items.pop_front() {
            Some(Item::Chunk(frames)) => {
                self.small -= frames.len() as u64;
                out.push_chunk(frames, self.config.chunk, &mut self.spare);
            }
            Some(Item::Latest { key, frame }) => {
                self.small -= frame.len() as u64;
                self.latest.remove(&(lane.sender, key));
                if self.latest.is_empty() && self.latest.capacity() > 2 * IDLE_KEYS {
                    self.latest.shrink_to(IDLE_KEYS);
                }
                out.push_chunk(frame, self.config.chunk, &mut self.spare);
            }
            Some(Item::Message(_)) | None => {}
        }
    }

    /// Keeps the buffers that `batch` has done with.
    pub fn recycle(&mut self, batch: &mut Batch) {
        self.spare.recycle(batch);
    }

    /// `bytes` of payload (from [`Batch::advance`]) have been written. Returns the bytes that leave
    /// the node's account: none if the queue was closed meanwhile, as they left it then.
    pub fn written(&mut self, bytes: u64) -> u64 {
        if self.closed {
            return 0;
        }
        debug_assert!(bytes <= self.queued, "more bytes written than were queued");
        self.queued -= bytes.min(self.queued);
        bytes
    }

    /// Registers a waiter for a message of `bytes`; gives it back if the queue is closed.
    ///
    /// Call [`grant`](Self::grant) before unlocking; it may serve this waiter at once.
    pub fn wait(&mut self, sender: u64, bytes: u64, waiter: W) -> Result<Ticket, W> {
        if self.closed {
            return Err(waiter);
        }
        Ok(self.waiters.wait(self.class(sender), sender, bytes, waiter))
    }

    /// Ends a wait, or gives back an unused grant. `None` if the ticket was redeemed, cancelled, or
    /// ended by [`close`](Self::close). Call [`grant`](Self::grant) after it: others may be next.
    pub fn cancel(&mut self, ticket: Ticket) -> Option<Cancelled<W>> {
        self.waiters.cancel(ticket)
    }

    /// Grants as many waiters as fit now, in order, into `out`; wake them after unlocking. Their bytes
    /// are reserved here and on `ceiling`, until each [redeems](Self::redeem) or [cancels](Self::cancel).
    /// Returns the bytes reserved.
    #[inline]
    pub fn grant(&mut self, ceiling: &Ceiling, out: &mut Vec<(Ticket, W)>) -> u64 {
        if !self.waiters.is_waiting() {
            return 0;
        }
        let Self { lanes, waiters, .. } = self;
        let is_fresh = |sender| !lanes.has_items(sender);
        waiters.grant(self.config.budget, self.queued, ceiling, is_fresh, out)
    }

    /// Uses a grant: returns its bytes, which are reserved no longer. The caller pushes its message, no
    /// larger than that, before it unlocks. `None` if the ticket isn't granted, or no longer.
    pub fn redeem(&mut self, ticket: Ticket) -> Option<u64> {
        self.waiters.redeem(ticket)
    }

    /// Ends the queue if nothing is queued or in flight: what it has taken has then been written, and whoever
    /// comes later is told. `last`, a control frame, is all that can still be taken.
    pub fn seal(&mut self, last: &[u8]) -> Option<Closed<W>> {
        if self.queued > 0 {
            return None;
        }
        let closed = self.close();
        self.urgent.extend_from_slice(last);
        Some(closed)
    }

    /// Ends the queue: nothing can be pushed, taken or waited for any more.
    pub fn close(&mut self) -> Closed<W> {
        let released = self.load();
        let waiters = self.waiters.close();
        let empty = Self::new(self.config.clone());
        let old = std::mem::replace(
            self,
            Self {
                closed: true,
                ..empty
            },
        );
        Closed {
            waiters,
            released,
            _lanes: old.lanes,
        }
    }
}

/// Runs `encode` on `buffer`; returns how much it added. Half a frame would garble the connection, so
/// it is taken back if `encode` panics.
#[inline]
fn append(buffer: &mut Vec<u8>, encode: impl FnOnce(&mut Vec<u8>)) -> usize {
    struct Undo<'a> {
        buffer: &'a mut Vec<u8>,
        start: usize,
    }
    impl Drop for Undo<'_> {
        fn drop(&mut self) {
            self.buffer.truncate(self.start);
        }
    }
    let start = buffer.len();
    let mut undo = Undo { buffer, start };
    encode(undo.buffer);
    debug_assert!(
        undo.buffer.len() >= start,
        "a frame's encoder took away bytes of others"
    );
    undo.start = undo.buffer.len();
    undo.start.saturating_sub(start)
}
