//! What one end writes the other one reads, whatever they have agreed on.

use super::write::kind;
use super::*;
use crate::limits::{OUT_OF_BAND_BYTES, WRITE_IN_PLACE_BYTES};
use crate::wire::flags::Flags;
use crate::wire::term::{Atom, Pid, Reference, Term, Value};
use bytes::{Buf, Bytes};
use proptest::prelude::*;

/// Flags that change how signals travel.
const FORMS: [Flags; 6] = [
    Flags::DIST_HDR_ATOM_CACHE,
    Flags::FRAGMENTS,
    Flags::EXIT_PAYLOAD,
    Flags::SEND_SENDER,
    Flags::BIG_SEQTRACE_LABELS,
    Flags::ALTACT_SIG,
];

/// Flags that signals may need.
const NEEDED: Flags = Flags::UNLINK_ID
    .with(Flags::ALIAS)
    .with(Flags::SPAWN)
    .with(Flags::DIST_MONITOR)
    .with(Flags::DIST_MONITOR_NAME);

pub(super) fn agreed(forms: u8) -> Flags {
    let chosen = FORMS.iter().enumerate();
    let chosen = chosen.filter(|(bit, _)| forms >> bit & 1 == 1);
    chosen.fold(NEEDED, |flags, (_, flag)| flags.with(*flag))
}

/// Packets without their lengths.
pub(super) fn packets(out: &mut Chunks) -> Vec<Bytes> {
    let mut all = out.copy_to_bytes(out.remaining());
    let mut packets = Vec::new();
    while !all.is_empty() {
        let length = all.get_u32() as usize;
        packets.push(all.split_to(length));
    }
    packets
}

pub(super) fn pid(node: &str, id: u32) -> Pid {
    Pid {
        node: node.into(),
        id,
        serial: id / 3,
        creation: u32::MAX - id,
    }
}

pub(super) fn reference(node: &str, words: &[u32]) -> Reference {
    Reference {
        node: node.into(),
        creation: 7,
        words: words.try_into().unwrap(),
    }
}

pub(super) fn term(value: Value) -> Term {
    value.encode().unwrap()
}

/// What arrives of a signal.
fn expected(mut signal: Signal, agreed: Flags) -> Signal {
    signal.control = match signal.control {
        Control::Send { to, .. } if !agreed.contains(Flags::SEND_SENDER) => {
            Control::Send { from: None, to }
        }
        Control::AltactSend {
            priority: false,
            exit: false,
            from,
            to: Target::Alias(alias),
        } => Control::AliasSend { from, alias },
        Control::AltactSend { exit, from, to, .. } if !agreed.contains(Flags::ALTACT_SIG) => {
            match to {
                Target::Pid(to) if exit => Control::Exit2 { from, to },
                Target::Pid(to) => Control::Send {
                    from: agreed.contains(Flags::SEND_SENDER).then_some(from),
                    to,
                },
                Target::Name(to) => Control::RegSend { from, to },
                Target::Alias(alias) => Control::AliasSend { from, alias },
            }
        }
        control => control,
    };
    let label = signal
        .trace
        .as_ref()
        .and_then(|token| token.as_tuple()?.get(1)?.as_i64());
    let known = agreed.contains(Flags::BIG_SEQTRACE_LABELS)
        || label.is_some_and(|label| label.unsigned_abs() <= 1 << 20);
    if !kind(&signal.control).token || !known {
        signal.trace = None;
    }
    signal
}

fn text() -> impl Strategy<Value = Atom> {
    prop_oneof![
        4 => prop::sample::select(vec!["echo", "rex", "a", "é", ""]).prop_map(Atom::from),
        1 => "[a-zα-ω]{0,40}".prop_map(|text| Atom::new(text.as_str())),
        1 => Just(Atom::new("ü".repeat(255))),
    ]
}

fn a_pid() -> impl Strategy<Value = Pid> {
    (
        prop::sample::select(vec!["a@h", "b@h", "c@host.example"]),
        any::<u32>(),
    )
        .prop_map(|(node, id)| pid(node, id))
}

fn a_reference() -> impl Strategy<Value = Reference> {
    (
        prop::sample::select(vec!["a@h", "b@h"]),
        prop::collection::vec(any::<u32>(), 1..=5),
    )
        .prop_map(|(node, words)| reference(node, &words))
}

