//! One direction of a link, without clock or I/O: loss, then a rate limiter with a bounded
//! drop-tail queue, then a constant delay.
//!
//! The rate limiter is a virtual clock: `free_at` is the moment at which the wire has sent all it
//! accepted. A packet begins there or now, whichever is later, and is due one delay after its last
//! bit. What waits is then the time until `free_at` times the rate, so no queue has to be walked.
//! Packets stay in order even when the delay shrinks: none is due before its predecessor.

use std::collections::VecDeque;

use crate::settings::LinkSettings;

/// Nanoseconds since the emulator's start.
pub type Nanos = u64;

/// Memory that the packets of one link may hold; more than the bandwidth-delay product of what
/// the emulator can carry at any delay that makes sense.
pub const MEMORY_LIMIT: u64 = 512 << 20;

/// Why a packet does not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drop {
    /// The link is down.
    Cut,
    /// Random loss.
    Lost,
    /// The queue before the rate limiter is full.
    QueueFull,
    /// The packets in flight hold too much memory.
    MemoryFull,
}

/// One direction of a link with the packets that it holds.
#[derive(Debug)]
pub struct Link<T> {
    settings: LinkSettings,
    random: SplitMix,
    free_at: Nanos,
    last_due: Nanos,
    memory: u64,
    flight: VecDeque<InFlight<T>>,
}

#[derive(Debug)]
struct InFlight<T> {
    due: Nanos,
    memory: u64,
    item: T,
}

impl<T> Link<T> {
    /// An empty link. The seed decides which packets are lost.
    pub fn new(settings: LinkSettings, seed: u64) -> Self {
        Self {
            settings,
            random: SplitMix(seed),
            free_at: 0,
            last_due: 0,
            memory: 0,
            flight: VecDeque::new(),
        }
    }

    /// What the link does to packets.
    pub fn settings(&self) -> LinkSettings {
        self.settings
    }

    /// Changes what happens to packets from now on. Those in flight keep their due times, except
    /// that a cut loses them: the number lost is returned, and nothing arrives after a cut.
    pub fn set(&mut self, settings: LinkSettings) -> usize {
        self.settings = settings;
        if settings.up {
            return 0;
        }
        let lost = self.flight.len();
        self.flight.clear();
        self.memory = 0;
        self.free_at = 0;
        self.last_due = 0;
        lost
    }

    /// Takes a packet of `wire` bytes, whose item holds `memory` bytes.
    pub fn enqueue(
        &mut self,
        now: Nanos,
        wire: u64,
        memory: u64,
        item: T,
    ) -> Result<(), (Drop, T)> {
        if !self.settings.up {
            return Err((Drop::Cut, item));
        }
        // Drawn for every packet, so that a seed loses the same ones whatever the queue does.
        if self.settings.loss > 0.0 && self.random.unit() < self.settings.loss {
            return Err((Drop::Lost, item));
        }
        if self.memory + memory > MEMORY_LIMIT {
            return Err((Drop::MemoryFull, item));
        }
        let mut sent = now;
        if let Some(rate) = self.settings.rate {
            let waiting = self.backlog(now);
            // An idle wire takes any packet, also one that is larger than the queue.
            if waiting > 0 && waiting + wire > self.settings.queue {
                return Err((Drop::QueueFull, item));
            }
            self.free_at = self.free_at.max(now) + transmission(wire, rate);
            sent = self.free_at;
        }
        let due = (sent + self.settings.delay.as_nanos() as Nanos).max(self.last_due);
        self.last_due = due;
        self.memory += memory;
        self.flight.push_back(InFlight { due, memory, item });
        Ok(())
    }

    /// When the next packet is to be delivered.
    pub fn next_due(&self) -> Option<Nanos> {
        self.flight.front().map(|packet| packet.due)
    }

    /// The next packet and when it was due, if it is due by now.
    pub fn pop_due(&mut self, now: Nanos) -> Option<(Nanos, T)> {
        if self.next_due()? > now {
            return None;
        }
        let packet = self.flight.pop_front()?;
        self.memory -= packet.memory;
        Some((packet.due, packet.item))
    }

    /// Bytes that wait for the rate limiter.
    pub fn backlog(&self, now: Nanos) -> u64 {
        let Some(rate) = self.settings.rate else {
            return 0;
        };
        let nanos = self.free_at.saturating_sub(now);
        (u128::from(nanos) * u128::from(rate)).div_ceil(8_000_000_000) as u64
    }

    /// Packets held, waiting or delayed.
    pub fn held(&self) -> usize {
        self.flight.len()
    }

    /// Memory that the held packets take.
    pub fn memory(&self) -> u64 {
        self.memory
    }
}

/// Time to send so many bytes at so many bits per second.
fn transmission(bytes: u64, rate: u64) -> Nanos {
    (u128::from(bytes) * 8_000_000_000).div_ceil(u128::from(rate)) as Nanos
}

/// Sebastiano Vigna's SplitMix64: the same seed loses the same packets in every release, which a
/// library's default generator does not promise.
#[derive(Debug)]
struct SplitMix(u64);

