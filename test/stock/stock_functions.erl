%% @doc What the peer program lets others call and spawn (`stock_peer').
-module(stock_functions).

-export([echo/1, raise/2, sleep/2, send/2, hello/2, leader/1]).

%% @doc Returns its argument.
echo(Term) -> Term.

%% @doc Raises.
raise(error, Reason) -> erlang:error(Reason);
raise(exit, Reason) -> exit(Reason);
raise(throw, Reason) -> throw(Reason).

%% @doc Returns that much later.
sleep(Millis, Term) ->
    timer:sleep(Millis),
    Term.

%% @doc Sends.
send(To, Message) ->
    To ! Message,
    ok.

%% @doc Tells who it is, and ends.
hello(To, Ref) ->
    To ! {hello, Ref, self()},
    ok.

%% @doc Tells its group leader.
leader(To) ->
    To ! {leader, group_leader()},
    ok.
