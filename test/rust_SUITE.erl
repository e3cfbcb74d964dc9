%% @doc A BEAM node and a Rust node: terms go there and come home, and each is a member to the other.
%%
%% The Rust node is the example `echo'. The seed of a run is printed; `PARTISAN_SEED' repeats it.
-module(rust_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([terms_come_home/1, large_terms_come_home/1, broadcasts_come_home/1, its_processes/1, it_leaves/1]).
-export([members_are_told/1]).
%% On the BEAM node.
-export([echo/2, broadcast/1, broadcast_data/1, merge/2]).

-define(RUST, 'rust@127.0.0.1').

suite() -> [{timetrap, {seconds, 60}}].

all() -> [terms_come_home, large_terms_come_home, broadcasts_come_home, its_processes, it_leaves, members_are_told].

init_per_suite(Config) ->
    %% The example is built here.
    ct:timetrap({minutes, 10}),
    Seed =
        case os:getenv("PARTISAN_SEED") of
            false -> rand:uniform(1 bsl 40);
            Text -> list_to_integer(Text)
        end,
    ct:pal("PARTISAN_SEED=~b", [Seed]),
    A = partisan_ct:start('a@127.0.0.1', #{env => [{pid_encoding, false}, {ref_encoding, false}]}),
    Log = filename:join(proplists:get_value(priv_dir, Config), "echo.log"),
    Command = io_lib:format(
        "'~s' --name ~s --listen 127.0.0.1:0 --cookie '~s' --join a@127.0.0.1:~b >'~s' 2>&1 & echo $!",
        [program("example", "echo"), ?RUST, partisan_ct:cookie(), maps:get(port, A), Log]
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

%% The build is that of the demo; without one it is made here.
program(Kind, Name) ->
    Top = filename:dirname(filename:dirname(code:which(?MODULE))),
    Root = root(Top),
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
    Program = program("bin", "partisan"),
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
    after 20000 -> error({lost, Term})
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
    after 20000 -> error({lost, Term})
    end.

%% @private
broadcast_data({Id, Payload}) -> {Id, Payload}.

%% @private
merge(Id, Payload) ->
    ?MODULE ! {Id, Payload},
    true.
