//! The Rust node that `stock_peer.erl` talks to; the module's documentation says what it does.

use std::collections::HashMap;
use std::time::Duration;

use partisan::{
    AliasKind, Answer, CallError, Caller, Destination, Exception, Exit, Mailbox, Message, Node,
    Notice, Pid, Reference, RpcError, Server, Value,
};
use sha2::{Digest, Sha256};

/// Gives a node the processes and functions of the peer program.
pub(crate) fn serve(node: &Node) {
    node.serve("echo", Echo::default()).unwrap();
    node.spawn_named("sink", sink).unwrap();
    node.spawn_named("control", control).unwrap();
    functions(node);
}

fn functions(node: &Node) {
    let module = "stock_functions";
    node.function(module, "echo", 1, |mut call| async move {
        Ok(call.arguments.remove(0))
    });
    node.function(module, "raise", 2, |mut call| async move {
        let reason = call.arguments.remove(1);
        Err(match call.arguments[0].as_atom() {
            Some("exit") => Exception::Exit(reason),
            Some("throw") => Exception::Throw(reason),
            _ => Exception::Error(reason),
        })
    });
    node.function(module, "sleep", 2, |mut call| async move {
        let millis = call.arguments[0].as_i64().ok_or_else(Exception::badarg)?;
        tokio::time::sleep(Duration::from_millis(millis as u64)).await;
        Ok(call.arguments.remove(1))
    });
    node.function(module, "send", 2, |call| async move {
        send_to(&call.node, &call.arguments[0], &call.arguments[1]).await;
        Ok(Value::atom("ok"))
    });
    node.function(module, "hello", 2, |call| async move {
        let reference = call.arguments[1].clone();
        let hello = Value::tuple([Value::atom("hello"), reference, call.pid.clone().into()]);
        send_to(&call.node, &call.arguments[0], &hello).await;
        Ok(Value::atom("ok"))
    });
    node.function(module, "leader", 1, |call| async move {
        let leader = Value::tuple([Value::atom("leader"), call.group_leader.clone().into()]);
        send_to(&call.node, &call.arguments[0], &leader).await;
        Ok(Value::atom("ok"))
    });
}

/// `To ! Message`: a pid, an alias, or `{Name, Node}`.
async fn send_to(node: &Node, to: &Value, message: &Value) {
    let message = message.encode().unwrap();
    let sent = match to {
        Value::Pid(pid) => node.send(pid, &message).await,
        Value::Reference(alias) => node.send(&**alias, &message).await,
        Value::Tuple(pair) => {
            let (name, at) = (pair[0].as_atom().unwrap(), pair[1].as_atom().unwrap());
            node.send((at, name), &message).await
        }
        other => panic!("{other:?} is nobody"),
    };
    // As in Erlang: what can't be sent is lost.
    drop(sent);
}

fn pid(value: &Value) -> Pid {
    value.as_pid().expect("a pid").clone()
}

#[derive(Default)]
struct Echo {
    /// Who waits for ever, and who wants to know of its end.
    waiting: HashMap<Reference, (Pid, Pid)>,
}

impl Server for Echo {
    async fn call(&mut self, request: Value, from: Caller, me: &mut Mailbox) -> Answer {
        match request.as_tuple() {
            Some([kind, Value::Integer(millis), reply]) if kind.is_atom("sleep") => {
                let (node, reply) = (me.node().clone(), reply.clone());
                let pause = Duration::from_millis(*millis as u64);
                tokio::spawn(async move {
                    tokio::time::sleep(pause).await;
                    let _ = from.reply_from(&node, reply).await;
                });
                Answer::Later
            }
            Some([kind, Value::Pid(told)]) if kind.is_atom("forever") => {
                let monitor = me.monitor(from.pid()).await;
                self.waiting
                    .insert(monitor, (from.pid().clone(), told.clone()));
                Answer::Later
            }
            _ => Answer::Reply(request),
        }
    }

    async fn cast(&mut self, request: Value, me: &mut Mailbox) {
        echo(me, &request).await;
    }

    async fn info(&mut self, message: Message, me: &mut Mailbox) {
        if let Some(Notice::Down {
            reference, reason, ..
        }) = message.notice.as_deref()
        {
            if let Some((caller, told)) = self.waiting.remove(reference) {
                let down = [Value::atom("caller_down"), caller.into(), reason.decode()];
                send_to(me.node(), &told.into(), &Value::tuple(down)).await;
            }
            return;
        }
        // Owned, with what it came in dropped.
        let value = message.term.decode();
        drop(message);
        echo(me, &value).await;
    }
}

