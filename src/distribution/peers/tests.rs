//! Two nodes that dial each other over connections that may break at any time.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 2] = ["a@host", "b@host"];

/// How far the handshake of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The listener has not seen the name yet.
    Dialling,
    /// The verdict is on its way to the dialler.
    Judged(Verdict),
    Established,
    Gone,
}

#[derive(Debug)]
struct Connection {
    dialler: usize,
    dial: u64,
    stage: Stage,
    /// Ends that have been told to use it, and have not been told of its end.
    started: [bool; 2],
}

/// A connection's number is its attempt at the listener and its link at both ends.
struct World {
    states: [State; 2],
    connections: Vec<Connection>,
    now: Duration,
    failed: [u32; 2],
}

impl World {
    fn new() -> Self {
        let state = |side: usize| {
            State::new(Config {
                name: NAMES[side].into(),
                patience: Duration::from_secs(5),
            })
        };
        Self {
            states: [state(0), state(1)],
            connections: Vec::new(),
            now: Duration::ZERO,
            failed: [0, 0],
        }
    }

    fn at(&mut self, side: usize, event: Event) {
        let mut effects = Vec::new();
        self.states[side].handle(self.now, event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Dial { dial, .. } => self.connections.push(Connection {
                    dialler: side,
                    dial,
                    stage: Stage::Dialling,
                    started: [false; 2],
                }),
                Effect::CancelDial { dial } => {
                    let mine = |c: &Connection| c.dialler == side && c.dial == dial;
                    if let Some(number) = self.connections.iter().position(mine) {
                        self.break_off(number);
                    }
                }
                Effect::Verdict { attempt, verdict } => {
                    self.connections[attempt as usize].stage = Stage::Judged(verdict);
                }
                Effect::Start { link } => self.connections[link as usize].started[side] = true,
                Effect::Drop { link } | Effect::Kill { link, .. } => self.break_off(link as usize),
                Effect::Failed { .. } => self.failed[side] += 1,
            }
        }
    }

    fn name(side: usize) -> Arc<str> {
        NAMES[side].into()
    }

    /// The connection is gone: whoever knows of it hears so.
    fn break_off(&mut self, number: usize) {
        let connection = &mut self.connections[number];
        let before = std::mem::replace(&mut connection.stage, Stage::Gone);
        let (dialler, dial) = (connection.dialler, connection.dial);
        let listener = 1 - dialler;
        match before {
            Stage::Gone => {}
            Stage::Dialling | Stage::Judged(_) => {
                if matches!(before, Stage::Judged(_)) {
                    let attempt = number as u64;
                    let name = Self::name(dialler);
                    self.at(listener, Event::AttemptGone { attempt, name });
                }
                let name = Self::name(listener);
                self.at(dialler, Event::DialFailed { name, dial });
            }
            Stage::Established => {}
        }
    }

    /// Ends of broken connections hear of it one after the other.
    fn tell_down(&mut self) -> bool {
        for number in 0..self.connections.len() {
            for side in 0..2 {
                let connection = &mut self.connections[number];
                if connection.stage == Stage::Gone && connection.started[side] {
                    connection.started[side] = false;
                    let (name, link) = (Self::name(1 - side), number as u64);
                    self.at(side, Event::Down { name, link });
                    return true;
                }
            }
        }
        false
    }

    /// One step of a handshake; false if there is none to take.
    fn step(&mut self, number: usize) -> bool {
        let Connection {
            dialler,
            dial,
            stage,
            ..
        } = self.connections[number];
        let listener = 1 - dialler;
        match stage {
            Stage::Dialling => {
                let attempt = number as u64;
                let name = Self::name(dialler);
                self.at(listener, Event::Incoming { attempt, name });
                true
            }
            Stage::Judged(Verdict::Nok | Verdict::NotAllowed(_)) => {
                self.connections[number].stage = Stage::Gone;
                let name = Self::name(listener);
                self.at(dialler, Event::DialNok { name, dial });
                true
            }
            Stage::Judged(_) => {
                self.connections[number].stage = Stage::Established;
                let link = number as u64;
                let (name, origin) = (Self::name(listener), Origin::Dialled(dial));
                self.at(dialler, Event::Established { name, link, origin });
                let (name, origin) = (Self::name(dialler), Origin::Accepted(link));
                self.at(listener, Event::Established { name, link, origin });
                true
            }
            Stage::Established | Stage::Gone => false,
        }
    }

    fn settle(&mut self) {
        for _ in 0..1000 {
            let stepped = (0..self.connections.len()).any(|number| self.step(number));
            let told = self.tell_down();
            if !stepped && !told {
                let Some(deadline) = self.states.iter().filter_map(State::deadline).min() else {
                    return;
                };
                self.now = self.now.max(deadline);
                self.at(0, Event::Tick);
                self.at(1, Event::Tick);
            }
        }
        panic!("no end: {:?}", self.connections);
    }

    /// Links that an end uses.
    fn links(&self, side: usize) -> Vec<usize> {
        let used = |number: &usize| self.connections[*number].started[side];
        (0..self.connections.len()).filter(used).collect()
    }

    fn want(&mut self, side: usize) {
        self.at(side, Event::Want(Self::name(1 - side)));
    }
}

