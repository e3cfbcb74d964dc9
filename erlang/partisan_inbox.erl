%% @doc Delivers streams of messages that have arrived.
%%
%% The native library's I/O threads deliver single messages themselves. When many come together they
%% hand them over, already validated, to one of these processes: delivering costs a scheduler far less
%% than it costs a thread that the VM doesn't know. All messages of one connection go to the same
%% process, in parcels that are delivered in slices of well under 100 µs each.
%%
%% If one of these processes dies its parcels are lost, and the sessions that they belong to end.
-module(partisan_inbox).
-behaviour(gen_server).

-export([names/0, start_link/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

%% More of them than this gain nothing: each keeps a core busy.
-define(MAX, 8).

%% Words. The terms of one slice fit, so that each is built on the heap and copied from there once.
-define(HEAP, 8192).

%% @doc The names of these processes: one per scheduler, at most 8.
-spec names() -> [atom(), ...].
names() ->
    [name(Index) || Index <- lists:seq(1, min(?MAX, erlang:system_info(schedulers)))].

name(1) -> partisan_inbox_1;
name(2) -> partisan_inbox_2;
name(3) -> partisan_inbox_3;
name(4) -> partisan_inbox_4;
name(5) -> partisan_inbox_5;
name(6) -> partisan_inbox_6;
name(7) -> partisan_inbox_7;
name(8) -> partisan_inbox_8.

%% @doc Starts the process of this name.
-spec start_link(atom()) -> gen_server:start_ret().
start_link(Name) ->
    %% Of ordinary priority: under a flood, those whom it feeds must get their turns too.
    Options = [{spawn_opt, [{min_heap_size, ?HEAP}]}],
    gen_server:start_link({local, Name}, ?MODULE, [], Options).

%% @private
-spec init([]) -> {ok, []}.
init([]) ->
    {ok, []}.

%% @private
-spec handle_call(term(), gen_server:from(), []) -> {reply, {error, unknown}, []}.
handle_call(_, _, State) ->
    {reply, {error, unknown}, State}.

%% @private
-spec handle_cast(term(), []) -> {noreply, []}.
handle_cast(_, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), []) -> {noreply, []}.
handle_info({partisan_parcel, Parcel}, State) ->
    ok = deliver(Parcel),
    {noreply, State};
handle_info(_, State) ->
    {noreply, State}.

deliver(Parcel) ->
    progress(partisan_nif:deliver(Parcel), Parcel).

progress(done, _) ->
    ok;
progress(more, Parcel) ->
    deliver(Parcel);
progress(heavy, Parcel) ->
    ok = partisan_control:settle(),
    progress(partisan_nif:deliver_heavy(Parcel), Parcel).
