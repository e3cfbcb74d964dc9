//! Links with real stock nodes, up to the first tick: found through EPMD, in both directions of
//! dialling, in the clear and over TLS.
//!
//! Each test has an EPMD of its own and runs against every OTP release that there is.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use partisan::connection::establish::EstablishError;
use partisan::distribution::dial::{self, DialError};
use partisan::distribution::epmd::{Epmd, EpmdError};
use partisan::distribution::names::{NameForm, ResolveError, Resolver};
use partisan::wire::flags::Flags;
use partisan::wire::handshake::{HandshakeError, Link, Verdict};
use tokio::runtime::Runtime;

#[path = "stock/certificates.rs"]
mod certificates;
#[path = "stock_handshake/support.rs"]
mod support;
#[path = "stock_handshake/tls.rs"]
mod tls;

use support::{COOKIE, Daemon, Erl, LOCAL, PATIENCE, Rust, accept, free_port, local, reach, tick};

const ANY: SocketAddr = SocketAddr::new(LOCAL, 0);

fn runtime() -> Runtime {
    Runtime::new().expect("a runtime")
}

#[test]
fn we_dial() {
    let rt = runtime();
    for otp in support::releases() {
        let daemon = Daemon::start(&rt);
        for name in ["dialled@127.0.0.1", "dialled@localhost"] {
            let ours = name.replace("dialled", "dialler");
            let mut erl = Erl::start(&otp, &daemon, name, &[]);
            let mut link = rt
                .block_on(reach(&daemon, name, &local(&ours, 77, COOKIE), None))
                .expect("a link");
            let established = &link.established;
            assert_eq!(
                (&*established.peer.name, established.link),
                (name, Link::Stock)
            );
            assert_eq!(established.flags, Flags::OURS);
            assert_eq!(
                erl.eval("erts_internal:get_creation()"),
                established.peer.creation.to_string()
            );
            rt.block_on(tick(&mut link.stream));
            erl.expect_hidden(&ours);

            // The node believes the first link to be alive; we tell it that it is not.
            let mut second = rt
                .block_on(reach(&daemon, name, &local(&ours, 78, COOKIE), None))
                .expect("a link instead");
            rt.block_on(tick(&mut second.stream));
            erl.expect_hidden(&ours);

            let error = rt
                .block_on(reach(&daemon, name, &local("x@localhost", 1, "no"), None))
                .expect_err("another cookie");
            assert!(error.to_string().contains("cookies differ"), "{error}");
        }
    }
}

#[test]
fn they_dial() {
    let rt = runtime();
    for otp in support::releases() {
        let daemon = Daemon::start(&rt);
        for host in ["127.0.0.1", "localhost"] {
            let (name, ours) = (format!("caller@{host}"), format!("called@{host}"));
            let mut erl = Erl::start(&otp, &daemon, &name, &[]);
            // The second time the node has a connection of that name.
            let mut calls = 0;
            let judge = move |_: &dial::StockJudgement| {
                calls += 1;
                let cookie = COOKIE.into();
                match calls {
                    1 => Verdict::Accept {
                        cookie,
                        simultaneous: false,
                    },
                    2 => Verdict::Alive { cookie },
                    _ => Verdict::NotAllowed("enough"),
                }
            };
            let mut rust = rt
                .block_on(Rust::listen(&daemon, &ours, ANY, None, judge))
                .expect("registered");
            let connect = format!("net_kernel:connect_node('{ours}')");
            erl.expect(&connect, "true");
            let first = rt.block_on(rust.arrival());
            let mut link = first.outcome.expect("a link");
            assert_eq!((&*first.name, link.established.replaces), (&*name, false));
            rt.block_on(tick(&mut link.stream));
            erl.expect_hidden(&ours);

            erl.expect(&format!("erlang:disconnect_node('{ours}')"), "true");
            erl.expect(&connect, "true");
            let second = rt.block_on(rust.arrival());
            let mut link = second.outcome.expect("a link instead");
            assert!(link.established.replaces && first.attempt < second.attempt);
            rt.block_on(tick(&mut link.stream));

            erl.expect(&format!("erlang:disconnect_node('{ours}')"), "true");
            erl.expect(&connect, "false");
            let refused = rt.block_on(rust.arrival()).outcome.expect_err("refused");
            assert!(refused.to_string().contains("enough"), "{refused}");
        }
    }
}

