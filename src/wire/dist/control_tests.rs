//! Each operation in each of its forms, against tuples written by hand from `dist.c`.

use super::round_trip_tests::{agreed, packets, pid, reference, term};
use super::*;
use crate::wire::flags::Flags;
use crate::wire::term::{Atom, Value};
use bytes::Bytes;

/// A pass-through packet.
fn packet(tuple: &Value, payload: Option<&Value>) -> Bytes {
    let mut bytes = vec![112];
    bytes.extend(term(tuple.clone()).to_external());
    if let Some(payload) = payload {
        bytes.extend(term(payload.clone()).to_external());
    }
    bytes.into()
}

fn decode(tuple: &Value, payload: Option<&Value>) -> Result<Option<Signal>, DistError> {
    Decoder::new(Flags(0), DistLimits::default()).packet(packet(tuple, payload))
}

struct Parts {
    a: Value,
    b: Value,
    reference: Value,
    token: Value,
    message: Value,
    name: Value,
    empty: Value,
}

fn parts() -> Parts {
    Parts {
        a: pid("a@h", 5).into(),
        b: pid("b@h", 70_000).into(),
        reference: reference("a@h", &[1, 2, 3]).into(),
        token: Value::tuple([1, 2, 3, 4, 5].map(Value::from)),
        message: Value::tuple([Value::atom("hello"), Value::from(1)]),
        name: Value::atom("rex"),
        empty: Value::atom(""),
    }
}

/// Checks that the tuple means the control message, and with `forms` agreed on, no header among
/// them, that it is what the control message becomes.
fn check(forms: Option<Flags>, tuple: &[&Value], apart: bool, traced: bool, control: Control) {
    let Parts { token, message, .. } = parts();
    let operation = tuple[0].as_i64().unwrap();
    let reason = tuple.contains(&&message);
    let tuple = Value::tuple(tuple.iter().map(|v| (*v).clone()).collect::<Vec<_>>());
    let signal = Signal {
        control,
        trace: traced.then_some(token),
        payload: (apart || reason).then(|| term(message.clone())),
    };
    let payload = apart.then_some(&message);
    let got = decode(&tuple, payload).unwrap().unwrap();
    assert_eq!(got, signal, "operation {operation}");
    if let Some(forms) = forms {
        let mut out = Chunks::new();
        let flags = forms.with(agreed(0));
        let more = Encoder::new(flags, EncoderConfig::default()).encode(&signal, 1, &mut out);
        assert!(more.unwrap().is_none());
        assert_eq!(
            packets(&mut out),
            [packet(&tuple, payload)],
            "operation {operation}"
        );
    }
}

#[test]
fn sends() {
    let Parts {
        a,
        b,
        token,
        name,
        empty,
        reference: r,
        ..
    } = &parts();
    let (from, to) = (pid("a@h", 5), pid("b@h", 70_000));
    let labels = Flags::BIG_SEQTRACE_LABELS;
    let plain = || Control::Send {
        from: None,
        to: to.clone(),
    };
    check(Some(labels), &[&2.into(), empty, b], true, false, plain());
    check(
        Some(labels),
        &[&12.into(), empty, b, token],
        true,
        true,
        plain(),
    );
    let sender = || Control::Send {
        from: Some(from.clone()),
        to: to.clone(),
    };
    let flags = labels.with(Flags::SEND_SENDER);
    check(Some(flags), &[&22.into(), a, b], true, false, sender());
    check(
        Some(flags),
        &[&23.into(), a, b, token],
        true,
        true,
        sender(),
    );
    let named = || Control::RegSend {
        from: from.clone(),
        to: Atom::from("rex"),
    };
    check(
        Some(labels),
        &[&6.into(), a, empty, name],
        true,
        false,
        named(),
    );
    check(
        Some(labels),
        &[&16.into(), a, empty, name, token],
        true,
        true,
        named(),
    );
    // Old nodes may have a cookie there.
    let cookie = &Value::atom("cookie");
    check(None, &[&6.into(), a, cookie, name], true, false, named());
    let alias = || Control::AliasSend {
        from: from.clone(),
        alias: reference("a@h", &[1, 2, 3]),
    };
    check(Some(labels), &[&33.into(), a, r], true, false, alias());
    check(
        Some(labels),
        &[&34.into(), a, r, token],
        true,
        true,
        alias(),
    );
    let flags = labels.with(Flags::ALTACT_SIG);
    check(
        Some(flags),
        &[&37.into(), &4.into(), a, r],
        true,
        false,
        alias(),
    );
    check(
        Some(flags),
        &[&37.into(), &6.into(), a, r, token],
        true,
        true,
        alias(),
    );
}

