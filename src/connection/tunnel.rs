//! Sockets whose other end is a node that can be reached over other nodes only.
//!
//! A session is made of sockets, and I/O threads know nothing else. So a relayed connection is a pair of local sockets: one end goes to the
//! session, a task carries bytes between the other one and a stream of [`relay::net`](crate::relay::net). When the stream breaks, the socket does.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};

use crate::relay::net::{Net, Stream, address_of};

/// Bytes carried at once.
const COPY_BYTES: usize = 64 << 10;

/// The streams' clock is no finer.
const LEAST_SLEEP: Duration = Duration::from_millis(1);

/// A packet that is to be sent to a node.
pub(crate) type Outbound = (Arc<str>, Vec<u8>);

/// A relayed connection that another node has opened.
pub(crate) type Inbound = (TcpStream, SocketAddr);

/// Relayed connections of a node.
pub struct Tunnels {
    net: Mutex<Net>,
    started: Instant,
    /// Bounded by the windows of the streams.
    out: mpsc::UnboundedSender<Outbound>,
    inbound: mpsc::Sender<Inbound>,
    changed: Notify,
    /// The other node's address, by the address of the session's end of a pair.
    remotes: Mutex<HashMap<SocketAddr, SocketAddr>>,
}

/// What comes out of [`Tunnels`].
pub(crate) struct Outlets {
    pub(crate) packets: mpsc::UnboundedReceiver<Outbound>,
    pub(crate) inbound: mpsc::Receiver<Inbound>,
}

impl Tunnels {
    /// The tunnels of the node of this name. [`Tunnels::run`] has to run.
    pub(crate) fn new(own: &str, seed: u64) -> (Arc<Self>, Outlets) {
        let (out, packets) = mpsc::unbounded_channel();
        let (inbound_in, inbound) = mpsc::channel(crate::limits::MAX_UNAUTHENTICATED);
        let tunnels = Self {
            net: Mutex::new(Net::new(own, seed, Duration::ZERO)),
            started: Instant::now(),
            out,
            inbound: inbound_in,
            changed: Notify::new(),
            remotes: Mutex::default(),
        };
        (Arc::new(tunnels), Outlets { packets, inbound })
    }

    /// Looks at the clock for the streams.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            let now = self.started.elapsed();
            let deadline = self.net.lock().deadline(now);
            let due = async {
                match deadline {
                    Some(at) => {
                        // One that has passed must not spin.
                        let at = at.max(now + LEAST_SLEEP);
                        tokio::time::sleep_until((self.started + at).into()).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => self.with(|_, _| ()),
                () = self.changed.notified() => {}
            }
        }
    }

    /// A packet has come from this node.
    pub(crate) fn receive(self: &Arc<Self>, from: &Arc<str>, packet: Vec<u8>) {
        self.with(|net, now| net.receive(now, from, packet));
        loop {
            let accepted = self.net.lock().accept();
            let Some((stream, peer)) = accepted else {
                return;
            };
            let this = self.clone();
            tokio::spawn(async move {
                let end = Held {
                    tunnels: this.clone(),
                    stream,
                };
                if let Ok(socket) = this.joined(end, &peer).await {
                    // Fails only when the node has stopped.
                    let _ = this.inbound.send((socket, address_of(&peer))).await;
                }
            });
        }
    }

    /// Connects to a node.
    pub(crate) async fn connect(self: &Arc<Self>, node: &Arc<str>) -> io::Result<TcpStream> {
        let stream = self.with(|net, _| net.open(node));
        let end = Held {
            tunnels: self.clone(),
            stream: stream.ok_or(io::ErrorKind::QuotaExceeded)?,
        };
        self.joined(end, node).await
    }

    /// Where a socket leads that may be the end of a tunnel.
    pub(crate) fn remote(&self, socket: &TcpStream) -> io::Result<SocketAddr> {
        let relayed = self.remotes.lock().get(&socket.local_addr()?).copied();
        relayed.map_or_else(|| socket.peer_addr(), Ok)
    }

    // Waits until the stream is open, and joins it to a socket.
    async fn joined(self: &Arc<Self>, end: Held, node: &str) -> io::Result<TcpStream> {
        let stream = end.stream;
        self.ready(|net, cx| net.poll_open(stream, cx)).await?;
        let (near, far) = pair().await?;
        let address = near.local_addr()?;
        self.remotes.lock().insert(address, address_of(node));
        tokio::spawn(async move {
            let (read, write) = far.into_split();
            // Either way the sockets are dropped, and the stream given up.
            let _ = tokio::try_join!(end.send(read), end.receive(write));
            end.tunnels.remotes.lock().remove(&address);
        });
        Ok(near)
    }

    // Does something with the streams, and sends what they have to say.
    fn with<R>(&self, act: impl FnOnce(&mut Net, Duration) -> R) -> R {
        let now = self.started.elapsed();
        let mut net = self.net.lock();
        let result = act(&mut net, now);
        net.poll(now);
        while let Some(packet) = net.outgoing() {
            // The receiver is gone only when the node has stopped.
            let _ = self.out.send(packet);
        }
        drop(net);
        self.changed.notify_one();
        result
    }

    async fn ready<R>(
        &self,
        mut poll: impl FnMut(&mut Net, &Context<'_>) -> Poll<io::Result<R>>,
    ) -> io::Result<R> {
        poll_fn(|cx| self.with(|net, _| poll(net, cx))).await
    }
}

/// A stream that is given up when this is dropped.
struct Held {
    tunnels: Arc<Tunnels>,
    stream: Stream,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.tunnels.with(|net, _| net.give_up(self.stream));
    }
}

impl Held {
    async fn send(&self, mut from: OwnedReadHalf) -> io::Result<()> {
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let count = from.read(&mut buffer).await?;
            if count == 0 {
                self.tunnels.with(|net, _| net.close(self.stream));
                return Ok(());
            }
            let mut bytes = &buffer[..count];
            while !bytes.is_empty() {
                let tunnels = &self.tunnels;
                let write = tunnels.ready(|net, cx| net.poll_write(self.stream, cx, bytes));
                let written = write.await?;
                bytes = &bytes[written..];
            }
        }
    }

    async fn receive(&self, mut to: OwnedWriteHalf) -> io::Result<()> {
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let tunnels = &self.tunnels;
            let read = tunnels.ready(|net, cx| net.poll_read(self.stream, cx, &mut buffer));
            match read.await? {
                0 => return to.shutdown().await,
                count => to.write_all(&buffer[..count]).await?,
            }
        }
    }
}

/// Two ends of a local connection.
async fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let near = TcpStream::connect(listener.local_addr()?).await?;
    let own = near.local_addr()?;
    loop {
        // Anybody on this host may knock; only our own end is let in.
        let (far, from) = listener.accept().await?;
        if from == own {
            far.set_nodelay(true)?;
            return Ok((near, far));
        }
    }
}
