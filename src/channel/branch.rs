//! Small messages of all keys on one connection, while there is little to send.
//!
//! A channel with many connections has one for each partition key, so that nobody waits behind the large messages of
//! others. For small messages that is a waste: where a hundred senders send one at a time, each on a connection of its
//! own, every message costs a write, a read and a wake-up, which one connection would have shared between all of them.
//! So the first connection of a channel is its *trunk* and the others are *branches*. A branch sends its small messages
//! by the trunk, in a lane of their own, until there is a reason not to: a large message, or a trunk that is itself
//! behind with its work. It returns when that is over.
//!
//! Order within the branch must not break when it changes its way. Before it does, the receiver must have delivered all
//! that went the old way; so the branch *asks*, behind the last of it, and the receiver *answers* when that is delivered.
//!
//! - **Leaving.** The question goes by the trunk, in the branch's lane. Until it is answered, for a round trip, the
//!   branch's own queue is held: it takes messages, and writes none.
//! - **Returning.** The question goes by the branch, behind a message that finds its queue empty. If something was
//!   sent before the answer came, there will be another question; else the branch is on the trunk again. Senders that
//!   wait for an answer to each message leave that gap; those that don't have so much to send that a connection of
//!   their own suits them.
//!
//! A session that ends lets everything out of its queues first. Then the trunk *recalls* a branch that is leaving, because
//! the peer may answer no more: what it holds goes by the trunk after all.
//!
//! This is the state of one branch at the sender. Called once per message, it has methods in place of events.

use std::time::Duration;

/// How long a branch stays away from the trunk after it had a reason to leave. Leaving costs a round trip.
pub const SETTLED: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Small messages go by the trunk; nothing is on the way by the branch.
    OnTrunk,
    /// Messages are held until the question is answered that went by the trunk.
    Leaving,
    /// All messages go by the branch.
    Away,
    /// The same, and the receiver has been asked; nothing was sent since.
    Asked,
    /// The same, and something was: the answer will mean nothing.
    AskedInVain,
    /// Nothing goes any more.
    Recalled,
}

/// What an answer has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// Nothing that anybody has to see to.
    Nothing,
    /// What was held may be written.
    Released,
}

/// Which way the messages of one connection go.
#[derive(Clone, Debug)]
pub struct Branch {
    state: State,
    /// Number of the last question. There is at most one under way, so it may wrap.
    number: u32,
    /// When there last was a reason to be away.
    restless: Duration,
}

impl Default for Branch {
    fn default() -> Self {
        Self::new()
    }
}

impl Branch {
    /// A branch that has sent nothing yet: on the trunk.
    pub fn new() -> Self {
        Self {
            state: State::OnTrunk,
            number: 0,
            restless: Duration::ZERO,
        }
    }

    /// Whether small messages go by the trunk.
    pub fn is_on_trunk(&self) -> bool {
        self.state == State::OnTrunk
    }

    /// Whether [`recall`](Self::recall) has ended it.
    pub fn is_recalled(&self) -> bool {
        self.state == State::Recalled
    }

    /// Leaves the trunk at `now`: from here on the branch's queue is held. Returns the number of the question that goes by
    /// the trunk.
    pub fn leave(&mut self, now: Duration) -> u32 {
        self.state = State::Leaving;
        self.restless = now;
        self.number = self.number.wrapping_add(1);
        self.number
    }

    /// A message goes by the branch at `now()`. `large`: it is none for the trunk. `idle`: nothing was queued, in flight
    /// or waiting in the branch before it. Returns the number of the question that follows the message, if one does.
    pub fn sends(
        &mut self,
        large: bool,
        idle: bool,
        now: impl FnOnce() -> Duration,
    ) -> Option<u32> {
        if self.state == State::Asked {
            self.state = State::AskedInVain;
        }
        if large {
            self.restless = now();
            return None;
        }
        if self.state != State::Away || !idle || now().saturating_sub(self.restless) < SETTLED {
            return None;
        }
        self.state = State::Asked;
        self.number = self.number.wrapping_add(1);
        Some(self.number)
    }

    /// The receiver has delivered everything in front of question `number`; `idle` as for [`sends`](Self::sends).
    /// An answer to no question changes nothing.
    pub fn answered(&mut self, number: u32, idle: bool) -> Answered {
        if number != self.number {
            return Answered::Nothing;
        }
        match self.state {
            State::Leaving => {
                self.state = State::Away;
                return Answered::Released;
            }
            State::Asked if idle => self.state = State::OnTrunk,
            State::Asked | State::AskedInVain => self.state = State::Away,
            State::OnTrunk | State::Away | State::Recalled => {}
        }
        Answered::Nothing
    }

    /// The trunk is about to end. True if the branch was leaving: then it has ended too, and what it holds goes by the trunk.
    pub fn recall(&mut self) -> bool {
        let leaving = self.state == State::Leaving;
        if leaving {
            self.state = State::Recalled;
        }
        leaving
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// One that has left a while ago.
    fn away() -> (Branch, Duration) {
        let mut branch = Branch::new();
        assert!(branch.is_on_trunk());
        let number = branch.leave(MS);
        assert!(!branch.is_on_trunk());
        assert_eq!(branch.sends(false, true, || MS + SETTLED), None, "held");
        assert_eq!(branch.answered(number, false), Answered::Released);
        assert_eq!(branch.answered(number, false), Answered::Nothing);
        assert!(!branch.is_on_trunk());
        assert_eq!(branch.sends(false, true, || MS), None, "too soon");
        (branch, MS + SETTLED)
    }

    #[test]
    fn returns_when_the_answer_finds_nothing_sent_since() {
        let (mut branch, later) = away();
        assert_eq!(branch.sends(false, false, || later), None, "not idle");
        let asked = branch.sends(false, true, || later).expect("a question");
        branch.answered(asked.wrapping_sub(1), true);
        assert!(!branch.is_on_trunk(), "the answer to something else");
        assert_eq!(branch.answered(asked, true), Answered::Nothing);
        assert!(branch.is_on_trunk());
        branch.answered(asked, true);
        assert_ne!(branch.leave(later), asked);
    }

    #[test]
    fn asks_again_after_an_answer_in_vain() {
        let (mut branch, later) = away();
        let first = branch.sends(false, true, || later).expect("a question");
        assert_eq!(branch.sends(false, true, || later), None, "one at a time");
        branch.answered(first, true);
        assert!(!branch.is_on_trunk());
        let second = branch.sends(false, true, || later).expect("a question");
        branch.answered(second, false);
        assert!(!branch.is_on_trunk(), "somebody waits for room");
        assert!(branch.sends(false, true, || later).is_some());
    }

    #[test]
    fn large_messages_keep_it_away() {
        let (mut branch, later) = away();
        assert_eq!(branch.sends(true, true, || later), None);
        assert_eq!(branch.sends(false, true, || later), None);
        assert!(branch.sends(false, true, || later + SETTLED).is_some());
    }

    #[test]
    fn only_who_is_leaving_is_recalled() {
        let (mut branch, later) = away();
        assert!(!branch.recall() && !branch.is_recalled());
        let mut leaving = Branch::new();
        assert!(!leaving.recall() && leaving.is_on_trunk());
        let number = leaving.leave(later);
        assert!(leaving.recall() && leaving.is_recalled());
        assert_eq!(leaving.answered(number, true), Answered::Nothing);
        assert!(leaving.is_recalled());
    }
}
