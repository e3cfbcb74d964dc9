%% @doc The cluster: who is in it, joining and leaving, being told.
%%
%% Nodes are named by name (atom, binary or string) or by specification. Calls wait as long as the
%% manager needs, and exit with `noproc' where Partisan doesn't run.
-module(partisan_peer_service).

-export([manager/0, switch/1, overlay/0, join/1, sync_join/1, leave/0, leave/1]).
-export([members/0, members_for_orchestration/0, member/1, update_members/1]).
-export([on_up/2, on_up/3, on_down/2, on_down/3]).
-export([connections/0, get_local_state/0, decode/1, add_sup_callback/1]).
-export([broadcast_members/0, broadcast_members/1]).
-export([exchanges/0, exchanges/1, cancel_exchanges/1]).

-define(MANAGER, partisan_pluggable_peer_service_manager).

-type name_or_spec() :: node() | binary() | string() | map().

%% @doc The module of the peer service manager whose overlay runs: as it is configured, or that of the last
%% `switch/1' in the cluster. Whichever it is, its process is registered as `partisan_pluggable_peer_service_manager'.
-spec manager() -> module().
manager() ->
    {Manager, _} = partisan_config:overlay(),
    Manager.

%% @doc Has the whole cluster change to the overlay of another manager, while it runs. `ok' when this node has begun;
%% all others follow as they hear of it, each with its own configuration (`hyparview', `tag', ...).
%% The old overlay runs on for `switch_overlap' milliseconds. Nothing that is sent meanwhile is lost. `{error, Text}'
%% if this node is a client of the client-server overlay, by whom nobody could join. Error `badarg' for what is no manager.
-spec switch(module()) -> ok | {error, term()}.
switch(Manager) ->
    ?MANAGER:switch(Manager).

%% @doc Which overlay runs: its name, the number of switches before it, and the one that runs beside it and is about
%% to end, or `undefined'.
-spec overlay() -> {ok, #{overlay := binary(), epoch := non_neg_integer(), until_switched := undefined | binary()}}.
overlay() ->
    ?MANAGER:overlay().

%% @doc Joins the cluster of another node. `ok' says that the node will be dialled until it
%% answers, not that it did. A name without addresses must be a member or connected:
%% `{error, not_yet_connected}' otherwise. `{error, self_join}' for this node. Error `badarg' for a
%% specification of the wrong form.
-spec join(name_or_spec()) -> ok | {error, term()}.
join(Node) ->
    with_spec(Node, fun ?MANAGER:join/1).

%% @doc As `join/1', but returns when all connections with the node exist (with HyParView: when this node
%% has a neighbour in the other's cluster). Waits for ever for one
%% that doesn't answer; `{error, Reason}' if it, or this node, leaves meanwhile (`left'), or if
%% Partisan stops (`notalive').
-spec sync_join(name_or_spec()) -> ok | {error, term()}.
sync_join(Node) ->
    with_spec(Node, fun ?MANAGER:sync_join/1).

with_spec(Spec, Fun) when is_map(Spec) ->
    Fun(Spec);
with_spec(Node, Fun) ->
    case partisan:node_spec(Node) of
        {ok, Spec} -> Fun(Spec);
        {error, _} = Error -> Error
    end.

%% @doc Leaves the cluster. This node goes on alone, and forgets the others.
-spec leave() -> ok | {error, term()}.
leave() ->
    ?MANAGER:leave().

%% @doc Removes a node from the cluster, whether it is up or not; `ok' too if it was no member.
%% `{error, not_a_member}' for text that is no atom here, so no node's name.
-spec leave(name_or_spec()) -> ok | {error, term()}.
leave(#{name := Node}) ->
    leave(Node);
leave(Name) ->
    case partisan_util:existing_node_name(Name) of
        {ok, Node} -> ?MANAGER:leave(Node);
        error -> {error, not_a_member}
    end.

%% @doc The names of the members, this node among them, sorted.
-spec members() -> {ok, [node()]}.
members() ->
    ?MANAGER:members().

%% @doc The specifications of the members.
-spec members_for_orchestration() -> {ok, [partisan:node_spec()]}.
members_for_orchestration() ->
    ?MANAGER:members_for_orchestration().

%% @doc Whether a node is a member.
-spec member(name_or_spec()) -> boolean().
member(Name) when is_binary(Name); is_list(Name) ->
    case partisan_util:existing_node_name(Name) of
        {ok, Node} -> ?MANAGER:member(Node);
        error -> false
    end;
member(Node) ->
    ?MANAGER:member(Node).

%% @doc Makes these the members: joins those that are missing, removes those that are not named.
%% An empty list changes nothing.
-spec update_members([map()]) -> ok | {error, term()}.
update_members(Specs) ->
    ?MANAGER:update_members(Specs).

%% @doc `on_up(Node, Fun, #{})'.
-spec on_up(any | '_' | name_or_spec(), fun()) -> ok.
on_up(Node, Fun) ->
    ?MANAGER:on_up(Node, Fun).

%% @doc Registers a fun that runs whenever all connections with a node have been made; `any' and
%% `'_'' mean every node. It takes nothing, the node, or node and channel. With the option
%% `channel' it runs only for nodes that have the channel. Funs run in order in a process of their
%% own, and what they raise is logged. They are kept until the manager ends. Error `badarg' for
%% other arguments.
-spec on_up(any | '_' | name_or_spec(), fun(), map() | list()) -> ok.
on_up(Node, Fun, Opts) ->
    ?MANAGER:on_up(Node, Fun, Opts).

%% @doc `on_down(Node, Fun, #{})'.
-spec on_down(any | '_' | name_or_spec(), fun()) -> ok.
on_down(Node, Fun) ->
    ?MANAGER:on_down(Node, Fun).

%% @doc As `on_up/3', when the connections have been lost.
-spec on_down(any | '_' | name_or_spec(), fun(), map() | list()) -> ok.
on_down(Node, Fun, Opts) ->
    ?MANAGER:on_down(Node, Fun, Opts).

%% @doc The connections: `{partisan_peer_connection, Manager, Node, Channel, #{ip, port} of the
%% peer, Time of the connection in ns}'.
-spec connections() -> {ok, [?MANAGER:connection()]}.
connections() ->
    ?MANAGER:connections().

%% @doc The membership as this node knows it, for `decode/1'.
-spec get_local_state() -> {ok, term()}.
get_local_state() ->
    ?MANAGER:get_local_state().

%% @doc The names in a membership: one that `get_local_state/0' returned or that a callback got.
-spec decode(term()) -> [node()].
decode(State) ->
    ?MANAGER:decode(State).

%% @doc As `partisan_peer_service_events:add_sup_callback/1'.
-spec add_sup_callback(fun(([partisan:node_spec()]) -> term())) -> term().
add_sup_callback(Fun) ->
    partisan_peer_service_events:add_sup_callback(Fun).

%% @doc As `partisan_plumtree_broadcast:broadcast_members/0'.
-spec broadcast_members() -> [node()].
broadcast_members() ->
    partisan_plumtree_broadcast:broadcast_members().

%% @doc As `partisan_plumtree_broadcast:broadcast_members/1'.
-spec broadcast_members(timeout()) -> [node()].
broadcast_members(Timeout) ->
    partisan_plumtree_broadcast:broadcast_members(Timeout).

%% @doc As `partisan_plumtree_broadcast:exchanges/0'.
-spec exchanges() -> [partisan_plumtree_broadcast:exchange()].
exchanges() ->
    partisan_plumtree_broadcast:exchanges().

%% @doc As `partisan_plumtree_broadcast:exchanges/1'.
-spec exchanges(node()) -> [partisan_plumtree_broadcast:exchange()].
exchanges(Node) ->
    partisan_plumtree_broadcast:exchanges(Node).

%% @doc As `partisan_plumtree_broadcast:cancel_exchanges/1'.
-spec cancel_exchanges(partisan_plumtree_broadcast:selector()) ->
    [partisan_plumtree_broadcast:exchange()].
cancel_exchanges(Selector) ->
    partisan_plumtree_broadcast:cancel_exchanges(Selector).
