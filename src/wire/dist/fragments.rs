//! The fragments of a large signal after the first one.

use super::Chunks;
use super::decoder::MORE;
use crate::wire::term::tag;
use bytes::Bytes;
use std::collections::VecDeque;

/// Magic, kind, sequence, fragment number.
const FRAGMENT_HEADER: usize = 18;

/// What of a signal's payload hasn't been written yet. Packets of other signals may go out in
/// between; those of this signal have to keep their order.
#[derive(Debug)]
pub struct Fragments {
    sequence: u64,
    pieces: VecDeque<Bytes>,
    left: usize,
    size: usize,
}

impl Fragments {
    /// `size` is not 0.
    pub(super) fn new(sequence: u64, pieces: VecDeque<Bytes>, left: usize, size: usize) -> Self {
        Self {
            sequence,
            pieces,
            left,
            size,
        }
    }

    /// Number of the next fragment, and so how many are left.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.left.div_ceil(self.size) as u64
    }

    /// Bytes of payload that haven't been written.
    #[must_use]
    pub fn bytes_left(&self) -> usize {
        self.left
    }

    /// Appends the next fragment and says whether more follow.
    pub fn next(&mut self, out: &mut Chunks) -> bool {
        let number = self.remaining();
        if number == 0 {
            return false;
        }
        let take = self.left.min(self.size);
        out.put_slice(&((FRAGMENT_HEADER + take) as u32).to_be_bytes());
        out.put_slice(&[tag::VERSION, MORE]);
        out.put_slice(&self.sequence.to_be_bytes());
        out.put_slice(&number.to_be_bytes());
        put_front(&mut self.pieces, take, out);
        self.left -= take;
        self.left > 0
    }
}

/// Moves the first bytes of `pieces` to `out`.
pub(super) fn put_front(pieces: &mut VecDeque<Bytes>, mut bytes: usize, out: &mut Chunks) {
    while bytes > 0 {
        let Some(piece) = pieces.front_mut() else {
            return;
        };
        if piece.len() <= bytes {
            bytes -= piece.len();
            out.put_bytes(std::mem::take(piece));
            pieces.pop_front();
        } else {
            out.put_bytes(piece.split_to(bytes));
            bytes = 0;
        }
    }
}
