//! The command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::contestant::{Contestant, parse_list};
use crate::meta::Meta;
use crate::pair::repository;
use crate::point::{Point, Site};
use crate::record::Store;
use crate::run::{QUICK_TARGET, TARGET};
use crate::session::{Settings, Task, run_all};
use crate::{bars, children, plan, plots, process, rust_end, stock, summary, swarm};

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
    /// The points on loopback that the bars name, in short runs: under 5 minutes.
    Quick(#[command(flatten)] Where),
    /// All points that the bars name: under an hour.
    Bars(#[command(flatten)] Where),
    /// Everything; goes on where it was interrupted.
    Matrix {
        /// Directory of the results. Default: bench/results/matrix.
        #[arg(long)]
        results: Option<PathBuf>,
        /// Repetitions of each contestant.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=5))]
        repetitions: u32,
    },
    /// Messages per second by Distributed Erlang with stock nodes, beside `erl_dist`.
    Stock {
        /// Payload sizes in bytes.
        #[arg(long, value_delimiter = ',', default_value = "64,1024")]
        sizes: Vec<usize>,
        /// Numbers of senders.
        #[arg(long, value_delimiter = ',', default_value = "1,16")]
        senders: Vec<usize>,
        /// Repetitions of each contestant.
        #[arg(long, short, default_value_t = 9)]
        pairs: u32,
        /// Milliseconds that a run should take.
        #[arg(long, default_value_t = 700)]
        ms: u64,
        /// Only those whose group and name contain this: `to-beam`, `to-raw ours`.
        #[arg(long, default_value = "")]
        only: String,
    },
    /// A thousand Rust nodes in a HyParView overlay, of which a third is killed.
    Swarm {
        /// Nodes.
        #[arg(long, default_value_t = 1024)]
        nodes: usize,
        /// Processes that they are in.
        #[arg(long, default_value_t = 16)]
        processes: usize,
        /// Processes that are killed.
        #[arg(long, default_value_t = 5)]
        kill: usize,
        /// Decides who joins whom.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Milliseconds between shuffles.
        #[arg(long, default_value_t = 10_000)]
        shuffle: u64,
        /// Seconds for which the idle nodes are watched.
        #[arg(long, default_value_t = 30)]
        idle: u64,
    },
    /// A process of `swarm`.
    #[command(hide = true)]
    SwarmMember {
        /// Number of its first node.
        first: usize,
        /// How many nodes.
        count: usize,
        /// Milliseconds between shuffles.
        shuffle: u64,
    },
    /// An end of `stock` in Rust.
    #[command(hide = true)]
    StockEnd {
        /// Which.
        kind: String,
        /// The node's name.
        name: String,
        /// Where it listens.
        listen: std::net::SocketAddr,
        /// Where the others listen, `NAME=ADDRESS`.
        peers: Vec<String>,
    },
    /// An end in Rust, which the driver starts and tells what to do.
    #[command(hide = true)]
    RustEnd {
        /// The node's name.
        name: String,
    },
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
    let command = Cli::parse().command;
    match &command {
        Command::RustEnd { name } => {
            rust_end::run(name)?;
            return Ok(true);
        }
        Command::StockEnd {
            kind,
            name,
            listen,
            peers,
        } => {
            stock::run_end(kind, name, *listen, peers)?;
            return Ok(true);
        }
        Command::SwarmMember {
            first,
            count,
            shuffle,
        } => {
            swarm::run_member(*first, *count, Duration::from_millis(*shuffle))?;
            return Ok(true);
        }
        _ => {}
    }
    children::end_on_signals()?;
    match command {
        Command::RustEnd { .. } | Command::StockEnd { .. } | Command::SwarmMember { .. } => {
            Ok(true)
        }
        Command::Swarm {
            nodes,
            processes,
            kill,
            seed,
            shuffle,
            idle,
        } => {
            anyhow::ensure!(
                kill < processes && nodes >= 2 * processes,
                "more processes than are killed, and two nodes in each, at least"
            );
            swarm::run(&swarm::Plan {
                nodes,
                processes,
                kill,
                seed,
                shuffle: Duration::from_millis(shuffle),
                idle: Duration::from_secs(idle),
                patience: Duration::from_secs(120),
            })?;
            Ok(true)
        }
        Command::Stock {
            sizes,
            senders,
            pairs,
            ms,
            only,
        } => {
            let dir = scratch();
            let plan = stock::Plan {
                sizes,
                senders,
                repetitions: pairs,
                target: Duration::from_millis(ms),
                only,
            };
            stock::run(&plan, &dir)?;
            let _ = std::fs::remove_dir_all(&dir);
            Ok(true)
        }
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
            campaign(&dir, &plan::quick(place.pairs)?, QUICK_TARGET)
        }
        Command::Bars(place) => {
            let dir = place.results.unwrap_or_else(|| results("bars"));
            campaign(&dir, &plan::mandatory(place.pairs)?, TARGET)
        }
        Command::Matrix {
            results: dir,
            repetitions,
        } => {
            let dir = dir.unwrap_or_else(|| results("matrix"));
            campaign(&dir, &plan::matrix(repetitions)?, TARGET)
        }
        Command::Report { dir } => {
            report(&dir, &Meta::load(&dir)?)?;
            Ok(true)
        }
    }
}

fn results(name: &str) -> PathBuf {
    repository().join("bench/results").join(name)
}

fn scratch() -> PathBuf {
    std::env::temp_dir().join(format!("partisan-bench-{}", std::process::id()))
}

fn point(
    points: Vec<Point>,
    contestants: &[Contestant],
    pairs: u32,
    target: Duration,
) -> Result<bool> {
    let dir = scratch();
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

fn campaign(dir: &Path, tasks: &[Task], target: Duration) -> Result<bool> {
    let mut store = Store::open(dir)?;
    let mut meta = Meta::load(dir)?;
    if tasks.iter().any(|t| t.point.site() != Site::Loopback) {
        meta.verify_emulator()?;
    }
    meta.save(dir)?;
    let settings = Settings {
        scratch: dir.join("scratch"),
        target,
    };
    let outcome = run_all(tasks, &mut store, &settings)?;
    for (known, new) in [
        (&mut meta.otp, outcome.otp),
        (&mut meta.congestion, outcome.congestion),
    ] {
        if !new.is_empty() {
            *known = new;
        }
    }
    meta.save(dir)?;
    report(dir, &meta)?;
    Ok(outcome.failures == 0)
}

fn report(dir: &Path, meta: &Meta) -> Result<()> {
    let store = Store::open(dir)?;
    let runs = store.runs();
    let bars = bars::report(runs, meta)?;
    println!("\n{bars}");
    let plots = plots::draw(runs, dir)?;
    let plots: Vec<String> = plots.iter().map(|p| format!("![{p}]({p})\n")).collect();
    let summary = summary::summary(runs, &meta.header());
    let files = [
        ("bars.md", bars),
        ("summary.md", summary),
        ("plots.md", format!("# Plots\n\n{}", plots.join("\n"))),
    ];
    for (name, text) in files {
        std::fs::write(dir.join(name), text)?;
    }
    println!(
        "in {}: runs.csv, bars.md, summary.md, plots.md",
        dir.display()
    );
    Ok(())
}
