//! Two honest nodes and liars around them, who send made-up membership messages and change those
//! of the honest.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use partisan::limits::{MAX_CONTROL_BYTES, MAX_MEMBERS};
use partisan::overlay::full_mesh::{Config, Effect, Event, State};
use partisan::overlay::{MemberChannel, NodeSpec};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::Input;

const NAMES: [&str; 4] = ["a@h", "b@h", "c@h", "d@h"];

fn spec(node: usize, version: u8) -> NodeSpec {
    NodeSpec {
        name: NAMES[node].into(),
        listen_addrs: vec![([127, 0, 0, 1], 4000 + u16::from(version)).into()],
        channels: vec![MemberChannel {
            name: "bulk".into(),
            parallelism: 2,
            monotonic: false,
            compression: 0,
        }],
    }
}

struct Node {
    index: usize,
    state: State,
    inbox: VecDeque<(usize, Arc<[u8]>)>,
    kept: Option<Vec<u8>>,
}

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let mut rng = StdRng::seed_from_u64(1);
    let mut nodes: Vec<Node> = (0..2)
        .map(|index| Node {
            index,
            state: State::new(Config::default(), spec(index, 0)).expect("valid"),
            inbox: VecDeque::new(),
            kept: None,
        })
        .collect();
    let mut now = Duration::ZERO;
    for _ in 0..200 {
        if input.is_empty() {
            break;
        }
        now += Duration::from_secs(3);
        let op = input.u8();
        let at = usize::from(op & 1);
        let peer = usize::from(op >> 1 & 3);
        let name: Arc<str> = NAMES[peer].into();
        let event = match op >> 3 {
            0..=4 => {
                let Some((from, bytes)) = nodes[at].inbox.pop_front() else {
                    continue;
                };
                let mut bytes = bytes.to_vec();
                if op >> 3 == 4 {
                    // A member that lies: somebody else's words, changed.
                    let (index, with) = (usize::from(input.u16()), input.u8());
                    let index = index % bytes.len();
                    bytes[index] ^= with;
                }
                Event::Message {
                    from: NAMES[from].into(),
                    bytes,
                }
            }
            5..=8 => Event::Message {
                from: name,
                bytes: input.piece().to_vec(),
            },
            9..=12 => Event::LinkUp(name),
            13..=15 => Event::LinkDown(name),
            16..=19 => Event::Join(spec(peer, input.u8())),
            20 | 21 => Event::Remove(name),
            22 => Event::Leave,
            23 | 24 => Event::Periodic,
            25 => Event::SelfSpec(spec(peer, input.u8())),
            26 => Event::UpdateMembers((0..=peer).map(|n| spec(n, 1)).collect()),
            27 => Event::Loaded(nodes[at].kept.clone().unwrap_or_default()),
            _ => Event::Loaded(input.piece().to_vec()),
        };
        let mut effects = Vec::new();
        let outcome = nodes[at].state.handle(now, event, &mut rng, &mut effects);
        let _ = outcome.map_err(|e| e.to_string());
        check(&mut nodes, at, effects);
    }
}

fn check(nodes: &mut [Node], at: usize, effects: Vec<Effect>) {
    for effect in effects {
        match effect {
            Effect::Send { to, bytes } => {
                assert!(bytes.len() <= MAX_CONTROL_BYTES);
                let to = NAMES.iter().position(|name| **name == *to);
                if let Some(node) = to.and_then(|to| nodes.get_mut(to))
                    && node.index != at
                    && node.inbox.len() < 64
                {
                    // What an honest node sends can be read.
                    let mut probe = State::new(Config::default(), spec(3, 0)).expect("valid");
                    let event = Event::Message {
                        from: NAMES[at].into(),
                        bytes: bytes.to_vec(),
                    };
                    let mut rng = StdRng::seed_from_u64(1);
                    probe
                        .handle(Duration::ZERO, event, &mut rng, &mut Vec::new())
                        .expect("an honest message");
                    node.inbox.push_back((at, bytes));
                }
            }
            Effect::MembersChanged(members) => {
                assert!(members.iter().any(|m| *m.name == *NAMES[at]));
                assert!(members.is_sorted_by(|a, b| a.name < b.name));
                assert!(members.len() <= MAX_MEMBERS);
            }
            Effect::Wanted(specs) => assert!(specs.iter().all(|s| *s.name != *NAMES[at])),
            Effect::Persist(bytes) => nodes[at].kept = Some(bytes),
            Effect::Disconnect { .. } | Effect::Left | Effect::Joined(_) => {}
        }
    }
    let own = nodes[at].state.members().member(NAMES[at]);
    assert!(own.is_some(), "a node lost itself");
}
