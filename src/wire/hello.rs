//! Which channels a session has.
//!
//! Both ends of a session send a [`Hello`] with the channels they are configured with. From the
//! two lists each computes the same [`Plan`]: the union of the channels, each with the larger
//! parallelism, the default channel first, the rest by name. Connections are numbered through in
//! that order, so an index means the same to both ends without further talk.
//!
//! The body is
//!
//! ```text
//! version:8 = 1   count:16   count × ( name length:8  name  parallelism:16  flags:8  compression:8 )   abilities:8   …
//! ```
//!
//! Bit 0 of the flags is `monotonic`, bit 0 of the abilities is `bundles`; other bits and the bytes after the abilities are ignored,
//! so that later versions may use them. Abilities that are missing are none.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::limits::{MAX_CHANNELS, MAX_CONNECTIONS, MAX_PARALLELISM};
use crate::wire::reader;

/// Name of the channel that is used when none is named.
pub const DEFAULT_CHANNEL: &str = "undefined";
/// Highest compression level.
pub const MAX_COMPRESSION: u8 = 9;

const VERSION: u8 = 1;
const MONOTONIC: u8 = 1;
const BUNDLES: u8 = 1;

/// A channel as one end is configured with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelSpec {
    /// Name, at most 255 bytes.
    pub name: Arc<str>,
    /// Connections, at least one.
    pub parallelism: u16,
    /// Only the newest message matters: older ones may be dropped under load.
    pub monotonic: bool,
    /// Compression level, 0 (none) to 9.
    pub compression: u8,
}

/// What each end tells the other on the first connection of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Channels that the sender is configured with.
    pub channels: Vec<ChannelSpec>,
    /// The sender takes small messages of a whole channel on its first connection, and answers ASK;
    /// see [`crate::channel::Branch`].
    pub bundles: bool,
}

/// Why a hello cannot be read or two lists of channels do not make a session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HelloError {
    /// Another version of the hello.
    #[error("hello of version {0}, we speak {VERSION}: run releases that are compatible")]
    Version(u8),
    /// The hello ends within a channel.
    #[error("hello ends too early")]
    Short,
    /// A name that is empty, too long or not UTF-8.
    #[error("channel name {0:?}: names have 1 to 255 bytes of UTF-8")]
    Name(String),
    /// A name twice.
    #[error("channel {0:?} is listed twice")]
    Duplicate(Arc<str>),
    /// A channel without connections.
    #[error("channel {0:?} has parallelism 0: it needs at least 1")]
    NoConnections(Arc<str>),
    /// Too many channels.
    #[error("{0} channels, both ends together: remove some, at most {MAX_CHANNELS} are allowed")]
    TooManyChannels(usize),
    /// Too many connections.
    #[error(
        "{total} connections in all, at most {MAX_CONNECTIONS} are allowed: reduce the \
         parallelism of channel {largest:?}, which has {count} of them, on the end that sets it"
    )]
    TooManyConnections {
        /// Connections of all channels.
        total: usize,
        /// The channel with the most.
        largest: Arc<str>,
        /// How many that channel has.
        count: u16,
    },
}

impl Hello {
    /// The body of a HELLO frame.
    pub fn encode(&self) -> Result<Vec<u8>, HelloError> {
        check(&self.channels)?;
        let count = self.channels.len() as u16;
        let mut out = vec![VERSION];
        out.extend_from_slice(&count.to_be_bytes());
        for channel in &self.channels {
            out.push(channel.name.len() as u8);
            out.extend_from_slice(channel.name.as_bytes());
            out.extend_from_slice(&channel.parallelism.to_be_bytes());
            out.push(if channel.monotonic { MONOTONIC } else { 0 });
            out.push(channel.compression);
        }
        out.push(if self.bundles { BUNDLES } else { 0 });
        Ok(out)
    }

    /// Reads the body of a HELLO frame.
    pub fn decode(body: &[u8]) -> Result<Hello, HelloError> {
        let mut input = body;
        let version = reader::u8(&mut input).ok_or(HelloError::Short)?;
        if version != VERSION {
            return Err(HelloError::Version(version));
        }
        let count = reader::u16(&mut input).ok_or(HelloError::Short)?;
        if usize::from(count) > MAX_CHANNELS {
            return Err(HelloError::TooManyChannels(count.into()));
        }
        let channels = (0..count)
            .map(|_| channel(&mut input))
            .collect::<Result<Vec<_>, _>>()?;
        check(&channels)?;
        let abilities = reader::u8(&mut input).unwrap_or(0);
        Ok(Hello {
            channels,
            bundles: abilities & BUNDLES != 0,
        })
    }
}

