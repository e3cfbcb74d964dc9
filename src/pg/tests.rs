//! Scopes of several nodes whose connections and processes come and go.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::wire::term::Value;

const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

fn name(node: usize) -> Arc<str> {
    format!("n{node}@host").into()
}

fn pid(node: usize, id: u32) -> Pid {
    Pid {
        node: name(node),
        id,
        serial: 0,
        creation: 7,
    }
}

fn number(pid: &Pid) -> usize {
    pid.node[1..2].parse().unwrap()
}

fn group(number: i64) -> Group {
    Group::new(&Value::tuple([Value::atom("group"), Value::from(number)])).unwrap()
}

fn state(own: Pid) -> State {
    State::new(Config {
        own,
        max_peer_bytes: 1 << 20,
        retry: RETRY,
    })
}

/// What is on its way between two nodes, or waits in a mailbox.
#[derive(Debug)]
enum Item {
    /// To a pid, or to the scope's name.
    Said(Option<Pid>, Message),
    Watch(Pid),
    Down(Pid),
}

/// What OTP 25 does with what it is told: it ends when somebody leaves a group that it does not know.
#[derive(Default)]
struct Strict(HashMap<Pid, HashMap<Group, Vec<Pid>>>);

impl Strict {
    fn told(&mut self, message: &Message) {
        match message {
            Message::Discover { peer, .. } => drop(self.0.entry(peer.clone()).or_default()),
            Message::Data { peer, groups, .. } => {
                let map: HashMap<_, _> = groups.iter().cloned().collect();
                assert_eq!(map.len(), groups.len(), "a group twice");
                self.0.insert(peer.clone(), map);
            }
            Message::Update { peer, changes, .. } => {
                let Some(known) = self.0.get_mut(peer) else {
                    return;
                };
                for change in changes {
                    if !change.left.is_empty() {
                        let members = known.get_mut(&change.group).expect("badkey");
                        for pid in &change.left {
                            let at = members.iter().position(|one| one == pid);
                            members.swap_remove(at.expect("a member"));
                        }
                        if members.is_empty() {
                            known.remove(&change.group);
                        }
                    }
                    if !change.joined.is_empty() {
                        let members = known.entry(change.group.clone()).or_default();
                        members.extend(change.joined.clone());
                    }
                }
            }
        }
    }
}

struct Node {
    state: State,
    scope: Pid,
    starts: u32,
    /// Joins of the processes here.
    joined: HashMap<Pid, Vec<Group>>,
    mailbox: VecDeque<(usize, Item)>,
    /// Connections that came up and went, not heard of yet.
    news: VecDeque<Event>,
    watched: HashSet<Pid>,
    /// Scope processes of others that watch ours.
    watchers: HashSet<usize>,
    strict: Strict,
    told: HashMap<Group, Vec<Pid>>,
}

struct World {
    nodes: Vec<Node>,
    wires: HashMap<(usize, usize), VecDeque<Item>>,
    up: HashSet<(usize, usize)>,
    now: Duration,
    versions: u32,
}

impl World {
    fn new(count: usize, versions: u32) -> Self {
        let node = |n| Node {
            state: state(pid(n, 1)),
            scope: pid(n, 1),
            starts: 1,
            joined: HashMap::new(),
            mailbox: VecDeque::new(),
            news: VecDeque::new(),
            watched: HashSet::new(),
            watchers: HashSet::new(),
            strict: Strict::default(),
            told: HashMap::new(),
        };
        Self {
            nodes: (0..count).map(node).collect(),
            wires: HashMap::new(),
            up: HashSet::new(),
            now: Duration::ZERO,
            versions,
        }
    }

    fn say(&mut self, from: usize, to: usize, item: Item) {
        if self.up.contains(&(from, to)) {
            self.wires.entry((from, to)).or_default().push_back(item);
        } else if let Item::Watch(pid) = item {
            self.nodes[from].mailbox.push_back((to, Item::Down(pid)));
        }
    }

