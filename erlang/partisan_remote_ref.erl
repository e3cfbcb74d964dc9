%% @doc Remote references: pids, references and names of other nodes as ordinary terms.
%%
%% Three formats, chosen by the configuration key `remote_ref_format'; every function takes all:
%%
%% ```
%% improper_list   [Node | <<"#Pid<0.1.2>">>]  [Node | <<"#Ref<0.1.2.3>">>]  [Node | <<"#Namex">>]
%% uri             <<"partisan:pid:Node:0.1.2">>  <<"partisan:ref:...">>  <<"partisan:name:...">>
%% tuple           {partisan_remote_ref, Node, {encoded_pid, "<0.1.2>"}}  encoded_ref encoded_name
%% '''
%% With `remote_ref_uri_padding' a URI of up to 63 bytes gets a colon and bytes 16#19, up to 65
%% bytes. A pid is written as its own node prints it, with 0 in front, and without its creation. So
%% a remote reference outlives its node's restart, and may then mean another process.
-module(partisan_remote_ref).

-export([from_term/1, from_term/2]).
-export([to_term/1, to_pid/1, to_name/1, to_pid_or_name/1, to_reference/1]).
-export([target/1, node/1, nodestring/1]).
-export([destination/1, target_destination/1, local_pid/2]).
-export([is_type/1, is_pid/1, is_reference/1, is_name/1, is_name/2]).
-export([is_local/1, is_local/2, is_local_pid/1, is_local_pid/2]).
-export([is_local_name/1, is_local_name/2, is_local_reference/1, is_local_reference/2]).
-export([is_identical/2]).

-compile({no_auto_import, [node/1, is_pid/1, is_reference/1]}).

%% The default format is one.
-dialyzer({no_improper_lists, encode/3}).

-export_type([t/0, p/0, r/0, n/0, format/0, target/0]).

-type format() :: improper_list | uri | tuple.
-type target() :: {encoded_pid | encoded_ref | encoded_name, string()}.
-type t() ::
    nonempty_improper_list(node(), binary()) | binary() | {partisan_remote_ref, node(), target()}.
-type p() :: t().
-type r() :: t().
-type n() :: t().

-define(TAG, partisan_remote_ref).
-define(URI_SIZE, 65).
-define(URI_PAD, 16#19).
%% Longest name of a node or process, in bytes: 255 characters of up to four.
-define(MAX_NAME, 1020).
%% Longest text of a pid or reference: six numbers of ten digits.
-define(MAX_NUMBERS, 65).

-type kind() :: encoded_pid | encoded_ref | encoded_name.
-type parsed() :: {node() | binary(), kind(), binary()}.
%% The last element: `0.1.2' of a pid, `0.1.2.3' of a reference, a name.

%%%-------------------------------------------------------------------------------------------
%%% Making
%%%-------------------------------------------------------------------------------------------

%% @doc The remote reference of a pid, a reference, a name on this node, or `{Name, Node}'.
-spec from_term(pid() | reference() | atom() | {atom(), node()}) -> t().
from_term(Term) when erlang:is_pid(Term) ->
    encode(encoded_pid, numbers(pid_to_list(Term)), partisan:node(Term));
from_term(Term) when erlang:is_reference(Term) ->
    encode(encoded_ref, numbers(ref_to_list(Term)), partisan:node(Term));
from_term(Term) when is_atom(Term) ->
    encode(encoded_name, atom_to_binary(Term), partisan:node());
from_term({Name, Node}) when is_atom(Name), is_atom(Node) ->
    encode(encoded_name, atom_to_binary(Name), Node).

%% @doc As `from_term/1', as if the term were of `Node'. A reference can only be of the own node;
%% error `badarg' otherwise.
-spec from_term(pid() | reference() | atom(), node()) -> t().
from_term(Term, Node) when erlang:is_pid(Term), is_atom(Node) ->
    encode(encoded_pid, numbers(pid_to_list(Term)), Node);
from_term(Term, Node) when is_atom(Term), is_atom(Node) ->
    encode(encoded_name, atom_to_binary(Term), Node);
from_term(Term, Node) when erlang:is_reference(Term), is_atom(Node) ->
    case partisan:node() of
        Node -> from_term(Term);
        _ -> error(badarg)
    end;
from_term(_, _) ->
    error(badarg).

%% "<5.166.0>" and "#Ref<5.1.2.3>" begin with this VM's number for the node; 0 is its own.
numbers(Text) ->
    [_, Tail] = string:split(Text, "<"),
    [_, Rest] = string:split(Tail, "."),
    list_to_binary(["0.", lists:droplast(Rest)]).

encode(Kind, Text, Node) ->
    case partisan_config:get(remote_ref_format, improper_list) of
        improper_list ->
            [Node | list_part(Kind, Text)];
        uri ->
            NodeText = atom_to_binary(Node),
            pad(<<"partisan:", (uri_kind(Kind))/binary, $:, NodeText/binary, $:, Text/binary>>);
        tuple ->
            {?TAG, Node, target(Kind, Text)}
    end.

list_part(encoded_pid, Text) -> <<"#Pid<", Text/binary, ">">>;
list_part(encoded_ref, Text) -> <<"#Ref<", Text/binary, ">">>;
list_part(encoded_name, Text) -> <<"#Name", Text/binary>>.

uri_kind(encoded_pid) -> <<"pid">>;
uri_kind(encoded_ref) -> <<"ref">>;
uri_kind(encoded_name) -> <<"name">>.

target(encoded_pid, Text) -> {encoded_pid, lists:flatten([$<, binary_to_list(Text), $>])};
target(encoded_ref, Text) -> {encoded_ref, lists:flatten(["#Ref<", binary_to_list(Text), $>])};
target(encoded_name, Text) -> {encoded_name, unicode:characters_to_list(Text)}.

pad(Uri) when byte_size(Uri) < ?URI_SIZE - 1 ->
    case partisan_config:get(remote_ref_uri_padding, false) of
        true ->
            Pad = binary:copy(<<?URI_PAD>>, ?URI_SIZE - byte_size(Uri) - 1),
            <<Uri/binary, $:, Pad/binary>>;
        false ->
            Uri
    end;
pad(Uri) ->
    Uri.

%%%-------------------------------------------------------------------------------------------
%%% Reading
%%%-------------------------------------------------------------------------------------------

-spec parse(term()) -> parsed() | error.
parse([Node | <<"#Pid<", Text/binary>>]) when is_atom(Node) -> closed(Node, encoded_pid, Text, 3);
parse([Node | <<"#Ref<", Text/binary>>]) when is_atom(Node) -> closed(Node, encoded_ref, Text, 2);
parse([Node | <<"#Name", Text/binary>>]) when is_atom(Node) -> name(Node, Text);
parse(<<"partisan:pid:", Text/binary>>) -> uri(encoded_pid, unpad(Text));
parse(<<"partisan:ref:", Text/binary>>) -> uri(encoded_ref, unpad(Text));
parse(<<"partisan:name:", Text/binary>>) -> uri(encoded_name, unpad(Text));
parse({?TAG, Node, Target}) when is_atom(Node) -> encoded(Node, Target);
parse(_) -> error.

encoded(Node, {encoded_pid, "<" ++ Text}) -> closed(Node, encoded_pid, to_binary(Text), 3);
encoded(Node, {encoded_ref, "#Ref<" ++ Text}) -> closed(Node, encoded_ref, to_binary(Text), 2);
encoded(Node, {encoded_name, Text}) -> name(Node, to_binary(Text));
encoded(_, _) -> error.

to_binary(Text) ->
    try unicode:characters_to_binary(Text) of
        Binary when is_binary(Binary) -> Binary;
        _ -> <<>>
    catch
        error:badarg -> <<>>
    end.

closed(Node, Kind, Text, Least) when byte_size(Text) > 1 ->
    Size = byte_size(Text) - 1,
    case Text of
        <<Numbers:Size/binary, $>>> -> counted(Node, Kind, Numbers, Least);
        _ -> error
    end;
closed(_, _, _, _) ->
    error.

counted(Node, Kind, Numbers, Least) when byte_size(Numbers) =< ?MAX_NUMBERS ->
    case count(Numbers, 0, false) of
        error -> error;
        3 when Kind =:= encoded_pid -> {Node, Kind, Numbers};
        N when Kind =:= encoded_ref, N >= Least, N =< 6 -> {Node, Kind, Numbers};
        _ -> error
    end;
counted(_, _, _, _) ->
    error.

%% How many decimal numbers between dots.
count(<<C, Rest/binary>>, N, _) when C >= $0, C =< $9 -> count(Rest, N, true);
count(<<$., Rest/binary>>, N, true) -> count(Rest, N + 1, false);
count(<<>>, N, true) -> N + 1;
count(_, _, _) -> error.

name(Node, Text) when byte_size(Text) > 0, byte_size(Text) =< ?MAX_NAME ->
    {Node, encoded_name, Text};
name(_, _) ->
    error.

%% Neither a pid nor a reference contains a colon, but the host of a node may (IPv6). A name may
%% too, so there the first colon after the node's `@' counts.
uri(encoded_name, Text) ->
    case binary:split(Text, <<"@">>) of
        [Short, Rest] when Short =/= <<>> ->
            case binary:split(Rest, <<":">>) of
                [Host, Name] when Host =/= <<>> -> name(<<Short/binary, $@, Host/binary>>, Name);
                _ -> error
            end;
        _ ->
            error
    end;
uri(Kind, Text) ->
    case binary:matches(Text, <<":">>) of
        [] ->
            error;
        Matches ->
            {At, 1} = lists:last(Matches),
            <<Node:At/binary, $:, Numbers/binary>> = Text,
            case byte_size(Node) =< ?MAX_NAME andalso binary:match(Node, <<"@">>) of
                {_, _} -> counted(Node, Kind, Numbers, 2);
                _ -> error
            end
    end.

unpad(Text) ->
    Size = byte_size(Text) - 1,
    case Text of
        <<_:Size/binary, ?URI_PAD>> -> strip(Text, Size);
        _ -> Text
    end.

strip(Text, Size) ->
    case Text of
        <<Kept:Size/binary, ?URI_PAD, _/binary>> when Size > 0 -> strip(Kept, Size - 1);
        <<Kept:Size/binary, $:, _/binary>> -> Kept;
        <<Kept:Size/binary, _/binary>> -> Kept
    end.

%%%-------------------------------------------------------------------------------------------
%%% Back to terms of this node
%%%-------------------------------------------------------------------------------------------

%% @doc The pid, reference or name that a remote reference of this node stands for. Error
%% `badarg' for one of another node, and for a name that no atom exists for.
-spec to_term(t()) -> pid() | reference() | atom().
to_term(Ref) ->
    case local(Ref) of
        {encoded_pid, Text} -> list_to_pid([$< | binary_to_list(Text)] ++ ">");
        {encoded_ref, Text} -> list_to_ref("#Ref<" ++ binary_to_list(Text) ++ ">");
        {encoded_name, Text} -> binary_to_existing_atom(Text);
        false -> badarg(Ref, to_term, "not a remote reference of this node")
    end.

%% @doc The pid that a remote reference of this node stands for; error `badarg' otherwise.
-spec to_pid(p()) -> pid().
to_pid(Ref) ->
    to(Ref, to_pid, [encoded_pid]).

%% @doc The registered name that a remote reference of this node stands for; error `badarg'
%% otherwise.
-spec to_name(n()) -> atom().
to_name(Ref) ->
    to(Ref, to_name, [encoded_name]).

%% @doc The pid or registered name that a remote reference of this node stands for; error
%% `badarg' otherwise.
-spec to_pid_or_name(p() | n()) -> pid() | atom().
to_pid_or_name(Ref) ->
    to(Ref, to_pid_or_name, [encoded_pid, encoded_name]).

%% @doc The reference that a remote reference of this node stands for; error `badarg' otherwise.
-spec to_reference(r()) -> reference().
to_reference(Ref) ->
    to(Ref, to_reference, [encoded_ref]).

to(Ref, Function, Kinds) ->
    case parse(Ref) of
        {_, Kind, _} ->
            case lists:member(Kind, Kinds) of
                true -> to_term(Ref);
                false -> badarg(Ref, Function, "a remote reference of another kind")
            end;
        error ->
            badarg(Ref, Function, "not a remote reference")
    end.

-spec badarg(term(), atom(), string()) -> no_return().
badarg(Ref, Function, Text) ->
    erlang:error(badarg, [Ref], [
        {error_info, #{function => Function, cause => #{1 => Text}}}
    ]).

local(Ref) ->
    case parse(Ref) of
        {Node, Kind, Text} ->
            case is_own(Node) of
                true -> {Kind, Text};
                false -> false
            end;
        error ->
            false
    end.

is_own(Node) when is_atom(Node) -> Node =:= partisan:node();
is_own(Node) -> Node =:= partisan:nodestring().

%%%-------------------------------------------------------------------------------------------
%%% Parts
%%%-------------------------------------------------------------------------------------------

%% @doc What a remote reference names on its node. Error `badarg' for other terms.
-spec target(t()) -> target().
target(Ref) ->
    case parse(Ref) of
        {_, Kind, Text} -> target(Kind, Text);
        error -> badarg(Ref, target, "not a remote reference")
    end.

%% @doc The node of a remote reference. Error `badarg' for other terms.
-spec node(t()) -> node().
node(Ref) ->
    case parse(Ref) of
        {Node, _, _} when is_atom(Node) -> Node;
        {Node, _, _} -> binary_to_atom(Node);
        error -> badarg(Ref, node, "not a remote reference")
    end.

%% @doc The name of the node of a remote reference. Error `badarg' for other terms.
-spec nodestring(t()) -> binary().
nodestring(Ref) ->
    case parse(Ref) of
        {Node, _, _} when is_atom(Node) -> atom_to_binary(Node);
        {Node, _, _} -> Node;
        error -> badarg(Ref, nodestring, "not a remote reference")
    end.

%% @doc Where a message to a remote reference of a pid or name goes: its node, and the destination
%% in the native library's form. `error' for anything else.
-spec destination(term()) -> {node(), partisan_nif:destination()} | error.
destination([Node | <<"#Pid<0.", Text/binary>>]) when is_atom(Node) ->
    %% The default format of the most frequent kind, in one pass.
    case scan(Text, 0) of
        {Id, <<$., Rest/binary>>} ->
            case scan(Rest, 0) of
                {Serial, <<">">>} -> {Node, {Id, Serial, 0}};
                _ -> error
            end;
        _ ->
            error
    end;
destination(Ref) ->
    case parse(Ref) of
        {_, encoded_ref, _} -> error;
        {Node, Kind, Text} when is_atom(Node) -> {Node, native(Kind, Text)};
        {Node, Kind, Text} -> {binary_to_atom(Node), native(Kind, Text)};
        error -> error
    end.

%% @doc The destination that `{encoded_pid, _}' or `{encoded_name, _}' stands for.
-spec target_destination(term()) -> partisan_nif:destination() | error.
target_destination(Target) ->
    case encoded(undefined, Target) of
        {_, Kind, Text} when Kind =/= encoded_ref -> native(Kind, Text);
        _ -> error
    end.

%% @doc The pid of this node with these numbers. Error `badarg' if there can't be one.
-spec local_pid(non_neg_integer(), non_neg_integer()) -> pid().
local_pid(Id, Serial) ->
    list_to_pid("<0." ++ integer_to_list(Id) ++ [$. | integer_to_list(Serial)] ++ ">").

native(encoded_name, Text) ->
    binary_to_atom(Text);
native(encoded_pid, Text) ->
    [_, Id, Serial] = binary:split(Text, <<".">>, [global]),
    {binary_to_integer(Id), binary_to_integer(Serial), 0}.

scan(<<C, Rest/binary>>, N) when C >= $0, C =< $9, N < 1 bsl 32 -> scan(Rest, N * 10 + C - $0);
scan(Rest, N) -> {N, Rest}.

%%%-------------------------------------------------------------------------------------------
%%% Questions
%%%-------------------------------------------------------------------------------------------

%% @doc Whether a term is a remote reference or the target of one. Never fails.
-spec is_type(term()) -> boolean().
is_type(Term) ->
    kind(Term) =/= error.

%% @doc Whether a term is a remote reference of a pid. Never fails.
-spec is_pid(term()) -> boolean().
is_pid(Term) ->
    kind(Term) =:= encoded_pid.

%% @doc Whether a term is a remote reference of a reference. Never fails.
-spec is_reference(term()) -> boolean().
is_reference(Term) ->
    kind(Term) =:= encoded_ref.

%% @doc Whether a term is a remote reference of a registered name. Never fails.
-spec is_name(term()) -> boolean().
is_name(Term) ->
    kind(Term) =:= encoded_name.

%% @doc Whether a term is a remote reference of the registered name `Name', on whatever node.
-spec is_name(term(), atom()) -> boolean().
is_name(Term, Name) when is_atom(Name) ->
    case parse_any(Term) of
        {_, encoded_name, Text} -> Text =:= atom_to_binary(Name);
        _ -> false
    end.

kind(Term) ->
    case parse_any(Term) of
        {_, Kind, _} -> Kind;
        error -> error
    end.

parse_any({_, _} = Target) -> encoded(undefined, Target);
parse_any(Term) -> parse(Term).

%% @doc Whether a remote reference is of this node. Error `{badarg, Term}' for other terms.
-spec is_local(t()) -> boolean().
is_local(Ref) ->
    case parse(Ref) of
        {Node, _, _} -> is_own(Node);
        error -> error({badarg, Ref})
    end.

%% @doc Whether a remote reference is of `Node'. Error `badarg' for other terms.
-spec is_local(t(), node()) -> boolean().
is_local(Ref, Node) when is_atom(Node) ->
    case parse(Ref) of
        {Node, _, _} -> true;
        {Text, _, _} when is_binary(Text) -> Text =:= atom_to_binary(Node);
        {_, _, _} -> false;
        error -> error(badarg)
    end.

%% @doc Whether a remote reference is of a pid of this node; false for other kinds and terms.
-spec is_local_pid(term()) -> boolean().
is_local_pid(Ref) ->
    is_local_kind(Ref, encoded_pid).

%% @doc Whether a remote reference stands for this pid of this node, by number or by its
%% registered name.
-spec is_local_pid(term(), pid()) -> boolean().
is_local_pid(Ref, Pid) when erlang:is_pid(Pid) ->
    case local(Ref) of
        {encoded_pid, Text} ->
            erlang:node(Pid) =:= erlang:node() andalso Text =:= numbers(pid_to_list(Pid));
        {encoded_name, Text} ->
            registered(Text) =:= Pid;
        _ ->
            false
    end.

%% @doc Whether a remote reference is of a name of this node; false for other kinds and terms.
-spec is_local_name(term()) -> boolean().
is_local_name(Ref) ->
    is_local_kind(Ref, encoded_name).

%% @doc Whether a remote reference stands for this name on this node.
-spec is_local_name(term(), atom()) -> boolean().
is_local_name(Ref, Name) when is_atom(Name) ->
    local(Ref) =:= {encoded_name, atom_to_binary(Name)}.

%% @doc Whether a remote reference is of a reference of this node; false for other kinds and
%% terms.
-spec is_local_reference(term()) -> boolean().
is_local_reference(Ref) ->
    is_local_kind(Ref, encoded_ref).

%% @doc Whether a remote reference stands for this reference of this node.
-spec is_local_reference(term(), reference()) -> boolean().
is_local_reference(Ref, Term) when erlang:is_reference(Term) ->
    erlang:node(Term) =:= erlang:node() andalso
        local(Ref) =:= {encoded_ref, numbers(ref_to_list(Term))}.

is_local_kind(Ref, Kind) ->
    case local(Ref) of
        {Kind, _} -> true;
        _ -> false
    end.

%% @doc Whether two remote references mean the same thing: the same target of the same node, in
%% whatever formats, or a pid of this node and a name that it is registered under. Error `badarg'
%% for other terms.
-spec is_identical(t(), t()) -> boolean().
is_identical(Ref, Ref) ->
    parse(Ref) =/= error orelse error(badarg);
is_identical(A, B) ->
    case {parse(A), parse(B)} of
        {error, _} -> error(badarg);
        {_, error} -> error(badarg);
        {{_, Kind, Text}, {_, Kind, Text}} -> nodestring(A) =:= nodestring(B);
        {{_, encoded_pid, _}, {_, encoded_name, Name}} -> is_registered(A, B, Name);
        {{_, encoded_name, Name}, {_, encoded_pid, _}} -> is_registered(B, A, Name);
        _ -> false
    end.

is_registered(Pid, NameRef, Name) ->
    is_local(Pid) andalso is_local(NameRef) andalso to_term(Pid) =:= registered(Name).

registered(Text) ->
    try
        whereis(binary_to_existing_atom(Text))
    catch
        error:badarg -> undefined
    end.
