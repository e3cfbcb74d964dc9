%% A node of the benchmark: does what the driver says.
%%
%% A command is a line `name key=value ...' on standard input; the answer is one line on standard output, `@ok
%% key=value ...' or `@error text'. What else stands on standard output is a log. The node ends with its input.
-module(bench_node).

-export([start/0]).

-type state() :: #{
    flavour => atom(), sinks => bench_sink:sinks(), source => bench_source:source(), stock => bench_stock:sinks()
}.

%% How often the length of the queues is looked at.
-define(SAMPLE_MS, 10).

%% The keys of commands; values stay text unless a type is given.
-define(INTEGERS, ["n", "size", "ping_size", "count", "ms", "port", "creation"]).
-define(ATOMS, ["work", "kind", "peer", "name", "flavour"]).
-define(LINKS, ["link", "ping_link"]).

-spec start() -> pid().
start() ->
    spawn(fun() ->
        ok = io:setopts([{encoding, unicode}]),
        serve(#{})
    end).

-spec serve(state()) -> no_return().
serve(State) ->
    case io:get_line("") of
        Line when is_list(Line) ->
            [Name | Pairs] = string:lexemes(string:trim(Line), " "),
            {Answer, Next} =
                try command(list_to_atom(Name), maps:from_list([pair(Pair) || Pair <- Pairs]), State) of
                    {Results, NewState} -> {["@ok", results(Results)], NewState}
                catch
                    Class:Reason:Stack ->
                        Text = io_lib:format("~0tp:~0tp ~0tp", [Class, Reason, Stack]),
                        {["@error ", string:replace(Text, "\n", " ", all)], State}
                end,
            io:put_chars([Answer, $\n]),
            serve(Next);
        _ ->
            halt(0, [{flush, false}])
    end.

pair(Text) ->
    [Key, Value] = string:split(Text, "="),
    Is = fun(Keys) -> lists:member(Key, Keys) end,
    Typed =
        case {Is(?INTEGERS), Is(?ATOMS), Is(?LINKS)} of
            {true, _, _} -> list_to_integer(Value);
            {_, true, _} -> list_to_atom(Value);
            {_, _, true} -> bench_link:parse(Value);
            _ -> Value
        end,
    {list_to_atom(Key), Typed}.

results(Results) ->
    [io_lib:format(" ~ts=~ts", [Key, text(Value)]) || {Key, Value} <- maps:to_list(Results)].

text(Value) when is_integer(Value) -> integer_to_list(Value);
text(Value) -> Value.

%%% Commands

command(hello, #{payload := Path, sizes := Sizes}, State) ->
    ok = bench_payload:load(Path, [list_to_integer(Size) || Size <- string:lexemes(Sizes, ",")]),
    Release = erlang:system_info(otp_release),
    {#{pid => os:getpid(), clock => clock(), otp => Release}, State};
command(start, #{flavour := Flavour} = Args, State) ->
    ok = start(Flavour, Args),
    {#{}, State#{flavour => Flavour}};
command(join, Args, State) ->
    ok = join(Args),
    {#{}, State};
command(sink, Args, State) ->
    {#{}, State#{sinks => bench_sink:open(Args)}};
command(source, Args, State) ->
    {#{}, State#{source => bench_source:open(Args)}};
command(round, Args, #{source := Source} = State) ->
    Amount =
        case Args of
            #{count := Count} -> {count, Count};
            #{ms := Ms} -> {ms, Ms}
        end,
    {watched(maps:get(flavour, State, dist), fun() -> bench_source:round(Source, Amount) end), State};
command(verdict, _, #{sinks := Sinks} = State) ->
    {Seen, Latencies} = bench_sink:verdict(Sinks),
    {Seen#{ow => Latencies}, State};
command(open, #{n := N}, State) ->
    {Numbers, Sinks} = bench_stock:open(N),
    {Numbers, State#{stock => Sinks}};
command(expect, #{n := N, count := Count}, #{stock := Sinks} = State) ->
    {#{}, State#{stock := bench_stock:expect(Sinks, N, Count)}};
command(wait, _, #{stock := Sinks} = State) ->
    {bench_stock:wait(Sinks), State};
command(send, #{pids := Pids} = Args, State) ->
    {bench_stock:send(string:lexemes(Pids, ","), Args), State};
command(gc, _, State) ->
    lists:foreach(fun erlang:garbage_collect/1, processes()),
    {#{}, State};
command(close, _, State) ->
    _ = [bench_source:close(Source) || #{source := Source} <- [State]],
    _ = [bench_sink:close(Sinks) || #{sinks := Sinks} <- [State]],
    {#{}, maps:without([source, sinks], State)}.

%% Adds the greatest number of bytes that were queued meanwhile, where the contestant tells it.
watched(Flavour, Round) when Flavour =:= ours; Flavour =:= mixed ->
    Owner = self(),
    Watcher = spawn_link(fun() -> watch(Owner, 0) end),
    Result = Round(),
    Watcher ! stop,
    receive
        {queued, Watcher, Peak} -> Result#{queued => Peak}
    end;
watched(_, Round) ->
    Round().

watch(Owner, Peak) ->
    receive
        stop -> Owner ! {queued, self(), Peak}
    after ?SAMPLE_MS -> watch(Owner, max(Peak, partisan_nif:queued()))
    end.

%% Nanoseconds of CLOCK_MONOTONIC, the same for all processes of the host.
clock() ->
    1_000_000_000 = erlang:convert_time_unit(1, second, perf_counter),
    os:perf_counter().

%%% Start-up: all that differs between contestants

%% The defaults of the product, but for its address and its channels, and what the contestant's name overrides.
start(dist, _) ->
    ok;
start(Flavour, #{listen := Listen, channels := Channels} = Args) ->
    [Ip, Port] = string:split(Listen, ":"),
    {ok, Address} = inet:parse_address(Ip),
    Overrides = [
        override(string:split(Pair, "="))
     || Pair <- string:lexemes(maps:get(config, Args, ""), ";")
    ],
    Settings = [
        {name, node()},
        {listen_addrs, [#{ip => Address, port => list_to_integer(Port)}]},
        {channels, channels(Channels)}
        | flavour(Flavour) ++ Overrides
    ],
    ok = application:load(partisan),
    lists:foreach(fun({Key, Value}) -> ok = application:set_env(partisan, Key, Value) end, Settings),
    {ok, _} = application:ensure_all_started(partisan),
    ok.

flavour(ours) -> [];
%% Beside a Rust node pids have to stay pids.
flavour(mixed) -> [{pid_encoding, false}, {ref_encoding, false}];
flavour(upstream) -> [{peer_service_manager, partisan_pluggable_peer_service_manager}, {connect_disterl, false}].

override([Key, Text]) ->
    {ok, Tokens, _} = erl_scan:string(Text ++ "."),
    {ok, Value} = erl_parse:parse_term(Tokens),
    {list_to_atom(Key), Value}.

join(#{name := Name, listen := Listen, channels := Channels}) ->
    [Ip, Port] = string:split(Listen, ":"),
    {ok, Address} = inet:parse_address(Ip),
    All = maps:merge(#{undefined => #{parallelism => 1, monotonic => false, compression => false}}, channels(Channels)),
    Spec = #{name => Name, listen_addrs => [#{ip => Address, port => list_to_integer(Port)}], channels => All},
    partisan_peer_service:sync_join(Spec).

%% `name:parallelism,...', or nothing.
channels(Text) ->
    maps:from_list([
        begin
            [Name, Parallelism] = string:split(Channel, ":"),
            {list_to_atom(Name), #{parallelism => list_to_integer(Parallelism), monotonic => false, compression => false}}
        end
     || Channel <- string:lexemes(Text, ",")
    ]).
