//! What scope processes say to each other.

use super::{Change, Group};
use crate::limits::MAX_PG_LEAVES;
use crate::wire::term::{Pid, Value};

/// A message between scope processes; see the [module](super) for its forms.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// Asks for all members.
    Discover {
        /// Who asks.
        peer: Pid,
        /// The version that it speaks, 0 or more.
        version: u32,
    },
    /// All members on one node.
    Data {
        /// The scope process of that node.
        peer: Pid,
        /// The version that this is said in.
        version: u32,
        /// The groups, each once, with their members.
        groups: Vec<(Group, Vec<Pid>)>,
    },
    /// Members on one node have changed.
    Update {
        /// The scope process of that node.
        peer: Pid,
        /// The version that this is said in.
        version: u32,
        /// The changes, in order.
        changes: Vec<Change>,
    },
}

impl Message {
    /// Who has sent it.
    #[must_use]
    pub fn peer(&self) -> &Pid {
        match self {
            Self::Discover { peer, .. } | Self::Data { peer, .. } | Self::Update { peer, .. } => {
                peer
            }
        }
    }

    /// Reads a message; `None` if it has none of the forms.
    #[must_use]
    pub fn parse(message: &Value) -> Option<Self> {
        let (word, rest) = message.as_tuple()?.split_first()?;
        match (word.as_atom()?, rest) {
            ("$gen_cast", [cast]) => {
                let (word, rest) = cast.as_tuple()?.split_first()?;
                match (word.as_atom()?, rest) {
                    ("sync", [peer, groups]) => {
                        let pairs = groups.as_list()?.iter().map(|pair| match pair.as_tuple()? {
                            [group, members] => Some((group, members)),
                            _ => None,
                        });
                        data(peer, 0, pairs)
                    }
                    ("local_data", [peer, version, groups]) => {
                        let pairs = groups.as_map()?.iter();
                        data(peer, number(version), pairs.map(|(g, m)| Some((g, m))))
                    }
                    _ => None,
                }
            }
            ("discover", [peer]) => Some(Self::Discover {
                peer: peer.as_pid()?.clone(),
                version: 0,
            }),
            ("discover", [peer, version]) => Some(Self::Discover {
                peer: peer.as_pid()?.clone(),
                version: number(version),
            }),
            ("join", [peer, group, joined]) => {
                let change = change(group, pids(joined)?, Vec::new())?;
                update(peer, 0, vec![change])
            }
            ("leave", [peer, left, groups]) => {
                let (left, groups) = (pids(left)?, groups.as_list()?);
                // The product of two lengths may be far greater than the message.
                if left.len().saturating_mul(groups.len()) > MAX_PG_LEAVES {
                    return None;
                }
                let changes = groups
                    .iter()
                    .map(|group| change(group, Vec::new(), left.clone()));
                update(peer, 0, changes.collect::<Option<_>>()?)
            }
            ("update", [peer, changes]) => {
                let changes = changes.as_list()?.iter().map(|one| match one.as_tuple()? {
                    [group, joined, left] => change(group, pids(joined)?, pids(left)?),
                    _ => None,
                });
                update(peer, 1, changes.collect::<Option<_>>()?)
            }
            _ => None,
        }
    }

    /// The messages that say it, in order.
    #[must_use]
    pub fn to_values(&self) -> Vec<Value> {
        let peer = || Value::from(self.peer().clone());
        match self {
            Self::Discover { version: 0, .. } => {
                vec![Value::tuple([Value::atom("discover"), peer()])]
            }
            Self::Discover { version, .. } => vec![Value::tuple([
                Value::atom("discover"),
                peer(),
                Value::from(*version),
            ])],
            Self::Data {
                version, groups, ..
            } => {
                let groups = groups.iter().map(|(g, members)| (g.value(), list(members)));
                let data = if *version == 0 {
                    let pairs: Vec<Value> = groups.map(|(g, m)| Value::tuple([g, m])).collect();
                    vec![Value::atom("sync"), peer(), Value::list(pairs)]
                } else {
                    let version = Value::from(*version);
                    let map = Value::Map(groups.collect());
                    vec![Value::atom("local_data"), peer(), version, map]
                };
                vec![Value::tuple([Value::atom("$gen_cast"), Value::tuple(data)])]
            }
            Self::Update {
                version: 0,
                changes,
                ..
            } => plain(&peer(), changes),
            Self::Update { changes, .. } => {
                let changes: Vec<Value> = changes
                    .iter()
                    .map(|c| Value::tuple([c.group.value(), list(&c.joined), list(&c.left)]))
                    .collect();
                vec![Value::tuple([
                    Value::atom("update"),
                    peer(),
                    Value::list(changes),
                ])]
            }
        }
    }
}

/// Changes in the words of the first version. Who leaves several groups at once does so by one message.
fn plain(peer: &Value, changes: &[Change]) -> Vec<Value> {
    let mut messages = Vec::new();
    let mut leaving: Option<(&[Pid], Vec<Value>)> = None;
    let leave = |(left, groups): (&[Pid], Vec<Value>)| {
        let word = Value::atom("leave");
        Value::tuple([word, peer.clone(), list(left), Value::list(groups)])
    };
    for change in changes {
        if !change.left.is_empty() {
            match &mut leaving {
                Some((left, groups)) if *left == change.left => groups.push(change.group.value()),
                _ => {
                    let groups = vec![change.group.value()];
                    messages.extend(leaving.replace((&change.left, groups)).map(leave));
                }
            }
        }
        if !change.joined.is_empty() {
            messages.extend(leaving.take().map(leave));
            let (word, group) = (Value::atom("join"), change.group.value());
            messages.push(Value::tuple([
                word,
                peer.clone(),
                group,
                list(&change.joined),
            ]));
        }
    }
    messages.extend(leaving.map(leave));
    messages
}

fn list(pids: &[Pid]) -> Value {
    Value::list(pids.iter().cloned().map(Value::Pid).collect::<Vec<_>>())
}

/// Versions that are no numbers come from nobody.
fn number(version: &Value) -> u32 {
    let number = version.as_i64().unwrap_or(0).max(0);
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A pid, or a list of pids.
fn pids(value: &Value) -> Option<Vec<Pid>> {
    match value {
        Value::Pid(pid) => Some(vec![pid.clone()]),
        value => {
            let list = value.as_list()?.iter();
            list.map(|one| one.as_pid().cloned()).collect()
        }
    }
}

fn change(group: &Value, joined: Vec<Pid>, left: Vec<Pid>) -> Option<Change> {
    Some(Change {
        group: Group::new(group).ok()?,
        joined,
        left,
    })
}

fn update(peer: &Value, version: u32, changes: Vec<Change>) -> Option<Message> {
    Some(Message::Update {
        peer: peer.as_pid()?.clone(),
        version,
        changes,
    })
}

fn data<'a>(
    peer: &Value,
    version: u32,
    groups: impl Iterator<Item = Option<(&'a Value, &'a Value)>>,
) -> Option<Message> {
    let groups = groups.map(|pair| {
        let (group, members) = pair?;
        Some((Group::new(group).ok()?, pids(members)?))
    });
    Some(Message::Data {
        peer: peer.as_pid()?.clone(),
        version,
        groups: groups.collect::<Option<_>>()?,
    })
}
