//! Bytes on their way into a socket, in as few pieces as copying as little as possible allows.
//!
//! Headers and small terms are gathered in one buffer; a large binary stays where it is and is
//! written from there. A vectored write takes both in order.

use crate::limits::WRITE_IN_PLACE_BYTES;
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::IoSlice;

/// An ordered list of byte chunks. Read it as [`Buf`], best by [`Buf::chunks_vectored`].
#[derive(Debug, Default)]
pub struct Chunks {
    /// What precedes `tail`, none of it empty.
    front: VecDeque<Bytes>,
    /// Small pieces since the last large one.
    tail: BytesMut,
    /// Bytes in `front`.
    front_bytes: usize,
}

impl Chunks {
    /// No bytes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.front_bytes + self.tail.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes room for that many small bytes.
    pub fn reserve(&mut self, bytes: usize) {
        self.tail.reserve(bytes);
    }

    /// Appends a copy.
    pub fn put_slice(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
    }

    /// Appends bytes, without a copy if they are many.
    pub fn put_bytes(&mut self, bytes: Bytes) {
        if bytes.len() < WRITE_IN_PLACE_BYTES {
            self.put_slice(&bytes);
            return;
        }
        if !self.tail.is_empty() {
            self.front_bytes += self.tail.len();
            self.front.push_back(self.tail.split().freeze());
        }
        self.front_bytes += bytes.len();
        self.front.push_back(bytes);
    }
}

impl Buf for Chunks {
    fn remaining(&self) -> usize {
        self.len()
    }

    fn chunk(&self) -> &[u8] {
        self.front.front().map_or(&self.tail, |first| first)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let tail = (!self.tail.is_empty()).then_some(&self.tail[..]);
        let chunks = self.front.iter().map(|chunk| &chunk[..]).chain(tail);
        let mut filled = 0;
        for (slice, chunk) in slices.iter_mut().zip(chunks) {
            *slice = IoSlice::new(chunk);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let Some(first) = self.front.front_mut() else {
                self.tail.advance(count);
                return;
            };
            let step = count.min(first.len());
            first.advance(step);
            if first.is_empty() {
                self.front.pop_front();
            }
            self.front_bytes -= step;
            count -= step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pieces_are_gathered_and_large_ones_stay_in_place() {
        let large = Bytes::from(vec![7; WRITE_IN_PLACE_BYTES]);
        let mut chunks = Chunks::new();
        assert!(chunks.is_empty());
        chunks.put_slice(b"ab");
        chunks.put_bytes(Bytes::from_static(b"cd"));
        chunks.put_bytes(large.clone());
        chunks.put_bytes(large.clone());
        chunks.put_slice(b"e");
        assert_eq!(chunks.len(), 5 + 2 * large.len());

        let mut slices = [IoSlice::new(&[]); 8];
        assert_eq!(chunks.chunks_vectored(&mut slices), 4);
        assert_eq!(&*slices[0], b"abcd");
        assert_eq!(slices[1].as_ptr(), large.as_ptr());
        assert_eq!(slices[2].as_ptr(), large.as_ptr());
        assert_eq!(&*slices[3], b"e");
        assert_eq!(chunks.chunks_vectored(&mut slices[..2]), 2);

        chunks.advance(5);
        assert_eq!(chunks.chunk(), &large[1..]);
        chunks.advance(2 * large.len() - 1);
        assert_eq!(chunks.chunk(), b"e");
        chunks.advance(1);
        assert!(chunks.is_empty());
        assert_eq!(chunks.chunks_vectored(&mut [IoSlice::new(&[])]), 0);
    }
}
