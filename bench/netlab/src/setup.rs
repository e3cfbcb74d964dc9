//! Namespaces and routes, made with `ip`, and the watcher that removes them.
//!
//! Whatever is made is told to a child, a shell that holds the read end of a pipe; when the
//! pipe closes, because the lab ends or because its process was killed, the child undoes it all in
//! reverse order. There is no other clean-up, so the ordinary end tests the one after a kill.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::Error;
use crate::packet::{MAX_NODES, address, address6};

/// The network device of each namespace.
pub const DEVICE: &str = "lab0";

/// Frames that a device queues for the emulator: a burst of the segments of many super-packets,
/// when those are off.
const DEVICE_QUEUE: u32 = 10_000;

/// A network namespace by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace(String);

impl Namespace {
    /// The namespace of one node of the lab with this prefix.
    pub(crate) fn of(prefix: &str, node: usize) -> Self {
        Self(format!("{prefix}{node}"))
    }

    /// Its name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Moves the calling thread, and those that it starts from now on, into the namespace. There
    /// is no way back: let a thread do this that ends with its work.
    pub fn enter(&self) -> io::Result<()> {
        let file = File::open(self.path())?;
        Ok(move_into_link_name_space(
            file.as_fd(),
            Some(LinkNameSpaceType::Network),
        )?)
    }

    /// A command that runs in the namespace.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0]).arg(program);
        command
    }

    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.0)
    }

    pub(crate) fn exists(&self) -> bool {
        self.path().exists()
    }

    pub(crate) fn create(&self, watcher: &mut Watcher) -> Result<(), Error> {
        if self.exists() {
            return Err(Error::Exists(self.0.clone()));
        }
        run(Command::new("ip").args(["netns", "add", &self.0]))?;
        // Told afterwards: one that another lab made in between is not ours to remove.
        watcher.undo(&format!("ip netns del {}", self.0))
    }

    /// Address, route and congestion control of the device, which must exist.
    pub(crate) fn configure(&self, node: usize, super_packets: bool) -> Result<(), Error> {
        let (v4, v6) = (address(node), address6(node));
        let segments = max_segments(super_packets);
        let mut script = format!(
            "link set lo up\n\
             link set {DEVICE} addrgenmode none txqueuelen {DEVICE_QUEUE} gso_max_segs {segments} up\n\
             addr add {v4}/24 dev {DEVICE} noprefixroute\n\
             route add 10.77.0.0/24 dev {DEVICE} src {v4} congctl cubic\n"
        );
        if Path::new("/proc/sys/net/ipv6").exists() {
            script += &format!(
                "addr add {v6}/64 dev {DEVICE} nodad noprefixroute\n\
                 route add fd77::/64 dev {DEVICE} congctl cubic\n"
            );
        }
        output_of(
            Command::new("ip").args(["-n", &self.0, "-batch", "-"]),
            &script,
        )
        .map(drop)
    }

    /// Has the kernel cut super-packets before the device sends them, or not.
    pub(crate) fn set_super_packets(&self, on: bool) -> Result<(), Error> {
        let segments = max_segments(on);
        run(Command::new("ip").args([
            "-n",
            &self.0,
            "link",
            "set",
            DEVICE,
            "gso_max_segs",
            segments,
        ]))
    }
}

fn max_segments(super_packets: bool) -> &'static str {
    if super_packets { "65535" } else { "1" }
}

/// Sets a kernel parameter of the namespace that the calling thread is in.
pub(crate) fn sysctl(key: &str, value: &str) -> Result<(), Error> {
    let file = Path::new("/proc/sys").join(key.replace('.', "/"));
    let outside = !key.starts_with("net.") || key.contains("..") || key.contains('/');
    if outside {
        return Err(Error::Sysctl(
            key.into(),
            "not a parameter of a network namespace".into(),
        ));
    }
    fs::write(file, value).map_err(|error| Error::Sysctl(key.into(), error.to_string()))
}

/// Fixes cubic for the host's own loopback addresses until the watcher undoes it.
pub(crate) fn cubic_loopback(watcher: &mut Watcher) -> Result<(), Error> {
    let show = ["-4", "route", "show", "table", "local", "dev", "lo"];
    let output = output_of(Command::new("ip").args(show), "")?;
    for route in String::from_utf8_lossy(&output).lines() {
        let plain = |c: char| c.is_ascii_alphanumeric() || " ./:".contains(c);
        if !route.starts_with("local 127.")
            || route.contains("congctl")
            || !route.chars().all(plain)
        {
            continue;
        }
        watcher.undo(&format!("ip route replace {route} dev lo table local"))?;
        run(Command::new("ip")
            .args(["route", "replace"])
            .args(route.split_whitespace())
            .args(["dev", "lo", "table", "local", "congctl", "cubic"]))?;
    }
    Ok(())
}

/// Removes the namespaces that labs with this prefix have left behind, and tells their names.
pub fn clean(prefix: &str) -> Result<Vec<String>, Error> {
    check_prefix(prefix)?;
    let mut removed = Vec::new();
    for node in 0..MAX_NODES {
        let namespace = Namespace::of(prefix, node);
        if namespace.exists() {
            run(Command::new("ip").args(["netns", "del", namespace.name()]))?;
            removed.push(namespace.0);
        }
    }
    Ok(removed)
}

pub(crate) fn check_prefix(prefix: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let leads = prefix.starts_with(|c: char| c.is_ascii_alphabetic());
    if leads && prefix.len() <= 64 && prefix.chars().all(plain) {
        Ok(())
    } else {
        Err(Error::Prefix(prefix.into()))
    }
}

/// The child that cleans up.
#[derive(Debug)]
pub(crate) struct Watcher {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Watcher {
    pub(crate) fn start() -> Result<Self, Error> {
        // The signals of a terminal go to the whole group: it leaves that, and ignores them too.
        const SCRIPT: &str = "trap '' HUP INT TERM
            while IFS= read -r line; do todo=\"$line
$todo\"; done
            eval \"$todo\"";
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| Error::Io("cannot start the watcher `sh`".into(), error))?;
        let pipe = shell.stdin.take();
        Ok(Self { shell, pipe })
    }

    /// Notes a line of shell that undoes what was, or is about to be, done.
    pub(crate) fn undo(&mut self, line: &str) -> Result<(), Error> {
        let mut pipe = self
            .pipe
            .as_ref()
            .expect("open until the watcher is dropped");
        writeln!(pipe, "{line}").map_err(|error| Error::Io("cannot tell the watcher".into(), error))
    }

    /// Notes that a file is to be removed.
    pub(crate) fn undo_file(&mut self, path: &Path) -> Result<(), Error> {
        let quoted = path.display().to_string().replace('\'', r"'\''");
        if quoted.contains('\n') {
            return Err(Error::Io(quoted, io::ErrorKind::InvalidFilename.into()));
        }
        self.undo(&format!("rm -f -- '{quoted}'"))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let _ = self.shell.wait();
    }
}

/// Runs a command; its error output explains a failure.
pub(crate) fn run(command: &mut Command) -> Result<(), Error> {
    output_of(command, "").map(drop)
}

fn output_of(command: &mut Command, input: &str) -> Result<Vec<u8>, Error> {
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let output = child.and_then(|mut child| {
        if let Some(mut pipe) = child.stdin.take() {
            // A command that ends before it has read all says why below.
            let _ = pipe.write_all(input.as_bytes());
        }
        child.wait_with_output()
    });
    let why = match output {
        Ok(output) if output.status.success() => return Ok(output.stdout),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    Err(Error::Command(format!("{command:?}").replace('"', ""), why))
}
