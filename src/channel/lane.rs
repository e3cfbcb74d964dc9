//! One sender's share of a queue, and the table that finds it.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use bytes::Bytes;

use super::batch::Batch;

/// Lanes that stay allocated while the queue is empty, and items that a lane keeps room for.
const IDLE_LANES: usize = 256;
const IDLE_ITEMS: usize = 16;

// Kinds of the frames that are written here; see `docs/internals.md`, "Frames".
const FIRST: u8 = 2;
const MORE: u8 = 3;

/// What leaves a lane in one piece or, for messages, in fragments.
#[derive(Debug)]
pub(super) enum Item {
    /// Whole frames, one after the other.
    Chunk(Vec<u8>),
    /// A frame that a newer one of the same key replaces.
    Latest { key: u64, frame: Vec<u8> },
    /// A message to be cut.
    Message(Box<Message>),
}

impl Item {
    /// Bytes that it has in the account.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Chunk(frames) => frames.len() as u64,
            Self::Latest { frame, .. } => frame.len() as u64,
            Self::Message(message) => message.left,
        }
    }
}

#[derive(Debug)]
pub(super) struct Message {
    parts: VecDeque<Bytes>,
    total: u64,
    left: u64,
    started: bool,
}

impl Message {
    pub(super) fn new(parts: Vec<Bytes>) -> Self {
        let mut parts = VecDeque::from(parts);
        parts.retain(|part| !part.is_empty());
        let total = parts.iter().map(|part| part.len() as u64).sum();
        Self {
            parts,
            total,
            left: total,
            started: false,
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn is_started(&self) -> bool {
        self.started
    }

    pub(super) fn is_finished(&self) -> bool {
        self.started && self.left == 0
    }

    /// Moves the next fragment, of `size` bytes, into `out`. Parts are shared, never copied.
    pub(super) fn cut(&mut self, stream: u32, size: usize, out: &mut Batch) {
        let size = (size as u64).min(self.left) as usize;
        let header = if self.started { 5 } else { 13 };
        let mut bytes = [0; super::batch::HEADER];
        bytes[..4].copy_from_slice(&((header + size) as u32).to_be_bytes());
        bytes[4] = if self.started { MORE } else { FIRST };
        bytes[5..9].copy_from_slice(&stream.to_be_bytes());
        bytes[9..].copy_from_slice(&self.total.to_be_bytes());
        out.push_header(&bytes[..4 + header], self.total);
        self.started = true;
        self.left -= size as u64;
        let mut need = size;
        while need > 0
            && let Some(mut part) = self.parts.pop_front()
        {
            if part.len() > need {
                let rest = part.split_off(need);
                self.parts.push_front(rest);
            }
            need -= part.len();
            out.push_part(part);
        }
    }
}

/// A sender's items in order.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) sender: u64,
    /// Bytes that the lane may still send in this turn, or saved for its next one.
    pub(super) deficit: usize,
    pub(super) items: VecDeque<Item>,
    /// Items that have left; so an item is found by its number, however many have left since.
    pub(super) gone: u64,
}

impl Lane {
    /// Bytes that the next item costs, if a message is cut into fragments of `fragment` bytes.
    pub(super) fn next_size(&self, fragment: usize) -> usize {
        match self.items.front() {
            Some(Item::Chunk(bytes) | Item::Latest { frame: bytes, .. }) => bytes.len(),
            Some(Item::Message(message)) => message.left.min(fragment as u64) as usize,
            None => 0,
        }
    }

    /// The message that is next, if it is one.
    pub(super) fn next_message(&self) -> Option<&Message> {
        match self.items.front() {
            Some(Item::Message(message)) => Some(message),
            _ => None,
        }
    }
}

/// Lanes by sender. A lane is there while it has items, its memory is reused.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    index: HashMap<u64, u32, Folding>,
    slab: Vec<Lane>,
    free: Vec<u32>,
}

impl Lanes {
    pub(super) fn has_items(&self, sender: u64) -> bool {
        self.index
            .get(&sender)
            .is_some_and(|&lane| !self.slab[lane as usize].items.is_empty())
    }

    pub(super) fn find(&self, sender: u64) -> Option<u32> {
        self.index.get(&sender).copied()
    }

    #[inline]
    pub(super) fn find_or_open(&mut self, sender: u64) -> u32 {
        let Self { index, slab, free } = self;
        *index.entry(sender).or_insert_with(|| {
            let lane = free.pop().unwrap_or_else(|| {
                slab.push(Lane::default());
                (slab.len() - 1) as u32
            });
            slab[lane as usize].sender = sender;
            lane
        })
    }

    #[inline]
    pub(super) fn lane(&mut self, lane: u32) -> &mut Lane {
        &mut self.slab[lane as usize]
    }

    /// Gives back a lane that has no items.
    pub(super) fn close(&mut self, number: u32) {
        let lane = &mut self.slab[number as usize];
        lane.deficit = 0;
        lane.gone = 0;
        if lane.items.capacity() > IDLE_ITEMS {
            lane.items = VecDeque::new();
        }
        self.index.remove(&lane.sender);
        self.free.push(number);
        if self.index.is_empty() && self.slab.len() > IDLE_LANES {
            *self = Self::default();
        }
    }
}

pub(super) type Folding = BuildHasherDefault<Fold>;

/// Hashes integers by one multiplication whose upper half is folded onto the lower.
///
/// Sender ids are made by this node, so nobody can aim for collisions.
#[derive(Debug, Default)]
pub(super) struct Fold(u64);

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0
    }

    #[inline]
    fn write_u64(&mut self, value: u64) {
        // The fractional digits of the golden ratio: odd, without a pattern.
        let wide = u128::from(self.0 ^ value ^ 0x51_7c_c1_b7) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (wide >> 64) as u64 ^ wide as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }
}
