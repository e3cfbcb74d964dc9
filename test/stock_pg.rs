//! Process groups and global names shared with real stock nodes, of every OTP release that there is.

use std::time::Instant;

use partisan::{
    Distribution, Epmd, GlobalError, Mailbox, Message, Node, Notice, Pg, PgError, PgEvent, Pid,
    Value,
};
use tokio::runtime::Runtime;
use tokio::time::timeout;

#[path = "stock/mod.rs"]
mod stock;

use stock::{Options, PATIENCE, Peer, Release, releases};

fn runtime() -> Runtime {
    Runtime::new().expect("a runtime")
}

fn node(epmd: &stock::Epmd, name: &str) -> Node {
    let epmd = Epmd::on_port(epmd.port);
    Node::builder(format!("{name}@127.0.0.1"))
        .cookie("cookie")
        .listen("127.0.0.1:0".parse().unwrap())
        .distribution(Distribution::new().epmd(epmd))
        .start()
        .expect("a node")
}

fn erl(release: &Release, epmd: &stock::Epmd, name: &str) -> Peer {
    Peer::start(release, epmd, &Options::new(name, "cookie"))
}

fn atom(text: &str) -> Value {
    Value::atom(text)
}

/// Waits until a group has that many members.
async fn members(pg: &Pg, group: &Value, count: usize) -> Vec<Pid> {
    let (_, mut events) = pg.monitor();
    let waiting = async {
        loop {
            let members = pg.members(group.clone());
            if members.len() == count {
                return members;
            }
            events.recv().await.expect("the scope");
        }
    };
    let come = timeout(PATIENCE, waiting).await;
    come.unwrap_or_else(|_| panic!("{group:?}: {:?}, not {count}", pg.members(group.clone())))
}

/// An expression that is `ok` when a group has that many members.
fn counted(group: &str, count: usize) -> String {
    format!(
        "begin {{Ref, _}} = pg:monitor(scope, {group}),
            Wait = fun Wait() ->
                case length(pg:get_members(scope, {group})) of
                    {count} -> pg:demonitor(scope, Ref), ok;
                    _ -> receive {{Ref, _, _, _}} -> Wait() after 200 -> Wait() end
                end
            end,
            Wait()
        end"
    )
}

/// Starts a member on the stock node; it answers each `{From, Message}` and ends by `stop`.
fn member(name: &str, group: &str) -> String {
    format!(
        "begin Self = self(),
            spawn(fun() ->
                true = register({name}, self()),
                ok = pg:join(scope, {group}, self()),
                Self ! joined,
                (fun Loop() -> receive stop -> ok; {{From, M}} -> From ! {{self(), M}}, Loop() end end)()
            end),
            receive joined -> ok end
        end"
    )
}

const START: &str = "element(1, pg:start(scope))";

