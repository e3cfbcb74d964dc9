use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;

/// The own name is "m@h"; "a@h" is lesser and "z@h" greater.
struct Host {
    state: State,
    rng: SmallRng,
    now: Duration,
}

const OWN: u64 = 100;

pub(super) fn name(n: &str) -> Arc<str> {
    n.into()
}

pub(super) fn spec(n: &str, ports: &[u16]) -> NodeSpec {
    NodeSpec {
        name: name(n),
        listen_addrs: ports.iter().map(|p| ([127, 0, 0, 1], *p).into()).collect(),
        channels: Vec::new(),
    }
}

fn host() -> Host {
    Host {
        state: State::new(Config::new("m@h", OWN)),
        rng: SmallRng::seed_from_u64(7),
        now: Duration::from_secs(1000),
    }
}

impl Host {
    fn on(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.state
            .handle(self.now, event, &mut self.rng, &mut effects);
        effects
    }

    fn after(&mut self, millis: u64) -> Vec<Effect> {
        self.now += Duration::from_millis(millis);
        self.on(Event::Tick)
    }

    /// Sleeps until the deadline and says how long that was.
    fn sleep(&mut self) -> (Duration, Vec<Effect>) {
        let deadline = self.state.deadline().expect("a deadline");
        let pause = deadline - self.now;
        self.now = deadline;
        (pause, self.on(Event::Tick))
    }

    fn want(&mut self, specs: &[NodeSpec]) -> Vec<Effect> {
        self.on(Event::Wanted(specs.to_vec()))
    }

    fn incoming(&mut self, attempt: u64, n: &str, instance: u64) -> Vec<Effect> {
        let (name, extra) = (name(n), false);
        self.on(Event::Incoming {
            attempt,
            name,
            instance,
            extra,
        })
    }

    fn extra(&mut self, attempt: u64, n: &str, instance: u64) -> Vec<Effect> {
        let (name, extra) = (name(n), true);
        self.on(Event::Incoming {
            attempt,
            name,
            instance,
            extra,
        })
    }

    fn fail(&mut self, n: &str, dial: u64) -> Vec<Effect> {
        let (name, error) = (name(n), DialError::Unreachable);
        self.on(Event::DialFailed { name, dial, error })
    }

    fn established(&mut self, n: &str, instance: u64, session: u64, origin: Origin) -> Vec<Effect> {
        let name = name(n);
        self.on(Event::Established {
            name,
            instance,
            session,
            origin,
        })
    }

    fn up(&mut self, n: &str, session: u64) -> Vec<Effect> {
        self.on(Event::Up {
            name: name(n),
            session,
        })
    }

    fn down(&mut self, n: &str, session: u64) -> Vec<Effect> {
        self.on(Event::Down {
            name: name(n),
            session,
        })
    }

    fn pong(&mut self, n: &str, session: u64) -> Vec<Effect> {
        self.on(Event::Pong {
            name: name(n),
            session,
        })
    }

    /// A session that the peer opened.
    fn session(&mut self, n: &str, instance: u64, session: u64) {
        let attempt = session + 1000;
        assert_eq!(self.incoming(attempt, n, instance), [accept(attempt)]);
        let effects = self.established(n, instance, session, Origin::Accepted(attempt));
        assert_eq!(effects, [admit(n, session)]);
        assert_eq!(self.up(n, session), []);
    }
}

fn verdict(attempt: u64, verdict: Verdict) -> Effect {
    Effect::Verdict { attempt, verdict }
}

fn accept(attempt: u64) -> Effect {
    let simultaneous = false;
    verdict(attempt, Verdict::Accept { simultaneous })
}

fn duplicate(attempt: u64) -> Effect {
    verdict(attempt, Verdict::NotAllowed(DUPLICATE))
}

fn admit(n: &str, session: u64) -> Effect {
    let name = name(n);
    Effect::Admit { name, session }
}

fn ping(n: &str, session: u64) -> Effect {
    let name = name(n);
    Effect::Ping { name, session }
}

fn cancel(n: &str, dial: u64) -> Effect {
    let name = name(n);
    Effect::CancelDial { name, dial }
}

/// Sessions that are to be killed.
fn killed(effects: &[Effect]) -> Vec<u64> {
    let kill = |e: &Effect| match e {
        Effect::Kill { session, .. } => Some(*session),
        _ => None,
    };
    effects.iter().filter_map(kill).collect()
}

