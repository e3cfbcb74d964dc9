%% The macros that downstream projects use.
-module(partisan_header_tests).

-include_lib("eunit/include/eunit.hrl").
-include("partisan.hrl").
-include("partisan_util.hrl").
%% Twice does no harm.
-include("partisan.hrl").
-include("partisan_util.hrl").



is_ip(X) when ?IS_IP4(X) -> 4;
is_ip(X) when ?IS_IP6(X) -> 6;
is_ip(_) -> no.

is_any_ip(X) when ?IS_IP(X) -> true;
is_any_ip(_) -> false.

ip_test() ->
    ?assertEqual(4, is_ip({127, 0, 0, 1})),
    ?assertEqual(no, is_ip({127, 0, 0, 256})),
    ?assertEqual(no, is_ip({127, 0, 0, -1})),
    ?assertEqual(6, is_ip({0, 0, 0, 0, 0, 0, 0, 1})),
    ?assertEqual(no, is_ip({0, 0, 0, 0, 0, 0, 0, 16#10000})),
    ?assertEqual(no, is_ip(localhost)),
    ?assert(is_any_ip({10, 0, 0, 1})),
    ?assert(is_any_ip({16#fe80, 0, 0, 0, 0, 0, 0, 1})),
    ?assertNot(is_any_ip({1, 2})).

port_test() ->
    ?assert(?IS_PORT_NBR(1)),
    ?assert(?IS_PORT_NBR(65535)),
    ?assertNot(?IS_PORT_NBR(0)),
    ?assertNot(?IS_PORT_NBR(65536)).

is_timeout(T) when ?IS_VALID_TMO(T) -> true;
is_timeout(_) -> false.

timeout_test() ->
    ?assert(is_timeout(infinity)),
    ?assert(is_timeout(0)),
    ?assert(is_timeout(16#ffffffff)),
    ?assertNot(is_timeout(16#100000000)),
    ?assertNot(is_timeout(-1)),
    ?assertNot(is_timeout(later)).

constants_test() ->
    ?assertEqual(undefined, ?DEFAULT_CHANNEL),
    ?assertEqual(partisan_membership, ?MEMBERSHIP_CHANNEL),
    ?assertEqual(1, ?PARALLELISM),
    ?assertMatch(#{undefined := #{parallelism := 1}}, ?CHANNELS),
    ?assertMatch(#{undefined := #{parallelism := 4}}, ?CHANNELS(4)),
    ?assertEqual(5000, ?DEFAULT_TIMEOUT),
    ?assertEqual(partisan_pluggable_peer_service_manager, ?PEER_SERVICE_MANAGER),
    ?assertEqual(?PEER_SERVICE_MANAGER, ?DEFAULT_PEER_SERVICE_MANAGER),
    ?assertEqual(partisan_full_membership_strategy, ?DEFAULT_MEMBERSHIP_STRATEGY),
    ?assertMatch(#{active_max_size := 6}, ?HYPARVIEW_DEFAULTS),
    ?assertEqual(10000, ?OVERRIDE_PERIODIC_INTERVAL),
    ?assert(is_atom(?SUPPORT) andalso is_atom(?CT_NODE) andalso is_list(?LOCALHOST)).
