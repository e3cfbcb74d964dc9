%% Destinations, options and the waiting protocol, over a stand-in for the native library.
-module(partisan_forward_tests).

-include_lib("eunit/include/eunit.hrl").

-define(OWN, 'own@127.0.0.1').
-define(B, 'b@127.0.0.1').
-define(FAKE, partisan_fake_nif).

forward_test_() ->
    {foreach,
        fun() ->
            ok = ?FAKE:install(),
            ok = application:set_env(partisan, name, ?OWN),
            ok = partisan_config:init()
        end,
        fun(_) ->
            [application:unset_env(partisan, K) || K <- [name, forward_options, channel_fallback]],
            ok = partisan_config:init(),
            ok = ?FAKE:remove()
        end,
        [
            fun local/0,
            fun remote/0,
            fun registries/0,
            fun foreign_pid/0,
            fun options/0,
            fun bad_options/0,
            fun default_options/0,
            fun kept_options/0,
            fun casts/0,
            fun sends/0,
            fun errors/0,
            fun full/0,
            fun slow/0,
            fun waiting/0,
            fun given_up/0,
            fun late_grant/0,
            fun lost/0
        ]}.

received() ->
    receive
        Message -> Message
    after 0 -> nothing
    end.

local() ->
    true = register(here, self()),
    Ref = partisan:self(),
    Forms = [
        self(), here, {here, ?OWN}, Ref, partisan_remote_ref:from_term(here), {via, erlang_names, here}
    ],
    [
        begin
            ok = partisan:forward_message(Dest, {hello, Dest}),
            ?assertEqual({hello, Dest}, received())
        end
     || Dest <- lists:droplast(Forms)
    ],
    Encoded = [
        partisan_remote_ref:target(Ref), {encoded_name, "here"}, here, self(), Ref, {here, ?OWN}
    ],
    [
        begin
            ok = partisan:forward_message(?OWN, Dest, {hello, Dest}, []),
            ?assertEqual({hello, Dest}, received())
        end
     || Dest <- Encoded
    ],
    true = unregister(here),
    ?assertError(badarg, partisan:forward_message(here, x)),
    ?assertError(badarg, partisan:forward_message({here, ?OWN}, x)),
    ok = partisan:forward_message(?OWN, here, x, #{}),
    ok = partisan:forward_message(?OWN, {encoded_name, "here"}, x, #{}),
    ok = partisan:forward_message(?OWN, {encoded_pid, "<0.99999999999.0>"}, x, #{}),
    ?assertError(badarg, partisan:forward_message({encoded_name, "here"}, x)),
    ?assertError(badarg, partisan:forward_message(17, x)),
    ?assertError(badarg, partisan:forward_message(partisan:make_ref(), x)),
    ?assertError(badarg, partisan:forward_message(<<"b">>, x, y, #{})),
    ?assertEqual([], ?FAKE:sent()).

remote() ->
    Pid = list_to_pid("<0.164.2>"),
    [
        begin
            ok =
                case To of
                    {Node, Dest} -> partisan:forward_message(Node, Dest, hi, []);
                    [Dest] -> partisan:forward_message(Dest, hi)
                end,
            ?assertEqual([{send, ?B, undefined, -1, Native, hi, 1, none}], ?FAKE:sent())
        end
     || {To, Native} <- [
            {{?B, echo}, echo},
            {{?B, {echo, ?B}}, echo},
            {[{echo, ?B}], echo},
            {{?B, {encoded_name, "echo"}}, echo},
            {{?B, {encoded_pid, "<0.164.2>"}}, {164, 2, 0}},
            {[partisan_remote_ref:from_term(Pid, ?B)], {164, 2, 0}},
            {{?B, partisan_remote_ref:from_term(Pid, ?B)}, {164, 2, 0}},
            {[<<"partisan:pid:b@127.0.0.1:0.164.2">>], {164, 2, 0}},
            {[{partisan_remote_ref, ?B, {encoded_pid, "<0.164.2>"}}], {164, 2, 0}},
            {{?OWN, partisan_remote_ref:from_term(Pid, ?B)}, {164, 2, 0}}
        ]
    ],
    %% A pid of this node is here, whatever node is named.
    ok = partisan:forward_message(?B, self(), hi, []),
    ?assertEqual(hi, received()).

registries() ->
    yes = global:register_name(somebody, self()),
    ok = partisan:forward_message({global, somebody}, hi),
    ?assertEqual(hi, received()),
    ok = partisan:forward_message({via, global, somebody}, hi, #{}),
    ?assertEqual(hi, received()),
    _ = global:unregister_name(somebody),
    ok = partisan:forward_message({global, somebody}, hi),
    ok = partisan:forward_message({via, no_such_module, somebody}, hi),
    ?assertEqual(nothing, received()).

foreign_pid() ->
    Pid = foreign(),
    ?assertEqual(?B, node(Pid)),
    ok = partisan:forward_message(Pid, hi),
    ok = partisan:forward_message(?OWN, Pid, hi, #{channel => c}),
    ?assertEqual(
        [
            {send, ?B, undefined, -1, Pid, hi, 1, none}, {send, ?B, c, -1, Pid, hi, 1, none}
        ],
        ?FAKE:sent()
    ),
    ?FAKE:answer(send, {error, not_yet_connected}),
    ?assertEqual({error, not_yet_connected}, partisan:forward_message(Pid, hi)),
    ?assertEqual(?B, partisan:node(Pid)),
    ?assertNot(partisan:is_local(Pid)),
    ?assertNot(partisan:is_local_pid(Pid)),
    ?assertEqual(
        [?B | <<"#Pid<0.164.2>">>], partisan_remote_ref:from_term(Pid)
    ).

foreign() ->
    Name = atom_to_binary(?B),
    binary_to_term(
        <<131, 88, 119, (byte_size(Name)), Name/binary, 164:32, 2:32, 9:32>>
    ).

options() ->
    [
        begin
            ok = partisan:forward_message(?B, echo, hi, Opts),
            ?assertEqual([{send, ?B, Channel, Key, echo, hi, Flags, none}], ?FAKE:sent())
        end
     || {Opts, Channel, Key, Flags} <- [
            {#{}, undefined, -1, 1},
            {[], undefined, -1, 1},
            {#{channel => c}, c, -1, 1},
            {[{channel, c}], c, -1, 1},
            {#{channel => c, partition_key => 3}, c, 3, 1},
            {#{partition_key => 0}, undefined, 0, 1},
            {[{partition_key, 3}, {channel, c}], c, 3, 1},
            {#{partition_key => undefined, channel => c}, c, -1, 1},
            {#{channel => c, channel_fallback => false}, c, -1, 0},
            {#{timeout => 5}, undefined, -1, 1},
            {[nosuspend], undefined, -1, 1},
            {#{whatever => 1, ack => false, causal_label => undefined}, undefined, -1, 1}
        ]
    ],
    ok = partisan:forward_message(?B, echo, hi, #{partition_key => 1 bsl 80 + 5}),
    ?assertMatch([{send, _, _, 5, _, _, _, _}], ?FAKE:sent()).

bad_options() ->
    [
        ?assertError(badarg, partisan:forward_message(?B, echo, hi, Opts))
     || Opts <- [
            #{partition_key => -1},
            #{channel => c, partition_key => x},
            #{channel => "c"},
            [{channel, <<"c">>}],
            #{timeout => -1},
            #{timeout => soon},
            #{nosuspend => 1},
            #{channel_fallback => 1},
            what
        ]
    ],
    ?assertEqual([], ?FAKE:sent()).

default_options() ->
    ok = partisan_config:set(forward_options, #{channel => c, partition_key => 2}),
    ok = partisan_config:set(channel_fallback, false),
    ok = partisan:forward_message(?B, echo, hi, []),
    ok = partisan:forward_message(?B, echo, hi, #{channel => d}),
    ok = partisan:forward_message(?B, echo, hi, [{partition_key, 4}]),
    ?assertMatch(
        [
            {send, _, c, 2, _, _, 0, _}, {send, _, d, 2, _, _, 0, _}, {send, _, c, 4, _, _, 0, _}
        ],
        ?FAKE:sent()
    ),
    ok = partisan_config:set(channel_fallback, true),
    ok = partisan_config:set(forward_options, #{}).

kept_options() ->
    Unknown = #{causal_label => red, ack => true},
    ?assertEqual({error, {unknown_label, red}}, partisan:forward_message(?B, echo, hi, Unknown)),
    ok = partisan_config:set(causal_labels, [red]),
    ok = partisan:forward_message(?B, echo, hi, Unknown),
    ok = partisan_config:set(causal_labels, []),
    ok = partisan:forward_message(?B, echo, hi, #{ack => true}),
    ?assertError(badarg, partisan:forward_message(?B, echo, hi, #{ack => 1})),
    %% None of them goes the usual way.
    ?assertEqual([], ?FAKE:sent()).

casts() ->
    ok = partisan:cast_message(?B, echo, hi, #{channel => c}),
    ok = partisan:cast_message({echo, ?B}, hi, #{channel => c}),
    ok = partisan:cast_message({echo, ?B}, hi),
    ok = partisan_pluggable_peer_service_manager:cast_message(?B, echo, hi),
    Cast = {'$gen_cast', hi},
    ?assertMatch(
        [
            {send, ?B, c, -1, echo, Cast, 1, none},
            {send, ?B, c, -1, echo, Cast, 1, none},
            {send, ?B, undefined, -1, echo, Cast, 1, none},
            {send, ?B, undefined, -1, echo, Cast, 1, none}
        ],
        ?FAKE:sent()
    ),
    ?FAKE:answer(send, {error, disconnected}),
    ok = partisan:cast_message(?B, echo, hi, []),
    ok = partisan:cast_message(not_registered_here, hi),
    ok = partisan:cast_message(self(), hi),
    ?assertEqual(Cast, received()).

sends() ->
    ?FAKE:answer(send, {error, not_yet_connected}),
    ?assertEqual(hi, partisan:send({echo, ?B}, hi)),
    ?assertEqual(hi, partisan:send({not_registered_here, ?OWN}, hi)),
    ?assertEqual(hi, partisan:send(self(), hi)),
    ?assertEqual(hi, received()),
    ?assertError(badarg, partisan:send(not_registered_here, hi)),
    ?assertEqual({error, not_yet_connected}, partisan:send({echo, ?B}, hi, [])).

errors() ->
    [
        begin
            ?FAKE:answer(send, {error, Reason}),
            ?assertEqual({error, Reason}, partisan:forward_message(?B, echo, hi, #{}))
        end
     || Reason <- [not_yet_connected, disconnected, notalive, {limit, term_bytes}]
    ].

full() ->
    ?FAKE:answer(send, busy),
    ?assertEqual({error, busy}, partisan:forward_message(?B, echo, hi, [nosuspend])),
    ?assertEqual({error, busy}, partisan:forward_message(?B, echo, hi, #{nosuspend => true})),
    ?assertEqual({error, timeout}, partisan:forward_message(?B, echo, hi, #{timeout => 0})),
    ?assertMatch([_, _, _], ?FAKE:sent()).

slow() ->
    ?FAKE:answer(send, slow),
    ok = partisan:forward_message(?B, echo, {big, self()}, #{}),
    ?assertMatch(
        [{send, _, _, _, _, M, _, none}, {send_iov, _, _, _, _, M, _, none}], ?FAKE:sent()
    ),
    ?FAKE:answer(send_iov, busy),
    ?assertEqual({error, busy}, partisan:forward_message(?B, echo, x, [nosuspend])).

%% Grants as the library does: a message under the reference.
granting(Message) ->
    fun
        (none) ->
            busy;
        ({granted, 5}) ->
            ok;
        (Ref) when is_reference(Ref) ->
            Message =:= none orelse (self() ! {Ref, Message}),
            {wait, 5}
    end.

waiting() ->
    self() ! something_else,
    ?FAKE:answer(send, granting(granted)),
    ok = partisan:forward_message(?B, echo, hi, #{}),
    ?assertMatch(
        [
            {send, _, _, _, _, hi, _, none},
            {send, _, _, _, _, hi, _, Ref},
            {send, _, _, _, _, hi, _, {granted, 5}}
        ] when is_reference(Ref),
        ?FAKE:sent()
    ),
    ?FAKE:answer(send, slow),
    ?FAKE:answer(send_iov, granting(granted)),
    ok = partisan:forward_message(?B, echo, hi, #{}),
    ?assertMatch([_, {send_iov, _, _, _, _, _, _, none}, _, _], ?FAKE:sent()),
    ?assertEqual(something_else, received()),
    ?assertEqual(nothing, received()).

given_up() ->
    ?FAKE:answer(send, granting(none)),
    {Time, Result} = timer:tc(fun() -> partisan:forward_message(?B, echo, hi, #{timeout => 30}) end),
    ?assertEqual({error, timeout}, Result),
    ?assert(Time >= 29000),
    ?assertMatch([_, _, {cancel, 5}], ?FAKE:sent()),
    ?assertEqual(nothing, received()).

%% The grant crosses the cancellation: nothing stays in the mailbox.
late_grant() ->
    Self = self(),
    ?FAKE:answer(send, fun
        (none) -> busy;
        (Ref) ->
            put(ref, Ref),
            {wait, 5}
    end),
    ?FAKE:answer(cancel, fun(5) ->
        Self ! {get(ref), granted},
        ok
    end),
    ?assertEqual({error, timeout}, partisan:forward_message(?B, echo, hi, #{timeout => 1})),
    ?assertEqual(nothing, received()).

lost() ->
    [
        begin
            ?FAKE:answer(send, granting(Reason)),
            ?assertEqual({error, Reason}, partisan:forward_message(?B, echo, hi, #{}))
        end
     || Reason <- [disconnected, notalive]
    ].
