//! Links with stock nodes under pressure: mailboxes that are full, readers that are busy, peers that do
//! not read, peers that ask for too much.

use std::time::{Duration, Instant};

use partisan::limits::KEPT_BYTES;
use partisan::{LinkError, Notice, SendError, SendOptions, Term, Value};
use sha2::{Digest, Sha256};

#[path = "nodes/mod.rs"]
mod nodes;
#[path = "stock/mod.rs"]
mod stock;
#[path = "stock_links/support.rs"]
mod support;

use support::*;

/// Long enough for what may come to have come, where a test shows that it does not.
const WHILE: Duration = Duration::from_millis(400);

fn atom(name: &str) -> Value {
    Value::atom(name)
}

fn term(parts: impl IntoIterator<Item = Value>) -> Term {
    Value::tuple(parts.into_iter().collect::<Vec<_>>())
        .encode()
        .expect("a term")
}

#[test]
fn a_full_mailbox_holds_up_nobody_else() {
    let Some(world) = World::new() else { return };
    let erl = world.erl("full_beam", "");
    let node = builder("full_rust")
        .mailbox_bytes(64 << 10)
        .distribution(world.distribution())
        .start()
        .expect("a node");
    let rust = node.name();
    let mut busy = node.register("busy").expect("a name");
    let mut other = node.register("other").expect("a name");
    busy.trap_exits(true);

    // Twice a thousand messages for a mailbox that has room for some sixty, then one for another.
    erl.expect(
        &format!(
            "stock_links:serve_after(fun() -> \
               stock_links:burst({{busy, '{rust}'}}, first, 2000, 1000), \
               {{other, '{rust}'}} ! {{marker, 1}} end, oracle)"
        ),
        "ok",
    );
    assert_eq!(numbered(&world.recv(&mut other)), ("marker".into(), 1));

    // The full process calls the very one that has filled it, and a function there.
    let oracle = (erl.name.as_str(), "oracle");
    let question = atom("question").encode().expect("a term");
    let answer = world.run(busy.call(oracle, &question)).expect("an answer");
    assert_eq!(
        answer.decode(),
        Value::tuple([atom("answer"), atom("question")])
    );
    let sum = busy.node().rpc(
        &erl.name,
        "erlang",
        "+",
        vec![1.into(), 2.into()],
        Some(PATIENCE),
    );
    assert_eq!(world.run(sum).expect("a result"), Value::from(3));

    // Ends of others reach it too: of one it monitors, and of one that links to it.
    let helper = "stock_links:serve_after(fun() -> ok end, helper)";
    erl.expect(helper, "ok");
    let monitor = world.run(busy.monitor((erl.name.as_str(), "helper")));
    let sender = node.mailbox().expect("a mailbox");
    let end = term([atom("exit"), atom("enough")]);
    world
        .run(sender.send((&*erl.name, "helper"), &end))
        .expect("sent");
    let down =
        world.run(busy.recv_match(|m| matches!(m.notice.as_deref(), Some(Notice::Down { .. }))));
    match down.expect("it lives").notice.as_deref() {
        Some(Notice::Down {
            reference, reason, ..
        }) => {
            assert_eq!((reference, reason.decode()), (&monitor, atom("enough")));
        }
        other => panic!("{other:?}"),
    }
    let own = Value::from(busy.pid().clone());
    let exiting = busy.node().rpc(
        &erl.name,
        "erlang",
        "exit",
        vec![own, atom("hello")],
        Some(PATIENCE),
    );
    assert_eq!(world.run(exiting).expect("a result"), Value::from(true));
    let exit =
        world.run(busy.recv_match(|m| matches!(m.notice.as_deref(), Some(Notice::Exit { .. }))));
    match exit.expect("it lives").notice.as_deref() {
        Some(Notice::Exit { reason, .. }) => assert_eq!(reason.decode(), atom("hello")),
        other => panic!("{other:?}"),
    }

    // More than is kept: reading pauses, so that the marker behind does not come.
    let count = 2 * KEPT_BYTES as i64 / 1000;
    let bursting = erl.begin(&format!(
        "stock_links:burst({{busy, '{rust}'}}, second, {count}, 1000), \
         {{other, '{rust}'}} ! {{marker, 2}}, ok"
    ));
    let early = world.run(async { tokio::time::timeout(WHILE, other.recv()).await });
    assert!(
        early.is_err(),
        "it comes although too much is kept: {early:?}"
    );

    // Nothing is lost, and the order is kept.
    for n in 0..2000 {
        assert_eq!(numbered(&world.recv(&mut busy)), ("first".into(), n));
    }
    for n in 0..count {
        assert_eq!(numbered(&world.recv(&mut busy)), ("second".into(), n));
    }
    assert_eq!(numbered(&world.recv(&mut other)), ("marker".into(), 2));
    assert_eq!(bursting.wait(PATIENCE).as_deref(), Ok("ok"));
    assert!(busy.try_recv().is_none());
}