#[test]
fn members_in_both_directions() {
    let rt = runtime();
    for release in releases() {
        let epmd = stock::Epmd::start(release);
        let peer = erl(release, &epmd, "peer");
        let rust = node(&epmd, "rust");
        peer.expect(START, "ok");
        peer.expect(&member("theirs", "group"), "ok");
        rt.block_on(async {
            let pg = rust.pg("scope").unwrap();
            let mut own = rust.mailbox().unwrap();
            pg.join(atom("group"), &own).unwrap();
            // The scope is there before the link.
            rust.connect(&*peer.name).await.unwrap();
            let group = members(&pg, &atom("group"), 2).await;
            assert!(group.contains(own.pid()));
            assert_eq!(pg.local_members(atom("group")), [own.pid().clone()]);
            peer.expect(&counted("group", 2), "ok");

            // Their member is a process that can be spoken to, and ours to them.
            let theirs = group.iter().find(|pid| *pid != own.pid()).unwrap();
            let me = Value::from(own.pid().clone());
            let hello = Value::tuple([me, atom("hello")]).encode().unwrap();
            own.send(theirs, &hello).await.unwrap();
            let answer = next(&mut own).await.term.decode();
            assert_eq!(answer, Value::tuple([theirs.clone().into(), atom("hello")]));
            peer.expect(
                "[P ! hi || P <- pg:get_members(scope, group), node(P) =/= node()]",
                "[hi]",
            );
            assert_eq!(next(&mut own).await.term.decode(), atom("hi"));

            // Twice in a group, and a group that is a map.
            pg.join(atom("group"), &own).unwrap();
            peer.expect(&counted("group", 3), "ok");
            assert!(pg.leave(atom("group"), &own).unwrap());
            peer.expect(&counted("group", 2), "ok");
            let map = |pairs: Vec<(i64, &str)>| {
                let pairs = pairs.into_iter();
                Value::Map(pairs.map(|(k, v)| (Value::from(k), atom(v))).collect())
            };
            peer.expect(&member("mapped", "#{1 => a, 2 => b}"), "ok");
            pg.join(map(vec![(2, "b"), (1, "a")]), own.pid()).unwrap();
            members(&pg, &map(vec![(1, "a"), (2, "b")]), 2).await;
            peer.expect(&counted("#{2 => b, 1 => a}", 2), "ok");
            assert_eq!(pg.groups().len(), 2);

            // One leaves, one ends; events tell it in order.
            let (_, mut events) = pg.monitor();
            peer.expect("exit(whereis(mapped), kill)", "true");
            members(&pg, &map(vec![(1, "a"), (2, "b")]), 1).await;
            let Some(PgEvent::Leave { group, pids }) = events.recv().await else {
                panic!("no leave");
            };
            assert_eq!((group.as_map().unwrap().len(), pids.len()), (2, 1));
            let pid = own.pid().clone();
            drop(own);
            peer.expect(&counted("group", 1), "ok");
            peer.expect(&counted("#{1 => a, 2 => b}", 0), "ok");
            members(&pg, &atom("group"), 1).await;
            assert!(!pg.leave(atom("group"), &pid).unwrap());
            assert!(matches!(
                pg.join(atom("x"), theirs),
                Err(PgError::NotLocal(_))
            ));
            // The stock scope has lived through all of it.
            peer.expect("is_process_alive(whereis(scope))", "true");
        });
    }
}

async fn next(mailbox: &mut Mailbox) -> Message {
    timeout(PATIENCE, mailbox.recv())
        .await
        .expect("in time")
        .expect("a message")
}

#[test]
fn scopes_and_nodes_restart() {
    let rt = runtime();
    for release in releases() {
        let epmd = stock::Epmd::start(release);
        let peer = erl(release, &epmd, "peer");
        let rust = node(&epmd, "rust");
        let group = atom("group");
        rt.block_on(async {
            rust.connect(&*peer.name).await.unwrap();
            let pg = rust.pg("scope").unwrap();
            let own = rust.mailbox().unwrap();
            pg.join(group.clone(), &own).unwrap();

            // Their scope starts after the link is up.
            peer.expect(START, "ok");
            peer.expect(&member("theirs", "group"), "ok");
            peer.expect(&counted("group", 2), "ok");
            members(&pg, &group, 2).await;

            // Their scope dies and comes back.
            peer.expect("exit(whereis(scope), kill)", "true");
            members(&pg, &group, 1).await;
            let began = Instant::now();
            peer.expect(START, "ok");
            peer.expect("pg:join(scope, group, whereis(theirs))", "ok");
            members(&pg, &group, 2).await;
            peer.expect(&counted("group", 2), "ok");
            println!(
                "OTP {}: scope found again in {:?}",
                release.number,
                began.elapsed()
            );

            // Ours ends and comes back.
            let (_, mut events) = pg.monitor();
            pg.stop();
            while events.recv().await.is_some() {}
            peer.expect(&counted("group", 1), "ok");
            assert_eq!(pg.join(group.clone(), &own), Err(PgError::Ended));
            let pg = rust.pg("scope").unwrap();
            pg.join(group.clone(), &own).unwrap();
            members(&pg, &group, 2).await;
            peer.expect(&counted("group", 2), "ok");

            // They end ours: a scope process is a process like others.
            pg.join(atom("scopes"), pg.pid()).unwrap();
            peer.expect(&counted("scopes", 1), "ok");
            let (_, mut events) = pg.monitor();
            peer.expect(
                "[exit(P, kill) || P <- pg:get_members(scope, scopes)]",
                "[true]",
            );
            while events.recv().await.is_some() {}
            peer.expect(&counted("group", 1), "ok");
            assert!(pg.members(group.clone()).is_empty());
            let pg = rust.pg("scope").unwrap();
            pg.join(group.clone(), &own).unwrap();
            members(&pg, &group, 2).await;

            // The link breaks and comes back.
            assert!(rust.disconnect_link(&*peer.name).await.unwrap());
            members(&pg, &group, 1).await;
            peer.expect(&counted("group", 1), "ok");
            assert!(pg.leave(group.clone(), &own).unwrap());
            pg.join(group.clone(), &own).unwrap();
            rust.connect(&*peer.name).await.unwrap();
            members(&pg, &group, 2).await;
            peer.expect(&counted("group", 2), "ok");

            // Their node restarts.
            drop(peer);
            members(&pg, &group, 1).await;
            let peer = erl(release, &epmd, "peer");
            peer.expect(START, "ok");
            peer.expect(&member("theirs", "group"), "ok");
            rust.connect(&*peer.name).await.unwrap();
            members(&pg, &group, 2).await;
            peer.expect(&counted("group", 2), "ok");

            // Ours restarts.
            drop((pg, own));
            rust.stop();
            peer.expect(&counted("group", 1), "ok");
            let rust = node(&epmd, "rust");
            let pg = rust.pg("scope").unwrap();
            let own = rust.mailbox().unwrap();
            pg.join(group.clone(), &own).unwrap();
            rust.connect(&*peer.name).await.unwrap();
            members(&pg, &group, 2).await;
            peer.expect(&counted("group", 2), "ok");
        });
    }
}

