//! `bars.md`: what was to be reached and what was. The bars are in `bars.toml`.

use std::fmt::Write;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::contestant::Contestant;
use crate::meta::Meta;
use crate::point::Point;
use crate::record::Run;
use crate::stats::{Metric, Spread, paired, runs_of, spread};
use crate::summary::{REFERENCE, contestants, points, with_range};
use crate::table::{Table, short};

/// How much better than lasp-lang/partisan's better setting every point has to be.
const OVER_UPSTREAM: f64 = 1.15;
/// Of the emulator's ceiling: as good as it gets.
const OF_CEILING: f64 = 0.85;
/// `queue_bytes`, the default.
const QUEUE_BYTES: u64 = 16 << 20;

/// The file of the bars.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bars {
    pub(crate) bar: Vec<Bar>,
}

/// What a point has to reach.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bar {
    pub(crate) point: String,
    pub(crate) ours: Vec<String>,
    criteria: Vec<Criterion>,
    #[serde(default)]
    any: bool,
    or_ceiling: Option<f64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Criterion {
    metric: Metric,
    #[serde(default = "reference")]
    versus: String,
    at_least: Option<f64>,
    at_most: Option<f64>,
    stretch: Option<f64>,
}

fn reference() -> String {
    REFERENCE.to_owned()
}

/// The bars of this benchmark.
pub(crate) fn bars() -> Result<Bars> {
    parse(include_str!("../bars.toml"))
}

fn parse(text: &str) -> Result<Bars> {
    let bars: Bars = toml::from_str(text).context("bars.toml")?;
    for bar in &bars.bar {
        let point: Point = bar.point.parse()?;
        ensure!(
            point.to_string() == bar.point,
            "write {:?} as {point}",
            bar.point
        );
        ensure!(!bar.ours.is_empty(), "{}: who?", bar.point);
        for name in &bar.ours {
            name.parse::<Contestant>()?;
        }
        for criterion in &bar.criteria {
            let bounds = [criterion.at_least, criterion.at_most];
            let one = bounds.iter().flatten().count() == 1;
            ensure!(one, "{}: at_least or at_most", bar.point);
        }
    }
    Ok(bars)
}

impl Bar {
    /// Whom ours is compared with.
    pub(crate) fn references(&self) -> Vec<&str> {
        let names = self.criteria.iter().map(|c| c.versus.as_str());
        names.filter(|n| !["best", "nothing"].contains(n)).collect()
    }
}

/// What came of a criterion.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Judgement {
    ratio: Spread,
    met: bool,
    stretch: bool,
}

impl Criterion {
    fn text(&self) -> String {
        let bound = match (self.at_least, self.at_most) {
            (Some(bound), _) => format!("≥ {}", short(bound)),
            (_, Some(bound)) => format!("≤ {}", short(bound)),
            _ => String::new(),
        };
        let versus = match self.versus.as_str() {
            REFERENCE => "×".to_owned(),
            "nothing" => String::new(),
            other => format!("× {other}"),
        };
        format!("{} {bound} {versus}", self.metric.name())
            .trim_end()
            .to_owned()
    }

    fn judge(&self, runs: &[Run], point: &str, ours: &str) -> Option<Judgement> {
        let ratio = match self.versus.as_str() {
            "nothing" => spread(runs, point, ours, self.metric),
            "best" => over_best(runs, point, ours, self.metric),
            other => paired(runs, point, ours, other, self.metric),
        }?;
        let holds = |bound: f64| {
            if self.at_least.is_some() {
                ratio.median >= bound
            } else {
                ratio.median <= bound
            }
        };
        Some(Judgement {
            ratio,
            met: self.at_least.or(self.at_most).is_some_and(holds),
            stretch: self.stretch.is_some_and(holds),
        })
    }
}

