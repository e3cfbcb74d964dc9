%% @doc What a stock Erlang node does with a Rust node, one function for each concern. The names are
%% those of the concerns of OTP's `distribution_SUITE'. Each takes the name of the Rust node and
%% returns `ok' or `{error, Why}'; each cleans up behind itself and may be run again, and while others
%% run, except those that say that they cut the connection.
%%
%% The other node runs a peer program. `stock_model' is that program in Erlang: what these functions
%% demand is what OTP does itself. Its processes:
%%
%% <dl>
%% <dt>`echo'</dt><dd>`{To, Ref, Term}' (`To': a pid or an alias): sends `{Ref, Term}' to `To'. As
%% `gen_server:cast' the same. `gen_server:call' with any request: the reply is the request; but
%% `{sleep, Millis, Reply}': replies so much later, serving others meanwhile; `{forever, Pid}': never
%% replies, and sends `{caller_down, Caller, Reason}' to `Pid' when the caller ends.</dd>
%% <dt>`sink'</dt><dd>`{data, Seq, Bin}': counts it. `{report, Pid, Ref}': sends `{Ref, Count, Bytes, Sha256}' to
%% `Pid', with the digest of all `Bin' in the order of arrival, and begins anew. `{sleep, Millis}': reads no
%% message for so long.</dd>
%% <dt>`control'</dt><dd>`{spawn, Owner, Ref}': makes a puppet, sends `{Ref, Puppet}' to `Owner'.</dd>
%% <dt>a puppet</dt><dd>`{do, From, Ref, Order}': carries the order out, then sends `{Ref, Result}' to
%% `From'. Any other message, `EXIT' and `DOWN' included, it forwards to its owner as `{told, Puppet, Message}'.
%% It traps no exits until it is told to.</dd>
%% </dl>
%%
%% Orders, with results other than `ok' named: `{exit, Reason}' (answers, then ends); `{trap, Boolean}';
%% `{link, Pid}'; `{unlink, Pid}'; `{monitor, Pid | {Name, Node}}': the reference; `{demonitor, Ref}';
%% `{exit, Pid, Reason}' (`exit/2'); `{send, To, Message}' (`To': pid, alias, `{Name, Node}');
%% `{alias, Options}' (`[]', `[priority]'): the alias; `{unalias, Alias}'; `{register, Name}'; `unregister';
%% `group_leader': its group leader; `{connect, Node}': whether it is connected now; `{chatter, Pid}': sends
%% `{seq, self(), N}' for N = 0, 1, ... to `Pid' until the connection goes, then ends;
%% `{call, Name, Node, Request, Millis}': `{ok, Reply}' or `{error, Why}'; `{cast, Name, Node, Message}';
%% `{rpc, Node, M, F, A, Millis}' and `{erpc, Node, M, F, A, Millis}': `{ok, Result}' or `{error, Why}';
%% `{pg_start, Scope}'; `{pg_join, Scope, Group}'; `{pg_leave, Scope, Group}'; `{pg_members, Scope, Group}': pids.
%%
%% Functions that may be called and spawned: those of the module `stock_functions', and nothing else.
-module(stock_peer).

-export([serve/0]).
-export([echo/1, hidden/1, roundtrips/1, bulk_send/1, parallel_send/1, busy_port/1]).
-export([big_atoms/1, contended_atom_cache/1, fragments/1, exit_fragments/1, large_binaries_while_pinging/1]).
-export([bad_external_terms/1, bad_structures/1, bad_fragments/1]).
-export([simultaneous_connect/1, reconnect/1, dynamic_name/1, idle/1]).
-export([links/1, monitors/1, exit_signals/1, link_exit_races/1, monitor_races/1, unlink_races/1]).
-export([gen_servers/1, gen_server_late/1, calls_out/1, rpcs/1, erpcs/1, pings/1, monitor_nodes/1]).
-export([spawn_requests/1, aliases/1, groups/1, group_leaders/1, priority_messages/1, records/1]).
-export([all/0, cutting/0]).
-export([order/2, puppet/1]).

-define(PATIENCE, 20000).

%% @doc The functions that any node can be asked for, in the order of their meaning.
-spec all() -> [atom()].
all() ->
    [
        pings, echo, hidden, roundtrips, bulk_send, parallel_send, big_atoms, contended_atom_cache, fragments,
        exit_fragments, large_binaries_while_pinging, links, monitors, exit_signals, link_exit_races, monitor_races,
        unlink_races, gen_servers, gen_server_late, calls_out, rpcs, erpcs, spawn_requests, aliases, groups,
        group_leaders, priority_messages, records
    ].

%% @doc Those that cut the connection.
-spec cutting() -> [atom()].
cutting() ->
    [monitor_nodes, reconnect, bad_external_terms, bad_structures, bad_fragments, simultaneous_connect].

%%%-------------------------------------------------------------------------------------------
%%% Expressions from the test
%%%-------------------------------------------------------------------------------------------

%% @doc Reads lines `Id Expression.', evaluates each in a process of its own and prints `@@Id ok Value' or
%% `@@Id error What'. The node ends with its input.
-spec serve() -> ok.
serve() ->
    spawn(fun() ->
        ok = io:setopts(standard_io, [{encoding, unicode}]),
        lines()
    end),
    ok.

lines() ->
    case io:get_line(standard_io, "") of
        Line when is_list(Line) ->
            {Id, [$\s | Expression]} = lists:splitwith(fun(C) -> C =/= $\s end, Line),
            spawn(fun() -> answer(Id, Expression) end),
            lines();
        _ ->
            erlang:halt(0, [{flush, false}])
    end.

answer(Id, Text) ->
    {Outcome, Value} =
        try
            {ok, Tokens, _} = erl_scan:string(Text),
            {ok, Expressions} = erl_parse:parse_exprs(Tokens),
            {value, Result, _} = erl_eval:exprs(Expressions, erl_eval:new_bindings()),
            {ok, Result}
        catch
            Class:Reason:Stack -> {error, {Class, Reason, Stack}}
        end,
    io:put_chars(standard_io, io_lib:format("@@~s ~s ~0tp~n", [Id, Outcome, Value])).

%%%-------------------------------------------------------------------------------------------
%%% Tools
%%%-------------------------------------------------------------------------------------------

%% A concern is a process of its own: no message is left to another, a link hurts nobody else, and what
%% it raises is told.
run(Concern) ->
    {Pid, Monitor} = spawn_monitor(fun() -> exit({result, Concern()}) end),
    receive
        {'DOWN', Monitor, process, Pid, {result, Result}} -> Result;
        {'DOWN', Monitor, process, Pid, Reason} -> {error, Reason}
    end.

%% Some at once; all must succeed.
together(Concerns) ->
    Running = [spawn_monitor(fun() -> exit({result, Concern()}) end) || Concern <- Concerns],
    Results = [receive {'DOWN', M, process, P, Reason} -> Reason end || {P, M} <- Running],
    case [R || R <- Results, R =/= {result, ok}] of
        [] -> ok;
        [First | _] -> {error, First}
    end.

%% @doc A puppet of the calling process.
-spec puppet(node()) -> pid().
puppet(Node) ->
    Ref = make_ref(),
    {control, Node} ! {spawn, self(), Ref},
    receive
        {Ref, Puppet} when is_pid(Puppet) -> Puppet
    after ?PATIENCE -> error({no_puppet, Node})
    end.

%% @doc What a puppet makes of an order.
-spec order(pid(), term()) -> term().
order(Puppet, Order) ->
    wait(Puppet, Order, start(Puppet, Order)).

start(Puppet, Order) ->
    Ref = make_ref(),
    Puppet ! {do, self(), Ref, Order},
    Ref.

wait(Puppet, Order, Ref) ->
    receive
        {Ref, Result} -> Result
    after ?PATIENCE -> error({no_answer, Puppet, Order})
    end.

%% The next message that matches.
-define(await(Pattern, What),
    receive
        Pattern -> ok
    after ?PATIENCE -> error({missing, What, process_info(self(), messages)})
    end
).

%% No message that matches: after an echo, or for a while.
-define(none(Pattern),
    receive
        Pattern -> error({unexpected, ??Pattern})
    after 0 -> ok
    end
).

%% When this returns, what the puppet sent before has arrived, and it has taken what was sent to it.
settle(Puppet) ->
    [] = [X || X <- [order(Puppet, {trap, false})], X =/= ok],
    ok.

same_echo(Node, Term) ->
    Ref = make_ref(),
    {echo, Node} ! {self(), Ref, Term},
    receive
        {Ref, Answer} when Answer =:= Term -> ok;
        {Ref, Answer} -> error({changed, Term, Answer})
    after ?PATIENCE -> error({no_echo, Node})
    end.

release() ->
    list_to_integer(erlang:system_info(otp_release)).

%% Reachable, after whatever it took to get there.
reachable(Node) ->
    reachable(Node, erlang:monotonic_time(millisecond) + ?PATIENCE).

reachable(Node, Deadline) ->
    case net_kernel:connect_node(Node) of
        true ->
            %% The connection may be one that is going away just now.
            Ref = make_ref(),
            true = monitor_node(Node, true),
            {echo, Node} ! {self(), Ref, hello},
            Answer =
                receive
                    {Ref, hello} -> ok;
                    {nodedown, Node} -> again
                after 5000 -> again
                end,
            true = monitor_node(Node, false),
            receive {nodedown, Node} -> ok after 0 -> ok end,
            case Answer of
                ok -> ok;
                again -> retry(Node, Deadline)
            end;
        _ ->
            retry(Node, Deadline)
    end.

retry(Node, Deadline) ->
    case erlang:monotonic_time(millisecond) < Deadline of
        true ->
            timer:sleep(20),
            reachable(Node, Deadline);
        false ->
            error({unreachable, Node})
    end.

%%%-------------------------------------------------------------------------------------------
%%% Messages
%%%-------------------------------------------------------------------------------------------

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
        nosuspend = refused(Node, 1000),
        ?await({'DOWN', Monitor, process, Sender, normal}, sender),
        _ = erlang:system_monitor(undefined),
        Digest = crypto:hash(sha256, binary:copy(Bin, Count)),
        Size = Count * (1 bsl 20),
        case report(Node) of
            {Count, Size, Digest} -> ok;
            {C, S, _} -> {error, {arrived, C, S}}
        end
    end).

refused(_, 0) -> never;
refused(Node, Left) ->
    case erlang:send({control, Node}, ignored, [nosuspend]) of
        nosuspend ->
            nosuspend;
        ok ->
            %% The receiver takes some before it stops.
            timer:sleep(1),
            refused(Node, Left - 1)
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

%%%-------------------------------------------------------------------------------------------
%%% Bytes that no node should send. They cut the connection.
%%%-------------------------------------------------------------------------------------------

%% Sends raw bytes on the connection of the distribution. Then the other node must have closed it, or
%% have survived; in any case it can be reached again.
inject(Node, Bytes) ->
    ok = reachable(Node),
    true = monitor_node(Node, true),
    Connection = connection(Node),
    true = Connection =/= undefined,
    _ = catch prim_inet:send(Connection, Bytes),
    {echo, Node} ! {self(), Bytes, after_it},
    Outcome =
        receive
            {nodedown, Node} -> closed;
            {Bytes, after_it} -> open
        after ?PATIENCE -> error({neither_closed_nor_alive, Bytes})
        end,
    true = monitor_node(Node, false),
    receive {nodedown, Node} -> ok after 0 -> ok end,
    try reachable(Node) catch error:Why -> error({Why, 'after', Bytes, Outcome}) end,
    Outcome.

connection(Node) ->
    try
        erts_debug:get_internal_state({dist_ctrl, Node})
    catch
        error:undef ->
            _ = erts_debug:set_internal_state(available_internal_state, true),
            erts_debug:get_internal_state({dist_ctrl, Node})
    end.

ext(Term) ->
    <<131, Bytes/binary>> = term_to_binary(Term, [{minor_version, 2}]),
    Bytes.

header() -> <<131, $D, 0>>.

%% @doc Messages that are no terms: the control message is sound.
bad_external_terms(Node) ->
    run(fun() ->
        Bad = [
            <<$R, 137>>, <<$?, 66>>, <<$R, 0>>, <<131, 97, 1>>, <<>>,
            <<108, 16#ffffffff:32>>, <<105, 16#ffffffff:32>>, <<116, 16#ffffffff:32>>, <<109, 16#ffffffff:32, 1>>,
            <<111, 16#ffffffff:32, 0, 1>>, <<112, 16#ffffffff:32, 0>>, <<70, 16#7ff0000000000000:64>>,
            <<70, -1:64>>, <<77, 1:32, 9, 1>>, <<77, 1:32, 0, 1>>, <<119, 2, 255, 255>>, <<118, 1021:16, 0:8168>>,
            <<116, 2:32, 97, 1, 97, 1, 97, 1, 97, 2>>, <<80, 16#ffffffff:32, (zlib:compress(<<97, 1>>))/binary>>,
            <<80, 2:32, 1, 2, 3>>, <<90, 9:16, 119, 1, $a, 0:32, 0:288>>, <<104, 3, 97, 1>>, <<97>>,
            binary:copy(<<104, 1>>, 1000000), <<(binary:copy(<<108, 1:32>>, 300000))/binary, 106>>,
            binary:copy(<<104, 255>>, 100000)
        ],
        Where = [{6, self(), '', echo}, {2, '', puppet_of(Node)}],
        lists:foreach(
            fun({Control, Message}) ->
                %% Nothing may come of it.
                inject(Node, [header(), ext(Control), Message])
            end,
            [{C, M} || C <- Where, M <- Bad]
        ),
        ?none({told, _, _})
    end).

puppet_of(Node) ->
    Puppet = puppet(Node),
    true = erlang:unlink(Puppet),
    Puppet.

%% @doc Control messages that are none, and headers that are none.
bad_structures(Node) ->
    run(fun() ->
        P = self(),
        Its = puppet(Node),
        Bad = [
            {1}, {1, P}, {1, P, Its, extra}, {1, Its, P}, {1, P, foo}, {2}, {2, '', foo}, {3, P}, {3, P, foo, bar},
            {6, P}, {6, P, '', 17}, {7, P}, {7, foo, Its}, {8, P}, {19, P}, {19, P, Its}, {19, P, Its, foo},
            {19, P, 17, make_ref()}, {20, P}, {20, P, Its, foo}, {21, P}, {21, P, Its, foo, r}, {24, P}, {26, P, foo},
            {28, P, foo, bar}, {29, a}, {29, make_ref(), P, P, foo, []}, {29, make_ref(), P, P, {a, b, c}, []},
            {29, make_ref(), P, P, {a, b, 1}, foo}, {31, foo, Its, 0, P}, {33, P, foo}, {35, foo, P, Its}, {36, 1},
            {37, 1, 2}, {-1, P, Its}, {1 bsl 70, P, Its}, {99, P, Its}, {}, foo, [6, P, '', echo], {echo}, 6
        ],
        [inject(Node, [header(), ext(B)]) || B <- Bad],
        [inject(Node, [header(), ext(B), ext(payload)]) || B <- Bad],
        Frames = [
            <<131, $D, 255>>, <<131, $D>>, <<131>>, <<0>>, <<112>>, <<112, 131>>, <<112, 131, 104>>, <<131, $D, 1, 8, 0, 5, "abc">>,
            <<131, $D, 3, 16#88, 16#08, 0, 4, "fake", 1, 2, "at", 2, 3, "omi">>, <<131, $X, 0>>, <<4, 1, 2>>,
            [<<131, $D, 3, 16#88, 16#08, 0, 4, "fake", 1, 2, "at", 2, 3, "omi">>, <<104, 4, 97, 6>>, ext(P), ext(''), <<$R, 9>>, ext(a)],
            crypto:strong_rand_bytes(100), binary:copy(<<131>>, 100000)
        ],
        lists:foreach(
            fun(Frame) ->
                Outcome = inject(Node, Frame),
                Outcome =:= closed orelse error({still_open_after, Frame})
            end,
            Frames
        )
    end).

%% @doc Fragments without a beginning, out of order, of one sequence twice, cut off.
bad_fragments(Node) ->
    run(fun() ->
        P = self(),
        Control = ext({22, P, puppet_of(Node)}),
        Begin = fun(Sequence, Left) -> <<131, $E, Sequence:64, Left:64, 0>> end,
        More = fun(Sequence, Left) -> <<131, $F, Sequence:64, Left:64>> end,
        Sequences = [
            [[More(7, 1), <<1, 2, 3>>]],
            [[More(7, 3), <<1, 2, 3>>], [More(7, 2), <<1>>]],
            [[Begin(7, 3), Control, <<109, 9:32>>], [More(7, 1), <<"abcdefghi">>]],
            [[Begin(7, 3), Control, <<109, 9:32>>], [More(7, 3), <<"abcdefghi">>]],
            [[Begin(7, 3), Control, <<109, 9:32>>], [More(7, 4), <<"abcdefghi">>]],
            [[Begin(7, 2), Control, <<109, 9:32>>], [Begin(7, 2), Control, <<109, 9:32>>]],
            [[Begin(7, 2), Control, <<109, 9:32>>], [More(8, 1), <<"abcdefghi">>]],
            [[Begin(7, 0), Control, ext(x)]],
            [[Begin(7, 1 bsl 63), Control, <<109, 9:32>>], [More(7, 1), <<"abcdefghi">>]],
            [<<131, $E, 7:64, 2:64>>],
            [<<131, $E, 7:64>>],
            [<<131, $E>>],
            [<<131, $F, 7:64>>],
            [[Begin(7, 2), <<104, 3>>], [More(7, 1), <<97, 1>>]],
            [[Begin(7, 2), Control, <<109, 9:32>>], [More(7, 1), <<"abc">>]]
        ],
        [
            lists:foreach(fun(Fragment) -> inject(Node, Fragment) end, Fragments)
         || Fragments <- Sequences
        ],
        %% One that has no end costs the other node no more than it may hold, and the node goes on.
        ok = same_echo(Node, still_there),
        ?none({told, _, _})
    end).

%%%-------------------------------------------------------------------------------------------
%%% Connections
%%%-------------------------------------------------------------------------------------------

%% @doc `net_adm:ping/1'.
pings(Node) ->
    run(fun() ->
        [pong = net_adm:ping(Node) || _ <- lists:seq(1, 20)],
        ok
    end).

%% @doc Cuts the connection: who monitors the node is told.
monitor_nodes(Node) ->
    run(fun() ->
        ok = reachable(Node),
        ok = net_kernel:monitor_nodes(true, [{node_type, all}]),
        true = monitor_node(Node, true),
        Puppet = puppet(Node),
        Monitor = monitor(process, Puppet),
        true = erlang:disconnect_node(Node),
        ?await({nodedown, Node}, monitor_node),
        ?await({nodedown, Node, _}, monitor_nodes),
        ?await({'DOWN', Monitor, process, Puppet, noconnection}, monitor),
        pong = net_adm:ping(Node),
        ?await({nodeup, Node, _}, nodeup),
        ok = net_kernel:monitor_nodes(false, [{node_type, all}])
    end).

%% @doc Cuts the connection, again and again. Puppets live through it; links and monitors don't.
reconnect(Node) ->
    run(fun() ->
        ok = reachable(Node),
        Puppet = puppet(Node),
        Trap = order(Puppet, {trap, true}),
        Trap =:= ok orelse error(Trap),
        lists:foreach(
            fun(_) ->
                Linked = spawn(fun() -> link(Puppet), receive after infinity -> ok end end),
                Monitor = order(Puppet, {monitor, Linked}),
                true = is_reference(Monitor),
                true = erlang:disconnect_node(Node),
                ok = reachable(Node),
                %% Its answer comes over the new connection.
                ?await({told, Puppet, {'DOWN', Monitor, process, Linked, noconnection}}, monitor),
                ?await({told, Puppet, {'EXIT', Linked, noconnection}}, link),
                exit(Linked, kill)
            end,
            lists:seq(1, 20)
        ),
        order(Puppet, {exit, normal})
    end).

%% @doc Cuts the connection; then both dial at the same moment. One connection is left, and it works.
simultaneous_connect(Node) ->
    run(fun() ->
        ok = reachable(Node),
        Puppet = puppet(Node),
        lists:foreach(
            fun(_) ->
                %% The order goes out just before the connection that carries it is cut.
                Ref = start(Puppet, {connect_after, node(), 30}),
                ?await({Ref, ok}, announced),
                true = monitor_node(Node, true),
                true = erlang:disconnect_node(Node),
                ?await({nodedown, Node}, cut),
                timer:sleep(15 + rand:uniform(20)),
                ok = reachable(Node),
                ?await({told, Puppet, {connected, true}}, connected)
            end,
            lists:seq(1, 40)
        ),
        same_echo(Node, works)
    end).

%% @doc A node without a name gets one of the other node: start it with `-sname undefined'.
dynamic_name(Node) ->
    run(fun() ->
        nonode@nohost = node(),
        true = net_kernel:connect_node(Node),
        false = nonode@nohost =:= node(),
        true = is_alive(),
        ok = same_echo(Node, self()),
        Puppet = puppet(Node),
        ok = order(Puppet, {send, self(), {from, Puppet}}),
        ?await({from, Puppet}, answer)
    end).

%% @doc A connection that nobody uses lasts: three times the tick time. Start it with a short one.
idle(Node) ->
    run(fun() ->
        ok = same_echo(Node, x),
        true = monitor_node(Node, true),
        receive
            {nodedown, Node} -> {error, nodedown}
        after 3000 * net_kernel:get_net_ticktime() -> same_echo(Node, x)
        end
    end).

%%%-------------------------------------------------------------------------------------------
%%% Links, monitors, exits
%%%-------------------------------------------------------------------------------------------

%% @doc Links made and ended from either end.
links(Node) ->
    run(fun() ->
        process_flag(trap_exit, true),
        %% Ours, ended there.
        Reasons = [normal, boom, {tuple, self()}, kill, shutdown, <<1:4>>],
        [
            begin
                P = puppet(Node),
                true = link(P),
                ok = order(P, {exit, R}),
                ?await({'EXIT', P, R}, {ended, R})
            end
         || R <- Reasons
        ],
        %% Theirs, ended there.
        Q = puppet(Node),
        ok = order(Q, {link, self()}),
        ok = order(Q, {exit, done}),
        ?await({'EXIT', Q, done}, their_link),
        %% Ended here: it traps.
        T = puppet(Node),
        ok = order(T, {trap, true}),
        [
            begin
                Ours = spawn(fun() -> receive go -> exit(R) end end),
                ok = order(T, {link, Ours}),
                Ours ! go,
                ?await({told, T, {'EXIT', Ours, R}}, {told, R})
            end
         || R <- [boom, normal, {a, "b"}]
        ],
        %% Ended here: it does not, and goes with us.
        ok = order(T, {trap, false}),
        Last = spawn(fun() -> receive go -> exit(goes_along) end end),
        ok = order(T, {link, Last}),
        Monitor = monitor(process, T),
        Last ! go,
        ?await({'DOWN', Monitor, process, T, goes_along}, goes_along),
        %% To one that is gone, from either end.
        true = link(T),
        ?await({'EXIT', T, noproc}, noproc),
        U = puppet(Node),
        ok = order(U, {trap, true}),
        _ = order(U, {link, Last}),
        ?await({told, U, {'EXIT', Last, noproc}}, their_noproc),
        %% Unlinked: nothing comes.
        V = puppet(Node),
        true = link(V),
        true = unlink(V),
        ok = order(V, {exit, boom}),
        ok = order(U, {link, self()}),
        ok = order(U, {unlink, self()}),
        ok = order(U, {exit, boom}),
        ok = same_echo(Node, x),
        ?none({'EXIT', _, _})
    end).

%% @doc `exit/2' in both directions.
exit_signals(Node) ->
    run(fun() ->
        [
            begin
                P = puppet(Node),
                M = monitor(process, P),
                exit(P, Sent),
                ?await({'DOWN', M, process, P, Seen}, {Sent, Seen})
            end
         || {Sent, Seen} <- [{boom, boom}, {kill, killed}, {{a, b}, {a, b}}]
        ],
        %% `normal' ends nobody else.
        Q = puppet(Node),
        exit(Q, normal),
        ok = settle(Q),
        %% It traps: all but `kill' are messages.
        ok = order(Q, {trap, true}),
        exit(Q, normal),
        ?await({told, Q, {'EXIT', _, normal}}, normal),
        exit(Q, boom),
        ?await({told, Q, {'EXIT', _, boom}}, boom),
        Killed = monitor(process, Q),
        exit(Q, kill),
        ?await({'DOWN', Killed, process, Q, killed}, killed),
        %% From there.
        P2 = puppet(Node),
        [
            begin
                {Ours, M} = spawn_monitor(fun() -> receive after infinity -> ok end end),
                ok = order(P2, {exit, Ours, Sent}),
                ?await({'DOWN', M, process, Ours, Seen}, {their, Sent})
            end
         || {Sent, Seen} <- [{boom, boom}, {kill, killed}]
        ],
        order(P2, {exit, normal})
    end).

%% @doc Monitors by pid and by name, from either end.
monitors(Node) ->
    run(fun() ->
        Down = fun(M, P, R) -> ?await({'DOWN', M, process, P, R}, {down, R}) end,
        [
            begin
                P = puppet(Node),
                M = monitor(process, P),
                ok = order(P, {exit, R}),
                Down(M, P, R)
            end
         || R <- [normal, boom, {a, self()}]
        ],
        %% By name; it is told by name.
        Q = puppet(Node),
        ok = order(Q, {register, some_name}),
        Named = monitor(process, {some_name, Node}),
        ok = order(Q, {exit, bye}),
        Down(Named, {some_name, Node}, bye),
        %% Gone or never there.
        Down(monitor(process, Q), Q, noproc),
        Down(monitor(process, {some_name, Node}), {some_name, Node}, noproc),
        %% Taken back.
        R = puppet(Node),
        Taken = monitor(process, R),
        Kept = monitor(process, R),
        true = demonitor(Taken),
        ok = order(R, {exit, boom}),
        Down(Kept, R, boom),
        ?none({'DOWN', Taken, _, _, _}),
        %% Theirs: by pid, by name, gone, taken back.
        S = puppet(Node),
        Life = fun() -> receive {die, Why} -> exit(Why) end end,
        One = spawn(Life),
        M1 = order(S, {monitor, One}),
        M2 = order(S, {monitor, One}),
        ok = order(S, {demonitor, M2}),
        One ! {die, {why, [1, 2, 3]}},
        ?await({told, S, {'DOWN', M1, process, One, {why, [1, 2, 3]}}}, their_down),
        M3 = order(S, {monitor, One}),
        ?await({told, S, {'DOWN', M3, process, One, noproc}}, their_noproc),
        Name = list_to_atom("named_" ++ integer_to_list(erlang:unique_integer([positive]))),
        Two = spawn(Life),
        true = register(Name, Two),
        M4 = order(S, {monitor, {Name, node()}}),
        Two ! {die, boom},
        ?await({told, S, {'DOWN', M4, process, {Name, _}, boom}}, their_named),
        ok = settle(S),
        ?none({told, S, _})
    end).

%% @doc A link to a process that is ending gives one exit signal, with its reason or `noproc'.
link_exit_races(Node) ->
    One = fun() ->
        process_flag(trap_exit, true),
        lists:foreach(
            fun(N) ->
                P = puppet(Node),
                Ref = start(P, {exit, race}),
                N rem 3 =:= 0 andalso erlang:yield(),
                true = link(P),
                receive
                    {'EXIT', P, Reason} when Reason =:= race; Reason =:= noproc -> ok
                after ?PATIENCE -> error(no_exit)
                end,
                ?await({Ref, ok}, answer),
                ?none({'EXIT', _, _})
            end,
            lists:seq(1, 200)
        )
    end,
    run(fun() -> together(lists:duplicate(8, One)) end).

%% @doc The same of monitors; and of one that is taken back while its `DOWN' is on its way.
monitor_races(Node) ->
    One = fun() ->
        lists:foreach(
            fun(N) ->
                P = puppet(Node),
                Ref = start(P, {exit, race}),
                M = monitor(process, P),
                case N rem 2 of
                    0 ->
                        receive
                            {'DOWN', M, process, P, Reason} when Reason =:= race; Reason =:= noproc -> ok
                        after ?PATIENCE -> error(no_down)
                        end;
                    1 ->
                        true = demonitor(M, [flush])
                end,
                ?await({Ref, ok}, answer),
                ?none({'DOWN', _, _, _, _})
            end,
            lists:seq(1, 200)
        ),
        same_echo(Node, x),
        ?none({'DOWN', _, _, _, _})
    end,
    run(fun() -> together(lists:duplicate(8, One)) end).

%% @doc Linked and unlinked by both ends at once: in the end there is a link only if one was made last.
unlink_races(Node) ->
    One = fun() ->
        process_flag(trap_exit, true),
        P = puppet(Node),
        ok = order(P, {trap, true}),
        lists:foreach(
            fun(_) ->
                A = start(P, {link, self()}),
                true = link(P),
                true = unlink(P),
                B = start(P, {unlink, self()}),
                true = link(P),
                C = start(P, {link, self()}),
                ?await({A, ok}, a),
                ?await({B, ok}, b),
                ?await({C, ok}, c),
                true = unlink(P),
                ok = order(P, {unlink, self()}),
                true = link(P),
                true = unlink(P)
            end,
            lists:seq(1, 200)
        ),
        %% No link is left, at either end.
        ok = order(P, {exit, boom}),
        ok = same_echo(Node, x),
        ?none({'EXIT', _, _})
    end,
    run(fun() -> together(lists:duplicate(8, One)) end).

%%%-------------------------------------------------------------------------------------------
%%% Calls
%%%-------------------------------------------------------------------------------------------

%% @doc `gen_server' calls, casts, requests, to one and to many.
gen_servers(Node) ->
    run(fun() ->
        Echo = {echo, Node},
        [R = gen_server:call(Echo, R) || R <- [a, {b, self()}, <<0:80000>>, [1, 2, 3], #{}]],
        Request = gen_server:send_request(Echo, later),
        {reply, later} = gen_server:wait_response(Request, ?PATIENCE),
        Others = gen_server:multi_call([Node, nobody@nowhere], echo, question, ?PATIENCE),
        {[{Node, question}], [nobody@nowhere]} = Others,
        ok = gen_server:cast(Echo, {self(), casted, 7}),
        ?await({casted, 7}, cast),
        Noproc = (catch gen_server:call({nobody_here, Node}, x)),
        {'EXIT', {noproc, _}} = Noproc,
        together([fun() -> [N = gen_server:call(Echo, N) || N <- lists:seq(1, 300)], ok end || _ <- lists:seq(1, 10)])
    end).

%% @doc Replies that come too late, callers that are gone.
gen_server_late(Node) ->
    run(fun() ->
        Echo = {echo, Node},
        {'EXIT', {timeout, _}} = (catch gen_server:call(Echo, {sleep, 600, late}, 50)),
        %% Others are served meanwhile.
        {Took, soon} = timer:tc(fun() -> gen_server:call(Echo, soon) end),
        Took < 500000 orelse error({waited, Took}),
        in_time = gen_server:call(Echo, {sleep, 800, in_time}),
        {messages, []} = process_info(self(), messages),
        Self = self(),
        Caller = spawn(fun() -> gen_server:call(Echo, {forever, Self}, infinity) end),
        %% A call that follows it on the way is answered after it was taken.
        wait_until(fun() -> process_info(Caller, current_function) =/= {current_function, {erlang, spawn, 1}} end),
        ok = same_echo(Node, x),
        timer:sleep(50),
        exit(Caller, gone),
        ?await({caller_down, Caller, gone}, caller_down)
    end).

wait_until(Condition) ->
    case Condition() of
        true -> ok;
        false -> erlang:yield(), wait_until(Condition)
    end.

%% @doc Calls that the other node makes to this one.
calls_out(Node) ->
    run(fun() ->
        P = puppet(Node),
        {ok, Server} = gen_server:start_link({local, stock_server()}, stock_server, [], []),
        Name = stock_server(),
        {ok, {got, hello}} = order(P, {call, Name, node(), hello, 5000}),
        {ok, Pid} = order(P, {call, Name, node(), self, 5000}),
        Pid = Server,
        {error, _} = order(P, {call, Name, node(), never, 200}),
        {error, _} = order(P, {call, Name, node(), stop_with_boom_not_me, 5000}),
        {error, _} = order(P, {call, nobody_here, node(), hello, 5000}),
        ok = order(P, {cast, Name, node(), {tell, self(), casted}}),
        ?await(casted, cast),
        {ok, 3} = order(P, {rpc, node(), erlang, '+', [1, 2], 5000}),
        {error, _} = order(P, {rpc, node(), erlang, error, [boom], 5000}),
        {error, _} = order(P, {rpc, node(), nomodule, nofunction, [], 5000}),
        {error, _} = order(P, {rpc, node(), timer, sleep, [5000], 200}),
        {ok, [3, 2, 1]} = order(P, {erpc, node(), lists, reverse, [[1, 2, 3]], 5000}),
        [
            {error, _} = order(P, {erpc, node(), erlang, Class, [boom], 5000})
         || Class <- [error, exit, throw]
        ],
        {error, _} = order(P, {erpc, node(), timer, sleep, [5000], 200}),
        ok = gen_server:stop(Server),
        order(P, {exit, normal})
    end).

stock_server() ->
    list_to_atom("stock_server_" ++ pid_to_list(self())).

%% @doc `rpc' to functions that the other node offers, and to others.
rpcs(Node) ->
    run(fun() ->
        M = stock_functions,
        [T = rpc:call(Node, M, echo, [T]) || T <- [a, {self(), make_ref()}, <<0:8000000>>, "list"]],
        {badrpc, {'EXIT', {boom, _}}} = rpc:call(Node, M, raise, [error, boom]),
        {badrpc, {'EXIT', boom}} = rpc:call(Node, M, raise, [exit, boom]),
        boom = rpc:call(Node, M, raise, [throw, boom]),
        {badrpc, timeout} = rpc:call(Node, M, sleep, [3000, x], 100),
        slept = rpc:call(Node, M, sleep, [100, slept], 5000),
        {badrpc, _} = rpc:call(Node, M, no_such_function, [], 5000),
        {badrpc, _} = rpc:call(Node, no_such_module, no_such_function, [1, 2], 5000),
        {[x], [nobody@nowhere]} = rpc:multicall([Node, nobody@nowhere], M, echo, [x], 5000),
        Key = rpc:async_call(Node, M, echo, [async]),
        async = rpc:yield(Key),
        true = rpc:cast(Node, M, send, [self(), casted]),
        ?await(casted, cast)
    end).

%% @doc `erpc' likewise.
erpcs(Node) ->
    run(fun() ->
        M = stock_functions,
        [T = erpc:call(Node, M, echo, [T]) || T <- [a, {self(), make_ref()}, <<0:8000000>>]],
        Raised = fun(Class, F, A) ->
            try erpc:call(Node, M, F, A, 5000) of
                Value -> {returned, Value}
            catch
                Class:Reason -> Reason
            end
        end,
        {exception, boom, [_ | _]} = Raised(error, raise, [error, boom]),
        {exception, boom} = Raised(exit, raise, [exit, boom]),
        boom = Raised(throw, raise, [throw, boom]),
        {exception, undef, [_ | _]} = Raised(error, no_such_function, []),
        {erpc, timeout} = try erpc:call(Node, M, sleep, [3000, x], 100) catch error:E -> E end,
        Request = erpc:send_request(Node, M, sleep, [50, slept]),
        slept = erpc:receive_response(Request, 5000),
        [{ok, x}, {error, {erpc, noconnection}}] = erpc:multicall([Node, nobody@nowhere], M, echo, [x], 5000),
        ok = erpc:cast(Node, M, send, [self(), casted]),
        ?await(casted, cast),
        ok = erpc:multicast([Node], M, send, [self(), casted]),
        ?await(casted, cast)
    end).

%%%-------------------------------------------------------------------------------------------
%%% Spawning, aliases, groups
%%%-------------------------------------------------------------------------------------------

%% @doc Spawn requests: an answer always, and before any signal of the child.
spawn_requests(Node) ->
    run(fun() ->
        process_flag(trap_exit, true),
        F = fun(Ref) -> [stock_functions, hello, [self(), Ref]] end,
        Request = fun(MFA, Options) -> apply(erlang, spawn_request, [Node | MFA] ++ [Options]) end,
        R1 = make_ref(),
        Q1 = Request(F(R1), [link, monitor, {reply_tag, answer}]),
        P1 = receive {answer, Q1, ok, Pid1} -> Pid1 after ?PATIENCE -> error(no_reply) end,
        true = node(P1) =:= Node,
        ?await({hello, R1, P1}, hello),
        ?await({'DOWN', Q1, process, P1, normal}, down),
        ?await({'EXIT', P1, normal}, exit),
        %% The reply is there before the first thing that the child does.
        [
            begin
                R = make_ref(),
                Q = Request(F(R), [monitor, link]),
                receive
                    {spawn_reply, Q, ok, P} -> ?await({hello, R, P}, hello);
                    {hello, R, _} -> error(hello_before_reply);
                    {'DOWN', Q, _, _, _} -> error(down_before_reply);
                    {'EXIT', _, normal} -> error(exit_before_reply)
                after ?PATIENCE -> error(no_reply)
                end,
                ?await({'DOWN', Q, process, _, normal}, down),
                ?await({'EXIT', _, normal}, exit)
            end
         || _ <- lists:seq(1, 300)
        ],
        %% Without a reply, and with errors only.
        R2 = make_ref(),
        _ = Request(F(R2), [{reply, no}]),
        ?await({hello, R2, _}, hello),
        _ = Request(F(R2), [{reply, error_only}]),
        ?await({hello, R2, _}, hello),
        ?none({spawn_reply, _, _, _}),
        %% What is not there: in OTP a process that ends with undef, in others an error.
        [
            begin
                Q = Request(MFA, Options ++ [monitor]),
                receive
                    {spawn_reply, Q, error, Why} when is_atom(Why) -> ok;
                    {spawn_reply, Q, ok, P} -> ?await({'DOWN', Q, process, P, {undef, _}}, undef)
                after ?PATIENCE -> error({silence, MFA})
                end
            end
         || MFA <- [
                [no_such_module, f, []], [stock_functions, no_such_function, [1]], [os_not, cmd, ["id"]],
                [stock_functions, hello, lists:seq(1, 200)]
            ],
            Options <- [[], [link], [{priority, high}], [{min_heap_size, 1000}]]
        ],
        receive {'EXIT', _, _} -> ok after 0 -> ok end,
        %% An option that nobody knows is refused.
        Bad = Request(F(R2), [{nonsense, option}]),
        ?await({spawn_reply, Bad, error, _}, badopt),
        %% The old ways.
        {P3, M3} = spawn_monitor(Node, stock_functions, hello, [self(), R2]),
        ?await({hello, R2, P3}, spawn_monitor),
        ?await({'DOWN', M3, process, P3, normal}, spawn_monitor),
        P4 = spawn_link(Node, stock_functions, raise, [exit, boom]),
        ?await({'EXIT', P4, boom}, spawn_link),
        P5 = spawn(Node, stock_functions, hello, [self(), R2]),
        ?await({hello, R2, P5}, spawn),
        %% Nobody is waiting any more: no child is left linked.
        Q6 = Request([stock_functions, sleep, [60000, x]], [link]),
        case erlang:spawn_request_abandon(Q6) of
            true -> ok;
            false -> ?await({spawn_reply, Q6, ok, _}, abandon_too_late)
        end
    end).

%% @doc Messages to aliases, here and there.
aliases(Node) ->
    run(fun() ->
        P = puppet(Node),
        %% Theirs.
        A = order(P, {alias, []}),
        true = is_reference(A) andalso node(A) =:= Node,
        A ! by_alias,
        ?await({told, P, by_alias}, alias),
        ok = order(P, {unalias, A}),
        A ! too_late,
        ok = settle(P),
        ?none({told, P, too_late}),
        %% Ours.
        B = alias(),
        ok = order(P, {send, B, to_alias}),
        ?await(to_alias, our_alias),
        true = unalias(B),
        ok = order(P, {send, B, too_late}),
        ok = settle(P),
        ?none(too_late),
        %% For one reply; and with a monitor.
        C = alias([reply]),
        [ok = order(P, {send, C, N}) || N <- [one, two]],
        ?await(one, reply),
        ok = settle(P),
        ?none(two),
        D = erlang:monitor(process, P, [{alias, reply_demonitor}]),
        ok = order(P, {send, D, reply}),
        ?await(reply, reply_demonitor),
        ok = order(P, {exit, boom}),
        ok = same_echo(Node, x),
        ?none({'DOWN', _, _, _, _})
    end).

%% @doc Groups of `pg': both see the members of both, leaving and ending included; a scope that restarts
%% is told anew.
groups(Node) ->
    run(fun() ->
        Scope = list_to_atom("scope_" ++ integer_to_list(erlang:unique_integer([positive]))),
        P = puppet(Node),
        Start = fun() ->
            {ok, Pid} = pg:start(Scope),
            Pid
        end,
        _ = Start(),
        ok = order(P, {pg_start, Scope}),
        {Ref, _} = pg:monitor(Scope, group),
        %% Theirs.
        ok = order(P, {pg_join, Scope, group}),
        ?await({Ref, join, group, [P]}, join),
        [P] = pg:get_members(Scope, group),
        [] = pg:get_local_members(Scope, group),
        ok = order(P, {pg_leave, Scope, group}),
        ?await({Ref, leave, group, [P]}, leave),
        %% Ours.
        ok = pg:join(Scope, group, self()),
        ?await({Ref, join, group, _}, own),
        Self = self(),
        wait_until(fun() -> order(P, {pg_members, Scope, group}) =:= [Self] end),
        ok = pg:leave(Scope, group, self()),
        ?await({Ref, leave, group, _}, own),
        wait_until(fun() -> order(P, {pg_members, Scope, group}) =:= [] end),
        %% One that ends leaves; one that joins twice is there twice.
        Q = puppet(Node),
        [ok = order(Q, {pg_join, Scope, group}) || _ <- [1, 2]],
        ?await({Ref, join, group, [Q]}, join),
        ?await({Ref, join, group, [Q]}, join),
        [Q, Q] = pg:get_members(Scope, group),
        ok = order(Q, {exit, normal}),
        gone(Ref, Q, 2),
        Ours = spawn(fun() -> receive stop -> ok end end),
        ok = pg:join(Scope, [a, "term", 1], Ours),
        wait_until(fun() -> order(P, {pg_members, Scope, [a, "term", 1]}) =:= [Ours] end),
        Ours ! stop,
        wait_until(fun() -> order(P, {pg_members, Scope, [a, "term", 1]}) =:= [] end),
        %% The scope ends and starts again: the other node's members come back.
        ok = order(P, {pg_join, Scope, again}),
        wait_until(fun() -> pg:get_members(Scope, again) =:= [P] end),
        Monitor = monitor(process, Scope),
        exit(whereis(Scope), kill),
        ?await({'DOWN', Monitor, process, _, killed}, scope),
        New = Start(),
        within(fun() -> pg:get_members(Scope, again) =:= [P] end, members_after_restart),
        exit(New, kill),
        order(P, {exit, normal})
    end).

gone(_, _, 0) -> ok;
gone(Ref, Pid, Left) ->
    receive
        {Ref, leave, group, Pids} -> gone(Ref, Pid, Left - length([P || P <- Pids, P =:= Pid]))
    after ?PATIENCE -> error({still_member, Pid})
    end.

within(Condition, What) ->
    within(Condition, What, erlang:monotonic_time(millisecond) + ?PATIENCE).

within(Condition, What, Deadline) ->
    case Condition() of
        true -> ok;
        false ->
            erlang:monotonic_time(millisecond) < Deadline orelse error(What),
            timer:sleep(5),
            within(Condition, What, Deadline)
    end.

%% @doc Group leaders are handed over; a process that was spawned has that of its parent.
group_leaders(Node) ->
    run(fun() ->
        P = puppet(Node),
        true = group_leader(self(), P),
        Self = self(),
        within(fun() -> order(P, group_leader) =:= Self end, group_leader),
        _ = spawn(Node, stock_functions, leader, [self()]),
        Leader = group_leader(),
        ?await({leader, Leader}, inherited),
        order(P, {exit, normal})
    end).

%% @doc Priority messages (OTP 28): messages and exits to a priority alias.
priority_messages(Node) ->
    case release() >= 28 of
        false -> ok;
        true -> run(fun() -> priority(Node) end)
    end.

priority(Node) ->
    P = puppet(Node),
    A = order(P, {alias, [priority]}),
    _ = apply(erlang, send, [A, urgent, [priority]]),
    ?await({told, P, urgent}, priority_send),
    A ! ordinary,
    ?await({told, P, ordinary}, ordinary_send),
    ok = order(P, {trap, true}),
    true = apply(erlang, exit, [A, boom, [priority]]),
    ?await({told, P, {'EXIT', _, boom}}, priority_exit),
    %% To a plain alias and to a pid the option means nothing.
    B = order(P, {alias, []}),
    _ = apply(erlang, send, [B, plain, [priority]]),
    ?await({told, P, plain}, plain_alias),
    _ = apply(erlang, send, [P, pid, [priority]]),
    ?await({told, P, pid}, pid),
    %% What is not active any more.
    ok = order(P, {unalias, A}),
    _ = apply(erlang, send, [A, too_late, [priority]]),
    ok = order(P, {trap, false}),
    ?none({told, P, too_late}),
    %% Ours; links and monitors with priority.
    Mine = apply(erlang, alias, [[priority]]),
    ok = order(P, {send, Mine, to_priority_alias}),
    ?await(to_priority_alias, our_priority_alias),
    process_flag(trap_exit, true),
    true = apply(erlang, link, [P, [priority]]),
    Monitor = apply(erlang, monitor, [process, P, [priority]]),
    ok = order(P, {exit, bye}),
    ?await({'DOWN', Monitor, process, P, bye}, priority_monitor),
    ?await({'EXIT', P, bye}, priority_link).

%% @doc Native records (OTP 29) come back as what they were.
records(Node) ->
    case release() >= 29 of
        false -> ok;
        true -> run(fun() -> records_echo(Node) end)
    end.

records_echo(Node) ->
    Atom = fun(A) -> ext(A) end,
    Make = fun(Fields, Exported) ->
        Names = [Atom(N) || {N, _} <- Fields],
        Values = [ext(V) || {_, V} <- Fields],
        Bytes = [<<131, 67, (length(Fields)):32, Exported>>, Atom(some_module), Atom('größe'), Names, Values],
        binary_to_term(iolist_to_binary(Bytes))
    end,
    Point = Make([{x, 1}, {y, [self()]}], 1),
    [
        ok = same_echo(Node, T)
     || T <- [Point, Make([], 0), {Point, [Point]}, Make([{z, Point}, {a, #{Point => Point}}], 0)]
    ],
    ok.
