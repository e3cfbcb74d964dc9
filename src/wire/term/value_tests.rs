//! Terms and values, against what a real VM writes and at the edges.

use super::samples::{SAMPLES, bytes, sample};
use super::{
    Form, Opaque, Pid, Reference, Term, TermError, TermLimits, Value, Words, elide, inline, scan,
};
use crate::limits::{MAX_TERM_DEPTH, OUT_OF_BAND_BYTES};
use bytes::Bytes;
use num_bigint::BigInt;

fn external(hex: &str) -> Term {
    Term::from_external(bytes(hex)).unwrap()
}

/// The complete encoding.
fn encoded(value: &Value) -> Vec<u8> {
    value.encode().unwrap().to_external()
}

#[test]
fn real_terms_decode_and_encode_again() {
    for (name, ..) in SAMPLES {
        let value = Term::from_external(sample(name)).unwrap().decode();
        let again = value.encode().unwrap();
        assert_eq!(again.decode(), value, "{name}");
    }
}

#[test]
fn real_terms_mean_what_they_meant() {
    let node = "nonode@nohost";
    assert_eq!(
        Term::from_external(bytes(SAMPLES[0].1)).unwrap().decode(),
        Value::Pid(Pid {
            node: node.into(),
            id: 9,
            serial: 0,
            creation: 0
        })
    );
    let reference = SAMPLES.iter().find(|(name, ..)| *name == "ref").unwrap();
    let Value::Reference(decoded) = external(reference.1).decode() else {
        panic!()
    };
    let printed = reference
        .2
        .trim_start_matches("#Ref<0.")
        .trim_end_matches('>');
    let reversed: Vec<_> = decoded.words.iter().rev().map(u32::to_string).collect();
    assert_eq!(reversed.join("."), printed);
    assert_eq!(decoded.words.len(), 3);

    let Value::Tuple(misc) = Term::from_external(sample("misc")).unwrap().decode() else {
        panic!()
    };
    let [atom, empty] = [Value::atom("a"), Value::List(vec![])];
    let expected = vec![
        atom.clone(),
        Value::atom("ä"),
        Value::atom("日本"),
        (-1).into(),
        255.into(),
        256.into(),
        i32::MIN.into(),
        2_147_483_648u32.into(),
        Value::integer(BigInt::from(1) << 64),
        Value::integer(BigInt::from(-1) << 200),
        1.5.into(),
        (-0.0).into(),
        Value::binary(&b""[..]),
        Value::binary(&b"bin"[..]),
        Value::Bits {
            bytes: vec![0xa0],
            last_bits: 3,
        },
        empty,
        Value::string("abc"),
        Value::list([1.into(), (-1).into()]),
        Value::ImproperList(vec![atom], Box::new(Value::atom("b"))),
        Value::Map(vec![
            (2.into(), Value::tuple([])),
            (Value::atom("k"), Value::list([1.0.into()])),
        ]),
        Value::tuple([1.into(), 2.into(), 3.into()]),
    ];
    assert_eq!(misc.len(), expected.len());
    for (got, wanted) in misc.iter().zip(&expected) {
        match (got, wanted) {
            (Value::Map(got), Value::Map(wanted)) => {
                assert_eq!(got.len(), wanted.len());
                assert!(wanted.iter().all(|pair| got.contains(pair)));
            }
            _ => assert_eq!(got, wanted),
        }
    }
}

#[test]
fn encodings_are_those_of_the_vm() {
    // By erl_ext_dist; atoms are written in UTF-8 since OTP 26.
    let cases: [(Value, &str); 14] = [
        (255.into(), "61ff"),
        (256.into(), "6200000100"),
        ((-1).into(), "62ffffffff"),
        (i32::MIN.into(), "6280000000"),
        (2_147_483_648u32.into(), "6e040000000080"),
        (i64::MIN.into(), "6e08010000000000000080"),
        (u64::MAX.into(), "6e0800ffffffffffffffff"),
        (Value::atom("ä"), "7702c3a4"),
        (1.5.into(), "463ff8000000000000"),
        (Value::string("abc"), "6b0003616263"),
        (Value::list([(-1).into()]), "6c0000000162ffffffff6a"),
        (Value::list([]), "6a"),
        (Value::tuple([]), "6800"),
        (Value::Map(vec![]), "7400000000"),
    ];
    for (value, hex) in cases {
        assert_eq!(encoded(&value), bytes(&format!("83{hex}")), "{value:?}");
    }
    let long: Vec<Value> = vec![7.into(); 65_536];
    assert_eq!(encoded(&Value::List(long.clone()))[1], 108);
    assert_eq!(encoded(&Value::List(long[1..].to_vec()))[1], 107);
    assert_eq!(encoded(&Value::Tuple(long[..255].to_vec()))[1], 104);
    assert_eq!(encoded(&Value::Tuple(long[..256].to_vec()))[1], 105);
    assert_eq!(encoded(&Value::integer(BigInt::from(1) << 2039))[1], 110);
    assert_eq!(encoded(&Value::integer(BigInt::from(1) << 2040))[1], 111);
}

