//! Medians, spreads and paired ratios.

use crate::record::Run;

/// Median and extremes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) n: usize,
}

impl Spread {
    /// `None` of nothing.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let n = values.len();
        let (min, max) = (*values.first()?, *values.last()?);
        let median = values[(n - 1) / 2].midpoint(values[n / 2]);
        Some(Self {
            median,
            min,
            max,
            n,
        })
    }
}

/// A figure of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    /// Messages per second.
    Rate,
    /// Megabytes of payload per second.
    Megabytes,
    /// CPU microseconds per message, both ends.
    CpuPerMessage,
    /// CPU nanoseconds per byte of payload, both ends.
    CpuPerByte,
    OneWayP50,
    OneWayP99,
    RoundTripP50,
    RoundTripP99,
    RoundTripP999,
    /// Resident megabytes of both ends, at most.
    Memory,
    /// Most bytes queued.
    Queued,
}

impl Metric {
    pub(crate) fn of(self, run: &Run) -> Option<f64> {
        let cpu = (run.cpu_a_ns + run.cpu_b_ns) as f64;
        let some = |value: f64| Some(value).filter(|v| v.is_finite());
        match self {
            Self::Rate => some(run.messages as f64 / run.seconds),
            Self::Megabytes => some(run.bytes as f64 / 1e6 / run.seconds),
            Self::CpuPerMessage => some(cpu / 1e3 / run.messages as f64),
            Self::CpuPerByte => some(cpu / run.bytes as f64),
            Self::OneWayP50 => run.ow_p50,
            Self::OneWayP99 => run.ow_p99,
            Self::RoundTripP50 => run.rt_p50,
            Self::RoundTripP99 => run.rt_p99,
            Self::RoundTripP999 => run.rt_p999,
            Self::Memory => some(run.peak_a_mb + run.peak_b_mb),
            Self::Queued => run.queued.map(|q| q as f64),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rate => "messages/s",
            Self::Megabytes => "MB/s",
            Self::CpuPerMessage => "CPU per message",
            Self::CpuPerByte => "CPU per byte",
            Self::OneWayP50 => "one-way p50",
            Self::OneWayP99 => "one-way p99",
            Self::RoundTripP50 => "round-trip p50",
            Self::RoundTripP99 => "round-trip p99",
            Self::RoundTripP999 => "round-trip p99.9",
            Self::Memory => "peak memory",
            Self::Queued => "queued bytes",
        }
    }
}

/// The good runs of a contestant at a point.
pub(crate) fn runs_of<'a>(
    runs: &'a [Run],
    point: &'a str,
    contestant: &'a str,
) -> impl Iterator<Item = &'a Run> {
    runs.iter()
        .filter(move |r| r.is_good() && r.point == point && r.contestant == contestant)
}

/// A figure over the repetitions.
pub(crate) fn spread(
    runs: &[Run],
    point: &str,
    contestant: &str,
    metric: Metric,
) -> Option<Spread> {
    Spread::of(runs_of(runs, point, contestant).filter_map(|r| metric.of(r)))
}

/// The ratios of two contestants' figures in the same repetitions.
pub(crate) fn paired(
    runs: &[Run],
    point: &str,
    contestant: &str,
    reference: &str,
    metric: Metric,
) -> Option<Spread> {
    let ratios = runs_of(runs, point, contestant).filter_map(|run| {
        let other = runs_of(runs, point, reference).find(|r| r.repetition == run.repetition)?;
        Some(metric.of(run)? / metric.of(other)?)
    });
    Spread::of(ratios)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A run of one second.
    pub(crate) fn run(contestant: &str, repetition: u32, messages: u64, cpu_us: u64) -> Run {
        Run {
            point: "p".into(),
            contestant: contestant.into(),
            repetition,
            seconds: 1.0,
            messages,
            bytes: messages * 64,
            cpu_a_ns: cpu_us * 1000 * messages,
            ..Run::default()
        }
    }

    #[test]
    fn medians_of_odd_and_even_numbers() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]).unwrap().median, 2.0);
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([f64::NAN, 1.0]).unwrap().n, 1);
    }

    #[test]
    fn ratios_are_of_the_same_repetition() {
        let mut runs = vec![
            run("a", 0, 200, 1),
            run("b", 0, 100, 2),
            run("a", 1, 900, 1),
            run("b", 1, 300, 4),
            // Without a partner.
            run("a", 2, 1, 1),
        ];
        let ratio = paired(&runs, "p", "a", "b", Metric::Rate).unwrap();
        assert_eq!((ratio.min, ratio.max, ratio.n), (2.0, 3.0, 2));
        let cpu = paired(&runs, "p", "a", "b", Metric::CpuPerMessage).unwrap();
        assert_eq!((cpu.min, cpu.max), (0.25, 0.5));
        runs[1].error = "broken".into();
        assert_eq!(paired(&runs, "p", "a", "b", Metric::Rate).unwrap().n, 1);
    }

    #[test]
    fn figures_that_do_not_exist_are_none() {
        assert_eq!(Metric::OneWayP50.of(&Run::default()), None);
        assert_eq!(Metric::Rate.of(&Run::default()), None);
    }
}
