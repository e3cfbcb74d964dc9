//! The emulator against the kernel. Needs root, `/dev/net/tun` and `ip`, and says so otherwise.
//!
//! A loaded machine delivers late but never early: nothing here bounds a time from above, except
//! for the patience after which a test gives up.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use netlab::probe::ping;
use netlab::{Error, Lab, LinkChange, Nodes, address, address6};
use socket2::SockRef;

const PATIENCE: Duration = Duration::from_secs(60);

/// Whether namespaces can be made here.
fn able() -> bool {
    static ABLE: OnceLock<bool> = OnceLock::new();
    *ABLE.get_or_init(|| {
        let name = format!("nlable{}", std::process::id());
        let ip = |verb| Command::new("ip").args(["netns", verb, &name]).output();
        let able = Path::new("/dev/net/tun").exists()
            && ip("add").is_ok_and(|output| output.status.success());
        if able {
            let _ = ip("del");
        } else {
            // Not by the macro, whose output the test harness keeps to itself.
            let _ = writeln!(
                std::io::stderr(),
                "skipped: netlab needs root, /dev/net/tun and ip"
            );
        }
        able
    })
}

fn prefix(test: &str) -> String {
    format!("nl{}{test}-", std::process::id())
}

fn lab(test: &str, nodes: usize, all: &str) -> Lab {
    Lab::builder(prefix(test), nodes)
        .all(all.parse().unwrap())
        .start()
        .unwrap()
}

fn change(text: &str) -> LinkChange {
    text.parse().unwrap()
}

/// Waits until it is so.
fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < PATIENCE, "not after {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn udp(lab: &Lab, node: usize) -> UdpSocket {
    let socket = lab
        .run_in(node, || UdpSocket::bind((address(node), 0)))
        .unwrap()
        .unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn connection(lab: &Lab, from: usize, to: usize) -> (TcpStream, TcpStream) {
    let listener = lab
        .run_in(to, || TcpListener::bind((address(to), 0)))
        .unwrap()
        .unwrap();
    let target = listener.local_addr().unwrap();
    let sender = lab
        .run_in(from, || TcpStream::connect(target))
        .unwrap()
        .unwrap();
    let (receiver, _) = listener.accept().unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    sender.set_write_timeout(Some(PATIENCE)).unwrap();
    (sender, receiver)
}

/// Sends so many bytes over TCP, and checks each of them at the other end.
fn transfer(lab: &Lab, from: usize, to: usize, length: usize) -> Duration {
    let (mut sender, mut receiver) = connection(lab, from, to);
    let data: Vec<u8> = (0..length).map(|n| (n * 31 + n / 251) as u8).collect();
    let start = Instant::now();
    let mut received = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            sender.write_all(&data).unwrap();
            drop(sender);
        });
        receiver.read_to_end(&mut received).unwrap();
    });
    assert!(received == data, "what arrived is not what was sent");
    start.elapsed()
}

#[test]
fn delays_are_kept_and_can_change() {
    if !able() {
        return;
    }
    let lab = lab("delay", 2, "delay=10ms");
    let echo = ping(&lab, 0, 1, 5, PATIENCE).unwrap();
    assert_eq!((echo.times.len(), echo.lost), (5, 0));
    let (min, ..) = echo.summary().unwrap();
    assert!(min >= Duration::from_millis(20), "{min:?}");
    lab.set(1, 0, change("delay=40ms")).unwrap();
    let (min, ..) = ping(&lab, 0, 1, 3, PATIENCE).unwrap().summary().unwrap();
    assert!(min >= Duration::from_millis(50), "{min:?}");

    // IPv6 takes the same way.
    if !Path::new("/proc/sys/net/ipv6").exists() {
        return;
    }
    let open = |node| {
        lab.run_in(node, || UdpSocket::bind((address6(node), 0)))
            .unwrap()
            .unwrap()
    };
    let (here, there) = (open(0), open(1));
    there.set_read_timeout(Some(PATIENCE)).unwrap();
    let start = Instant::now();
    here.send_to(b"hello", there.local_addr().unwrap()).unwrap();
    assert_eq!(there.recv(&mut [0; 10]).unwrap(), 5);
    assert!(start.elapsed() >= Duration::from_millis(10));
}

