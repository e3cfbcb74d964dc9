//! Where messages go: node and channel atoms to connections.
//!
//! Read by every send, on any scheduler, without a lock; replaced as a whole when a session comes
//! or goes. Keys are the words of atoms, which never change.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use parking_lot::Mutex;
use partisan::connection::outbox::Outbox;
use partisan::connection::session::Session;

/// Hashes one word. The words come from this VM, so nobody can choose them to collide.
#[derive(Default)]
pub(crate) struct WordHasher(u64);

impl Hasher for WordHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0 ^ word)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(23);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}

/// A map with the words of atoms as keys.
pub(crate) type Words<V> = HashMap<usize, V, BuildHasherDefault<WordHasher>>;

/// A channel of a session.
#[derive(Clone)]
pub(crate) struct ChannelRoute {
    pub(crate) atom: usize,
    pub(crate) name: Arc<str>,
    pub(crate) outboxes: Arc<[Arc<Outbox>]>,
}

/// A node that has been connected since the start.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) name: Arc<str>,
    /// `None`: disconnected.
    pub(crate) session: Option<Arc<Session>>,
    /// The default channel first.
    pub(crate) channels: Vec<ChannelRoute>,
}

/// One thread's view of all nodes.
pub(crate) type Watch = Cache<Arc<ArcSwap<Words<Route>>>, Arc<Words<Route>>>;

/// All nodes by the words of their atoms.
#[derive(Default)]
pub(crate) struct Routes {
    current: Arc<ArcSwap<Words<Route>>>,
    writing: Mutex<()>,
}

impl Routes {
    pub(crate) fn load(&self) -> arc_swap::Guard<Arc<Words<Route>>> {
        self.current.load()
    }

    /// For a thread that reads often: tells of a change at the price of one load.
    pub(crate) fn watch(&self) -> Watch {
        Cache::new(self.current.clone())
    }

    /// Enters or replaces a node's route.
    pub(crate) fn set(&self, node: usize, route: Route) {
        let _one_writer = self.writing.lock();
        let mut routes = Words::clone(&self.current.load());
        routes.insert(node, route);
        self.current.store(Arc::new(routes));
    }

    /// Marks a node as disconnected if `session` is the one that it has.
    pub(crate) fn remove(&self, node: usize, session: &Arc<Session>) {
        let _one_writer = self.writing.lock();
        let mut routes = Words::clone(&self.current.load());
        if let Some(route) = routes.get_mut(&node)
            && route
                .session
                .as_ref()
                .is_some_and(|s| Arc::ptr_eq(s, session))
        {
            route.session = None;
            route.channels.clear();
        }
        self.current.store(Arc::new(routes));
    }
}

/// Spreads process words over connections: pids that follow each other must not share one.
pub(crate) fn spread(sender: u64) -> u64 {
    let mut hasher = WordHasher::default();
    hasher.write_u64(sender);
    hasher.finish() >> 32
}
