//! Packets that no honest node sends.

use super::round_trip_tests::{agreed, packets, pid, term};
use super::*;
use crate::wire::flags::Flags;
use crate::wire::term::{TermError, Value};
use bytes::Bytes;

const ALL: u8 = 63;

fn decoder() -> Decoder {
    Decoder::new(agreed(ALL), DistLimits::default())
}

fn send(payload: Value) -> Signal {
    Signal {
        control: Control::Send {
            from: Some(pid("a@h", 1)),
            to: pid("b@h", 2),
        },
        trace: None,
        payload: Some(term(payload)),
    }
}

fn large(size: usize) -> Signal {
    send(Value::binary(vec![7; size]))
}

/// All fragments of signals of 10 kB, in fragments of 1 kB.
fn fragments(encoder: &mut Encoder, sequence: u64) -> Vec<Bytes> {
    let mut out = Chunks::new();
    let mut more = encoder
        .encode(&large(10_000), sequence, &mut out)
        .unwrap()
        .unwrap();
    while more.next(&mut out) {}
    assert!(!more.next(&mut out));
    packets(&mut out)
}

fn encoder() -> Encoder {
    let fragment_bytes = 1000;
    Encoder::new(agreed(ALL), EncoderConfig { fragment_bytes })
}

fn fragment(kind: u8, sequence: u64, number: u64, rest: &[u8]) -> Bytes {
    let mut bytes = vec![131, kind];
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(number.to_be_bytes());
    bytes.extend(rest);
    bytes.into()
}

#[test]
fn a_tick_is_no_signal() {
    assert_eq!(decoder().packet(Bytes::new()), Ok(None));
}

#[test]
fn forms_that_were_not_agreed_on_are_refused() {
    let plain = |flags| Decoder::new(flags, DistLimits::default());
    let forms: &[&[u8]] = &[
        &[131],
        &[112],
        &[112, 68],
        &[0],
        &[131, 80],
        &[131, 72],
        &[68, 0],
        &[131, 131],
    ];
    for bytes in forms {
        let refused = decoder().packet(Bytes::from_static(bytes));
        assert_eq!(refused, Err(DistError::Form(bytes.to_vec())));
    }
    for kind in [68, 69, 70] {
        let bytes = fragment(kind, 1, 1, &[0]);
        let refused = plain(Flags(0)).packet(bytes.clone());
        assert!(matches!(refused, Err(DistError::Form(_))));
        let refused = plain(Flags::DIST_HDR_ATOM_CACHE).packet(bytes);
        assert_eq!(kind != 68, matches!(refused, Err(DistError::Form(_))));
    }
    let refused = plain(Flags::FRAGMENTS).packet(Bytes::from_static(&[131, 68, 1, 8, 0, 1, b'a']));
    assert!(matches!(refused, Err(DistError::CachedAtom(_))));
}

#[test]
fn known_killers_are_errors() {
    // Each has brought down another implementation, or asks for memory by a claim.
    let claims: &[&[u8]] = &[
        &[131, 68],
        &[131, 82],
        &[131, 68, 0],
        &[131, 68, 0, 82, 0],
        &[131, 68, 255],
        &[112, 131, 105, 255, 255, 255, 255],
        &[112, 131, 108, 255, 255, 255, 255],
        &[131, 68, 0, 105, 255, 255, 255, 255, 97, 37],
        &[131, 68, 0, 104, 4, 97, 37, 111, 255, 255, 255, 255, 0],
        &[131, 68, 0, 104, 3, 97, 1, 88, 118, 255, 255, b'a'],
        &[131, 69],
        &[131, 70, 0, 0, 0, 0],
    ];
    for bytes in claims {
        let refused = decoder().packet(Bytes::from_static(bytes));
        assert!(refused.is_err(), "{bytes:?}: {refused:?}");
    }
    // A million tuples, one in the other.
    let mut deep = vec![131, 68, 0, 104, 3, 97, 2, 119, 0];
    let to = term(pid("b@h", 2).into()).to_external();
    deep.extend(&to[1..]);
    deep.extend([104, 1].repeat(1_000_000));
    let refused = decoder().packet(deep.into());
    assert!(
        matches!(
            refused,
            Err(DistError::Term {
                source: TermError::Depth(_),
                ..
            })
        ),
        "{refused:?}"
    );
}

