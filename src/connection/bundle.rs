//! A connection whose small messages go by another one, its trunk; see [`Branch`].

use std::sync::Arc;

use crate::channel::{Answered, Branch};
use crate::connection::outbox::{Outbox, Outgoing, Pressure, Pushed, Sent};
use crate::connection::sync::Mutex;
use crate::wire::frame::Question;

/// Senders of the trunk's own messages have other numbers, or share a branch's lane.
const FIRST_LANE: u64 = u64::MAX - 0xffff_ffff;

/// What a branch knows of its trunk.
///
/// Locks are taken in this order: the branch's state, its queue, the trunk's queue; and no system call is made under them.
pub(crate) struct Bundle {
    trunk: Arc<Outbox>,
    /// The branch's number in its session.
    index: u16,
    /// The largest message that goes by the trunk, in bytes.
    most: u64,
    state: Mutex<Branch>,
}

impl Bundle {
    pub(crate) fn new(trunk: Arc<Outbox>, index: u16, most: u64) -> Self {
        Self {
            trunk,
            index,
            most,
            state: Mutex::new(Branch::new()),
        }
    }

    fn lane(&self) -> u64 {
        FIRST_LANE + u64::from(self.index)
    }

    fn question(&self, number: u32) -> Question {
        Question {
            index: self.index,
            number,
        }
    }

    /// Sends a message of `branch`, whose bundle this is, the way it goes now.
    pub(crate) fn send(
        &self,
        branch: &Arc<Outbox>,
        sender: u64,
        message: Outgoing<'_>,
        pressure: Pressure,
    ) -> Sent {
        let mut state = self.state.lock();
        if state.is_recalled() {
            return Sent::Closed;
        }
        let large = message.frame_bytes().is_none_or(|bytes| bytes > self.most);
        let mut asked = false;
        if state.is_on_trunk() {
            if let (&Outgoing::Small { dest, term }, false, Pressure::Refuse | Pressure::Wait(_)) =
                (&message, large, &pressure)
            {
                let small = Outgoing::Small { dest, term };
                let pushed = self.trunk.push_light(self.lane(), small);
                if !matches!(pushed, Pushed::Not(Sent::Full)) {
                    // Others of this branch must not leave before this message is in the trunk, but may before it is written.
                    drop(state);
                    return self.trunk.pushed(pushed);
                }
            }
            let number = state.leave(branch.age());
            branch.queue().hold();
            asked = self.trunk.push_question(self.lane(), self.question(number));
            if !asked {
                return Sent::Closed;
            }
        }
        let pushed = branch.push(sender, message, pressure, |idle| {
            let number = state.sends(large, idle, || branch.age())?;
            Some(self.question(number))
        });
        drop(state);
        if asked {
            self.trunk.signal();
        }
        branch.pushed(pushed)
    }

    /// The peer has delivered what was in front of question `number`.
    pub(crate) fn answered(&self, branch: &Outbox, number: u32) {
        let released = {
            let mut state = self.state.lock();
            let mut queue = branch.queue();
            let answered = state.answered(number, queue.is_idle());
            if answered == Answered::Released {
                queue.release();
            }
            answered == Answered::Released
        };
        if released {
            branch.signal();
        }
    }

    /// `trunk` is about to end its queue: if it is this branch's, and the branch is leaving, it gets what that holds.
    pub(crate) fn recall(&self, branch: &Outbox, trunk: &Arc<Outbox>) {
        if Arc::ptr_eq(&self.trunk, trunk) && self.state.lock().recall() {
            branch.queue().surrender(&mut trunk.queue(), self.lane());
        }
    }
}
