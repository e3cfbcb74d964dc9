//! Which points are measured with whom.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::bars::bars;
use crate::contestant::{Contestant, parse_list};
use crate::point::{Point, Site};
use crate::session::Task;

/// Payloads of the matrix.
const SIZES: [&str; 5] = ["64", "1K", "64K", "512K", "8M"];
const ACTORS: [u32; 5] = [1, 16, 32, 64, 128];
/// Round trips of the matrix, in milliseconds.
const ROUND_TRIPS: [u32; 3] = [0, 1, 20];
/// Numbers of connections that are compared.
const SWEEP: &str = "ours-1,ours-2,ours-4,ours-8,ours-16,ours-32,ours-64,ours-128";
const EVERYBODY: &str = "disterl,disterl+zdbbl,ours-1,ours-16,ours-4x16,beam-rust-1,rust-rust-1,\
     rust-rust-16,tcp-1,tcp-16";
const UPSTREAM: &str = "upstream-1,upstream-16";

fn upstream() -> Result<Vec<Contestant>> {
    match std::env::var_os("PARTISAN_UPSTREAM") {
        Some(_) => parse_list(UPSTREAM),
        None => Ok(Vec::new()),
    }
}

/// The bars' points, each with those it compares and, if `full`, the rest of those who belong
/// there.
fn bar_tasks(pairs: u32, full: bool) -> Result<Vec<Task>> {
    let mut names: BTreeMap<Point, Vec<String>> = BTreeMap::new();
    let mut order: Vec<Point> = Vec::new();
    for bar in bars()?.bar {
        let point: Point = bar.point.parse()?;
        let list = names.entry(point.clone()).or_insert_with(|| {
            order.push(point.clone());
            Vec::new()
        });
        let mut add = |name: &str| {
            if !list.iter().any(|n| n == name) {
                list.push(name.to_owned());
            }
        };
        if point.sweep {
            SWEEP.split(',').for_each(&mut add);
            continue;
        }
        bar.references().into_iter().for_each(&mut add);
        for ours in &bar.ours {
            add(ours);
        }
        if full {
            add("disterl+zdbbl");
        }
    }
    let upstream = if full { upstream()? } else { Vec::new() };
    let mut tasks = Vec::new();
    for point in order {
        let list = names.remove(&point).unwrap_or_default();
        let contestants: Result<Vec<Contestant>> = list.iter().map(|n| n.parse()).collect();
        let mut contestants = contestants?;
        if !point.sweep {
            contestants.extend(upstream.iter().cloned());
        }
        tasks.push(Task {
            point,
            contestants,
            repetitions: pairs,
        });
    }
    Ok(tasks)
}

/// All mandatory points.
pub(crate) fn mandatory(pairs: u32) -> Result<Vec<Task>> {
    bar_tasks(pairs, true)
}

/// The mandatory points on loopback, with those only that the bars name.
pub(crate) fn quick(pairs: u32) -> Result<Vec<Task>> {
    let mut tasks = bar_tasks(pairs, false)?;
    tasks.retain(|t| t.point.site() == Site::Loopback && !t.point.sweep && t.point.actors < 100);
    // One setting of several connections says enough here.
    let four: Contestant = "ours-4x16".parse()?;
    for task in &mut tasks {
        task.contestants.retain(|c| *c != four);
    }
    Ok(tasks)
}

/// Everything.
pub(crate) fn matrix(repetitions: u32) -> Result<Vec<Task>> {
    let mut everybody = parse_list(EVERYBODY)?;
    everybody.extend(upstream()?);
    let mut points: Vec<(String, bool)> = Vec::new();
    for size in ["64", "1K"] {
        for senders in [1, 64] {
            points.push((format!("flood size={size} senders={senders}"), false));
        }
    }
    for rtt in ROUND_TRIPS {
        points.push((format!("idle size=64 rtt={rtt}"), false));
        for size in SIZES {
            for actors in ACTORS {
                points.push((format!("loop size={size} actors={actors} rtt={rtt}"), false));
            }
        }
    }
    for link in ["", "rtt=1", "rtt=1 rate=1gbit"] {
        for streams in [1, 4] {
            for channel in ["other", "same"] {
                let point = format!("hol streams={streams} channel={channel} {link}");
                points.push((point, false));
            }
        }
    }
    for size in ["512K", "8M"] {
        points.push((
            format!("loop size={size} actors=128 rtt=20 wmem=32M"),
            false,
        ));
    }
    for rtt in [0, 1] {
        for size in ["64", "512K"] {
            points.push((
                format!("loop size={size} actors=128 rtt={rtt} sweep=yes"),
                true,
            ));
        }
    }
    let sweep = parse_list(SWEEP)?;
    let tasks = points.into_iter().map(|(text, is_sweep)| {
        let who = if is_sweep { &sweep } else { &everybody };
        Ok(Task {
            point: text.parse()?,
            contestants: who.clone(),
            repetitions,
        })
    });
    tasks.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bar_has_its_contestants() {
        let tasks = mandatory(5).unwrap();
        for bar in bars().unwrap().bar {
            let found = tasks.iter().filter(|t| t.point.to_string() == bar.point);
            let tasks: Vec<&Task> = found.collect();
            assert_eq!(tasks.len(), 1, "{}", bar.point);
            let names: Vec<String> = tasks[0].contestants.iter().map(|c| c.to_string()).collect();
            for name in bar.ours.iter().map(String::as_str).chain(bar.references()) {
                assert!(names.iter().any(|n| n == name), "{} {name}", bar.point);
            }
        }
    }

    #[test]
    fn quick_stays_on_loopback() {
        let tasks = quick(5).unwrap();
        assert!(tasks.len() > 10);
        let runs: u32 = tasks
            .iter()
            .map(|t| t.contestants.len() as u32 * t.repetitions)
            .sum();
        assert!(runs < 300, "{runs} runs");
    }

    #[test]
    fn the_matrix_is_whole() {
        assert_eq!(matrix(1).unwrap().len(), 4 + 3 * 26 + 12 + 2 + 4);
    }
}
