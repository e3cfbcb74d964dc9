%% @doc Owns the native node, hands it the commands, and tells everybody of its events: of a full mesh,
%% or of another overlay that is configured (`partisan_hyparview_peer_service_manager' and others).
%%
%% The work is done by the native library. This process never waits for it: a command is answered
%% by a message, and only then the caller is. So it is always ready for events, and a join or a
%% leave that takes its time holds nobody up.
-module(partisan_pluggable_peer_service_manager).
-behaviour(gen_server).

-export([start_link/0]).
-export([members/0, members_for_orchestration/0, member/1, update_members/1]).
-export([join/1, sync_join/1, leave/0, leave/1, connections/0, kill_connections/1]).
-export([on_up/2, on_up/3, on_down/2, on_down/3]).
-export([monitor_node/2, monitor_nodes/2, spec_of/1]).
-export([get_local_state/0, decode/1, supports_capability/1]).
-export([send_message/2, receive_message/3]).
-export([forward_message/2, forward_message/3, forward_message/4]).
-export([cast_message/2, cast_message/3, cast_message/4]).
-export([broadcast/1, broadcast_peers/1]).
-export([switch/1, overlay/0]).
-export([attach_strategy/1, steer/1, left_by_strategy/0]).
-export([reserve/1, partitions/0, inject_partition/2, resolve_partition/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-export_type([connection/0]).

-type connection() ::
    {partisan_peer_connection, pid(), node(), partisan:channel(), partisan_util:listen_addr(),
        TimestampNs :: integer()}.

-record(callback, {
    event :: up | down,
    node :: node() | '_',
    channel :: any | partisan:channel(),
    function :: fun()
}).

-record(state, {
    %% Nodes that are up, with their specifications.
    up = #{} :: #{node() => partisan:node_spec()},
    members = [] :: [partisan:node_spec()],
    %% In the order of their registration.
    callbacks = [] :: [#callback{}],
    monitors = partisan_node_monitors:new() :: partisan_node_monitors:t(),
    %% Commands under way, with what to do with their results.
    commands = #{} :: #{reference() => {gen_server:from(), answer()}},
    %% Callers of sync_join whose join is not complete yet.
    joining = #{} :: #{node() => [gen_server:from()]},
    %% Nodes among them that have granted the join.
    granted = #{} :: #{node() => true},
    %% Whether the members are those of the whole cluster, and not only neighbours.
    whole = true :: boolean(),
    %% The process that runs the user's membership strategy, if there is one.
    strategy :: undefined | pid()
}).

-type answer() :: pass | names | specs | connections | peers | {member, node()} | {sync_join, node()}.

%%%-------------------------------------------------------------------------------------------
%%% Membership
%%%-------------------------------------------------------------------------------------------

%% @doc Starts the manager and with it the node.
-spec start_link() -> gen_server:start_ret().
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc See `partisan_peer_service:switch/1'.
-spec switch(module()) -> ok | {error, term()}.
switch(Manager) ->
    case partisan_config:overlay_name(Manager) of
        {ok, Name} -> call({command, {switch, Name}, pass});
        error -> error(badarg, [Manager])
    end.

%% @doc See `partisan_peer_service:overlay/0'.
-spec overlay() -> {ok, #{overlay := binary(), epoch := non_neg_integer(), until_switched := undefined | binary()}}.
overlay() ->
    {Overlay, Epoch, Old} = call({command, overlay, pass}),
    {ok, #{overlay => Overlay, epoch => Epoch, until_switched => Old}}.

%% @private The process that runs the membership strategy hears of nodes from now on. Whether its overlay runs.
-spec attach_strategy(pid()) -> boolean().
attach_strategy(Pid) ->
    call({attach_strategy, Pid}).

%% @private The members that the membership strategy wants.
-spec steer([partisan:node_spec()]) -> ok | {error, term()}.
steer(Members) ->
    {ok, Name} = partisan_config:overlay_name(?MODULE),
    call({command, {steer, Name, lists:map(fun partisan_util:to_native/1, with_own(Members))}, pass}).

%% This node stays, whether it is named or not, and as it is. An empty list would mean nothing.
with_own(Members) ->
    #{name := Own} = Spec = partisan:node_spec(),
    [Spec | [Member || #{name := Name} = Member <- Members, Name =/= Own]].

%% @private The membership strategy has found out that the others have removed this node.
-spec left_by_strategy() -> ok.
left_by_strategy() ->
    _ = call({command, leave, pass}),
    ok.

%% @doc The names of the members, this node among them, sorted.
-spec members() -> {ok, [node()]}.
members() ->
    call({command, members, names}).

%% @doc The specifications of the members, sorted.
-spec members_for_orchestration() -> {ok, [partisan:node_spec()]}.
members_for_orchestration() ->
    call({command, members, specs}).

%% @doc Whether a node is a member.
-spec member(node() | partisan:node_spec()) -> boolean().
member(#{name := Node}) -> member(Node);
member(Node) when is_atom(Node) -> call({command, members, {member, Node}}).

%% @doc See `partisan_peer_service:update_members/1'.
-spec update_members([map()]) -> ok | {error, term()}.
update_members([]) ->
    ok;
update_members(Specs) when is_list(Specs) ->
    Members = with_own(lists:map(fun partisan_util:node_spec/1, Specs)),
    case partisan_config:is_steered() of
        true ->
            Joining = partisan_membership_strategy_host:update_members(Members),
            Results = [join(Spec) || Spec <- Joining],
            hd([Error || {error, _} = Error <- Results] ++ [ok]);
        false ->
            call({command, {update_members, lists:map(fun partisan_util:to_native/1, Members)}, pass})
    end.

%% @doc See `partisan_peer_service:join/1'.
-spec join(map()) -> ok | {error, term()}.
join(Spec) ->
    join(Spec, fun(_) -> pass end).

%% @doc See `partisan_peer_service:sync_join/1'.
-spec sync_join(map()) -> ok | {error, term()}.
sync_join(Spec) ->
    join(Spec, fun(Node) -> {sync_join, Node} end).

join(Given, Answer) ->
    #{name := Node} = Spec = partisan_util:node_spec(Given),
    case partisan:node() of
        Node -> {error, self_join};
        _ -> call({command, {join, partisan_util:to_native(Spec)}, Answer(Node)})
    end.

%% @doc See `partisan_peer_service:leave/0'.
-spec leave() -> ok | {error, term()}.
leave() ->
    _ = partisan_config:is_steered() andalso partisan_membership_strategy_host:leave(),
    call({command, leave, pass}).

%% @doc See `partisan_peer_service:leave/1'.
-spec leave(node() | partisan:node_spec()) -> ok | {error, term()}.
leave(#{name := Node}) ->
    leave(Node);
leave(Node) when is_atom(Node) ->
    case {partisan:node(), partisan_config:is_steered()} of
        {Node, _} -> leave();
        {_, true} -> partisan_membership_strategy_host:leave(Node);
        {_, false} -> call({command, {leave, Node}, pass})
    end.

%% @doc See `partisan_peer_service:connections/0'.
-spec connections() -> {ok, [connection()]}.
connections() ->
    call({command, connections, connections}).

%% @doc Closes the connections with a node, which stays what it is, a member or not.
-spec kill_connections(node()) -> ok.
kill_connections(Node) when is_atom(Node) ->
    _ = call({command, {disconnect, Node}, pass}),
    ok.

%% @doc The specification of a connected node or a member.
-spec spec_of(node()) -> {ok, partisan:node_spec()} | {error, not_yet_connected}.
spec_of(Node) ->
    call({spec_of, Node}).

%% @doc The membership as this node knows it: the members' specifications, sorted.
-spec get_local_state() -> {ok, [partisan:node_spec()]}.
get_local_state() ->
    members_for_orchestration().

%% @doc The names in a list or a set (`sets', version 2) of specifications.
-spec decode([partisan:node_spec()] | #{partisan:node_spec() => term()}) -> [node()].
decode(Members) when is_map(Members) ->
    decode(maps:keys(Members));
decode(Members) when is_list(Members) ->
    [Name || #{name := Name} <- Members].

%%%-------------------------------------------------------------------------------------------
%%% Subscriptions
%%%-------------------------------------------------------------------------------------------

%% @doc See `partisan_peer_service:on_up/2'.
-spec on_up(any | '_' | node() | binary() | string() | map(), fun()) -> ok.
on_up(Node, Fun) ->
    on_up(Node, Fun, #{}).

%% @doc See `partisan_peer_service:on_up/3'.
-spec on_up(any | '_' | node() | binary() | string() | map(), fun(), map() | list()) -> ok.
on_up(Node, Fun, Opts) ->
    register_callback(up, Node, Fun, Opts).

%% @doc See `partisan_peer_service:on_down/2'.
-spec on_down(any | '_' | node() | binary() | string() | map(), fun()) -> ok.
on_down(Node, Fun) ->
    on_down(Node, Fun, #{}).

%% @doc See `partisan_peer_service:on_down/3'.
-spec on_down(any | '_' | node() | binary() | string() | map(), fun(), map() | list()) -> ok.
on_down(Node, Fun, Opts) ->
    register_callback(down, Node, Fun, Opts).

register_callback(Event, Node, Fun, Opts) when is_list(Opts) ->
    register_callback(Event, Node, Fun, proplists:to_map(Opts));
register_callback(Event, Node, Fun, Opts) when
    is_function(Fun, 0); is_function(Fun, 1); is_function(Fun, 2)
->
    Channel = maps:get(channel, Opts, any),
    is_atom(Channel) orelse error(badarg),
    Callback = #callback{
        event = Event, node = callback_node(Node), channel = Channel, function = Fun
    },
    call({callback, Callback});
register_callback(_, _, _, _) ->
    error(badarg).

callback_node(any) -> '_';
callback_node('_') -> '_';
callback_node(#{name := Node}) -> callback_node(Node);
callback_node(Node) -> partisan_util:node_name(Node).

%% @doc See `partisan:monitor_node/2'.
-spec monitor_node(node(), boolean()) -> true.
monitor_node(Node, Flag) ->
    %% On a partial overlay most nodes have no session unless somebody wants one.
    _ = Flag andalso partisan_config:reaches() andalso partisan_forward:reach(Node, infinity),
    call({monitor_node, Node, Flag}).

%% @doc See `partisan:monitor_nodes/2'.
-spec monitor_nodes(boolean(), list()) -> ok | error.
monitor_nodes(Flag, Opts) ->
    call({monitor_nodes, Flag, Opts}).

%% @doc Whether the manager can do something: `monitoring' and `monitoring_nodes' it can.
-spec supports_capability(atom()) -> boolean().
supports_capability(monitoring) -> true;
supports_capability(monitoring_nodes) -> true;
supports_capability(_) -> false.

%%%-------------------------------------------------------------------------------------------
%%% Messages
%%%-------------------------------------------------------------------------------------------

%% @doc Sends a message to the manager of another node.
-spec send_message(node(), term()) -> ok | {error, term()}.
send_message(Node, Msg) ->
    partisan_forward:message(Node, ?MODULE, Msg, #{channel => partisan_membership}).

%% @doc Delivers a message as if it had come from a peer.
-spec receive_message(node(), partisan:channel(), term()) -> ok | {error, term()}.
receive_message(_Peer, _Channel, {forward_message, Dest, Msg}) ->
    partisan_forward:message(partisan:node(), Dest, Msg, #{});
receive_message(_Peer, _Channel, _Other) ->
    ok.

%% @doc See `partisan:forward_message/2'.
-spec forward_message(partisan:server_ref(), term()) -> ok | {error, term()}.
forward_message(Dest, Msg) ->
    partisan_forward:message(Dest, Msg, #{}).

%% @doc See `partisan:forward_message/3'.
-spec forward_message(partisan:server_ref(), term(), partisan:forward_opts()) ->
    ok | {error, term()}.
forward_message(Dest, Msg, Opts) ->
    partisan_forward:message(Dest, Msg, Opts).

%% @doc See `partisan:forward_message/4'.
-spec forward_message(node(), partisan:server_ref(), term(), partisan:forward_opts()) ->
    ok | {error, term()}.
forward_message(Node, Dest, Msg, Opts) ->
    partisan_forward:message(Node, Dest, Msg, Opts).

%% @doc See `partisan:cast_message/2'.
-spec cast_message(partisan:server_ref(), term()) -> ok.
cast_message(Dest, Msg) ->
    partisan_forward:cast(Dest, Msg, #{}).

%% @doc `partisan:cast_message(Node, Dest, Msg, #{})'. Unlike there, the three arguments of a
%% manager begin with the node.
-spec cast_message(node(), partisan:server_ref(), term()) -> ok.
cast_message(Node, Dest, Msg) ->
    partisan_forward:cast(Node, Dest, Msg, #{}).

%% @doc See `partisan:cast_message/4'.
-spec cast_message(node(), partisan:server_ref(), term(), partisan:forward_opts()) -> ok.
cast_message(Node, Dest, Msg, Opts) ->
    partisan_forward:cast(Node, Dest, Msg, Opts).

%% @private See `partisan_plumtree_broadcast:broadcast/2'.
-spec broadcast(partisan_nif:payload()) -> ok | {error, term()}.
broadcast(Payload) ->
    call({command, {broadcast, Payload}, pass}).

%% @private The neighbours to which this node sends, and to which it only announces, what `Root'
%% broadcasts.
-spec broadcast_peers(node()) -> {Eager :: [node()], Lazy :: [node()]}.
broadcast_peers(Root) when is_atom(Root) ->
    call({command, {broadcast_view, Root}, peers}).

%%%-------------------------------------------------------------------------------------------
%%% What a full mesh has no use for
%%%-------------------------------------------------------------------------------------------

%% @doc A full mesh reserves no places.
-spec reserve(term()) -> {error, not_implemented}.
reserve(_Tag) ->
    {error, not_implemented}.

%% @doc A full mesh keeps no partitions.
-spec partitions() -> {error, not_implemented}.
partitions() ->
    {error, not_implemented}.

%% @doc A full mesh keeps no partitions.
-spec inject_partition(term(), term()) -> {error, not_implemented}.
inject_partition(_Origin, _Ttl) ->
    {error, not_implemented}.

%% @doc A full mesh keeps no partitions.
-spec resolve_partition(term()) -> {error, not_implemented}.
resolve_partition(_Reference) ->
    {error, not_implemented}.

%%%-------------------------------------------------------------------------------------------
%%% The process
%%%-------------------------------------------------------------------------------------------

call(Request) ->
    gen_server:call(?MODULE, Request, infinity).

%% @private
-spec init([]) -> {ok, #state{}} | {stop, term()}.
init([]) ->
    process_flag(trap_exit, true),
    %% A predecessor that was killed could not do this.
    ok = partisan_nif:stop(),
    ok = partisan_config:unbound(),
    case start_node() of
        {ok, #{listen_addrs := Addrs}} ->
            ok = partisan_config:bound(
                lists:usort([#{ip => Ip, port => Port} || {Ip, Port} <- Addrs])
            ),
            {ok, #state{members = [partisan:node_spec()], whole = partisan_config:is_whole()}};
        {error, Reason} ->
            Text = partisan_config:format_error(Reason),
            logger:error("partisan does not start: ~ts", [Text], #{application => partisan}),
            {stop, {partisan, Text}}
    end.

start_node() ->
    case partisan_config:native(self()) of
        {ok, Config} -> partisan_nif:start(Config);
        {error, _} = Error -> Error
    end.

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) ->
    {reply, term(), #state{}} | {noreply, #state{}}.
handle_call({command, Command, Answer}, From, State) ->
    Ref = make_ref(),
    ok = partisan_nif:command(Ref, Command),
    {noreply, State#state{commands = (State#state.commands)#{Ref => {From, Answer}}}};
handle_call({callback, Callback}, _, #state{callbacks = Callbacks} = State) ->
    Changed = State#state{callbacks = Callbacks ++ [Callback]},
    watch(Callback#callback.node, Changed),
    {reply, ok, Changed};
handle_call({attach_strategy, Pid}, _, State) ->
    {reply, partisan_config:is_steered(), State#state{strategy = Pid}};
handle_call({spec_of, Node}, _, #state{up = Up, members = Members} = State) ->
    Known = [Spec || #{name := Name} = Spec <- Members, Name =:= Node],
    Reply =
        case {Up, Known} of
            {#{Node := Spec}, _} -> {ok, Spec};
            {_, [Spec | _]} -> {ok, Spec};
            _ -> {error, not_yet_connected}
        end,
    {reply, Reply, State};
handle_call({monitor_node, Node, Flag}, {Pid, _}, #state{monitors = Monitors} = State) ->
    case Flag andalso is_up(Node, State) of
        true ->
            Changed = State#state{monitors = partisan_node_monitors:monitor(Pid, Node, Monitors)},
            watch(Node, Changed),
            {reply, true, Changed};
        false when Flag ->
            Pid ! {nodedown, Node},
            {reply, true, State};
        false ->
            Changed = State#state{monitors = partisan_node_monitors:demonitor(Pid, Node, Monitors)},
            watch(Node, Changed),
            {reply, true, Changed}
    end;
handle_call({monitor_nodes, Flag, Opts}, {Pid, _}, #state{monitors = Monitors} = State) ->
    Result =
        case Flag of
            true -> partisan_node_monitors:subscribe(Pid, Opts, Monitors);
            false -> partisan_node_monitors:unsubscribe(Pid, Opts, Monitors)
        end,
    case Result of
        {ok, Changed} -> {reply, ok, State#state{monitors = Changed}};
        error -> {reply, error, State}
    end;
handle_call(_, _, State) ->
    {reply, {error, unknown}, State}.

%% A node may be up before its event has been handled; whoever could send to it already must not
%% be told that it is down.
is_up(Node, #state{up = Up}) ->
    is_map_key(Node, Up) orelse partisan_nif:is_connected(Node, any).

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info({partisan_event, Event}, State) ->
    {noreply, event(Event, State)};
handle_info({partisan_log, Level, Text}, State) ->
    ok = partisan_logger:log(Level, Text),
    {noreply, State};
handle_info({Ref, Result}, #state{commands = Commands} = State) when is_map_key(Ref, Commands) ->
    {{From, Answer}, Rest} = maps:take(Ref, Commands),
    {noreply, answer(Answer, Result, From, State#state{commands = Rest})};
handle_info({strategy_joined, Node, ok}, State) ->
    {noreply, joined_partial(Node, State)};
handle_info({strategy_joined, Node, {error, _} = Error}, #state{joining = Joining} = State) ->
    joined(maps:get(Node, Joining, []), Error),
    {noreply, State#state{joining = maps:remove(Node, Joining)}};
handle_info({'DOWN', _, process, Pid, _}, #state{monitors = Monitors} = State) ->
    Changed = State#state{monitors = partisan_node_monitors:gone(Pid, Monitors)},
    Watched = partisan_node_monitors:nodes(Monitors),
    lists:foreach(
        fun(Node) -> watch(Node, Changed) end,
        Watched -- partisan_node_monitors:nodes(Changed#state.monitors)
    ),
    {noreply, Changed};
handle_info(_, State) ->
    {noreply, State}.

%% @private
-spec terminate(term(), #state{}) -> ok.
terminate(_Reason, #state{up = Up, commands = Commands, joining = Joining} = State) ->
    ok = partisan_nif:stop(),
    ok = partisan_config:unbound(),
    _ = lists:foldl(
        fun(Node, Acc) -> event({down, Node, stopped}, Acc) end, State, maps:keys(Up)
    ),
    Waiting = [From || {From, _} <- maps:values(Commands)] ++ lists:append(maps:values(Joining)),
    lists:foreach(fun(From) -> gen_server:reply(From, {error, notalive}) end, Waiting).

%%%-------------------------------------------------------------------------------------------
%%% Events of the native node
%%%-------------------------------------------------------------------------------------------

event({up, Node, Native}, #state{up = Up, monitors = Monitors} = State) ->
    Spec = partisan_util:from_native(Native),
    run_callbacks(up, Spec, State),
    watch(Node, State),
    tell_strategy({up, Spec}, State),
    settle_joins(State#state{
        up = Up#{Node => Spec}, monitors = partisan_node_monitors:up(Node, Monitors)
    });
event({down, Node, _Reason}, State) ->
    Told = tell_down(Node, State),
    %% Messages of the next session must not overtake the news. Without effect while stopping.
    _ = partisan_nif:command(make_ref(), {told, Node}),
    Told;
event({overlay, Name, _Epoch, Old, Reaches}, State) ->
    ok = partisan_config:overlay(Name, Reaches),
    tell_strategy({overlay, partisan_config:is_steered()}, State),
    State#state{whole = Name =:= <<"full_mesh">> andalso Old =:= undefined};
event({members, Natives}, #state{whole = false, up = Up} = State) ->
    %% Who is no neighbour any longer, or not yet, is none the less joined.
    Members = lists:sort([partisan_util:from_native(Native) || Native <- Natives]),
    Members =:= State#state.members orelse partisan_peer_service_events:update(Members),
    State#state{members = Members, up = refresh(Members, Up)};
event({joined, Node}, #state{whole = false} = State) ->
    case State#state.strategy =/= undefined andalso partisan_config:is_steered() of
        true ->
            %% It is joined when the strategy has heard of it.
            tell_strategy({joined, Node}, State),
            State;
        false ->
            joined_partial(Node, State)
    end;
event({members, Natives}, #state{members = Before, joining = Joining} = State) ->
    case lists:sort([partisan_util:from_native(Native) || Native <- Natives]) of
        Before ->
            State;
        Members ->
            ok = partisan_peer_service_events:update(Members),
            Removed = decode(Before) -- decode(Members),
            lists:foreach(
                fun(Node) -> joined(maps:get(Node, Joining, []), {error, left}) end, Removed
            ),
            settle_joins(State#state{
                members = Members,
                up = refresh(Members, State#state.up),
                joining = maps:without(Removed, Joining),
                granted = maps:without(Removed, State#state.granted)
            })
    end;
event({joined, Node}, #state{joining = Joining, granted = Granted} = State) when
    is_map_key(Node, Joining)
->
    settle_joins(State#state{granted = Granted#{Node => true}});
event(left, #state{joining = Joining} = State) ->
    tell_strategy(left, State),
    joined(lists:append(maps:values(Joining)), {error, left}),
    State#state{joining = #{}, granted = #{}};
event({failed, Why}, _State) ->
    exit({native_node_failed, Why});
event(_, State) ->
    State.

%% On a partial overlay a join ends with the link.
joined_partial(Node, #state{joining = Joining, granted = Granted} = State) ->
    joined(maps:get(Node, Joining, []), ok),
    %% One that was a neighbour already is joined before the command is answered.
    Asked = lists:any(fun({_, Answer}) -> Answer =:= {sync_join, Node} end, maps:values(State#state.commands)),
    Early = maps:from_list([{Node, true} || Asked]),
    State#state{joining = maps:remove(Node, Joining), granted = maps:merge(Granted, Early)}.

tell_strategy(_, #state{strategy = undefined}) ->
    ok;
tell_strategy(Event, #state{strategy = Pid}) ->
    Pid ! {partisan_strategy_event, Event},
    ok.

tell_down(Node, #state{up = Up, monitors = Monitors} = State) ->
    case maps:take(Node, Up) of
        {Spec, Rest} ->
            tell_strategy({down, Node}, State),
            run_callbacks(down, Spec, State),
            State#state{up = Rest, monitors = partisan_node_monitors:down(Node, Monitors)};
        error ->
            State
    end.

%% A join is complete when the node has granted it, is a member on this side too, and its session
%% is up. A grant is always that of the last request: none is under way when the call returns.
settle_joins(#state{joining = Joining, granted = Granted, up = Up, members = Members} = State) ->
    Names = decode(Members),
    Done = [N || N <- maps:keys(Granted), is_map_key(N, Up), lists:member(N, Names)],
    lists:foreach(fun(Node) -> joined(maps:get(Node, Joining, []), ok) end, Done),
    State#state{joining = maps:without(Done, Joining), granted = maps:without(Done, Granted)}.

%% A node that has come up before it was a member had told only its channels.
refresh(Members, Up) ->
    lists:foldl(
        fun
            (#{name := Name} = Spec, Acc) when is_map_key(Name, Acc) -> Acc#{Name := Spec};
            (_, Acc) -> Acc
        end,
        Up,
        Members
    ).

%% On a partial overlay a node keeps a session with those for whose end somebody waits.
watch('_', _) ->
    ok;
watch(Node, #state{whole = false, monitors = Monitors, callbacks = Callbacks}) ->
    Watched =
        lists:member(Node, partisan_node_monitors:nodes(Monitors)) orelse
            lists:any(fun(#callback{event = E, node = N}) -> E =:= down andalso N =:= Node end, Callbacks),
    _ = partisan_nif:command(none, {watch, Node, Watched}),
    ok;
watch(_, _) ->
    ok.

joined(Callers, Result) ->
    lists:foreach(fun(From) -> gen_server:reply(From, Result) end, Callers).

run_callbacks(Event, #{name := Node, channels := Channels}, #state{callbacks = Callbacks}) ->
    _ = [
        run_callback(Callback, Node)
     || #callback{event = E, node = N, channel = C} = Callback <- Callbacks,
        E =:= Event,
        N =:= '_' orelse N =:= Node,
        C =:= any orelse is_map_key(C, Channels)
    ],
    ok.

run_callback(#callback{channel = any} = Callback, Node) ->
    run_callback(Callback#callback{channel = partisan_config:default_channel()}, Node);
run_callback(#callback{channel = Channel, function = Fun}, Node) ->
    {arity, Arity} = erlang:fun_info(Fun, arity),
    partisan_peer_service_callbacks:run(Fun, lists:sublist([Node, Channel], Arity)).

%%%-------------------------------------------------------------------------------------------
%%% Results of commands
%%%-------------------------------------------------------------------------------------------

answer({sync_join, Node}, ok, From, #state{whole = false, granted = Granted} = State) when
    is_map_key(Node, Granted)
->
    gen_server:reply(From, ok),
    State#state{granted = maps:remove(Node, Granted)};
answer({sync_join, Node}, ok, From, #state{joining = Joining} = State) ->
    Waiting = maps:get(Node, Joining, []),
    Granted = maps:remove(Node, State#state.granted),
    State#state{joining = Joining#{Node => [From | Waiting]}, granted = Granted};
answer(Answer, Result, From, State) ->
    gen_server:reply(From, reply(Answer, Result)),
    State.

reply(names, {ok, Natives}) ->
    {ok, lists:sort([Name || {Name, _, _} <- Natives])};
reply(specs, {ok, Natives}) ->
    {ok, lists:sort([partisan_util:from_native(Native) || Native <- Natives])};
reply({member, Node}, {ok, Natives}) ->
    lists:keymember(Node, 1, Natives);
reply(peers, {Eager, Lazy}) ->
    {lists:sort(Eager), lists:sort(Lazy)};
reply(connections, {ok, Connections}) ->
    {ok, [
        {partisan_peer_connection, self(), Node, Channel, #{ip => Ip, port => Port}, Timestamp}
     || {Node, Channel, _Index, Ip, Port, Timestamp} <- Connections
    ]};
reply(_, Result) ->
    Result.
