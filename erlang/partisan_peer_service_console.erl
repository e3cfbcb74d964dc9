%% @doc Output for people at a shell.
-module(partisan_peer_service_console).

-export([members/1]).

%% @doc Prints the members, one a line, with whether they are connected.
-spec members([]) -> ok.
members([]) ->
    {ok, Members} = partisan_peer_service:members(),
    Width = lists:max([string:length(atom_to_list(Node)) || Node <- Members]),
    io:format("~*ts  ~ts~n", [-Width, "Member", "Connection"]),
    lists:foreach(
        fun(Node) -> io:format("~*ts  ~ts~n", [-Width, atom_to_list(Node), state(Node)]) end,
        Members
    ).

state(Node) ->
    case {partisan:node(), partisan:is_connected(Node)} of
        {Node, _} -> "this node";
        {_, true} -> "up";
        {_, false} -> "down"
    end.
