%% Constants of the application that downstream projects include.
%%
%% Unlike lasp-lang/partisan's header this one carries no compile directive: a module that
%% includes it exports what it says, nothing more.

-ifndef(PARTISAN_HRL).
-define(PARTISAN_HRL, true).

-define(APP, partisan).

%% Timeouts, in milliseconds.
-define(DEFAULT_TIMEOUT, 5000).
-define(MAX_INT_TIMEOUT, 16#ffffffff).
-define(TIMEOUT_TYPE, 0..?MAX_INT_TIMEOUT | infinity).
-define(IS_VALID_TMO_INT(T), (is_integer(T) andalso (T) >= 0 andalso (T) =< ?MAX_INT_TIMEOUT)).
-define(IS_VALID_TMO(T), ((T) =:= infinity orelse ?IS_VALID_TMO_INT(T))).

%% Addresses.
-define(PEER_IP, {127, 0, 0, 1}).
-define(PEER_PORT, 9090).
-define(LOCALHOST, "127.0.0.1").

%% Channels.
-define(DEFAULT_CHANNEL, undefined).
-define(MEMBERSHIP_CHANNEL, partisan_membership).
-define(RPC_CHANNEL, rpc).
-define(PARALLELISM, 1).
-define(DEFAULT_PARTITION_KEY, undefined).
-define(CHANNELS, ?CHANNELS(?PARALLELISM)).
-define(CHANNELS(Parallelism), #{
    ?DEFAULT_CHANNEL => #{parallelism => Parallelism, monotonic => false}
}).

%% Peer service.
-define(DEFAULT_PEER_SERVICE_MANAGER, partisan_pluggable_peer_service_manager).
-define(PEER_SERVICE_MANAGER, (partisan_peer_service:manager())).
-define(DEFAULT_MEMBERSHIP_STRATEGY, partisan_full_membership_strategy).
-define(CONNECTION_JITTER, 1000).
-define(PERIODIC_INTERVAL, 10000).
-define(DISTANCE_ENABLED, true).
-define(PERIODIC_ENABLED, true).
-define(FANOUT, 5).
-define(RELAY_TTL, 5).
-define(CAUSAL_LABELS, []).

%% HyParView.
-define(XBOT_MIN_INTERVAL, 5000).
-define(XBOT_RANGE_INTERVAL, 60000).
-define(HYPARVIEW_XBOT_INTERVAL, (rand:uniform(?XBOT_RANGE_INTERVAL) + ?XBOT_MIN_INTERVAL)).
-define(HYPARVIEW_DEFAULTS, #{
    active_max_size => 6,
    active_min_size => 3,
    active_rwl => 6,
    passive_max_size => 30,
    passive_rwl => 6,
    random_promotion => true,
    random_promotion_interval => 5000,
    shuffle_interval => 10000,
    shuffle_k_active => 3,
    shuffle_k_passive => 4,
    xbot_enabled => false,
    xbot_interval => ?HYPARVIEW_XBOT_INTERVAL
}).

%% Plumtree.
-define(BROADCAST_MODS, [partisan_plumtree_backend]).
-define(DEFAULT_LAZY_TICK_PERIOD, 1000).
-define(DEFAULT_EXCHANGE_TICK_PERIOD, 10000).

%% Used by test suites.
-define(SUPPORT, partisan_support).
-define(CT_NODE, 'ct@127.0.0.1').
-define(TEST_NUM_NODES, 4).
-define(OVERRIDE_PERIODIC_INTERVAL, 10000).
-define(MEMBERSHIP_STRATEGY_TRACING, false).

-type options() :: [{atom(), term()}] | #{atom() => term()}.
-type ttl() :: non_neg_integer().

-endif.
