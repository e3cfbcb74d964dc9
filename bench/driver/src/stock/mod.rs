//! `partisan-bench stock`: messages per second by Distributed Erlang, where one end is a stock node or both are
//! Rust.
//!
//! Three groups, each against its first contestant: senders to one receiver on a BEAM node, senders to one
//! [raw sink](raw), and receivers of one sender on a BEAM node. All run in turn, in one invocation.

mod edp;
mod end;
mod node;
mod raw;
mod theirs;

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub(crate) use end::run as run_end;

use crate::end::{EndProcess, ROUND, SOON};
use crate::pair::Assets;
use crate::process;
use crate::stats::Spread;
use crate::table::{Table, short};

const COOKIE: &str = "partisan-bench";
/// How long an end waits for messages.
const PATIENCE: Duration = Duration::from_secs(120);
/// Messages of the first round, which tells how many make a run.
const WARM_UP: u64 = 20_000;
/// All ends; BEAM nodes first.
const ENDS: [&str; 7] = [
    "a",
    "b",
    "ours",
    "raw",
    "erl_dist",
    "erl_dist-buffered",
    "edp_client",
];

/// Contestants: group, name, sender, receiver.
const ROUTES: [(&str, &str, &str, &str); 11] = [
    ("to-beam", "BEAM", "a", "b"),
    ("to-beam", "ours", "ours", "b"),
    ("to-beam", "erl_dist", "erl_dist", "b"),
    ("to-raw", "erl_dist", "erl_dist", "raw"),
    ("to-raw", "erl_dist-buffered", "erl_dist-buffered", "raw"),
    ("to-raw", "edp_client", "edp_client", "raw"),
    ("to-raw", "ours", "ours", "raw"),
    ("from-beam", "erl_dist", "a", "erl_dist"),
    ("from-beam", "erl_dist-buffered", "a", "erl_dist-buffered"),
    ("from-beam", "BEAM", "a", "b"),
    ("from-beam", "ours", "a", "ours"),
];

/// What is measured.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) sizes: Vec<usize>,
    pub(crate) senders: Vec<usize>,
    pub(crate) repetitions: u32,
    pub(crate) target: Duration,
    /// Part of `group contestant` that is wanted; empty: all.
    pub(crate) only: String,
}

/// A receiver's sinks, as senders name them.
struct Sinks {
    pids: Vec<String>,
    creation: String,
}

/// Ends that run.
struct Field {
    ends: HashMap<&'static str, EndProcess>,
    sinks: HashMap<&'static str, Sinks>,
    otp: String,
}

/// A run's figures.
#[derive(Clone, Copy)]
struct Run {
    rate: f64,
    /// CPU microseconds per message of sender and receiver.
    cpu: [f64; 2],
}

fn name_of(end: &str) -> String {
    format!("{}@127.0.0.1", end.replace('-', "_"))
}

