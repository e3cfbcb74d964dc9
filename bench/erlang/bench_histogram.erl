%% Latencies counted in buckets: 64 to each power of two, so that a bucket is 1.6 % wide at most.
%%
%% A bucket's number is made of the upper bits of the value as a float: its exponent and the first six bits of its
%% mantissa. Counting costs about 60 ns, the same for all contestants.
-module(bench_histogram).

-export([new/0, record/2, reset/1, text/1]).
-export_type([histogram/0]).

-opaque histogram() :: counters:counters_ref().

%% Up to 2^45 ns, ten hours.
-define(BUCKETS, (46 * 64)).

-spec new() -> histogram().
new() ->
    counters:new(?BUCKETS, []).

-spec record(histogram(), Ns :: integer()) -> ok.
record(Histogram, Ns) ->
    <<_:1, Exponent:11, Mantissa:6, _:46>> = <<(float(max(Ns, 1)))/float>>,
    counters:add(Histogram, (Exponent - 1023) * 64 + Mantissa + 1, 1).

-spec reset(histogram()) -> ok.
reset(Histogram) ->
    lists:foreach(fun(I) -> counters:put(Histogram, I, 0) end, lists:seq(1, ?BUCKETS)).

%% `bucket:count,bucket:count,...` of the buckets that are not empty, counted from 0.
-spec text(histogram()) -> iodata().
text(Histogram) ->
    Filled = [{I - 1, Count} || I <- lists:seq(1, ?BUCKETS), Count <- [counters:get(Histogram, I)], Count > 0],
    lists:join($,, [io_lib:format("~b:~b", [I, Count]) || {I, Count} <- Filled]).
