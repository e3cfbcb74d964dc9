//! SVG plots, drawn like the paper's figures: box plots of one-way latency over the number of
//! actors, the published points beside ours, latency and throughput over the number of
//! connections, and bars of throughput.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::prelude::*;
use serde::Deserialize;

use crate::point::{Point, Work};
use crate::record::Run;
use crate::stats::{Metric, Spread, runs_of, spread};
use crate::summary::{contestants, points};

/// Left to right in every group, with the published configuration that stands beside.
const CONFIGURATIONS: [(&str, Option<&str>); 7] = [
    ("disterl", Some("disterl")),
    ("disterl+zdbbl", None),
    ("ours-1", Some("partisan 1")),
    ("ours-16", None),
    ("ours-4x16", Some("partisan 4x16")),
    ("upstream-1", None),
    ("upstream-16", None),
];
const COLOURS: [RGBColor; 7] = [
    RGBColor(110, 110, 110),
    RGBColor(170, 170, 170),
    RGBColor(31, 119, 180),
    RGBColor(23, 160, 120),
    RGBColor(214, 96, 30),
    RGBColor(150, 100, 190),
    RGBColor(200, 80, 140),
];
const SIZE: (u32, u32) = (900, 520);

/// A published point, in milliseconds.
#[derive(Clone, Debug, Deserialize)]
struct Published {
    size: String,
    rtt_ms: u32,
    configuration: String,
    actors: u32,
    p25: Option<f64>,
    p50: f64,
    p75: Option<f64>,
}

fn published() -> Result<Vec<Published>> {
    let mut reader = csv::Reader::from_reader(include_str!("../paper.csv").as_bytes());
    let rows: Result<Vec<Published>, _> = reader.deserialize().collect();
    rows.context("paper.csv")
}

/// A file's name, its title, what it shows, and the points that belong to it.
type BarPlot = (&'static str, &'static str, Metric, fn(&Point) -> bool);

/// A box: 5, 25, 50, 75 and 95 %, in milliseconds.
type Box5 = [f64; 5];

/// The medians over the repetitions of a contestant's quantiles of one-way latency.
fn box_of(runs: &[Run], point: &str, contestant: &str) -> Option<Box5> {
    let figures: [fn(&Run) -> Option<f64>; 5] = [
        |r| r.ow_p5,
        |r| r.ow_p25,
        |r| r.ow_p50,
        |r| r.ow_p75,
        |r| r.ow_p95,
    ];
    let mut quantiles = [0.0; 5];
    for (quantile, figure) in quantiles.iter_mut().zip(figures) {
        let all = runs_of(runs, point, contestant).filter_map(figure);
        *quantile = Spread::of(all)?.median / 1e3;
    }
    Some(quantiles)
}

/// Without decimals where there are none.
fn short(value: f64) -> String {
    match value.fract() == 0.0 {
        true => format!("{value:.0}"),
        false => value.to_string(),
    }
}

