//! A node made of `erl_dist` and `eetf` as an end.
//!
//! `erl_dist` writes and reads its fields one by one, on whatever stream it is given, as its examples give it a
//! socket. `buffered` puts a buffer before the socket that is written when a message is complete, which a
//! user who cares would do.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use erl_dist::DistributionFlags as Flags;
use erl_dist::handshake::{ClientSideHandshake, HandshakeStatus, ServerSideHandshake};
use erl_dist::message::{Message, Receiver, Sender, channel};
use erl_dist::node::{Creation, LocalNode, PeerNode};
use erl_dist::term::{Atom, Binary, FixInteger, Pid, Term, Tuple};
use futures_io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use super::COOKIE;
use super::end::{Burst, FIRST, Numbered, Place, Tally};
use crate::process::clock_ns;

const CREATION: u32 = 1;
const READ_BYTES: usize = 64 << 10;

/// A stream with two owners, as `erl_dist` wants it.
#[derive(Clone)]
struct Shared(Arc<Inner>);

struct Inner {
    stream: TcpStream,
    /// What is written when it is flushed, and what was read ahead; `None`: not buffered.
    buffers: Option<Buffers>,
}

type Buffers = (Mutex<Vec<u8>>, Mutex<io::Cursor<Vec<u8>>>);

impl Shared {
    fn new(stream: TcpStream, buffered: bool) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let buffers = buffered.then(Default::default);
        Ok(Self(Arc::new(Inner { stream, buffers })))
    }

    fn read(&self, task: &mut Task<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.stream.poll_read_ready(task))?;
            match self.0.stream.try_read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
    }

    fn write(&self, task: &mut Task<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.stream.poll_write_ready(task))?;
            match self.0.stream.try_write(bytes) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

impl AsyncRead for Shared {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut Task<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let Some((_, ahead)) = &self.0.buffers else {
            return self.read(task, buffer);
        };
        let mut ahead = lock(ahead);
        if ahead.position() == ahead.get_ref().len() as u64 {
            ahead.set_position(0);
            let bytes = ahead.get_mut();
            bytes.resize(READ_BYTES, 0);
            let outcome = self.read(task, bytes);
            bytes.truncate(match &outcome {
                Poll::Ready(Ok(n)) => *n,
                _ => 0,
            });
            ready!(outcome)?;
        }
        Poll::Ready(io::Read::read(&mut *ahead, buffer))
    }
}

impl AsyncWrite for Shared {
    fn poll_write(
        self: Pin<&mut Self>,
        task: &mut Task<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some((waiting, _)) = &self.0.buffers else {
            return self.write(task, bytes);
        };
        lock(waiting).extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        if let Some((waiting, _)) = &self.0.buffers {
            let mut waiting = lock(waiting);
            while !waiting.is_empty() {
                let written = ready!(self.write(task, &waiting))?;
                waiting.drain(..written);
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(task)
    }
}

fn local(name: &str, flags: Flags) -> Result<LocalNode> {
    let name = name.parse().map_err(|e| anyhow::anyhow!("{name}: {e}"))?;
    let mut local = LocalNode::new(name, Creation::new(CREATION));
    local.flags = flags;
    Ok(local)
}

/// The handshake of a node that is dialled.
pub(super) async fn accept<T: AsyncRead + AsyncWrite + Unpin>(
    stream: T,
    name: &str,
    flags: Flags,
) -> Result<(T, PeerNode)> {
    let mut handshake = ServerSideHandshake::new(stream, local(name, flags)?, COOKIE);
    handshake.execute_recv_name().await?;
    Ok(handshake.execute_rest(HandshakeStatus::Ok).await?)
}

type Link = Arc<tokio::sync::Mutex<Sender<Shared>>>;

/// What sends.
struct ErlDist {
    place: Place,
    buffered: bool,
    runtime: Runtime,
    links: HashMap<String, Link>,
}

pub(super) fn start(place: Place, buffered: bool) -> Result<Numbered> {
    let runtime = Runtime::new()?;
    let listener = runtime.block_on(TcpListener::bind(place.listen))?;
    let (name, handle) = (place.name.clone(), runtime.handle().clone());
    let mut sender = ErlDist {
        place,
        buffered,
        runtime,
        links: HashMap::new(),
    };
    let (end, tally) = Numbered::new(CREATION, move |burst| sender.send(burst));
    handle.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (name, tally) = (name.clone(), tally.clone());
            tokio::spawn(async move {
                if let Err(e) = receive(stream, &name, buffered, &tally).await {
                    tally.tell(Err(e));
                }
            });
        }
    });
    Ok(end)
}

