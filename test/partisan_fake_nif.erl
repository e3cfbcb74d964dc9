%% A stand-in for the native library: the exports of partisan_nif over a process that the test
%% programs. `load/1' compiles this module under the name partisan_nif.
-module(partisan_fake_nif).

-export([install/0, remove/0, answer/2, sent/0, event/1]).
-export([load/0, start/1, stop/0, send/7, send_iov/7, payload/3, cancel/1, command/2]).
-export([nodes/0, is_connected/2, channels_of/1, identity/0, queued/0]).

-compile({no_auto_import, [nodes/0]}).

-define(KEY(Key), {partisan_fake_nif, Key}).

install() ->
    {ok, {_, [{abstract_code, {_, Forms0}}]}} = beam_lib:chunks(
        code:which(partisan_fake_nif), [abstract_code]
    ),
    Forms = [
        case Form of
            {attribute, L, module, _} -> {attribute, L, module, partisan_nif};
            _ -> Form
        end
     || Form <- Forms0
    ],
    {ok, _, Binary} = compile:forms(Forms, []),
    unload(),
    {module, _} = code:load_binary(partisan_nif, "fake", Binary),
    _ = ets:new(partisan_fake_nif, [named_table, public, ordered_set]),
    ok.

remove() ->
    true = ets:delete(partisan_fake_nif),
    unload(),
    [persistent_term:erase(Key) || {?KEY(_) = Key, _} <- persistent_term:get()],
    {module, _} = code:ensure_loaded(partisan_nif),
    ok.

unload() ->
    _ = code:purge(partisan_nif),
    _ = code:delete(partisan_nif),
    _ = code:purge(partisan_nif),
    ok.

%% What a function returns: a value, or a fun of its arguments.
answer(Function, Answer) -> persistent_term:put(?KEY(Function), Answer).

%% The calls of send, send_iov and cancel, in order.
sent() ->
    Calls = [Call || {_, Call} <- ets:tab2list(partisan_fake_nif)],
    true = ets:delete_all_objects(partisan_fake_nif),
    Calls.

%% What the node tells its owner.
event(Event) ->
    persistent_term:get(?KEY(owner)) ! {partisan_event, Event},
    ok.

call(Function, Args, Default) ->
    case persistent_term:get(?KEY(Function), Default) of
        Fun when is_function(Fun) -> apply(Fun, Args);
        Value -> Value
    end.

record(Call) ->
    true = ets:insert(partisan_fake_nif, {erlang:unique_integer([monotonic]), Call}).

load() -> ok.

start(#{owner := Owner, name := Name} = Config) ->
    persistent_term:put(?KEY(owner), Owner),
    persistent_term:put(?KEY(config), Config),
    Default = {ok, #{name => Name, creation => 7, listen_addrs => [{{127, 0, 0, 1}, 4321}]}},
    call(start, [Config], Default).

stop() -> ok.

send(Node, Channel, Key, Dest, Msg, Flags, Wait) ->
    record({send, Node, Channel, Key, Dest, Msg, Flags, Wait}),
    call(send, [Wait], ok).

send_iov(Node, Channel, Key, Dest, Iov, Flags, Wait) ->
    Msg = binary_to_term(iolist_to_binary(Iov)),
    record({send_iov, Node, Channel, Key, Dest, Msg, Flags, Wait}),
    call(send_iov, [Wait], ok).

payload(Name, Iov, Flags) ->
    {ok, {Name, binary_to_term(iolist_to_binary(Iov)), Flags}}.

cancel(Ticket) ->
    record({cancel, Ticket}),
    call(cancel, [Ticket], ok).

command(Ref, Command) ->
    self() ! {Ref, call(command, [Command], ok)},
    ok.

nodes() -> call(nodes, [], []).
is_connected(Node, Channel) -> call(is_connected, [Node, Channel], false).
channels_of(Node) -> call(channels_of, [Node], []).
identity() -> {partisan:node(), 7}.

queued() -> 0.
