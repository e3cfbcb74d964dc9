//! Terms that a hostile or broken peer might send.

use super::{AtomGate, Facts, Form, TermError, TermLimits, scan};

fn check(term: &[u8]) -> Result<Facts, TermError> {
    let elided = scan(term, Form::Elided, &TermLimits::default(), &mut ());
    let whole = scan(term, Form::Whole, &TermLimits::default(), &mut ());
    if let (Ok(elided), Ok(whole)) = (&elided, &whole) {
        assert_eq!(elided, whole);
    }
    whole
}

fn truncated(term: &[u8]) -> bool {
    matches!(check(term), Err(TermError::Truncated { .. }))
}

#[test]
fn list_of_four_billion_in_six_bytes() {
    assert!(truncated(&[131, 108, 255, 255, 255, 255]));
}

#[test]
fn huge_tuple_map_and_binary() {
    for tag in [105, 116, 109, 111] {
        assert!(truncated(&[131, tag, 255, 255, 255, 255]), "{tag}");
        assert!(truncated(&[131, tag, 255, 255, 255, 255, 1, 2, 3]), "{tag}");
    }
    // An elided binary claims nothing from the term itself.
    let blob = [131, 109, 255, 255, 255, 255];
    let facts = scan(&blob, Form::Elided, &TermLimits::default(), &mut ()).unwrap();
    assert_eq!(facts.blobs, [u32::MAX]);
}

#[test]
fn fun_with_four_billion_free_variables() {
    let mut fun = vec![131, 112, 0, 0, 0, 0, 1];
    fun.extend([0; 20]);
    fun.extend([255; 4]);
    fun.extend([
        119, 1, b'm', 97, 0, 97, 0, 88, 119, 1, b'n', 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1,
    ]);
    let size = fun.len() as u8 - 2;
    fun[5] = size;
    assert!(truncated(&fun));
    // The same fun without free variables is good, its size one too large or small isn't.
    fun[27..31].fill(0);
    check(&fun).unwrap();
    fun[5] = size - 1;
    assert!(matches!(check(&fun), Err(TermError::Fun(_))));
    fun[5] = size + 1;
    assert!(check(&fun).is_err());
    fun[2] = 255;
    assert!(truncated(&fun));
}

#[test]
fn tags_of_the_distribution_header_and_of_old_releases() {
    for tag in [68, 82, 117, 69, 0, 131, 255] {
        for rest in [&[][..], &[0; 40]] {
            let term = [&[131, tag], rest].concat();
            assert_eq!(check(&term), Err(TermError::Tag { tag, at: 1 }));
        }
    }
}

#[test]
fn a_million_nested_tuples() {
    let mut term = vec![131];
    for _ in 0..1_000_000 {
        term.extend([104, 1]);
    }
    term.push(106);
    assert_eq!(check(&term), Err(TermError::Depth(1024)));
    // As deep as allowed.
    let mut term = vec![131];
    term.extend([104, 1].repeat(1024));
    term.push(106);
    assert_eq!(check(&term).unwrap().depth, 1024);
    // One deeper, by every kind of container.
    let containers: [&[u8]; 4] = [
        &[104, 1],
        &[105, 0, 0, 0, 1],
        &[108, 0, 0, 0, 0],
        &[116, 0, 0, 0, 1, 97, 1],
    ];
    for open in containers {
        let term = [&[131][..], &open.repeat(1025), &[106]].concat();
        assert_eq!(check(&term), Err(TermError::Depth(1024)));
    }
}

#[test]
fn twenty_megabytes_of_nils_over_the_heap_limit() {
    let count = 20_000_000u32;
    let mut term = vec![131, 108];
    term.extend(count.to_be_bytes());
    term.resize(term.len() + count as usize + 1, 106);
    assert_eq!(check(&term), Err(TermError::Heap(256 << 20)));
}

#[test]
fn compressed_bomb() {
    assert_eq!(
        check(&[131, 80, 12, 0, 0, 0, 0x78, 0x9c, 1, 2, 3]),
        Err(TermError::Compressed)
    );
    assert_eq!(
        check(&[131, 104, 1, 80, 12, 0, 0, 0]),
        Err(TermError::Compressed)
    );
}

#[test]
fn floats_that_are_no_numbers() {
    for float in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let term = [&[131, 70][..], &float.to_be_bytes()].concat();
        assert_eq!(check(&term), Err(TermError::Float));
    }
    for text in [
        "inf", "nan", "1", "15", ".5", "1.", "1.x", "", "-", "1.5e999", "1.5inf",
    ] {
        let mut term = vec![131, 99];
        term.extend(text.bytes());
        term.resize(33, 0);
        assert_eq!(check(&term), Err(TermError::Float), "{text}");
    }
    let mut term = b"\x83c-1.50000000000000000000e+00".to_vec();
    term.resize(33, 0);
    check(&term).unwrap();
}

#[test]
fn bitstrings_with_bad_bits() {
    for bits in [0, 9, 255] {
        assert_eq!(
            check(&[131, 77, 0, 0, 0, 1, bits, 5]),
            Err(TermError::Bits(bits))
        );
    }
    assert_eq!(check(&[131, 77, 0, 0, 0, 0, 1]), Err(TermError::Bits(1)));
    check(&[131, 77, 0, 0, 0, 1, 1, 128]).unwrap();
}