#[test]
fn values_that_erlang_has_no_room_for() {
    let refused = |value: Value| value.encode().unwrap_err();
    assert_eq!(
        refused(Value::atom(&"a".repeat(256))),
        TermError::AtomLength
    );
    assert_eq!(refused(f64::NAN.into()), TermError::Float);
    let bits = Value::Bits {
        bytes: Vec::new(),
        last_bits: 3,
    };
    assert_eq!(refused(bits), TermError::Bits(3));
    for words in [vec![], vec![0; 6]] {
        let count = words.len() as u32;
        let refused = Words::try_from(&words[..]).unwrap_err();
        assert_eq!(refused, TermError::Reference(count));
    }
    assert!(Opaque::from_bytes(Bytes::from_static(&[106])).is_err());
    assert!(Opaque::export(&"a".repeat(256), "f", 0).is_err());
}

fn nested(depth: u32, wrap: impl Fn(Value) -> Value) -> Value {
    (0..depth).fold(Value::atom("x"), |inner, _| wrap(inner))
}

#[test]
fn the_deepest_term_fits_a_small_stack() {
    let work = || {
        let wraps: [fn(Value) -> Value; 4] = [
            |inner| Value::tuple([inner]),
            |inner| Value::list([inner]),
            |inner| Value::ImproperList(vec![inner], Box::new(Value::atom("t"))),
            |inner| Value::Map(vec![(inner, 1.into())]),
        ];
        for wrap in wraps {
            let value = nested(MAX_TERM_DEPTH, wrap);
            let term = value.encode().unwrap();
            let decoded = Term::from_external(term.to_external()).unwrap().decode();
            assert_eq!(decoded, value);
            assert!(format!("{:?}", decoded.clone()).contains("Atom"));
            let foreign = eetf::Term::try_from(&decoded).unwrap();
            assert_eq!(Value::try_from(&foreign).unwrap(), value);
            let deeper = nested(MAX_TERM_DEPTH + 1, wrap);
            assert_eq!(deeper.encode(), Err(TermError::Depth(MAX_TERM_DEPTH)));
        }
    };
    let thread = std::thread::Builder::new()
        .stack_size(2 << 20)
        .spawn(work)
        .unwrap();
    thread.join().unwrap();
}

#[test]
fn large_binaries_are_not_copied() {
    let large = Bytes::from(vec![1; OUT_OF_BAND_BYTES]);
    let small = large.slice(1..);
    let value = Value::tuple([large.clone().into(), small.into(), large.clone().into()]);
    let term = value.encode().unwrap();
    assert_eq!(term.form(), Form::Elided);
    assert_eq!(term.blobs().len(), 2);
    assert!(
        term.blobs()
            .iter()
            .all(|blob| blob.as_ptr() == large.as_ptr())
    );
    let decoded = term.decode();
    let first = decoded.as_tuple().unwrap()[0].as_binary().unwrap();
    assert_eq!(first.as_ptr(), large.as_ptr());

    let skeleton = term.skeleton().clone();
    let parts = |blobs: Vec<Bytes>| Term::from_parts(skeleton.clone(), blobs);
    parts(vec![large.clone(), large.clone()]).unwrap();
    assert_eq!(parts(vec![large.clone()]), Err(TermError::BlobMismatch));
    let other = large.slice(1..);
    assert_eq!(
        parts(vec![large.clone(), other]),
        Err(TermError::BlobMismatch)
    );
    // Without its binaries the term is none.
    assert!(parts(vec![]).is_err());
    assert_eq!(
        inline(&skeleton, &vec![large; 3]),
        Err(TermError::BlobMismatch)
    );
}

