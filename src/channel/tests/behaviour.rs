//! What users of a queue rely on, one thing at a time.

use std::io::IoSlice;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::{Admission, Batch, Ceiling, Config, Queue};
use super::{BUDGET, Received, Receiver, body, config, contents, frame};

proptest! {
    #[test]
    fn a_small_frame_waits_for_one_turn_of_each_other_lane(
        lanes in 1..20usize,
        small in 16..400usize,
        warm_up in prop::collection::vec(0..6_000usize, 0..20),
        max in 0..20_000usize,
    ) {
        let config = config();
        let bound = lanes * (config.quantum + config.fragment_shared);
        let mut queue = Queue::<()>::new(Config { max_open_streams: 64, max_open_bytes: u64::MAX, ..config });
        let mut batch = Batch::new();
        for lane in 0..lanes as u64 {
            for size in [300_000, 5_000] {
                queue.push_frame(lane, |buffer| buffer.extend_from_slice(&frame(1, &body(lane, 0, small))));
                queue.push_message(lane, vec![Bytes::from(body(lane, 0, size))]);
            }
        }
        for max in warm_up {
            queue.take(max, &mut batch);
            batch.advance(batch.len());
        }
        let wanted = frame(1, &body(999, 0, 64));
        queue.push_frame(999, |buffer| buffer.extend_from_slice(&wanted));
        let mut waited = 0;
        loop {
            queue.take(max, &mut batch);
            let bytes = contents(&batch);
            if let Some(at) = bytes.windows(wanted.len()).position(|window| window == wanted) {
                waited += at;
                break;
            }
            waited += bytes.len();
            batch.advance(bytes.len());
        }
        // Headers of the fragments come on top.
        prop_assert!(waited <= bound + lanes * 64, "waited for {waited} bytes, bound {bound}");
    }
}

#[test]
fn lanes_of_small_and_of_large_messages_get_the_same_share() {
    let mut queue = Queue::<()>::new(config());
    let mut batch = Batch::new();
    for _ in 0..500 {
        queue.push_frame(1, |buffer| {
            buffer.extend_from_slice(&frame(1, &body(1, 0, 100)))
        });
    }
    queue.push_message(2, vec![Bytes::from(body(2, 0, 50_000))]);
    queue.take(30_000, &mut batch);
    let (mut small, mut cut) = (0, 0);
    let mut receiver = Receiver::default();
    for received in receiver.read(&contents(&batch)) {
        match received {
            Received::Message { body, cut: false } => small += body.len() + 5,
            _ => cut += 1,
        }
    }
    let large = receiver
        .open
        .values()
        .map(|(_, got)| got.len())
        .sum::<usize>();
    assert_eq!(cut, 0);
    assert!(small.abs_diff(large) <= 2_000, "{small} and {large}");
}

#[test]
fn fragments_are_large_only_while_a_sender_is_alone() {
    let mut queue = Queue::<()>::new(config());
    let mut batch = Batch::new();
    queue.push_message(1, vec![Bytes::from(vec![0; 20_000])]);
    queue.take(0, &mut batch);
    assert_eq!(batch.len(), 4_000 + 17);
    batch.advance(batch.len());
    queue.push_message(2, vec![Bytes::from(vec![0; 20_000])]);
    queue.take(0, &mut batch);
    assert_eq!(batch.len(), 1_000 + 9);
}

#[test]
fn a_fragment_shares_the_bytes_of_its_message_and_lets_go_of_them() {
    let mut queue = Queue::<()>::new(config());
    let mut batch = Batch::new();
    let body = Bytes::from(vec![7; 5_000]);
    queue.push_message(1, vec![body.slice(..4_000), body.slice(4_000..)]);
    queue.take(0, &mut batch);
    let mut slices = [IoSlice::new(&[]); 8];
    assert_eq!(batch.io_slices(&mut slices), 2);
    assert_eq!(slices[1].as_ptr(), body.as_ptr());
    assert_eq!(batch.advance(17 + 3_999), 3_999);
    assert_eq!(batch.advance(1), 1);
    queue.take(usize::MAX, &mut batch);
    batch.advance(batch.len());
    assert!(body.is_unique());
}

