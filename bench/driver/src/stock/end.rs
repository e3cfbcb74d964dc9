//! An end in Rust: `partisan-bench stock-end KIND`, told what to do as [`crate::end`] says.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, mpsc};

use anyhow::{Context, Result, bail};
use bytes::Bytes;

use super::{PATIENCE, edp, node, raw, theirs};
use crate::process::{clock_ns, own_cpu_ns};

/// The numbers of messages begin here, so that all have the same length on the wire.
pub(super) const FIRST: u32 = 1_000_000;

/// What a process receives with and sends to.
pub(super) trait End {
    /// Starts sinks. Tells their pids' numbers `id.serial`, and their creation.
    fn open(&mut self, n: usize) -> Result<(Vec<(u32, u32)>, u32)>;
    /// Makes the first `n` sinks ready for so many messages each.
    fn expect(&mut self, n: usize, count: u32) -> Result<()>;
    /// Waits for the last message.
    fn wait(&mut self) -> Result<Verdict>;
    /// Sends to each of the sinks, from a sender of its own; when it began.
    fn send(&mut self, burst: Burst) -> Result<u64>;
}

/// What is to be sent.
pub(super) struct Burst {
    pub(super) peer: String,
    pub(super) pids: Vec<(u32, u32)>,
    pub(super) creation: u32,
    pub(super) count: u32,
    pub(super) payload: Bytes,
}

/// Who an end is, and where the others are.
pub(super) struct Place {
    pub(super) name: String,
    pub(super) listen: SocketAddr,
    pub(super) peers: HashMap<String, SocketAddr>,
}

/// Counts the messages of one sender.
#[derive(Default)]
pub(super) struct Count {
    next: u32,
    end: u32,
    crc: crc32fast::Hasher,
}

impl Count {
    pub(super) fn of(count: u32) -> Self {
        Self {
            next: FIRST,
            end: FIRST + count,
            crc: crc32fast::Hasher::new(),
        }
    }

    /// Takes a message; true if it was the last.
    pub(super) fn take(&mut self, number: i64, payload: &[u8]) -> Result<bool> {
        if number != i64::from(self.next) || self.next == self.end {
            bail!("expected {} of {}, got {number}", self.next, self.end);
        }
        self.next += 1;
        self.crc.update(payload);
        Ok(self.next == self.end)
    }

    pub(super) fn crc(&self) -> u64 {
        self.crc.clone().finalize().into()
    }
}

/// The sinks of an end that has no processes, by the number of their pid.
#[derive(Default)]
pub(super) struct Sinks {
    counts: Vec<Count>,
    left: usize,
}

impl Sinks {
    fn of(n: usize, count: u32) -> Self {
        Self {
            counts: (0..n).map(|_| Count::of(count)).collect(),
            left: n,
        }
    }

    /// Takes a message. With the last message of all: when it came, and the sum of the checksums.
    pub(super) fn take(&mut self, to: u32, number: i64, payload: &[u8]) -> Result<Option<Verdict>> {
        let count = self
            .counts
            .get_mut(to as usize)
            .context("nobody's message")?;
        if count.take(number, payload)? {
            self.left -= 1;
        } else {
            return Ok(None);
        }
        let sum = || self.counts.iter().map(Count::crc).sum();
        Ok((self.left == 0).then(|| (clock_ns(), sum())))
    }
}

/// When the last message came, and the sum of the sinks' checksums.
pub(super) type Verdict = (u64, u64);

/// What the threads of an end without processes share.
#[derive(Clone)]
pub(super) struct Tally {
    sinks: Arc<Mutex<Sinks>>,
    told: mpsc::Sender<Result<Verdict>>,
}

impl Tally {
    pub(super) fn sinks(&self) -> MutexGuard<'_, Sinks> {
        self.sinks.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Ends the wait for the last message.
    pub(super) fn tell(&self, verdict: Result<Verdict>) {
        // Nobody waits any more when the end ends.
        let _ = self.told.send(verdict);
    }
}

/// An end without processes: its pids are numbers.
pub(super) struct Numbered {
    creation: u32,
    tally: Tally,
    verdicts: mpsc::Receiver<Result<Verdict>>,
    send: Box<dyn FnMut(Burst) -> Result<u64>>,
}