#[test]
fn a_cut_is_one_way_and_heals() {
    if !able() {
        return;
    }
    let lab = lab("cut", 3, "");
    let (zero, one) = (udp(&lab, 0), udp(&lab, 1));
    lab.set(0, 1, change("up=no")).unwrap();
    zero.send_to(b"lost", one.local_addr().unwrap()).unwrap();
    let cut = || {
        let stats = lab.stats();
        stats
            .links
            .iter()
            .find(|link| (link.from, link.to) == (0, 1))
            .unwrap()
            .counters
            .cut
    };
    eventually("the packet is dropped", || cut() == 1);
    let echo = ping(&lab, 0, 1, 2, Duration::from_millis(200)).unwrap();
    assert_eq!((echo.times.len(), echo.lost), (0, 2));
    one.send_to(b"other way", zero.local_addr().unwrap())
        .unwrap();
    assert_eq!(zero.recv(&mut [0; 20]).unwrap(), 9);
    assert_eq!(ping(&lab, 0, 2, 1, PATIENCE).unwrap().lost, 0);

    lab.set(Nodes::All, Nodes::All, change("up=yes")).unwrap();
    zero.send_to(b"heal", one.local_addr().unwrap()).unwrap();
    let mut buffer = [0; 10];
    let length = one.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"heal");
}

#[test]
fn a_cut_loses_what_is_in_flight() {
    if !able() {
        return;
    }
    let lab = lab("flight", 2, "delay=3600s");
    let (zero, one) = (udp(&lab, 0), udp(&lab, 1));
    zero.send_to(b"lost", one.local_addr().unwrap()).unwrap();
    let link = || lab.stats().links[0].clone();
    eventually("the packet is in flight", || link().queued == 1);
    lab.set(0, 1, change("up=no")).unwrap();
    assert_eq!(
        (link().queued, link().queued_bytes, link().counters.cut),
        (0, 0, 1)
    );
    lab.set(0, 1, change("up=yes delay=0")).unwrap();
    zero.send_to(b"after", one.local_addr().unwrap()).unwrap();
    let mut buffer = [0; 10];
    let length = one.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"after");
}

#[test]
fn rates_are_kept() {
    if !able() {
        return;
    }
    let lab = lab("rate", 2, "delay=1ms");
    lab.set(0, 1, change("rate=40mbit queue=128k")).unwrap();
    let took = transfer(&lab, 0, 1, 5_000_000);
    // Headers come on top of the 40 Mbit that the payload is.
    assert!(took >= Duration::from_secs(1), "{took:?}");
}

#[test]
fn super_packets_pass_whole_unless_packets_are_lost() {
    if !able() {
        return;
    }
    let lab = lab("loss", 2, "delay=1ms");
    transfer(&lab, 0, 1, 20_000_000);
    let before = lab.stats().links[0].counters.clone();
    assert!(before.segments > 4 * before.packets, "{before:?}");

    lab.set(0, 1, change("loss=2%")).unwrap();
    transfer(&lab, 0, 1, 1_000_000);
    let after = lab.stats().links[0].counters.clone();
    assert_eq!(
        after.segments - before.segments,
        after.packets - before.packets
    );
    assert!(after.lost > 0, "{after:?}");

    lab.set(0, 1, change("loss=0")).unwrap();
    transfer(&lab, 0, 1, 5_000_000);
    let last = lab.stats().links[0].counters.clone();
    assert!(last.segments - after.segments > last.packets - after.packets);
    assert_eq!(last.lost, after.lost);
}

#[test]
fn a_share_of_the_packets_is_lost() {
    if !able() {
        return;
    }
    let lab = lab("share", 2, "loss=25%");
    let (zero, one) = (udp(&lab, 0), udp(&lab, 1));
    let target = one.local_addr().unwrap();
    for _ in 0..1000 {
        zero.send_to(b"perhaps", target).unwrap();
    }
    let counters = || lab.stats().links[0].counters.clone();
    eventually("all are lost or arrive", || {
        counters().lost + counters().packets == 1000
    });
    assert!((150..350).contains(&counters().lost), "{:?}", counters());
}

#[test]
fn both_ends_use_cubic_and_the_parameters_given() {
    if !able() {
        return;
    }
    let parameter = ("net.ipv4.tcp_wmem", "4096 16384 33554432");
    let builder = || Lab::builder(prefix("cubic"), 2);
    let lab = builder()
        .sysctl(parameter.0, parameter.1)
        .super_packets(false)
        .start()
        .unwrap();
    let (sender, receiver) = connection(&lab, 0, 1);
    for stream in [&sender, &receiver] {
        let name = SockRef::from(stream).tcp_congestion().unwrap();
        let name = String::from_utf8_lossy(&name);
        assert_eq!(name.trim_end_matches('\0'), "cubic");
    }
    let read = || std::fs::read_to_string("/proc/sys/net/ipv4/tcp_wmem").unwrap();
    let value = lab.run_in(1, read).unwrap();
    assert_eq!(
        value.split_whitespace().collect::<Vec<_>>().join(" "),
        parameter.1
    );
    assert_ne!(read(), value, "the host's own must not change");
    assert!(matches!(builder().start(), Err(Error::Exists(_))));
    assert_eq!(
        ping(&lab, 0, 1, 1, PATIENCE).unwrap().lost,
        0,
        "the refused lab left this alone"
    );
    drop(lab);
    let outside = builder().sysctl("kernel.hostname", "other").start();
    assert!(matches!(outside, Err(Error::Sysctl(..))));
    assert!(
        !namespace(&prefix("cubic"), 0).exists(),
        "a lab that failed leaves nothing"
    );
}

