%% @doc The functions of `partisan', `partisan_peer_service' and `partisan_config' but for those
%% that send, on real nodes.
%%
%% Two nodes, `a' and `b', live as long as the suite; cases that stop nodes have their own.
-module(api_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-compile(export_all).

-define(A, 'a@127.0.0.1').
-define(B, 'b@127.0.0.1').
-define(NOBODY, 'nobody@127.0.0.1').

-import(partisan_ct, [call/4, run/2, probe/2, inside/3, await/3, seen/2, forget/2, with/2]).

suite() ->
    [{timetrap, {seconds, 180}}].

all() ->
    [
        start_stop,
        names_and_nodes,
        specifications,
        connectedness,
        monitor_node,
        monitor_nodes,
        on_up_and_down,
        process_alive,
        processes_and_references,
        peer_service,
        membership_events,
        disconnect_node,
        configuration,
        network_monitor
    ].

init_per_suite(Config) ->
    {A, B} = partisan_ct:pair(?A, ?B, [{channels, [{bulk, #{parallelism => 3}}]}]),
    [{a, A}, {b, B} | Config].

end_per_suite(Config) ->
    ok = partisan_ct:stop(?config(a, Config)),
    ok = partisan_ct:stop(?config(b, Config)).

init_per_testcase(_, Config) ->
    ok = partisan_ct:fresh_pair(?config(a, Config), ?config(b, Config)),
    Config.

is(Value) ->
    fun(Message) -> Message =:= Value end.

%%%-------------------------------------------------------------------------------------------
%%% The application
%%%-------------------------------------------------------------------------------------------

start_stop(_) ->
    with([{'s@127.0.0.1', #{start => false}}], fun([S]) ->
        false = call(S, partisan, is_alive, []),
        {ok, Started} = call(S, partisan, start, []),
        true = lists:member(partisan, Started),
        true = call(S, partisan, is_alive, []),
        {ok, []} = call(S, partisan, start, []),
        ok = call(S, partisan, stop, []),
        false = call(S, partisan, is_alive, []),
        [] = call(S, partisan, nodes, []),
        {error, notalive} = call(S, partisan, forward_message, [?A, x, hello, #{}]),
        ok = call(S, partisan, cast_message, [?A, x, hello, #{}]),
        {ok, _} = call(S, partisan, start, []),
        {error, not_yet_connected} = call(S, partisan, forward_message, [?A, x, hello, #{}])
    end).

%%%-------------------------------------------------------------------------------------------
%%% Nodes
%%%-------------------------------------------------------------------------------------------

names_and_nodes(Config) ->
    A = ?config(a, Config),
    ?A = call(A, partisan, node, []),
    <<"a@127.0.0.1">> = call(A, partisan, nodestring, []),
    ?A = run(A, fun() -> partisan:node(self()) end),
    ?A = run(A, fun() -> partisan:node(make_ref()) end),
    ?A = run(A, fun() -> partisan:node(hd(erlang:ports())) end),
    ?A = run(A, fun() -> partisan:node(partisan:self()) end),
    ?B = run(A, fun() -> partisan:node(partisan_remote_ref:from_term({x, ?B})) end),
    ?assertError(badarg, run(A, fun() -> partisan:node("no reference") end)),
    [?B] = call(A, partisan, nodes, []),
    [?B] = call(A, partisan, nodes, [visible]),
    [?B] = call(A, partisan, nodes, [connected]),
    [] = call(A, partisan, nodes, [hidden]),
    [?A] = call(A, partisan, nodes, [this]),
    [?A, ?B] = call(A, partisan, nodes, [known]),
    [?A, ?B, ?A, ?B] = call(A, partisan, nodes, [[this, visible, known]]),
    ?assertError(badarg, run(A, fun() -> partisan:nodes(strange) end)).

specifications(Config) ->
    A = ?config(a, Config),
    B = ?config(b, Config),
    #{name := ?B, listen_addrs := [Addr], channels := Channels} =
        Spec = call(B, partisan, node_spec, []),
    #{ip := {127, 0, 0, 1}, port := Port} = Addr,
    Port = maps:get(port, B),
    #{undefined := #{parallelism := 1}, bulk := #{parallelism := 3}} = Channels,
    true = is_map_key(partisan_membership, Channels),
    {ok, Spec} = call(A, partisan, node_spec, [?B]),
    {ok, Spec} = call(A, partisan, node_spec, [<<"b@127.0.0.1">>]),
    {ok, Spec} = call(A, partisan, node_spec, ["b@127.0.0.1"]),
    {ok, Spec} = call(A, partisan, node_spec, [?B, #{rpc_timeout => 1000}]),
    {ok, Own} = call(A, partisan, node_spec, [?A]),
    Own = call(A, partisan, node_spec, []),
    {error, not_yet_connected} = call(A, partisan, node_spec, [?NOBODY]),
    {error, not_yet_connected} = call(A, partisan, node_spec, ["never heard of@127.0.0.1"]),
    Info = call(A, partisan, node_info, [[name, channels, listen_addrs, listen_ip, listen_port,
                                          metadata, connection_count, strange]]),
    #{name := ?A, listen_ip := {127, 0, 0, 1}, metadata := #{}, connection_count := Count} = Info,
    false = is_map_key(strange, Info),
    {ok, Connections} = call(A, partisan_peer_service, connections, []),
    Count = length(Connections),
    #{} = call(A, partisan, node_info, [[]]),
    undefined = call(A, partisan, default_channel, []),
    #{parallelism := 3} = call(A, partisan, channel_opts, [bulk]),
    ?assertError(badarg, run(A, fun() -> partisan:channel_opts(strange) end)).

connectedness(Config) ->
    A = ?config(a, Config),
    Spec = partisan_ct:spec(?config(b, Config)),
    Elsewhere = Spec#{listen_addrs := [#{ip => {127, 0, 0, 1}, port => 1}]},
    [true, true, true, false, false] =
        [call(A, partisan, is_connected, [N]) || N <- [?A, ?B, Spec, Elsewhere, ?NOBODY]],
    [true, true, true, false, false] =
        [call(A, partisan, is_fully_connected, [N]) || N <- [?A, ?B, Spec, Elsewhere, ?NOBODY]],
    Channels = [undefined, bulk, partisan_membership, strange, [strange, bulk], [strange], []],
    [true, true, true, false, true, false, false] =
        [call(A, partisan, is_connected, [?B, C]) || C <- Channels],
    true = call(A, partisan, is_connected, [Spec, bulk]),
    false = call(A, partisan, is_connected, [Spec, strange]).

%%%-------------------------------------------------------------------------------------------
%%% Being told
%%%-------------------------------------------------------------------------------------------

%% Breaks the session of a and b and waits until it is there again.
bounce(Config) ->
    A = ?config(a, Config),
    B = ?config(b, Config),
    ok = probe(A, bounce),
    ok = inside(A, bounce, fun() -> partisan:monitor_nodes(true) end),
    ok = call(A, partisan, kill_connections, [?B]),
    _ = await(A, bounce, is({nodeup, ?B})),
    [{nodedown, ?B}, {nodeup, ?B}] = seen(A, bounce),
    ok = partisan_ct:wait(fun() -> call(B, partisan, is_connected, [?A]) end),
    ok = partisan_ct:kill_process(A, bounce).

monitor_node(Config) ->
    A = ?config(a, Config),
    Spec = partisan_ct:spec(?config(b, Config)),
    Monitor = fun(Args) -> inside(A, probe, fun() -> apply(partisan, monitor_node, Args) end) end,
    %% Not connected: at once. This node: never.
    true = Monitor([?NOBODY, true]),
    _ = await(A, probe, is({nodedown, ?NOBODY})),
    true = Monitor([?A, true]),
    %% Twice is once, and then it is over.
    true = Monitor([?B, true]),
    true = Monitor([Spec, true]),
    true = Monitor([?B, true, [allow_passive_connect]]),
    ok = bounce(Config),
    _ = await(A, probe, is({nodedown, ?B})),
    ok = bounce(Config),
    [{nodedown, ?NOBODY}, {nodedown, ?B}] = forget(A, probe),
    %% Withdrawn.
    true = Monitor([?B, true]),
    true = Monitor([?B, false]),
    ok = bounce(Config),
    [] = seen(A, probe).

monitor_nodes(Config) ->
    A = ?config(a, Config),
    Do = fun(Args) -> inside(A, probe, fun() -> apply(partisan, monitor_nodes, Args) end) end,
    error = Do([true, [strange]]),
    ok = Do([true, [{node_type, hidden}]]),
    ok = bounce(Config),
    [] = forget(A, probe),
    ok = Do([true, [nodedown_reason, {node_type, all}]]),
    ok = bounce(Config),
    _ = await(A, probe, is({nodeup, ?B, []})),
    [{nodedown, ?B, [{nodedown_reason, noconnection}]}, {nodeup, ?B, []}] = forget(A, probe),
    ok = Do([true]),
    ok = bounce(Config),
    ok = partisan_ct:wait(fun() -> length(seen(A, probe)) =:= 4 end),
    [{nodedown, ?B}, {nodeup, ?B}] = [M || M <- seen(A, probe), tuple_size(M) =:= 2],
    _ = forget(A, probe),
    ok = Do([false, [nodedown_reason]]),
    ok = bounce(Config),
    _ = await(A, probe, is({nodeup, ?B})),
    [{nodedown, ?B}, {nodeup, ?B}] = forget(A, probe),
    ok = Do([false]),
    ok = bounce(Config),
    [] = seen(A, probe).

on_up_and_down(Config) ->
    A = ?config(a, Config),
    Spec = partisan_ct:spec(?config(b, Config)),
    Tell = fun(What) -> probe ! What end,
    Register = fun(F, Args) -> ok = call(A, partisan_peer_service, F, Args) end,
    _ = [
        begin
            Register(F, [?B, fun() -> Tell({F, 0}) end]),
            Register(F, ["b@127.0.0.1", fun(N) -> Tell({F, 1, N}) end]),
            Register(F, ['_', fun(N, C) -> Tell({F, 2, N, C}) end]),
            Register(F, [any, fun(N, C) -> Tell({F, bulk, N, C}) end, #{channel => bulk}]),
            Register(F, [Spec, fun() -> Tell({F, list}) end, [{channel, bulk}]]),
            Register(F, [?B, fun() -> Tell(never) end, #{channel => strange}]),
            Register(F, [?NOBODY, fun() -> Tell(never) end]),
            Register(F, [?B, fun() -> error(on_purpose) end]),
            Register(F, [?B, fun() -> Tell({F, last}) end])
        end
     || F <- [on_up, on_down]
    ],
    ok = run(A, fun() ->
        _ = [
            {'EXIT', {badarg, _}} = (catch apply(partisan_peer_service, on_up, Args))
         || Args <- [
                [?B, not_a_fun],
                [?B, fun(_, _, _) -> ok end],
                [?B, fun() -> ok end, #{channel => "x"}]
            ]
        ],
        ok
    end),
    ok = bounce(Config),
    _ = await(A, probe, is({on_up, last})),
    Once = fun(F) ->
        [{F, 0}, {F, 1, ?B}, {F, 2, ?B, undefined}, {F, bulk, ?B, bulk}, {F, list}, {F, last}]
    end,
    ?assertEqual(Once(on_down) ++ Once(on_up), forget(A, probe)),
    ok = partisan_ct:await_line(A, "on_purpose"),
    %% They stay.
    ok = bounce(Config),
    _ = await(A, probe, is({on_up, last})),
    ?assertEqual(Once(on_down) ++ Once(on_up), seen(A, probe)).

membership_events(_) ->
    with([{'e1@127.0.0.1', #{}}, {'e2@127.0.0.1', #{}}], fun([E1, E2]) ->
        ok = probe(E1, probe),
        _ = inside(E1, probe, fun() ->
            partisan_peer_service:add_sup_callback(fun(Members) -> probe ! {members, Members} end)
        end),
        ok = partisan_ct:join(E1, E2),
        {members, Members} = await(E1, probe, fun
            ({members, M}) -> length(M) =:= 2;
            (_) -> false
        end),
        ['e1@127.0.0.1', 'e2@127.0.0.1'] =
            lists:sort(call(E1, partisan_peer_service, decode, [Members])),
        Members = lists:sort(Members),
        ok = call(E2, partisan_peer_service, leave, []),
        _ = await(E1, probe, fun
            ({members, M}) -> length(M) =:= 1;
            (_) -> false
        end)
    end).

%%%-------------------------------------------------------------------------------------------
%%% Processes and references
%%%-------------------------------------------------------------------------------------------

process_alive(Config) ->
    A = ?config(a, Config),
    B = ?config(b, Config),
    Alive = inside(B, probe, fun() -> partisan:self() end),
    Dead = run(B, fun() -> partisan:self() end),
    true = call(A, partisan, is_process_alive, [Alive]),
    ok = partisan_ct:wait(fun() -> not call(A, partisan, is_process_alive, [Dead]) end),
    true = run(A, fun() -> partisan:is_process_alive(self()) end),
    true = run(A, fun() -> partisan:is_process_alive(partisan:self()) end),
    ok = run(A, fun() ->
        Own = list_to_binary(pid_to_list(self())),
        {'EXIT', {not_yet_connected, _}} =
            (catch partisan:is_process_alive([?NOBODY | <<"#Pid", Own/binary>>])),
        _ = [
            {'EXIT', {badarg, _}} = (catch partisan:is_process_alive(X))
         || X <- [name, 17, partisan:make_ref(), partisan_remote_ref:from_term({x, ?B})]
        ],
        ok
    end).

processes_and_references(Config) ->
    A = ?config(a, Config),
    Foreign = inside(?config(b, Config), probe, fun() -> partisan:self() end),
    ok = run(A, fun() ->
        true = register(me, self()),
        _ = [
            begin
                ok = partisan_config:set(remote_ref_format, Format),
                _ = erase({partisan, self}),
                Self = partisan:self(),
                Self = partisan:self([]),
                Self = partisan:self([cache]),
                Self = partisan:self([cache]),
                Ref = partisan:make_ref(),
                Me = partisan_remote_ref:from_term(me),
                [true, true, false, false] = [partisan:is_pid(X) || X <- [Self, self(), Ref, [1, 2]]],
                [true, true, false, false] =
                    [partisan:is_reference(X) || X <- [Ref, make_ref(), Self, [1, 2]]],
                [true, true, true, false] = [partisan:is_local(X) || X <- [Self, Ref, Me, Foreign]],
                [true, true, false] = [partisan:is_local_pid(X) || X <- [Self, self(), Foreign]],
                true = partisan:is_local_pid(Self, self()),
                true = partisan:is_local_pid(Me, self()),
                false = partisan:is_local_pid(Foreign, self()),
                true = partisan:is_local_reference(Ref),
                Native = partisan_remote_ref:to_reference(Ref),
                true = partisan:is_local_reference(Ref, Native),
                false = partisan:is_local_reference(Ref, make_ref()),
                [true, true, false] = [partisan:is_local_name(X) || X <- [me, Me, Self]],
                true = partisan:is_local_name(Me, me),
                false = partisan:is_local_name(Me, other),
                [true, true, false] = [partisan:is_self(X) || X <- [Self, self(), Foreign]],
                true = partisan_remote_ref:to_pid(Self) =:= self(),
                true = partisan:whereis(me) =:= self(),
                true = partisan:whereis(Me) =:= self(),
                {'EXIT', {badarg, _}} = (catch partisan:whereis(Foreign)),
                {'EXIT', {badarg, _}} = (catch partisan_remote_ref:to_term(Foreign)),
                {encoded_pid, _} = partisan_remote_ref:target(Foreign),
                ?B = partisan_remote_ref:node(Foreign),
                true = partisan_remote_ref:is_identical(Self, Me)
            end
         || Format <- [uri, tuple, improper_list]
        ],
        undefined = partisan:whereis(nobody),
        ok
    end).

%%%-------------------------------------------------------------------------------------------
%%% The peer service
%%%-------------------------------------------------------------------------------------------

peer_service(Config) ->
    A = ?config(a, Config),
    Service = fun(F, Args) -> call(A, partisan_peer_service, F, Args) end,
    partisan_pluggable_peer_service_manager = Service(manager, []),
    {ok, [?A, ?B]} = Service(members, []),
    {ok, Specs} = Service(members_for_orchestration, []),
    [?A, ?B] = lists:sort([Name || #{name := Name} <- Specs]),
    {ok, State} = Service(get_local_state, []),
    [?A, ?B] = lists:sort(Service(decode, [State])),
    [Own] = [S || #{name := ?A} = S <- Specs],
    [Spec] = [S || #{name := ?B} = S <- Specs],
    Names = [?A, ?B, Spec, <<"b@127.0.0.1">>, "b@127.0.0.1", ?NOBODY, "who@127.0.0.1"],
    [true, true, true, true, true, false, false] = [Service(member, [N]) || N <- Names],
    {error, self_join} = Service(join, [Own]),
    {error, self_join} = Service(sync_join, [Own]),
    {error, self_join} = call(A, partisan, join, [?A]),
    {error, not_yet_connected} = Service(join, [?NOBODY]),
    %% A member joins at once, by name too.
    ok = Service(sync_join, [?B]),
    ok = Service(join, ["b@127.0.0.1"]),
    ?assertError(badarg, run(A, fun() -> partisan_peer_service:join(#{name => x}) end)),
    {error, not_a_member} = Service(leave, ["who@127.0.0.1"]),
    ok = Service(update_members, [[]]),
    ok = Service(update_members, [Specs]),
    {ok, [?A, ?B]} = Service(members, []),
    {ok, Connections} = Service(connections, []),
    [
        {?B, bulk}, {?B, bulk}, {?B, bulk}, {?B, partisan_membership}, {?B, undefined}
    ] = lists:sort([
        begin
            true = is_integer(Time),
            #{ip := {127, 0, 0, 1}, port := _} = Addr,
            {Node, Channel}
        end
     || {partisan_peer_connection, _, Node, Channel, Addr, Time} <- Connections
    ]).

disconnect_node(_) ->
    with([{'d1@127.0.0.1', #{}}, {'d2@127.0.0.1', #{}}], fun([D1, D2]) ->
        ok = partisan_ct:join(D1, D2),
        false = call(D1, partisan, disconnect_node, [?NOBODY]),
        true = call(D1, partisan, disconnect_node, ['d2@127.0.0.1']),
        ok = partisan_ct:wait(fun() ->
            call(D2, partisan, nodes, []) =:= [] andalso
                call(D2, partisan_peer_service, members, []) =:= {ok, ['d2@127.0.0.1']}
        end),
        false = call(D1, partisan, disconnect_node, ['d2@127.0.0.1']),
        %% Leaving through the facade.
        ok = partisan_ct:join(D2, D1),
        ok = call(D1, partisan, leave, []),
        ok = partisan_ct:wait(fun() -> call(D2, partisan, nodes, [known]) =:= ['d2@127.0.0.1'] end)
    end).

%%%-------------------------------------------------------------------------------------------
%%% The rest
%%%-------------------------------------------------------------------------------------------

configuration(Config) ->
    A = ?config(a, Config),
    ok = run(A, fun() ->
        ?A = partisan_config:get(name),
        {'EXIT', {badarg, _}} = (catch partisan_config:get(never_set)),
        default = partisan_config:get(never_set, default),
        given = partisan_config:get_with_opts(name, #{name => given}),
        ?A = partisan_config:get_with_opts(name, []),
        default = partisan_config:get_with_opts(never_set, [], default),
        ok = partisan_config:set(metadata, #{n => 1}),
        ok = partisan_config:set(metadata, fun(#{n := N}) -> #{n => N + 1} end),
        #{n := 2} = partisan_config:get(metadata),
        {ok, #{n := 2}} = application:get_env(partisan, metadata),
        ok = partisan_config:init(),
        ok = partisan_config:init(),
        #{n := 2} = partisan_config:get(metadata),
        [#{ip := {127, 0, 0, 1}, port := Port}] = partisan_config:listen_addrs(),
        true = Port > 0,
        #{bulk := #{parallelism := 3}} = partisan_config:channels(),
        #{parallelism := 3} = partisan_config:channel_opts(bulk),
        {'EXIT', {badarg, _}} = (catch partisan_config:channel_opts(strange)),
        undefined = partisan_config:default_channel(),
        #{parallelism := 1} = partisan_config:default_channel_opts(),
        1 = partisan_config:parallelism(),
        ok = partisan_config:seed({1, 2, 3}),
        First = rand:uniform(1000000),
        ok = partisan_config:seed({1, 2, 3}),
        First = rand:uniform(1000000),
        ok = partisan_config:seed(),
        ok = partisan_config:trace("~p", [x]),
        {'EXIT', {{invalid_config, parallelism, 0, _}, _}} = (catch partisan_config:set(parallelism, 0)),
        ok
    end).

network_monitor(Config) ->
    A = ?config(a, Config),
    true = lists:member(call(A, partisan_inet, net_status, []), [connected, disconnected]),
    ok = inside(A, probe, fun() -> partisan_inet:monitor(true) end),
    ok = inside(A, probe, fun() -> partisan_inet:monitor(false) end).
