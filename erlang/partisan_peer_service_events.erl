%% @doc Tells handlers and funs of every change of the membership.
%%
%% A gen_event process under this name. A handler gets the event `{update, Members}', a fun
%% `Members': the sorted list of the members' specifications, this node's among them. Handlers run
%% in this process, not in the manager.
-module(partisan_peer_service_events).
-behaviour(gen_event).

-export([start_link/0, update/1]).
-export([add_handler/2, add_sup_handler/2, add_callback/1, add_sup_callback/1]).
-export([init/1, handle_event/2, handle_call/2, handle_info/2]).

-type callback() :: fun(([partisan:node_spec()]) -> term()).

%% @doc Starts the process.
-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    gen_event:start_link({local, ?MODULE}).

%% @doc Adds a gen_event handler.
-spec add_handler(gen_event:handler(), term()) -> gen_event:add_handler_ret().
add_handler(Handler, Args) ->
    gen_event:add_handler(?MODULE, Handler, Args).

%% @doc Adds a gen_event handler that goes with the caller.
-spec add_sup_handler(gen_event:handler(), term()) -> gen_event:add_handler_ret().
add_sup_handler(Handler, Args) ->
    gen_event:add_sup_handler(?MODULE, Handler, Args).

%% @doc Adds a fun that is called with the members at every change.
-spec add_callback(callback()) -> gen_event:add_handler_ret().
add_callback(Fun) when is_function(Fun, 1) ->
    gen_event:add_handler(?MODULE, {?MODULE, make_ref()}, [Fun]).

%% @doc As `add_callback/1'; the fun goes with the caller.
-spec add_sup_callback(callback()) -> gen_event:add_handler_ret().
add_sup_callback(Fun) when is_function(Fun, 1) ->
    gen_event:add_sup_handler(?MODULE, {?MODULE, make_ref()}, [Fun]).

%% @doc Announces the members. Returns at once.
-spec update([partisan:node_spec()]) -> ok.
update(Members) ->
    gen_event:notify(?MODULE, {update, Members}).

%% @private
-spec init([callback()]) -> {ok, callback()}.
init([Fun]) ->
    {ok, Fun}.

%% @private
-spec handle_event(term(), callback()) -> {ok, callback()}.
handle_event({update, Members}, Fun) ->
    try
        _ = Fun(Members)
    catch
        Class:Reason:Stack ->
            logger:error(
                "partisan: a membership callback raised ~0tp:~0tp~n~0tp",
                [Class, Reason, Stack],
                #{application => partisan}
            )
    end,
    {ok, Fun};
handle_event(_, Fun) ->
    {ok, Fun}.

%% @private
-spec handle_call(term(), callback()) -> {ok, ok, callback()}.
handle_call(_, Fun) ->
    {ok, ok, Fun}.

%% @private
-spec handle_info(term(), callback()) -> {ok, callback()}.
handle_info(_, Fun) ->
    {ok, Fun}.
