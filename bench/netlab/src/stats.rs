//! What the links have done so far.

use std::fmt;
use std::time::Duration;

use crate::link;
use crate::packet::Wire;
use crate::settings::LinkSettings;

/// Upper bounds, in microseconds, of the classes of lateness; one more class has the rest.
pub const LATE_BELOW_US: [u64; 9] = [10, 25, 50, 100, 250, 500, 1_000, 10_000, 100_000];

/// Counters of one direction of a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames delivered: a super-packet is one.
    pub packets: u64,
    /// IP packets delivered: a super-packet is as many as it stands for.
    pub segments: u64,
    /// Bytes of those IP packets.
    pub bytes: u64,
    /// Frames lost at random.
    pub lost: u64,
    /// Frames that found the queue full.
    pub queue_full: u64,
    /// Frames dropped because the link was down, or was cut while they were in flight.
    pub cut: u64,
    /// Frames dropped because those in flight held too much memory.
    pub memory_full: u64,
    /// Frames that the receiving device refused.
    pub refused: u64,
    /// Frames by how long after their due time they were delivered: see [`LATE_BELOW_US`].
    pub late: [u64; LATE_BELOW_US.len() + 1],
}

impl Counters {
    /// Frames that did not arrive, for whatever reason.
    pub fn dropped(&self) -> u64 {
        self.lost + self.queue_full + self.cut + self.memory_full + self.refused
    }

    pub(crate) fn count_drop(&mut self, reason: link::Drop) {
        *match reason {
            link::Drop::Cut => &mut self.cut,
            link::Drop::Lost => &mut self.lost,
            link::Drop::QueueFull => &mut self.queue_full,
            link::Drop::MemoryFull => &mut self.memory_full,
        } += 1;
    }

    pub(crate) fn count_delivery(&mut self, wire: Wire, late: Duration) {
        self.packets += 1;
        self.segments += wire.segments;
        self.bytes += wire.bytes;
        let micros = late.as_micros() as u64;
        self.late[LATE_BELOW_US
            .iter()
            .take_while(|bound| micros >= **bound)
            .count()] += 1;
    }
}

/// One direction of a link at one moment.
#[derive(Clone, Debug)]
pub struct LinkStats {
    /// The sending node.
    pub from: usize,
    /// The receiving node.
    pub to: usize,
    /// What the link does.
    pub settings: LinkSettings,
    /// What it has done.
    pub counters: Counters,
    /// Frames held, waiting for the rate limiter or delayed.
    pub queued: usize,
    /// Memory that those take.
    pub queued_bytes: u64,
}

impl fmt::Display for LinkStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            from,
            to,
            settings,
            counters,
            queued,
            queued_bytes,
        } = self;
        let Counters {
            packets,
            segments,
            bytes,
            lost,
            queue_full,
            cut,
            ..
        } = counters;
        write!(
            f,
            "link {from} {to} {settings} packets={packets} segments={segments} bytes={bytes} \
             dropped={} lost={lost} queue_full={queue_full} cut={cut} memory_full={} refused={} \
             queued={queued} queued_bytes={queued_bytes}",
            counters.dropped(),
            counters.memory_full,
            counters.refused,
        )?;
        for (bound, count) in LATE_BELOW_US.iter().zip(&counters.late) {
            write!(f, " late_below_{bound}us={count}")?;
        }
        write!(f, " later={}", counters.late[LATE_BELOW_US.len()])
    }
}

/// The whole emulator at one moment.
#[derive(Clone, Debug)]
pub struct Stats {
    /// Every direction of every link.
    pub links: Vec<LinkStats>,
    /// Frames that were for none of the nodes.
    pub unroutable: u64,
    /// Processor time that the emulator's threads have used, with the receiving kernel's work on
    /// the packets they deliver.
    pub cpu: Duration,
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for link in &self.links {
            writeln!(f, "{link}")?;
        }
        write!(
            f,
            "emulator cpu_s={:.3} unroutable={}",
            self.cpu.as_secs_f64(),
            self.unroutable
        )
    }
}
