//! The VM's own identity and how it is mapped to the node's identity on the wire.
//!
//! A VM may be alive under the node's name, under another, or not at all, and may change that
//! while it runs (`net_kernel:start/2`). So whenever a message has identifiers in it, the VM's
//! present identity is read from the encoding of one of its own pids; that costs about 100 ns and
//! can't be out of date.
//!
//! Only schedulers may read it. When the name changes, the VM stops them, and for a moment it has no
//! identity at all: a null pointer (`erts_set_this_node` in OTP's `erl_node_tables.c`), through
//! which any other thread reads that encodes or decodes a pid just then. So I/O threads look at who
//! is registered as `net_kernel` instead, which changes before the name does. If that is not whom
//! they know, they ask `partisan_control` to say when name and registration agree again, and wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use partisan::wire::identity::Identity;
use partisan::wire::term::{Inbound, Outbound, RefFormat};
use rustler::sys::{ErlNifEnv, ErlNifPid};
use rustler::{Encoder, LocalPid, OwnedEnv};

use crate::{atoms, raw};

/// Identities of the VM that are remembered, for terms encoded before a change.
const MAX_PAST: usize = 16;

/// How long an I/O thread waits for a change of name to end. Registering with EPMD may take longer;
/// then it goes on, as it did before the change began.
const CHANGE_TIMEOUT: Duration = Duration::from_millis(500);

/// Nobody has looked who is registered.
const UNKNOWN: usize = usize::MAX;

/// Remote references that messages are rewritten to, unless a message asks for none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Encoding {
    pub(crate) pids: bool,
    pub(crate) refs: bool,
    pub(crate) format: RefFormat,
    pub(crate) uri_padding: bool,
}

/// The mapping as of one identity of the VM.
pub(crate) struct Mapping {
    /// Encoded node and creation of the VM, as they stand in its pids.
    key: Vec<u8>,
    present: Identity,
    past: Vec<Identity>,
    encoded: Outbound,
    plain: Outbound,
    inbound: Inbound,
    same: bool,
}

/// Reads the VM's identity and keeps the mapping that follows from it.
pub(crate) struct Mapper {
    wire: Identity,
    encoding: Encoding,
    current: ArcSwap<Mapping>,
    /// The pid of `net_kernel`, as a word, to which `current` belongs; 0 for none.
    net_kernel: AtomicUsize,
    asked: AtomicBool,
}

impl Mapper {
    pub(crate) fn new(wire: Identity, encoding: Encoding) -> Self {
        let nobody = Identity::new("nonode@nohost", 0);
        let mapping = build(&wire, encoding, Vec::new(), nobody, Vec::new());
        Self {
            wire,
            encoding,
            current: ArcSwap::from_pointee(mapping),
            net_kernel: AtomicUsize::new(UNKNOWN),
            asked: AtomicBool::new(false),
        }
    }

    /// The mapping that was read last; for threads that are not schedulers, and may be about to
    /// encode what was encoded before.
    pub(crate) fn last(&self) -> Arc<Mapping> {
        self.current.load_full()
    }

