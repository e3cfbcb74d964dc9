//! Links between simulated nodes, by the rules of [`overlay::contract`](crate::overlay::contract).
//!
//! Two nodes have one [`Link`] at most. It is dialled with three messages (request, accept, confirm:
//! one and a half round trips until both ends are up). What one end sends arrives in the order in
//! which it was sent. A planned close is a last message (fin) that is acknowledged; only then may
//! the end that has closed dial again, so that nothing of an old connection meets a new one. Each
//! connection has a number, and what belongs to another one is dropped.
//!
//! Loss is a delay, since real links run over TCP. A partition holds messages back until it ends or the
//! link dies of silence. A crash breaks the links of a node: the others hear of it within the time
//! that the scenario gives; a silent crash is one of the host, of which only keep-alives tell.

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::latency::{NetworkConfig, below, chance, nanos, unit};
use super::queue::Queue;
use crate::overlay::Down;

/// TCP sends again after this long at first, in nanoseconds.
const RETRANSMIT: u64 = 200_000_000;
/// First and longest pause before a wanted link is dialled again, in nanoseconds.
const REDIAL: (u64, u64) = (250_000_000, 30_000_000_000);
/// What a dial's messages and closes take on the wire, in bytes.
const HANDSHAKE_BYTES: u32 = 128;
const ALIVE_BYTES: u32 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Dialing,
    Accepting,
    Up,
    Closing,
}

#[derive(Clone, Copy, Debug)]
struct End {
    /// The number of the last dial, or of the pause after it.
    attempt: u32,
    state: State,
    wanted: bool,
    failures: u8,
    /// When the last message that this end has sent arrives.
    arrival: u64,
    /// When this end has last heard of the other.
    heard: u64,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    /// The smaller one first.
    nodes: [u32; 2],
    /// The number of the connection.
    connection: u32,
    latency: u64,
    up_since: u64,
    ends: [End; 2],
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Tick,
    Request,
    Accept,
    Refuse,
    Confirm,
    /// The confirmation has not come.
    Expire,
    Frame,
    Alive,
    Fin,
    FinAck,
    Reset,
    KeepAlive,
    Redial,
}

/// Something due. `end` is the one that it happens to; `tag` the number of a connection or a dial.
#[derive(Clone, Copy, Debug)]
struct Job {
    link: u32,
    tag: u32,
    frame: u32,
    kind: Kind,
    end: u8,
}

/// A message under way.
#[derive(Clone, Debug)]
pub(crate) struct Frame<F> {
    pub(crate) payload: F,
    pub(crate) bytes: u32,
    pub(crate) hash: u64,
}

/// What a node hears of the network.
#[derive(Clone, Debug)]
pub(crate) enum Upcall<F> {
    Tick,
    LinkUp(u32),
    LinkDown(u32, Down),
    LinkFailed(u32),
    Frame(u32, Frame<F>),
}

#[derive(Clone, Debug, Default)]
struct Host {
    up: bool,
    /// If it is down: whether it refuses or says nothing at all.
    silent: bool,
    slow: u64,
    /// When its way out is free again.
    free_at: u64,
    /// Other node and link, by node.
    links: Vec<(u32, u32)>,
    /// Whether an end has changed its state since this was last asked.
    changed: bool,
}

/// Nodes on one side don't reach those on the other.
#[derive(Clone, Debug)]
pub(crate) struct Partition {
    pub(crate) until: u64,
    /// Which nodes are on this side.
    pub(crate) side: Vec<bool>,
    /// Whether messages to this side pass.
    pub(crate) one_way: bool,
}

/// What the network has done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) jobs: u64,
    pub(crate) dials: u64,
    pub(crate) failed_dials: u64,
    pub(crate) keep_alives: u64,
    pub(crate) broken: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Network<F> {
    pub(crate) now: u64,
    pub(crate) counts: Counts,
    queue: Queue<Job>,
    hosts: Vec<Host>,
    links: Vec<Link>,
    free_links: Vec<u32>,
    frames: Vec<Option<Frame<F>>>,
    free_frames: Vec<u32>,
    numbers: u32,
    config: NetworkConfig,
    seed: u64,
    keep_alive: u64,
    patience: u64,
    partitions: Vec<Partition>,
    rng: SmallRng,
}

