//! The processes of a node by name, by pid and by alias.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::connection::inlet::subject;
use crate::limits::MAX_ATOM_CHARS;
use crate::node::mailbox::RegisterError;
use crate::node::requests::REQUESTS_NAME;
use crate::node::slot::Slot;
use crate::signals::Local;
use crate::wire::frame::Dest;
use crate::wire::identity::Identity;
use crate::wire::term::{Pid, Reference};

/// Names of the processes that every node has for others' sake.
pub(crate) const SERVICE_NAMES: [&str; 2] = ["net_kernel", "rex"];

/// True if users may send to the name. Frames of Partisan sessions have room for 255 bytes only.
pub(crate) fn is_free_name(name: &str) -> bool {
    let fits = name.len() <= MAX_ATOM_CHARS || name.chars().count() <= MAX_ATOM_CHARS;
    !name.is_empty() && fits && subject(name).is_none()
}

struct Alias {
    slot: Arc<Slot>,
    kind: AliasKind,
}

/// What an alias is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum AliasKind {
    /// Any number of messages.
    #[default]
    Lasting,
    /// One message, with which it ends.
    Once,
    /// Any number of messages, and those that are sent as priority messages (OTP 28) go before
    /// all others in the mailbox.
    Priority,
}

#[derive(Default)]
struct Names {
    names: HashMap<Arc<str>, Arc<Slot>>,
    pids: HashMap<Local, Arc<Slot>>,
    aliases: HashMap<Reference, Alias>,
    aliases_of: HashMap<Local, Vec<Reference>>,
    last: (u32, u32),
    closed: bool,
}

impl Names {
    fn check(&self, name: &Arc<str>, service: bool) -> Result<(), RegisterError> {
        let reserved = SERVICE_NAMES.contains(&&**name) && !service;
        if reserved || !is_free_name(name) || **name == *REQUESTS_NAME {
            return Err(RegisterError::Name(name.clone()));
        }
        if self.names.contains_key(name) {
            return Err(RegisterError::Taken(name.clone()));
        }
        Ok(())
    }
}

/// The processes of a node.
pub(crate) struct Registry {
    pub(crate) identity: Identity,
    capacity: u64,
    references: AtomicU64,
    names: RwLock<Names>,
}

impl Registry {
    pub(crate) fn new(identity: Identity, capacity: u64) -> Self {
        Self {
            identity,
            capacity,
            references: AtomicU64::new(1),
            names: RwLock::default(),
        }
    }

    /// A reference that this node has never made before. The first word has as many bits as it
    /// has in any release of Erlang.
    pub(crate) fn reference(&self) -> Reference {
        let number = self.references.fetch_add(1, Ordering::Relaxed);
        Reference {
            node: self.identity.node.clone(),
            creation: self.identity.creation,
            words: [
                (number & 0x3ffff) as u32,
                (number >> 18) as u32,
                (number >> 50) as u32,
            ]
            .into(),
        }
    }

    /// The pid of a process of this node.
    pub(crate) fn pid(&self, process: Local) -> Pid {
        Pid {
            node: self.identity.node.clone(),
            id: process.id,
            serial: process.serial,
            creation: self.identity.creation,
        }
    }

    pub(crate) fn find(&self, dest: Dest<'_>) -> Option<Arc<Slot>> {
        let names = self.names.read();
        match dest {
            Dest::Name(name) => names.names.get(name).cloned(),
            Dest::Pid {
                id,
                serial,
                creation,
            } => {
                let own = creation == 0 || creation == self.identity.creation;
                let process = Local { id, serial };
                names.pids.get(&process).filter(|_| own).cloned()
            }
        }
    }

    pub(crate) fn find_local(&self, process: Local) -> Option<Arc<Slot>> {
        self.names.read().pids.get(&process).cloned()
    }

