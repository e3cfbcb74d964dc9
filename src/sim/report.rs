//! Runs a scenario with all its seeds and variants, and tells what came of it.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::{Value as Json, json};

use super::figures::{self, Figures};
use super::graph::Graph;
use super::protocols::Chosen;
use super::scenario::{Expect, Over, Phase, Scenario, ScenarioError, Variant};
use super::workload::SeedResult;

/// What came of a scenario.
#[derive(Clone, Debug)]
pub struct Report {
    pub(crate) scenario: Scenario,
    pub(crate) variants: Vec<VariantReport>,
    checks: Vec<Check>,
    seconds: f64,
}

#[derive(Clone, Debug)]
pub(crate) struct VariantReport {
    pub(crate) name: String,
    pub(crate) runs: Vec<SeedResult>,
}

/// An expectation and what was seen.
#[derive(Clone, Debug)]
struct Check {
    what: String,
    value: f64,
    holds: bool,
}

/// Mean, least and most over the seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) mean: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Option<Self> {
        let first = *values.first()?;
        Some(Self {
            mean: values.iter().sum::<f64>() / values.len() as f64,
            least: values.iter().copied().fold(first, f64::min),
            most: values.iter().copied().fold(first, f64::max),
        })
    }
}

impl VariantReport {
    /// A figure of a phase, of each seed that has it.
    fn values(&self, phase: usize, figure: &str) -> Vec<f64> {
        let all = self.runs.iter().filter_map(|run| run.phases.get(phase));
        all.filter_map(|phase| phase.figures.get(figure).copied())
            .collect()
    }

    pub(crate) fn spread(&self, phase: usize, figure: &str) -> Option<Spread> {
        Spread::of(&self.values(phase, figure))
    }
}

/// How a scenario is run.
#[derive(Clone, Debug)]
pub struct Settings<'a> {
    /// The first seed.
    pub seed: u64,
    /// The number of seeds.
    pub seeds: u64,
    /// Threads, each of which runs one seed at a time.
    pub jobs: usize,
    /// Where edge lists go, if anywhere.
    pub out: Option<&'a Path>,
    /// Told of each run that has ended.
    pub progress: fn(&str),
}

/// Runs a scenario.
pub fn run(scenario: &Scenario, settings: &Settings<'_>) -> Result<Report, ScenarioError> {
    let began = Instant::now();
    let as_it_is = [Variant {
        name: String::new(),
        overlay: toml::Table::new(),
        broadcast: toml::Table::new(),
    }];
    let variants = match &scenario.variant[..] {
        [] => &as_it_is[..],
        all => all,
    };
    let mut chosen = Vec::new();
    for variant in variants {
        let over = |base: &toml::Table, changes: &toml::Table| {
            // Another protocol has other keys.
            let mut table = match changes.get("protocol") == base.get("protocol")
                || !changes.contains_key("protocol")
            {
                true => base.clone(),
                false => toml::Table::new(),
            };
            table.extend(changes.clone());
            table
        };
        chosen.push(Chosen::new(
            over(&scenario.overlay, &variant.overlay),
            over(&scenario.broadcast, &variant.broadcast),
        )?);
    }
    let seeds = settings.seeds as usize;
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Result<SeedResult, ScenarioError>)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..settings.jobs.clamp(1, seeds * variants.len()) {
            scope.spawn(|| {
                loop {
                    let job = next.fetch_add(1, Ordering::Relaxed);
                    let Some(variant) = variants.get(job / seeds) else {
                        break;
                    };
                    let seed = settings.seed + (job % seeds) as u64;
                    let result = one(scenario, variant, chosen[job / seeds], seed, settings);
                    let mut done = done.lock().unwrap_or_else(|poison| poison.into_inner());
                    done.push((job, result));
                }
            });
        }
    });
    let mut done = done
        .into_inner()
        .unwrap_or_else(|poison| poison.into_inner());
    done.sort_by_key(|(job, _)| *job);
    let mut reports: Vec<VariantReport> = variants
        .iter()
        .map(|variant| VariantReport {
            name: variant.name.clone(),
            runs: Vec::new(),
        })
        .collect();
    for (job, result) in done {
        reports[job / seeds].runs.push(result?);
    }
    let mut report = Report {
        scenario: scenario.clone(),
        variants: reports,
        checks: Vec::new(),
        seconds: began.elapsed().as_secs_f64(),
    };
    for expect in &scenario.expect {
        report.expect(expect);
    }
    Ok(report)
}