impl<F> Network<F> {
    pub(crate) fn new(config: NetworkConfig, nodes: usize, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut hosts = vec![Host::default(); nodes];
        if let Some(slow) = &config.slow {
            for host in &mut hosts {
                if chance(&mut rng, slow.fraction) {
                    host.slow = nanos(slow.delay_ms / 1e3);
                }
            }
        }
        Self {
            now: 0,
            counts: Counts::default(),
            queue: Queue::new(),
            hosts,
            links: Vec::new(),
            free_links: Vec::new(),
            frames: Vec::new(),
            free_frames: Vec::new(),
            numbers: 0,
            seed,
            keep_alive: nanos(config.keep_alive),
            patience: nanos(config.keep_alive * f64::from(config.misses)),
            config,
            partitions: Vec::new(),
            rng,
        }
    }

    pub(crate) fn is_up(&self, node: u32) -> bool {
        self.hosts[node as usize].up
    }

    pub(crate) fn start(&mut self, node: u32) {
        let host = &mut self.hosts[node as usize];
        host.up = true;
        host.silent = false;
        host.free_at = 0;
    }

    /// The base of the time between two nodes, in nanoseconds.
    pub(crate) fn latency(&self, a: u32, b: u32) -> u64 {
        self.config.latency.base(self.seed, a, b)
    }

    /// Whether this node's end of a link is up.
    pub(crate) fn is_linked(&self, node: u32, peer: u32) -> bool {
        self.find(node, peer)
            .is_some_and(|(link, end)| self.link(link).ends[end as usize].state == State::Up)
    }

    /// Whether an end of the node's links has changed its state since this was last asked.
    pub(crate) fn take_changed(&mut self, node: u32) -> bool {
        std::mem::take(&mut self.hosts[node as usize].changed)
    }

    /// The links that are up at both ends: the nodes, since when, and whether either end wants it.
    pub(crate) fn established(&self) -> impl Iterator<Item = (u32, u32, u64, bool)> {
        let up = |link: &&Link| link.ends.iter().all(|end| end.state == State::Up);
        self.links.iter().filter(up).map(|link| {
            let [a, b] = link.nodes;
            let wanted = link.ends.iter().any(|end| end.wanted);
            (a, b, link.up_since, wanted)
        })
    }

    /// Sets a timer; the node gets [`Upcall::Tick`].
    pub(crate) fn timer(&mut self, node: u32, at: u64) {
        self.push(at.max(self.now), Kind::Tick, node, 0, 0, 0);
    }

    pub(crate) fn want(&mut self, node: u32, peer: u32) {
        if node == peer || peer as usize >= self.hosts.len() {
            return;
        }
        let (link, end) = match self.find(node, peer) {
            Some(found) => found,
            None => self.create(node, peer),
        };
        let state = self.end(link, end);
        if !state.wanted {
            state.wanted = true;
            if state.state == State::Idle {
                self.dial(link, end);
            }
        }
    }

    pub(crate) fn release(&mut self, node: u32, peer: u32) {
        let Some((link, end)) = self.find(node, peer) else {
            return;
        };
        let own = self.end(link, end);
        own.wanted = false;
        own.failures = 0;
        match own.state {
            State::Up => {
                self.turn(link, end, State::Closing);
                self.transmit(link, end, Kind::Fin, 0, HANDSHAKE_BYTES);
            }
            State::Dialing => {
                self.turn(link, end, State::Idle);
                self.drop_unused(link);
            }
            State::Idle => self.drop_unused(link),
            State::Accepting | State::Closing => {}
        }
    }

    /// Breaks a link, as a node does whose peer breaks the protocol.
    pub(crate) fn sever(&mut self, node: u32, peer: u32, out: &mut Vec<(u32, Upcall<F>)>) {
        if let Some((link, end)) = self.find(node, peer) {
            self.break_up(link, end, out);
        }
    }

