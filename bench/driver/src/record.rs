//! One run's result, and the file of all of them.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::histogram::Latency;

/// A line of `runs.csv`. Times are in seconds, latencies in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) point: String,
    pub(crate) contestant: String,
    /// Runs of one point and repetition are neighbours in time: these are compared.
    pub(crate) repetition: u32,
    /// Empty, or why there are no figures.
    pub(crate) error: String,
    pub(crate) seconds: f64,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) cpu_a_ns: u64,
    pub(crate) cpu_b_ns: u64,
    pub(crate) emulator_cpu_ns: u64,
    pub(crate) ow_p5: Option<f64>,
    pub(crate) ow_p25: Option<f64>,
    pub(crate) ow_p50: Option<f64>,
    pub(crate) ow_p75: Option<f64>,
    pub(crate) ow_p95: Option<f64>,
    pub(crate) ow_p99: Option<f64>,
    pub(crate) ow_p999: Option<f64>,
    pub(crate) ow_mean: Option<f64>,
    pub(crate) rt_p5: Option<f64>,
    pub(crate) rt_p25: Option<f64>,
    pub(crate) rt_p50: Option<f64>,
    pub(crate) rt_p75: Option<f64>,
    pub(crate) rt_p95: Option<f64>,
    pub(crate) rt_p99: Option<f64>,
    pub(crate) rt_p999: Option<f64>,
    pub(crate) rt_mean: Option<f64>,
    pub(crate) rss_a_mb: f64,
    pub(crate) rss_b_mb: f64,
    pub(crate) peak_a_mb: f64,
    pub(crate) peak_b_mb: f64,
    /// Most bytes seen in the sender's queues, where it tells.
    pub(crate) queued: Option<u64>,
    pub(crate) load: f64,
}

impl Run {
    pub(crate) fn set_one_way(&mut self, l: Option<Latency>) {
        self.ow_p5 = l.map(|l| l.p5);
        self.ow_p25 = l.map(|l| l.p25);
        self.ow_p50 = l.map(|l| l.p50);
        self.ow_p75 = l.map(|l| l.p75);
        self.ow_p95 = l.map(|l| l.p95);
        self.ow_p99 = l.map(|l| l.p99);
        self.ow_p999 = l.map(|l| l.p999);
        self.ow_mean = l.map(|l| l.mean);
    }

    pub(crate) fn set_round_trip(&mut self, l: Option<Latency>) {
        self.rt_p5 = l.map(|l| l.p5);
        self.rt_p25 = l.map(|l| l.p25);
        self.rt_p50 = l.map(|l| l.p50);
        self.rt_p75 = l.map(|l| l.p75);
        self.rt_p95 = l.map(|l| l.p95);
        self.rt_p99 = l.map(|l| l.p99);
        self.rt_p999 = l.map(|l| l.p999);
        self.rt_mean = l.map(|l| l.mean);
    }

    pub(crate) fn is_good(&self) -> bool {
        self.error.is_empty()
    }
}

/// `runs.csv`, which grows line by line, so that a run that was interrupted can go on.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    runs: Vec<Run>,
}

impl Store {
    /// Opens the file in a directory, which may be new.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("{}", dir.display()))?;
        let path = dir.join("runs.csv");
        let mut runs = Vec::new();
        if path.exists() {
            let mut reader = csv::Reader::from_path(&path)?;
            for run in reader.deserialize() {
                match run {
                    Ok(run) => runs.push(run),
                    // The last line may have been cut off.
                    Err(e) => eprintln!("{}: {e}", path.display()),
                }
            }
            // What follows begins on a line of its own.
            let mut writer = csv::Writer::from_path(&path)?;
            for run in &runs {
                writer.serialize(run)?;
            }
            writer.flush()?;
        }
        Ok(Self { path, runs })
    }

    pub(crate) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Runs that need not be done again.
    pub(crate) fn done(&self) -> BTreeSet<(String, String, u32)> {
        let good = self.runs.iter().filter(|r| r.is_good());
        good.map(|r| (r.point.clone(), r.contestant.clone(), r.repetition))
            .collect()
    }

    pub(crate) fn push(&mut self, run: Run) -> Result<()> {
        let file: File = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)?;
        let mut writer = csv::WriterBuilder::new()
            .has_headers(file.metadata()?.len() == 0)
            .from_writer(file);
        writer.serialize(&run)?;
        writer.flush()?;
        self.runs.push(run);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn run(contestant: &str, repetition: u32, error: &str) -> Run {
        Run {
            point: "idle size=64".into(),
            contestant: contestant.into(),
            repetition,
            error: error.into(),
            rt_p50: Some(12.5),
            ..Run::default()
        }
    }

    #[test]
    fn a_store_resumes_after_a_line_that_was_cut_off() {
        let dir = std::env::temp_dir().join(format!("partisan-bench-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let mut store = Store::open(&dir).unwrap();
        store.push(run("disterl", 0, "")).unwrap();
        store
            .push(run("ours-1", 0, "it broke, \"badly\",\nover two lines"))
            .unwrap();
        let mut file = OpenOptions::new()
            .append(true)
            .open(dir.join("runs.csv"))
            .unwrap();
        file.write_all(b"idle size=64,ours-16,0").unwrap();

        let mut store = Store::open(&dir).unwrap();
        assert_eq!(store.runs().len(), 2);
        assert_eq!(store.runs()[0], run("disterl", 0, ""));
        assert_eq!(store.done().len(), 1);
        store.push(run("ours-16", 0, "")).unwrap();
        assert_eq!(Store::open(&dir).unwrap().runs().len(), 3);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
