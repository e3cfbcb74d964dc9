//! Reliable streams over packets: TCP, by `smoltcp`, on a private IPv6 network whose cables are the overlay's links.
//!
//! A node's address is `fd70:6172:7469::/48` and 80 bits of the SHA-256 of its name. Every node listens on one port. Checksums
//! are left out: links keep bytes intact.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use sha2::{Digest, Sha256};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr};

use crate::limits::{MAX_RELAYED, RELAY_MTU, RELAY_WINDOW};

/// First bytes of all addresses: a unique local prefix (RFC 4193).
const PREFIX: [u8; 6] = [0xfd, 0x70, 0x61, 0x72, 0x74, 0x69];
const PREFIX_BITS: u8 = 48;
const PORT: u16 = 1;
/// Local ports of streams that this node opens.
const PORTS: std::ops::Range<u16> = 49_152..65_535;
/// A stream whose peer is silent for so long has ended.
const SILENCE: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(15);
const KEEP_ALIVE: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(4);

/// Where a node listens for relayed connections.
pub fn address_of(node: &str) -> SocketAddr {
    let hash = Sha256::digest(node.as_bytes());
    let mut octets = [0; 16];
    octets[..6].copy_from_slice(&PREFIX);
    octets[6..].copy_from_slice(&hash[..10]);
    (Ipv6Addr::from(octets), PORT).into()
}

/// Whether an address is one of [`address_of`].
pub fn is_relayed(addr: &SocketAddr) -> bool {
    matches!(addr.ip(), IpAddr::V6(ip) if ip.octets().starts_with(&PREFIX))
}

fn ip_of(node: &str) -> Ipv6Addr {
    match address_of(node).ip() {
        IpAddr::V6(ip) => ip,
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
    }
}

/// One end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stream(SocketHandle);

/// Where the stack takes packets from and puts them.
#[derive(Default)]
struct Wire {
    incoming: Option<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

struct Sending<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut bytes = vec![0; length];
        let result = write(&mut bytes);
        self.0.push_back(bytes);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        let packet = self.incoming.take()?;
        Some((Received(packet), Sending(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = RELAY_MTU;
        capabilities.checksum = ChecksumCapabilities::ignored();
        capabilities
    }
}

/// The streams of a node.
pub struct Net {
    own: Ipv6Addr,
    interface: Interface,
    wire: Wire,
    sockets: SocketSet<'static>,
    /// Sockets in the set.
    count: usize,
    /// Who has an address: of each stream's other end, and of whoever sent the last packet.
    names: HashMap<Ipv6Addr, Arc<str>>,
    listener: Option<SocketHandle>,
    accepted: VecDeque<(Stream, Arc<str>)>,
    /// Streams that nobody holds, until they have ended on both sides.
    closing: Vec<SocketHandle>,
    next_port: u16,
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} with {} streams", self.own, self.count)
    }
}

fn instant(now: Duration) -> Instant {
    Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}

