//! Exchanges of neighbours: each part's rules, and what many nodes make of them.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::RngExt;

use super::net::{Id, Net};
use super::rules::{Fx, One, released, said, wants, with};
use crate::overlay::contract::{Down, Effect, Event};
use crate::overlay::hyparview::{Config, Message, XBotConfig};

fn config() -> Config {
    Config {
        xbot: Some(XBotConfig::default()),
        shuffle_interval: Duration::from_secs(3600),
        ..Config::default()
    }
}

fn nonces(fx: &Fx) -> Vec<(u32, u64)> {
    let ping = |effect: &Effect<Id, Message<Id>>| match effect {
        Effect::Send {
            to,
            message: Message::Ping { nonce },
        } => Some((to.0, *nonce)),
        _ => None,
    };
    fx.iter().filter_map(ping).collect()
}

/// What was said to this node.
fn told(fx: &Fx, peer: u32) -> Option<Message<Id>> {
    fx.iter().rev().find_map(|effect| match effect {
        Effect::Send { to, message } if to.0 == peer => Some(message.clone()),
        _ => None,
    })
}

/// A full node whose neighbours 1 to 5 are 10 to 50 ms away, with these names in its passive view.
fn node(names: std::ops::RangeInclusive<u32>) -> One {
    let mut node = with(config());
    let mut asked = Vec::new();
    for id in 1..=5 {
        node.tell(Event::LinkUp(Id(id)));
        let priority = crate::overlay::hyparview::Priority::Low;
        let (me, near) = (Id(id), Vec::new());
        asked.extend(nonces(
            &node.hear(id, Message::Neighbor { me, priority, near }),
        ));
    }
    for (id, nonce) in asked {
        node.now += Duration::from_millis(10);
        assert_eq!(node.hear(id, Message::Pong { nonce }), []);
    }
    node.names(names);
    node
}

/// The period has come; the only candidate is 6, which answers after this time.
fn weigh_six(node: &mut One, millis: u64) -> Fx {
    assert!(wants(&node.wait(20_000)).contains(&6));
    let fx = node.tell(Event::LinkUp(Id(6)));
    let [(6, nonce)] = nonces(&fx)[..] else {
        panic!("{fx:?}");
    };
    node.now += Duration::from_millis(millis);
    node.hear(6, Message::Pong { nonce })
}

#[test]
fn the_worst_but_one_is_exchanged_for_a_nearer_candidate() {
    let mut node = node(6..=6);
    let fx = weigh_six(&mut node, 2);
    let saved = Duration::from_millis(38);
    assert_eq!(told(&fx, 6), Some(Message::Optimise { old: Id(4), saved }));
    let fx = node.hear(6, Message::Optimised { accepted: true });
    assert_eq!(said(&fx, 4), Some("evict"));
    assert!(released(&fx, 4));
    assert_eq!(node.active(), [1, 2, 3, 5, 6]);
}

#[test]
fn a_candidate_that_is_no_better_is_let_go() {
    // By less than a quarter of 40 ms.
    let mut node = node(6..=6);
    let fx = weigh_six(&mut node, 31);
    assert!(told(&fx, 6).is_none() && released(&fx, 6));
    assert_eq!(node.active(), [1, 2, 3, 4, 5]);
    // An echo with another number says nothing.
    assert_eq!(wants(&node.wait(25_000)), [6]);
    node.tell(Event::LinkUp(Id(6)));
    assert_eq!(node.hear(6, Message::Pong { nonce: 1 }), []);
    // Whoever does not answer is no candidate any longer.
    assert!(released(&node.wait(5_000), 6));
    assert!(!node.overlay.passive().contains(&Id(6)));
}

#[test]
fn a_refused_initiator_keeps_its_neighbour() {
    let mut node = node(6..=6);
    weigh_six(&mut node, 2);
    let fx = node.hear(6, Message::Optimised { accepted: false });
    assert!(released(&fx, 6));
    assert_eq!(node.active(), [1, 2, 3, 4, 5]);
}

#[test]
fn the_place_of_the_old_one_waits_for_the_candidate_and_no_longer() {
    let lost = || {
        let mut node = node(6..=6);
        node.names(7..=7);
        weigh_six(&mut node, 2);
        let fx = node.tell(Event::LinkDown(Id(4), Down::Planned));
        assert!(wants(&fx).is_empty(), "the place is for 6");
        node
    };
    let mut node = lost();
    node.hear(6, Message::Optimised { accepted: true });
    assert_eq!(node.active(), [1, 2, 3, 5, 6]);
    let refusals: [fn(&mut One) -> Fx; 3] = [
        |node| node.hear(6, Message::Optimised { accepted: false }),
        |node| node.tell(Event::LinkDown(Id(6), Down::Failed)),
        |node| node.wait(25_000),
    ];
    for refuse in refusals {
        let mut node = lost();
        assert!(!wants(&refuse(&mut node)).is_empty(), "somebody else's now");
    }
}

