//! Scenario files: TOML. `docs/simulator.md` explains each key.

use serde::Deserialize;

use super::latency::NetworkConfig;

/// Why a scenario can't be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    /// The file is no scenario.
    #[error("the scenario does not parse: {0}")]
    Parse(String),
    /// A value makes no sense.
    #[error("the scenario makes no sense: {0}")]
    Bad(String),
    /// The output can't be written.
    #[error("can not write {path}: {error}; give --out a directory that can be written")]
    Write {
        /// Where.
        path: String,
        /// Why not.
        error: String,
    },
}

/// A scenario: which nodes run which protocols over which network, and what happens to them.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name.
    pub(crate) name: String,
    pub(crate) nodes: usize,
    #[serde(default = "one")]
    pub(crate) seed: u64,
    /// Seeds to run if the command line names no number: `seed`, `seed + 1`…
    #[serde(default = "one")]
    pub(crate) seeds: u64,
    /// Seconds.
    #[serde(default = "ten")]
    pub(crate) cycle: f64,
    #[serde(default)]
    pub(crate) overlay: toml::Table,
    #[serde(default)]
    pub(crate) broadcast: toml::Table,
    #[serde(default)]
    pub(crate) network: NetworkConfig,
    #[serde(default)]
    pub(crate) join: Join,
    /// Whether local invariants are looked at.
    #[serde(default = "yes")]
    pub(crate) check: bool,
    /// Whether all messages are encoded and decoded.
    #[serde(default)]
    pub(crate) through_bytes: bool,
    /// What a node's tables may take at most.
    #[serde(default = "table_bytes")]
    pub(crate) max_table_bytes: usize,
    /// Sources of shortest paths; 0: all nodes.
    #[serde(default)]
    pub(crate) path_sources: usize,
    #[serde(default)]
    pub(crate) phase: Vec<Phase>,
    /// The same with other protocols, side by side.
    #[serde(default)]
    pub(crate) variant: Vec<Variant>,
    #[serde(default)]
    pub(crate) expect: Vec<Expect>,
}

fn one() -> u64 {
    1
}

fn table_bytes() -> usize {
    16 << 20
}

fn ten() -> f64 {
    10.0
}

fn yes() -> bool {
    true
}

/// How nodes come in.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Join {
    /// Which part joins through the first node; the others through any that has joined.
    pub(crate) through_one: f64,
    /// Nodes that join in a second.
    pub(crate) per_second: f64,
}

impl Default for Join {
    fn default() -> Self {
        Self {
            through_one: 0.5,
            per_second: 100.0,
        }
    }
}

/// A stretch of time with figures of its own.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Phase {
    pub(crate) name: String,
    /// Begins with the world that an earlier phase has kept under this name.
    pub(crate) from: Option<String>,
    /// Keeps the world as it is at the end.
    pub(crate) keep: Option<String>,
    /// Its length, unless `seconds` is given.
    #[serde(default)]
    pub(crate) cycles: f64,
    #[serde(default)]
    pub(crate) seconds: f64,
    pub(crate) crash: Option<Crash>,
    pub(crate) churn: Option<Churn>,
    pub(crate) partitions: Option<Partitions>,
    pub(crate) broadcasts: Option<Broadcasts>,
    pub(crate) unicast: Option<Unicast>,
    /// Whether the graph is measured at its end.
    #[serde(default)]
    pub(crate) graph: bool,
    /// Whether invariants of quiescence are looked at, at its end.
    #[serde(default)]
    pub(crate) quiet: bool,
}

/// Nodes that stop at the beginning of a phase.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Crash {
    #[serde(default)]
    pub(crate) fraction: f64,
    /// So many of those that have joined first, in place of random ones.
    #[serde(default)]
    pub(crate) first: usize,
    /// Whether their hosts stop, so that connections don't break.
    #[serde(default)]
    pub(crate) silent: bool,
}

