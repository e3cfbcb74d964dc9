%% @doc The application: reads the configuration, loads the native library, starts the processes.
-module(partisan_app).
-behaviour(application).

-export([start/2, stop/1]).

%% @doc Starts the application. What is wrong is logged in one sentence, and is the reason.
-spec start(application:start_type(), term()) -> {ok, pid()} | {error, term()}.
start(_Type, _Args) ->
    try
        ok = partisan_config:init(),
        partisan_nif:load()
    of
        ok -> start_processes();
        {error, Reason} -> refuse(Reason)
    catch
        error:{invalid_config, _, _, _} = Reason -> refuse(Reason)
    end.

start_processes() ->
    case partisan_sup:start_link() of
        {ok, Pid} -> {ok, Pid};
        {error, {shutdown, {failed_to_start_child, _, {partisan, _} = Reason}}} -> {error, Reason};
        {error, Reason} -> {error, Reason}
    end.

refuse(Reason) ->
    Text = partisan_config:format_error(Reason),
    logger:error("partisan does not start: ~ts", [Text], #{application => partisan}),
    {error, {partisan, Text}}.

%% @doc Nothing is left to do: the manager has stopped the native library.
-spec stop(term()) -> ok.
stop(_State) ->
    ok.
