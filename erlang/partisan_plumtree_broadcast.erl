%% @doc Broadcasts: one call reaches every node of the cluster, along trees that mend themselves.
%%
%% The trees are the native library's (Plumtree, `src/broadcast/plumtree'). This module gives it what is to be
%% broadcast, and gives what arrives to its handler, a module of the behaviour
%% `partisan_plumtree_broadcast_handler', in the process of this name. A broadcast is the message
%% `{partisan_broadcast, Handler, Id, Payload}' to this name, on every other node.
%%
%% Nodes that were away for longer than their neighbours keep broadcasts (a minute) miss them. For them there are
%% exchanges: every `exchange_tick_period' each handler is told a random member with which to compare its data.
%%
%% The process lives independently of the manager, and holds nothing of the membership: a restart of the manager, or
%% to leave and come back, changes nothing for it.
-module(partisan_plumtree_broadcast).
-behaviour(gen_server).

-export([start_link/0]).
-export([broadcast/2, broadcast_channel/1, broadcast_members/0, broadcast_members/1, update/1]).
-export([exchanges/0, exchanges/1, exchanges/2, cancel_exchanges/1]).
-export([get_peers/1, get_peers/2, get_eager_peers/1, get_lazy_peers/1]).
-export([debug_get_peers/2, debug_get_peers/3, debug_get_peers/4]).
-export([debug_get_tree/2, debug_get_tree/3, debug_get_tree/4]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-export_type([exchange/0, selector/0, nodeset/0]).

-type nodeset() :: [node()].
%% An ordset.

-type exchange() :: {Handler :: module(), Peer :: node(), Monitor :: reference(), pid()}.
-type selector() :: all | {peer, node()} | {mod, module()} | reference() | pid().

-record(state, {
    %% In the order in which their turns come.
    handlers = [] :: [module()],
    %% Names in broadcasts that were none of a handler, and have been warned about.
    strangers = #{} :: #{module() => []}
}).

-define(MANAGER, partisan_pluggable_peer_service_manager).
%% The first element of every broadcast.
-define(TAG, partisan_broadcast).
-define(INFO_TIMEOUT, 5000).
-define(MAX_STRANGERS, 64).

%% @doc Starts the process.
-spec start_link() -> gen_server:start_ret().
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%%%-------------------------------------------------------------------------------------------
%%% Broadcasting
%%%-------------------------------------------------------------------------------------------

%% @doc Broadcasts a term for a handler, whose `broadcast_data/1' says what travels. `merge/2' is called on every
%% other node that is up or comes within a minute, once; broadcasts may overtake each other.
%%
%% `ok' when it is under way. What `broadcast_data/1' raises is logged, and `ok' too. `{error, {limit, What}}': too
%% large, 8 MiB with the identifier; `{error, notalive}': Partisan doesn't run. Then nothing was sent.
-spec broadcast(term(), module()) -> ok | {error, term()}.
broadcast(Term, Mod) ->
    try
        {Id, Payload} = Mod:broadcast_data(Term),
        {?TAG, Mod, Id, Payload}
    of
        Message -> send(Message)
    catch
        Class:Reason:Stack -> raised(Mod, broadcast_data, {Class, Reason, Stack})
    end.

send(Message) ->
    %% The VM's name may change while the term is encoded.
    _ = partisan_nif:identity(),
    Iov = term_to_iovec(Message),
    _ = partisan_nif:identity(),
    case partisan_nif:payload(?MODULE, Iov, 0) of
        {ok, Payload} ->
            try
                ?MANAGER:broadcast(Payload)
            catch
                exit:_ -> {error, notalive}
            end;
        {error, _} = Error ->
            Error
    end.

%% @doc The channel that a handler asks for, by default the default channel. Broadcasts don't use it.
-spec broadcast_channel(module()) -> partisan:channel().
broadcast_channel(Mod) ->
    _ = code:ensure_loaded(Mod),
    case erlang:function_exported(Mod, broadcast_channel, 0) of
        true -> Mod:broadcast_channel();
        false -> partisan_config:default_channel()
    end.

%% @doc The members, this node among them.
-spec broadcast_members() -> nodeset().
broadcast_members() ->
    {ok, Members} = ?MANAGER:members(),
    ordsets:from_list(Members).

%% @doc As `broadcast_members/0'. It never takes long, so the timeout is of no use.
-spec broadcast_members(timeout()) -> nodeset().
broadcast_members(_Timeout) ->
    broadcast_members().

%% @doc Does nothing: the native library sees the membership change by itself.
-spec update(term()) -> ok.
update(_Members) ->
    ok.

%%%-------------------------------------------------------------------------------------------
%%% Exchanges
%%%-------------------------------------------------------------------------------------------

%% @doc The exchanges that this node has begun and that go on.
-spec exchanges() -> [exchange()].
exchanges() ->
    ets:tab2list(?MODULE).

%% @doc `exchanges(Node, infinity)'.
-spec exchanges(node()) -> [exchange()].
exchanges(Node) ->
    exchanges(Node, infinity).

