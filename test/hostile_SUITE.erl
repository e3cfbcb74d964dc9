%% @doc What hostile, broken and unlucky peers send to a node, and what it costs the node: bounded
%% memory and time, one line in the log, and nothing to its other peers.
%%
%% Node `a' is the victim; `b' is its peer, and after every case the two must still exchange
%% messages. The attacker is {@link partisan_raw}, which is written from `docs/internals.md'.
-module(hostile_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-compile([export_all, nowarn_export_all]).

%% Memory that the node may have more after a case than before the first, in bytes.
-define(SLACK, 200 bsl 20).

suite() -> [{timetrap, {seconds, 180}}].

all() ->
    [
        %% before and inside the handshake
        garbage_before_handshake, http_request, packet_of_65535, empty_packet, garbage_inside_handshake,
        bad_node_name, slow_loris, half_open_by_the_hundred, wrong_cookie, replayed_digest,
        stock_peer, later_trailer, impostor_of_connected_peer, gone_at_every_step,
        %% further connections
        extra_wrong_proof, extra_unknown_session, extra_index_0, extra_index_twice,
        extra_index_out_of_range, extra_of_other_name,
        %% setting up a session
        hello_too_long, hello_malformed, hello_1000_channels, hello_parallelism_65535,
        hello_then_silence, ready_never_sent,
        %% frames
        garbage_frames, frame_of_4_gib, frame_of_no_bytes, unknown_kind, kind_out_of_place,
        first_of_2_to_63, blob_of_4_gib, blob_without_bytes, streams_by_the_thousand,
        more_of_unknown_stream, stream_begun_twice, fragment_longer_than_message,
        blobs_not_adding_up, ping_flood, never_reads,
        %% terms
        tuples_nested_10000, atoms_by_the_million, compressed_bomb, list_of_nils, trailing_bytes,
        atom_not_utf8, fun_of_wrong_size, head_with_unknown_flags,
        %% destinations
        names_that_do_not_exist, pid_of_other_creation,
        %% membership
        membership_garbage, membership_megabyte, membership_of_a_million, membership_of_another,
        membership_before_hello, membership_by_stranger
    ].

init_per_suite(Config) ->
    A = partisan_ct:start('hostile_a@127.0.0.1'),
    B = partisan_ct:start('hostile_b@127.0.0.1'),
    ok = partisan_ct:join(B, A),
    ok = partisan_ct:call(A, ?MODULE, install, []),
    ok = partisan_ct:call(B, ?MODULE, collect, []),
    [{a, A}, {b, B}, {memory, memory(A)} | Config].

end_per_suite(Config) ->
    partisan_ct:stop(?config(a, Config)),
    partisan_ct:stop(?config(b, Config)).

init_per_testcase(Case, Config) ->
    A = ?config(a, Config),
    partisan_ct:call(A, ?MODULE, forget, []),
    Name = list_to_atom(atom_to_list(Case) ++ "@127.0.0.1"),
    [{raw, partisan_raw:new(maps:get(port, A), Name)}, {name, Name} | Config].

%% Proves that the pair and the node are well, whatever the case did.
end_per_testcase(_, Config) ->
    try
        ok = partisan_ct:call(?config(a, Config), ?MODULE, level, [notice]),
        exchange(Config),
        {VmMemory, Rss} = memory(?config(a, Config)),
        {Vm0, Rss0} = ?config(memory, Config),
        ?assert(VmMemory < Vm0 + ?SLACK, {vm, VmMemory bsr 20, Vm0 bsr 20}),
        ?assert(Rss < Rss0 + ?SLACK, {rss, Rss bsr 20, Rss0 bsr 20}),
        ok
    catch
        _:Reason -> {fail, Reason}
    end.

%% ---------------------------------------------------------------------------------------------
%% Before and inside the handshake

garbage_before_handshake(Config) ->
    Raw = partisan_raw:connect(?config(raw, Config)),
    _ = partisan_raw:send(Raw, [255, rand:bytes(10000)]),
    ?assert(partisan_raw:closed(Raw)),
    one_line(Config, "handshake packet of").

http_request(Config) ->
    Raw = partisan_raw:connect(?config(raw, Config)),
    _ = partisan_raw:send(Raw, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ?assert(partisan_raw:closed(Raw)),
    one_line(Config, "handshake packet of 18245").

packet_of_65535(Config) ->
    Raw = partisan_raw:connect(?config(raw, Config)),
    _ = partisan_raw:send(Raw, <<65535:16, 0:(65535 * 8)>>),
    ?assert(partisan_raw:closed(Raw)),
    one_line(Config, "handshake packet of 65535").

empty_packet(Config) ->
    Raw = partisan_raw:connect(?config(raw, Config)),
    ok = partisan_raw:send(Raw, <<0:16>>),
    ?assert(partisan_raw:closed(Raw)),
    one_line(Config, "malformed name packet").

garbage_inside_handshake(Config) ->
    Raw0 = ?config(raw, Config),
    Raw = partisan_raw:connect(Raw0),
    Trailer = <<"PTSN", 1, 30:16, 0:32, 1, 0, 77:64, 0:128>>,
    Name = partisan_raw:name(Raw, Trailer),
    ok = partisan_raw:send(Raw, [<<(byte_size(Name)):16>>, Name]),
    {ok, <<"sok">>} = partisan_raw:read_packet(Raw),
    {ok, <<"N", _/binary>>} = partisan_raw:read_packet(Raw),
    ok = partisan_raw:send(Raw, [<<500:16>>, rand:bytes(500)]),
    ?assert(partisan_raw:closed(Raw)),
    one_line(Config, "handshake failed").

bad_node_name(Config) ->
    Raw = partisan_raw:connect((?config(raw, Config))#{name => <<"no host\n\e[31m">>}),
    Name = partisan_raw:name(Raw, <<>>),
    ok = partisan_raw:send(Raw, [<<(byte_size(Name)):16>>, Name]),
    ?assert(partisan_raw:closed(Raw)),
    Line = one_line(Config, "calls itself"),
    %% What the peer said can't act on a terminal.
    ?assertEqual(nomatch, re:run(Line, "[\\x00-\\x1f]")).

slow_loris(Config) ->
    Raw = partisan_raw:connect(?config(raw, Config)),
    Start = erlang:monotonic_time(millisecond),
    Name = partisan_raw:name(Raw, <<>>),
    Drip = fun Drip(<<Byte, Rest/binary>>) ->
        case partisan_raw:send(Raw, <<Byte>>) of
            ok -> partisan_raw:closed(Raw, 1000) orelse Drip(Rest);
            _ -> true
        end
    end,
    true = Drip(<<(byte_size(Name)):16, Name/binary>>),
    Took = erlang:monotonic_time(millisecond) - Start,
    ?assert(Took >= 4500 andalso Took < 6500, Took),
    one_line(Config, "took too long in the handshake").

half_open_by_the_hundred(Config) ->
    Raw = ?config(raw, Config),
    Start = erlang:monotonic_time(millisecond),
    All = [partisan_raw:connect(Raw) || _ <- lists:seq(1, 300)],
    exchange(Config),
    %% While others wait those who say nothing have 750 ms: whoever comes behind all of them gets in
    %% after three times that.
    Friend = partisan_raw:new(maps:get(port, ?config(a, Config)), 'half_open_friend@127.0.0.1'),
    {ok, Up} = partisan_raw:session(Friend),
    partisan_raw:close(Up),
    Took = erlang:monotonic_time(millisecond) - Start,
    ?assert(Took < 4500, Took),
    %% All are closed within their time.
    ?assert(lists:all(fun(R) -> partisan_raw:closed(R, 8000) end, All)),
    Lines = lines(Config),
    ?assert(length(Lines) >= 1 andalso length(Lines) =< 2, Lines).

wrong_cookie(Config) ->
    {error, closed} = partisan_raw:shake((?config(raw, Config))#{cookie => <<"another">>}),
    one_line(Config, "has another cookie").

replayed_digest(Config) ->
    {ok, #{reply := Reply} = Heard} = partisan_raw:shake(?config(raw, Config)),
    partisan_raw:close(Heard),
    timer:sleep(200),
    partisan_ct:call(?config(a, Config), ?MODULE, forget, []),
    Raw = partisan_raw:connect(?config(raw, Config)),
    Name = partisan_raw:name(Raw, <<"PTSN", 1, 30:16, 0:32, 1, 0, 78:64, 0:128>>),
    ok = partisan_raw:send(Raw, [<<(byte_size(Name)):16>>, Name]),
    {ok, <<"sok">>} = partisan_raw:read_packet(Raw),
    {ok, <<"N", _/binary>>} = partisan_raw:read_packet(Raw),
    ok = partisan_raw:send(Raw, [<<(byte_size(Reply)):16>>, Reply]),
    ?assert(partisan_raw:closed(Raw)),
    at_most_one_line(Config).

stock_peer(Config) ->
    Raw = partisan_raw:connect(?config(raw, Config)),
    Name = partisan_raw:name(Raw, <<>>),
    ok = partisan_raw:send(Raw, [<<(byte_size(Name)):16>>, Name]),
    ?assertEqual({ok, <<"snot_allowed">>}, partisan_raw:read_packet(Raw)),
    ?assert(partisan_raw:closed(Raw)),
    one_line(Config, "runs no Partisan").

%% Not hostile: a later release says more than we know.
later_trailer(Config) ->
    Raw = (?config(raw, Config))#{capabilities => 16#ffffffff, trailer_tail => <<"and more">>},
    {ok, Up} = partisan_raw:session(Raw, [{<<"undefined">>, 2}, {<<"new">>, 3}]),
    ok = partisan_raw:send(Up, partisan_raw:message(hostile_inbox, term_to_binary(hello))),
    ok = received(Config, hello),
    partisan_raw:close(Up),
    [] = lines(Config).

impostor_of_connected_peer(Config) ->
    Raw = (?config(raw, Config))#{name => atom_to_binary(partisan_ct:name(?config(b, Config)))},
    ?assertEqual({error, <<"not_allowed">>}, partisan_raw:shake(Raw)),
    one_line(Config, "duplicate name").

gone_at_every_step(Config) ->
    Raw = ?config(raw, Config),
    %% In every place of the handshake, of the set-up and of a large message.
    _ = [
        begin
            C = partisan_raw:connect(Raw),
            Name = partisan_raw:name(C, <<"PTSN", 1, 30:16, 0:32, 1, 0, Cut:64, 0:128>>),
            Packet = <<(byte_size(Name)):16, Name/binary>>,
            ok = partisan_raw:send(C, binary:part(Packet, 0, min(Cut, byte_size(Packet)))),
            reset(C)
        end
     || Cut <- lists:seq(0, 110, 5)
    ],
    {ok, Shaken} = partisan_raw:shake(Raw),
    reset(Shaken),
    {ok, Greeting} = partisan_raw:shake(Raw),
    ok = partisan_raw:send(Greeting, <<0, 0, 0, 9, 6, 1>>),
    reset(Greeting),
    {ok, Half} = partisan_raw:shake(Raw),
    {ok, _} = partisan_raw:say_hello(Half, [{<<"undefined">>, 8}]),
    {ok, _} = partisan_raw:extra(Half, 1, fun(Mac) -> Mac end),
    reset(Half),
    _ = [
        begin
            {ok, Up} = session(Raw),
            Blob = rand:bytes(100000),
            Message = partisan_raw:elided(hostile_inbox, <<131, $m, 100000:32>>, Blob),
            Frame = iolist_to_binary(partisan_raw:first(1, byte_size(Message), Message)),
            ok = partisan_raw:send(Up, binary:part(Frame, 0, Cut)),
            reset(Up),
            ok = disconnected(Config)
        end
     || Cut <- [1, 4, 5, 17, 20, 40, 50, 70, 50000, 100000]
    ],
    %% One for the address, one for the name.
    ?assert(length(lines(Config)) =< 2, lines(Config)).

reset(#{socket := Socket} = Raw) ->
    ok = inet:setopts(Socket, [{linger, {true, 0}}]),
    partisan_raw:close(Raw).

%% ---------------------------------------------------------------------------------------------
%% Further connections

extra_wrong_proof(Config) ->
    bad_extra(Config, 1, fun(_) -> <<0:256>> end).

%% That is the first connection's.
extra_index_0(Config) ->
    bad_extra(Config, 0, fun(Mac) -> Mac end).

bad_extra(Config, Index, Spoil) ->
    {ok, Raw} = partisan_raw:shake(?config(raw, Config)),
    {ok, Total} = partisan_raw:say_hello(Raw, [{<<"undefined">>, 2}]),
    {error, closed} = partisan_raw:extra(Raw, Index, Spoil),
    %% It has no effect on the session that it wanted to enter.
    Ok = fun(Mac) -> Mac end,
    _ = [{ok, _} = partisan_raw:extra(Raw, I, Ok) || I <- lists:seq(1, Total - 1)],
    {ok, 7, <<>>} = partisan_raw:read_frame(Raw),
    partisan_raw:close(Raw),
    one_line(Config, "did not prove").

extra_unknown_session(Config) ->
    Raw = ?config(raw, Config),
    {ok, Extra} = partisan_raw:extra(Raw#{id => rand:bytes(16)}, 1, fun(Mac) -> Mac end),
    ?assert(partisan_raw:closed(Extra)),
    one_line(Config, "not being set up").

extra_index_twice(Config) -> bad_index(Config, [1, 1]).

extra_index_out_of_range(Config) -> bad_index(Config, [999]).

bad_index(Config, Indices) ->
    {ok, Raw} = partisan_raw:shake(?config(raw, Config)),
    {ok, _} = partisan_raw:say_hello(Raw, [{<<"undefined">>, 8}]),
    Ok = fun(Mac) -> Mac end,
    _ = [partisan_raw:extra(Raw, Index, Ok) || Index <- Indices],
    ?assert(partisan_raw:closed(Raw)),
    ok = disconnected(Config),
    one_line(Config, "").

extra_of_other_name(Config) ->
    {ok, Raw} = partisan_raw:shake(?config(raw, Config)),
    {ok, _} = partisan_raw:say_hello(Raw, [{<<"undefined">>, 8}]),
    _ = partisan_raw:extra(Raw#{name => <<"other@127.0.0.1">>}, 1, fun(Mac) -> Mac end),
    ?assert(partisan_raw:closed(Raw)),
    ok = disconnected(Config),
    one_line(Config, "other@127.0.0.1").

%% ---------------------------------------------------------------------------------------------
%% Setting up a session

hello_too_long(Config) -> bad_hello(Config, <<70000:32, 6, 0:(70000 * 8)>>).

hello_malformed(Config) -> bad_hello(Config, partisan_raw:frame(6, <<1, 3:16, 200, "short">>)).

hello_1000_channels(Config) ->
    Channels = [{integer_to_binary(N), 1} || N <- lists:seq(1, 1000)],
    bad_hello(Config, partisan_raw:frame(6, partisan_raw:hello(Channels))).

bad_hello(Config, Frame) ->
    {ok, Raw} = partisan_raw:shake(?config(raw, Config)),
    _ = partisan_raw:send(Raw, Frame),
    ?assert(partisan_raw:closed(Raw)),
    ok = disconnected(Config),
    one_line(Config, "session did not come up").

%% It is capped, by both ends alike.
hello_parallelism_65535(Config) ->
    {ok, Up} = partisan_raw:session(?config(raw, Config), [{<<"undefined">>, 65535}]),
    ?assert(length(maps:get(sockets, Up)) < 300),
    ok = partisan_raw:send(Up, partisan_raw:message(hostile_inbox, term_to_binary(many))),
    ok = received(Config, many),
    partisan_raw:close(Up),
    ok = disconnected(Config).

hello_then_silence(Config) ->
    {ok, Raw} = partisan_raw:shake(?config(raw, Config)),
    {ok, _} = partisan_raw:say_hello(Raw, [{<<"undefined">>, 4}]),
    ?assert(partisan_raw:closed(Raw, 12000)),
    one_line(Config, "session did not come up").

%% This time the node is the dialler.
ready_never_sent(Config) ->
    {A, Name} = {?config(a, Config), ?config(name, Config)},
    {Listener, Port} = partisan_raw:listen(),
    Spec = #{name => Name, listen_addrs => [#{ip => {127, 0, 0, 1}, port => Port}], channels => #{}},
    ok = partisan_ct:call(A, partisan_peer_service, join, [Spec]),
    {ok, 0, First} = partisan_raw:accept(Listener, ?config(raw, Config), 5000),
    {ok, Total} = partisan_raw:say_hello(First, [{<<"undefined">>, 1}]),
    _ = [{ok, 1, _} = partisan_raw:accept(Listener, ?config(raw, Config), 5000) || _ <- lists:seq(2, Total)],
    ?assert(partisan_raw:closed(First, 12000)),
    ok = gen_tcp:close(Listener),
    _ = partisan_ct:call(A, partisan_peer_service, leave, [Spec]),
    one_line(Config, "took too long in binding").

%% ---------------------------------------------------------------------------------------------
%% Frames

garbage_frames(Config) -> refused(Config, [255, rand:bytes(20000)], "frame of").

frame_of_4_gib(Config) -> refused(Config, <<16#ffffffff:32, 1, 0:800>>, "frame of 4294967295").

frame_of_no_bytes(Config) -> refused(Config, <<0:32>>, "frame of 0").

unknown_kind(Config) -> refused(Config, partisan_raw:frame(77, "x"), "kind 77").

kind_out_of_place(Config) -> refused(Config, partisan_raw:frame(7, ""), "Ready").

first_of_2_to_63(Config) -> refused(Config, partisan_raw:first(1, 1 bsl 63, "x"), "max_message_bytes").

blob_of_4_gib(Config) ->
    Message = partisan_raw:elided(hostile_inbox, <<131, $m, 16#ffffffff:32>>, <<>>),
    refused(Config, partisan_raw:first(1, 1 bsl 31, Message), "add up").

%% Two GiB are allowed; the node waits for them, but takes no memory for what it only heard of.
blob_without_bytes(Config) ->
    {ok, Up} = session(?config(raw, Config)),
    Total = 1 bsl 31,
    Fixed = byte_size(partisan_raw:elided(hostile_inbox, <<131, $m, 0:32>>, <<>>)),
    Message = partisan_raw:elided(hostile_inbox, <<131, $m, (Total - Fixed):32>>, <<>>),
    Before = memory(?config(a, Config)),
    ok = partisan_raw:send(Up, partisan_raw:first(1, Total, Message)),
    ok = partisan_raw:send(Up, partisan_raw:more(1, binary:copy(<<1>>, 500000))),
    ok = partisan_raw:send(Up, partisan_raw:message(hostile_inbox, term_to_binary(beside))),
    ok = received(Config, beside),
    {Vm, Rss} = memory(?config(a, Config)),
    ?assert(Vm - element(1, Before) < 40 bsl 20),
    ?assert(Rss - element(2, Before) < 40 bsl 20),
    partisan_raw:close(Up),
    ok = disconnected(Config),
    at_most_one_line(Config).

streams_by_the_thousand(Config) ->
    Frames = [partisan_raw:first(N, 100, <<0, 40>>) || N <- lists:seq(1, 10000)],
    refused(Config, Frames, "unfinished messages").

more_of_unknown_stream(Config) -> refused(Config, partisan_raw:more(5, "x"), "unknown message 5").

stream_begun_twice(Config) ->
    First = partisan_raw:first(5, 100, <<0, 40>>),
    refused(Config, [First, First], "begins twice").

fragment_longer_than_message(Config) ->
    Head = partisan_raw:name_dest(hostile_inbox),
    Message = <<Head/binary, (term_to_binary(long))/binary>>,
    refused(Config, partisan_raw:first(1, byte_size(Message), [Message, "more"]), "").

blobs_not_adding_up(Config) ->
    Message = partisan_raw:elided(hostile_inbox, <<131, $m, 20000:32>>, <<0:(19999 * 8)>>),
    refused(Config, partisan_raw:first(1, byte_size(Message), Message), "add up").

%% The answers that are never read do not pile up.
ping_flood(Config) ->
    {ok, #{socket := Socket} = Up} = session(?config(raw, Config)),
    Pings = binary:copy(iolist_to_binary(partisan_raw:frame(4, <<1:64>>)), 10000),
    Self = self(),
    Flooder = spawn_link(fun() ->
        _ = [ok = gen_tcp:send(Socket, Pings) || _ <- lists:seq(1, 100)],
        Self ! {self(), done}
    end),
    receive {Flooder, done} -> ok after 60000 -> error(stuck) end,
    exchange(Config),
    %% Still a session, once its answers are read.
    ok = partisan_raw:send(Up, partisan_raw:message(hostile_inbox, term_to_binary(after_pings))),
    ok = received(Config, after_pings),
    partisan_raw:close(Up),
    ok = disconnected(Config),
    at_most_one_line(Config).

never_reads(Config) ->
    A = ?config(a, Config),
    {ok, Up} = session(?config(raw, Config)),
    Name = ?config(name, Config),
    {Sent, Queued} = partisan_ct:call(A, ?MODULE, fill, [Name]),
    ct:pal("~b MiB sent until busy, ~b bytes queued", [Sent, Queued]),
    ?assert(Queued =< (16 bsl 20) + (2 bsl 20), Queued),
    exchange(Config),
    partisan_raw:close(Up),
    ok = disconnected(Config),
    partisan_ct:wait(fun() -> partisan_ct:call(A, partisan_nif, queued, []) < 100000 end),
    at_most_one_line(Config).

%% ---------------------------------------------------------------------------------------------
%% Terms

tuples_nested_10000(Config) ->
    Term = [131, lists:duplicate(10000, <<$h, 1>>), $j],
    refused(Config, partisan_raw:message(hostile_inbox, Term), "nest").

%% A million new atoms, by one peer that comes back again and again, and by others.
atoms_by_the_million(Config) ->
    A = ?config(a, Config),
    Before = partisan_ct:call(A, erlang, system_info, [atom_count]),
    Attack = fun(Raw, Round) ->
        case session(Raw) of
            {ok, #{socket := Socket} = Up} ->
                Tag = integer_to_list(Round),
                _ = [gen_tcp:send(Socket, atoms(Tag, N)) || N <- lists:seq(1, 100)],
                true = partisan_raw:closed(Up, 10000),
                partisan_raw:close(Up);
            _ ->
                ok
        end
    end,
    Raw = ?config(raw, Config),
    _ = [Attack(Raw, R) || R <- lists:seq(1, 3)],
    Once = partisan_ct:call(A, erlang, system_info, [atom_count]) - Before,
    ct:pal("~b atoms by one peer in three sessions", [Once]),
    ?assert(Once =< 101000, Once),
    Others = [partisan_raw:new(maps:get(port, A), list_to_atom("atoms" ++ integer_to_list(R) ++ "@h")) || R <- lists:seq(4, 9)],
    _ = [Attack(Other, R) || {Other, R} <- lists:zip(Others, lists:seq(4, 9))],
    After = partisan_ct:call(A, erlang, system_info, [atom_count]) - Before,
    ct:pal("~b atoms by seven peers", [After]),
    ?assert(After =< 410000, After),
    ?assert(length(lines(Config)) =< 9).

%% A list of 1,500 atoms nobody has heard of.
atoms(Tag, N) ->
    Atoms = [
        begin
            Text = iolist_to_binary(["hostile_", Tag, $_, integer_to_list(N * 1500 + I)]),
            <<$w, (byte_size(Text)), Text/binary>>
        end
     || I <- lists:seq(1, 1500)
    ],
    partisan_raw:message(hostile_inbox, [131, $l, <<1500:32>>, Atoms, $j]).

compressed_bomb(Config) ->
    Bomb = term_to_binary(binary:copy(<<0>>, 200000000), [{compressed, 9}]),
    ?assert(byte_size(Bomb) < 200000),
    refused(Config, partisan_raw:message(hostile_inbox, Bomb), "ompressed").

list_of_nils(Config) ->
    {ok, Up} = session(?config(raw, Config)),
    Size = 20000000,
    Head = partisan_raw:name_dest(hostile_inbox),
    Term = <<131, $l, Size:32, (binary:copy(<<$j>>, Size))/binary, $j>>,
    Message = <<Head/binary, Term/binary>>,
    <<Start:1000000/binary, Rest/binary>> = Message,
    _ = partisan_raw:send(Up, partisan_raw:first(1, byte_size(Message), Start)),
    Cut = fun
        Cut(<<Piece:1000000/binary, More/binary>>) ->
            _ = partisan_raw:send(Up, partisan_raw:more(1, Piece)),
            Cut(More);
        Cut(Piece) ->
            _ = partisan_raw:send(Up, partisan_raw:more(1, Piece))
    end,
    _ = Cut(Rest),
    ?assert(partisan_raw:closed(Up, 10000)),
    ok = disconnected(Config),
    one_line(Config, "max_term_heap").

trailing_bytes(Config) ->
    refused(Config, partisan_raw:message(hostile_inbox, [term_to_binary(ok), "more"]), "").

atom_not_utf8(Config) ->
    refused(Config, partisan_raw:message(hostile_inbox, <<131, $w, 3, 255, 254, 253>>), "atom").

fun_of_wrong_size(Config) ->
    X = rand:uniform(9),
    <<131, $p, Size:32, Rest/binary>> = term_to_binary(fun() -> X end),
    refused(Config, partisan_raw:message(hostile_inbox, <<131, $p, (Size + 3):32, Rest/binary, 0, 0, 0>>), "").

head_with_unknown_flags(Config) ->
    refused(Config, partisan_raw:frame(1, <<16#f0, 1, "x", 131, $j>>), "flags").

%% ---------------------------------------------------------------------------------------------
%% Destinations

names_that_do_not_exist(Config) ->
    A = ?config(a, Config),
    ok = partisan_ct:call(A, ?MODULE, level, [info]),
    {ok, #{socket := Socket} = Up} = session(?config(raw, Config)),
    Start = erlang:monotonic_time(millisecond),
    Atoms = partisan_ct:call(A, erlang, system_info, [atom_count]),
    Nil = <<131, $j>>,
    _ = [
        ok = gen_tcp:send(Socket, [
            partisan_raw:frame(1, [<<0, 16, "nobody">>, integer_to_binary(1000000000 + M * 1000 + N), Nil])
         || N <- lists:seq(1, 1000)
        ])
     || M <- lists:seq(1, 100)
    ],
    ok = partisan_raw:send(Up, partisan_raw:message(hostile_inbox, term_to_binary(after_names))),
    ok = received(Config, after_names),
    New = partisan_ct:call(A, erlang, system_info, [atom_count]) - Atoms,
    ?assert(New < 200, New),
    timer:sleep(600),
    Ticks = (erlang:monotonic_time(millisecond) - Start) div 250 + 1,
    Lines = [L || L <- partisan_ct:call(A, ?MODULE, lines, []), string:find(L, "do not exist") =/= nomatch],
    ok = partisan_ct:call(A, ?MODULE, level, [notice]),
    ?assert(length(Lines) >= 1 andalso length(Lines) =< Ticks, {Lines, Ticks}),
    partisan_raw:close(Up),
    ok = disconnected(Config).

pid_of_other_creation(Config) ->
    {ok, Up} = session(?config(raw, Config)),
    {Id, Serial, Creation} = partisan_ct:call(?config(a, Config), ?MODULE, inbox, []),
    Send = fun(C, Term) ->
        Head = partisan_raw:pid_dest(Id, Serial, C),
        ok = partisan_raw:send(Up, partisan_raw:message(Head, term_to_binary(Term)))
    end,
    Send(Creation + 1, wrong),
    Send(Creation, right),
    Send(0, any),
    ok = received(Config, any),
    Got = partisan_ct:call(?config(a, Config), ?MODULE, inbox_messages, []),
    ?assertEqual([right, any], [M || M <- Got, lists:member(M, [wrong, right, any])]),
    partisan_raw:close(Up),
    ok = disconnected(Config).

%% ---------------------------------------------------------------------------------------------
%% Membership

membership_garbage(Config) ->
    Frame = partisan_raw:message(partisan_membership, [<<131, $m, 64:32>>, rand:bytes(64)]),
    refused(Config, lists:duplicate(1000, Frame), "embership").

membership_megabyte(Config) ->
    Size = 1000000,
    Frame = partisan_raw:message(partisan_membership, [<<131, $m, Size:32>>, rand:bytes(Size)]),
    refused(Config, [Frame, Frame, Frame], "embership").

membership_of_a_million(Config) ->
    Frame = partisan_raw:membership(<<2, 3, 1000000:32, 0:64>>),
    refused(Config, fun(Up) -> [partisan_raw:greeting(Up), Frame] end, "number of members").

%% Who says to be another than the session has proved, and who speaks before it says who it is.
membership_of_another(Config) ->
    refused(Config, fun(Up) -> partisan_raw:greeting(Up#{name => <<"x@h">>}) end, "name in the hello").

membership_before_hello(Config) ->
    refused(Config, partisan_raw:membership(<<1, 3, 0:32>>), "before hello").

%% One that is no member, and whose state does not say that we are, changes nothing.
membership_by_stranger(Config) ->
    A = ?config(a, Config),
    Members = partisan_ct:call(A, partisan_peer_service, members, []),
    {ok, Up} = session(?config(raw, Config)),
    B = atom_to_binary(partisan_ct:name(?config(b, Config))),
    Own = maps:get(name, Up),
    ok = partisan_raw:send(Up, partisan_raw:greeting(Up)),
    _ = [
        ok = partisan_raw:send(Up, partisan_raw:members(Kind, Entries))
     || Kind <- [2, 3, 4, 5],
        Entries <- [[{B, 99, 1, gone}], [{B, 99, 1, gone}, {Own, 1, 1, 4000}], [{<<"x@h">>, 1, 1, 4001}]]
    ],
    ok = partisan_raw:send(Up, partisan_raw:message(hostile_inbox, term_to_binary(after_lies))),
    ok = received(Config, after_lies),
    exchange(Config),
    ?assertEqual(Members, partisan_ct:call(A, partisan_peer_service, members, [])),
    partisan_raw:close(Up),
    ok = disconnected(Config).

%% ---------------------------------------------------------------------------------------------
%% What the cases share

%% An established peer sends this: its session ends, and the log says once why.
refused(Config, Make, Why) when is_function(Make) ->
    {ok, Up} = session(?config(raw, Config)),
    _ = partisan_raw:send(Up, Make(Up)),
    ?assert(partisan_raw:closed(Up, 5000)),
    ok = disconnected(Config),
    partisan_raw:close(Up),
    one_line(Config, Why);
refused(Config, Bytes, Why) ->
    refused(Config, fun(_) -> Bytes end, Why).

%% An earlier session of the name may still be ending.
session(Raw) ->
    session(Raw, 20).

session(Raw, Tries) ->
    case partisan_raw:session(Raw) of
        {ok, Up} -> {ok, Up};
        Error when Tries =< 1 -> Error;
        _ -> timer:sleep(50), session(Raw, Tries - 1)
    end.

%% @doc The pair sends messages both ways.
exchange(Config) ->
    {A, B} = {?config(a, Config), ?config(b, Config)},
    Mark = erlang:unique_integer(),
    Big = binary:copy(<<7>>, 100000),
    ok = partisan_ct:call(A, partisan, forward_message, [{hostile_inbox, partisan_ct:name(B)}, {Mark, Big}]),
    ok = partisan_ct:call(B, partisan, forward_message, [{hostile_inbox, partisan_ct:name(A)}, {Mark, Big}]),
    ok = partisan_ct:call(B, ?MODULE, await, [{Mark, Big}]),
    ok = partisan_ct:call(A, ?MODULE, await, [{Mark, Big}]).

received(Config, Term) ->
    partisan_ct:call(?config(a, Config), ?MODULE, await, [Term]).

disconnected(Config) ->
    Name = ?config(name, Config),
    partisan_ct:wait(fun() ->
        not lists:member(Name, partisan_ct:call(?config(a, Config), partisan, nodes, []))
    end).

%% @doc Bytes that the VM and the operating system count for the node.
memory(Vm) ->
    partisan_ct:call(Vm, ?MODULE, memory, []).

memory() ->
    _ = [garbage_collect(P) || P <- processes()],
    {ok, Status} = file:read_file("/proc/self/status"),
    {match, [Kb]} = re:run(Status, "VmRSS:\\s+([0-9]+)", [{capture, all_but_first, list}]),
    {erlang:memory(total), list_to_integer(Kb) * 1024}.

lines(Config) ->
    partisan_ct:call(?config(a, Config), ?MODULE, lines, []).

one_line(Config, Contains) ->
    partisan_ct:wait(fun() -> lines(Config) =/= [] end),
    timer:sleep(50),
    Lines = lines(Config),
    ct:pal("log: ~p", [Lines]),
    ?assertMatch([_], Lines),
    [Line] = Lines,
    ?assertNotEqual(nomatch, string:find(Line, Contains), Line),
    Line.

at_most_one_line(Config) ->
    timer:sleep(100),
    Lines = lines(Config),
    ?assert(length(Lines) =< 1, Lines).

%% ---------------------------------------------------------------------------------------------
%% On the nodes

%% @doc Collects messages and the lines that an operator would see.
install() ->
    ok = collect(),
    ok = logger:add_handler(hostile, ?MODULE, #{}),
    ok.

collect() ->
    Self = self(),
    spawn(fun() ->
        register(hostile_inbox, self()),
        _ = ets:new(hostile_inbox, [named_table, public, ordered_set]),
        _ = ets:new(hostile_log, [named_table, public, ordered_set]),
        Self ! collecting,
        inbox_loop()
    end),
    receive collecting -> ok end.

inbox_loop() ->
    receive
        Term -> ets:insert(hostile_inbox, {erlang:unique_integer([monotonic]), Term})
    end,
    inbox_loop().

log(#{msg := Message, level := Level}, _) ->
    Text = case Message of
        {string, S} -> S;
        {report, R} -> io_lib:format("~p", [R]);
        {Format, Args} -> io_lib:format(Format, Args)
    end,
    Line = lists:flatten(io_lib:format("~s ~ts", [Level, Text])),
    ets:insert(hostile_log, {erlang:unique_integer([monotonic]), Line}).

level(Level) ->
    logger:set_primary_config(level, Level).

forget() ->
    ets:delete_all_objects(hostile_log),
    ets:delete_all_objects(hostile_inbox).

lines() ->
    [Line || {_, Line} <- ets:tab2list(hostile_log)].

inbox_messages() ->
    [Term || {_, Term} <- ets:tab2list(hostile_inbox)].

%% @doc The inbox as a stranger addresses it.
inbox() ->
    Pid = whereis(hostile_inbox),
    {_, Creation} = partisan_nif:identity(),
    [_, Id, Serial] = string:tokens(pid_to_list(Pid), "<.>"),
    {list_to_integer(Id), list_to_integer(Serial), Creation}.

await(Term) ->
    partisan_ct:wait(fun() -> ets:match_object(hostile_inbox, {'_', Term}) =/= [] end).

%% @doc Sends 1 MiB binaries until there is no room, or it is plain that nothing stops us.
fill(Name) ->
    fill(Name, binary:copy(<<1>>, 1 bsl 20), 0).

fill(_, _, 500) ->
    {500, partisan_nif:queued()};
fill(Name, Binary, Sent) ->
    case partisan:forward_message({sink, Name}, Binary, [nosuspend]) of
        ok -> fill(Name, Binary, Sent + 1);
        {error, busy} -> {Sent, partisan_nif:queued()}
    end.
