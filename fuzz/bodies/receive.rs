//! The receiving half of a connection over a socket pair: any bytes in any pieces, to the end.

use std::cell::RefCell;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use partisan::channel::{Ceiling, Config};
use partisan::connection::drive::Drive;
use partisan::connection::host::{Blob, Delivery, Host, Incoming, Source, ThreadKind};
use partisan::connection::inlet::Inlet;
use partisan::connection::outbox::{Outbox, Shared, Starved, Waker};
use partisan::connection::receive::ReceiveLimits;
use partisan::connection::session::{NewAtoms, Parts, Session};
use partisan::limits;
use partisan::wire::frame::Dest;
use partisan::wire::handshake::SessionId;
use partisan::wire::hello::Plan;
use partisan::wire::identity::Identity;
use partisan::wire::term::{Form, TermLimits, scan};
use tokio::sync::mpsc;

/// Memory that grows with the bytes that arrive.
pub struct Bytes {
    length: u64,
    bytes: Vec<u8>,
}

impl Blob for Bytes {
    fn len(&self) -> u64 {
        self.length
    }

    fn filled(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn extend(&mut self, bytes: &[u8]) -> io::Result<()> {
        assert!(bytes.len() as u64 <= self.length - self.filled());
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn receive(&mut self, limit: usize, source: &Source<'_>) -> io::Result<usize> {
        assert!(limit > 0 && limit as u64 <= self.length - self.filled());
        let mut buffer = [0; 512];
        let limit = limit.min(buffer.len());
        let got = source.read(&mut buffer[..limit])?;
        self.bytes.extend_from_slice(&buffer[..got]);
        Ok(got)
    }
}

/// Checks that what reaches a node is whole and within the limits.
struct Checking {
    limits: TermLimits,
}

impl Host for Checking {
    type Blob = Bytes;
    /// Deliveries so far.
    type Thread = u64;

    fn thread(&self, _: ThreadKind) -> u64 {
        0
    }

    fn blob(&self, length: u64) -> Option<Bytes> {
        assert!(length >= limits::OUT_OF_BAND_BYTES as u64);
        let bytes = Vec::new();
        Some(Bytes { length, bytes })
    }

    fn knows_atom(&self, _: &mut u64, atom: &str) -> bool {
        atom.len() < 3
    }

    fn deliver(
        &self,
        count: &mut u64,
        _: &Arc<Session>,
        _: &Arc<Outbox>,
        message: Incoming<'_, Bytes>,
    ) -> Delivery {
        *count += 1;
        let form = if message.blobs.is_empty() {
            Form::Whole
        } else {
            Form::Elided
        };
        let facts = scan(message.term, form, &self.limits, &mut ()).expect("validated");
        assert_eq!(facts.blobs.len(), message.blobs.len());
        for (blob, length) in message.blobs.iter().zip(&facts.blobs) {
            assert!(blob.is_complete());
            assert_eq!(blob.len(), u64::from(*length));
        }
        match message.dest {
            Dest::Name("full") if *count % 2 == 1 => Delivery::Full,
            Dest::Name("none") => Delivery::NoProcess,
            _ => {
                message.blobs.clear();
                Delivery::Done
            }
        }
    }
}

struct Nobody;

impl Waker for Nobody {
    fn wake(&self, _: usize, _: u64) {}
}

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(Drive::<Checking>::scratch());
}

/// First byte: size of the pieces that the rest arrives in.
pub fn run(data: &[u8]) {
    let Some((&piece, bytes)) = data.split_first() else {
        return;
    };
    let (ours, mut theirs) = UnixStream::pair().expect("a socket pair");
    ours.set_nonblocking(true).expect("non-blocking");
    theirs.set_nonblocking(true).expect("non-blocking");
    let outbox = Arc::new(Outbox::new(
        1,
        false,
        Config::default(),
        Arc::new(Shared {
            ceiling: Ceiling::new(1 << 20),
            direct_write: None,
            starved: Starved::default(),
            waker: Box::new(Nobody),
        }),
    ));
    let (inlet, _taken) = Inlet::new();
    let (events, _heard) = mpsc::unbounded_channel();
    let session = Arc::new(Session::new(Parts {
        peer: Identity::new("liar@host", 1),
        instance: 1,
        id: SessionId([0; 16]),
        plan: Plan::merge(&[], &[]).expect("one channel"),
        connections: Vec::new(),
        outboxes: vec![outbox.clone()],
        new_atoms: NewAtoms::default(),
        inlet,
        events,
    }));
    let limits = ReceiveLimits {
        term: TermLimits {
            heap_bytes: 1 << 20,
            ..TermLimits::default()
        },
        new_atoms: 8,
        ..ReceiveLimits::default()
    };
    let host = Checking {
        limits: limits.term,
    };
    let mut count = 0;
    let mut drive = Drive::new(session, outbox, limits);
    SCRATCH.with_borrow_mut(|scratch| {
        let mut rest = bytes;
        loop {
            let size = (usize::from(piece) * usize::from(piece)).clamp(1, rest.len().max(1));
            let size = match theirs.write(&rest[..size.min(rest.len())]) {
                Ok(size) => size,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
                Err(e) => panic!("{e}"),
            };
            rest = &rest[size..];
            match drive.turn(&host, &mut count, &ours, scratch) {
                Err(reason) => {
                    let _ = reason.to_string();
                    return;
                }
                // The mailbox has room again at the next turn.
                Ok(true) => continue,
                Ok(false) if rest.is_empty() => return,
                Ok(false) => {}
            }
        }
    });
}
