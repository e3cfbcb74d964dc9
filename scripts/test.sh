#!/usr/bin/env bash
# Everything that CI runs, step by step. A failed step does not hide the ones after it.
set -uo pipefail
cd "$(dirname "$0")/.."

# Dialyzer's tables of OTP are built once and stay with the build.
export REBAR_CACHE_DIR=${REBAR_CACHE_DIR:-$PWD/_build/cache}

began=$SECONDS
count=0
failed=()
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

step() { # heading, command...
    local heading=$1 start=$SECONDS outcome=ok
    shift
    printf '\n== %s\n' "$heading"
    # Not a pipe: what a step leaves running must not hold up the next.
    "$@" > >(tee "$logs/$heading") 2>&1 || { outcome=FAILED; failed+=("$heading"); }
    count=$((count + 1))
    printf -- '-- %s: %s, %d s\n' "$heading" "$outcome" "$((SECONDS - start))"
}

# Failures stand at the end as well, where whoever sees only the last lines finds them.
recall() { # heading
    printf '\n== why [%s] failed\n' "$1"
    grep -aE 'FAILED|panicked at|^error|^Reason:|\*failed\*|is undefined|^Diff in' "$logs/$1" | head -12 | cut -c 1-300
    tail -n 6 "$logs/$1" | cut -c 1-300
}

finish() {
    local took=$((SECONDS - began)) heading
    for heading in "${failed[@]}"; do recall "$heading"; done
    if [ ${#failed[@]} -eq 0 ]; then
        printf '\nmake test: all %d steps passed in %d min %d s\n' "$count" $((took / 60)) $((took % 60))
        exit 0
    fi
    printf '\nmake test: %d of %d steps FAILED in %d min %d s:' ${#failed[@]} "$count" $((took / 60)) $((took % 60))
    printf ' [%s]' "${failed[@]}"
    printf '\n'
    exit 1
}

step "tools" scripts/bootstrap.sh test
[ ${#failed[@]} -eq 0 ] || finish

# Stock nodes of other releases of OTP that the tests talk to; without this they are skipped.
if [ "${PARTISAN_OTP_REQUIRED:-}" = 1 ]; then
    step "OTP 27" scripts/otp.sh 27
    step "OTP 29" scripts/otp.sh 29
fi
step "cargo fmt" cargo fmt --all --check
step "cargo clippy" cargo clippy --locked --workspace --all-targets -- -D warnings
# As the NIF and services use the crate, and the program without TLS.
step "cargo clippy, no features" cargo clippy --locked -p partisan --no-default-features --all-targets -- -D warnings
step "cargo clippy, only cli" cargo clippy --locked -p partisan --no-default-features --features cli -- -D warnings
step "cargo test" cargo test --locked --workspace
step "cargo test, no features" cargo test --locked -p partisan --no-default-features --lib node::stock
step "cargo doc" env RUSTDOCFLAGS=-Dwarnings cargo doc --locked --workspace --no-deps
step "rebar3 compile" rebar3 compile
step "rebar3 eunit" rebar3 eunit
step "rebar3 ct" rebar3 ct
step "rebar3 xref" rebar3 xref
step "rebar3 dialyzer" rebar3 dialyzer
step "demo, correctness" examples/demo/run.sh correctness
step "quick start" scripts/quick_start.sh
finish
