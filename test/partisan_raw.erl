%% @doc A peer made of nothing but a socket and `docs/internals.md'. It speaks the wire format well
%% enough to be let in, and then whatever a test wants it to say.
-module(partisan_raw).

-export([new/2, connect/1, name/2, read_packet/1, shake/1, shake/2, reply/2, extra/3, binding/3]).
-export([hello/1, say_hello/2, session/1, session/2, close/1]).
-export([frame/2, message/2, first/3, more/2, elided/3, pid_dest/3, name_dest/1]).
-export([greeting/1, members/2, membership/1]).
-export([send/2, closed/1, closed/2, read_frame/1]).
-export([listen/0, accept/3]).

-export_type([raw/0]).

%% `nonce', `theirs' and `session' are there after the handshake, `sockets' after the set-up.
-type raw() :: #{
    name := binary(), cookie := binary(), instance := integer(), creation := integer(),
    port := inet:port_number(), from := inet:ip4_address(), socket => inet:socket(), _ => _
}.

%% @doc A peer called `Name' of the node at `Port'. It has an address of its own, so that nodes can
%% tell its mischief from another's.
-spec new(inet:port_number(), atom()) -> raw().
new(Port, Name) ->
    #{
        name => atom_to_binary(Name),
        cookie => partisan_ct:cookie(),
        instance => rand:uniform(1 bsl 63),
        creation => rand:uniform(1 bsl 31),
        port => Port,
        from => address(Name)
    }.

address(Name) ->
    <<A, B, C, _/binary>> = erlang:md5(atom_to_binary(Name)),
    {127, 1 + A rem 254, B, 1 + C rem 254}.

