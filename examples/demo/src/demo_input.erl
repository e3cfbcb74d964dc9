%% What travels: every .beam and every file over 100 KB of the OTP installation, as it is and packed into 8 MB binaries.
-module(demo_input).

-export([load/0, bytes/1, digests/1, verify/2]).

-include_lib("kernel/include/file.hrl").

-define(ENOUGH_BYTES, 500_000_000).
-define(LARGE_FILE, 100_000).
-define(PACK_BYTES, (8 bsl 20)).

-type input() :: #{distinct := [binary()], files := [binary()], packed := [binary()], bytes := pos_integer()}.

-spec load() -> input().
load() ->
    Distinct = [Bin || Path <- lists:sort(paths(code:root_dir())), {ok, Bin} <- [file:read_file(Path)]],
    Times = ?ENOUGH_BYTES div bytes(Distinct) + 1,
    Files = lists:append(lists:duplicate(Times, Distinct)),
    #{distinct => Distinct, files => Files, packed => pack(iolist_to_binary(Files)), bytes => bytes(Files)}.

-spec bytes([binary()]) -> non_neg_integer().
bytes(Items) ->
    lists:sum([byte_size(Item) || Item <- Items]).

%% The SHA-256 of each, in order, computed on all schedulers.
-spec digests([binary()]) -> [binary()].
digests(Items) ->
    Share = length(Items) div erlang:system_info(schedulers_online) + 1,
    Workers = [spawn_monitor(fun() -> exit({digests, [crypto:hash(sha256, Item) || Item <- Part]}) end)
               || Part <- split(Items, Share)],
    lists:append([receive {'DOWN', Monitor, process, _, {digests, Part}} -> Part end || {_, Monitor} <- Workers]).

%% `Received` is in the order of arrival.
-spec verify([{non_neg_integer(), binary()}], [binary()]) -> ok | {error, string()}.
verify(Received, Expected) ->
    {Numbers, Items} = lists:unzip(Received),
    InOrder = Numbers =:= lists:seq(0, length(Received) - 1),
    if
        length(Received) =/= length(Expected) ->
            {error, io_lib:format("~b of ~b arrived", [length(Received), length(Expected)])};
        not InOrder ->
            {error, "the order was not kept"};
        true ->
            case digests(Items) of
                Expected ->
                    ok;
                Digests ->
                    Wrong = [N || {N, Got, Want} <- lists:zip3(Numbers, Digests, Expected), Got =/= Want],
                    {error, io_lib:format("wrong SHA-256 of messages ~w", [lists:sublist(Wrong, 10)])}
            end
    end.

paths(Directory) ->
    {ok, Names} = file:list_dir(Directory),
    lists:append([entry(filename:join(Directory, Name)) || Name <- Names]).

entry(Path) ->
    case file:read_link_info(Path) of
        {ok, #file_info{type = directory}} ->
            paths(Path);
        {ok, #file_info{type = regular, size = Size}} ->
            [Path || Size > ?LARGE_FILE orelse filename:extension(Path) =:= ".beam"];
        _ ->
            []
    end.

%% Copies, so that each message is a binary of its own and not a window on one large binary.
pack(<<Item:?PACK_BYTES/binary, Rest/binary>>) -> [binary:copy(Item) | pack(Rest)];
pack(<<>>) -> [];
pack(Rest) -> [binary:copy(Rest)].

split([], _) -> [];
split(Items, Share) when length(Items) =< Share -> [Items];
split(Items, Share) ->
    {Part, Rest} = lists:split(Share, Items),
    [Part | split(Rest, Share)].
