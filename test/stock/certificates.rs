//! Certificates for TLS between nodes, made here.

use std::path::PathBuf;

use partisan::distribution::tls::{TlsConfig, TlsIdentity};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// An authority and a certificate of it for this host, as PEM and as files.
pub(crate) struct Certificates {
    pub(crate) root: Vec<u8>,
    host: TlsIdentity,
    folder: PathBuf,
}

impl Certificates {
    pub(crate) fn new(what: &str) -> Certificates {
        let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("tls-{what}-{}", std::process::id()));
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

    pub(crate) fn config(&self) -> TlsConfig {
        TlsConfig {
            server: Some(self.host.clone()),
            client: Some(self.host.clone()),
            roots: self.root.clone(),
            trust_any_server: false,
            require_client_certificate: true,
        }
    }

    /// Options of a stock node that shows its certificate and demands one, or only the former.
    pub(crate) fn options(&self, verify: bool) -> Vec<String> {
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
