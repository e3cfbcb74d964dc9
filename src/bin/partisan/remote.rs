//! What the commands that ask other nodes are told and tell: `ping`, `names`, `call`, `members`.
//!
//! The arguments are parsed and the answers formatted here; asking is the distribution
//! protocol's part.

use std::time::Duration;

use clap::Args;
use partisan::{NodeSpec, Value};
use serde_json::json;

use crate::json::json as to_json;

/// Who asks, and how long.
#[derive(Debug, Args)]
pub(crate) struct Asker {
    /// Name of this node, NAME@HOST. Default: one that is free.
    #[arg(long, short)]
    pub(crate) name: Option<String>,
    /// The cluster's cookie. Default: PARTISAN_COOKIE, else ~/.erlang.cookie.
    #[arg(long)]
    pub(crate) cookie: Option<String>,
    /// Seconds to wait for the answer.
    #[arg(long, default_value = "5", value_parser = seconds)]
    pub(crate) timeout: Duration,
}

/// `partisan ping NODE`
#[derive(Debug, Args)]
pub(crate) struct PingArgs {
    /// The node, NAME@HOST.
    #[arg(value_parser = node_name)]
    pub(crate) node: String,
    #[command(flatten)]
    pub(crate) asker: Asker,
}

/// `partisan names`
#[derive(Debug, Args)]
pub(crate) struct NamesArgs {
    /// The host whose EPMD is asked.
    #[arg(default_value = "localhost")]
    pub(crate) host: String,
}

/// `partisan members NODE`
#[derive(Debug, Args)]
pub(crate) struct MembersArgs {
    /// A member of the cluster, NAME@HOST.
    #[arg(value_parser = node_name)]
    pub(crate) node: String,
    #[command(flatten)]
    pub(crate) asker: Asker,
}

/// `partisan call NODE MODULE FUNCTION ARGUMENTS`
#[derive(Debug, Args)]
pub(crate) struct CallArgs {
    /// The node, NAME@HOST.
    #[arg(value_parser = node_name)]
    pub(crate) node: String,
    /// Module, as it is, without quotes: `lists`, `Elixir.Enum`.
    pub(crate) module: String,
    /// Function, as it is.
    pub(crate) function: String,
    /// List of the arguments in Erlang's syntax.
    #[arg(default_value = "[]", value_parser = arguments)]
    pub(crate) arguments: Arguments,
    #[command(flatten)]
    pub(crate) asker: Asker,
}

/// The arguments of a call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Arguments(pub(crate) Vec<Value>);

fn arguments(text: &str) -> Result<Arguments, String> {
    match text.parse() {
        Ok(Value::List(elements)) => Ok(Arguments(elements)),
        Ok(other) => Err(format!(
            "{other} is no list: a single argument is [{other}]"
        )),
        Err(e) => Err(e.to_string()),
    }
}

