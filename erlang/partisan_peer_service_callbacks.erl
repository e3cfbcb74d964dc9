%% @doc Runs the funs that users register for nodes that come and go: one after the other, in
%% order, and not inside the manager, which they may call.
%%
%% A fun that raises is logged; one that doesn't return holds up those after it, nothing else.
-module(partisan_peer_service_callbacks).
-behaviour(gen_server).

-export([start_link/0, run/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

%% @doc Starts the process.
-spec start_link() -> gen_server:start_ret().
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc Queues the call of a fun.
-spec run(fun(), [term()]) -> ok.
run(Fun, Args) when is_function(Fun, length(Args)) ->
    gen_server:cast(?MODULE, {run, Fun, Args}).

%% @private
-spec init([]) -> {ok, []}.
init([]) ->
    {ok, []}.

%% @private
-spec handle_call(term(), gen_server:from(), []) -> {reply, {error, unknown}, []}.
handle_call(_, _, State) ->
    {reply, {error, unknown}, State}.

%% @private
-spec handle_cast({run, fun(), [term()]}, []) -> {noreply, []}.
handle_cast({run, Fun, Args}, State) ->
    try
        _ = apply(Fun, Args)
    catch
        Class:Reason:Stack ->
            logger:error(
                "partisan: a callback raised ~0tp:~0tp~n~0tp",
                [Class, Reason, Stack],
                #{application => partisan}
            )
    end,
    {noreply, State}.

%% @private
-spec handle_info(term(), []) -> {noreply, []}.
handle_info(_, State) ->
    {noreply, State}.