#[test]
fn references_beyond_the_list_are_refused() {
    let mut encoder = encoder();
    let mut out = Chunks::new();
    encoder.encode(&send(Value::from(1)), 1, &mut out).unwrap();
    let packet = packets(&mut out).remove(0);
    let at = packet.windows(2).position(|two| two == [82, 1]).unwrap();
    let mut altered = packet.to_vec();
    altered[at + 1] = 2;
    let refused = decoder().packet(altered.into());
    assert!(
        matches!(refused, Err(DistError::Control { .. })),
        "{refused:?}"
    );
    let mut altered = packet.to_vec();
    altered.truncate(packet.len() - 2);
    altered.extend([82, 2]);
    let refused = decoder().packet(altered.into());
    assert!(
        matches!(refused, Err(DistError::Term { .. })),
        "{refused:?}"
    );

    // The second packet relies on what the first one has brought.
    encoder.encode(&send(Value::from(1)), 1, &mut out).unwrap();
    let second = packets(&mut out).remove(0);
    let mut late = decoder();
    let refused = late.packet(second.clone());
    assert!(
        matches!(refused, Err(DistError::EmptySlot(_))),
        "{refused:?}"
    );
    let mut good = decoder();
    good.packet(packet).unwrap().unwrap();
    good.packet(second).unwrap().unwrap();
}

#[test]
fn fragments_out_of_order_are_refused() {
    let all = fragments(&mut encoder(), 9);
    assert!(all.len() > 10);
    let run = |packets: &[&Bytes]| {
        let mut decoder = decoder();
        let mut last = Ok(None);
        for packet in packets {
            last = decoder.packet((*packet).clone());
            if last.is_err() {
                break;
            }
        }
        last
    };
    let expected = all.len() as u64 - 1;
    assert_eq!(
        run(&[&all[0], &all[2]]),
        Err(DistError::FragmentOrder {
            sequence: 9,
            expected,
            got: expected - 1
        })
    );
    assert_eq!(
        run(&[&all[0], &all[1], &all[1]]),
        Err(DistError::FragmentOrder {
            sequence: 9,
            expected: expected - 1,
            got: expected
        })
    );
    assert_eq!(run(&[&all[0], &all[0]]), Err(DistError::SequenceOpen(9)));
    assert_eq!(run(&[&all[1]]), Err(DistError::SequenceUnknown(9)));
    let whole: Vec<_> = all.iter().collect();
    assert_eq!(run(&whole), Ok(Some(large(10_000))));
    // After its end a sequence is unknown, and its number free again.
    let mut again = whole.clone();
    again.push(&all[1]);
    assert_eq!(run(&again), Err(DistError::SequenceUnknown(9)));
    let twice = [&whole[..], &whole[..]].concat();
    assert_eq!(run(&twice), Ok(Some(large(10_000))));
}

#[test]
fn fragments_of_no_number_or_sequence_are_refused() {
    for (sequence, number) in [(0, 1), (0, 5), (3, 0)] {
        let refused = decoder().packet(fragment(69, sequence, number, &[0]));
        let fragment = number;
        assert_eq!(
            refused,
            Err(DistError::FragmentNumber { sequence, fragment })
        );
    }
    let refused = encoder()
        .encode(&large(10_000), 0, &mut Chunks::new())
        .unwrap_err();
    assert!(matches!(refused, DistError::Unsendable { .. }));
}

#[test]
fn a_single_fragment_is_a_whole_signal() {
    let mut out = Chunks::new();
    encoder()
        .encode(&send(Value::from(1)), 1, &mut out)
        .unwrap();
    let packet = packets(&mut out).remove(0);
    let mut decoder = decoder();
    let got = decoder.packet(fragment(69, 4, 1, &packet[2..])).unwrap();
    assert_eq!(got, Some(send(Value::from(1))));
    assert_eq!(decoder.open_sequences(), 0);
}

#[test]
fn the_first_fragment_holds_all_of_the_control_message() {
    let first = fragments(&mut encoder(), 9).remove(0);
    let binary = [109, 0, 0, 0x27, 0x10];
    let control = first.windows(5).position(|at| at == binary).unwrap();
    for cut in 1..control {
        let refused = decoder().packet(first.slice(..cut));
        assert!(refused.is_err(), "{cut}: {refused:?}");
    }
    assert_eq!(decoder().packet(first.slice(..control)), Ok(None));
}

