%% @doc Senders and peers that don't read: who waits, for how long, in which order, and at what cost.
%%
%% A peer that doesn't read is a real node that has been stopped by SIGSTOP.
-module(pressure_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0]).
-export([
    ten_thousand_senders/1,
    giving_up/1,
    death_frees_waiters/1,
    silence_frees_waiters/1,
    stop_frees_waiters/1,
    killed_waiters_leave/1,
    the_ceiling_is_shared/1,
    others_do_not_wait/1,
    first_come_first_served/1,
    newest_of_a_monotonic_channel/1
]).
%% On the nodes.
-export([sink/0, sunk/0, fill/1, fill/2, crowd/4, states/0, results/1, counted/0, impatient/1, mailbox/0]).
-export([suspend/1, end_some/1, ping_pong/2, resident/0, newest/3]).

-define(BUDGET, (1 bsl 20)).

suite() -> [{timetrap, {seconds, 180}}].

all() ->
    [
        ten_thousand_senders,
        giving_up,
        death_frees_waiters,
        silence_frees_waiters,
        stop_frees_waiters,
        killed_waiters_leave,
        the_ceiling_is_shared,
        others_do_not_wait,
        first_come_first_served,
        newest_of_a_monotonic_channel
    ].

%%%-------------------------------------------------------------------------------------------
%%% Cases
%%%-------------------------------------------------------------------------------------------

%% More than ten thousand processes, each with three messages of 4 KiB, to a peer that stands still:
%% the queue holds its budget, the VM stays small, nobody gets an error; then all come, once, in order.
ten_thousand_senders(_) ->
    nodes([{queue_bytes, ?BUDGET}], [b], fun(A, [B]) ->
        Before = partisan_ct:call(A, ?MODULE, resident, []),
        stopped(B, fun(Resume) ->
            ok = partisan_ct:call(A, ?MODULE, crowd, [partisan_ct:name(B), 10000, 3, 4096]),
            settled(A),
            #{waiting := Waiting} = partisan_ct:call(A, ?MODULE, states, []),
            ?assert(Waiting > 5000),
            %% Those whose messages the kernel took.
            ?assertEqual([], [R || {R, _} <- partisan_ct:call(A, ?MODULE, results, [0]), R =/= ok]),
            ?assert(queued(A) =< ?BUDGET + 5000),
            Grown = partisan_ct:call(A, ?MODULE, resident, []) - Before,
            ct:pal("~b wait, ~b bytes queued, ~b MB more resident", [Waiting, queued(A), Grown bsr 20]),
            ?assert(Grown < 250 bsl 20),
            Resume()
        end),
        ?assertEqual([{ok, 10000}], partisan_ct:call(A, ?MODULE, results, [10000])),
        arrived(B, 30000),
        ?assertEqual({10000, 30000, []}, partisan_ct:call(B, ?MODULE, sunk, [])),
        partisan_ct:wait(fun() -> queued(A) =:= 0 end)
    end).

%% Whoever gives up has sent nothing, and hears nothing later.
giving_up(_) ->
    nodes([{queue_bytes, ?BUDGET}], [b], fun(A, [B]) ->
        Sent = stopped(B, fun(Resume) ->
            ok = partisan_ct:call(A, ?MODULE, fill, [partisan_ct:name(B)]),
            {Taken, Refused, Slowest} = partisan_ct:call(A, ?MODULE, impatient, [partisan_ct:name(B)]),
            %% A standing receiver's kernel takes a little more now and then.
            ?assertEqual(200, Taken + Refused),
            ?assert(Refused > 150),
            ?assert(Slowest < 5000),
            ?assertEqual([], partisan_ct:call(A, ?MODULE, mailbox, [])),
            Resume(),
            Taken
        end),
        partisan_ct:wait(fun() -> queued(A) =:= 0 end),
        %% Behind everything else on every connection.
        ok = partisan_ct:call(A, ?MODULE, crowd, [partisan_ct:name(B), 10, 1, 10]),
        arrived(B, 10 + Sent),
        ?assertEqual({10 + min(Sent, 1), 10 + Sent, []}, partisan_ct:call(B, ?MODULE, sunk, [])),
        ?assertEqual([], partisan_ct:call(A, ?MODULE, mailbox, []))
    end).