fn target(alias: bool) -> impl Strategy<Value = Target> {
    prop_oneof![
        a_pid().prop_map(Target::Pid),
        text().prop_map(Target::Name),
        (a_reference(), a_pid()).prop_map(move |(reference, pid)| if alias {
            Target::Alias(reference)
        } else {
            Target::Pid(pid)
        }),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Value::from),
        text().prop_map(Value::from),
        a_pid().prop_map(Value::from),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::binary),
        prop::sample::select(vec![WRITE_IN_PLACE_BYTES, OUT_OF_BAND_BYTES, 70_000])
            .prop_map(|size| Value::binary(vec![9; size])),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::tuple),
            prop::collection::vec(inner, 0..4).prop_map(Value::list),
        ]
    })
}

fn control() -> impl Strategy<Value = Control> {
    let two = || (a_pid(), a_pid());
    prop_oneof![
        two().prop_map(|(from, to)| Control::Link { from, to }),
        (prop::option::of(a_pid()), a_pid()).prop_map(|(from, to)| Control::Send { from, to }),
        two().prop_map(|(from, to)| Control::Exit { from, to }),
        two().prop_map(|(from, to)| Control::Exit2 { from, to }),
        two().prop_map(|(from, to)| Control::GroupLeader { from, to }),
        (a_pid(), text()).prop_map(|(from, to)| Control::RegSend { from, to }),
        (any::<bool>(), a_pid(), target(false), a_reference()).prop_map(
            |(undo, from, target, reference)| if undo {
                Control::Demonitor {
                    from,
                    target,
                    reference,
                }
            } else {
                Control::Monitor {
                    from,
                    target,
                    reference,
                }
            }
        ),
        (target(false), a_pid(), a_reference()).prop_map(|(from, to, reference)| {
            Control::MonitorExit {
                from,
                to,
                reference,
            }
        }),
        (
            two(),
            a_reference(),
            text(),
            any::<u8>(),
            prop::collection::vec(value(), 0..2)
        )
            .prop_map(|((from, group_leader), id, name, arity, options)| {
                let function = Function {
                    module: name.clone(),
                    name,
                    arity: arity.into(),
                };
                Control::SpawnRequest {
                    id,
                    from,
                    group_leader,
                    function,
                    options,
                }
            }),
        (
            a_reference(),
            a_pid(),
            0..4_u32,
            prop::result::maybe_ok(a_pid(), text())
        )
            .prop_map(|(id, to, flags, result)| Control::SpawnReply {
                id,
                to,
                flags,
                result
            }),
        (a_pid(), a_reference()).prop_map(|(from, alias)| Control::AliasSend { from, alias }),
        (any::<bool>(), 1..=u64::MAX, 0..64_u32, two()).prop_map(|(ack, id, shift, (from, to))| {
            let id = (id >> shift).max(1);
            if ack {
                Control::UnlinkIdAck { id, from, to }
            } else {
                Control::UnlinkId { id, from, to }
            }
        }),
        (any::<bool>(), any::<bool>(), a_pid(), target(true)).prop_map(
            |(priority, exit, from, to)| Control::AltactSend {
                priority,
                exit: exit && !matches!(to, Target::Name(_)),
                from,
                to,
            }
        ),
    ]
}

fn trace() -> impl Strategy<Value = Option<Value>> {
    let label = prop_oneof![
        (-9..9_i64).prop_map(Value::from),
        Just(Value::from(1_i64 << 40)),
        Just(Value::atom("label")),
    ];
    prop::option::of((label, a_pid()).prop_map(|(label, pid)| {
        Value::tuple([
            Value::from(3),
            label,
            Value::from(1),
            Value::from(pid),
            Value::from(0),
        ])
    }))
}

fn signal() -> impl Strategy<Value = Signal> {
    (control(), trace(), value()).prop_map(|(control, trace, payload)| Signal {
        payload: kind(&control).payload.then(|| term(payload)),
        control,
        trace,
    })
}

