//! What happens to the nodes of a scenario: joins, then phases with crashes, churn, partitions and
//! broadcasts, each at its time.

use std::collections::{BTreeMap, BTreeSet};

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::figures::{self, Before, Figures};
use super::graph::Graph;
use super::invariants::{Invariant, Violation};
use super::latency::{below, chance, nanos, unit};
use super::network::Partition;
use super::scenario::{self, Broadcasts, Churn, Crash, Partitions, Phase, Scenario};
use super::world::{Options, Protocols, SECOND, World};

/// What was under way may arrive within this time, in nanoseconds.
const PAUSE: u64 = 5 * SECOND;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Action {
    Fail {
        silent: bool,
        persisted: bool,
        spare_roots: bool,
        down: u64,
    },
    Restart {
        node: u32,
        persisted: bool,
    },
    Divide {
        until: u64,
        one_way: bool,
        percent: u32,
    },
    Cast {
        /// Whose turn it is; none: any node's.
        turn: Option<usize>,
        bytes: u32,
    },
    /// A message, or once more if it has not arrived.
    Post(usize),
    /// Look whether all are in one component.
    Look,
}

/// Gets the graph of each phase that measures it, with the numbers of its nodes.
pub(crate) type Dump<'a> = &'a mut dyn FnMut(&Phase, &Graph, &[u32], &Figures);

/// What came of one phase with one seed.
#[derive(Clone, Debug)]
pub(crate) struct PhaseResult {
    pub(crate) figures: Figures,
    /// How many nodes have 0, 1, 2… neighbours, if the graph was measured.
    pub(crate) degrees: Vec<usize>,
}

/// A scenario's world on its way, which can be cloned to go on in several ways.
#[derive(Clone)]
struct Course<P: Protocols> {
    world: World<P>,
    rng: SmallRng,
    /// What is to happen, by time and order of entry.
    agenda: BTreeMap<(u64, u64), Action>,
    entries: u64,
    roots: Vec<u32>,
    healed: Option<u64>,
}

/// What came of one seed.
#[derive(Clone, Debug)]
pub(crate) struct SeedResult {
    pub(crate) seed: u64,
    pub(crate) digest: u64,
    pub(crate) events: u64,
    pub(crate) node_hours: f64,
    pub(crate) phases: Vec<PhaseResult>,
    pub(crate) violations: Vec<Violation>,
    pub(crate) violation_count: u64,
}

/// Runs a scenario with one seed.
pub(crate) fn run<P: Protocols>(
    scenario: &Scenario,
    protocols: P,
    seed: u64,
    dump: Dump<'_>,
) -> SeedResult {
    let options = Options {
        through_bytes: scenario.through_bytes,
        check: scenario.check,
    };
    let network = scenario.network.clone();
    let mut course = Course {
        world: World::new(protocols, scenario.nodes, network, options, seed),
        rng: SmallRng::seed_from_u64(seed ^ 0x776f_726b),
        agenda: BTreeMap::new(),
        entries: 0,
        roots: Vec::new(),
        healed: None,
    };
    let mut result = SeedResult {
        seed,
        digest: 0,
        events: 0,
        node_hours: 0.0,
        phases: Vec::new(),
        violations: Vec::new(),
        violation_count: 0,
    };
    course.join(&scenario.join);
    let mut kept: BTreeMap<&str, Course<P>> = BTreeMap::new();
    let last_use = |name: &str| {
        let uses = |phase: &Phase| phase.from.as_deref() == Some(name);
        scenario.phase.iter().rposition(uses)
    };
    // What has been counted of the course that goes on.
    let (mut events, mut counted) = (0, 0);
    for (number, phase) in scenario.phase.iter().enumerate() {
        if let Some(from) = phase.from.as_deref() {
            let start = match last_use(from) == Some(number) {
                true => kept.remove(from),
                false => kept.get(from).cloned(),
            };
            if let Some(start) = start {
                course = start;
                events = course.world.net.counts.jobs;
                counted = course.world.violations.count;
                course.world.violations.first.clear();
            }
        }
        let begun = course.world.now();
        let phase_result = course.phase(phase, scenario, dump);
        result.phases.push(phase_result);
        let world = &mut course.world;
        result.events +=
            world.net.counts.jobs - std::mem::replace(&mut events, world.net.counts.jobs);
        result.violation_count +=
            world.violations.count - std::mem::replace(&mut counted, world.violations.count);
        result.violations.append(&mut world.violations.first);
        result.digest = result.digest.rotate_left(5) ^ world.digest();
        let hours = (world.now() - begun) as f64 / (3600 * SECOND) as f64;
        result.node_hours += hours * world.live().len() as f64;
        if let Some(name) = phase.keep.as_deref()
            && last_use(name).is_some_and(|at| at > number)
        {
            kept.insert(name, course.clone());
        }
    }
    result
}

