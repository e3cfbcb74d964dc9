//! Control messages from the bytes of a packet.
//!
//! The small and frequent ones are read without a value in between. What `erts_net_message` in
//! `dist.c` demands of each tuple is demanded here: its size, and the types of its elements. That
//! a pid belongs to the node at the other end is for the receiver of the signal to check.

use super::fields::{Fault, Fields};
use super::operation::{self as op, altact};
use super::{Control, DistError, Target};
use crate::wire::term::{Term, Value};

/// A control message and what its tuple holds besides.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) control: Control,
    pub(super) trace: Option<Value>,
    /// The reason of an exit, if it stands in the tuple.
    pub(super) reason: Option<Term>,
    /// Its name.
    pub(super) name: &'static str,
    pub(super) follows: Follows,
}

/// What comes after the tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follows {
    Payload,
    Nothing,
    /// Nobody knows what, and nobody cares.
    Anything,
}

/// Reads the control tuple.
pub(super) fn read(fields: &mut Fields<'_>) -> Result<Head, DistError> {
    let first = fields.tuple().and_then(|arity| {
        if arity == 0 {
            return Err(Fault::Wrong("it is an empty tuple"));
        }
        Ok((arity, fields.operation()?))
    });
    let (arity, operation) = first.map_err(|fault| refused("(its operation)", fault))?;
    let name = op::name(operation);
    elements(fields, operation, arity - 1)
        .map(|head| Head { name, ..head })
        .map_err(|fault| refused(name, fault))
}

fn refused(operation: &'static str, fault: Fault) -> DistError {
    match fault {
        Fault::Wrong(wrong) => DistError::Control { operation, wrong },
        Fault::Term(source) => DistError::Term { operation, source },
    }
}

fn elements(fields: &mut Fields<'_>, operation: i64, count: u32) -> Result<Head, Fault> {
    let mut trace = None;
    let mut reason = None;
    let mut follows = Follows::Nothing;
    let expect = |wanted: u32| {
        if count == wanted {
            Ok(())
        } else {
            Err(Fault::Wrong("its tuple has another number of elements"))
        }
    };
    let control = match u8::try_from(operation).unwrap_or_default() {
        op::LINK => {
            expect(2)?;
            Control::Link {
                from: fields.pid()?,
                to: fields.pid()?,
            }
        }
        number @ (op::SEND | op::SEND_TT | op::SEND_SENDER | op::SEND_SENDER_TT) => {
            let traced = matches!(number, op::SEND_TT | op::SEND_SENDER_TT);
            expect(2 + u32::from(traced))?;
            follows = Follows::Payload;
            let from = if matches!(number, op::SEND_SENDER | op::SEND_SENDER_TT) {
                Some(fields.pid()?)
            } else {
                // The cookie of old, an empty atom.
                fields.skip()?;
                None
            };
            let to = fields.pid()?;
            trace = token(fields, traced)?;
            Control::Send { from, to }
        }
        number @ (op::EXIT | op::EXIT_TT | op::EXIT2 | op::EXIT2_TT) => {
            let traced = matches!(number, op::EXIT_TT | op::EXIT2_TT);
            expect(3 + u32::from(traced))?;
            let (from, to) = (fields.pid()?, fields.pid()?);
            trace = token(fields, traced)?;
            reason = Some(fields.term()?);
            exit(matches!(number, op::EXIT | op::EXIT_TT), from, to)
        }
        number @ (op::PAYLOAD_EXIT
        | op::PAYLOAD_EXIT_TT
        | op::PAYLOAD_EXIT2
        | op::PAYLOAD_EXIT2_TT) => {
            let traced = matches!(number, op::PAYLOAD_EXIT_TT | op::PAYLOAD_EXIT2_TT);
            expect(2 + u32::from(traced))?;
            follows = Follows::Payload;
            let (from, to) = (fields.pid()?, fields.pid()?);
            trace = token(fields, traced)?;
            let linked = matches!(number, op::PAYLOAD_EXIT | op::PAYLOAD_EXIT_TT);
            exit(linked, from, to)
        }
        op::UNLINK => {
            expect(2)?;
            Control::Unlink {
                from: fields.pid()?,
                to: fields.pid()?,
            }
        }
        number @ (op::REG_SEND | op::REG_SEND_TT) => {
            let traced = number == op::REG_SEND_TT;
            expect(3 + u32::from(traced))?;
            follows = Follows::Payload;
            let from = fields.pid()?;
            fields.skip()?;
            let to = fields.atom()?;
            trace = token(fields, traced)?;
            Control::RegSend { from, to }
        }
        op::GROUP_LEADER => {
            expect(2)?;
            Control::GroupLeader {
                from: fields.pid()?,
                to: fields.pid()?,
            }
        }
        number @ (op::MONITOR_P | op::DEMONITOR_P) => {
            expect(3)?;
            let from = fields.pid()?;
            let target = fields.target()?;
            let reference = fields.reference()?;
            if number == op::MONITOR_P {
                Control::Monitor {
                    from,
                    target,
                    reference,
                }
            } else {
                Control::Demonitor {
                    from,
                    target,
                    reference,
                }
            }
        }
        number @ (op::MONITOR_P_EXIT | op::PAYLOAD_MONITOR_P_EXIT) => {
            let inline = number == op::MONITOR_P_EXIT;
            expect(3 + u32::from(inline))?;
            let control = Control::MonitorExit {
                from: fields.target()?,
                to: fields.pid()?,
                reference: fields.reference()?,
            };
            if inline {
                reason = Some(fields.term()?);
            } else {
                follows = Follows::Payload;
            }
            control
        }
        number @ (op::SPAWN_REQUEST | op::SPAWN_REQUEST_TT) => {
            let traced = number == op::SPAWN_REQUEST_TT;
            expect(5 + u32::from(traced))?;
            follows = Follows::Payload;
            let control = Control::SpawnRequest {
                id: fields.reference()?,
                from: fields.pid()?,
                group_leader: fields.pid()?,
                function: fields.function()?,
                options: fields.list()?,
            };
            trace = token(fields, traced)?;
            control
        }
        number @ (op::SPAWN_REPLY | op::SPAWN_REPLY_TT) => {
            let traced = number == op::SPAWN_REPLY_TT;
            expect(4 + u32::from(traced))?;
            let control = Control::SpawnReply {
                id: fields.reference()?,
                to: fields.pid()?,
                flags: fields.number()?,
                result: fields.result()?,
            };
            trace = token(fields, traced)?;
            control
        }
        number @ (op::ALIAS_SEND | op::ALIAS_SEND_TT) => {
            let traced = number == op::ALIAS_SEND_TT;
            expect(2 + u32::from(traced))?;
            follows = Follows::Payload;
            let control = Control::AliasSend {
                from: fields.pid()?,
                alias: fields.reference()?,
            };
            trace = token(fields, traced)?;
            control
        }
        number @ (op::UNLINK_ID | op::UNLINK_ID_ACK) => {
            expect(3)?;
            let id = fields.unlink_id()?;
            let (from, to) = (fields.pid()?, fields.pid()?);
            if number == op::UNLINK_ID {
                Control::UnlinkId { id, from, to }
            } else {
                Control::UnlinkIdAck { id, from, to }
            }
        }
        op::ALTACT_SIG_SEND => {
            follows = Follows::Payload;
            let (control, token) = altered(fields, count)?;
            trace = token;
            control
        }
        _ => {
            follows = Follows::Anything;
            Control::Unknown { operation }
        }
    };
    Ok(Head {
        control,
        trace,
        reason,
        name: "",
        follows,
    })
}

