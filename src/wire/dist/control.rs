//! What a node tells another: one tuple per signal, and for some a payload.

use crate::wire::term::{Atom, Pid, Reference, Term, Value};

/// A signal as it travels: what is to be done, and the term that goes with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    /// What is to be done.
    pub control: Control,
    /// The token of sequential tracing, if the sender is being traced.
    pub trace: Option<Value>,
    /// The message of sends; the reason of exits and downs, however it travelled; the list of
    /// arguments of spawn requests. The other signals have none.
    pub payload: Option<Term>,
}

/// A process by its pid or, on the node that the signal goes to or comes from, by its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// By pid.
    Pid(Pid),
    /// By registered name.
    Name(Atom),
    /// By alias. Only of priority messages.
    Alias(Reference),
}

/// A function: module, name, number of arguments.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Function {
    /// Its module.
    pub module: Atom,
    /// Its name.
    pub name: Atom,
    /// How many arguments it takes. Spawn requests may claim more than a function can have; that
    /// is for the spawn to fail on, not for the connection.
    pub arity: u32,
}

/// A control message. The numbers are those of `erts/emulator/beam/dist.h`; forms with a trace
/// token have numbers of their own and no variants.
#[derive(Clone, Debug, PartialEq)]
pub enum Control {
    /// `LINK` (1).
    Link {
        /// The process that links.
        from: Pid,
        /// The other one.
        to: Pid,
    },
    /// `SEND` (2) and `SEND_SENDER` (22): a message to a pid.
    Send {
        /// The sender, if the peer tells it.
        from: Option<Pid>,
        /// The receiver.
        to: Pid,
    },
    /// `EXIT` (3) and `PAYLOAD_EXIT` (24): a linked process has ended; the payload is the reason.
    Exit {
        /// The process that has ended.
        from: Pid,
        /// The one linked to it.
        to: Pid,
    },
    /// `UNLINK` (4), of and for peers without `UNLINK_ID`. Never sent to others.
    Unlink {
        /// The process that unlinks.
        from: Pid,
        /// The other one.
        to: Pid,
    },
    /// `REG_SEND` (6): a message to a name.
    RegSend {
        /// The sender.
        from: Pid,
        /// The registered name of the receiver.
        to: Atom,
    },
    /// `GROUP_LEADER` (7).
    GroupLeader {
        /// The new group leader.
        from: Pid,
        /// The process that gets it.
        to: Pid,
    },
    /// `EXIT2` (8) and `PAYLOAD_EXIT2` (26): `exit(To, Reason)`; the payload is the reason.
    Exit2 {
        /// The process that asks.
        from: Pid,
        /// The one that is to end.
        to: Pid,
    },
    /// `MONITOR_P` (19).
    Monitor {
        /// The process that monitors.
        from: Pid,
        /// The one that is monitored.
        target: Target,
        /// The monitor.
        reference: Reference,
    },
    /// `DEMONITOR_P` (20).
    Demonitor {
        /// The process that monitors.
        from: Pid,
        /// The one that is monitored.
        target: Target,
        /// The monitor.
        reference: Reference,
    },
    /// `MONITOR_P_EXIT` (21) and `PAYLOAD_MONITOR_P_EXIT` (28): a monitored process has ended;
    /// the payload is the reason.
    MonitorExit {
        /// The process that has ended, called as it was when it was monitored.
        from: Target,
        /// The process that monitors it.
        to: Pid,
        /// The monitor.
        reference: Reference,
    },
    /// `SPAWN_REQUEST` (29); the payload is the list of arguments.
    SpawnRequest {
        /// The request.
        id: Reference,
        /// The process that asks.
        from: Pid,
        /// The group leader of the new process.
        group_leader: Pid,
        /// What it is to run.
        function: Function,
        /// Options, as a proper list: `link`, `monitor`, `{priority, …}`, …
        options: Vec<Value>,
    },
    /// `SPAWN_REPLY` (31).
    SpawnReply {
        /// The request.
        id: Reference,
        /// The process that has asked.
        to: Pid,
        /// Bit 0: linked; bit 1: monitored.
        flags: u32,
        /// The new process, or why there is none.
        result: Result<Pid, Atom>,
    },
    /// A message to an alias: `ALIAS_SEND` (33), and between nodes of OTP 28 and later
    /// `ALTACT_SIG_SEND` (37) with no flag but that of aliases.
    AliasSend {
        /// The sender.
        from: Pid,
        /// The alias.
        alias: Reference,
    },
    /// `UNLINK_ID` (35).
    UnlinkId {
        /// Chosen by the process that unlinks.
        id: u64,
        /// The process that unlinks.
        from: Pid,
        /// The other one.
        to: Pid,
    },
    /// `UNLINK_ID_ACK` (36).
    UnlinkIdAck {
        /// Of the unlink that is acknowledged.
        id: u64,
        /// The process that acknowledges.
        from: Pid,
        /// The one that has unlinked.
        to: Pid,
    },
    /// `ALTACT_SIG_SEND` (37, since OTP 28): a message or an exit signal that is something that
    /// the older operations can't say, a priority message above all.
    ///
    /// What kind of target it has and whether a token follows are flags in the tuple, too; here
    /// [`Target`] and [`Signal::trace`] say so. Flags that are not known are ignored, as OTP does.
    AltactSend {
        /// Whether it overtakes ordinary signals in the receiver's queue.
        priority: bool,
        /// Whether it is an exit signal, like [`Control::Exit2`], with the reason as its payload;
        /// otherwise a message.
        exit: bool,
        /// The sender.
        from: Pid,
        /// The receiver.
        to: Target,
    },
    /// A number that this code doesn't know, `NODE_LINK` (5) of the oldest nodes among them. It is
    /// logged and survived; whatever came with it is dropped.
    Unknown {
        /// The number.
        operation: i64,
    },
}
