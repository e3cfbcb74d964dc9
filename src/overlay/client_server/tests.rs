//! Rules of one node, and bytes. Whole clusters run in the simulator.

use std::time::Duration;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::message::{decode_file, encode_file};
use super::{ClientServer, Config, Message, Tag};
use crate::limits::{MAX_CONTROL_BYTES, MAX_SERVERS};
use crate::overlay::codec::{DecodeError, Reader};
use crate::overlay::{Contact, Down, Effect, Error, Event, NodeSpec, Overlay, Wire};

type Node = ClientServer<Contact>;
type Said = Message<Contact>;

fn peer(name: &str) -> Contact {
    peer_at(name, 1)
}

fn peer_at(name: &str, port: u16) -> Contact {
    let spec = NodeSpec {
        name: format!("{name}@h").into(),
        listen_addrs: vec![([127, 0, 0, 1], port).into()],
        channels: Vec::new(),
    };
    Contact::new(spec).unwrap()
}

fn peers(names: &str) -> Vec<Contact> {
    names.split_whitespace().map(peer).collect()
}

struct One {
    node: Node,
    rng: SmallRng,
    now: Duration,
}

impl One {
    fn new(tag: Tag) -> Self {
        let config = Config {
            tag,
            ..Config::default()
        };
        Self {
            node: ClientServer::new(config, peer("me")),
            rng: SmallRng::seed_from_u64(1),
            now: Duration::ZERO,
        }
    }

    fn try_event(
        &mut self,
        event: Event<Contact, Said>,
    ) -> (Result<(), Error>, Vec<Effect<Contact, Said>>) {
        let mut effects = Vec::new();
        let done = self
            .node
            .handle(self.now, event, &mut self.rng, &mut effects);
        effects.retain(|e| !matches!(e, Effect::Persist(_) | Effect::MembersChanged));
        (done, effects)
    }

    fn event(&mut self, event: Event<Contact, Said>) -> Vec<Effect<Contact, Said>> {
        let (done, effects) = self.try_event(event);
        done.unwrap();
        effects
    }

    fn says(&mut self, from: &str, message: Said) -> Vec<Effect<Contact, Said>> {
        let from = peer(from);
        self.event(Event::Message { from, message })
    }

    /// A link with a node of this tag comes up.
    fn meet(&mut self, from: &str, tag: Tag, servers: &str) -> Vec<Effect<Contact, Said>> {
        let mut effects = self.event(Event::LinkUp(peer(from)));
        effects.extend(self.says(from, hello(tag, false, servers)));
        if tag.serves() && !self.node.tag().serves() {
            effects.extend(self.says(from, Message::Servers(peers(servers))));
        }
        effects
    }

    fn neighbors(&self) -> Vec<String> {
        let name = |(peer, _): (&Contact, Tag)| peer.name().trim_end_matches("@h").to_owned();
        self.node.neighbors().map(name).collect()
    }

    fn servers(&self) -> Vec<String> {
        let name = |peer: &Contact| peer.name().trim_end_matches("@h").to_owned();
        self.node.servers().map(name).collect()
    }

    fn wait(&mut self, millis: u64) -> Vec<Effect<Contact, Said>> {
        self.now += Duration::from_millis(millis);
        self.event(Event::Tick)
    }
}

fn hello(tag: Tag, asks: bool, servers: &str) -> Said {
    Message::Hello {
        tag,
        asks,
        wants: true,
        joined: false,
        servers: peers(servers),
    }
}

fn wanted(effects: &[Effect<Contact, Said>]) -> Vec<Contact> {
    let want = |effect: &Effect<Contact, Said>| match effect {
        Effect::Want(peer) => Some(peer.clone()),
        _ => None,
    };
    effects.iter().filter_map(want).collect()
}

fn sent(effects: &[Effect<Contact, Said>], to: &str) -> Vec<Said> {
    let said = |effect: &Effect<Contact, Said>| match effect {
        Effect::Send { to: other, message } if *other == peer(to) => Some(message.clone()),
        _ => None,
    };
    effects.iter().filter_map(said).collect()
}

fn released(effects: &[Effect<Contact, Said>], who: &str) -> bool {
    effects.contains(&Effect::Release(peer(who)))
}

