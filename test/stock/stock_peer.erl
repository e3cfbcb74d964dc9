-module(stock_peer).
-export([serve/0]).
serve() -> ok.
