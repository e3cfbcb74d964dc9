//! What tests of Rust nodes share: nodes that are quick to connect, and what they log.

#![allow(dead_code, reason = "each test that includes this uses a part of it")]

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use partisan::{Builder, Node};

/// A node on a free port, with few threads and short pauses.
pub(crate) fn quick(name: &str, cookie: &str) -> Builder {
    log();
    Node::builder(format!("{name}@127.0.0.1"))
        .cookie(cookie)
        .listen("127.0.0.1:0".parse().expect("an address"))
        .connection_interval(Duration::from_millis(50))
        .connection_jitter(Duration::from_millis(50))
        .io_threads(1)
        .bulk_threads(1)
}

/// Where it listens.
pub(crate) fn addr(node: &Node) -> SocketAddr {
    node.spec().listen_addrs[0]
}

/// What all nodes of this process have logged.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<String>>);

impl Log {
    pub(crate) fn text(&self) -> String {
        self.0.lock().expect("nobody panics with it").clone()
    }

    /// Whether there is a line with all of these texts.
    pub(crate) fn has(&self, texts: &[&str]) -> bool {
        let text = self.0.lock().expect("nobody panics with it");
        text.lines().any(|l| texts.iter().all(|t| l.contains(t)))
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let mut log = self.0.lock().expect("nobody panics with it");
        log.push_str(&text);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub(crate) fn log() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let log = Log::default();
        let writer = log.clone();
        tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .init();
        log
    })
}
