//! What the commands that ask other nodes are told and tell: `ping`, `names`, `call`, `members`.
//!
//! The arguments are parsed and the answers formatted here; `client` asks.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::Args;
use partisan::overlay::MemberChannel;
use partisan::wire::flags::Flags;
use partisan::{LinkInfo, NodeSpec, TextError, Value, term};
use serde_json::json;

use crate::json::json as to_json;
use crate::tls::Tls;

/// Who asks, and how long.
#[derive(Debug, Args)]
pub(crate) struct Asker {
    /// Name of the asking node, NAME@HOST. Default: partisan-PID-RANDOM at the host of the other node's name,
    /// so that both are long or both short.
    #[arg(long, short)]
    pub(crate) name: Option<String>,
    /// The cluster's cookie. Default: PARTISAN_COOKIE, else ~/.erlang.cookie.
    #[arg(long)]
    pub(crate) cookie: Option<String>,
    /// Seconds to wait for the connection and the answer.
    #[arg(long, default_value = "10", value_parser = seconds)]
    pub(crate) timeout: Duration,
    /// Dial the node at this address, HOST:PORT, and ask no EPMD.
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "epmd_port")]
    pub(crate) at: Option<String>,
    /// Port of the node's EPMD. Default: ERL_EPMD_PORT, else 4369.
    #[arg(long, value_name = "PORT")]
    pub(crate) epmd_port: Option<u16>,
    #[command(flatten)]
    pub(crate) tls: Tls,
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
    /// EPMD's port. Default: ERL_EPMD_PORT, else 4369.
    #[arg(long, value_name = "PORT")]
    pub(crate) epmd_port: Option<u16>,
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
    /// Arguments in Erlang's syntax. If there is one and it is a list, it is the list of the arguments.
    #[arg(value_parser = argument, allow_negative_numbers = true)]
    pub(crate) arguments: Vec<Value>,
    #[command(flatten)]
    pub(crate) asker: Asker,
}

impl CallArgs {
    /// The arguments of the function.
    pub(crate) fn list(&self) -> Vec<Value> {
        match &self.arguments[..] {
            [Value::List(list)] => list.clone(),
            all => all.to_vec(),
        }
    }
}

fn argument(text: &str) -> Result<Value, String> {
    text.parse().map_err(|e: TextError| e.to_string())
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

/// The answer to `ping`: the time of question and answer, that of connecting, and the features of the link.
pub(crate) fn pong(link: &LinkInfo, connected: Duration, took: Duration, as_json: bool) -> String {
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let flags = link.flags.expanded();
    let both: Vec<&str> = Flags::ALL
        .iter()
        .filter(|(_, flag)| flags.contains(*flag))
        .map(|(name, _)| *name)
        .collect();
    let (node, creation) = (&*link.node, link.creation);
    if as_json {
        let answer = json!({
            "node": node,
            "ms": ms(took),
            "connect_ms": ms(connected),
            "creation": creation,
            "flags": both,
        });
        return answer.to_string();
    }
    format!(
        "pong from {node} in {:.1} ms, connected in {:.1} ms\ncreation {creation}\nboth ends offer {}",
        ms(took),
        ms(connected),
        both.join(" ")
    )
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

/// `{ok, Specifications}` of `partisan_peer_service:members_for_orchestration/0`, in any order.
pub(crate) fn specs(answer: &Value) -> Option<Vec<NodeSpec>> {
    match answer.as_tuple()? {
        [ok, Value::List(specs)] if ok.is_atom("ok") => specs.iter().map(spec).collect(),
        _ => None,
    }
}

fn spec(spec: &Value) -> Option<NodeSpec> {
    let get = |map: &Value, key: &str| map.get(&Value::atom(key)).cloned();
    let channels = get(spec, "channels")?;
    let channels = channels.as_map()?.iter().map(|(name, options)| {
        let compression = match get(options, "compression") {
            Some(Value::Integer(level)) => u8::try_from(level).ok()?,
            on => u8::from(on.is_some_and(|on| on.is_atom("true"))),
        };
        Some(MemberChannel {
            name: name.as_atom()?.into(),
            parallelism: get(options, "parallelism")?.as_i64()?.try_into().ok()?,
            monotonic: get(options, "monotonic").is_some_and(|on| on.is_atom("true")),
            compression,
        })
    });
    let addrs = get(spec, "listen_addrs")?;
    let addrs = addrs.as_list()?.iter().map(|addr| {
        let port = get(addr, "port")?.as_i64()?.try_into().ok()?;
        Some(SocketAddr::new(ip(&get(addr, "ip")?)?, port))
    });
    Some(NodeSpec {
        name: get(spec, "name")?.as_atom()?.into(),
        listen_addrs: addrs.collect::<Option<_>>()?,
        channels: channels.collect::<Option<_>>()?,
    })
}

fn ip(ip: &Value) -> Option<IpAddr> {
    let parts = ip
        .as_tuple()?
        .iter()
        .map(|part| part.as_i64()?.try_into().ok());
    let parts: Vec<u16> = parts.collect::<Option<_>>()?;
    match <[u16; 8]>::try_from(parts) {
        Ok(v6) => Some(IpAddr::from(v6)),
        Err(parts) => {
            let bytes = parts.into_iter().map(|part| u8::try_from(part).ok());
            let bytes: Vec<u8> = bytes.collect::<Option<_>>()?;
            Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?))
        }
    }
}

/// What [`specs`] reads.
pub(crate) fn spec_term(spec: &NodeSpec) -> Value {
    let channels = spec.channels.iter().map(|channel| {
        let options = term!(#{
            parallelism => (channel.parallelism),
            monotonic => (channel.monotonic),
            compression => (channel.compression),
        });
        (Value::atom(&channel.name), options)
    });
    let addrs = spec.listen_addrs.iter().map(|addr| {
        let ip: Vec<Value> = match addr.ip() {
            IpAddr::V4(ip) => ip.octets().into_iter().map(Value::from).collect(),
            IpAddr::V6(ip) => ip.segments().into_iter().map(Value::from).collect(),
        };
        term!(#{ip => (Value::tuple(ip)), port => (addr.port())})
    });
    term!(#{
        name => (Value::atom(&spec.name)),
        listen_addrs => (addrs.collect::<Value>()),
        channels => (Value::Map(channels.collect())),
    })
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
        assert_eq!(call.list(), [term!([1, 2, 3])]);
        assert_eq!(call.asker.timeout, Duration::from_millis(500));
        let list = |words: &[&str]| {
            let words: Vec<_> = ["call", "a@h", "m", "f"]
                .iter()
                .chain(words)
                .copied()
                .collect();
            match parsed(&words) {
                Ok(Command::Call(call)) => call.list(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(list(&[]), []);
        assert_eq!(list(&["[]"]), []);
        assert_eq!(list(&["ok"]), [term!(ok)]);
        assert_eq!(list(&["-1", "[b]"]), [term!((-1)), term!([b])]);
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

        let list: Value = all.iter().map(spec_term).collect();
        assert_eq!(specs(&term!({ok, (&list)})).as_deref(), Some(&all[..]));
        assert_eq!(specs(&term!({ok, [a]})), None);
        let v6 = member("a@h", &["[::1]:5"]);
        assert_eq!(spec(&spec_term(&v6)), Some(v6));
    }
}
