//! Terms as stock nodes write them: every tag, and what would kill a careless reader.

use super::property_tests::compressed;
use super::samples::bytes;
use super::{
    Atom, Form, Opaque, Pid, Port, Record, Reference, Start, Term, TermError, TermLimits, Value,
    normalise, scan,
};
use crate::limits::{MAX_INFLATED_BYTES, MAX_TERM_DEPTH, OUT_OF_BAND_BYTES};
use bytes::Bytes;
use std::sync::Arc;

fn limits() -> TermLimits {
    TermLimits::default()
}

/// Both readers' result, which has to be one.
fn read(bytes: &[u8], start: Start, atoms: &[Arc<str>]) -> Result<(Value, usize), TermError> {
    let bytes = Bytes::copy_from_slice(bytes);
    let value = Value::decode(&bytes, start, atoms, &limits());
    let normal = normalise(&bytes, start, atoms, &limits());
    match (&value, &normal) {
        (Ok((value, length)), Ok((term, same_length))) => {
            assert_eq!(length, same_length);
            assert_eq!(*value, term.decode());
            scan(term.skeleton(), term.form(), &limits(), &mut ()).unwrap();
        }
        (Err(error), Err(same)) => assert_eq!(
            std::mem::discriminant(error),
            std::mem::discriminant(same),
            "{error} but {same}"
        ),
        _ => panic!("{value:?} but {normal:?}"),
    }
    value
}

fn refused(bytes: &[u8]) -> TermError {
    read(bytes, Start::Version, &[]).unwrap_err()
}

#[test]
fn every_tag_is_read() {
    let pid = |creation| {
        Value::Pid(Pid {
            node: "n".into(),
            id: 1,
            serial: 2,
            creation,
        })
    };
    let port = |id, creation| {
        Value::Port(Port {
            node: "n".into(),
            id,
            creation,
        })
    };
    let reference = |creation, words: &[u32]| {
        Value::from(Reference {
            node: "n".into(),
            creation,
            words: words.try_into().unwrap(),
        })
    };
    let one = || Value::from(1);
    let cases = [
        ("6101", one()),
        ("62ffffff00", (-256).into()),
        // FLOAT_EXT and NEW_FLOAT_EXT
        (
            "63312E3530303030303030303030303030303030303030652B30300000000000",
            1.5.into(),
        ),
        ("463ff8000000000000", 1.5.into()),
        // ATOM_EXT, SMALL_ATOM_EXT in Latin-1, ATOM_UTF8_EXT, SMALL_ATOM_UTF8_EXT
        ("640001e4", Value::atom("ä")),
        ("7302e461", Value::atom("äa")),
        ("760002c3a4", Value::atom("ä")),
        ("7702c3a4", Value::atom("ä")),
        // PID_EXT, NEW_PID_EXT
        ("6773016e000000010000000203", pid(3)),
        ("5877016e000000010000000200000003", pid(3)),
        // PORT_EXT, NEW_PORT_EXT, V4_PORT_EXT
        ("6673016e0000000103", port(1, 3)),
        ("5977016e0000000100000003", port(1, 3)),
        ("7877016e000000010000000200000003", port(1 << 32 | 2, 3)),
        // REFERENCE_EXT, NEW_REFERENCE_EXT, NEWER_REFERENCE_EXT
        ("6573016e0000000703", reference(3, &[7])),
        ("72000273016e030000000700000008", reference(3, &[7, 8])),
        ("5a000177016e0000000300000007", reference(3, &[7])),
        // SMALL_TUPLE_EXT, LARGE_TUPLE_EXT
        ("6800", Value::tuple([])),
        ("69000000016101", Value::tuple([one()])),
        // NIL_EXT, STRING_EXT, LIST_EXT
        ("6a", Value::list([])),
        ("6b000201ff", Value::list([one(), 255.into()])),
        ("6c0000000161016a", Value::list([one()])),
        (
            "6c0000000161016101",
            Value::ImproperList(vec![one()], Box::new(one())),
        ),
        // BINARY_EXT, BIT_BINARY_EXT
        ("6d0000000178", Value::binary(&b"x"[..])),
        (
            "4d0000000103a0",
            Value::Bits {
                bytes: vec![0xa0],
                last_bits: 3,
            },
        ),
        // SMALL_BIG_EXT, LARGE_BIG_EXT
        ("6e0801ffffffffffffff7f", (-i64::MAX).into()),
        ("6e08010000000000000080", i64::MIN.into()),
        ("6e0800ffffffffffffffff", u64::MAX.into()),
        ("6f000000020000ff", 0xff00.into()),
        // MAP_EXT
        ("740000000161016101", Value::Map(vec![(one(), one())])),
        // EXPORT_EXT
        (
            "7177016d7701666103",
            Value::Fun(Opaque::export("m", "f", 3).unwrap()),
        ),
        // RECORD_EXT
        (
            "43000000020177016d7701727701617701626101 6a",
            Record {
                module: Atom::new("m"),
                name: Atom::new("r"),
                exported: true,
                fields: vec![(Atom::new("a"), one()), (Atom::new("b"), Value::list([]))],
            }
            .into(),
        ),
        (
            "43000000000077016d770172",
            Record {
                module: Atom::new("m"),
                name: Atom::new("r"),
                exported: false,
                fields: vec![],
            }
            .into(),
        ),
        // LOCAL_EXT: a hash, and a tuple of a pid without a node
        (
            "7901020304 6801 586a000000010000000200000000",
            Value::Local(
                Opaque::local(bytes("7901020304 6801 586a000000010000000200000000").into())
                    .unwrap(),
            ),
        ),
    ];
    for (hex, value) in cases {
        let bare = bytes(hex);
        let length = bare.len();
        let expected = (value.clone(), length);
        assert_eq!(read(&bare, Start::Bare, &[]), Ok(expected), "{hex}");
        let whole = [&[131], &bare[..]].concat();
        let expected = (value.clone(), length + 1);
        assert_eq!(read(&whole, Start::Version, &[]), Ok(expected), "{hex}");
        for cut in 0..length {
            assert!(read(&bare[..cut], Start::Bare, &[]).is_err(), "{hex} {cut}");
        }
        let again = value.encode().unwrap();
        assert_eq!(again.decode(), value);
    }
}