    fn at(&mut self, n: usize, event: Event) {
        let mut effects = Vec::new();
        self.nodes[n].state.handle(self.now, event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Send { to, message } => {
                    for value in message.to_values() {
                        // Through the codec, as between real nodes.
                        let value = value.encode().unwrap().decode();
                        let message = Message::parse(&value).expect("a form");
                        for pid in &to {
                            let item = Item::Said(Some(pid.clone()), message.clone());
                            self.say(n, number(pid), item);
                        }
                    }
                }
                Effect::Discover(node) => {
                    let to = number(&Pid { node, ..pid(0, 0) });
                    let message = Message::Discover {
                        peer: self.nodes[n].scope.clone(),
                        version: if (n as u32).is_multiple_of(2) {
                            self.versions
                        } else {
                            0
                        },
                    };
                    self.say(n, to, Item::Said(None, message));
                }
                Effect::Monitor(pid) => {
                    assert!(self.nodes[n].watched.insert(pid.clone()), "twice: {pid:?}");
                    if number(&pid) != n {
                        self.say(n, number(&pid), Item::Watch(pid));
                    }
                }
                Effect::Demonitor(pid) => assert!(self.nodes[n].watched.remove(&pid)),
                Effect::Tell(change) => {
                    let members = self.nodes[n].told.entry(change.group).or_default();
                    for pid in change.left {
                        let at = members.iter().position(|one| *one == pid);
                        members.swap_remove(at.expect("who leaves was told to have joined"));
                    }
                    members.extend(change.joined);
                }
                Effect::TooMany(_) => panic!("there are few"),
            }
        }
    }

    fn arrive(&mut self, from: usize, to: usize) {
        let Some(item) = self.wires.entry((from, to)).or_default().pop_front() else {
            return;
        };
        match item {
            Item::Watch(pid) if pid == self.nodes[to].scope => {
                self.nodes[to].watchers.insert(from);
            }
            Item::Watch(pid) => self.say(to, from, Item::Down(pid)),
            item => self.nodes[to].mailbox.push_back((from, item)),
        }
    }

    fn read(&mut self, n: usize) {
        let Some((from, item)) = self.nodes[n].mailbox.pop_front() else {
            return;
        };
        match item {
            Item::Said(to, message) => {
                if to.is_none_or(|to| to == self.nodes[n].scope) {
                    self.nodes[n].strict.told(&message);
                    let node = name(from);
                    self.at(n, Event::Received { node, message });
                }
            }
            Item::Down(pid) => {
                self.nodes[n].strict.0.remove(&pid);
                if self.nodes[n].watched.remove(&pid) {
                    self.at(n, Event::Down(pid));
                }
            }
            Item::Watch(_) => unreachable!(),
        }
    }

    fn hear(&mut self, n: usize) {
        if let Some(event) = self.nodes[n].news.pop_front() {
            self.at(n, event);
        }
    }

    fn connect(&mut self, a: usize, b: usize) {
        if a != b && self.up.insert((a, b)) {
            self.up.insert((b, a));
            self.nodes[a].news.push_back(Event::Up(name(b)));
            self.nodes[b].news.push_back(Event::Up(name(a)));
        }
    }

    fn cut(&mut self, a: usize, b: usize) {
        if !self.up.remove(&(a, b)) {
            return;
        }
        self.up.remove(&(b, a));
        for (a, b) in [(a, b), (b, a)] {
            // What is on its way is lost.
            self.wires.remove(&(a, b));
            self.nodes[a].watchers.remove(&b);
            self.nodes[a].news.push_back(Event::Lost(name(b)));
            let watched = self.nodes[a].watched.iter();
            let lost: Vec<Pid> = watched.filter(|pid| number(pid) == b).cloned().collect();
            for pid in lost {
                self.nodes[a].mailbox.push_back((b, Item::Down(pid)));
            }
        }
    }

    fn restart(&mut self, n: usize) {
        let old = self.nodes[n].scope.clone();
        for watcher in std::mem::take(&mut self.nodes[n].watchers) {
            self.say(n, watcher, Item::Down(old.clone()));
        }
        let node = &mut self.nodes[n];
        node.starts += 1;
        node.scope = pid(n, node.starts);
        node.state = state(node.scope.clone());
        node.joined.clear();
        node.mailbox.clear();
        node.news.clear();
        node.watched.clear();
        node.strict = Strict::default();
        node.told.clear();
        let linked = self.up.iter().filter(|(a, _)| *a == n);
        let linked: Vec<Event> = linked.map(|(_, b)| Event::Up(name(*b))).collect();
        self.nodes[n].news.extend(linked);
    }

    fn join(&mut self, n: usize, id: u32, number: i64) {
        let (pid, group) = (pid(n, 100 + id), group(number));
        let joined = self.nodes[n].joined.entry(pid.clone()).or_default();
        joined.push(group.clone());
        self.at(n, Event::Join { group, pid });
    }

    fn leave(&mut self, n: usize, id: u32, number: i64) {
        let (pid, group) = (pid(n, 100 + id), group(number));
        let joined = self.nodes[n].joined.entry(pid.clone()).or_default();
        if let Some(at) = joined.iter().position(|one| *one == group) {
            joined.swap_remove(at);
        }
        self.at(n, Event::Leave { group, pid });
    }

    fn end(&mut self, n: usize, id: u32) {
        let pid = pid(n, 100 + id);
        self.nodes[n].joined.remove(&pid);
        if self.nodes[n].watched.remove(&pid) {
            self.at(n, Event::Down(pid));
        }
    }

    fn step(&mut self, step: &Step) {
        let count = self.nodes.len();
        match *step {
            Step::Join(n, id, group) => self.join(n % count, id, group),
            Step::Leave(n, id, group) => self.leave(n % count, id, group),
            Step::End(n, id) => self.end(n % count, id),
            Step::Connect(a, b) => self.connect(a % count, b % count),
            Step::Cut(a, b) => self.cut(a % count, b % count),
            Step::Restart(n) => self.restart(n % count),
            Step::Arrive(a, b) => self.arrive(a % count, b % count),
            Step::Read(n) => self.read(n % count),
            Step::Hear(n) => self.hear(n % count),
            Step::Tick(n) => {
                self.now += RETRY.0;
                self.at(n % count, Event::Tick);
            }
        }
    }

    /// Connects all and lets everything happen that is due.
    fn settle(&mut self) {
        let count = self.nodes.len();
        for a in 0..count {
            for b in 0..count {
                self.connect(a, b);
            }
        }
        for _ in 0..10_000 {
            let busy = self.wires.values().any(|wire| !wire.is_empty());
            let unread = |n: &Node| !n.mailbox.is_empty() || !n.news.is_empty();
            if !busy && !self.nodes.iter().any(unread) {
                let Some(at) = self.nodes.iter().filter_map(|n| n.state.deadline()).min() else {
                    return;
                };
                self.now = at;
                (0..count).for_each(|n| self.at(n, Event::Tick));
            }
            for a in 0..count {
                self.hear(a);
                self.read(a);
                (0..count).for_each(|b| self.arrive(a, b));
            }
        }
        panic!("it does not come to rest");
    }

    fn check(&self) {
        let sorted = |mut pids: Vec<Pid>| {
            pids.sort();
            pids
        };
        let mut wanted: HashMap<Group, Vec<Pid>> = HashMap::new();
        for (pid, groups) in self.nodes.iter().flat_map(|n| &n.joined) {
            for group in groups {
                wanted.entry(group.clone()).or_default().push(pid.clone());
            }
        }
        for node in &self.nodes {
            let groups: HashSet<&Group> = node.state.groups().collect();
            assert_eq!(groups, wanted.keys().collect());
            for (group, members) in &wanted {
                assert_eq!(node.state.members(group), sorted(members.clone()));
                assert_eq!(sorted(node.told[group].clone()), sorted(members.clone()));
                let here = |pid: &&Pid| pid.node == node.scope.node;
                let here = members.iter().filter(here).cloned().collect();
                assert_eq!(node.state.local_members(group), sorted(here));
            }
            assert!(
                node.told
                    .iter()
                    .all(|(g, m)| m.is_empty() || wanted.contains_key(g))
            );
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Join(usize, u32, i64),
    Leave(usize, u32, i64),
    End(usize, u32),
    Connect(usize, usize),
    Cut(usize, usize),
    Restart(usize),
    Arrive(usize, usize),
    Read(usize),
    Hear(usize),
    Tick(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let node = 0..3_usize;
    let (id, group) = (0..3_u32, 0..3_i64);
    let step = prop_oneof![
        4 => (node.clone(), id.clone(), group.clone()).prop_map(|(n, i, g)| Step::Join(n, i, g)),
        3 => (node.clone(), id.clone(), group).prop_map(|(n, i, g)| Step::Leave(n, i, g)),
        1 => (node.clone(), id).prop_map(|(n, i)| Step::End(n, i)),
        3 => (node.clone(), node.clone()).prop_map(|(a, b)| Step::Connect(a, b)),
        1 => (node.clone(), node.clone()).prop_map(|(a, b)| Step::Cut(a, b)),
        1 => node.clone().prop_map(Step::Restart),
        12 => (node.clone(), node.clone()).prop_map(|(a, b)| Step::Arrive(a, b)),
        8 => node.clone().prop_map(Step::Read),
        4 => node.clone().prop_map(Step::Hear),
        1 => node.prop_map(Step::Tick),
    ];
    proptest::collection::vec(step, 0..150)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn all_agree_in_the_end(count in 2..=3_usize, versions in 0..=1_u32, steps in steps()) {
        let mut world = World::new(count, versions);
        for step in &steps {
            world.step(step);
        }
        world.settle();
        world.check();
    }
}

fn handle(state: &mut State, event: Event) -> Vec<Effect> {
    let mut effects = Vec::new();
    state.handle(Duration::ZERO, event, &mut effects);
    effects
}

fn said(node: usize, message: Message) -> Event {
    let node = name(node);
    Event::Received { node, message }
}

fn data(peer: Pid, members: Vec<Pid>) -> Message {
    Message::Data {
        peer,
        version: 0,
        groups: vec![(group(1), members)],
    }
}

#[test]
fn a_peer_speaks_for_itself() {
    let mut state = state(pid(0, 1));
    let members = vec![pid(1, 5), pid(2, 6), pid(0, 7)];
    handle(&mut state, said(1, data(pid(1, 1), members.clone())));
    assert_eq!(state.members(&group(1)), [pid(1, 5)]);
    assert!(handle(&mut state, said(1, data(pid(2, 1), members.clone()))).is_empty());
    assert!(handle(&mut state, said(0, data(pid(0, 1), members))).is_empty());
    assert_eq!(state.members(&group(1)), [pid(1, 5)]);
}

#[test]
fn a_peer_brings_no_more_than_it_may() {
    let mut state = state(pid(0, 1));
    let count = (1 << 20) / crate::limits::PG_MEMBER_BYTES as u32;
    let members = (0..count).map(|id| pid(1, id)).collect();
    let effects = handle(&mut state, said(1, data(pid(1, 1), members)));
    let cut = |e: &&Effect| **e == Effect::TooMany(name(1));
    assert_eq!(effects.iter().filter(cut).count(), 1);
    let there = state.members(&group(1)).len();
    assert!(there > 1000 && there < count as usize, "{there}");
    // Who leaves makes room.
    handle(&mut state, said(1, data(pid(1, 1), vec![])));
    assert_eq!(state.groups().count(), 0);
    handle(
        &mut state,
        said(1, data(pid(1, 1), vec![pid(1, count + 1)])),
    );
    assert_eq!(state.members(&group(1)), [pid(1, count + 1)]);
}

#[test]
fn a_node_without_the_scope_is_asked_again() {
    let mut state = state(pid(0, 1));
    assert_eq!(
        handle(&mut state, Event::Up(name(1))),
        [Effect::Discover(name(1))]
    );
    let mut pauses = Vec::new();
    let mut now = Duration::ZERO;
    for _ in 0..6 {
        let at = state.deadline().unwrap();
        pauses.push((at - now).as_millis());
        now = at;
        let mut effects = Vec::new();
        state.handle(now, Event::Tick, &mut effects);
        assert_eq!(effects, [Effect::Discover(name(1))]);
    }
    assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000]);
    handle(&mut state, said(1, data(pid(1, 1), vec![])));
    assert_eq!(state.deadline(), None);
    // Its scope process ends; the connection is still there.
    handle(&mut state, Event::Down(pid(1, 1)));
    assert!(state.deadline().is_some());
    handle(&mut state, Event::Lost(name(1)));
    assert_eq!(state.deadline(), None);
}