/// Name, number and port of each dial.
fn dials(effects: &[Effect]) -> Vec<(String, u64, u16)> {
    let dial = |e: &Effect| match e {
        Effect::Dial { dial, spec, addr } => Some((spec.name.to_string(), *dial, addr.port())),
        _ => None,
    };
    effects.iter().filter_map(dial).collect()
}

#[test]
fn a_wanted_node_is_dialled_once_and_comes_up() {
    let mut host = host();
    let effects = host.want(&[spec("z@h", &[1]), spec("m@h", &[2]), spec("y@h", &[])]);
    assert_eq!(dials(&effects), [("z@h".into(), 1, 1)]);
    assert_eq!(host.after(60_000), []);
    let effects = host.established("z@h", 5, 10, Origin::Dialled(1));
    assert_eq!(effects, [admit("z@h", 10)]);
    assert_eq!(host.up("z@h", 10), []);
    assert_eq!(host.state.deadline(), None);
    assert_eq!(host.after(60_000), []);
    // A session that lasted is dialled again at once.
    assert_eq!(dials(&host.down("z@h", 10)).len(), 1);
}

#[test]
fn pauses_double_up_to_the_longest_and_success_resets_them() {
    let mut host = host();
    host.want(&[spec("z@h", &[1])]);
    let mut dial = 1;
    for expected in [1, 2, 4, 8, 16, 30, 30, 30] {
        let unreachable = Effect::Unreachable { name: name("z@h") };
        assert_eq!(host.fail("z@h", dial), [unreachable]);
        let (pause, effects) = host.sleep();
        let expected = Duration::from_secs(expected);
        assert!(
            pause >= expected && pause <= expected + Duration::from_secs(1),
            "{pause:?}"
        );
        dial = dials(&effects)[0].1;
    }
    // The user asks, or the node has another address.
    host.fail("z@h", dial);
    assert_eq!(dials(&host.on(Event::Hurry(name("z@h")))).len(), 1);
    host.fail("z@h", dial + 1);
    assert_eq!(host.want(&[spec("z@h", &[1])]), []);
    assert_eq!(dials(&host.want(&[spec("z@h", &[2])])).len(), 1);
    host.established("z@h", 5, 10, Origin::Dialled(dial + 2));
    host.up("z@h", 10);
    // A session that did not last counts as one failure.
    assert_eq!(host.down("z@h", 10), []);
    assert!(host.sleep().0 <= Duration::from_secs(2));
}

#[test]
fn addresses_are_cycled_without_a_pause() {
    let mut host = host();
    let effects = host.want(&[spec("z@h", &[1, 2, 3])]);
    assert_eq!(dials(&effects)[0].2, 1);
    assert_eq!(dials(&host.fail("z@h", 1))[0].2, 2);
    assert_eq!(dials(&host.fail("z@h", 2))[0].2, 3);
    let unreachable = Effect::Unreachable { name: name("z@h") };
    assert_eq!(host.fail("z@h", 3), std::slice::from_ref(&unreachable));
    assert_eq!(dials(&host.sleep().1)[0].2, 1);
    // The node itself said no: its other addresses would say the same.
    let (name, error) = (name("z@h"), DialError::Rejected);
    let effects = host.on(Event::DialFailed {
        name,
        dial: 4,
        error,
    });
    assert_eq!(effects, [unreachable]);
}

#[test]
fn a_dial_to_an_address_that_is_no_longer_the_nodes_is_given_up() {
    let mut host = host();
    host.want(&[spec("z@h", &[1])]);
    assert_eq!(host.want(&[spec("z@h", &[2, 1])]), []);
    let effects = host.want(&[spec("z@h", &[3])]);
    assert_eq!(effects[0], cancel("z@h", 1));
    assert_eq!(dials(&effects), [("z@h".into(), 2, 3)]);
    // What the cancelled dial still says is not taken for the other's.
    assert_eq!(host.fail("z@h", 1), []);
    assert_eq!(
        killed(&host.established("z@h", 5, 10, Origin::Dialled(1))),
        [10]
    );
    assert_eq!(host.want(&[]), [cancel("z@h", 2)]);
    assert_eq!(host.state.deadline(), None);
    assert!(host.state.peers.is_empty());
}

