#!/usr/bin/env escript
%%! +pc unicode
%% Compares the text of terms with what OTP makes of it.
%%
%% The file holds a list of {External, Pretty, Plain}: a term and its two texts. The answer is a
%% list of {Pretty =:= External, Plain =:= External, "~0tp", "~tw"}, both texts read by OTP.
main([In, Out]) ->
    {ok, Bytes} = file:read_file(In),
    ok = file:write_file(Out, term_to_binary([answer(Case) || Case <- binary_to_term(Bytes)])).

answer({External, Pretty, Plain}) ->
    Term = binary_to_term(External),
    Pretty1 = unicode:characters_to_binary(io_lib:format("~0tp", [Term])),
    Plain1 = unicode:characters_to_binary(io_lib:format("~tw", [Term])),
    {read(Pretty) =:= {ok, Term}, read(Plain) =:= {ok, Term}, Pretty1, Plain1}.

read(Text) ->
    try
        {ok, Tokens, _} = erl_scan:string(unicode:characters_to_list([Text, "."])),
        erl_parse:parse_term(Tokens)
    catch
        _:Reason -> {error, Reason}
    end.
