//! Two honest nodes that send each other acknowledged and causal messages, and liars who send both whatever they like.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use partisan::delivery::causal::Id;
use partisan::delivery::{Config, Effect, Event, Lane, Message, Parcel, State};
use partisan::wire::frame::Dest;

use super::Input;

/// The first two are honest.
const NAMES: [&str; 4] = ["a@h", "b@h", "c@h", "d@h"];

/// Much less than in a node, so that bounds are met.
const BYTES: usize = 4000;

struct Node {
    state: State,
    /// From the other honest node, by lane.
    wire: VecDeque<Message>,
    sent: BTreeMap<Lane, Vec<u32>>,
    delivered: BTreeMap<Lane, Vec<u32>>,
}

struct World {
    nodes: [Node; 2],
    now: Duration,
    linked: bool,
    numbers: u32,
}

fn config() -> Config {
    let mut config = Config::default();
    config.acked.bytes = BYTES;
    config.acked.messages = 40;
    config.acked.hold = 500;
    config.acked.held = 1000;
    config.causal.nodes = 8;
    config.causal.entries = 32;
    config
}

fn name(node: usize) -> Arc<str> {
    NAMES[node].into()
}

fn lane(n: u8) -> Lane {
    match n % 3 {
        0 => Lane::Channel("undefined".into()),
        1 => Lane::Channel("bulk".into()),
        _ => Lane::Label("label".into()),
    }
}

impl World {
    /// An error is what a session ends with.
    fn feed(&mut self, at: usize, event: Event) -> bool {
        let mut effects = Vec::new();
        let outcome = self.nodes[at].state.handle(self.now, event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Ready(to, lane) => self.push(at, &to, &lane),
                Effect::Deliver(from, lane) => self.deliver(at, &from, &lane),
                Effect::Lost(to, ..) => assert!(self.is_liar(&to), "honest messages were lost"),
                Effect::Late(..) | Effect::GivenUp(_) | Effect::Reach(_) | Effect::Room => {}
            }
        }
        let (_, bytes) = self.nodes[at].state.outstanding();
        assert!(bytes <= BYTES, "{bytes} bytes are kept");
        outcome.is_ok()
    }

    fn is_liar(&self, node: &str) -> bool {
        NAMES[2..].contains(&node)
    }

    fn push(&mut self, at: usize, to: &Arc<str>, lane: &Lane) {
        while let Some(message) = self.nodes[at].state.next(to, lane) {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            assert_eq!(Message::decode(&bytes).as_ref(), Ok(&message));
            if **to == *NAMES[1 - at] {
                self.nodes[1 - at].wire.push_back(message.clone());
            }
            assert!(self.feed(at, Event::Sent(to.clone(), message)));
        }
    }

    fn deliver(&mut self, at: usize, from: &Arc<str>, lane: &Lane) {
        let node = &mut self.nodes[at];
        let Some(parcel) = node.state.parcel(from, lane) else {
            return;
        };
        if **from == *NAMES[1 - at] {
            let number = u32::from_be_bytes(parcel.term.try_into().expect("what was sent"));
            let had = node.delivered.entry(lane.clone()).or_default();
            assert!(
                had.last().is_none_or(|last| *last < number),
                "{number} after {had:?}"
            );
            had.push(number);
        }
        self.feed(at, Event::Delivered(from.clone(), lane.clone()));
    }

    fn send(&mut self, from: usize, lane: Lane) {
        let to = name(1 - from);
        let mut parcel = Vec::new();
        let (dest, term) = (Dest::Name("p"), self.numbers.to_be_bytes());
        Parcel { dest, term: &term }.encode(&mut parcel);
        let state = &self.nodes[from].state;
        if state.knows(&to) && state.has_room(&to, &lane, parcel.len()) {
            let sent = self.nodes[from].sent.entry(lane.clone()).or_default();
            sent.push(self.numbers);
            self.numbers += 1;
            self.feed(from, Event::Send(to, lane, Bytes::from(parcel)));
        }
    }

    fn link(&mut self, up: bool) {
        if self.linked == up {
            return;
        }
        self.linked = up;
        for at in 0..2 {
            let other = name(1 - at);
            self.feed(
                at,
                match up {
                    true => Event::Up(other, 2 - at as u64),
                    false => Event::Down(other),
                },
            );
            if !up {
                self.nodes[at].wire.clear();
            }
        }
    }

    /// The next of what is under way to a node.
    fn arrive(&mut self, at: usize) -> bool {
        let Some(message) = self.nodes[at].wire.pop_front() else {
            return false;
        };
        let event = Event::Message(name(1 - at), message);
        assert!(self.feed(at, event), "an honest message was refused");
        true
    }
}

fn node(at: usize) -> Node {
    let own = Id {
        node: name(at),
        instance: 1 + at as u64,
    };
    Node {
        state: State::new(config(), own),
        wire: VecDeque::new(),
        sent: BTreeMap::new(),
        delivered: BTreeMap::new(),
    }
}

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let mut world = World {
        nodes: [node(0), node(1)],
        now: Duration::ZERO,
        linked: false,
        numbers: 0,
    };
    world.link(true);
    for _ in 0..300 {
        if input.is_empty() {
            break;
        }
        let op = input.u8();
        let at = usize::from(op & 1);
        let liar = name(2 + usize::from(op >> 1 & 1));
        match op >> 2 & 15 {
            0..=3 => world.send(at, lane(op >> 6)),
            4..=6 => {
                world.arrive(at);
            }
            7 => world.link(false),
            8 => world.link(true),
            9 => {
                world.feed(at, Event::Up(liar, 1 + u64::from(op >> 6)));
            }
            10 => {
                world.feed(at, Event::Down(liar));
            }
            11 => {
                world.feed(at, Event::Left(liar));
            }
            12 => {
                world.now += Duration::from_millis(u64::from(input.u16()));
                world.feed(at, Event::Tick);
            }
            _ => {
                if let Ok(message) = Message::decode(input.piece())
                    && !world.feed(at, Event::Message(liar.clone(), message))
                {
                    world.feed(at, Event::Down(liar));
                }
            }
        }
    }
    world.link(false);
    world.link(true);
    for _ in 0..20 {
        while world.arrive(0) || world.arrive(1) {}
        world.now += Duration::from_secs(100);
        (0..2).for_each(|at| assert!(world.feed(at, Event::Tick)));
    }
    // Whatever the liars have said. (Causal order may have to wait for what they claim to have sent.)
    for at in 0..2 {
        for (lane, sent) in &world.nodes[at].sent {
            let got = world.nodes[1 - at].delivered.get(lane);
            assert!(
                lane.label().is_some() || got == Some(sent),
                "{sent:?} became {got:?}"
            );
        }
    }
}
