//! Encrypted connections, by rustls. Without the crate's feature `tls` `without_tls.rs` stands in for this module.

use std::io;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
pub use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// Whether a certificate can be for this host.
pub(crate) fn is_server_name(host: &str) -> bool {
    ServerName::try_from(host).is_ok()
}

/// Begins TLS with a listener, whose certificate is to be for this host.
pub(crate) async fn connect(
    connector: &TlsConnector,
    host: &str,
    tcp: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    let host = ServerName::try_from(host.to_owned());
    let host = host.map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    connector.connect(host, tcp).await.map(TlsStream::Client)
}

/// Begins TLS with a dialler.
pub(crate) async fn accept(
    acceptor: &TlsAcceptor,
    tcp: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    acceptor.accept(tcp).await.map(TlsStream::Server)
}

/// Whether it is TLS that has failed.
pub(crate) fn is_of_tls(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(|inner| inner.is::<rustls::Error>())
}

/// What to do about an error of TLS.
pub(crate) fn hint(error: &io::Error) -> &'static str {
    use rustls::AlertDescription as Alert;
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(rustls::Error::AlertReceived(
            Alert::HandshakeFailure
            | Alert::BadCertificate
            | Alert::CertificateRequired
            | Alert::CertificateUnknown
            | Alert::UnknownCA,
        )) => {
            "; it demands a certificate that we did not show, or does not accept ours: see \
             server_cacertfile and server_fail_if_no_peer_cert there, and its log"
        }
        Some(rustls::Error::InvalidCertificate(_)) => {
            "; the certificate must be for the host in the node's name, and one of our roots must \
             have signed it"
        }
        Some(rustls::Error::InvalidMessage(_)) => {
            "; is the other end started with -proto_dist inet_tls?"
        }
        _ if error.kind() == io::ErrorKind::UnexpectedEof => {
            "; is the other end started with -proto_dist inet_tls?"
        }
        _ => "",
    }
}
