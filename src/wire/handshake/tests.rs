//! Two machines against each other, and each against what a peer may invent.

use proptest::prelude::*;

use super::*;
use crate::limits::MAX_HANDSHAKE_PACKET;
use crate::wire::handshake::packet as raw;

pub(super) const SESSION: SessionId = SessionId([9; 16]);
pub(super) const EXTRA: Purpose = Purpose::Extra {
    session: SESSION,
    index: 3,
};

pub(super) fn config(name: &str, seed: u8, role: Role) -> Config {
    Config {
        local: Identity::new(name, 100 + u32::from(seed)),
        flags: Flags::OURS,
        stock_flags: Flags::OURS,
        instance: seed.into(),
        capabilities: 0,
        nonce: [seed; 16],
        challenge: 0x1234_5600 + u32::from(seed),
        role,
    }
}

pub(super) fn dialer(purpose: Purpose) -> Handshake {
    let role = Role::Dialer {
        peer: "b@host".into(),
        cookie: b"secret".to_vec(),
        purpose,
    };
    Handshake::new(config("a@host", 1, role))
}

pub(super) fn listener() -> Handshake {
    Handshake::new(config("b@host", 2, Role::Listener))
}

pub(super) fn accept(cookie: &[u8]) -> Verdict {
    Verdict::Accept {
        cookie: cookie.to_vec(),
        simultaneous: false,
    }
}

/// Feeds one event; what is sent comes back without its length.
pub(super) fn step(
    machine: &mut Handshake,
    event: Event<'_>,
) -> (Vec<Vec<u8>>, Vec<Effect>, Result<(), HandshakeError>) {
    let mut effects = Vec::new();
    let result = machine.handle(event, &mut effects);
    let (mut sent, mut rest) = (Vec::new(), Vec::new());
    for effect in effects {
        match effect {
            Effect::Send(bytes) => {
                let len = u16::from_be_bytes([bytes[0], bytes[1]]);
                assert_eq!(usize::from(len), bytes.len() - 2);
                sent.push(bytes[2..].to_vec());
            }
            other => rest.push(other),
        }
    }
    (sent, rest, result)
}

pub(super) type Outcome = Result<Established, HandshakeError>;

