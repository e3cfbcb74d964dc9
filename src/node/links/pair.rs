//! Two nodes that dial each other over a network with delays, each connection as far as the
//! machines see it: name, verdict, proof, acknowledgement, up.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::tests::{name, spec};
use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Named,
    Answered(u8),
    Proved,
    Acknowledged,
    Up,
    Closed,
    Tick,
}

/// Number of the connection, whose turn it is, and what has arrived there.
type Arrival = (u64, usize, Step);

struct Connection {
    dialler: usize,
    dial: u64,
    /// Whether each end still has it, and has established its session.
    open: [bool; 2],
    session: [bool; 2],
    /// When the last bytes towards each end arrive.
    busy: [u64; 2],
}

struct Pair {
    nodes: Vec<State>,
    rng: SmallRng,
    now: u64,
    queue: BinaryHeap<Reverse<(u64, u64, Arrival)>>,
    count: u64,
    connections: BTreeMap<u64, Connection>,
    ups: [Vec<u64>; 2],
    seed: u64,
}

const NAMES: [&str; 2] = ["a@h", "b@h"];

impl Pair {
    /// To the other end, behind what is on its way; or to itself, after `local`.
    fn arrive(&mut self, conn: u64, to: usize, step: Step, local: Option<u64>) {
        let delay = self.rng.random_range(1..100);
        let at = match (local, self.connections.get_mut(&conn)) {
            (None, Some(c)) => {
                c.busy[to] = (self.now + delay).max(c.busy[to] + 1);
                c.busy[to]
            }
            (local, _) => self.now + local.unwrap_or(delay),
        };
        self.count += 1;
        self.queue.push(Reverse((at, self.count, (conn, to, step))));
    }

    fn close(&mut self, conn: u64, end: usize) {
        let Some(c) = self.connections.get_mut(&conn) else {
            return;
        };
        if std::mem::replace(&mut c.open[end], false) {
            self.arrive(conn, 1 - end, Step::Closed, None);
        }
    }

    fn on(&mut self, node: usize, event: Event) {
        let mut effects = Vec::new();
        let now = Duration::from_millis(self.now);
        self.nodes[node].handle(now, event, &mut self.rng, &mut effects);
        for effect in effects {
            match effect {
                Effect::Dial { dial, .. } => {
                    self.count += 1;
                    let conn = self.count;
                    self.connections.insert(
                        conn,
                        Connection {
                            dialler: node,
                            dial,
                            open: [true, true],
                            session: [false, false],
                            busy: [0, 0],
                        },
                    );
                    self.arrive(conn, 1 - node, Step::Named, None);
                }
                Effect::CancelDial { dial, .. } => {
                    let of = |c: &Connection| c.dialler == node && c.dial == dial;
                    let conn = self.connections.iter().find(|(_, c)| of(c));
                    let conn = *conn.unwrap().0;
                    self.close(conn, node);
                }
                Effect::Verdict { attempt, verdict } => {
                    let step = match verdict {
                        Verdict::Accept { .. } => Step::Answered(0),
                        Verdict::Nok => Step::Answered(1),
                        Verdict::NotAllowed(_) => Step::Answered(2),
                    };
                    self.arrive(attempt, 1 - node, step, None);
                }
                Effect::Admit { session, .. } => self.arrive(session, node, Step::Up, Some(50)),
                Effect::Kill { session, .. } | Effect::Close { session, .. } => {
                    self.close(session, node);
                    self.arrive(session, node, Step::Closed, Some(5));
                }
                Effect::Ping { .. } | Effect::Unreachable { .. } => {}
            }
        }
        if let Some(at) = self.nodes[node].deadline() {
            let wait = at.as_millis() as u64 + 1 - self.now;
            self.arrive(0, node, Step::Tick, Some(wait));
        }
    }

