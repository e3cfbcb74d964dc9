//! The two halves of a connection without an I/O thread around them, so that fuzzing, tests and
//! benchmarks can feed them anything in any pieces. Not part of the interface of the crate.

use std::os::fd::AsFd;
use std::sync::Arc;

use crate::channel::Batch;
use crate::connection::host::Host;
use crate::connection::outbox::Outbox;
use crate::connection::receive::{Context, ReceiveLimits, Receiver, SCRATCH_BYTES, Turn};
use crate::connection::session::{CloseReason, Session};

/// A receiver and what it works with.
pub struct Drive<H: Host> {
    receiver: Receiver<H::Blob>,
    session: Arc<Session>,
    outbox: Arc<Outbox>,
    limits: ReceiveLimits,
}

impl<H: Host> Drive<H> {
    /// The receiver of one connection of `session`.
    pub fn new(session: Arc<Session>, outbox: Arc<Outbox>, limits: ReceiveLimits) -> Self {
        Self {
            receiver: Receiver::new(),
            session,
            outbox,
            limits,
        }
    }

    /// A read buffer as an I/O thread has it.
    pub fn scratch() -> Vec<u8> {
        vec![0; SCRATCH_BYTES]
    }

    /// Reads and delivers until the socket is empty or a mailbox is full; true if one is.
    ///
    /// # Errors
    /// Why the session ends.
    pub fn turn(
        &mut self,
        host: &H,
        thread: &mut H::Thread,
        socket: &impl AsFd,
        scratch: &mut [u8],
    ) -> Result<bool, CloseReason> {
        let mut ctx = Context {
            host,
            thread,
            session: &self.session,
            outbox: &self.outbox,
            limits: &self.limits,
        };
        loop {
            match self.receiver.turn(socket, scratch, 64 << 10, &mut ctx)?.0 {
                Turn::More => {}
                turn => return Ok(turn == Turn::Stalled),
            }
        }
    }
}

/// The sending half likewise: takes up to `max_bytes` as an I/O thread does; true if that was all.
pub fn take(outbox: &Outbox, max_bytes: usize, batch: &mut Batch) -> bool {
    outbox.acknowledge();
    outbox.take(max_bytes, batch).all
}

/// All of `batch` has been written.
pub fn written(outbox: &Outbox, batch: &mut Batch) {
    let payload = batch.advance(batch.len());
    outbox.written(payload);
}
