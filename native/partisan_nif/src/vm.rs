//! The VM's own identity and how it is mapped to the node's identity on the wire.
//!
//! A VM may be alive under the node's name, under another, or not at all, and may change that
//! while it runs (`net_kernel:start/2`). So whenever a message has identifiers in it, the VM's
//! present identity is read from the encoding of one of its own pids; that costs about 100 ns and
//! can't be out of date.

use std::sync::Arc;

use arc_swap::ArcSwap;
use partisan::wire::identity::Identity;
use partisan::wire::term::{Inbound, Outbound, RefFormat};
use rustler::sys::{ErlNifEnv, ErlNifPid};

use crate::raw;

/// Identities of the VM that are remembered, for terms encoded before a change.
const MAX_PAST: usize = 16;

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
}

impl Mapper {
    pub(crate) fn new(wire: Identity, encoding: Encoding) -> Self {
        let nobody = Identity::new("nonode@nohost", 0);
        let mapping = build(&wire, encoding, Vec::new(), nobody, Vec::new());
        Self {
            wire,
            encoding,
            current: ArcSwap::from_pointee(mapping),
        }
    }

    pub(crate) fn wire(&self) -> &Identity {
        &self.wire
    }

    /// The mapping for the VM as it is now. `own` is any local pid.
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

    /// True if the identifiers of both mappings are the same.
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        self.key == other.key
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
