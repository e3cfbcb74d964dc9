//! An overlay that cannot leave its links alone: whoever has joined releases its link again and again.

use std::time::Duration;

use partisan::overlay::codec::{DecodeError, Reader};
use partisan::overlay::{Effect, Effects, Error, Event, Overlay, Peer, Wire};
use rand::Rng;

/// How long a link is kept, and how long there is none.
const KEPT: Duration = Duration::from_millis(60);
const LEFT: Duration = Duration::from_millis(5);

/// No messages.
#[derive(Clone, Debug)]
pub(crate) struct Nothing;

impl Wire for Nothing {
    fn encode(&self, _: &mut Vec<u8>) {}

    fn decode(_: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self)
    }
}

/// One of two nodes.
pub(crate) struct Blink<P> {
    own: P,
    other: Option<P>,
    linked: bool,
    joined: bool,
    next: Option<Duration>,
}

impl<P: Peer> Blink<P> {
    pub(crate) fn new(own: P) -> Self {
        Self {
            own,
            other: None,
            linked: false,
            joined: false,
            next: None,
        }
    }
}

impl<P: Peer> Overlay for Blink<P> {
    type Peer = P;
    type Message = Nothing;

    fn handle(
        &mut self,
        now: Duration,
        event: Event<P, Nothing>,
        _: &mut dyn Rng,
        effects: &mut Effects<Self>,
    ) -> Result<(), Error> {
        match event {
            Event::Join(peer) => {
                self.joined = true;
                effects.push(Effect::Joined(peer.clone()));
                effects.push(Effect::Want(peer));
            }
            Event::LinkUp(peer) => {
                self.linked = true;
                effects.push(Effect::NeighborUp(peer.clone()));
                self.other = Some(peer);
                self.next = self.joined.then_some(now + KEPT);
            }
            Event::LinkDown(peer, _) => {
                self.linked = false;
                effects.push(Effect::NeighborDown(peer));
            }
            Event::Tick if self.next.is_some_and(|at| at <= now) => {
                let Some(other) = self.other.clone() else {
                    return Ok(());
                };
                if std::mem::take(&mut self.linked) {
                    effects.push(Effect::NeighborDown(other.clone()));
                    effects.push(Effect::Release(other));
                    self.next = Some(now + LEFT);
                } else {
                    effects.push(Effect::Want(other));
                    self.next = None;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn deadline(&self) -> Option<Duration> {
        self.next
    }

    fn members(&self) -> Vec<P> {
        let mut all: Vec<P> = self.other.iter().cloned().collect();
        all.push(self.own.clone());
        all.sort();
        all
    }
}
