%% Broadcasts and exchanges over a stand-in for the native library. This module is the handler.
-module(partisan_plumtree_broadcast_tests).
-behaviour(partisan_plumtree_broadcast_handler).

-include_lib("eunit/include/eunit.hrl").

-export([broadcast_data/1, merge/2, is_stale/1, graft/1, exchange/1]).

-define(OWN, 'own@127.0.0.1').
-define(FAKE, partisan_fake_nif).
-define(BROADCAST, partisan_plumtree_broadcast).
-define(BACKEND, partisan_plumtree_backend).
-define(NATIVE(Name), {Name, [{{127, 0, 0, 1}, 4321}], [{undefined, 1, false, 0}]}).

broadcast_test_() ->
    Cases = [
        fun broadcasting/0,
        fun arriving/0,
        fun optimized/0,
        fun normal/0,
        fun turns/0,
        fun nobody_to_exchange_with/0,
        fun results_of_an_exchange/0,
        fun peers/0,
        fun backend/0,
        fun beating/0
    ],
    {foreach, fun start/0, fun stop/1, [fun() -> heard(Case) end || Case <- Cases]}.

%% The handler tells the process that runs the case.
heard(Case) ->
    true = register(?MODULE, self()),
    try
        Case()
    after
        unregister(?MODULE)
    end.

start() ->
    ok = ?FAKE:install(),
    _ = application:unload(partisan),
    ok = application:load(partisan),
    Env = [
        {name, ?OWN},
        {cookie, secret},
        {peer_ip, {127, 0, 0, 1}},
        {broadcast_mods, [?MODULE, "partisan_plumtree_backend"]},
        {exchange_tick_period, 1000000}
    ],
    [ok = application:set_env(partisan, Key, Value) || {Key, Value} <- Env],
    {ok, _} = partisan:start(),
    ok.

stop(_) ->
    _ = partisan:stop(),
    _ = application:unload(partisan),
    persistent_term:erase(?MODULE),
    ok = ?FAKE:remove().

%% The handler.
broadcast_data(raise) -> error(raised);
broadcast_data(Term) -> {id, Term}.

merge(Id, Payload) ->
    ?MODULE ! {merged, Id, Payload},
    Id =/= raise orelse error(raised).

is_stale(_) -> error(never).
graft(_) -> error(never).

exchange(Peer) ->
    ?MODULE ! {exchange, Peer},
    case persistent_term:get(?MODULE, pid) of
        pid -> {ok, spawn(fun() -> timer:sleep(infinity) end)};
        raise -> error(raised);
        Result -> Result
    end.

%% What the native library answers.
cluster(Members, Connected, {Eager, Lazy}) ->
    Test = self(),
    ?FAKE:answer(is_connected, fun(Node, any) -> lists:member(Node, Connected) end),
    ?FAKE:answer(command, fun
        (members) -> {ok, [?NATIVE(Name) || Name <- Members]};
        ({broadcast_view, Root}) -> Test ! {root, Root}, {Eager, Lazy};
        ({broadcast, Payload}) -> Test ! {broadcast, Payload}, ok;
        (_) -> ok
    end).

tick() ->
    ?BROADCAST ! exchange_tick,
    received().

received() ->
    _ = sys:get_state(?BROADCAST),
    _ = sys:get_state(?BACKEND),
    all().

all() ->
    receive
        Message -> [Message | all()]
    after 0 -> []
    end.

asked(Messages) ->
    [Peer || {exchange, Peer} <- Messages].

broadcasting() ->
    cluster([?OWN], [], {[], []}),
    ?assertEqual(ok, partisan:broadcast(term, ?MODULE)),
    ?assertEqual([{broadcast, {?BROADCAST, {partisan_broadcast, ?MODULE, id, term}, 0}}], all()),
    ?assertEqual(ok, ?BROADCAST:broadcast(raise, ?MODULE)),
    ?assertEqual(ok, ?BROADCAST:broadcast(term, no_such_module)),
    ?assertEqual([], all()),
    ?FAKE:answer(command, {error, <<"full">>}),
    ?assertEqual({error, <<"full">>}, partisan:broadcast(term, ?MODULE)),
    ok = partisan:stop(),
    ?assertEqual({error, notalive}, partisan:broadcast(term, ?MODULE)).

