//! The one node of this VM.

use std::cell::RefCell;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use partisan::node::runtime::Runtime;
use partisan::wire::identity::Identity;
use rand::RngExt;

use crate::config::Start;
use crate::host::VmHost;
use crate::log;
use crate::observer::Owner;
use crate::pool;
use crate::routes::{Route, Routes, Watch, Words};
use crate::send::Limits;
use crate::vm::Mapper;

/// A running node and what sends need of it.
pub(crate) struct Running {
    pub(crate) runtime: Runtime<VmHost>,
    pub(crate) host: Arc<VmHost>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) limits: Limits,
}

static NODE: ArcSwapOption<Running> = ArcSwapOption::const_empty();

/// Serialises start and stop.
static CHANGING: Mutex<()> = Mutex::new(());

/// The node, if it runs.
pub(crate) fn running() -> Option<Arc<Running>> {
    NODE.load_full()
}

thread_local! {
    /// The routes that a scheduler saw at its last send: looking whether they still hold is cheaper
    /// than sharing reference counts with other schedulers. Kept until its next send.
    static SEEN: RefCell<Option<(Arc<Routes>, Watch)>> = const { RefCell::new(None) };
}

/// The node and its present routes; for sends.
pub(crate) fn sending<R>(f: impl FnOnce(&Running, &Words<Route>) -> R) -> Option<R> {
    let node = NODE.load();
    let running = node.as_ref()?;
    SEEN.with_borrow_mut(|seen| {
        let watched = seen.take_if(|(routes, _)| Arc::ptr_eq(routes, &running.routes));
        let (_, watch) = seen.insert(watched.unwrap_or_else(|| {
            let routes = running.routes.clone();
            let watch = routes.watch();
            (routes, watch)
        }));
        Some(f(running, watch.load()))
    })
}

/// Like [`running`] without touching the reference count.
pub(crate) fn with<R>(f: impl FnOnce(&Running) -> R) -> Option<R> {
    NODE.load().as_ref().map(|running| f(running))
}

/// Starts the node. Blocks until its sockets listen.
pub(crate) fn start(start: Start) -> Result<Arc<Running>, String> {
    let _one_at_a_time = CHANGING.lock();
    if NODE.load().is_some() {
        return Err("already started".into());
    }
    log::install();
    let owner = *start.owner.as_c_arg();
    log::send_to(Some(owner));
    let creation = match start.node.creation {
        // A creation of its own, never that of a VM that is not alive.
        0 => rand::rng().random_range(1..=u32::MAX),
        creation => creation,
    };
    let identity = Identity::new(start.node.name.clone(), creation);
    let host = Arc::new(VmHost {
        mapper: Arc::new(Mapper::new(identity.clone(), start.encoding)),
        owner,
        inboxes: start.inboxes,
        turns: Arc::default(),
        spare: Arc::default(),
        slices: start.slices,
    });
    let routes = Arc::new(Routes::default());
    let observer = Box::new(Owner {
        pid: start.owner,
        routes: routes.clone(),
    });
    let limits = start.node.io.limits.clone();
    let runtime =
        Runtime::start(host.clone(), identity, start.node, observer).map_err(|e| e.to_string())?;
    // Without its thread the pool stays closed, and the VM's allocator serves.
    if let Err(e) = pool::open(start.pool_bytes) {
        tracing::warn!(error = %e, "no thread for the receive pool");
    }
    let running = Arc::new(Running {
        runtime,
        host,
        routes,
        limits,
    });
    NODE.store(Some(running.clone()));
    Ok(running)
}

/// Stops the node. Blocks until its threads and sockets are gone.
pub(crate) fn stop() {
    let _one_at_a_time = CHANGING.lock();
    if let Some(running) = NODE.swap(None) {
        running.runtime.stop();
        pool::close();
    }
    log::send_to(None);
}