/// The ratio to the best setting of ours in the same repetition, itself included.
fn over_best(runs: &[Run], point: &str, ours: &str, metric: Metric) -> Option<Spread> {
    let ratios = runs_of(runs, point, ours).filter_map(|run| {
        let others = runs.iter().filter(|r| {
            let same = r.is_good() && r.point == point && r.repetition == run.repetition;
            same && r.contestant.starts_with("ours-")
        });
        let best = others.filter_map(|r| metric.of(r)).reduce(f64::max)?;
        Some(metric.of(run)? / best)
    });
    Spread::of(ratios)
}

/// How a bar came out, with the setting that counts.
#[derive(Clone, Debug)]
struct Verdict<'a> {
    ours: &'a str,
    judgements: Vec<Option<Judgement>>,
    /// Throughput over the emulator's.
    of_ceiling: Option<f64>,
    word: &'static str,
}

fn verdict<'a>(bar: &'a Bar, runs: &[Run], meta: &Meta) -> Option<Verdict<'a>> {
    let verdicts = bar.ours.iter().map(|ours| judge(bar, ours, runs, meta));
    verdicts
        .filter(|v| v.judgements.iter().any(Option::is_some))
        .max_by(|x, y| {
            let met = |v: &Verdict<'_>| v.judgements.iter().flatten().filter(|j| j.met).count();
            let first = |v: &Verdict<'_>| {
                let ratio = v.judgements[0].map_or(0.0, |j| j.ratio.median);
                match bar.criteria[0].at_least {
                    Some(_) => ratio,
                    None => -ratio,
                }
            };
            (met(x).cmp(&met(y))).then(first(x).total_cmp(&first(y)))
        })
}

fn judge<'a>(bar: &'a Bar, ours: &'a str, runs: &[Run], meta: &Meta) -> Verdict<'a> {
    let of = |criterion: &Criterion| criterion.judge(runs, &bar.point, ours);
    let judgements: Vec<Option<Judgement>> = bar.criteria.iter().map(of).collect();
    let of_ceiling = of_ceiling(&bar.point, ours, runs, meta);
    let holds = |j: &Option<Judgement>| j.is_some_and(|j| j.met);
    let criteria = if bar.any {
        judgements.iter().any(holds)
    } else {
        judgements.iter().all(holds)
    };
    let full = match (bar.or_ceiling, of_ceiling) {
        (Some(wanted), Some(reached)) => reached >= wanted,
        _ => false,
    };
    let stretched = bar
        .criteria
        .iter()
        .zip(&judgements)
        .filter(|(c, _)| c.stretch.is_some());
    let mut stretched = stretched
        .map(|(_, j)| j.is_some_and(|j| j.stretch))
        .peekable();
    let stretch = stretched.peek().is_some() && stretched.all(|s| s);
    let word = match (criteria, full, judgements.iter().all(Option::is_some)) {
        (true, _, _) if stretch => "met, stretch too",
        (true, _, _) => "met",
        (_, true, _) => "met by the ceiling",
        (_, _, false) => "not measured",
        _ => "**missed**",
    };
    Verdict {
        ours,
        judgements,
        of_ceiling,
        word,
    }
}

fn of_ceiling(point: &str, contestant: &str, runs: &[Run], meta: &Meta) -> Option<f64> {
    let parsed: Point = point.parse().ok()?;
    let ceiling = meta.ceiling_mb_s(&parsed)?;
    Some(spread(runs, point, contestant, Metric::Megabytes)?.median / ceiling)
}