#[test]
fn what_is_private_is_echoed_bit_by_bit() {
    let whole = bytes("83 6802 7901020304 6801 586a000000010000000200000000 6101");
    let term = Term::from_external(whole.clone()).unwrap();
    assert_eq!(term.decode().encode().unwrap().to_external(), whole);
    let facts = scan(&whole, Form::Whole, &limits(), &mut ()).unwrap();
    assert!(facts.local && !facts.records);
    assert!(matches!(facts.common(), Err(TermError::Foreign(_))));
    // A node is missing outside of it, or one private term stands in another.
    for hex in [
        "83 586a000000010000000200000000",
        "83 7901020304 7901020304 6a",
    ] {
        assert!(
            matches!(refused(&bytes(hex)), TermError::Tag { .. }),
            "{hex}"
        );
    }
    assert_eq!(Opaque::local(bytes("6a").into()), Err(TermError::Local));
    let longer = bytes("7901020304 6a 6a").into();
    assert_eq!(Opaque::local(longer), Err(TermError::Trailing(1)));
}

#[test]
fn records_tell_their_fields() {
    let whole = bytes("83 43000000010177016d7701727701616105");
    let facts = scan(&whole, Form::Whole, &limits(), &mut ()).unwrap();
    assert!(facts.records && !facts.local);
    assert!(matches!(facts.common(), Err(TermError::Foreign(_))));
    let value = Term::from_external(whole.clone()).unwrap().decode();
    let record = value.as_record().unwrap();
    assert_eq!(record.get("a"), Some(&5.into()));
    assert_eq!(record.get("b"), None);
    assert_eq!(value.encode().unwrap().to_external(), whole);
    let flags = bytes("83 43000000010277016d7701727701616105");
    assert_eq!(refused(&flags), TermError::RecordFlags(2));
    let many = bytes("83 43ffffffff0177016d770172");
    assert!(matches!(refused(&many), TermError::Truncated { .. }));
}

