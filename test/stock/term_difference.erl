%% @doc The comparison of another decoder with `binary_to_term', on what `term_gen' makes.
-module(term_difference).

-export([differential/2]).

%% @doc For so long, asks the decoder at the other end of the standard input and output about valid
%% and damaged encodings, and compares with what `binary_to_term' says. Ends the node.
%%
%% A frame (length in four bytes) to it: `<<Count:32>>' and so many `<<Size:32, Bytes/binary>>'. Its
%% answer: for each of them `<<Code, Size:32, Encoding/binary>>' in canonical form, Code being 1, and
%% 2 more if a native record is in it, 4 more if a private term is, or
%% `<<0, Size:32, Reason/binary>>'. The last frame to it is `<<0:32, Report/binary>>'.
-spec differential(pos_integer(), integer()) -> no_return().
differential(Seconds, Seed) ->
    ok = term_gen:prepare(Seed),
    Port = open_port({fd, 0, 1}, [binary, {packet, 4}, eof]),
    Counts = term_gen:counts(),
    Deadline = erlang:monotonic_time(millisecond) + 1000 * Seconds,
    {Asked, Tally, Differences} = rounds(Port, Deadline, Counts, 0, #{}, []),
    Wanted = [
        new_float, bit_binary, compressed, new_pid, newer_reference, small_integer, integer, float,
        atom_latin1, reference, port, pid, small_tuple, large_tuple, nil, string, list, binary, small_big,
        large_big, new_fun, export, new_reference, small_atom_latin1, map, atom_utf8, small_atom_utf8, v4_port,
        minus_zero, map_over_32, map_over_128
        | [record || term_gen:has_records()]
    ],
    Missing = [K || Asked > 50000, K <- term_gen:missing({Counts, Wanted})],
    Verdict =
        case {Differences, Missing} of
            {[], []} -> "ok";
            _ -> "different"
        end,
    Report = io_lib:format(
        "~s~nOTP ~s, seed ~w: ~w encodings~noutcomes: ~0tp~ntags of the undamaged: ~0p~nnever generated: ~0p~n~ts",
        [Verdict, erlang:system_info(otp_release), Seed, Asked, lists:sort(maps:to_list(Tally)),
            term_gen:histogram(Counts), Missing, [[line(D), $\n] || D <- lists:reverse(Differences)]]
    ),
    true = port_command(Port, <<0:32, (unicode:characters_to_binary(Report))/binary>>),
    receive {Port, eof} -> ok end,
    halt(0).

line({Kind, Bytes, Detail}) ->
    Shown = binary:part(Bytes, 0, min(byte_size(Bytes), 16384)),
    io_lib:format("~0tp: ~w bytes ~s: ~0tP", [Kind, byte_size(Bytes), binary:encode_hex(Shown), Detail, 40]).

rounds(Port, Deadline, Counts, Asked, Tally, Differences) ->
    case erlang:monotonic_time(millisecond) >= Deadline orelse length(Differences) >= 300 of
        true ->
            {Asked, Tally, Differences};
        false ->
            Questions = lists:append([questions(Counts) || _ <- lists:seq(1, 50)]),
            Sized = [[<<(byte_size(Q)):32>>, Q] || Q <- Questions],
            true = port_command(Port, [<<(length(Questions)):32>>, Sized]),
            {Tally1, Differences1} =
                receive
                    {Port, {data, Answers}} -> compare(Questions, Answers, Tally, Differences);
                    {Port, eof} -> halt(1)
                after 60000 -> halt(2)
                end,
            rounds(Port, Deadline, Counts, Asked + length(Questions), Tally1, Differences1)
    end.

questions(Counts) ->
    Valid = term_gen:encoding(),
    term_gen:count(Counts, Valid),
    %% Large ones are damaged less often: the small ones tell more in the same time.
    Mutants =
        case byte_size(Valid) of
            Size when Size < 300 -> 6;
            Size when Size < 5000 -> 2;
            _ -> 1
        end,
    [Valid | [term_gen:mutate(Valid) || _ <- lists:seq(1, Mutants)]].

compare([], <<>>, Tally, Differences) ->
    {Tally, Differences};
compare([Bytes | Questions], <<Code, Size:32, Answer:Size/binary, Rest/binary>>, Tally, Differences) ->
    Ours =
        case Code of
            0 -> {refused, Answer};
            _ -> {ok, Answer, [Kind || {Bit, Kind} <- [{2, record}, {4, local}], Code band Bit =/= 0]}
        end,
    %% A copy, as the BEAM writes into what it decodes: see `refused_by_us_alone/3'.
    {Outcome, Detail} =
        case ends_the_vm(Ours) of
            true -> {{explained, not_asked}, []};
            false -> judge(Bytes, Ours, decode(binary:copy(Bytes)))
        end,
    Tally1 = maps:update_with(Outcome, fun(N) -> N + 1 end, 1, Tally),
    case Outcome of
        {same, _} -> compare(Questions, Rest, Tally1, Differences);
        {explained, _} -> compare(Questions, Rest, Tally1, Differences);
        %% Of each kind enough to see what it is.
        _ ->
            Known = length([x || {Kind, _, _} <- Differences, Kind =:= Outcome]),
            Added = [{Outcome, Bytes, Detail} || Known < 12],
            compare(Questions, Rest, Tally1, Added ++ Differences)
    end.

%% An external fun of an arity over 255 ends OTP 27 by a segmentation fault if it is a key of a large map.
ends_the_vm({refused, Reason}) -> binary:match(Reason, <<"its arity is not a small integer">>) =/= nomatch;
ends_the_vm(_) -> false.

%% As the distribution: nothing may follow the term.
decode(Bytes) ->
    try binary_to_term(Bytes, [used]) of
        {Term, Used} when Used =:= byte_size(Bytes) -> {ok, Term};
        {_, _} -> trailing
    catch
        error:badarg -> refused;
        error:system_limit -> refused
    end.

judge(_, {refused, <<"panicked">>}, _) -> {we_panic, []};
judge(_, {refused, _}, refused) -> {{same, both_refuse}, []};
judge(_, {refused, _}, trailing) -> {{same, both_refuse_or_trailing}, []};
judge(_, {ok, Answer, _}, trailing) -> {we_see_no_rest, Answer};
judge(_, {ok, Answer, Foreign}, refused) ->
    case accepted_by_us_alone(Answer, Foreign) of
        {true, Why} -> {{explained, Why}, []};
        _ -> {we_accept_alone, Answer}
    end;
judge(Bytes, {refused, Reason}, {ok, Term}) ->
    case refused_by_us_alone(Reason, plain_bytes(Bytes), Term) of
        {true, Why} -> {{explained, Why}, []};
        _ -> {{we_refuse_alone, shape(Reason)}, {Reason, Term}}
    end;
judge(_, {ok, Answer, _}, {ok, Term}) ->
    try binary_to_term(Answer) of
        Again when Again =:= Term ->
            case term_gen:canonical(Again) =:= term_gen:canonical(Term) of
                true -> {{same, both_accept}, []};
                false -> {same_but_for_a_sign, Answer}
            end;
        Again ->
            %% OTP 25 makes of a rare damaged map one that is no more itself when it comes back, and takes
            %% maps for different if keys of one hash were put in in another order.
            Difference = difference(Term, Again),
            Known = Difference =:= {[], []} orelse binary_to_term(term_to_binary(Term)) =/= Term,
            case term_gen:release() < 27 andalso Known of
                true -> {{explained, not_itself}, []};
                false -> {other_value, Difference}
            end
    catch
        error:badarg -> {our_encoding_is_refused, Answer}
    end.

%% Reasons differ in numbers.
shape(Reason) ->
    re:replace(Reason, "[0-9]+", "N", [global, {return, binary}]).

%% Where two terms begin to differ.
difference([A | As], [B | Bs]) when A =:= B -> difference(As, Bs);
difference([A | _], [B | _]) -> difference(A, B);
difference(A, B) when is_tuple(A), is_tuple(B), tuple_size(A) =:= tuple_size(B) ->
    difference(tuple_to_list(A), tuple_to_list(B));
difference(A, B) when is_map(A), is_map(B), map_size(A) =:= map_size(B) ->
    difference(lists:sort(maps:to_list(A)), lists:sort(maps:to_list(B)));
difference(A, B) ->
    {A, B}.

%%% The differences that are meant. All else is a bug, here or there.

%% What `binary_to_term' takes and we refuse, by the reason that we give and what stands at the offset
%% that it names:
%%
%% * what is nested deeper than our limit;
%% * a fun (`NEW_FUN_EXT') of another size than it claims to have, which the BEAM does not look at;
%% * a comma for the point of a `FLOAT_EXT', for which the BEAM writes a point, into the binary;
%% * a `FLOAT_EXT' without the zero at its end, over which the BEAM reads on;
%% * its internal atom references (`ATOM_INTERNAL_REF2', 73, and 3, 75), which only `ets' may write;
%% * a `LOCAL_EXT' within another one, which no node writes;
%% * a fun whose creator is no pid, or whose arity (`ends_the_vm/1'), index or uniq stands in another
%%   encoding of an integer, neither of which any node writes;
%% * a bitstring of no bytes and no bits, which OTP 25 takes;
%% * two references of one map that differ in zero words at the end, which are equal (`=:='), but have
%%   another hash: the BEAM sees it only in maps of 32 keys and less.
refused_by_us_alone(Reason, Bytes, Term) ->
    Numbers = numbers(Reason),
    Is = fun(Text) -> binary:match(Reason, Text) =/= nomatch end,
    case lists:search(fun({Text, _}) -> Is(Text) end, meant_refusals()) of
        {value, {_, depth}} -> {depth(Term) > 1000, depth};
        {value, {_, cut_off}} -> {claims(Bytes, Numbers), fun_size};
        {value, {_, float}} -> {re:run(Bytes, "c([-+]?[0-9]+,[0-9]|[-+.,e0-9]{31})") =/= nomatch, float};
        {value, {_, tag}} -> {internal(Bytes, Numbers), internal_tag};
        {value, {_, no_bits}} ->
            {term_gen:release() < 27 andalso binary:match(Bytes, <<77, 0:40>>) =/= nomatch, no_bits};
        {value, {_, equal_keys}} -> {equal_keys(Term), equal_keys};
        {value, {_, Why}} -> {true, Why};
        false -> false
    end.

meant_refusals() ->
    [
        {<<"nested deeper">>, depth},
        {<<"a malformed fun: its size is">>, fun_size},
        {<<"a malformed fun: its creator is not a pid">>, fun_parts},
        {<<"a malformed fun: its index or uniq is not an integer">>, fun_parts},
        {<<"a malformed fun: its uniq is too large">>, fun_parts},
        {<<"cut off">>, cut_off},
        {<<"a float is not a finite number">>, float},
        {<<"is not allowed">>, tag},
        {<<"0 bits in the last byte">>, no_bits},
        {<<"a key twice">>, equal_keys}
    ].

%% Whether it is the size of a fun that is too large: "N bytes wanted at offset At, Left left".
claims(Bytes, [Size, At, _]) ->
    case Bytes of
        <<_:(At - 1)/binary, 112, Size:32, _/binary>> -> true;
        _ -> false
    end;
claims(_, _) ->
    false.

%% "tag Tag at offset At".
internal(Bytes, [Tag, At]) when Tag =:= 73; Tag =:= 75 ->
    binary:at(Bytes, At) =:= Tag;
internal(Bytes, [121, At]) ->
    Outer = binary:matches(binary:part(Bytes, 0, At), <<121>>),
    binary:at(Bytes, At) =:= 121 andalso Outer =/= [];
internal(_, _) ->
    false.

numbers(Reason) ->
    case re:run(Reason, "[0-9]+", [global, {capture, first, list}]) of
        {match, All} -> [list_to_integer(N) || [N] <- All];
        nomatch -> []
    end.

%% As an offset counts.
plain_bytes(<<131, 80, _:32, Compressed/binary>> = Bytes) ->
    try <<131, (zlib:uncompress(Compressed))/binary>>
    catch error:_ -> Bytes
    end;
plain_bytes(Bytes) ->
    Bytes.

%% What `binary_to_term' refuses and we take, as we have parsed it: native records before OTP 29; what
%% LOCAL_EXT holds, which means something to its writer alone; numbers in identifiers that a node
%% knows it never gave out, as its own ones have fewer bits: under another node's name it takes them;
%% and two funs as keys of one map that are the same but for parts of which each release ignores
%% others (arity, index, the two uniqs; see `eq' and `erts_cmp' in utils.c).
accepted_by_us_alone(Answer, Foreign) ->
    case {lists:member(local, Foreign), lists:member(record, Foreign) andalso not term_gen:has_records()} of
        {true, _} -> {true, local};
        {_, true} -> {true, record};
        _ ->
            case own_identifier(Answer) of
                true -> {true, own_identifier};
                false -> {is_taken(numbered_funs(Answer, 0)), fun_key}
            end
    end.

own_identifier(Answer) ->
    Here = atom_to_binary(node()),
    Elsewhere = <<"N", (binary:part(Here, 1, byte_size(Here) - 1))/binary>>,
    Foreign = binary:replace(Answer, Here, Elsewhere, [global]),
    Foreign =/= Answer andalso is_taken(Foreign).

is_taken(Bytes) ->
    try binary_to_term(Bytes) of
        _ -> true
    catch
        error:badarg -> false
    end.

%% Funs that differ in their index.
numbered_funs(<<112, Size:32, Head:17/binary, _:32, Free:32, 119, Rest/binary>>, N) when Free < 256 ->
    Fun = <<112, Size:32, Head/binary, N:32, Free:32, 119>>,
    <<Fun/binary, (numbered_funs(Rest, N + 1))/binary>>;
numbered_funs(<<Byte, Rest/binary>>, N) ->
    <<Byte, (numbered_funs(Rest, N))/binary>>;
numbered_funs(<<>>, _) ->
    <<>>.

%% Whether a map has two references as keys that are equal.
equal_keys([Head | Tail]) -> equal_keys(Head) orelse equal_keys(Tail);
equal_keys(Tuple) when is_tuple(Tuple) -> equal_keys(tuple_to_list(Tuple));
equal_keys(Map) when is_map(Map) ->
    Keys = [K || K <- maps:keys(Map), not is_number(K)],
    length(lists:usort(Keys)) < length(Keys) orelse equal_keys(Keys) orelse equal_keys(maps:values(Map));
equal_keys(Fun) when is_function(Fun) ->
    {env, Env} = erlang:fun_info(Fun, env),
    equal_keys(Env);
equal_keys(_) -> false.

depth([Head | Tail]) -> max(1 + depth(Head), depth(Tail));
depth(Tuple) when is_tuple(Tuple) -> 1 + lists:max([0 | [depth(E) || E <- tuple_to_list(Tuple)]]);
depth(Map) when is_map(Map) -> 1 + lists:max([0 | [max(depth(K), depth(V)) || {K, V} <- maps:to_list(Map)]]);
depth(Fun) when is_function(Fun) ->
    case erlang:fun_info(Fun, env) of
        {env, Env} when is_list(Env) -> 1 + depth(Env);
        _ -> 1
    end;
depth(_) -> 1.
