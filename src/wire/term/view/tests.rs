//! Reading in place, next to what decoding says.

use super::super::{Atom, Facts, Form, Pid, Reference, Start, Term, TermLimits, Value, normalise};
use super::{List, View};
use crate::limits::{MAX_TERM_DEPTH, OUT_OF_BAND_BYTES};
use bytes::Bytes;
use std::time::{Duration, Instant};

fn list(term: &Term) -> List<'_> {
    term.view().as_list().unwrap()
}

fn external(bytes: &[u8]) -> Term {
    Term::from_external([&[131], bytes].concat()).unwrap()
}

#[test]
fn a_call_is_taken_apart() {
    let pid = Pid {
        node: "a@host".into(),
        id: 7,
        serial: 8,
        creation: 9,
    };
    let reference = Reference {
        node: "a@host".into(),
        creation: 9,
        words: [1, 2, 3].into(),
    };
    let tag = Value::ImproperList(vec![Value::atom("alias")], Box::new((&reference).into()));
    let from = Value::tuple(vec![(&pid).into(), tag]);
    let request = Value::Map(vec![
        (Value::from(1), Value::list(vec![Value::from(2.5)])),
        (Value::atom("key"), Value::binary(&b"joe"[..])),
    ]);
    let call = Value::tuple(vec![Value::atom("$gen_call"), from, request]);
    let term = call.encode().unwrap();

    let [kind, from, request] = term.view().as_tuple().unwrap();
    assert!(kind.is_atom("$gen_call"));
    assert!(!kind.is_atom("$gen_cast"));
    assert_eq!(kind.as_atom().as_deref(), Some("$gen_call"));
    let [caller, tag] = from.as_tuple().unwrap();
    assert!(caller.as_pid().unwrap() == pid);
    assert_eq!(Pid::from(caller.as_pid().unwrap()), pid);
    let tag = tag.as_list().unwrap();
    assert!(tag.iter().next().unwrap().is_atom("alias"));
    assert!(tag.tail().unwrap().as_reference().unwrap() == reference);
    let request = request.as_map().unwrap();
    assert_eq!(request.get("key").unwrap().as_binary(), Some(&b"joe"[..]));
    assert!(request.get("kez").is_none());
    assert_eq!(request.iter().count(), 2);
    assert!(term.view().as_tuple::<2>().is_none());
    assert!(term.view().as_i64().is_none());
    assert_eq!(term.view().to_string(), call.to_string());
    assert_eq!(format!("{:?}", term.view()), format!("{call:?}"));
}

#[test]
fn a_list_goes_on_in_its_tail() {
    // [1 | [2 | "ab"]] with a list of no elements between.
    let proper = [
        &[108, 0, 0, 0, 1, 97, 1][..],
        &[108, 0, 0, 0, 1, 97, 2],
        &[108, 0, 0, 0, 0, 107, 0, 2, b'a', b'b'],
    ];
    let term = external(&proper.concat());
    let numbers: Vec<_> = list(&term).iter().map(|view| view.as_i64()).collect();
    assert_eq!(numbers, [Some(1), Some(2), Some(97), Some(98)]);
    assert!(list(&term).tail().is_none());
    assert_eq!(list(&term).text().as_deref(), Some("\u{1}\u{2}ab"));
    assert_eq!(term.view().to_value(), term.decode());

    let improper = external(&[&proper[..2].concat()[..], &[119, 1, b'x']].concat());
    assert_eq!(list(&improper).iter().count(), 2);
    assert!(list(&improper).tail().unwrap().is_atom("x"));
    assert_eq!(list(&improper).text(), None);

    let empty = external(&[106]);
    assert!(list(&empty).is_empty() && list(&empty).tail().is_none());
    let only_tail = external(&[108, 0, 0, 0, 0, 97, 7]);
    assert_eq!(only_tail.view().as_i64(), Some(7));
}

#[test]
fn latin1_is_read_as_text() {
    // 'ä' and 'a' in the encoding of OTP 25.
    let term = external(&[104, 2, 100, 0, 1, 0xe4, 115, 1, b'a']);
    let [umlaut, plain] = term.view().as_tuple().unwrap();
    assert!(umlaut.is_atom("ä") && !umlaut.is_atom("a") && !umlaut.is_atom("Ã¤"));
    assert_eq!(umlaut.as_atom().as_deref(), Some("ä"));
    assert!(plain.is_atom("a"));
    assert_eq!(Value::from(plain), Value::Atom(Atom::from("a")));
}