    /// Sends over the link; without one the message is dropped.
    pub(crate) fn send(&mut self, node: u32, peer: u32, frame: Frame<F>) -> bool {
        let Some((link, end)) = self.find(node, peer) else {
            return false;
        };
        if self.end(link, end).state != State::Up {
            return false;
        }
        let bytes = frame.bytes;
        if chance(&mut self.rng, self.config.reset) {
            self.counts.broken += 1;
            let connection = self.link(link).connection;
            let back = self.now + self.link(link).latency;
            self.push(back, Kind::Reset, link, connection, 0, end);
            self.transmit(link, end, Kind::Reset, 0, bytes);
            return true;
        }
        let slot = match self.free_frames.pop() {
            Some(slot) => {
                self.frames[slot as usize] = Some(frame);
                slot
            }
            None => {
                self.frames.push(Some(frame));
                self.frames.len() as u32 - 1
            }
        };
        self.transmit(link, end, Kind::Frame, slot, bytes);
        true
    }

    /// Stops a node. Its links break, at once or, if it is silent, unnoticed.
    pub(crate) fn crash(&mut self, node: u32, silent: bool) {
        let host = &mut self.hosts[node as usize];
        host.up = false;
        host.silent = silent;
        for (_, link) in host.links.clone() {
            let end = u8::from(self.link(link).nodes[1] == node);
            let connection = self.link(link).connection;
            let own = self.turn(link, end, State::Idle);
            own.wanted = false;
            let sent = own.arrival;
            let other = self.end(link, 1 - end).state;
            let has = matches!(other, State::Up | State::Closing | State::Accepting);
            if has && !silent && self.held_until(link, end).is_none() {
                let within = unit(&mut self.rng) * self.config.detect;
                let at = (self.now + nanos(within)).max(self.now + self.link(link).latency);
                self.push(at.max(sent), Kind::Reset, link, connection, 0, 1 - end);
            }
            self.drop_unused(link);
        }
    }

    pub(crate) fn divide(&mut self, partition: Partition) {
        self.partitions.push(partition);
    }

    /// Nothing is lost or reset from now on.
    #[cfg(test)]
    pub(crate) fn calm(&mut self) {
        self.config.loss = 0.0;
        self.config.reset = 0.0;
    }

    /// Handles the next job that is due at `until` or before; false: there is none, and it is
    /// `until`.
    pub(crate) fn step(&mut self, until: u64, out: &mut Vec<(u32, Upcall<F>)>) -> bool {
        let Some((at, job)) = self.queue.pop(until) else {
            self.now = until;
            return false;
        };
        self.now = at;
        self.counts.jobs += 1;
        if !self.partitions.is_empty() {
            self.partitions.retain(|partition| partition.until > at);
        }
        self.run(job, out);
        true
    }

    fn run(&mut self, job: Job, out: &mut Vec<(u32, Upcall<F>)>) {
        let Job { link, tag, end, .. } = job;
        match job.kind {
            Kind::Tick => out.push((link, Upcall::Tick)),
            Kind::Redial => {
                let own = self.end(link, end);
                if own.attempt == tag && own.state == State::Idle && own.wanted {
                    self.dial(link, end);
                }
            }
            Kind::Request => self.requested(link, end, tag, out),
            Kind::Refuse => {
                let own = self.end(link, end);
                if own.state == State::Dialing && own.attempt == tag {
                    self.counts.failed_dials += 1;
                    let [node, peer] = self.named(link, end);
                    self.lost(link, end);
                    out.push((node, Upcall::LinkFailed(peer)));
                }
            }
            Kind::Frame => self.arrived(job, out),
            _ if self.link(link).connection != tag => {}
            Kind::Accept => match self.end(link, end).state {
                State::Dialing => {
                    self.up(link, end, out);
                    self.transmit(link, end, Kind::Confirm, 0, HANDSHAKE_BYTES);
                }
                _ => self.reset(link, end),
            },
            Kind::Confirm => match self.end(link, end).state {
                State::Accepting => self.up(link, end, out),
                _ => self.reset(link, end),
            },
            Kind::Expire => {
                if self.end(link, end).state == State::Accepting {
                    self.lost(link, end);
                }
            }
            Kind::Alive => {
                self.heard(link, end);
            }
            Kind::KeepAlive => self.keep_alive(link, end, out),
            Kind::Fin => match self.end(link, end).state {
                State::Idle | State::Dialing => self.reset(link, end),
                state => {
                    let [node, peer] = self.named(link, end);
                    self.transmit(link, end, Kind::FinAck, 0, HANDSHAKE_BYTES);
                    if state != State::Closing {
                        self.lost(link, end);
                    }
                    if state == State::Up {
                        out.push((node, Upcall::LinkDown(peer, Down::Planned)));
                    }
                }
            },
            Kind::FinAck => {
                if self.end(link, end).state == State::Closing {
                    self.closed(link, end);
                }
            }
            Kind::Reset => match self.end(link, end).state {
                State::Up => self.fail(link, end, out),
                State::Accepting => self.lost(link, end),
                State::Closing => self.closed(link, end),
                State::Idle | State::Dialing => {}
            },
        }
    }

