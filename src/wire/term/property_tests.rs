//! The codec on generated terms, and on what becomes of them when bytes change.

use super::encode::words_of;
use super::walk::{Token, Walker};
use super::{
    Atom, Facts, Form, Inbound, Opaque, Outbound, Pid, Port, Record, RefFormat, Reference, Start,
    Term, TermLimits, Value, elide, inline, map_in, map_out, normalise, scan,
};
use crate::limits::OUT_OF_BAND_BYTES;
use crate::wire::identity::Identity;
use bytes::Bytes;
use miniz_oxide::deflate::compress_to_vec_zlib;
use num_bigint::{BigInt, Sign};
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::Arc;

/// Names with what may confuse the mapping: own, wire's, unnamed, long, beyond ASCII.
fn node() -> impl Strategy<Value = std::sync::Arc<str>> {
    prop_oneof![
        Just("vm@host".into()),
        Just("wire@host".into()),
        Just("other@host".into()),
        Just("nöde@höst".into()),
        Just("ñ".repeat(200).into()),
    ]
}

fn identifier() -> impl Strategy<Value = Value> {
    let creation = 0..4u32;
    prop_oneof![
        (node(), any::<u32>(), any::<u32>(), creation.clone()).prop_map(
            |(node, id, serial, creation)| Pid {
                node,
                id,
                serial,
                creation
            }
            .into()
        ),
        (node(), creation.clone(), vec(any::<u32>(), 1..=5)).prop_map(|(node, creation, words)| {
            Reference {
                node,
                creation,
                words: words[..].try_into().unwrap(),
            }
            .into()
        }),
        (node(), prop_oneof![0..10u64, any::<u64>()], creation)
            .prop_map(|(node, id, creation)| Value::Port(Port { node, id, creation })),
    ]
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        "[a-zA-Zäß日_@]{0,20}".prop_map(|text| Value::Atom(Atom::new(text))),
        any::<i64>().prop_map(Value::Integer),
        (-300..300i64).prop_map(Value::Integer),
        (any::<bool>(), vec(any::<u8>(), 9..300)).prop_map(|(negative, magnitude)| {
            let sign = if negative { Sign::Minus } else { Sign::Plus };
            Value::integer(BigInt::from_bytes_le(sign, &magnitude))
        }),
        any::<f64>()
            .prop_filter("finite", |float| float.is_finite())
            .prop_map(Value::Float),
        vec(any::<u8>(), 0..100).prop_map(Value::binary),
        (OUT_OF_BAND_BYTES - 2..OUT_OF_BAND_BYTES + 3, any::<u8>())
            .prop_map(|(length, byte)| Value::binary(vec![byte; length])),
        (vec(any::<u8>(), 1..20), 1..8u8).prop_map(|(mut bytes, last_bits)| {
            *bytes.last_mut().unwrap() &= 0xff << (8 - last_bits);
            Value::Bits { bytes, last_bits }
        }),
        vec(any::<u8>(), 0..50).prop_map(|bytes| Value::List(
            bytes.into_iter().map(|b| i64::from(b).into()).collect()
        )),
        identifier(),
        Just(Value::Fun(Opaque::export("lists", "map", 2).unwrap())),
    ]
}

/// A fun with those variables, encoded by hand.
fn fun(creator: Value, free: &[Value]) -> Value {
    let inner = |value: &Value| value.encode().unwrap().to_external()[1..].to_vec();
    let mut body = vec![2];
    body.extend([7; 16]);
    body.extend([0, 0, 0, 1]);
    body.extend((free.len() as u32).to_be_bytes());
    body.extend([119, 1, b'm', 97, 1, 98, 1, 2, 3, 4]);
    body.extend(inner(&creator));
    body.extend(free.iter().flat_map(inner));
    let size = (body.len() as u32 + 4).to_be_bytes();
    Value::Fun(Opaque::from_bytes([&[112][..], &size, &body].concat().into()).unwrap())
}

/// A pid in a node's private encoding.
fn local(hash: u32) -> Value {
    let mut bytes = vec![121];
    bytes.extend(hash.to_be_bytes());
    bytes.extend([88, 106]);
    bytes.extend([7; 12]);
    Value::Local(Opaque::local(bytes.into()).unwrap())
}

