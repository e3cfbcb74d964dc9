//! Identity mapping and remote references, on terms that a real VM has written.

use super::samples::{SAMPLES, bytes, sample};
use super::{Form, Inbound, Outbound, RefFormat, TermLimits, map_in, map_out, scan};
use crate::wire::identity::Identity;

fn outbound(format: Option<RefFormat>) -> Outbound {
    Outbound {
        own: vec![
            Identity::new("other@host", 7),
            Identity::new("nonode@nohost", 0),
        ],
        wire: Identity::new("a@b", 5),
        pids: format,
        refs: format,
        uri_padding: false,
    }
}

fn inbound() -> Inbound {
    Inbound {
        wire: Identity::new("a@b", 5),
        local: Identity::new("nonode@nohost", 0),
    }
}

fn out(term: &[u8], rules: &Outbound) -> Vec<u8> {
    let mut out = b"before".to_vec();
    map_out(term, Form::Whole, rules, &mut out).unwrap();
    assert!(out.starts_with(b"before"));
    let mapped = out.split_off(6);
    scan(&mapped, Form::Whole, &TermLimits::default(), &mut ()).unwrap();
    mapped
}

fn back(term: &[u8], rules: &Inbound) -> Vec<u8> {
    let mut out = Vec::new();
    map_in(term, Form::Whole, rules, &mut out).unwrap();
    scan(&out, Form::Whole, &TermLimits::default(), &mut ()).unwrap();
    out
}

/// The sample with atoms in the tags that the mapping writes where it maps.
fn with_new_node_tags(term: &[u8]) -> Vec<u8> {
    let mut text = term
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    let node = "6e6f6e6f6465406e6f686f7374";
    text = text.replace(&format!("64000d{node}"), &format!("770d{node}"));
    bytes(&text)
}

#[test]
fn real_terms_are_accepted() {
    for (name, hex, _) in SAMPLES {
        let facts = scan(&bytes(hex), Form::Whole, &TermLimits::default(), &mut ());
        let facts = facts.unwrap_or_else(|error| panic!("{name}: {error}"));
        let identities = ["pid", "ref", "fun", "nested", "port", "old"].contains(name);
        assert_eq!(facts.identities, identities, "{name}");
        assert_eq!(
            facts.pids,
            ["pid", "nested", "old"].contains(name),
            "{name}"
        );
        assert_eq!(
            facts.refs,
            ["ref", "nested", "old"].contains(name),
            "{name}"
        );
    }
}

#[test]
fn there_and_back() {
    for name in ["pid", "ref", "port", "misc", "export"] {
        let term = sample(name);
        let mapped = out(&term, &outbound(None));
        assert_eq!(
            back(&mapped, &inbound()),
            with_new_node_tags(&term),
            "{name}"
        );
    }
    assert_eq!(
        out(&sample("port"), &outbound(None)),
        bytes("83 59 7703 614062 00000000 00000005")
    );
}

#[test]
fn funs_keep_their_types_and_their_size_is_corrected() {
    for name in ["fun", "nested"] {
        let term = sample(name);
        let mapped = out(&term, &outbound(None));
        // `scan` has checked the sizes. Back again only the node's tag differs, so that each
        // fun's size is smaller by the identifiers in it.
        let home = back(&mapped, &inbound());
        assert!(mapped.len() < term.len());
        let again = out(&home, &outbound(None));
        assert_eq!(again, mapped);
        assert_eq!(back(&again, &inbound()), home);
        let format = out(&term, &outbound(Some(RefFormat::ImproperList)));
        if name == "fun" {
            assert_eq!(format, mapped);
        } else {
            assert_ne!(format, mapped);
        }
    }
}

#[test]
fn remote_references_say_what_the_owner_prints() {
    for (name, hex, printed) in SAMPLES.iter().filter(|(.., printed)| !printed.is_empty()) {
        let term = bytes(hex);
        let numbers = printed.trim_start_matches("#Ref").trim_matches(['<', '>']);
        let tail = |format| out(&term, &outbound(Some(format)));
        let list_text = if *name == "pid" {
            format!("#Pid{printed}")
        } else {
            printed.to_string()
        };
        let expected = [
            &bytes("83 6c00000001 7703 614062 6d000000")[..],
            &[list_text.len() as u8],
            list_text.as_bytes(),
        ]
        .concat();
        assert_eq!(tail(RefFormat::ImproperList), expected);

        let uri = format!("partisan:{name}:a@b:{numbers}");
        let expected = [&[131, 109, 0, 0, 0, uri.len() as u8], uri.as_bytes()].concat();
        assert_eq!(tail(RefFormat::Uri), expected);

        let mut rules = outbound(Some(RefFormat::Uri));
        rules.uri_padding = true;
        let mut padded = format!("{uri}:").into_bytes();
        padded.resize(65, 0x19);
        assert_eq!(
            out(&term, &rules),
            [&[131, 109, 0, 0, 0, 65], &padded[..]].concat()
        );

        let encoded = format!("encoded_{name}");
        let expected = [
            &bytes("83 6803 7713")[..],
            b"partisan_remote_ref",
            &bytes("7703 614062 6802 77"),
            &[encoded.len() as u8],
            encoded.as_bytes(),
            &[107, 0, printed.len() as u8],
            printed.as_bytes(),
        ]
        .concat();
        assert_eq!(tail(RefFormat::Tuple), expected);
    }
}

