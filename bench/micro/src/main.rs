//! Runs one path a fixed number of times, for `valgrind --tool=callgrind` to count its instructions
//! (`bench/callgrind.sh`): `partisan-count PATH` prints the number of messages; without a path, the
//! names of all.
//!
//! What is counted happens inside functions whose names begin with `counted_`; what they need is
//! made, and what they return is checked, outside of them.

use std::hint::black_box;
use std::io::IoSlice;
use std::process::ExitCode;
use std::sync::Arc;

use partisan::Term;
use partisan::channel::Batch;
use partisan::connection::drive;
use partisan::connection::outbox::Outbox;
use partisan::wire::term::{TermLimits, map_in, map_out, scan};
use partisan_micro::rig::{Receiving, fragments, frames, outbox, send};
use partisan_micro::terms::{self, Sample};

/// Bytes that an I/O thread takes at once.
const TAKE: usize = 512 << 10;

/// Messages queued between two takes.
const BURST: u64 = 100;

#[inline(never)]
fn counted_send(outbox: &Arc<Outbox>, senders: u64, term: &Term, batch: &mut Batch) -> usize {
    for n in 0..BURST {
        send(outbox, n % senders, term);
    }
    let mut bytes = 0;
    loop {
        let all = drive::take(outbox, TAKE, batch);
        while !batch.is_empty() {
            let mut slices = [IoSlice::new(&[]); 64];
            let count = batch.io_slices(&mut slices);
            bytes += black_box(&slices[..count])
                .iter()
                .map(|s| s.len())
                .sum::<usize>();
            drive::written(outbox, batch);
        }
        if all {
            return bytes;
        }
    }
}

fn sending(sample: &Sample, senders: u64, rounds: u64) -> u64 {
    let outbox = outbox();
    let mut batch = Batch::new();
    for _ in 0..rounds {
        let bytes = counted_send(&outbox, senders, &sample.term, &mut batch);
        assert!(bytes >= BURST as usize * sample.bytes().len());
        assert_eq!(outbox.queued(), 0);
    }
    rounds * BURST
}

/// One large message at a time: more would not fit the budget.
#[inline(never)]
fn counted_send_large(outbox: &Arc<Outbox>, term: &Term, batch: &mut Batch) {
    send(outbox, 1, term);
    loop {
        let all = drive::take(outbox, TAKE, batch);
        let mut slices = [IoSlice::new(&[]); 64];
        let count = batch.io_slices(&mut slices);
        black_box(&slices[..count]);
        drive::written(outbox, batch);
        if all {
            return;
        }
    }
}

fn sending_large(sample: &Sample, count: u64) -> u64 {
    let outbox = outbox();
    let mut batch = Batch::new();
    for _ in 0..count {
        counted_send_large(&outbox, &sample.term, &mut batch);
        assert_eq!(outbox.queued(), 0);
    }
    count
}

#[inline(never)]
fn counted_turn(receiving: &mut Receiving) {
    receiving.turn();
}

fn receiving(bytes: &[u8], count: u64) -> u64 {
    let mut receiving = Receiving::default();
    receiving.receive(bytes, counted_turn);
    assert_eq!(receiving.count.messages, count);
    count
}

#[inline(never)]
fn counted(path: &str, sample: &Sample, mapped: &mut Vec<u8>) -> bool {
    let (bytes, form) = (black_box(sample.bytes()), sample.form());
    match path {
        "scan" => scan(bytes, form, &TermLimits::default(), &mut ()).is_ok(),
        "map_out" => map_out(bytes, form, &terms::outbound(), mapped).is_ok(),
        "map_in" => map_in(bytes, form, &terms::inbound(), mapped).is_ok(),
        "encode" => black_box(sample.value.encode()).is_ok(),
        "decode" => black_box(sample.term.decode()).as_tuple().is_some(),
        _ => false,
    }
}

fn codec(path: &str, sample: &Sample) -> u64 {
    let mut mapped = Vec::new();
    for _ in 0..1000 {
        mapped.clear();
        assert!(counted(path, sample, &mut mapped));
    }
    1000
}

type Path = (&'static str, fn() -> u64);

const PATHS: &[Path] = &[
    ("send_64B_1_sender", || sending(&terms::small(), 1, 100)),
    ("send_64B_64_senders", || sending(&terms::small(), 64, 100)),
    ("send_1KB_1_sender", || sending(&terms::kilobyte(), 1, 100)),
    ("send_512KB", || sending_large(&terms::elided(), 200)),
    ("receive_64B", || {
        receiving(&frames(terms::small().bytes(), 10_000), 10_000)
    }),
    ("receive_1KB", || {
        receiving(&frames(terms::kilobyte().bytes(), 10_000), 10_000)
    }),
    ("receive_gen_call", || {
        receiving(&frames(terms::gen_call().bytes(), 10_000), 10_000)
    }),
    ("receive_512KB", || {
        receiving(&fragments(&terms::elided().term).repeat(20), 20)
    }),
    ("scan_gen_call", || codec("scan", &terms::gen_call())),
    ("map_out_gen_call", || codec("map_out", &terms::gen_call())),
    ("map_in_gen_call", || codec("map_in", &terms::gen_call())),
    ("encode_gen_call", || codec("encode", &terms::gen_call())),
    ("decode_gen_call", || codec("decode", &terms::gen_call())),
];

fn main() -> ExitCode {
    let Some(wanted) = std::env::args().nth(1) else {
        for (name, _) in PATHS {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    };
    match PATHS.iter().find(|(name, _)| *name == wanted) {
        Some((_, path)) => {
            println!("{}", path());
            ExitCode::SUCCESS
        }
        None => {
            eprintln!("there is no path {wanted}");
            ExitCode::from(2)
        }
    }
}
