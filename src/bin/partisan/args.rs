//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::allow::Rules;
use crate::failure::EXIT_CODES;
use crate::lookup::Lookup;
use crate::remote::{CallArgs, MembersArgs, NamesArgs, PingArgs};
use crate::settings::{Channel, OverlayName, Peer, Settings, TagName};
use crate::sim::SimArgs;
use crate::tls::Tls;

/// Nodes for BEAM clusters, written in Rust, and questions to nodes of any BEAM cluster.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// Answer in JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node that serves the registered process `echo`.
    ///
    /// It answers `{Pid, Ref, Term}` with `{Ref, Term}`, and `gen_server:call` with the request. Stock BEAM
    /// nodes reach it by Distributed Erlang, Partisan members by their channels.
    Node(NodeArgs),
    /// Connect to a node and ask whether it answers, as net_adm:ping/1 does.
    Ping(PingArgs),
    /// List the nodes that the EPMD of a host knows.
    Names(NamesArgs),
    /// Call a function on a node, as erpc:call/4 does, and print its result.
    ///
    /// Arguments and result are in Erlang's syntax. A single argument that is a list is the list of all arguments:
    /// `call a@h lists sum '[[1, 2, 3]]'`, `call a@h lists seq 1 10`.
    Call(CallArgs),
    /// List the members of a node's Partisan cluster.
    Members(MembersArgs),
    /// Simulate many nodes in virtual time, by a scenario file.
    ///
    /// It prints figures and a digest of all that happened; the same seed gives the same digest. The exit code tells
    /// whether invariants and the scenario's expectations hold.
    Sim(SimArgs),
}

/// What `partisan node` may be told; a flag replaces what the file says.
#[derive(Debug, Default, Args)]
pub(crate) struct NodeArgs {
    /// File in TOML with the keys name, cookie, listen, advertise, join, data_dir, overlay, tag, switch_overlap, channels,
    /// distribution, names, register, tick_time, allow and tls (see docs/program.md).
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Name of the node, NAME@HOST.
    #[arg(long, short)]
    pub(crate) name: Option<String>,
    /// The cluster's cookie. Others can see it in the list of processes: the file, the variable
    /// PARTISAN_COOKIE or ~/.erlang.cookie keep it secret.
    #[arg(long)]
    pub(crate) cookie: Option<String>,
    /// Listen on this address, HOST:PORT. May be given more than once.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Vec<String>,
    /// Have peers dial this address instead. May be given more than once.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) advertise: Vec<String>,
    /// Join this node's cluster. May be given more than once.
    #[arg(long, value_name = "NAME@HOST:PORT")]
    pub(crate) join: Vec<Peer>,
    /// A channel and its number of connections. May be given more than once.
    #[arg(long, value_name = "NAME[=CONNECTIONS]", value_parser = channel)]
    pub(crate) channel: Vec<(String, u16)>,
    /// Connections of the default channel.
    #[arg(long)]
    pub(crate) parallelism: Option<u16>,
    /// Directory that keeps the membership over restarts.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Who keeps links to whom; the same on all members of the cluster. Default: full_mesh.
    #[arg(long, value_enum)]
    pub(crate) overlay: Option<OverlayName>,
    /// What the node is in the overlay client_server. Default: undefined, all are alike.
    #[arg(long, value_enum)]
    pub(crate) tag: Option<TagName>,
    /// Make no links with stock nodes; needs no EPMD.
    #[arg(long)]
    pub(crate) no_distribution: bool,
    /// Do not register with EPMD: only those who know the port can dial.
    #[arg(long)]
    pub(crate) no_register: bool,
    /// Port of every EPMD. Default: ERL_EPMD_PORT, else 4369.
    #[arg(long, value_name = "PORT")]
    pub(crate) epmd_port: Option<u16>,
    /// Start EPMD if this host has none.
    #[arg(long)]
    pub(crate) start_epmd: bool,
    /// Every node listens on this port, and there is no EPMD (-erl_epmd_port).
    #[arg(long, value_name = "PORT", conflicts_with_all = ["epmd_port", "start_epmd"])]
    pub(crate) fixed_port: Option<u16>,
    /// Seconds of silence after which a stock node is taken to be dead (net_ticktime). Default: 60.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) tick_time: Option<f64>,
    #[command(flatten)]
    pub(crate) allow: Rules,
    #[command(flatten)]
    pub(crate) tls: Tls,
}

