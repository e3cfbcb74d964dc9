//! One node, told what happens.

use std::time::Duration;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::net::Id;
use crate::limits::{EVICTION_PAUSE, MAX_ATTEMPTS, MAX_GOSSIP_RATE, MAX_GOSSIPED};
use crate::overlay::codec::{DecodeError, Reader};
use crate::overlay::contract::{Down, Effect, Error, Event, Overlay, Wire};
use crate::overlay::hyparview::{Config, HyParView, Message, Priority, Reason, XBotConfig};

pub(super) type Fx = Vec<Effect<Id, Message<Id>>>;

pub(super) struct One {
    pub(super) overlay: HyParView<Id>,
    pub(super) now: Duration,
    rng: SmallRng,
}

fn one() -> One {
    with(Config::default())
}

pub(super) fn with(config: Config) -> One {
    One {
        overlay: HyParView::new(config, Id(0)),
        now: Duration::from_secs(100),
        rng: SmallRng::seed_from_u64(1),
    }
}

impl One {
    pub(super) fn tell(&mut self, event: Event<Id, Message<Id>>) -> Fx {
        let mut fx = Vec::new();
        self.overlay
            .handle(self.now, event, &mut self.rng, &mut fx)
            .unwrap();
        fx
    }

    pub(super) fn hear(&mut self, from: u32, message: Message<Id>) -> Fx {
        let from = Id(from);
        self.tell(Event::Message { from, message })
    }

    pub(super) fn wait(&mut self, millis: u64) -> Fx {
        self.now += Duration::from_millis(millis);
        self.tell(Event::Tick)
    }

    pub(super) fn active(&self) -> Vec<u32> {
        let mut ids: Vec<u32> = self.overlay.active().map(|id| id.0).collect();
        ids.sort_unstable();
        ids
    }

    fn passive(&self, id: u32) -> bool {
        self.overlay.passive().contains(&Id(id))
    }

    /// Neighbours, all of whom have asked.
    pub(super) fn neighbours(&mut self, ids: std::ops::RangeInclusive<u32>) {
        for id in ids {
            self.tell(Event::LinkUp(Id(id)));
            let fx = self.hear(id, ask(id, Priority::Low, &[]));
            assert_eq!(said(&fx, id), Some("accept"));
        }
    }

    /// Names in the passive view.
    pub(super) fn names(&mut self, ids: std::ops::RangeInclusive<u32>) {
        let from = self.active()[0];
        let known = ids.map(Id).collect();
        self.hear(from, Message::ShuffleReply { known });
    }
}

fn ask(me: u32, priority: Priority, near: &[u32]) -> Message<Id> {
    Message::Neighbor {
        me: Id(me),
        priority,
        near: near.iter().map(|id| Id(*id)).collect(),
    }
}

/// The last that was said to this node.
pub(super) fn said(fx: &Fx, peer: u32) -> Option<&'static str> {
    fx.iter().rev().find_map(|effect| match effect {
        Effect::Send { to, message } if to.0 == peer => Some(match message {
            Message::Join { .. } => "join",
            Message::ForwardJoin { .. } => "forward join",
            Message::Neighbor { priority, .. } if *priority == Priority::High => "ask high",
            Message::Neighbor { .. } => "ask low",
            Message::Accept { .. } => "accept",
            Message::Refuse { reason, .. } if *reason == Reason::Near => "near",
            Message::Refuse { .. } => "full",
            Message::Evict { .. } => "evict",
            Message::Left => "left",
            Message::Shuffle { .. } => "shuffle",
            Message::ShuffleReply { .. } => "reply",
            Message::Probe { .. } => "probe",
            Message::Hello { .. } => "hello",
            Message::Ping { .. } => "ping",
            Message::Pong { .. } => "pong",
            Message::Optimise { .. } => "optimise",
            Message::Optimised { accepted: true } => "optimised",
            Message::Optimised { .. } => "not optimised",
            Message::Replace { .. } => "replace",
            Message::Replaced { accepted: true } => "replaced",
            Message::Replaced { .. } => "not replaced",
            Message::Switch { .. } => "switch",
            Message::Switched { accepted: true } => "switched",
            Message::Switched { .. } => "not switched",
        }),
        _ => None,
    })
}

