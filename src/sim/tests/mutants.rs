//! Protocol bugs, put between the real protocols and the simulator: each must break the invariant that
//! is there for it, and every invariant has one.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;

use super::super::invariants::Invariant;
use super::super::peer::{PEER_BYTES, SimPeer};
use super::super::protocols::{Broadcasts, Floods, HyParViews, Overlays, Pair, Plumtrees, Scamps};
use super::super::scenario::Scenario;
use super::super::workload::{self, SeedResult};
use crate::broadcast::{self, Broadcast};
use crate::overlay::codec::DecodeError;
use crate::overlay::hyparview::{self, XBotConfig};
use crate::overlay::{Effect, Effects, Error, Event, Overlay};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    /// Does not say that a neighbour is gone.
    ForgetsDown,
    /// Announces each neighbour twice.
    AnnouncesTwice,
    /// Hears nothing of links that end.
    DeafToLinkDown,
    /// Keeps the links that it needs for one message only.
    KeepsTemporary,
    /// Drops a neighbour without closing the link.
    DropsOnOneSide,
    /// Takes in more neighbours than configured.
    Greedy,
    /// Does not put its deadline off.
    StuckDeadline,
    /// One node wants a tick every 0.2 ms.
    Restless,
    /// Is its own neighbour.
    Narcissus,
    /// One node never joins.
    Hermit,
    /// Persists all that it has ever seen.
    FatFile,
    /// Forgets one of its members.
    ForgetsMember,
    /// Never forgets a peer.
    Hoarder,
    /// Refuses some good messages.
    Picky,
    /// Delivers twice.
    Stutters,
    /// Changes the payload.
    Garbles,
    /// One node drops what it should deliver.
    Drops,
    /// Goes on to send to those that are gone.
    Clingy,
    /// Says everything ten thousands of times.
    Loud,
}

#[derive(Clone)]
struct Buggy<T> {
    inner: T,
    bug: Bug,
    me: SimPeer,
    now: Duration,
    first: Option<Duration>,
    count: usize,
    neighbors: BTreeSet<SimPeer>,
}

impl<T> Buggy<T> {
    fn new(inner: T, bug: Bug, me: SimPeer) -> Self {
        Self {
            inner,
            bug,
            me,
            now: Duration::ZERO,
            first: None,
            count: 0,
            neighbors: BTreeSet::new(),
        }
    }
}

impl<O: Overlay<Peer = SimPeer>> Buggy<O> {
    // What becomes of an effect.
    fn change(
        &mut self,
        effect: Effect<SimPeer, O::Message>,
        effects: &mut Vec<Effect<SimPeer, O::Message>>,
    ) {
        match (self.bug, &effect) {
            (Bug::ForgetsDown, Effect::NeighborDown(_)) => return,
            (Bug::AnnouncesTwice, Effect::NeighborUp(_)) => effects.push(effect.clone()),
            (Bug::KeepsTemporary, Effect::Release(peer)) if !self.neighbors.contains(peer) => {
                return;
            }
            (Bug::DropsOnOneSide, Effect::NeighborDown(peer)) => {
                self.first = Some(self.now);
                self.count = peer.0 as usize;
            }
            (Bug::DropsOnOneSide, Effect::Release(peer))
                if self.first == Some(self.now) && self.count == peer.0 as usize =>
            {
                return;
            }
            (Bug::FatFile, Effect::Persist(bytes)) => {
                let mut bytes = bytes.clone();
                bytes.resize(100_000, 0);
                effects.push(Effect::Persist(bytes));
                return;
            }
            _ => {}
        }
        match &effect {
            Effect::NeighborUp(peer) => {
                self.neighbors.insert(*peer);
            }
            Effect::Release(peer) => {
                self.neighbors.remove(peer);
            }
            _ => {}
        }
        effects.push(effect);
    }
}

impl<O: Overlay<Peer = SimPeer>> Overlay for Buggy<O> {
    type Peer = SimPeer;
    type Message = O::Message;

    fn handle(
        &mut self,
        now: Duration,
        event: Event<SimPeer, O::Message>,
        rng: &mut dyn Rng,
        effects: &mut Effects<Self>,
    ) -> Result<(), Error> {
        self.now = now;
        match (self.bug, &event) {
            (Bug::DeafToLinkDown, Event::LinkDown(..)) => return Ok(()),
            (Bug::Hermit, Event::Join(_)) if self.me.0 == 7 => return Ok(()),
            (Bug::Narcissus, Event::Join(_)) => effects.push(Effect::NeighborUp(self.me)),
            (Bug::Picky, Event::Message { .. }) => {
                self.count += 1;
                if self.count.is_multiple_of(50) {
                    return Err(Error::Message(DecodeError::Bad("mood")));
                }
            }
            (Bug::Hoarder, Event::Message { .. }) => self.count += 1,
            (Bug::StuckDeadline, Event::Tick) if self.first.is_none() => {
                self.first = self.inner.deadline();
            }
            _ => {}
        }
        let mut inner = Vec::new();
        let done = self.inner.handle(now, event, rng, &mut inner);
        for effect in inner {
            self.change(effect, effects);
        }
        done
    }