impl Field {
    fn start(assets: &Assets, wanted: &[&'static str], senders: usize) -> Result<Self> {
        let listeners: Vec<TcpListener> = wanted
            .iter()
            .map(|_| TcpListener::bind(("127.0.0.1", 0)))
            .collect::<Result<_, _>>()?;
        let addresses: Vec<SocketAddr> = listeners
            .iter()
            .map(TcpListener::local_addr)
            .collect::<Result<_, _>>()?;
        drop(listeners);
        let mut field = Self {
            ends: HashMap::new(),
            sinks: HashMap::new(),
            otp: String::new(),
        };
        for (at, end) in wanted.iter().copied().enumerate() {
            let words = match end {
                "a" | "b" => beam(end, wanted, &addresses, &assets.beams),
                _ => rust(end, at, wanted, &addresses)?,
            };
            let log = assets.logs.join(format!("{end}.log"));
            let mut process = EndProcess::start(end, &words, &[], &log)?;
            let sizes: Vec<String> = assets.sizes.iter().map(usize::to_string).collect();
            let payload = assets.payload.display();
            let hello = format!("hello payload={payload} sizes={}", sizes.join(","));
            let answer = process.tell(&hello, SOON)?;
            process.pid = u32::try_from(answer.number("pid")?)?;
            process.tells_cpu = answer.text("otp").is_empty();
            field
                .otp
                .push_str(if end == "a" { answer.text("otp") } else { "" });
            let answer = process.tell(&format!("open n={senders}"), SOON)?;
            let pids = answer.text("pids").split(',').map(str::to_owned);
            let sinks = Sinks {
                pids: pids.collect(),
                creation: answer.text("creation").to_owned(),
            };
            field.sinks.insert(end, sinks);
            field.ends.insert(end, process);
        }
        Ok(field)
    }

    fn end(&mut self, name: &str) -> Result<&mut EndProcess> {
        self.ends.get_mut(name).context("no such end")
    }

    /// Sends `count` messages by each of so many senders. `crc` is what each sink must arrive at.
    fn round(
        &mut self,
        (from, to): (&str, &str),
        senders: usize,
        size: usize,
        count: u64,
        crc: u32,
    ) -> Result<Run> {
        let sinks = self.sinks.get(to).context("no such end")?;
        let pids = sinks
            .pids
            .get(..senders)
            .context("too few sinks")?
            .join(",");
        let peer = name_of(to);
        let creation = &sinks.creation;
        let send =
            format!("send peer={peer} pids={pids} creation={creation} count={count} size={size}");
        for end in [from, to] {
            self.end(end)?.tell("gc", SOON)?;
        }
        let before = [self.end(from)?.cpu_ns()?, self.end(to)?.cpu_ns()?];
        self.end(to)?
            .tell(&format!("expect n={senders} count={count}"), SOON)?;
        let start = self.end(from)?.tell(&send, ROUND)?.number("start")?;
        let answer = self.end(to)?.tell("wait", ROUND)?;
        let after = [self.end(from)?.cpu_ns()?, self.end(to)?.cpu_ns()?];
        if answer.number("crc")? != u64::from(crc) * senders as u64 {
            bail!("{from} to {to}: the checksums differ");
        }
        let messages = (count * senders as u64) as f64;
        Ok(Run {
            rate: messages / (answer.number("end")? - start) as f64 * 1e9,
            cpu: [0, 1].map(|i| (after[i] - before[i]) as f64 / 1e3 / messages),
        })
    }
}

fn beam(end: &str, wanted: &[&str], addresses: &[SocketAddr], beams: &Path) -> Vec<String> {
    let name = name_of(end);
    let beams = beams.display().to_string();
    let words = ["erl", "-noshell", "-boot", "no_dot_erlang", "-name", &name];
    let more = ["-setcookie", COOKIE, "-start_epmd", "false", "-epmd_module"];
    let last = ["-kernel", "inet_dist_use_interface", "{127,0,0,1}", "-pa"];
    let mut ports = vec!["-bench_ports".to_owned()];
    for (peer, address) in wanted.iter().zip(addresses) {
        ports.extend([peer.replace('-', "_"), address.port().to_string()]);
    }
    let owned = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    [
        owned(&words),
        owned(&more),
        vec!["bench_epmd".into()],
        ports,
        owned(&last),
        vec![beams, "-s".into(), "bench_node".into()],
    ]
    .concat()
}

fn rust(end: &str, at: usize, wanted: &[&str], addresses: &[SocketAddr]) -> Result<Vec<String>> {
    let exe = std::env::current_exe()?.display().to_string();
    let listen = addresses.get(at).context("no address")?.to_string();
    let mut words = vec![exe, "stock-end".into(), end.into(), name_of(end), listen];
    let peers = wanted.iter().zip(addresses);
    words.extend(peers.map(|(peer, address)| format!("{}={address}", name_of(peer))));
    Ok(words)
}

fn checksum(payload: &[u8], count: u64) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    (0..count).for_each(|_| crc.update(payload));
    crc.finalize()
}

