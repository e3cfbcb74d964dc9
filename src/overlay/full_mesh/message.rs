//! Messages and the persisted form of a full mesh, as bytes.
//!
//! ```text
//! message:  version:8 = 2  kind:8 (1 join, 2 joined, 3 state, 4 reply, 5 news)  members
//!           version:8 = 2  kind:8 = 6 (digest)  the first 16 bytes of the SHA-256 of members
//!           version:8 = 2  kind:8 = 7 (ask)
//! file:     sealed, "PTSM", version 1:  owner: text  members
//! members:  count:32, entries in strictly ascending order of their names
//! entry:    name: text  epoch:64  version:64  present:8 (0, 1), if present the spec of a contact
//! ```
//!
//! There is one encoding for each value. A state of `MAX_MEMBERS` entries or `MAX_CONTROL_BYTES` bytes
//! is the largest; the decoder allocates as it reads, never by a count that a peer claims.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::state::{Entry, MAX_COUNTER, Members};
use crate::limits::{MAX_CONTROL_BYTES, MAX_MEMBERS};
pub use crate::overlay::codec::DecodeError;
use crate::overlay::codec::{Reader, put_text, seal, unseal};
use crate::overlay::contact::{put_spec, read_name, read_spec};

const VERSION: u8 = 2;
const FILE_VERSION: u8 = 1;
const MAGIC: [u8; 4] = *b"PTSM";
const DIGEST: u8 = 6;
const ASK: u8 = 7;

/// What stands for a whole state.
pub(super) type StateDigest = [u8; 16];

/// A membership message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Members, for a purpose.
    Members(Kind, Members),
    /// Stands for the sender's state. Whoever has another sends its own.
    Digest(StateDigest),
    /// Asks for the receiver's state.
    Ask,
}

/// What a message of members is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Asks the receiver to merge both clusters.
    Join,
    /// Grants a join, with the merged state.
    Joined,
    /// The sender's state; may be answered by one `Reply`.
    State,
    /// What the sender of a `State` did not know; never answered.
    Reply,
    /// What the sender has just learned.
    News,
}

/// The digest of a state.
pub(super) fn digest(members: &Members) -> StateDigest {
    let mut bytes = Vec::new();
    put_members(&mut bytes, members);
    let hash: [u8; 32] = Sha256::digest(&bytes).into();
    let mut digest = StateDigest::default();
    digest.copy_from_slice(&hash[..16]);
    digest
}

pub(super) fn encode_digest(digest: StateDigest) -> Vec<u8> {
    [&[VERSION, DIGEST][..], &digest].concat()
}

pub(super) fn encode_ask() -> Vec<u8> {
    vec![VERSION, ASK]
}

pub(super) fn encode_message(kind: Kind, members: &Members) -> Vec<u8> {
    let kind = match kind {
        Kind::Join => 1,
        Kind::Joined => 2,
        Kind::State => 3,
        Kind::Reply => 4,
        Kind::News => 5,
    };
    let mut out = vec![VERSION, kind];
    put_members(&mut out, members);
    out
}

pub(super) fn decode_message(bytes: &[u8]) -> Result<Said, DecodeError> {
    if bytes.len() > MAX_CONTROL_BYTES {
        return Err(DecodeError::TooLarge(bytes.len()));
    }
    let mut reader = Reader::new(bytes);
    reader.version(VERSION)?;
    let kind = reader.u8()?;
    let mut said = |kind| members(&mut reader).map(|members| Said::Members(kind, members));
    let said = match kind {
        1 => said(Kind::Join)?,
        2 => said(Kind::Joined)?,
        3 => said(Kind::State)?,
        4 => said(Kind::Reply)?,
        5 => said(Kind::News)?,
        DIGEST => Said::Digest(reader.array()?),
        ASK => Said::Ask,
        _ => return Err(DecodeError::Bad("kind")),
    };
    reader.end()?;
    Ok(said)
}

/// The members as a file of node `owner`.
pub(super) fn encode_file(owner: &str, members: &Members) -> Vec<u8> {
    let mut body = Vec::new();
    put_text(&mut body, owner);
    put_members(&mut body, members);
    seal(MAGIC, FILE_VERSION, &body)
}

pub(super) fn decode_file(owner: &str, bytes: &[u8]) -> Result<Members, DecodeError> {
    let mut reader = unseal(MAGIC, FILE_VERSION, bytes)?;
    let written_by = read_name(&mut reader)?;
    if &*written_by != owner {
        return Err(DecodeError::Foreign(written_by));
    }
    let members = members(&mut reader)?;
    reader.end()?;
    Ok(members)
}

fn put_members(out: &mut Vec<u8>, members: &Members) {
    out.extend_from_slice(&(members.len() as u32).to_be_bytes());
    for (name, entry) in members.entries() {
        put_text(out, name);
        out.extend_from_slice(&entry.epoch.to_be_bytes());
        out.extend_from_slice(&entry.version.to_be_bytes());
        out.push(entry.is_present().into());
        if let Some(spec) = &entry.spec {
            put_spec(out, spec);
        }
    }
}