#[test]
fn binaries_share_the_memory_of_the_term() {
    let bytes = Value::tuple(vec![
        Value::binary(vec![1; OUT_OF_BAND_BYTES]),
        Value::binary(vec![2; 40]),
    ]);
    let elided = bytes.encode().unwrap();
    let whole = Term::from_external(elided.to_external()).unwrap();
    assert_eq!((whole.form(), elided.form()), (Form::Whole, Form::Elided));
    for term in [&whole, &elided] {
        let [large, small] = term.view().as_tuple().unwrap();
        let (View::Binary(large), View::Binary(small)) = (large, small) else {
            panic!("{term:?}");
        };
        assert_eq!((large.len(), small.len()), (OUT_OF_BAND_BYTES, 40));
        assert_eq!(large.to_bytes().as_ptr(), large.bytes().as_ptr());
        assert_eq!(small.to_bytes().as_ptr(), small.bytes().as_ptr());
        assert_eq!(term.view().to_value(), bytes);
    }
}

/// Leaves of a term, read as a program that knows the shape reads it: all elements at once, and
/// then what is in them.
fn leaves(view: View<'_>) -> u64 {
    match view {
        View::Tuple(pair) if pair.len() == 2 => {
            let [left, right] = pair.elements().unwrap();
            leaves(left) + leaves(right)
        }
        View::List(all) => all.iter().map(leaves).sum(),
        _ => 1,
    }
}

/// Nested on the left as deep as a term may be, with `width` leaves and a large binary in the
/// middle.
fn deep(width: usize) -> Term {
    let mut bytes = Vec::new();
    for _ in 1..MAX_TERM_DEPTH {
        bytes.extend([104, 2]);
    }
    bytes.extend([108]);
    bytes.extend((width as u32).to_be_bytes());
    (0..width).for_each(|_| bytes.extend([119, 1, b'x']));
    bytes.push(106);
    for _ in 1..MAX_TERM_DEPTH {
        bytes.extend([109]);
        bytes.extend((OUT_OF_BAND_BYTES as u32).to_be_bytes());
        bytes.extend([7; OUT_OF_BAND_BYTES]);
    }
    let limits = TermLimits::default();
    normalise(&Bytes::from(bytes), Start::Bare, &[], &limits)
        .unwrap()
        .0
}

#[test]
fn deep_terms_are_read_in_linear_time() {
    const WIDTH: usize = 300_000;
    let term = deep(WIDTH);
    // Every level holds that one: stepping over it as often as there are levels takes minutes.
    let steps = u64::from(MAX_TERM_DEPTH) * WIDTH as u64;
    let start = Instant::now();
    let found = leaves(term.view());
    assert_eq!(found, WIDTH as u64 + u64::from(MAX_TERM_DEPTH) - 1);
    let took = start.elapsed();
    assert!(took < Duration::from_nanos(steps), "{took:?}");
    assert_eq!(term.view().to_value(), term.decode());
}

#[test]
fn what_was_never_checked_ends_the_reading() {
    // Counts that nothing stands behind, and nesting without end.
    let facts = Facts::default();
    let tuple = [131, 105, 255, 255, 255, 255, 97, 1];
    let list = [131, 108, 255, 255, 255, 255, 97, 1];
    let map = [131, 116, 255, 255, 255, 255, 97, 1, 97, 2];
    let record = [131, 67, 255, 255, 255, 255, 0, 119, 0, 119, 0, 119, 0];
    let nested = [&[131][..], &[104, 1].repeat(100_000), &[106]].concat();
    let empty_lists = [&[131][..], &[108, 0, 0, 0, 0].repeat(100_000)].concat();
    let all = [
        &tuple[..],
        &list,
        &map,
        &record,
        &nested,
        &empty_lists,
        &[131],
        &[],
    ];
    for bytes in all {
        let term = Term::from_scanned(bytes.to_vec(), Vec::new(), &facts).unwrap();
        let value = term.view().to_value();
        assert!(format!("{value:?}").len() < 100_000);
        let _ = leaves(term.view());
    }
}
