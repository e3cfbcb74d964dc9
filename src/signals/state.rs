//! The table of processes, and the rules.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::{Config, Effect, Error, Event, Local, Notice, Request, signal};
use crate::wire::dist::{Control, Signal, Target};
use crate::wire::flags::Flags;
use crate::wire::term::{Pid, Reference, Term, Value};

/// A link as one of its ends knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Active,
    /// Unlinked; the other end has not acknowledged it.
    Unlinking(u64),
}

/// What a process monitors.
#[derive(Debug)]
struct Watched {
    node: Arc<str>,
    target: Target,
}

/// Who monitors a process.
#[derive(Debug)]
struct Watcher {
    pid: Pid,
    /// What the watcher calls the process.
    target: Target,
}

#[derive(Debug, Default)]
struct Process {
    name: Option<Arc<str>>,
    traps: bool,
    links: HashMap<Pid, Link>,
    watches: HashMap<Reference, Watched>,
    watchers: HashMap<Reference, Watcher>,
}

#[derive(Debug)]
struct Peer {
    flags: Flags,
    /// Links and monitors that it has made here.
    relations: usize,
}

/// What the processes of a node know of each other; see the [module](super).
#[derive(Debug)]
pub struct State {
    config: Config,
    processes: HashMap<Local, Process>,
    names: HashMap<Arc<str>, Local>,
    peers: HashMap<Arc<str>, Peer>,
    unlinks: u64,
    /// Exits of local links that have not arrived yet: the ended process, the linked one, why.
    /// A chain of linked processes ends one after the other, not in one recursion.
    exits: VecDeque<(Pid, Local, Term)>,
}

