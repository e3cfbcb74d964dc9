//! What one direction of a link does to packets, and the text that says so.
//!
//! `delay=10ms rate=1gbit queue=1m loss=1% up=yes`: durations take `ns`, `us`, `ms` or `s`; rates
//! are in decimal bits per second (`kbit`, `mbit`, `gbit`) or `none`; sizes are binary (`k`, `m`,
//! `g`) bytes; losses are a percentage or a fraction.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Longest delay that a link may have.
pub const MAX_DELAY: Duration = Duration::from_secs(3600);
/// Slowest rate limit, in bits per second: below it the clock of the limiter would overflow.
pub const MIN_RATE: u64 = 8_000;

/// One direction of a link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkSettings {
    /// Time from the end of a packet's transmission to its delivery.
    pub delay: Duration,
    /// Bits per second, counted on IP packets; `None` is as fast as the emulator can.
    pub rate: Option<u64>,
    /// Bytes that may wait for the rate limiter; more are dropped. Without a rate nothing waits.
    pub queue: u64,
    /// Probability that a packet is lost, 0 to 1.
    pub loss: f64,
    /// Whether packets pass at all.
    pub up: bool,
}

impl Default for LinkSettings {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            rate: None,
            queue: 1 << 20,
            loss: 0.0,
            up: true,
        }
    }
}

impl fmt::Display for LinkSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "delay={}us rate=", self.delay.as_nanos() as f64 / 1e3)?;
        match self.rate {
            Some(rate) => write!(f, "{rate}bit")?,
            None => f.write_str("none")?,
        }
        let up = if self.up { "yes" } else { "no" };
        write!(
            f,
            " queue={} loss={}% up={up}",
            self.queue,
            self.loss * 100.0
        )
    }
}

impl FromStr for LinkSettings {
    type Err = ParseError;

    /// The defaults, changed as the text says.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        Ok(text.parse::<LinkChange>()?.applied_to(Self::default()))
    }
}

/// The settings that are to change; the others stay as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LinkChange {
    /// New [`LinkSettings::delay`].
    pub delay: Option<Duration>,
    /// New [`LinkSettings::rate`].
    pub rate: Option<Option<u64>>,
    /// New [`LinkSettings::queue`].
    pub queue: Option<u64>,
    /// New [`LinkSettings::loss`].
    pub loss: Option<f64>,
    /// New [`LinkSettings::up`].
    pub up: Option<bool>,
}

impl LinkChange {
    /// The settings after this change.
    pub fn applied_to(&self, old: LinkSettings) -> LinkSettings {
        LinkSettings {
            delay: self.delay.unwrap_or(old.delay),
            rate: self.rate.unwrap_or(old.rate),
            queue: self.queue.unwrap_or(old.queue),
            loss: self.loss.unwrap_or(old.loss),
            up: self.up.unwrap_or(old.up),
        }
    }
}

impl From<LinkSettings> for LinkChange {
    fn from(all: LinkSettings) -> Self {
        Self {
            delay: Some(all.delay),
            rate: Some(all.rate),
            queue: Some(all.queue),
            loss: Some(all.loss),
            up: Some(all.up),
        }
    }
}

/// What is wrong with the text of a setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// No `=` in a setting.
    #[error("`{0}` is no setting: expected KEY=VALUE")]
    NotASetting(String),
    /// Neither of the known keys.
    #[error("unknown setting `{0}`: expected delay, rate, queue, loss or up")]
    UnknownKey(String),
    /// A value that its key cannot have.
    #[error("{key}=`{value}`: expected {expected}")]
    Value {
        /// The setting.
        key: &'static str,
        /// What was given for it.
        value: String,
        /// What could have been given.
        expected: &'static str,
    },
}

