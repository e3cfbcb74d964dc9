//! Brings up sessions: the handshake's driver, on both ends.
//!
//! A session comes up in four steps: the first connection's handshake, the exchange of hellos,
//! the handshakes of the extra connections, and `READY`. Everything here runs on the control
//! plane and reads exactly the bytes that belong to a step, so that the sockets can be handed to
//! the I/O threads with nothing lost in a buffer.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rand::RngExt;
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::connection::door::Guest;
use crate::connection::session::ConnectionInfo;
use crate::connection::shake::{Judging, Prefix, shake, tune, write};
use crate::connection::stock::{StockDesk, Stream};
use crate::connection::tunnel::Tunnels;
use crate::limits;
use crate::relay::is_relayed;
use crate::wire::flags::Flags;
use crate::wire::frame::{self, Kind};
use crate::wire::handshake::{
    Config, Established, Handshake, HandshakeError, Link, PeerHello, Purpose, Role, SessionId,
    Verdict,
};
use crate::wire::hello::{ChannelSpec, Hello, HelloError, Plan};
use crate::wire::identity::Identity;

/// Time for the extra connections and `READY`.
const BIND_TIMEOUT: Duration = Duration::from_secs(10);

/// Extra connections dialled at once.
const DIALS_AT_ONCE: usize = 32;

/// Why a session did not come up.
#[derive(Debug, Error)]
pub enum EstablishError {
    /// The address could not be connected to.
    #[error("cannot connect to {addr}: {source}")]
    Connect {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The handshake failed.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The hello was malformed or the channels do not fit together.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// The connection broke.
    #[error("connection broken during {step}: {source}")]
    Broken {
        /// What was going on.
        step: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A step took too long.
    #[error("the peer took too long in {0}")]
    Timeout(&'static str),
    /// The peer is a stock node.
    #[error(
        "{0} is a node without Partisan; it can be reached by Distributed Erlang only, add the \
         application partisan to it"
    )]
    Stock(Arc<str>),
    /// The peer sent something else than what the step demands.
    #[error("unexpected {0}")]
    Unexpected(String),
    /// The node has decided for another session with this peer, or is stopping.
    #[error("given up in favour of another session")]
    GivenUp,
}

/// What both roles need to know of this node.
pub struct Local {
    /// Name and creation on the wire.
    pub identity: Identity,
    /// What is offered to stock peers.
    pub stock_flags: Flags,
    /// Number of this start of the application.
    pub instance: u64,
    /// The channels configured here.
    pub channels: Vec<ChannelSpec>,
    /// Cookie for peers without one of their own.
    pub cookie: Vec<u8>,
    /// Cookies of particular peers.
    pub cookies: HashMap<String, Vec<u8>>,
    /// The way to nodes that are reached over others.
    pub tunnels: Option<Arc<Tunnels>>,
    /// Whether this node takes [bundles](Hello::bundles).
    pub bundles: bool,
}

impl Local {
    /// The cookie for `peer`.
    pub fn cookie_for(&self, peer: &str) -> Vec<u8> {
        self.cookies.get(peer).unwrap_or(&self.cookie).clone()
    }

    pub(crate) fn machine(&self, role: Role) -> Handshake {
        let mut rng = rand::rng();
        Handshake::new(Config {
            local: self.identity.clone(),
            flags: Flags::OURS,
            stock_flags: self.stock_flags,
            instance: self.instance,
            capabilities: 0,
            nonce: rng.random(),
            challenge: rng.random(),
            role,
        })
    }

    async fn connect(&self, peer: &Arc<str>, addr: SocketAddr) -> std::io::Result<TcpStream> {
        match &self.tunnels {
            Some(tunnels) if is_relayed(&addr) => tunnels.connect(peer).await,
            _ => TcpStream::connect(addr).await,
        }
    }

    fn remote(&self, stream: &TcpStream) -> std::io::Result<SocketAddr> {
        match &self.tunnels {
            Some(tunnels) => tunnels.remote(stream),
            None => stream.peer_addr(),
        }
    }

    fn hello(&self) -> Result<Vec<u8>, EstablishError> {
        let body = Hello {
            channels: self.channels.clone(),
            bundles: self.bundles,
        }
        .encode()?;
        let mut out = Vec::with_capacity(body.len() + frame::HEADER);
        frame::put_frame(&mut out, Kind::Hello, &body)
            .map_err(|e| EstablishError::Unexpected(e.to_string()))?;
        Ok(out)
    }
}

/// A session whose connections are all bound, in order of their index.
pub struct Ready {
    /// The peer's name and creation.
    pub peer: Identity,
    /// The start of the peer's application.
    pub instance: u64,
    /// The session's id.
    pub id: SessionId,
    /// Channels and connections.
    pub plan: Plan,
    /// Whether the peer takes [bundles](Hello::bundles).
    pub bundles: bool,
    /// The sockets.
    pub sockets: Vec<std::net::TcpStream>,
    /// What to show of the connections.
    pub connections: Vec<ConnectionInfo>,
}

/// Which connection a session begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This dial of ours.
    Dialled(u64),
    /// This accepted attempt of the peer.
    Accepted(u64),
}

