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
                0 | 1 => Verdict::Accept {
                    cookie: cookie.to_vec(),
                    simultaneous: verdict & 4 != 0,
                },
                2 => Verdict::Nok,
                _ => Verdict::NotAllowed("fuzzing"),
            };
            outcome = self.machine.handle(Event::Verdict(verdict), &mut effects);
        }
    }
}

/// First byte: bit 0 different cookies, bit 1 extra connection; then steps.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let mode = input.u8();
    let same = mode & 1 == 0;
    let session = SessionId([9; 16]);
    let purpose = if mode & 2 == 0 {
        Purpose::First
    } else {
        Purpose::Extra { session, index: 3 }
    };
    let (theirs, ours): (&[u8], &[u8]) = (b"one", if same { b"one" } else { b"two" });
    let dialler = Role::Dialer {
        peer: "b@host".into(),
        cookie: ours.to_vec(),
        purpose,
    };
    let mut ends = [
        End::new("a@host", 1, dialler),
        End::new("b@host", 2, Role::Listener),
    ];
    let name = ends[0].step(Event::Start, 0, theirs);
    ends[1].inbox.extend(name);
    let mut meddled = false;
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
        }
        if let Link::Extra { session: id, index } = b.link {
            assert_eq!((id, index), (session, 3), "a binding was forged");
        }
    }
}