#[test]
fn dead_nodes_leave_room_for_others() {
    let mut host = host();
    let mut specs: Vec<NodeSpec> = (0..60).map(|n| spec(&format!("d{n}@h"), &[1])).collect();
    let mut open: Vec<_> = dials(&host.want(&specs));
    assert_eq!(open.len(), 32);
    // All fail and are tried again; each end of a dial lets another begin.
    for _ in 0..28 {
        let (n, dial, _) = open.remove(0);
        open.extend(dials(&host.fail(&n, dial)));
    }
    assert_eq!(open.len(), 32);
    for (n, dial, _) in std::mem::take(&mut open) {
        open.extend(dials(&host.fail(&n, dial)));
    }
    for _ in 0..100 {
        open.extend(dials(&host.after(1000)));
    }
    assert_eq!(open.len(), 24);
    for n in 0..20 {
        specs.push(spec(&format!("live{n}@h"), &[1]));
    }
    let effects = host.want(&specs);
    assert_eq!(dials(&effects).len(), 8);
    assert!(dials(&effects).iter().all(|(n, ..)| n.starts_with("live")));
}

#[test]
fn of_two_simultaneous_dials_the_greater_names_wins() {
    let mut host = host();
    host.want(&[spec("a@h", &[1]), spec("z@h", &[1])]);
    assert_eq!(host.incoming(1, "a@h", 5), [verdict(1, Verdict::Nok)]);
    let simultaneous = true;
    let effects = host.incoming(2, "z@h", 5);
    assert_eq!(effects, [verdict(2, Verdict::Accept { simultaneous })]);
    let effects = host.established("z@h", 5, 10, Origin::Accepted(2));
    assert_eq!(effects, [cancel("z@h", 2), admit("z@h", 10)]);
}

#[test]
fn after_a_nok_the_peers_connection_is_awaited() {
    let mut host = host();
    host.want(&[spec("z@h", &[1])]);
    assert_eq!(
        host.on(Event::DialNok {
            name: name("z@h"),
            dial: 1
        }),
        []
    );
    assert_eq!(host.incoming(1, "z@h", 5), [accept(1)]);
    // While its handshake runs, there is no dial; should it fail, there is.
    assert_eq!(host.after(4_000), []);
    let (attempt, name) = (1, name("z@h"));
    assert_eq!(
        dials(&host.on(Event::AttemptGone { attempt, name })).len(),
        1
    );
}

#[test]
fn attempts_that_come_to_nothing_do_not_keep_a_node_from_dialling() {
    let mut host = host();
    host.want(&[spec("z@h", &[1])]);
    host.fail("z@h", 1);
    let start = host.now;
    for attempt in 0.. {
        let effects = host.incoming(attempt, "z@h", attempt);
        assert_eq!(effects, [accept(attempt)]);
        if !dials(&host.after(500)).is_empty() {
            break;
        }
    }
    assert!(host.now - start <= Duration::from_secs(6));
    // Nor does a stranger end a dial that is under way.
    let simultaneous = true;
    let effects = host.incoming(77, "z@h", 9);
    assert_eq!(effects, [verdict(77, Verdict::Accept { simultaneous })]);
}

#[test]
fn the_same_instance_replaces_its_session_when_the_old_one_is_down() {
    let mut host = host();
    host.want(&[spec("a@h", &[1])]);
    host.on(Event::DialNok {
        name: name("a@h"),
        dial: 1,
    });
    host.session("a@h", 5, 10);
    assert_eq!(host.incoming(2, "a@h", 5), [accept(2)]);
    // Not authenticated, so the old session lives on.
    let (attempt, n) = (2, name("a@h"));
    assert_eq!(host.on(Event::AttemptGone { attempt, name: n }), []);
    assert_eq!(host.incoming(3, "a@h", 5), [accept(3)]);
    let effects = host.established("a@h", 5, 11, Origin::Accepted(3));
    assert_eq!(killed(&effects), [10]);
    assert_eq!(effects.len(), 1);
    // Once more, before the old one is down.
    assert_eq!(host.incoming(4, "a@h", 5), [accept(4)]);
    let effects = host.established("a@h", 5, 12, Origin::Accepted(4));
    assert_eq!(killed(&effects), [11]);
    assert_eq!(host.down("a@h", 11), []);
    assert_eq!(host.down("a@h", 10), [admit("a@h", 12)]);
    assert_eq!(host.up("a@h", 12), []);
}

#[test]
fn another_instance_is_refused_while_the_old_one_answers() {
    let mut host = host();
    host.session("a@h", 5, 10);
    assert_eq!(host.incoming(2, "a@h", 6), [ping("a@h", 10)]);
    assert_eq!(host.incoming(3, "a@h", 7), []);
    assert_eq!(host.after(1_900), []);
    assert_eq!(host.pong("a@h", 10), [duplicate(2), duplicate(3)]);
    assert_eq!(host.after(5_000), []);
}

