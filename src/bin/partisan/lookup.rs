//! How a node finds others by name: the value of the file's key `names`.
//!
//! ```toml
//! names = "epmd"                                        # the default; ERL_EPMD_PORT counts
//! names = { epmd_port = 4369, start_epmd = true }
//! names = { port = 4370 }                               # as -erl_epmd_port: no EPMD at all
//! names = { nodes = { "a@10.0.0.1" = "10.0.0.1:4370" } }
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;

use partisan::{Epmd, Resolver};
use serde::Deserialize;

/// Who knows where the nodes are.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Text")]
pub(crate) enum Lookup {
    /// The EPMD of each node's host.
    Epmd {
        /// Its port, if it isn't that of the environment.
        port: Option<u16>,
        /// Whether it is started if this host has none.
        start: bool,
    },
    /// Every node listens on this port.
    Port(u16),
    /// A list.
    Nodes(BTreeMap<String, SocketAddr>),
}

impl Default for Lookup {
    fn default() -> Self {
        Self::Epmd {
            port: None,
            start: false,
        }
    }
}

impl Lookup {
    pub(crate) fn resolver(&self) -> Resolver {
        match self {
            Self::Epmd { port: None, start } => match Resolver::from_env() {
                Resolver::Epmd(epmd) => Resolver::Epmd(epmd.start_epmd(*start)),
                port => port,
            },
            Self::Epmd {
                port: Some(port),
                start,
            } => Resolver::Epmd(Epmd::on_port(*port).start_epmd(*start)),
            Self::Port(port) => Resolver::Port(*port),
            Self::Nodes(nodes) => {
                let nodes = nodes.iter();
                Resolver::Static(
                    nodes
                        .map(|(name, at)| (name.as_str().into(), *at))
                        .collect(),
                )
            }
        }
    }

    /// Where the node of this name has to listen for others to find it, if they look for it alike.
    pub(crate) fn own_address(&self, name: &str) -> Option<SocketAddr> {
        match self.resolver() {
            Resolver::Epmd(_) => None,
            Resolver::Port(port) => Some(([0, 0, 0, 0], port).into()),
            Resolver::Static(nodes) => nodes.get(name).copied(),
        }
    }
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "\"epmd\" or a table of epmd_port, start_epmd, port or nodes"
)]
enum Text {
    Word(String),
    Table(Table),
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Table {
    epmd_port: Option<u16>,
    start_epmd: bool,
    port: Option<u16>,
    nodes: Option<BTreeMap<String, SocketAddr>>,
}

impl TryFrom<Text> for Lookup {
    type Error = &'static str;

    fn try_from(text: Text) -> Result<Self, &'static str> {
        let table = match text {
            Text::Word(word) if word == "epmd" => return Ok(Self::default()),
            Text::Word(_) => return Err("names: give \"epmd\" or a table"),
            Text::Table(table) => table,
        };
        let epmd = table.epmd_port.is_some() || table.start_epmd;
        match (epmd, table.port, table.nodes) {
            (_, None, None) => Ok(Self::Epmd {
                port: table.epmd_port,
                start: table.start_epmd,
            }),
            (false, Some(port), None) => Ok(Self::Port(port)),
            (false, None, Some(nodes)) => Ok(Self::Nodes(nodes)),
            _ => Err("names: EPMD, a port for all nodes and a list of nodes exclude each other"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct File {
        names: Lookup,
    }

    fn read(text: &str) -> Result<Lookup, String> {
        let file = toml::from_str::<File>(&format!("names = {text}"));
        file.map(|file| file.names).map_err(|e| e.to_string())
    }

    #[test]
    fn each_way() {
        assert_eq!(read("'epmd'"), Ok(Lookup::default()));
        let started = Lookup::Epmd {
            port: Some(4000),
            start: true,
        };
        assert_eq!(read("{ epmd_port = 4000, start_epmd = true }"), Ok(started));
        assert_eq!(read("{ port = 4370 }"), Ok(Lookup::Port(4370)));
        let nodes = [("a@h".into(), "10.0.0.1:1".parse().unwrap())].into();
        let text = "{ nodes = { 'a@h' = '10.0.0.1:1' } }";
        assert_eq!(read(text), Ok(Lookup::Nodes(nodes)));
    }

    #[test]
    fn where_it_listens() {
        let address = |text: &str| read(text).unwrap().own_address("a@h");
        assert_eq!(address("{ epmd_port = 4000 }"), None);
        assert_eq!(
            address("{ port = 4370 }"),
            Some(([0, 0, 0, 0], 4370).into())
        );
        let listed = address("{ nodes = { 'a@h' = '10.0.0.1:1' } }");
        assert_eq!(listed, Some(([10, 0, 0, 1], 1).into()));
        assert_eq!(address("{ nodes = {} }"), None);
    }

    #[test]
    fn contradictions_are_refused() {
        let both = read("{ port = 1, start_epmd = true }").unwrap_err();
        assert!(both.contains("exclude each other"), "{both}");
        assert!(read("{ port = 1, nodes = {} }").is_err());
        assert!(read("'dns'").unwrap_err().contains("\"epmd\""));
        assert!(read("{ prt = 1 }").unwrap_err().contains("a table of"));
    }
}
