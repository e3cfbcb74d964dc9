%% The demo's two ends: `drive/0` is what node a runs, `serve/0` what node b runs.
%%
%% The driver joins the nodes into one cluster, sends the files of the OTP installation through it, checks that
%% every byte arrived, and then measures against Distributed Erlang. The exit status tells about the bytes only.
-module(demo).

-export([drive/0, serve/0]).

-define(PATIENCE_MS, 30_000).

serve() ->
    {ok, _} = application:ensure_all_started(demo),
    demo_sink:start_echo(),
    %% Node b has no other reason to live than node a.
    ok = net_kernel:monitor_nodes(true),
    receive
        {nodedown, _} -> halt(0)
    after 600_000 ->
        halt(1)
    end.

drive() ->
    try run() of
        ok -> halt(0)
    catch
        throw:{demo, Text} ->
            io:format("~nFAILED: ~ts~n", [Text]),
            halt(1);
        Class:Reason:Stack ->
            io:format("~nFAILED: ~tp:~tp~n~tp~n", [Class, Reason, Stack]),
            halt(1)
    end.

run() ->
    true = register(demo_driver, self()),
    {ok, _} = application:ensure_all_started(demo),
    {ok, Peer} = application:get_env(demo, peer),
    {ok, Rust} = application:get_env(demo, rust),
    B = maps:get(name, Peer),
    form_cluster(Peer, Rust),

    demo_report:progress("reading the OTP installation", []),
    Input = demo_input:load(),
    #{distinct := Distinct, files := Files, packed := Packed, bytes := Bytes} = Input,
    demo_report:progress("~b files of ~.1f MB, repeated to ~.1f MB in ~b messages; the same bytes in ~b binaries of 8 MB",
                         [length(Distinct), demo_input:bytes(Distinct) / 1.0e6, Bytes / 1.0e6, length(Files), length(Packed)]),
    demo_report:progress("hashing what is to arrive", []),
    Sets = [{files, Files}, {packed, Packed}],
    Expected = [{Set, demo_input:digests(Items)} || {Set, Items} <- Sets],
    [ok = erpc:call(B, demo_sink, expect, [Set, Digests]) || {Set, Digests} <- Expected],

    io:format("~nCorrectness: count, order and SHA-256 of each~n"),
    [begin
         ok = demo_measure:deliver(B, Set, Items),
         demo_report:progress("a -> b          ~ts: ~b arrived, in order, intact", [demo_report:title(Set), length(Items)]),
         ok = demo_measure:there_and_back(Rust, Items, proplists:get_value(Set, Expected)),
         demo_report:progress("a -> Rust -> a  ~ts: ~b arrived, in order, intact", [demo_report:title(Set), length(Items)])
     end || {Set, Items} <- Sets],

    {ok, Speed} = application:get_env(demo, speed),
    Speed andalso speed(B, Input),
    io:format("~nEvery byte arrived.~n").

speed(B, Input) ->
    io:format("~nSpeed, a -> b, in pairs with Distributed Erlang~n"),
    demo_report:table(demo_measure:points(B, Input)).

%% b is joined from here; the Rust node joins this node by itself.
form_cluster(#{name := B} = Peer, Rust) ->
    await("Distributed Erlang's connection to " ++ atom_to_list(B), fun() -> net_adm:ping(B) =:= pong end),
    await("the demo on " ++ atom_to_list(B), fun() -> erpc:call(B, erlang, whereis, [demo_echo]) =/= undefined end),
    ok = partisan_peer_service:sync_join(Peer),
    Nodes = lists:sort([B, Rust]),
    await("a cluster of three", fun() -> lists:sort(partisan:nodes()) =:= Nodes end),
    {ok, Members} = partisan_peer_service:members(),
    demo_report:progress("one cluster: ~tp", [lists:sort(Members)]).

await(What, Condition) ->
    await(What, Condition, erlang:monotonic_time(millisecond) + ?PATIENCE_MS).

await(What, Condition, Deadline) ->
    case Condition() of
        true ->
            ok;
        false ->
            erlang:monotonic_time(millisecond) < Deadline
                orelse throw({demo, ["waited in vain for ", What]}),
            timer:sleep(50),
            await(What, Condition, Deadline)
    end.
