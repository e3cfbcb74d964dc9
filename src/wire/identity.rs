//! Who a node is on the wire: a name and a creation.

use std::fmt;
use std::sync::Arc;

/// A node's name and the creation that tells one start of it from another.
///
/// Erlang puts both into every pid, reference and port
/// (`erl_ext_dist`, `NEW_PID_EXT`), so that an identifier of a node that has restarted never
/// means a process of its successor.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// Node name, `name@host`.
    pub node: Arc<str>,
    /// Distinguishes incarnations of the name. Zero only for a VM that is not alive.
    pub creation: u32,
}

impl Identity {
    /// The identity of `node` in its incarnation `creation`.
    pub fn new(node: impl Into<Arc<str>>, creation: u32) -> Self {
        Self {
            node: node.into(),
            creation,
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.node, self.creation)
    }
}