impl<P: Protocols> Course<P> {
    fn join(&mut self, join: &scenario::Join) {
        let gap = nanos(1.0 / join.per_second);
        for node in 0..self.world.nodes.len() as u32 {
            self.world.run(u64::from(node) * gap);
            self.world.start(node, false);
            if node > 0 {
                let contact = match chance(&mut self.rng, join.through_one) {
                    true => 0,
                    false => below(&mut self.rng, node as usize) as u32,
                };
                self.world.join(node, contact);
            }
        }
    }

    fn phase(&mut self, phase: &Phase, scenario: &Scenario, dump: Dump<'_>) -> PhaseResult {
        let before = Before::new(&self.world);
        let length = nanos(phase.length(scenario.cycle));
        let end = before.at + length;
        self.healed = None;
        if let Some(crash) = &phase.crash {
            self.crash(crash);
            for second in 1..=length / SECOND {
                self.plan(before.at + second * SECOND, Action::Look);
            }
        }
        if let Some(churn) = &phase.churn {
            self.churn(churn, length);
        }
        if let Some(partitions) = &phase.partitions {
            self.partitions(partitions, length);
        }
        if let Some(broadcasts) = &phase.broadcasts {
            self.broadcasts(broadcasts);
        }
        if let Some(unicast) = &phase.unicast {
            self.unicast(unicast);
        }
        while let Some(entry) = self.agenda.first_entry() {
            let (at, _) = *entry.key();
            if at > end {
                break;
            }
            let action = entry.remove();
            self.world.run(at.max(self.world.now()));
            self.act(action, before.at);
        }
        self.world.run(end);

        let mut figures = figures::of_phase(&self.world, &before, scenario.cycle);
        self.world.of_posts(&mut figures, before.posts);
        if phase.crash.is_some() {
            let seconds = self.healed.map_or(-1.0, |at| (at - before.at) as f64 / 1e9);
            let cycles = (seconds / scenario.cycle).max(-1.0);
            figures.insert("heal_seconds", seconds);
            figures.insert("heal_cycles", cycles);
        }
        let mut degrees = Vec::new();
        if phase.graph {
            let graph = figures::graph(&self.world);
            let sources = self.sources(scenario.path_sources, graph.vertices());
            let degree = self.world.protocols.degree();
            figures::of_graph(&mut figures, &graph, degree, &sources);
            degrees = graph.degrees();
            dump(phase, &graph, &self.world.live(), &figures);
        }
        if phase.quiet {
            self.quiet(phase, &before);
            let broken = self.world.violations.count;
            figures.insert(
                "violations",
                broken.saturating_sub(before.violations) as f64,
            );
        }
        PhaseResult { figures, degrees }
    }

    fn sources(&mut self, limit: usize, vertices: usize) -> Vec<u32> {
        let mut all: Vec<u32> = (0..vertices as u32).collect();
        if limit > 0 && limit < vertices {
            for place in 0..limit {
                let other = place + below(&mut self.rng, vertices - place);
                all.swap(place, other);
            }
            all.truncate(limit);
        }
        all
    }

    // What holds when nothing is under way.
    fn quiet(&mut self, phase: &Phase, before: &Before) {
        self.world.check_all(PAUSE);
        let sizes = figures::graph(&self.world).components();
        if sizes.len() > 1 {
            self.world.violated(Invariant::OneComponent, 0, || {
                format!("components of {:?} nodes", &sizes[..sizes.len().min(10)])
            });
        }
        if !phase.is_calm() {
            return;
        }
        let live = self.world.live();
        for number in before.casts..self.world.casts.len() {
            let cast = &self.world.casts[number];
            let (root, begun) = (cast.root, cast.begun);
            let missed = |node: &&u32| {
                self.world.nodes[**node as usize].since <= begun && !cast.has_reached(**node)
            };
            if let Some(node) = live.iter().find(missed).copied() {
                let missing = live.iter().filter(missed).count();
                self.world.violated(Invariant::DeliveredToAll, node, || {
                    format!("broadcast {number} of n{root} has not reached {missing} nodes")
                });
            }
        }
    }

    fn plan(&mut self, at: u64, action: Action) {
        self.entries += 1;
        self.agenda.insert((at, self.entries), action);
    }

    fn crash(&mut self, crash: &Crash) {
        let mut live = self.world.live();
        let count = (live.len() as f64 * crash.fraction).round() as usize;
        if crash.first > 0 {
            for node in live.into_iter().take(crash.first) {
                self.world.crash(node, crash.silent);
            }
            return;
        }
        for place in 0..count.min(live.len() - 1) {
            let other = place + below(&mut self.rng, live.len() - place);
            live.swap(place, other);
            self.world.crash(live[place], crash.silent);
        }
    }

    fn churn(&mut self, churn: &Churn, length: u64) {
        let length = length as f64 * churn.until;
        let count = self.world.nodes.len() as f64 * churn.per_second * length / SECOND as f64;
        let begun = self.world.now();
        for _ in 0..count as usize {
            let at = begun + (unit(&mut self.rng) * length) as u64;
            let (least, most) = churn.down;
            let action = Action::Fail {
                silent: chance(&mut self.rng, churn.silent),
                persisted: chance(&mut self.rng, churn.persisted),
                spare_roots: churn.spare_roots,
                down: nanos(least + (most - least) * unit(&mut self.rng)),
            };
            self.plan(at, action);
        }
    }

