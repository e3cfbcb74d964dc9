//! What the tables' headers say about the machine and the emulator.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::point::{Point, Site};
use crate::process;
use crate::site::emulator_program;

/// The circumstances of a campaign, in `meta.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Meta {
    pub(crate) machine: String,
    pub(crate) otp: String,
    /// On loopback; the emulator's is always the same.
    pub(crate) congestion: String,
    pub(crate) load_at_start: f64,
    pub(crate) ceilings: Vec<Ceiling>,
}

/// What plain TCP reaches over the emulator: a line of `netlab verify --json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Ceiling {
    rtt_ms: f64,
    streams: u32,
    gbit_s: f64,
    emu_cpu_pct: f64,
    ping_avg_ms: f64,
}

impl Meta {
    /// Of a directory, or of this machine now.
    pub(crate) fn load(dir: &Path) -> Result<Self> {
        match std::fs::read(dir.join("meta.json")) {
            Ok(bytes) => serde_json::from_slice(&bytes).context("meta.json"),
            Err(_) => Ok(Self {
                machine: process::machine(),
                load_at_start: process::load(),
                ..Self::default()
            }),
        }
    }

    pub(crate) fn save(&self, dir: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        Ok(std::fs::write(dir.join("meta.json"), text)?)
    }

    /// Has the emulator verify itself, unless it has.
    pub(crate) fn verify_emulator(&mut self) -> Result<()> {
        if !self.ceilings.is_empty() {
            return Ok(());
        }
        println!("the emulator verifies itself");
        let output = Command::new(emulator_program())
            .args(["verify", "--json"])
            .output()
            .context("the network emulator: cargo build --release -p netlab")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "netlab verify: {said}");
        self.ceilings = parse(&String::from_utf8_lossy(&output.stdout));
        ensure!(!self.ceilings.is_empty(), "netlab verify said nothing");
        Ok(())
    }

    /// What the emulator carries at a point with as many streams as it may use, in MB/s.
    pub(crate) fn ceiling_mb_s(&self, point: &Point) -> Option<f64> {
        if point.site() == Site::Loopback || point.rate.is_some() {
            return None;
        }
        let same = |c: &&Ceiling| (c.rtt_ms - f64::from(point.rtt_ms)).abs() < 0.01;
        let rates = self.ceilings.iter().filter(same).map(|c| c.gbit_s * 125.0);
        rates.reduce(f64::max)
    }

    /// Lines above a table.
    pub(crate) fn header(&self) -> String {
        let mut parts = vec![self.machine.clone()];
        if !self.otp.is_empty() {
            parts.push(format!("OTP {}", self.otp));
        }
        if !self.congestion.is_empty() {
            parts.push(format!("congestion control {}", self.congestion));
        }
        parts.push(format!(
            "load average {:.1} at the start",
            self.load_at_start
        ));
        let mut text = format!("{}.\n", parts.join("; "));
        if !self.ceilings.is_empty() {
            let one = |c: &Ceiling| {
                format!(
                    "{} ms, {} stream{}: {:.1} (ping {:.2} ms, emulator {:.0} % of a core)",
                    c.rtt_ms,
                    c.streams,
                    if c.streams == 1 { "" } else { "s" },
                    c.gbit_s,
                    c.ping_avg_ms,
                    c.emu_cpu_pct
                )
            };
            let all: Vec<String> = self.ceilings.iter().map(one).collect();
            text += &format!(
                "Emulator's ceiling, plain TCP, Gbit/s: {}.\n",
                all.join("; ")
            );
        }
        text
    }
}

fn parse(text: &str) -> Vec<Ceiling> {
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|c: &Ceiling| c.gbit_s > 0.0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_of_a_point_is_that_of_its_round_trip() {
        let text = r#"{"rtt_ms":1,"streams":1,"gbit_s":8.0,"emu_cpu_pct":90,"ping_avg_ms":1.2}
nonsense
{"rtt_ms":1,"streams":16,"gbit_s":10.0,"emu_cpu_pct":90,"ping_avg_ms":1.2,"more":1}
{"rtt_ms":20,"streams":1,"gbit_s":1.5,"emu_cpu_pct":19,"ping_avg_ms":20.2}"#;
        let meta = Meta {
            ceilings: parse(text),
            ..Meta::default()
        };
        assert_eq!(meta.ceilings.len(), 3);
        let ceiling = |text: &str| meta.ceiling_mb_s(&text.parse().unwrap());
        assert_eq!(ceiling("loop rtt=1"), Some(1250.0));
        assert_eq!(ceiling("loop"), None);
        assert_eq!(ceiling("loop rtt=5"), None);
        assert_eq!(ceiling("hol rtt=1 rate=1gbit"), None);
    }
}
