//! A thousand Rust nodes in a HyParView overlay, with real sockets, of which a third is killed.
//!
//! Half of the nodes join through one contact and half through a random one that is there already. Then:
//! do the links connect all, what does an idle node cost, does a broadcast reach everybody, once; and when
//! some of the processes are killed (SIGKILL), how long until a broadcast reaches all that are left.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{ChildStdin, ChildStdout};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::children::Group;
use crate::process;

mod member;

pub(crate) use member::run as run_member;
use member::{Answer, Order};

/// What is run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) nodes: usize,
    pub(crate) processes: usize,
    /// Processes that are killed.
    pub(crate) kill: usize,
    pub(crate) seed: u64,
    pub(crate) shuffle: Duration,
    /// How long the idle swarm is watched.
    pub(crate) idle: Duration,
    /// Longest time for each step.
    pub(crate) patience: Duration,
}

struct Process {
    group: Group,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    nodes: Vec<(String, SocketAddr)>,
}

impl Process {
    fn start(plan: &Plan, first: usize, count: usize) -> Result<Self> {
        let program = std::env::current_exe()?;
        let words = [
            program.display().to_string(),
            "swarm-member".into(),
            first.to_string(),
            count.to_string(),
            plan.shuffle.as_millis().to_string(),
        ];
        let mut group = Group::start(&words, |_| {})?;
        let orders = group.child.stdin.take().context("no input")?;
        let answers = BufReader::new(group.child.stdout.take().context("no output")?);
        let mut this = Self {
            group,
            orders,
            answers,
            nodes: Vec::new(),
        };
        match this.answer()? {
            Answer::Nodes(nodes) => this.nodes = nodes,
            other => bail!("unexpected answer {other:?}"),
        }
        Ok(this)
    }

    fn answer(&mut self) -> Result<Answer> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        ensure!(!line.is_empty(), "a process of the swarm has died");
        Ok(serde_json::from_str(&line)?)
    }

    fn ask(&mut self, order: &Order) -> Result<Answer> {
        serde_json::to_writer(&mut self.orders, order)?;
        writeln!(self.orders)?;
        self.orders.flush()?;
        self.answer()
    }

    fn threads(&self) -> Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/task", self.group.child.id()))?.count())
    }
}

/// Components of the graph, largest first, and the one-sided links.
fn graph(views: &BTreeMap<String, Vec<String>>) -> (Vec<usize>, usize) {
    let has = |a: &str, b: &String| views.get(a).is_some_and(|v| v.contains(b));
    let links = views
        .iter()
        .flat_map(|(a, v)| v.iter().map(move |b| (a, b)));
    let one_sided = links.filter(|(a, b)| !has(b, a)).count();
    let mut left: BTreeSet<&String> = views.keys().collect();
    let mut sizes = Vec::new();
    while let Some(start) = left.pop_first() {
        let (mut stack, mut size) = (vec![start], 0);
        while let Some(node) = stack.pop() {
            size += 1;
            for other in &views[node] {
                if let Some(other) = left.take(other) {
                    stack.push(other);
                }
            }
        }
        sizes.push(size);
    }
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    (sizes, one_sided)
}

struct Swarm {
    processes: Vec<Process>,
    number: i64,
    rng: StdRng,
}

impl Swarm {
    fn len(&self) -> usize {
        self.processes.iter().map(|p| p.nodes.len()).sum()
    }

    fn views(&mut self) -> Result<BTreeMap<String, Vec<String>>> {
        let mut all = BTreeMap::new();
        for process in &mut self.processes {
            match process.ask(&Order::Views)? {
                Answer::Views(views) => all.extend(views),
                other => bail!("unexpected answer {other:?}"),
            }
        }
        Ok(all)
    }

