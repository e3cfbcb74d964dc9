//! `partisan sim`: a scenario of simulated nodes.

use std::path::PathBuf;

use clap::Args;
use partisan::sim::{self, Scenario, Settings};

use crate::failure::{Cause, Failure};

/// What `partisan sim` may be told.
#[derive(Debug, Args)]
pub(crate) struct SimArgs {
    /// The scenario, a file in TOML (see docs/simulator.md; test/scenarios has some).
    #[arg(value_name = "SCENARIO")]
    scenario: PathBuf,
    /// The first seed. Default: the scenario's.
    #[arg(long)]
    seed: Option<u64>,
    /// Run so many seeds, one after the other. Default: the scenario's number.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// Threads, each of which runs one seed at a time.
    #[arg(long, value_name = "N", default_value = "1")]
    jobs: usize,
    /// Write edge lists of the measured graphs, SVG plots, the table and the JSON to this directory.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Runs the scenario.
pub(crate) fn run(args: &SimArgs, as_json: bool) -> Result<String, Failure> {
    let path = &args.scenario;
    let text = std::fs::read_to_string(path).map_err(|error| {
        let what = format!("can not read {}: {error}", path.display());
        Failure::new(Cause::Usage, what)
    })?;
    let told = |error: sim::ScenarioError| {
        Failure::new(Cause::Usage, format!("{}: {error}", path.display()))
    };
    let scenario = Scenario::parse(&text).map_err(told)?;
    let write = |name: &str, text: &str| match &args.out {
        None => Ok(()),
        Some(dir) => std::fs::write(dir.join(name), text).map_err(|error| {
            let what = format!("can not write to {}: {error}", dir.display());
            Failure::new(Cause::Usage, what)
        }),
    };
    if let Some(dir) = &args.out {
        std::fs::create_dir_all(dir).map_err(|error| {
            let what = format!("can not make {}: {error}", dir.display());
            Failure::new(Cause::Usage, what)
        })?;
    }
    let (seed, seeds) = scenario.seeds();
    let settings = Settings {
        seed: args.seed.unwrap_or(seed),
        seeds: args.seeds.unwrap_or(seeds),
        jobs: args.jobs,
        out: args.out.as_deref(),
        progress: |line| eprintln!("{line}"),
    };
    let report = sim::run(&scenario, &settings).map_err(told)?;
    let table = report.table();
    let json = report.json();
    write("report.txt", &table)?;
    write("report.json", &format!("{json:#}"))?;
    if let Some(dir) = &args.out {
        let plotted = report.plot(dir);
        plotted.map_err(|error| Failure::from_error(Cause::Other, &*error))?;
    }
    let answer = if as_json { json.to_string() } else { table };
    if report.holds() {
        return Ok(answer);
    }
    println!("{answer}");
    let what = match report.violations() {
        0 => "the scenario's expectations do not hold".to_owned(),
        count => format!("invariants were broken {count} times"),
    };
    Err(Failure::new(Cause::Unexpected, what))
}
