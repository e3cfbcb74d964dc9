%% @doc What the suites share: real BEAM nodes, controlled over their standard input and output, so
%% that no Erlang distribution is between them unless a suite asks for it.
-module(partisan_ct).

-export([start/1, start/2, stop/1, kill/1, kill_process/2, call/4, run/2, name/1, spec/1, os_pid/1]).
-export([start_owned/2, stop_owned/0, with/2, pair/3, fresh_pair/2]).
-export([join/2, sync_join/2, in_parallel/1, wait/1, wait/2, port/0, cookie/0, program/2]).
-export([probe/2, fresh_probe/2, seen/2, forget/2, inside/3, await/3]).
-export([keep_log/1, lines/2, await_line/2]).
-export([start_probe/1, ask_probe/2, log/2]).

-export_type([vm/0]).

-type vm() :: #{
    peer := pid(),
    name := node(),
    port := inet:port_number(),
    env := [{atom(), term()}],
    os_pid := string()
}.

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
    OsPid = peer:call(Peer, os, getpid, [], 60000),
    Vm = #{peer => Peer, name => Name, port => Port, env => Env, os_pid => OsPid},
    _ = [ok = call(Vm, application, set_env, [partisan, Key, Value]) || {Key, Value} <- Env],
    case maps:get(start, Options, true) of
        true -> {ok, _} = call(Vm, application, ensure_all_started, [partisan]);
        false -> ok
    end,
    Vm.

%% @doc As `start/2'; `stop_owned/0' stops the node, however the test case ended.
-spec start_owned(node(), map()) -> vm().
start_owned(Name, Options) ->
    Vm = start(Name, Options),
    ok = application:set_env(common_test, ?MODULE, [Vm | owned()]),
    Vm.

