//! Two ends that know each other.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::contestant::{Channels, End, Flavour, PairKind};
use crate::end::{EndProcess, SOON};
use crate::point::MAX_BYTES;
use crate::process::clock_ns;
use crate::site::Ground;

/// The secret of all ends: they listen on addresses of this host only.
const COOKIE: &str = "partisan-bench";
/// How far the clocks of an end and the driver may differ, a command's way included.
const CLOCK_NS: u64 = 1_000_000_000;

/// What ends are started from.
#[derive(Clone, Debug)]
pub(crate) struct Assets {
    /// Compiled `bench/erlang`.
    pub(crate) beams: PathBuf,
    /// The product's applications: `ebin` directories.
    pub(crate) ours: PathBuf,
    /// Those of lasp-lang/partisan.
    pub(crate) upstream: Vec<PathBuf>,
    /// Random bytes, what messages carry.
    pub(crate) payload: PathBuf,
    /// Payload sizes that may occur.
    pub(crate) sizes: Vec<usize>,
    pub(crate) logs: PathBuf,
}

impl Assets {
    /// Compiles the Erlang part and makes the payload.
    pub(crate) fn prepare(scratch: &Path, sizes: Vec<usize>) -> Result<Self> {
        let root = repository();
        let beams = scratch.join("ebin");
        let logs = scratch.join("logs");
        for dir in [&beams, &logs] {
            std::fs::create_dir_all(dir).with_context(|| format!("{}", dir.display()))?;
        }
        let sources = std::fs::read_dir(root.join("bench/erlang"))?;
        let sources: Vec<PathBuf> = sources
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|e| e == "erl"))
            .collect();
        let output = std::process::Command::new("erlc")
            .args(["+warnings_as_errors", "+warn_missing_spec", "-o"])
            .arg(&beams)
            .args(sources)
            .output()
            .context("erlc")?;
        if !output.status.success() {
            bail!("erlc: {}", String::from_utf8_lossy(&output.stdout));
        }
        let payload = scratch.join("payload");
        let mut bytes = vec![0; MAX_BYTES];
        rand::Rng::fill_bytes(&mut rand::rng(), &mut bytes);
        std::fs::write(&payload, bytes)?;
        let upstream = match std::env::var_os("PARTISAN_UPSTREAM") {
            Some(dir) => code_paths(Path::new(&dir))?,
            None => Vec::new(),
        };
        Ok(Self {
            beams,
            ours: root.clone(),
            upstream,
            payload,
            sizes,
            logs,
        })
    }
}

/// The directory itself if it holds modules, and every `ebin` one level down.
fn code_paths(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = vec![dir.to_owned()];
    let entries = std::fs::read_dir(dir).with_context(|| format!("{}", dir.display()))?;
    for entry in entries {
        let ebin = entry?.path().join("ebin");
        if ebin.is_dir() {
            paths.push(ebin);
        }
    }
    let dir_or_ebin = dir.join("ebin");
    if dir_or_ebin.is_dir() {
        paths.push(dir_or_ebin);
    }
    Ok(paths)
}

/// Where this crate's sources are.
pub(crate) fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().nth(2).unwrap_or(here);
    root.to_owned()
}

/// Where a checkout has its compiled applications.
fn product_paths(checkout: &Path) -> Result<Vec<PathBuf>> {
    let ebin = checkout.join("_build/default/lib/partisan/ebin");
    if !ebin.is_dir() {
        bail!("{} is missing: run `make build` there", ebin.display());
    }
    Ok(vec![ebin])
}

/// Two running ends, A that sends and B that receives.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) ends: [EndProcess; 2],
    /// B's name, as A calls it.
    pub(crate) peer: String,
    pub(crate) otp: String,
}

