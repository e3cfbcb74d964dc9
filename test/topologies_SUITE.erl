%% @doc Client-server and static overlays of real nodes: who has links with whom, broadcasts to all, and failures.
-module(topologies_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-compile(export_all).

-import(partisan_ct, [call/4, run/2, await/3, wait/1, name/1, spec/1, sync_join/2]).

suite() ->
    [{timetrap, {seconds, 240}}].

all() ->
    [client_server, client_server_leave, slow_client, messages, tags, static, static_messages].

init_per_testcase(Case, Config) ->
    [{prefix, Case} | Config].

end_per_testcase(_, _) ->
    partisan_ct:stop_owned().

%%%-------------------------------------------------------------------------------------------
%%% What the cases share
%%%-------------------------------------------------------------------------------------------

start(Config, Name, Env) ->
    start_again(list_to_atom(lists:concat([?config(prefix, Config), "_", Name, "@127.0.0.1"])), #{}, Env).

start_again(Name, Options, Env) ->
    broadcast_SUITE:start(Name, Options#{env => Env}).

tagged(Tag) ->
    [{peer_service_manager, partisan_client_server_peer_service_manager}, {tag, Tag}].

%% Two servers, and clients of the first.
servers_and_clients(Config, Count) ->
    [A, B] = Servers = [start(Config, Name, tagged(server)) || Name <- [a, b]],
    ok = sync_join(B, A),
    Clients = [start(Config, lists:concat([c, N]), tagged(client)) || N <- lists:seq(1, Count)],
    _ = [ok = sync_join(Client, A) || Client <- Clients],
    {Servers, Clients}.

%% Those it has links with.
links(Vm) ->
    {ok, Members} = call(Vm, partisan_peer_service, members, []),
    ?assert(lists:member(name(Vm), Members)),
    lists:sort(Members -- [name(Vm)]).

linked(Vm, Others) ->
    Names = lists:sort([name(Other) || Other <- Others]),
    wait(fun() -> links(Vm) =:= Names end).

%%%-------------------------------------------------------------------------------------------
%%% Client-server
%%%-------------------------------------------------------------------------------------------

client_server(Config) ->
    {[A, B], [C1 | _] = Clients} = servers_and_clients(Config, 4),
    Manager = call(A, partisan_peer_service, manager, []),
    ?assertEqual(partisan_client_server_peer_service_manager, Manager),
    %% Through a client, which has no link for it but tells of the servers.
    Last = start(Config, last, tagged(client)),
    ok = sync_join(Last, C1),
    [_] = links(Last),
    All = [Last | Clients],
    _ = [ok = linked(Client, [A]) || Client <- Clients],
    ok = wait(fun() -> length(links(A)) + length(links(B)) =:= length(All) + 2 end),
    ok = broadcast_SUITE:reaches([A, B | All], all),
    ok = partisan_ct:probe(C1, watch),
    ok = partisan_ct:inside(C1, watch, fun() ->
        Watch = self(),
        ok = partisan_peer_service:on_up('_', fun(Node) -> Watch ! {up, Node} end),
        ok = partisan_peer_service:on_down('_', fun(Node) -> Watch ! {down, Node} end)
    end),
    ok = partisan_ct:kill(A),
    _ = [ok = linked(Client, [B]) || Client <- All],
    [Down, Up] = [{down, name(A)}, {up, name(B)}],
    Down = await(C1, watch, fun(M) -> M =:= Down end),
    Up = await(C1, watch, fun(M) -> M =:= Up end),
    ok = broadcast_SUITE:reaches([B | All], survivors),
    ?assertMatch({error, _}, call(C1, partisan_peer_service, leave, [name(B)])),
    %% It has forgotten its cluster, and is called back.
    #{port := Port} = A,
    Again = start_again(name(A), #{port => Port}, tagged(server)),
    ok = linked(Again, [B]),
    ok = partisan_ct:kill(B),
    _ = [ok = linked(Client, [Again]) || Client <- All],
    ok = broadcast_SUITE:reaches([Again | All], last).

client_server_leave(Config) ->
    {[A, B], [C1, C2]} = servers_and_clients(Config, 2),
    %% A client leaves, and joins again.
    ok = call(C1, partisan_peer_service, leave, []),
    ok = linked(C1, []),
    ok = linked(A, [B, C2]),
    ok = sync_join(C1, B),
    ok = linked(B, [A, C1]),
    %% A server leaves: its clients go to the other.
    ok = call(A, partisan_peer_service, leave, []),
    ok = linked(A, []),
    ok = linked(B, [C1, C2]),
    ok = broadcast_SUITE:reaches([B, C1, C2], without),
    ok = sync_join(A, B),
    ok = linked(B, [A, C1, C2]),
    %% It is removed.
    ok = call(B, partisan_peer_service, leave, [name(A)]),
    ok = linked(A, []),
    ok = linked(B, [C1, C2]),
    ok = broadcast_SUITE:reaches([B, C1, C2], removed).

%% A client that has stopped reading costs its server bounded memory, and the others nothing.
slow_client(Config) ->
    {[A, _], [C1, C2, Slow]} = servers_and_clients(Config, 3),
    ok = broadcast_SUITE:reaches([A, C1, C2, Slow], all),
    OsPid = partisan_ct:os_pid(Slow),
    _ = os:cmd("kill -STOP " ++ OsPid),
    Before = rss(partisan_ct:os_pid(A)),
    Numbers = lists:seq(1, 200),
    {Micros, ok} = timer:tc(fun() ->
        %% 200 MB, far more than may wait for one neighbour, no faster than the others read.
        ok = run(A, fun() ->
            Payload = binary:copy(<<"x">>, 1 bsl 20),
            lists:foreach(
                fun(N) ->
                    ok = partisan:broadcast({{large, N}, Payload}, broadcast_SUITE),
                    timer:sleep(10)
                end,
                Numbers
            )
        end),
        broadcast_SUITE:all_arrive([C1, C2], [{large, N} || N <- Numbers])
    end),
    Grown = (rss(partisan_ct:os_pid(A)) - Before) div 1024,
    ct:pal("200 MB reached the others after ~b ms; the server has grown by ~b MB", [Micros div 1000, Grown]),
    ?assert(Grown < 150),
    ?assert(Micros < 30000000),
    _ = os:cmd("kill -CONT " ++ OsPid),
    ok = linked(Slow, [A]),
    broadcast_SUITE:broadcast(A, later, later),
    ok = broadcast_SUITE:arrives([Slow], later).

rss(OsPid) ->
    list_to_integer(string:trim(os:cmd("ps -o rss= -p " ++ OsPid))).

%% Between clients, over sessions of their own or over a server: the links stay what they are.
messages(Config) ->
    {[A, B], [C1 | _] = Clients} = servers_and_clients(Config, 3),
    Relayed = start(Config, relayed, [{relay_direct, false} | tagged(client)]),
    ok = sync_join(Relayed, A),
    ok = exchange([A, B, Relayed | Clients]),
    _ = [ok = linked(Client, [A]) || Client <- [Relayed | Clients]],
    ok = linked(A, [B, Relayed | Clients]),
    ok = linked(B, [A]),
    Sessions = call(C1, partisan, nodes, []),
    ?assert(length(Sessions) > 1),
    %% A session that there is already serves as the link to another server, too.
    ok = partisan_ct:kill(A),
    _ = [ok = linked(Client, [B]) || Client <- [Relayed | Clients]],
    ok = linked(B, [Relayed | Clients]),
    ok = exchange([B, Relayed | Clients]),
    ok = broadcast_SUITE:reaches([B, Relayed | Clients], all).

%% 20 messages from each to each, in order.
exchange(Vms) ->
    _ = [ok = partisan_ct:fresh_probe(Vm, probe) || Vm <- Vms],
    Numbers = lists:seq(1, 20),
    _ = [ok = send(From, name(From), name(To), Numbers) || From <- Vms, To <- Vms, To =/= From],
    _ = [
        ok = wait(fun() ->
            Seen = partisan_ct:seen(Vm, probe),
            lists:all(
                fun(From) -> [N || {F, N} <- Seen, F =:= From] =:= Numbers end,
                [name(Other) || Other <- Vms, Other =/= Vm]
            )
        end)
     || Vm <- Vms
    ],
    ok.

send(Vm, From, To, Numbers) ->
    run(Vm, fun() ->
        lists:foreach(fun(N) -> ok = partisan:forward_message({probe, To}, {From, N}) end, Numbers)
    end).

tags(Config) ->
    Server = start(Config, server, tagged(server)),
    ok = partisan_ct:keep_log(Server),
    Untagged = start(Config, untagged, tagged(undefined)),
    ok = call(Untagged, partisan_peer_service, join, [spec(Server)]),
    ok = partisan_ct:await_line(Server, "give each node of the cluster the tag server or client"),
    [] = links(Server),
    [] = links(Untagged),
    %% Without tags all are servers of each other.
    Other = start(Config, other, tagged(undefined)),
    ok = sync_join(Other, Untagged),
    ok = linked(Untagged, [Other]).

%%%-------------------------------------------------------------------------------------------
%%% Static
%%%-------------------------------------------------------------------------------------------

static(Config) ->
    Env = [{peer_service_manager, partisan_static_peer_service_manager}],
    [A, B, C, D] = Vms = [start(Config, Name, Env) || Name <- [a, b, c, d]],
    ?assertEqual(partisan_static_peer_service_manager, call(A, partisan_peer_service, manager, [])),
    %% A chain; each end of a link may be the one that names the other.
    ok = sync_join(A, B),
    ok = sync_join(C, B),
    ok = sync_join(C, D),
    Chain = [{A, [B]}, {B, [A, C]}, {C, [B, D]}, {D, [C]}],
    _ = [ok = linked(Vm, Others) || {Vm, Others} <- Chain],
    ok = broadcast_SUITE:reaches(Vms, all),
    %% Nobody takes the place of one that is down, and it is dialled until it is back.
    ok = partisan_ct:kill(B),
    ok = linked(A, []),
    ok = linked(C, [D]),
    #{port := Port} = B,
    Again = start_again(name(B), #{port => Port}, Env),
    ok = linked(Again, [A, C]),
    ok = broadcast_SUITE:reaches([A, Again, C, D], again),
    %% One that leaves is not called back.
    ok = call(D, partisan_peer_service, leave, []),
    ok = linked(C, [Again]),
    ok = linked(D, []),
    ok = sync_join(D, C),
    ok = linked(C, [Again, D]),
    ok = call(C, partisan_peer_service, update_members, [[spec(D)]]),
    ok = linked(C, [D]),
    ok = linked(Again, [A]).

%% Between the ends of a chain: the links stay what they are.
static_messages(Config) ->
    Env = [{peer_service_manager, partisan_static_peer_service_manager}],
    [A, B, C] = Vms = [start(Config, Name, Env) || Name <- [a, b, c]],
    ok = sync_join(A, B),
    ok = sync_join(B, C),
    ok = exchange(Vms),
    ?assert(lists:member(name(C), call(A, partisan, nodes, []))),
    _ = [ok = linked(Vm, Others) || {Vm, Others} <- [{A, [B]}, {B, [A, C]}, {C, [B]}]],
    %% A session that there is already serves as the link.
    ok = sync_join(A, C),
    ok = linked(A, [B, C]),
    ok = linked(C, [A, B]).