/// The whole file.
pub(crate) fn report(runs: &[Run], meta: &Meta) -> Result<String> {
    let bars = bars()?;
    let mut table = Table::new(&[
        "point",
        "criterion",
        "ours",
        "figure",
        "disterl",
        "ratio (min–max)",
        "pairs",
        "met",
        "of ceiling",
        "bar",
    ]);
    let mut count = (0, 0);
    for bar in &bars.bar {
        let Some(verdict) = verdict(bar, runs, meta) else {
            continue;
        };
        count.0 += u32::from(verdict.word.starts_with("met"));
        count.1 += 1;
        for (i, (criterion, judgement)) in bar.criteria.iter().zip(&verdict.judgements).enumerate()
        {
            let figure = |name: &str| {
                let figure = spread(runs, &bar.point, name, criterion.metric);
                figure.map_or_else(String::new, |s| short(s.median))
            };
            let against = match criterion.versus.as_str() {
                "best" | "nothing" => REFERENCE,
                other => other,
            };
            let first = |text: String| if i == 0 { text } else { String::new() };
            let share = verdict.of_ceiling.map_or_else(String::new, short);
            let own = match judgement {
                Some(j) if j.met => "yes",
                Some(_) => "no",
                None => "?",
            };
            table.row(vec![
                first(bar.point.clone()),
                criterion.text(),
                first(verdict.ours.to_owned()),
                figure(verdict.ours),
                figure(against),
                with_range(judgement.map(|j| j.ratio)),
                judgement.map_or_else(String::new, |j| j.ratio.n.to_string()),
                own.to_owned(),
                first(share),
                first(verdict.word.to_owned()),
            ]);
        }
    }
    let mut text = String::from("# Bars\n\n");
    let _ = writeln!(
        text,
        "{}\n{} of {} measured bars are met. Figures are medians; ratios are medians of the ratios within \
         each repetition. Latencies are in microseconds.\n\n{}",
        meta.header(),
        count.0,
        count.1,
        table.text()
    );
    text.push_str(&over_upstream(&bars, runs, meta));
    text.push_str(&queues(runs));
    Ok(text)
}

/// Every point against the better setting of lasp-lang/partisan.
fn over_upstream(bars: &Bars, runs: &[Run], meta: &Meta) -> String {
    let mut table = Table::new(&[
        "point",
        "ours",
        "metric",
        "better upstream",
        "ratio",
        "verdict",
    ]);
    for bar in &bars.bar {
        let (Some(verdict), Some(criterion)) = (verdict(bar, runs, meta), bar.criteria.first())
        else {
            continue;
        };
        let names = contestants(runs, &bar.point);
        let upstream = names.iter().filter(|n| n.starts_with("upstream-"));
        // Above 1 is better, whatever the metric.
        let gain = |name: &str| {
            let ratio = paired(runs, &bar.point, verdict.ours, name, criterion.metric)?.median;
            Some(if criterion.at_least.is_some() {
                ratio
            } else {
                1.0 / ratio
            })
        };
        let gains = upstream.filter_map(|name| Some((gain(name)?, *name)));
        let Some((gain, name)) = gains.reduce(|x, y| if x.0 < y.0 { x } else { y }) else {
            continue;
        };
        let full = verdict.of_ceiling.is_some_and(|share| share >= OF_CEILING);
        let word = match (gain >= OVER_UPSTREAM, full) {
            (true, _) => "met",
            (_, true) => "met by the ceiling",
            _ => "**missed**",
        };
        table.row(vec![
            bar.point.clone(),
            verdict.ours.to_owned(),
            criterion.metric.name().to_owned(),
            name.to_owned(),
            short(gain),
            word.to_owned(),
        ]);
    }
    if table.is_empty() {
        return "lasp-lang/partisan was not measured: PARTISAN_UPSTREAM was not set.\n\n"
            .to_owned();
    }
    format!(
        "## Against lasp-lang/partisan: ≥ {OVER_UPSTREAM} × its better setting\n\n{}\n",
        table.text()
    )
}

