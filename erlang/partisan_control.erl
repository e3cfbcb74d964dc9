%% @doc Answers what other nodes ask about this one, and asks them.
%%
%% A request is `{partisan_control, request, From, Ref, Request}', sent to this module's name; the
%% answer `{partisan_control, reply, Ref, Result}' goes to the pid `From'. Both travel verbatim:
%% `From' and `Ref' arrive as the pid and reference that they are. Nothing here waits for a peer,
%% and what isn't understood is dropped: the other side has a timeout.
%%
%% It also does for the native library's I/O threads what only schedulers can: it has terms decoded
%% and tells when the VM has its name.
-module(partisan_control).
-behaviour(gen_server).

-export([start_link/0, call/3, settle/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-type request() ::
    {is_process_alive, pid() | {Id :: integer(), Serial :: integer(), Creation :: integer()}}
    | {node_info, [atom()]}
    | {broadcast_peers, Root :: node()}
    | exchanges
    | node_spec.

%% @doc Starts the process.
-spec start_link() -> gen_server:start_ret().
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc Asks a node. `{error, timeout}' if no answer comes within `Timeout' milliseconds, else the
%% errors of `partisan:forward_message/3'.
-spec call(node(), request(), timeout()) -> {ok, term()} | {error, term()}.
call(Node, Request, Timeout) ->
    %% In a process of its own, so that a late answer finds nobody.
    Caller = self(),
    Answer = make_ref(),
    {_, Monitor} = spawn_monitor(fun() -> Caller ! {Answer, ask(Node, Request, Timeout)} end),
    receive
        {Answer, Result} ->
            true = demonitor(Monitor, [flush]),
            Result;
        {'DOWN', Monitor, process, _, Reason} ->
            {error, Reason}
    end.

ask(Node, Request, Timeout) ->
    Ref = make_ref(),
    Message = {?MODULE, request, self(), Ref, Request},
    case partisan_forward:control(Node, ?MODULE, Message, Timeout) of
        ok ->
            receive
                {?MODULE, reply, Ref, Result} -> {ok, Result}
            after Timeout -> {error, timeout}
            end;
        {error, _} = Error ->
            Error
    end.

%% @private
-spec init([]) -> {ok, []}.
init([]) ->
    {ok, []}.

%% @private
-spec handle_call(term(), gen_server:from(), []) -> {reply, {error, unknown}, []}.
handle_call(_, _, State) ->
    {reply, {error, unknown}, State}.

%% @private
-spec handle_cast(term(), []) -> {noreply, []}.
handle_cast(_, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), []) -> {noreply, []}.
handle_info({?MODULE, request, From, Ref, Request}, State) when is_pid(From), is_reference(Ref) ->
    try answer(Request) of
        Result ->
            Reply = {?MODULE, reply, Ref, Result},
            _ = partisan_forward:control(node(From), From, Reply, 0),
            {noreply, State}
    catch
        error:_ -> {noreply, State};
        %% The manager, which is asked for some of it, is not there.
        exit:_ -> {noreply, State}
    end;
handle_info(partisan_settle, State) ->
    _ = spawn(fun settle/0),
    {noreply, State};
handle_info(_, State) ->
    {noreply, State}.

%% @doc Waits until no change of the VM's name is under way, and tells the native library.
%% `net_kernel' is registered before the VM gets its name, and no longer before it loses it.
-spec settle() -> ok.
settle() ->
    NetKernel = whereis(net_kernel),
    case is_alive() =:= is_pid(NetKernel) of
        true ->
            partisan_nif:settle(NetKernel);
        false ->
            timer:sleep(1),
            settle()
    end.

answer({is_process_alive, Pid}) when is_pid(Pid) ->
    node(Pid) =:= node() andalso is_process_alive(Pid);
answer({is_process_alive, {Id, Serial, _}}) ->
    is_process_alive(partisan_remote_ref:local_pid(Id, Serial));
answer({node_info, Keys}) ->
    partisan:node_info(Keys);
answer({broadcast_peers, Root}) ->
    partisan_plumtree_broadcast:get_peers(Root);
answer(exchanges) ->
    partisan_plumtree_broadcast:exchanges();
answer(node_spec) ->
    partisan:node_spec().
