//! Several incarnations, nodes and sessions of one name.

use super::*;
use crate::frozen::{is_heard, until_lost};

/// A Rust node that two name servers know, so that there can be two stock nodes of one name.
struct Two {
    world: World,
    other: Epmd,
    node: Node,
    _registration: partisan::distribution::epmd::Registration,
    inbox: Mailbox,
    events: Events,
}

impl Two {
    fn new(name: &str) -> Option<Two> {
        let world = World::new()?;
        let other = Epmd::start(world.release);
        let node = world.node(name);
        let client = partisan::Epmd::on_port(other.port);
        let port = addr(&node).port();
        let registration = world.run(client.register(name, port)).expect("registered");
        let inbox = node.register("inbox").expect("a name");
        let events = node.events();
        Some(Two {
            world,
            other,
            node,
            _registration: registration,
            inbox,
            events,
        })
    }

    /// A stock node that the other name server knows.
    fn elsewhere(&self, name: &str) -> Peer {
        // A name server makes a creation of the time in seconds, and for a name that it has known of the
        // last one: so it differs from that of the node before.
        let client = partisan::Epmd::on_port(self.other.port);
        drop(
            self.world
                .run(client.register(name, 1))
                .expect("registered"),
        );
        eventually("the name is free", || {
            let names = client.names("127.0.0.1".parse().expect("an address"));
            let names = self.world.run(names).expect("it answers");
            names.iter().all(|(known, _)| **known != *name)
        });
        let options = Options::new(name, COOKIE);
        Peer::start(self.world.release, &self.other, &options)
    }

    fn creation(&mut self, name: &str) -> u32 {
        self.world.run(link_up(&mut self.events, name))
    }
}

#[test]
fn a_restarted_node_takes_the_place_of_its_frozen_predecessor() {
    let Some(mut two) = Two::new("twice_rust") else {
        return;
    };
    let rust = two.node.name().to_owned();
    let first = two.world.erl("twice_beam", "");
    first.expect(&format!("stock_links:chatter({{inbox, '{rust}'}})"), "ok");
    let old = two.creation(&first.name);
    let spare = two.node.mailbox().expect("a mailbox");
    let mut listening = std::mem::replace(&mut two.inbox, spare);
    let listening = two.world.rt.spawn(async move {
        let heard = until_lost(&mut listening).await;
        (heard, listening)
    });
    is_heard(&first);
    let stopped = Stopped::stop(first.pid());
    let second = two.elsewhere("twice_beam");
    second.expect(&format!("{{inbox, '{rust}'}} ! {{again, 1}}, ok"), "ok");
    // All of the old one, its end, and only then the new one.
    let (heard, inbox) = two.world.run(listening).expect("no gap");
    two.inbox = inbox;
    assert!(heard > 0);
    assert_eq!(
        numbered(&two.world.recv(&mut two.inbox)),
        ("again".into(), 1)
    );
    let why = two.world.run(link_down(&mut two.events, &first.name));
    assert_eq!(why.to_string(), "the node has connected anew");
    assert_ne!(two.creation(&second.name), old);
    drop(stopped);
    let sent: i64 = first
        .eval("stock_links:chatted()")
        .expect("it goes on")
        .parse()
        .expect("a number");
    assert!(sent >= heard);
    second.expect(&format!("{{inbox, '{rust}'}} ! {{again, 2}}, ok"), "ok");
    assert_eq!(
        numbered(&two.world.recv(&mut two.inbox)),
        ("again".into(), 2)
    );
    assert!(changes(&mut two.events).is_empty());
}

#[test]
fn a_second_node_of_one_name() {
    let Some(mut two) = Two::new("names_rust") else {
        return;
    };
    let rust = two.node.name().to_owned();
    echo(&two.node);
    let first = two.world.erl("names_beam", "");
    first.expect(&hello(&rust), "hello");
    two.creation(&first.name);
    // It is asked whether it insists, and it does; that happens to stock nodes too.
    let watching = first.begin(&format!(
        "true = monitor_node('{rust}', true), \
         {{inbox, '{rust}'}} ! {{watching, 1}}, receive {{nodedown, N}} -> N end"
    ));
    two.world.recv(&mut two.inbox);
    let second = two.elsewhere("names_beam");
    second.expect(&hello(&rust), "hello");
    two.world.run(link_down(&mut two.events, &first.name));
    two.creation(&second.name);
    let down = watching.wait(PATIENCE);
    assert_eq!(down.as_deref(), Ok(&*format!("'{rust}'")));
    logged(&["names_beam", "is down", "the node has connected anew"]);
    assert_eq!(two.node.links().len(), 1);

    // Nobody has this node's own name: neither who dials it nor who starts beside it.
    let (to, node) = (addr(&two.node), two.node.name());
    let same = two.world.run(shake(to, node, node, Purpose::Stock));
    assert!(same.is_err());
    let third = builder("names_rust").distribution(two.world.distribution());
    match third.start() {
        Err(e @ StartError::Epmd(_)) => {
            assert!(e.to_string().contains("names_rust"), "{e}");
        }
        other => panic!("{other:?}"),
    }
    second.expect(&hello(&rust), "hello");
}

