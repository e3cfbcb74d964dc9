//! A Rust node among stock nodes of OTP 25, 27 and 29: everything that `stock_peer.erl` asks.
//!
//! The names are those of the concerns of OTP's own `distribution_SUITE`. `test/stock_model.rs`
//! shows that OTP itself does what is asked here.

use std::time::Duration;

use partisan::{Distribution, Epmd as Names, Node, Value};

#[path = "stock/certificates.rs"]
mod certificates;
#[path = "stock/peer.rs"]
mod peer;
#[path = "stock/mod.rs"]
mod stock;

use certificates::Certificates;
use stock::{Epmd, Options, Peer, Release, releases};

const RUST: &str = "rust@127.0.0.1";
const COOKIE: &str = "cookie";

fn rust_node(name: &str, epmd: &Epmd, distribution: Distribution) -> Node {
    let node = Node::builder(name)
        .cookie(COOKIE)
        .distribution(distribution.epmd(Names::on_port(epmd.port)))
        .start()
        .unwrap();
    peer::serve(&node);
    node
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

/// On a thread that is no worker of a runtime.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Handle::current().block_on(future)
}

/// The names that `stock_peer:all/0` and others return: `[a,b]`.
fn names(peer: &Peer, expression: &str) -> Vec<String> {
    let list = peer.eval(expression).unwrap();
    let names = list.trim_matches(['[', ']']).split(',');
    names.map(str::to_owned).collect()
}

fn ask(release: &Release) {
    let epmd = Epmd::start(release);
    let options = Options::new("asks", COOKIE).with("+zdbbl 1024");
    let asks = Peer::start(release, &epmd, &options);
    let _node = rust_node(RUST, &epmd, Distribution::new());
    for function in names(&asks, "stock_peer:all() ++ stock_peer:cutting()") {
        let skipped = function == "priority_messages" && release.number < 28
            || function == "records" && release.number < 29;
        if !skipped {
            asks.check(&function, RUST);
        }
    }
    asks.check("busy_port", RUST);
}

fn each_release(test: impl Fn(&Release)) {
    let runtime = runtime();
    let _context = runtime.enter();
    for release in releases() {
        println!("OTP {}", release.number);
        test(release);
    }
}

#[test]
fn everything_that_a_stock_node_asks() {
    each_release(ask);
}

/// Terms of every kind, `PARTISAN_ECHO_TERMS` of them (default 20,000): what comes back is `=:=`, and each
/// tag has been there. `echo` decodes each to an owned value, drops what it came in, and encodes anew.
/// Half of the terms are PropEr's on the release that has it (Debian's is for OTP 25).
#[test]
fn generated_terms_come_back_as_they_went() {
    let count = std::env::var("PARTISAN_ECHO_TERMS");
    let count: u64 = count.map_or(20_000, |count| count.parse().expect("a number"));
    each_release(|release| {
        let epmd = Epmd::start(release);
        // PropEr's atoms are new ones.
        let options = Options::new("asks", COOKIE).with("+t 5000000");
        let asks = Peer::start(release, &epmd, &options);
        let _node = rust_node(RUST, &epmd, Distribution::new());
        let echo = format!("term_gen:echo('{RUST}', {count})");
        asks.expect_within(&echo, "ok", Duration::from_secs(3600));
        let printed = asks.printed();
        println!("{printed}");
        let complete = std::env::var("PARTISAN_OTP_REQUIRED").is_ok_and(|value| value == "1");
        let proper = printed.contains("{proper,") || !complete || release.number != 25;
        assert!(proper, "PropEr is missing: scripts/bootstrap.sh test");
    });
}

#[test]
fn a_node_without_a_name_gets_one() {
    each_release(|release| {
        let epmd = Epmd::start(release);
        let _node = rust_node(RUST, &epmd, Distribution::new());
        let mut options = Options::new("", COOKIE);
        options.name = "undefined@127.0.0.1".to_owned();
        let nameless = Peer::start(release, &epmd, &options);
        nameless.check("dynamic_name", RUST);
    });
}

#[test]
fn a_link_without_traffic_lives_on() {
    each_release(|release| {
        let epmd = Epmd::start(release);
        let often = Distribution::new().tick_time(Duration::from_secs(4));
        let _node = rust_node(RUST, &epmd, often);
        let options = Options::new("asks", COOKIE).with("-kernel net_ticktime 4");
        let asks = Peer::start(release, &epmd, &options);
        asks.check("idle", RUST);
    });
}

/// What shows that messages and signals of all kinds pass both ways.
const SOME: [&str; 8] = [
    "echo",
    "bulk_send",
    "fragments",
    "links",
    "monitors",
    "gen_servers",
    "calls_out",
    "rpcs",
];

fn ask_some(asks: &Peer, node: &str) {
    for function in SOME {
        asks.check(function, node);
    }
}

#[test]
fn a_link_that_the_rust_node_has_made() {
    each_release(|release| {
        let epmd = Epmd::start(release);
        let asks = Peer::start(release, &epmd, &Options::new("asks", COOKIE));
        let node = rust_node(RUST, &epmd, Distribution::new());
        block_on(node.connect("asks@127.0.0.1")).unwrap();
        assert_eq!(*node.links(), ["asks@127.0.0.1".into()]);
        ask_some(&asks, RUST);
        // And one without a name of its own.
        let nameless = Distribution::new().name_from("asks@127.0.0.1");
        let nameless = rust_node("127.0.0.1", &epmd, nameless);
        assert!(
            nameless.name().ends_with("@127.0.0.1"),
            "{}",
            nameless.name()
        );
        asks.expect("length(nodes(hidden))", "2");
        asks.check("gen_servers", nameless.name());
        let other = block_on(nameless.rpc("asks@127.0.0.1", "erlang", "node", vec![], None));
        assert_eq!(other.unwrap(), Value::atom("asks@127.0.0.1"));
    });
}

#[test]
fn over_tls_with_certificates_of_both_ends() {
    let certificates = Certificates::new("stock");
    let runtime = runtime();
    let _context = runtime.enter();
    for release in releases() {
        let epmd = Epmd::start(release);
        let mut options = Options::new("", COOKIE);
        // OTP verifies host names, which an address is not.
        options.name = "asks@localhost".to_owned();
        options.short = true;
        options.arguments = certificates.options(true);
        let asks = Peer::start(release, &epmd, &options);
        let tls = Distribution::new().tls(certificates.config());
        let node = rust_node("rust@localhost", &epmd, tls);
        ask_some(&asks, "rust@localhost");
        // The other direction.
        assert!(block_on(node.disconnect_link("asks@localhost")).unwrap());
        block_on(node.connect("asks@localhost")).unwrap();
        ask_some(&asks, "rust@localhost");
    }
}
