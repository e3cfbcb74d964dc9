//! Messages, and the rules of links one by one. Whole clusters switch in the simulator's tests.

use std::time::Duration;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::message::Body;
use super::{Choice, Config, Epoch, Message, Side, Switch};
use crate::overlay::codec::Reader;
use crate::overlay::contract::{Down, Effect, Error, Event, Overlay, Peer, Wire};
use crate::overlay::static_topology::Static;
use crate::overlay::{Effects, codec::DecodeError};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Id(u32);

impl Peer for Id {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_be_bytes());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.u32().map(Self)
    }
}

type Fx = Effects<Switch<Id>>;

/// An overlay that keeps a link with whom it has joined, by the name of the one that is told.
fn choice(name: &'static str, is_entry: bool) -> Choice<Id> {
    Choice {
        name,
        is_whole: name == "whole",
        is_entry,
        make: Box::new(|own| Box::new(Static::new(own))),
    }
}

struct One {
    switch: Switch<Id>,
    now: Duration,
    rng: SmallRng,
}

fn one() -> One {
    let others = vec![choice("other", true), choice("clients", false)];
    One {
        switch: Switch::new(Config::default(), Id(0), choice("whole", true), others),
        now: Duration::from_secs(5),
        rng: SmallRng::seed_from_u64(1),
    }
}

impl One {
    fn try_tell(&mut self, event: Event<Id, Message<Id>>) -> (Result<(), Error>, Fx) {
        let mut fx = Vec::new();
        let done = self.switch.handle(self.now, event, &mut self.rng, &mut fx);
        (done, fx)
    }

    fn tell(&mut self, event: Event<Id, Message<Id>>) -> Fx {
        let (done, fx) = self.try_tell(event);
        done.unwrap();
        fx
    }

    fn hear(&mut self, from: u32, epoch: Epoch, body: Body<Id>) -> Fx {
        let message = Message { epoch, body };
        let from = Id(from);
        self.tell(Event::Message { from, message })
    }

    fn switch(&mut self, name: &str) -> (Result<(), Error>, Fx) {
        let mut fx = Vec::new();
        let done = self.switch.switch(self.now, name, &mut self.rng, &mut fx);
        (done, fx)
    }

    /// Joins a node, which answers.
    fn linked(&mut self, peer: u32) {
        self.tell(Event::Join(Id(peer)));
        let fx = self.tell(Event::LinkUp(Id(peer)));
        let hello = (Epoch::default(), Body::Hello { link: 1 });
        assert_eq!(sent(&fx, peer), [(Epoch::default(), runs("whole")), hello]);
        self.hear(peer, Epoch::default(), runs("whole"));
        self.hear(peer, Epoch::default(), Body::Hello { link: 1 });
    }
}

fn runs(overlay: &str) -> Body<Id> {
    Body::Runs {
        overlay: overlay.into(),
        follow: None,
    }
}

fn later(number: u64) -> Epoch {
    Epoch { number, tie: 7 }
}

fn sent(fx: &Fx, to: u32) -> Vec<(Epoch, Body<Id>)> {
    let of = |effect: &Effect<Id, Message<Id>>| match effect {
        Effect::Send { to: t, message } if t.0 == to => Some((message.epoch, message.body.clone())),
        _ => None,
    };
    fx.iter().filter_map(of).collect()
}

#[test]
fn who_hears_of_a_later_epoch_follows_and_passes_it_on() {
    let mut one = one();
    one.linked(1);
    one.linked(2);
    let fx = one.hear(1, later(1), runs("other"));
    let told = (later(1), runs("other"));
    let hello = (later(1), Body::Hello { link: 1 });
    assert_eq!(sent(&fx, 1), [told.clone(), hello]);
    assert_eq!(sent(&fx, 2), [told]);
    assert!(
        fx.contains(&Effect::Want(Id(1))),
        "it joins whom it heard of it: {fx:?}"
    );
    assert!(!fx.contains(&Effect::Want(Id(2))));
    let status = one.switch.status();
    assert_eq!((status.overlay, status.epoch), ("other", 1));
    assert_eq!(status.until_switched, Some("whole"));
    // Once only, and not by those of the past.
    assert_eq!(one.hear(2, later(1), runs("other")), []);
    assert_eq!(one.hear(2, Epoch::default(), runs("whole")), []);
}

