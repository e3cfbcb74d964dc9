//! How sessions come up: dials, arrivals and the answers of the links' rules to them.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::connection::establish::{self, Authenticated, EstablishError, Judgement, Origin};
use crate::connection::host::Host;
use crate::connection::listen::Arrival;
use crate::node::links;
use crate::wire::handshake::{HandshakeError, Verdict};

use super::{Control, Dialled, Setup};

impl<H: Host> Control<H> {
    pub(super) fn dial(&mut self, dial: u64, name: Arc<str>, addr: SocketAddr) {
        let (local, desk, report) = (self.local.clone(), self.desk.clone(), self.dialled.clone());
        let peer = name.clone();
        let task = self.tasks.spawn(async move {
            let outcome = establish::dial(local, desk, peer.clone(), addr, dial).await;
            // Fails only when the node has stopped.
            let _ = report
                .send(Dialled {
                    name: peer,
                    dial,
                    outcome,
                })
                .await;
        });
        self.dials.insert(dial, task);
    }

    pub(super) fn verdict(&mut self, attempt: u64, verdict: links::Verdict) {
        let Some((name, answer)) = self.attempts.remove(&attempt) else {
            return;
        };
        let verdict = match verdict {
            links::Verdict::Accept { simultaneous } => {
                self.judged.insert(attempt, name.clone());
                Verdict::Accept {
                    cookie: self.local.cookie_for(&name),
                    simultaneous,
                }
            }
            links::Verdict::Nok => Verdict::Nok,
            links::Verdict::NotAllowed(why) => {
                if self.complaints.is_new(&name) {
                    tracing::warn!(peer = %name, "connection refused: {why}");
                }
                Verdict::NotAllowed(why)
            }
        };
        let _ = answer.send(verdict);
    }

    pub(super) fn judge(&mut self, judgement: Judgement) {
        let Judgement {
            attempt,
            peer,
            answer,
        } = judgement;
        let Some(trailer) = peer.trailer else {
            if self.complaints.is_new(&peer.name) {
                tracing::warn!(
                    peer = %peer.name,
                    "connection refused: the node runs no Partisan; this listener serves \
                     Partisan nodes only"
                );
            }
            let _ = answer.send(Verdict::NotAllowed("no Partisan"));
            return;
        };
        self.attempts.insert(attempt, (peer.name.clone(), answer));
        self.link(links::Event::Incoming {
            attempt,
            name: peer.name,
            instance: trailer.instance,
            extra: trailer.extra,
        });
    }

    pub(super) fn authenticated(&mut self, request: Authenticated) {
        let Authenticated {
            name,
            instance,
            origin,
            admit,
        } = request;
        let session = self.next_session;
        self.next_session += 1;
        let origin = match origin {
            Origin::Dialled(dial) => links::Origin::Dialled(dial),
            Origin::Accepted(attempt) => {
                self.judged.remove(&attempt);
                links::Origin::Accepted(attempt)
            }
        };
        let setup = Setup {
            name: name.clone(),
            admit: Some(admit),
            keep: None,
        };
        self.setups.insert(session, setup);
        self.link(links::Event::Established {
            name,
            instance,
            session,
            origin,
        });
    }

    pub(super) fn dialled(&mut self, dialled: Dialled) {
        let Dialled {
            name,
            dial,
            outcome,
        } = dialled;
        self.dials.remove(&dial);
        match outcome {
            Ok((number, ready)) => self.bring_up(number, ready),
            Err((Some(number), error)) => self.setup_failed(number, &error),
            Err((None, error)) => {
                if is_nok(&error) {
                    self.link(links::Event::DialNok { name, dial });
                    return;
                }
                if !matches!(error, EstablishError::GivenUp) && self.complaints.is_new(&name) {
                    tracing::warn!(peer = %name, "cannot connect: {error}");
                }
                let error = match error {
                    EstablishError::Connect { .. } | EstablishError::Timeout(_) => {
                        links::DialError::Unreachable
                    }
                    _ => links::DialError::Rejected,
                };
                self.link(links::Event::DialFailed { name, dial, error });
            }
        }
    }

    pub(super) fn arrived(&mut self, arrival: Arrival) {
        let Arrival {
            attempt,
            from,
            outcome,
        } = arrival;
        match outcome {
            Ok((number, ready)) => self.bring_up(number, ready),
            Err((Some(number), error)) => self.setup_failed(number, &error),
            Err((None, error)) => {
                self.attempts.remove(&attempt);
                let judged = self.judged.remove(&attempt);
                // The refusal was logged when it was decided.
                let refused = matches!(
                    error,
                    EstablishError::GivenUp
                        | EstablishError::Handshake(HandshakeError::RefusedByUs { .. })
                );
                let origin = judged
                    .clone()
                    .unwrap_or_else(|| from.ip().to_string().into());
                if !refused && self.complaints.is_new(&origin) {
                    tracing::warn!(%from, peer = %origin, "handshake failed: {error}");
                }
                if let Some(name) = judged {
                    self.link(links::Event::AttemptGone { attempt, name });
                }
            }
        }
    }

    pub(super) fn setup_failed(&mut self, number: u64, error: &EstablishError) {
        let Some(setup) = self.setups.remove(&number) else {
            return;
        };
        if !matches!(error, EstablishError::GivenUp) && self.complaints.is_new(&setup.name) {
            tracing::warn!(peer = %setup.name, "session did not come up: {error}");
        }
        self.link(links::Event::Down {
            name: setup.name,
            session: number,
        });
    }
}

fn is_nok(error: &EstablishError) -> bool {
    use crate::wire::handshake::Refusal;
    matches!(
        error,
        EstablishError::Handshake(HandshakeError::Refused {
            refusal: Refusal::Nok,
            ..
        })
    )
}
