#!/usr/bin/env escript
%%! -noinput
%% Does what a Markdown file tells its reader to do, and checks that it comes out as written.
%%
%%   quick_start.escript FILE DIRECTORY
%%
%% An HTML comment before a fenced block says what the block is:
%%
%%   <!-- file: demo/rebar.config -->   the contents of a file below DIRECTORY
%%   <!-- shell: demo/a -->             a terminal named `demo/a', in DIRECTORY/demo: typed in order
%%
%% In a terminal a line that begins with a prompt ("$ ", "(a@host)1> ", "iex(a@host)1> ") is typed,
%% with the indented lines below it. Every other line has to come out, as a whole line and in this
%% order, before the next one is typed. Pids match any pid. A line "..." is any output, or none.
%% A terminal stays open until the end, so that blocks of several can alternate.
-mode(compile).

-define(PATIENCE, 600000).
-define(PROMPT, "^(\\$ |(iex)?\\([^()\\s]+@[^()\\s]+\\)\\d*> |\\.\\.\\.\\([^()]*\\)\\d*> )").

main([File, Dir]) ->
    %% Closing a terminal's input must not close this program's.
    process_flag(trap_exit, true),
    {ok, Text} = file:read_file(File),
    Blocks = blocks(binary:split(Text, <<"\n">>, [global]), []),
    Blocks =/= [] orelse fail("~ts: nothing is marked", [File]),
    Terminals = lists:foldl(fun(Block, Acc) -> do(Block, Dir, Acc) end, #{}, Blocks),
    maps:foreach(fun(_, Terminal) -> close(Terminal) end, Terminals).

%% [{file | shell, Name, Lines}]
blocks([<<"<!-- ", Comment/binary>>, <<"```", _/binary>> | Lines], Acc) ->
    case re:run(Comment, "^(file|shell): (\\S+) -->$", [{capture, all_but_first, list}]) of
        {match, [Kind, Name]} ->
            {Block, [_ | Rest]} = lists:splitwith(fun(Line) -> Line =/= <<"```">> end, Lines),
            blocks(Rest, [{list_to_atom(Kind), Name, Block} | Acc]);
        nomatch ->
            blocks(Lines, Acc)
    end;
blocks([_ | Lines], Acc) ->
    blocks(Lines, Acc);
blocks([], Acc) ->
    lists:reverse(Acc).

do({file, Name, Lines}, Dir, Terminals) ->
    Path = filename:join(Dir, Name),
    ok = filelib:ensure_dir(Path),
    ok = file:write_file(Path, [[Line, $\n] || Line <- Lines]),
    Terminals;
do({shell, Name, Lines}, Dir, Terminals) ->
    Folder = filename:join(Dir, filename:dirname(Name)),
    Terminal = maps:get(Name, Terminals, #{name => Name, folder => Folder, port => none}),
    Terminals#{Name => type(Lines, Terminal)}.

type([], Terminal) ->
    Terminal;
type([Line | Lines], Terminal) ->
    case re:run(Line, ?PROMPT) of
        {match, [{0, Size} | _]} ->
            <<Prompt:Size/binary, First/binary>> = Line,
            {More, Rest} = lists:splitwith(fun is_indented/1, Lines),
            Input = lists:join($\n, [First | More]),
            type(Rest, enter(Prompt, iolist_to_binary(Input), Terminal));
        nomatch ->
            type(Lines, expect(Line, Terminal))
    end.

is_indented(<<" ", _/binary>>) -> true;
is_indented(_) -> false.

%% A command is a process of its own; whatever else is typed goes to the one that runs.
enter(<<"$ ">>, Command, #{name := Name, folder := Folder} = Terminal) ->
    _ = ended(Terminal),
    io:format("~ts$ ~ts~n", [Name, Command]),
    ok = filelib:ensure_dir(filename:join(Folder, "any")),
    Port = open_port({spawn_executable, "/bin/sh"}, [
        {args, ["-c", Command]}, {cd, Folder}, binary, exit_status, stderr_to_stdout, hide
    ]),
    Terminal#{port => Port, command => Command, is_shell => false, output => <<>>, seen => []};
enter(_, Input, #{name := Name, port := Port} = Terminal) ->
    io:format("~ts> ~ts~n", [Name, Input]),
    true = port_command(Port, [Input, $\n]),
    Terminal#{is_shell := true}.

%% A command that is followed by another has to end, and well.
ended(#{port := none}) ->
    ok;
ended(#{port := Port, command := Command} = Terminal) ->
    receive
        {Port, {data, Data}} -> ended(more(Data, Terminal));
        {Port, {exit_status, 0}} -> ok;
        {Port, {exit_status, Status}} ->
            fail("~ts~n`~ts` ended with status ~b", [shown(Terminal), Command, Status])
    after ?PATIENCE -> fail("~ts~n`~ts` does not end", [shown(Terminal), Command])
    end.

expect(<<"...">>, Terminal) ->
    Terminal;
expect(Wanted, #{name := Name, port := Port, output := Output} = Terminal) ->
    case take(plain(Wanted), Output) of
        {ok, Rest} ->
            io:format("~ts  ~ts~n", [Name, Wanted]),
            Terminal#{output := Rest};
        missing ->
            receive
                {Port, {data, Data}} -> expect(Wanted, more(Data, Terminal));
                {Port, {exit_status, Status}} ->
                    fail("~ts~n~ts: ended with status ~b, without `~ts`", [
                        shown(Terminal), Name, Status, Wanted
                    ])
            after ?PATIENCE ->
                fail("~ts~n~ts: `~ts` does not come out", [shown(Terminal), Name, Wanted])
            end
    end.

more(Data, #{output := Output, seen := Seen} = Terminal) ->
    Terminal#{output := <<Output/binary, Data/binary>>, seen := [Seen, Data]}.

take(Wanted, Output) ->
    case binary:split(Output, <<"\n">>) of
        [Line, Rest] ->
            case plain(Line) of
                Wanted -> {ok, Rest};
                _ -> take(Wanted, Rest)
            end;
        [_] ->
            missing
    end.

%% Without colours and prompts, and with one pid for all.
plain(Line) ->
    Steps = [{"\e\\[[0-9;]*[A-Za-z]", ""}, {"\r", ""}, {"<\\d+\\.\\d+\\.\\d+>", "<pid>"}, {"\\s+$", ""}],
    prompts(lists:foldl(
        fun({Pattern, By}, Acc) -> re:replace(Acc, Pattern, By, [global, {return, binary}]) end,
        Line,
        Steps
    )).

prompts(Line) ->
    case re:replace(Line, ?PROMPT, "", [{return, binary}]) of
        Line -> Line;
        Shorter -> prompts(Shorter)
    end.

%% A program has to end; what was typed into ends with its input.
close(#{name := Name, port := Port, is_shell := IsShell} = Terminal) ->
    case IsShell of
        true -> stop(Port);
        false -> ended(Terminal)
    end,
    io:format("~ts: closed~n", [Name]).

%% The shell runs its last command in its own place, so this is the process itself.
stop(Port) ->
    case erlang:port_info(Port, os_pid) of
        {os_pid, Pid} when is_integer(Pid) -> os:cmd("kill " ++ integer_to_list(Pid));
        _ -> ended_already
    end.

shown(#{seen := Seen}) ->
    Seen.

-spec fail(io:format(), [term()]) -> no_return().
fail(Format, Args) ->
    io:format(standard_error, "~n" ++ Format ++ "~n", Args),
    lists:foreach(fun stop/1, erlang:ports()),
    halt(1).