fn one(
    scenario: &Scenario,
    variant: &Variant,
    chosen: Chosen,
    seed: u64,
    settings: &Settings<'_>,
) -> Result<SeedResult, ScenarioError> {
    let began = Instant::now();
    let mut failed = None;
    let mut dump = |phase: &Phase, graph: &Graph, nodes: &[u32], figures: &Figures| {
        let Some(dir) = settings.out else {
            return;
        };
        let label = [&*variant.name, &*phase.name].join(" ");
        let label = label
            .trim()
            .replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let path = dir.join(format!("edges-{label}-{seed}.txt"));
        if let Err(error) = std::fs::write(&path, edges(graph, nodes, figures)) {
            failed = Some(ScenarioError::Write {
                path: path.display().to_string(),
                error: error.to_string(),
            });
        }
    };
    let result = chosen.run(scenario, seed, &mut dump);
    if let Some(error) = failed {
        return Err(error);
    }
    let seconds = began.elapsed().as_secs_f64();
    let rate = result.events as f64 / seconds / 1e6;
    (settings.progress)(&format!(
        "{} {} seed {seed}: {} events in {seconds:.1} s ({rate:.1} million/s), {} violations",
        scenario.name, variant.name, result.events, result.violation_count
    ));
    Ok(result)
}

// The edges of a graph, and its figures for a program that counts again.
fn edges(graph: &Graph, nodes: &[u32], figures: &Figures) -> String {
    let mut text = String::new();
    for name in [
        "clustering",
        "path_mean",
        "path_longest",
        "components",
        "degree_mean",
    ] {
        if let Some(value) = figures.get(name) {
            let _ = writeln!(text, "# {name} {value:?}");
        }
    }
    for (vertex, node) in nodes.iter().enumerate() {
        let _ = writeln!(text, "{node}");
        for other in graph.neighbors(vertex) {
            if *other as usize > vertex {
                let _ = writeln!(text, "{node} {}", nodes[*other as usize]);
            }
        }
    }
    text
}

impl Report {
    fn expect(&mut self, expect: &Expect) {
        let phase = self.scenario.phase.iter();
        let phase = phase.take_while(|p| p.name != expect.phase).count();
        let base = expect.relative_to.as_ref();
        let base = base.and_then(|name| self.variants.iter().find(|v| v.name == *name));
        let mut checks = Vec::new();
        for variant in &self.variants {
            if expect
                .variant
                .as_ref()
                .is_some_and(|name| *name != variant.name)
            {
                continue;
            }
            let mut values = variant.values(phase, &expect.figure);
            if let Some(base) = base {
                let bases = base.values(phase, &expect.figure);
                for (value, base) in values.iter_mut().zip(bases) {
                    *value /= base;
                }
            }
            let spread = Spread::of(&values);
            let (low, high) = match (expect.over, spread) {
                (_, None) => (f64::NAN, f64::NAN),
                (Over::Each, Some(spread)) => (spread.least, spread.most),
                (Over::Mean, Some(spread)) => (spread.mean, spread.mean),
            };
            let mut what = [&*variant.name, &*expect.phase, &*expect.figure].join(" ");
            if let Some(base) = &expect.relative_to {
                what.push_str(&format!(" / {base}"));
            }
            if expect.over == Over::Mean {
                what.push_str(" (mean)");
            }
            let what = what.trim();
            if let Some(limit) = expect.at_least {
                checks.push(Check {
                    what: format!("{what} >= {limit}"),
                    value: low,
                    holds: low >= limit,
                });
            }
            if let Some(limit) = expect.at_most {
                checks.push(Check {
                    what: format!("{what} <= {limit}"),
                    value: high,
                    holds: high <= limit,
                });
            }
        }
        self.checks.append(&mut checks);
    }

    /// Whether all expectations hold and no invariant is broken.
    pub fn holds(&self) -> bool {
        self.checks.iter().all(|check| check.holds) && self.violations() == 0
    }

    /// Invariants broken, in all runs.
    pub fn violations(&self) -> u64 {
        let runs = self.variants.iter().flat_map(|variant| &variant.runs);
        runs.map(|run| run.violation_count).sum()
    }

