//! Which neighbour a packet goes to, and how the way to a node is found.
//!
//! A node knows the way to its neighbours, and to others from what has come from them: a packet or a call of
//! node F that neighbour V has brought says that V is on a way to F. The last word counts, so ways follow the
//! overlay as it changes. What is learnt about nodes behind V is forgotten with the link to V.
//!
//! A node without a way to another calls it ([`Effect::Call`]): the host broadcasts that, and the called node answers with
//! a packet. Calls for one node are repeated with growing pauses until it answers or nobody wants it any longer, and
//! calls for all nodes together are limited, as each costs a message per node of the cluster.
//!
//! Ways that were learnt at different times may form a loop: a packet passes at most as many nodes as its `ttl` says.
//! Who has no way for a packet, or finds that its `ttl` is used up, tells the sender ([`Body::Gone`]); each node that passes
//! this on forgets its own way, if it is that one.

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::time::Duration;

use super::packet::{Body, Packet};
use crate::limits::{MAX_CALLED, MAX_CALLS, MAX_WAYS};

/// First and longest pause before a node is called again.
const CALL_PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(8));

/// How a node routes.
#[derive(Clone, Debug)]
pub struct Config<N> {
    /// The own name.
    pub own: N,
    /// How many nodes may pass a packet on (`relay_ttl`). Default 32.
    pub ttl: u8,
    /// How long a node is called that packets are for, unless the user wants it for longer.
    pub patience: Duration,
}

impl<N> Config<N> {
    /// The defaults, for the node of this name.
    pub fn new(own: N) -> Self {
        Self {
            own,
            ttl: 32,
            patience: Duration::from_secs(15),
        }
    }
}

/// What happens.
#[derive(Clone, Debug)]
pub enum Event<N, A> {
    /// There is a link with this node.
    LinkUp(N),
    /// There is none any longer.
    LinkDown(N),
    /// A neighbour has brought a packet.
    Packet {
        /// The neighbour.
        via: N,
        /// The packet.
        packet: Packet<N, A>,
    },
    /// A broadcast call has come.
    Called {
        /// Who calls.
        from: N,
        /// The neighbour that has brought it.
        via: N,
        /// For whom it is.
        node: N,
        /// Links that it came over.
        hops: u32,
        /// Links that it may come over.
        ttl: u8,
    },
    /// This node has something for another one.
    Send(N, Body<N, A>),
    /// The addresses of this node are wanted, and a way to it.
    Find(N),
    /// [`Router::deadline`] has passed, or any time has.
    Tick,
}

/// What the host is to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect<N, A> {
    /// Send a packet over the link with this node.
    Pass(N, Packet<N, A>),
    /// A packet for this node has come, from there.
    Deliver(N, Vec<u8>),
    /// Broadcast a call for this node.
    Call {
        /// The node.
        node: N,
        /// How many links away it may be.
        ttl: u8,
    },
    /// A node that was called has answered with its addresses.
    Found(N, A),
    /// This node was called: answer with [`Body::Found`], to this node.
    Answer(N),
}

#[derive(Clone, Debug)]
struct Way<N> {
    via: N,
    /// Counts up; the least is the way that was used the longest ago.
    used: u64,
}

#[derive(Clone, Copy, Debug)]
struct Called {
    next: Duration,
    pause: Duration,
    until: Duration,
}

/// The ways that a node knows.
#[derive(Clone, Debug)]
pub struct Router<N, A> {
    config: Config<N>,
    links: BTreeSet<N>,
    ways: BTreeMap<N, Way<N>>,
    uses: u64,
    called: BTreeMap<N, Called>,
    /// Calls that may still be made in the second that began then.
    calls: (u32, Duration),
    addresses: PhantomData<A>,
}

impl<N: Clone + Ord, A> Router<N, A> {
    /// Knows nobody.
    pub fn new(config: Config<N>) -> Self {
        Self {
            config,
            links: BTreeSet::new(),
            ways: BTreeMap::new(),
            uses: 0,
            called: BTreeMap::new(),
            calls: (MAX_CALLS, Duration::ZERO),
            addresses: PhantomData,
        }
    }