#[test]
fn servers_link_with_all_servers_they_hear_of() {
    let mut me = One::new(Tag::Server);
    assert_eq!(wanted(&me.event(Event::Join(peer("s1")))), peers("s1"));
    let effects = me.event(Event::LinkUp(peer("s1")));
    let asks = |m: &Said| {
        matches!(
            m,
            Message::Hello {
                tag: Tag::Server,
                asks: true,
                ..
            }
        )
    };
    assert!(sent(&effects, "s1").iter().all(asks));
    let effects = me.says("s1", hello(Tag::Server, false, "me s2"));
    assert_eq!(wanted(&effects), peers("s2"));
    assert!(effects.contains(&Effect::NeighborUp(peer("s1"))));
    assert!(effects.contains(&Effect::Joined(peer("s1"))));
    // The list has grown, so neighbours hear of it.
    assert!(sent(&effects, "s1").contains(&Message::Servers(peers("s1 s2"))));
    let effects = me.says("s1", Message::Servers(peers("s2 s3")));
    assert_eq!(wanted(&effects), peers("s3"));
    // One that fails stays in the list, and the host goes on dialling it.
    let effects = me.event(Event::LinkDown(peer("s1"), Down::Failed));
    assert_eq!(effects, [Effect::NeighborDown(peer("s1"))]);
    assert_eq!(me.servers(), ["s1", "s2", "s3"]);
    assert_eq!(me.node.members(), peers("me"));
}

#[test]
fn a_client_is_taken_in_and_fails_over() {
    let mut me = One::new(Tag::Client);
    me.event(Event::Join(peer("s1")));
    me.event(Event::LinkUp(peer("s1")));
    // It is no neighbour before the server says so.
    assert_eq!(me.says("s1", hello(Tag::Server, false, "s2 s3")), []);
    let effects = me.says("s1", Message::Servers(peers("s2 s3")));
    assert!(effects.contains(&Effect::Joined(peer("s1"))));
    assert_eq!((me.neighbors().len(), me.servers().len()), (1, 3));
    // A second server is not needed, but its link may serve something else.
    assert!(!released(&me.meet("s2", Tag::Server, "s1 s3"), "s2"));
    assert_eq!(me.neighbors(), ["s1"]);
    me.event(Event::LinkDown(peer("s2"), Down::Planned));
    // At once another one, and after a while the third beside it.
    let effects = me.event(Event::LinkDown(peer("s1"), Down::Failed));
    assert!(released(&effects, "s1"));
    let first = wanted(&effects);
    assert!(first.len() == 1 && first != peers("s1"), "{first:?}");
    let effects = me.wait(1_001);
    let second = wanted(&effects);
    assert_eq!(second.len(), 1, "{second:?}");
    assert_ne!(first, second);
    // The first that answers is kept.
    let second = second[0].name().trim_end_matches("@h").to_owned();
    let effects = me.meet(&second, Tag::Server, "s1 s2 s3");
    assert_eq!(me.neighbors(), [second]);
    assert!(effects.contains(&Effect::Release(first[0].clone())));
    assert_eq!(me.node.deadline(), None);
}

#[test]
fn a_server_out_of_reach_rests_the_longer_the_more_often() {
    let mut me = One::new(Tag::Client);
    me.event(Event::UpdateMembers(peers("s1")));
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let effects = me.event(Event::LinkFailed(peer("s1")));
        assert!(released(&effects, "s1"));
        let at = me.node.deadline().unwrap();
        pauses.push(at - me.now);
        assert_eq!(me.event(Event::Tick), []);
        me.now = at;
        assert_eq!(wanted(&me.event(Event::Tick)), peers("s1"));
    }
    assert!(pauses[0] < Duration::from_millis(751), "{pauses:?}");
    assert!(pauses[7] >= Duration::from_secs(15) && pauses[7] <= Duration::from_secs(45));
}

