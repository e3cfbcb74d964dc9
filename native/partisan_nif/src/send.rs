//! Sending: from a VM term and its destination to a queue.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;
use partisan::connection::outbox::{Outbox, Outgoing, Pressure, Sent};
use partisan::connection::receive::ReceiveLimits;
use partisan::limits;
use partisan::wire::frame::Dest;
use partisan::wire::term::{Form, TermError, elide, map_out, scan};
use rustler::sys::{ErlNifEnv, ErlNifPid, ErlNifTerm};

use crate::encode::{Encoded, encode};
use crate::node::Running;
use crate::raw;
use crate::routes::{Route, Words, spread};

/// Use the default channel if the session lacks the wanted one.
pub(crate) const FALLBACK: u32 = 1;

/// Leave pids and references as they are, whatever the configuration says.
pub(crate) const PLAIN: u32 = 2;

/// The message is acknowledged; only for payloads.
pub(crate) const KEPT: u32 = 8;

/// More heap than any term of one walk takes at the receiver.
const MOST_HEAP: u64 = 4 << 20;

/// What became of a message, as Erlang hears it.
pub(crate) enum Outcome {
    Ok,
    /// Too much for a scheduler: encode with `term_to_iovec/1`.
    Slow,
    Busy,
    Waiting(Arc<Outbox>, partisan::channel::Ticket),
    Error(&'static str),
    Limit(&'static str),
}

/// Which connection a message goes by.
pub(crate) struct Target<'a> {
    pub(crate) outbox: &'a Arc<Outbox>,
    pub(crate) sender: u64,
}

/// Finds the connection for a message.
pub(crate) fn route<'a>(
    routes: &'a Words<Route>,
    node: usize,
    channel: usize,
    key: i64,
    flags: u32,
    caller: &ErlNifPid,
) -> Result<Target<'a>, &'static str> {
    let Some(route) = routes.get(&node) else {
        return Err("not_yet_connected");
    };
    if route.session.is_none() {
        return Err("disconnected");
    }
    let wanted = route.channels.iter().find(|c| c.atom == channel);
    let channel = match wanted {
        Some(channel) => channel,
        None if flags & FALLBACK != 0 => route.channels.first().ok_or("disconnected")?,
        None => return Err("disconnected"),
    };
    let sender = raw::pid_word(caller) as u64;
    let count = channel.outboxes.len();
    let index = if count <= 1 {
        0
    } else {
        let key = u64::try_from(key).unwrap_or_else(|_| spread(sender));
        (key % count as u64) as usize
    };
    let outbox = channel.outboxes.get(index).ok_or("disconnected")?;
    Ok(Target { outbox, sender })
}

thread_local! {
    static SCRATCH: RefCell<(Encoded, Vec<u8>)> = RefCell::default();
}

/// Encodes the message in one bounded walk and queues it.
pub(crate) fn send(
    running: &Running,
    env: *mut ErlNifEnv,
    target: Target<'_>,
    dest: Dest<'_>,
    message: ErlNifTerm,
    flags: u32,
    pressure: Pressure,
) -> Outcome {
    SCRATCH.with_borrow_mut(|(encoded, mapped)| {
        if encode(env, message, encoded).is_err() {
            // Remembers the VM's name, under which the term is going to be encoded.
            running.host.mapper.mapping(env, &running.host.owner);
            return Outcome::Slow;
        }
        let elided = !encoded.blobs.is_empty();
        let mut term = &encoded.term;
        if encoded.identities {
            let mapping = running.host.mapper.mapping(env, &running.host.owner);
            if let Some(rules) = mapping.outbound(flags & PLAIN == 0) {
                let form = if elided { Form::Elided } else { Form::Whole };
                mapped.clear();
                if let Err(e) = map_out(term, form, rules, mapped) {
                    return refused(&e);
                }
                term = mapped;
            }
        }
        // A walk can exceed only limits that somebody has set lower than any default.
        if running.limits.term.heap_bytes < MOST_HEAP {
            let form = if elided { Form::Elided } else { Form::Whole };
            if let Err(e) = scan(term, form, &running.limits.term, &mut ()) {
                return refused(&e);
            }
        }
        let outgoing = if elided {
            let Some(blobs) = raw::pin(&encoded.blobs) else {
                return Outcome::Error("badarg");
            };
            Outgoing::Large {
                dest,
                term: Bytes::copy_from_slice(term),
                elided,
                blobs,
            }
        } else if term.len() <= limits::FRAGMENT_SHARED_BYTES {
            Outgoing::Small { dest, term }
        } else {
            let term = Bytes::copy_from_slice(term);
            Outgoing::Large {
                dest,
                term,
                elided,
                blobs: Vec::new(),
            }
        };
        queue(running, target, outgoing, pressure)
    })
}

