//! The program `partisan`: nodes and questions to nodes, for the command line.
//!
//! What succeeds is told on standard output and, with `--json`, in JSON; what fails is told on
//! standard error with its cause and what to do about it, and by the exit code (see `failure`).

mod args;
mod failure;
mod json;
#[allow(dead_code, reason = "as for `remote`")]
mod lookup;
mod node;
#[cfg_attr(
    not(test),
    expect(
        dead_code,
        reason = "commands that the distribution protocol will serve"
    )
)]
mod remote;
mod settings;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let done = match &cli.command {
        Command::Node(args) => node::run(args, cli.json),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{}", failure.report(cli.json));
            failure.exit_code()
        }
    }
}
