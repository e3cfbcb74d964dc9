//! Stock Erlang nodes as children of a test.
//!
//! [`releases`] tells which OTP releases there are (`scripts/otp.sh`): the host's and those that
//! were made. A release that is missing is skipped with a printed line; with
//! `PARTISAN_OTP_REQUIRED=1` it is made, and if that fails the test fails.
//!
//! A [`Peer`] is an `erl` that reads expressions from its standard input, evaluates each in a
//! process of its own and prints what came out (`stock_peer:serve/0`). Nothing waits without
//! bound; the nodes end when their input does, so none outlives the test, however the test ends.
//! An [`Epmd`] is a name server of the test's own on a free port.

#![allow(dead_code, reason = "each test that includes this uses a part of it")]
#![allow(unreachable_pub, reason = "it is a module of tests")]

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// The releases that this project is tested against.
pub const WANTED: [u32; 3] = [25, 27, 29];

/// How long an answer may take where the test names no other time.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Lines of a peer's output that are kept to be shown.
const LINES_KEPT: usize = 400;

/// An OTP release that can be run here.
#[derive(Clone, Debug)]
pub struct Release {
    /// 25, 27, 29.
    pub number: u32,
    prefix: Vec<String>,
}

impl Release {
    /// A program of this release: `erl`, `erlc`, `epmd`.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(&self.prefix[0]);
        command
            .args(&self.prefix[1..])
            .arg(program)
            .env("PARTISAN_OTP_BIND", scratch())
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        command
    }
}

/// The releases found, printed once. Those in `PARTISAN_OTP_RELEASES` ("25,29"), if it is set.
pub fn releases() -> &'static [Release] {
    static FOUND: OnceLock<Vec<Release>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let only = std::env::var("PARTISAN_OTP_RELEASES").ok();
        let asked_for = |number: &u32| {
            only.as_deref()
                .is_none_or(|list| list.split(',').any(|one| one == number.to_string()))
        };
        WANTED
            .into_iter()
            .filter(asked_for)
            .filter_map(find)
            .collect()
    })
}

fn find(number: u32) -> Option<Release> {
    let required = std::env::var("PARTISAN_OTP_REQUIRED").is_ok_and(|value| value == "1");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/otp.sh");
    let mut command = Command::new(script);
    if !required {
        command.arg("find");
    }
    let output = command
        .arg(number.to_string())
        .output()
        .expect("scripts/otp.sh");
    if output.status.success() {
        let prefix = String::from_utf8_lossy(&output.stdout);
        println!("OTP {number}: found");
        return Some(Release {
            number,
            prefix: prefix.split_whitespace().map(str::to_owned).collect(),
        });
    }
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(!required, "OTP {number} is required: {why}");
    println!("OTP {number}: skipped: {}", why.trim());
    None
}

/// A folder for what tests leave behind.
pub fn scratch() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// Where the modules of `test/stock` are, compiled by this release: what OTP 25 writes, OTP 29
/// does not load.
pub fn beams(release: &Release) -> PathBuf {
    static MADE: Mutex<Vec<u32>> = Mutex::new(Vec::new());
    let whole = scratch().join(format!("stock-{}", release.number));
    let mut made = lock(&MADE);
    if !made.contains(&release.number) {
        compile(release, &whole);
        made.push(release.number);
    }
    whole
}

fn compile(release: &Release, whole: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("test/stock");
    let half = scratch().join(format!("stock-{}.{}", release.number, std::process::id()));
    std::fs::create_dir_all(&half).unwrap();
    std::fs::create_dir_all(whole).unwrap();
    let modules = std::fs::read_dir(source)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "erl"));
    let output = release
        .command("erlc")
        .arg("-o")
        .arg(&half)
        .args(modules)
        .output()
        .expect("erlc");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "erlc: {printed}");
    // Another test may be reading the same files.
    for entry in std::fs::read_dir(&half).unwrap() {
        let entry = entry.unwrap();
        std::fs::rename(entry.path(), whole.join(entry.file_name())).unwrap();
    }
    std::fs::remove_dir(&half).unwrap();
}