fn channel(input: &mut &[u8]) -> Result<ChannelSpec, HelloError> {
    let len = reader::u8(input).ok_or(HelloError::Short)?;
    let name = reader::bytes(input, len.into()).ok_or(HelloError::Short)?;
    let name = std::str::from_utf8(name)
        .map_err(|_| HelloError::Name(String::from_utf8_lossy(name).into_owned()))?;
    let parallelism = reader::u16(input).ok_or(HelloError::Short)?;
    let flags = reader::u8(input).ok_or(HelloError::Short)?;
    let compression = reader::u8(input).ok_or(HelloError::Short)?;
    Ok(ChannelSpec {
        name: name.into(),
        parallelism,
        monotonic: flags & MONOTONIC != 0,
        compression,
    })
}

fn check(channels: &[ChannelSpec]) -> Result<(), HelloError> {
    if channels.len() > MAX_CHANNELS {
        return Err(HelloError::TooManyChannels(channels.len()));
    }
    for (i, channel) in channels.iter().enumerate() {
        if channel.name.is_empty() || channel.name.len() > usize::from(u8::MAX) {
            return Err(HelloError::Name(channel.name.to_string()));
        }
        if channel.parallelism == 0 {
            return Err(HelloError::NoConnections(channel.name.clone()));
        }
        if channels
            .iter()
            .take(i)
            .any(|other| other.name == channel.name)
        {
            return Err(HelloError::Duplicate(channel.name.clone()));
        }
    }
    Ok(())
}

/// A channel as the session has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedChannel {
    /// Name.
    pub name: Arc<str>,
    /// Index of its first connection.
    pub base: u16,
    /// How many connections it has, at least one.
    pub count: u16,
    /// Whether either end says that only the newest message matters.
    pub monotonic: bool,
    /// The higher of both ends' compression levels.
    pub compression: u8,
}

/// The channels of a session and their connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    channels: Vec<PlannedChannel>,
    foreign: Vec<Arc<str>>,
}

impl Plan {
    /// The plan of a session between an end with `ours` and one with `theirs`.
    ///
    /// The other end computes the same channels with the arguments exchanged.
    pub fn merge(ours: &[ChannelSpec], theirs: &[ChannelSpec]) -> Result<Plan, HelloError> {
        check(ours)?;
        check(theirs)?;
        let default = ChannelSpec {
            name: DEFAULT_CHANNEL.into(),
            parallelism: 1,
            monotonic: false,
            compression: 0,
        };
        // `false` sorts before `true`: the default channel comes first.
        let mut union: BTreeMap<(bool, Arc<str>), ChannelSpec> = BTreeMap::new();
        for spec in [&default].into_iter().chain(ours).chain(theirs) {
            let key = (&*spec.name != DEFAULT_CHANNEL, spec.name.clone());
            let merged = union.entry(key).or_insert_with(|| spec.clone());
            merged.parallelism = merged
                .parallelism
                .max(spec.parallelism)
                .min(MAX_PARALLELISM);
            merged.monotonic |= spec.monotonic;
            merged.compression = merged
                .compression
                .max(spec.compression)
                .min(MAX_COMPRESSION);
        }
        if union.len() > MAX_CHANNELS {
            return Err(HelloError::TooManyChannels(union.len()));
        }
        let total = union
            .values()
            .map(|spec| usize::from(spec.parallelism))
            .sum();
        if total > MAX_CONNECTIONS {
            let (largest, count) = union
                .into_values()
                .map(|spec| (spec.name, spec.parallelism))
                .max_by_key(|(_, count)| *count)
                .unwrap_or_default();
            return Err(HelloError::TooManyConnections {
                total,
                largest,
                count,
            });
        }
        let mut next = 0;
        let channels = union.into_values().map(|spec| {
            let base = next;
            next += spec.parallelism;
            PlannedChannel {
                name: spec.name,
                base,
                count: spec.parallelism,
                monotonic: spec.monotonic,
                compression: spec.compression,
            }
        });
        let channels: Vec<_> = channels.collect();
        let is_ours = |name: &str| {
            name == DEFAULT_CHANNEL || ours.iter().any(|channel| &*channel.name == name)
        };
        let foreign = channels.iter().map(|channel| &channel.name);
        let foreign = foreign.filter(|name| !is_ours(name)).cloned().collect();
        Ok(Plan { channels, foreign })
    }

    /// All channels, the default one first, the rest by name.
    pub fn channels(&self) -> &[PlannedChannel] {
        &self.channels
    }

    /// The channel called `name`.
    pub fn find(&self, name: &str) -> Option<&PlannedChannel> {
        self.channels.iter().find(|channel| &*channel.name == name)
    }

    /// Connections of the session.
    pub fn total(&self) -> usize {
        self.channels
            .iter()
            .map(|channel| usize::from(channel.count))
            .sum()
    }

