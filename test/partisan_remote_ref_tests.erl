-module(partisan_remote_ref_tests).

-include_lib("eunit/include/eunit.hrl").

-define(OWN, 'own@127.0.0.1').
-define(OTHER, 'b@127.0.0.1').
-define(M, partisan_remote_ref).

remote_ref_test_() ->
    {setup,
        fun() ->
            ok = application:set_env(partisan, name, ?OWN),
            ok = partisan_config:init()
        end,
        fun(_) ->
            [
                application:unset_env(partisan, Key)
             || Key <- [name, remote_ref_format, remote_ref_uri_padding]
            ],
            ok = partisan_config:init()
        end,
        [
            {"the three formats", fun formats/0},
            {"padding", fun padding/0},
            {"all formats are read whatever is configured", fun round_trips/0},
            {"from_term/2", fun from_term/0},
            {"what is no remote reference", fun rubbish/0},
            {"other nodes' references", fun foreign/0},
            {"destinations", fun destinations/0},
            {"names with colons and hosts with colons", fun colons/0},
            {"comparisons", fun comparisons/0},
            {"targets", fun targets/0}
        ]}.

with_format(Format, Fun) -> with_format(Format, false, Fun).

with_format(Format, Padding, Fun) ->
    ok = partisan_config:set(remote_ref_format, Format),
    ok = partisan_config:set(remote_ref_uri_padding, Padding),
    Fun().

every_format(Fun) ->
    [
        with_format(Format, Padding, Fun)
     || {Format, Padding} <- [
            {improper_list, false}, {tuple, false}, {uri, false}, {uri, true}
        ]
    ].

formats() ->
    Pid = list_to_pid("<0.164.2>"),
    Ref = list_to_ref("#Ref<0.1.2.3>"),
    with_format(improper_list, fun() ->
        ?assertEqual([?OTHER | <<"#Pid<0.164.2>">>], ?M:from_term(Pid, ?OTHER)),
        ?assertEqual([?OWN | <<"#Pid<0.164.2>">>], ?M:from_term(Pid)),
        ?assertEqual([?OWN | <<"#Ref<0.1.2.3>">>], ?M:from_term(Ref)),
        ?assertEqual([?OTHER | <<"#Nameecho">>], ?M:from_term({echo, ?OTHER}))
    end),
    with_format(uri, fun() ->
        ?assertEqual(<<"partisan:pid:b@127.0.0.1:0.164.2">>, ?M:from_term(Pid, ?OTHER)),
        ?assertEqual(<<"partisan:ref:own@127.0.0.1:0.1.2.3">>, ?M:from_term(Ref)),
        ?assertEqual(<<"partisan:name:own@127.0.0.1:echo">>, ?M:from_term(echo))
    end),
    with_format(tuple, fun() ->
        ?assertEqual(
            {partisan_remote_ref, ?OTHER, {encoded_pid, "<0.164.2>"}}, ?M:from_term(Pid, ?OTHER)
        ),
        ?assertEqual(
            {partisan_remote_ref, ?OWN, {encoded_ref, "#Ref<0.1.2.3>"}}, ?M:from_term(Ref)
        ),
        ?assertEqual({partisan_remote_ref, ?OWN, {encoded_name, "echo"}}, ?M:from_term(echo))
    end).

padding() ->
    with_format(uri, true, fun() ->
        Short = ?M:from_term(echo),
        ?assertEqual(65, byte_size(Short)),
        ?assertMatch(
            <<"partisan:name:own@127.0.0.1:echo:", 16#19, _/binary>>, Short
        ),
        Long = binary_to_atom(binary:copy(<<"x">>, 100)),
        ?assertEqual(
            iolist_to_binary(["partisan:name:own@127.0.0.1:", atom_to_list(Long)]),
            ?M:from_term(Long)
        ),
        [
            begin
                Name = binary_to_atom(binary:copy(<<"y">>, N)),
                ?assertEqual(Name, ?M:to_name(?M:from_term(Name)))
            end
         || N <- lists:seq(30, 45)
        ]
    end).

