//! Rules one by one, and whatever a host and its peers may do. How views grow is seen in the simulator.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::{Config, Message, Scamp};
use crate::limits::{MAX_ATTEMPTS, MAX_GOSSIP_RATE, MAX_IN_VIEW, MAX_KNOWN_NAMES, SUBSCRIPTIONS};
use crate::overlay::codec::{DecodeError, Reader};
use crate::overlay::contract::{Down, Effect, Error, Event, Overlay, Peer, Wire};

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

type Fx = Vec<Effect<Id, Message<Id>>>;

struct One {
    overlay: Scamp<Id>,
    now: Duration,
    rng: SmallRng,
}

fn one(copies: usize) -> One {
    let config = Config {
        copies,
        ..Config::default()
    };
    One {
        overlay: Scamp::new(config, Id(0)),
        now: Duration::from_secs(100),
        rng: SmallRng::seed_from_u64(1),
    }
}

impl One {
    fn tell(&mut self, event: Event<Id, Message<Id>>) -> Fx {
        let mut fx = Vec::new();
        let done = (self.overlay).handle(self.now, event, &mut self.rng, &mut fx);
        done.unwrap();
        fx
    }

    fn hear(&mut self, from: u32, message: Message<Id>) -> Fx {
        let from = Id(from);
        self.tell(Event::Message { from, message })
    }

    fn wait(&mut self, millis: u64) -> Fx {
        self.now += Duration::from_millis(millis);
        self.tell(Event::Tick)
    }

    fn view(&self) -> Vec<u32> {
        self.overlay.partial_view().map(|id| id.0).collect()
    }

    fn in_view(&self) -> Vec<u32> {
        self.overlay.in_view().map(|id| id.0).collect()
    }

    /// These are in the partial view, and have this node in theirs.
    fn mutual(&mut self, ids: std::ops::RangeInclusive<u32>) {
        for id in ids {
            self.tell(Event::Join(Id(id)));
            self.tell(Event::LinkUp(Id(id)));
            self.hear(id, Message::Subscribed);
            self.hear(id, Message::Keep);
        }
    }
}

fn sent(fx: &Fx) -> Vec<(u32, &Message<Id>)> {
    let pair = fx.iter().filter_map(|effect| match effect {
        Effect::Send { to, message } => Some((to.0, message)),
        _ => None,
    });
    pair.collect()
}

fn wants(fx: &Fx) -> Vec<u32> {
    let want = |effect: &Effect<Id, _>| match effect {
        Effect::Want(id) => Some(id.0),
        _ => None,
    };
    fx.iter().filter_map(want).collect()
}

fn copy(subscriber: u32, steps: u8) -> Message<Id> {
    let subscriber = Id(subscriber);
    Message::Copy { subscriber, steps }
}

#[test]
fn a_new_node_has_its_contact_in_view_and_tries_until_it_is_answered() {
    let mut node = one(4);
    assert_eq!(wants(&node.tell(Event::Join(Id(1)))), [1]);
    let fx = node.tell(Event::LinkFailed(Id(1)));
    assert!(fx.contains(&Effect::Release(Id(1))) && node.view().is_empty());
    assert_eq!(wants(&node.wait(5_000)), [1]);
    let fx = node.tell(Event::LinkUp(Id(1)));
    assert_eq!(sent(&fx), [(1, &Message::Subscribe)]);
    assert!(fx.contains(&Effect::NeighborUp(Id(1))));
    // No answer: once more, a while later.
    node.wait(5_000);
    assert_eq!(sent(&node.wait(10_000)), [(1, &Message::Subscribe)]);
    let fx = node.hear(1, Message::Subscribed);
    assert!(fx.contains(&Effect::Joined(Id(1))));
    assert_eq!(node.view(), [1]);
    assert_eq!(node.overlay.members(), [Id(1), Id(0)]);
}

#[test]
fn the_contact_sends_a_copy_to_each_in_view_and_some_more() {
    for copies in [0, 4] {
        let mut node = one(copies);
        node.mutual(1..=6);
        node.tell(Event::LinkUp(Id(9)));
        let fx = node.hear(9, Message::Subscribe);
        let all = sent(&fx);
        assert_eq!(
            all.iter().filter(|(to, _)| *to == 9).count(),
            1,
            "the answer"
        );
        let copies_to: Vec<u32> = all.iter().filter(|s| s.0 != 9).map(|s| s.0).collect();
        assert_eq!(copies_to.len(), 6 + copies);
        assert_eq!(BTreeSet::from_iter(copies_to).len(), 6);
        assert!(fx.contains(&Effect::NeighborUp(Id(9))));
        assert_eq!((node.view().len(), node.in_view().len()), (6, 7));
    }
    // The first one of all keeps the second.
    let mut node = one(4);
    node.tell(Event::LinkUp(Id(9)));
    let fx = node.hear(9, Message::Subscribe);
    assert!(sent(&fx).contains(&(9, &Message::Keep)));
    assert_eq!((node.view(), node.in_view()), (vec![9], vec![9]));
}

