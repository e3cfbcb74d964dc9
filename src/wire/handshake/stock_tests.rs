//! What concerns stock peers: their flags, `alive`, names that are given, and old name packets.

use proptest::prelude::*;

use super::tests::{
    EXTRA, accept, config, dialer, failed, listener, name_packet, packet, run, step,
};
use super::*;

/// What a stock node of our time offers besides the mandatory flags, by way of example.
const STOCK: Flags = Flags::OURS.with(Flags::SPAWN).with(Flags::DIST_MONITOR);

fn stock(role: Role, name: &str, seed: u8) -> Handshake {
    let mut config = config(name, seed, role);
    config.stock_flags = STOCK;
    Handshake::new(config)
}

fn dialler_role(cookie: &[u8], purpose: Purpose) -> Role {
    Role::Dialer {
        peer: "b@host".into(),
        cookie: cookie.to_vec(),
        purpose,
    }
}

fn stock_dialler() -> Handshake {
    stock(dialler_role(b"secret", Purpose::Stock), "a@host", 1)
}

fn nameless() -> Handshake {
    stock(dialler_role(b"secret", Purpose::Stock), "host", 1)
}

fn stock_listener() -> Handshake {
    stock(Role::Listener, "b@host", 2)
}

/// The old name packet: version, lower flags, name.
fn old_name(version: u16, flags: Flags, name: &str) -> Vec<u8> {
    let flags = flags.0 as u32;
    [
        b"n",
        &version.to_be_bytes()[..],
        &flags.to_be_bytes(),
        name.as_bytes(),
    ]
    .concat()
}

fn complement(flags: Flags, creation: u32) -> Vec<u8> {
    let upper = (flags.0 >> 32) as u32;
    [b"c", &upper.to_be_bytes()[..], &creation.to_be_bytes()].concat()
}

/// The digest packet of a peer that knows the cookie, to the challenge of our listener.
fn reply(cookie: &[u8]) -> Vec<u8> {
    let digest = trailer::digest(cookie, 0x1234_5602);
    [b"r", &7_u32.to_be_bytes()[..], &digest].concat()
}

/// What hidden nodes of OTP 25, 27 and 29 named `stock@localhost` sent first, without the length:
/// flags, creation, packet. Those without a name are `undefined@localhost`.
const SEEN: [(u64, u32, &[u8]); 6] = [
    (
        0x0d_07df_7fbc,
        0x0ebc_5ffd,
        b"N\0\0\0\x0d\x07\xdf\x7f\xbc\x0e\xbc\x5f\xfd\0\x0fstock@localhost",
    ),
    (
        0x0d_07df_7fbc,
        0x71af_1c56,
        b"N\0\0\0\x0d\x07\xdf\x7f\xbc\x71\xaf\x1c\x56\0\x0fstock@localhost",
    ),
    (
        0x6d_07df_7fbc,
        0x8931_887c,
        b"N\0\0\0\x6d\x07\xdf\x7f\xbc\x89\x31\x88\x7c\0\x0fstock@localhost",
    ),
    (
        0x0f_07df_7fbc,
        0,
        b"N\0\0\0\x0f\x07\xdf\x7f\xbc\0\0\0\0\0\x09localhost",
    ),
    (
        0x0f_07df_7fbc,
        0,
        b"N\0\0\0\x0f\x07\xdf\x7f\xbc\0\0\0\0\0\x09localhost",
    ),
    (
        0x6f_07df_7fbc,
        0,
        b"N\0\0\0\x6f\x07\xdf\x7f\xbc\0\0\0\0\0\x09localhost",
    ),
];

#[test]
fn a_stock_dialler_sends_what_otp_sends() {
    for (flags, creation, seen) in SEEN {
        let name = match creation {
            0 => "localhost",
            _ => "stock@localhost",
        };
        let mut config = config(name, 1, dialler_role(b"secret", Purpose::Stock));
        config.local.creation = creation;
        config.stock_flags = Flags(flags).without(Flags::NAME_ME);
        let (sent, ..) = step(&mut Handshake::new(config), Event::Start);
        assert_eq!(sent, [seen]);

        let (_, effects, result) = step(&mut stock_listener(), Event::Packet(seen));
        result.expect("a stock node");
        let [Effect::Judge(peer)] = &effects[..] else {
            panic!("{effects:?}");
        };
        assert_eq!(peer.flags, Flags(flags));
        assert_eq!((peer.nameless, peer.trailer), (creation == 0, None));
        if creation != 0 {
            assert_eq!((&*peer.name, peer.creation), (name, creation));
        }
    }
}