#[test]
fn a_candidate_asks_its_worst_but_one_and_takes_the_initiator() {
    let mut node = node(7..=7);
    let saved = Duration::from_millis(5);
    node.tell(Event::LinkUp(Id(8)));
    let optimise = |old| Message::Optimise {
        old: Id(old),
        saved,
    };
    // The old one is a neighbour here: the next worse is asked.
    let fx = node.hear(8, optimise(4));
    assert_eq!(said(&fx, 3), Some("replace"));
    node.tell(Event::LinkUp(Id(9)));
    assert_eq!(said(&node.hear(9, optimise(20)), 9), Some("not optimised"));
    let fx = node.hear(3, Message::Replaced { accepted: true });
    assert_eq!(
        said(&fx, 8).map(|_| told(&fx, 8)),
        Some(Some(Message::Optimised { accepted: true }))
    );
    assert_eq!(node.active(), [1, 2, 4, 5, 8]);
    // It rests for a second.
    assert_eq!(said(&node.hear(9, optimise(20)), 9), Some("not optimised"));
    node.now += Duration::from_secs(1);
    assert_eq!(said(&node.hear(9, optimise(20)), 4), Some("replace"));
    let fx = node.tell(Event::LinkDown(Id(4), Down::Failed));
    assert_eq!(said(&fx, 9), Some("not optimised"));
    // There is a free place now.
    assert_eq!(said(&node.hear(9, optimise(20)), 9), Some("optimised"));
}

#[test]
fn a_candidate_waits_for_a_time() {
    let mut node = node(7..=7);
    node.tell(Event::LinkUp(Id(8)));
    let (old, saved) = (Id(20), Duration::from_millis(5));
    assert_eq!(
        said(&node.hear(8, Message::Optimise { old, saved }), 4),
        Some("replace")
    );
    assert_eq!(said(&node.wait(20_000), 8), Some("not optimised"));
    // What comes late changes nothing here; the end of the link will.
    assert_eq!(node.hear(4, Message::Replaced { accepted: true }), []);
}

/// The node is asked by 4, at 40 ms, to take 9 instead, which is so far.
fn replace(saved: u64, millis: u64) -> (One, Fx) {
    let mut node = node(7..=7);
    let replace = Message::Replace {
        initiator: Id(8),
        old: Id(9),
        saved: Duration::from_millis(saved),
    };
    assert_eq!(wants(&node.hear(4, replace)), [9]);
    let fx = node.tell(Event::LinkUp(Id(9)));
    let (_, nonce) = nonces(&fx)[0];
    node.now += Duration::from_millis(millis);
    let fx = node.hear(9, Message::Pong { nonce });
    (node, fx)
}

#[test]
fn the_sum_decides_whether_a_neighbour_is_replaced() {
    let (_, fx) = replace(10, 51);
    assert_eq!(said(&fx, 4), Some("not replaced"));
    assert!(released(&fx, 9));
    let (mut node, fx) = replace(10, 49);
    let cost = Duration::from_millis(49);
    let initiator = Id(8);
    assert_eq!(told(&fx, 9), Some(Message::Switch { initiator, cost }));
    let fx = node.hear(9, Message::Switched { accepted: true });
    assert_eq!(said(&fx, 4), Some("replaced"));
    assert!(released(&fx, 4));
    assert_eq!(node.active(), [1, 2, 3, 5, 9]);
    for end in [
        Event::Message {
            from: Id(9),
            message: Message::Switched { accepted: false },
        },
        Event::LinkDown(Id(9), Down::Failed),
    ] {
        let (mut node, _) = replace(10, 49);
        assert_eq!(said(&node.tell(end), 4), Some("not replaced"));
        assert_eq!(node.active(), [1, 2, 3, 4, 5]);
    }
    let (mut node, _) = replace(10, 49);
    assert_eq!(said(&node.wait(5_000), 4), Some("not replaced"));
}

