//! Control messages to bytes, without a value in between.
//!
//! Which of several operations says a thing depends on what the peer has offered; the choices
//! are those of the `erts_dsig_send_*` functions in `dist.c`.

use super::cache::SenderCache;
use super::operation::{self as op, altact};
use super::{Control, DistError, Signal, Target};
use crate::limits::MAX_ATOM_CHARS;
use crate::wire::flags::Flags;
use crate::wire::term::tag;
use crate::wire::term::{Pid, Reference, Term, TermError, Value};

/// Writes one control tuple.
pub(super) struct Writer<'a> {
    pub(super) agreed: Flags,
    pub(super) cache: Option<&'a mut SenderCache>,
    pub(super) out: &'a mut Vec<u8>,
}

type Written = Result<(), TermError>;

impl Writer<'_> {
    /// Writes the signal's control tuple and returns the payload that has to follow it.
    pub(super) fn signal<'s>(&mut self, signal: &'s Signal) -> Result<Option<&'s Term>, DistError> {
        let Kind {
            name,
            payload: takes_payload,
            token: has_token,
        } = kind(&signal.control);
        if let Some(flag) = missing(&signal.control, self.agreed) {
            return Err(DistError::NotOffered { signal: name, flag });
        }
        let payload = match (takes_payload, &signal.payload) {
            (true, None) => return Err(unsendable(name, "its payload is missing")),
            (false, Some(_)) => return Err(unsendable(name, "it takes no payload")),
            (_, payload) => payload.as_ref(),
        };
        if let Control::UnlinkId { id: 0, .. } | Control::UnlinkIdAck { id: 0, .. } = signal.control
        {
            return Err(unsendable(name, "its identifier is 0"));
        }
        match &signal.control {
            Control::Unlink { .. } if self.agreed.contains(Flags::UNLINK_ID) => {
                return Err(unsendable(
                    name,
                    "the peer knows unlinks with an identifier",
                ));
            }
            Control::Unknown { .. } => return Err(unsendable(name, "nobody knows its form")),
            Control::Monitor {
                target: Target::Alias(_),
                ..
            }
            | Control::Demonitor {
                target: Target::Alias(_),
                ..
            }
            | Control::MonitorExit {
                from: Target::Alias(_),
                ..
            } => return Err(unsendable(name, "aliases can't be monitored")),
            _ => {}
        }
        let trace = signal.trace.as_ref();
        let trace = trace.filter(|token| has_token && self.understood(token));
        self.control(&signal.control, trace, payload)
            .map_err(|source| DistError::Term {
                operation: name,
                source,
            })
    }

    /// Writes the control tuple of a message, which nothing can be wrong with but its names.
    pub(super) fn message(&mut self, control: &Control) -> Result<(), DistError> {
        let written = self.control(control, None, None);
        written.map(drop).map_err(|source| DistError::Term {
            operation: kind(control).name,
            source,
        })
    }

    /// Whether the peer can take such a trace token: without `BIG_SEQTRACE_LABELS` its label has
    /// to be small on 32-bit machines, too (`can_send_seqtrace_token`).
    fn understood(&self, token: &Value) -> bool {
        const SMALL: std::ops::RangeInclusive<i64> = -(1 << 27)..=(1 << 27) - 1;
        let label = || token.as_tuple()?.get(1)?.as_i64();
        self.agreed.contains(Flags::BIG_SEQTRACE_LABELS)
            || label().is_some_and(|label| SMALL.contains(&label))
    }

    fn control<'s>(
        &mut self,
        control: &Control,
        trace: Option<&Value>,
        payload: Option<&'s Term>,
    ) -> Result<Option<&'s Term>, TermError> {
        let traced = trace.is_some();
        match control {
            Control::Link { from, to } => self.pids(op::LINK, from, to)?,
            Control::Unlink { from, to } => self.pids(op::UNLINK, from, to)?,
            Control::Send { from, to } => match from {
                Some(from) if self.agreed.contains(Flags::SEND_SENDER) => {
                    self.head(2, op::SEND_SENDER, op::SEND_SENDER_TT, traced);
                    self.pid(from)?;
                    self.pid(to)?;
                }
                _ => {
                    self.head(2, op::SEND, op::SEND_TT, traced);
                    self.cookie();
                    self.pid(to)?;
                }
            },
            Control::Exit { from, to } => {
                let operations = [
                    (op::EXIT, op::EXIT_TT),
                    (op::PAYLOAD_EXIT, op::PAYLOAD_EXIT_TT),
                ];
                return self.exit(operations, from, to, trace, payload);
            }
            Control::Exit2 { from, to } => return self.exit2(from, to, trace, payload),
            Control::RegSend { from, to } => {
                self.head(3, op::REG_SEND, op::REG_SEND_TT, traced);
                self.pid(from)?;
                self.cookie();
                self.atom(to.as_str())?;
            }
            Control::GroupLeader { from, to } => self.pids(op::GROUP_LEADER, from, to)?,
            Control::Monitor {
                from,
                target,
                reference,
            } => self.monitor(op::MONITOR_P, from, target, reference)?,
            Control::Demonitor {
                from,
                target,
                reference,
            } => self.monitor(op::DEMONITOR_P, from, target, reference)?,
            Control::MonitorExit {
                from,
                to,
                reference,
            } => {
                let beside = self.agreed.contains(Flags::EXIT_PAYLOAD);
                if beside {
                    self.tuple(4, op::PAYLOAD_MONITOR_P_EXIT);
                } else {
                    self.tuple(5, op::MONITOR_P_EXIT);
                }
                self.target(from)?;
                self.pid(to)?;
                self.reference(reference)?;
                return Ok(self.reason(beside, payload));
            }
            Control::SpawnRequest {
                id,
                from,
                group_leader,
                function,
                options,
            } => {
                self.head(5, op::SPAWN_REQUEST, op::SPAWN_REQUEST_TT, traced);
                self.reference(id)?;
                self.pid(from)?;
                self.pid(group_leader)?;
                self.out.extend([tag::SMALL_TUPLE, 3]);
                self.atom(function.module.as_str())?;
                self.atom(function.name.as_str())?;
                self.integer(function.arity.into());
                self.value(&Value::List(options.clone()))?;
            }
            Control::SpawnReply {
                id,
                to,
                flags,
                result,
            } => {
                self.head(4, op::SPAWN_REPLY, op::SPAWN_REPLY_TT, traced);
                self.reference(id)?;
                self.pid(to)?;
                self.integer((*flags).into());
                match result {
                    Ok(pid) => self.pid(pid)?,
                    Err(reason) => self.atom(reason.as_str())?,
                }
            }
            Control::AliasSend { from, alias } => {
                if self.agreed.contains(Flags::ALTACT_SIG) {
                    self.altered(altact::ALIAS, from, traced)?;
                } else {
                    self.head(2, op::ALIAS_SEND, op::ALIAS_SEND_TT, traced);
                    self.pid(from)?;
                }
                self.reference(alias)?;
            }
            Control::UnlinkId { id, from, to } => self.unlink(op::UNLINK_ID, *id, from, to)?,
            Control::UnlinkIdAck { id, from, to } => {
                self.unlink(op::UNLINK_ID_ACK, *id, from, to)?;
            }
            Control::AltactSend {
                priority,
                exit,
                from,
                to,
            } => return self.altact(*priority, *exit, from, to, trace, payload),
            // Refused before.
            Control::Unknown { .. } => {}
        }
        self.token(trace)?;
        Ok(payload)
    }

    /// An older node gets the ordinary form of a priority signal, as it does from the VM.
    fn altact<'s>(
        &mut self,
        priority: bool,
        exit: bool,
        from: &Pid,
        to: &Target,
        trace: Option<&Value>,
        payload: Option<&'s Term>,
    ) -> Result<Option<&'s Term>, TermError> {
        if !self.agreed.contains(Flags::ALTACT_SIG) {
            let (from, to) = (from.clone(), to.clone());
            let plain = match to {
                Target::Pid(to) if exit => Control::Exit2 { from, to },
                Target::Pid(to) => Control::Send {
                    from: Some(from),
                    to,
                },
                Target::Name(to) => Control::RegSend { from, to },
                Target::Alias(alias) => Control::AliasSend { from, alias },
            };
            return self.control(&plain, trace, payload);
        }
        let mut flags = match to {
            Target::Pid(_) => 0,
            Target::Name(_) => altact::NAME,
            Target::Alias(_) => altact::ALIAS,
        };
        flags |= if priority { altact::PRIORITY } else { 0 };
        flags |= if exit { altact::EXIT } else { 0 };
        self.altered(flags, from, trace.is_some())?;
        self.target(to)?;
        self.token(trace)?;
        Ok(payload)
    }

    fn altered(&mut self, flags: u8, from: &Pid, traced: bool) -> Written {
        self.tuple(4 + u8::from(traced), op::ALTACT_SIG_SEND);
        let token = if traced { altact::TOKEN } else { 0 };
        self.out.extend([tag::SMALL_INTEGER, flags | token]);
        self.pid(from)
    }

    fn exit2<'s>(
        &mut self,
        from: &Pid,
        to: &Pid,
        trace: Option<&Value>,
        payload: Option<&'s Term>,
    ) -> Result<Option<&'s Term>, TermError> {
        let operations = [
            (op::EXIT2, op::EXIT2_TT),
            (op::PAYLOAD_EXIT2, op::PAYLOAD_EXIT2_TT),
        ];
        self.exit(operations, from, to, trace, payload)
    }

    /// `operations` with the reason in the tuple and beside it.
    fn exit<'s>(
        &mut self,
        operations: [(u8, u8); 2],
        from: &Pid,
        to: &Pid,
        trace: Option<&Value>,
        payload: Option<&'s Term>,
    ) -> Result<Option<&'s Term>, TermError> {
        let beside = self.agreed.contains(Flags::EXIT_PAYLOAD);
        let [inline, apart] = operations;
        let (elements, (plain, with_token)) = if beside { (2, apart) } else { (3, inline) };
        self.head(elements, plain, with_token, trace.is_some());
        self.pid(from)?;
        self.pid(to)?;
        self.token(trace)?;
        Ok(self.reason(beside, payload))
    }

    /// Leaves the reason for the payload or writes it as the last element.
    fn reason<'s>(&mut self, beside: bool, reason: Option<&'s Term>) -> Option<&'s Term> {
        match reason {
            Some(reason) if !beside => {
                self.term(reason);
                None
            }
            reason => reason,
        }
    }

    /// The tuple's beginning, in its form with or without a token behind `elements` others.
    fn head(&mut self, elements: u8, plain: u8, with_token: u8, traced: bool) {
        if traced {
            self.tuple(elements + 2, with_token);
        } else {
            self.tuple(elements + 1, plain);
        }
    }

    fn tuple(&mut self, arity: u8, operation: u8) {
        self.out
            .extend([tag::SMALL_TUPLE, arity, tag::SMALL_INTEGER, operation]);
    }

    fn pids(&mut self, operation: u8, from: &Pid, to: &Pid) -> Written {
        self.tuple(3, operation);
        self.pid(from)?;
        self.pid(to)
    }

    fn unlink(&mut self, operation: u8, id: u64, from: &Pid, to: &Pid) -> Written {
        self.tuple(4, operation);
        self.integer(id);
        self.pid(from)?;
        self.pid(to)
    }

    fn monitor(
        &mut self,
        operation: u8,
        from: &Pid,
        target: &Target,
        reference: &Reference,
    ) -> Written {
        self.tuple(4, operation);
        self.pid(from)?;
        self.target(target)?;
        self.reference(reference)
    }

    fn target(&mut self, target: &Target) -> Written {
        match target {
            Target::Pid(pid) => self.pid(pid),
            Target::Name(name) => self.atom(name.as_str()),
            Target::Alias(alias) => self.reference(alias),
        }
    }

    /// The empty atom in place of a cookie. As long as a reference to the cache.
    fn cookie(&mut self) {
        self.out.extend([tag::SMALL_ATOM_UTF8, 0]);
    }

    fn atom(&mut self, text: &str) -> Written {
        let place = self.cache.as_mut().and_then(|cache| cache.refer(text));
        if let Some(place) = place {
            self.out.extend([tag::CACHED_ATOM, place]);
            return Ok(());
        }
        match u8::try_from(text.len()) {
            Ok(length) => self.out.extend([tag::SMALL_ATOM_UTF8, length]),
            Err(_) => {
                if text.chars().count() > MAX_ATOM_CHARS {
                    return Err(TermError::AtomLength);
                }
                self.out.push(tag::ATOM_UTF8);
                // 255 characters are 1020 bytes at most.
                self.out.extend((text.len() as u16).to_be_bytes());
            }
        }
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn pid(&mut self, pid: &Pid) -> Written {
        self.out.push(tag::NEW_PID);
        self.atom(&pid.node)?;
        let numbers = [pid.id, pid.serial, pid.creation];
        let mut bytes = [0; 12];
        for (to, number) in bytes.chunks_exact_mut(4).zip(numbers) {
            to.copy_from_slice(&number.to_be_bytes());
        }
        self.out.extend_from_slice(&bytes);
        Ok(())
    }

    fn reference(&mut self, reference: &Reference) -> Written {
        let words = reference.words.len();
        if !(1..=5).contains(&words) {
            return Err(TermError::Reference(words as u32));
        }
        self.out.extend([tag::NEWER_REFERENCE, 0, words as u8]);
        self.atom(&reference.node)?;
        self.out.extend(reference.creation.to_be_bytes());
        for word in reference.words.iter() {
            self.out.extend(word.to_be_bytes());
        }
        Ok(())
    }

    fn integer(&mut self, number: u64) {
        if let Ok(byte) = u8::try_from(number) {
            self.out.extend([tag::SMALL_INTEGER, byte]);
        } else if let Ok(word) = i32::try_from(number) {
            self.out.push(tag::INTEGER);
            self.out.extend(word.to_be_bytes());
        } else {
            let length = 8 - number.leading_zeros() as usize / 8;
            self.out.extend([tag::SMALL_BIG, length as u8, 0]);
            self.out.extend(number.to_le_bytes().iter().take(length));
        }
    }

    fn token(&mut self, trace: Option<&Value>) -> Written {
        trace.map_or(Ok(()), |token| self.value(token))
    }

    fn value(&mut self, value: &Value) -> Written {
        value.encode().map(|term| self.term(&term))
    }

    fn term(&mut self, term: &Term) {
        for piece in term.pieces() {
            self.out.extend_from_slice(&piece);
        }
    }
}