#[test]
fn alive_is_answered_by_purpose() {
    let mut machine = stock_dialler();
    step(&mut machine, Event::Start).2.expect("started");
    let (sent, _, result) = step(&mut machine, Event::Packet(b"salive"));
    result.expect("it goes on");
    assert_eq!(sent, [b"strue"]);
    assert!(matches!(
        machine.closed(),
        HandshakeError::Closed {
            awaited: Awaited::Challenge,
            ..
        }
    ));

    let mut machine = dialer(Purpose::First);
    step(&mut machine, Event::Start).2.expect("started");
    let (sent, _, result) = step(&mut machine, Event::Packet(b"salive"));
    result.expect_err("a session may live");
    assert_eq!(sent, [b"sfalse"]);
}

#[test]
fn a_dialler_decides_which_connection_stays() {
    let alive = || Verdict::Alive {
        cookie: b"secret".to_vec(),
    };
    let at_alive = || {
        let mut machine = stock_listener();
        let name = name_packet("a@h", STOCK.with(Flags::PUBLISHED), b"");
        step(&mut machine, Event::Packet(&name)).2.expect("a name");
        let (sent, _, result) = step(&mut machine, Event::Verdict(alive()));
        result.expect("it asks");
        assert_eq!(sent, [b"salive"]);
        machine
    };
    let mut machine = at_alive();
    let (sent, ..) = step(&mut machine, Event::Packet(b"strue"));
    assert_eq!((sent.len(), sent[0][0]), (1, b'N'));
    let (_, effects, result) = step(&mut machine, Event::Packet(&reply(b"secret")));
    result.expect("the cookie");
    let [Effect::Done(done)] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert!(done.replaces && done.flags == STOCK);

    let mut machine = at_alive();
    step(&mut machine, Event::Packet(b"strue")).2.expect("on");
    let stranger = failed(&mut machine, &reply(b"other"));
    assert!(
        matches!(stranger, HandshakeError::WrongCookie { .. }),
        "nothing is replaced for a stranger"
    );
    assert_eq!(
        failed(&mut at_alive(), b"sfalse"),
        HandshakeError::KeepsOld { peer: "a@h".into() }
    );
    for bad in [&b"smaybe"[..], b"s", b"true", b""] {
        assert!(matches!(
            failed(&mut at_alive(), bad),
            HandshakeError::Malformed { .. }
        ));
    }
    let text = at_alive().closed().to_string();
    assert!(text.contains("older connection"), "{text}");
}

#[test]
fn names_are_given_as_otp_gives_them() {
    let mut machine = stock_listener();
    let ask = name_packet(
        "some.host",
        STOCK.with(Flags::NAME_ME),
        b"PTSN is no trailer here",
    );
    let (_, effects, result) = step(&mut machine, Event::Packet(&ask));
    result.expect("accepted");
    let [Effect::Judge(peer)] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert!(peer.nameless && peer.trailer.is_none());
    assert_eq!(&*peer.name, "0202020202020202@some.host");
    assert_eq!(peer.creation, 0x0202_0202);
    let (sent, ..) = step(&mut machine, Event::Verdict(accept(b"secret")));
    let mut expected = b"snamed:\0\x1a0202020202020202@some.host".to_vec();
    expected.extend(peer.creation.to_be_bytes());
    assert_eq!(sent[0], expected);
    let flags = sent[1][1..9].first_chunk().copied().map(u64::from_be_bytes);
    assert_eq!(
        flags,
        Some(STOCK.with(Flags::NAME_ME).0),
        "the dialler asserts it"
    );

    let long = "h".repeat(239);
    for host in ["", "a@b", "a b", "a\0b", &long] {
        let ask = name_packet(host, STOCK.with(Flags::NAME_ME), b"");
        assert!(matches!(
            failed(&mut listener(), &ask),
            HandshakeError::BadName(_)
        ));
    }
}

