//! Two honest nodes and liars around them, who send made-up membership messages and change those
//! of the honest.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use partisan::limits::{MAX_CONTROL_BYTES, MAX_MEMBERS};
use partisan::overlay::hyparview::HyParView;
use partisan::overlay::membership::{Input as Event, Membership, Output};
use partisan::overlay::switch::{self, Choice, Switch};
use partisan::overlay::{Contact, Down, MemberChannel, NodeSpec, full_mesh, hyparview};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::Input;

/// A message of the overlay, and that there is a link for it.
const INNER: [u8; 18] = [1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const LINK: [u8; 22] = [
    1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
];

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
    state: Membership,
    inbox: VecDeque<(usize, Vec<u8>)>,
    kept: Option<Vec<u8>>,
}

fn state(node: usize) -> Membership {
    let own = Contact::new(spec(node, 0)).expect("valid");
    let mesh = Choice {
        name: "full_mesh",
        is_whole: true,
        is_entry: true,
        make: Box::new(|own| Box::new(full_mesh::State::new(full_mesh::Config::default(), own))),
    };
    let partial = Choice {
        name: "hyparview",
        is_whole: false,
        is_entry: true,
        make: Box::new(|own| Box::new(HyParView::new(hyparview::Config::default(), own))),
    };
    let config = switch::Config::default();
    Membership::new(own.clone(), Switch::new(config, own, mesh, vec![partial]))
}

fn feed(state: &mut Membership, now: Duration, event: Event) -> (bool, Vec<Output>) {
    let mut outputs = Vec::new();
    let mut rng = StdRng::seed_from_u64(1);
    let outcome = state.handle(now, event, &mut rng, &mut outputs);
    (outcome.map_err(|e| e.to_string()).is_ok(), outputs)
}

/// What a node says first over a link.
fn hello(node: usize, to: usize) -> Vec<u8> {
    let (_, outputs) = feed(
        &mut state(node),
        Duration::ZERO,
        Event::LinkUp(NAMES[to].into()),
    );
    match outputs.into_iter().next() {
        Some(Output::Send(_, bytes)) => bytes,
        other => panic!("no hello: {other:?}"),
    }
}

pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let mut nodes: Vec<Node> = (0..2)
        .map(|index| Node {
            index,
            state: state(index),
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
                let Some((from, mut bytes)) = nodes[at].inbox.pop_front() else {
                    continue;
                };
                if op >> 3 == 4 {
                    // A member that lies: somebody else's words, changed.
                    let (index, with) = (usize::from(input.u16()), input.u8());
                    let index = index % bytes.len();
                    bytes[index] ^= with;
                }
                Event::Bytes(NAMES[from].into(), bytes)
            }
            5 => Event::Bytes(name, [&[1], input.piece()].concat()),
            6 | 7 => Event::Bytes(name, [&INNER, input.piece()].concat()),
            8 => Event::Bytes(name, input.piece().to_vec()),
            9..=12 => {
                let (_, outputs) = feed(&mut nodes[at].state, now, Event::LinkUp(name.clone()));
                check(&mut nodes, at, outputs);
                let hello = Event::Bytes(name.clone(), hello(peer, at));
                let (_, outputs) = feed(&mut nodes[at].state, now, hello);
                check(&mut nodes, at, outputs);
                Event::Bytes(name, LINK.to_vec())
            }
            13 | 14 => Event::LinkDown(name, Down::Failed),
            15 => Event::LinkDown(name, Down::Planned),
            16..=19 => Event::Join(spec(peer, input.u8())),
            20 | 21 => Event::Remove(name),
            22 => Event::Leave,
            23 | 24 => Event::Tick,
            25 => Event::LinkFailed(name),
            26 => Event::UpdateMembers((0..=peer).map(|n| spec(n, 1)).collect()),
            28 => Event::Switch(["full_mesh", "hyparview"][peer & 1].into()),
            27 => Event::Loaded(nodes[at].kept.clone().unwrap_or_default()),
            _ => Event::Loaded(input.piece().to_vec()),
        };
        let (_, outputs) = feed(&mut nodes[at].state, now, event);
        check(&mut nodes, at, outputs);
    }
}

fn check(nodes: &mut [Node], at: usize, outputs: Vec<Output>) {
    for output in outputs {
        match output {
            Output::Send(to, bytes) => {
                assert!(bytes.len() <= MAX_CONTROL_BYTES);
                let to = NAMES.iter().position(|name| **name == *to);
                if let Some(node) = to.and_then(|to| nodes.get_mut(to))
                    && node.index != at
                    && node.inbox.len() < 64
                    && bytes[0] != 0
                {
                    // What an honest node sends can be read.
                    let mut probe = state(3);
                    let link = Event::LinkUp(NAMES[at].into());
                    feed(&mut probe, Duration::ZERO, link);
                    for bytes in [&hello(at, 3), &bytes] {
                        let event = Event::Bytes(NAMES[at].into(), bytes.clone());
                        let (read, _) = feed(&mut probe, Duration::ZERO, event);
                        assert!(read, "an honest message was refused");
                    }
                    node.inbox.push_back((at, bytes));
                }
            }
            Output::MembersChanged => {
                let members = nodes[at].state.members();
                assert!(members.iter().any(|m| *m.name == *NAMES[at]));
                assert!(members.is_sorted_by(|a, b| a.name < b.name));
                assert!(members.len() <= MAX_MEMBERS);
            }
            Output::Want(spec) => assert_ne!(*spec.name, *NAMES[at]),
            Output::Persist(bytes) => nodes[at].kept = Some(bytes),
            Output::Release(_) | Output::Left | Output::Joined(_) => {}
            Output::NeighborUp(name) | Output::NeighborDown(name) => {
                assert_ne!(*name, *NAMES[at]);
            }
        }
    }
    let members = nodes[at].state.members();
    let own = members.iter().any(|m| *m.name == *NAMES[at]);
    assert!(own, "a node lost itself");
}
