%% @doc A BEAM node and a Rust node: terms go there and come home, and each is a member to the other.
%%
%% The Rust node is the example `echo', or the program's node where it has links of Erlang's own, too. The seed of a run is printed; `PARTISAN_SEED' repeats it.
-module(rust_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([terms_come_home/1, large_terms_come_home/1, broadcasts_come_home/1, kept_terms_come_home/1, its_processes/1, it_leaves/1]).
-export([members_are_told/1, a_member_and_a_stock_node/1, both_links_with_one_node/1]).
%% On the BEAM node.
-export([echo/2, kept/2, broadcast/1, broadcast_data/1, merge/2, by_partisan/1, by_distribution/1, calls/1]).

-define(RUST, 'rust@127.0.0.1').
-define(BOTH, 'both@127.0.0.1').

suite() -> [{timetrap, {seconds, 180}}].

all() ->
    [
        terms_come_home,
        large_terms_come_home,
        broadcasts_come_home,
        kept_terms_come_home,
        its_processes,
        it_leaves,
        members_are_told,
        a_member_and_a_stock_node,
        both_links_with_one_node
    ].

init_per_suite(Config) ->
    %% The example is built here.
    ct:timetrap({minutes, 10}),
    Seed =
        case os:getenv("PARTISAN_SEED") of
            false -> rand:uniform(1 bsl 40);
            Text -> list_to_integer(Text)
        end,
    ct:pal("PARTISAN_SEED=~b", [Seed]),
    A = partisan_ct:start('a@127.0.0.1', #{
        env => [{pid_encoding, false}, {ref_encoding, false}, {causal_labels, [echo]}]
    }),
    Log = filename:join(proplists:get_value(priv_dir, Config), "echo.log"),
    Command = io_lib:format(
        "'~s' --name ~s --listen 127.0.0.1:0 --cookie '~s' --join a@127.0.0.1:~b >'~s' 2>&1 & echo $!",
        [partisan_ct:program("example", "echo"), ?RUST, partisan_ct:cookie(), maps:get(port, A), Log]
    ),
    Pid = string:trim(os:cmd(lists:flatten(Command))),
    ok = partisan_ct:wait(fun() ->
        {ok, Members} = partisan_ct:call(A, partisan_peer_service, members, []),
        lists:member(?RUST, Members) andalso partisan_ct:call(A, partisan, is_connected, [?RUST])
    end),
    [{seed, Seed}, {a, A}, {rust, Pid} | Config].

end_per_suite(Config) ->
    _ = os:cmd("kill -9 " ++ proplists:get_value(rust, Config)),
    partisan_ct:stop(proplists:get_value(a, Config)).

terms_come_home(Config) ->
    A = proplists:get_value(a, Config),
    ?assertEqual({ok, 4000}, partisan_ct:call(A, ?MODULE, echo, [seed(Config), {random, 4000}])).

large_terms_come_home(Config) ->
    A = proplists:get_value(a, Config),
    {ok, Count} = partisan_ct:call(A, ?MODULE, echo, [seed(Config), large]),
    ?assert(Count > 0).

%% It takes part in the trees, and in the broadcasts of handlers.
broadcasts_come_home(Config) ->
    A = proplists:get_value(a, Config),
    ?assertEqual({ok, 304}, partisan_ct:call(A, ?MODULE, broadcast, [seed(Config)])),
    ?assertEqual({[?RUST], []}, partisan_ct:call(A, partisan_plumtree_broadcast, get_peers, ['a@127.0.0.1'])).

