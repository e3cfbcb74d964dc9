-module(partisan_config_tests).

-include_lib("eunit/include/eunit.hrl").

-export([log/2]).

config_test_() ->
    {foreach, fun reset/0, fun(_) -> reset() end, [
        fun defaults/0,
        fun names/0,
        fun invalid/0,
        fun addresses/0,
        fun old_names/0,
        fun channels/0,
        fun forward_options/0,
        fun set_and_get/0,
        fun warnings/0,
        fun warned_once/0,
        fun ping/0,
        fun running/0,
        fun seed/0,
        fun tls/0,
        fun cookies/0,
        fun native/0,
        fun overlays/0,
        fun broadcast/0
    ]}.

reset() ->
    _ = application:load(partisan),
    [application:unset_env(partisan, Key) || {Key, _} <- application:get_all_env(partisan)],
    [
        persistent_term:erase(Key)
     || {Key, _} <- persistent_term:get(), is_tuple(Key), element(1, Key) =:= partisan_config
    ],
    true = os:unsetenv("PARTISAN_COOKIE"),
    ok.

init(Settings) ->
    [ok = application:set_env(partisan, Key, Value) || {Key, Value} <- Settings],
    partisan_config:init().

defaults() ->
    ok = init([]),
    ?assertEqual(true, partisan_config:get(pid_encoding)),
    ?assertEqual(improper_list, partisan_config:get(remote_ref_format)),
    ?assertEqual(1, partisan_config:parallelism()),
    ?assertEqual(undefined, partisan_config:default_channel()),
    ?assertEqual(
        #{parallelism => 1, monotonic => false, compression => false},
        partisan_config:default_channel_opts()
    ),
    ?assertEqual([optimized], [partisan_config:get(exchange_selection)]),
    ?assertEqual(1, partisan_config:get(broadcast_start_exchange_limit)),
    ?assertError(badarg, partisan_config:get(partisan_data_dir)),
    ?assertError(badarg, partisan_config:get(no_such_key)),
    ?assertEqual(x, partisan_config:get(no_such_key, x)),
    ?assertMatch({_, 1, #{}}, partisan_config:send_defaults()).

names() ->
    ok = init([]),
    Generated = partisan_config:get(name),
    ?assertEqual(Generated, partisan:node()),
    ?assertEqual(atom_to_binary(Generated), partisan:nodestring()),
    %% Reading the configuration again doesn't rename the node.
    ok = partisan_config:init(),
    ?assertEqual(Generated, partisan_config:get(name)),
    ok = init([{name, <<"x@127.0.0.1">>}]),
    ?assertEqual('x@127.0.0.1', partisan:node()),
    ?assertEqual('x@127.0.0.1', partisan:node(self())),
    ?assertEqual('x@127.0.0.1', partisan:node(make_ref())).

invalid() ->
    [
        begin
            reset(),
            ?assertError({invalid_config, Key, Value, _}, init([{Key, Value}])),
            try
                init([])
            catch
                error:Reason -> ?assert(length(partisan_config:format_error(Reason)) > 20)
            end,
            reset(),
            ok = init([]),
            ?assertError({invalid_config, Key, Value, _}, partisan_config:set(Key, Value))
        end
     || {Key, Value} <- [
            {name, no_host},
            {listen_ip, "localhost"},
            {listen_port, 65536},
            {listen_addrs, []},
            {listen_addrs, ["x:1"]},
            {channels, [{a, #{parallelism => 0}}]},
            {parallelism, 0},
            {channel_fallback, 1},
            {pid_encoding, yes},
            {remote_ref_format, list},
            {forward_options, x},
            {connection_interval, 0},
            {connection_jitter, -1},
            {connection_ping, #{enabled => 1}},
            {partisan_data_dir, ""},
            {cookie, ""},
            {cookie, 17},
            {tls, [{certfile, "x"}]},
            {queue_bytes, 1},
            {io_threads, -1}
        ]
    ].

addresses() ->
    ok = init([{name, 'x@127.0.0.1'}]),
    ?assertEqual([#{ip => {127, 0, 0, 1}, port => 0}], partisan_config:listen_addrs()),
    ok = init([{name, 'x@no-such-host.invalid'}]),
    ?assertEqual({127, 0, 0, 1}, partisan_config:get(listen_ip)),
    ok = init([{listen_ip, "127.0.0.2"}, {listen_port, 4000}]),
    ?assertEqual([#{ip => {127, 0, 0, 2}, port => 4000}], partisan_config:listen_addrs()),
    ok = init([{listen_addrs, ["127.0.0.4:1", <<"127.0.0.3">>, {{127, 0, 0, 4}, 1}]}]),
    ?assertEqual(
        [#{ip => {127, 0, 0, 3}, port => 4000}, #{ip => {127, 0, 0, 4}, port => 1}],
        partisan_config:listen_addrs()
    ).

old_names() ->
    ok = init([{peer_ip, {127, 0, 0, 5}}, {peer_port, 77}]),
    ?assertEqual([#{ip => {127, 0, 0, 5}, port => 77}], partisan_config:listen_addrs()),
    ?assertEqual(77, partisan_config:get(peer_port)),
    ?assertEqual(77, partisan_config:get(listen_port)),
    ok = init([{listen_port, 78}]),
    ?assertEqual(78, partisan_config:get(peer_port)).

channels() ->
    ok = init([{parallelism, 3}, {channels, [{data, #{parallelism => 2}}, other]}]),
    ?assertMatch(#{data := #{parallelism := 2}}, partisan_config:channels()),
    ?assertMatch(#{parallelism := 3}, partisan_config:channel_opts(other)),
    ?assertMatch(#{parallelism := 3}, partisan:channel_opts(undefined)),
    ?assertMatch(#{parallelism := 1}, partisan:channel_opts(partisan_membership)),
    ?assertError(badarg, partisan:channel_opts(nowhere)),
    ?assertError(badarg, partisan:channel_opts("data")),
    ok = partisan_config:set(parallelism, 4),
    ?assertMatch(#{parallelism := 4}, partisan:channel_opts(other)),
    ?assertMatch(#{parallelism := 2}, partisan:channel_opts(data)),
    ok = partisan_config:set(channels, #{new => #{}}),
    ?assertError(badarg, partisan:channel_opts(data)),
    ?assertMatch(#{parallelism := 4}, partisan:channel_opts(new)).

forward_options() ->
    ok = init([{forward_options, [{channel, data}]}, {channel_fallback, false}]),
    ?assertEqual(#{channel => data}, partisan_config:get(forward_options)),
    ?assertMatch({_, 0, #{channel := data}}, partisan_config:send_defaults()),
    ok = partisan_config:set(forward_options, #{}),
    ok = partisan_config:set(channel_fallback, true),
    ?assertMatch({_, 1, Opts} when Opts =:= #{}, partisan_config:send_defaults()).

set_and_get() ->
    ok = init([]),
    ok = partisan_config:set(anything, 1),
    ?assertEqual(1, partisan_config:get(anything)),
    ?assertEqual({ok, 1}, application:get_env(partisan, anything)),
    ok = partisan_config:set(anything, fun(N) -> N + 1 end),
    ?assertEqual(2, partisan_config:get(anything)),
    ?assertEqual(2, persistent_term:get({partisan_config, anything})),
    ?assertEqual(5, partisan_config:get_with_opts(anything, #{anything => 5})),
    ?assertEqual(5, partisan_config:get_with_opts(anything, [{anything, 5}])),
    ?assertEqual(2, partisan_config:get_with_opts(anything, #{})),
    ?assertEqual(7, partisan_config:get_with_opts(nothing, [], 7)),
    ok = partisan_config:set(name, 'y@127.0.0.1'),
    ?assertEqual(<<"y@127.0.0.1">>, partisan:nodestring()),
    ?assertEqual('y@127.0.0.1', partisan:node()),
    %% What the environment doesn't hold any more is forgotten.
    ok = application:unset_env(partisan, anything),
    ok = partisan_config:init(),
    ?assertEqual(none, partisan_config:get(anything, none)).

warnings() ->
    ?assertEqual(["unknown configuration key no_such_key"], warnings_of([{no_such_key, 1}])),
    ?assertEqual(["configuration key binary_padding has no effect yet"], warnings_of([{binary_padding, true}])),
    ?assertEqual(true, partisan_config:get(binary_padding)),
    ?assertEqual(["configuration key redelivery_interval has no effect yet"], warnings_of([{redelivery_interval, 5}])),
    ?assertEqual(5, partisan_config:get(redelivery_interval)),
    %% What asks for nothing but the present behaviour.
    ?assertEqual([], warnings_of([{binary_padding, false}, {connect_disterl, false}, {gossip, true}])),
    ?assertEqual([], warnings_of([{pid_encoding, false}, {peer_port, 1}])),
    ?assertMatch([_], warnings_of([{forward_options, #{causal_label => red}}])),
    ?assertEqual([], warnings_of([{causal_labels, [red]}, {forward_options, #{causal_label => red}}])),
    ?assertEqual([], warnings_of([{forward_options, #{ack => true}}])).

warned_once() ->
    ?assertMatch([_], warnings_of([{no_such_key, 1}])),
    ?assertEqual([], warnings_in(fun partisan_config:init/0)).

warnings_of(Settings) ->
    reset(),
    warnings_in(fun() -> init(Settings) end).

warnings_in(Fun) ->
    ok = logger:add_handler(?MODULE, ?MODULE, #{config => #{to => self()}}),
    ok = logger:update_primary_config(#{level => all}),
    ok = logger:add_handler_filter(
        default, ?MODULE, {fun(_, _) -> stop end, []}
    ),
    try
        ok = Fun(),
        collected()
    after
        ok = logger:remove_handler_filter(default, ?MODULE),
        ok = logger:update_primary_config(#{level => notice}),
        ok = logger:remove_handler(?MODULE)
    end.

%% A logger handler.
log(#{level := warning, msg := {"partisan: " ++ Format, Args}}, #{config := #{to := Pid}}) ->
    Pid ! {warning, lists:flatten(io_lib:format(Format, Args))};
log(_, _) ->
    ok.

collected() ->
    receive
        {warning, Text} -> [Text | collected()]
    after 0 -> []
    end.

ping() ->
    ok = init([{connection_ping, #{enabled => false}}]),
    ?assertEqual(
        #{enabled => false, idle_timeout => 20000, timeout => 10000, max_attempts => 5},
        partisan_config:get(connection_ping)
    ).

running() ->
    ok = init([{name, 'x@127.0.0.1'}]),
    ok = partisan_config:bound([#{ip => {127, 0, 0, 1}, port => 1234}]),
    ?assertEqual(1234, partisan_config:get(listen_port)),
    %% A running node keeps its name and addresses.
    ok = init([{name, 'z@127.0.0.1'}, {peer_port, 99}]),
    ?assertEqual('x@127.0.0.1', partisan:node()),
    ?assertEqual([#{ip => {127, 0, 0, 1}, port => 1234}], partisan_config:listen_addrs()),
    ok = partisan_config:unbound(),
    ok = partisan_config:init(),
    ?assertEqual('z@127.0.0.1', partisan:node()),
    ?assertEqual([#{ip => {127, 0, 0, 1}, port => 99}], partisan_config:listen_addrs()).

seed() ->
    ok = init([{random_seed, {1, 2, 3}}]),
    ok = partisan_config:seed(),
    First = rand:uniform(1 bsl 30),
    ok = partisan_config:seed({1, 2, 3}),
    ?assertEqual(First, rand:uniform(1 bsl 30)).

tls() ->
    ok = init([{tls, true}, {cookie, "c"}]),
    ?assertEqual({error, tls_not_supported}, partisan_config:native(self())),
    ?assertMatch("TLS" ++ _, partisan_config:format_error(tls_not_supported)).

cookies() ->
    ok = init([]),
    true = os:putenv("PARTISAN_COOKIE", "from the environment\n"),
    ?assertEqual({ok, <<"from the environment">>}, partisan_cookie:own()),
    ok = partisan_config:set(cookie, configured),
    ?assertEqual({ok, <<"configured">>}, partisan_cookie:own()),
    ok = partisan_config:set(cookie, "text"),
    ?assertEqual({ok, <<"text">>}, partisan_cookie:own()),
    ?assertMatch("no cookie: " ++ _, partisan_config:format_error(no_cookie)).

native() ->
    ok = init([
        {name, 'x@127.0.0.1'},
        {cookie, <<"c">>},
        {listen_addrs, ["127.0.0.1:5"]},
        {partisan_data_dir, "/tmp/x"},
        {channels, [{data, #{parallelism => 2, compression => true}}]}
    ]),
    {ok, Config} = partisan_config:native(self()),
    Self = self(),
    ?assertMatch(
        #{
            owner := Self,
            name := 'x@127.0.0.1',
            creation := 0,
            cookie := <<"c">>,
            cookies := _,
            listen_addrs := [{<<"127.0.0.1">>, 5}],
            channels := [
                {data, 2, false, 6}, {partisan_membership, 1, false, 6}, {undefined, 1, false, 0}
            ],
            ping := {true, 20000, 10000, 5},
            data_dir := <<"/tmp/x">>,
            queue_bytes := 16777216
        },
        Config
    ).

overlays() ->
    ok = init([{cookie, secret}]),
    ?assertEqual(partisan_pluggable_peer_service_manager, partisan_peer_service:manager()),
    {ok, #{overlay := full_mesh}} = partisan_config:native(self()),
    Manager = partisan_hyparview_peer_service_manager,
    ok = init([{partisan_peer_service_manager, Manager}]),
    ?assertEqual(Manager, partisan_peer_service:manager()),
    Overlay = fun() ->
        {ok, #{overlay := Native}} = partisan_config:native(self()),
        Native
    end,
    Default = #{
        active => 5,
        active_walk => 6,
        passive => 30,
        passive_walk => 3,
        active_shuffled => 3,
        passive_shuffled => 4,
        shuffle_interval => 10000,
        xbot => undefined
    },
    ?assertEqual(Default, Overlay()),
    %% Old names, new names, and what has no effect.
    ok = init([{hyparview, [{max_active_size, 4}, {prwl, 2}, {random_promotion, true}, {min_active_size, 3}]}]),
    ?assertEqual(Default#{active := 3, passive_walk := 2}, Overlay()),
    ok = init([{hyparview, #{arwl => 5, max_passive_size => 9, passive_view_shuffle_period => 50, shuffle_k_active => 0}}]),
    ?assertEqual(
        Default#{active_walk := 5, passive := 9, shuffle_interval := 50, active_shuffled := 0}, Overlay()
    ),
    [
        ?assertError({invalid_config, hyparview, _, _}, partisan_config:set(hyparview, Wrong))
     || Wrong <- [#{active_max_size => 1}, #{no_such => 1}, #{xbot_enabled => yes}, #{xbot_interval => 0}, #{arwl => 99}, 7]
    ],
    ok = init([{hyparview, #{xbot_enabled => true, xbot_interval => 700}}]),
    ?assertEqual(Default#{xbot := 700}, Overlay()),
    ?assertError(
        {invalid_config, peer_service_manager, _, _},
        init([{peer_service_manager, partisan_no_such_peer_service_manager}])
    ),
    ok = init([{peer_service_manager, partisan_static_peer_service_manager}, {fanout, 7}]),
    {ok, #{overlay := static, fanout := 7}} = partisan_config:native(self()),
    Manager2 = partisan_client_server_peer_service_manager,
    ok = init([{peer_service_manager, Manager2}]),
    ?assertEqual({client_server, undefined, 1}, Overlay()),
    ok = init([{peer_service_manager, Manager2}, {tag, client}, {server_links, 2}]),
    ?assertEqual({client_server, client, 2}, Overlay()),
    [
        ?assertError({invalid_config, Key, _, _}, partisan_config:set(Key, Wrong))
     || {Key, Wrong} <- [{tag, master}, {server_links, 0}, {fanout, 0}]
    ].

broadcast() ->
    ok = init([{cookie, secret}]),
    {ok, #{announce_delay := 5}} = partisan_config:native(self()),
    ok = init([{lazy_tick_period, 1000}, {broadcast_mods, ["lists", maps]}]),
    {ok, #{announce_delay := 1000}} = partisan_config:native(self()),
    ?assertEqual([lists, maps, partisan_plumtree_backend], partisan_config:get(broadcast_mods)),
    ?assertEqual(3, partisan_config:get(broadcast_start_exchange_limit)),
    ?assertError(
        {invalid_config, broadcast_mods, _, _}, partisan_config:set(broadcast_mods, ["no such module at all"])
    ).