/// A peer whose first connection has authenticated: may a session go up?
pub struct Authenticated {
    /// The peer.
    pub name: Arc<str>,
    /// Its instance.
    pub instance: u64,
    /// Whose connection it is.
    pub origin: Origin,
    /// Answered when the session may go up; dropped if it may not.
    pub admit: oneshot::Sender<Permit>,
}

/// Leave to bring up a session.
pub struct Permit {
    /// The node's number for the session.
    pub session: u64,
    /// Resolves when the leave is withdrawn.
    pub withdrawn: oneshot::Receiver<()>,
}

/// What the node decides while a session is being set up.
#[derive(Clone)]
pub struct Desk {
    /// Where dialling peers are judged by their name.
    pub judge: mpsc::Sender<Judgement>,
    /// Where authenticated peers are admitted.
    pub authenticated: mpsc::Sender<Authenticated>,
    /// Who serves stock peers; without it [`Desk::judge`] hears of them and refuses.
    pub stock: Option<StockDesk>,
}

impl Desk {
    async fn admission(
        &self,
        name: Arc<str>,
        instance: u64,
        origin: Origin,
    ) -> Result<Permit, EstablishError> {
        let (admit, permit) = oneshot::channel();
        let request = Authenticated {
            name,
            instance,
            origin,
            admit,
        };
        self.authenticated
            .send(request)
            .await
            .map_err(|_| EstablishError::GivenUp)?;
        permit.await.map_err(|_| EstablishError::GivenUp)
    }
}

/// A session that did not come up, and its number if it had been admitted.
pub type Failure = (Option<u64>, EstablishError);

/// Runs what follows an admission until it is done or the leave is withdrawn.
async fn permitted<T>(
    permit: Permit,
    rest: impl Future<Output = Result<T, EstablishError>>,
) -> Result<(u64, T), Failure> {
    let session = permit.session;
    tokio::select! {
        done = rest => match done {
            Ok(value) => Ok((session, value)),
            Err(e) => Err((Some(session), e)),
        },
        _ = permit.withdrawn => Err((Some(session), EstablishError::GivenUp)),
    }
}

/// A question of a listener to the node: may this peer come in?
pub struct Judgement {
    /// The node's number for the connection.
    pub attempt: u64,
    /// What the peer says of itself, not yet proved.
    pub peer: PeerHello,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Verdict>,
}

/// Sessions on the listening side that wait for their extra connections.
#[derive(Default)]
pub struct Pending(Mutex<HashMap<SessionId, mpsc::Sender<Extra>>>);

/// An extra connection that has proved where it belongs.
pub struct Extra {
    peer: Arc<str>,
    instance: u64,
    index: u16,
    stream: TcpStream,
}

impl Pending {
    fn register(self: &Arc<Self>, id: SessionId) -> Registration {
        let (sender, extras) = mpsc::channel(limits::MAX_CONNECTIONS);
        self.0.lock().insert(id, sender);
        Registration {
            pending: self.clone(),
            id,
            extras,
        }
    }

    fn offer(&self, id: SessionId, extra: Extra) -> bool {
        let sender = self.0.lock().get(&id).cloned();
        sender.is_some_and(|s| s.try_send(extra).is_ok())
    }
}

struct Registration {
    pending: Arc<Pending>,
    id: SessionId,
    extras: mpsc::Receiver<Extra>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.pending.0.lock().remove(&self.id);
    }
}

/// Dials `addr` and brings up a session with the node `peer`; `dial` numbers the attempt.
///
/// # Errors
/// See [`EstablishError`]; nothing is left behind.
pub async fn dial(
    local: Arc<Local>,
    desk: Desk,
    peer: Arc<str>,
    addr: SocketAddr,
    dial: u64,
) -> Result<(u64, Ready), Failure> {
    let early = |e| (None, e);
    let (first, established) = dial_one(&local, peer.clone(), addr, Purpose::First)
        .await
        .map_err(early)?;
    let (Some(trailer), Link::First(id)) = (&established.peer.trailer, established.link) else {
        return Err(early(EstablishError::Stock(peer)));
    };
    let instance = trailer.instance;
    let permit = desk
        .admission(peer.clone(), instance, Origin::Dialled(dial))
        .await
        .map_err(early)?;
    permitted(
        permit,
        bind_dialled(local, peer, addr, first, established, id, instance),
    )
    .await
}

