//! The command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::contestant::{Contestant, parse_list};
use crate::pair::repository;
use crate::point::Point;
use crate::record::Store;
use crate::run::QUICK_TARGET;
use crate::session::{Outcome, Settings, Task, run_all};
use crate::{children, process, summary};

/// Measures Partisan beside Distributed Erlang and others. Delivery is verified in every run.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One point, for development.
    ///
    /// POINT is `flood size=64 senders=1`, `loop size=512K actors=16 rtt=1`, `idle`, or
    /// `hol streams=4 channel=same rtt=1 rate=1gbit`.
    Point {
        /// What is measured. May be given more than once.
        #[arg(required = true)]
        points: Vec<Point>,
        /// Who is measured: disterl, disterl+zdbbl, ours-N, ours-4x16, beam-rust-N, rust-rust-N,
        /// tcp-N, upstream-N; `@key=value` sets the node's configuration, `@build=DIR` takes
        /// another checkout.
        #[arg(long, short, default_value = "disterl,ours-1")]
        contestants: String,
        /// Repetitions of each contestant.
        #[arg(long, short, default_value_t = 5)]
        pairs: u32,
        /// Milliseconds that a run should take.
        #[arg(long, default_value_t = 1000)]
        ms: u64,
    },
    /// The points on loopback that the bars name, in short runs.
    Quick(#[command(flatten)] Where),
    /// Rebuilds tables and plots from a directory's runs.csv.
    Report {
        /// The directory.
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Where {
    /// Directory of the results; a run that was interrupted goes on. Default: bench/results/NAME.
    #[arg(long)]
    results: Option<PathBuf>,
    /// Repetitions of each contestant.
    #[arg(long, default_value_t = 5)]
    pairs: u32,
}

/// Runs the program; `Ok(false)` if a run failed.
pub(crate) fn run() -> Result<bool> {
    children::end_on_signals()?;
    match Cli::parse().command {
        Command::Point {
            points,
            contestants,
            pairs,
            ms,
        } => {
            let contestants = parse_list(&contestants)?;
            point(points, &contestants, pairs, Duration::from_millis(ms))
        }
        Command::Quick(place) => {
            let dir = place.results.unwrap_or_else(|| results("quick"));
            let tasks = quick(place.pairs)?;
            campaign(&dir, &tasks, QUICK_TARGET)
        }
        Command::Report { dir } => {
            report(&dir, &Outcome::default())?;
            Ok(true)
        }
    }
}

fn results(name: &str) -> PathBuf {
    repository().join("bench/results").join(name)
}

fn point(
    points: Vec<Point>,
    contestants: &[Contestant],
    pairs: u32,
    target: Duration,
) -> Result<bool> {
    let dir = std::env::temp_dir().join(format!("partisan-bench-{}", std::process::id()));
    let tasks: Vec<Task> = points
        .into_iter()
        .map(|point| Task {
            point,
            contestants: contestants.to_vec(),
            repetitions: pairs,
        })
        .collect();
    let mut store = Store::open(&dir)?;
    let settings = Settings {
        scratch: dir.clone(),
        target,
    };
    let outcome = run_all(&tasks, &mut store, &settings)?;
    for point in summary::points(store.runs()) {
        println!("\n{point}\n{}", summary::point_table(store.runs(), point));
    }
    println!("load average {:.1}", process::load());
    let _ = std::fs::remove_dir_all(&dir);
    Ok(outcome.failures == 0)
}

fn quick(pairs: u32) -> Result<Vec<Task>> {
    let points = [
        "flood size=64 senders=1",
        "flood size=64 senders=64",
        "flood size=1K senders=1",
        "idle size=64",
        "loop size=64 actors=16",
        "loop size=64 actors=128",
        "loop size=64K actors=16",
        "loop size=512K actors=16",
        "loop size=8M actors=1",
        "loop size=8M actors=16",
        "hol streams=1",
        "hol streams=4",
        "hol streams=4 channel=same",
    ];
    points
        .iter()
        .map(|text| {
            Ok(Task {
                point: text.parse()?,
                contestants: parse_list("disterl,ours-1")?,
                repetitions: pairs,
            })
        })
        .collect()
}

fn campaign(dir: &Path, tasks: &[Task], target: Duration) -> Result<bool> {
    let mut store = Store::open(dir)?;
    let settings = Settings {
        scratch: dir.join("scratch"),
        target,
    };
    let outcome = run_all(tasks, &mut store, &settings)?;
    report(dir, &outcome)?;
    Ok(outcome.failures == 0)
}

fn report(dir: &Path, outcome: &Outcome) -> Result<()> {
    let store = Store::open(dir)?;
    let header = format!(
        "{}; OTP {}; load average {:.1}; congestion control {}\n",
        process::machine(),
        outcome.otp,
        process::load(),
        outcome.congestion
    );
    let text = summary::summary(store.runs(), &header);
    std::fs::write(dir.join("summary.md"), text)?;
    println!("{}", dir.join("summary.md").display());
    Ok(())
}