/// A name server of the test's own.
pub struct Epmd {
    /// Where it listens, on all addresses.
    pub port: u16,
    child: Child,
}

impl Epmd {
    /// Starts the one of `release` on a free port.
    pub fn start(release: &Release) -> Epmd {
        for _ in 0..20 {
            if let Some(epmd) = Epmd::start_at(release, free_port()) {
                return epmd;
            }
        }
        panic!("epmd does not start");
    }

    /// Starts it at this port; `None` if that is taken.
    pub fn start_at(release: &Release, port: u16) -> Option<Epmd> {
        let epmd = release.command("epmd");
        // epmd reads no input, so a shell watches over it: it ends with the test.
        let mut child = Command::new("sh")
            .args(["-c", "\"$@\" & epmd=$!; cat >/dev/null; kill $epmd", "sh"])
            .arg(epmd.get_program())
            .args(epmd.get_args())
            .args(["-port", &port.to_string()])
            .env("PARTISAN_OTP_BIND", scratch())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sh");
        let begin = Instant::now();
        let mut complaint = child.stderr.take().unwrap();
        let complains = Arc::new(OnceLock::new());
        let told = complains.clone();
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = complaint.read_to_string(&mut text);
            let _ = told.set(text);
        });
        while begin.elapsed() < PATIENCE {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Some(Epmd { port, child });
            }
            if complains.get().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(child.stdin.take());
        let _ = child.wait();
        None
    }
}

impl Drop for Epmd {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// A port that nobody uses now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// How a peer is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// `-name` or `-sname`; "undefined" asks the first node it meets for a name.
    pub name: String,
    /// Whether `name` is short.
    pub short: bool,
    /// The cookie.
    pub cookie: String,
    /// Further arguments: `-hidden`, `-kernel net_ticktime 8`, …
    pub arguments: Vec<String>,
}

impl Options {
    /// A long name on the loopback address, and a cookie.
    pub fn new(name: &str, cookie: &str) -> Options {
        Options {
            name: format!("{name}@127.0.0.1"),
            short: false,
            cookie: cookie.to_owned(),
            arguments: Vec::new(),
        }
    }

    /// The same with further arguments, told apart by white space.
    pub fn with(mut self, arguments: &str) -> Options {
        self.arguments
            .extend(arguments.split_whitespace().map(str::to_owned));
        self
    }
}

type Answer = Result<String, String>;

#[derive(Default)]
struct Shared {
    waiting: Mutex<Option<HashMap<u64, Sender<Answer>>>>,
    lines: Mutex<VecDeque<String>>,
}

/// A node of stock Erlang.
pub struct Peer {
    /// Its OTP release.
    pub release: u32,
    /// The name it was given.
    pub name: String,
    child: Child,
    input: Mutex<(u64, ChildStdin)>,
    shared: Arc<Shared>,
}