#[test]
fn groups_are_equal_as_in_erlang() {
    let map =
        |pairs: [(i64, Value); 2]| Value::Map(pairs.map(|(k, v)| (Value::from(k), v)).to_vec());
    let inner = |flip: bool| {
        let pairs = [(1, Value::atom("a")), (2, Value::string("b"))];
        let [a, b] = pairs;
        map(if flip { [b, a] } else { [a, b] })
    };
    let one = Value::list([map([(1, inner(false)), (2, inner(false))])]);
    let other = Value::list([map([(2, inner(true)), (1, inner(true))])]);
    let groups = [&one, &other].map(|value| Group::new(value).unwrap());
    assert_eq!(groups[0], groups[1]);
    assert_ne!(
        Group::new(&Value::from(1)).unwrap(),
        Group::new(&Value::from(1.0)).unwrap()
    );
    assert_eq!(Group::new(&one).unwrap().value(), groups[1].value());
    assert!(Group::new(&Value::from(f64::NAN)).is_err());
}

#[test]
fn the_forms_of_each_version() {
    let peer = pid(0, 1);
    let text = |version| {
        let change = |n, joined, left| Change {
            group: group(n),
            joined,
            left,
        };
        let message = Message::Update {
            peer: peer.clone(),
            version,
            changes: vec![
                change(1, vec![], vec![pid(0, 5)]),
                change(2, vec![], vec![pid(0, 5)]),
                change(3, vec![pid(0, 6)], vec![]),
            ],
        };
        let values = message.to_values();
        let again: Vec<Change> = values
            .iter()
            .flat_map(|value| match Message::parse(value) {
                Some(Message::Update { changes, .. }) => changes,
                other => panic!("{other:?}"),
            })
            .collect();
        let Message::Update { changes, .. } = message else {
            unreachable!()
        };
        assert_eq!(again, changes);
        values
            .iter()
            .map(|v| v.as_tuple().unwrap()[0].as_atom().unwrap().to_owned())
            .collect()
    };
    let words: Vec<String> = text(0);
    assert_eq!(words, ["leave", "join"]);
    let words: Vec<String> = text(1);
    assert_eq!(words, ["update"]);
    for nonsense in [
        Value::atom("discover"),
        Value::tuple([]),
        Value::tuple([Value::atom("discover"), Value::from(1)]),
        Value::tuple([Value::atom("$gen_cast"), Value::atom("sync")]),
        Value::tuple([
            Value::atom("leave"),
            peer.into(),
            Value::list([]),
            Value::from(1),
        ]),
    ] {
        assert_eq!(Message::parse(&nonsense), None);
    }
}