/// What OTP's own scopes are asked by `stock_peer:groups/1`, asked of Rust puppets.
#[test]
fn what_stock_nodes_ask() {
    let rt = runtime();
    for release in releases() {
        let epmd = stock::Epmd::start(release);
        let peer = erl(release, &epmd, "peer");
        let rust = node(&epmd, "rust");
        rt.block_on(async {
            let puppets = rust.clone();
            let control = move |mut control: Mailbox| async move {
                while let Some(message) = control.recv().await {
                    let order = message.term.decode();
                    let Some([_spawn, owner, reference]) = order.as_tuple() else {
                        continue;
                    };
                    let puppet = puppets.spawn(puppet).unwrap();
                    answer(&control, owner, reference, puppet.into()).await;
                }
            };
            rust.spawn_named("control", control).unwrap();
        });
        for _ in 0..3 {
            peer.check("groups", rust.name());
        }
    }
}

async fn answer(from: &Mailbox, to: &Value, reference: &Value, result: Value) {
    let answer = Value::tuple([reference.clone(), result]).encode().unwrap();
    from.send(to.as_pid().unwrap(), &answer).await.unwrap();
}

async fn puppet(mut me: Mailbox) {
    while let Some(message) = me.recv().await {
        let term = message.term.decode();
        let Some([_do, from, reference, order]) = term.as_tuple() else {
            continue;
        };
        let order = order.as_tuple().unwrap();
        let scope = || {
            let scope = order[1].as_atom().unwrap().to_owned();
            me.node().pg(scope).unwrap()
        };
        let result = match order[0].as_atom().unwrap() {
            "exit" => return answer(&me, from, reference, atom("ok")).await,
            "pg_start" => {
                scope();
                atom("ok")
            }
            "pg_join" => {
                scope().join(order[2].clone(), &me).unwrap();
                atom("ok")
            }
            "pg_leave" => {
                assert!(scope().leave(order[2].clone(), &me).unwrap());
                atom("ok")
            }
            "pg_members" => {
                let members = scope().members(order[2].clone());
                Value::list(members.into_iter().map(Value::from).collect::<Vec<_>>())
            }
            other => panic!("{other}"),
        };
        answer(&me, from, reference, result).await;
    }
}