#[test]
fn altered_signals() {
    let Parts {
        a,
        b,
        token,
        name,
        reference: r,
        ..
    } = &parts();
    let from = pid("a@h", 5);
    let targets = [
        (b, 0, Target::Pid(pid("b@h", 70_000))),
        (name, 8, Target::Name(Atom::from("rex"))),
        (r, 4, Target::Alias(reference("a@h", &[1, 2, 3]))),
    ];
    let flags = Flags::ALTACT_SIG.with(Flags::BIG_SEQTRACE_LABELS);
    for (to, kind, target) in targets {
        for (priority, exit) in [(true, false), (true, true), (false, true)] {
            let bits = kind + i32::from(priority) + 16 * i32::from(exit);
            let control = || Control::AltactSend {
                priority,
                exit,
                from: from.clone(),
                to: target.clone(),
            };
            check(
                Some(flags),
                &[&37.into(), &bits.into(), a, to],
                true,
                false,
                control(),
            );
            let traced = &(bits + 2).into();
            check(
                Some(flags),
                &[&37.into(), traced, a, to, token],
                true,
                true,
                control(),
            );
            // Flags and elements of the future are passed over.
            for future in [
                Value::from(bits + 32),
                Value::from((1_i64 << 50) + i64::from(bits)),
            ] {
                check(
                    None,
                    &[&37.into(), &future, a, to, token],
                    true,
                    false,
                    control(),
                );
            }
            let bignum = Value::integer(
                num_bigint::BigInt::from(bits) + (num_bigint::BigInt::from(1) << 3000),
            );
            check(None, &[&37.into(), &bignum, a, to], true, false, control());
        }
    }
}

#[test]
fn exits() {
    let Parts {
        a,
        b,
        token,
        message,
        name,
        reference: r,
        ..
    } = &parts();
    let (from, to) = (pid("a@h", 5), pid("b@h", 70_000));
    let labels = Flags::BIG_SEQTRACE_LABELS;
    let apart = labels.with(Flags::EXIT_PAYLOAD);
    let exit = || Control::Exit {
        from: from.clone(),
        to: to.clone(),
    };
    check(
        Some(labels),
        &[&3.into(), a, b, message],
        false,
        false,
        exit(),
    );
    check(
        Some(labels),
        &[&13.into(), a, b, token, message],
        false,
        true,
        exit(),
    );
    check(Some(apart), &[&24.into(), a, b], true, false, exit());
    check(Some(apart), &[&25.into(), a, b, token], true, true, exit());
    let exit2 = || Control::Exit2 {
        from: from.clone(),
        to: to.clone(),
    };
    check(
        Some(labels),
        &[&8.into(), a, b, message],
        false,
        false,
        exit2(),
    );
    check(
        Some(labels),
        &[&18.into(), a, b, token, message],
        false,
        true,
        exit2(),
    );
    check(Some(apart), &[&26.into(), a, b], true, false, exit2());
    check(Some(apart), &[&27.into(), a, b, token], true, true, exit2());
    for (first, own) in [
        (a, Target::Pid(from.clone())),
        (name, Target::Name("rex".into())),
    ] {
        let down = || Control::MonitorExit {
            from: own.clone(),
            to: to.clone(),
            reference: reference("a@h", &[1, 2, 3]),
        };
        check(
            Some(labels),
            &[&21.into(), first, b, r, message],
            false,
            false,
            down(),
        );
        check(Some(apart), &[&28.into(), first, b, r], true, false, down());
    }
}

#[test]
fn links_and_monitors() {
    let Parts {
        a,
        b,
        name,
        reference: r,
        ..
    } = &parts();
    let (from, to) = (pid("a@h", 5), pid("b@h", 70_000));
    let none = Some(Flags(0));
    let both = || (from.clone(), to.clone());
    let (f, t) = both();
    check(
        none,
        &[&1.into(), a, b],
        false,
        false,
        Control::Link { from: f, to: t },
    );
    let (f, t) = both();
    check(
        None,
        &[&4.into(), a, b],
        false,
        false,
        Control::Unlink { from: f, to: t },
    );
    let (f, t) = both();
    check(
        none,
        &[&7.into(), a, b],
        false,
        false,
        Control::GroupLeader { from: f, to: t },
    );
    for id in [1, 255, 256, (1 << 31) - 1, 1 << 31, 1 << 40, u64::MAX] {
        let (from, to) = both();
        let control = Control::UnlinkId { id, from, to };
        check(none, &[&35.into(), &id.into(), a, b], false, false, control);
        let (from, to) = both();
        let control = Control::UnlinkIdAck { id, from, to };
        check(none, &[&36.into(), &id.into(), a, b], false, false, control);
    }
    for (second, target) in [
        (b, Target::Pid(to.clone())),
        (name, Target::Name("rex".into())),
    ] {
        let reference = || reference("a@h", &[1, 2, 3]);
        let (from, target) = (from.clone(), target);
        let control = Control::Monitor {
            from: from.clone(),
            target: target.clone(),
            reference: reference(),
        };
        check(none, &[&19.into(), a, second, r], false, false, control);
        let control = Control::Demonitor {
            from,
            target,
            reference: reference(),
        };
        check(none, &[&20.into(), a, second, r], false, false, control);
    }
}

