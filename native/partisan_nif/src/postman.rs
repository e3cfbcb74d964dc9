//! Brings validated messages to processes: finds the process, builds the term, sends it.
//!
//! Terms are built in one of two ways. On a thread of our own the VM decodes into an environment
//! that becomes the message, without another copy. On a scheduler simple terms are built on the
//! heap of the process that runs the NIF, a few nanoseconds apiece, and copied from there.
//! Either way the VM takes the message to have no sender, so one process's messages keep their
//! order whichever way they go: the VM keeps order only among signals of one sender.

use partisan::connection::host::Lost;
use partisan::wire::identity::Identity;
use partisan::wire::term::{Form, map_in};
use rustler::sys::{ErlNifEnv, ErlNifPid, ErlNifTerm};

use crate::blob::VmBlob;
use crate::decode;
use crate::inbox::{Letter, To};
use crate::raw::{self, OwnEnv};
use crate::routes::Words;
use crate::vm::{Mapper, Mapping};

/// Deepest term that is built by recursion on the small stack of a scheduler.
const MAX_DEPTH: u32 = 32;

/// Pids that are remembered.
const MAX_PIDS: usize = 4096;

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Posted {
    /// It is in the process's queue.
    Sent,
    /// There is no such process.
    Nobody,
    /// The VM refuses the term.
    Undecodable,
}

impl Posted {
    /// Counts what was not delivered.
    pub(crate) fn count(self, lost: &mut Lost) {
        match self {
            Self::Sent => {}
            Self::Nobody => lost.undelivered += 1,
            Self::Undecodable => lost.undecodable += 1,
        }
    }
}

/// What one thread keeps for delivering.
pub(crate) struct Postman {
    /// Empty between messages.
    env: OwnEnv,
    /// The last name looked up since [`Postman::begin`], and who has it.
    last: Option<(ErlNifTerm, ErlNifPid)>,
    /// Pids by number; a number means the same process for the life of the VM.
    pids: Words<ErlNifPid>,
    mapped: Vec<u8>,
}

impl Postman {
    pub(crate) fn new() -> Self {
        Self {
            env: OwnEnv::new(),
            last: None,
            pids: Words::default(),
            mapped: Vec::new(),
        }
    }

    /// The messages that follow had all arrived by now: a name is looked up once for them.
    pub(crate) fn begin(&mut self) {
        self.last = None;
    }

    /// Delivers where the VM's name may change at any moment: on a thread of our own, or on a dirty
    /// scheduler, whose NIF's environment is `caller`.
    pub(crate) fn post_whole(
        &mut self,
        (mapper, caller): (&Mapper, *mut ErlNifEnv),
        letter: Letter,
        term: &[u8],
        blobs: Vec<VmBlob>,
    ) -> Posted {
        let Some(pid) = self.process(letter.to, caller, |postman, id, serial| {
            loop {
                let settled = mapper.settled(caller);
                let found = postman.decode_pid(settled.mapping.present(), id, serial);
                // Not found: it may be the name that has just changed.
                if found.is_some() || mapper.is_still(caller, &settled) {
                    return found;
                }
            }
        }) else {
            return Posted::Nobody;
        };
        let env = self.env.as_ptr();
        let blobs: Vec<ErlNifTerm> = blobs.into_iter().map(|b| b.into_term(env)).collect();
        let built = if letter.identities {
            loop {
                let settled = mapper.settled(caller);
                let built = self.build(env, &settled.mapping, term, &blobs);
                // Else the VM has changed its name meanwhile, and what was built may not be its
                // own.
                if built.is_none() || mapper.is_still(caller, &settled) {
                    break built;
                }
            }
        } else {
            decode_any(env, term, &blobs)
        };
        let Some(built) = built else {
            self.env.clear();
            return Posted::Undecodable;
        };
        if raw::send(&pid, &mut self.env, built) {
            Posted::Sent
        } else {
            Posted::Nobody
        }
    }

    /// Delivers in a NIF on an ordinary scheduler, which the VM stops before its name changes.
    pub(crate) fn post_copy(
        &mut self,
        env: *mut ErlNifEnv,
        mapping: &Mapping,
        letter: Letter,
        term: &[u8],
        blobs: Vec<VmBlob>,
    ) -> Posted {
        let Some(pid) = self.process(letter.to, env, |postman, id, serial| {
            postman.decode_pid(mapping.present(), id, serial)
        }) else {
            return Posted::Nobody;
        };
        let blobs: Vec<ErlNifTerm> = blobs.into_iter().map(|b| b.into_term(env)).collect();
        let built = if letter.identities {
            self.build(env, mapping, term, &blobs)
        } else if letter.depth <= MAX_DEPTH {
            decode::decode(env, term, &blobs)
        } else {
            decode_any(env, term, &blobs)
        };
        match built {
            None => Posted::Undecodable,
            Some(built) if raw::send_copy(&pid, built) => Posted::Sent,
            Some(_) => Posted::Nobody,
        }
    }

    fn build(
        &mut self,
        env: *mut ErlNifEnv,
        mapping: &Mapping,
        term: &[u8],
        blobs: &[ErlNifTerm],
    ) -> Option<ErlNifTerm> {
        let Some(rules) = mapping.inbound() else {
            return decode_any(env, term, blobs);
        };
        let form = if blobs.is_empty() {
            Form::Whole
        } else {
            Form::Elided
        };
        self.mapped.clear();
        map_in(term, form, rules, &mut self.mapped).ok()?;
        decode_any(env, &self.mapped, blobs)
    }

    fn process(
        &mut self,
        to: To,
        caller: *mut ErlNifEnv,
        find: impl FnOnce(&mut Self, u32, u32) -> Option<ErlNifPid>,
    ) -> Option<ErlNifPid> {
        match to {
            To::Name(name) => {
                if let Some((last, pid)) = self.last
                    && last == name
                {
                    return Some(pid);
                }
                let pid = raw::whereis_as(caller, name)?;
                self.last = Some((name, pid));
                Some(pid)
            }
            To::Pid { id, serial } => {
                let number = (serial as usize) << 32 | id as usize;
                if let Some(&pid) = self.pids.get(&number) {
                    return Some(pid);
                }
                let pid = find(self, id, serial)?;
                if self.pids.len() >= MAX_PIDS {
                    self.pids.clear();
                }
                self.pids.insert(number, pid);
                Some(pid)
            }
        }
    }

    /// The VM's own pid of this number.
    fn decode_pid(&mut self, local: &Identity, id: u32, serial: u32) -> Option<ErlNifPid> {
        let mut pid = Vec::with_capacity(local.node.len() + 16);
        pid.extend_from_slice(&[131, 88, 118]);
        pid.extend_from_slice(&(local.node.len() as u16).to_be_bytes());
        pid.extend_from_slice(local.node.as_bytes());
        for word in [id, serial, local.creation] {
            pid.extend_from_slice(&word.to_be_bytes());
        }
        let env = self.env.as_ptr();
        let found = raw::binary_to_term(env, &pid).and_then(|term| raw::local_pid(env, term));
        self.env.clear();
        found
    }
}

fn decode_any(env: *mut ErlNifEnv, term: &[u8], blobs: &[ErlNifTerm]) -> Option<ErlNifTerm> {
    if blobs.is_empty() {
        raw::binary_to_term(env, term)
    } else {
        decode::decode(env, term, blobs)
    }
}