#[test]
fn parts_that_only_look_like_binaries_stay_in() {
    let large = Bytes::from(vec![106; OUT_OF_BAND_BYTES]);
    let header = [&[109][..], &(large.len() as u32).to_be_bytes()].concat();
    // {<<109,Size:32>>, nil, ...}: the end of a small binary looks like a header.
    let mut start = vec![131, 105];
    start.extend((large.len() as u32 + 1).to_be_bytes());
    start.extend([109, 0, 0, 0, 5]);
    start.extend(&header);
    let parts = [start.into(), large.clone()];
    let elided = elide(&parts);
    assert_eq!((elided.form, elided.blobs.len()), (Form::Whole, 0));
    assert_eq!(elided.skeleton, parts.concat());
    Term::from_external(elided.skeleton).unwrap();
    // A binary inside a fun stays there.
    let mut fun = bytes("83 70 00000000 00 00000000000000000000000000000000 00000000 00000001");
    fun.extend(bytes(
        "77016d 6100 6100 58 77016e 00000001 00000000 00000001",
    ));
    fun.extend(&header);
    let size = (fun.len() - 2 + large.len()) as u32;
    fun[2..6].copy_from_slice(&size.to_be_bytes());
    let parts = [fun.into(), large];
    let elided = elide(&parts);
    assert_eq!(elided.form, Form::Whole);
    let term = Term::from_external(elided.skeleton).unwrap();
    assert!(matches!(term.decode(), Value::Fun(_)));
    assert_eq!(elide(&[]).form, Form::Whole);
}

#[test]
fn old_and_odd_encodings_decode() {
    assert_eq!(external("83 6c00000000 6105").decode(), 5.into());
    assert_eq!(
        external("83 4d0000000108ff").decode(),
        Value::binary(&[255][..])
    );
    assert_eq!(external("83 6e0007").decode(), 0.into());
    assert_eq!(external("83 6f0000000101ff").decode(), (-255).into());
    assert_eq!(external("83 6b0000").decode(), Value::list([]));
    assert_eq!(
        external("83 6c00000001 6101 6c00000001 6102 6a").decode(),
        Value::list([1.into(), 2.into()])
    );
    let port = external("83 78 77016e 0000000100000002 00000003").decode();
    let Value::Port(port) = port else { panic!() };
    assert_eq!((port.id, port.creation), ((1 << 32) + 2, 3));
}

#[test]
fn accessors() {
    let key = Value::atom("key");
    let value = Value::Map(vec![(key.clone(), Value::string("text"))]);
    assert_eq!(
        value.get(&key).and_then(Value::as_string).as_deref(),
        Some("text")
    );
    assert_eq!(value.get(&Value::atom("other")), None);
    assert!(key.is_atom("key"));
    assert_eq!(Value::from(true).as_atom(), Some("true"));
    assert_eq!(key.as_i64(), None);
    let term = Term::try_from(&value).unwrap();
    assert!(format!("{term:?}").starts_with("Term("));
}

#[test]
fn heap_is_not_underestimated() {
    // Words that `erts_debug:flat_size/1` tells on OTP 25.
    let maps = [
        (0, 3),
        (1, 6),
        (32, 68),
        (33, 127),
        (100, 366),
        (1000, 3710),
        (100_000, 377_270),
    ];
    let map = |pairs: i64| Value::Map((0..pairs).map(|key| (key.into(), key.into())).collect());
    let mut measured: Vec<_> = maps.map(|(pairs, words)| (map(pairs), words)).into();
    let binaries = [(0, 2), (1, 3), (9, 4), (64, 10), (65, 6), (1000, 6)];
    measured.extend(binaries.map(|(length, words)| (Value::binary(vec![0; length]), words)));
    let bits = |bytes| Value::Bits {
        bytes: vec![0; bytes],
        last_bits: 1,
    };
    measured.extend([(bits(1), 8), (bits(64), 15), (1.0.into(), 2)]);
    measured.push((Value::integer(BigInt::from(1) << 128), 4));
    measured.push((Value::Fun(Opaque::export("a", "b", 3).unwrap()), 5));
    let reference = |words| Reference {
        node: "a@b".into(),
        creation: 1,
        words: vec![1; words].as_slice().try_into().unwrap(),
    };
    measured.push((reference(5).into(), 6));
    for (value, words) in measured {
        let term = value.encode().unwrap();
        let facts = scan(
            term.skeleton(),
            Form::Whole,
            &TermLimits::default(),
            &mut (),
        )
        .unwrap();
        let estimated = facts.heap_words;
        assert!(
            (words..=words * 2 + 4).contains(&estimated),
            "{value:?}: {estimated}"
        );
    }
}

/// Prints what the scan of a small message costs. Run it with `--release --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn cost_of_a_scan() {
    let value = Value::tuple([
        Value::atom("message"),
        42.into(),
        Value::binary(vec![7; 64]),
    ]);
    let small = value.encode().unwrap().to_external();
    let pid = sample("pid");
    for (name, term) in [("small", &small), ("pid", &pid), ("misc", &sample("misc"))] {
        let rounds = 2_000_000;
        let start = std::time::Instant::now();
        for _ in 0..rounds {
            let term = std::hint::black_box(&term[..]);
            let facts = scan(term, Form::Elided, &TermLimits::default(), &mut ());
            std::hint::black_box(facts.unwrap());
        }
        println!("{name}: {} ns", start.elapsed().as_nanos() / rounds);
    }
}