#[test]
fn a_node_with_another_cookie_stays_out() {
    let rt = runtime();
    for otp in support::releases() {
        let daemon = Daemon::start(&rt);
        let mut erl = Erl::start(&otp, &daemon, "liar@localhost", &[]);
        let mut rust = rt
            .block_on(Rust::listen(&daemon, "safe@localhost", ANY, None, accept))
            .expect("registered");
        erl.expect("erlang:set_cookie('safe@localhost', other)", "true");
        erl.expect("net_kernel:connect_node('safe@localhost')", "false");
        let error = rt.block_on(rust.arrival()).outcome.expect_err("kept out");
        assert!(
            matches!(
                error,
                EstablishError::Handshake(HandshakeError::WrongCookie { .. })
            ),
            "{error}"
        );
    }
}

#[test]
fn nodes_without_a_name_get_one() {
    let rt = runtime();
    for otp in support::releases() {
        let daemon = Daemon::start(&rt);
        for host in ["127.0.0.1", "localhost"] {
            let ours = format!("namer@{host}");
            let mut erl = Erl::start(&otp, &daemon, &format!("undefined@{host}"), &[]);
            erl.expect("node()", "nonode@nohost");
            let mut rust = rt
                .block_on(Rust::listen(&daemon, &ours, ANY, None, accept))
                .expect("registered");
            erl.expect(&format!("net_kernel:connect_node('{ours}')"), "true");
            let arrival = rt.block_on(rust.arrival());
            let mut link = arrival.outcome.expect("a link");
            let peer = &link.established.peer;
            assert!(peer.nameless && peer.name.ends_with(&format!("@{host}")));
            erl.expect("node()", &format!("'{}'", peer.name));
            erl.expect("erts_internal:get_creation()", &peer.creation.to_string());
            rt.block_on(tick(&mut link.stream));

            let namer = format!("otp@{host}");
            let mut erl = Erl::start(&otp, &daemon, &namer, &[]);
            let mut link = rt
                .block_on(reach(&daemon, &namer, &local(host, 0, COOKIE), None))
                .expect("a link");
            let given = link.established.given.clone().expect("a name");
            assert!(given.node.ends_with(&format!("@{host}")) && given.creation != 0);
            rt.block_on(tick(&mut link.stream));
            erl.expect_hidden(&given.node);
        }
    }
}

#[test]
fn over_ipv6() {
    let rt = runtime();
    let loopback = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    if std::net::TcpListener::bind(loopback).is_err() {
        println!("skipped: there is no IPv6");
        return;
    }
    for otp in support::releases() {
        let daemon = Daemon::start(&rt);
        let more = ["-proto_dist", "inet6_tcp"];
        let mut erl = Erl::start(
            &otp,
            &daemon,
            "six@::1",
            &["-name", "six@::1", more[0], more[1]],
        );
        let resolver = Resolver::Epmd(daemon.client());
        let target = rt
            .block_on(resolver.resolve("six@::1", NameForm::Long))
            .expect("it is running");
        let here = local("rust@::1", 5, COOKIE);
        let dialled = dial::dial(&target, "six@::1".into(), COOKIE.into(), &here, None);
        let mut link = rt.block_on(dialled).expect("a link");
        rt.block_on(tick(&mut link.stream));
        erl.expect_hidden("rust@::1");

        let mut rust = rt
            .block_on(Rust::listen(&daemon, "called@::1", loopback, None, accept))
            .expect("registered");
        erl.expect("net_kernel:connect_node('called@::1')", "true");
        let mut link = rt.block_on(rust.arrival()).outcome.expect("a link");
        rt.block_on(tick(&mut link.stream));
    }
}

