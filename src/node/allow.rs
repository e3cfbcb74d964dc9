//! What stock nodes may reach.

use std::collections::HashSet;
use std::sync::Arc;

use crate::wire::dist::Control;

/// What peers may do with the processes of this node.
///
/// The default: send to every registered name and every pid that they know, link, monitor and
/// send exit signals, and call the [functions](crate::Node::function) that this node has registered; nothing
/// that was not registered can be spawned or called.
#[derive(Clone, Debug)]
pub struct Allow {
    names: Option<HashSet<Arc<str>>>,
    links: bool,
    monitors: bool,
    exits: bool,
}

impl Default for Allow {
    fn default() -> Self {
        Self {
            names: None,
            links: true,
            monitors: true,
            exits: true,
        }
    }
}

impl Allow {
    /// The default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only these registered names take messages of peers. What is sent to others is dropped, as
    /// if nobody had the name. Pids are not affected: a peer only has those that it was given.
    #[must_use]
    pub fn only_names<N: Into<Arc<str>>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.names = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Whether peers may link to processes. If not, their links are ignored.
    #[must_use]
    pub fn links(mut self, allowed: bool) -> Self {
        self.links = allowed;
        self
    }

    /// Whether peers may monitor processes. If not, their monitors never fire.
    #[must_use]
    pub fn monitors(mut self, allowed: bool) -> Self {
        self.monitors = allowed;
        self
    }

    /// Whether peers may end processes by `exit/2`. If not, such signals are ignored.
    #[must_use]
    pub fn exits(mut self, allowed: bool) -> Self {
        self.exits = allowed;
        self
    }

    /// Whether messages to the name are taken.
    pub(crate) fn takes_messages(&self, name: &str) -> bool {
        self.names.as_ref().is_none_or(|names| names.contains(name))
    }

    /// Whether a signal is taken that is no message.
    pub(crate) fn takes(&self, control: &Control) -> bool {
        match control {
            Control::Link { .. } => self.links,
            Control::Monitor { .. } => self.monitors,
            Control::Exit2 { .. } | Control::AltactSend { exit: true, .. } => self.exits,
            _ => true,
        }
    }
}
