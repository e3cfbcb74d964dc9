//! Bytes on their way from a queue to a socket, and the buffers that come back.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

/// Chunks up to this size are copied behind one another: cheaper than a slice each for `writev`.
const COALESCE: usize = 1024;
/// Buffers kept for reuse, in number and bytes.
const SPARE_COUNT: usize = 64;
const SPARE_BYTES: usize = 1 << 20;
/// Capacity of a new buffer. Small, because ten thousand senders may have one each.
const FIRST_CAPACITY: usize = 256;

/// Longest fragment header: length, kind, stream, total.
pub(super) const HEADER: usize = 17;

/// What one `writev` or several will write, in order.
///
/// Filled by [`Queue::take`](super::Queue::take), emptied by [`advance`](Self::advance). It is meant to be reused, and to
/// be filled again while something is left in it.
#[derive(Debug, Default)]
pub struct Batch {
    pieces: VecDeque<Piece>,
    /// Bytes of the first piece that have been written.
    offset: usize,
    /// Bytes that have not been written.
    left: usize,
    /// Bytes of whole frames that have not been written; a piece counts until all of it has.
    frames: usize,
    /// Bytes of the largest message that has had a fragment in it since it was last empty.
    largest: u64,
    finished: Vec<Vec<u8>>,
}

#[derive(Debug)]
enum Piece {
    Chunk(Vec<u8>),
    Part(Bytes),
    // The two below are no payload: they were never counted, so they don't leave an account.
    Header { bytes: [u8; HEADER], len: u8 },
    Urgent(Vec<u8>),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Piece::Chunk(bytes) | Piece::Urgent(bytes) => bytes,
            Piece::Part(bytes) => bytes,
            Piece::Header { bytes, len } => &bytes[..usize::from(*len)],
        }
    }

    fn is_counted(&self) -> bool {
        matches!(self, Piece::Chunk(_) | Piece::Part(_))
    }
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether all has been written.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Bytes left to be written, headers and control frames included.
    pub fn len(&self) -> usize {
        self.left
    }

    /// Bytes of the largest message that has been cut into fragments for this batch since it was last empty; 0: none.
    pub fn largest_message(&self) -> u64 {
        self.largest
    }

    /// Bytes of whole frames left to be written; control frames don't count.
    pub(super) fn frames_left(&self) -> usize {
        self.frames
    }

    /// Fills `out` from the start with what is to be written next; returns how many slices it set.
    pub fn io_slices<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let mut offset = self.offset;
        let mut count = 0;
        for (piece, slot) in self.pieces.iter().zip(out) {
            *slot = IoSlice::new(&piece.bytes()[offset..]);
            offset = 0;
            count += 1;
        }
        count
    }

    /// `written` bytes have reached the socket. Drops them, and returns how many of them are payload:
    /// the number for [`Queue::written`](super::Queue::written).
    pub fn advance(&mut self, written: usize) -> u64 {
        debug_assert!(
            written <= self.left,
            "more bytes written than the batch had"
        );
        let mut rest = written.min(self.left);
        let mut counted = 0;
        self.left -= rest;
        while let Some(first) = self.pieces.front() {
            let left = first.bytes().len() - self.offset;
            let step = left.min(rest);
            if first.is_counted() {
                counted += step as u64;
            }
            if step < left {
                self.offset += step;
                break;
            }
            rest -= step;
            self.offset = 0;
            if let Piece::Chunk(chunk) = first {
                self.frames -= chunk.len();
            }
            if let Some(Piece::Chunk(buffer) | Piece::Urgent(buffer)) = self.pieces.pop_front()
                && self.finished.len() < SPARE_COUNT
            {
                self.finished.push(buffer);
            }
        }
        if self.pieces.is_empty() {
            self.largest = 0;
        }
        counted
    }

    /// Appends whole frames, at most `chunk` bytes together with other ones.
    pub(super) fn push_chunk(&mut self, buffer: Vec<u8>, chunk: usize, spare: &mut Spare) {
        self.left += buffer.len();
        self.frames += buffer.len();
        if buffer.len() <= COALESCE
            && let Some(Piece::Chunk(last)) = self.pieces.back_mut()
            && last.len() + buffer.len() <= chunk
        {
            last.extend_from_slice(&buffer);
            spare.put(buffer);
        } else {
            self.pieces.push_back(Piece::Chunk(buffer));
        }
    }

    pub(super) fn push_part(&mut self, part: Bytes) {
        self.left += part.len();
        self.pieces.push_back(Piece::Part(part));
    }

    /// The header of a fragment of a message of `total` bytes, whose parts follow.
    pub(super) fn push_header(&mut self, header: &[u8], total: u64) {
        self.largest = self.largest.max(total);
        let mut bytes = [0; HEADER];
        let len = header.len().min(HEADER);
        bytes[..len].copy_from_slice(&header[..len]);
        self.left += len;
        self.pieces.push_back(Piece::Header {
            bytes,
            len: len as u8,
        });
    }

    pub(super) fn push_urgent(&mut self, frames: Vec<u8>) {
        self.left += frames.len();
        self.pieces.push_back(Piece::Urgent(frames));
    }
}

/// Buffers for reuse: a queue in its stride allocates nothing.
#[derive(Debug, Default)]
pub(super) struct Spare {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl Spare {
    pub(super) fn get(&mut self) -> Vec<u8> {
        match self.buffers.pop() {
            Some(buffer) => {
                self.bytes -= buffer.capacity();
                buffer
            }
            None => Vec::with_capacity(FIRST_CAPACITY),
        }
    }

    /// Keeps `buffer` unless that would be too much.
    pub(super) fn put(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        if capacity == 0 || capacity > SPARE_BYTES / 8 || self.buffers.len() >= SPARE_COUNT {
            return;
        }
        if self.bytes + capacity <= SPARE_BYTES {
            buffer.clear();
            self.bytes += capacity;
            self.buffers.push(buffer);
        }
    }

    pub(super) fn recycle(&mut self, batch: &mut Batch) {
        for buffer in batch.finished.drain(..) {
            self.put(buffer);
        }
    }
}
