//! What waits on a connection: queues, budgets and fairness. No socket, no clock, no thread.
//!
//! # The idea
//!
//! Many senders share one connection. Each gets a *lane* of its own, and the lanes that hold
//! something stand in a ring. *Deficit round robin* (Shreedhar & Varghese, "Efficient Fair
//! Queueing using Deficit Round Robin", SIGCOMM 1995) goes round the ring. A lane whose turn it is
//! receives a quantum of bytes on top of what it saved, and sends items until the next one costs
//! more than it has left; that remainder (the deficit) it keeps for its next turn. A lane that
//! becomes empty leaves the ring and loses its savings, so nobody hoards turns by being silent.
//! Each step is O(1), whatever the number of senders, and over time every lane gets the same number
//! of bytes, whether its messages are large or small.
//!
//! Round robin is only as smooth as its items are small. So a lane's small messages are packed into
//! chunks, which leave whole, and a large message is cut into fragments, which interleave with the
//! items of other lanes. Within a lane order is never changed.
//!
//! # Bounds
//!
//! [`Queue::admit`] says who may add to a queue now; who may not waits, and [`Queue::grant`] serves
//! the waiting, first come, first served in two classes. The
//! rules stand at [`Admission`]. [`Ceiling`] bounds the sum over all queues of a node.
//!
//! [`Branch`] lets the connections of a channel share one while there is little to send.
//!
//! # Who calls what
//!
//! The queue of a connection lies in a mutex; senders push, one I/O thread takes.
//!
//! - Sender: [`admit`](Queue::admit), then push, and [`Ceiling::add`] what the push returned.
//! - Sender that has to wait: [`wait`](Queue::wait), then [`grant`](Queue::grant) *before it unlocks*:
//!   the ceiling may have got room since it was asked.
//! - Woken sender: [`redeem`](Queue::redeem), push, [`Ceiling::settle`], then `grant` if the push was
//!   smaller than the reservation.
//! - Sender that gives up: [`cancel`](Queue::cancel), [`Ceiling::sub`] of what was released, `grant`.
//! - I/O thread: [`take`](Queue::take), write, [`Batch::advance`], [`written`](Queue::written),
//!   [`Ceiling::sub`], `grant`.
//! - Whenever [`Ceiling::sub`] or [`Ceiling::settle`] returns true: `grant` on every queue of the node
//!   that [has waiters](Queue::has_waiters).
//!
//! A waiter is granted by one of those calls as soon as there is room for it; none is forgotten,
//! because every way in which room appears is in this list.

mod admission;
mod batch;
mod branch;
mod ceiling;
mod lane;
mod queue;
#[cfg(test)]
mod tests;

pub use admission::{Admission, Cancelled, Ticket};
pub use batch::Batch;
pub use branch::{Answered, Branch, SETTLED};
pub use ceiling::Ceiling;
pub use queue::{Closed, Config, Queue};
