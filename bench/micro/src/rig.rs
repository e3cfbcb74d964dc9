//! An outbox without a socket, and a receiver that reads from a socket pair.

use std::cell::RefCell;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use partisan::channel::{Ceiling, Config};
use partisan::connection::drive::Drive;
use partisan::connection::host::{Blob, Delivery, Host, Incoming, Source, ThreadKind};
use partisan::connection::outbox::{Outbox, Outgoing, Pressure, Sent, Shared, Starved, Waker};
use partisan::connection::receive::ReceiveLimits;
use partisan::connection::session::{NewAtoms, Parts, Session};
use partisan::limits;
use partisan::wire::frame::{self, Dest};
use partisan::wire::handshake::SessionId;
use partisan::wire::hello::Plan;
use partisan::wire::identity::Identity;
use partisan::wire::term::Term;
use tokio::sync::mpsc;

/// The name that messages are sent to.
pub const DEST: Dest<'static> = Dest::Name("sink");

struct Nobody;

impl Waker for Nobody {
    fn wake(&self, _: usize, _: u64) {}
}

/// The outbox of a connection; nobody writes but whoever takes from it.
pub fn outbox() -> Arc<Outbox> {
    let shared = Shared {
        ceiling: Ceiling::new(limits::NODE_QUEUE_BYTES),
        direct_write: None,
        starved: Starved::default(),
        waker: Box::new(Nobody),
    };
    Arc::new(Outbox::new(1, false, Config::default(), Arc::new(shared)))
}

/// Queues the message as the NIF does.
pub fn send(outbox: &Arc<Outbox>, sender: u64, term: &Term) {
    let message = Outgoing::of(
        DEST,
        term.skeleton(),
        term.blobs(),
        !term.blobs().is_empty(),
    );
    let sent = outbox.send(sender, message, Pressure::Refuse);
    assert_eq!(sent, Sent::Queued);
}

/// Whole frames of `count` messages of that term.
pub fn frames(term: &[u8], count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..count {
        frame::put_message(&mut bytes, DEST, term).expect("a short name");
    }
    bytes
}

thread_local! {
    /// Where the bytes of large binaries end up, all in the same place.
    static MEMORY: RefCell<Vec<u8>> = RefCell::new(vec![0; 1 << 20]);
}

/// Stands for the memory of a large binary. Memory of its own would have to be cleared first, which
/// would cost more than all the rest.
pub struct Memory {
    length: u64,
    filled: u64,
}

impl Blob for Memory {
    fn len(&self) -> u64 {
        self.length
    }

    fn filled(&self) -> u64 {
        self.filled
    }

    fn extend(&mut self, bytes: &[u8]) -> io::Result<()> {
        MEMORY.with_borrow_mut(|memory| memory[..bytes.len()].copy_from_slice(bytes));
        self.filled += bytes.len() as u64;
        Ok(())
    }

    fn receive(&mut self, limit: usize, source: &Source<'_>) -> io::Result<usize> {
        let got = MEMORY.with_borrow_mut(|memory| {
            let end = limit.min(memory.len());
            source.read(&mut memory[..end])
        })?;
        self.filled += got as u64;
        Ok(got)
    }
}

/// Counts messages and their bytes.
pub struct Counting;

/// What has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Messages.
    pub messages: u64,
    /// Bytes of their terms.
    pub bytes: u64,
}

impl Host for Counting {
    type Blob = Memory;
    type Thread = Count;

    fn thread(&self, _: ThreadKind) -> Count {
        Count::default()
    }

    fn blob(&self, length: u64) -> Option<Memory> {
        Some(Memory { length, filled: 0 })
    }

    fn knows_atom(&self, _: &mut Count, _: &str) -> bool {
        true
    }

    fn deliver(
        &self,
        count: &mut Count,
        _: &Arc<Session>,
        _: &Arc<Outbox>,
        message: Incoming<'_, Memory>,
    ) -> Delivery {
        count.messages += 1;
        count.bytes += message.term.len() as u64;
        message.blobs.clear();
        Delivery::Done
    }
}

/// The receiving half of a connection and the peer's end of its socket.
pub struct Receiving {
    drive: Drive<Counting>,
    ours: UnixStream,
    peer: UnixStream,
    scratch: Vec<u8>,
    /// What has come.
    pub count: Count,
}

impl Default for Receiving {
    fn default() -> Self {
        let (ours, peer) = UnixStream::pair().expect("a socket pair");
        ours.set_nonblocking(true).expect("non-blocking");
        let outbox = outbox();
        let session = Arc::new(Session::new(Parts {
            peer: Identity::new("peer@host", 1),
            instance: 1,
            id: SessionId([0; 16]),
            plan: Plan::merge(&[], &[]).expect("one channel"),
            connections: Vec::new(),
            outboxes: vec![outbox.clone()],
            new_atoms: NewAtoms::default(),
            inlet: partisan::connection::inlet::Inlet::new().0,
            events: mpsc::unbounded_channel().0,
        }));
        Self {
            drive: Drive::new(session, outbox, ReceiveLimits::default()),
            ours,
            peer,
            scratch: Drive::<Counting>::scratch(),
            count: Count::default(),
        }
    }
}

/// What fits into the socket at once.
const PIECE: usize = 64 << 10;

impl Receiving {
    /// Lets the peer send `bytes` and reads them, by `turn`.
    pub fn receive(&mut self, bytes: &[u8], turn: impl Fn(&mut Self)) {
        for piece in bytes.chunks(PIECE) {
            self.peer.write_all(piece).expect("room in the socket");
            turn(self);
        }
    }

    /// Reads what has come.
    pub fn turn(&mut self) {
        let turn = self
            .drive
            .turn(&Counting, &mut self.count, &self.ours, &mut self.scratch);
        assert_eq!(turn, Ok(false));
    }
}

/// A large message in fragments, as bytes on the wire.
pub fn fragments(term: &Term) -> Vec<u8> {
    let outbox = outbox();
    send(&outbox, 1, term);
    let mut batch = partisan::channel::Batch::new();
    let mut bytes = Vec::new();
    while !partisan::connection::drive::take(&outbox, usize::MAX, &mut batch) {}
    let mut slices = vec![io::IoSlice::new(&[]); 256];
    let count = batch.io_slices(&mut slices);
    for slice in &slices[..count] {
        bytes.extend_from_slice(slice);
    }
    assert_eq!(bytes.len(), batch.len());
    bytes
}