impl NodeArgs {
    /// The file's settings under those of the flags.
    pub(crate) fn over(&self, file: Settings) -> Settings {
        let list = |flags: &[String], file: Vec<String>| match flags {
            [] => file,
            flags => flags.to_vec(),
        };
        let mut channels = file.channels;
        for (name, parallelism) in &self.channel {
            channels.entry(name.clone()).or_default().parallelism = *parallelism;
        }
        if let Some(parallelism) = self.parallelism {
            let default: &mut Channel = channels.entry("default".into()).or_default();
            default.parallelism = parallelism;
        }
        Settings {
            name: self.name.clone().or(file.name),
            cookie: self.cookie.clone().or(file.cookie),
            listen: list(&self.listen, file.listen),
            advertise: list(&self.advertise, file.advertise),
            join: match &self.join[..] {
                [] => file.join,
                flags => flags.to_vec(),
            },
            data_dir: self.data_dir.clone().or(file.data_dir),
            overlay: self.overlay.or(file.overlay),
            tag: self.tag.or(file.tag),
            switch_overlap: file.switch_overlap,
            channels,
            distribution: if self.no_distribution {
                Some(false)
            } else {
                file.distribution
            },
            names: self.names().unwrap_or(file.names),
            register: if self.no_register {
                Some(false)
            } else {
                file.register
            },
            tick_time: self.tick_time.or(file.tick_time),
            allow: self.allow.over(file.allow),
            tls: self.tls.over(file.tls),
        }
    }

    fn names(&self) -> Option<Lookup> {
        match (self.fixed_port, self.epmd_port, self.start_epmd) {
            (Some(port), ..) => Some(Lookup::Port(port)),
            (None, None, false) => None,
            (None, port, start) => Some(Lookup::Epmd { port, start }),
        }
    }
}

fn channel(text: &str) -> Result<(String, u16), String> {
    let (name, connections) = text.split_once('=').unwrap_or((text, "1"));
    match connections.parse() {
        Ok(connections @ 1..) if !name.is_empty() => Ok((name.into(), connections)),
        _ => Err("give NAME or NAME=CONNECTIONS, at least one".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<NodeArgs, String> {
        let words = std::iter::once("partisan").chain(line.split_whitespace());
        match Cli::try_parse_from(words)
            .map_err(|e| e.to_string())?
            .command
        {
            Command::Node(args) => Ok(args),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_replace_the_file() {
        let file: Settings = toml::from_str(
            "name = 'a@h'\ncookie = 'c'\nlisten = ['h:1']\n\
             [channels]\nbulk = 2\ndefault = { parallelism = 3, monotonic = true }",
        )
        .unwrap();
        let args = parsed("node --name b@h --listen x:1 --listen y:2 --parallelism 8 --channel z");
        let settings = args.unwrap().over(file);
        assert_eq!(settings.name.as_deref(), Some("b@h"));
        assert_eq!(settings.cookie.as_deref(), Some("c"));
        assert_eq!(settings.listen, ["x:1", "y:2"]);
        let channels: Vec<_> = settings.channels.iter().collect();
        let channel = |parallelism, monotonic| Channel {
            parallelism,
            monotonic,
            compression: 0,
        };
        assert_eq!(
            channels,
            [
                (&"bulk".to_owned(), &channel(2, false)),
                (&"default".to_owned(), &channel(8, true)),
                (&"z".to_owned(), &channel(1, false)),
            ]
        );
    }

    #[test]
    fn a_server_and_its_clients() {
        let file: Settings = toml::from_str("overlay = 'client_server'\ntag = 'server'").unwrap();
        let settings = parsed("node --tag client").unwrap().over(file);
        assert_eq!(settings.overlay, Some(OverlayName::ClientServer));
        assert_eq!(settings.tag, Some(TagName::Client));
        let settings = parsed("node --overlay client-server --tag server").unwrap();
        let settings = settings.over(Settings::default());
        assert_eq!(settings.overlay, Some(OverlayName::ClientServer));
        assert_eq!(settings.tag, Some(TagName::Server));
    }

    #[test]
    fn how_others_are_found() {
        let names = |line: &str| parsed(line).unwrap().over(Settings::default()).names;
        assert_eq!(names("node"), Lookup::default());
        assert_eq!(names("node --fixed-port 4370"), Lookup::Port(4370));
        let epmd = Lookup::Epmd {
            port: Some(4000),
            start: true,
        };
        assert_eq!(names("node --epmd-port 4000 --start-epmd"), epmd);
        let file: Settings = toml::from_str("names = { port = 1 }\nregister = true").unwrap();
        let settings = parsed("node --no-register").unwrap().over(file);
        assert_eq!(settings.names, Lookup::Port(1));
        assert_eq!(settings.register, Some(false));
    }

    #[test]
    fn what_stock_nodes_may_do() {
        let file = "[allow]\nnames = ['x']\nlinks = false\nexits = false";
        let file: Settings = toml::from_str(file).unwrap();
        let args = parsed("node --allow-name a --allow-name b --allow-exits true").unwrap();
        let rules = args.over(file).allow;
        assert_eq!(rules.names, Some(vec!["a".into(), "b".into()]));
        assert_eq!((rules.links, rules.monitors), (Some(false), None));
        assert_eq!(rules.exits, Some(true));
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "node --channel =2",
            "node --channel a=0",
            "node --join nowhere",
            "node --parallelism x",
            "node --fixed-port 1 --start-epmd",
            "node --tls-cert x",
            "node --allow-links perhaps",
            "node --tag master",
            "nodes",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
