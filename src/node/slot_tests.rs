//! Mailboxes against a model: what comes out, in which order, and what is counted.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::signals::Notice;
use crate::wire::dist::Target;
use crate::wire::handshake::SessionId;
use crate::wire::term::{Atom, Value};

const PROCESS: Local = Local { id: 1, serial: 0 };

fn term(number: u64) -> Term {
    // Of different sizes.
    let filling = vec![0; number as usize % 50];
    Value::tuple([Value::Integer(number as i64), Value::binary(filling)])
        .encode()
        .unwrap()
}

fn message(number: u64) -> Message {
    Message::of_session("n@host".into(), Some(SessionId([7; 16])), term(number))
}

fn number(message: &Message) -> u64 {
    let value = message.term.decode();
    match value.as_tuple() {
        Some([Value::Integer(number), _]) => *number as u64,
        _ => panic!("{value:?}"),
    }
}

fn bytes_of(number: u64) -> u64 {
    cost_of(&term(number))
}

fn run(numbers: impl Iterator<Item = u64>) -> Run {
    let mut terms = Vec::new();
    for number in numbers {
        Run::append(&mut terms, term(number).skeleton());
    }
    Run::new("n@host".into(), SessionId([7; 16]), &terms)
}

fn mailbox(capacity: u64) -> (Arc<Slot>, Intake) {
    let slot = Arc::new(Slot::new(PROCESS, None, capacity));
    (slot.clone(), Intake::new(slot))
}

fn counted(slot: &Slot) -> u64 {
    slot.state.lock().bytes
}

/// As an I/O thread does: room first, then the messages.
fn bring(slot: &Slot, numbers: &[u64], most: u64) -> usize {
    let Some(&first) = numbers.first() else {
        return 0;
    };
    let Ok(mut room) = slot.reserve(bytes_of(first), most, || None) else {
        return 0;
    };
    let fits = |number: &&u64| {
        let bytes = bytes_of(**number);
        let fits = bytes <= room;
        room -= if fits { bytes } else { 0 };
        fits
    };
    let numbers: Vec<u64> = numbers.iter().take_while(fits).copied().collect();
    assert!(slot.put_run(run(numbers.iter().copied()), room));
    numbers.len()
}

fn take(intake: &mut Intake) -> Option<u64> {
    intake.take().map(|message| number(&message))
}

#[derive(Clone, Debug)]
enum Step {
    Put,
    Run(u64),
    Urgent,
    Force,
    Take,
    Keep,
    Consume,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => Just(Step::Put),
        3 => (0..20_u64).prop_map(Step::Run),
        1 => Just(Step::Urgent),
        1 => Just(Step::Force),
        8 => Just(Step::Take),
        1 => Just(Step::Keep),
        1 => Just(Step::Consume),
    ];
    proptest::collection::vec(step, 0..120)
}

