//! An end: a process of a contestant, told what to do by lines of text.
//!
//! A command is a line `name key=value ...`; the answer is `@ok key=value ...` or `@error text`.
//! Other lines are a log. BEAM VMs (`bench/erlang/bench_node.erl`) and Rust processes
//! (`crate::rust_end`) take the same commands.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ChildStdin;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::children::Group;
use crate::process;

/// Obeys, as an end, until standard input ends.
pub(crate) fn obey(mut command: impl FnMut(&str) -> Result<String>) -> Result<()> {
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let answer = match command(&line) {
            Ok(results) => format!("@ok {results}"),
            Err(e) => format!("@error {}", format!("{e:#}").replace('\n', " ")),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    // Threads that wait for a peer must not keep the process.
    std::process::exit(0);
}

/// Results of a command.
#[derive(Debug, Default)]
pub(crate) struct Answer(HashMap<String, String>);

impl Answer {
    pub(crate) fn text(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    pub(crate) fn number(&self, key: &str) -> Result<u64> {
        let text = self.text(key);
        text.parse()
            .with_context(|| format!("an end answered {key}={text:?}"))
    }
}

/// A running end.
#[derive(Debug)]
pub(crate) struct EndProcess {
    name: String,
    group: Group,
    stdin: ChildStdin,
    lines: Receiver<String>,
    log: PathBuf,
    /// Of the process that does the work.
    pub(crate) pid: u32,
    /// It tells its CPU time itself: of threads that have ended the kernel tells nobody else.
    pub(crate) tells_cpu: bool,
}

/// For commands that do not wait for the network.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// For a round.
pub(crate) const ROUND: Duration = Duration::from_secs(240);

impl EndProcess {
    /// Starts a process; what it says beside answers goes to `log`.
    pub(crate) fn start(
        name: &str,
        words: &[String],
        environment: &[(&str, &str)],
        log: &Path,
    ) -> Result<Self> {
        let mut file = File::create(log).with_context(|| format!("{}", log.display()))?;
        let errors = file.try_clone()?;
        let mut group = Group::start(words, |command| {
            command.stderr(errors).env("ERL_CRASH_DUMP_SECONDS", "0");
            for flags in ["ERL_FLAGS", "ERL_AFLAGS", "ERL_ZFLAGS", "ERL_LIBS"] {
                command.env_remove(flags);
            }
            command.envs(environment.iter().copied());
        })?;
        let stdin = group.child.stdin.take().context("no standard input")?;
        let stdout = group.child.stdout.take().context("no standard output")?;
        let (answers, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.starts_with('@') {
                    if answers.send(line).is_err() {
                        break;
                    }
                } else {
                    let _ = writeln!(file, "{line}");
                }
            }
        });
        Ok(Self {
            name: name.to_owned(),
            pid: group.child.id(),
            tells_cpu: false,
            group,
            stdin,
            lines,
            log: log.to_owned(),
        })
    }

    /// Sends a command and waits for its answer.
    pub(crate) fn tell(&mut self, command: &str, patience: Duration) -> Result<Answer> {
        self.begin(command)?;
        self.finish(command, patience)
    }

    /// CPU time so far, all threads.
    pub(crate) fn cpu_ns(&mut self) -> Result<u64> {
        if self.tells_cpu {
            self.tell("cpu", SOON)?.number("cpu")
        } else {
            process::cpu_ns(self.pid)
        }
    }

    fn begin(&mut self, command: &str) -> Result<()> {
        let sent = self.stdin.write_all(format!("{command}\n").as_bytes());
        sent.with_context(|| self.obituary(command))
    }

    fn finish(&mut self, command: &str, patience: Duration) -> Result<Answer> {
        let line = match self.lines.recv_timeout(patience) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                bail!("{}: no answer to {command:?} in {patience:?}", self.name)
            }
            Err(RecvTimeoutError::Disconnected) => bail!(self.obituary(command)),
        };
        let Some(results) = line.strip_prefix("@ok") else {
            bail!("{}: {command:?}: {line}", self.name);
        };
        let pairs = results.split_whitespace();
        let pairs = pairs.filter_map(|p| p.split_once('='));
        let pairs = pairs.map(|(k, v)| (k.to_owned(), v.to_owned()));
        Ok(Answer(pairs.collect()))
    }

    fn obituary(&mut self, command: &str) -> String {
        let status = self.group.child.try_wait();
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(20)..].join("\n");
        format!("{} ended at {command:?} ({status:?})\n{tail}", self.name)
    }
}
