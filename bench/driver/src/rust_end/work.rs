//! What sinks and actors do, whatever carries their messages. The same as `bench_sink.erl` and
//! `bench_source.erl`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use bytes::Bytes;

use super::Lane;
use crate::histogram::Buckets;
use crate::process::clock_ns;

/// Messages that a stream has on its way.
const WINDOW: u64 = 4;
/// Between a reply and the next request beside streams.
const PING_PAUSE: Duration = Duration::from_millis(1);
const SUM_MASK: u64 = 0x3ff_ffff_ffff_ffff;
/// Bytes that are compared of a large message.
const COMPARED: usize = 64;
/// Up to this size a message is compared as a whole.
const SMALL: usize = 4096;

/// What comes in, read in place.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Incoming<'a> {
    /// A one-way stream of so many messages begins.
    Start(u64),
    /// A message of it.
    Data(u64, &'a [u8]),
    /// To be acknowledged.
    Message(u64, &'a [u8]),
    /// The acknowledgement, or the end of the stream.
    Ok,
    Stop,
}

/// An actor's, or a sink's, way to its partner. Answers go to whoever sent last.
pub(crate) trait Port: Send {
    fn start(&mut self, count: u64) -> Result<()>;
    fn data(&mut self, number: u64) -> Result<()>;
    /// Sends what is still gathered.
    fn flush(&mut self) -> Result<()>;
    fn message(&mut self, stamp: u64) -> Result<()>;
    fn acknowledge(&mut self) -> Result<()>;
    fn done(&mut self, count: u64) -> Result<()>;
    fn receive(&mut self) -> Result<Incoming<'_>>;
    /// The message that was received last is not needed any more.
    fn recycle(&mut self) {}
    /// What is sent and expected.
    fn payload(&self) -> &Bytes;
}

/// What carries messages.
pub(crate) trait Transport {
    fn join(&mut self, name: &str, peer: SocketAddr) -> Result<()>;
    fn open_sinks(&mut self, lanes: Vec<(Lane, Bytes)>) -> Result<Vec<Box<dyn Port>>>;
    /// Makes every sink receive [`Incoming::Stop`].
    fn close_sinks(&mut self);
    /// Asks the peer for its sinks.
    fn count_sinks(&mut self, peer: &str) -> Result<usize>;
    fn open_actors(&mut self, lanes: Vec<(Lane, Bytes)>) -> Result<Vec<Box<dyn Port>>>;
}

/// What a sink has seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    messages: u64,
    sum: u64,
    bad: u64,
}

impl Seen {
    fn add(&mut self, sum: u64, good: bool) {
        self.messages += 1;
        self.sum = self.sum.wrapping_add(sum);
        self.bad += u64::from(!good);
    }

    pub(crate) fn text(&self) -> String {
        let sum = self.sum & SUM_MASK;
        format!("messages={} sum={sum} bad={}", self.messages, self.bad)
    }
}

struct Book {
    seen: Seen,
    latencies: Buckets,
}

