//! The simulator as a whole: its links keep the contract, its runs repeat, its bugs are found.

mod client_server;
mod links;
mod mutants;
mod steered;
mod switch;

use super::report::{Settings, run};
use super::scenario::Scenario;

/// Runs a test with some seeds from a random one on; `PARTISAN_SEED` and `PARTISAN_SEEDS` say which and how many.
fn with_seeds(count: u64, test: fn(u64)) {
    let first: u64 = match std::env::var("PARTISAN_SEED") {
        Ok(seed) => seed.parse().expect("PARTISAN_SEED is a number"),
        Err(_) => rand::random_range(0..1 << 40),
    };
    let seeds = std::env::var("PARTISAN_SEEDS").map_or(count, |n| n.parse().expect("a number"));
    for seed in first..first + seeds {
        println!("PARTISAN_SEED={seed}");
        test(seed);
    }
}

fn settings() -> Settings<'static> {
    Settings {
        seed: 5,
        seeds: 2,
        jobs: 1,
        out: None,
        progress: |_| {},
    }
}

fn with(nodes: usize, more: &str) -> String {
    format!(
        "name = 'test'\nnodes = {nodes}\nthrough_bytes = true\n\
         overlay = {{ protocol = 'hyparview' }}\nbroadcast = {{ protocol = 'plumtree' }}\n\
         [network]\nloss = 0.02\nreset = 0.0005\nslow = {{ fraction = 0.1, delay_ms = 100 }}\n\
         bandwidth_mbit = 10\n{more}"
    )
}

const PHASES: &str = "[[phase]]\nname = 'all'\ncycles = 8\ngraph = true\n\
    churn = { per_second = 0.01, silent = 0.3 }\npartitions = { count = 3, length = [5, 20] }\n\
    broadcasts = { count = 20, over = 60, from = 'random' }\n";

#[test]
fn a_seed_says_it_all() {
    let scenario = Scenario::parse(&with(80, PHASES)).unwrap();
    let report = |settings: &Settings<'_>| run(&scenario, settings).unwrap();
    let first = report(&settings());
    let again = report(&Settings {
        jobs: 2,
        ..settings()
    });
    assert_eq!(first.digest(), again.digest());
    let figures = |report: &super::Report| report.json()["variants"].to_string();
    assert_eq!(figures(&first), figures(&again));
    let other = report(&Settings {
        seed: 7,
        ..settings()
    });
    assert_ne!(first.digest(), other.digest());
}

#[test]
fn a_kept_world_goes_on_as_it_would_have() {
    let stable = "[[phase]]\nname = 'a'\ncycles = 3\nkeep = 'k'\n";
    let then = "[[phase]]\nname = 'b'\ncycles = 3\ncrash = { fraction = 0.3 }\n\
                broadcasts = { count = 5, over = 5 }\n";
    let from = then.replace("name = 'b'", "name = 'c'\nfrom = 'k'");
    let detour = Scenario::parse(&with(60, &[stable, then, &from].concat())).unwrap();
    let report = run(&detour, &settings()).unwrap();
    // All but what tables take: a clone has no spare room.
    let figures = |phase: &super::workload::PhaseResult| {
        let mut figures = phase.figures.clone();
        figures.retain(|name, _| !name.starts_with("table_bytes"));
        figures
    };
    for result in &report.variants[0].runs {
        assert_eq!(figures(&result.phases[1]), figures(&result.phases[2]));
    }
}

#[test]
fn expectations_are_told_and_count() {
    let expect = "[[expect]]\nphase = 'all'\nfigure = 'nodes'\nat_least = 81\n";
    let scenario = Scenario::parse(&with(80, &[PHASES, expect].concat())).unwrap();
    let report = run(&scenario, &settings()).unwrap();
    assert!(!report.holds());
    assert!(report.table().contains("FAIL all nodes >= 81"));
    let expect = expect.replace("81", "2");
    let scenario = Scenario::parse(&with(80, &[PHASES, &expect].concat())).unwrap();
    let report = run(&scenario, &settings()).unwrap();
    assert!(report.holds(), "{}", report.table());
}

#[test]
fn nonsense_is_refused_with_a_reason() {
    for (change, reason) in [
        ("[[phase]]\nname = 'a'\n", "give it a length"),
        (
            "[[phase]]\nname = 'a'\ncycles = 1\nfrom = 'x'\n",
            "no phase before it",
        ),
        (
            "[[phase]]\nname = 'a'\ncycles = 1\ncrash = { fraction = 1.5 }\n",
            "less than 1",
        ),
        (
            "[[phase]]\nname = 'a'\ncycles = 1\nspeed = 2\n",
            "unknown field `speed`",
        ),
        (
            "[[expect]]\nphase = 'a'\nfigure = 'x'\n",
            "there is no [[phase]]",
        ),
    ] {
        let error = Scenario::parse(&with(80, change)).unwrap_err().to_string();
        assert!(error.contains(reason), "{change}: {error}");
    }
    let text = with(80, PHASES).replace("hyparview", "hyperview");
    let scenario = Scenario::parse(&text).unwrap();
    let error = run(&scenario, &settings()).unwrap_err().to_string();
    assert!(
        error.contains("hyperview") && error.contains("hyparview"),
        "{error}"
    );
}

#[test]
fn the_scenarios_of_the_repository_parse() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/test/scenarios");
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let scenario = Scenario::parse(&text);
        assert!(scenario.is_ok(), "{}: {scenario:?}", path.display());
    }
}