round_trips() ->
    Made = lists:append(
        every_format(fun() ->
            Ref = make_ref(),
            [{T, ?M:from_term(T)} || T <- [self(), Ref, ?MODULE]]
        end)
    ),
    every_format(fun() ->
        [
            begin
                ?assertEqual(Term, ?M:to_term(Remote)),
                ?assertEqual(?OWN, ?M:node(Remote)),
                ?assertEqual(<<"own@127.0.0.1">>, ?M:nodestring(Remote)),
                ?assert(?M:is_type(Remote)),
                ?assert(?M:is_local(Remote)),
                ?assert(?M:is_local(Remote, ?OWN)),
                ?assertNot(?M:is_local(Remote, ?OTHER)),
                ?assertEqual(is_pid(Term), ?M:is_pid(Remote)),
                ?assertEqual(is_reference(Term), ?M:is_reference(Remote)),
                ?assertEqual(is_atom(Term), ?M:is_name(Remote)),
                ?assertEqual(is_pid(Term), ?M:is_local_pid(Remote)),
                ?assertEqual(is_reference(Term), ?M:is_local_reference(Remote)),
                ?assertEqual(is_atom(Term), ?M:is_local_name(Remote)),
                typed(Term, Remote)
            end
         || {Term, Remote} <- Made
        ]
    end).

typed(Term, Remote) when is_pid(Term) ->
    ?assertEqual(Term, ?M:to_pid(Remote)),
    ?assertEqual(Term, ?M:to_pid_or_name(Remote)),
    ?assert(?M:is_local_pid(Remote, Term)),
    ?assertNot(?M:is_local_pid(Remote, whereis(init))),
    ?assertError(badarg, ?M:to_name(Remote)),
    ?assertError(badarg, ?M:to_reference(Remote));
typed(Term, Remote) when is_reference(Term) ->
    ?assertEqual(Term, ?M:to_reference(Remote)),
    ?assert(?M:is_local_reference(Remote, Term)),
    ?assertNot(?M:is_local_reference(Remote, make_ref())),
    ?assertError(badarg, ?M:to_pid_or_name(Remote));
typed(Term, Remote) ->
    ?assertEqual(Term, ?M:to_name(Remote)),
    ?assertEqual(Term, ?M:to_pid_or_name(Remote)),
    ?assert(?M:is_local_name(Remote, Term)),
    ?assert(?M:is_name(Remote, Term)),
    ?assertNot(?M:is_local_name(Remote, something_else)),
    ?assertError(badarg, ?M:to_pid(Remote)).

from_term() ->
    ?assertError(function_clause, ?M:from_term("x")),
    ?assertError(function_clause, ?M:from_term({a, "b"})),
    ?assertError(badarg, ?M:from_term(make_ref(), ?OTHER)),
    ?assertError(badarg, ?M:from_term(self(), "b")),
    ?assert(?M:is_local(?M:from_term(make_ref(), ?OWN))).

