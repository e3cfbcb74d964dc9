//! Nodes without a link: the host of [`relay`](crate::relay) and [`reach`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::broadcast::Event as Spreading;
use crate::connection::host::Host;
use crate::connection::inlet::{Subject, binary_term};
use crate::connection::outbox::{Outgoing, Pressure};
use crate::connection::session::{CloseReason, Session};
use crate::limits::MAX_WAYS;
use crate::node::reach::{self, Effect, End};
use crate::node::runtime::{Config, Reply};
use crate::overlay::codec::put_text;
use crate::overlay::{Contact, NodeSpec};
use crate::relay;
use crate::relay::packet::Call;
use crate::relay::{Body, Packet, Router, address_of, router};
use crate::wire::frame::Dest;
use crate::wire::hello::DEFAULT_CHANNEL;

use super::Control;

/// Sender id of packets: no process has it.
const RELAY_SENDER: u64 = u64::MAX - 3;

/// Which nodes are up, which are wanted, and the ways to them.
pub(super) struct Relaying {
    router: Router<Arc<str>, Contact>,
    reach: reach::State,
    own: Contact,
    /// Whether others than neighbours are dialled.
    direct: bool,
    asked: HashMap<u64, Reply<bool>>,
    questions: u64,
    /// Where nodes listen.
    addresses: BTreeMap<Arc<str>, NodeSpec>,
}

impl Relaying {
    pub(super) fn new(config: &Config, own: &Contact) -> Self {
        let mut reach = reach::Config::new(config.overlay.is_whole());
        reach.patience = config.reach_patience;
        reach.idle = config.reach_idle;
        let mut router = router::Config::new(config.name.clone());
        router.ttl = config.relay_ttl;
        router.patience = config.reach_patience;
        Self {
            router: Router::new(router),
            reach: reach::State::new(reach),
            own: own.clone(),
            direct: config.relay_direct,
            asked: HashMap::new(),
            questions: 0,
            addresses: BTreeMap::new(),
        }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        let deadlines = [self.router.deadline(), self.reach.deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// How a node is dialled for the user's sake: at its addresses, then over other nodes.
    fn dialled(&self, mut spec: NodeSpec) -> NodeSpec {
        if !self.direct {
            spec.listen_addrs.clear();
        }
        spec.listen_addrs.push(address_of(&spec.name));
        spec
    }
}

/// Whether a session runs through packets itself: no packet goes over it, its own least of all.
fn is_relayed(session: &Session) -> bool {
    session
        .connections
        .iter()
        .any(|c| relay::is_relayed(&c.remote))
}

impl<H: Host> Control<H> {
    /// Somebody wants to send to a node.
    pub(super) fn ask(&mut self, node: Arc<str>, reply: Reply<bool>) {
        let relaying = &mut self.relaying;
        relaying.questions += 1;
        let number = relaying.questions;
        relaying.asked.insert(number, reply);
        if self.session(&node).is_some_and(|s| !s.is_lasting()) {
            self.reach(reach::Event::Ending(node.clone()));
        }
        self.reach(reach::Event::Ask(node, number));
    }

    pub(super) fn reach(&mut self, event: reach::Event) {
        let mut effects = Vec::new();
        let now = self.now();
        self.relaying.reach.handle(now, event, &mut effects);
        self.do_reach(effects);
    }

    /// A session is about to go up: whoever has to know before its first message is told. The rest is for
    /// [`Control::do_reach`].
    pub(super) fn reached(&mut self, session: &Arc<Session>) -> Vec<Effect> {
        let name = session.peer.node.clone();
        let mut effects = Vec::new();
        let up = reach::Event::Up(name.clone(), session.instance);
        let now = self.now();
        self.relaying.reach.handle(now, up, &mut effects);
        if !is_relayed(session) {
            self.route(router::Event::LinkUp(name.clone()));
        }
        let spec = self.members.iter().find(|m| m.name == name);
        let mut observer = self.observer.lock();
        if effects.contains(&Effect::NodeDown(name.clone())) {
            observer.node_down(&name, "it has restarted");
        }
        let news = effects.contains(&Effect::NodeUp(name.clone()));
        observer.session_up(session, spec, news);
        effects.retain(|e| !matches!(e, Effect::NodeUp(_) | Effect::NodeDown(_)));
        effects
    }

    /// A session has ended; `lives`: in order, and its node hasn't left. Whether everybody has been told.
    pub(super) fn parted_from(
        &mut self,
        session: &Arc<Session>,
        lives: bool,
        reason: &CloseReason,
    ) -> bool {
        let name = session.peer.node.clone();
        let end = match lives {
            true => End::Planned,
            false => End::Failed,
        };
        let mut effects = Vec::new();
        let now = self.now();
        let down = reach::Event::Down(name.clone(), end);
        self.relaying.reach.handle(now, down, &mut effects);
        let news = effects.contains(&Effect::NodeDown(name.clone()));
        let told = {
            let mut observer = self.observer.lock();
            observer.session_down(session, reason, news);
            !news || observer.tells_at_once()
        };
        if !is_relayed(session) {
            self.route(router::Event::LinkDown(name));
        }
        effects.retain(|e| !matches!(e, Effect::NodeDown(_)));
        self.do_reach(effects);
        told
    }

    pub(super) fn do_reach(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Find(node) => match self.relaying.addresses.get(&node) {
                    Some(spec) => {
                        let spec = self.relaying.dialled(spec.clone());
                        self.reach(reach::Event::Found(spec));
                    }
                    None => self.route(router::Event::Find(node)),
                },
                Effect::Want(_) => self.rewanted = true,
                Effect::Release(node) => {
                    self.rewanted = true;
                    if !self.wanted.contains_key(&node)
                        && let Some(session) = self.session(&node)
                    {
                        session.release();
                    }
                }
                Effect::Answer(number, up) => {
                    if let Some(reply) = self.relaying.asked.remove(&number) {
                        reply(up);
                    }
                }
                // Told with the session, where there is one.
                Effect::NodeUp(_) => {}
                Effect::NodeDown(node) => {
                    self.relaying.addresses.remove(&node);
                    self.observer
                        .lock()
                        .node_down(&node, "it can not be reached");
                }
            }
        }
    }

