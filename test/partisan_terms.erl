%% @doc Terms of every kind, made at random from a seed, and what the default encoding makes of them.
%%
%% A generator draws from `rand' in the process dictionary, so that one seed gives one sequence. Sizes
%% are bounded: a term costs at most a few kilobytes, unless its kind is there to be large.
-module(partisan_terms).

-export([seed/1, term/1, terms/2, large/0, deep/1, deepest/0, special/0]).
-export([foreign/0, encoded/3, identities/1, kind/1]).

-define(OUT_OF_BAND, 16384).

%% What a term may have in it that only a node itself can make: pids, references, ports of its own and
%% of others.
-type ingredients() :: [term()].

%% @doc Seeds the generator of the calling process.
-spec seed(integer()) -> integer().
seed(Seed) ->
    _ = rand:seed(exsss, Seed),
    Seed.

%% @doc So many terms.
-spec terms(non_neg_integer(), ingredients()) -> [term()].
terms(N, Ingredients) ->
    [term(Ingredients) || _ <- lists:seq(1, N)].

%% @doc One term. Most are small; some are long lists, deep, or have large binaries.
-spec term(ingredients()) -> term().
term(Ingredients) ->
    case roll(60) of
        1 -> lists:duplicate(roll(1500), leaf(Ingredients));
        2 -> deep(roll(900), leaf(Ingredients));
        3 -> {leaf(Ingredients), binary(around(16384))};
        4 -> [binary(around(65536)), leaf(Ingredients) | leaf(Ingredients)];
        5 -> list_to_tuple([leaf(Ingredients) || _ <- lists:seq(1, 300)]);
        6 -> maps:from_list([{leaf(Ingredients), N} || N <- lists:seq(1, 30 + roll(60))]);
        7 -> #{binary(around(16384)) => binary(around(16384)), a => leaf(Ingredients)};
        8 -> function([term(8, Ingredients), binary(around(16384))]);
        9 -> [leaf(Ingredients) || _ <- lists:seq(1, 400 + roll(200))];
        N when N < 24 -> term(1 + roll(60), Ingredients);
        _ -> plain(1 + roll(10), Ingredients)
    end.

%% Nothing that the library's first walk leaves to the VM: funs, bit strings.
plain(Budget, Ingredients) ->
    Term = term(Budget, Ingredients),
    case is_plain(Term) of
        true -> Term;
        false -> plain(Budget, Ingredients)
    end.

is_plain([Head | Tail]) -> is_plain(Head) andalso is_plain(Tail);
is_plain(Tuple) when is_tuple(Tuple) -> lists:all(fun is_plain/1, tuple_to_list(Tuple));
is_plain(Map) when is_map(Map) -> is_plain(maps:to_list(Map));
is_plain(Term) -> not is_function(Term) andalso (is_binary(Term) orelse not is_bitstring(Term)).

%% `Budget' bounds the leaves.
term(Budget, Ingredients) when Budget =< 1 ->
    leaf(Ingredients);
term(Budget, Ingredients) ->
    Width = roll(min(Budget, 6)),
    Part = fun() -> term(Budget div Width - 1, Ingredients) end,
    Parts = [Part() || _ <- lists:seq(1, Width)],
    case roll(8) of
        1 -> Parts;
        2 -> Parts ++ leaf(Ingredients);
        3 -> maps:from_list([{leaf(Ingredients), P} || P <- Parts]);
        4 -> maps:from_list([{P, leaf(Ingredients)} || P <- Parts]);
        5 -> function(Parts);
        _ -> list_to_tuple(Parts)
    end.

