//! A tiny run from end to end: every kind of work, every kind of end, delivery verified. No
//! figure is looked at.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::Command;

fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap().to_owned()
}

#[test]
fn every_end_delivers() {
    let built = Command::new("rebar3")
        .arg("compile")
        .current_dir(repository())
        .output()
        .expect("rebar3");
    let said = String::from_utf8_lossy(&built.stdout);
    assert!(built.status.success(), "rebar3 compile: {said}");

    let contestants = [
        "disterl",
        "ours-1",
        "ours-4x16",
        "ours-1@io_threads=1",
        "beam-rust-1",
        "rust-rust-2",
        "tcp-2",
        // The other program's place is taken by this one: their interface is the same.
        "upstream-2",
    ];
    let points = [
        "flood size=64 senders=2",
        "loop size=64K actors=2",
        "hol size=1M streams=1 channel=other",
        "hol size=1M streams=1 channel=same",
        "idle",
    ];
    let output = Command::new(env!("CARGO_BIN_EXE_partisan-bench"))
        .arg("point")
        .args(points)
        .args(["--pairs", "1", "--ms", "50", "--contestants"])
        .arg(contestants.join(","))
        .env("PARTISAN_UPSTREAM", repository().join("_build/default/lib"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complaints}");
    for contestant in contestants {
        let runs = said
            .lines()
            .filter(|l| l.starts_with(&format!("  1 {contestant} ")) && l.contains("msg/s"));
        assert_eq!(runs.count(), points.len(), "{contestant}\n{said}");
    }
}