fn unsendable(signal: &'static str, why: &'static str) -> DistError {
    DistError::Unsendable { signal, why }
}

/// What the control message needs and the peer hasn't offered.
fn missing(control: &Control, agreed: Flags) -> Option<Flags> {
    let needed = match control {
        Control::Monitor { target, .. } | Control::Demonitor { target, .. } => match target {
            Target::Name(_) => Flags::DIST_MONITOR.with(Flags::DIST_MONITOR_NAME),
            _ => Flags::DIST_MONITOR,
        },
        Control::MonitorExit { .. } => Flags::DIST_MONITOR,
        Control::SpawnRequest { .. } | Control::SpawnReply { .. } => Flags::SPAWN,
        Control::AliasSend { .. } => Flags::ALIAS,
        Control::UnlinkId { .. } | Control::UnlinkIdAck { .. } => Flags::UNLINK_ID,
        // An exit has no other form that goes to an alias or a name.
        Control::AltactSend {
            exit: true,
            to: Target::Alias(_) | Target::Name(_),
            ..
        } => Flags::ALTACT_SIG,
        Control::AltactSend {
            to: Target::Alias(_),
            ..
        } => Flags::ALIAS,
        _ => Flags(0),
    };
    let missing = needed.without(agreed);
    (!missing.is_empty()).then_some(missing)
}

