//! Replays what fuzzing has collected, so that `cargo test` runs every fuzz target on inputs that
//! reach deep, and on every input that once broke it. See `docs/fuzzing.md`.

use std::path::Path;

#[allow(dead_code, missing_docs, unreachable_pub)]
#[path = "../fuzz/bodies/mod.rs"]
mod bodies;

fn replay(target: &str, run: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut files: Vec<_> = std::fs::read_dir(&dir)
        .expect("the corpus is part of the repository")
        .map(|entry| entry.expect("readable").path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no corpus in {}", dir.display());
    for file in files {
        // Shown if the run panics.
        println!("{}", file.display());
        run(&std::fs::read(&file).expect("readable"));
    }
}

#[test]
fn handshake() {
    replay("handshake", bodies::handshake::run);
}

#[test]
fn frames() {
    replay("frames", bodies::frames::run);
}

#[test]
fn external() {
    replay("external", bodies::external::run);
}

#[test]
fn terms() {
    replay("terms", bodies::terms::run);
}

#[test]
fn delivery() {
    replay("delivery", bodies::delivery::run);
}

#[test]
fn membership() {
    replay("membership", bodies::membership::run);
}

#[test]
fn receive() {
    replay("receive", bodies::receive::run);
}

#[test]
fn dist() {
    replay("dist", bodies::dist::run);
}
