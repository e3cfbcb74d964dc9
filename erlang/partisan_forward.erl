%% @doc Sends messages: finds out where a destination is, hands the message to the native library,
%% waits where the queue is full.
%%
%% The forms that occur in hot code (a name or pid, a channel, a partition key, no default options)
%% are matched first and cost a few reductions.
-module(partisan_forward).

-include("partisan.hrl").

-export([message/3, message/4, cast/3, cast/4, control/4, reach/2]).

%% Bits of a message's flags. Bit 0, "the default channel may stand in", is in the defaults.
-define(FLAG_FALLBACK, 1).
-define(FLAG_VERBATIM, 2).
%% Bit 2, a node without a session is reached before it is given up, is in the defaults too.
-define(FLAG_REACH, 4).
%% Bit 3, the message is kept until it is acknowledged, is for `partisan_nif:payload/3' only.
-define(FLAG_KEPT, 8).

%% Why a message was not sent that could be if there were a session.
-define(IS_UNLINKED(Why), (Why =:= disconnected orelse Why =:= not_yet_connected)).

%% Longer than the library takes to find out that a node can't be reached, in milliseconds.
-define(REACH_TIMEOUT, 30000).

%% Larger keys are folded into what the native library takes.
-define(MAX_KEY, 16#3ffffffffffffff).

%% How long a sender waits for its queue: milliseconds, for ever, or not at all.
-type patience() :: timeout() | nosuspend.
-type opts() :: map() | list().
-type result() :: ok | {error, term()}.

%% @doc Sends to a destination that says itself where it is. Error `badarg' for a name that isn't
%% registered here, as `erlang:send/2', and for what is no destination.
-spec message(partisan:server_ref(), term(), opts()) -> result().
message(Name, Msg, _) when is_atom(Name) ->
    Name ! Msg,
    ok;
message({Name, Node} = Dest, Msg, Opts) when is_atom(Name), is_atom(Node), Name =/= global ->
    case partisan_config:send_defaults() of
        {Node, _, _} ->
            Name ! Msg,
            ok;
        Defaults ->
            route(Dest, Node, Msg, Opts, Defaults)
    end;
message(Dest, Msg, Opts) ->
    route(Dest, undefined, Msg, Opts, partisan_config:send_defaults()).

%% @doc Sends to a destination on `Node'. A pid or remote reference that names another node goes
%% there. Delivery on the own node never fails.
-spec message(node(), partisan:server_ref(), term(), opts()) -> result().
message(Node, Dest, Msg, Opts) when is_atom(Node) ->
    route(Dest, Node, Msg, Opts, partisan_config:send_defaults());
message(_, _, _, _) ->
    error(badarg).

%% @doc As `message/3', as a gen_server's cast; errors of delivery are not told.
-spec cast(partisan:server_ref(), term(), opts()) -> ok.
cast(Dest, Msg, Opts) ->
    Defaults = partisan_config:send_defaults(),
    _ = route(Dest, partisan:node(), {'$gen_cast', Msg}, Opts, Defaults),
    ok.

%% @doc As `message/4', as a gen_server's cast; errors of delivery are not told.
-spec cast(node(), partisan:server_ref(), term(), opts()) -> ok.
cast(Node, Dest, Msg, Opts) ->
    _ = message(Node, Dest, {'$gen_cast', Msg}, Opts),
    ok.

%% @doc Sends a message between two nodes' own processes: pids and references in it stay what
%% they are. Waits for no room, and for a session with a node that has none as long as `Patience' says.
-spec control(node(), partisan_nif:destination(), term(), timeout()) -> result().
control(Node, Dest, Msg, Patience) ->
    Flags = ?FLAG_FALLBACK bor ?FLAG_VERBATIM,
    Send = fun() -> transmit(Node, ?MEMBERSHIP_CHANNEL, -1, Dest, Msg, Flags, nosuspend) end,
    case Send() of
        {error, Why} = Error when Patience =/= 0, ?IS_UNLINKED(Why) ->
            {_, Defaults, _} = partisan_config:send_defaults(),
            case Defaults band ?FLAG_REACH =/= 0 andalso reach(Node, Patience) of
                ok -> Send();
                _ -> Error
            end;
        Result ->
            Result
    end.

%% @doc On a partial overlay: gets a session with a node, at its addresses or over other nodes, within
%% `Timeout' milliseconds. On a full mesh it only looks.
-spec reach(node(), timeout()) -> ok | {error, unreachable | timeout | notalive}.
reach(Node, Timeout) ->
    %% In a process of its own, so that a late answer finds nobody.
    Caller = self(),
    Answer = make_ref(),
    {Pid, Monitor} = spawn_monitor(fun() -> Caller ! {Answer, reached(Node)} end),
    receive
        {Answer, Result} ->
            true = demonitor(Monitor, [flush]),
            Result;
        {'DOWN', Monitor, process, Pid, _} ->
            {error, notalive}
    after Timeout ->
        true = exit(Pid, kill),
        receive
            {'DOWN', Monitor, process, Pid, _} -> ok
        end,
        receive
            {Answer, Late} -> Late
        after 0 -> {error, timeout}
        end
    end.

