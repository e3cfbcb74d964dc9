%% @doc What a stock node does with a Rust node (`stock_peer'): bytes that no node should send. All cut the
%% connection.
-module(stock_faults).

-export([bad_external_terms/1, bad_structures/1, bad_fragments/1]).

-include("stock_peer.hrl").

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
