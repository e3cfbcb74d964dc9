//! The configuration of `partisan node`, from a file and the command line.
//!
//! ```toml
//! name = "rust@127.0.0.1"
//! cookie = "secret"
//! listen = ["127.0.0.1:9000"]
//! join = ["a@10.0.0.1:9000", "b@example=10.0.0.2:9000"]
//! data_dir = "/var/lib/rust_node"
//!
//! names = "epmd"                    # see `lookup`
//! tick_time = 60
//!
//! [allow]                           # see `allow`
//! names = ["echo"]
//!
//! [tls]
//! ca = "ca.pem"
//! cert = "rust.pem"
//! key = "rust.key"
//! listen = ["0.0.0.0:9001"]
//!
//! [channels]
//! default = 4
//! state = { parallelism = 1, monotonic = true }
//! ```

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use partisan::wire::hello::DEFAULT_CHANNEL;
use partisan::{
    Builder, ChannelSpec, ClientServerConfig, Distribution, HyParViewConfig, Node, OverlayConfig,
    ScampConfig, Tag, XBotConfig,
};
use serde::Deserialize;

use crate::allow::Rules;
use crate::failure::{Cause, Failure};
use crate::lookup::Lookup;
use crate::tls::Tls;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) name: Option<String>,
    pub(crate) cookie: Option<String>,
    pub(crate) listen: Vec<String>,
    pub(crate) advertise: Vec<String>,
    pub(crate) join: Vec<Peer>,
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) overlay: Option<OverlayName>,
    /// Of client-server, now or when the cluster switches to it.
    pub(crate) tag: Option<TagName>,
    /// Seconds.
    pub(crate) switch_overlap: Option<f64>,
    pub(crate) channels: BTreeMap<String, Channel>,
    /// False: no links with stock nodes, and no EPMD.
    pub(crate) distribution: Option<bool>,
    pub(crate) names: Lookup,
    /// False: EPMD is asked, but not told.
    pub(crate) register: Option<bool>,
    /// Seconds.
    pub(crate) tick_time: Option<f64>,
    pub(crate) allow: Rules,
    pub(crate) tls: Option<Tls>,
}

/// Who keeps links to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum OverlayName {
    /// Every node to every other.
    FullMesh,
    /// Every node to a few others.
    #[serde(rename = "hyparview")]
    #[value(name = "hyparview")]
    HyParView,
    /// The same, of which most are near.
    #[serde(rename = "xbot")]
    #[value(name = "xbot")]
    XBot,
    /// Every node to more of them, the larger the cluster.
    Scamp,
    /// Servers to each other, clients to one server.
    #[serde(alias = "client-server")]
    #[value(alias = "client-server")]
    ClientServer,
    /// To the nodes that are joined.
    Static,
}

/// What a node is in the overlay `client_server`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TagName {
    /// It has links to all servers, and to clients.
    Server,
    /// It has a link to one server.
    Client,
    /// All nodes are alike.
    Undefined,
}

impl From<TagName> for Tag {
    fn from(name: TagName) -> Self {
        match name {
            TagName::Server => Self::Server,
            TagName::Client => Self::Client,
            TagName::Undefined => Self::Undefined,
        }
    }
}

impl OverlayName {
    fn config(self, tag: Option<TagName>) -> OverlayConfig {
        match self {
            Self::FullMesh => OverlayConfig::FullMesh,
            Self::HyParView => OverlayConfig::HyParView(HyParViewConfig::default()),
            Self::XBot => OverlayConfig::HyParView(HyParViewConfig {
                xbot: Some(XBotConfig::default()),
                ..HyParViewConfig::default()
            }),
            Self::Scamp => OverlayConfig::Scamp(ScampConfig::default()),
            Self::ClientServer => OverlayConfig::ClientServer(ClientServerConfig {
                tag: tag.map_or(Tag::default(), Into::into),
                ..ClientServerConfig::default()
            }),
            Self::Static => OverlayConfig::Static,
        }
    }
}

/// A channel: its connections, or a table.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(from = "ChannelText")]
pub(crate) struct Channel {
    pub(crate) parallelism: u16,
    pub(crate) monotonic: bool,
    pub(crate) compression: u8,
}

