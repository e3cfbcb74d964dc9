%% The receiving end: the processes that messages are sent to, and what they have seen.
%%
%% Two kinds. A *counter* gets a one-way stream of `{Number, Binary}' after `{start, Coordinator, Count}' and tells the
%% coordinator when all are there. A *partner* answers every `{message, Binary, From, SentAt}' with `ok'. All check
%% every message; a few partners keep their last one, which is hashed when the clock has stopped.
-module(bench_sink).

-export([open/1, verdict/1, close/1]).
-export_type([sinks/0]).

-type sinks() :: {Directory :: pid(), [pid()], bench_histogram:histogram()}.
-type seen() :: #{messages := non_neg_integer(), sum := non_neg_integer(), bad := non_neg_integer()}.

%% What partners may keep, over all.
-define(KEPT_BYTES, (256 bsl 20)).
-define(SUM_MASK, 16#3ffffffffffffff).
-define(PATIENCE_MS, 60_000).

-record(partner, {
    link :: bench_link:link(),
    opts :: bench_link:opts(),
    expected :: binary(),
    histogram :: bench_histogram:histogram(),
    keep :: boolean(),
    last = <<>> :: binary()
}).

%% `n' sinks of `kind' for messages of `size' bytes over `link'. With `ping_link' one more partner, for requests of
%% `ping_size' bytes, comes last. Whoever asks `bench_sinks' over a link learns their pids.
-spec open(map()) -> sinks().
open(#{kind := Kind, n := N, size := Size, link := Link} = Args) ->
    Histogram = bench_histogram:new(),
    Start = fun(I, Via, Bytes) ->
        Expected = bench_payload:get(Bytes),
        Opts = bench_link:opts(Via, I),
        spawn_opt(
            fun() ->
                case Kind of
                    counter ->
                        counter(Via, Opts, Expected, seen());
                    partner ->
                        Keep = (I + 1) * Bytes =< ?KEPT_BYTES,
                        partner(
                            #partner{link = Via, opts = Opts, expected = Expected, histogram = Histogram, keep = Keep},
                            seen()
                        )
                end
            end,
            [link]
        )
    end,
    Sinks =
        [Start(I, Link, Size) || I <- lists:seq(0, N - 1)] ++
            [Start(N, PingLink, maps:get(ping_size, Args)) || {ok, PingLink} <- [maps:find(ping_link, Args)]],
    Directory = spawn_link(fun() ->
        true = register(bench_sinks, self()),
        directory(Sinks)
    end),
    {Directory, Sinks, Histogram}.

%% What they have seen since the last verdict, and the one-way latencies.
-spec verdict(sinks()) -> {seen(), iodata()}.
verdict({_, Sinks, Histogram}) ->
    Asked = [{Sink, begin Ref = make_ref(), Sink ! {verdict, self(), Ref}, Ref end} || Sink <- Sinks],
    Add = fun(_, X, Y) -> X + Y end,
    Seen = lists:foldl(
        fun({Sink, Ref}, Sum) ->
            receive
                {Ref, One} -> maps:merge_with(Add, Sum, One)
            after ?PATIENCE_MS -> error({no_verdict, Sink})
            end
        end,
        seen(),
        Asked
    ),
    Text = bench_histogram:text(Histogram),
    ok = bench_histogram:reset(Histogram),
    {Seen#{sum := maps:get(sum, Seen) band ?SUM_MASK}, Text}.

-spec close(sinks()) -> ok.
close({Directory, Sinks, _}) ->
    lists:foreach(
        fun(Pid) ->
            Monitor = monitor(process, Pid),
            unlink(Pid),
            exit(Pid, kill),
            receive
                {'DOWN', Monitor, process, Pid, _} -> ok
            end
        end,
        [Directory | Sinks]
    ).

directory(Sinks) ->
    receive
        {who, Link, From} ->
            ok = bench_link:send(Link, From, bench_link:opts(Link, 0), {sinks, Sinks}),
            directory(Sinks);
        {verdict, _, _} ->
            directory(Sinks)
    end.

seen() ->
    #{messages => 0, sum => 0, bad => 0}.

counter(Link, Opts, Expected, Seen) ->
    receive
        {start, Coordinator, Count} ->
            {Sum, Bad} = count(0, Count, Expected, 0, 0),
            ok = bench_link:send(Link, Coordinator, Opts, {done, Count}),
            #{messages := M0, sum := S0, bad := B0} = Seen,
            counter(Link, Opts, Expected, Seen#{messages := M0 + Count, sum := S0 + Sum, bad := B0 + Bad});
        {verdict, From, Ref} ->
            From ! {Ref, Seen},
            counter(Link, Opts, Expected, seen());
        _ ->
            counter(Link, Opts, Expected, maps:update_with(bad, fun(Bad) -> Bad + 1 end, Seen))
    end.

%% A message out of its order is a bad one: one sender, one receiver, one connection.
count(Count, Count, _, Sum, Bad) ->
    {Sum, Bad};
count(N, Count, Expected, Sum, Bad) ->
    receive
        {Number, Bin} ->
            case Number =:= N andalso bench_payload:matches(Bin, Expected, N) of
                true -> count(N + 1, Count, Expected, Sum + Number, Bad);
                false -> count(N + 1, Count, Expected, Sum + Number, Bad + 1)
            end
    end.

partner(#partner{link = Link, opts = Opts} = State, #{messages := N, sum := Sum} = Seen) ->
    receive
        {message, Bin, From, SentAt} ->
            ok = bench_histogram:record(State#partner.histogram, os:perf_counter() - SentAt),
            ok = bench_link:send(Link, From, Opts, ok),
            Next =
                case bench_payload:matches(Bin, State#partner.expected, N) of
                    true -> Seen#{messages := N + 1, sum := Sum + SentAt};
                    false -> Seen#{messages := N + 1, sum := Sum + SentAt, bad := maps:get(bad, Seen) + 1}
                end,
            case State#partner.keep of
                true -> partner(State#partner{last = Bin}, Next);
                false -> partner(State, Next)
            end;
        {verdict, From, Ref} ->
            From ! {Ref, judge(State, Seen)},
            partner(State#partner{last = <<>>}, seen())
    end.

judge(#partner{keep = true, last = Last, expected = Expected}, #{messages := N, bad := Bad} = Seen) when N > 0 ->
    case bench_payload:equals(Last, Expected) of
        true -> Seen;
        false -> Seen#{bad := Bad + 1}
    end;
judge(_, Seen) ->
    Seen.
