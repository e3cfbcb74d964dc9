-module(partisan_node_monitors_tests).

-include_lib("eunit/include/eunit.hrl").

-define(M, partisan_node_monitors).

messages() ->
    receive
        Message -> [Message | messages()]
    after 0 -> []
    end.

subscriptions_test() ->
    {ok, A} = ?M:subscribe(self(), [], ?M:new()),
    {ok, B} = ?M:subscribe(self(), [nodedown_reason, {node_type, all}], A),
    {ok, B} = ?M:subscribe(self(), [{node_type, hidden}], B),
    ?assertEqual(error, ?M:subscribe(self(), [what], B)),
    B = ?M:up(n, B),
    ?assertEqual([{nodeup, n}, {nodeup, n, []}], lists:sort(messages())),
    B = ?M:down(n, B),
    ?assertEqual(
        [{nodedown, n}, {nodedown, n, [{nodedown_reason, noconnection}]}], lists:sort(messages())
    ),
    {ok, C} = ?M:unsubscribe(self(), [], B),
    C = ?M:up(n, C),
    ?assertEqual([{nodeup, n, []}], messages()),
    {ok, D} = ?M:unsubscribe(self(), [nodedown_reason], C),
    ?assertEqual(?M:new(), D).

one_message_test() ->
    A = ?M:monitor(self(), n, ?M:monitor(self(), n, ?M:new())),
    A = ?M:down(other, A),
    ?assertEqual([], messages()),
    B = ?M:down(n, A),
    ?assertEqual([{nodedown, n}], messages()),
    ?assertEqual(?M:new(), B),
    C = ?M:demonitor(self(), n, ?M:monitor(self(), n, B)),
    ?assertEqual(?M:new(), ?M:demonitor(self(), n, C)),
    C = ?M:down(n, C),
    ?assertEqual([], messages()).

dead_test() ->
    {Pid, Ref} = spawn_monitor(fun() -> ok end),
    receive
        {'DOWN', Ref, _, _, _} -> ok
    end,
    {ok, A} = ?M:subscribe(Pid, [], ?M:monitor(Pid, n, ?M:new())),
    receive
        {'DOWN', _, process, Pid, noproc} -> ok
    end,
    ?assertEqual(?M:new(), ?M:gone(Pid, A)).