impl Net {
    /// No streams. `seed` is the randomness of sequence numbers.
    pub fn new(own: &str, seed: u64, now: Duration) -> Self {
        let mut wire = Wire::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut wire, instant(now));
        let own = ip_of(own);
        interface.update_ip_addrs(|addresses| {
            // The table has room for two.
            let _ = addresses.push(IpCidr::new(own.into(), PREFIX_BITS));
        });
        let mut net = Self {
            own,
            interface,
            wire,
            sockets: SocketSet::new(Vec::new()),
            count: 0,
            names: HashMap::new(),
            listener: None,
            accepted: VecDeque::new(),
            closing: Vec::new(),
            next_port: PORTS.start,
        };
        net.listen();
        net
    }

    fn add(&mut self) -> Option<SocketHandle> {
        if self.count >= MAX_RELAYED {
            return None;
        }
        let buffer = || SocketBuffer::new(vec![0; RELAY_WINDOW]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_timeout(Some(SILENCE));
        socket.set_keep_alive(Some(KEEP_ALIVE));
        socket.set_nagle_enabled(false);
        socket.set_congestion_control(CongestionControl::Cubic);
        self.count += 1;
        Some(self.sockets.add(socket))
    }

    fn listen(&mut self) {
        if self.listener.is_none()
            && let Some(handle) = self.add()
        {
            // Fails only on a socket that is in use.
            let _ = self.socket(handle).listen(PORT);
            self.listener = Some(handle);
        }
    }

    fn socket(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Opens a stream to a node; `None`: there are too many. [`Net::poll_open`] tells what becomes of it.
    pub fn open(&mut self, node: &Arc<str>) -> Option<Stream> {
        let handle = self.add()?;
        self.names.insert(ip_of(node), node.clone());
        let port = self.next_port;
        self.next_port = match port + 1 {
            port if PORTS.contains(&port) => port,
            _ => PORTS.start,
        };
        let socket = self.sockets.get_mut::<Socket<'_>>(handle);
        let context = self.interface.context();
        if socket.connect(context, (ip_of(node), PORT), port).is_err() {
            self.remove(handle);
            return None;
        }
        Some(Stream(handle))
    }

    /// A stream that another node has opened since the last call, perhaps not wholly yet.
    pub fn accept(&mut self) -> Option<(Stream, Arc<str>)> {
        self.accepted.pop_front()
    }

    /// A packet has come from a node. What isn't from its address or not for this one's is dropped.
    pub fn receive(&mut self, now: Duration, from: &Arc<str>, packet: Vec<u8>) {
        let ends = packet.get(8..24).zip(packet.get(24..40));
        let sender = ip_of(from);
        if ends != Some((&sender.octets(), &self.own.octets())) {
            return;
        }
        if self.names.len() >= 2 * MAX_RELAYED {
            self.forget_names();
        }
        self.names.insert(sender, from.clone());
        self.wire.incoming = Some(packet);
        let at = instant(now);
        self.interface
            .poll_ingress_single(at, &mut self.wire, &mut self.sockets);
        if let Some(handle) = self.listener
            && self.socket(handle).is_active()
        {
            self.listener = None;
            self.accepted.push_back((Stream(handle), from.clone()));
        }
        self.poll(now);
    }

    fn forget_names(&mut self) {
        let mut used = Vec::new();
        for (_, socket) in self.sockets.iter() {
            let smoltcp::socket::Socket::Tcp(socket) = socket;
            used.extend(socket.remote_endpoint().map(|end| end.addr));
        }
        self.names.retain(|ip, _| used.contains(&(*ip).into()));
    }

    /// Does what is due; to be called after all else, and at [`Net::deadline`].
    pub fn poll(&mut self, now: Duration) {
        self.interface
            .poll(instant(now), &mut self.wire, &mut self.sockets);
        let mut closing = std::mem::take(&mut self.closing);
        closing.retain(|&handle| {
            let over = matches!(self.socket(handle).state(), State::Closed | State::TimeWait);
            if over {
                self.remove(handle);
            }
            !over
        });
        self.closing = closing;
        self.listen();
    }

    fn remove(&mut self, handle: SocketHandle) {
        self.sockets.remove(handle);
        self.count -= 1;
    }

    /// When [`Net::poll`] is due.
    pub fn deadline(&mut self, now: Duration) -> Option<Duration> {
        let at = self.interface.poll_at(instant(now), &self.sockets)?;
        let micros = u64::try_from(at.total_micros()).unwrap_or(0);
        Some(Duration::from_micros(micros))
    }

    /// The next packet that is to be sent, and to whom.
    pub fn outgoing(&mut self) -> Option<(Arc<str>, Vec<u8>)> {
        while let Some(packet) = self.wire.outgoing.pop_front() {
            let to = packet
                .get(24..40)
                .and_then(|ip| <[u8; 16]>::try_from(ip).ok());
            if let Some(name) = to.and_then(|ip| self.names.get(&ip.into())) {
                return Some((name.clone(), packet));
            }
        }
        None
    }

    /// Ready when both ends of a stream are open, or when it has come to nothing.
    pub fn poll_open(&mut self, stream: Stream, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let socket = self.socket(stream.0);
        match socket.state() {
            State::SynSent | State::SynReceived => {
                socket.register_send_waker(cx.waker());
                Poll::Pending
            }
            State::Closed => Poll::Ready(Err(io::ErrorKind::HostUnreachable.into())),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Reads; 0 bytes: the other end has closed.
    pub fn poll_read(
        &mut self,
        stream: Stream,
        cx: &Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let socket = self.socket(stream.0);
        if socket.can_recv() {
            let read = socket.recv_slice(buffer);
            return Poll::Ready(read.map_err(|_| io::ErrorKind::ConnectionReset.into()));
        }
        if socket.may_recv() || matches!(socket.state(), State::SynSent | State::SynReceived) {
            socket.register_recv_waker(cx.waker());
            return Poll::Pending;
        }
        match socket.recv_slice(buffer) {
            Err(smoltcp::socket::tcp::RecvError::Finished) => Poll::Ready(Ok(0)),
            _ => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }

    /// Writes; some bytes at least.
    pub fn poll_write(
        &mut self,
        stream: Stream,
        cx: &Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let socket = self.socket(stream.0);
        if !socket.may_send() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if !socket.can_send() {
            socket.register_send_waker(cx.waker());
            return Poll::Pending;
        }
        let written = socket.send_slice(bytes);
        Poll::Ready(written.map_err(|_| io::ErrorKind::BrokenPipe.into()))
    }

    /// Nothing more is written.
    pub fn close(&mut self, stream: Stream) {
        self.socket(stream.0).close();
    }

    /// Gives up a stream: what was written before [`Net::close`] still goes out; one that is not closed is reset.
    pub fn give_up(&mut self, stream: Stream) {
        let socket = self.socket(stream.0);
        if socket.may_send() {
            socket.abort();
        }
        self.closing.push(stream.0);
    }
}
