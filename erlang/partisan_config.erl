%% @doc The configuration: read from the application's environment, checked, and kept where every
%% process reads it without copying.
%%
%% Values stand in `persistent_term' under `{partisan_config, Key}'. Keys, their forms and
%% defaults are those of `partisan_config_schema'. An unknown key, and a key of something that
%% isn't built yet, is stored and warned about once. A value of the wrong form raises
%% `{invalid_config, Key, Value, Expected}'. Most settings take effect when the application
%% starts; `channel_fallback' and `forward_options' at once, `remote_ref_format' at once for the
%% references that are made here, but inside messages from the next start on.
-module(partisan_config).

-include("partisan.hrl").

-export([init/0, get/1, get/2, get_with_opts/2, get_with_opts/3, set/2]).
-export([listen_addrs/0, channels/0, channel_opts/1, parallelism/0]).
-export([default_channel/0, default_channel_opts/0]).
-export([seed/0, seed/1, trace/2]).
-export([overlay/0, overlay/2, overlay_name/1, strategy/0, is_steered/0, is_whole/0]).
-export([send_defaults/0, reaches/0, native/1, bound/1, unbound/0, format_error/1]).

-compile({no_auto_import, [get/1]}).

-export_type([send_defaults/0]).

-type send_defaults() :: {node(), Flags :: non_neg_integer(), ForwardOptions :: map()}.
%% What every send needs, in one read.

-define(KEY(Key), {?MODULE, Key}).
%% Of what every message needs; a key that is an atom is found in half the time.
-define(SEND, 'partisan_config:send').
-define(OVERLAY, 'partisan_config:overlay').
-define(BOUND, '$bound').
-define(GENERATED, '$generated').
-define(WARNED, '$warned').

