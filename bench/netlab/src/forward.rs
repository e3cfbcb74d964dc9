//! The thread of each namespace: reads what its device sends, and delivers it when it is due.
//!
//! A thread owns the links that leave its namespace, so packets change hands between threads
//! nowhere: it reads its own device and writes to the others'. Control and statistics take the lock
//! that the thread holds while it works and gives up while it waits, so a change of settings has
//! taken effect when it returns.

use std::io::ErrorKind;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tun_rs::SyncDevice;

use crate::link::{Link, Nanos};
use crate::packet::{self, MAX_FRAME, Wire};
use crate::stats::Counters;

/// Frames read, and delivered per link, before turning to the other: a long turn leaves the
/// device's queue to overflow, or what is due to wait.
const BATCH: usize = 8;
/// A frame up to this size is copied out of the buffer it was read into; a larger one keeps it.
const COPY_BELOW: usize = 16 << 10;
/// Buffers kept for reuse by each thread.
const SPARE_BUFFERS: usize = 256;

/// A namespace as the threads see it.
pub(crate) struct Node {
    pub(crate) device: SyncDevice,
    pub(crate) outgoing: Mutex<Outgoing>,
}

/// The links that leave a namespace, by destination.
pub(crate) struct Outgoing {
    pub(crate) links: Vec<Link<Packet>>,
    pub(crate) counters: Vec<Counters>,
    pub(crate) unroutable: u64,
}

pub(crate) struct Packet {
    frame: Vec<u8>,
    wire: Wire,
}

/// Ends the threads that wait on it.
pub(crate) struct Stop {
    stopped: AtomicBool,
    event: OwnedFd,
}

impl Stop {
    pub(crate) fn new() -> std::io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            stopped: AtomicBool::new(false),
            event,
        })
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Never read, so it stays readable for every thread that polls it.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Waits until the descriptor is readable, the time is over, or all is to stop.
    pub(crate) fn wait(&self, readable: impl AsFd, timeout: Option<Duration>) {
        let mut fds = [
            PollFd::from_borrowed_fd(readable.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.event.as_fd(), PollFlags::IN),
        ];
        let timeout = timeout.map(|time| Timespec {
            tv_sec: time.as_secs() as i64,
            tv_nsec: time.subsec_nanos().into(),
        });
        // An error is an interruption; the caller looks for itself what there is to do.
        let _ = poll(&mut fds, timeout.as_ref());
    }
}

/// The work of one thread.
pub(crate) struct Forwarder {
    pub(crate) index: usize,
    pub(crate) nodes: Arc<[Node]>,
    pub(crate) stop: Arc<Stop>,
    pub(crate) clock: Instant,
}

impl Forwarder {
    pub(crate) fn run(self) {
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let mut spare = Vec::new();
        let node = &self.nodes[self.index];
        let mut outgoing = node.outgoing.lock();
        while !self.stop.is_stopped() {
            let delivered = self.deliver(&mut outgoing, &mut spare);
            let received = self.receive(&mut outgoing, &mut spare);
            if delivered || received {
                MutexGuard::bump(&mut outgoing);
                continue;
            }
            let due = outgoing.links.iter().filter_map(Link::next_due).min();
            let timeout = due.map(|due| Duration::from_nanos(due.saturating_sub(self.now())));
            MutexGuard::unlocked(&mut outgoing, || self.stop.wait(&node.device, timeout));
        }
    }

    fn now(&self) -> Nanos {
        self.clock.elapsed().as_nanos() as Nanos
    }

    /// Writes what is due to the devices it is for.
    fn deliver(&self, outgoing: &mut Outgoing, spare: &mut Vec<Vec<u8>>) -> bool {
        let mut any = false;
        let links = outgoing.links.iter_mut().zip(&mut outgoing.counters);
        for ((link, counters), to) in links.zip(self.nodes.iter()) {
            for _ in 0..BATCH {
                if link.next_due().is_none() {
                    break;
                }
                let now = self.now();
                let Some((due, packet)) = link.pop_due(now) else {
                    break;
                };
                any = true;
                match to.device.send(&packet.frame) {
                    Ok(_) => counters.count_delivery(packet.wire, Duration::from_nanos(now - due)),
                    Err(_) => counters.refused += 1,
                }
                recycle(packet.frame, spare);
            }
        }
        any
    }

    /// Reads what the device sends and puts it on its link.
    fn receive(&self, outgoing: &mut Outgoing, spare: &mut Vec<Vec<u8>>) -> bool {
        let device = &self.nodes[self.index].device;
        for count in 0..BATCH {
            let mut frame = spare.pop().unwrap_or_default();
            frame.resize(MAX_FRAME, 0);
            let length = loop {
                match device.recv(&mut frame) {
                    Ok(length) => break length,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => {
                        recycle(frame, spare);
                        return count > 0;
                    }
                }
            };
            if length <= COPY_BELOW {
                let small = frame[..length].to_vec();
                recycle(std::mem::replace(&mut frame, small), spare);
            } else {
                frame.truncate(length);
            }
            let to = packet::destination(&frame)
                .filter(|to| *to < self.nodes.len() && *to != self.index);
            let Some(to) = to else {
                outgoing.unroutable += 1;
                recycle(frame, spare);
                continue;
            };
            let (wire, memory) = (packet::wire(&frame), frame.capacity() as u64);
            let packet = Packet { frame, wire };
            let accepted = outgoing.links[to].enqueue(self.now(), wire.bytes, memory, packet);
            if let Err((reason, packet)) = accepted {
                outgoing.counters[to].count_drop(reason);
                recycle(packet.frame, spare);
            }
        }
        true
    }
}

fn recycle(frame: Vec<u8>, spare: &mut Vec<Vec<u8>>) {
    if frame.capacity() >= MAX_FRAME && spare.len() < SPARE_BUFFERS {
        spare.push(frame);
    }
}
