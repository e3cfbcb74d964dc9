%% @doc Partisan's face to Erlang programs: nodes, references, messages.
%%
%% The functions resemble those of `erlang' and `net_kernel', over Partisan's own connections.
%% A destination (`server_ref()') is a pid, a registered name, `{Name, Node}', a remote reference
%% of a pid or name in any format, `{encoded_pid, _}' or `{encoded_name, _}' together with a node,
%% `{global, Name}' or `{via, Module, Name}'.
-module(partisan).

-include("partisan.hrl").

-export([start/0, stop/0, is_alive/0]).
-export([forward_message/2, forward_message/3, forward_message/4]).
-export([cast_message/2, cast_message/3, cast_message/4]).
-export([send/2, send/3]).
-export([broadcast/2]).
-export([self/0, self/1, make_ref/0, whereis/1]).
-export([node/0, node/1, nodestring/0, nodes/0, nodes/1]).
-export([node_spec/0, node_spec/1, node_spec/2, node_info/1]).
-export([is_connected/1, is_connected/2, is_fully_connected/1]).
-export([is_local/1, is_local_name/1, is_local_name/2, is_local_pid/1, is_local_pid/2]).
-export([is_local_reference/1, is_local_reference/2, is_self/1]).
-export([is_pid/1, is_reference/1, is_process_alive/1]).
-export([channel_opts/1, default_channel/0]).
-export([monitor_node/2, monitor_node/3, monitor_nodes/1, monitor_nodes/2]).
-export([disconnect_node/1, kill_connections/1, join/1, leave/0]).

-compile(
    {no_auto_import, [
        self/0,
        make_ref/0,
        node/0,
        node/1,
        nodes/0,
        nodes/1,
        send/2,
        send/3,
        whereis/1,
        is_alive/0,
        is_pid/1,
        is_reference/1,
        is_process_alive/1,
        monitor_node/2,
        monitor_node/3,
        disconnect_node/1
    ]}
).

-export_type([node_spec/0, node_type/0, channel/0, channel_opts/0, server_ref/0]).
-export_type([forward_opts/0, listen_addr/0, remote_ref/0]).

-type listen_addr() :: partisan_util:listen_addr().
-type channel() :: atom().
%% The default channel is `undefined'.
-type channel_opts() :: #{
    parallelism := pos_integer(),
    monotonic => boolean(),
    compression => boolean() | 0..9
}.
-type node_spec() :: #{
    name := node(),
    listen_addrs := [listen_addr()],
    channels := #{channel() => channel_opts()}
}.
-type node_type() :: this | known | visible | connected | hidden.
-type remote_ref() :: partisan_remote_ref:t().
-type server_ref() ::
    pid()
    | atom()
    | {atom(), node()}
    | remote_ref()
    | partisan_remote_ref:target()
    | {global, term()}
    | {via, module(), term()}.
-type forward_opts() :: map() | [{atom(), term()} | atom()].
%% `channel' (atom, default `undefined'), `partition_key' (non-negative integer), `timeout'
%% (milliseconds or `infinity', the default), `nosuspend' (boolean), `channel_fallback' (boolean), `ack'
%% (boolean), `causal_label' (one of the configuration key `causal_labels').

-define(MANAGER, partisan_pluggable_peer_service_manager).
-define(CONTROL_TIMEOUT, 5000).

%%%-------------------------------------------------------------------------------------------
%%% The application
%%%-------------------------------------------------------------------------------------------

%% @doc Starts the application and what it needs.
-spec start() -> {ok, [atom()]} | {error, term()}.
start() ->
    application:ensure_all_started(partisan).

%% @doc Stops the application: closes every connection.
-spec stop() -> ok | {error, term()}.
stop() ->
    application:stop(partisan).

%% @doc Whether this node runs.
-spec is_alive() -> boolean().
is_alive() ->
    erlang:whereis(?MANAGER) =/= undefined.

%%%-------------------------------------------------------------------------------------------
%%% Messages
%%%-------------------------------------------------------------------------------------------

