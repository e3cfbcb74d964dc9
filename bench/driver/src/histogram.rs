//! Latencies: as the ends count them and as the tables show them.
//!
//! The ends count in buckets of 1.6 % width, numbered by the upper bits of the value: its exponent
//! and six bits of its mantissa. On the wire that is `bucket:count,...`; the driver puts the
//! buckets' middles into an HDR histogram.

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

const SUB_BITS: u32 = 6;
const SUB: u64 = 1 << SUB_BITS;
/// Up to 2^45 ns.
const BUCKETS: usize = 46 << SUB_BITS;

/// Counts, at an end.
#[derive(Clone, Debug)]
pub(crate) struct Buckets(Vec<u64>);

impl Buckets {
    pub(crate) fn new() -> Self {
        Self(vec![0; BUCKETS])
    }

    pub(crate) fn record(&mut self, ns: u64) {
        if let Some(count) = self.0.get_mut(bucket(ns)) {
            *count += 1;
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine += theirs;
        }
    }

    pub(crate) fn text(&self) -> String {
        let filled = self.0.iter().enumerate().filter(|(_, count)| **count > 0);
        let parts: Vec<String> = filled.map(|(i, count)| format!("{i}:{count}")).collect();
        parts.join(",")
    }
}

fn bucket(ns: u64) -> usize {
    let ns = ns.max(1);
    let exponent = ns.ilog2();
    // The bits below the leading one, six of them.
    let mantissa = if exponent >= SUB_BITS {
        ns >> (exponent - SUB_BITS)
    } else {
        ns << (SUB_BITS - exponent)
    } & (SUB - 1);
    ((u64::from(exponent) << SUB_BITS) | mantissa) as usize
}

/// The middle of a bucket.
fn middle(bucket: u64) -> u64 {
    let (exponent, mantissa) = (bucket >> SUB_BITS, bucket & (SUB - 1));
    let low = (1u128 << exponent) * u128::from(SUB + mantissa) / u128::from(SUB);
    let high = (1u128 << exponent) * u128::from(SUB + mantissa + 1) / u128::from(SUB);
    u64::try_from(low.midpoint(high)).unwrap_or(u64::MAX)
}

/// What of a distribution is kept: microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p5: f64,
    pub(crate) p25: f64,
    pub(crate) p50: f64,
    pub(crate) p75: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) mean: f64,
}

/// Reads what an end has counted; `None` if it counted nothing.
pub(crate) fn parse(text: &str) -> Result<Option<Latency>> {
    let mut histogram: Histogram<u64> = Histogram::new(3).context("histogram")?;
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (bucket, count) = part.split_once(':').context("no bucket:count")?;
        let bucket: u64 = bucket.parse().context("bucket")?;
        let count: u64 = count.parse().context("count")?;
        anyhow::ensure!(bucket < BUCKETS as u64, "bucket {bucket} does not exist");
        histogram.record_n(middle(bucket).max(1), count)?;
    }
    if histogram.is_empty() {
        return Ok(None);
    }
    let at = |q: f64| histogram.value_at_quantile(q) as f64 / 1e3;
    Ok(Some(Latency {
        p5: at(0.05),
        p25: at(0.25),
        p50: at(0.5),
        p75: at(0.75),
        p95: at(0.95),
        p99: at(0.99),
        p999: at(0.999),
        mean: histogram.mean() / 1e3,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_narrow_and_ordered() {
        let mut last = 0;
        for ns in [1, 2, 3, 63, 64, 65, 1000, 1_000_000, 12_345_678_901] {
            let bucket = bucket(ns);
            assert!(bucket > last || ns == 1, "{ns}");
            last = bucket;
            let middle = middle(bucket as u64) as f64;
            let error = (middle - ns as f64).abs();
            assert!(error <= (ns as f64 * 0.016).max(1.0), "{ns} {middle}");
        }
    }

    #[test]
    fn percentiles_survive_the_wire() {
        let mut buckets = Buckets::new();
        for us in 1..=1000u64 {
            buckets.record(us * 1000);
        }
        let latency = parse(&buckets.text()).unwrap().unwrap();
        assert!((latency.p50 - 500.0).abs() < 10.0, "{latency:?}");
        assert!((latency.p99 - 990.0).abs() < 20.0, "{latency:?}");
        assert!(parse("").unwrap().is_none());
        assert!(parse("9999:1").is_err());
    }
}