/// The sinks of this end, a thread each.
pub(crate) struct Sinks {
    books: Vec<Arc<Mutex<Book>>>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Sinks {
    pub(crate) fn start(ports: Vec<Box<dyn Port>>, counters: bool) -> Self {
        let mut books = Vec::new();
        let mut threads = Vec::new();
        for port in ports {
            let book = Arc::new(Mutex::new(Book {
                seen: Seen::default(),
                latencies: Buckets::new(),
            }));
            books.push(book.clone());
            threads.push(std::thread::spawn(move || {
                if counters {
                    counter(port, &book)
                } else {
                    partner(port, &book)
                }
            }));
        }
        Self { books, threads }
    }

    /// Since the last time.
    pub(crate) fn verdict(&self) -> (Seen, Buckets) {
        let mut all = Seen::default();
        let mut latencies = Buckets::new();
        for book in &self.books {
            let mut book = book.lock().unwrap_or_else(|e| e.into_inner());
            let Seen { messages, sum, bad } = std::mem::take(&mut book.seen);
            all.messages += messages;
            all.sum = all.sum.wrapping_add(sum);
            all.bad += bad;
            latencies.add(&book.latencies);
            book.latencies = Buckets::new();
        }
        (all, latencies)
    }
}

impl Drop for Sinks {
    fn drop(&mut self) {
        for thread in self.threads.drain(..) {
            if let Ok(Err(e)) = thread.join() {
                eprintln!("a sink ended: {e:#}");
            }
        }
    }
}

fn counter(mut port: Box<dyn Port>, book: &Mutex<Book>) -> Result<()> {
    let expected = port.payload().clone();
    loop {
        let count = match port.receive()? {
            Incoming::Start(count) => count,
            Incoming::Stop => return Ok(()),
            other => bail!("a stream begins with {other:?}"),
        };
        let mut seen = Seen::default();
        for number in 0..count {
            let Incoming::Data(n, bytes) = port.receive()? else {
                bail!("a stream was broken off");
            };
            seen.add(n, n == number && matches(bytes, &expected, n));
        }
        let mut book = book.lock().unwrap_or_else(|e| e.into_inner());
        book.seen.messages += seen.messages;
        book.seen.sum = book.seen.sum.wrapping_add(seen.sum);
        book.seen.bad += seen.bad;
        drop(book);
        port.done(count)?;
    }
}

fn partner(mut port: Box<dyn Port>, book: &Mutex<Book>) -> Result<()> {
    let expected = port.payload().clone();
    loop {
        let (stamp, bytes) = match port.receive()? {
            Incoming::Message(stamp, bytes) => (stamp, bytes),
            Incoming::Stop => return Ok(()),
            other => bail!("a partner got {other:?}"),
        };
        let taken = clock_ns().saturating_sub(stamp);
        let mut book = book.lock().unwrap_or_else(|e| e.into_inner());
        book.latencies.record(taken);
        let number = book.seen.messages;
        book.seen.add(stamp, matches(bytes, &expected, number));
        drop(book);
        port.recycle();
        port.acknowledge()?;
    }
}

/// As `bench_payload:matches/3`.
fn matches(bytes: &[u8], expected: &[u8], number: u64) -> bool {
    if expected.len() <= SMALL {
        return bytes == expected;
    }
    let places = expected.len() - COMPARED + 1;
    let at = ((number + 1) * 1_000_003) as usize % places;
    bytes.len() == expected.len() && bytes[at..at + COMPARED] == expected[at..at + COMPARED]
}

/// How much a round is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Amount {
    /// Messages of each actor.
    Count(u64),
    Millis(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Flood,
    Loop,
    Stream,
    Ping,
}

/// The actors of this end.
pub(crate) struct Source {
    actors: Vec<(Work, Box<dyn Port>)>,
}

/// What a round came to.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    ns: u64,
    messages: u64,
    bytes: u64,
    sent: u64,
    sum: u64,
    latencies: Buckets,
}

impl Sent {
    pub(crate) fn text(&self) -> String {
        let Self {
            ns,
            messages,
            bytes,
            sent,
            ..
        } = self;
        let (sum, rt) = (self.sum & SUM_MASK, self.latencies.text());
        format!("ns={ns} messages={messages} bytes={bytes} sent={sent} sum={sum} rt={rt}")
    }
}

/// An actor's part of it.
struct Part {
    sent: u64,
    in_time: u64,
    sum: u64,
    latencies: Buckets,
}

impl Source {
    pub(crate) fn new(work: &str, ports: Vec<Box<dyn Port>>) -> Result<Self> {
        let last = ports.len().saturating_sub(1);
        let mut actors = Vec::new();
        for (i, port) in ports.into_iter().enumerate() {
            let work = match work {
                "flood" => Work::Flood,
                "loop" => Work::Loop,
                "hol" if i == last => Work::Ping,
                "hol" => Work::Stream,
                _ => bail!("unknown work {work:?}"),
            };
            actors.push((work, port));
        }
        Ok(Self { actors })
    }