/// Runs both ends to their end. One that waits for a peer that has failed sees it close.
pub(super) fn run(
    dialer: &mut Handshake,
    listener: &mut Handshake,
    verdict: Verdict,
) -> (Outcome, Outcome) {
    let mut verdict = Some(verdict);
    let mut outcomes = [None, None];
    let mut inbox: Vec<(usize, Event<'static>, Vec<u8>)> = vec![(0, Event::Start, Vec::new())];
    while !inbox.is_empty() {
        let (end, event, packet) = inbox.remove(0);
        let event = if packet.is_empty() {
            event
        } else {
            Event::Packet(&packet)
        };
        let machine = if end == 0 {
            &mut *dialer
        } else {
            &mut *listener
        };
        let (sent, rest, result) = step(machine, event);
        inbox.extend(
            sent.into_iter()
                .map(|packet| (1 - end, Event::Start, packet)),
        );
        for effect in rest {
            match effect {
                Effect::Done(done) => outcomes[end] = Some(Ok(done)),
                Effect::Judge(_) => {
                    let verdict = verdict.take().expect("judged once");
                    inbox.push((end, Event::Verdict(verdict), Vec::new()));
                }
                Effect::Send(_) => unreachable!("split off"),
            }
        }
        if let Err(error) = result {
            outcomes[end] = Some(Err(error));
        }
        inbox.retain(|(end, ..)| outcomes[*end].is_none());
    }
    let [a, b] = outcomes;
    (
        a.unwrap_or_else(|| Err(dialer.closed())),
        b.unwrap_or_else(|| Err(listener.closed())),
    )
}

/// A dialler that has everything behind it up to the challenge, and a listener up to the reply.
fn halfway(purpose: Purpose) -> (Handshake, Handshake, Vec<u8>, Vec<u8>) {
    let (mut dialer, mut listener) = (dialer(purpose), listener());
    let name = step(&mut dialer, Event::Start).0.remove(0);
    step(&mut listener, Event::Packet(&name))
        .2
        .expect("a good name");
    let (sent, ..) = step(&mut listener, Event::Verdict(accept(b"secret")));
    step(&mut dialer, Event::Packet(&sent[0])).2.expect("ok");
    let (reply, ..) = step(&mut dialer, Event::Packet(&sent[1]));
    (dialer, listener, sent[1].clone(), reply[0].clone())
}

pub(super) fn failed(machine: &mut Handshake, packet: &[u8]) -> HandshakeError {
    let error = step(machine, Event::Packet(packet)).2.expect_err("refused");
    let again = step(machine, Event::Packet(b"sok")).2;
    assert!(
        matches!(again, Err(HandshakeError::OutOfTurn { .. })),
        "over after an error"
    );
    error
}

pub(super) fn name_packet(name: &str, flags: Flags, trailer: &[u8]) -> Vec<u8> {
    raw::name(flags, &Identity::new(name, 7), trailer)[2..].to_vec()
}

#[test]
fn first_connection_agrees_on_a_session() {
    let (a, b) = run(
        &mut dialer(Purpose::First),
        &mut listener(),
        accept(b"secret"),
    );
    let (a, b) = (a.expect("dialler"), b.expect("listener"));
    let session = SessionId::derive(&[1; 16], &[2; 16]);
    assert_eq!(
        (a.link, b.link),
        (Link::First(session), Link::First(session))
    );
    assert_eq!((&*a.peer.name, a.peer.creation), ("b@host", 102));
    assert_eq!((&*b.peer.name, b.peer.creation), ("a@host", 101));
    assert_eq!(a.peer.trailer.map(|trailer| trailer.instance), Some(2));
}

#[test]
fn extra_connection_proves_its_session() {
    let accept = Verdict::Accept {
        cookie: b"secret".to_vec(),
        simultaneous: true,
    };
    let (a, b) = run(&mut dialer(EXTRA), &mut listener(), accept);
    let link = Link::Extra {
        session: SESSION,
        index: 3,
    };
    assert_eq!(
        (a.expect("dialler").link, b.expect("listener").link),
        (link, link)
    );
}

#[test]
fn layout_of_name_and_trailer() {
    let (sent, ..) = step(&mut dialer(EXTRA), Event::Start);
    let mut expected = b"N".to_vec();
    expected.extend(Flags::OURS.0.to_be_bytes());
    expected.extend([0, 0, 0, 101, 0, 6]);
    expected.extend(b"a@hostPTSN\x01\x00\x1e\0\0\0\0\x01\x01\0\0\0\0\0\0\0\x01");
    expected.extend([1; 16]);
    assert_eq!(sent, [expected]);
}

#[test]
fn digest_is_erlangs() {
    // erlang:md5("cookie" ++ "4294967295").
    let expected: u128 = 0xde56ff9d_11b07190_5bce597a_85d67f4f;
    assert_eq!(
        super::trailer::digest(b"cookie", u32::MAX),
        expected.to_be_bytes()
    );
}

#[test]
fn wrong_cookie_is_noticed_on_both_ends() {
    let (a, b) = run(
        &mut dialer(Purpose::First),
        &mut listener(),
        accept(b"other"),
    );
    assert_eq!(
        b,
        Err(HandshakeError::WrongCookie {
            peer: "a@host".into()
        })
    );
    let a = a.expect_err("closed");
    assert_eq!(
        a,
        HandshakeError::Closed {
            peer: "b@host".into(),
            awaited: Awaited::Ack
        }
    );
    assert!(a.to_string().contains("cookies differ"), "{a}");

    let (mut dialer, ..) = halfway(Purpose::First);
    let ack = [&b"a"[..], &[0; 16]].concat();
    assert_eq!(
        failed(&mut dialer, &ack),
        HandshakeError::WrongCookie {
            peer: "b@host".into()
        }
    );
}

#[test]
fn refusals_reach_the_dialler() {
    let ours = [
        (Verdict::Nok, Refusal::Nok),
        (
            Verdict::NotAllowed("its name is taken"),
            Refusal::NotAllowed,
        ),
    ];
    for (verdict, refusal) in ours {
        let (a, b) = run(&mut dialer(Purpose::First), &mut listener(), verdict);
        assert_eq!(
            a,
            Err(HandshakeError::Refused {
                peer: "b@host".into(),
                refusal
            })
        );
        assert!(matches!(b, Err(HandshakeError::RefusedByUs { .. })));
    }
    let statuses: [(&[u8], Refusal); 4] = [
        (b"sok_maybe", Refusal::Other("ok_maybe".into())),
        (b"s\xff", Refusal::Other("\\xff".into())),
        (b"snamed:\0\x03x@y\0\0\0\0", Refusal::Named),
        (b"salive", Refusal::Alive),
    ];
    for (status, refusal) in statuses {
        let mut dialer = dialer(Purpose::First);
        step(&mut dialer, Event::Start).2.expect("started");
        let (sent, _, result) = step(&mut dialer, Event::Packet(status));
        let answered = sent == [b"sfalse".to_vec()];
        assert_eq!(answered, refusal == Refusal::Alive);
        assert_eq!(
            result,
            Err(HandshakeError::Refused {
                peer: "b@host".into(),
                refusal
            })
        );
    }
}

#[test]
fn old_handshake_is_refused() {
    assert_eq!(
        failed(&mut listener(), b"n\0\x05\0\0\0\0a@host"),
        HandshakeError::TooOld
    );
    let mut dialer = dialer(Purpose::First);
    step(&mut dialer, Event::Start).2.expect("started");
    step(&mut dialer, Event::Packet(b"sok")).2.expect("ok");
    assert_eq!(
        failed(&mut dialer, b"n\0\x05\0\0\0\0\0\0\0\0b@host"),
        HandshakeError::TooOld
    );
}

#[test]
fn missing_flags_are_named_and_the_digest_stands_for_them() {
    let flags = Flags::MANDATORY.without(Flags::MAP_TAG);
    let mut machine = listener();
    let (sent, _, result) = step(&mut machine, Event::Packet(&name_packet("a@h", flags, b"")));
    assert_eq!(sent, [b"snot_allowed".to_vec()]);
    let error = result.expect_err("refused");
    let missing = Flags::MAP_TAG;
    assert_eq!(
        error,
        HandshakeError::MissingFlags {
            peer: "a@h".into(),
            missing
        }
    );
    assert!(error.to_string().contains("MAP_TAG"), "{error}");

    let packet = name_packet("a@h", Flags::MANDATORY_25_DIGEST, b"");
    step(&mut listener(), Event::Packet(&packet))
        .2
        .expect("the shorthand suffices");
}

#[test]
fn names_have_the_form_of_names() {
    let long = format!("{}@h", "x".repeat(254));
    for name in ["", "a", "@", "a@", "@h", "a@h@i", "a b@h", "a\n@h", &long] {
        let error = failed(&mut listener(), &name_packet(name, Flags::OURS, b""));
        assert_eq!(
            error,
            HandshakeError::BadName(name.get(..255).unwrap_or(name).into())
        );
    }
}

#[test]
fn another_node_answers() {
    let mut other = Handshake::new(config("c@host", 3, Role::Listener));
    let (a, _) = run(&mut dialer(Purpose::First), &mut other, accept(b"secret"));
    let (dialled, answered) = ("b@host".into(), "c@host".into());
    assert_eq!(a, Err(HandshakeError::NameMismatch { dialled, answered }));
}

#[test]
fn self_connection_is_noticed() {
    let mut other = Handshake::new(config("b@host", 1, Role::Listener));
    let (a, b) = run(&mut dialer(Purpose::First), &mut other, accept(b"secret"));
    assert!(matches!(
        a,
        Err(HandshakeError::Refused {
            refusal: Refusal::NotAllowed,
            ..
        })
    ));
    assert_eq!(
        b,
        Err(HandshakeError::SelfConnection {
            peer: "a@host".into()
        })
    );
}

#[test]
fn stock_peers_have_no_trailer() {
    for residue in [&b""[..], b"other extension"] {
        let mut machine = listener();
        let packet = name_packet("a@h", Flags::MANDATORY, residue);
        let (_, effects, result) = step(&mut machine, Event::Packet(&packet));
        result.expect("accepted");
        assert!(matches!(
            &effects[..],
            [Effect::Judge(PeerHello { trailer: None, .. })]
        ));
        let (sent, ..) = step(&mut machine, Event::Verdict(accept(b"secret")));
        assert!(sent[1].ends_with(b"b@host"), "a stock peer gets no trailer");
    }
    for (purpose, stock) in [(Purpose::First, true), (EXTRA, false)] {
        let mut dialer = dialer(purpose);
        step(&mut dialer, Event::Start).2.expect("started");
        step(&mut dialer, Event::Packet(b"sok")).2.expect("ok");
        let local = Identity::new("b@host", 7);
        let packet = raw::challenge(Flags::MANDATORY, 5, &local, b"");
        let (sent, _, result) = step(&mut dialer, Event::Packet(&packet[2..]));
        match result {
            Ok(()) => assert!(stock && sent[0].len() == 21),
            Err(error) => assert!(!stock && matches!(error, HandshakeError::NoTrailer { .. })),
        }
    }
}

#[test]
fn trailers_may_grow_but_not_shrink() {
    let ours = Trailer {
        capabilities: u32::MAX,
        extra: true,
        instance: 8,
        nonce: [4; 16],
    };
    let good = ours.encode();
    assert_eq!(Trailer::parse(&good), Ok(Some(ours)));
    let mut longer = good.clone();
    longer[6] += 3;
    assert!(
        Trailer::parse(&longer).is_err(),
        "the length reaches beyond the packet"
    );
    longer.extend(b"new, and more");
    assert_eq!(Trailer::parse(&longer), Ok(Some(ours)));
    let mut shorter = good.clone();
    shorter[6] -= 1;
    assert!(Trailer::parse(&shorter).is_err());
    for end in 4..good.len() {
        assert!(Trailer::parse(&good[..end]).is_err());
    }
    let with = |at: usize, byte| {
        let mut bad = good.clone();
        bad[at] = byte;
        failed(&mut listener(), &name_packet("a@h", Flags::OURS, &bad))
    };
    assert_eq!(with(4, 2), HandshakeError::TrailerVersion(2));
    assert_eq!(with(11, 2), HandshakeError::FrameVersion(2));
    assert!(matches!(with(12, 2), HandshakeError::Malformed { .. }));
}

#[test]
fn bindings_are_checked_to_the_last_bit() {
    let (_, _, _, reply) = halfway(EXTRA);
    let binding = 21;
    assert_eq!(reply.len(), binding + 16 + 2 + 32);
    for at in binding..reply.len() {
        let (_, mut listener, ..) = halfway(EXTRA);
        let mut bad = reply.clone();
        bad[at] ^= 1;
        let error = failed(&mut listener, &bad);
        assert!(
            matches!(error, HandshakeError::BadBinding { .. }),
            "byte {at}: {error}"
        );
    }
    let variants = [
        (EXTRA, [&reply[..], &[0]].concat()),
        (EXTRA, reply[..binding].to_vec()),
        (
            EXTRA,
            [&reply[..binding + 16], &[0, 0], &reply[binding + 18..]].concat(),
        ),
        (
            EXTRA,
            [&reply[..binding + 16], &[0xff, 0], &reply[binding + 18..]].concat(),
        ),
        (Purpose::First, reply.clone()),
    ];
    for (purpose, bad) in variants {
        let (_, mut listener, ..) = halfway(purpose);
        assert!(matches!(
            failed(&mut listener, &bad),
            HandshakeError::BadBinding { .. }
        ));
    }
}

#[test]
fn malformed_packets_and_wrong_order() {
    let long = vec![b'N'; MAX_HANDSHAKE_PACKET + 1];
    assert_eq!(
        failed(&mut listener(), &long),
        HandshakeError::TooLong(long.len())
    );
    for packet in [
        &b""[..],
        b"N",
        b"x",
        b"sok",
        b"N\0\0\0\0\0\0\0\0\0\0\0\0\0\x05a@h",
    ] {
        assert!(matches!(
            failed(&mut listener(), packet),
            HandshakeError::Malformed { .. }
        ));
    }
    let (mut dialer, mut listener, ..) = halfway(Purpose::First);
    assert!(matches!(
        failed(&mut dialer, b"ashort"),
        HandshakeError::Malformed { .. }
    ));
    assert!(matches!(
        failed(&mut listener, b"rshort"),
        HandshakeError::Malformed { .. }
    ));
    let mut waiting = super::Handshake::new(config("b@host", 2, Role::Listener));
    let name = name_packet("a@h", Flags::OURS, b"");
    step(&mut waiting, Event::Packet(&name))
        .2
        .expect("a good name");
    assert!(matches!(
        failed(&mut waiting, &name),
        HandshakeError::OutOfTurn { .. }
    ));
}

pub(super) fn packet() -> impl Strategy<Value = Vec<u8>> {
    let tag = prop::sample::select(b"NnsraPT".to_vec());
    let any = (tag, prop::collection::vec(any::<u8>(), 0..90));
    any.prop_map(|(tag, mut rest)| {
        rest.insert(0, tag);
        rest
    })
}

proptest! {
    #[test]
    fn arbitrary_packets_never_panic(
        packet in packet(),
        residue in prop::collection::vec(any::<u8>(), 0..60),
        extra: bool,
    ) {
        let purpose = if extra { EXTRA } else { Purpose::First };
        let (mut late_dialer, mut late_listener, mut challenge, mut reply) = halfway(purpose);
        step(&mut late_dialer, Event::Packet(&packet)).2.expect_err("no acknowledgement");
        step(&mut late_listener, Event::Packet(&packet)).2.expect_err("no reply");

        let _ = step(&mut listener(), Event::Packet(&packet));
        let trailer = [b"PTSN\x01", &residue[..]].concat();
        let _ = step(&mut listener(), Event::Packet(&name_packet("a@h", Flags::OURS, &trailer)));

        let mut machine = dialer(purpose);
        step(&mut machine, Event::Start).2.expect("started");
        let _ = step(&mut machine, Event::Packet(&packet));

        let name_end = 1 + 8 + 4 + 4 + 2 + 6;
        challenge.truncate(name_end);
        challenge.extend(&trailer);
        for packet in [&packet, &challenge] {
            let mut machine = dialer(purpose);
            step(&mut machine, Event::Start).2.expect("started");
            step(&mut machine, Event::Packet(b"sok")).2.expect("ok");
            let _ = step(&mut machine, Event::Packet(packet));
        }
        let (_, mut late_listener, ..) = halfway(EXTRA);
        reply.truncate(21);
        reply.extend(&residue);
        step(&mut late_listener, Event::Packet(&reply)).2.expect_err("no binding");
    }
}