#[test]
fn a_control_tuple_and_a_payload_behind_a_header() {
    let atoms: Vec<Arc<str>> = vec!["a@host".into(), "registry".into(), "ä".into()];
    // {6, Pid, '', registry} and [ä | registry]
    let control = bytes("6804 6106 585200 000000010000000000000003 7700 5201");
    let payload = bytes("6c00000001 5202 5201");
    let packet = Bytes::from([&control[..], &payload].concat());
    let (first, used) = normalise(&packet, Start::Bare, &atoms, &limits()).unwrap();
    assert_eq!(used, control.len());
    let pid = Value::Pid(Pid {
        node: "a@host".into(),
        id: 1,
        serial: 0,
        creation: 3,
    });
    let [name, umlaut] = [Value::atom("registry"), Value::atom("ä")];
    let expected = Value::tuple([6.into(), pid, Value::atom(""), name.clone()]);
    assert_eq!(first.decode(), expected);
    assert_eq!(first.decode().encode().unwrap(), first);
    let rest = packet.slice(used..);
    let (second, used) = normalise(&rest, Start::Bare, &atoms, &limits()).unwrap();
    assert_eq!(used, payload.len());
    let expected = Value::ImproperList(vec![umlaut], Box::new(name));
    assert_eq!(second.decode(), expected);
    assert_eq!(read(&rest, Start::Bare, &atoms).unwrap().0, expected);
    // The same with fewer or no atoms.
    let error = read(&rest, Start::Bare, &atoms[..2]).unwrap_err();
    assert_eq!(error, TermError::CachedAtom(2));
    let error = read(&rest, Start::Bare, &[]).unwrap_err();
    assert!(matches!(error, TermError::Tag { tag: 82, .. }));
}

#[test]
fn large_binaries_are_not_copied() {
    let large = vec![7; OUT_OF_BAND_BYTES];
    let value = Value::tuple([Value::atom("x"), Value::binary(large.clone()), 1.into()]);
    let whole = Bytes::from(value.encode().unwrap().to_external());
    let inside = |part: &[u8], of: &Bytes| of.as_ptr_range().contains(&part.as_ptr());
    // Behind a version byte all of it is a slice; without, the binary is.
    let (term, _) = normalise(&whole, Start::Version, &[], &limits()).unwrap();
    assert_eq!(term.skeleton().as_ptr(), whole.as_ptr());
    let bare = whole.slice(1..);
    let (term, _) = normalise(&bare, Start::Bare, &[], &limits()).unwrap();
    assert_eq!(term.blobs().len(), 1);
    assert!(inside(&term.blobs()[0], &bare) && !inside(term.skeleton(), &bare));
    assert_eq!(term.decode(), value);
    let (decoded, _) = Value::decode(&bare, Start::Bare, &[], &limits()).unwrap();
    let element = |value: &Value| value.as_tuple().unwrap()[1].as_binary().unwrap().clone();
    assert!(inside(&element(&decoded), &bare));
    let mut alone = decoded.clone();
    alone.detach();
    assert!(!inside(&element(&alone), &bare));
    // In a buffer more than four times as large everything is copied.
    let packet = Bytes::from([&whole[..], &vec![0; 5 * large.len()]].concat());
    let (term, used) = normalise(&packet, Start::Version, &[], &limits()).unwrap();
    assert!(used == whole.len() && !inside(term.skeleton(), &packet));
    let bare = packet.slice(1..);
    let (term, _) = normalise(&bare, Start::Bare, &[], &limits()).unwrap();
    assert!(!inside(&term.blobs()[0], &bare));
    assert_eq!(term.decode(), value);
    let (decoded, _) = Value::decode(&bare, Start::Bare, &[], &limits()).unwrap();
    assert!(!inside(&element(&decoded), &bare));
    assert_eq!(decoded, value);
}

#[test]
fn many_improper_lists_beside_each_other() {
    let pair = Value::ImproperList(vec![Value::atom("a")], Box::new(Value::atom("b")));
    let value = Value::list(vec![pair; 2 * MAX_TERM_DEPTH as usize]);
    let bytes = value.encode().unwrap().to_external();
    let length = bytes.len();
    assert_eq!(read(&bytes, Start::Version, &[]), Ok((value, length)));
}

#[test]
fn creations_that_the_old_tags_have_no_room_for() {
    for (head, tail) in [
        ("8365 77016e 00000001", ""),
        ("8366 77016e 00000001", ""),
        ("8367 77016e 0000000100000002", ""),
        ("8372 0001 77016e", "00000001"),
    ] {
        let with = |creation: &str| bytes(&[head, creation, tail].concat().replace(' ', ""));
        assert!(read(&with("03"), Start::Version, &[]).is_ok());
        assert_eq!(refused(&with("04")), TermError::Creation(4));
    }
}

