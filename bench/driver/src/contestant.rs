//! Contestants: who is measured, which processes that takes and how a message goes by them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

use crate::point::{Point, Work};

/// A transport, and its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Transport {
    Disterl {
        zdbbl: bool,
    },
    Ours(u16),
    /// Four channels of 16 connections each, all in use.
    FourBySixteen,
    Upstream(u16),
    BeamToRust(u16),
    RustToRust(u16),
    /// Length-prefixed messages over plain TCP in Rust.
    Tcp(u16),
}

/// Who is measured.
///
/// Written `disterl`, `disterl+zdbbl`, `ours-N`, `ours-4x16`, `upstream-N`, `beam-rust-N`,
/// `rust-rust-N`, `tcp-N` with N connections. What follows an `@` sets the node up differently:
/// `ours-1@io_threads=1@build=DIR`, where DIR is another checkout that has been built.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Contestant {
    transport: Transport,
    build: Option<PathBuf>,
    config: Vec<(String, String)>,
}

/// What runs at an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    Beam,
    Rust,
    Tcp,
}

/// What a BEAM end has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Flavour {
    /// Nothing but the VM.
    Dist,
    Ours,
    Upstream,
}

/// Two processes that several contestants may share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PairKind {
    pub(crate) ends: [End; 2],
    pub(crate) flavour: Flavour,
    pub(crate) zdbbl: bool,
    pub(crate) build: Option<PathBuf>,
    pub(crate) config: Vec<(String, String)>,
}

/// Channels by name, with their connections.
pub(crate) type Channels = BTreeMap<String, u16>;

/// How a message goes: in words of the ends' command language, see `bench_link.erl`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) link: String,
    /// For requests beside streams.
    pub(crate) ping_link: String,
    /// Channels that both ends must have.
    pub(crate) channels: Channels,
}

/// The channel of the requests beside streams.
const RPC: &str = "rpc";
/// The streams' channel, where it has one connection.
const BULK: &str = "bulk";

impl Contestant {
    /// Connections that its messages go by.
    pub(crate) fn connections(&self) -> u64 {
        match self.transport {
            Transport::Disterl { .. } => 1,
            Transport::FourBySixteen => 64,
            Transport::Ours(n)
            | Transport::Upstream(n)
            | Transport::BeamToRust(n)
            | Transport::RustToRust(n)
            | Transport::Tcp(n) => n.into(),
        }
    }

    /// The processes it needs. Distributed Erlang's are those of ours: it is there anyway.
    pub(crate) fn pair(&self) -> PairKind {
        use End::{Beam, Rust, Tcp};
        let (ends, flavour) = match self.transport {
            Transport::Disterl { zdbbl: true } => ([Beam, Beam], Flavour::Dist),
            Transport::Disterl { zdbbl: false } | Transport::Ours(_) | Transport::FourBySixteen => {
                ([Beam, Beam], Flavour::Ours)
            }
            Transport::Upstream(_) => ([Beam, Beam], Flavour::Upstream),
            Transport::BeamToRust(_) => ([Beam, Rust], Flavour::Ours),
            Transport::RustToRust(_) => ([Rust, Rust], Flavour::Ours),
            Transport::Tcp(_) => ([Tcp, Tcp], Flavour::Dist),
        };
        PairKind {
            ends,
            flavour,
            zdbbl: self.transport == Transport::Disterl { zdbbl: true },
            build: self.build.clone(),
            config: self.config.clone(),
        }
    }

    /// How its messages go at a point.
    pub(crate) fn route(&self, point: &Point) -> Route {
        let mut channels = Channels::new();
        let mut link = |names: &[&str], connections: u16| {
            for name in names.iter().filter(|n| **n != "undefined") {
                channels.insert((*name).to_owned(), connections);
            }
            let keyed = if connections > 1 { "keyed" } else { "plain" };
            format!("{}/{keyed}", names.join("+"))
        };
        let beside = point.work == Work::Hol && !point.same_channel;
        let (link, ping_link) = match self.transport {
            Transport::Disterl { .. } => ("dist".to_owned(), "dist".to_owned()),
            Transport::FourBySixteen => {
                let four = link(&["q1", "q2", "q3", "q4"], 16);
                let ping = if beside {
                    link(&[RPC], 1)
                } else {
                    four.clone()
                };
                (four, ping)
            }
            Transport::Ours(n)
            | Transport::Upstream(n)
            | Transport::BeamToRust(n)
            | Transport::RustToRust(n)
            | Transport::Tcp(n) => {
                let own = match n {
                    1 if beside => link(&[BULK], 1),
                    1 => link(&["undefined"], 1),
                    n => link(&[&format!("p{n}")], n),
                };
                let ping = if beside { link(&[RPC], 1) } else { own.clone() };
                (own, ping)
            }
        };
        Route {
            link,
            ping_link,
            channels,
        }
    }
}

