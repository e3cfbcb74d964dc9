//! Rules of one node: what it does with one message after the other.

use std::time::Duration;

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::harness::N;
use crate::broadcast::plumtree::{Config, Have, Message, Of, Plumtree, Tree, Want};
use crate::broadcast::{Broadcast, Effect, Error, Event};
use crate::limits::MAX_BROADCAST_BYTES;

pub(super) struct One {
    pub(super) node: Plumtree<N>,
    pub(super) now: u64,
    rng: StdRng,
}

type Out = Vec<Effect<N, Message<N>>>;

/// Broadcasts of node 9.
pub(super) const NINE: Of<N> = Of {
    root: N(9),
    life: 1,
    tree: Tree::Own,
};

impl One {
    /// Node 0 with neighbours 1 to `n`.
    pub(super) fn new(config: Config, n: u32) -> Self {
        let mut one = Self {
            node: Plumtree::new(config, N(0), 1),
            now: 0,
            rng: StdRng::seed_from_u64(0),
        };
        for i in 1..=n {
            one.event(Event::NeighborUp(N(i)));
        }
        one
    }

    pub(super) fn try_event(&mut self, event: Event<N, Message<N>>) -> Result<Out, Error> {
        let mut out = Vec::new();
        let now = Duration::from_millis(self.now);
        self.node.handle(now, event, &mut self.rng, &mut out)?;
        Ok(out)
    }

    pub(super) fn event(&mut self, event: Event<N, Message<N>>) -> Out {
        self.try_event(event).unwrap()
    }

    pub(super) fn gets(&mut self, from: u32, message: Message<N>) -> Out {
        let from = N(from);
        self.event(Event::Message { from, message })
    }

    /// The payload arrives, and is new.
    fn payload(&mut self, from: u32, sequence: u64, hops: u16) -> Out {
        self.gets(from, gossip(sequence, hops))
    }

    fn after(&mut self, ms: u64) -> Out {
        self.now += ms;
        self.event(Event::Tick)
    }
}

pub(super) fn gossip(sequence: u64, hops: u16) -> Message<N> {
    aged(sequence, hops, 0)
}

fn aged(sequence: u64, hops: u16, age: u32) -> Message<N> {
    Message::Gossip {
        of: NINE,
        sequence,
        hops,
        age,
        payload: Bytes::from_static(b"x"),
    }
}

pub(super) fn have(first: u64, count: u16, hops: u16) -> Message<N> {
    let of = NINE;
    let have = vec![Have {
        of,
        first,
        count,
        hops,
    }];
    Message::Announce { again: false, have }
}

fn want(first: u64, count: u16, eager: bool) -> Message<N> {
    let of = NINE;
    Message::Graft(vec![Want {
        of,
        eager,
        first,
        count,
    }])
}

fn to(to: u32, message: Message<N>) -> Effect<N, Message<N>> {
    Effect::Send { to: N(to), message }
}

fn delivered(out: &Out) -> usize {
    out.iter()
        .filter(|e| matches!(e, Effect::Deliver { .. }))
        .count()
}

/// A node whose tree for `NINE` has the parent 1, the child 2 and the lazy neighbour 3.
fn settled() -> One {
    let mut one = One::new(Config::default(), 3);
    one.payload(1, 1, 4);
    one.payload(3, 1, 5);
    one.after(10);
    assert_eq!(one.node.eager(Some(&N(9))), [N(1), N(2)]);
    assert_eq!(one.node.lazy(Some(&N(9))), [N(3)]);
    one
}

#[test]
fn a_new_payload_goes_to_eager_and_is_announced_to_lazy_neighbours() {
    let mut one = settled();
    let out = one.payload(1, 2, 4);
    assert_eq!(delivered(&out), 1);
    assert_eq!(out[1..], [to(2, gossip(2, 5))]);
    assert_eq!(one.payload(1, 3, 4)[1..], [to(2, gossip(3, 5))]);
    assert_eq!(one.node.outstanding().len(), 1);
    assert_eq!(one.node.deadline(), Some(Duration::from_millis(15)));
    assert_eq!(one.after(5), [to(3, have(2, 2, 4))], "one range of a batch");
    assert_eq!(one.node.outstanding(), []);
}

