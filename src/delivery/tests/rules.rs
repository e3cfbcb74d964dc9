//! Single rules.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::delivery::causal::Id;
use crate::delivery::{Config, Effect, Error, Event, Lane, Message, Parcel, State, acked};
use crate::limits::{DELIVERY_ACK_DELAY, DELIVERY_ACK_EVERY, MAX_DELIVERY_LANES};
use crate::wire::frame::Dest;

fn name(name: &str) -> Arc<str> {
    Arc::from(name)
}

fn channel() -> Lane {
    Lane::Channel("undefined".into())
}

fn label() -> Lane {
    Lane::Label("red".into())
}

fn node(own: &str, instance: u64, config: Config) -> State {
    let own = Id {
        node: name(own),
        instance,
    };
    State::new(config, own)
}

fn parcel(text: &str) -> Bytes {
    let mut out = Vec::new();
    let dest = Dest::Name("p");
    Parcel {
        dest,
        term: text.as_bytes(),
    }
    .encode(&mut out);
    out.into()
}

fn feed(state: &mut State, at: u64, event: Event) -> Vec<Effect> {
    let mut effects = Vec::new();
    let now = Duration::from_millis(at);
    state.handle(now, event, &mut effects).unwrap();
    effects
}

/// Takes everything that goes to a node.
fn drain(state: &mut State, at: u64, to: &str, lane: &Lane) -> Vec<Message> {
    let mut out = Vec::new();
    while let Some(message) = state.next(to, lane) {
        feed(state, at, Event::Sent(name(to), message.clone()));
        out.push(message);
    }
    out
}

fn text(state: &State, from: &str, lane: &Lane) -> Option<String> {
    let parcel = state.parcel(from, lane)?;
    Some(String::from_utf8(parcel.term.to_vec()).unwrap())
}

#[test]
fn acknowledgements_are_put_off_but_not_for_long() {
    let mut a = node("a@h", 1, Config::default());
    let mut b = node("b@h", 2, Config::default());
    feed(&mut a, 0, Event::Up(name("b@h"), 2));
    feed(&mut b, 0, Event::Up(name("a@h"), 1));
    for _ in 0..=DELIVERY_ACK_EVERY {
        feed(&mut a, 0, Event::Send(name("b@h"), channel(), parcel("x")));
    }
    let sent = drain(&mut a, 0, "b@h", &channel());
    assert_eq!(sent.len() as u32, DELIVERY_ACK_EVERY + 1);
    let mut acks = 0;
    for message in sent {
        feed(&mut b, 0, Event::Message(name("a@h"), message));
        feed(&mut b, 0, Event::Delivered(name("a@h"), channel()));
        acks += drain(&mut b, 0, "a@h", &channel()).len();
    }
    assert_eq!(acks, 1);
    assert!(drain(&mut b, 19, "a@h", &channel()).is_empty());
    let at = DELIVERY_ACK_DELAY.as_millis() as u64;
    assert_eq!(b.deadline(), Some(DELIVERY_ACK_DELAY));
    feed(&mut b, at, Event::Tick);
    let last = drain(&mut b, at, "a@h", &channel());
    assert_eq!(last.len(), 1);
    feed(&mut a, at, Event::Message(name("b@h"), last[0].clone()));
    assert_eq!(a.outstanding(), (0, 0));
}

#[test]
fn the_store_is_bounded() {
    let mut config = Config::default();
    config.acked.bytes = 400;
    config.acked.messages = 3;
    let mut a = node("a@h", 1, config);
    let room = |a: &State, bytes| a.has_room("b@h", &channel(), bytes);
    assert!(room(&a, 1000), "one message always fits");
    feed(&mut a, 0, Event::Send(name("b@h"), channel(), parcel("1")));
    assert!(room(&a, 50) && !room(&a, 200));
    assert!(a.has_room("c@h", &channel(), 200));
    assert!(!a.has_room("c@h", &channel(), 500));
    for _ in 0..2 {
        feed(&mut a, 0, Event::Send(name("b@h"), channel(), parcel("1")));
    }
    assert!(!room(&a, 1), "three messages");
    let effects = feed(&mut a, 0, Event::Left(name("b@h")));
    assert!(effects.contains(&Effect::Lost(name("b@h"), 3, "it has left the cluster")));
    assert!(effects.contains(&Effect::Room));
    assert_eq!(a.outstanding(), (0, 0));
}

