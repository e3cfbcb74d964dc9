//! Rust nodes among themselves, over real sockets.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use partisan::wire::term::{Opaque, Record, TermError};
use partisan::{
    Atom, ClusterError, Node, NodeEvent, RegisterError, SendError, SendOptions, Term, Value,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

#[path = "nodes/mod.rs"]
mod nodes;
#[path = "rust_nodes/support.rs"]
mod support;

use support::*;

#[tokio::test]
async fn two_nodes_echo() {
    within(async {
        let a = builder("echo_a").channel("bulk", 2).start().unwrap();
        let b = builder("echo_b").start().unwrap();
        join(&a, &b).await;
        let mut echo = b.register("echo").unwrap();
        let server = tokio::spawn(async move {
            while let Some(message) = echo.recv().await {
                let [to, tag, term]: [Term; 3] =
                    message.term.elements().unwrap().try_into().unwrap();
                let to = to.decode();
                let reply = Term::tuple(&[tag, term]).unwrap();
                echo.send(to.as_pid().unwrap(), &reply).await.unwrap();
            }
        });
        let mut client = a.mailbox().unwrap();
        let options = SendOptions::new().channel("bulk");
        for (tag, size) in [0, 1, 64, 20_000, 70_000, 8 << 20, 40 << 20]
            .into_iter()
            .enumerate()
        {
            let tag = Value::from(tag as i64);
            let payload = Value::binary((0..size).map(|i| (i % 251) as u8).collect::<Vec<_>>());
            let pid = Value::from(client.pid().clone());
            let question = Value::tuple(vec![pid, tag.clone(), payload.clone()])
                .encode()
                .unwrap();
            client
                .send_with((b.name(), "echo"), &question, &options)
                .await
                .unwrap();
            let answer = client.recv().await.unwrap();
            assert_eq!(&*answer.from, b.name());
            assert!(
                answer.term.decode() == Value::tuple(vec![tag, payload]),
                "{size} bytes"
            );
        }
        b.stop();
        server.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn three_nodes_meet_through_one_member() {
    within(async {
        let [a, b, c] = ["meet_a", "meet_b", "meet_c"].map(|n| builder(n).start().unwrap());
        a.join(b.spec()).await.unwrap();
        c.join(b.spec()).await.unwrap();
        for (x, y) in [(&a, &b), (&b, &c), (&a, &c), (&c, &a)] {
            assert!(x.connected(y.name()).await);
        }
        let mut events = a.events();
        loop {
            let members = a.members().await.unwrap();
            let mut names: Vec<_> = members.iter().map(|m| &*m.name).collect();
            names.sort();
            if names == ["meet_a@127.0.0.1", "meet_b@127.0.0.1", "meet_c@127.0.0.1"] {
                break;
            }
            // A link may come before the news of the member.
            events.recv().await.unwrap();
        }
        assert_eq!(a.nodes().len(), 2);

        b.leave().await.unwrap();
        down(&mut events, b.name()).await;
        assert!(a.is_connected(c.name()));
        assert_eq!(
            a.send((b.name(), "x"), &numbered(0, 0, 0)).await,
            Err(SendError::Disconnected)
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_of_64_senders_over_16_connections() {
    const SIZES: [usize; 8] = [64, 2 << 20, 64, 1000, 70_000, 64, 20_000, 300_000];
    within(async {
        let a = builder("fifo_a")
            .channel("wide", 16)
            .queue_bytes(1 << 20)
            .start()
            .unwrap();
        let b = builder("fifo_b").start().unwrap();
        join(&a, &b).await;
        let mut sink = b.register("sink").unwrap();
        let mut senders = JoinSet::new();
        for sender in 0..64 {
            let mailbox = a.mailbox().unwrap();
            senders.spawn(async move {
                let options = SendOptions::new().channel("wide");
                for (n, size) in SIZES.into_iter().enumerate() {
                    let term = numbered(sender, n as i64, size);
                    mailbox
                        .send_with(("fifo_b@127.0.0.1", "sink"), &term, &options)
                        .await
                        .unwrap();
                }
            });
        }
        let mut next = HashMap::new();
        for _ in 0..64 * SIZES.len() {
            let (sender, n, bytes) = number(&sink.recv().await.unwrap().term);
            let expected = next.entry(sender).or_insert(0);
            assert_eq!(n, *expected, "sender {sender}");
            *expected += 1;
            assert_eq!(bytes.len(), SIZES[n as usize]);
            assert!(bytes.iter().all(|&b| b == n as u8));
        }
        while let Some(done) = senders.join_next().await {
            done.unwrap();
        }
    })
    .await;
}

/// Senders write themselves when the connection is idle, else the I/O thread does: several
/// senders on one connection, with bursts and pauses, make it change all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_between_senders_that_write_and_the_io_thread() {
    const SENDERS: i64 = 4;
    const BURSTS: [i64; 10] = [1, 1, 30, 2, 1, 100, 1, 5, 1, 60];
    const ROUNDS: i64 = 30;
    let gaps = [Some(Duration::ZERO), Some(Duration::from_micros(20)), None];
    for (case, gap) in gaps.into_iter().enumerate() {
        within(async {
            let a = builder(&format!("direct_a{case}"))
                .direct_write(gap)
                .queue_bytes(64 << 10)
                .start()
                .unwrap();
            let b = builder(&format!("direct_b{case}")).start().unwrap();
            join(&a, &b).await;
            let mut sink = b.register("sink").unwrap();
            // Threads, and not tasks: writing happens on the thread that sends.
            let senders: Vec<_> = (0..SENDERS)
                .map(|sender| {
                    let mailbox = a.mailbox().unwrap();
                    let to = format!("direct_b{case}@127.0.0.1");
                    std::thread::spawn(move || {
                        let options = SendOptions::new();
                        let mut n = 0;
                        for round in 0..ROUNDS {
                            for burst in BURSTS {
                                for _ in 0..burst {
                                    // Now and then one that travels in fragments.
                                    let size = if n % 251 == 250 { 70_000 } else { 64 };
                                    let term = numbered(sender, n, size);
                                    mailbox
                                        .send_blocking((to.as_str(), "sink"), &term, &options)
                                        .unwrap();
                                    n += 1;
                                }
                                let pause = (round * 7 + burst + sender) % 5 * 20;
                                std::thread::sleep(Duration::from_micros(pause as u64));
                            }
                        }
                        n
                    })
                })
                .collect();
            let mut next = HashMap::new();
            let total = SENDERS * ROUNDS * BURSTS.iter().sum::<i64>();
            for _ in 0..total {
                let (sender, n, bytes) = number(&sink.recv().await.unwrap().term);
                let expected = next.entry(sender).or_insert(0);
                assert_eq!(n, *expected, "sender {sender}, gap {gap:?}");
                *expected += 1;
                assert!(bytes.iter().all(|&b| b == n as u8));
            }
            for sender in senders {
                assert_eq!(sender.join().unwrap() * SENDERS, total);
            }
            drained(&a).await;
        })
        .await;
    }
}

#[tokio::test]
async fn a_full_mailbox_pauses_its_senders() {
    within(async {
        let a = builder("pause_a").queue_bytes(256 << 10).start().unwrap();
        let b = builder("pause_b").mailbox_bytes(100_000).start().unwrap();
        join(&a, &b).await;
        let mut sink = b.register("sink").unwrap();
        let sent = fill(&a, (b.name(), "sink"), 10_000);
        for n in 0..sent {
            assert_eq!(number(&sink.recv().await.unwrap().term).1, n);
        }
        assert!(sink.try_recv().is_none());
        // Large ones, each over the whole mailbox.
        let sent = fill(&a, (b.name(), "sink"), 200_000);
        for n in 0..sent {
            assert_eq!(number(&sink.recv().await.unwrap().term).1, n);
        }
        drained(&a).await;
    })
    .await;
}

#[tokio::test]
async fn senders_wait_in_bounds() {
    within(async {
        const BUDGET: u64 = 64 << 10;
        const SIZE: usize = 8000;
        let a = builder("wait_a").queue_bytes(BUDGET).start().unwrap();
        let b = builder("wait_b").mailbox_bytes(1).start().unwrap();
        join(&a, &b).await;
        let mut sink = b.register("sink").unwrap();
        let to = ("wait_b@127.0.0.1", "sink");
        let mut sent = fill(&a, to, SIZE);
        let bound = BUDGET + SIZE as u64 + 100;
        // One that has nothing queued may use more than one that has.
        while a
            .clone()
            .try_send(to, &numbered(1, 0, SIZE), &SendOptions::new())
            .is_ok()
        {
            sent += 1;
        }
        assert!(
            a.queued_bytes() <= bound,
            "{} bytes are queued",
            a.queued_bytes()
        );

        let term = numbered(2, 0, SIZE);
        let nosuspend = SendOptions::new().nosuspend();
        assert_eq!(
            a.send_with(to, &term, &nosuspend).await,
            Err(SendError::Busy)
        );
        let brief = SendOptions::new().timeout(Duration::from_millis(20));
        let start = Instant::now();
        assert_eq!(
            a.send_with(to, &term, &brief).await,
            Err(SendError::Timeout)
        );
        assert!(start.elapsed() >= Duration::from_millis(20));
        assert!(a.queued_bytes() <= bound);

        // Futures that are dropped while they wait, or when they have been granted room.
        let mut waiting = JoinSet::new();
        for _ in 0..50 {
            let node = a.clone();
            let term = term.clone();
            waiting.spawn(async move { node.send(to, &term).await });
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(waiting.try_join_next().is_none(), "somebody did not wait");
        let mut received = 0;
        while received < sent / 2 {
            sink.recv().await.unwrap();
            received += 1;
        }
        waiting.abort_all();
        let mut through = 0;
        while let Some(outcome) = waiting.join_next().await {
            match outcome {
                Ok(outcome) => {
                    outcome.unwrap();
                    through += 1;
                }
                Err(e) => assert!(e.is_cancelled()),
            }
        }
        while received < sent + through {
            sink.recv().await.unwrap();
            received += 1;
        }
        drained(&a).await;
        assert!(
            sink.try_recv().is_none(),
            "a message that was not sent has arrived"
        );
    })
    .await;
}

#[tokio::test]
async fn waiters_hear_of_the_end() {
    within(async {
        let a = builder("end_a").queue_bytes(64 << 10).start().unwrap();
        let b = builder("end_b").mailbox_bytes(1).start().unwrap();
        let c = builder("end_c").mailbox_bytes(1).start().unwrap();
        join(&a, &b).await;
        join(&a, &c).await;
        let (_b, _c) = (b.register("sink").unwrap(), c.register("sink").unwrap());
        let mut waiters = Vec::new();
        for (node, peer) in [(&b, "end_b@127.0.0.1"), (&c, "end_c@127.0.0.1")] {
            fill(&a, (node.name(), "sink"), 8000);
            let sender = a.clone();
            waiters.push(tokio::spawn(async move {
                let mut outcome = Ok(());
                while outcome.is_ok() {
                    outcome = sender.send((peer, "sink"), &numbered(0, 0, 8000)).await;
                }
                outcome
            }));
        }
        tokio::task::spawn_blocking(move || b.stop()).await.unwrap();
        assert_eq!(
            waiters.remove(0).await.unwrap(),
            Err(SendError::Disconnected)
        );
        let stopping = a.clone();
        tokio::task::spawn_blocking(move || stopping.stop())
            .await
            .unwrap();
        assert_eq!(waiters.remove(0).await.unwrap(), Err(SendError::NotAlive));
        assert_eq!(
            a.send(("end_c@127.0.0.1", "x"), &numbered(0, 0, 0)).await,
            Err(SendError::NotAlive)
        );
        assert_eq!(a.register("x").unwrap_err(), RegisterError::NotAlive);
        assert_eq!(a.members().await, Err(ClusterError::NotAlive));
    })
    .await;
}

#[tokio::test]
async fn errors_tell_what_is_wrong() {
    within(async {
        let a = builder("err_a")
            .max_message_bytes(100_000)
            .max_term_bytes(10_000)
            .start()
            .unwrap();
        let b = builder("err_b").start().unwrap();
        let term = numbered(0, 0, 10);
        assert_eq!(
            a.send((b.name(), "x"), &term).await,
            Err(SendError::NotYetConnected)
        );
        join(&a, &b).await;
        a.send((b.name(), "nobody"), &term).await.unwrap();
        for name in ["", "partisan_membership", &"x".repeat(256)] {
            let refused = Err(SendError::BadDestination(name.into()));
            assert_eq!(a.send((b.name(), name), &term).await, refused);
            assert_eq!(
                a.register(name).unwrap_err(),
                RegisterError::Name(name.into())
            );
        }
        let nowhere = SendOptions::new().channel("nowhere");
        let refused = Err(SendError::NoChannel("nowhere".into()));
        assert_eq!(a.send_with((b.name(), "x"), &term, &nowhere).await, refused);
        a.send_with((b.name(), "x"), &term, &nowhere.fallback())
            .await
            .unwrap();
        let term_limit = Err(SendError::Limit("max_term_bytes"));
        assert_eq!(
            a.send((b.name(), "x"), &numbered(0, 0, 12_000)).await,
            term_limit
        );
        let message_limit = Err(SendError::Limit("max_message_bytes"));
        assert_eq!(
            a.send((b.name(), "x"), &numbered(0, 0, 200_000)).await,
            message_limit
        );

        // What a VM that is a peer need not know is refused here, not by the peer, which would
        // close the session.
        let record = Value::from(Record {
            module: Atom::new("m"),
            name: Atom::new("r"),
            exported: true,
            fields: vec![(Atom::new("f"), Value::from(1))],
        });
        let local = Opaque::local((&b"y\0\0\0\0a\x01"[..]).into()).unwrap();
        let mut last = b.register("last").unwrap();
        for foreign in [record, Value::list(vec![Value::Local(local)])] {
            let term = foreign.encode().unwrap();
            assert!(matches!(
                a.send((b.name(), "last"), &term).await,
                Err(SendError::Foreign(TermError::Foreign(_)))
            ));
        }
        a.send((b.name(), "last"), &term).await.unwrap();
        assert_eq!(last.recv().await.unwrap().term, term);

        let first = a.register("x").unwrap();
        assert_eq!(
            a.register("x").unwrap_err(),
            RegisterError::Taken("x".into())
        );
        drop(first);
        a.register("x").unwrap();
    })
    .await;
}

#[tokio::test]
async fn mailboxes_of_one_node() {
    within(async {
        let a = builder("here").mailbox_bytes(1000).start().unwrap();
        let mut x = a.register("x").unwrap();
        let me = ("here@127.0.0.1", "x");
        a.send(me, &numbered(0, 0, 2000)).await.unwrap();
        let busy = SendOptions::new().nosuspend();
        assert_eq!(
            a.send_with(me, &numbered(0, 1, 0), &busy).await,
            Err(SendError::Busy)
        );
        let brief = SendOptions::new().timeout(Duration::from_millis(10));
        assert_eq!(
            a.send_with(me, &numbered(0, 1, 0), &brief).await,
            Err(SendError::Timeout)
        );
        let node = a.clone();
        let waiter = tokio::spawn(async move { node.send(me, &numbered(0, 1, 0)).await });
        assert_eq!(number(&x.recv().await.unwrap().term).1, 0);
        assert_eq!(number(&x.recv().await.unwrap().term).1, 1);
        waiter.await.unwrap().unwrap();
        let y = a.mailbox().unwrap();
        y.send(x.pid(), &numbered(0, 2, 0)).await.unwrap();
        assert_eq!(number(&x.recv().await.unwrap().term).1, 2);
        assert!(x.recv_timeout(Duration::from_millis(10)).is_none());
        let blocking = std::thread::spawn(move || x.recv_blocking().map(|m| number(&m.term).1));
        y.send(me, &numbered(0, 3, 0)).await.unwrap();
        assert_eq!(
            tokio::task::spawn_blocking(|| blocking.join())
                .await
                .unwrap()
                .unwrap(),
            Some(3)
        );
    })
    .await;
}

#[tokio::test]
async fn a_node_that_restarts_goes_down_and_comes_up() {
    within(async {
        let a = builder("again_a").start().unwrap();
        let b = builder("again_b").start().unwrap();
        let port = addr(&b);
        let old_pid = b.mailbox().unwrap().pid().clone();
        join(&a, &b).await;
        let mut events = a.events();
        tokio::task::spawn_blocking(move || b.stop()).await.unwrap();
        let b = Node::builder("again_b@127.0.0.1")
            .cookie("secret")
            .listen(port)
            .start()
            .unwrap();
        let mut mailbox = b.mailbox().unwrap();
        assert_eq!(mailbox.pid().id, old_pid.id);
        down(&mut events, b.name()).await;
        up(&mut events, b.name()).await;
        // The predecessor's pid does not mean the successor's mailbox.
        a.send(&old_pid, &numbered(0, 1, 0)).await.unwrap();
        a.send(mailbox.pid(), &numbered(0, 2, 0)).await.unwrap();
        assert_eq!(number(&mailbox.recv().await.unwrap().term).1, 2);
    })
    .await;
}

#[tokio::test]
async fn a_second_node_of_a_name_is_refused() {
    within(async {
        let hub = builder("dup_hub").start().unwrap();
        let first = builder("dup").start().unwrap();
        join(&first, &hub).await;
        let mut events = hub.events();
        let second = builder("dup").start().unwrap();
        second.join(hub.spec()).await.unwrap();
        logged(&["peer=dup@127.0.0.1", "refused", "duplicate name"]).await;
        assert!(!second.is_connected(hub.name()));
        assert!(first.is_connected(hub.name()));
        while let Some(event) = events.try_recv() {
            assert!(!matches!(event, NodeEvent::Down { .. }), "{event:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_wrong_cookie_is_refused() {
    within(async {
        let a = builder("cookie_a").start().unwrap();
        let b = builder("cookie_b").cookie("another").start().unwrap();
        b.join(a.spec()).await.unwrap();
        logged(&["peer=cookie_a@127.0.0.1", "cookie"]).await;
        logged(&["peer=cookie_b@127.0.0.1", "cookie"]).await;
        assert!(!a.is_connected(b.name()) && !b.is_connected(a.name()));
        assert!(a.nodes().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_node_does_not_connect_to_itself() {
    within(async {
        let a = builder("self").start().unwrap();
        assert!(matches!(
            a.join(a.spec()).await,
            Err(ClusterError::Refused(_))
        ));
        // Under another name, the address being wrong.
        a.join(("other@127.0.0.1", addr(&a))).await.unwrap();
        logged(&["peer=other@127.0.0.1"]).await;
        assert!(a.nodes().is_empty());
        // It can still be joined by others.
        let b = builder("self_b").start().unwrap();
        join(&b, &a).await;
    })
    .await;
}

/// Passes connections on, until it is told to reset them.
struct Proxy {
    addr: SocketAddr,
    streams: Arc<Mutex<Vec<tokio::task::AbortHandle>>>,
}

impl Proxy {
    async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let streams = Arc::new(Mutex::new(Vec::new()));
        let open = streams.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let Ok(mut far) = TcpStream::connect(to).await else {
                    continue;
                };
                for stream in [&near, &far] {
                    let socket = socket2::SockRef::from(stream);
                    socket.set_linger(Some(Duration::ZERO)).unwrap();
                }
                let task = tokio::spawn(async move {
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
                open.lock().unwrap().push(task.abort_handle());
            }
        });
        Self { addr, streams }
    }

    /// Resets one of the newest connections, as many as a session has. Older ones may still be
    /// on their way out.
    fn reset(&self, which: usize) {
        let mut streams = self.streams.lock().unwrap();
        let newest = streams.len() - 1;
        streams.remove(newest - which % SESSION).abort();
    }
}

/// Connections of the session that is reset: default channel, membership, and four.
const SESSION: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resets_leave_no_gap_without_a_down_event() {
    const SIZES: [usize; 4] = [64, 1000, 20_000, 70_000];
    within(async {
        // The proxy's target has to be known before the node that has it for its address.
        let (b, proxy) = loop {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let free = listener.local_addr().unwrap();
            drop(listener);
            let proxy = Proxy::start(free).await;
            let b = builder("reset_b").listen(free).advertise(proxy.addr);
            // Somebody else may have taken the port meanwhile.
            if let Ok(b) = b.start() {
                break (b, proxy);
            }
        };
        // Without a listener it cannot be dialled, so all connections go by the proxy.
        let a = Node::builder("reset_a@127.0.0.1")
            .cookie("secret")
            .channel("wide", 4)
            .connection_interval(Duration::from_millis(10))
            .connection_jitter(Duration::from_millis(10))
            .start()
            .unwrap();
        let mut sink = b.register("sink").unwrap();
        let mut downs = b.events();
        let mut ups = a.events();
        a.join((b.name(), proxy.addr)).await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let mut senders = JoinSet::new();
        for sender in 0..8 {
            let (node, stop) = (a.clone(), stop.clone());
            senders.spawn(async move {
                let options = SendOptions::new().channel("wide");
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    let term = numbered(sender, n, SIZES[n as usize % SIZES.len()]);
                    // A message that was refused is tried again: only accepted ones may be lost.
                    match node
                        .send_with(("reset_b@127.0.0.1", "sink"), &term, &options)
                        .await
                    {
                        Ok(()) => n += 1,
                        Err(SendError::Disconnected | SendError::NotYetConnected) => {
                            node.connected("reset_b@127.0.0.1").await;
                        }
                        Err(e) => panic!("{e}"),
                    }
                }
            });
        }
        let done = stop.clone();
        let name: Arc<str> = b.name().into();
        let killer = tokio::spawn(async move {
            for round in 0..20 {
                up(&mut ups, &name).await;
                // Let some load through, as much as a few milliseconds bring.
                tokio::time::sleep(Duration::from_millis(20)).await;
                proxy.reset(round);
                down(&mut ups, &name).await;
            }
            up(&mut ups, &name).await;
            done.store(true, Ordering::Relaxed);
        });
        // For each sender: the next number, and the session that the last one came by.
        let mut next = HashMap::new();
        let mut seen = 0;
        let mut received = 0;
        let mut gaps = 0;
        while !killer.is_finished() || !senders.is_empty() || a.queued_bytes() > 0 {
            while senders.try_join_next().is_some() {}
            let received_now = timeout(Duration::from_millis(20), sink.recv()).await;
            while let Some(event) = downs.try_recv() {
                seen += usize::from(matches!(event, NodeEvent::Down { .. }));
            }
            let Ok(Some(message)) = received_now else {
                continue;
            };
            received += 1;
            let (sender, n, bytes) = number(&message.term);
            assert_eq!(bytes.len(), SIZES[n as usize % SIZES.len()]);
            let (expected, session) = next.entry(sender).or_insert((0, None));
            if n != *expected {
                assert!(n > *expected, "sender {sender}: {n} again");
                assert_ne!(
                    *session, message.session,
                    "sender {sender}: {n} instead of {expected}"
                );
                gaps += 1;
            }
            (*expected, *session) = (n + 1, message.session);
        }
        killer.await.unwrap();
        assert!(seen >= 20, "{seen} down events");
        assert!(received > 100, "{received} messages");
        println!("{received} messages, {gaps} gaps, {seen} downs");
    })
    .await;
}

fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("comm")).ok())
        .filter(|name| name.starts_with("partisan-"))
        .collect()
}

fn sockets() -> usize {
    let fds = std::fs::read_dir("/proc/self/fd").unwrap();
    fds.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok())
        .filter(|to| to.to_string_lossy().starts_with("socket:"))
        .count()
}

/// The process has to be alone with its nodes, so this runs in one of its own.
#[test]
#[ignore = "run by stop_leaves_nothing"]
fn alone_stop_leaves_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let before = runtime.block_on(async { sockets() });
    runtime.block_on(within(async {
        for round in 0..3 {
            let a = builder("stop_a")
                .channel("wide", 8)
                .queue_bytes(64 << 10)
                .start()
                .unwrap();
            let b = builder("stop_b").mailbox_bytes(1).start().unwrap();
            join(&a, &b).await;
            let _sink = b.register("sink").unwrap();
            fill(&a, (b.name(), "sink"), 8000);
            assert!(threads().len() >= 6);
            assert!(sockets() > before + 16);
            if round == 0 {
                // Dropping does the same.
                drop((a, b, _sink));
            } else {
                a.stop();
                b.stop();
            }
            assert_eq!(threads(), Vec::<String>::new());
            assert_eq!(sockets(), before);
        }
    }));
}

#[test]
fn stop_leaves_nothing() {
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "alone_stop_leaves_nothing",
            "--ignored",
            "--nocapture",
        ])
        .status()
        .unwrap();
    assert!(status.success());
}
