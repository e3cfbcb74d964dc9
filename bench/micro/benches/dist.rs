//! What a message of 64 bytes costs to pack for a stock node and to unpack from one:
//! `cargo bench -p partisan-micro --bench dist`.

use std::fmt;
use std::hint::black_box;

use bytes::{Buf, Bytes};
use divan::{Bencher, Divan};
use partisan::wire::dist::{Chunks, Control, Decoder, DistLimits, Encoder, EncoderConfig, Signal};
use partisan::wire::flags::Flags;
use partisan::wire::term::{Pid, Reference, Value};

fn main() {
    for case in cases() {
        let packet = case.packets().pop().expect("two packets");
        let got = case.warm_decoder().packet(packet);
        assert_eq!(got, Ok(Some(case.signal())), "{case}");
    }
    Divan::from_args().main();
}

#[derive(Clone, Copy)]
struct Case {
    operation: &'static str,
    form: &'static str,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.operation, self.form)
    }
}

fn cases() -> impl Iterator<Item = Case> {
    let forms = ["cached", "bare", "pass-through"];
    let operations = ["send", "reg_send", "alias_send"];
    forms
        .into_iter()
        .flat_map(move |form| operations.map(|operation| Case { operation, form }))
}

fn pid(node: &str, id: u32) -> Pid {
    Pid {
        node: node.into(),
        id,
        serial: 0,
        creation: 1_700_000_000,
    }
}

impl Case {
    fn agreed(self) -> Flags {
        let without = match self.form {
            "cached" => Flags(0),
            "bare" => Flags::DIST_HDR_ATOM_CACHE,
            _ => Flags::DIST_HDR_ATOM_CACHE.with(Flags::FRAGMENTS),
        };
        // As towards OTP 25 and 27.
        Flags::STOCK.without(without.with(Flags::ALTACT_SIG))
    }

    fn signal(self) -> Signal {
        let (from, to) = (
            pid("service@host.example", 91),
            pid("rust@host.example", 12),
        );
        let control = match self.operation {
            "send" => Control::Send {
                from: Some(from),
                to,
            },
            "reg_send" => Control::RegSend {
                from,
                to: "echo".into(),
            },
            _ => Control::AliasSend {
                from,
                alias: Reference {
                    node: "rust@host.example".into(),
                    creation: 1_700_000_000,
                    words: [1, 2, 3].into(),
                },
            },
        };
        let message = [
            Value::atom("data"),
            Value::from(7),
            Value::binary(vec![7; 48]),
        ];
        let payload = Value::tuple(message).encode().expect("a term");
        assert_eq!(payload.len(), 64);
        Signal {
            control,
            trace: None,
            payload: Some(payload),
        }
    }

    fn encoder(self) -> Encoder {
        Encoder::new(self.agreed(), EncoderConfig::default())
    }

    /// The signal twice: the first packet may bring the atoms of the second.
    fn packets(self) -> Vec<Bytes> {
        let (mut encoder, mut out) = (self.encoder(), Chunks::new());
        let signal = self.signal();
        let packet = |_| {
            encoder.encode(&signal, 1, &mut out).expect("sendable");
            let length = out.get_u32() as usize;
            out.copy_to_bytes(length)
        };
        (0..2).map(packet).collect()
    }

    fn warm_decoder(self) -> Decoder {
        let mut decoder = Decoder::new(self.agreed(), DistLimits::default());
        decoder.packet(self.packets().remove(0)).expect("a signal");
        decoder
    }
}

/// Into a buffer that is emptied by every 64 kB, as a socket would.
#[divan::bench(args = cases())]
fn encode(bencher: Bencher<'_, '_>, case: &Case) {
    let (mut encoder, mut out) = (case.encoder(), Chunks::new());
    let signal = case.signal();
    bencher.bench_local(|| {
        if out.len() > 64 << 10 {
            out.advance(out.len());
        }
        encoder.encode(black_box(&signal), 1, &mut out).is_ok()
    });
}

/// To an owned signal that shares no memory with the packet.
#[divan::bench(args = cases())]
fn decode(bencher: Bencher<'_, '_>, case: &Case) {
    let mut decoder = case.warm_decoder();
    let packet = case.packets().pop().expect("two packets");
    bencher.bench_local(|| decoder.packet(black_box(&packet).clone()));
}
