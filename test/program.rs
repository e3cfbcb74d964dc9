//! The program `partisan` as its users run it.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use partisan::{Node, SendOptions, Value, term};
use rustix::process::{Pid, Signal, kill_process};

#[path = "stock/mod.rs"]
mod stock;

use stock::{Epmd, Options, Peer, free_port, releases};

type Any = Box<dyn Error>;

const PATIENCE: Duration = Duration::from_secs(20);

fn partisan(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_partisan"));
    command.args(args).env_remove("PARTISAN_COOKIE");
    command
}

/// A node and what it prints. Ends with the test.
struct Running(Child, BufReader<ChildStdout>);

impl Running {
    /// What it prints next.
    fn told(&mut self) -> Result<serde_json::Value, Any> {
        let mut line = String::new();
        self.1.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A node that runs, and what it has told.
fn start(mut command: Command) -> Result<(Running, serde_json::Value), Any> {
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().ok_or("no output")?;
    let mut child = Running(child, BufReader::new(stdout));
    let told = child.told()?;
    Ok((child, told))
}

#[tokio::test]
async fn a_node_from_a_file_echoes() -> Result<(), Any> {
    let tag = format!("{:x}", rand::random::<u64>());
    let name = format!("program{tag}@127.0.0.1");
    let file = std::env::temp_dir().join(format!("partisan_program_{tag}.toml"));
    std::fs::write(
        &file,
        "name = 'replaced@127.0.0.1'\ncookie = 'program'\nlisten = ['127.0.0.1:0']\n\
         distribution = false\n[channels]\ndefault = 2\n",
    )?;
    let path = file.to_str().ok_or("the path is no text")?;
    let (_child, started) = start(partisan(&[
        "--json", "node", "--config", path, "--name", &name,
    ]))?;
    std::fs::remove_file(&file)?;
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
    assert_eq!(code, Some(2));
    assert!(text.contains("name@host"), "{text}");
    let (code, _) = fails(&["no_such_command"])?;
    assert_eq!(code, Some(2));
    Ok(())
}

const COOKIE: &str = "program";

/// Runs the program with the test's name server; its exit code, output and errors.
fn run(epmd: &Epmd, args: &[&str]) -> Result<(i32, String, String), Any> {
    let mut command = partisan(args);
    command.env("ERL_EPMD_PORT", epmd.port.to_string());
    let output = command.env("PARTISAN_COOKIE", COOKIE).output()?;
    let text = |bytes| String::from_utf8(bytes);
    let code = output.status.code().ok_or("ended by a signal")?;
    Ok((code, text(output.stdout)?, text(output.stderr)?))
}

/// What the program prints, if it succeeds.
fn answer(epmd: &Epmd, args: &[&str]) -> Result<String, Any> {
    match run(epmd, args)? {
        (0, answer, complaint) if complaint.is_empty() => Ok(answer.trim_end().to_owned()),
        (code, _, complaint) => Err(format!("{args:?}: exit code {code}: {complaint}").into()),
    }
}

fn json(epmd: &Epmd, args: &[&str]) -> Result<serde_json::Value, Any> {
    let args: Vec<&str> = [&["--json"], args].concat();
    Ok(serde_json::from_str(&answer(epmd, &args)?)?)
}

/// Fails the test unless the program fails in this way, in text and in JSON, and says what to do.
#[track_caller]
fn refused(epmd: &Epmd, args: &[&str], code: i32, cause: &str, says: &str) {
    let (exit, _, text) = run(epmd, args).unwrap();
    assert_eq!(exit, code, "{args:?}: {text}");
    let mut lines = text.lines();
    let told = lines.next().unwrap_or("");
    assert!(
        told.starts_with("partisan: ") && told.contains(says),
        "{text}"
    );
    assert!(
        lines.next().is_some_and(|advice| advice.starts_with("  ")),
        "{text}"
    );
    let args: Vec<&str> = [&["--json"], args].concat();
    let (exit, _, text) = run(epmd, &args).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (exit, &json["error"]["cause"]),
        (code, &cause.into()),
        "{text}"
    );
}

#[test]
fn stock_nodes_are_asked() -> Result<(), Any> {
    for release in releases() {
        let epmd = Epmd::start(release);
        let erl = Peer::start(release, &epmd, &Options::new("asked", COOKIE));
        let pong = answer(&epmd, &["ping", &erl.name])?;
        assert!(pong.starts_with("pong from asked@127.0.0.1 in "), "{pong}");
        assert!(
            pong.contains("\nboth ends offer EXTENDED_REFERENCES "),
            "{pong}"
        );
        let pong = json(&epmd, &["ping", &erl.name])?;
        let creation = erl.eval("erlang:system_info(creation)")?;
        assert_eq!(pong["creation"].to_string(), creation);
        assert_eq!(json(&epmd, &["names"])?[0]["name"], "asked");
        let host = ["names", "127.0.0.1", "--epmd-port", &epmd.port.to_string()];
        assert!(answer(&epmd, &host)?.starts_with("asked  port "));

        let call = |words: &[&str]| answer(&epmd, &[&["call", &*erl.name], words].concat());
        assert_eq!(call(&["lists", "seq", "-1", "1"])?, "[-1,0,1]");
        assert_eq!(call(&["lists", "sum", "[[1, 2, 3.5]]"])?, "6.5");
        assert_eq!(call(&["erlang", "node"])?, "'asked@127.0.0.1'");
        assert_eq!(call(&["erlang", "is_atom", "'a b'"])?, "true");
        let made = json(
            &epmd,
            &[
                "call",
                &erl.name,
                "maps",
                "from_list",
                "[[{a, 1}, {b, <<\"x\">>}]]",
            ],
        )?;
        assert_eq!(made, serde_json::json!({"a": 1, "b": "x"}));
        // The asking nodes were hidden.
        erl.expect("nodes()", "[]");

        refused(
            &epmd,
            &["members", &erl.name],
            13,
            "no_partisan",
            "does not run Partisan",
        );
        let sleep = [
            "call",
            &erl.name,
            "timer",
            "sleep",
            "60000",
            "--timeout",
            "0.3",
        ];
        refused(&epmd, &sleep, 9, "timeout", "300ms");
        for (function, class) in [("error", "error"), ("exit", "exit"), ("throw", "throw")] {
            let args = ["--json", "call", &erl.name, "erlang", function, "{why, 1}"];
            let (code, _, text) = run(&epmd, &args)?;
            let json: serde_json::Value = serde_json::from_str(&text)?;
            assert_eq!((code, &json["error"]["cause"]), (10, &"raised".into()));
            assert_eq!(json["error"]["raised"]["class"], class);
            assert_eq!(
                json["error"]["raised"]["reason"],
                serde_json::json!(["why", 1])
            );
        }
        let (_, _, text) = run(&epmd, &["call", &erl.name, "no_module", "f"])?;
        assert!(
            text.starts_with("partisan: the function raised error:undef\n"),
            "{text}"
        );
    }
    Ok(())
}

#[test]
fn what_is_wrong_is_named() -> Result<(), Any> {
    for release in releases() {
        let epmd = Epmd::start(release);
        let erl = Peer::start(release, &epmd, &Options::new("asked", COOKIE));
        let nobody = free_port().to_string();
        let at_nobody = format!("127.0.0.1:{nobody}");
        let ping = |words: &[&str], code, cause, says| {
            refused(&epmd, &[&["ping"], words].concat(), code, cause, says);
        };
        ping(
            &["asked@127.0.0.1", "--name", "short@host"],
            2,
            "usage",
            "short names",
        );
        ping(
            &["asked@127.0.0.1", "--epmd-port", &nobody],
            3,
            "no_epmd",
            "no EPMD at 127.0.0.1",
        );
        refused(
            &epmd,
            &["names", "--epmd-port", &nobody],
            3,
            "no_epmd",
            "no EPMD at 127.0.0.1",
        );
        ping(
            &["other@127.0.0.1"],
            4,
            "not_running",
            "no node other@127.0.0.1",
        );
        ping(
            &["asked@127.0.0.1", "--at", &at_nobody],
            5,
            "unreachable",
            &at_nobody,
        );
        ping(&["asked@host.invalid"], 5, "unreachable", "host.invalid");
        ping(
            &["asked@127.0.0.1", "--cookie", "x"],
            6,
            "wrong_cookie",
            "cookies differ",
        );
        ping(
            &["asked@localhost"],
            11,
            "wrong_name",
            "asked@127.0.0.1 answered",
        );
        erl.expect("net_kernel:allow(['friend@127.0.0.1'])", "ok");
        ping(&["asked@127.0.0.1"], 7, "refused", "not allowed");
        assert!(
            answer(&epmd, &["ping", &erl.name, "--name", "friend@127.0.0.1"])?.starts_with("pong")
        );

        // No Erlang can be had that lacks flags.
        let weak = TcpListener::bind("127.0.0.1:0")?;
        let at_weak = weak.local_addr()?.to_string();
        let weak = std::thread::spawn(move || -> std::io::Result<()> {
            for _ in 0..2 {
                let (mut dialler, _) = weak.accept()?;
                let mut name = [0; 2];
                dialler.read_exact(&mut name)?;
                dialler.read_exact(&mut vec![0; u16::from_be_bytes(name).into()])?;
                dialler.write_all(b"\0\x03sok")?;
                let node = b"weak@127.0.0.1";
                dialler.write_all(&[0, 19 + node.len() as u8, b'N'])?;
                dialler.write_all(&[0, 0, 0, 0, 1, 0, 0, 0])?;
                dialler.write_all(&[0, 0, 0, 1, 0, 0, 0, 9, 0, node.len() as u8])?;
                dialler.write_all(node)?;
                let _ = dialler.read(&mut [0; 64])?;
            }
            Ok(())
        });
        ping(
            &["weak@127.0.0.1", "--at", &at_weak],
            8,
            "flags_missing",
            "lacks",
        );
        weak.join().map_err(|_| "the weak peer has panicked")??;

        let taken = ["node", "--name", "asked@127.0.0.1"];
        refused(&epmd, &taken, 7, "refused", "asked is taken");
        let lonely = ["node", "--name", "b@127.0.0.1", "--epmd-port", &nobody];
        refused(&epmd, &lonely, 3, "no_epmd", "no EPMD");
    }
    Ok(())
}

/// A node of the program that registers with the test's EPMD.
fn node(epmd: &Epmd, name: &str, more: &[&str]) -> Result<(Running, serde_json::Value), Any> {
    let args = ["--json", "node", "--name", name, "--listen", "127.0.0.1:0"];
    let mut command = partisan(&[&args, more].concat());
    command.env("ERL_EPMD_PORT", epmd.port.to_string());
    command.env("PARTISAN_COOKIE", COOKIE).stderr(Stdio::null());
    start(command)
}

#[test]
fn its_node_stops_when_it_is_told_to() -> Result<(), Any> {
    for release in releases() {
        let epmd = Epmd::start(release);
        let erl = Peer::start(release, &epmd, &Options::new("asks", COOKIE));
        for signal in [Signal::TERM, Signal::INT] {
            let (mut one, _) = node(&epmd, "one@127.0.0.1", &[])?;
            erl.expect("net_adm:ping('one@127.0.0.1')", "pong");
            let gone = erl
                .begin("monitor_node('one@127.0.0.1', true), receive {nodedown, Node} -> Node end");
            erl.expect("net_adm:ping('one@127.0.0.1')", "pong");
            let pid = i32::try_from(one.0.id())?;
            kill_process(Pid::from_raw(pid).ok_or("no pid")?, signal)?;
            let stopped = serde_json::json!({"name": "one@127.0.0.1", "stopped": true});
            assert_eq!(one.told()?, stopped);
            assert_eq!(one.0.wait()?.code(), Some(0));
            assert_eq!(gone.wait(PATIENCE).as_deref(), Ok("'one@127.0.0.1'"));
            // EPMD has no more of it.
            assert_eq!(json(&epmd, &["names"])?.as_array().map(Vec::len), Some(1));
        }
    }
    Ok(())
}

#[test]
fn its_node_does_what_it_allows() -> Result<(), Any> {
    for release in releases() {
        let epmd = Epmd::start(release);
        let erl = Peer::start(release, &epmd, &Options::new("asks", COOKIE));
        let (_free, _) = node(&epmd, "free@127.0.0.1", &[])?;
        let rules = ["--allow-name", "other", "--allow-monitors", "false"];
        let (_strict, _) = node(&epmd, "strict@127.0.0.1", &rules)?;
        for (name, answer, reason) in [("free", "hello", "noproc"), ("strict", "none", "none")] {
            erl.expect(&format!("net_adm:ping('{name}@127.0.0.1')"), "pong");
            let call = format!(
                "try gen_server:call({{echo, '{name}@127.0.0.1'}}, hello, 500) \
                 catch exit:{{timeout, _}} -> none end"
            );
            erl.expect(&call, answer);
            let down = format!(
                "monitor(process, {{nobody, '{name}@127.0.0.1'}}), \
                 receive {{'DOWN', _, _, _, Reason}} -> Reason after 500 -> none end"
            );
            erl.expect(&down, reason);
        }
    }
    Ok(())
}

#[test]
fn its_node_serves_stock_nodes_and_members() -> Result<(), Any> {
    for release in releases() {
        let epmd = Epmd::start(release);
        let erl = Peer::start(release, &epmd, &Options::new("asks", COOKIE));
        let node = |name, more: &[&str]| node(&epmd, name, more);
        let (_one, told) = node("one@127.0.0.1", &["--tick-time", "8"])?;
        let at = told["listen"][0].as_str().ok_or("no address")?;
        erl.expect("net_adm:ping('one@127.0.0.1')", "pong");
        erl.expect("{nodes(), nodes(hidden)}", "{[],['one@127.0.0.1']}");
        let echo = "{echo, 'one@127.0.0.1'}";
        erl.expect(
            &format!("gen_server:call({echo}, #{{a => [b|c]}})"),
            "#{a => [b|c]}",
        );
        for send in ["! Message", "gen_server:cast"] {
            let send = match send {
                "gen_server:cast" => format!("gen_server:cast({echo}, Message)"),
                _ => format!("{echo} ! Message"),
            };
            let round = format!(
                "Ref = make_ref(), Term = {{-0.0, 1 bsl 3000, fun lists:sum/1, <<5:3>>}}, \
                 Message = {{self(), Ref, Term}}, {send}, \
                 receive {{Ref, Term}} -> same after 5000 -> lost end"
            );
            erl.expect(&round, "same");
        }
        erl.expect(
            "rpc:call('one@127.0.0.1', partisan_peer_service, members, [])",
            "{ok,['one@127.0.0.1']}",
        );

        let join = format!("one@{at}");
        let (_two, _) = node("two@127.0.0.1", &["--join", &join, "--parallelism", "3"])?;
        let members = || json(&epmd, &["members", "one@127.0.0.1"]);
        let begin = std::time::Instant::now();
        while members()?[1]["name"] != "two@127.0.0.1" {
            assert!(begin.elapsed() < PATIENCE, "{}", members()?);
        }
        assert_eq!(members()?[0]["listen"][0], at);
        let channels = members()?[1]["channels"].clone();
        let default = serde_json::json!({
            "name": "undefined", "parallelism": 3, "monotonic": false, "compression": 0,
        });
        assert!(
            channels.as_array().ok_or("a list")?.contains(&default),
            "{channels}"
        );
        let text = answer(&epmd, &["members", "two@127.0.0.1"])?;
        assert!(
            text.starts_with(&format!("one@127.0.0.1  {at}  ")),
            "{text}"
        );
        assert!(answer(&epmd, &["ping", "two@127.0.0.1"])?.starts_with("pong"));
    }
    Ok(())
}

#[test]
fn nodes_find_each_other_without_epmd_and_speak_tls() -> Result<(), Any> {
    let tag = format!("{:x}", rand::random::<u64>());
    let dir = std::env::temp_dir().join(format!("partisan_program_{tag}"));
    std::fs::create_dir(&dir)?;
    let key = rcgen::KeyPair::generate()?;
    let cert = rcgen::CertificateParams::new(vec!["localhost".into()])?.self_signed(&key)?;
    std::fs::write(dir.join("cert.pem"), cert.pem())?;
    std::fs::write(dir.join("key.pem"), key.serialize_pem())?;
    let file = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let at = format!("127.0.0.1:{}", free_port());
    let settings = format!(
        "name = 'tls@localhost'\ncookie = '{COOKIE}'\nnames = {{ nodes = {{ 'tls@localhost' = '{at}' }} }}\n\
         [tls]\nca = '{0}'\ncert = '{0}'\nkey = '{1}'\n",
        file("cert.pem"),
        file("key.pem"),
    );
    std::fs::write(dir.join("node.toml"), settings)?;
    let mut node = partisan(&["--json", "node", "--config", &file("node.toml")]);
    node.stderr(Stdio::null());
    let (_node, told) = start(node)?;
    // No door in the clear.
    assert_eq!(told["listen"], serde_json::json!([]));
    let ping = |more: &[&str]| {
        let args = ["ping", "tls@localhost", "--at", &at, "--cookie", COOKIE];
        partisan(&[&args, more].concat()).output()
    };
    let cert = file("cert.pem");
    assert!(ping(&["--tls-ca", &cert])?.status.success());
    assert!(ping(&["--tls-trust-any"])?.status.success());
    let clear = ping(&[])?;
    let told = String::from_utf8(clear.stderr)?;
    assert_eq!(clear.status.code(), Some(12), "{told}");
    let other = rcgen::KeyPair::generate()?;
    let other = rcgen::CertificateParams::new(vec!["localhost".into()])?.self_signed(&other)?;
    std::fs::write(dir.join("other.pem"), other.pem())?;
    let told = ping(&["--tls-ca", &file("other.pem")])?;
    assert_eq!(told.status.code(), Some(12));
    assert!(String::from_utf8(told.stderr)?.contains("one of our roots"));
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
