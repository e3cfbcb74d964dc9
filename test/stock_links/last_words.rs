//! What a node has sent before it stops: it arrives.

use partisan::limits::LAST_WORDS;

use super::*;

const COUNT: i64 = 1000;

/// As many as these fill the buffers of the system many times over, and fit into a link's budget.
const LARGE: usize = 16_000;

/// A sender's numbered message for `stock_links:sink/2`, which takes any term as the sender.
fn numbered(sender: &Value, n: i64) -> Term {
    tuple([atom("seq"), sender.clone(), n.into()])
}

#[test]
fn a_process_that_stops_its_node_has_sent_all() {
    let Some(world) = World::new() else { return };
    let erl = world.erl("heir_beam", "");
    // On threads of the test, which may wait, and on those of the links, which may not.
    for on_links in [false, true] {
        let node = world.node("last_rust");
        erl.expect("stock_links:let_in('last_rust@127.0.0.1')", "true");
        world.run(node.connect(erl.name.as_str())).expect("a link");
        let sink = format!("sink_{on_links}");
        let rust = node.name();
        erl.expect(&format!("stock_links:sink({sink}, '{rust}')"), "ok");
        let (to, into) = (erl.name.clone(), sink.clone());
        let process = |me: Mailbox| async move {
            let sender = Value::from(me.pid());
            for n in 0..COUNT {
                let sent = me.send((&*to, &*into), &numbered(&sender, n)).await;
                sent.expect("it is sent");
            }
            me.node().stop();
        };
        let context = (!on_links).then(|| world.rt.enter());
        node.spawn(process).expect("a process");
        drop(context);
        let all = COUNT.to_string();
        erl.expect(&format!("stock_links:down({sink})"), &all);
        erl.expect(&format!("stock_links:report({sink})"), "{0,0}");
        assert!(!node.is_alive());
    }
}

#[test]
fn a_node_that_stops_waits_for_a_slow_reader_but_not_for_ever() {
    let Some(world) = World::new() else { return };
    let erl = world.erl("slow_beam", "");
    for wakes in [true, false] {
        let node = world.node("patient_rust");
        world.run(node.connect(erl.name.as_str())).expect("a link");
        erl.expect(&format!("stock_links:sink(sink, '{}')", node.name()), "ok");
        let asleep = Stopped::stop(erl.pid());
        let sender = Value::binary(vec![0; LARGE]);
        for n in 0..COUNT {
            let options = SendOptions::new();
            let sent = node.try_send((&*erl.name, "sink"), &numbered(&sender, n), &options);
            sent.expect("there is room");
        }
        let began = Instant::now();
        let stopping = std::thread::spawn(move || {
            node.stop();
            began.elapsed()
        });
        if wakes {
            // A node that does not wait has stopped by then.
            std::thread::sleep(LAST_WORDS / 4);
            assert!(!stopping.is_finished(), "it does not wait");
            drop(asleep);
            erl.expect("stock_links:down(sink)", &COUNT.to_string());
            erl.expect("stock_links:report(sink)", "{0,0}");
            erl.expect("unregister(sink)", "true");
            erl.expect("stock_links:let_in('patient_rust@127.0.0.1')", "true");
            let took = stopping.join().expect("no panic");
            assert!(took < LAST_WORDS, "{took:?}");
        } else {
            let took = stopping.join().expect("no panic");
            let enough = LAST_WORDS + Duration::from_secs(2);
            assert!((LAST_WORDS..enough).contains(&took), "{took:?}");
        }
    }
}
