//! Points: what is measured, apart from who is measured.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

/// Kinds of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Work {
    /// One-way streams without acknowledgement, one sink per sender.
    Flood,
    /// Actors that send to their partner and wait for its acknowledgement.
    Loop,
    /// One request after the other while nothing else goes on.
    Idle,
    /// Requests beside streams of large messages.
    Hol,
}

/// Where the two ends are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Site {
    /// On 127.0.0.1.
    Loopback,
    /// In two network namespaces joined by the emulator.
    Emulated {
        /// With `tcp_wmem` up to 32 MB.
        large_windows: bool,
    },
}

/// Something to measure.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Point {
    pub(crate) work: Work,
    /// Bytes of a message's payload; of the streams' for [`Work::Hol`].
    pub(crate) size: usize,
    /// Senders, actors or streams.
    pub(crate) actors: u32,
    /// Round trip that the emulator adds, in milliseconds; 0: loopback, no emulator.
    pub(crate) rtt_ms: u32,
    /// Rate of the emulated link, as the emulator writes it.
    pub(crate) rate: Option<String>,
    /// [`Work::Hol`]: requests go by the channel of the streams.
    pub(crate) same_channel: bool,
    /// 32 MB of `tcp_wmem`.
    pub(crate) large_windows: bool,
    /// Compared over numbers of connections: VMs of its own.
    pub(crate) sweep: bool,
}

/// Payload of requests beside streams.
pub(crate) const PING_BYTES: usize = 64;
/// Largest payload.
pub(crate) const MAX_BYTES: usize = 8 << 20;

impl Point {
    pub(crate) fn site(&self) -> Site {
        if self.rtt_ms == 0 && self.rate.is_none() {
            Site::Loopback
        } else {
            Site::Emulated {
                large_windows: self.large_windows,
            }
        }
    }

    /// What its reader calls the payload.
    pub(crate) fn size_text(&self) -> String {
        size_text(self.size)
    }
}

/// `64`, `1K`, `8M`.
pub(crate) fn size_text(bytes: usize) -> String {
    match bytes {
        b if b >= 1 << 20 && b % (1 << 20) == 0 => format!("{}M", b >> 20),
        b if b >= 1 << 10 && b % (1 << 10) == 0 => format!("{}K", b >> 10),
        b => b.to_string(),
    }
}

fn parse_size(text: &str) -> Result<usize> {
    let upper = text.to_ascii_uppercase();
    let (digits, shift) = match upper.strip_suffix('B').unwrap_or(&upper) {
        t if t.ends_with('K') => (&t[..t.len() - 1], 10),
        t if t.ends_with('M') => (&t[..t.len() - 1], 20),
        t => (t, 0),
    };
    let size = digits
        .parse::<usize>()
        .with_context(|| format!("{text:?} is no size"))?
        << shift;
    if !(1..=MAX_BYTES).contains(&size) {
        bail!("sizes are 1 to 8M, not {text}");
    }
    Ok(size)
}

impl fmt::Display for Point {
    /// The canonical text: what differs from the default, in this order.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, actors) = match self.work {
            Work::Flood => ("flood", "senders"),
            Work::Loop => ("loop", "actors"),
            Work::Idle => ("idle", ""),
            Work::Hol => ("hol", "streams"),
        };
        write!(f, "{name} size={}", self.size_text())?;
        if self.work != Work::Idle {
            write!(f, " {actors}={}", self.actors)?;
        }
        if self.work == Work::Hol {
            let channel = if self.same_channel { "same" } else { "other" };
            write!(f, " channel={channel}")?;
        }
        if self.rtt_ms > 0 {
            write!(f, " rtt={}", self.rtt_ms)?;
        }
        if let Some(rate) = &self.rate {
            write!(f, " rate={rate}")?;
        }
        if self.large_windows {
            f.write_str(" wmem=32M")?;
        }
        if self.sweep {
            f.write_str(" sweep=yes")?;
        }
        Ok(())
    }
}

impl FromStr for Point {
    type Err = anyhow::Error;

    /// `flood size=64 senders=1`, `loop size=8M actors=128 rtt=20 wmem=32M`, `idle`,
    /// `hol streams=4 channel=same rtt=1 rate=1gbit`.
    fn from_str(text: &str) -> Result<Self> {
        let mut words = text.split_whitespace();
        let work = match words.next() {
            Some("flood") => Work::Flood,
            Some("loop") => Work::Loop,
            Some("idle") => Work::Idle,
            Some("hol") => Work::Hol,
            other => bail!("a point is flood, loop, idle or hol, not {other:?}"),
        };
        let mut options = BTreeMap::new();
        for word in words {
            let (key, value) = word
                .split_once('=')
                .with_context(|| format!("{word:?} is no key=value"))?;
            options.insert(key, value);
        }
        let mut take = |key: &str| options.remove(key);
        let default_size = if work == Work::Hol { "8M" } else { "64" };
        let size = parse_size(take("size").unwrap_or(default_size))?;
        let actors = ["actors", "senders", "streams"]
            .into_iter()
            .find_map(&mut take)
            .unwrap_or("1")
            .parse()
            .context("the number of actors")?;
        let rtt_ms = take("rtt").unwrap_or("0").parse().context("rtt")?;
        let rate = take("rate").map(str::to_owned);
        let same_channel = match take("channel") {
            None | Some("other") => false,
            Some("same") => true,
            Some(other) => bail!("channel is same or other, not {other}"),
        };
        let large_windows = match take("wmem") {
            None => false,
            Some("32M") => true,
            Some(other) => bail!("wmem is 32M, not {other}"),
        };
        let sweep = take("sweep") == Some("yes");
        if let Some(key) = options.keys().next() {
            bail!("{text:?}: unknown option {key}");
        }
        if !(1..=1024).contains(&actors) || rtt_ms > 10_000 {
            bail!("{text:?}: 1 to 1024 actors, at most 10 s of round trip");
        }
        Ok(Self {
            work,
            size,
            actors,
            rtt_ms,
            rate,
            same_channel,
            large_windows,
            sweep,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_its_text() {
        for text in [
            "flood size=64 senders=1",
            "flood size=1K senders=64",
            "loop size=8M actors=128 rtt=20 wmem=32M",
            "loop size=512K actors=16 sweep=yes",
            "idle size=64",
            "hol size=8M streams=4 channel=same rtt=1 rate=1gbit",
        ] {
            let point: Point = text.parse().unwrap();
            assert_eq!(point.to_string(), text);
        }
    }

    #[test]
    fn sizes_have_units_and_bounds() {
        assert_eq!(parse_size("512k").unwrap(), 512 << 10);
        assert_eq!(parse_size("8MB").unwrap(), 8 << 20);
        for wrong in ["0", "9M", "", "x", "1G"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn unknown_words_are_refused() {
        for wrong in ["", "gallop", "flood sender=1", "flood x", "loop actors=0"] {
            assert!(wrong.parse::<Point>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rate_needs_the_emulator() {
        let site = |text: &str| text.parse::<Point>().unwrap().site();
        assert_eq!(site("loop"), Site::Loopback);
        assert_eq!(
            site("hol rate=1gbit"),
            Site::Emulated {
                large_windows: false
            }
        );
        assert_eq!(
            site("loop rtt=20 wmem=32M"),
            Site::Emulated {
                large_windows: true
            }
        );
    }
}