#[test]
fn clients_send_each_other_to_servers() {
    let mut me = One::new(Tag::Client);
    me.event(Event::Join(peer("c1")));
    me.event(Event::LinkUp(peer("c1")));
    me.says("c1", hello(Tag::Client, false, "s1"));
    let effects = me.says("c1", Message::Servers(peers("s1")));
    assert!(released(&effects, "c1"));
    assert_eq!(wanted(&effects), peers("s1"));
    let effects = me.meet("s1", Tag::Server, "");
    assert!(effects.contains(&Effect::Joined(peer("c1"))));
    // And the other way round; what a client says of servers is no news.
    me.event(Event::LinkUp(peer("c2")));
    let effects = me.says("c2", hello(Tag::Client, true, "s9"));
    assert_eq!(sent(&effects, "c2"), [Message::Servers(peers("s1"))]);
    me.says("c2", Message::Servers(peers("s8")));
    assert_eq!(
        (me.neighbors(), me.servers()),
        (vec!["s1".into()], vec!["s1".into()])
    );
    // One that knows of none is asked again.
    let mut me = One::new(Tag::Client);
    me.event(Event::Join(peer("c1")));
    me.event(Event::LinkUp(peer("c1")));
    me.says("c1", hello(Tag::Client, false, ""));
    me.says("c1", Message::Servers(Vec::new()));
    me.now = me.node.deadline().unwrap();
    assert_eq!(wanted(&me.event(Event::Tick)), peers("c1"));
}

#[test]
fn tags_that_do_not_fit_part_with_a_reason() {
    for (mine, theirs, fits) in [
        (Tag::Server, Tag::Server, true),
        (Tag::Server, Tag::Client, true),
        (Tag::Server, Tag::Undefined, false),
        (Tag::Client, Tag::Undefined, false),
        (Tag::Undefined, Tag::Undefined, true),
        (Tag::Undefined, Tag::Client, false),
        (Tag::Undefined, Tag::Server, false),
    ] {
        let mut me = One::new(mine);
        me.event(Event::Join(peer("x")));
        me.event(Event::LinkUp(peer("x")));
        let (from, message) = (peer("x"), hello(theirs, false, ""));
        let (done, effects) = me.try_event(Event::Message { from, message });
        assert_eq!(done.is_ok(), fits, "{mine:?} and {theirs:?}");
        assert_eq!(released(&effects, "x"), !fits, "{mine:?} and {theirs:?}");
        let up = effects.contains(&Effect::NeighborUp(peer("x")));
        assert_eq!(up, fits, "{mine:?} and {theirs:?}");
        if let Err(error) = done {
            assert!(
                error.to_string().contains("the tag server or client"),
                "{error}"
            );
        }
    }
}

#[test]
fn a_full_server_sends_clients_away_and_they_go() {
    let config = Config {
        tag: Tag::Server,
        max_clients: 1,
        ..Config::default()
    };
    let mut me = One::new(Tag::Server);
    me.node = ClientServer::new(config, peer("me"));
    me.meet("s1", Tag::Server, "");
    me.meet("c1", Tag::Client, "");
    let effects = me.meet("c2", Tag::Client, "");
    let full = Message::Full(peers("s1"));
    assert!(sent(&effects, "c2").contains(&full));
    assert_eq!(me.neighbors(), ["c1", "s1"]);
    let mut client = One::new(Tag::Client);
    client.event(Event::Join(peer("s2")));
    client.event(Event::LinkUp(peer("s2")));
    client.says("s2", hello(Tag::Server, false, "s1"));
    let effects = client.says("s2", full);
    assert!(released(&effects, "s2"));
    assert_eq!(wanted(&effects), peers("s1"));
    let effects = client.meet("s1", Tag::Server, "s2");
    assert!(effects.contains(&Effect::Joined(peer("s2"))));
}

#[test]
fn who_leaves_is_forgotten_and_comes_back_by_joining_only() {
    let mut me = One::new(Tag::Server);
    me.meet("s1", Tag::Server, "");
    me.meet("s2", Tag::Server, "s1");
    me.meet("c1", Tag::Client, "");
    let effects = me.says("s1", Message::Gone(peer("s1")));
    assert!(released(&effects, "s1"));
    for other in ["s2", "c1"] {
        assert_eq!(
            sent(&effects, other)[0],
            Message::Gone(peer("s1")),
            "{other}"
        );
    }
    assert_eq!(me.servers(), ["s2"]);
    // Neither by hearsay, nor by itself, unless it says that it has joined.
    me.says("s2", Message::Servers(peers("s1")));
    assert_eq!(me.servers(), ["s2"]);
    let effects = me.meet("s1", Tag::Server, "s2");
    assert!(sent(&effects, "s1").contains(&Message::Gone(peer("s1"))));
    assert_eq!(me.neighbors(), ["c1", "s2"]);
    let joined = Message::Hello {
        tag: Tag::Server,
        asks: false,
        wants: true,
        joined: true,
        servers: peers("s2"),
    };
    me.says("s1", joined);
    assert_eq!(me.neighbors(), ["c1", "s1", "s2"]);
    // After a minute nobody remembers.
    me.says("s1", Message::Gone(peer("s1")));
    me.wait(61_000);
    me.says("s2", Message::Servers(peers("s1")));
    assert_eq!(me.servers(), ["s1", "s2"]);
}

