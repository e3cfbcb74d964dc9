//! What each fuzz target does with its bytes. Shared with `test/corpus.rs`, which replays the
//! corpora, so that what fuzzing has found stays found.

pub mod delivery;
pub mod dist;
pub mod external;
pub mod frames;
pub mod handshake;
pub mod membership;
pub mod receive;
pub mod terms;

/// Bytes taken from the front of an input; zeros when it has run out.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn u8(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        byte
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.u8(), self.u8()])
    }

    /// A piece whose length stands before it, cut where the input ends.
    pub fn piece(&mut self) -> &'a [u8] {
        let length = usize::from(self.u16()).min(self.0.len());
        let (piece, rest) = self.0.split_at(length);
        self.0 = rest;
        piece
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
