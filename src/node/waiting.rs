//! Messages in the order in which a process gets them.
//!
//! Most messages come many at a time from one peer. They lie here as a [`Run`]: the encoded terms side by
//! side, and what they have in common once. A [`Message`] is made of one when it is taken out, with memory of
//! its own: its receiver may keep it for as long as it likes, and the thread that has made the run
//! neither allocates nor counts references for it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::node::mailbox::Message;
use crate::wire::handshake::SessionId;
use crate::wire::term::{Reference, Term};

/// Bytes of a term's length in a [`Run`].
const LENGTH: usize = 4;

/// Messages in a row that one session has brought for one process.
pub(crate) struct Run {
    from: Arc<str>,
    session: SessionId,
    /// Each term behind its length.
    terms: Box<[u8]>,
    /// Where the next one stands.
    at: usize,
}

impl Run {
    /// Messages of the node `from`: what [`Run::append`] has put into `terms`.
    pub(crate) fn new(from: Arc<str>, session: SessionId, terms: &[u8]) -> Self {
        Self {
            from,
            session,
            terms: terms.into(),
            at: 0,
        }
    }

    /// Appends a term, of less than 4 GiB, to those of a run. It has to be one for [`Term::from_common`].
    pub(crate) fn append(terms: &mut Vec<u8>, term: &[u8]) {
        terms.extend_from_slice(&(term.len() as u32).to_le_bytes());
        terms.extend_from_slice(term);
    }

    fn is_empty(&self) -> bool {
        self.at == self.terms.len()
    }

    #[inline]
    fn next(&mut self) -> Option<Message> {
        let (length, rest) = self.terms.get(self.at..)?.split_first_chunk::<LENGTH>()?;
        let term = rest.get(..u32::from_le_bytes(*length) as usize)?;
        self.at += LENGTH + term.len();
        Some(Message::of_session(
            self.from.clone(),
            Some(self.session),
            Term::from_common(Bytes::copy_from_slice(term)),
        ))
    }
}

enum Entry {
    One(Message),
    /// Never empty.
    Run(Run),
}

/// Messages that wait.
#[derive(Default)]
pub(crate) struct Waiting {
    entries: VecDeque<Entry>,
    /// Entries at the front that go before all others.
    urgent: usize,
}

impl Waiting {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the next message is an urgent one.
    pub(crate) fn is_urgent(&self) -> bool {
        self.urgent > 0
    }

    pub(crate) fn push(&mut self, message: Message) {
        self.entries.push_back(Entry::One(message));
    }

    pub(crate) fn push_run(&mut self, run: Run) {
        if !run.is_empty() {
            self.entries.push_back(Entry::Run(run));
        }
    }

    /// Behind the urgent ones, before all others.
    pub(crate) fn push_urgent(&mut self, message: Message) {
        self.entries.insert(self.urgent, Entry::One(message));
        self.urgent += 1;
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Message> {
        if let Some(Entry::Run(run)) = self.entries.front_mut() {
            let message = run.next();
            if run.is_empty() {
                self.entries.pop_front();
            }
            return message;
        }
        self.urgent = self.urgent.saturating_sub(1);
        match self.entries.pop_front() {
            Some(Entry::One(message)) => Some(message),
            _ => None,
        }
    }

    /// Takes out the notice of a monitor, if it is here.
    pub(crate) fn remove_down(&mut self, reference: &Reference) -> Option<Message> {
        let is_it = |entry: &Entry| matches!(entry, Entry::One(m) if m.is_down_of(reference));
        let at = self.entries.iter().position(is_it)?;
        if at < self.urgent {
            self.urgent -= 1;
        }
        match self.entries.remove(at) {
            Some(Entry::One(message)) => Some(message),
            _ => None,
        }
    }
}
