//! EPMD, the daemon that knows the ports of the nodes on its host.
//!
//! A node registers under the first part of its name and stays registered as long as its
//! connection to EPMD lives; EPMD answers with the node's creation (OTP `erl_dist_protocol`,
//! "EPMD Protocol"). When EPMD restarts, everybody registers again. The node keeps its creation
//! then, as OTP does (`erl_epmd.erl`, `handle_info(reconnect, …)`): the old one is in identifiers
//! that peers hold.
//!
//! The messages are those of `erl_dist`, which trusts what it reads; here it reads from a stream
//! that ends after a fixed number of bytes, and has a deadline.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use erl_dist::epmd::{EpmdClient, EpmdError as Reply, NodeEntry};
use rand::RngExt;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use crate::limits;

/// The port of EPMD unless `ERL_EPMD_PORT` says otherwise.
pub const DEFAULT_PORT: u16 = 4369;

/// Pause between looks whether a daemon listens that was started just now.
const STARTING: Duration = Duration::from_millis(20);

/// Why EPMD could not be asked.
#[derive(Clone, Debug, Error)]
pub enum EpmdError {
    /// Nobody listens there.
    #[error(
        "there is no EPMD at {addr} ({source}): start one with `epmd -daemon`, or run without it \
         on fixed ports"
    )]
    Absent {
        /// Where it was sought.
        addr: SocketAddr,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// It could not be started.
    #[error("cannot start EPMD ({0}): is the program epmd in the PATH?")]
    Start(Arc<io::Error>),
    /// It took too long.
    #[error("EPMD at {0} does not answer")]
    Silent(SocketAddr),
    /// Somebody else has the name.
    #[error("the name {0} is taken: a node of that name runs on this host")]
    Taken(String),
    /// The name cannot be registered.
    #[error("{0:?} cannot be registered: give the part before the @, at most 255 bytes")]
    BadName(String),
    /// It said something else than what was due.
    #[error("EPMD at {addr} gave a wrong answer: {what}")]
    Garbage {
        /// Which one.
        addr: SocketAddr,
        /// What is wrong.
        what: String,
    },
}

/// How EPMD is reached.
#[derive(Clone, Debug)]
pub struct Epmd {
    /// Where this host's EPMD listens.
    address: IpAddr,
    port: u16,
    start: bool,
}

impl Default for Epmd {
    fn default() -> Self {
        Self {
            address: Ipv4Addr::LOCALHOST.into(),
            port: DEFAULT_PORT,
            start: false,
        }
    }
}

/// A stream for `erl_dist` that ends after some bytes.
type Bounded = Compat<tokio::io::Join<tokio::io::Take<OwnedReadHalf>, OwnedWriteHalf>>;

impl Epmd {
    /// On this port, as every EPMD of the cluster.
    pub fn on_port(port: u16) -> Self {
        Self {
            port,
            ..Self::default()
        }
    }

    /// As the environment says: `ERL_EPMD_PORT` is the port on every host, and the first address
    /// of `ERL_EPMD_ADDRESS` is where this host's EPMD listens besides the loopback.
    pub fn from_env() -> Self {
        Self::from_vars(|name| std::env::var(name).ok())
    }

    fn from_vars(var: impl Fn(&str) -> Option<String>) -> Self {
        let first = |list: String| list.split(',').next().and_then(|a| a.trim().parse().ok());
        let default = Self::default();
        Self {
            address: var("ERL_EPMD_ADDRESS")
                .and_then(first)
                .unwrap_or(default.address),
            port: var("ERL_EPMD_PORT")
                .and_then(|port| port.parse().ok())
                .unwrap_or(default.port),
            start: false,
        }
    }

    /// Whether [`Epmd::register`] runs `epmd -daemon` if there is none; not by default.
    #[must_use]
    pub fn start_epmd(mut self, start: bool) -> Self {
        self.start = start;
        self
    }

