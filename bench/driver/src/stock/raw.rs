//! A sink that costs next to nothing: a thread per connection that finds the ends of messages, so that the sender
//! is what is measured. It reads the two forms of packets that small messages come in and no other.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use erl_dist::DistributionFlags as Flags;
use tokio_util::compat::TokioAsyncReadCompatExt;

use super::end::{Numbered, Place, Tally};
use super::theirs::accept;

const CREATION: u32 = 0x5eed;

/// What a stock node of OTP 25 offers, as far as it concerns small messages.
fn flags() -> Flags {
    Flags::default()
        | Flags::DIST_HDR_ATOM_CACHE
        | Flags::FRAGMENTS
        | Flags::SEND_SENDER
        | Flags::EXIT_PAYLOAD
        | Flags::SMALL_ATOM_TAGS
        | Flags::DIST_MONITOR
        | Flags::DIST_MONITOR_NAME
        | Flags::PUBLISHED
}

pub(super) fn start(place: Place) -> Result<Numbered> {
    let (end, tally) = Numbered::new(CREATION, |_| bail!("it only receives"));
    let listener = std::net::TcpListener::bind(place.listen)?;
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (name, tally) = (place.name.clone(), tally.clone());
            std::thread::spawn(move || {
                if let Err(e) = serve(stream, &name, &tally) {
                    tally.tell(Err(e));
                }
            });
        }
    });
    Ok(end)
}

fn shake(stream: TcpStream, name: &str) -> Result<TcpStream> {
    stream.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let stream = runtime.block_on(async {
        let stream = tokio::net::TcpStream::from_std(stream)?.compat();
        let (stream, _) = accept(stream, name, flags()).await?;
        anyhow::Ok(stream.into_inner().into_std()?)
    })?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn serve(stream: TcpStream, name: &str, tally: &Tally) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = shake(stream, name)?;
    let mut ticker = stream.try_clone()?;
    std::thread::spawn(move || {
        while ticker.write_all(&[0; 4]).is_ok() {
            std::thread::sleep(Duration::from_secs(10));
        }
    });
    let mut buffer = vec![0; 256 << 10];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..])?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let mut sinks = tally.sinks();
        let mut at = 0;
        while let Some(length) = buffer[at..filled].first_chunk() {
            let length = u32::from_be_bytes(*length) as usize;
            ensure!(length + 4 <= buffer.len(), "a packet of {length} bytes");
            let Some(packet) = buffer[at + 4..filled].get(..length) else {
                break;
            };
            at += 4 + length;
            if packet.is_empty() {
                continue;
            }
            let message = message(packet);
            let (to, number, payload) = message.with_context(|| format!("got {packet:?}"))?;
            if let Some(verdict) = sinks.take(to, number.into(), payload)? {
                tally.tell(Ok(verdict));
            }
        }
        buffer.copy_within(at..filled, 0);
        filled -= at;
    }
}

/// Reads a message from its end: number of the receiving pid, number, payload.
fn message(packet: &[u8]) -> Option<(u32, u32, &[u8])> {
    if !matches!(packet, [112, 131, ..] | [131, 68, ..]) {
        return None;
    }
    // {data, Number, Binary}: 104 3, the atom, 98 and four bytes, 109 and four bytes.
    let data = packet.windows(4).position(|w| w == b"data")?;
    let rest = packet.get(data + 4..)?;
    let (head, payload) = rest.split_at_checked(10)?;
    let [98, n1, n2, n3, n4, 109, l1, l2, l3, l4] = *head else {
        return None;
    };
    let number = u32::from_be_bytes([n1, n2, n3, n4]);
    if payload.len() != u32::from_be_bytes([l1, l2, l3, l4]) as usize {
        return None;
    }
    // The end of the control message is the receiver's pid.
    let mut before = packet.get(..data)?;
    before = before
        .strip_suffix(&[119, 4])
        .or_else(|| before.strip_suffix(&[100, 0, 4]))
        .or_else(|| before.strip_suffix(&[118, 0, 4]))
        .or_else(|| before.strip_suffix(&[115, 4]))?;
    before = before.strip_suffix(&[104, 3])?;
    before = before.strip_suffix(&[131]).unwrap_or(before);
    let pid = before.last_chunk::<12>()?;
    let [a, b, c, d, 0, 0, 0, 0, rest @ ..] = *pid else {
        return None;
    };
    (u32::from_be_bytes(rest) == CREATION).then_some((
        u32::from_be_bytes([a, b, c, d]),
        number,
        payload,
    ))
}
