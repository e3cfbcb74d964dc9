%% @doc Memory of received large binaries: contents, what stays resident, what is given back.
-module(pool_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0]).
-export([every_size/1, without_pool/1, dropped_binaries_are_collected/1, a_binary_outlives_the_node/1]).
%% On the nodes.
-export([keep/1, kept/3, send/3, resident/0]).

-define(B, 'b@127.0.0.1').

suite() -> [{timetrap, {seconds, 180}}].

all() -> [every_size, without_pool, dropped_binaries_are_collected, a_binary_outlives_the_node].

%% Around the pool's bounds and sizes, twice, so that the second time the memory is a used one.
every_size(_) -> sizes([]).

without_pool(_) -> sizes([{receive_pool_bytes, 0}]).

sizes(Env) ->
    pair(Env, fun(A, B) ->
        Bases = [64 bsl 10, 80 bsl 10, 1 bsl 20, 5 bsl 18, 16 bsl 20],
        Sizes = [Base + Off || Base <- Bases, Off <- [-1, 0, 1]],
        _ = [sent_and_dropped(A, B, erlang:phash2({Round, Size}), Size) || Round <- [1, 2], Size <- Sizes]
    end).

%% A receiver that forgets what it receives has no need to collect anything but these binaries: their
%% size has to count. What is idle then goes back to the system.
dropped_binaries_are_collected(_) ->
    pair([], fun(A, B) ->
        Before = partisan_ct:call(B, ?MODULE, resident, []),
        ok = partisan_ct:run(B, fun() ->
            Ready = self(),
            _ = spawn(fun() ->
                true = register(drop, self()),
                Ready ! ready,
                (fun Loop(Count) ->
                    receive
                        {count, From} -> From ! {counted, Count}, Loop(Count);
                        Binary when is_binary(Binary) -> Loop(Count + 1)
                    end
                end)(0)
            end),
            receive ready -> ok end
        end),
        ok = partisan_ct:run(A, fun() ->
            Binary = <<0:(8 bsl 20)>>,
            _ = [ok = partisan:forward_message({drop, ?B}, Binary) || _ <- lists:seq(1, 3000)],
            ok
        end),
        partisan_ct:wait(fun() ->
            partisan_ct:run(B, fun() ->
                drop ! {count, self()},
                receive {counted, Count} -> Count =:= 3000 end
            end)
        end),
        Grown = partisan_ct:call(B, ?MODULE, resident, []) - Before,
        ct:pal("24 GB have come: ~b MB more resident", [Grown bsr 20]),
        ?assert(Grown < 300 bsl 20),
        drop(B, drop),
        timer:sleep(7000),
        Left = partisan_ct:call(B, ?MODULE, resident, []) - Before,
        ct:pal("7 s later ~b MB more", [Left bsr 20]),
        ?assert(Left < 40 bsl 20)
    end).

a_binary_outlives_the_node(_) ->
    pair([], fun(A, B) ->
        ok = partisan_ct:call(B, ?MODULE, keep, [kept]),
        ok = partisan_ct:call(A, ?MODULE, send, [kept, 1, 1 bsl 20]),
        has(B, kept, 1, 1 bsl 20),
        ok = partisan_ct:call(B, partisan, stop, []),
        has(B, kept, 1, 1 bsl 20),
        {ok, _} = partisan_ct:call(B, partisan, start, []),
        ok = partisan_ct:join(A, B),
        sent_and_dropped(A, B, 2, 1 bsl 20),
        has(B, kept, 1, 1 bsl 20),
        drop(B, kept),
        sent_and_dropped(A, B, 3, 1 bsl 20)
    end).

pair(Env, Fun) ->
    Options = #{env => Env},
    partisan_ct:with([{'a@127.0.0.1', Options}, {?B, Options}], fun([A, B]) ->
        ok = partisan_ct:join(A, B),
        Fun(A, B)
    end).

sent_and_dropped(A, B, Seed, Size) ->
    ok = partisan_ct:call(B, ?MODULE, keep, [keeper]),
    ok = partisan_ct:call(A, ?MODULE, send, [keeper, Seed, Size]),
    has(B, keeper, Seed, Size),
    drop(B, keeper).

has(B, Name, Seed, Size) ->
    ?assert(partisan_ct:call(B, ?MODULE, kept, [Name, Seed, Size])).

drop(B, Name) ->
    true = partisan_ct:call(B, erlang, exit, [partisan_ct:call(B, erlang, whereis, [Name]), kill]),
    partisan_ct:wait(fun() -> partisan_ct:call(B, erlang, whereis, [Name]) =:= undefined end).

%%%-------------------------------------------------------------------------------------------
%%% On the nodes
%%%-------------------------------------------------------------------------------------------

%% @doc Starts a process that keeps the one message it gets, and says whether it is right.
keep(Name) ->
    Caller = self(),
    _ = spawn(fun() ->
        true = register(Name, self()),
        Caller ! {Name, ready},
        receive
            Binary when is_binary(Binary) -> keeping(Binary)
        end
    end),
    receive
        {Name, ready} -> ok
    end.

keeping(Binary) ->
    receive
        {kept, From, Wanted} ->
            From ! {kept, Binary =:= Wanted},
            keeping(Binary)
    end.

kept(Name, Seed, Size) ->
    Name ! {kept, self(), binary(Seed, Size)},
    receive
        {kept, Right} -> Right
    end.

send(Name, Seed, Size) ->
    partisan:forward_message({Name, ?B}, binary(Seed, Size)).

%% Different everywhere, so that pieces in the wrong place show.
binary(Seed, Size) ->
    <<Binary:Size/binary, _/binary>> = <<<<(I * (2 * Seed + 1)):32>> || I <- lists:seq(1, Size div 4 + 1)>>,
    Binary.

%% @doc Bytes of the VM that are in memory.
resident() ->
    {ok, Text} = file:read_file("/proc/self/statm"),
    [_, Pages | _] = binary:split(Text, <<" ">>, [global]),
    binary_to_integer(Pages) * 4096.
