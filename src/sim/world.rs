//! All simulated nodes: an overlay and a broadcast each, over one [`Network`].

use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::digest::{Digest, hash};
use super::invariants::{Invariant, Violation, Violations};
use super::latency::NetworkConfig;
use super::network::{Frame, Network, Partition, Upcall};
use super::peer::SimPeer;
use super::unicast::{self, Post, encode_packet};
use crate::broadcast::{self, Broadcast, Id};
use crate::overlay::codec::Reader;
use crate::overlay::{self, Overlay, Wire};
use crate::relay::{Packet, Router, router};

/// Ticks of one node in a second.
const MAX_TICKS: u32 = 1000;
/// Messages that one node sends in a second.
const MAX_SENT: u32 = 50_000;
/// Bytes that a node may persist.
const MAX_PERSISTED: usize = 64 << 10;
/// Nanoseconds in a second.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// Which protocols a world runs: what makes a node's state machines, and what is known of them.
pub trait Protocols: Clone + Send + Sync {
    /// The overlay.
    type Overlay: Overlay<Peer = SimPeer> + Clone;
    /// The broadcast.
    type Broadcast: Broadcast<Peer = SimPeer> + Clone;

    /// A node's overlay. `life` is greater after each restart.
    fn overlay(&self, node: SimPeer, now: Duration, life: u64) -> Self::Overlay;

    /// A node's broadcast, of the same life.
    fn broadcast(&self, node: SimPeer, now: Duration, life: u64) -> Self::Broadcast;

    /// Most neighbours that a node may have.
    fn max_neighbors(&self) -> usize {
        usize::MAX
    }

    /// How many neighbours a node wants.
    fn degree(&self) -> usize {
        0
    }

    /// Whether members are the own node and its neighbours.
    fn is_partial(&self) -> bool {
        true
    }

    /// Names in the partial view of a node, if the protocol has one apart from its neighbours.
    fn view_names(&self, overlay: &Self::Overlay) -> Option<usize> {
        let _ = overlay;
        None
    }

    /// About how many bytes a node's tables take.
    fn table_bytes(&self, overlay: &Self::Overlay, broadcast: &Self::Broadcast) -> usize {
        let _ = (overlay, broadcast);
        0
    }

    /// What that may not exceed.
    fn max_table_bytes(&self) -> usize {
        usize::MAX
    }
}

/// A message of either protocol.
#[derive(Clone, Debug)]
pub(crate) enum Payload<O, B> {
    Overlay(O),
    Broadcast(B),
    Relay(Packet<u32, ()>),
}

type PayloadOf<P> = Payload<
    <<P as Protocols>::Overlay as Overlay>::Message,
    <<P as Protocols>::Broadcast as Broadcast>::Message,
>;

#[derive(Clone, Debug)]
pub(crate) struct Node<O, B> {
    overlay: O,
    broadcast: B,
    /// In ascending order.
    pub(crate) neighbors: Vec<u32>,
    pub(crate) life: u64,
    /// When this life began, and how many broadcasts it has started.
    pub(crate) since: u64,
    broadcasts: u64,
    timer: u64,
    /// As the overlay and the broadcast last said.
    deadlines: [Option<Duration>; 2],
    /// Whether its neighbours have changed since they were last checked.
    changed: bool,
    /// In this second.
    ticks: (u64, u32),
    sent: (u64, u32),
    pub(crate) received: u64,
    persisted: Option<Vec<u8>>,
    pub(super) router: Option<Router<u32, ()>>,
}

/// A broadcast and who has got it.
#[derive(Clone, Debug)]
pub(crate) struct Cast {
    id: Id<SimPeer>,
    pub(crate) root: u32,
    pub(crate) begun: u64,
    payload: Bytes,
    reached: Vec<u64>,
    pub(crate) max_hops: u32,
    pub(crate) last: u64,
    /// It calls this node.
    pub(super) call: Option<u32>,
}

