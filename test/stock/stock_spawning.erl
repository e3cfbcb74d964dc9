%% @doc What a stock node does with a Rust node (`stock_peer'): processes spawned, aliases, groups, and what newer
%% releases add.
-module(stock_spawning).

-export([spawn_requests/1, aliases/1, groups/1, group_leaders/1, priority_messages/1, records/1]).

-include("stock_peer.hrl").

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
