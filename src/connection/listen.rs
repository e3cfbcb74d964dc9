//! Listening: accepts, and bounds what strangers may cost.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::connection::door::{Door, Guest};
use crate::connection::establish::{self, Desk, Failure, Local, Pending, Ready};
use crate::connection::tunnel::Inbound;
use crate::limits;

/// Pause after an error of `accept`: longer than a descriptor takes to come free, so that being
/// out of them costs no CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What became of an accepted connection that was no extra one.
pub struct Arrival {
    /// The node's number for the connection.
    pub attempt: u64,
    /// Where it came from.
    pub from: SocketAddr,
    /// The session, with its number, or why there is none.
    pub outcome: Result<(u64, Ready), Failure>,
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

/// What takes in whoever connects.
#[derive(Clone)]
pub struct Reception {
    /// The node.
    pub local: Arc<Local>,
    /// Its sessions that are being set up.
    pub pending: Arc<Pending>,
    /// How many strangers may be in their handshake.
    pub door: Arc<Door>,
    /// Numbers connections.
    pub attempts: Arc<AtomicU64>,
    /// Where the node decides.
    pub desk: Desk,
    /// Where what came of them goes.
    pub arrivals: mpsc::Sender<Arrival>,
}

impl Reception {
    /// Accepts until the task is dropped; its handshakes end with it.
    pub async fn serve(self, listener: TcpListener) {
        let door = self.door.clone();
        let handshake = |stream, from, guest| self.clone().handshake(stream, from, guest);
        accept_all(listener, door, handshake).await;
    }

    /// The same for connections that are relayed.
    pub(crate) async fn serve_relayed(self, mut inbound: mpsc::Receiver<Inbound>) {
        let mut handshakes = JoinSet::new();
        while let Some((stream, from)) = inbound.recv().await {
            while handshakes.try_join_next().is_some() {}
            let guest = self.door.enter().await;
            handshakes.spawn(self.clone().handshake(stream, from, guest));
        }
    }

    async fn handshake(self, stream: TcpStream, from: SocketAddr, guest: Guest) {
        let attempt = self.attempts.fetch_add(1, Ordering::Relaxed);
        let accepted =
            establish::accept(self.local, self.pending, self.desk, attempt, stream, guest).await;
        let Some(outcome) = accepted.transpose() else {
            return;
        };
        let arrival = Arrival {
            attempt,
            from,
            outcome,
        };
        // Fails only when the node has stopped.
        let _ = self.arrivals.send(arrival).await;
    }
}

/// Accepts until the task is dropped, and runs `handshake` for each connection when there is
/// room; the guest is to be dropped when the peer has authenticated.
pub(crate) async fn accept_all<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    door: Arc<Door>,
    mut handshake: impl FnMut(TcpStream, SocketAddr, Guest) -> F,
) {
    let mut handshakes = JoinSet::new();
    let mut complained = false;
    let mut crowded: Option<Instant> = None;
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
        let guest = match door.try_enter() {
            Some(guest) => guest,
            None => {
                // Once per flood, which is over when nobody has had to wait for a while.
                let before = crowded.replace(Instant::now());
                if before.is_none_or(|at| at.elapsed() > limits::HANDSHAKE_TIMEOUT) {
                    tracing::warn!(
                        %from,
                        limit = limits::MAX_UNAUTHENTICATED,
                        "connections have to wait: too many are in their handshake"
                    );
                }
                door.enter().await
            }
        };
        handshakes.spawn(handshake(stream, from, guest));
    }
}

/// Errors of `accept` that concern the one connection only.
fn is_about_peer(e: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        e.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}
