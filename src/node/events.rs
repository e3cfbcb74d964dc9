//! What happens to a node, as its user hears it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::sync::broadcast;

use crate::connection::outbox::Wake;
use crate::connection::session::{CloseReason, Session};
use crate::distribution::link::LinkError;
use crate::node::block::block_on;
use crate::node::runtime::Observer;
use crate::overlay::NodeSpec;
use crate::overlay::switch::Status;

/// Something that has happened to a node.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum NodeEvent {
    /// A node can be sent to. Comes before its first message.
    Up {
        /// Its name.
        node: Arc<str>,
    },
    /// A node cannot be sent to any more, because the session with it has ended. Its last message
    /// is in its mailbox already: none comes after this event, unless the node comes up again.
    Down {
        /// Its name.
        node: Arc<str>,
        /// Why the session ended.
        reason: CloseReason,
    },
    /// A stock node is connected. Comes before its first message.
    LinkUp {
        /// Its name.
        node: Arc<str>,
        /// Its incarnation.
        creation: u32,
    },
    /// A stock node is not connected any more. All that it has sent is in the mailboxes.
    LinkDown {
        /// Its name.
        node: Arc<str>,
        /// Why.
        reason: LinkError,
    },
    /// The members of the cluster have changed. These are all of them, this node included.
    Members(Arc<[NodeSpec]>),
    /// The cluster changes to another overlay, or has changed; see [`Node::switch`](crate::Node::switch).
    Overlay(Status),
    /// This node has left its cluster, or was removed from it.
    Left,
    /// A bug has ended the node. It can only be stopped.
    Failed(Arc<str>),
    /// The reader was too slow and has missed that many events: it should look at
    /// [`Node::nodes`](crate::Node::nodes) and [`Node::members`](crate::Node::members).
    Lagged(u64),
}

/// The events of a node from the moment on when this was made.
#[derive(Debug)]
pub struct Events {
    receiver: broadcast::Receiver<NodeEvent>,
}

impl Events {
    /// The next event; `None` when the node has stopped. Cancel-safe.
    pub async fn recv(&mut self) -> Option<NodeEvent> {
        match self.receiver.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(NodeEvent::Lagged(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// An event if one is there.
    pub fn try_recv(&mut self) -> Option<NodeEvent> {
        match self.receiver.try_recv() {
            Ok(event) => Some(event),
            Err(broadcast::error::TryRecvError::Lagged(missed)) => Some(NodeEvent::Lagged(missed)),
            Err(_) => None,
        }
    }

    /// [`Events::recv`] for threads: blocks. Not to be called by an asynchronous task.
    pub fn recv_blocking(&mut self) -> Option<NodeEvent> {
        block_on(self.recv())
    }
}

/// Looked up for every message that is sent. The names are those of members, which know the cookie.
type Routes = HashMap<Arc<str>, Option<Arc<Session>>, RandomState>;

/// What the control plane tells and every handle of a node reads.
pub(crate) struct View {
    /// Sessions by node name; `None` for a node that was connected once.
    routes: ArcSwap<Routes>,
    alive: AtomicBool,
    /// Whether a node without a session may be reached all the same.
    reaches: AtomicBool,
    events: Mutex<Option<broadcast::Sender<NodeEvent>>>,
}

/// What is known of a node.
pub(crate) enum Route<'a> {
    Session(&'a Arc<Session>),
    /// It was connected once.
    Down,
    Unknown,
}

impl View {
    pub(crate) fn new(backlog: usize) -> Self {
        Self {
            routes: ArcSwap::default(),
            alive: AtomicBool::new(true),
            reaches: AtomicBool::new(false),
            events: Mutex::new(Some(broadcast::channel(backlog.clamp(1, 1 << 16)).0)),
        }
    }

    /// What `read` makes of what is known of a node.
    pub(crate) fn route<T>(&self, node: &str, read: impl FnOnce(Route<'_>) -> T) -> T {
        let routes = self.routes.load();
        read(match routes.get(node) {
            Some(Some(session)) => Route::Session(session),
            Some(None) => Route::Down,
            None => Route::Unknown,
        })
    }

    /// The session with a node.
    pub(crate) fn session(&self, node: &str) -> Option<Arc<Session>> {
        self.route(node, |route| match route {
            Route::Session(session) => Some(session.clone()),
            Route::Down | Route::Unknown => None,
        })
    }

    pub(crate) fn connected(&self) -> Vec<Arc<str>> {
        let routes = self.routes.load();
        let open = |s: &Option<Arc<Session>>| s.as_ref().is_some_and(|s| s.is_open());
        routes
            .iter()
            .filter(|(_, s)| open(s))
            .map(|(name, _)| name.clone())
            .collect()
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    /// Whether a node without a session may be reached all the same.
    pub(crate) fn reaches(&self) -> bool {
        self.reaches.load(Ordering::Acquire)
    }

    /// From now on sending fails.
    pub(crate) fn stopping(&self) {
        self.alive.store(false, Ordering::Release);
    }

    /// No more events.
    pub(crate) fn stopped(&self) {
        self.events.lock().take();
        self.routes.store(Arc::default());
    }

    pub(crate) fn subscribe(&self) -> Events {
        let receiver = match &*self.events.lock() {
            Some(events) => events.subscribe(),
            // A channel whose sender is gone.
            None => broadcast::channel(1).1,
        };
        Events { receiver }
    }

    pub(crate) fn tell(&self, event: NodeEvent) {
        if let Some(events) = &*self.events.lock() {
            // Fails when nobody listens.
            let _ = events.send(event);
        }
    }

    /// Only the control thread changes the routes.
    fn set(&self, node: &Arc<str>, session: Option<Arc<Session>>) {
        let mut routes = HashMap::clone(&self.routes.load());
        routes.insert(node.clone(), session);
        self.routes.store(Arc::new(routes));
    }
}

/// Tells a [`View`].
pub(crate) struct Telling(pub(crate) Arc<View>);

impl Observer for Telling {
    fn session_up(&mut self, session: &Arc<Session>, _: Option<&NodeSpec>, news: bool) {
        let node = session.peer.node.clone();
        self.0.set(&node, Some(session.clone()));
        if news {
            self.0.tell(NodeEvent::Up { node });
        }
    }

    fn session_down(&mut self, session: &Arc<Session>, reason: &CloseReason, news: bool) {
        let node = session.peer.node.clone();
        let routes = self.0.routes.load_full();
        // A newer session may have taken its place.
        if let Some(Some(present)) = routes.get(&node)
            && Arc::ptr_eq(present, session)
        {
            self.0.set(&node, None);
        }
        if news {
            let reason = reason.clone();
            self.0.tell(NodeEvent::Down { node, reason });
        }
    }

    fn node_down(&mut self, node: &str, reason: &str) {
        self.0.tell(NodeEvent::Down {
            node: node.into(),
            reason: CloseReason::Lost(reason.into()),
        });
    }

    fn members(&mut self, members: &[NodeSpec]) {
        self.0.tell(NodeEvent::Members(members.into()));
    }

    fn overlay(&mut self, status: &Status, reaches: bool) {
        self.0.reaches.store(reaches, Ordering::Release);
        self.0.tell(NodeEvent::Overlay(status.clone()));
    }

    fn left(&mut self) {
        self.0.tell(NodeEvent::Left);
    }

    fn failed(&mut self, why: &str) {
        tracing::error!("the node has failed: {why}");
        self.0.stopping();
        for session in self.0.routes.load().values().flatten() {
            session.close_with(CloseReason::Local("node failed"), Wake::NotAlive);
        }
        self.0.tell(NodeEvent::Failed(why.into()));
    }
}