rubbish() ->
    Rubbish = [
        [1, 2],
        [],
        [a | b],
        [a | <<>>],
        [a | <<"#Pid<0.1>">>],
        [a | <<"#Pid<0.1.2">>],
        [a | <<"#Pid<0.1.x>">>],
        [a | <<"#Pid<0.1.2>x">>],
        [a | <<"#Pid<">>],
        [a | <<"#Ref<>">>],
        [a | <<"#Name">>],
        ["a" | <<"#Pid<0.1.2>">>],
        [a | <<"#Ref<0.1.2.3.4.5.6.7>">>],
        [a | <<"#Pid<0.", (binary:copy(<<"1">>, 100000))/binary, ".0>">>],
        <<"partisan:pid:b:0.1.2">>,
        <<"partisan:pid:">>,
        <<"partisan:pid::">>,
        <<"partisan:name:x@:y">>,
        <<"partisan:name:@h:y">>,
        <<"partisan:name:x@h:">>,
        <<"partisan:pid:", (binary:copy(<<16#19>>, 65))/binary>>,
        <<"partisan:other:b@c:0.1.2">>,
        {partisan_remote_ref, a, {encoded_pid, <<"<0.1.2>">>}},
        {partisan_remote_ref, a, {encoded_pid, "<0.1.2"}},
        {partisan_remote_ref, a, {encoded_pid, [$< | x]}},
        {partisan_remote_ref, a, {encoded_name, [-1]}},
        {partisan_remote_ref, a, {encoded_name, x}},
        {partisan_remote_ref, "a", {encoded_name, "x"}},
        {encoded_pid, x},
        self(),
        make_ref(),
        x,
        1.0,
        #{}
    ],
    [
        begin
            [?assertNot(?M:F(R)) || F <- [is_type, is_pid, is_reference, is_name]],
            [
                ?assertNot(?M:F(R))
             || F <- [is_local_pid, is_local_reference, is_local_name]
            ],
            ?assertNot(?M:is_name(R, x)),
            ?assertEqual(error, ?M:destination(R)),
            [
                ?assertError(badarg, ?M:F(R))
             || F <- [to_term, to_pid, to_name, to_reference, target, node, nodestring]
            ],
            ?assertError({badarg, R}, ?M:is_local(R)),
            ?assertError(badarg, ?M:is_local(R, ?OWN)),
            ?assertError(badarg, ?M:is_identical(R, R)),
            ?assertNot(partisan:is_pid(R) andalso not is_pid(R)),
            ?assertNot(partisan:is_reference(R) andalso not is_reference(R))
        end
     || R <- Rubbish
    ].

foreign() ->
    every_format(fun() ->
        Remote = ?M:from_term(self(), ?OTHER),
        ?assertError(badarg, ?M:to_term(Remote)),
        ?assertNot(?M:is_local(Remote)),
        ?assertNot(?M:is_local_pid(Remote)),
        ?assertNot(?M:is_local_pid(Remote, self())),
        ?assert(?M:is_pid(Remote)),
        ?assertEqual(?OTHER, ?M:node(Remote)),
        ?assertError(badarg, partisan:whereis(?M:from_term(x, ?OTHER))),
        %% A name that no atom exists for.
        Unknown =
            case Remote of
                [_ | _] -> [?OWN | <<"#Nameno-such-atom-anywhere">>];
                _ -> <<"partisan:name:own@127.0.0.1:no-such-atom-anywhere">>
            end,
        ?assertError(badarg, ?M:to_name(Unknown)),
        ?assertNot(?M:is_local_pid(Unknown, self()))
    end).

destinations() ->
    every_format(fun() ->
        Pid = list_to_pid("<0.164.2>"),
        ?assertEqual({?OTHER, {164, 2, 0}}, ?M:destination(?M:from_term(Pid, ?OTHER))),
        ?assertEqual({?OTHER, echo}, ?M:destination(?M:from_term(echo, ?OTHER))),
        ?assertEqual(error, ?M:destination(?M:from_term(make_ref())))
    end),
    ?assertEqual({164, 2, 0}, ?M:target_destination({encoded_pid, "<0.164.2>"})),
    ?assertEqual(echo, ?M:target_destination({encoded_name, "echo"})),
    ?assertEqual(error, ?M:target_destination({encoded_ref, "#Ref<0.1.2.3>"})),
    ?assertEqual(error, ?M:target_destination({encoded_pid, "x"})).

colons() ->
    V6 = 'n@::1',
    every_format(fun() ->
        Remote = ?M:from_term(self(), V6),
        ?assertEqual(V6, ?M:node(Remote)),
        Name = ?M:from_term('a:b.c', ?OTHER),
        ?assertEqual(?OTHER, ?M:node(Name)),
        ?assertEqual({?OTHER, 'a:b.c'}, ?M:destination(Name))
    end).

comparisons() ->
    true = register(?MODULE, self()),
    Formats = every_format(fun() -> {?M:from_term(self()), ?M:from_term(?MODULE)} end),
    [
        begin
            ?assert(?M:is_identical(PidA, PidB)),
            ?assert(?M:is_identical(NameA, NameB)),
            ?assert(?M:is_identical(PidA, NameB)),
            ?assert(?M:is_identical(NameA, PidB)),
            ?assert(?M:is_local_pid(NameA, self())),
            ?assert(partisan:is_self(PidA)),
            ?assert(partisan:is_local_pid(PidA, self()))
        end
     || {PidA, NameA} <- Formats, {PidB, NameB} <- Formats
    ],
    true = unregister(?MODULE),
    {Pid, Name} = hd(Formats),
    ?assertNot(?M:is_identical(Pid, Name)),
    ?assertNot(?M:is_identical(Pid, ?M:from_term(self(), ?OTHER))),
    ?assertNot(?M:is_identical(Pid, ?M:from_term(whereis(init)))),
    ?assertError(badarg, ?M:is_identical(Pid, self())).

targets() ->
    every_format(fun() ->
        Pid = list_to_pid("<0.164.2>"),
        ?assertEqual({encoded_pid, "<0.164.2>"}, ?M:target(?M:from_term(Pid, ?OTHER))),
        ?assertEqual({encoded_name, "echo"}, ?M:target(?M:from_term(echo, ?OTHER))),
        ?assertEqual(
            {encoded_ref, "#Ref<0.1.2.3>"}, ?M:target(?M:from_term(list_to_ref("#Ref<0.1.2.3>")))
        ),
        ?assert(?M:is_pid(?M:target(?M:from_term(Pid, ?OTHER))))
    end).