proptest! {
    #[test]
    fn a_mailbox_is_a_queue(steps in steps(), capacity in 1..4_000_u64) {
        let (slot, mut intake) = mailbox(capacity);
        let (mut urgent, mut rest) = (VecDeque::new(), VecDeque::new());
        let mut kept = Vec::new();
        let mut next = 0;
        for step in steps {
            let numbers: Vec<u64> = match step {
                Step::Run(n) => (next..next + n).collect(),
                _ => vec![next],
            };
            next += numbers.len() as u64;
            let room = |slot: &Slot| slot.admit(term(numbers[0]).len(), 0, None).is_ok();
            match step {
                Step::Put if room(&slot) => {
                    slot.put(message(numbers[0]));
                    rest.push_back(numbers[0]);
                }
                Step::Urgent if room(&slot) => {
                    slot.put_urgent(message(numbers[0]));
                    urgent.push_back(numbers[0]);
                }
                Step::Put | Step::Urgent => prop_assert!(counted(&slot) >= capacity),
                Step::Run(_) => {
                    let taken = bring(&slot, &numbers, 700);
                    rest.extend(numbers[..taken].iter().copied());
                }
                Step::Force => {
                    slot.force(message(numbers[0]));
                    rest.push_back(numbers[0]);
                }
                Step::Take => {
                    let expected = urgent.pop_front().or_else(|| rest.pop_front());
                    prop_assert_eq!(take(&mut intake), expected);
                }
                Step::Keep => {
                    let expected = urgent.pop_front().or_else(|| rest.pop_front());
                    let got = intake.take_kept().map(|message| number(&message));
                    prop_assert_eq!(got, expected);
                    kept.extend(got);
                }
                Step::Consume => {
                    if let Some(number) = kept.pop() {
                        slot.consumed(bytes_of(number));
                    }
                }
            }
            let waiting = urgent.iter().chain(&rest).chain(&kept);
            let bytes: u64 = waiting.map(|&number| bytes_of(number)).sum();
            prop_assert_eq!(counted(&slot), bytes + intake.spent);
            prop_assert!(intake.spent <= capacity / SPENT_PART);
        }
        while let Some(expected) = urgent.pop_front().or_else(|| rest.pop_front()) {
            prop_assert_eq!(take(&mut intake), Some(expected));
        }
        slot.close(false);
        prop_assert_eq!(take(&mut intake), None);
        prop_assert!(intake.is_over());
        prop_assert_eq!(counted(&slot), kept.iter().map(|&n| bytes_of(n)).sum::<u64>());
    }
}

#[test]
fn an_urgent_message_overtakes_what_was_taken_out() {
    let (slot, mut intake) = mailbox(1 << 20);
    assert_eq!(bring(&slot, &[0, 1, 2], 1 << 10), 3);
    assert_eq!(take(&mut intake), Some(0));
    for number in [10, 11] {
        slot.admit(term(number).len(), 0, None).unwrap();
        slot.put_urgent(message(number));
    }
    let rest: Vec<u64> = std::iter::from_fn(|| take(&mut intake)).collect();
    assert_eq!(rest, [10, 11, 1, 2]);
    assert_eq!(counted(&slot), 0);
}

#[test]
fn nothing_comes_out_of_a_process_that_was_ended() {
    let (slot, mut intake) = mailbox(1 << 20);
    assert_eq!(bring(&slot, &[0, 1, 2], 1 << 10), 3);
    assert_eq!(take(&mut intake), Some(0));
    slot.kill(term(99));
    assert_eq!(take(&mut intake), None);
    assert!(intake.is_over());
    assert!(!slot.put_run(run(3..5), 0), "they are lost");
    assert_eq!(take(&mut intake), None);
}

#[test]
fn what_was_there_comes_out_when_the_node_has_stopped() {
    let (slot, mut intake) = mailbox(1 << 20);
    assert_eq!(bring(&slot, &[0, 1], 1 << 10), 2);
    slot.close(false);
    assert_eq!(bring(&slot, &[2], 1 << 10), 0);
    assert_eq!((take(&mut intake), take(&mut intake)), (Some(0), Some(1)));
    assert!(!intake.is_over(), "not seen yet");
    assert_eq!(take(&mut intake), None);
    assert!(intake.is_over());
}

#[test]
fn a_monitor_s_notice_is_found_wherever_it_is() {
    let reference = |number| Reference {
        node: "n@host".into(),
        creation: 1,
        words: [number, 0, 0].into(),
    };
    let down = |number| {
        let notice = Notice::Down {
            reference: reference(number),
            node: "n@host".into(),
            process: Target::Name(Atom::new("p")),
            reason: term(0),
        };
        Message {
            notice: Some(Box::new(notice)),
            ..message(100 + u64::from(number))
        }
    };
    let (slot, mut intake) = mailbox(1 << 20);
    slot.force(message(0));
    slot.force(down(1));
    slot.force(message(1));
    assert_eq!(take(&mut intake), Some(0));
    slot.force(down(2));
    intake.remove_down(&reference(1));
    intake.remove_down(&reference(2));
    intake.remove_down(&reference(3));
    assert_eq!((take(&mut intake), take(&mut intake)), (Some(1), None));
    assert_eq!(counted(&slot), 0);
}
