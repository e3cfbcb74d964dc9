%% @doc Acknowledged and causal messages on real nodes whose sessions break, that freeze, and that restart.
-module(delivery_SUITE).

-include_lib("stdlib/include/assert.hrl").

-compile(export_all).

-define(A, 'a@127.0.0.1').
-define(B, 'b@127.0.0.1').
-define(C, 'c@127.0.0.1').

-import(partisan_ct, [call/4, run/2, probe/2, seen/2, with/2, wait/1]).

suite() ->
    [{timetrap, {seconds, 180}}].

all() ->
    [
        sessions_break,
        a_frozen_node,
        a_restarted_node,
        default_options,
        causal_order
    ].

%% Once and in order, on two channels, from two senders.
sessions_break(_) ->
    Env = #{env => [{channels, [bulk]}]},
    with([{?A, Env}, {?B, Env}], fun([A, B]) ->
        ok = partisan_ct:join(A, B),
        ok = probe(B, probe),
        Send = fun(Channel) ->
            run(A, fun() ->
                _ = [
                    begin
                        _ = [partisan_nif:command(none, {disconnect, ?B}) || N rem 200 =:= 100],
                        ok = partisan:forward_message({probe, ?B}, {Channel, N}, #{ack => true, channel => Channel})
                    end
                 || N <- lists:seq(1, 1000)
                ],
                ok
            end)
        end,
        ok = partisan_ct:in_parallel([fun() -> ok = Send(undefined) end, fun() -> ok = Send(bulk) end]),
        ok = wait(fun() -> length(seen(B, probe)) >= 2000 end),
        Seen = seen(B, probe),
        [
            ?assertEqual(lists:seq(1, 1000), [N || {Channel, N} <- Seen, Channel =:= Wanted])
         || Wanted <- [undefined, bulk]
        ],
        %% By pid and by cast too, and on the own node.
        Pid = partisan_ct:inside(B, probe, fun() -> partisan:self() end),
        ok = call(A, partisan, forward_message, [Pid, by_pid, [ack]]),
        ok = call(A, partisan, cast_message, [{probe, ?B}, hi, [ack]]),
        _ = partisan_ct:await(B, probe, fun(M) -> M =:= {'$gen_cast', hi} end),
        ?assertEqual([by_pid, {'$gen_cast', hi}], lists:nthtail(2000, seen(B, probe))),
        ok = probe(A, own),
        ok = call(A, partisan, forward_message, [{own, ?A}, here, #{ack => true}]),
        ?assertEqual([here], seen(A, own))
    end).

%% The store fills, senders wait or are told; all of it arrives when the node goes on.
a_frozen_node(_) ->
    Ping = {connection_ping, #{enabled => true, idle_timeout => 300, timeout => 300, max_attempts => 1}},
    Env = #{env => [{ack_bytes, 400000}, Ping]},
    with([{?A, Env}, {?B, Env}], fun([A, B]) ->
        ok = partisan_ct:join(A, B),
        ok = probe(B, probe),
        _ = os:cmd("kill -STOP " ++ partisan_ct:os_pid(B)),
        ok = wait(fun() -> not call(A, partisan, is_connected, [?B]) end),
        Send = fun(N, Options) ->
            Message = {N, binary:copy(<<N:32>>, 1000)},
            call(A, partisan, forward_message, [{probe, ?B}, Message, Options#{ack => true}])
        end,
        Count = fill(Send, 1),
        ?assert(Count > 15 andalso Count < 30),
        ?assertEqual({error, timeout}, Send(Count, #{timeout => 50})),
        ?assertEqual({error, timeout}, Send(Count, #{timeout => 0})),
        Self = self(),
        _ = spawn_link(fun() -> Self ! {last, Send(Count, #{})} end),
        _ = os:cmd("kill -CONT " ++ partisan_ct:os_pid(B)),
        receive
            {last, Result} -> ?assertEqual(ok, Result)
        end,
        ok = wait(fun() -> length(seen(B, probe)) >= Count end),
        ?assertEqual(lists:seq(1, Count), [N || {N, _} <- seen(B, probe)])
    end).

%% The number of the message that there was no room for.
fill(Send, N) ->
    case Send(N, #{nosuspend => true}) of
        ok -> fill(Send, N + 1);
        {error, busy} -> N
    end.

%% A new incarnation gets what the old one did not acknowledge. Of a node that leaves it is dropped.
a_restarted_node(_) ->
    Port = partisan_ct:port(),
    with([{?A, #{}}], fun([A]) ->
        B1 = partisan_ct:start_owned(?B, #{port => Port}),
        ok = partisan_ct:join(B1, A),
        ok = partisan_ct:kill(B1),
        ok = wait(fun() -> not call(A, partisan, is_connected, [?B]) end),
        _ = [ok = call(A, partisan, forward_message, [{probe, ?B}, N, #{ack => true}]) || N <- lists:seq(1, 100)],
        ?assertEqual({error, disconnected}, call(A, partisan, forward_message, [{probe, ?B}, plain, #{}])),
        B2 = partisan_ct:start_owned(?B, #{port => Port, start => false}),
        ok = probe(B2, probe),
        {ok, _} = call(B2, application, ensure_all_started, [partisan]),
        ok = wait(fun() -> length(seen(B2, probe)) >= 100 end),
        ?assertEqual(lists:seq(1, 100), seen(B2, probe)),
        ok = call(A, partisan_peer_service, leave, [?B]),
        ok = wait(fun() ->
            {error, disconnected} =:= call(A, partisan, forward_message, [{probe, ?B}, late, #{ack => true}])
        end),
        Stranger = {probe, 'x@127.0.0.1'},
        ?assertEqual({error, not_yet_connected}, call(A, partisan, forward_message, [Stranger, x, #{ack => true}]))
    end).

%% `forward_options' asks for it; a call may decline.
default_options(_) ->
    Env = #{env => [{forward_options, #{ack => true}}, {causal_labels, [red]}]},
    with([{?A, Env}], fun([A]) ->
        B = partisan_ct:start_owned(?B, #{}),
        ok = partisan_ct:join(B, A),
        ok = partisan_ct:kill(B),
        ok = wait(fun() -> not call(A, partisan, is_connected, [?B]) end),
        Send = fun(Options) -> call(A, partisan, forward_message, [{probe, ?B}, x, Options]) end,
        ?assertEqual(ok, Send(#{})),
        ?assertEqual(ok, Send([{channel, undefined}])),
        ?assertEqual(ok, Send(#{causal_label => red})),
        ?assertEqual({error, disconnected}, Send(#{ack => false})),
        ?assertEqual({error, {unknown_label, blue}}, Send(#{causal_label => blue})),
        ?assertEqual({error, {limit, max_delivery_bytes}}, run(A, fun() ->
            partisan:forward_message({probe, ?B}, <<0:(9 bsl 23)>>, #{})
        end))
    end).

%% `a' tells `b', over a session that has just broken, and `c', who tells `b': `b' hears `a' first. Acknowledged messages alone
%% don't keep that order, which shows that the case is one.
causal_order(_) ->
    Env = #{env => [{causal_labels, [red]}]},
    with([{?A, Env}, {?B, Env}, {?C, Env}], fun([A, B, C]) ->
        ok = partisan_ct:join(A, C),
        ok = partisan_ct:join(B, C),
        ok = wait(fun() ->
            call(A, partisan, is_connected, [?B]) andalso call(B, partisan, is_connected, [?A])
        end),
        ok = probe(B, probe),
        ?assert(rounds(A, B, C, #{ack => true}, 60) > 0),
        ?assertEqual(0, rounds(A, B, C, #{causal_label => red}, 200))
    end).

%% How many rounds were in the wrong order.
rounds(A, B, C, Options, Count) ->
    _ = partisan_ct:forget(B, probe),
    _ = call(C, ?MODULE, start_relay, [Options]),
    ok = run(A, fun() ->
        _ = [
            begin
                _ = partisan_nif:command(none, {disconnect, ?B}),
                wait_down(?B, 1000),
                ok = partisan:forward_message({probe, ?B}, {N, first}, Options),
                ok = partisan:forward_message({relay, ?C}, {N, ?B}, Options)
            end
         || N <- lists:seq(1, Count)
        ],
        ok
    end),
    ok = wait(fun() -> length(seen(B, probe)) >= 2 * Count end),
    Seen = seen(B, probe),
    ?assertEqual(2 * Count, length(lists:usort(Seen))),
    length([
        N
     || N <- lists:seq(1, Count),
        [{_, Who} | _] <- [[M || {K, _} = M <- Seen, K =:= N]],
        Who =:= second
    ]).

%% On `a': until the session is seen to be down, or is up again already.
wait_down(_, 0) -> ok;
wait_down(Node, Left) ->
    case partisan_nif:is_connected(Node, undefined) of
        false -> ok;
        true -> wait_down(Node, Left - 1)
    end.

%% On `c'.
start_relay(Options) ->
    Caller = self(),
    _ = (catch exit(whereis(relay), kill)),
    ok = unregistered(relay),
    _ = spawn(fun() ->
        true = register(relay, self()),
        Caller ! relaying,
        relay(Options)
    end),
    receive relaying -> ok end.

unregistered(Name) ->
    case whereis(Name) of
        undefined -> ok;
        _ -> erlang:yield(), unregistered(Name)
    end.

relay(Options) ->
    receive
        {N, To} -> ok = partisan:forward_message({probe, To}, {N, second}, Options)
    end,
    relay(Options).

end_per_testcase(_, _) ->
    partisan_ct:stop_owned().
