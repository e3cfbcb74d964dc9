//! TLS for the distribution, as `-proto_dist inet_tls` speaks it.
//!
//! OTP wraps the whole connection into TLS, handshake and all, without ALPN. The dialler names
//! the host part of the node's name as the server (SNI), and an end that verifies its peer checks
//! the certificate against that name (`inet_tls_dist.erl`). By default OTP verifies nothing: the
//! cookie alone authenticates, and whoever sits between both ends can pass the handshake on and
//! take the connection over. Here verification is on unless it is turned off.
//!
//! The crate's feature `tls`, on by default, brings rustls. Without it a configuration can be written, and is refused when
//! a node starts with it.

use std::fmt;

use thiserror::Error;

#[cfg(feature = "tls")]
mod rustls;

#[cfg(not(feature = "tls"))]
use crate::connection::tls::{TlsAcceptor, TlsConnector};

/// A certificate with its key.
#[derive(Clone)]
pub struct TlsIdentity {
    /// The certificate and those between it and a root, in this order, as PEM.
    pub chain: Vec<u8>,
    /// The certificate's private key, as PEM (PKCS #8, PKCS #1 or SEC 1).
    pub key: Vec<u8>,
}

/// How connections are encrypted.
#[derive(Clone, Default)]
pub struct TlsConfig {
    /// What a listener shows.
    pub server: Option<TlsIdentity>,
    /// What a dialler shows to a listener that asks for it (`fail_if_no_peer_cert`).
    pub client: Option<TlsIdentity>,
    /// Certificates that peers' ones must descend from, as PEM.
    pub roots: Vec<u8>,
    /// Do not verify listeners that are dialled, as OTP by default.
    pub trust_any_server: bool,
    /// Dialling peers must show a certificate.
    pub require_client_certificate: bool,
}

/// What is wrong with a configuration.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// There is no TLS in this program.
    #[error(
        "TLS: this program is built without it: give the crate `partisan` its feature `tls`, which is one of its \
         default features"
    )]
    NotBuilt,
    /// Something that is needed is missing.
    #[error("TLS: {0}")]
    Missing(&'static str),
    /// PEM that cannot be read.
    #[cfg(feature = "tls")]
    #[error("TLS: cannot read the {what}: {source}")]
    Pem {
        /// Which part.
        what: &'static str,
        /// What the parser says.
        source: ::rustls::pki_types::pem::Error,
    },
    /// Certificates that do not fit.
    #[cfg(feature = "tls")]
    #[error("TLS: the {what} cannot be used: {source}")]
    Unfit {
        /// Which part.
        what: &'static str,
        /// What the library says.
        source: ::rustls::Error,
    },
    /// The roots cannot verify anybody.
    #[cfg(feature = "tls")]
    #[error("TLS: the roots cannot verify clients: {0}")]
    Verifier(#[from] ::rustls::server::VerifierBuilderError),
}

/// Keys are not shown.
impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfig")
            .field("server", &self.server.is_some())
            .field("client", &self.client.is_some())
            .field("trust_any_server", &self.trust_any_server)
            .field(
                "require_client_certificate",
                &self.require_client_certificate,
            )
            .finish_non_exhaustive()
    }
}

#[cfg(not(feature = "tls"))]
impl TlsConfig {
    /// For dialling.
    ///
    /// # Errors
    /// Always [`TlsError::NotBuilt`].
    pub fn connector(&self) -> Result<TlsConnector, TlsError> {
        Err(TlsError::NotBuilt)
    }

    /// For listening.
    ///
    /// # Errors
    /// Always [`TlsError::NotBuilt`].
    pub fn acceptor(&self) -> Result<TlsAcceptor, TlsError> {
        Err(TlsError::NotBuilt)
    }
}