    /// The port that the node `name` at `host` listens on; `None` if it does not run.
    ///
    /// # Errors
    /// See [`EpmdError`].
    pub async fn lookup(&self, host: IpAddr, name: &str) -> Result<Option<u16>, EpmdError> {
        let addr = SocketAddr::new(host, self.port);
        let answer = async {
            let client = client(addr, limits::MAX_EPMD_ANSWER).await?;
            client.get_node(name).await.map_err(|e| garbage(addr, &e))
        };
        Ok(within(addr, answer).await?.map(|entry| entry.port))
    }

    /// The names and ports of the nodes at `host`.
    ///
    /// # Errors
    /// See [`EpmdError`].
    pub async fn names(&self, host: IpAddr) -> Result<Vec<(String, u16)>, EpmdError> {
        let addr = SocketAddr::new(host, self.port);
        let answer = async {
            let client = client(addr, limits::MAX_EPMD_NAMES).await?;
            client.get_names().await.map_err(|e| garbage(addr, &e))
        };
        within(addr, answer).await
    }

    /// Registers this host's node `name`, the part before the `@`, which listens on `port`, as a
    /// hidden one, for as long as the registration lives.
    ///
    /// # Errors
    /// See [`EpmdError`].
    pub async fn register(&self, name: &str, port: u16) -> Result<Registration, EpmdError> {
        if name.is_empty() || name.len() > 255 || name.contains('@') {
            return Err(EpmdError::BadName(name.to_owned()));
        }
        let first = match self.alive(name, port).await {
            Err(EpmdError::Absent { .. }) if self.start => {
                self.launch().await?;
                self.alive_soon(name, port).await
            }
            other => other,
        };
        let (stream, creation) = first?;
        let (registered, state) = watch::channel(true);
        let keeper = Keeper {
            epmd: self.clone(),
            name: name.to_owned(),
            port,
            registered,
        };
        Ok(Registration {
            creation,
            state,
            task: tokio::spawn(keeper.keep(stream)).abort_handle(),
        })
    }

    /// One registration; it lasts as long as the stream.
    async fn alive(&self, name: &str, port: u16) -> Result<(Bounded, u32), EpmdError> {
        let addr = SocketAddr::new(self.address, self.port);
        let answer = async {
            // Nothing may follow the answer, of which the older form is shorter.
            let client = client(addr, limits::MAX_EPMD_ANSWER).await?;
            let entry = NodeEntry::new_hidden(name, port);
            client.register(entry).await.map_err(|error| match error {
                Reply::RegisterNodeError { .. } => EpmdError::Taken(name.to_owned()),
                error => garbage(addr, &error),
            })
        };
        let (stream, creation) = within(addr, answer).await?;
        Ok((stream, creation.get()))
    }