impl SplitMix {
    /// 0 to below 1.
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn link(text: &str) -> Link<usize> {
        Link::new(text.parse().unwrap(), 1)
    }

    #[derive(Clone, Debug)]
    struct Arrival {
        after: Nanos,
        wire: u64,
    }

    fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
        let one = (0..200_000u64, 40..65_536u64).prop_map(|(after, wire)| Arrival { after, wire });
        prop::collection::vec(one, 1..200)
    }

    proptest! {
        #[test]
        fn packets_stay_in_order_whatever_changes(
            arrivals in arrivals(),
            delays in prop::collection::vec(0..5_000_000u64, 1..20),
        ) {
            let mut link = link("");
            let mut now = 0;
            for (n, arrival) in arrivals.iter().enumerate() {
                now += arrival.after;
                let delay = Duration::from_nanos(delays[n % delays.len()]);
                link.set(LinkSettings { delay, ..LinkSettings::default() });
                link.enqueue(now, arrival.wire, arrival.wire, n).unwrap();
                prop_assert!(link.last_due >= now + delay.as_nanos() as Nanos);
            }
            let mut before = 0;
            for n in 0..arrivals.len() {
                let due = link.next_due().unwrap();
                prop_assert!(due >= before);
                prop_assert!(due == 0 || link.pop_due(due - 1).is_none());
                prop_assert_eq!(link.pop_due(due), Some((due, n)));
                before = due;
            }
            prop_assert_eq!((link.held(), link.memory()), (0, 0));
        }

        #[test]
        fn the_rate_is_never_exceeded_and_the_queue_is_bounded(
            arrivals in arrivals(),
            mbit in 1..10_000u64,
            queue in 1..1_000_000u64,
        ) {
            let rate = mbit * 1_000_000;
            let mut link =
                link(&format!("delay=3ms rate={rate}bit queue={queue}"));
            let (mut now, mut sent) = (0, Vec::new());
            for (n, arrival) in arrivals.iter().enumerate() {
                now += arrival.after;
                let idle = link.backlog(now) == 0;
                let accepted = link.enqueue(now, arrival.wire, 0, n).is_ok();
                prop_assert!(accepted || !idle);
                prop_assert!(link.backlog(now) <= queue.max(65_536) + 1);
                if accepted {
                    sent.push((link.last_due, arrival.wire));
                    prop_assert!(link.last_due >= now + 3_000_000);
                }
            }
            // Between any two deliveries there was time to send all after the first.
            for first in 0..sent.len() {
                let mut bytes = 0;
                for later in &sent[first + 1..] {
                    bytes += later.1;
                    let nanos = u128::from(later.0 - sent[first].0);
                    prop_assert!(u128::from(bytes) * 8_000_000_000 <= nanos * u128::from(rate));
                }
            }
        }

        #[test]
        fn a_seed_loses_its_share_and_the_same_packets(seed: u64, percent in 0..=100u32) {
            let settings = LinkSettings { loss: f64::from(percent) / 100.0, ..Default::default() };
            let lost = || {
                let mut link = Link::new(settings, seed);
                (0..4000).map(|n| link.enqueue(0, 1, 0, n).is_err()).collect::<Vec<_>>()
            };
            let run = lost();
            let share = run.iter().filter(|lost| **lost).count() as f64 / 4000.0;
            // Six standard deviations of the worst case.
            prop_assert!((share - settings.loss).abs() < 0.05, "{share} of {}", settings.loss);
            prop_assert_eq!(run, lost());
        }
    }

    #[test]
    fn a_cut_loses_what_is_in_flight() {
        let mut link = link("delay=1ms");
        link.enqueue(0, 100, 100, 1).unwrap();
        link.enqueue(0, 100, 100, 2).unwrap();
        assert_eq!(link.set("up=no".parse().unwrap()), 2);
        assert_eq!(link.pop_due(Nanos::MAX), None);
        assert_eq!(link.enqueue(5, 100, 100, 3), Err((Drop::Cut, 3)));
        link.set("".parse().unwrap());
        link.enqueue(6, 100, 100, 4).unwrap();
        assert_eq!(link.pop_due(6), Some((6, 4)));
    }

    #[test]
    fn memory_is_bounded() {
        let mut link = link("delay=1s");
        let packet = 1 << 20;
        let accepted = (0..1000)
            .filter(|n| link.enqueue(0, 1500, packet, *n).is_ok())
            .count();
        assert_eq!(accepted as u64, MEMORY_LIMIT / packet);
        assert_eq!(
            link.enqueue(0, 1500, packet, 1000),
            Err((Drop::MemoryFull, 1000))
        );
        link.pop_due(1_000_000_000).unwrap();
        link.enqueue(0, 1500, packet, 1001).unwrap();
    }

    #[test]
    fn an_idle_wire_takes_a_packet_larger_than_its_queue() {
        let mut link = link("rate=8mbit queue=1k");
        link.enqueue(0, 65_536, 0, 1).unwrap();
        assert_eq!(link.next_due(), Some(65_536_000));
        assert_eq!(link.enqueue(0, 40, 0, 2), Err((Drop::QueueFull, 2)));
        link.enqueue(65_536_000, 40, 0, 3).unwrap();
    }
}