#[test]
fn another_instance_replaces_a_silent_one() {
    let mut host = host();
    host.session("a@h", 5, 10);
    assert_eq!(host.incoming(2, "a@h", 6), [ping("a@h", 10)]);
    assert_eq!(host.incoming(3, "a@h", 6), []);
    let (pause, effects) = host.sleep();
    assert_eq!(pause, Duration::from_secs(2));
    assert_eq!(effects, [accept(3), duplicate(2)]);
    let effects = host.established("a@h", 6, 11, Origin::Accepted(3));
    assert_eq!(killed(&effects), [10]);
    assert_eq!(host.down("a@h", 10), [admit("a@h", 11)]);
}

#[test]
fn a_late_sign_of_life_still_saves_the_old_session() {
    let mut host = host();
    host.session("a@h", 5, 10);
    host.incoming(2, "a@h", 6);
    host.sleep();
    assert_eq!(host.pong("a@h", 10), []);
    let effects = host.established("a@h", 6, 11, Origin::Accepted(2));
    assert_eq!(killed(&effects), [11]);
}

#[test]
fn the_end_of_the_old_session_lets_the_newcomer_in() {
    let mut host = host();
    host.session("a@h", 5, 10);
    host.incoming(2, "a@h", 6);
    assert_eq!(host.down("a@h", 10), [accept(2)]);
    let effects = host.established("a@h", 6, 11, Origin::Accepted(2));
    assert_eq!(effects, [admit("a@h", 11)]);
    // A session that is not yet up can't be asked.
    assert_eq!(host.incoming(3, "a@h", 7), [duplicate(3)]);
}

#[test]
fn a_node_does_not_connect_to_itself_or_its_double() {
    let mut host = host();
    let to_self = |attempt| verdict(attempt, Verdict::NotAllowed(TO_SELF));
    assert_eq!(host.incoming(1, "m@h", OWN), [to_self(1)]);
    assert_eq!(host.incoming(2, "a@h", OWN), [to_self(2)]);
    assert_eq!(host.incoming(3, "m@h", 5), [duplicate(3)]);
    host.want(&[spec("a@h", &[1])]);
    assert_eq!(
        killed(&host.established("a@h", OWN, 10, Origin::Dialled(1))),
        [10]
    );
}

#[test]
fn extra_connections_need_their_session() {
    let mut host = host();
    let refused = |attempt| verdict(attempt, Verdict::NotAllowed("no such session"));
    assert_eq!(host.extra(1, "a@h", 5), [refused(1)]);
    host.session("a@h", 5, 10);
    assert_eq!(host.extra(2, "a@h", 5), [accept(2)]);
    assert_eq!(host.extra(3, "a@h", 6), [refused(3)]);
}

#[test]
fn strangers_are_closed_after_a_while() {
    let mut host = host();
    host.session("a@h", 5, 10);
    host.session("z@h", 6, 11);
    assert_eq!(host.after(9_000), []);
    // It has become a member.
    host.want(&[spec("a@h", &[1])]);
    let (pause, effects) = host.sleep();
    assert_eq!(pause, Duration::from_secs(1));
    assert!(
        matches!(&effects[..], [Effect::Close { session: 11, .. }]),
        "{effects:?}"
    );
    assert_eq!(host.state.deadline(), None);
    // And is one no longer.
    assert_eq!(host.want(&[]), []);
    let (pause, effects) = host.sleep();
    assert_eq!(pause, Duration::from_secs(10));
    assert!(
        matches!(&effects[..], [Effect::Close { session: 10, .. }]),
        "{effects:?}"
    );
    host.down("a@h", 10);
    host.down("z@h", 11);
    assert!(host.state.peers.is_empty());
}

/// A step whose numbers pick among what is going on.
fn step() -> impl Strategy<Value = (u8, usize, u64, u64)> {
    (0u8..14, 0usize..5, 0u64..4, 0u64..3_000)
}

/// What a host knows, kept from the effects alone.
#[derive(Default)]
struct Model {
    dials: BTreeMap<Arc<str>, u64>,
    unanswered: BTreeSet<u64>,
    attempts: Vec<(u64, Arc<str>, u64)>,
    /// Name and instance of sessions, and whether they were admitted.
    sessions: BTreeMap<u64, (Arc<str>, u64, bool)>,
}