impl Pair {
    /// Starts both and joins them.
    pub(crate) fn start(
        kind: &PairKind,
        channels: &Channels,
        ground: &Ground,
        assets: &Assets,
        number: u32,
    ) -> Result<Self> {
        let ports = free_ports()?;
        let names = [0, 1].map(|i| {
            let letter = ["a", "b"][i];
            format!("{letter}{number}@{}", ground.address(i))
        });
        let listen = [0, 1].map(|i| format!("{}:{}", ground.address(i), ports[i]));
        let start = |i: usize| {
            let words = match kind.ends[i] {
                End::Beam => beam_words(kind, &names, i, &ports, ground, assets)?,
                End::Rust | End::Tcp => {
                    let exe = std::env::current_exe()?.display().to_string();
                    vec![exe, "rust-end".into(), names[i].clone()]
                }
            };
            let log = assets.logs.join(format!("{}.log", names[i]));
            let environment = [("PARTISAN_COOKIE", COOKIE)];
            EndProcess::start(&names[i], &ground.at(i, words), &environment, &log)
        };
        let mut ends = [start(0)?, start(1)?];

        let sizes: Vec<String> = assets.sizes.iter().map(usize::to_string).collect();
        let payload = assets.payload.display();
        let hello = format!("hello payload={payload} sizes={}", sizes.join(","));
        let mut otp = String::new();
        for end in &mut ends {
            let answer = end.tell(&hello, SOON)?;
            end.pid = u32::try_from(answer.number("pid")?)?;
            end.tells_cpu = answer.text("otp").is_empty();
            if clock_ns().abs_diff(answer.number("clock")?) > CLOCK_NS {
                bail!("the clocks of the ends cannot be compared");
            }
            answer.text("otp").clone_into(&mut otp);
        }

        let channels: Vec<String> = channels.iter().map(|(n, c)| format!("{n}:{c}")).collect();
        let channels = channels.join(",");
        let config: Vec<String> = kind
            .config
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        let config = config.join(";");
        for i in [1, 0] {
            let flavour = match (kind.ends[i], kind.flavour) {
                (End::Tcp, _) => "tcp",
                (End::Beam, _) if kind.ends[1] == End::Rust => "mixed",
                (_, Flavour::Dist) => "dist",
                (_, Flavour::Ours) => "ours",
                (_, Flavour::Upstream) => "upstream",
            };
            let listen = &listen[i];
            let start = format!(
                "start flavour={flavour} listen={listen} channels={channels} config={config}"
            );
            ends[i].tell(&start, SOON)?;
        }
        if kind.flavour != Flavour::Dist || kind.ends[0] == End::Tcp {
            let join = format!(
                "join name={} listen={} channels={channels}",
                names[1], listen[1]
            );
            ends[0].tell(&join, SOON)?;
        }
        if kind.flavour == Flavour::Upstream {
            // Its connections come up one by one, also in the direction back.
            std::thread::sleep(Duration::from_secs(3));
        }
        let [_, peer] = names;
        Ok(Self { ends, peer, otp })
    }
}

fn beam_words(
    kind: &PairKind,
    names: &[String; 2],
    i: usize,
    ports: &[u16; 4],
    ground: &Ground,
    assets: &Assets,
) -> Result<Vec<String>> {
    let short = |name: &str| name.split('@').next().unwrap_or_default().to_owned();
    let interface = ground.address(i).replace('.', ",");
    let mut words: Vec<String> = ["erl", "-noshell", "-boot", "no_dot_erlang"]
        .map(str::to_owned)
        .into();
    let mut add = |more: &[&str]| words.extend(more.iter().map(|w| (*w).to_owned()));
    add(&["-name", &names[i], "-setcookie", COOKIE]);
    add(&["-start_epmd", "false", "-epmd_module", "bench_epmd"]);
    add(&["-bench_ports", &short(&names[0]), &ports[2].to_string()]);
    add(&[&short(&names[1]), &ports[3].to_string()]);
    add(&[
        "-kernel",
        "inet_dist_use_interface",
        &format!("{{{interface}}}"),
    ]);
    if kind.zdbbl {
        add(&["+zdbbl", "131072"]);
    }
    let mut paths = vec![assets.beams.clone()];
    match kind.flavour {
        Flavour::Dist => {}
        Flavour::Ours => paths.extend(product_paths(kind.build.as_ref().unwrap_or(&assets.ours))?),
        Flavour::Upstream if assets.upstream.is_empty() => {
            bail!("PARTISAN_UPSTREAM is not set");
        }
        Flavour::Upstream => paths.extend(assets.upstream.iter().cloned()),
    }
    for path in paths {
        add(&["-pa", &path.display().to_string()]);
    }
    add(&["-s", "bench_node"]);
    Ok(words)
}

/// Four ports that are free now, held until all are known.
fn free_ports() -> Result<[u16; 4]> {
    let mut sockets = Vec::new();
    let mut ports = [0; 4];
    for port in &mut ports {
        let socket = TcpListener::bind("127.0.0.1:0")?;
        *port = socket.local_addr()?.port();
        sockets.push(socket);
    }
    Ok(ports)
}