async fn bind_dialled(
    local: Arc<Local>,
    peer: Arc<str>,
    addr: SocketAddr,
    mut first: TcpStream,
    established: Established,
    id: SessionId,
    instance: u64,
) -> Result<Ready, EstablishError> {
    write(&mut first, &local.hello()?, "hello").await?;
    // The listener says hello when its node has admitted the session.
    let hello = timeout(BIND_TIMEOUT, read_hello(&mut first))
        .await
        .map_err(|_| EstablishError::Timeout("hello"))??;
    let plan = Plan::merge(&local.channels, &hello.channels)?;
    let mut streams = vec![first];
    let bind = async {
        let mut index = 1;
        while index < plan.total() {
            let mut batch = tokio::task::JoinSet::new();
            for i in index..(index + DIALS_AT_ONCE).min(plan.total()) {
                let (local, peer) = (local.clone(), peer.clone());
                let purpose = Purpose::Extra {
                    session: id,
                    index: i as u16,
                };
                batch.spawn(async move {
                    dial_one(&local, peer, addr, purpose)
                        .await
                        .map(|(s, _)| (i, s))
                });
            }
            let mut bound = Vec::new();
            while let Some(done) = batch.join_next().await {
                bound.push(done.map_err(|e| EstablishError::Unexpected(e.to_string()))??);
            }
            bound.sort_by_key(|(i, _)| *i);
            streams.extend(bound.into_iter().map(|(_, s)| s));
            index += DIALS_AT_ONCE;
        }
        match read_frame(&mut streams[0], 0, "ready").await? {
            (Kind::Ready, _) => Ok(()),
            (kind, _) => Err(EstablishError::Unexpected(format!("{kind:?} for ready"))),
        }
    };
    timeout(BIND_TIMEOUT, bind)
        .await
        .map_err(|_| EstablishError::Timeout("binding"))??;
    ready(
        &local,
        &established,
        id,
        instance,
        (plan, hello.bundles),
        streams,
    )
}

async fn dial_one(
    local: &Arc<Local>,
    peer: Arc<str>,
    addr: SocketAddr,
    purpose: Purpose,
) -> Result<(TcpStream, Established), EstablishError> {
    let role = Role::Dialer {
        peer: peer.clone(),
        cookie: local.cookie_for(&peer),
        purpose,
    };
    let attempt = async {
        let connect = local.connect(&peer, addr).await;
        let mut stream = connect.map_err(|source| EstablishError::Connect { addr, source })?;
        tune(&stream);
        let mut machine = local.machine(role);
        let established = shake(&mut stream, Prefix::Two, &mut machine, None, None).await?;
        Ok((stream, established))
    };
    timeout(limits::HANDSHAKE_TIMEOUT, attempt)
        .await
        .map_err(|_| EstablishError::Timeout("connecting or the handshake"))?
}

/// Takes a connection from the listener through its handshake. An extra connection is given to
/// the session that it belongs to; a first one becomes a session once its extras are bound; one
/// of a stock peer goes to the [`StockDesk`].
///
/// `guest` is dropped when the handshake is over.
///
/// # Errors
/// See [`EstablishError`]; nothing is left behind.
pub async fn accept(
    local: Arc<Local>,
    pending: Arc<Pending>,
    desk: Desk,
    attempt: u64,
    mut stream: TcpStream,
    guest: Guest,
) -> Result<Option<(u64, Ready)>, Failure> {
    let early = |e| (None, e);
    tune(&stream);
    let mut machine = local.machine(Role::Listener);
    let mut judging = Judging {
        local: &local,
        judge: Some(&desk.judge),
        stock: desk.stock.as_ref(),
        attempt,
        judged: None,
    };
    let prefix = Prefix::Two;
    let judge = Some(&mut judging);
    let outcome = shake(&mut stream, prefix, &mut machine, judge, Some(&guest)).await;
    drop(guest);
    let settled = judging.settle(stream, outcome, Stream::Tcp).await;
    let Some((stream, outcome)) = settled else {
        return Ok(None);
    };
    let established = outcome.map_err(early)?;
    let name = established.peer.name.clone();
    let Some(instance) = established.peer.trailer.as_ref().map(|t| t.instance) else {
        return Err(early(EstablishError::Stock(name)));
    };
    let id = match established.link {
        Link::Stock => return Err(early(EstablishError::Stock(name))),
        Link::First(id) => id,
        Link::Extra { session, index } => {
            let extra = Extra {
                peer: name.clone(),
                instance,
                index,
                stream,
            };
            if !pending.offer(session, extra) {
                return Err(early(EstablishError::Unexpected(format!(
                    "extra connection of {name} for a session that is not being set up"
                ))));
            }
            return Ok(None);
        }
    };
    let permit = desk
        .admission(name, instance, Origin::Accepted(attempt))
        .await
        .map_err(early)?;
    let bound = bind_accepted(local, pending, stream, established, id, instance);
    permitted(permit, bound).await.map(Some)
}