#[test]
fn an_exit_ends_a_process_whose_mailbox_is_full() {
    let Some(world) = World::new() else { return };
    let erl = world.erl("exit_beam", "");
    let node = builder("exit_rust")
        .mailbox_bytes(1000)
        .distribution(world.distribution())
        .start()
        .expect("a node");
    let rust = node.name().to_owned();
    let victim = node
        .spawn_named("victim", |_mailbox| std::future::pending::<()>())
        .expect("a process");
    world.run(node.connect(erl.name.as_str())).expect("a link");
    erl.expect(
        &format!(
            "register(killer, spawn(fun() -> receive Pid -> link(Pid), \
               stock_links:burst({{victim, '{rust}'}}, fill, 1000, 100), exit(enough) end end)), ok"
        ),
        "ok",
    );
    let mut watcher = node.mailbox().expect("a mailbox");
    world.run(watcher.monitor(&victim));
    let pid = Value::from(victim).encode().expect("a term");
    world
        .run(watcher.send((&*erl.name, "killer"), &pid))
        .expect("sent");
    match world.recv(&mut watcher).notice.as_deref() {
        Some(Notice::Down { reason, .. }) => assert_eq!(reason.decode(), atom("enough")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_busy_reader_suspends_senders_and_loses_nothing() {
    const SENDERS: usize = 4;
    const COUNT: i64 = 192;
    const BYTES: usize = 64 << 10;
    let Some(world) = World::new() else { return };
    let erl = world.erl("busy_beam", "-kernel net_ticktime 4 +zdbbl 512");
    let node = builder("busy_rust")
        .mailbox_bytes(64 << 10)
        .distribution(world.distribution().tick_time(Duration::from_secs(4)))
        .start()
        .expect("a node");
    let mut reader = node.register("reader").expect("a name");
    let mut events = node.events();
    let rust = node.name();
    erl.expect(
        &format!("stock_links:senders({{reader, '{rust}'}}, {SENDERS}, {COUNT}, {BYTES})"),
        "ok",
    );
    world.run(link_up(&mut events, &erl.name));
    eventually("the senders wait", || {
        erl.eval("stock_links:suspended()").as_deref() == Ok("4")
    });
    // Much longer than the tick time, which both ends hold each other to.
    let pause = world.rt.block_on(async {
        tokio::time::timeout(Duration::from_secs(8), link_down(&mut events, &erl.name)).await
    });
    assert!(pause.is_err(), "the link ends meanwhile: {pause:?}");
    erl.expect("stock_links:suspended()", "4");
    erl.expect(&format!("lists:member('{rust}', nodes(hidden))"), "true");

    let mut next = [0; SENDERS];
    let mut digests: Vec<Sha256> = (0..SENDERS).map(|_| Sha256::new()).collect();
    for _ in 0..SENDERS as i64 * COUNT {
        let (tag, rest) = parts(&world.recv(&mut reader));
        let [Value::Integer(_), _, Value::Binary(_)] = &rest[..] else {
            panic!("{tag}");
        };
        let sender = rest[0].as_i64().expect("a number") as usize;
        let number = rest[1].as_i64();
        assert_eq!(number, Some(next[sender]), "a gap\n{}", log().text());
        next[sender] += 1;
        digests[sender].update(rest[2].as_binary().expect("a binary"));
    }
    let digests: Vec<String> = digests
        .into_iter()
        .enumerate()
        .map(|(k, digest)| {
            let hex: String = digest
                .finalize()
                .iter()
                .map(|b| format!("{b:02X}"))
                .collect();
            format!("{{{k},\"{hex}\"}}")
        })
        .collect();
    erl.expect("stock_links:digests()", &format!("[{}]", digests.join(",")));
    assert!(changes(&mut events).is_empty(), "it was up all the time");
}

#[test]
fn a_peer_that_does_not_read_costs_its_budget_only() {
    const BUDGET: u64 = 1 << 20;
    const BYTES: usize = 10_000;
    let Some(world) = World::new() else { return };
    let erl = world.erl("deaf_beam", "");
    let node = builder("deaf_rust")
        .queue_bytes(BUDGET)
        .distribution(world.distribution())
        .start()
        .expect("a node");
    let rust = node.name();
    world.run(node.connect(erl.name.as_str())).expect("a link");
    erl.expect(&format!("stock_links:sink(sink, '{rust}')"), "ok");
    let sender = node.mailbox().expect("a mailbox");
    let message = |n: i64| {
        let me = Value::from(sender.pid().clone());
        term([atom("seq"), me, n.into()])
    };
    let filler = |n: i64| {
        let me = Value::from(sender.pid().clone());
        term([atom("fill"), me, n.into(), Value::binary(vec![0; BYTES])])
    };
    let to = (erl.name.as_str(), "sink");
    let stopped = Stopped::stop(erl.pid());
    // Until nothing more goes in for a while: the system's buffers are full too.
    let mut sent = 0;
    let mut busy_since = None;
    loop {
        let term = if sent % 2 == 0 {
            message(sent / 2)
        } else {
            filler(sent)
        };
        match sender.node().try_send(to, &term, &SendOptions::new()) {
            Ok(()) => (sent, busy_since) = (sent + 1, None),
            Err(SendError::Busy) => {
                let since: Instant = *busy_since.get_or_insert_with(Instant::now);
                if since.elapsed() > WHILE {
                    break;
                }
                std::thread::yield_now();
            }
            Err(e) => panic!("{e}"),
        }
        assert!(
            node.queued_bytes() <= BUDGET + BYTES as u64 + 1000,
            "after {sent}"
        );
    }
    assert!(
        node.queued_bytes() > BUDGET - 2 * BYTES as u64,
        "no need to refuse"
    );
    let options = SendOptions::new().timeout(WHILE);
    let late = world.run(sender.send_with(to, &filler(0), &options));
    assert_eq!(late, Err(SendError::Timeout));
    let count = (sent + 1) / 2;
    let (last, name) = (message(count), erl.name.clone());
    let waiting = async move { sender.send((&*name, "sink"), &last).await };
    let waiting = world.rt.spawn(waiting);
    drop(stopped);
    let waited = world.run(waiting).expect("no panic");
    waited.expect("there is room again");
    let seen = format!("{}", count + 1);
    eventually("all messages have arrived", || {
        erl.eval("stock_links:count(sink)").as_deref() == Ok(&*seen)
    });
    erl.expect("stock_links:report(sink)", "{0,none}");
    eventually("nothing waits", || node.queued_bytes() == 0);
}

#[test]
fn a_flood_of_monitors_and_links_is_cut() {
    let Some(world) = World::new() else { return };
    let erl = world.erl("flood_beam", "");
    let node = builder("flood_rust")
        .distribution(world.distribution().max_peer_relations(1000))
        .start()
        .expect("a node");
    let rust = node.name();
    node.spawn_named("target", |mut mailbox| async move {
        mailbox.trap_exits(true);
        while let Some(message) = mailbox.recv().await {
            let back = message.term.decode();
            if let Some(pid) = back.as_pid() {
                let me = Value::from(mailbox.pid().clone()).encode().expect("a term");
                let _ = mailbox.send(pid, &me).await;
            }
        }
    })
    .expect("a process");
    let mut events = node.events();
    let get = format!("(fun() -> {{target, '{rust}'}} ! self(), receive P -> P end end)()");
    // Not twice as many as may be: those that come late, by the next link, are no flood.
    for flood in [
        format!("stock_links:monitors({{target, '{rust}'}}, 1500)"),
        format!("stock_links:linkers({get}, 1500)"),
    ] {
        erl.expect(&flood, "cut");
        let why = world.run(link_down(&mut events, &erl.name));
        assert!(
            matches!(&why, LinkError::Protocol(what) if what.contains("more than 1000")),
            "{why:?}"
        );
        // The node lives, and the peer may come again.
        erl.expect(&format!("is_pid({get})"), "true");
    }
    // Nothing is left of them: there is room for as many as may be.
    erl.expect(
        &format!(
            "length([demonitor(M) || _ <- lists:seq(1, 2000), \
               M <- [monitor(process, {{target, '{rust}'}})]])"
        ),
        "2000",
    );
    erl.expect(&format!("is_pid({get})"), "true");
    assert!(node.is_alive());
}
