//! Messages over plain TCP: what the machine can do.
//!
//! A frame is a header of 16 bytes (length, kind, actor, number) and the payload. Streams of small
//! messages go out 64 to a `writev`. A thread per connection reads and puts messages, all that one
//! read has brought at once, into the queues of the sinks, each of which has a thread of its own:
//! the delivery that a Partisan node has too. Buffers of large messages are used again.

use std::collections::{HashMap, VecDeque};
use std::io::{IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;

use super::Lane;
use super::work::{Incoming, Port, Transport};

const HEADER: usize = 16;
/// Messages to a `writev`.
const BATCH: usize = 64;
/// Size of a read for small messages; payloads from this size on are read into place.
const READ: usize = 256 << 10;
const LARGE: usize = 16 << 10;
/// Who asks how many sinks there are.
const NOBODY: u16 = u16::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Start = 1,
    Data = 2,
    Message = 3,
    Ok = 4,
    /// Asks for, and tells, the number of sinks.
    Who = 5,
}

#[derive(Clone, Copy, Debug)]
struct Header {
    length: usize,
    kind: Kind,
    actor: u16,
    number: u64,
}

impl Header {
    fn bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&(self.length as u32).to_be_bytes());
        bytes[4..6].copy_from_slice(&(self.kind as u16).to_be_bytes());
        bytes[6..8].copy_from_slice(&self.actor.to_be_bytes());
        bytes[8..].copy_from_slice(&self.number.to_be_bytes());
        bytes
    }

    fn parse(bytes: &[u8; HEADER]) -> Result<Self> {
        let [l0, l1, l2, l3, k0, k1, a0, a1, number @ ..] = *bytes;
        let kind = match u16::from_be_bytes([k0, k1]) {
            1 => Kind::Start,
            2 => Kind::Data,
            3 => Kind::Message,
            4 => Kind::Ok,
            5 => Kind::Who,
            other => bail!("unknown kind {other}"),
        };
        Ok(Self {
            length: u32::from_be_bytes([l0, l1, l2, l3]) as usize,
            kind,
            actor: u16::from_be_bytes([a0, a1]),
            number: u64::from_be_bytes(number),
        })
    }
}

/// A frame that came, in memory of its own.
#[derive(Debug)]
enum Parcel {
    Start(u64),
    Data(u64, Bytes),
    Message(u64, Bytes),
    Ok,
    Stop,
}

impl Parcel {
    fn read(&self) -> Incoming<'_> {
        match self {
            Self::Start(number) => Incoming::Start(*number),
            Self::Data(number, bytes) => Incoming::Data(*number, bytes),
            Self::Message(number, bytes) => Incoming::Message(*number, bytes),
            Self::Ok => Incoming::Ok,
            Self::Stop => Incoming::Stop,
        }
    }
}

/// What came, and by which connection.
type Item = (Parcel, Option<Arc<Connection>>);

/// Where messages wait for a thread.
#[derive(Default)]
struct Queue {
    items: Mutex<VecDeque<Item>>,
    arrived: Condvar,
}

impl Queue {
    fn put(&self, items: &mut Vec<Item>) {
        lock(&self.items).extend(items.drain(..));
        self.arrived.notify_one();
    }