#[test]
fn a_copy_is_kept_the_less_often_the_larger_the_view() {
    let mut kept = [0; 2];
    for (place, size) in [(0, 4), (1, 19)] {
        let mut node = one(0);
        node.mutual(1..=size);
        for id in 100..1100 {
            let fx = node.hear(1, copy(id, 50));
            match &sent(&fx)[..] {
                [(to, Message::Copy { steps: 49, .. })] => assert!((1..=size).contains(to)),
                [] => {
                    assert_eq!(wants(&fx), [id]);
                    kept[place] += 1;
                    node.tell(Event::LinkFailed(Id(id)));
                    assert_eq!(node.view().len(), size as usize);
                }
                other => panic!("{other:?}"),
            }
            node.now += Duration::from_millis(2);
        }
    }
    // One of five, one of twenty.
    assert!(
        (160..240).contains(&kept[0]) && (30..75).contains(&kept[1]),
        "{kept:?}"
    );
}

#[test]
fn a_copy_that_has_gone_far_is_kept_and_one_that_is_known_goes_on() {
    let mut node = one(0);
    node.mutual(1..=20);
    assert_eq!(wants(&node.hear(1, copy(50, 0))), [50]);
    let fx = node.tell(Event::LinkUp(Id(50)));
    assert_eq!(sent(&fx), [(50, &Message::Keep)]);
    for id in [50, 0] {
        assert!(matches!(
            sent(&node.hear(1, copy(id, 9)))[..],
            [(_, Message::Copy { steps: 8, .. })]
        ));
        assert_eq!(node.hear(1, copy(id, 0)), []);
    }
}

#[test]
fn copies_come_from_neighbours_only_and_dials_are_few() {
    let mut node = one(0);
    node.mutual(1..=2);
    node.tell(Event::LinkUp(Id(9)));
    assert_eq!(node.hear(9, copy(50, 0)), []);
    assert_eq!(node.hear(8, copy(50, 0)), []);
    let dialled: usize = (100..200)
        .map(|id| wants(&node.hear(1, copy(id, 0))).len())
        .sum();
    assert_eq!(dialled, MAX_ATTEMPTS);
    // Names that can't be reached go again.
    node.wait(5_000);
    assert_eq!(node.view(), [1, 2]);
    let heard: usize = (0..3 * MAX_GOSSIP_RATE)
        .map(|_| node.hear(1, copy(2, 9)).len())
        .sum();
    assert_eq!(heard, MAX_GOSSIP_RATE as usize);
}

#[test]
fn subscriptions_and_in_views_are_bounded() {
    let mut node = one(0);
    node.mutual(1..=2);
    node.tell(Event::LinkUp(Id(9)));
    let answered = (0..500).filter(|_| !node.hear(9, Message::Subscribe).is_empty());
    assert_eq!(answered.count() as u64, SUBSCRIPTIONS.0);
    let before = node.in_view().len();
    for id in 0..MAX_IN_VIEW as u32 {
        node.now += Duration::from_millis(2);
        let id = 1000 + id;
        node.tell(Event::LinkUp(Id(id)));
        let fx = node.hear(id, Message::Keep);
        let full = (id - 1000) as usize + before >= MAX_IN_VIEW;
        assert_eq!(fx.contains(&Effect::Release(Id(id))), full, "{id}");
    }
    assert_eq!(node.in_view().len(), MAX_IN_VIEW);
}

