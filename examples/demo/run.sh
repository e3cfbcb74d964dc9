#!/usr/bin/env bash
# `make demo`: two BEAM nodes and one Rust node, on this machine, real data through them. See src/demo.erl.
#
#   run.sh               correctness, then speed
#   run.sh correctness   correctness only: a matter of seconds
#
# DEMO_TIMEOUT: seconds after which the nodes are killed.
set -euo pipefail
case ${1:-} in
"") speed=true ;;
correctness) speed=false ;;
*) echo "usage: $0 [correctness]" >&2; exit 2 ;;
esac
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
patience=${DEMO_TIMEOUT:-480}

"$top/scripts/bootstrap.sh" build

echo "== build"
cd "$top"
artifacts=$(cargo build --release --locked --example echo --message-format=json-render-diagnostics)
echo_node=$(printf '%s\n' "$artifacts" | grep -o '"executable":"[^"]*/echo"' | tail -n 1 | cut -d '"' -f 4)
cd "$here"
mkdir -p _checkouts
[ -e _checkouts/partisan ] || ln -s ../../.. _checkouts/partisan
rebar3 compile

work=$(mktemp -d)
started=()
finish() {
    status=$?
    trap - EXIT INT TERM
    for pid in "${started[@]}"; do
        kill -9 "$pid" 2>/dev/null || true
    done
    wait 2>/dev/null || true
    if [ "$status" -ne 0 ]; then
        for log in "$work"/*.log; do
            [ -s "$log" ] && printf '\n-- %s\n' "$(basename "$log")" && tail -n 40 "$log"
        done
        [ "$status" -eq 124 ] && echo "the demo took longer than $patience s"
    fi
    rm -rf "$work"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Four free ports, all held until all are known. The demo has a name server of its own: it disturbs no other nodes.
read -r A_PORT B_PORT RUST_PORT ERL_EPMD_PORT < <(erl -noshell -boot no_dot_erlang -eval '
    Sockets = [element(2, gen_tcp:listen(0, [{ip, {127, 0, 0, 1}}])) || _ <- lists:seq(1, 4)],
    [io:format("~b ", [element(2, inet:port(Socket))]) || Socket <- Sockets],
    io:nl(), halt().')
export ERL_EPMD_PORT ERL_EPMD_ADDRESS=127.0.0.1 ERL_CRASH_DUMP_SECONDS=0
epmd &
started+=($!)
for _ in $(seq 100); do epmd -names >/dev/null 2>&1 && break || sleep 0.05; done
cookie=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
for node in a b; do
    sed "s/@A_PORT@/$A_PORT/; s/@B_PORT@/$B_PORT/; s/@SPEED@/$speed/" "config/$node.config.in" >"$work/$node.config"
done
paths=$(rebar3 path --ebin --separator ' ')

node() { # a or b, what it runs: becomes the node
    # shellcheck disable=SC2086
    exec erl -noinput -boot no_dot_erlang -name "$1@127.0.0.1" -setcookie "$cookie" -config "$work/$1" \
        -pa $paths -s demo "$2"
}

echo "== demo"
(node b serve) >"$work/b.log" 2>&1 &
started+=($!)
"$echo_node" --name rust@127.0.0.1 --listen "127.0.0.1:$RUST_PORT" --cookie "$cookie" \
    --join "a@127.0.0.1:$A_PORT" >"$work/rust.log" 2>&1 &
started+=($!)
(node a drive) &
driver=$!
started+=("$driver")
sleep "$patience" &
watchdog=$!
started+=("$watchdog")
status=0
wait -n -p ended "$driver" "$watchdog" || status=$?
[ "$ended" = "$driver" ] || status=124
exit "$status"
