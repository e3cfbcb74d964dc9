%% @doc Terms of every kind between real nodes: they come home as they went, or as the model in
%% {@link partisan_terms} says, on every path through the native library.
%%
%% The seed of a run is printed; `PARTISAN_SEED' repeats it.
-module(terms_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([
    echo_through_three_identities/1,
    large_binaries_and_edges/1,
    remote_references/1,
    name_changes_under_load/1,
    limits_are_told_to_the_sender/1,
    equal_keys_are_dropped/1,
    membership_is_nobody_elses/1
]).
%% On the nodes.
-export([hop/0, give/1, given/1, run/2, wander/2, limit/3, log/2, logged/0, changing_identity/1]).

-define(WINDOW, 32).

suite() -> [{timetrap, {seconds, 180}}].

all() ->
    [
        echo_through_three_identities,
        large_binaries_and_edges,
        remote_references,
        name_changes_under_load,
        limits_are_told_to_the_sender,
        equal_keys_are_dropped,
        membership_is_nobody_elses
    ].

init_per_suite(Config) ->
    Seed =
        case os:getenv("PARTISAN_SEED") of
            false -> rand:uniform(1 bsl 40);
            Text -> list_to_integer(Text)
        end,
    ct:pal("PARTISAN_SEED=~b", [Seed]),
    [{seed, Seed} | Config].

end_per_suite(_) ->
    ok.

%%%-------------------------------------------------------------------------------------------
%%% Cases
%%%-------------------------------------------------------------------------------------------

%% A node that isn't distributed, one under its Partisan name, one under another name.
echo_through_three_identities(Config) ->
    with_ring(fun(Ring) ->
        Counts = around(Ring, #{seed => seed(Config), terms => {random, 4000}, model => identical}),
        ct:pal("paths: ~p", [Counts]),
        ?assertMatch(#{small := S, large := L, iovec := I} when S > 3000 andalso L > 300 andalso I > 1500, Counts)
    end).

large_binaries_and_edges(Config) ->
    with_ring(fun(Ring) ->
        _ = around(Ring, #{seed => seed(Config), terms => special, model => identical}),
        Counts = around(Ring, #{seed => seed(Config), terms => large, model => identical}),
        ?assertMatch(#{large := 9, iovec := 3}, Counts)
    end).

remote_references(Config) ->
    Formats = [improper_list, uri, tuple, {uri, padded}],
    [
        with(
            [
                {'a@127.0.0.1', #{env => format(Format)}},
                {'b@127.0.0.1', #{env => format(Format), args => alive("other@127.0.0.1")}}
            ],
            fun(Ring) ->
                Plan = #{seed => seed(Config), model => Format},
                _ = around(Ring, Plan#{terms => special}),
                Counts = around(Ring, Plan#{terms => {random, 1200}}),
                ct:pal("~p: paths: ~p", [Format, Counts]),
                ?assertMatch(#{small := S, large := L, iovec := I} when S > 800 andalso L > 60 andalso I > 400, Counts)
            end
        )
     || Format <- Formats
    ].

%% Both nodes become alive, change their names and become anonymous again while messages with their
%% own pids are under way.
name_changes_under_load(_) ->
    Options = #{env => plain(), args => ["-start_epmd", "false", "-dist_listen", "false"]},
    with([{'a@127.0.0.1', Options}, {'b@127.0.0.1', Options}], fun([A, B] = Ring) ->
        Hops = [[partisan_ct:name(B), partisan_ct:name(A)], [partisan_ct:name(A), partisan_ct:name(B)]],
        Me = self(),
        Walks = [
            spawn_monitor(fun() ->
                Me ! {walked, partisan_ct:call(Vm, ?MODULE, wander, [Kind, Hop])}
            end)
         || {Vm, Hop} <- lists:zip(Ring, Hops), Kind <- [small, large, function]
        ],
        Changes = [
            {A, start, 'x@127.0.0.1'},
            {B, start, 'b@127.0.0.1'},
            {A, stop, none},
            {A, start, 'a@127.0.0.1'},
            {B, stop, none},
            {B, start, 'y@127.0.0.1'},
            {A, stop, none},
            {B, stop, none}
        ],
        _ = [
            begin
                ok = partisan_ct:call(Vm, ?MODULE, changing_identity, [{Change, Name}]),
                _ = [ok = moved(V) || V <- Ring]
            end
         || _ <- lists:seq(1, 3), {Vm, Change, Name} <- Changes
        ],
        _ = [partisan_ct:run(Vm, fun() -> persistent_term:put(enough, true) end) || Vm <- Ring],
        Counts = [
            receive
                {walked, {ok, N}} -> N;
                {walked, Other} -> ct:fail(Other);
                {'DOWN', _, process, _, Reason} when Reason =/= normal -> ct:fail(Reason)
            after 60000 -> ct:fail(walks_go_on)
            end
         || _ <- Walks
        ],
        ct:pal("walks: ~p", [Counts]),
        _ = [?assert(N > 24) || N <- Counts]
    end).

%% A few messages have come home since.
moved(Vm) ->
    Home = fun() -> persistent_term:get(home) end,
    Read = fun() -> counters:get(Home(), 1) end,
    Before = partisan_ct:run(Vm, Read),
    partisan_ct:wait(fun() -> partisan_ct:run(Vm, Read) > Before + 6 end).

limits_are_told_to_the_sender(_) ->
    Small = [{max_term_bytes, 1 bsl 20}, {max_term_heap, 4 bsl 20}, {max_message_bytes, 3 bsl 20}],
    Tight = [{max_term_bytes, 64 bsl 10}, {max_term_heap, 64 bsl 10}, {max_message_bytes, 64 bsl 10}],
    Both = fun(Env) -> [{'a@127.0.0.1', #{env => Env}}, {'b@127.0.0.1', #{env => Env}}] end,
    with(Both(Small ++ plain()), fun([A, B]) ->
        Try = fun(Name, Arg) -> limited(A, B, Name, Arg) end,
        ?assertEqual(ok, Try(deep, 1000)),
        ?assertEqual({error, {limit, depth}}, Try(deep, 1025)),
        ?assertEqual({error, {limit, depth}}, Try(deep, 100000)),
        ?assertEqual(ok, Try(tuple_of_atoms, 100000)),
        ?assertEqual({error, {limit, max_term_bytes}}, Try(bytes, 1 bsl 20)),
        ?assertEqual({error, {limit, max_term_heap}}, Try(long_list, 400000)),
        ?assertEqual(ok, Try(binary, 3000000)),
        ?assertEqual({error, {limit, max_message_bytes}}, Try(binary, 3 bsl 20)),
        ?assertEqual({error, {limit, max_message_bytes}}, Try(binary_in_fun, 3 bsl 20))
    end),
    %% So small that terms of the short path exceed them.
    with(Both(Tight ++ plain()), fun([A, B]) ->
        Try = fun(Name, Arg) -> limited(A, B, Name, Arg) end,
        ?assertEqual({error, {limit, max_term_bytes}}, Try(binaries, 5)),
        ?assertEqual({error, {limit, max_term_bytes}}, Try(bignum, 600000)),
        ?assertEqual({error, {limit, max_message_bytes}}, Try(binary, 64 bsl 10)),
        ?assertEqual({error, {limit, max_message_bytes}}, Try(binary_and_text, 51000)),
        ?assertEqual({error, {limit, max_term_heap}}, Try(strings, 5))
    end),
    %% Within the limits, but no longer as remote references.
    Text = [{remote_ref_format, tuple}, {max_term_heap, 1 bsl 20}, {max_term_bytes, 1 bsl 20}],
    with(Both(Text), fun([A, B]) ->
        Try = fun(Name, Arg) -> limited(A, B, Name, Arg) end,
        ?assertEqual(ok, Try(pids, 1000)),
        ?assertEqual({error, {limit, max_term_heap}}, Try(pids, 8000)),
        ?assertEqual({error, {limit, max_term_bytes}}, Try(pids, 18000)),
        ?assertEqual({error, {limit, depth}}, Try(deep, 1023))
    end).

%% What is sent, the result, and that the session has outlived it.
limited(A, B, Name, Arg) ->
    Before = partisan_ct:call(A, partisan_peer_service, connections, []),
    Result = partisan_ct:call(A, ?MODULE, limit, [partisan_ct:name(B), Name, Arg]),
    {ok, _} = partisan_ct:call(A, ?MODULE, run, [
        #{seed => 1, terms => [still, there], model => identical}, [partisan_ct:name(B), partisan_ct:name(A)]
    ]),
    ?assertEqual(Before, partisan_ct:call(A, partisan_peer_service, connections, [])),
    Result.

%% A pid and its remote reference are different keys here and the same one there.
equal_keys_are_dropped(_) ->
    with([{'a@127.0.0.1', #{}}, {'b@127.0.0.1', #{}}], fun([A, B]) ->
        ok = partisan_ct:call(B, logger, add_handler, [?MODULE, ?MODULE, #{}]),
        Binary = binary:copy(<<"x">>, 20000),
        _ = [
            ?assertEqual(ok, limited(A, B, equal_keys, More))
         || More <- [[], [Binary], lists:seq(1, 600)]
        ],
        partisan_ct:wait(fun() ->
            Lines = partisan_ct:call(B, ?MODULE, logged, []),
            lists:any(fun(Line) -> string:find(Line, "could not be decoded") =/= nomatch end, Lines)
        end)
    end).

%% The name under which nodes tell each other their members takes no other messages.
membership_is_nobody_elses(_) ->
    with([{'a@127.0.0.1', #{}}, {'b@127.0.0.1', #{}}], fun([A, B]) ->
        _ = [?assertEqual({error, badarg}, limited(A, B, membership, Arg)) || Arg <- [<<"x">>, x]]
    end).

%%%-------------------------------------------------------------------------------------------
%%% Rings of nodes
%%%-------------------------------------------------------------------------------------------

with_ring(Fun) ->
    with(
        [
            {'a@127.0.0.1', #{env => plain()}},
            {'b@127.0.0.1', #{env => plain(), args => alive("b@127.0.0.1")}},
            {'c@127.0.0.1', #{env => plain(), args => alive("other@127.0.0.1")}}
        ],
        Fun
    ).

%% Starts the nodes, joins them, and has them give each other pids, references and ports.
with(Specs, Fun) ->
    Ring = [partisan_ct:start(Name, Options) || {Name, Options} <- Specs],
    try
        _ = [ok = partisan_ct:call(Vm, ?MODULE, hop, []) || Vm <- Ring],
        [First | Others] = Ring,
        _ = [ok = partisan_ct:join(Vm, First) || Vm <- Others],
        Names = [partisan_ct:name(Vm) || Vm <- Ring],
        partisan_ct:wait(fun() ->
            lists:all(
                fun(Vm) ->
                    length(partisan_ct:call(Vm, partisan, nodes, [])) =:= length(Ring) - 1
                end,
                Ring
            )
        end),
        _ = [ok = partisan_ct:call(Vm, ?MODULE, give, [Names]) || Vm <- Ring],
        _ = [ok = partisan_ct:call(Vm, ?MODULE, given, [length(Names)]) || Vm <- Ring],
        Fun(Ring)
    after
        _ = [partisan_ct:stop(Vm) || Vm <- Ring]
    end.

%% Every node sends its terms once round the ring; the sum of what they count.
around(Ring, Plan) ->
    Names = [partisan_ct:name(Vm) || Vm <- Ring],
    Me = self(),
    Runs = [
        begin
            {Before, [Name | After]} = lists:splitwith(fun(N) -> N =/= Name end, Names),
            Tag = make_ref(),
            _ = spawn_link(fun() ->
                Me ! {Tag, partisan_ct:call(Vm, ?MODULE, run, [Plan, After ++ Before ++ [Name]])}
            end),
            Tag
        end
     || {Vm, Name} <- lists:zip(Ring, Names)
    ],
    lists:foldl(
        fun(Tag, Sum) ->
            receive
                {Tag, {ok, Counts}} -> maps:merge_with(fun(_, X, Y) -> X + Y end, Sum, Counts);
                {Tag, {different, Text}} -> ct:fail("~ts", [Text])
            end
        end,
        #{small => 0, large => 0, iovec => 0},
        Runs
    ).

seed(Config) -> proplists:get_value(seed, Config).

alive(Name) ->
    ["-name", Name, "-setcookie", "none", "-start_epmd", "false", "-dist_listen", "false"].

plain() -> [{pid_encoding, false}, {ref_encoding, false}].

format({uri, padded}) -> [{remote_ref_format, uri}, {remote_ref_uri_padding, true}];
format(Format) -> [{remote_ref_format, Format}].

%%%-------------------------------------------------------------------------------------------
%%% On the nodes
%%%-------------------------------------------------------------------------------------------

%% @doc Starts the process that passes messages on, and returns when it is registered.
hop() ->
    Me = self(),
    _ = spawn(fun() ->
        true = register(hop, self()),
        persistent_term:put(home, counters:new(1, [])),
        persistent_term:put(enough, false),
        persistent_term:put(own, [self(), make_ref(), alias(), hd(erlang:ports()), Me]),
        Me ! ready,
        hop([])
    end),
    receive
        ready -> ok
    end.

hop(Gifts) ->
    receive
        {gift, Gift} ->
            hop(Gift() ++ Gifts);
        {gifts, From} ->
            From ! {gifts, Gifts},
            hop(Gifts);
        {pass, Hops, Origin, N, Term} ->
            Strange = strangers(Term),
            case Hops of
                [Next | Rest] ->
                    ok = partisan:forward_message({hop, Next}, {pass, Rest, Origin, N, Term});
                [] ->
                    ok = partisan:forward_message(Origin, {back, N, Term})
            end,
            %% A pid that has become this node's own by mistake.
            Strange =:= [] orelse
                partisan:forward_message(Origin, {strange, N, io_lib:format("~p", [Strange])}),
            hop(Gifts)
    end.

%% Identifiers that are taken for this node's although it never gave them away.
strangers(Term) ->
    Own = persistent_term:get(own),
    [
        I
     || I <- partisan_terms:identities(Term),
        node(I) =:= node() orelse partisan:is_local(I),
        not lists:member(I, Own),
        not is_here(I)
    ].

%% Made here by the generator.
is_here(I) -> ets:info(made) =/= undefined andalso ets:member(made, I).

%% @doc Sends this node's identifiers to all. In a fun they keep their types.
give(Names) ->
    Own = persistent_term:get(own),
    Gift = fun() -> Own end,
    _ = [ok = partisan:forward_message({hop, Name}, {gift, Gift}) || Name <- Names],
    ok.

%% @doc Waits for the identifiers of so many nodes.
given(Nodes) ->
    Wanted = length(persistent_term:get(own)) * Nodes,
    partisan_ct:wait(fun() -> length(received()) =:= Wanted end).

received() ->
    hop ! {gifts, self()},
    receive
        {gifts, Gifts} -> Gifts
    end.

%% @doc Sends terms round the ring, some at a time, and compares what comes back.
run(#{seed := Seed, terms := Terms, model := Model}, Hops) ->
    _ = partisan_terms:seed(Seed + erlang:phash2(Hops)),
    Ingredients = received() ++ partisan_terms:foreign(),
    _ = ets:info(made) =:= undefined andalso make_table(),
    Next =
        case Terms of
            {random, N} -> {N, fun() -> partisan_terms:term(Ingredients) end};
            List when is_list(List) -> List;
            special -> partisan_terms:special();
            large -> partisan_terms:large()
        end,
    loop(Next, Hops, Model, 1, #{}, #{small => 0, large => 0, iovec => 0}).

%% Outlives the process that makes it.
make_table() ->
    Me = self(),
    _ = spawn(fun() ->
        _ = catch ets:new(made, [named_table, public]),
        Me ! made,
        receive after infinity -> ok end
    end),
    receive
        made -> ok
    end.

loop(Left, Hops, Model, N, Open, Counts) when map_size(Open) < ?WINDOW ->
    case next(Left) of
        {Term, Rest} ->
            _ = [ets:insert(made, {I}) || I <- partisan_terms:identities(Term), node(I) =:= node()],
            [First | More] = Hops,
            Path = send(First, {pass, More -- [partisan:node()], self(), N, Term}, Term),
            Counted = maps:update_with(Path, fun(C) -> C + 1 end, Counts),
            loop(Rest, Hops, Model, N + 1, Open#{N => Term}, Counted);
        done when Open =:= #{} ->
            {ok, Counts};
        done ->
            back(Left, Hops, Model, N, Open, Counts)
    end;
loop(Left, Hops, Model, N, Open, Counts) ->
    back(Left, Hops, Model, N, Open, Counts).

next([Term | Rest]) -> {Term, Rest};
next([]) -> done;
next({0, _}) -> done;
next({N, Make}) -> {Make(), {N - 1, Make}}.

back(Left, Hops, Model, N, Open, Counts) ->
    receive
        {back, Number, Back} ->
            {Term, Rest} = maps:take(Number, Open),
            case same(Term, Back, Model) of
                true ->
                    loop(Left, Hops, Model, N, Rest, Counts);
                Expected ->
                    Args = [Number, Hops, Expected, Back],
                    {different, io_lib:format("term ~b by ~p:~n~0tP~nbecame~n~0tP~n", tail(Args))}
            end;
        {strange, Number, Text} ->
            {different, io_lib:format("~b by ~p: foreign, but taken for local: ~ts", [Number, Hops, Text])}
    after 60000 ->
        {different, io_lib:format("by ~p: lost ~0tP", [Hops, Open, 200])}
    end.

tail([Number, Hops, Expected, Back]) -> [Number, Hops, Expected, 400, Back, 400].

%% The bytes tell -0.0 from 0.0, and whose fun it is.
same(Term, Back, Model) ->
    Expected =
        case Model of
            identical -> Term;
            Format -> partisan_terms:encoded(Term, partisan:node(), Format)
        end,
    case Expected =:= Back andalso term_to_binary(Expected) =:= term_to_binary(Back) of
        true -> true;
        false -> Expected
    end.

%% Tries the library's first path by hand, to know which one a term takes.
send(Node, Message, Term) ->
    case partisan_nif:send(Node, undefined, -1, hop, Message, 1, none) of
        ok ->
            partisan_terms:kind(Term);
        busy ->
            ok = partisan:forward_message({hop, Node}, Message),
            partisan_terms:kind(Term);
        slow ->
            ok = partisan:forward_message({hop, Node}, Message),
            iovec
    end.

%% @doc Sends its own pid round until told to stop, by one of the paths.
wander(Kind, Hops) ->
    wander(Kind, Hops, 1).

wander(Kind, [First | More] = Hops, N) ->
    case persistent_term:get(enough) of
        true ->
            {ok, N - 1};
        false ->
            Ref = make_ref(),
            Term = luggage(Kind, Ref),
            ok = partisan:forward_message({hop, First}, {pass, More -- [partisan:node()], self(), N, Term}),
            receive
                {back, N, Term} ->
                    counters:add(persistent_term:get(home), 1, 1),
                    wander(Kind, Hops, N + 1);
                {back, N, Other} ->
                    {different, io_lib:format("~p became ~P", [Term, Other, 100])};
                {strange, _, _} ->
                    wander(Kind, Hops, N + 1)
            after 60000 -> {lost, Kind, N, node()}
            end
    end.

luggage(small, Ref) -> {self(), Ref};
luggage(large, Ref) -> [self(), binary:copy(<<"large">>, 5000) | Ref];
luggage(function, Ref) ->
    Self = self(),
    fun() -> {Self, Ref} end.

%% @doc Makes the VM alive or anonymous.
changing_identity({start, Name}) ->
    {ok, _} = net_kernel:start(Name, #{name_domain => longnames, dist_listen => false}),
    ok;
changing_identity({stop, none}) ->
    net_kernel:stop().

%% @doc Sends what may be over a limit.
limit(Node, Name, Arg) ->
    Dest =
        case Name of
            membership -> partisan_membership;
            equal_keys -> hop;
            _ -> nobody_here
        end,
    partisan:forward_message({Dest, Node}, made(Name, Arg)).

made(deep, Depth) -> partisan_terms:deep(Depth);
made(tuple_of_atoms, N) -> erlang:make_tuple(N, a);
made(bytes, N) -> {erlang:make_tuple(2, a), [binary:copy(<<"x">>, 1000) || _ <- lists:seq(1, N div 1000)]};
made(long_list, N) -> lists:duplicate(N, 1);
made(binary, N) -> binary:copy(<<"x">>, N);
made(binary_in_fun, N) ->
    Binary = binary:copy(<<"x">>, N),
    fun() -> Binary end;
made(binaries, N) -> [binary:copy(<<"x">>, 15000) || _ <- lists:seq(1, N)];
made(bignum, Bits) -> 1 bsl Bits;
made(binary_and_text, N) -> [binary:copy(<<"x">>, N) | made(binaries, 1)];
made(strings, N) -> list_to_tuple([lists:duplicate(2000, $x) || _ <- lists:seq(1, N)]);
made(pids, N) -> lists:duplicate(N, self());
made(equal_keys, More) -> {#{self() => 1, partisan_remote_ref:from_term(self()) => 2}, More};
made(membership, Term) -> Term.

%% @doc A handler of logger's.
log(#{msg := Message}, _) ->
    Text =
        case Message of
            {string, String} -> String;
            {report, Report} -> io_lib:format("~tp", [Report]);
            {Format, Args} -> io_lib:format(Format, Args)
        end,
    Lines = persistent_term:get(lines, []),
    persistent_term:put(lines, [unicode:characters_to_binary(Text) | Lines]).

%% @doc What has been logged.
logged() ->
    persistent_term:get(lines, []).
