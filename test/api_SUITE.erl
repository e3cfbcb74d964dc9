%% @doc The functions of `partisan', `partisan_peer_service' and `partisan_config', on real nodes.
%%
%% Two nodes, `a' and `b', live as long as the suite; cases that stop, freeze or reconfigure nodes
%% have their own.
-module(api_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-compile(export_all).

-define(A, 'a@127.0.0.1').
-define(B, 'b@127.0.0.1').
-define(NOBODY, 'nobody@127.0.0.1').

-import(partisan_ct, [call/4, run/2, probe/2, inside/3, await/3, seen/2, forget/2]).

suite() ->
    [{timetrap, {seconds, 30}}].

all() ->
    [
        start_stop,
        names_and_nodes,
        specifications,
        connectedness,
        remote_destinations,
        local_destinations,
        bad_destinations,
        unknown_destinations,
        send_and_cast,
        not_connected,
        channels,
        options,
        forward_options,
        full_queue,
        full_queue_peer_dies,
        full_queue_stop,
        monitor_node,
        monitor_nodes,
        on_up_and_down,
        process_alive,
        processes_and_references,
        received_references,
        native_pids,
        peer_service,
        membership_events,
        disconnect_node,
        configuration,
        network_monitor
    ].

init_per_suite(Config) ->
    Env = [{channels, [{bulk, #{parallelism => 3}}]}],
    A = partisan_ct:start(?A, #{env => Env}),
    B = partisan_ct:start(?B, #{env => Env}),
    ok = partisan_ct:keep_log(A),
    ok = partisan_ct:keep_log(B),
    ok = partisan_ct:join(A, B),
    [{a, A}, {b, B} | Config].

end_per_suite(Config) ->
    ok = partisan_ct:stop(?config(a, Config)),
    ok = partisan_ct:stop(?config(b, Config)).

init_per_testcase(_, Config) ->
    A = ?config(a, Config),
    B = ?config(b, Config),
    ok = partisan_ct:wait(fun() ->
        call(A, partisan, is_connected, [?B]) andalso call(B, partisan, is_connected, [?A])
    end),
    _ = [restart_probe(Vm, probe) || Vm <- [A, B]],
    Config.

restart_probe(Vm, Name) ->
    run(Vm, fun() ->
        case whereis(Name) of
            undefined ->
                ok;
            Pid ->
                Ref = monitor(process, Pid),
                exit(Pid, kill),
                receive
                    {'DOWN', Ref, _, _, _} -> ok
                end
        end
    end),
    ok = probe(Vm, Name).

is(Value) ->
    fun(Message) -> Message =:= Value end.

%% Runs a fun with nodes that are stopped afterwards, whatever happens.
with(Starts, Fun) ->
    Vms = [partisan_ct:start(Name, Options) || {Name, Options} <- Starts],
    try
        Fun(Vms)
    after
        [partisan_ct:stop(Vm) || Vm <- Vms]
    end.

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
%%% Destinations
%%%-------------------------------------------------------------------------------------------

%% Every form of a destination on another node, each with its own message.
remote_destinations(Config) ->
    A = ?config(a, Config),
    B = ?config(b, Config),
    Refs = lists:append([
        begin
            ok = call(B, partisan_config, set, [remote_ref_format, Format]),
            Pid = inside(B, probe, fun() -> partisan:self() end),
            Name = run(B, fun() -> partisan_remote_ref:from_term(probe) end),
            [Pid, Name]
        end
     || Format <- [uri, tuple, improper_list]
    ]),
    6 = length(lists:usort(Refs)),
    Targets = lists:usort([call(A, partisan_remote_ref, target, [Ref]) || Ref <- Refs]),
    [{encoded_name, "probe"}, {encoded_pid, "<0." ++ _}] = Targets,
    Anywhere = [{probe, ?B} | Refs],
    OnB = [probe | Targets] ++ Anywhere,
    Calls =
        [[Dest, {two, Dest}] || Dest <- Anywhere] ++
            [[Dest, {three, Dest}, #{channel => bulk}] || Dest <- Anywhere] ++
            [[?B, Dest, {four, Dest}, []] || Dest <- OnB] ++
            %% A reference says where it is, whatever node stands beside it.
            [[?A, Dest, {elsewhere, Dest}, []] || Dest <- Refs],
    [ok = call(A, partisan, forward_message, Args) || Args <- Calls],
    Wanted = lists:sort([lists:nth(position(Args), Args) || Args <- Calls]),
    ok = partisan_ct:wait(fun() -> length(seen(B, probe)) >= length(Wanted) end),
    Wanted = lists:sort(seen(B, probe)),
    %% The same through the manager's own functions.
    Manager = call(A, partisan_peer_service, manager, []),
    ok = call(A, Manager, forward_message, [{probe, ?B}, m2]),
    ok = call(A, Manager, forward_message, [{probe, ?B}, m3, []]),
    ok = call(A, Manager, forward_message, [?B, probe, m4, []]),
    [_ = await(B, probe, is(M)) || M <- [m2, m3, m4]].

position([Node | _] = Args) when length(Args) =:= 4, is_atom(Node) -> 3;
position(_) -> 2.

local_destinations(Config) ->
    A = ?config(a, Config),
    ok = run(A, fun() ->
        Self = self(),
        true = register(here, Self),
        yes = global:register_name(here, Self),
        Pid = partisan:self(),
        Name = partisan_remote_ref:from_term(here),
        PidTarget = partisan_remote_ref:target(Pid),
        Anywhere = [Self, here, {here, ?A}, Pid, Name, {via, global, here}, {global, here}],
        Here = Anywhere ++ [PidTarget, {encoded_name, "here"}],
        _ = [got(ok, partisan:forward_message(D, {two, D}), {two, D}) || D <- Anywhere],
        _ = [got(ok, partisan:forward_message(D, {three, D}, []), {three, D}) || D <- Anywhere],
        _ = [got(ok, partisan:forward_message(?A, D, {four, D}, #{}), {four, D}) || D <- Here],
        %% Nobody there: two and three arguments fail for a name, four never do.
        {'EXIT', {badarg, _}} = (catch partisan:forward_message(nowhere, x)),
        {'EXIT', {badarg, _}} = (catch partisan:forward_message(nowhere, x, #{})),
        {'EXIT', {badarg, _}} = (catch partisan:forward_message({nowhere, ?A}, x)),
        ok = partisan:forward_message(?A, nowhere, x, #{}),
        ok = partisan:forward_message({via, global, nowhere}, x),
        ok = partisan:forward_message({global, nowhere}, x),
        ok = partisan:forward_message({via, no_such_module, nowhere}, x),
        true = unregister(here),
        _ = global:unregister_name(here),
        ok
    end).

got(Wanted, Result, Message) ->
    Wanted = Result,
    receive
        Message -> ok
    after 1000 -> error({missing, Message})
    end.

bad_destinations(Config) ->
    A = ?config(a, Config),
    ok = run(A, fun() ->
        Ref = partisan:make_ref(),
        Bad = [Ref, "text", <<"text">>, 17, {encoded_pid, "<0.1.0>"}, {a, b, c}, [?B | <<"#Pid<x>">>]],
        _ = [{'EXIT', {badarg, _}} = (catch partisan:forward_message(D, x)) || D <- Bad],
        _ = [{'EXIT', {badarg, _}} = (catch partisan:forward_message(D, x, [])) || D <- Bad],
        Nowhere = [Ref, "text", 17, {encoded_pid, "nonsense"}, {encoded_ref, "#Ref<0.1.2.3>"}],
        _ = [{'EXIT', {badarg, _}} = (catch partisan:forward_message(?B, D, x, [])) || D <- Nowhere],
        {'EXIT', {badarg, _}} = (catch partisan:forward_message("b", probe, x, [])),
        ok
    end).

%% A name or process that isn't there: `ok', dropped at the destination with a line in the log.
unknown_destinations(Config) ->
    A = ?config(a, Config),
    B = ?config(b, Config),
    Dead = run(B, fun() ->
        {Pid, Monitor} = spawn_monitor(fun() -> ok end),
        receive
            {'DOWN', Monitor, _, _, _} -> partisan_remote_ref:from_term(Pid)
        end
    end),
    ok = call(A, partisan, forward_message, [{nobody_is_called_so, ?B}, hello]),
    ok = call(A, partisan, forward_message, [Dead, hello]),
    ok = call(A, partisan, forward_message, [{probe, ?B}, after_those]),
    _ = await(B, probe, is(after_those)),
    ok = partisan_ct:await_line(B, "do not exist were dropped"),
    true = call(A, partisan, is_connected, [?B]).

send_and_cast(Config) ->
    A = ?config(a, Config),
    B = ?config(b, Config),
    one = call(A, partisan, send, [{probe, ?B}, one]),
    ok = call(A, partisan, send, [{probe, ?B}, two, [{channel, bulk}]]),
    lost = call(A, partisan, send, [{probe, ?NOBODY}, lost]),
    ?assertError(badarg, run(A, fun() -> partisan:send(nowhere, x) end)),
    {error, not_yet_connected} = call(A, partisan, send, [{probe, ?NOBODY}, lost, []]),
    ok = call(A, partisan, cast_message, [{probe, ?B}, three]),
    ok = call(A, partisan, cast_message, [{probe, ?B}, four, #{channel => bulk}]),
    ok = call(A, partisan, cast_message, [?B, probe, five, []]),
    ok = call(A, partisan, cast_message, [{probe, ?NOBODY}, lost]),
    ok = call(A, partisan, cast_message, [?NOBODY, probe, lost, []]),
    ok = call(A, partisan, cast_message, [nowhere, lost]),
    Manager = call(A, partisan_peer_service, manager, []),
    ok = call(A, Manager, cast_message, [?B, probe, six]),
    Casts = [{'$gen_cast', M} || M <- [three, four, five, six]],
    [_ = await(B, probe, is(M)) || M <- [one, two | Casts]].

%%%-------------------------------------------------------------------------------------------
%%% Results and options
%%%-------------------------------------------------------------------------------------------

not_connected(_) ->
    with([{'n1@127.0.0.1', #{}}, {'n2@127.0.0.1', #{}}], fun([N1, N2]) ->
        Send = fun() -> call(N1, partisan, forward_message, [{x, 'n2@127.0.0.1'}, hello]) end,
        {error, not_yet_connected} = Send(),
        ok = partisan_ct:join(N1, N2),
        ok = Send(),
        ok = call(N2, partisan, stop, []),
        ok = partisan_ct:wait(fun() -> Send() =:= {error, disconnected} end),
        {error, disconnected} =
            call(N1, partisan, forward_message, ['n2@127.0.0.1', x, hello, #{channel => strange}])
    end).

channels(Config) ->
    A = ?config(a, Config),
    B = ?config(b, Config),
    Send = fun(Message, Opts) -> call(A, partisan, forward_message, [?B, probe, Message, Opts]) end,
    ok = Send(one, #{channel => bulk}),
    ok = Send(two, #{channel => strange}),
    ok = Send(three, #{channel => strange, channel_fallback => true}),
    {error, disconnected} = Send(lost, #{channel => strange, channel_fallback => false}),
    ok = call(A, partisan_config, set, [channel_fallback, false]),
    {error, disconnected} = Send(lost, #{channel => strange}),
    {error, disconnected} = Send(lost, [{channel, strange}]),
    ok = Send(four, #{channel => bulk}),
    ok = Send(five, #{channel => strange, channel_fallback => true}),
    ok = call(A, partisan_config, set, [channel_fallback, true]),
    [_ = await(B, probe, is(M)) || M <- [one, two, three, four, five]],
    5 = length(seen(B, probe)).

options(Config) ->
    A = ?config(a, Config),
    B = ?config(b, Config),
    Good = [
        [],
        #{},
        [nosuspend],
        #{partition_key => 0},
        #{partition_key => 1 bsl 70},
        #{partition_key => 7, channel => bulk},
        [{channel, bulk}, {partition_key, 8}],
        #{timeout => infinity},
        #{timeout => 0},
        #{timeout => 100, nosuspend => false},
        #{nosuspend => true, channel => bulk},
        #{unheard_of => x}
    ],
    [ok = call(A, partisan, forward_message, [?B, probe, {good, O}, O]) || O <- Good],
    [_ = await(B, probe, is({good, O})) || O <- Good],
    ok = run(A, fun() ->
        Bad = [
            #{partition_key => -1},
            #{partition_key => key},
            #{partition_key => 1.0},
            #{channel => "bulk"},
            #{timeout => -1},
            #{timeout => soon},
            #{nosuspend => 1},
            #{channel_fallback => maybe_},
            neither_map_nor_list
        ],
        _ = [
            {O, {'EXIT', {badarg, _}}} = {O, catch partisan:forward_message(?B, probe, bad, O)}
         || O <- Bad
        ],
        _ = [
            {error, {not_supported, Option}} =
                partisan:forward_message(?B, probe, bad, #{Option => Value})
         || {Option, Value} <- [{ack, true}, {causal_label, x}, {transitive, true}]
        ],
        ok = partisan:forward_message(?B, probe, last, #{ack => false, transitive => false})
    end),
    _ = await(B, probe, is(last)),
    [] = [M || M <- seen(B, probe), M =:= bad],
    %% With one key, messages of one sender arrive in order; without, too.
    ok = run(A, fun() ->
        _ = [
            ok = partisan:forward_message(?B, probe, {order, Key, N}, Opts)
         || N <- lists:seq(1, 500),
            {Key, Opts} <- [{1, #{partition_key => 1, channel => bulk}},
                            {2, #{partition_key => 2, channel => bulk}},
                            {none, #{channel => bulk}}]
        ],
        ok
    end),
    ok = partisan_ct:wait(fun() ->
        length([x || {order, _, _} <- seen(B, probe)]) =:= 1500
    end),
    Seen = seen(B, probe),
    [?assertEqual(lists:seq(1, 500), [N || {order, K, N} <- Seen, K =:= Key]) || Key <- [1, 2, none]].

forward_options(_) ->
    Options = [{channel, strange}, {channel_fallback, false}],
    with([{'f1@127.0.0.1', #{env => [{forward_options, Options}]}}, {'f2@127.0.0.1', #{}}], fun([F1, F2]) ->
        ok = partisan_ct:join(F1, F2),
        ok = probe(F2, probe),
        Send = fun(Opts) -> call(F1, partisan, forward_message, [{probe, 'f2@127.0.0.1'}, Opts, Opts]) end,
        {error, disconnected} = Send([]),
        %% What the call says wins.
        ok = Send(#{channel => undefined}),
        ok = Send([channel_fallback]),
        ok = call(F1, partisan_config, set, [forward_options, #{partition_key => -1}]),
        {badarg, _} = (catch run(F1, fun() ->
            try partisan:forward_message({probe, 'f2@127.0.0.1'}, x) catch error:R -> {R, here} end
        end)),
        ok = Send(#{partition_key => 3}),
        ok = call(F1, partisan_config, set, [forward_options, #{}]),
        ok = Send([]),
        [_ = await(F2, probe, is(M)) || M <- [#{channel => undefined}, #{partition_key => 3}, []]]
    end).

%% A peer that doesn't read: the queue is full, and says so as asked.
full_queue(_) ->
    with_full_queue(fun(Q1, Q2, Send) ->
        {error, busy} = Send(#{nosuspend => true}),
        {error, busy} = Send([nosuspend]),
        {error, timeout} = Send(#{timeout => 0}),
        {Micros, {error, timeout}} = timer:tc(fun() -> Send(#{timeout => 200}) end),
        true = Micros >= 200000,
        %% No wake-up is left behind.
        [] = inside(Q1, sender, fun() ->
            {error, timeout} = partisan:forward_message({sink, 'q2@127.0.0.1'}, large(), #{timeout => 10}),
            erlang:process_info(self(), messages) =:= {messages, []} orelse exit(stray),
            []
        end),
        ok = start_waiter(Q1),
        ok = signal(Q2, "CONT"),
        {waited, ok} = await(Q1, outcome, fun({waited, _}) -> true end)
    end).

full_queue_peer_dies(_) ->
    with_full_queue(fun(Q1, Q2, _) ->
        ok = start_waiter(Q1),
        _ = os:cmd("kill -9 " ++ partisan_ct:os_pid(Q2)),
        {waited, {error, disconnected}} = await(Q1, outcome, fun({waited, _}) -> true end)
    end).

full_queue_stop(_) ->
    with_full_queue(fun(Q1, _, _) ->
        ok = start_waiter(Q1),
        ok = call(Q1, partisan, stop, []),
        {waited, {error, notalive}} = await(Q1, outcome, fun({waited, _}) -> true end)
    end).

with_full_queue(Fun) ->
    Options = #{env => [{queue_bytes, 65536}]},
    with([{'q1@127.0.0.1', Options}, {'q2@127.0.0.1', #{}}], fun([Q1, Q2]) ->
        ok = partisan_ct:join(Q1, Q2),
        ok = probe(Q1, sender),
        ok = probe(Q1, outcome),
        ok = signal(Q2, "STOP"),
        try
            Send = fun(Opts) ->
                inside(Q1, sender, fun() ->
                    partisan:forward_message({sink, 'q2@127.0.0.1'}, large(), Opts)
                end)
            end,
            ok = fill(Q1, Send),
            Fun(Q1, Q2, Send)
        after
            signal(Q2, "CONT")
        end
    end).

%% Until the sockets take nothing more: full ten times in a row, and what is queued doesn't shrink.
fill(Vm, Send) ->
    fill(Vm, Send, 10, 0).

fill(_, _, 0, _) ->
    ok;
fill(Vm, Send, Times, Queued) ->
    case {Send(#{nosuspend => true}), call(Vm, partisan_nif, queued, [])} of
        {{error, busy}, Queued} ->
            timer:sleep(10),
            fill(Vm, Send, Times - 1, Queued);
        {_, Changed} ->
            fill(Vm, Send, 10, Changed)
    end.

large() ->
    binary:copy(<<"x">>, 200000).

start_waiter(Vm) ->
    Waiter = run(Vm, fun() ->
        Pid = spawn(fun() ->
            outcome ! {waited, partisan:forward_message({sink, 'q2@127.0.0.1'}, large(), #{})}
        end),
        pid_to_list(Pid)
    end),
    partisan_ct:wait(fun() ->
        run(Vm, fun() ->
            case erlang:process_info(list_to_pid(Waiter), status) of
                {status, waiting} -> true;
                _ -> false
            end
        end)
    end).

signal(Vm, Signal) ->
    _ = os:cmd("kill -" ++ Signal ++ " " ++ partisan_ct:os_pid(Vm)),
    ok.

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
    true = run(A, fun() -> exit(whereis(bounce), kill) end),
    ok = partisan_ct:wait(fun() -> call(A, erlang, whereis, [bounce]) =:= undefined end).

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
         || Args <- [[?B, not_a_fun], [?B, fun(_, _, _) -> ok end], [?B, fun() -> ok end, #{channel => "x"}]]
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

%% What a pid and a reference in a message become, and that they lead back, in every format and
%% whatever format the other end has.
received_references(Config) ->
    B = ?config(b, Config),
    _ = [
        with([{'r@127.0.0.1', #{env => [{remote_ref_format, Format} | Env]}}], fun([R]) ->
            ok = probe(R, probe),
            ok = partisan_ct:join(R, B),
            Sent = inside(R, probe, fun() ->
                Ref = make_ref(),
                ok = partisan:forward_message({probe, ?B}, {hello, Format, self(), [Ref]}),
                ref_to_list(Ref)
            end),
            {hello, Format, Pid, [Ref]} =
                await(B, probe, fun(M) -> is_tuple(M) andalso element(1, M) =:= hello end),
            ?assertEqual(Format, format(Pid)),
            ?assertEqual(Format, format(Ref)),
            ok = inside(B, probe, fun() ->
                true = partisan:is_pid(Pid),
                true = partisan:is_reference(Ref),
                'r@127.0.0.1' = partisan:node(Pid),
                'r@127.0.0.1' = partisan:node(Ref),
                true = partisan:is_process_alive(Pid),
                ok = partisan:forward_message(Pid, {answer, 2, Ref, self()}),
                ok = partisan:forward_message(Pid, {answer, 3, Ref, self()}, #{channel => bulk}),
                ok = partisan:forward_message('r@127.0.0.1', Pid, {answer, 4, Ref, self()}, []),
                {answer, send, _, _} = partisan:send(Pid, {answer, send, Ref, self()}),
                ok = partisan:cast_message(Pid, {answer, cast, Ref, self()})
            end),
            ok = partisan_ct:wait(fun() -> length(seen(R, probe)) =:= 5 end),
            Answers = [
                case A of
                    {'$gen_cast', Cast} -> Cast;
                    _ -> A
                end
             || A <- seen(R, probe)
            ],
            [2, 3, 4, cast, send] = lists:sort([What || {answer, What, _, _} <- Answers]),
            _ = [
                begin
                    %% The reference came home as what it was made into, and can be compared.
                    true = run(R, fun() ->
                        ref_to_list(partisan_remote_ref:to_reference(Back)) =:= Sent
                    end),
                    ?B = call(R, partisan, node, [Peer])
                end
             || {answer, _, Back, Peer} <- Answers
            ],
            _ = forget(B, probe),
            ok = call(R, partisan_peer_service, leave, []),
            ok = partisan_ct:wait(fun() ->
                not call(B, partisan_peer_service, member, ['r@127.0.0.1'])
            end)
        end)
     || {Format, Env} <- [
            {improper_list, []},
            {uri, []},
            {uri, [{remote_ref_uri_padding, true}]},
            {tuple, []}
        ]
    ],
    ok.

format([_ | B]) when is_binary(B) -> improper_list;
format(<<"partisan:", _/binary>>) -> uri;
format({partisan_remote_ref, _, _}) -> tuple;
format(Other) -> Other.

%% Without encoding, pids and references travel as themselves, and a pid of another node is a
%% destination.
native_pids(_) ->
    Options = #{env => [{pid_encoding, false}, {ref_encoding, false}]},
    with([{'p1@127.0.0.1', Options}, {'p2@127.0.0.1', Options}], fun([P1, P2]) ->
        ok = partisan_ct:join(P1, P2),
        ok = probe(P1, probe),
        ok = run(P2, fun() ->
            _ = spawn(fun() ->
                true = register(echo, self()),
                echo_loop()
            end),
            ok
        end),
        ok = partisan_ct:wait(fun() -> call(P2, erlang, whereis, [echo]) =/= undefined end),
        ok = run(P1, fun() ->
            Ref = make_ref(),
            Self = self(),
            Port = hd(erlang:ports()),
            Fun = fun() -> {Self, Ref} end,
            ok = partisan:forward_message({echo, 'p2@127.0.0.1'}, {Self, {Ref, Port, Fun}}),
            Echo =
                receive
                    {From, {Ref, Port, Fun}} -> From
                after 5000 -> error(no_echo)
                end,
            true = is_pid(Echo),
            'p2@127.0.0.1' = node(Echo),
            'p2@127.0.0.1' = partisan:node(Echo),
            true = partisan:is_process_alive(Echo),
            _ = [
                begin
                    ok = Send(),
                    receive
                        {Echo, N} -> ok
                    after 5000 -> error({no_echo, N})
                    end
                end
             || {N, Send} <- [
                    {2, fun() -> partisan:forward_message(Echo, {Self, 2}) end},
                    {3, fun() -> partisan:forward_message(Echo, {Self, 3}, []) end},
                    {4, fun() -> partisan:forward_message('p2@127.0.0.1', Echo, {Self, 4}, []) end},
                    {5, fun() -> partisan:forward_message('p1@127.0.0.1', Echo, {Self, 5}, []) end}
                ]
            ],
            ok
        end)
    end).

echo_loop() ->
    receive
        {From, What} -> ok = partisan:forward_message(From, {self(), What})
    end,
    echo_loop().

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
