%% @doc The peer program of `stock_peer', in Erlang: what OTP itself does where the Rust program stands
%% in the tests. It shows that the tests ask for what OTP does, and no more. With a fault it shows that
%% they notice.
-module(stock_model).

-export([start/0, start/1]).

%% @doc Starts the processes; they last as long as the node.
-spec start() -> ok.
start() ->
    start(none).

%% @doc With a fault: `lose' (the 100th message to the sink), `corrupt' (an echo of a binary loses a byte),
%% `deaf' (a puppet forwards nothing).
-spec start(none | lose | corrupt | deaf) -> ok.
start(Fault) ->
    lists:foreach(
        fun({Name, Loop}) ->
            Starter = self(),
            spawn(fun() ->
                true = register(Name, self()),
                put(fault, Fault),
                Starter ! {started, Name},
                Loop()
            end),
            receive {started, Name} -> ok end
        end,
        [{echo, fun echo/0}, {sink, fun() -> sink(0, 0, crypto:hash_init(sha256)) end}, {control, fun control/0}]
    ).

echo() ->
    receive
        {'$gen_call', From, {sleep, Millis, Reply}} ->
            spawn(fun() -> timer:sleep(Millis), gen:reply(From, Reply) end);
        {'$gen_call', {Caller, _}, {forever, Pid}} ->
            spawn(fun() ->
                Monitor = monitor(process, Caller),
                receive {'DOWN', Monitor, _, _, Reason} -> Pid ! {caller_down, Caller, Reason} end
            end);
        {'$gen_call', From, Request} ->
            gen:reply(From, Request);
        {'$gen_cast', {To, Ref, Term}} ->
            To ! {Ref, Term};
        {To, Ref, Term} when is_pid(To); is_reference(To) ->
            To ! {Ref, maybe_corrupt(get(fault), Term)};
        _ ->
            ok
    end,
    echo().

maybe_corrupt(corrupt, <<_, Rest/binary>>) -> Rest;
maybe_corrupt(_, Term) -> Term.

sink(Count, Bytes, Digest) ->
    receive
        {data, 100, Bin} when Count =:= 99 ->
            case get(fault) of
                lose -> sink(Count, Bytes, Digest);
                _ -> sink(Count + 1, Bytes + byte_size(Bin), crypto:hash_update(Digest, Bin))
            end;
        {data, _, Bin} ->
            sink(Count + 1, Bytes + byte_size(Bin), crypto:hash_update(Digest, Bin));
        {report, Pid, Ref} ->
            Pid ! {Ref, Count, Bytes, crypto:hash_final(Digest)},
            sink(0, 0, crypto:hash_init(sha256));
        {sleep, Millis} ->
            timer:sleep(Millis),
            sink(Count, Bytes, Digest);
        _ ->
            sink(Count, Bytes, Digest)
    end.

control() ->
    receive
        {spawn, Owner, Ref} ->
            Fault = get(fault),
            Owner ! {Ref, spawn(fun() -> put(fault, Fault), puppet(Owner) end)};
        _ ->
            ok
    end,
    control().

puppet(Owner) ->
    receive
        {do, From, Ref, {exit, Reason}} ->
            From ! {Ref, ok},
            exit(Reason);
        {do, From, Ref, {chatter, Pid}} ->
            From ! {Ref, ok},
            true = monitor_node(node(Pid), true),
            chatter(Pid, 0);
        {do, From, Ref, {connect_after, Node, Millis}} ->
            From ! {Ref, ok},
            timer:sleep(Millis),
            Connected = net_kernel:connect_node(Node),
            Owner ! {told, self(), {connected, Connected}};
        {do, From, Ref, Order} ->
            From ! {Ref, obey(Order)};
        Message ->
            get(fault) =:= deaf orelse (Owner ! {told, self(), Message})
    end,
    puppet(Owner).

obey({trap, Whether}) -> process_flag(trap_exit, Whether), ok;
obey({link, Pid}) -> link(Pid), ok;
obey({unlink, Pid}) -> unlink(Pid), ok;
obey({monitor, Whom}) -> monitor(process, Whom);
obey({demonitor, Ref}) -> demonitor(Ref), ok;
obey({exit, Pid, Reason}) -> exit(Pid, Reason), ok;
obey({send, To, Message}) -> To ! Message, ok;
obey({alias, []}) -> alias();
obey({alias, Options}) -> alias(Options);
obey({unalias, Alias}) -> unalias(Alias), ok;
obey({register, Name}) -> register(Name, self()), put(name, Name), ok;
obey(unregister) -> unregister(erase(name)), ok;
obey(group_leader) -> group_leader();
obey({call, Name, Node, Request, Millis}) -> told(fun() -> gen_server:call({Name, Node}, Request, Millis) end);
obey({cast, Name, Node, Message}) -> gen_server:cast({Name, Node}, Message);
obey({rpc, Node, M, F, A, Millis}) ->
    case rpc:call(Node, M, F, A, Millis) of
        {badrpc, Why} -> {error, Why};
        Result -> {ok, Result}
    end;
obey({erpc, Node, M, F, A, Millis}) -> told(fun() -> erpc:call(Node, M, F, A, Millis) end);
obey({pg_start, Scope}) -> {ok, _} = pg:start(Scope), ok;
obey({pg_join, Scope, Group}) -> pg:join(Scope, Group, self());
obey({pg_leave, Scope, Group}) -> pg:leave(Scope, Group, self());
obey({pg_members, Scope, Group}) -> pg:get_members(Scope, Group).

told(Call) ->
    try {ok, Call()} catch _:Why -> {error, Why} end.

chatter(Pid, N) ->
    receive
        {nodedown, _} -> ok
    after 0 ->
        _ = erlang:send(Pid, {seq, self(), N}, [noconnect]),
        chatter(Pid, N + 1)
    end.