#[test]
fn numbers_that_the_old_references_have_no_room_for() {
    for tag in ["65 77016e NUMBER 03", "72 0001 77016e 03 NUMBER"] {
        let with = |number| {
            bytes(&format!(
                "83{}",
                tag.replace("NUMBER", number).replace(' ', "")
            ))
        };
        assert!(read(&with("0003ffff"), Start::Version, &[]).is_ok());
        assert_eq!(refused(&with("00040000")), TermError::OldReference(1 << 18));
    }
}

#[test]
fn a_key_that_is_written_in_two_ways() {
    let twice = |one: &str, other: &str| {
        let map = format!("8374 00000002 {one} 6101 {other} 6102").replace(' ', "");
        assert_eq!(refused(&bytes(&map)), TermError::DuplicateKey, "{map}");
        // In a fun, and as a key.
        let other = format!("8374 00000001 {} 6101", &map[2..]).replace(' ', "");
        assert_eq!(refused(&bytes(&other)), TermError::DuplicateKey);
    };
    twice("6101", "6e0200 0100");
    twice("640001e4", "7702c3a4");
    twice("6b0001 05", "6c00000001 6105 6a");
    twice("6d00000001 ff", "4d00000001 08 ff");
    twice("4d00000001 04 ff", "4d00000001 04 f0");
    twice("6802 6101 6102", "690000000262000000016102");
    twice("7400000002 6101 6a 6102 6a", "7400000002 6102 6a 6101 6a");
    // References that lack words of zero: [7] and [7, 0, 0] of made@up.
    twice(
        "5a0001 77076d616465407570 00000001 00000007",
        "5a0003 77076d616465407570 00000001 00000007 0000000000000000",
    );
    let apart = bytes("8374000000024600000000000000006a4680000000000000006102");
    assert!(read(&apart, Start::Version, &[]).is_ok());
}

/// Two funs `m` of arity 1, uniq 77, index 3, environment [1], of which this is different: the end of
/// the name of the process that made it, and the last byte of the index.
fn fun_key(creator: &str, index: &str) -> String {
    let uniq = format!("{}4d", "00".repeat(15));
    format!(
        "70 0000003f 01 {uniq} 000000{index} 00000001 77016d 6103 6205000000 \
         58 77076d616465407570 000000{creator} 00000000 00000001 6101"
    )
}

/// To the VM a fun is the same whoever made it (all of OTP 25, 27 and 29, in maps of any size).
#[test]
fn one_fun_made_by_two_processes_is_one_key() {
    let map = |one: &str, other: &str| {
        bytes(&format!("8374 00000002 {one} 6101 {other} 6102").replace(' ', ""))
    };
    let twice = map(&fun_key("01", "03"), &fun_key("02", "03"));
    assert_eq!(refused(&twice), TermError::DuplicateKey);
    let apart = map(&fun_key("01", "03"), &fun_key("01", "04"));
    assert!(read(&apart, Start::Version, &[]).is_ok());
}

#[test]
fn keys_of_keys_of_keys() {
    let nest = |depth: usize| {
        (0..depth).fold(Value::from(1), |key, _| {
            Value::Map(vec![
                (key, Value::from(1)),
                (Value::from(2.5), Value::from(1)),
            ])
        })
    };
    let read = |value: Value| {
        let bytes = value.encode().unwrap().to_external();
        self::read(&bytes, Start::Version, &[]).map(|(value, _)| value)
    };
    assert_eq!(read(nest(20)), Ok(nest(20)));
    assert_eq!(read(nest(1000)), Err(TermError::NestedKeys));
}

#[test]
fn a_record_with_two_fields_of_one_name() {
    let head = "8343 00000002 00 77016d 7701 72".replace(' ', "");
    let record = |names: &str| bytes(&[&head, names, "61016102"].concat());
    assert!(read(&record("770161770162"), Start::Version, &[]).is_ok());
    assert_eq!(
        refused(&record("7702c3a47301e4")),
        TermError::DuplicateField
    );
}

#[test]
fn compressed_by_reference_to_what_is_before() {
    let damaged =
        bytes("835000000117789CCB60CE63656064606060CC076226867FFF473A28016D0E03007AA202D3");
    assert_eq!(
        refused(&damaged),
        TermError::Inflate("it is no zlib stream")
    );
    let mut sum = compressed(&[131, 107, 0, 2, 1, 2], 6);
    *sum.last_mut().unwrap() ^= 1;
    assert_eq!(refused(&sum), TermError::Inflate("it is no zlib stream"));
}