    /// The mapping while no change of name is under way. `caller` is the environment of a dirty
    /// NIF, or null on a thread that is not a scheduler.
    pub(crate) fn settled(&self, caller: *mut ErlNifEnv) -> Settled {
        let mut deadline = None;
        loop {
            let net_kernel = registered(caller);
            let mapping = self.current.load_full();
            let settled = Settled {
                net_kernel,
                mapping,
            };
            if net_kernel == self.net_kernel.load(Ordering::Acquire) {
                return settled;
            }
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + CHANGE_TIMEOUT);
            if Instant::now() > deadline {
                // Whoever was asked may be gone.
                self.asked.store(false, Ordering::Release);
                return settled;
            }
            // Who calls a NIF has asked before.
            if caller.is_null() && !self.asked.swap(true, Ordering::AcqRel) && !ask() {
                self.asked.store(false, Ordering::Release);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// True if nothing has changed since.
    pub(crate) fn is_still(&self, caller: *mut ErlNifEnv, settled: &Settled) -> bool {
        registered(caller) == settled.net_kernel && self.current.load().key == settled.mapping.key
    }

    /// Name and registration agree; on a scheduler. `net_kernel` is 0 if nobody is registered.
    pub(crate) fn settle(&self, env: *mut ErlNifEnv, own: &ErlNifPid, net_kernel: usize) {
        self.mapping(env, own);
        self.net_kernel.store(net_kernel, Ordering::Release);
        self.asked.store(false, Ordering::Release);
    }

    pub(crate) fn wire(&self) -> &Identity {
        &self.wire
    }

    /// The mapping for the VM as it is now; on a scheduler. `own` is any local pid.
    pub(crate) fn mapping(&self, env: *mut ErlNifEnv, own: &ErlNifPid) -> Arc<Mapping> {
        let mut bytes = Vec::with_capacity(64);
        let current = self.current.load();
        if !raw::term_to_binary(env, raw::pid_term(own), &mut bytes) {
            return current.clone();
        }
        let Some((node, creation, key)) = parse_pid(&bytes) else {
            return current.clone();
        };
        if current.key == key {
            return current.clone();
        }
        let mut past = current.past.clone();
        past.push(current.present.clone());
        if past.len() > MAX_PAST {
            past.remove(0);
        }
        let present = Identity::new(node, creation);
        let fresh = Arc::new(build(&self.wire, self.encoding, key, present, past));
        self.current.store(fresh.clone());
        fresh
    }
}

/// A mapping and the registration that it belongs to.
pub(crate) struct Settled {
    net_kernel: usize,
    pub(crate) mapping: Arc<Mapping>,
}

/// Who is registered as `net_kernel`.
fn registered(caller: *mut ErlNifEnv) -> usize {
    raw::whereis_as(caller, raw::atom_term(atoms::net_kernel()))
        .map_or(0, |pid| raw::pid_word(&pid))
}

/// Asks `partisan_control` to call [`Mapper::settle`]. False if it isn't there.
fn ask() -> bool {
    let Some(pid) = raw::whereis(raw::atom_term(atoms::partisan_control())) else {
        return false;
    };
    let settle = |env| atoms::partisan_settle().encode(env);
    OwnedEnv::new()
        .send_and_clear(&LocalPid::from_c_arg(pid), settle)
        .is_ok()
}

impl Mapping {
    /// What to do with outgoing identifiers; `None` if they can stay as they are.
    pub(crate) fn outbound(&self, encode: bool) -> Option<&Outbound> {
        if encode && (self.encoded.pids.is_some() || self.encoded.refs.is_some()) {
            Some(&self.encoded)
        } else if self.same {
            None
        } else {
            Some(&self.plain)
        }
    }

    /// What to do with incoming identifiers; `None` if they can stay as they are.
    pub(crate) fn inbound(&self) -> Option<&Inbound> {
        (!self.same).then_some(&self.inbound)
    }

    /// The VM's identity.
    pub(crate) fn present(&self) -> &Identity {
        &self.present
    }
}

fn build(
    wire: &Identity,
    encoding: Encoding,
    key: Vec<u8>,
    present: Identity,
    past: Vec<Identity>,
) -> Mapping {
    let mut own = past.clone();
    own.push(present.clone());
    // A pid that was encoded while the VM was not alive, and is sent when it is.
    own.push(Identity::new("nonode@nohost", 0));
    own.sort();
    own.dedup();
    own.retain(|identity| identity != wire);
    let plain = Outbound {
        own,
        wire: wire.clone(),
        pids: None,
        refs: None,
        uri_padding: encoding.uri_padding,
    };
    let encoded = Outbound {
        pids: encoding.pids.then_some(encoding.format),
        refs: encoding.refs.then_some(encoding.format),
        ..plain.clone()
    };
    let inbound = Inbound {
        wire: wire.clone(),
        local: present.clone(),
    };
    let same = present == *wire;
    Mapping {
        key,
        present,
        past,
        encoded,
        plain,
        inbound,
        same,
    }
}

/// Node, creation and their encoded form, from the encoding of a pid without version byte.
fn parse_pid(bytes: &[u8]) -> Option<(String, u32, Vec<u8>)> {
    let rest = bytes.strip_prefix(&[88])?;
    let (latin1, skip, length) = match rest {
        [115, n, ..] => (true, 2, usize::from(*n)),
        [119, n, ..] => (false, 2, usize::from(*n)),
        [100, a, b, ..] => (true, 3, usize::from(u16::from_be_bytes([*a, *b]))),
        [118, a, b, ..] => (false, 3, usize::from(u16::from_be_bytes([*a, *b]))),
        _ => return None,
    };
    let text = rest.get(skip..skip + length)?;
    let creation = rest.get(skip + length + 8..skip + length + 12)?;
    let node = if latin1 {
        text.iter().map(|&b| char::from(b)).collect()
    } else {
        String::from_utf8(text.to_vec()).ok()?
    };
    let mut key = text.to_vec();
    key.extend_from_slice(creation);
    Some((node, u32::from_be_bytes(creation.try_into().ok()?), key))
}