fn counter(reader: &mut Reader<'_>, what: &'static str) -> Result<u64, DecodeError> {
    let n = reader.u64()?;
    if n > MAX_COUNTER {
        return Err(DecodeError::Bad(what));
    }
    Ok(n)
}

fn members(reader: &mut Reader<'_>) -> Result<Members, DecodeError> {
    let count = reader.u32()?;
    if count as usize > MAX_MEMBERS {
        return Err(DecodeError::Bad("number of members"));
    }
    let mut members = Members::default();
    let mut last: Option<Arc<str>> = None;
    for _ in 0..count {
        let name = read_name(reader)?;
        if last.is_some_and(|last| last >= name) {
            return Err(DecodeError::Order);
        }
        let epoch = counter(reader, "epoch")?;
        if epoch == 0 {
            return Err(DecodeError::Bad("epoch"));
        }
        let version = counter(reader, "version")?;
        let spec = match reader.bool("presence")? {
            true => Some(Arc::new(read_spec(reader, name.clone())?)),
            false => None,
        };
        let entry = Entry {
            epoch,
            version,
            spec,
        };
        members.insert(name.clone(), entry);
        last = Some(name);
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::overlay::{MemberChannel, NodeSpec};

    fn encode(said: &Said) -> Vec<u8> {
        match said {
            Said::Members(kind, members) => encode_message(*kind, members),
            Said::Digest(digest) => encode_digest(*digest),
            Said::Ask => encode_ask(),
        }
    }

    fn rich() -> Members {
        let mut members = Members::default();
        let spec = NodeSpec {
            name: "b@h".into(),
            listen_addrs: vec![
                "10.0.0.1:9000".parse().unwrap(),
                "[fe80::1]:9001".parse().unwrap(),
            ],
            channels: vec![MemberChannel {
                name: "gossip".into(),
                parallelism: 4,
                monotonic: true,
                compression: 1,
            }],
        };
        members.insert("b@h".into(), Entry::present(3, 7, Arc::new(spec)));
        let gone = Entry {
            epoch: 2,
            version: 1,
            spec: None,
        };
        members.insert("a@h".into(), gone);
        members
    }

    #[test]
    fn every_prefix_and_every_flipped_bit_of_a_file_is_refused() {
        let bytes = encode_file("b@h", &rich());
        assert_eq!(decode_file("b@h", &bytes), Ok(rich()));
        assert_eq!(
            decode_file("c@h", &bytes),
            Err(DecodeError::Foreign("b@h".into()))
        );
        for n in 0..bytes.len() {
            assert!(decode_file("b@h", &bytes[..n]).is_err());
            let mut bad = bytes.clone();
            bad[n] ^= 1;
            assert!(decode_file("b@h", &bad).is_err(), "byte {n}");
        }
    }

    #[test]
    fn limits_hold() {
        let mut huge = vec![VERSION, 3];
        huge.extend_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(
            decode_message(&huge),
            Err(DecodeError::Bad("number of members"))
        );
        let large = vec![0; MAX_CONTROL_BYTES + 1];
        assert_eq!(
            decode_message(&large),
            Err(DecodeError::TooLarge(large.len()))
        );
        let mut trailing = encode_message(Kind::State, &rich());
        trailing.push(0);
        assert_eq!(decode_message(&trailing), Err(DecodeError::Trailing(1)));
        let twice = {
            let one = encode_message(Kind::State, &rich());
            let mut two = one.clone();
            two[5] = 4;
            two.extend_from_slice(&one[6..]);
            two
        };
        assert_eq!(decode_message(&twice), Err(DecodeError::Order));
    }

    proptest! {
        #[test]
        fn messages_survive(members in super::super::state::tests::members()) {
            let kinds = [Kind::Join, Kind::Joined, Kind::State, Kind::Reply, Kind::News];
            let of_kind = |kind| Said::Members(kind, members.clone());
            for said in kinds.map(of_kind).into_iter().chain([Said::Digest(digest(&members)), Said::Ask]) {
                let bytes = encode(&said);
                prop_assert_eq!(decode_message(&bytes), Ok(said));
            }
        }

        #[test]
        fn garbage_is_refused_or_canonical(
            kind in 0u8..9,
            rest in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let bytes = [&[VERSION, kind][..], &rest].concat();
            if let Ok(said) = decode_message(&bytes) {
                prop_assert_eq!(encode(&said), bytes);
            }
        }

        #[test]
        fn mutations_are_refused_or_canonical(
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut bytes = encode_message(Kind::Join, &rich());
            for (at, value) in edits {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if let Ok(said) = decode_message(&bytes) {
                prop_assert_eq!(encode(&said), bytes);
            }
        }
    }
}