#[test]
fn a_late_connection_of_an_old_session_is_refused() {
    let Some(world) = World::new() else { return };
    let node = world.node("late_rust");
    echo(&node);
    let erl = world.erl("late_beam", "");
    let mut events = node.events();
    erl.expect(&hello(node.name()), "hello");
    world.run(link_up(&mut events, &erl.name));
    // A session of the same name begins, and comes to nothing.
    let (to, rust) = (addr(&node), node.name());
    let (first, established) = world
        .run(shake(to, rust, &erl.name, Purpose::First))
        .expect("it knows the cookie");
    let Link::First(session) = established.link else {
        panic!("{:?}", established.link);
    };
    drop(first);
    // What belongs to it comes too late, though it proves that it does.
    for index in [1, 7] {
        let purpose = Purpose::Extra { session, index };
        let (mut extra, _) = world
            .run(shake(to, rust, &erl.name, purpose))
            .expect("the binding is authentic");
        assert!(world.run(is_closed(&mut extra)));
    }
    logged(&["late_beam", "a session that is not being set up"]);
    erl.expect(&hello(rust), "hello");
    assert!(changes(&mut events).is_empty());
}

#[test]
fn a_member_and_a_stock_node_of_one_name_through_one_listener() {
    let Some(world) = World::new() else { return };
    let hub = world.node("hub_rust");
    let mut inbox = hub.register("inbox").expect("a name");
    let mut events = hub.events();
    let name = "both@127.0.0.1";
    let member = builder("both").start().expect("a node");
    let mut members = member.register("inbox").expect("a name");
    let erl = world.erl("both", "");
    let collect = "register(inbox, self()), receive {to_stock, N} -> N end";
    let collecting = erl.begin(&format!(
        "true = net_kernel:connect_node('{}'), {collect}",
        hub.name()
    ));
    world.run(link_up(&mut events, name));
    eventually("it collects", || {
        erl.eval("is_pid(whereis(inbox))").as_deref() == Ok("true")
    });
    world.run(member.join(hub.spec())).expect("alive");
    assert!(world.run(hub.connected(name)));
    assert!(world.run(member.connected(hub.name())));

    // Each way leads to its own node.
    let stock = SendOptions::new().distribution();
    let to_stock = tuple([atom("to_stock"), 1.into()]);
    let sent = world.run(hub.send_with((name, "inbox"), &to_stock, &stock));
    sent.expect("there is a link");
    assert_eq!(collecting.wait(PATIENCE).as_deref(), Ok("1"));
    let to_member = tuple([atom("to_member"), 2.into()]);
    let sent = world.run(hub.send((name, "inbox"), &to_member));
    sent.expect("there is a session");
    assert_eq!(numbered(&world.recv(&mut members)), ("to_member".into(), 2));
    erl.expect(
        &format!("{{inbox, '{}'}} ! {{stock, 3}}, ok", hub.name()),
        "ok",
    );
    let message = world.recv(&mut inbox);
    assert_eq!(
        (numbered(&message), message.session),
        (("stock".into(), 3), None)
    );
    let from_member = tuple([atom("member"), 4.into()]);
    let sent = world.run(member.send((hub.name(), "inbox"), &from_member));
    sent.expect("there is a session");
    let message = world.recv(&mut inbox);
    assert_eq!(numbered(&message), ("member".into(), 4));
    assert!(message.session.is_some());

    // The end of the one is not the end of the other.
    changes(&mut events);
    assert!(world.run(hub.disconnect(name)).expect("alive"));
    let down = world.run(async {
        loop {
            match events.recv().await.expect("alive") {
                NodeEvent::Down { node, .. } if *node == *name => return true,
                NodeEvent::LinkDown { .. } => return false,
                _ => {}
            }
        }
    });
    assert!(down, "the link ends with the session");
    assert!(world.run(hub.connected(name)), "a member is dialled again");
    assert!(world.run(hub.disconnect_link(name)).expect("alive"));
    world.run(link_down(&mut events, name));
    assert!(hub.is_connected(name));
    erl.expect(
        &format!("{{inbox, '{}'}} ! {{stock, 5}}, ok", hub.name()),
        "ok",
    );
    assert_eq!(numbered(&world.recv(&mut inbox)), ("stock".into(), 5));
}
