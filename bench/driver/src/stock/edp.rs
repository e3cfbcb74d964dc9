//! A node made of `edp_client` and `erltf` as an end that sends; it has no listener. Stock nodes refuse the old
//! `send_name` that it opens with, so it sends to the raw sink only.
//!
//! `edp_client` finds its peers by EPMD at port 4369 and nowhere else, while the benchmark runs without EPMD, on
//! ports of its own. So each peer is registered there, under a name that is only looked up, before it is dialled: with the
//! EPMD that is running, or if there is none, with one that runs as long as the benchmark.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use edp_client::epmd_client::EPMD_PORT;
use edp_client::{Connection, ConnectionConfig};
use erltf::OwnedTerm;
use erltf::types::{Atom, ExternalPid};
use tokio::io::sink;
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

use super::COOKIE;
use super::end::{Burst, FIRST, Numbered, Place};
use crate::process::clock_ns;

const CREATION: u32 = 1;

type Link = Arc<Mutex<Connection>>;

struct Edp {
    place: Place,
    runtime: Runtime,
    links: HashMap<String, Link>,
    /// A name is taken as long as the connection lives on which it was registered.
    registered: Vec<TcpStream>,
    /// It ends with the process group, by the driver.
    epmd: Option<Child>,
}

pub(super) fn start(place: Place) -> Result<Numbered> {
    let mut sender = Edp {
        place,
        runtime: Runtime::new()?,
        links: HashMap::new(),
        registered: Vec::new(),
        epmd: None,
    };
    Ok(Numbered::new(CREATION, move |burst| sender.send(burst)).0)
}

impl Edp {
    fn link(&mut self, peer: &str) -> Result<Link> {
        if let Some(link) = self.links.get(peer) {
            return Ok(link.clone());
        }
        let address = *self.place.peers.get(peer).context("unknown peer")?;
        let name = format!("bench-{}", address.port());
        let epmd = self.epmd()?;
        self.registered.push(register(epmd, &name, address.port())?);
        let remote = format!("{name}@{}", address.ip());
        let config = ConnectionConfig::new_hidden(&*self.place.name, remote, COOKIE)
            .with_epmd_host("127.0.0.1")
            .with_creation(CREATION);
        let link = self.runtime.block_on(async {
            let mut connection = Connection::new(config);
            connection.connect().await?;
            let reader = connection.take_read_half();
            let link = Arc::new(Mutex::new(connection));
            // What comes is of no interest.
            let mut reader = reader.context("no stream")?;
            tokio::spawn(async move { tokio::io::copy(&mut reader, &mut sink()).await });
            tokio::spawn(keep(link.clone()));
            anyhow::Ok(link)
        })?;
        self.links.insert(peer.to_owned(), link.clone());
        Ok(link)
    }

    /// Connects to EPMD, which is started if it is not there.
    fn epmd(&mut self) -> Result<TcpStream> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, EPMD_PORT));
        let begin = Instant::now();
        loop {
            match TcpStream::connect(address) {
                Ok(stream) => return Ok(stream),
                Err(e) if begin.elapsed() > Duration::from_secs(5) => {
                    return Err(e).context("no EPMD");
                }
                Err(_) if self.epmd.is_none() => {
                    let command = &mut Command::new("epmd");
                    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
                    self.epmd = Some(child.context("epmd")?);
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn send(&mut self, burst: Burst) -> Result<u64> {
        let link = self.link(&burst.peer)?;
        let from = ExternalPid::new(Atom::new(&self.place.name), 1, 0, CREATION);
        let start = clock_ns();
        let tasks: Vec<_> = burst
            .pids
            .iter()
            .map(|(id, serial)| {
                let to = ExternalPid::new(Atom::new(&burst.peer), *id, *serial, burst.creation);
                let (link, payload, count) = (link.clone(), burst.payload.clone(), burst.count);
                let from = from.clone();
                self.runtime.spawn(async move {
                    for number in FIRST..FIRST + count {
                        let message = OwnedTerm::Tuple(vec![
                            OwnedTerm::Atom(Atom::new("data")),
                            OwnedTerm::Integer(number.into()),
                            OwnedTerm::Binary(payload.to_vec()),
                        ]);
                        let mut link = link.lock().await;
                        link.send_message(from.clone(), to.clone(), message).await?;
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
async fn keep(link: Link) {
    while link.lock().await.send_raw(&[]).await.is_ok() {
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
}

/// Registers another's port; `EpmdClient::register_node` gives the name back at once.
fn register(mut epmd: TcpStream, name: &str, port: u16) -> Result<TcpStream> {
    let size = u16::try_from(name.len())?;
    let mut request = (size + 13).to_be_bytes().to_vec();
    request.push(b'x');
    request.extend(port.to_be_bytes());
    // A hidden node (72), TCP, versions 6 to 5.
    request.extend([b'H', 0, 0, 6, 0, 5]);
    request.extend(size.to_be_bytes());
    request.extend(name.as_bytes());
    request.extend([0, 0]);
    epmd.write_all(&request)?;
    let mut answer = [0; 6];
    epmd.read_exact(&mut answer)?;
    ensure!(
        matches!(answer, [b'v', 0, ..]),
        "EPMD does not register {name}: {answer:?}"
    );
    Ok(epmd)
}
