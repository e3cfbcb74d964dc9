%% @doc What may be configured: keys, what their values must look like, defaults.
-module(partisan_config_schema).

-include("partisan.hrl").

-export([canonical/1, status/1, check/2, defaults/0, later_defaults/0]).

%% @doc The present name of a key: some have been renamed, and the old names still work.
-spec canonical(atom()) -> atom().
canonical(peer_ip) -> listen_ip;
canonical(peer_port) -> listen_port;
canonical(partisan_peer_service_manager) -> peer_service_manager;
canonical(remote_ref_binary_padding) -> remote_ref_uri_padding;
canonical(Key) -> Key.

%% @doc `supported': it works. `later': documented by lasp-lang/partisan, not built yet; stored so
%% that it can be read back, otherwise without effect. `unknown': nobody documents it.
-spec status(atom()) -> supported | later | unknown.
status(Key) ->
    case type(Key) of
        undefined ->
            case maps:is_key(Key, later_defaults()) orelse lists:member(Key, later_unset()) of
                true -> later;
                false -> unknown
            end;
        _ ->
            supported
    end.

%% @doc Brings a value of a supported key into its one form, or says what it should have been.
%% Values of other keys pass.
-spec check(atom(), term()) -> {ok, term()} | {error, Expected :: string()}.
check(Key, Value) ->
    case type(Key) of
        undefined ->
            {ok, Value};
        {Check, Expected} ->
            try
                {ok, Check(Value)}
            catch
                error:_ -> {error, Expected}
            end
    end.

type(name) -> {fun partisan_util:node_name/1, "a node name of the form name@host"};
type(listen_ip) -> {fun partisan_util:parse_ip_address/1, "an IP address"};
type(listen_port) -> integer(0, 65535);
type(listen_addrs) ->
    {fun is_listen_addrs/1, "a non-empty list of \"ip:port\", {Ip, Port} or #{ip, port}"};
type(channels) ->
    {fun is_channels/1, "a list or map of channels, at most 64, of parallelism 1..256"};
type(parallelism) -> integer(1, 256);
type(channel_fallback) -> boolean();
type(pid_encoding) -> boolean();
type(ref_encoding) -> boolean();
type(remote_ref_format) -> one_of([improper_list, uri, tuple]);
type(remote_ref_uri_padding) -> boolean();
type(forward_options) -> {fun forward_options/1, "a map or property list of options"};
type(connection_interval) -> integer(1, ?MAX_INT_TIMEOUT);
type(connection_jitter) -> integer(0, ?MAX_INT_TIMEOUT);
type(connection_ping) -> {fun connection_ping/1, "#{enabled, idle_timeout, timeout, max_attempts}"};
type(peer_service_manager) -> one_of([
    partisan_pluggable_peer_service_manager,
    partisan_hyparview_peer_service_manager,
    partisan_client_server_peer_service_manager,
    partisan_static_peer_service_manager
]);
type(membership_strategy) -> {fun strategy/1, "a module that has the callbacks of partisan_membership_strategy"};
type(membership_strategy_tracing) -> boolean();
type(periodic_enabled) -> boolean();
%% src/limits.rs.
type(scamp_c) -> integer(0, 16);
type(tag) -> one_of([undefined, client, server]);
type(server_links) -> integer(1, 64);
type(fanout) -> integer(1, 1000);
type(hyparview) -> {fun hyparview/1, "a map or property list of options"};
type(relay_ttl) -> integer(1, 255);
type(switch_overlap) -> integer(1, ?MAX_INT_TIMEOUT);
type(relay_direct) -> boolean();
type(ack_bytes) -> integer(64 bsl 10, 1 bsl 40);
type(retransmit_interval) -> integer(1, ?MAX_INT_TIMEOUT);
type(causal_labels) -> {fun causal_labels/1, "a list of at most 64 atoms"};
type(causal_patience) -> integer(1, ?MAX_INT_TIMEOUT);
type(broadcast) -> boolean();
type(broadcast_mods) -> {fun broadcast_mods/1, "a list of modules"};
type(broadcast_start_exchange_limit) -> integer(0, 16#7fffffff);
type(broadcast_heartbeat_interval) -> integer(1, ?MAX_INT_TIMEOUT);
type(lazy_tick_period) -> integer(0, 10000);
type(exchange_tick_period) -> integer(1, ?MAX_INT_TIMEOUT);
type(exchange_selection) -> one_of([optimized, normal]);
type(periodic_interval) -> integer(1, ?MAX_INT_TIMEOUT);
type(partisan_data_dir) -> {fun directory/1, "a directory"};
type(metadata) -> {fun(M) when is_map(M) -> M end, "a map"};
type(random_seed) -> {fun(Seed) -> Seed end, "a seed"};
type(tracing) -> boolean();
type(cookie) -> {fun cookie/1, "an atom, string or binary of 1 to 255 characters"};
type(tls) -> boolean();
type(io_threads) -> integer(0, 64);
type(bulk_threads) -> integer(0, 64);
type(direct_write_gap) ->
    {fun
        (infinity) -> infinity;
        (Gap) when is_integer(Gap), Gap >= 0, Gap =< 1000000 -> Gap
    end, "microseconds from 0 to 1000000, or infinity"};
type(fragment_bytes) -> integer(1 bsl 10, 512 bsl 10);
type(fragment_bytes_alone) -> integer(1 bsl 10, 512 bsl 10);
type(send_buffer) -> integer(0, 1 bsl 30);
type(receive_buffer) -> integer(0, 1 bsl 30);
type(unsent_bytes) -> integer(0, 1 bsl 30);
type(io_slice) -> integer(0, 100000);
type(bulk_slice) -> integer(0, 100000);
type(bulk_nice) -> integer(0, 19);
type(io_spin) -> integer(0, 1000);
type(queue_bytes) -> integer(64 bsl 10, 1 bsl 40);
type(node_queue_bytes) -> integer(64 bsl 10, 1 bsl 44);
type(bundle_bytes) -> integer(0, 64 bsl 10);
type(receive_pool_bytes) -> integer(0, 1 bsl 40);
type(max_term_bytes) -> integer(64 bsl 10, 1 bsl 31);
type(max_term_heap) -> integer(64 bsl 10, 1 bsl 40);
type(max_message_bytes) -> integer(64 bsl 10, 1 bsl 40);
type(max_new_atoms) -> integer(0, 16#7fffffff);
type(_) -> undefined.

boolean() ->
    {fun(B) when is_boolean(B) -> B end, "true or false"}.

integer(Min, Max) ->
    {
        fun(N) when is_integer(N), N >= Min, N =< Max -> N end,
        lists:flatten(io_lib:format("an integer between ~b and ~b", [Min, Max]))
    }.

one_of(Atoms) ->
    {
        fun(Atom) ->
            true = lists:member(Atom, Atoms),
            Atom
        end,
        lists:flatten(io_lib:format("one of ~p", [Atoms]))
    }.

%% Addresses and channels take their final form in `partisan_config', which knows the defaults.
is_listen_addrs([_ | _] = Addrs) ->
    _ = [partisan_util:parse_listen_address(A) || A <- Addrs],
    Addrs.