async fn echo(me: &Mailbox, message: &Value) {
    if let Some([to @ (Value::Pid(_) | Value::Reference(_)), reference, term]) = message.as_tuple()
    {
        let answer = Value::tuple([reference.clone(), term.clone()]);
        send_to(me.node(), to, &answer).await;
    }
}

async fn sink(mut me: Mailbox) {
    let (mut count, mut bytes, mut digest) = (0_i64, 0_i64, Sha256::new());
    while let Some(message) = me.recv().await {
        let value = message.term.decode();
        match value.as_tuple() {
            Some([kind, _, Value::Binary(data)]) if kind.is_atom("data") => {
                count += 1;
                bytes += data.len() as i64;
                digest.update(data);
            }
            Some([kind, to, reference]) if kind.is_atom("report") => {
                let sum = std::mem::take(&mut digest).finalize();
                let sum = Value::binary(sum.to_vec());
                let report = [reference.clone(), count.into(), bytes.into(), sum];
                send_to(me.node(), to, &Value::tuple(report)).await;
                (count, bytes) = (0, 0);
            }
            Some([kind, Value::Integer(millis)]) if kind.is_atom("sleep") => {
                tokio::time::sleep(Duration::from_millis(*millis as u64)).await;
            }
            _ => {}
        }
    }
}

async fn control(mut me: Mailbox) {
    while let Some(message) = me.recv().await {
        let value = message.term.decode();
        if let Some([kind, owner, reference]) = value.as_tuple()
            && kind.is_atom("spawn")
        {
            let its = pid(owner);
            let puppet = me.node().spawn(|me| puppet(me, its)).unwrap();
            let answer = Value::tuple([reference.clone(), puppet.into()]);
            send_to(me.node(), owner, &answer).await;
        }
    }
}

/// A process that does as it is told, and forwards all else to its owner.
async fn puppet(mut me: Mailbox, owner: Pid) -> Exit {
    while let Some(message) = me.recv().await {
        let value = message.term.decode();
        let order = match value.as_tuple() {
            Some([kind, from, reference, order])
                if kind.is_atom("do") && message.notice.is_none() =>
            {
                Some((from, reference, order))
            }
            _ => None,
        };
        let Some((from, reference, order)) = order else {
            let me_too = me.pid().clone().into();
            let told = Value::tuple([Value::atom("told"), me_too, value.clone()]);
            send_to(me.node(), &owner.clone().into(), &told).await;
            continue;
        };
        let answer = |result: Value| Value::tuple([reference.clone(), result]);
        let ok = || answer(Value::atom("ok"));
        let words = order.as_tuple().unwrap_or(std::slice::from_ref(order));
        match (words[0].as_atom().unwrap_or(""), &words[1..]) {
            ("exit", [reason]) => {
                send_to(me.node(), from, &ok()).await;
                return Exit::because(reason.clone());
            }
            ("chatter", [to]) => {
                send_to(me.node(), from, &ok()).await;
                chatter(&me, &pid(to)).await;
                return Exit::normal();
            }
            ("connect_after", [node, Value::Integer(millis)]) => {
                send_to(me.node(), from, &ok()).await;
                tokio::time::sleep(Duration::from_millis(*millis as u64)).await;
                let connected = me.node().connect(node.as_atom().unwrap()).await.is_ok();
                let connected = Value::tuple([Value::atom("connected"), connected.into()]);
                let told = [Value::atom("told"), me.pid().clone().into(), connected];
                send_to(me.node(), &owner.clone().into(), &Value::tuple(told)).await;
            }
            (verb, arguments) => {
                let result = obey(&mut me, verb, arguments).await;
                send_to(me.node(), from, &answer(result)).await;
            }
        }
    }
    Exit::normal()
}

/// Counts to somebody until its node is gone.
async fn chatter(me: &Mailbox, to: &Pid) {
    let mut number = 0_i64;
    let linked = |me: &Mailbox| me.node().links().contains(&to.node);
    while linked(me) {
        let next = [Value::atom("seq"), me.pid().clone().into(), number.into()];
        let next = Value::tuple(next).encode().unwrap();
        // Not by a connection that would be made for it.
        if linked(me) && me.send(to, &next).await.is_err() {
            return;
        }
        number += 1;
    }
}

