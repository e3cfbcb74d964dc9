//! Stands in for encrypted connections where the crate is built without its feature `tls`: of these types there
//! are no values, so that what handles them is the same with the feature and without.

use std::convert::Infallible;
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Would dial.
#[derive(Clone)]
pub struct TlsConnector(Infallible);

/// Would listen.
#[derive(Clone)]
pub struct TlsAcceptor(Infallible);

/// Would be an encrypted connection.
#[derive(Debug)]
pub struct TlsStream<S>(Infallible, PhantomData<S>);

impl<S> TlsStream<S> {
    pub(crate) fn get_ref(&self) -> (&S, ()) {
        match self.0 {}
    }
}

impl<S: Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.0 {}
    }
}

impl<S: Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        match self.0 {}
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }
}

pub(crate) fn is_server_name(_: &str) -> bool {
    true
}

pub(crate) async fn connect(
    connector: &TlsConnector,
    _: &str,
    _: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    match connector.0 {}
}

pub(crate) async fn accept(
    acceptor: &TlsAcceptor,
    _: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    match acceptor.0 {}
}

pub(crate) fn is_of_tls(_: &io::Error) -> bool {
    false
}

pub(crate) fn hint(_: &io::Error) -> &'static str {
    ""
}