is_channels(Channels) ->
    _ = partisan_util:channels(Channels, ?PARALLELISM),
    Channels.

%% Built in, by the names that lasp-lang/partisan gave them, or the user's.
strategy(Strategy) when
    Strategy =:= partisan_full_membership_strategy;
    Strategy =:= partisan_scamp_v1_membership_strategy;
    Strategy =:= partisan_scamp_v2_membership_strategy
->
    Strategy;
strategy(Strategy) when is_atom(Strategy) ->
    {module, Strategy} = code:ensure_loaded(Strategy),
    [true = erlang:function_exported(Strategy, F, A) || {F, A} <- partisan_membership_strategy:required()],
    Strategy.

forward_options(Options) when is_map(Options) -> Options;
forward_options(Options) when is_list(Options) -> proplists:to_map(Options).

%% Labels that are in use; src/limits.rs.
causal_labels(Labels) when length(Labels) =< 64 ->
    [true = is_atom(Label) || Label <- Labels],
    lists:usort(Labels).

hyparview(Options) when is_list(Options) ->
    hyparview(proplists:to_map(Options));
hyparview(Options) when is_map(Options) ->
    maps:fold(fun hyparview/3, hyparview_defaults(), Options).

hyparview(Old, Value, Options) ->
    Key = hyparview_key(Old),
    true = hyparview_value(Key, Value),
    Options#{Key => Value}.

%% What the native library takes, src/limits.rs, and the own node in the active view.
hyparview_value(active_max_size, N) -> is_integer(N) andalso N >= 2 andalso N =< 33;
hyparview_value(passive_max_size, N) -> is_integer(N) andalso N >= 0 andalso N =< 128;
hyparview_value(Key, N) when Key =:= active_rwl; Key =:= passive_rwl ->
    is_integer(N) andalso N >= 0 andalso N =< 16;
hyparview_value(Key, N) when Key =:= shuffle_k_active; Key =:= shuffle_k_passive ->
    is_integer(N) andalso N >= 0 andalso N =< 16;
hyparview_value(shuffle_interval, N) -> is_integer(N) andalso N >= 10 andalso N =< ?MAX_INT_TIMEOUT;
hyparview_value(xbot_enabled, Flag) -> is_boolean(Flag);
hyparview_value(xbot_interval, N) -> is_integer(N) andalso N >= 10 andalso N =< ?MAX_INT_TIMEOUT;
hyparview_value(Key, _) ->
    lists:member(Key, [active_min_size, random_promotion, random_promotion_interval]).

hyparview_key(arwl) -> active_rwl;
hyparview_key(prwl) -> passive_rwl;
hyparview_key(max_active_size) -> active_max_size;
hyparview_key(min_active_size) -> active_min_size;
hyparview_key(max_passive_size) -> passive_max_size;
hyparview_key(passive_view_shuffle_period) -> shuffle_interval;
hyparview_key(random_promotion_period) -> random_promotion_interval;
hyparview_key(Key) -> Key.

