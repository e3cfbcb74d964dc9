%% @doc Who wants to hear of nodes that come and go: the subscriptions of `monitor_nodes' and
%% `monitor_node'. Subscribers are monitored, so that nothing outlives them.
-module(partisan_node_monitors).

-compile({no_auto_import, [nodes/1]}).

-export([new/0, subscribe/3, unsubscribe/3, monitor/3, demonitor/3]).
-export([up/2, down/2, gone/2, nodes/1]).

-export_type([t/0]).

-type opts() :: [nodedown_reason].
-opaque t() :: #{
    subscriptions := #{{pid(), opts()} => []},
    nodes := #{node() => #{pid() => []}},
    pids := #{pid() => reference()}
}.
%% `pids' holds the monitor of every process that occurs in the other two.

%% @doc Nobody.
-spec new() -> t().
new() ->
    #{subscriptions => #{}, nodes => #{}, pids => #{}}.

%% @doc Adds a subscription to all nodes; `error' for options that don't exist. One that only
%% wants hidden nodes is taken and never served.
-spec subscribe(pid(), list(), t()) -> {ok, t()} | error.
subscribe(Pid, Opts0, #{subscriptions := Subscriptions} = T) ->
    case options(Opts0) of
        error -> error;
        none -> {ok, T};
        {ok, Opts} -> {ok, watch(Pid, T#{subscriptions := Subscriptions#{{Pid, Opts} => []}})}
    end.

%% @doc Removes the subscription with these options.
-spec unsubscribe(pid(), list(), t()) -> {ok, t()} | error.
unsubscribe(Pid, Opts0, #{subscriptions := Subscriptions} = T) ->
    case options(Opts0) of
        error ->
            error;
        none ->
            {ok, T};
        {ok, Opts} ->
            {ok, unwatch(Pid, T#{subscriptions := maps:remove({Pid, Opts}, Subscriptions)})}
    end.

options(Opts) ->
    Known = fun
        (nodedown_reason) -> true;
        ({node_type, Type}) -> lists:member(Type, [all, visible, hidden]);
        (_) -> false
    end,
    case lists:all(Known, Opts) of
        false ->
            error;
        true ->
            case lists:member({node_type, hidden}, Opts) of
                true -> none;
                false -> {ok, [nodedown_reason || lists:member(nodedown_reason, Opts)]}
            end
    end.

%% @doc Asks for one message when a node goes down.
-spec monitor(pid(), node(), t()) -> t().
monitor(Pid, Node, #{nodes := Nodes} = T) ->
    Pids = maps:get(Node, Nodes, #{}),
    watch(Pid, T#{nodes := Nodes#{Node => Pids#{Pid => []}}}).

%% @doc Withdraws `monitor/3'.
-spec demonitor(pid(), node(), t()) -> t().
demonitor(Pid, Node, #{nodes := Nodes} = T) ->
    unwatch(Pid, T#{nodes := without(Pid, Node, Nodes)}).

without(Pid, Node, Nodes) ->
    case maps:remove(Pid, maps:get(Node, Nodes, #{})) of
        Pids when map_size(Pids) =:= 0 -> maps:remove(Node, Nodes);
        Pids -> Nodes#{Node := Pids}
    end.

%% @doc The nodes that somebody watches by `monitor/3'.
-spec nodes(t()) -> [node()].
nodes(#{nodes := Nodes}) ->
    maps:keys(Nodes).

%% @doc Tells the subscribers that a node has come.
-spec up(node(), t()) -> t().
up(Node, #{subscriptions := Subscriptions} = T) ->
    maps:foreach(
        fun
            ({Pid, []}, _) -> Pid ! {nodeup, Node};
            ({Pid, [nodedown_reason]}, _) -> Pid ! {nodeup, Node, []}
        end,
        Subscriptions
    ),
    T.

%% @doc Tells the subscribers, and those who watch this node, that it has gone. The latter are
%% forgotten.
-spec down(node(), t()) -> t().
down(Node, #{subscriptions := Subscriptions, nodes := Nodes} = T) ->
    maps:foreach(
        fun
            ({Pid, []}, _) -> Pid ! {nodedown, Node};
            ({Pid, [nodedown_reason]}, _) ->
                Pid ! {nodedown, Node, [{nodedown_reason, noconnection}]}
        end,
        Subscriptions
    ),
    Pids = maps:keys(maps:get(Node, Nodes, #{})),
    lists:foreach(fun(Pid) -> Pid ! {nodedown, Node} end, Pids),
    lists:foldl(fun unwatch/2, T#{nodes := maps:remove(Node, Nodes)}, Pids).

%% @doc Forgets a process that has died.
-spec gone(pid(), t()) -> t().
gone(Pid, #{subscriptions := Subscriptions, nodes := Nodes, pids := Pids} = T) ->
    T#{
        subscriptions := maps:filter(fun({P, _}, _) -> P =/= Pid end, Subscriptions),
        nodes := lists:foldl(
            fun(Node, Acc) -> without(Pid, Node, Acc) end, Nodes, maps:keys(Nodes)
        ),
        pids := maps:remove(Pid, Pids)
    }.

watch(Pid, #{pids := Pids} = T) when is_map_key(Pid, Pids) -> T;
watch(Pid, #{pids := Pids} = T) -> T#{pids := Pids#{Pid => erlang:monitor(process, Pid)}}.

unwatch(Pid, #{subscriptions := Subscriptions, nodes := Nodes, pids := Pids} = T) ->
    Needed =
        is_map_key({Pid, []}, Subscriptions) orelse
            is_map_key({Pid, [nodedown_reason]}, Subscriptions) orelse
            lists:any(fun(Watchers) -> is_map_key(Pid, Watchers) end, maps:values(Nodes)),
    case maps:take(Pid, Pids) of
        {Ref, Rest} when not Needed ->
            true = erlang:demonitor(Ref, [flush]),
            T#{pids := Rest};
        _ ->
            T
    end.