impl ErlDist {
    fn link(&mut self, peer: &str) -> Result<Link> {
        if let Some(link) = self.links.get(peer) {
            return Ok(link.clone());
        }
        let address = *self.place.peers.get(peer).context("unknown peer")?;
        let (name, buffered) = (&self.place.name, self.buffered);
        let link = self.runtime.block_on(async {
            let stream = Shared::new(TcpStream::connect(address).await?, buffered)?;
            let mut handshake =
                ClientSideHandshake::new(stream, local(name, Flags::default())?, COOKIE);
            let version = erl_dist::LOWEST_DISTRIBUTION_PROTOCOL_VERSION;
            handshake.execute_send_name(version).await?;
            let (stream, peer) = handshake.execute_rest(true).await?;
            let (sender, receiver) = channel(stream.clone(), Flags::default() & peer.flags);
            let link = Arc::new(tokio::sync::Mutex::new(sender));
            keep(link.clone(), stream);
            tokio::spawn(ignore(receiver));
            anyhow::Ok(link)
        })?;
        self.links.insert(peer.to_owned(), link.clone());
        Ok(link)
    }

    fn send(&mut self, burst: Burst) -> Result<u64> {
        let link = self.link(&burst.peer)?;
        let start = clock_ns();
        let tasks: Vec<_> = burst
            .pids
            .iter()
            .map(|(id, serial)| {
                let to = Pid::new(burst.peer.clone(), *id, *serial, burst.creation);
                let (link, payload, count) = (link.clone(), burst.payload.clone(), burst.count);
                self.runtime.spawn(async move {
                    for number in FIRST..FIRST + count {
                        let message = Tuple::from(vec![
                            Atom::from("data").into(),
                            FixInteger::from(number as i32).into(),
                            Binary::from(payload.to_vec()).into(),
                        ]);
                        let message = Message::send(to.clone(), message.into());
                        link.lock().await.send(message).await?;
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        for task in tasks {
            self.runtime.block_on(task)??;
        }
        Ok(start)
    }
}

/// Ticks.
fn keep(link: Link, mut stream: Shared) {
    tokio::spawn(async move {
        while link.lock().await.send(Message::Tick).await.is_ok() {
            let flush = std::future::poll_fn(|task| Pin::new(&mut stream).poll_flush(task));
            if flush.await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    });
}

async fn ignore(mut receiver: Receiver<Shared>) {
    while receiver.recv().await.is_ok() {}
}

async fn receive(stream: TcpStream, name: &str, buffered: bool, tally: &Tally) -> Result<()> {
    let stream = Shared::new(stream, buffered)?;
    let (stream, peer) = accept(stream, name, Flags::default()).await?;
    let (sender, mut receiver) = channel(stream.clone(), Flags::default() & peer.flags);
    keep(Arc::new(tokio::sync::Mutex::new(sender)), stream);
    loop {
        let (to, term) = match receiver.recv().await? {
            Message::Send(message) => (message.to_pid, message.message),
            Message::SendSender(message) => (message.to_pid, message.message),
            // net_kernel's ping among others.
            _ => continue,
        };
        let Term::Tuple(Tuple { elements }) = &term else {
            bail!("not a message of the benchmark: {term}");
        };
        let [
            Term::Atom(kind),
            Term::FixInteger(number),
            Term::Binary(payload),
        ] = &elements[..]
        else {
            bail!("not a message of the benchmark: {term}");
        };
        if kind.name != "data" {
            bail!("not a message of the benchmark: {term}");
        }
        let verdict = tally
            .sinks()
            .take(to.id, number.value.into(), &payload.bytes)?;
        if let Some(verdict) = verdict {
            tally.tell(Ok(verdict));
        }
    }
}
