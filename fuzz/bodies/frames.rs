//! Headers, heads, hellos and plans: what is read before a payload is touched.

use partisan::limits;
use partisan::wire::frame::{self, Dest, DestBuf, Head};
use partisan::wire::hello::{ChannelSpec, Hello, Plan};

pub fn run(data: &[u8]) {
    if let Ok(Some(header)) = frame::parse_header(data).map_err(|e| e.to_string()) {
        assert!(header.body < limits::MAX_FRAME_BYTES);
        if let Some(body) = data.get(frame::HEADER..frame::HEADER + header.body) {
            let mut again = Vec::new();
            frame::put_frame(&mut again, header.kind, body).expect("what was accepted can be sent");
            assert_eq!(again, &data[..frame::HEADER + header.body]);
        }
    }
    for body in [data, data.get(frame::HEADER..).unwrap_or_default()] {
        bodies(body);
    }
}

fn bodies(body: &[u8]) {
    let _ = frame::parse_first(body).map_err(|e| e.to_string());
    let _ = frame::parse_more(body).map_err(|e| e.to_string());
    let _ = frame::parse_ping(body).map_err(|e| e.to_string());
    let _ = frame::parse_close(body).map_err(|e| e.to_string());
    if let Ok(Some((head, used))) = Head::parse(body).map_err(|e| e.to_string()) {
        assert_eq!(used, head.encoded_len());
        let mut again = Vec::new();
        head.encode(&mut again)
            .expect("what was read can be written");
        assert_eq!(again, &body[..used]);
        for cut in 0..used {
            assert_eq!(Head::parse(&body[..cut]), Ok(None));
        }
        let owned = DestBuf::from(head.dest);
        assert_eq!(Dest::from(&owned), head.dest);
        let _ = head.dest.to_string();
    }
    if let Ok((head, term)) = frame::parse_message(body).map_err(|e| e.to_string()) {
        let mut again = Vec::new();
        if frame::put_message(&mut again, head.dest, term).is_ok() {
            assert_eq!(&again[frame::HEADER..], body);
        }
    }
    if let Ok(hello) = Hello::decode(body).map_err(|e| e.to_string()) {
        let again = hello.encode().expect("what was read can be written");
        assert_eq!(Hello::decode(&again).as_ref(), Ok(&hello));
        plan(&hello.channels);
    }
}

fn plan(theirs: &[ChannelSpec]) {
    let ours = [("undefined", 4), ("bulk", 16)].map(|(name, parallelism)| ChannelSpec {
        name: name.into(),
        parallelism,
        monotonic: false,
        compression: 0,
    });
    let here = Plan::merge(&ours, theirs).map_err(|e| e.to_string());
    let there = Plan::merge(theirs, &ours).map_err(|e| e.to_string());
    let (here, there) = match (here, there) {
        (Ok(here), Ok(there)) => (here, there),
        (here, there) => return assert_eq!(here.is_err(), there.is_err()),
    };
    assert_eq!(here.channels(), there.channels());
    assert!(here.channels().len() <= limits::MAX_CHANNELS);
    assert!(here.total() <= limits::MAX_CONNECTIONS);
    let mut next = 0;
    for channel in here.channels() {
        assert_eq!(channel.base, next);
        assert!(channel.count > 0);
        next += channel.count;
    }
}
