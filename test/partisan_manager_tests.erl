%% The running application over a stand-in for the native library: membership calls, events,
%% subscriptions, start and stop.
-module(partisan_manager_tests).

-include_lib("eunit/include/eunit.hrl").

-define(OWN, 'own@127.0.0.1').
-define(B, 'b@127.0.0.1').
-define(FAKE, partisan_fake_nif).
-define(SERVICE, partisan_peer_service).
-define(NATIVE(Name), {Name, [{{127, 0, 0, 1}, 4321}], [{data, 2, false, 0}, {undefined, 1, false, 0}]}).
-define(SPEC(Name), #{name => Name, listen_addrs => ["127.0.0.1:4321"]}).

manager_test_() ->
    {foreach, fun start/0, fun stop/1, [
        fun starting/0,
        fun joining/0,
        fun sync_joining/0,
        fun sync_join_refused/0,
        fun sync_join_stopped/0,
        fun membership/0,
        fun callbacks/0,
        fun monitors/0,
        fun nodes_monitors/0,
        fun specs/0,
        fun connecting/0,
        fun connections/0,
        fun remote_alive/0,
        fun control/0,
        fun leaving/0,
        fun stopping/0,
        fun network/0,
        fun crash/0
    ]}.

start() ->
    ok = ?FAKE:install(),
    _ = application:unload(partisan),
    ok = application:load(partisan),
    ok = application:set_env(partisan, name, ?OWN),
    ok = application:set_env(partisan, cookie, secret),
    ok = application:set_env(partisan, peer_ip, {127, 0, 0, 1}),
    {ok, _} = partisan:start(),
    ok.

stop(_) ->
    _ = partisan:stop(),
    _ = application:unload(partisan),
    ok = ?FAKE:remove().

commands(Answers) ->
    ?FAKE:answer(command, fun(Command) -> maps:get(Command, Answers, ok) end).

members(Names) ->
    ?FAKE:answer(command, fun
        (members) -> {ok, [?NATIVE(Name) || Name <- Names]};
        (_) -> ok
    end).

%% Everything sent to the manager before has been handled, and its callbacks have run.
sync() ->
    _ = sys:get_state(partisan_pluggable_peer_service_manager),
    _ = sys:get_state(partisan_peer_service_callbacks),
    _ = sys:get_state(partisan_peer_service_events),
    ok.

received() ->
    ok = sync(),
    all().

all() ->
    receive
        Message -> [Message | all()]
    after 0 -> []
    end.

starting() ->
    ?assert(partisan:is_alive()),
    ?assertEqual([#{ip => {127, 0, 0, 1}, port => 4321}], partisan_config:listen_addrs()),
    ?assertMatch(
        #{name := ?OWN, cookie := <<"secret">>}, persistent_term:get({partisan_fake_nif, config})
    ),
    ?assertEqual(?OWN, maps:get(name, partisan:node_spec())),
    ?assertMatch(
        #{name := ?OWN, listen_port := 4321, connection_count := 0},
        partisan:node_info([name, listen_port, connection_count, what])
    ),
    ?assertEqual(#{}, partisan:node_info([])).

joining() ->
    ?assertEqual(ok, ?SERVICE:join(?SPEC(?B))),
    commands(#{}),
    ?FAKE:answer(command, fun({join, _}) -> {error, refused} end),
    ?assertEqual({error, refused}, partisan:join(?SPEC(?B))),
    ?assertEqual({error, self_join}, ?SERVICE:join(partisan:node_spec())),
    ?assertEqual({error, self_join}, ?SERVICE:sync_join(partisan:node_spec())),
    ?assertEqual({error, not_yet_connected}, ?SERVICE:join('unknown@127.0.0.1')),
    ?assertEqual({error, not_yet_connected}, ?SERVICE:join("no-such-atom@127.0.0.1")),
    ?assertError(badarg, ?SERVICE:join(#{name => ?B})),
    ?assert(partisan:is_alive()).

sync_joining() ->
    Self = self(),
    Pid = spawn_link(fun() -> Self ! {self(), ?SERVICE:sync_join(?SPEC(?B))} end),
    timer:sleep(20),
    ?assertEqual([], received()),
    ?FAKE:event({up, ?B, ?NATIVE(?B)}),
    timer:sleep(20),
    ?assertEqual([], received()),
    ?FAKE:event({members, [?NATIVE(?OWN), ?NATIVE(?B)]}),
    timer:sleep(20),
    ?assertEqual([], received()),
    ?FAKE:event({joined, ?B}),
    receive
        {Pid, Result} -> ?assertEqual(ok, Result)
    end.

sync_join_refused() ->
    Self = self(),
    Pid = spawn_link(fun() -> Self ! {self(), ?SERVICE:sync_join(?SPEC(?B))} end),
    timer:sleep(20),
    ?FAKE:event({members, [?NATIVE(?OWN), ?NATIVE(?B)]}),
    ?FAKE:event({members, [?NATIVE(?OWN)]}),
    receive
        {Pid, Result} -> ?assertEqual({error, left}, Result)
    end.

sync_join_stopped() ->
    Self = self(),
    Pid = spawn_link(fun() -> Self ! {self(), ?SERVICE:sync_join(?SPEC(?B))} end),
    timer:sleep(20),
    ok = partisan:stop(),
    receive
        {Pid, Result} -> ?assertEqual({error, notalive}, Result)
    end.

membership() ->
    Self = self(),
    ok = ?SERVICE:add_sup_callback(fun(Members) -> Self ! {members, Members} end),
    members([?OWN, ?B]),
    ?assertEqual({ok, [?B, ?OWN]}, ?SERVICE:members()),
    ?assertEqual([?B, ?OWN], lists:sort(partisan:nodes(known))),
    ?assert(?SERVICE:member(?B)),
    ?assert(?SERVICE:member(<<"b@127.0.0.1">>)),
    ?assertNot(?SERVICE:member('c@127.0.0.1')),
    {ok, State} = ?SERVICE:get_local_state(),
    ?assertEqual([?B, ?OWN], ?SERVICE:decode(State)),
    ?FAKE:event({members, [?NATIVE(?OWN), ?NATIVE(?B)]}),
    ?FAKE:event({members, [?NATIVE(?B), ?NATIVE(?OWN)]}),
    [{members, Members}] = received(),
    ?assertEqual([?B, ?OWN], ?SERVICE:decode(Members)),
    ?assertEqual(ok, partisan_peer_service_console:members([])).

callbacks() ->
    Self = self(),
    ok = ?SERVICE:on_up('_', fun() -> Self ! up0 end),
    ok = ?SERVICE:on_up(any, fun(Node) -> Self ! {up1, Node} end),
    ok = ?SERVICE:on_up(?B, fun(Node, Channel) -> Self ! {up2, Node, Channel} end),
    ok = ?SERVICE:on_up(?B, fun(N, C) -> Self ! {up3, N, C} end, #{channel => data}),
    ok = ?SERVICE:on_up(?B, fun() -> Self ! never end, #{channel => elsewhere}),
    ok = ?SERVICE:on_up('c@127.0.0.1', fun() -> Self ! never end),
    %% A callback may call the manager.
    ok = ?SERVICE:on_down(?SPEC(?B), fun(N) -> Self ! {down, N, element(1, ?SERVICE:members())} end),
    ok = ?SERVICE:on_down(any, fun(_) -> error(oops) end),
    ok = ?SERVICE:on_down(any, fun() -> Self ! down0 end, []),
    ?assertError(badarg, ?SERVICE:on_up(any, fun(_, _, _) -> ok end)),
    ?assertError(badarg, ?SERVICE:on_up(any, x)),
    members([?OWN]),
    ?FAKE:event({up, ?B, ?NATIVE(?B)}),
    ?assertEqual([up0, {up1, ?B}, {up2, ?B, undefined}, {up3, ?B, data}], received()),
    ok = logger:add_handler_filter(default, ?MODULE, {fun(_, _) -> stop end, []}),
    ?FAKE:event({down, ?B, closed}),
    ?FAKE:event({down, ?B, closed}),
    Received = received(),
    ok = logger:remove_handler_filter(default, ?MODULE),
    ?assertEqual([{down, ?B, ok}, down0], Received).

monitors() ->
    true = partisan:monitor_node(?B, true),
    ?assertEqual([{nodedown, ?B}], received()),
    true = partisan:monitor_node(?OWN, true),
    ?FAKE:event({up, ?B, ?NATIVE(?B)}),
    true = partisan:monitor_node(?B, true),
    true = partisan:monitor_node(?SPEC(?B), true, []),
    ?assertEqual([], received()),
    ?FAKE:event({down, ?B, closed}),
    ?assertEqual([{nodedown, ?B}], received()),
    ?FAKE:event({up, ?B, ?NATIVE(?B)}),
    true = partisan:monitor_node(?B, true),
    true = partisan:monitor_node(?B, false),
    ?FAKE:event({down, ?B, closed}),
    ?assertEqual([], received()),
    %% Connected already, though the event has yet to come.
    ?FAKE:answer(is_connected, true),
    true = partisan:monitor_node(?B, true),
    ?assertEqual([], received()).

nodes_monitors() ->
    ok = partisan:monitor_nodes(true),
    ?assertEqual(error, partisan:monitor_nodes(true, [what])),
    ?FAKE:event({up, ?B, ?NATIVE(?B)}),
    ?FAKE:event({down, ?B, closed}),
    ?assertEqual([{nodeup, ?B}, {nodedown, ?B}], received()),
    ok = partisan:monitor_nodes(false),
    ok = partisan:monitor_nodes(true, [nodedown_reason]),
    ?FAKE:event({up, ?B, ?NATIVE(?B)}),
    ?FAKE:event({down, ?B, closed}),
    ?assertEqual(
        [{nodeup, ?B, []}, {nodedown, ?B, [{nodedown_reason, noconnection}]}], received()
    ).

specs() ->
    ?assertEqual({ok, partisan:node_spec()}, partisan:node_spec(?OWN)),
    ?assertEqual({ok, partisan:node_spec()}, partisan:node_spec(<<"own@127.0.0.1">>)),
    ?assertEqual({error, not_yet_connected}, partisan:node_spec(?B)),
    ?FAKE:event({members, [?NATIVE(?OWN), ?NATIVE(?B)]}),
    Known = {ok, partisan_util:from_native(?NATIVE(?B))},
    ?assertEqual(Known, partisan:node_spec("b@127.0.0.1")),
    ?assertEqual(Known, partisan:node_spec(?B, #{rpc_timeout => 10})),
    ?FAKE:event({members, [?NATIVE(?OWN)]}),
    ?assertEqual({error, not_yet_connected}, partisan:node_spec(?B)),
    ?FAKE:event({up, ?B, ?NATIVE(?B)}),
    ?assertEqual(Known, partisan:node_spec(?B)),
    ?assertEqual(ok, ?SERVICE:join(?B)).

connecting() ->
    ?FAKE:answer(nodes, [?B]),
    ?FAKE:answer(is_connected, fun(Node, Channel) ->
        Node =:= ?B andalso lists:member(Channel, [any, data])
    end),
    ?FAKE:answer(channels_of, [{data, 2}, {undefined, 1}]),
    ?FAKE:event({up, ?B, ?NATIVE(?B)}),
    ?assertEqual([?B], partisan:nodes()),
    ?assertEqual([?B, ?OWN], partisan:nodes([connected, this, hidden])),
    ?assertError(badarg, partisan:nodes(what)),
    ?assert(partisan:is_connected(?B)),
    ?assert(partisan:is_connected(?OWN)),
    ?assert(partisan:is_fully_connected(?B)),
    ?assert(partisan:is_connected(?B, data)),
    ?assertNot(partisan:is_connected(?B, other)),
    ?assert(partisan:is_connected(?B, [other, data])),
    Spec = partisan_util:from_native(?NATIVE(?B)),
    ?assert(partisan:is_connected(Spec)),
    ?assertNot(partisan:is_connected(Spec#{listen_addrs := [#{ip => {1, 2, 3, 4}, port => 1}]})),
    ?assertNot(partisan:is_connected('c@127.0.0.1')),
    ?assertEqual(#{connection_count => 3}, partisan:node_info([connection_count])).

connections() ->
    commands(#{connections => {ok, [{?B, data, 1, {127, 0, 0, 1}, 4000, 17}]}}),
    Manager = whereis(?SERVICE:manager()),
    ?assertEqual(
        {ok, [
            {partisan_peer_connection, Manager, ?B, data, #{ip => {127, 0, 0, 1}, port => 4000}, 17}
        ]},
        ?SERVICE:connections()
    ),
    Self = self(),
    ?FAKE:answer(command, fun(Command) ->
        Self ! Command,
        ok
    end),
    ok = partisan:kill_connections([?B]),
    ok = partisan:kill_connections(?B),
    ?assertEqual([{disconnect, ?B}, {disconnect, ?B}], received()).

remote_alive() ->
    ?assert(partisan:is_process_alive(self())),
    ?assert(partisan:is_process_alive(partisan:self())),
    Remote = [?B | <<"#Pid<0.5.0>">>],
    ?FAKE:answer(send, {error, not_yet_connected}),
    ?assertError(not_yet_connected, partisan:is_process_alive(Remote)),
    ?assertError(badarg, partisan:is_process_alive([?B | <<"#Namex">>])),
    ?FAKE:answer(send, ok),
    ?assertEqual({error, timeout}, partisan_control:call(?B, node_spec, 10)),
    ?assertMatch(
        [_, {send, ?B, partisan_membership, -1, partisan_control, {_, request, _, _, _}, 3, none}],
        ?FAKE:sent()
    ),
    ?assertEqual([], received()).

%% A request of another node, and what is none.
control() ->
    Ref = make_ref(),
    {Pid, Monitor} = spawn_monitor(fun() -> ok end),
    receive
        {'DOWN', Monitor, _, _, _} -> ok
    end,
    "<0." ++ Rest = pid_to_list(self()),
    [Id, Serial] = [list_to_integer(N) || N <- string:tokens(Rest, ".>")],
    [
        begin
            partisan_control ! {partisan_control, request, foreign(), Ref, Request},
            _ = sys:get_state(partisan_control),
            ?assertEqual(
                [
                    {send, ?B, partisan_membership, -1, foreign(),
                        {partisan_control, reply, Ref, Answer}, 3, none}
                ],
                ?FAKE:sent()
            )
        end
     || {Request, Answer} <- [
            {{is_process_alive, self()}, true},
            {{is_process_alive, Pid}, false},
            {{is_process_alive, foreign()}, false},
            {{is_process_alive, {Id, Serial, 0}}, true},
            {node_spec, partisan:node_spec()},
            {{node_info, [name]}, #{name => ?OWN}}
        ]
    ],
    Alive = whereis(partisan_control),
    [
        partisan_control ! Message
     || Message <- [
            x,
            {partisan_control, request, x, Ref, node_spec},
            {partisan_control, request, foreign(), Ref, {is_process_alive, x}},
            {partisan_control, request, foreign(), Ref, {node_info, x}},
            {partisan_control, request, foreign(), Ref, x}
        ]
    ],
    _ = sys:get_state(partisan_control),
    ?assertEqual([], ?FAKE:sent()),
    ?assertEqual(Alive, whereis(partisan_control)).

foreign() ->
    Name = atom_to_binary(?B),
    binary_to_term(<<131, 88, 119, (byte_size(Name)), Name/binary, 164:32, 2:32, 9:32>>).

leaving() ->
    Self = self(),
    ?FAKE:answer(command, fun
        (members) ->
            {ok, [?NATIVE(?OWN), ?NATIVE(?B)]};
        (Command) ->
            Self ! Command,
            ok
    end),
    ok = ?SERVICE:leave(),
    ok = ?SERVICE:leave(?OWN),
    ok = ?SERVICE:leave(?SPEC(?B)),
    true = partisan:disconnect_node(?B),
    false = partisan:disconnect_node('c@127.0.0.1'),
    {error, not_a_member} = ?SERVICE:leave(<<"no-such-atom@127.0.0.1">>),
    ?assertEqual([leave, leave, {leave, ?B}, {leave, ?B}], received()),
    ok = ?SERVICE:update_members([]),
    ok = ?SERVICE:update_members([?SPEC(?B), partisan:node_spec()]),
    ?assertMatch([{update_members, [{?OWN, _, _}, {?B, _, _}]}], received()),
    ?assertError(badarg, ?SERVICE:update_members([x])).

stopping() ->
    Self = self(),
    ok = partisan:monitor_nodes(true),
    ok = ?SERVICE:on_down(any, fun(Node) -> Self ! {down, Node} end),
    ?FAKE:event({up, ?B, ?NATIVE(?B)}),
    ok = sync(),
    ok = partisan:stop(),
    ?assertEqual([{down, ?B}, {nodedown, ?B}, {nodeup, ?B}], lists:sort(all())),
    ?assertNot(partisan:is_alive()),
    ?assertEqual([?OWN], partisan:nodes(known)),
    {ok, _} = partisan:start(),
    ?assert(partisan:is_alive()).

network() ->
    ?assert(lists:member(partisan_inet:net_status(), [connected, disconnected])),
    ok = partisan_inet:monitor(true),
    ok = partisan_inet:monitor(true),
    ok = partisan_inet:monitor(false),
    ok = partisan_inet:monitor(false).

%% The manager starts anew, and nobody keeps what was the old one's.
crash() ->
    ok = logger:add_handler_filter(default, ?MODULE, {fun(_, _) -> stop end, []}),
    Old = whereis(?SERVICE:manager()),
    Monitor = erlang:monitor(process, Old),
    exit(Old, kill),
    receive
        {'DOWN', Monitor, _, _, _} -> ok
    end,
    timer:sleep(50),
    ok = logger:remove_handler_filter(default, ?MODULE),
    ?assert(partisan:is_alive()),
    ?assertNotEqual(Old, persistent_term:get({partisan_fake_nif, owner})).

refusals_test_() ->
    [
        {Name, fun() ->
            ok = ?FAKE:install(),
            _ = application:unload(partisan),
            ok = application:load(partisan),
            [ok = application:set_env(partisan, K, V) || {K, V} <- Env],
            ok = logger:add_handler_filter(default, ?MODULE, {fun(_, _) -> stop end, []}),
            ?FAKE:answer(start, {error, <<"address in use">>}),
            try
                {error, {partisan, {{partisan, Text}, _}}} = partisan:start(),
                ?assertNotEqual(nomatch, string:find(Text, Part))
            after
                ok = logger:remove_handler_filter(default, ?MODULE),
                ok = application:unload(partisan),
                ok = ?FAKE:remove()
            end
        end}
     || {Name, Env, Part} <- [
            {"TLS", [{cookie, c}, {tls, true}], "TLS is not built yet"},
            {"bad value", [{parallelism, none}], "parallelism must be an integer"},
            {"bad cookie", [{cookie, 1}], "cookie must be"},
            {"native library", [{cookie, c}], "address in use"}
        ]
    ].
