//! A dialler and a listener with somebody between them who may change, drop, repeat and invent
//! packets. Nobody may get in who doesn't know the cookie, and both must agree on what the
//! connection is.

use std::collections::VecDeque;

use partisan::wire::flags::Flags;
use partisan::wire::handshake::{
    Config, Effect, Established, Event, Handshake, Link, Purpose, Role, SessionId, Verdict,
};
use partisan::wire::identity::Identity;

use super::Input;

struct End {
    machine: Handshake,
    inbox: VecDeque<Vec<u8>>,
    done: Option<Established>,
    over: bool,
}

impl End {
    fn new(name: &str, instance: u64, role: Role) -> Self {
        Self {
            machine: Handshake::new(Config {
                local: Identity::new(name, 7),
                flags: Flags::OURS,
                stock_flags: Flags::OURS,
                instance,
                capabilities: 0,
                nonce: [instance as u8; 16],
                challenge: 0x0102_0304 + instance as u32,
                role,
            }),
            inbox: VecDeque::new(),
            done: None,
            over: false,
        }
    }

    /// Feeds one event and those that follow from it; returns the packets for the other end.
    fn step(&mut self, event: Event<'_>, verdict: u8, cookie: &[u8]) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let mut effects = Vec::new();
        let mut outcome = self.machine.handle(event, &mut effects);
        loop {
            let mut judged = false;
            for effect in effects.drain(..) {
                match effect {
                    Effect::Send(bytes) => {
                        let length = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
                        assert_eq!(length + 2, bytes.len());
                        out.push(bytes[2..].to_vec());
                    }
                    Effect::Judge(peer) => {
                        assert!(peer.name.contains('@'));
                        judged = true;
                    }
                    Effect::Done(established) => {
                        assert!(self.done.is_none() && !self.over);
                        self.done = Some(established);
                    }
                }
            }
            if outcome.is_err() {
                assert!(self.done.is_none() || self.over || !judged);
                self.over = true;
            }
            // Formatting is where peers' bytes meet the log.
            let _ = outcome.as_ref().map_err(ToString::to_string);
            let _ = self.machine.closed().to_string();
            if !judged {
                return out;
            }
            let verdict = match verdict % 4 {
                0 => Verdict::Accept {
                    cookie: cookie.to_vec(),
                    simultaneous: verdict & 4 != 0,
                },
                1 => Verdict::Alive {
                    cookie: cookie.to_vec(),
                },
                2 => Verdict::Nok,
                _ => Verdict::NotAllowed("fuzzing"),
            };
            outcome = self.machine.handle(Event::Verdict(verdict), &mut effects);
        }
    }
}

fn old_name() -> Vec<u8> {
    let flags = (Flags::OURS.0 as u32).to_be_bytes();
    [b"n\0\x05", &flags[..], b"old@host"].concat()
}

fn complement() -> Vec<u8> {
    b"c\0\0\0\x04\0\0\0\x09".to_vec()
}

/// First byte: bit 0 different cookies, bits 1 and 2 what the dialler is: of a first connection,
/// of an extra one, stock, stock without a name; bit 3 an old name packet instead of the
/// dialler's own; then steps.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let mode = input.u8();
    let same = mode & 1 == 0;
    let session = SessionId([9; 16]);
    let purpose = match (mode >> 1) & 3 {
        0 => Purpose::First,
        1 => Purpose::Extra { session, index: 3 },
        _ => Purpose::Stock,
    };
    let name = if (mode >> 1) & 3 == 3 {
        "host"
    } else {
        "a@host"
    };
    let (theirs, ours): (&[u8], &[u8]) = (b"one", if same { b"one" } else { b"two" });
    let dialler = Role::Dialer {
        peer: "b@host".into(),
        cookie: ours.to_vec(),
        purpose,
    };
    let mut ends = [
        End::new(name, 1, dialler),
        End::new("b@host", 2, Role::Listener),
    ];
    let name = ends[0].step(Event::Start, 0, theirs);
    let mut meddled = mode & 8 != 0;
    ends[1].inbox.extend(match meddled {
        true => vec![old_name(), complement()],
        false => name,
    });
    while !input.is_empty() {
        let op = input.u8();
        let to = usize::from(op & 1);
        let verdict = op >> 5;
        let packet = match (op >> 1) & 0x7 {
            // As it was sent.
            0..=2 => ends[to].inbox.pop_front(),
            // With a byte changed.
            3 => {
                let (at, with) = (usize::from(input.u16()), input.u8());
                ends[to].inbox.pop_front().map(|mut packet| {
                    if !packet.is_empty() {
                        let at = at % packet.len();
                        packet[at] ^= with;
                        meddled |= with != 0;
                    }
                    packet
                })
            }
            // Cut, or longer.
            4 => {
                let (keep, more) = (usize::from(input.u8()), input.piece());
                ends[to].inbox.pop_front().map(|mut packet| {
                    packet.truncate(keep);
                    packet.extend_from_slice(more);
                    meddled = true;
                    packet
                })
            }
            // Lost.
            5 => {
                meddled |= ends[to].inbox.pop_front().is_some();
                None
            }
            // Twice.
            6 => {
                meddled = true;
                ends[to].inbox.front().cloned()
            }
            // Made up.
            _ => {
                meddled = true;
                Some(input.piece().to_vec())
            }
        };
        if let Some(packet) = packet {
            let out = ends[to].step(Event::Packet(&packet), verdict, theirs);
            ends[1 - to].inbox.extend(out);
        }
    }
    let [dialler, listener] = &ends;
    if !same {
        assert!(listener.done.is_none(), "in without the cookie");
        assert!(dialler.done.is_none(), "in without the cookie");
    }
    if let (Some(a), Some(b)) = (&dialler.done, &listener.done) {
        assert_eq!(&*a.peer.name, "b@host");
        if !meddled {
            assert_eq!(a.link, b.link);
            assert_eq!(a.flags, b.flags);
            let given = a.given.as_ref().map(|given| &given.node);
            assert_eq!(given, b.peer.nameless.then_some(&b.peer.name));
        }
        if let Link::Extra { session: id, index } = b.link {
            assert_eq!((id, index), (session, 3), "a binding was forged");
        }
    }
}