    /// One number for all that was delivered in all runs.
    pub fn digest(&self) -> u64 {
        let runs = self.variants.iter().flat_map(|variant| &variant.runs);
        runs.fold(0, |digest: u64, run| digest.rotate_left(7) ^ run.digest)
    }

    fn node_hours(&self) -> f64 {
        let runs = self.variants.iter().flat_map(|variant| &variant.runs);
        runs.map(|run| run.node_hours).sum()
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let mut text = format!("{}: {} nodes\n", self.scenario.name, self.scenario.nodes);
        for variant in &self.variants {
            for (number, phase) in self.scenario.phase.iter().enumerate() {
                let _ = writeln!(
                    text,
                    "\n{}",
                    [&*variant.name, &*phase.name].join(" ").trim()
                );
                for (name, meaning) in figures::ALL {
                    let Some(spread) = variant.spread(number, name) else {
                        continue;
                    };
                    let mut range = String::new();
                    if spread.least != spread.most {
                        range = format!("{}…{}", short(spread.least), short(spread.most));
                    }
                    let mean = short(spread.mean);
                    let _ = writeln!(text, "  {name:<18} {mean:>12}  {range:<23} {meaning}");
                }
            }
            for run in variant.runs.iter().filter(|run| run.violation_count > 0) {
                let _ = writeln!(text, "\nseed {} breaks invariants:", run.seed);
                for violation in &run.violations {
                    let _ = writeln!(text, "  {violation}");
                }
            }
        }
        if !self.checks.is_empty() {
            text.push_str("\nexpected\n");
        }
        for check in &self.checks {
            let mark = if check.holds { "ok  " } else { "FAIL" };
            let _ = writeln!(text, "  {mark} {}: {}", check.what, short(check.value));
        }
        let runs: usize = self.variants.iter().map(|v| v.runs.len()).sum();
        let _ = writeln!(
            text,
            "\n{runs} runs in {:.1} s, {} node hours, {} violations",
            self.seconds,
            short(self.node_hours()),
            self.violations()
        );
        let _ = write!(text, "digest: {:016x}", self.digest());
        text
    }

    /// The same for programs.
    pub fn json(&self) -> Json {
        let phases = |variant: &VariantReport| -> Vec<Json> {
            let one = |(number, phase): (usize, &Phase)| {
                let mut figures = serde_json::Map::new();
                for (name, _) in figures::ALL {
                    if let Some(spread) = variant.spread(number, name) {
                        let values = variant.values(number, name);
                        let spread = json!({"mean": spread.mean, "min": spread.least, "max": spread.most, "seeds": values});
                        figures.insert(name.into(), spread);
                    }
                }
                let degrees = variant.runs.iter().map(|run| &run.phases[number].degrees);
                json!({"phase": phase.name, "figures": figures, "degrees": degrees.collect::<Vec<_>>()})
            };
            self.scenario.phase.iter().enumerate().map(one).collect()
        };
        let variant = |variant: &VariantReport| {
            let run = |run: &SeedResult| {
                let violations = run.violations.iter().map(|v| v.to_string());
                json!({
                    "seed": run.seed, "digest": format!("{:016x}", run.digest), "events": run.events,
                    "violations": run.violation_count, "first_violations": violations.collect::<Vec<_>>(),
                })
            };
            json!({
                "variant": variant.name, "phases": phases(variant),
                "runs": variant.runs.iter().map(run).collect::<Vec<_>>(),
            })
        };
        let check = |check: &Check| json!({"expected": check.what, "value": check.value, "holds": check.holds});
        json!({
            "scenario": self.scenario.name, "nodes": self.scenario.nodes, "digest": format!("{:016x}", self.digest()),
            "seconds": self.seconds, "node_hours": self.node_hours(), "violations": self.violations(),
            "holds": self.holds(), "expected": self.checks.iter().map(check).collect::<Vec<_>>(),
            "variants": self.variants.iter().map(variant).collect::<Vec<_>>(),
        })
    }
}

// Four significant digits.
fn short(value: f64) -> String {
    let size = value.abs();
    if value == value.trunc() && size < 1e12 {
        return format!("{value}");
    }
    match size {
        1000.0.. => format!("{value:.0}"),
        0.001.. => {
            let digits = 3 - size.log10().floor() as i32;
            format!("{value:.*}", digits.max(0) as usize)
        }
        _ => format!("{value:.2e}"),
    }
}