/// Three stock nodes of different releases and two Rust nodes in one scope.
#[test]
fn all_releases_in_one_scope() {
    let rt = runtime();
    let releases = releases();
    let Some(first) = releases.first() else {
        return;
    };
    let epmd = stock::Epmd::start(first);
    let peers: Vec<Peer> = releases
        .iter()
        .map(|release| erl(release, &epmd, &format!("otp{}", release.number)))
        .collect();
    rt.block_on(async {
        let nodes = [node(&epmd, "one"), node(&epmd, "two")];
        let group = atom("group");
        let mut all = Vec::new();
        for rust in &nodes {
            let pg = rust.pg("scope").unwrap();
            let own = rust.mailbox().unwrap();
            pg.join(group.clone(), &own).unwrap();
            for peer in &peers {
                rust.connect(&*peer.name).await.unwrap();
            }
            all.push((pg, own));
        }
        nodes[0].connect(nodes[1].name()).await.unwrap();
        for peer in &peers {
            // OTP 29 ends the scope of OTP 25 if they meet: to each other these are no nodes.
            peer.expect("[N || N <- nodes()]", "[]");
            peer.expect(START, "ok");
            peer.expect(&member("theirs", "group"), "ok");
        }
        for (pg, _) in &all {
            members(pg, &group, peers.len() + 2).await;
        }
        for peer in &peers {
            peer.expect(&counted("group", 3), "ok");
        }
        let many = 2000;
        let mailboxes: Vec<Mailbox> = (0..many).map(|_| nodes[0].mailbox().unwrap()).collect();
        let began = Instant::now();
        for mailbox in &mailboxes {
            all[0].0.join(group.clone(), mailbox).unwrap();
        }
        let joined = began.elapsed();
        for peer in &peers {
            peer.expect(&counted("group", many + 3), "ok");
        }
        members(&all[1].0, &group, peers.len() + 2 + many).await;
        println!(
            "{many} joins: {joined:?}, seen by all after {:?}",
            began.elapsed()
        );
        drop(mailboxes);
        for peer in &peers {
            peer.expect(&counted("group", 3), "ok");
        }
        members(&all[1].0, &group, peers.len() + 2).await;
    });
}

#[test]
fn global_names() {
    let rt = runtime();
    for release in releases() {
        let epmd = stock::Epmd::start(release);
        let [peer, other] = ["peer", "other"].map(|name| erl(release, &epmd, name));
        other.expect("net_kernel:connect_node('peer@127.0.0.1')", "true");
        peer.expect("global:sync()", "ok");
        let rust = node(&epmd, "rust");
        rt.block_on(async {
            let via = &*peer.name;
            let mut own = rust.mailbox().unwrap();
            own.trap_exits(true);
            assert_eq!(rust.global_whereis(atom("ours"), via).await.unwrap(), None);
            rust.global_register(atom("ours"), &own, via).await.unwrap();
            let taken = rust.global_register(atom("ours"), &own, via).await;
            assert!(matches!(taken, Err(GlobalError::Taken(_))), "{taken:?}");

            // Nodes that have no link with this one find it, and reach it.
            other.expect("global:send(ours, hello), ok", "ok");
            assert_eq!(next(&mut own).await.term.decode(), atom("hello"));
            other.expect("global:register_name(theirs, whereis(init))", "yes");
            let theirs = rust
                .global_whereis(atom("theirs"), via)
                .await
                .unwrap()
                .unwrap();
            assert_eq!(&*theirs.node, other.name);
            let mut names = rust.global_names(via).await.unwrap();
            names.sort_by_key(|name| name.as_atom().unwrap().to_owned());
            assert_eq!(names, [atom("ours"), atom("theirs")]);
            rust.global_unregister(atom("ours"), via).await.unwrap();
            rust.global_unregister(atom("ours"), via).await.unwrap();
            other.expect("global:whereis_name(ours)", "undefined");

            // The name goes with the process, ...
            let short = rust.mailbox().unwrap();
            rust.global_register(Value::from(17), &short, via)
                .await
                .unwrap();
            drop(short);
            let gone = "(fun Wait() -> case global:whereis_name(17) of
                undefined -> ok; _ -> timer:sleep(5), Wait() end end)()";
            other.expect(gone, "ok");

            // An exit signal tells of the end of the node that was asked. A process that lives on
            // keeps its name among the others.
            rust.global_register(atom("ours"), &own, via).await.unwrap();
            drop(peer);
            let notice = next(&mut own).await.notice;
            assert!(
                matches!(notice.as_deref(), Some(Notice::Exit { .. })),
                "{notice:?}"
            );
            other.expect("global:whereis_name(ours) =/= undefined", "true");
            let via = &*other.name;
            let found = rust.global_whereis(atom("ours"), via).await.unwrap();
            assert_eq!(found.as_ref(), Some(own.pid()));
            drop(own);
            let gone = gone.replace("17", "ours");
            other.expect(&gone, "ok");
            let nobody = rust.global_whereis(atom("ours"), "nobody@127.0.0.1").await;
            assert!(matches!(nobody, Err(GlobalError::Rpc(_))), "{nobody:?}");
        });
    }
}