#[test]
fn what_the_vm_has_compressed() {
    // {lists:duplicate(300, abc), binary:copy(<<"x">>, 1000)}, by OTP 25, which wrote atoms in
    // Latin-1.
    let term = bytes(
        "835000000AFD78DACB60CA616060D44961604E4C4A1E2547C95172941C2547C9914966E5323030BF\
         A81805A360140C7B00005675A8EF",
    );
    let list = vec![Value::atom("abc"); 300];
    let value = Value::tuple([Value::list(list), Value::binary(vec![b'x'; 1000])]);
    assert_eq!(read(&term, Start::Version, &[]), Ok((value, term.len())));
}

#[test]
fn compressed_terms_that_lie() {
    let whole = Value::binary(vec![0; 100_000])
        .encode()
        .unwrap()
        .to_external();
    let good = compressed(&whole, 9);
    assert!(good.len() < 200);
    let claiming = |size: u32| {
        let mut bytes = good.clone();
        bytes[2..6].copy_from_slice(&size.to_be_bytes());
        refused(&bytes)
    };
    let size = whole.len() as u32 - 1;
    for lie in [0, 1, size - 1, size + 1, 2 * size] {
        assert!(matches!(claiming(lie), TermError::Inflate(_)), "{lie}");
    }
    assert!(matches!(claiming(1 << 20), TermError::Inflate(_)));
    assert!(matches!(claiming(u32::MAX), TermError::Size { .. }));
    assert!(matches!(
        claiming(MAX_INFLATED_BYTES as u32 + 1),
        TermError::Size { .. }
    ));
    for cut in 2..good.len() {
        assert!(
            matches!(refused(&good[..cut]), TermError::Inflate(_)),
            "{cut}"
        );
    }
    // Two terms in one stream; a compressed one in another; none at all.
    let two = [&whole[..], &[106]].concat();
    assert_eq!(refused(&compressed(&two, 1)), TermError::Trailing(1));
    let nested = compressed(&good, 1);
    assert_eq!(refused(&nested), TermError::Compressed);
    assert!(matches!(
        refused(&compressed(&[131], 1)),
        TermError::Truncated { .. }
    ));
    let bare = read(&good[1..], Start::Bare, &[]).unwrap_err();
    assert_eq!(bare, TermError::Compressed);
}

#[test]
fn a_bomb_of_a_thousand_to_one() {
    // 100 MB of zeros in 100 KB; the claim is honest, then modest.
    let mut whole = vec![131, 109];
    whole.extend(100_000_000u32.to_be_bytes());
    whole.resize(whole.len() + 100_000_000, 0);
    let mut bomb = compressed(&whole, 9);
    drop(whole);
    assert!(matches!(refused(&bomb), TermError::Size { .. }));
    bomb[2..6].copy_from_slice(&1000u32.to_be_bytes());
    assert!(matches!(refused(&bomb), TermError::Inflate(_)));
}

#[test]
fn six_bytes_that_claim_four_billion_elements() {
    for tag in [105, 108, 109, 111, 116, 67] {
        let error = refused(&[131, tag, 255, 255, 255, 255]);
        assert!(matches!(error, TermError::Truncated { .. }), "{tag}");
    }
    // Each within the bytes that follow, but not all of them at once.
    let mut term = vec![131];
    for _ in 0..1000 {
        term.extend([105, 0, 0, 200, 0]);
    }
    term.resize(term.len() + 51_200, 106);
    let term = Bytes::from(term);
    let decoded = Value::decode(&term, Start::Version, &[], &limits());
    assert!(matches!(decoded, Err(TermError::Truncated { .. })));
    assert!(normalise(&term, Start::Version, &[], &limits()).is_err());
}

#[test]
fn a_fun_of_four_billion_variables() {
    let mut fun = vec![131, 112, 0, 0, 0, 0, 1];
    fun.extend([0; 20]);
    fun.extend([255; 4]);
    fun.extend(bytes("77016d 6100 6100 5877016e000000010000000000000001"));
    fun[5] = fun.len() as u8 - 2;
    assert!(matches!(refused(&fun), TermError::Truncated { .. }));
    fun[27..31].fill(0);
    let (value, _) = read(&fun, Start::Version, &[]).unwrap();
    assert!(matches!(value, Value::Fun(_)));
}

