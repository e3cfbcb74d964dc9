//! Messages that another thread delivers.
//!
//! A host need not deliver on the I/O thread: it may hand the messages of one read over to a
//! thread of its own. Four things hold all the same, and this module keeps them.
//!
//! - **Bound.** The bytes handed over and not yet delivered are counted per connection; over
//!   [`limits::HANDED_OVER_BYTES`] the connection reads nothing until half of them are delivered.
//! - **Order.** A host that sees [`Outbox::handed_over`] at zero knows that everything that came
//!   before has been delivered, and may deliver on the I/O thread again.
//! - **Answers.** A question of the peer, whether all before it has been delivered, is answered when the handovers before it
//!   have ended.
//! - **Fence.** A session has not ended before the last of its messages is delivered; and if a
//!   [`Handover`] is dropped unfinished, so that its messages are lost, the session ends.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::connection::host::Lost;
use crate::connection::outbox::Outbox;
use crate::connection::session::{CloseReason, Session};
use crate::connection::sync::{AtomicBool, AtomicU64, Mutex, Ordering};
use crate::limits;
use crate::wire::frame::Question;

/// What a connection knows of its messages in other threads' hands.
#[derive(Default)]
pub(crate) struct Tally {
    bytes: AtomicU64,
    paused: AtomicBool,
    undelivered: AtomicU64,
    undecodable: AtomicU64,
    /// Handovers so far. Only the I/O thread counts.
    handed: AtomicU64,
    questions: Mutex<Questions>,
}

/// Questions whose answer waits for handovers, which end in the order in which they began.
#[derive(Default)]
struct Questions {
    /// Handovers that have ended.
    ended: u64,
    /// How many must have, and for which question.
    waiting: VecDeque<(u64, Question)>,
}

impl Questions {
    fn due(&mut self) -> Vec<Question> {
        let due = self.waiting.iter().take_while(|(at, _)| *at <= self.ended);
        let due = due.count();
        self.waiting
            .drain(..due)
            .map(|(_, question)| question)
            .collect()
    }
}

impl Tally {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    /// True if too much is under way: somebody will resume the connection.
    pub(crate) fn must_pause(&self) -> bool {
        if self.bytes() <= limits::HANDED_OVER_BYTES {
            return false;
        }
        // The last handover may have ended before it could see the flag: either its subtraction is
        // seen here, or the flag there. By read-modify-writes alone, for which no order between
        // the two variables is needed, and which the model checker knows exactly.
        self.paused.swap(true, Ordering::SeqCst);
        !(self.bytes.fetch_add(0, Ordering::SeqCst) <= limits::HANDED_OVER_BYTES / 2
            && self.paused.swap(false, Ordering::SeqCst))
    }

    /// Messages that were dropped since the last call.
    pub(crate) fn take_lost(&self) -> Lost {
        Lost {
            undelivered: self.undelivered.swap(0, Ordering::Relaxed),
            undecodable: self.undecodable.swap(0, Ordering::Relaxed),
        }
    }

    /// The peer asks whether all that it sent before has been delivered. Returns the questions to be answered now; the
    /// others are when the handovers before them have ended. `None` if the peer asks more than it may.
    pub(crate) fn ask(&self, question: Question) -> Option<Vec<Question>> {
        let mut questions = self.questions.lock();
        if questions.waiting.len() >= usize::from(limits::MAX_PARALLELISM) {
            return None;
        }
        let handed = self.handed.load(Ordering::Relaxed);
        questions.waiting.push_back((handed, question));
        Some(questions.due())
    }

    /// A handover has ended; returns the questions to be answered now.
    fn ended(&self) -> Vec<Question> {
        let mut questions = self.questions.lock();
        questions.ended += 1;
        questions.due()
    }

    /// True if the connection has to be resumed.
    fn delivered(&self, bytes: u64) -> bool {
        let left = self.bytes.fetch_sub(bytes, Ordering::SeqCst) - bytes;
        left <= limits::HANDED_OVER_BYTES / 2 && self.paused.swap(false, Ordering::SeqCst)
    }
}

/// Messages of one connection on their way through another thread.
pub struct Handover {
    session: Arc<Session>,
    outbox: Arc<Outbox>,
    bytes: u64,
    finished: bool,
}

impl Handover {
    /// `bytes` of messages are about to be handed over. Only for the I/O thread, while it has the
    /// connection.
    pub fn new(session: &Arc<Session>, outbox: &Arc<Outbox>, bytes: u64) -> Self {
        session.retained();
        outbox.tally.bytes.fetch_add(bytes, Ordering::SeqCst);
        outbox.tally.handed.fetch_add(1, Ordering::Relaxed);
        Self {
            session: session.clone(),
            outbox: outbox.clone(),
            bytes,
            finished: false,
        }
    }

    /// The connection that the messages came by.
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// All of them are delivered, but for those that are lost.
    pub fn finish(mut self, lost: Lost) {
        self.finished = true;
        if lost != Lost::default() {
            let tally = &self.outbox.tally;
            tally
                .undelivered
                .fetch_add(lost.undelivered, Ordering::Relaxed);
            tally
                .undecodable
                .fetch_add(lost.undecodable, Ordering::Relaxed);
        }
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        if !self.finished {
            self.session
                .abandon(CloseReason::Local("messages were lost inside this node"));
        }
        if self.outbox.tally.delivered(self.bytes) {
            self.outbox.resume();
        }
        for question in self.outbox.tally.ended() {
            if !self.outbox.answer(question) {
                self.session.abandon(CloseReason::too_many_questions());
            }
        }
        self.session.released();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(tally: &Tally, bytes: u64) {
        tally.bytes.fetch_add(bytes, Ordering::SeqCst);
    }

    #[test]
    fn a_connection_pauses_over_the_limit_and_is_resumed_at_half_of_it() {
        let tally = Tally::default();
        over(&tally, limits::HANDED_OVER_BYTES);
        assert!(!tally.must_pause());
        over(&tally, 1);
        assert!(tally.must_pause());
        assert!(!tally.delivered(1));
        assert!(!tally.delivered(limits::HANDED_OVER_BYTES / 2 - 1));
        assert!(tally.delivered(1));
        assert!(!tally.delivered(1), "resumed once");
    }

    #[test]
    fn questions_wait_for_the_handovers_before_them() {
        let question = |index| Question { index, number: 7 };
        let tally = Tally::default();
        assert_eq!(tally.ask(question(1)), Some(vec![question(1)]));
        tally.handed.fetch_add(2, Ordering::Relaxed);
        assert_eq!(tally.ask(question(2)), Some(vec![]));
        assert_eq!(tally.ended(), []);
        tally.handed.fetch_add(1, Ordering::Relaxed);
        assert_eq!(tally.ask(question(3)), Some(vec![]));
        assert_eq!(tally.ended(), [question(2)]);
        assert_eq!(tally.ended(), [question(3)]);
        tally.handed.fetch_add(1, Ordering::Relaxed);
        let asked = (0..).take_while(|&index| tally.ask(question(index)).is_some());
        assert_eq!(asked.count(), usize::from(limits::MAX_PARALLELISM));
    }

    #[test]
    fn what_was_delivered_before_the_pause_needs_no_resume() {
        let tally = Tally::default();
        over(&tally, 10);
        assert!(!tally.must_pause());
        assert!(!tally.delivered(10));
        assert_eq!(tally.bytes(), 0);
    }
}