#[test]
fn spawns() {
    let Parts {
        a,
        b,
        token,
        name,
        reference: r,
        ..
    } = &parts();
    let (from, to) = (pid("a@h", 5), pid("b@h", 70_000));
    let id = || reference("a@h", &[1, 2, 3]);
    let labels = Some(Flags::BIG_SEQTRACE_LABELS);
    let options = vec![
        Value::atom("link"),
        Value::tuple([Value::atom("x"), Value::from(1)]),
    ];
    for (options, arity) in [(options, 3), (vec![], 300)] {
        let function = &Value::tuple([name.clone(), Value::atom("f"), Value::from(arity)]);
        let list = &Value::list(options.clone());
        let request = || Control::SpawnRequest {
            id: id(),
            from: from.clone(),
            group_leader: to.clone(),
            function: Function {
                module: "rex".into(),
                name: "f".into(),
                arity: arity as u32,
            },
            options: options.clone(),
        };
        check(
            labels,
            &[&29.into(), r, a, b, function, list],
            true,
            false,
            request(),
        );
        check(
            labels,
            &[&30.into(), r, a, b, function, list, token],
            true,
            true,
            request(),
        );
    }
    for (last, result) in [(b, Ok(to.clone())), (name, Err(Atom::from("rex")))] {
        let reply = || Control::SpawnReply {
            id: id(),
            to: from.clone(),
            flags: 3,
            result: result.clone(),
        };
        check(
            labels,
            &[&31.into(), r, a, &3.into(), last],
            false,
            false,
            reply(),
        );
        check(
            labels,
            &[&32.into(), r, a, &3.into(), last, token],
            false,
            true,
            reply(),
        );
    }
}

#[test]
fn unknown_operations_are_survived() {
    let Parts { a, message, .. } = &parts();
    for operation in [0, 5, 9, 38, 255, 256, 1 << 20, -1] {
        let tuple = Value::tuple([Value::from(operation), a.clone()]);
        for payload in [None, Some(message)] {
            let got = decode(&tuple, payload).unwrap().unwrap();
            let operation = operation.into();
            assert_eq!(got.control, Control::Unknown { operation });
            assert_eq!((got.trace, got.payload), (None, None));
        }
    }
    assert!(matches!(
        decode(&Value::tuple([Value::from(5)]), None),
        Ok(Some(Signal {
            control: Control::Unknown { operation: 5 },
            ..
        }))
    ));
}

