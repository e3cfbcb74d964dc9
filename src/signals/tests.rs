//! Two nodes and the wires between them.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const A: &str = "a@host";
const B: &str = "b@host";

fn atom(text: &str) -> Term {
    Value::atom(text).encode().unwrap()
}

fn local(id: u32) -> Local {
    Local { id, serial: 0 }
}

/// Two nodes; what one sends waits until it is delivered.
struct Pair {
    states: [State; 2],
    wires: [VecDeque<Signal>; 2],
    notices: [Vec<(Local, Notice)>; 2],
    killed: [Vec<(Local, Term)>; 2],
    references: u32,
}

impl Pair {
    fn new(processes: u32) -> Self {
        let identity = |n: usize| Identity::new([A, B][n], 7);
        let state = |n| {
            State::new(Config {
                own: identity(n),
                max_peer_relations: 1000,
            })
        };
        let mut pair = Self {
            states: [state(0), state(1)],
            wires: Default::default(),
            notices: Default::default(),
            killed: Default::default(),
            references: 0,
        };
        pair.connect();
        for side in 0..2 {
            for id in 1..=processes {
                let name = Some(Arc::from(format!("p{id}")));
                pair.at(
                    side,
                    Event::Spawned {
                        process: local(id),
                        name,
                        request: None,
                    },
                );
            }
        }
        pair
    }

    fn connect(&mut self) {
        for side in 0..2 {
            let node = [B, A][side].into();
            let flags = Flags::UNLINK_ID;
            self.at(side, Event::Up { node, flags });
        }
    }

    fn disconnect(&mut self) {
        self.settle();
        for side in 0..2 {
            let node = [B, A][side].into();
            self.at(side, Event::Down { node });
        }
    }

    fn at(&mut self, side: usize, event: Event) {
        let mut effects = Vec::new();
        self.states[side].handle(event, &mut effects).unwrap();
        for effect in effects {
            match effect {
                Effect::Send { signal, .. } => self.wires[side].push_back(signal),
                Effect::Tell { process, notice } => self.notices[side].push((process, notice)),
                Effect::Kill { process, reason } => self.killed[side].push((process, reason)),
            }
        }
    }

    fn deliver(&mut self, from: usize) {
        if let Some(signal) = self.wires[from].pop_front() {
            let node = [A, B][from].into();
            self.at(1 - from, Event::Received { node, signal });
        }
    }

    fn settle(&mut self) {
        while self.wires.iter().any(|wire| !wire.is_empty()) {
            self.deliver(0);
            self.deliver(1);
        }
    }

    fn pid(&self, side: usize, id: u32) -> Pid {
        Pid {
            node: [A, B][side].into(),
            id,
            serial: 0,
            creation: 7,
        }
    }

    fn reference(&mut self, side: usize) -> Reference {
        self.references += 1;
        Reference {
            node: [A, B][side].into(),
            creation: 7,
            words: [self.references].into(),
        }
    }

    fn monitor(&mut self, side: usize, id: u32, target: Target) -> Reference {
        let reference = self.reference(side);
        let made = reference.clone();
        let node = [B, A][side].into();
        let from = local(id);
        self.at(
            side,
            Event::Monitor {
                from,
                node,
                target,
                reference,
            },
        );
        made
    }

    fn end(&mut self, side: usize, id: u32, reason: &str) {
        let reason = atom(reason);
        self.at(
            side,
            Event::Ended {
                process: local(id),
                reason,
            },
        );
    }
}

#[test]
fn a_monitor_fires_once_and_says_why() {
    let mut pair = Pair::new(2);
    let by_pid = pair.monitor(0, 1, Target::Pid(pair.pid(1, 2)));
    let by_name = pair.monitor(0, 1, Target::Name("p2".into()));
    pair.settle();
    pair.end(1, 2, "boom");
    pair.end(1, 2, "again");
    pair.settle();
    let mut heard: Vec<_> = pair.notices[0]
        .drain(..)
        .map(|(_, notice)| notice)
        .collect();
    heard.sort_by_key(|notice| match notice {
        Notice::Down { reference, .. } => reference.words.to_vec(),
        Notice::Exit { .. } => vec![],
    });
    let down = |reference, process| Notice::Down {
        reference,
        node: B.into(),
        process,
        reason: atom("boom"),
    };
    assert_eq!(
        heard,
        [
            down(by_pid, Target::Pid(pair.pid(1, 2))),
            down(by_name, Target::Name("p2".into()))
        ]
    );
}

