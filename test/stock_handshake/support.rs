//! Real nodes to talk to, a name server of the test's own, and a Rust listener.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use partisan::connection::door::Door;
use partisan::connection::establish::{Desk, Local, Pending};
use partisan::connection::listen;
use partisan::distribution::dial::{
    self, DialError, StockArrival, StockDesk, StockJudgement, Stocked, Stream,
};
use partisan::distribution::epmd::{Epmd, EpmdError, Registration};
use partisan::distribution::names::{NameForm, Resolver};
use partisan::wire::flags::Flags;
use partisan::wire::handshake::Verdict;
use partisan::wire::identity::Identity;
use tokio::io::AsyncReadExt;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const COOKIE: &str = "stock_cookie";

/// Reads an expression per line, answers with its value; ends with its input.
const LOOP: &str = "Loop = fun Self() -> case io:get_line('') of eof -> halt(); Line -> \
    {ok, Tokens, _} = erl_scan:string(Line), {ok, Exprs} = erl_parse:parse_exprs(Tokens), \
    Value = try element(2, erl_eval:exprs(Exprs, [])) catch C:R -> {C, R} end, \
    io:format(\"@@~0tp~n\", [Value]), Self() end end, io:format(\"@@up~n\"), Loop().";

/// A way to run the programs of an OTP release.
#[derive(Clone, Debug)]
pub(crate) struct Otp {
    pub(crate) release: u32,
    prefix: Vec<String>,
}

/// A folder that programs of every release see.
pub(crate) fn scratch() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// The releases here: `PATH`'s, and those that `scripts/otp.sh` finds.
pub(crate) fn releases() -> Vec<Otp> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/otp.sh");
    let mut found = Vec::new();
    for release in [25, 27, 29] {
        let prefix = Command::new(&script)
            .args(["find", &release.to_string()])
            .stderr(Stdio::null())
            .output()
            .ok()
            .filter(|output| output.status.success())
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        match prefix {
            Some(prefix) => found.push(Otp {
                release,
                prefix: prefix.split_whitespace().map(str::to_owned).collect(),
            }),
            None => println!("OTP {release}: not found by {}", script.display()),
        }
    }
    if found.is_empty() && Command::new("erl").arg("-version").output().is_ok() {
        let prefix = vec!["env".to_owned()];
        found.push(Otp { release: 0, prefix });
    }
    if found.is_empty() {
        println!("skipped: there is no erl");
    }
    found
}

impl Otp {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(&self.prefix[0]);
        command
            .args(&self.prefix[1..])
            .arg(program)
            .env("PARTISAN_OTP_BIND", scratch());
        command
    }
}

/// An EPMD on a port of its own, which ends with the test.
pub(crate) struct Daemon {
    pub(crate) port: u16,
    child: Child,
}

impl Daemon {
    pub(crate) fn start(rt: &Runtime) -> Daemon {
        Self::start_at(rt, free_port())
    }