    /// The process that an alias stands for; one that is good for one message ends.
    pub(crate) fn find_alias(&self, alias: &Reference) -> Option<(Arc<Slot>, AliasKind)> {
        let names = self.names.read();
        let found = names.aliases.get(alias)?;
        let (slot, kind) = (found.slot.clone(), found.kind);
        if kind == AliasKind::Once {
            drop(names);
            // Of two messages at once the first one counts.
            return self.remove_alias(alias).then_some((slot, kind));
        }
        Some((slot, kind))
    }

    pub(crate) fn add_alias(&self, alias: Reference, slot: Arc<Slot>, kind: AliasKind) {
        let mut names = self.names.write();
        let process = slot.process;
        names.aliases.insert(alias.clone(), Alias { slot, kind });
        names.aliases_of.entry(process).or_default().push(alias);
    }

    /// True if it was there.
    pub(crate) fn remove_alias(&self, alias: &Reference) -> bool {
        let mut names = self.names.write();
        let Some(removed) = names.aliases.remove(alias) else {
            return false;
        };
        let process = removed.slot.process;
        if let Some(aliases) = names.aliases_of.get_mut(&process) {
            aliases.retain(|other| other != alias);
            if aliases.is_empty() {
                names.aliases_of.remove(&process);
            }
        }
        true
    }

    pub(crate) fn names(&self) -> Vec<Arc<str>> {
        self.names.read().names.keys().cloned().collect()
    }

    /// Makes room for a new process.
    pub(crate) fn open(
        &self,
        name: Option<&Arc<str>>,
        service: bool,
    ) -> Result<Arc<Slot>, RegisterError> {
        let mut names = self.names.write();
        if names.closed {
            return Err(RegisterError::NotAlive);
        }
        if let Some(name) = name {
            names.check(name, service)?;
        }
        let process = loop {
            // As many bits as pids have in any release of Erlang.
            let (id, serial) = names.last;
            names.last = if id + 1 < 1 << 28 {
                (id + 1, serial)
            } else {
                (1, (serial + 1) % (1 << 13))
            };
            let (id, serial) = names.last;
            let process = Local { id, serial };
            if !names.pids.contains_key(&process) {
                break process;
            }
        };
        let slot = Arc::new(Slot::new(process, name.cloned(), self.capacity));
        names.pids.insert(process, slot.clone());
        if let Some(name) = name {
            names.names.insert(name.clone(), slot.clone());
        }
        Ok(slot)
    }

    /// Gives a name to a process that has none.
    pub(crate) fn name(&self, slot: &Arc<Slot>, name: Arc<str>) -> Result<(), RegisterError> {
        let mut names = self.names.write();
        if names.closed || !names.pids.contains_key(&slot.process) {
            return Err(RegisterError::NotAlive);
        }
        let mut own = slot.name.lock();
        if let Some(own) = &*own {
            return Err(RegisterError::Named(own.clone()));
        }
        names.check(&name, false)?;
        names.names.insert(name.clone(), slot.clone());
        *own = Some(name);
        Ok(())
    }

    /// Takes a process's name away; gives the name.
    pub(crate) fn unname(&self, slot: &Slot) -> Option<Arc<str>> {
        let mut names = self.names.write();
        let name = slot.name.lock().take()?;
        names.names.remove(&name);
        Some(name)
    }

    /// Forgets a process. What it holds stays with whoever has its slot.
    pub(crate) fn close(&self, process: Local) {
        let mut names = self.names.write();
        let Some(slot) = names.pids.remove(&process) else {
            return;
        };
        if let Some(name) = slot.name.lock().take() {
            names.names.remove(&name);
        }
        for alias in names.aliases_of.remove(&process).unwrap_or_default() {
            names.aliases.remove(&alias);
        }
    }

    /// The node ends: what is in the mailboxes can still be received.
    pub(crate) fn stop(&self) {
        let slots = {
            let mut names = self.names.write();
            names.closed = true;
            names.names.clear();
            names.aliases.clear();
            names.aliases_of.clear();
            std::mem::take(&mut names.pids)
        };
        for slot in slots.values() {
            slot.close(false);
        }
    }
}