impl Numbered {
    /// `send` as [`End::send`].
    pub(super) fn new(
        creation: u32,
        send: impl FnMut(Burst) -> Result<u64> + 'static,
    ) -> (Self, Tally) {
        let (told, verdicts) = mpsc::channel();
        let sinks = Arc::default();
        let tally = Tally { sinks, told };
        let end = Self {
            creation,
            tally: tally.clone(),
            verdicts,
            send: Box::new(send),
        };
        (end, tally)
    }
}

impl End for Numbered {
    fn open(&mut self, n: usize) -> Result<(Vec<(u32, u32)>, u32)> {
        Ok(((0..n as u32).map(|id| (id, 0)).collect(), self.creation))
    }

    fn expect(&mut self, n: usize, count: u32) -> Result<()> {
        *self.tally.sinks() = Sinks::of(n, count);
        Ok(())
    }

    fn wait(&mut self) -> Result<Verdict> {
        self.verdicts.recv_timeout(PATIENCE)?
    }

    fn send(&mut self, burst: Burst) -> Result<u64> {
        (self.send)(burst)
    }
}

/// Runs until standard input ends.
pub(crate) fn run(kind: &str, name: &str, listen: SocketAddr, peers: &[String]) -> Result<()> {
    let peers = peers.iter().map(|peer| {
        let (name, address) = peer.split_once('=').context("a peer is NAME=ADDRESS")?;
        Ok((name.to_owned(), address.parse()?))
    });
    let place = Place {
        name: name.to_owned(),
        listen,
        peers: peers.collect::<Result<_>>()?,
    };
    let mut end: Box<dyn End> = match kind {
        "ours" => Box::new(node::Ours::start(place)?),
        "raw" => Box::new(raw::start(place)?),
        "erl_dist" => Box::new(theirs::start(place, false)?),
        "erl_dist-buffered" => Box::new(theirs::start(place, true)?),
        "edp_client" => Box::new(edp::start(place)?),
        _ => bail!("no end is called {kind:?}"),
    };
    let mut payload = Bytes::new();
    crate::end::obey(|line| command(&mut *end, &mut payload, line))
}

fn command(end: &mut dyn End, payload: &mut Bytes, line: &str) -> Result<String> {
    let mut words = line.split_whitespace();
    let name = words.next().unwrap_or_default();
    let words: HashMap<&str, &str> = words.filter_map(|w| w.split_once('=')).collect();
    let text = |key: &str| words.get(key).copied().unwrap_or_default();
    let number = |key: &str| -> Result<u32> {
        let text = text(key);
        text.parse().with_context(|| format!("{key}={text}"))
    };
    match name {
        "hello" => {
            *payload = std::fs::read(text("payload"))?.into();
            Ok(format!("pid={}", std::process::id()))
        }
        "open" => {
            let (pids, creation) = end.open(number("n")? as usize)?;
            let pids: Vec<String> = pids.iter().map(|(i, s)| format!("{i}.{s}")).collect();
            Ok(format!("pids={} creation={creation}", pids.join(",")))
        }
        "expect" => {
            end.expect(number("n")? as usize, number("count")?)?;
            Ok(String::new())
        }
        "wait" => {
            let (end, crc) = end.wait()?;
            Ok(format!("end={end} crc={crc}"))
        }
        "send" => {
            let pids = text("pids").split(',').map(|pid| {
                let (id, serial) = pid.split_once('.').context("a pid is ID.SERIAL")?;
                Ok((id.parse()?, serial.parse()?))
            });
            let start = end.send(Burst {
                peer: text("peer").to_owned(),
                pids: pids.collect::<Result<_>>()?,
                creation: number("creation")?,
                count: number("count")?,
                payload: payload.slice(..number("size")? as usize),
            })?;
            Ok(format!("start={start}"))
        }
        "cpu" => Ok(format!("cpu={}", own_cpu_ns())),
        "clock" => Ok(format!("clock={}", clock_ns())),
        "gc" => Ok(String::new()),
        _ => bail!("unknown command {line:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_repeats_and_surplus_are_seen() {
        let mut count = Count::of(2);
        assert!(count.take(FIRST.into(), b"a").is_ok_and(|last| !last));
        assert!(count.take(FIRST.into(), b"a").is_err());
        assert!(
            count
                .take(i64::from(FIRST) + 1, b"b")
                .is_ok_and(|last| last)
        );
        assert_eq!(count.crc(), u64::from(crc32fast::hash(b"ab")));
        assert!(count.take(i64::from(FIRST) + 2, b"c").is_err());
    }
}
