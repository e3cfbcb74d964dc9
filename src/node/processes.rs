//! What processes do to each other: messages, links, monitors, exits, and the answers to calls.
//!
//! One lock orders everything that concerns links and monitors, so that the order in which a
//! process does things is the order in which others hear of them. Messages don't take it.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;

use crate::distribution::link::Link;
use crate::node::mailbox::Message;
use crate::node::registry::Registry;
use crate::signals::{self, Effect, Event, Local, Notice};
use crate::wire::dist::{Control, Signal};
use crate::wire::term::{Reference, Term, Value, tag};

/// How a call to another process has ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The answer as it came.
    Reply(Term),
    /// The process has ended, or its node is lost, for this reason. For a spawned process the reason may be
    /// its result.
    Down(Term),
    /// The process could not be spawned.
    NotSpawned(Value),
}

struct Call {
    node: Arc<str>,
    done: oneshot::Sender<Outcome>,
}

/// The calls that wait for their answers. Answers bypass all mailboxes.
#[derive(Default)]
pub(crate) struct Calls(Mutex<HashMap<Reference, Call>>);

impl Calls {
    pub(crate) fn begin(&self, reference: Reference, node: Arc<str>) -> oneshot::Receiver<Outcome> {
        let (done, outcome) = oneshot::channel();
        self.0.lock().insert(reference, Call { node, done });
        outcome
    }

    /// Gives up a call; false if it has ended.
    pub(crate) fn abandon(&self, reference: &Reference) -> bool {
        self.0.lock().remove(reference).is_some()
    }

    /// Ends a call; gives the outcome back if there is no such call.
    pub(crate) fn end(&self, reference: &Reference, outcome: Outcome) -> Result<(), Outcome> {
        match self.0.lock().remove(reference) {
            Some(call) => {
                // The caller may just have given up.
                let _ = call.done.send(outcome);
                Ok(())
            }
            None => Err(outcome),
        }
    }

    fn lost(&self, node: &str) {
        let mut calls = self.0.lock();
        let lost: Vec<Reference> = calls
            .iter()
            .filter(|(_, call)| *call.node == *node)
            .map(|(reference, _)| reference.clone())
            .collect();
        for reference in lost {
            if let Some(call) = calls.remove(&reference) {
                let _ = call.done.send(Outcome::Down(atom("noconnection")));
            }
        }
    }
}

/// An atom as a term.
pub(crate) fn atom(text: &'static str) -> Term {
    let atom = Value::atom(text).encode();
    atom.expect("a short atom is a term")
}

/// The lane in which all that a process sends stays in order.
pub(crate) fn lane(process: Local) -> u64 {
    u64::from(process.serial) << 32 | u64::from(process.id)
}

/// The processes of a node and its links with stock nodes.
pub(crate) struct Processes {
    pub(crate) registry: Arc<Registry>,
    pub(crate) calls: Calls,
    signals: Mutex<signals::State>,
    links: RwLock<HashMap<Arc<str>, Arc<Link>>>,
}

impl Processes {
    /// `max_peer_relations`: see [`signals::Config`].
    pub(crate) fn new(registry: Arc<Registry>, max_peer_relations: usize) -> Self {
        let config = signals::Config {
            own: registry.identity.clone(),
            max_peer_relations,
        };
        Self {
            registry,
            calls: Calls::default(),
            signals: Mutex::new(signals::State::new(config)),
            links: RwLock::default(),
        }
    }

    /// The link with a node, if there is one.
    pub(crate) fn link(&self, node: &str) -> Option<Arc<Link>> {
        self.links.read().get(node).cloned()
    }

    /// All links.
    pub(crate) fn links(&self) -> Vec<Arc<Link>> {
        self.links.read().values().cloned().collect()
    }

    /// Something has happened to a process of this node.
    pub(crate) fn happened(&self, event: Event) {
        // Only what peers send can be wrong.
        let _ = self.handle(event);
    }

