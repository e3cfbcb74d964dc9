%% The two contestants: the same message to the same process, by Partisan or by Distributed Erlang.
-module(demo_link).

-export([send/4, reply/3]).
-export_type([link/0, target/0]).

-type link() :: partisan | dist.
-type target() :: {node(), Name :: atom(), pid()}.

-spec send(link(), target(), Channel :: atom(), Msg :: term()) -> ok.
send(partisan, {Node, Name, _}, Channel, Msg) ->
    ok = partisan:forward_message(Node, Name, Msg, #{channel => Channel});
send(dist, {_, _, Pid}, _Channel, Msg) ->
    Pid ! Msg,
    ok.

%% To a pid that came in a message.
-spec reply(link(), pid(), Msg :: term()) -> ok.
reply(partisan, Pid, Msg) ->
    ok = partisan:forward_message(Pid, Msg, #{channel => rpc});
reply(dist, Pid, Msg) ->
    Pid ! Msg,
    ok.