    /// When the next [`Event::Tick`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        self.called.values().map(|c| c.next.min(c.until)).min()
    }

    /// The neighbour by which a node is reached: itself, if it is one.
    pub fn way_to(&self, node: &N) -> Option<&N> {
        let way = || self.ways.get(node).map(|way| &way.via);
        self.links.get(node).or_else(way)
    }

    /// Handles one event. `now` is the time since some fixed moment.
    pub fn handle(&mut self, now: Duration, event: Event<N, A>, effects: &mut Vec<Effect<N, A>>) {
        match event {
            Event::LinkUp(node) => {
                self.links.insert(node);
            }
            Event::LinkDown(node) => {
                self.links.remove(&node);
                self.ways.retain(|_, way| way.via != node);
            }
            Event::Packet { via, packet } => self.packet(now, via, packet, effects),
            Event::Called {
                from,
                via,
                node,
                hops,
                ttl,
            } => {
                if from == self.config.own || hops > ttl.into() {
                    return;
                }
                self.learn(&from, via);
                if node == self.config.own {
                    effects.push(Effect::Answer(from));
                }
            }
            Event::Send(to, body) => {
                let packet = Packet {
                    from: self.config.own.clone(),
                    to: to.clone(),
                    ttl: self.config.ttl,
                    body,
                };
                match self.next(&to) {
                    Some(next) => effects.push(Effect::Pass(next, packet)),
                    // It is lost; whoever has sent it sends it again.
                    None => self.call(now, to, effects),
                }
            }
            Event::Find(node) => self.call(now, node, effects),
            Event::Tick => self.tick(now, effects),
        }
    }

    fn packet(
        &mut self,
        now: Duration,
        via: N,
        packet: Packet<N, A>,
        effects: &mut Vec<Effect<N, A>>,
    ) {
        let own = self.config.own.clone();
        if packet.from == own {
            return; // A loop has brought it back.
        }
        self.learn(&packet.from, via.clone());
        if let Body::Gone(node) = &packet.body
            && self.ways.get(node).is_some_and(|way| way.via == via)
        {
            self.ways.remove(node);
        }
        if packet.to == own {
            match packet.body {
                Body::Ip(bytes) => effects.push(Effect::Deliver(packet.from, bytes)),
                Body::Found(addresses) => {
                    self.called.remove(&packet.from);
                    effects.push(Effect::Found(packet.from, addresses));
                }
                Body::Gone(node) => self.call(now, node, effects),
            }
            return;
        }
        let next = self.next(&packet.to).filter(|next| *next != via);
        if let (Some(next), Some(ttl)) = (next, packet.ttl.checked_sub(1)) {
            effects.push(Effect::Pass(next, Packet { ttl, ..packet }));
        } else if !matches!(packet.body, Body::Gone(_)) {
            let gone = Packet {
                from: own,
                to: packet.from,
                ttl: self.config.ttl,
                body: Body::Gone(packet.to),
            };
            effects.push(Effect::Pass(via, gone));
        }
    }

    fn next(&mut self, to: &N) -> Option<N> {
        if let Some(link) = self.links.get(to) {
            return Some(link.clone());
        }
        let way = self.ways.get_mut(to)?;
        self.uses += 1;
        way.used = self.uses;
        Some(way.via.clone())
    }

    fn learn(&mut self, node: &N, via: N) {
        if !self.links.contains(&via) || *node == self.config.own {
            return;
        }
        if self.ways.len() >= MAX_WAYS && !self.ways.contains_key(node) {
            // An eighth at once, so that a full table doesn't cost a search for each newcomer.
            let mut uses: Vec<u64> = self.ways.values().map(|way| way.used).collect();
            let (_, &mut median, _) = uses.select_nth_unstable(MAX_WAYS / 8);
            self.ways.retain(|_, way| way.used > median);
        }
        self.uses += 1;
        let used = self.uses;
        self.ways.insert(node.clone(), Way { via, used });
    }

    // Calls the node now, unless it is being called.
    fn call(&mut self, now: Duration, node: N, effects: &mut Vec<Effect<N, A>>) {
        let until = now + self.config.patience;
        if let Some(called) = self.called.get_mut(&node) {
            called.until = until;
        } else if node != self.config.own && self.called.len() < MAX_CALLED {
            let called = Called {
                next: now,
                pause: CALL_PAUSE.0,
                until,
            };
            self.called.insert(node, called);
            self.tick(now, effects);
        }
    }

    fn tick(&mut self, now: Duration, effects: &mut Vec<Effect<N, A>>) {
        self.called.retain(|_, called| called.until > now);
        if now >= self.calls.1 + Duration::from_secs(1) {
            self.calls = (MAX_CALLS, now);
        }
        let again = self.calls.1 + Duration::from_secs(1);
        for (node, called) in &mut self.called {
            if called.next > now {
                continue;
            }
            if self.calls.0 == 0 {
                called.next = again;
                continue;
            }
            self.calls.0 -= 1;
            called.next = now + called.pause;
            called.pause = (called.pause * 2).min(CALL_PAUSE.1);
            effects.push(Effect::Call {
                node: node.clone(),
                ttl: self.config.ttl,
            });
        }
    }
}