/// What is fixed for all messages of one operation.
pub(super) struct Kind {
    /// As `dist.h` has it, without `DOP_`.
    pub(super) name: &'static str,
    /// A term follows the control tuple.
    pub(super) payload: bool,
    /// There is a form with a trace token.
    pub(super) token: bool,
}

pub(super) fn kind(control: &Control) -> Kind {
    let (name, payload, token) = match control {
        Control::Link { .. } => ("LINK", false, false),
        Control::Send { .. } => ("SEND", true, true),
        Control::Exit { .. } => ("EXIT", true, true),
        Control::Unlink { .. } => ("UNLINK", false, false),
        Control::RegSend { .. } => ("REG_SEND", true, true),
        Control::GroupLeader { .. } => ("GROUP_LEADER", false, false),
        Control::Exit2 { .. } => ("EXIT2", true, true),
        Control::Monitor { .. } => ("MONITOR_P", false, false),
        Control::Demonitor { .. } => ("DEMONITOR_P", false, false),
        Control::MonitorExit { .. } => ("MONITOR_P_EXIT", true, false),
        Control::SpawnRequest { .. } => ("SPAWN_REQUEST", true, true),
        Control::SpawnReply { .. } => ("SPAWN_REPLY", false, true),
        Control::AliasSend { .. } => ("ALIAS_SEND", true, true),
        Control::UnlinkId { .. } => ("UNLINK_ID", false, false),
        Control::UnlinkIdAck { .. } => ("UNLINK_ID_ACK", false, false),
        Control::AltactSend { .. } => ("ALTACT_SIG_SEND", true, true),
        Control::Unknown { .. } => ("an unknown operation", false, false),
    };
    Kind {
        name,
        payload,
        token,
    }
}
