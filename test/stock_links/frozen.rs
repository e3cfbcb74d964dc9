//! Nodes that freeze: noticed in time, and nothing of them comes after their end was told.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use super::*;

/// `net_ticktime` of both ends, in seconds.
const TICK_TIME: u64 = 4;

/// Set for the process that is the frozen Rust node: the port of its EPMD.
const CHILD: &str = "STOCK_LINKS_CHILD";

/// Within three and five quarters of the tick time.
#[track_caller]
fn assert_in_time(noticed: Duration) {
    let time = Duration::from_secs(TICK_TIME);
    println!("noticed after {noticed:?}");
    assert!(noticed >= time.mul_f64(0.75), "{noticed:?}");
    assert!(
        noticed <= time.mul_f64(1.25) + Duration::from_secs(1),
        "{noticed:?}"
    );
}

/// Sends `{seq, Pid, N}`, a few at a time, until the link goes. It does not ask for another one, as sending
/// does that waits.
async fn chatter(mailbox: Mailbox, to: (String, &'static str)) {
    let me = Value::from(mailbox.pid().clone());
    let mut pause = tokio::time::interval(Duration::from_millis(1));
    for n in 0_i64.. {
        if n % 20 == 0 {
            pause.tick().await;
        }
        let term = tuple([atom("seq"), me.clone(), n.into()]);
        let at_once = SendOptions::new().nosuspend();
        while let Err(why) = mailbox.send_with((&*to.0, to.1), &term, &at_once).await {
            if why != SendError::Busy || mailbox.node().links().is_empty() {
                return;
            }
            pause.tick().await;
        }
    }
}

/// Holds what a chatter sends to its order; returns how many there were when its node was lost.
pub(crate) async fn until_lost(mailbox: &mut Mailbox) -> i64 {
    let mut next = 0;
    loop {
        let message = mailbox.recv().await.expect("the node lives");
        match message.notice.as_deref() {
            Some(Notice::Down { reason, .. }) => {
                assert_eq!(reason.decode(), atom("noconnection"));
                return next;
            }
            Some(other) => panic!("{other:?}"),
            None => {}
        }
        let (_, parts) = parts(&message);
        assert_eq!(parts[1].as_i64(), Some(next), "a gap");
        if next == 0 {
            let pid = parts[0].as_pid().expect("a pid").clone();
            mailbox.monitor(&pid).await;
        }
        next += 1;
    }
}

/// Waits until somebody monitors the chatter.
pub(crate) fn is_heard(erl: &Peer) {
    eventually("somebody listens", || {
        let watchers = "length(element(2, process_info(whereis(chatter), monitored_by)))";
        erl.eval(watchers).as_deref() == Ok("1")
    });
}

#[test]
fn a_frozen_stock_node_is_noticed() {
    let Some(world) = World::new() else { return };
    let ticks = format!("-kernel net_ticktime {TICK_TIME}");
    let erl = world.erl("ice_beam", &ticks);
    let tick_time = Duration::from_secs(TICK_TIME);
    let distribution = world.distribution().tick_time(tick_time);
    let node = builder("watching_rust").distribution(distribution);
    let node = node.start().expect("a node");
    let rust = node.name().to_owned();
    let mut inbox = node.register("inbox").expect("a name");
    let mut events = node.events();
    world.run(node.connect(erl.name.as_str())).expect("a link");
    erl.expect(&format!("stock_links:sink(sink, '{rust}')"), "ok");
    erl.expect(&format!("stock_links:chatter({{inbox, '{rust}'}})"), "ok");
    let talking = node.mailbox().expect("a mailbox");
    world.rt.spawn(chatter(talking, (erl.name.clone(), "sink")));
    eventually("both talk", || {
        let count = erl.eval("stock_links:count(sink)");
        count.is_ok_and(|n| n.parse().is_ok_and(|n: u64| n > 1000))
    });
    let listening = world.rt.spawn(async move {
        let heard = until_lost(&mut inbox).await;
        (heard, inbox)
    });
    is_heard(&erl);
    let stopped = Stopped::stop(erl.pid());
    let began = Instant::now();
    let (heard, mut inbox) = world.run(listening).expect("no gap");
    assert_in_time(began.elapsed());
    assert!(heard > 0, "{heard}");
    let why = world.run(link_down(&mut events, &erl.name));
    assert_eq!(why, partisan::LinkError::Silent);
    drop(stopped);
    // It finds out; what it says meanwhile goes nowhere, and what it hears is what was on the way.
    let sent: i64 = erl
        .eval("stock_links:chatted()")
        .expect("it goes on")
        .parse()
        .expect("a number");
    assert!(sent > heard);
    erl.expect("is_integer(stock_links:down(sink))", "true");
    erl.expect("stock_links:report(sink)", "{0,0}");
    // Whatever came after would be before this.
    erl.expect(&format!("erlang:set_cookie('{rust}', {COOKIE})"), "true");
    erl.expect(&format!("{{inbox, '{rust}'}} ! {{again, 1}}, ok"), "ok");
    assert_eq!(numbered(&world.recv(&mut inbox)), ("again".into(), 1));
}

/// The node that freezes, in a process of its own.
#[test]
fn child() {
    let Ok(epmd) = std::env::var(CHILD) else {
        return;
    };
    let distribution = distribution(epmd.parse().expect("a port"));
    let node = builder("ice_rust")
        .distribution(distribution.tick_time(Duration::from_secs(TICK_TIME)))
        .start()
        .expect("a node");
    let mut inbox = node.register("inbox").expect("a name");
    let rt = tokio::runtime::Runtime::new().expect("a runtime");
    rt.block_on(async {
        println!("\n@@up");
        // The other end says its name.
        let first = inbox.recv().await.expect("a message");
        let (_, parts) = parts(&first);
        let peer = parts[0].as_atom().expect("a name").to_owned();
        let talking = node.mailbox().expect("a mailbox");
        tokio::spawn(chatter(talking, (peer, "sink")));
        let lost = tokio::time::timeout(Duration::from_secs(20), until_lost(&mut inbox));
        let Ok(heard) = lost.await else {
            panic!("the end is not told; the log:\n{}", log().text());
        };
        println!("\n@@lost {heard}");
        while let Some(message) = inbox.recv().await {
            println!("\n@@late {}", numbered(&message).0);
        }
    });
}

/// The process of [`child`]; it ends with the test.
struct Frozen {
    child: Child,
    _input: ChildStdin,
    lines: Receiver<String>,
}

impl Frozen {
    fn start(epmd: u16) -> Frozen {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .args(["--exact", "frozen::child", "--nocapture"])
            .env(CHILD, epmd.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some(line) = line.strip_prefix("@@") {
                    let _ = sender.send(line.to_owned());
                }
            }
        });
        let child = Frozen {
            _input: child.stdin.take().expect("its input"),
            child,
            lines,
        };
        assert_eq!(child.line(), "up");
        child
    }

    #[track_caller]
    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line")
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_frozen_rust_node_is_noticed() {
    let Some(world) = World::new() else { return };
    let ticks = format!("-kernel net_ticktime {TICK_TIME}");
    let erl = world.erl("watching_beam", &ticks);
    let child = Frozen::start(world.epmd.port);
    let rust = "ice_rust@127.0.0.1";
    erl.expect(&format!("net_kernel:connect_node('{rust}')"), "true");
    erl.expect(&format!("stock_links:sink(sink, '{rust}')"), "ok");
    erl.expect(&format!("{{inbox, '{rust}'}} ! {{name, node()}}, ok"), "ok");
    erl.expect(&format!("stock_links:chatter({{inbox, '{rust}'}})"), "ok");
    eventually("it talks", || {
        let count = erl.eval("stock_links:count(sink)");
        count.is_ok_and(|n| n.parse().is_ok_and(|n: u64| n > 1000))
    });
    is_heard(&erl);
    let stopped = Stopped::stop(child.child.id());
    let began = Instant::now();
    erl.expect("is_integer(stock_links:down(sink))", "true");
    assert_in_time(began.elapsed());
    let sent: i64 = erl
        .eval("stock_links:chatted()")
        .expect("it is up")
        .parse()
        .expect("a number");
    drop(stopped);
    // It hears what was on the way, gapless, then of the end, and nothing after it.
    let lost = child.line();
    let heard: i64 = lost
        .strip_prefix("lost ")
        .expect(&lost)
        .parse()
        .expect("a number");
    assert!((1..=sent).contains(&heard), "{heard} of {sent}");
    erl.expect("stock_links:report(sink)", "{0,0}");
    erl.expect(&format!("erlang:set_cookie('{rust}', {COOKIE})"), "true");
    erl.expect(&format!("{{inbox, '{rust}'}} ! {{again, 1}}, ok"), "ok");
    assert_eq!(child.line(), "late again");
}
