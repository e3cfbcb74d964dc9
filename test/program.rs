//! The program `partisan` as its users run it.

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use partisan::{Node, SendOptions, Value, term};

type Any = Box<dyn Error>;

const PATIENCE: Duration = Duration::from_secs(20);

fn partisan(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_partisan"));
    command.args(args).env_remove("PARTISAN_COOKIE");
    command
}

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_node_from_a_file_echoes() -> Result<(), Any> {
    let tag = format!("{:x}", rand::random::<u64>());
    let name = format!("program{tag}@127.0.0.1");
    let file = std::env::temp_dir().join(format!("partisan_program_{tag}.toml"));
    std::fs::write(
        &file,
        "name = 'replaced@127.0.0.1'\ncookie = 'program'\nlisten = ['127.0.0.1:0']\n\
         [channels]\ndefault = 2\n",
    )?;
    let path = file.to_str().ok_or("the path is no text")?;
    let mut child = partisan(&["--json", "node", "--config", path, "--name", &name])
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().ok_or("no output")?;
    let _child = Running(child);
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    std::fs::remove_file(&file)?;
    let started: serde_json::Value = serde_json::from_str(&line)?;
    assert_eq!(started["name"], name.as_str());
    let addr: SocketAddr = started["listen"][0].as_str().ok_or("no address")?.parse()?;

    let node = Node::builder(format!("asker{tag}@127.0.0.1"))
        .cookie("program")
        .listen("127.0.0.1:0".parse()?)
        .start()?;
    node.join((name.as_str(), addr)).await?;
    assert!(tokio::time::timeout(PATIENCE, node.connected(&name)).await?);
    let mut mailbox = node.mailbox()?;
    let me = Value::from(mailbox.pid());
    let term = term!(#{list => [1, "two"], big => (vec![7u8; 100_000])});
    let options = SendOptions::new().timeout(PATIENCE);
    for (question, answer) in [
        (term!({(&me), tag, (&term)}), term!({tag, (&term)})),
        (
            term!({@"$gen_call", {(&me), [alias | 5]}, (&term)}),
            term!({[alias | 5], (&term)}),
        ),
    ] {
        let to = (name.as_str(), "echo");
        // What is neither is survived.
        mailbox
            .send_with(to, &term!({1, 2, 3}).encode()?, &options)
            .await?;
        mailbox.send_with(to, &question.encode()?, &options).await?;
        let echo = tokio::time::timeout(PATIENCE, mailbox.recv()).await?;
        assert_eq!(echo.ok_or("the node has stopped")?.term.decode(), answer);
    }
    node.stop();
    Ok(())
}

fn fails(args: &[&str]) -> Result<(Option<i32>, String), Any> {
    let Output { status, stderr, .. } = partisan(args).output()?;
    Ok((status.code(), String::from_utf8(stderr)?))
}

#[test]
fn failures_are_told() -> Result<(), Any> {
    let (code, text) = fails(&["node"])?;
    assert_eq!(code, Some(2));
    assert!(text.contains("--name"), "{text}");
    let (code, text) = fails(&["--json", "node", "--config", "/nonexistent/file"])?;
    assert_eq!(code, Some(2));
    let json: serde_json::Value = serde_json::from_str(&text)?;
    assert_eq!(json["error"]["cause"], "usage");
    let (code, text) = fails(&["node", "--name", "nameless", "--cookie", "c"])?;
    assert_eq!(code, Some(1));
    assert!(text.contains("name@host"), "{text}");
    let (code, _) = fails(&["no_such_command"])?;
    assert_eq!(code, Some(2));
    Ok(())
}
