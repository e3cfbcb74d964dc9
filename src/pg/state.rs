//! Who is in which group, and the rules.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::{Change, Config, Effect, Event, Group, Message};
use crate::limits::PG_MEMBER_BYTES;
use crate::wire::term::Pid;

/// The newest version that is spoken.
const VERSION: u32 = 1;

/// Members of a group and how often each has joined. A pid begins with its node, so the members
/// on one node stand together.
type Members = BTreeMap<Pid, u32>;

/// The scope process of another node.
#[derive(Debug)]
struct Peer {
    pid: Pid,
    version: u32,
    /// It has been sent all members by this connection, and is told changes.
    told: bool,
    /// Groups with members on its node.
    groups: HashSet<Group>,
    bytes: usize,
    /// Some of its members are left out.
    cut: bool,
}

/// A node that has not answered.
#[derive(Debug)]
struct Search {
    at: Duration,
    pause: Duration,
}

/// What one scope process knows; see the [module](super).
#[derive(Debug)]
pub struct State {
    config: Config,
    groups: HashMap<Group, Members>,
    /// The members on this node.
    own: HashMap<Pid, HashSet<Group>>,
    peers: HashMap<Arc<str>, Peer>,
    up: HashSet<Arc<str>>,
    searches: HashMap<Arc<str>, Search>,
}

/// What one change has done to a group's members.
#[derive(Default)]
struct Done {
    joined: Vec<Pid>,
    left: Vec<Pid>,
}