impl FromStr for LinkChange {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut change = Self::default();
        for word in text.split_whitespace() {
            let (key, value) = word
                .split_once('=')
                .ok_or_else(|| ParseError::NotASetting(word.into()))?;
            let wrong = |key, expected| ParseError::Value {
                key,
                value: value.into(),
                expected,
            };
            match key {
                "delay" => {
                    change.delay = Some(
                        duration(value)
                            .ok_or(wrong("delay", "0 or such as 0.5ms, 20ms, at most 1 hour"))?,
                    );
                }
                "rate" => {
                    change.rate = Some(
                        rate(value)
                            .ok_or(wrong("rate", "none or such as 1gbit, at least 8kbit"))?,
                    );
                }
                "queue" => {
                    change.queue =
                        Some(size(value).ok_or(wrong("queue", "bytes such as 1500, 256k, 1m"))?);
                }
                "loss" => {
                    change.loss =
                        Some(loss(value).ok_or(wrong("loss", "0 to 100 % or 0 to 1: 1%, 0.01"))?);
                }
                "up" => {
                    change.up = Some(match value {
                        "yes" => true,
                        "no" => false,
                        _ => return Err(wrong("up", "yes or no")),
                    });
                }
                _ => return Err(ParseError::UnknownKey(key.into())),
            }
        }
        Ok(change)
    }
}

/// The number before one of the units, scaled by it.
fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    Some(number * factor)
}

fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let nanos = scaled(text, &[("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9)])?;
    let delay = Duration::from_nanos(nanos.round() as u64);
    (delay <= MAX_DELAY).then_some(delay)
}

fn rate(text: &str) -> Option<Option<u64>> {
    if text == "none" {
        return Some(None);
    }
    let bits = scaled(
        text,
        &[("bit", 1.0), ("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9)],
    )?;
    (bits >= MIN_RATE as f64 && bits <= 1e13).then_some(Some(bits as u64))
}

fn size(text: &str) -> Option<u64> {
    let bytes = scaled(
        &text.to_ascii_lowercase(),
        &[
            ("", 1.0),
            ("b", 1.0),
            ("k", 1024.0),
            ("m", 1048576.0),
            ("g", 1073741824.0),
        ],
    )?;
    (bytes <= 1e12).then_some(bytes as u64)
}

fn loss(text: &str) -> Option<f64> {
    let loss = scaled(text, &[("", 1.0), ("%", 0.01)])?;
    (loss <= 1.0).then_some(loss)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_settings_are_read() {
        let settings: LinkSettings = "delay=0.5ms rate=1gbit queue=256k loss=1% up=no"
            .parse()
            .unwrap();
        assert_eq!(
            settings,
            LinkSettings {
                delay: Duration::from_micros(500),
                rate: Some(1_000_000_000),
                queue: 256 * 1024,
                loss: 0.01,
                up: false,
            }
        );
        assert_eq!("".parse(), Ok(LinkChange::default()));
        assert_eq!("delay=0 rate=none".parse(), Ok(LinkSettings::default()));
    }

    #[test]
    fn what_is_shown_can_be_read_again() {
        for text in [
            "",
            "delay=3ns loss=0.5",
            "delay=10ms rate=8kbit queue=3g up=no",
        ] {
            let settings: LinkSettings = text.parse().unwrap();
            assert_eq!(settings.to_string().parse(), Ok(settings));
        }
    }

    #[test]
    fn a_change_leaves_the_rest() {
        let old: LinkSettings = "delay=1ms rate=1mbit loss=0.5".parse().unwrap();
        let change: LinkChange = "rate=none up=no".parse().unwrap();
        let new = change.applied_to(old);
        assert_eq!(
            new,
            LinkSettings {
                rate: None,
                up: false,
                ..old
            }
        );
    }

    #[test]
    fn bad_settings_are_explained() {
        for (text, part) in [
            ("delay", "KEY=VALUE"),
            ("speed=1", "unknown setting `speed`"),
            ("delay=5", "delay=`5`"),
            ("delay=-5ms", "delay"),
            ("delay=2000000000s", "delay"),
            ("delay=1.2.3ms", "delay"),
            ("delay=ms", "delay"),
            ("rate=1", "rate"),
            ("rate=1bit", "at least 8kbit"),
            ("rate=999999gbit", "rate"),
            ("queue=-1", "queue"),
            ("queue=9999999g", "queue"),
            ("loss=101%", "loss"),
            ("loss=NaN", "loss"),
            ("up=maybe", "yes or no"),
        ] {
            let error = text.parse::<LinkChange>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