%% Managers that have an overlay of one kind, with its name in the native library. That of
%% `partisan_pluggable_peer_service_manager' follows from the membership strategy.
-define(OVERLAYS, [
    {partisan_hyparview_peer_service_manager, <<"hyparview">>},
    {partisan_client_server_peer_service_manager, <<"client_server">>},
    {partisan_static_peer_service_manager, <<"static">>}
]).

%% Bit 0 of a message's flags: the default channel may stand in for a missing one.
-define(FLAG_FALLBACK, 1).
%% Bit 2: a node without a session is reached before it is given up.
-define(FLAG_REACH, 4).

%%%-------------------------------------------------------------------------------------------
%%% Reading and writing
%%%-------------------------------------------------------------------------------------------

%% @doc Reads the application's environment anew. May be called at any time, before the
%% application starts too; while it runs, name and listen addresses stay what they are.
-spec init() -> ok.
init() ->
    %% An application that is not loaded has an empty environment.
    _ = application:load(partisan),
    Given = environment(),
    Checked = maps:map(fun checked/2, Given),
    Defaults = maps:merge(
        partisan_config_schema:later_defaults(), partisan_config_schema:defaults()
    ),
    Settings = derive(maps:merge(Defaults, Checked)),
    _ = [
        persistent_term:erase(?KEY(Key))
     || {?KEY(Key), _} <- persistent_term:get(),
        not is_map_key(Key, Settings),
        not lists:member(Key, [?BOUND, ?GENERATED, ?WARNED])
    ],
    maps:foreach(fun(Key, Value) -> persistent_term:put(?KEY(Key), Value) end, Settings),
    refresh(),
    warn(Checked).

%% The environment under the present names of its keys; a present name wins over an old one.
environment() ->
    lists:foldl(
        fun
            ({included_applications, _}, Acc) ->
                Acc;
            ({Key, undefined}, Acc) when Key =/= tag -> Acc;
            ({Key, Value}, Acc) ->
                case partisan_config_schema:canonical(Key) of
                    Key -> Acc#{Key => Value};
                    New -> maps:merge(#{New => Value}, Acc)
                end
        end,
        #{},
        application:get_all_env(partisan)
    ).

checked(Key, Value) ->
    case partisan_config_schema:check(Key, Value) of
        {ok, Checked} -> Checked;
        {error, Expected} -> error({invalid_config, Key, Value, Expected})
    end.

%% What depends on other keys or on the machine.
derive(Settings0) ->
    {Name, Bound} =
        case persistent_term:get(?KEY(?BOUND), undefined) of
            undefined -> {name(Settings0), undefined};
            {OwnName, Addrs} -> {OwnName, Addrs}
        end,
    Settings = listen(Settings0#{name => Name, nodestring => atom_to_binary(Name)}, Bound),
    Parallelism = maps:get(parallelism, Settings),
    Settings#{
        channels => partisan_util:channels(maps:get(channels, Settings, #{}), Parallelism),
        random_seed => maps:get(random_seed, Settings, seed_of(Name))
    }.

name(#{name := Name}) ->
    Name;
name(_) ->
    case is_alive() of
        true -> node();
        false -> generated_name()
    end.

%% A name is made once per VM, so that it stays when the configuration is read again.
generated_name() ->
    case persistent_term:get(?KEY(?GENERATED), undefined) of
        undefined ->
            {ok, Host} = inet:gethostname(),
            <<A:32, B:16, _:4, C:12, _:2, D:14, E:48>> = rand_bytes(),
            Text = io_lib:format("~8.16.0b-~4.16.0b-4~3.16.0b-~4.16.0b-~12.16.0b@~s", [
                A, B, C, 16#8000 bor D, E, Host
            ]),
            Name = binary_to_atom(iolist_to_binary(Text)),
            persistent_term:put(?KEY(?GENERATED), Name),
            Name;
        Name ->
            Name
    end.

rand_bytes() ->
    Seed = {os:getpid(), erlang:system_time(), erlang:unique_integer(), make_ref()},
    erlang:md5(term_to_binary(Seed)).

listen(Settings, undefined) ->
    Port = maps:get(listen_port, Settings, 0),
    case Settings of
        #{listen_addrs := Given} ->
            Addrs = [partisan_util:parse_listen_address(A, Port) || A <- Given],
            first_address(Settings, lists:usort(Addrs));
        _ ->
            Ip =
                case Settings of
                    #{listen_ip := Known} -> Known;
                    #{name := Name} -> own_address(Name)
                end,
            first_address(Settings, [#{ip => Ip, port => Port}])
    end;
listen(Settings, Addrs) ->
    first_address(Settings, Addrs).

first_address(Settings, [#{ip := Ip, port := Port} | _] = Addrs) ->
    maps:merge(#{listen_ip => Ip, listen_port => Port}, Settings#{listen_addrs => Addrs}).

%% What the host of the node's name resolves to, if this machine can listen there.
own_address(Name) ->
    [_, Host] = string:split(atom_to_list(Name), "@"),
    own_address(Host, [inet6, inet]).

own_address(_, []) ->
    ?PEER_IP;
own_address(Host, [Family | Families]) ->
    case inet:getaddr(Host, Family) of
        {ok, Ip} ->
            case gen_tcp:listen(0, [Family, {ip, Ip}]) of
                {ok, Socket} ->
                    ok = gen_tcp:close(Socket),
                    Ip;
                {error, _} ->
                    own_address(Host, Families)
            end;
        {error, _} ->
            own_address(Host, Families)
    end.

warn(Given) ->
    Warned = persistent_term:get(?KEY(?WARNED), []),
    Warnings = lists:usort(lists:flatmap(fun warning/1, maps:to_list(Given))),
    _ = [
        logger:warning("partisan: " ++ Text, Args, #{application => partisan})
     || {_, Text, Args} = Warning <- Warnings, not lists:member(Warning, Warned)
    ],
    persistent_term:put(?KEY(?WARNED), lists:usort(Warnings ++ Warned)).

warning({forward_options, #{causal_label := Label}}) when Label =/= undefined, Label =/= false ->
    case lists:member(Label, get(causal_labels, [])) of
        true ->
            [];
        false ->
            [{forward_options,
                "forward_options has a causal_label, ~0tp, that is none of causal_labels: every message that "
                "is sent with it is refused", [Label]}]
    end;
warning({Key, Value}) ->
    case partisan_config_schema:status(Key) of
        supported ->
            [];
        unknown ->
            [{Key, "unknown configuration key ~p", [Key]}];
        later ->
            case partisan_config_schema:later_defaults() of
                #{Key := Value} -> [];
                _ -> [{Key, "configuration key ~p has no effect yet", [Key]}]
            end
    end.

%% @doc The value of a key. Error `badarg' if it isn't set.
-spec get(atom()) -> term().
get(broadcast_start_exchange_limit) ->
    get(broadcast_start_exchange_limit, length(get(broadcast_mods, [])));
