//! Which peers were complained about, so that one that fails again and again is logged once.

use std::collections::HashSet;
use std::sync::Arc;

/// Most names that are remembered. Anybody can claim names, so beyond that all are forgotten.
const MAX_NAMES: usize = 4096;

/// Names of peers that were complained about since they last connected.
#[derive(Default)]
pub(crate) struct Complaints(HashSet<Arc<str>>);

impl Complaints {
    /// True if the name is not in the log yet; from now on it is.
    pub(crate) fn is_new(&mut self, name: &Arc<str>) -> bool {
        if self.0.len() >= MAX_NAMES {
            self.0.clear();
        }
        self.0.insert(name.clone())
    }

    /// The peer has connected; what goes wrong from now on is news.
    pub(crate) fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }
}