impl Cast {
    pub(crate) fn has_reached(&self, node: u32) -> bool {
        self.reached[node as usize / 64] >> (node % 64) & 1 == 1
    }

    fn set(&mut self, node: u32) -> bool {
        let before = self.has_reached(node);
        self.reached[node as usize / 64] |= 1 << (node % 64);
        !before
    }
}

/// What all nodes together have sent and got.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) overlay_messages: u64,
    pub(crate) overlay_bytes: u64,
    pub(crate) payload_messages: u64,
    pub(crate) payload_bytes: u64,
    pub(crate) control_messages: u64,
    pub(crate) control_bytes: u64,
    pub(crate) deliveries: u64,
    pub(crate) packets: u64,
    pub(crate) packet_bytes: u64,
}

/// How a world is run, apart from its protocols.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Encode and decode every message instead of handing it over.
    pub through_bytes: bool,
    /// Look at the local invariants.
    pub check: bool,
}

/// Nodes in virtual time.
#[derive(Clone)]
pub struct World<P: Protocols> {
    pub(crate) protocols: P,
    pub(crate) net: Network<PayloadOf<P>>,
    pub(crate) nodes: Vec<Node<P::Overlay, P::Broadcast>>,
    pub(crate) casts: Vec<Cast>,
    pub(crate) posts: Vec<Post>,
    pub(crate) totals: Totals,
    pub(crate) violations: Violations,
    options: Options,
    digest: Digest,
    rng: SmallRng,
    overlay_effects: overlay::Effects<P::Overlay>,
    broadcast_effects: broadcast::Effects<P::Broadcast>,
    upcalls: Vec<(u32, Upcall<PayloadOf<P>>)>,
    scratch: Vec<u8>,
    /// Who has sent the broadcast message that is being handled.
    pub(super) via: u32,
}

