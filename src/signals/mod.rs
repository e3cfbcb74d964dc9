//! Links, monitors and exits of processes, on one node and between nodes. Sans-I/O.
//!
//! Erlang's processes watch each other. A *monitor* tells one process once that another has ended.
//! A *link* ends both: when one ends, the other gets an exit signal, which ends it as well unless
//! the reason is `normal` or it *traps* exits and takes them as messages (Erlang reference
//! manual, "Processes"). Between nodes each of these is a [`Control`]
//! message, and a lost connection counts as the end of everything at its other side, with the
//! reason `noconnection`.
//!
//! Both ends of a link may unlink and link again at the same time, so an unlink carries a number
//! and is acknowledged; until then the link is off but not forgotten, and a `LINK` that crossed
//! the unlink is ignored (`erl_dist_protocol`, "Link Protocol").
//!
//! [`State`] holds what the processes of one node know of each other and of remote ones. Its host
//! feeds it what local processes do and what peers send, in order, and carries out the effects in
//! order; that keeps the order of signals between two processes. The reply to a spawn request
//! therefore goes out before anything the new process does.

use std::sync::Arc;

use crate::wire::dist::{Control, Signal, Target};
use crate::wire::flags::Flags;
use crate::wire::identity::Identity;
use crate::wire::term::{Pid, Reference, Term, Value};

mod state;
#[cfg(test)]
mod tests;

pub use state::State;

/// Whose processes these are.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node that they live on.
    pub own: Identity,
    /// Links and monitors that one peer may have at this node's processes
    /// ([`limits::MAX_PEER_RELATIONS`](crate::limits::MAX_PEER_RELATIONS)).
    pub max_peer_relations: usize,
}

/// A process of this node, by the numbers of its pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Local {
    /// Number of the process.
    pub id: u32,
    /// Tells users of one number apart.
    pub serial: u32,
}

impl From<&Pid> for Local {
    fn from(pid: &Pid) -> Self {
        Self {
            id: pid.id,
            serial: pid.serial,
        }
    }
}

/// A spawn request of a peer that is being granted.
#[derive(Clone, Debug)]
pub struct Request {
    /// The process that asks.
    pub from: Pid,
    /// The request, and the monitor if there is one.
    pub id: Reference,
    /// The new process is linked to the one that asks.
    pub link: bool,
    /// The one that asks monitors the new process.
    pub monitor: bool,
    /// Whether it wants to hear of success.
    pub reply: bool,
}

/// What happens to processes.
#[derive(Clone, Debug)]
pub enum Event {
    /// A process begins.
    Spawned {
        /// The process.
        process: Local,
        /// Its registered name.
        name: Option<Arc<str>>,
        /// The request that it was made for.
        request: Option<Request>,
    },
    /// A process has a name now, or none.
    Named {
        /// The process.
        process: Local,
        /// Its registered name.
        name: Option<Arc<str>>,
    },
    /// A process has ended by itself.
    Ended {
        /// The process.
        process: Local,
        /// Why.
        reason: Term,
    },
    /// A process begins or ceases to take exits as messages.
    Trap {
        /// The process.
        process: Local,
        /// Whether it does.
        on: bool,
    },
    /// A process links.
    Link {
        /// The process.
        from: Local,
        /// The other one, of this node or of a connected one.
        to: Pid,
    },
    /// A process unlinks. Exits of the other one have no effect from now on.
    Unlink {
        /// The process.
        from: Local,
        /// The other one.
        to: Pid,
    },
    /// A process monitors.
    Monitor {
        /// The process.
        from: Local,
        /// Node of the target.
        node: Arc<str>,
        /// What it monitors.
        target: Target,
        /// A reference that was never used before.
        reference: Reference,
    },
    /// A process ends a monitor. No notice of it comes from now on.
    Demonitor {
        /// The process.
        from: Local,
        /// The monitor.
        reference: Reference,
    },
    /// A process asks another one to end, as `exit/2` does.
    Exit {
        /// The process that asks.
        from: Local,
        /// The one that is to end.
        to: Pid,
        /// The reason; `kill` cannot be trapped.
        reason: Term,
    },
    /// A peer has sent a signal that concerns links, monitors or exits. Others are ignored.
    Received {
        /// The peer.
        node: Arc<str>,
        /// The signal.
        signal: Signal,
    },
    /// A peer is connected.
    Up {
        /// The peer.
        node: Arc<str>,
        /// What both ends offer.
        flags: Flags,
    },
    /// A peer is not connected any more, and all that it had sent has been delivered.
    Down {
        /// The peer.
        node: Arc<str>,
    },
}

/// What a process hears of others.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// A monitored process has ended, was never there (`noproc`), or cannot be seen any more
    /// (`noconnection`).
    Down {
        /// The monitor. It is gone.
        reference: Reference,
        /// Node of the process.
        node: Arc<str>,
        /// The process, called as it was when it was monitored.
        process: Target,
        /// Why it has ended.
        reason: Term,
    },
    /// A linked process has ended, or somebody has asked this one to; it traps exits.
    Exit {
        /// The other process.
        from: Pid,
        /// Why it has ended.
        reason: Term,
    },
}

impl Notice {
    /// The message that an Erlang process would get: `{'DOWN', Ref, process, Process, Reason}` or
    /// `{'EXIT', Pid, Reason}`. A reason that leaves no room for that is replaced by the atom
    /// `too_large`; it is whole in the notice.
    pub fn to_term(&self) -> Term {
        let (head, reason) = match self {
            Self::Down {
                reference,
                node,
                process,
                reason,
            } => {
                let process = match process {
                    Target::Pid(pid) => pid.clone().into(),
                    Target::Alias(alias) => alias.clone().into(),
                    Target::Name(name) => {
                        Value::tuple([Value::Atom(name.clone()), Value::atom(node)])
                    }
                };
                let reference = reference.clone().into();
                let head = vec![
                    Value::atom("DOWN"),
                    reference,
                    Value::atom("process"),
                    process,
                ];
                (head, reason)
            }
            Self::Exit { from, reason } => (vec![Value::atom("EXIT"), from.clone().into()], reason),
        };
        let terms: Result<Vec<Term>, _> = head.iter().map(Value::encode).collect();
        let whole = terms.and_then(|mut terms| {
            terms.push(reason.clone());
            Term::tuple(&terms)
        });
        whole.unwrap_or_else(|_| {
            let mut head = head;
            head.push(Value::atom("too_large"));
            let tuple = Value::tuple(head).encode();
            tuple.unwrap_or_else(|_| reason.clone())
        })
    }
}

/// What the host is to do, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send to a connected peer, in the order of all that this process sends.
    Send {
        /// The peer.
        node: Arc<str>,
        /// The process in whose order the signal goes.
        process: Local,
        /// The signal.
        signal: Signal,
    },
    /// Put a notice into a process's mailbox.
    Tell {
        /// The process.
        process: Local,
        /// The notice.
        notice: Notice,
    },
    /// End a process. It is forgotten already, and whoever watched it is told by further effects.
    Kill {
        /// The process.
        process: Local,
        /// Why.
        reason: Term,
    },
}

/// What is wrong with what a peer has sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It speaks for a process of another node.
    #[error("{operation} speaks for a process of {node}, which is not the sender's node")]
    Foreign {
        /// The operation.
        operation: &'static str,
        /// The node that it speaks for.
        node: Arc<str>,
    },
    /// It has more links and monitors here than a peer may have.
    #[error("more than {0} links and monitors of one peer")]
    TooMany(usize),
}

fn signal(control: Control, payload: Option<Term>) -> Signal {
    Signal {
        control,
        trace: None,
        payload,
    }
}