pub(super) fn wants(fx: &Fx) -> Vec<u32> {
    let want = |effect: &Effect<Id, _>| match effect {
        Effect::Want(id) => Some(id.0),
        _ => None,
    };
    fx.iter().filter_map(want).collect()
}

pub(super) fn released(fx: &Fx, id: u32) -> bool {
    fx.contains(&Effect::Release(Id(id)))
}

#[test]
fn a_join_is_repeated_until_it_is_granted() {
    let mut node = one();
    assert_eq!(wants(&node.tell(Event::Join(Id(1)))), [1]);
    assert!(released(&node.tell(Event::LinkFailed(Id(1))), 1));
    assert_eq!(wants(&node.wait(10_000)), [1]);
    assert_eq!(said(&node.tell(Event::LinkUp(Id(1))), 1), Some("join"));
    node.tell(Event::LinkDown(Id(1), Down::Failed));
    assert_eq!(wants(&node.wait(20_000)), [1]);
    node.tell(Event::LinkUp(Id(1)));
    let fx = node.hear(1, Message::Accept { known: vec![Id(7)] });
    assert!(fx.contains(&Effect::Joined(Id(1))));
    assert!(fx.contains(&Effect::NeighborUp(Id(1))));
    assert_eq!(node.active(), [1]);
    assert!(node.passive(7));
    assert_eq!(node.overlay.members(), [Id(0), Id(1)]);
}

#[test]
fn a_contact_in_a_crowd_sends_walks_and_the_joiner_is_content_with_their_ends() {
    let mut node = one();
    node.neighbours(1..=5);
    for (joiner, answer) in [(6, "accept"), (7, "full")] {
        node.tell(Event::LinkUp(Id(joiner)));
        let before = node.active();
        let fx = node.hear(joiner, Message::Join { me: Id(joiner) });
        assert_eq!(said(&fx, joiner), Some(answer));
        let told = |id: &&u32| matches!(said(&fx, **id), Some("forward join" | "evict"));
        assert_eq!(before.iter().filter(told).count(), 5);
    }
    assert_eq!(node.active().len(), 5);
    node.now += EVICTION_PAUSE;
    node.tell(Event::LinkUp(Id(8)));
    let fx = node.hear(8, Message::Join { me: Id(8) });
    assert_eq!(said(&fx, 8), Some("accept"));

    let mut joiner = one();
    joiner.tell(Event::Join(Id(1)));
    joiner.tell(Event::LinkUp(Id(1)));
    let (reason, known) = (Reason::Full, Vec::new());
    let fx = joiner.hear(1, Message::Refuse { reason, known });
    assert!(released(&fx, 1));
    joiner.tell(Event::LinkUp(Id(2)));
    let fx = joiner.hear(2, ask(2, Priority::Low, &[]));
    assert!(fx.contains(&Effect::Joined(Id(1))));
}

#[test]
fn walks_end_at_a_neighbour_and_pass_one_who_remembers() {
    let mut node = one();
    node.neighbours(1..=5);
    let walk = |ttl| Message::ForwardJoin { joiner: Id(9), ttl };
    let fx = node.hear(1, walk(3));
    assert!(node.passive(9), "three steps before the end");
    let next: Vec<u32> = (1..=5).filter(|id| said(&fx, *id).is_some()).collect();
    assert!(next.len() == 1 && next != [1], "{next:?}");
    assert_eq!(wants(&node.hear(1, walk(0))), [9]);
    assert_eq!(said(&node.tell(Event::LinkUp(Id(9))), 9), Some("ask low"));
    let fx = node.hear(9, Message::Accept { known: Vec::new() });
    assert!(fx.contains(&Effect::NeighborUp(Id(9))));
    let evicted = (1..=5).find(|id| said(&fx, *id) == Some("evict")).unwrap();
    assert!(released(&fx, evicted));
    assert!(node.passive(evicted));
    assert_eq!(node.active().len(), 5);
}

