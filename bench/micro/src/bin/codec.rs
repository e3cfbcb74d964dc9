//! The term codec in a race with `eetf`, `erltf` and the VM's own, on the same terms and doing the
//! same work: decoding makes something that outlives its input and reads every leaf; encoding
//! makes bytes of its own. Rounds are interleaved; a cell is the median of nine.
//!
//! What Partisan's users decode to is a `Term` with memory of its own, checked from end to end and
//! read in place through `View`, as messages arrive in a mailbox; or the tree of a `Value`. Both
//! have a row.
//!
//! `cargo run --release -p partisan-micro --bin codec`

use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use erltf::OwnedTerm;
use partisan::wire::term::{Start, TermLimits};
use partisan::{Pid, Reference, Term, Value, View};

const ROUNDS: usize = 9;
/// How long one contestant works in one round.
const SLICE: Duration = Duration::from_millis(40);

fn pid(id: u32) -> Value {
    Value::from(Pid {
        node: "server@host.example".into(),
        id,
        serial: 0,
        creation: 1_700_000_000,
    })
}

/// `{'$gen_call', {Pid, [alias | Ref]}, {get, <<"key">>}}`
fn gen_call() -> Value {
    let alias = Value::from(Reference {
        node: "server@host.example".into(),
        creation: 1_700_000_000,
        words: [1, 2, 3].into(),
    });
    let tag = Value::ImproperList(vec![Value::atom("alias")], Box::new(alias));
    let request = vec![Value::atom("get"), Value::binary(&b"key"[..])];
    Value::tuple(vec![
        Value::atom("$gen_call"),
        Value::tuple(vec![pid(1234), tag]),
        Value::tuple(request),
    ])
}

/// `{6, From, '', Name}`: a message to a registered name.
fn control() -> Value {
    Value::tuple(vec![
        Value::from(6),
        pid(99),
        Value::atom(""),
        Value::atom("registry"),
    ])
}

/// 1000 of `{entry, I, <<16 bytes>>}`.
fn entries() -> Value {
    let entry = |n: u32| {
        let binary = Value::binary(vec![n as u8; 16]);
        Value::tuple(vec![Value::atom("entry"), Value::from(n), binary])
    };
    Value::list((0..1000).map(entry).collect::<Vec<_>>())
}

fn ints() -> Value {
    Value::list((0..1000).map(|n| Value::from(n * 997)).collect::<Vec<_>>())
}

/// The sum over all leaves: integers as they are, binaries by length and first byte, 1 for others,
/// of which something is read nonetheless.
fn weight(value: &Value) -> i64 {
    match value {
        Value::Integer(number) => *number,
        Value::Binary(bytes) => bytes.len() as i64 + i64::from(bytes[0]),
        Value::Tuple(all) | Value::List(all) => all.iter().map(weight).sum(),
        Value::ImproperList(all, tail) => all.iter().map(weight).sum::<i64>() + weight(tail),
        Value::Atom(atom) => one(atom.as_str().len()),
        Value::Pid(pid) => one(pid.id as usize + pid.node.len()),
        Value::Reference(reference) => one(reference.words[0] as usize + reference.node.len()),
        other => panic!("{other:?} is not in the race"),
    }
}

fn view_weight(view: View<'_>) -> i64 {
    match view {
        View::Integer(number) => number,
        View::Binary(bytes) => bytes.len() as i64 + i64::from(bytes[0]),
        View::Tuple(all) => all.iter().map(view_weight).sum(),
        View::List(all) => {
            let mut elements = all.iter();
            let sum: i64 = elements.by_ref().map(view_weight).sum();
            sum + elements.tail().map_or(0, view_weight)
        }
        View::Atom(atom) => one(atom.as_bytes().len()),
        View::Pid(pid) => one(pid.id as usize + pid.node.as_bytes().len()),
        View::Reference(reference) => {
            one(reference.words().next().unwrap_or(0) as usize + reference.node.as_bytes().len())
        }
        other => panic!("{other:?} is not in the race"),
    }
}

fn eetf_weight(term: &eetf::Term) -> i64 {
    use eetf::Term;
    match term {
        Term::FixInteger(number) => number.value.into(),
        Term::Binary(binary) => binary.bytes.len() as i64 + i64::from(binary.bytes[0]),
        Term::Tuple(tuple) => tuple.elements.iter().map(eetf_weight).sum(),
        Term::List(list) => list.elements.iter().map(eetf_weight).sum(),
        Term::ImproperList(list) => {
            list.elements.iter().map(eetf_weight).sum::<i64>() + eetf_weight(&list.last)
        }
        Term::Atom(atom) => one(atom.name.len()),
        Term::Pid(pid) => one(pid.id as usize + pid.node.name.len()),
        Term::Reference(reference) => one(reference.id[0] as usize + reference.node.name.len()),
        other => panic!("{other:?} is not in the race"),
    }
}

fn erltf_weight(term: &OwnedTerm) -> i64 {
    match term {
        OwnedTerm::Integer(number) => *number,
        OwnedTerm::Binary(bytes) => bytes.len() as i64 + i64::from(bytes[0]),
        OwnedTerm::Tuple(all) | OwnedTerm::List(all) => all.iter().map(erltf_weight).sum(),
        OwnedTerm::ImproperList { elements, tail } => {
            elements.iter().map(erltf_weight).sum::<i64>() + erltf_weight(tail)
        }
        OwnedTerm::Atom(atom) => one(atom.as_str().len()),
        OwnedTerm::Pid(pid) => one(pid.id as usize + pid.node.as_str().len()),
        OwnedTerm::Reference(reference) => {
            one(reference.ids[0] as usize + reference.node.as_str().len())
        }
        other => panic!("{other:?} is not in the race"),
    }
}