/// Nodes that stop and start again all the time.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Churn {
    /// Which part of the nodes stops in a second.
    pub(crate) per_second: f64,
    /// Seconds until one starts again: at least and at most.
    pub(crate) down: (f64, f64),
    /// Which part starts again with what it has persisted.
    pub(crate) persisted: f64,
    /// Which part stops silently.
    pub(crate) silent: f64,
    /// Which part of the phase has churn; nothing happens in the rest.
    pub(crate) until: f64,
    /// Whether those who broadcast don't stop.
    pub(crate) spare_roots: bool,
}

impl Default for Churn {
    fn default() -> Self {
        Self {
            per_second: 0.001,
            down: (5.0, 30.0),
            persisted: 0.5,
            silent: 0.0,
            until: 1.0,
            spare_roots: false,
        }
    }
}

/// Times without a way between two parts of the nodes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Partitions {
    pub(crate) count: usize,
    /// Seconds: at least and at most.
    pub(crate) length: (f64, f64),
    /// Which part of the nodes is cut off: at most.
    pub(crate) fraction: f64,
    /// Which part of the partitions is in one direction only.
    pub(crate) one_way: f64,
    /// They end in this part of the phase.
    pub(crate) until: f64,
}

impl Default for Partitions {
    fn default() -> Self {
        Self {
            count: 1,
            length: (10.0, 120.0),
            fraction: 0.5,
            one_way: 0.25,
            until: 1.0,
        }
    }
}

/// Broadcasts at even distances.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Broadcasts {
    pub(crate) count: usize,
    /// Seconds from the first to the last.
    pub(crate) over: f64,
    /// Seconds before the first.
    pub(crate) after: f64,
    pub(crate) from: From,
    /// Number of roots that take turns.
    pub(crate) roots: usize,
    pub(crate) bytes: usize,
}

impl Default for Broadcasts {
    fn default() -> Self {
        Self {
            count: 1,
            over: 0.0,
            after: 0.0,
            from: From::Roots,
            roots: 1,
            bytes: 64,
        }
    }
}

/// Who broadcasts.
/// Messages between nodes that need not be neighbours.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Unicast {
    /// Pairs of sender and receiver, at random.
    pub(crate) pairs: usize,
    /// Messages of each pair.
    pub(crate) messages: usize,
    /// Seconds over which they are spread.
    pub(crate) over: f64,
    pub(crate) bytes: usize,
}

impl Default for Unicast {
    fn default() -> Self {
        Self {
            pairs: 100,
            messages: 10,
            over: 60.0,
            bytes: 64,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum From {
    /// The same `roots` nodes of the whole scenario by turns.
    Roots,
    /// Any node that runs.
    Random,
}

/// Other protocols for the same scenario.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Variant {
    pub(crate) name: String,
    /// Keys that replace those of the scenario.
    #[serde(default)]
    pub(crate) overlay: toml::Table,
    #[serde(default)]
    pub(crate) broadcast: toml::Table,
}

/// What a figure must be.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    pub(crate) phase: String,
    pub(crate) figure: String,
    /// Of which variant; all by default.
    pub(crate) variant: Option<String>,
    /// Divided by the same figure of this variant.
    pub(crate) relative_to: Option<String>,
    /// Over all seeds: each of them by default.
    #[serde(default)]
    pub(crate) over: Over,
    pub(crate) at_least: Option<f64>,
    pub(crate) at_most: Option<f64>,
}

/// How figures of several seeds become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Over {
    /// Each must be right.
    #[default]
    Each,
    /// Their mean must be.
    Mean,
}

impl Scenario {
    /// Reads a scenario.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self =
            toml::from_str(text).map_err(|error| ScenarioError::Parse(error.to_string()))?;
        scenario.check()?;
        Ok(scenario)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first seed and their number.
    pub fn seeds(&self) -> (u64, u64) {
        (self.seed, self.seeds)
    }

