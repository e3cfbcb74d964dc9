%% @doc An overlay of your own, in Erlang: each node has links to the next greater and the next lesser name.
%%
%% All nodes know all. Of each they have a version, which is the time of its start, and whether it is there; who learns
%% something new tells its neighbours. A node that has failed is tried again now and then; if it is there after all, it
%% says so itself, with a greater version. One that has left is not.
-module(ring_strategy).
-behaviour(partisan_membership_strategy).

-export([init/1, join/3, leave/2, periodic/1, handle_message/2, node_down/2]).

%% The greater of two entries is the truth.
-type entry() :: {Version :: integer(), alive | gone | left, partisan:node_spec()}.
-type known() :: #{node() => entry()}.

%% @private
-spec init(binary()) -> {ok, [partisan:node_spec()], known()}.
init(_Actor) ->
    #{name := Own} = Spec = partisan:node_spec(),
    {ok, [Spec], #{Own => {erlang:system_time(), alive, Spec}}}.

%% @private
-spec join(partisan:node_spec(), known(), known()) -> partisan_membership_strategy:result().
join(_Spec, Theirs, Known) ->
    learn(Theirs, Known).

%% @private
-spec handle_message({known, known()}, known()) -> partisan_membership_strategy:result().
handle_message({known, Theirs}, Known) ->
    learn(Theirs, Known).

%% @private
-spec leave(partisan:node_spec(), known()) -> partisan_membership_strategy:result().
leave(#{name := Node}, Known) ->
    learn(changed(Node, left, Known), Known).

%% @private
-spec node_down(node(), known()) -> partisan_membership_strategy:result().
node_down(Node, Known) ->
    learn(changed(Node, gone, Known), Known).

%% @private
-spec periodic(known()) -> partisan_membership_strategy:result().
periodic(Known) ->
    Gone = [Spec || {_, gone, Spec} <- maps:values(Known)],
    Tried = [lists:nth(rand:uniform(length(Gone)), Gone) || Gone =/= []],
    {ok, neighbors(Known), [{Spec, {known, Known}} || Spec <- Tried], Known}.

%% Takes what is new, and tells it on.
learn(Theirs, Known) ->
    case alive(maps:merge_with(fun(_, A, B) -> max(A, B) end, Known, Theirs)) of
        Known ->
            {ok, neighbors(Known), [], Known};
        Changed ->
            Own = partisan:node(),
            To = [Node || #{name := Node} <- lists:usort(neighbors(Known) ++ neighbors(Changed)), Node =/= Own],
            {ok, neighbors(Changed), [{Node, {known, Changed}} || Node <- To], Changed}
    end.

%% Who hears that it has failed knows better.
alive(Known) ->
    Own = partisan:node(),
    case Known of
        #{Own := {Version, gone, Spec}} -> Known#{Own := {Version + 1, alive, Spec}};
        #{} -> Known
    end.

changed(Node, Status, Known) ->
    case Known of
        #{Node := {Version, _, Spec}} -> #{Node => {Version, Status, Spec}};
        #{} -> #{}
    end.

%% The next and the previous name, where the first follows the last, and this node unless it was removed.
neighbors(Known) ->
    Own = partisan:node(),
    Specs = lists:keysort(1, [{Node, Spec} || {Node, {_, alive, Spec}} <- maps:to_list(Known)]),
    {Before, From} = lists:splitwith(fun({Node, _}) -> Node < Own end, Specs),
    case From of
        [{Own, Spec} | After] ->
            Ring = [S || {_, S} <- After ++ Before],
            lists:usort([Spec | lists:sublist(Ring, 1) ++ lists:nthtail(max(0, length(Ring) - 1), Ring)]);
        _ ->
            []
    end.