#[test]
fn identifiers_of_other_nodes_keep_their_node() {
    // x@y, creation 0; nonode@nohost of another creation.
    for node in ["7703 784079", "770d 6e6f6e6f6465406e6f686f7374"] {
        let pid = bytes(&format!("83 58 {node} 00000001 00000002 00000009"));
        assert_eq!(out(&pid, &outbound(None)), pid);
        let list = out(&pid, &outbound(Some(RefFormat::ImproperList)));
        let expected = [
            bytes(&format!("83 6c00000001 {node} 6d0000000b")),
            b"#Pid<0.1.2>".into(),
        ];
        assert_eq!(list, expected.concat());
    }
}

#[test]
fn every_own_identity_is_mapped() {
    let pid = [
        &bytes("83 58 770a")[..],
        b"other@host",
        &bytes("00000001 00000002 00000007"),
    ];
    assert_eq!(
        out(&pid.concat(), &outbound(None)),
        bytes("83 58 7703 614062 00000001 00000002 00000005")
    );
}

#[test]
fn only_the_asked_kind_becomes_a_remote_reference() {
    let [pid, reference] = [sample("pid"), sample("ref")];
    let rules = Outbound {
        refs: None,
        ..outbound(Some(RefFormat::Uri))
    };
    assert_eq!(out(&pid, &rules)[1], 109);
    assert_eq!(out(&reference, &rules)[1], 90);
    let rules = Outbound {
        pids: None,
        ..outbound(Some(RefFormat::Uri))
    };
    assert_eq!(out(&pid, &rules)[1], 88);
    assert_eq!(out(&reference, &rules)[1], 109);
}

#[test]
fn old_tags_are_mapped_to_new_ones() {
    let node = "7303 614062";
    let inbound = Inbound {
        wire: Identity::new("a@b", 3),
        ..inbound()
    };
    let cases = [
        (
            format!("67 {node} 00000001 00000002 03"),
            "58 NODE 00000001 00000002 00000000",
        ),
        (
            format!("65 {node} 00000001 03"),
            "5a 0001 NODE 00000000 00000001",
        ),
        (
            format!("72 0001 {node} 03 00000001"),
            "5a 0001 NODE 00000000 00000001",
        ),
        (
            format!("66 {node} 00000001 03"),
            "59 NODE 00000001 00000000",
        ),
        (
            format!("78 {node} 0000000000000001 00000003"),
            "78 NODE 0000000000000001 00000000",
        ),
    ];
    for (old, new) in cases {
        let expected = new.replace("NODE", "770d 6e6f6e6f6465406e6f686f7374");
        assert_eq!(
            back(&bytes(&format!("83 {old}")), &inbound),
            bytes(&format!("83 {expected}"))
        );
    }
}

#[test]
fn a_strangers_pid_is_never_local() {
    // nonode@nohost in three spellings of the atom.
    for tag in ["770d", "64000d", "76000d"] {
        let pid = |node: &[u8], tag| {
            [
                &bytes("83 58")[..],
                &bytes(tag),
                node,
                &bytes("00000001 00000002 00000000"),
            ]
            .concat()
        };
        let foreign = back(&pid(b"nonode@nohost", tag), &inbound());
        assert_eq!(foreign, pid(b"foreign@nohost", "770e"));
    }
    // Creation 0 passes for local on a VM of any creation.
    let local = Inbound {
        local: Identity::new("nonode@nohost", 3),
        ..inbound()
    };
    for (creation, changes) in [(0, true), (3, true), (4, false)] {
        let mut pid = sample("pid");
        if let Some(last) = pid.last_mut() {
            *last = creation;
        }
        assert_eq!(back(&pid, &local) != pid, changes);
    }
    // A named VM's own identity is the same everywhere.
    let named = Inbound {
        wire: Identity::new("a@b", 5),
        local: Identity::new("c@d", 1),
    };
    let pid = bytes("83 58 7703 634064 00000001 00000002 00000001");
    assert_eq!(back(&pid, &named), pid);
}

#[test]
fn a_remote_reference_that_would_be_too_deep_is_an_error() {
    let mut term = vec![131];
    term.extend([104, 1].repeat(1023));
    term.extend(&sample("pid")[1..]);
    out(&term, &outbound(Some(RefFormat::Uri)));
    out(&term, &outbound(Some(RefFormat::ImproperList)));
    let mut kept = vec![1, 2, 3];
    let rules = outbound(Some(RefFormat::Tuple));
    assert!(map_out(&term, Form::Whole, &rules, &mut kept).is_err());
    assert_eq!(kept, [1, 2, 3]);
}

#[test]
fn elided_binaries_stay_elided() {
    // {Pid, Elided, Pid}
    let pid = sample("pid");
    let term = [
        &bytes("83 6803")[..],
        &pid[1..],
        &bytes("6d00100000"),
        &pid[1..],
    ]
    .concat();
    let mut mapped = Vec::new();
    map_out(&term, Form::Elided, &outbound(None), &mut mapped).unwrap();
    let facts = scan(&mapped, Form::Elided, &TermLimits::default(), &mut ()).unwrap();
    assert_eq!(facts.blobs, [1 << 20]);
    let mut home = Vec::new();
    map_in(&mapped, Form::Elided, &inbound(), &mut home).unwrap();
    assert_eq!(home, with_new_node_tags(&term));
}