    fn deadline(&self) -> Option<Duration> {
        let next = self.inner.deadline();
        match self.bug {
            Bug::StuckDeadline if self.me.0 == 7 => self.first.or(next),
            Bug::Restless if self.me.0 == 7 => Some(self.now + Duration::from_micros(200)),
            _ => next,
        }
    }

    fn members(&self) -> Vec<SimPeer> {
        let mut members = self.inner.members();
        if self.bug == Bug::ForgetsMember {
            members.pop();
        }
        members
    }
}

impl<B: Broadcast<Peer = SimPeer>> Broadcast for Buggy<B> {
    type Peer = SimPeer;
    type Message = B::Message;

    fn handle(
        &mut self,
        now: Duration,
        event: broadcast::Event<SimPeer, B::Message>,
        rng: &mut dyn Rng,
        effects: &mut broadcast::Effects<Self>,
    ) -> Result<(), broadcast::Error> {
        use broadcast::{Effect, Event};
        let is_message = matches!(event, Event::Message { .. });
        match (self.bug, &event) {
            (Bug::Drops, Event::Message { .. }) if self.me.0 == 11 => return Ok(()),
            (Bug::Clingy, Event::NeighborDown(_)) => return Ok(()),
            _ => {}
        }
        let mut inner = Vec::new();
        let done = self.inner.handle(now, event, rng, &mut inner);
        for mut effect in inner {
            match (self.bug, &mut effect) {
                (Bug::Stutters, Effect::Deliver { .. }) => effects.push(effect.clone()),
                (Bug::Garbles, Effect::Deliver { payload, .. }) if self.me.0 == 11 => {
                    let mut bytes = payload.to_vec();
                    bytes[9] ^= 1;
                    *payload = Bytes::from(bytes);
                }
                (Bug::Loud, Effect::Send { .. }) if !is_message => {
                    effects.extend(std::iter::repeat_n(effect.clone(), 50_000));
                }
                _ => {}
            }
            effects.push(effect);
        }
        done
    }

    fn deadline(&self) -> Option<Duration> {
        self.inner.deadline()
    }

    fn carries_payload(message: &B::Message) -> bool {
        B::carries_payload(message)
    }
}

#[derive(Clone)]
struct Bugs<T>(T, Bug);

impl<A: Overlays> Overlays for Bugs<A> {
    type Overlay = Buggy<A::Overlay>;

    fn make(&self, node: SimPeer, now: Duration, life: u64) -> Self::Overlay {
        Buggy::new(self.0.make(node, now, life), self.1, node)
    }

    fn max_neighbors(&self) -> usize {
        match self.1 {
            Bug::Greedy => hyparview::Config::default().active,
            _ => self.0.max_neighbors(),
        }
    }

    fn view_names(&self, overlay: &Self::Overlay) -> Option<usize> {
        self.0.view_names(&overlay.inner)
    }

    fn degree(&self) -> usize {
        self.0.degree()
    }

    fn table_bytes(&self, overlay: &Self::Overlay) -> usize {
        let hoard = match self.1 {
            Bug::Hoarder => overlay.count * PEER_BYTES,
            _ => 0,
        };
        self.0.table_bytes(&overlay.inner) + hoard
    }
}

impl<B: Broadcasts> Broadcasts for Bugs<B> {
    type Broadcast = Buggy<B::Broadcast>;

    fn make(&self, node: SimPeer, now: Duration, life: u64) -> Self::Broadcast {
        Buggy::new(self.0.make(node, now, life), self.1, node)
    }

    fn table_bytes(&self, broadcast: &Self::Broadcast) -> usize {
        self.0.table_bytes(&broadcast.inner)
    }
}

const SCENARIO: &str = r#"
name = "mutants"
nodes = 60
max_table_bytes = 2_000_000
overlay = { protocol = "hyparview" }
broadcast = { protocol = "flood" }
[join]
per_second = 10
[[phase]]
name = "calm"
cycles = 12
quiet = true
broadcasts = { count = 10, over = 10, after = 20, from = "random" }
[[phase]]
name = "churn"
cycles = 6
churn = { per_second = 0.01, until = 0.6, down = [1, 10], persisted = 1 }
broadcasts = { count = 20, over = 60, from = "random" }
[[phase]]
name = "calm again"
cycles = 12
quiet = true
broadcasts = { count = 10, over = 10, after = 50, from = "random" }
"#;