fn node_name(text: &str) -> Result<String, String> {
    match text.split_once('@') {
        Some((name, host)) if !name.is_empty() && !host.is_empty() && !host.contains('@') => {
            Ok(text.into())
        }
        _ => Err("a node's name is NAME@HOST".into()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: Option<f64> = text.parse().ok();
    let duration = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok());
    duration
        .filter(|d| !d.is_zero())
        .ok_or_else(|| "give a number of seconds above 0".into())
}

/// The answer to `ping`.
pub(crate) fn pong(node: &str, took: Duration, as_json: bool) -> String {
    let ms = took.as_secs_f64() * 1000.0;
    if as_json {
        json!({"node": node, "ms": ms}).to_string()
    } else {
        format!("pong from {node} in {ms:.1} ms")
    }
}

/// The answer to `names`: what EPMD knows, in alphabetical order.
pub(crate) fn names(host: &str, names: &[(String, u16)], as_json: bool) -> String {
    let mut names = names.to_vec();
    names.sort();
    if as_json {
        let names = names
            .iter()
            .map(|(name, port)| json!({"name": name, "port": port}));
        return names.collect::<serde_json::Value>().to_string();
    }
    if names.is_empty() {
        return format!("EPMD at {host} knows no nodes");
    }
    let width = names.iter().map(|(name, _)| name.chars().count()).max();
    let width = width.unwrap_or(0);
    let lines = names
        .iter()
        .map(|(name, port)| format!("{name:width$}  port {port}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The answer to `members`.
pub(crate) fn members(members: &[NodeSpec], as_json: bool) -> String {
    let mut members: Vec<&NodeSpec> = members.iter().collect();
    members.sort();
    let addrs = |member: &NodeSpec| -> Vec<String> {
        member
            .listen_addrs
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    if as_json {
        let members = members.iter().map(|member| {
            let channels = member.channels.iter().map(|channel| {
                json!({
                    "name": &*channel.name,
                    "parallelism": channel.parallelism,
                    "monotonic": channel.monotonic,
                    "compression": channel.compression,
                })
            });
            json!({
                "name": &*member.name,
                "listen": addrs(member),
                "channels": channels.collect::<serde_json::Value>(),
            })
        });
        return members.collect::<serde_json::Value>().to_string();
    }
    let width = members
        .iter()
        .map(|member| member.name.chars().count())
        .max();
    let width = width.unwrap_or(0);
    let lines = members.iter().map(|member| {
        let channels = member.channels.iter();
        let channels: Vec<_> = channels
            .map(|c| format!("{}={}", c.name, c.parallelism))
            .collect();
        let line = format!(
            "{:width$}  {}  {}",
            member.name,
            addrs(member).join(","),
            channels.join(" ")
        );
        line.trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The answer to `call`.
pub(crate) fn result(value: &Value, as_json: bool) -> String {
    if as_json {
        to_json(value).to_string()
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Parser, Subcommand};
    use partisan::overlay::MemberChannel;
    use partisan::term;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(subcommand)]
        command: Command,
    }

    #[derive(Debug, Subcommand)]
    enum Command {
        Ping(PingArgs),
        Names(NamesArgs),
        Members(MembersArgs),
        Call(CallArgs),
    }

    fn parsed(words: &[&str]) -> Result<Command, String> {
        let words = std::iter::once("partisan").chain(words.iter().copied());
        Cli::try_parse_from(words)
            .map(|cli| cli.command)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn arguments_are_terms() {
        let call = parsed(&[
            "call",
            "a@h",
            "lists",
            "sum",
            "[[1, 2, 3]]",
            "--timeout",
            "0.5",
        ]);
        let Ok(Command::Call(call)) = call else {
            panic!("{call:?}");
        };
        assert_eq!(
            (&*call.node, &*call.module, &*call.function),
            ("a@h", "lists", "sum")
        );
        assert_eq!(call.arguments, Arguments(vec![term!([1, 2, 3])]));
        assert_eq!(call.asker.timeout, Duration::from_millis(500));
        let Ok(Command::Call(call)) = parsed(&["call", "a@h", "erlang", "node"]) else {
            panic!();
        };
        assert_eq!(call.arguments, Arguments(vec![]));
        let error = parsed(&["call", "a@h", "m", "f", "ok"]).unwrap_err();
        assert!(error.contains("a single argument is [ok]"), "{error}");
        let error = parsed(&["call", "a@h", "m", "f", "[1,}"]).unwrap_err();
        assert!(error.contains("line 1, column 4"), "{error}");
    }

    #[test]
    fn nodes_hosts_and_times() {
        assert!(matches!(parsed(&["ping", "a@h"]), Ok(Command::Ping(a)) if a.node == "a@h"));
        assert!(matches!(parsed(&["members", "a@h"]), Ok(Command::Members(a)) if a.node == "a@h"));
        assert!(matches!(parsed(&["names"]), Ok(Command::Names(a)) if a.host == "localhost"));
        for words in [&["ping", "a"][..], &["ping", "a@"], &["ping", "a@b@c"]] {
            assert!(
                parsed(words).unwrap_err().contains("NAME@HOST"),
                "{words:?}"
            );
        }
        for timeout in ["0", "-1", "x", "inf"] {
            let flag = format!("--timeout={timeout}");
            assert!(parsed(&["ping", "a@h", &flag]).is_err(), "{timeout}");
        }
    }

    #[test]
    fn answers() {
        let took = Duration::from_micros(1250);
        assert_eq!(pong("a@h", took, false), "pong from a@h in 1.2 ms");
        assert_eq!(pong("a@h", took, true), r#"{"ms":1.25,"node":"a@h"}"#);

        let known = [("long".to_owned(), 2), ("a".to_owned(), 1)];
        assert_eq!(names("h", &known, false), "a     port 1\nlong  port 2");
        assert_eq!(
            names("h", &known, true),
            r#"[{"name":"a","port":1},{"name":"long","port":2}]"#
        );
        assert_eq!(names("h", &[], false), "EPMD at h knows no nodes");
        assert_eq!(names("h", &[], true), "[]");

        let value = term!({ok, [97, 98], "x"});
        assert_eq!(result(&value, false), "{ok,\"ab\",<<\"x\">>}");
        assert_eq!(result(&value, true), r#"["ok",[97,98],"x"]"#);

        let member = |name: &str, addrs: &[&str]| NodeSpec {
            name: name.into(),
            listen_addrs: addrs.iter().map(|addr| addr.parse().unwrap()).collect(),
            channels: vec![MemberChannel {
                name: "default".into(),
                parallelism: 4,
                monotonic: false,
                compression: 0,
            }],
        };
        let all = [member("long@h", &["1.2.3.4:5"]), member("a@h", &[])];
        assert_eq!(
            members(&all, false),
            "a@h       default=4\nlong@h  1.2.3.4:5  default=4"
        );
        let json: serde_json::Value = serde_json::from_str(&members(&all, true)).unwrap();
        assert_eq!(json[1]["listen"][0], "1.2.3.4:5");
        assert_eq!(json[0]["channels"][0]["parallelism"], 4);
    }
}