%% @doc Stops what `start_owned/2' started.
-spec stop_owned() -> ok.
stop_owned() ->
    Vms = owned(),
    ok = application:set_env(common_test, ?MODULE, []),
    %% One that a test case froze would not answer.
    _ = [os:cmd("kill -CONT " ++ OsPid) || #{os_pid := OsPid} <- Vms],
    lists:foreach(fun stop/1, Vms).

owned() ->
    application:get_env(common_test, ?MODULE, []).

%% @doc Runs a fun with nodes that are stopped afterwards, whatever happens.
-spec with([{node(), map()}], fun(([vm()]) -> Result)) -> Result.
with(Starts, Fun) ->
    Vms = [start(Name, Options) || {Name, Options} <- Starts],
    try
        Fun(Vms)
    after
        lists:foreach(fun stop/1, Vms)
    end.

%% @doc Two nodes, joined, whose log lines are kept, for a whole suite.
-spec pair(node(), node(), [{atom(), term()}]) -> {vm(), vm()}.
pair(NameA, NameB, Env) ->
    [A, B] = [start(Name, #{env => Env}) || Name <- [NameA, NameB]],
    ok = keep_log(A),
    ok = keep_log(B),
    ok = join(A, B),
    {A, B}.

%% @doc Waits until a pair is connected, and gives both ends a new probe `probe'.
-spec fresh_pair(vm(), vm()) -> ok.
fresh_pair(#{name := NameA} = A, #{name := NameB} = B) ->
    ok = wait(fun() ->
        call(A, partisan, is_connected, [NameB]) andalso call(B, partisan, is_connected, [NameA])
    end),
    ok = fresh_probe(A, probe),
    ok = fresh_probe(B, probe).

%% @doc Stops the application, then the VM.
-spec stop(vm()) -> ok.
stop(#{peer := Peer} = Vm) ->
    _ = (catch call(Vm, application, stop, [partisan])),
    _ = (catch peer:stop(Peer)),
    ok.

%% @doc Ends the VM as a crash would.
-spec kill(vm()) -> ok.
kill(#{peer := Peer} = Vm) ->
    _ = os:cmd("kill -9 " ++ os_pid(Vm)),
    _ = (catch peer:stop(Peer)),
    ok.

%% @doc Kills the process of this name on a node; returns when it is dead, since what is asked before
%% that is answered by the one that dies.
-spec kill_process(vm(), atom()) -> ok.
kill_process(Vm, Name) ->
    run(Vm, fun() ->
        Pid = whereis(Name),
        Monitor = monitor(process, Pid),
        true = exit(Pid, kill),
        receive
            {'DOWN', Monitor, process, Pid, killed} -> ok
        end
    end).

%% @doc The VM's process id in the operating system.
-spec os_pid(vm()) -> string().
os_pid(#{os_pid := OsPid}) ->
    OsPid.

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
    ok = sync_join(Vm, Other),
    wait(fun() ->
        {ok, Members} = call(Other, partisan_peer_service, members, []),
        lists:member(name(Vm), Members) andalso
            call(Other, partisan, is_connected, [name(Vm)])
    end).

%% @doc Joins the first node to the second, as a user would.
-spec sync_join(vm(), vm()) -> ok | {error, term()}.
sync_join(Vm, Other) ->
    call(Vm, partisan_peer_service, sync_join, [spec(Other)]).

%% @doc Runs the funs, each in a process of its own, until all have returned.
-spec in_parallel([fun(() -> term())]) -> ok.
in_parallel(Funs) ->
    Refs = [spawn_monitor(Fun) || Fun <- Funs],
    lists:foreach(
        fun({Pid, Ref}) ->
            receive
                {'DOWN', Ref, process, Pid, normal} -> ok;
                {'DOWN', Ref, process, Pid, Reason} -> error(Reason)
            end
        end,
        Refs
    ).

%% @doc Waits until the fun returns true; at most a minute.
-spec wait(fun(() -> boolean())) -> ok.
wait(Fun) ->
    wait(Fun, 60000).

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

%% @doc A port that is free now, outside the range from which the system takes ports for outgoing
%% connections, so that it is likely to stay free.
-spec port() -> inet:port_number().
port() ->
    Port = 20000 + rand:uniform(12000),
    case gen_tcp:listen(Port, [{ip, {127, 0, 0, 1}}, {reuseaddr, true}]) of
        {ok, Socket} ->
            ok = gen_tcp:close(Socket),
            Port;
        {error, _} ->
            port()
    end.

%% @doc The cookie of test nodes.
-spec cookie() -> binary().
cookie() ->
    <<"test cookie">>.

%%%-------------------------------------------------------------------------------------------
%%% Probes: processes on a node that keep what they receive
%%%-------------------------------------------------------------------------------------------

%% @doc Starts a process with this registered name that keeps every message, in order.
-spec probe(vm(), atom()) -> ok.
probe(Vm, Name) ->
    call(Vm, ?MODULE, start_probe, [Name]).

%% @doc As `probe/2', in the place of one that may be there.
-spec fresh_probe(vm(), atom()) -> ok.
fresh_probe(Vm, Name) ->
    run(Vm, fun() ->
        case whereis(Name) of
            undefined ->
                ok;
            Pid ->
                Ref = monitor(process, Pid),
                exit(Pid, kill),
                receive
                    {'DOWN', Ref, process, Pid, _} -> ok
                end
        end
    end),
    probe(Vm, Name).

%% @private
-spec start_probe(atom()) -> ok.
start_probe(Name) ->
    Caller = self(),
    Ready = make_ref(),
    _ = spawn(fun() ->
        true = register(Name, self()),
        Caller ! Ready,
        probe_loop([])
    end),
    receive
        Ready -> ok
    end.

probe_loop(Seen) ->
    receive
        {?MODULE, seen, From, Ref} ->
            From ! {Ref, lists:reverse(Seen)},
            probe_loop(Seen);
        {?MODULE, forget, From, Ref} ->
            From ! {Ref, lists:reverse(Seen)},
            probe_loop([]);
        {?MODULE, {run, Fun}, From, Ref} ->
            From ! {Ref, catch Fun()},
            probe_loop(Seen);
        Message ->
            probe_loop([Message | Seen])
    end.

%% @private
-spec ask_probe(atom(), term()) -> term().
ask_probe(Name, What) ->
    Ref = monitor(process, Name),
    Name ! {?MODULE, What, self(), Ref},
    receive
        {Ref, Answer} ->
            true = demonitor(Ref, [flush]),
            Answer;
        {'DOWN', Ref, process, _, Reason} ->
            exit(Reason)
    end.

%% @doc What a probe has received.
-spec seen(vm(), atom()) -> [term()].
seen(Vm, Name) ->
    call(Vm, ?MODULE, ask_probe, [Name, seen]).

%% @doc What a probe has received; it forgets it.
-spec forget(vm(), atom()) -> [term()].
forget(Vm, Name) ->
    call(Vm, ?MODULE, ask_probe, [Name, forget]).

%% @doc Runs a fun inside a probe.
-spec inside(vm(), atom(), fun(() -> term())) -> term().
inside(Vm, Name, Fun) ->
    call(Vm, ?MODULE, ask_probe, [Name, {run, Fun}]).

%% @doc Waits until a probe has received a message that the fun wants, and returns the message.
-spec await(vm(), atom(), fun((term()) -> boolean())) -> term().
await(Vm, Name, Wanted) ->
    ok = wait(fun() -> lists:any(Wanted, seen(Vm, Name)) end),
    [Message | _] = lists:filter(Wanted, seen(Vm, Name)),
    Message.

%%%-------------------------------------------------------------------------------------------
%%% Log lines
%%%-------------------------------------------------------------------------------------------

%% @doc Keeps the node's log lines from now on, for `lines/2'.
-spec keep_log(vm()) -> ok.
keep_log(Vm) ->
    ok = probe(Vm, partisan_ct_log),
    ok = call(Vm, logger, set_primary_config, [level, info]),
    _ = call(Vm, logger, remove_handler, [default]),
    call(Vm, logger, add_handler, [?MODULE, ?MODULE, #{level => info}]).

%% @private
-spec log(logger:log_event(), logger:handler_config()) -> ok.
log(#{level := Level} = Event, _) ->
    Text = logger_formatter:format(Event, #{template => [msg], single_line => true}),
    catch partisan_ct_log ! {log, Level, lists:flatten(io_lib:format("~ts", [Text]))},
    ok.

%% @doc The lines so far that contain a text, with their levels.
-spec lines(vm(), string()) -> [{logger:level(), string()}].
lines(Vm, Part) ->
    [
        {Level, Line}
     || {log, Level, Line} <- seen(Vm, partisan_ct_log), string:find(Line, Part) =/= nomatch
    ].

%% @doc Waits for a line that contains a text.
-spec await_line(vm(), string()) -> ok.
await_line(Vm, Part) ->
    wait(fun() -> lines(Vm, Part) =/= [] end).

%% @doc The path of a Rust program (`"bin"' or `"example"'), which is built if it has to be: that may take minutes.
-spec program(Kind :: string(), Name :: string()) -> file:filename().
program(Kind, Name) ->
    Root = root(filename:dirname(filename:dirname(code:which(?MODULE)))),
    Built = os:cmd(
        "cd '" ++ Root ++ "' && cargo build --release --locked --" ++ Kind ++ " " ++ Name ++
            " --message-format=json-render-diagnostics 2>/dev/null "
            "| grep -o '\"executable\":\"[^\"]*/" ++ Name ++ "\"' | tail -n 1 | cut -d '\"' -f 4"
    ),
    string:trim(Built).

root(Dir) ->
    case filelib:is_file(filename:join([Dir, "examples", "echo.rs"])) of
        true -> Dir;
        false -> root(filename:dirname(Dir))
    end.