fn value() -> impl Strategy<Value = Value> {
    values(true)
}

/// Values that may go to a VM of any release.
fn common() -> impl Strategy<Value = Value> {
    values(false)
}

/// Pairs whose keys occur once.
fn unique<K: PartialEq, V>(pairs: Vec<(K, V)>) -> Vec<(K, V)> {
    let mut own: Vec<(K, V)> = Vec::new();
    for (key, value) in pairs {
        if own.iter().all(|(other, _)| *other != key) {
            own.push((key, value));
        }
    }
    own
}

fn values(foreign: bool) -> impl Strategy<Value = Value> {
    leaf().prop_recursive(5, 32, 8, move |inner| {
        let creator = (node(), 0..4u32).prop_map(|(node, creation)| {
            Value::Pid(Pid {
                node,
                id: 1,
                serial: 2,
                creation,
            })
        });
        prop_oneof![
            vec(inner.clone(), 0..8).prop_map(Value::Tuple),
            vec(inner.clone(), 0..8).prop_map(Value::List),
            (vec(inner.clone(), 1..5), inner.clone()).prop_map(|(elements, tail)| match tail {
                Value::List(_) => Value::List(elements),
                Value::ImproperList(more, tail) => {
                    Value::ImproperList([elements, more].concat(), tail)
                }
                tail => Value::ImproperList(elements, Box::new(tail)),
            }),
            vec((inner.clone(), inner.clone()), 0..5).prop_map(|pairs| Value::Map(unique(pairs))),
            vec(identifier(), 1..4).prop_map(|elements| {
                Value::Tuple(elements.into_iter().cycle().take(300).collect())
            }),
            (creator, vec(inner.clone(), 0..4)).prop_map(|(creator, free)| fun(creator, &free)),
            (any::<bool>(), vec(("[a-z]{0,30}", inner), 0..4)).prop_map(
                move |(exported, fields)| {
                    if !foreign {
                        return Value::Tuple(fields.into_iter().map(|(_, value)| value).collect());
                    }
                    let fields = unique(fields)
                        .into_iter()
                        .map(|(name, value)| (Atom::new(name), value));
                    Record {
                        module: Atom::new("m"),
                        name: Atom::new("ä"),
                        exported,
                        fields: fields.collect(),
                    }
                    .into()
                }
            ),
            any::<u32>().prop_map(move |hash| if foreign { local(hash) } else { hash.into() }),
        ]
    })
}

fn outbound(format: Option<RefFormat>) -> Outbound {
    Outbound {
        own: vec![Identity::new("vm@host", 1)],
        wire: Identity::new("wire@host", 9),
        pids: format,
        refs: format,
        uri_padding: true,
    }
}

fn inbound() -> Inbound {
    Inbound {
        wire: Identity::new("wire@host", 9),
        local: Identity::new("vm@host", 1),
    }
}

fn format() -> impl Strategy<Value = Option<RefFormat>> {
    prop_oneof![
        Just(None),
        Just(Some(RefFormat::ImproperList)),
        Just(Some(RefFormat::Uri)),
        Just(Some(RefFormat::Tuple)),
    ]
}

/// Everything that reads bytes of a peer. Nothing may panic.
fn read_all(bytes: &[u8]) {
    // As if they had been checked.
    let unchecked = Term::from_scanned(bytes.to_vec(), Vec::new(), &Facts::default()).unwrap();
    let _ = unchecked.view().to_value();
    for form in [Form::Whole, Form::Elided] {
        let facts = scan(bytes, form, &TermLimits::default(), &mut ());
        let common = facts.as_ref().is_ok_and(|facts| facts.common().is_ok());
        if let Ok(facts) = &facts
            && form == Form::Whole
        {
            let term = Term::from_external(bytes.to_vec()).unwrap();
            assert_eq!(term.view().to_value(), term.decode());
            assert!(facts.heap_words <= 5 * bytes.len() as u64 + 8);
        }
        for format in [None, Some(RefFormat::Tuple)] {
            let mut out = Vec::new();
            let mapped = map_out(bytes, form, &outbound(format), &mut out);
            if common && format.is_none() {
                mapped.unwrap();
                scan(&out, form, &TermLimits::default(), &mut ()).unwrap();
            }
        }
        let mut out = Vec::new();
        let mapped = map_in(bytes, form, &inbound(), &mut out);
        assert!(mapped.is_ok() || !common);
    }
}

