%% Stands in for epmd: the nodes' ports are on the command line, `-bench_ports a1 4711 b1 4712`.
-module(bench_epmd).

-export([start_link/0, register_node/2, register_node/3, listen_port_please/2]).
-export([port_please/2, port_please/3, address_please/3, names/1]).

-define(DIST_VERSION, 6).

-spec start_link() -> ignore.
start_link() ->
    ignore.

-spec register_node(atom() | string(), inet:port_number()) -> {ok, 1..3}.
register_node(_, _) ->
    {ok, 1}.

-spec register_node(atom() | string(), inet:port_number(), inet | inet6) -> {ok, 1..3}.
register_node(_, _, _) ->
    {ok, 1}.

-spec listen_port_please(atom() | string(), string()) -> {ok, inet:port_number()}.
listen_port_please(Name, _) ->
    {ok, port(Name)}.

-spec port_please(atom() | string(), inet:ip_address() | string()) -> {port, inet:port_number(), ?DIST_VERSION}.
port_please(Name, _) ->
    {port, port(Name), ?DIST_VERSION}.

-spec port_please(atom() | string(), inet:ip_address() | string(), timeout()) -> {port, inet:port_number(), ?DIST_VERSION}.
port_please(Name, Host, _) ->
    port_please(Name, Host).

-spec address_please(atom() | string(), string(), inet | inet6) ->
    {ok, inet:ip_address(), inet:port_number(), ?DIST_VERSION} | {error, inet:posix()}.
address_please(Name, Host, Family) ->
    case inet:getaddr(Host, Family) of
        {ok, Address} -> {ok, Address, port(Name), ?DIST_VERSION};
        {error, _} = Error -> Error
    end.

-spec names(inet:hostname()) -> {error, address}.
names(_) ->
    {error, address}.

port(Name) when is_atom(Name) ->
    port(atom_to_list(Name));
port(Name) ->
    {ok, Arguments} = init:get_argument(bench_ports),
    port(Name, lists:append(Arguments)).

port(Name, [Name, Port | _]) -> list_to_integer(Port);
port(Name, [_, _ | Rest]) -> port(Name, Rest);
port(_, []) -> 0.
