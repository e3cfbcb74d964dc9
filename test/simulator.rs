//! `partisan sim` as its users run it: the small scenarios hold, and a seed says it all.

use std::error::Error;
use std::path::Path;
use std::process::{Command, Output};

type Any = Box<dyn Error>;

fn scenario(name: &str) -> String {
    format!("{}/test/scenarios/{name}.toml", env!("CARGO_MANIFEST_DIR"))
}

fn sim(args: &[&str]) -> Result<Output, Any> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_partisan"));
    Ok(command.arg("sim").args(args).output()?)
}

fn digest(output: &Output) -> Option<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.starts_with("digest: "));
    line.map(str::to_owned)
}

fn holds(name: &str) -> Result<(), Any> {
    let output = sim(&[&scenario(name)])?;
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
    assert!(told.contains(" 0 violations\n"), "{told}");
    Ok(())
}

#[test]
fn hyparview_is_one_random_graph() -> Result<(), Any> {
    holds("hyparview-small")
}

#[test]
fn hyparview_survives_crashes() -> Result<(), Any> {
    holds("crash-small")
}

#[test]
fn plumtree_is_a_tree_as_fast_as_flooding() -> Result<(), Any> {
    holds("plumtree-small")
}

#[test]
fn nodes_that_are_no_neighbours_are_reached() -> Result<(), Any> {
    holds("relay-small")
}

#[test]
fn xbot_has_near_neighbours() -> Result<(), Any> {
    holds("xbot-small")
}

#[test]
fn scamp_has_views_of_the_right_size() -> Result<(), Any> {
    holds("scamp-small")
}

#[test]
fn clients_find_other_servers() -> Result<(), Any> {
    holds("client-server-small")
}

#[test]
fn static_links_come_back() -> Result<(), Any> {
    holds("static-small")
}

#[test]
fn chaos_passes() -> Result<(), Any> {
    holds("chaos-small")
}

#[test]
fn two_processes_tell_the_same() -> Result<(), Any> {
    let path = scenario("chaos-small");
    let first = sim(&[&path, "--seed", "4", "--seeds", "1"])?;
    let again = sim(&[&path, "--seed", "4", "--seeds", "1"])?;
    let other = sim(&[&path, "--seed", "5", "--seeds", "1"])?;
    assert!(digest(&first).is_some_and(|digest| digest.len() == 24));
    assert_eq!(digest(&first), digest(&again));
    assert_ne!(digest(&first), digest(&other));
    Ok(())
}

#[test]
fn writes_what_it_has_measured() -> Result<(), Any> {
    let dir = std::env::temp_dir().join(format!("partisan_sim_{}", std::process::id()));
    let out = dir.to_str().ok_or("the path is no text")?;
    let output = sim(&[
        &scenario("hyparview-small"),
        "--seeds",
        "1",
        "--json",
        "--out",
        out,
    ])?;
    let told: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let read = |name: &str| std::fs::read_to_string(Path::new(out).join(name));
    let written: serde_json::Value = serde_json::from_str(&read("report.json")?)?;
    assert_eq!(told, written);
    let edges = read("edges-stable-1.txt")?;
    let nodes = edges.lines().filter(|line| !line.contains(' ')).count();
    assert_eq!(nodes as u64, told["nodes"].as_u64().ok_or("no nodes")?);
    assert!(read("degrees-stable.svg")?.starts_with("<svg"));
    assert!(read("report.txt")?.contains("digest: "));
    std::fs::remove_dir_all(dir)?;
    Ok(())
}

#[test]
fn what_is_wrong_is_told() -> Result<(), Any> {
    let output = sim(&["nowhere.toml"])?;
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("can not read nowhere.toml"));
    let path = std::env::temp_dir().join(format!("partisan_sim_{}.toml", std::process::id()));
    let text = std::fs::read_to_string(scenario("hyparview-small"))?;
    std::fs::write(&path, text.replace("at_most = 10\n", "at_most = 0.5\n"))?;
    let output = sim(&[path.to_str().ok_or("the path is no text")?, "--seeds", "1"])?;
    std::fs::remove_file(&path)?;
    assert_eq!(output.status.code(), Some(14));
    assert!(String::from_utf8_lossy(&output.stdout).contains("FAIL stable received_ratio <= 0.5"));
    Ok(())
}
