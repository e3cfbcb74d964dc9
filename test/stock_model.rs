//! The tests of stock nodes, between stock nodes: what they ask of a Rust node, OTP itself does.
//!
//! `test/stock/stock_model.erl` stands where the Rust program stands otherwise. Each release asks
//! itself; with `PARTISAN_OTP_ALL_PAIRS=1` each other one, too, else only the first that is here. With a fault put into the
//! model, the functions notice.

use std::time::Duration;

#[path = "stock/mod.rs"]
mod stock;

use stock::{Epmd, Options, Peer, Release, releases};

fn pair(asks: &Release, answers: &Release) -> (Epmd, Peer, Peer) {
    let epmd = Epmd::start(asks);
    let asks = Peer::start(
        asks,
        &epmd,
        &Options::new("asks", "cookie").with("+zdbbl 1024"),
    );
    let answers = Peer::start(answers, &epmd, &Options::new("answers", "cookie"));
    (epmd, asks, answers)
}

/// The names that `stock_peer:all/0` and others return: `[a,b]`.
fn names(peer: &Peer, expression: &str) -> Vec<String> {
    let list = peer.eval(expression).unwrap();
    list.trim_matches(['[', ']'])
        .split(',')
        .map(str::to_owned)
        .collect()
}

/// All with `PARTISAN_OTP_ALL_PAIRS=1`, else the first: these are tests of tests.
fn some_releases() -> &'static [Release] {
    let all_pairs = std::env::var("PARTISAN_OTP_ALL_PAIRS").is_ok_and(|value| value == "1");
    match releases() {
        [first, ..] if !all_pairs => std::slice::from_ref(first),
        all => all,
    }
}

#[test]
fn otp_does_what_is_asked() {
    for asking in some_releases() {
        for answering in some_releases() {
            let (_epmd, asks, answers) = pair(asking, answering);
            answers.expect("stock_model:start()", "ok");
            println!("OTP {} asks OTP {}", asks.release, answers.release);
            // A stock node isn't hidden here; those before 28 know no priority messages, before 29
            // no records; `pg` of OTP 29 ends that of 25; and a fragment that comes out of its order ends OTP 25 by a
            // segmentation fault.
            for function in names(&asks, "stock_peer:all() ++ stock_peer:cutting()") {
                let apart = asks.release.abs_diff(answers.release);
                let skipped = function == "hidden"
                    || function == "groups" && apart > 2
                    || function == "bad_fragments"
                    || function == "priority_messages" && answers.release < 28
                    || function == "records" && answers.release < 29;
                if !skipped {
                    asks.check(&function, &answers.name);
                }
            }
            asks.check("busy_port", &answers.name);
            if asks.release == answers.release {
                let echo = format!("term_gen:echo('{}', 100000)", answers.name);
                asks.expect_within(&echo, "ok", Duration::from_secs(120));
                println!("{}", asks.printed());
            }
        }
    }
}

#[test]
fn faults_are_noticed() {
    let Some(release) = releases().first() else {
        return;
    };
    for (fault, function) in [
        ("lose", "bulk_send"),
        ("corrupt", "fragments"),
        ("deaf", "monitors"),
    ] {
        let (_epmd, asks, answers) = pair(release, release);
        answers.expect(&format!("stock_model:start({fault})"), "ok");
        let answer = asks
            .begin(&format!("stock_peer:ask({function}, '{}')", answers.name))
            .wait(Duration::from_secs(60));
        let noticed = answer
            .as_ref()
            .is_ok_and(|text| text.starts_with("{error,"));
        assert!(noticed, "{fault}: {answer:?}");
    }
}

#[test]
fn a_hidden_node_and_one_without_a_name() {
    for release in some_releases() {
        let epmd = Epmd::start(release);
        let hidden = Options::new("hidden", "cookie").with("-hidden -kernel net_ticktime 4");
        let hidden = Peer::start(release, &epmd, &hidden);
        hidden.expect("stock_model:start()", "ok");
        let mut options = Options::new("", "cookie");
        options.name = "undefined@127.0.0.1".to_owned();
        let nameless = Peer::start(release, &epmd, &options);
        nameless.check("dynamic_name", &hidden.name);
        let asks = Options::new("asks", "cookie").with("-kernel net_ticktime 4");
        let asks = Peer::start(release, &epmd, &asks);
        asks.check("hidden", &hidden.name);
        asks.check("idle", &hidden.name);
    }
}
