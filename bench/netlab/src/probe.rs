//! Measuring a link from its ends: echo requests, and bulk TCP.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{Error, Lab, address};

/// Round trips of echo requests.
#[derive(Clone, Debug, Default)]
pub struct Ping {
    /// Those that were answered, in the order of the requests.
    pub times: Vec<Duration>,
    /// Requests without an answer.
    pub lost: usize,
}

impl Ping {
    /// Shortest, mean and longest, if any was answered.
    pub fn summary(&self) -> Option<(Duration, Duration, Duration)> {
        let min = self.times.iter().min()?;
        let max = self.times.iter().max()?;
        Some((
            *min,
            self.times.iter().sum::<Duration>() / self.times.len() as u32,
            *max,
        ))
    }
}

/// Sends ICMP echo requests from one node to another, one after the other, and waits for each so
/// long at most.
pub fn ping(
    lab: &Lab,
    from: usize,
    to: usize,
    count: u16,
    patience: Duration,
) -> Result<Ping, Error> {
    lab.run_in(from, || ping_here(to, count, patience))?
        .map_err(|error| Error::Io("ping".into(), error))
}

fn ping_here(to: usize, count: u16, patience: Duration) -> io::Result<Ping> {
    let mut socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
    socket.connect(&SocketAddr::from((address(to), 0)).into())?;
    let id = (rustix::thread::gettid().as_raw_nonzero().get() as u16).to_be_bytes();
    let mut ping = Ping::default();
    for sequence in 0..count {
        let sequence = sequence.to_be_bytes();
        let mut request = [8, 0, 0, 0, id[0], id[1], sequence[0], sequence[1]];
        let sum = checksum(&request).to_be_bytes();
        request[2..4].copy_from_slice(&sum);
        let sent = Instant::now();
        socket.send(&request)?;
        let answered = loop {
            let left = patience.saturating_sub(sent.elapsed());
            if left.is_zero() {
                break false;
            }
            socket.set_read_timeout(Some(left))?;
            let mut packet = [0; 128];
            match socket.read(&mut packet) {
                // After an IPv4 header: an echo reply with our numbers.
                Ok(length) => {
                    let header = usize::from(packet[0] & 0xf) * 4;
                    let echo = packet[..length].get(header..).unwrap_or(&[]);
                    if echo.first() == Some(&0) && echo.get(4..8) == Some(&request[4..8]) {
                        break true;
                    }
                }
                Err(error) if would_block(&error) => {}
                Err(error) => return Err(error),
            }
        };
        if answered {
            ping.times.push(sent.elapsed());
        } else {
            ping.lost += 1;
        }
        // Apart, so that each finds the emulator idle.
        thread::sleep(Duration::from_millis(10));
    }
    Ok(ping)
}

fn would_block(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| match *pair {
        [high, low] => u32::from(high) << 8 | u32::from(low),
        [high] => u32::from(high) << 8,
        _ => 0,
    });
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// What bulk TCP achieved.
#[derive(Clone, Copy, Debug)]
pub struct Bulk {
    /// Payload received, in bits per second.
    pub bits_per_second: f64,
    /// Processors that the emulator used.
    pub emulator_cpus: f64,
}

/// Sends as fast as it can over so many TCP connections, and counts what is received after the
/// warm-up.
pub fn bulk(
    lab: &Lab,
    from: usize,
    to: usize,
    streams: usize,
    warm_up: Duration,
    time: Duration,
) -> Result<Bulk, Error> {
    let failed = |error| Error::Io("bulk TCP".into(), error);
    let listener = lab
        .run_in(to, || TcpListener::bind((address(to), 0)))?
        .map_err(failed)?;
    let target = listener.local_addr().map_err(failed)?;
    // Made one by one: what is sent first does not crowd out the connections that follow.
    let pairs = (0..streams).map(|_| {
        let sender = lab
            .run_in(from, || TcpStream::connect(target))?
            .map_err(failed)?;
        let (receiver, _) = listener.accept().map_err(failed)?;
        for stream in [&sender, &receiver] {
            let patience = Some(Duration::from_secs(20));
            stream.set_write_timeout(patience).map_err(failed)?;
            stream.set_read_timeout(patience).map_err(failed)?;
        }
        Ok((sender, receiver))
    });
    let pairs = pairs.collect::<Result<Vec<_>, Error>>()?;
    let (received, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for (mut sender, mut receiver) in pairs {
            scope.spawn({
                let stop = &stop;
                move || {
                    let data = vec![0x5a; 256 << 10];
                    while !stop.load(Ordering::Relaxed) && sender.write_all(&data).is_ok() {}
                }
            });
            scope.spawn({
                let received = &received;
                move || {
                    let mut buffer = vec![0; 512 << 10];
                    while let Ok(length @ 1..) = receiver.read(&mut buffer) {
                        received.fetch_add(length as u64, Ordering::Relaxed);
                    }
                }
            });
        }
        thread::sleep(warm_up);
        let (start, before, cpu) = (
            Instant::now(),
            received.load(Ordering::Relaxed),
            lab.stats().cpu,
        );
        thread::sleep(time);
        let elapsed = start.elapsed().as_secs_f64();
        let bytes = received.load(Ordering::Relaxed) - before;
        let cpu = lab.stats().cpu.saturating_sub(cpu);
        stop.store(true, Ordering::Relaxed);
        Ok(Bulk {
            bits_per_second: bytes as f64 * 8.0 / elapsed,
            emulator_cpus: cpu.as_secs_f64() / elapsed,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_with_its_checksum_sums_to_zero() {
        let mut request = [8, 0, 0, 0, 0x12, 0x34, 0, 7, 0xff];
        assert_ne!(checksum(&request), 0);
        let sum = checksum(&request).to_be_bytes();
        request[2..4].copy_from_slice(&sum);
        assert_eq!(checksum(&request), 0);
    }
}
