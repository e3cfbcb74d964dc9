-module(partisan_util_tests).

-include_lib("eunit/include/eunit.hrl").

listen_address_test_() ->
    V4 = {127, 0, 0, 1},
    V6 = {0, 0, 0, 0, 0, 0, 0, 1},
    [
        ?_assertEqual(#{ip => Ip, port => Port}, partisan_util:parse_listen_address(Form, 9))
     || {Ip, Port, Form} <- [
            {V4, 80, "127.0.0.1:80"},
            {V4, 80, <<"127.0.0.1:80">>},
            {V4, 9, "127.0.0.1"},
            {V4, 9, <<"127.0.0.1">>},
            {V4, 9, V4},
            {V4, 80, {V4, 80}},
            {V4, 80, {"127.0.0.1", "80"}},
            {V4, 80, {<<"127.0.0.1">>, <<"80">>}},
            {V4, 80, #{ip => V4, port => 80}},
            {V4, 80, #{ip => "127.0.0.1", port => 80}},
            {V4, 9, #{ip => V4}},
            {V6, 9, "::1"},
            {V6, 80, "[::1]:80"},
            {V6, 9, "[::1]"},
            {V6, 80, #{ip => V6, port => 80}}
        ]
    ].

bad_listen_address_test_() ->
    [
        ?_assertError(badarg, partisan_util:parse_listen_address(Form, 9))
     || Form <- [
            "localhost:80",
            "127.0.0.1:",
            "127.0.0.1:x",
            "127.0.0.1:65536",
            "[::1",
            {{1, 2, 3}, 80},
            {{1, 2, 3, 4}, -1},
            #{},
            nowhere,
            ""
        ]
    ].

format_test() ->
    ?assertEqual(
        "10.0.0.1:80", partisan_util:format_listen_address(#{ip => {10, 0, 0, 1}, port => 80})
    ),
    ?assertEqual(
        "[::1]:80",
        partisan_util:format_listen_address(#{ip => {0, 0, 0, 0, 0, 0, 0, 1}, port => 80})
    ).

-define(CHANNEL(P, M, C), #{parallelism => P, monotonic => M, compression => C}).

channel_forms_test() ->
    Expected = #{
        undefined => ?CHANNEL(2, false, false),
        partisan_membership => ?CHANNEL(1, false, true),
        a => ?CHANNEL(2, false, false),
        b => ?CHANNEL(2, true, false),
        c => ?CHANNEL(5, false, 9),
        d => ?CHANNEL(3, false, true)
    },
    ?assertEqual(
        Expected,
        partisan_util:channels(
            [
                a,
                {monotonic, b},
                {c, #{parallelism => 5, compression => 9}},
                #{name => d, parallelism => 3, compression => true}
            ],
            2
        )
    ),
    ?assertEqual(
        Expected,
        partisan_util:channels(
            #{
                a => #{},
                b => [monotonic],
                c => [{parallelism, 5}, {compression, 9}],
                d => #{parallelism => 3, compression => true}
            },
            2
        )
    ),
    %% The form that comes out goes in.
    ?assertEqual(Expected, partisan_util:channels(Expected, 2)).

forced_channels_test() ->
    Channels = partisan_util:channels(
        [
            {undefined, #{parallelism => 7, monotonic => true}},
            {partisan_membership, #{parallelism => 3, monotonic => true, compression => false}}
        ],
        2
    ),
    ?assertEqual(
        #{
            undefined => ?CHANNEL(2, false, false),
            partisan_membership => ?CHANNEL(3, false, false)
        },
        Channels
    ).

bad_channels_test_() ->
    [
        ?_assertError(badarg, partisan_util:channels(Channels, 1))
     || Channels <- [
            x,
            ["a"],
            [{a, #{parallelism => 0}}],
            [{a, #{parallelism => 257}}],
            [{a, #{parallelism => two}}],
            [{a, #{monotonic => 1}}],
            [{a, #{compression => 10}}],
            [list_to_atom("c" ++ integer_to_list(N)) || N <- lists:seq(1, 63)],
            [{list_to_atom("c" ++ integer_to_list(N)), #{parallelism => 256}} || N <- [1, 2, 3, 4]]
        ]
    ].

node_name_test() ->
    ?assertEqual('a@b', partisan_util:node_name('a@b')),
    ?assertEqual('a@b', partisan_util:node_name(<<"a@b">>)),
    ?assertEqual('a@b', partisan_util:node_name("a@b")),
    [
        ?assertError(badarg, partisan_util:node_name(Name))
     || Name <- [a, '@', 'a@', '@b', 'a@b@c', <<"a">>, 1]
    ],
    ?assertEqual(error, partisan_util:existing_node_name(<<"nobody-has-this-name@x">>)),
    ?assertEqual({ok, 'a@b'}, partisan_util:existing_node_name("a@b")).

spec_test() ->
    Spec = partisan_util:node_spec(#{
        name => <<"x@127.0.0.1">>,
        listen_addrs => [{"127.0.0.1", 80}, "127.0.0.1:80"],
        channels => [{data, #{compression => true, parallelism => 4}}]
    }),
    ?assertMatch(
        #{name := 'x@127.0.0.1', listen_addrs := [#{ip := {127, 0, 0, 1}, port := 80}]}, Spec
    ),
    Native = partisan_util:to_native(Spec),
    ?assertEqual(
        {'x@127.0.0.1', [{{127, 0, 0, 1}, 80}], [
            {data, 4, false, 6}, {partisan_membership, 1, false, 6}, {undefined, 1, false, 0}
        ]},
        Native
    ),
    ?assertEqual(Spec, partisan_util:from_native(Native)),
    [
        ?assertError(badarg, partisan_util:node_spec(Bad))
     || Bad <- [
            #{},
            #{name => 'x@y'},
            #{name => 'x@y', listen_addrs => []},
            #{name => 'x@y', listen_addrs => [{{127, 0, 0, 1}, 0}]},
            #{name => x, listen_addrs => [{{127, 0, 0, 1}, 1}]}
        ]
    ].

safe_apply_test() ->
    ?assertEqual(3, partisan_util:safe_apply(lists, sum, [[1, 2]], none)),
    ?assertEqual(none, partisan_util:safe_apply(lists, no_such_function, [], none)),
    ?assertEqual(none, partisan_util:safe_apply(no_such_module, f, [], none)).
