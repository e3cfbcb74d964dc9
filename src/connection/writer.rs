//! Writing a connection's queue to its socket, by whoever gets there first.
//!
//! Mostly that is the I/O thread. But a wake-up of another thread costs 5 to 40 µs, more than the
//! write itself; so a sender that finds the connection idle writes its message on its own thread.
//! Nobody ever waits for a lock that is held over a system call: senders and I/O thread only try
//! it, and whoever fails leaves the rest of the work to the holder or to the I/O thread.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags};

use crate::channel::Batch;
use crate::connection::sync::{AtomicBool, Ordering, TryMutex, TryMutexGuard, fence};

/// Slices given to one `sendmsg`.
const IOVECS: usize = 64;

/// The writing half of a socket, and what has been taken from the queue for it.
#[derive(Default)]
pub(crate) struct Writer {
    desk: TryMutex<Desk>,
    /// The I/O thread came while somebody was writing.
    wanted: AtomicBool,
    closed: AtomicBool,
}

/// What whoever writes has in front of him.
#[derive(Default)]
pub(crate) struct Desk {
    socket: Option<Arc<TcpStream>>,
    pub(crate) batch: Batch,
}

impl Desk {
    /// Writes once. `Ok(None)`: the socket takes nothing now, or there is none.
    pub(crate) fn write(&mut self) -> io::Result<Option<usize>> {
        let Some(socket) = &self.socket else {
            return Ok(None);
        };
        let mut slices = [io::IoSlice::new(&[]); IOVECS];
        let count = self.batch.io_slices(&mut slices);
        let outcome = rustix::net::sendmsg(
            socket,
            &slices[..count],
            &mut SendAncillaryBuffer::default(),
            SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
        );
        match outcome {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Errno::AGAIN) => Ok(None),
            Err(Errno::INTR) => Ok(Some(0)),
            Err(e) => Err(e.into()),
        }
    }

    /// Tells the peer that nothing follows.
    pub(crate) fn shut_down(&self) {
        if let Some(socket) = &self.socket {
            // Fails only if the connection is gone anyway.
            let _ = socket.shutdown(std::net::Shutdown::Write);
        }
    }
}

/// The right to write, until it is dropped.
pub(crate) struct Writing<'a> {
    writer: &'a Writer,
    desk: Option<TryMutexGuard<'a, Desk>>,
    /// Called if the I/O thread came meanwhile.
    call: &'a dyn Fn(),
}

impl std::ops::Deref for Writing<'_> {
    type Target = Desk;

    fn deref(&self) -> &Desk {
        self.desk.as_ref().expect("present until dropped")
    }
}

impl std::ops::DerefMut for Writing<'_> {
    fn deref_mut(&mut self) -> &mut Desk {
        self.desk.as_mut().expect("present until dropped")
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.desk = None;
        // Either the other side sees the lock free, or this one sees its mark.
        fence(Ordering::SeqCst);
        if self.writer.wanted.swap(false, Ordering::SeqCst) {
            (self.call)();
        }
        if self.writer.closed.load(Ordering::SeqCst) {
            self.writer.discard();
        }
    }
}

impl Writer {
    pub(crate) fn attach(&self, socket: Arc<TcpStream>) {
        self.desk.lock().socket = Some(socket);
    }

    /// For a sender: `None` if somebody else is writing.
    pub(crate) fn try_write<'a>(&'a self, call: &'a dyn Fn()) -> Option<Writing<'a>> {
        let desk = Some(self.desk.try_lock()?);
        Some(Writing {
            writer: self,
            desk,
            call,
        })
    }

    /// For the I/O thread: `None` if a sender is writing, which then calls.
    pub(crate) fn write_or_be_called<'a>(&'a self, call: &'a dyn Fn()) -> Option<Writing<'a>> {
        if let Some(writing) = self.try_write(call) {
            return Some(writing);
        }
        self.wanted.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let writing = self.try_write(call)?;
        self.wanted.store(false, Ordering::SeqCst);
        Some(writing)
    }

    /// Gives up the socket and what was to be written.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.discard();
    }

    fn discard(&self) {
        if let Some(mut desk) = self.desk.try_lock() {
            let gone = std::mem::take(&mut *desk);
            drop(desk);
            drop(gone);
        }
    }
}