async fn bind_accepted(
    local: Arc<Local>,
    pending: Arc<Pending>,
    mut stream: TcpStream,
    established: Established,
    id: SessionId,
    instance: u64,
) -> Result<Ready, EstablishError> {
    let mut registration = pending.register(id);
    write(&mut stream, &local.hello()?, "hello").await?;
    let hello = timeout(limits::HANDSHAKE_TIMEOUT, read_hello(&mut stream))
        .await
        .map_err(|_| EstablishError::Timeout("hello"))??;
    let plan = Plan::merge(&local.channels, &hello.channels)?;
    let total = plan.total();
    let mut streams: Vec<Option<TcpStream>> = Vec::new();
    streams.resize_with(total, || None);
    streams[0] = Some(stream);
    let bind = async {
        let mut missing = total - 1;
        let mut probe = [0; 1];
        while missing > 0 {
            // The dialler sends nothing meanwhile; an end of the first connection is noticed.
            let extra = tokio::select! {
                extra = registration.extras.recv() => extra,
                _ = peek(&streams[0], &mut probe) => None,
            };
            let Some(extra) = extra else {
                return Err(EstablishError::Unexpected(
                    "end of the first connection".into(),
                ));
            };
            let ours = extra.peer == established.peer.name && extra.instance == instance;
            match streams.get_mut(usize::from(extra.index)) {
                Some(slot @ None) if ours => *slot = Some(extra.stream),
                _ => {
                    return Err(EstablishError::Unexpected(format!(
                        "extra connection {} of {}",
                        extra.index, extra.peer
                    )));
                }
            }
            missing -= 1;
        }
        Ok(())
    };
    timeout(BIND_TIMEOUT, bind)
        .await
        .map_err(|_| EstablishError::Timeout("binding"))??;
    let mut streams: Vec<TcpStream> = streams.into_iter().flatten().collect();
    write(&mut streams[0], &frame::ready(), "ready").await?;
    ready(
        &local,
        &established,
        id,
        instance,
        (plan, hello.bundles),
        streams,
    )
}

/// Resolves when the peer has ended the connection or broken the silence.
async fn peek(stream: &Option<TcpStream>, probe: &mut [u8]) {
    match stream {
        Some(stream) => {
            let _ = stream.peek(probe).await;
        }
        None => std::future::pending().await,
    }
}

fn ready(
    local: &Local,
    established: &Established,
    id: SessionId,
    instance: u64,
    (plan, bundles): (Plan, bool),
    streams: Vec<TcpStream>,
) -> Result<Ready, EstablishError> {
    let mut sockets = Vec::with_capacity(streams.len());
    let mut connections = Vec::with_capacity(streams.len());
    let broken = |source| EstablishError::Broken {
        step: "the hand-over",
        source,
    };
    for stream in streams {
        let remote = local.remote(&stream).map_err(broken)?;
        connections.push(ConnectionInfo {
            remote,
            since: SystemTime::now(),
        });
        sockets.push(stream.into_std().map_err(broken)?);
    }
    Ok(Ready {
        peer: Identity::new(established.peer.name.clone(), established.peer.creation),
        instance,
        id,
        plan,
        bundles,
        sockets,
        connections,
    })
}

async fn read_frame(
    stream: &mut TcpStream,
    max: usize,
    step: &'static str,
) -> Result<(Kind, Vec<u8>), EstablishError> {
    let broken = |source| EstablishError::Broken { step, source };
    let mut header = [0; frame::HEADER];
    stream.read_exact(&mut header).await.map_err(broken)?;
    let header = frame::parse_header(&header)
        .map_err(|e| EstablishError::Unexpected(e.to_string()))?
        .filter(|h| h.body <= max)
        .ok_or_else(|| EstablishError::Unexpected(format!("frame length in {step}")))?;
    let mut body = vec![0; header.body];
    stream.read_exact(&mut body).await.map_err(broken)?;
    Ok((header.kind, body))
}

async fn read_hello(stream: &mut TcpStream) -> Result<Hello, EstablishError> {
    match read_frame(stream, limits::MAX_HELLO_BYTES, "hello").await? {
        (Kind::Hello, body) => Ok(Hello::decode(&body)?),
        (kind, _) => Err(EstablishError::Unexpected(format!("{kind:?} for hello"))),
    }
}
