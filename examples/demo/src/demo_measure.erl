%% Sends, stops the clock, has everything verified. A measurement is as many rounds as make two seconds of clock.
%%
%% The clock of a round starts before the first send and stops when the report of the sink, which goes by the same
%% link, is back at the driver. Hashing follows while the clock stands, so one round's data is all that is ever kept.
-module(demo_measure).

-export([deliver/3, there_and_back/3, points/2]).

-define(PAIRS, 5).
-define(LEAST_MS, 2000).
-define(SMALL_COUNT, 200_000).
-define(PING_PAUSE_MS, 1).
-define(PATIENCE_MS, 60_000).

%% One point: what is measured, and one map of results per pair and link.
-type result() :: #{ns := pos_integer(), bytes := non_neg_integer(), messages := pos_integer(),
                    cpu_ms := non_neg_integer(), latencies := [pos_integer()]}.
-type point() :: {atom(), [#{partisan := result(), dist := result()}]}.
-export_type([result/0, point/0]).

%% Every item of a set to node B by Partisan, verified there.
-spec deliver(node(), atom(), [binary()]) -> ok.
deliver(B, Set, Items) ->
    _ = round(partisan, B, bulk_job(Set, Items, false)),
    ok.

%% Every item to the Rust node's echo and back, verified here.
-spec there_and_back(node(), [binary()], [binary()]) -> ok.
there_and_back(Rust, Items, Expected) ->
    Self = self(),
    Ref = make_ref(),
    _ = spawn_link(fun() ->
                           Send = fun(Msg) ->
                                          ok = partisan:forward_message(Rust, echo, {Self, Ref, Msg}, #{channel => bulk})
                                  end,
                           send_items(Send, Items, 0)
                   end),
    Received = [receive {Ref, {item, N, Bin}} -> {N, Bin}
                after ?PATIENCE_MS -> lost(io_lib:format("echoes from ~ts", [Rust]))
                end || _ <- Items],
    accept(demo_input:verify(Received, Expected)).

-spec points(node(), demo_input:input()) -> [point()].
points(B, #{files := Files, packed := Packed}) ->
    Jobs = [{files, bulk_job(files, Files, false)},
            {packed, bulk_job(packed, Packed, false)},
            {small, small_job()},
            {beside, bulk_job(packed, Packed, true)}],
    [{Name, point(Name, B, Job)} || {Name, Job} <- Jobs].

point(Name, B, Job) ->
    [round(Link, B, Job) || Link <- [partisan, dist]],
    [begin
         %% Who goes first alternates.
         Order = case N rem 2 of 1 -> [partisan, dist]; 0 -> [dist, partisan] end,
         Pair = maps:from_list([{Link, measure(Link, B, Job)} || Link <- Order]),
         demo_report:pair(Name, N, ?PAIRS, Pair),
         Pair
     end || N <- lists:seq(1, ?PAIRS)].

measure(Link, B, Job) ->
    measure(Link, B, Job, round(Link, B, Job)).

measure(Link, B, Job, #{ns := Ns} = Sum) when Ns < ?LEAST_MS * 1_000_000 ->
    Add = fun(latencies, X, Y) -> X ++ Y; (_, X, Y) -> X + Y end,
    measure(Link, B, Job, maps:merge_with(Add, round(Link, B, Job), Sum));
measure(_, _, _, Sum) ->
    Sum.

%% What a round sends: a function of how to send, and what the sink is told about it.
bulk_job(Set, Items, Pings) ->
    #{sink => {set, Set}, channel => bulk, messages => length(Items), bytes => demo_input:bytes(Items), pings => Pings,
      send => fun(Send) -> send_items(Send, Items, 0) end}.

small_job() ->
    Payload = crypto:strong_rand_bytes(64),
    #{sink => {small, Payload}, channel => rpc, messages => ?SMALL_COUNT, bytes => ?SMALL_COUNT * 64, pings => false,
      send => fun(Send) -> send_small(Send, Payload, 0) end}.

send_items(_, [], _) -> ok;
send_items(Send, [Item | Items], N) ->
    Send({item, N, Item}),
    send_items(Send, Items, N + 1).

send_small(_, _, ?SMALL_COUNT) -> ok;
send_small(Send, Payload, N) ->
    Send({msg, N, Payload}),
    send_small(Send, Payload, N + 1).

-spec round(demo_link:link(), node(), map()) -> result().
round(Link, B, #{sink := What, channel := Channel, messages := Messages, bytes := Bytes, send := SendAll, pings := Pings}) ->
    Driver = {partisan:node(), demo_driver, whereis(demo_driver)},
    Sink = erpc:call(B, demo_sink, start, [What, Messages, Link, Driver]),
    Target = {B, demo_sink, Sink},
    Echo = {B, demo_echo, erpc:call(B, erlang, whereis, [demo_echo])},
    erlang:garbage_collect(),
    CpuBefore = cpu_ms(B),
    Start = erlang:monotonic_time(nanosecond),
    Pinger = [start_pinger(Link, Echo) || Pings],
    SendAll(fun(Msg) -> demo_link:send(Link, Target, Channel, Msg) end),
    receive {arrived, Sink} -> ok after ?PATIENCE_MS -> lost("report of the sink") end,
    Ns = erlang:monotonic_time(nanosecond) - Start,
    Cpu = cpu_ms(B) - CpuBefore,
    Latencies = lists:append([stop_pinger(It) || It <- Pinger]),
    accept(erpc:call(B, demo_sink, verdict, [Sink])),
    #{ns => Ns, bytes => Bytes, messages => Messages, cpu_ms => Cpu, latencies => Latencies}.

%% Both nodes together.
cpu_ms(B) ->
    demo_sink:cpu_ms() + erpc:call(B, demo_sink, cpu_ms, []).

%% One request after the other, for as long as the stream beside it runs. The pause between them keeps the few
%% milliseconds at the stream's edges, where replies are quick, from making up most of the samples.
start_pinger(Link, Echo) ->
    Payload = crypto:strong_rand_bytes(64),
    Parent = self(),
    spawn_link(fun() -> ping(Link, Echo, Payload, 0, Parent, []) end).

ping(Link, Echo, Payload, N, Parent, Latencies) ->
    Start = erlang:monotonic_time(nanosecond),
    demo_link:send(Link, Echo, rpc, {ping, Link, self(), N, Payload}),
    receive
        {pong, N, Payload} -> ok;
        {pong, _, _} -> exit({demo, "a reply is not what was sent"})
    after ?PATIENCE_MS ->
        exit({demo, "a reply never came"})
    end,
    Taken = [erlang:monotonic_time(nanosecond) - Start | Latencies],
    receive
        stop ->
            Parent ! {latencies, self(), Taken}
    after ?PING_PAUSE_MS ->
        ping(Link, Echo, Payload, N + 1, Parent, Taken)
    end.

stop_pinger(Pinger) ->
    Pinger ! stop,
    receive {latencies, Pinger, Latencies} -> Latencies after ?PATIENCE_MS -> lost("reply to a request") end.

accept(ok) -> ok;
accept({error, Text}) -> throw({demo, Text}).

-spec lost(iodata()) -> no_return().
lost(What) ->
    throw({demo, ["waited in vain for: ", What]}).
