//! `tracing` events become messages to the node's owner, who hands them to Erlang's `logger`.
//!
//! Events come from I/O threads and the control plane, never from a scheduler. The owner is asked
//! nothing and waits for nothing; how many events may be under way is bounded, and what exceeds
//! the bound is counted and told later.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use rustler::sys::{self, ErlNifPid};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

use crate::raw::{self, OwnEnv};

/// Events that may be sent within [`WINDOW`].
const BURST: u32 = 200;

const WINDOW: Duration = Duration::from_secs(1);

/// Longest text of an event, in bytes.
const MAX_TEXT: usize = 2048;

struct Rate {
    since: Instant,
    sent: u32,
}

/// Sends events to the owner of the running node.
pub(crate) struct Bridge {
    owner: RwLock<Option<ErlNifPid>>,
    rate: Mutex<Option<Rate>>,
    suppressed: AtomicU64,
}

// SAFETY: a local pid is a plain word.
unsafe impl Send for Bridge {}
// SAFETY: as above.
unsafe impl Sync for Bridge {}

static BRIDGE: Bridge = Bridge {
    owner: RwLock::new(None),
    rate: Mutex::new(None),
    suppressed: AtomicU64::new(0),
};

/// From now on events go to `owner`.
pub(crate) fn send_to(owner: Option<ErlNifPid>) {
    *BRIDGE.owner.write() = owner;
}

/// Makes the bridge the process's subscriber. Once; a second call does nothing.
pub(crate) fn install() {
    let _ = tracing::subscriber::set_global_default(Forward);
}

struct Forward;

impl Subscriber for Forward {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO && metadata.target().starts_with("partisan")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        if rustler::thread::is_scheduler_thread() {
            return;
        }
        let Some(owner) = *BRIDGE.owner.read() else {
            return;
        };
        if !admitted() {
            BRIDGE.suppressed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let missed = BRIDGE.suppressed.swap(0, Ordering::Relaxed);
        if missed > 0 {
            let _ = write!(text.0, " ({missed} earlier messages were suppressed)");
        }
        let level: &[u8] = match *event.metadata().level() {
            Level::ERROR => b"error",
            Level::WARN => b"warning",
            Level::INFO => b"info",
            _ => b"debug",
        };
        send(&owner, level, &text.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

fn admitted() -> bool {
    let now = Instant::now();
    let mut rate = BRIDGE.rate.lock();
    match &mut *rate {
        Some(rate) if now < rate.since + WINDOW => {
            rate.sent += 1;
            rate.sent <= BURST
        }
        slot => {
            *slot = Some(Rate {
                since: now,
                sent: 1,
            });
            true
        }
    }
}

fn send(owner: &ErlNifPid, level: &[u8], text: &str) {
    let mut env = OwnEnv::new();
    let raw_env = env.as_ptr();
    let Some(text) = raw::make_binary(raw_env, text.as_bytes()) else {
        return;
    };
    let elements = [
        raw::make_atom(raw_env, b"partisan_log"),
        raw::make_atom(raw_env, level),
        text,
    ];
    // SAFETY: the elements were made in this environment.
    let message = unsafe { sys::enif_make_tuple_from_array(raw_env, elements.as_ptr(), 3) };
    raw::send(owner, &mut env, message);
}

#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.0.len() > MAX_TEXT {
            return;
        }
        // Writing to a string can't fail.
        let _ = if field.name() == "message" {
            let rest = std::mem::take(&mut self.0);
            write!(self.0, "{value:?}{rest}")
        } else {
            write!(self.0, " {}={value:?}", field.name())
        };
    }
}
