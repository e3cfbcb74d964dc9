%% What the modules of concerns share (`stock_peer').

-import(stock_tools, [
    run/1, together/1, puppet/1, order/2, start/2, settle/1, same_echo/2, release/0, reachable/1, ext/1,
    wait_until/1, within/2
]).

%% How long an answer may take.
-define(PATIENCE, 20000).

%% The next message that matches.
-define(await(Pattern, What),
    receive
        Pattern -> ok
    after ?PATIENCE -> error({missing, What, process_info(self(), messages)})
    end
).

%% No message that matches: after an echo, or for a while.
-define(none(Pattern),
    receive
        Pattern -> error({unexpected, ??Pattern})
    after 0 -> ok
    end
).
