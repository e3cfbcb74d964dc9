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
    small_overtakes_many_large/1,
    bursts_keep_their_order/1,
    a_wide_map_before_a_large_term/1,
    a_killed_inbox_ends_the_session/1,
    branches_keep_their_order/1,
    nothing_is_lost_between_trunk_and_branch/1
]).
%% On the nodes.
-export([sink/0, sink/1, sunk/1, flood/2, arrivals/1, queue_large/3]).
-export([burst/4, queue_all/2, roam/3, watch/1, watched/0, keep_sending/2, lose_parcels/0]).

-define(CHANNELS, [{wide, #{parallelism => 16}}, {one, #{parallelism => 1}}]).

suite() -> [{timetrap, {seconds, 180}}].

all() ->
    [
        senders_keep_their_order,
        keys_keep_their_order,
        fallback_keeps_order,
        names_and_pids_share_an_order,
        small_overtakes_large,
        small_overtakes_many_large,
        bursts_keep_their_order,
        a_wide_map_before_a_large_term,
        a_killed_inbox_ends_the_session,
        branches_keep_their_order,
        nothing_is_lost_between_trunk_and_branch
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

%% Few messages in a read are delivered by the I/O thread, many by a process: bursts of all lengths,
%% one after the other and after pauses, make it change again and again.
bursts_keep_their_order(_) ->
    Bursts = [200, 1, 1, 17, 3, 64, 1, 15, 16, 150, 2, 1, 40, 1, 5, 100, 1, 1, 30, 8],
    Rounds = 15,
    Total = fun(Senders) -> Senders * Rounds * lists:sum(Bursts) end,
    pair(fun(A, B) ->
        _ = [
            begin
                ok = partisan_ct:call(B, ?MODULE, sink, [QueueData]),
                ok = partisan_ct:call(A, ?MODULE, burst, ['b@127.0.0.1', Senders, Rounds, Bursts]),
                Sunk = partisan_ct:call(B, ?MODULE, sunk, [Total(Senders)]),
                ?assertEqual({QueueData, Senders, {ok, Total(Senders)}}, {QueueData, Senders, Sunk})
            end
         || QueueData <- [on_heap, off_heap], Senders <- [1, 4]
        ]
    end).

%% Only a scheduler may decode the map; the list is delivered where it has been read, and what the
%% same read brought before it must not be. The receiver stands still until all is on its way.
a_wide_map_before_a_large_term(_) ->
    pair(fun(A, B) ->
        ok = partisan_ct:call(B, ?MODULE, sink, []),
        Pid = partisan_ct:os_pid(B),
        Large = [binary(15000) || _ <- lists:seq(1, 5)],
        Payloads = [maps:from_keys(lists:seq(1, 200), 1), Large, binary(64), Large],
        _ = os:cmd("kill -STOP " ++ Pid),
        try
            ok = partisan_ct:call(A, ?MODULE, queue_all, [partisan_ct:name(B), Payloads]),
            timer:sleep(100)
        after
            os:cmd("kill -CONT " ++ Pid)
        end,
        ?assertEqual({ok, 4}, partisan_ct:call(B, ?MODULE, sunk, [4]))
    end).

%% The messages that a killed process was to deliver are lost, but not silently: up to the down
%% event nothing is missing, and after it the session comes back.
a_killed_inbox_ends_the_session(_) ->
    pair(fun(A, B) ->
        ok = partisan_ct:call(B, ?MODULE, watch, [partisan_ct:name(A)]),
        ok = partisan_ct:call(A, ?MODULE, keep_sending, [partisan_ct:name(B), 16]),
        ok = partisan_ct:call(B, ?MODULE, lose_parcels, []),
        partisan_ct:wait(fun() ->
            case partisan_ct:call(B, ?MODULE, watched, []) of
                {ok, Downs, Since} -> Downs > 0 andalso Since > 1000;
                Gap -> ct:fail(Gap)
            end
        end)
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

%% Small messages go by the first connection of a channel until a large one makes its sender's own connection take over, and go
%% back after a while. The receiver stands still meanwhile, so that it has both before it.
branches_keep_their_order(_) ->
    pair(fun(A, B) ->
        Name = partisan_ct:name(B),
        ok = partisan_ct:call(B, ?MODULE, sink, []),
        Pid = partisan_ct:os_pid(B),
        Sizes = lists:duplicate(20, 64) ++ [20000, 64, 64, 100000, 64],
        {Rounds, Senders} = {8, 32},
        _ = [
            begin
                _ = os:cmd("kill -STOP " ++ Pid),
                try
                    ok = partisan_ct:call(A, ?MODULE, roam, [Name, Senders, Sizes])
                after
                    os:cmd("kill -CONT " ++ Pid)
                end,
                %% Longer than a branch stays away. Then it takes an answer to come back.
                timer:sleep(600),
                ok = partisan_ct:call(A, ?MODULE, roam, [Name, Senders, [64]]),
                timer:sleep(50)
            end
         || _ <- lists:seq(1, Rounds)
        ],
        Total = Rounds * Senders * (length(Sizes) + 1),
        ?assertEqual({ok, Total}, partisan_ct:call(B, ?MODULE, sunk, [Total]))
    end).

%% A node leaves while its senders are changing their way, and the other end can't answer.
nothing_is_lost_between_trunk_and_branch(_) ->
    pair(fun(A, B) ->
        Name = partisan_ct:name(B),
        ok = partisan_ct:call(B, ?MODULE, sink, []),
        Pid = partisan_ct:os_pid(B),
        Sizes = [64, 64, 20000, 64, 30000],
        _ = os:cmd("kill -STOP " ++ Pid),
        try
            ok = partisan_ct:call(A, ?MODULE, roam, [Name, 32, Sizes]),
            ok = partisan_ct:call(A, partisan_peer_service, leave, []),
            timer:sleep(200)
        after
            os:cmd("kill -CONT " ++ Pid)
        end,
        Total = 32 * length(Sizes),
        ?assertEqual({ok, Total}, partisan_ct:call(B, ?MODULE, sunk, [Total]))
    end).

%%%-------------------------------------------------------------------------------------------
%%% On the nodes
%%%-------------------------------------------------------------------------------------------

%% @doc Starts the process that checks what arrives.
sink() ->
    sink(on_heap).

%% @doc As {@link sink/0}, with messages on or off the heap. It ends when all has come.
sink(QueueData) ->
    Me = self(),
    _ = spawn_opt(
        fun() ->
            true = register(sink, self()),
            Me ! ready,
            sink(#{}, 0, [], none)
        end,
        [{message_queue_data, QueueData}]
    ),
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
    after 60000 ->
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

%% @doc Queues messages from one process of its own.
queue_all(Node, Payloads) ->
    _ = [
        ok = partisan:forward_message({sink, Node}, {1, 0, N, weight(P), P}, #{channel => one})
     || {N, P} <- lists:enumerate(Payloads)
    ],
    ok.

%% @doc Starts senders that send bursts of these lengths over one connection, with pauses between.
burst(Node, Senders, Rounds, Bursts) ->
    _ = [
        spawn(fun() ->
            _ = rand:seed(exsss, Sender),
            Lengths = lists:append([Bursts || _ <- lists:seq(1, Rounds)]),
            lists:foldl(fun(Length, N) -> burst_of(Node, Sender, Length, N) end, 1, Lengths)
        end)
     || Sender <- lists:seq(1, Senders)
    ],
    ok.

burst_of(Node, Sender, Length, First) ->
    Next = First + Length,
    _ = [
        ok = partisan:forward_message({sink, Node}, {Sender, 0, N, 64, binary(64)}, #{channel => one})
     || N <- lists:seq(First, Next - 1)
    ],
    case rand:uniform(4) of
        1 -> ok;
        2 -> erlang:yield();
        Millis -> timer:sleep(Millis - 2)
    end,
    Next.

%% @doc Each of so many senders, which keep their numbers and processes over the rounds, sends messages of these sizes. Returns when
%% all are queued.
roam(Node, Senders, Sizes) ->
    Pids = [roamer(Sender) || Sender <- lists:seq(1, Senders)],
    _ = [Pid ! {go, self(), Node, Sizes} || Pid <- Pids],
    _ = [
        receive
            {gone, Pid} -> ok
        end
     || Pid <- Pids
    ],
    ok.

roamer(Sender) ->
    case persistent_term:get({?MODULE, Sender}, undefined) of
        undefined ->
            Pid = spawn(fun() -> roams(Sender, 1) end),
            ok = persistent_term:put({?MODULE, Sender}, Pid),
            Pid;
        Pid ->
            Pid
    end.

roams(Sender, N) ->
    receive
        {go, From, Node, Sizes} ->
            Next = lists:foldl(
                fun(Size, Number) ->
                    Message = {Sender, 0, Number, Size, binary(Size)},
                    ok = partisan:forward_message({sink, Node}, Message, #{channel => wide}),
                    Number + 1
                end,
                N,
                Sizes
            ),
            From ! {gone, self()},
            roams(Sender, Next)
    end.

%% @doc Starts the process that checks what arrives before and after down events of the node.
watch(Node) ->
    Me = self(),
    _ = spawn(fun() ->
        true = register(watch, self()),
        ok = partisan:monitor_nodes(true),
        Me ! ready,
        watch(Node, #{}, 0, 0)
    end),
    receive
        ready -> ok
    end.

%% `Last': the number that each sender has sent last, and how many down events came before it.
%% `Since': messages since the last down event.
watch(Node, Last, Downs, Since) ->
    receive
        {numbered, Sender, N} ->
            case Last of
                #{Sender := {Before, Downs}} when N =/= Before + 1 ->
                    unwatch({gap, Sender, Before, N});
                #{Sender := {Before, _}} when N =< Before ->
                    unwatch({again, Sender, Before, N});
                _ ->
                    watch(Node, Last#{Sender => {N, Downs}}, Downs, Since + 1)
            end;
        {nodedown, Node} ->
            watch(Node, Last, Downs + 1, 0);
        {nodeup, Node} ->
            watch(Node, Last, Downs, Since);
        {asked, From} ->
            From ! {watched, {ok, Downs, Since}},
            watch(Node, Last, Downs, Since)
    end.

unwatch(Why) ->
    receive
        {asked, From} ->
            From ! {watched, Why},
            unwatch(Why)
    end.

%% @doc What the process has seen.
watched() ->
    watch ! {asked, self()},
    receive
        {watched, Seen} -> Seen
    end.

%% @doc Starts senders that never stop. What is refused they send again.
keep_sending(Node, Senders) ->
    _ = [spawn(fun() -> keep_sending(Node, Sender, 1) end) || Sender <- lists:seq(1, Senders)],
    ok.

keep_sending(Node, Sender, N) ->
    case partisan:forward_message({watch, Node}, {numbered, Sender, N}, #{channel => wide}) of
        ok ->
            keep_sending(Node, Sender, N + 1);
        {error, _} ->
            timer:sleep(5),
            keep_sending(Node, Sender, N)
    end.

%% @doc Kills a process that delivers streams when it has something to deliver.
lose_parcels() ->
    Pid = whereis(partisan_inbox_1),
    true = erlang:suspend_process(Pid),
    ok = partisan_ct:wait(fun() -> {message_queue_len, 0} =/= process_info(Pid, message_queue_len) end),
    true = exit(Pid, kill),
    ok.
