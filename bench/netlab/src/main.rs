//! The command `netlab`: see `netlab help`.

#![forbid(unsafe_code)]

mod verify;

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use lexopt::prelude::*;
use netlab::{Lab, LabBuilder, LinkSettings};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

const HELP: &str = "\
netlab: network namespaces joined by links with delay, rate, queue, loss and cuts

netlab up --nodes N --prefix P [--all SETTINGS] [--control SOCKET] [--sysctl KEY=VALUE]...
          [--realtime] [--gso on|off] [--cubic-loopback] [--seed N]
    makes the namespaces P0 to P(N-1), prints `ready P0=10.77.0.1 ...`, and runs until a signal or
    the end of its input; then removes them

netlab ctl SOCKET \"set A B SETTINGS\" | \"show\"
    changes the links from A to B (a number or `all`), or shows their counters

netlab clean --prefix P
    removes the namespaces that a lab left behind

netlab verify [--seconds N] [--json] [--sysctl KEY=VALUE]... [--realtime]
    measures itself: ping and bulk TCP at round trips of 0, 1 and 20 ms

SETTINGS: delay=0.5ms rate=1gbit|none queue=1m loss=1% up=yes|no; the delay is one way
";

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("netlab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let mut arguments = lexopt::Parser::from_env();
    match arguments.next()? {
        Some(Value(command)) => match command.string()?.as_str() {
            "up" => up(&Options::parse(&mut arguments, &UP)?),
            "ctl" => ctl(&mut arguments),
            "clean" => clean(&Options::parse(&mut arguments, &["prefix"])?),
            "verify" => {
                let options =
                    Options::parse(&mut arguments, &["seconds", "json", "sysctl", "realtime"])?;
                let prefix = format!("nlverify{}-", std::process::id());
                let lab = options.builder(prefix, 2).start()?;
                verify::run(&lab, options.seconds, options.json)
            }
            "help" => help(),
            other => Err(format!("unknown command `{other}`: see netlab help").into()),
        },
        Some(Long("help") | Short('h')) => help(),
        Some(other) => Err(other.unexpected().into()),
        None => Err("a command is needed: up, ctl, clean or verify; see netlab help".into()),
    }
}

fn help() -> Result<(), Failure> {
    io::stdout().write_all(HELP.as_bytes())?;
    Ok(())
}

const UP: [&str; 9] = [
    "nodes",
    "prefix",
    "all",
    "control",
    "sysctl",
    "realtime",
    "gso",
    "cubic-loopback",
    "seed",
];

struct Options {
    nodes: Option<usize>,
    prefix: Option<String>,
    all: LinkSettings,
    control: Option<PathBuf>,
    sysctls: Vec<(String, String)>,
    realtime: bool,
    super_packets: bool,
    cubic_loopback: bool,
    seed: u64,
    seconds: Duration,
    json: bool,
}

impl Options {
    fn parse(arguments: &mut lexopt::Parser, allowed: &[&str]) -> Result<Self, Failure> {
        let mut options = Self {
            nodes: None,
            prefix: None,
            all: LinkSettings::default(),
            control: None,
            sysctls: Vec::new(),
            realtime: false,
            super_packets: true,
            cubic_loopback: false,
            seed: 1,
            seconds: Duration::from_secs(4),
            json: false,
        };
        while let Some(argument) = arguments.next()? {
            match argument {
                Long(name) if !allowed.contains(&name) => return Err(argument.unexpected().into()),
                Long("nodes") => options.nodes = Some(arguments.value()?.parse()?),
                Long("prefix") => options.prefix = Some(arguments.value()?.string()?),
                Long("all") => options.all = arguments.value()?.string()?.parse()?,
                Long("control") => options.control = Some(arguments.value()?.into()),
                Long("sysctl") => {
                    let text = arguments.value()?.string()?;
                    let (key, value) = text
                        .split_once('=')
                        .ok_or(format!("--sysctl {text}: no KEY=VALUE"))?;
                    options
                        .sysctls
                        .push((key.trim().into(), value.trim().into()));
                }
                Long("realtime") => options.realtime = true,
                Long("gso") => {
                    options.super_packets = match arguments.value()?.string()?.as_str() {
                        "on" => true,
                        "off" => false,
                        other => return Err(format!("--gso {other}: expected on or off").into()),
                    }
                }
                Long("cubic-loopback") => options.cubic_loopback = true,
                Long("seed") => options.seed = arguments.value()?.parse()?,
                Long("seconds") => {
                    let seconds: f64 = arguments.value()?.parse()?;
                    if !(0.1..=3600.0).contains(&seconds) {
                        return Err("--seconds: expected 0.1 to 3600".into());
                    }
                    options.seconds = Duration::from_secs_f64(seconds);
                }
                Long("json") => options.json = true,
                other => return Err(other.unexpected().into()),
            }
        }
        Ok(options)
    }

    fn builder(&self, prefix: String, nodes: usize) -> LabBuilder {
        let builder = Lab::builder(prefix, nodes)
            .all(self.all)
            .realtime(self.realtime)
            .super_packets(self.super_packets)
            .cubic_loopback(self.cubic_loopback)
            .seed(self.seed);
        self.sysctls
            .iter()
            .fold(builder, |builder, (key, value)| builder.sysctl(key, value))
    }

    fn prefix(&self) -> Result<String, Failure> {
        Ok(self.prefix.clone().ok_or("--prefix is needed")?)
    }
}

fn up(options: &Options) -> Result<(), Failure> {
    let nodes = options.nodes.ok_or("--nodes is needed")?;
    // Before anything is made, so that a signal ends it in good order from the first moment on.
    let (end, ended) = mpsc::channel();
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    thread::spawn({
        let end = end.clone();
        move || {
            signals.forever().next();
            let _ = end.send(());
        }
    });
    let mut lab = options.builder(options.prefix()?, nodes).start()?;
    if let Some(socket) = &options.control {
        lab.serve(socket)?;
    }
    let mut ready = String::from("ready");
    for node in 0..lab.nodes() {
        ready += &format!(" {}={}", lab.namespace(node).name(), netlab::address(node));
    }
    writeln!(io::stdout(), "{ready}")?;
    thread::spawn(move || {
        let mut ignored = [0; 4096];
        while matches!(io::stdin().read(&mut ignored), Ok(1..)) {}
        let _ = end.send(());
    });
    let _ = ended.recv();
    Ok(())
}

fn ctl(arguments: &mut lexopt::Parser) -> Result<(), Failure> {
    let socket = PathBuf::from(arguments.value()?);
    let line = arguments.value()?.string()?;
    if let Some(more) = arguments.next()? {
        return Err(more.unexpected().into());
    }
    let answer = netlab::request(&socket, &line)?;
    if !answer.is_empty() {
        writeln!(io::stdout(), "{answer}")?;
    }
    Ok(())
}

fn clean(options: &Options) -> Result<(), Failure> {
    for name in netlab::clean(&options.prefix()?)? {
        writeln!(io::stdout(), "removed {name}")?;
    }
    Ok(())
}
