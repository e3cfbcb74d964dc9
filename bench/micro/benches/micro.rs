//! What every message passes through, one step at a time: `cargo bench -p partisan-micro`.

use std::hint::black_box;
use std::io::IoSlice;

use divan::counter::ItemsCount;
use divan::{Bencher, Divan};
use partisan::Value;
use partisan::channel::{Batch, Config, Queue};
use partisan::wire::frame::{self, Kind};
use partisan::wire::term::{TermLimits, map_in, map_out, scan};
use partisan_micro::rig::{DEST, Receiving, fragments, frames};
use partisan_micro::terms::{self, Sample};

/// Bytes that an I/O thread takes at once.
const TAKE: usize = 512 << 10;

fn main() {
    check();
    Divan::from_args().main();
}

/// What is measured is right: once, before anything is measured.
fn check() {
    for sample in terms::all() {
        assert_eq!(sample.term.decode(), sample.value, "{sample}");
        let facts = scan(
            sample.bytes(),
            sample.form(),
            &TermLimits::default(),
            &mut (),
        );
        let facts = facts.expect("a valid term");
        assert_eq!(facts.blobs.len(), sample.term.blobs().len());
        let (mut out, mut back) = (Vec::new(), Vec::new());
        map_out(sample.bytes(), sample.form(), &terms::outbound(), &mut out).expect("mapped");
        assert_eq!(out != *sample.bytes(), facts.identities);
        map_in(&out, sample.form(), &terms::inbound(), &mut back).expect("mapped");
        assert_eq!(back, *sample.bytes());
    }
    let mut bytes = Vec::new();
    push_and_take(&mut Queue::new(Config::default()), 64, 1000, |slices| {
        slices.iter().for_each(|s| bytes.extend_from_slice(s));
    });
    let mut receiving = Receiving::default();
    receiving.receive(&bytes, Receiving::turn);
    receiving.receive(&fragments(&terms::elided().term), Receiving::turn);
    assert_eq!(receiving.count.messages, 1001);
}

#[divan::bench(args = terms::all())]
fn encode(bencher: Bencher<'_, '_>, sample: &Sample) {
    bencher.bench(|| black_box(&sample.value).encode());
}

#[divan::bench(args = terms::all())]
fn decode(bencher: Bencher<'_, '_>, sample: &Sample) {
    bencher.bench(|| -> Value { black_box(&sample.term).decode() });
}

#[divan::bench(args = terms::all())]
fn validate(bencher: Bencher<'_, '_>, sample: &Sample) {
    let limits = TermLimits::default();
    bencher.bench(|| scan(black_box(sample.bytes()), sample.form(), &limits, &mut ()));
}

#[divan::bench(args = terms::all())]
fn map_to_wire(bencher: Bencher<'_, '_>, sample: &Sample) {
    let (rules, mut out) = (terms::outbound(), Vec::new());
    bencher.bench_local(|| {
        out.clear();
        map_out(black_box(sample.bytes()), sample.form(), &rules, &mut out)
    });
}

#[divan::bench(args = terms::all())]
fn map_from_wire(bencher: Bencher<'_, '_>, sample: &Sample) {
    let mut arrived = Vec::new();
    map_out(
        sample.bytes(),
        sample.form(),
        &terms::outbound(),
        &mut arrived,
    )
    .expect("mapped");
    let (rules, mut out) = (terms::inbound(), Vec::new());
    bencher.bench_local(|| {
        out.clear();
        map_in(black_box(&arrived), sample.form(), &rules, &mut out)
    });
}

#[divan::bench]
fn frame_put(bencher: Bencher<'_, '_>) {
    let (sample, mut out) = (terms::small(), Vec::new());
    bencher.bench_local(|| {
        out.clear();
        frame::put_message(&mut out, DEST, black_box(sample.bytes()))
    });
}