#[test]
fn a_name_is_taken_only_when_it_was_asked_for_and_fits() {
    let answer = |mut machine: Handshake, status: &[u8]| {
        step(&mut machine, Event::Start).2.expect("started");
        step(&mut machine, Event::Packet(status)).2
    };
    let good = b"snamed:\0\x06x@host\0\0\0\x09";
    answer(nameless(), good).expect("a good name");
    assert_eq!(
        answer(stock_dialler(), good),
        Err(HandshakeError::Refused {
            peer: "b@host".into(),
            refusal: Refusal::Named
        })
    );
    let bad: [&[u8]; 6] = [
        b"snamed:\0\x07x@other\0\0\0\x09",
        b"snamed:\0\x05@host\0\0\0\x09",
        b"snamed:\0\x08x y@host\0\0\0\x09",
        b"sok",
        b"sok_simultaneous",
        b"salive",
    ];
    for status in bad {
        let error = answer(nameless(), status).expect_err("no name");
        assert!(matches!(error, HandshakeError::NoName { .. }), "{error}");
    }
    for end in 7..good.len() {
        let error = answer(nameless(), &good[..end]).expect_err("cut");
        assert!(matches!(error, HandshakeError::Malformed { .. }), "{error}");
    }
}

#[test]
fn an_old_name_is_completed_later() {
    let mut machine = stock_listener();
    let flags = STOCK.with(Flags::ALIAS);
    let name = old_name(5, flags, "old@h");
    let (_, effects, result) = step(&mut machine, Event::Packet(&name));
    result.expect("all that is mandatory");
    assert!(matches!(
        &effects[..],
        [Effect::Judge(PeerHello {
            creation: 0,
            trailer: None,
            ..
        })]
    ));
    let (sent, ..) = step(&mut machine, Event::Verdict(accept(b"secret")));
    assert_eq!((&sent[0][..], sent[1][0]), (&b"sok"[..], b'N'));
    let (sent, _, result) = step(&mut machine, Event::Packet(&complement(flags, 0xdead_beef)));
    result.expect("the rest");
    assert!(sent.is_empty());
    let (sent, effects, result) = step(&mut machine, Event::Packet(&reply(b"secret")));
    result.expect("the cookie");
    assert_eq!(sent[0][0], b'a');
    let [Effect::Done(done)] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!(done.peer.flags, flags, "both halves");
    assert_eq!((done.peer.creation, done.flags), (0xdead_beef, STOCK));

    let mut machine = stock_listener();
    step(&mut machine, Event::Packet(&name)).2.expect("a name");
    let verdict = Event::Verdict(accept(b"secret"));
    step(&mut machine, verdict).2.expect("accepted");
    let error = failed(&mut machine, &reply(b"secret"));
    assert!(matches!(
        error,
        HandshakeError::Malformed {
            packet: "complement",
            ..
        }
    ));
}

#[test]
fn old_peers_are_refused_in_words() {
    let refuse = |packet: &[u8]| {
        let (sent, _, result) = step(&mut listener(), Event::Packet(packet));
        assert_eq!(sent, [b"snot_allowed"]);
        result.expect_err("refused")
    };
    let without = |flag| STOCK.without(Flags::MANDATORY_25_DIGEST).without(flag);
    for packet in [
        old_name(5, without(Flags::HANDSHAKE_23), "old@h"),
        old_name(4, STOCK, "old@h"),
    ] {
        let error = refuse(&packet);
        assert_eq!(error, HandshakeError::TooOld);
        assert!(error.to_string().contains("OTP 22"), "{error}");
    }
    let error = refuse(&old_name(5, without(Flags::BIG_CREATION), "old@h"));
    assert!(error.to_string().contains("BIG_CREATION"), "{error}");
    for name in ["", "old", "@h", "old@", "o@l@d"] {
        let error = failed(&mut listener(), &old_name(5, STOCK, name));
        assert_eq!(error, HandshakeError::BadName(name.into()));
    }
}

#[test]
fn our_own_name_is_refused_to_others() {
    let same = || HandshakeError::SameName("b@host".into());
    let name = name_packet("b@host", STOCK, b"");
    let (sent, _, result) = step(&mut stock_listener(), Event::Packet(&name));
    assert_eq!((&sent[0][..], result), (&b"snot_allowed"[..], Err(same())));
    let mut dialler = stock(dialler_role(b"secret", Purpose::Stock), "b@host", 1);
    let (a, b) = run(&mut dialler, &mut stock_listener(), accept(b"secret"));
    assert!(a.is_err() && b == Err(same()));
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Accept,
    Simultaneous,
    Alive,
    Nok,
    NotAllowed,
}

