%% @doc The overlay of a running cluster of BEAM nodes and Rust nodes is changed, again and again, while everybody sends to
%% everybody and one node is stopped for two seconds: nothing is lost or out of order, and nobody is down.
%%
%% `PARTISAN_SWITCH_BEAM=12 PARTISAN_SWITCH_RUST=20 PARTISAN_SWITCH_ROUNDS=3' runs it as large as the project promises.
-module(switch_SUITE).

-include_lib("stdlib/include/assert.hrl").

-compile(export_all).

-import(partisan_ct, [call/4, wait/1, name/1, spec/1]).

-define(SERVERS, 3).
-define(CHANNELS, [undefined, bulk]).

suite() ->
    [{timetrap, {minutes, 15}}].

all() ->
    [under_load, what_is_refused].

end_per_testcase(_, _) ->
    partisan_ct:stop_owned(),
    _ = [os:cmd("kill -9 " ++ Pid) || Pid <- application:get_env(common_test, rust_nodes, [])],
    ok = application:set_env(common_test, rust_nodes, []).

%%%-------------------------------------------------------------------------------------------
%%% Cases
%%%-------------------------------------------------------------------------------------------

under_load(Config) ->
    [Beams, Rusts, Rounds] = [
        setting(Name, Default)
     || {Name, Default} <- [{"BEAM", 5}, {"RUST", 2}, {"ROUNDS", 1}]
    ],
    [First | Rest] = Vms = [start(lists:concat([n, N]), tag(N)) || N <- lists:seq(1, Beams)],
    Others = [rust(Config, N, First) || N <- lists:seq(1, Rusts)],
    _ = [ok = call(Vm, partisan_peer_service, sync_join, [spec(First)]) || Vm <- Rest],
    Names = [name(Vm) || Vm <- Vms],
    All = lists:sort(Names ++ Others),
    [ok = wait(fun() -> lists:sort([name(Vm) | call(Vm, partisan, nodes, [])]) =:= All end) || Vm <- Vms],
    _ = [ok = call(Vm, ?MODULE, begin_load, [Names, Others]) || Vm <- Vms],
    Managers = [
        {partisan_hyparview_peer_service_manager, <<"hyparview">>},
        {partisan_client_server_peer_service_manager, <<"client_server">>},
        {partisan_pluggable_peer_service_manager, <<"full_mesh">>}
    ],
    Steps = lists:append(lists:duplicate(Rounds, Managers)),
    lists:foreach(
        fun({Epoch, {Manager, Overlay}}) ->
            At = lists:nth(Epoch rem ?SERVERS + 1, Vms),
            ok = call(At, partisan_peer_service, switch, [Manager]),
            %% In the middle of it.
            Stopped = partisan_ct:os_pid(lists:last(Vms)),
            Pause = "kill -STOP " ++ Stopped ++ "; sleep 2; kill -CONT " ++ Stopped,
            _ = [os:cmd(Pause) || Epoch rem 3 =:= 2],
            Alone = {ok, #{overlay => Overlay, epoch => Epoch, until_switched => undefined}},
            [ok = wait(fun() -> call(Vm, partisan_peer_service, overlay, []) =:= Alone end) || Vm <- Vms],
            [Manager = call(Vm, partisan_peer_service, manager, []) || Vm <- Vms],
            timer:sleep(1000)
        end,
        lists:zip(lists:seq(1, length(Steps)), Steps)
    ),
    Sent = maps:from_list([{name(Vm), call(Vm, ?MODULE, end_load, [])} || Vm <- Vms]),
    Taken = [taken(Vm, Sent) || Vm <- Vms],
    ct:pal("~b BEAM nodes, ~b Rust nodes, ~b switches: ~b messages, ~b echoes", [
        Beams, Rusts, length(Steps), lists:sum(Taken), lists:sum([Echoes || #{echoes := Echoes} <- maps:values(Sent)])
    ]).

what_is_refused(_) ->
    [Server, Client] = [start(Name, Tag) || {Name, Tag} <- [{server, server}, {client, client}]],
    ok = call(Client, partisan_peer_service, sync_join, [spec(Server)]),
    Manager = partisan_client_server_peer_service_manager,
    {error, Why} = call(Client, partisan_peer_service, switch, [Manager]),
    ?assertMatch({_, _}, binary:match(Why, <<"switch at a server">>)),
    ?assertError(badarg, call(Server, partisan_peer_service, switch, [nobody])),
    ok = call(Server, partisan_peer_service, switch, [partisan_pluggable_peer_service_manager]),
    ?assertMatch({ok, #{epoch := 0}}, call(Server, partisan_peer_service, overlay, [])).

%%%-------------------------------------------------------------------------------------------
%%% Nodes
%%%-------------------------------------------------------------------------------------------

setting(Name, Default) ->
    case os:getenv("PARTISAN_SWITCH_" ++ Name) of
        false -> Default;
        Text -> list_to_integer(Text)
    end.

tag(N) when N =< ?SERVERS -> server;
tag(_) -> client.

start(Name, Tag) ->
    Env = [{channels, #{bulk => #{parallelism => 1}}}, {tag, Tag}, {switch_overlap, 4000}],
    %% Rust nodes are sent pids.
    Plain = [{pid_encoding, false}, {ref_encoding, false}],
    partisan_ct:start_owned(list_to_atom(lists:concat([switch_, Name, "@127.0.0.1"])), #{env => Plain ++ Env}).

rust(Config, N, #{port := Port}) ->
    Name = lists:concat([switch_rust, N, "@127.0.0.1"]),
    Log = filename:join(proplists:get_value(priv_dir, Config), Name ++ ".log"),
    File = filename:join(proplists:get_value(priv_dir, Config), Name ++ ".toml"),
    ok = file:write_file(File, [
        io_lib:format("name = '~s'~ncookie = '~s'~nlisten = ['127.0.0.1:0']~n", [Name, partisan_ct:cookie()]),
        io_lib:format("join = ['switch_n1@127.0.0.1:~b']~ndistribution = false~ntag = 'client'~n", [Port]),
        "switch_overlap = 4\n[channels]\nbulk = 1\n"
    ]),
    Command = io_lib:format("'~s' node --config '~s' >'~s' 2>&1 & echo $!", [
        partisan_ct:program("bin", "partisan"), File, Log
    ]),
    Pid = string:trim(os:cmd(lists:flatten(Command))),
    Before = application:get_env(common_test, rust_nodes, []),
    ok = application:set_env(common_test, rust_nodes, [Pid | Before]),
    list_to_atom(Name).

%% How many messages a node got: all that was sent to it, in order.
taken(Vm, Sent) ->
    Wanted = maps:from_list([
        {{From, Channel}, Count}
     || {From, #{counts := Counts}} <- maps:to_list(Sent),
        {{To, Channel}, Count} <- maps:to_list(Counts),
        To =:= name(Vm)
    ]),
    _ = (catch wait(fun() -> maps:get(counts, call(Vm, ?MODULE, sink, [])) =:= Wanted end)),
    #{counts := Counts, faults := Faults} = call(Vm, ?MODULE, sink, []),
    ?assertEqual([], Faults, name(Vm)),
    ?assertEqual(Wanted, Counts, name(Vm)),
    lists:sum(maps:values(Counts)).

%%%-------------------------------------------------------------------------------------------
%%% On the nodes
%%%-------------------------------------------------------------------------------------------

%% @doc Begins to send 100 messages per second, to each node in turn, on both channels; those to Rust nodes come back.
begin_load(Names, Rusts) ->
    Starter = self(),
    _ = spawn(fun() ->
        true = register(switch_sink, self()),
        ok = partisan:monitor_nodes(true),
        Starter ! ready,
        sink_loop(#{}, [])
    end),
    receive
        ready -> ok
    end,
    Others = Names -- [partisan:node()],
    _ = spawn(fun() ->
        true = register(switch_pump, self()),
        {ok, _} = timer:send_interval(10, tick),
        Turns = [{Kind, Node, Channel} || Channel <- ?CHANNELS, {Kind, Node} <- kinds(Others, Rusts)],
        pump_loop(Turns, [], #{counts => #{}, sent => #{}, echoed => #{}})
    end),
    ok.

kinds(Others, Rusts) ->
    [{sink, Node} || Node <- Others] ++ [{echo, Node} || Node <- Rusts].

%% @doc Ends it: how much was sent to whom, and how many echoes have come back, which is all of them.
end_load() ->
    switch_pump ! {stop, self()},
    receive
        {pumped, Result} -> Result
    after 60000 -> error(echoes_are_missing)
    end.

%% @doc What has come, and what was wrong with it.
sink() ->
    switch_sink ! {report, self()},
    receive
        {report, Counts, Faults} -> #{counts => Counts, faults => Faults}
    end.

sink_loop(Next, Faults) ->
    receive
        {load, From, Channel, N, Crc, Data} ->
            Key = {From, Channel},
            case maps:get(Key, Next, 0) of
                N -> sink_loop(Next#{Key => N + 1}, [{damaged, Key, N} || erlang:crc32(Data) =/= Crc] ++ Faults);
                Other -> sink_loop(Next#{Key => N + 1}, [{Key, expected, Other, got, N} | Faults])
            end;
        {nodedown, Node} ->
            sink_loop(Next, [{down, Node} | Faults]);
        {nodeup, _} ->
            sink_loop(Next, Faults);
        {report, To} ->
            To ! {report, Next, Faults},
            sink_loop(Next, Faults)
    end.

pump_loop([], Done, State) ->
    pump_loop(lists:reverse(Done), [], State);
pump_loop([{Kind, Node, Channel} = Turn | Turns], Done, State) ->
    receive
        {{echo, EchoNode, EchoChannel, N}, {Crc, Data}} ->
            #{echoed := Echoed} = State,
            Key = {EchoNode, EchoChannel},
            %% In order, and whole.
            N = maps:get(Key, Echoed, 0),
            Crc = erlang:crc32(Data),
            pump_loop([Turn | Turns], Done, State#{echoed := Echoed#{Key => N + 1}});
        {stop, To} ->
            finish(To, State);
        tick when Kind =:= sink ->
            #{counts := Counts} = State,
            N = maps:get({Node, Channel}, Counts, 0),
            Data = data(Channel, N),
            Message = {load, partisan:node(), Channel, N, erlang:crc32(Data), Data},
            ok = partisan:forward_message(Node, switch_sink, Message, #{channel => Channel}),
            pump_loop(Turns, [Turn | Done], State#{counts := Counts#{{Node, Channel} => N + 1}});
        tick ->
            #{sent := Sent} = State,
            N = maps:get({Node, Channel}, Sent, 0),
            Data = data(Channel, N),
            Message = {self(), {echo, Node, Channel, N}, {erlang:crc32(Data), Data}},
            ok = partisan:forward_message(Node, echo, Message, #{channel => Channel}),
            pump_loop(Turns, [Turn | Done], State#{sent := Sent#{{Node, Channel} => N + 1}})
    end.

finish(To, #{sent := Sent, echoed := Sent, counts := Counts}) ->
    To ! {pumped, #{counts => Counts, echoes => lists:sum(maps:values(Sent))}};
finish(To, #{echoed := Echoed} = State) ->
    receive
        {{echo, Node, Channel, N}, {Crc, Data}} ->
            N = maps:get({Node, Channel}, Echoed, 0),
            Crc = erlang:crc32(Data),
            finish(To, State#{echoed := Echoed#{{Node, Channel} => N + 1}})
    end.

data(bulk, N) when N rem 10 =:= 9 -> rand:bytes(1 bsl 20);
data(_, _) -> rand:bytes(64).
