//! The atom cache of a connection.
//!
//! Each direction has 2048 slots. The header of a packet lists up to 255 slots and fills those
//! that are new; the terms behind it name an atom by its place in that list
//! (`ATOM_CACHE_REF`). Sender and receiver change their tables at the same packet because
//! packets arrive in order (`erl_ext_dist`, "Distribution Header").
//!
//! The header's flags are half bytes, low half first: bit 3 says that the atom is new, the other
//! bits are the high bits of its slot. One more half byte follows those of the atoms; its lowest
//! bit says that the lengths of new atoms take two bytes.

use super::DistError;
use crate::limits::MAX_ATOM_CHARS;
use crate::wire::reader;
use std::sync::Arc;

/// Slots of one direction: 8 segments of 256.
const SLOTS: usize = 2048;

/// Most atoms in one header.
const MAX_REFERENCES: usize = 255;

/// What the peer has put into the slots.
pub(super) struct ReceiverCache {
    slots: Vec<Option<Arc<str>>>,
}

impl ReceiverCache {
    pub(super) fn new() -> Self {
        Self {
            slots: vec![None; SLOTS],
        }
    }

    /// Reads the list of a header, from its count on, and leaves the list's atoms in `table`.
    pub(super) fn read(
        &mut self,
        input: &mut &[u8],
        table: &mut Vec<Arc<str>>,
    ) -> Result<(), DistError> {
        table.clear();
        let cut = || DistError::Truncated("list of cached atoms");
        let count = usize::from(reader::u8(input).ok_or_else(cut)?);
        if count == 0 {
            return Ok(());
        }
        let flags = reader::bytes(input, count / 2 + 1).ok_or_else(cut)?;
        let half = |index: usize| {
            let byte = flags.get(index / 2).copied().unwrap_or_default();
            if index.is_multiple_of(2) {
                byte & 15
            } else {
                byte >> 4
            }
        };
        let long = half(count) & 1 != 0;
        for index in 0..count {
            let flags = half(index);
            let low = reader::u8(input).ok_or_else(cut)?;
            let number = u16::from(flags & 7) << 8 | u16::from(low);
            // The segment has three bits, so there is always such a slot.
            let Some(slot) = self.slots.get_mut(usize::from(number)) else {
                return Err(DistError::EmptySlot(number));
            };
            if flags & 8 != 0 {
                let length = if long {
                    reader::u16(input).map(usize::from)
                } else {
                    reader::u8(input).map(usize::from)
                };
                let text = length.and_then(|length| reader::bytes(input, length));
                *slot = Some(text_of(text.ok_or_else(cut)?)?.into());
            }
            match slot {
                Some(atom) => table.push(atom.clone()),
                None => return Err(DistError::EmptySlot(number)),
            }
        }
        Ok(())
    }
}

fn text_of(bytes: &[u8]) -> Result<&str, DistError> {
    let text = std::str::from_utf8(bytes).map_err(|_| DistError::CachedAtom("not UTF-8"))?;
    if bytes.len() > MAX_ATOM_CHARS && text.chars().count() > MAX_ATOM_CHARS {
        return Err(DistError::CachedAtom("longer than 255 characters"));
    }
    Ok(text)
}

/// What we have put into the peer's slots, and the list of the packet that is being written.
///
/// An atom has one slot, by its hash. Where another atom of the same packet needs that slot, the
/// atom travels as text, as it does from the VM.
pub(super) struct SenderCache {
    slots: Vec<Slot>,
    /// Number of the packet that is being written. Slots that carry it are on its list.
    packet: u32,
    list: Vec<u16>,
}

#[derive(Clone, Default)]
struct Slot {
    atom: Option<Box<str>>,
    packet: u32,
    /// Place on the packet's list.
    place: u8,
    /// Whether the packet brings the atom.
    new: bool,
}

impl SenderCache {
    pub(super) fn new() -> Self {
        Self {
            slots: vec![Slot::default(); SLOTS],
            packet: 0,
            list: Vec::with_capacity(8),
        }
    }

    /// Begins a packet.
    pub(super) fn begin(&mut self) {
        self.list.clear();
        self.packet = self.packet.wrapping_add(1);
        if self.packet == 0 {
            // Numbers begin anew, and no slot may carry one of the last round.
            self.packet = 1;
            self.slots.iter_mut().for_each(|slot| slot.packet = 0);
        }
    }

    /// The place of that atom on the packet's list, or `None` if it has to travel as text.
    pub(super) fn refer(&mut self, text: &str) -> Option<u8> {
        // Longer ones would make all lengths of the list take two bytes.
        if text.len() > u8::MAX.into() {
            return None;
        }
        let number = slot_of(text);
        let slot = self.slots.get_mut(usize::from(number))?;
        let same = slot.atom.as_deref() == Some(text);
        if slot.packet == self.packet {
            return same.then_some(slot.place);
        }
        if self.list.len() >= MAX_REFERENCES {
            return None;
        }
        if !same {
            slot.atom = Some(text.into());
        }
        slot.new = !same;
        slot.packet = self.packet;
        slot.place = self.list.len() as u8;
        self.list.push(number);
        Some(slot.place)
    }

    /// Forgets a packet that will not be sent, and with it the atoms that it would have brought.
    pub(super) fn abandon(&mut self) {
        for number in self.list.drain(..) {
            if let Some(slot) = self.slots.get_mut(usize::from(number)) {
                if slot.new {
                    slot.atom = None;
                }
                slot.packet = 0;
            }
        }
    }