-spec connect(raw()) -> raw().
connect(#{port := Port, from := From} = Raw) ->
    Options = [binary, {active, false}, {nodelay, true}, {ip, From}, {sndbuf, 1 bsl 20}],
    {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, Port, Options, 5000),
    Raw#{socket => Socket}.

-spec close(raw()) -> ok.
close(Raw) ->
    lists:foreach(fun gen_tcp:close/1, maps:get(sockets, Raw, [maps:get(socket, Raw)])).

%% @doc The name packet, without its length.
-spec name(raw(), binary()) -> binary().
name(#{name := Name, creation := Creation}, Trailer) ->
    Flags = element(2, erts_internal:get_dflags()),
    <<$N, Flags:64, Creation:32, (byte_size(Name)):16, Name/binary, Trailer/binary>>.

trailer(#{instance := Instance} = Raw, Nonce, Purpose) ->
    More = maps:get(trailer_tail, Raw, <<>>),
    Capabilities = maps:get(capabilities, Raw, 0),
    Length = 30 + byte_size(More),
    <<"PTSN", 1, Length:16, Capabilities:32, 1, Purpose, Instance:64, Nonce/binary, More/binary>>.

send_packet(#{socket := Socket}, Packet) ->
    gen_tcp:send(Socket, [<<(byte_size(Packet)):16>>, Packet]).

-spec read_packet(raw()) -> {ok, binary()} | {error, term()}.
read_packet(#{socket := Socket}) ->
    case gen_tcp:recv(Socket, 2, 6000) of
        {ok, <<Length:16>>} -> gen_tcp:recv(Socket, Length, 6000);
        Error -> Error
    end.

%% @doc The dialler's handshake of a first connection.
-spec shake(raw()) -> {ok, raw()} | {error, term()}.
shake(Raw) ->
    shake(Raw, first).

%% @doc The same for a further connection: `{Session, Index, Mac}', where `Mac' makes the proof.
shake(Raw0, Purpose) ->
    Nonce = rand:bytes(16),
    Raw = (connect(Raw0))#{nonce => Nonce},
    Byte = case Purpose of first -> 0; _ -> 1 end,
    ok = send_packet(Raw, name(Raw, trailer(Raw, Nonce, Byte))),
    case read_packet(Raw) of
        {ok, <<"sok", _/binary>>} ->
            {ok, <<$N, _:64, Challenge:32, _:32, L:16, Their:L/binary, Rest/binary>>} = read_packet(Raw),
            <<"PTSN", 1, _:16, _:32, 1, Byte, _:64, Theirs:16/binary, _/binary>> = Rest,
            Binding = case Purpose of
                first -> <<>>;
                {Session, Index, Mac} ->
                    Proof = Mac(binding(Raw, Session, {Index, Challenge, Nonce, Theirs})),
                    <<Session/binary, Index:16, Proof/binary>>
            end,
            Id = binary:part(crypto:hash(sha256, ["partisan session 1", Nonce, Theirs]), 0, 16),
            reply(Raw#{theirs => Theirs, id => Id, node => Their}, {Challenge, Binding});
        {ok, <<"s", Status/binary>>} ->
            ok = gen_tcp:close(maps:get(socket, Raw)),
            {error, Status};
        Error ->
            Error
    end.

%% @doc Answers the challenge and checks the answer to ours.
reply(#{cookie := Cookie} = Raw, {Challenge, Binding}) ->
    Mine = rand:uniform(1 bsl 32) - 1,
    Reply = <<$r, Mine:32, (digest(Cookie, Challenge))/binary, Binding/binary>>,
    ok = send_packet(Raw, Reply),
    Digest = digest(Cookie, Mine),
    case read_packet(Raw) of
        {ok, <<$a, Digest:16/binary>>} -> {ok, Raw#{reply => Reply}};
        {ok, Other} -> {error, Other};
        Error -> Error
    end.

digest(Cookie, Challenge) ->
    erlang:md5([Cookie, integer_to_binary(Challenge)]).

binding(#{cookie := Cookie}, Session, {Index, Challenge, Nonce, Theirs}) ->
    Text = ["partisan bind 1", Session, <<Index:16, Challenge:32>>, Nonce, Theirs],
    crypto:mac(hmac, sha256, Cookie, Text).

%% @doc Opens connection `Index' of the session; `Mac' may spoil the proof.
-spec extra(raw(), integer(), fun((binary()) -> binary())) -> {ok, raw()} | {error, term()}.
extra(#{id := Id} = Raw, Index, Mac) ->
    shake(Raw, {Id, Index, Mac}).

%% @doc The body of a HELLO: `{Name, Parallelism}' each.
-spec hello([{binary(), non_neg_integer()}]) -> binary().
hello(Channels) ->
    Each = [<<(byte_size(N)), N/binary, P:16, 0, 0>> || {N, P} <- Channels],
    iolist_to_binary([<<1, (length(Channels)):16>>, Each]).

%% @doc Exchanges hellos; the number of connections follows from both.
-spec say_hello(raw(), [{binary(), pos_integer()}]) -> {ok, pos_integer()} | {error, term()}.
say_hello(#{socket := Socket} = Raw, Mine) ->
    ok = gen_tcp:send(Socket, frame(6, hello(Mine))),
    case read_frame(Raw) of
        {ok, 6, <<1, Count:16, Body/binary>>} ->
            Theirs = channels(Count, Body),
            Merge = fun({N, P}, M) -> maps:update_with(N, fun(Q) -> max(P, Q) end, P, M) end,
            Plan = lists:foldl(Merge, #{<<"undefined">> => 1}, Mine ++ Theirs),
            {ok, lists:sum([min(256, P) || P <- maps:values(Plan)])};
        Other ->
            {error, Other}
    end.

channels(0, _) -> [];
channels(N, <<L, Name:L/binary, P:16, _, _, Rest/binary>>) -> [{Name, P} | channels(N - 1, Rest)].

%% @doc Brings up a whole session.
-spec session(raw()) -> {ok, raw()} | {error, term()}.
session(Raw) ->
    session(Raw, [{<<"undefined">>, 1}]).

session(Raw0, Channels) ->
    case shake(Raw0) of
        {ok, Raw} ->
            case say_hello(Raw, Channels) of
                {ok, Total} ->
                    Extras = [
                        begin
                            {ok, #{socket := S}} = extra(Raw, Index, fun(Mac) -> Mac end),
                            S
                        end
                     || Index <- lists:seq(1, Total - 1)
                    ],
                    case read_frame(Raw) of
                        {ok, 7, <<>>} -> {ok, Raw#{sockets => [maps:get(socket, Raw) | Extras]}};
                        Other -> {error, Other}
                    end;
                Error ->
                    Error
            end;
        Error ->
            Error
    end.

%% @doc A frame of this kind.
-spec frame(byte(), iodata()) -> iodata().
frame(Kind, Body) ->
    [<<(iolist_size(Body) + 1):32, Kind>>, Body].

name_dest(Name) ->
    Bytes = atom_to_binary(Name),
    <<0, (byte_size(Bytes)), Bytes/binary>>.

pid_dest(Id, Serial, Creation) ->
    <<1, Id:32, Serial:32, Creation:32>>.

%% @doc A MESSAGE; the destination is a name or an encoded head.
message(Name, Term) when is_atom(Name) -> message(name_dest(Name), Term);
message(Head, Term) -> frame(1, [Head, Term]).

first(Stream, Total, Payload) -> frame(2, [<<Stream:32, Total:64>>, Payload]).

more(Stream, Payload) -> frame(3, [<<Stream:32>>, Payload]).

%% @doc An elided message: head, term, and what follows it.
elided(Name, Term, Blobs) ->
    <<0, Rest/binary>> = name_dest(Name),
    iolist_to_binary([<<4, Rest/binary, (iolist_size(Term)):32>>, Term, Blobs]).

%% @doc A membership message of this kind with entries `{Name, Epoch, Version, Port | gone}'.
members(Kind, Entries) ->
    membership([<<2, Kind, (length(Entries)):32>> | [entry(E) || E <- lists:sort(Entries)]]).

%% @doc A frame that carries a message of the full mesh with which a cluster begins, whatever it is.
-spec membership(iodata()) -> iodata().
membership(Body) ->
    control([1, 3, <<0:64, 0:64>>, Body]).

%% @doc The frames that come before the first of them: who this node is, that its cluster runs the full mesh, and the link.
-spec greeting(raw()) -> iodata().
greeting(#{name := Name}) ->
    Overlay = <<"full_mesh">>,
    [
        control(<<0, 2, (byte_size(Name)):16, Name/binary, 0, 0>>),
        control(<<1, 0, 0:64, 0:64, (byte_size(Overlay)):16, Overlay/binary, 0>>),
        control(<<1, 1, 0:64, 0:64, 1:32>>)
    ].

control(Body) ->
    Binary = iolist_to_binary(Body),
    message(partisan_membership, [<<131, $m, (byte_size(Binary)):32>>, Binary]).

entry({Name, Epoch, Version, Port}) ->
    Spec = case Port of
        gone -> <<0>>;
        _ -> <<1, 1, 4, 127, 0, 0, 1, Port:16, 0>>
    end,
    <<(byte_size(Name)):16, Name/binary, Epoch:64, Version:64, Spec/binary>>.

-spec send(raw(), iodata()) -> ok | {error, term()}.
send(#{socket := Socket}, Bytes) ->
    gen_tcp:send(Socket, Bytes).

-spec read_frame(raw()) -> {ok, byte(), binary()} | {error, term()}.
read_frame(#{socket := Socket}) ->
    case gen_tcp:recv(Socket, 4, 12000) of
        {ok, <<1:32>>} ->
            case gen_tcp:recv(Socket, 1, 6000) of
                {ok, <<Kind>>} -> {ok, Kind, <<>>};
                Error -> Error
            end;
        {ok, <<Length:32>>} ->
            case gen_tcp:recv(Socket, Length, 6000) of
                {ok, <<Kind, Body/binary>>} -> {ok, Kind, Body};
                Error -> Error
            end;
        Error ->
            Error
    end.

closed(Raw) ->
    closed(Raw, 3000).

%% @doc Whether the node closes the connection within the time; what it says first is skipped.
-spec closed(raw() | inet:socket(), timeout()) -> boolean().
closed(#{socket := Socket}, Millis) ->
    closed(Socket, Millis);
closed(Socket, Millis) ->
    Start = erlang:monotonic_time(millisecond),
    case gen_tcp:recv(Socket, 0, Millis) of
        {ok, _} ->
            Left = Millis - (erlang:monotonic_time(millisecond) - Start),
            Left > 0 andalso closed(Socket, Left);
        {error, timeout} ->
            false;
        {error, _} ->
            true
    end.

%% @doc A socket for a node to dial.
listen() ->
    {ok, Listener} = gen_tcp:listen(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}]),
    {ok, Port} = inet:port(Listener),
    {Listener, Port}.

%% @doc The listener's handshake.
accept(Listener, Raw0, Millis) ->
    {ok, Socket} = gen_tcp:accept(Listener, Millis),
    Raw = Raw0#{socket => Socket},
    {ok, <<$N, _:64, _:32, L:16, _:L/binary, "PTSN", 1, _:16, _:32, 1, Purpose, _/binary>>} =
        read_packet(Raw),
    ok = send_packet(Raw, <<"sok">>),
    Challenge = rand:uniform(1 bsl 32) - 1,
    <<$N, Flags:64, Rest/binary>> = name(Raw, trailer(Raw, rand:bytes(16), Purpose)),
    ok = send_packet(Raw, <<$N, Flags:64, Challenge:32, Rest/binary>>),
    Cookie = maps:get(cookie, Raw),
    Digest = digest(Cookie, Challenge),
    case read_packet(Raw) of
        {ok, <<$r, Theirs:32, Digest:16/binary, _/binary>>} ->
            ok = send_packet(Raw, <<$a, (digest(Cookie, Theirs))/binary>>),
            {ok, Purpose, Raw};
        Other ->
            {error, Other}
    end.
