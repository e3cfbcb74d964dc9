//! Our numbers against those of OTP 25, 27 and 29 (`scripts/otp_tables.sh`).

use super::{decoder, operation};
use crate::wire::flags::Flags;
use crate::wire::term::tag;
use std::collections::BTreeSet;

const TABLES: [&str; 3] = [
    include_str!("../../../test/otp_tables/25.txt"),
    include_str!("../../../test/otp_tables/27.txt"),
    include_str!("../../../test/otp_tables/29.txt"),
];

const TAGS: &[(&str, u8)] = &[
    ("SMALL_INTEGER_EXT", tag::SMALL_INTEGER),
    ("INTEGER_EXT", tag::INTEGER),
    ("FLOAT_EXT", tag::FLOAT),
    ("ATOM_EXT", tag::ATOM),
    ("SMALL_ATOM_EXT", tag::SMALL_ATOM),
    ("REFERENCE_EXT", tag::REFERENCE),
    ("NEW_REFERENCE_EXT", tag::NEW_REFERENCE),
    ("NEWER_REFERENCE_EXT", tag::NEWER_REFERENCE),
    ("PORT_EXT", tag::PORT),
    ("NEW_PORT_EXT", tag::NEW_PORT),
    ("NEW_FLOAT_EXT", tag::NEW_FLOAT),
    ("PID_EXT", tag::PID),
    ("NEW_PID_EXT", tag::NEW_PID),
    ("SMALL_TUPLE_EXT", tag::SMALL_TUPLE),
    ("LARGE_TUPLE_EXT", tag::LARGE_TUPLE),
    ("NIL_EXT", tag::NIL),
    ("STRING_EXT", tag::STRING),
    ("LIST_EXT", tag::LIST),
    ("BINARY_EXT", tag::BINARY),
    ("BIT_BINARY_EXT", tag::BIT_BINARY),
    ("SMALL_BIG_EXT", tag::SMALL_BIG),
    ("LARGE_BIG_EXT", tag::LARGE_BIG),
    ("NEW_FUN_EXT", tag::NEW_FUN),
    ("EXPORT_EXT", tag::EXPORT),
    ("MAP_EXT", tag::MAP),
    ("ATOM_UTF8_EXT", tag::ATOM_UTF8),
    ("SMALL_ATOM_UTF8_EXT", tag::SMALL_ATOM_UTF8),
    ("V4_PORT_EXT", tag::V4_PORT),
    ("LOCAL_EXT", tag::LOCAL),
    ("RECORD_EXT", tag::RECORD),
    ("ATOM_CACHE_REF", tag::CACHED_ATOM),
    ("COMPRESSED", tag::COMPRESSED),
    ("VERSION_MAGIC", tag::VERSION),
    ("DIST_HEADER", decoder::HEADER),
    ("DIST_FRAG_HEADER", decoder::FRAGMENT),
    ("DIST_FRAG_CONT", decoder::MORE),
];

/// What OTP has and we don't, and why.
const LACKING: &[(&str, &str)] = &[
    ("tag FUN_EXT", "OTP itself has not read it since OTP 23"),
    (
        "tag HOPEFUL_DATA",
        "before a connection is up, within the VM",
    ),
    ("tag ATOM_INTERNAL_REF2", "within ETS tables"),
    ("tag ATOM_INTERNAL_REF3", "within ETS tables"),
    ("tag BINARY_INTERNAL_REF", "within ETS tables"),
    ("tag BITSTRING_INTERNAL_REF", "within ETS tables"),
    ("tag BIT_BINARY_INTERNAL_REF", "within ETS tables"),
    ("tag MAGIC_REF_INTERNAL_REF", "within ETS tables"),
    ("flag RESERVED", "no capability, but bits kept free"),
    (
        "flag LOCAL_EXT",
        "within the VM: every node echoes such terms",
    ),
];

fn number(text: &str) -> u64 {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).unwrap(),
        None => text.parse().unwrap(),
    }
}

#[test]
fn numbers_are_those_of_otp() {
    let mut lacking = BTreeSet::new();
    let mut releases = Vec::new();
    for table in TABLES {
        let mut compared = 0;
        for line in table.lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<_> = line.split_whitespace().collect();
            let [kind, name, value] = words[..] else {
                releases.push(words[1].split('.').next().unwrap());
                continue;
            };
            let bytes = |all: &[(&str, u8)]| {
                let found = all.iter().find(|(own, _)| *own == name);
                found.map(|(_, number)| u64::from(*number))
            };
            let ours = match kind {
                "op" => bytes(operation::ALL),
                "tag" => bytes(TAGS),
                "flag" => {
                    let found = Flags::ALL.iter().find(|(own, _)| *own == name);
                    found.map(|(_, flag)| flag.0)
                }
                _ => {
                    assert_eq!(kind, "sha256");
                    continue;
                }
            };
            match ours {
                Some(ours) => {
                    assert_eq!(ours, number(value), "{line}");
                    compared += 1;
                }
                None => {
                    lacking.insert(format!("{kind} {name}"));
                }
            }
        }
        assert!(compared > 85, "only {compared} numbers compared");
    }
    assert_eq!(releases, ["25", "27", "29"]);
    let explained = LACKING.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(lacking, explained);
}

#[test]
fn every_number_of_ours_is_known_to_the_newest_otp() {
    let newest = TABLES[2];
    let has = |line: String| newest.lines().any(|own| own == line);
    for (name, value) in operation::ALL {
        assert!(has(format!("op {name} {value}")), "{name}");
    }
    for (name, value) in TAGS {
        assert!(has(format!("tag {name} {value}")), "{name}");
    }
    for (name, flag) in Flags::ALL {
        assert!(has(format!("flag {name} {:#x}", flag.0)), "{name}");
    }
}
