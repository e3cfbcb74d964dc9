//! The host of the node's overlays: feeds them, and does what they say.

use crate::broadcast::Event;
use crate::connection::host::Host;
use crate::connection::inlet::{Subject, binary_term};
use crate::connection::outbox::{Outgoing, Pressure, Sent};
use crate::connection::session::CloseReason;
use crate::node::persist::Store;
use crate::node::reach;
use crate::overlay::membership::{Error, Input, Output};
use crate::wire::frame::Dest;

use super::{Control, MEMBERSHIP_CHANNEL, MEMBERSHIP_SENDER};

impl<H: Host> Control<H> {
    /// Feeds the overlay, and does what it says. An error is the user's: what a peer has done
    /// wrong costs it its session and is logged.
    pub(super) fn feed(&mut self, input: Input) -> Result<(), Error> {
        let from = match &input {
            Input::Bytes(from, _) => Some(from.clone()),
            _ => None,
        };
        let mut outputs = Vec::new();
        let now = self.now();
        let outcome = self
            .overlay
            .handle(now, input, &mut rand::rng(), &mut outputs);
        for output in outputs {
            self.do_overlay(output);
        }
        self.tell_overlay();
        let (Some(from), Err(error)) = (from, &outcome) else {
            return outcome;
        };
        if let Some(session) = self.session(&from) {
            // Whoever sends what nobody can read is logged with the end of its session.
            match error {
                Error::Unreadable(_) => {
                    session.close(CloseReason::Protocol(error.to_string()));
                }
                // In order: the peer hears from us what it is about, and logs it too.
                _ => session.close_after_flush(CloseReason::Local("its overlay does not fit")),
            }
        }
        if !matches!(error, Error::Unreadable(_)) && self.complaints.is_new(&from) {
            tracing::warn!(peer = %from, "{error}");
        }
        Ok(())
    }

    /// Whether all nodes are linked with each other, and no other overlay ran until just now.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.shown, Some((_, false))) && self.overlay.is_whole()
    }

    /// Whoever has to know which overlay runs is told if it is another one now.
    fn tell_overlay(&mut self) {
        let now = (self.overlay.status(), !self.overlay.is_whole());
        if self.shown.as_ref() == Some(&now) {
            return;
        }
        let (status, reaches) = &now;
        self.observer.lock().overlay(status, *reaches);
        if let Some((before, _)) = &self.shown
            && before != status
        {
            let (overlay, epoch) = (status.overlay, status.epoch);
            match status.until_switched {
                Some(before) => tracing::info!(overlay, epoch, before, "switching"),
                None => tracing::info!(overlay, epoch, "switched"),
            }
        }
        let whole = !reaches;
        self.shown = Some(now);
        self.reach(reach::Event::Whole(whole));
    }

    fn do_overlay(&mut self, output: Output) {
        match output {
            Output::Send(to, bytes) => self.send(&to, &bytes),
            Output::Want(spec) => {
                self.remember(&spec);
                self.wanted.insert(spec.name.clone(), (*spec).clone());
                self.rewanted = true;
            }
            Output::Release(name) => {
                self.rewanted |= self.wanted.remove(&name).is_some();
                if let Some(&number) = self.numbers.get(&name)
                    && let Some(session) = self.sessions.get(&number)
                {
                    self.parted.insert(number);
                    match self.left {
                        true => session.leave(),
                        false => session.release(),
                    }
                }
            }
            Output::NeighborUp(name) => self.spread_on(Event::NeighborUp(name)),
            Output::NeighborDown(name) => self.spread_on(Event::NeighborDown(name)),
            Output::MembersChanged => {
                let before = std::mem::replace(&mut self.members, self.overlay.members());
                self.observer.lock().members(&self.members);
                self.delivery_members(&before);
            }
            Output::Persist(bytes) => {
                if let Some(store) = &self.store
                    && let Err(e) = store.save(&bytes)
                {
                    tracing::error!(error = %e, "the membership could not be saved");
                }
            }
            Output::Left => {
                tracing::info!("this node has left its cluster");
                // Those that were made for the user's sake, too.
                for session in self.sessions.values() {
                    session.leave();
                }
                self.delivery_leave();
                self.observer.lock().left();
                for reply in self.leaving.drain(..) {
                    reply(Ok(()));
                }
            }
            Output::Joined(name) => {
                self.left = false;
                tracing::info!(peer = %name, "joined the cluster");
                self.observer.lock().joined(&name);
            }
        }
    }

    pub(super) fn send(&self, to: &str, bytes: &[u8]) {
        let Some(session) = self.session(to) else {
            return;
        };
        let route = session
            .route(MEMBERSHIP_CHANNEL, 0)
            .or_else(|| session.outbox(0));
        let Some(outbox) = route else { return };
        let term = binary_term(|out| out.extend_from_slice(bytes));
        let message = Outgoing::of(Dest::Name(Subject::Membership.name()), &term, &[], false);
        if outbox.send(MEMBERSHIP_SENDER, message, Pressure::Refuse) != Sent::Queued {
            tracing::debug!(peer = %to, "membership message not sent: no room");
        }
    }

    /// Handles a user's event at once, so that its error can be told.
    pub(super) fn ask_overlay(&mut self, input: Input) -> Result<(), String> {
        self.settle();
        let outcome = self.feed(input);
        self.settle();
        outcome.map_err(|e| e.to_string())
    }

    pub(super) fn load(&mut self) {
        let Some(store) = &self.store else { return };
        match store.load() {
            Ok(None) => {}
            Ok(Some(bytes)) => {
                if let Err(e) = self.ask_overlay(Input::Loaded(bytes)) {
                    let kept = self.store.as_ref().map(Store::set_aside);
                    tracing::error!(
                        ?kept,
                        "{e}; the node starts alone and has to join its cluster again"
                    );
                }
            }
            Err(e) => tracing::error!(error = %e, "the membership could not be read"),
        }
    }
}
