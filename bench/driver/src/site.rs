//! Where ends run: on the loopback interface, or in namespaces joined by the emulator.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command};

use anyhow::{Context, Result, bail};

use crate::children::{Group, Guard};
use crate::point::{Point, Site};

/// Congestion control for all contestants: windows, not pacing, are what is compared.
pub(crate) const CONGESTION: &str = "cubic";

/// A site that is ready for ends.
#[derive(Debug)]
pub(crate) enum Ground {
    Loopback(Option<Guard>),
    Emulated(Box<Emulator>),
}

/// The running emulator.
#[derive(Debug)]
pub(crate) struct Emulator {
    group: Group,
    /// The emulator ends with it.
    _stdin: ChildStdin,
    program: PathBuf,
    socket: PathBuf,
    /// Namespace and address of either end.
    ends: [(String, String); 2],
}

impl Ground {
    /// Makes a site ready; what it leaves behind goes when it is dropped.
    pub(crate) fn prepare(site: Site, scratch: &Path) -> Result<Self> {
        match site {
            Site::Loopback => Ok(Self::Loopback(loopback_cubic())),
            Site::Emulated { large_windows } => {
                Emulator::start(scratch, large_windows).map(|e| Self::Emulated(Box::new(e)))
            }
        }
    }

    /// The address of an end.
    pub(crate) fn address(&self, end: usize) -> &str {
        match self {
            Self::Loopback(_) => "127.0.0.1",
            Self::Emulated(emulator) => &emulator.ends[end].1,
        }
    }

    /// The words that start a program at an end.
    pub(crate) fn at(&self, end: usize, words: Vec<String>) -> Vec<String> {
        match self {
            Self::Loopback(_) => words,
            Self::Emulated(emulator) => {
                let namespace = &emulator.ends[end].0;
                let prefix = ["ip", "netns", "exec", namespace];
                let prefix = prefix.iter().map(|w| (*w).to_owned());
                prefix.chain(words).collect()
            }
        }
    }

    /// Sets the link as a point wants it.
    pub(crate) fn set(&self, point: &Point) -> Result<()> {
        match self {
            Self::Loopback(_) => Ok(()),
            Self::Emulated(emulator) => emulator.set(point),
        }
    }

    /// The emulator's process, whose CPU time is the network's.
    pub(crate) fn emulator_pid(&self) -> Option<u32> {
        match self {
            Self::Loopback(_) => None,
            Self::Emulated(emulator) => Some(emulator.group.child.id()),
        }
    }

    /// What the tables' headers say about congestion control.
    pub(crate) fn congestion(&self) -> String {
        match self {
            Self::Loopback(None) => {
                let path = "/proc/sys/net/ipv4/tcp_congestion_control";
                let name = std::fs::read_to_string(path).unwrap_or_default();
                format!("{} (the route could not be set to cubic)", name.trim())
            }
            _ => CONGESTION.to_owned(),
        }
    }
}

/// The emulator's program: beside this one, or on the path.
pub(crate) fn emulator_program() -> PathBuf {
    let beside = std::env::current_exe().ok();
    let beside = beside.and_then(|exe| Some(exe.parent()?.join("netlab")));
    beside
        .filter(|p| p.exists())
        .unwrap_or_else(|| "netlab".into())
}

impl Emulator {
    fn start(scratch: &Path, large_windows: bool) -> Result<Self> {
        let program = emulator_program();
        let socket = scratch.join("netlab.sock");
        let _ = std::fs::remove_file(&socket);
        let mut words: Vec<String> = vec![program.display().to_string()];
        let prefix = format!("pb{}-", std::process::id());
        let socket_text = socket.display().to_string();
        for word in [
            "up",
            "--nodes",
            "2",
            "--prefix",
            &prefix,
            "--all",
            "delay=0.5ms",
            "--control",
            &socket_text,
        ] {
            words.push(word.to_owned());
        }
        if large_windows {
            words.push("--sysctl".into());
            words.push("net.ipv4.tcp_wmem=4096 16384 33554432".into());
        }
        let mut group = Group::start(&words, |_| {})
            .context("the network emulator: cargo build --release -p netlab")?;
        let stdin = group.child.stdin.take().context("no standard input")?;
        let stdout = group.child.stdout.take().context("no standard output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let ends = parse_ready(&line)?;
        Ok(Self {
            group,
            _stdin: stdin,
            program,
            socket,
            ends,
        })
    }

    fn set(&self, point: &Point) -> Result<()> {
        let delay = f64::from(point.rtt_ms) / 2.0;
        let limit = match &point.rate {
            Some(rate) => format!("rate={rate} queue=1m"),
            None => "rate=none".to_owned(),
        };
        for (from, to) in [(0, 1), (1, 0)] {
            let change = format!("set {from} {to} delay={delay}ms {limit}");
            let output = Command::new(&self.program)
                .arg("ctl")
                .arg(&self.socket)
                .arg(&change)
                .output()?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                bail!("the emulator refuses {change:?}: {said}");
            }
        }
        Ok(())
    }
}

/// `ready P0=10.77.0.1 P1=10.77.0.2`.
fn parse_ready(line: &str) -> Result<[(String, String); 2]> {
    let pairs = line.trim().strip_prefix("ready ");
    let pairs = pairs.with_context(|| format!("the emulator says {line:?}"))?;
    let ends: Vec<(String, String)> = pairs
        .split_whitespace()
        .filter_map(|p| p.split_once('='))
        .map(|(name, ip)| (name.to_owned(), ip.to_owned()))
        .collect();
    let ends = ends.try_into().ok();
    ends.with_context(|| format!("the emulator says {line:?}"))
}

/// Has the loopback interface's connections use cubic; `None` if that isn't allowed.
fn loopback_cubic() -> Option<Guard> {
    let route = |options: &[&str]| {
        let mut command = Command::new("ip");
        command
            .args(["route", "replace", "local", "127.0.0.0/8", "dev", "lo"])
            .args(["proto", "kernel", "scope", "host", "src", "127.0.0.1"])
            .args(["table", "local"])
            .args(options);
        command.output().is_ok_and(|o| o.status.success())
    };
    // The route of 127.0.0.1 itself is another one.
    let host = |options: &[&str]| {
        let mut command = Command::new("ip");
        command
            .args(["route", "replace", "local", "127.0.0.1", "dev", "lo"])
            .args(["proto", "kernel", "scope", "host", "src", "127.0.0.1"])
            .args(["table", "local"])
            .args(options);
        command.output().is_ok_and(|o| o.status.success())
    };
    let cubic = ["congctl", CONGESTION];
    let guard = Guard::new(move || {
        route(&[]);
        host(&[]);
    });
    (route(&cubic) && host(&cubic)).then_some(guard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_emulator_tells_its_namespaces() {
        let ends = parse_ready("ready P0=10.77.0.1 P1=10.77.0.2\n").unwrap();
        assert_eq!(ends[1], ("P1".to_owned(), "10.77.0.2".to_owned()));
        assert!(parse_ready("").is_err());
        assert!(parse_ready("ready P0=10.77.0.1").is_err());
    }
}
