%% @doc HyParView as peer service manager: each node has links to a few others (`active_max_size', this node
%% counted), which change, and hears of all by broadcast. For clusters that are too large for a full mesh.
%%
%% Chosen by `{peer_service_manager, partisan_hyparview_peer_service_manager}', on all nodes of a cluster; set by
%% the configuration key `hyparview'. The protocol is the native library's (`src/overlay/hyparview'), and the
%% process is that of `partisan_pluggable_peer_service_manager': this module is what is different for users, and
%% passes on what is not.
%%
%% Members are this node and its neighbours. `on_up', `on_down' and monitors tell of nodes: a connection that is closed because
%% another neighbour is better is no news. Another node can't be removed: it has to leave.
-module(partisan_hyparview_peer_service_manager).

-export([members/0, members_for_orchestration/0, member/1, update_members/1, join/1]).
-export([sync_join/1, leave/0, leave/1, connections/0, get_local_state/0, decode/1, on_up/2]).
-export([on_up/3, on_down/2, on_down/3, supports_capability/1, send_message/2]).
-export([receive_message/3, forward_message/2, forward_message/3, forward_message/4]).
-export([cast_message/2, cast_message/3, cast_message/4, reserve/1, partitions/0]).
-export([inject_partition/2, resolve_partition/1]).

-define(MANAGER, partisan_pluggable_peer_service_manager).

-type node_or_any() :: any | '_' | node() | binary() | string() | map().

%% @doc This node and its neighbours, sorted.
-spec members() -> {ok, [node()]}.
members() ->
    ?MANAGER:members().

%% @doc As `members/0', their specifications.
-spec members_for_orchestration() -> {ok, [partisan:node_spec()]}.
members_for_orchestration() ->
    ?MANAGER:members_for_orchestration().

%% @doc Whether a node is this one or a neighbour.
-spec member(node() | partisan:node_spec()) -> boolean().
member(Node) ->
    ?MANAGER:member(Node).

%% @doc Remembers these nodes, for when a neighbour is needed. Nobody is removed.
-spec update_members([map()]) -> ok | {error, term()}.
update_members(Specs) ->
    ?MANAGER:update_members(Specs).

%% @doc See `partisan_peer_service:join/1'.
-spec join(map()) -> ok | {error, term()}.
join(Spec) ->
    ?MANAGER:join(Spec).

%% @doc As `join/1', but returns when this node has a neighbour in the other's cluster.
-spec sync_join(map()) -> ok | {error, term()}.
sync_join(Spec) ->
    ?MANAGER:sync_join(Spec).

%% @doc See `partisan_peer_service:leave/0'.
-spec leave() -> ok | {error, term()}.
leave() ->
    ?MANAGER:leave().

%% @doc `leave/0' for this node; an error for others.
-spec leave(node() | partisan:node_spec()) -> ok | {error, term()}.
leave(Node) ->
    ?MANAGER:leave(Node).

%% @doc See `partisan_peer_service:connections/0'.
-spec connections() -> {ok, [partisan_pluggable_peer_service_manager:connection()]}.
connections() ->
    ?MANAGER:connections().

%% @doc As `members_for_orchestration/0'.
-spec get_local_state() -> {ok, [partisan:node_spec()]}.
get_local_state() ->
    ?MANAGER:get_local_state().

%% @doc See `partisan_peer_service:decode/1'.
-spec decode([partisan:node_spec()] | #{partisan:node_spec() => term()}) -> [node()].
decode(Members) ->
    ?MANAGER:decode(Members).

%% @doc See `partisan_peer_service:on_up/2'.
-spec on_up(node_or_any(), fun()) -> ok.
on_up(Node, Fun) ->
    ?MANAGER:on_up(Node, Fun).

%% @doc See `partisan_peer_service:on_up/3'.
-spec on_up(node_or_any(), fun(), map() | list()) -> ok.
on_up(Node, Fun, Opts) ->
    ?MANAGER:on_up(Node, Fun, Opts).

%% @doc See `partisan_peer_service:on_down/2'.
-spec on_down(node_or_any(), fun()) -> ok.
on_down(Node, Fun) ->
    ?MANAGER:on_down(Node, Fun).

%% @doc See `partisan_peer_service:on_down/3'.
-spec on_down(node_or_any(), fun(), map() | list()) -> ok.
on_down(Node, Fun, Opts) ->
    ?MANAGER:on_down(Node, Fun, Opts).

%% @doc Whether the manager can do something.
-spec supports_capability(atom()) -> boolean().
supports_capability(Capability) ->
    ?MANAGER:supports_capability(Capability).

%% @doc Sends a message to the manager of another node.
-spec send_message(node(), term()) -> ok | {error, term()}.
send_message(Node, Msg) ->
    ?MANAGER:send_message(Node, Msg).

%% @doc Delivers a message as if it had come from a peer.
-spec receive_message(node(), partisan:channel(), term()) -> ok | {error, term()}.
receive_message(Peer, Channel, Msg) ->
    ?MANAGER:receive_message(Peer, Channel, Msg).

%% @doc See `partisan:forward_message/2'.
-spec forward_message(partisan:server_ref(), term()) -> ok | {error, term()}.
forward_message(Dest, Msg) ->
    ?MANAGER:forward_message(Dest, Msg).

%% @doc See `partisan:forward_message/3'.
-spec forward_message(partisan:server_ref(), term(), partisan:forward_opts()) ->
    ok | {error, term()}.
forward_message(Dest, Msg, Opts) ->
    ?MANAGER:forward_message(Dest, Msg, Opts).

%% @doc See `partisan:forward_message/4'.
-spec forward_message(node(), partisan:server_ref(), term(), partisan:forward_opts()) ->
    ok | {error, term()}.
forward_message(Node, Dest, Msg, Opts) ->
    ?MANAGER:forward_message(Node, Dest, Msg, Opts).

%% @doc See `partisan:cast_message/2'.
-spec cast_message(partisan:server_ref(), term()) -> ok.
cast_message(Dest, Msg) ->
    ?MANAGER:cast_message(Dest, Msg).

%% @doc `partisan:cast_message(Node, Dest, Msg, #{})'.
-spec cast_message(node(), partisan:server_ref(), term()) -> ok.
cast_message(Node, Dest, Msg) ->
    ?MANAGER:cast_message(Node, Dest, Msg).

%% @doc See `partisan:cast_message/4'.
-spec cast_message(node(), partisan:server_ref(), term(), partisan:forward_opts()) -> ok.
cast_message(Node, Dest, Msg, Opts) ->
    ?MANAGER:cast_message(Node, Dest, Msg, Opts).

%% @doc Not built.
-spec reserve(term()) -> {error, not_implemented}.
reserve(Tag) ->
    ?MANAGER:reserve(Tag).

%% @doc Not built.
-spec partitions() -> {error, not_implemented}.
partitions() ->
    ?MANAGER:partitions().

%% @doc Not built.
-spec inject_partition(term(), term()) -> {error, not_implemented}.
inject_partition(Origin, Ttl) ->
    ?MANAGER:inject_partition(Origin, Ttl).

%% @doc Not built.
-spec resolve_partition(term()) -> {error, not_implemented}.
resolve_partition(Reference) ->
    ?MANAGER:resolve_partition(Reference).