#[test]
fn a_frame_whose_encoder_panics_leaves_nothing_behind() {
    let mut queue = Queue::<()>::new(config());
    let mut batch = Batch::new();
    for sender in [1, 2] {
        queue.push_frame(1, |buffer| buffer.extend_from_slice(b"whole"));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            queue.push_frame(sender, |buffer| {
                buffer.extend_from_slice(b"ha");
                std::panic::resume_unwind(Box::new(()));
            })
        }));
        assert!(panicked.is_err());
    }
    queue.push_frame(2, |_| ());
    queue.push_frame(2, |buffer| buffer.extend_from_slice(b"more"));
    queue.take(usize::MAX, &mut batch);
    assert_eq!(contents(&batch), b"wholewholemore");
    assert_eq!(queue.written(batch.advance(batch.len())), 14);
    assert!(queue.is_empty() && queue.queued() == 0);
}

#[test]
fn a_queue_in_its_stride_reuses_its_buffers() {
    let mut queue = Queue::<()>::new(config());
    let mut batch = Batch::new();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..100 {
        for sender in 0..4 {
            queue.push_frame(sender, |buffer| {
                buffer.extend_from_slice(&[0; 64]);
                seen.insert(buffer.as_ptr());
            });
        }
        queue.take(usize::MAX, &mut batch);
        queue.written(batch.advance(batch.len()));
    }
    assert!(seen.len() <= 8, "{} buffers", seen.len());
}

#[test]
fn control_frames_are_bounded_in_number() {
    let mut queue = Queue::<()>::new(config());
    let accepted = (0..1_000)
        .filter(|_| queue.push_urgent(&frame(5, &[0; 8])))
        .count();
    assert_eq!(accepted, 64);
    let mut batch = Batch::new();
    queue.take(0, &mut batch);
    assert_eq!(batch.len(), 64 * 13);
    assert_eq!(batch.advance(batch.len()), 0, "they count for no budget");
}

#[test]
fn a_stream_of_fresh_senders_does_not_starve_a_backlogged_one() {
    let ceiling = Ceiling::new(u64::MAX);
    let mut queue = Queue::new(config());
    let mut batch = Batch::new();
    let push = |queue: &mut Queue<u64>, sender| {
        queue.push_message(sender, vec![Bytes::from(vec![0; 2_000])]);
    };
    while queue.admit(1, None, true) == Admission::Admitted {
        push(&mut queue, 1);
    }
    let ticket = queue.wait(1, 2_000, 1).unwrap();
    let mut granted = Vec::new();
    for sender in 2..200 {
        // The queue is kept full by senders that are always fresh.
        while queue.admit(sender, None, true) == Admission::Admitted {
            push(&mut queue, sender);
        }
        queue.take(2_000, &mut batch);
        let written = batch.advance(batch.len());
        queue.written(written);
        queue.grant(&ceiling, &mut granted);
        if granted.iter().any(|&(granted, _)| granted == ticket) {
            return;
        }
    }
    panic!("starved");
}

#[test]
fn small_messages_of_fresh_senders_do_not_wait_for_room_behind_large_ones() {
    let mut queue = Queue::<()>::new(config());
    let mut batch = Batch::new();
    let small = |queue: &mut Queue<()>, sender| {
        let admission = queue.admit(sender, Some(105), true);
        if admission == Admission::Admitted {
            let frame = frame(1, &body(sender, 0, 100));
            queue.push_frame(sender, |buffer| buffer.extend_from_slice(&frame));
        }
        admission
    };
    queue.push_message(0, vec![Bytes::from(vec![0; 2 * BUDGET as usize])]);
    assert_eq!(queue.admit(1, None, true), Admission::Wait, "not small");
    assert_eq!(
        queue.admit(0, Some(100), true),
        Admission::Wait,
        "not fresh"
    );
    let kept = BUDGET / 8 / 105;
    for sender in 1..=kept {
        assert_eq!(small(&mut queue, sender), Admission::Admitted);
    }
    assert_eq!(small(&mut queue, kept + 1), Admission::Wait);
    assert_eq!(
        queue.admit(kept + 1, Some(1), false),
        Admission::Wait,
        "the node's ceiling"
    );
    // What has been written leaves room when the batch is filled again.
    queue.take(5_000, &mut batch);
    assert_eq!(small(&mut queue, kept + 1), Admission::Wait, "in flight");
    batch.advance(batch.len());
    queue.take(0, &mut batch);
    assert_eq!(small(&mut queue, kept + 1), Admission::Admitted);
}

