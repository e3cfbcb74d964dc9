%% @doc The cookie that peers must share. There is no default: without one the node refuses to
%% start.
-module(partisan_cookie).

-export([own/0, of_peers/0]).

%% @doc The cookie of this node: the configuration key `cookie'; else the VM's own, if it is
%% alive; else the environment variable `PARTISAN_COOKIE'; else the file `~/.erlang.cookie'.
-spec own() -> {ok, binary()} | {error, no_cookie}.
own() ->
    first([fun configured/0, fun of_vm/0, fun of_environment/0, fun of_file/0]).

first([]) ->
    {error, no_cookie};
first([Source | Sources]) ->
    case Source() of
        Cookie when is_binary(Cookie), Cookie =/= <<>> -> {ok, Cookie};
        _ -> first(Sources)
    end.

configured() ->
    partisan_config:get(cookie, undefined).

of_vm() ->
    is_alive() andalso cookie(erlang:get_cookie()).

of_environment() ->
    case os:getenv("PARTISAN_COOKIE") of
        false -> undefined;
        Cookie -> unicode:characters_to_binary(string:trim(Cookie))
    end.

of_file() ->
    case init:get_argument(home) of
        {ok, [[Home | _] | _]} ->
            case file:read_file(filename:join(Home, ".erlang.cookie")) of
                {ok, Cookie} -> string:trim(Cookie);
                {error, _} -> undefined
            end;
        _ ->
            undefined
    end.

%% @doc The cookies that differ from the node's own, by `erlang:set_cookie/2', among the nodes
%% that the VM knows. Empty where the key `cookie' is set, which holds for all peers.
-spec of_peers() -> #{node() => binary()}.
of_peers() ->
    case is_alive() andalso configured() =:= undefined of
        true ->
            Own = erlang:get_cookie(),
            maps:from_list([
                {Node, cookie(Cookie)}
             || Node <- nodes(known),
                Node =/= node(),
                Cookie <- [erlang:get_cookie(Node)],
                Cookie =/= Own,
                Cookie =/= nocookie
            ]);
        false ->
            #{}
    end.

cookie(nocookie) -> undefined;
cookie(Cookie) -> atom_to_binary(Cookie).