    pub(crate) fn round(&mut self, amount: Amount) -> Result<Sent> {
        let ready = Barrier::new(self.actors.len() + 1);
        let stop = AtomicBool::new(false);
        let count = match amount {
            Amount::Count(count) => count,
            Amount::Millis(_) => u64::MAX,
        };
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for (work, port) in &mut self.actors {
                let (ready, stop) = (&ready, &stop);
                let thread = scope.spawn(move || {
                    ready.wait();
                    let began = clock_ns();
                    let part = match work {
                        Work::Flood => flood(port.as_mut(), count),
                        Work::Loop => request(port.as_mut(), count, None, stop),
                        Work::Stream => stream(port.as_mut(), stop),
                        Work::Ping => request(port.as_mut(), count, Some(PING_PAUSE), stop),
                    };
                    (*work, port.payload().len() as u64, began, part)
                });
                threads.push(thread);
            }
            ready.wait();
            let mut start = clock_ns();
            let timed = match amount {
                Amount::Count(_) => None,
                Amount::Millis(ms) => {
                    sleep(Duration::from_millis(ms));
                    stop.store(true, Ordering::Relaxed);
                    Some(clock_ns() - start)
                }
            };
            let mut all = Sent {
                ns: 0,
                messages: 0,
                bytes: 0,
                sent: 0,
                sum: 0,
                latencies: Buckets::new(),
            };
            for thread in threads {
                let Ok((work, size, began, part)) = thread.join() else {
                    bail!("an actor panicked");
                };
                let part = part?;
                // This thread may be the last to get past the barrier.
                start = start.min(began);
                all.sent += part.sent;
                all.sum = all.sum.wrapping_add(part.sum);
                all.latencies.add(&part.latencies);
                if work != Work::Ping {
                    all.messages += part.in_time;
                    all.bytes += part.in_time * size;
                }
            }
            all.ns = timed.unwrap_or_else(|| clock_ns() - start);
            Ok(all)
        })
    }
}

fn flood(port: &mut dyn Port, count: u64) -> Result<Part> {
    port.start(count)?;
    for number in 0..count {
        port.data(number)?;
    }
    port.flush()?;
    let answer = port.receive()?;
    ensure!(
        matches!(answer, Incoming::Ok),
        "a stream ends with {answer:?}"
    );
    Ok(Part {
        sent: count,
        in_time: count,
        sum: (0..count).sum(),
        latencies: Buckets::new(),
    })
}

fn request(
    port: &mut dyn Port,
    count: u64,
    pause: Option<Duration>,
    stop: &AtomicBool,
) -> Result<Part> {
    let mut part = Part {
        sent: 0,
        in_time: 0,
        sum: 0,
        latencies: Buckets::new(),
    };
    while part.sent < count && !stop.load(Ordering::Relaxed) {
        let stamp = clock_ns();
        port.message(stamp)?;
        let answer = port.receive()?;
        ensure!(matches!(answer, Incoming::Ok), "answered by {answer:?}");
        part.latencies.record(clock_ns() - stamp);
        part.sent += 1;
        part.in_time += 1;
        part.sum = part.sum.wrapping_add(stamp);
        if let Some(pause) = pause {
            sleep(pause);
        }
    }
    Ok(part)
}

fn stream(port: &mut dyn Port, stop: &AtomicBool) -> Result<Part> {
    let mut part = Part {
        sent: 0,
        in_time: 0,
        sum: 0,
        latencies: Buckets::new(),
    };
    let mut acknowledged = 0;
    loop {
        let stopped = stop.load(Ordering::Relaxed);
        if !stopped && part.sent - acknowledged < WINDOW {
            let stamp = clock_ns();
            port.message(stamp)?;
            part.sent += 1;
            part.sum = part.sum.wrapping_add(stamp);
        } else if part.sent > acknowledged {
            let answer = port.receive()?;
            ensure!(matches!(answer, Incoming::Ok), "answered by {answer:?}");
            acknowledged += 1;
            if !stop.load(Ordering::Relaxed) {
                part.in_time += 1;
            }
        } else {
            return Ok(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_byte_is_found() {
        let expected = vec![7; 1024];
        let mut bytes = expected.clone();
        assert!(matches(&bytes, &expected, 0));
        bytes[1023] = 8;
        assert!(!matches(&bytes, &expected, 0));
        assert!(!matches(&bytes[..1023], &expected, 0));
        let large = vec![7; 1 << 20];
        assert!(matches(&large, &large, 99));
        let mut torn = large.clone();
        torn[1_000_003] = 8;
        assert!(!matches(&torn, &large, 0));
        assert!(!matches(&large[1..], &large, 0));
    }
}
