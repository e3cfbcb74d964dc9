%% @doc What a module is that data are broadcast for: a handler of `partisan_plumtree_broadcast'.
%%
%% Which broadcasts are new, and which are still to come, the native library knows by numbers of its own. So of
%% these callbacks it asks for none: each broadcast is given to `merge/2' once. `is_stale/1' and `graft/1', which
%% belong to the behaviour since handlers have them, are never called.
-module(partisan_plumtree_broadcast_handler).

%% Splits what the user broadcasts into identifier and payload. Runs in the process that broadcasts.
-callback broadcast_data(Broadcast :: term()) -> {Id :: term(), Payload :: term()}.

%% The channel for the handler's broadcasts. Told by `partisan_plumtree_broadcast:broadcast_channel/1', and
%% without effect: broadcasts travel on the default channel.
-callback broadcast_channel() -> partisan:channel().

%% Takes a payload that has arrived, and says whether it was new. Runs in the broadcast server, one after the other.
-callback merge(Id :: term(), Payload :: term()) -> boolean().

%% Whether a broadcast is known. Never called.
-callback is_stale(Id :: term()) -> boolean().

%% The payload of a broadcast that a peer misses. Never called.
-callback graft(Id :: term()) -> {ok, Payload :: term()} | stale | {error, Reason :: term()}.

%% Begins to make this node's data and a peer's the same: what was broadcast while one of them was away. A
%% process that is returned is monitored; while it lives there is no other exchange for this handler.
-callback exchange(Peer :: node()) -> {ok, pid()} | ok | ignore | {error, Reason :: term()}.

-optional_callbacks([broadcast_channel/0]).