impl Default for Channel {
    fn default() -> Self {
        Self {
            parallelism: 1,
            monotonic: false,
            compression: 0,
        }
    }
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "a number of connections, or a table of parallelism, monotonic and compression"
)]
enum ChannelText {
    Connections(u16),
    Table(ChannelTable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChannelTable {
    #[serde(default = "one")]
    parallelism: u16,
    #[serde(default)]
    monotonic: bool,
    #[serde(default)]
    compression: u8,
}

fn one() -> u16 {
    1
}

impl From<ChannelText> for Channel {
    fn from(text: ChannelText) -> Self {
        match text {
            ChannelText::Connections(parallelism) => Self {
                parallelism,
                ..Self::default()
            },
            ChannelText::Table(table) => Self {
                parallelism: table.parallelism,
                monotonic: table.monotonic,
                compression: table.compression,
            },
        }
    }
}

/// A node to join and where it is: `NAME@HOST:PORT`, or `NAME@HOST=ADDRESS:PORT` if the name
/// does not end with the address.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) address: String,
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, address) = match text.split_once('=') {
            Some((name, address)) => (name, address),
            None => {
                let end = text.rfind(':').unwrap_or(0);
                let name = text.get(..end).unwrap_or("");
                let (_, address) = text.split_once('@').unwrap_or_default();
                (name, address)
            }
        };
        let (_, port) = address.rsplit_once(':').unwrap_or_default();
        let named = matches!(name.split_once('@'), Some((name, host)) if !name.is_empty() && !host.is_empty());
        if !named || port.parse::<u16>().is_err() {
            return Err(format!(
                "{text:?} does not say where to join: give NAME@HOST:PORT or NAME@HOST=ADDRESS:PORT"
            ));
        }
        Ok(Self {
            name: name.into(),
            address: address.into(),
        })
    }
}

impl TryFrom<String> for Peer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl Settings {
    /// What the file says.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Failure::new(Cause::Usage, format!("{}: {e}", path.display())))?;
        toml::from_str(&text)
            .map_err(|e| Failure::new(Cause::Usage, format!("{}: {e}", path.display())))
    }

    /// A node as described.
    pub(crate) fn builder(&self) -> Result<Builder, Failure> {
        let Some(name) = &self.name else {
            let missing = "the node needs a name: give --name NAME@HOST or `name` in the file";
            return Err(Failure::new(Cause::Usage, missing));
        };
        let mut builder = Node::builder(name.as_str());
        if let Some(cookie) = &self.cookie {
            builder = builder.cookie(cookie.as_str());
        }
        let mut listen = Vec::new();
        for text in &self.listen {
            listen.extend(resolve(text)?);
        }
        if self.distribution.unwrap_or(true) {
            let mut own = self.names.own_address(name);
            let mut distribution = Distribution::new()
                .names(self.names.resolver())
                .allow(self.allow.allow());
            if let Some(tls) = &self.tls {
                distribution = distribution.tls(tls.config()?);
                for text in &tls.listen {
                    for addr in resolve(text)? {
                        distribution = distribution.listen_tls(addr);
                        own = None;
                    }
                }
                if let Some(own) = own.take() {
                    distribution = distribution.listen_tls(own);
                }
            }
            if let Some(seconds) = self.tick_time {
                let time = Duration::try_from_secs_f64(seconds).map_err(|_| {
                    Failure::new(Cause::Usage, "tick_time: give a number of seconds")
                })?;
                distribution = distribution.tick_time(time);
            }
            if let Some(register) = self.register {
                distribution = distribution.register(register);
            }
            if listen.is_empty() {
                listen.extend(own);
            }
            builder = builder.distribution(distribution);
        }
        for addr in listen {
            builder = builder.listen(addr);
        }
        for text in &self.advertise {
            for addr in resolve(text)? {
                builder = builder.advertise(addr);
            }
        }
        if let Some(dir) = &self.data_dir {
            builder = builder.data_dir(dir);
        }
        if let Some(overlay) = self.overlay {
            builder = builder.overlay(overlay.config(self.tag));
        }
        if self.tag.is_some() {
            builder = builder.other_overlay(OverlayName::ClientServer.config(self.tag));
        }
        if let Some(seconds) = self.switch_overlap {
            let overlap = Duration::try_from_secs_f64(seconds).map_err(|_| {
                Failure::new(Cause::Usage, "switch_overlap: give a number of seconds")
            })?;
            builder = builder.switch_overlap(overlap);
        }
        for (name, channel) in &self.channels {
            let name = match name.as_str() {
                "default" => DEFAULT_CHANNEL,
                name => name,
            };
            builder = builder.channel_spec(ChannelSpec {
                name: name.into(),
                parallelism: channel.parallelism,
                monotonic: channel.monotonic,
                compression: channel.compression,
            });
        }
        Ok(builder)
    }
}