/// An exit that an older node has no form for.
fn impossible(control: &Control, agreed: Flags) -> bool {
    let to_alias = matches!(
        control,
        Control::AltactSend {
            exit: true,
            to: Target::Alias(_),
            ..
        }
    );
    to_alias && !agreed.contains(Flags::ALTACT_SIG)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn signals_arrive_as_they_were_sent(
        signals in prop::collection::vec(signal(), 1..6),
        forms in 0..64_u8,
        fragment_bytes in prop::sample::select(vec![1, 100, 4096, 65536]),
        order in any::<u64>(),
    ) {
        // A large payload in fragments of one byte only takes time.
        let largest = signals.iter().filter_map(|s| s.payload.as_ref()).map(Term::len).max();
        let fragment_bytes = fragment_bytes.max(largest.unwrap_or(0) / 500);
        let agreed = agreed(forms);
        let mut encoder = Encoder::new(agreed, EncoderConfig { fragment_bytes });
        let mut decoder = Decoder::new(agreed, DistLimits::default());
        let mut out = Chunks::new();
        let mut open = Vec::new();
        let mut sent = Vec::new();
        for (index, signal) in signals.into_iter().enumerate() {
            let fragments = encoder.encode(&signal, index as u64 + 1, &mut out);
            if impossible(&signal.control, agreed) {
                let refused = matches!(fragments, Err(DistError::NotOffered { .. }));
                prop_assert!(refused);
                continue;
            }
            open.extend(fragments.unwrap());
            sent.push(expected(signal, agreed));
        }
        // The fragments of several signals go out mixed.
        let mut order = order;
        while !open.is_empty() {
            let at = order as usize % open.len();
            order = order.rotate_left(7).wrapping_add(1);
            if !open[at].next(&mut out) {
                open.remove(at);
            }
        }
        let mut got = Vec::new();
        for packet in packets(&mut out) {
            got.extend(decoder.packet(packet).unwrap());
        }
        prop_assert_eq!(decoder.open_sequences(), 0);
        prop_assert_eq!(got.len(), sent.len());
        for signal in got {
            let at = sent.iter().position(|sent| *sent == signal);
            prop_assert!(at.is_some(), "{signal:?} is none of {sent:?}");
            sent.remove(at.unwrap());
        }
    }

    #[test]
    fn cut_and_altered_packets_are_refused_or_read(
        signal in signal(),
        forms in 0..64_u8,
        cut in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let agreed = agreed(forms);
        prop_assume!(!impossible(&signal.control, agreed));
        let config = EncoderConfig { fragment_bytes: 1 << 20 };
        let mut out = Chunks::new();
        Encoder::new(agreed, config).encode(&signal, 1, &mut out).unwrap();
        let packet = packets(&mut out).remove(0);
        let cut = cut.index(packet.len().min(300));
        let mut decoder = Decoder::new(agreed, DistLimits::default());
        let refused = decoder.packet(packet.slice(..cut));
        prop_assert_eq!(refused.is_err(), cut > 0, "{:?}", refused);
        let mut altered = packet.to_vec();
        let at = at.index(altered.len().min(300));
        altered[at] = byte;
        let _ = Decoder::new(agreed, DistLimits::default())
            .packet(altered.into())
            .map_err(|error| error.to_string());
    }
}

#[test]
fn plain_unlinks_go_only_to_peers_that_know_no_others() {
    let pid = |id| Pid {
        node: "a@host".into(),
        id,
        serial: 0,
        creation: 7,
    };
    let signal = Signal {
        control: Control::Unlink {
            from: pid(1),
            to: pid(2),
        },
        trace: None,
        payload: None,
    };
    let numbered = Flags::STOCK;
    let plain = Flags::STOCK.without(Flags::UNLINK_ID);
    for (agreed, sent) in [(numbered, false), (plain, true)] {
        let mut out = Chunks::new();
        let outcome = Encoder::new(agreed, EncoderConfig::default()).encode(&signal, 1, &mut out);
        assert_eq!(outcome.is_ok(), sent);
        if sent {
            let mut bytes = vec![0; out.len()];
            bytes::Buf::copy_to_slice(&mut out, &mut bytes);
            let packet = bytes.split_off(4).into();
            let read = Decoder::new(agreed, DistLimits::default()).packet(packet);
            assert_eq!(read.unwrap(), Some(signal.clone()));
        }
    }
}