    fn partitions(&mut self, partitions: &Partitions, length: u64) {
        let begun = self.world.now();
        for _ in 0..partitions.count {
            let (least, most) = partitions.length;
            let takes = nanos(least + (most - least) * unit(&mut self.rng));
            let room = (length as f64 * partitions.until - takes as f64).max(0.0);
            let at = begun + (unit(&mut self.rng) * room) as u64;
            let percent = (100.0 * partitions.fraction * unit(&mut self.rng)) as u32;
            let action = Action::Divide {
                until: at + takes,
                one_way: chance(&mut self.rng, partitions.one_way),
                percent: percent.max(1),
            };
            self.plan(at, action);
        }
    }

    fn broadcasts(&mut self, broadcasts: &Broadcasts) {
        let begun = self.world.now() + nanos(broadcasts.after);
        let gap = broadcasts.over / broadcasts.count.saturating_sub(1).max(1) as f64;
        if broadcasts.from == scenario::From::Roots {
            self.take_roots(broadcasts.roots);
        }
        for number in 0..broadcasts.count {
            let turn = match broadcasts.from {
                scenario::From::Random => None,
                scenario::From::Roots => Some(number % broadcasts.roots),
            };
            let bytes = broadcasts.bytes as u32;
            let at = begun + nanos(gap * number as f64);
            self.plan(at, Action::Cast { turn, bytes });
        }
    }

    fn unicast(&mut self, unicast: &scenario::Unicast) {
        self.world.start_routers();
        let live = self.world.live();
        let begun = self.world.now();
        let gap = unicast.over / unicast.messages.max(1) as f64;
        for _ in 0..unicast.pairs {
            let from = live[below(&mut self.rng, live.len())];
            let to = live[below(&mut self.rng, live.len())];
            if from == to {
                continue;
            }
            let offset = gap * unit(&mut self.rng);
            for number in 0..unicast.messages {
                let post = self.world.posted(from, to, number > 0, unicast.bytes);
                let at = begun + nanos(offset + gap * number as f64);
                self.plan(at, Action::Post(post));
            }
        }
    }

    // Roots stay the same from phase to phase as long as they live.
    fn take_roots(&mut self, count: usize) {
        self.roots.retain(|root| self.world.is_up(*root));
        let live = self.world.live();
        let mut taken: BTreeSet<u32> = self.roots.iter().copied().collect();
        while self.roots.len() < count.min(live.len()) {
            let node = live[below(&mut self.rng, live.len())];
            if taken.insert(node) {
                self.roots.push(node);
            }
        }
    }

    // Whose turn it is; somebody else takes the place of a root that has stopped.
    fn root(&mut self, turn: usize) -> Option<u32> {
        let place = turn % self.roots.len().max(1);
        let root = *self.roots.get(place)?;
        if !self.world.is_up(root) {
            self.roots[place] = self.any_live()?;
        }
        Some(self.roots[place])
    }

    fn any_live(&mut self) -> Option<u32> {
        let live = self.world.live();
        match live.len() {
            0 => None,
            count => Some(live[below(&mut self.rng, count)]),
        }
    }

    fn act(&mut self, action: Action, begun: u64) {
        match action {
            Action::Fail {
                silent,
                persisted,
                spare_roots,
                down,
            } => {
                let mut live = self.world.live();
                if spare_roots {
                    live.retain(|node| !self.roots.contains(node));
                }
                if live.len() > 2 {
                    let node = live[below(&mut self.rng, live.len())];
                    self.world.crash(node, silent);
                    let at = self.world.now() + down;
                    self.plan(at, Action::Restart { node, persisted });
                }
            }
            Action::Restart { node, persisted } => {
                let contact = self.any_live();
                self.world.start(node, persisted);
                if let Some(contact) = contact.filter(|contact| *contact != node) {
                    self.world.join(node, contact);
                }
            }
            Action::Divide {
                until,
                one_way,
                percent,
            } => {
                let part = f64::from(percent) / 100.0;
                let count = self.world.nodes.len();
                let side = (0..count).map(|_| chance(&mut self.rng, part)).collect();
                self.world.divide(Partition {
                    until,
                    side,
                    one_way,
                });
            }
            Action::Cast { turn, bytes } => {
                let root = match turn {
                    None => self.any_live(),
                    Some(turn) => self.root(turn),
                };
                if let Some(root) = root {
                    self.world.cast(root, bytes as usize);
                }
            }
            Action::Post(post) => {
                if let Some(after) = self.world.post(post) {
                    let at = self.world.now() + after;
                    self.plan(at, Action::Post(post));
                }
            }
            Action::Look => {
                if self.healed.is_none() && figures::graph(&self.world).components().len() == 1 {
                    self.healed = Some(self.world.now().max(begun));
                }
            }
        }
    }
}