/// Queues a message that `erlang:term_to_iovec/1` has encoded. Runs on a dirty scheduler: its
/// passes over the bytes take as long as the message is. The caller has had the VM's name read
/// before and after it encoded.
pub(crate) fn send_iov(
    running: &Running,
    target: Target<'_>,
    dest: Dest<'_>,
    parts: &[ErlNifTerm],
    flags: u32,
    pressure: Pressure,
) -> Outcome {
    let Some(parts) = raw::pin(parts) else {
        return Outcome::Error("badarg");
    };
    let total: u64 = parts.iter().map(|p| p.len() as u64).sum();
    if total > running.limits.message_bytes {
        return Outcome::Limit("max_message_bytes");
    }
    let inline: usize = parts
        .iter()
        .map(Bytes::len)
        .filter(|&l| l < limits::OUT_OF_BAND_BYTES)
        .sum();
    if inline > running.limits.term.bytes {
        return Outcome::Limit("max_term_bytes");
    }
    let elided = elide(&parts);
    let facts = match scan(&elided.skeleton, elided.form, &running.limits.term, &mut ()) {
        Ok(facts) => facts,
        Err(e) => return refused(&e),
    };
    if let Err(e) = facts.common() {
        return refused(&e);
    }
    let mut term = elided.skeleton;
    if facts.identities {
        let mapping = running.host.mapper.last();
        if let Some(rules) = mapping.outbound(flags & PLAIN == 0) {
            let mut mapped = Vec::with_capacity(term.len() + 64);
            if let Err(e) = map_out(&term, elided.form, rules, &mut mapped) {
                return refused(&e);
            }
            // Remote references take more room than what they stand for.
            if let Err(e) = scan(&mapped, elided.form, &running.limits.term, &mut ()) {
                return refused(&e);
            }
            term = mapped;
        }
    }
    let out_of_band = elided.form == Form::Elided && !elided.blobs.is_empty();
    let term = Bytes::from(term);
    queue(
        running,
        target,
        Outgoing::of(dest, &term, &elided.blobs, out_of_band),
        pressure,
    )
}

fn queue(
    running: &Running,
    target: Target<'_>,
    outgoing: Outgoing<'_>,
    pressure: Pressure,
) -> Outcome {
    let term = match &outgoing {
        Outgoing::Small { term, .. } => term.len(),
        Outgoing::Large { term, .. } => term.len(),
    };
    if term > running.limits.term.bytes {
        return Outcome::Limit("max_term_bytes");
    }
    if outgoing.bytes() > running.limits.message_bytes {
        return Outcome::Limit("max_message_bytes");
    }
    match target.outbox.send(target.sender, outgoing, pressure) {
        Sent::Queued => Outcome::Ok,
        Sent::Full => Outcome::Busy,
        Sent::Waiting(ticket) => Outcome::Waiting(target.outbox.clone(), ticket),
        Sent::Closed => Outcome::Error("disconnected"),
        Sent::Invalid => Outcome::Error("badarg"),
    }
}

/// A term that the receiver would refuse.
pub(crate) fn refused(error: &TermError) -> Outcome {
    match error {
        TermError::Depth { .. } => Outcome::Limit("depth"),
        TermError::Heap { .. } => Outcome::Limit("max_term_heap"),
        TermError::Size { .. } => Outcome::Limit("max_term_bytes"),
        _ => Outcome::Error("badarg"),
    }
}

/// What bounds a message that is sent: the same as for those that are received.
pub(crate) type Limits = ReceiveLimits;