#[test]
fn a_monitor_of_nobody_says_noproc_and_of_a_lost_node_noconnection() {
    let mut pair = Pair::new(1);
    pair.monitor(0, 1, Target::Name("nobody".into()));
    pair.monitor(0, 1, Target::Pid(pair.pid(1, 1)));
    pair.settle();
    pair.disconnect();
    let unseen = pair.monitor(0, 1, Target::Pid(pair.pid(1, 1)));
    let reasons: Vec<_> = pair.notices[0]
        .iter()
        .map(|(_, notice)| match notice {
            Notice::Down { reason, .. } => reason.decode(),
            Notice::Exit { .. } => panic!("no link was made"),
        })
        .collect();
    assert_eq!(
        reasons,
        ["noproc", "noconnection", "noconnection"].map(Value::atom)
    );
    assert!(
        matches!(&pair.notices[0][2].1, Notice::Down { reference, .. } if *reference == unseen)
    );
}

#[test]
fn a_demonitor_silences_a_down_on_its_way() {
    let mut pair = Pair::new(1);
    let reference = pair.monitor(0, 1, Target::Pid(pair.pid(1, 1)));
    pair.settle();
    pair.end(1, 1, "boom");
    let from = local(1);
    pair.at(0, Event::Demonitor { from, reference });
    pair.settle();
    assert_eq!(pair.notices[0], []);
}

#[test]
fn a_link_ends_both_and_a_trapping_process_hears_of_it() {
    let mut pair = Pair::new(2);
    for id in [1, 2] {
        let to = pair.pid(1, id);
        pair.at(
            0,
            Event::Link {
                from: local(id),
                to,
            },
        );
    }
    pair.at(
        0,
        Event::Trap {
            process: local(2),
            on: true,
        },
    );
    pair.settle();
    pair.end(1, 1, "boom");
    pair.end(1, 2, "normal");
    pair.settle();
    assert_eq!(pair.killed[0], [(local(1), atom("boom"))]);
    let from = pair.pid(1, 2);
    let reason = atom("normal");
    assert_eq!(pair.notices[0], [(local(2), Notice::Exit { from, reason })]);
}

#[test]
fn kill_cannot_be_trapped_and_normal_kills_nobody_else() {
    let mut pair = Pair::new(1);
    pair.at(
        1,
        Event::Trap {
            process: local(1),
            on: true,
        },
    );
    let (from, to) = (local(1), pair.pid(1, 1));
    for reason in ["normal", "kill"] {
        let (to, reason) = (to.clone(), atom(reason));
        pair.at(0, Event::Exit { from, to, reason });
    }
    pair.settle();
    assert_eq!(pair.notices[1].len(), 1);
    assert_eq!(pair.killed[1], [(local(1), atom("killed"))]);
}

#[test]
fn the_reply_to_a_spawn_request_precedes_the_childs_signals() {
    let mut pair = Pair::new(1);
    let request = Request {
        from: pair.pid(0, 1),
        id: pair.reference(0),
        link: true,
        monitor: true,
        reply: true,
    };
    pair.at(
        1,
        Event::Spawned {
            process: local(9),
            name: None,
            request: Some(request),
        },
    );
    pair.end(1, 9, "done");
    let sent: Vec<_> = pair.wires[1].iter().map(|signal| &signal.control).collect();
    assert!(matches!(
        sent[0],
        Control::SpawnReply {
            flags: 3,
            result: Ok(_),
            ..
        }
    ));
    assert!(sent[1..].iter().any(|c| matches!(c, Control::Exit { .. })));
    assert!(
        sent[1..]
            .iter()
            .any(|c| matches!(c, Control::MonitorExit { .. }))
    );
    assert_eq!(sent.len(), 3);
}

#[test]
fn a_peer_speaks_for_its_own_processes_only() {
    let mut pair = Pair::new(1);
    let mut from = pair.pid(1, 1);
    from.node = "c@host".into();
    let control = Control::Link {
        from,
        to: pair.pid(0, 1),
    };
    let event = Event::Received {
        node: B.into(),
        signal: signal(control, None),
    };
    let refused = pair.states[0].handle(event, &mut Vec::new());
    assert!(matches!(
        refused,
        Err(Error::Foreign {
            operation: "LINK",
            ..
        })
    ));
}