#[test]
fn who_leaves_names_others_for_its_place() {
    let mut node = one(1);
    node.mutual(1..=5);
    let fx = node.tell(Event::Leave);
    let instead: Vec<Option<Id>> = sent(&fx)
        .into_iter()
        .map(|(to, message)| match message {
            Message::Leave { instead } => {
                assert_ne!(*instead, Some(Id(to)));
                *instead
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(instead.iter().flatten().count(), 3);
    assert_eq!(instead.len(), 5);
    assert!((1..=5).all(|id| fx.contains(&Effect::Release(Id(id)))));
    assert!(fx.contains(&Effect::Left));
    // Whoever did not know it finds out.
    assert_eq!(node.tell(Event::LinkUp(Id(7))), [Effect::Release(Id(7))]);

    let mut node = one(1);
    node.mutual(1..=2);
    let fx = node.hear(
        1,
        Message::Leave {
            instead: Some(Id(3)),
        },
    );
    assert!(fx.contains(&Effect::Release(Id(1))));
    assert_eq!(wants(&fx), [3]);
    assert_eq!((node.view(), node.in_view()), (vec![2, 3], vec![2]));
    let leave = |id| Message::Leave {
        instead: Some(Id(id)),
    };
    assert!(wants(&node.hear(2, leave(0))).is_empty(), "itself");
    assert_eq!(node.view(), [3]);
}

#[test]
fn a_failed_neighbour_is_dialled_once_more() {
    let mut node = one(0);
    node.mutual(1..=2);
    let fx = node.tell(Event::LinkDown(Id(1), Down::Failed));
    assert_eq!(fx, [Effect::NeighborDown(Id(1)), Effect::MembersChanged]);
    let fx = node.tell(Event::LinkUp(Id(1)));
    assert_eq!(sent(&fx), [(1, &Message::Keep)]);
    assert_eq!((node.view(), node.in_view()), (vec![1, 2], vec![2]));
    node.tell(Event::LinkDown(Id(1), Down::Failed));
    assert!(
        node.tell(Event::LinkFailed(Id(1)))
            .contains(&Effect::Release(Id(1)))
    );
    let fx = node.tell(Event::LinkDown(Id(2), Down::Planned));
    assert!(fx.contains(&Effect::Release(Id(2))) && node.view().is_empty());
}

#[test]
fn an_isolated_node_subscribes_again() {
    let mut node = one(0);
    node.mutual(1..=1);
    assert!(sent(&node.wait(10_000)).is_empty());
    node.tell(Event::LinkDown(Id(1), Down::Failed));
    node.tell(Event::LinkUp(Id(1)));
    // Nobody has it in view.
    assert_eq!(sent(&node.wait(11_000)), [(1, &Message::Subscribe)]);
    node.hear(1, Message::Subscribed);
    node.tell(Event::LinkDown(Id(1), Down::Failed));
    node.tell(Event::LinkFailed(Id(1)));
    // Nobody is left: it begins again with whom it knew.
    assert_eq!(wants(&node.wait(11_000)), [1]);
}

#[test]
fn what_it_can_not_do_is_said() {
    let mut node = one(0);
    let mut tell = |event| (node.overlay).handle(node.now, event, &mut node.rng, &mut Vec::new());
    assert_eq!(tell(Event::Join(Id(0))), Err(Error::SelfJoin));
    let refused = tell(Event::Remove(Id(1)));
    assert!(matches!(
        refused,
        Err(Error::Unsupported {
            overlay: "SCAMP",
            ..
        })
    ));
    assert!(matches!(
        tell(Event::SelfChanged(Id(1))),
        Err(Error::Renamed { .. })
    ));
}

fn message() -> impl Strategy<Value = Message<Id>> {
    let id = || (0_u32..12).prop_map(Id);
    prop_oneof![
        Just(Message::Subscribe),
        Just(Message::Subscribed),
        (id(), any::<u8>()).prop_map(|(subscriber, steps)| Message::Copy { subscriber, steps }),
        Just(Message::Keep),
        prop::option::of(id()).prop_map(|instead| Message::Leave { instead }),
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
        kind in 0_u8..8,
        rest in prop::collection::vec(prop_oneof![0_u8..4, any::<u8>()], 0..8),
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
    fn nothing_breaks_a_node(events in prop::collection::vec((event(), 0_u64..3000), 1..300)) {
        let mut node = one(2);
        let mut shown = BTreeSet::new();
        let mut wanted = BTreeSet::new();
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
                    Effect::Want(id) => {
                        prop_assert_ne!(id, Id(0));
                        wanted.insert(id);
                    }
                    Effect::Release(id) => {
                        wanted.remove(&id);
                    }
                    Effect::Send { to, .. } => prop_assert_ne!(to, Id(0)),
                    _ => {}
                }
            }
            let members: BTreeSet<Id> = node.overlay.members().into_iter().collect();
            prop_assert_eq!(members.len(), shown.len() + 1);
            prop_assert!(shown.is_subset(&members));
            // A link for whoever is in a view, and for nobody else.
            let views = node.overlay.partial_view().chain(node.overlay.in_view()).copied();
            prop_assert_eq!(&views.collect::<BTreeSet<Id>>(), &wanted);
            prop_assert!(node.overlay.known.len() <= MAX_KNOWN_NAMES);
        }
    }
}
