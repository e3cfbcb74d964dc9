//! How long a message is under way, and what else a simulated network does to it.

use rand::rngs::SmallRng;
use rand::{Rng, RngExt};
use serde::Deserialize;

use super::digest::mix;

/// Nanoseconds of this many seconds.
pub(crate) fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

/// The time that a message takes between two nodes. Each pair has a base, drawn once; each message has
/// it with the jitter, a part of the base in either direction.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Latency {
    /// All pairs alike.
    Constant {
        ms: f64,
        #[serde(default)]
        jitter: f64,
    },
    /// Any base between the two.
    Uniform {
        min_ms: f64,
        max_ms: f64,
        #[serde(default)]
        jitter: f64,
    },
    /// As pairs of hosts on the internet have it: few are far off.
    LogNormal {
        median_ms: f64,
        sigma: f64,
        #[serde(default)]
        jitter: f64,
    },
    /// Nodes in clusters by turns: node i is in cluster i modulo their number.
    Clusters {
        clusters: u32,
        inside_ms: f64,
        between_ms: f64,
        #[serde(default)]
        jitter: f64,
    },
}

impl Default for Latency {
    fn default() -> Self {
        Self::Uniform {
            min_ms: 10.0,
            max_ms: 50.0,
            jitter: 0.1,
        }
    }
}

impl Latency {
    /// The base of a pair, in nanoseconds, the same in both directions.
    pub(crate) fn base(&self, seed: u64, a: u32, b: u32) -> u64 {
        let pair = |salt| {
            let word = mix([seed ^ salt, a.min(b).into(), a.max(b).into()]);
            (word >> 11) as f64 / (1u64 << 53) as f64
        };
        let ms = match *self {
            Self::Constant { ms, .. } => ms,
            Self::Uniform { min_ms, max_ms, .. } => min_ms + (max_ms - min_ms) * pair(1),
            Self::LogNormal {
                median_ms, sigma, ..
            } => {
                let radius = (-2.0 * (1.0 - pair(1)).ln()).sqrt();
                let normal = radius * (std::f64::consts::TAU * pair(2)).cos();
                median_ms * (sigma * normal).exp()
            }
            Self::Clusters {
                clusters,
                inside_ms,
                between_ms,
                ..
            } => match a % clusters == b % clusters {
                true => inside_ms,
                false => between_ms,
            },
        };
        (ms * 1e6).max(1.0) as u64
    }

    pub(crate) fn jitter(&self) -> f64 {
        match *self {
            Self::Constant { jitter, .. }
            | Self::Uniform { jitter, .. }
            | Self::LogNormal { jitter, .. }
            | Self::Clusters { jitter, .. } => jitter,
        }
    }

    /// What makes no sense about it.
    pub(crate) fn complaint(&self) -> Option<&'static str> {
        let sane = match *self {
            Self::Constant { ms, .. } => ms > 0.0,
            Self::Uniform { min_ms, max_ms, .. } => min_ms > 0.0 && max_ms >= min_ms,
            Self::LogNormal {
                median_ms, sigma, ..
            } => median_ms > 0.0 && sigma >= 0.0,
            Self::Clusters {
                clusters,
                inside_ms,
                between_ms,
                ..
            } => clusters > 0 && inside_ms > 0.0 && between_ms > 0.0,
        };
        match (sane, (0.0..1.0).contains(&self.jitter())) {
            (false, _) => Some("network.latency: times are greater than 0, and min_ms <= max_ms"),
            (_, false) => Some("network.latency: jitter is at least 0 and less than 1"),
            _ => None,
        }
    }
}

/// A few nodes that take their time with everything that comes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Slow {
    /// Which part of the nodes.
    pub(crate) fraction: f64,
    /// What it adds to the time of each message.
    pub(crate) delay_ms: f64,
}

/// The network of a scenario.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NetworkConfig {
    pub(crate) latency: Latency,
    /// Of each node's way out, in Mbit/s. None: any number of bytes leaves at once.
    pub(crate) bandwidth_mbit: Option<f64>,
    /// Which part of the messages must be sent again.
    pub(crate) loss: f64,
    /// Which part of the messages breaks its link instead.
    pub(crate) reset: f64,
    /// Seconds between keep-alives; 0: none.
    pub(crate) keep_alive: f64,
    /// After this many intervals of silence the other end is dead.
    pub(crate) misses: u32,
    /// Others see a crash within this many seconds, by their broken connections.
    pub(crate) detect: f64,
    /// Seconds without an answer after which a dial has failed.
    pub(crate) dial_timeout: f64,
    pub(crate) slow: Option<Slow>,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            latency: Latency::default(),
            bandwidth_mbit: None,
            loss: 0.0,
            reset: 0.0,
            keep_alive: 5.0,
            misses: 3,
            detect: 1.0,
            dial_timeout: 5.0,
            slow: None,
        }
    }
}

impl NetworkConfig {
    /// What makes no sense about it.
    pub(crate) fn complaint(&self) -> Option<&'static str> {
        let part = 0.0..1.0;
        if !part.contains(&self.loss) || !part.contains(&self.reset) {
            return Some("network: loss and reset are at least 0 and less than 1");
        }
        if self.keep_alive < 0.0 || self.misses == 0 {
            return Some("network: keep_alive is at least 0, misses at least 1");
        }
        if self.dial_timeout <= 0.0 || self.detect < 0.0 {
            return Some("network: dial_timeout is greater than 0, detect at least 0");
        }
        if self.bandwidth_mbit.is_some_and(|mbit| mbit <= 0.0) {
            return Some("network: bandwidth_mbit is greater than 0; leave it out for no limit");
        }
        self.latency.complaint()
    }
}

/// A number from 0 to 1.
pub(crate) fn unit(rng: &mut SmallRng) -> f64 {
    rng.random::<f64>()
}

/// Whether something of this probability happens. Draws nothing if it can't.
pub(crate) fn chance(rng: &mut SmallRng, probability: f64) -> bool {
    probability > 0.0 && unit(rng) < probability
}

/// A number below `limit`, which isn't 0.
pub(crate) fn below(rng: &mut SmallRng, limit: usize) -> usize {
    ((u128::from(rng.next_u64()) * limit as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_follow_their_distribution() {
        let all = |latency: &Latency| {
            let mut bases: Vec<u64> = (1..2001).map(|b| latency.base(5, 0, b)).collect();
            bases.sort_unstable();
            (bases[0], bases[1000], bases[1999])
        };
        let (low, middle, high) = all(&Latency::Uniform {
            min_ms: 10.0,
            max_ms: 50.0,
            jitter: 0.0,
        });
        assert!(low >= 10_000_000 && high <= 50_000_000);
        assert!((28_000_000..32_000_000).contains(&middle));
        let log = Latency::LogNormal {
            median_ms: 40.0,
            sigma: 0.5,
            jitter: 0.0,
        };
        let (low, middle, high) = all(&log);
        assert!((37_000_000..43_000_000).contains(&middle), "{middle}");
        assert!(low < 12_000_000 && high > 120_000_000, "{low} {high}");
        assert_eq!(log.base(5, 3, 9), log.base(5, 9, 3));
        assert_ne!(log.base(5, 3, 9), log.base(6, 3, 9));
        let clusters = Latency::Clusters {
            clusters: 20,
            inside_ms: 2.0,
            between_ms: 40.0,
            jitter: 0.2,
        };
        assert_eq!(clusters.base(1, 3, 23), 2_000_000);
        assert_eq!(clusters.base(1, 3, 24), 40_000_000);
    }
}