#[test]
fn one_dial_makes_one_link() {
    let mut world = World::new();
    world.want(0);
    world.want(0);
    world.settle();
    assert_eq!(world.connections.len(), 1);
    assert_eq!((world.links(0), world.links(1)), (vec![0], vec![0]));
}

#[test]
fn of_two_dials_at_once_that_of_the_greater_name_stays() {
    let mut world = World::new();
    world.want(0);
    world.want(1);
    world.settle();
    assert_eq!((world.links(0), world.links(1)), (vec![1], vec![1]));
    assert_eq!(world.failed, [0, 0]);
}

#[test]
fn a_node_that_has_lost_its_end_gets_a_new_link_after_the_old_one_is_down() {
    let mut world = World::new();
    world.want(0);
    world.settle();
    // Node 1 starts anew; node 0 has not noticed.
    world.states[1] = State::new(Config {
        name: NAMES[1].into(),
        patience: Duration::from_secs(5),
    });
    world.connections[0].started[1] = false;
    world.want(1);
    assert!(world.step(1));
    assert_eq!(world.connections[1].stage, Stage::Judged(Verdict::Alive));
    world.step(1);
    assert_eq!(world.links(0), vec![0], "the old one is ending");
    world.settle();
    assert_eq!((world.links(0), world.links(1)), (vec![1], vec![1]));
}

#[test]
fn a_node_that_is_coming_in_is_not_dialled() {
    let mut world = World::new();
    world.want(0);
    // The greater name hears of it and wants the same.
    assert!(world.step(0));
    world.want(1);
    assert_eq!(world.connections.len(), 1);
    world.settle();
    assert_eq!((world.links(0), world.links(1)), (vec![0], vec![0]));
    // Unless it does not come.
    let mut world = World::new();
    world.want(0);
    assert!(world.step(0));
    world.want(1);
    world.break_off(0);
    assert_eq!(
        (world.connections.len(), world.connections[1].dialler),
        (2, 1)
    );
}

#[test]
fn a_dial_that_fails_is_told_once() {
    let mut world = World::new();
    world.want(0);
    world.want(0);
    world.break_off(0);
    world.settle();
    assert_eq!(world.failed, [1, 0]);
    world.want(0);
    world.settle();
    assert_eq!(world.links(0), vec![1]);
}

#[test]
fn a_link_that_is_wanted_while_its_end_is_not_yet_told_is_made_again() {
    let mut world = World::new();
    world.want(0);
    world.settle();
    world.break_off(0);
    world.want(0);
    assert_eq!(
        world.connections.len(),
        1,
        "the old one has to be down first"
    );
    world.settle();
    assert_eq!((world.links(0), world.links(1)), (vec![1], vec![1]));
}

#[test]
fn a_node_does_not_dial_itself() {
    let mut world = World::new();
    world.at(0, Event::Want(World::name(0)));
    assert_eq!((world.connections.len(), world.failed[0]), (0, 1));
}

#[derive(Clone, Debug)]
enum Step {
    Want(usize),
    Shake(usize),
    Break(usize),
    Tell,
    Disconnect(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..6, 0..8_usize).prop_map(|(what, n)| match what {
        0 => Step::Want(n % 2),
        1 | 2 => Step::Shake(n),
        3 => Step::Break(n),
        4 => Step::Tell,
        _ => Step::Disconnect(n % 2),
    });
    proptest::collection::vec(step, 0..40)
}

proptest! {
    /// Whatever happens, an end never uses two connections at once, and when all is quiet both
    /// ends use the same one, or none; who then wants a link gets it.
    #[test]
    fn both_ends_use_the_same_link(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Want(side) => world.want(side),
                Step::Shake(n) if n < world.connections.len() => {
                    world.step(n);
                }
                Step::Break(n) if n < world.connections.len() => world.break_off(n),
                Step::Tell => {
                    world.tell_down();
                }
                Step::Disconnect(side) => {
                    world.at(side, Event::Disconnect(World::name(1 - side)));
                }
                Step::Shake(_) | Step::Break(_) => {}
            }
            for side in 0..2 {
                prop_assert!(world.links(side).len() <= 1);
            }
        }
        world.settle();
        prop_assert_eq!(world.links(0), world.links(1));
        let failed = world.failed[0];
        world.want(0);
        world.settle();
        prop_assert_eq!(world.links(0).len(), 1);
        prop_assert_eq!(world.links(0), world.links(1));
        prop_assert_eq!(world.failed[0], failed);
    }
}