#[test]
fn malformed_operations_are_refused_by_name() {
    let Parts {
        a,
        b,
        reference: r,
        name,
        message,
        ..
    } = &parts();
    let number = &Value::from(1);
    let improper = &Value::ImproperList(vec![Value::from(1)], Box::new(Value::from(2)));
    let function = &Value::tuple([name.clone(), name.clone(), number.clone()]);
    let huge = &Value::integer(num_bigint::BigInt::from(u64::MAX) + 1);
    let cases: &[(i64, &[&Value], bool, &str)] = &[
        (1, &[a], false, "LINK"),
        (1, &[a, b, b], false, "LINK"),
        (1, &[a, name], false, "LINK"),
        (2, &[name, name], true, "SEND"),
        (6, &[a, name, b], true, "REG_SEND"),
        (3, &[a, b], false, "EXIT"),
        (24, &[a, b, number], true, "PAYLOAD_EXIT"),
        (19, &[a, r, r], false, "MONITOR_P"),
        (19, &[a, b, b], false, "MONITOR_P"),
        (
            29,
            &[r, a, b, name, &Value::list([])],
            true,
            "SPAWN_REQUEST",
        ),
        (29, &[r, a, b, function, improper], true, "SPAWN_REQUEST"),
        (31, &[r, a, &Value::from(-1), b], false, "SPAWN_REPLY"),
        (31, &[r, a, number, r], false, "SPAWN_REPLY"),
        (35, &[&Value::from(0), a, b], false, "UNLINK_ID"),
        (35, &[huge, a, b], false, "UNLINK_ID"),
        (36, &[&Value::from(-7), a, b], false, "UNLINK_ID_ACK"),
        (37, &[number, a], true, "ALTACT_SIG_SEND"),
        (37, &[&Value::from(-1), a, b], true, "ALTACT_SIG_SEND"),
        (37, &[&Value::from(12), a, r], true, "ALTACT_SIG_SEND"),
        (37, &[&Value::from(2), a, b], true, "ALTACT_SIG_SEND"),
        (37, &[&Value::from(4), a, b], true, "ALTACT_SIG_SEND"),
    ];
    for (operation, elements, payload, name) in cases {
        let mut tuple = vec![Value::from(*operation)];
        tuple.extend(elements.iter().map(|v| (*v).clone()));
        let refused = decode(&Value::tuple(tuple), payload.then_some(message));
        assert!(
            matches!(&refused, Err(DistError::Control { operation, .. }) if operation == name),
            "{name}: {refused:?}"
        );
        assert!(refused.unwrap_err().to_string().contains(name));
    }
    for nonsense in [Value::from(1), Value::tuple([]), Value::tuple([a.clone()])] {
        assert!(matches!(
            decode(&nonsense, None),
            Err(DistError::Control { .. })
        ));
    }
    let send = Value::tuple([Value::from(22), a.clone(), b.clone()]);
    assert_eq!(
        decode(&send, None),
        Err(DistError::NoPayload("SEND_SENDER"))
    );
    let link = Value::tuple([Value::from(1), a.clone(), b.clone()]);
    assert!(matches!(
        decode(&link, Some(message)),
        Err(DistError::Trailing {
            operation: "LINK",
            ..
        })
    ));
}

#[test]
fn what_the_peer_has_not_offered_is_not_sent() {
    let (from, to) = (pid("a@h", 5), pid("b@h", 6));
    let r = || reference("a@h", &[1]);
    let spawn = Control::SpawnReply {
        id: r(),
        to: to.clone(),
        flags: 0,
        result: Err("x".into()),
    };
    let monitor = |target| Control::Monitor {
        from: from.clone(),
        target,
        reference: r(),
    };
    let exit = Control::AltactSend {
        priority: true,
        exit: true,
        from: from.clone(),
        to: Target::Alias(r()),
    };
    let message = || Some(term(Value::from(1)));
    let cases = [
        (
            Control::UnlinkId {
                id: 1,
                from: from.clone(),
                to: to.clone(),
            },
            None,
            Flags::UNLINK_ID,
        ),
        (spawn, None, Flags::SPAWN),
        (monitor(Target::Pid(to.clone())), None, Flags::DIST_MONITOR),
        (
            monitor(Target::Name("x".into())),
            None,
            Flags::DIST_MONITOR_NAME,
        ),
        (
            Control::AliasSend {
                from: from.clone(),
                alias: r(),
            },
            message(),
            Flags::ALIAS,
        ),
        (exit, message(), Flags::ALTACT_SIG),
    ];
    for (control, payload, flag) in cases {
        let offered = agreed(0).without(flag);
        let signal = Signal {
            control,
            trace: None,
            payload,
        };
        let mut out = Chunks::new();
        let mut encoder = Encoder::new(offered, EncoderConfig::default());
        let refused = encoder.encode(&signal, 1, &mut out).unwrap_err();
        assert!(
            matches!(refused, DistError::NotOffered { flag: f, .. } if f == flag),
            "{refused}"
        );
        assert!(out.is_empty());
    }
    let unsendable = [
        (
            Control::Unlink {
                from: from.clone(),
                to: to.clone(),
            },
            None,
        ),
        (Control::Unknown { operation: 5 }, None),
        (
            Control::UnlinkId {
                id: 0,
                from: from.clone(),
                to: to.clone(),
            },
            None,
        ),
        (
            Control::Link {
                from: from.clone(),
                to: to.clone(),
            },
            message(),
        ),
        (
            Control::Exit {
                from: from.clone(),
                to: to.clone(),
            },
            None,
        ),
        (monitor(Target::Alias(r())), None),
    ];
    for (control, payload) in unsendable {
        let signal = Signal {
            control,
            trace: None,
            payload,
        };
        let mut encoder = Encoder::new(agreed(63), EncoderConfig::default());
        let refused = encoder.encode(&signal, 1, &mut Chunks::new()).unwrap_err();
        assert!(matches!(refused, DistError::Unsendable { .. }), "{refused}");
    }
}