    /// Writes the packet's list, its count first.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let count = self.list.len();
        out.push(count as u8);
        if count == 0 {
            return;
        }
        let flags_at = out.len();
        out.resize(flags_at + count / 2 + 1, 0);
        for (index, number) in self.list.iter().enumerate() {
            let Some(slot) = self.slots.get(usize::from(*number)) else {
                continue;
            };
            let half = (number >> 8) as u8 | if slot.new { 8 } else { 0 };
            if let Some(byte) = out.get_mut(flags_at + index / 2) {
                *byte |= if index.is_multiple_of(2) {
                    half
                } else {
                    half << 4
                };
            }
            out.push(*number as u8);
            if slot.new {
                let text = slot.atom.as_deref().unwrap_or_default();
                out.push(text.len() as u8);
                out.extend_from_slice(text.as_bytes());
            }
        }
    }
}

/// A hash of eight bytes at a time. Who chooses atoms that collide only has them sent as text.
fn slot_of(text: &str) -> u16 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = text.len() as u64;
    let mut mix = |word: u64| {
        hash = (hash ^ word).wrapping_mul(FACTOR);
        hash ^= hash >> 29;
    };
    let (words, rest) = text.as_bytes().as_chunks();
    words.iter().for_each(|word| mix(u64::from_le_bytes(*word)));
    mix(rest
        .iter()
        .fold(0, |word, byte| word << 8 | u64::from(*byte)));
    (hash.wrapping_mul(FACTOR) >> 53) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(cache: &SenderCache) -> Vec<u8> {
        let mut out = Vec::new();
        cache.write(&mut out);
        out
    }

    fn receive(cache: &mut ReceiverCache, bytes: &[u8]) -> Result<Vec<String>, DistError> {
        let mut table = Vec::new();
        let mut input = bytes;
        cache.read(&mut input, &mut table)?;
        assert!(input.is_empty());
        Ok(table.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn atoms_travel_once() {
        let (mut sender, mut receiver) = (SenderCache::new(), ReceiverCache::new());
        for (packet, length) in [(0, 16), (1, 6)] {
            sender.begin();
            for (place, text) in ["a@b", "", "echo", "a@b"].into_iter().enumerate() {
                let expected = if place == 3 { 0 } else { place as u8 };
                assert_eq!(sender.refer(text), Some(expected), "packet {packet}");
            }
            let list = list(&sender);
            let got = receive(&mut receiver, &list).unwrap();
            assert_eq!(got, ["a@b", "", "echo"]);
            assert_eq!(list.len(), length, "{list:?}");
        }
    }

    #[test]
    fn what_was_abandoned_travels_again() {
        let mut sender = SenderCache::new();
        sender.begin();
        sender.refer("x");
        sender.abandon();
        sender.begin();
        sender.refer("x");
        assert_eq!(
            receive(&mut ReceiverCache::new(), &list(&sender)).unwrap(),
            ["x"]
        );
    }

    #[test]
    fn a_slot_is_taken_over_but_not_twice_in_one_packet() {
        let mut names = (0..).map(|n| n.to_string());
        let first = names.next().unwrap();
        let second = names.find(|name| slot_of(name) == slot_of(&first)).unwrap();
        let (mut sender, mut receiver) = (SenderCache::new(), ReceiverCache::new());
        for (one, other) in [(&first, &second), (&second, &first), (&first, &second)] {
            sender.begin();
            assert_eq!(sender.refer(one), Some(0));
            assert_eq!(sender.refer(other), None);
            assert_eq!(
                receive(&mut receiver, &list(&sender)).unwrap(),
                [one.as_str()]
            );
        }
    }

    #[test]
    fn a_packet_refers_to_255_atoms_at_most() {
        let (mut sender, mut receiver) = (SenderCache::new(), ReceiverCache::new());
        sender.begin();
        let taken = (0..2000).filter(|n: &i32| sender.refer(&n.to_string()).is_some());
        assert_eq!(taken.count(), 255);
        assert_eq!(receive(&mut receiver, &list(&sender)).unwrap().len(), 255);
        sender.begin();
        assert_eq!(sender.refer(&"é".repeat(128)), None);
    }

    #[test]
    fn long_atoms_have_long_lengths() {
        let text = "é".repeat(255);
        let mut bytes = vec![1, 0x17 | 8, 0xff, 1, 254];
        bytes.extend(text.as_bytes());
        assert_eq!(
            receive(&mut ReceiverCache::new(), &bytes).unwrap(),
            [text.as_str()]
        );
        let short = Err(DistError::Truncated("list of cached atoms"));
        bytes[4] = 255;
        assert_eq!(receive(&mut ReceiverCache::new(), &bytes), short);
    }

    #[test]
    fn hostile_lists_are_refused() {
        let mut cache = ReceiverCache::new();
        for bytes in [
            &[][..],
            &[1],
            &[1, 8],
            &[1, 8, 0],
            &[1, 8, 0, 3, b'a', b'b'],
            &[1, 0x18, 0, 0],
            &[255, 0, 0],
        ] {
            let cut = Err(DistError::Truncated("list of cached atoms"));
            assert_eq!(receive(&mut cache, bytes), cut, "{bytes:?}");
        }
        assert_eq!(
            receive(&mut cache, &[1, 3, 5]),
            Err(DistError::EmptySlot(0x305))
        );
        assert_eq!(
            receive(&mut cache, &[1, 8, 0, 1, 0xff]),
            Err(DistError::CachedAtom("not UTF-8"))
        );
        let mut long = vec![1, 0x18, 0, 1, 0];
        long.extend([b'a'; 256]);
        assert_eq!(
            receive(&mut cache, &long),
            Err(DistError::CachedAtom("longer than 255 characters"))
        );
    }
}