    /// All that is there, at least one.
    fn take(&self, into: &mut VecDeque<Item>) {
        let mut items = lock(&self.items);
        while items.is_empty() {
            items = self.arrived.wait(items).unwrap_or_else(|e| e.into_inner());
        }
        std::mem::swap(&mut *items, into);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

/// Buffers that are kept for use again.
const SPARE: usize = 32;

/// What the connections of an end share: the queues of its sinks or actors, by number, and spare
/// buffers.
#[derive(Default)]
struct Hub {
    queues: Mutex<HashMap<u16, Arc<Queue>>>,
    spare: Mutex<Vec<Vec<u8>>>,
}

struct Connection {
    reader: TcpStream,
    writer: Mutex<TcpStream>,
}

impl Connection {
    fn open(stream: TcpStream, hub: &Arc<Hub>) -> Result<Arc<Self>> {
        stream.set_nodelay(true)?;
        let connection = Arc::new(Self {
            reader: stream.try_clone()?,
            writer: Mutex::new(stream),
        });
        let (reading, hub) = (connection.clone(), hub.clone());
        std::thread::spawn(move || {
            if let Err(e) = read(&reading, &hub) {
                eprintln!("a connection ended: {e:#}");
            }
            let _ = reading.reader.shutdown(Shutdown::Both);
        });
        Ok(connection)
    }

    fn write(&self, header: Header, payload: &[u8]) -> Result<()> {
        let header = header.bytes();
        let mut slices = [IoSlice::new(&header), IoSlice::new(payload)];
        write_all(&mut lock(&self.writer), &mut slices)
    }
}

fn write_all(stream: &mut TcpStream, mut slices: &mut [IoSlice<'_>]) -> Result<()> {
    // Empty slices at the end must not look like a closed connection.
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        let written = stream.write_vectored(slices)?;
        ensure!(written > 0, "the connection is closed");
        IoSlice::advance_slices(&mut slices, written);
    }
    Ok(())
}

/// Takes frames from a connection until it ends.
fn read(connection: &Arc<Connection>, hub: &Hub) -> Result<()> {
    let mut stream = &connection.reader;
    let mut buffer = vec![0; READ];
    let mut filled = 0;
    let mut gathered: HashMap<u16, Vec<Item>> = HashMap::new();
    loop {
        let n = stream.read(&mut buffer[filled..])?;
        if n == 0 {
            return Ok(());
        }
        filled += n;
        let mut at = 0;
        while let Some(header) = buffer[at..filled].first_chunk::<HEADER>() {
            let header = Header::parse(header)?;
            let (start, end) = (at + HEADER, at + HEADER + header.length);
            let payload = if header.length >= LARGE {
                // Into a buffer of its own: what has come, then the rest from the socket.
                let have = (filled - start).min(header.length);
                let mut own = lock(&hub.spare).pop().unwrap_or_default();
                own.clear();
                own.reserve_exact(header.length);
                own.extend_from_slice(&buffer[start..start + have]);
                let rest = (header.length - have) as u64;
                let got = stream.take(rest).read_to_end(&mut own)? as u64;
                ensure!(got == rest, "a message was cut off");
                at = start + have;
                Bytes::from(own)
            } else if end <= filled {
                at = end;
                Bytes::copy_from_slice(&buffer[start..end])
            } else {
                break;
            };
            let parcel = match header.kind {
                Kind::Start => Parcel::Start(header.number),
                Kind::Data => Parcel::Data(header.number, payload),
                Kind::Message => Parcel::Message(header.number, payload),
                Kind::Ok => Parcel::Ok,
                Kind::Who if header.number == 0 => {
                    let sinks = lock(&hub.queues).len() as u64;
                    connection.write(
                        Header {
                            number: sinks,
                            ..header
                        },
                        &[],
                    )?;
                    continue;
                }
                Kind::Who => Parcel::Start(header.number),
            };
            let items = gathered.entry(header.actor).or_default();
            items.push((parcel, Some(connection.clone())));
        }
        buffer.copy_within(at..filled, 0);
        filled -= at;
        for (actor, items) in gathered.iter_mut().filter(|(_, items)| !items.is_empty()) {
            let queue = lock(&hub.queues).get(actor).cloned();
            match queue {
                Some(queue) => queue.put(items),
                None => items.clear(),
            }
        }
    }
}

/// This end of all connections.
pub(crate) struct Tcp {
    channels: Vec<(String, u16)>,
    /// Of this end as the one that dials.
    connections: HashMap<String, Vec<Arc<Connection>>>,
    hub: Arc<Hub>,
}

impl Tcp {
    pub(crate) fn start(listen: SocketAddr, mut channels: Vec<(String, u16)>) -> Result<Self> {
        channels.push(("undefined".into(), 1));
        let hub = Arc::<Hub>::default();
        let listener = TcpListener::bind(listen)?;
        let accepted = hub.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let opened = stream.map_err(Into::into);
                if let Err(e) = opened.and_then(|s| Connection::open(s, &accepted)) {
                    eprintln!("a connection was not opened: {e:#}");
                }
            }
        });
        Ok(Self {
            channels,
            connections: HashMap::new(),
            hub,
        })
    }

    fn socket(&self, actor: usize, lane: &Lane, payload: Bytes) -> Result<Box<dyn Port>> {
        ensure!(actor < usize::from(NOBODY), "too many actors");
        let number = actor as u16;
        let queue = Arc::new(Queue::default());
        lock(&self.hub.queues).insert(number, queue.clone());
        let channel = lane.channel.as_deref().unwrap_or("undefined");
        let set = self.connections.get(channel);
        let connection = set.and_then(|c| c.get(actor % c.len().max(1)).cloned());
        Ok(Box::new(Socket {
            actor: number,
            queue,
            hub: self.hub.clone(),
            taken: VecDeque::new(),
            last: Parcel::Ok,
            connection,
            headers: Vec::with_capacity(BATCH),
            payload,
        }))
    }
}

impl Transport for Tcp {
    fn join(&mut self, _: &str, peer: SocketAddr) -> Result<()> {
        for (channel, n) in &self.channels {
            let mut all = Vec::new();
            for _ in 0..*n {
                all.push(Connection::open(TcpStream::connect(peer)?, &self.hub)?);
            }
            self.connections.insert(channel.clone(), all);
        }
        Ok(())
    }

