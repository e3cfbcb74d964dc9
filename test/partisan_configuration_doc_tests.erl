%% docs/configuration.md and partisan_config_schema say the same.
-module(partisan_configuration_doc_tests).

-include_lib("eunit/include/eunit.hrl").

-define(SCHEMA, partisan_config_schema).

supported_keys_test() ->
    Documented = [Key || {Key, _} <- supported()],
    %% The clauses of type/1 are the supported keys; the last one is for all others.
    Known = [Key || {clause, _, [{atom, _, Key}], _, _} <- clauses(type)],
    ?assert(length(Known) > 25),
    ?assertEqual(lists:sort(Known), lists:sort(Documented)),
    [?assertEqual({Key, supported}, {Key, ?SCHEMA:status(Key)}) || Key <- Documented].

supported_defaults_test() ->
    ?assertEqual(?SCHEMA:defaults(), constants(supported())).

later_keys_test() ->
    [{clause, _, [], [], [Unset]}] = clauses(later_unset),
    Known = maps:keys(?SCHEMA:later_defaults()) ++ erl_parse:normalise(Unset),
    Documented = [Key || {Key, _} <- later()],
    ?assertEqual(lists:sort(Known), lists:sort(Documented)),
    [?assertEqual({Key, later}, {Key, ?SCHEMA:status(Key)}) || Key <- Documented].

later_defaults_test() ->
    ?assertEqual(?SCHEMA:later_defaults(), constants(later())).

old_names_test() ->
    Known = [{Old, New} || {clause, _, [{atom, _, Old}], _, [{atom, _, New}]} <- clauses(canonical)],
    Documented = [{Old, term(New)} || {Old, [New]} <- section(<<"Old names">>)],
    ?assertEqual(lists:sort(Known), lists:sort(Documented)).

%% Tables whose rows are key, type, default, effect.
supported() ->
    Sections = [<<"Who and where">>, <<"Channels and messages">>, <<"Connections">>, <<"Overlay">>, <<"Broadcast">>, <<"Bounds">>, <<"Tuning">>, <<"For tests">>],
    [{Key, Default} || Title <- Sections, {Key, [_, Default, _]} <- section(Title)].

later() ->
    [{Key, Default} || {Key, [Default]} <- section(<<"Of later work">>)].

%% Defaults that are terms, and not told in words.
constants(Rows) ->
    maps:from_list([{Key, term(Text)} || {Key, <<"`", _/binary>> = Text} <- Rows]).

section(Title) ->
    [Body] = [B || S <- binary:split(doc(), <<"\n## ">>, [global]), [T, B] <- [binary:split(S, <<"\n">>)], T =:= Title],
    [row(Line) || <<"| `", _/binary>> = Line <- binary:split(Body, <<"\n">>, [global])].

row(Line) ->
    [<<>>, Key | Cells] = [string:trim(Cell) || Cell <- binary:split(Line, <<"|">>, [global])],
    {term(Key), lists:droplast(Cells)}.

%% What stands in the first pair of backticks.
term(Text) ->
    [<<>>, Code | _] = binary:split(Text, <<"`">>, [global]),
    {ok, Tokens, _} = erl_scan:string(binary_to_list(Code) ++ "."),
    {ok, Term} = erl_parse:parse_term(Tokens),
    Term.

doc() ->
    Root = filename:dirname(filename:dirname(proplists:get_value(source, ?MODULE:module_info(compile)))),
    {ok, Text} = file:read_file(filename:join([Root, "docs", "configuration.md"])),
    Text.

clauses(Function) ->
    {ok, {_, [{abstract_code, {_, Forms}}]}} = beam_lib:chunks(code:which(?SCHEMA), [abstract_code]),
    [Clauses] = [Cs || {function, _, Name, _, Cs} <- Forms, Name =:= Function],
    Clauses.
