%% What messages carry: the first bytes of one file of random bytes that both ends read.
-module(bench_payload).

-export([load/2, get/1, matches/3, equals/2]).

%% Bytes that are compared of a large message.
-define(WINDOW, 64).
%% Up to this size a message is compared as a whole.
-define(SMALL, 4096).

%% Binaries over 64 bytes are made reference-counted ones of their own: nothing of the file is kept.
-spec load(file:filename_all(), [pos_integer()]) -> ok.
load(Path, Sizes) ->
    {ok, All} = file:read_file(Path),
    lists:foreach(
        fun(Size) -> persistent_term:put({?MODULE, Size}, binary:copy(binary:part(All, 0, Size))) end,
        Sizes
    ).

-spec get(pos_integer()) -> binary().
get(Size) ->
    persistent_term:get({?MODULE, Size}).

%% Cheap enough for every message: a small one is compared whole, of a large one 64 bytes, at a place that moves with
%% the message's number.
-spec matches(binary(), binary(), non_neg_integer()) -> boolean().
matches(Bin, Expected, _) when byte_size(Expected) =< ?SMALL ->
    Bin =:= Expected;
matches(Bin, Expected, N) when byte_size(Bin) =:= byte_size(Expected) ->
    At = (N + 1) * 1000003 rem (byte_size(Expected) - ?WINDOW + 1),
    <<_:At/binary, Got:?WINDOW/binary, _/binary>> = Bin,
    <<_:At/binary, Want:?WINDOW/binary, _/binary>> = Expected,
    Got =:= Want;
matches(_, _, _) ->
    false.

%% For a message that was kept until the clock had stopped.
-spec equals(binary(), binary()) -> boolean().
equals(Bin, Expected) ->
    byte_size(Bin) =:= byte_size(Expected) andalso erlang:crc32(Bin) =:= erlang:crc32(Expected).
