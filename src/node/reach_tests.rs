//! Sessions on demand, and which nodes are up.

use std::sync::Arc;
use std::time::Duration;

use super::{Config, Effect, End, Event, State};
use crate::overlay::NodeSpec;

const N: &str = "n@host";

struct Host {
    state: State,
    now: Duration,
}

impl Host {
    fn new(whole: bool) -> Self {
        Self {
            state: State::new(Config::new(whole)),
            now: Duration::from_secs(1),
        }
    }

    fn on(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.state.handle(self.now, event, &mut effects);
        effects
    }

    /// Lets time pass, deadline by deadline.
    fn wait(&mut self, seconds: u64) -> Vec<Effect> {
        let until = self.now + Duration::from_secs(seconds);
        let mut effects = Vec::new();
        while let Some(at) = self.state.deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            effects.extend(self.on(Event::Tick));
        }
        self.now = until;
        effects
    }
}

fn name() -> Arc<str> {
    N.into()
}

fn spec() -> NodeSpec {
    NodeSpec {
        name: name(),
        listen_addrs: vec!["10.0.0.1:1".parse().unwrap()],
        channels: Vec::new(),
    }
}

#[test]
fn who_asks_is_answered_when_the_session_is_up() {
    let mut host = Host::new(false);
    assert_eq!(host.on(Event::Ask(name(), 1)), [Effect::Find(name())]);
    assert_eq!(
        host.on(Event::Ask(name(), 2)),
        [],
        "it is looked for already"
    );
    assert_eq!(host.on(Event::Found(spec())), [Effect::Want(spec())]);
    assert_eq!(
        host.on(Event::Up(name(), 7)),
        [
            Effect::NodeUp(name()),
            Effect::Answer(1, true),
            Effect::Answer(2, true)
        ]
    );
    assert_eq!(host.on(Event::Ask(name(), 3)), [Effect::Answer(3, true)]);
}

#[test]
fn who_asks_while_a_session_ends_gets_the_next() {
    let mut host = Host::new(false);
    host.on(Event::Up(name(), 7));
    assert_eq!(host.wait(61), [Effect::Release(name())]);
    // It drains; it has been idle for long.
    host.on(Event::Ending(name()));
    assert_eq!(host.on(Event::Ask(name(), 1)), [Effect::Find(name())]);
    assert_eq!(host.on(Event::Found(spec())), [Effect::Want(spec())]);
    assert_eq!(host.on(Event::Tick), []);
    assert_eq!(host.on(Event::Down(name(), End::Planned)), []);
    assert!(host.state.wanted().contains_key(N));
    assert_eq!(host.on(Event::Up(name(), 7)), [Effect::Answer(1, true)]);
}

#[test]
fn who_is_not_found_in_time_is_unreachable() {
    let mut host = Host::new(false);
    host.on(Event::Ask(name(), 1));
    assert_eq!(host.wait(9), []);
    assert_eq!(host.wait(2), [Effect::Answer(1, false)]);
    assert_eq!(host.state.deadline(), None);
    assert_eq!(host.on(Event::Found(spec())), [], "nobody asks any longer");
}

#[test]
fn a_session_is_kept_while_it_is_used() {
    let mut host = Host::new(false);
    host.on(Event::Ask(name(), 1));
    host.on(Event::Found(spec()));
    host.on(Event::Up(name(), 7));
    host.wait(50);
    host.on(Event::Used(name()));
    assert_eq!(host.wait(50), []);
    assert_eq!(host.wait(20), [Effect::Release(name())]);
    assert!(host.state.wanted().is_empty());
    assert_eq!(host.on(Event::Down(name(), End::Planned)), []);
    // It is up all the same, and its next session is no news.
    host.on(Event::Ask(name(), 2));
    host.on(Event::Found(spec()));
    assert_eq!(host.on(Event::Up(name(), 7)), [Effect::Answer(2, true)]);
}

#[test]
fn a_session_of_the_other_end_is_kept_and_not_made_again() {
    let mut host = Host::new(false);
    let effects = host.on(Event::Up(name(), 7));
    let Some(Effect::Want(kept)) = effects.last() else {
        panic!("{effects:?}");
    };
    assert!(kept.listen_addrs.is_empty());
    assert_eq!(
        host.on(Event::Down(name(), End::Planned)),
        [Effect::Release(name())]
    );
}

#[test]
fn a_broken_session_and_another_instance_are_news() {
    let mut host = Host::new(false);
    host.on(Event::Up(name(), 7));
    let effects = host.on(Event::Down(name(), End::Failed));
    assert_eq!(effects[0], Effect::NodeDown(name()));
    assert!(
        host.on(Event::Up(name(), 7))
            .contains(&Effect::NodeUp(name()))
    );
    host.on(Event::Down(name(), End::Planned));
    let effects = host.on(Event::Up(name(), 8));
    assert_eq!(
        effects[..2],
        [Effect::NodeDown(name()), Effect::NodeUp(name())]
    );
}

#[test]
fn who_is_watched_is_linked_again_or_down() {
    let mut host = Host::new(false);
    host.on(Event::Up(name(), 7));
    host.on(Event::Watch(name(), true));
    assert_eq!(host.wait(300), [], "it may be idle");
    assert_eq!(
        host.on(Event::Down(name(), End::Planned)),
        [Effect::Release(name()), Effect::Find(name())]
    );
    host.on(Event::Found(spec()));
    assert_eq!(host.on(Event::Up(name(), 7)), []);
    host.on(Event::Down(name(), End::Planned));
    let effects = host.wait(20);
    assert!(effects.contains(&Effect::NodeDown(name())), "{effects:?}");
    assert_eq!(host.state.deadline(), None);
}

#[test]
fn a_session_that_is_about_to_end_is_none() {
    let mut host = Host::new(false);
    host.on(Event::Up(name(), 7));
    host.on(Event::Ending(name()));
    assert_eq!(host.on(Event::Ask(name(), 1)), [Effect::Find(name())]);
    host.on(Event::Found(spec()));
    assert_eq!(host.on(Event::Down(name(), End::Planned)), []);
    assert!(host.state.wanted().contains_key(N), "it is dialled");
    assert_eq!(host.on(Event::Up(name(), 7)), [Effect::Answer(1, true)]);
}

#[test]
fn on_a_full_mesh_links_are_nodes() {
    let mut host = Host::new(true);
    assert_eq!(host.on(Event::Ask(name(), 1)), [Effect::Answer(1, false)]);
    assert_eq!(host.on(Event::Up(name(), 7)), [Effect::NodeUp(name())]);
    assert_eq!(host.on(Event::Ask(name(), 2)), [Effect::Answer(2, true)]);
    let down = Event::Down(name(), End::Planned);
    assert_eq!(host.on(down), [Effect::NodeDown(name())]);
    assert_eq!(host.state.deadline(), None);
}
