%% @doc A server that the other node calls (`stock_peer:calls_out/1').
-module(stock_server).
-behaviour(gen_server).

-export([init/1, handle_call/3, handle_cast/2]).

init([]) ->
    {ok, []}.

handle_call(never, _, State) -> {noreply, State};
handle_call(self, _, State) -> {reply, self(), State};
%% Who waits is told.
handle_call(stop, _, State) -> {stop, {shutdown, asked}, State};
handle_call(Request, _, State) -> {reply, {got, Request}, State}.

handle_cast({tell, Pid, Message}, State) ->
    Pid ! Message,
    {noreply, State}.
