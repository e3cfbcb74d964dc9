//! `partisan node`: a node that serves the process `echo` and tells its members.

use partisan::{
    Answer, Caller, Destination, Exception, Mailbox, Message, Node, NodeEvent, NodeSpec, Server,
    Value, term,
};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::NodeArgs;
use crate::failure::{Cause, Failure};
use crate::remote::spec_term;
use crate::settings::{Settings, resolve};

/// Runs until the node is told to stop, by SIGTERM or SIGINT.
pub(crate) fn run(args: &NodeArgs, as_json: bool) -> Result<String, Failure> {
    let other = |e: &(dyn std::error::Error + 'static)| Failure::from_error(Cause::Other, e);
    let file = args.config.as_deref().map(Settings::read).transpose()?;
    let settings = args.over(file.unwrap_or_default());
    let mut join = Vec::new();
    for peer in &settings.join {
        join.push((peer.name.clone(), resolve(&peer.address)?));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|e| other(&e))?;
    // Before anybody learns that there is a node.
    let (mut interrupt, mut terminate) = {
        let _context = runtime.enter();
        let caught = |kind| signal(kind).map_err(|e| other(&e));
        (
            caught(SignalKind::interrupt())?,
            caught(SignalKind::terminate())?,
        )
    };
    let node = settings.builder()?.start()?;
    let mut events = node.events();
    node.serve("echo", Echo).map_err(|e| other(&e))?;
    tell_members(&node);
    println!("{}", started(node.spec(), as_json));
    runtime.block_on(async {
        for (name, addrs) in join {
            let joined = node.join((name.as_str(), addrs)).await;
            joined.map_err(|e| other(&e))?;
        }
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(NodeEvent::Failed(why)) => break Err(Failure::new(Cause::Other, &*why)),
                    Some(_) => {}
                    None => break Ok(()),
                },
                _ = interrupt.recv() => break Ok(()),
                _ = terminate.recv() => break Ok(()),
            }
        }
    })?;
    node.stop();
    Ok(stopped(node.name(), as_json))
}

fn stopped(name: &str, as_json: bool) -> String {
    match as_json {
        true => json!({"name": name, "stopped": true}).to_string(),
        false => format!("{name} has stopped"),
    }
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

/// Answers `{To, Ref, Term}` with `{Ref, Term}`, as a message and as a cast, and a call with its request. What goes
/// back is encoded anew from an owned value: that which came is gone by then.
struct Echo;

impl Server for Echo {
    async fn call(&mut self, request: Value, _from: Caller, _me: &mut Mailbox) -> Answer {
        request.into()
    }

    async fn cast(&mut self, request: Value, me: &mut Mailbox) {
        answer(request, me).await;
    }

    async fn info(&mut self, message: Message, me: &mut Mailbox) {
        let value = message.term.decode();
        drop(message);
        answer(value, me).await;
    }
}

async fn answer(question: Value, me: &Mailbox) {
    let Ok([to, reference, term]) = parts(question) else {
        tracing::warn!("neither {{Pid, Ref, Term}} nor a call");
        return;
    };
    let to = match &to {
        Value::Pid(pid) => Destination::Pid(pid),
        Value::Reference(alias) => Destination::Alias(alias),
        other => {
            tracing::warn!("no echo to {other}");
            return;
        }
    };
    let sent = match Value::tuple([reference, term]).encode() {
        Ok(answer) => me.send(to, &answer).await.map_err(|e| e.to_string()),
        Err(e) => Err(e.to_string()),
    };
    if let Err(e) = sent {
        tracing::warn!("no echo: {e}");
    }
}

fn parts(question: Value) -> Result<[Value; 3], ()> {
    match question {
        Value::Tuple(elements) => elements.try_into().map_err(|_| ()),
        _ => Err(()),
    }
}

/// Answers what `partisan members` and BEAM nodes ask a member.
fn tell_members(node: &Node) {
    type Shown = fn(&NodeSpec) -> Value;
    let functions: [(&str, Shown); 2] = [
        ("members", |spec| Value::atom(&spec.name)),
        ("members_for_orchestration", spec_term),
    ];
    for (name, shown) in functions {
        node.function("partisan_peer_service", name, 0, move |call| async move {
            let members = call.node.members().await;
            let members = members.map_err(|e| Exception::Exit(Value::binary(e.to_string())))?;
            let mut members: Vec<NodeSpec> = members;
            members.sort();
            Ok(term!({ok, (members.iter().map(shown).collect::<Value>())}))
        });
    }
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