%% @doc `forward_message(Dest, Msg, #{})'.
-spec forward_message(server_ref(), term()) -> ok | {error, term()}.
forward_message(Dest, Msg) ->
    partisan_forward:message(Dest, Msg, #{}).

%% @doc Sends a message to a destination that names its node, or to one on this node.
%%
%% Messages of one sender to one node, on one channel and with one partition key (or none), arrive
%% in order, at most once. The caller waits where the queue of the connection is full. Options of
%% the configuration key `forward_options' hold where the call says nothing. Options that nobody
%% knows are ignored.
%%
%% `ok' means that the message was queued, or delivered on this node; an unknown name or a dead
%% process at the destination is no error. Otherwise `{error, Reason}', and it was not sent:
%% `not_yet_connected' (never since the start), `disconnected' (not now, or lost while waiting; on a partial
%% overlay either says that the node could not be reached),
%% `notalive' (Partisan doesn't run), `timeout' (no room within `timeout'), `busy' (no room and
%% `nosuspend'), `{limit, What}' (a term over a limit), `{unknown_label, Label}' (none of
%% `causal_labels').
%%
%% With `ack' the message is kept until the other node has delivered it: see guarantees.md. `ok' then means that it is kept,
%% and a node that is not connected for the moment is no error. `causal_label' keeps the causal order of the label's
%% messages as well, on the default channel.
%%
%% Error `badarg' for a name that isn't registered on this node, a bad destination or a bad
%% option.
-spec forward_message(server_ref(), term(), forward_opts()) -> ok | {error, term()}.
forward_message(Dest, Msg, Opts) ->
    partisan_forward:message(Dest, Msg, Opts).

