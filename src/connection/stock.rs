//! Stock peers: connections that speak Erlang's own protocol, on their way to who serves them.
//!
//! The listener is shared with Partisan peers, and which of the two a dialler is shows in its
//! first packet. What concerns stock peers goes through a [`StockDesk`]; a node without one, as
//! every node inside a VM, refuses them.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use crate::connection::establish::EstablishError;
use crate::connection::tls::TlsStream;
use crate::wire::handshake::{Established, PeerHello, Verdict};

/// Where the listener asks about stock peers and hands them over.
#[derive(Clone, Debug)]
pub struct StockDesk {
    /// Where dialling stock peers are judged by their name.
    pub judge: mpsc::Sender<StockJudgement>,
    /// Where every attempt that was judged ends, whatever became of it.
    pub arrived: mpsc::Sender<StockArrival>,
}

/// A question of a listener: may this stock peer come in?
pub struct StockJudgement {
    /// Number of the connection.
    pub attempt: u64,
    /// What the peer says of itself, not yet proved. A [nameless](PeerHello::nameless) one has
    /// the name that it will get.
    pub peer: PeerHello,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Verdict>,
}

/// The end of an attempt that was judged.
#[derive(Debug)]
pub struct StockArrival {
    /// Number of the connection.
    pub attempt: u64,
    /// The peer's name, as it was judged.
    pub name: Arc<str>,
    /// The connection, or why there is none.
    pub outcome: Result<Stocked, EstablishError>,
}

/// A connection with a stock peer; nothing has been read of what follows the handshake.
#[derive(Debug)]
pub struct Stocked {
    /// The connection.
    pub stream: Stream,
    /// What the handshake has told.
    pub established: Established,
}

/// A connection in the clear or encrypted.
#[derive(Debug)]
pub enum Stream {
    /// In the clear.
    Tcp(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// The socket below, for its addresses and options.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Stream::Tcp(stream) => stream,
            Stream::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }
}

macro_rules! each {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp($stream) => {
                let $stream = Pin::new($stream);
                $call
            }
            Stream::Tls($stream) => {
                let $stream = Pin::new(&mut **$stream);
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => stream.poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Tcp(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_shutdown(cx))
    }
}