fn one(read: usize) -> i64 {
    black_box(read);
    1
}

/// Nanoseconds per run, and what the last one gave.
fn time(mut run: impl FnMut() -> i64) -> (f64, i64) {
    let mut batch = 1u32;
    let start = Instant::now();
    let (mut runs, mut last) = (0, 0);
    while start.elapsed() < SLICE {
        for _ in 0..batch {
            last = black_box(run());
        }
        runs += batch;
        batch = (batch * 2).min(1024);
    }
    (start.elapsed().as_nanos() as f64 / f64::from(runs), last)
}

/// The VM, which does what it is told line by line.
struct Beam {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Beam {
    fn start() -> std::io::Result<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/bin/codec.escript");
        let mut child = Command::new("escript")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let answers = child.stdout.take().expect("piped");
        Ok(Self {
            child,
            answers: BufReader::new(answers),
        })
    }

    fn run(&mut self, op: &str, rounds: u64, bytes: &[u8]) -> (f64, i64) {
        let input = self.child.stdin.as_mut().expect("piped");
        writeln!(input, "{op} {rounds} {}", base64(bytes)).expect("the VM reads");
        input.flush().expect("the VM reads");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the VM answers");
        let mut words = line.split_whitespace();
        let mut next = || words.next().and_then(|word| word.parse::<i64>().ok());
        let (Some(nanos), Some(weight)) = (next(), next()) else {
            panic!("the VM answered {line:?}");
        };
        (nanos as f64, weight)
    }
}

impl Drop for Beam {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let at = |n: usize| u32::from(chunk.get(n).copied().unwrap_or(0));
        let word = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            let value = word >> (18 - 6 * digit) & 63;
            let used = digit <= chunk.len();
            text.push(if used {
                DIGITS[value as usize] as char
            } else {
                '='
            });
        }
    }
    text
}

fn main() -> ExitCode {
    let Ok(mut beam) = Beam::start() else {
        eprintln!("no `escript` here: install Erlang to run this");
        return ExitCode::FAILURE;
    };
    let limits = TermLimits::default();
    println!(
        "{:<32} {:>10} {:>10} {:>10} {:>10} {:>7} {:>7} {:>7}",
        "ns, medians", "partisan", "eetf", "erltf", "BEAM", "/eetf", "/erltf", "/BEAM"
    );
    let cases = [
        ("gen_call", gen_call()),
        ("control", control()),
        ("1000 entries", entries()),
        ("1000 ints", ints()),
    ];
    for (name, value) in &cases {
        let bytes = Bytes::from(value.encode().expect("a valid term").to_external());
        let foreign = eetf::Term::decode(&bytes[..]).expect("a valid term");
        let owned = erltf::decode(&bytes).expect("a valid term");
        let expected = weight(value);
        for op in ["decode", "decode to Value", "encode"] {
            let mut times: [Vec<f64>; 4] = Default::default();
            let rounds = if bytes.len() > 1000 { 400 } else { 100_000 };
            for _ in 0..ROUNDS {
                let results = match op {
                    "decode" | "decode to Value" => [
                        // A value that shares memory with its input keeps a handle to it, as to
                        // the buffer that a socket was read into; the others may reuse theirs.
                        time(|| {
                            if op == "decode" {
                                let own = Bytes::copy_from_slice(black_box(&bytes));
                                let term = Term::from_external(own).expect("valid");
                                return view_weight(term.view());
                            }
                            let input = black_box(&bytes).clone();
                            let decoded = Value::decode(&input, Start::Version, &[], &limits);
                            drop(input);
                            weight(&decoded.expect("valid").0)
                        }),
                        time(|| {
                            let decoded = eetf::Term::decode(black_box(&bytes[..]));
                            eetf_weight(&decoded.expect("valid"))
                        }),
                        time(|| {
                            let decoded = erltf::decode(black_box(&bytes));
                            erltf_weight(&decoded.expect("valid"))
                        }),
                        beam.run("decode", rounds, &bytes),
                    ],
                    _ => [
                        time(|| {
                            black_box(black_box(value).encode().expect("valid"));
                            0
                        }),
                        time(|| {
                            let mut out = Vec::new();
                            black_box(&foreign).encode(&mut out).expect("valid");
                            black_box(out);
                            0
                        }),
                        time(|| {
                            black_box(erltf::encode(black_box(&owned)).expect("valid"));
                            0
                        }),
                        beam.run(op, rounds, &bytes),
                    ],
                };
                for (times, (nanos, weight)) in times.iter_mut().zip(results) {
                    assert!(op == "encode" || weight == expected, "{name}: {weight}");
                    times.push(nanos);
                }
            }
            let [own, eetf, erltf, vm] = times.map(|mut times| {
                times.sort_by(f64::total_cmp);
                times[times.len() / 2]
            });
            println!(
                "{:<32} {own:>10.0} {eetf:>10.0} {erltf:>10.0} {vm:>10.0} {:>7.2} {:>7.2} {:>7.2}",
                format!("{op} {name}, {} B", bytes.len()),
                eetf / own,
                erltf / own,
                vm / own,
            );
        }
    }
    ExitCode::SUCCESS
}
