//! Our decoder and encoder against `binary_to_term` of stock OTP.
//!
//! An `erl` of each release makes valid and damaged encodings (`test/stock/term_gen.erl`) and asks
//! this process, over its standard output and input, what they are; it compares the canonical
//! re-encoding, or the refusal, with what it makes of them itself. The differences that are meant
//! are listed there; any other fails the test. `PARTISAN_DIFFERENTIAL_SECONDS` sets how long each
//! release asks (4), `PARTISAN_SEED` the seed.

use std::io::{Read, Write};
use std::panic::catch_unwind;
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use bytes::Bytes;
use partisan::wire::term::{Start, TermLimits, Value, normalise, scan};

#[path = "stock/mod.rs"]
mod stock;

/// The canonical encoding of what these bytes mean to us, and what is in it that not every VM knows:
/// 1, and 2 for a native record, 4 for a private term.
fn normalised(bytes: &[u8]) -> Result<(u8, Vec<u8>), String> {
    let bytes = Bytes::copy_from_slice(bytes);
    let (term, used) = normalise(&bytes, Start::Version, &[], &TermLimits::default())
        .map_err(|error| error.to_string())?;
    if used != bytes.len() {
        return Err(format!("{} bytes follow the term", bytes.len() - used));
    }
    let limits = TermLimits::default();
    let facts = scan(term.skeleton(), term.form(), &limits, &mut ());
    let facts = facts.map_err(|error| format!("scan: {error}"))?;
    let code = 1 + 2 * u8::from(facts.records) + 4 * u8::from(facts.local);
    let (direct, _) = Value::decode(&bytes, Start::Version, &[], &limits)
        .map_err(|error| format!("decode: {error}"))?;
    let value = term.decode();
    drop((term, bytes));
    assert_eq!(value, direct, "the two decoders differ");
    let encoded = value.encode().map_err(|error| format!("encode: {error}"))?;
    Ok((code, encoded.to_external()))
}

fn read_u32(bytes: &mut &[u8]) -> u32 {
    let (head, rest) = bytes.split_first_chunk().expect("four bytes");
    *bytes = rest;
    u32::from_be_bytes(*head)
}

/// Answers until the report comes.
fn answer_all(mut questions: ChildStdout, mut answers: ChildStdin) -> std::io::Result<String> {
    let mut frame = Vec::new();
    loop {
        let mut size = [0; 4];
        if let Err(error) = questions.read_exact(&mut size) {
            // What it asked last is what ended it.
            let kept = stock::scratch().join("differential.last");
            std::fs::write(&kept, &frame)?;
            return Err(std::io::Error::other(format!(
                "{error}; see {}",
                kept.display()
            )));
        }
        frame.resize(u32::from_be_bytes(size) as usize, 0);
        questions.read_exact(&mut frame)?;
        let mut rest = &frame[..];
        let count = read_u32(&mut rest);
        if count == 0 {
            return Ok(String::from_utf8_lossy(rest).into_owned());
        }
        let mut answer = vec![0; 4];
        for _ in 0..count {
            let size = read_u32(&mut rest) as usize;
            let (question, others) = rest.split_at(size);
            rest = others;
            // A panic is reported with the bytes that made it.
            let normal = catch_unwind(|| normalised(question));
            let (code, bytes) = match normal {
                Ok(Ok(answer)) => answer,
                Ok(Err(reason)) => (0, reason.into_bytes()),
                Err(_) => (0, b"panicked".to_vec()),
            };
            answer.push(code);
            answer.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
            answer.extend_from_slice(&bytes);
        }
        let size = answer.len() as u32 - 4;
        answer[..4].copy_from_slice(&size.to_be_bytes());
        answers.write_all(&answer)?;
        answers.flush()?;
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn decodes_as_binary_to_term() {
    let seconds = setting("PARTISAN_DIFFERENTIAL_SECONDS").unwrap_or(4);
    let seed = setting("PARTISAN_SEED").unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let mut failed = Vec::new();
    for release in stock::releases() {
        // Damaged atoms are new atoms, and a VM forgets none.
        let mut child = release
            .command("erl")
            .args(["-noinput", "-noshell", "-boot", "no_dot_erlang"])
            .args(["+t", "100000000", "-kernel", "logger_level", "emergency"])
            .arg("-pa")
            .arg(stock::beams(release))
            .arg("-eval")
            .arg(format!("term_difference:differential({seconds}, {seed})"))
            .env("ERL_CRASH_DUMP_SECONDS", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("erl");
        let (questions, answers) = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
        let (done, report) = std::sync::mpsc::channel();
        std::thread::spawn(move || done.send(answer_all(questions, answers)));
        let report = report.recv_timeout(Duration::from_secs(seconds) + stock::PATIENCE);
        // What has ended by itself keeps its status.
        let _ = child.kill();
        let status = child.wait();
        match report {
            Ok(Ok(report)) => {
                println!("{report}");
                if report.lines().next() != Some("ok") {
                    failed.push(format!("OTP {}: differences", release.number));
                }
            }
            other => failed.push(format!("OTP {}: {other:?}, {status:?}", release.number)),
        }
    }
    assert!(failed.is_empty(), "{failed:?} (seed {seed})");
}