    /// A peer has sent a signal that concerns links, monitors or exits.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn received(&self, link: &Link, signal: Signal) -> Result<(), signals::Error> {
        let signal = match self.answer_call(signal) {
            Some(signal) => signal,
            None => return Ok(()),
        };
        let node = link.name.clone();
        self.handle(Event::Received { node, signal })
    }

    /// Ends the call that a message to a pid answers, or gives the message back. Most servers answer at the alias
    /// in the call's tag; `net_kernel` sends the tag and the answer to the caller
    /// (`net_kernel.erl`, `async_gen_server_reply`).
    pub(crate) fn answered(&self, term: Term) -> Option<Term> {
        // `{[alias | Ref], Answer}`, and nearly no other message begins so.
        let like = [tag::SMALL_TUPLE, 2, tag::LIST, 0, 0, 0, 1];
        if !term
            .skeleton()
            .get(1..)
            .is_some_and(|body| body.starts_with(&like))
        {
            return Some(term);
        }
        let first = term
            .elements()
            .and_then(|elements| Some(elements.first()?.decode()));
        let Some(Value::ImproperList(head, alias)) = first else {
            return Some(term);
        };
        let Value::Reference(alias) = *alias else {
            return Some(term);
        };
        if !matches!(&head[..], [word] if word.is_atom("alias")) {
            return Some(term);
        }
        match self.calls.end(&alias, Outcome::Reply(term)) {
            Err(Outcome::Reply(term)) => Some(term),
            _ => None,
        }
    }

    /// Ends the call that a signal answers.
    fn answer_call(&self, signal: Signal) -> Option<Signal> {
        let Signal {
            control, payload, ..
        } = signal;
        let back = |control, payload| Signal {
            control,
            trace: None,
            payload,
        };
        match control {
            Control::MonitorExit { ref reference, .. } => {
                let reason = payload.unwrap_or_else(|| atom("undefined"));
                match self.calls.end(reference, Outcome::Down(reason)) {
                    Err(Outcome::Down(reason)) => Some(back(control, Some(reason))),
                    _ => None,
                }
            }
            Control::SpawnReply {
                ref id, ref result, ..
            } => {
                if let Err(reason) = result {
                    let reason = Value::Atom(reason.clone());
                    let _ = self.calls.end(id, Outcome::NotSpawned(reason));
                }
                None
            }
            control => Some(back(control, payload)),
        }
    }

    pub(crate) fn up(&self, link: &Arc<Link>) {
        let mut signals = self.signals.lock();
        self.links.write().insert(link.name.clone(), link.clone());
        let event = Event::Up {
            node: link.name.clone(),
            flags: link.flags,
        };
        let _ = self.carry_out(&mut signals, event);
    }

    /// A link has ended, and all that it has brought is in the mailboxes.
    pub(crate) fn down(&self, link: &Arc<Link>) {
        let mut signals = self.signals.lock();
        let mut links = self.links.write();
        if links
            .get(&link.name)
            .is_some_and(|up| Arc::ptr_eq(up, link))
        {
            links.remove(&link.name);
        }
        drop(links);
        let node = link.name.clone();
        let _ = self.carry_out(&mut signals, Event::Down { node });
        drop(signals);
        self.calls.lost(&link.name);
    }

    /// Waits until what has begun to happen is on its way to all whom it concerns.
    pub(crate) fn settle(&self) {
        drop(self.signals.lock());
    }

    fn handle(&self, event: Event) -> Result<(), signals::Error> {
        self.carry_out(&mut self.signals.lock(), event)
    }

    /// The lock is held until all effects are on their way: their order is what counts.
    fn carry_out(&self, signals: &mut signals::State, event: Event) -> Result<(), signals::Error> {
        let mut effects = Vec::new();
        let outcome = signals.handle(event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Send {
                    node,
                    process,
                    signal,
                } => {
                    if let Some(link) = self.link(&node) {
                        link.signal(lane(process), signal);
                    }
                }
                Effect::Tell { process, notice } => {
                    if let Notice::Down {
                        reference, reason, ..
                    } = &notice
                    {
                        let outcome = Outcome::Down(reason.clone());
                        if self.calls.end(reference, outcome).is_ok() {
                            continue;
                        }
                    }
                    if let Some(slot) = self.registry.find_local(process) {
                        slot.force(self.notice(notice));
                    }
                }
                Effect::Kill { process, reason } => {
                    if let Some(slot) = self.registry.find_local(process) {
                        self.registry.close(process);
                        slot.kill(reason);
                    }
                }
            }
        }
        outcome
    }

    fn notice(&self, notice: Notice) -> Message {
        let from = match &notice {
            Notice::Down { node, .. } => node.clone(),
            Notice::Exit { from, .. } => from.node.clone(),
        };
        Message {
            from,
            session: None,
            sender: None,
            term: notice.to_term(),
            notice: Some(Box::new(notice)),
        }
    }
}