impl Peer {
    /// Starts a node and waits until it evaluates.
    pub fn start(release: &Release, epmd: &Epmd, options: &Options) -> Peer {
        let mut command = release.command("erl");
        command
            .args(["-noshell", "-boot", "no_dot_erlang", "-start_epmd", "false"])
            .args([
                if options.short { "-sname" } else { "-name" },
                &options.name,
            ])
            .args(["-setcookie", &options.cookie])
            .args(&options.arguments)
            .arg("-pa")
            .arg(beams(release))
            .args(["-s", "stock_peer", "serve"])
            .env("ERL_EPMD_PORT", epmd.port.to_string())
            .env("ERL_CRASH_DUMP_SECONDS", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("erl");
        let shared = Arc::new(Shared::default());
        *lock(&shared.waiting) = Some(HashMap::new());
        let input = child.stdin.take().unwrap();
        listen(child.stdout.take().unwrap(), shared.clone(), true);
        listen(child.stderr.take().unwrap(), shared.clone(), false);
        let peer = Peer {
            release: release.number,
            name: options.name.clone(),
            child,
            input: Mutex::new((0, input)),
            shared,
        };
        peer.expect("ok", "ok");
        peer
    }

    /// Starts evaluating `expression` (without a full stop; its variables are its own).
    pub fn begin(&self, expression: &str) -> Pending {
        let (answer, receiver) = channel();
        let mut input = lock(&self.input);
        input.0 += 1;
        let id = input.0;
        match lock(&self.shared.waiting).as_mut() {
            Some(waiting) => drop(waiting.insert(id, answer)),
            None => drop(answer.send(Err("the node has ended".to_owned()))),
        }
        let line = format!("{id} {}.\n", expression.replace('\n', " "));
        // If the node has ended, the reader's end tells it.
        let _ = input.1.write_all(line.as_bytes());
        let _ = input.1.flush();
        Pending {
            expression: expression.to_owned(),
            receiver,
        }
    }

    /// The value of `expression` as Erlang prints it on one line (`~0tp`), or what it raised.
    pub fn eval(&self, expression: &str) -> Answer {
        self.begin(expression).wait(PATIENCE)
    }

    /// Fails the test unless `expression` has this value.
    #[track_caller]
    pub fn expect(&self, expression: &str, value: &str) {
        self.expect_within(expression, value, PATIENCE);
    }

    /// Fails the test unless `expression` has this value within this time.
    #[track_caller]
    pub fn expect_within(&self, expression: &str, value: &str, patience: Duration) {
        let answer = self.begin(expression).wait(patience);
        assert!(
            answer.as_deref() == Ok(value),
            "OTP {} ({}): {expression}\n  gave {answer:?}\n  instead of {value}\n{}",
            self.release,
            self.name,
            self.printed(),
        );
    }

    /// Fails the test unless `stock_peer:ask(FUNCTION, NODE)` is `ok`.
    #[track_caller]
    pub fn check(&self, function: &str, node: &str) {
        let began = Instant::now();
        self.expect_within(
            &format!("stock_peer:ask({function}, '{node}')"),
            "ok",
            Duration::from_secs(180),
        );
        println!(
            "OTP {}: {function}: ok, {} ms",
            self.release,
            began.elapsed().as_millis()
        );
    }

    /// What the node printed last.
    pub fn printed(&self) -> String {
        let lines = lock(&self.shared.lines);
        lines.iter().map(|line| format!("  | {line}\n")).collect()
    }

    /// The process of the node, to be stopped and continued.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("OTP {} ({}):\n{}", self.release, self.name, self.printed());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An expression under way.
pub struct Pending {
    expression: String,
    receiver: Receiver<Answer>,
}

impl Pending {
    /// Its value, at the latest after `patience`.
    pub fn wait(self, patience: Duration) -> Answer {
        self.receiver
            .recv_timeout(patience)
            .unwrap_or_else(|_| Err(format!("no answer in {patience:?}: {}", self.expression)))
    }
}

/// Gives answers to those who wait for them, and keeps other lines.
fn listen(output: impl Read + Send + 'static, shared: Arc<Shared>, answers: bool) {
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n') {
            let Ok(line) = line else { break };
            let line = String::from_utf8_lossy(&line).into_owned();
            match parse(&line).filter(|_| answers) {
                Some((id, answer)) => {
                    let waiting = lock(&shared.waiting)
                        .as_mut()
                        .and_then(|all| all.remove(&id));
                    if let Some(waiting) = waiting {
                        let _ = waiting.send(answer);
                    }
                }
                None => {
                    let mut lines = lock(&shared.lines);
                    if lines.len() == LINES_KEPT {
                        lines.pop_front();
                    }
                    lines.push_back(line);
                }
            }
        }
        if answers {
            for waiting in lock(&shared.waiting)
                .take()
                .unwrap_or_default()
                .into_values()
            {
                let _ = waiting.send(Err("the node has ended".to_owned()));
            }
        }
    });
}

/// `@@ID ok VALUE`, `@@ID error WHY`.
fn parse(line: &str) -> Option<(u64, Answer)> {
    let (id, rest) = line.strip_prefix("@@")?.split_once(' ')?;
    let id = id.parse().ok()?;
    match rest.split_once(' ')? {
        ("ok", value) => Some((id, Ok(value.to_owned()))),
        ("error", why) => Some((id, Err(why.to_owned()))),
        _ => None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