fn answer() -> impl Strategy<Value = Answer> {
    prop::sample::select(vec![
        Answer::Accept,
        Answer::Simultaneous,
        Answer::Alive,
        Answer::Nok,
        Answer::NotAllowed,
    ])
}

proptest! {
    /// Both ends agree on the outcome, whatever the dialler wants and the listener decides.
    #[test]
    fn dialler_and_listener_agree(
        purpose in prop::sample::select(vec![Purpose::First, EXTRA, Purpose::Stock]),
        unnamed: bool,
        same_cookie: bool,
        answer in answer(),
        extras in any::<[u64; 2]>(),
    ) {
        let unnamed = unnamed && purpose == Purpose::Stock;
        let cookie: &[u8] = if same_cookie { b"secret" } else { b"other" };
        let name = if unnamed { "far.host" } else { "a@host" };
        let extras = extras.map(|bits| Flags(bits).without(Flags::NAME_ME));
        let mut ends = [
            config(name, 1, dialler_role(cookie, purpose)),
            config("b@host", 2, Role::Listener),
        ];
        for (end, extra) in ends.iter_mut().zip(extras) {
            end.stock_flags = Flags::OURS.with(extra);
        }
        let mut ends = ends.map(Handshake::new);
        let [dialler, listener] = &mut ends;
        let cookie = b"secret".to_vec();
        let verdict = match answer {
            Answer::Accept => Verdict::Accept { cookie, simultaneous: false },
            Answer::Simultaneous => Verdict::Accept { cookie, simultaneous: true },
            Answer::Alive => Verdict::Alive { cookie },
            Answer::Nok => Verdict::Nok,
            Answer::NotAllowed => Verdict::NotAllowed("no"),
        };
        let (a, b) = run(dialler, listener, verdict);
        let accepted = match answer {
            Answer::Accept | Answer::Simultaneous => true,
            Answer::Alive => purpose == Purpose::Stock,
            Answer::Nok | Answer::NotAllowed => false,
        };
        prop_assert_eq!(a.is_ok(), accepted && same_cookie, "{:?} {:?}", a, b);
        prop_assert_eq!(b.is_ok(), accepted && same_cookie, "{:?} {:?}", a, b);
        if let (Ok(a), Ok(b)) = (a, b) {
            prop_assert_eq!(a.link, b.link);
            prop_assert_eq!(a.link == Link::Stock, purpose == Purpose::Stock);
            let offers = match purpose {
                Purpose::Stock => extras.map(|extra| Flags::OURS.with(extra).expanded()),
                _ => [Flags::OURS; 2],
            };
            prop_assert_eq!(a.flags.without(Flags::NAME_ME), offers[0].and(offers[1]));
            prop_assert_eq!(b.flags.without(Flags::NAME_ME), offers[0].and(offers[1]));
            prop_assert_eq!(b.peer.nameless, unnamed);
            prop_assert_eq!(b.replaces, matches!(answer, Answer::Alive) && !unnamed);
            let given = a.given.map(|given| (given.node, given.creation));
            prop_assert_eq!(given, unnamed.then_some((b.peer.name, b.peer.creation)));
        }
    }

    /// Nothing that a peer sends at any point of a stock handshake panics or gets in.
    #[test]
    fn arbitrary_packets_never_panic(
        packets in prop::collection::vec(packet(), 1..4),
        turns in 0_usize..3,
        role in 0_u8..3,
    ) {
        let mut machine = match role {
            0 => stock_dialler(),
            1 => nameless(),
            _ => stock_listener(),
        };
        let opening: [&[u8]; 2] = match role {
            0 => [b"salive", b"x"],
            1 => [b"snamed:\0\x06x@host\0\0\0\x09", b"x"],
            _ => [&old_name(5, STOCK, "old@h"), b"strue"],
        };
        let _ = step(&mut machine, Event::Start);
        let alive = || Event::Verdict(Verdict::Alive { cookie: b"secret".to_vec() });
        for packet in opening.into_iter().take(turns).chain(packets.iter().map(|p| &p[..])) {
            let (_, effects, result) = step(&mut machine, Event::Packet(packet));
            prop_assert!(!effects.iter().any(|effect| matches!(effect, Effect::Done(_))));
            if let Err(error) = result {
                let _ = error.to_string();
                break;
            }
            if let [Effect::Judge(_)] = &effects[..] {
                let _ = step(&mut machine, alive());
            }
        }
    }
}
