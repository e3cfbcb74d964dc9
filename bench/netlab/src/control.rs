//! Requests to a running lab over a Unix socket.
//!
//! A request is one line; the answer is `ok` and perhaps more lines, or `error` and why, and then
//! the connection ends.
//!
//! * `set A B SETTINGS` changes the links from A to B, each a node's number or `all`
//! * `show` gives the counters of every link and the emulator's processor time

use std::fmt::Display;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use crate::Error;
use crate::lab::Shared;
use crate::settings::LinkChange;

/// How long a peer may take for its line, and longest line.
const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST: u64 = 4096;

pub(crate) fn listen(socket: &Path) -> Result<UnixListener, Error> {
    let failed = |error| Error::Io(format!("control socket {}", socket.display()), error);
    let listener = match UnixListener::bind(socket) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            // One that nobody answers was left behind.
            if UnixStream::connect(socket).is_ok() {
                return Err(failed(error));
            }
            std::fs::remove_file(socket).and_then(|()| UnixListener::bind(socket))
        }
        other => other,
    };
    let listener = listener.map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

pub(crate) fn serve(listener: &UnixListener, shared: &Shared) {
    while !shared.stop.is_stopped() {
        shared.stop.wait(listener, None);
        if let Ok((stream, _)) = listener.accept() {
            // A peer that goes away does not concern the lab.
            let _ = answer(stream, shared);
        }
    }
}

fn answer(mut stream: UnixStream, shared: &Shared) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(&stream).take(LONGEST).read_line(&mut line)?;
    match execute(line.trim(), shared) {
        Ok(text) => writeln!(stream, "ok\n{text}"),
        Err(error) => writeln!(stream, "error {error}"),
    }
}

fn execute(line: &str, shared: &Shared) -> Result<String, Error> {
    let refused = |why: &dyn Display| Error::Refused(why.to_string());
    let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    match command {
        "show" if rest.trim().is_empty() => Ok(shared.stats().to_string()),
        "set" => {
            let mut words = rest.split_whitespace();
            let (Some(from), Some(to)) = (words.next(), words.next()) else {
                return Err(refused(&"expected `set FROM TO KEY=VALUE...`"));
            };
            let settings: Vec<_> = words.collect();
            if settings.is_empty() {
                return Err(refused(
                    &"nothing to set: expected KEY=VALUE after the nodes",
                ));
            }
            let change: LinkChange = settings
                .join(" ")
                .parse()
                .map_err(|error| refused(&error))?;
            shared.set(from.parse()?, to.parse()?, &change)?;
            Ok(String::new())
        }
        _ => Err(refused(&format!(
            "`{line}` is no request: expected `set` or `show`"
        ))),
    }
}

/// Sends a request to a lab and returns the lines of its answer.
pub fn request(socket: &Path, line: &str) -> Result<String, Error> {
    let exchange = || {
        let mut stream = UnixStream::connect(socket)?;
        // One line, whatever it holds.
        writeln!(stream, "{}", line.replace('\n', " "))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer: String = exchange()
        .map_err(|error| Error::Io(format!("control socket {}", socket.display()), error))?;
    match answer.strip_prefix("ok\n") {
        Some(text) => Ok(text.trim_end().to_owned()),
        None => Err(Error::Refused(
            answer
                .strip_prefix("error ")
                .unwrap_or("no answer")
                .trim_end()
                .to_owned(),
        )),
    }
}
