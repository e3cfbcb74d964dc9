//! Rules of one node. Whole clusters run in the simulator.

use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;

type Name = Arc<str>;
type Fx = Vec<Effect<Name, Named>>;

fn peers(names: &str) -> Vec<Name> {
    names.split_whitespace().map(Name::from).collect()
}

fn event(node: &mut Static<Name>, event: Event<Name, Named>) -> Fx {
    let mut effects = Vec::new();
    let mut rng = SmallRng::seed_from_u64(1);
    let done = node.handle(Duration::ZERO, event, &mut rng, &mut effects);
    done.unwrap();
    effects.retain(|e| !matches!(e, Effect::MembersChanged | Effect::Persist(_)));
    effects
}

/// A link comes up whose other end has named this one.
fn call(node: &mut Static<Name>, from: &str) -> Fx {
    let from = Name::from(from);
    let mut effects = event(node, Event::LinkUp(from.clone()));
    let message = Named;
    effects.extend(event(node, Event::Message { from, message }));
    effects
}

fn joined(names: &str) -> Static<Name> {
    let mut node = Static::new("me".into());
    for peer in peers(names) {
        event(&mut node, Event::Join(peer.clone()));
        event(&mut node, Event::LinkUp(peer));
    }
    node
}

fn up(name: &str) -> Effect<Name, Named> {
    Effect::NeighborUp(name.into())
}

fn released(name: &str) -> Effect<Name, Named> {
    Effect::Release(name.into())
}

#[test]
fn one_end_has_to_name_the_other() {
    let mut node = Static::new("me".into());
    let effects = event(&mut node, Event::Join("a".into()));
    assert_eq!(effects, [Effect::Want("a".into())]);
    assert_eq!(node.members(), peers("me"));
    let effects = event(&mut node, Event::LinkUp("a".into()));
    let (to, message) = ("a".into(), Named);
    for expected in [
        up("a"),
        Effect::Joined("a".into()),
        Effect::Send { to, message },
    ] {
        assert!(effects.contains(&expected), "{expected:?}");
    }
    // One that has named us is kept while it is there.
    let effects = call(&mut node, "b");
    assert_eq!(effects, [Effect::Want("b".into()), up("b")]);
    assert_eq!(node.members(), peers("a b me"));
    for (name, forgotten) in [("a", false), ("b", true)] {
        let effects = event(&mut node, Event::LinkDown(name.into(), Down::Failed));
        assert!(effects.contains(&Effect::NeighborDown(name.into())));
        assert_eq!(effects.contains(&released(name)), forgotten);
    }
    // A second link of the same stay is no second join.
    let effects = event(&mut node, Event::LinkUp("a".into()));
    assert!(effects.contains(&up("a")));
    assert!(!effects.contains(&Effect::Joined("a".into())));
    let mut effects = Vec::new();
    let mut rng = SmallRng::seed_from_u64(1);
    let own = Event::Join("me".into());
    let refused = node.handle(Duration::ZERO, own, &mut rng, &mut effects);
    assert_eq!(refused, Err(Error::SelfJoin));
}

/// Links are also made for users' messages.
#[test]
fn a_link_of_others_makes_no_neighbour_until_one_end_names_the_other() {
    let mut node = Static::new(Name::from("me"));
    assert_eq!(event(&mut node, Event::LinkUp("a".into())), []);
    let down = Event::LinkDown("a".into(), Down::Planned);
    assert_eq!(event(&mut node, down), []);
    event(&mut node, Event::LinkUp("a".into()));
    let effects = event(&mut node, Event::Join("a".into()));
    let (to, message) = ("a".into(), Named);
    assert!(effects.contains(&Effect::Send { to, message }));
    assert!(effects.contains(&Effect::Joined("a".into())) && effects.contains(&up("a")));
}

#[test]
fn one_that_closes_has_to_come_back_by_itself() {
    let mut node = joined("a");
    let effects = event(&mut node, Event::LinkDown("a".into(), Down::Planned));
    assert!(effects.contains(&released("a")));
    assert_eq!(node.named().count(), 1);
    event(&mut node, Event::LinkUp("a".into()));
    assert_eq!(node.members(), peers("a me"));
}

#[test]
fn who_is_removed_stays_away_until_it_is_joined() {
    let mut node = joined("a b");
    let effects = event(&mut node, Event::Remove("a".into()));
    assert_eq!(effects, [Effect::NeighborDown("a".into()), released("a")]);
    assert_eq!(call(&mut node, "a"), [released("a")]);
    event(&mut node, Event::Join("a".into()));
    event(&mut node, Event::LinkUp("a".into()));
    assert_eq!(node.members(), peers("a b me"));
}

#[test]
fn who_has_left_takes_nobody_in_until_it_joins() {
    let mut node = joined("a b");
    let effects = event(&mut node, Event::Leave);
    assert!(effects.contains(&released("a")) && effects.contains(&released("b")));
    assert!(effects.contains(&Effect::Left));
    assert_eq!(call(&mut node, "b"), [released("b")]);
    event(&mut node, Event::Join("a".into()));
    call(&mut node, "b");
    assert_eq!(node.members(), peers("b me"));
}

#[test]
fn updated_members_replace_all_others() {
    let mut node = joined("a b");
    call(&mut node, "x");
    assert_eq!(event(&mut node, Event::UpdateMembers(Vec::new())), []);
    let effects = event(&mut node, Event::UpdateMembers(peers("b c me")));
    assert!(effects.contains(&released("a")) && effects.contains(&released("x")));
    assert!(effects.contains(&Effect::Want("c".into())));
    assert_eq!(node.named().cloned().collect::<Vec<_>>(), peers("b c"));
    assert_eq!(node.members(), peers("b me"));
}

#[test]
fn what_was_named_is_kept() {
    let mut node = Static::new(Name::from("me"));
    let mut effects = Vec::new();
    let mut rng = SmallRng::seed_from_u64(1);
    for peer in peers("a b") {
        let done = node.handle(Duration::ZERO, Event::Join(peer), &mut rng, &mut effects);
        done.unwrap();
    }
    let Some(Effect::Persist(file)) = effects.pop() else {
        panic!("{effects:?}");
    };
    let mut again = Static::new(Name::from("me"));
    let effects = event(&mut again, Event::Loaded(file.clone()));
    assert_eq!(
        effects,
        [Effect::Want("a".into()), Effect::Want("b".into())]
    );
    assert!(read_file(&Name::from("you"), &file).is_err());
    for n in 0..file.len() {
        let mut bad = file.clone();
        bad[n] ^= 1;
        assert!(read_file(&Name::from("me"), &bad).is_err(), "byte {n}");
        assert!(read_file(&Name::from("me"), &file[..n]).is_err());
    }
}

#[test]
fn one_message_is_known() {
    let mut bytes = Vec::new();
    Named.encode(&mut bytes);
    assert_eq!(Named::decode(&mut Reader::new(&bytes)), Ok(Named));
    for bytes in [&[][..], &[0], &[1], &[2, 1], &[1, 2], &[1, 1, 0]] {
        assert!(Named::decode(&mut Reader::new(bytes)).is_err(), "{bytes:?}");
    }
}
