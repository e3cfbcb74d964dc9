//! Which nodes have a session for the user's sake, and which are up. Sans-I/O.
//!
//! On a full mesh a node is up while there is a session with it. On a partial overlay, and while the cluster changes from
//! one overlay to another, links come and go with the overlay, and with use: links are not nodes. There
//!
//! * a session is made when somebody sends to a node (or watches it), wherever the overlay has its links: at the node's addresses if they are known
//!   or learnt by a call, else over relayed packets. It is closed when nothing has passed for [`Config::idle`]. The end that has not made it
//!   keeps it as long;
//! * a planned close says nothing of the node: it stays up. A node that is watched gets another session at once. It is down when its session
//!   breaks, when it leaves or has restarted, and when it can't be reached for [`Config::patience`].
//!
//! A node that is up, has no session and is not watched may die without anybody noticing until it is sent to, as
//! with connections on demand everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::limits::{MAX_CALLED, MAX_WAYS};
use crate::overlay::NodeSpec;

#[cfg(test)]
#[path = "reach_tests.rs"]
mod tests;

/// How patient a node is.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether the overlay links all nodes: then links are nodes.
    pub whole: bool,
    /// How long a node may take to be reached.
    pub patience: Duration,
    /// How long a session is kept that nobody uses.
    pub idle: Duration,
}

impl Config {
    /// The defaults: 10 s, 60 s.
    pub fn new(whole: bool) -> Self {
        Self {
            whole,
            patience: Duration::from_secs(10),
            idle: Duration::from_secs(60),
        }
    }
}

/// How a session has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// One end needed it no longer.
    Planned,
    /// It broke, or the other node has stopped or left.
    Failed,
}

/// What happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// Somebody wants to send to a node; the number comes back in [`Effect::Answer`].
    Ask(Arc<str>, u64),
    /// The session with this node is about to end: it is none to send by.
    Ending(Arc<str>),
    /// From now on a session with this node is wanted, whether somebody sends or not; or no longer.
    Watch(Arc<str>, bool),
    /// Addresses of a node are known.
    Found(NodeSpec),
    /// A session is up, with this instance of a node.
    Up(Arc<str>, u64),
    /// The session is down.
    Down(Arc<str>, End),
    /// Something has passed over the session.
    Used(Arc<str>),
    /// Whether the overlay links all nodes, from now on.
    Whole(bool),
    /// [`State::deadline`] has passed, or any time has.
    Tick,
}

/// What the host is to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Find the node's addresses and a way to it; [`Event::Found`] follows if it is there.
    Find(Arc<str>),
    /// Keep a link with this node.
    Want(NodeSpec),
    /// Keep it no longer.
    Release(Arc<str>),
    /// To [`Event::Ask`]: whether there is a session now.
    Answer(u64, bool),
    /// The node is up.
    NodeUp(Arc<str>),
    /// The node is down.
    NodeDown(Arc<str>),
}

#[derive(Debug, Default)]
struct Node {
    /// It is up, with this instance.
    instance: Option<u64>,
    session: bool,
    ending: bool,
    /// A link with it is kept for the user's sake.
    kept: bool,
    watched: bool,
    asking: Vec<u64>,
    /// When it will have taken too long to be reached.
    until: Option<Duration>,
    used: Duration,
}

impl Node {
    fn is_idle(&self) -> bool {
        !self.session && !self.kept && !self.watched && self.asking.is_empty()
    }

    // Since when its session is kept for nobody. Whoever asks while one session ends waits for the next.
    fn unused_since(&self) -> Option<Duration> {
        let kept = self.session && self.kept;
        (kept && !self.watched && self.asking.is_empty()).then_some(self.used)
    }
}

/// The nodes that a node knows of.
#[derive(Debug)]
pub struct State {
    config: Config,
    nodes: BTreeMap<Arc<str>, Node>,
    wanted: BTreeMap<Arc<str>, NodeSpec>,
}

