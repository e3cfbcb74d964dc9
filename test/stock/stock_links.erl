%% @doc What stock nodes do in the tests of links under pressure and in trouble.
-module(stock_links).

-export([burst/4, serve_after/2, answer/0, senders/4, suspended/0, digests/0]).
-export([chatter/1, chatted/0, sink/2, down/1, report/1, count/1, monitors/2, linkers/2]).
-export([greeter/0, greeted/1, let_in/1]).

%% @doc Sends `{Tag, N, Binary}' for N from 0 to Count - 1.
burst(To, Tag, Count, Bytes) ->
    Bin = binary:copy(<<"x">>, Bytes),
    lists:foreach(fun(N) -> To ! {Tag, N, Bin} end, lists:seq(0, Count - 1)).

%% @doc A process `oracle' that does something and answers calls from then on.
serve_after(Work, Name) ->
    Starter = self(),
    Pid = spawn(fun() ->
        true = register(Name, self()),
        Work(),
        Starter ! {self(), done},
        answer()
    end),
    receive {Pid, done} -> ok end.

answer() ->
    receive
        {'$gen_call', From, {pid}} -> gen_server:reply(From, self());
        {'$gen_call', From, Request} -> gen_server:reply(From, {answer, Request});
        {exit, Reason} -> exit(Reason)
    end,
    answer().

%% @doc Processes of which each sends `{data, K, N, Binary}' Count times to one receiver.
senders(To, Senders, Count, Bytes) ->
    register(collector, spawn(fun() ->
        Pids = [element(1, spawn_monitor(fun() -> sender(To, K, Count, Bytes) end)) || K <- lists:seq(0, Senders - 1)],
        collect(Pids)
    end)),
    ok.

sender(To, K, Count, Bytes) ->
    Digest = lists:foldl(
        fun(N, Digest) ->
            Bin = <<N:32, (rand:bytes(Bytes))/binary>>,
            To ! {data, K, N, Bin},
            crypto:hash_update(Digest, Bin)
        end,
        crypto:hash_init(sha256),
        lists:seq(0, Count - 1)
    ),
    exit({digest, K, crypto:hash_final(Digest)}).

collect(Pids) ->
    receive
        {suspended, From} ->
            From ! {suspended, length([P || P <- Pids, process_info(P, status) =:= {status, suspended}])},
            collect(Pids);
        {digests, From} ->
            From ! {digests, [receive {'DOWN', _, _, P, {digest, K, D}} -> {K, D} end || P <- Pids]}
    end.

%% @doc How many of them wait for room to send.
suspended() ->
    collector ! {suspended, self()},
    receive {suspended, Count} -> Count end.

%% @doc What they have sent, when all have.
digests() ->
    collector ! {digests, self()},
    receive {digests, All} -> [{K, binary_to_list(binary:encode_hex(D))} || {K, D} <- All] end.

%% @doc A process that sends `{seq, self(), N}' for N from 0 on until the connection goes.
chatter(To) ->
    Node = case To of {_, Name} -> Name; Pid -> node(Pid) end,
    register(chatter, spawn(fun() ->
        true = monitor_node(Node, true),
        chat(Node, To, 0)
    end)),
    ok.

chat(Node, To, N) ->
    Pause = case N rem 20 of 0 -> 1; _ -> 0 end,
    receive
        {nodedown, Node} -> ended(N)
    after Pause ->
        _ = erlang:send(To, {seq, self(), N}, [noconnect]),
        chat(Node, To, N + 1)
    end.

ended(N) ->
    receive {ended, From} -> From ! {ended, N} end.

%% @doc How much it has sent, when the connection is gone.
chatted() ->
    chatter ! {ended, self()},
    receive {ended, N} -> N end.

%% @doc A process that holds messages `{seq, From, N}' to their order. When the connection with a node goes
%% it keeps that node out.
sink(Name, Node) ->
    Starter = self(),
    Pid = spawn(fun() ->
        true = register(Name, self()),
        true = monitor_node(Node, true),
        Starter ! {self(), ready},
        sink(Node, #{}, 0, 0, undefined)
    end),
    receive {Pid, ready} -> ok end.

sink(Node, Next, Gaps, Count, Down) ->
    receive
        {seq, From, N} ->
            Gap = case maps:get(From, Next, 0) of N -> 0; _ -> 1 end,
            sink(Node, Next#{From => N + 1}, Gaps + Gap, Count + 1, Down);
        {nodedown, Node} ->
            true = erlang:set_cookie(Node, kept_out),
            sink(Node, Next, Gaps, Count, Count);
        {down, From} when Down =/= undefined ->
            From ! {down, Count},
            sink(Node, Next, Gaps, Count, Down);
        {report, From} ->
            Late = case Down of undefined -> none; _ -> Count - Down end,
            From ! {report, {Gaps, Late}},
            sink(Node, Next, Gaps, Count, Down);
        {count, From} ->
            From ! {count, Count},
            sink(Node, Next, Gaps, Count, Down)
    end.

%% @doc Lets a node in again that a sink keeps out.
let_in(Node) -> erlang:set_cookie(Node, erlang:get_cookie()).

%% @doc Waits until the connection is gone; how many messages there were then.
down(Name) -> ask(Name, down).

%% @doc Messages out of order, and how many came after the connection was gone.
report(Name) -> ask(Name, report).

%% @doc Messages so far.
count(Name) -> ask(Name, count).

ask(Name, What) ->
    Name ! {What, self()},
    receive {What, Answer} -> Answer end.

%% @doc Monitors that often, and waits until a monitor fires because the connection went.
monitors(Whom, Count) ->
    _ = [monitor(process, Whom) || _ <- lists:seq(1, Count)],
    cut().

%% @doc Has so many processes link, and waits until one ends because the connection went.
linkers(Whom, Count) ->
    Self = self(),
    Linker = fun() ->
        _ = monitor(process, Self),
        link(Whom),
        receive {'DOWN', _, _, Self, _} -> ok end
    end,
    _ = [spawn_monitor(Linker) || _ <- lists:seq(1, Count)],
    cut().

cut() ->
    receive {'DOWN', _, _, _, noconnection} -> cut after 20000 -> not_cut end.

%% @doc A process that keeps messages `{round, N}'.
greeter() ->
    register(greeter, spawn(fun Loop() ->
        receive
            {wait, N, From} ->
                receive {round, N} -> From ! {greeted, N} end,
                Loop()
        end
    end)),
    ok.

%% @doc Waits for one of them.
greeted(N) ->
    greeter ! {wait, N, self()},
    receive {greeted, N} -> ok after 20000 -> silence end.