impl Model {
    fn follow(&mut self, effects: Vec<Effect>) -> Result<(), TestCaseError> {
        for effect in effects {
            match effect {
                Effect::Dial { dial, spec, .. } => {
                    let other = self.dials.insert(spec.name.clone(), dial);
                    prop_assert_eq!(other, None, "two dials to {}", spec.name);
                    prop_assert!(self.dials.len() <= 3);
                    let linked = self
                        .sessions
                        .values()
                        .any(|(n, _, a)| *a && *n == spec.name);
                    prop_assert!(!linked, "dial to a linked node");
                }
                Effect::CancelDial { name, dial } => {
                    prop_assert_eq!(self.dials.remove(&name), Some(dial));
                }
                Effect::Verdict { attempt, verdict } => {
                    prop_assert!(self.unanswered.remove(&attempt), "second verdict");
                    if !matches!(verdict, Verdict::Accept { .. }) {
                        self.attempts.retain(|(a, ..)| *a != attempt);
                    }
                }
                Effect::Admit { name, session } => {
                    let others = self.sessions.values().filter(|(n, _, a)| *a && *n == name);
                    prop_assert_eq!(others.count(), 0, "two sessions with {}", name);
                    self.sessions.get_mut(&session).unwrap().2 = true;
                }
                Effect::Ping { session, .. }
                | Effect::Kill { session, .. }
                | Effect::Close { session, .. } => {
                    prop_assert!(self.sessions.contains_key(&session));
                }
                Effect::Unreachable { name } => {
                    prop_assert!(!self.dials.contains_key(&name), "{name} is being dialled");
                }
            }
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn any_sequence_keeps_the_promises(steps in prop::collection::vec(step(), 1..200)) {
        let names = ["a@h", "b@h", "m@h", "y@h", "z@h"].map(name);
        let mut host = host();
        host.state.config.max_dials = 3;
        let mut model = Model::default();
        let mut fresh = 0;
        for (what, n, k, millis) in steps {
            fresh += 1;
            let n = names[n].clone();
            let pick = k as usize;
            let event = match what {
                0 => {
                    let ports = &[1, 2, 3][..pick.min(3)];
                    let chosen = names.iter().skip(pick).map(|n| spec(n, ports));
                    Event::Wanted(chosen.collect())
                }
                1 => Event::Hurry(n),
                2..=4 => {
                    model.unanswered.insert(fresh);
                    model.attempts.push((fresh, n.clone(), k));
                    let (attempt, extra) = (fresh, what == 4 && k == 0);
                    Event::Incoming { attempt, name: n, instance: k, extra }
                }
                5 if !model.attempts.is_empty() => {
                    let at = pick % model.attempts.len();
                    let (attempt, name, _) = model.attempts.swap_remove(at);
                    model.unanswered.remove(&attempt);
                    Event::AttemptGone { attempt, name }
                }
                6 | 7 if model.dials.contains_key(&n) => {
                    let dial = model.dials.remove(&n).unwrap();
                    match k {
                        0 => Event::DialNok { name: n, dial },
                        1 => Event::DialFailed { name: n, dial, error: DialError::Rejected },
                        _ => Event::DialFailed { name: n, dial, error: DialError::Unreachable },
                    }
                }
                8 if model.dials.contains_key(&n) => {
                    let origin = Origin::Dialled(model.dials.remove(&n).unwrap());
                    model.sessions.insert(fresh, (n.clone(), k, false));
                    Event::Established { name: n, instance: k, session: fresh, origin }
                }
                9 if !model.attempts.is_empty() => {
                    let at = pick % model.attempts.len();
                    let (attempt, n, k) = model.attempts[at].clone();
                    if model.unanswered.contains(&attempt) {
                        continue;
                    }
                    model.attempts.swap_remove(at);
                    let origin = Origin::Accepted(attempt);
                    model.sessions.insert(fresh, (n.clone(), k, false));
                    Event::Established { name: n, instance: k, session: fresh, origin }
                }
                10..=12 if !model.sessions.is_empty() => {
                    let at = (k as usize * 7) % model.sessions.len();
                    let (session, (name, ..)) = model.sessions.iter().nth(at).unwrap();
                    let (session, name) = (*session, name.clone());
                    match what {
                        10 => Event::Up { name, session },
                        11 => Event::Pong { name, session },
                        _ => {
                            model.sessions.remove(&session);
                            Event::Down { name, session }
                        }
                    }
                }
                _ => {
                    host.now += Duration::from_millis(millis);
                    Event::Tick
                }
            };
            model.follow(host.on(event))?;
            let deadline = host.state.deadline();
            prop_assert!(deadline.is_none_or(|d| d > host.now), "a deadline that has passed");
        }
        model.follow(host.after(5_000))?;
        prop_assert!(model.unanswered.is_empty(), "no verdict");
    }
}
