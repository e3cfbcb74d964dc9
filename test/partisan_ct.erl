%% @doc What the suites share: real BEAM nodes, controlled over their standard input and output, so
%% that no Erlang distribution is between them unless a suite asks for it.
-module(partisan_ct).

-export([start/1, start/2, stop/1, kill/1, call/4, run/2, name/1, spec/1, os_pid/1]).
-export([join/2, wait/1, wait/2, port/0, cookie/0]).

-export_type([vm/0]).

-type vm() :: #{peer := pid(), name := node(), port := inet:port_number(), env := [{atom(), term()}]}.

%% @doc A node with Partisan running, under this name, with defaults for tests.
-spec start(node()) -> vm().
start(Name) ->
    start(Name, #{}).

%% @doc Options: `env' (application environment, added to the defaults), `args' (of `erl'), `port',
%% `start' (`false': the application is not started).
-spec start(node(), map()) -> vm().
start(Name, Options) ->
    Port = maps:get(port, Options, port()),
    Paths = lists:append([["-pa", Dir] || Dir <- code:get_path(), filename:basename(Dir) =/= "."]),
    {ok, Peer, _} = peer:start(#{
        connection => standard_io,
        args => Paths ++ maps:get(args, Options, []),
        wait_boot => 30000
    }),
    Default = [
        {name, Name},
        {cookie, cookie()},
        {listen_addrs, [#{ip => {127, 0, 0, 1}, port => Port}]},
        {connection_jitter, 50},
        {connection_interval, 100}
    ],
    Env = maps:to_list(maps:merge(maps:from_list(Default), maps:from_list(maps:get(env, Options, [])))),
    Vm = #{peer => Peer, name => Name, port => Port, env => Env},
    _ = [ok = call(Vm, application, set_env, [partisan, Key, Value]) || {Key, Value} <- Env],
    case maps:get(start, Options, true) of
        true -> {ok, _} = call(Vm, application, ensure_all_started, [partisan]);
        false -> ok
    end,
    Vm.

%% @doc Stops the application, then the VM.
-spec stop(vm()) -> ok.
stop(#{peer := Peer} = Vm) ->
    _ = (catch call(Vm, application, stop, [partisan])),
    _ = (catch peer:stop(Peer)),
    ok.

%% @doc Ends the VM as a crash would.
-spec kill(vm()) -> ok.
kill(#{peer := Peer} = Vm) ->
    Pid = os_pid(Vm),
    _ = os:cmd("kill -9 " ++ Pid),
    _ = (catch peer:stop(Peer)),
    ok.

%% @doc The VM's process id in the operating system.
-spec os_pid(vm()) -> string().
os_pid(Vm) ->
    call(Vm, os, getpid, []).

%% @doc Calls a function on the node.
-spec call(vm(), module(), atom(), [term()]) -> term().
call(#{peer := Peer}, Module, Function, Args) ->
    peer:call(Peer, Module, Function, Args, 60000).

%% @doc Runs a fun on the node. The calling suite's code is in the node's path.
-spec run(vm(), fun(() -> term())) -> term().
run(Vm, Fun) ->
    call(Vm, erlang, apply, [Fun, []]).

%% @doc The node's name.
-spec name(vm()) -> node().
name(#{name := Name}) ->
    Name.

%% @doc What another node needs to join this one.
-spec spec(vm()) -> map().
spec(#{name := Name, port := Port}) ->
    #{name => Name, listen_addrs => [#{ip => {127, 0, 0, 1}, port => Port}], channels => #{}}.

%% @doc Joins the first node to the second and waits until both see each other.
-spec join(vm(), vm()) -> ok.
join(Vm, Other) ->
    ok = call(Vm, partisan_peer_service, sync_join, [spec(Other)]),
    wait(fun() ->
        {ok, Members} = call(Other, partisan_peer_service, members, []),
        lists:member(name(Vm), Members) andalso
            call(Other, partisan, is_connected, [name(Vm)])
    end).

%% @doc Waits until the fun returns true; at most 15 s.
-spec wait(fun(() -> boolean())) -> ok.
wait(Fun) ->
    wait(Fun, 15000).

%% @doc Waits until the fun returns true; at most that many milliseconds.
-spec wait(fun(() -> boolean()), pos_integer()) -> ok.
wait(Fun, Millis) ->
    wait_until(Fun, erlang:monotonic_time(millisecond) + Millis).

wait_until(Fun, Deadline) ->
    case Fun() of
        true ->
            ok;
        false ->
            case erlang:monotonic_time(millisecond) > Deadline of
                true -> error(timeout);
                false -> timer:sleep(20), wait_until(Fun, Deadline)
            end
    end.

%% @doc A port that is free now.
-spec port() -> inet:port_number().
port() ->
    {ok, Socket} = gen_tcp:listen(0, [{ip, {127, 0, 0, 1}}]),
    {ok, Port} = inet:port(Socket),
    ok = gen_tcp:close(Socket),
    Port.

%% @doc The cookie of test nodes.
-spec cookie() -> binary().
cookie() ->
    <<"test cookie">>.
