%% @doc What a stock node does with a Rust node (`stock_peer'): links, monitors, exits.
-module(stock_signals).

-export([links/1, exit_signals/1, monitors/1, link_exit_races/1, monitor_races/1, unlink_races/1]).

-include("stock_peer.hrl").

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
