//! What a link with a stock node brings, and where it goes.
//!
//! A message for a full mailbox is kept here, in order, so that it does not hold up what comes for
//! others. What is kept is bounded in bytes over all mailboxes; when that is spent the link is not
//! read. Signals that concern links, monitors and exits, and answers to calls, never wait. A
//! notice must not overtake messages of the process that it tells of, so what is kept for
//! a mailbox goes in before its notices, whether there is room or not.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use crate::distribution::link::{Inbound, Link};
use crate::limits;
use crate::node::api::Inner;
use crate::node::functions;
use crate::node::mailbox::Message;
use crate::node::processes::Outcome;
use crate::node::registry::AliasKind;
use crate::node::services;
use crate::node::slot::{Refused, Slot, Stalled, cost_of};
use crate::signals::Local;
use crate::wire::dist::{Control, Signal, Target};
use crate::wire::frame::Dest;
use crate::wire::term::{Atom, Pid, Reference, Term};

/// Messages for one mailbox.
struct Kept {
    slot: Arc<Slot>,
    messages: VecDeque<Message>,
}

/// The receiving half of a link, above the codec.
pub(crate) struct Receiver {
    node: Weak<Inner>,
    link: Arc<Link>,
    kept: HashMap<Local, Kept>,
    bytes: u64,
    unknown: bool,
}

impl Receiver {
    pub(crate) fn new(node: Weak<Inner>, link: Arc<Link>) -> Self {
        Self {
            node,
            link,
            kept: HashMap::new(),
            bytes: 0,
            unknown: false,
        }
    }

    fn message(&self, sender: Option<Pid>, term: Term) -> Message {
        Message {
            from: self.link.name.clone(),
            session: None,
            sender,
            term,
            notice: None,
        }
    }

    fn put(&mut self, slot: Arc<Slot>, message: Message, urgent: bool) {
        let bytes = cost_of(&message.term);
        if let Some(kept) = self.kept.get_mut(&slot.process) {
            kept.messages.push_back(message);
            self.bytes += bytes;
            return;
        }
        let stalled = Stalled::Link(self.link.relief.clone());
        match slot.admit(message.term.len(), 0, Some(stalled)) {
            Ok(()) if urgent => slot.put_urgent(message),
            Ok(()) => slot.put(message),
            Err(Refused::Closed) => {}
            Err(Refused::Full) => {
                self.bytes += bytes;
                let process = slot.process;
                let messages = VecDeque::from([message]);
                self.kept.insert(process, Kept { slot, messages });
            }
        }
    }

    /// Delivers what is kept for a process, whether there is room or not.
    fn flush(&mut self, process: Local) {
        if let Some(kept) = self.kept.remove(&process) {
            for message in kept.messages {
                self.bytes -= cost_of(&message.term);
                kept.slot.force(message);
            }
        }
    }

    fn for_pid(&mut self, inner: &Inner, to: &Pid, from: Option<Pid>, term: Term) {
        let Some(term) = inner.processes.answered(term) else {
            return;
        };
        if let Some(slot) = inner.processes.registry.find(to.into()) {
            let message = self.message(from, term);
            self.put(slot, message, false);
        }
    }

    fn for_name(&mut self, inner: &Arc<Inner>, to: &Atom, from: Pid, term: Term) {
        let name = to.as_str();
        if services::answer(inner, name, &term) || !inner.allow.takes_messages(name) {
            return;
        }
        if let Some(slot) = inner.processes.registry.find(Dest::Name(name)) {
            let message = self.message(Some(from), term);
            self.put(slot, message, false);
        }
    }

    /// A message to an alias: an answer to a call, or one for a process that has made the alias.
    fn for_alias(&mut self, inner: &Inner, alias: &Reference, from: Pid, term: Term, urgent: bool) {
        let term = match inner.processes.calls.end(alias, Outcome::Reply(term)) {
            Err(Outcome::Reply(term)) => term,
            _ => return,
        };
        if let Some((slot, kind)) = inner.processes.registry.find_alias(alias) {
            let message = self.message(Some(from), term);
            self.put(slot, message, urgent && kind == AliasKind::Priority);
        }
    }
}

