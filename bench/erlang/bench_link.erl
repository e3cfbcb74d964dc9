%% How a message travels: by Distributed Erlang or by Partisan, ours or lasp-lang/partisan.
-module(bench_link).

-export([parse/1, opts/2, send/4, ask/4]).
-export_type([link/0, ref/0, opts/0]).

%% Channels are taken in turn by the number of the actor, which is also the partition key if the link is keyed.
-type link() :: dist | {partisan, [atom()], Keyed :: boolean()}.
%% A pid, or a remote reference as it came in a message.
-type ref() :: term().
-type opts() :: map().

%% `dist`, or `CHANNEL+CHANNEL/keyed` or `CHANNEL/plain`. The default channel is `undefined`.
-spec parse(string()) -> link().
parse("dist") ->
    dist;
parse(Text) ->
    [Channels, Keyed] = string:split(Text, "/"),
    {partisan, [list_to_atom(Channel) || Channel <- string:lexemes(Channels, "+")], Keyed =:= "keyed"}.

%% Of one actor, made once.
-spec opts(link(), non_neg_integer()) -> opts().
opts(dist, _) ->
    #{};
opts({partisan, [undefined], false}, _) ->
    #{};
opts({partisan, Channels, Keyed}, Actor) ->
    Channel = #{channel => lists:nth(Actor rem length(Channels) + 1, Channels)},
    case Keyed of
        true -> Channel#{partition_key => Actor};
        false -> Channel
    end.

-spec send(link(), ref(), opts(), term()) -> ok.
send(dist, Pid, _, Msg) ->
    Pid ! Msg,
    ok;
send(_, Ref, Opts, Msg) ->
    ok = partisan:forward_message(Ref, Msg, Opts).

%% To a registered name: only used to learn references.
-spec ask(link(), node(), atom(), term()) -> ok | {error, term()}.
ask(dist, Node, Name, Msg) ->
    {Name, Node} ! Msg,
    ok;
ask(Link, Node, Name, Msg) ->
    partisan:forward_message(Node, Name, Msg, opts(Link, 0)).