impl State {
    /// A node without processes and peers.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            processes: HashMap::new(),
            names: HashMap::new(),
            peers: HashMap::new(),
            unlinks: 0,
            exits: VecDeque::new(),
        }
    }

    /// Whether the process is there.
    pub fn is_alive(&self, process: Local) -> bool {
        self.processes.contains_key(&process)
    }

    /// Takes in an event. Time plays no part here.
    ///
    /// # Errors
    /// What is wrong with what a peer has sent; its connection should be closed.
    pub fn handle(&mut self, event: Event, effects: &mut Vec<Effect>) -> Result<(), Error> {
        let outcome = self.event(event, effects);
        while let Some((from, to, reason)) = self.exits.pop_front() {
            self.exit_linked(&from, to, reason, effects);
        }
        outcome
    }

    fn event(&mut self, event: Event, effects: &mut Vec<Effect>) -> Result<(), Error> {
        match event {
            Event::Spawned {
                process,
                name,
                request,
            } => self.spawned(process, name, request, effects),
            Event::Named { process, name } => {
                if let Some(found) = self.processes.get_mut(&process) {
                    if let Some(before) = std::mem::replace(&mut found.name, name.clone()) {
                        self.names.remove(&before);
                    }
                    if let Some(name) = name {
                        self.names.insert(name, process);
                    }
                }
            }
            Event::Ended { process, reason } => self.end(process, &reason, effects),
            Event::Trap { process, on } => {
                if let Some(process) = self.processes.get_mut(&process) {
                    process.traps = on;
                }
            }
            Event::Link { from, to } => self.link(from, to, effects),
            Event::Unlink { from, to } => self.unlink(from, to, effects),
            Event::Monitor {
                from,
                node,
                target,
                reference,
            } => self.monitor(from, node, target, reference, effects),
            Event::Demonitor { from, reference } => self.demonitor(from, reference, effects),
            Event::Exit { from, to, reason } => {
                let from = self.pid(from);
                if self.is_own(&to) {
                    self.exit_asked(&from, Local::from(&to), reason, effects);
                } else if self.peers.contains_key(&to.node) {
                    let (node, process) = (to.node.clone(), Local::from(&from));
                    let control = Control::Exit2 { from, to };
                    effects.push(Effect::Send {
                        node,
                        process,
                        signal: signal(control, Some(reason)),
                    });
                }
            }
            Event::Received { node, signal } => return self.received(&node, signal, effects),
            Event::Up { node, flags } => {
                let relations = 0;
                self.peers.insert(node, Peer { flags, relations });
            }
            Event::Down { node } => self.down(&node, effects),
        }
        Ok(())
    }

    fn pid(&self, process: Local) -> Pid {
        Pid {
            node: self.config.own.node.clone(),
            id: process.id,
            serial: process.serial,
            creation: self.config.own.creation,
        }
    }

    fn is_own(&self, pid: &Pid) -> bool {
        pid.node == self.config.own.node
    }

    /// The process that a pid of this node means, if it is of this incarnation and there.
    fn find(&self, pid: &Pid) -> Option<Local> {
        let local = Local::from(pid);
        (pid.creation == self.config.own.creation && self.is_alive(local)).then_some(local)
    }

    fn send(&self, to: &Pid, from: Local, control: Control, payload: Option<Term>) -> Effect {
        Effect::Send {
            node: to.node.clone(),
            process: from,
            signal: signal(control, payload),
        }
    }

    fn spawned(
        &mut self,
        process: Local,
        name: Option<Arc<str>>,
        request: Option<Request>,
        effects: &mut Vec<Effect>,
    ) {
        let own = self.pid(process);
        let mut new = Process {
            name: name.clone(),
            ..Process::default()
        };
        if let Some(name) = name {
            self.names.insert(name, process);
        }
        if let Some(request) = request {
            if !self.peers.contains_key(&request.from.node) {
                // The asker is out of sight: a link has broken before it began.
                self.processes.insert(process, new);
                if request.link {
                    self.end(process, &reason("noconnection"), effects);
                    let reason = reason("noconnection");
                    effects.push(Effect::Kill { process, reason });
                }
                return;
            }
            if request.reply {
                let control = Control::SpawnReply {
                    id: request.id.clone(),
                    to: request.from.clone(),
                    flags: u32::from(request.link) | u32::from(request.monitor) << 1,
                    result: Ok(own.clone()),
                };
                effects.push(self.send(&request.from, process, control, None));
            }
            if request.link {
                new.links.insert(request.from.clone(), Link::Active);
            }
            if request.monitor {
                let watcher = Watcher {
                    pid: request.from,
                    target: Target::Pid(own),
                };
                new.watchers.insert(request.id, watcher);
            }
        }
        self.processes.insert(process, new);
    }

    /// A process is gone: tells whoever watched it.
    fn end(&mut self, process: Local, reason: &Term, effects: &mut Vec<Effect>) {
        let Some(gone) = self.processes.remove(&process) else {
            return;
        };
        if let Some(name) = &gone.name
            && self.names.get(name) == Some(&process)
        {
            self.names.remove(name);
        }
        let own = self.pid(process);
        for (reference, watched) in gone.watches {
            self.unwatch(process, &watched, &reference, effects);
        }
        for (reference, watcher) in gone.watchers {
            self.relation_gone(&watcher.pid);
            self.tell_down(process, watcher, reference, reason, effects);
        }
        for (other, link) in gone.links {
            self.relation_gone(&other);
            if link != Link::Active {
                continue;
            }
            if self.is_own(&other) {
                let exit = (own.clone(), Local::from(&other), reason.clone());
                self.exits.push_back(exit);
            } else {
                let control = Control::Exit {
                    from: own.clone(),
                    to: other.clone(),
                };
                effects.push(self.send(&other, process, control, Some(reason.clone())));
            }
        }
    }

    fn tell_down(
        &mut self,
        process: Local,
        watcher: Watcher,
        reference: Reference,
        reason: &Term,
        effects: &mut Vec<Effect>,
    ) {
        if self.is_own(&watcher.pid) {
            let node = self.config.own.node.clone();
            self.notify_down(Local::from(&watcher.pid), node, reference, reason, effects);
        } else {
            let control = Control::MonitorExit {
                from: watcher.target,
                to: watcher.pid.clone(),
                reference,
            };
            effects.push(self.send(&watcher.pid, process, control, Some(reason.clone())));
        }
    }

    /// A monitor of a local process has fired.
    fn notify_down(
        &mut self,
        watcher: Local,
        node: Arc<str>,
        reference: Reference,
        reason: &Term,
        effects: &mut Vec<Effect>,
    ) {
        let watches = self.processes.get_mut(&watcher).map(|p| &mut p.watches);
        if let Some(watched) = watches.and_then(|watches| watches.remove(&reference)) {
            let notice = Notice::Down {
                reference,
                node,
                process: watched.target,
                reason: reason.clone(),
            };
            let process = watcher;
            effects.push(Effect::Tell { process, notice });
        }
    }

    /// An exit signal of a link.
    fn exit_linked(&mut self, from: &Pid, to: Local, reason: Term, effects: &mut Vec<Effect>) {
        let Some(process) = self.processes.get_mut(&to) else {
            return;
        };
        // An exit of a link that was taken off, or that was never there, means nothing.
        if process.links.get(from) != Some(&Link::Active) {
            return;
        }
        process.links.remove(from);
        self.relation_gone(from);
        self.exit(from, to, reason, effects);
    }

    /// An exit signal of `exit/2`.
    fn exit_asked(&mut self, from: &Pid, to: Local, why: Term, effects: &mut Vec<Effect>) {
        if is_atom(&why, "kill") {
            let why = reason("killed");
            if self.is_alive(to) {
                self.end(to, &why, effects);
                effects.push(Effect::Kill {
                    process: to,
                    reason: why,
                });
            }
        } else {
            self.exit(from, to, why, effects);
        }
    }

    fn exit(&mut self, from: &Pid, to: Local, reason: Term, effects: &mut Vec<Effect>) {
        let Some(process) = self.processes.get(&to) else {
            return;
        };
        if process.traps {
            let from = from.clone();
            let notice = Notice::Exit { from, reason };
            effects.push(Effect::Tell {
                process: to,
                notice,
            });
        } else if !is_atom(&reason, "normal") || *from == self.pid(to) {
            self.end(to, &reason, effects);
            let process = to;
            effects.push(Effect::Kill { process, reason });
        }
    }

    fn link(&mut self, from: Local, to: Pid, effects: &mut Vec<Effect>) {
        let own = self.pid(from);
        if own == to || !self.is_alive(from) {
            return;
        }
        let there = if self.is_own(&to) {
            self.find(&to).is_some()
        } else {
            self.peers.contains_key(&to.node)
        };
        if !there {
            let why = if self.is_own(&to) {
                "noproc"
            } else {
                "noconnection"
            };
            return self.exit(&to, from, reason(why), effects);
        }
        let before = self.processes.get_mut(&from);
        let before = before.and_then(|process| process.links.insert(to.clone(), Link::Active));
        if self.is_own(&to) {
            if let Some(other) = self.processes.get_mut(&Local::from(&to)) {
                other.links.insert(own, Link::Active);
            }
        } else {
            if before.is_none() {
                self.relation_new(&to);
            }
            if before != Some(Link::Active) {
                let control = Control::Link {
                    from: own,
                    to: to.clone(),
                };
                effects.push(self.send(&to, from, control, None));
            }
        }
    }

    fn unlink(&mut self, from: Local, to: Pid, effects: &mut Vec<Effect>) {
        let own = self.pid(from);
        let Some(process) = self.processes.get_mut(&from) else {
            return;
        };
        if process.links.get(&to) != Some(&Link::Active) {
            return;
        }
        if to.node == own.node {
            process.links.remove(&to);
            if let Some(other) = self.processes.get_mut(&Local::from(&to)) {
                other.links.remove(&own);
            }
            return;
        }
        let numbered = self
            .peers
            .get(&to.node)
            .is_some_and(|peer| peer.flags.contains(Flags::UNLINK_ID));
        let control = if numbered {
            self.unlinks = self.unlinks.wrapping_add(1).max(1);
            let id = self.unlinks;
            process.links.insert(to.clone(), Link::Unlinking(id));
            Control::UnlinkId {
                id,
                from: own,
                to: to.clone(),
            }
        } else {
            process.links.remove(&to);
            self.relation_gone(&to);
            Control::Unlink {
                from: own,
                to: to.clone(),
            }
        };
        effects.push(self.send(&to, from, control, None));
    }

    fn monitor(
        &mut self,
        from: Local,
        node: Arc<str>,
        target: Target,
        reference: Reference,
        effects: &mut Vec<Effect>,
    ) {
        let own = self.pid(from);
        let Some(process) = self.processes.get_mut(&from) else {
            return;
        };
        let watched = Watched {
            node: node.clone(),
            target: target.clone(),
        };
        process.watches.insert(reference.clone(), watched);
        if node == own.node {
            match self.target(&target) {
                Some(found) => {
                    let watcher = Watcher { pid: own, target };
                    if let Some(found) = self.processes.get_mut(&found) {
                        found.watchers.insert(reference, watcher);
                    }
                }
                None => self.notify_down(from, node, reference, &reason("noproc"), effects),
            }
        } else if self.peers.contains_key(&node) {
            let control = Control::Monitor {
                from: own,
                target,
                reference,
            };
            effects.push(Effect::Send {
                node,
                process: from,
                signal: signal(control, None),
            });
        } else {
            self.notify_down(from, node, reference, &reason("noconnection"), effects);
        }
    }

    fn target(&self, target: &Target) -> Option<Local> {
        match target {
            Target::Pid(pid) => self.find(pid),
            Target::Name(name) => self.names.get(name.as_str()).copied(),
            Target::Alias(_) => None,
        }
    }

    fn demonitor(&mut self, from: Local, reference: Reference, effects: &mut Vec<Effect>) {
        let process = self.processes.get_mut(&from);
        if let Some(watched) = process.and_then(|p| p.watches.remove(&reference)) {
            self.unwatch(from, &watched, &reference, effects);
        }
    }

    /// Takes a monitor off at its target.
    fn unwatch(
        &mut self,
        from: Local,
        watched: &Watched,
        reference: &Reference,
        effects: &mut Vec<Effect>,
    ) {
        if watched.node == self.config.own.node {
            if let Some(found) = self.target(&watched.target)
                && let Some(found) = self.processes.get_mut(&found)
            {
                found.watchers.remove(reference);
            }
        } else if self.peers.contains_key(&watched.node) {
            let control = Control::Demonitor {
                from: self.pid(from),
                target: watched.target.clone(),
                reference: reference.clone(),
            };
            effects.push(Effect::Send {
                node: watched.node.clone(),
                process: from,
                signal: signal(control, None),
            });
        }
    }

    fn received(
        &mut self,
        node: &Arc<str>,
        signal: Signal,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Error> {
        let payload = |payload: Option<Term>| payload.unwrap_or_else(|| reason("undefined"));
        let own = |pid: &Pid, operation| {
            let node = pid.node.clone();
            Err(Error::Foreign { operation, node })
        };
        match signal.control {
            Control::Link { from, .. } if from.node != *node => return own(&from, "LINK"),
            Control::Link { from, to } => match self.find(&to) {
                Some(local) => {
                    let process = self.processes.get_mut(&local);
                    // Already linked, or being unlinked: then the peer will hear of that.
                    if let Some(process) = process
                        && !process.links.contains_key(&from)
                    {
                        process.links.insert(from.clone(), Link::Active);
                        self.relation_new(&from);
                        return self.check_relations(node);
                    }
                }
                None => {
                    let control = Control::Exit {
                        from: to.clone(),
                        to: from.clone(),
                    };
                    let why = reason("noproc");
                    effects.push(self.send(&from, Local::from(&to), control, Some(why)));
                }
            },
            Control::UnlinkId { from, .. } if from.node != *node => {
                return own(&from, "UNLINK_ID");
            }
            Control::UnlinkId { id, from, to } => {
                let local = Local::from(&to);
                self.unlinked(local, &from);
                let control = Control::UnlinkIdAck {
                    id,
                    from: to,
                    to: from.clone(),
                };
                effects.push(self.send(&from, local, control, None));
            }
            Control::Unlink { from, to } => self.unlinked(Local::from(&to), &from),
            Control::UnlinkIdAck { id, from, to } => {
                if let Some(process) = self.processes.get_mut(&Local::from(&to))
                    && process.links.get(&from) == Some(&Link::Unlinking(id))
                {
                    process.links.remove(&from);
                    self.relation_gone(&from);
                }
            }
            Control::Exit { from, .. } if from.node != *node => return own(&from, "EXIT"),
            Control::Exit { from, to } => {
                if let Some(local) = self.find(&to) {
                    self.exit_linked(&from, local, payload(signal.payload), effects);
                }
            }
            Control::Exit2 { from, .. } if from.node != *node => return own(&from, "EXIT2"),
            Control::Exit2 { from, to } => {
                if let Some(local) = self.find(&to) {
                    self.exit_asked(&from, local, payload(signal.payload), effects);
                }
            }
            Control::AltactSend {
                exit: true,
                from,
                to,
                ..
            } => {
                if from.node != *node {
                    return own(&from, "ALTACT_SIG_SEND");
                }
                if let Some(local) = self.target(&to) {
                    self.exit_asked(&from, local, payload(signal.payload), effects);
                }
            }
            Control::Monitor { from, .. } if from.node != *node => return own(&from, "MONITOR_P"),
            Control::Monitor {
                from,
                target,
                reference,
            } => match self.target(&target) {
                Some(local) => {
                    let watcher = Watcher {
                        pid: from.clone(),
                        target,
                    };
                    let process = self.processes.get_mut(&local);
                    let before = process.and_then(|p| p.watchers.insert(reference, watcher));
                    if before.is_none() {
                        self.relation_new(&from);
                        return self.check_relations(node);
                    }
                }
                None => {
                    let process = match &target {
                        Target::Pid(pid) => Local::from(pid),
                        _ => Local { id: 0, serial: 0 },
                    };
                    let control = Control::MonitorExit {
                        from: target,
                        to: from.clone(),
                        reference,
                    };
                    let why = reason("noproc");
                    effects.push(self.send(&from, process, control, Some(why)));
                }
            },
            Control::Demonitor {
                from,
                target,
                reference,
            } => {
                let process = self.target(&target);
                let process = process.and_then(|local| self.processes.get_mut(&local));
                if let Some(process) = process
                    && process
                        .watchers
                        .get(&reference)
                        .is_some_and(|w| w.pid == from)
                {
                    process.watchers.remove(&reference);
                    self.relation_gone(&from);
                }
            }
            Control::MonitorExit { to, reference, .. } => {
                if let Some(local) = self.find(&to) {
                    // Only of the node that is being watched.
                    let watches = self.processes.get(&local).map(|p| &p.watches);
                    if watches
                        .and_then(|w| w.get(&reference))
                        .is_some_and(|w| w.node == *node)
                    {
                        let why = payload(signal.payload);
                        self.notify_down(local, node.clone(), reference, &why, effects);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn unlinked(&mut self, local: Local, from: &Pid) {
        if let Some(process) = self.processes.get_mut(&local)
            && process.links.get(from) == Some(&Link::Active)
        {
            process.links.remove(from);
            self.relation_gone(from);
        }
    }

    fn relation_new(&mut self, remote: &Pid) {
        if let Some(peer) = self.peers.get_mut(&remote.node) {
            peer.relations += 1;
        }
    }

    fn relation_gone(&mut self, remote: &Pid) {
        if let Some(peer) = self.peers.get_mut(&remote.node) {
            peer.relations = peer.relations.saturating_sub(1);
        }
    }

    fn check_relations(&self, node: &str) -> Result<(), Error> {
        let limit = self.config.max_peer_relations;
        match self.peers.get(node) {
            Some(peer) if peer.relations > limit => Err(Error::TooMany(limit)),
            _ => Ok(()),
        }
    }

    fn down(&mut self, node: &Arc<str>, effects: &mut Vec<Effect>) {
        if self.peers.remove(node).is_none() {
            return;
        }
        let why = reason("noconnection");
        let mut locals: Vec<Local> = self.processes.keys().copied().collect();
        // For the same effects in every run.
        locals.sort_unstable();
        for local in locals {
            let Some(process) = self.processes.get_mut(&local) else {
                continue;
            };
            process
                .watchers
                .retain(|_, watcher| watcher.pid.node != *node);
            let lost = |watched: &Watched| watched.node == *node;
            let fired = process.watches.iter().filter(|(_, w)| lost(w));
            let fired: Vec<Reference> = fired.map(|(reference, _)| reference.clone()).collect();
            let links = process.links.iter();
            let broken = links.filter(|(pid, _)| pid.node == *node);
            let broken: Vec<(Pid, Link)> = broken.map(|(pid, link)| (pid.clone(), *link)).collect();
            for (pid, link) in &broken {
                if *link != Link::Active {
                    process.links.remove(pid);
                }
            }
            for reference in fired {
                self.notify_down(local, node.clone(), reference, &why, effects);
            }
            for (pid, link) in broken {
                if link == Link::Active {
                    self.exit_linked(&pid, local, why.clone(), effects);
                }
            }
        }
    }
}

/// An atom as a reason.
fn reason(text: &str) -> Term {
    let atom = Value::atom(text).encode();
    atom.expect("a short atom is a term")
}

fn is_atom(term: &Term, text: &str) -> bool {
    // Nothing that is longer can be a short atom.
    term.len() < 16 && matches!(term.decode(), Value::Atom(atom) if atom.as_str() == text)
}