#[test]
fn walks_come_from_neighbours_only() {
    let mut node = one();
    node.neighbours(1..=2);
    node.tell(Event::LinkUp(Id(9)));
    for message in [
        Message::ForwardJoin {
            joiner: Id(8),
            ttl: 0,
        },
        Message::Shuffle {
            origin: Id(8),
            ttl: 0,
            known: vec![Id(7)],
        },
        Message::Probe {
            origin: Id(8),
            ttl: 0,
            seen: Vec::new(),
        },
    ] {
        node.tell(Event::LinkUp(Id(9)));
        let fx = node.hear(9, message);
        assert_eq!(fx, [Effect::Release(Id(9))]);
    }
    assert!(!node.passive(7));
    // What still comes over the released link is for nobody.
    assert_eq!(node.hear(9, ask(9, Priority::High, &[])), []);
}

#[test]
fn low_takes_free_places_only_and_no_triangles_and_high_is_never_refused() {
    let mut node = one();
    node.neighbours(1..=4);
    node.tell(Event::LinkUp(Id(9)));
    assert_eq!(
        said(&node.hear(9, ask(9, Priority::Low, &[3])), 9),
        Some("near")
    );
    assert_eq!(said(&node.hear(9, ask(8, Priority::High, &[])), 9), None);
    node.neighbours(5..=5);
    assert_eq!(
        said(&node.hear(9, ask(9, Priority::Low, &[])), 9),
        Some("full")
    );
    let fx = node.hear(9, ask(9, Priority::High, &[]));
    assert_eq!(said(&fx, 9), Some("accept"));
    assert_eq!(node.active().len(), 5);
}

#[test]
fn a_lost_neighbour_is_replaced_at_once_and_whoever_is_dead_is_passed_over() {
    for down in [Down::Failed, Down::Planned] {
        let mut node = one();
        node.neighbours(1..=5);
        node.names(10..=12);
        let fx = node.tell(Event::LinkDown(Id(2), down));
        assert!(fx.contains(&Effect::NeighborDown(Id(2))));
        assert!(released(&fx, 2));
        assert_eq!(node.passive(2), down == Down::Planned);
        let asked = wants(&fx);
        assert_eq!(asked.len(), 1);
        let fx = node.tell(Event::LinkFailed(Id(asked[0])));
        assert!(!node.passive(asked[0]));
        assert!(node.overlay.history().any(|id| id.0 == asked[0]));
        let second = wants(&fx)[0];
        node.tell(Event::LinkUp(Id(second)));
        let (reason, known) = (Reason::Full, Vec::new());
        let fx = node.hear(second, Message::Refuse { reason, known });
        assert!(released(&fx, second) && node.passive(second));
        let third = wants(&fx)[0];
        let fx = node.tell(Event::LinkUp(Id(third)));
        assert_eq!(said(&fx, third), Some("ask low"));
        let fx = node.hear(third, Message::Accept { known: Vec::new() });
        assert!(fx.contains(&Effect::NeighborUp(Id(third))));
        assert!(!node.passive(third));
    }
}

#[test]
fn a_node_alone_asks_with_high_priority_all_it_knows_and_never_gives_up() {
    let mut node = one();
    node.neighbours(1..=1);
    node.names(10..=60);
    assert_eq!(node.overlay.passive().len(), 30);
    let mut fx = node.tell(Event::LinkDown(Id(1), Down::Failed));
    let mut asked = std::collections::BTreeSet::new();
    let mut rounds = 0;
    while node.now < Duration::from_secs(400) {
        let wanted = wants(&fx);
        fx.clear();
        for id in wanted {
            rounds += u32::from(!asked.insert(id));
            fx.extend(node.tell(Event::LinkFailed(Id(id))));
        }
        if wants(&fx).is_empty() {
            let next = node.overlay.deadline().expect("it gives up");
            node.now = node.now.max(next);
            fx = node.tell(Event::Tick);
        }
    }
    assert_eq!(asked.len(), 52, "all names, and the old neighbour");
    assert!((52..52 * 40).contains(&rounds), "{rounds}");
    let last = loop {
        if let Some(id) = wants(&fx).first() {
            break *id;
        }
        node.now = node.overlay.deadline().unwrap();
        fx = node.tell(Event::Tick);
    };
    let fx = node.tell(Event::LinkUp(Id(last)));
    assert_eq!(said(&fx, last), Some("ask high"));
}