#[test]
fn headers_and_references_alone() {
    for tag in [68, 69, 70, 82] {
        assert!(read(&[131, tag], Start::Version, &[]).is_err());
        assert!(read(&[131, tag], Start::Version, &["a".into()]).is_err());
    }
    assert!(matches!(
        refused(&[131, 82, 0]),
        TermError::Tag { tag: 82, .. }
    ));
    assert!(matches!(
        refused(&[131, 68, 0, 106]),
        TermError::Tag { tag: 68, .. }
    ));
}

#[test]
fn a_million_levels() {
    let mut fun = bytes("70 00000000 00");
    fun.extend([0; 20]);
    fun.extend(bytes(
        "00000001 77016d 6100 6100 5877016e000000010000000000000001",
    ));
    let containers: [&[u8]; 6] = [
        &[104, 1],
        &[105, 0, 0, 0, 1],
        &[108, 0, 0, 0, 1],
        &[116, 0, 0, 0, 1, 97, 1],
        // A key, and a tail.
        &[116, 0, 0, 0, 1],
        &[108, 0, 0, 0, 1, 97, 1],
    ];
    for open in containers {
        for levels in [1_000_000, MAX_TERM_DEPTH as usize + 1] {
            let mut term = [&[131], &open.repeat(levels)[..]].concat();
            term.resize(term.len() + 2 * levels + 2, 106);
            assert_eq!(refused(&term), TermError::Depth(1024), "{open:?}");
        }
    }
    // Each fun's size reaches to the end.
    let mut term = vec![131];
    let levels = 1_000_000;
    let total = levels * fun.len();
    for level in 0..levels {
        let size = (total - level * fun.len()) as u32;
        fun[1..5].copy_from_slice(&size.to_be_bytes());
        term.extend(&fun);
    }
    term.push(106);
    assert_eq!(refused(&term), TermError::Depth(1024));
    let mut local = [121, 0, 0, 0, 0].repeat(1_000_000);
    local.push(106);
    assert!(matches!(
        read(&local, Start::Bare, &[]),
        Err(TermError::Tag { tag: 121, .. })
    ));
    // As deep as allowed, and the value comes out of it.
    let mut term = [104, 1].repeat(MAX_TERM_DEPTH as usize);
    term.push(106);
    let (value, _) = read(&term, Start::Bare, &[]).unwrap();
    assert_eq!(value.encode().unwrap().to_external()[1..], term);
}

#[test]
fn bits_of_none_and_nine() {
    for bits in [0, 9] {
        let term = [131, 77, 0, 0, 0, 1, bits, 0];
        assert_eq!(refused(&term), TermError::Bits(bits));
    }
}

#[test]
fn lists_that_other_crates_corrupt() {
    let negative = Value::list((-3..3).map(Value::from).collect::<Vec<_>>());
    let long = Value::list(vec![Value::from(7); 70_000]);
    for value in [negative, long] {
        let whole = value.encode().unwrap().to_external();
        assert_eq!(read(&whole, Start::Version, &[]), Ok((value, whole.len())));
    }
}

#[test]
fn lists_in_several_pieces() {
    // [1, 2 | "ab"], [1 | [2 | 3]]
    let joined = read(&bytes("6c00000002 6101 6102 6b00026162"), Start::Bare, &[]);
    let ints = |all: &[i64]| all.iter().map(|&n| Value::from(n)).collect::<Vec<_>>();
    assert_eq!(joined.unwrap().0, Value::list(ints(&[1, 2, 97, 98])));
    let joined = read(
        &bytes("6c00000001 6101 6c00000001 6102 6103"),
        Start::Bare,
        &[],
    );
    assert_eq!(
        joined.unwrap().0,
        Value::ImproperList(ints(&[1, 2]), Box::new(3.into()))
    );
}

#[test]
fn the_memory_of_a_value_is_bounded() {
    let limits = TermLimits {
        heap_bytes: 1000 * size_of::<Value>() as u64,
        ..limits()
    };
    let decode = |count: u32| {
        let mut term = vec![131, 105];
        term.extend(count.to_be_bytes());
        term.resize(term.len() + count as usize, 106);
        Value::decode(&term.into(), Start::Version, &[], &limits)
    };
    assert!(decode(1000).is_ok());
    assert_eq!(decode(1001), Err(TermError::Heap(limits.heap_bytes)));
    let string = Bytes::from([&[131, 107, 3, 233][..], &[1; 1001]].concat());
    let refused = Value::decode(&string, Start::Version, &[], &limits);
    assert_eq!(refused, Err(TermError::Heap(limits.heap_bytes)));
    assert!(size_of::<Value>() <= 40);
}
