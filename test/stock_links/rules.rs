//! EPMD, and what peers may do.

use super::*;

#[test]
fn a_name_server_that_starts_anew_knows_the_node_again() {
    let Some(world) = World::new() else { return };
    let epmd = Epmd::start(world.release);
    let port = epmd.port;
    let node = builder("found_rust").distribution(distribution(port));
    let node = node.start().expect("a node");
    echo(&node);
    let rust = node.name();
    let start = |epmd: &Epmd, name: &str| {
        let options = Options::new(name, COOKIE);
        Peer::start(world.release, epmd, &options)
    };
    let before = start(&epmd, "before_beam");
    before.expect(&hello(rust), "hello");
    drop(epmd);
    logged(&["EPMD has closed the connection", "found_rust"]);
    let mut epmd = None;
    eventually("it starts again", || {
        epmd = Epmd::start_at(world.release, port);
        epmd.is_some()
    });
    let epmd = epmd.expect("just started");
    let after = start(&epmd, "after_beam");
    let connect = format!("net_kernel:connect_node('{rust}')");
    eventually("it is found", || {
        after.eval(&connect).as_deref() == Ok("true")
    });
    after.expect(&hello(rust), "hello");
    // Links need no name server.
    before.expect(&hello(rust), "hello");
}

#[test]
fn a_visible_node_is_refused() {
    let Some(world) = World::new() else { return };
    let visible = world.distribution().visible(true);
    match builder("seen_rust").distribution(visible).start() {
        Err(error @ StartError::Visible) => {
            assert!(error.to_string().contains("cannot be visible"));
        }
        other => panic!("{other:?}"),
    }
    // Nothing of it is left.
    let names = partisan::Epmd::on_port(world.epmd.port);
    let names = world.run(names.names("127.0.0.1".parse().expect("an address")));
    assert_eq!(names.expect("it answers").len(), 0);
}

#[test]
fn peers_reach_what_is_allowed_and_nothing_else() {
    let Some(world) = World::new() else { return };
    let erl = world.erl("asking_beam", "");
    let allow = Allow::new().only_names(["open"]).exits(false);
    let node = builder("asked_rust")
        .distribution(world.distribution().allow(allow))
        .start()
        .expect("a node");
    let rust = node.name();
    let mut open = node.register("open").expect("a name");
    let mut closed = node.register("closed").expect("a name");
    node.function("calculator", "double", 1, |call| async move {
        let number = call.arguments[0].as_i64();
        Ok(Value::from(2 * number.unwrap_or(0)))
    });

    // Functions: those that are registered, by every way of calling.
    erl.expect(
        &format!("rpc:call('{rust}', calculator, double, [21])"),
        "42",
    );
    erl.expect(
        &format!("erpc:call('{rust}', calculator, double, [21])"),
        "42",
    );
    for (module, name, arguments) in [
        ("calculator", "double", "[1, 2]"),
        ("os", "cmd", "[\"id\"]"),
        ("erlang", "halt", "[]"),
    ] {
        erl.expect(
            &format!("element(1, rpc:call('{rust}', {module}, {name}, {arguments}))"),
            "badrpc",
        );
        erl.expect(
            &format!(
                "try erpc:call('{rust}', {module}, {name}, {arguments}) \
                   catch error:{{exception, undef, _}} -> undef end"
            ),
            "undef",
        );
        erl.expect(
            &format!(
                "R = spawn_request('{rust}', {module}, {name}, {arguments}, [{{reply, yes}}]), \
                   receive {{spawn_reply, R, error, Why}} -> Why after 20000 -> silence end"
            ),
            "notsup",
        );
    }
    erl.expect(
        &format!(
            "R = spawn_request('{rust}', erlang, apply, [fun() -> ok end, []], [{{reply, yes}}]), \
               receive {{spawn_reply, R, error, Why}} -> Why after 20000 -> silence end"
        ),
        "notsup",
    );

    // Names: what is not on the list takes nothing.
    erl.expect(
        &format!("{{closed, '{rust}'}} ! secret, {{open, '{rust}'}} ! {{hello, 1}}, ok"),
        "ok",
    );
    assert_eq!(numbered(&world.recv(&mut open)), ("hello".into(), 1));
    assert!(closed.try_recv().is_none());

    // Exits: the process lives on, and its pid, once given, is as good as any.
    let asking = erl.begin(&format!(
        "{{open, '{rust}'}} ! {{me, self()}}, \
           receive P -> exit(P, kill), exit(P, enough), P ! {{alive, 2}}, ok end"
    ));
    let (_, me) = parts(&world.recv(&mut open));
    let own = Value::from(closed.pid().clone()).encode().expect("a term");
    let sent = world.run(closed.send(me[0].as_pid().expect("a pid"), &own));
    sent.expect("there is a link");
    assert_eq!(asking.wait(PATIENCE).as_deref(), Ok("ok"));
    assert_eq!(numbered(&world.recv(&mut closed)), ("alive".into(), 2));
    assert!(closed.killed().is_none());
}
