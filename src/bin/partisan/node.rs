//! `partisan node`: a node that serves the process `echo`.

use partisan::{Message, Node, NodeSpec, Pid, SendOptions, Term, Value, term};
use serde_json::json;

use crate::args::NodeArgs;
use crate::failure::{Cause, Failure};
use crate::settings::{Settings, resolve};

/// Runs until the node stops.
pub(crate) fn run(args: &NodeArgs, as_json: bool) -> Result<(), Failure> {
    let other = |e: &(dyn std::error::Error + 'static)| Failure::from_error(Cause::Other, e);
    let file = args.config.as_deref().map(Settings::read).transpose()?;
    let settings = args.over(file.unwrap_or_default());
    let mut join = Vec::new();
    for peer in &settings.join {
        join.push((peer.name.clone(), resolve(&peer.address)?));
    }
    let node = settings.builder()?.start().map_err(|e| other(&e))?;
    println!("{}", started(node.spec(), as_json));
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|e| other(&e))?;
    runtime.block_on(async {
        let echo = echo(&node);
        for (name, addrs) in join {
            let joined = node.join((name.as_str(), addrs)).await;
            joined.map_err(|e| other(&e))?;
        }
        echo.await
    })
}

/// What the node tells when it can be reached.
fn started(spec: &NodeSpec, as_json: bool) -> String {
    let addrs: Vec<String> = spec.listen_addrs.iter().map(ToString::to_string).collect();
    if as_json {
        return json!({"name": &*spec.name, "listen": addrs}).to_string();
    }
    match &addrs[..] {
        [] => format!("{} runs", spec.name),
        addrs => format!("{} listens on {}", spec.name, addrs.join(", ")),
    }
}

async fn echo(node: &Node) -> Result<(), Failure> {
    let registered = node.register("echo");
    let mut mailbox = registered.map_err(|e| Failure::from_error(Cause::Other, &e))?;
    let options = SendOptions::new();
    while let Some(message) = mailbox.recv().await {
        let Some((to, answer)) = answer(&message) else {
            tracing::warn!(from = %message.from, "neither {{Pid, Ref, Term}} nor a call");
            continue;
        };
        if let Err(e) = mailbox.send_with(&to, &answer, &options).await {
            tracing::warn!(to = %to.node, "no echo: {e}");
        }
    }
    Ok(())
}

fn answer(message: &Message) -> Option<(Pid, Term)> {
    let [first, second, third]: [Term; 3] = message.term.elements()?.try_into().ok()?;
    let (to, tag) = match first.decode() {
        Value::Pid(pid) => (pid, second),
        // `{'$gen_call', {Pid, Tag}, Request}`
        call if call == term!(@"$gen_call") => {
            let [pid, tag]: [Term; 2] = second.elements()?.try_into().ok()?;
            (pid.decode().as_pid()?.clone(), tag)
        }
        _ => return None,
    };
    Some((to, Term::tuple(&[tag, third]).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_started_node_says() {
        let mut spec = NodeSpec {
            name: "a@h".into(),
            listen_addrs: vec!["127.0.0.1:9".parse().unwrap(), "[::1]:9".parse().unwrap()],
            channels: Vec::new(),
        };
        assert_eq!(started(&spec, false), "a@h listens on 127.0.0.1:9, [::1]:9");
        let json = r#"{"listen":["127.0.0.1:9","[::1]:9"],"name":"a@h"}"#;
        assert_eq!(started(&spec, true), json);
        spec.listen_addrs.clear();
        assert_eq!(started(&spec, false), "a@h runs");
    }
}