#[test]
fn who_has_left_says_so_until_it_is_asked_to_join() {
    let mut me = One::new(Tag::Server);
    me.meet("s1", Tag::Server, "s2");
    let effects = me.event(Event::Leave);
    assert_eq!(sent(&effects, "s1"), [Message::Gone(peer("me"))]);
    assert!(released(&effects, "s1") && effects.contains(&Effect::Left));
    let effects = me.meet("s2", Tag::Server, "me s1");
    assert_eq!(sent(&effects, "s2"), [Message::Gone(peer("me"))]);
    let effects = me.says("s2", hello(Tag::Server, true, "s1"));
    let joined = |m: &Said| matches!(m, Message::Hello { joined: false, .. });
    assert!(sent(&effects, "s2").iter().any(joined));
    assert_eq!(me.neighbors(), ["s2"]);
    // Others are told that it is back.
    let effects = me.event(Event::LinkUp(peer("s1")));
    let joined = |m: &Said| matches!(m, Message::Hello { joined: true, .. });
    assert!(sent(&effects, "s1").iter().all(joined));
}

#[test]
fn a_removed_node_is_alone_and_a_client_removes_nobody() {
    let mut me = One::new(Tag::Server);
    me.meet("s1", Tag::Server, "s2");
    me.meet("c1", Tag::Client, "");
    me.says("c1", Message::Gone(peer("me")));
    me.says("c1", Message::Gone(peer("s1")));
    assert_eq!(me.neighbors(), ["c1", "s1"]);
    let effects = me.event(Event::Remove(peer("s2")));
    assert_eq!(sent(&effects, "s1")[0], Message::Gone(peer("s2")));
    assert!(released(&effects, "s2"));
    let effects = me.event(Event::Remove(peer("c1")));
    assert_eq!(sent(&effects, "c1"), [Message::Gone(peer("c1"))]);
    assert!(released(&effects, "c1"));
    let effects = me.says("s1", Message::Gone(peer("me")));
    assert!(effects.contains(&Effect::Left));
    assert_eq!(me.node.members(), peers("me"));
    let mut client = One::new(Tag::Client);
    let (done, _) = client.try_event(Event::Remove(peer("s1")));
    assert!(
        done.unwrap_err()
            .to_string()
            .contains("remove it on a server")
    );
}

#[test]
fn a_stranger_that_thinks_we_are_still_of_its_cluster_does_not_join_two() {
    let mut me = One::new(Tag::Server);
    me.meet("s1", Tag::Server, "s2");
    let effects = me.meet("x1", Tag::Server, "x2 me");
    assert!(sent(&effects, "x1").contains(&Message::Gone(peer("me"))));
    assert_eq!(me.neighbors(), ["s1"]);
    // One that was told of us by ours is none.
    me.meet("s3", Tag::Server, "s2 me");
    assert_eq!(me.neighbors(), ["s1", "s3"]);
    // Nor is one that was told by those whom we are just joining.
    let mut me = One::new(Tag::Server);
    me.event(Event::Join(peer("s1")));
    me.event(Event::LinkUp(peer("y")));
    me.says("y", hello(Tag::Server, true, ""));
    me.meet("s2", Tag::Server, "s1 me");
    assert_eq!(me.neighbors(), ["s2", "y"]);
    // Whoever has forgotten its cluster is brought back.
    let mut me = One::new(Tag::Server);
    me.meet("x1", Tag::Server, "x2 me");
    assert_eq!(me.servers(), ["x1", "x2"]);
}

#[test]
fn updated_members_are_joined_and_the_others_removed() {
    let mut me = One::new(Tag::Server);
    me.meet("s1", Tag::Server, "s2");
    me.meet("c1", Tag::Client, "");
    me.event(Event::UpdateMembers(Vec::new()));
    assert_eq!(me.servers(), ["s1", "s2"]);
    let effects = me.event(Event::UpdateMembers(peers("me s2 s3")));
    assert!(released(&effects, "s1"));
    assert_eq!(wanted(&effects), peers("s3"));
    assert_eq!(
        (me.neighbors(), me.servers()),
        (vec!["c1".into()], vec!["s2".into()])
    );
}