#[test]
fn the_old_overlay_runs_on_and_then_ends() {
    let mut one = one();
    one.linked(1);
    one.linked(2);
    let (done, _) = one.switch("other");
    done.unwrap();
    assert!(!one.switch.is_whole());
    let epoch = one.switch.current.epoch;
    // A neighbour of the old overlay becomes one of the new, which is no news.
    one.hear(1, epoch, Body::Hello { link: 1 });
    assert_eq!(one.switch.members(), [Id(0), Id(1), Id(2)]);
    one.now += Config::default().overlap;
    assert_eq!(one.switch.deadline().map(|at| at <= one.now), Some(true));
    let fx = one.tell(Event::Tick);
    let release = (Epoch::default(), Body::Release { link: 1 });
    assert_eq!(
        (sent(&fx, 1), sent(&fx, 2)),
        (vec![release.clone()], vec![release])
    );
    assert!(fx.contains(&Effect::Release(Id(2))), "{fx:?}");
    assert!(fx.contains(&Effect::NeighborDown(Id(2))));
    assert_eq!(one.switch.status().until_switched, None);
    let late = one.hear(1, Epoch::default(), Body::Inner(vec![1]));
    assert_eq!(late, [], "of what has ended");
}

#[test]
fn of_two_that_begin_at_once_the_greater_wins() {
    let mut one = one();
    one.linked(1);
    one.linked(2);
    one.hear(1, later(1), runs("clients"));
    let greater = Epoch { number: 1, tie: 8 };
    one.hear(2, greater, runs("other"));
    assert_eq!(one.switch.current.epoch, greater);
    let status = one.switch.status();
    assert_eq!(
        (status.overlay, status.until_switched),
        ("other", Some("whole"))
    );
    let lesser = one.hear(1, later(1), runs("clients"));
    assert_eq!((lesser, one.switch.current.epoch), (vec![], greater));
}

#[test]
fn a_link_that_is_released_and_opened_again_has_the_next_number() {
    let mut one = one();
    one.linked(1);
    one.switch("other").0.unwrap();
    let epoch = one.switch.current.epoch;
    let fx = one.hear(1, epoch, Body::Hello { link: 1 });
    assert_eq!(
        sent(&fx, 1)[0],
        (epoch, Body::Hello { link: 1 }),
        "an answer"
    );
    assert!(one.switch.current.is_linked(&Id(1)));
    // It is released by both ends at once, and the other end opens the next.
    let mut fx = Vec::new();
    let release = Effect::Release(Id(1));
    one.switch.grant(Side::Current, release, &mut fx);
    assert_eq!(sent(&fx, 1), [(epoch, Body::Release { link: 1 })]);
    assert!(
        !fx.contains(&Effect::Release(Id(1))),
        "the old overlay has a link"
    );
    assert!(!one.switch.current.is_linked(&Id(1)));
    assert_eq!(one.hear(1, epoch, Body::Release { link: 1 }), []);
    assert_eq!(
        one.hear(1, epoch, Body::Hello { link: 1 }),
        [],
        "of the past"
    );
    let fx = one.hear(1, epoch, Body::Hello { link: 2 });
    assert_eq!(sent(&fx, 1)[0], (epoch, Body::Hello { link: 2 }));
    assert!(one.switch.current.is_linked(&Id(1)));
    one.hear(1, epoch, Body::Release { link: 2 });
    assert!(!one.switch.current.is_linked(&Id(1)));
    // One that is wanted all the same is opened again, after a while.
    one.tell(Event::Join(Id(1)));
    one.hear(1, epoch, Body::Release { link: 3 });
    let due = one.switch.deadline().unwrap();
    assert!(due > one.now);
    one.now = due;
    let fx = one.tell(Event::Tick);
    assert_eq!(sent(&fx, 1), [(epoch, Body::Hello { link: 4 })]);
    // The node goes: nothing is left of it, and it begins anew.
    one.tell(Event::LinkDown(Id(1), Down::Failed));
    assert!(one.switch.current.links.is_empty());
}

