%% @doc What the functions of `stock_peer' are made of.
-module(stock_tools).

-export([run/1, together/1, puppet/1, order/2, start/2, settle/1, same_echo/2, release/0, reachable/1, ext/1]).
-export([wait_until/1, within/2]).

-define(PATIENCE, 20000).

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

%% A term behind a distribution header.
ext(Term) ->
    <<131, Bytes/binary>> = term_to_binary(Term, [{minor_version, 2}]),
    Bytes.

wait_until(Condition) ->
    case Condition() of
        true -> ok;
        false -> erlang:yield(), wait_until(Condition)
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
