//! `partisan-bench`: the benchmark. See `docs/benchmarks.md`.
#![forbid(unsafe_code)]

mod bars;
mod children;
mod cli;
mod contestant;
mod end;
mod histogram;
mod meta;
mod pair;
mod plan;
mod plots;
mod point;
mod process;
mod record;
mod run;
mod rust_end;
mod session;
mod site;
mod stats;
mod stock;
mod summary;
mod swarm;
mod table;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(2),
        Err(e) => {
            eprintln!("partisan-bench: {e:#}");
            ExitCode::FAILURE
        }
    }
}
