%% @doc What a stock Erlang node does with a Rust node, one function for each concern (`ask/2'; they are
%% in the modules beside this one). The names are those of the concerns of OTP's `distribution_SUITE'.
%% Each takes the name of the Rust node and returns `ok' or `{error, Why}'. Each cleans up behind itself,
%% may be run again, and while others run, except those that cut the connection (`cutting/0').
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
%% `group_leader': its group leader; `{connect_after, Node, Millis}': answers, then, so much
%% later, dials and tells its owner `{told, Puppet, {connected, Boolean}}'; `{chatter, Pid}': sends
%% `{seq, self(), N}' for N = 0, 1, ... to `Pid' until the connection goes, then ends;
%% `{call, Name, Node, Request, Millis}': `{ok, Reply}' or `{error, Why}'; `{cast, Name, Node, Message}';
%% `{rpc, Node, M, F, A, Millis}' and `{erpc, Node, M, F, A, Millis}': `{ok, Result}' or `{error, Why}';
%% `{pg_start, Scope}'; `{pg_join, Scope, Group}'; `{pg_leave, Scope, Group}'; `{pg_members, Scope, Group}': pids.
%%
%% Functions that may be called and spawned: those of the module `stock_functions', and nothing else.
-module(stock_peer).

-export([serve/0, ask/2, all/0, cutting/0]).

-define(MODULES, [stock_messages, stock_faults, stock_connections, stock_signals, stock_calls, stock_spawning]).

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

%% @doc What comes of a concern with this node: `ok' or `{error, Why}'.
-spec ask(atom(), node()) -> ok | {error, term()}.
ask(Concern, Node) ->
    [Module] = [M || M <- ?MODULES, lists:member({Concern, 1}, M:module_info(exports))],
    Module:Concern(Node).

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
