//! The same over TLS (`-proto_dist inet_tls`), with certificates made here.

use partisan::distribution::tls::TlsError;

use super::certificates::Certificates;
use super::support::{self, COOKIE, Daemon, Erl, Rust, accept, local, reach, tick};
use super::{ANY, runtime};

/// `verify`: both ends show certificates and check those of the other end.
fn both_directions(verify: bool) {
    let rt = runtime();
    let certificates = Certificates::new(if verify { "mutual" } else { "one-way" });
    let mut config = certificates.config();
    config.trust_any_server = !verify;
    config.require_client_certificate = verify;
    if !verify {
        config.client = None;
        config.roots = Vec::new();
    }
    let connector = config.connector().expect("a connector");
    let acceptor = config.acceptor().expect("an acceptor");
    let options = certificates.options(verify);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    for otp in support::releases() {
        let daemon = Daemon::start(&rt);
        // OTP verifies the host of a node's name as a DNS name, which an address is not.
        let hosts = ["localhost", "127.0.0.1"];
        for host in &hosts[..if verify { 1 } else { 2 }] {
            let name = format!("tls@{host}");
            let mut erl = Erl::start(&otp, &daemon, &name, &options);
            let here = local(&format!("dialler@{host}"), 9, COOKIE);
            let mut link = rt
                .block_on(reach(&daemon, &name, &here, Some(&connector)))
                .expect("a link");
            rt.block_on(tick(&mut link.stream));
            erl.expect_hidden(&format!("dialler@{host}"));

            let ours = format!("called@{host}");
            let listening = Rust::listen(&daemon, &ours, ANY, Some(acceptor.clone()), accept);
            let mut rust = rt.block_on(listening).expect("registered");
            erl.expect(&format!("net_kernel:connect_node('{ours}')"), "true");
            let arrival = rt.block_on(rust.arrival());
            let mut link = arrival.outcome.expect("a link");
            assert_eq!(*arrival.name, *name);
            rt.block_on(tick(&mut link.stream));
            println!("OTP {}: TLS with {name}: ok", otp.release);
        }
    }
}

#[test]
fn with_certificates_of_both_ends() {
    both_directions(true);
}

#[test]
fn with_a_certificate_of_the_listener() {
    both_directions(false);
}

#[test]
fn strangers_do_not_get_in() {
    let rt = runtime();
    let (ours, theirs) = (Certificates::new("ours"), Certificates::new("theirs"));
    let options = ours.options(true);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    for otp in support::releases() {
        let daemon = Daemon::start(&rt);
        let mut erl = Erl::start(&otp, &daemon, "strict@localhost", &options);
        let here = local("stranger@localhost", 9, COOKIE);
        let mut without = ours.config();
        without.client = None;
        let mut forged = ours.config();
        forged.client = theirs.config().client;
        let mut distrustful = ours.config();
        distrustful.roots = theirs.root.clone();
        for config in [without, forged, distrustful] {
            let connector = config.connector().expect("a connector");
            let dialled = reach(&daemon, "strict@localhost", &here, Some(&connector));
            let error = rt.block_on(dialled).expect_err("kept out").to_string();
            println!("OTP {}: {error}", otp.release);
            assert!(error.contains("ertificate"), "{error}");
        }
        let acceptor = theirs.config().acceptor().expect("an acceptor");
        let listening = Rust::listen(&daemon, "no@localhost", ANY, Some(acceptor), accept);
        let rust = rt.block_on(listening).expect("registered");
        erl.expect(
            &format!("net_kernel:connect_node('{}')", rust.name),
            "false",
        );
        assert!(
            rust.arrivals.is_empty(),
            "TLS ends before anybody is judged"
        );
    }
}

#[test]
fn errors_of_the_configuration_say_what_is_missing() {
    let certificates = Certificates::new("errors");
    let mut config = certificates.config();
    config.roots = Vec::new();
    let error = config.connector().err().expect("no roots");
    assert!(error.to_string().contains("roots"), "{error}");
    config.server = None;
    let error = config.acceptor().err().expect("no certificate");
    assert!(matches!(error, TlsError::Missing(_)), "{error}");
    let mut config = certificates.config();
    config.client.as_mut().expect("set").key = b"no key".to_vec();
    let error = config.connector().err().expect("no key");
    assert!(error.to_string().contains("client key"), "{error}");
}
