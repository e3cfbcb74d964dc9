%% Messages per second by Distributed Erlang between a stock node and anybody: the stock node's halves.
%%
%% A message is `{data, Number, Binary}'. Each sender has a sink of its own, which checks that its numbers come
%% without a gap, counts, and takes the CRC-32 over all binaries. It knows how many will come, and says
%% when the last one has.
-module(bench_stock).

-export([open/1, expect/3, wait/1, send/2]).

-type sinks() :: #{pids => [pid()], awaited => [pid()]}.
-export_type([sinks/0]).

%% Numbers begin here, so that all have the same length on the wire.
-define(FIRST, 1000000).

%% @doc Starts sinks and tells their numbers.
-spec open(pos_integer()) -> {#{atom() => string() | integer()}, sinks()}.
open(N) ->
    Pids = [spawn_link(fun idle/0) || _ <- lists:seq(1, N)],
    [{_, _, Creation} | _] = Numbers = [numbers(Pid) || Pid <- Pids],
    Texts = [io_lib:format("~b.~b", [Id, Serial]) || {Id, Serial, _} <- Numbers],
    {#{pids => lists:join(",", Texts), creation => Creation}, #{pids => Pids, awaited => []}}.

numbers(Pid) ->
    External = term_to_binary(Pid),
    <<Id:32, Serial:32, Creation:32>> = binary:part(External, byte_size(External), -12),
    {Id, Serial, Creation}.

%% @doc Makes the first sinks ready for so many messages each.
-spec expect(sinks(), pos_integer(), pos_integer()) -> sinks().
expect(#{pids := Pids} = Sinks, N, Count) ->
    Awaited = lists:sublist(Pids, N),
    lists:foreach(fun(Pid) -> Pid ! {expect, self(), Count} end, Awaited),
    [receive {ready, Pid} -> ok end || Pid <- Awaited],
    Sinks#{awaited := Awaited}.

%% @doc Waits for the last message; tells when it came, and the sum of the sinks' checksums.
-spec wait(sinks()) -> #{atom() => integer()}.
wait(#{awaited := Awaited}) ->
    Done = [receive {done, Pid, Crc, At} -> {Crc, At} after 120000 -> error(lost) end || Pid <- Awaited],
    {Sums, Times} = lists:unzip(Done),
    #{'end' => lists:max(Times), crc => lists:sum(Sums)}.

idle() ->
    %% As is advised for processes that may have long queues.
    _ = process_flag(message_queue_data, off_heap),
    receive
        {expect, From, Count} ->
            From ! {ready, self()},
            sink(From, ?FIRST, ?FIRST + Count, 0)
    end.

sink(From, End, End, Crc) ->
    From ! {done, self(), Crc, os:perf_counter()},
    idle();
sink(From, Number, End, Crc) ->
    receive
        {data, Number, Bin} -> sink(From, Number + 1, End, erlang:crc32(Crc, Bin));
        Other -> error({expected, Number, got, Other})
    end.

%% @doc Sends so many messages to each of the sinks of another node, each from a process of its own. Tells when it began.
-spec send([string()], #{atom() => term()}) -> #{atom() => integer()}.
send(Pids, #{peer := Node, creation := Creation, count := Count, size := Size}) ->
    Bin = bench_payload:get(Size),
    Sinks = [pid_of(Node, Text, Creation) || Text <- Pids],
    true = net_kernel:connect_node(Node),
    Start = os:perf_counter(),
    Senders = [spawn_monitor(fun() -> burst(Sink, Bin, ?FIRST, ?FIRST + Count) end) || Sink <- Sinks],
    [receive {'DOWN', Ref, process, _, normal} -> ok end || {_, Ref} <- Senders],
    #{start => Start}.

burst(_, _, End, End) ->
    ok;
burst(Sink, Bin, Number, End) ->
    Sink ! {data, Number, Bin},
    burst(Sink, Bin, Number + 1, End).

pid_of(Node, Text, Creation) ->
    [Id, Serial] = [list_to_integer(Part) || Part <- string:lexemes(Text, ".")],
    Name = atom_to_binary(Node),
    binary_to_term(<<131, 88, 119, (byte_size(Name)), Name/binary, Id:32, Serial:32, Creation:32>>).