%% @doc The exchanges of another node. Error `Reason' if it can't be asked or doesn't answer in time.
-spec exchanges(node(), timeout()) -> [exchange()].
exchanges(Node, Timeout) ->
    case partisan:node() of
        Node -> exchanges();
        _ -> ask(Node, exchanges, Timeout)
    end.

%% @doc Kills the processes of all exchanges, of those with a peer, of a handler, or of one; returns which.
-spec cancel_exchanges(selector()) -> [exchange()].
cancel_exchanges(Selector) ->
    gen_server:call(?MODULE, {cancel_exchanges, Selector}, infinity).

%%%-------------------------------------------------------------------------------------------
%%% The trees
%%%-------------------------------------------------------------------------------------------

%% @doc This node's part of the tree of a root: the neighbours that it sends to, and those to which it only
%% announces what there is.
-spec get_peers(Root :: node()) -> {Eager :: nodeset(), Lazy :: nodeset()}.
get_peers(Root) ->
    ?MANAGER:broadcast_peers(Root).

%% @doc As `get_peers/1', with what `partisan:node_info/1' says of the root; nothing if it can't be asked.
-spec get_peers(Root :: node(), [atom()]) -> {nodeset(), nodeset(), Info :: map()}.
get_peers(Root, Keys) ->
    {Eager, Lazy} = get_peers(Root),
    {Eager, Lazy, node_info(Root, Keys)}.

%% @doc The neighbours to which this node sends what a root broadcasts.
-spec get_eager_peers(Root :: node()) -> nodeset().
get_eager_peers(Root) ->
    element(1, get_peers(Root)).

%% @doc The neighbours to which this node only announces what a root broadcasts.
-spec get_lazy_peers(Root :: node()) -> nodeset().
get_lazy_peers(Root) ->
    element(2, get_peers(Root)).

%% @doc `debug_get_peers(Node, Root, infinity)'.
-spec debug_get_peers(node(), Root :: node()) -> {nodeset(), nodeset()}.
debug_get_peers(Node, Root) ->
    debug_get_peers(Node, Root, infinity).

%% @doc As `get_peers/1', on another node. Error `Reason' if it can't be asked or doesn't answer in time.
-spec debug_get_peers(node(), Root :: node(), timeout()) -> {nodeset(), nodeset()}.
debug_get_peers(Node, Root, Timeout) ->
    case partisan:node() of
        Node -> get_peers(Root);
        _ -> ask(Node, {broadcast_peers, Root}, Timeout)
    end.

%% @doc As `get_peers/2', on another node.
-spec debug_get_peers(node(), Root :: node(), [atom()], timeout()) ->
    {nodeset(), nodeset(), Info :: map()}.
debug_get_peers(Node, Root, Keys, Timeout) ->
    {Eager, Lazy} = debug_get_peers(Node, Root, Timeout),
    {Eager, Lazy, node_info(Root, Keys)}.

%% @doc `debug_get_tree(Root, Nodes, infinity)'.
-spec debug_get_tree(Root :: node(), [node()]) -> [{node(), {nodeset(), nodeset()} | down}].
debug_get_tree(Root, Nodes) ->
    debug_get_tree(Root, Nodes, infinity).

%% @doc The parts that these nodes have in the tree of a root; `down' for those that can't be asked.
-spec debug_get_tree(Root :: node(), [node()], timeout()) ->
    [{node(), {nodeset(), nodeset()} | down}].
debug_get_tree(Root, Nodes, Timeout) ->
    [{Node, or_down(fun() -> debug_get_peers(Node, Root, Timeout) end)} || Node <- Nodes].

%% @doc As `debug_get_tree/3', with what `partisan:node_info/1' says of the root.
-spec debug_get_tree(Root :: node(), [node()], [atom()], timeout()) ->
    [{node(), {nodeset(), nodeset(), Info :: map()} | down}].
debug_get_tree(Root, Nodes, Keys, Timeout) ->
    [{Node, or_down(fun() -> debug_get_peers(Node, Root, Keys, Timeout) end)} || Node <- Nodes].

or_down(Fun) ->
    try
        Fun()
    catch
        _:_ -> down
    end.

node_info(Node, Keys) ->
    case partisan:node() of
        Node ->
            partisan:node_info(Keys);
        _ ->
            case partisan_control:call(Node, {node_info, Keys}, ?INFO_TIMEOUT) of
                {ok, Info} -> Info;
                {error, _} -> #{}
            end
    end.

ask(Node, Request, Timeout) ->
    case partisan_control:call(Node, Request, Timeout) of
        {ok, Answer} -> Answer;
        {error, Reason} -> error(Reason)
    end.

%%%-------------------------------------------------------------------------------------------
%%% The process
%%%-------------------------------------------------------------------------------------------

