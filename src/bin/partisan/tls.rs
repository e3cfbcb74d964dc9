//! TLS with stock nodes: files and switches.

use std::path::{Path, PathBuf};

use clap::Args;
use partisan::{TlsConfig, TlsIdentity};
use serde::Deserialize;

use crate::failure::{Cause, Failure};

/// The file's table `tls`, and the flags that replace what it says.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Args)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Tls {
    /// Certificates in PEM that those of other nodes must descend from. Turns TLS on
    /// (-proto_dist inet_tls).
    #[arg(id = "tls_ca", long = "tls-ca", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// This node's certificate in PEM, and those between it and a root.
    #[arg(
        id = "tls_cert",
        long = "tls-cert",
        value_name = "FILE",
        requires = "tls_key"
    )]
    pub(crate) cert: Option<PathBuf>,
    /// The certificate's private key in PEM.
    #[arg(
        id = "tls_key",
        long = "tls-key",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    pub(crate) key: Option<PathBuf>,
    /// Speak TLS, but do not verify nodes that are dialled, as OTP by default.
    #[arg(id = "tls_trust_any", long = "tls-trust-any")]
    pub(crate) trust_any: bool,
    /// Demand certificates of nodes that dial.
    #[arg(skip)]
    pub(crate) require_client_certificate: bool,
    /// Addresses to listen on for TLS.
    #[arg(skip)]
    pub(crate) listen: Vec<String>,
}

impl Tls {
    /// The file's settings under those of the flags.
    pub(crate) fn over(&self, file: Option<Tls>) -> Option<Tls> {
        let given = self.ca.is_some() || self.cert.is_some() || self.trust_any;
        if file.is_none() && !given {
            return None;
        }
        let file = file.unwrap_or_default();
        Some(Tls {
            ca: self.ca.clone().or(file.ca),
            cert: self.cert.clone().or(file.cert),
            key: self.key.clone().or(file.key),
            trust_any: self.trust_any || file.trust_any,
            ..file
        })
    }

    /// Reads the files. The one certificate serves for listening and dialling.
    pub(crate) fn config(&self) -> Result<TlsConfig, Failure> {
        let identity = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some(TlsIdentity {
                chain: read(cert)?,
                key: read(key)?,
            }),
            (None, None) => None,
            _ => {
                let half = "TLS: a certificate and its key belong together: give both";
                return Err(Failure::new(Cause::Usage, half));
            }
        };
        Ok(TlsConfig {
            server: identity.clone(),
            client: identity,
            roots: self
                .ca
                .as_deref()
                .map(read)
                .transpose()?
                .unwrap_or_default(),
            trust_any_server: self.trust_any,
            require_client_certificate: self.require_client_certificate,
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|e| Failure::new(Cause::Usage, format!("{}: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_replace_the_file() {
        let none = Tls::default();
        assert_eq!(none.over(None), None);
        let file = Tls {
            ca: Some("a".into()),
            cert: Some("b".into()),
            listen: vec!["h:1".into()],
            ..Tls::default()
        };
        assert_eq!(none.over(Some(file.clone())), Some(file.clone()));
        let flags = Tls {
            ca: Some("c".into()),
            ..Tls::default()
        };
        let both = flags.over(Some(file.clone())).unwrap();
        assert_eq!(both.ca, Some("c".into()));
        assert_eq!((both.cert, both.listen), (file.cert, file.listen));
        assert!(flags.over(None).is_some());
    }

    #[test]
    fn half_an_identity_is_refused() {
        let half = Tls {
            cert: Some("x".into()),
            ..Tls::default()
        };
        assert!(
            half.config()
                .unwrap_err()
                .to_string()
                .contains("belong together")
        );
        let missing = Tls {
            ca: Some("/nonexistent/file".into()),
            ..Tls::default()
        };
        assert!(
            missing
                .config()
                .unwrap_err()
                .to_string()
                .contains("/nonexistent/file")
        );
    }
}