#[test]
fn a_restarted_node_gets_what_was_outstanding() {
    let mut a = node("a@h", 1, Config::default());
    feed(&mut a, 0, Event::Up(name("b@h"), 2));
    for text in ["one", "two", "three"] {
        feed(&mut a, 0, Event::Send(name("b@h"), channel(), parcel(text)));
    }
    feed(&mut a, 0, Event::Send(name("b@h"), label(), parcel("red")));
    drain(&mut a, 0, "b@h", &channel());
    feed(&mut a, 1, Event::Down(name("b@h")));
    let effects = feed(&mut a, 1, Event::Tick);
    assert_eq!(effects, [Effect::Reach(name("b@h"))]);
    let effects = feed(&mut a, 2, Event::Up(name("b@h"), 3));
    let lost = |e: &Effect| matches!(e, Effect::Lost(_, 1, _));
    assert!(effects.iter().any(lost), "the causal one: {effects:?}");
    let mut b = node("b@h", 3, Config::default());
    feed(&mut b, 2, Event::Up(name("a@h"), 1));
    let mut texts = Vec::new();
    for message in drain(&mut a, 2, "b@h", &channel()) {
        feed(&mut b, 2, Event::Message(name("a@h"), message));
    }
    while let Some(text) = text(&b, "a@h", &channel()) {
        texts.push(text);
        feed(&mut b, 2, Event::Delivered(name("a@h"), channel()));
    }
    assert_eq!(texts, ["one", "two", "three"]);
}

/// A receiver that has forgotten everything, and one that refuses for want of room.
#[test]
fn streams_go_back_where_they_must() {
    let mut config = Config::default();
    config.acked.hold = 1;
    let mut a = node("a@h", 1, Config::default());
    let mut b = node("b@h", 2, config.clone());
    feed(&mut a, 0, Event::Up(name("b@h"), 2));
    feed(&mut b, 0, Event::Up(name("a@h"), 1));
    let mut texts = Vec::new();
    for round in 0..2 {
        for text in ["one", "two", "three"] {
            feed(&mut a, 0, Event::Send(name("b@h"), channel(), parcel(text)));
        }
        for _ in 0..20 {
            for message in drain(&mut a, 0, "b@h", &channel()) {
                feed(&mut b, 0, Event::Message(name("a@h"), message));
            }
            if let Some(text) = text(&b, "a@h", &channel()) {
                texts.push(text);
                feed(&mut b, 0, Event::Delivered(name("a@h"), channel()));
            }
            for message in drain(&mut b, 0, "a@h", &channel()) {
                feed(&mut a, 0, Event::Message(name("b@h"), message));
            }
        }
        assert_eq!(texts, ["one", "two", "three"], "round {round}");
        feed(&mut b, 20, Event::Tick);
        for message in drain(&mut b, 20, "a@h", &channel()) {
            feed(&mut a, 20, Event::Message(name("b@h"), message));
        }
        assert_eq!(a.outstanding(), (0, 0));
        // The same incarnation, as after a leave that only one end has seen.
        b = node("b@h", 2, config.clone());
        feed(&mut b, 0, Event::Up(name("a@h"), 1));
        feed(&mut a, 0, Event::Down(name("b@h")));
        feed(&mut a, 0, Event::Up(name("b@h"), 2));
        texts.clear();
    }
}

#[test]
fn hostile_peers_are_named() {
    let mut a = node("a@h", 1, Config::default());
    feed(&mut a, 0, Event::Up(name("b@h"), 2));
    feed(&mut a, 0, Event::Send(name("b@h"), channel(), parcel("x")));
    let mut effects = Vec::new();
    let ack = Message::Ack {
        lane: channel(),
        epoch: 1,
        done: 2,
        received: 2,
        again: false,
    };
    let event = Event::Message(name("b@h"), ack);
    let outcome = a.handle(Duration::ZERO, event, &mut effects);
    assert_eq!(outcome, Err(Error::Stream(acked::Error::Ack)));
    let data = |lane: String| Message::Data {
        lane: Lane::Channel(lane.into()),
        epoch: 1,
        start: 0,
        number: 0,
        body: parcel("x"),
    };
    let outcome = (0..=MAX_DELIVERY_LANES)
        .map(|n| Event::Message(name("b@h"), data(n.to_string())))
        .try_for_each(|event| a.handle(Duration::ZERO, event, &mut effects));
    assert_eq!(outcome, Err(Error::Stream(acked::Error::Lanes)));
    let garbage = Message::Data {
        lane: label(),
        epoch: 1,
        start: 0,
        number: 0,
        body: Bytes::from_static(&[0, 0, 0, 9, 1]),
    };
    let event = Event::Message(name("b@h"), garbage);
    let outcome = a.handle(Duration::ZERO, event, &mut effects);
    assert!(matches!(outcome, Err(Error::Message(_))));
}

/// Ann tells Bob and then Cid, who tells Bob: Bob hears Ann first, however slow she is.
struct Triangle {
    bob: State,
    ann_to_bob: Message,
}

