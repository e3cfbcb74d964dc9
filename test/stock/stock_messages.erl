%% @doc What a stock node does with a Rust node (`stock_peer'): messages, small and large, and what is in them.
-module(stock_messages).

-export([echo/1, hidden/1, roundtrips/1, bulk_send/1, parallel_send/1, busy_port/1, big_atoms/1,
    contended_atom_cache/1, fragments/1, exit_fragments/1, large_binaries_while_pinging/1]).

-include("stock_peer.hrl").

%% @doc One message there and back, by name and by alias.
echo(Node) ->
    run(fun() ->
        ok = same_echo(Node, {hello, world}),
        Alias = alias(),
        {echo, Node} ! {Alias, reference, 7},
        ?await({reference, 7}, alias)
    end).

%% @doc A hidden node is among the hidden ones only.
hidden(Node) ->
    run(fun() ->
        ok = same_echo(Node, x),
        case {lists:member(Node, nodes(hidden)), lists:member(Node, nodes())} of
            {true, false} -> ok;
            Which -> {error, {hidden_visible, Which}}
        end
    end).

%% @doc Terms with a meaning to somebody: identities of both nodes, nil, funs.
roundtrips(Node) ->
    run(fun() ->
        Puppet = puppet(Node),
        Its = order(Puppet, {monitor, self()}),
        Terms = [
            [], {}, #{}, <<>>, <<5:3>>, 0.0, -0.0, -1, 1 bsl 4000, self(), make_ref(), hd(erlang:ports()),
            Puppet, Its, [a | b], fun lists:map/2, fun() -> Puppet end, node(Puppet), "text",
            [Puppet, {Puppet, #{Puppet => Its}}], lists:seq(1, 300), maps:from_list([{N, N} || N <- lists:seq(1, 200)])
        ],
        [ok = same_echo(Node, T) || T <- Terms],
        node(Puppet) =:= Node orelse error(node_of_puppet),
        node(Its) =:= Node orelse error(node_of_reference),
        ok
    end).

%% @doc Messages of 64 bytes to 8 MB to `sink': all arrive, whole and in order.
bulk_send(Node) ->
    run(fun() ->
        Kinds = [{64, 50000}, {1000, 10000}, {65000, 300}, {66000, 300}, {1 bsl 20, 40}, {8 bsl 20, 8}],
        lists:foreach(fun({Size, Count}) -> ok = bulk(Node, Size, Count) end, Kinds)
    end).

bulk(Node, Size, Count) ->
    _ = report(Node),
    Block = crypto:strong_rand_bytes(Size),
    Digest = lists:foldl(
        fun(Seq, State) ->
            Bin = <<Seq:32, (binary:part(Block, 4, Size - 4))/binary>>,
            {sink, Node} ! {data, Seq, Bin},
            crypto:hash_update(State, Bin)
        end,
        crypto:hash_init(sha256),
        lists:seq(1, Count)
    ),
    Wanted = {Count, Count * Size, crypto:hash_final(Digest)},
    case report(Node) of
        Wanted -> ok;
        Other -> error({sent, Wanted, arrived, Other})
    end.

report(Node) ->
    Ref = make_ref(),
    {sink, Node} ! {report, self(), Ref},
    receive
        {Ref, Count, Bytes, Digest} -> {Count, Bytes, Digest}
    after 6 * ?PATIENCE -> error({no_report, Node})
    end.

%% @doc Many processes send at once; to each its own order.
parallel_send(Node) ->
    One = fun() ->
        Puppet = puppet(Node),
        Count = 2000,
        [Puppet ! {n, N} || N <- lists:seq(1, Count)],
        [?await({told, Puppet, {n, N}}, N) || N <- lists:seq(1, Count)],
        order(Puppet, {exit, normal})
    end,
    run(fun() -> together(lists:duplicate(40, One)) end).

%% @doc A receiver that does not read makes the sender wait, and loses nothing. Needs a limit of the
%% buffer at the sender that 64 MB exceed (`+zdbbl').
busy_port(Node) ->
    run(fun() ->
        _ = report(Node),
        _ = erlang:system_monitor(self(), [busy_dist_port]),
        {sink, Node} ! {sleep, 2000},
        Bin = crypto:strong_rand_bytes(1 bsl 20),
        Count = 64,
        {Sender, Monitor} = spawn_monitor(fun() -> [{sink, Node} ! {data, N, Bin} || N <- lists:seq(1, Count)] end),
        ?await({monitor, Sender, busy_dist_port, _}, suspension),
        %% Who asks not to be suspended isn't.
        nosuspend = refused(Node, Bin, 500),
        ?await({'DOWN', Monitor, process, Sender, normal}, sender),
        _ = erlang:system_monitor(undefined),
        Digest = crypto:hash(sha256, binary:copy(Bin, Count)),
        Size = Count * (1 bsl 20),
        case report(Node) of
            {Count, Size, Digest} -> ok;
            {C, S, _} -> {error, {arrived, C, S}}
        end
    end).

refused(_, _, 0) -> never;
refused(Node, Bin, Left) ->
    case erlang:send({control, Node}, {ignored, Bin}, [nosuspend]) of
        nosuspend -> nosuspend;
        ok -> refused(Node, Bin, Left - 1)
    end.

%% @doc Atoms of 255 characters of one to four bytes, as messages and as names.
big_atoms(Node) ->
    run(fun() ->
        Atoms = [
            list_to_atom([A | lists:duplicate(N, C)])
         || C <- [$a, $ÿ, $Ω, 16#1D11E], N <- [62, 63, 84, 85, 126, 127, 254], A <- [$a, C]
        ],
        [ok = same_echo(Node, A) || A <- Atoms],
        ok = same_echo(Node, Atoms),
        Puppet = puppet(Node),
        Name = lists:last(Atoms),
        ok = order(Puppet, {register, Name}),
        {Name, Node} ! by_its_name,
        ?await({told, Puppet, by_its_name}, name),
        ok = order(Puppet, unregister),
        ok
    end).

%% @doc More atoms than a cache holds, from many processes.
contended_atom_cache(Node) ->
    Atoms = [list_to_atom(Prefix ++ integer_to_list(N)) || Prefix <- ["plain_", "größe_𝄞_"], N <- lists:seq(1, 1500)],
    One = fun(Offset) ->
        fun() ->
            {Front, Back} = lists:split(Offset * 100, Atoms),
            lists:foreach(fun(A) -> ok = same_echo(Node, {A, [A]}) end, lists:sublist(Back ++ Front, 1200)),
            same_echo(Node, lists:sublist(Back ++ Front, 240))
        end
    end,
    run(fun() -> together([One(N) || N <- lists:seq(0, 9)]) end).

%% @doc Messages of many fragments, from several processes at once.
fragments(Node) ->
    Sizes = [64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1, 200000, 1 bsl 20, 3 bsl 20],
    One = fun() ->
        lists:foreach(
            fun(Size) ->
                Bin = crypto:strong_rand_bytes(Size),
                ok = same_echo(Node, Bin),
                ok = same_echo(Node, {binary_to_list(binary:part(Bin, 0, 60000)), [Bin, a, Bin]}),
                ok = same_echo(Node, [{N, Bin, 'größe'} || N <- [1, 2]])
            end,
            Sizes
        )
    end,
    run(fun() -> together(lists:duplicate(6, One)) end).

%% @doc Reasons of many fragments; and senders that are killed while theirs are under way.
exit_fragments(Node) ->
    run(fun() ->
        process_flag(trap_exit, true),
        Reason = {large, crypto:strong_rand_bytes(1 bsl 20), 'größe'},
        One = puppet(Node),
        link(One),
        ok = order(One, {exit, Reason}),
        ?await({'EXIT', One, Reason}, link),
        Two = puppet(Node),
        Monitor = monitor(process, Two),
        exit(Two, Reason),
        ?await({'DOWN', Monitor, process, Two, Reason}, monitor),
        Three = puppet(Node),
        ok = order(Three, {trap, true}),
        Ours = spawn(fun() -> link(Three), receive stop -> exit(Reason) end end),
        _ = order(Three, {monitor, Ours}),
        Ours ! stop,
        ?await({told, Three, {'EXIT', Ours, Reason}}, their_link),
        ?await({told, Three, {'DOWN', _, process, Ours, Reason}}, their_monitor),
        Large = lists:duplicate(200000, {some, "list"}),
        [
            begin
                {Sender, M} = spawn_monitor(fun() -> [{sink, Node} ! {ignored, Large} || _ <- lists:seq(1, 3)] end),
                timer:sleep(N),
                exit(Sender, kill),
                ?await({'DOWN', M, process, Sender, _}, killed)
            end
         || N <- lists:seq(0, 15)
        ],
        same_echo(Node, still_there)
    end).

%% @doc Small messages pass while large ones are under way.
large_binaries_while_pinging(Node) ->
    run(fun() ->
        Bin = crypto:strong_rand_bytes(8 bsl 20),
        {Bulk, Monitor} = spawn_monitor(fun() ->
            [ok = same_echo(Node, {N, Bin}) || N <- lists:seq(1, 24)]
        end),
        Longest = ping_until(Node, Bulk, Monitor, 0),
        io:format("longest echo beside large ones: ~w us~n", [Longest]),
        case Longest < 3000000 of
            true -> ok;
            false -> {error, {longest, Longest}}
        end
    end).

ping_until(Node, Bulk, Monitor, Longest) ->
    {Took, ok} = timer:tc(fun() -> same_echo(Node, ping) end),
    receive
        {'DOWN', Monitor, process, Bulk, normal} -> max(Took, Longest);
        {'DOWN', Monitor, process, Bulk, Reason} -> exit(Reason)
    after 2 -> ping_until(Node, Bulk, Monitor, max(Took, Longest))
    end.
