//! The program `partisan`: nodes and questions to nodes, for the command line.
//!
//! What succeeds is told on standard output and, with `--json`, in JSON; what fails is told on
//! standard error with its cause and what to do about it, and by the exit code (see `failure`).

mod allow;
mod args;
mod client;
mod failure;
mod json;
mod lookup;
mod node;
mod remote;
mod settings;
mod tls;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::filter::LevelFilter;

use args::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Who asks wants an answer; a node that runs has things to tell.
    let level = match &cli.command {
        Command::Node(_) => LevelFilter::INFO,
        _ => LevelFilter::ERROR,
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_max_level(level)
        .init();
    let done = match &cli.command {
        Command::Node(args) => node::run(args, cli.json),
        Command::Ping(args) => client::ping(args, cli.json),
        Command::Names(args) => client::names(args, cli.json),
        Command::Call(args) => client::call(args, cli.json),
        Command::Members(args) => client::members(args, cli.json),
    };
    match done {
        Ok(answer) => {
            // Whoever has closed our output does not want it.
            let _ = writeln!(std::io::stdout(), "{answer}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("{}", failure.report(cli.json));
            failure.exit_code()
        }
    }
}