#[test]
fn ten_thousand_waiters_come_and_go() {
    let ceiling = Ceiling::new(u64::MAX);
    let mut queue = Queue::new(config());
    queue.push_message(0, vec![Bytes::from(vec![0; BUDGET as usize])]);
    for round in 0..10 {
        let tickets: Vec<_> = (1..=10_000)
            .map(|sender| queue.wait(sender, 1, sender).unwrap())
            .collect();
        for (index, ticket) in tickets.iter().enumerate() {
            if index % 3 != round % 3 {
                assert!(queue.cancel(*ticket).is_some());
            }
        }
        let mut out = Vec::new();
        assert_eq!(queue.grant(&ceiling, &mut out), 0);
        for ticket in tickets {
            queue.cancel(ticket);
        }
        assert!(!queue.has_waiters());
    }
}

#[test]
fn a_budget_of_nothing_still_lets_one_message_through() {
    let ceiling = Ceiling::new(0);
    let mut queue = Queue::new(Config {
        budget: 0,
        ..config()
    });
    assert_eq!(queue.admit(1, None, true), Admission::Admitted);
    queue.push_message(1, vec![Bytes::from_static(b"one")]);
    ceiling.add(3);
    let ticket = queue.wait(1, 3, 1).unwrap();
    let mut out = Vec::new();
    assert_eq!(queue.grant(&ceiling, &mut out), 0);
    let mut batch = Batch::new();
    queue.take(0, &mut batch);
    let left = queue.written(batch.advance(batch.len()));
    let _ = ceiling.sub(left);
    assert_eq!(queue.grant(&ceiling, &mut out), 3);
    assert_eq!(out, [(ticket, 1)]);
    assert_eq!(queue.redeem(ticket), Some(3));
}

#[test]
fn what_is_held_stays_or_goes_to_another_queue_in_order() {
    let (mut branch, mut trunk) = (Queue::<()>::new(config()), Queue::new(config()));
    let mut batch = Batch::new();
    branch.hold();
    for number in 0..30 {
        let sender = number % 3;
        if number % 5 == 4 {
            let body = Bytes::from(body(sender, number, 3_000));
            branch.push_message(sender, vec![body]);
        } else {
            let frame = frame(1, &body(sender, number, 100));
            branch.push_frame(sender, |buffer| buffer.extend_from_slice(&frame));
        }
    }
    branch.push_urgent(&frame(4, &[0; 8]));
    branch.take(100_000, &mut batch);
    assert_eq!(
        contents(&batch),
        frame(4, &[0; 8]),
        "only control frames leave"
    );
    batch.advance(batch.len());
    let first = frame(1, &body(9, 0, 100));
    trunk.push_frame(7, |buffer| buffer.extend_from_slice(&first));
    let held = branch.queued();
    branch.surrender(&mut trunk, 7);
    assert_eq!(
        (branch.queued(), trunk.queued()),
        (0, held + first.len() as u64)
    );
    assert!(branch.is_empty() && branch.is_idle() && !branch.is_held());
    trunk.take(1_000_000, &mut batch);
    let mut last = [None; 10];
    let mut count = 0;
    for received in Receiver::default().read(&contents(&batch)) {
        let Received::Message { body, .. } = received else {
            continue;
        };
        let sender = u64::from_be_bytes(body[..8].try_into().unwrap()) as usize;
        let number = u64::from_be_bytes(body[8..16].try_into().unwrap());
        assert!(count > 0 || sender == 9, "behind what was there");
        assert!(last[sender].replace(number) < Some(number), "in order");
        count += 1;
    }
    assert_eq!(count, 31);
    let left = trunk.written(batch.advance(batch.len()));
    assert_eq!(left, held + first.len() as u64);
    assert!(trunk.is_idle());
}

#[test]
fn answers_are_bounded_too() {
    let mut queue = Queue::<()>::new(config());
    let urgent = (0..).take_while(|_| queue.push_urgent(&[1])).count();
    let answers = (0..).take_while(|_| queue.push_answer(&[2])).count();
    assert_eq!((urgent, answers), (64, 256));
    queue.close();
    assert!(queue.push_answer(&[2]), "nobody waits for it");
}
