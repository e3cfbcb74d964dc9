//! Signals to packets.
//!
//! A packet has a header if both nodes have offered the atom cache or fragments, as the VM
//! demands (`erts_prepare_dist_ext`); else it is of the pass-through form. The cache serves the
//! control message alone: names of nodes and processes, which every signal repeats. The payload
//! goes out as it was encoded, without being looked at.

use super::cache::SenderCache;
use super::decoder::{FRAGMENT, HEADER, PASS_THROUGH};
use super::fragments::put_front;
use super::write::Writer;
use super::{Chunks, Control, DistError, Fragments, Signal};
use crate::limits;
use crate::wire::flags::Flags;
use crate::wire::term::{Form, Term, tag};
use bytes::Bytes;
use std::collections::VecDeque;

/// How an [`Encoder`] works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncoderConfig {
    /// Bytes of control message and payload in one fragment; at least 1.
    pub fragment_bytes: usize,
}

impl Default for EncoderConfig {
    fn default() -> Self {
        Self {
            fragment_bytes: limits::DIST_FRAGMENT_BYTES,
        }
    }
}

/// Writes what one peer is sent on one connection.
pub struct Encoder {
    agreed: Flags,
    config: EncoderConfig,
    cache: Option<SenderCache>,
    /// The control message at hand: it is written before the header that lists its atoms.
    control: Vec<u8>,
    header: Vec<u8>,
}

impl Encoder {
    /// For a connection on which both nodes have offered `agreed`.
    #[must_use]
    pub fn new(agreed: Flags, config: EncoderConfig) -> Self {
        let cache = agreed.contains(Flags::DIST_HDR_ATOM_CACHE);
        Self {
            agreed,
            config,
            cache: cache.then(SenderCache::new),
            control: Vec::with_capacity(128),
            header: Vec::with_capacity(64),
        }
    }

    /// Appends a packet with its length to `out`; of a large signal only the first fragment, and
    /// returns what gives the others.
    ///
    /// Packets must reach the peer in the order in which they were encoded. `sequence` names the
    /// fragments of this signal: it must not be 0, nor that of a signal of which fragments are
    /// still to be sent.
    ///
    /// After an error nothing has been appended, and the encoder goes on as before.
    pub fn encode(
        &mut self,
        signal: &Signal,
        sequence: u64,
        out: &mut Chunks,
    ) -> Result<Option<Fragments>, DistError> {
        self.start();
        let written = self.packet(signal, sequence, out);
        if written.is_err()
            && let Some(cache) = &mut self.cache
        {
            cache.abandon();
        }
        written
    }

    /// The same for a message whose `payload`, with its version byte, is one small piece.
    pub fn small(
        &mut self,
        control: &Control,
        payload: &[u8],
        sequence: u64,
        out: &mut Chunks,
    ) -> Result<Option<Fragments>, DistError> {
        self.start();
        let headers = self.headers();
        let written = self.writer().message(control);
        let bare = payload.get(usize::from(headers)..).unwrap_or_default();
        if written.is_err() || self.control.len() + bare.len() > self.config.fragment_bytes {
            if let Some(cache) = &mut self.cache {
                cache.abandon();
            }
            written?;
            let payload = Term::from_checked(Bytes::copy_from_slice(payload), Vec::new(), None);
            let signal = Signal {
                control: control.clone(),
                trace: None,
                payload: Some(payload),
            };
            return self.encode(&signal, sequence, out);
        }
        self.whole(bare.len(), out)?;
        out.put_slice(bare);
        Ok(None)
    }

    /// Makes room for the control message of the next signal.
    fn start(&mut self) {
        self.control.clear();
        self.header.clear();
        if !self.headers() {
            self.control.push(tag::VERSION);
        }
        if let Some(cache) = &mut self.cache {
            cache.begin();
        }
    }

    fn writer(&mut self) -> Writer<'_> {
        Writer {
            agreed: self.agreed,
            cache: self.cache.as_mut(),
            out: &mut self.control,
        }
    }

    /// Whether packets have headers.
    fn headers(&self) -> bool {
        self.cache.is_some() || self.agreed.contains(Flags::FRAGMENTS)
    }

    fn packet(
        &mut self,
        signal: &Signal,
        sequence: u64,
        out: &mut Chunks,
    ) -> Result<Option<Fragments>, DistError> {
        let fragments = self.agreed.contains(Flags::FRAGMENTS);
        let headers = self.headers();
        let payload = self.writer().signal(signal)?;
        let length = payload.map_or(0, |term| term.len() - usize::from(headers));
        let size = self.config.fragment_bytes.max(1);
        if fragments
            && let Some(payload) = payload
            && self.control.len() + length > size
        {
            return self.fragmented(payload, length, sequence, out).map(Some);
        }

        self.whole(length, out)?;
        if let Some(payload) = payload {
            put_payload(payload, headers, out);
        }
        Ok(None)
    }

    /// Appends all of a packet that is not a fragment up to its payload, of which `payload` bytes
    /// will follow.
    fn whole(&mut self, payload: usize, out: &mut Chunks) -> Result<(), DistError> {
        if self.headers() {
            self.header.extend([tag::VERSION, HEADER]);
            self.list();
        } else {
            self.header.push(PASS_THROUGH);
        }
        self.begin(payload, out)
    }

    /// Writes the list of cached atoms.
    fn list(&mut self) {
        match &self.cache {
            Some(cache) => cache.write(&mut self.header),
            None => self.header.push(0),
        }
    }

    /// Appends all of a packet up to its payload, of which `payload` bytes will follow.
    fn begin(&mut self, payload: usize, out: &mut Chunks) -> Result<(), DistError> {
        let bytes = self.header.len() + self.control.len() + payload;
        let length = u32::try_from(bytes).map_err(|_| DistError::TooLarge {
            bytes: bytes as u64,
            limit: u32::MAX.into(),
        })?;
        out.put_slice(&length.to_be_bytes());
        out.put_slice(&self.header);
        out.put_slice(&self.control);
        Ok(())
    }

    fn fragmented(
        &mut self,
        payload: &Term,
        length: usize,
        sequence: u64,
        out: &mut Chunks,
    ) -> Result<Fragments, DistError> {
        if sequence == 0 {
            return Err(DistError::Unsendable {
                signal: "a large signal",
                why: "its sequence is 0",
            });
        }
        let size = self.config.fragment_bytes.max(1);
        // All of the control message has to be in the first fragment, however large it is.
        let first = size.saturating_sub(self.control.len());
        let mut pieces: VecDeque<Bytes> = payload.pieces().into();
        let rest = length - first;
        let count = 1 + rest.div_ceil(size) as u64;
        self.header.extend([tag::VERSION, FRAGMENT]);
        self.header.extend(sequence.to_be_bytes());
        self.header.extend(count.to_be_bytes());
        self.list();
        self.begin(first, out)?;
        put_front(&mut pieces, first, out);
        Ok(Fragments::new(sequence, pieces, rest, size))
    }
}

fn put_payload(payload: &Term, headers: bool, out: &mut Chunks) {
    let skeleton = payload.skeleton();
    if payload.form() == Form::Whole && skeleton.len() < limits::WRITE_IN_PLACE_BYTES {
        out.put_slice(skeleton.get(usize::from(headers)..).unwrap_or_default());
        return;
    }
    if !headers {
        out.put_slice(&[tag::VERSION]);
    }
    for piece in payload.pieces() {
        out.put_bytes(piece);
    }
}
