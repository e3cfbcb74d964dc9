//! A node that sends back what it gets.
//!
//! The mailbox `echo` takes `{Pid, Ref, Term}` and sends `{Ref, Term}` to `Pid`. The term is never
//! decoded, and its large binaries go out from the memory that they were received into.
//!
//! The mailbox `echo_kept` does the same with acknowledgement, `echo_causal` in causal order under the label `echo`.
//!
//! What BEAM nodes broadcast for a handler (`partisan:broadcast/2`), it broadcasts back: the identifier `Id` becomes
//! `{echo, Id}`.
//!
//! ```text
//! echo --name rust@127.0.0.1 [--listen 127.0.0.1:0] [--cookie SECRET] [--join a@127.0.0.1:9000]
//!      [--channel NAME] [--parallelism N]
//! ```

use std::error::Error;
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;

use partisan::{Mailbox, Message, Node, SendOptions, Term, Value};

/// Whoever takes part in the broadcasts of BEAM nodes has this name there.
const BROADCASTS: &str = "partisan_plumtree_broadcast";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("echo: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let mut name = None;
    let mut listen: Vec<SocketAddr> = Vec::new();
    let mut cookie = None;
    let mut join = Vec::new();
    let mut options = SendOptions::new();
    let mut parallelism = 1;
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--name" => name = Some(value),
            "--listen" => listen.push(value.parse()?),
            "--cookie" => cookie = Some(value),
            "--join" => join.push(peer(&value)?),
            "--channel" => options = options.channel(value).fallback(),
            "--parallelism" => parallelism = value.parse()?,
            _ => return Err(format!("unknown option {flag}").into()),
        }
    }

    let mut builder = Node::builder(name.ok_or("--name is missing")?)
        .parallelism(parallelism)
        .causal_label("echo");
    if let Some(cookie) = cookie {
        builder = builder.cookie(cookie);
    }
    for addr in listen {
        builder = builder.listen(addr);
    }
    let node = builder.start()?;
    let spec = node.spec();
    tracing::info!(name = %spec.name, addrs = ?spec.listen_addrs, "ready");
    let mailbox = node.register("echo")?;
    let kept = node.register("echo_kept")?;
    let causal = node.register("echo_causal")?;
    let mut broadcasts = node.register(BROADCASTS)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        let echoing = node.clone();
        tokio::spawn(async move {
            while let Some(message) = broadcasts.recv().await {
                if let Some(term) = echo(&message)
                    && let Err(e) = echoing.broadcast(BROADCASTS, &term).await
                {
                    tracing::warn!(from = %message.from, "no echo of a broadcast: {e}");
                }
            }
        });
        tokio::spawn(serve(kept, options.clone().ack(true)));
        tokio::spawn(serve(causal, options.clone().causal("echo")));
        for (name, addrs) in join {
            node.join((name.as_str(), addrs)).await?;
        }
        serve(mailbox, options).await;
        Ok(())
    })
}

/// Sends back what a mailbox gets.
async fn serve(mut mailbox: Mailbox, options: SendOptions) {
    while let Some(message) = mailbox.recv().await {
        let Some((to, reply)) = answer(&message) else {
            tracing::warn!(from = %message.from, "that was no {{Pid, Ref, Term}}");
            continue;
        };
        let Value::Pid(to) = to.decode() else {
            continue;
        };
        if let Err(e) = mailbox.send_with(&to, &reply, &options).await {
            tracing::warn!(to = %to.node, "no echo: {e}");
        }
    }
}

/// The asker's pid, still encoded, and what it is to get.
fn answer(message: &Message) -> Option<(Term, Term)> {
    let parts: [Term; 3] = message.term.elements()?.try_into().ok()?;
    let [pid, reference, term] = parts;
    Some((pid, Term::tuple(&[reference, term]).ok()?))
}

/// `{partisan_broadcast, Handler, Id, Payload}`, with another identifier; but not what is an echo already.
fn echo(message: &Message) -> Option<Term> {
    let parts: [Term; 4] = message.term.elements()?.try_into().ok()?;
    let [tag, handler, id, payload] = parts;
    let echo = Value::atom("echo").encode().ok()?;
    let known = id.elements().is_some_and(|e| e.first() == Some(&echo));
    if known {
        return None;
    }
    let id = Term::tuple(&[echo, id]).ok()?;
    Term::tuple(&[tag, handler, id, payload]).ok()
}

/// `NAME@HOST:PORT`: the name ends with the host, which is also where the node is.
fn peer(text: &str) -> Result<(String, Vec<SocketAddr>), Box<dyn Error>> {
    let (name, _) = text.rsplit_once(':').ok_or("--join wants NAME@HOST:PORT")?;
    let (_, at) = text.split_once('@').ok_or("--join wants NAME@HOST:PORT")?;
    Ok((name.to_owned(), at.to_socket_addrs()?.collect()))
}