struct Up {
    child: Child,
    prefix: String,
    socket: PathBuf,
}

impl Up {
    fn start(test: &str) -> Self {
        let prefix = prefix(test);
        let socket = std::env::temp_dir().join(format!("{prefix}'s socket"));
        let mut child = Command::new(env!("CARGO_BIN_EXE_netlab"))
            .args([
                "up",
                "--nodes",
                "2",
                "--prefix",
                &prefix,
                "--all",
                "delay=1ms",
                "--control",
            ])
            .arg(&socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(
            line,
            format!("ready {prefix}0=10.77.0.1 {prefix}1=10.77.0.2\n")
        );
        let up = Self {
            child,
            prefix,
            socket,
        };
        assert!(up.left().iter().all(|path| path.exists()));
        up
    }

    fn left(&self) -> [PathBuf; 3] {
        [
            namespace(&self.prefix, 0),
            namespace(&self.prefix, 1),
            self.socket.clone(),
        ]
    }

    fn ctl(&self, line: &str) -> std::process::Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_netlab"));
        command
            .arg("ctl")
            .arg(&self.socket)
            .arg(line)
            .output()
            .unwrap()
    }

    fn gone(&self) -> bool {
        self.left().iter().all(|path| !path.exists())
    }
}

fn namespace(prefix: &str, node: usize) -> PathBuf {
    Path::new("/run/netns").join(format!("{prefix}{node}"))
}

#[test]
fn nothing_is_left_after_a_kill() {
    if !able() {
        return;
    }
    let mut up = Up::start("kill");
    up.child.kill().unwrap();
    up.child.wait().unwrap();
    eventually("all is removed", || up.gone());
}

#[test]
fn nothing_is_left_after_the_end_of_input_or_a_signal() {
    if !able() {
        return;
    }
    let mut up = Up::start("end");
    drop(up.child.stdin.take());
    assert!(up.child.wait().unwrap().success());
    assert!(up.gone());

    let mut up = Up::start("term");
    let pid = rustix::process::Pid::from_child(&up.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(up.child.wait().unwrap().success());
    assert!(up.gone());
}

#[test]
fn requests_are_answered_and_bad_ones_explained() {
    if !able() {
        return;
    }
    let up = Up::start("ctl");
    assert!(up.ctl("set 0 all delay=7ms rate=1gbit").status.success());
    let shown = up.ctl("show");
    assert!(shown.status.success());
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.contains("link 0 1 delay=7000us rate=1000000000bit"),
        "{shown}"
    );
    assert!(shown.contains("link 1 0 delay=1000us rate=none"), "{shown}");
    assert!(
        shown.lines().last().unwrap().starts_with("emulator cpu_s="),
        "{shown}"
    );
    for (line, part) in [
        ("set 0 2 up=no", "no node 2"),
        ("set 0 x up=no", "`x` is no node"),
        ("set 0", "expected `set FROM TO"),
        ("set 0 1", "nothing to set"),
        ("set 0 1 delay=7", "delay=`7`"),
        ("go", "`go` is no request"),
    ] {
        let output = up.ctl(line);
        assert!(!output.status.success(), "{line}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(part), "{line}: {said}");
    }
}

#[test]
fn leftovers_are_cleaned() {
    if !able() {
        return;
    }
    let prefix = prefix("clean");
    for node in [0, 3] {
        let name = format!("{prefix}{node}");
        assert!(
            Command::new("ip")
                .args(["netns", "add", &name])
                .status()
                .unwrap()
                .success()
        );
    }
    let mut clean = Command::new(env!("CARGO_BIN_EXE_netlab"));
    let output = clean.args(["clean", "--prefix", &prefix]).output().unwrap();
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!("removed {prefix}0\nremoved {prefix}3\n")
    );
    assert!(
        [0, 3]
            .iter()
            .all(|node| !namespace(&prefix, *node).exists())
    );
}
