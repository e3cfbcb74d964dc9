//! Drives a handshake over a stream, and asks the node what the handshake cannot know.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::connection::door::Guest;
use crate::connection::establish::{EstablishError, Judgement, Local};
use crate::connection::stock::{StockArrival, StockDesk, StockJudgement, Stocked, Stream};
use crate::limits;
use crate::wire::handshake::{
    Effect, Established, Event, Handshake, HandshakeError, PeerHello, Verdict,
};

/// How many bytes the length before a handshake packet has.
///
/// Two on TCP. On TLS it is four: OTP sets `{packet, 4}`, which the messages after the handshake
/// need, from the beginning (`inet_tls_dist.erl`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prefix {
    Two,
    Four,
}

/// Who answers a listener's questions.
pub(crate) struct Judging<'a> {
    pub(crate) local: &'a Local,
    /// Judges Partisan peers, if they may come this way, and stock peers if nobody else does.
    pub(crate) judge: Option<&'a mpsc::Sender<Judgement>>,
    /// Judges stock peers.
    pub(crate) stock: Option<&'a StockDesk>,
    pub(crate) attempt: u64,
    /// Name of the stock peer that was judged: its end is to be told.
    pub(crate) judged: Option<Arc<str>>,
}

const STOPPING: Verdict = Verdict::NotAllowed("node is stopping");

impl<'a> Judging<'a> {
    async fn ask(&mut self, peer: PeerHello) -> Verdict {
        // An extra connection is judged by its binding, which is verified with the cookie.
        if self.judge.is_some() && peer.trailer.as_ref().is_some_and(|t| t.extra) {
            return Verdict::Accept {
                cookie: self.local.cookie_for(&peer.name),
                simultaneous: false,
            };
        }
        let attempt = self.attempt;
        let (answer, verdict) = oneshot::channel();
        let asked = match (self.stock, self.judge, &peer.trailer) {
            (Some(desk), _, None) => {
                self.judged = Some(peer.name.clone());
                let question = StockJudgement {
                    attempt,
                    peer,
                    answer,
                };
                desk.judge.send(question).await.is_ok()
            }
            (_, Some(judge), _) => {
                let question = Judgement {
                    attempt,
                    peer,
                    answer,
                };
                judge.send(question).await.is_ok()
            }
            (_, None, _) => return Verdict::NotAllowed("this listener serves stock peers only"),
        };
        match asked {
            true => verdict.await.unwrap_or(STOPPING),
            false => STOPPING,
        }
    }

    /// Tells the stock desk how the attempt ended, if it concerns it; else gives all back.
    pub(crate) async fn settle<S>(
        self,
        stream: S,
        outcome: Result<Established, EstablishError>,
        wrap: impl FnOnce(S) -> Stream,
    ) -> Option<(S, Result<Established, EstablishError>)> {
        let (Some(desk), Some(name)) = (self.stock, self.judged) else {
            return Some((stream, outcome));
        };
        let outcome = outcome.map(|established| Stocked {
            stream: wrap(stream),
            established,
        });
        // Fails only when the node is stopping.
        let _ = desk
            .arrived
            .send(StockArrival {
                attempt: self.attempt,
                name,
                outcome,
            })
            .await;
        None
    }
}

/// Drives one handshake to its end. The peer has [`limits::HANDSHAKE_TIMEOUT`], without the time
/// that this node takes to decide; a guest of a listener has less when others wait.
pub(crate) async fn shake<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    prefix: Prefix,
    machine: &mut Handshake,
    mut judging: Option<&mut Judging<'_>>,
    guest: Option<&Guest>,
) -> Result<Established, EstablishError> {
    let mut effects = Vec::new();
    let mut packet = Vec::new();
    let mut deadline = Instant::now() + limits::HANDSHAKE_TIMEOUT;
    let mut outcome = machine.handle(Event::Start, &mut effects);
    loop {
        let mut verdict = None;
        for effect in effects.drain(..) {
            match effect {
                Effect::Send(bytes) => {
                    let written = send_packet(stream, prefix, bytes);
                    in_time(guest, deadline, written).await?;
                }
                Effect::Judge(peer) => {
                    let asked = Instant::now();
                    verdict = Some(match &mut judging {
                        Some(judging) => judging.ask(peer).await,
                        None => Verdict::NotAllowed("not listening"),
                    });
                    deadline += asked.elapsed();
                }
                Effect::Done(established) => return Ok(established),
            }
        }
        outcome?;
        outcome = match verdict {
            Some(verdict) => machine.handle(Event::Verdict(verdict), &mut effects),
            None => {
                let read = read_packet(stream, prefix, &mut packet, machine);
                in_time(guest, deadline, read).await?;
                machine.handle(Event::Packet(&packet), &mut effects)
            }
        };
    }
}

async fn in_time(
    guest: Option<&Guest>,
    deadline: Instant,
    step: impl Future<Output = Result<(), EstablishError>>,
) -> Result<(), EstablishError> {
    let late = async {
        match guest {
            Some(guest) => guest.overstays(deadline).await,
            None => sleep_until(deadline).await,
        }
    };
    tokio::select! {
        biased;
        outcome = step => outcome,
        () = late => Err(EstablishError::Timeout("the handshake")),
    }
}

/// Small messages must leave at once; a peer that is gone without a word must be noticed even if
/// pings are off.
pub(crate) fn tune(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_keepalive(true);
}

/// Sends a packet that has its length of two bytes before it.
async fn send_packet<S: AsyncWrite + Unpin>(
    stream: &mut S,
    prefix: Prefix,
    mut packet: Vec<u8>,
) -> Result<(), EstablishError> {
    if prefix == Prefix::Four {
        packet.splice(..0, [0, 0]);
    }
    write(stream, &packet, "the handshake").await
}

pub(crate) async fn write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    bytes: &[u8],
    step: &'static str,
) -> Result<(), EstablishError> {
    let written = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    written
        .await
        .map_err(|source| EstablishError::Broken { step, source })
}

async fn read_packet<S: AsyncRead + Unpin>(
    stream: &mut S,
    prefix: Prefix,
    packet: &mut Vec<u8>,
    machine: &Handshake,
) -> Result<(), EstablishError> {
    let broken = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset => {
            EstablishError::Handshake(machine.closed())
        }
        _ => EstablishError::Broken {
            step: "the handshake",
            source,
        },
    };
    let length = match prefix {
        Prefix::Two => stream.read_u16().await.map_err(broken)?.into(),
        Prefix::Four => stream.read_u32().await.map_err(broken)?,
    };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > limits::MAX_HANDSHAKE_PACKET {
        return Err(HandshakeError::TooLong(length).into());
    }
    packet.resize(length, 0);
    stream.read_exact(packet).await.map_err(broken)?;
    Ok(())
}
