//! Many who come at once.

use super::*;

#[test]
fn a_thousand_nodes_dial_at_once() {
    const NODES: usize = 1000;
    let Some(world) = World::new() else { return };
    let node = world.node("crowd_rust");
    echo(&node);
    let erl = world.erl("crowd_beam", "");
    let (rust, to) = (node.name().to_owned(), addr(&node));
    let dialling = world.rt.spawn(async move {
        let mut dials = JoinSet::new();
        for n in 0..NODES {
            let rust = rust.clone();
            let name = format!("crowd{n}@127.0.0.1");
            dials.spawn(async move { shake(to, &rust, &name, Purpose::Stock).await });
        }
        let mut streams = Vec::new();
        while let Some(dialled) = dials.join_next().await {
            streams.push(dialled.expect("no panic").expect("it gets in").0);
        }
        streams
    });
    // A real one among them.
    erl.expect(&hello(node.name()), "hello");
    let streams = world.run(dialling).expect("all get in");
    assert_eq!(streams.len(), NODES);
    eventually("a link with each", || node.links().len() == NODES + 1);
    drop(streams);
    eventually("a link with one", || node.links().len() == 1);
    erl.expect(&hello(node.name()), "hello");
}

#[test]
fn silent_strangers_do_not_hold_the_door() {
    let Some(world) = World::new() else { return };
    let node = world.node("door_rust");
    let to = addr(&node);
    let mut strangers: Vec<TcpStream> = world.run(async {
        let mut all = Vec::new();
        for _ in 0..MAX_UNAUTHENTICATED {
            all.push(TcpStream::connect(to).await.expect("it listens"));
        }
        all
    });
    let began = Instant::now();
    let dialled = shake(to, node.name(), "guest@127.0.0.1", Purpose::Stock);
    let (guest, _) = world.run(dialled).expect("it gets in");
    let took = began.elapsed();
    assert!(took < CROWDED_HANDSHAKE_TIMEOUT * 2, "{took:?}");
    logged(&["connections have to wait"]);
    eventually("there is a link", || node.links().len() == 1);
    // Who has said nothing has been sent away, at the latest in his own time.
    world.run(async {
        for stranger in &mut strangers {
            assert!(is_closed(stranger).await);
        }
    });
    drop(guest);
}

#[test]
fn a_thousand_senders_make_one_link() {
    const SENDERS: i64 = 1000;
    let Some(world) = World::new() else { return };
    let node = world.node("one_rust");
    let erl = world.erl("one_beam", "");
    erl.expect(
        "register(sink, spawn(fun() -> (fun Loop(N) -> receive {count, P} -> P ! {count, N}, Loop(N); \
           _ -> Loop(N + 1) end end)(0) end)), ok",
        "ok",
    );
    let mut events = node.events();
    world.run(async {
        let mut senders = JoinSet::new();
        for n in 0..SENDERS {
            let (mailbox, to) = (node.mailbox().expect("a mailbox"), erl.name.clone());
            senders.spawn(async move {
                let term = tuple([atom("one"), n.into()]);
                mailbox.send((&*to, "sink"), &term).await
            });
        }
        while let Some(sent) = senders.join_next().await {
            sent.expect("no panic").expect("sent");
        }
    });
    eventually("all messages have arrived", || {
        erl.eval("sink ! {count, self()}, receive {count, N} -> N end")
            .as_deref()
            == Ok("1000")
    });
    assert_eq!(changes(&mut events), [(erl.name.clone(), true)]);
    erl.expect("nodes(hidden)", &format!("['{}']", node.name()));
}

/// Both ends dial at once, again and again.
fn meet(rust: &str, beam: &str) {
    let Some(world) = World::new() else { return };
    let node = world.node(rust);
    let erl = world.erl(beam, "");
    let mut inbox = node.register("inbox").expect("a name");
    let mut events = node.events();
    let rust = node.name().to_owned();
    erl.expect("stock_links:greeter()", "ok");
    for round in 0..50_i64 {
        let theirs = erl.begin(&format!(
            "Up = net_kernel:connect_node('{rust}'), {{inbox, '{rust}'}} ! {{round, {round}}}, Up"
        ));
        // From before the other end's dial to after it.
        std::thread::sleep(Duration::from_micros(150) * (round % 10) as u32);
        let ours = world.run(node.connect(erl.name.as_str()));
        ours.unwrap_or_else(|e| panic!("round {round}: {e}\n{}", log().text()));
        let greeting = tuple([atom("round"), round.into()]);
        let sent = world.run(inbox.send((&*erl.name, "greeter"), &greeting));
        sent.expect("there is a link");
        let theirs = theirs.wait(PATIENCE);
        assert_eq!(theirs.as_deref(), Ok("true"), "round {round}");
        erl.expect(&format!("stock_links:greeted({round})"), "ok");
        assert_eq!(numbered(&world.recv(&mut inbox)), ("round".into(), round));
        assert_eq!(
            changes(&mut events),
            [(erl.name.clone(), true)],
            "round {round}"
        );
        erl.expect("nodes(hidden)", &format!("['{rust}']"));
        if round % 2 == 0 {
            let ended = world.run(node.disconnect_link(erl.name.as_str()));
            assert!(ended.expect("the node lives"));
        } else {
            erl.expect(&format!("erlang:disconnect_node('{rust}')"), "true");
        }
        world.run(link_down(&mut events, &erl.name));
        eventually("it is down there too", || {
            erl.eval("nodes(hidden)").as_deref() == Ok("[]")
        });
    }
}

#[test]
fn both_dial_at_once_and_the_rust_node_has_the_lesser_name() {
    meet("a_rust", "b_beam");
}

#[test]
fn both_dial_at_once_and_the_rust_node_has_the_greater_name() {
    meet("b_rust", "a_beam");
}
