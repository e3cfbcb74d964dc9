//! Causal order.
//!
//! If Ann tells Bob something and then Cid, and Cid, having heard it, tells Bob more, then Bob must hear Ann first, however
//! slow her line to him is. Each message carries what its sender knew to be under way: for each pair of nodes the number
//! behind the last message that the first has sent the second. Who receives it looks up the entries for himself, and
//! delivers when all those messages are delivered. This is the method of Raynal, Schiper and Toueg ("The causal ordering
//! abstraction and a simple way to implement it", 1991). It says what Schiper, Eggli and Sandoz say with clocks (1989), but
//! waits for messages to oneself only: a clock also counts messages that went elsewhere, and would wait for ever for
//! what only a dead node could have passed on.
//!
//! The numbers are those of the acknowledged streams of the label, so every message that is waited for comes in the end.
//!
//! What is known to be delivered need not be told. Each sender's entries are a row with a version, the count of its
//! sends; the row of a greater version replaces the other as a whole, since it was made later. A sender drops from its own row
//! what is acknowledged. So a message tells of what was under way lately, not of all that ever was.
//!
//! A node that restarts or leaves ends an incarnation. Nobody waits for messages of an ended one; what it had sent
//! and was not delivered is dropped. If nobody knows whether a node has ended, what waits for its messages waits for
//! [`Config::patience`] while there is no session with it (four times that while there is one); then it is
//! delivered, and what comes later of that which was waited for is dropped: too late, but never in the wrong order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::limits::{
    MAX_CAUSAL_ENDED, MAX_CAUSAL_ENTRIES, MAX_CAUSAL_LABELS, MAX_CAUSAL_NODES, MAX_DELIVERY_PEERS,
};
use crate::overlay::codec::{DecodeError, Reader, put_text};

/// Bounds and times.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long a message of a node without a session is waited for.
    pub patience: Duration,
    /// Incarnations that a message may tell of.
    pub nodes: usize,
    /// Pairs of them.
    pub entries: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(60),
            nodes: MAX_CAUSAL_NODES,
            entries: MAX_CAUSAL_ENTRIES,
        }
    }
}

/// An incarnation of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// Its name.
    pub node: Arc<str>,
    /// Drawn anew at each start.
    pub instance: u64,
}

/// What one node has sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Counts its sends.
    pub version: u64,
    /// To whom; all before this number.
    pub sent: BTreeMap<Id, u64>,
}

/// What a sender knew to be under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp(pub BTreeMap<Id, Row>);

impl Stamp {
    /// Appends its bytes: the incarnations, then rows of indices and numbers.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut ids: BTreeSet<&Id> = self.0.keys().collect();
        ids.extend(self.0.values().flat_map(|row| row.sent.keys()));
        let index: BTreeMap<&Id, u16> = ids.iter().copied().zip(0..).collect();
        // Senders keep within MAX_CAUSAL_NODES and MAX_CAUSAL_ENTRIES.
        out.extend_from_slice(&(index.len() as u16).to_be_bytes());
        for id in ids {
            put_text(out, &id.node);
            out.extend_from_slice(&id.instance.to_be_bytes());
        }
        let at = |id: &Id| index.get(id).copied().unwrap_or_default().to_be_bytes();
        out.extend_from_slice(&(self.0.len() as u16).to_be_bytes());
        for (id, row) in &self.0 {
            out.extend_from_slice(&at(id));
            out.extend_from_slice(&row.version.to_be_bytes());
            out.extend_from_slice(&(row.sent.len() as u16).to_be_bytes());
            for (to, number) in &row.sent {
                out.extend_from_slice(&at(to));
                out.extend_from_slice(&number.to_be_bytes());
            }
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// They are no such bytes, or too many.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        const BAD: DecodeError = DecodeError::Bad("causal stamp");
        let count = usize::from(reader.u16()?);
        if count > MAX_CAUSAL_NODES {
            return Err(BAD);
        }
        let mut ids = Vec::new();
        for _ in 0..count {
            let node = reader.text()?;
            let instance = reader.u64()?;
            if node.is_empty() || node.len() > 255 {
                return Err(BAD);
            }
            let node = node.into();
            ids.push(Id { node, instance });
        }
        let id = |index: u16| ids.get(usize::from(index)).cloned().ok_or(BAD);
        let mut rows = BTreeMap::new();
        let mut entries = 0;
        for _ in 0..reader.u16()? {
            let of = id(reader.u16()?)?;
            let version = reader.u64()?;
            let count = reader.u16()?;
            entries += usize::from(count);
            if entries > MAX_CAUSAL_ENTRIES || rows.len() >= MAX_CAUSAL_NODES {
                return Err(BAD);
            }
            let mut sent = BTreeMap::new();
            for _ in 0..count {
                let to = id(reader.u16()?)?;
                sent.insert(to, reader.u64()?);
            }
            if sent.len() != usize::from(count) || rows.insert(of, Row { version, sent }).is_some()
            {
                return Err(BAD);
            }
        }
        Ok(Self(rows))
    }
}