fn triangle(patience: u64) -> Triangle {
    let mut config = Config::default();
    config.causal.patience = Duration::from_millis(patience);
    let mut ann = node("ann@h", 1, config.clone());
    let mut bob = node("bob@h", 2, config.clone());
    let mut cid = node("cid@h", 3, config);
    let all = [("ann@h", 1), ("bob@h", 2), ("cid@h", 3)];
    for (index, state) in [&mut ann, &mut bob, &mut cid].into_iter().enumerate() {
        for (other, (peer, instance)) in all.iter().enumerate() {
            if other != index {
                feed(state, 0, Event::Up(name(peer), *instance));
            }
        }
    }
    feed(
        &mut ann,
        0,
        Event::Send(name("bob@h"), label(), parcel("first")),
    );
    feed(
        &mut ann,
        0,
        Event::Send(name("cid@h"), label(), parcel("aside")),
    );
    let ann_to_bob = drain(&mut ann, 0, "bob@h", &label()).remove(0);
    let ann_to_cid = drain(&mut ann, 0, "cid@h", &label()).remove(0);
    let effects = feed(&mut cid, 0, Event::Message(name("ann@h"), ann_to_cid));
    assert_eq!(effects, [Effect::Deliver(name("ann@h"), label())]);
    feed(&mut cid, 0, Event::Delivered(name("ann@h"), label()));
    feed(
        &mut cid,
        0,
        Event::Send(name("bob@h"), label(), parcel("second")),
    );
    let cid_to_bob = drain(&mut cid, 0, "bob@h", &label()).remove(0);
    let effects = feed(&mut bob, 0, Event::Message(name("cid@h"), cid_to_bob));
    assert_eq!(effects, [], "Ann's comes first");
    Triangle { bob, ann_to_bob }
}

#[test]
fn a_triangle_keeps_its_order() {
    let Triangle {
        mut bob,
        ann_to_bob,
    } = triangle(1000);
    let effects = feed(&mut bob, 1, Event::Message(name("ann@h"), ann_to_bob));
    assert_eq!(effects, [Effect::Deliver(name("ann@h"), label())]);
    assert_eq!(text(&bob, "ann@h", &label()).as_deref(), Some("first"));
    let effects = feed(&mut bob, 1, Event::Delivered(name("ann@h"), label()));
    assert!(effects.contains(&Effect::Deliver(name("cid@h"), label())));
}

#[test]
fn nobody_waits_for_an_ended_incarnation() {
    let ends = [Event::Up(name("ann@h"), 9), Event::Left(name("ann@h"))];
    for end in ends {
        let Triangle { mut bob, .. } = triangle(1000);
        let effects = feed(&mut bob, 1, end);
        assert!(effects.contains(&Effect::Deliver(name("cid@h"), label())));
        assert_eq!(text(&bob, "cid@h", &label()).as_deref(), Some("second"));
    }
}

#[test]
fn patience_ends_and_what_comes_later_is_dropped() {
    let Triangle {
        mut bob,
        ann_to_bob,
    } = triangle(1000);
    feed(&mut bob, 1, Event::Down(name("ann@h")));
    assert_eq!(bob.deadline(), Some(Duration::from_secs(1)));
    let effects = feed(&mut bob, 1000, Event::Tick);
    assert!(effects.contains(&Effect::GivenUp(name("ann@h"))));
    assert!(effects.contains(&Effect::Deliver(name("cid@h"), label())));
    feed(&mut bob, 1000, Event::Delivered(name("cid@h"), label()));
    feed(&mut bob, 1001, Event::Up(name("ann@h"), 1));
    let effects = feed(&mut bob, 1001, Event::Message(name("ann@h"), ann_to_bob));
    assert!(effects.contains(&Effect::Late(name("ann@h"), name("red"))));
    let later = bob.parcel("ann@h", &label());
    assert_eq!(later, None);
}

#[test]
fn a_full_order_has_senders_wait() {
    let mut config = Config::default();
    config.causal.entries = 2;
    let mut a = node("a@h", 1, config);
    for (peer, instance) in [("b@h", 2), ("c@h", 3)] {
        feed(&mut a, 0, Event::Up(name(peer), instance));
        assert!(a.has_room(peer, &label(), 1));
        feed(&mut a, 0, Event::Send(name(peer), label(), parcel("x")));
    }
    assert!(!a.has_room("b@h", &label(), 1));
    let message = drain(&mut a, 0, "b@h", &label()).remove(0);
    let Message::Data { lane, epoch, .. } = message else {
        panic!("{message:?}");
    };
    let ack = Message::Ack {
        lane,
        epoch,
        done: 1,
        received: 1,
        again: false,
    };
    let effects = feed(&mut a, 0, Event::Message(name("b@h"), ack));
    assert!(effects.contains(&Effect::Room));
    assert!(a.has_room("b@h", &label(), 1));
}