#[test]
fn what_follows_the_payload_is_refused_in_fragments_too() {
    let mut all = fragments(&mut encoder(), 9);
    let last = all.pop().unwrap();
    let mut decoder = decoder();
    for packet in all {
        assert_eq!(decoder.packet(packet), Ok(None));
    }
    let refused = decoder.packet([&last[..], &[106]].concat().into());
    let operation = "SEND_SENDER";
    assert_eq!(
        refused,
        Err(DistError::Trailing {
            operation,
            bytes: 1
        })
    );
}

#[test]
fn open_sequences_are_bounded() {
    let limits = DistLimits {
        open_sequences: 3,
        ..DistLimits::default()
    };
    let mut decoder = Decoder::new(agreed(ALL), limits);
    let mut encoder = encoder();
    for sequence in 1..=3 {
        let first = fragments(&mut encoder, sequence).remove(0);
        assert_eq!(decoder.packet(first), Ok(None));
    }
    let first = fragments(&mut encoder, 4).remove(0);
    assert_eq!(decoder.packet(first), Err(DistError::Sequences(3)));
    assert_eq!(decoder.open_sequences(), 3);
}

#[test]
fn open_bytes_are_bounded_and_given_back() {
    let message_bytes = 11_000;
    let limits = DistLimits {
        message_bytes,
        open_bytes: 9_000,
        ..DistLimits::default()
    };
    let mut decoder = Decoder::new(agreed(ALL), limits);
    let mut encoder = encoder();
    // One signal after the other is never too much.
    for _ in 0..20 {
        for packet in fragments(&mut encoder, 1) {
            decoder.packet(packet).unwrap();
        }
    }
    // Two at once are.
    let mut refused = None;
    let (one, other) = (fragments(&mut encoder, 1), fragments(&mut encoder, 2));
    for (one, other) in one.into_iter().zip(other) {
        for packet in [one, other] {
            refused = refused.or(decoder.packet(packet).err());
        }
    }
    assert_eq!(refused, Some(DistError::OpenBytes(20_000)));
}

#[test]
fn signals_are_bounded() {
    let limits = DistLimits {
        message_bytes: 5_000,
        ..DistLimits::default()
    };
    let mut out = Chunks::new();
    Encoder::new(agreed(0), EncoderConfig::default())
        .encode(&large(5_000), 1, &mut out)
        .unwrap();
    let refused = Decoder::new(agreed(0), limits).packet(packets(&mut out).remove(0));
    assert!(matches!(
        refused,
        Err(DistError::TooLarge { limit: 5_000, .. })
    ));
    let mut decoder = Decoder::new(agreed(ALL), limits);
    let all = fragments(&mut encoder(), 1);
    let refused = all
        .into_iter()
        .find_map(|packet| decoder.packet(packet).err());
    assert!(
        matches!(refused, Some(DistError::TooLarge { limit: 5_000, .. })),
        "{refused:?}"
    );
}

#[test]
fn empty_fragments_hold_nothing() {
    let first = fragments(&mut encoder(), 1).remove(0);
    let mut altered = first.to_vec();
    // 2^64 - 1 fragments are announced.
    altered[10..18].fill(255);
    let mut decoder = decoder();
    assert_eq!(decoder.packet(altered.into()), Ok(None));
    for number in 2..100_000 {
        let more = fragment(70, 1, u64::MAX - number + 1, &[]);
        assert_eq!(decoder.packet(more), Ok(None));
    }
}

#[test]
fn the_encoder_goes_on_after_an_error() {
    let mut encoder = encoder();
    let mut out = Chunks::new();
    let mut bad = send(Value::from(1));
    if let Control::Send { to, .. } = &mut bad.control {
        to.node = "x".repeat(256).into();
    }
    assert!(encoder.encode(&bad, 1, &mut out).is_err());
    assert!(out.is_empty());
    encoder.encode(&send(Value::from(2)), 1, &mut out).unwrap();
    let got = decoder().packet(packets(&mut out).remove(0)).unwrap();
    assert_eq!(got, Some(send(Value::from(2))));
}
