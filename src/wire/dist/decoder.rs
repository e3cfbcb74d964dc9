//! Packets to signals.
//!
//! A packet comes in one of four forms, told by its first bytes (`erts_prepare_dist_ext` in
//! `external.c`). Its control message and payload follow without a byte between them.
//!
//! | first bytes | what follows |
//! |-------------|--------------|
//! | 112         | two whole terms, each with its version byte |
//! | 131, 68     | the list of cached atoms, two terms without version bytes |
//! | 131, 69     | sequence, fragment number, then as 68, cut off |
//! | 131, 70     | sequence, fragment number, more of the payload |
//!
//! Fragments of one signal count down to 1; those of several signals may be mixed. The first one
//! holds all of the header and of the control message. The atoms of the list are those at the
//! time of the first fragment, however the cache changes until the last one.

use super::cache::ReceiverCache;
use super::fields::{Fields, Names};
use super::read::{Follows, Head, read};
use super::{DistError, Signal};
use crate::limits;
use crate::wire::flags::Flags;
use crate::wire::reader;
use crate::wire::term::{Start, Term, TermLimits, normalise, tag};
use bytes::Bytes;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

/// First byte of the oldest form.
pub(super) const PASS_THROUGH: u8 = 112;
/// Second byte of a packet with a header.
pub(super) const HEADER: u8 = 68;
/// Second byte of the first of several fragments.
pub(super) const FRAGMENT: u8 = 69;
/// Second byte of the other fragments.
pub(super) const MORE: u8 = 70;

/// What a peer's signals may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DistLimits {
    /// Of each term.
    pub term: TermLimits,
    /// Largest signal, in bytes.
    pub message_bytes: u64,
    /// Most fragmented signals under way.
    pub open_sequences: usize,
    /// Bytes that those may hold beyond one signal of the largest size.
    pub open_bytes: u64,
}

impl Default for DistLimits {
    fn default() -> Self {
        Self {
            term: TermLimits::default(),
            message_bytes: limits::MAX_MESSAGE_BYTES,
            open_sequences: limits::MAX_OPEN_SEQUENCES,
            open_bytes: limits::MAX_OPEN_SEQUENCE_BYTES,
        }
    }
}

/// Reads what one peer sends on one connection.
pub struct Decoder {
    agreed: Flags,
    limits: DistLimits,
    cache: Option<ReceiverCache>,
    names: Names,
    /// The header's list of the packet at hand.
    atoms: Vec<Arc<str>>,
    open: HashMap<u64, Sequence>,
    open_bytes: u64,
}

/// A signal of which some fragments are missing.
struct Sequence {
    head: Head,
    atoms: Vec<Arc<str>>,
    /// The payload so far. Copied out of the packets, so that no fragment holds on to the
    /// buffer that it was read into.
    payload: Vec<u8>,
    /// Number of the fragment to come.
    next: u64,
    /// What it counts for among the bytes of all.
    charge: u64,
}

impl Decoder {
    /// For a connection on which both nodes have offered `agreed`.
    #[must_use]
    pub fn new(agreed: Flags, limits: DistLimits) -> Self {
        let cache = agreed.contains(Flags::DIST_HDR_ATOM_CACHE);
        Self {
            agreed,
            limits,
            cache: cache.then(ReceiverCache::new),
            names: Names::default(),
            atoms: Vec::new(),
            open: HashMap::new(),
            open_bytes: 0,
        }
    }

    /// Reads one packet without its length. `None` if it is a tick, or if fragments are missing.
    ///
    /// After an error the connection has to be closed.
    pub fn packet(&mut self, packet: Bytes) -> Result<Option<Signal>, DistError> {
        let mut input: &[u8] = &packet;
        match packet[..] {
            [] => return Ok(None),
            [PASS_THROUGH, tag::VERSION, ..] => return self.pass_through(&packet).map(Some),
            [tag::VERSION, HEADER, ..] if self.headers() => {
                input = input.get(2..).unwrap_or_default();
                return self.header(&packet, input).map(Some);
            }
            [tag::VERSION, kind @ (FRAGMENT | MORE), ..]
                if self.agreed.contains(Flags::FRAGMENTS) =>
            {
                input = input.get(2..).unwrap_or_default();
                let cut = || DistError::Truncated("fragment header");
                let sequence = reader::u64(&mut input).ok_or_else(cut)?;
                let fragment = reader::u64(&mut input).ok_or_else(cut)?;
                return if kind == FRAGMENT {
                    self.first(&packet, input, sequence, fragment)
                } else {
                    self.more(input, sequence, fragment)
                };
            }
            _ => {}
        }
        Err(DistError::Form(packet.iter().take(4).copied().collect()))
    }

    /// Fragmented signals of which something is missing.
    #[must_use]
    pub fn open_sequences(&self) -> usize {
        self.open.len()
    }

    /// Either flag makes the VM send headers.
    fn headers(&self) -> bool {
        self.cache.is_some() || self.agreed.contains(Flags::FRAGMENTS)
    }

    fn pass_through(&mut self, packet: &Bytes) -> Result<Signal, DistError> {
        self.bounded(packet.len() as u64)?;
        self.atoms.clear();
        let (head, at) = self.control(packet, 2)?;
        finish(head, packet, at, Start::Version, &[], &self.limits.term)
    }