%% Acknowledged and causal both ways, while sessions break.
kept_terms_come_home(Config) ->
    A = proplists:get_value(a, Config),
    ?assertEqual(ok, partisan_ct:call(A, ?MODULE, kept, [echo_kept, #{ack => true}])),
    ?assertEqual(ok, partisan_ct:call(A, ?MODULE, kept, [echo_causal, #{causal_label => echo}])).

%% @private On the BEAM node.
kept(Name, Options) ->
    Ref = make_ref(),
    Count = 1000,
    _ = [
        begin
            _ = [partisan_nif:command(none, {disconnect, ?RUST}) || N rem 250 =:= 0],
            ok = partisan:forward_message({Name, ?RUST}, {self(), Ref, N}, Options)
        end
     || N <- lists:seq(1, Count)
    ],
    Echoes = [receive {Ref, N} -> N after 60000 -> late end || _ <- lists:seq(1, Count)],
    More = receive {Ref, N} -> N after 200 -> none end,
    case {Echoes =:= lists:seq(1, Count), More} of
        {true, none} -> ok;
        _ -> {Echoes, More}
    end.

%% The echo's mailbox is the first process of its node.
its_processes(Config) ->
    A = proplists:get_value(a, Config),
    Alive = fun(Pid) -> partisan_ct:call(A, partisan, is_process_alive, [[?RUST | Pid]]) end,
    ?assertEqual(true, Alive(<<"#Pid<0.1.0>">>)),
    ?assertEqual(false, Alive(<<"#Pid<0.9999.0>">>)).

it_leaves(Config) ->
    A = proplists:get_value(a, Config),
    ok = partisan_ct:call(A, partisan_peer_service, leave, [?RUST]),
    ok = partisan_ct:wait(fun() ->
        {ok, Members} = partisan_ct:call(A, partisan_peer_service, members, []),
        Members =:= ['a@127.0.0.1'] andalso
            partisan_ct:call(A, partisan, nodes, []) =:= []
    end).

%% The program asks a member by Distributed Erlang, without a name server.
members_are_told(_Config) ->
    ct:timetrap({minutes, 10}),
    Program = partisan_ct:program("bin", "partisan"),
    Port = integer_to_list(partisan_ct:port()),
    Cookie = binary_to_list(partisan_ct:cookie()),
    Args = ["-name", "m@127.0.0.1", "-setcookie", Cookie, "-start_epmd", "false", "-erl_epmd_port", Port],
    Start = {'m@127.0.0.1', #{args => Args, env => [{channels, #{bulk => #{parallelism => 3}}}]}},
    partisan_ct:with([Start], fun([#{port := Listen}]) ->
        Told = os:cmd(
            lists:flatten(
                io_lib:format("'~s' members m@127.0.0.1 --at 127.0.0.1:~s --cookie '~s'", [Program, Port, Cookie])
            )
        ),
        Begin = io_lib:format("m@127.0.0.1  127.0.0.1:~b  ", [Listen]),
        ?assertNotEqual(nomatch, string:prefix(Told, Begin), Told),
        ?assertNotEqual(nomatch, string:find(Told, " bulk=3"), Told)
    end).

%% One listener: Partisan's connections from a node that is a member and has no name of Erlang's own, and a link
%% from one of stock Erlang, which has nothing of ours running.
a_member_and_a_stock_node(Config) ->
    ct:timetrap({minutes, 10}),
    with_both_kinds(Config, fun(Port) ->
        partisan_ct:with([{'p@127.0.0.1', member(#{})}], fun([P]) ->
            partisan_ct:with([{'s@127.0.0.1', distributed(#{start => false}, "s@127.0.0.1")}], fun([S]) ->
                ok = joined(P, Port),
                {port, Port, _} = partisan_ct:call(S, erl_epmd, port_please, ["both", {127, 0, 0, 1}]),
                pong = partisan_ct:call(S, net_adm, ping, [?BOTH]),
                %% Now this and now that, while both are up.
                _ = [
                    begin
                        ok = partisan_ct:call(P, ?MODULE, by_partisan, [?BOTH]),
                        ok = partisan_ct:call(S, ?MODULE, by_distribution, [?BOTH])
                    end
                 || _ <- lists:seq(1, 20)
                ],
                %% Neither knows of the other's way.
                [] = partisan_ct:call(P, erlang, nodes, [connected]),
                [?BOTH] = partisan_ct:call(S, erlang, nodes, [hidden]),
                {ok, [?BOTH, 'p@127.0.0.1']} = rpc_members(S),
                %% One end of one link is nothing to the other.
                true = partisan_ct:call(S, erlang, disconnect_node, [?BOTH]),
                ok = partisan_ct:call(P, ?MODULE, by_partisan, [?BOTH]),
                ok = partisan_ct:call(S, ?MODULE, by_distribution, [?BOTH]),
                ok = partisan_ct:call(P, partisan_peer_service, leave, []),
                ok = partisan_ct:wait(fun() -> rpc_members(S) =:= {ok, [?BOTH]} end)
            end)
        end)
    end).

%% The same two nodes have both, under the same names.
both_links_with_one_node(Config) ->
    ct:timetrap({minutes, 10}),
    with_both_kinds(Config, fun(Port) ->
        partisan_ct:with([{'m@127.0.0.1', distributed(member(#{}), "m@127.0.0.1")}], fun([M]) ->
            %% The link is there first, then the session, and the other way round.
            pong = partisan_ct:call(M, net_adm, ping, [?BOTH]),
            ok = joined(M, Port),
            Talk = fun() ->
                ok = partisan_ct:call(M, ?MODULE, by_partisan, [?BOTH]),
                ok = partisan_ct:call(M, ?MODULE, by_distribution, [?BOTH])
            end,
            Both = fun() ->
                [?BOTH] = partisan_ct:call(M, erlang, nodes, [hidden]),
                [?BOTH] = partisan_ct:call(M, partisan, nodes, [])
            end,
            _ = [Talk() || _ <- lists:seq(1, 20)],
            _ = Both(),
            true = partisan_ct:call(M, erlang, disconnect_node, [?BOTH]),
            [?BOTH] = partisan_ct:call(M, partisan, nodes, []),
            ok = partisan_ct:call(M, ?MODULE, by_partisan, [?BOTH]),
            pong = partisan_ct:call(M, net_adm, ping, [?BOTH]),
            Talk(),
            ok = partisan_ct:call(M, partisan, kill_connections, [?BOTH]),
            ok = partisan_ct:call(M, ?MODULE, calls, [?BOTH]),
            ok = partisan_ct:wait(fun() -> partisan_ct:call(M, partisan, is_fully_connected, [?BOTH]) end),
            Talk(),
            Both()
        end)
    end).

%% A node of the program that takes part in both, and an EPMD for it and those that the fun starts.
with_both_kinds(Config, Fun) ->
    Program = partisan_ct:program("bin", "partisan"),
    [Epmd, Listen] = [integer_to_list(partisan_ct:port()) || _ <- [epmd, listen]],
    Log = filename:join(proplists:get_value(priv_dir, Config), "both.log"),
    true = os:putenv("ERL_EPMD_PORT", Epmd),
    EpmdPid = begin_program("epmd -port " ++ Epmd, Log),
    try
        ok = partisan_ct:wait(fun() ->
            string:find(os:cmd("epmd -names"), "up and running on port " ++ Epmd) =/= nomatch
        end),
        Command = io_lib:format(
            "'~s' node --name ~s --cookie '~s' --listen 127.0.0.1:~s --channel bulk=3",
            [Program, ?BOTH, partisan_ct:cookie(), Listen]
        ),
        Pid = begin_program(lists:flatten(Command), Log),
        try
            ok = partisan_ct:wait(fun() ->
                string:find(os:cmd("epmd -names"), "name both at port " ++ Listen) =/= nomatch
            end),
            Fun(list_to_integer(Listen))
        after
            os:cmd("kill -9 " ++ Pid)
        end
    after
        os:cmd("kill " ++ EpmdPid),
        os:unsetenv("ERL_EPMD_PORT")
    end.

begin_program(Command, Log) ->
    string:trim(os:cmd(Command ++ " >>'" ++ Log ++ "' 2>&1 & echo $!")).

member(Options) ->
    Options#{env => [{channels, #{bulk => #{parallelism => 3}}}, {pid_encoding, false}, {ref_encoding, false}]}.

distributed(Options, Name) ->
    Cookie = binary_to_list(partisan_ct:cookie()),
    Options#{args => ["-name", Name, "-setcookie", Cookie, "-start_epmd", "false"]}.

joined(Vm, Port) ->
    Spec = #{name => ?BOTH, listen_addrs => [#{ip => {127, 0, 0, 1}, port => Port}], channels => #{}},
    ok = partisan_ct:call(Vm, partisan_peer_service, sync_join, [Spec]),
    {ok, Connections} = partisan_ct:call(Vm, partisan_peer_service, connections, []),
    [bulk, bulk, bulk, partisan_membership, undefined] = lists:sort([element(4, C) || C <- Connections]),
    ok.

rpc_members(Vm) ->
    {ok, Members} = partisan_ct:call(Vm, rpc, call, [?BOTH, partisan_peer_service, members, []]),
    {ok, lists:sort(Members)}.

%% @doc Messages there and back by Partisan's connections, on several channels.
-spec by_partisan(node()) -> ok.
by_partisan(Node) ->
    lists:foreach(
        fun(Options) ->
            Ref = make_ref(),
            ok = partisan:forward_message(Node, echo, {self(), Ref, Options}, Options),
            receive {Ref, Options} -> ok after 60000 -> error({lost, Options}) end
        end,
        [#{}, #{channel => bulk}] ++ [#{channel => bulk, partition_key => Key} || Key <- lists:seq(0, 5)]
    ).

%% @doc A ping, a call, and a message there and back by Erlang's own link.
-spec by_distribution(node()) -> ok.
by_distribution(Node) ->
    ok = calls(Node),
    %% The answer comes by Partisan's connections where there are some.
    Ref = make_ref(),
    {echo, Node} ! {self(), Ref, term},
    receive {Ref, term} -> ok after 60000 -> error(lost) end.

%% @doc A ping and a call, answered by Erlang's own link.
-spec calls(node()) -> ok.
calls(Node) ->
    pong = net_adm:ping(Node),
    {request, 1} = gen_server:call({echo, Node}, {request, 1}),
    ok.

seed(Config) ->
    proplists:get_value(seed, Config).

%% @doc Sends terms to the Rust node one after the other, and compares what comes back.
-spec echo(integer(), {random, pos_integer()} | large) -> {ok, non_neg_integer()}.
echo(Seed, What) ->
    _ = partisan_terms:seed(Seed),
    Own = [self(), make_ref(), hd(erlang:ports()) | partisan_terms:foreign()],
    Terms =
        case What of
            {random, N} -> partisan_terms:terms(N, Own);
            large -> partisan_terms:large() ++ partisan_terms:special()
        end,
    lists:foreach(fun come_home/1, Terms),
    {ok, length(Terms)}.

come_home(Term) ->
    Ref = make_ref(),
    ok = partisan:forward_message(?RUST, echo, {self(), Ref, Term}, #{}),
    receive
        {Ref, Term} -> ok;
        {Ref, Other} -> error({changed, Term, Other})
    after 60000 -> error({lost, Term})
    end.

%% @doc Broadcasts terms, and compares what the Rust node broadcasts back.
-spec broadcast(integer()) -> {ok, non_neg_integer()}.
broadcast(Seed) ->
    true = register(?MODULE, self()),
    _ = partisan_terms:seed(Seed),
    Own = [self(), make_ref(), hd(erlang:ports()) | partisan_terms:foreign()],
    Large = [binary:copy(<<N>>, N) || N <- [16383, 16384, 1000000, 8000000]],
    Terms = lists:enumerate(partisan_terms:terms(300, Own) ++ Large),
    lists:foreach(fun broadcast_home/1, Terms),
    true = unregister(?MODULE),
    {ok, length(Terms)}.

broadcast_home({Id, Term} = Sent) ->
    ok = partisan:broadcast(Sent, ?MODULE),
    receive
        {{echo, Id}, Term} -> ok;
        {{echo, Id}, Other} -> error({changed, Term, Other})
    after 60000 -> error({lost, Term})
    end.

%% @private
broadcast_data({Id, Payload}) -> {Id, Payload}.

%% @private
merge(Id, Payload) ->
    ?MODULE ! {Id, Payload},
    true.