death_frees_waiters(_) ->
    nodes([{queue_bytes, ?BUDGET}], [b], fun(A, [B]) ->
        freed(A, B, disconnected, 5000, fun(#{pid := Pid}) -> os:cmd("kill -9 " ++ Pid) end),
        ?assertEqual(0, queued(A))
    end).

%% The failure detector takes 0.3 + 2 * 0.2 s here, and looks four times a second.
silence_frees_waiters(_) ->
    Ping = #{enabled => true, idle_timeout => 300, timeout => 200, max_attempts => 2},
    nodes([{queue_bytes, ?BUDGET}, {connection_ping, Ping}], [b], fun(A, [B]) ->
        freed(A, B, disconnected, 5000, fun(_) -> ok end)
    end).

stop_frees_waiters(_) ->
    nodes([{queue_bytes, ?BUDGET}], [b], fun(A, [B]) ->
        freed(A, B, notalive, 5000, fun(_) ->
            ok = partisan_ct:call(A, application, stop, [partisan])
        end)
    end).

%% A hundred processes wait; then something happens, and soon all of them have this error.
freed(A, B, Reason, Within, Happen) ->
    stopped(B, fun(_) ->
        Name = partisan_ct:name(B),
        %% Where silence is short, the peer may be down before the queue is full: then nobody waits.
        ok = partisan_ct:call(A, ?MODULE, fill, [Name, 1 bsl 20]),
        ok = partisan_ct:call(A, ?MODULE, crowd, [Name, 100, 1, 1 bsl 20]),
        Began = erlang:monotonic_time(millisecond),
        _ = Happen(B),
        Results = partisan_ct:call(A, ?MODULE, results, [100]),
        Took = erlang:monotonic_time(millisecond) - Began,
        ct:pal("~p after ~b ms", [Results, Took]),
        ?assertMatch([{{error, Reason}, N} | _] when N > 80, Results),
        ?assert(Took < Within)
    end).

%% Waiting processes die, some before and some after there was room for them: what was theirs is
%% given to the others.
killed_waiters_leave(_) ->
    nodes([{queue_bytes, ?BUDGET}], [b], fun(A, [B]) ->
        stopped(B, fun(Resume) ->
            ok = partisan_ct:call(A, ?MODULE, fill, [partisan_ct:name(B)]),
            ok = partisan_ct:call(A, ?MODULE, crowd, [partisan_ct:name(B), 300, 1, 100000]),
            settled(A),
            #{waiting := 300} = partisan_ct:call(A, ?MODULE, states, []),
            %% Suspended ones can't use their grants.
            100 = partisan_ct:call(A, ?MODULE, suspend, [100]),
            100 = partisan_ct:call(A, ?MODULE, end_some, [waiting]),
            Resume()
        end),
        %% All room is granted to suspended ones, so nothing moves.
        settled(A),
        ?assertEqual(0, partisan_ct:call(B, ?MODULE, counted, [])),
        %% Waiters are served when half of what isn't kept for small messages is free.
        ?assert(queued(A) > ?BUDGET * 7 div 16),
        100 = partisan_ct:call(A, ?MODULE, end_some, [suspended]),
        ?assertEqual([{ok, 100}], partisan_ct:call(A, ?MODULE, results, [100])),
        arrived(B, 100),
        partisan_ct:wait(fun() -> queued(A) =:= 0 end),
        ?assertEqual({100, 100, []}, partisan_ct:call(B, ?MODULE, sunk, []))
    end).

%% Two peers stand still; together they hold no more than the ceiling, and the end of one of them
%% makes room for those who wait for the other.
the_ceiling_is_shared(_) ->
    Ceiling = 2 bsl 20,
    nodes([{queue_bytes, 4 bsl 20}, {node_queue_bytes, Ceiling}], [b, c], fun(A, [B, C]) ->
        stopped(B, fun(_) ->
            stopped(C, fun(_) ->
                ok = partisan_ct:call(A, ?MODULE, fill, [partisan_ct:name(B)]),
                ?assert(queued(A) >= Ceiling),
                ok = partisan_ct:call(A, ?MODULE, fill, [partisan_ct:name(C)]),
                %% More than the kernel takes for C, and much less than B holds.
                ok = partisan_ct:call(A, ?MODULE, crowd, [partisan_ct:name(C), 20, 1, 60000]),
                settled(A),
                ?assert(queued(A) < Ceiling + 4 * 65536),
                ?assertMatch(#{waiting := 20}, partisan_ct:call(A, ?MODULE, states, [])),
                #{pid := Pid} = B,
                _ = os:cmd("kill -9 " ++ Pid),
                ?assertEqual([{ok, 20}], partisan_ct:call(A, ?MODULE, results, [20])),
                ?assert(queued(A) < Ceiling)
            end)
        end)
    end).

others_do_not_wait(_) ->
    nodes([{queue_bytes, ?BUDGET}, {io_threads, 1}, {bulk_threads, 1}], [b, c], fun(A, [B, C]) ->
        stopped(B, fun(_) ->
            ok = partisan_ct:call(A, ?MODULE, fill, [partisan_ct:name(B)]),
            ok = partisan_ct:call(A, ?MODULE, crowd, [partisan_ct:name(B), 1000, 1, 10000]),
            settled(A),
            {Median, Last} = partisan_ct:call(A, ?MODULE, ping_pong, [partisan_ct:name(C), 2000]),
            #{waiting := Waiting, other := 0} = partisan_ct:call(A, ?MODULE, states, []),
            ct:pal("beside ~b waiters: median ~b us, slowest ~b us", [Waiting, Median, Last]),
            ?assert(Median < 20000),
            %% An eighth of the queue is kept for small messages: some of the crowd's are in it.
            ?assert(Waiting < 1000 andalso Waiting >= 1000 - ?BUDGET div 8 div 10000),
            ?assert(queued(A) =< ?BUDGET + 61000)
        end)
    end).

%% Messages as large as the budget, so that there is room for one at a time.
first_come_first_served(_) ->
    nodes([{queue_bytes, 64 bsl 10}], [b], fun(A, [B]) ->
        stopped(B, fun(Resume) ->
            ok = partisan_ct:call(A, ?MODULE, fill, [partisan_ct:name(B)]),
            _ = [
                begin
                    ok = partisan_ct:call(A, ?MODULE, crowd, [partisan_ct:name(B), 1, 1, 100000]),
                    partisan_ct:wait(fun() ->
                        partisan_ct:call(A, ?MODULE, states, []) =:= #{waiting => N, other => 0}
                    end)
                end
             || N <- lists:seq(1, 50)
            ],
            Resume()
        end),
        ?assertEqual([{ok, 50}], partisan_ct:call(A, ?MODULE, results, [50])),
        arrived(B, 50),
        Order = partisan_ct:call(B, persistent_term, get, [order]),
        ?assertEqual(Order, lists:sort(Order))
    end).

newest_of_a_monotonic_channel(_) ->
    Env = [{queue_bytes, ?BUDGET}, {channels, [{newest, #{parallelism => 1, monotonic => true}}]}],
    nodes(Env, [b], fun(A, [B]) ->
        stopped(B, fun(Resume) ->
            %% 80 MB, of which the queue keeps 20 messages.
            ok = partisan_ct:call(A, ?MODULE, newest, [partisan_ct:name(B), 20, 500]),
            ?assertEqual([{ok, 20}], partisan_ct:call(A, ?MODULE, results, [20])),
            ?assert(queued(A) < 20 * 9000),
            Resume()
        end),
        partisan_ct:wait(fun() -> queued(A) =:= 0 end),
        partisan_ct:wait(fun() ->
            Last = partisan_ct:call(B, persistent_term, get, [last]),
            map_size(Last) =:= 20 andalso lists:usort(maps:values(Last)) =:= [500]
        end),
        {20, Count, Disorder} = partisan_ct:call(B, ?MODULE, sunk, []),
        ct:pal("~b of 10000 came", [Count]),
        ?assert(Count < 5000),
        ?assertEqual([], [D || {_, {_, Wanted}, {_, Got}} = D <- Disorder, Got < Wanted])
    end).

%%%-------------------------------------------------------------------------------------------
%%% Nodes
%%%-------------------------------------------------------------------------------------------

nodes(Env, Others, Fun) ->
    A = partisan_ct:start('a@127.0.0.1', #{env => Env}),
    Vms = [partisan_ct:start(name(Other), #{env => Env}) || Other <- Others],
    Known = [Vm#{pid => partisan_ct:os_pid(Vm)} || Vm <- Vms],
    try
        _ = [ok = partisan_ct:call(Vm, ?MODULE, sink, []) || Vm <- [A | Vms]],
        _ = [ok = partisan_ct:join(Vm, A) || Vm <- Vms],
        partisan_ct:wait(fun() ->
            lists:all(
                fun(Vm) -> partisan_ct:call(A, partisan, is_connected, [partisan_ct:name(Vm)]) end, Vms
            )
        end),
        Fun(A, Known)
    after
        _ = [os:cmd("kill -CONT " ++ Pid) || #{pid := Pid} <- Known],
        _ = [partisan_ct:stop(Vm) || Vm <- [A | Vms]]
    end.

name(Short) -> list_to_atom(atom_to_list(Short) ++ "@127.0.0.1").

%% While the node stands still. It goes on when the fun says so, or is over.
stopped(#{pid := Pid}, Fun) ->
    _ = os:cmd("kill -STOP " ++ Pid),
    Resume = fun() -> _ = os:cmd("kill -CONT " ++ Pid) end,
    try
        Fun(Resume)
    after
        Resume()
    end.

queued(Vm) -> partisan_ct:call(Vm, partisan_nif, queued, []).

arrived(Vm, Count) ->
    partisan_ct:wait(fun() -> partisan_ct:call(Vm, ?MODULE, counted, []) >= Count end).

%% Every sender has finished or waits, and nothing changes any more.
settled(Vm) ->
    Look = fun() -> {partisan_ct:call(Vm, ?MODULE, states, []), queued(Vm)} end,
    partisan_ct:wait(fun() ->
        {#{other := Other}, _} = Before = Look(),
        Other =:= 0 andalso begin
            timer:sleep(100),
            Look() =:= Before
        end
    end).

%%%-------------------------------------------------------------------------------------------
%%% On the nodes
%%%-------------------------------------------------------------------------------------------

%% @doc Starts the process that counts what arrives, and the table of senders.
sink() ->
    Me = self(),
    _ = spawn(fun() ->
        true = register(sink, self()),
        _ = ets:new(senders, [named_table, public]),
        _ = ets:new(outcomes, [named_table, public, duplicate_bag]),
        persistent_term:put(count, counters:new(1, [])),
        persistent_term:put(order, []),
        persistent_term:put(last, #{}),
        Me ! ready,
        sink(#{}, [])
    end),
    receive
        ready -> ok
    end.

sink(Next, Disorder) ->
    receive
        {filler, _} ->
            sink(Next, Disorder);
        {ping, From} ->
            ok = partisan:forward_message(From, pong),
            sink(Next, Disorder);
        {sunk, From} ->
            From ! {sunk, {map_size(Next), counters:get(persistent_term:get(count), 1), Disorder}},
            sink(Next, Disorder);
        {Sender, N, Payload} ->
            Wanted = maps:get(Sender, Next, 1),
            counters:add(persistent_term:get(count), 1, 1),
            %% Few senders: who came when, and what came last.
            _ = [
                begin
                    persistent_term:put(order, persistent_term:get(order) ++ [Sender]),
                    persistent_term:put(last, (persistent_term:get(last))#{Sender => N})
                end
             || byte_size(Payload) > 5000, byte_size(Payload) < 1 bsl 20
            ],
            case N of
                Wanted -> sink(Next#{Sender => N + 1}, Disorder);
                _ -> sink(Next#{Sender => N + 1}, [{Sender, {wanted, Wanted}, {got, N}} | Disorder])
            end
    end.

%% @doc How many senders, how many messages, and which were not those that were wanted.
sunk() ->
    sink ! {sunk, self()},
    receive
        {sunk, Result} -> Result
    end.

%% @doc How many messages have come.
counted() ->
    counters:get(persistent_term:get(count), 1).

%% @doc Fills kernel buffers and queue, until nothing is taken for a while.
fill(Node) ->
    fill(Node, 60000).

fill(Node, Size) ->
    fill(Node, binary:copy(<<"f">>, Size), 0).

fill(_, _, 25) ->
    ok;
fill(Node, Payload, Refused) ->
    Opts = #{nosuspend => true},
    Me = self(),
    %% A sender with something in the queue is refused sooner than one with nothing.
    _ = spawn(fun() -> Me ! {filled, partisan:forward_message({sink, Node}, {filler, Payload}, Opts)} end),
    receive
        {filled, ok} ->
            fill(Node, Payload, 0);
        {filled, {error, busy}} ->
            timer:sleep(15),
            fill(Node, Payload, Refused + 1);
        {filled, {error, disconnected}} ->
            ok
    end.

%% @doc Starts so many senders of so many messages. Returns when all run.
crowd(Node, Senders, Messages, Size) ->
    Payload = binary:copy(<<"m">>, Size),
    From = ets:info(senders, size),
    _ = [
        begin
            Pid = spawn(fun() ->
                receive
                    go -> ok
                end,
                send(Node, {From + Sender, Sender}, 1, Messages, Payload, #{})
            end),
            true = ets:insert(senders, {Pid, From + Sender}),
            Pid ! go
        end
     || Sender <- lists:seq(1, Senders)
    ],
    ok.

send(_, _, N, Messages, _, _) when N > Messages ->
    outcome(ok);
send(Node, {Id, _} = Sender, N, Messages, Payload, Opts) ->
    case partisan:forward_message({sink, Node}, {Id, N, Payload}, Opts) of
        ok -> send(Node, Sender, N + 1, Messages, Payload, Opts);
        Error -> outcome(Error)
    end.

outcome(Result) ->
    true = ets:insert(outcomes, {Result}).

%% @doc Senders on a monotonic channel, of messages of 8 KB.
newest(Node, Senders, Messages) ->
    Payload = binary:copy(<<"n">>, 8000),
    _ = [
        spawn(fun() -> send(Node, {Id, Id}, 1, Messages, Payload, #{channel => newest}) end)
     || Id <- lists:seq(1, Senders)
    ],
    ok.

%% @doc How many senders wait, and how many are alive and don't.
states() ->
    Alive = [Pid || {Pid, _} <- ets:tab2list(senders), is_process_alive(Pid)],
    Waiting = length([Pid || Pid <- Alive, is_waiting(Pid)]),
    #{waiting => Waiting, other => length(Alive) - Waiting}.

is_waiting(Pid) ->
    case process_info(Pid, [current_function, status]) of
        [{current_function, {partisan_forward, wait, 2}}, {status, Status}] ->
            Status =:= waiting orelse Status =:= suspended;
        _ ->
            false
    end.

%% @doc Waits for so many results: each with its number, the most frequent one first.
results(Count) ->
    partisan_ct:wait(fun() -> ets:info(outcomes, size) >= Count end),
    All = [Result || {Result} <- ets:tab2list(outcomes)],
    Counts = maps:fold(
        fun(Result, List, Acc) -> [{Result, length(List)} | Acc] end, [], maps:groups_from_list(fun(R) -> R end, All)
    ),
    lists:reverse(lists:keysort(2, Counts)).

%% @doc Tries that don't wait, or not for long: how many were sent, how many not, and what the slowest
%% took. The process that made them stays, so that its mailbox can be looked at.
impatient(Node) ->
    Me = self(),
    _ = spawn(fun() ->
        true = register(impatient, self()),
        Tries = [
            {#{nosuspend => true}, busy}, {[{timeout, 0}], timeout}, {#{timeout => 7}, timeout}, {#{timeout => 30}, timeout}
        ],
        Me ! {tried, impatient(Node, lists:append(lists:duplicate(50, Tries)), 0, 0, 0)},
        receive
            never -> ok
        end
    end),
    receive
        {tried, Result} -> Result
    end.

impatient(_, [], Sent, Refused, Slowest) ->
    {Sent, Refused, Slowest};
impatient(Node, [{Opts, Error} | Tries], Sent, Refused, Slowest) ->
    Began = erlang:monotonic_time(millisecond),
    Result = partisan:forward_message({sink, Node}, {impatient, Sent + 1, <<"perhaps">>}, Opts),
    Took = max(Slowest, erlang:monotonic_time(millisecond) - Began),
    case Result of
        ok -> impatient(Node, Tries, Sent + 1, Refused, Took);
        {error, Error} -> impatient(Node, Tries, Sent, Refused + 1, Took)
    end.

%% @doc What the impatient process has in its mailbox.
mailbox() ->
    {messages, Messages} = process_info(whereis(impatient), messages),
    Messages.

%% @doc Suspends so many of the senders, the first ones.
suspend(Count) ->
    {First, _} = lists:split(Count, lists:keysort(2, ets:tab2list(senders))),
    Me = self(),
    %% Whoever suspends must live.
    Suspender = spawn(fun() ->
        _ = [true = erlang:suspend_process(Pid) || {Pid, _} <- First],
        Me ! suspended,
        receive
            never -> ok
        end
    end),
    persistent_term:put(suspender, Suspender),
    receive
        suspended -> length(First)
    end.

%% @doc Kills a hundred waiting senders, or all that are suspended.
end_some(Status) ->
    Found = [
        Pid
     || {Pid, _} <- lists:keysort(2, ets:tab2list(senders)), process_info(Pid, status) =:= {status, Status}
    ],
    Ended = lists:sublist(Found, 100),
    Monitors = [monitor(process, Pid) || Pid <- Ended],
    _ = [exit(Pid, kill) || Pid <- Ended],
    _ = [
        receive
            {'DOWN', Monitor, process, _, _} -> ok
        end
     || Monitor <- Monitors
    ],
    length(Ended).

%% @doc The median and the longest time of so many requests, in microseconds.
ping_pong(Node, Count) ->
    Times = lists:sort([
        element(
            1,
            timer:tc(fun() ->
                ok = partisan:forward_message({sink, Node}, {ping, self()}),
                receive
                    pong -> ok
                end
            end)
        )
     || _ <- lists:seq(1, Count)
    ]),
    {lists:nth(Count div 2, Times), lists:last(Times)}.

%% @doc Memory of the VM, in bytes.
resident() ->
    {ok, Text} = file:read_file("/proc/self/statm"),
    [_, Pages | _] = binary:split(Text, <<" ">>, [global]),
    binary_to_integer(Pages) * 4096.
