//! A Rust node among stock nodes of OTP 25, 27 and 29: everything that `stock_peer.erl` asks.
//!
//! The names are those of the concerns of OTP's own `distribution_SUITE`. `test/stock_model.rs`
//! shows that OTP itself does what is asked here.

use std::time::Duration;

use partisan::{Distribution, Epmd as Names, Node};

#[path = "stock/peer.rs"]
mod peer;
#[path = "stock/mod.rs"]
mod stock;

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
        let skipped = function == "groups"
            || function == "priority_messages" && release.number < 28
            || function == "records" && release.number < 29;
        if !skipped {
            asks.check(&function, RUST);
        }
    }
    asks.check("busy_port", RUST);
}

fn each_release(test: fn(&Release)) {
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