get(Key) ->
    persistent_term:get(?KEY(partisan_config_schema:canonical(Key))).

%% @doc The value of a key, or `Default' if it isn't set.
-spec get(atom(), term()) -> term().
get(Key, Default) ->
    persistent_term:get(?KEY(partisan_config_schema:canonical(Key)), Default).

%% @doc The value of a key in `Opts' (a map or property list), else as `get/1'.
-spec get_with_opts(atom(), map() | list()) -> term().
get_with_opts(Key, Opts) when is_list(Opts) ->
    get_with_opts(Key, proplists:to_map(Opts));
get_with_opts(Key, Opts) when is_map(Opts) ->
    case Opts of
        #{Key := Value} -> Value;
        _ -> get(Key)
    end.

%% @doc The value of a key in `Opts' (a map or property list), else as `get/2'.
-spec get_with_opts(atom(), map() | list(), term()) -> term().
get_with_opts(Key, Opts, Default) when is_list(Opts) ->
    get_with_opts(Key, proplists:to_map(Opts), Default);
get_with_opts(Key, Opts, Default) when is_map(Opts) ->
    case Opts of
        #{Key := Value} -> Value;
        _ -> get(Key, Default)
    end.

%% @doc Sets a key, here and in the application's environment. A fun of arity 1 is applied to
%% the present value (`undefined' if there is none). Error `{invalid_config, Key, Value,
%% Expected}' for a value of the wrong form.
-spec set(atom(), term()) -> ok.
set(Key0, Fun) when is_function(Fun, 1) ->
    set(Key0, Fun(get(Key0, undefined)));
set(Key0, Value0) ->
    Key = partisan_config_schema:canonical(Key0),
    Value = checked(Key, Value0),
    ok = application:set_env(partisan, Key, Value),
    store(Key, Value),
    refresh(),
    warn(#{Key => Value}).

store(channels, Channels) ->
    store_channels(Channels, get(parallelism, ?PARALLELISM));
store(parallelism, Parallelism) ->
    persistent_term:put(?KEY(parallelism), Parallelism),
    store_channels(application:get_env(partisan, channels, #{}), Parallelism);
store(name, Name) ->
    persistent_term:put(?KEY(nodestring), atom_to_binary(Name)),
    persistent_term:put(?KEY(name), Name);
store(listen_addrs, Given) ->
    Addrs = [partisan_util:parse_listen_address(A, get(listen_port, 0)) || A <- Given],
    persistent_term:put(?KEY(listen_addrs), lists:usort(Addrs));
store(Key, Value) ->
    persistent_term:put(?KEY(Key), Value).

store_channels(Channels, Parallelism) ->
    persistent_term:put(?KEY(channels), partisan_util:channels(Channels, Parallelism)).

refresh() ->
    Fallback =
        case get(channel_fallback, true) of
            true -> ?FLAG_FALLBACK;
            false -> 0
        end,
    Reach =
        case overlay() of
            {_, true} -> ?FLAG_REACH;
            {_, false} -> 0
        end,
    Flags = Fallback bor Reach,
    Send = {get(name, undefined), Flags, get(forward_options, #{})},
    persistent_term:put(?SEND, Send).

%% @doc The module of the peer service manager whose overlay runs, and whether a node without a session may be
%% reached all the same. As configured, until the cluster switches to another.
-spec overlay() -> {module(), boolean()}.
overlay() ->
    case persistent_term:get(?OVERLAY, undefined) of
        undefined ->
            Manager = get(peer_service_manager, ?DEFAULT_PEER_SERVICE_MANAGER),
            {Manager, overlay_name(Manager) =/= {ok, <<"full_mesh">>}};
        {Name, Reaches} ->
            case lists:keyfind(Name, 2, ?OVERLAYS) of
                {Manager, _} -> {Manager, Reaches};
                %% A strategy's, or one that only Rust nodes can be configured with.
                false -> {?DEFAULT_PEER_SERVICE_MANAGER, Reaches}
            end
    end.

%% @doc Notes which overlay runs, by its name in the native library.
-spec overlay(binary(), boolean()) -> ok.
overlay(Name, Reaches) ->
    persistent_term:put(?OVERLAY, {Name, Reaches}),
    refresh().

%% @doc The name of a manager's overlay in the native library.
-spec overlay_name(module()) -> {ok, binary()} | error.
overlay_name(?DEFAULT_PEER_SERVICE_MANAGER) ->
    case native_overlay(?DEFAULT_PEER_SERVICE_MANAGER) of
        full_mesh -> {ok, <<"full_mesh">>};
        {scamp, _} -> {ok, <<"scamp">>};
        {steered, Name} -> {ok, Name}
    end;
overlay_name(Manager) ->
    case lists:keyfind(Manager, 1, ?OVERLAYS) of
        {_, Name} -> {ok, Name};
        false -> error
    end.

%% @doc The user's membership strategy; `undefined' if one is configured that the native library has itself.
-spec strategy() -> module() | undefined.
strategy() ->
    case native_overlay(?DEFAULT_PEER_SERVICE_MANAGER) of
        {steered, _} -> get(membership_strategy);
        _ -> undefined
    end.

%% @doc Whether the overlay that runs is that of the user's membership strategy.
-spec is_steered() -> boolean().
is_steered() ->
    Own = overlay_name(?DEFAULT_PEER_SERVICE_MANAGER),
    strategy() =/= undefined andalso
        case persistent_term:get(?OVERLAY, undefined) of
            undefined -> get(peer_service_manager) =:= ?DEFAULT_PEER_SERVICE_MANAGER;
            {Name, _} -> {ok, Name} =:= Own
        end.

%% @doc Whether the configured overlay links all nodes with each other.
-spec is_whole() -> boolean().
is_whole() ->
    overlay_name(get(peer_service_manager)) =:= {ok, <<"full_mesh">>}.

%% @doc Own name, default flags and default options of a send; `undefined' before `init/0'.
-spec send_defaults() -> send_defaults() | undefined.
send_defaults() ->
    persistent_term:get(?SEND, undefined).

%% @doc Whether a node without a session is reached when it is sent to: on all overlays but a full mesh.
-spec reaches() -> boolean().
reaches() ->
    case send_defaults() of
        {_, Flags, _} -> Flags band ?FLAG_REACH =/= 0;
        undefined -> false
    end.

%%%-------------------------------------------------------------------------------------------
%%% Single settings
%%%-------------------------------------------------------------------------------------------

%% @doc The addresses that this node listens on and advertises. A port that was left to the
%% operating system is 0 until the application runs.
-spec listen_addrs() -> [partisan_util:listen_addr()].
listen_addrs() ->
    get(listen_addrs).

%% @doc The channels of this node, the default channel `undefined' and `partisan_membership'
%% among them.
-spec channels() -> #{partisan:channel() => partisan:channel_opts()}.
channels() ->
    get(channels).

%% @doc The options of a channel. Error `badarg' if it isn't configured.
-spec channel_opts(partisan:channel()) -> partisan:channel_opts().
channel_opts(Channel) when is_atom(Channel) ->
    case channels() of
        #{Channel := Opts} -> Opts;
        _ -> error(badarg)
    end;
channel_opts(_) ->
    error(badarg).

%% @doc The default number of connections per channel.
-spec parallelism() -> pos_integer().
parallelism() ->
    get(parallelism).

%% @doc The name of the default channel.
-spec default_channel() -> partisan:channel().
default_channel() ->
    ?DEFAULT_CHANNEL.

%% @doc The options of the default channel.
-spec default_channel_opts() -> partisan:channel_opts().
default_channel_opts() ->
    channel_opts(?DEFAULT_CHANNEL).

%% @doc Seeds `rand' in the calling process from the key `random_seed', by default from the
%% node's name and the time.
-spec seed() -> ok.
seed() ->
    seed(get(random_seed)).

%% @doc Seeds `rand' in the calling process.
-spec seed(rand:seed()) -> ok.
seed(Seed) ->
    _ = rand:seed(exsplus, Seed),
    ok.

seed_of(Name) ->
    {erlang:phash2(Name), erlang:monotonic_time(), erlang:unique_integer()}.

%% @doc Logs a line if the key `tracing' is set.
-spec trace(io:format(), [term()]) -> ok.
trace(Format, Args) ->
    case get(tracing, false) of
        true -> logger:info(Format, Args, #{application => partisan});
        false -> ok
    end.

%%%-------------------------------------------------------------------------------------------
%%% For the native library
%%%-------------------------------------------------------------------------------------------

%% @doc Remembers where the running node listens.
-spec bound([partisan_util:listen_addr()]) -> ok.
bound(Addrs) ->
    persistent_term:put(?KEY(?BOUND), {get(name), Addrs}),
    persistent_term:put(?KEY(listen_addrs), Addrs),
    case Addrs of
        [#{port := Port} | _] -> persistent_term:put(?KEY(listen_port), Port);
        [] -> ok
    end.

%% @doc Forgets where the node listened: it has stopped.
-spec unbound() -> ok.
unbound() ->
    _ = persistent_term:erase(?KEY(?BOUND)),
    _ = persistent_term:erase(?OVERLAY),
    ok.

%% @doc The configuration in the native library's form. `Owner' gets the node's events.
-spec native(pid()) -> {ok, partisan_nif:config()} | {error, Reason :: atom()}.
native(Owner) ->
    case {get(tls, false), partisan_cookie:own()} of
        {true, _} ->
            {error, tls_not_supported};
        {false, {error, _} = Error} ->
            Error;
        {false, {ok, Cookie}} ->
            {ok, native(Owner, Cookie)}
    end.

native(Owner, Cookie) ->
    Name = get(name),
    #{enabled := Enabled, idle_timeout := Idle, timeout := Timeout, max_attempts := Attempts} =
        get(connection_ping),
    {_, _, Channels} = partisan_util:to_native(#{
        name => Name, listen_addrs => [], channels => channels()
    }),
    #{
        owner => Owner,
        inboxes => partisan_inbox:names(),
        name => Name,
        creation => creation(Name),
        cookie => Cookie,
        cookies => partisan_cookie:of_peers(),
        listen_addrs => [
            {list_to_binary(inet:ntoa(Ip)), Port}
         || #{ip := Ip, port := Port} <- listen_addrs()
        ],
        channels => Channels,
        pid_encoding => get(pid_encoding),
        ref_encoding => get(ref_encoding),
        remote_ref_format => get(remote_ref_format),
        uri_padding => get(remote_ref_uri_padding),
        connection_interval => get(connection_interval),
        connection_jitter => get(connection_jitter),
        ping => {Enabled, Idle, Timeout, Attempts},
        queue_bytes => get(queue_bytes),
        node_queue_bytes => get(node_queue_bytes),
        bundle_bytes => get(bundle_bytes),
        io_threads => get(io_threads),
        bulk_threads => get(bulk_threads),
        direct_write_gap => microseconds(get(direct_write_gap)),
        fragment_bytes => get(fragment_bytes),
        fragment_bytes_alone => get(fragment_bytes_alone),
        send_buffer => get(send_buffer),
        receive_buffer => get(receive_buffer),
        unsent_bytes => get(unsent_bytes),
        bulk_nice => get(bulk_nice),
        io_slice => get(io_slice),
        bulk_slice => get(bulk_slice),
        io_spin => get(io_spin),
        receive_pool_bytes => get(receive_pool_bytes),
        max_term_bytes => get(max_term_bytes),
        max_term_heap => get(max_term_heap),
        max_message_bytes => get(max_message_bytes),
        max_new_atoms => get(max_new_atoms),
        periodic_interval => get(periodic_interval),
        fanout => get(fanout),
        overlay => native_overlay(get(peer_service_manager)),
        other_overlays => [native_overlay(Other) || Other <- managers() -- [get(peer_service_manager)]],
        switch_overlap => get(switch_overlap),
        relay_ttl => get(relay_ttl),
        relay_direct => get(relay_direct),
        announce_delay => get(lazy_tick_period),
        ack_bytes => get(ack_bytes),
        retransmit_interval => get(retransmit_interval),
        causal_patience => get(causal_patience),
        data_dir => data_dir()
    }.

managers() ->
    [?DEFAULT_PEER_SERVICE_MANAGER | [Manager || {Manager, _} <- ?OVERLAYS]].

native_overlay(partisan_pluggable_peer_service_manager) ->
    case get(membership_strategy, ?DEFAULT_MEMBERSHIP_STRATEGY) of
        partisan_full_membership_strategy -> full_mesh;
        partisan_scamp_v1_membership_strategy -> {scamp, get(scamp_c)};
        partisan_scamp_v2_membership_strategy -> {scamp, get(scamp_c)};
        Strategy -> {steered, <<"strategy:", (atom_to_binary(Strategy))/binary>>}
    end;
native_overlay(partisan_static_peer_service_manager) ->
    static;
native_overlay(partisan_client_server_peer_service_manager) ->
    {client_server, get(tag), get(server_links)};
native_overlay(partisan_hyparview_peer_service_manager) ->
    Options = get(hyparview),
    #{
        %% The native library's view has only others in it.
        active => maps:get(active_max_size, Options) - 1,
        passive => maps:get(passive_max_size, Options),
        active_walk => maps:get(active_rwl, Options),
        passive_walk => maps:get(passive_rwl, Options),
        active_shuffled => maps:get(shuffle_k_active, Options),
        passive_shuffled => maps:get(shuffle_k_passive, Options),
        shuffle_interval => maps:get(shuffle_interval, Options),
        xbot =>
            case Options of
                #{xbot_enabled := true, xbot_interval := Interval} -> Interval;
                #{} -> undefined
            end
    }.

%% The native library takes `nil' for never.
microseconds(infinity) -> nil;
microseconds(Gap) -> Gap.

%% Alive under the same name: the VM's own identity, so that nothing has to be mapped.
creation(Name) ->
    case is_alive() andalso node() =:= Name of
        true -> erlang:system_info(creation);
        false -> 0
    end.

data_dir() ->
    case get(partisan_data_dir, undefined) of
        undefined -> undefined;
        Dir -> unicode:characters_to_binary(Dir)
    end.

%% @doc A sentence about what `init/0' raises and `native/1' returns.
-spec format_error(term()) -> string().
format_error({invalid_config, Key, _, Expected}) when Key =:= cookie ->
    "configuration key cookie must be " ++ Expected;
format_error({invalid_config, Key, Value, Expected}) ->
    lists:flatten(
        io_lib:format("configuration key ~p must be ~ts, not ~0tp", [Key, Expected, Value])
    );
format_error(tls_not_supported) ->
    "TLS is not built yet, and {tls, true} must not run in plain text: set {tls, false}";
format_error(no_cookie) ->
    "no cookie: set the configuration key cookie of the application partisan, or the "
    "environment variable PARTISAN_COOKIE, or write ~/.erlang.cookie, or start the VM with "
    "-setcookie and a name; all nodes of a cluster need the same";
format_error(Reason) when is_binary(Reason) ->
    unicode:characters_to_list(Reason);
format_error(Reason) ->
    lists:flatten(io_lib:format("~tp", [Reason])).