#[test]
fn a_duplicate_prunes_its_sender() {
    let mut one = settled();
    let out = one.payload(2, 1, 5);
    assert_eq!(out, [to(2, Message::Prune(NINE))]);
    assert_eq!(one.node.lazy(Some(&N(9))), [N(2), N(3)]);
    assert_eq!(one.payload(1, 1, 4), [], "not the one it is expected from");
    // A payload over a pruned link: the tree stands, and the parent gets none.
    let out = one.payload(2, 2, 3);
    assert_eq!(
        (delivered(&out), &out[1..]),
        (1, &[to(2, Message::Prune(NINE))][..])
    );
    assert_eq!(one.payload(1, 2, 4), []);
    assert_eq!(one.node.eager(Some(&N(9))), [N(1)]);
}

#[test]
fn a_prune_makes_the_link_lazy() {
    let mut one = settled();
    one.gets(2, Message::Prune(NINE));
    assert_eq!(one.node.eager(Some(&N(9))), [N(1)]);
    assert_eq!(delivered(&one.payload(1, 2, 4)), 1);
    assert_eq!(one.after(5), [to(2, have(2, 1, 4)), to(3, have(2, 1, 4))]);
}

#[test]
fn what_does_not_come_is_asked_for_from_one_announcer_after_the_other() {
    let mut one = settled();
    assert_eq!(one.gets(3, have(2, 1, 7)), []);
    assert_eq!(one.gets(2, have(2, 1, 8)), []);
    assert_eq!(one.after(199), []);
    assert_eq!(one.after(1), [to(3, want(2, 1, true))]);
    assert_eq!(one.node.eager(Some(&N(9))), [N(1), N(2), N(3)]);
    assert_eq!(one.after(99), []);
    assert_eq!(one.after(1), [to(2, want(2, 1, true))]);
    assert_eq!(one.node.missing()[0].1, [N(3), N(2)]);
    assert_eq!(one.after(100), []);
    assert_eq!(one.node.missing(), [], "nobody is left to be asked");
    assert_eq!(
        one.node.deadline().map(|d| d.as_secs()),
        Some(67),
        "only the cache"
    );
}

#[test]
fn what_is_expected_from_nobody_is_asked_for_at_once() {
    let mut one = One::new(Config::default(), 3);
    assert_eq!(one.gets(1, have(1, 2, 7)), [to(1, want(1, 2, true))]);
    assert_eq!(one.gets(2, have(1, 2, 7)), []);
    let out = one.payload(1, 1, 8);
    assert_eq!(delivered(&out), 1);
    assert_eq!(out[1..], [to(3, gossip(1, 9))], "2 has it");
    assert_eq!(one.node.eager(Some(&N(9))), [N(1), N(3)]);
}

#[test]
fn a_lost_parent_is_replaced_at_once() {
    let mut one = settled();
    one.gets(3, have(2, 1, 7));
    assert_eq!(
        one.event(Event::NeighborDown(N(1))),
        [to(3, want(2, 1, true))]
    );
    // The one that was asked goes away, too.
    one.gets(2, have(2, 1, 7));
    assert_eq!(
        one.event(Event::NeighborDown(N(3))),
        [to(2, want(2, 1, true))]
    );
    assert_eq!(one.node.neighbors(), [N(2)]);
}

/// Nothing is missing yet, but the next one would be.
#[test]
fn who_has_the_same_takes_the_place_of_a_lost_parent_before_it_is_missed() {
    let eager = want(0, 0, true);
    let mut one = settled();
    assert_eq!(one.event(Event::NeighborDown(N(1))), [to(3, eager.clone())]);
    assert_eq!(one.node.eager(Some(&N(9))), [N(2), N(3)]);
    // It comes from there, and is expected from there from now on.
    assert_eq!(one.payload(3, 2, 6)[1..], [to(2, gossip(2, 7))]);
    assert_eq!(one.gets(2, have(3, 1, 8)), []);
    // Somebody else announces it first: it is asked at once.
    let mut one = settled();
    one.event(Event::NeighborDown(N(1)));
    assert_eq!(one.gets(2, have(2, 1, 7)), [to(2, want(2, 1, true))]);
    // An announcement will do as well as a duplicate, and one that is nearer to the root does better.
    let mut one = settled();
    one.event(Event::NeighborUp(N(4)));
    one.payload(1, 2, 4);
    one.gets(3, have(2, 1, 4));
    one.gets(4, have(2, 1, 3));
    assert_eq!(one.event(Event::NeighborDown(N(1))), [to(4, eager.clone())]);
    // Nobody has had it; or who had it has gone too.
    let mut one = settled();
    one.payload(1, 2, 4);
    assert_eq!(one.event(Event::NeighborDown(N(1))), []);
    let mut one = settled();
    one.event(Event::NeighborDown(N(3)));
    assert_eq!(one.event(Event::NeighborDown(N(1))), []);
}