impl State {
    /// A scope without members.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            groups: HashMap::new(),
            own: HashMap::new(),
            peers: HashMap::new(),
            up: HashSet::new(),
            searches: HashMap::new(),
        }
    }

    /// When [`Event::Tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.searches.values().map(|search| search.at).min()
    }

    /// All groups that have members.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.keys()
    }

    /// The members of a group, each as often as it has joined.
    #[must_use]
    pub fn members(&self, group: &Group) -> Vec<Pid> {
        repeated(self.groups.get(group).into_iter().flatten())
    }

    /// The members on this node.
    #[must_use]
    pub fn local_members(&self, group: &Group) -> Vec<Pid> {
        let members = self.groups.get(group);
        repeated(
            members
                .into_iter()
                .flat_map(|m| on(m, &self.config.own.node)),
        )
    }

    /// Whether a process of this node is a member.
    #[must_use]
    pub fn has_joined(&self, group: &Group, pid: &Pid) -> bool {
        self.own.get(pid).is_some_and(|own| own.contains(group))
    }

    /// Takes in an event.
    pub fn handle(&mut self, now: Duration, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Up(node) => {
                if let Some(peer) = self.peers.get_mut(&node) {
                    peer.told = false;
                }
                self.up.insert(node.clone());
                self.search(now, node.clone());
                effects.push(Effect::Discover(node));
            }
            Event::Lost(node) => {
                self.up.remove(&node);
                self.searches.remove(&node);
                if let Some(peer) = self.peers.get_mut(&node) {
                    peer.told = false;
                }
            }
            Event::Join { group, pid } => self.join(group, pid, effects),
            Event::Leave { group, pid } => self.leave(group, pid, effects),
            Event::Down(pid) => self.down(now, &pid, effects),
            Event::Received { node, message } => {
                // Nobody speaks for another node, nor for this one.
                if message.peer().node == node && node != self.config.own.node {
                    self.received(node, message, effects);
                }
            }
            Event::Tick => self.tick(now, effects),
        }
    }

    fn search(&mut self, now: Duration, node: Arc<str>) {
        let pause = self.config.retry.0;
        let at = now + pause;
        self.searches.insert(node, Search { at, pause });
    }

    fn tick(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        for (node, search) in &mut self.searches {
            if search.at <= now {
                search.pause = (search.pause * 2).min(self.config.retry.1);
                search.at = now + search.pause;
                effects.push(Effect::Discover(node.clone()));
            }
        }
    }

    fn join(&mut self, group: Group, pid: Pid, effects: &mut Vec<Effect>) {
        if !self.own.contains_key(&pid) {
            effects.push(Effect::Monitor(pid.clone()));
        }
        let own = self.own.entry(pid.clone()).or_default();
        own.insert(group.clone());
        let members = self.groups.entry(group.clone()).or_default();
        add(members, &pid);
        let change = Change {
            group,
            joined: vec![pid],
            left: Vec::new(),
        };
        self.changed(vec![change], effects);
    }

    fn leave(&mut self, group: Group, pid: Pid, effects: &mut Vec<Effect>) {
        let Some(members) = self.groups.get_mut(&group) else {
            return;
        };
        if !take(members, &pid) {
            return;
        }
        if !members.contains_key(&pid) {
            if members.is_empty() {
                self.groups.remove(&group);
            }
            if let Some(own) = self.own.get_mut(&pid) {
                own.remove(&group);
                if own.is_empty() {
                    self.own.remove(&pid);
                    effects.push(Effect::Demonitor(pid.clone()));
                }
            }
        }
        let change = Change {
            group,
            joined: Vec::new(),
            left: vec![pid],
        };
        self.changed(vec![change], effects);
    }

    /// Tells everybody of changes on this node.
    fn changed(&mut self, changes: Vec<Change>, effects: &mut Vec<Effect>) {
        effects.extend(changes.iter().cloned().map(Effect::Tell));
        for version in 0..=VERSION {
            let told = |peer: &&Peer| peer.told && peer.version == version;
            let mut to: Vec<Pid> = self
                .peers
                .values()
                .filter(told)
                .map(|peer| peer.pid.clone())
                .collect();
            if !to.is_empty() {
                to.sort();
                let message = Message::Update {
                    peer: self.config.own.clone(),
                    version,
                    changes: changes.clone(),
                };
                effects.push(Effect::Send { to, message });
            }
        }
    }

    fn down(&mut self, now: Duration, pid: &Pid, effects: &mut Vec<Effect>) {
        if let Some(groups) = self.own.remove(pid) {
            let mut changes = Vec::new();
            let mut groups: Vec<Group> = groups.into_iter().collect();
            groups.sort();
            for group in groups {
                let Some(members) = self.groups.get_mut(&group) else {
                    continue;
                };
                let times = members.remove(pid).unwrap_or(0);
                if members.is_empty() {
                    self.groups.remove(&group);
                }
                let left = vec![pid.clone(); times as usize];
                let joined = Vec::new();
                changes.push(Change {
                    group,
                    joined,
                    left,
                });
            }
            return self.changed(changes, effects);
        }
        if self
            .peers
            .get(&pid.node)
            .is_some_and(|peer| peer.pid == *pid)
        {
            self.forget(&pid.node, effects);
            if self.up.contains(&pid.node) && !self.searches.contains_key(&pid.node) {
                self.search(now, pid.node.clone());
            }
        }
    }

    /// A peer is gone, and all its members.
    fn forget(&mut self, node: &Arc<str>, effects: &mut Vec<Effect>) {
        let Some(peer) = self.peers.remove(node) else {
            return;
        };
        let mut groups: Vec<Group> = peer.groups.into_iter().collect();
        groups.sort();
        for group in groups {
            let Some(members) = self.groups.get_mut(&group) else {
                continue;
            };
            let left = repeated(on(members, node));
            for pid in &left {
                members.remove(pid);
            }
            if members.is_empty() {
                self.groups.remove(&group);
            }
            let joined = Vec::new();
            effects.push(Effect::Tell(Change {
                group,
                joined,
                left,
            }));
        }
    }

    /// Takes up a scope process unless it is known; true if it was not.
    fn meet(&mut self, pid: Pid, version: u32, effects: &mut Vec<Effect>) -> bool {
        let version = version.min(VERSION);
        match self.peers.get_mut(&pid.node) {
            Some(peer) if peer.pid == pid => {
                peer.version = peer.version.max(version);
                return false;
            }
            Some(peer) => {
                effects.push(Effect::Demonitor(peer.pid.clone()));
                self.forget(&pid.node, effects);
            }
            None => {}
        }
        effects.push(Effect::Monitor(pid.clone()));
        let peer = Peer {
            pid: pid.clone(),
            version,
            told: false,
            groups: HashSet::new(),
            bytes: 0,
            cut: false,
        };
        self.peers.insert(pid.node, peer);
        true
    }

    /// Sends a peer all members of this node.
    fn tell_all(&mut self, node: &str, effects: &mut Vec<Effect>) {
        let mut groups: BTreeMap<&Group, Vec<Pid>> = BTreeMap::new();
        for (pid, own) in &self.own {
            for group in own {
                let times = self.groups.get(group).and_then(|members| members.get(pid));
                let times = times.copied().unwrap_or(0) as usize;
                let members = groups.entry(group).or_default();
                members.extend(std::iter::repeat_n(pid.clone(), times));
            }
        }
        if let Some(peer) = self.peers.get_mut(node) {
            peer.told = true;
            let groups = groups.into_iter().map(|(g, m)| (g.clone(), m));
            let message = Message::Data {
                peer: self.config.own.clone(),
                version: peer.version,
                groups: groups.collect(),
            };
            let to = vec![peer.pid.clone()];
            effects.push(Effect::Send { to, message });
        }
    }

    fn received(&mut self, node: Arc<str>, message: Message, effects: &mut Vec<Effect>) {
        match message {
            Message::Discover { peer, version } => {
                let new = self.meet(peer.clone(), version, effects);
                self.tell_all(&node, effects);
                if new {
                    let message = Message::Discover {
                        peer: self.config.own.clone(),
                        version: version.min(VERSION),
                    };
                    let to = vec![peer];
                    effects.push(Effect::Send { to, message });
                }
            }
            Message::Data {
                peer,
                version,
                groups,
            } => {
                self.meet(peer, version, effects);
                self.searches.remove(&node);
                self.replace(&node, groups, effects);
                // It knows this scope, or it would not have answered, but perhaps from
                // before: then it does not ask.
                if self.peers.get(&node).is_some_and(|peer| !peer.told) {
                    self.tell_all(&node, effects);
                }
            }
            Message::Update { peer, changes, .. } => {
                // From one that is not known it is a leftover of an earlier connection.
                if self.peers.get(&node).is_some_and(|known| known.pid == peer) {
                    for change in changes {
                        self.apply(&node, change, effects);
                    }
                }
            }
        }
    }

    /// These are all members of a peer.
    fn replace(
        &mut self,
        node: &Arc<str>,
        groups: Vec<(Group, Vec<Pid>)>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(peer) = self.peers.get_mut(node) else {
            return;
        };
        peer.cut = false;
        let mut gone = peer.groups.clone();
        let mut changes = Vec::new();
        let mut seen = HashSet::new();
        for (group, pids) in groups {
            gone.remove(&group);
            // A group that is named twice counts once.
            if !seen.insert(group.clone()) {
                continue;
            }
            let mut wanted = Members::new();
            for pid in pids.iter().filter(|pid| pid.node == *node) {
                add(&mut wanted, pid);
            }
            let (mut joined, mut left) = (Vec::new(), Vec::new());
            if let Some(members) = self.groups.get(&group) {
                for (pid, &times) in on(members, node) {
                    let wanted = wanted.remove(pid).unwrap_or(0);
                    let more = wanted.saturating_sub(times) as usize;
                    joined.extend(std::iter::repeat_n(pid.clone(), more));
                    let fewer = times.saturating_sub(wanted) as usize;
                    left.extend(std::iter::repeat_n(pid.clone(), fewer));
                }
            }
            joined.extend(repeated(&wanted));
            changes.push(Change {
                group,
                joined,
                left,
            });
        }
        let gone: Vec<Change> = gone
            .into_iter()
            .map(|group| {
                let members = self.groups.get(&group);
                Change {
                    left: repeated(members.into_iter().flat_map(|m| on(m, node))),
                    joined: Vec::new(),
                    group,
                }
            })
            .collect();
        // They make room for the others.
        for change in gone.into_iter().chain(changes) {
            self.apply(node, change, effects);
        }
    }

    /// Members of a peer change. Who is not there cannot leave, and nobody joins for another node.
    fn apply(&mut self, node: &Arc<str>, change: Change, effects: &mut Vec<Effect>) {
        let Some(peer) = self.peers.get_mut(node) else {
            return;
        };
        let group = change.group;
        let cost = PG_MEMBER_BYTES + group.size();
        let mut done = Done::default();
        let members = self.groups.entry(group.clone()).or_default();
        for pid in change.left {
            if pid.node == *node && take(members, &pid) {
                peer.bytes = peer.bytes.saturating_sub(cost);
                done.left.push(pid);
            }
        }
        for mut pid in change.joined {
            if pid.node != *node {
                continue;
            }
            if peer.bytes + cost > self.config.max_peer_bytes {
                if !std::mem::replace(&mut peer.cut, true) {
                    effects.push(Effect::TooMany(node.clone()));
                }
                continue;
            }
            peer.bytes += cost;
            // One name for all, not one for each message.
            pid.node = node.clone();
            add(members, &pid);
            done.joined.push(pid);
        }
        if on(members, node).next().is_some() {
            peer.groups.insert(group.clone());
        } else {
            peer.groups.remove(&group);
        }
        if members.is_empty() {
            self.groups.remove(&group);
        }
        if !done.joined.is_empty() || !done.left.is_empty() {
            effects.push(Effect::Tell(Change {
                group,
                joined: done.joined,
                left: done.left,
            }));
        }
    }
}

/// The members on a node.
fn on<'a>(members: &'a Members, node: &Arc<str>) -> impl Iterator<Item = (&'a Pid, &'a u32)> {
    let pid = |number: u32| Pid {
        node: node.clone(),
        id: number,
        serial: number,
        creation: number,
    };
    members.range(pid(0)..=pid(u32::MAX))
}

fn repeated<'a>(members: impl IntoIterator<Item = (&'a Pid, &'a u32)>) -> Vec<Pid> {
    let members = members.into_iter();
    let pids = members.flat_map(|(pid, &times)| std::iter::repeat_n(pid.clone(), times as usize));
    pids.collect()
}

fn add(members: &mut Members, pid: &Pid) {
    let times = members.entry(pid.clone()).or_default();
    *times = times.saturating_add(1);
}

/// One time less; true if it was there.
fn take(members: &mut Members, pid: &Pid) -> bool {
    match members.get_mut(pid) {
        Some(1) => members.remove(pid).is_some(),
        Some(times) => {
            *times -= 1;
            true
        }
        None => false,
    }
}
