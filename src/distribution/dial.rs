//! Dialling stock nodes, and accepting those that dial over TLS.
//!
//! Nodes that dial in the clear come through the node's listener
//! ([`crate::connection::listen`]), where Partisan peers come too.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout_at};

use crate::connection::door::{Door, Guest};
use crate::connection::establish::{EstablishError, Local};
use crate::connection::listen;
use crate::connection::shake::{Judging, Prefix, shake, tune};
use crate::connection::tls::{self, TlsAcceptor, TlsConnector};
use crate::distribution::names::{Address, NameError, NodeName};
use crate::limits;
use crate::wire::handshake::{HandshakeError, Purpose, Role};

pub use crate::connection::stock::{StockArrival, StockDesk, StockJudgement, Stocked, Stream};

/// Why a connection with a stock node did not come up.
#[derive(Debug, Error)]
pub enum DialError {
    /// The peer's name is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The connection or the handshake failed.
    #[error(transparent)]
    Establish(#[from] EstablishError),
    /// TLS could not be set up.
    #[error("TLS with {peer}: {source}{}", tls::hint(source))]
    Tls {
        /// Node name, or address if the peer dialled.
        peer: Arc<str>,
        /// What failed.
        source: io::Error,
    },
}

impl From<HandshakeError> for DialError {
    fn from(error: HandshakeError) -> Self {
        DialError::Establish(error.into())
    }
}

/// With TLS 1.3 a listener that refuses our certificate says so when we take TLS to be up.
fn of_tls(peer: &Arc<str>, error: EstablishError) -> DialError {
    match error {
        EstablishError::Broken { source, .. } if tls::is_of_tls(&source) => DialError::Tls {
            peer: peer.clone(),
            source,
        },
        error => error.into(),
    }
}

/// Dials the node `peer` at `target` and completes the handshake for a stock link.
///
/// A `local` whose name has no `@` is a host only: the peer gives it a name, which is in
/// [`Established::given`](crate::wire::handshake::Established::given). If the peer believes an
/// older connection to be alive it is told that it is dead: dial only without one, and drop the
/// future when one comes up meanwhile.
///
/// # Errors
/// See [`DialError`]; nothing is left behind.
pub async fn dial(
    target: &Address,
    peer: Arc<str>,
    cookie: Vec<u8>,
    local: &Local,
    connector: Option<&TlsConnector>,
) -> Result<Stocked, DialError> {
    let name = NodeName::parse(&peer)?;
    let deadline = tokio::time::Instant::now() + limits::HANDSHAKE_TIMEOUT;
    let late = |step| move |_| DialError::from(EstablishError::Timeout(step));
    let tcp = timeout_at(deadline, connect(target))
        .await
        .map_err(late("connecting"))??;
    tune(&tcp);
    let (mut stream, prefix) = match connector {
        None => (Stream::Tcp(tcp), Prefix::Two),
        Some(connector) => {
            if !tls::is_server_name(name.host) {
                return Err(NameError::HostIsNoServerName(peer).into());
            }
            let stream = timeout_at(deadline, tls::connect(connector, name.host, tcp))
                .await
                .map_err(late("the TLS handshake"))?
                .map_err(|source| DialError::Tls {
                    peer: peer.clone(),
                    source,
                })?;
            (Stream::Tls(Box::new(stream)), Prefix::Four)
        }
    };
    let mut machine = local.machine(Role::Dialer {
        peer: peer.clone(),
        cookie,
        purpose: Purpose::Stock,
    });
    let established = shake(&mut stream, prefix, &mut machine, None, None)
        .await
        .map_err(|error| of_tls(&peer, error))?;
    Ok(Stocked {
        stream,
        established,
    })
}

/// Connects to the first address that answers.
async fn connect(target: &Address) -> Result<TcpStream, EstablishError> {
    let mut last = None;
    for addr in target.candidates() {
        match TcpStream::connect(addr).await {
            Ok(stream) => return Ok(stream),
            Err(source) => last = Some(EstablishError::Connect { addr, source }),
        }
    }
    Err(last.unwrap_or(EstablishError::Timeout("finding an address")))
}

/// Takes a connection from a TLS listener through TLS and the handshake. The desk hears of the
/// end of an attempt that it has judged; `guest` is dropped when the handshake is over.
///
/// # Errors
/// If it ended before the desk was asked; see [`DialError`].
pub async fn accept(
    tcp: TcpStream,
    from: SocketAddr,
    acceptor: &TlsAcceptor,
    local: &Local,
    desk: &StockDesk,
    attempt: u64,
    guest: Guest,
) -> Result<(), DialError> {
    tune(&tcp);
    let deadline = Instant::now() + limits::HANDSHAKE_TIMEOUT;
    let accepted = tokio::select! {
        biased;
        accepted = tls::accept(acceptor, tcp) => accepted,
        () = guest.overstays(deadline) => {
            return Err(EstablishError::Timeout("the TLS handshake").into());
        }
    };
    let stream = accepted.map_err(|source| DialError::Tls {
        peer: from.to_string().into(),
        source,
    })?;
    let mut stream = Stream::Tls(Box::new(stream));
    let mut machine = local.machine(Role::Listener);
    let mut judging = Judging {
        local,
        judge: None,
        stock: Some(desk),
        attempt,
        judged: None,
    };
    let prefix = Prefix::Four;
    let judge = Some(&mut judging);
    let outcome = shake(&mut stream, prefix, &mut machine, judge, Some(&guest)).await;
    drop(guest);
    match judging.settle(stream, outcome, |stream| stream).await {
        Some((_, Err(error))) => Err(of_tls(&from.to_string().into(), error)),
        // Success without having been judged cannot be.
        Some((_, Ok(_))) | None => Ok(()),
    }
}

/// Accepts on a TLS listener until the task is dropped; its handshakes end with it.
pub async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    local: Arc<Local>,
    door: Arc<Door>,
    attempts: Arc<AtomicU64>,
    desk: StockDesk,
) {
    let handshake = |stream, from: SocketAddr, guest: Guest| {
        let (acceptor, local, desk) = (acceptor.clone(), local.clone(), desk.clone());
        let attempt = attempts.fetch_add(1, Ordering::Relaxed);
        async move {
            let accepted = accept(stream, from, &acceptor, &local, &desk, attempt, guest).await;
            if let Err(error) = accepted {
                tracing::warn!(%from, "handshake failed: {error}");
            }
        }
    };
    listen::accept_all(listener, door, handshake).await;
}
