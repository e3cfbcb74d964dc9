//! Bytes there and back, and bytes that are none.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use crate::delivery::causal::{Id, Row, Stamp};
use crate::delivery::{Lane, Message, Parcel};
use crate::overlay::codec::Reader;
use crate::wire::frame::Dest;

fn text() -> impl Strategy<Value = Arc<str>> {
    "[a-zä]{1,9}".prop_map(Arc::from)
}

fn lane() -> impl Strategy<Value = Lane> {
    prop_oneof![text().prop_map(Lane::Channel), text().prop_map(Lane::Label)]
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn message() -> impl Strategy<Value = Message> {
    let data = (lane(), any::<u64>(), 0..9_u64, 9..99_u64, bytes());
    let ack = (lane(), any::<u64>(), 0..9_u64, 9..99_u64, any::<bool>());
    prop_oneof![
        data.prop_map(|(lane, epoch, start, number, body)| Message::Data {
            lane,
            epoch,
            start,
            number,
            body
        }),
        ack.prop_map(|(lane, epoch, done, received, again)| Message::Ack {
            lane,
            epoch,
            done,
            received,
            again
        }),
    ]
}

fn id() -> impl Strategy<Value = Id> {
    (text(), any::<u64>()).prop_map(|(node, instance)| Id { node, instance })
}

fn stamp() -> impl Strategy<Value = Stamp> {
    let sent = prop::collection::btree_map(id(), any::<u64>(), 0..5);
    let row = (any::<u64>(), sent).prop_map(|(version, sent)| Row { version, sent });
    prop::collection::btree_map(id(), row, 0..5).prop_map(Stamp)
}

proptest! {
    #[test]
    fn messages_survive(message in message()) {
        let mut out = Vec::new();
        message.encode(&mut out);
        prop_assert_eq!(Message::decode(&out), Ok(message));
    }

    #[test]
    fn stamps_survive(stamp in stamp()) {
        let mut out = Vec::new();
        stamp.encode(&mut out);
        let mut reader = Reader::new(&out);
        prop_assert_eq!(Stamp::decode(&mut reader), Ok(stamp));
        prop_assert!(reader.end().is_ok());
    }

    #[test]
    fn parcels_survive(name in text(), pid in any::<(u32, u32, u32)>(), term in bytes()) {
        let pid = Dest::Pid { id: pid.0, serial: pid.1, creation: pid.2 };
        for dest in [Dest::Name(&name), pid] {
            let parcel = Parcel { dest, term: &term };
            let mut out = Vec::new();
            parcel.encode(&mut out);
            prop_assert_eq!(Parcel::decode(&out), Ok(parcel));
        }
    }

    /// What decodes at all is what was encoded.
    #[test]
    fn garbage_is_refused_or_canonical(
        kind in 0_u8..4,
        rest in prop::collection::vec(prop_oneof![0_u8..3, any::<u8>()], 0..80),
    ) {
        let mut input = vec![1, kind];
        input.extend(rest);
        if let Ok(message) = Message::decode(&input) {
            let mut out = Vec::new();
            message.encode(&mut out);
            prop_assert_eq!(out, input.clone());
        }
        let _ = Parcel::decode(&input);
        let _ = Stamp::decode(&mut Reader::new(&input));
    }
}

/// A list is as long as its elements, whatever it claims.
#[test]
fn claims_cost_nothing() {
    assert!(Stamp::decode(&mut Reader::new(&[0xff, 0xff])).is_err());
    assert!(Stamp::decode(&mut Reader::new(&[0, 0, 0xff, 0xff])).is_err());
    let row = Row {
        version: 1,
        sent: BTreeMap::new(),
    };
    let rows = (0..2000).map(|instance| {
        let node = Arc::from("a@h");
        (Id { node, instance }, row.clone())
    });
    let mut out = Vec::new();
    Stamp(rows.collect()).encode(&mut out);
    assert!(Stamp::decode(&mut Reader::new(&out)).is_err());
}
