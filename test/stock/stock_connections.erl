%% @doc What a stock node does with a Rust node (`stock_peer'): connections made, cut, kept.
-module(stock_connections).

-export([pings/1, monitor_nodes/1, reconnect/1, simultaneous_connect/1, dynamic_name/1, idle/1]).

-include("stock_peer.hrl").

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
                Self = self(),
                Linked = spawn(fun() ->
                    link(Puppet),
                    Self ! {linked, self()},
                    receive after infinity -> ok end
                end),
                %% The order goes the same way after the link: when it is answered, the link is there.
                ?await({linked, Linked}, linked),
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
