//! Rules of one node. Whole clusters run in the simulator.

use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;

type Name = Arc<str>;

fn peers(names: &str) -> Vec<Name> {
    names.split_whitespace().map(Name::from).collect()
}

fn event(node: &mut Static<Name>, event: Event<Name, Message>) -> Vec<Effect<Name, Message>> {
    let mut effects = Vec::new();
    let mut rng = SmallRng::seed_from_u64(1);
    let done = node.handle(Duration::ZERO, event, &mut rng, &mut effects);
    done.unwrap();
    effects.retain(|e| !matches!(e, Effect::MembersChanged | Effect::Persist(_)));
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

#[test]
fn one_end_has_to_name_the_other() {
    let mut node = Static::new("me".into());
    let [a, b] = [Name::from("a"), Name::from("b")];
    assert_eq!(
        event(&mut node, Event::Join(a.clone())),
        [Effect::Want(a.clone())]
    );
    assert_eq!(node.members(), peers("me"));
    let effects = event(&mut node, Event::LinkUp(a.clone()));
    assert!(effects.contains(&Effect::NeighborUp(a.clone())));
    assert!(effects.contains(&Effect::Joined(a.clone())));
    // One that has named us is kept while it is there.
    let effects = event(&mut node, Event::LinkUp(b.clone()));
    assert_eq!(
        effects,
        [Effect::Want(b.clone()), Effect::NeighborUp(b.clone())]
    );
    assert_eq!(node.members(), peers("a b me"));
    for (peer, forgotten) in [(a.clone(), false), (b, true)] {
        let effects = event(&mut node, Event::LinkDown(peer.clone(), Down::Failed));
        assert!(effects.contains(&Effect::NeighborDown(peer.clone())));
        assert_eq!(effects.contains(&Effect::Release(peer)), forgotten);
    }
    // A second link of the same stay is no second join.
    let effects = event(&mut node, Event::LinkUp(a.clone()));
    assert_eq!(
        effects,
        [Effect::Want(a.clone()), Effect::NeighborUp(a.clone())]
    );
    let mut effects = Vec::new();
    let mut rng = SmallRng::seed_from_u64(1);
    let own = Event::Join("me".into());
    let refused = node.handle(Duration::ZERO, own, &mut rng, &mut effects);
    assert_eq!(refused, Err(Error::SelfJoin));
}

#[test]
fn one_that_closes_has_to_come_back_by_itself() {
    let mut node = joined("a");
    let a = Name::from("a");
    let effects = event(&mut node, Event::LinkDown(a.clone(), Down::Planned));
    assert!(effects.contains(&Effect::Release(a.clone())));
    assert_eq!(node.named().count(), 1);
    event(&mut node, Event::LinkUp(a));
    assert_eq!(node.members(), peers("a me"));
}

#[test]
fn who_is_removed_stays_away_until_it_is_joined() {
    let mut node = joined("a b");
    let a = Name::from("a");
    let effects = event(&mut node, Event::Remove(a.clone()));
    assert_eq!(
        effects,
        [Effect::NeighborDown(a.clone()), Effect::Release(a.clone())]
    );
    assert_eq!(
        event(&mut node, Event::LinkUp(a.clone())),
        [Effect::Release(a.clone())]
    );
    event(&mut node, Event::Join(a.clone()));
    event(&mut node, Event::LinkUp(a));
    assert_eq!(node.members(), peers("a b me"));
}

#[test]
fn who_has_left_takes_nobody_in_until_it_joins() {
    let mut node = joined("a b");
    let effects = event(&mut node, Event::Leave);
    for peer in peers("a b") {
        assert!(effects.contains(&Effect::Release(peer)));
    }
    assert!(effects.contains(&Effect::Left));
    let b = Name::from("b");
    assert_eq!(
        event(&mut node, Event::LinkUp(b.clone())),
        [Effect::Release(b)]
    );
    event(&mut node, Event::Join("a".into()));
    event(&mut node, Event::LinkUp("b".into()));
    assert_eq!(node.members(), peers("b me"));
}

#[test]
fn updated_members_replace_all_others() {
    let mut node = joined("a b");
    event(&mut node, Event::LinkUp("x".into()));
    assert_eq!(event(&mut node, Event::UpdateMembers(Vec::new())), []);
    let effects = event(&mut node, Event::UpdateMembers(peers("b c me")));
    for peer in peers("a x") {
        assert!(effects.contains(&Effect::Release(peer)));
    }
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
fn no_bytes_are_a_message() {
    for bytes in [&[][..], &[0], &[1, 1]] {
        assert!(Message::decode(&mut Reader::new(bytes)).is_err());
    }
}
