//! Messages between nodes that need not be neighbours, by the routers of real nodes.
//!
//! A message is sent again every second until it has arrived, as the streams do that real nodes run over the packets.

use std::collections::BTreeMap;

use super::figures::{self, Figures};
use super::peer::SimPeer;
use super::world::{Payload, Protocols, SECOND, World};
use crate::relay::router::{Config, Effect, Event};
use crate::relay::{Body, Packet, Router};

/// Bytes of a call, and of a packet without its message: names are longer on real nodes.
const OVERHEAD: usize = 48;
const MAX_TRIES: u32 = 20;

/// One message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Post {
    from: u32,
    to: u32,
    /// Not the first of its pair.
    again: bool,
    bytes: u32,
    tries: u32,
    /// Transmissions of the last try.
    passed: u32,
    delivered: bool,
}

pub(super) fn router(node: u32) -> Router<u32, ()> {
    Router::new(Config::new(node))
}

/// Something as long as the packet of a real node.
pub(super) fn encode_packet(packet: &Packet<u32, ()>, out: &mut Vec<u8>) {
    out.extend_from_slice(&packet.from.to_be_bytes());
    out.extend_from_slice(&packet.to.to_be_bytes());
    out.push(packet.ttl);
    if let Body::Ip(bytes) = &packet.body {
        out.extend_from_slice(bytes);
    }
    out.resize(out.len() + OVERHEAD, 0);
}

impl<P: Protocols> World<P> {
    /// From now on nodes have routers.
    pub(super) fn start_routers(&mut self) {
        for node in self.live() {
            let own = &mut self.nodes[node as usize];
            if own.router.is_some() {
                continue;
            }
            own.router = Some(router(node));
            for peer in self.nodes[node as usize].neighbors.clone() {
                self.routing(node, Event::LinkUp(peer));
            }
        }
    }

    /// A message that is going to be sent.
    pub(super) fn posted(&mut self, from: u32, to: u32, again: bool, bytes: usize) -> usize {
        self.posts.push(Post {
            from,
            to,
            again,
            bytes: bytes as u32,
            tries: 0,
            passed: 0,
            delivered: false,
        });
        self.posts.len() - 1
    }

    /// Sends it unless it has arrived; when to try again, in nanoseconds.
    pub(super) fn post(&mut self, number: usize) -> Option<u64> {
        let post = &mut self.posts[number];
        if post.delivered || post.tries >= MAX_TRIES {
            return None;
        }
        post.tries += 1;
        post.passed = 0;
        let (from, to) = (post.from, post.to);
        let mut bytes = vec![0; (post.bytes as usize).max(8)];
        bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
        if self.is_up(from) {
            self.routing(from, Event::Send(to, Body::Ip(bytes)));
            self.settle(from);
        }
        Some(SECOND)
    }

    /// A call has come to a node.
    pub(super) fn called(&mut self, node: u32, from: u32, called: u32, hops: u32) {
        let via = self.via;
        let ttl = Config::new(node).ttl;
        self.routing(
            node,
            Event::Called {
                from,
                via,
                node: called,
                hops,
                ttl,
            },
        );
    }

    /// Gives a node's router an event, if it has one.
    pub(super) fn routing(&mut self, node: u32, event: Event<u32, ()>) {
        let now = self.time();
        let Some(router) = &mut self.nodes[node as usize].router else {
            return;
        };
        let mut effects = Vec::new();
        router.handle(now, event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Pass(to, packet) => {
                    if let Some(post) = self.post_of(&packet.body) {
                        post.passed += 1;
                    }
                    self.send(node, SimPeer(to), Payload::Relay(packet));
                }
                Effect::Deliver(_, bytes) => {
                    if let Some(post) = self.post_of(&Body::Ip(bytes)) {
                        post.delivered = true;
                    }
                }
                Effect::Call { node: called, .. } => {
                    self.cast_or_call(node, OVERHEAD, Some(called));
                }
                Effect::Found(..) => {}
                Effect::Answer(to) => self.routing(node, Event::Send(to, Body::Found(()))),
            }
        }
    }

    fn post_of(&mut self, body: &Body<u32, ()>) -> Option<&mut Post> {
        let Body::Ip(bytes) = body else { return None };
        let number = u64::from_be_bytes(*bytes.first_chunk::<8>()?);
        self.posts.get_mut(number as usize)
    }

    /// Measures the messages from this number on.
    pub(super) fn of_posts(&self, figures: &mut Figures, first: usize) {
        let posts = &self.posts[first..];
        if posts.is_empty() {
            return;
        }
        let live = self.live();
        let graph = figures::graph(self);
        let place = |node: u32| live.binary_search(&node).ok();
        let mut distances: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let (mut delivered, mut tries) = (0, 0);
        let mut stretches = Vec::new();
        for post in posts {
            delivered += usize::from(post.delivered);
            tries += post.tries;
            let (Some(from), Some(to)) = (place(post.from), place(post.to)) else {
                continue;
            };
            let away = distances
                .entry(post.from)
                .or_insert_with(|| graph.distances(from));
            let shortest = away[to];
            if post.delivered && post.again && shortest > 0 && shortest < u32::MAX {
                stretches.push(f64::from(post.passed) / f64::from(shortest));
            }
        }
        stretches.sort_by(f64::total_cmp);
        let median = stretches.get(stretches.len() / 2).copied();
        let count = posts.len() as f64;
        figures.extend([
            ("unicast_delivered", delivered as f64 / count),
            ("unicast_tries", f64::from(tries) / count),
            ("unicast_stretch", median.unwrap_or(0.0)),
            (
                "unicast_stretch_max",
                stretches.last().copied().unwrap_or(0.0),
            ),
        ]);
    }
}