#[test]
fn a_new_address_is_passed_on_and_kept() {
    let mut me = One::new(Tag::Server);
    me.meet("s1", Tag::Server, "");
    me.meet("s2", Tag::Server, "s1");
    me.event(Event::LinkDown(peer("s2"), Down::Failed));
    let from = peer_at("s2", 9);
    me.event(Event::LinkUp(from.clone()));
    let message = hello(Tag::Server, false, "s1");
    let effects = me.event(Event::Message { from, message });
    let [Message::Servers(list)] = &sent(&effects, "s1")[..] else {
        panic!("{effects:?}");
    };
    assert_eq!(list[1].spec().listen_addrs[0].port(), 9);
}

#[test]
fn what_was_kept_is_taken_up() {
    let file = encode_file(&peer("me"), &peers("s1 s2"));
    let mut server = One::new(Tag::Server);
    assert_eq!(
        wanted(&server.event(Event::Loaded(file.clone()))),
        peers("s1 s2")
    );
    let mut client = One::new(Tag::Client);
    assert_eq!(wanted(&client.event(Event::Loaded(file.clone()))).len(), 1);
    let foreign = decode_file(&peer("you"), &file);
    assert!(matches!(foreign, Err(DecodeError::Foreign(_))));
    for n in 0..file.len() {
        let mut bad = file.clone();
        bad[n] ^= 1;
        assert!(decode_file(&peer("me"), &bad).is_err(), "byte {n}");
        assert!(decode_file(&peer("me"), &file[..n]).is_err());
    }
}

fn encode(message: &Said) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(&mut out);
    out
}

fn decode(bytes: &[u8]) -> Result<Said, DecodeError> {
    Said::decode(&mut Reader::new(bytes))
}

#[test]
fn lists_have_a_limit() {
    let many: Vec<Contact> = (0..200).map(|n| peer(&format!("s{n:03}"))).collect();
    let read = decode(&encode(&Message::Servers(many.clone()))).unwrap();
    assert_eq!(read, Message::Servers(many[..MAX_SERVERS].to_vec()));
    assert!(decode(&[1, 2, MAX_SERVERS as u8 + 1]).is_err());
    // Contacts as large as they may be: what is sent can be read.
    let spec = NodeSpec {
        name: "x".repeat(255).into(),
        listen_addrs: vec!["[::1]:1".parse().unwrap(); 64],
        channels: (0..64)
            .map(|n| crate::overlay::MemberChannel {
                name: format!("{n:03}{}", "€".repeat(252)).into(),
                parallelism: 1,
                monotonic: false,
                compression: 0,
            })
            .collect(),
    };
    let huge = vec![Contact::new(spec).unwrap(); MAX_SERVERS];
    let bytes = encode(&Message::Full(huge));
    assert!(bytes.len() < MAX_CONTROL_BYTES);
    assert!(matches!(decode(&bytes), Ok(Message::Full(list)) if list.len() > 10));
}

/// Links are also made for users' messages: they make nobody a neighbour, are not this overlay's to close, and may be used
/// for more later.
#[test]
fn a_link_of_others_makes_no_neighbour_until_it_is_wanted() {
    let unwanted = |tag| Message::Hello {
        tag,
        asks: false,
        wants: false,
        joined: false,
        servers: Vec::new(),
    };
    let mut server = One::new(Tag::Server);
    server.event(Event::LinkUp(peer("c1")));
    let effects = server.says("c1", unwanted(Tag::Client));
    assert_eq!((effects, server.neighbors().len()), (Vec::new(), 0));
    let effects = server.says("c1", hello(Tag::Client, false, ""));
    assert!(sent(&effects, "c1").contains(&Message::Servers(Vec::new())));
    assert_eq!(server.neighbors(), ["c1"]);
    // Two clients.
    let mut client = One::new(Tag::Client);
    client.event(Event::LinkUp(peer("c1")));
    assert_eq!(client.says("c1", unwanted(Tag::Client)), []);
    // A client and a server that isn't its own, until its own fails.
    client.event(Event::Join(peer("s1")));
    client.meet("s1", Tag::Server, "s2");
    client.event(Event::LinkUp(peer("s2")));
    assert_eq!(client.says("s2", hello(Tag::Server, false, "s1")), []);
    assert_eq!(client.says("s2", Message::Servers(Vec::new())), []);
    let effects = client.event(Event::LinkDown(peer("s1"), Down::Failed));
    assert!(!released(&effects, "c1") && !released(&effects, "s2"));
    let wants = |m: &Said| matches!(m, Message::Hello { wants: true, .. });
    assert!(sent(&effects, "s2").iter().all(wants) && wanted(&effects) == peers("s2"));
    client.says("s2", Message::Servers(peers("s1")));
    assert_eq!(client.neighbors(), ["s2"]);
}

