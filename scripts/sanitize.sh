#!/usr/bin/env bash
# Runs the Common Test suites with a NIF that AddressSanitizer watches; docs/sanitizers.md tells what
# that finds and what it cannot.
#
#   scripts/sanitize.sh [SUITE...]   default: forward terms order pressure hostile
#
#   SANITIZE_BUILT=1         take the NIF of the last run
#   SANITIZE_ERL_FLAGS=...   flags for every VM; with "+Mea min" it takes all its memory from malloc, so
#                            that ASan sees the bounds of binaries too (not for hostile: erlang:memory/1)
#
# Needs gcc's libasan. The NIF goes to priv/ for the time of the run only.
set -euo pipefail
cd "$(dirname "$0")/.."

suites=("$@")
[ ${#suites[@]} -gt 0 ] || suites=(forward terms order pressure hostile)
triple=$(rustc -vV | sed -n 's/^host: //p')
target=${CARGO_TARGET_DIR:-target}/asan
runtime=$(cc -print-file-name=libasan.so)
[ -e "$runtime" ] || { echo "sanitize: gcc has no libasan.so here" >&2; exit 1; }

# A stable compiler takes -Z options with RUSTC_BOOTSTRAP. With --target, build scripts and macros stay
# without the sanitizer.
if [ "${SANITIZE_BUILT:-}" != 1 ]; then
    RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address \
        cargo build --release --locked -p partisan_nif --target "$triple" --target-dir "$target"
fi
library=$target/$triple/release/libpartisan_nif.so

logs=$PWD/_build/sanitize
rm -rf "$logs"
mkdir -p "$logs" priv
kept=$(mktemp)
[ ! -e priv/partisan_nif.so ] || cp priv/partisan_nif.so "$kept"
restore() {
    if [ -s "$kept" ]; then
        cp "$kept" priv/.restored.so && mv -f priv/.restored.so priv/partisan_nif.so
    else
        rm -f priv/partisan_nif.so
    fi
    rm -f "$kept"
}
trap restore EXIT
cp "$library" priv/.asan.so
mv -f priv/.asan.so priv/partisan_nif.so

# PARTISAN_NIF_SKIP: the build hook leaves priv/ alone.
# detect_leaks=0: a VM frees nothing when it ends.
export PARTISAN_NIF_SKIP=1
rebar3 as test compile
status=0
env LD_PRELOAD="$runtime" ERL_ZFLAGS="${SANITIZE_ERL_FLAGS:-}" \
    ASAN_OPTIONS="detect_leaks=0:abort_on_error=1:handle_segv=1:log_path=$logs/asan" \
    rebar3 ct --suite "$(printf 'test/%s_SUITE,' "${suites[@]}" | sed 's/,$//')" || status=$?

if compgen -G "$logs/asan.*" >/dev/null; then
    cat "$logs"/asan.*
    echo "sanitize: AddressSanitizer has found something" >&2
    exit 1
fi
[ "$status" -eq 0 ] && echo "sanitize: nothing found"
exit "$status"