    fn step(&mut self, (conn, end, step): Arrival) {
        let peer = name(NAMES[1 - end]);
        let instance = 2 - end as u64;
        if step == Step::Tick {
            return self.on(end, Event::Tick);
        }
        let c = self.connections.get_mut(&conn).unwrap();
        let (dialler, dial) = (c.dialler, c.dial);
        if step == Step::Closed {
            c.open[end] = false;
            let event = if std::mem::replace(&mut c.session[end], false) {
                self.ups[end].retain(|up| *up != conn);
                Event::Down {
                    name: peer,
                    session: conn,
                }
            } else if dialler == end {
                let error = DialError::Rejected;
                Event::DialFailed {
                    name: peer,
                    dial,
                    error,
                }
            } else {
                Event::AttemptGone {
                    attempt: conn,
                    name: peer,
                }
            };
            return self.on(end, event);
        }
        if !c.open[end] {
            return;
        }
        match step {
            Step::Named => {
                let (attempt, extra) = (conn, false);
                self.on(
                    end,
                    Event::Incoming {
                        attempt,
                        name: peer,
                        instance,
                        extra,
                    },
                );
            }
            Step::Answered(0) => self.arrive(conn, 1 - end, Step::Proved, None),
            Step::Answered(what) => {
                c.open = [false, false];
                let error = DialError::Rejected;
                self.on(
                    end,
                    match what {
                        1 => Event::DialNok { name: peer, dial },
                        _ => Event::DialFailed {
                            name: peer,
                            dial,
                            error,
                        },
                    },
                );
            }
            Step::Proved | Step::Acknowledged => {
                c.session[end] = true;
                let origin = match step {
                    Step::Proved => Origin::Accepted(conn),
                    _ => Origin::Dialled(dial),
                };
                if step == Step::Proved {
                    self.arrive(conn, 1 - end, Step::Acknowledged, None);
                }
                self.on(
                    end,
                    Event::Established {
                        name: peer,
                        instance,
                        session: conn,
                        origin,
                    },
                );
            }
            Step::Up if c.session[end] => {
                self.ups[end].push(conn);
                assert_eq!(self.ups[end].len(), 1, "seed {}", self.seed);
                self.on(
                    end,
                    Event::Up {
                        name: peer,
                        session: conn,
                    },
                );
            }
            _ => {}
        }
    }

    fn run(&mut self, millis: u64) {
        let end = self.now + millis;
        while let Some(Reverse((at, _, arrival))) = self.queue.pop() {
            if at > end {
                self.queue.push(Reverse((at, 0, arrival)));
                break;
            }
            self.now = at;
            self.step(arrival);
        }
        self.now = end;
    }
}

#[test]
fn two_nodes_that_dial_each_other_end_with_one_session() {
    for seed in 0..2_000 {
        let config = |n: usize| Config::new(NAMES[n], n as u64 + 1);
        let mut pair = Pair {
            nodes: (0..2).map(|n| State::new(config(n))).collect(),
            rng: SmallRng::seed_from_u64(seed),
            now: 0,
            queue: BinaryHeap::new(),
            count: 0,
            connections: BTreeMap::new(),
            ups: [Vec::new(), Vec::new()],
            seed,
        };
        let first = (seed % 2) as usize;
        pair.on(first, Event::Wanted(vec![spec(NAMES[1 - first], &[1])]));
        let pause = pair.rng.random_range(0..400);
        pair.run(pause);
        pair.on(1 - first, Event::Wanted(vec![spec(NAMES[first], &[1])]));
        for round in 0..3 {
            pair.run(5_000);
            let [a, b] = pair.ups.clone();
            assert_eq!((a.len(), &a), (1, &b), "seed {seed}, round {round}");
            let made = pair.connections.len();
            pair.run(30_000);
            assert_eq!(pair.ups[0], a, "seed {seed}: not stable");
            assert_eq!(pair.connections.len(), made, "seed {seed}");
            // The network breaks it; both ends dial again at about the same time.
            for end in 0..2 {
                let local = pair.rng.random_range(1..150);
                pair.arrive(a[0], end, Step::Closed, Some(local));
            }
        }
    }
}