/// Draws all that the runs allow; returns the files' names.
pub(crate) fn draw(runs: &[Run], dir: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    let parsed: Vec<Point> = points(runs).iter().filter_map(|p| p.parse().ok()).collect();
    for (size, rtt) in [
        ("512K", 1),
        ("512K", 20),
        ("8M", 1),
        ("8M", 20),
        ("512K", 0),
    ] {
        let at: Vec<&Point> = parsed
            .iter()
            .filter(|p| p.work == Work::Loop && !p.sweep && !p.large_windows)
            .filter(|p| p.size_text() == size && p.rtt_ms == rtt && p.rate.is_none())
            .collect();
        if !at.is_empty() {
            let name = format!("latency-{size}-{rtt}ms.svg");
            latency(runs, &at, size, rtt, &dir.join(&name))?;
            files.push(name);
        }
    }
    for point in parsed.iter().filter(|p| p.sweep) {
        let name = format!("connections-{}-{}ms.svg", point.size_text(), point.rtt_ms);
        connections(runs, point, &dir.join(&name))?;
        files.push(name);
    }
    let groups: [BarPlot; 5] = [
        ("throughput-flood", "one-way floods", Metric::Rate, |p| {
            p.work == Work::Flood
        }),
        (
            "throughput-small",
            "closed loops, 64 B and 1 KB, loopback",
            Metric::Rate,
            |p| p.work == Work::Loop && p.rtt_ms == 0 && p.size <= 1 << 10 && !p.sweep,
        ),
        (
            "throughput-0ms",
            "closed loops, loopback",
            Metric::Megabytes,
            |p| p.work == Work::Loop && p.rtt_ms == 0 && p.size > 1 << 10 && !p.sweep,
        ),
        (
            "throughput-1ms",
            "closed loops, 1 ms",
            Metric::Megabytes,
            |p| p.work == Work::Loop && p.rtt_ms == 1 && p.size > 1 << 10 && !p.sweep,
        ),
        (
            "throughput-20ms",
            "closed loops, 20 ms",
            Metric::Megabytes,
            |p| p.work == Work::Loop && p.rtt_ms == 20 && p.size > 1 << 10 && !p.sweep,
        ),
    ];
    for (name, title, metric, belongs) in groups {
        let at: Vec<&Point> = parsed.iter().filter(|p| belongs(p)).collect();
        if !at.is_empty() {
            let name = format!("{name}.svg");
            bars(runs, &at, title, metric, &dir.join(&name))?;
            files.push(name);
        }
    }
    Ok(files)
}

fn failed<E: std::fmt::Display>(e: E) -> anyhow::Error {
    anyhow!("a plot: {e}")
}

/// Limits of a logarithmic axis around the values.
fn range(values: &[f64]) -> (f64, f64) {
    let positive = values.iter().copied().filter(|v| *v > 0.0);
    let low = positive.clone().reduce(f64::min).unwrap_or(1.0);
    let high = positive.reduce(f64::max).unwrap_or(10.0);
    (low / 1.5, high * 1.5)
}

/// A configuration's colour, and its place in a group.
fn configuration(name: &str) -> Option<usize> {
    CONFIGURATIONS.iter().position(|(ours, _)| *ours == name)
}

