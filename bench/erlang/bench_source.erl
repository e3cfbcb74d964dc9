%% The sending end: one process per actor, and a coordinator that starts rounds and stops the clock.
-module(bench_source).

-export([open/1, round/2, close/1]).
-export_type([source/0, result/0]).

-type source() :: pid().
%% What was acknowledged in the time of the clock, what was sent in all, and the round trips.
-type result() :: #{
    ns := pos_integer(),
    messages := non_neg_integer(),
    bytes := non_neg_integer(),
    sent := non_neg_integer(),
    sum := non_neg_integer(),
    rt := iodata()
}.

%% Messages that a stream has on its way.
-define(WINDOW, 4).
%% Between a reply and the next request beside streams: otherwise the requests take the streams' CPU.
-define(PING_PAUSE_MS, 1).
-define(SUM_MASK, 16#3ffffffffffffff).
-define(OPEN_MS, 20_000).

%% `work' is `flood', `loop' or `hol': see docs/benchmarks.md. Learns the sinks of `peer' over the link.
-spec open(map()) -> source().
open(#{link := Link, peer := Peer} = Args) ->
    Caller = self(),
    {Source, Monitor} = spawn_monitor(fun() ->
        Sinks = learn(Link, Peer, erlang:monotonic_time(millisecond) + ?OPEN_MS),
        Histogram = bench_histogram:new(),
        Actors = actors(Args, Sinks, Histogram),
        Caller ! {ready, self()},
        coordinate(Args, Actors, Histogram)
    end),
    receive
        {ready, Source} ->
            true = demonitor(Monitor, [flush]),
            Source;
        {'DOWN', Monitor, process, Source, Reason} ->
            error(Reason)
    end.

%% `{count, PerActor}' for floods and loops, `{ms, Time}' for streams.
-spec round(source(), {count | ms, pos_integer()}) -> result().
round(Source, Amount) ->
    Monitor = monitor(process, Source),
    Source ! {round, self(), Amount},
    receive
        {result, Source, Result} ->
            true = demonitor(Monitor, [flush]),
            Result;
        {'DOWN', Monitor, process, Source, Reason} ->
            error(Reason)
    end.

-spec close(source()) -> ok.
close(Source) ->
    Monitor = monitor(process, Source),
    exit(Source, shutdown),
    receive
        {'DOWN', Monitor, process, Source, _} -> ok
    end.

%% A link may still be on its way up.
learn(Link, Peer, Deadline) ->
    _ = bench_link:ask(Link, Peer, bench_sinks, {who, Link, self()}),
    receive
        {sinks, Sinks} -> Sinks
    after 300 ->
        erlang:monotonic_time(millisecond) < Deadline orelse error({no_answer_from, Peer, Link}),
        learn(Link, Peer, Deadline)
    end.

actors(#{work := hol, ping_link := PingLink, ping_size := PingSize} = Args, Sinks, Histogram) ->
    #{link := Link, size := Size} = Args,
    {Streams, [Echo]} = lists:split(length(Sinks) - 1, Sinks),
    N = length(Streams),
    [actor(stream, Link, I, To, Size, Histogram) || {I, To} <- lists:zip(lists:seq(0, N - 1), Streams)] ++
        [actor(ping, PingLink, N, Echo, PingSize, Histogram)];
actors(#{work := Work, link := Link, size := Size}, Sinks, Histogram) ->
    [actor(Work, Link, I, To, Size, Histogram) || {I, To} <- lists:zip(lists:seq(0, length(Sinks) - 1), Sinks)].

actor(Work, Link, I, To, Size, Histogram) ->
    Coordinator = self(),
    Bin = bench_payload:get(Size),
    Opts = bench_link:opts(Link, I),
    {Work, spawn_link(fun() -> actor(Work, {Link, To, Opts, Bin}, Histogram, Coordinator) end)}.

actor(Work, Path, Histogram, Coordinator) ->
    receive
        {go, Amount} ->
            Outcome =
                case Work of
                    flood -> flood(Path, Amount, Coordinator);
                    loop -> loop(Path, Amount, Histogram, 0);
                    stream -> stream(Path);
                    ping -> ping(Path, Histogram)
                end,
            Coordinator ! {finished, self(), Outcome},
            actor(Work, Path, Histogram, Coordinator)
    end.

%%% Rounds

coordinate(Args, Actors, Histogram) ->
    receive
        {round, From, Amount} ->
            From ! {result, self(), conduct(Args, Actors, Histogram, Amount)},
            coordinate(Args, Actors, Histogram)
    end.

conduct(#{work := Work, size := Size}, Actors, Histogram, Amount) ->
    ok = bench_histogram:reset(Histogram),
    Pids = [Pid || {_, Pid} <- Actors],
    Start = os:perf_counter(),
    lists:foreach(fun(Pid) -> Pid ! {go, Amount} end, Pids),
    Timed = timed(Amount, Start, Pids),
    Outcomes = [receive {finished, Pid, Outcome} -> {Kind, Outcome} end || {Kind, Pid} <- Actors],
    _ = Work =:= flood andalso [receive {done, _} -> ok end || _ <- Actors],
    End = os:perf_counter(),
    Sent = [N || {Kind, {N, _, _}} <- Outcomes, Kind =/= ping],
    InTime = [N || {Kind, {_, N, _}} <- Outcomes, Kind =/= ping],
    #{
        %% Streams count what was acknowledged in time; what is on its way then only has to arrive.
        ns => case Timed of untimed -> End - Start; Ns -> Ns end,
        messages => lists:sum(InTime),
        bytes => lists:sum(InTime) * Size,
        sent => lists:sum(Sent) + lists:sum([N || {ping, {N, _, _}} <- Outcomes]),
        sum => lists:sum([Sum || {_, {_, _, Sum}} <- Outcomes]) band ?SUM_MASK,
        rt => bench_histogram:text(Histogram)
    }.

timed({count, _}, _, _) ->
    untimed;
timed({ms, Ms}, Start, Pids) ->
    timer:sleep(Ms),
    lists:foreach(fun(Pid) -> Pid ! stop end, Pids),
    os:perf_counter() - Start.

%%% Work: each returns {messages sent, messages acknowledged in time, sum over them}

flood({Link, To, Opts, Bin}, {count, Count}, Coordinator) ->
    ok = bench_link:send(Link, To, Opts, {start, Coordinator, Count}),
    flood(Link, To, Opts, Bin, 0, Count).

flood(_, _, _, _, Count, Count) ->
    {Count, Count, Count * (Count - 1) div 2};
flood(Link, To, Opts, Bin, N, Count) ->
    ok = bench_link:send(Link, To, Opts, {N, Bin}),
    flood(Link, To, Opts, Bin, N + 1, Count).

loop(Path, {count, Count}, Histogram, Sum) ->
    loop(Path, Count, Count, Histogram, Sum).

loop(_, 0, Count, _, Sum) ->
    {Count, Count, Sum};
loop(Path, Left, Count, Histogram, Sum) ->
    SentAt = request(Path, Histogram),
    loop(Path, Left - 1, Count, Histogram, Sum + SentAt).

request({Link, To, Opts, Bin}, Histogram) ->
    SentAt = os:perf_counter(),
    ok = bench_link:send(Link, To, Opts, {message, Bin, self(), SentAt}),
    receive
        ok -> ok = bench_histogram:record(Histogram, os:perf_counter() - SentAt)
    end,
    SentAt.

ping(Path, Histogram) ->
    ping(Path, Histogram, 0, 0).

ping(Path, Histogram, N, Sum) ->
    SentAt = request(Path, Histogram),
    receive
        stop -> {N + 1, N + 1, Sum + SentAt}
    after ?PING_PAUSE_MS -> ping(Path, Histogram, N + 1, Sum + SentAt)
    end.

stream(Path) ->
    Sum = lists:sum([chunk(Path) || _ <- lists:seq(1, ?WINDOW)]),
    stream(Path, ?WINDOW, 0, Sum).

stream(Path, Sent, Acked, Sum) ->
    receive
        stop ->
            [receive ok -> ok end || _ <- lists:seq(Acked + 1, Sent)],
            {Sent, Acked, Sum};
        ok ->
            stream(Path, Sent + 1, Acked + 1, Sum + chunk(Path))
    end.

chunk({Link, To, Opts, Bin}) ->
    SentAt = os:perf_counter(),
    ok = bench_link:send(Link, To, Opts, {message, Bin, self(), SentAt}),
    SentAt.