reached(Node) ->
    Ref = make_ref(),
    case partisan_nif:command(Ref, {reach, Node}) of
        ok ->
            receive
                {Ref, true} -> ok;
                {Ref, false} -> {error, unreachable}
            %% The library answers before; it doesn't if it is stopped.
            after ?REACH_TIMEOUT -> {error, unreachable}
            end;
        {error, _} ->
            {error, notalive}
    end.

%%%-------------------------------------------------------------------------------------------
%%% Where to
%%%-------------------------------------------------------------------------------------------

route(Dest, Node, Msg, Opts, Defaults) when is_atom(Dest) ->
    to(Node, Dest, Msg, Opts, Defaults);
route(Pid, _, Msg, Opts, Defaults) when is_pid(Pid) ->
    case node(Pid) of
        Here when Here =:= node() ->
            Pid ! Msg,
            ok;
        Node ->
            foreign(Node, Pid, Msg, Opts, Defaults)
    end;
route({via, Mod, Name}, Node, Msg, Opts, Defaults) ->
    registered(Mod, Name, Node, Msg, Opts, Defaults);
route({global, Name}, Node, Msg, Opts, Defaults) ->
    registered(global, Name, Node, Msg, Opts, Defaults);
route({Kind, _} = Target, Node, Msg, Opts, Defaults) when
    Kind =:= encoded_pid; Kind =:= encoded_name
->
    case partisan_remote_ref:target_destination(Target) of
        error -> error(badarg);
        _ when Node =:= undefined -> error(badarg);
        Dest -> to(Node, Dest, Msg, Opts, Defaults)
    end;
route({Name, Node}, _, Msg, Opts, Defaults) when is_atom(Name), is_atom(Node) ->
    to(Node, Name, Msg, Opts, Defaults);
route(Ref, _, Msg, Opts, Defaults) ->
    case partisan_remote_ref:destination(Ref) of
        {Node, Dest} -> to(Node, Dest, Msg, Opts, Defaults);
        error -> error(badarg)
    end.

%% Names are looked up here; where the process is decides the rest. An unknown name is no error.
registered(Mod, Name, Node, Msg, Opts, Defaults) ->
    Found =
        try
            Mod:whereis_name(Name)
        catch
            _:_ -> undefined
        end,
    case Found of
        undefined -> ok;
        _ -> route(Found, Node, Msg, Opts, Defaults)
    end.

%% A pid of another node. Most are of Partisan peers; one that came by Distributed Erlang from a
%% node that Partisan has never seen is still a valid destination there.
foreign(Node, Pid, Msg, Opts, Defaults) ->
    case to(Node, Pid, Msg, Opts, Defaults) of
        {error, not_yet_connected} = Error ->
            case lists:member(Node, nodes(connected)) of
                true ->
                    Pid ! Msg,
                    ok;
                false ->
                    Error
            end;
        Result ->
            Result
    end.

to(Node, Dest, Msg, _, {Node, _, _}) ->
    deliver(Dest, Msg);
to(Node, Dest, Msg, Opts, {_, Flags, Default}) when map_size(Default) =:= 0 ->
    case Opts of
        [] ->
            transmit(Node, ?DEFAULT_CHANNEL, -1, Dest, Msg, Flags, infinity);
        _ when Opts =:= #{} ->
            transmit(Node, ?DEFAULT_CHANNEL, -1, Dest, Msg, Flags, infinity);
        #{channel := Channel} when map_size(Opts) =:= 1, is_atom(Channel) ->
            transmit(Node, Channel, -1, Dest, Msg, Flags, infinity);
        #{channel := Channel, partition_key := Key} when
            map_size(Opts) =:= 2, is_atom(Channel), is_integer(Key), Key >= 0, Key =< ?MAX_KEY
        ->
            transmit(Node, Channel, Key, Dest, Msg, Flags, infinity);
        [{channel, Channel}] when is_atom(Channel) ->
            transmit(Node, Channel, -1, Dest, Msg, Flags, infinity);
        _ ->
            with_options(Node, Dest, Msg, options(Opts), Flags)
    end;
to(Node, Dest, Msg, Opts, {_, Flags, Default}) ->
    with_options(Node, Dest, Msg, maps:merge(Default, options(Opts)), Flags);