fn latency(runs: &[Run], at: &[&Point], size: &str, rtt: u32, path: &Path) -> Result<()> {
    let published = published()?;
    let published: Vec<&Published> = published
        .iter()
        .filter(|p| p.size == size && p.rtt_ms == rtt)
        .collect();
    let mut actors: Vec<u32> = at.iter().map(|p| p.actors).collect();
    actors.extend(published.iter().map(|p| p.actors));
    actors.sort_unstable();
    actors.dedup();
    let mut boxes = Vec::new();
    for point in at {
        let text = point.to_string();
        let group = actors.iter().position(|a| *a == point.actors).unwrap_or(0);
        for (slot, (name, _)) in CONFIGURATIONS.iter().enumerate() {
            if let Some(quantiles) = box_of(runs, &text, name) {
                boxes.push((group, slot, quantiles));
            }
        }
    }
    let mut values: Vec<f64> = boxes.iter().flat_map(|(_, _, q)| *q).collect();
    values.extend(
        published
            .iter()
            .flat_map(|p| [Some(p.p50), p.p25, p.p75])
            .flatten(),
    );
    let (low, high) = range(&values);

    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE).map_err(failed)?;
    let title = format!("{size} payload, {rtt} ms: one-way latency (× = published)");
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0f64..actors.len() as f64, (low..high).log_scale())
        .map_err(failed)?;
    let label = |x: &f64| group_label(*x, &actors);
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(2 * actors.len() + 1)
        .x_label_formatter(&label)
        .x_desc("actors")
        .y_label_formatter(&|ms| short(*ms))
        .y_desc("milliseconds, logarithmic")
        .draw()
        .map_err(failed)?;
    let width = 0.8 / CONFIGURATIONS.len() as f64;
    let left = |group: usize, slot: usize| group as f64 + 0.1 + slot as f64 * width;
    for (slot, (name, _)) in CONFIGURATIONS.iter().enumerate() {
        let colour = COLOURS[slot];
        let mine: Vec<_> = boxes.iter().filter(|(_, s, _)| *s == slot).collect();
        if mine.is_empty() {
            continue;
        }
        let bodies = mine.iter().map(|(group, _, q)| {
            let x = left(*group, slot);
            Rectangle::new(
                [(x, q[1]), (x + width * 0.8, q[3])],
                colour.mix(0.5).filled(),
            )
        });
        chart
            .draw_series(bodies)
            .map_err(failed)?
            .label(*name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
        let lines = mine.iter().flat_map(|(group, _, q)| {
            let (x, right) = (left(*group, slot), left(*group, slot) + width * 0.8);
            let middle = f64::midpoint(x, right);
            [
                PathElement::new(vec![(x, q[2]), (right, q[2])], colour.stroke_width(3)),
                PathElement::new(vec![(middle, q[0]), (middle, q[1])], colour),
                PathElement::new(vec![(middle, q[3]), (middle, q[4])], colour),
            ]
        });
        chart.draw_series(lines).map_err(failed)?;
    }
    for point in published {
        let beside = |c: &(&str, Option<&str>)| c.1 == Some(point.configuration.as_str());
        let slot = CONFIGURATIONS.iter().position(beside).unwrap_or(0);
        let group = actors.iter().position(|a| *a == point.actors).unwrap_or(0);
        let x = left(group, slot) + width * 0.4;
        let colour = COLOURS[slot];
        chart
            .draw_series([Cross::new((x, point.p50), 5, colour.stroke_width(2))])
            .map_err(failed)?;
        if let (Some(p25), Some(p75)) = (point.p25, point.p75) {
            let line = PathElement::new(vec![(x, p25), (x, p75)], colour.stroke_width(2));
            chart.draw_series([line]).map_err(failed)?;
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()
        .map_err(failed)?;
    root.present().map_err(failed)
}

/// The number of actors, in the middle of its group.
fn group_label(x: f64, actors: &[u32]) -> String {
    let fraction = x - x.floor();
    if (fraction - 0.5).abs() > 0.01 {
        return String::new();
    }
    let number = actors.get(x as usize);
    number.map_or_else(String::new, u32::to_string)
}

/// Throughput over the number of connections, of all contestants `ours-N`.
fn connections(runs: &[Run], point: &Point, path: &Path) -> Result<()> {
    let text = point.to_string();
    let metric = if point.size > 1 << 10 {
        Metric::Megabytes
    } else {
        Metric::Rate
    };
    let mut line: Vec<(f64, Spread)> = Vec::new();
    for name in contestants(runs, &text) {
        let connections = name
            .strip_prefix("ours-")
            .and_then(|n| n.parse::<f64>().ok());
        if let (Some(n), Some(spread)) = (connections, spread(runs, &text, name, metric)) {
            line.push((n, spread));
        }
    }
    line.sort_by(|x, y| x.0.total_cmp(&y.0));
    let highest = line.iter().map(|(_, s)| s.max).fold(1.0, f64::max);
    let most = line.last().map_or(2.0, |(n, _)| *n * 1.3);
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE).map_err(failed)?;
    let title = format!(
        "{} payload, {} ms, {} actors",
        point.size_text(),
        point.rtt_ms,
        point.actors
    );
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(80)
        .build_cartesian_2d((0.8f64..most).log_scale().base(2.0), 0f64..highest * 1.1)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .x_label_formatter(&|n| short(*n))
        .y_label_formatter(&|y| short(*y))
        .x_desc("connections of the channel")
        .y_desc(metric.name())
        .draw()
        .map_err(failed)?;
    let colour = COLOURS[2];
    let medians = line.iter().map(|(n, s)| (*n, s.median));
    chart
        .draw_series(LineSeries::new(medians, colour.stroke_width(2)).point_size(4))
        .map_err(failed)?;
    let ranges = line.iter();
    let ranges = ranges.map(|(n, s)| PathElement::new(vec![(*n, s.min), (*n, s.max)], colour));
    chart.draw_series(ranges).map_err(failed)?;
    root.present().map_err(failed)
}

/// Throughput of every contestant at each point, as a share of the best.
fn bars(runs: &[Run], at: &[&Point], title: &str, metric: Metric, path: &Path) -> Result<()> {
    let mut values = Vec::new();
    for (group, point) in at.iter().enumerate() {
        let text = point.to_string();
        for name in contestants(runs, &text) {
            if let (Some(slot), Some(s)) = (configuration(name), spread(runs, &text, name, metric))
            {
                values.push((group, slot, s.median));
            }
        }
    }
    let all: Vec<f64> = values.iter().map(|v| v.2).collect();
    let (low, high) = range(&all);
    let labels: Vec<String> = at
        .iter()
        .map(|p| {
            format!(
                "{} × {}{}",
                p.size_text(),
                p.actors,
                if p.large_windows { " w" } else { "" }
            )
        })
        .collect();
    let width = SIZE.0.max(110 * at.len() as u32);
    let root = SVGBackend::new(path, (width, SIZE.1)).into_drawing_area();
    root.fill(&WHITE).map_err(failed)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("{title}: {}", metric.name()), ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(80)
        .build_cartesian_2d(0f64..at.len() as f64, (low..high).log_scale())
        .map_err(failed)?;
    let label = |x: &f64| {
        let middle = (x - x.floor() - 0.5).abs() < 0.01;
        let text = labels.get(*x as usize).filter(|_| middle);
        text.cloned().unwrap_or_default()
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(2 * at.len() + 1)
        .x_label_formatter(&label)
        .x_desc("payload × actors (w: 32 MB of tcp_wmem)")
        .y_label_formatter(&|y| short(*y))
        .y_desc(format!("{}, logarithmic", metric.name()))
        .draw()
        .map_err(failed)?;
    let bar = 0.8 / CONFIGURATIONS.len() as f64;
    for (slot, (name, _)) in CONFIGURATIONS.iter().enumerate() {
        let colour = COLOURS[slot];
        let mine: Vec<_> = values.iter().filter(|v| v.1 == slot).collect();
        if mine.is_empty() {
            continue;
        }
        let boxes = mine.iter().map(|(group, _, value)| {
            let x = *group as f64 + 0.1 + slot as f64 * bar;
            Rectangle::new([(x, low), (x + bar * 0.9, *value)], colour.filled())
        });
        chart
            .draw_series(boxes)
            .map_err(failed)?
            .label(*name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()
        .map_err(failed)?;
    root.present().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_points_have_a_place() {
        for point in published().unwrap() {
            let known = |c: &(&str, Option<&str>)| c.1 == Some(point.configuration.as_str());
            assert!(CONFIGURATIONS.iter().any(known), "{point:?}");
        }
    }

    #[test]
    fn plots_are_drawn() {
        let run = |point: &str, contestant: &str| Run {
            point: point.into(),
            contestant: contestant.into(),
            seconds: 1.0,
            messages: 100,
            bytes: 100 << 19,
            ow_p5: Some(1e3),
            ow_p25: Some(2e3),
            ow_p50: Some(3e3),
            ow_p75: Some(4e3),
            ow_p95: Some(9e3),
            ..Run::default()
        };
        let runs = [
            run("loop size=512K actors=128 rtt=1", "disterl"),
            run("loop size=512K actors=128 rtt=1", "ours-4x16"),
            run("loop size=512K actors=128 sweep=yes", "ours-1"),
            run("loop size=512K actors=128 sweep=yes", "ours-16"),
        ];
        let dir = std::env::temp_dir().join(format!("partisan-bench-plots-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let files = draw(&runs, &dir).unwrap();
        assert_eq!(
            files,
            [
                "latency-512K-1ms.svg",
                "connections-512K-0ms.svg",
                "throughput-1ms.svg"
            ]
        );
        for file in files {
            let svg = std::fs::read_to_string(dir.join(file)).unwrap();
            assert!(svg.contains("</svg>") && svg.len() > 2000);
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
