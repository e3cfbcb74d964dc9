%% @doc What a stock node does with a Rust node (`stock_peer'): calls, in both directions.
-module(stock_calls).

-export([gen_servers/1, gen_server_late/1, calls_out/1, rpcs/1, erpcs/1]).

-include("stock_peer.hrl").

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

%% @doc Calls that the other node makes to this one.
calls_out(Node) ->
    run(fun() ->
        process_flag(trap_exit, true),
        P = puppet(Node),
        {ok, Server} = gen_server:start_link({local, stock_server()}, stock_server, [], []),
        Name = stock_server(),
        {ok, {got, hello}} = order(P, {call, Name, node(), hello, 5000}),
        {ok, Pid} = order(P, {call, Name, node(), self, 5000}),
        Pid = Server,
        {error, _} = order(P, {call, Name, node(), never, 200}),
        {error, _} = order(P, {call, Name, node(), stop, 5000}),
        {ok, Again} = gen_server:start_link({local, Name}, stock_server, [], []),
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
        ok = gen_server:stop(Again),
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
