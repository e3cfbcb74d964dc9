%% @doc The native library: everything that the Rust side offers to Erlang.
%%
%% The library is loaded by `load/0' when the application starts, never by `-on_load': in an
%% embedded release that would run too late for whoever needs the library early. It can't be
%% replaced while the VM runs; an upgrade needs a restart.
%%
%% Before it is loaded the functions answer as a node that isn't running.
-module(partisan_nif).

-export([load/0, start/1, stop/0]).
-export([send/7, send_iov/7, payload/3, cancel/1, command/2, deliver/1, deliver_heavy/1, settle/1]).
-export([nodes/0, is_connected/2, channels_of/1, identity/0, queued/0]).

-export_type([ticket/0, parcel/0, payload/0, spec/0, channel_spec/0, destination/0]).
-export_type([wait/0, result/0, command/0, config/0]).

-nifs([start/1, stop/0]).
-nifs([send/7, send_iov/7, payload/3, cancel/1, command/2, deliver/1, deliver_heavy/1, settle/1]).
-nifs([nodes/0, is_connected/2, channels_of/1, identity/0, queued/0]).

-type address() :: {inet:ip_address(), inet:port_number()}.
-type channel_spec() ::
    {Name :: atom(), Parallelism :: pos_integer(), Monotonic :: boolean(), Compression :: 0..9}.
-type spec() :: {node(), [address()], [channel_spec()]}.

-type config() :: #{atom() => term()}.
%% See `partisan_config:native/1', which makes it.

-type destination() ::
    atom()
    | pid()
    | {Id :: non_neg_integer(), Serial :: non_neg_integer(), Creation :: non_neg_integer()}.
%% A registered name, a pid of that node, or the numbers of a pid; creation 0 means any.

-opaque ticket() :: reference().
%% A place in a queue. It is given back when the process dies or forgets it.

-opaque parcel() :: reference().
%% Messages that have arrived together. The session ends if it is forgotten before `done'.

-opaque payload() :: reference().
%% A term that is ready to be broadcast, or to be kept until it is acknowledged.

-type wait() :: none | reference() | {granted, ticket()}.
%% What to do when the queue is full: give up, wait under this reference, or use a grant.

-type result() ::
    ok | slow | busy | {wait, ticket()} | {error, term()}.

-type command() ::
    {join, spec()}
    | leave
    | {leave, node()}
    | {update_members, [spec()]}
    | members
    | connections
    | {disconnect, node()}
    | {told, node()}
    | {broadcast, payload()}
    | {deliver, {node(), {channel | label, atom()}, payload(), Ticket :: pos_integer(), Wait :: boolean()}}
    | {withdraw, Ticket :: pos_integer()}
    | {broadcast_view, Root :: node()}
    | {reach, node()}
    | {remember, spec()}
    | {watch, node(), boolean()}
    | {switch, Overlay :: binary()}
    | {steer, Overlay :: binary(), [spec()]}
    | overlay.

%% @doc Loads the library from the application's `priv' directory. Does nothing if it is loaded.
-spec load() -> ok | {error, Reason :: binary()}.
load() ->
    case code:priv_dir(partisan) of
        {error, bad_name} ->
            {error, <<"the application partisan is not in the code path">>};
        Dir ->
            Path = filename:join(Dir, "partisan_nif"),
            case erlang:load_nif(Path, 0) of
                ok ->
                    ok;
                {error, {reload, _}} ->
                    ok;
                {error, {Reason, Text}} ->
                    {error,
                        unicode:characters_to_binary(
                            io_lib:format("cannot load ~ts (~p): ~ts", [Path, Reason, Text])
                        )}
            end
    end.

