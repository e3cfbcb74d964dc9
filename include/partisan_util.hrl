%% Guards for addresses, and records as lists and maps.

-ifndef(PARTISAN_UTIL_HRL).
-define(PARTISAN_UTIL_HRL, true).

%% Kept for those who have them in code that is compiled but not run: they call a function
%% record_info/2 of the including module, which the compiler doesn't let anyone define.
-define(RECORD_TO_LIST(Record),
    lists:zip(?MODULE:record_info(fields, Record), tl(tuple_to_list(Record)))
).
-define(RECORD_TO_MAP(Record), maps:from_list(?RECORD_TO_LIST(Record))).

%% For guards: false, or a failing guard, for anything but an address.
-define(IS_IP(X), (?IS_IP4(X) orelse ?IS_IP6(X))).

-define(IS_IP4(A, B, C, D), (((A) bor (B) bor (C) bor (D)) band (bnot 16#ff) =:= 0)).
-define(IS_IP4(X),
    (tuple_size(X) =:= 4 andalso
        ?IS_IP4(element(1, X), element(2, X), element(3, X), element(4, X)))
).

-define(IS_IP6(A, B, C, D, E, F, G, H),
    (((A) bor (B) bor (C) bor (D) bor (E) bor (F) bor (G) bor (H)) band (bnot 16#ffff) =:= 0)
).
-define(IS_IP6(X),
    (tuple_size(X) =:= 8 andalso
        ?IS_IP6(
            element(1, X),
            element(2, X),
            element(3, X),
            element(4, X),
            element(5, X),
            element(6, X),
            element(7, X),
            element(8, X)
        ))
).

-define(IS_PORT_NBR(N), ((N) >= 1 andalso (N) =< 65535)).

-endif.