/// The first message of a node that waits.
#[derive(Debug)]
struct Head {
    id: Id,
    number: u64,
    stamp: Stamp,
    offered: bool,
}

#[derive(Debug, Default)]
struct Label {
    rows: BTreeMap<Id, Row>,
    /// All before this number are delivered here, or will never be.
    passed: BTreeMap<Id, u64>,
    /// All before this number have come.
    received: BTreeMap<Id, u64>,
    /// By sender.
    heads: BTreeMap<Arc<str>, Head>,
}

/// What is to become of the first message of a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may be delivered.
    Deliver,
    /// It comes too late.
    Drop,
}

/// Causal orders of a node, by label.
#[derive(Debug)]
pub struct Causal {
    config: Config,
    own: Id,
    labels: BTreeMap<Arc<str>, Label>,
    present: BTreeSet<Id>,
    /// Incarnations of the last sessions.
    met: BTreeMap<Arc<str>, u64>,
    /// Since when the messages of an incarnation are waited for.
    awaited: BTreeMap<Id, Duration>,
    ended: BTreeMap<Arc<str>, VecDeque<u64>>,
    deadline: Option<Duration>,
}

impl Causal {
    /// Nothing is known.
    pub fn new(config: Config, own: Id) -> Self {
        Self {
            config,
            own,
            labels: BTreeMap::new(),
            present: BTreeSet::new(),
            met: BTreeMap::new(),
            awaited: BTreeMap::new(),
            ended: BTreeMap::new(),
            deadline: None,
        }
    }

    /// When [`Causal::tick`] is wanted.
    pub fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// Whether messages of one more label can be kept in order.
    pub fn admits(&self, label: &str) -> bool {
        self.labels.contains_key(label) || self.labels.len() < MAX_CAUSAL_LABELS
    }

    /// Whether a message of the label may be sent: all that is under way fits a stamp, and one more.
    pub fn has_room(&self, label: &str) -> bool {
        let (nodes, entries) = self.labels.get(label).map_or((0, 0), Label::size);
        nodes + 2 < self.config.nodes && entries < self.config.entries
    }

    /// The stamp of a message that is sent now and gets this number.
    pub fn send(&mut self, label: &Arc<str>, to: Id, number: u64) -> Stamp {
        let label = self.labels.entry(label.clone()).or_default();
        let own = label.rows.entry(self.own.clone()).or_default();
        own.version += 1;
        let stamp = Stamp(label.rows.clone());
        let own = label.rows.entry(self.own.clone()).or_default();
        own.sent.insert(to, number + 1);
        stamp
    }

    /// All before this number are delivered there.
    pub fn acknowledged(&mut self, label: &str, to: &Id, done: u64) {
        let row = self.labels.get_mut(label);
        if let Some(row) = row.and_then(|l| l.rows.get_mut(&self.own))
            && row.sent.get(to).is_some_and(|&number| number <= done)
        {
            row.sent.remove(to);
        }
    }