%% @doc Starts the node. The process `owner' in the configuration gets its events:
%% `{partisan_event, {up, Node, Spec} | {down, Node, Reason} | {members, [Spec]} | left}' and
%% `{partisan_log, Level, Text}'. After an event `down' the node can come up again only when the
%% owner has sent the command `{told, Node}': whoever wants to hear of the end has heard of it.
-spec start(config()) ->
    {ok, #{
        name := node(),
        creation := non_neg_integer(),
        listen_addrs := [address()]
    }}
    | {error, Reason :: binary()}.
start(_Config) ->
    not_loaded({error, <<"the native library is not loaded">>}).

%% @doc Stops the node; returns when its threads and sockets are gone.
-spec stop() -> ok.
stop() ->
    not_loaded(ok).

%% @doc Sends a message to a process of another node.
%%
%% `Key' is the partition key, or -1 for none. `Flags': bit 0 allows the default channel where
%% the peer hasn't the one asked for; bit 1 leaves pids and references of this message alone.
%% `slow' means that the term is too large to be walked here: call `send_iov/7'.
%% After `{wait, Ticket}' the message `{Ref, granted | disconnected | notalive}' follows.
-spec send(node(), atom(), integer(), destination(), term(), non_neg_integer(), wait()) ->
    result().
send(_Node, _Channel, _Key, _Dest, _Msg, _Flags, _Wait) ->
    not_loaded({error, notalive}).

%% @doc As `send/7', of a term that `term_to_iovec/1' has encoded.
-spec send_iov(
    node(), atom(), integer(), destination(), erlang:iovec(), non_neg_integer(), wait()
) -> result().
send_iov(_Node, _Channel, _Key, _Dest, _Iov, _Flags, _Wait) ->
    not_loaded({error, notalive}).

%% @doc Makes a term that `term_to_iovec/1' has encoded ready to be broadcast to the processes that are
%% registered under a name, for the command `broadcast', or to be kept, for the command `deliver'. `Flags': bit 1
%% leaves pids and references alone, bit 3 says that it is for `deliver'.
-spec payload(destination(), erlang:iovec(), non_neg_integer()) ->
    {ok, payload()} | {error, term()}.
payload(_Dest, _Iov, _Flags) ->
    not_loaded({error, notalive}).

%% @doc Withdraws a waiting send, or gives its grant back.
-spec cancel(ticket()) -> ok.
cancel(_Ticket) ->
    not_loaded(ok).

%% @doc Delivers some of the messages of a parcel, which a `partisan_inbox' gets as
%% `{partisan_parcel, Parcel}'. `more': call again; `heavy': call `deliver_heavy/1'.
-spec deliver(parcel()) -> done | more | heavy.
deliver(_Parcel) ->
    not_loaded(done).

%% @doc Delivers the next message of a parcel, too large for an ordinary scheduler.
-spec deliver_heavy(parcel()) -> more.
deliver_heavy(_Parcel) ->
    not_loaded(more).

%% @doc Says that no change of the VM's name is under way, and who is registered as `net_kernel'.
%% `partisan_control' is asked for it by the message `partisan_settle'.
-spec settle(pid() | undefined) -> ok.
settle(_NetKernel) ->
    not_loaded(ok).

%% @doc Asks the control plane for something; the answer comes as the message `{Ref, Result}'.
%% `told', `watch', `remember' and `withdraw' have none, nor has what is asked with `none'. An error if the node is stopped.
-spec command(reference() | none, command()) -> ok | {error, notalive}.
command(_Ref, _Command) ->
    not_loaded(ok).

%% @doc The nodes whose sessions are up.
-spec nodes() -> [node()].
nodes() ->
    not_loaded([]).

%% @doc Whether the session with a node is up, and has the channel.
-spec is_connected(node(), Channel :: atom()) -> boolean().
is_connected(_Node, _Channel) ->
    not_loaded(false).

%% @doc The channels of the session with a node; empty if it isn't up.
-spec channels_of(node()) -> [{Channel :: atom(), Parallelism :: pos_integer()}].
channels_of(_Node) ->
    not_loaded([]).

%% @doc Name and creation of this node on the wire.
-spec identity() -> {node(), Creation :: non_neg_integer()}.
identity() ->
    not_loaded({node(), 0}).

%% @doc Bytes that are queued over all connections and not yet written.
-spec queued() -> non_neg_integer().
queued() ->
    not_loaded(0).

%% The answer comes from outside so that type analysis can't take it for the only one.
not_loaded(Default) ->
    persistent_term:get({?MODULE, not_loaded}, Default).