#[test]
fn an_unbiased_neighbour_is_given_up_for_one_as_far_only() {
    for (initiator, millis, answer) in [
        (5, 1, "not switched"),
        (5, 45, "switched"),
        (4, 1, "switched"),
        (8, 1, "not switched"),
    ] {
        let mut node = node(7..=7);
        node.tell(Event::LinkUp(Id(9)));
        let (initiator, cost) = (Id(initiator), Duration::from_millis(millis));
        let fx = node.hear(9, Message::Switch { initiator, cost });
        assert_eq!(said(&fx, 9), Some(answer), "{initiator:?} {millis}");
        let taken = answer == "switched";
        assert_eq!(released(&fx, initiator.0), taken);
        assert_eq!(node.active().contains(&9), taken);
        assert_eq!(node.active().len(), 5);
    }
}

#[test]
fn a_node_without_xbot_answers_echoes_and_refuses_exchanges() {
    let mut node = with(Config::default());
    node.neighbours(1..=5);
    node.tell(Event::LinkUp(Id(9)));
    assert_eq!(
        said(&node.hear(9, Message::Ping { nonce: 7 }), 9),
        Some("pong")
    );
    let (old, initiator, saved) = (Id(20), Id(1), Duration::from_secs(9));
    let cost = Duration::ZERO;
    let fx = node.hear(9, Message::Optimise { old, saved });
    assert_eq!(said(&fx, 9), Some("not optimised"));
    let fx = node.hear(
        1,
        Message::Replace {
            initiator: Id(8),
            old,
            saved,
        },
    );
    assert_eq!(said(&fx, 1), Some("not replaced"));
    let fx = node.hear(9, Message::Switch { initiator, cost });
    assert_eq!(said(&fx, 9), Some("not switched"));
    assert_eq!(node.active(), [1, 2, 3, 4, 5]);
}

#[test]
fn who_was_taken_as_a_neighbour_in_vain_hears_of_it() {
    let mut node = node(7..=7);
    node.tell(Event::LinkUp(Id(9)));
    let accepted = true;
    for message in [
        Message::Optimised { accepted },
        Message::Switched { accepted },
    ] {
        node.tell(Event::LinkUp(Id(9)));
        assert!(released(&node.hear(9, message), 9));
    }
    assert_eq!(node.active(), [1, 2, 3, 4, 5]);
}

/// Neighbours in the same of four clusters, as a part of all.
fn near(net: &Net) -> f64 {
    let graph = net.graph();
    let (mut near, mut all) = (0, 0);
    for id in graph.nodes() {
        for peer in &graph.edges[id] {
            near += u32::from(net.is_near(Id(id as u32), Id(*peer as u32)));
            all += 1;
        }
    }
    f64::from(near) / f64::from(all)
}

/// 160 nodes in four clusters, of which `plain` of ten know nothing of X-BOT.
fn cluster(seed: u64, plain: u32) -> Net {
    let xbot = Some(XBotConfig::default());
    let mut net = Net::new(
        seed,
        Config {
            xbot,
            ..Config::default()
        },
    );
    net.clusters = 4;
    for n in 0..160 {
        let id = match n % 10 < plain {
            true => net.add_with(Config::default()),
            false => net.add(),
        };
        if n > 0 {
            let contact = net.rng.random_range(0..n);
            net.tell(id, Event::Join(Id(contact)));
        }
        net.run(Duration::from_millis(20));
    }
    net.run(Duration::from_secs(900));
    net
}

#[test]
fn neighbours_become_near_and_all_stay_in_touch() {
    for seed in 0..4 {
        // 79 % would be one far link for each node.
        for (plain, least) in [(10, 0.15), (0, 0.65), (5, 0.3)] {
            let mut net = cluster(seed, plain);
            assert!(near(&net) >= least, "seed {seed}: {plain} {}", near(&net));
            let dead: Vec<u32> = (0..160).filter(|id| id % 3 == 0).collect();
            net.crash_all(&dead.into_iter().map(Id).collect());
            net.run(Duration::from_secs(60));
            for _ in 0..100 {
                net.run(Duration::from_millis(37));
                if net.graph().one_sided().is_empty() {
                    break;
                }
            }
            let graph = net.graph();
            assert_eq!(graph.one_sided(), [], "seed {seed}");
            assert_eq!(graph.components(), [106], "seed {seed}");
            let full = graph
                .nodes()
                .filter(|id| graph.edges[*id].len() == 5)
                .count();
            assert!(full >= 100, "seed {seed}: {full}");
            let active: BTreeSet<usize> = graph.nodes().collect();
            assert_eq!(active.len(), 106);
        }
    }
}
