//! The examples as their readers run them, and the README's copies of them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

#[path = "stock/mod.rs"]
mod stock;

use stock::{Epmd, Options, Peer, releases};

/// Where the examples are. Whoever asks for this test alone has not built them.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let mut build = Command::new(env!("CARGO"));
        build.args([
            "build",
            "--quiet",
            "--locked",
            "-p",
            "partisan",
            "--examples",
        ]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        // Dependencies look at some of what cargo tells a test, and would be built anew.
        for (name, _) in std::env::vars_os() {
            let told = [
                "CARGO_PKG_",
                "CARGO_MANIFEST_",
                "CARGO_CRATE_",
                "CARGO_BIN_",
            ];
            let text = name.to_string_lossy();
            if told.iter().any(|start| text.starts_with(start)) {
                build.env_remove(&name);
            }
        }
        assert!(build.status().unwrap().success());
        // The test is in `deps`, beside `examples`.
        let test = std::env::current_exe().unwrap();
        test.ancestors().nth(2).unwrap().join("examples")
    })
}

fn example(name: &str, epmd: &Epmd) -> Command {
    let mut command = Command::new(built().join(name));
    command.env("ERL_EPMD_PORT", epmd.port.to_string());
    command
}

/// Ends with the test.
struct Running(Child, BufReader<ChildStdout>);

impl Running {
    fn start(mut command: Command) -> Running {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Running(child, output)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn output(mut command: Command) -> String {
    let output = command.output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn an_overlay_of_ones_own_carries_broadcasts() {
    let said = output(Command::new(built().join("ring")));
    let expected = "a ring of 9\nbroadcast to 8\nring5@127.0.0.1 has stopped; broadcast to 7\n";
    assert_eq!(said, expected);
}

#[test]
fn the_kv_service_is_called_from_erlang_elixir_and_rust() {
    for release in releases() {
        let epmd = Epmd::start(release);
        let mut kv = Running::start(example("kv", &epmd));
        assert_eq!(kv.line(), "kv@127.0.0.1 is ready");

        let erl = Peer::start(release, &epmd, &Options::new("erl", "secret"));
        let call = |request: &str, answer: &str| {
            let call = format!("gen_server:call({{kv, 'kv@127.0.0.1'}}, {request})");
            erl.expect(&call, answer);
        };
        call("{put, <<\"a\">>, #{x => [1, 2.5, self]}}", "ok");
        call("{get, <<\"a\">>}", "{ok,#{x => [1,2.5,self]}}");
        call("{get, a}", "{ok,#{x => [1,2.5,self]}}");
        call("{get, b}", "error");
        call("{delete, b}", "error");
        erl.expect(
            "{error, Why} = gen_server:call({kv, 'kv@127.0.0.1'}, {put, 1}), is_binary(Why)",
            "true",
        );

        let client = output(example("kv_client", &epmd));
        assert_eq!(client, "ok\n{ok,{1,[2.5]}}\n[<<\"a\">>,<<\"pair\">>]\n");
        call("{get, \"pair\"}", "{ok,{1,[2.5]}}");

        if release.number == 25 {
            assert_eq!(elixir(&epmd), "{:ok, {1, [2.5]}}\n:ok\n[\"a\"]\n");
        }
        erl.expect("gen_server:stop({kv, 'kv@127.0.0.1'})", "ok");
        assert!(kv.0.wait().unwrap().success());
    }
}

fn elixir(epmd: &Epmd) -> String {
    let mut command = Command::new("elixir");
    command
        .args(["--erl", "-start_epmd false", "--name", "ex@127.0.0.1"])
        .args(["--cookie", "secret", "-e"])
        .arg(
            "kv = {:kv, :\"kv@127.0.0.1\"}; \
             IO.inspect(GenServer.call(kv, {:get, \"pair\"})); \
             IO.inspect(GenServer.call(kv, {:delete, \"pair\"})); \
             IO.inspect(GenServer.call(kv, :keys))",
        )
        .env("ERL_EPMD_PORT", epmd.port.to_string());
    output(command)
}

/// Over Partisan; no name server is asked.
#[test]
fn the_client_hears_its_echo() {
    let mut echo = Command::new(built().join("echo"));
    echo.args(["--name", "echo@127.0.0.1", "--cookie", "secret"])
        .args(["--listen", "127.0.0.1:0"])
        .stderr(Stdio::piped());
    let mut echo = Running::start(echo);
    let log = BufReader::new(echo.0.stderr.take().unwrap());
    let ready = log
        .lines()
        .map_while(Result::ok)
        .find(|line| line.contains("ready"));
    let ready = ready.expect("the echo node tells its address");
    let (_, addr) = ready.split_once("addrs=[").unwrap();
    let (addr, _) = addr.split_once(']').unwrap();
    let mut client = Command::new(built().join("client"));
    client
        .args(["echo@127.0.0.1", addr, "ahoy"])
        .env("PARTISAN_COOKIE", "secret");
    let said = output(client);
    assert!(said.starts_with("echo@127.0.0.1 says "), "{said}");
    assert!(said.contains("ahoy"), "{said}");
}

/// What the README has its readers write is what is tested here.
#[test]
fn the_readme_shows_the_examples() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(top.join("README.md")).unwrap();
    for (file, example) in [
        ("src/main.rs", "kv.rs"),
        ("src/bin/client.rs", "kv_client.rs"),
    ] {
        let mark = format!("<!-- file: hello_rust/{file} -->\n```rust\n");
        let (_, after) = readme.split_once(&mark).unwrap();
        let (shown, _) = after.split_once("```\n").unwrap();
        let source = std::fs::read_to_string(top.join("examples").join(example)).unwrap();
        assert_eq!(shown, source, "{file} and examples/{example}");
    }
}
