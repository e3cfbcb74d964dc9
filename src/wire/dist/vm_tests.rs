//! What stock nodes of OTP 25, 27 and 29 have sent to a hidden node that offered
//! [`Flags::STOCK`]: packets with headers and atom caches, recorded. They are seeds of the fuzz
//! target `dist`, too: one byte, then packets with lengths of two bytes.

use super::write::kind;
use super::*;
use crate::wire::flags::Flags;
use crate::wire::reader;
use crate::wire::term::Value;
use bytes::Bytes;

const RECORDED: [&[u8]; 3] = [
    include_bytes!("../../../fuzz/corpus/dist/vm25"),
    include_bytes!("../../../fuzz/corpus/dist/vm27"),
    include_bytes!("../../../fuzz/corpus/dist/vm29"),
];

fn signals(recorded: &'static [u8]) -> Vec<Signal> {
    let mut decoder = Decoder::new(Flags::STOCK, DistLimits::default());
    let mut input = &recorded[1..];
    let mut signals = Vec::new();
    while let Some(length) = reader::u16(&mut input) {
        let packet = reader::bytes(&mut input, length.into()).unwrap();
        let signal = decoder.packet(Bytes::from_static(packet)).unwrap();
        signals.push(signal.unwrap());
    }
    assert!(input.is_empty());
    signals
}

#[test]
fn recorded_signals_are_understood() {
    for (recorded, newest) in RECORDED.into_iter().zip([false, false, true]) {
        let signals = signals(recorded);
        let count = |name| {
            let names = signals.iter().map(|signal| kind(&signal.control).name);
            names.filter(|own| *own == name).count()
        };
        let expected = [
            ("SEND", 7),
            ("REG_SEND", 2),
            ("ALIAS_SEND", 1),
            ("MONITOR_P", 2),
            ("DEMONITOR_P", 1),
            ("EXIT", 1),
            ("EXIT2", 2),
            ("SPAWN_REQUEST", 1),
            ("GROUP_LEADER", 1),
            ("LINK", 2),
            ("UNLINK_ID", 1),
            ("ALTACT_SIG_SEND", if newest { 5 } else { 0 }),
        ];
        for (name, wanted) in expected {
            assert_eq!(count(name), wanted, "{name}");
        }
        let total: usize = expected.iter().map(|(_, count)| count).sum();
        assert_eq!(signals.len(), total);

        let first = signals[0].payload.as_ref().unwrap().decode();
        let first = first.as_tuple().unwrap();
        assert!(first[0].is_atom("hello"));
        let Control::Send {
            from: Some(from), ..
        } = &signals[0].control
        else {
            panic!("{:?}", signals[0]);
        };
        assert_eq!(first[1].as_pid(), Some(from));

        let traced: Vec<_> = signals.iter().filter_map(|s| s.trace.as_ref()).collect();
        let label = Value::tuple([Value::atom("big"), Value::atom("label")]);
        assert_eq!(traced.len(), 2);
        assert!(
            traced
                .iter()
                .all(|token| token.as_tuple().unwrap()[1] == label)
        );
    }
}

#[test]
fn recorded_priority_signals_keep_their_meaning() {
    let urgent = signals(RECORDED[2]).into_iter().filter_map(|signal| {
        match (signal.control, signal.payload?.decode()) {
            (
                Control::AltactSend {
                    priority, exit, to, ..
                },
                reason,
            ) => {
                assert!(priority && reason.is_atom("urgent"));
                let target = match to {
                    Target::Pid(_) => "pid",
                    Target::Name(_) => "name",
                    Target::Alias(_) => "alias",
                };
                Some((exit, target))
            }
            _ => None,
        }
    });
    let expected = [
        (false, "pid"),
        (false, "name"),
        (true, "pid"),
        (true, "alias"),
        (false, "alias"),
    ];
    assert_eq!(urgent.collect::<Vec<_>>(), expected);
}
