%% @doc Runs the user's membership strategy; see `partisan_membership_strategy'.
%%
%% The native library keeps links with the members (`src/overlay/steered'), and the manager tells this process what
%% happens to nodes. Hosts send each other `{partisan_membership_strategy_host, Strategy, What}' as ordinary
%% messages over the channel `partisan_membership'. While the cluster runs another overlay the strategy rests;
%% it begins with `init/1' when the cluster comes back to it.
-module(partisan_membership_strategy_host).
-behaviour(gen_server).

-export([start_link/0, leave/0, leave/1, update_members/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

%% How long a session is waited for with a node that has none, in milliseconds.
-define(PATIENCE, 10000).

%% How long another node's state is waited for, and how often it is asked for.
-define(ANSWER_TIMEOUT, 2500).
-define(ATTEMPTS, 4).

%% Messages that wait for a session: for each node, and nodes.
-define(MAX_WAITING, 1000).
-define(MAX_REACHING, 100).

-type event() ::
    {joined, node()}
    | {up, partisan:node_spec()}
    | {down, node()}
    | {overlay, Running :: boolean()}
    | left.
%% What the manager tells, as `{partisan_strategy_event, event()}'.

-export_type([event/0]).

-record(state, {
    strategy :: module(),
    %% The strategy's own.
    inner :: term(),
    members = [] :: [partisan:node_spec()],
    running :: boolean(),
    %% Nodes that were asked for their states, with timers, and how often they will be again.
    asked = #{} :: #{node() => {reference(), non_neg_integer()}},
    %% What other hosts have sent while the strategy rested, the newest first, and when: some of them begin earlier.
    early = [] :: [{Millisecond :: integer(), term()}],
    %% What is to be sent to nodes without a session, the newest first, by the monitors of those who reach them.
    waiting = #{} :: #{node() => {reference(), [term()]}}
}).

%% @doc Starts the process.
-spec start_link() -> gen_server:start_ret().
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc Tells the strategy that this node leaves. Its messages are on their way when this returns.
-spec leave() -> ok.
leave() ->
    gen_server:call(?MODULE, leave, infinity).

%% @doc Has the strategy remove a node. An error if it is no member.
-spec leave(node()) -> ok | {error, not_a_member}.
leave(Node) ->
    gen_server:call(?MODULE, {leave, Node}, infinity).

%% @doc Has the strategy remove who isn't in the list; those are returned who are to be joined.
-spec update_members([partisan:node_spec()]) -> [partisan:node_spec()].
update_members(Specs) ->
    gen_server:call(?MODULE, {update_members, Specs}, infinity).

%% @private
-spec init([]) -> {ok, #state{}}.
init([]) ->
    %% The links of a manager that starts again are gone, and so is what the strategy knew.
    _ = monitor(process, partisan_pluggable_peer_service_manager),
    Running = partisan_pluggable_peer_service_manager:attach_strategy(self()),
    tick(),
    {ok, begin_anew(#state{strategy = partisan_config:strategy(), running = Running})}.

begin_anew(#state{strategy = Strategy} = State) ->
    Unique = {partisan:node(), erlang:system_time(), erlang:unique_integer()},
    case Strategy:init(erlang:md5(term_to_binary(Unique))) of
        {ok, Members, Inner} -> steer(State#state{inner = Inner, members = members(Members)});
        Other -> error({bad_return, {Strategy, init, 1}, Other})
    end.

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, term(), #state{}}.
handle_call(leave, _, #state{strategy = Strategy, inner = Inner} = State) ->
    %% Its links are closed by who asks, and not as the strategy now wants.
    {_, Outgoing, Left} = result(leave, 2, Strategy:leave(partisan:node_spec(), Inner)),
    {reply, ok, send(Outgoing, State#state{inner = Left})};
handle_call({leave, Node}, _, #state{members = Members} = State) ->
    case [Spec || #{name := Name} = Spec <- Members, Name =:= Node] of
        [Spec | _] -> {reply, ok, call(leave, [Spec], State)};
        [] -> {reply, {error, not_a_member}, State}
    end;
handle_call({update_members, Specs}, _, State) ->
    {Joining, Leaving} = compare(Specs, State),
    Own = partisan:node(),
    Changed = lists:foldl(fun(Spec, Acc) -> call(leave, [Spec], Acc) end, State, others(Own, Leaving)),
    {reply, others(Own, Joining), Changed};
handle_call(_, _, State) ->
    {reply, {error, unknown}, State}.

compare(Specs, #state{strategy = Strategy, inner = Inner, members = Members}) ->
    case erlang:function_exported(Strategy, compare, 2) of
        true ->
            Strategy:compare(Specs, Inner);
        false ->
            Without = fun(List, Others) ->
                Names = [Name || #{name := Name} <- Others],
                [Spec || #{name := Name} = Spec <- List, not lists:member(Name, Names)]
            end,
            {Without(Specs, Members), Without(Members, Specs)}
    end.

others(Own, Specs) ->
    [Spec || #{name := Name} = Spec <- Specs, Name =/= Own].

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}} | {stop, term(), #state{}}.
handle_info({?MODULE, Strategy, What}, #state{strategy = Strategy, running = true} = State) ->
    {noreply, heard(What, State)};
handle_info({?MODULE, Strategy, What}, #state{strategy = Strategy, early = Early} = State) ->
    Kept = lists:sublist([{erlang:monotonic_time(millisecond), What} | Early], ?MAX_WAITING),
    {noreply, State#state{early = Kept}};
handle_info({partisan_strategy_event, Event}, State) ->
    {noreply, event(Event, State)};
handle_info(tick, State) ->
    tick(),
    {noreply, call(periodic, [], State)};
handle_info({silent, Node}, #state{asked = Asked} = State) ->
    case Asked of
        #{Node := {_, 0}} ->
            logger:warning("partisan: the membership strategy of ~ts did not answer a join", [Node], #{
                application => partisan
            }),
            {noreply, settled(Node, {error, timeout}, State)};
        #{Node := {_, Left}} ->
            {noreply, ask(Node, Left - 1, State)};
        #{} ->
            {noreply, State}
    end;
handle_info({'DOWN', Monitor, process, _, _}, #state{waiting = Waiting} = State) ->
    case [Node || {Node, {M, _}} <- maps:to_list(Waiting), M =:= Monitor] of
        [Node] ->
            {{_, Messages}, Rest} = maps:take(Node, Waiting),
            %% If it wasn't reached they are lost.
            _ = [transmit(Node, Message) || Message <- lists:reverse(Messages)],
            {noreply, State#state{waiting = Rest}};
        [] ->
            {stop, {shutdown, manager_down}, State}
    end;
handle_info(_, State) ->
    {noreply, State}.

%%%-------------------------------------------------------------------------------------------
%%% What happens
%%%-------------------------------------------------------------------------------------------

heard({message, Message}, State) ->
    trace("received ~0tp", [Message]),
    Content =
        case Message of
            {membership_strategy, Inner} -> Inner;
            _ -> Message
        end,
    call(handle_message, [Content], State);
heard({ask, Node}, #state{inner = Inner} = State) ->
    send_to(Node, {state, partisan:node_spec(), Inner}, State);
heard({state, #{name := Node} = Spec, PeerState}, #state{asked = Asked} = State) when is_map_key(Node, Asked) ->
    settled(Node, ok, call(join, [Spec, PeerState], State));
heard(_, State) ->
    State.

event({overlay, Running}, #state{running = Before} = State) ->
    case {Before, Running} of
        {false, true} ->
            Since = erlang:monotonic_time(millisecond) - ?PATIENCE,
            Early = [What || {At, What} <- lists:reverse(State#state.early), At > Since],
            lists:foldl(fun heard/2, begin_anew(State#state{running = true, early = []}), Early);
        %% It may be another epoch.
        {true, true} -> steer(State);
        {_, false} -> State#state{running = false}
    end;
event(left, State) ->
    begin_anew(State);
event({joined, Node}, State) ->
    ask(Node, ?ATTEMPTS - 1, State);
event({up, #{name := Node, listen_addrs := Addrs} = Spec}, #state{members = Members} = State) ->
    Known = [Old || #{name := N} = Old <- Members, N =:= Node, maps:get(listen_addrs, Old) =/= Addrs, Addrs =/= []],
    Pruned =
        case Known of
            [] -> State;
            _ -> optional(prune, [Known], State)
        end,
    optional(node_up, [Spec], Pruned);
event({down, Node}, State) ->
    optional(node_down, [Node], State).

%% Asks a node for its state: for the first time, or again.
ask(Node, Left, #state{asked = Asked} = State) ->
    _ = [erlang:cancel_timer(Old) || {N, {Old, _}} <- maps:to_list(Asked), N =:= Node],
    Timer = erlang:send_after(?ANSWER_TIMEOUT, self(), {silent, Node}),
    Waits = State#state{asked = Asked#{Node => {Timer, Left}}},
    send_to(Node, {ask, partisan:node()}, Waits).

%% A join has come to its end.
settled(Node, Result, #state{asked = Asked} = State) ->
    {{Timer, _}, Rest} = maps:take(Node, Asked),
    _ = erlang:cancel_timer(Timer),
    partisan_pluggable_peer_service_manager ! {strategy_joined, Node, Result},
    %% The native library drops the link now unless it is listed.
    steer(State#state{asked = Rest}).

optional(Callback, Args, #state{strategy = Strategy} = State) ->
    case erlang:function_exported(Strategy, Callback, length(Args) + 1) of
        true -> call(Callback, Args, State);
        false -> State
    end.

%%%-------------------------------------------------------------------------------------------
%%% The strategy
%%%-------------------------------------------------------------------------------------------

call(_, _, #state{running = false} = State) ->
    State;
call(Callback, Args, #state{strategy = Strategy, inner = Inner, members = Before} = State) ->
    Returned = apply(Strategy, Callback, Args ++ [Inner]),
    {Members, Outgoing, Changed} = result(Callback, length(Args) + 1, Returned),
    trace("~p: members ~0tp", [Callback, [Name || #{name := Name} <- Members]]),
    Sent = send(Outgoing, State#state{inner = Changed, members = Members}),
    Own = partisan:node(),
    Has = fun(List) -> lists:any(fun(#{name := Name}) -> Name =:= Own end, List) end,
    case Has(Before) andalso not Has(Members) of
        true ->
            %% Removed by the others. The event that it has left has it begin anew.
            ok = partisan_pluggable_peer_service_manager:left_by_strategy(),
            Sent;
        false when Members =:= Before -> Sent;
        false -> steer(Sent)
    end.

result(_, _, {ok, Members, Outgoing, Inner}) when is_list(Outgoing) ->
    {members(Members), Outgoing, Inner};
result(prune, _, {ok, Members, Inner}) ->
    {members(Members), [], Inner};
result(Callback, Arity, Other) ->
    error({bad_return, {partisan_config:strategy(), Callback, Arity}, Other}).

members(Members) ->
    lists:usort([partisan_util:node_spec(Member) || Member <- Members]).

steer(#state{running = true, members = Members} = State) ->
    case partisan_pluggable_peer_service_manager:steer(Members) of
        ok ->
            State;
        {error, Why} ->
            logger:error("partisan: the members of the membership strategy were refused: ~ts", [
                partisan_config:format_error(Why)
            ], #{application => partisan}),
            State
    end;
steer(State) ->
    State.

tick() ->
    _ = partisan_config:get(periodic_enabled) andalso
        erlang:send_after(partisan_config:get(periodic_interval), self(), tick),
    ok.

%%%-------------------------------------------------------------------------------------------
%%% Messages
%%%-------------------------------------------------------------------------------------------

send(Outgoing, State) ->
    lists:foldl(fun({To, Message}, Acc) -> send_to(To, {message, Message}, Acc) end, State, Outgoing).

%% One that waits is not overtaken by the next.
send_to(#{name := Node} = Spec, Message, State) ->
    %% It may be known to nobody else.
    _ = partisan_nif:is_connected(Node, any) orelse
        partisan_nif:command(none, {remember, partisan_util:to_native(partisan_util:node_spec(Spec))}),
    send_to(Node, Message, State);
send_to(Node, Message, #state{waiting = Waiting} = State) ->
    trace("to ~ts: ~0tp", [Node, Message]),
    Full = map_size(Waiting) >= ?MAX_REACHING,
    case Waiting of
        #{Node := {_, Messages}} when length(Messages) >= ?MAX_WAITING ->
            State;
        #{Node := {Monitor, Messages}} ->
            State#state{waiting = Waiting#{Node := {Monitor, [Message | Messages]}}};
        #{} ->
            case transmit(Node, Message) of
                {error, Why} when not Full, Why =:= disconnected orelse Why =:= not_yet_connected ->
                    {_, Monitor} = spawn_monitor(fun() -> partisan_forward:reach(Node, ?PATIENCE) end),
                    State#state{waiting = Waiting#{Node => {Monitor, [Message]}}};
                _ ->
                    State
            end
    end.

transmit(Node, Message) ->
    case partisan:node() of
        Node -> self() ! {?MODULE, partisan_config:strategy(), Message}, ok;
        _ -> partisan_forward:control(Node, ?MODULE, {?MODULE, partisan_config:strategy(), Message}, 0)
    end.

trace(Format, Args) ->
    partisan_config:get(membership_strategy_tracing) andalso
        logger:info("partisan: membership strategy: " ++ Format, Args, #{application => partisan}),
    ok.
