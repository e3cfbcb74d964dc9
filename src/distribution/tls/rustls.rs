//! The configuration for rustls, with the cryptography of ring.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

use super::{TlsConfig, TlsError, TlsIdentity};
use crate::connection::tls::{TlsAcceptor, TlsConnector};

impl TlsConfig {
    /// For dialling.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn connector(&self) -> Result<TlsConnector, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(unfit("list of protocol versions"))?;
        let builder = match self.trust_any_server {
            true => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(TrustAny(provider))),
            false => builder.with_root_certificates(self.roots()?),
        };
        let config = match &self.client {
            Some(identity) => {
                let (chain, key) = identity.parse("client certificate", "client key")?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(unfit("client certificate"))?
            }
            None => builder.with_no_client_auth(),
        };
        Ok(TlsConnector::from(Arc::new(config)))
    }

    /// For listening.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn acceptor(&self) -> Result<TlsAcceptor, TlsError> {
        let identity = self.server.as_ref().ok_or(TlsError::Missing(
            "a listener needs a server certificate and its key",
        ))?;
        let (chain, key) = identity.parse("server certificate", "server key")?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(unfit("list of protocol versions"))?;
        let builder = match self.require_client_certificate {
            true => {
                let roots = Arc::new(self.roots()?);
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(roots, provider).build()?;
                builder.with_client_cert_verifier(verifier)
            }
            false => builder.with_no_client_auth(),
        };
        let config = builder
            .with_single_cert(chain, key)
            .map_err(unfit("server certificate"))?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut store = RootCertStore::empty();
        for root in certificates(&self.roots, "roots")? {
            store.add(root).map_err(unfit("roots"))?;
        }
        match store.is_empty() {
            true => Err(TlsError::Missing(
                "peers cannot be verified without roots: give the certificate of the authority \
                 that has signed theirs, or turn verification off",
            )),
            false => Ok(store),
        }
    }
}

impl TlsIdentity {
    fn parse(
        &self,
        chain: &'static str,
        key: &'static str,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let certificates = certificates(&self.chain, chain)?;
        if certificates.is_empty() {
            return Err(TlsError::Missing("there is no certificate in the PEM"));
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|source| TlsError::Pem { what: key, source })?;
        Ok((certificates, key))
    }
}

fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::Pem { what, source })
}

fn unfit(what: &'static str) -> impl FnOnce(rustls::Error) -> TlsError {
    move |source| TlsError::Unfit { what, source }
}

/// Takes every certificate. The signatures of the TLS handshake are checked all the same.
#[derive(Debug)]
struct TrustAny(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
