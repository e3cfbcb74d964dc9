%% Progress lines, and the table with the bars at the end.
-module(demo_report).

-export([progress/2, title/1, pair/4, table/1]).

-define(ROW, "~-36ts ~11ts ~19ts  ~-25ts ~-25ts ~ts~n").

-spec progress(io:format(), [term()]) -> ok.
progress(Format, Args) ->
    {Ms, _} = statistics(wall_clock),
    io:format("~6.1f s  " ++ Format ++ "~n", [Ms / 1000 | Args]).

-spec title(atom()) -> string().
title(files) -> "files";
title(packed) -> "8 MB binaries";
title(small) -> "64 B messages, one sender";
title(beside) -> "64 B request/reply beside 8 MB".

-spec pair(atom(), pos_integer(), pos_integer(), map()) -> ok.
pair(Name, N, Of, Pair) ->
    Texts = [begin
                 #{partisan := Ours, dist := Theirs} = maps:map(fun(_, Result) -> Value(Result) end, Pair),
                 io_lib:format("~ts / ~ts = ~ts", [Show(Ours), Show(Theirs), ratio(Ours / Theirs)])
             end || {_, Value, Show, _} <- lines(Name)],
    progress("~-30ts ~b/~b  ~ts", [title(Name), N, Of, lists:join("; ", Texts)]).

-spec table([demo_measure:point()]) -> ok.
table(Points) ->
    io:nl(),
    io:format(?ROW, ["median of pairs", "partisan", "Distributed Erlang", "ratio (min-max)", "CPU of both nodes", "bar"]),
    lists:foreach(fun({Name, Pairs}) -> point(lines(Name), Pairs, cpu(Name, Pairs)) end, Points).

%% The last line of a point is about its throughput, so the CPU time stands there.
point([Last], Pairs, Cpu) ->
    line(Last, Pairs, Cpu);
point([Line | Lines], Pairs, Cpu) ->
    line(Line, Pairs, ""),
    point(Lines, Pairs, Cpu).

line({Title, Value, Show, Bar}, Pairs, Cpu) ->
    Ours = [Value(Result) || #{partisan := Result} <- Pairs],
    Theirs = [Value(Result) || #{dist := Result} <- Pairs],
    Ratios = lists:zipwith(fun(X, Y) -> X / Y end, Ours, Theirs),
    Range = io_lib:format("~tsx (~ts-~ts)",
                          [ratio(median(Ratios)), ratio(lists:min(Ratios)), ratio(lists:max(Ratios))]),
    io:format(?ROW, [Title, Show(median(Ours)), Show(median(Theirs)), Range, Cpu,
                     bar(Bar, median(Ratios))]).

%% What a point shows: title, value of one result, how to print it, and the bar for the ratio.
lines(beside) ->
    [{title(beside) ++ ", p50", fun(R) -> quantile(0.50, R) end, fun micros/1, {at_most, 0.1}},
     {title(beside) ++ ", p99", fun(R) -> quantile(0.99, R) end, fun micros/1, none},
     {"the 8 MB stream beside it", fun bytes_per_second/1, fun rate/1, {at_least, 1.0}}];
lines(small) ->
    [{title(small), fun messages_per_second/1, fun messages/1, {at_least, 2.0}}];
lines(packed) ->
    [{title(packed), fun bytes_per_second/1, fun rate/1, {at_least, 1.2}}];
lines(files) ->
    [{title(files), fun bytes_per_second/1, fun rate/1, {at_least, 0.9}}].

bytes_per_second(#{bytes := Bytes, ns := Ns}) -> Bytes * 1.0e9 / Ns.
messages_per_second(#{messages := Messages, ns := Ns}) -> Messages * 1.0e9 / Ns.
quantile(Q, #{latencies := Latencies}) ->
    lists:nth(max(1, ceil(Q * length(Latencies))), lists:sort(Latencies)).

cpu(small, Pairs) ->
    per(Pairs, messages, 1.0e3, "us/message");
cpu(_, Pairs) ->
    per(Pairs, bytes, 1.0e6, "ns/B").

per(Pairs, Key, Scale, Unit) ->
    [Ours, Theirs] = [median([maps:get(cpu_ms, R) * Scale / maps:get(Key, R) || #{Link := R} <- Pairs])
                      || Link <- [partisan, dist]],
    io_lib:format("~.2f / ~.2f ~ts", [Ours, Theirs, Unit]).

bar(none, _) -> "";
bar({at_least, Least}, Ratio) -> io_lib:format(">= ~.1fx ~ts", [Least, met(Ratio >= Least)]);
bar({at_most, Most}, Ratio) -> io_lib:format("<= ~.1fx ~ts", [Most, met(Ratio =< Most)]).

met(true) -> "met";
met(false) -> "missed".

median(Values) ->
    Sorted = lists:sort(Values),
    Half = length(Sorted) div 2,
    case length(Sorted) rem 2 of
        1 -> lists:nth(Half + 1, Sorted);
        0 -> (lists:nth(Half, Sorted) + lists:nth(Half + 1, Sorted)) / 2
    end.

ratio(Ratio) when Ratio < 0.1 -> io_lib:format("~.4f", [Ratio]);
ratio(Ratio) -> io_lib:format("~.2f", [Ratio]).

rate(BytesPerSecond) -> io_lib:format("~.2f GB/s", [BytesPerSecond / 1.0e9]).
messages(PerSecond) -> io_lib:format("~b k/s", [round(PerSecond / 1.0e3)]).
micros(Ns) -> io_lib:format("~.1f us", [Ns / 1.0e3]).
