%% @doc Broadcasts among real nodes: who gets them, how often, and what holds through leaves, crashes and restarts.
%%
%% This module is also the handler: what it merges goes to the process `merged', and an exchange is a process
%% that waits.
-module(broadcast_SUITE).
-behaviour(partisan_plumtree_broadcast_handler).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-compile(export_all).

-import(partisan_ct, [call/4, run/2, seen/2, await/3, wait/1, name/1, spec/1]).

-define(BROADCAST, partisan_plumtree_broadcast).

suite() ->
    [{timetrap, {seconds, 180}}].

all() ->
    [
        all_members_once,
        identities,
        refused,
        leave_and_rejoin,
        manager_restart,
        crash_and_return,
        exchanges,
        exchange_limit,
        trees,
        heartbeats,
        hyparview,
        hyparview_leave
    ].

init_per_testcase(Case, Config) ->
    [{names, [node_of(Case, N) || N <- lists:seq(1, 12)]} | Config].

end_per_testcase(_, _) ->
    partisan_ct:stop_owned().

node_of(Case, N) ->
    list_to_atom(lists:concat([Case, N, "@127.0.0.1"])).

%%%-------------------------------------------------------------------------------------------
%%% The handler
%%%-------------------------------------------------------------------------------------------

broadcast_data({raise, Why}) -> error(Why);
broadcast_data({Id, Payload}) -> {Id, Payload}.

merge(_Id, raise) ->
    error(merge);
merge(Id, Payload) ->
    merged ! {merged, Id, Payload},
    true.

is_stale(_Id) -> error(never_called).
graft(_Id) -> error(never_called).

exchange(Peer) ->
    merged ! {exchange, Peer},
    {ok, spawn(fun() -> timer:sleep(infinity) end)}.

%%%-------------------------------------------------------------------------------------------
%%% What the cases share
%%%-------------------------------------------------------------------------------------------

start(Name) ->
    start(Name, #{}).

start(Name, Options) ->
    Env = [{broadcast_mods, [?MODULE]}, {exchange_tick_period, 60000}],
    Vm = partisan_ct:start_owned(Name, Options#{env => Env ++ maps:get(env, Options, []), start => false}),
    ok = partisan_ct:probe(Vm, merged),
    {ok, _} = call(Vm, partisan, start, []),
    Vm.

%% A full mesh.
cluster(Config, Count) ->
    cluster(Config, Count, []).

cluster(Config, Count, Env) ->
    [First | Rest] = Vms = [
        start(Name, #{env => Env}) || Name <- lists:sublist(?config(names, Config), Count)
    ],
    _ = [join(Vm, First) || Vm <- Rest],
    ok = connected(Vms),
    Vms.

join(Vm, Other) ->
    ok = call(Vm, partisan_peer_service, join, [spec(Other)]).

connected(Vms) ->
    Names = lists:sort([name(Vm) || Vm <- Vms]),
    wait(fun() ->
        lists:all(
            fun(Vm) ->
                {ok, Members} = call(Vm, partisan_peer_service, members, []),
                Members =:= Names andalso
                    lists:sort(call(Vm, partisan, nodes, [])) =:= Names -- [name(Vm)]
            end,
            Vms
        )
    end).

broadcast(Vm, Id, Payload) ->
    ok = call(Vm, partisan, broadcast, [{Id, Payload}, ?MODULE]).

got(Vm, Id) ->
    run(Vm, fun() -> [P || {merged, I, P} <- merged(), I =:= Id] end).

%% What the probe of this node has received. On the node: it may be much.
merged() ->
    partisan_ct:ask_probe(merged, seen).

arrives(Vms, Id) ->
    all_arrive(Vms, [Id]).

all_arrive(Vms, Ids) ->
    _ = [
        ok = wait(fun() -> run(Vm, fun() -> Ids -- [I || {merged, I, _} <- merged()] =:= [] end) end)
     || Vm <- Vms
    ],
    ok.

%% From each to all others.
reaches(Vms, What) ->
    _ = [broadcast(Vm, {What, name(Vm)}, What) || Vm <- Vms],
    _ = [ok = arrives([To || To <- Vms, To =/= From], {What, name(From)}) || From <- Vms],
    ok.

%%%-------------------------------------------------------------------------------------------
%%% Cases
%%%-------------------------------------------------------------------------------------------

all_members_once(Config) ->
    Vms = cluster(Config, 5),
    Payloads = [
        [],
        #{a => 1.5, <<"b">> => [x | y]},
        fun lists:sort/1,
        lists:seq(1, 3000),
        maps:from_list([{N, N} || N <- lists:seq(1, 300)]),
        binary:copy(<<"0123456789">>, 7000),
        binary:copy(<<"large">>, 300000)
    ],
    Sent = [{N, Payload} || {N, Payload} <- lists:enumerate(Payloads ++ Payloads ++ Payloads)],
    ok = partisan_ct:in_parallel([
        fun() -> _ = [broadcast(Vm, {name(Vm), N}, P) || {N, P} <- Sent] end
     || Vm <- Vms
    ]),
    _ = [
        ok = all_arrive([To], [{name(From), N} || From <- Vms, From =/= To, {N, _} <- Sent])
     || To <- Vms
    ],
    %% All is there; what would come a second time comes over the same links before this.
    ok = reaches(Vms, last),
    lists:foreach(
        fun(Vm) ->
            Expected = [{merged, {name(From), N}, P} || From <- Vms, From =/= Vm, {N, P} <- Sent],
            Last = [{merged, {last, name(From)}, last} || From <- Vms, From =/= Vm],
            Digests = run(Vm, fun() -> lists:sort([digest(M) || M <- merged()]) end),
            ?assertEqual(lists:sort([digest(M) || M <- Expected ++ Last]), Digests)
        end,
        Vms
    ).

digest({merged, Id, Payload}) ->
    {Id, erlang:phash2(Payload)}.

%% Pids and references arrive as those of messages do; with the encoding off they find home.
identities(Config) ->
    [A, B] = cluster(Config, 2),
    {PidRef, RefRef} = run(A, fun() ->
        Pid = whereis(merged),
        Ref = make_ref(),
        ok = partisan:broadcast({ids, {Pid, Ref}}, ?MODULE),
        {partisan_remote_ref:from_term(Pid), partisan_remote_ref:from_term(Ref)}
    end),
    ok = arrives([B], ids),
    ?assertEqual([{PidRef, RefRef}], got(B, ids)),
    partisan_ct:stop_owned(),
    [C, D] = cluster(
        [{names, [node_of(plain, 1), node_of(plain, 2)]}], 2, [{pid_encoding, false}, {ref_encoding, false}]
    ),
    ok = run(C, fun() ->
        [Self, Large] = [whereis(merged), lists:seq(1, 5000)],
        partisan:broadcast({ids, {Self, fun() -> {Self, Large} end}}, ?MODULE)
    end),
    ok = arrives([D], ids),
    ok = run(D, fun() ->
        [{Home, Fun}] = [P || {merged, ids, P} <- partisan_ct:ask_probe(merged, seen)],
        {Home, _} = Fun(),
        partisan:forward_message(Home, home)
    end),
    home = await(C, merged, fun(M) -> M =:= home end),
    ok.

refused(Config) ->
    [A, B] = cluster(Config, 2),
    ok = partisan_ct:keep_log(A),
    ok = partisan_ct:keep_log(B),
    Large = fun(Bytes) ->
        run(A, fun() -> partisan:broadcast({large, binary:copy(<<0>>, Bytes)}, ?MODULE) end)
    end,
    ?assertEqual({error, {limit, max_broadcast_bytes}}, Large(8 bsl 20)),
    ?assertEqual(ok, Large((8 bsl 20) - 1024)),
    ok = arrives([B], large),
    Deep = fun() ->
        partisan:broadcast({deep, lists:foldl(fun(_, T) -> {T} end, x, lists:seq(1, 100000))}, ?MODULE)
    end,
    ?assertEqual({error, {limit, depth}}, run(A, Deep)),
    %% What handlers raise harms nobody.
    ok = call(A, partisan, broadcast, [{raise, why}, ?MODULE]),
    ok = partisan_ct:await_line(A, "broadcast_SUITE:broadcast_data raised error:why"),
    ok = broadcast(A, raises, raise),
    ok = partisan_ct:await_line(B, "broadcast_SUITE:merge raised error:merge"),
    %% No module is called that is no handler.
    ok = call(A, ?MODULE, pretend, [maps, #{a => 1}]),
    ok = partisan_ct:await_line(B, "a broadcast is for maps, which is no handler"),
    ok = reaches([A, B], after_all),
    ok = call(A, partisan, stop, []),
    ?assertEqual({error, notalive}, call(A, partisan, broadcast, [{1, 1}, ?MODULE])).

%% Broadcasts what says that it is for another module. On the node.
pretend(Mod, Payload) ->
    Iov = term_to_iovec({partisan_broadcast, Mod, Payload, Payload}),
    {ok, Ready} = partisan_nif:payload(?BROADCAST, Iov, 0),
    partisan_pluggable_peer_service_manager:broadcast(Ready).

leave_and_rejoin(Config) ->
    [A, B, C] = Vms = cluster(Config, 3),
    ok = reaches(Vms, before),
    _ = [
        begin
            ok = call(C, partisan_peer_service, leave, []),
            ok = connected([C]),
            ok = connected([A, B]),
            ok = reaches([A, B], {without, Round}),
            ?assertEqual([], got(C, {{without, Round}, name(A)})),
            join(C, B),
            ok = connected(Vms),
            ok = reaches(Vms, {again, Round})
        end
     || Round <- [1, 2]
    ],
    %% Removed by another one.
    ok = call(A, partisan_peer_service, leave, [name(B)]),
    ok = connected([A, C]),
    ok = connected([B]),
    join(B, C),
    ok = connected(Vms),
    ok = reaches(Vms, last).

manager_restart(Config) ->
    [_, B, _] = Vms = cluster(Config, 3),
    ok = reaches(Vms, before),
    Old = call(B, erlang, whereis, [?BROADCAST]),
    ok = partisan_ct:kill_process(B, partisan_pluggable_peer_service_manager),
    ok = wait(fun() -> call(B, partisan, is_alive, []) end),
    ok = connected(Vms),
    ok = reaches(Vms, later),
    ?assertEqual(Old, call(B, erlang, whereis, [?BROADCAST])),
    %% The broadcast server itself may end, too.
    ok = partisan_ct:kill_process(B, ?BROADCAST),
    ok = wait(fun() -> call(B, erlang, whereis, [?BROADCAST]) =/= undefined end),
    ok = reaches(Vms, at_last).

crash_and_return(Config) ->
    [A, B, C] = Vms = cluster(Config, 3),
    ok = reaches(Vms, before),
    ok = partisan_ct:kill(C),
    ok = wait(fun() -> not lists:any(fun(V) -> call(V, partisan, is_connected, [name(C)]) end, [A, B]) end),
    ok = reaches([A, B], without),
    C2 = start(name(C), #{port => maps:get(port, C)}),
    ok = connected([A, B, C2]),
    ok = reaches([A, B, C2], again),
    %% Its first broadcast after the crash is not taken for one of its former life.
    ?assertEqual([again], got(A, {again, name(C)})),
    ?assertEqual([before], got(A, {before, name(C)})).

exchanges(Config) ->
    [A, B] = cluster(Config, 2, [{exchange_tick_period, 100}]),
    {exchange, Peer} = await(A, merged, fun(M) -> element(1, M) =:= exchange end),
    ?assertEqual(name(B), Peer),
    {exchange, _} = await(B, merged, fun(M) -> element(1, M) =:= exchange end),
    %% One at a time: the ticks go on.
    _ = partisan_ct:forget(A, merged),
    timer:sleep(350),
    ?assertEqual([], seen(A, merged)),
    Exchanges = fun() -> call(A, ?BROADCAST, exchanges, []) end,
    [{?MODULE, Peer, _, _} = One] = Exchanges(),
    ?assertEqual([One], call(A, partisan_peer_service, exchanges, [])),
    %% Of another node.
    NameA = name(A),
    ?assertMatch([{?MODULE, NameA, _, _}], call(A, ?BROADCAST, exchanges, [name(B)])),
    ?assertEqual({raised, not_yet_connected}, call(A, ?MODULE, caught, [exchanges, [nobody@nowhere]])),
    %% Cancelled, and begun again. Not all selectors fit.
    Cancel = fun(Selector) -> call(A, ?BROADCAST, cancel_exchanges, [Selector]) end,
    ?assertEqual([], Cancel({peer, name(A)})),
    ?assertEqual([], Cancel({mod, partisan_plumtree_backend})),
    ?assertEqual([], Cancel(call(A, erlang, make_ref, []))),
    ?assertEqual([One], Exchanges()),
    lists:foldl(
        fun(Select, Before) ->
            ?assertEqual([Before], Cancel(Select(Before))),
            ok = wait(fun() -> Exchanges() =/= [] end),
            [{_, _, _, Fresh} = Next] = Exchanges(),
            ?assertNotEqual(element(4, Before), Fresh),
            ?assertNot(call(A, erlang, is_process_alive, [element(4, Before)])),
            Next
        end,
        One,
        [
            fun(_) -> all end,
            fun(_) -> {peer, Peer} end,
            fun(_) -> {mod, ?MODULE} end,
            fun({_, _, R, _}) -> R end,
            fun({_, _, _, P}) -> P end
        ]
    ),
    %% One that ends by itself makes room.
    [{_, _, _, Last}] = Exchanges(),
    true = call(A, erlang, exit, [Last, kill]),
    ok = wait(fun() -> [P || {_, _, _, P} <- Exchanges(), P =/= Last] =/= [] end).

caught(Function, Args) ->
    try
        apply(?BROADCAST, Function, Args)
    catch
        error:Reason -> {raised, Reason}
    end.

exchange_limit(Config) ->
    [A, _] = cluster(Config, 2, [{exchange_tick_period, 50}, {broadcast_start_exchange_limit, 0}]),
    timer:sleep(300),
    ?assertEqual([], seen(A, merged)),
    ok = call(A, partisan_config, set, [broadcast_start_exchange_limit, 1]),
    _ = await(A, merged, fun(M) -> element(1, M) =:= exchange end),
    ?assertMatch([_], call(A, ?BROADCAST, exchanges, [])).

trees(Config) ->
    [A | Others] = Vms = cluster(Config, 4),
    Names = [name(Vm) || Vm <- Vms],
    %% The first broadcast floods; what comes twice is pruned.
    _ = [
        begin
            broadcast(A, N, tree),
            ok = arrives(Others, N)
        end
     || N <- lists:seq(1, 5)
    ],
    Tree = fun() -> call(A, ?BROADCAST, debug_get_tree, [name(A), Names]) end,
    Edges = fun(Parts) -> lists:usort([lists:sort([N, E]) || {N, {Eager, _}} <- Parts, E <- Eager]) end,
    ok = wait(fun() -> length(Edges(Tree())) =:= length(Vms) - 1 end),
    Parts = Tree(),
    ?assertEqual(Names, [N || {N, _} <- Parts]),
    _ = [?assertEqual(lists:sort(Names) -- [N], lists:sort(E ++ L)) || {N, {E, L}} <- Parts],
    _ = [
        begin
            ?assertEqual({E, L}, call(Vm, ?BROADCAST, get_peers, [name(A)])),
            ?assertEqual(E, call(Vm, ?BROADCAST, get_eager_peers, [name(A)])),
            ?assertEqual(L, call(Vm, ?BROADCAST, get_lazy_peers, [name(A)])),
            ?assertEqual({E, L}, call(A, ?BROADCAST, debug_get_peers, [name(Vm), name(A)]))
        end
     || {Vm, {_, {E, L}}} <- lists:zip(Vms, Parts)
    ],
    [B | _] = Others,
    Root = name(A),
    ?assertMatch({_, _, #{name := Root}}, call(B, ?BROADCAST, get_peers, [name(A), [name]])),
    [{_, down}, {_, {_, _, #{connection_count := Count}}}] =
        call(A, ?BROADCAST, debug_get_tree, [name(A), ['nobody@127.0.0.1', name(B)], [connection_count], 5000]),
    ?assert(Count >= 3),
    ?assertEqual(lists:sort(Names), call(A, partisan_peer_service, broadcast_members, [])),
    ?assertEqual(lists:sort(Names), call(A, partisan_peer_service, broadcast_members, [1000])),
    ?assertEqual(undefined, call(A, ?BROADCAST, broadcast_channel, [?MODULE])),
    ?assertEqual(partisan_membership, call(A, ?BROADCAST, broadcast_channel, [partisan_plumtree_backend])).

heartbeats(Config) ->
    Vms = cluster(Config, 3, [{broadcast, true}, {broadcast_heartbeat_interval, 100}]),
    Names = lists:sort([name(Vm) || Vm <- Vms]),
    _ = [
        ok = wait(fun() ->
            Seen = call(Vm, partisan_plumtree_backend, timestamps, []),
            lists:sort([N || {N, _, _} <- Seen]) =:= Names andalso
                lists:all(fun({_, _, Number}) -> Number >= 3 end, Seen)
        end)
     || Vm <- Vms
    ],
    ok.

%%%-------------------------------------------------------------------------------------------
%%% HyParView
%%%-------------------------------------------------------------------------------------------

%% Each node joins one that is there already.
views(Config, Count) ->
    Env = [
        {peer_service_manager, partisan_hyparview_peer_service_manager},
        {hyparview, [{max_active_size, 5}, {shuffle_interval, 300}, {xbot_enabled, true}, {xbot_interval, 500}]}
    ],
    Vms = [start(Name, #{env => Env}) || Name <- lists:sublist(?config(names, Config), Count)],
    _ = [
        ok = call(Vm, partisan_peer_service, sync_join, [spec(lists:nth((N + 1) div 2, Vms))])
     || {N, Vm} <- lists:enumerate(0, Vms), N > 0
    ],
    Vms.

view(Vm) ->
    {ok, Members} = call(Vm, partisan_peer_service, members, []),
    ?assert(lists:member(name(Vm), Members)),
    Members -- [name(Vm)].

%% Each node has neighbours, as many as it may, and is one of theirs.
settled(Vms, Least) ->
    wait(fun() ->
        Views = maps:from_list([{name(Vm), view(Vm)} || Vm <- Vms]),
        lists:all(
            fun({Name, View}) ->
                length(View) >= Least andalso
                    lists:all(fun(N) -> lists:member(Name, maps:get(N, Views, [])) end, View)
            end,
            maps:to_list(Views)
        )
    end).

hyparview(Config) ->
    ct:timetrap({seconds, 120}),
    [A | Others] = Vms = views(Config, 12),
    ?assertEqual(partisan_hyparview_peer_service_manager, call(A, partisan_peer_service, manager, [])),
    ok = settled(Vms, 2),
    _ = [?assert(length(view(Vm)) =< 4) || Vm <- Vms],
    ok = reaches(Vms, all),
    _ = [?assertEqual([all], got(Vm, {all, name(A)})) || Vm <- Others],
    %% Broadcasts go to neighbours only.
    _ = [
        begin
            {Eager, Lazy} = call(Vm, ?BROADCAST, get_peers, [name(A)]),
            ?assert(length(Eager) + length(Lazy) =< 4)
        end
     || Vm <- Vms
    ],
    {Dead, Living} = lists:split(4, Others),
    _ = [ok = partisan_ct:kill(Vm) || Vm <- Dead],
    ok = reaches([A | Living], survivors),
    ok = settled([A | Living], 2),
    ok = reaches([A | Living], later).

hyparview_leave(Config) ->
    [A, B, C] = Vms = views(Config, 3),
    ok = partisan_ct:probe(A, watch),
    ok = partisan_ct:inside(A, watch, fun() ->
        Watch = self(),
        ok = partisan_peer_service:on_up('_', fun(Node) -> Watch ! {up, Node} end),
        ok = partisan_peer_service:on_down('_', fun(Node) -> Watch ! {down, Node} end)
    end),
    ok = settled(Vms, 2),
    ok = reaches(Vms, before),
    ?assertMatch({error, _}, call(A, partisan_peer_service, leave, [name(C)])),
    ok = call(C, partisan_peer_service, leave, []),
    ok = wait(fun() -> view(C) =:= [] andalso view(A) =:= [name(B)] andalso view(B) =:= [name(A)] end),
    Gone = {down, name(C)},
    Gone = await(A, watch, fun(M) -> M =:= Gone end),
    ok = reaches([A, B], without),
    ok = call(C, partisan_hyparview_peer_service_manager, sync_join, [spec(A)]),
    ok = settled(Vms, 2),
    Back = {up, name(C)},
    Back = await(A, watch, fun(M) -> M =:= Back end),
    ok = reaches(Vms, again).
