%% @doc Watches whether this machine has a network: an interface that is up and has an IPv4
%% address beyond loopback. Looked at every 2 s.
-module(partisan_inet).
-behaviour(gen_server).

-export([start_link/0, net_status/0, net_status/1, monitor/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-export_type([status/0]).

-type status() :: connected | disconnected.
-type state() :: #{status := status(), subscribers := #{pid() => reference()}}.

-define(INTERVAL, 2000).

%% @doc Starts the process.
-spec start_link() -> gen_server:start_ret().
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc The network's state.
-spec net_status() -> status().
net_status() ->
    net_status(5000).

%% @doc As `net_status/0', with a timeout in milliseconds for the answer.
-spec net_status(timeout()) -> status().
net_status(Timeout) ->
    gen_server:call(?MODULE, net_status, Timeout).

%% @doc Begins or ends messages to the caller at every change: `{network_connected, Ref}' and
%% `{network_disconnected, Ref}', where `Ref' is some reference, always the same.
-spec monitor(boolean()) -> ok.
monitor(Flag) when is_boolean(Flag) ->
    gen_server:call(?MODULE, {monitor, Flag}).

%% @private
-spec init([]) -> {ok, state()}.
init([]) ->
    _ = erlang:send_after(?INTERVAL, self(), tick),
    {ok, #{status => look(), subscribers => #{}}}.

%% @private
-spec handle_call(term(), gen_server:from(), state()) -> {reply, term(), state()}.
handle_call(net_status, _, #{status := Status} = State) ->
    {reply, Status, State};
handle_call({monitor, true}, {Pid, _}, #{subscribers := Subscribers} = State) when
    not is_map_key(Pid, Subscribers)
->
    Ref = erlang:monitor(process, Pid),
    {reply, ok, State#{subscribers := Subscribers#{Pid => Ref}}};
handle_call({monitor, false}, {Pid, _}, #{subscribers := Subscribers} = State) when
    is_map_key(Pid, Subscribers)
->
    {Ref, Rest} = maps:take(Pid, Subscribers),
    true = erlang:demonitor(Ref, [flush]),
    {reply, ok, State#{subscribers := Rest}};
handle_call({monitor, _}, _, State) ->
    {reply, ok, State};
handle_call(_, _, State) ->
    {reply, {error, unknown}, State}.

%% @private
-spec handle_cast(term(), state()) -> {noreply, state()}.
handle_cast(_, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), state()) -> {noreply, state()}.
handle_info(tick, #{status := Before, subscribers := Subscribers} = State) ->
    _ = erlang:send_after(?INTERVAL, self(), tick),
    case look() of
        Before ->
            {noreply, State};
        Now ->
            maps:foreach(fun(Pid, Ref) -> Pid ! {message(Now), Ref} end, Subscribers),
            {noreply, State#{status := Now}}
    end;
handle_info({'DOWN', _, process, Pid, _}, #{subscribers := Subscribers} = State) ->
    {noreply, State#{subscribers := maps:remove(Pid, Subscribers)}};
handle_info(_, State) ->
    {noreply, State}.

message(connected) -> network_connected;
message(disconnected) -> network_disconnected.

look() ->
    case inet:getifaddrs() of
        {ok, Interfaces} ->
            case lists:any(fun({_, Opts}) -> is_up(Opts) end, Interfaces) of
                true -> connected;
                false -> disconnected
            end;
        {error, _} ->
            disconnected
    end.

is_up(Opts) ->
    lists:member(up, proplists:get_value(flags, Opts, [])) andalso
        lists:any(
            fun
                ({addr, {A, _, _, _}}) -> A =/= 127;
                (_) -> false
            end,
            Opts
        ).
