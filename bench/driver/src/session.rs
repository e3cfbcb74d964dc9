//! Runs tasks: starts the processes that they need, takes the contestants in turn, keeps results.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::contestant::{Channels, Contestant, PairKind};
use crate::pair::{Assets, Pair};
use crate::point::{PING_BYTES, Point, Site};
use crate::record::{Run, Store};
use crate::run;
use crate::site::Ground;
use crate::stats::Metric;

/// A point, who is measured at it, and how often.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) point: Point,
    pub(crate) contestants: Vec<Contestant>,
    pub(crate) repetitions: u32,
}

/// How a session runs.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) scratch: PathBuf,
    pub(crate) target: Duration,
}

/// What a session found out beside figures.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) failures: u32,
    pub(crate) otp: String,
    pub(crate) congestion: String,
}

/// Runs all tasks; those that share a site share their processes.
pub(crate) fn run_all(tasks: &[Task], store: &mut Store, settings: &Settings) -> Result<Outcome> {
    let mut sizes: Vec<usize> = tasks.iter().map(|t| t.point.size).collect();
    sizes.push(PING_BYTES);
    sizes.sort_unstable();
    sizes.dedup();
    let assets = Assets::prepare(&settings.scratch, sizes)?;
    let mut outcome = Outcome::default();
    let mut groups: BTreeMap<(Site, bool), Vec<&Task>> = BTreeMap::new();
    for task in tasks {
        let key = (task.point.site(), task.point.sweep);
        groups.entry(key).or_default().push(task);
    }
    for ((site, _), group) in groups {
        let done = store.done();
        let is_done = |task: &Task| {
            let point = task.point.to_string();
            task.contestants.iter().all(|c| {
                (0..task.repetitions).all(|r| done.contains(&(point.clone(), c.to_string(), r)))
            })
        };
        let group: Vec<&Task> = group.into_iter().filter(|t| !is_done(t)).collect();
        if group.is_empty() {
            continue;
        }
        let ground = Ground::prepare(site, &settings.scratch)?;
        if site == Site::Loopback {
            outcome.congestion = ground.congestion();
        }
        let mut stage = Stage {
            ground,
            assets: &assets,
            channels: channels(&group),
            pairs: BTreeMap::new(),
            started: 0,
        };
        for task in group {
            stage.ground.set(&task.point)?;
            run_task(task, &mut stage, store, settings, &mut outcome)?;
        }
    }
    Ok(outcome)
}

/// The channels that a pair needs for all that is to be done with it.
fn channels(group: &[&Task]) -> BTreeMap<PairKind, Channels> {
    let mut all: BTreeMap<PairKind, Channels> = BTreeMap::new();
    for task in group {
        for contestant in &task.contestants {
            let route = contestant.route(&task.point);
            let channels = all.entry(contestant.pair()).or_default();
            channels.extend(route.channels);
        }
    }
    all
}

/// A site and the pairs that run there.
struct Stage<'a> {
    ground: Ground,
    assets: &'a Assets,
    channels: BTreeMap<PairKind, Channels>,
    pairs: BTreeMap<PairKind, Pair>,
    started: u32,
}

impl Stage<'_> {
    fn pair(&mut self, kind: &PairKind) -> Result<&mut Pair> {
        if !self.pairs.contains_key(kind) {
            self.started += 1;
            let channels = self.channels.get(kind).cloned().unwrap_or_default();
            let pair = Pair::start(kind, &channels, &self.ground, self.assets, self.started)?;
            self.pairs.insert(kind.clone(), pair);
        }
        let pair = self.pairs.get_mut(kind);
        pair.ok_or_else(|| anyhow::anyhow!("the pair is gone"))
    }
}

fn run_task(
    task: &Task,
    stage: &mut Stage<'_>,
    store: &mut Store,
    settings: &Settings,
    outcome: &mut Outcome,
) -> Result<()> {
    let point = task.point.to_string();
    println!("{point}");
    let done = store.done();
    for repetition in 0..task.repetitions {
        for contestant in rotated(&task.contestants, repetition) {
            let name = contestant.to_string();
            if done.contains(&(point.clone(), name.clone(), repetition)) {
                continue;
            }
            let kind = contestant.pair();
            let emulator = stage.ground.emulator_pid();
            let measured = stage.pair(&kind).and_then(|pair| {
                outcome.otp.clone_from(&pair.otp);
                run::measure(&task.point, contestant, pair, emulator, settings.target)
            });
            let run = match measured {
                Ok(run) => Run { repetition, ..run },
                Err(e) => {
                    outcome.failures += 1;
                    // Whatever state it is in, nobody else shall be measured with it.
                    stage.pairs.remove(&kind);
                    Run {
                        point: point.clone(),
                        contestant: name.clone(),
                        repetition,
                        error: format!("{e:#}"),
                        ..Run::default()
                    }
                }
            };
            println!("  {} {name:<14} {}", repetition + 1, line(&run));
            store.push(run)?;
        }
    }
    Ok(())
}

/// Another contestant begins each repetition.
fn rotated(contestants: &[Contestant], repetition: u32) -> impl Iterator<Item = &Contestant> {
    let n = contestants.len();
    let first = repetition as usize % n.max(1);
    contestants.iter().cycle().skip(first).take(n)
}

/// A run in one line.
fn line(run: &Run) -> String {
    if !run.is_good() {
        return format!("FAILED: {}", run.error);
    }
    let figure = |metric: Metric| metric.of(run).unwrap_or(0.0);
    let mut text = format!(
        "{:>9.0} msg/s {:>8.1} MB/s {:>9.2} us CPU/msg",
        figure(Metric::Rate),
        figure(Metric::Megabytes),
        figure(Metric::CpuPerMessage),
    );
    if let (Some(p50), Some(p99)) = (run.rt_p50, run.rt_p99) {
        text += &format!("  rt p50 {p50:.0} p99 {p99:.0} us");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contestant::parse_list;

    #[test]
    fn everybody_is_first_once() {
        let contestants = parse_list("disterl,ours-1,ours-16").unwrap();
        let first = |r| rotated(&contestants, r).next().unwrap().to_string();
        assert_eq!(
            [first(0), first(1), first(2), first(3)],
            ["disterl", "ours-1", "ours-16", "disterl"]
        );
        assert_eq!(rotated(&contestants, 7).count(), 3);
    }

    #[test]
    fn a_pair_has_the_channels_of_all_its_users() {
        let task = Task {
            point: "hol streams=1".parse().unwrap(),
            contestants: parse_list("disterl,ours-1,ours-16").unwrap(),
            repetitions: 1,
        };
        let all = channels(&[&task]);
        assert_eq!(all.len(), 1);
        let names: Vec<&String> = all.values().next().unwrap().keys().collect();
        assert_eq!(names, ["bulk", "p16", "rpc"]);
    }
}