to(_, _, _, _, undefined) ->
    {error, notalive}.

deliver({Id, Serial, _}, Msg) ->
    try
        partisan_remote_ref:local_pid(Id, Serial) ! Msg,
        ok
    catch
        error:badarg -> ok
    end;
deliver(Dest, Msg) ->
    try
        Dest ! Msg,
        ok
    catch
        error:badarg -> ok
    end.

%%%-------------------------------------------------------------------------------------------
%%% Options
%%%-------------------------------------------------------------------------------------------

options(Opts) when is_map(Opts) ->
    Opts;
options(Opts) when is_list(Opts) ->
    try
        proplists:to_map(Opts)
    catch
        error:_ -> error(badarg)
    end;
options(_) ->
    error(badarg).

with_options(Node, Dest, Msg, Opts, Flags0) ->
    Flags =
        case maps:get(channel_fallback, Opts, default) of
            default -> Flags0;
            true -> Flags0 bor ?FLAG_FALLBACK;
            false -> Flags0 band (bnot ?FLAG_FALLBACK);
            _ -> error(badarg)
        end,
    {Channel, Key, Patience} = {channel(Opts), key(Opts), patience(Opts)},
    case Opts of
        #{causal_label := Label} when Label =/= undefined, Label =/= false ->
            case lists:member(Label, partisan_config:get(causal_labels, [])) of
                true -> keep(Node, {label, Label}, Dest, Msg, Flags, Patience);
                false -> {error, {unknown_label, Label}}
            end;
        #{ack := true} ->
            acknowledged(Node, Channel, Dest, Msg, Flags, Patience);
        #{ack := Ack} when Ack =/= false, Ack =/= undefined ->
            error(badarg);
        _ ->
            transmit(Node, Channel, Key, Dest, Msg, Flags, Patience)
    end.

%% A channel that the session lacks is found out here; while there is no session nobody knows.
acknowledged(Node, Channel, Dest, Msg, Flags, Patience) ->
    case Channel =:= ?DEFAULT_CHANNEL orelse not partisan_nif:is_connected(Node, ?DEFAULT_CHANNEL) of
        true ->
            keep(Node, {channel, Channel}, Dest, Msg, Flags, Patience);
        false ->
            case partisan_nif:is_connected(Node, Channel) of
                true -> keep(Node, {channel, Channel}, Dest, Msg, Flags, Patience);
                false when Flags band ?FLAG_FALLBACK =/= 0 ->
                    keep(Node, {channel, ?DEFAULT_CHANNEL}, Dest, Msg, Flags, Patience);
                false -> {error, disconnected}
            end
    end.

