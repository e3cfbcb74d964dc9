%% @doc Who is a member: joins, leaves, crashes and restarts of real nodes.
-module(membership_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-compile(export_all).

-import(partisan_ct, [call/4, inside/3, probe/2, seen/2, await/3, wait/1, name/1, spec/1]).

suite() ->
    [{timetrap, {seconds, 180}}].

all() ->
    [
        join_through_any,
        simultaneous_joins,
        join_two_clusters,
        leave_is_seen_by_all,
        leave_of_a_down_node,
        crash_without_data_dir,
        crash_with_data_dir,
        other_port_with_data_dir,
        other_port_without_data_dir,
        pending_join,
        update_members,
        down_member_holds_nobody_up,
        damaged_state,
        empty_state
    ].

init_per_testcase(Case, Config) ->
    %% Names of their own, so that nothing of one case can disturb another.
    [{names, [node_of(Case, N) || N <- lists:seq(1, 5)]} | Config].

end_per_testcase(_, _) ->
    partisan_ct:stop_owned().

node_of(Case, N) ->
    list_to_atom(lists:concat([Case, N, "@127.0.0.1"])).

%% Nodes that are stopped when the case is over.
start(Name) ->
    start(Name, #{}).

start(Name, Options) ->
    partisan_ct:start_owned(Name, Options).

nodes_of(Config, Count) ->
    [start(Name) || Name <- lists:sublist(?config(names, Config), Count)].

join(Vm, Other) ->
    ok = call(Vm, partisan_peer_service, join, [spec(Other)]).

members(Vm) ->
    {ok, Members} = call(Vm, partisan_peer_service, members, []),
    Members.

%% All see exactly each other, and are connected.
converged(Vms) ->
    Names = lists:sort([name(Vm) || Vm <- Vms]),
    wait(fun() ->
        lists:all(
            fun(Vm) ->
                members(Vm) =:= Names andalso
                    lists:sort(call(Vm, partisan, nodes, [])) =:= Names -- [name(Vm)]
            end,
            Vms
        )
    end).

%% Each can send to each.
exchange(Vms) ->
    _ = [partisan_ct:fresh_probe(Vm, probe) || Vm <- Vms],
    _ = [
        ok = call(From, partisan, forward_message, [{probe, name(To)}, {from, name(From)}])
     || From <- Vms, To <- Vms
    ],
    _ = [
        await(To, probe, fun(M) -> M =:= {from, name(From)} end)
     || From <- Vms, To <- Vms
    ],
    ok.

data_dir(Config, Name) ->
    Dir = filename:join(?config(priv_dir, Config), Name),
    [{partisan_data_dir, Dir}].

state_file(Config, Name) ->
    filename:join([?config(priv_dir, Config), Name, "default_peer_service", "membership"]).

watch(Vm) ->
    ok = probe(Vm, watch),
    ok = inside(Vm, watch, fun() -> partisan:monitor_nodes(true) end).

%%%-------------------------------------------------------------------------------------------
%%% Joining
%%%-------------------------------------------------------------------------------------------

join_through_any(Config) ->
    [A, B, C, D] = All = nodes_of(Config, 4),
    ok = call(B, partisan_peer_service, sync_join, [spec(A)]),
    %% Through members that are not the first, and by name where one is known.
    join(C, B),
    ok = converged([A, B, C]),
    join(D, C),
    ok = converged(All),
    ok = exchange(All),
    %% Joining again changes nothing.
    join(A, D),
    ok = call(A, partisan_peer_service, join, [name(D)]),
    ok = converged(All).

simultaneous_joins(Config) ->
    [A, B, C, D] = All = nodes_of(Config, 4),
    Pairs = [{A, B}, {B, A}, {C, D}, {D, C}, {A, C}, {D, B}],
    ok = partisan_ct:in_parallel([fun() -> join(X, Y) end || {X, Y} <- Pairs]),
    ok = converged(All),
    ok = exchange(All).

join_two_clusters(Config) ->
    [A, B, C, D] = All = nodes_of(Config, 4),
    join(A, B),
    join(C, D),
    ok = converged([A, B]),
    ok = converged([C, D]),
    join(A, D),
    ok = converged(All).

pending_join(Config) ->
    %% The node to be joined doesn't run yet.
    [Name1, Name2 | _] = ?config(names, Config),
    A = start(Name1),
    Port = partisan_ct:port(),
    ok = call(A, partisan_peer_service, join, [spec(#{name => Name2, port => Port})]),
    [Name1] = members(A),
    B = start(Name2, #{port => Port}),
    ok = converged([A, B]).

update_members(Config) ->
    [A, B, C, D] = nodes_of(Config, 4),
    join(A, B),
    ok = converged([A, B]),
    ok = call(A, partisan_peer_service, update_members, [[]]),
    ok = converged([A, B]),
    %% B goes, C and D come; that A isn't named doesn't matter.
    ok = call(A, partisan_peer_service, update_members, [[spec(C), spec(D)]]),
    ok = converged([A, C, D]),
    ok = converged([B]),
    ok = call(C, partisan_peer_service, update_members, [[spec(X) || X <- [A, B, C, D]]]),
    ok = converged([A, B, C, D]).

down_member_holds_nobody_up(Config) ->
    [A, B, C] = nodes_of(Config, 3),
    [_, _, _, Name4, Name5] = ?config(names, Config),
    join(A, B),
    join(C, A),
    ok = converged([A, B, C]),
    %% One member is frozen, one is dead, and one address answers nobody.
    _ = os:cmd("kill -STOP " ++ partisan_ct:os_pid(B)),
    ok = partisan_ct:kill(C),
    Silent = #{name => Name5, channels => #{}, listen_addrs => [#{ip => {192, 0, 2, 1}, port => 9}]},
    ok = call(A, partisan_peer_service, join, [Silent]),
    D = start(Name4),
    {Micros, ok} = timer:tc(fun() -> call(D, partisan_peer_service, sync_join, [spec(A)]) end),
    true = Micros < 5000000,
    ok = wait(fun() -> lists:member(Name4, members(A)) end),
    ok = exchange([A, D]).

%%%-------------------------------------------------------------------------------------------
%%% Leaving
%%%-------------------------------------------------------------------------------------------

leave_is_seen_by_all(Config) ->
    [A, B, C, D] = All = nodes_of(Config, 4),
    _ = [join(X, A) || X <- [B, C, D]],
    ok = converged(All),
    ok = watch(A),
    ok = call(D, partisan_peer_service, leave, []),
    ok = converged([A, B, C]),
    ok = converged([D]),
    Left = name(D),
    {nodedown, Left} = await(A, watch, fun(M) -> M =:= {nodedown, Left} end),
    {error, disconnected} = call(A, partisan, forward_message, [{x, Left}, hello]),
    %% Another node removes one.
    ok = call(A, partisan_peer_service, leave, [spec(C)]),
    ok = converged([A, B]),
    ok = converged([C]),
    %% Both come back.
    join(D, B),
    join(C, D),
    ok = converged(All).

leave_of_a_down_node(Config) ->
    [A, B] = nodes_of(Config, 2),
    [_, _, Name3 | _] = ?config(names, Config),
    Options = #{env => data_dir(Config, "down"), port => partisan_ct:port()},
    C = start(Name3, Options),
    join(C, A),
    join(B, A),
    ok = converged([A, B, C]),
    ok = partisan_ct:kill(C),
    ok = wait(fun() -> not call(A, partisan, is_connected, [Name3]) end),
    ok = call(A, partisan_peer_service, leave, [Name3]),
    ok = converged([A, B]),
    %% What it had kept says that it is a member; the leave wins.
    C2 = start(Name3, Options),
    ok = converged([C2]),
    ok = converged([A, B]),
    join(C2, B),
    ok = converged([A, B, C2]),
    ok = exchange([A, B, C2]).

%%%-------------------------------------------------------------------------------------------
%%% Crashes
%%%-------------------------------------------------------------------------------------------

crash_without_data_dir(Config) ->
    crash(Config, [], same_port).

crash_with_data_dir(Config) ->
    crash(Config, data_dir(Config, "crash"), same_port).

other_port_with_data_dir(Config) ->
    crash(Config, data_dir(Config, "port"), other_port).

%% Without a memory of the cluster and at an unknown address, it has to join. Its old entry is
%% replaced.
other_port_without_data_dir(Config) ->
    [A, B] = nodes_of(Config, 2),
    [_, _, Name | _] = ?config(names, Config),
    C = start(Name),
    join(C, A),
    join(B, A),
    ok = converged([A, B, C]),
    ok = partisan_ct:kill(C),
    C2 = start(Name),
    join(C2, B),
    ok = converged([A, B, C2]),
    {ok, Spec} = call(A, partisan, node_spec, [Name]),
    Spec = call(C2, partisan, node_spec, []).

crash(Config, Env, Port) ->
    [A, B] = nodes_of(Config, 2),
    [_, _, Name | _] = ?config(names, Config),
    C = start(Name, #{env => Env}),
    join(C, A),
    join(B, A),
    ok = converged([A, B, C]),
    ok = watch(A),
    ok = partisan_ct:kill(C),
    {nodedown, Name} = await(A, watch, fun(M) -> M =:= {nodedown, Name} end),
    %% It stays a member, and the others go on.
    true = lists:member(Name, members(A)),
    ok = exchange([A, B]),
    {error, disconnected} = call(A, partisan, forward_message, [{x, Name}, hello]),
    Options =
        case Port of
            same_port -> #{env => Env, port => maps:get(port, C)};
            other_port -> #{env => Env}
        end,
    C2 = start(Name, Options),
    ok = converged([A, B, C2]),
    {nodeup, Name} = await(A, watch, fun(M) -> M =:= {nodeup, Name} end),
    [{nodedown, Name}, {nodeup, Name}] = [M || {_, N} = M <- seen(A, watch), N =:= Name],
    {ok, Spec} = call(B, partisan, node_spec, [Name]),
    Spec = call(C2, partisan, node_spec, []),
    ok = exchange([A, B, C2]).

%%%-------------------------------------------------------------------------------------------
%%% The file
%%%-------------------------------------------------------------------------------------------

damaged_state(Config) ->
    damaged(Config, "damaged", fun(Kept) ->
        Size = byte_size(Kept) div 2,
        <<Head:Size/binary, _/binary>> = Kept,
        [<<Head/binary>>, <<"not a membership">>, <<0, Kept/binary>>]
    end).

empty_state(Config) ->
    damaged(Config, "empty", fun(_) -> [<<>>] end).

damaged(Config, Dir, Damage) ->
    [Name1, Name2 | _] = ?config(names, Config),
    A = start(Name1),
    Options = #{env => data_dir(Config, Dir), start => false},
    B = start(Name2, Options),
    {ok, _} = call(B, partisan, start, []),
    join(B, A),
    ok = converged([A, B]),
    ok = call(A, partisan, stop, []),
    File = state_file(Config, Dir),
    {ok, Kept} = file:read_file(File),
    ok = partisan_ct:keep_log(B),
    _ = [
        begin
            ok = call(B, partisan, stop, []),
            ok = file:write_file(File, Damaged),
            _ = partisan_ct:forget(B, partisan_ct_log),
            {ok, _} = call(B, partisan, start, []),
            [Name2] = members(B),
            ok = partisan_ct:await_line(B, "starts alone"),
            [{error, _}] = partisan_ct:lines(B, "starts alone")
        end
     || Damaged <- Damage(Kept)
    ],
    %% It works as before.
    {ok, _} = call(A, partisan, start, []),
    join(B, A),
    ok = converged([A, B]).
