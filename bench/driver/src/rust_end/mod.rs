//! An end in Rust: `partisan-bench rust-end NAME`, told what to do as [`crate::end`] says.
//!
//! The work is written once ([`work`]), over two transports: a Partisan node through the crate's
//! public API ([`node`]), and length-prefixed messages over plain TCP ([`tcp`]), which is what
//! the machine can do.

mod node;
mod tcp;
mod work;

use std::collections::HashMap;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use bytes::Bytes;

use crate::process::{clock_ns, own_cpu_ns};
use work::{Amount, Sinks, Source, Transport};

/// Runs until standard input ends.
pub(crate) fn run(name: &str) -> Result<()> {
    let mut state = State::new(name);
    crate::end::obey(|line| state.command(line))
}

struct State {
    name: String,
    payload: Bytes,
    transport: Option<Box<dyn Transport>>,
    sinks: Option<Sinks>,
    source: Option<Source>,
}

/// The words of a command.
struct Words<'a>(HashMap<&'a str, &'a str>);

impl<'a> Words<'a> {
    fn text(&self, key: &str) -> &'a str {
        self.0.get(key).copied().unwrap_or_default()
    }

    fn number(&self, key: &str) -> Result<usize> {
        let text = self.text(key);
        text.parse().with_context(|| format!("{key}={text}"))
    }
}

/// `name:connections,...`
fn channels(text: &str) -> Result<Vec<(String, u16)>> {
    let parts = text.split(',').filter(|p| !p.is_empty());
    parts
        .map(|part| {
            let (name, n) = part.split_once(':').context("a channel is name:number")?;
            Ok((name.to_owned(), n.parse()?))
        })
        .collect()
}

/// How an actor's messages go: `CHANNEL+CHANNEL/keyed` or `CHANNEL/plain`, see `bench_link.erl`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lane {
    /// `None`: the default channel.
    channel: Option<String>,
    key: Option<u64>,
}

impl Lane {
    fn of(link: &str, actor: usize) -> Result<Self> {
        let (channels, keyed) = link.split_once('/').context("a link is CHANNELS/keyed")?;
        let channels: Vec<&str> = channels.split('+').collect();
        let channel = channels[actor % channels.len()];
        Ok(Self {
            channel: Some(channel.to_owned()).filter(|c| c != "undefined"),
            key: (keyed == "keyed").then_some(actor as u64),
        })
    }
}

impl State {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            payload: Bytes::new(),
            transport: None,
            sinks: None,
            source: None,
        }
    }

    fn command(&mut self, line: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default();
        let words = Words(words.filter_map(|w| w.split_once('=')).collect());
        match name {
            "hello" => {
                self.payload = std::fs::read(words.text("payload"))?.into();
                let pid = std::process::id();
                Ok(format!("pid={pid} clock={}", clock_ns()))
            }
            "start" => {
                let listen: SocketAddr = words.text("listen").parse()?;
                let channels = channels(words.text("channels"))?;
                self.transport = Some(match words.text("flavour") {
                    "tcp" => Box::new(tcp::Tcp::start(listen, channels)?),
                    _ => {
                        let config = words.text("config");
                        Box::new(node::Partisan::start(
                            &self.name, listen, &channels, config,
                        )?)
                    }
                });
                Ok(String::new())
            }
            "join" => {
                let peer: SocketAddr = words.text("listen").parse()?;
                self.transport()?.join(words.text("name"), peer)?;
                Ok(String::new())
            }
            "sink" => {
                let lanes = self.lanes(&words, words.number("n")?)?;
                let transport = self.transport.as_mut().context("not started")?;
                let ports = transport.open_sinks(lanes)?;
                self.sinks = Some(Sinks::start(ports, words.text("kind") == "counter"));
                Ok(String::new())
            }
            "source" => {
                let transport = self.transport.as_mut().context("not started")?;
                let n = transport.count_sinks(words.text("peer"))?;
                let hol = words.text("work") == "hol";
                let lanes = self.lanes(&words, if hol { n - 1 } else { n })?;
                let ports = self.transport()?.open_actors(lanes)?;
                self.source = Some(Source::new(words.text("work"), ports)?);
                Ok(String::new())
            }
            "round" => {
                let amount = match words.text("count") {
                    "" => Amount::Millis(words.number("ms")? as u64),
                    count => Amount::Count(count.parse()?),
                };
                let source = self.source.as_mut().context("no source")?;
                let sent = source.round(amount)?;
                Ok(sent.text())
            }
            "verdict" => {
                let (seen, latencies) = self.sinks.as_ref().context("no sinks")?.verdict();
                Ok(format!("{} ow={}", seen.text(), latencies.text()))
            }
            "cpu" => Ok(format!("cpu={}", own_cpu_ns())),
            "gc" => Ok(String::new()),
            "close" => {
                self.source = None;
                if let Some(transport) = self.transport.as_mut() {
                    transport.close_sinks();
                }
                self.sinks = None;
                Ok(String::new())
            }
            _ => bail!("unknown command {line:?}"),
        }
    }

    fn transport(&mut self) -> Result<&mut Box<dyn Transport>> {
        self.transport.as_mut().context("not started")
    }

    /// What each actor or sink carries, and how: `n` of the link, and the requests' if there are.
    fn lanes(&self, words: &Words<'_>, n: usize) -> Result<Vec<(Lane, Bytes)>> {
        let size = words.number("size")?;
        let mut lanes = Vec::new();
        for actor in 0..n {
            let lane = Lane::of(words.text("link"), actor)?;
            lanes.push((lane, self.payload.slice(..size)));
        }
        if !words.text("ping_link").is_empty() {
            let lane = Lane::of(words.text("ping_link"), n)?;
            lanes.push((lane, self.payload.slice(..words.number("ping_size")?)));
        }
        Ok(lanes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_those_of_the_erlang_ends() {
        let lane = |link, actor| Lane::of(link, actor).unwrap();
        let plain = lane("undefined/plain", 3);
        assert_eq!((plain.channel, plain.key), (None, None));
        let keyed = lane("q1+q2/keyed", 3);
        assert_eq!((keyed.channel, keyed.key), (Some("q2".into()), Some(3)));
        assert!(Lane::of("dist", 0).is_err());
    }
}
