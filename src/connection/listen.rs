//! Listening: accepts, and bounds what strangers may cost.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::connection::establish::{self, EstablishError, Judgement, Local, Pending, Ready};
use crate::limits;

/// Pause after an error of `accept`: longer than a descriptor takes to come free, so that being
/// out of them costs no CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What listeners tell the node.
pub enum Arrival {
    /// A session is up.
    Session(Box<Ready>),
    /// A peer has failed its handshake, or never was one.
    Failed {
        /// Where it came from.
        from: SocketAddr,
        /// Why.
        error: EstablishError,
    },
}

/// Binds the listening sockets.
///
/// # Errors
/// What the system says, with the address.
pub fn bind(addrs: &[SocketAddr]) -> io::Result<Vec<TcpListener>> {
    addrs
        .iter()
        .map(|addr| {
            bind_one(*addr)
                .map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {addr}: {e}")))
        })
        .collect()
}

fn bind_one(addr: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(addr);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(1024)?;
    TcpListener::from_std(socket.into())
}

/// Accepts until the task is dropped; its handshakes end with it.
pub async fn serve(
    listener: TcpListener,
    local: Arc<Local>,
    pending: Arc<Pending>,
    unauthenticated: Arc<Semaphore>,
    judge: mpsc::Sender<Judgement>,
    arrivals: mpsc::Sender<Arrival>,
) {
    let mut handshakes = JoinSet::new();
    let mut complained = false;
    loop {
        while handshakes.try_join_next().is_some() {}
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => {
                complained = false;
                accepted
            }
            Err(e) if is_about_peer(&e) => continue,
            Err(e) => {
                if !complained {
                    tracing::warn!(error = %e, "cannot accept connections, trying again");
                    complained = true;
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = unauthenticated.clone().try_acquire_owned() else {
            tracing::debug!(%from, "connection refused: too many handshakes under way");
            continue;
        };
        let (local, pending) = (local.clone(), pending.clone());
        let (judge, arrivals) = (judge.clone(), arrivals.clone());
        handshakes.spawn(async move {
            let accepted =
                establish::accept(local, pending, judge, stream, || drop(permit)).await;
            let arrival = match accepted {
                Ok(Some(ready)) => Arrival::Session(Box::new(ready)),
                Ok(None) => return,
                Err(error) => Arrival::Failed { from, error },
            };
            // Fails only when the node has stopped.
            let _ = arrivals.send(arrival).await;
        });
    }
}

/// Errors of `accept` that concern the one connection only.
fn is_about_peer(e: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(e.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
