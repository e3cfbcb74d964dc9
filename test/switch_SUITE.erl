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
    _ = [ok = call(Vm, ?MODULE, begin_sink, []) || Vm <- Vms],
    _ = [ok = call(Vm, ?MODULE, begin_load, [All]) || Vm <- Vms],
    _ = [ok = call(First, ?MODULE, ask_rust, [Node, {'begin', All -- [Node]}]) || Node <- Others],
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
    Sent = maps:from_list(
        [{name(Vm), call(Vm, ?MODULE, end_load, [])} || Vm <- Vms] ++
            [{Node, maps:from_list(call(First, ?MODULE, ask_rust, [Node, stop]))} || Node <- Others]
    ),
    OfBeams = [taken(name(Vm), fun() -> call(Vm, ?MODULE, sink, []) end, Sent) || Vm <- Vms],
    OfRusts = [taken(Node, fun() -> call(First, ?MODULE, ask_rust, [Node, report]) end, Sent) || Node <- Others],
    ct:pal("~b BEAM nodes, ~b Rust nodes, ~b switches: ~b messages to BEAM nodes, ~b to Rust nodes", [
        Beams, Rusts, length(Steps), lists:sum(OfBeams), lists:sum(OfRusts)
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
    Command = io_lib:format("'~s' '~s' '~s' switch_n1@127.0.0.1 ~b >'~s' 2>&1 & echo $!", [
        partisan_ct:program("example", "switch_load"), Name, partisan_ct:cookie(), Port, Log
    ]),
    Pid = string:trim(os:cmd(lists:flatten(Command))),
    Before = application:get_env(common_test, rust_nodes, []),
    ok = application:set_env(common_test, rust_nodes, [Pid | Before]),
    list_to_atom(Name).

%% How many messages a node got: all that was sent to it, in order.
taken(Name, Report, Sent) ->
    Wanted = maps:from_list([
        {{From, Channel}, Count}
     || {From, Counts} <- maps:to_list(Sent), {{To, Channel}, Count} <- maps:to_list(Counts), To =:= Name
    ]),
    %% Everybody has sent to it, on all channels.
    ?assertEqual((map_size(Sent) - 1) * length(?CHANNELS), map_size(Wanted), Name),
    _ = (catch wait(fun() -> maps:from_list(element(1, Report())) =:= Wanted end)),
    {Counts, Faults} = Report(),
    ?assertEqual([], Faults, Name),
    ?assertEqual(Wanted, maps:from_list(Counts), Name),
    lists:sum(maps:values(Wanted)).

%%%-------------------------------------------------------------------------------------------
%%% On the nodes
%%%-------------------------------------------------------------------------------------------

%% @doc Asks a Rust node something about its load.
ask_rust(Node, Question) ->
    Ref = make_ref(),
    ok = partisan:forward_message(Node, switch_load, {self(), Ref, Question}, #{}),
    receive
        {Ref, Answer} -> Answer
    after 60000 -> error({no_answer, Node, Question})
    end.

%% @doc Begins to count what comes.
begin_sink() ->
    Starter = self(),
    _ = spawn(fun() ->
        true = register(switch_sink, self()),
        ok = partisan:monitor_nodes(true),
        Starter ! ready,
        sink_loop(#{}, [])
    end),
    receive
        ready -> ok
    end.

%% @doc Begins to send 100 messages per second, to each other node in turn, on both channels.
begin_load(All) ->
    _ = spawn(fun() ->
        true = register(switch_pump, self()),
        {ok, _} = timer:send_interval(10, tick),
        pump_loop([{Node, Channel} || Channel <- ?CHANNELS, Node <- All -- [partisan:node()]], [], #{})
    end),
    ok.

%% @doc Ends it: how much was sent to whom, on which channel.
end_load() ->
    switch_pump ! {stop, self()},
    receive
        {pumped, Counts} -> Counts
    after 60000 -> error(pump_is_stuck)
    end.

%% @doc What has come, and what was wrong with it.
sink() ->
    switch_sink ! {report, self()},
    receive
        {report, Counts, Faults} -> {maps:to_list(Counts), Faults}
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

pump_loop([], Done, Counts) ->
    pump_loop(lists:reverse(Done), [], Counts);
pump_loop([{Node, Channel} = Turn | Turns], Done, Counts) ->
    receive
        {stop, To} ->
            To ! {pumped, Counts};
        tick ->
            N = maps:get(Turn, Counts, 0),
            Data = data(Channel, N),
            Message = {load, partisan:node(), Channel, N, erlang:crc32(Data), Data},
            ok = partisan:forward_message(Node, switch_sink, Message, #{channel => Channel}),
            pump_loop(Turns, [Turn | Done], Counts#{Turn => N + 1})
    end.

data(bulk, N) when N rem 10 =:= 9 -> rand:bytes(1 bsl 20);
data(_, _) -> rand:bytes(64).