#[test]
fn an_old_one_that_is_missing_does_not_change_the_tree() {
    let mut one = settled();
    assert_eq!(delivered(&one.payload(1, 5, 4)), 1);
    one.after(10);
    one.gets(3, have(2, 1, 7));
    assert_eq!(one.after(200), [to(3, want(2, 1, false))]);
    let out = one.payload(3, 2, 8);
    assert_eq!(
        (delivered(&out), out.len()),
        (1, 1),
        "the child may have had it"
    );
    assert_eq!(one.after(5), [to(1, have(2, 1, 8)), to(2, have(2, 1, 8))]);
    assert_eq!(one.node.eager(Some(&N(9))), [N(1), N(2)]);
    // Nor does one that a child has kept.
    one.gets(2, have(3, 1, 7));
    assert_eq!(one.after(200), [to(2, want(3, 1, false))]);
    one.payload(2, 3, 8);
    one.gets(2, have(6, 1, 7));
    assert_eq!(one.after(5), [to(1, have(3, 1, 8)), to(3, have(3, 1, 8))]);
}

#[test]
fn a_graft_is_answered_from_the_cache() {
    let mut one = settled();
    let resent = aged(1, 5, 10);
    assert_eq!(one.gets(3, want(1, 5, false)), [to(3, resent)]);
    assert_eq!(one.node.lazy(Some(&N(9))), [N(3)]);
    assert_eq!(one.gets(3, want(0, 0, true)), []);
    assert_eq!(one.node.lazy(Some(&N(9))), []);
    one.after(68_000);
    assert_eq!(one.gets(3, want(1, 5, true)), []);
    assert_eq!(one.node.cached(), (0, 0));
}

#[test]
fn a_much_better_announcer_takes_the_place_of_the_parent() {
    for (hops, ms, moves) in [(8, 1, false), (9, 1, true), (2, 9, false), (2, 10, true)] {
        let mut one = settled();
        one.gets(3, have(2, 1, 1));
        one.now += ms;
        let out = one.payload(1, 2, hops);
        let graft = to(3, want(0, 0, true));
        assert_eq!(
            out.contains(&graft),
            moves,
            "{hops} hops after {ms} ms: {out:?}"
        );
        assert_eq!(out.contains(&to(1, Message::Prune(NINE))), moves);
        let parent = if moves { N(3) } else { N(1) };
        assert!(one.node.eager(Some(&N(9))).contains(&parent));
        assert_eq!(one.node.eager(Some(&N(9))).len(), 2);
    }
}