    fn header(&mut self, packet: &Bytes, input: &[u8]) -> Result<Signal, DistError> {
        self.bounded(packet.len() as u64)?;
        let at = self.list(packet, input)?;
        let (head, at) = self.control(packet, at)?;
        finish(
            head,
            packet,
            at,
            Start::Bare,
            &self.atoms,
            &self.limits.term,
        )
    }

    /// Reads the header's list; returns the offset of the control message.
    fn list(&mut self, packet: &Bytes, mut input: &[u8]) -> Result<usize, DistError> {
        match &mut self.cache {
            Some(cache) => cache.read(&mut input, &mut self.atoms)?,
            None => {
                self.atoms.clear();
                match reader::u8(&mut input) {
                    Some(0) => {}
                    Some(_) => return Err(DistError::CachedAtom("not agreed on: no atom cache")),
                    None => return Err(DistError::Truncated("list of cached atoms")),
                }
            }
        }
        Ok(packet.len() - input.len())
    }

    fn control(&mut self, packet: &Bytes, at: usize) -> Result<(Head, usize), DistError> {
        let term = &self.limits.term;
        let mut fields = Fields::new(packet, at, &self.atoms, &mut self.names, term);
        let head = read(&mut fields)?;
        Ok((head, fields.at()))
    }

    fn bounded(&self, bytes: u64) -> Result<(), DistError> {
        let limit = self.limits.message_bytes;
        if bytes > limit {
            return Err(DistError::TooLarge { bytes, limit });
        }
        Ok(())
    }

    fn first(
        &mut self,
        packet: &Bytes,
        input: &[u8],
        sequence: u64,
        fragment: u64,
    ) -> Result<Option<Signal>, DistError> {
        // The VM takes a sequence of number 0 for none.
        if sequence == 0 || fragment == 0 {
            return Err(DistError::FragmentNumber { sequence, fragment });
        }
        if self.open.contains_key(&sequence) {
            return Err(DistError::SequenceOpen(sequence));
        }
        if fragment == 1 {
            return self.header(packet, input).map(Some);
        }
        if self.open.len() >= self.limits.open_sequences {
            return Err(DistError::Sequences(self.limits.open_sequences));
        }
        let at = self.list(packet, input)?;
        let (head, at) = self.control(packet, at)?;
        let atoms = self.atoms.clone();
        let payload = packet.get(at..).unwrap_or_default();
        let fixed = size_of::<Sequence>() + size_of_val(&atoms[..]);
        let charge = (fixed + packet.len()) as u64;
        self.bounded(packet.len() as u64)?;
        self.charge(charge)?;
        let open = Sequence {
            head,
            atoms,
            payload: payload.to_vec(),
            next: fragment - 1,
            charge,
        };
        self.open.insert(sequence, open);
        Ok(None)
    }

    fn charge(&mut self, bytes: u64) -> Result<(), DistError> {
        let limit = self.limits.message_bytes + self.limits.open_bytes;
        self.open_bytes += bytes;
        if self.open_bytes > limit {
            return Err(DistError::OpenBytes(limit));
        }
        Ok(())
    }

    fn more(
        &mut self,
        bytes: &[u8],
        sequence: u64,
        fragment: u64,
    ) -> Result<Option<Signal>, DistError> {
        let added = bytes.len() as u64;
        self.charge(added)?;
        let limit = self.limits.message_bytes;
        let Entry::Occupied(mut entry) = self.open.entry(sequence) else {
            return Err(DistError::SequenceUnknown(sequence));
        };
        let open = entry.get_mut();
        if open.next != fragment {
            return Err(DistError::FragmentOrder {
                sequence,
                expected: open.next,
                got: fragment,
            });
        }
        open.charge += added;
        let size = open.payload.len() as u64 + added;
        if size > limit {
            return Err(DistError::TooLarge { bytes: size, limit });
        }
        if open.head.follows == Follows::Payload {
            open.payload.extend_from_slice(bytes);
        }
        if fragment > 1 {
            open.next = fragment - 1;
            return Ok(None);
        }
        let mut open = entry.remove();
        self.open_bytes = self.open_bytes.saturating_sub(open.charge);
        // It has grown by doubling, and large binaries of the term will hold on to it.
        open.payload.shrink_to_fit();
        let payload = Bytes::from(open.payload);
        finish(
            open.head,
            &payload,
            0,
            Start::Bare,
            &open.atoms,
            &self.limits.term,
        )
        .map(Some)
    }
}

/// Reads the payload, which is all that is left.
fn finish(
    head: Head,
    bytes: &Bytes,
    at: usize,
    start: Start,
    atoms: &[Arc<str>],
    limits: &TermLimits,
) -> Result<Signal, DistError> {
    let operation = head.name;
    let mut payload: Option<Term> = head.reason;
    let mut end = at;
    match head.follows {
        Follows::Anything => end = bytes.len(),
        Follows::Nothing => {}
        Follows::Payload if at >= bytes.len() => return Err(DistError::NoPayload(operation)),
        Follows::Payload => {
            let (term, length) = normalise(&bytes.slice(at..), start, atoms, limits)
                .map_err(|source| DistError::Term { operation, source })?;
            payload = Some(term);
            end += length;
        }
    }
    if end != bytes.len() {
        return Err(DistError::Trailing {
            operation,
            bytes: bytes.len().saturating_sub(end),
        });
    }
    Ok(Signal {
        control: head.control,
        trace: head.trace,
        payload,
    })
}