    // A dial's first message arrives.
    fn requested(&mut self, link: u32, end: u8, tag: u32, out: &mut Vec<(u32, Upcall<F>)>) {
        let other = self.end(link, 1 - end);
        if other.state != State::Dialing || other.attempt != tag {
            return;
        }
        let [node, peer] = self.named(link, end);
        let host = &self.hosts[node as usize];
        if !host.up {
            let at = match host.silent {
                true => self.now + nanos(self.config.dial_timeout),
                false => self.now + self.link(link).latency,
            };
            self.push(at, Kind::Refuse, link, tag, 0, 1 - end);
            return;
        }
        if self.is_held_for_long(link, end) {
            let at = self.now + nanos(self.config.dial_timeout);
            self.push(at, Kind::Refuse, link, tag, 0, 1 - end);
            return;
        }
        match self.end(link, end).state {
            // Both have dialled: the first node's dial counts. The other one runs out in case that
            // the first node gives up before its own has arrived.
            State::Dialing if end == 0 => {
                let at = self.now + nanos(self.config.dial_timeout);
                self.push(at, Kind::Refuse, link, tag, 0, 1 - end);
                return;
            }
            // The other end knows nothing of this connection any longer.
            State::Up => out.push((node, Upcall::LinkDown(peer, Down::Failed))),
            _ => {}
        }
        let connection = self.number();
        self.links[link as usize].connection = connection;
        self.turn(link, end, State::Accepting);
        self.transmit(link, end, Kind::Accept, 0, HANDSHAKE_BYTES);
        let at = self.now + nanos(self.config.dial_timeout);
        self.push(at, Kind::Expire, link, connection, 0, end);
    }

    fn arrived(&mut self, job: Job, out: &mut Vec<(u32, Upcall<F>)>) {
        let frame = self.frames[job.frame as usize].take();
        self.free_frames.push(job.frame);
        if self.link(job.link).connection != job.tag || !self.heard(job.link, job.end) {
            return;
        }
        let [node, peer] = self.named(job.link, job.end);
        out.extend(frame.map(|frame| (node, Upcall::Frame(peer, frame))));
    }

    // Whether the end takes what comes. One that knows nothing of the connection says so.
    fn heard(&mut self, link: u32, end: u8) -> bool {
        let now = self.now;
        let own = self.end(link, end);
        match own.state {
            State::Up | State::Closing => own.heard = now,
            State::Accepting => {}
            State::Idle | State::Dialing => self.reset(link, end),
        }
        self.end(link, end).state == State::Up
    }

    fn keep_alive(&mut self, link: u32, end: u8, out: &mut Vec<(u32, Upcall<F>)>) {
        let (now, patience) = (self.now, self.patience);
        let own = self.end(link, end);
        if !matches!(own.state, State::Up | State::Closing) {
            return;
        }
        if now - own.heard > patience {
            self.break_up(link, end, out);
            return;
        }
        if own.state == State::Up && self.held_until(link, end).is_none() {
            self.counts.keep_alives += 1;
            self.transmit(link, end, Kind::Alive, 0, ALIVE_BYTES);
        }
        let tag = self.link(link).connection;
        self.push(now + self.keep_alive, Kind::KeepAlive, link, tag, 0, end);
    }