%% The active view has the own node in it, as that of lasp-lang/partisan.
hyparview_defaults() ->
    #{
        active_max_size => 6,
        active_rwl => 6,
        passive_max_size => 30,
        passive_rwl => 3,
        shuffle_interval => 10000,
        shuffle_k_active => 3,
        shuffle_k_passive => 4,
        xbot_enabled => false,
        xbot_interval => 20000
    }.

%% The default handler is always among them.
broadcast_mods(Mods) ->
    lists:usort(?BROADCAST_MODS ++ [module(Mod) || Mod <- Mods]).

module(Mod) when is_atom(Mod) -> Mod;
module(Mod) -> binary_to_existing_atom(unicode:characters_to_binary(Mod)).

connection_ping(Options) when is_list(Options) ->
    connection_ping(proplists:to_map(Options));
connection_ping(Options) when is_map(Options) ->
    Ping = maps:merge(ping_defaults(), Options),
    true = is_boolean(maps:get(enabled, Ping)),
    [
        true = is_integer(N) andalso N > 0
     || N <- [maps:get(Key, Ping) || Key <- [idle_timeout, timeout, max_attempts]]
    ],
    Ping.

ping_defaults() ->
    #{enabled => true, idle_timeout => 20000, timeout => 10000, max_attempts => 5}.

directory(Dir) ->
    Binary = unicode:characters_to_binary(Dir),
    true = byte_size(Binary) > 0,
    Dir.

cookie(Cookie) when is_atom(Cookie) ->
    cookie(atom_to_binary(Cookie));
cookie(Cookie) ->
    Binary = unicode:characters_to_binary(Cookie),
    Size = string:length(Binary),
    true = Size > 0 andalso Size =< 255,
    Binary.

%% @doc Values of the supported keys that have a constant default.
-spec defaults() -> #{atom() => term()}.
defaults() ->
    #{
        parallelism => ?PARALLELISM,
        channel_fallback => true,
        pid_encoding => true,
        ref_encoding => true,
        remote_ref_format => improper_list,
        remote_ref_uri_padding => false,
        forward_options => #{},
        connection_interval => 1000,
        connection_jitter => ?CONNECTION_JITTER,
        connection_ping => ping_defaults(),
        periodic_interval => ?PERIODIC_INTERVAL,
        peer_service_manager => ?DEFAULT_PEER_SERVICE_MANAGER,
        membership_strategy => ?DEFAULT_MEMBERSHIP_STRATEGY,
        membership_strategy_tracing => false,
        periodic_enabled => true,
        scamp_c => 4,
        hyparview => hyparview_defaults(),
        relay_ttl => 32,
        switch_overlap => 20000,
        relay_direct => true,
        ack_bytes => 64 bsl 20,
        retransmit_interval => 1000,
        causal_labels => ?CAUSAL_LABELS,
        causal_patience => 60000,
        tag => undefined,
        server_links => 1,
        fanout => ?FANOUT,
        broadcast => false,
        broadcast_mods => ?BROADCAST_MODS,
        broadcast_heartbeat_interval => 10000,
        lazy_tick_period => 5,
        exchange_tick_period => ?DEFAULT_EXCHANGE_TICK_PERIOD,
        exchange_selection => optimized,
        metadata => #{},
        tracing => false,
        tls => false,
        io_threads => 0,
        bulk_threads => 0,
        direct_write_gap => 20,
        fragment_bytes => 64 bsl 10,
        fragment_bytes_alone => 256 bsl 10,
        send_buffer => 0,
        receive_buffer => 512 bsl 10,
        unsent_bytes => 512 bsl 10,
        bulk_nice => 0,
        io_slice => 100,
        bulk_slice => 20000,
        io_spin => 100,
        queue_bytes => 16 bsl 20,
        node_queue_bytes => 1 bsl 30,
        bundle_bytes => 4 bsl 10,
        receive_pool_bytes => 1 bsl 30,
        max_term_bytes => 64 bsl 20,
        max_term_heap => 256 bsl 20,
        max_message_bytes => 2 bsl 30,
        max_new_atoms => 100000
    }.

%% @doc Defaults of the keys that are not built yet. Setting one of them to its default is no
%% reason for a warning.
-spec later_defaults() -> #{atom() => term()}.
later_defaults() ->
    #{
        membership_binary_compression => true,
        gossip => true,
        disable_fast_forward => false,
        disable_fast_receive => false,
        egress_delay => 0,
        ingress_delay => 0,
        binary_padding => false,
        register_pid_for_encoding => false,
        transmission_logging_mfa => undefined,
        reservations => [],
        distance_enabled => false,
        peer_discovery => #{enabled => false},
        tls_server_options => [],
        tls_client_options => [],
        connect_disterl => false,
        replaying => false,
        shrinking => false,
        orchestration_strategy => undefined
    }.

%% Keys of later work that have no value unless the user gives one.
later_unset() ->
    [
        remote_ref_as_uri,
        tree_refresh,
        redelivery_interval,
        distance_interval,
        acceptor_pool_size,
        persist_state,
        send_window,
        jitter,
        instrumentation,
        deployment_identifier,
        deployment_timestamp,
        evaluation_identifier,
        evaluation_timestamp,
        lasp_server
    ].
