//! The Erlang halves of the stop tests and of the speed test, between stock nodes.

use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[path = "stock/mod.rs"]
mod stock;

use stock::{Epmd, Options, Peer, releases};

/// Silence after which a node takes the other to be dead, in seconds.
const TICK_TIME: u64 = 4;

fn signal(peer: &Peer, signal: &str) {
    let status = Command::new("kill")
        .args([format!("-{signal}"), peer.pid().to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_millis() as u64
}

/// `key => 123` in a printed map.
fn number(map: &str, key: &str) -> u64 {
    let (_, rest) = map.split_once(&format!("{key} => ")).expect(key);
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect(key)
}

#[test]
fn a_stopped_sender_is_noticed_in_time_and_silent_afterwards() {
    for release in releases() {
        let epmd = Epmd::start(release);
        let options =
            |name| Options::new(name, "cookie").with(&format!("-kernel net_ticktime {TICK_TIME}"));
        let watches = Peer::start(release, &epmd, &options("watches"));
        let stops = Peer::start(release, &epmd, &options("stops"));
        stops.expect("stock_model:start()", "ok");
        watches.expect(
            &format!("stock_stop:watch('{}', watch, 8)", stops.name),
            "ok",
        );
        let stopped = now_ms();
        signal(&stops, "STOP");
        let seen = watches.eval("stock_stop:down(watch)");
        let seen = seen.unwrap_or_else(|why| panic!("{why}"));
        assert!(seen.starts_with("{ok,"), "{seen}");
        let noticed = Duration::from_millis(number(&seen, "first_down") - stopped);
        let last = Duration::from_millis(number(&seen, "all_down") - stopped);
        println!(
            "OTP {}: down {noticed:?} to {last:?} after SIGSTOP",
            release.number
        );
        assert!(noticed >= Duration::from_secs(TICK_TIME).mul_f64(0.75));
        assert!(last <= Duration::from_secs(TICK_TIME).mul_f64(1.25) + Duration::from_secs(1));
        signal(&stops, "CONT");
        watches.expect("stock_stop:later(watch, 3000)", "ok");
    }
}

#[test]
fn the_bench_receiver_counts() {
    for release in releases() {
        let epmd = Epmd::start(release);
        let sends = Peer::start(release, &epmd, &Options::new("sends", "cookie"));
        let receives = Peer::start(release, &epmd, &Options::new("receives", "cookie"));
        receives.expect("stock_bench:start()", "ok");
        for (count, size) in [(100_000, 64), (200, 1 << 20)] {
            let expression = format!("stock_bench:send('{}', {count}, {size})", receives.name);
            let answer = sends.eval(&expression).unwrap();
            assert!(answer.starts_with("{ok,"), "{answer}");
            println!("OTP {}: {count} of {size} bytes: {answer}", release.number);
        }
    }
}