arriving() ->
    ?BROADCAST ! {partisan_broadcast, ?MODULE, a, 1},
    ?BROADCAST ! {partisan_broadcast, ?MODULE, raise, 2},
    %% No handlers, and no messages.
    ?BROADCAST ! {partisan_broadcast, maps, #{}, #{}},
    ?BROADCAST ! {partisan_broadcast, no_such_module, #{}, #{}},
    ?BROADCAST ! {partisan_broadcast, "text", #{}, #{}},
    ?BROADCAST ! {partisan_broadcast, ?MODULE},
    ?BROADCAST ! {partisan_broadcast, ?MODULE, b, 3},
    ?assertEqual([{merged, a, 1}, {merged, raise, 2}, {merged, b, 3}], received()).

optimized() ->
    cluster([?OWN, 'b@h', 'c@h', 'd@h'], ['b@h', 'c@h'], {['b@h'], ['c@h', 'x@h']}),
    Seen = lists:append([
        begin
            Messages = tick(),
            _ = ?BROADCAST:cancel_exchanges(all),
            Messages
        end
     || _ <- lists:seq(1, 40)
    ]),
    ?assertEqual(['c@h'], lists:usort(asked(Seen))),
    ?assertEqual(lists:sort([?OWN, 'b@h', 'c@h', 'd@h']), lists:usort([R || {root, R} <- Seen])),
    %% All links are eager: any will do.
    cluster([?OWN, 'b@h', 'd@h'], ['b@h'], {['b@h'], []}),
    ?assertEqual(['b@h'], asked(tick())).

normal() ->
    ok = partisan_config:set(exchange_selection, normal),
    cluster([?OWN, 'b@h', 'c@h', 'd@h'], ['b@h', 'c@h', 'x@h'], {['b@h'], ['c@h']}),
    Seen = lists:append([
        begin
            Messages = tick(),
            _ = ?BROADCAST:cancel_exchanges(all),
            Messages
        end
     || _ <- lists:seq(1, 40)
    ]),
    ?assertEqual(['b@h', 'c@h'], lists:usort(asked(Seen))),
    ?assertEqual([], [R || {root, R} <- Seen]).

turns() ->
    cluster([?OWN, 'b@h'], ['b@h'], {[], []}),
    ?assertEqual(2, partisan_config:get(broadcast_start_exchange_limit)),
    ok = partisan_config:set(broadcast_start_exchange_limit, 1),
    %% The backend has none; whoever comes first, the other one is next.
    ?assertEqual(['b@h'], asked(tick() ++ tick())),
    [{?MODULE, 'b@h', Ref, Pid}] = ?BROADCAST:exchanges(),
    ?assertEqual([], asked(tick() ++ tick())),
    ?assertEqual([], ?BROADCAST:cancel_exchanges({peer, 'c@h'})),
    ?assertEqual([{?MODULE, 'b@h', Ref, Pid}], ?BROADCAST:cancel_exchanges(Pid)),
    ?assertEqual([], ?BROADCAST:exchanges()),
    ?assertEqual(['b@h'], asked(tick() ++ tick())),
    [{_, _, _, Last}] = ?BROADCAST:exchanges(),
    Watch = monitor(process, Last),
    exit(Last, kill),
    receive
        {'DOWN', Watch, process, Last, killed} -> ok
    end,
    _ = received(),
    ?assertEqual([], ?BROADCAST:exchanges()).

nobody_to_exchange_with() ->
    cluster([?OWN], [], {[], []}),
    ?assertEqual([], asked(tick())),
    cluster([?OWN, 'b@h'], [], {[], []}),
    ?assertEqual([], asked(tick())),
    %% Without the manager neither.
    cluster([?OWN, 'b@h'], ['b@h'], {[], []}),
    ok = supervisor:terminate_child(partisan_sup, partisan_pluggable_peer_service_manager),
    ?assertEqual([], asked(tick())),
    {ok, _} = supervisor:restart_child(partisan_sup, partisan_pluggable_peer_service_manager),
    ?assertEqual(['b@h'], asked(tick())).

results_of_an_exchange() ->
    cluster([?OWN, 'b@h'], ['b@h'], {[], []}),
    lists:foreach(
        fun(Result) ->
            persistent_term:put(?MODULE, Result),
            ?assertEqual(['b@h'], asked(tick())),
            ?assertEqual([], ?BROADCAST:exchanges())
        end,
        [ok, ignore, {error, why}, raise, nonsense]
    ).

peers() ->
    cluster([?OWN, 'c@h', 'b@h'], [], {['d@h', 'b@h'], ['c@h']}),
    ?assertEqual({['b@h', 'd@h'], ['c@h']}, ?BROADCAST:get_peers('b@h')),
    ?assertEqual({['b@h', 'd@h'], ['c@h'], #{name => ?OWN}}, ?BROADCAST:get_peers(?OWN, [name])),
    ?assertEqual(['b@h', 'd@h'], ?BROADCAST:get_eager_peers('b@h')),
    ?assertEqual(['c@h'], ?BROADCAST:get_lazy_peers('b@h')),
    ?assertEqual({['b@h', 'd@h'], ['c@h']}, ?BROADCAST:debug_get_peers(?OWN, 'b@h')),
    ?FAKE:answer(send, {error, disconnected}),
    ?assertEqual(
        [{?OWN, {['b@h', 'd@h'], ['c@h'], #{}}}, {'b@h', down}],
        ?BROADCAST:debug_get_tree('b@h', [?OWN, 'b@h'], [name], 1000)
    ),
    ?assertError(disconnected, ?BROADCAST:exchanges('b@h')),
    ?assertEqual(['b@h', 'c@h', ?OWN], partisan_peer_service:broadcast_members()),
    ?assertEqual(ok, ?BROADCAST:update([])).

backend() ->
    Beat = fun(Node, Epoch, Number) -> ?BACKEND:merge({Node, Epoch, Number}, {Node, Epoch, Number}) end,
    ?assert(Beat('b@h', 1, 1)),
    ?assert(Beat('b@h', 1, 3)),
    ?assertNot(Beat('b@h', 1, 2)),
    ?assertNot(Beat('b@h', 1, 3)),
    ?assert(Beat('b@h', 2, 1)),
    ?assert(Beat('c@h', 1, 1)),
    ?assertEqual([{'b@h', 2, 1}, {'c@h', 1, 1}], lists:sort(?BACKEND:timestamps())),
    ?assertEqual({ok, {'b@h', 2, 1}}, ?BACKEND:graft({'b@h', 2, 1})),
    ?assertEqual(stale, ?BACKEND:graft({'b@h', 1, 3})),
    ?assertMatch({error, {not_found, _}}, ?BACKEND:graft({'d@h', 1, 3})),
    ?assertEqual(partisan_membership, ?BROADCAST:broadcast_channel(?BACKEND)),
    ?assertEqual(undefined, ?BROADCAST:broadcast_channel(?MODULE)),
    ?assertEqual(ignore, ?BACKEND:exchange('b@h')).

beating() ->
    cluster([?OWN], [], {[], []}),
    ?BACKEND ! heartbeat,
    ?assertEqual([], received()),
    ok = partisan_config:set(broadcast, true),
    ?BACKEND ! heartbeat,
    ?BACKEND ! heartbeat,
    Sent = [Id || {broadcast, {_, {_, ?BACKEND, Id, Id}, 0}} <- received()],
    [{?OWN, Epoch, 1}, {?OWN, Epoch, 2} = Newest] = Sent,
    ?assertEqual([Newest], ?BACKEND:timestamps()).