%% @doc As `forward_message/3', to a destination on `Node'. Delivery on this node never fails. A
%% pid or remote reference of a node other than `Node' goes where it says.
-spec forward_message(node(), server_ref(), term(), forward_opts()) -> ok | {error, term()}.
forward_message(Node, Dest, Msg, Opts) ->
    partisan_forward:message(Node, Dest, Msg, Opts).

%% @doc `cast_message(Dest, Msg, #{})'.
-spec cast_message(server_ref(), term()) -> ok.
cast_message(Dest, Msg) ->
    partisan_forward:cast(Dest, Msg, #{}).

%% @doc Sends `{'$gen_cast', Msg}' as `forward_message/3', waiting likewise; always `ok'.
-spec cast_message(server_ref(), term(), forward_opts()) -> ok.
cast_message(Dest, Msg, Opts) ->
    partisan_forward:cast(Dest, Msg, Opts).

%% @doc Sends `{'$gen_cast', Msg}' as `forward_message/4', waiting likewise; always `ok'.
-spec cast_message(node(), server_ref(), term(), forward_opts()) -> ok.
cast_message(Node, Dest, Msg, Opts) ->
    partisan_forward:cast(Node, Dest, Msg, Opts).

%% @doc Sends a message and returns it, as `erlang:send/2': a node that can't be reached is no
%% error, a name that isn't registered on this node is (`badarg').
-spec send(server_ref(), Msg) -> Msg.
send({Name, Node}, Msg) when is_atom(Name), is_atom(Node), Name =/= global ->
    _ = partisan_forward:message(Node, Name, Msg, #{}),
    Msg;
send(Dest, Msg) ->
    _ = partisan_forward:message(Dest, Msg, #{}),
    Msg.

%% @doc As `forward_message/3'.
-spec send(server_ref(), term(), forward_opts()) -> ok | {error, term()}.
send(Dest, Msg, Opts) ->
    partisan_forward:message(Dest, Msg, Opts).

%% @doc As `partisan_plumtree_broadcast:broadcast/2'.
-spec broadcast(term(), module()) -> ok | {error, term()}.
broadcast(Term, Mod) ->
    partisan_plumtree_broadcast:broadcast(Term, Mod).

%%%-------------------------------------------------------------------------------------------
%%% References and processes
%%%-------------------------------------------------------------------------------------------

%% @doc The calling process as remote reference.
-spec self() -> partisan_remote_ref:p().
self() ->
    partisan_remote_ref:from_term(erlang:self()).

%% @doc As `self/0'. With the option `cache' it is made once and kept in the process dictionary.
-spec self([cache]) -> partisan_remote_ref:p().
self([]) ->
    self();
self([cache]) ->
    case get({?MODULE, self}) of
        undefined ->
            Ref = self(),
            _ = put({?MODULE, self}, Ref),
            Ref;
        Ref ->
            Ref
    end.

%% @doc A fresh reference as remote reference.
-spec make_ref() -> partisan_remote_ref:r().
make_ref() ->
    partisan_remote_ref:from_term(erlang:make_ref()).

%% @doc The process or port registered on this node under a name, or under the name in a remote
%% reference. Error `badarg' for a remote reference of another node or kind.
-spec whereis(atom() | partisan_remote_ref:n()) -> pid() | port() | undefined.
whereis(Name) when is_atom(Name) ->
    erlang:whereis(Name);
whereis(Ref) ->
    erlang:whereis(partisan_remote_ref:to_name(Ref)).

%% @doc Whether a process lives. For one of another node that node is asked; error `Reason' if it
%% can't be, or doesn't answer within 5 s (`timeout').
-spec is_process_alive(pid() | partisan_remote_ref:p()) -> boolean().
is_process_alive(Pid) when erlang:is_pid(Pid) ->
    case erlang:node(Pid) =:= erlang:node() of
        true -> erlang:is_process_alive(Pid);
        false -> is_remote_alive(erlang:node(Pid), Pid)
    end;
is_process_alive(Ref) ->
    case partisan_remote_ref:is_pid(Ref) andalso partisan_remote_ref:destination(Ref) of
        {Node, {_, _, _} = Numbers} ->
            case node() of
                Node -> erlang:is_process_alive(partisan_remote_ref:to_pid(Ref));
                _ -> is_remote_alive(Node, Numbers)
            end;
        _ ->
            error(badarg)
    end.

is_remote_alive(Node, Process) ->
    case partisan_control:call(Node, {is_process_alive, Process}, ?CONTROL_TIMEOUT) of
        {ok, Alive} when is_boolean(Alive) -> Alive;
        {ok, _} -> error(badarg);
        {error, Reason} -> error(Reason)
    end.

%% @doc Whether a term is a pid, native or as remote reference. Never fails.
-spec is_pid(term()) -> boolean().
is_pid(Term) ->
    erlang:is_pid(Term) orelse partisan_remote_ref:is_pid(Term).

%% @doc Whether a term is a reference, native or as remote reference. Never fails.
-spec is_reference(term()) -> boolean().
is_reference(Term) ->
    erlang:is_reference(Term) orelse partisan_remote_ref:is_reference(Term).

%% @doc Whether a pid, port, reference or remote reference is of this node. Error `badarg' for
%% other terms.
-spec is_local(pid() | port() | reference() | remote_ref()) -> boolean().
is_local(Term) when erlang:is_pid(Term); erlang:is_reference(Term); is_port(Term) ->
    erlang:node(Term) =:= erlang:node();
is_local(Term) ->
    partisan_remote_ref:is_local(Term).

%% @doc Whether a term is a name, or a remote reference of a name on this node.
-spec is_local_name(term()) -> boolean().
is_local_name(Term) ->
    is_atom(Term) orelse partisan_remote_ref:is_local_name(Term).

%% @doc Whether a term is this name, or a remote reference of it on this node.
-spec is_local_name(term(), atom()) -> boolean().
is_local_name(Term, Name) when is_atom(Name) ->
    Term =:= Name orelse partisan_remote_ref:is_local_name(Term, Name);
is_local_name(_, _) ->
    error(badarg).

%% @doc Whether a term is a pid of this node, native or as remote reference.
-spec is_local_pid(term()) -> boolean().
is_local_pid(Term) when erlang:is_pid(Term) ->
    erlang:node(Term) =:= erlang:node();
is_local_pid(Term) ->
    partisan_remote_ref:is_local_pid(Term).

%% @doc Whether a term is this pid of this node, native or as remote reference.
-spec is_local_pid(term(), pid()) -> boolean().
is_local_pid(Term, Pid) when erlang:is_pid(Term), erlang:is_pid(Pid) ->
    Term =:= Pid andalso is_local_pid(Pid);
is_local_pid(Term, Pid) when erlang:is_pid(Pid) ->
    partisan_remote_ref:is_local_pid(Term, Pid);
is_local_pid(_, _) ->
    error(badarg).

%% @doc Whether a term is a reference of this node, native or as remote reference.
-spec is_local_reference(term()) -> boolean().
is_local_reference(Term) when erlang:is_reference(Term) ->
    erlang:node(Term) =:= erlang:node();
is_local_reference(Term) ->
    partisan_remote_ref:is_local_reference(Term).

%% @doc Whether a term is this reference of this node, native or as remote reference.
-spec is_local_reference(term(), reference()) -> boolean().
is_local_reference(Term, Ref) when erlang:is_reference(Term), erlang:is_reference(Ref) ->
    Term =:= Ref andalso is_local_reference(Ref);
is_local_reference(Term, Ref) when erlang:is_reference(Ref) ->
    partisan_remote_ref:is_local_reference(Term, Ref);
is_local_reference(_, _) ->
    error(badarg).

%% @doc Whether a term is the calling process, as pid or remote reference.
-spec is_self(term()) -> boolean().
is_self(Term) ->
    is_local_pid(Term, erlang:self()).

%%%-------------------------------------------------------------------------------------------
%%% Nodes
%%%-------------------------------------------------------------------------------------------

%% @doc The name of this node in Partisan, which need not be the VM's.
-spec node() -> node().
node() ->
    case partisan_config:send_defaults() of
        {Name, _, _} when Name =/= undefined -> Name;
        _ -> erlang:node()
    end.

%% @doc The node of a pid, port, reference or remote reference. Error `badarg' for other terms.
-spec node(pid() | port() | reference() | remote_ref()) -> node().
node(Term) when erlang:is_pid(Term); erlang:is_reference(Term); is_port(Term) ->
    case erlang:node(Term) of
        Here when Here =:= erlang:node() -> node();
        'nonode@nohost' -> node();
        Node -> Node
    end;
node(Term) ->
    partisan_remote_ref:node(Term).

%% @doc The name of this node as binary.
-spec nodestring() -> binary().
nodestring() ->
    case partisan_config:get(nodestring, undefined) of
        undefined -> atom_to_binary(node());
        Name -> Name
    end.

%% @doc The nodes that this one is connected with.
-spec nodes() -> [node()].
nodes() ->
    partisan_nif:nodes().

%% @doc Nodes of a type or of several: `visible' and `connected' as `nodes/0', `this' is this
%% node, `known' are the members of the cluster, this node among them, `hidden' none.
-spec nodes(node_type() | [node_type()]) -> [node()].
nodes(Types) when is_list(Types) -> lists:flatmap(fun(Type) -> nodes(Type) end, Types);
nodes(visible) -> nodes();
nodes(connected) -> nodes();
nodes(hidden) -> [];
nodes(this) -> [node()];
nodes(known) ->
    case is_alive() of
        true ->
            {ok, Members} = ?MANAGER:members(),
            Members;
        false ->
            [node()]
    end;
nodes(_) ->
    error(badarg).

%% @doc The specification of this node: name, listen addresses, channels.
-spec node_spec() -> node_spec().
node_spec() ->
    #{
        name => node(),
        listen_addrs => partisan_config:listen_addrs(),
        channels => partisan_config:channels()
    }.

%% @doc The specification of this node, a connected node or a member; `{error,
%% not_yet_connected}' for others.
-spec node_spec(node() | binary() | string()) -> {ok, node_spec()} | {error, term()}.
node_spec(Node) ->
    node_spec(Node, #{}).

%% @doc As `node_spec/1'. The options (`rpc_timeout') are accepted and not needed.
-spec node_spec(node() | binary() | string(), map() | list()) ->
    {ok, node_spec()} | {error, term()}.
node_spec(Name, _Opts) ->
    case partisan_util:existing_node_name(Name) of
        error ->
            {error, not_yet_connected};
        {ok, Node} ->
            case node() of
                Node -> {ok, node_spec()};
                _ -> ?MANAGER:spec_of(Node)
            end
    end.

%% @doc Facts about this node: `name', `channels', `listen_addrs', `listen_ip', `listen_port',
%% `metadata', `connection_count'. Other keys are skipped.
-spec node_info([atom()]) -> #{atom() => term()}.
node_info(Keys) ->
    maps:from_list([{Key, Value} || Key <- Keys, {ok, Value} <- [info(Key)]]).

info(name) -> {ok, node()};
info(channels) -> {ok, partisan_config:channels()};
info(listen_addrs) -> {ok, partisan_config:listen_addrs()};
info(listen_ip) -> {ok, partisan_config:get(listen_ip)};
info(listen_port) -> {ok, partisan_config:get(listen_port)};
info(metadata) -> {ok, partisan_config:get(metadata, #{})};
info(connection_count) -> {ok, connection_count()};
info(_) -> error.

connection_count() ->
    lists:sum([N || Node <- nodes(), {_, N} <- partisan_nif:channels_of(Node)]).

%% @doc Whether this node is connected with another, or is it itself. With a specification, only
%% a node that listens on one of its addresses counts.
-spec is_connected(node() | node_spec()) -> boolean().
is_connected(NodeOrSpec) ->
    is_connected(NodeOrSpec, any).

%% @doc As `is_connected/1', on a channel or on any of several.
-spec is_connected(node() | node_spec(), channel() | [channel()]) -> boolean().
is_connected(NodeOrSpec, Channels) when is_list(Channels) ->
    lists:any(fun(Channel) -> is_connected(NodeOrSpec, Channel) end, Channels);
is_connected(#{name := Node, listen_addrs := Addrs}, Channel) ->
    is_connected(Node, Channel) andalso
        case node_spec(Node) of
            {ok, #{listen_addrs := Known}} ->
                lists:any(fun(Addr) -> lists:member(Addr, Known) end, Addrs);
            {error, _} ->
                false
        end;
is_connected(Node, Channel) when is_atom(Node), is_atom(Channel) ->
    Node =:= node() orelse partisan_nif:is_connected(Node, Channel).

%% @doc Whether all connections with a node exist. They come and go together, so this is
%% `is_connected/1'.
-spec is_fully_connected(node() | node_spec()) -> boolean().
is_fully_connected(NodeOrSpec) ->
    is_connected(NodeOrSpec).

%% @doc The options of a channel of this node. Error `badarg' if it isn't configured.
-spec channel_opts(channel()) -> channel_opts().
channel_opts(Channel) ->
    partisan_config:channel_opts(Channel).

%% @doc The name of the default channel.
-spec default_channel() -> channel().
default_channel() ->
    ?DEFAULT_CHANNEL.

%% @doc Asks for one message `{nodedown, Node}' when the connection with a node is lost, or
%% withdraws that. Sent at once if the node isn't connected. However often a process asks, it gets
%% one message, and then has to ask again. For this node nothing is ever sent. Always `true'.
-spec monitor_node(node() | node_spec(), boolean()) -> true.
monitor_node(Node, Flag) ->
    monitor_node(Node, Flag, []).

%% @doc As `monitor_node/2'; the options are accepted and ignored.
-spec monitor_node(node() | node_spec(), boolean(), list()) -> true.
monitor_node(#{name := Node}, Flag, Opts) ->
    monitor_node(Node, Flag, Opts);
monitor_node(Node, Flag, _Opts) when is_atom(Node), is_boolean(Flag) ->
    case node() of
        Node -> true;
        _ -> ?MANAGER:monitor_node(Node, Flag)
    end.

%% @doc `monitor_nodes(Flag, [])'.
-spec monitor_nodes(boolean()) -> ok | error.
monitor_nodes(Flag) ->
    monitor_nodes(Flag, []).

%% @doc Begins or ends the messages `{nodeup, Node}' and `{nodedown, Node}' to the caller. With
%% the option `nodedown_reason' they are `{nodeup, Node, []}' and `{nodedown, Node,
%% [{nodedown_reason, noconnection}]}'; with `{node_type, hidden}' there are none. A process may
%% hold one subscription per set of options. `error' for other options.
-spec monitor_nodes(boolean(), [nodedown_reason | {node_type, all | visible | hidden}]) ->
    ok | error.
monitor_nodes(Flag, Opts) when is_boolean(Flag), is_list(Opts) ->
    ?MANAGER:monitor_nodes(Flag, Opts).

%% @doc Removes a node from the cluster, not only its connections, as `leave' of it. `false' if it
%% is no member.
-spec disconnect_node(node()) -> boolean().
disconnect_node(Node) ->
    ?MANAGER:member(Node) andalso ?MANAGER:leave(Node) =:= ok.

%% @doc Closes the connections with a node or nodes. They are opened again as long as the nodes
%% are members.
-spec kill_connections(node() | [node()]) -> ok.
kill_connections(Node) when is_atom(Node) ->
    kill_connections([Node]);
kill_connections(Nodes) when is_list(Nodes) ->
    lists:foreach(fun(Node) -> ok = ?MANAGER:kill_connections(Node) end, Nodes).

%% @doc As `partisan_peer_service:join/1'.
-spec join(node() | binary() | string() | map()) -> ok | {error, term()}.
join(Node) ->
    partisan_peer_service:join(Node).

%% @doc As `partisan_peer_service:leave/0'.
-spec leave() -> ok | {error, term()}.
leave() ->
    partisan_peer_service:leave().