#[test]
fn new_neighbours_hear_of_all_there_is() {
    let mut one = settled();
    one.payload(1, 2, 4);
    one.event(Event::Broadcast(Bytes::new()));
    let out = one.event(Event::NeighborUp(N(4)));
    let Effect::Send {
        to: N(4),
        message: Message::Announce { again: false, have },
    } = &out[0]
    else {
        panic!("{out:?}");
    };
    assert_eq!(have.iter().map(|h| h.count).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(
        one.node.eager(Some(&N(0))),
        [N(1), N(2), N(3), N(4)],
        "the own tree"
    );
    assert_eq!(one.node.eager(Some(&N(9))), [N(1), N(2)]);
    assert_eq!(one.event(Event::NeighborUp(N(4))), [], "already one");
}

#[test]
fn what_came_before_the_neighbour_was_one_is_asked_for_again() {
    let mut one = settled();
    assert_eq!(one.payload(5, 2, 1), []);
    let out = one.event(Event::NeighborUp(N(5)));
    assert!(matches!(
        &out[..],
        [Effect::Send {
            message: Message::Announce { again: true, .. },
            ..
        }]
    ));
    let again = Message::Announce {
        again: true,
        have: Vec::new(),
    };
    assert_eq!(one.gets(3, again), [to(3, have(1, 1, 4))]);
}

#[test]
fn own_broadcasts() {
    let mut one = One::new(Config::default(), 2);
    let out = one.event(Event::Broadcast(Bytes::from_static(b"x")));
    assert_eq!(out.len(), 2, "{out:?}");
    let Effect::Send { message, .. } = out[0].clone() else {
        panic!("{out:?}")
    };
    assert!(Plumtree::<N>::carries_payload(&message));
    let Message::Gossip { of, hops: 1, .. } = &message else {
        panic!("{message:?}")
    };
    let of = of.clone();
    assert_eq!(
        one.gets(1, message),
        [to(1, Message::Prune(of.clone()))],
        "it comes back"
    );
    one.gets(2, Message::Prune(of));
    let out = one.event(Event::Broadcast(Bytes::new()));
    assert_eq!(out.len(), 2, "no eager link is left: begin anew");
    let large = Bytes::from(vec![0; MAX_BROADCAST_BYTES + 1]);
    assert!(matches!(
        one.try_event(Event::Broadcast(large)),
        Err(Error::TooLarge { .. })
    ));
}

#[test]
fn roots_beyond_the_limit_share_a_tree() {
    let config = Config {
        max_trees: 2,
        ..Config::default()
    };
    let mut one = One::new(config, 2);
    for root in 8..12 {
        let of = Of {
            root: N(root),
            ..NINE
        };
        let payload = Bytes::new();
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
    }
    assert_eq!(one.node.roots(), [(N(10), 1), (N(11), 1)]);
    let out = one.event(Event::Broadcast(Bytes::new()));
    let which = |effect: &Effect<N, Message<N>>| match effect {
        Effect::Send {
            message: Message::Gossip { of, .. },
            ..
        } => of.tree,
        other => panic!("{other:?}"),
    };
    // It has heard of no core: it is one.
    let trees: Vec<Tree> = out.iter().map(which).collect();
    assert_eq!(trees, [Tree::Core, Tree::Core, Tree::Common, Tree::Common]);
    assert_eq!(one.node.core(), Some(N(0)));
    let out = one.event(Event::Broadcast(Bytes::new()));
    assert_eq!(out.len(), 2, "beats are seldom");
}

#[test]
fn payloads_carry_their_age() {
    let mut one = One::new(Config::default(), 3);
    one.now = 1000;
    let old = aged(1, 1, 50_000);
    let age = |out: &Out| match out.last() {
        Some(Effect::Send {
            message: Message::Gossip { age, .. },
            ..
        }) => Some(*age),
        _ => None,
    };
    let out = one.gets(1, old);
    assert_eq!(age(&out), Some(50_000));
    let want = || {
        Message::Graft(vec![Want {
            of: NINE,
            eager: false,
            first: 1,
            count: 1,
        }])
    };
    one.now += 9_999;
    let out = one.gets(3, want());
    assert_eq!(age(&out), Some(59_999));
    // After a minute it is not given to anybody, and not announced.
    one.now += 1;
    assert_eq!(one.gets(3, want()), []);
    assert_eq!(one.event(Event::NeighborUp(N(7))), []);
    let out = one.event(Event::Broadcast(Bytes::new()));
    assert_eq!(age(&out), Some(0));
}

#[test]
fn the_last_beat_of_a_dead_core_is_not_taken_from_a_cache() {
    let mut one = One::new(Config::default(), 3);
    let beat = |root: u32, sequence, age| Message::Gossip {
        of: Of {
            root: N(root),
            tree: Tree::Core,
            ..NINE
        },
        sequence,
        hops: 1,
        age,
        payload: Bytes::new(),
    };
    // Either may have the lower key.
    for (dead, alive) in [(9, 8), (5, 6)] {
        assert_eq!(one.gets(1, beat(dead, 1, 10_000)), []);
        assert_ne!(one.node.core(), Some(N(dead)));
        assert!(!one.gets(2, beat(alive, 1, 9_999)).is_empty());
        assert_eq!(one.node.core(), Some(N(alive)));
        one.now += 10_000;
    }
}

#[test]
fn beats_shape_the_common_tree_and_broadcasts_along_it_do_not() {
    let mut one = One::new(Config::default(), 4);
    let along = |root: u32, tree| Of {
        root: N(root),
        tree,
        ..NINE
    };
    let gossip = |of: &Of<N>, sequence, payload: &'static [u8]| Message::Gossip {
        of: of.clone(),
        sequence,
        hops: 1,
        age: 0,
        payload: Bytes::from_static(payload),
    };
    let beat = along(9, Tree::Core);
    let out = one.gets(1, gossip(&beat, 1, b""));
    assert_eq!(out.len(), 3, "passed on, and not delivered: {out:?}");
    assert!(!Plumtree::<N>::carries_payload(&gossip(&beat, 1, b"")));
    let out = one.gets(2, gossip(&beat, 1, b""));
    assert_eq!(out, [to(2, Message::Prune(beat.clone()))]);
    // Links 1, 3 and 4 are in the tree; whichever a broadcast comes by, the others get it.
    let news = along(8, Tree::Common);
    let out = one.gets(3, gossip(&news, 1, b"x"));
    assert!(matches!(out[0], Effect::Deliver { .. }), "{out:?}");
    assert_eq!(one.node.eager(None), [N(1), N(3), N(4)]);
    assert_eq!(out.len(), 3, "{out:?}");
    assert_eq!(one.gets(1, gossip(&news, 1, b"x")), [], "prunes nothing");
    // One that is missing is fetched over a link that remains lazy.
    let announced = Message::Announce {
        again: false,
        have: vec![Have {
            of: news.clone(),
            first: 2,
            count: 1,
            hops: 3,
        }],
    };
    assert_eq!(one.gets(2, announced), []);
    one.now += 399;
    // The announcement of the first one to the lazy link leaves.
    assert!(one.event(Event::Tick).iter().all(|e| !matches!(
        e,
        Effect::Send {
            message: Message::Graft(_),
            ..
        }
    )));
    one.now += 1;
    let want = Want {
        of: news.clone(),
        eager: false,
        first: 2,
        count: 1,
    };
    let out = one.event(Event::Tick);
    assert_eq!(out, [to(2, Message::Graft(vec![want]))]);
    let out = one.gets(2, gossip(&news, 2, b"y"));
    assert_eq!(out.len(), 4, "to all of the tree: {out:?}");
    assert_eq!(one.node.eager(None), [N(1), N(3), N(4)]);
    // A beat that carries something is refused.
    let from = N(1);
    let message = gossip(&beat, 2, b"z");
    let refused = one.try_event(Event::Message { from, message });
    assert!(matches!(refused, Err(Error::Message(_))));
}

