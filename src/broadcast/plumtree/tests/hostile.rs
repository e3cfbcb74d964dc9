//! What a hostile neighbour can do: nothing that grows without bound, and no panic.

use bytes::Bytes;
use proptest::prelude::*;

use super::harness::N;
use super::rules::{NINE, One, gossip, have};
use crate::broadcast::plumtree::{Config, Have, Message, Of, Tree, Want};
use crate::broadcast::{Broadcast, Effect, Error, Event, flood};
use crate::limits::{
    MAX_BROADCAST_BYTES, MAX_BROADCAST_IDS, MAX_BROADCAST_MISSING_OF_PEER, MAX_BROADCAST_SEQUENCE,
    MAX_BROADCAST_STRANGERS, MAX_BROADCAST_TREES, NEW_BROADCAST_ROOTS,
};
use crate::overlay::Wire;
use crate::overlay::codec::Reader;

#[test]
fn announcements_of_what_does_not_exist_are_bounded() {
    let mut one = One::new(Config::default(), 2);
    for first in 0..100 {
        one.gets(1, have(1 + first * 1000, 1000, 1));
    }
    let missing = one.node.missing().len();
    assert_eq!(missing, MAX_BROADCAST_MISSING_OF_PEER);
    assert!(
        one.node.table_bytes() < 2 << 20,
        "{}",
        one.node.table_bytes()
    );
    one.gets(2, have(200_000, 10, 1));
    assert_eq!(
        one.node.missing().len(),
        missing + 10,
        "others have their share"
    );
    for _ in 0..3 {
        one.now += 1000;
        one.event(Event::Tick);
    }
    assert_eq!(one.node.missing(), []);
    one.gets(1, have(1, 1000, 1));
    assert_eq!(one.node.missing().len(), 1000, "its share is free again");
}

#[test]
fn invented_roots_are_limited_and_cost_little() {
    let mut one = One::new(Config::default(), 2);
    let mut delivered = 0;
    for root in 1..40_000u32 {
        let of = Of {
            root: N(100 + root),
            ..NINE
        };
        let payload = Bytes::from_static(b"x");
        let out = one.gets(
            1,
            Message::Gossip {
                of,
                sequence: 1,
                hops: 1,
                age: 0,
                payload,
            },
        );
        delivered += out
            .iter()
            .filter(|e| matches!(e, Effect::Deliver { .. }))
            .count();
    }
    assert_eq!(delivered as u64, NEW_BROADCAST_ROOTS.0);
    assert_eq!(one.node.roots().len(), MAX_BROADCAST_TREES);
    assert!(
        one.node.table_bytes() < 2 << 20,
        "{}",
        one.node.table_bytes()
    );
    one.now += 1000;
    let out = one.gets(1, gossip(1, 1));
    assert!(matches!(out[0], Effect::Deliver { .. }), "time brings more");
}

#[test]
fn payloads_are_not_sent_again_without_end() {
    let mut one = One::new(Config::default(), 2);
    let of = NINE;
    let payload = Bytes::from(vec![0; 1 << 20]);
    one.gets(
        1,
        Message::Gossip {
            of,
            sequence: 1,
            hops: 1,
            age: 0,
            payload,
        },
    );
    let sent: usize = (0..1000)
        .map(|_| {
            let wants = vec![Want {
                of: NINE,
                eager: false,
                first: 1,
                count: 1,
            }];
            one.gets(2, Message::Graft(wants)).len()
        })
        .sum();
    assert!((32..=64).contains(&sent), "{sent}");
}

#[test]
fn the_cache_and_the_strangers_are_bounded() {
    let mut one = One::new(Config::default(), 2);
    for sequence in 1..10_000 {
        one.gets(1, gossip(sequence, 1));
        one.gets(1000 + sequence as u32, gossip(sequence, 1));
    }
    assert_eq!(one.node.cached().0, Config::default().cache_entries);
    assert_eq!(one.node.strangers.len(), MAX_BROADCAST_STRANGERS);
    let config = Config {
        cache_bytes: 10_000,
        ..Config::default()
    };
    let mut one = One::new(config, 2);
    for sequence in 1..100 {
        let payload = Bytes::from(vec![0; 1000]);
        one.gets(
            1,
            Message::Gossip {
                of: NINE,
                sequence,
                hops: 1,
                age: 0,
                payload,
            },
        );
        assert!(one.node.cached().1 <= 10_000);
    }
}