    /// All before this number have come from a sender, whose present messages begin with `start`.
    pub fn received(&mut self, label: &Arc<str>, from: &Id, start: u64, received: u64) {
        let label = self.labels.entry(label.clone()).or_default();
        label.received.insert(from.clone(), received);
        let passed = label.passed.entry(from.clone()).or_default();
        *passed = start.max(*passed);
    }

    /// This message is the first of a sender's that wait.
    pub fn head(&mut self, label: &Arc<str>, id: Id, number: u64, stamp: Stamp) {
        let label = self.labels.entry(label.clone()).or_default();
        let head = Head {
            id,
            number,
            stamp,
            offered: false,
        };
        label.heads.insert(head.id.node.clone(), head);
    }

    /// The first message of a sender is delivered.
    pub fn delivered(&mut self, label: &str, from: &str) {
        let Some(label) = self.labels.get_mut(label) else {
            return;
        };
        let Some(head) = label.heads.remove(from) else {
            return;
        };
        let passed = label.passed.entry(head.id.clone()).or_default();
        *passed = (head.number + 1).max(*passed);
        for (id, row) in head.stamp.0 {
            let known = label.rows.get(&id).map(|row| row.version);
            if id != self.own
                && !is_ended(&self.ended, &id)
                && known.is_none_or(|known| known < row.version)
            {
                let sent = row.sent.into_iter();
                // What was sent here has been delivered, or this would not have been.
                let sent = sent.filter(|(to, _)| *to != self.own && !is_ended(&self.ended, to));
                let row = Row {
                    version: row.version,
                    sent: sent.collect(),
                };
                label.rows.insert(id, row);
            }
        }
        // The sender's next stamp tells all that this one's does, and of this message no one else has to know.
        if label.size().0 + 2 >= self.config.nodes {
            let (present, own) = (&self.present, &self.own);
            label
                .rows
                .retain(|id, row| id == own || present.contains(id) || !row.sent.is_empty());
        }
    }

    /// Whether a message with this stamp would be delivered at once.
    pub fn is_due(&self, label: &str, stamp: &Stamp) -> bool {
        let none = BTreeMap::new();
        let passed = self.labels.get(label).map_or(&none, |l| &l.passed);
        wanted(&self.own, &self.ended, passed, stamp)
            .next()
            .is_none()
    }

    /// Messages whose turn it is. Each is named once.
    pub fn turns(&mut self, now: Duration) -> Vec<(Arc<str>, Arc<str>, Verdict)> {
        let mut turns = Vec::new();
        let mut awaited = BTreeSet::new();
        for (name, label) in &mut self.labels {
            let (mut nodes, mut entries) = label.size();
            let (passed, received) = (&label.passed, &label.received);
            for (from, head) in label.heads.iter_mut().filter(|(_, head)| !head.offered) {
                if passed.get(&head.id).is_some_and(|&p| head.number < p) {
                    head.offered = true;
                    turns.push((name.clone(), from.clone(), Verdict::Drop));
                    continue;
                }
                let mut waits = false;
                for (id, number) in wanted(&self.own, &self.ended, passed, &head.stamp) {
                    waits = true;
                    if received.get(id).is_none_or(|&r| r < number) {
                        awaited.insert(id.clone());
                    }
                }
                // What is known after it must fit the next stamp.
                let (more, pairs) = head.stamp.size();
                let fits = nodes + more <= 2 * self.config.nodes
                    && entries + pairs <= 2 * self.config.entries;
                if !waits && fits {
                    nodes += more;
                    entries += pairs;
                    head.offered = true;
                    turns.push((name.clone(), from.clone(), Verdict::Deliver));
                }
            }
        }
        self.awaited.retain(|id, _| awaited.contains(id));
        for id in awaited {
            self.awaited.entry(id).or_insert(now);
        }
        self.deadline = (self.awaited.iter())
            .map(|(id, since)| *since + self.patience(id))
            .min();
        turns
    }

    fn patience(&self, id: &Id) -> Duration {
        match self.present.contains(id) {
            true => self.config.patience * 4,
            false => self.config.patience,
        }
    }