#[divan::bench]
fn frame_parse(bencher: Bencher<'_, '_>) {
    let bytes = frames(terms::small().bytes(), 1);
    bencher.bench(|| {
        let header = frame::parse_header(black_box(&bytes)).expect("whole");
        assert!(header.is_some_and(|h| h.kind == Kind::Message));
        frame::parse_message(&bytes[frame::HEADER..])
            .expect("whole")
            .1
            .len()
    });
}

/// Queues messages of 64 bytes and takes them all, as an I/O thread does; hands out what it would write.
fn push_and_take(
    queue: &mut Queue<()>,
    senders: u64,
    messages: u64,
    mut write: impl FnMut(&[IoSlice<'_>]),
) {
    let term = terms::small();
    let term = term.bytes();
    for n in 0..messages {
        queue.push_frame(n % senders, |out| {
            frame::put_message(out, DEST, term).expect("a short name");
        });
    }
    let mut batch = Batch::new();
    drain(queue, &mut batch, &mut write);
}

fn drain(queue: &mut Queue<()>, batch: &mut Batch, write: &mut impl FnMut(&[IoSlice<'_>])) {
    while !queue.is_empty() {
        queue.take(TAKE, batch);
        while !batch.is_empty() {
            let mut slices = [IoSlice::new(&[]); 64];
            let count = batch.io_slices(&mut slices);
            let bytes = slices[..count].iter().map(|s| s.len()).sum();
            write(&slices[..count]);
            let payload = batch.advance(bytes);
            queue.written(payload);
        }
    }
}

fn ignore(slices: &[IoSlice<'_>]) {
    black_box(slices);
}

/// A thousand small frames through the queue.
#[divan::bench(args = [1, 64, 1000])]
fn queue_small(bencher: Bencher<'_, '_>, senders: u64) {
    let mut queue = Queue::new(Config::default());
    bencher
        .counter(ItemsCount::new(1000u64))
        .bench_local(|| push_and_take(&mut queue, senders, 1000, ignore));
}

/// Messages of 512 KB, cut into fragments; with several senders in turns of 64 KB.
#[divan::bench(args = [1, 16])]
fn queue_fragments(bencher: Bencher<'_, '_>, senders: u64) {
    let sample = terms::elided();
    let blob = &sample.term.blobs()[0];
    let mut queue: Queue<()> = Queue::new(Config::default());
    let mut batch = Batch::new();
    bencher.counter(ItemsCount::new(16u64)).bench_local(|| {
        for n in 0..16 {
            queue.push_message(n % senders, vec![sample.bytes().clone(), blob.clone()]);
        }
        drain(&mut queue, &mut batch, &mut ignore);
    });
}

/// Deficit round robin alone: a thousand lanes with ten messages each, which are not packed.
/// Each turn of a lane sends as many as its quantum pays for.
#[divan::bench]
fn schedule_1000_lanes(bencher: Bencher<'_, '_>) {
    const LANES: u64 = 1000;
    let mut batch = Batch::new();
    bencher
        .counter(ItemsCount::new(10 * LANES))
        .with_inputs(|| {
            let mut queue: Queue<()> = Queue::new(Config {
                budget: u64::MAX,
                ..Config::default()
            });
            for _ in 0..10 {
                for lane in 0..LANES {
                    let message = bytes::Bytes::from_static(&[7; 4096]);
                    queue.push_message(lane, vec![message]);
                }
            }
            queue
        })
        .bench_local_values(|mut queue| {
            drain(&mut queue, &mut batch, &mut ignore);
            queue
        });
}

/// Ten thousand small frames from the socket to the host.
#[divan::bench]
fn receive_small(bencher: Bencher<'_, '_>) {
    let bytes = frames(terms::small().bytes(), 10_000);
    let mut receiving = Receiving::default();
    bencher
        .counter(ItemsCount::new(10_000u64))
        .bench_local(|| receiving.receive(&bytes, Receiving::turn));
}
