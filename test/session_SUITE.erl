%% @doc Sessions between real nodes: which one comes about, how it ends, and that nothing is left
%% of it.
-module(session_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-compile(export_all).

-define(A, 'a@127.0.0.1').
-define(B, 'b@127.0.0.1').
-define(MANAGER, partisan_pluggable_peer_service_manager).

-import(partisan_ct, [call/4, run/2, inside/3, probe/2, seen/2, await/3, wait/1, wait/2, spec/1]).

suite() ->
    [{timetrap, {seconds, 180}}].

all() ->
    [
        simultaneous_dialling,
        different_channels,
        wrong_cookie,
        duplicate_name,
        self_connection,
        restart_in_the_same_vm,
        frozen_predecessor,
        stock_node,
        resets_under_load,
        lagging_manager,
        manager_killed,
        nothing_is_left,
        halt_under_load
    ].

end_per_testcase(_, _) ->
    partisan_ct:stop_owned().

start(Name) ->
    start(Name, #{}).

start(Name, Options) ->
    partisan_ct:start_owned(Name, Options).

with_env(Env) ->
    #{env => Env}.

quick() ->
    [{connection_interval, 10}, {connection_jitter, 5}].

watch(Vm) ->
    ok = probe(Vm, watch),
    ok = inside(Vm, watch, fun() -> partisan:monitor_nodes(true) end).

connected(Vm, Other) ->
    call(Vm, partisan, is_connected, [maps:get(name, Other)]).

wait_connected(A, B) ->
    wait(fun() -> connected(A, B) andalso connected(B, A) end).

%%%-------------------------------------------------------------------------------------------
%%% Making one
%%%-------------------------------------------------------------------------------------------

%% However the two dials meet, one session results, and nobody sees it come twice.
simultaneous_dialling(_) ->
    Options = with_env(quick() ++ [{parallelism, 2}]),
    [A, B] = Both = [start(?A, Options), start(?B, Options)],
    _ = [watch(Vm) || Vm <- Both],
    _ = [partisan_ct:keep_log(Vm) || Vm <- Both],
    _ = [
        begin
            ok = partisan_ct:in_parallel([
                fun() -> ok = call(X, partisan_peer_service, sync_join, [spec(Y)]) end
             || {X, Y} <- [{A, B}, {B, A}]
            ]),
            ok = wait_connected(A, B),
            %% A request that is still on its way would undo the leave below.
            Joined = fun(Vm) -> length(partisan_ct:lines(Vm, "joined the cluster")) =:= Round end,
            ok = wait(fun() -> lists:all(Joined, Both) end),
            _ = [
                begin
                    {ok, Connections} = call(Vm, partisan_peer_service, connections, []),
                    ?assertEqual({Round, 3}, {Round, length(Connections)})
                end
             || Vm <- Both
            ],
            ok = call(A, partisan_peer_service, leave, []),
            ok = wait(fun() -> not (connected(A, B) orelse connected(B, A)) end),
            ok = wait(fun() ->
                [call(Vm, partisan_peer_service, members, []) || Vm <- Both] =:= [{ok, [?A]}, {ok, [?B]}]
            end),
            _ = [
                begin
                    ok = wait(fun() -> length(seen(Vm, watch)) >= 2 end),
                    ?assertEqual(
                        {Round, [{nodeup, Other}, {nodedown, Other}]},
                        {Round, partisan_ct:forget(Vm, watch)}
                    )
                end
             || {Vm, Other} <- [{A, ?B}, {B, ?A}]
            ]
        end
     || Round <- lists:seq(1, 30)
    ],
    ok.

different_channels(_) ->
    A = start(?A, with_env([{channels, #{x => #{parallelism => 2}, y => #{parallelism => 3}}}])),
    B = start(?B, with_env([{parallelism, 2}, {channels, [{x, #{parallelism => 4}}, z]}])),
    ok = partisan_ct:keep_log(A),
    ok = partisan_ct:join(A, B),
    Union = [{partisan_membership, 1}, {undefined, 2}, {x, 4}, {y, 3}, {z, 2}],
    _ = [
        begin
            ?assertEqual(Union, lists:sort(call(Vm, partisan_nif, channels_of, [Other]))),
            {ok, Connections} = call(Vm, partisan_peer_service, connections, []),
            ?assertEqual(12, length(Connections)),
            ok = probe(Vm, probe)
        end
     || {Vm, Other} <- [{A, ?B}, {B, ?A}]
    ],
    _ = [
        ok = call(From, partisan, forward_message, [{probe, To}, {C, Key}, Options])
     || {From, To} <- [{A, ?B}, {B, ?A}],
        {C, _} <- Union,
        Key <- lists:seq(0, 7),
        Options <- [#{channel => C, partition_key => Key, channel_fallback => false}]
    ],
    _ = [
        wait(fun() ->
            lists:sort(seen(Vm, probe)) =:= lists:sort([{C, K} || {C, _} <- Union, K <- lists:seq(0, 7)])
        end)
     || Vm <- [A, B]
    ],
    [{info, Line}] = partisan_ct:lines(A, "configured at the peer only"),
    true = string:find(Line, "channel=z") =/= nomatch.

wrong_cookie(_) ->
    Env = quick(),
    A = start(?A, with_env(Env)),
    B = start(?B, with_env([{cookie, <<"another one">>} | Env])),
    _ = [partisan_ct:keep_log(Vm) || Vm <- [A, B]],
    ok = call(B, partisan_peer_service, join, [spec(A)]),
    ok = partisan_ct:await_line(A, "cookie"),
    ok = partisan_ct:await_line(B, "cookie"),
    ok = more_attempts(A),
    _ = [
        begin
            [{warning, _}] = partisan_ct:lines(Vm, "partisan"),
            [] = call(Vm, partisan, nodes, []),
            true = call(Vm, partisan, is_alive, [])
        end
     || Vm <- [A, B]
    ],
    {ok, [?A]} = call(A, partisan_peer_service, members, []).

%% Connections have come in again since, so that a line for each would show.
more_attempts(Vm) ->
    Before = accepted(Vm),
    wait(fun() -> accepted(Vm) >= Before + 2 end).

%% Connections that have gone through the listener's port and are over: the closing end keeps them
%% in TIME_WAIT for a while.
accepted(#{port := Port}) ->
    {ok, Table} = file:read_file("/proc/net/tcp"),
    Hex = string:lowercase(io_lib:format(":~4.16.0b", [Port])),
    length([
        x
     || Line <- string:lexemes(string:lowercase(Table), "\n"),
        string:find(Line, Hex) =/= nomatch,
        string:find(Line, " 0a ") =:= nomatch
    ]).

duplicate_name(_) ->
    Env = quick(),
    A = start(?A, with_env(Env)),
    B = start(?B, with_env(Env)),
    ok = partisan_ct:join(A, B),
    ok = watch(A),
    ok = probe(B, probe),
    Other = start(?B, with_env(Env)),
    _ = [partisan_ct:keep_log(Vm) || Vm <- [A, Other]],
    ok = call(Other, partisan_peer_service, join, [spec(A)]),
    ok = partisan_ct:await_line(A, "duplicate name"),
    ok = partisan_ct:await_line(Other, "cannot connect"),
    ok = more_attempts(A),
    [{warning, _}] = partisan_ct:lines(A, "duplicate name"),
    [{warning, _}] = partisan_ct:lines(Other, "cannot connect"),
    [] = call(Other, partisan, nodes, []),
    %% The first is undisturbed.
    [] = seen(A, watch),
    ok = call(A, partisan, forward_message, [{probe, ?B}, hello]),
    hello = await(B, probe, fun(M) -> M =:= hello end).

self_connection(_) ->
    A = start(?A, with_env(quick())),
    ok = partisan_ct:keep_log(A),
    ok = watch(A),
    {error, self_join} = call(A, partisan_peer_service, join, [spec(A)]),
    %% Under another name: found out in the handshake.
    Stranger = (spec(A))#{name => 'stranger@127.0.0.1'},
    ok = call(A, partisan_peer_service, join, [Stranger]),
    ok = partisan_ct:await_line(A, "this very node"),
    ok = more_attempts(A),
    [_] = partisan_ct:lines(A, "this very node"),
    [] = seen(A, watch),
    {ok, [?A]} = call(A, partisan_peer_service, members, []),
    {ok, []} = call(A, partisan_peer_service, connections, []).

%% The VM is alive under the node's name, so its creation is the node's and stays what it is.
restart_in_the_same_vm(_) ->
    A = start(?A, with_env(quick())),
    B = start(?B, #{
        env => quick(), args => ["-name", atom_to_list(?B), "-dist_listen", "false", "-hidden"]
    }),
    ?B = call(B, erlang, node, []),
    ok = partisan_ct:join(A, B),
    ok = watch(A),
    Identity = call(B, partisan_nif, identity, []),
    _ = [
        begin
            ok = call(B, partisan, stop, []),
            {ok, _} = call(B, partisan, start, []),
            ok = wait_connected(A, B),
            _ = await(A, watch, fun(M) -> M =:= {nodeup, ?B} end),
            ?assertEqual([{nodedown, ?B}, {nodeup, ?B}], partisan_ct:forget(A, watch)),
            ?assertEqual(Identity, call(B, partisan_nif, identity, []))
        end
     || _ <- lists:seq(1, 5)
    ],
    %% A pid of the VM means the same process before and after.
    ok = probe(B, probe),
    ok = probe(A, probe),
    ok = inside(B, probe, fun() -> partisan:forward_message({probe, ?A}, {pid, self()}) end),
    {pid, Ref} = await(A, probe, fun(M) -> is_tuple(M) andalso element(1, M) =:= pid end),
    ok = call(B, partisan, stop, []),
    {ok, _} = call(B, partisan, start, []),
    ok = wait_connected(A, B),
    ok = call(A, partisan, forward_message, [Ref, still_me]),
    still_me = await(B, probe, fun(M) -> M =:= still_me end).

%% The old VM is frozen with its sockets open; its successor takes its place once it has been
%% silent for 2 s. When it thaws, it is the newcomer.
frozen_predecessor(_) ->
    A = start(?A, with_env(quick())),
    Old = start(?B, with_env(quick())),
    ok = partisan_ct:join(A, Old),
    ok = partisan_ct:keep_log(A),
    ok = watch(A),
    _ = os:cmd("kill -STOP " ++ partisan_ct:os_pid(Old)),
    New = start(?B, with_env(quick())),
    ok = probe(New, probe),
    {Micros, ok} = timer:tc(fun() -> call(New, partisan_peer_service, sync_join, [spec(A)]) end),
    true = Micros > 1500000 andalso Micros < 6000000,
    ok = wait_connected(A, New),
    _ = await(A, watch, fun(M) -> M =:= {nodeup, ?B} end),
    [{nodedown, ?B}, {nodeup, ?B}] = partisan_ct:forget(A, watch),
    ok = call(A, partisan, forward_message, [{probe, ?B}, hello]),
    hello = await(New, probe, fun(M) -> M =:= hello end),
    _ = os:cmd("kill -CONT " ++ partisan_ct:os_pid(Old)),
    ok = partisan_ct:await_line(A, "duplicate name"),
    ok = wait(fun() -> call(Old, partisan, nodes, []) =:= [] end),
    [] = seen(A, watch),
    ok = call(A, partisan, forward_message, [{probe, ?B}, still]),
    still = await(New, probe, fun(M) -> M =:= still end).

%% A name packet without a trailer, as a stock Erlang node sends it.
stock_node(_) ->
    A = start(?A),
    ok = partisan_ct:keep_log(A),
    Flags = 16#D07DF7FBD,
    Name = <<"stock@127.0.0.1">>,
    Packet = <<$N, Flags:64, 1:32, (byte_size(Name)):16, Name/binary>>,
    _ = [
        begin
            {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, maps:get(port, A), [
                binary, {packet, 2}, {active, false}
            ]),
            ok = gen_tcp:send(Socket, Packet),
            {ok, <<"snot_allowed">>} = gen_tcp:recv(Socket, 0, 5000),
            {error, closed} = gen_tcp:recv(Socket, 0, 5000)
        end
     || _ <- lists:seq(1, 5)
    ],
    ok = partisan_ct:await_line(A, "stock@127.0.0.1"),
    [{warning, Line}] = partisan_ct:lines(A, "stock@127.0.0.1"),
    true = string:find(Line, "Partisan") =/= nomatch.

%%%-------------------------------------------------------------------------------------------
%%% Losing one
%%%-------------------------------------------------------------------------------------------

%% 100 times a node closes its sockets while data is on its way to them, which resets them. The
%% receiver sees each sender's numbers grow by one, or a down event between them: that there is
%% none after a message of the old session, and none before one of the new, follows.
resets_under_load(_) ->
    Options = with_env(quick() ++ [{parallelism, 4}, {channels, [{bulk, #{parallelism => 2}}]}]),
    [A, B] = Both = [start(?A, Options), start(?B, Options)],
    ok = partisan_ct:join(A, B),
    _ = [watch(Vm) || Vm <- Both],
    ok = run(B, fun start_sink/0),
    ok = run(A, fun() -> start_senders(8, ?B) end),
    _ = [
        begin
            Killer = lists:nth(1 + Round rem 2, Both),
            Victim = lists:nth(1 + (Round + 1) rem 2, Both),
            ok = wait_connected(A, B),
            Count = call(B, ?MODULE, sink_count, []),
            ok = wait(fun() -> call(B, ?MODULE, sink_count, []) > Count + 20 end),
            Before = downs(Killer),
            ok = call(Killer, partisan, kill_connections, [maps:get(name, Victim)]),
            ok = wait(fun() -> downs(Killer) > Before end)
        end
     || Round <- lists:seq(1, 100)
    ],
    ok = wait_connected(A, B),
    Rest = call(B, ?MODULE, sink_count, []),
    ok = wait(fun() -> call(B, ?MODULE, sink_count, []) > Rest + 500 end),
    Quiet = downs(B),
    Sent = run(A, fun stop_senders/0),
    %% Nothing is lost at the end either, unless a down says so.
    ok = wait(fun() -> run(B, fun() -> sink_has_all(Sent) end) orelse downs(B) > Quiet end),
    {Downs, Received, Faults} = run(B, fun sink_result/0),
    ct:log("~p downs, ~p messages of ~p", [Downs, Received, Sent]),
    ?assertMatch({[], D} when D >= 100, {Faults, Downs}),
    _ = [alternate(seen(Vm, watch), Other) || {Vm, Other} <- [{A, ?B}, {B, ?A}]],
    ok.

%% The same where the process that tells of downs is late: nothing may overtake it.
lagging_manager(_) ->
    [A, B] = [start(?A, with_env(quick())), start(?B, with_env(quick()))],
    ok = partisan_ct:join(A, B),
    ok = run(B, fun start_sink/0),
    ok = run(A, fun() -> start_senders(8, ?B) end),
    _ = [
        begin
            Count = call(B, ?MODULE, sink_count, []),
            ok = wait(fun() -> call(B, ?MODULE, sink_count, []) > Count + 20 end),
            ok = call(B, sys, suspend, [?MANAGER]),
            ok = call(A, partisan, kill_connections, [?B]),
            %% Time enough for A to come again, were it let in.
            ok = wait(fun() -> not connected(B, A) end),
            ?assertError(timeout, wait(fun() -> connected(B, A) end, 200)),
            ok = call(B, sys, resume, [?MANAGER]),
            ok = wait_connected(A, B)
        end
     || _ <- lists:seq(1, 5)
    ],
    _ = run(A, fun stop_senders/0),
    {Downs, _, Faults} = run(B, fun sink_result/0),
    [] = Faults,
    true = Downs >= 5.

downs(Vm) ->
    length([Node || {nodedown, Node} <- seen(Vm, watch)]).

alternate([], _) -> ok;
alternate([{nodedown, N}, {nodeup, N} | Rest], N) -> alternate(Rest, N).

start_senders(Count, To) ->
    _ = [spawn_sender(Number, To) || Number <- lists:seq(1, Count)],
    ok.

spawn_sender(Number, To) ->
    Options = lists:nth(1 + Number rem 4, [
        #{},
        #{channel => bulk},
        #{partition_key => Number},
        #{channel => bulk, partition_key => Number}
    ]),
    Size = lists:nth(1 + Number rem 3, [10, 1000, 200000]),
    Body = binary:copy(<<"x">>, Size),
    spawn(fun() ->
        true = register(list_to_atom("sender" ++ integer_to_list(Number)), self()),
        sender(Number, 1, {sink, To}, Body, Options)
    end).

%% A number is given away once it was accepted, so none is missing but what a down has swallowed.
sender(Number, N, To, Body, Options) ->
    receive
        {stop, From} -> From ! {self(), Number, N - 1}
    after 0 ->
        case partisan:forward_message(To, {Number, N, Body}, Options) of
            ok ->
                pace(N),
                sender(Number, N + 1, To, Body, Options);
            {error, _} ->
                timer:sleep(1),
                sender(Number, N, To, Body, Options)
        end
    end.

%% Load, but no more than two shared cores can take.
pace(N) when N rem 20 =:= 0 -> timer:sleep(1);
pace(_) -> ok.

stop_senders() ->
    Names = [Name || Name <- registered(), lists:prefix("sender", atom_to_list(Name))],
    maps:from_list([
        begin
            Pid = whereis(Name),
            Pid ! {stop, self()},
            receive
                {Pid, Number, Last} -> {Number, Last}
            end
        end
     || Name <- Names
    ]).

start_sink() ->
    Caller = self(),
    Pid = spawn(fun() ->
        true = register(sink, self()),
        ok = partisan:monitor_nodes(true),
        Caller ! {ready, self()},
        sink(#{last => #{}, downs => 0, count => 0, faults => []})
    end),
    receive
        {ready, Pid} -> ok
    end.

sink(#{last := Last, downs := Downs, count := Count, faults := Faults} = State) ->
    receive
        {nodedown, _} ->
            sink(State#{downs := Downs + 1});
        {nodeup, _} ->
            sink(State);
        {ask, From} ->
            From ! {sink, State},
            sink(State);
        {Sender, N, _} ->
            {Before, DownsThen} = maps:get(Sender, Last, {0, 0}),
            Fault =
                case N of
                    _ when N =:= Before + 1 -> [];
                    _ when N > Before, Downs > DownsThen -> [];
                    _ -> [{Sender, Before, N, DownsThen, Downs}]
                end,
            sink(State#{
                last := Last#{Sender => {N, Downs}}, count := Count + 1, faults := Fault ++ Faults
            })
    end.

ask_sink() ->
    sink ! {ask, self()},
    receive
        {sink, State} -> State
    end.

sink_count() ->
    maps:get(count, ask_sink()).

sink_has_all(Sent) ->
    #{last := Last} = ask_sink(),
    maps:map(fun(_, {N, _}) -> N end, Last) =:= Sent.

sink_result() ->
    #{downs := Downs, count := Count, faults := Faults} = ask_sink(),
    {Downs, Count, Faults}.

%%%-------------------------------------------------------------------------------------------
%%% Ends and beginnings of the application
%%%-------------------------------------------------------------------------------------------

manager_killed(_) ->
    [A, B] = Both = [start(?A, with_env(quick())), start(?B, with_env(quick()))],
    ok = partisan_ct:join(A, B),
    ok = watch(A),
    ok = run(B, fun start_sink/0),
    ok = run(A, fun() -> start_senders(8, ?B) end),
    Threads = [threads(Vm) || Vm <- Both],
    _ = [
        begin
            Count = call(B, ?MODULE, sink_count, []),
            ok = wait(fun() -> call(B, ?MODULE, sink_count, []) > Count end),
            ok = partisan_ct:kill_process(Vm, ?MANAGER),
            ok = wait(fun() -> call(Vm, partisan, is_alive, []) end),
            ok = wait_connected(A, B)
        end
     || Vm <- [B, B, A, B]
    ],
    Count = call(B, ?MODULE, sink_count, []),
    ok = wait(fun() -> call(B, ?MODULE, sink_count, []) > Count end),
    _ = run(A, fun stop_senders/0),
    ok = wait(fun() -> Threads =:= [threads(Vm) || Vm <- Both] end),
    ok = wait(fun() ->
        lists:all(fun(Vm) -> {ok, [?A, ?B]} =:= call(Vm, partisan_peer_service, members, []) end, Both)
    end).

nothing_is_left(_) ->
    A = start(?A, with_env(quick())),
    B = start(?B, (with_env(quick() ++ [{parallelism, 4}]))#{start => false}),
    Sockets = sockets(B),
    Descriptors = descriptors(B),
    0 = threads(B),
    _ = [
        begin
            {ok, _} = call(B, partisan, start, []),
            case Round of
                1 -> ok = partisan_ct:join(B, A);
                _ -> ok = wait_connected(A, B)
            end,
            true = threads(B) > 0,
            true = sockets(B) > Sockets,
            %% Under load, both ways.
            ok = run(B, fun() -> start_senders(4, ?A) end),
            ok = run(A, fun() ->
                Body = binary:copy(<<"x">>, 100000),
                _ = [partisan:forward_message({nobody, ?B}, Body) || _ <- lists:seq(1, 20)],
                ok
            end),
            ok = call(B, partisan, stop, []),
            ?assertEqual({Round, 0, Sockets}, {Round, threads(B), sockets(B)}),
            _ = run(B, fun stop_senders/0),
            %% Those who waited may have had a queue's wake-up in hand.
            ok = wait(fun() -> descriptors(B) =:= Descriptors end)
        end
     || Round <- lists:seq(1, 20)
    ],
    ok.

threads(Vm) ->
    Names = filelib:wildcard("/proc/" ++ partisan_ct:os_pid(Vm) ++ "/task/*/comm"),
    length([
        x
     || Name <- Names,
        {ok, <<"partisan", _/binary>>} <- [file:read_file(Name)]
    ]).

sockets(Vm) ->
    open(Vm, ["socket:"]).

descriptors(Vm) ->
    open(Vm, ["socket:", "anon_inode:[eventpoll]", "anon_inode:[eventfd]"]).

open(Vm, Kinds) ->
    Dir = "/proc/" ++ partisan_ct:os_pid(Vm) ++ "/fd",
    {ok, Names} = file:list_dir(Dir),
    Links = [file:read_link(filename:join(Dir, Name)) || Name <- Names],
    length([x || {ok, Link} <- Links, Kind <- Kinds, lists:prefix(Kind, Link)]).

%% A VM that ends in the middle of it all exits as it was told to, and doesn't crash.
halt_under_load(Config) ->
    A = start(?A, with_env(quick())),
    ok = run(A, fun start_sink/0),
    ok = run(A, fun() -> start_senders(4, ?B) end),
    _ = [
        begin
            Dir = filename:join(?config(priv_dir, Config), How ++ integer_to_list(Round)),
            ok = filelib:ensure_dir(filename:join(Dir, "x")),
            Count = call(A, ?MODULE, sink_count, []),
            ?assertEqual({How, Round, 0}, {How, Round, run_and_halt(Dir, A, How)}),
            ?assertEqual({ok, []}, file:list_dir(Dir)),
            ok = wait(fun() -> call(A, ?MODULE, sink_count, []) > Count end)
        end
     || Round <- lists:seq(1, 3), How <- ["halt", "halt_no_flush", "init_stop"]
    ],
    _ = run(A, fun stop_senders/0),
    ok.

run_and_halt(Dir, #{port := Port}, How) ->
    Paths = lists:append([["-pa", P] || P <- code:get_path(), filename:basename(P) =/= "."]),
    Command = ["ulimit -c unlimited; exec \"$@\""],
    Erl = [os:find_executable("erl"), "-noinput"] ++ Paths ++
        ["-run", ?MODULE_STRING, "halt_main", integer_to_list(Port), How],
    Process = open_port({spawn_executable, "/bin/sh"}, [
        {args, ["-c"] ++ Command ++ ["sh"] ++ Erl}, {cd, Dir}, exit_status, stderr_to_stdout, binary
    ]),
    exit_status(Process).

exit_status(Process) ->
    receive
        {Process, {data, Text}} ->
            ct:log("~ts", [Text]),
            exit_status(Process);
        {Process, {exit_status, Status}} ->
            Status
    after 60000 -> error(no_end)
    end.

halt_main([Port, How]) ->
    _ = [
        application:set_env(partisan, Key, Value)
     || {Key, Value} <- [
            {name, ?B},
            {cookie, partisan_ct:cookie()},
            {listen_addrs, [#{ip => {127, 0, 0, 1}, port => 0}]}
            | quick()
        ]
    ],
    {ok, _} = application:ensure_all_started(partisan),
    Spec = spec(#{name => ?A, port => list_to_integer(Port)}),
    ok = partisan_peer_service:sync_join(Spec),
    ok = start_sink(),
    ok = start_senders(8, ?A),
    ok = wait(fun() -> sink_count() > 500 end),
    case How of
        "halt" -> halt(0);
        "halt_no_flush" -> halt(0, [{flush, false}]);
        "init_stop" -> init:stop()
    end.
