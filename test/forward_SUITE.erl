%% @doc Sending: destinations, options, results, and what becomes of pids and references in
%% messages, on real nodes.
%%
%% Two nodes, `a' and `b', live as long as the suite; cases that stop, freeze or reconfigure nodes
%% have their own.
-module(forward_SUITE).

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
        received_references,
        native_pids
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
    after 60000 -> error({missing, Message})
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
            #{ack => 1},
            neither_map_nor_list
        ],
        _ = [
            {O, {'EXIT', {badarg, _}}} = {O, catch partisan:forward_message(?B, probe, bad, O)}
         || O <- Bad
        ],
        _ = [
            {error, {unknown_label, x}} =
                partisan:forward_message(?B, probe, bad, #{causal_label => x, ack => Ack})
         || Ack <- [true, false]
        ],
        ok = partisan:forward_message(?B, probe, last, #{ack => false, transitive => true})
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
    Options = #{env => [{forward_options, [{channel, strange}, {channel_fallback, false}]}]},
    with([{'f1@127.0.0.1', Options}, {'f2@127.0.0.1', #{}}], fun([F1, F2]) ->
        ok = partisan_ct:join(F1, F2),
        ok = probe(F2, probe),
        To = {probe, 'f2@127.0.0.1'},
        Send = fun(Opts) -> call(F1, partisan, forward_message, [To, Opts, Opts]) end,
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
            To = {sink, 'q2@127.0.0.1'},
            {error, timeout} = partisan:forward_message(To, large(), #{timeout => 10}),
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
%%% Pids and references in messages
%%%-------------------------------------------------------------------------------------------

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
                after 60000 -> error(no_echo)
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
                    after 60000 -> error({no_echo, N})
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
