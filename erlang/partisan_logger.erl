%% @doc Brings the native library's log lines to Erlang's `logger', in a process of its own: a slow
%% log handler must not hold up the manager.
-module(partisan_logger).
-behaviour(gen_server).

-export([start_link/0, log/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-type level() :: debug | info | warning | error.

%% @doc Starts the process.
-spec start_link() -> gen_server:start_ret().
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc Logs a line with the metadata `#{application => partisan}'. There is no `domain': the default
%% handler drops every domain but OTP's.
-spec log(level(), binary()) -> ok.
log(Level, Text) ->
    gen_server:cast(?MODULE, {Level, Text}).

%% @private
-spec init([]) -> {ok, []}.
init([]) ->
    {ok, []}.

%% @private
-spec handle_call(term(), gen_server:from(), []) -> {reply, {error, unknown}, []}.
handle_call(_, _, State) ->
    {reply, {error, unknown}, State}.

%% @private
-spec handle_cast({level(), binary()}, []) -> {noreply, []}.
handle_cast({Level, Text}, State) ->
    logger:log(Level, "partisan: ~ts", [Text], #{application => partisan}),
    {noreply, State}.

%% @private
-spec handle_info(term(), []) -> {noreply, []}.
handle_info(_, State) ->
    {noreply, State}.