    /// The first registration with a daemon that was started just now. It may not listen yet.
    async fn alive_soon(&self, name: &str, port: u16) -> Result<(Bounded, u32), EpmdError> {
        let deadline = Instant::now() + limits::EPMD_TIMEOUT;
        loop {
            match self.alive(name, port).await {
                Err(EpmdError::Absent { .. }) if Instant::now() < deadline => {
                    sleep(STARTING).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Runs `epmd -daemon`, which leaves a daemon behind.
    async fn launch(&self) -> Result<(), EpmdError> {
        let port = self.port.to_string();
        let run = move || {
            Command::new("epmd")
                .args(["-daemon", "-port", &port])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
        };
        let status = tokio::task::spawn_blocking(run)
            .await
            .map_err(io::Error::other)
            .and_then(|status| status)
            .and_then(|status| match status.success() {
                true => Ok(()),
                false => Err(io::Error::other(status.to_string())),
            });
        status.map_err(|error| EpmdError::Start(Arc::new(error)))
    }
}

async fn client(addr: SocketAddr, limit: u64) -> Result<EpmdClient<Bounded>, EpmdError> {
    let stream = TcpStream::connect(addr)
        .await
        .map_err(|source| EpmdError::Absent {
            addr,
            source: Arc::new(source),
        })?;
    // The client writes field by field.
    let _ = stream.set_nodelay(true);
    let _ = socket2::SockRef::from(&stream).set_keepalive(true);
    let (read, write) = stream.into_split();
    Ok(EpmdClient::new(bounded(read.take(limit), write).compat()))
}

fn bounded<R: AsyncRead, W: AsyncWrite>(read: R, write: W) -> tokio::io::Join<R, W> {
    tokio::io::join(read, write)
}

async fn within<T>(
    addr: SocketAddr,
    answer: impl Future<Output = Result<T, EpmdError>>,
) -> Result<T, EpmdError> {
    timeout(limits::EPMD_TIMEOUT, answer)
        .await
        .map_err(|_| EpmdError::Silent(addr))?
}

fn garbage(addr: SocketAddr, error: &Reply) -> EpmdError {
    EpmdError::Garbage {
        addr,
        what: error.to_string(),
    }
}

/// A creation for a node that has none from EPMD. Those below 4 belong to nodes of the times
/// when it had two bits.
pub fn random_creation() -> u32 {
    rand::rng().random_range(4..=u32::MAX)
}

/// A name that EPMD knows; it forgets it when this is dropped.
#[derive(Debug)]
pub struct Registration {
    creation: u32,
    state: watch::Receiver<bool>,
    task: AbortHandle,
}

impl Registration {
    /// The creation that EPMD gave at first. It does not change when EPMD restarts.
    pub fn creation(&self) -> u32 {
        self.creation
    }

    /// Whether EPMD knows the name now; changes as EPMD goes and comes.
    pub fn state(&self) -> watch::Receiver<bool> {
        self.state.clone()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Registers again and again.
struct Keeper {
    epmd: Epmd,
    name: String,
    port: u16,
    registered: watch::Sender<bool>,
}

impl Keeper {
    async fn keep(self, mut stream: Bounded) {
        loop {
            ended(stream).await;
            self.registered.send_replace(false);
            tracing::warn!(
                name = self.name,
                "EPMD has closed the connection: other nodes cannot find this one until it is back"
            );
            stream = self.again().await;
            tracing::info!(name = self.name, "registered with EPMD again");
            self.registered.send_replace(true);
        }
    }

    async fn again(&self) -> Bounded {
        let (mut pause, longest) = limits::EPMD_RETRY;
        let mut complained = false;
        loop {
            sleep(jittered(pause)).await;
            pause = (pause * 2).min(longest);
            match self.epmd.alive(&self.name, self.port).await {
                // The creation is that of a new node; this one is in the middle of its life.
                Ok((stream, _creation)) => return stream,
                Err(EpmdError::Absent { .. }) => {}
                Err(error) => {
                    if !std::mem::replace(&mut complained, true) {
                        tracing::warn!(name = self.name, "cannot register again: {error}");
                    }
                }
            }
        }
    }
}

/// Between three quarters of `pause` and all of it, so that not all nodes of a host come at once.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.75..=1.0))
}

/// Resolves when EPMD has closed the connection. It never says anything on it.
async fn ended(stream: Bounded) {
    let mut stream = stream.into_inner();
    let mut byte = [0; 16];
    while let Ok(1..) = stream.read(&mut byte).await {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_port_and_address() {
        let read = |vars: &'static [(&str, &str)]| {
            let epmd = Epmd::from_vars(|name| {
                let found = vars.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            });
            SocketAddr::new(epmd.address, epmd.port).to_string()
        };
        assert_eq!(read(&[]), "127.0.0.1:4369");
        assert_eq!(read(&[("ERL_EPMD_PORT", "4400")]), "127.0.0.1:4400");
        assert_eq!(read(&[("ERL_EPMD_PORT", "many")]), "127.0.0.1:4369");
        let two = read(&[("ERL_EPMD_ADDRESS", "10.0.0.7, ::1")]);
        assert_eq!(two, "10.0.0.7:4369");
        assert_eq!(read(&[("ERL_EPMD_ADDRESS", "::1")]), "[::1]:4369");
    }

    #[test]
    fn creations_are_those_of_our_times() {
        assert!((0..1000).all(|_| random_creation() >= 4));
    }

    #[tokio::test]
    async fn names_that_cannot_be_registered_are_refused_at_once() {
        for name in ["", "a@b", &"x".repeat(256)] {
            let refused = Epmd::on_port(1).register(name, 1).await;
            assert!(matches!(refused, Err(EpmdError::BadName(_))));
        }
    }
}