%% @private
-spec init([]) -> {ok, #state{}}.
init([]) ->
    %% Exchanges stand where everybody can read them, however long a handler takes to merge.
    ?MODULE = ets:new(?MODULE, [named_table, protected, {keypos, 3}, {read_concurrency, true}]),
    ok = schedule_exchanges(),
    {ok, #state{}}.

schedule_exchanges() ->
    _ = erlang:send_after(partisan_config:get(exchange_tick_period), self(), exchange_tick),
    ok.

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, term(), #state{}}.
handle_call({cancel_exchanges, Selector}, _, State) ->
    Selected = [Exchange || Exchange <- exchanges(), is_selected(Selector, Exchange)],
    lists:foreach(
        fun({_, _, Ref, Pid}) ->
            exit(Pid, kill),
            true = demonitor(Ref, [flush]),
            true = ets:delete(?MODULE, Ref)
        end,
        Selected
    ),
    {reply, Selected, State};
handle_call(_, _, State) ->
    {reply, {error, unknown}, State}.

is_selected(all, _) -> true;
is_selected({peer, Peer}, {_, Peer, _, _}) -> true;
is_selected({mod, Mod}, {Mod, _, _, _}) -> true;
is_selected(Ref, {_, _, Ref, _}) -> true;
is_selected(Pid, {_, _, _, Pid}) -> true;
is_selected(_, _) -> false.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info({?TAG, Mod, Id, Payload}, State) when is_atom(Mod) ->
    case is_handler(Mod) of
        true ->
            _ = guarded(Mod, merge, [Id, Payload]),
            {noreply, State};
        false ->
            {noreply, warn(Mod, State)}
    end;
handle_info(exchange_tick, State) ->
    ok = schedule_exchanges(),
    {noreply, exchange(State)};
handle_info({'DOWN', Ref, process, _, _}, State) ->
    true = ets:delete(?MODULE, Ref),
    {noreply, State};
handle_info(_, State) ->
    {noreply, State}.

%% The name comes from a peer: whatever module there is must not be called for it.
is_handler(Mod) ->
    lists:member(Mod, partisan_config:get(broadcast_mods)) orelse
        (code:ensure_loaded(Mod) =:= {module, Mod} andalso
            erlang:function_exported(Mod, merge, 2) andalso
            erlang:function_exported(Mod, broadcast_data, 1)).

warn(Mod, #state{strangers = Strangers} = State) when
    is_map_key(Mod, Strangers); map_size(Strangers) >= ?MAX_STRANGERS
->
    State;
warn(Mod, #state{strangers = Strangers} = State) ->
    logger:warning(
        "partisan: a broadcast is for ~tp, which is no handler on this node",
        [Mod],
        #{application => partisan}
    ),
    State#state{strangers = Strangers#{Mod => []}}.

%% Handlers take turns, so that a limit starves none.
exchange(#state{handlers = Before} = State) ->
    Mods = partisan_config:get(broadcast_mods),
    Handlers = [Mod || Mod <- Before, lists:member(Mod, Mods)] ++ (Mods -- Before),
    Running = [Mod || {Mod, _, _, _} <- exchanges()],
    Room = max(0, partisan_config:get(broadcast_start_exchange_limit) - length(Running)),
    Turns = lists:sublist([Mod || Mod <- Handlers, not lists:member(Mod, Running)], Room),
    ok = exchange(Turns, peers()),
    State#state{handlers = (Handlers -- Turns) ++ Turns}.

exchange([], _) -> ok;
exchange(_, []) -> ok;
exchange(Turns, Peers) ->
    Peer = one_of(Peers),
    lists:foreach(fun(Mod) -> begin_exchange(Mod, Peer) end, Turns).

begin_exchange(Mod, Peer) ->
    case guarded(Mod, exchange, [Peer]) of
        {ok, Pid} when is_pid(Pid) ->
            true = ets:insert(?MODULE, {Mod, Peer, monitor(process, Pid), Pid}),
            ok;
        {error, Reason} ->
            logger:info(
                "partisan: ~tp can't exchange with ~tp: ~0tp",
                [Mod, Peer, Reason],
                #{application => partisan}
            );
        _ ->
            ok
    end.

%% Members that are connected. `optimized': of these, where there are such, the ones to which a random root's
%% broadcasts are only announced: what the tree doesn't bring is more likely to differ there.
peers() ->
    try
        Own = partisan:node(),
        Members = broadcast_members(),
        Connected = [N || N <- Members, N =/= Own, partisan:is_connected(N)],
        case partisan_config:get(exchange_selection) of
            normal ->
                Connected;
            optimized ->
                Lazy = get_lazy_peers(one_of(Members)),
                case [N || N <- Connected, lists:member(N, Lazy)] of
                    [] -> Connected;
                    Peers -> Peers
                end
        end
    catch
        %% The manager is not there just now.
        exit:_ -> []
    end.

one_of(List) ->
    lists:nth(rand:uniform(length(List)), List).

guarded(Mod, Function, Args) ->
    try
        apply(Mod, Function, Args)
    catch
        Class:Reason:Stack -> raised(Mod, Function, {Class, Reason, Stack})
    end.

raised(Mod, Function, {Class, Reason, Stack}) ->
    logger:error(
        "partisan: ~tp:~tp raised ~0tp:~0tp~n~0tp",
        [Mod, Function, Class, Reason, Stack],
        #{application => partisan}
    ).
