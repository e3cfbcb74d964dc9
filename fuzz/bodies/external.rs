//! Terms as stock nodes write them: what the two readers make of one must be the same.

use bytes::Bytes;
use partisan::wire::term::{Form, Start, Term, TermError, TermLimits, Value, normalise, scan};
use std::sync::Arc;

/// First byte: bit 0 a version byte leads; bits 1 to 7 the number of cached atoms.
pub fn run(data: &[u8]) {
    let Some((&mode, term)) = data.split_first() else {
        return;
    };
    let start = if mode & 1 == 0 {
        Start::Bare
    } else {
        Start::Version
    };
    let atoms: Vec<Arc<str>> = (0..mode >> 1).map(|n| format!("atom_{n}").into()).collect();
    let bytes = Bytes::copy_from_slice(term);
    let limits = TermLimits {
        heap_bytes: 16 << 20,
        ..TermLimits::default()
    };
    let normal = normalise(&bytes, start, &atoms, &limits);
    let value = Value::decode(&bytes, start, &atoms, &limits);
    let (term, value) = match (normal, value) {
        (Ok((term, length)), Ok((value, same))) => {
            assert_eq!(length, same);
            assert!(length <= bytes.len());
            (term, value)
        }
        (Err(normal), Err(value)) => {
            let _ = (normal.to_string(), value.to_string());
            return;
        }
        // They count different heaps.
        (Err(TermError::Heap(_)), Ok(_)) | (Ok(_), Err(TermError::Heap(_))) => return,
        (normal, value) => panic!("{normal:?} but {value:?}"),
    };
    assert_eq!(term.decode(), value);
    assert_eq!(term.view().to_value(), value);
    let facts = scan(
        term.skeleton(),
        term.form(),
        &TermLimits::default(),
        &mut (),
    );
    facts.expect("a canonical term");
    let again = value.encode().expect("a decoded value can be encoded");
    assert_eq!(again.decode(), value);
    let mut bare = Vec::new();
    value.encode_bare(&mut bare).expect("likewise");
    let whole = again.to_external();
    assert_eq!(bare, whole[1..]);
    scan(&whole, Form::Whole, &TermLimits::default(), &mut ()).expect("our own encoding");
    let mut alone = value.clone();
    alone.detach();
    assert_eq!(alone, value);
    assert_eq!(Term::from_external(whole).expect("scanned"), again);
}
