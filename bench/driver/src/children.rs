//! Child processes, none of which outlives the driver.
//!
//! Each leads a process group, which is killed when its owner is dropped and when a signal ends
//! the driver. If the driver dies otherwise, the kernel kills those that `setpriv` started, and
//! the others end with their standard input.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};

type Undo = Box<dyn Fn() + Send>;

static UNDO: Mutex<Vec<(u64, Undo)>> = Mutex::new(Vec::new());

/// Something that is undone when this is dropped, or when a signal ends the driver.
#[derive(Debug)]
pub(crate) struct Guard(u64);

impl Guard {
    pub(crate) fn new(undo: impl Fn() + Send + 'static) -> Self {
        let mut list = UNDO.lock().unwrap_or_else(|e| e.into_inner());
        let id = list.last().map_or(0, |(id, _)| id + 1);
        list.push((id, Box::new(undo)));
        Self(id)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut list = UNDO.lock().unwrap_or_else(|e| e.into_inner());
        let found = list.iter().position(|(id, _)| *id == self.0);
        let undo = found.map(|at| list.remove(at));
        drop(list);
        if let Some((_, undo)) = undo {
            undo();
        }
    }
}

/// Undoes everything and ends the driver when it is told to end.
pub(crate) fn end_on_signals() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let (Ok(mut interrupt), Ok(mut terminate)) = (
                signal(SignalKind::interrupt()),
                signal(SignalKind::terminate()),
            ) else {
                return;
            };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            let list = UNDO.lock().unwrap_or_else(|e| e.into_inner());
            for (_, undo) in list.iter().rev() {
                undo();
            }
            std::process::exit(130);
        });
    });
    Ok(())
}

/// A child and its process group.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) child: Child,
    guard: Option<Guard>,
}

impl Group {
    /// Starts the program with its arguments, standard input and output piped. The caller's
    /// thread must live as long as the child.
    pub(crate) fn start(words: &[String], set: impl FnOnce(&mut Command)) -> Result<Self> {
        let tied: Vec<String> = if has_setpriv() {
            let prefix = ["setpriv", "--pdeathsig", "KILL", "--"];
            let prefix = prefix.iter().map(|w| (*w).to_owned());
            prefix.chain(words.iter().cloned()).collect()
        } else {
            words.to_vec()
        };
        let (program, arguments) = tied.split_first().context("no program")?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0);
        set(&mut command);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {words:?}"))?;
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let guard = Guard::new(move || {
            if let Some(group) = group {
                let _ = kill_process_group(group, Signal::KILL);
            }
        });
        Ok(Self {
            child,
            guard: Some(guard),
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Kills the group, whose number is free only after the wait.
        drop(self.guard.take());
        let _ = self.child.wait();
    }
}

fn has_setpriv() -> bool {
    ["/usr/bin/setpriv", "/bin/setpriv"]
        .iter()
        .any(|path| std::path::Path::new(path).exists())
}