impl Inbound for Receiver {
    fn deliver(&mut self, signal: Signal) -> Result<(), String> {
        let Some(inner) = self.node.upgrade() else {
            return Ok(());
        };
        let name = |operation: &str| format!("{operation} has no payload");
        match signal.control {
            Control::Send { from, to } => {
                let term = signal.payload.ok_or_else(|| name("SEND"))?;
                self.for_pid(&inner, &to, from, term);
            }
            Control::RegSend { from, to } => {
                let term = signal.payload.ok_or_else(|| name("REG_SEND"))?;
                self.for_name(&inner, &to, from, term);
            }
            Control::AliasSend { from, alias } => {
                let term = signal.payload.ok_or_else(|| name("ALIAS_SEND"))?;
                self.for_alias(&inner, &alias, from, term, false);
            }
            Control::AltactSend {
                exit: false,
                priority,
                from,
                to,
            } => {
                let term = signal.payload.ok_or_else(|| name("ALTACT_SIG_SEND"))?;
                match to {
                    Target::Alias(alias) => {
                        self.for_alias(&inner, &alias, from, term, priority);
                    }
                    Target::Name(name) => self.for_name(&inner, &name, from, term),
                    Target::Pid(pid) => self.for_pid(&inner, &pid, Some(from), term),
                }
            }
            // An exit signal to an alias is one to the process that has made it.
            Control::AltactSend {
                exit: true,
                from,
                to: Target::Alias(alias),
                ..
            } => {
                if let Some((slot, _)) = inner.processes.registry.find_alias(&alias) {
                    let to = inner.processes.registry.pid(slot.process);
                    let control = Control::Exit2 { from, to };
                    return self.deliver(Signal { control, ..signal });
                }
            }
            Control::SpawnRequest { .. } => functions::requested(&inner, &self.link, signal),
            Control::GroupLeader { from, to } => {
                if let Some(slot) = inner.processes.registry.find_local(Local::from(&to)) {
                    slot.set_group_leader(from);
                }
            }
            Control::Unknown { operation } => {
                if !std::mem::replace(&mut self.unknown, true) {
                    tracing::warn!(
                        peer = %self.link.name, operation,
                        "unknown distribution operation ignored; it and others are not told of again"
                    );
                }
            }
            ref control => {
                let to = match control {
                    Control::Exit { to, .. }
                    | Control::Exit2 { to, .. }
                    | Control::AltactSend {
                        to: Target::Pid(to),
                        ..
                    }
                    | Control::MonitorExit { to, .. } => Some(Local::from(to)),
                    _ => None,
                };
                if let Some(to) = to {
                    self.flush(to);
                }
                if inner.allow.takes(control) {
                    let outcome = inner.processes.received(&self.link, signal);
                    outcome.map_err(|e| e.to_string())?;
                }
            }
        }
        Ok(())
    }

    fn relieve(&mut self) {
        let link = &self.link;
        let bytes = &mut self.bytes;
        self.kept.retain(|_, kept| {
            while let Some(message) = kept.messages.pop_front() {
                let cost = cost_of(&message.term);
                let stalled = Stalled::Link(link.relief.clone());
                match kept.slot.admit(message.term.len(), 0, Some(stalled)) {
                    Ok(()) => kept.slot.put(message),
                    Err(Refused::Closed) => {}
                    Err(Refused::Full) => {
                        kept.messages.push_front(message);
                        return true;
                    }
                }
                *bytes -= cost;
            }
            false
        });
    }

    fn is_full(&self) -> bool {
        self.bytes >= limits::KEPT_BYTES
    }

    fn is_clear(&self) -> bool {
        self.kept.is_empty()
    }

    fn finish(&mut self) {
        let processes: Vec<Local> = self.kept.keys().copied().collect();
        for process in processes {
            self.flush(process);
        }
        if let Some(inner) = self.node.upgrade() {
            inner.processes.down(&self.link);
        }
    }
}
