//! Tests of the queue, and what they share: messages that are unlike any other, and a small receiver
//! that puts them together again.

mod behaviour;
mod model;

use std::collections::HashMap;
use std::io::IoSlice;

use super::{Batch, Config};

const BUDGET: u64 = 20_000;

fn config() -> Config {
    Config {
        budget: BUDGET,
        fragment_shared: 1_000,
        fragment_alone: 4_000,
        quantum: 1_000,
        chunk: 600,
        max_open_streams: 2,
        max_open_bytes: 8_000,
    }
}

/// Unlike any other push: sender, number, then filling.
fn body(sender: u64, number: u64, size: usize) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&sender.to_be_bytes());
    body.extend_from_slice(&number.to_be_bytes());
    body.resize(size.max(16), number as u8);
    body
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = (body.len() as u32 + 1).to_be_bytes().to_vec();
    frame.push(kind);
    frame.extend_from_slice(body);
    frame
}

fn contents(batch: &Batch) -> Vec<u8> {
    let mut slices = [IoSlice::new(&[]); 4096];
    let count = batch.io_slices(&mut slices);
    slices[..count]
        .iter()
        .flat_map(|slice| slice.iter().copied())
        .collect()
}

/// Reads frames; hands out whole messages.
#[derive(Default)]
struct Receiver {
    buffer: Vec<u8>,
    open: HashMap<u32, (u64, Vec<u8>)>,
    largest: usize,
}

enum Received {
    Message { body: Vec<u8>, cut: bool },
    Urgent,
}

impl Receiver {
    fn read(&mut self, bytes: &[u8]) -> Vec<Received> {
        self.buffer.extend_from_slice(bytes);
        let mut received = Vec::new();
        let mut at = 0;
        while at < self.buffer.len() {
            let word = |at: usize| u32::from_be_bytes(self.buffer[at..at + 4].try_into().unwrap());
            let length = word(at) as usize;
            let body = &self.buffer[at + 5..at + 4 + length];
            match self.buffer[at + 4] {
                1 => received.push(Received::Message {
                    body: body.to_vec(),
                    cut: false,
                }),
                kind @ (2 | 3) => {
                    let stream = word(at + 5);
                    let mut payload = &body[4..];
                    if kind == 2 {
                        let total = u64::from_be_bytes(payload[..8].try_into().unwrap());
                        payload = &payload[8..];
                        assert!(
                            self.open.insert(stream, (total, Vec::new())).is_none(),
                            "stream in use"
                        );
                    }
                    self.largest = self.largest.max(payload.len());
                    let (total, message) = self.open.get_mut(&stream).expect("MORE without FIRST");
                    message.extend_from_slice(payload);
                    if message.len() as u64 == *total {
                        let (_, body) = self.open.remove(&stream).unwrap();
                        received.push(Received::Message { body, cut: true });
                    }
                }
                4 => received.push(Received::Urgent),
                kind => panic!("kind {kind}"),
            }
            at += 4 + length;
        }
        self.buffer.clear();
        received
    }
}
