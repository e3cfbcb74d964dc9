%% @doc The Erlang half of the tests in which one node is stopped (SIGSTOP): senders that never send
%% over a later connection, and a watch over what a stopped sender's messages look like from here.
%%
%% Time is `os:system_time(millisecond)', which the test has, too. Both tests go on with SIGCONT: what
%% the stopped incarnation had under way must not be delivered after the other has seen it go.
-module(stock_stop).

-export([senders/3, watch/3, down/1, later/2]).

%% @doc So many processes, each of which sends `{seq, Pid, N}', N = 0, 1, ..., to the process `Name' on `Node'
%% until the connection goes. None dials: after the connection has gone, none sends again. Returns their
%% pids. This node is the one that is stopped, or the Rust node is, to see it suspended.
-spec senders(node(), atom(), pos_integer()) -> [pid()].
senders(Node, Name, Count) ->
    true = net_kernel:connect_node(Node),
    Starter = self(),
    Pids = [spawn(fun() -> sender(Starter, Node, Name) end) || _ <- lists:seq(1, Count)],
    [receive {ready, P} -> ok end || P <- Pids],
    Pids.

sender(Starter, Node, Name) ->
    true = monitor_node(Node, true),
    Starter ! {ready, self()},
    send({Name, Node}, 0).

send(To, N) ->
    receive
        {nodedown, _} -> ok
    after 0 ->
        _ = erlang:send(To, {seq, self(), N}, [noconnect]),
        send(To, N + 1)
    end.

%% @doc Watches so many puppets of the Rust node that send `{seq, Puppet, N}' without end: registers the
%% watching process as `Watch'. Returns when the first message of each has come.
-spec watch(node(), atom(), pos_integer()) -> ok.
watch(Node, Watch, Count) ->
    Asking = self(),
    spawn(fun() ->
        true = register(Watch, self()),
        Puppets = [stock_tools:puppet(Node) || _ <- lists:seq(1, Count)],
        Monitors = maps:from_list([{monitor(process, P), P} || P <- Puppets]),
        [ok = stock_tools:order(P, {chatter, self()}) || P <- Puppets],
        [receive {seq, P, 0} -> ok after 20000 -> exit(no_chatter) end || P <- Puppets],
        Asking ! {watching, Watch},
        watching(Monitors, maps:from_list([{P, 1} || P <- Puppets]), #{}, now_ms())
    end),
    receive {watching, Watch} -> ok after 60000 -> error(no_watch) end.

%% Of each the number that is to come; when the last message came.
watching(Monitors, Next, Down, Last) when map_size(Monitors) =:= 0 ->
    gone(Next, #{last => Last, all_down => lists:max(maps:values(Down)), first_down => lists:min(maps:values(Down))}, []);
watching(Monitors, Next, Down, Last) ->
    receive
        {seq, P, N} ->
            N = maps:get(P, Next),
            %% Nothing after DOWN.
            false = maps:is_key(P, Down),
            watching(Monitors, Next#{P := N + 1}, Down, now_ms());
        {'DOWN', M, process, P, noconnection} ->
            {P, Left} = maps:take(M, Monitors),
            watching(Left, Next, Down#{P => now_ms()}, Last)
    end.

gone(Next, Seen, Waiting) ->
    [Pid ! {Ref, Seen} || {Pid, Ref} <- Waiting],
    receive
        {ask, Pid, Ref} -> gone(Next, Seen, [{Pid, Ref}]);
        {seq, P, N} when is_map_key(P, Next) -> exit({delivered_after_down, P, N})
    end.

%% @doc Waits until all puppets of the watch are down: `{ok, #{last, first_down, all_down}}', times in
%% milliseconds. Each sent a gapless sequence until then, or `{error, Why}'.
-spec down(atom()) -> {ok, map()} | {error, term()}.
down(Watch) ->
    ask(Watch, infinity).

%% @doc After SIGCONT: for so long, nothing more of theirs comes.
-spec later(atom(), pos_integer()) -> ok | {error, term()}.
later(Watch, Millis) ->
    Monitor = monitor(process, Watch),
    receive
        {'DOWN', Monitor, process, _, Why} -> {error, Why}
    after Millis ->
        true = demonitor(Monitor, [flush]),
        ok
    end.

ask(Watch, Patience) ->
    Monitor = monitor(process, Watch),
    Watch ! {ask, self(), Monitor},
    receive
        {Monitor, Seen} ->
            true = demonitor(Monitor, [flush]),
            {ok, Seen};
        {'DOWN', Monitor, process, _, Why} ->
            {error, Why}
    after Patience -> {error, timeout}
    end.

now_ms() -> os:system_time(millisecond).
