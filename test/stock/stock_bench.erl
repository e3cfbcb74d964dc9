%% @doc The Erlang half of the measurement of messages per second to a stock receiver: the receiver, and
%% a sender that is the measure for the Rust sender.
%%
%% The receiver is the process `bench_sink'. It takes `{data, Seq, Bin}' and, at `{report, Pid, Ref}', sends
%% `{Ref, Count, Bytes, Crc, Micros}' to `Pid' and begins anew: `Crc' is the CRC-32 of all `Bin' in order, each
%% preceded by its `Seq' in four bytes; `Micros' is the time from the first message to the report. Whoever
%% sends, it does the same work.
-module(stock_bench).

-export([start/0, send/3, send/4, checksum/2]).

%% @doc Starts the receiver.
-spec start() -> ok.
start() ->
    Starter = self(),
    spawn(fun() ->
        true = register(bench_sink, self()),
        _ = process_flag(message_queue_data, off_heap),
        Starter ! {started, bench_sink},
        idle()
    end),
    receive {started, bench_sink} -> ok end.

idle() ->
    receive
        {data, Seq, Bin} ->
            Began = erlang:monotonic_time(microsecond),
            sink(1, byte_size(Bin), crc(0, Seq, Bin), Began);
        {report, Pid, Ref} ->
            Pid ! {Ref, 0, 0, 0, 0},
            idle()
    end.

sink(Count, Bytes, Crc, Began) ->
    receive
        {data, Seq, Bin} ->
            sink(Count + 1, Bytes + byte_size(Bin), crc(Crc, Seq, Bin), Began);
        {report, Pid, Ref} ->
            Pid ! {Ref, Count, Bytes, Crc, erlang:monotonic_time(microsecond) - Began},
            idle()
    end.

crc(Crc, Seq, Bin) ->
    erlang:crc32(Crc, [<<Seq:32>>, Bin]).

%% @doc Sends so many messages of so many bytes, as one process.
-spec send(node(), pos_integer(), pos_integer()) -> {ok, map()} | {error, term()}.
send(Node, Count, Size) ->
    send(Node, Count, Size, bench_sink).

%% @doc The same to a receiver of another name, be it Rust's.
-spec send(node(), pos_integer(), pos_integer(), atom()) -> {ok, map()} | {error, term()}.
send(Node, Count, Size, Name) ->
    Bin = payload(Size),
    {Pid, Monitor} = spawn_opt(
        fun() ->
            To = {Name, Node},
            Empty = make_ref(),
            To ! {report, self(), Empty},
            receive {Empty, _, _, _, _} -> ok end,
            burst(To, Bin, 0, Count),
            Ref = make_ref(),
            To ! {report, self(), Ref},
            receive
                {Ref, Arrived, Bytes, Crc, Micros} -> exit({result, Arrived, Bytes, Crc, Micros})
            end
        end,
        [monitor]
    ),
    Wanted = checksum(Count, Size),
    receive
        {'DOWN', Monitor, process, Pid, {result, Count, Bytes, Wanted, Micros}} when Bytes =:= Count * Size ->
            {ok, #{micros => Micros, per_second => Count * 1000000 div max(1, Micros)}};
        {'DOWN', Monitor, process, Pid, Other} ->
            {error, Other}
    end.

burst(_, _, Count, Count) ->
    ok;
burst(To, Bin, N, Count) ->
    To ! {data, N, Bin},
    burst(To, Bin, N + 1, Count).

%% @doc What `Crc' is after so many messages of so many bytes, numbered from 0, of the bytes 0, 1, ...,
%% 250, 0, ...
-spec checksum(pos_integer(), pos_integer()) -> non_neg_integer().
checksum(Count, Size) ->
    Bin = payload(Size),
    lists:foldl(fun(Seq, Crc) -> crc(Crc, Seq, Bin) end, 0, lists:seq(0, Count - 1)).

payload(Size) ->
    << <<(N rem 251)>> || N <- lists:seq(0, Size - 1) >>.
