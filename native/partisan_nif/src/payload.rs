//! What a broadcast or an acknowledged message carries: a whole term, mapped to the wire's identity once, at its root.
//!
//! The library keeps it, or passes it on, as it is, so nothing in it stands out of band.

use std::sync::Arc;

use bytes::Bytes;
use partisan::delivery::Parcel;
use partisan::limits::{MAX_BROADCAST_BYTES, MAX_DELIVERY_BYTES};
use partisan::wire::frame::DestBuf;
use partisan::wire::term::{Form, map_out, scan};
use rustler::sys::ErlNifTerm;

use crate::node::Running;
use crate::raw;
use crate::send::{KEPT, Outcome, PLAIN, refused};

/// What a scheduler can hand over without a pass over its bytes.
pub(crate) enum Payload {
    /// A term for the processes of a name.
    Broadcast(Arc<str>, Bytes),
    /// An encoded [`Parcel`].
    Kept(Bytes),
}

#[rustler::resource_impl]
impl rustler::Resource for Payload {}

impl Payload {
    /// From what `erlang:term_to_iovec/1` has made. Runs on a dirty scheduler: its passes over the bytes
    /// take as long as the term is. The caller has had the VM's name read before and after it encoded.
    pub(crate) fn new(
        running: &Running,
        dest: DestBuf,
        parts: &[ErlNifTerm],
        flags: u32,
    ) -> Result<Self, Outcome> {
        let parts = raw::pin(parts).ok_or(Outcome::Error("badarg"))?;
        let (most, limit) = match flags & KEPT == 0 {
            true => (MAX_BROADCAST_BYTES, "max_broadcast_bytes"),
            false => (MAX_DELIVERY_BYTES, "max_delivery_bytes"),
        };
        let name = match &dest {
            DestBuf::Name(name) => name.len(),
            DestBuf::Pid { .. } => 0,
        };
        let room = most.saturating_sub(2 + name);
        let too_large = || Outcome::Limit(limit);
        if parts.iter().map(Bytes::len).sum::<usize>() > room {
            return Err(too_large());
        }
        let limits = &running.limits.term;
        let mut term = parts.concat();
        let facts = scan(&term, Form::Whole, limits, &mut ()).map_err(|e| refused(&e))?;
        facts.common().map_err(|e| refused(&e))?;
        if facts.identities {
            let mapping = running.host.mapper.last();
            if let Some(rules) = mapping.outbound(flags & PLAIN == 0) {
                let mut mapped = Vec::with_capacity(term.len() + 64);
                map_out(&term, Form::Whole, rules, &mut mapped).map_err(|e| refused(&e))?;
                // Remote references take more room than what they stand for.
                if mapped.len() > room {
                    return Err(too_large());
                }
                scan(&mapped, Form::Whole, limits, &mut ()).map_err(|e| refused(&e))?;
                term = mapped;
            }
        }
        if flags & KEPT == 0 {
            return match dest {
                DestBuf::Name(name) => Ok(Self::Broadcast(name, term.into())),
                DestBuf::Pid { .. } => Err(Outcome::Error("badarg")),
            };
        }
        let mut parcel = Vec::with_capacity(term.len() + name + 32);
        let (dest, term) = (dest.as_dest(), &term);
        Parcel { dest, term }.encode(&mut parcel);
        Ok(Self::Kept(parcel.into()))
    }
}
