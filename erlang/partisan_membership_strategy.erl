%% @doc A membership strategy: an overlay of your own, in Erlang. It says with which nodes this one is to keep links;
%% Partisan makes the links, keeps them, and carries the strategy's messages.
%%
%% Configured by `{membership_strategy, Module}', with `partisan_pluggable_peer_service_manager', on all nodes of
%% a cluster: nodes with different strategies refuse each other. The callbacks are those of lasp-lang/partisan 5.0.3, and two
%% more. They run in a process of their own, `partisan_membership_strategy_host'; if one fails, that process starts
%% again with `init/1'. `examples/ring_strategy' is one.
%%
%% Callbacks return the members: the specifications of the nodes with which this node is to have links, its own
%% among them. A link is kept as long as either end wants it. A strategy that returns a list without this node, after
%% one that had it, has it leave: its links are closed, and `init/1' is called.
%%
%% With the members come messages for other nodes: `[{Destination, Message}]'. A destination is a name or a
%% specification. A message arrives at the destination's `handle_message/2', in order, at most once: it is lost when
%% the destination can't be reached or its queue is full. `{membership_strategy, Content}' arrives as
%% `Content', as there; anything else as it is. Pids and references arrive as what they are.
-module(partisan_membership_strategy).

-export([required/0]).

-export_type([outgoing/0, result/0]).

-type outgoing() :: [{node() | partisan:node_spec(), Message :: term()}].
-type result() ::
    {ok, Members :: [partisan:node_spec()], outgoing(), State :: term()}.

%% The node is alone. `Actor' is unique among all nodes and times.
-callback init(Actor :: binary()) -> {ok, Members :: [partisan:node_spec()], State :: term()}.

%% This node has joined another, to which it has a link now and whose strategy has the state `PeerState'.
-callback join(partisan:node_spec(), PeerState :: term(), State :: term()) -> result().

%% This node, or the other one that is named, is to leave the cluster. When this node leaves, the messages are sent
%% before its links are closed.
-callback leave(partisan:node_spec(), State :: term()) -> result().

%% Every `periodic_interval' milliseconds, unless `periodic_enabled' is false.
-callback periodic(State :: term()) -> result().

%% Another node's strategy has sent this.
-callback handle_message(Message :: term(), State :: term()) -> result().

%% Which nodes are to join, and which are to leave, if the user wants exactly these
%% (`partisan_peer_service:update_members/1'). Without it, those by which the lists differ.
-callback compare([partisan:node_spec()], State :: term()) ->
    {Joining :: [partisan:node_spec()], Leaving :: [partisan:node_spec()]}.

%% These members now have other specifications.
-callback prune([partisan:node_spec()], State :: term()) ->
    {ok, Members :: [partisan:node_spec()], State :: term()}.

%% A connection with this node is up. Not in lasp-lang/partisan.
-callback node_up(partisan:node_spec(), State :: term()) -> result().

%% A node is down: its connection has broken, it can't be reached, or it has left. Not in lasp-lang/partisan.
-callback node_down(node(), State :: term()) -> result().

-optional_callbacks([compare/2, prune/2, node_up/2, node_down/2]).

%% @doc The callbacks without which a module is no strategy.
-spec required() -> [{atom(), arity()}].
required() ->
    [{init, 1}, {join, 3}, {leave, 2}, {periodic, 1}, {handle_message, 2}].