channel(#{channel := Channel}) when is_atom(Channel) -> Channel;
channel(#{channel := _}) -> error(badarg);
channel(_) -> ?DEFAULT_CHANNEL.

key(#{partition_key := ?DEFAULT_PARTITION_KEY}) -> -1;
key(#{partition_key := Key}) when is_integer(Key), Key >= 0 -> Key band ?MAX_KEY;
key(#{partition_key := _}) -> error(badarg);
key(_) -> -1.

-spec patience(map()) -> patience().
patience(#{nosuspend := true}) -> nosuspend;
patience(#{nosuspend := NoSuspend}) when NoSuspend =/= false -> error(badarg);
patience(#{timeout := Timeout}) when ?IS_VALID_TMO(Timeout) -> Timeout;
patience(#{timeout := _}) -> error(badarg);
patience(_) -> infinity.

%%%-------------------------------------------------------------------------------------------
%%% Sending and waiting
%%%-------------------------------------------------------------------------------------------

%% The first attempt never waits, so that nothing has to be prepared for waiting where there is
%% room. A term that the native library finds too large to walk is encoded here, where that yields.
-spec transmit(
    node(), atom(), integer(), partisan_nif:destination(), term(), non_neg_integer(), patience()
) -> result().
transmit(Node, Channel, Key, Dest, Msg, Flags, Patience) ->
    case partisan_nif:send(Node, Channel, Key, Dest, Msg, Flags, none) of
        ok ->
            ok;
        slow ->
            Iov = term_to_iovec(Msg),
            %% The name under which it was encoded may be a new one.
            _ = partisan_nif:identity(),
            Send = fun(Wait) ->
                partisan_nif:send_iov(Node, Channel, Key, Dest, Iov, Flags, Wait)
            end,
            go_on(Send(none), Send, Node, Flags, Patience);
        Result ->
            Send = fun(Wait) ->
                partisan_nif:send(Node, Channel, Key, Dest, Msg, Flags, Wait)
            end,
            go_on(Result, Send, Node, Flags, Patience)
    end.

go_on(ok, _, _, _, _) ->
    ok;
go_on(busy, Send, Node, Flags, Patience) ->
    case full(Send, Patience) of
        {error, disconnected} = Error -> go_on(Error, Send, Node, Flags, Patience);
        Result -> Result
    end;
go_on({error, Why} = Error, Send, Node, Flags, nosuspend) when
    ?IS_UNLINKED(Why), Flags band ?FLAG_REACH =/= 0
->
    %% For whoever sends next.
    _ = Send,
    _ = partisan_nif:command(none, {reach, Node}),
    Error;
go_on({error, Why} = Error, Send, Node, Flags, Patience) when
    ?IS_UNLINKED(Why), Flags band ?FLAG_REACH =/= 0
->
    Started = erlang:monotonic_time(millisecond),
    case reach(Node, Patience) of
        ok -> go_on(Send(none), Send, Node, Flags, left(Patience, Started));
        {error, timeout} = Late -> Late;
        {error, _} -> Error
    end;
go_on({error, _} = Error, _, _, _, _) ->
    Error.

left(infinity, _) -> infinity;
left(Timeout, Started) -> max(0, Timeout - (erlang:monotonic_time(millisecond) - Started)).

full(_, nosuspend) -> {error, busy};
full(_, 0) -> {error, timeout};
full(Send, Timeout) -> wait(Send, Timeout).

%% Gives the library a message that it keeps until it is acknowledged.
keep(Node, Lane, Dest, Msg, Flags, Patience) ->
    %% The VM's name may change while the term is encoded.
    _ = partisan_nif:identity(),
    Iov = term_to_iovec(Msg),
    _ = partisan_nif:identity(),
    case partisan_nif:payload(Dest, Iov, (Flags band ?FLAG_VERBATIM) bor ?FLAG_KEPT) of
        {ok, Payload} ->
            Keep = fun(Left) -> kept(Node, Lane, Payload, Left) end,
            keep_on(Keep(Patience), Keep, Node, Flags, Patience);
        {error, _} = Error ->
            Error
    end.

keep_on({error, Why} = Error, _, Node, Flags, nosuspend) when
    ?IS_UNLINKED(Why), Flags band ?FLAG_REACH =/= 0
->
    _ = partisan_nif:command(none, {reach, Node}),
    Error;
keep_on({error, Why} = Error, Keep, Node, Flags, Patience) when
    ?IS_UNLINKED(Why), Flags band ?FLAG_REACH =/= 0
->
    Started = erlang:monotonic_time(millisecond),
    case reach(Node, Patience) of
        ok ->
            Left = left(Patience, Started),
            keep_on(Keep(Left), Keep, Node, Flags, Left);
        {error, timeout} = Late ->
            Late;
        {error, _} ->
            Error
    end;
keep_on(Result, _, _, _, _) ->
    Result.

%% The library always answers, also when it is stopped. Tickets go up, so that who waits longer is first.
kept(Node, Lane, Payload, Patience) ->
    Ticket = erlang:unique_integer([positive, monotonic]),
    Ref = erlang:make_ref(),
    Wait = Patience =/= nosuspend andalso Patience =/= 0,
    Timeout =
        case Wait of
            true -> Patience;
            false -> infinity
        end,
    case partisan_nif:command(Ref, {deliver, {Node, Lane, Payload, Ticket, Wait}}) of
        ok ->
            receive
                {Ref, {error, busy}} when Patience =:= 0 -> {error, timeout};
                {Ref, Result} -> Result
            after Timeout ->
                _ = partisan_nif:command(none, {withdraw, Ticket}),
                receive
                    {Ref, Result} -> Result
                end
            end;
        {error, _} ->
            {error, notalive}
    end.

%% The reference is made in the function that receives, so that the receive skips whatever was in
%% the mailbox before, however long it is. The library sends no wake-up after `cancel/1' has
%% returned; one that it sent before is taken out here.
wait(Send, Timeout) ->
    Ref = erlang:make_ref(),
    case Send(Ref) of
        {wait, Ticket} ->
            receive
                {Ref, granted} -> used(Ticket, Send({granted, Ticket}));
                {Ref, Reason} -> used(Ticket, {error, Reason})
            after Timeout ->
                ok = partisan_nif:cancel(Ticket),
                receive
                    {Ref, _} -> {error, timeout}
                after 0 -> {error, timeout}
                end
            end;
        Result ->
            Result
    end.

%% What a ticket holds, the connection's wake-up descriptor above all, must not wait for this
%% process's next garbage collection.
used(Ticket, {error, _} = Error) ->
    ok = partisan_nif:cancel(Ticket),
    Error;
used(_, Result) ->
    Result.