#[test]
fn atoms_that_are_no_text() {
    assert_eq!(check(&[131, 119, 2, 0xc3, 0x28]), Err(TermError::AtomText));
    assert_eq!(
        check(&[131, 118, 0, 3, 0xed, 0xa0, 0x80]),
        Err(TermError::AtomText)
    );
    // Overlong.
    assert_eq!(check(&[131, 119, 2, 0xc0, 0x80]), Err(TermError::AtomText));
    check(&[131, 100, 0, 1, 0xe4]).unwrap();
}

#[test]
fn atoms_that_are_too_long() {
    let long = |tag: u8, text: &[u8]| {
        let mut term = vec![131, tag];
        term.extend((text.len() as u16).to_be_bytes());
        term.extend(text);
        check(&term)
    };
    assert_eq!(
        long(118, "ä".repeat(256).as_bytes()),
        Err(TermError::AtomLength)
    );
    assert_eq!(long(118, &[b'a'; 256]), Err(TermError::AtomLength));
    assert_eq!(long(100, &[b'a'; 256]), Err(TermError::AtomLength));
    assert_eq!(long(100, &[0xe4; 256]), Err(TermError::AtomLength));
    long(118, "𝄞".repeat(255).as_bytes()).unwrap();
    long(100, &[0xe4; 255]).unwrap();
}

#[test]
fn bytes_after_the_term() {
    assert_eq!(check(&[131, 106, 106]), Err(TermError::Trailing(1)));
    assert_eq!(
        check(&[131, 104, 0, 131, 104, 0]),
        Err(TermError::Trailing(3))
    );
}

#[test]
fn no_term_at_all() {
    assert_eq!(check(&[]), Err(TermError::Version(None)));
    assert_eq!(check(&[130, 106]), Err(TermError::Version(Some(130))));
    assert!(truncated(&[131]));
}

#[test]
fn references_with_too_many_words() {
    for words in [0u8, 6, 255] {
        let mut term = vec![131, 90, 0, words, 119, 1, b'n', 0, 0, 0, 1];
        term.resize(term.len() + 4 * usize::from(words), 7);
        assert_eq!(check(&term), Err(TermError::Reference(words.into())));
    }
}

#[test]
fn identifiers_whose_node_is_no_atom() {
    assert!(matches!(
        check(&[131, 88, 97, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1]),
        Err(TermError::Tag { tag: 97, at: 2 })
    ));
    assert!(check(&[131, 113, 119, 1, b'a', 119, 1, b'b', 98, 0, 0, 0, 1]).is_err());
}

#[test]
fn a_term_over_the_byte_limit() {
    let limits = TermLimits {
        bytes: 10,
        ..TermLimits::default()
    };
    let error = scan(&[131; 11], Form::Whole, &limits, &mut ()).unwrap_err();
    assert_eq!(
        error,
        TermError::Size {
            bytes: 11,
            limit: 10
        }
    );
}

#[test]
fn the_gate_sees_every_atom() {
    struct Seen(Vec<String>, usize);
    impl AtomGate for Seen {
        fn admit(&mut self, atom: &str) -> bool {
            self.0.push(atom.into());
            self.0.len() <= self.1
        }
    }
    let term = [
        &[131, 104, 4, 119, 1, b'a', 100, 0, 1, 0xe4][..],
        &[113, 119, 1, b'm', 119, 1, b'f', 97, 0],
        &[103, 119, 1, b'n', 0, 0, 0, 1, 0, 0, 0, 0, 1],
    ]
    .concat();
    let mut seen = Seen(Vec::new(), 5);
    scan(&term, Form::Whole, &TermLimits::default(), &mut seen).unwrap();
    assert_eq!(seen.0, ["a", "ä", "m", "f", "n"]);
    let mut seen = Seen(Vec::new(), 4);
    let refused = scan(&term, Form::Whole, &TermLimits::default(), &mut seen);
    assert_eq!(refused, Err(TermError::Atoms));
}

/// A host may take what it was asked for once to be known: it has ended the session before it is asked again.
#[test]
fn the_gate_is_not_asked_again_for_what_it_has_refused() {
    struct Once(std::collections::HashSet<String>);
    impl AtomGate for Once {
        fn admit(&mut self, atom: &str) -> bool {
            !self.0.insert(atom.into())
        }
    }
    let terms: [&[u8]; 6] = [
        &[131, 119, 1, b'a'],
        &[131, 100, 0, 1, b'a'],
        &[131, 104, 2, 97, 1, 119, 1, b'a'],
        &[131, 88, 119, 1, b'a', 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1],
        &[131, 90, 0, 1, 119, 1, b'a', 0, 0, 0, 1, 0, 0, 0, 1],
        &[131, 116, 0, 0, 0, 1, 97, 1, 119, 1, b'a'],
    ];
    for term in terms {
        let mut gate = Once(Default::default());
        let refused = scan(term, Form::Whole, &TermLimits::default(), &mut gate);
        assert_eq!(refused, Err(TermError::Atoms), "{term:?}");
        scan(term, Form::Whole, &TermLimits::default(), &mut gate).unwrap();
    }
}