    /// Gives up incarnations whose messages have been waited for too long, and names them.
    pub fn tick(&mut self, now: Duration) -> Vec<Id> {
        let late =
            |(id, since): (&Id, &Duration)| (*since + self.patience(id) <= now).then(|| id.clone());
        let late: Vec<Id> = self.awaited.iter().filter_map(late).collect();
        for id in &late {
            self.awaited.remove(id);
            for label in self.labels.values_mut() {
                let sent = |head: &Head| head.stamp.0.get(id)?.sent.get(&self.own).copied();
                if let Some(number) = label.heads.values().filter_map(sent).max() {
                    let passed = label.passed.entry(id.clone()).or_default();
                    *passed = number.max(*passed);
                }
            }
        }
        late
    }

    /// There is a session with an incarnation; any other of that node has ended.
    pub fn up(&mut self, id: Id) {
        let mut others: BTreeSet<Id> = BTreeSet::new();
        for label in self.labels.values() {
            let known = label.rows.keys().chain(label.passed.keys());
            others.extend(known.filter(|k| k.node == id.node && **k != id).cloned());
        }
        if let Some(instance) = self.met.insert(id.node.clone(), id.instance)
            && instance != id.instance
        {
            let node = id.node.clone();
            others.insert(Id { node, instance });
        }
        if self.met.len() > MAX_DELIVERY_PEERS {
            self.met.pop_first();
        }
        for other in others {
            self.end(&other);
        }
        if let Some(ended) = self.ended.get_mut(&id.node) {
            ended.retain(|&instance| instance != id.instance);
        }
        self.present.insert(id);
    }

    /// There is none any longer.
    pub fn down(&mut self, id: &Id) {
        self.present.remove(id);
    }

    /// An incarnation has ended: nothing of it will come, and nothing to it will be delivered.
    pub fn end(&mut self, id: &Id) {
        self.present.remove(id);
        if self.ended.len() >= MAX_DELIVERY_PEERS && !self.ended.contains_key(&id.node) {
            self.ended.pop_first();
        }
        let ended = self.ended.entry(id.node.clone()).or_default();
        if !ended.contains(&id.instance) {
            ended.push_back(id.instance);
        }
        if ended.len() > MAX_CAUSAL_ENDED {
            ended.pop_front();
        }
        for label in self.labels.values_mut() {
            label.rows.remove(id);
            for row in label.rows.values_mut() {
                row.sent.remove(id);
            }
            label.passed.remove(id);
            label.received.remove(id);
            if label.heads.get(&id.node).is_some_and(|h| h.id == *id) {
                label.heads.remove(&id.node);
            }
        }
    }
}

impl Label {
    fn size(&self) -> (usize, usize) {
        size(&self.rows)
    }
}

impl Stamp {
    fn size(&self) -> (usize, usize) {
        size(&self.0)
    }
}

/// Incarnations that rows tell of, and pairs of them.
fn size(rows: &BTreeMap<Id, Row>) -> (usize, usize) {
    let entries = rows.values().map(|row| row.sent.len()).sum();
    let mut ids: BTreeSet<&Id> = rows.keys().collect();
    ids.extend(rows.values().flat_map(|row| row.sent.keys()));
    (ids.len(), entries)
}

fn is_ended(ended: &BTreeMap<Arc<str>, VecDeque<u64>>, id: &Id) -> bool {
    ended
        .get(&id.node)
        .is_some_and(|instances| instances.contains(&id.instance))
}

/// Whose messages a stamp wants delivered here first, and up to which number.
fn wanted<'a>(
    own: &'a Id,
    ended: &'a BTreeMap<Arc<str>, VecDeque<u64>>,
    passed: &'a BTreeMap<Id, u64>,
    stamp: &'a Stamp,
) -> impl Iterator<Item = (&'a Id, u64)> {
    let rows = stamp.0.iter().filter(move |(id, _)| *id != own);
    let numbers = rows.filter_map(move |(id, row)| Some((id, *row.sent.get(own)?)));
    numbers.filter(move |(id, number)| {
        passed.get(*id).is_none_or(|p| p < number) && !is_ended(ended, id)
    })
}