#[test]
fn what_can_not_be_switched_to_is_refused_and_changes_nothing() {
    let mut one = one();
    let (unknown, fx) = one.switch("none");
    assert!(matches!(unknown, Err(Error::UnknownOverlay { name, .. }) if name == "none"));
    assert_eq!(fx, []);
    let (client, fx) = one.switch("clients");
    assert!(
        matches!(client, Err(Error::Unsupported { .. })),
        "{client:?}"
    );
    assert_eq!(fx, []);
    one.linked(1);
    let message = Message {
        epoch: later(9),
        body: runs("none"),
    };
    let (heard, _) = one.try_tell(Event::Message {
        from: Id(1),
        message,
    });
    assert!(
        matches!(heard, Err(Error::UnknownOverlay { .. })),
        "{heard:?}"
    );
    let message = Message {
        epoch: Epoch::default(),
        body: runs("other"),
    };
    let (differs, _) = one.try_tell(Event::Message {
        from: Id(1),
        message,
    });
    assert!(
        matches!(differs, Err(Error::OtherOverlay { .. })),
        "{differs:?}"
    );
    assert_eq!(one.switch.status().epoch, 0);
    assert!(one.switch("whole").0.is_ok(), "it runs already");
    assert_eq!(one.switch.status().epoch, 0);
}

#[test]
fn who_follows_a_client_joins_whom_the_client_has_joined() {
    let mut one = one();
    one.linked(1);
    let body = Body::Runs {
        overlay: "clients".into(),
        follow: Some(Id(9)),
    };
    let fx = one.hear(1, later(1), body.clone());
    assert!(fx.contains(&Effect::Want(Id(9))), "{fx:?}");
    // It is a client itself, so others are sent to the same node.
    assert_eq!(sent(&fx, 1)[0], (later(1), body));
}

#[test]
fn an_epoch_outlives_the_node() {
    let mut before = one();
    before.linked(1);
    before.switch("other").0.unwrap();
    let fx = before.tell(Event::Join(Id(1)));
    let kept = fx.iter().find_map(|effect| match effect {
        Effect::Persist(bytes) => Some(bytes.clone()),
        _ => None,
    });
    let kept = kept.expect("what is joined is kept");
    let mut after = one();
    let fx = after.tell(Event::Loaded(kept.clone()));
    assert!(fx.contains(&Effect::Want(Id(1))), "{fx:?}");
    let status = after.switch.status();
    assert_eq!((status.overlay, status.epoch), ("other", 1));
    let mut damaged = kept;
    *damaged.last_mut().unwrap() ^= 1;
    let (done, fx) = one().try_tell(Event::Loaded(damaged));
    assert!(
        matches!(done, Err(Error::Load(DecodeError::Damaged))),
        "{done:?}"
    );
    assert_eq!(fx, []);
    // Who has left is as one that has just started.
    after.tell(Event::Leave);
    let status = after.switch.status();
    assert_eq!((status.overlay, status.epoch), ("whole", 0));
}

fn body() -> impl Strategy<Value = Body<Id>> {
    prop_oneof![
        (".{0,20}", proptest::option::of(any::<u32>())).prop_map(|(overlay, follow)| Body::Runs {
            overlay,
            follow: follow.map(Id)
        }),
        any::<u32>().prop_map(|link| Body::Hello { link }),
        any::<u32>().prop_map(|link| Body::Release { link }),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Body::Inner),
    ]
}

proptest! {
    #[test]
    fn messages_come_back(number: u64, tie: u64, body in body()) {
        let message = Message { epoch: Epoch { number, tie }, body };
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        let mut reader = Reader::new(&bytes);
        prop_assert_eq!(Message::decode(&mut reader).unwrap(), message);
        reader.end().unwrap();
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let mut reader = Reader::new(&bytes);
        if let Ok(message) = Message::<Id>::decode(&mut reader) {
            let used = bytes.len() - reader.rest().len();
            let mut again = Vec::new();
            message.encode(&mut again);
            prop_assert_eq!(&again[..], &bytes[..used]);
        }
    }
}
