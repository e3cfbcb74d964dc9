%% @doc Addresses, channels and node specifications: reading what users write, and translating
%% to and from what the native library takes.
-module(partisan_util).

-include("partisan.hrl").
-include("partisan_util.hrl").

-export([parse_ip_address/1, parse_listen_address/1, parse_listen_address/2]).
-export([format_listen_address/1]).
-export([channels/2, compression_level/1]).
-export([node_name/1, existing_node_name/1]).
-export([node_spec/1, to_native/1, from_native/1]).
-export([safe_apply/4]).

-export_type([listen_addr/0]).

-type listen_addr() :: #{ip := inet:ip_address(), port := inet:port_number()}.

%% Bounds of the native library (`src/limits.rs').
-define(MAX_CHANNELS, 64).
-define(MAX_PARALLELISM, 256).
-define(MAX_CONNECTIONS, 1024).
%% What `compression => true' stands for: zlib's default level.
-define(COMPRESSION_LEVEL, 6).

%% @doc An address as tuple, string or binary. Error `badarg' for anything else; names are not
%% resolved.
-spec parse_ip_address(inet:ip_address() | string() | binary()) -> inet:ip_address().
parse_ip_address(Ip) when is_tuple(Ip) ->
    case inet:ntoa(Ip) of
        {error, einval} -> error(badarg);
        _ -> Ip
    end;
parse_ip_address(Ip) when is_binary(Ip) ->
    parse_ip_address(binary_to_list(Ip));
parse_ip_address(Ip) when is_list(Ip) ->
    case inet:parse_strict_address(Ip) of
        {ok, Parsed} -> Parsed;
        {error, einval} -> error(badarg)
    end;
parse_ip_address(_) ->
    error(badarg).

%% @doc As `parse_listen_address/2' for forms that name their port; 0 where they don't.
-spec parse_listen_address(term()) -> listen_addr().
parse_listen_address(Term) ->
    parse_listen_address(Term, 0).

%% @doc A listen address: `"ip:port"', `"[ip6]:port"', the same as binary, `"ip"', `{Ip, Port}' or
%% `#{ip, port}'. A form without a port gets `DefaultPort'. Error `badarg' for anything else.
-spec parse_listen_address(term(), inet:port_number()) -> listen_addr().
parse_listen_address(#{ip := Ip, port := Port}, _) ->
    #{ip => parse_ip_address(Ip), port => parse_port(Port)};
parse_listen_address(#{ip := Ip}, Default) ->
    #{ip => parse_ip_address(Ip), port => Default};
parse_listen_address({Ip, Port}, _) ->
    #{ip => parse_ip_address(Ip), port => parse_port(Port)};
parse_listen_address(Ip, Default) when is_tuple(Ip) ->
    #{ip => parse_ip_address(Ip), port => Default};
parse_listen_address(Text, Default) when is_binary(Text) ->
    parse_listen_address(binary_to_list(Text), Default);
parse_listen_address("[" ++ Text, Default) ->
    case string:split(Text, "]") of
        [Ip, ":" ++ Port] -> #{ip => parse_ip_address(Ip), port => parse_port(Port)};
        [Ip, ""] -> #{ip => parse_ip_address(Ip), port => Default};
        _ -> error(badarg)
    end;
parse_listen_address(Text, Default) when is_list(Text) ->
    %% An IPv6 address without brackets has no port: its last group can't be told from one.
    case inet:parse_strict_address(Text) of
        {ok, Ip} ->
            #{ip => Ip, port => Default};
        {error, einval} ->
            case string:split(Text, ":", trailing) of
                [Ip, Port] -> #{ip => parse_ip_address(Ip), port => parse_port(Port)};
                _ -> error(badarg)
            end
    end;
parse_listen_address(_, _) ->
    error(badarg).

parse_port(Port) when is_integer(Port), Port >= 0, Port =< 65535 ->
    Port;
parse_port(Port) when is_binary(Port) ->
    parse_port(binary_to_list(Port));
parse_port([_ | _] = Port) ->
    parse_port(list_to_integer(Port));
parse_port(_) ->
    error(badarg).

%% @doc `"ip:port"', with brackets around an IPv6 address.
-spec format_listen_address(listen_addr()) -> string().
format_listen_address(#{ip := Ip, port := Port}) when tuple_size(Ip) =:= 8 ->
    lists:flatten(io_lib:format("[~s]:~b", [inet:ntoa(Ip), Port]));
format_listen_address(#{ip := Ip, port := Port}) ->
    lists:flatten(io_lib:format("~s:~b", [inet:ntoa(Ip), Port])).

%% @doc Brings channels into one form, a map from name to options.
%%
%% Accepted: a list of `Name', `{monotonic, Name}', `{Name, Opts}' (`Opts' a map or a property
%% list), `#{name => Name, ...}'; or a map from name to options. The default channel always has
%% the global parallelism, is not monotonic and not compressed; `partisan_membership' is added
%% where it is missing and never monotonic. Error `badarg' for anything else.
-spec channels(term(), pos_integer()) -> #{partisan:channel() => partisan:channel_opts()}.
channels(Term, Parallelism) ->
    Given = maps:from_list([channel(C, Parallelism) || C <- channel_list(Term)]),
    Membership = maps:get(
        ?MEMBERSHIP_CHANNEL, Given, #{parallelism => 1, monotonic => false, compression => true}
    ),
    Channels = Given#{
        ?DEFAULT_CHANNEL =>
            #{parallelism => Parallelism, monotonic => false, compression => false},
        ?MEMBERSHIP_CHANNEL => Membership#{monotonic := false}
    },
    Connections = lists:sum([N || #{parallelism := N} <- maps:values(Channels)]),
    case map_size(Channels) =< ?MAX_CHANNELS andalso Connections =< ?MAX_CONNECTIONS of
        true -> Channels;
        false -> error(badarg)
    end.

channel_list(Term) when is_map(Term) -> maps:to_list(Term);
channel_list(Term) when is_list(Term) -> Term;
channel_list(_) -> error(badarg).

channel({monotonic, Name}, Parallelism) when is_atom(Name) ->
    channel({Name, #{monotonic => true}}, Parallelism);
channel({Name, Opts}, Parallelism) when is_list(Opts) ->
    channel({Name, proplists:to_map(Opts)}, Parallelism);
channel({Name, Opts}, Default) when is_atom(Name), is_map(Opts) ->
    Parallelism = maps:get(parallelism, Opts, Default),
    Monotonic = maps:get(monotonic, Opts, false),
    Compression = maps:get(compression, Opts, false),
    _ = compression_level(Compression),
    Valid =
        is_integer(Parallelism) andalso Parallelism >= 1 andalso
            Parallelism =< ?MAX_PARALLELISM andalso is_boolean(Monotonic),
    case Valid of
        true ->
            {Name, #{
                parallelism => Parallelism, monotonic => Monotonic, compression => Compression
            }};
        false ->
            error(badarg)
    end;
channel(#{name := Name} = Opts, Parallelism) ->
    channel({Name, maps:remove(name, Opts)}, Parallelism);
channel(Name, Parallelism) when is_atom(Name) ->
    channel({Name, #{}}, Parallelism);
channel(_, _) ->
    error(badarg).

%% @doc The level of the channel option `compression': 0 is none, 9 the strongest.
-spec compression_level(boolean() | 0..9) -> 0..9.
compression_level(false) -> 0;
compression_level(true) -> ?COMPRESSION_LEVEL;
compression_level(N) when is_integer(N), N >= 0, N =< 9 -> N;
compression_level(_) -> error(badarg).

%% @doc A node name as atom, from atom, binary or string. Error `badarg' unless it has the form
%% `name@host'.
-spec node_name(node() | binary() | string()) -> node().
node_name(Name) when is_atom(Name) ->
    case binary:split(atom_to_binary(Name), <<"@">>, [global]) of
        [<<_, _/binary>>, <<_, _/binary>>] -> Name;
        _ -> error(badarg)
    end;
node_name(Name) when is_binary(Name), byte_size(Name) =< 1020 ->
    node_name(binary_to_atom(Name));
node_name(Name) when is_list(Name) ->
    node_name(unicode:characters_to_binary(Name));
node_name(_) ->
    error(badarg).

%% @doc As `node_name/1', but a name that no atom exists for is `error': no node of that name can
%% be known here, and asking must not create atoms.
-spec existing_node_name(node() | binary() | string()) -> {ok, node()} | error.
existing_node_name(Name) when is_atom(Name) ->
    {ok, Name};
existing_node_name(Name) when is_binary(Name) ->
    try
        {ok, binary_to_existing_atom(Name)}
    catch
        error:_ -> error
    end;
existing_node_name(Name) when is_list(Name) ->
    existing_node_name(unicode:characters_to_binary(Name));
existing_node_name(_) ->
    error.

%% @doc Checks a node specification and fills in what may be left out. Listen addresses may be
%% given in every form of `parse_listen_address/1', with a port. Error `badarg' otherwise.
-spec node_spec(map()) -> partisan:node_spec().
node_spec(#{name := Name, listen_addrs := [_ | _] = Addrs} = Spec) ->
    Parallelism = maps:get(parallelism, Spec, ?PARALLELISM),
    Parsed = lists:usort([parse_listen_address(A) || A <- Addrs]),
    lists:all(fun(#{port := Port}) -> ?IS_PORT_NBR(Port) end, Parsed) orelse error(badarg),
    #{
        name => node_name(Name),
        listen_addrs => Parsed,
        channels => channels(maps:get(channels, Spec, #{}), Parallelism)
    };
node_spec(_) ->
    error(badarg).

%% @doc A node specification in the native library's form.
-spec to_native(partisan:node_spec()) -> partisan_nif:spec().
to_native(#{name := Name, listen_addrs := Addrs, channels := Channels}) ->
    {Name, [{Ip, Port} || #{ip := Ip, port := Port} <- Addrs], [
        {Channel, maps:get(parallelism, Opts), maps:get(monotonic, Opts, false),
            compression_level(maps:get(compression, Opts, false))}
     || {Channel, Opts} <- lists:sort(maps:to_list(Channels))
    ]}.

%% @doc A node specification from the native library's form.
-spec from_native(partisan_nif:spec()) -> partisan:node_spec().
from_native({Name, Addrs, Channels}) ->
    #{
        name => Name,
        listen_addrs => lists:usort([#{ip => Ip, port => Port} || {Ip, Port} <- Addrs]),
        channels => maps:from_list([
            {Channel, #{
                parallelism => Parallelism,
                monotonic => Monotonic,
                compression => from_level(Level)
            }}
         || {Channel, Parallelism, Monotonic, Level} <- Channels
        ])
    }.

from_level(0) -> false;
from_level(?COMPRESSION_LEVEL) -> true;
from_level(Level) -> Level.

%% @doc Calls `Mod:Fun' with `Args' if it is exported, else returns `Default'. What the function
%% raises goes to the caller.
-spec safe_apply(module(), atom(), [term()], term()) -> term().
safe_apply(Mod, Fun, Args, Default) ->
    _ = code:ensure_loaded(Mod),
    case erlang:function_exported(Mod, Fun, length(Args)) of
        true -> apply(Mod, Fun, Args);
        false -> Default
    end.
