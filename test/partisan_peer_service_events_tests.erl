-module(partisan_peer_service_events_tests).

-include_lib("eunit/include/eunit.hrl").

-define(M, partisan_peer_service_events).
-define(SPEC(Name), #{name => Name, listen_addrs => [], channels => #{}}).

events_test_() ->
    {foreach,
        fun() ->
            {ok, Pid} = ?M:start_link(),
            Pid
        end,
        fun(_) -> gen_event:stop(?M) end, [
            fun callbacks/0,
            fun raising/0,
            fun supervised/0,
            fun decoding/0
        ]}.

callbacks() ->
    Self = self(),
    ok = ?M:add_callback(fun(Members) -> Self ! {one, Members} end),
    ok = ?M:add_callback(fun(Members) -> Self ! {two, Members} end),
    ok = ?M:update([?SPEC(a)]),
    receive
        {one, [#{name := a}]} -> ok
    end,
    receive
        {two, [#{name := a}]} -> ok
    end.

raising() ->
    Self = self(),
    ok = logger:add_handler_filter(default, ?MODULE, {fun(_, _) -> stop end, []}),
    ok = ?M:add_callback(fun
        ([]) -> error(oops);
        (Members) -> Self ! Members
    end),
    ok = ?M:update([]),
    ok = ?M:update([?SPEC(b)]),
    receive
        [#{name := b}] -> ok
    end,
    ok = logger:remove_handler_filter(default, ?MODULE).

supervised() ->
    Self = self(),
    {Pid, Monitor} = spawn_monitor(fun() ->
        ok = partisan_peer_service:add_sup_callback(fun(Members) -> Self ! Members end),
        Self ! added,
        receive
            stop -> ok
        end
    end),
    receive
        added -> ok
    end,
    ?assertMatch([_], gen_event:which_handlers(?M)),
    Pid ! stop,
    receive
        {'DOWN', Monitor, process, Pid, _} -> ok
    end,
    ?assertEqual([], gen_event:which_handlers(?M)).

decoding() ->
    ?assertEqual([a, b], partisan_peer_service:decode([?SPEC(a), ?SPEC(b)])),
    ?assertEqual([a], partisan_peer_service:decode(sets:from_list([?SPEC(a)], [{version, 2}]))).
