#!/usr/bin/env escript
%% The VM's own codec in the same race: reads lines `Op Rounds Base64`, answers with nanoseconds
%% per round and the weight of the term's leaves.
-mode(compile).

main(_) ->
    case io:get_line("") of
        eof -> ok;
        Line ->
            [Op, Rounds, Base64] = string:lexemes(string:trim(Line), " "),
            Bytes = base64:decode(Base64),
            {Time, Weight} = run(Op, list_to_integer(Rounds), Bytes),
            io:format("~b ~b~n", [Time div list_to_integer(Rounds), Weight]),
            main([])
    end.

run(Op, Rounds, Bytes) ->
    Self = self(),
    Term = binary_to_term(Bytes),
    Work = case Op of
        "decode" -> fun() -> decode(Rounds, Bytes, 0) end;
        "encode" -> fun() -> encode(Rounds, Term), 0 end
    end,
    spawn_opt(fun() ->
        From = erlang:monotonic_time(nanosecond),
        Weight = Work(),
        Self ! {erlang:monotonic_time(nanosecond) - From, Weight}
    end, [link]),
    receive Result -> Result end.

decode(0, _, Weight) -> Weight;
decode(N, Bytes, _) -> decode(N - 1, Bytes, weight(binary_to_term(Bytes))).

encode(0, _) -> ok;
encode(N, Term) -> true = is_binary(term_to_binary(Term)), encode(N - 1, Term).

weight([Head | Tail]) -> weight(Head) + weight(Tail);
weight([]) -> 0;
weight(Tuple) when is_tuple(Tuple) -> elements(Tuple, tuple_size(Tuple), 0);
weight(Integer) when is_integer(Integer) -> Integer;
weight(<<First, _/binary>> = Binary) -> byte_size(Binary) + First;
weight(_) -> 1.

elements(_, 0, Sum) -> Sum;
elements(Tuple, N, Sum) -> elements(Tuple, N - 1, Sum + weight(element(N, Tuple))).