impl<P: Protocols> World<P> {
    /// Nodes that have not started yet.
    pub(crate) fn new(
        protocols: P,
        nodes: usize,
        network: NetworkConfig,
        options: Options,
        seed: u64,
    ) -> Self {
        let node = |number: usize| {
            let peer = SimPeer(number as u32);
            Node {
                overlay: protocols.overlay(peer, Duration::ZERO, 0),
                broadcast: protocols.broadcast(peer, Duration::ZERO, 0),
                neighbors: Vec::new(),
                life: 0,
                since: 0,
                broadcasts: 0,
                timer: u64::MAX,
                deadlines: [None; 2],
                changed: true,
                ticks: (0, 0),
                sent: (0, 0),
                received: 0,
                persisted: None,
                router: None,
            }
        };
        Self {
            nodes: (0..nodes).map(node).collect(),
            net: Network::new(network, nodes, seed ^ 0x006e_6574),
            rng: SmallRng::seed_from_u64(seed),
            protocols,
            options,
            casts: Vec::new(),
            posts: Vec::new(),
            via: 0,
            totals: Totals::default(),
            violations: Violations::default(),
            digest: Digest::default(),
            overlay_effects: Vec::new(),
            broadcast_effects: Vec::new(),
            upcalls: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// The time, in nanoseconds.
    pub fn now(&self) -> u64 {
        self.net.now
    }

    /// What stands for all that has been delivered.
    pub fn digest(&self) -> u64 {
        self.digest.value()
    }

    /// Whether the node runs.
    pub fn is_up(&self, node: u32) -> bool {
        self.net.is_up(node)
    }

    /// The neighbours of a node that runs, in ascending order.
    pub fn neighbors(&self, node: u32) -> &[u32] {
        &self.nodes[node as usize].neighbors
    }

    /// The numbers of the nodes that run.
    pub fn live(&self) -> Vec<u32> {
        let all = 0..self.nodes.len() as u32;
        all.filter(|node| self.is_up(*node)).collect()
    }

    pub(super) fn time(&self) -> Duration {
        Duration::from_nanos(self.net.now)
    }

    /// Starts a node, or starts it again; with what it has persisted if `persisted`.
    pub(crate) fn start(&mut self, node: u32, persisted: bool) {
        let now = self.time();
        let peer = SimPeer(node);
        let own = &mut self.nodes[node as usize];
        own.life += 1;
        own.since = self.net.now;
        own.broadcasts = 0;
        own.timer = u64::MAX;
        own.router = own.router.is_some().then(|| unicast::router(node));
        own.overlay = self.protocols.overlay(peer, now, own.life);
        own.broadcast = self.protocols.broadcast(peer, now, own.life);
        own.deadlines = [own.overlay.deadline(), own.broadcast.deadline()];
        let loaded = own.persisted.take().filter(|_| persisted);
        if own.life > 1 {
            let (word, bit) = (node as usize / 64, 1u64 << (node % 64));
            for cast in &mut self.casts {
                cast.reached[word] &= !bit;
            }
        }
        self.net.start(node);
        if let Some(bytes) = loaded {
            self.overlay(node, overlay::Event::Loaded(bytes));
        }
        self.settle(node);
    }

    /// Has a node join another's cluster.
    pub(crate) fn join(&mut self, node: u32, contact: u32) {
        self.overlay(node, overlay::Event::Join(SimPeer(contact)));
        self.settle(node);
    }

    /// Stops a node.
    pub(crate) fn crash(&mut self, node: u32, silent: bool) {
        self.net.crash(node, silent);
        let own = &mut self.nodes[node as usize];
        own.neighbors.clear();
        own.timer = u64::MAX;
    }

    /// Divides the network.
    pub(crate) fn divide(&mut self, partition: Partition) {
        self.net.divide(partition);
    }

    /// Has a node broadcast a payload of this size.
    pub(crate) fn cast(&mut self, root: u32, bytes: usize) {
        self.cast_or_call(root, bytes, None);
    }

    pub(super) fn cast_or_call(&mut self, root: u32, bytes: usize, call: Option<u32>) {
        let number = self.casts.len() as u64;
        let mut payload = vec![0xab; bytes.max(8)];
        payload[..8].copy_from_slice(&number.to_be_bytes());
        let payload = Bytes::from(payload);
        let own = &mut self.nodes[root as usize];
        own.broadcasts += 1;
        let mut cast = Cast {
            id: Id {
                root: SimPeer(root),
                life: own.life,
                sequence: own.broadcasts,
            },
            root,
            begun: self.net.now,
            payload: payload.clone(),
            reached: vec![0; self.nodes.len().div_ceil(64)],
            max_hops: 0,
            last: self.net.now,
            call,
        };
        cast.set(root);
        self.casts.push(cast);
        self.digest.add(number);
        self.broadcast(root, broadcast::Event::Broadcast(payload));
        self.settle(root);
    }

    /// Lets time pass until `until`, in nanoseconds.
    pub fn run(&mut self, until: u64) {
        let mut upcalls = std::mem::take(&mut self.upcalls);
        while self.net.step(until, &mut upcalls) {
            for (node, upcall) in upcalls.drain(..) {
                if self.is_up(node) {
                    self.handle(node, upcall);
                }
            }
        }
        self.upcalls = upcalls;
    }

    fn handle(&mut self, node: u32, upcall: Upcall<PayloadOf<P>>) {
        let now = self.net.now;
        let (kind, peer, hash) = match &upcall {
            Upcall::Tick => (1, 0, 0),
            Upcall::LinkUp(peer) => (2, *peer, 0),
            Upcall::LinkDown(peer, down) => (3, *peer, *down as u64),
            Upcall::LinkFailed(peer) => (4, *peer, 0),
            Upcall::Frame(peer, frame) => (5, *peer, frame.hash),
        };
        if kind == 1 && self.nodes[node as usize].timer != now {
            return;
        }
        self.digest.add(now);
        self.digest
            .add(kind | u64::from(node) << 4 | u64::from(peer) << 34);
        self.digest.add(hash);
        match upcall {
            Upcall::Tick => self.tick(node),
            Upcall::LinkUp(peer) => {
                self.routing(node, router::Event::LinkUp(peer));
                self.overlay(node, overlay::Event::LinkUp(SimPeer(peer)));
            }
            Upcall::LinkDown(peer, down) => {
                self.routing(node, router::Event::LinkDown(peer));
                self.overlay(node, overlay::Event::LinkDown(SimPeer(peer), down));
            }
            Upcall::LinkFailed(peer) => {
                self.overlay(node, overlay::Event::LinkFailed(SimPeer(peer)));
            }
            Upcall::Frame(peer, frame) => {
                self.nodes[node as usize].received += 1;
                let from = SimPeer(peer);
                let refused = match frame.payload {
                    Payload::Overlay(message) => {
                        self.overlay_event(node, overlay::Event::Message { from, message })
                    }
                    Payload::Broadcast(message) => {
                        self.via = peer;
                        self.broadcast_event(node, broadcast::Event::Message { from, message })
                    }
                    Payload::Relay(packet) => {
                        self.routing(node, router::Event::Packet { via: peer, packet });
                        false
                    }
                };
                if refused {
                    let mut upcalls = Vec::new();
                    self.net.sever(node, peer, &mut upcalls);
                    for (node, upcall) in upcalls {
                        self.handle(node, upcall);
                    }
                }
            }
        }
        self.settle(node);
    }

    fn tick(&mut self, node: u32) {
        let now = self.time();
        let own = &mut self.nodes[node as usize];
        own.timer = u64::MAX;
        if count(&mut own.ticks, self.net.now) == MAX_TICKS {
            self.violated(Invariant::NoTickStorm, node, || {
                format!("{MAX_TICKS} ticks in a second")
            });
        }
        let own = &self.nodes[node as usize];
        let due = |deadline: Option<Duration>| deadline.is_some_and(|at| at <= now);
        let [overlay, broadcast] = own.deadlines.map(due);
        if overlay {
            self.overlay(node, overlay::Event::Tick);
        }
        if broadcast {
            self.broadcast(node, broadcast::Event::Tick);
        }
        self.routing(node, router::Event::Tick);
        let late = self.nodes[node as usize].deadlines.map(due);
        if overlay && late[0] || broadcast && late[1] {
            self.violated(Invariant::DeadlineAhead, node, || {
                "the deadline has passed after the tick".into()
            });
        }
    }

    fn overlay(&mut self, node: u32, event: overlay::Event<SimPeer, MessageOf<P>>) {
        self.overlay_event(node, event);
    }

    fn broadcast(&mut self, node: u32, event: broadcast::Event<SimPeer, CastOf<P>>) {
        self.broadcast_event(node, event);
    }

    // Whether it was refused.
    fn overlay_event(&mut self, node: u32, event: overlay::Event<SimPeer, MessageOf<P>>) -> bool {
        let now = self.time();
        let mut effects = std::mem::take(&mut self.overlay_effects);
        let own = &mut self.nodes[node as usize];
        let done = own.overlay.handle(now, event, &mut self.rng, &mut effects);
        own.deadlines[0] = own.overlay.deadline();
        for effect in effects.drain(..) {
            self.overlay_effect(node, effect);
        }
        self.overlay_effects = effects;
        self.refused(node, done)
    }

    fn broadcast_event(&mut self, node: u32, event: broadcast::Event<SimPeer, CastOf<P>>) -> bool {
        let now = self.time();
        let mut effects = std::mem::take(&mut self.broadcast_effects);
        let own = &mut self.nodes[node as usize];
        let done = own
            .broadcast
            .handle(now, event, &mut self.rng, &mut effects);
        own.deadlines[1] = own.broadcast.deadline();
        for effect in effects.drain(..) {
            match effect {
                broadcast::Effect::Send { to, message } => {
                    let neighbors = &self.nodes[node as usize].neighbors;
                    if self.options.check && neighbors.binary_search(&to.0).is_err() {
                        self.violated(Invariant::BroadcastToNeighbors, node, || {
                            format!("{to:?} is none")
                        });
                    }
                    self.send(node, to, Payload::Broadcast(message));
                }
                broadcast::Effect::Deliver { id, payload, hops } => {
                    self.deliver(node, &id, &payload, hops);
                }
            }
        }
        self.broadcast_effects = effects;
        self.refused(node, done)
    }

    fn refused<E: Debug>(&mut self, node: u32, done: Result<(), E>) -> bool {
        done.is_err_and(|error| {
            self.violated(Invariant::NothingRefused, node, || format!("{error:?}"));
            true
        })
    }

    fn overlay_effect(&mut self, node: u32, effect: overlay::Effect<SimPeer, MessageOf<P>>) {
        use overlay::Effect;
        match effect {
            Effect::Send { to, message } => self.send(node, to, Payload::Overlay(message)),
            Effect::Want(peer) => {
                if peer.0 == node {
                    self.violated(Invariant::SelfNotNeighbor, node, || "wants itself".into());
                }
                self.net.want(node, peer.0);
            }
            Effect::Release(peer) => {
                self.net.release(node, peer.0);
                self.routing(node, router::Event::LinkDown(peer.0));
            }
            Effect::NeighborUp(peer) => {
                let own = &mut self.nodes[node as usize];
                own.changed = true;
                let neighbors = &mut own.neighbors;
                match neighbors.binary_search(&peer.0) {
                    Err(place) => neighbors.insert(place, peer.0),
                    Ok(_) => self.violated(Invariant::NeighborsAlternate, node, || {
                        format!("{peer:?} came up twice")
                    }),
                }
                if peer.0 == node {
                    self.violated(Invariant::SelfNotNeighbor, node, || "came up".into());
                }
                self.broadcast(node, broadcast::Event::NeighborUp(peer));
            }
            Effect::NeighborDown(peer) => {
                let neighbors = &mut self.nodes[node as usize].neighbors;
                match neighbors.binary_search(&peer.0) {
                    Ok(place) => {
                        neighbors.remove(place);
                    }
                    Err(_) => self.violated(Invariant::NeighborsAlternate, node, || {
                        format!("{peer:?} went down and was not up")
                    }),
                }
                self.broadcast(node, broadcast::Event::NeighborDown(peer));
            }
            Effect::Persist(bytes) => {
                if bytes.len() > MAX_PERSISTED {
                    let size = bytes.len();
                    self.violated(Invariant::PersistedBounded, node, || {
                        format!("{size} bytes")
                    });
                }
                self.nodes[node as usize].persisted = Some(bytes);
            }
            Effect::MembersChanged | Effect::Joined(_) | Effect::Left => {}
        }
    }

    pub(super) fn send(&mut self, node: u32, to: SimPeer, payload: PayloadOf<P>) {
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        let sent = &mut self.nodes[node as usize].sent;
        if count(sent, self.net.now) == MAX_SENT {
            self.violated(Invariant::NoMessageStorm, node, || {
                format!("{MAX_SENT} messages in a second")
            });
        }
        let totals = &mut self.totals;
        let (messages, sum) = match &payload {
            Payload::Overlay(message) => {
                message.encode(&mut bytes);
                (&mut totals.overlay_messages, &mut totals.overlay_bytes)
            }
            Payload::Broadcast(message) => {
                message.encode(&mut bytes);
                match P::Broadcast::carries_payload(message) {
                    true => (&mut totals.payload_messages, &mut totals.payload_bytes),
                    false => (&mut totals.control_messages, &mut totals.control_bytes),
                }
            }
            Payload::Relay(packet) => {
                encode_packet(packet, &mut bytes);
                (&mut totals.packets, &mut totals.packet_bytes)
            }
        };
        *messages += 1;
        *sum += bytes.len() as u64;
        let payload = match self.options.through_bytes {
            false => Ok(payload),
            true => through_bytes::<P>(&payload, &bytes),
        };
        match payload {
            Ok(payload) => {
                let frame = Frame {
                    payload,
                    bytes: bytes.len() as u32,
                    hash: hash(&bytes),
                };
                self.net.send(node, to.0, frame);
            }
            Err(error) => self.violated(Invariant::NothingRefused, node, || {
                format!("what it has sent: {error}")
            }),
        }
        self.scratch = bytes;
    }

    fn deliver(&mut self, node: u32, id: &Id<SimPeer>, payload: &Bytes, hops: u32) {
        self.totals.deliveries += 1;
        let number = payload.first_chunk::<8>().map(|b| u64::from_be_bytes(*b));
        let cast = number.and_then(|number| self.casts.get_mut(number as usize));
        let Some(cast) = cast.filter(|cast| cast.id == *id && cast.payload == *payload) else {
            self.violated(Invariant::DeliveredAsBroadcast, node, || format!("{id:?}"));
            return;
        };
        if cast.set(node) {
            cast.max_hops = cast.max_hops.max(hops);
            cast.last = self.net.now;
            if let Some(called) = cast.call {
                let from = cast.root;
                self.called(node, from, called, hops);
            }
        } else {
            self.violated(Invariant::DeliveredOnce, node, || format!("{id:?}"));
        }
    }

    // After each event of a node: its timer, and what must hold.
    pub(super) fn settle(&mut self, node: u32) {
        let now = self.time();
        let own = &mut self.nodes[node as usize];
        let routing = own.router.as_ref().and_then(Router::deadline);
        let deadlines = own.deadlines.into_iter().chain([routing]);
        let deadline = deadlines.flatten().min();
        if let Some(at) = deadline {
            // One that has passed must not stop the clock.
            let at = match at > now {
                true => at.as_nanos() as u64,
                false => self.net.now + SECOND / 1000,
            };
            if at < own.timer {
                own.timer = at;
                self.net.timer(node, at);
            }
        }
        // What the check looks at changes with links and neighbours only.
        let changed = std::mem::take(&mut own.changed) | self.net.take_changed(node);
        if self.options.check && changed {
            self.check(node);
        }
    }

    fn check(&mut self, node: u32) {
        let own = &self.nodes[node as usize];
        let unlinked = |peer: &&u32| !self.net.is_linked(node, **peer);
        if let Some(peer) = own.neighbors.iter().find(unlinked).copied() {
            self.violated(Invariant::NeighborHasLink, node, || {
                format!("n{peer} has none")
            });
        }
        let count = self.nodes[node as usize].neighbors.len();
        if count > self.protocols.max_neighbors() {
            self.violated(Invariant::ActiveViewBounded, node, || {
                format!("{count} neighbours")
            });
        }
    }

    pub(crate) fn violated(
        &mut self,
        invariant: Invariant,
        node: u32,
        what: impl FnOnce() -> String,
    ) {
        self.violations.add(Violation {
            invariant,
            node: Some(node),
            at: self.net.now,
            what: what(),
        });
    }

    /// The sizes of all tables, in bytes: sum and maximum.
    pub(crate) fn table_bytes(&self) -> (usize, usize) {
        let sizes = self.live().into_iter().map(|node| {
            let own = &self.nodes[node as usize];
            self.protocols.table_bytes(&own.overlay, &own.broadcast)
        });
        sizes.fold((0, 0), |(sum, max), size| (sum + size, max.max(size)))
    }

    /// Names in all partial views, if the protocol has such.
    pub(crate) fn view_names(&self) -> Option<usize> {
        let names = |node| {
            self.protocols
                .view_names(&self.nodes[node as usize].overlay)
        };
        self.live().into_iter().map(names).sum()
    }

    /// Looks at what must hold when nothing is under way, and lets a little time pass for it. `calm`:
    /// nothing has broken meanwhile.
    pub(crate) fn check_all(&mut self, pause: u64) {
        let before = self.one_sided();
        self.run(self.net.now + pause);
        for (node, peer) in self.one_sided() {
            if before.binary_search(&(node, peer)).is_ok() {
                self.violated(Invariant::Symmetric, node, || {
                    format!("n{peer} is its neighbour, but not the other way round")
                });
            }
        }
        self.check_links();
        for node in self.live() {
            let own = &self.nodes[node as usize];
            let mut members: Vec<u32> = own.overlay.members().iter().map(|p| p.0).collect();
            members.sort_unstable();
            let mut neighbors = own.neighbors.clone();
            neighbors.insert(neighbors.partition_point(|n| *n < node), node);
            let distinct = members.windows(2).all(|two| two[0] < two[1]);
            let fits = match self.protocols.is_partial() {
                true => members == neighbors,
                false => members.binary_search(&node).is_ok(),
            };
            if !fits || !distinct {
                self.violated(Invariant::MembersMatch, node, || {
                    format!("members {members:?}, neighbours and itself {neighbors:?}")
                });
            }
            let own = &self.nodes[node as usize];
            let size = self.protocols.table_bytes(&own.overlay, &own.broadcast);
            if size > self.protocols.max_table_bytes() {
                self.violated(Invariant::TablesBounded, node, || format!("{size} bytes"));
            }
        }
    }

    // Who has a neighbour that doesn't have it, in order.
    pub(crate) fn one_sided(&self) -> Vec<(u32, u32)> {
        let mut found = Vec::new();
        for node in self.live() {
            for peer in &self.nodes[node as usize].neighbors {
                let theirs = &self.nodes[*peer as usize].neighbors;
                if theirs.binary_search(&node).is_err() {
                    found.push((node, *peer));
                }
            }
        }
        found
    }

    fn check_links(&mut self) {
        // Older than any temporary link.
        const AGE: u64 = 60 * SECOND;
        let now = self.net.now;
        let idle = |(a, b, since, wanted): &(u32, u32, u64, bool)| {
            let used = |a: u32, b: u32| self.nodes[a as usize].neighbors.binary_search(&b).is_ok();
            let age = now - since;
            age > AGE && !used(*a, *b) && !used(*b, *a) || age > 15 * SECOND && !wanted
        };
        let leaked: Vec<_> = self.net.established().filter(idle).collect();
        for (a, b, since, wanted) in leaked {
            self.violated(Invariant::LinksNotLeaked, a, || {
                let age = (now - since) / SECOND;
                format!("a link with n{b} for {age} s, no neighbour, wanted: {wanted}")
            });
        }
    }
}

type MessageOf<P> = <<P as Protocols>::Overlay as Overlay>::Message;
type CastOf<P> = <<P as Protocols>::Broadcast as Broadcast>::Message;

fn through_bytes<P: Protocols>(
    payload: &PayloadOf<P>,
    bytes: &[u8],
) -> Result<PayloadOf<P>, overlay::codec::DecodeError> {
    let mut reader = Reader::new(bytes);
    let payload = match payload {
        Payload::Overlay(_) => Payload::Overlay(Wire::decode(&mut reader)?),
        Payload::Broadcast(_) => Payload::Broadcast(Wire::decode(&mut reader)?),
        // Its bytes are those of real nodes, whose names are others.
        Payload::Relay(packet) => return Ok(Payload::Relay(packet.clone())),
    };
    reader.end()?;
    Ok(payload)
}

// Counts by the second.
fn count((second, count): &mut (u64, u32), now: u64) -> u32 {
    if *second != now / SECOND {
        (*second, *count) = (now / SECOND, 0);
    }
    *count += 1;
    *count
}