leaf(Ingredients) ->
    case roll(18) of
        1 -> roll(256) - 1;
        2 -> roll(1 bsl 33) - (1 bsl 32);
        3 -> sign() * rand:uniform(1 bsl 59) bsl roll(12);
        4 -> sign() * ((1 bsl (roll(200) * 8)) - roll(2));
        5 -> sign() * ((1 bsl (2040 + roll(400))) + roll(99));
        6 -> pick([0.0, -0.0, 1.5, -1.0e308, 5.0e-324, rand:uniform()]);
        7 -> pick(['', a, ok, undefined, 'mit Leerzeichen', 'grün', 'ÿ', 'こんにちは', '𝄞', long_atom()]);
        8 -> [];
        9 -> {};
        10 -> #{};
        11 -> binary(roll(100) - 1);
        12 -> bits();
        13 -> [roll(256) - 1 || _ <- lists:seq(1, roll(40))];
        14 -> "ÿ and " ++ [16#1D11E];
        15 -> pick([fun erlang:send/2, fun lists:map/2, fun nobody:nothing/255]);
        16 -> make_ref();
        _ -> pick([self() | Ingredients])
    end.

%% @doc The bounds of each path, in one list.
-spec special() -> [term()].
special() ->
    Lists = [lists:seq(1, N) || N <- [0, 1, 255, 256, 510, 511, 512, 513, 65535, 65536]],
    Tuples = [erlang:make_tuple(N, x) || N <- [0, 1, 255, 256, 300, 511, 70000]],
    Maps = [maps:from_keys(lists:seq(1, N), v) || N <- [0, 1, 31, 32, 33, 300, 600, 5000]],
    Binaries = [binary(N) || N <- [0, 63, 64, 65, 16383, 16384, 16385, 65535, 65536, 65537]],
    Bigs = [Sign * (1 bsl N) || N <- [26, 27, 31, 32, 59, 60, 63, 64, 2039, 2040, 50000], Sign <- [1, -1]],
    Pairs = [[binary(N), binary(1 bsl 20) | {self(), binary(16384)}] || N <- [1, 16384]],
    %% Maps of more than 128 pairs take a way of their own at the receiver.
    Wide = [
        {maps:from_keys(lists:seq(1, 128 + N), self()), binary(Size), #{[self()] => make_ref()}}
     || N <- [-1, 0, 1, 60], Size <- [1, 20000]
    ],
    lists:append([Lists, Tuples, Maps, Wide, Binaries, Bigs, Pairs, [special_sub_binary()]]).

%% Part of a larger binary, begun inside of a byte.
special_sub_binary() ->
    <<_:3, Rest/bitstring>> = binary(20001),
    <<Aligned:20000/binary, _/bitstring>> = Rest,
    {Rest, Aligned, binary:part(binary(50000), 3, 20000)}.

%% @doc Binaries of 8 MB, alone and beside other things.
-spec large() -> [term()].
large() ->
    Large = binary(8 bsl 20),
    [Large, {self(), Large, [Large | binary(100)]}, #{self() => Large, Large => make_ref()}, function([Large])].

%% @doc A term of this depth.
-spec deep(pos_integer()) -> term().
deep(Depth) ->
    deep(Depth, self()).

deep(0, Term) -> Term;
deep(Depth, Term) -> deep(Depth - 1, nest(Depth rem 3, Term)).

nest(0, Term) -> {Term};
nest(1, Term) -> #{k => Term};
nest(2, Term) -> [Term].

%% @doc The depth up to which {@link deep/1} is within the limits, whatever surrounds it.
-spec deepest() -> pos_integer().
deepest() ->
    900.

%% @doc Pids, references and ports of nodes that don't exist.
-spec foreign() -> ingredients().
foreign() ->
    Node = fun(Name) -> <<119, (byte_size(Name)), Name/binary>> end,
    Make = fun(Bytes) -> binary_to_term(<<131, Bytes/binary>>) end,
    lists:append([
        [
            Make(<<88, (Node(Name))/binary, 77:32, 3:32, Creation:32>>),
            Make(<<90, 3:16, (Node(Name))/binary, Creation:32, 11:32, 22:32, 33:32>>),
            Make(<<90, 5:16, (Node(Name))/binary, Creation:32, 1:32, 2:32, 3:32, 4:32, 5:32>>),
            Make(<<89, (Node(Name))/binary, 9:32, Creation:32>>),
            Make(<<120, (Node(Name))/binary, 1:32, 9:32, Creation:32>>)
        ]
     || {Name, Creation} <- [
            {<<"made@up">>, 12345},
            {<<"a@127.0.0.1">>, 7},
            {<<"gemacht@grün"/utf8>>, 1},
            {<<"n@", (binary:copy(<<"x">>, 200))/binary>>, 16#ffffffff}
        ]
    ]).

%% A fun whose environment has everything in it.
function([Only]) ->
    fun(Arg) -> {Arg, Only} end;
function([First | Rest]) ->
    fun(A, B) -> {A, B, First, Rest} end.

binary(Size) ->
    %% Random enough to tell places apart, cheap enough for megabytes.
    Block = rand:bytes(min(Size, 251)),
    Copies = Size div max(1, byte_size(Block)) + 1,
    binary:part(binary:copy(Block, Copies), 0, Size).

bits() ->
    Size = roll(90),
    <<N:Size>> = <<(rand:uniform(1 bsl 58)):Size>>,
    <<N:Size>>.

long_atom() -> list_to_atom(lists:duplicate(255, $ß)).
around(Size) -> Size + roll(9) - 5.
sign() -> pick([1, -1]).
roll(N) -> rand:uniform(N).
pick(List) -> lists:nth(roll(length(List)), List).

%%%-------------------------------------------------------------------------------------------
%%% What a term looks like elsewhere
%%%-------------------------------------------------------------------------------------------

%% @doc The term as another node receives it with `pid_encoding' and `ref_encoding' on: pids and
%% references outside of funs are remote references. `Own' is the Partisan name of this node.
-spec encoded(term(), node(), improper_list | uri | {uri, padded} | tuple) -> term().
encoded(Pid, Own, Format) when is_pid(Pid) ->
    reference(pid, numbers(pid_to_list(Pid)), node_of(Pid, Own), Format);
encoded(Ref, Own, Format) when is_reference(Ref) ->
    reference(ref, numbers(ref_to_list(Ref)), node_of(Ref, Own), Format);
encoded([Head | Tail], Own, Format) ->
    [encoded(Head, Own, Format) | encoded(Tail, Own, Format)];
encoded(Tuple, Own, Format) when is_tuple(Tuple) ->
    list_to_tuple([encoded(E, Own, Format) || E <- tuple_to_list(Tuple)]);
encoded(Map, Own, Format) when is_map(Map) ->
    maps:from_list([{encoded(K, Own, Format), encoded(V, Own, Format)} || {K, V} <- maps:to_list(Map)]);
encoded(Term, _, _) ->
    Term.

node_of(Identifier, Own) ->
    case node(Identifier) of
        Here when Here =:= node() -> Own;
        Other -> Other
    end.

%% What follows the first number, which is this VM's own for the node.
numbers(Text) ->
    {match, [Numbers]} = re:run(Text, "<[0-9]+\\.([0-9.]+)>", [{capture, all_but_first, list}]),
    "0." ++ Numbers.

reference(pid, Numbers, Node, improper_list) ->
    [Node | list_to_binary(["#Pid<", Numbers, ">"])];
reference(ref, Numbers, Node, improper_list) ->
    [Node | list_to_binary(["#Ref<", Numbers, ">"])];
reference(Kind, Numbers, Node, uri) ->
    unicode:characters_to_binary(["partisan:", atom_to_list(Kind), ":", atom_to_list(Node), ":", Numbers]);
reference(Kind, Numbers, Node, {uri, padded}) ->
    case reference(Kind, Numbers, Node, uri) of
        Uri when byte_size(Uri) < 65 ->
            Padding = binary:copy(<<25>>, 64 - byte_size(Uri)),
            <<Uri/binary, ":", Padding/binary>>;
        Uri ->
            Uri
    end;
reference(pid, Numbers, Node, tuple) ->
    {partisan_remote_ref, Node, {encoded_pid, "<" ++ Numbers ++ ">"}};
reference(ref, Numbers, Node, tuple) ->
    {partisan_remote_ref, Node, {encoded_ref, "#Ref<" ++ Numbers ++ ">"}}.

%% @doc The pids, references and ports in a term, those in the environments of funs too, and the funs'
%% creators.
-spec identities(term()) -> [pid() | reference() | port()].
identities(Term) ->
    lists:usort(identities(Term, [])).

identities(I, Found) when is_pid(I); is_reference(I); is_port(I) -> [I | Found];
identities([Head | Tail], Found) ->
    identities(Tail, identities(Head, Found));
identities(Tuple, Found) when is_tuple(Tuple) -> lists:foldl(fun identities/2, Found, tuple_to_list(Tuple));
identities(Map, Found) when is_map(Map) -> identities(maps:to_list(Map), Found);
identities(Fun, Found) when is_function(Fun) ->
    case erlang:fun_info(Fun, type) of
        {type, external} ->
            Found;
        {type, local} ->
            {env, Env} = erlang:fun_info(Fun, env),
            {pid, Creator} = erlang:fun_info(Fun, pid),
            identities(Env, [Creator | Found])
    end;
identities(_, Found) ->
    Found.

%% @doc Whether a large binary outside of funs travels by reference.
-spec kind(term()) -> large | small.
kind(Term) ->
    case has_large(Term) of
        true -> large;
        false -> small
    end.

has_large(Binary) when is_binary(Binary) -> byte_size(Binary) >= ?OUT_OF_BAND;
has_large([Head | Tail]) -> has_large(Head) orelse has_large(Tail);
has_large(Tuple) when is_tuple(Tuple) -> lists:any(fun has_large/1, tuple_to_list(Tuple));
has_large(Map) when is_map(Map) -> has_large(maps:to_list(Map));
has_large(_) -> false.
