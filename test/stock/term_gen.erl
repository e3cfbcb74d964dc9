%% @doc Terms and encodings of every kind, made at random from a printed seed; the echo of terms by
%% another node. `term_difference' has another decoder read them.
%%
%% A generator draws from `rand' in the process dictionary: one seed gives one sequence. Atoms come
%% from a pool, as a VM never forgets one. OTP 25 compiles this; so do 27 and 29.
-module(term_gen).

-export([prepare/1, term/0, encoding/0, mutate/1]).
-export([echo/2, echo/3]).
-export([canonical/1, has_records/0, release/0]).
-export([counts/0, count/2, histogram/1, missing/1]).

-define(POOL, {?MODULE, pool}).
-define(WINDOW, 256).

%%%-------------------------------------------------------------------------------------------
%%% Terms
%%%-------------------------------------------------------------------------------------------

%% @doc Seeds the generator of the calling process and fills its pool.
-spec prepare(integer()) -> ok.
prepare(Seed) ->
    _ = rand:seed(exsss, Seed),
    put(?POOL, {list_to_tuple(atoms()), list_to_tuple(identities())}),
    ok.

atoms() ->
    Wide = [$a, $z, $ , $é, $ÿ, $Ω, $こ, 16#1D11E, 16#10FFFF],
    Random = fun(Length) -> list_to_atom([pick(Wide) || _ <- lists:seq(1, Length)]) end,
    Latin1 = fun(Length) -> list_to_atom([$à + roll(20) || _ <- lists:seq(1, Length)]) end,
    ['', a, ok, true, false, undefined, nil, 'ÿ', 'grün', 'こんにちは', '𝄞', node()] ++
        [list_to_atom(lists:duplicate(255, C)) || C <- [$x, $ß, $Ω, 16#1D11E]] ++
        [list_to_atom(lists:duplicate(N, C)) || N <- [63, 64, 85, 127, 128, 254], C <- [$x, $ß, $Ω]] ++
        [Random(roll(40)) || _ <- lists:seq(1, 300)] ++
        [Latin1(roll(200)) || _ <- lists:seq(1, 60)] ++
        %% More than an atom cache has places for.
        [list_to_atom("cached_" ++ integer_to_list(N)) || N <- lists:seq(1, 2500)].

%% Pids, ports and references of this node, of others, of this node's former life.
identities() ->
    Dead = spawn(fun() -> ok end),
    Own = [self(), Dead, make_ref(), alias()] ++ erlang:ports(),
    Own ++
        lists:append([
            [foreign(Node, Creation) || _ <- lists:seq(1, 40)]
         || {Node, Creation} <- [
                {<<"made@up">>, 12345},
                {<<"a@127.0.0.1">>, 7},
                {<<"gemacht@grün"/utf8>>, 1},
                {<<"n@", (binary:copy(<<"x">>, 240))/binary>>, 16#ffffffff},
                {atom_to_binary(node()), 3}
            ]
        ]).

foreign(Name, Creation) ->
    Node = <<119, (byte_size(Name)), Name/binary>>,
    Words = <<<<(word()):32>> || _ <- lists:seq(1, 4)>>,
    binary_to_term(
        case roll(6) of
            1 -> <<131, 88, Node/binary, (roll(1 bsl 15)):32, (roll(1 bsl 13)):32, Creation:32>>;
            2 -> <<131, 88, Node/binary, (word()):32, (word()):32, Creation:32>>;
            3 -> <<131, 89, Node/binary, (roll(1 bsl 28) - 1):32, Creation:32>>;
            4 -> <<131, 120, Node/binary, (roll(1 bsl 62)):64, Creation:32>>;
            5 -> <<131, 90, 3:16, Node/binary, Creation:32, (roll(1 bsl 18) - 1):32, (word()):32, (word()):32>>;
            6 -> <<131, 90, 5:16, Node/binary, Creation:32, (roll(1 bsl 18) - 1):32, Words/binary>>
        end
    ).

%% @doc A term: most are small, some large, wide or deep.
-spec term() -> term().
term() ->
    case roll(400) of
        1 -> deep(roll(1000), leaf());
        2 -> deep(1000, leaf());
        3 -> maps:from_list([{leaf(), N} || N <- lists:seq(1, 33 + roll(80))]);
        4 -> maps:from_list([{{N, leaf()}, leaf()} || N <- lists:seq(1, 129 + roll(300))]);
        5 -> list_to_tuple([leaf() || _ <- lists:seq(1, 254 + roll(3))]);
        6 -> list_to_tuple(lists:seq(1, 256 + roll(2000)));
        7 -> [leaf() || _ <- lists:seq(1, 300 + roll(700))];
        8 -> rand:bytes(60000 + roll(80000));
        9 -> [roll(256) - 1 || _ <- lists:seq(1, 65533 + roll(4))];
        10 -> sign() * ((1 bsl (8 * (200 + roll(3000)))) - roll(2));
        11 -> [rand:bytes(64 + roll(4)), {rand:bytes(roll(5000))} | rand:bytes(100)];
        N when N < 40 -> term(40 + roll(60));
        N when N < 120 -> leaf();
        _ -> term(1 + roll(12))
    end.

term(Budget) when Budget =< 1 ->
    leaf();
term(Budget) ->
    Width = roll(min(Budget, 6)),
    Parts = [term(Budget div Width - 1) || _ <- lists:seq(1, Width)],
    case roll(9) of
        1 -> Parts;
        2 -> Parts ++ leaf();
        9 -> record(Parts);
        3 -> maps:from_list([{leaf(), P} || P <- Parts]);
        4 -> maps:from_list([{P, leaf()} || P <- Parts]);
        5 -> function(Parts);
        6 -> [P || P <- Parts] ++ [#{a => hd(Parts)}];
        _ -> list_to_tuple(Parts)
    end.

leaf() ->
    case roll(24) of
        1 -> roll(256) - 1;
        2 -> -roll(300);
        3 -> sign() * roll(1 bsl 32);
        4 -> pick([1, -1, 0]) + sign() * (1 bsl pick([8, 27, 28, 31, 32, 59, 60, 62, 63, 64]));
        5 -> sign() * roll(1 bsl (8 * roll(40)));
        6 -> sign() * ((1 bsl (8 * (253 + roll(5)))) - roll(2));
        7 -> pick([0.0, -0.0, 1.5, -1.0e308, 5.0e-324, 1.7976931348623157e308]);
        8 -> (rand:uniform() - 0.5) * math:pow(10, roll(600) - 300);
        9 -> [];
        10 -> {};
        11 -> #{};
        12 -> rand:bytes(roll(100) - 1);
        13 -> bits();
        14 -> [roll(256) - 1 || _ <- lists:seq(1, roll(40))];
        15 -> [256, -1, 16#1D11E | pick([[], a])];
        16 -> pick([fun erlang:send/2, fun lists:map/2, fun nobody:nothing/255, fun ?MODULE:term/0]);
        17 -> function([roll(9)]);
        18 -> make_ref();
        N when N < 21 -> from_pool(2);
        _ -> from_pool(1)
    end.

%% Nested so deep.
deep(0, Term) -> Term;
deep(Depth, Term) -> deep(Depth - 1, nest(roll(5), Term)).

nest(1, Term) -> {Term};
nest(2, Term) -> #{k => Term};
nest(3, Term) -> [a | Term];
nest(4, Term) -> {b, Term, c};
nest(5, Term) -> [Term].

%% Funs of this module, with an environment.
function([Only]) -> fun(Arg) -> {Arg, Only} end;
function([First | Rest]) -> fun(A, B) -> {A, B, First, Rest} end.

%% A native record, where there are any.
record(Values) ->
    case has_records() of
        true ->
            Fields = [plain(list_to_atom("field" ++ integer_to_list(N))) || N <- lists:seq(1, length(Values))],
            Names = [plain(pick([?MODULE, 'Ωmodul'])), plain(pick([point, 'größe']))],
            Head = <<131, 67, (length(Values)):32, (roll(2) - 1)>>,
            binary_to_term(iolist_to_binary([Head, Names, Fields, [plain(V) || V <- Values]]));
        false ->
            list_to_tuple(Values)
    end.

%% @doc Whether this release has native records.
-spec has_records() -> boolean().
has_records() ->
    release() >= 29.

%% @doc This release of OTP.
-spec release() -> pos_integer().
release() ->
    list_to_integer(erlang:system_info(otp_release)).

bits() ->
    Size = roll(90),
    <<(rand:uniform(1 bsl 58)):Size>>.

from_pool(Which) -> pick_of(element(Which, get(?POOL))).
pick_of(Tuple) -> element(roll(tuple_size(Tuple)), Tuple).
pick(List) -> lists:nth(roll(length(List)), List).
sign() -> pick([1, -1]).
word() -> roll(1 bsl 32) - 1.
roll(N) -> rand:uniform(N).

%%%-------------------------------------------------------------------------------------------
%%% Encodings
%%%-------------------------------------------------------------------------------------------

%% @doc An encoding of a term: as this node writes it, or as another, older one might, or in a way
%% that none would but all must read.
-spec encoding() -> binary().
encoding() ->
    Term = term(),
    case roll(100) of
        1 -> twins();
        _ -> encoding(roll(8), Term)
    end.

encoding(Way, Term) ->
    case Way of
        1 -> term_to_binary(Term);
        2 -> term_to_binary(Term, [{minor_version, roll(3) - 1}]);
        3 -> term_to_binary([Term, Term], [{compressed, roll(10) - 1}]);
        4 -> local();
        5 -> compress(iolist_to_binary(free(Term)));
        _ -> <<131, (iolist_to_binary(free(Term)))/binary>>
    end.

%% Plain terms only: with others, external funs among them, this encoding ends OTP 27 and 29 by a
%% segmentation fault.
local() ->
    Term = pick([{self(), make_ref()}, [roll(1000), rand:bytes(9)], #{roll(9) => self()}, roll(256)]),
    try term_to_binary(Term, [local]) catch error:badarg -> term_to_binary(Term) end.

%% A map with two keys that are nearly or quite the same one. Not two references in a large map before
%% OTP 27, which ends by a segmentation fault if they differ but have one hash.
twins() ->
    {Make, More} =
        case roll(2) of
            1 -> {fun made_fun/0, pick([0, 40])};
            2 -> {fun made_reference/0, pick([0 | [40 || release() >= 27]])}
        end,
    Pairs = [[Make(), 106], [Make(), 106] | [[<<98, (1000 + N):32>>, 106] || N <- lists:seq(1, More)]],
    <<131, 116, (More + 2):32, (iolist_to_binary(Pairs))/binary>>.

made_fun() ->
    [Arity, Uniq, Index, OldIndex, OldUniq, Creator, Env] = [rarely(2) || _ <- lists:seq(1, 7)],
    Head = <<Arity, Uniq:128, Index:32, 1:32, 119, 1, $m, 97, OldIndex, 97, OldUniq>>,
    Fun = <<Head/binary, 88, 119, 3, "a@b", Creator:32, 0:32, 1:32, 97, Env>>,
    <<112, (byte_size(Fun) + 4):32, Fun/binary>>.

made_reference() ->
    Words = lists:sublist([7, rarely(2) - 1, 0, 0, 0], roll(5)),
    <<90, (length(Words)):16, 119, 3, "a@b", 1:32, (<<<<W:32>> || W <- Words>>)/binary>>.

rarely(N) -> case roll(6) of 1 -> N; _ -> 1 end.

compress(Bytes) ->
    <<131, 80, (byte_size(Bytes)):32, (zlib:compress(Bytes))/binary>>.

%% Any of the ways to write a term, at every place anew.
free(N) when is_integer(N) ->
    case roll(4) of
        1 when N >= 0, N < 256 -> <<97, N>>;
        2 when N >= -16#80000000, N < 16#80000000 -> <<98, N:32>>;
        3 -> big(N);
        _ -> plain(N)
    end;
free(F) when is_float(F) ->
    case roll(3) of
        1 -> minor(F, 0);
        _ -> plain(F)
    end;
free(A) when is_atom(A) -> atom(A);
free([]) -> <<106>>;
free(List) when is_list(List) ->
    case is_string(List, 0) of
        true when hd(List) rem 2 =:= 0 -> plain(List);
        _ -> list(List)
    end;
free({}) -> pick([[104, 0], <<105, 0:32>>]);
free(Tuple) when is_tuple(Tuple) ->
    Elements = [free(E) || E <- tuple_to_list(Tuple)],
    case tuple_size(Tuple) of
        Size when Size > 255 -> [<<105, Size:32>>, Elements];
        Size -> [pick([<<104, Size>>, <<105, Size:32>>]), Elements]
    end;
free(Map) when is_map(Map) ->
    Pairs = [{roll(1000), [free(K), free(V)]} || {K, V} <- maps:to_list(Map)],
    [<<116, (map_size(Map)):32>>, [Pair || {_, Pair} <- lists:sort(Pairs)]];
free(Id) when is_pid(Id); is_port(Id); is_reference(Id) -> identity(Id);
free(Fun) when is_function(Fun) ->
    case erlang:fun_info(Fun, type) of
        {type, external} ->
            [{module, M}, {name, F}, {arity, A}] = [erlang:fun_info(Fun, K) || K <- [module, name, arity]],
            [113, atom(M), atom(F), free_small(A)];
        {type, local} ->
            plain(Fun)
    end;
free(Bits) when is_binary(Bits) ->
    case roll(6) of
        1 when Bits =/= <<>> -> <<77, (byte_size(Bits)):32, 8, Bits/binary>>;
        _ -> plain(Bits)
    end;
free(Other) -> plain(Other).

free_small(N) -> pick([<<97, N>>]).

plain(Term) ->
    <<131, Bytes/binary>> = term_to_binary(Term),
    Bytes.

minor(Term, Version) ->
    <<131, Bytes/binary>> = term_to_binary(Term, [{minor_version, Version}]),
    Bytes.

%% With leading zeroes at times.
big(N) ->
    Sign = case N < 0 of true -> 1; false -> 0 end,
    Magnitude = binary:encode_unsigned(abs(N), little),
    Padding = pick([<<>>, <<>>, <<0>>, <<0:64>>]),
    Bytes = <<Magnitude/binary, Padding/binary>>,
    case byte_size(Bytes) of
        Size when Size < 256 -> pick([<<110, Size, Sign, Bytes/binary>>, <<111, Size:32, Sign, Bytes/binary>>]);
        Size -> <<111, Size:32, Sign, Bytes/binary>>
    end.

atom(Atom) ->
    Utf8 = atom_to_binary(Atom),
    Size = byte_size(Utf8),
    Latin1 = unicode:characters_to_binary(atom_to_list(Atom), unicode, latin1),
    case roll(4) of
        1 when is_binary(Latin1) -> <<100, (byte_size(Latin1)):16, Latin1/binary>>;
        2 when is_binary(Latin1), byte_size(Latin1) < 256 -> <<115, (byte_size(Latin1)), Latin1/binary>>;
        3 when Size < 256 -> <<119, Size, Utf8/binary>>;
        _ -> <<118, Size:16, Utf8/binary>>
    end.

is_string([C | Rest], N) when is_integer(C), C >= 0, C < 256, N < 65535 -> is_string(Rest, N + 1);
is_string(Rest, _) -> Rest =:= [].

list(List) ->
    {Elements, Tail} = proper(List, []),
    [<<108, (length(Elements)):32>>, [free(E) || E <- Elements], free(Tail)].

proper([Head | Tail], Elements) -> proper(Tail, [Head | Elements]);
proper(Tail, Elements) -> {lists:reverse(Elements), Tail}.

%% The current tag, or one with a creation of one byte.
identity(Id) ->
    Bytes = plain(Id),
    case roll(3) of
        1 -> old_identity(Bytes);
        _ -> Bytes
    end.

old_identity(<<88, Rest/binary>>) ->
    {Node, <<Number:32, Serial:32, Creation:32>>} = node_name(Rest),
    [103, Node, <<Number:32, Serial:32, (Creation band 3)>>];
old_identity(<<89, Rest/binary>>) ->
    {Node, <<Number:32, Creation:32>>} = node_name(Rest),
    [102, Node, <<Number:32, (Creation band 3)>>];
old_identity(<<120, Rest/binary>>) ->
    {Node, <<Number:64, Creation:32>>} = node_name(Rest),
    [102, Node, <<(Number band 16#0fffffff):32, (Creation band 3)>>];
old_identity(<<90, Words:16, Rest/binary>>) ->
    {Node, <<Creation:32, Numbers/binary>>} = node_name(Rest),
    case roll(2) of
        1 ->
            <<Number:32, _/binary>> = Numbers,
            [101, Node, <<Number:32, (Creation band 3)>>];
        2 ->
            Taken = min(Words, 3),
            [114, <<Taken:16>>, Node, <<(Creation band 3)>>, binary:part(Numbers, 0, 4 * Taken)]
    end.

node_name(<<119, Size, Name:Size/binary, Rest/binary>>) -> {<<119, Size, Name/binary>>, Rest};
node_name(<<118, Size:16, Name:Size/binary, Rest/binary>>) -> {<<118, Size:16, Name/binary>>, Rest};
node_name(<<100, Size:16, Name:Size/binary, Rest/binary>>) -> {<<100, Size:16, Name/binary>>, Rest};
node_name(<<115, Size, Name:Size/binary, Rest/binary>>) -> {<<115, Size, Name/binary>>, Rest}.

%% @doc Damages an encoding at one to three places.
-spec mutate(binary()) -> binary().
mutate(Bytes) ->
    lists:foldl(fun(_, Damaged) -> damage(Damaged, roll(9)) end, Bytes, lists:seq(1, roll(3))).

damage(Bytes, _) when byte_size(Bytes) < 3 -> Bytes;
damage(Bytes, Kind) ->
    %% The version byte stays nearly always: without it there is nothing to see.
    At = case roll(200) of 1 -> 0; _ -> roll(byte_size(Bytes) - 1) end,
    <<Before:At/binary, Byte, After/binary>> = Bytes,
    case Kind of
        1 -> <<Before/binary, (Byte bxor (1 bsl (roll(8) - 1))), After/binary>>;
        2 -> <<Before/binary, (roll(256) - 1), After/binary>>;
        3 -> <<Before/binary, (pick(tags())), After/binary>>;
        4 -> <<Before/binary, After/binary>>;
        5 -> <<Before/binary, (pick(tags())), Byte, After/binary>>;
        6 -> <<Before/binary, Byte>>;
        7 -> <<Before/binary, (word()):32, After/binary>>;
        8 -> <<Before/binary, (pick([0, 1, 255, 65535, 16#7fffffff, 16#ffffffff])):32, Byte, After/binary>>;
        9 ->
            Length = roll(min(byte_size(After) + 1, 40)) - 1,
            <<Part:Length/binary, _/binary>> = After,
            <<Before/binary, Part/binary, Byte, After/binary>>
    end.

tags() -> [67, 70, 77, 80, 82, 88, 89, 90] ++ lists:seq(97, 121).

%%%-------------------------------------------------------------------------------------------
%%% Which tags there were
%%%-------------------------------------------------------------------------------------------

-spec counts() -> counters:counters_ref().
counts() ->
    counters:new(300, []).

%% @doc Counts the tags in an encoding, and the rare things that share a tag.
-spec count(counters:counters_ref(), binary()) -> ok.
count(Counts, <<131, 80, _:32, Compressed/binary>>) ->
    counters:add(Counts, 80, 1),
    tags(Counts, zlib:uncompress(Compressed), 1);
count(Counts, <<131, Bytes/binary>>) ->
    tags(Counts, Bytes, 1).

%% So many terms are still to come.
tags(_, <<>>, 0) ->
    ok;
tags(Counts, <<Tag, Bytes/binary>>, Left) ->
    counters:add(Counts, Tag, 1),
    {Rest, More} = skip(Counts, Tag, Bytes),
    tags(Counts, Rest, Left - 1 + More).

skip(_, 67, <<N:32, _, R/binary>>) -> {R, 2 + 2 * N};
skip(_, 97, <<_, R/binary>>) -> {R, 0};
skip(_, 98, <<_:32, R/binary>>) -> {R, 0};
skip(C, 70, <<16#8000000000000000:64, R/binary>>) -> counters:add(C, 256, 1), {R, 0};
skip(_, 70, <<_:64, R/binary>>) -> {R, 0};
skip(_, 99, <<_:31/binary, R/binary>>) -> {R, 0};
skip(_, T, <<L:16, _:L/binary, R/binary>>) when T =:= 100; T =:= 118; T =:= 107 -> {R, 0};
skip(_, T, <<L, _:L/binary, R/binary>>) when T =:= 115; T =:= 119 -> {R, 0};
skip(_, 101, R) -> {drop(5, name(R)), 0};
skip(_, 102, R) -> {drop(5, name(R)), 0};
skip(_, 103, R) -> {drop(9, name(R)), 0};
skip(_, 88, R) -> {drop(12, name(R)), 0};
skip(_, 89, R) -> {drop(8, name(R)), 0};
skip(_, 120, R) -> {drop(12, name(R)), 0};
skip(_, 114, <<N:16, R/binary>>) -> {drop(1 + 4 * N, name(R)), 0};
skip(_, 90, <<N:16, R/binary>>) -> {drop(4 + 4 * N, name(R)), 0};
skip(_, 104, <<N, R/binary>>) -> {R, N};
skip(_, 105, <<N:32, R/binary>>) -> {R, N};
skip(_, 106, R) -> {R, 0};
skip(C, 116, <<N:32, R/binary>>) ->
    N > 32 andalso counters:add(C, 258, 1),
    N > 128 andalso counters:add(C, 259, 1),
    {R, 2 * N};
skip(_, 108, <<N:32, R/binary>>) -> {R, N + 1};
skip(_, 109, <<N:32, _:N/binary, R/binary>>) -> {R, 0};
skip(_, 77, <<N:32, _, _:N/binary, R/binary>>) -> {R, 0};
skip(_, 110, <<N, _, _:N/binary, R/binary>>) -> {R, 0};
skip(_, 111, <<N:32, _, _:N/binary, R/binary>>) -> {R, 0};
skip(_, 112, <<_:32, _, _:16/binary, _:32, Free:32, R/binary>>) -> {R, 4 + Free};
skip(_, 113, R) -> {R, 3};
%% What follows is anybody's own business.
skip(_, 121, _) -> {<<>>, 0}.

name(<<T, L:16, _:L/binary, R/binary>>) when T =:= 100; T =:= 118 -> R;
name(<<T, L, _:L/binary, R/binary>>) when T =:= 115; T =:= 119 -> R.

drop(N, Bytes) ->
    <<_:N/binary, Rest/binary>> = Bytes,
    Rest.

%% @doc What was counted.
-spec histogram(counters:counters_ref()) -> [{term(), pos_integer()}].
histogram(Counts) ->
    [{kind(Place), N} || Place <- lists:seq(1, 300), N <- [counters:get(Counts, Place)], N > 0].

%% @doc Which of these were never counted.
-spec missing({counters:counters_ref(), [term()]}) -> [term()].
missing({Counts, Wanted}) ->
    Wanted -- [Kind || {Kind, _} <- histogram(Counts)].

kind(67) -> record;
kind(70) -> new_float;
kind(77) -> bit_binary;
kind(80) -> compressed;
kind(88) -> new_pid;
kind(89) -> new_port;
kind(90) -> newer_reference;
kind(97) -> small_integer;
kind(98) -> integer;
kind(99) -> float;
kind(100) -> atom_latin1;
kind(101) -> reference;
kind(102) -> port;
kind(103) -> pid;
kind(104) -> small_tuple;
kind(105) -> large_tuple;
kind(106) -> nil;
kind(107) -> string;
kind(108) -> list;
kind(109) -> binary;
kind(110) -> small_big;
kind(111) -> large_big;
kind(112) -> new_fun;
kind(113) -> export;
kind(114) -> new_reference;
kind(115) -> small_atom_latin1;
kind(116) -> map;
kind(118) -> atom_utf8;
kind(119) -> small_atom_utf8;
kind(120) -> v4_port;
kind(121) -> local;
kind(256) -> minus_zero;
kind(257) -> improper_list;
kind(258) -> map_over_32;
kind(259) -> map_over_128;
kind(260) -> proper;
kind(Tag) -> Tag.

%%%-------------------------------------------------------------------------------------------
%%% Echo
%%%-------------------------------------------------------------------------------------------

%% @doc The echo with a seed of its own, which is printed.
-spec echo(node(), pos_integer()) -> ok | {error, term()}.
echo(Node, Count) ->
    echo(Node, Count, erlang:unique_integer([positive]) + erlang:system_time()).

%% @doc Sends so many terms to `{echo, Node}'; each must come back identical.
-spec echo(node(), pos_integer(), integer()) -> ok | {error, term()}.
echo(Node, Count, Seed) ->
    io:format("echo: ~w terms, seed ~w~n", [Count, Seed]),
    true = monitor_node(Node, true),
    Counts = counts(),
    {Sources, Next} = source(Seed, Counts),
    Result = echo(Node, 0, 0, Count, queue:new(), {Counts, Next}),
    true = monitor_node(Node, false),
    io:format("echo: tags: ~0p~n", [histogram(Counts)]),
    Wanted = [
        bit_binary, new_pid, newer_reference, v4_port, small_integer, integer, small_tuple, large_tuple, nil,
        string, list, binary, small_big, large_big, new_fun, export, map, atom_utf8, small_atom_utf8,
        new_float, minus_zero, improper_list, map_over_32, map_over_128
        | [record || has_records()] ++ Sources
    ],
    case {Result, missing({Counts, Wanted})} of
        {ok, [_ | _] = Missing} when Count >= 100000 -> {error, {never_generated, Missing}};
        _ -> Result
    end.

echo(_, Count, Count, Count, _, _) ->
    ok;
echo(Node, Sent, Back, Count, Waiting, {Counts, Next} = Source) when Sent < Count, Sent - Back < ?WINDOW ->
    Term = Next(),
    Bytes = term_to_binary(Term, [{minor_version, 2}]),
    count(Counts, Bytes),
    improper(Term) andalso counters:add(Counts, 257, 1),
    {echo, Node} ! {self(), Sent, Term},
    echo(Node, Sent + 1, Back, Count, queue:in({Term, Bytes}, Waiting), Source);
echo(Node, Sent, Back, Count, Waiting, Source) ->
    {{value, {Term, Bytes}}, Left} = queue:out(Waiting),
    receive
        {Back, Answer} ->
            case same(Answer, Term, Bytes) of
                true -> echo(Node, Sent, Back + 1, Count, Left, Source);
                false -> {error, {changed, Back, Bytes, term_to_binary(Answer, [{minor_version, 2}])}}
            end;
        {nodedown, Node} ->
            {error, {nodedown, Back, Bytes}}
    after 60000 ->
        {error, {no_answer, Back, Bytes}}
    end.

%% Where PropEr is installed, half of the terms are its own, most with a leaf of ours.
source(Seed, Counts) ->
    case code:ensure_loaded(proper) of
        {module, _} ->
            _ = proper:global_state_init_size_seed(20, {Seed band 16#7fffffff, 1, 1}),
            %% It has seeded our generator, too.
            ok = prepare(Seed),
            Any = proper_types:any(),
            Next = fun() ->
                case roll(2) of
                    1 -> term();
                    2 -> counters:add(Counts, 260, 1), mixed(Any)
                end
            end,
            {[proper], Next};
        {error, _} ->
            ok = prepare(Seed),
            {[], fun term/0}
    end.

mixed(Any) ->
    {ok, Instance} = proper_gen:safe_generate(proper_types:resize(roll(20), Any)),
    Term = proper_gen:clean_instance(Instance),
    case roll(5) of
        1 -> {Term, leaf()};
        2 -> #{Term => leaf()};
        3 -> #{leaf() => Term};
        4 -> [leaf(), Term | leaf()];
        5 -> Term
    end.

%% Before OTP 27, `=:=' does not tell -0.0 from 0.0.
same(Answer, Term, Bytes) ->
    Answer =:= Term andalso
        (term_to_binary(Answer, [{minor_version, 2}]) =:= Bytes orelse canonical(Answer) =:= canonical(Term)).

%% @doc The one encoding of a term.
-spec canonical(term()) -> binary().
canonical(Term) ->
    term_to_binary(Term, [deterministic, {minor_version, 2}]).

improper([_ | Tail]) -> improper(Tail);
improper(Tail) -> Tail =/= [] andalso not is_tuple(Tail) andalso not is_map(Tail).