    fn open_sinks(&mut self, lanes: Vec<(Lane, Bytes)>) -> Result<Vec<Box<dyn Port>>> {
        let lanes = lanes.into_iter().enumerate();
        lanes
            .map(|(i, (lane, payload))| self.socket(i, &lane, payload))
            .collect()
    }

    fn close_sinks(&mut self) {
        for (_, queue) in lock(&self.hub.queues).drain() {
            lock(&queue.items).push_back((Parcel::Stop, None));
            queue.arrived.notify_one();
        }
    }

    fn count_sinks(&mut self, _: &str) -> Result<usize> {
        let connections = self.connections.get("undefined");
        let connection = connections.and_then(|c| c.first()).context("not joined")?;
        let queue = Arc::new(Queue::default());
        lock(&self.hub.queues).insert(NOBODY, queue.clone());
        let who = Header {
            length: 0,
            kind: Kind::Who,
            actor: NOBODY,
            number: 0,
        };
        connection.write(who, &[])?;
        let mut items = VecDeque::new();
        queue.take(&mut items);
        lock(&self.hub.queues).remove(&NOBODY);
        match items.pop_front() {
            Some((Parcel::Start(n), _)) => Ok(n as usize),
            _ => bail!("the peer does not tell its sinks"),
        }
    }

    fn open_actors(&mut self, lanes: Vec<(Lane, Bytes)>) -> Result<Vec<Box<dyn Port>>> {
        self.open_sinks(lanes)
    }
}

/// An actor or a sink.
struct Socket {
    actor: u16,
    queue: Arc<Queue>,
    hub: Arc<Hub>,
    taken: VecDeque<Item>,
    /// What was received last.
    last: Parcel,
    /// Of an actor its own, of a sink the one that a message came by last.
    connection: Option<Arc<Connection>>,
    headers: Vec<[u8; HEADER]>,
    payload: Bytes,
}

impl Socket {
    fn connection(&self) -> Result<&Arc<Connection>> {
        self.connection.as_ref().context("no connection")
    }

    fn header(&self, kind: Kind, length: usize, number: u64) -> Header {
        Header {
            length,
            kind,
            actor: self.actor,
            number,
        }
    }
}

impl Port for Socket {
    fn start(&mut self, count: u64) -> Result<()> {
        let header = self.header(Kind::Start, 0, count);
        self.connection()?.write(header, &[])
    }

    fn data(&mut self, number: u64) -> Result<()> {
        let header = self.header(Kind::Data, self.payload.len(), number);
        self.headers.push(header.bytes());
        if self.headers.len() == BATCH || self.payload.len() >= LARGE {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let mut slices = Vec::with_capacity(2 * self.headers.len());
        for header in &self.headers {
            slices.push(IoSlice::new(header));
            slices.push(IoSlice::new(&self.payload));
        }
        write_all(&mut lock(&self.connection()?.writer), &mut slices)?;
        self.headers.clear();
        Ok(())
    }

    fn message(&mut self, stamp: u64) -> Result<()> {
        let header = self.header(Kind::Message, self.payload.len(), stamp);
        self.connection()?.write(header, &self.payload)
    }

    fn acknowledge(&mut self) -> Result<()> {
        let header = self.header(Kind::Ok, 0, 0);
        self.connection()?.write(header, &[])
    }

    fn done(&mut self, _: u64) -> Result<()> {
        self.acknowledge()
    }

    fn receive(&mut self) -> Result<Incoming<'_>> {
        loop {
            if let Some((parcel, connection)) = self.taken.pop_front() {
                if connection.is_some() {
                    self.connection = connection;
                }
                self.last = parcel;
                return Ok(self.last.read());
            }
            self.queue.take(&mut self.taken);
        }
    }

    fn recycle(&mut self) {
        if let Parcel::Message(_, bytes) = std::mem::replace(&mut self.last, Parcel::Ok)
            && bytes.len() >= LARGE
        {
            let mut spare = lock(&self.hub.spare);
            if spare.len() < SPARE {
                spare.push(bytes.into());
            }
        }
    }

    fn payload(&self) -> &Bytes {
        &self.payload
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        lock(&self.hub.queues).remove(&self.actor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive_the_wire() {
        let header = Header {
            length: 8 << 20,
            kind: Kind::Message,
            actor: 127,
            number: u64::MAX - 1,
        };
        let parsed = Header::parse(&header.bytes()).unwrap();
        assert_eq!(format!("{parsed:?}"), format!("{header:?}"));
        assert!(Header::parse(&[9; HEADER]).is_err());
    }
}