impl fmt::Display for Contestant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.transport {
            Transport::Disterl { zdbbl: false } => f.write_str("disterl"),
            Transport::Disterl { zdbbl: true } => f.write_str("disterl+zdbbl"),
            Transport::Ours(n) => write!(f, "ours-{n}"),
            Transport::FourBySixteen => f.write_str("ours-4x16"),
            Transport::Upstream(n) => write!(f, "upstream-{n}"),
            Transport::BeamToRust(n) => write!(f, "beam-rust-{n}"),
            Transport::RustToRust(n) => write!(f, "rust-rust-{n}"),
            Transport::Tcp(n) => write!(f, "tcp-{n}"),
        }?;
        for (key, value) in &self.config {
            write!(f, "@{key}={value}")?;
        }
        if let Some(build) = &self.build {
            write!(f, "@build={}", build.display())?;
        }
        Ok(())
    }
}

impl FromStr for Contestant {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.trim().split('@');
        let name = parts.next().unwrap_or_default();
        let numbered = || -> Result<Transport> {
            let (kind, n) = name
                .rsplit_once('-')
                .with_context(|| format!("no contestant is called {name:?}"))?;
            let n: u16 = n
                .parse()
                .with_context(|| format!("{name:?}: connections"))?;
            if !(1..=256).contains(&n) {
                bail!("{name:?}: 1 to 256 connections");
            }
            Ok(match kind {
                "ours" => Transport::Ours(n),
                "upstream" => Transport::Upstream(n),
                "beam-rust" => Transport::BeamToRust(n),
                "rust-rust" => Transport::RustToRust(n),
                "tcp" => Transport::Tcp(n),
                _ => bail!("no contestant is called {name:?}"),
            })
        };
        let transport = match name {
            "disterl" => Transport::Disterl { zdbbl: false },
            "disterl+zdbbl" => Transport::Disterl { zdbbl: true },
            "ours-4x16" => Transport::FourBySixteen,
            _ => numbered()?,
        };
        let mut contestant = Self {
            transport,
            build: None,
            config: Vec::new(),
        };
        for part in parts {
            let (key, value) = part
                .split_once('=')
                .with_context(|| format!("{part:?} is no key=value"))?;
            if key == "build" {
                contestant.build = Some(value.into());
            } else {
                contestant.config.push((key.to_owned(), value.to_owned()));
            }
        }
        Ok(contestant)
    }
}

/// A list with commas between.
pub(crate) fn parse_list(text: &str) -> Result<Vec<Contestant>> {
    text.split(',').map(str::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Contestant {
        text.parse().unwrap()
    }

    #[test]
    fn a_contestant_is_its_name() {
        for name in [
            "disterl",
            "disterl+zdbbl",
            "ours-1",
            "ours-4x16",
            "upstream-16",
            "beam-rust-1",
            "rust-rust-16",
            "tcp-1",
            "ours-1@io_threads=1@build=/tmp/old",
        ] {
            assert_eq!(named(name).to_string(), name);
        }
        for wrong in ["", "ours", "ours-0", "ours-x", "theirs-1", "ours-1@x"] {
            assert!(wrong.parse::<Contestant>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn disterl_and_ours_share_their_vms() {
        assert_eq!(named("disterl").pair(), named("ours-16").pair());
        assert_ne!(named("disterl+zdbbl").pair(), named("ours-1").pair());
        assert_ne!(named("ours-1@io_threads=1").pair(), named("ours-1").pair());
    }

    #[test]
    fn requests_beside_streams_have_a_channel_of_their_own() {
        let other: Point = "hol streams=4".parse().unwrap();
        let same: Point = "hol streams=4 channel=same".parse().unwrap();
        let route = named("ours-16").route(&other);
        assert_eq!(route.link, "p16/keyed");
        assert_eq!(route.ping_link, "rpc/plain");
        assert_eq!(route.channels.len(), 2);
        let route = named("ours-1").route(&same);
        assert_eq!(route.link, "undefined/plain");
        assert_eq!(route.ping_link, route.link);
        assert!(route.channels.is_empty());
    }
}
