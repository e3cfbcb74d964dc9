%% The receiving end, on node b. Each round has a sink of its own, so that nothing of one round burdens the next: it
%% counts what arrives, reports when all is there (this stops the clock), and is asked for its verdict afterwards.
-module(demo_sink).

-export([expect/2, start_echo/0, start/4, verdict/1, cpu_ms/0]).

%% Told once: the digests that a set of messages must have.
-spec expect(Set :: atom(), [binary()]) -> ok.
expect(Set, Digests) ->
    persistent_term:put({?MODULE, Set}, Digests).

%% Answers requests for as long as the node lives.
-spec start_echo() -> true.
start_echo() ->
    register(demo_echo, spawn(fun echo/0)).

echo() ->
    receive
        {ping, Link, From, N, Payload} ->
            demo_link:reply(Link, From, {pong, N, Payload}),
            echo()
    end.

%% A sink for `Count` items of a set, or for `Count` small messages that all carry `Payload`.
-spec start({set, atom()} | {small, binary()}, pos_integer(), demo_link:link(), demo_link:target()) -> pid().
start(What, Count, Link, Driver) ->
    Caller = self(),
    {Sink, Monitor} =
        spawn_monitor(fun() ->
                              true = register(demo_sink, self()),
                              Caller ! {ready, self()},
                              Seen = sink(What, Count),
                              demo_link:send(Link, Driver, rpc, {arrived, self()}),
                              receive {verdict, From} -> From ! {verdict, self(), judge(What, Seen)} end
                      end),
    receive
        {ready, Sink} ->
            erlang:demonitor(Monitor, [flush]),
            Sink;
        {'DOWN', Monitor, process, Sink, Reason} ->
            exit(Reason)
    end.

%% Ends the sink.
-spec verdict(pid()) -> ok | {error, string()}.
verdict(Sink) ->
    Monitor = erlang:monitor(process, Sink),
    Sink ! {verdict, self()},
    Verdict = receive
                  {verdict, Sink, It} -> It;
                  {'DOWN', Monitor, process, Sink, Why} -> {error, io_lib:format("the sink died: ~tp", [Why])}
              end,
    receive {'DOWN', Monitor, process, Sink, _} -> Verdict after 5000 -> Verdict end.

sink({set, _}, Count) -> keep(Count, []);
sink({small, Payload}, Count) -> check(0, Count, Payload).

%% Large items are kept and hashed after the clock has stopped.
keep(0, Seen) -> lists:reverse(Seen);
keep(Left, Seen) -> receive {item, N, Bin} -> keep(Left - 1, [{N, Bin} | Seen]) end.

%% Small ones are compared as they come: that is cheaper than keeping them.
check(Count, Count, _) -> ok;
check(N, Count, Payload) ->
    receive
        Msg ->
            case Msg of
                {msg, N, Payload} -> check(N + 1, Count, Payload);
                _ -> {error, io_lib:format("message ~b is not what was sent", [N])}
            end
    end.

judge({set, Set}, Seen) -> demo_input:verify(Seen, persistent_term:get({?MODULE, Set}));
judge({small, _}, Seen) -> Seen.

%% CPU time of this node's OS process so far, user and system. Linux counts in hundredths of a second.
-spec cpu_ms() -> non_neg_integer().
cpu_ms() ->
    {ok, Stat} = file:read_file("/proc/self/stat"),
    %% The second field is the program's name in parentheses and may contain blanks.
    [_, AfterName] = string:split(Stat, ") ", trailing),
    Fields = string:lexemes(AfterName, " "),
    10 * lists:sum([binary_to_integer(lists:nth(I, Fields)) || I <- [12, 13]]).
