%% @doc Many real nodes, each a VM of its own, in one HyParView overlay: it forms, broadcasts reach all, many nodes are
%% killed at once, and the survivors are one again.
%%
%% `PARTISAN_SCALE_NODES' and `PARTISAN_SCALE_KILLED' say how many; a node takes about 45 MB. By default few enough for every run.
-module(scale_SUITE).

-include_lib("stdlib/include/assert.hrl").

-compile(export_all).

-import(partisan_ct, [call/4, name/1, spec/1, wait/2]).

suite() ->
    [{timetrap, {minutes, 30}}].

all() ->
    [survivors_are_one].

end_per_testcase(_, _) ->
    partisan_ct:stop_owned().

survivors_are_one(_) ->
    Count = number("NODES", 16),
    Killed = number("KILLED", Count * 3 div 10),
    Seed = rand:export_seed_s(rand:seed(exsss)),
    ct:pal("~b nodes, ~b of them to be killed; seed ~w", [Count, Killed, Seed]),
    {Started, Vms} = timed(fun() -> [start(N) || N <- lists:seq(1, Count)] end),
    {Formed, ok} = timed(fun() ->
        Joins = lists:zip(tl(Vms), [lists:nth(rand:uniform(N), Vms) || N <- lists:seq(1, Count - 1)]),
        _ = [ok = call(Vm, partisan_peer_service, join, [spec(Other)]) || {Vm, Other} <- Joins],
        one_component(Vms)
    end),
    {Reached, ok} = timed(fun() -> broadcast_SUITE:reaches(lists:sublist(Vms, 3), few), reaches_all(Vms, all) end),
    {Rss, Threads} = footprint(Vms),
    ct:pal("started ~b s, one component ~b s later, a broadcast to all and their answers ~b ms; a node has ~b MB and ~b threads", [
        Started div 1000, Formed div 1000, Reached, Rss div 1024, Threads
    ]),
    Mixed = [Vm || {_, Vm} <- lists:sort([{rand:uniform(), Vm} || Vm <- Vms])],
    {Dead, Alive} = lists:split(Killed, Mixed),
    _ = os:cmd("kill -9 " ++ lists:join($\s, [partisan_ct:os_pid(Vm) || Vm <- Dead])),
    {Healed, ok} = timed(fun() -> one_component(Alive) end),
    {Again, ok} = timed(fun() -> reaches_all(Alive, survivors) end),
    ct:pal("~b killed: the others one component after ~b ms, a broadcast to all ~b ms", [Killed, Healed, Again]).

number(Name, Default) ->
    case os:getenv("PARTISAN_SCALE_" ++ Name) of
        false -> Default;
        Text -> list_to_integer(Text)
    end.

timed(Fun) ->
    {Micros, Result} = timer:tc(Fun),
    {Micros div 1000, Result}.

%% Small VMs: these tests want many, not fast ones.
start(N) ->
    Name = list_to_atom(lists:concat(["scale", N, "@127.0.0.1"])),
    broadcast_SUITE:start(Name, #{
        args => ["+S", "1:1", "+SDcpu", "1:1", "+SDio", "1", "+A", "1", "+sbwt", "none"],
        env => [
            {peer_service_manager, partisan_hyparview_peer_service_manager},
            {io_threads, 1},
            {connection_jitter, 200}
        ]
    }).

%% All links are of both ends, and lead from each to all.
one_component(Vms) ->
    wait(
        fun() ->
            Views = maps:from_list([{name(Vm), members(Vm)} || Vm <- Vms]),
            Symmetric = lists:all(
                fun({Node, Members}) ->
                    lists:all(fun(M) -> lists:member(Node, maps:get(M, Views, [])) end, Members)
                end,
                maps:to_list(Views)
            ),
            Symmetric andalso length(connected([name(hd(Vms))], [], Views)) =:= length(Vms)
        end,
        300000
    ).

members(Vm) ->
    {ok, Members} = call(Vm, partisan_peer_service, members, []),
    Members.

connected([], Seen, _) ->
    Seen;
connected([Node | Rest], Seen, Views) ->
    case lists:member(Node, Seen) of
        true -> connected(Rest, Seen, Views);
        false -> connected(maps:get(Node, Views, []) ++ Rest, [Node | Seen], Views)
    end.

%% From the first node to all others.
reaches_all([First | Others], What) ->
    broadcast_SUITE:broadcast(First, What, What),
    broadcast_SUITE:arrives(Others, What).

%% Medians: kilobytes in memory, threads of the operating system.
footprint(Vms) ->
    Each = [string:lexemes(os:cmd("ps -o rss=,nlwp= -p " ++ partisan_ct:os_pid(Vm)), " \n") || Vm <- Vms],
    Median = fun(N) ->
        Sorted = lists:sort([list_to_integer(lists:nth(N, E)) || E <- Each]),
        lists:nth((length(Sorted) + 1) div 2, Sorted)
    end,
    {Median(1), Median(2)}.