/// Runs everything and prints tables.
pub(crate) fn run(plan: &Plan, scratch: &Path) -> Result<()> {
    let routes: Vec<_> = ROUTES
        .into_iter()
        .filter(|(group, name, ..)| format!("{group} {name}").contains(&plan.only))
        .collect();
    let wanted: Vec<&'static str> = ENDS
        .into_iter()
        .filter(|end| routes.iter().any(|(.., from, to)| from == end || to == end))
        .collect();
    let senders = plan.senders.iter().copied().max().context("no senders")?;
    let assets = Assets::prepare(scratch, plan.sizes.clone())?;
    let mut field = Field::start(&assets, &wanted, senders)?;
    let payload = std::fs::read(&assets.payload)?;
    println!(
        "{}; OTP {}; {} runs of each; load average {:.1} at the start",
        process::machine(),
        field.otp,
        plan.repetitions,
        process::load()
    );
    for &size in &plan.sizes {
        for &senders in &plan.senders {
            let payload = payload.get(..size).context("too large a payload")?;
            let runs = point(&mut field, &routes, payload, senders, plan)?;
            for group in ["to-beam", "to-raw", "from-beam"] {
                let text = table(&routes, &runs, group);
                if !text.is_empty() {
                    println!("\n{group} size={size} senders={senders}\n\n{text}");
                }
            }
        }
    }
    println!("load average {:.1}", process::load());
    Ok(())
}

type Route = (&'static str, &'static str, &'static str, &'static str);

/// The runs of each route, by repetition.
fn point(
    field: &mut Field,
    routes: &[Route],
    payload: &[u8],
    senders: usize,
    plan: &Plan,
) -> Result<Vec<Vec<Run>>> {
    let size = payload.len();
    let mut counts = Vec::new();
    for (.., from, to) in routes {
        let mut count = WARM_UP / senders as u64;
        for _ in 0..2 {
            let crc = checksum(payload, count);
            let run = field.round((from, to), senders, size, count, crc)?;
            count = (run.rate * plan.target.as_secs_f64()) as u64 / senders as u64;
            count = count.max(100);
        }
        counts.push(count);
    }
    let crcs: Vec<u32> = counts
        .iter()
        .map(|count| checksum(payload, *count))
        .collect();
    let mut runs = vec![Vec::new(); routes.len()];
    for repetition in 0..plan.repetitions as usize {
        for step in 0..routes.len() {
            // Another one begins each time.
            let at = (step + repetition) % routes.len();
            let (.., from, to) = routes[at];
            let run = field.round((from, to), senders, size, counts[at], crcs[at])?;
            runs[at].push(run);
        }
    }
    Ok(runs)
}

fn table(routes: &[Route], runs: &[Vec<Run>], group: &str) -> String {
    let mut rows = routes
        .iter()
        .zip(runs)
        .filter(|((g, ..), _)| *g == group)
        .peekable();
    let Some((_, reference)) = rows.peek().copied() else {
        return String::new();
    };
    let heading = [
        "contestant",
        "messages/s (min–max)",
        "ratio (min–max)",
        "CPU µs, sender",
        "receiver",
    ];
    let mut table = Table::new(&heading);
    for ((_, name, ..), runs) in rows {
        let spread = |figure: &dyn Fn(&Run) -> f64| Spread::of(runs.iter().map(figure));
        let rate = spread(&|run| run.rate);
        let pairs = runs.iter().zip(reference);
        let ratio = Spread::of(pairs.map(|(run, other)| run.rate / other.rate));
        let wide = |spread: Option<Spread>, digits: fn(f64) -> String| {
            spread.map_or(String::new(), |s| {
                format!("{} ({}–{})", digits(s.median), digits(s.min), digits(s.max))
            })
        };
        let cpu = [0, 1].map(|i| {
            let spread = spread(&|run| run.cpu[i]);
            spread.map_or(String::new(), |s| short(s.median))
        });
        let [from, to] = cpu;
        table.row(vec![
            (*name).to_owned(),
            wide(rate, short),
            wide(ratio, |r| format!("{r:.2}")),
            from,
            to,
        ]);
    }
    table.text()
}
