//! The same over TLS (`-proto_dist inet_tls`), with certificates made here.

use std::path::PathBuf;

use partisan::distribution::tls::{TlsConfig, TlsError, TlsIdentity};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::support::{self, COOKIE, Daemon, Erl, Rust, accept, local, reach, scratch, tick};
use super::{ANY, runtime};

/// An authority and a certificate of it for this host, as PEM and as files.
struct Certificates {
    root: Vec<u8>,
    host: TlsIdentity,
    folder: PathBuf,
}

impl Certificates {
    fn new(what: &str) -> Certificates {
        let folder = scratch().join(format!("tls-{what}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut params = CertificateParams::new([]).expect("no names");
        // One that bears its issuer's name would be self-signed to OTP.
        params.distinguished_name.push(DnType::CommonName, what);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let root = params.self_signed(&key).expect("a root").pem();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().expect("a key");
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let host = CertificateParams::new(names)
            .expect("names")
            .signed_by(&key, &issuer)
            .expect("a certificate");
        let host = TlsIdentity {
            chain: host.pem().into(),
            key: key.serialize_pem().into(),
        };
        for (name, bytes) in [
            ("root.pem", root.as_bytes()),
            ("host.pem", &host.chain),
            ("host.key", &host.key),
        ] {
            std::fs::write(folder.join(name), bytes).expect("a file");
        }
        let root = root.into();
        Certificates { root, host, folder }
    }

    fn config(&self) -> TlsConfig {
        TlsConfig {
            server: Some(self.host.clone()),
            client: Some(self.host.clone()),
            roots: self.root.clone(),
            trust_any_server: false,
            require_client_certificate: true,
        }
    }

    /// Options of a stock node that shows its certificate and demands one, or only the former.
    fn options(&self, verify: bool) -> Vec<String> {
        let file = |name: &str| self.folder.join(name).display().to_string();
        let mut options: Vec<String> = vec!["-proto_dist".into(), "inet_tls".into()];
        let mut set = |key: &str, value: String| {
            options.extend(["-ssl_dist_opt".to_owned(), key.to_owned(), value]);
        };
        set("server_certfile", file("host.pem"));
        set("server_keyfile", file("host.key"));
        if verify {
            for end in ["server", "client"] {
                set(&format!("{end}_cacertfile"), file("root.pem"));
                set(&format!("{end}_verify"), "verify_peer".to_owned());
            }
            set("server_fail_if_no_peer_cert", "true".to_owned());
            set("client_certfile", file("host.pem"));
            set("client_keyfile", file("host.key"));
        } else {
            set("client_verify", "verify_none".to_owned());
        }
        options
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

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