fn any_message() -> impl Strategy<Value = Said> {
    let name =
        (0usize..9).prop_map(|n| peer(["me", "s1", "s2", "s3", "s4", "c1", "c2", "x", "y"][n]));
    let list = prop::collection::vec(name.clone(), 0..6);
    let tag = prop::sample::select(vec![Tag::Undefined, Tag::Server, Tag::Client]);
    prop_oneof![
        (
            tag,
            any::<bool>(),
            any::<bool>(),
            any::<bool>(),
            list.clone()
        )
            .prop_map(|(tag, asks, wants, joined, servers)| Message::Hello {
                tag,
                asks,
                wants,
                joined,
                servers
            }),
        list.clone().prop_map(Message::Servers),
        name.prop_map(Message::Gone),
        list.prop_map(Message::Full),
    ]
}

proptest! {
    #[test]
    fn messages_survive(message in any_message()) {
        prop_assert_eq!(decode(&encode(&message)), Ok(message));
    }

    #[test]
    fn garbage_is_refused_or_canonical(
        kind in 0u8..6,
        rest in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let bytes = [&[1, kind][..], &rest].concat();
        if let Ok(message) = decode(&bytes) {
            prop_assert_eq!(encode(&message), bytes);
        }
    }

    /// Whatever peers say, in any order: neighbours have links, a client's are servers, and nothing grows.
    #[test]
    fn nothing_breaks_a_node(
        tag in prop::sample::select(vec![Tag::Undefined, Tag::Server, Tag::Client]),
        events in prop::collection::vec((0usize..9, 0u8..24, any_message()), 0..120),
    ) {
        let mut me = One::new(tag);
        let mut links = std::collections::BTreeSet::new();
        let mut neighbors = std::collections::BTreeSet::new();
        for (who, what, message) in events {
            let from = peer(["s1", "s2", "s3", "s4", "c1", "c2", "x", "y", "z"][who]);
            let event = match what {
                0..4 if links.insert(from.clone()) => Event::LinkUp(from),
                4 if links.remove(&from) => Event::LinkDown(from, Down::Failed),
                5 if links.remove(&from) => Event::LinkDown(from, Down::Planned),
                6 => Event::LinkFailed(from),
                7 => Event::Join(from),
                8 => Event::Leave,
                9 => Event::Remove(from),
                10 => Event::UpdateMembers(peers("s1 s2 c1")),
                11 => {
                    me.now += Duration::from_millis(700);
                    Event::Tick
                }
                _ if links.contains(&from) => Event::Message { from, message },
                _ => Event::Tick,
            };
            let (_, effects) = me.try_event(event);
            for effect in effects {
                match effect {
                    Effect::NeighborUp(peer) => prop_assert!(neighbors.insert(peer)),
                    Effect::NeighborDown(peer) => prop_assert!(neighbors.remove(&peer)),
                    Effect::Release(peer) => {
                        links.remove(&peer);
                    }
                    Effect::Send { to, message } => {
                        prop_assert!(to != peer("me"));
                        prop_assert_eq!(decode(&encode(&message)), Ok(message));
                    }
                    Effect::Want(to) => prop_assert!(to != peer("me")),
                    _ => {}
                }
            }
            prop_assert!(neighbors.is_subset(&links), "{:?} {:?}", neighbors, links);
            let shown: std::collections::BTreeSet<Contact> =
                me.node.neighbors().map(|(peer, _)| peer.clone()).collect();
            prop_assert_eq!(&shown, &neighbors);
            if tag == Tag::Client {
                prop_assert!(me.node.neighbors().all(|(_, tag)| tag == Tag::Server));
            }
            prop_assert!(me.node.servers().all(|server| *server != peer("me")));
            prop_assert!(me.node.deadline().is_none_or(|at| at > me.now));
        }
    }
}