#[test]
fn epmd_comes_and_goes() {
    let rt = runtime();
    if support::releases().is_empty() {
        return;
    }
    let daemon = Daemon::start(&rt);
    let (port, epmd) = (daemon.port, daemon.client());
    rt.block_on(async {
        let registration = epmd.register("steady", 4711).await.expect("registered");
        let other = epmd.register("passing", 4712).await.expect("registered");
        assert_ne!(registration.creation(), 0);
        assert_eq!(
            epmd.lookup(LOCAL, "steady").await.expect("epmd"),
            Some(4711)
        );
        assert_eq!(epmd.lookup(LOCAL, "nobody").await.expect("epmd"), None);
        let mut names = epmd.names(LOCAL).await.expect("epmd");
        names.sort();
        let both = [("passing".to_owned(), 4712), ("steady".to_owned(), 4711)];
        assert_eq!(names, both);
        let error = epmd.register("steady", 1).await.expect_err("taken");
        assert!(matches!(error, EpmdError::Taken(_)), "{error}");
        assert!(matches!(
            epmd.register("a@b", 1).await,
            Err(EpmdError::BadName(_))
        ));
        let resolver = Resolver::Epmd(epmd.clone());
        let missing = resolver.resolve("nobody@localhost", NameForm::Short).await;
        assert!(matches!(missing, Err(ResolveError::NotRunning { .. })));

        drop(other);
        // EPMD sees the end of the connection when it comes to it.
        let began = tokio::time::Instant::now();
        while epmd.lookup(LOCAL, "passing").await.expect("epmd").is_some() {
            assert!(began.elapsed() < PATIENCE, "still registered");
            tokio::task::yield_now().await;
        }

        let creation = registration.creation();
        let mut state = registration.state();
        drop(daemon);
        let gone = tokio::time::timeout(PATIENCE, state.wait_for(|registered| !registered));
        gone.await.expect("in time").expect("kept alive");
        let absent = epmd.lookup(LOCAL, "steady").await.expect_err("no epmd");
        assert!(absent.to_string().contains("epmd -daemon"), "{absent}");
        let daemon = tokio::task::spawn_blocking(move || Daemon::start_at(&runtime(), port));
        let _daemon = daemon.await.expect("it starts");
        let back = tokio::time::timeout(PATIENCE, state.wait_for(|registered| *registered));
        back.await.expect("in time").expect("kept alive");
        assert_eq!(
            epmd.lookup(LOCAL, "steady").await.expect("epmd"),
            Some(4711)
        );
        assert_eq!(registration.creation(), creation);
    });
}

/// Ends the daemon at a port, which is nobody's child.
struct Kill(u16);

impl Drop for Kill {
    fn drop(&mut self) {
        // It refuses while it knows a node, and it learns of their ends when it comes to it.
        while std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.0)).is_ok() {
            let port = self.0.to_string();
            let _ = std::process::Command::new("epmd")
                .args(["-port", &port, "-kill"])
                .output();
        }
    }
}

#[test]
fn epmd_is_started_only_on_request() {
    let rt = runtime();
    if support::releases().is_empty() {
        return;
    }
    let port = free_port();
    let _killed = Kill(port);
    let epmd = Epmd::on_port(port);
    rt.block_on(async {
        let error = epmd.register("alone", 1).await.expect_err("no epmd");
        assert!(matches!(error, EpmdError::Absent { .. }), "{error}");
        let willing = epmd.clone().start_epmd(true);
        let registration = willing.register("alone", 1).await.expect("registered");
        assert_eq!(epmd.lookup(LOCAL, "alone").await.expect("epmd"), Some(1));
        drop(registration);
    });
}

#[test]
fn a_wrong_program_on_the_port_of_epmd_is_survived() {
    use std::io::Write;
    let answers: [&[u8]; 4] = [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"w\0\x12",
        &[b'n'; 9],
    ];
    for answer in answers {
        let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let epmd = Epmd::on_port(socket.local_addr().expect("its number").port());
        let wrong = std::thread::spawn(move || {
            for _ in 0..3 {
                let (mut stream, _) = socket.accept().expect("a client");
                let _ = stream.write_all(answer);
            }
        });
        runtime().block_on(async {
            let found = epmd.lookup(LOCAL, "a").await.expect_err("no answer");
            let names = epmd.names(LOCAL).await.expect_err("no list");
            let registered = epmd.register("a", 1).await.expect_err("no registration");
            for error in [found, names, registered] {
                assert!(matches!(error, EpmdError::Garbage { .. }), "{error}");
            }
        });
        wrong.join().expect("it has answered");
    }
}

#[test]
fn what_is_no_node_is_told_apart() {
    let rt = runtime();
    let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let addr = socket.local_addr().expect("its number");
    drop(socket);
    let here = local("a@localhost", 1, COOKIE);
    let target = addr.into();
    let dialled = dial::dial(&target, "b@localhost".into(), Vec::new(), &here, None);
    let error = rt.block_on(dialled).expect_err("nobody there");
    assert!(
        matches!(error, DialError::Establish(EstablishError::Connect { .. })),
        "{error}"
    );
}
