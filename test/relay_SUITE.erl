%% @doc Messages to nodes that are no neighbours on a partial overlay, between real nodes: by sessions on demand, and
%% over other nodes where nobody may dial.
-module(relay_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, end_per_testcase/2]).
-export([over_other_nodes/1, on_demand/1, monitored/1, unreachable/1]).
%% On the nodes.
-export([flood/3, sink/2, sunk/0]).

-import(partisan_ct, [call/4, run/2, wait/1, name/1, spec/1]).

suite() -> [{timetrap, {seconds, 240}}].

all() -> [over_other_nodes, on_demand, monitored, unreachable].

end_per_testcase(_, _) ->
    partisan_ct:stop_owned().

%%%-------------------------------------------------------------------------------------------
%%% Cases
%%%-------------------------------------------------------------------------------------------

over_other_nodes(_) ->
    all_to_all(nodes(over, 6, [{relay_direct, false}])).

on_demand(_) ->
    all_to_all(nodes(demand, 6, [])).

%% A node that is watched is linked however the overlay changes, and its end is told; that of a link is not.
monitored(_) ->
    [A | Others] = Vms = nodes(monitored, 6, []),
    Far = far(A, Others),
    ok = partisan_ct:probe(A, watch),
    true = partisan_ct:inside(A, watch, fun() -> partisan:monitor_node(name(Far), true) end),
    ok = call(A, partisan_peer_service, on_down, [
        name(hd(Others -- [Far])), fun(Node) -> watch ! {on_down, Node} end
    ]),
    ok = wait(fun() -> call(A, partisan, is_connected, [name(Far)]) end),
    %% The overlay has others as neighbours now, and closes what it needs no longer.
    _ = [ok = call(Vm, partisan_peer_service, leave, []) || Vm <- Vms -- [A, Far, hd(Others -- [Far])]],
    ?assertEqual([], [M || {nodedown, _} = M <- partisan_ct:seen(A, watch)]),
    ok = partisan_ct:kill(Far),
    ok = told(A, {nodedown, name(Far)}),
    Other = hd(Others -- [Far]),
    ok = partisan_ct:kill(Other),
    ok = told(A, {on_down, name(Other)}).

%% A session over other nodes takes 15 s to be given up, and so long may the way to that be.
told(Vm, What) ->
    partisan_ct:wait(fun() -> lists:member(What, partisan_ct:seen(Vm, watch)) end).

unreachable(_) ->
    [A, B, _] = nodes(unreachable, 3, []),
    Nobody = 'nobody@127.0.0.1',
    Timely = #{timeout => 200},
    ?assertEqual({error, timeout}, call(A, partisan, forward_message, [{sink, Nobody}, x, Timely])),
    At = #{nosuspend => true},
    ?assertEqual({error, not_yet_connected}, call(A, partisan, forward_message, [{sink, Nobody}, x, At])),
    ?assertEqual({error, not_yet_connected}, call(A, partisan, forward_message, [{sink, Nobody}, x, #{}])),
    %% No answer that came late is left behind.
    ?assertEqual([], run(A, fun() ->
        {error, timeout} = partisan:forward_message({sink, Nobody}, x, #{timeout => 1}),
        timer:sleep(100),
        {messages, Left} = process_info(self(), messages),
        Left
    end)),
    ok = call(A, partisan, forward_message, [{sink, name(B)}, x, #{}]).

%%%-------------------------------------------------------------------------------------------
%%% What they share
%%%-------------------------------------------------------------------------------------------

%% Nodes of which each has two neighbours.
nodes(Prefix, Count, Extra) ->
    Env = [
        {peer_service_manager, partisan_hyparview_peer_service_manager},
        {hyparview, [{max_active_size, 3}, {max_passive_size, 8}, {shuffle_interval, 500}]}
        | Extra
    ],
    Vms = [
        partisan_ct:start_owned(list_to_atom(lists:concat([Prefix, N, "@127.0.0.1"])), #{env => Env})
     || N <- lists:seq(1, Count)
    ],
    _ = [
        ok = call(Vm, partisan_peer_service, sync_join, [spec(Before)])
     || {Before, Vm} <- lists:zip(lists:droplast(Vms), tl(Vms))
    ],
    ok = wait(fun() -> lists:all(fun(Vm) -> length(members(Vm)) >= 2 end, Vms) end),
    Vms.

members(Vm) ->
    {ok, Members} = call(Vm, partisan_peer_service, members, []),
    Members.

%% One of them that is no neighbour.
far(Vm, Others) ->
    Members = members(Vm),
    hd([Other || Other <- Others, not lists:member(name(Other), Members)]).

%% 60 messages of up to 1 MB from each node to each other one, in order.
all_to_all(Vms) ->
    Names = [name(Vm) || Vm <- Vms],
    _ = [ok = call(Vm, ?MODULE, sink, [Names -- [name(Vm)], 60]) || Vm <- Vms],
    ok = partisan_ct:in_parallel([
        fun() -> ok = call(Vm, ?MODULE, flood, [name(Vm), Names -- [name(Vm)], 60]) end
     || Vm <- Vms
    ]),
    _ = [ok = call(Vm, ?MODULE, sunk, []) || Vm <- Vms],
    %% Which took sessions that the overlay doesn't have.
    ?assert(lists:any(fun(Vm) -> length(call(Vm, partisan, nodes, [])) > length(members(Vm)) - 1 end, Vms)).

%% @private
flood(Own, Names, Count) ->
    partisan_ct:in_parallel([
        fun() ->
            lists:foreach(
                fun(N) ->
                    Bytes = binary:copy(<<N>>, size_of(N)),
                    ok = partisan:forward_message({sink, Name}, {Own, N, Bytes, erlang:crc32(Bytes)})
                end,
                lists:seq(1, Count)
            )
        end
     || Name <- Names
    ]).

size_of(30) -> 1 bsl 20;
size_of(N) when N rem 10 =:= 0 -> 100000;
size_of(N) -> N * 10.

%% @private Takes messages in, each sender's in order.
sink(Names, Count) ->
    Next = maps:from_list([{Name, 1} || Name <- Names]),
    Sink = spawn(fun() -> take(Next, Count) end),
    true = register(sink, Sink),
    ok.

%% @private Returns when all have come.
sunk() ->
    Ref = monitor(process, sink),
    receive
        {'DOWN', Ref, process, _, Reason} when Reason =:= normal; Reason =:= noproc -> ok;
        {'DOWN', Ref, process, _, Reason} -> {error, Reason}
    after 60000 -> {error, {missing, element(2, process_info(whereis(sink), dictionary)), partisan:nodes()}}
    end.

take(Next, _) when map_size(Next) =:= 0 ->
    ok;
take(Next, Count) ->
    put(next, Next),
    receive
        {From, N, Bytes, Crc} ->
            {From, N} = {From, maps:get(From, Next)},
            Crc = erlang:crc32(Bytes),
            take(
                case N of
                    Count -> maps:remove(From, Next);
                    _ -> Next#{From := N + 1}
                end,
                Count
            )
    end.