fn exit(linked: bool, from: crate::wire::term::Pid, to: crate::wire::term::Pid) -> Control {
    if linked {
        Control::Exit { from, to }
    } else {
        Control::Exit2 { from, to }
    }
}

fn token(fields: &mut Fields<'_>, traced: bool) -> Result<Option<Value>, Fault> {
    traced.then(|| fields.value()).transpose()
}

/// `{37, Flags, From, To}` or `{37, Flags, From, To, Token}`, and later perhaps more elements.
fn altered(fields: &mut Fields<'_>, count: u32) -> Result<(Control, Option<Value>), Fault> {
    if count < 3 {
        return Err(Fault::Wrong("its tuple has too few elements"));
    }
    let flags = fields.low_flags()?;
    let from = fields.pid()?;
    let to = match (flags & altact::ALIAS != 0, flags & altact::NAME != 0) {
        (false, false) => Target::Pid(fields.pid()?),
        (false, true) => Target::Name(fields.atom()?),
        (true, false) => Target::Alias(fields.reference()?),
        (true, true) => return Err(Fault::Wrong("its target is both an alias and a name")),
    };
    let mut known = 3;
    let mut trace = None;
    if flags & altact::TOKEN != 0 {
        if count < 4 {
            return Err(Fault::Wrong("its trace token is missing"));
        }
        known = 4;
        trace = Some(fields.value()?);
    }
    for _ in known..count {
        fields.skip()?;
    }
    let priority = flags & altact::PRIORITY != 0;
    let exit = flags & altact::EXIT != 0;
    let control = match to {
        Target::Alias(alias) if !priority && !exit => Control::AliasSend { from, alias },
        to => Control::AltactSend {
            priority,
            exit,
            from,
            to,
        },
    };
    Ok((control, trace))
}