    /// The links that the overlay wants, and those that the user does.
    pub(super) fn all_wanted(&self) -> Vec<NodeSpec> {
        let mut all = self.relaying.reach.wanted().clone();
        all.extend(
            self.wanted
                .iter()
                .map(|(n, spec)| (n.clone(), spec.clone())),
        );
        all.into_values().collect()
    }

    /// Keeps in mind where a node listens.
    pub(super) fn remember(&mut self, spec: &NodeSpec) {
        let addresses = &mut self.relaying.addresses;
        if spec.listen_addrs.is_empty() {
            return;
        }
        if addresses.len() >= MAX_WAYS && !addresses.contains_key(&spec.name) {
            addresses.pop_first();
        }
        addresses.insert(spec.name.clone(), spec.clone());
    }

    pub(super) fn relay_tick(&mut self) {
        let used: Vec<Arc<str>> = self
            .sessions
            .values()
            .filter(|session| session.take_used())
            .map(|session| session.peer.node.clone())
            .collect();
        for node in used {
            self.reach(reach::Event::Used(node));
        }
        self.reach(reach::Event::Tick);
        self.route(router::Event::Tick);
    }

    /// A stream has a packet for a node.
    pub(super) fn relayed(&mut self, to: Arc<str>, packet: Vec<u8>) {
        self.route(router::Event::Send(to, Body::Ip(packet)));
    }

    /// A neighbour has brought a packet.
    pub(super) fn packet(&mut self, session: &Arc<Session>, bytes: &[u8]) {
        let via = session.peer.node.clone();
        match Packet::decode(bytes) {
            Ok(packet) => self.route(router::Event::Packet { via, packet }),
            Err(error) => session.close(CloseReason::Protocol(format!("relayed packet: {error}"))),
        }
    }

    /// A broadcast call has come.
    pub(super) fn called(
        &mut self,
        session: &Arc<Session>,
        root: &Arc<str>,
        bytes: &[u8],
        hops: u32,
    ) {
        match Call::decode(bytes) {
            Ok(Call { node, ttl }) => self.route(router::Event::Called {
                from: root.clone(),
                via: session.peer.node.clone(),
                node,
                hops,
                ttl,
            }),
            // Its root is to blame, and not whoever has passed it on.
            Err(error) if self.complaints.is_new(root) => {
                tracing::warn!(peer = %root, "call for a node: {error}");
            }
            Err(_) => {}
        }
    }

    fn route(&mut self, event: router::Event<Arc<str>, Contact>) {
        let mut effects = Vec::new();
        let now = self.now();
        self.relaying.router.handle(now, event, &mut effects);
        for effect in effects {
            match effect {
                router::Effect::Pass(to, packet) => self.pass_on(&to, &packet),
                router::Effect::Deliver(from, bytes) => {
                    if let Some(tunnels) = &self.local.tunnels {
                        tunnels.receive(&from, bytes);
                    }
                }
                router::Effect::Call { node, ttl } => {
                    let mut payload = Vec::new();
                    put_text(&mut payload, Subject::Relay.name());
                    Call { node, ttl }.encode(&mut payload);
                    self.spread_on(Spreading::Broadcast(payload.into()));
                }
                router::Effect::Found(from, contact) if contact.spec().name != from => {
                    tracing::debug!(peer = %from, "answers a call with another node's addresses");
                }
                router::Effect::Found(_, contact) => {
                    self.remember(contact.spec());
                    let spec = self.relaying.dialled(NodeSpec::clone(contact.spec()));
                    self.reach(reach::Event::Found(spec));
                }
                router::Effect::Answer(to) => {
                    let found = Body::Found(self.relaying.own.clone());
                    self.route(router::Event::Send(to, found));
                }
            }
        }
    }

    // What there is no room for is lost: the streams send it again, and slow down.
    fn pass_on(&self, to: &str, packet: &Packet) {
        let Some(session) = self.session(to) else {
            return;
        };
        let route = session
            .route(DEFAULT_CHANNEL, 0)
            .or_else(|| session.outbox(0));
        if let Some(outbox) = route {
            let term: Bytes = binary_term(|out| packet.encode(out));
            let message = Outgoing::of(Dest::Name(Subject::Relay.name()), &term, &[], false);
            let _ = outbox.send(RELAY_SENDER, message, Pressure::Refuse);
        }
    }
}