/// Run by hand: `--ignored --nocapture`, in a release build.
#[test]
#[ignore = "measures time"]
fn speed() {
    let mut one = One::new(Config::default(), 5);
    let root = |n: u64| Of {
        root: N(100 + n as u32),
        ..NINE
    };
    let payload = Bytes::from_static(b"x");
    let message = |n: u64, of: Of<N>| Message::Gossip {
        of,
        sequence: 1 + n / 64,
        hops: 1,
        age: 0,
        payload: payload.clone(),
    };
    for n in 0..64 {
        one.gets(1, message(n, root(n)));
        for lazy in 3..6 {
            one.gets(lazy, Message::Prune(root(n)));
        }
    }
    let (mut out, mut now, rounds) = (Vec::new(), 0, 1_000_000);
    let start = std::time::Instant::now();
    for n in 64..rounds {
        let (from, message) = (N(1), message(n, root(n % 64)));
        let event = Event::Message { from, message };
        if n % 100 == 0 {
            now += 5000;
        }
        let time = Duration::from_micros(now);
        one.node
            .handle(time, event, &mut one.rng, &mut out)
            .unwrap();
        out.clear();
    }
    println!(
        "a payload, to one eager and three lazy neighbours: {:?}",
        start.elapsed() / rounds as u32
    );
    let sequence = rounds / 64;
    let old = Message::Announce {
        again: false,
        have: (0..64)
            .map(|n| Have {
                of: root(n),
                first: sequence - 8,
                count: 4,
                hops: 3,
            })
            .collect(),
    };
    let start = std::time::Instant::now();
    for _ in 0..10_000 {
        let (from, message) = (N(3), old.clone());
        let event = Event::Message { from, message };
        one.node
            .handle(Duration::from_micros(now), event, &mut one.rng, &mut out)
            .unwrap();
    }
    println!(
        "an announcement, one of a batch of 64 ranges: {:?}",
        start.elapsed() / 640_000
    );
    println!(
        "{} bytes of tables, {} of them the cache",
        one.node.table_bytes(),
        one.node.cache.bytes()
    );
}