fn outcome(result: Result<Value, Value>) -> Value {
    match result {
        Ok(value) => Value::tuple([Value::atom("ok"), value]),
        Err(why) => Value::tuple([Value::atom("error"), why]),
    }
}

fn timeout(millis: &Value) -> Option<Duration> {
    let millis = millis.as_i64()?;
    Some(Duration::from_millis(millis as u64))
}

async fn obey(me: &mut Mailbox, verb: &str, arguments: &[Value]) -> Value {
    let ok = Value::atom("ok");
    match (verb, arguments) {
        ("trap", [on]) => me.trap_exits(on.is_atom("true")),
        ("link", [to]) => me.link(&pid(to)).await,
        ("unlink", [to]) => me.unlink(&pid(to)),
        ("monitor", [Value::Pid(to)]) => return me.monitor(to).await.into(),
        ("monitor", [Value::Tuple(pair)]) => {
            let (name, node) = (pair[0].as_atom().unwrap(), pair[1].as_atom().unwrap());
            return me.monitor((node, name)).await.into();
        }
        ("demonitor", [reference]) => me.demonitor(reference.as_reference().unwrap()),
        ("exit", [to, reason]) => {
            let _ = me.exit_other(&pid(to), &reason.encode().unwrap()).await;
        }
        ("send", [to, message]) => send_to(me.node(), to, message).await,
        ("alias", [Value::List(options)]) => {
            let priority = options.iter().any(|option| option.is_atom("priority"));
            let kind = if priority {
                AliasKind::Priority
            } else {
                AliasKind::Lasting
            };
            return me.alias(kind).into();
        }
        ("unalias", [alias]) => {
            me.unalias(alias.as_reference().unwrap());
        }
        ("register", [name]) => me.register(name.as_atom().unwrap()).unwrap(),
        ("unregister", []) => assert!(me.unregister()),
        ("group_leader", []) => return me.group_leader().into(),
        ("connect", [node]) => {
            return me
                .node()
                .connect(node.as_atom().unwrap())
                .await
                .is_ok()
                .into();
        }
        ("call", [name, node, request, millis]) => {
            let to = Destination::from((node.as_atom().unwrap(), name.as_atom().unwrap()));
            let request = request.encode().unwrap();
            let called = me.call_within(to, &request, timeout(millis)).await;
            return outcome(match called {
                Ok(answer) => Ok(answer.decode()),
                Err(CallError::Timeout(_)) => Err(Value::atom("timeout")),
                Err(CallError::Down(reason)) => Err(reason.decode()),
                Err(other) => Err(Value::binary(other.to_string())),
            });
        }
        ("cast", [name, node, message]) => {
            let to = (node.as_atom().unwrap(), name.as_atom().unwrap());
            me.cast(to, &message.encode().unwrap()).await.unwrap();
        }
        ("rpc" | "erpc", [node, module, function, list, millis]) => {
            let ran = me.node().rpc(
                node.as_atom().unwrap(),
                module.as_atom().unwrap(),
                function.as_atom().unwrap(),
                list.as_list().unwrap().to_vec(),
                timeout(millis),
            );
            return outcome(match ran.await {
                Ok(value) => Ok(value),
                Err(RpcError::Timeout(_)) => Err(Value::atom("timeout")),
                Err(RpcError::Error { reason, .. }) => Err(reason),
                Err(RpcError::Exit(reason) | RpcError::Throw(reason)) => Err(reason),
                Err(other) => Err(Value::binary(other.to_string())),
            });
        }
        ("pg_start", [scope]) => drop(me.node().pg(scope.as_atom().unwrap()).unwrap()),
        ("pg_join", [scope, group]) => {
            let scope = me.node().pg(scope.as_atom().unwrap()).unwrap();
            scope.join(group.clone(), &*me).unwrap();
        }
        ("pg_leave", [scope, group]) => {
            let scope = me.node().pg(scope.as_atom().unwrap()).unwrap();
            scope.leave(group.clone(), &*me).unwrap();
        }
        ("pg_members", [scope, group]) => {
            let scope = me.node().pg(scope.as_atom().unwrap()).unwrap();
            return scope.members(group.clone()).into_iter().collect();
        }
        (verb, arguments) => panic!("{verb} {arguments:?} is no order"),
    }
    ok
}