/// Queues in any run, and memory.
fn queues(runs: &[Run]) -> String {
    let mut table = Table::new(&["point", "contestant", "most queued", "allowed", "verdict"]);
    let mut checked = 0;
    let mut memory: f64 = 0.0;
    for run in runs.iter().filter(|r| r.is_good()) {
        memory = memory.max(run.peak_a_mb).max(run.peak_b_mb);
        let Ok(contestant) = run.contestant.parse::<Contestant>() else {
            continue;
        };
        let (Some(queued), Ok(point)) = (run.queued, run.point.parse::<Point>()) else {
            continue;
        };
        checked += 1;
        let allowed = contestant.connections() * (QUEUE_BYTES + point.size as u64 + 1024);
        if queued > allowed {
            table.row(vec![
                run.point.clone(),
                run.contestant.clone(),
                queued.to_string(),
                allowed.to_string(),
                "**missed**".to_owned(),
            ]);
        }
    }
    let mut text = String::from("## Queued bytes and memory\n\n");
    let _ = writeln!(
        text,
        "Queues were looked at every 10 ms in {checked} runs at {} points; the most that an end ever had \
         resident is {} MB.\n",
        points(runs).len(),
        short(memory)
    );
    if table.is_empty() {
        text.push_str(
            "No queue held more than its budget and one message on each connection: met.\n",
        );
    } else {
        text.push_str(&table.text());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::tests::run;

    fn bar(text: &str) -> Bar {
        let text = format!("[[bar]]\npoint = \"idle size=64\"\n{text}");
        parse(&text).unwrap().bar.remove(0)
    }

    fn runs(list: &[(&str, u64, u64)]) -> Vec<Run> {
        let one = |(name, rate, cpu): &(&str, u64, u64)| Run {
            point: "idle size=64".into(),
            ..run(name, 0, *rate, *cpu)
        };
        list.iter().map(one).collect()
    }

    fn word(bar: &Bar, runs: &[Run]) -> Option<&'static str> {
        verdict(bar, runs, &Meta::default()).map(|v| v.word)
    }

    #[test]
    fn the_bars_are_well_formed() {
        assert!(bars().unwrap().bar.len() > 25);
    }

    #[test]
    fn all_criteria_must_hold_for_one_setting() {
        let bar = bar("ours = [\"ours-1\", \"ours-16\"]\ncriteria = [\
             {metric = \"rate\", at_least = 2.0, stretch = 4.0}, \
             {metric = \"cpu_per_message\", at_most = 0.5}]");
        let disterl = ("disterl", 100, 10);
        assert_eq!(word(&bar, &runs(&[disterl])), None);
        let met = runs(&[disterl, ("ours-1", 200, 5)]);
        assert_eq!(word(&bar, &met), Some("met"));
        let stretch = runs(&[disterl, ("ours-1", 500, 5)]);
        assert_eq!(word(&bar, &stretch), Some("met, stretch too"));
        // One is fast, the other one cheap.
        let split = runs(&[disterl, ("ours-1", 900, 9), ("ours-16", 100, 1)]);
        assert_eq!(word(&bar, &split), Some("**missed**"));
    }

    #[test]
    fn figures_may_stand_for_themselves() {
        let bar = bar("ours = [\"rust-rust-1\"]\ncriteria = [\
             {metric = \"rate\", versus = \"nothing\", at_least = 1000.0}, \
             {metric = \"rate\", versus = \"tcp-1\", at_least = 0.7}]");
        let both = runs(&[("rust-rust-1", 1500, 1), ("tcp-1", 2000, 1)]);
        assert_eq!(word(&bar, &both), Some("met"));
        let alone = runs(&[("rust-rust-1", 1500, 1)]);
        assert_eq!(word(&bar, &alone), Some("not measured"));
    }

    #[test]
    fn a_sweep_is_against_its_best() {
        let bar = bar("ours = [\"ours-128\"]\ncriteria = [\
             {metric = \"rate\", versus = \"best\", at_least = 0.85}]");
        let flat = runs(&[("ours-128", 90, 1), ("ours-1", 100, 1), ("tcp-1", 999, 1)]);
        assert_eq!(word(&bar, &flat), Some("met"));
        let steep = runs(&[("ours-128", 80, 1), ("ours-1", 100, 1)]);
        assert_eq!(word(&bar, &steep), Some("**missed**"));
    }

    #[test]
    fn wrong_bars_are_refused() {
        for text in [
            "ours = []\ncriteria = []",
            "ours = [\"they\"]\ncriteria = []",
            "ours = [\"ours-1\"]\ncriteria = [{metric = \"rate\"}]",
            "ours = [\"ours-1\"]\ncriteria = [{metric = \"beauty\", at_least = 1.0}]",
        ] {
            let text = format!("[[bar]]\npoint = \"idle size=64\"\n{text}");
            assert!(parse(&text).is_err(), "{text}");
        }
    }
}