fn run_with<A: Overlays, B: Broadcasts>(overlays: A, broadcasts: B, max: usize) -> SeedResult {
    let scenario = Scenario::parse(SCENARIO).unwrap();
    let pair = Pair {
        overlays,
        broadcasts,
        max_table_bytes: max,
    };
    workload::run(&scenario, pair, 3, &mut |_, _, _, _| {})
}

fn run(bug: Bug) -> SeedResult {
    let mut config = hyparview::Config::default();
    if bug == Bug::Greedy {
        config.active += 2;
    }
    let overlays = Bugs(HyParViews(config), bug);
    let max = if bug == Bug::Hoarder { 20_000 } else { 2 << 20 };
    run_with(overlays, Bugs(Floods, bug), max)
}

fn xbots() -> HyParViews {
    let xbot = XBotConfig {
        interval: Duration::from_secs(2),
        ..XBotConfig::default()
    };
    HyParViews(hyparview::Config {
        xbot: Some(xbot),
        ..hyparview::Config::default()
    })
}

/// The same bugs in what only X-BOT and SCAMP do: measuring links, exchanges, views of any size.
#[test]
fn bugs_of_other_overlays_are_found() {
    let broken = |result: SeedResult, bug, invariant| {
        let broken: BTreeSet<_> = result.violations.iter().map(|v| v.invariant).collect();
        let found = broken.contains(&invariant);
        assert!(
            found,
            "{bug:?} (seed 3) breaks not {invariant} but {broken:?}"
        );
    };
    for (bug, invariant) in [
        (Bug::KeepsTemporary, Invariant::LinksNotLeaked),
        (Bug::DropsOnOneSide, Invariant::Symmetric),
    ] {
        let overlays = Bugs(xbots(), bug);
        broken(
            run_with(overlays, Bugs(Floods, bug), 2 << 20),
            bug,
            invariant,
        );
    }
    for (bug, invariant) in [
        (Bug::ForgetsDown, Invariant::NeighborHasLink),
        (Bug::AnnouncesTwice, Invariant::NeighborsAlternate),
        (Bug::Hermit, Invariant::OneComponent),
        (Bug::ForgetsMember, Invariant::MembersMatch),
    ] {
        let overlays = Bugs(Scamps::default(), bug);
        broken(
            run_with(overlays, Bugs(Floods, bug), 2 << 20),
            bug,
            invariant,
        );
    }
}

const CAUGHT: [(Bug, Invariant); 19] = [
    (Bug::ForgetsDown, Invariant::NeighborHasLink),
    (Bug::AnnouncesTwice, Invariant::NeighborsAlternate),
    (Bug::DeafToLinkDown, Invariant::NeighborHasLink),
    (Bug::KeepsTemporary, Invariant::LinksNotLeaked),
    (Bug::DropsOnOneSide, Invariant::Symmetric),
    (Bug::Greedy, Invariant::ActiveViewBounded),
    (Bug::StuckDeadline, Invariant::DeadlineAhead),
    (Bug::Restless, Invariant::NoTickStorm),
    (Bug::Narcissus, Invariant::SelfNotNeighbor),
    (Bug::Hermit, Invariant::OneComponent),
    (Bug::FatFile, Invariant::PersistedBounded),
    (Bug::ForgetsMember, Invariant::MembersMatch),
    (Bug::Hoarder, Invariant::TablesBounded),
    (Bug::Picky, Invariant::NothingRefused),
    (Bug::Stutters, Invariant::DeliveredOnce),
    (Bug::Garbles, Invariant::DeliveredAsBroadcast),
    (Bug::Drops, Invariant::DeliveredToAll),
    (Bug::Clingy, Invariant::BroadcastToNeighbors),
    (Bug::Loud, Invariant::NoMessageStorm),
];

#[test]
fn every_bug_breaks_its_invariant() {
    for (bug, invariant) in CAUGHT {
        let result = run(bug);
        let broken: BTreeSet<_> = result.violations.iter().map(|v| v.invariant).collect();
        assert!(
            broken.contains(&invariant),
            "{bug:?} (seed 3) breaks not {invariant} but {broken:?}"
        );
    }
}

#[test]
fn every_invariant_can_be_broken() {
    for (invariant, name) in Invariant::ALL {
        let caught = CAUGHT.iter().any(|(_, broken)| *broken == invariant);
        assert!(caught, "{name} has no bug");
        assert_eq!(invariant.name(), name);
    }
}

#[test]
fn without_a_bug_nothing_is_broken() {
    let result = run(Bug::None);
    assert_eq!(result.violations, [], "seed 3");
    for broken in [
        run_with(xbots(), Floods, 2 << 20).violations,
        run_with(Scamps::default(), Floods, 2 << 20).violations,
    ] {
        assert_eq!(broken, [], "seed 3");
    }
    // Plumtree fulfils what flooding does.
    let overlays = HyParViews(hyparview::Config::default());
    let result = run_with(overlays, Plumtrees::default(), 64 << 20);
    assert_eq!(result.violations, [], "seed 3");
}