/// The addresses of `HOST:PORT`.
pub(crate) fn resolve(text: &str) -> Result<Vec<SocketAddr>, Failure> {
    let found = text.to_socket_addrs();
    found.map(Iterator::collect).map_err(|e| {
        let what = format!("{text:?} is no address that can be used ({e}): give HOST:PORT");
        Failure::new(Cause::Usage, what)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str, address: &str) -> Peer {
        Peer {
            name: name.into(),
            address: address.into(),
        }
    }

    #[test]
    fn peers() {
        let read = |text: &str| text.parse::<Peer>();
        assert_eq!(read("a@10.0.0.1:9"), Ok(peer("a@10.0.0.1", "10.0.0.1:9")));
        assert_eq!(read("a@h=[::1]:9"), Ok(peer("a@h", "[::1]:9")));
        assert_eq!(read("a@h=b:9"), Ok(peer("a@h", "b:9")));
        for text in [
            "", "a", "a@h", "a:1", "@h:1", "a@:1", "a@h:x", "a@h=b", "=b:1",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_file() {
        let settings: Settings = toml::from_str(
            "name = 'rust@127.0.0.1'\ncookie = 'secret'\nlisten = ['127.0.0.1:0']\n\
             join = ['a@10.0.0.1:9000']\ndata_dir = '/tmp/x'\n\
             [channels]\ndefault = 4\nstate = { monotonic = true }\n",
        )
        .unwrap();
        assert_eq!(settings.join, [peer("a@10.0.0.1", "10.0.0.1:9000")]);
        assert_eq!(settings.channels["default"].parallelism, 4);
        assert!(settings.channels["state"].monotonic);
        assert_eq!(settings.channels["state"].parallelism, 1);
        assert!(settings.builder().is_ok());
        let text = "name = 'a@h'\ncookie = 'c'\ndistribution = false\n[channels]\ndefault = 4";
        let settings: Settings = toml::from_str(text).unwrap();
        let node = settings.builder().unwrap().start().unwrap();
        let channels = node.spec().channels.iter();
        let channels: Vec<_> = channels.map(|c| (&*c.name, c.parallelism)).collect();
        assert_eq!(channels, [("partisan_membership", 1), ("undefined", 4)]);
    }

    #[test]
    fn mistakes_in_the_file_are_named() {
        let error = |text: &str| toml::from_str::<Settings>(text).unwrap_err().to_string();
        assert!(error("nam = 'x'").contains("unknown field `nam`"));
        assert!(error("join = ['x']").contains("NAME@HOST:PORT"));
        assert!(error("names = { prt = 1 }").contains("a table of epmd_port"));
        assert!(error("[tls]\ncacert = 'x'").contains("unknown field `cacert`"));
        assert!(error("[allow]\nspawn = true").contains("unknown field `spawn`"));
        let settings: Settings = toml::from_str("name = 'a@h'\ntick_time = -1").unwrap();
        let failure = settings.builder().err().unwrap();
        assert!(failure.to_string().contains("tick_time"));
        assert!(error("[channels]\na = 'x'").contains("a number of connections"));
        let failure = error("overlay = 'star'");
        let names = [
            "full_mesh",
            "hyparview",
            "xbot",
            "scamp",
            "client_server",
            "static",
        ];
        assert!(names.iter().all(|name| failure.contains(name)), "{failure}");
        assert!(error("tag = 'master'").contains("`server`, `client`"));
        let failure = Settings::default().builder().err().unwrap();
        assert!(failure.to_string().contains("--name"));
        let failure = Settings::read(Path::new("/nonexistent/file")).unwrap_err();
        assert!(failure.to_string().contains("/nonexistent/file"));
    }
}
