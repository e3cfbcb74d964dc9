//! Rules of one node. Whole clusters are in `sim::tests::steered`.

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;
use crate::overlay::Down;

type Name = Arc<str>;
type Wish = Effect<Name, Listed>;

fn names(names: &str) -> Vec<Name> {
    names.split_whitespace().map(Name::from).collect()
}

fn tell(node: &mut Steered<Name>, event: Event<Name, Listed>) -> Vec<Wish> {
    let mut effects = Vec::new();
    let mut rng = SmallRng::seed_from_u64(1);
    let outcome = node.handle(Duration::ZERO, event, &mut rng, &mut effects);
    outcome.unwrap();
    effects
}

fn list(node: &mut Steered<Name>, others: &str) -> Vec<Wish> {
    let mut all = names("me");
    all.extend(names(others));
    tell(node, Event::UpdateMembers(all))
}

fn hear(node: &mut Steered<Name>, from: &str, listed: bool) -> Vec<Wish> {
    let (from, message) = (from.into(), Listed(listed));
    tell(node, Event::Message { from, message })
}

fn want(name: &str) -> Wish {
    Effect::Want(name.into())
}

fn release(name: &str) -> Wish {
    Effect::Release(name.into())
}

fn up(name: &str) -> Wish {
    Effect::NeighborUp(name.into())
}

fn down(name: &str) -> Wish {
    Effect::NeighborDown(name.into())
}

fn say(name: &str, listed: bool) -> Wish {
    let (to, message) = (name.into(), Listed(listed));
    Effect::Send { to, message }
}

#[test]
fn links_are_kept_with_whom_the_policy_lists() {
    let mut node = Steered::new(Name::from("me"));
    let wishes = list(&mut node, "a b");
    assert_eq!(wishes, [Effect::MembersChanged, want("a"), want("b")]);
    assert_eq!(node.members(), names("a b me"));
    let wishes = tell(&mut node, Event::LinkUp("a".into()));
    assert_eq!(wishes, [say("a", true), up("a")]);
    // The same again changes nothing.
    assert_eq!(list(&mut node, "a b"), []);
    let wishes = list(&mut node, "c");
    let expected = [
        Effect::MembersChanged,
        down("a"),
        release("a"),
        release("b"),
        want("c"),
    ];
    assert_eq!(wishes, expected);
    assert_eq!(tell(&mut node, Event::UpdateMembers(Vec::new())), []);
    assert_eq!(node.members(), names("c me"));
}

#[test]
fn whom_another_lists_is_its_neighbor() {
    let mut node = Steered::new(Name::from("me"));
    // A link for users' messages makes no neighbour.
    assert_eq!(tell(&mut node, Event::LinkUp("a".into())), []);
    assert_eq!(hear(&mut node, "a", true), [want("a"), up("a")]);
    assert_eq!(node.members(), names("me"));
    // Listed at both ends, then at one, then at none.
    assert_eq!(
        list(&mut node, "a"),
        [Effect::MembersChanged, want("a"), say("a", true)]
    );
    assert_eq!(
        list(&mut node, ""),
        [Effect::MembersChanged, say("a", false)]
    );
    assert_eq!(hear(&mut node, "a", false), [down("a"), release("a")]);
    // It comes back by itself, or not at all.
    tell(&mut node, Event::LinkUp("a".into()));
    hear(&mut node, "a", true);
    let lost = Event::LinkDown("a".into(), Down::Failed);
    assert_eq!(tell(&mut node, lost), [down("a"), release("a")]);
    list(&mut node, "a");
    tell(&mut node, Event::LinkUp("a".into()));
    let lost = Event::LinkDown("a".into(), Down::Failed);
    assert_eq!(tell(&mut node, lost), [down("a")]);
}

#[test]
fn whom_the_user_joins_is_listed_until_the_policy_has_heard_of_it() {
    let mut node = Steered::new(Name::from("me"));
    assert_eq!(tell(&mut node, Event::Join("a".into())), [want("a")]);
    // The policy has not heard of it yet.
    assert_eq!(list(&mut node, ""), []);
    let wishes = tell(&mut node, Event::LinkUp("a".into()));
    assert_eq!(
        wishes,
        [say("a", true), up("a"), Effect::Joined("a".into())]
    );
    assert_eq!(list(&mut node, ""), [down("a"), release("a")]);
    // One that has a link is joined at once, and again when it is asked for again.
    tell(&mut node, Event::LinkUp("b".into()));
    for before in [false, true] {
        let wishes = tell(&mut node, Event::Join("b".into()));
        assert!(wishes.contains(&Effect::Joined("b".into())), "{wishes:?}");
        assert_eq!(wishes.contains(&up("b")), !before);
    }
    assert_eq!(list(&mut node, "b"), [Effect::MembersChanged]);
    let mut rng = SmallRng::seed_from_u64(1);
    let itself = Event::Join("me".into());
    let refused = node.handle(Duration::ZERO, itself, &mut rng, &mut Vec::new());
    assert_eq!(refused, Err(Error::SelfJoin));
}

#[test]
fn who_has_left_is_taken_in_by_nobody_until_it_joins() {
    let mut node = Steered::new(Name::from("me"));
    list(&mut node, "a b");
    tell(&mut node, Event::LinkUp("a".into()));
    let wishes = tell(&mut node, Event::Leave);
    let expected = [
        down("a"),
        release("a"),
        release("b"),
        Effect::MembersChanged,
        Effect::Left,
    ];
    assert_eq!(wishes, expected);
    tell(&mut node, Event::LinkUp("a".into()));
    assert_eq!(hear(&mut node, "a", true), [release("a")]);
    assert_eq!(list(&mut node, "a"), []);
    tell(&mut node, Event::Join("a".into()));
    tell(&mut node, Event::LinkUp("a".into()));
    assert_eq!(list(&mut node, "a"), [Effect::MembersChanged]);
    let removed = Event::Remove("a".into());
    assert_eq!(
        tell(&mut node, removed),
        [Effect::MembersChanged, down("a"), release("a")]
    );
}

#[test]
fn messages_are_read_back_and_others_refused() {
    for message in [Listed(false), Listed(true)] {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        assert_eq!(Listed::decode(&mut Reader::new(&bytes)), Ok(message));
        bytes.push(0);
        assert!(Listed::decode(&mut Reader::new(&bytes)).is_err());
    }
    for bytes in [&[][..], &[1], &[1, 2], &[2, 1]] {
        assert!(
            Listed::decode(&mut Reader::new(bytes)).is_err(),
            "{bytes:?}"
        );
    }
}