#[test]
fn a_peer_has_a_bounded_number_of_monitors_here() {
    let mut pair = Pair::new(1);
    let mut outcome = Ok(());
    for _ in 0..=1000 {
        let control = Control::Monitor {
            from: pair.pid(1, 1),
            target: Target::Pid(pair.pid(0, 1)),
            reference: pair.reference(1),
        };
        let event = Event::Received {
            node: B.into(),
            signal: signal(control, None),
        };
        assert_eq!(outcome, Ok(()));
        outcome = pair.states[0].handle(event, &mut Vec::new());
    }
    assert_eq!(outcome, Err(Error::TooMany(1000)));
}

#[test]
fn a_chain_of_a_hundred_thousand_links_ends_without_recursion() {
    let mut state = State::new(Config {
        own: Identity::new(A, 7),
        max_peer_relations: 0,
    });
    let mut effects = Vec::new();
    let count = 100_000;
    for id in 1..=count {
        let (process, name, request) = (local(id), None, None);
        let spawned = Event::Spawned {
            process,
            name,
            request,
        };
        state.handle(spawned, &mut effects).unwrap();
        if id > 1 {
            let to = Pid {
                node: A.into(),
                id: id - 1,
                serial: 0,
                creation: 7,
            };
            let from = process;
            state
                .handle(Event::Link { from, to }, &mut effects)
                .unwrap();
        }
    }
    let (process, reason) = (local(1), atom("boom"));
    state
        .handle(Event::Ended { process, reason }, &mut effects)
        .unwrap();
    assert_eq!(effects.len() as u32, count - 1);
    assert!(!state.is_alive(local(count)));
}

#[derive(Clone, Debug)]
enum Step {
    Link(usize),
    Unlink(usize),
    Deliver(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..3, 0..2_usize).prop_map(|(what, side)| match what {
        0 => Step::Link(side),
        1 => Step::Unlink(side),
        _ => Step::Deliver(side),
    });
    proptest::collection::vec(step, 0..60)
}

impl Pair {
    /// Process 1 of either end links to that of the other, and unlinks; then all arrives that is on its way.
    fn play(&mut self, steps: &[Step]) {
        for step in steps {
            match *step {
                Step::Link(side) => {
                    let to = self.pid(1 - side, 1);
                    self.at(side, Event::Link { from: local(1), to });
                }
                Step::Unlink(side) => {
                    let to = self.pid(1 - side, 1);
                    self.at(side, Event::Unlink { from: local(1), to });
                }
                Step::Deliver(side) => self.deliver(side),
            }
        }
        self.settle();
    }
}

proptest! {
    /// However links and unlinks of both ends cross, in the end both agree on whether there is a
    /// link: either both hear of the other's end or neither does.
    #[test]
    fn both_ends_agree_on_a_link(steps in steps()) {
        let mut pair = Pair::new(1);
        for side in 0..2 {
            pair.at(side, Event::Trap { process: local(1), on: true });
        }
        pair.play(&steps);
        pair.disconnect();
        prop_assert_eq!(pair.notices[0].len(), pair.notices[1].len());
        prop_assert!(pair.notices[0].len() <= 1);
    }

    /// The last word counts: whoever unlinks last and hears nothing more is not linked, whoever
    /// links last is.
    #[test]
    fn the_last_word_counts(steps in steps(), link in any::<bool>(), side in 0..2_usize) {
        let mut pair = Pair::new(1);
        pair.at(side, Event::Trap { process: local(1), on: true });
        pair.play(&steps);
        let (from, to) = (local(1), pair.pid(1 - side, 1));
        let event = if link { Event::Link { from, to } } else { Event::Unlink { from, to } };
        pair.at(side, event);
        pair.end(1 - side, 1, "boom");
        pair.settle();
        prop_assert_eq!(pair.notices[side].len(), usize::from(link));
    }
}

#[test]
fn a_peer_that_knows_no_numbered_unlinks_gets_a_plain_one() {
    let mut pair = Pair::new(1);
    pair.disconnect();
    for side in 0..2 {
        let node = [B, A][side].into();
        let flags = Flags::default();
        pair.at(side, Event::Up { node, flags });
    }
    let (from, to) = (local(1), pair.pid(1, 1));
    let link = Event::Link {
        from,
        to: to.clone(),
    };
    pair.at(0, link);
    pair.settle();
    pair.at(0, Event::Unlink { from, to });
    assert!(matches!(pair.wires[0][0].control, Control::Unlink { .. }));
    pair.settle();
    pair.end(1, 1, "boom");
    pair.settle();
    assert_eq!(pair.killed[0], []);
}
