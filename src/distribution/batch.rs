//! What one sender sends a stock node in one turn.
//!
//! A small message is not kept as a [`Signal`]: its numbers stand in a list and its payload in a buffer
//! that the whole turn shares. So a message costs its sender a short copy, the writer takes a whole
//! turn at once, and neither allocates, nor counts references to names that both use all the time.

use std::collections::VecDeque;

use crate::limits;
use crate::signals::Local;
use crate::wire::dist::{Chunks, Control, DistError, Encoder, Fragments, Signal};
use crate::wire::identity::Identity;
use crate::wire::term::{Atom, Form, Pid, Term};

/// What a signal takes beside its payload while it waits.
const OVERHEAD: usize = 128;

/// What is to be sent.
pub(crate) enum Letter<'a> {
    /// A small message from a process of this node; see [`Letter::message`].
    Small(Local, To<'a>, &'a [u8]),
    /// Whatever it may be.
    Signal(Box<Signal>),
}

/// Who gets a small message.
pub(crate) enum To<'a> {
    /// A process of the peer.
    Pid(&'a Pid),
    /// Whoever is registered there.
    Name(&'a str),
}

impl<'a> Letter<'a> {
    /// A message, if it is a small one.
    pub(crate) fn message(from: Local, to: To<'a>, term: &'a Term) -> Option<Self> {
        let small = term.form() == Form::Whole && term.len() <= limits::SMALL_MESSAGE_BYTES;
        small.then(|| Self::Small(from, to, term.skeleton()))
    }

    /// Bytes that it takes while it waits.
    pub(crate) fn bytes(&self) -> usize {
        OVERHEAD
            + match self {
                Self::Small(.., payload) => payload.len(),
                Self::Signal(signal) => signal.payload.as_ref().map_or(0, Term::len),
            }
    }
}

/// What waits. `room` is what it has taken of the link's budget.
enum Item {
    Pid {
        from: Local,
        to: Local,
        creation: u32,
        payload: u32,
        room: u32,
    },
    Name {
        from: Local,
        name: u32,
        payload: u32,
        room: u32,
    },
    Signal {
        signal: Box<Signal>,
        room: u32,
    },
}

/// Letters of one sender, in order.
#[derive(Default)]
pub(crate) struct Batch {
    items: VecDeque<Item>,
    /// Names and payloads of the small messages, in order.
    bytes: Vec<u8>,
    taken: usize,
    /// Bytes of letters that did not wait for room.
    pub(crate) unasked: usize,
}

impl Batch {
    /// Appends a letter that has taken so much `room`; `None`: it did not wait for any.
    pub(crate) fn push(&mut self, letter: Letter<'_>, room: Option<u32>) {
        self.unasked += if room.is_none() { letter.bytes() } else { 0 };
        let room = room.unwrap_or_default();
        let item = match letter {
            Letter::Small(from, to, payload) => {
                let item = match to {
                    To::Pid(pid) => Item::Pid {
                        from,
                        to: Local::from(pid),
                        creation: pid.creation,
                        payload: payload.len() as u32,
                        room,
                    },
                    To::Name(name) => {
                        self.bytes.extend_from_slice(name.as_bytes());
                        Item::Name {
                            from,
                            name: name.len() as u32,
                            payload: payload.len() as u32,
                            room,
                        }
                    }
                };
                self.bytes.extend_from_slice(payload);
                item
            }
            Letter::Signal(signal) => Item::Signal { signal, room },
        };
        self.items.push_back(item);
    }

    /// True if nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Makes it as new, with the memory that it has.
    pub(crate) fn clear(&mut self) {
        self.items.clear();
        self.bytes.clear();
        (self.taken, self.unasked) = (0, 0);
    }

    fn take(&mut self, length: u32) -> &[u8] {
        let start = self.taken;
        self.taken += length as usize;
        self.bytes.get(start..self.taken).unwrap_or_default()
    }
}

/// The rest of a letter that is sent in fragments, with the room that the whole takes.
pub(crate) struct Rest {
    pub(crate) fragments: Fragments,
    pub(crate) room: u32,
}

/// Writes letters for one peer.
pub(crate) struct Scribe {
    encoder: Encoder,
    /// The control message of small messages to pids, of which only numbers change.
    by_pid: Control,
    /// That of small messages to a name.
    by_name: Control,
}

impl Scribe {
    pub(crate) fn new(encoder: Encoder, own: &Identity, peer: std::sync::Arc<str>) -> Self {
        let pid = |node, creation| Pid {
            node,
            id: 0,
            serial: 0,
            creation,
        };
        let from = pid(own.node.clone(), own.creation);
        Self {
            encoder,
            by_pid: Control::Send {
                from: Some(from.clone()),
                to: pid(peer, 0),
            },
            by_name: Control::RegSend {
                from,
                to: Atom::new(""),
            },
        }
    }

    /// Writes letters of a batch until it is empty or one has to be sent in fragments. Adds to `room` what
    /// was taken by those that are done. `failed` is told of those that can't be sent.
    pub(crate) fn write(
        &mut self,
        batch: &mut Batch,
        lane: u64,
        out: &mut Chunks,
        freed: &mut usize,
        mut failed: impl FnMut(DistError),
    ) -> Option<Rest> {
        while let Some(item) = batch.items.pop_front() {
            let (written, room) = match item {
                Item::Signal { signal, room } => (self.encoder.encode(&signal, lane, out), room),
                Item::Pid {
                    from: sender,
                    to: receiver,
                    creation,
                    payload,
                    room,
                } => {
                    if let Control::Send {
                        from: Some(from),
                        to,
                    } = &mut self.by_pid
                    {
                        (from.id, from.serial) = (sender.id, sender.serial);
                        (to.id, to.serial) = (receiver.id, receiver.serial);
                        to.creation = creation;
                    }
                    let payload = batch.take(payload);
                    (self.encoder.small(&self.by_pid, payload, lane, out), room)
                }
                Item::Name {
                    from: sender,
                    name,
                    payload,
                    room,
                } => {
                    let name = batch.take(name);
                    if let Control::RegSend { from, to } = &mut self.by_name {
                        (from.id, from.serial) = (sender.id, sender.serial);
                        if to.as_str().as_bytes() != name {
                            *to = Atom::new(String::from_utf8_lossy(name).as_ref());
                        }
                    }
                    let payload = batch.take(payload);
                    (self.encoder.small(&self.by_name, payload, lane, out), room)
                }
            };
            match written {
                Ok(Some(fragments)) => return Some(Rest { fragments, room }),
                Ok(None) => {}
                Err(e) => failed(e),
            }
            *freed += room as usize;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::dist::EncoderConfig;
    use crate::wire::flags::Flags;
    use crate::wire::term::Value;
    use bytes::Buf;

    fn bytes(out: &mut Chunks) -> Vec<u8> {
        out.copy_to_bytes(out.remaining()).to_vec()
    }

    #[test]
    fn small_messages_look_like_all_others_and_what_is_cut_holds_up_its_batch_only() {
        let own = Identity::new("own@host", 7);
        let pid = |node: &str, id, creation| Pid {
            node: node.into(),
            id,
            serial: 3,
            creation,
        };
        let cache = Flags::DIST_HDR_ATOM_CACHE;
        for agreed in [Flags(0), cache, cache.with(Flags::FRAGMENTS), Flags::STOCK] {
            for fragment_bytes in [100, limits::DIST_FRAGMENT_BYTES] {
                let config = EncoderConfig { fragment_bytes };
                let mut plain = Encoder::new(agreed, config);
                let encoder = Encoder::new(agreed, config);
                let mut scribe = Scribe::new(encoder, &own, "peer@host".into());
                let (mut batch, mut wanted) = (Batch::default(), Chunks::new());
                for size in [0, 1, 63, 300, 2, 150, 9] {
                    let term = Value::binary(vec![size as u8; size]).encode().unwrap();
                    let (from, to) = (Local { id: 1, serial: 3 }, pid("peer@host", 9, 5));
                    let sender = pid("own@host", 1, 7);
                    let name = ["one", "other"][size % 2];
                    let controls = [
                        Control::Send {
                            from: Some(sender.clone()),
                            to: to.clone(),
                        },
                        Control::RegSend {
                            from: sender,
                            to: Atom::new(name),
                        },
                    ];
                    for (to, control) in [To::Pid(&to), To::Name(name)].into_iter().zip(controls) {
                        let letter = Letter::message(from, to, &term).unwrap();
                        assert!(matches!(letter, Letter::Small(..)));
                        batch.push(letter, Some(10));
                        let signal = Signal {
                            control,
                            trace: None,
                            payload: Some(term.clone()),
                        };
                        if let Some(mut rest) = plain.encode(&signal, 4, &mut wanted).unwrap() {
                            while rest.next(&mut wanted) {}
                        }
                    }
                }
                let (mut out, mut freed) = (Chunks::new(), 0);
                let failed = |e| panic!("{e}");
                while let Some(mut rest) = scribe.write(&mut batch, 4, &mut out, &mut freed, failed)
                {
                    while rest.fragments.next(&mut out) {}
                    freed += rest.room as usize;
                }
                assert_eq!(bytes(&mut out), bytes(&mut wanted), "{agreed:?}");
                assert!(batch.is_empty());
                assert_eq!(freed, 14 * 10);
            }
        }
    }

    #[test]
    fn large_messages_are_not_copied() {
        let large = Value::binary(vec![0; limits::SMALL_MESSAGE_BYTES]);
        let large = large.encode().unwrap();
        let from = Local { id: 1, serial: 0 };
        assert!(Letter::message(from, To::Name("x"), &large).is_none());
    }
}