    fn up(&mut self, link: u32, end: u8, out: &mut Vec<(u32, Upcall<F>)>) {
        let now = self.now;
        self.links[link as usize].up_since = now;
        let own = self.turn(link, end, State::Up);
        own.heard = now;
        own.failures = 0;
        let tag = self.link(link).connection;
        if self.keep_alive > 0 {
            // Timers of real nodes don't go together.
            let first = now + below(&mut self.rng, self.keep_alive as usize) as u64;
            self.push(first, Kind::KeepAlive, link, tag, 0, end);
        }
        let [node, peer] = self.named(link, end);
        out.push((node, Upcall::LinkUp(peer)));
    }

    // This end gives the connection up, and tells the other one if it can.
    fn break_up(&mut self, link: u32, end: u8, out: &mut Vec<(u32, Upcall<F>)>) {
        match self.end(link, end).state {
            State::Up => self.fail(link, end, out),
            State::Closing => self.closed(link, end),
            _ => return,
        }
        if self.link(link).nodes[0] == self.link(link).nodes[1] {
            return; // Nobody has it any longer.
        }
        self.reset(link, end);
    }

    fn fail(&mut self, link: u32, end: u8, out: &mut Vec<(u32, Upcall<F>)>) {
        let [node, peer] = self.named(link, end);
        out.push((node, Upcall::LinkDown(peer, Down::Failed)));
        self.lost(link, end);
    }

    // The end has no connection any longer; it dials after a pause if it is to have one.
    fn lost(&mut self, link: u32, end: u8) {
        let number = self.number();
        let own = self.turn(link, end, State::Idle);
        own.attempt = number;
        if own.wanted {
            let pause = REDIAL.0 << own.failures.min(8);
            own.failures = own.failures.saturating_add(1);
            let pause = pause.min(REDIAL.1);
            let jitter = below(&mut self.rng, (pause / 2) as usize) as u64;
            self.push(
                self.now + pause + jitter,
                Kind::Redial,
                link,
                number,
                0,
                end,
            );
        } else {
            self.drop_unused(link);
        }
    }

    // The planned close is through.
    fn closed(&mut self, link: u32, end: u8) {
        let own = self.turn(link, end, State::Idle);
        if own.wanted {
            self.dial(link, end);
        } else {
            self.drop_unused(link);
        }
    }

    fn dial(&mut self, link: u32, end: u8) {
        self.counts.dials += 1;
        let number = self.number();
        let own = self.turn(link, end, State::Dialing);
        own.attempt = number;
        if self.is_held_for_long(link, end) {
            let at = self.now + nanos(self.config.dial_timeout);
            self.push(at, Kind::Refuse, link, number, 0, end);
        } else {
            let at = self.arrival(link, end, HANDSHAKE_BYTES);
            self.push(at, Kind::Request, link, number, 0, 1 - end);
        }
    }

    fn reset(&mut self, link: u32, end: u8) {
        let host = &self.hosts[self.link(link).nodes[end as usize] as usize];
        if host.up || !host.silent {
            self.transmit(link, end, Kind::Reset, 0, HANDSHAKE_BYTES);
        }
    }

    fn transmit(&mut self, link: u32, from: u8, kind: Kind, frame: u32, bytes: u32) {
        let at = self.arrival(link, from, bytes);
        let tag = self.link(link).connection;
        self.push(at, kind, link, tag, frame, 1 - from);
    }

    // When something arrives that this end sends now.
    fn arrival(&mut self, link: u32, from: u8, bytes: u32) -> u64 {
        let Link { nodes, latency, .. } = self.links[link as usize];
        let [sender, receiver] = [nodes[from as usize], nodes[1 - from as usize]];
        let mut at = self.now;
        if let Some(mbit) = self.config.bandwidth_mbit {
            let host = &mut self.hosts[sender as usize];
            let takes = f64::from(bytes) * 8e3 / mbit;
            host.free_at = host.free_at.max(at) + takes as u64;
            at = host.free_at;
        }
        let jitter = self.config.latency.jitter();
        let mut takes = latency;
        if jitter > 0.0 {
            let part = 1.0 + jitter * (2.0 * unit(&mut self.rng) - 1.0);
            takes = (latency as f64 * part) as u64;
        }
        let mut again = RETRANSMIT;
        while chance(&mut self.rng, self.config.loss) && again < REDIAL.1 {
            takes += again;
            again *= 2;
        }
        at += takes + self.hosts[receiver as usize].slow;
        if let Some(until) = self.held_until(link, from) {
            let pause = below(&mut self.rng, RETRANSMIT as usize) as u64;
            at = at.max(until + takes + pause);
        }
        let own = self.end(link, from);
        own.arrival = own.arrival.max(at);
        own.arrival
    }