impl State {
    /// Knows nobody.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            nodes: BTreeMap::new(),
            wanted: BTreeMap::new(),
        }
    }

    /// Links that are kept for the user's sake.
    pub fn wanted(&self) -> &BTreeMap<Arc<str>, NodeSpec> {
        &self.wanted
    }

    /// When the next [`Event::Tick`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        let idle = self.config.idle;
        let due = |node: &Node| {
            let unused = node.unused_since().map(|since| since + idle);
            node.until.into_iter().chain(unused).min()
        };
        self.nodes.values().filter_map(due).min()
    }

    /// Handles one event. `now` is the time since some fixed moment.
    pub fn handle(&mut self, now: Duration, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Ask(name, number) => self.ask(now, name, number, effects),
            Event::Ending(name) => {
                if let Some(node) = self.nodes.get_mut(&name) {
                    node.ending = node.session;
                }
            }
            Event::Watch(name, on) => {
                let node = self.nodes.entry(name.clone()).or_default();
                node.watched = on && !self.config.whole;
                if node.watched && !node.session {
                    self.reach(now, &name, effects);
                }
                self.trim();
            }
            Event::Found(spec) => {
                let name = spec.name.clone();
                if self.nodes.get(&name).is_some_and(|n| n.until.is_some()) {
                    self.keep(spec, effects);
                }
            }
            Event::Up(name, instance) => self.up(now, name, instance, effects),
            Event::Down(name, end) => self.down(now, name, end, effects),
            Event::Used(name) => {
                if let Some(node) = self.nodes.get_mut(&name) {
                    node.used = now;
                }
            }
            Event::Whole(whole) => self.become_whole(whole, effects),
            Event::Tick => self.tick(now, effects),
        }
    }

    fn become_whole(&mut self, whole: bool, effects: &mut Vec<Effect>) {
        if std::mem::replace(&mut self.config.whole, whole) == whole {
            return;
        }
        let names: Vec<Arc<str>> = self.nodes.keys().cloned().collect();
        for name in names {
            let Some(node) = self.nodes.get_mut(&name) else {
                continue;
            };
            match whole {
                true => {
                    node.watched = false;
                    // Whoever has no link now is not there.
                    if !node.session && node.until.is_none() && node.instance.take().is_some() {
                        effects.push(Effect::NodeDown(name.clone()));
                    }
                    self.release(&name, effects);
                }
                false if node.session => self.adopt(name, effects),
                false => {}
            }
        }
        self.trim();
    }

    // A session that the other end has made, or the overlay, is kept while it is used, but not made again.
    fn adopt(&mut self, name: Arc<str>, effects: &mut Vec<Effect>) {
        if self.nodes.get(&name).is_some_and(|node| !node.kept) {
            let spec = NodeSpec {
                name,
                listen_addrs: Vec::new(),
                channels: Vec::new(),
            };
            self.keep(spec, effects);
        }
    }

    fn ask(&mut self, now: Duration, name: Arc<str>, number: u64, effects: &mut Vec<Effect>) {
        let node = self.nodes.entry(name.clone()).or_default();
        if node.session && !node.ending {
            effects.push(Effect::Answer(number, true));
            return;
        }
        if self.config.whole || node.asking.len() >= MAX_CALLED {
            effects.push(Effect::Answer(number, false));
            self.trim();
            return;
        }
        node.asking.push(number);
        self.reach(now, &name, effects);
    }

    // Has the node until the patience is over to come up.
    fn reach(&mut self, now: Duration, name: &Arc<str>, effects: &mut Vec<Effect>) {
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        if node.until.is_none() {
            node.until = Some(now + self.config.patience);
            effects.push(Effect::Find(name.clone()));
        }
    }

    fn keep(&mut self, spec: NodeSpec, effects: &mut Vec<Effect>) {
        if let Some(node) = self.nodes.get_mut(&spec.name) {
            node.kept = true;
            self.wanted.insert(spec.name.clone(), spec.clone());
            effects.push(Effect::Want(spec));
        }
    }

    fn release(&mut self, name: &Arc<str>, effects: &mut Vec<Effect>) {
        if let Some(node) = self.nodes.get_mut(name)
            && std::mem::take(&mut node.kept)
        {
            self.wanted.remove(name);
            effects.push(Effect::Release(name.clone()));
        }
    }

    fn up(&mut self, now: Duration, name: Arc<str>, instance: u64, effects: &mut Vec<Effect>) {
        let whole = self.config.whole;
        let node = self.nodes.entry(name.clone()).or_default();
        (node.session, node.ending) = (true, false);
        (node.until, node.used) = (None, now);
        let before = node.instance.replace(instance);
        let answers = std::mem::take(&mut node.asking);
        if before.is_some_and(|before| before != instance) {
            effects.push(Effect::NodeDown(name.clone()));
        }
        if before != Some(instance) {
            effects.push(Effect::NodeUp(name.clone()));
        }
        effects.extend(answers.into_iter().map(|n| Effect::Answer(n, true)));
        if !whole {
            self.adopt(name, effects);
        }
    }

    fn down(&mut self, now: Duration, name: Arc<str>, end: End, effects: &mut Vec<Effect>) {
        let Some(node) = self.nodes.get_mut(&name) else {
            return;
        };
        (node.session, node.ending) = (false, false);
        if end == End::Failed || self.config.whole {
            if node.instance.take().is_some() {
                effects.push(Effect::NodeDown(name.clone()));
            }
            // Who watches has been told, and watches no longer.
            node.watched = false;
        }
        if node.asking.is_empty() {
            let watched = node.watched;
            self.release(&name, effects);
            if watched {
                self.reach(now, &name, effects);
            }
        }
        self.trim();
    }

    fn tick(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let idle = self.config.idle;
        let mut unreachable = Vec::new();
        let mut unused = Vec::new();
        for (name, node) in &self.nodes {
            if node.until.is_some_and(|until| until <= now) {
                unreachable.push(name.clone());
            } else if node.unused_since().is_some_and(|since| since + idle <= now) {
                unused.push(name.clone());
            }
        }
        for name in unreachable {
            let Some(node) = self.nodes.get_mut(&name) else {
                continue;
            };
            (node.until, node.watched) = (None, false);
            if node.instance.take().is_some() {
                effects.push(Effect::NodeDown(name.clone()));
            }
            let answers = std::mem::take(&mut node.asking);
            effects.extend(answers.into_iter().map(|n| Effect::Answer(n, false)));
            self.release(&name, effects);
        }
        for name in unused {
            self.release(&name, effects);
        }
        self.trim();
    }

    // Forgets nodes of which nothing need be known, and of those that are up without a session the first
    // by name, if there are too many.
    fn trim(&mut self) {
        self.nodes
            .retain(|_, node| !node.is_idle() || node.instance.is_some());
        if self.nodes.len() > 2 * MAX_WAYS {
            let idle: BTreeSet<Arc<str>> = self
                .nodes
                .iter()
                .filter(|(_, node)| node.is_idle())
                .map(|(name, _)| name.clone())
                .take(MAX_WAYS)
                .collect();
            self.nodes.retain(|name, _| !idle.contains(name));
        }
    }
}