    pub(crate) fn start_at(rt: &Runtime, port: u16) -> Daemon {
        let child = Command::new("epmd")
            .args(["-port", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("epmd");
        let daemon = Daemon { port, child };
        rt.block_on(async {
            let began = tokio::time::Instant::now();
            while let Err(error) = daemon.client().names(LOCAL).await {
                assert!(began.elapsed() < PATIENCE, "epmd does not start: {error}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        daemon
    }

    pub(crate) fn client(&self) -> Epmd {
        Epmd::on_port(self.port)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub(crate) fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    socket.local_addr().expect("its number").port()
}

/// A stock node that evaluates what it is given.
pub(crate) struct Erl {
    pub(crate) name: String,
    release: u32,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Erl {
    /// Starts a node and waits until it is up. A host without dots makes a short name.
    pub(crate) fn start(otp: &Otp, daemon: &Daemon, name: &str, more: &[&str]) -> Erl {
        let form = match name.contains('.') {
            true => "-name",
            false => "-sname",
        };
        let mut child = otp
            .command("erl")
            .args(["-noshell", "-start_epmd", "false", "-setcookie", COOKIE])
            .args(["-kernel", "net_ticktime", "4", form, name])
            .args(more)
            .args(["-eval", LOOP])
            .env("ERL_EPMD_PORT", daemon.port.to_string())
            .env("ERL_CRASH_DUMP_SECONDS", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("erl");
        let mut erl = Erl {
            name: name.to_owned(),
            release: otp.release,
            input: child.stdin.take().expect("its input"),
            output: BufReader::new(child.stdout.take().expect("its output")),
            child,
        };
        assert_eq!(erl.answer(), "up");
        erl
    }

    /// What the node answers next. Its log goes to the same place and is shown.
    fn answer(&mut self) -> String {
        loop {
            let mut line = String::new();
            let read = self.output.read_line(&mut line).expect("output in UTF-8");
            assert_ne!(read, 0, "OTP {}: {} has ended", self.release, self.name);
            match line.strip_prefix("@@") {
                Some(answer) => return answer.trim_end().to_owned(),
                None => print!("  | {line}"),
            }
        }
    }

    pub(crate) fn eval(&mut self, expression: &str) -> String {
        self.begin(expression);
        self.answer()
    }

    /// Starts an evaluation; the answer comes with the next one.
    fn begin(&mut self, expression: &str) {
        writeln!(self.input, "{expression}.").expect("it reads");
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, expression: &str, value: &str) {
        let answer = self.eval(expression);
        assert_eq!(answer, value, "OTP {}: {expression}", self.release);
    }

    /// What `rpc` of the answer: whether it sees `node` as a hidden one.
    #[track_caller]
    pub(crate) fn expect_hidden(&mut self, node: &str) {
        let sees = format!("lists:member('{node}', nodes(hidden))");
        self.expect(&sees, "true");
    }
}

impl Drop for Erl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn local(name: &str, creation: u32, cookie: &str) -> Local {
    Local {
        bundles: false,
        identity: Identity::new(name, creation),
        stock_flags: Flags::OURS,
        instance: rand::random(),
        channels: Vec::new(),
        cookie: cookie.into(),
        cookies: Default::default(),
        tunnels: None,
    }
}

/// Finds a node through EPMD and dials it.
pub(crate) async fn reach(
    daemon: &Daemon,
    peer: &str,
    local: &Local,
    tls: Option<&TlsConnector>,
) -> Result<Stocked, DialError> {
    let form = match peer.contains('.') {
        true => NameForm::Long,
        false => NameForm::Short,
    };
    let resolver = Resolver::Epmd(daemon.client());
    let target = resolver.resolve(peer, form).await.expect("it is running");
    dial::dial(&target, peer.into(), local.cookie_for(peer), local, tls).await
}

/// A tick of the peer: the link is up, and in the framing that follows the handshake.
pub(crate) async fn tick(stream: &mut Stream) {
    let mut length = [9; 4];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut length))
        .await
        .expect("a tick in time")
        .expect("the connection stays");
    assert_eq!(length, [0; 4], "hidden nodes get nothing but ticks unasked");
}

/// A Rust node that listens, and whose judge the test is.
pub(crate) struct Rust {
    pub(crate) name: String,
    _registration: Registration,
    pub(crate) arrivals: mpsc::Receiver<StockArrival>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Rust {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Rust {
    pub(crate) async fn listen(
        daemon: &Daemon,
        name: &str,
        addr: SocketAddr,
        tls: Option<TlsAcceptor>,
        mut judge: impl FnMut(&StockJudgement) -> Verdict + Send + 'static,
    ) -> Result<Rust, EpmdError> {
        let listener = listen::bind(&[addr]).expect("a port").remove(0);
        let port = listener.local_addr().expect("its number").port();
        let (short, _) = name.split_once('@').expect("a node name");
        let registration = daemon.client().register(short, port).await?;
        let local = Arc::new(local(name, registration.creation(), COOKIE));
        let (asked, mut questions) = mpsc::channel::<StockJudgement>(16);
        let (arrived, arrivals) = mpsc::channel(16);
        let stock = StockDesk {
            judge: asked,
            arrived,
        };
        let door = Arc::new(Door::default());
        let attempts = Arc::new(AtomicU64::new(1));
        let serving = match tls {
            Some(acceptor) => tokio::spawn(dial::serve(
                listener, acceptor, local, door, attempts, stock,
            )),
            None => {
                let desk = Desk {
                    judge: mpsc::channel(1).0,
                    authenticated: mpsc::channel(1).0,
                    stock: Some(stock),
                };
                let reception = listen::Reception {
                    local,
                    pending: Arc::new(Pending::default()),
                    door,
                    attempts,
                    desk,
                    arrivals: mpsc::channel(16).0,
                };
                tokio::spawn(reception.serve(listener))
            }
        };
        let judging = tokio::spawn(async move {
            while let Some(question) = questions.recv().await {
                let verdict = judge(&question);
                let _ = question.answer.send(verdict);
            }
        });
        Ok(Rust {
            name: name.to_owned(),
            _registration: registration,
            arrivals,
            tasks: [serving, judging],
        })
    }

    pub(crate) async fn arrival(&mut self) -> StockArrival {
        tokio::time::timeout(PATIENCE, self.arrivals.recv())
            .await
            .expect("an arrival in time")
            .expect("the listener lives")
    }
}

pub(crate) fn accept(_: &StockJudgement) -> Verdict {
    Verdict::Accept {
        cookie: COOKIE.into(),
        simultaneous: false,
    }
}
