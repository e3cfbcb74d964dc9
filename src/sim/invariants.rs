//! What must hold in every run, by name.
//!
//! Local invariants are looked at after each event of the node that it touches; global ones at the end of
//! each phase that is calm (no crash, churn, loss of links or partition in it), after a pause in which
//! what was under way may arrive.

use std::fmt;

/// An invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// A node is not its own neighbour and keeps no link with itself.
    SelfNotNeighbor,
    /// `NeighborUp` and `NeighborDown` of a peer take turns.
    NeighborsAlternate,
    /// Each neighbour has a link that is up.
    NeighborHasLink,
    /// There are at most as many neighbours as the configuration allows.
    ActiveViewBounded,
    /// After an event the next deadline lies in the future.
    DeadlineAhead,
    /// A node handles no more than a bounded number of ticks in a second.
    NoTickStorm,
    /// A node sends no more than a bounded number of messages in a second.
    NoMessageStorm,
    /// No node refuses what another has sent, nor what its user asks for.
    NothingRefused,
    /// Broadcasts are sent to neighbours only.
    BroadcastToNeighbors,
    /// A broadcast is delivered once to each life of a node, and not to its root.
    DeliveredOnce,
    /// What is delivered was broadcast, by that node and with that payload.
    DeliveredAsBroadcast,
    /// What a node persists has a bounded size.
    PersistedBounded,
    /// The tables of a node are bounded.
    TablesBounded,
    /// `members` names the own node once, and on a partial overlay its neighbours besides.
    MembersMatch,
    /// Two neighbours agree that they are (in quiescence).
    Symmetric,
    /// All nodes are in one component (in quiescence).
    OneComponent,
    /// A link that is no neighbour's is temporary, and one that nobody wants is gone (in quiescence).
    LinksNotLeaked,
    /// What is broadcast while nothing breaks reaches every node (in quiescence).
    DeliveredToAll,
}

impl Invariant {
    /// All of them, with their names.
    pub const ALL: [(Self, &'static str); 18] = [
        (Self::SelfNotNeighbor, "self_not_neighbor"),
        (Self::NeighborsAlternate, "neighbors_alternate"),
        (Self::NeighborHasLink, "neighbor_has_link"),
        (Self::ActiveViewBounded, "active_view_bounded"),
        (Self::DeadlineAhead, "deadline_ahead"),
        (Self::NoTickStorm, "no_tick_storm"),
        (Self::NoMessageStorm, "no_message_storm"),
        (Self::NothingRefused, "nothing_refused"),
        (Self::BroadcastToNeighbors, "broadcast_to_neighbors"),
        (Self::DeliveredOnce, "delivered_once"),
        (Self::DeliveredAsBroadcast, "delivered_as_broadcast"),
        (Self::PersistedBounded, "persisted_bounded"),
        (Self::TablesBounded, "tables_bounded"),
        (Self::MembersMatch, "members_match"),
        (Self::Symmetric, "symmetric"),
        (Self::OneComponent, "one_component"),
        (Self::LinksNotLeaked, "links_not_leaked"),
        (Self::DeliveredToAll, "delivered_to_all"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        let row = Self::ALL.iter().find(|(invariant, _)| *invariant == self);
        row.map_or("", |(_, name)| name)
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// At which node, if at one.
    pub node: Option<u32>,
    /// When, in nanoseconds of virtual time.
    pub at: u64,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.at as f64 / 1e9;
        write!(f, "{} at {seconds:.3} s", self.invariant)?;
        if let Some(node) = self.node {
            write!(f, ", node {node}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// How many of each invariant's violations are kept in full.
const KEPT: usize = 3;

/// All violations of a run: their number, and the first of each invariant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Violations {
    pub(crate) count: u64,
    pub(crate) first: Vec<Violation>,
}

impl Violations {
    pub(crate) fn add(&mut self, violation: Violation) {
        self.count += 1;
        let same = |other: &&Violation| other.invariant == violation.invariant;
        if self.first.iter().filter(same).count() < KEPT {
            self.first.push(violation);
        }
    }
}
