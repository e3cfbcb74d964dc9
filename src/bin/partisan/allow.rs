//! What stock nodes may do to the node's processes: the file's table `allow`, and flags.

use clap::Args;
use partisan::Allow;
use serde::Deserialize;

/// What is not given is allowed.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Args)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Rules {
    /// Of the registered names only this one takes messages of stock nodes. May be given more than once.
    #[arg(id = "allow_name", long = "allow-name", value_name = "NAME")]
    pub(crate) names: Option<Vec<String>>,
    /// Whether stock nodes may link to processes; if not, their links are ignored.
    #[arg(id = "allow_links", long = "allow-links", value_name = "BOOL")]
    pub(crate) links: Option<bool>,
    /// Whether they may monitor processes; if not, their monitors never fire.
    #[arg(id = "allow_monitors", long = "allow-monitors", value_name = "BOOL")]
    pub(crate) monitors: Option<bool>,
    /// Whether they may end processes by exit/2; if not, such signals are ignored.
    #[arg(id = "allow_exits", long = "allow-exits", value_name = "BOOL")]
    pub(crate) exits: Option<bool>,
}

impl Rules {
    /// The file's settings under those of the flags.
    pub(crate) fn over(&self, file: Rules) -> Rules {
        Rules {
            names: self.names.clone().or(file.names),
            links: self.links.or(file.links),
            monitors: self.monitors.or(file.monitors),
            exits: self.exits.or(file.exits),
        }
    }

    pub(crate) fn allow(&self) -> Allow {
        let allow = Allow::new()
            .links(self.links.unwrap_or(true))
            .monitors(self.monitors.unwrap_or(true))
            .exits(self.exits.unwrap_or(true));
        match &self.names {
            Some(names) => allow.only_names(names.iter().map(String::as_str)),
            None => allow,
        }
    }
}