#[test]
fn what_breaks_the_limits_is_refused_in_memory_and_as_bytes() {
    let range = |first, count| Have {
        of: NINE,
        first,
        count,
        hops: 1,
    };
    let announce = |have| Message::Announce { again: false, have };
    let want = |first, count, eager| {
        Message::Graft(vec![Want {
            of: NINE,
            eager,
            first,
            count,
        }])
    };
    let ids = MAX_BROADCAST_IDS as u16;
    let bad = [
        gossip(0, 1),
        gossip(MAX_BROADCAST_SEQUENCE + 1, 1),
        gossip(1, u16::MAX),
        announce(vec![range(0, 1)]),
        announce(vec![range(1, 0)]),
        announce(vec![range(1, ids + 1)]),
        announce(vec![range(1, ids), range(1, 1)]),
        announce(vec![range(u64::MAX, 2)]),
        announce(vec![range(MAX_BROADCAST_SEQUENCE, 2)]),
        want(1, 0, true),
        want(0, 0, false),
        want(1, ids + 1, true),
        Message::Graft(vec![
            Want {
                of: NINE,
                eager: true,
                first: 0,
                count: 0
            };
            ids as usize + 1
        ]),
    ];
    let mut one = One::new(Config::default(), 2);
    for message in bad {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        assert!(
            Message::<N>::decode(&mut Reader::new(&bytes)).is_err(),
            "{message:?}"
        );
        let from = N(1);
        let result = one.try_event(Event::Message { from, message });
        assert!(matches!(result, Err(Error::Message(_))), "{result:?}");
    }
    let mut bytes = Vec::new();
    gossip(1, 1).encode(&mut bytes);
    bytes.resize(bytes.len() + MAX_BROADCAST_BYTES, 0);
    assert!(Message::<N>::decode(&mut Reader::new(&bytes)).is_err());
}

fn of() -> impl Strategy<Value = Of<N>> {
    let tree = prop_oneof![Just(Tree::Own), Just(Tree::Common), Just(Tree::Core)];
    (0u32..4, 0u64..3, tree).prop_map(|(root, life, tree)| Of {
        root: N(root),
        life,
        tree,
    })
}

fn message() -> impl Strategy<Value = Message<N>> {
    let sequence = || prop_oneof![1u64..6, Just(1 << 40), Just(MAX_BROADCAST_SEQUENCE)];
    let range = || prop_oneof![1u16..4, Just(200)];
    let have = (of(), sequence(), range(), 0u16..20).prop_map(|(of, first, count, hops)| Have {
        of,
        first,
        count,
        hops,
    });
    let want =
        (of(), sequence(), range(), any::<bool>()).prop_map(|(of, first, count, eager)| Want {
            of,
            eager,
            first,
            count,
        });
    prop_oneof![
        (
            of(),
            sequence(),
            0u16..20,
            prop::collection::vec(any::<u8>(), 0..4)
        )
            .prop_map(|(of, sequence, hops, payload)| Message::Gossip {
                of,
                sequence,
                hops,
                age: 0,
                payload: payload.into()
            }),
        (any::<bool>(), prop::collection::vec(have, 0..4))
            .prop_map(|(again, have)| Message::Announce { again, have }),
        prop::collection::vec(want, 0..4).prop_map(Message::Graft),
        of().prop_map(Message::Prune),
    ]
}

fn legal(message: &Message<N>) -> bool {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    Message::<N>::decode(&mut Reader::new(&bytes)).is_ok()
}

#[derive(Clone, Debug)]
enum Op {
    Message(u32, Message<N>),
    Up(u32),
    Down(u32),
    Broadcast,
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (0u32..7, message()).prop_map(|(n, m)| Op::Message(n, m)),
        1 => (0u32..7).prop_map(Op::Up),
        1 => (0u32..7).prop_map(Op::Down),
        1 => Just(Op::Broadcast),
        1 => prop_oneof![0u64..300, Just(200_000)].prop_map(Op::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_messages_in_any_order(ops in prop::collection::vec(op(), 1..200)) {
        let mut one = One::new(Config { max_trees: 3, max_roots: 5, ..Config::default() }, 4);
        for op in ops {
            let event = match op {
                Op::Message(from, message) if legal(&message) => Event::Message { from: N(from), message },
                Op::Message(..) => continue,
                Op::Up(peer) => Event::NeighborUp(N(peer)),
                Op::Down(peer) => Event::NeighborDown(N(peer)),
                Op::Broadcast => Event::Broadcast(Bytes::new()),
                Op::Wait(ms) => { one.now += ms; Event::Tick }
            };
            let out = one.event(event);
            let neighbors = one.node.neighbors();
            for effect in out {
                if let Effect::Send { to, message } = effect {
                    prop_assert!(neighbors.contains(&to));
                    prop_assert!(legal(&message), "{:?}", message);
                }
            }
            prop_assert!(one.node.roots().len() <= 3);
            prop_assert!(one.node.deadline().is_none_or(|d| d.as_millis() as u64 >= one.now));
        }
    }

    #[test]
    fn messages_survive(message in message()) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        if let Ok(decoded) = Message::decode(&mut Reader::new(&bytes)) {
            prop_assert_eq!(decoded, message);
        }
    }

    #[test]
    fn garbage_is_refused_or_canonical(
        message in message(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
            let mut again = Vec::new();
            if let Ok(message) = Message::<N>::decode(&mut Reader::new(bytes)) {
                message.encode(&mut again);
                prop_assert_eq!(&again, bytes);
            }
            again.clear();
            if let Ok(message) = flood::Message::<N>::decode(&mut Reader::new(bytes)) {
                message.encode(&mut again);
                prop_assert_eq!(&again, bytes);
            }
        }
    }
}