    fn check(&self) -> Result<(), ScenarioError> {
        let bad = |what: String| Err(ScenarioError::Bad(what));
        if !(2..=1_000_000).contains(&self.nodes) {
            return bad("nodes: from 2 to 1,000,000".into());
        }
        if self.seeds == 0 || self.cycle <= 0.0 {
            return bad("seeds and cycle are greater than 0".into());
        }
        if let Some(what) = self.network.complaint() {
            return bad(what.into());
        }
        if self.join.per_second <= 0.0 || !is_part(self.join.through_one) {
            return bad("join: per_second is greater than 0, through_one from 0 to 1".into());
        }
        if self.phase.is_empty() {
            return bad("there is no [[phase]]".into());
        }
        let mut kept: Vec<&str> = Vec::new();
        for phase in &self.phase {
            if let Some(what) = phase.complaint(&kept, &self.network) {
                return bad(format!("phase {:?}: {what}", phase.name));
            }
            kept.extend(phase.keep.as_deref());
        }
        let variants: Vec<&str> = self.variant.iter().map(|v| &*v.name).collect();
        for expect in &self.expect {
            if !self.phase.iter().any(|phase| phase.name == expect.phase) {
                return bad(format!("expect: there is no phase {:?}", expect.phase));
            }
            for name in [&expect.variant, &expect.relative_to].into_iter().flatten() {
                if !variants.contains(&&**name) {
                    return bad(format!("expect: there is no variant {name:?}"));
                }
            }
            if !super::figures::is_known(&expect.figure) {
                return bad(format!("expect: there is no figure {:?}", expect.figure));
            }
            if expect.at_least.is_none() && expect.at_most.is_none() {
                return bad(format!(
                    "expect {:?}: say at_least or at_most",
                    expect.figure
                ));
            }
        }
        Ok(())
    }
}

fn is_part(value: f64) -> bool {
    (0.0..=1.0).contains(&value)
}

impl Phase {
    /// Its length in seconds.
    pub(crate) fn length(&self, cycle: f64) -> f64 {
        match self.seconds > 0.0 {
            true => self.seconds,
            false => self.cycles * cycle,
        }
    }

    /// Whether nothing breaks in it.
    pub(crate) fn is_calm(&self) -> bool {
        self.crash.is_none() && self.churn.is_none() && self.partitions.is_none()
    }

    fn complaint(&self, kept: &[&str], network: &NetworkConfig) -> Option<String> {
        if self.length(1.0) <= 0.0 {
            return Some("give it a length: cycles or seconds".into());
        }
        if let Some(from) = &self.from
            && !kept.contains(&&**from)
        {
            return Some(format!("no phase before it has keep = {from:?}"));
        }
        let silent = |silent: bool| silent && network.keep_alive == 0.0;
        if let Some(crash) = &self.crash
            && (!(0.0..1.0).contains(&crash.fraction) || silent(crash.silent))
        {
            return Some(
                "crash: fraction is at least 0 and less than 1; silent needs keep_alive".into(),
            );
        }
        if let Some(churn) = &self.churn {
            let parts = [churn.persisted, churn.silent, churn.until];
            let bad = churn.per_second <= 0.0 || churn.down.0 > churn.down.1;
            if bad || !parts.into_iter().all(is_part) || silent(churn.silent > 0.0) {
                return Some("churn: per_second is greater than 0, down in order, persisted, silent and until from 0 to 1; silent needs keep_alive".into());
            }
        }
        if let Some(partitions) = &self.partitions {
            let parts = [partitions.fraction, partitions.one_way, partitions.until];
            let ordered = partitions.length.0 > 0.0 && partitions.length.0 <= partitions.length.1;
            if !ordered || !parts.into_iter().all(is_part) || network.keep_alive == 0.0 {
                return Some("partitions: length in order, fraction, one_way and until from 0 to 1; they need keep_alive".into());
            }
        }
        if let Some(broadcasts) = &self.broadcasts
            && (broadcasts.roots == 0 || broadcasts.over < 0.0 || broadcasts.after < 0.0)
        {
            return Some("broadcasts: roots is at least 1; over and after at least 0".into());
        }
        None
    }
}