#[test]
fn two_who_ask_at_once_are_neighbours_and_too_many_who_accept_are_let_go() {
    let mut node = one();
    node.neighbours(1..=5);
    node.names(10..=10);
    assert_eq!(
        wants(&node.tell(Event::LinkDown(Id(1), Down::Failed))),
        [10]
    );
    node.tell(Event::LinkUp(Id(10)));
    // It would be refused, had we not asked for it ourselves.
    let fx = node.hear(10, ask(10, Priority::Low, &[2]));
    assert_eq!(said(&fx, 10), Some("accept"));
    let fx = node.hear(10, Message::Accept { known: Vec::new() });
    assert_eq!(fx, []);
    assert_eq!(node.active(), [2, 3, 4, 5, 10]);

    node.names(11..=11);
    assert_eq!(
        wants(&node.tell(Event::LinkDown(Id(2), Down::Failed))),
        [11]
    );
    node.tell(Event::LinkUp(Id(11)));
    node.neighbours(20..=20);
    let fx = node.hear(11, Message::Accept { known: Vec::new() });
    assert_eq!(fx, [Effect::Release(Id(11))]);
    assert_eq!(node.active(), [3, 4, 5, 10, 20]);
    assert!(node.passive(11));
}

#[test]
fn whoever_accepts_unasked_is_told_by_the_end_of_the_link() {
    let mut node = one();
    node.tell(Event::LinkUp(Id(1)));
    let fx = node.hear(1, Message::Accept { known: Vec::new() });
    assert_eq!(fx, [Effect::Release(Id(1))]);
    assert!(node.active().is_empty());
}

#[test]
fn names_are_taken_from_neighbours_and_from_those_who_were_asked() {
    let mut node = one();
    node.neighbours(1..=2);
    node.tell(Event::LinkUp(Id(9)));
    let reason = Reason::Full;
    for known in [vec![Id(50)], vec![Id(51)]] {
        node.hear(
            9,
            Message::Evict {
                known: known.clone(),
            },
        );
        node.hear(
            9,
            Message::ShuffleReply {
                known: known.clone(),
            },
        );
        node.hear(9, Message::Refuse { reason, known });
    }
    assert!(node.overlay.passive().is_empty());
    node.wait(11_000);
    for known in [vec![Id(50)], vec![Id(51)]] {
        node.hear(9, Message::ShuffleReply { known });
    }
    assert_eq!(node.overlay.passive(), [Id(50)], "one answer to a shuffle");
    node.hear(
        1,
        Message::Evict {
            known: vec![Id(52)],
        },
    );
    assert!(node.passive(52));
}

#[test]
fn two_failures_at_once_set_off_a_look_through_the_passive_view() {
    let mut node = one();
    node.neighbours(1..=5);
    node.names(10..=25);
    let mut fx = node.tell(Event::LinkDown(Id(1), Down::Failed));
    node.neighbours(30..=30);
    node.now += Duration::from_secs(6);
    fx.extend(node.tell(Event::LinkDown(Id(2), Down::Failed)));
    node.neighbours(31..=31);
    fx.extend(node.tell(Event::LinkDown(Id(3), Down::Failed)));
    node.neighbours(32..=32);
    let mut greeted = 0;
    while let Some(id) = wants(&fx).first().copied() {
        fx = fx.split_off(1 + fx.iter().position(|e| *e == Effect::Want(Id(id))).unwrap());
        if id % 2 == 0 {
            let answer = node.tell(Event::LinkUp(Id(id)));
            greeted += usize::from(said(&answer, id) == Some("hello") && released(&answer, id));
            fx.extend(answer);
        } else {
            fx.extend(node.tell(Event::LinkFailed(Id(id))));
        }
    }
    assert!(greeted >= 6, "{greeted}");
    let dead = (10..=25)
        .filter(|id| id % 2 == 1 && node.passive(*id))
        .count();
    assert_eq!(dead, 0);

    let mut alone = one();
    alone.tell(Event::LinkUp(Id(7)));
    assert_eq!(
        said(&alone.hear(7, Message::Hello { me: Id(7) }), 7),
        Some("ask high")
    );
}

