%% @doc The processes of the application. The manager owns the native library; those it tells of
%% events come before it.
-module(partisan_sup).
-behaviour(supervisor).

-export([start_link/0]).
-export([init/1]).

%% @doc Starts the supervisor.
-spec start_link() -> supervisor:startlink_ret().
start_link() ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, []).

%% @private
-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    Flags = #{strategy => one_for_one, intensity => 10, period => 10},
    Children = [
        worker(partisan_inet),
        worker(partisan_logger),
        (worker(partisan_peer_service_events))#{modules => dynamic},
        worker(partisan_peer_service_callbacks),
        worker(partisan_control),
        worker(partisan_plumtree_broadcast),
        worker(partisan_plumtree_backend)
    ] ++ [inbox(Name) || Name <- partisan_inbox:names()] ++ [
        %% Closing connections in order takes its time.
        (worker(partisan_pluggable_peer_service_manager))#{shutdown => 30000}
    ] ++ [worker(partisan_membership_strategy_host) || partisan_config:strategy() =/= undefined],
    {ok, {Flags, Children}}.

inbox(Name) ->
    (worker(partisan_inbox))#{id => Name, start => {partisan_inbox, start_link, [Name]}}.

worker(Module) ->
    #{id => Module, start => {Module, start_link, []}}.
