%% @doc The handler that is always there: it broadcasts heartbeats, by which trees form before there is anything
%% else to broadcast.
%%
%% It does so if the configuration key `broadcast' is set, every `broadcast_heartbeat_interval'. A heartbeat is
%% `{Node, Epoch, Number}', its own identifier; of each node the newest one is remembered.
-module(partisan_plumtree_backend).
-behaviour(gen_server).
-behaviour(partisan_plumtree_broadcast_handler).

-include("partisan.hrl").

-export([start_link/0, timestamps/0]).
-export([broadcast_data/1, broadcast_channel/0, merge/2, is_stale/1, graft/1, exchange/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-export_type([timestamp/0]).

-type timestamp() :: {node(), Epoch :: integer(), Number :: pos_integer()}.

%% The last heartbeat; before the first one its number is 0.
-type state() :: {node(), Epoch :: integer(), Number :: non_neg_integer()}.

%% @doc Starts the process.
-spec start_link() -> gen_server:start_ret().
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc The newest heartbeat of each node that has sent one, this node among them.
-spec timestamps() -> [timestamp()].
timestamps() ->
    try
        ets:tab2list(?MODULE)
    catch
        error:badarg -> []
    end.

%%%-------------------------------------------------------------------------------------------
%%% The handler
%%%-------------------------------------------------------------------------------------------

%% @private
-spec broadcast_data(timestamp()) -> {timestamp(), timestamp()}.
broadcast_data({_, _, _} = Heartbeat) ->
    {Heartbeat, Heartbeat}.

%% @private
-spec broadcast_channel() -> partisan:channel().
broadcast_channel() ->
    ?MEMBERSHIP_CHANNEL.

%% @private
-spec merge(timestamp(), timestamp()) -> boolean().
merge({Node, Epoch, Number} = Heartbeat, Heartbeat) when
    is_atom(Node), is_integer(Epoch), is_integer(Number)
->
    not is_stale(Heartbeat) andalso ets:insert(?MODULE, Heartbeat).

%% @private
-spec is_stale(timestamp()) -> boolean().
is_stale({Node, _, _} = Heartbeat) ->
    %% Of one node, terms compare by epoch and then by number.
    case ets:lookup(?MODULE, Node) of
        [Newest] -> Heartbeat =< Newest;
        [] -> false
    end.

%% @private
-spec graft(timestamp()) -> {ok, timestamp()} | stale | {error, {not_found, timestamp()}}.
graft({Node, _, _} = Heartbeat) ->
    case ets:lookup(?MODULE, Node) of
        [Heartbeat] -> {ok, Heartbeat};
        [Newest] when Newest > Heartbeat -> stale;
        _ -> {error, {not_found, Heartbeat}}
    end.

%% @private There will be another heartbeat.
-spec exchange(node()) -> ignore.
exchange(_Peer) ->
    ignore.

%%%-------------------------------------------------------------------------------------------
%%% The process
%%%-------------------------------------------------------------------------------------------

%% @private
-spec init([]) -> {ok, state()}.
init([]) ->
    %% The broadcast server merges what arrives.
    ?MODULE = ets:new(?MODULE, [named_table, public, {read_concurrency, true}]),
    ok = schedule(),
    {ok, {partisan:node(), erlang:system_time(), 0}}.

schedule() ->
    _ = erlang:send_after(partisan_config:get(broadcast_heartbeat_interval), self(), heartbeat),
    ok.

%% @private
-spec handle_call(term(), gen_server:from(), state()) ->
    {reply, {error, unknown}, state()}.
handle_call(_, _, State) ->
    {reply, {error, unknown}, State}.

%% @private
-spec handle_cast(term(), state()) -> {noreply, state()}.
handle_cast(_, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), state()) -> {noreply, state()}.
handle_info(heartbeat, Last) ->
    ok = schedule(),
    case partisan_config:get(broadcast) of
        true -> {noreply, beat(Last)};
        false -> {noreply, Last}
    end;
handle_info(_, State) ->
    {noreply, State}.

beat({Node, Epoch, Number}) ->
    Heartbeat = {Node, Epoch, Number + 1},
    true = ets:insert(?MODULE, Heartbeat),
    %% One that is not sent is missed by nobody.
    _ = partisan_plumtree_broadcast:broadcast(Heartbeat, ?MODULE),
    Heartbeat.
