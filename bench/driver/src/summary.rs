//! `summary.md`: every point with every contestant.

use std::fmt::Write;

use crate::record::Run;
use crate::stats::{Metric, Spread, paired, spread};
use crate::table::{Table, short};

/// What ratios are against.
pub(crate) const REFERENCE: &str = "disterl";

/// The points, in order of appearance.
pub(crate) fn points(runs: &[Run]) -> Vec<&str> {
    let mut points: Vec<&str> = Vec::new();
    for run in runs {
        if !points.contains(&run.point.as_str()) {
            points.push(&run.point);
        }
    }
    points
}

/// The contestants at a point, in order of appearance.
pub(crate) fn contestants<'a>(runs: &'a [Run], point: &str) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for run in runs.iter().filter(|r| r.point == point) {
        if !names.contains(&run.contestant.as_str()) {
            names.push(&run.contestant);
        }
    }
    names
}

/// `1.23 (1.10–1.31)`.
pub(crate) fn with_range(spread: Option<Spread>) -> String {
    match spread {
        None => String::new(),
        Some(s) if s.n == 1 => short(s.median),
        Some(s) => format!("{} ({}–{})", short(s.median), short(s.min), short(s.max)),
    }
}

fn median(spread: Option<Spread>, scale: f64) -> String {
    spread.map_or_else(String::new, |s| short(s.median * scale))
}

/// Something of a run.
type Figure<'a> = &'a dyn Fn(&Run) -> Option<f64>;

/// The table of one point.
pub(crate) fn point_table(runs: &[Run], point: &str) -> String {
    let names = contestants(runs, point);
    let reference = if names.contains(&REFERENCE) {
        REFERENCE
    } else {
        names.first().copied().unwrap_or(REFERENCE)
    };
    let ratio_heading = format!("× {reference} (min–max)");
    let mut table = Table::new(&[
        "contestant",
        "msg/s (min–max)",
        "MB/s",
        &ratio_heading,
        "CPU µs/msg A+B",
        "CPU ns/B",
        "× CPU (min–max)",
        "one-way ms p50/p99/p99.9",
        "round trip ms p50/p99/p99.9",
        "× rt p50",
        "× rt p99",
        "peak MB A+B",
        "queued MB",
        "emulator % of a core",
        "n",
    ]);
    for name in names {
        let of = |metric| spread(runs, point, name, metric);
        let over = |metric| paired(runs, point, name, reference, metric);
        let median_of = |figure: Figure<'_>, scale: f64| {
            let runs = runs.iter().filter(|r| r.is_good() && r.point == point);
            median(
                Spread::of(runs.filter(|r| r.contestant == name).filter_map(figure)),
                scale,
            )
        };
        let three = |figures: [Figure<'_>; 3]| {
            let texts = figures.map(|figure| median_of(figure, 1e-3));
            if texts[0].is_empty() {
                String::new()
            } else {
                texts.join(" / ")
            }
        };
        let both = |a: String, b: String| {
            if a.is_empty() {
                a
            } else {
                format!("{a} + {b}")
            }
        };
        let per_message = |ns: u64, run: &Run| Some(ns as f64 / 1e3 / run.messages as f64);
        let cpu_a = median_of(&|r| per_message(r.cpu_a_ns, r), 1.0);
        let cpu_b = median_of(&|r| per_message(r.cpu_b_ns, r), 1.0);
        let peak_a = median_of(&|r| Some(r.peak_a_mb), 1.0);
        let peak_b = median_of(&|r| Some(r.peak_b_mb), 1.0);
        let n = of(Metric::Rate).map_or(0, |s| s.n);
        let failed = runs
            .iter()
            .filter(|r| !r.is_good() && r.point == point && r.contestant == name);
        let failed = match failed.count() {
            0 => String::new(),
            f => format!(" +{f} failed"),
        };
        table.row(vec![
            name.to_owned(),
            with_range(of(Metric::Rate)),
            median(of(Metric::Megabytes), 1.0),
            with_range(over(Metric::Rate)),
            both(cpu_a, cpu_b),
            median(of(Metric::CpuPerByte), 1.0),
            with_range(over(Metric::CpuPerMessage)),
            three([&|r| r.ow_p50, &|r| r.ow_p99, &|r| r.ow_p999]),
            three([&|r| r.rt_p50, &|r| r.rt_p99, &|r| r.rt_p999]),
            median(over(Metric::RoundTripP50), 1.0),
            median(over(Metric::RoundTripP99), 1.0),
            both(peak_a, peak_b),
            median(of(Metric::Queued), 1e-6),
            median_of(
                &|r| Some(r.emulator_cpu_ns as f64 / 1e7 / r.seconds).filter(|share| *share > 0.0),
                1.0,
            ),
            format!("{n}{failed}"),
        ]);
    }
    table.text()
}

/// The whole file.
pub(crate) fn summary(runs: &[Run], header: &str) -> String {
    let mut text = String::from(
        "# Summary\n\nMedians over the repetitions; ratios are medians of the ratios within each repetition.\n\n",
    );
    let _ = writeln!(text, "{header}");
    for point in points(runs) {
        let _ = writeln!(text, "## {point}\n\n{}", point_table(runs, point));
    }
    let failures: Vec<&Run> = runs.iter().filter(|r| !r.is_good()).collect();
    if !failures.is_empty() {
        text.push_str("## Runs that failed\n\n");
        for run in failures {
            let _ = writeln!(
                text,
                "- {} {} repetition {}: {}",
                run.point,
                run.contestant,
                run.repetition + 1,
                run.error.replace('\n', " ")
            );
        }
    }
    text
}