    /// Waits until all are one component of symmetric links.
    fn settle(&mut self, patience: Duration) -> Result<Duration> {
        let start = Instant::now();
        let mut told = Duration::ZERO;
        loop {
            let views = self.views()?;
            let (sizes, one_sided) = graph(&views);
            if start.elapsed() > told + Duration::from_secs(5) {
                told = start.elapsed();
                println!("  after {told:.0?}: components {sizes:?}, {one_sided} one-sided links");
            }
            if sizes.len() == 1 && one_sided == 0 {
                let degrees: Vec<String> = (0..=5)
                    .map(|degree| {
                        views
                            .values()
                            .filter(|v| v.len() == degree)
                            .count()
                            .to_string()
                    })
                    .collect();
                let degrees = degrees.join(" ");
                println!(
                    "  one component, all links symmetric; nodes with 0 to 5 neighbours: {degrees}"
                );
                return Ok(start.elapsed());
            }
            if start.elapsed() > patience {
                bail!("not one component in {patience:?}: {sizes:?}, {one_sided} one-sided links");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn heard(&mut self, number: i64) -> Result<(usize, usize)> {
        let (mut once, mut twice) = (0, 0);
        for process in &mut self.processes {
            match process.ask(&Order::Heard(number))? {
                Answer::Heard(a, b) => (once, twice) = (once + a, twice + b),
                other => bail!("unexpected answer {other:?}"),
            }
        }
        Ok((once, twice))
    }

    /// Broadcasts from a random node; its number.
    fn broadcast(&mut self) -> Result<i64> {
        self.number += 1;
        let count = self.processes.len();
        let process = &mut self.processes[self.rng.random_range(0..count)];
        let node = self.rng.random_range(0..process.nodes.len());
        process.ask(&Order::Broadcast(node, self.number))?;
        Ok(self.number)
    }

    /// Waits until all but its root have heard of a broadcast.
    fn spread(&mut self, number: i64, patience: Duration) -> Result<Option<Duration>> {
        let start = Instant::now();
        loop {
            let (once, twice) = self.heard(number)?;
            ensure!(twice == 0, "{twice} nodes have heard of {number} twice");
            if once == self.len() - 1 {
                return Ok(Some(start.elapsed()));
            }
            if start.elapsed() > patience {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn cpu_ns(&self) -> Result<u64> {
        let ids = self.processes.iter().map(|p| p.group.child.id());
        ids.map(process::cpu_ns).sum()
    }
}

fn join_all(swarm: &mut Swarm) -> Result<()> {
    let nodes: Vec<Vec<(String, SocketAddr)>> =
        swarm.processes.iter().map(|p| p.nodes.clone()).collect();
    let contact = nodes[0][0].clone();
    let mut there = vec![contact.clone()];
    for (at, list) in nodes.iter().enumerate() {
        for (index, node) in list.iter().enumerate() {
            if (at, index) == (0, 0) {
                continue;
            }
            let (name, addr) = match swarm.rng.random_bool(0.5) {
                true => contact.clone(),
                false => there.choose(&mut swarm.rng).context("nobody")?.clone(),
            };
            swarm.processes[at].ask(&Order::Join(index, name, addr))?;
            there.push(node.clone());
        }
    }
    Ok(())
}

/// Runs it; an error if something was not as it should be.
pub(crate) fn run(plan: &Plan) -> Result<()> {
    println!(
        "{} nodes in {} processes, seed {}; {}; load average {:.1}",
        plan.nodes,
        plan.processes,
        plan.seed,
        process::machine(),
        process::load()
    );
    let start = Instant::now();
    let each = plan.nodes / plan.processes;
    let mut swarm = Swarm {
        processes: Vec::new(),
        number: 0,
        rng: StdRng::seed_from_u64(plan.seed),
    };
    for at in 0..plan.processes {
        swarm.processes.push(Process::start(plan, at * each, each)?);
    }
    println!("started after {:.1?}", start.elapsed());
    join_all(&mut swarm)?;
    println!("asked to join after {:.1?}", start.elapsed());
    swarm.settle(plan.patience)?;
    println!("settled after {:.1?}", start.elapsed());

    let (mut memory, mut threads) = (0.0, 0);
    for process in &swarm.processes {
        memory += process::resident_mb(process.group.child.id())?.0;
        threads += process.threads()?;
    }
    let nodes = swarm.len() as f64;
    println!(
        "a node: {:.1} MB resident, {:.1} threads",
        memory / nodes,
        threads as f64 / nodes
    );
    let (before, since) = (swarm.cpu_ns()?, Instant::now());
    std::thread::sleep(plan.idle);
    let cpu = (swarm.cpu_ns()? - before) as f64 / since.elapsed().as_secs_f64();
    println!("idle: {:.3} ms CPU/s a node", cpu / 1e6 / nodes);

    for _ in 0..5 {
        let number = swarm.broadcast()?;
        match swarm.spread(number, plan.patience)? {
            Some(time) => println!(
                "broadcast {number}: all {} others in {time:.0?}",
                swarm.len() - 1
            ),
            None => bail!(
                "broadcast {number} has not reached all: {:?}",
                swarm.heard(number)?
            ),
        }
    }

    let keep = swarm.processes.len() - plan.kill;
    let killed: Vec<Process> = swarm.processes.split_off(keep);
    drop(killed);
    let crash = Instant::now();
    println!(
        "killed {} of {} processes; {} nodes are left",
        plan.kill,
        plan.processes,
        swarm.len()
    );
    loop {
        let sent = crash.elapsed();
        let number = swarm.broadcast()?;
        let time = swarm.spread(number, Duration::from_secs(5))?;
        let (heard, _) = swarm.heard(number)?;
        println!(
            "broadcast {number}, {sent:.1?} after the kill: {heard} of {} others{}",
            swarm.len() - 1,
            time.map_or(String::new(), |t| format!(" in {t:.0?}"))
        );
        if time.is_some() {
            break;
        }
        ensure!(
            crash.elapsed() < plan.patience,
            "no broadcast has reached all survivors"
        );
    }
    println!(
        "all survivors reached {:.1?} after the kill",
        crash.elapsed()
    );
    swarm.settle(plan.patience)?;
    println!("settled again {:.1?} after the kill", crash.elapsed());
    Ok(())
}
