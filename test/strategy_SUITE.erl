%% @doc Membership strategies on real nodes: the ring of `examples/ring_strategy', and SCAMP.
%%
%% This module is a strategy too: one that does what the test case tells it.
-module(strategy_SUITE).
-behaviour(partisan_membership_strategy).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-compile(export_all).

-import(partisan_ct, [call/4, run/2, seen/2, wait/1, wait/2, name/1, spec/1, sync_join/2]).

-define(HOST, partisan_membership_strategy_host).

suite() ->
    [{timetrap, {seconds, 240}}].

all() ->
    [ring, ring_leave, ring_failure, update_members, callbacks, messages, crash, refused, switched, scamp].

init_per_testcase(Case, Config) ->
    [{prefix, Case} | Config].

end_per_testcase(_, _) ->
    partisan_ct:stop_owned().

%%%-------------------------------------------------------------------------------------------
%%% What the cases share
%%%-------------------------------------------------------------------------------------------

start(Config, N, Env) ->
    start(Config, N, #{}, Env).

start(Config, N, Options, Env) ->
    Name = list_to_atom(lists:concat([?config(prefix, Config), N, "@127.0.0.1"])),
    broadcast_SUITE:start(Name, Options#{env => [{periodic_interval, 500} | Env]}).

ring_of(Config, Count) ->
    Vms = [start(Config, N, ring_env()) || N <- lists:seq(1, Count)],
    [First | Rest] = Vms,
    _ = [ok = sync_join(Vm, First) || Vm <- Rest],
    ok = is_ring(Vms),
    Vms.

ring_env() ->
    Ping = #{idle_timeout => 1000, timeout => 500, max_attempts => 3},
    [{membership_strategy, ring_strategy}, {connection_ping, Ping}].

members(Vm) ->
    {ok, Members} = call(Vm, partisan_peer_service, members, []),
    Members.

%% Each has the one before and the one after it, in the order of names.
is_ring(Vms) ->
    Names = lists:sort([name(Vm) || Vm <- Vms]),
    Shifted = tl(Names) ++ [hd(Names)],
    Next = maps:from_list(lists:zip(Names, Shifted)),
    Previous = maps:from_list(lists:zip(Shifted, Names)),
    Closed = fun(Vm) ->
        Name = name(Vm),
        Expected = lists:usort([Name, maps:get(Name, Next), maps:get(Name, Previous)]),
        members(Vm) =:= Expected andalso eager_and_lazy(Vm) =:= Expected -- [Name]
    end,
    try
        wait(fun() -> lists:all(Closed, Vms) end)
    catch
        error:timeout:Stack ->
            _ = [ct:pal("~p:~n~p~n~p", [name(Vm), eager_and_lazy(Vm), call(Vm, sys, get_state, [?HOST])]) || Vm <- Vms],
            erlang:raise(error, no_ring, Stack)
    end.

%% Those with whom broadcasts are exchanged.
eager_and_lazy(Vm) ->
    {Eager, Lazy} = call(Vm, partisan_plumtree_broadcast, get_peers, [name(Vm)]),
    lists:sort(Eager ++ Lazy).

%%%-------------------------------------------------------------------------------------------
%%% The ring
%%%-------------------------------------------------------------------------------------------

ring(Config) ->
    [A, _, C, _, _] = Vms = ring_of(Config, 5),
    ok = broadcast_SUITE:reaches(Vms, around),
    %% Not next to each other.
    ?assertNot(lists:member(name(C), members(A))),
    ok = partisan_ct:probe(C, probe),
    ok = call(A, partisan, forward_message, [{probe, name(C)}, {hello, 1}]),
    {hello, 1} = partisan_ct:await(C, probe, fun(M) -> M =:= {hello, 1} end),
    ?assertEqual(partisan_pluggable_peer_service_manager, call(A, partisan_peer_service, manager, [])),
    {ok, #{overlay := <<"strategy:ring_strategy">>}} = call(A, partisan_peer_service, overlay, []),
    ?assertEqual({error, self_join}, sync_join(A, A)).

ring_leave(Config) ->
    [A, B, C, D] = ring_of(Config, 4),
    ok = call(B, partisan_peer_service, leave, []),
    ok = is_ring([A, C, D]),
    ok = is_ring([B]),
    ok = sync_join(B, D),
    ok = is_ring([A, B, C, D]),
    %% It is told, and leaves.
    ok = call(A, partisan_peer_service, leave, [name(D)]),
    ok = is_ring([A, B, C]),
    ok = is_ring([D]),
    ?assertEqual({error, not_a_member}, call(A, partisan_peer_service, leave, ['nobody@127.0.0.1'])),
    ok = broadcast_SUITE:reaches([A, B, C], without).

ring_failure(Config) ->
    [A, B, C, D, E] = ring_of(Config, 5),
    ok = partisan_ct:kill(B),
    ok = partisan_ct:kill(C),
    ok = is_ring([A, D, E]),
    ok = broadcast_SUITE:reaches([A, D, E], survivors),
    %% It has forgotten everything, and is called back.
    Again = start(Config, 2, maps:with([port], B), ring_env()),
    ok = is_ring([A, Again, D, E]),
    %% One that was only away: the others have a ring without it, and then one with it.
    OsPid = partisan_ct:os_pid(D),
    _ = os:cmd("kill -STOP " ++ OsPid),
    ok = is_ring([A, Again, E]),
    _ = os:cmd("kill -CONT " ++ OsPid),
    ok = is_ring([A, Again, D, E]),
    ok = broadcast_SUITE:reaches([A, Again, D, E], again).

update_members(Config) ->
    [A, B, C] = ring_of(Config, 3),
    D = start(Config, 4, [{membership_strategy, ring_strategy}]),
    ok = call(A, partisan_peer_service, update_members, [[spec(Vm) || Vm <- [A, B, D]]]),
    ok = is_ring([A, B, D]),
    ok = is_ring([C]).

%%%-------------------------------------------------------------------------------------------
%%% A strategy that is told what to do
%%%-------------------------------------------------------------------------------------------

init(_) ->
    {ok, [partisan:node_spec()], {[partisan:node_spec()], application:get_env(partisan, test_tag, none)}}.

join(Spec, PeerState, {Members, Tag}) ->
    note({join, maps:get(name, Spec), PeerState}),
    result([Spec | Members], [], Tag).

leave(#{name := Node}, {Members, Tag}) ->
    note({leave, Node}),
    result([Spec || #{name := Name} = Spec <- Members, Name =/= Node], [{N, {membership_strategy, {bye, Node}}} || #{name := N} <- Members], Tag).

periodic({Members, Tag}) ->
    result(Members, [], Tag).

handle_message({do, Members, Outgoing}, {_, Tag}) -> result(Members, Outgoing, Tag);
handle_message({fail, Why}, _) -> error(Why);
handle_message(Message, {Members, Tag}) ->
    note({message, Message}),
    result(Members, [], Tag).

node_up(#{name := Node}, {Members, Tag}) ->
    note({up, Node}),
    result(Members, [], Tag).

node_down(Node, {Members, Tag}) ->
    note({down, Node}),
    result(Members, [], Tag).

result(Members, Outgoing, Tag) ->
    {ok, Members, Outgoing, {Members, Tag}}.

note(What) ->
    catch notes ! What.

%% Through the strategy's own door.
do(Vm, Members, Outgoing) ->
    Specs = [call(V, partisan, node_spec, []) || V <- Members],
    run(Vm, fun() -> ?HOST ! {?HOST, ?MODULE, {message, {do, Specs, Outgoing}}}, ok end).

told(Config, Count) ->
    [
        begin
            Vm = start(Config, N, [{membership_strategy, ?MODULE}, {test_tag, N}]),
            ok = partisan_ct:probe(Vm, notes),
            Vm
        end
     || N <- lists:seq(1, Count)
    ].

noted(Vm, Note) ->
    wait(fun() -> lists:member(Note, seen(Vm, notes)) end).

callbacks(Config) ->
    [A, B, C] = told(Config, 3),
    ok = sync_join(A, B),
    %% With the other's state; and this was before sync_join returned.
    [SpecB] = [S || {join, _, {[S], 2}} <- seen(A, notes)],
    ?assertEqual(name(B), maps:get(name, SpecB)),
    ?assertEqual(lists:sort([name(A), name(B)]), members(A)),
    ok = noted(A, {up, name(B)}),
    ok = noted(B, {up, name(A)}),
    %% Its own strategy hasn't listed anybody, but the link is there.
    ?assertEqual([name(B)], members(B)),
    ok = wait(fun() -> eager_and_lazy(B) =:= [name(A)] end),
    ok = broadcast_SUITE:reaches([A, B], both),
    %% One end drops it, then the other.
    ok = do(B, [B, A], []),
    ok = wait(fun() -> members(B) =:= lists:sort([name(A), name(B)]) end),
    ok = do(A, [A], []),
    ok = wait(fun() -> members(A) =:= [name(A)] end),
    ok = broadcast_SUITE:reaches([A, B], still),
    ok = do(B, [B, C], []),
    ok = wait(fun() -> eager_and_lazy(A) =:= [] andalso eager_and_lazy(C) =:= [name(B)] end),
    ok = partisan_ct:kill(C),
    ok = noted(B, {down, name(C)}),
    %% Without the own node in its list it leaves.
    ok = do(B, [A, B], []),
    ok = wait(fun() -> eager_and_lazy(A) =:= [name(B)] end),
    ok = do(B, [A], []),
    ok = wait(fun() -> members(B) =:= [name(B)] andalso eager_and_lazy(A) =:= [] end).

%% In order, whether there is a session or not, to whom one lists or not.
messages(Config) ->
    [A, B, C] = told(Config, 3),
    ok = sync_join(A, B),
    ok = sync_join(B, C),
    %% C is no member of A: the session is made over B's knowledge of it.
    ?assertNot(call(A, partisan, is_connected, [name(C)])),
    Numbers = lists:seq(1, 300),
    ok = run(A, fun() ->
        Spec = partisan:node_spec(),
        {ok, Specs} = partisan_peer_service:members_for_orchestration(),
        _ = [
            ?HOST ! {?HOST, ?MODULE, {message, {do, [Spec | Specs], [{name(C), {membership_strategy, {n, N}}}]}}}
         || N <- Numbers
        ],
        ok
    end),
    ok = noted(C, {message, {n, 300}}),
    ?assertEqual(Numbers, [N || {message, {n, N}} <- seen(C, notes)]),
    %% Pids are what they are.
    Pid = call(A, erlang, whereis, [?HOST]),
    ok = do(A, [A, B], [{name(B), {plain, Pid}}]),
    ok = wait(fun() -> [P || {message, {plain, P}} <- seen(B, notes), is_pid(P)] =/= [] end).

%% The strategy fails: it begins anew, and the node's other work goes on.
crash(Config) ->
    [A, B] = told(Config, 2),
    ok = sync_join(A, B),
    ok = do(B, [A, B], []),
    ok = wait(fun() -> length(members(B)) =:= 2 end),
    Host = call(A, erlang, whereis, [?HOST]),
    Manager = call(A, erlang, whereis, [partisan_pluggable_peer_service_manager]),
    ok = run(B, fun() -> ok end),
    ok = do(B, [A, B], [{name(A), {membership_strategy, {fail, on_purpose}}}]),
    ok = wait(fun() ->
        New = call(A, erlang, whereis, [?HOST]),
        is_pid(New) andalso New =/= Host andalso members(A) =:= [name(A)]
    end),
    ?assertEqual(Manager, call(A, erlang, whereis, [partisan_pluggable_peer_service_manager])),
    %% The other end wants the link.
    ok = wait(fun() -> eager_and_lazy(A) =:= [name(B)] end),
    ok = broadcast_SUITE:reaches([A, B], after_crash),
    %% The manager fails: all begins anew.
    ok = partisan_ct:kill_process(A, partisan_pluggable_peer_service_manager),
    ok = wait(fun() -> eager_and_lazy(A) =:= [name(B)] end),
    ok = broadcast_SUITE:reaches([A, B], after_restart).

refused(Config) ->
    Vm = partisan_ct:start_owned(list_to_atom(lists:concat([?config(prefix, Config), "@127.0.0.1"])), #{start => false}),
    ok = call(Vm, application, set_env, [partisan, membership_strategy, lists]),
    {error, {Why, _}} = call(Vm, application, start, [partisan]),
    Text = lists:flatten(io_lib:format("~0tp", [Why])),
    ?assertNotEqual(nomatch, string:find(Text, "partisan_membership_strategy")),
    %% Other strategies' nodes are not taken in.
    [A] = told(Config, 1),
    Ring = start(Config, ring, [{membership_strategy, ring_strategy}]),
    ok = call(Ring, partisan_peer_service, join, [spec(A)]),
    timer:sleep(2000),
    ?assertEqual([name(Ring)], members(Ring)),
    ?assertEqual([name(A)], members(A)).

%%%-------------------------------------------------------------------------------------------
%%% Together with other overlays
%%%-------------------------------------------------------------------------------------------

switched(Config) ->
    Env = [{membership_strategy, ring_strategy}, {switch_overlap, 3000}],
    [A, B | _] = Vms = [start(Config, N, Env) || N <- lists:seq(1, 5)],
    _ = [ok = sync_join(Vm, A) || Vm <- tl(Vms)],
    ok = is_ring(Vms),
    To = fun(Vm, Manager) ->
        ok = call(Vm, partisan_peer_service, switch, [Manager]),
        wait(
            fun() ->
                lists:all(
                    fun(V) ->
                        {ok, #{until_switched := Old}} = call(V, partisan_peer_service, overlay, []),
                        Old =:= undefined andalso call(V, partisan_peer_service, manager, []) =:= Manager
                    end,
                    Vms
                )
            end,
            30000
        )
    end,
    ok = To(B, partisan_hyparview_peer_service_manager),
    ok = broadcast_SUITE:reaches(Vms, hyparview),
    ok = To(A, partisan_pluggable_peer_service_manager),
    ok = is_ring(Vms),
    ok = broadcast_SUITE:reaches(Vms, ring).

scamp(Config) ->
    Env = [{membership_strategy, partisan_scamp_v1_membership_strategy}],
    [A | Rest] = Vms = [start(Config, N, Env) || N <- lists:seq(1, 6)],
    _ = [ok = sync_join(Vm, A) || Vm <- Rest],
    {ok, #{overlay := <<"scamp">>}} = call(A, partisan_peer_service, overlay, []),
    ok = broadcast_SUITE:reaches(Vms, all),
    ok = partisan_ct:kill(A),
    ok = wait(fun() -> not lists:any(fun(Vm) -> lists:member(name(A), members(Vm)) end, Rest) end),
    ok = broadcast_SUITE:reaches(Rest, survivors).