    /// Channels that only the peer is configured with.
    pub fn foreign(&self) -> &[Arc<str>] {
        &self.foreign
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spec(name: &str, parallelism: u16) -> ChannelSpec {
        ChannelSpec {
            name: name.into(),
            parallelism,
            monotonic: false,
            compression: 0,
        }
    }

    fn specs() -> impl Strategy<Value = Vec<ChannelSpec>> {
        let name = prop_oneof![Just(DEFAULT_CHANNEL.to_owned()), "[a-zA-Zé]{1,3}"];
        let one = (name, 1u16..=300, any::<bool>(), 0u8..=12);
        prop::collection::vec(one, 0..8).prop_map(|list| {
            let list = list
                .into_iter()
                .map(|(name, parallelism, monotonic, compression)| {
                    let name: Arc<str> = name.into();
                    (
                        name.clone(),
                        ChannelSpec {
                            name,
                            parallelism,
                            monotonic,
                            compression,
                        },
                    )
                });
            list.collect::<BTreeMap<_, _>>()
                .into_values()
                .rev()
                .collect()
        })
    }

    #[test]
    fn default_comes_first_and_is_always_there() {
        let plan = Plan::merge(&[spec("b", 2), spec("a", 1)], &[spec("b", 3)]).expect("small");
        let names: Vec<_> = plan
            .channels()
            .iter()
            .map(|c| (&*c.name, c.base, c.count))
            .collect();
        assert_eq!(names, [("undefined", 0, 1), ("a", 1, 1), ("b", 2, 3)]);
        assert_eq!(plan.total(), 5);
        assert!(plan.foreign().is_empty());
        let plan = Plan::merge(&[], &[spec("b", 3)]).expect("small");
        assert_eq!(plan.foreign(), ["b".into()]);
    }

    #[test]
    fn capped_and_bounded() {
        let plan = Plan::merge(&[spec("a", 1000)], &[]).expect("capped");
        assert_eq!(plan.find("a").map(|c| c.count), Some(MAX_PARALLELISM));
        let many: Vec<_> = ["a", "b", "c", "d"]
            .iter()
            .map(|name| spec(name, 256))
            .collect();
        let error = Plan::merge(&many, &[]).expect_err("one over the limit");
        assert!(matches!(
            error,
            HelloError::TooManyConnections {
                total: 1025,
                count: 256,
                ..
            }
        ));
        let names: Vec<_> = (0..64).map(|i| spec(&format!("c{i}"), 1)).collect();
        assert_eq!(
            Plan::merge(&names, &[]),
            Err(HelloError::TooManyChannels(65))
        );
    }

    #[test]
    fn bad_lists_are_refused() {
        let encode = |channels: Vec<ChannelSpec>| {
            Hello {
                channels,
                bundles: true,
            }
            .encode()
        };
        assert_eq!(
            encode(vec![spec("", 1)]),
            Err(HelloError::Name(String::new()))
        );
        assert!(encode(vec![spec(&"x".repeat(256), 1)]).is_err());
        assert_eq!(
            encode(vec![spec("a", 0)]),
            Err(HelloError::NoConnections("a".into()))
        );
        let twice = vec![spec("a", 1), spec("a", 2)];
        assert_eq!(encode(twice), Err(HelloError::Duplicate("a".into())));
        assert_eq!(Hello::decode(&[2, 0, 0]), Err(HelloError::Version(2)));
        assert_eq!(
            Hello::decode(&[1, 0, 65]),
            Err(HelloError::TooManyChannels(65))
        );
        assert_eq!(Hello::decode(&[1, 0, 1, 1, b'a']), Err(HelloError::Short));
        let not_utf8 = Hello::decode(&[1, 0, 1, 1, 0xff, 0, 1, 0, 0]);
        assert!(matches!(not_utf8, Err(HelloError::Name(_))));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = bytes;
            let _ = Hello::decode(&bytes);
            bytes.splice(0..0, [1, 0]);
            let _ = Hello::decode(&bytes);
        }

        #[test]
        fn hello_round_trips_and_ignores_extensions(
            channels in specs(),
            bundles: bool,
            extension in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            let hello = Hello { channels, bundles };
            let mut body = hello.encode().expect("valid");
            let without = body.len() - 1;
            for end in 0..without {
                prop_assert_eq!(Hello::decode(&body[..end]), Err(HelloError::Short));
            }
            let plain = Hello { bundles: false, ..hello.clone() };
            prop_assert_eq!(Hello::decode(&body[..without]), Ok(plain));
            body.extend(extension);
            prop_assert_eq!(Hello::decode(&body), Ok(hello));
        }

        #[test]
        fn both_ends_compute_the_same_plan(ours in specs(), theirs in specs()) {
            match (Plan::merge(&ours, &theirs), Plan::merge(&theirs, &ours)) {
                (Ok(a), Ok(b)) => {
                    prop_assert_eq!(a.channels(), b.channels());
                    let mut next = 0;
                    for channel in a.channels() {
                        prop_assert_eq!(channel.base, next);
                        prop_assert!(channel.count > 0);
                        next += channel.count;
                        prop_assert_eq!(a.find(&channel.name), Some(channel));
                    }
                    prop_assert_eq!(usize::from(next), a.total());
                    prop_assert_eq!(a.find(DEFAULT_CHANNEL).map(|c| c.base), Some(0));
                }
                (a, b) => prop_assert_eq!(a.err(), b.err()),
            }
        }
    }
}