    // Until when a partition holds back what this end sends.
    fn held_until(&self, link: u32, from: u8) -> Option<u64> {
        if self.partitions.is_empty() {
            return None;
        }
        let [a, b] = self.named(link, from).map(|node| node as usize);
        let holds = |partition: &&Partition| match (partition.side[a], partition.side[b]) {
            (true, false) => true,
            (false, true) => !partition.one_way,
            _ => false,
        };
        let held = self.partitions.iter().filter(holds).map(|p| p.until).max();
        held.filter(|until| *until > self.now)
    }

    fn is_held_for_long(&self, link: u32, from: u8) -> bool {
        self.held_until(link, from)
            .is_some_and(|until| until > self.now + nanos(self.config.dial_timeout))
    }

    fn create(&mut self, node: u32, peer: u32) -> (u32, u8) {
        let nodes = [node.min(peer), node.max(peer)];
        let end = End {
            attempt: 0,
            state: State::Idle,
            wanted: false,
            failures: 0,
            arrival: 0,
            heard: 0,
        };
        let link = Link {
            nodes,
            connection: 0,
            latency: self.latency(node, peer),
            up_since: 0,
            ends: [end; 2],
        };
        let number = match self.free_links.pop() {
            Some(number) => {
                self.links[number as usize] = link;
                number
            }
            None => {
                self.links.push(link);
                self.links.len() as u32 - 1
            }
        };
        for (own, other) in [(node, peer), (peer, node)] {
            let links = &mut self.hosts[own as usize].links;
            let place = links.partition_point(|(node, _)| *node < other);
            links.insert(place, (other, number));
        }
        (number, u8::from(nodes[1] == node))
    }

    fn drop_unused(&mut self, link: u32) {
        let Link { nodes, ends, .. } = *self.link(link);
        if nodes[0] == nodes[1] || ends.iter().any(|e| e.wanted || e.state != State::Idle) {
            return;
        }
        for (own, other) in [(nodes[0], nodes[1]), (nodes[1], nodes[0])] {
            let links = &mut self.hosts[own as usize].links;
            links.retain(|(node, _)| *node != other);
        }
        let gone = &mut self.links[link as usize];
        gone.connection = 0;
        gone.nodes = [0; 2];
        for end in &mut gone.ends {
            end.attempt = 0;
        }
        self.free_links.push(link);
    }

    fn find(&self, node: u32, peer: u32) -> Option<(u32, u8)> {
        let links = &self.hosts[node as usize].links;
        let place = links.binary_search_by_key(&peer, |(node, _)| *node).ok()?;
        Some((links[place].1, u8::from(node > peer)))
    }

    fn named(&self, link: u32, end: u8) -> [u32; 2] {
        let [a, b] = self.link(link).nodes;
        if end == 0 { [a, b] } else { [b, a] }
    }

    fn link(&self, link: u32) -> &Link {
        &self.links[link as usize]
    }

    fn end(&mut self, link: u32, end: u8) -> &mut End {
        &mut self.links[link as usize].ends[end as usize]
    }

    fn turn(&mut self, link: u32, end: u8, state: State) -> &mut End {
        let Link { nodes, ends, .. } = &mut self.links[link as usize];
        self.hosts[nodes[end as usize] as usize].changed = true;
        let own = &mut ends[end as usize];
        own.state = state;
        own
    }

    fn number(&mut self) -> u32 {
        self.numbers += 1;
        self.numbers
    }

    fn push(&mut self, at: u64, kind: Kind, link: u32, tag: u32, frame: u32, end: u8) {
        let job = Job {
            link,
            tag,
            frame,
            kind,
            end,
        };
        self.queue.push(at, job);
    }
}