/// What both readers of stock terms make of bytes. They must agree.
fn read_stock(bytes: Vec<u8>, start: Start, atoms: &[Arc<str>]) -> Option<(Value, usize)> {
    let (bytes, limits) = (Bytes::from(bytes), TermLimits::default());
    let normal = normalise(&bytes, start, atoms, &limits);
    let value = Value::decode(&bytes, start, atoms, &limits);
    match (normal, value) {
        (Ok((term, length)), Ok((value, same_length))) => {
            assert_eq!(length, same_length);
            assert_eq!(term.decode(), value);
            assert_eq!(term.view().to_value(), value);
            scan(term.skeleton(), term.form(), &limits, &mut ()).unwrap();
            let mut alone = value.clone();
            alone.detach();
            assert_eq!(alone, value);
            Some((value, length))
        }
        (Err(_), Err(_)) => None,
        (normal, value) => panic!("{normal:?} but {value:?}"),
    }
}

/// A term without its version byte, its atoms replaced by references where `atoms` has them.
fn with_refs(term: &[u8], atoms: &[Arc<str>]) -> Vec<u8> {
    let mut out = Vec::new();
    // Of each open fun: where its size field stands in `out`, and its end in `term`.
    let mut funs: Vec<(usize, usize)> = Vec::new();
    let mut walker = Walker::new(term, Form::Whole, u32::MAX).unwrap();
    let mut done = 1;
    loop {
        let token = walker.next().unwrap();
        let start = token.map_or(term.len(), |_| walker.start());
        out.extend_from_slice(&term[done..start]);
        done = start;
        while let Some((place, _)) = funs.pop_if(|(_, end)| *end <= start) {
            let size = (out.len() - place) as u32;
            out[place..place + 4].copy_from_slice(&size.to_be_bytes());
        }
        match token {
            Some(Token::Fun(fun)) => funs.push((out.len() + 1, fun.end)),
            Some(Token::Atom(atom)) => {
                if let Some(index) = atoms.iter().position(|own| atom.is(own)) {
                    out.extend([82, index as u8]);
                    done = walker.at();
                }
            }
            Some(_) => {}
            None => return out,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn what_is_encoded_decodes_to_the_same(value in value()) {
        let term = value.encode().unwrap();
        prop_assert_eq!(&term.decode(), &value);
        prop_assert_eq!(&term.view().to_value(), &value);
        let whole = Term::from_external(term.to_external()).unwrap();
        prop_assert_eq!(&whole, &term);
        prop_assert_eq!(whole.view().to_value(), value.clone());
        prop_assert_eq!(whole.decode(), value);
        let parts = Term::from_parts(term.skeleton().clone(), term.blobs()).unwrap();
        prop_assert_eq!(&parts, &term);
    }

    #[test]
    fn the_encoder_knows_what_a_value_costs(value in value()) {
        let whole = value.encode().unwrap().to_external();
        let facts = scan(&whole, Form::Whole, &TermLimits::default(), &mut ()).unwrap();
        prop_assert_eq!(words_of(&value), facts.heap_words);
        let mut bare = vec![1, 2];
        value.encode_bare(&mut bare).unwrap();
        prop_assert_eq!(&bare[2..], &whole[1..]);
    }

    #[test]
    fn stock_terms_are_read(value in value(), rest in vec(any::<u8>(), 0..40)) {
        let whole = value.encode().unwrap().to_external();
        let bytes = [&whole[..], &rest].concat();
        prop_assert_eq!(
            read_stock(bytes, Start::Version, &[]),
            Some((value.clone(), whole.len()))
        );
        let bytes = [&whole[1..], &rest].concat();
        prop_assert_eq!(
            read_stock(bytes, Start::Bare, &[]),
            Some((value, whole.len() - 1))
        );
    }

    #[test]
    fn cached_atoms_are_put_back(value in value()) {
        let mut atoms: Vec<Arc<str>> = vec!["unused".into()];
        collect_atoms(&value, &mut atoms);
        atoms.truncate(255);
        let whole = value.encode().unwrap().to_external();
        let bytes = with_refs(&whole, &atoms);
        let length = bytes.len();
        let (term, used) =
            normalise(&bytes.clone().into(), Start::Bare, &atoms, &TermLimits::default()).unwrap();
        prop_assert_eq!(used, length);
        prop_assert_eq!(term.to_external(), whole);
        prop_assert_eq!(read_stock(bytes, Start::Bare, &atoms), Some((value, length)));
    }

    #[test]
    fn both_readers_count_depth_alike(value in value(), depth in 0..8u32) {
        let bytes = Bytes::from(value.encode().unwrap().to_external());
        let limits = TermLimits { depth, ..TermLimits::default() };
        let normal = normalise(&bytes, Start::Version, &[], &limits);
        let decoded = Value::decode(&bytes, Start::Version, &[], &limits);
        prop_assert_eq!(normal.is_ok(), scan(&bytes, Form::Whole, &limits, &mut ()).is_ok());
        prop_assert_eq!(
            normal.map(|(term, _)| term.decode()),
            decoded.map(|(value, _)| value)
        );
    }

    #[test]
    fn the_vm_would_take_no_key_twice(pairs in vec((leaf(), leaf()), 1..40), which in any::<u16>()) {
        let mut pairs = unique(pairs);
        let good = Value::Map(pairs.clone()).encode().unwrap().to_external();
        prop_assert!(read_stock(good, Start::Version, &[]).is_some());
        let (key, _) = &pairs[usize::from(which) % pairs.len()];
        pairs.push((key.clone(), Value::from(1)));
        let bad = Value::Map(pairs).encode().unwrap().to_external();
        prop_assert!(read_stock(bad, Start::Version, &[]).is_none());
    }

    #[test]
    fn compressed_terms_are_read(value in value(), level in 0..10u8) {
        let whole = value.encode().unwrap().to_external();
        let bytes = compressed(&whole, level);
        let length = bytes.len();
        prop_assert_eq!(
            read_stock([&bytes[..], b"rest"].concat(), Start::Version, &[]),
            Some((value, length))
        );
    }

    #[test]
    fn out_and_in_again_is_the_same(value in common()) {
        let term = value.encode().unwrap();
        let mut sent = Vec::new();
        map_out(term.skeleton(), term.form(), &outbound(None), &mut sent).unwrap();
        let facts = scan(&sent, term.form(), &TermLimits::default(), &mut ()).unwrap();
        let lengths: Vec<_> = term.blobs().iter().map(|blob| blob.len() as u32).collect();
        prop_assert_eq!(facts.blobs, lengths);
        let mut home = Vec::new();
        map_in(&sent, term.form(), &inbound(), &mut home).unwrap();
        prop_assert_eq!(home, term.skeleton().to_vec());
    }

    #[test]
    fn remote_references_leave_a_valid_term(value in common(), format in format()) {
        let term = value.encode().unwrap();
        let mut sent = Vec::new();
        map_out(term.skeleton(), term.form(), &outbound(format), &mut sent).unwrap();
        let facts = scan(&sent, term.form(), &TermLimits::default(), &mut ()).unwrap();
        prop_assert!(format.is_none() || !facts.pids && !facts.refs);
        prop_assert_eq!(facts.blobs.len(), term.blobs().len());
    }

    #[test]
    fn parts_are_elided_without_loss(value in value(), cuts in vec(any::<prop::sample::Index>(), 0..4)) {
        let term = value.encode().unwrap();
        let whole = Bytes::from(term.to_external());
        let parts = parts_of(&term);
        prop_assert_eq!(parts.concat(), whole.to_vec());
        let elided = elide(&parts);
        prop_assert_eq!(elided.form, term.form());
        prop_assert_eq!(&elided.skeleton, term.skeleton());
        prop_assert_eq!(&elided.blobs, term.blobs());
        // Cut anywhere: complete in one form or the other.
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(whole.len())).collect();
        cuts.sort_unstable();
        let mut parts = Vec::new();
        let mut from = 0;
        for cut in cuts.into_iter().chain([whole.len()]) {
            parts.push(whole.slice(from..cut));
            from = cut;
        }
        let elided = elide(&parts);
        prop_assert_eq!(inline_if_needed(&elided), whole.to_vec());
    }

    #[test]
    fn truncated_terms_are_refused(value in value(), at in any::<prop::sample::Index>()) {
        let whole = value.encode().unwrap().to_external();
        let cut = &whole[..at.index(whole.len())];
        prop_assert!(scan(cut, Form::Whole, &TermLimits::default(), &mut ()).is_err());
        read_all(cut);
    }

    #[test]
    fn changed_terms_never_panic(
        value in value(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = value.encode().unwrap().to_external();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        read_all(&bytes);
        read_stock(bytes.clone(), Start::Version, &[]);
        let atoms = ["a".into(), "ß".into()];
        read_stock(bytes.clone(), Start::Version, &atoms);
        read_stock(bytes.split_off(1), Start::Bare, &atoms);
    }

    #[test]
    fn noise_never_panics(mut bytes in vec(any::<u8>(), 0..200)) {
        bytes.insert(0, 131);
        read_all(&bytes);
    }

    #[test]
    fn values_pass_through_eetf(value in value()) {
        match eetf::Term::try_from(&value) {
            Ok(foreign) => {
                let back = Value::try_from(&foreign).unwrap();
                // Maps come back in another order, a key that stands twice once.
                if !has_map(&value) {
                    prop_assert_eq!(back, value);
                }
            }
            Err(error) => prop_assert!(error.to_string().contains("can't be converted")),
        }
    }
}

/// The parts in which the VM would give the term: each large binary apart.
fn parts_of(term: &Term) -> Vec<Bytes> {
    let mut walker = Walker::new(term.skeleton(), term.form(), u32::MAX).unwrap();
    let mut blobs = term.blobs().iter().cloned();
    let mut parts = Vec::new();
    let mut from = 0;
    while let Some(token) = walker.next().unwrap() {
        if matches!(token, Token::Blob(_)) {
            parts.push(term.skeleton().slice(from..walker.at()));
            parts.extend(blobs.next());
            from = walker.at();
        }
    }
    parts.push(term.skeleton().slice(from..));
    parts
}

fn collect_atoms(value: &Value, atoms: &mut Vec<Arc<str>>) {
    match value {
        Value::Atom(atom) if !atoms.iter().any(|own| **own == *atom.as_str()) => {
            atoms.push(atom.as_str().into());
        }
        Value::Tuple(all) | Value::List(all) => {
            all.iter().for_each(|value| collect_atoms(value, atoms));
        }
        Value::ImproperList(all, tail) => {
            all.iter().for_each(|value| collect_atoms(value, atoms));
            collect_atoms(tail, atoms);
        }
        Value::Map(pairs) => pairs.iter().for_each(|(key, value)| {
            collect_atoms(key, atoms);
            collect_atoms(value, atoms);
        }),
        _ => {}
    }
}

/// As `term_to_binary(Term, [{compressed, Level}])`.
pub(super) fn compressed(whole: &[u8], level: u8) -> Vec<u8> {
    let mut bytes = vec![131, 80];
    bytes.extend((whole.len() as u32 - 1).to_be_bytes());
    bytes.extend(compress_to_vec_zlib(&whole[1..], level));
    bytes
}

fn has_map(value: &Value) -> bool {
    match value {
        Value::Map(_) => true,
        Value::Tuple(elements) | Value::List(elements) => elements.iter().any(has_map),
        Value::ImproperList(elements, tail) => elements.iter().any(has_map) || has_map(tail),
        _ => false,
    }
}

fn inline_if_needed(elided: &super::Elided) -> Vec<u8> {
    match elided.form {
        Form::Whole => elided.skeleton.clone(),
        Form::Elided => inline(&elided.skeleton, &elided.blobs).unwrap(),
    }
}
