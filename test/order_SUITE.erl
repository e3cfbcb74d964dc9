%% @doc Order between real nodes: per sender whatever the sizes, the parallelism and the form of the
%% destination, per partition key, across the fallback to the default channel; and who overtakes whom.
-module(order_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0]).
-export([
    senders_keep_their_order/1,
    keys_keep_their_order/1,
    fallback_keeps_order/1,
    names_and_pids_share_an_order/1,
    small_overtakes_large/1,
    small_overtakes_many_large/1
]).
%% On the nodes.
-export([sink/0, sunk/1, flood/2, arrivals/1, queue_large/3]).

-define(CHANNELS, [{wide, #{parallelism => 16}}, {one, #{parallelism => 1}}]).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [
        senders_keep_their_order,
        keys_keep_their_order,
        fallback_keeps_order,
        names_and_pids_share_an_order,
        small_overtakes_large,
        small_overtakes_many_large
    ].

%%%-------------------------------------------------------------------------------------------
%%% Cases
%%%-------------------------------------------------------------------------------------------

%% 64 senders, 64 bytes to 2 MB, 16 connections, both directions at once.
senders_keep_their_order(_) ->
    pair(fun(A, B) ->
        Plan = #{senders => 64, messages => 120, opts => fun(_) -> #{channel => wide} end},
        both([{A, B, Plan}, {B, A, Plan}])
    end).

%% Every sender uses every key; other messages go without one.
keys_keep_their_order(_) ->
    pair(fun(A, B) ->
        Opts = fun(N) ->
            case N rem 9 of
                8 -> #{channel => wide};
                Key -> #{channel => wide, partition_key => Key * 1000003}
            end
        end,
        Order = fun(N) -> N rem 9 end,
        both([{A, B, #{senders => 32, messages => 200, opts => Opts, order => Order}}])
    end).

%% A channel that neither side has: its messages stay in order with those of the default channel.
fallback_keeps_order(_) ->
    pair(fun(A, B) ->
        Opts = fun(N) ->
            case N rem 3 of
                0 -> #{};
                1 -> #{channel => nowhere};
                2 -> [{channel, elsewhere}, {channel_fallback, true}]
            end
        end,
        both([{A, B, #{senders => 16, messages => 300, opts => Opts}}]),
        Strict = [{channel, nowhere}, {channel_fallback, false}],
        ?assertEqual(
            {error, disconnected},
            partisan_ct:call(A, partisan, forward_message, [{sink, partisan_ct:name(B)}, x, Strict])
        )
    end).

names_and_pids_share_an_order(_) ->
    pair(fun(A, B) ->
        Plan = #{senders => 32, messages => 300, opts => fun(_) -> #{channel => wide} end, forms => true},
        both([{A, B, Plan}, {B, A, Plan}])
    end).

%% The receiver stands still while the large message is queued before the small ones, so that it is
%% the queue that decides and not the speed of anybody.
small_overtakes_large(_) ->
    overtaken(1, 20).

small_overtakes_many_large(_) ->
    overtaken(4, 200).

overtaken(Large, Small) ->
    pair([{queue_bytes, 256 bsl 20}], fun(A, B) ->
        Name = partisan_ct:name(B),
        ok = partisan_ct:call(B, ?MODULE, sink, []),
        Pid = partisan_ct:os_pid(B),
        _ = os:cmd("kill -STOP " ++ Pid),
        try
            _ = [
                ok = partisan_ct:call(A, ?MODULE, queue_large, [Name, {large, N}, 24 bsl 20])
             || N <- lists:seq(1, Large)
            ],
            _ = [
                ok = partisan_ct:call(A, ?MODULE, queue_large, [Name, {small, N}, 64])
             || N <- lists:seq(1, Small)
            ]
        after
            os:cmd("kill -CONT " ++ Pid)
        end,
        Order = partisan_ct:call(B, ?MODULE, arrivals, [Large + Small]),
        Kinds = [Kind || {Kind, _} <- Order],
        ?assertEqual(lists:duplicate(Small, small) ++ lists:duplicate(Large, large), Kinds)
    end).

%%%-------------------------------------------------------------------------------------------
%%% Two nodes
%%%-------------------------------------------------------------------------------------------

pair(Fun) ->
    pair([], Fun).

pair(Env, Fun) ->
    Options = #{env => [{channels, ?CHANNELS} | Env]},
    A = partisan_ct:start('a@127.0.0.1', Options),
    B = partisan_ct:start('b@127.0.0.1', Options),
    try
        ok = partisan_ct:join(A, B),
        partisan_ct:wait(fun() -> partisan_ct:call(A, partisan, is_fully_connected, ['b@127.0.0.1']) end),
        Fun(A, B)
    after
        partisan_ct:stop(A),
        partisan_ct:stop(B)
    end.

%% Floods from each first to each second node; everything has come, in order.
both(Floods) ->
    _ = [ok = partisan_ct:call(To, ?MODULE, sink, []) || {_, To, _} <- Floods],
    _ = [
        ok = partisan_ct:call(From, ?MODULE, flood, [partisan_ct:name(To), Plan])
     || {From, To, Plan} <- Floods
    ],
    _ = [
        begin
            #{senders := Senders, messages := Messages} = Plan,
            ?assertEqual(
                {ok, Senders * Messages},
                partisan_ct:call(To, ?MODULE, sunk, [Senders * Messages])
            )
        end
     || {_, To, Plan} <- Floods
    ],
    ok.

%%%-------------------------------------------------------------------------------------------
%%% On the nodes
%%%-------------------------------------------------------------------------------------------

%% @doc Starts the process that checks what arrives.
sink() ->
    Me = self(),
    _ = spawn(fun() ->
        true = register(sink, self()),
        Me ! ready,
        sink(#{}, 0, [], none)
    end),
    receive
        ready -> ok
    end.

%% `Next': what each sender, and each of its keys, has to send next.
sink(Next, Count, Order, Asked) ->
    case Asked of
        {Count, From} ->
            From ! {sunk, {ok, Count}, lists:reverse(Order)};
        _ ->
            receive
                {Sender, Lane, N, Size, Payload} ->
                    Wanted = maps:get({Sender, Lane}, Next, 1),
                    case N =:= Wanted andalso weight(Payload) =:= Size of
                        true ->
                            sink(Next#{{Sender, Lane} => N + 1}, Count + 1, Order, Asked);
                        false ->
                            failed({Sender, Lane, {wanted, Wanted}, {got, N}, Size, weight(Payload)})
                    end;
                {arrived, What, _} ->
                    sink(Next, Count + 1, [What | Order], Asked);
                {ask, Total, From} ->
                    sink(Next, Count, Order, {Total, From});
                {who, From} ->
                    ok = partisan:forward_message(From, {here, self()}),
                    sink(Next, Count, Order, Asked)
            end
    end.

failed(Why) ->
    receive
        {ask, _, From} -> From ! {sunk, {disorder, Why}, []}
    end.

%% @doc Waits until so many messages have come.
sunk(Total) ->
    {Result, _} = ask(Total),
    Result.

%% @doc As {@link sunk/1}: what came in which order.
arrivals(Total) ->
    {{ok, Total}, Order} = ask(Total),
    Order.

ask(Total) ->
    sink ! {ask, Total, self()},
    receive
        {sunk, Result, Order} -> {Result, Order}
    after 25000 ->
        {lost, process_info(whereis(sink), [message_queue_len])}
    end.

%% @doc Starts the senders; returns at once.
flood(Node, #{senders := Senders, messages := Messages, opts := Opts} = Plan) ->
    Order = maps:get(order, Plan, fun(_) -> 0 end),
    _ = [
        spawn(fun() ->
            _ = rand:seed(exsss, Sender),
            Dests = destinations(Node, maps:get(forms, Plan, false)),
            Payloads = payloads(),
            send(Sender, 1, Messages, #{}, Dests, Payloads, Opts, Order)
        end)
     || Sender <- lists:seq(1, Senders)
    ],
    ok.

send(_, N, Messages, _, _, _, _, _) when N > Messages ->
    ok;
send(Sender, N, Messages, Numbers, Dests, Payloads, Opts, Order) ->
    Lane = Order(N),
    Number = maps:get(Lane, Numbers, 1),
    {Size, Payload} = element(pick(), Payloads),
    Dest = element(1 + N rem tuple_size(Dests), Dests),
    ok = partisan:forward_message(Dest, {Sender, Lane, Number, Size, Payload}, Opts(N)),
    send(Sender, N + 1, Messages, Numbers#{Lane => Number + 1}, Dests, Payloads, Opts, Order).

%% The name, the remote reference and the pid of the sink.
destinations(Node, false) ->
    {{sink, Node}};
destinations(Node, true) ->
    ok = partisan:forward_message({sink, Node}, {who, self()}),
    receive
        {here, Ref} -> {{sink, Node}, Ref, partisan_remote_ref:from_term(sink, Node)}
    end.

%% One of every path: packed, cut, by reference, encoded by the VM, decoded by a process.
payloads() ->
    list_to_tuple([
        {weight(P), P}
     || P <- [
            binary(64),
            binary(700),
            [binary(9000) || _ <- lists:seq(1, 3)],
            binary(20000),
            [binary(9000) || _ <- lists:seq(1, 20)],
            maps:from_keys(lists:seq(1, 200), 1),
            lists:seq(1, 3000),
            {binary(100000), maps:from_keys(lists:seq(1, 150), 1)},
            binary(2 bsl 20)
        ]
    ]).

pick() ->
    case rand:uniform(200) of
        1 -> 9;
        N when N < 60 -> 1 + N rem 8;
        N -> 1 + N rem 2
    end.

binary(Size) -> binary:copy(<<"o">>, Size).

weight(Binary) when is_binary(Binary) -> byte_size(Binary);
weight(List) when is_list(List) -> erlang:external_size(List);
weight(Term) -> erlang:external_size(Term).

%% @doc Queues a message from a process of its own.
queue_large(Node, What, Size) ->
    partisan:forward_message({sink, Node}, {arrived, What, binary(Size)}, #{channel => one}).