#[test]
fn silence_ends_an_attempt() {
    let mut node = one();
    node.neighbours(1..=5);
    node.names(10..=11);
    let first = wants(&node.tell(Event::LinkDown(Id(1), Down::Failed)));
    // It takes long to dial: another is tried beside it.
    let fx = node.wait(500);
    let second = wants(&fx);
    assert_eq!(second.len(), 1);
    assert_ne!(first, second);
    node.tell(Event::LinkUp(Id(second[0])));
    let fx = node.wait(5000);
    assert!(released(&fx, first[0]) && released(&fx, second[0]));
    assert!(!node.passive(first[0]) && !node.passive(second[0]));
}

#[test]
fn shuffles_end_with_an_answer_to_the_origin_over_a_link_of_its_own() {
    let mut node = one();
    node.neighbours(1..=5);
    node.names(10..=20);
    let known = vec![Id(30), Id(31), Id(0), Id(1)];
    let shuffle = |ttl, known| Message::Shuffle {
        origin: Id(9),
        ttl,
        known,
    };
    let fx = node.hear(1, shuffle(200, known.clone()));
    let next: Vec<_> = fx
        .iter()
        .map(|effect| match effect {
            Effect::Send {
                to,
                message: Message::Shuffle { ttl, .. },
            } => (to.0 != 1, *ttl),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(next, [(true, 5)], "a walk is as long as is usual here");
    assert!(!node.passive(30));
    assert_eq!(wants(&node.hear(1, shuffle(0, known))), [9]);
    assert!(node.passive(30) && node.passive(31) && node.passive(9));
    assert!(!node.passive(0) && !node.passive(1));
    let fx = node.tell(Event::LinkUp(Id(9)));
    assert!(matches!(
        &fx[..],
        [Effect::Send { to: Id(9), message: Message::ShuffleReply { known } }, Effect::Release(Id(9))]
            if known.len() == 5
    ));
}

#[test]
fn what_was_just_offered_makes_room_first() {
    let mut node = one();
    node.neighbours(1..=5);
    node.names(100..=129);
    assert_eq!(node.overlay.passive().len(), 30);
    let fx = node.wait(11_000);
    let offered = fx
        .iter()
        .find_map(|effect| match effect {
            Effect::Send {
                message: Message::Shuffle { known, .. },
                ..
            } => Some(known.clone()),
            _ => None,
        })
        .unwrap();
    let passive: Vec<Id> = offered.into_iter().filter(|id| id.0 >= 100).collect();
    assert_eq!(passive.len(), 4);
    node.names(200..=203);
    assert!((200..=203).all(|id| node.passive(id)));
    assert!(passive.iter().all(|id| !node.passive(id.0)));
}

#[test]
fn who_leaves_is_forgotten_for_a_while_and_refuses_all_but_joins() {
    let mut node = one();
    node.neighbours(1..=2);
    let fx = node.hear(2, Message::Left);
    assert!(fx.contains(&Effect::NeighborDown(Id(2))) && released(&fx, 2));
    node.names(2..=2);
    assert!(!node.passive(2));
    node.now += Duration::from_secs(61);
    node.neighbours(3..=3);
    node.hear(3, Message::Left);
    node.names(2..=2);
    assert!(node.passive(2));

    let fx = node.tell(Event::Leave);
    assert_eq!(said(&fx, 1), Some("left"));
    assert!(released(&fx, 1));
    assert_eq!(fx.last(), Some(&Effect::Left));
    assert_eq!(node.overlay.members(), [Id(0)]);
    assert_eq!(node.wait(100_000), []);
    node.tell(Event::LinkUp(Id(4)));
    let fx = node.hear(4, ask(4, Priority::High, &[]));
    assert_eq!(said(&fx, 4), Some("left"));
    let fx = node.hear(4, Message::Hello { me: Id(4) });
    assert_eq!(said(&fx, 4), Some("left"));
    let fx = node.hear(4, Message::Join { me: Id(4) });
    assert_eq!(said(&fx, 4), Some("accept"));
}

#[test]
fn a_probe_joins_strangers_and_ends_where_somebody_is_known() {
    let probe = |seen: &[u32]| Message::Probe {
        origin: Id(9),
        ttl: 0,
        seen: seen.iter().map(|id| Id(*id)).collect(),
    };
    let mut node = one();
    node.neighbours(1..=5);
    assert_eq!(node.hear(1, probe(&[8, 3])), []);
    assert_eq!(wants(&node.hear(1, probe(&[8, 7]))), [9]);
    assert_eq!(said(&node.tell(Event::LinkUp(Id(9))), 9), Some("ask high"));
    let fx = node.hear(
        9,
        Message::Accept {
            known: vec![Id(77)],
        },
    );
    assert!(fx.contains(&Effect::NeighborUp(Id(9))));
    let hint = fx.iter().find_map(|effect| match effect {
        Effect::Send {
            message: Message::Evict { known },
            ..
        } => known.first(),
        _ => None,
    });
    assert_eq!(hint, Some(&Id(77)), "both evicted are left to each other");
}

#[test]
fn a_flood_is_not_answered() {
    let mut node = one();
    node.neighbours(1..=2);
    let walks = 3 * MAX_GOSSIP_RATE;
    let mut effects = 0;
    for n in 0..walks {
        let joiner = Id(1000 + n);
        effects += node.hear(1, Message::ForwardJoin { joiner, ttl: 6 }).len();
    }
    assert_eq!(effects, MAX_GOSSIP_RATE as usize);
    let mut wanted = 0;
    for n in 0..walks {
        let joiner = Id(1000 + n);
        wanted += wants(&node.hear(2, Message::ForwardJoin { joiner, ttl: 0 })).len();
    }
    assert!(wanted <= MAX_ATTEMPTS, "{wanted}");
}

#[test]
fn what_was_saved_is_taken_up_in_the_next_life() {
    let mut node = one();
    node.neighbours(1..=3);
    node.names(10..=12);
    let fx = node.wait(61_000);
    let saved: Vec<_> = fx
        .iter()
        .filter_map(|effect| match effect {
            Effect::Persist(file) => Some(file.clone()),
            _ => None,
        })
        .collect();
    let [file] = &saved[..] else { panic!("{fx:?}") };
    let mut again = one();
    again.tell(Event::Loaded(file.clone()));
    let fx = again.wait(0);
    assert!(!wants(&fx).is_empty());
    assert!((1..=3).all(|id| again.overlay.history().any(|known| known.0 == id)));
    for at in 0..file.len() {
        let mut bad = file.clone();
        bad[at] ^= 1;
        let mut node = one();
        let mut fx = Vec::new();
        let error = node
            .overlay
            .handle(node.now, Event::Loaded(bad), &mut node.rng, &mut fx);
        assert!(matches!(error, Err(Error::Load(_))), "byte {at}");
    }
}

#[test]
fn updated_members_are_candidates_and_one_is_joined_by_a_node_alone() {
    let mut node = one();
    let fx = node.tell(Event::UpdateMembers((0..20).map(Id).collect()));
    assert!(!wants(&fx).is_empty());
    assert_eq!(node.tell(Event::UpdateMembers(Vec::new())), []);
    let known = node.overlay.history().count();
    assert_eq!(known, 18, "all but itself and the one that is joined");
}

fn message() -> impl Strategy<Value = Message<Id>> {
    let id = || (0_u32..12).prop_map(Id);
    let ids = move || prop::collection::vec(id(), 0..10);
    let ttl = 0_u8..=255;
    let time = || any::<u32>().prop_map(|n| Duration::from_micros(n.into()));
    prop_oneof![
        id().prop_map(|me| Message::Join { me }),
        (id(), ttl.clone()).prop_map(|(joiner, ttl)| Message::ForwardJoin { joiner, ttl }),
        (id(), any::<bool>(), ids()).prop_map(|(me, high, near)| {
            let priority = if high { Priority::High } else { Priority::Low };
            Message::Neighbor { me, priority, near }
        }),
        ids().prop_map(|known| Message::Accept { known }),
        (any::<bool>(), ids()).prop_map(|(near, known)| {
            let reason = if near { Reason::Near } else { Reason::Full };
            Message::Refuse { reason, known }
        }),
        ids().prop_map(|known| Message::Evict { known }),
        Just(Message::Left),
        (id(), ttl.clone(), ids()).prop_map(|(origin, ttl, known)| Message::Shuffle {
            origin,
            ttl,
            known
        }),
        ids().prop_map(|known| Message::ShuffleReply { known }),
        (id(), ttl, ids()).prop_map(|(origin, ttl, seen)| Message::Probe { origin, ttl, seen }),
        id().prop_map(|me| Message::Hello { me }),
        any::<u64>().prop_map(|nonce| Message::Ping { nonce }),
        any::<u64>().prop_map(|nonce| Message::Pong { nonce }),
        (id(), time()).prop_map(|(old, saved)| Message::Optimise { old, saved }),
        any::<bool>().prop_map(|accepted| Message::Optimised { accepted }),
        (id(), id(), time()).prop_map(|(initiator, old, saved)| Message::Replace {
            initiator,
            old,
            saved
        }),
        any::<bool>().prop_map(|accepted| Message::Replaced { accepted }),
        (id(), time()).prop_map(|(initiator, cost)| Message::Switch { initiator, cost }),
        any::<bool>().prop_map(|accepted| Message::Switched { accepted }),
    ]
}

fn event() -> impl Strategy<Value = Event<Id, Message<Id>>> {
    let id = || (1_u32..12).prop_map(Id);
    prop_oneof![
        1 => id().prop_map(Event::Join),
        1 => Just(Event::Leave),
        1 => prop::collection::vec(id(), 0..6).prop_map(Event::UpdateMembers),
        10 => id().prop_map(Event::LinkUp),
        4 => (id(), any::<bool>()).prop_map(|(id, planned)| {
            Event::LinkDown(id, if planned { Down::Planned } else { Down::Failed })
        }),
        3 => id().prop_map(Event::LinkFailed),
        30 => (id(), message()).prop_map(|(from, message)| Event::Message { from, message }),
        10 => Just(Event::Tick),
    ]
}

proptest! {
    #[test]
    fn messages_survive(message in message()) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        prop_assert_eq!(Message::decode(&mut Reader::new(&bytes)), Ok(message));
    }

    #[test]
    fn garbage_is_refused_or_canonical(
        kind in 0_u8..21,
        rest in prop::collection::vec(prop_oneof![0_u8..4, any::<u8>()], 0..60),
    ) {
        let mut bytes = vec![1, kind];
        bytes.extend(rest);
        if let Ok(message) = Message::<Id>::decode(&mut Reader::new(&bytes)) {
            let mut again = Vec::new();
            message.encode(&mut again);
            prop_assert_eq!(again, bytes);
        }
    }

    /// Whatever a host and its peers do, in whatever order.
    #[test]
    fn nothing_breaks_a_node(
        events in prop::collection::vec((event(), 0_u64..3000), 1..300),
        xbot in any::<bool>(),
    ) {
        let xbot = xbot.then(XBotConfig::default);
        let mut node = with(Config { active: 3, passive: 5, history: 6, xbot, ..Config::default() });
        let mut shown = std::collections::BTreeSet::new();
        for (event, millis) in events {
            node.now += Duration::from_millis(millis);
            let tick = matches!(event, Event::Tick);
            let effects = node.tell(event);
            if tick {
                prop_assert!(node.overlay.deadline().is_none_or(|at| at > node.now));
            }
            for effect in effects {
                match effect {
                    Effect::NeighborUp(id) => prop_assert!(shown.insert(id)),
                    Effect::NeighborDown(id) => prop_assert!(shown.remove(&id)),
                    Effect::Want(id) | Effect::Send { to: id, .. } => prop_assert_ne!(id, Id(0)),
                    _ => {}
                }
            }
            let active = node.active();
            prop_assert_eq!(&active, &shown.iter().map(|id| id.0).collect::<Vec<_>>());
            prop_assert!(active.len() <= 3 && node.overlay.passive().len() <= 5);
            prop_assert!(!active.contains(&0) && !node.passive(0));
            prop_assert!(active.iter().all(|id| !node.passive(*id)));
            prop_assert!(node.overlay.history().count() <= 6);
        }
    }
}

#[test]
fn lists_have_a_limit() {
    let known = vec![Id(1); MAX_GOSSIPED + 1];
    let mut bytes = Vec::new();
    Message::Accept { known }.encode(&mut bytes);
    assert!(
        Message::<Id>::decode(&mut Reader::new(&bytes)).is_ok(),
        "cut"
    );
    bytes[2] += 1;
    assert_eq!(
        Message::<Id>::decode(&mut Reader::new(&bytes)).map(|_| ()),
        Err(DecodeError::Bad("number of nodes"))
    );
}
